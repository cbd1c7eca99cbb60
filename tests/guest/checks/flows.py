# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`has_read`, tried for real: each way from a file to the network with the secret and with a public file, to where a
reader of the secret may not send and to where he may, under a policy without labels and under one with them."""

import ctypes
import mmap
import os
import socket
import threading
import time
import traceback

from harness.process import ALICE, become, execute
from techniques import channels
from techniques.channels import Room, Signal
from techniques.syscalls import Ring, call, mount, remote_memory, system

EPERM = 1
YAMA = "/proc/sys/kernel/yama/ptrace_scope"
SECRET, PUBLIC = "/srv/secret/a", "/srv/open/file"
VAULT, ELSEWHERE, PORT = "10.9.0.1", "10.9.1.1", 4443
RULE = "who has read the secret talks to the vault only"
POLICY = {
    "subjects": {"reader": {"has_read": ["secret"]}},
    "resources": {"secret": {"paths": ["/srv/secret/**"]}, "deep": {"paths": ["/srv/deep/**"]}},
    "destinations": {"vault": {"cidrs": [VAULT + "/32"]}},
    "rules": [{"name": RULE, "deny": ["connect", "send"], "subjects": ["reader"], "destinations": {"not": ["vault"]}}],
}
WITHOUT = {
    "subjects": {"alice": {"users": ["alice"]}},
    "resources": {"deep": {"paths": ["/srv/deep/**"]}},
    "rules": [{"name": "something else", "deny": ["read"], "subjects": ["alice"], "resources": ["deep"]}],
}
WAYS = {}


def denied(function):
    """A way from a file to the network: a reader of the secret is denied."""
    WAYS[function.__name__] = (function, EPERM)
    return function


def passes(function):
    """What looks like one and is none."""
    WAYS[function.__name__] = (function, 0)
    return function


def known_open(function):
    """A way that no hook sees: it passes, and is printed as such."""
    WAYS[function.__name__] = (function, None)
    return function


def look(path):
    with open(path, "rb") as file:
        return file.read()


def sending(address):
    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(b"x", (address, PORT))

    return send


def beside(operation):
    """In a child that is there from now on; what this gives waits for its end and raises its errno."""
    child = os.fork()
    if child == 0:
        status = 254
        try:
            operation()
            status = 0
        except OSError as error:
            status = error.errno or 255
        except BaseException:
            traceback.print_exc()
        os._exit(status)

    def finish():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            raise OSError(status, "in the child")

    return finish


def settle():
    """Whoever is to wait is waiting by now."""
    time.sleep(0.1)


def in_another(operation):
    """In a child of the task; its errno is raised here. By its exit status: what it wrote would label who reads it."""
    beside(operation)()


def carry(how, path, send):
    execute("/guest/carry", how, path, send.address, str(PORT))


# ---- one task, or a family ----------------------------------------------------------------------------------------


@denied
def read_then_send(path, send):
    look(path)
    send()


@denied
def open_then_send(path, send):
    os.open(path, os.O_RDONLY)
    send()


@passes
def opened_for_writing_only(path, send):
    os.close(os.open(path, os.O_WRONLY))
    send()


@passes
def only_looked_at(path, send):
    os.stat(path)
    os.close(os.open(path, os.O_PATH))
    send()


@denied
def connected_before(path, send):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((send.address, PORT))
        look(path)
        one.send(b"x")


@denied
def child_sends(path, send):
    look(path)
    in_another(send)


@denied
def grandchild_sends(path, send):
    look(path)
    in_another(lambda: in_another(send))


@passes
def child_reads_and_parent_sends(path, send):
    in_another(lambda: look(path))
    send()


@denied
def executes_the_sender(path, send):
    look(path)
    carry("send", path, send)


@denied
def forks_before_it_executes(path, send):
    look(path)
    in_another(lambda: carry("send", path, send))


@denied
def executes_what_is_labelled(path, send):
    program = "/srv/secret/carry" if path == SECRET else "/srv/open/carry"
    execute(program, "send", path, send.address, str(PORT))


@denied
def executes_a_script_that_is_labelled(path, send):
    execute("/srv/secret/script" if path == SECRET else "/srv/open/sends", send.address, str(PORT))


# ---- tasks that share memory --------------------------------------------------------------------------------------


def carrying(name, how):
    """A way that the program ``carry`` goes."""

    def function(path, send):
        carry(how, path, send)

    function.__name__ = name
    return denied(function)


thread_sends = carrying("thread_sends", "thread-sends")
thread_reads = carrying("thread_reads", "thread-reads")
shared_memory_task_sends = carrying("shared_memory_task_sends", "clone-sends")
shared_memory_task_reads = carrying("shared_memory_task_reads", "clone-reads")
vfork_child_sends = carrying("vfork_child_sends", "vfork-sends")
vfork_child_reads = carrying("vfork_child_reads", "vfork-reads")


@denied
def io_uring_reads(path, send):
    ring = Ring()
    ring.read(ring.open(path))
    send()


@denied
def io_uring_thread_that_polls_reads(path, send):
    ring = Ring(Ring.SQPOLL)
    ring.read(ring.open(path))
    send()


@passes
def vfork_child_executes_what_is_labelled(path, send):
    carry("vfork-executes", "/srv/secret/opener" if path == SECRET else "/guest/opener", send)


# ---- pipes --------------------------------------------------------------------------------------------------------


def over(make, path, send, *, waiting):
    """Through a channel; ``waiting``: the reader is in its read already when the writer writes."""
    channel = make(f"/srv/open/flow-{os.getpid()}")
    try:
        through(lambda: channel.read(9), channel.write, path, send, waiting)
    finally:
        channel.close()


def through(read, write, path, send, waiting):
    """One task reads the file and writes to the other, which reads there and sends."""

    def other():
        if not waiting:
            go.wait()
        read()
        send()

    go = Signal()
    finish = beside(other)
    settle()
    _kept = write(look(path))  # until it has been read
    go.give()
    finish()


@denied
def pipe_to_a_thread_that_waits(path, send):
    def read():
        thread = threading.Thread(target=lambda: os.read(reader, 9))
        thread.start()
        thread.join()

    reader, writer = os.pipe()
    through(read, lambda data: os.write(writer, data), path, send, True)


@denied
def pipe_filled_by_splice(path, send):
    def write(_data):
        with open(path, "rb") as file:
            os.splice(file.fileno(), writer, 9)

    reader, writer = os.pipe()
    through(lambda: os.read(reader, 9), write, path, send, True)


@denied
def pipeline_of_programs(path, send):
    """cat FILE | a program that reads all of it and then connects."""
    reader, writer = os.pipe()

    def cat():
        os.dup2(writer, 1)
        os.execv("/bin/busybox", ["busybox", "cat", path])

    def sender():
        while os.read(reader, 4096):
            pass
        send()

    os.set_inheritable(writer, True)
    first = os.fork()
    if first == 0:
        cat()
    os.close(writer)
    finish = beside(sender)
    os.waitpid(first, 0)
    finish()


@denied
def through_a_filter(path, send):
    """FILE | busybox tr | sender: the one in the middle passes it on."""
    (first, into), (last, out) = os.pipe(), os.pipe()

    def middle():
        os.dup2(first, 0)
        os.dup2(out, 1)
        for end in (into, last):
            os.close(end)
        os.execv("/bin/busybox", ["busybox", "tr", "a-z", "A-Z"])

    def sender():
        os.close(into)
        os.close(out)
        while os.read(last, 4096):
            pass
        send()

    finish = beside(sender)
    child = os.fork()
    if child == 0:
        middle()
    os.close(out)
    os.write(into, look(path))
    os.close(into)
    os.waitpid(child, 0)
    finish()


@denied
def pipe_filled_by_sendfile(path, send):
    def write(_data):
        with open(path, "rb") as file:
            os.sendfile(writer, file.fileno(), 0, 9)

    reader, writer = os.pipe()
    through(lambda: os.read(reader, 9), write, path, send, True)


def through_channel(register, make, **names):
    """Registers a way through a channel for each name; its value: is the reader in its read already when the writer
    writes?"""
    for name, waiting in names.items():

        def function(path, send, waiting=waiting):
            over(make, path, send, waiting=waiting)

        function.__name__ = name
        register(function)


through_channel(denied, channels.pipe, pipe=False, pipe_to_one_that_waits=True)
through_channel(denied, channels.fifo, named_pipe=True)
through_channel(denied, channels.file, copied_to_a_file=False)
through_channel(denied, channels.memory_file, memory_file=False)
through_channel(denied, channels.memory_file_mapped, memory_file_mapped_after=False)
through_channel(denied, channels.memory_file_written_mapped, memory_file_written_through_a_mapping=False)
through_channel(denied, channels.system_v_memory, system_v_memory=False)
through_channel(denied, channels.stream_pair, stream_sockets=False, stream_sockets_to_one_that_waits=True)
through_channel(denied, channels.stream_pair_as_files, stream_sockets_read_as_files=True)
through_channel(denied, channels.packet_pair, packet_sockets_to_one_that_waits=True)
through_channel(denied, channels.datagram_pair, datagram_sockets=False, datagram_sockets_to_one_that_waits=True)
through_channel(denied, channels.abstract_datagram, datagram_to_a_name=True)
through_channel(denied, channels.abstract_stream, to_a_listener=False)
through_channel(denied, channels.system_v_queue, system_v_queue=False, system_v_queue_to_one_that_waits=True)
through_channel(denied, channels.posix_queue_opened_after, posix_queue_opened_after=True)
through_channel(denied, channels.terminal, terminal=False, terminal_to_one_that_waits=True)
through_channel(denied, channels.key, key_made_by_a_reader=False)
through_channel(denied, channels.changed_key, key_changed_by_a_reader=False)
through_channel(denied, channels.memory_read_by_another, taken_from_another_s_memory=False)
through_channel(denied, channels.memory_read_through_proc, taken_through_proc_mem=False)
through_channel(denied, channels.attribute, through_an_attribute=False)
through_channel(denied, channels.pipe_by_vmsplice, vmsplice=True)
through_channel(known_open, channels.posix_queue_opened_before, posix_queue_opened_before=True)
through_channel(known_open, channels.shared_before, memory_shared_before=False)


# ---- descriptors and files ----------------------------------------------------------------------------------------


@denied
def descriptor_passed_over_a_socket(path, send):
    ours, theirs = socket.socketpair()

    def receive():
        socket.recv_fds(theirs, 9, 1)
        send()

    finish = beside(receive)
    with open(path, "rb") as file:
        socket.send_fds(ours, [b"x"], [file.fileno()])
    finish()


@denied
def copied_to_a_file_that_is_open(path, send):
    copy = os.open("/srv/open", os.O_RDWR | os.O_TMPFILE, 0o600)
    through(lambda: os.pread(copy, 9, 0), lambda data: os.write(copy, data), path, send, False)


# ---- what was read before and gave nothing -------------------------------------------------------------------------


def read_often(file):
    """Enough for the enforcer to have seen that it gives nothing."""
    for _ in range(3):
        os.pread(file, 1, 0)


@denied
def read_again_after_somebody_wrote(path, send):
    copy = os.open("/srv/open", os.O_RDWR | os.O_TMPFILE, 0o600)
    os.write(copy, b"x")
    read_often(copy)
    in_another(lambda: os.write(copy, look(path)))
    read_often(copy)
    send()


def moved_beside(path):
    """An open file that was read, and is now where the path is."""
    name = f"moving-{os.getpid()}"
    with open(f"/srv/open/inbox/{name}", "wb") as file:
        file.write(b"x")
    file = os.open(f"/srv/open/inbox/{name}", os.O_RDONLY)
    read_often(file)
    in_another(lambda: os.rename(f"/srv/open/inbox/{name}", f"{os.path.dirname(path)}/inbox/{name}-moved"))
    return file


@denied
def read_again_after_it_moved(path, send):
    read_often(moved_beside(path))
    send()


@denied
def read_again_after_its_folder_moved(path, send):
    name = f"folder-{os.getpid()}"
    os.mkdir(f"/srv/open/inbox/{name}")
    with open(f"/srv/open/inbox/{name}/file", "wb") as file:
        file.write(b"x")
    file = os.open(f"/srv/open/inbox/{name}/file", os.O_RDONLY)
    read_often(file)
    in_another(lambda: os.rename(f"/srv/open/inbox/{name}", f"{os.path.dirname(path)}/inbox/{name}-moved"))
    read_often(file)
    send()


@denied
def read_by_another_through_the_same_descriptor(path, send):
    file = moved_beside(path)
    read = Signal()

    def child():
        read.wait()
        read_often(file)
        send()

    finish = beside(child)
    read_often(file)
    read.give()
    finish()


@denied
def copied_within_the_kernel(path, send):
    copy = f"/srv/open/copied-{os.getpid()}"

    def write(_data):
        with open(path, "rb") as source, open(copy, "wb") as target:
            os.copy_file_range(source.fileno(), target.fileno(), 9)

    through(lambda: look(copy), write, path, send, False)
    os.unlink(copy)


@denied
def copied_to_memory(path, send):
    copy = f"/tmp/copy-{os.getpid()}"

    def write(data):
        with open(copy, "wb") as file:
            file.write(data)

    through(lambda: look(copy), write, path, send, False)
    os.unlink(copy)


@passes
def a_device_carries_nothing(path, send):
    def write(data):
        with open("/dev/null", "wb") as file:
            file.write(data)

    through(lambda: look("/dev/null"), write, path, send, False)


@denied
def mapped_instead_of_read(path, send):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory:
        bytes(memory)
    send()


# ---- memory -------------------------------------------------------------------------------------------------------


@denied
def memory_file_that_the_reader_mapped_before(path, send):
    shared, go = channels.memory(), Signal()

    def other():
        there = mmap.mmap(shared, 4096)
        go.wait()
        bytes(there)
        send()

    finish = beside(other)
    settle()
    os.pwrite(shared, look(path), 0)
    go.give()
    finish()


# ---- messages -----------------------------------------------------------------------------------------------------


@denied
def stream_socket_filled_by_sendfile(path, send):
    ours, theirs = socket.socketpair()

    def write(_data):
        with open(path, "rb") as file:
            os.sendfile(ours.fileno(), file.fileno(), 0, 9)

    through(lambda: theirs.recv(9), write, path, send, True)


@denied
def stream_socket_emptied_by_splice(path, send):
    ours, theirs = socket.socketpair()
    _reader, writer = os.pipe()
    through(lambda: os.splice(theirs.fileno(), writer, 9), ours.send, path, send, True)


# ---- terminals and keys -------------------------------------------------------------------------------------------


@denied
def terminal_s_other_way(path, send):
    master, slave = os.openpty()
    through(lambda: os.read(slave, 9), lambda data: os.write(master, data[:8] + b"\n"), path, send, True)


@passes
def who_types_at_a_terminal(path, send):
    """To have written there is not to have read."""
    master, slave = os.openpty()
    through(lambda: os.write(master, b"x"), lambda data: os.write(slave, data), path, send, False)


# ---- another task's memory ----------------------------------------------------------------------------------------


def poke(pid, room, data):
    remote_memory(pid, room.address, len(data), data)


def handed(give, path, send):
    """The other only waits, and has it in its memory by then."""
    room, go = Room(), Signal()

    def other():
        go.wait()
        bytes(room.page[:9])
        send()

    child = os.fork()
    if child == 0:
        try:
            other()
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    settle()
    give(child, room, look(path))
    go.give()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(status, "in the other")


@denied
def put_into_another_s_memory(path, send):
    handed(poke, path, send)


@denied
def put_there_through_proc_mem(path, send):
    def give(child, room, data):
        with open(f"/proc/{child}/mem", "r+b", buffering=0) as file:
            file.seek(room.address)
            file.write(data)

    handed(give, path, send)


PEEKDATA, POKEDATA, ATTACH, DETACH, SEIZE = 2, 5, 16, 17, 0x4206


@denied
def put_there_by_a_debugger(path, send):
    def give(child, room, data):
        call("ptrace", ATTACH, child, None, None)
        os.waitpid(child, 0)
        call(
            "ptrace",
            POKEDATA,
            child,
            ctypes.c_void_p(room.address),
            ctypes.c_void_p(int.from_bytes(data[:8], "little")),
        )
        call("ptrace", DETACH, child, None, None)

    handed(give, path, send)


@denied
def descriptor_taken_from_another(path, send):
    """pidfd_getfd"""
    me, kept = os.getpid(), []

    def read():
        fd = system("pidfd_getfd", os.pidfd_open(me), kept[0], 0)
        os.pread(fd, 9, 0)

    kept.append(os.open(path, os.O_RDONLY))
    through(read, lambda _data: None, path, send, False)


@denied
def descriptor_of_a_reader_that_is_no_secret(path, send):
    """Who gets hold of a reader has what it has."""
    me, kept = os.getpid(), os.memfd_create("x")
    through(lambda: system("pidfd_getfd", os.pidfd_open(me), kept, 0), lambda _data: None, path, send, False)


@passes
def looked_at_by_ps(path, send):
    me = os.getpid()

    def read():
        for name in ("stat", "status", "cmdline"):
            with open(f"/proc/{me}/{name}", "rb") as file:
                file.read()

    through(read, lambda _data: None, path, send, False)


# ---- without opening ----------------------------------------------------------------------------------------------


@passes
def lists_a_folder(path, send):
    os.listdir(os.path.dirname(path))
    send()


@denied
def target_of_a_link(path, send):
    os.readlink("/srv/secret/link" if path == SECRET else "/srv/open/link")
    send()


@passes
def link_that_leads_there(_path, send):
    os.readlink("/srv/open/link")
    send()


@denied
def attribute_of_what_is_labelled(path, send):
    os.getxattr(path, "user.label")
    send()


@passes
def attribute_that_is_the_system_s(path, send):
    try:
        os.getxattr(path, "system.posix_acl_access")
    except OSError as error:
        assert error.errno in (61, 95), error
    send()


@denied
def vmsplice_of_what_a_socket_brought(path, send):
    """Of three tasks, the second one hands on what it received by what no hook sees."""
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()

    def middle():
        data = theirs.recv(9)
        channels.vmsplice(writer, data)

    def last():
        os.read(reader, 9)
        send()

    finish = beside(last)
    ours.send(look(path))
    in_another(middle)
    finish()


# ---- known open: no hook sees them --------------------------------------------------------------------------------


@known_open
def tee(path, send):
    first, into = os.pipe()

    def read():
        second, copied = os.pipe()
        channels.tee(first, copied, 9)
        os.read(second, 9)

    through(read, lambda data: os.write(into, data), path, send, False)


@known_open
def splice_from_pipe_to_pipe(path, send):
    first, into = os.pipe()

    def read():
        second, copied = os.pipe()
        os.splice(first, copied, 9)
        os.read(second, 9)

    through(read, lambda data: os.write(into, data), path, send, False)


@known_open
def splice_from_pipe_to_file(path, send):
    def read():
        drained = os.open("/srv/open", os.O_RDWR | os.O_TMPFILE, 0o600)
        os.splice(reader, drained, 9)
        os.pread(drained, 9, 0)

    reader, writer = os.pipe()
    through(read, lambda data: os.write(writer, data), path, send, False)


@known_open
def memory_file_that_the_writer_mapped_before(path, send):
    shared = channels.memory()
    there = mmap.mmap(shared, 4096)

    def write(data):
        there[: len(data)] = data

    through(lambda: os.pread(shared, 9, 0), write, path, send, False)


# ---- the run ------------------------------------------------------------------------------------------------------


def prepare():
    import shutil

    for folder in ("/srv/open/inbox", "/srv/secret/inbox"):
        os.mkdir(folder)
        os.chmod(folder, 0o777)
    shutil.copy("/guest/carry", "/srv/open/carry")
    os.link("/srv/open/carry", "/srv/secret/carry")  # the disk is small
    os.link("/srv/bin/opener", "/srv/secret/opener")
    for script in ("/srv/secret/script", "/srv/open/sends"):
        with open(script, "w", encoding="ascii") as file:
            file.write("#!/guest/carry send\n")
        os.chmod(script, 0o755)
    os.symlink("data", "/srv/secret/link")
    os.symlink("/srv/secret/a", "/srv/open/link")
    for path in (SECRET, PUBLIC):
        os.setxattr(path, "user.label", b"x")
    os.makedirs("/dev/pts", exist_ok=True)
    if not os.path.ismount("/dev/pts"):
        mount("devpts", "/dev/pts", "devpts")
    if os.path.exists(YAMA):
        with open(YAMA, "w", encoding="ascii") as file:
            file.write("0")


TRIED = (SECRET, ELSEWHERE), (SECRET, VAULT), (PUBLIC, ELSEWHERE)


def attempt(function, path, address, user=ALICE):
    def operation():
        become(user)
        function(path, send)

    send = sending(address)
    send.address = address
    try:
        beside(operation)()
    except OSError as error:
        return error.errno
    return 0


STORIES = {}


def story(function):
    """Under the policy, with what was there before it."""
    STORIES[function.__name__] = function
    return function


class Told:
    """What a task does when it is told, and how that ended, without a byte that could be labelled."""

    def __init__(self, operation):
        self.operation, self.ask, self.done, self.result = operation, Signal(), Signal(), mmap.mmap(-1, 4096)

    def serve(self):
        while True:
            self.ask.wait()
            self.result[0] = 0
            try:
                self.operation()
            except OSError as error:
                self.result[0] = error.errno
            self.done.give()

    def __call__(self):
        self.ask.give()
        self.done.wait()
        return self.result[0]


@story
def older_tasks(enforcer):
    """Two threads that were there before any policy: what one reads binds the other, and nobody else."""

    def serve():
        become(ALICE)
        threading.Thread(target=reads.serve, daemon=True).start()
        sends.serve()

    enforcer.apply(WITHOUT)
    descriptor = os.open(SECRET, os.O_RDONLY)
    tasks = []
    for _ in range(2):
        reads, sends = Told(lambda: os.pread(descriptor, 9, 0)), Told(sending(ELSEWHERE))
        child = os.fork()
        if child == 0:
            serve()
        tasks.append((child, reads, sends))
    os.close(descriptor)
    (_, reads, sends), (_, _, others) = tasks
    settle()
    answers = [reads(), sends()]
    enforcer.apply(POLICY)
    answers += [sends(), reads(), sends(), others()]
    for child, _, _ in tasks:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert answers == [0, 0, 0, 0, EPERM, 0], answers


@story
def a_new_policy_does_not_forget(enforcer):
    enforcer.apply(POLICY)
    sends = Told(sending(ELSEWHERE))
    child = os.fork()
    if child == 0:
        become(ALICE)
        look(SECRET)
        sends.serve()
    found = [sends()]
    more = {"name": "more", "deny": ["read"], "resources": ["deep"], "subjects": ["reader"]}
    enforcer.apply({**POLICY, "rules": [*POLICY["rules"], more]})
    found.append(sends())
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert found == [EPERM, EPERM], found


@story
def cells_are_given_back(enforcer):
    enforcer.apply(POLICY)
    attempt(thread_sends, PUBLIC, VAULT)
    settle()
    before = len(enforcer.table("cells"))
    for _ in range(20):
        attempt(thread_sends, PUBLIC, VAULT)
        attempt(vfork_child_reads, SECRET, VAULT)
        attempt(WAYS["stream_sockets"][0], SECRET, VAULT)
    time.sleep(1)
    after = len(enforcer.table("cells"))
    assert after <= before + 3, (before, after)


def try_way(enforcer, name, phase, path, address):
    """Goes one way from ``path`` to ``address``; gives what is wrong with how it ended, line by line."""
    function, ends = WAYS[name]
    is_leak = (path, address) == (SECRET, ELSEWHERE)
    expected = ends if phase == "enforce" and is_leak else 0
    where = f"{phase}: {path} to {address}"
    before = enforcer.counter(RULE)
    try:
        found = attempt(function, path, address)
    except Exception:
        return [f"{where}: {traceback.format_exc(limit=-3)}"]
    wrong = []
    if expected is None:
        print(f"known open: {name}" if found == 0 else f"closed after all: {name}, {found}", flush=True)
    elif found != expected:
        wrong.append(f"{where} ended with {found}, expected {expected}")
    grown = tuple(new > old for new, old in zip(enforcer.counter(RULE), before))
    hit = ends == EPERM and is_leak
    if ends is not None and grown != (hit and phase == "enforce", hit and phase == "audit"):
        wrong.append(f"{where}: the rule's counters grew: {grown}")
    return wrong


def run(enforcer, wanted, report):
    """The ways that are ``wanted``; "labels": all of them. They take as long as everything else."""
    wrong = {name: [] for name in WAYS if name in wanted or "labels" in wanted}
    stories = [name for name in STORIES if name in wanted or "labels" in wanted]
    if not wrong and not stories:
        return
    prepare()
    phases = ("without", WITHOUT), ("audit", {**POLICY, "mode": "audit"}), ("enforce", POLICY)
    for phase, document in phases if wrong else ():
        try:
            enforcer.apply(document)
        except Exception:
            for lines in wrong.values():
                lines.append(traceback.format_exc(limit=-1))
            continue
        for name, lines in wrong.items():
            for path, address in TRIED if phase == "enforce" else TRIED[:1]:
                lines += try_way(enforcer, name, phase, path, address)
    for name, lines in wrong.items():
        report(name, "\n".join(lines))
    for name in stories:
        try:
            STORIES[name](enforcer)
            report(name, "")
        except Exception:
            report(name, traceback.format_exc(limit=-3))
