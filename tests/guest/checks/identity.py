# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task must not get rid of a rule by changing what the rule goes by: its cgroup, its groups, its login user, the clock."""

import os
import time

from harness.checks import EPERM, enforcer, story
from harness.process import ALICE, CAROL, DBA, in_child, write
from techniques.identity import clone_into
from techniques.registry import appears
from techniques.steps import NEWUSER, put
from techniques.syscalls import call, clock_adjtime

from checks.hooks import in_cgroup, only, secret
from checks.policy import RESOURCES, expect, look, rule

ROOT = "/sys/fs/cgroup"
UNIT, OTHER = ROOT + "/system.slice/exporter.service", ROOT + "/system.slice/other.service"


def moved(where, pid=None, name="cgroup.procs"):
    put(f"{where}/{name}", str(os.getpid() if pid is None else pid).encode())


def child_moved(where):
    """Moves a child, which waits, and then that reads."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reader, 1)
        try:
            look("/srv/secret/a")
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    try:
        moved(where, child)
    finally:
        os.write(writer, b"g")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(reader)
        os.close(writer)
    if status:
        raise OSError(status, os.strerror(status))


def cloned(where, operation=lambda: look("/srv/secret/a")):
    clone_into(where, operation)


def units():
    for path in (UNIT + "/below", OTHER):
        os.makedirs(path, exist_ok=True)


def attempts(member, wanted):
    """Of a member of a cgroup to leave it."""
    for where in (ROOT, OTHER):
        before = in_cgroup(member)
        expect(in_child(lambda w=where: moved(w), before=before), wanted, f"moves to {where}")
        expect(in_child(lambda w=where: moved(w, 0), before=before), wanted, f"moves itself to {where}")
        expect(in_child(lambda w=where: child_moved(w), before=before), wanted, f"moves a child to {where}")
        expect(in_child(lambda w=where: cloned(w), before=before), wanted, f"clones into {where}")
        twice = in_child(lambda w=where: cloned(OTHER, lambda: cloned(w)), before=before)
        expect(twice, wanted, f"clones twice into {where}")
        back = in_child(lambda w=where: cloned(w, lambda: (moved(OTHER), look("/srv/secret/a"))), before=before)
        expect(back, wanted, f"clones into {where} and moves")

        descriptor = os.open(where + "/cgroup.procs", os.O_WRONLY)  # by a task that is not bound
        expect(in_child(lambda d=descriptor: os.write(d, b"0"), before=before), wanted, f"an open file of {where}")
        os.close(descriptor)


@story
def a_task_does_not_leave_its_service():
    units()
    policy = only("service", {"services": ["exporter.service"]})
    enforcer.apply({**policy, "mode": "audit"})
    attempts(UNIT, 0)
    enforcer.apply(policy)
    attempts(UNIT, EPERM)
    attempts(UNIT + "/below", EPERM)
    for name, operation in (
        ("moves below", lambda: moved(UNIT + "/below")),
        ("clones below", lambda: cloned(UNIT + "/below", lambda: None)),
        ("forks", lambda: expect(in_child(lambda: None), 0, "a child")),
    ):
        expect(in_child(operation, before=in_cgroup(UNIT)), 0, name)
    expect(in_child(lambda: cloned(OTHER), before=in_cgroup(OTHER)), 0, "another service clones")
    expect(in_child(lambda: cloned(UNIT), before=in_cgroup(OTHER)), EPERM, "cloned into the service")
    expect(in_child(lambda: moved(ROOT), before=in_cgroup(OTHER)), 0, "another service moves")
    # the policy changes, and names the service as before
    reader, writer = os.pipe()

    def waits():
        os.read(reader, 1)
        look("/srv/secret/a")

    child = os.fork()
    if child == 0:
        in_cgroup(UNIT)()
        try:
            cloned(OTHER, waits)
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    time.sleep(0.3)
    enforcer.apply(only("again", {"services": ["exporter.service"]}))
    os.write(writer, b"g")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    expect(status, EPERM, "cloned before the policy changed")


@story
def a_task_does_not_enter_an_exception():
    units()
    policy = {
        "subjects": {"exporter": {"services": ["exporter.service"]}},
        "resources": {"secret": RESOURCES["secret"]},
        "rules": [rule("all but the exporter", ["read"], resources=["secret"], **{"except": ["exporter"]})],
    }
    enforcer.apply({**policy, "mode": "audit"})
    attempts_to_enter(0)
    enforcer.apply(policy)
    attempts_to_enter(EPERM)
    expect(in_child(lambda: moved(OTHER)), 0, "a move that changes nothing")


def attempts_to_enter(wanted):
    def enters():
        moved(UNIT)
        look("/srv/secret/a")

    expect(in_child(enters), wanted, "moves into the exception")
    expect(in_child(lambda: child_moved(UNIT)), wanted, "moves a child into the exception")
    expect(in_child(lambda: cloned(UNIT)), wanted, "clones into the exception")
    expect(in_child(lambda: cloned(UNIT, lambda: cloned(UNIT))), wanted, "clones twice")


def by_the_first_process(command):
    """What a command ended with that a child of the host's first process ran, as systemd runs a unit's."""
    said = "/run/said"
    if os.path.exists(said):
        os.unlink(said)
    with open("/run/first-process", "w", encoding="ascii") as fifo:
        fifo.write(f"({command}; echo $? >{said}.new; mv {said}.new {said}) &\n")
    appears(said)
    with open(said, encoding="ascii") as file:
        return int(file.read())


@story
def the_first_process_starts_services():
    units()
    enforcer.apply(
        {
            "subjects": {"exporter": {"services": ["exporter.service"]}},
            "resources": {"secret": RESOURCES["secret"]},
            "rules": [rule("all but the exporter", ["read"], resources=["secret"], **{"except": ["exporter"]})],
        }
    )
    enter, read = f"echo 0 >{UNIT}/cgroup.procs", "cat /srv/secret/a >/dev/null"
    expect(by_the_first_process(f"{enter} && {read}"), 0, "a child that moves itself")
    expect(by_the_first_process(f"sh -c '{enter} && {read}'"), 1, "a child of that child")
    expect(by_the_first_process(f"(exec sh -c '{enter} && {read}')"), 1, "a program of that child's child")
    expect(by_the_first_process(read), 1, "a child that stays")
    with open("/run/first-process", "w", encoding="ascii") as fifo:  # a child that executes first
        fifo.write(f"exec 4>/run/executed; sh -c '{enter} && {read} && echo in >&4' & wait $!; exec 4>&-\n")
    expect(by_the_first_process("cat /run/executed | grep -q in"), 0, "a child that executes a program before it moves")
    expect(by_the_first_process(f"echo 0 >{OTHER}/cgroup.procs && echo 0 >{UNIT}/cgroup.procs"), 1, "moved already")


def mapped(operation):
    """alice's groups are dropped in a user namespace with subordinate numbers, as newgidmap makes it."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        status = 254
        try:
            os.setgroups([50, DBA])
            os.setresgid(ALICE, ALICE, ALICE)
            os.setresuid(ALICE, ALICE, ALICE)
            call("prctl", 4, 1, 0, 0, 0)
            call("unshare", NEWUSER)
            os.write(ready[1], b"r")
            os.read(go[0], 1)
            operation()
            status = 0
        except OSError as error:
            status = error.errno or 255
        finally:
            os._exit(status)
    os.read(ready[0], 1)
    write(f"/proc/{child}/uid_map", "0 100000 65536")
    write(f"/proc/{child}/gid_map", "0 100000 65536")
    os.write(go[1], b"g")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for end in (*ready, *go):
        os.close(end)
    return status


