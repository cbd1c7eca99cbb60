# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime

from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.system import System
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import administration, lockout
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy.model import Location
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import resolver
from fake_system import FakeSystem

NOW = datetime.date(2026, 6, 1)


def warned(subjects, *rules, mode="enforce", **me):
    system = FakeSystem()
    system.me.update(me)
    document = {"policy": 1, "mode": mode, "subjects": subjects, "rules": list(rules)}
    return lockout.locked_out(resolver.resolve(document, system), system, NOW)


def rule(*deny, **more):
    return dict({"name": "one", "deny": list(deny) or ["mount"]}, **more)


def test_whom_a_rule_names_is_warned():
    found = warned({"root": {"users": ["root"]}}, rule(subjects=["root"]))
    assert len(found) == 1 and found[0].startswith("rule 'one' names subjects and binds the task that applies it")
    assert warned({"alice": {"users": ["alice"]}}, rule(subjects=["alice"])) == []
    assert warned({"root": {"users": ["root"]}}, rule(subjects=["root"], **{"except": ["root"]})) == []
    assert warned({"root": {"users": ["root"]}}, rule(subjects=["root"]), mode="audit") == []
    assert warned({"root": {"users": ["root"]}}, rule(subjects=["root"], expires="2026-06-01")) == []


def test_by_whatever_it_is_known():
    logged_in = {"who": {"login_users": ["alice"]}}
    assert warned(logged_in, rule(subjects=["who"]), loginuid="1000")
    assert not warned(logged_in, rule(subjects=["who"]), loginuid="1001")
    group = {"who": {"groups": ["dba"]}}
    assert warned(group, rule(subjects=["who"]), status="Uid:\t0 0 0 0\nGid:\t0 0 0 0\nGroups:\t7 500\n")
    assert not warned(group, rule(subjects=["who"]))
    program = {"who": {"executables": ["/usr/bin/cat"]}}
    assert warned(program, rule(subjects=["who"]))
    assert not warned(program, rule(subjects=["who"]), executable="/srv/exports")


def test_a_rule_for_everyone_locks_out_when_it_denies_what_a_change_needs():
    found = warned({}, rule("bpf", "mount", "cap-sys-admin"))
    assert len(found) == 1 and "denies bpf, cap-sys-admin to the task that applies it" in found[0]
    assert warned({}, rule("mount")) == []


def test_this_process():
    task = lockout.task(System())
    assert task.users and task.groups >= task.memberships
    assert isinstance(task.executable, Location) and task.executable.device != layout.ABSTRACT


# ---- a user whom a rule on files binds, and who is an administrator -------------------------------------------------


class Members(FakeSystem):
    def memberships(self, number):
        return frozenset({number, 27} if number == 1000 else {number})


def advised(*rules, **subjects):
    system = Members()
    system.teams["sudo"] = 27
    document = {
        "policy": 1,
        "mode": "enforce",
        "subjects": {name: {"users": users} for name, users in subjects.items()},
        "resources": {"r": {"paths": ["/srv/**"]}},
        "destinations": {"d": {"cidrs": ["10.0.0.0/8"]}},
        "rules": list(rules),
    }
    return administration.advice(resolver.resolve(document, system), system, NOW)


def test_an_administrator_gets_at_the_files_as_root():
    reads = rule("read", resources=["r"], subjects=["s"])
    (line,) = advised(reads, s=["alice", "bob"])
    assert line.startswith("rule 'one' binds alice, who is a member of sudo and gets at the files as root")
    assert advised(reads, s=["bob"]) == []
    assert advised({**reads, "subjects": ["s", "t"]}, s=["alice"], t=["root"]) == []
    assert advised({**reads, "expires": "2026-06-01"}, s=["alice"]) == []
    assert advised(rule("connect", destinations=["d"], subjects=["s"]), s=["alice"]) == []
