# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One observation: attaches the programs, waits, reads their maps, detaches them, and writes a file.

The programs and their maps belong to this process: the kernel removes them when it ends, however it ends. The file is
written atomically."""

from __future__ import annotations

import errno
import os
import platform
import signal
import socket
import stat
import struct
import time
from typing import Any, Callable, Iterable, NamedTuple, Protocol

from .._guard.errors import EnforcerError, PolicyErrors, Problem
from .._guard.host import atomic, lock
from .._guard.host.mountinfo import Mount, parse_mounts, visible
from .._guard.kernel.protocol import Kernel
from .._guard.kernel.types import BTF
from . import compiled, lines, records

LOCK = "/run/lock/exfil-guard-observe.lock"
SECONDS = 7 * 86400  # the longest observation
NAMES = 1000  # the most names that are listed of a directory
COMPILED = tuple(action for action in records.ACTIONS if action != "chdir")
_POLL_SECONDS = 0.2  # between two reads of the ring buffers
_FINAL_READS = 16  # the most reads at the end, while programs are writing


class Files(lines.Names, Protocol):
    """What an observation needs of the host: see host.system.System."""

    def host_mounts(self) -> str:
        """The mounts that the first process sees."""


def check_options(seconds: int, path: str, actions: Iterable[str], names: int) -> None:
    """Raises PolicyErrors with every invalid option."""
    problems = []
    if not 1 <= seconds <= SECONDS:
        problems.append(Problem("seconds", f"{seconds}", f"1 to {SECONDS} (7 days)", "Observe again for longer"))
    if not 0 <= names <= NAMES:
        problems.append(Problem("names", f"{names}", f"0 to {NAMES}", ""))
    unknown = sorted(set(actions) - set(records.ACTIONS))
    if unknown:
        problems.append(Problem("actions", ", ".join(unknown), f"of {', '.join(records.ACTIONS)}", ""))
    if not actions:
        problems.append(Problem("actions", "none", "at least one", ""))
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        problems.append(Problem("file", repr(path), "an absolute path of a file", ""))
    else:
        problems += _folder_problems(os.path.dirname(path))
    if problems:
        raise PolicyErrors(problems)


def _folder_problems(folder: str) -> list[Problem]:
    try:
        status = os.lstat(folder)
    except OSError as error:
        return [
            Problem("file", f"{folder}: {error.strerror}", "a folder that exists", "Create it, writable by root alone")
        ]
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022:
        return []
    return [Problem("file", f"others may write in {folder}", "a folder of root's that nobody else may write in", "")]


def check_host(kernel: Kernel, actions: Iterable[str]) -> None:
    """Checks that this host can be observed. Raises PolicyErrors or EnforcerError."""
    environment = kernel.environment()
    problems = []
    if not environment.root:
        problems.append(Problem("host", "not root", "", "Run as root"))
    if not os.path.exists(BTF):
        remedy = "Boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian's"
        problems.append(Problem("host", f"the kernel {environment.release} has no BTF", "", remedy))
    if not environment.libbpf or environment.libbpf.startswith("0"):
        problems.append(Problem("host", "libbpf.so.1 is not there", "", "Install libbpf 1.0 or newer"))
    if problems:
        raise PolicyErrors(problems)
    if set(actions) & set(COMPILED):
        compiled.check()


class Source:
    """One set of programs with its ring buffer and maps."""

    def __init__(self, kernel: Kernel, maps: dict[str, int]) -> None:
        self._kernel, self._maps = kernel, maps
        self._ring = kernel.ring(maps["fresh"], True)
        self.subjects: dict[int, records.Subject] = {}
        self.objects: dict[bytes, records.Chain] = {}

    def drain(self) -> list[bytes]:
        """Reads the ring buffer. Returns the objects that are new."""
        batch = self._ring.peek()
        self._ring.advance(batch.end)
        return records.fresh(batch.records, self.subjects, self.objects)

    def waits(self) -> bool:
        """Whether the ring buffer has records."""
        read, written = self._ring.positions()
        return read != written

    def entries(self) -> list[tuple[int, int, bytes, records.Times]]:
        """What was counted: see records.entries."""
        return records.entries(self._kernel.read_all(self._maps["entries"]))

    def units(self) -> dict[bytes, records.Times]:
        """How often a unit was started, by its cgroup path."""
        if "units" not in self._maps:
            return {}
        return {
            records.UNIT.unpack(key).path.split(b"\0")[0]: records.TIMES.unpack(value)
            for key, value in self._kernel.read_all(self._maps["units"]).items()
        }

    def lost(self) -> dict[str, int]:
        """How many records did not fit, by kind."""
        counts = self._kernel.read_all(self._maps["lost"])
        return {
            name: struct.unpack("=Q", counts[struct.pack("=I", index)])[0]
            for index, name in enumerate(records.LOST)
            if struct.pack("=I", index) in counts
        }

    def close(self) -> None:
        """Unmaps the ring buffer."""
        self._ring.close()

    def release(self) -> None:
        """Detaches the programs."""


class _Chdir(Source):
    """The programs of the CO-RE object, which libbpf loads."""

    def __init__(self, kernel: Kernel, data: bytes) -> None:
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
    """The programs that BCC compiles on this host."""

    def __init__(self, kernel: Kernel, text: str) -> None:
        self._attached, maps = compiled.load(text)
        super().__init__(kernel, maps)
        words = [0] * 1024
        for port in kernel.listening_ports():
            words[port // 64] |= 1 << port % 64
        kernel.update_all(
            maps["listeners"],
            {struct.pack("=I", index): struct.pack("=Q", word) for index, word in enumerate(words) if word},
        )

    def release(self) -> None:
        compiled.release(self._attached)


def list_directory(path: bytes, inode: int, names: int) -> lines.Listing:
    """The names in a directory, if it has that inode number. A link at the end of ``path`` is not followed."""
    from .._guard.audit import events

    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return lines.Listing((), 0, error.strerror)
    try:
        if os.fstat(fd).st_ino != inode:
            return lines.Listing((), 0, "another directory has its name now")
        listed: list[str] = []
        more = 0
        with os.scandir(fd) as entries:
            for entry in entries:
                if len(listed) < names:
                    listed.append(events.text(os.fsencode(entry.name)))
                else:
                    more += 1
        return lines.Listing(tuple(sorted(listed)), more)
    except OSError as error:
        return lines.Listing((), 0, error.strerror)
    finally:
        os.close(fd)


class _Mounts:
    """The visible mounts of the host, parsed again only if they changed."""

    def __init__(self, system: Files) -> None:
        self._system, self._text = system, ""
        self.now: list[Mount] = []

    def refresh(self) -> list[Mount]:
        text = self._system.host_mounts()
        if text != self._text:
            self._text, self.now = text, visible(parse_mounts(text))
        return self.now


class Observation:
    """The paths and listings of the observed objects. They are taken when an object is first observed."""

    def __init__(self, system: Files, names: int) -> None:
        self._mounts, self._names = _Mounts(system), names
        self.paths: dict[bytes, str] = {}
        self.listings: dict[bytes, lines.Listing] = {}

    def poll(self, source: Source, listed: bool) -> None:
        """Reads the new objects of a source. ``listed``: they are directories to list."""
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

    def mounts(self) -> list[Mount]:
        """The visible mounts now."""
        return self._mounts.refresh()


def write(observed: list[dict[str, Any]], path: str) -> None:
    """Writes the file atomically. Raises EnforcerError."""
    try:
        atomic.write(path, lines.to_text(observed).encode("ascii"))
    except OSError as error:
        remedy = (
            "Make room there, or name another file, and observe again"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "Name another file, and observe again"
        )
        raise EnforcerError(f"what was observed cannot be written to {path}: {error.strerror}", remedy) from error


def holder() -> tuple[str, int]:
    """Describes the running observation, and gives its process id. Empty and 0 if there is none."""
    text = lock.holder(LOCK)
    word = text.split(",")[0].split(" ")
    return text, int(word[1]) if len(word) == 2 and word[0] == "pid" and word[1].isdigit() else 0


def stop(wait: float = 30.0) -> bool:
    """Ends the running observation, which writes its file. Returns whether there was one. Raises EnforcerError."""
    text, number = holder()
    if not text:
        return False
    if number:
        os.kill(number, signal.SIGTERM)
    deadline = time.monotonic() + wait
    while holder()[0]:
        if time.monotonic() > deadline:
            raise EnforcerError(f"the observation does not end: {text}", "Check that process")
        time.sleep(0.1)
    return True


def _gather(sources: list[tuple[Source, bool]], observation: Observation, actions: list[str]) -> lines.Seen:
    """Reads the counts and then the ring buffers: a program writes a record before it counts, so none is missing."""
    subjects: dict[int, records.Subject] = {}
    entries: list[tuple[int, int, bytes, records.Times]] = []
    units: dict[bytes, records.Times] = {}
    lost = dict.fromkeys(records.LOST, 0)
    for source, listed in sources:
        entries += source.entries()
        units.update(source.units())
        for _unused in range(_FINAL_READS):
            observation.poll(source, listed)
            if not source.waits():
                break
            time.sleep(0.01)
        for name, count in source.lost().items():
            lost[name] += count
        subjects.update(source.subjects)
    selected = {records.ACTIONS.index(action) for action in actions}
    return lines.Seen(
        subjects,
        observation.paths,
        [entry for entry in entries if entry[1] in selected],
        units,
        observation.listings,
        lost,
    )


class _Stop:
    """SIGTERM and SIGINT end the wait. The file is written with what was observed until then."""

    def __init__(self) -> None:
        self.requested = False
        self._before = {number: signal.signal(number, self._request) for number in (signal.SIGTERM, signal.SIGINT)}

    def _request(self, *_unused: object) -> None:
        self.requested = True

    def restore(self) -> None:
        """Restores the previous signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Options(NamedTuple):
    """What to observe. ``names``: the most names to list of a directory."""

    seconds: int
    path: str
    actions: list[str]
    names: int


