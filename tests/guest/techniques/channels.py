# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways for data from one task to another. A channel is made before anything is read; then a task that has read writes to
it, and another task, a child of the one that made it, reads from it."""

import ctypes
import mmap
import os
import socket
import struct
from typing import Any, Callable, NamedTuple

from techniques.registry import Absent
from techniques.steps import gone, put, take
from techniques.syscalls import Ring, Vector, libc, remote_memory, system


class Signal:
    """From one task to another by what carries no label."""

    def __init__(self) -> None:
        self.number = os.eventfd(0)

    def wait(self) -> None:
        os.eventfd_read(self.number)

    def give(self) -> None:
        os.eventfd_write(self.number, 1)


class Channel(NamedTuple):
    write: Callable[[bytes], Any]
    read: Callable[[int], Any]  # of so many bytes at most
    waits: bool = True  # a read waits for the write; otherwise it may come after the write only
    close: Callable[[], Any] = lambda: None  # once both have ended


# ---- pipes -----------------------------------------------------------------------------------------------------------


def _pipe(fill=None):
    """``fill(writer, data)`` fills it."""

    def make(_scratch):
        reader, writer = os.pipe()
        return Channel(lambda data: (fill or os.write)(writer, data), lambda size: os.read(reader, size))

    return make


def from_own_pipe(move):
    """Fills a descriptor by ``move(reader of a pipe of one's own, descriptor, size)``."""

    def fill(descriptor, data):
        reader, writer = os.pipe()
        os.write(writer, data)
        move(reader, descriptor, len(data))

    return fill


def vmsplice(writer, data):
    buffer = ctypes.create_string_buffer(data, len(data))
    system("vmsplice", writer, ctypes.byref(Vector(ctypes.addressof(buffer), len(data))), 1, 0)
    return buffer  # the pipe has the page itself


def sendfile(descriptor, data):
    memory = os.memfd_create("x")
    os.write(memory, data)
    os.sendfile(descriptor, memory, 0, len(data))


def tee(source, target, size):
    system("tee", source, target, size, 0)


pipe = _pipe()
pipe_by_splice = _pipe(from_own_pipe(os.splice))
pipe_by_tee = _pipe(from_own_pipe(tee))
pipe_by_vmsplice = _pipe(vmsplice)
pipe_by_uring = _pipe(lambda writer, data: Ring().do(Ring.WRITE, writer, data, len(data), (1 << 64) - 1))


def fifo(scratch):
    name = scratch + ".fifo"
    gone(name)
    os.mkfifo(name, 0o600)
    return Channel(lambda data: put(name, data), lambda _size: take(name), close=lambda: gone(name))


# ---- sockets ---------------------------------------------------------------------------------------------------------


def socket_pair(kind):
    def make(_scratch):
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        return Channel(ours.send, theirs.recv)

    return make


stream_pair = socket_pair(socket.SOCK_STREAM)
datagram_pair = socket_pair(socket.SOCK_DGRAM)
packet_pair = socket_pair(socket.SOCK_SEQPACKET)


def stream_pair_as_files(_scratch):
    ours, theirs = (one.detach() for one in socket.socketpair())
    return Channel(lambda data: os.write(ours, data), lambda size: os.read(theirs, size))


def stream_pair_by_sendfile(_scratch):
    ours, theirs = socket.socketpair()
    return Channel(lambda data: sendfile(ours.fileno(), data), theirs.recv)


def named_socket(kind, abstract=False):
    def make(scratch):
        name = "\0" + scratch if abstract else scratch + ".socket"
        if not abstract:
            gone(name)
        server = socket.socket(socket.AF_UNIX, kind)
        server.bind(name)
        if kind != socket.SOCK_DGRAM:
            server.listen(1)

        def write(data):
            with socket.socket(socket.AF_UNIX, kind) as one:
                one.connect(name)
                one.send(data)

        def read(size):
            return server.recv(size) if kind == socket.SOCK_DGRAM else server.accept()[0].recv(size)

        return Channel(write, read, close=lambda: None if abstract else gone(name))

    return make


named_stream = named_socket(socket.SOCK_STREAM)
named_datagram = named_socket(socket.SOCK_DGRAM)
abstract_stream = named_socket(socket.SOCK_STREAM, abstract=True)
abstract_datagram = named_socket(socket.SOCK_DGRAM, abstract=True)


def passed_memory(_scratch):
    """A memfd with the data, passed over a socket."""
    ours, theirs = socket.socketpair()

    def write(data):
        memory = os.memfd_create("x")
        os.write(memory, data)
        socket.send_fds(ours, [b"x"], [memory])

    return Channel(write, lambda size: received(theirs, size))


def received(one, size):
    """What the descriptor that comes over the socket gives."""
    return os.pread(socket.recv_fds(one, 1, 1)[1][0], size, 0)


# ---- files and memory ------------------------------------------------------------------------------------------------


def file(scratch):
    name = scratch + ".file"
    gone(name)
    return Channel(
        lambda data: put(name, data, os.O_WRONLY | os.O_CREAT), lambda _size: take(name), False, lambda: gone(name)
    )


def attribute(scratch):
    name = scratch + ".attribute"
    gone(name)
    put(name, b"", os.O_WRONLY | os.O_CREAT)
    return Channel(
        lambda data: os.setxattr(name, "user.flow", data),
        lambda _size: os.getxattr(name, "user.flow"),
        False,
        lambda: gone(name),
    )


def memory():
    """A memfd of a page."""
    descriptor = os.memfd_create("shared")
    os.ftruncate(descriptor, 4096)
    return descriptor


def memory_file(_scratch):
    shared = memory()
    return Channel(lambda data: os.pwrite(shared, data, 0), lambda size: os.pread(shared, size, 0), False)


def memory_file_mapped(_scratch):
    """The reader maps it after the write."""
    shared = memory()
    return Channel(lambda data: os.pwrite(shared, data, 0), lambda size: mmap.mmap(shared, 4096)[:size], False)


def _write_mapped(page, data):
    page[: len(data)] = data


def memory_file_written_mapped(_scratch):
    """The writer maps it once it has read."""
    shared = memory()
    return Channel(
        lambda data: _write_mapped(mmap.mmap(shared, 4096), data), lambda size: os.pread(shared, size, 0), False
    )


def shared_memory(scratch):
    """A file in /dev/shm, mapped by both."""
    name = "/dev/shm/" + os.path.basename(scratch)
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(descriptor, 4096)
    return Channel(
        lambda data: _write_mapped(mmap.mmap(descriptor, 4096), data),
        lambda size: mmap.mmap(os.open(name, os.O_RDWR), 4096)[:size],
        False,
        lambda: gone(name),
    )


def shared_before(_scratch):
    """Memory that both share already."""
    page = mmap.mmap(-1, 4096)
    return Channel(lambda data: _write_mapped(page, data), lambda size: page[:size], False)


def system_v_memory(_scratch):
    identity = system("shmget", 0, 4096, 0o1600)

    def attached():
        libc.shmat.restype = ctypes.c_void_p
        address = libc.shmat(identity, None, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "shmat")
        return address

    return Channel(
        lambda data: ctypes.memmove(attached(), data, len(data)),
        lambda size: ctypes.string_at(attached(), size),
        False,
        lambda: libc.shmctl(identity, 0, None),
    )


class Room:
    """A page of one's own, for others to reach into."""

    def __init__(self) -> None:
        self.page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.page))

    def write(self, data: bytes) -> None:
        _write_mapped(self.page, data)


