# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only interface to the kernel: the system call bpf(2), bpffs, and libbpf for loading the object.

It makes no decisions. A call that the kernel rejects raises OSError with the name of the operation. File descriptors
are plain integers.

A program has the name of the hook that it is attached to. If the number of a hook's arguments differs between kernel
versions, the object has a program ``HOOK__N`` for each number N. The one that fits is loaded, as ``HOOK``."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import platform
import re
import struct
import sys
import time
from typing import Callable, Mapping

from ..errors import EnforcerError
from .libbpf import Libbpf, library_loads
from .ring import Ring
from .types import ARRAY, BTF, Environment, LinkInfo, Loaded, MapInfo, MapSpec, ObjectInfo, ProgramInfo, Relocated

BPFFS = "/sys/fs/bpf"
CGROUPS = "/sys/fs/cgroup"
ACTIVE_LSMS = "/sys/kernel/security/lsm"
FTRACE_ENABLED = "/proc/sys/kernel/ftrace_enabled"
SYSCALL = {"x86_64": 321, "aarch64": 280}  # the number of bpf(2)

# enum bpf_cmd
_MAP_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _OBJ_PIN, _OBJ_GET = 0, 1, 2, 3, 4, 6, 7
_PROG_BY_ID, _MAP_BY_ID, _INFO, _RAW_TRACEPOINT_OPEN, _FREEZE = 13, 14, 15, 17, 22
_LOOKUP_BATCH, _UPDATE_BATCH, _LINK_BY_ID, _LINK_NEXT_ID = 24, 26, 30, 31
_TRACING = 2  # enum bpf_link_type
_RDONLY = 1 << 3
_PIDFD_OPEN = 434  # on every architecture
_TCP_LISTEN = "0A"  # in /proc/net/tcp
_ENOTSUPP = 524  # not in errno: an error that the kernel uses internally

_PLACEHOLDER = MapSpec(ARRAY, 4, 4, 1)  # replaces every map of an object that is not loaded


def _mounted(point: str, filesystem: str) -> bool:
    mounted = ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split()
            if fields[4] == point:
                mounted = fields[fields.index("-") + 1]  # the last mount is on top
    return mounted == filesystem


def _ftrace_enabled() -> bool:
    try:
        with open(FTRACE_ENABLED, encoding="ascii") as file:
            return file.read().strip() != "0"
    except OSError:
        return True  # a kernel without that switch


