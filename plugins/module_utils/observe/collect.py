# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One observation: attach, wait, read, detach, write. The programs and their maps belong to this process and go
with it, however it ends; the file appears when it is whole."""

from __future__ import annotations

import errno
import os
import platform
import signal
import socket
import stat
import struct
import time
from typing import Any, Callable, Iterable

from .._guard.errors import EnforcerError, PolicyErrors, Problem
from .._guard.host import atomic, lock
from .._guard.kernel import bpf
from .._guard.resolve import resolver
from . import compiled, lines, records

LOCK = "/run/lock/exfil-guard-observe.lock"
SECONDS = 7 * 86400  # at most
NAMES = 1000  # of a directory that may be listed, at most
COMPILED = tuple(action for action in records.ACTIONS if action != "chdir")
_TURN = 0.2  # seconds between two looks at what is new
_SETTLE = 16  # looks at the end for what is still being written


def check_options(seconds: int, path: str, actions: Iterable[str], names: int) -> None:
    """Raises PolicyErrors with everything that is wrong."""
    found = []
    if not 1 <= seconds <= SECONDS:
        found.append(Problem("seconds", f"{seconds}", f"1 to {SECONDS} (7 days)", "Observe again for longer"))
    if not 0 <= names <= NAMES:
        found.append(Problem("names", f"{names}", f"0 to {NAMES}", ""))
    unknown = sorted(set(actions) - set(records.ACTIONS))
    if unknown:
        found.append(Problem("actions", ", ".join(unknown), "of {0}".format(", ".join(records.ACTIONS)), ""))
    if not actions:
        found.append(Problem("actions", "none", "at least one", ""))
    folder = os.path.dirname(path)
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        found.append(Problem("file", repr(path), "an absolute path of a file", ""))
    else:
        try:
            there = os.lstat(folder)
            if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.geteuid() or there.st_mode & 0o022:
                found.append(
                    Problem(
                        "file", f"others may write in {folder}", "a folder of root's that nobody else may write in", ""
                    )
                )
        except OSError as error:
            found.append(
                Problem("file", f"{folder}: {error.strerror}", "a folder that is there", "Make it, for root alone")
            )
    if found:
        raise PolicyErrors(found)


def check_host(kernel: Any, actions: Iterable[str]) -> None:
    """Whether it can be observed. Raises PolicyErrors, EnforcerError."""
    found = kernel.environment()
    problems = []
    if not found.root:
        problems.append(Problem("host", "not root", "", "Run as root"))
    if not os.path.exists(bpf.BTF):
        problems.append(
            Problem(
                "host",
                f"the kernel {found.release} has no BTF",
                "",
                "Boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian's",
            )
        )
    if not found.libbpf or found.libbpf.startswith("0"):
        problems.append(Problem("host", "libbpf.so.1 is not there", "", "Install libbpf 1.0 or newer"))
    if problems:
        raise PolicyErrors(problems)
    if set(actions) & set(COMPILED):
        compiled.check()


class Source:
    """One set of programs: its ring buffer and its maps."""

    def __init__(self, kernel: Any, maps: dict[str, int]) -> None:
        self._kernel, self._maps = kernel, maps
        self._ring = kernel.ring(maps["fresh"], True)
        self.subjects: dict[int, records.Subject] = {}
        self.objects: dict[bytes, records.Chain] = {}

    def drain(self) -> list[bytes]:
        """The objects that are new."""
        batch = self._ring.peek()
        self._ring.advance(batch.end)
        return records.fresh(batch.records, self.subjects, self.objects)

    def waits(self) -> bool:
        read, written = self._ring.positions()
        return read != written

    def entries(self) -> list[tuple[int, int, bytes, records.Times]]:
        return records.entries(self._kernel.read_all(self._maps["entries"]))

    def units(self) -> dict[bytes, records.Times]:
        if "units" not in self._maps:
            return {}
        return {
            records.UNIT.unpack(key).path.split(b"\0")[0]: records.TIMES.unpack(value)
            for key, value in self._kernel.read_all(self._maps["units"]).items()
        }

    def lost(self) -> dict[str, int]:
        found = self._kernel.read_all(self._maps["lost"])
        return {
            name: struct.unpack("=Q", found[struct.pack("=I", place)])[0]
            for place, name in enumerate(records.LOST)
            if struct.pack("=I", place) in found
        }

    def close(self) -> None:
        self._ring.close()


class _Chdir(Source):
    """The CO-RE object, by libbpf. It is attached from the beginning to the end of a `with`."""

    def __init__(self, kernel: Any, data: bytes) -> None:
        loaded = kernel.load(data, {})
        self._fds = list(loaded.maps.values()) + list(loaded.programs.values())
        try:
            if "set_fs_pwd" not in loaded.programs:
                raise EnforcerError(
                    "this kernel has no function set_fs_pwd to attach to", "Leave `chdir` out of the actions"
                )
            kernel.update(loaded.maps["observer"], struct.pack("=I", 0), struct.pack("=I", os.getpid()))
            super().__init__(kernel, loaded.maps)
            self._fds.insert(0, kernel.attach(loaded.programs["set_fs_pwd"]))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)


class _Compiled(Source):
    def __init__(self, kernel: Any, text: str) -> None:
        self._held, maps = compiled.load(text)
        super().__init__(kernel, maps)
        words = [0] * 1024
        for port in kernel.listening_ports():
            words[port // 64] |= 1 << port % 64
        kernel.update_all(
            maps["listeners"],
            {struct.pack("=I", index): struct.pack("=Q", word) for index, word in enumerate(words) if word},
        )

    def release(self) -> None:
        compiled.release(self._held)


def list_directory(path: bytes, inode: int, names: int) -> lines.Listing:
    """What lies in a directory, if it is still the one of that number. No link is followed at its end."""
    from .._guard.audit import events

    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return lines.Listing((), 0, error.strerror)
    try:
        if os.fstat(fd).st_ino != inode:
            return lines.Listing((), 0, "another directory has its name now")
        found: list[str] = []
        more = 0
        with os.scandir(fd) as entries:
            for each in entries:
                if len(found) < names:
                    found.append(events.text(os.fsencode(each.name)))
                else:
                    more += 1
        return lines.Listing(tuple(sorted(found)), more)
    except OSError as error:
        return lines.Listing((), 0, error.strerror)
    finally:
        os.close(fd)


class _Mounts:
    """Read anew when they have changed."""

    def __init__(self, system: Any) -> None:
        self._system, self._text = system, ""
        self.now: list[resolver.Mount] = []

    def refresh(self) -> list[resolver.Mount]:
        text = self._system.host_mounts()
        if text != self._text:
            self._text, self.now = text, resolver.visible(resolver.parse_mounts(text))
        return self.now


class Observation:
    """What comes of the sources, kept as it comes: a directory is listed, and a path named, when it is first seen."""

    def __init__(self, system: Any, names: int) -> None:
        self._mounts, self._names = _Mounts(system), names
        self.paths: dict[bytes, str] = {}
        self.listings: dict[bytes, lines.Listing] = {}

    def turn(self, source: Source, listed: bool) -> None:
        new = source.drain()
        if not new:
            return
        mounts = self._mounts.refresh()
        for named in new:
            chain = source.objects[named]
            self.paths.setdefault(named, lines.path_of(chain, mounts) or "/")
            if listed and self._names and named not in self.listings:
                where, trouble = lines.real_path(chain, mounts)
                self.listings[named] = (
                    lines.Listing((), 0, trouble)
                    if where is None
                    else list_directory(where, records.what(named).inode, self._names)
                )

    def mounts(self) -> list[resolver.Mount]:
        return self._mounts.refresh()


def write(found: list[dict[str, Any]], path: str) -> None:
    """Whole or not at all. Raises EnforcerError."""
    try:
        atomic.write(path, lines.to_text(found).encode("ascii"))
    except OSError as error:
        remedy = (
            "Make room there, or name another file, and observe again"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "Name another file, and observe again"
        )
        raise EnforcerError(f"what was observed cannot be written to {path}: {error.strerror}", remedy) from error


def holder() -> tuple[str, int]:
    """Who observes now, and its process; empty and 0: nobody does."""
    text = lock.holder(LOCK)
    word = text.split(",")[0].split(" ")
    return text, int(word[1]) if len(word) == 2 and word[0] == "pid" and word[1].isdigit() else 0


def stop(wait: float = 30.0) -> bool:
    """Ends an observation that runs, as its time would. False: none did."""
    text, number = holder()
    if not text:
        return False
    if number:
        os.kill(number, signal.SIGTERM)
    until = time.monotonic() + wait
    while holder()[0]:
        if time.monotonic() > until:
            raise EnforcerError(f"the observation does not end: {text}", "Look at that process")
        time.sleep(0.1)
    return True


def _gather(sources: list[tuple[Source, bool]], observation: Observation, actions: list[str]) -> lines.Seen:
    """What was counted, and then what was told until that: whatever is counted has been told before."""
    subjects: dict[int, records.Subject] = {}
    entries: list[tuple[int, int, bytes, records.Times]] = []
    units: dict[bytes, records.Times] = {}
    lost = dict.fromkeys(records.LOST, 0)
    for source, listed in sources:
        entries += source.entries()
        units.update(source.units())
        for _ in range(_SETTLE):
            observation.turn(source, listed)
            if not source.waits():
                break
            time.sleep(0.01)
        for name, count in source.lost().items():
            lost[name] += count
        subjects.update(source.subjects)
    wanted = {records.ACTIONS.index(action) for action in actions}
    return lines.Seen(
        subjects, observation.paths, [each for each in entries if each[1] in wanted], units, observation.listings, lost
    )


class _Stop:
    """SIGTERM and SIGINT end the wait; what was seen until then is written."""

    def __init__(self) -> None:
        self.asked = False
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}

    def _ask(self, *_unused: Any) -> None:
        self.asked = True

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def run(
    kernel: Any,
    system: Any,
    *,
    seconds: int,
    path: str,
    actions: list[str],
    names: int,
    data: bytes,
    layout: str,
    programs: str,
    lock_path: str = LOCK,
    ready: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """``data``: observe.bpf.o; ``layout`` and ``programs``: observe.h and observe.bcc.c of bpf/observer. ``ready`` is
    called when all is attached. Gives lines (how many) and lost. Raises PolicyErrors, EnforcerError."""
    check_options(seconds, path, actions, names)
    check_host(kernel, actions)
    actions = [action for action in records.ACTIONS if action in actions]
    with lock.hold("observing", lock_path, wait=0.0):
        stop_asked = _Stop()
        sources: list[tuple[Any, bool]] = []
        try:
            if set(actions) & set(COMPILED):
                sources.append((_Compiled(kernel, compiled.source(layout, programs, os.getpid())), False))
            if "chdir" in actions:
                sources.append((_Chdir(kernel, data), True))
            observation, began = Observation(system, names), time.time()
            until = time.monotonic() + seconds
            if ready is not None:
                ready()
            while time.monotonic() < until and not stop_asked.asked:
                time.sleep(min(_TURN, max(0.0, until - time.monotonic())))
                for source, listed in sources:
                    observation.turn(source, listed)
            ended = time.time()
            seen = _gather(sources, observation, actions)
        finally:
            for source, _ in sources:
                source.close()
                source.release()
            stop_asked.restore()
        view = lines.View(
            system,
            observation.mounts(),
            time.time() - kernel.boottime() / 1e9,
            kernel.boot_id(),
            socket.gethostname(),
            platform.release(),
        )
        found = lines.lines(seen, view, actions=actions, seconds=seconds, began=began, ended=ended)
        write(found, path)
    return {"lines": len(found), "lost": found[-1]["lost"]}
