# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls that Python has no name for, on x86-64. Each raises OSError when the kernel refuses."""

import ctypes
import mmap
import os
import struct

from techniques.registry import Absent

NUMBERS = {
    "open": 2,
    "shmget": 29,
    "shmat": 30,
    "msgget": 68,
    "msgsnd": 69,
    "msgrcv": 70,
    "getdents": 78,
    "creat": 85,
    "ptrace": 101,
    "rt_sigtimedwait": 128,
    "rt_sigqueueinfo": 129,
    "utime": 132,
    "pivot_root": 155,
    "init_module": 175,
    "delete_module": 176,
    "io_setup": 206,
    "io_getevents": 208,
    "io_submit": 209,
    "mq_open": 240,
    "mq_unlink": 241,
    "mq_timedsend": 242,
    "mq_timedreceive": 243,
    "add_key": 248,
    "keyctl": 250,
    "kexec_load": 246,
    "epoll_wait": 232,
    "epoll_ctl": 233,
    "unshare": 272,
    "tee": 276,
    "vmsplice": 278,
    "timerfd_create": 283,
    "timerfd_settime": 286,
    "timerfd_gettime": 287,
    "eventfd2": 290,
    "epoll_create1": 291,
    "perf_event_open": 298,
    "fanotify_init": 300,
    "fanotify_mark": 301,
    "name_to_handle_at": 303,
    "clock_adjtime": 305,
    "open_by_handle_at": 304,
    "sendmmsg": 307,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "finit_module": 313,
    "seccomp": 317,
    "memfd_create": 319,
    "bpf": 321,
    "execveat": 322,
    "userfaultfd": 323,
    "preadv2": 327,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "memfd_secret": 447,
    "cachestat": 451,
    "fchmodat2": 452,
    "setxattrat": 463,
    "getxattrat": 464,
    "removexattrat": 466,
    "open_tree_attr": 467,
}
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
O_PATH = os.O_PATH

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _argument(value):
    if isinstance(value, str):
        return ctypes.c_char_p(os.fsencode(value))
    if isinstance(value, bytes):
        return ctypes.c_char_p(value)
    if isinstance(value, int):
        return ctypes.c_long(value)
    return value


def system(name, *arguments):
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *map(_argument, arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), name + ": " + os.strerror(ctypes.get_errno()))
    return result


def call(name, *arguments):
    """A function of the C library; OSError when it gives -1."""
    result = getattr(libc, name)(*map(_argument, arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), name + ": " + os.strerror(ctypes.get_errno()))
    return result


def map_memory(length, protection, flags, descriptor=-1, offset=0):
    address = libc.mmap(None, length, protection, flags, descriptor, offset)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap: " + os.strerror(ctypes.get_errno()))
    return address


def protect(address, protection, length=4096):
    if libc.mprotect(address, length, protection):
        raise OSError(ctypes.get_errno(), "mprotect: " + os.strerror(ctypes.get_errno()))


def mount(source, target, kind=None, flags=0, data=None):
    call("mount", source, target, kind, flags, data)


def handle_of(path):
    """The file handle of a path and the descriptor of its mount to give with it."""
    buffer = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 136)
    identity = ctypes.c_int()
    system("name_to_handle_at", AT_FDCWD, path, buffer, ctypes.byref(identity), 0)
    return buffer


def open_handle(mount_path, handle, flags=os.O_RDONLY):
    where = os.open(mount_path, os.O_RDONLY | os.O_DIRECTORY)
    return system("open_by_handle_at", where, handle, flags)


LOW = 0x40  # MAP_32BIT: 32-bit calls reach addresses below 4 GiB only
# push rbx; push rbp; mov r11, rdi; eax, ebx, ecx, edx, esi, edi, ebp from r11; int 0x80; pop rbp; pop rbx; cdqe; ret
CODE = bytes.fromhex("53 55 4989fb 418b03 418b5b04 418b4b08 418b530c 418b7310 418b7b14 418b6b18 cd80 5d 5b 4898 c3")


class Compat:
    """Makes the system calls of 32-bit programs, as a 64-bit program can, too."""

    def __init__(self):
        self.page = map_memory(65536, 7, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | LOW)
        ctypes.memmove(self.page, CODE, len(CODE))
        self.function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(self.page)
        self.free = self.page + 256

    def place(self, data):
        """The address of a copy of the bytes, below 4 GiB."""
        address, self.free = self.free, self.free + (len(data) + 1 + 15) // 16 * 16
        ctypes.memmove(address, bytes(data) + b"\0", len(data) + 1)
        return address

    def call(self, number, *arguments):
        words = [self.place(os.fsencode(one)) if isinstance(one, (bytes, str)) else one for one in arguments]
        words = [word & 0xFFFFFFFF for word in [number, *words, *[0] * (6 - len(words))]]
        result = self.function(self.place(struct.pack("=7I", *words)))
        if -4096 < result < 0:
            if result == -38:
                raise Absent("this kernel runs no 32-bit programs")
            raise OSError(-result, f"32-bit call {number}: {os.strerror(-result)}")
        return result

    def read(self, descriptor, number=3):
        buffer = self.place(bytes(4096))
        size = self.call(number, descriptor, buffer, 4096)
        return ctypes.string_at(buffer, size)

    def socket_call(self, which, *arguments):
        words = [self.place(one) if isinstance(one, bytes) else one for one in arguments]
        return self.call(102, which, self.place(struct.pack(f"={len(words)}I", *words)))


