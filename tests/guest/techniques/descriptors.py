# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to a covered file through a descriptor: opened before the policy, mapped, inherited, received from another process."""

import ctypes
import mmap
import os
import signal
import socket
import struct

from techniques.files import attempt_write, emptied, overwriting
from techniques.registry import appears, in_child, technique
from techniques.steps import hand_out, handed_out, piped, spawn, spread, system_ioctl, take
from techniques.syscalls import AT_FDCWD, Ring, system

# ---- to read: what was opened before ---------------------------------------------------------------------------------


def opened(t, flags=os.O_RDWR):
    return os.open(t.secret, flags)


@technique("files", "read: a descriptor opened before", "read", held=opened)
def held_read(t, fd):
    return os.read(fd, 4096)


@technique("files", "pread: a descriptor opened before", "read", held=opened)
def held_pread(t, fd):
    return os.pread(fd, 4096, 0)


@technique("files", "readv, preadv2: a descriptor opened before", "read", held=opened)
def held_preadv(t, fd):
    buffer = bytearray(4096)
    os.preadv(fd, [buffer], 0)
    return bytes(buffer)


@technique("files", "sendfile: a descriptor opened before", "read", held=opened)
def held_sendfile(t, fd):
    return piped(lambda writer: os.sendfile(writer, fd, 0, 4096))


@technique("files", "sendfile: a descriptor opened before", "read", held=opened)
def held_sendfile_to_socket(t, fd):
    one, other = socket.socketpair()
    os.sendfile(one.fileno(), fd, 0, 4096)
    return other.recv(4096)


@technique("files", "splice: a descriptor opened before", "read", held=opened)
def held_splice(t, fd):
    return piped(lambda writer: os.splice(fd, writer, 4096))


@technique("files", "copy_file_range: a descriptor opened before", "read", held=opened)
def held_copy_file_range(t, fd):
    target = os.open(t.own, os.O_RDWR | os.O_CREAT, 0o666)
    os.copy_file_range(fd, target, 4096)
    return os.pread(target, 4096, 0)


@technique("files", "mmap: a descriptor opened before", "read", held=opened)
def held_mmap(t, fd):
    return mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)[:]


@technique("files", "mmap: a descriptor opened before", "read", held=opened)
def held_mmap_private(t, fd):
    return mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)[:]


@technique("files", "io_uring: a descriptor opened before", "read", held=lambda t: (Ring(), opened(t)))
def held_uring_read(t, held):
    return held[0].read(held[1])


def _registered(t):
    ring = Ring(Ring.SQPOLL)
    ring.register_files(opened(t))
    return ring


@technique("files", "io_uring: a file registered before", "read", held=_registered)
def held_uring_registered(t, ring):
    return ring.read(0, entry_flags=1)


@technique("files", "io_submit: a descriptor opened before", "read", held=opened)
def held_aio(t, fd):
    context = ctypes.c_ulong()
    system("io_setup", 1, ctypes.byref(context))
    buffer = ctypes.create_string_buffer(4096)
    block = ctypes.create_string_buffer(
        struct.pack("=QIIHhIQQqQII", 1, 0, 0, 0, 0, fd, ctypes.addressof(buffer), 4096, 0, 0, 0, 0), 64
    )
    pointer = ctypes.c_void_p(ctypes.addressof(block))
    system("io_submit", context.value, 1, ctypes.byref(pointer))
    event = ctypes.create_string_buffer(32)
    system("io_getevents", context.value, 1, 1, event, None)
    result = struct.unpack_from("=QQqq", event)[2]
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return buffer.raw


@technique("files", "a descriptor inherited over exec", "read", held=opened)
def held_inherited(t, fd):
    return piped(lambda writer: spawn(t, ["cat", 99], {1: writer, 99: fd}))


@technique("files", "/proc/self/fd of a descriptor opened before", "read", held=opened)
def held_reopened(t, fd):
    return take(f"/proc/self/fd/{fd}")


@technique(
    "files",
    "read through a mapping made before",
    "read",
    held=lambda t: mmap.mmap(opened(t), 0, mmap.MAP_SHARED, mmap.PROT_READ),
    open="what is mapped needs no call to be read; what is then sent is stopped by a rule on sending",
    closed_by={"deny": ["connect", "send"], "subjects": ["alice"], "destinations": {"not": ["vault"]}},
)
def held_mapping(t, mapped):
    return t.out(mapped[:])


# ---- to read: descriptors of somebody else's -------------------------------------------------------------------------


def _giver(t):
    hand_out(t, "giver", lambda: os.open(t.secret, os.O_RDONLY))


def received(t):
    return handed_out(t, "giver")


@technique("files", "a descriptor received over a unix socket", "read", ready=_giver)
def received_descriptor(t):
    return os.read(received(t), 4096)


@technique("files", "a descriptor received over a unix socket", "read", ready=_giver)
def received_descriptor_mapped(t):
    return mmap.mmap(received(t), 0, mmap.MAP_SHARED, mmap.PROT_READ)[:]


