# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs an operation as somebody, in a process of its own."""

import json
import os
import struct
import time
import traceback

from techniques.syscalls import call

ALICE, BOB, CAROL, DBA = 1001, 1002, 1003, 2001


def write(path, text=""):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def become(user, groups=()):
    os.setgroups(list(groups))
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    call("prctl", 4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: her own /proc/self is hers again


def in_child(operation, *, user=None, groups=(), before=None):
    """Runs ``operation`` in a child, as ``user``; gives its errno, 0 if it passed. ``before`` runs there first, as
    root. Anything but OSError is a mistake in the check and is raised here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if before:
                before()
            if user is not None:
                become(user, groups)
            try:
                operation()
                answer = {"errno": 0}
            except OSError as error:
                answer = {"errno": error.errno or 255, "text": str(error)}
        except BaseException:
            answer = {"wrong": traceback.format_exc()}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    answer = json.loads(answer or b'{"wrong": "the child died"}')
    if "wrong" in answer:
        raise AssertionError(answer["wrong"])
    return answer["errno"]


def execute(path, *arguments, env=None):
    """Fork and exec; OSError if the exec failed, else the exit status as errno."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            null = os.open("/dev/null", os.O_WRONLY)
            os.dup2(null, 2)
            os.execve(path, [path if isinstance(path, str) else "program", *arguments], env or {})
        except OSError as error:
            os.write(writer, struct.pack("=i", error.errno))
        os._exit(255)
    os.close(writer)
    failed = os.read(reader, 4)
    os.close(reader)
    status = os.waitpid(child, 0)[1]
    number = struct.unpack("=i", failed)[0] if failed else os.WEXITSTATUS(status) if os.WIFEXITED(status) else 255
    if number:
        raise OSError(number, f"{path}: {os.strerror(number)}")


def wait_until(boottime_seconds):
    while time.clock_gettime(time.CLOCK_BOOTTIME) < boottime_seconds:
        time.sleep(0.05)
