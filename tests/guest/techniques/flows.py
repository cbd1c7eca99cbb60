# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever has read the customers' data sends it: a way to read, a way to carry it to whoever sends, a way to send, each
by itself and in random combinations. One rule on `has_read` has to stop them all."""

import ctypes
import fcntl
import mmap
import os
import random
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

from harness.receiver import MPTCP, wait_for
from harness.testbed import address_of

from techniques import channels
from techniques.network import (
    DGRAM,
    FAST_OPEN,
    FLOW_LABEL,
    INET,
    INET6,
    STREAM,
    begun,
    broker,
    connected,
    connection,
    flow_label_leased,
    join_data,
    listening,
    new,
    splice_from_pipe,
)
from techniques.registry import Absent, appears, arrives, technique
from techniques.steps import gone, put, spawn, take
from techniques.syscalls import Ring, Vector, call, libc, message, remote_memory, system

MIXES, SEED = 200, 20260601

# ---- to read ---------------------------------------------------------------------------------------------------------

READERS, CARRIERS, SENDERS = {}, {}, {}
NO_SENDING = {"deny": ["connect", "send"], "subjects": {"users": ["bob"]}, "destinations": {"not": ["vault"]}}


def reader(function):
    READERS[function.__name__] = function
    return function


@reader
def by_read(t):
    return take(t.customers)


@reader
def by_pread(t):
    return os.pread(os.open(t.customers, os.O_RDWR), 4096, 0)


@reader
def by_readv(t):
    buffer = bytearray(4096)
    size = os.readv(os.open(t.customers, os.O_RDONLY), [buffer])
    return bytes(buffer[:size])


@reader
def by_mmap(t):
    return mmap.mmap(os.open(t.customers, os.O_RDONLY), len(t.data), mmap.MAP_SHARED, mmap.PROT_READ)[:]


@reader
def by_private_mmap(t):
    return mmap.mmap(os.open(t.customers, os.O_RDWR), len(t.data), mmap.MAP_PRIVATE, 3)[:]


@reader
def by_sendfile(t):
    ends = os.pipe()
    os.sendfile(ends[1], os.open(t.customers, os.O_RDONLY), 0, 4096)
    return os.read(ends[0], 4096)


@reader
def by_splice(t):
    ends = os.pipe()
    os.splice(os.open(t.customers, os.O_RDONLY), ends[1], 4096)
    return os.read(ends[0], 4096)


@reader
def by_copy_file_range(t):
    target = os.open(t.own + ".copy", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.copy_file_range(os.open(t.customers, os.O_RDONLY), target, 4096)
    return os.pread(target, 4096, 0)


@reader
def by_uring(t):
    ring = Ring()
    return ring.read(ring.open(t.customers))


@reader
def by_uring_polling(t):
    ring = Ring(Ring.SQPOLL)
    return ring.read(ring.open(t.customers))


@reader
def by_symlink(t):
    gone(t.own + ".link")
    os.symlink(t.customers, t.own + ".link")
    return take(t.own + ".link")


@reader
def by_path_descriptor(t):
    return take(f"/proc/self/fd/{os.open(t.customers, os.O_PATH)}")


@reader
def by_a_thread(t):
    found = []
    one = threading.Thread(target=lambda: found.append(take(t.customers)))
    one.start()
    one.join()
    return found[0]


@reader
def by_a_program(t):
    """A program reads and prints into a pipe."""
    ends = os.pipe()
    spawn(t, ["open", t.customers], {1: ends[1]})
    return os.read(ends[0], 65536)


@reader
def by_a_program_s_input(t):
    ends = os.pipe()
    spawn(t, ["cat", 0], {0: os.open(t.customers, os.O_RDONLY), 1: ends[1]})
    return os.read(ends[0], 65536)


@reader
def by_link(t):
    gone(t.own + ".other")
    os.link(t.customers, t.own + ".other")
    return take(t.own + ".other")


# ---- to carry: carry(t, get, prepare, give) ----------------------------------------------------------------------------


def carrier(function=None, *, open="", closed_by=None):
    def register(function):
        CARRIERS[function.__name__] = (function, open, closed_by)
        return function

    return register(function) if function else register


class Other:
    """A process of the same user's that got ready to send before anything was read."""

    def __init__(self, prepare, receive, give):
        reader_end, writer_end = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(reader_end)
            status = 1
            try:
                state = prepare()
                os.close(writer_end)
                give(state, receive())
                status = 0
            except OSError as error:
                status = error.errno
            finally:
                os._exit(status)
        os.close(writer_end)
        os.read(reader_end, 1)
        os.close(reader_end)

    def finish(self):
        code = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        if code:
            raise OSError(max(code, 1), os.strerror(max(code, 1)) + " (in the sender)")


