# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In the guest: what an operation costs, in instructions, with nothing that judges it, under each peer and under us; one
JSON line per number."""

import ctypes
import json
import os
import shutil
import struct
import time

from exfil_guard.kernel import bpf
from harness.enforcer import Enforcer
from harness.process import ALICE, BOB, write
from techniques.syscalls import call, libc

FILE, ADDRESS, PORT = "/srv/open/a/b/c/file", "10.9.1.1", 9999
OPERATIONS = ("open", "read", "write", "exec", "fork", "connect", "sendto", "send")
SETS = 60
enforcer = Enforcer()


def resources(count):
    """Sets that share all of the file's folders, and do not cover it."""
    return {
        f"{n:02}": {"paths": [f"/srv/open/a/b/c/{n:02}/**", f"/srv/open/a/b/{n:02}-*.csv", f"/srv/closed/{n:02}/**"]}
        for n in range(count)
    }


def destinations(count):
    """Sets that do not hold the address."""
    return {
        f"{n:02}": {"cidrs": [f"10.8.{n}.0/24", f"fd08:{n:02}::/32"], "ports": [443, "8000-8100"]} for n in range(count)
    }


def policy(rules):
    """Rules that bind alice and cover neither the file nor the address."""
    count = min(rules, SETS)
    return {
        "subjects": {"alice": {"users": ["alice"]}},
        "resources": resources(count),
        "destinations": destinations(count),
        "rules": [
            {
                "name": f"rule {number:03}",
                "deny": ["read", "write", "connect", "send"],
                "subjects": ["alice"],
                "resources": [f"{number % count:02}"],
                "destinations": [f"{number % count:02}"],
            }
            for number in range(rules)
        ],
    }


def other_policy():
    """A rule that needs no hook on files; on sockets 6.1 takes one, since sendfile(2) into them comes by no other."""
    return {
        "subjects": {"alice": {"users": ["alice"]}},
        "rules": [{"name": "n", "deny": ["user-namespace"], "subjects": ["alice"]}],
    }


def label_policy():
    """Who has read what nobody here reads may not send there."""
    return {
        "subjects": {"reader": {"has_read": ["00"]}},
        "resources": resources(1),
        "destinations": destinations(1),
        "rules": [{"name": "l", "deny": ["connect", "send"], "subjects": ["reader"], "destinations": ["00"]}],
    }


# ---- the peers: each confines the current process, which then executes the loop ---------------------------------------

# what the loop and glibc's start need, and what a small service has beside it
SYSCALLS = (
    0,
    1,
    2,
    3,
    5,
    9,
    10,
    11,
    12,
    13,
    14,
    16,
    17,
    18,
    20,
    21,
    22,
    32,
    33,
    39,
    41,
    42,
    43,
    44,
    45,
    46,
    47,
    49,
    50,
    54,
    55,
    56,
    57,
    59,
    60,
    61,
    72,
    89,
    117,
    118,
    158,
    202,
    218,
    228,
    231,
    257,
    273,
    302,
    318,
    334,
)


def no_new_privileges():
    call("prctl", 38, 1, 0, 0, 0)


def seccomp():
    """An allow-list of 50 calls, compared one after the other as libseccomp writes it."""
    load, equal, end, allow, refuse = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050001
    count = len(SYSCALLS)
    assert count == 50
    code = [(load, 0, 0, 4), (equal, 0, count + 1, 0xC000003E), (load, 0, 0, 0)]  # architecture, then the call
    code += [(equal, count - index, 0, number) for index, number in enumerate(SYSCALLS)]
    code += [(end, 0, 0, refuse), (end, 0, 0, allow)]
    data = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
    no_new_privileges()
    call("prctl", 22, 2, ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(code), ctypes.addressof(data))), 0, 0)


