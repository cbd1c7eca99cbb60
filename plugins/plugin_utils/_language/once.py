# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one run works out once for all its hosts. Ansible works for each host in a process of its own, so that nothing
in memory is shared: results lie in the run's own temporary folder, which Ansible removes. Private to this
collection."""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any, Callable

from ansible import constants
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import atomic
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import canonical


def once(folder: str, parts: Any, work: Callable[[], Any]) -> Any:
    """What ``work()`` gives, as JSON has it, called once for the same ``parts``, which are plain data: processes that
    ask meanwhile wait. What it raises is not kept."""
    path = os.path.join(folder, "exfil-guard-" + canonical.digest(parts))
    found = _kept(path)
    if found is not None:
        return found[0]
    with open(path + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _kept(path) or [work()]
        atomic.write(path, json.dumps(found).encode("ascii"), durable=False)
    return found[0]


def _kept(path: str) -> list[Any] | None:
    """In a list, as what was worked out may be none."""
    try:
        with open(path, encoding="ascii") as file:
            found: list[Any] = json.load(file)
    except FileNotFoundError:
        return None
    return found


def in_this_run(parts: Any, work: Callable[[], Any]) -> Any:
    """``once``, for as long as Ansible's own temporary folder is there."""
    return once(constants.DEFAULT_LOCAL_TMP, parts, work)