def _in_flight(t):
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    fd = opened(t)
    socket.send_fds(one, [b"x"], [fd])
    os.close(fd)
    return one, other


@technique("files", "a descriptor received over a unix socket", "read", held=_in_flight)
def received_in_flight(t, pair):
    descriptors = socket.recv_fds(pair[1], 1, 1)[1]
    if not descriptors:
        raise PermissionError(1, "no descriptor came")
    return os.read(descriptors[0], 4096)


def _holder(t):
    """Root, bound by nothing, has the file open as descriptor 9."""

    def hold():
        os.dup2(os.open(t.secret, os.O_RDONLY), 199)
        signal.pause()

    t.kept["holder"] = t.helper(hold)
    appears(f"/proc/{t.kept['holder']}/fd/199")


@technique("files", "a descriptor taken by pidfd_getfd", "read", who="files.service", ready=_holder)
def pidfd_getfd(t):
    return os.read(system("pidfd_getfd", system("pidfd_open", t.kept["holder"], 0), 199, 0), 4096)


@technique("files", "/proc/PID/fd of another process", "read", who="files.service", ready=_holder)
def proc_other_descriptor(t):
    return take(f"/proc/{t.kept['holder']}/fd/199")


@technique("files", "a descriptor from fanotify", "read", who="files.service")
def fanotify(t):
    group = system("fanotify_init", 0, os.O_RDONLY)
    system("fanotify_mark", group, 1, 0x20, AT_FDCWD, t.secret)  # FAN_OPEN

    def look():
        t.unbound()
        take(t.secret)
        return True

    in_child(look)
    descriptor = struct.unpack_from("=IBBHQii", os.read(group, 4096))[5]
    return os.read(descriptor, 4096)


@technique(
    "files",
    "a loop device over a descriptor opened before",
    "read",
    who="files.service",
    held=opened,
    ready=lambda t: spread(t, t.secret, t.data + bytes(8192)),
    open="the kernel's own thread reads what is behind a loop device; a rule on block devices stops who would read it",
    closed_by={"deny": ["block-device"], "subjects": ["u-files"]},
)
def loop_over_held(t, fd):
    control = os.open("/dev/loop-control", os.O_RDWR)
    number = system_ioctl(control, 0x4C82, 0)
    loop = os.open(f"/dev/loop{number}", os.O_RDWR)
    system_ioctl(loop, 0x4C00, fd)
    try:
        return os.read(loop, 512)
    finally:
        system_ioctl(loop, 0x4C01, 0)


@attempt_write("ftruncate: a descriptor opened before", held=opened, evidence=emptied)
def held_ftruncate(t, fd):
    os.ftruncate(fd, 0)


@attempt_write("write: a descriptor opened before", held=opened)
def held_write(t, fd):
    os.write(fd, b"overwritten")


@attempt_write("pwrite: a descriptor opened before", held=opened)
def held_pwrite(t, fd):
    os.pwrite(fd, b"overwritten", 0)


@attempt_write("splice into a descriptor opened before", held=opened)
def held_splice_into(t, fd):
    reader, writer = os.pipe()
    os.write(writer, b"overwritten")
    os.splice(reader, fd, 11)


@attempt_write("sendfile into a descriptor opened before", held=opened)
def held_sendfile_into(t, fd):
    os.sendfile(fd, overwriting(t), 0, 11)


@attempt_write("copy_file_range into a descriptor opened before", held=opened)
def held_copy_into(t, fd):
    os.copy_file_range(overwriting(t), fd, 11)


@attempt_write("mmap: a descriptor opened before, written through", held=opened)
def held_mmap_write(t, fd):
    mmap.mmap(fd, 11, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)[:11] = b"overwritten"


@attempt_write("io_uring: write to a descriptor opened before", held=lambda t: (Ring(), opened(t)))
def held_uring_write(t, held):
    held[0].do(Ring.WRITE, held[1], b"overwritten", 11)


@attempt_write(
    "fallocate: a descriptor opened before", held=opened, evidence=lambda t: os.path.getsize(t.secret) > 4096
)
def held_fallocate(t, fd):
    os.posix_fallocate(fd, 0, 8192)


@attempt_write(
    "set an extended attribute",
    held=opened,
    evidence=lambda t: "user.mark" in os.listxattr(t.secret),
    last=lambda t: os.removexattr(t.secret, "user.mark") if "user.mark" in os.listxattr(t.secret) else None,
)
def held_fsetxattr(t, fd):
    os.setxattr(fd, "user.mark", t.data)


@attempt_write(
    "write through a mapping made before",
    held=lambda t: mmap.mmap(opened(t), 11, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    open="what is mapped needs no call to be written; a process that was there before the first apply is "
    "restarted after it, and then the same rule stops it",
)
def held_mapping_write(t, mapped):
    if t.phase == "closed":  # restarted
        mapped = mmap.mmap(os.open(t.secret, os.O_RDWR), 11, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    mapped[:11] = b"overwritten"
