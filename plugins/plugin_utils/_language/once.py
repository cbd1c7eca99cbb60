# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shares results between the hosts of one Ansible run. Ansible handles each host in a separate process without shared
memory, so results are stored in the run's temporary folder, which Ansible removes. Private to this collection."""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any, Callable, TypeVar

from ansible import constants
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import atomic
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import canonical

T = TypeVar("T")


def once(folder: str, key: object, compute: Callable[[], T]) -> T:
    """The result of ``compute()``, which is called once for equal values of ``key``. Both are JSON data. Other
    processes wait for the result. An exception is raised and not stored."""
    path = os.path.join(folder, "exfil-guard-" + canonical.digest(key))
    stored: list[T] | None = _stored(path)
    if stored is not None:
        return stored[0]
    with open(path + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stored = _stored(path) or [compute()]
        atomic.write(path, json.dumps(stored).encode("ascii"), durable=False)
    return stored[0]


def _stored(path: str) -> list[Any] | None:
    """A list with the stored result, which may be None. None: nothing is stored."""
    try:
        with open(path, encoding="ascii") as file:
            stored: list[Any] = json.load(file)
    except FileNotFoundError:
        return None
    return stored


def in_this_run(key: object, compute: Callable[[], T]) -> T:
    """The result of ``compute()``, computed once per Ansible run for equal values of ``key``."""
    folder: str = constants.DEFAULT_LOCAL_TMP
    return once(folder, key, compute)