def over(name, make, *, open="", closed_by=None):
    """The carrier ``name``: another process of the same user's reads from a channel, and sends."""

    def carry(t, get, prepare, give):
        channel, written = make(t.own), channels.Signal()

        def receive():
            if not channel.waits:
                written.wait()
            return channel.read(len(t.data))

        other = Other(prepare, receive, give)
        try:
            _kept = channel.write(get())  # until it has been read
            written.give()
            other.finish()
        finally:
            channel.close()

    carry.__name__ = name
    carrier(open=open, closed_by=closed_by)(carry)


@carrier
def itself(t, get, prepare, give):
    state = prepare()
    give(state, get())


@carrier
def a_child(t, get, prepare, give):
    state = prepare()
    data = get()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            give(state, data)
            status = 0
        except OSError as error:
            status = error.errno
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(max(code, 1), "in the child")


@carrier
def a_thread(t, get, prepare, give):
    state = prepare()
    wrong = []

    def run(data):
        try:
            give(state, data)
        except OSError as error:
            wrong.append(error)

    one = threading.Thread(target=run, args=(get(),))
    one.start()
    one.join()
    if wrong:
        raise wrong[0]


@carrier
def another_thread_s_reading(t, get, prepare, give):
    state = prepare()
    found = []
    one = threading.Thread(target=lambda: found.append(get()))
    one.start()
    one.join()
    give(state, found[0])


over("a_pipe", channels.pipe)


HELPER_OPEN = (
    "tee(2) and splice(2) from a pipe to a pipe reach no hook, so a helper that has read nothing moves data on "
    "unseen; whoever may read the data is kept from sending by name as well"
)


def _helped(move):
    """A third process moves the data from one pipe into another, and never reads it."""

    def carry(t, get, prepare, give):
        first, second = os.pipe(), os.pipe()
        other = Other(prepare, lambda: os.read(second[0], 65536), give)

        def wait_and_move(_state, _data):
            ends = time.monotonic() + 15
            while not wait_for(first[0], 0.01) and time.monotonic() < ends:
                pass
            move(first[0], second[1])

        helper = Other(lambda: os.close(first[1]), lambda: b"", wait_and_move)
        os.close(second[1])
        os.write(first[1], get())
        helper.finish()
        other.finish()

    return carry


def a_helper_s_tee(*arguments):
    _helped(lambda source, target: system("tee", source, target, 65536, 0))(*arguments)


def a_helper_s_splice(*arguments):
    _helped(lambda source, target: os.splice(source, target, 65536))(*arguments)


carrier(open=HELPER_OPEN, closed_by=NO_SENDING)(a_helper_s_tee)
carrier(open=HELPER_OPEN, closed_by=NO_SENDING)(a_helper_s_splice)


over("a_pipe_by_splice", channels.pipe_by_splice)


over("a_pipe_by_uring", channels.pipe_by_uring)


@carrier
def two_pipes(t, get, prepare, give):
    first, second = os.pipe(), os.pipe()
    other = Other(prepare, lambda: os.read(second[0], 65536), give)
    middle = Other(lambda: None, lambda: os.read(first[0], 65536), lambda _s, data: os.write(second[1], data))
    os.write(first[1], get())
    middle.finish()
    other.finish()


over("a_fifo", channels.fifo)


over("a_stream_pair", channels.stream_pair)
over("a_datagram_pair", channels.datagram_pair)
over("a_packet_pair", channels.packet_pair)


over("a_stream_pair_by_sendfile", channels.stream_pair_by_sendfile)


over("a_unix_stream", channels.named_stream)
over("a_unix_datagram", channels.named_datagram)
over("an_abstract_stream", channels.abstract_stream)


@carrier
def the_file_s_descriptor(t, get, prepare, give):
    """Nothing is read here: the descriptor itself is passed, and read by the other."""
    one, two = socket.socketpair()

    def receive():
        descriptors = socket.recv_fds(two, 1, 1)[1]
        return os.pread(descriptors[0], 65536, 0)

    other = Other(prepare, receive, give)
    socket.send_fds(one, [b"x"], [os.open(t.customers, os.O_RDONLY)])
    other.finish()


over("a_memfd_passed", channels.passed_memory)


over("a_memfd_inherited", channels.memory_file)


over("shared_memory", lambda own: channels.file(f"/dev/shm/{os.path.basename(own)}"))
over("shared_memory_mapped", channels.shared_memory)


over("system_v_shared_memory", channels.system_v_memory)


