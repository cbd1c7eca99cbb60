# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The observer on a real kernel: two users change directory, and the observation says so with what lay there; nothing is left
afterwards. With the argument `all`, in a guest that has BCC, opens, programs and the network as well."""

import json
import os
import socket
import struct
import sys
import time

sys.path.insert(0, "/guest/observer.zip")
sys.path.insert(1, "/usr/lib/python3/dist-packages")
from exfil._guard.host.system import System
from exfil._guard.kernel.bpf import Kernel
from exfil.observe import collect, records

EVERYTHING = "all" in sys.argv[1:]
ACTIONS = list(records.ACTIONS) if EVERYTHING else ["chdir"]
FILE = "/srv/observed.jsonl"
kernel = Kernel()
failed = []


def check(what, condition):
    print(f"{'ok' if condition else 'FAILED'}: {what}", flush=True)
    if not condition:
        failed.append(what)


def objects():
    """Ids of every program, map and link."""
    found = {}
    for name, following in (("programs", 11), ("maps", 12), ("links", 31)):
        ids, number = [], 0
        while True:
            try:
                _, out = kernel._bpf(following, struct.pack("=III", number, 0, 0), name)
            except OSError:
                break
            number = struct.unpack_from("=I", out, 4)[0]
            ids.append(number)
        found[name] = ids
    return found


def as_user(uid, work):
    """Forks and becomes the user; 0 when the work passed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([2001])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            work()
            status = 0
        except OSError as error:
            print(error, flush=True)
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def acts():
    def alice():
        os.chdir("/srv/exports")
        os.chdir("/srv/exports")
        with open("/srv/exports/a.csv", encoding="ascii") as file:
            file.read()
        with open("/tmp/alice.out", "w", encoding="ascii") as file:
            file.write("x")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.sendto(b"x", ("127.0.0.1", 5353))
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as one:
            one.connect(("::ffff:127.0.0.1", 8080))
            one.send(b"x")
            one.recv(1)

    def bob():
        os.chdir("/srv/odd")
        if os.fork() == 0:
            os.execv("/bin/busybox", ["true"])
        os.wait()

    check("alice may", as_user(1001, alice) == 0)
    check("bob may", as_user(1002, bob) == 0)


def server():
    """A process apart: the observer itself is not observed, and neither are its threads."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", 8080))
            listener.listen()
            os.write(told, b"x")
            other, _ = listener.accept()
            other.recv(1)
            other.send(b"y")
        os._exit(0)
    os.read(ready, 1)


os.makedirs("/srv/exports", exist_ok=True)
os.makedirs("/srv/odd", exist_ok=True)
with open("/srv/exports/a.csv", "w", encoding="ascii") as file:
    file.write("1")
for name in ("b\x1b[31m<script>", "c\n"):
    open("/srv/odd/" + name, "w", encoding="ascii").close()

before = objects()


def read(name):
    with open("/guest/" + name, encoding="utf-8") as file:
        return file.read()


child = 0


def ready():
    """All is attached: others act while the observer waits."""
    global child
    child = os.fork()
    if child == 0:
        try:
            os.mkdir("/sys/fs/cgroup/probe.service")
            if EVERYTHING:
                server()
                acts()
            else:
                for uid, where in ((1001, "/srv/exports"), (1001, "/srv/exports"), (1002, "/srv/odd")):
                    as_user(uid, lambda where=where: os.chdir(where))
            sys.stdout.flush()
        finally:
            os._exit(1 if failed else 0)


with open("/guest/observe.bpf.o", "rb") as file:
    data = file.read()
try:
    collect.run(
        kernel,
        System(),
        collect.Options(seconds=0, path="/srv/observed.jsonl", actions=ACTIONS, names=20),
        collect.Programs(data, "", ""),
        lock_path="/run/lock/o.lock",
    )
    check("no time is refused", False)
except collect.PolicyErrors as error:
    check(f"no time is refused: {error}", True)
result = collect.run(
    kernel,
    System(),
    collect.Options(seconds=20 if EVERYTHING else 3, path=FILE, actions=ACTIONS, names=20),
    collect.Programs(data, read("observe.h") if EVERYTHING else "", read("observe.bcc.c") if EVERYTHING else ""),
    lock_path="/run/lock/o.lock",
    ready=ready,
)
check("those who act came through", os.waitpid(child, 0)[1] == 0)
print(result, flush=True)
with open(FILE, encoding="ascii") as file:
    found = [json.loads(line) for line in file]
for line in found:
    if line["kind"] != "seen" or line.get("user") in ("alice", "bob"):
        print(json.dumps(line, sort_keys=True), flush=True)
check("mode 0600", os.stat(FILE).st_mode & 0o777 == 0o600)
check("the end is there", found[-1]["kind"] == "end" and found[-1]["lines"] == len(found) - 1)
check("nothing was lost", not any(found[-1]["lost"].values()))
seen = [line for line in found if line["kind"] == "seen"]


def one(**parts):
    same = [line for line in seen if all(line.get(key) == value for key, value in parts.items())]
    check(f"seen: {parts}", len(same) >= 1)
    return same[0] if same else {}


alice = one(action="chdir", user="alice", path="/srv/exports", executable="/usr/bin/python3")
check("twice", alice.get("count") == 2)
check("groups", EVERYTHING is False or (alice.get("groups") == [2001] and "dba" in alice.get("group_names", ())))
one(action="chdir", user="bob", path="/srv/odd")
listings = {line["path"]: line for line in found if line["kind"] == "listing"}
check("what lay there", listings.get("/srv/exports", {}).get("entries") == ["a.csv"])
check("names can move no cursor", listings.get("/srv/odd", {}).get("entries") == ["b\\x1b[31m<script>", "c\\x0a"])
check("by whom", (listings["/srv/exports"]["user"], listings["/srv/odd"]["user"]) == ("alice", "bob"))
if EVERYTHING:
    one(action="read", user="alice", path="/srv/exports/a.csv")
    one(action="write", user="alice", path="/tmp/alice.out")
    one(action="send", user="alice", address="127.0.0.1", port=5353, protocol="udp")
    one(action="connect", user="alice", address="127.0.0.1", port=8080, protocol="tcp")
    one(action="send", user="alice", address="127.0.0.1", port=8080, protocol="tcp")
    one(action="bind", user="root", address="127.0.0.1", port=8080, protocol="tcp")
    one(action="listen", user="root", address="127.0.0.1", port=8080, protocol="tcp")
    one(action="accept", user="root", address="127.0.0.1", port=8080, protocol="tcp")
    one(action="reply", user="root", address="127.0.0.1", port=0, protocol="tcp")
    one(action="execute", user="bob", path="/bin/busybox", executable="/usr/bin/python3")
    check("a unit", [line["unit"] for line in found if line["kind"] == "unit"] == ["probe.service"])
ends = time.monotonic() + 20
while objects() != before and time.monotonic() < ends:
    time.sleep(0.1)  # the kernel frees them when no processor uses them any more
left = objects()
check(f"no program, map or link is left: {left}, before {before}", left == before)
check("no file is left beside", [name for name in os.listdir("/srv") if name.endswith(".exfil-guard")] == [])
sys.exit(1 if failed else 0)