class Kernel:
    """The running kernel: the host's features, bpffs, maps, programs, links, and loading of the object."""

    def __init__(self, bpffs: str = BPFFS) -> None:
        self.bpffs = bpffs
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._number = SYSCALL.get(platform.machine()) if sys.maxsize > 1 << 32 else None
        self._libbpf: Libbpf | None = None

    # ---- the host ---------------------------------------------------------------------------------------------

    def environment(self) -> Environment:
        """What this host and its kernel offer."""
        try:
            version = self._library().version
        except EnforcerError:
            version = "0" if library_loads("libbpf.so.0") else ""
        try:
            with open(ACTIVE_LSMS, encoding="ascii") as file:
                lsms = tuple(file.read().strip().split(","))
        except OSError:
            lsms = ()
        machine = platform.machine()
        if machine in SYSCALL and not self._number:
            machine += ", 32 bits"
        return Environment(
            os.geteuid() == 0,
            machine,
            platform.release(),
            _mounted(self.bpffs, "bpf"),
            _mounted(CGROUPS, "cgroup2"),
            lsms,
            version,
            _ftrace_enabled(),
        )

    def lsm_hooks(self) -> frozenset[str]:
        """The hooks that a program can be attached to, from the kernel's BTF. Empty if the kernel has no BTF."""
        try:
            with open(BTF, "rb") as file:
                return frozenset(name.decode() for name in re.findall(rb"(?<=\0)bpf_lsm_(\w+)(?=\0)", file.read()))
        except OSError:
            return frozenset()

    def boot_id(self) -> str:
        """A UUID that changes at every boot."""
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()

    def btf_digest(self) -> str:
        """SHA-256, in hex, of the kernel's BTF. Empty if it has none."""
        try:
            with open(BTF, "rb") as file:
                return hashlib.sha256(file.read()).hexdigest()
        except OSError:
            return ""

    def mount_namespace(self) -> int:
        """The inode number of the first process's mount namespace, in which services and logins start."""
        return os.stat("/proc/1/ns/mnt").st_ino

    def boottime(self) -> int:
        """CLOCK_BOOTTIME in ns."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def listening_ports(self) -> frozenset[int]:
        """The TCP ports on which a socket listens, in every network namespace that a process is in."""
        namespaces = {}
        for process in os.listdir("/proc"):
            if process.isdigit():
                try:
                    namespaces[os.readlink(f"/proc/{process}/ns/net")] = process
                except OSError:
                    continue  # the process has exited
        ports = set()
        for process in namespaces.values():
            for table in ("tcp", "tcp6"):
                try:
                    with open(f"/proc/{process}/net/{table}", encoding="ascii") as file:
                        next(file)
                        for line in file:
                            _number, local, _remote, state = line.split(None, 4)[:4]
                            if state != _TCP_LISTEN:
                                break  # listening sockets come first
                            ports.add(int(local.rpartition(":")[2], 16))
                except (OSError, StopIteration):
                    continue  # the process has exited, or the kernel has no IPv6
        return frozenset(ports)

    def as_user(self, user: int, operation: Callable[[], None]) -> int:
        """Runs the operation in a child process as ``user``, without groups. Returns its errno, or 0 on success."""
        child = os.fork()
        if child == 0:
            status = 255
            try:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
                try:
                    operation()
                    status = 0
                except OSError as error:
                    status = error.errno or 255
            finally:
                os._exit(status)
        _unused, exit_status = os.waitpid(child, 0)
        return os.WEXITSTATUS(exit_status) if os.WIFEXITED(exit_status) else 255

    def records_new_task(self, storage: int) -> bool:
        """Whether the programs made an entry for a new task in its storage ``storage``. The task is root's and opens a
        file for writing, so that a program looks at it even if no rule applies to it."""
        ready, done = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(os.open(os.devnull, os.O_WRONLY))
                os.write(ready[1], b"x")
                os.close(done[1])
                os.read(done[0], 1)
            finally:
                os._exit(0)
        try:
            os.close(ready[1])
            os.read(ready[0], 1)
            task = self._libc.syscall(ctypes.c_long(_PIDFD_OPEN), child, 0)
            if task < 0:
                raise OSError(ctypes.get_errno(), "pidfd_open: " + os.strerror(ctypes.get_errno()))
            try:
                return self.lookup(storage, struct.pack("=i", task)) is not None
            finally:
                os.close(task)
        finally:
            for end in (ready[0], *done):
                os.close(end)
            os.waitpid(child, 0)

    # ---- bpffs ------------------------------------------------------------------------------------------------

    def path(self, *parts: str) -> str:
        """A path below bpffs."""
        return os.path.join(self.bpffs, *parts)

    def names(self, path: str) -> list[str]:
        """The names in a directory. Empty if the directory does not exist."""
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def exists(self, path: str) -> bool:
        """Whether the path exists; symbolic links are not followed."""
        return os.path.lexists(path)

    def identity(self, path: str) -> str:
        """Identifies the object pinned there. A new object pinned at the same path has another identity."""
        status = os.stat(path)
        return f"{status.st_dev}-{status.st_ino}"

    def mkdir(self, path: str) -> None:
        """Creates a directory that only root can read."""
        os.mkdir(path, 0o700)

    def rename(self, old: str, new: str) -> None:
        """Renames a pin or directory; replaces a pin at ``new``."""
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        """Removes a pin. A pinned link detaches its program."""
        os.unlink(path)

    def rmdir(self, path: str) -> None:
        """Removes an empty directory."""
        os.rmdir(path)

    def pin(self, fd: int, path: str) -> None:
        """Pins a map, program or link."""
        text = ctypes.create_string_buffer(os.fsencode(path))
        self._bpf(_OBJ_PIN, struct.pack("=QII", ctypes.addressof(text), fd, 0), "pin " + path)

    def get(self, path: str, readonly: bool = False) -> int:
        """Opens a pinned object and returns its descriptor. ``readonly``: for maps only."""
        text = ctypes.create_string_buffer(os.fsencode(path))
        flags = _RDONLY if readonly else 0
        return self._bpf(_OBJ_GET, struct.pack("=QII", ctypes.addressof(text), 0, flags), "open " + path)[0]

    def close(self, fd: int) -> None:
        """Closes a descriptor."""
        os.close(fd)

    # ---- maps -------------------------------------------------------------------------------------------------

    def create_map(self, name: str, spec: MapSpec, inner: int | None = None) -> int:
        """Creates a map and returns its descriptor. ``inner``: a descriptor of a map like the inner ones."""
        attr = struct.pack(
            "=7I16s",
            spec.type,
            spec.key_size,
            spec.value_size,
            spec.max_entries,
            spec.flags,
            inner or 0,
            0,
            name.encode()[:15],
        )
        return self._bpf(_MAP_CREATE, attr, "create map " + name)[0]

    def map_info(self, fd: int) -> MapInfo:
        """The properties of an open map."""
        raw = self._info(fd, 80)
        kind, number, key, value, entries, flags, name = struct.unpack_from("=6I16s", raw)
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            frozen = any(line.split() == ["frozen:", "1"] for line in file)
        return MapInfo(number, name.rstrip(b"\0").decode(), MapSpec(kind, key, value, entries, flags), frozen)

    def ring(self, fd: int, take: bool) -> Ring:
        """A reader of a ring buffer, which the caller closes. ``take``: it may consume; ``fd`` must be writable."""
        return Ring(fd, self.map_info(fd).spec.max_entries, take)

    def map_by_id(self, number: int, readonly: bool = False) -> int:
        """Opens a map by its id and returns its descriptor."""
        return self._bpf(_MAP_BY_ID, struct.pack("=III", number, 0, _RDONLY if readonly else 0), "open map by id")[0]

    def lookup(self, fd: int, key: bytes) -> bytes | None:
        """The value of an entry, or None. In an array of maps it is the id of the inner map."""
        value = ctypes.create_string_buffer(self.map_info(fd).spec.value_size)
        if self._element(_LOOKUP, fd, key, value, "look up", (errno.ENOENT,)) is None:
            return None
        return value.raw

    def update(self, fd: int, key: bytes, value: bytes) -> None:
        """Sets one entry.

        In an array of maps the value is the descriptor of the inner map. The call returns after every program that may
        use the previous inner map has ended."""
        self._element(_UPDATE, fd, key, ctypes.create_string_buffer(value, len(value)), "update")

    def delete(self, fd: int, key: bytes) -> None:
        """Deletes one entry, if it exists."""
        self._element(_DELETE, fd, key, None, "delete", (errno.ENOENT,))

    def update_all(self, fd: int, entries: Mapping[bytes, bytes]) -> None:
        """Sets many entries, in one call if the kernel supports that for the type of map."""
        if not entries:
            return
        keys = ctypes.create_string_buffer(b"".join(entries), sum(map(len, entries)))
        values = ctypes.create_string_buffer(b"".join(entries.values()), sum(map(len, entries.values())))
        attr = struct.pack("=QQQQIIQQ", 0, 0, ctypes.addressof(keys), ctypes.addressof(values), len(entries), fd, 0, 0)
        try:
            self._bpf(_UPDATE_BATCH, attr, "fill map")
        except OSError as error:
            if error.errno not in (_ENOTSUPP, errno.EINVAL):
                raise
            for key, value in entries.items():
                self.update(fd, key, value)

    def read_all(self, fd: int) -> dict[bytes, bytes]:
        """All entries of a map, in few calls if the kernel supports that for the type of map."""
        spec = self.map_info(fd).spec
        entries: dict[bytes, bytes] = {}
        keys = ctypes.create_string_buffer(spec.key_size * spec.max_entries)
        values = ctypes.create_string_buffer(spec.value_size * spec.max_entries)
        token = ctypes.create_string_buffer(max(spec.key_size, 4))
        start = 0
        while True:
            attr = struct.pack(
                "=QQQQIIQQ",
                start,
                ctypes.addressof(token),
                ctypes.addressof(keys),
                ctypes.addressof(values),
                spec.max_entries,
                fd,
                0,
                0,
            )
            try:
                _unused, out = self._bpf(_LOOKUP_BATCH, attr, "read map", (errno.ENOENT,))
            except OSError as error:
                if error.errno not in (_ENOTSUPP, errno.EINVAL) or start:
                    raise
                return self._read_singly(fd, spec)
            count = struct.unpack_from("=I", out, 32)[0]
            ended = self._last_errno == errno.ENOENT
            all_keys, all_values = keys.raw, values.raw  # each use of .raw copies the whole buffer
            for i in range(count):
                entries[all_keys[i * spec.key_size : (i + 1) * spec.key_size]] = all_values[
                    i * spec.value_size : (i + 1) * spec.value_size
                ]
            if ended or not count:
                return entries
            start = ctypes.addressof(token)

    def freeze(self, fd: int) -> None:
        """Prevents all further writes to the map from user space."""
        self._bpf(_FREEZE, struct.pack("=I", fd), "freeze map")

    # ---- programs and links -----------------------------------------------------------------------------------

    def program_info(self, fd: int) -> ProgramInfo:
        """The properties of an open program."""
        ids = (ctypes.c_uint32 * 64)()
        # struct bpf_prog_info: nr_map_ids at byte 52, map_ids at 56; the kernel fills the array
        request = bytearray(232)
        struct.pack_into("=IQ", request, 52, 64, ctypes.addressof(ids))
        raw = self._info(fd, 232, bytes(request))
        number, tag = struct.unpack_from("=4xI8s", raw)
        (count,) = struct.unpack_from("=I", raw, 52)
        name = raw[64:80].rstrip(b"\0").decode()
        return ProgramInfo(number, name, tag.hex(), tuple(ids[: min(count, 64)]))

    def program_by_id(self, number: int) -> int:
        """Opens a program by its id and returns its descriptor."""
        return self._bpf(_PROG_BY_ID, struct.pack("=III", number, 0, 0), "open program by id")[0]

    def link_info(self, fd: int) -> LinkInfo:
        """The properties of an open link."""
        raw = self._info(fd, 64)
        kind, number, program = struct.unpack_from("=III", raw)
        return LinkInfo(number, program, *(struct.unpack_from("=III", raw, 16) if kind == _TRACING else ()))

    def links(self) -> list[LinkInfo]:
        """Every link in the kernel, also those of other programs."""
        links: list[LinkInfo] = []
        number = 0
        while True:
            try:
                _unused, out = self._bpf(_LINK_NEXT_ID, struct.pack("=III", number, 0, 0), "next link")
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                return links
            number = struct.unpack_from("=I", out, 4)[0]
            try:
                link = self._bpf(_LINK_BY_ID, struct.pack("=III", number, 0, 0), "open link by id")[0]
            except OSError as error:
                if error.errno != errno.ENOENT:  # the link was removed since the call before
                    raise
                continue
            try:
                links.append(self.link_info(link))
            finally:
                self.close(link)

    def link_exists(self, number: int) -> bool:
        """Whether the link with this id exists. The kernel removes the id when it begins to detach the program."""
        try:
            self.close(self._bpf(_LINK_BY_ID, struct.pack("=III", number, 0, 0), "open link by id")[0])
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EAGAIN):  # EAGAIN: the link is going
                raise
            return error.errno == errno.EAGAIN
        return True

    def attach(self, program: int) -> int:
        """Attaches a program to the hook or function it was loaded for. It runs as long as the link exists."""
        return self._bpf(_RAW_TRACEPOINT_OPEN, struct.pack("=QII", 0, program, 0), "attach program")[0]

    # ---- the object -------------------------------------------------------------------------------------------

    def describe(self, data: bytes) -> ObjectInfo:
        """The maps and programs of an object file. Raises EnforcerError."""
        return self._library().describe(data)

    def has_hook(self, program: str) -> bool:
        """Whether this kernel has the hook of the program, with the number of arguments that the program expects."""
        return self._library().has_hook(program)

    def load(self, data: bytes, reuse: Mapping[str, int]) -> Loaded:
        """Loads the object, and returns the programs by hook. Raises EnforcerError.

        Programs are left out if this kernel does not have their hook, or their function (fentry). ``reuse``: the
        descriptors of existing maps to use, by name."""
        return self._library().load(data, reuse)

    def relocate(self, data: bytes, btf: str = "") -> list[Relocated]:
        """Relocates the object's programs for this kernel, or for the one whose BTF is in the file ``btf``.

        The programs are not loaded. Those for which the kernel has no hook are left out. Raises EnforcerError."""
        placeholder = self.create_map("eg_place", _PLACEHOLDER)
        try:
            return self._library().relocate(data, btf, placeholder)
        finally:
            self.close(placeholder)

    def symbol(self, name: str) -> int:
        """The address of a kernel symbol. 0 if the kernel hides it: libbpf then uses 0, too."""
        with open("/proc/kallsyms", encoding="ascii", errors="replace") as file:
            for line in file:
                address, _kind, symbol = line.split(None, 3)[:3]
                if symbol == name:
                    return int(address, 16)
        return 0

    def _library(self) -> Libbpf:
        if self._libbpf is None:
            self._libbpf = Libbpf(self._libc)
        return self._libbpf

    # ---- bpf(2) -----------------------------------------------------------------------------------------------

    _last_errno = 0

    def _bpf(self, command: int, attr: bytes, what: str, tolerated: tuple[int, ...] = ()) -> tuple[int, bytes]:
        """The result, and ``attr`` as the kernel left it. Errors in ``tolerated`` give a negative result."""
        if self._number is None:
            raise OSError(errno.ENOSYS, "no bpf(2) number for this architecture", what)
        buffer = ctypes.create_string_buffer(attr, max(len(attr), 128))
        result = self._libc.syscall(
            ctypes.c_long(self._number), ctypes.c_int(command), buffer, ctypes.c_uint(len(attr))
        )
        self._last_errno = ctypes.get_errno() if result < 0 else 0
        if result < 0 and self._last_errno not in tolerated:
            reason = "not supported" if self._last_errno == _ENOTSUPP else os.strerror(self._last_errno)
            raise OSError(self._last_errno, reason, what)
        return result, buffer.raw

    def _element(
        self,
        command: int,
        fd: int,
        key: bytes,
        value: ctypes.Array[ctypes.c_char] | None,
        what: str,
        tolerated: tuple[int, ...] = (),
    ) -> int | None:
        key_buffer = ctypes.create_string_buffer(key, len(key))
        address = ctypes.addressof(value) if value is not None else 0
        attr = struct.pack("=I4xQQQ", fd, ctypes.addressof(key_buffer), address, 0)
        result, _unused = self._bpf(command, attr, what + " map entry", tolerated)
        return None if result < 0 else result

    def _read_singly(self, fd: int, spec: MapSpec) -> dict[bytes, bytes]:
        entries: dict[bytes, bytes] = {}
        after = ctypes.create_string_buffer(spec.key_size)
        key: ctypes.Array[ctypes.c_char] | None = None
        while True:
            attr = struct.pack(
                "=I4xQQQ", fd, ctypes.addressof(key) if key is not None else 0, ctypes.addressof(after), 0
            )
            result, _unused = self._bpf(_NEXT_KEY, attr, "iterate map", (errno.ENOENT,))
            if result < 0 or after.raw in entries:
                return entries
            value = self.lookup(fd, after.raw)
            if value is not None:
                entries[after.raw] = value
            key = ctypes.create_string_buffer(after.raw, spec.key_size)

    def _info(self, fd: int, size: int, request: bytes = b"") -> bytes:
        info = ctypes.create_string_buffer(request, size)
        self._bpf(_INFO, struct.pack("=IIQ", fd, size, ctypes.addressof(info)), "get info")
        return info.raw