@carrier
def another_s_memory(t, get, prepare, give):
    """process_vm_writev into a process of the same user's."""
    path = t.own + ".done"
    gone(path)
    room = channels.Room()

    def receive():
        appears(path)
        return room.page[: len(t.data)]

    other = Other(prepare, receive, give)
    data = get()
    remote_memory(other.child, room.address, len(data), data)
    os.mkdir(path)
    try:
        other.finish()
    finally:
        os.rmdir(path)


over("memory_read_by_another", channels.memory_read_by_another)


NO_TRACING = {"deny": ["ptrace"], "subjects": {"users": ["bob"]}}


@carrier(
    open="the kernel asks when a debugger takes hold of a process, not at each word that it takes out later; denying "
    "`ptrace` stops it",
    closed_by=NO_TRACING,
)
def a_debugger_of_before(t, get, prepare, give):
    room = channels.Room()
    address = room.address
    parent, path = os.getpid(), t.own + ".done"
    gone(path, path + ".attached")

    def attach():
        state = prepare()
        call("ptrace", 0x4206, parent, 0, 0)  # PTRACE_SEIZE
        os.mkdir(path + ".attached")
        return state

    def receive():
        appears(path)
        call("ptrace", 0x4207, parent, 0, 0)  # PTRACE_INTERRUPT
        os.waitpid(parent, 0x40000000)
        found = b""
        libc.ptrace.restype = ctypes.c_long
        libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        while len(found) < len(t.data):
            found += libc.ptrace(2, parent, address + len(found), None).to_bytes(8, "little", signed=True)
        return found[: len(t.data)]

    call("prctl", 0x59616D61, ctypes.c_long(-1), 0, 0, 0)  # PR_SET_PTRACER
    other = Other(attach, receive, give)
    appears(path + ".attached")
    data = get()
    room.write(data)
    os.mkdir(path)
    try:
        other.finish()
    finally:
        os.rmdir(path)
        os.rmdir(path + ".attached")


@carrier(
    open="the kernel asks when /proc/PID/mem is opened, not at each read; denying `ptrace` stops it",
    closed_by=NO_TRACING,
)
def a_memory_file_of_before(t, get, prepare, give):
    room = channels.Room()
    address = room.address
    parent, path = os.getpid(), t.own + ".done"
    gone(path)
    there = []

    def take_hold():
        there.append(os.open(f"/proc/{parent}/mem", os.O_RDONLY))
        return prepare()

    def receive():
        appears(path)
        return os.pread(there[0], len(t.data), address)

    other = Other(take_hold, receive, give)
    data = get()
    room.write(data)
    os.mkdir(path)
    try:
        other.finish()
    finally:
        os.rmdir(path)


@carrier(
    open="vmsplice(2) reaches no hook, and who waited for the data has read nothing when he asked for it; whoever may read "
    "the data is kept from sending by name as well",
    closed_by=NO_SENDING,
)
def a_waiting_reader_s_vmsplice(t, get, prepare, give):
    first, second = os.pipe(), os.pipe()
    other = Other(prepare, lambda: os.read(second[0], 65536), give)

    def splice(_state, data):
        buffer = t.kept["buffer"] = ctypes.create_string_buffer(data, len(data))  # the pipe has the page itself
        system("vmsplice", second[1], ctypes.byref(Vector(ctypes.addressof(buffer), len(data))), 1, 0)

    middle = Other(lambda: None, lambda: os.read(first[0], 65536), splice)
    os.close(second[1])  # what a reader may write to carries his labels
    time.sleep(0.2)  # it waits by now
    os.write(first[1], get())
    middle.finish()
    other.finish()


@carrier(
    open="the command line that a process shows is no data that is followed; whoever may read the data is kept from sending "
    "by name as well",
    closed_by=NO_SENDING,
)
def a_command_line(t, get, prepare, give):
    """A program's arguments, as everybody sees them."""
    path = t.own + ".done"
    gone(path)

    def receive():
        appears(path)
        return take(f"/proc/{os.listdir(path)[0]}/cmdline")

    other = Other(prepare, receive, give)
    data = get()
    child = os.fork()
    if child == 0:
        os.execv("/bin/sh", ["sh", "-c", "sleep 20; exit", data.decode()])
    try:
        while data not in take(f"/proc/{child}/cmdline").replace(b"\0", b"\n"):
            time.sleep(0.01)
        os.makedirs(f"{path}.new/{child}")
        os.rename(path + ".new", path)
        other.finish()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        gone(path)


over("a_terminal", channels.terminal)


over("a_message_queue", channels.system_v_queue)


over("a_posix_message_queue", channels.posix_queue_opened_after)


