# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel in memory with the methods of guard.kernel.Kernel. It keeps the real one's rules: an object lives as long
as something refers to it, a frozen map refuses writes, an inner map must fit its outer map. ``refuse`` makes a call
fail with an errno, ``kill_at`` ends the run for good at its n-th change of the kernel."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from typing import Any, Callable, Iterable, Mapping

from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import programs
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import (
    generations,
    instructions,
    links,
    mapspecs,
)
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.ring import Batch
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.types import (
    ARRAY,
    ARRAY_OF_MAPS,
    INNER_MAP,
    INODE_STORAGE,
    LRU_HASH,
    LSM_MAC,
    SK_STORAGE,
    TASK_STORAGE,
    Environment,
    LinkInfo,
    Loaded,
    MapInfo,
    MapSpec,
    ObjectInfo,
    ProgramInfo,
    Relocated,
    hook_of,
)
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions

# what a rule on files or on peers needs, what labels need, and what every policy comes with; the fake lacks the other
# actions, so that a rule with one of them is refused
_ACTIONS = [action for action in actions.TABLE if action.object in (actions.FILE, actions.PEER)]
HOOKS = tuple(
    sorted(
        {hook for action in _ACTIONS for hook in (*action.hooks, *action.optional_hooks)}
        | set(links.IDENTITY_HOOKS)
        | set(programs.BUILT_IN)
        | set(programs.LABEL_PROGRAMS)
        | set(programs.CHANGE_PROGRAMS)
    )
)
GOOD = Environment(True, "x86_64", "6.1.0-40-amd64", True, True, ("lockdown", "capability", "apparmor", "bpf"), "1.1.2")


class Killed(BaseException):
    """The run was killed: nothing of it runs any more."""


def good_object() -> ObjectInfo:
    maps = dict(
        mapspecs.MAPS,
        tasks=MapSpec(TASK_STORAGE, 4, 208, 0, 1),
        former=MapSpec(TASK_STORAGE, 4, 2208, 0, 1),
        inodes=MapSpec(INODE_STORAGE, 4, 80, 0, 1),
        spare=MapSpec(LRU_HASH, 8, 208, 4096),
        blank=MapSpec(generations.ARRAY, 4, 208, 1),
        known=MapSpec(generations.ARRAY, 4, 48, 2048),
        covered=MapSpec(generations.ARRAY, 4, 64, 1024),
        readings=MapSpec(generations.ARRAY, 4, 64, 4096),
        marked_files=MapSpec(generations.ARRAY, 4, 4, 1),
        sockets=MapSpec(SK_STORAGE, 4, 8, 0, 0x201),
        marks=MapSpec(INODE_STORAGE, 4, 160, 0, 1),
    )
    inner = dict(mapspecs.TABLES, control=mapspecs.RECORD)
    programs = [name for name in HOOKS if name != "inode_setattr"] + ["inode_setattr__2", "inode_setattr__3"]
    return ObjectInfo(maps, inner, tuple(programs))


class _Map:
    def __init__(self, number: int, name: str, spec: MapSpec) -> None:
        self.number, self.name, self.spec, self.frozen = number, name, spec, False
        self.entries: dict[bytes, bytes] = {}
        self.inner: dict[bytes, _Map] = {}
        if spec.type == ARRAY:
            self.entries = {struct.pack("=I", i): bytes(spec.value_size) for i in range(spec.max_entries)}


class _Program:
    def __init__(self, number: int, name: str, maps: tuple[_Map, ...]) -> None:
        self.number, self.name, self.maps = number, name, maps
        self.code = _code(name, range(len(maps)))


class _Link:
    def __init__(self, number: int, program: _Program) -> None:
        self.number, self.program = number, program
        self.function, self.attach_type = function_of(program.name), LSM_MAC
        self.target = 1  # the kernel's types


def function_of(program: str) -> int:
    """The number of the program's hook in the kernel's types."""
    return zlib.crc32(program.partition("__")[0].encode()) & 0xFFFFFF