def drops(then=lambda: None):
    def operation():
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        then()
        look("/srv/secret/a")

    return operation


def nested():
    call("unshare", NEWUSER)


@story
def dropped_groups_still_bind():
    policy = only("group", {"groups": ["dba"]})
    enforcer.apply({**policy, "mode": "audit"})
    expect(mapped(drops()), 0, "audit")
    enforcer.apply(policy)
    expect(mapped(drops()), EPERM, "drops")
    expect(mapped(lambda: expect(in_child(drops()), EPERM, "a child drops")), 0, "a child")
    expect(mapped(drops(lambda: expect(in_child(lambda: look("/srv/secret/a")), EPERM, "a child"))), EPERM, "before")
    expect(mapped(drops(nested)), EPERM, "in a namespace below")

    def as_service():
        os.setgroups([])
        os.setresgid(DBA, DBA, DBA)
        os.setresuid(CAROL, CAROL, CAROL)

    expect(secret(before=as_service), EPERM, "the group alone")
    expect(secret(user=CAROL), 0, "root drops its groups on purpose")


@story
def a_login_user_is_not_chosen():
    policy = {
        "subjects": {"carol": {"users": ["alice"], "login_users": ["carol"]}},
        "resources": {"secret": RESOURCES["secret"]},
        "rules": [rule("all but carol's", ["read"], resources=["secret"], **{"except": ["carol"]})],
    }

    def chooses():
        put("/proc/self/loginuid", str(CAROL).encode())
        look("/srv/secret/a")

    enforcer.apply({**policy, "mode": "audit"})
    expect(in_child(chooses, user=ALICE), 0, "audit")
    enforcer.apply(policy)
    expect(in_child(chooses, user=ALICE), EPERM, "alice")
    session = in_child(
        lambda: look("/srv/secret/a"), user=ALICE, before=lambda: write("/proc/self/loginuid", str(CAROL))
    )
    expect(session, 0, "root starts a session")
    enforcer.apply(only("login", {"login_users": ["carol"]}))

    def changes():
        put("/proc/self/loginuid", b"4294967295")

    carol = lambda: write("/proc/self/loginuid", str(CAROL))  # noqa: E731
    expect(in_child(changes, before=carol), EPERM, "a set login user")
    enforcer.apply({**only("login", {"login_users": ["carol"]}), "mode": "audit"})
    expect(in_child(changes, before=carol), 0, "a set login user, audit")


@story
def who_is_bound_does_not_set_the_clock():
    def sets():
        time.clock_settime(time.CLOCK_REALTIME, time.time())

    def adjusts():
        clock_adjtime(0)

    units()
    member = in_cgroup(UNIT)
    policy = only("service", {"services": ["exporter.service"]}, expires="2099-01-01")
    for document, wanted, what in (
        ({**policy, "mode": "audit"}, 0, "audit"),
        (policy, EPERM, "enforced"),
        (only("service", {"services": ["exporter.service"]}), 0, "no rule expires"),
    ):
        enforcer.apply(document)
        expect(in_child(sets, before=member), wanted, f"clock_settime, {what}")
        expect(in_child(adjusts, before=member), wanted, f"adjtimex, {what}")
        expect(in_child(sets), 0, f"another task, {what}")
        expect(in_child(adjusts), 0, f"another task, {what}")