over(
    "a_posix_queue_opened_before",
    channels.posix_queue_opened_before,
    open="a POSIX message queue is asked when it is opened, not at each message; whoever may read the data is kept from sending by name as well",
    closed_by=NO_SENDING,
)


def _no_writing(names):
    """A rule that whoever has read writes in named trees only."""
    return {"deny": ["write"], "subjects": ["readers"], "resources": {"not": []}}


over("a_file", channels.file)


@carrier
def a_file_that_was_forgotten(t, get, prepare, give):
    """The kernel lets go of what it knows of a file when memory is short."""
    path = t.own + ".file"
    gone(path)

    def receive():
        appears(path + ".done")
        return take(path)

    other = Other(prepare, receive, give)
    put(path, get(), os.O_WRONLY | os.O_CREAT)
    os.sync()
    os.mkdir(path + ".forget")
    appears(path + ".done")
    other.finish()


def forgetful(t):
    """Root drops the caches, as a shortage of memory would."""
    path = t.own + ".file"
    gone(path + ".forget", path + ".done")

    def forget():
        appears(path + ".forget")
        put("/proc/sys/vm/drop_caches", b"3")
        os.mkdir(path + ".done")

    t.helper(forget)


@carrier(
    open="the name of a file is no data that is followed; the same rule stops making one", closed_by=_no_writing(())
)
def a_file_s_name(t, get, prepare, give):
    folder = t.own + ".names"
    gone(folder)
    os.mkdir(folder)

    def receive():
        ends = time.monotonic() + 15
        while not os.listdir(folder) and time.monotonic() < ends:
            time.sleep(0.005)
        return os.listdir(folder)[0].encode()

    other = Other(prepare, receive, give)
    put(f"{folder}/{get().decode().strip()}", b"", os.O_WRONLY | os.O_CREAT)
    other.finish()


over("an_attribute", channels.attribute)


over("a_pipe_by_tee", channels.pipe_by_tee)


over("a_pipe_by_vmsplice", channels.pipe_by_vmsplice)


over(
    "memory_shared_before",
    channels.shared_before,
    open="memory that two tasks share already needs no call; whoever may read the data is kept from sending by name as well",
    closed_by=NO_SENDING,
)


over("a_key", channels.key)


