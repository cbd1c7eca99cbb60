# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Self-test: performs one operation that must be denied and one that must be allowed. That programs are loaded and
attached, and that `bpf` is an active LSM, does not show that they run."""

from __future__ import annotations

import datetime
import errno
import os
import socket
from typing import Any, Callable, Iterable, NamedTuple

from .. import layout
from ..errors import EnforcerError
from ..host import atomic
from ..host.protocols import System
from ..kernel import running
from ..kernel.protocol import Kernel
from ..layout import CANARY_ALLOWED, CANARY_CONTENT, CANARY_DENIED, CANARY_USER
from ..policy import semantics
from ..policy.model import NO_ID, FileEvent, Location, NetworkEvent, PathPattern, Resolved, Task
from ..resolve import resolver

FOLDER = layout.CANARY_FOLDER
FILE_RULE, NETWORK_RULE = layout.CANARY_FILE_RULE, layout.CANARY_NETWORK_RULE
FILE_HOOK, NETWORK_HOOK = "file_open", "socket_connect"
DENIED_ADDRESS, ALLOWED_ADDRESS, PORT = layout.CANARY_ADDRESS, "127.0.0.1", 9
_REMEDY = "The old policy is in force. Look for another security module in the way and at `dmesg`, then run again"


class Places(NamedTuple):
    """The two files of the self-test, as patterns inside their superblock; None if they do not exist."""

    denied: PathPattern | None
    allowed: PathPattern | None


def prepare(folder: str = FOLDER) -> None:
    """Creates the two files, which everyone may read, unless they exist."""
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        for name in (CANARY_DENIED, CANARY_ALLOWED):
            path = os.path.join(folder, name)
            if not os.path.isfile(path):
                atomic.write(path, CANARY_CONTENT, 0o644)
            if os.stat(path).st_mode & 0o777 != 0o644:
                os.chmod(path, 0o644)
    except OSError as error:
        raise EnforcerError(
            f"cannot write the canary's files in {folder}: {error.strerror}", "Run the role exfil.guard.enforcer"
        ) from error


def find(system: System, folder: str = FOLDER) -> Places:
    """Finds the two files."""
    return Places(*(place(system, os.path.join(folder, name)) for name in (CANARY_DENIED, CANARY_ALLOWED)))


def place(system: System, path: str) -> PathPattern | None:
    """Where a path leads now. None if it does not exist."""
    return resolver.visible_place(system, path)


def run(
    kernel: Kernel, rules: Iterable[str], resolved: Resolved, now: datetime.date, places: Places, folder: str = FOLDER
) -> list[str]:
    """Attempts what the self-test's ``rules`` deny, and what is allowed unless the operator's rules deny it. Gives
    warnings about what was not tested. Raises EnforcerError if the kernel does not decide as the policy says."""
    warnings: list[str] = []
    names = set(rules)
    task = _task(places)
    if places.allowed:  # the image has the canary's superblock, whatever it is
        resolved = resolved._replace(superblocks=resolved.superblocks | {places.allowed.device})
    allowed = Location(places.allowed.device, places.allowed.components) if places.allowed else None
    if FILE_RULE in names:
        _must(kernel, True, f"reading {folder}/{CANARY_DENIED}", _reader(f"{folder}/{CANARY_DENIED}"))
        warnings.extend(
            _pass(
                kernel,
                "file",
                f"reading {folder}/{CANARY_ALLOWED}",
                _reader(f"{folder}/{CANARY_ALLOWED}"),
                _outcomes(resolved, task, lambda who: FileEvent(who, "read", allowed), now) if allowed else {"deny"},
            )
        )
    if NETWORK_RULE in names:
        _must(kernel, True, f"connecting to {DENIED_ADDRESS}", _connector(DENIED_ADDRESS))
        warnings.extend(
            _pass(
                kernel,
                "address",
                f"connecting to {ALLOWED_ADDRESS}",
                _connector(ALLOWED_ADDRESS),
                _outcomes(
                    resolved,
                    task,
                    lambda who: NetworkEvent(who, "connect", ALLOWED_ADDRESS, PORT, socket.IPPROTO_UDP),
                    now,
                ),
            )
        )
    stopped = running.stopped(kernel, True)  # a policy without rules on files and networks has no operation to test
    if stopped:
        raise EnforcerError(*stopped)
    return warnings


def _outcomes(resolved: Resolved, task: Task, event: Callable[[Task], Any], now: datetime.date) -> set[str]:
    """The possible decisions. The self-test has the labels of this session, which only the kernel knows: this tries
    none and all. More labels never allow more."""
    labels = frozenset(name for who in resolved.subjects.values() for name in who.has_read or ())
    whoever = (task, task._replace(labels=labels))
    return {semantics.decide(resolved, event(who), now).outcome for who in whoever}


def _pass(kernel: Kernel, kind: str, what: str, operation: Callable[[], None], outcomes: set[str]) -> list[str]:
    if outcomes == {"deny"}:
        return [f"the canary's allowed {kind} is denied by the policy itself: nothing was seen to pass"]
    if "deny" in outcomes and kernel.as_user(CANARY_USER, operation) == errno.EPERM:
        return [
            f"the canary's allowed {kind} is denied by the policy to whoever has read what this session has read: "
            "nothing was seen to pass"
        ]
    _must(kernel, False, what, operation)
    return []


def _must(kernel: Kernel, be_denied: bool, what: str, operation: Callable[[], None]) -> None:
    number = kernel.as_user(CANARY_USER, operation)
    if be_denied and number != errno.EPERM:
        happened = "passed" if not number else f"failed with {os.strerror(number)}"
        cause, remedy = running.stopped(kernel, True) or ("", _REMEDY)
        raise EnforcerError(f"the canary was not denied: {what} {happened}{cause and '; ' + cause}", remedy)
    if not be_denied and number:
        raise EnforcerError(f"the canary was denied what must pass: {what} failed with {os.strerror(number)}", _REMEDY)


def _reader(path: str) -> Callable[[], None]:
    def read() -> None:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # it may be a pipe that nobody could replace

    return read


def _connector(address: str) -> Callable[[], None]:
    def connect() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:  # a datagram socket sends nothing
            connection.connect((address, PORT))

    return connect


def _task(places: Places) -> Task:
    """The task of the self-test without labels: its own user, in this process's unit and login session."""
    service = None
    login = NO_ID
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            for line in file:
                if line.startswith("0::"):
                    service = tuple(part for part in line.rstrip("\n")[3:].split("/") if part)
        with open("/proc/self/loginuid", encoding="ascii") as file:
            login = int(file.read())
    except (OSError, ValueError):
        pass
    number = frozenset({CANARY_USER})
    return Task(number, number, number, login, service, None)
