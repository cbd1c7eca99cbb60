# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A technique is a function that tries to get a mark out. It runs in a process of its own, as whoever it says, without a
policy and under one, and what counts is whether the mark got out: bytes that were read, bytes that arrived outside, a
program that ran. An error number alone proves nothing.

Nothing comes back from an attempt but an exit status and files: a runner that read a pipe of the attacker's would carry
his labels and be bound by his rules itself."""

import contextlib
import os
import secrets
import select
import signal
import socket
import time
import traceback
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

GOT, NOTHING, MISTAKE, ABSENT = 200, 201, 202, 203  # exit statuses; below 200: an errno
ATTEMPT_SECONDS = 30


class Absent(Exception):
    """What the technique needs is not to be had on this machine: a protocol, a program, a device."""


class Technique(NamedTuple):
    name: str
    group: str  # files, network, machine, flows, others, services, tamper
    what: str  # the operation, as the table in the documentation names it
    action: str  # of the rule that has to stop it
    function: Callable
    who: str  # a user, or NAME.service: root in that unit
    evidence: Optional[Callable]  # tried by the runner afterwards; without it the function's own answer counts
    ready: Optional[Callable]  # by the runner, before each attempt
    root: Optional[Callable]  # in the attempt's process, before it becomes `who`
    held: Optional[Callable]  # as `who`, before the policy is in force; the function gets what it gives
    last: Optional[Callable]  # by the runner, after each attempt
    open: str  # why no hook sees it
    closed_by: Optional[Dict[str, Any]]  # the rule that stops it nevertheless
    refreshed: bool  # the policy has to be applied once more, as the host does it by itself


TECHNIQUES: Dict[str, Technique] = {}


def way(
    group,
    what,
    action,
    *,
    who="alice",
    evidence=None,
    ready=None,
    root=None,
    held=None,
    last=None,
    open="",
    closed_by=None,
    refreshed=False,
):
    def register(function):
        name = function.__name__
        assert name not in TECHNIQUES, name
        TECHNIQUES[name] = Technique(
            name, group, what, action, function, who, evidence, ready, root, held, last, open, closed_by, refreshed
        )
        return function

    return register


def part_of(names: List[str], share: str, which: str = "") -> List[str]:
    """Of the names that begin with ``which`` those of one part of several, "0/3"; and all others."""
    part, parts = map(int, share.split("/"))
    left_out = {name for place, name in enumerate(n for n in names if n.startswith(which)) if place % parts != part}
    return [name for name in names if name not in left_out]


class Attempt:
    """One try of one technique: its own mark, and the place where it happens."""

    def __init__(self, technique: Technique, place: Any, phase: str) -> None:
        self.technique, self.place, self.phase = technique, place, phase
        self.mark = "mark-" + secrets.token_hex(12)
        self.data = (self.mark + "\n").encode()
        self.helpers: List[int] = []
        self.kept: Dict[str, Any] = {}
        self.log = f"{place.logs}/{technique.name}.{phase}"
        self.own = f"{place.open}/{technique.name}"  # a name that the technique may use

    def __getattr__(self, name: str) -> Any:
        return getattr(self.place, name)

    def arrived(self) -> bool:
        return os.path.exists(f"{self.place.arrived_folder}/{self.mark}")

    def has(self, data: Any) -> bool:
        """Is the mark in what was read?"""
        if isinstance(data, (list, tuple)):
            return any(self.has(each) for each in data)
        if isinstance(data, str):
            data = os.fsencode(data)
        return bool(data) and self.mark.encode() in bytes(data)

    def out(self, data: bytes) -> Any:
        """What was got hold of. Where a rule on sending is to close what no hook sees: was it sent?"""
        if self.phase != "closed":
            return data
        with socket.create_connection((self.place.outside4, self.place.port), timeout=3) as one:
            one.sendall(data)
        return self.has(data)

    def helper(self, function: Callable, who: Optional[str] = None) -> int:
        """A process of somebody else's, for the length of the attempt."""
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            self._finish(lambda: self.place.become(who) if who else None, function)
        self.helpers.append(child)
        return child

    def _finish(self, *steps: Callable) -> None:
        """Ends this process with what the last step says."""
        status = MISTAKE
        try:
            result = None
            for step in steps:
                result = step()
            status = (
                GOT
                if result is True or self.has(result if isinstance(result, (bytes, str, list, tuple)) else b"")
                else NOTHING
            )
        except OSError as error:
            status = min(error.errno or 199, 199)
            self._tell(traceback.format_exc(limit=-2))
        except Absent as error:
            status = ABSENT
            self._tell(str(error))
        except BaseException:
            self._tell(traceback.format_exc())
        finally:
            os._exit(status)

    def _tell(self, text: str) -> None:
        try:
            with open(self.log, "a", encoding="utf-8", errors="replace") as file:
                file.write(text + "\n")
        except OSError:
            os.write(2, text.encode(errors="replace"))

    def said(self) -> str:
        try:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                return file.read().strip()
        except OSError:
            return ""

    # ---- its course: ready, start, (the policy), go, end

    def start(self) -> None:
        technique = self.technique
        self.failure = ""
        self.child = 0
        try:
            self.place.fresh(self)
            if technique.ready:
                technique.ready(self)
        except Absent as error:
            self.failure = "absent: " + str(error)
            return
        except Exception:
            self.failure = traceback.format_exc(limit=-3)
            return
        waiting, self.go_end = os.pipe()
        held, ready = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.setpgid(0, 0)
            signal.alarm(1800)  # the policy may be long in coming; once told to go it has ATTEMPT_SECONDS
            os.close(self.go_end)
            os.close(held)
            before: List[Any] = []

            def hold() -> None:
                if technique.held:
                    before.append(technique.held(self))

            def wait() -> None:
                os.close(ready)  # closed: told, and no byte of ours in a pipe
                os.read(waiting, 1)

            self._finish(
                lambda: technique.root(self) if technique.root else None,
                lambda: self.place.become(technique.who),
                hold,
                wait,
                lambda: technique.function(self, *before),
            )
        os.close(waiting)
        os.close(ready)
        if not select.select([held], [], [], ATTEMPT_SECONDS)[0]:
            os.kill(self.child, signal.SIGKILL)
        os.close(held)

    def go(self) -> None:
        if self.child:
            if self.technique.held:  # others have been at the same files since
                self.place.fresh(self)
                if self.technique.ready:
                    self.technique.ready(self)
            try:
                os.write(self.go_end, b"!")
            except BrokenPipeError:
                pass  # it ended before; its status says why

    def end(self, patience: float, refused: Optional[Callable]) -> Tuple[bool, int]:
        """(did the mark get out, exit status)"""
        if not self.child:
            return False, ABSENT if self.failure.startswith("absent") else MISTAKE
        status = _wait(self.child, ATTEMPT_SECONDS)
        os.close(self.go_end)
        code = os.waitstatus_to_exitcode(status)
        code = 199 if code < 0 else code
        out = code == GOT
        if self.technique.evidence and code not in (MISTAKE, ABSENT):
            ends = time.monotonic() + patience
            while True:
                try:
                    out = bool(self.technique.evidence(self))
                except OSError as error:
                    self._tell("evidence: " + str(error))
                if out or time.monotonic() > ends or (refused and refused()):
                    break
                time.sleep(0.02)
        self.tidy()
        return out, code

    def tidy(self) -> None:
        for one in (self.child, *self.helpers):
            for kill in (os.killpg, os.kill):  # it may not have got as far as its own group
                with contextlib.suppress(OSError):
                    kill(one, signal.SIGKILL) if kill is os.killpg or one in self.helpers else None
        for child in self.helpers:
            os.waitpid(child, 0)
        self.helpers = []
        if self.technique.last:
            try:
                self.technique.last(self)
            except OSError as error:
                self._tell("afterwards: " + str(error))


def _wait(child: int, seconds: float) -> int:
    ends = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > ends:
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.002)


def arrives(attempt: Attempt) -> bool:
    return attempt.arrived()


def appears(path: str, seconds: float = 15) -> None:
    ends = time.monotonic() + seconds
    while not os.path.lexists(path):
        if time.monotonic() > ends:
            raise OSError(110, f"no {path} appears")
        time.sleep(0.002)


def in_child(operation: Callable[[], Any]) -> Any:
    """Runs in a child; True when it gave True. Only a status comes back."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if operation() is True else 2
        except OSError as error:
            status = error.errno or 1
        except BaseException:
            traceback.print_exc()
            status = 1
        os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return True
    if code > 2:
        raise OSError(code, os.strerror(code) + " (in a child)")
    if code == 1:
        raise OSError(1, "in a child")
    return False
