# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What several techniques are made of: files, namespaces, programs."""

import ctypes
import os
import shutil
import socket

from techniques.syscalls import AT_EMPTY_PATH, AT_FDCWD, call, mount, system

NEWNS, NEWUSER, NEWPID, NEWNET, NEWCGROUP = 0x00020000, 0x10000000, 0x20000000, 0x40000000, 0x02000000


BIND, PRIVATE = 0x1000, 0x44000


def take(path, flags=os.O_RDONLY, **more):
    descriptor = os.open(path, flags, **more)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def text_of(path):
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def own_namespaces(*more):
    """Into a user namespace of one's own, root in it."""
    user, group = os.getuid(), os.getgid()
    call("unshare", NEWUSER | sum(more))
    put("/proc/self/setgroups", b"deny")
    put("/proc/self/uid_map", f"0 {user} 1".encode())
    put("/proc/self/gid_map", f"0 {group} 1".encode())


def mapping_root(*more):
    """Into a user namespace where the kernel's ids 0 to 65535 are themselves. Root outside has to do it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        status = 1
        try:
            os.read(reader, 1)
            for name in ("uid_map", "gid_map"):
                put(f"/proc/{os.getppid()}/{name}", b"0 0 65536")
            status = 0
        finally:
            os._exit(status)
    call("unshare", NEWUSER | sum(more))
    os.write(writer, b"x")
    os.close(reader)
    os.close(writer)
    if os.waitpid(child, 0)[1]:
        raise PermissionError(1, "no identity mapping")


def another_id():
    """In a user namespace that maps root: another id, with every capability there."""
    call("prctl", 28, 4, 0, 0, 0)  # PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP
    os.setresuid(1001, 1001, 1001)


def put(path, data, flags=os.O_WRONLY):
    descriptor = os.open(path, flags, 0o666)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def link_followed(old, new):
    call("linkat", AT_FDCWD, old, AT_FDCWD, new, 0x400)


def gone(*paths):
    for path in paths:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)


def private_mounts(_t=None):
    call("unshare", NEWNS)
    mount("none", "/", None, PRIVATE)


def spread(t, path, data=None):
    """A file that everybody may use."""
    with open(path, "wb") as file:
        file.write(t.data if data is None else data)
    os.chmod(path, 0o666)


def piped(run):
    """What ``run(descriptor)`` puts into a pipe."""
    reader, writer = os.pipe()
    run(writer)
    os.close(writer)
    return os.read(reader, 65536)


def piped_child(operation):
    """What ``operation`` gives in a child, for example the first process of a pid namespace."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, operation())
            status = 0
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status)
    os.close(writer)
    data = os.read(reader, 65536)
    os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(status, os.strerror(status) + " (in a child)")
    return data


def spawn(t, arguments, descriptors=None, program="hand"):
    """Runs the hand in a child, waits for it."""
    child = os.fork()
    if child == 0:
        try:
            for number, descriptor in sorted((descriptors or {}).items()):
                os.dup2(descriptor, number)
            os.execv(f"{t.bin}/{program}", [program, *map(str, arguments)])
        except OSError as error:
            os._exit(error.errno)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(max(status, 1), os.strerror(max(status, 1)) + f" (status of {program})")


def system_ioctl(fd, request, argument):
    return call(
        "ioctl", fd, ctypes.c_ulong(request), argument if not isinstance(argument, int) else ctypes.c_long(argument)
    )


def run(path, *arguments, descriptor=None):
    """Executes in a child, waits; OSError when the exec failed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if descriptor is not None:
                system("execveat", descriptor, "", _strings("program", *arguments), None, AT_EMPTY_PATH)
            os.execv(path, ["program", *arguments])
        except OSError as error:
            os.write(writer, bytes([error.errno]))
        os._exit(255)
    os.close(writer)
    failed = os.read(reader, 1)
    os.close(reader)
    os.waitpid(child, 0)
    if failed:
        raise OSError(failed[0], os.strerror(failed[0]))


def _strings(*texts):
    return (ctypes.c_char_p * (len(texts) + 1))(*[text.encode() for text in texts], None)


def hand_out(t, name, opened):
    """Root, bound by nothing, gives whoever asks what ``opened()`` opens."""
    path = f"{t.run}/{name}"
    gone(path)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    os.chmod(path, 0o777)
    server.listen(4)

    def give():
        while True:
            peer = server.accept()[0]
            descriptor = opened()
            socket.send_fds(peer, [b"x"], [descriptor])
            os.close(descriptor)

    t.helper(give)
    server.close()


def handed_out(t, name):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(f"{t.run}/{name}")
        descriptors = socket.recv_fds(one, 1, 1)[1]
    if not descriptors:
        raise PermissionError(1, "no descriptor came")
    return descriptors[0]
