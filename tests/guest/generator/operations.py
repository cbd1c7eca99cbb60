# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operations of random programs. Each gets the task that runs the program (``m``, of world.py: its descriptors, what it
has read) and arguments of small domains. Descriptors are counted from the first that the task has; the first ones it is given."""

import contextlib
import ctypes
import fcntl
import mmap
import os
import signal
import socket
import struct
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

from techniques.steps import link_followed, own_namespaces, put, run
from techniques.syscalls import AT_FDCWD, Compat, Ring, Vector, bpf, call, handle_of, libc, open_handle, system
from techniques.tamper import PINS


class Operation(NamedTuple):
    function: Callable
    arguments: Tuple[str, ...]
    weight: int
    whose: Tuple[str, ...]


OPERATIONS: Dict[str, Operation] = {}
USER, READER, ROOT = "alice", "bob", "files.service"
ALL = (USER, READER, ROOT)

NAMES = ("a", "b", "d", "d/a", "m")  # below a folder of the program's own
DOMAINS: Dict[str, List[Any]] = {
    "path": [
        *(["secret"] * 6),
        "customers",
        "customers",
        "secret folder",
        "secret folder",
        "exports",
        "other",
        *NAMES,
        *NAMES,
        "proc fd 0",
        "last descriptor",
        "root/secret",
        "m/data",
        "m/secret/data",
        "/",
        "base",
    ],
    "target": [*NAMES, *NAMES, *NAMES, "secret", "secret folder", "exports", "customers", "base", "other"],
    "fd": [0, 0, 1, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, -1, -1, -1, -2, -2, -3],
    "open": [
        0,
        0,
        0,
        0,
        2,
        2,
        1,
        0x41,
        0x42,
        0x241,
        0x401,
        0x10000,
        0x200000,
        0x200000,
        0x20000,
        0x410000 | 2,
        0x40000,
    ],
    "size": [16, 64, 4096],
    "offset": [0, 0, 0, 1, 4096],
    "protection": [1, 1, 3, 5],
    "sharing": [1, 2],
    "flags": [0, 0, 0, 1, 2, 4],
    "namespaces": [
        0x10000000,
        0x10000000,
        0x10020000,
        0x10020000,
        0x10020000,
        0x30020000,
        0x50020000,
        0x12020000,
        0x14020000,
        0x00020000,
        0x02000000,
    ],
    "kind": ["tmpfs", "proc", "ramfs", "cgroup2", "sysfs", "bpf", "mqueue", "ext4"],
    "identity": ["real", "effective", "saved", "file system", "groups", "capabilities", "dumpable"],
    "user": [0, 1001, 1002, 1003, 65534],
    "cgroup": [
        "",
        "system.slice",
        "system.slice/adversary-files.service",
        "system.slice/adversary-network.service",
        "mine",
    ],
    "switch": [
        "/proc/sys/kernel/ftrace_enabled",
        "/proc/sys/kernel/kptr_restrict",
        "/proc/sys/kernel/unprivileged_bpf_disabled",
        "/proc/sys/net/core/bpf_jit_enable",
        "/proc/sys/vm/drop_caches",
        "/proc/self/oom_score_adj",
        "/proc/self/loginuid",
        "/proc/self/comm",
        "/sys/kernel/debug/kprobes/enabled",
    ],
    "number": [0, 0, 1, 2],
    "kind of socket": [1, 2, 2, 5],
    "map": ["control", "counters", "totals", "subjects", "events", "marks"],
}


def operation(*arguments: str, weight: int = 3, whose: Tuple[str, ...] = ALL) -> Callable:
    def register(function: Callable) -> Callable:
        OPERATIONS[function.__name__.rstrip("_")] = Operation(function, arguments, weight, whose)
        return function

    return register


# ---- open ------------------------------------------------------------------------------------------------------------


@operation("path", "open", weight=14)
def openat(m, path, flags):
    m.keep(os.open(m.path(path), flags | os.O_NONBLOCK, 0o666))


@operation("fd", "path", "open", weight=5)
def openat_below(m, fd, path, flags):
    m.keep(os.open(os.path.basename(m.path(path)), flags | os.O_NONBLOCK, 0o666, dir_fd=m.fd(fd)))


@operation("path", "open")
def open_by_the_old_call(m, path, flags):
    m.keep(system("open", m.path(path), flags | os.O_NONBLOCK, 0o666))


@operation("path", "open")
def open_32_bit(m, path, flags):
    m.keep(Compat().call(5, m.path(path), flags | os.O_NONBLOCK, 0o666))


@operation("path", "open")
def openat2(m, path, flags):
    how = struct.pack("=QQQ", flags | os.O_NONBLOCK, 0o666 if flags & 0x40 or flags & 0x400000 else 0, 0)
    m.keep(system("openat2", AT_FDCWD, m.path(path), ctypes.create_string_buffer(how), 24))


@operation("path", "open", weight=4)
def uring_open(m, path, flags):
    m.keep(m.ring().open(m.path(path), flags | os.O_NONBLOCK))


@operation("fd", "open", weight=5)
def reopen(m, fd, flags):
    m.keep(os.open(f"/proc/self/fd/{m.fd(fd)}", flags | os.O_NONBLOCK))


@operation("path", "open", whose=(ROOT,))
def open_by_handle(m, path, flags):
    m.keep(open_handle(os.path.dirname(m.path(path)), handle_of(m.path(path)), flags | os.O_NONBLOCK))


@operation("path", weight=2)
def open_tree(m, path):
    m.keep(system("open_tree", AT_FDCWD, m.path(path), 1))


@operation("fd", weight=1)
def dup(m, fd):
    m.keep(os.dup(m.fd(fd)))


@operation("fd", weight=1)
def close(m, fd):
    os.close(m.fd(fd))


# ---- read ------------------------------------------------------------------------------------------------------------


@operation("fd", "size", weight=12)
def read(m, fd, size):
    m.got(os.read(m.fd(fd), size))


@operation("fd", "offset", weight=6)
def pread(m, fd, offset):
    m.got(os.pread(m.fd(fd), 4096, offset))


@operation("fd")
def readv(m, fd):
    buffer = bytearray(4096)
    os.readv(m.fd(fd), [buffer])
    m.got(bytes(buffer))


@operation("fd", "protection", "sharing", weight=6)
def map_file(m, fd, protection, sharing):
    one = mmap.mmap(m.fd(fd), 4096, flags=sharing, prot=protection)
    m.maps.append(one)
    if protection & 1:
        m.got(one[:64])


@operation("number")
def look_at_mapping(m, which):
    m.got(m.maps[which][:64])


@operation("fd")
def getdents(m, fd):
    m.got(b" ".join(os.fsencode(name) for name in os.listdir(m.fd(fd))))


@operation("fd", "fd", weight=5)
def sendfile(m, target, source):
    os.sendfile(m.fd(target), m.fd(source), 0, 4096)


@operation("fd", "fd", weight=5)
def splice(m, source, target):
    os.splice(m.fd(source), m.fd(target), 4096, flags=2)


@operation("fd", "fd", weight=2)
def tee(m, source, target):
    system("tee", m.fd(source), m.fd(target), 4096, 2)


@operation("fd", "fd", weight=4)
def copy_file_range(m, source, target):
    os.copy_file_range(m.fd(source), m.fd(target), 4096)


@operation("fd", weight=4)
def uring_read(m, fd):
    m.got(m.ring().read(m.fd(fd)))


@operation("fd", weight=2)
def uring_register(m, fd):
    m.ring().register_files(m.fd(fd))


@operation(weight=2)
def uring_read_registered(m):
    m.got(m.ring().read(0, entry_flags=1))


@operation("path")
def getxattr(m, path):
    m.got(os.getxattr(m.path(path), "user.mark"))


@operation("path", weight=2)
def readlink(m, path):
    m.got(os.fsencode(os.readlink(m.path(path))))


# ---- write -----------------------------------------------------------------------------------------------------------


@operation("fd", weight=5)
def write(m, fd):
    os.write(m.fd(fd), m.last())


@operation("fd", weight=2)
def pwrite(m, fd):
    os.pwrite(m.fd(fd), b"overwritten", 0)


@operation("fd", weight=2)
def vmsplice(m, fd):
    buffer = ctypes.create_string_buffer(m.last(), 64)
    system("vmsplice", m.fd(fd), ctypes.byref(Vector(ctypes.addressof(buffer), 64)), 1, 2)


@operation("fd", weight=2)
def uring_write(m, fd):
    m.ring().do(Ring.WRITE, m.fd(fd), m.last(), len(m.last()), 0)


@operation("fd", weight=1)
def ftruncate(m, fd):
    os.ftruncate(m.fd(fd), 0)


@operation("path", weight=1)
def truncate(m, path):
    os.truncate(m.path(path), 0)


@operation("fd", weight=1)
def fallocate(m, fd):
    os.posix_fallocate(m.fd(fd), 0, 4096)


@operation("path", weight=2)
def setxattr(m, path):
    os.setxattr(m.path(path), "user.mark", m.last()[:64])


@operation("path", weight=1)
def chmod(m, path):
    os.chmod(m.path(path), 0o777)


@operation("path", "user", weight=1)
def chown(m, path, user):
    os.chown(m.path(path), user, user)


@operation("fd", weight=1)
def clear_flags(m, fd):
    fcntl.ioctl(m.fd(fd), 0x40086602, ctypes.create_string_buffer(8))


# ---- names -----------------------------------------------------------------------------------------------------------


@operation("path", "target", weight=5)
def link(m, source, target):
    os.link(m.path(source), m.path(target))


@operation("fd", "target", weight=4)
def link_descriptor(m, fd, target):
    link_followed(f"/proc/self/fd/{m.fd(fd)}", m.path(target))


@operation("path", "target", weight=5)
def rename(m, source, target):
    os.rename(m.path(source), m.path(target))


@operation("path", "target", "flags", weight=3)
def renameat2(m, source, target, flags):
    call("renameat2", AT_FDCWD, m.path(source), AT_FDCWD, m.path(target), flags)


@operation("path", "target", weight=2)
def uring_link(m, source, target):
    old, new = (ctypes.create_string_buffer(os.fsencode(m.path(each))) for each in (source, target))
    m.ring().do(Ring.LINKAT, AT_FDCWD, ctypes.addressof(old), AT_FDCWD & 0xFFFFFFFF, ctypes.addressof(new))


@operation("path", "target", weight=3)
def symlink(m, source, target):
    os.symlink(m.path(source), m.path(target))


@operation("target", weight=3)
def mkdir(m, target):
    os.mkdir(m.path(target))


@operation("target", weight=1)
def unlink(m, target):
    os.unlink(m.path(target))


@operation("target", weight=1)
def rmdir(m, target):
    os.rmdir(m.path(target))


@operation("target", weight=1)
def mkfifo(m, target):
    os.mkfifo(m.path(target))


@operation("path", weight=2)
def chdir(m, path):
    os.chdir(m.path(path))


@operation("path", weight=2)
def chroot(m, path):
    os.chroot(m.path(path))


# ---- descriptors -----------------------------------------------------------------------------------------------------


@operation(weight=5)
def pipe(m):
    for each in os.pipe2(os.O_NONBLOCK):
        m.keep(each)


@operation("kind of socket", weight=3)
def socketpair(m, kind):
    for each in socket.socketpair(socket.AF_UNIX, kind):
        each.setblocking(False)
        m.keep(each.detach())


@operation("fd", "fd", weight=3)
def send_descriptor(m, through, fd):
    with _socket(m, through) as one:
        socket.send_fds(one, [b"x"], [m.fd(fd)])


@operation("fd", weight=3)
def receive_descriptor(m, through):
    with _socket(m, through) as one:
        data, descriptors, _flags, _address = socket.recv_fds(one, 4096, 4)
        m.got(data)
        for each in descriptors:
            m.keep(each)


@contextlib.contextmanager
def _socket(m, fd):
    one = socket.socket(fileno=os.dup(m.fd(fd)))
    try:
        yield one
    finally:
        one.close()


@operation(weight=2)
def memfd_create(m):
    m.keep(os.memfd_create("x"))


@operation(weight=1)
def memfd_secret(m):
    fd = system("memfd_secret", 0)
    os.ftruncate(fd, 4096)
    m.keep(fd)


@operation(weight=2)
def anonymous_memory(m):
    m.maps.append(mmap.mmap(-1, 4096))
    m.maps[-1][:64] = m.last()[:64].ljust(64, b"\0")


# ---- sockets ---------------------------------------------------------------------------------------------------------


@operation("kind of socket", weight=4)
def connect(m, kind):
    one = socket.socket(socket.AF_INET, kind if kind < 3 else 1)
    one.settimeout(0.5)
    m.keep(one.detach())
    with _socket(m, -1) as other:
        other.settimeout(0.5)
        other.connect(m.outside)


@operation("kind of socket", weight=2)
def udp_or_tcp(m, kind):
    m.keep(socket.socket(socket.AF_INET, (kind if kind < 3 else 1) | socket.SOCK_NONBLOCK).detach())


@operation("fd", weight=4)
def sendto(m, fd):
    with _socket(m, fd) as one:
        one.sendto(m.last(), m.outside)


@operation("fd", weight=2)
def fast_open(m, fd):
    with _socket(m, fd) as one:
        one.sendto(m.last(), 0x20000000, m.outside)


@operation("fd", weight=3)
def send(m, fd):
    with _socket(m, fd) as one:
        one.send(m.last())


@operation("fd", weight=2)
def disconnect(m, fd):
    call("connect", m.fd(fd), bytes(16), 16)


@operation("fd", "number", "number", weight=2)
def setsockopt(m, fd, level, option):
    with _socket(m, fd) as one:
        one.setsockopt((0, 1, 6)[level], (1, 4, 30)[option], struct.pack("=i", 1))


@operation("fd", weight=2)
def uring_send(m, fd):
    m.ring().do(Ring.SEND, m.fd(fd), m.last(), len(m.last()))


# ---- namespaces, mounts ----------------------------------------------------------------------------------------------


@operation("namespaces", weight=5)
def unshare(m, namespaces):
    if namespaces & 0x10000000 and os.getuid():
        own_namespaces(namespaces & ~0x10000000)
    else:
        call("unshare", namespaces)
    if namespaces & 0x20000:
        call("mount", "none", "/", None, 0x44000, None)  # private


@operation("path", "target", weight=4)
def bind_mount(m, source, target):
    call("mount", m.path(source), m.path(target), None, 0x5000, None)


@operation("target", "kind", weight=2)
def mount(m, target, kind):
    call("mount", kind, m.path(target), kind, 0, None)


@operation("path", "target", weight=3)
def overlay(m, lower, target):
    call("mount", "overlay", m.path(target), "overlay", 0, f"lowerdir={m.path(lower)}:{m.path('d')}")


@operation("path", "target", weight=1)
def move_mount(m, source, target):
    call("mount", m.path(source), m.path(target), None, 0x2000, None)


@operation("fd", "target", weight=2)
def attach_tree(m, fd, target):
    system("move_mount", m.fd(fd), "", AT_FDCWD, m.path(target), 4)


@operation("target", weight=1)
def umount(m, target):
    call("umount2", m.path(target), 2)


@operation("kind", weight=1)
def new_filesystem(m, kind):
    fd = system("fsopen", kind, 0)
    system("fsconfig", fd, 6, 0, 0, 0)
    m.keep(system("fsmount", fd, 0, 0))


@operation("number", weight=2)
def setns(m, which):
    fd = os.open(f"/proc/{(1, os.getppid(), os.getpid())[which]}/ns/{('mnt', 'user', 'cgroup')[which]}", os.O_RDONLY)
    call("setns", fd, 0)


# ---- tasks -----------------------------------------------------------------------------------------------------------


@operation(weight=5)
def fork(m):
    """The child goes on with the rest of the program, and then its parent."""
    m.fork()


@operation(weight=2)
def fork_and_end(m):
    """The child goes on with the rest of the program, alone."""
    m.fork()
    raise m.End


@operation(weight=2)
def thread(m):
    """The rest of the program runs in a thread."""
    one = threading.Thread(target=m.rest)
    one.start()
    one.join(2)
    raise m.End


@operation("fd", weight=4)
def execute_cat(m, fd):
    """A program that copies a descriptor to its output."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(m.fd(fd), 99)
        os.dup2(writer, 1)
        os.execv(m.place.bin + "/hand", ["hand", "cat", "99"])
    os.close(writer)
    m.got(os.read(reader, 4096))
    os.close(reader)
    os.waitpid(child, 0)


