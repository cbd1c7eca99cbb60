# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One try of a technique as an attack. It runs in a process of its own, as whoever the technique names, without a policy
and under one, and what counts is whether the mark got out: bytes that were read, bytes that arrived outside, a program
that ran. An error number alone proves nothing.

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
from typing import Any, Callable, Dict, List, Optional, Tuple

from techniques.registry import Absent, Technique

GOT, NOTHING, MISTAKE, ABSENT = 200, 201, 202, 203  # exit statuses; below 200: an errno
ATTEMPT_SECONDS = 30


class Attempt:
    """One try of one technique: its own mark, and the place where it happens."""

    def __init__(
        self, technique: Technique, place: Any, phase: str, refresh: Optional[Callable[[], Any]] = None
    ) -> None:
        """``refresh``: applies the policy once more."""
        self.technique, self.place, self.phase, self.refresh = technique, place, phase, refresh
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
            if technique.covered and self.refresh:
                self.refresh()
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
                lambda: technique.attempt(self, *before),
            )
        os.close(waiting)
        os.close(ready)
        if not select.select([held], [], [], ATTEMPT_SECONDS)[0]:
            os.kill(self.child, signal.SIGKILL)
        os.close(held)

    def go(self) -> None:
        if self.child:
            if self.technique.refreshed and self.refresh:
                self.refresh()
            if self.technique.held:  # others have been at the same files since
                self.place.fresh(self)
                if self.technique.ready:
                    self.technique.ready(self)
            with contextlib.suppress(BrokenPipeError):  # it ended before; its status says why
                os.write(self.go_end, b"!")

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
