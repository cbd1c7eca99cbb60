# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Very many forbidden operations while everything around them changes: nothing passes, nothing crashes, the counters add
up. Each storm first shows, without a policy, that what it tries works."""

import contextlib
import mmap
import os
import resource
import signal
import struct
import sys
import time
import traceback

from techniques.syscalls import call, mount

FILES, EVERYTHING = 0b0111100001111111, 0xFFFF  # by the numbers that storm.c gives them
KINDS, STORMS, BEFORE = 16, {}, []


def storm(function):
    STORMS[function.__name__] = function
    return function


def from_before(function):
    """A storm with descriptors that were opened before the policy."""
    BEFORE.append(function)
    return storm(function)


class Crowd:
    """Processes of storm.c, and what they counted."""

    def __init__(self, place, mode, number, processes=1, who="alice"):
        self.place, self.path = place, f"/run/adversary/{mode}.{time.monotonic_ns()}"
        with open(self.path, "wb") as file:
            file.write(bytes(4096))
        os.chmod(self.path, 0o666)
        with open(self.path, "r+b") as file:
            self.page = mmap.mmap(file.fileno(), 4096)
        self.children = []
        for turn in range(processes):
            child = os.fork()
            if child == 0:
                os.setpgid(0, 0)
                for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC):
                    resource.setrlimit(limit, (1 << 20, 1 << 20))
                self.place.become(who)
                program = f"{self.place.bin}/storm"
                os.execv(
                    program,
                    [program, mode, self.path, self.place.base, self.place.outside4, str(number), str(4242 + turn)],
                )
            self.children.append(child)
        ends = time.monotonic() + 300
        while self.numbers()[3] < processes:
            if time.monotonic() > ends or any(os.waitpid(child, os.WNOHANG)[0] for child in self.children):
                raise AssertionError(f"{mode}: {self.numbers()[3]} of {processes} got ready")
            time.sleep(0.01)

    def numbers(self):
        """tried, passed, failed otherwise: each by kind; how many are ready."""
        found = struct.unpack_from(f"={3 * KINDS + 1}Q", self.page)
        return found[:KINDS], found[KINDS : 2 * KINDS], found[2 * KINDS : 3 * KINDS], found[-1]

    def tried(self):
        return sum(self.numbers()[0])

    def go(self):
        for child in self.children:
            os.kill(child, signal.SIGUSR1)

    def end(self, seconds=0.0):
        """Lets them finish by themselves when there are seconds for it; gives tried, passed, failed otherwise."""
        ends = time.monotonic() + seconds
        left = set(self.children)
        while left and time.monotonic() < ends:
            left = {child for child in left if not os.waitpid(child, os.WNOHANG)[0]}
            time.sleep(0.01)
        for child in left:
            os.kill(child, signal.SIGTERM)
        for child in left:
            os.waitpid(child, 0)
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        return self.numbers()[:3]


class Run:
    def __init__(self, place, enforcer, long):
        self.place, self.long, self.enforcer, self.in_force = place, long, enforcer, None
        rules = [rule for rule in place.policy()["rules"] if rule["name"] in ("files", "connect", "readers")]
        whole = place.policy()
        names = {name for rule in rules for name in rule["subjects"]}
        self.first = {
            "subjects": {name: body for name, body in whole["subjects"].items() if name in names},
            # what is covered moves only to where it is covered, too: decided is where a file is, not by which name it was found
            "resources": {
                "customers": whole["resources"]["customers"],
                "secret": {"paths": [*whole["resources"]["secret"]["paths"], place.base + "/deep/*/secret/**"]},
            },
            "destinations": {"vault": whole["destinations"]["vault"]},
            "rules": rules,
        }
        # the same and more
        self.second = {
            **self.first,
            "resources": {**self.first["resources"], "more": {"paths": [place.bin + "/**"]}},
            "rules": [*rules, {"name": "more", "deny": ["write"], "resources": ["more"], "subjects": ["alice"]}],
        }

    def apply(self, document):
        """True when that changed anything."""
        if document is self.in_force:
            return False
        self.in_force = document
        return self.enforcer.apply(document)["changed"]

    def without(self):
        self.apply({"rules": []})


def nothing_passed(numbers):
    tried, passed, _other = numbers
    assert not sum(passed), f"passed: {dict(enumerate(passed))} of {sum(tried)}"
    return sum(tried)


def everything_works(place, mode, number, processes=1, who="alice"):
    """Without a policy."""
    crowd = Crowd(place, mode, number, processes, who)
    crowd.go()
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        tried, passed = crowd.numbers()[:2]
        if sum(tried) >= (400 if mode == "operations" else number) and all(p or not t for t, p in zip(tried, passed)):
            break
        time.sleep(0.02)
    tried, passed, other = crowd.end()
    for kind in range(KINDS):
        assert not tried[kind] or passed[kind], (
            f"{mode} {kind} never passed without a policy: {tried}, {passed}, {other}"
        )
    return sum(passed)


@from_before
def random_operations(run):
    """Four tasks, while one policy replaces another: both deny everything that they try."""
    wanted, changes = (1_000_000, 200) if run.long else (4_000, 3)
    crowd = Crowd(run.place, "operations", EVERYTHING, 4)
    run.apply(run.first)
    crowd.go()
    done = 0
    os.setpriority(os.PRIO_PROCESS, 0, -19)  # or four tasks out of five are those that try
    try:
        while done < changes or crowd.tried() < wanted:
            if done < changes:
                assert run.apply(run.second if done % 2 == 0 else run.first)
                done += 1
            else:
                time.sleep(0.05)
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    return f"{nothing_passed(crowd.end())} operations by 4 tasks during {done} changes of policy: 0 passed"


def meanwhile(run, function, least):
    crowd = Crowd(run.place, "operations", FILES, 2)
    run.apply(run.first)
    crowd.go()
    turns, ends = 0, time.monotonic() + (60 if run.long else 3)
    while time.monotonic() < ends or turns < least:
        function(turns)
        turns += 1
    return nothing_passed(crowd.end()), turns


@storm
def renames(run):
    """What is covered moves within what is covered."""
    place = run.place
    for name in ("from", "deep"):
        os.makedirs(f"{place.secret_folder}/{name}", exist_ok=True)

    def rename(turn):
        names = (place.secret_folder + "/from", place.secret_folder + "/to")
        os.rename(names[turn % 2], names[1 - turn % 2])
        inner = (place.base + "/deep/inner", place.base + "/deep/other")
        if turn % 16 == 0:
            os.rename(*inner)
            os.rename(*reversed(inner))

    tried, turns = meanwhile(run, rename, 200)
    return f"{tried} operations during {turns} renames: 0 passed"


@storm
def mounts(run):
    def change(turn):
        mount(run.place.secret_folder, "/mnt", None, 0x1000)
        mount("tmpfs", run.place.open, "tmpfs")
        call("umount2", run.place.open, 2)
        call("umount2", "/mnt", 2)

    tried, turns = meanwhile(run, change, 50)
    return f"{tried} operations during {4 * turns} mounts and unmounts: 0 passed"


@storm
def fork_bomb(run):
    crowd = Crowd(run.place, "bomb", 300 if run.long else 100)
    run.apply(run.first)
    crowd.go()
    time.sleep(20 if run.long else 2)
    return f"{nothing_passed(crowd.end())} operations by children of children: 0 passed"


@storm
def full_ring_buffer(run):
    """Nobody reads the events: those that are lost are counted."""
    crowd = Crowd(run.place, "operations", 1, 2)
    run.apply(run.first)
    before = run.enforcer.totals()
    crowd.go()
    while crowd.tried() < 4000:
        time.sleep(0.02)
    tried = nothing_passed(crowd.end())
    after = run.enforcer.totals()
    assert after["denied"] - before["denied"] >= tried, (before, after, tried)
    assert after["lost"] > before["lost"], "the ring buffer was never full"
    return f"{tried} denials, {after['lost']} events lost and counted"


def crowd_from_before(run, kind, number):
    """A crowd that exists before the policy tries at once under it; gives how many tried. None of them may pass."""
    crowd = Crowd(run.place, kind, number)
    run.apply(run.first)
    crowd.go()
    tried = nothing_passed(crowd.end(300))
    assert tried == number, f"{tried} of {number} tried"
    return tried


@storm
def tasks(run):
    return f"{crowd_from_before(run, 'tasks', 10_000 if run.long else 1_000)} tasks at once: 0 passed"


@storm
def readers(run):
    """Each child of one that has read the customers' data carries the label."""
    number = 10_000 if run.long else 1_000
    run.apply(run.first)
    crowd = Crowd(run.place, "senders", number, who="bob")
    crowd.go()
    tried = nothing_passed(crowd.end(300))
    assert tried == number, f"{tried} of {number} tried"
    return f"{tried} labelled tasks at once: 0 passed"