class Programs(NamedTuple):
    """The programs: observe.bpf.o, and the text of observe.h and observe.bcc.c of bpf/observer."""

    object: bytes
    layout: str
    source: str


def run(
    kernel: Kernel,
    system: Files,
    options: Options,
    programs: Programs,
    *,
    lock_path: str = LOCK,
    ready: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Observes and writes the file. Raises PolicyErrors or EnforcerError.

    ``ready`` is called after all programs are attached. The result has ``lines``, their number, and ``lost``."""
    check_options(options.seconds, options.path, options.actions, options.names)
    check_host(kernel, options.actions)
    actions = [action for action in records.ACTIONS if action in options.actions]
    with lock.hold("observing", lock_path, wait=0.0):
        signals = _Stop()
        sources: list[tuple[Source, bool]] = []
        try:
            if set(actions) & set(COMPILED):
                text = compiled.source(programs.layout, programs.source, os.getpid())
                sources.append((_Compiled(kernel, text), False))
            if "chdir" in actions:
                sources.append((_Chdir(kernel, programs.object), True))
            observation, began = Observation(system, options.names), time.time()
            deadline = time.monotonic() + options.seconds
            if ready is not None:
                ready()
            while time.monotonic() < deadline and not signals.requested:
                time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
                for source, listed in sources:
                    observation.poll(source, listed)
            ended = time.time()
            seen = _gather(sources, observation, actions)
        finally:
            for source, _unused in sources:
                source.close()
                source.release()
            signals.restore()
        view = lines.View(
            system,
            observation.mounts(),
            time.time() - kernel.boottime() / 1e9,
            kernel.boot_id(),
            socket.gethostname(),
            platform.release(),
        )
        observed = lines.lines(seen, view, actions=actions, seconds=options.seconds, began=began, ended=ended)
        write(observed, options.path)
    return {"lines": len(observed), "lost": observed[-1]["lost"]}
