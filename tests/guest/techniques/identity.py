# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to be somebody else: users, namespaces, cgroups, other threads and programs."""

import os
import signal
import struct

from techniques.registry import in_child, technique
from techniques.steps import NEWCGROUP, NEWNET, NEWNS, NEWPID, own_namespaces, piped, put, spawn, take
from techniques.syscalls import call, libc, system

# ---- to read: who one is ---------------------------------------------------------------------------------------------


def _only(name, numbers):
    """alice's number is only one of several; the process is otherwise root in a unit that the rule does not name."""

    def function(t):
        def operation():
            os.setresuid(*numbers(t.users["alice"]))
            return t.has(take(t.secret))

        return in_child(operation)

    function.__name__ = f"only_{name}_user"
    technique("files", "another real, saved or file-system user", "read", who="programs.service")(function)


_only("real", lambda user: (user, 0, 0))


_only("effective", lambda user: (0, user, 0))


_only("saved", lambda user: (0, 0, user))


@technique("files", "another real, saved or file-system user", "read", who="programs.service")
def file_system_user(t):
    libc.setfsuid(t.users["alice"])
    return take(t.secret)


@technique("files", "a subordinate user in a namespace of one's own", "read")
def subordinate_user(t):
    own_namespaces(NEWNS)
    return take(t.secret)


@technique("files", "new namespaces of every kind", "read")
def every_namespace(t):
    own_namespaces(NEWNS, NEWPID, NEWNET, NEWCGROUP)
    return in_child(lambda: t.has(take(t.secret)))


@technique("files", "a unit's process in a cgroup below", "read", who="files.service")
def cgroup_below(t):
    below = t.cgroup("files") + "/below"
    os.makedirs(below, exist_ok=True)
    put(below + "/cgroup.procs", str(os.getpid()).encode())
    return take(t.secret)


@technique("files", "a unit's process in a cgroup below", "read", who="files.service")
def cgroup_namespace(t):
    call("unshare", NEWCGROUP)
    return take(t.secret)


CGROUPS = "/sys/fs/cgroup"
CLONE_INTO_CGROUP = 0x200000000


def clone_into(folder, operation):
    """Runs in a child that starts in the cgroup; OSError when it ended with one."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    arguments = struct.pack("=11Q", CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, descriptor)
    child = system("clone3", arguments, len(arguments))
    if child == 0:
        status = 1
        try:
            operation()
            status = 0
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status)
    os.close(descriptor)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(max(status, 1), os.strerror(max(status, 1)) + " (in a child)")


@technique("files", "a unit's process that leaves its cgroup", "read", who="files.service")
def leaves_its_cgroup(t):
    put(CGROUPS + "/cgroup.procs", str(os.getpid()).encode())
    return take(t.secret)


@technique("files", "a unit's process that leaves its cgroup", "read", who="files.service")
def moves_its_child(t):
    """Whoever moves is not whoever leaves."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reader, 1)
        status = 1
        try:
            status = 0 if t.has(take(t.secret)) else 2
        finally:
            os._exit(status)
    try:
        put(CGROUPS + "/cgroup.procs", str(child).encode())
    finally:
        os.write(writer, b"g")
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return ended == 0


@technique("files", "a child that starts in another cgroup", "read", who="files.service")
def cloned_into_a_cgroup(t):
    def operation():
        if not t.has(take(t.secret)):
            raise OSError(5, "no mark")

    clone_into(CGROUPS, operation)
    return True


@technique("files", "a child that starts in another cgroup", "read", who="files.service")
def cloned_into_a_cgroup_twice(t):
    def operation():
        if not t.has(take(t.secret)):
            raise OSError(5, "no mark")

    other = t.cgroup("programs")
    clone_into(other, lambda: clone_into(CGROUPS, operation))
    return True


@technique("files", "a thread, a child", "read")
def child(t):
    return in_child(lambda: t.has(take(t.secret)))


@technique("files", "a thread, a child", "read")
def thread(t):
    import threading

    found = []

    def look():
        try:
            found.append(take(t.secret))
        except OSError:
            found.append(b"")

    one = threading.Thread(target=look)
    one.start()
    one.join()
    return found[0]


@technique("files", "execute a program that reads", "read")
def program_reads(t):
    return piped(lambda writer: spawn(t, ["open", t.secret], {1: writer}))


@technique("others", "a setuid program", "read")
def setuid_program(t):
    return piped(lambda writer: spawn(t, ["open", t.secret], {1: writer}, program="setuid"))