class Ring:
    """An io_uring, as small as it can be: one request at a time."""

    NOP, READV, WRITEV, CONNECT, SENDMSG, OPENAT, READ, WRITE = 0, 1, 2, 16, 9, 18, 22, 23
    SEND, RENAMEAT, LINKAT, SOCKET, COMMAND, SEND_ZC = 26, 35, 39, 45, 46, 47
    SET_OPTION = 3  # a command of sockets
    SQPOLL = 2
    ASYNC = 16  # of an entry: by a worker of the kernel's

    def __init__(self, flags=0):
        parameters = ctypes.create_string_buffer(struct.pack("=5I", 0, 0, flags, 0, 50), 120)
        self.flags = flags
        self.fd = system("io_uring_setup", 8, parameters)
        numbers = struct.unpack_from("=30I", parameters)
        self.sq = numbers[10:20]
        self.cq = numbers[20:30]
        size = max(self.sq[6] + numbers[0] * 4, self.cq[5] + numbers[1] * 16)
        self.ring = mmap.mmap(self.fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self.entries = mmap.mmap(
            self.fd, numbers[0] * 64, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0x10000000
        )
        self.mask = struct.unpack_from("=I", self.ring, self.sq[2])[0]

    def do(self, operation, fd=-1, address=0, length=0, offset=0, flags=0, entry_flags=0, more=0, last=0):
        """The result of one request; OSError when it is negative."""
        keep = address
        if isinstance(address, (bytes, bytearray)):
            keep = ctypes.create_string_buffer(bytes(address), max(len(address), 1))
        if not isinstance(keep, int):
            address = ctypes.addressof(keep)
        tail = struct.unpack_from("=I", self.ring, self.sq[1])[0]
        place = tail & self.mask
        self.entries[place * 64 : place * 64 + 64] = struct.pack(
            "=BBHiQQIIQQQQ", operation, entry_flags, 0, fd, offset, address, length, flags, 1, more, last, 0
        )
        struct.pack_into("=I", self.ring, self.sq[6] + 4 * place, place)
        struct.pack_into("=I", self.ring, self.sq[1], tail + 1)
        # with a polling thread: also wake it up
        system("io_uring_enter", self.fd, 1, 1, 1 | (2 if self.flags & self.SQPOLL else 0), 0, 0)
        head = struct.unpack_from("=I", self.ring, self.cq[0])[0]
        mask = struct.unpack_from("=I", self.ring, self.cq[2])[0]
        result = struct.unpack_from("=QiI", self.ring, self.cq[5] + 16 * (head & mask))[1]
        struct.pack_into("=I", self.ring, self.cq[0], head + 1)
        if result < 0:
            raise OSError(-result, "io_uring: " + os.strerror(-result))
        return result

    def set_option(self, fd, level, option, value, length):
        """setsockopt(2); ``value``: an address."""
        self.do(self.COMMAND, fd, level | option << 32, 0, self.SET_OPTION, more=length << 32, last=value)

    def register_files(self, *descriptors):
        table = (ctypes.c_int * len(descriptors))(*descriptors)
        system("io_uring_register", self.fd, 2, ctypes.addressof(table), len(descriptors))

    def read(self, fd, length=4096, offset=0, entry_flags=0):
        buffer = ctypes.create_string_buffer(length)
        size = self.do(self.READ, fd, ctypes.addressof(buffer), length, offset, entry_flags=entry_flags)
        return buffer.raw[:size]

    def open(self, path, flags=os.O_RDONLY):
        name = ctypes.create_string_buffer(os.fsencode(path))
        return self.do(self.OPENAT, AT_FDCWD, ctypes.addressof(name), 0, 0, flags)


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class MessageHeader(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


def message(data, address=None, control=None):
    """A msghdr and what it points to; ``control``: (level, type, data) of a control message."""
    buffer = ctypes.create_string_buffer(data, len(data))
    vector = Vector(ctypes.addressof(buffer), len(data))
    name = ctypes.create_string_buffer(address, len(address)) if address else None
    text = b""
    if control:
        level, kind, content = control
        text = struct.pack("=Qii", 16 + len(content), level, kind) + content + bytes(-len(content) % 8)
    more = ctypes.create_string_buffer(text, len(text)) if text else None
    header = MessageHeader(
        ctypes.addressof(name) if name else None,
        len(address) if address else 0,
        ctypes.addressof(vector),
        1,
        ctypes.addressof(more) if more else None,
        len(text),
        0,
    )
    return header, (buffer, vector, name, more)


def remote_memory(pid, address, length, write=None):
    buffer = ctypes.create_string_buffer(write or b"", length)
    mine = Vector(ctypes.addressof(buffer), length)
    theirs = Vector(address, length)
    name = "process_vm_writev" if write else "process_vm_readv"
    size = system(name, pid, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
    return buffer.raw[:size]


def bpf(command, *fields, size=128):
    """bpf(2) with an attribute of numbers: (format, values...)."""
    attribute = ctypes.create_string_buffer(struct.pack(*fields), size)
    return system("bpf", command, attribute, size)


ADJ_TICK = 0x4000


def clock_adjtime(clock):
    """Sets the tick of the clock to what it is."""
    now = ctypes.create_string_buffer(256)
    system("clock_adjtime", clock, now)
    tick = now.raw[88:96]  # timex.tick
    changed = ctypes.create_string_buffer(struct.pack("=I84x", ADJ_TICK) + tick, 256)
    system("clock_adjtime", clock, changed)