def landlock():
    """Six folders, and one TCP port where the kernel has that."""
    abi = libc.syscall(444, None, 0, 1)
    files = (1 << 13) - 1 | (1 << 13 if abi >= 2 else 0) | (1 << 14 if abi >= 3 else 0)
    attributes = struct.pack("=Q", files) + (struct.pack("=Q", 3) if abi >= 4 else b"")
    ruleset = call("syscall", 444, ctypes.create_string_buffer(attributes), ctypes.c_size_t(len(attributes)), 0)
    for folder in ("/srv/open", "/guest", "/lib64", "/usr", "/tmp", "/dev"):
        fd = os.open(folder, os.O_PATH)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", files, fd))
        call("syscall", 445, ruleset, 1, rule, 0)
        os.close(fd)
    if abi >= 4:
        call("syscall", 445, ruleset, 2, ctypes.create_string_buffer(struct.pack("=QQ", 3, PORT)), 0)
    no_new_privileges()
    call("syscall", 446, ruleset, 0)


def apparmor():
    write("/proc/self/attr/apparmor/exec", "exec bench")


def nothing():
    pass


# ---- measuring --------------------------------------------------------------------------------------------------------


def measure(row, user, operation, temperature="warm", confine=nothing):
    # what the kernel does besides comes on top now and then, where so much is measured
    times = 3 if operation in ("exec", "fork") else 1
    count = min(measured(row, user, operation, temperature, confine) for _time in range(times))
    print(json.dumps({"row": row, "operation": operation, "temperature": temperature, "count": count}), flush=True)


def measured(row, user, operation, temperature, confine):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.setgroups([])
        os.setresgid(user, user, user)
        confine()
        os.execv("/guest/loop", ["loop", str(user), operation, temperature, FILE, ADDRESS])
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read().strip()
    status = os.waitpid(child, 0)[1]
    assert status == 0 and text, f"{row}, {operation}: loop ended with {status:#x}"
    return int(text)


def series(row, user, confine=nothing, operations=OPERATIONS):
    for operation in operations:
        measure(row, user, operation, confine=confine)


def prepare():
    os.makedirs(os.path.dirname(FILE))
    for number in range(SETS):
        os.makedirs(f"{os.path.dirname(FILE)}/{number:02}")
        os.makedirs(f"/srv/closed/{number:02}")
    write(FILE, "x")
    os.chmod(FILE, 0o666)
    write("/tmp/loop-a")
    os.chmod("/tmp", 0o777)
    shutil.copy("/guest/systemctl", "/usr/bin/systemctl")
    assert os.system(f"ip addr add {ADDRESS}/32 dev lo") == 0


def peers():
    series("none", BOB)
    for operation in ("open", "connect"):
        measure("none", ALICE, operation, "cold")
    series("landlock", BOB, landlock)
    series("seccomp", BOB, seccomp)
    with open("/guest/apparmor.blob", "rb") as blob, open("/sys/kernel/security/apparmor/.load", "wb", 0) as load:
        load.write(blob.read())
    series("apparmor", BOB, apparmor)
    for row, file in (("d_path", "dpath.bpf.o"), ("empty", "empty.bpf.o")):
        with open(f"/guest/{file}", "rb") as data:
            loaded = bpf.Kernel().load(data.read(), {})
        links = [bpf.Kernel().attach(program) for program in loaded.programs.values()]
        series(row, BOB)
        for fd in [*links, *loaded.programs.values(), *loaded.maps.values()]:
            os.close(fd)


def under(document):
    """The policy, and nothing else: the kernel lets go of a link that is not needed any more by and by."""
    enforcer.apply(document)
    time.sleep(0.5)


def ours():
    enforcer.install()
    under(other_policy())
    series("no file rule", BOB, operations=("open", "read", "write"))
    for rules in (10, 500):
        under(policy(rules))
        series(f"unbound {rules}", BOB)
        series(f"bound {rules}", ALICE)
        for operation in ("open", "connect"):
            measure(f"bound {rules}", ALICE, operation, "cold")
    under(label_policy())
    series("labels", BOB)


if __name__ == "__main__":
    prepare()
    series("warm-up", BOB)
    peers()
    ours()