@carrier(
    open="an eventfd carries a number, not data that is followed; whoever may read the data is kept from sending by "
    "name as well",
    closed_by=NO_SENDING,
)
def an_eventfd(t, get, prepare, give):
    ends, back = os.eventfd(0), os.eventfd(0)

    def receive():
        found = b""
        for _ in range((len(t.data) + 5) // 6):
            found += (os.eventfd_read(ends) - 1).to_bytes(6, "little")
            os.eventfd_write(back, 1)
        return found.rstrip(b"\0")

    other = Other(prepare, receive, give)
    data = get()
    for start in range(0, len(data), 6):
        os.eventfd_write(ends, int.from_bytes(data[start : start + 6], "little") + 1)
        os.eventfd_read(back)
    other.finish()


@carrier(open="locks carry bits; whoever may read the data is kept from sending by name as well", closed_by=NO_SENDING)
def file_locks(t, get, prepare, give):
    """Each bit is a byte of an open file that is locked or not."""
    path = t.own + ".locks"
    gone(path, path + ".done")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    length = len(t.data)

    def receive():
        appears(path + ".done")
        found = bytearray(length)
        for bit in range(length * 8):
            query = struct.pack("=hh4xqqi4x", fcntl.F_WRLCK, 0, bit, 1, 0)
            if struct.unpack_from("=h", fcntl.fcntl(fd, fcntl.F_GETLK, query))[0] != fcntl.F_UNLCK:
                found[bit // 8] |= 1 << bit % 8
        return bytes(found)

    other = Other(prepare, receive, give)
    data = get()
    for bit in range(length * 8):
        if data[bit // 8] >> bit % 8 & 1:
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, bit)
    os.mkdir(path + ".done")
    other.finish()


# ---- to send: prepare before anything is read, then give ---------------------------------------------------------------


def sender(name, prepare, give):
    SENDERS[name] = (prepare, give)


def _connecting(family, address_of_place, protocol=0):
    def give(t, _state, data):
        with new(family, STREAM, protocol) as one:
            one.settimeout(15)
            one.connect((address_of_place(t), t.port + (protocol if protocol == MPTCP else 0)))
            one.sendall(data)

    return give


def nothing(_t):
    return None


def _send_to(t, _state, data):
    with new(INET, DGRAM) as one:
        one.sendto(data, (t.outside4, t.port))


def _send_to6(t, _state, data):
    with new(INET6, DGRAM) as one:
        one.sendto(data, ("::ffff:" + t.outside4, t.port))


def _fast(t, _state, data):
    with new(INET, STREAM) as one:
        one.sendto(data, FAST_OPEN, (t.outside4, t.port))
        one.shutdown(socket.SHUT_WR)
        one.recv(1)


def _udp(t):
    return connection(t.outside4, t.port, DGRAM)


def _sendfile(t, one, data):
    channels.sendfile(one.fileno(), data)


def _splice(t, one, data):
    splice_from_pipe(one, data)


def _uring(t, one, data):
    Ring().do(Ring.SEND, one.fileno(), data, len(data))


def _uring_message(t, _state, data):
    with new(INET, DGRAM) as one:
        header, _keep = message(data, address_of(INET, t.outside4, t.port))
        Ring().do(Ring.SENDMSG, one.fileno(), ctypes.addressof(header), 1)


def _program(t, _state, data):
    ends = os.pipe()
    os.write(ends[1], data)
    spawn(t, ["send", t.outside4, t.port, 0], {0: ends[0]})


def _via_socket(t, one, data):
    one.sendall(data)


def _proxy(t, _state, data):
    with new(INET, STREAM) as one:
        one.settimeout(15)
        one.connect(("127.0.0.1", t.port))
        one.sendall(data)


def _dns(t, _state, data):
    with new(INET, DGRAM) as one:
        one.sendto(bytes(12) + bytes([len(data)]) + data + b"\0", (t.outside4, 53))


sender("tcp", nothing, _connecting(INET, lambda t: t.outside4))
sender("tcp_ipv6", nothing, _connecting(INET6, lambda t: t.outside6))
sender("tcp_mapped", nothing, _connecting(INET6, lambda t: "::ffff:" + t.outside4))
sender("mptcp", nothing, _connecting(INET, lambda t: t.outside4, MPTCP))
sender("fast_open", nothing, _fast)
sender("udp_sendto", nothing, _send_to)
sender("udp_mapped", nothing, _send_to6)
sender("udp_connected_before", _udp, lambda t, one, data: one.send(data))
sender("tcp_connected_before", connected, _via_socket)
sender("tcp_connected_before_write", connected, lambda t, one, data: os.write(one.fileno(), data))
sender("tcp_connected_before_sendfile", connected, _sendfile)
sender("tcp_connected_before_splice", connected, _splice)
sender("tcp_connected_before_uring", connected, _uring)
sender("uring_sendmsg", nothing, _uring_message)
sender("a_program", nothing, _program)
sender("local_proxy", nothing, _proxy)
sender("dns", nothing, _dns)


# ---- each by itself, then mixed ----------------------------------------------------------------------------------------


def course(t, reads, carries, sends):
    prepare, give = sends
    carries(t, lambda: reads(t), lambda: prepare(t), lambda state, data: give(t, state, data))


def flow(name, what, reads, carries, sends, *, group="flows", open="", closed_by=None, ready=None):
    def function(t):
        course(t, reads, carries, sends)

    function.__name__ = name
    technique(group, what, "has_read", who="bob", evidence=arrives, open=open, closed_by=closed_by, ready=ready)(
        function
    )


READY = {"a_file_that_was_forgotten": forgetful}  # of carriers


def spoken(name):
    return name.replace("_s_", "'s ").replace("_", " ")


for _name, _read in READERS.items():
    flow("read_" + _name, f"read {spoken(_name)}, then send", _read, itself, SENDERS["tcp"])
for _name, (_carry, _open, _closing) in CARRIERS.items():
    if _name != "itself":
        flow(
            "carry_" + _name,
            f"read, hand on by {spoken(_name)}, then send",
            by_read,
            _carry,
            SENDERS["tcp"],
            open=_open,
            closed_by=_closing,
            ready=READY.get(_name),
        )
for _name, _send in SENDERS.items():
    if _name != "tcp":
        flow("send_" + _name, f"read, then send by {spoken(_name)}", by_read, itself, _send)

_dice = random.Random(SEED)
_seen = set()
while len(_seen) < MIXES:
    _mix = (
        _dice.choice(list(READERS)),
        _dice.choice([n for n, c in CARRIERS.items() if not c[1]]),
        _dice.choice(list(SENDERS)),
    )
    if _mix in _seen or (_mix[1] == "the_file_s_descriptor" and _mix[0] != "by_read"):
        continue
    _seen.add(_mix)
    flow(
        "mix__{}__{}__{}".format(*_mix),
        "random combinations of reading, handing on and sending",
        READERS[_mix[0]],
        CARRIERS[_mix[1]][0],
        SENDERS[_mix[2]],
        group="mixes",
        ready=READY.get(_mix[1]),
    )


def flows(what, **more):
    more.setdefault("who", "bob")
    more.setdefault("evidence", arrives)
    return technique("flows", what, "has_read", **more)


@flows("a file opened before labels were in use", held=lambda t: os.open(t.customers, os.O_RDONLY))
def opened_before(t, fd):
    data = os.pread(fd, 4096, 0)
    _connecting(INET, lambda t: t.outside4)(t, None, data)


@flows(
    "a file mapped before labels were in use",
    held=lambda t: mmap.mmap(os.open(t.customers, os.O_RDONLY), 0, mmap.MAP_SHARED, mmap.PROT_READ),
    open="what is mapped needs no call to be read; whoever may read the data is kept from sending by name as well",
    closed_by=NO_SENDING,
)
def mapped_before(t, mapped):
    _connecting(INET, lambda t: t.outside4)(t, None, mapped[: len(t.data)])


@flows(
    "execute what is labelled",
    ready=lambda t: (
        gone(t.customers_folder + "/program"),
        shutil.copy(t.bin + "/hand", t.customers_folder + "/program"),
    ),
)
def executed(t):
    ends = os.pipe()
    os.write(ends[1], t.data)
    child = os.fork()
    if child == 0:
        os.dup2(ends[0], 0)
        os.execv(t.customers_folder + "/program", ["program", "send", t.outside4, str(t.port), "0"])
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(max(code, 1), "the program")


def _listening_reader(t):
    listener = listening(t, 5101)
    put(f"{t.arrived_folder}/get-_tcp_{t.outside4}_5101", b"", os.O_WRONLY | os.O_CREAT)
    return listener.accept()[0]


@flows("read, then answer on an accepted connection")
def reply_after_reading(t):
    peer = _listening_reader(t)
    peer.sendall(take(t.customers))


@flows("begin a datagram, read, then append to it")
def append_after_reading(t):
    one = begun(t)
    one.sendto(take(t.customers), (t.vault4, t.port))


@flows("lease a flow label with a routing header, read, then send by it")
def flow_label_after_reading(t):
    one = flow_label_leased(t)
    one.sendto(take(t.customers), (t.vault6, t.port, FLOW_LABEL, 0))


@flows("read, then join a multicast group")
def join_after_reading(t):
    join_data(t, take(t.customers))


# ---- somebody else, who is bound by no name ----------------------------------------------------------------------------


def others(what, **more):
    more.setdefault("who", "bob")
    more.setdefault("evidence", arrives)
    return technique(more.pop("group", "others"), what, more.pop("action", "has_read"), **more)


@others("a daemon that sends what it is sent (unix stream)", ready=broker)
def daemon_stream(t):
    data = take(t.customers)
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(t.kept["address"])
        one.send(data)


@others("a daemon that sends what it is sent (unix datagram)", ready=lambda t: broker(t, DGRAM))
def daemon_datagram(t):
    data = take(t.customers)
    with socket.socket(socket.AF_UNIX, DGRAM) as one:
        one.sendto(data, t.kept["address"])


@others("a daemon that sends what it is sent (abstract name)", ready=lambda t: broker(t, abstract=True))
def daemon_abstract(t):
    data = take(t.customers)
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(t.kept["address"])
        one.send(data)


def _descriptor_daemon(t):
    """It reads what it is handed, and sends that."""
    path = f"{t.run}/{t.technique.name}.sock"
    gone(path)
    one = socket.socket(socket.AF_UNIX)
    one.bind(path)
    os.chmod(path, 0o777)
    one.listen(4)
    t.kept["address"] = path

    def serve():
        peer = one.accept()[0]
        descriptors = socket.recv_fds(peer, 1, 1)[1]
        data = os.pread(descriptors[0], 65536, 0)
        with socket.socket(INET, DGRAM) as out:
            out.sendto(data, (t.outside4, t.port))

    t.helper(serve, "nobody")
    one.close()


@others("a daemon that is handed the descriptor", ready=_descriptor_daemon)
def daemon_descriptor(t):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(t.kept["address"])
        socket.send_fds(one, [b"x"], [os.open(t.customers, os.O_RDONLY)])


@others("a daemon that is handed a memfd", ready=_descriptor_daemon)
def daemon_memfd(t):
    data = take(t.customers)
    fd = os.memfd_create("x")
    os.write(fd, data)
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(t.kept["address"])
        socket.send_fds(one, [b"x"], [fd])


@others(
    "a daemon that is handed the descriptor by pidfd_getfd",
    who="bob",
    ready=lambda t: t.kept.update(
        pid=t.helper(lambda: (os.dup2(os.open(t.customers, os.O_RDONLY), 199), signal.pause()), "bob")
    ),
)
def taken_from_a_sibling(t):
    appears(f"/proc/{t.kept['pid']}/fd/199")
    fd = system("pidfd_getfd", system("pidfd_open", t.kept["pid"], 0), 199, 0)
    _connecting(INET, lambda t: t.outside4)(t, None, os.pread(fd, 4096, 0))


@others("a setuid program")
def setuid_sends(t):
    ends = os.pipe()
    os.write(ends[1], take(t.customers))
    spawn(t, ["send", t.outside4, t.port, 0], {0: ends[0]}, program="setuid")


@others("a setuid program")
def setuid_reads_and_pipes(t):
    ends = os.pipe()
    spawn(t, ["open", t.customers], {1: ends[1]}, program="setuid")
    spawn(t, ["send", t.outside4, t.port, 0], {0: ends[0]})


def _spool(t):
    """What cron and at do: root runs a job that a user left, as that user."""
    folder = t.base + "/spool"
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o777)
    job = f"{folder}/{t.mark}"
    t.kept["job"] = job

    def run():
        while not os.path.exists(job + ".ready"):
            time.sleep(0.005)
        child = os.fork()
        if child == 0:
            t.place.become(t.technique.who)
            for line in take(job).decode().splitlines():
                what, path = line.split(" ", 1)
                data = take(path) if what == "send" else b""
                _connecting(INET, lambda t: t.outside4)(t, None, data)
            os._exit(0)
        os.waitpid(child, 0)

    t.helper(run)


def _leave(t, text):
    put(t.kept["job"], text.encode(), os.O_WRONLY | os.O_CREAT)
    os.mkdir(t.kept["job"] + ".ready")
    ends = time.monotonic() + 1
    while not t.arrived() and time.monotonic() < ends:
        time.sleep(0.01)


@others("a job left for a spooler (cron, at)", ready=_spool)
def job_reads_and_sends(t):
    _leave(t, "send " + t.customers)


@others("a job left for a spooler (cron, at)", action="read", who="alice", ready=_spool)
def job_reads_what_alice_may_not(t):
    _leave(t, "send " + t.secret)


@others("a debugger: data put into another process")
def debugger(t):
    CARRIERS["another_s_memory"][0](
        t,
        lambda: take(t.customers),
        lambda: None,
        lambda _s, data: _connecting(INET, lambda t: t.outside4)(t, None, data),
    )


# ---- where there is a whole system -------------------------------------------------------------------------------------


def command(t, *words, **more):
    if not shutil.which(words[0]):
        raise Absent(f"no {words[0]} on this machine")
    return subprocess.run(words, timeout=20, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, **more)


SENDING = "import socket,sys;s=socket.create_connection((sys.argv[2],int(sys.argv[3])),4);s.sendall(open(sys.argv[1],'rb').read())"


def sending(t, path):
    return [shutil.which("python3") or "python3", "-c", SENDING, path, t.outside4, str(t.port)]


def wait_arrival(t, seconds=10):
    ends = time.monotonic() + seconds
    while not t.arrived() and time.monotonic() < ends:
        time.sleep(0.05)


def needs_systemd(t):
    if not t.systemd:
        raise Absent("no systemd on this machine")


def services(what, **more):
    """What the system's own services did for a reader is labelled, and so is whoever asks them afterwards."""
    return others(what, group="services", **more)


@services("at", ready=needs_systemd)
def real_at(t):
    command(t, "at", "now", input=shlex.join(sending(t, t.customers)).encode())
    wait_arrival(t)


def next_minute(t):
    wait_arrival(t, 75)
    return t.arrived()


@services(
    "cron", ready=needs_systemd, evidence=next_minute, last=lambda t: os.system(f"crontab -u {t.names['bob']} -r")
)
def real_cron(t):
    line = "* * * * * " + shlex.join(sending(t, t.customers)).replace("%", r"\%") + "\n"
    command(t, "crontab", "-", input=line.encode())


def user_manager(t):
    needs_systemd(t)
    t.kept["manager"] = f"user@{t.users['bob']}.service"
    subprocess.run(["systemctl", "start", t.kept["manager"]], check=True)


@services("systemd-run --user", ready=user_manager, last=lambda t: os.system(f"systemctl stop {t.kept['manager']}"))
def real_systemd_run_user(t):
    environment = {**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{t.users['bob']}"}
    command(t, "systemd-run", "--user", "--wait", *sending(t, t.customers), env=environment)
    wait_arrival(t, 2)


@others(
    "systemd-run by root in a unit",
    action="read",
    who="files.service",
    ready=needs_systemd,
    open="the manager starts another unit for root who asks; a rule on the manager's sockets stops asking",
    closed_by={
        "deny": ["unix-connect"],
        "subjects": ["u-files"],
        "resources": {"paths": ["/run/systemd/private", "/run/dbus/system_bus_socket"]},
    },
)
def real_systemd_run(t):
    command(t, "systemd-run", "--wait", *sending(t, t.secret))
    wait_arrival(t, 2)


@others(
    "D-Bus activation",
    action="read",
    who="files.service",
    ready=needs_systemd,
    open="the bus has a service started outside the unit; a rule on the bus's socket stops asking",
    closed_by={
        "deny": ["unix-connect"],
        "subjects": ["u-files"],
        "resources": {"paths": ["/run/systemd/private", "/run/dbus/system_bus_socket"]},
    },
)
def real_bus(t):
    command(
        t,
        "busctl",
        "call",
        "--",
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
        "StartTransientUnit",
        "ssa(sv)a(sa(sv))",
        f"adversary-{t.mark}.service",
        "replace",
        "1",
        "ExecStart",
        "a(sasb)",
        "1",
        sending(t, t.secret)[0],
        "6",
        *sending(t, t.secret),
        "false",
        "0",
    )
    wait_arrival(t, 3)


SUDOERS = "/etc/sudoers.d/adversary"


def may_sudo(t):
    needs_systemd(t)
    put(SUDOERS, f"{t.names['bob']} ALL=(ALL) NOPASSWD: ALL\n".encode(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


@services("sudo", ready=may_sudo, last=lambda t: os.unlink(SUDOERS))
def real_sudo(t):
    command(t, "sudo", "-n", *sending(t, t.customers))
    wait_arrival(t, 2)


@services("a container runtime", who="root", ready=needs_systemd)
def real_container(t):
    command(
        t,
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--volatile=yes",
        f"--bind={t.base}",
        "--directory=/",
        "--",
        *sending(t, t.customers),
    )
    wait_arrival(t, 2)


@others("a pipeline of the shell: cat FILE | a program that sends")
def shell_pipeline(t):
    ends = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(ends[1], 1)
        os.execv(f"{t.bin}/hand", ["hand", "open", t.customers])
    os.close(ends[1])
    try:
        spawn(t, ["send", t.outside4, t.port, 0], {0: ends[0]})
    finally:
        os.waitpid(child, 0)


# ---- what has to pass --------------------------------------------------------------------------------------------------


def passes(what, **more):
    return technique("allowed", what, "none", **more)


def at_the_vault(t):
    return os.path.exists(f"{t.arrived_folder}/vault-{t.mark}")


@passes("who has read sends to the vault", who="bob", evidence=at_the_vault)
def vault(t):
    _connecting(INET, lambda t: t.vault4)(t, None, take(t.customers))


@passes("who has read sends to the vault", who="bob", evidence=at_the_vault)
def vault_ipv6(t):
    _connecting(INET6, lambda t: t.vault6)(t, None, take(t.customers))


@passes("who has read sends to the vault", who="bob", evidence=at_the_vault)
def vault_udp(t):
    data = take(t.customers)
    with new(INET, DGRAM) as one:
        one.sendto(data, (t.vault4, t.port))


@passes("who has read sends to the vault", who="bob", evidence=at_the_vault)
def vault_through_a_pipe(t):
    ends = os.pipe()
    spawn(t, ["open", t.customers], {1: ends[1]})
    spawn(t, ["send", t.vault4, t.port, 0], {0: ends[0]})


@passes("who has read nothing sends anywhere", who="bob", evidence=arrives)
def unlabelled(t):
    _connecting(INET, lambda t: t.outside4)(t, None, t.data)


@passes("who has read nothing sends anywhere", who="bob", evidence=arrives)
def unlabelled_by_fast_open(t):
    _fast(t, None, t.data)


@passes("whom no rule binds reads", who="bob")
def unbound_reads(t):
    return take(t.secret)


@passes("whom no rule binds reads", who="network.service")
def other_unit_reads(t):
    return take(t.secret)


@passes("alice sends to the vault", evidence=at_the_vault)
def alice_to_the_vault(t):
    _connecting(INET, lambda t: t.vault4)(t, None, t.data)


@passes("alice reads elsewhere", ready=lambda t: (gone(t.own), put(t.own, t.data, os.O_WRONLY | os.O_CREAT)))
def alice_elsewhere(t):
    return take(t.own)


@passes("allowed programs run", who="programs.service", evidence=lambda t: os.path.exists(f"{t.open}/{t.mark}"))
def allowed_program(t):
    spawn(t, ["touch", f"{t.open}/{t.mark}"])
