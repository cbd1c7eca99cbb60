# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What surrounds each operation: the lock, and messages for what the kernel refuses."""

from __future__ import annotations

import contextlib
import errno
from typing import ContextManager, Iterator

from ..errors import EnforcerError
from ..host import lock

_REMEDIES = {
    errno.ENOMEM: "Free some memory and run again",
    errno.EPERM: "Run as root with CAP_BPF, CAP_SYS_ADMIN and CAP_PERFMON, as a task that no rule with `subjects` "
    "binds and that has read nothing labelled, and without lockdown=confidentiality",
}


def locked(command: str, check: bool, path: str) -> ContextManager[None]:
    """Holds the lock, except in check mode. ``command``: what a run that waits for the lock reports."""
    return contextlib.nullcontext() if check else lock.hold(command, path)


@contextlib.contextmanager
def explained(consequence: str = "") -> Iterator[None]:
    """Turns an OSError of the kernel into an EnforcerError. ``consequence``: the end of its message."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise EnforcerError(
            f"the kernel refuses: {error.strerror or error}{where}{consequence}", _REMEDIES.get(error.errno or 0, "")
        ) from error