@operation("path", weight=3)
def execute_open(m, path):
    """A program that opens a file."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.execv(m.place.bin + "/hand", ["hand", "open", m.path(path)])
    os.close(writer)
    m.got(os.read(reader, 4096))
    os.close(reader)
    os.waitpid(child, 0)


@operation("path", weight=2)
def execute(m, path):
    run(m.path(path))


@operation("path", "protection", weight=1)
def map_as_code(m, path, protection):
    fd = os.open(m.path(path), os.O_RDONLY | os.O_NONBLOCK)
    m.maps.append(mmap.mmap(fd, 4096, flags=2, prot=protection))


@operation("identity", "user", weight=4)
def become(m, what, user):
    if what == "real":
        os.setresuid(user, -1, -1)
    elif what == "effective":
        os.setresuid(-1, user, -1)
    elif what == "saved":
        os.setresuid(-1, -1, user)
    elif what == "file system":
        libc.setfsuid(user)
    elif what == "groups":
        os.setgroups([user])
    elif what == "capabilities":
        call("prctl", 8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
        os.setresuid(user, user, user)
    else:
        call("prctl", 4, 1, 0, 0, 0)


@operation("cgroup", weight=3, whose=(ROOT,))
def into_cgroup(m, name):
    put(f"/sys/fs/cgroup/{name}/cgroup.procs", b"0")


@operation("cgroup", weight=1, whose=(ROOT,))
def make_cgroup(m, name):
    os.mkdir(f"/sys/fs/cgroup/{name}/mine" if name != "mine" else "/sys/fs/cgroup/mine")


@operation("cgroup", weight=2, whose=(ROOT,))
def clone_into_cgroup(m, name):
    fd = os.open(f"/sys/fs/cgroup/{name}", os.O_RDONLY | os.O_DIRECTORY)
    arguments = ctypes.create_string_buffer(
        struct.pack("=11Q", 0x200000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, fd)
    )
    m.fork(lambda: system("clone3", arguments, 88))


@operation("switch", "number", weight=2)
def put_switch(m, path, number):
    put(path, str(number).encode())


# ---- what enforces -----------------------------------------------------------------------------------------------------


def _a_pin(number):
    folder = next(name for name in sorted(os.listdir(PINS)) if name.startswith("links-"))
    names = sorted(os.listdir(f"{PINS}/{folder}"))
    return f"{PINS}/{folder}/{names[number * 7 % len(names)]}"


@operation("number", weight=1, whose=(ROOT,))
def unlink_pin(m, which):
    os.unlink(_a_pin(which))


@operation("number", weight=1, whose=(ROOT,))
def rename_pin(m, which):
    os.rename(_a_pin(which), "/sys/fs/bpf/elsewhere")


@operation("number", weight=1, whose=(ROOT,))
def detach_link(m, which):
    name = ctypes.create_string_buffer(_a_pin(which).encode())
    bpf(34, "=I", bpf(7, "=QII", ctypes.addressof(name), 0, 0))


@operation("map", weight=1, whose=(ROOT,))
def write_map(m, name):
    path = ctypes.create_string_buffer(f"{PINS}/maps/{name}".encode())
    fd = bpf(7, "=QII", ctypes.addressof(path), 0, 0)
    key, value = ctypes.create_string_buffer(64), ctypes.create_string_buffer(4096)
    bpf(2, "=I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0)


@operation("number", weight=1, whose=(ROOT,))
def write_package(m, which):
    path = ("/usr/lib/exfil-guard/guard.bpf.o", "/usr/lib/exfil-guard/PACKAGE", "/var/lib/exfil-guard/x")[which]
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND | (os.O_CREAT if which == 2 else 0)))
