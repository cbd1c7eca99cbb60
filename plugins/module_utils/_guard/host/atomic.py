# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file is there whole or not at all: it is written beside its place and takes it in one step."""

from __future__ import annotations

import contextlib
import os


def beside(path: str) -> str:
    """Where it is written first; a run that was killed may have left it, and the next one takes the same. It begins and
    ends as nothing does that anybody gathers by name."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.exfil-guard")


def write(path: str, content: bytes, mode: int = 0o600, *, durable: bool = True, exact: bool = False) -> None:
    """A link in its place is replaced, not followed. OSError: what was there still is, and nothing lies beside it.
    ``durable``: a power cut leaves the old content or the new, never an empty file; only after ``sync`` is it certain
    to be the new one. ``exact``: mode and owner are as told, whatever umask and folder would make of them."""
    temporary = beside(path)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600 if exact else mode)
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            if exact:
                os.fchown(fd, os.geteuid(), os.getegid())
                os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def sync(folder: str) -> None:
    """What was put into the folder, or taken out of it, is so after a power cut as well."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