@from_before
def open_files(run):
    tried = crowd_from_before(run, "files", 100_000 if run.long else 20_000)
    return f"{tried} descriptors opened before the policy: 0 read"


def controls(place):
    """Without a policy, before there is any."""
    for path in (
        place.secret,
        place.secret_folder + "/other",
        place.deep + "/data",
        place.exports + "/a.csv",
        place.customers,
    ):
        with open(path, "wb") as file:
            file.write(b"content\n")
        os.chmod(path, 0o666)
    if not os.path.lexists(place.open + "/to-secret"):
        os.symlink(place.secret, place.open + "/to-secret")
    for path, value in (
        ("/proc/sys/fs/nr_open", 1 << 21),
        ("/proc/sys/fs/file-max", 1 << 20),
        ("/proc/sys/kernel/pid_max", 1 << 17),
        ("/proc/sys/kernel/threads-max", 1 << 16),
    ):
        with open(path, "w", encoding="ascii") as file:
            file.write(str(value))
    return {
        mode: everything_works(place, mode, number, who=who)
        for mode, number, who in (
            ("operations", EVERYTHING, "alice"),
            ("tasks", 20, "alice"),
            ("files", 20, "alice"),
            ("senders", 20, "bob"),
        )
    }


def run(place, enforcer, long, loud):
    """What each storm came to, and what went wrong."""
    wrong, ended = [], {}
    one = Run(place, enforcer, long)
    for name, function in STORMS.items():
        if function in BEFORE:
            one.without()
        began = time.monotonic()
        try:
            said = function(one)
            totals = enforcer.totals()
            assert totals["written"] + totals["lost"] == totals["denied"] + totals["audited"], f"counters: {totals}"
        except Exception:
            said = traceback.format_exc(limit=-3)
            wrong.append(f"{name}: {said}")
        ended[name] = {"said": said, "seconds": round(time.monotonic() - began, 1)}
        if loud:
            sys.stderr.write(f"{name}: {said}\n")
    return ended, wrong