def memory_read_by_another(_scratch):
    """process_vm_readv of the one who has read, by one who has not."""
    room, writer = Room(), os.getpid()
    return Channel(room.write, lambda size: remote_memory(writer, room.address, size), False)


def memory_read_through_proc(_scratch):
    room, writer = Room(), os.getpid()
    return Channel(
        room.write, lambda size: os.pread(os.open(f"/proc/{writer}/mem", os.O_RDONLY), size, room.address), False
    )


# ---- queues, terminals, keys -----------------------------------------------------------------------------------------


def system_v_queue(_scratch):
    identity = system("msgget", 0, 0o1600)

    def write(data):
        system("msgsnd", identity, ctypes.create_string_buffer(struct.pack("=q", 1) + data), len(data), 0)

    def read(size):
        buffer = ctypes.create_string_buffer(8 + 4096)
        length = system("msgrcv", identity, buffer, 4096, 0, 0)
        return buffer.raw[8 : 8 + min(length, size)]

    return Channel(write, read, close=lambda: ctypes.CDLL(None).msgctl(identity, 0, None))


def posix_queue(opened_before):
    """The writer opens it before, or once it has read."""

    def make(scratch):
        name = os.path.basename(scratch)

        def opened():
            attribute = ctypes.create_string_buffer(struct.pack("=8q", 0, 4, 4096, 0, 0, 0, 0, 0), 64)
            return system("mq_open", name, os.O_RDWR | os.O_CREAT, 0o600, attribute)

        def read(size):
            buffer = ctypes.create_string_buffer(4096)
            length = system("mq_timedreceive", opened(), buffer, 4096, None, None)
            return buffer.raw[: min(length, size)]

        queue = opened() if opened_before else None

        def write(data):
            system("mq_timedsend", opened() if queue is None else queue, data, len(data), 0, None)

        return Channel(write, read, opened_before, lambda: system("mq_unlink", name))

    return make


posix_queue_opened_after = posix_queue(False)
posix_queue_opened_before = posix_queue(True)


def terminal(_scratch):
    try:
        master, slave = os.openpty()
    except OSError as error:
        raise Absent("no pseudo terminals") from error
    return Channel(lambda data: os.write(slave, data), lambda size: os.read(master, size))


def key(_scratch):
    """A key that the writer makes; its number goes by memory that both share."""
    system("keyctl", 1, None)  # a session keyring that both have
    number = mmap.mmap(-1, 4096)

    def write(data):
        try:
            made = system("add_key", b"user", b"flow", data, len(data), -3)
        except OSError as error:
            if error.errno == 38:
                raise Absent("no keys in this kernel") from error
            raise
        number[:4] = struct.pack("=i", made)

    return Channel(write, lambda size: _key_read(struct.unpack("=i", number[:4])[0], size), False)


def changed_key(_scratch):
    """A key that the writer gives another content."""
    system("keyctl", 1, None)
    made = system("add_key", b"user", b"flow", b"empty", 5, -3)
    return Channel(
        lambda data: system("keyctl", 2, made, data, len(data), 0), lambda size: _key_read(made, size), False
    )


def _key_read(number, size):
    buffer = ctypes.create_string_buffer(4096)
    length = system("keyctl", 11, number, buffer, 4096, 0)
    return buffer.raw[: min(length, size)]