def _code(program: str, maps: Iterable[int]) -> bytes:
    """Loads of all its maps, and the end; which program it is stands in the last instruction's constant."""
    loads = b"".join(struct.pack("<BBhiBBhi", 0x18, 0x11, 0, fd, 0, 0, 0, 0) for fd in maps)
    return loads + struct.pack("<BBhiBBhi", 0xB7, 0, 0, zlib.crc32(program.encode()) >> 1, 0x95, 0, 0, 0)


class FakeRing:
    """Has room for ``room`` records; each moves the positions by one."""

    def __init__(self, room: int = 1 << 20) -> None:
        self.room, self.lost, self.consumer = room, 0, 0
        self.written: list[bytes] = []

    def put(self, *records: bytes) -> None:
        for each in records:
            if len(self.written) - self.consumer < self.room:
                self.written.append(each)
            else:
                self.lost += 1

    def positions(self) -> tuple[int, int]:
        return self.consumer, len(self.written)

    def peek(self, limit: int | None = None) -> Batch:
        found = self.written[self.consumer :][:limit]
        return Batch(found, self.consumer, self.consumer + len(found))

    def advance(self, position: int) -> None:
        assert self.consumer <= position <= len(self.written)
        self.consumer = position

    def __enter__(self) -> FakeRing:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to unmap: the records stay for the next reader."""


class FakeKernel:
    def __init__(self) -> None:
        self.found = GOOD
        self.object = good_object()
        self.booted, self.types = f"boot {id(self)}", "b7f0" * 16
        self.now = 1_000 * generations.SECOND
        self.listening = frozenset({22})
        self.pins: dict[str, Any] = {}
        self.folders = {"/bpf"}
        self.calls: list[str] = []  # that changed something
        self.kill_at: int | None = None
        self.refusals: dict[str, tuple[int, int]] = {}  # method -> (how many calls pass first, errno)
        self.dead = False
        self.buffer = FakeRing()
        self.labelled: set[str] = set()  # what is denied to whoever has read what this session has read
        self.runs = True  # False: programs attach and never run
        self._descriptors: dict[int, tuple[Any, bool]] = {}
        self._next = 3
        self._numbers = 100

    # ---- what a test sets -------------------------------------------------------------------------------------

    def refuse(self, method: str, number: int, after: int = 0) -> None:
        self.refusals[method] = (after, number)

    def revive(self) -> None:
        """The next run: the killed one's descriptors are closed."""
        self.dead, self.kill_at, self.calls = False, None, []
        self._descriptors.clear()

    def attached(self) -> list[str]:
        """Hooks that run, by pins."""
        return sorted(each.program.name for each in self.pins.values() if isinstance(each, _Link))

    def open_descriptors(self) -> int:
        return len(self._descriptors)

    # ---- bookkeeping ------------------------------------------------------------------------------------------

    def _enter(self, method: str, changes: bool) -> None:
        if self.dead:
            raise Killed()
        if changes:
            self.calls.append(method)
            if self.kill_at is not None and len(self.calls) > self.kill_at:
                self.dead = True
                raise Killed()
        if method in self.refusals:
            left, number = self.refusals[method]
            if left:
                self.refusals[method] = (left - 1, number)
            else:
                raise OSError(number, os.strerror(number), method)

    def _open(self, thing: Any, readonly: bool = False) -> int:
        self._next += 1
        self._descriptors[self._next] = (thing, readonly)
        return self._next

    def _thing(self, fd: int, write: bool = False) -> Any:
        thing, readonly = self._descriptors[fd]
        if write and readonly:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), "write")
        return thing

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _alive(self) -> list[Any]:
        """Everything that something refers to."""
        found: list[Any] = []
        todo = list(self.pins.values()) + [thing for thing, _ in self._descriptors.values()]
        while todo:
            thing = todo.pop()
            if thing not in found:
                found.append(thing)
                if isinstance(thing, _Link):
                    todo.append(thing.program)
                elif isinstance(thing, _Program):
                    todo.extend(thing.maps)
                else:
                    todo.extend(thing.inner.values())
        return found

    def _by_number(self, kind: type, number: int) -> Any:
        for thing in self._alive():
            if isinstance(thing, kind) and thing.number == number:
                return thing
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "by id")

    # ---- the host ---------------------------------------------------------------------------------------------

    def environment(self) -> Environment:
        return self.found

    def lsm_hooks(self) -> frozenset[str]:
        return frozenset(each.partition("__")[0] for each in self.object.programs if self.has_hook(each))

    def boot_id(self) -> str:
        return self.booted

    def btf_digest(self) -> str:
        return self.types

    def mount_namespace(self) -> int:
        return 4026531841

    def boottime(self) -> int:
        return self.now

    def listening_ports(self) -> frozenset[int]:
        return self.listening

    def as_user(self, user: int, operation: Callable[[], None]) -> int:
        """Denied is what has `denied` or the reserved address in it, while programs run and a policy is in force."""
        live = generations.read(self)  # type: ignore[arg-type]
        names = [str(cell.cell_contents) for cell in operation.__closure__ or ()]
        forbidden = any(name.endswith("/denied") or name == "192.0.2.1" or name in self.labelled for name in names)
        return errno.EPERM if forbidden and self.runs and live.generation and self.attached() else 0

    def records_new_task(self, storage: int) -> bool:
        return self.runs and bool(self.attached())

    # ---- bpffs ------------------------------------------------------------------------------------------------

    def path(self, *parts: str) -> str:
        return "/".join(("/bpf", *parts))

    def names(self, path: str) -> list[str]:
        self._enter("names", False)
        inside = path + "/"
        return sorted(
            each[len(inside) :]
            for each in list(self.pins) + list(self.folders)
            if each.startswith(inside) and "/" not in each[len(inside) :]
        )

    def exists(self, path: str) -> bool:
        return path in self.pins or path in self.folders

    def mkdir(self, path: str) -> None:
        self._enter("mkdir", True)
        assert path not in self.folders and os.path.dirname(path) in self.folders, path
        self.folders.add(path)

    def rename(self, old: str, new: str) -> None:
        self._enter("rename", True)
        assert old in self.folders and new not in self.folders
        self.folders = {new + each[len(old) :] if (each + "/").startswith(old + "/") else each for each in self.folders}
        self.pins = {
            new + each[len(old) :] if each.startswith(old + "/") else each: thing for each, thing in self.pins.items()
        }

    def unlink(self, path: str) -> None:
        self._enter("unlink", True)
        del self.pins[path]

    def rmdir(self, path: str) -> None:
        self._enter("rmdir", True)
        assert not [each for each in list(self.pins) + list(self.folders) if each.startswith(path + "/")], path
        self.folders.remove(path)

    def pin(self, fd: int, path: str) -> None:
        self._enter("pin", True)
        if path in self.pins:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        assert os.path.dirname(path) in self.folders, path
        self.pins[path] = self._thing(fd)

    def get(self, path: str, readonly: bool = False) -> int:
        self._enter("get", False)
        if path not in self.pins:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._open(self.pins[path], readonly)

    def close(self, fd: int) -> None:
        self._descriptors.pop(fd, None)

    # ---- maps -------------------------------------------------------------------------------------------------

    def create_map(self, name: str, spec: MapSpec, inner: int | None = None) -> int:
        self._enter("create_map", True)
        return self._open(_Map(self._number(), name, spec))

    def map_info(self, fd: int) -> MapInfo:
        found = self._thing(fd)
        return MapInfo(found.number, found.name, found.spec, found.frozen)

    def ring(self, fd: int, take: bool) -> FakeRing:
        self._thing(fd, take)
        return self.buffer

    def identity(self, path: str) -> str:
        return str(self.pins[path].number)

    def map_by_id(self, number: int, readonly: bool = False) -> int:
        return self._open(self._by_number(_Map, number), readonly)

    def lookup(self, fd: int, key: bytes) -> bytes | None:
        self._enter("lookup", False)
        found = self._thing(fd)
        if found.spec.type == ARRAY_OF_MAPS:
            inner = found.inner.get(key)
            return struct.pack("=I", inner.number) if inner else None
        return found.entries.get(key)

    def update(self, fd: int, key: bytes, value: bytes) -> None:
        self._enter("update", True)
        found = self._thing(fd, write=True)
        if found.spec.type == ARRAY_OF_MAPS:
            inner = self._thing(struct.unpack("=I", value)[0])
            spec = dict(mapspecs.TABLES, control=mapspecs.RECORD)[found.name]
            fits = inner.spec if spec.flags & INNER_MAP or spec.type != ARRAY else inner.spec._replace(max_entries=1)
            if fits._replace(max_entries=1) != spec or struct.unpack("=I", key)[0] >= found.spec.max_entries:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), "update")
            found.inner[key] = inner
            return
        self._put(found, key, value)

    def _put(self, found: _Map, key: bytes, value: bytes) -> None:
        if found.frozen:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), "update")
        assert len(key) == found.spec.key_size and len(value) == found.spec.value_size, found.name
        if key not in found.entries and len(found.entries) >= found.spec.max_entries:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG), "update")
        found.entries[key] = value

    def delete(self, fd: int, key: bytes) -> None:
        self._enter("delete", True)
        found = self._thing(fd, write=True)
        if found.frozen:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), "delete")
        (found.inner if found.spec.type == ARRAY_OF_MAPS else found.entries).pop(key, None)

    def update_all(self, fd: int, entries: Mapping[bytes, bytes]) -> None:
        if not entries:
            return
        self._enter("update_all", True)
        for key, value in entries.items():
            self._put(self._thing(fd, write=True), key, value)

    def read_all(self, fd: int) -> dict[bytes, bytes]:
        self._enter("read_all", False)
        return dict(self._thing(fd).entries)

    def freeze(self, fd: int) -> None:
        self._enter("freeze", True)
        self._thing(fd, write=True).frozen = True

    # ---- programs and links -----------------------------------------------------------------------------------

    def program_info(self, fd: int) -> ProgramInfo:
        found = self._thing(fd)
        return ProgramInfo(
            found.number, found.name, instructions.tags(found.code)[0], tuple(each.number for each in found.maps)
        )

    def program_by_id(self, number: int) -> int:
        return self._open(self._by_number(_Program, number))

    def link_info(self, fd: int) -> LinkInfo:
        return self._told(self._thing(fd))

    def links(self) -> list[LinkInfo]:
        return sorted(self._told(thing) for thing in self._alive() if isinstance(thing, _Link))

    def link_exists(self, number: int) -> bool:
        self._enter("link_exists", False)
        return any(isinstance(thing, _Link) and thing.number == number for thing in self._alive())

    def _told(self, link: _Link) -> LinkInfo:
        return LinkInfo(link.number, link.program.number, link.attach_type, link.target, link.function)

    def attach(self, program: int) -> int:
        self._enter("attach", True)
        return self._open(_Link(self._number(), self._thing(program)))

    # ---- the object -------------------------------------------------------------------------------------------

    def describe(self, data: bytes) -> ObjectInfo:
        return self.object

    def has_hook(self, program: str) -> bool:
        return not program.endswith("__3")  # as before 6.9

    def relocate(self, data: bytes, btf: str = "") -> list[Relocated]:
        maps = dict(enumerate(self.object.maps, 4))
        return [
            Relocated(name, name.partition("__")[0], function_of(name), _code(name, maps), maps)
            for name in self.object.programs
            if self.has_hook(name)
        ]

    def load(self, data: bytes, reuse: Mapping[str, int]) -> Loaded:
        self._enter("load", True)
        maps = {
            name: self._thing(reuse[name]) if name in reuse else _Map(self._number(), name, spec)
            for name, spec in self.object.maps.items()
        }
        used = tuple(maps.values())
        return Loaded(
            {name: self._open(each) for name, each in maps.items()},
            {
                hook_of(name): self._open(_Program(self._number(), name, used))
                for name in self.object.programs
                if self.has_hook(name)
            },
        )
