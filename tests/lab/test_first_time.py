# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual machine that has never seen us: check mode changes nothing and tells what role audit then does, task by task and line by
line; afterwards everything is removed again, as check mode told."""

import json
import re

import pytest
from machines import Lab
from test_observe import LISTED, MACHINE

KEPT = {
    "exfil_guard_audit_json_lines": "/var/log/exfil-guard.jsonl",
    "exfil_guard_audit_metrics": "/var/log/exfil_guard.prom",
}


@pytest.fixture(name="lab")
def fixture_lab(tmp_path):
    return Lab(tmp_path)


def state(lab):
    """Packages, files, units, and what is pinned. systemd's own programs come and go with its units."""
    return {command: lab.ssh(MACHINE, command) for command in (*LISTED[2:], "sudo ls /sys/fs/bpf")}


def play(lab, roles, *arguments, **variables):
    path = lab.folder / "first.json"
    path.write_text(
        json.dumps(
            [
                {
                    "name": "Guard",
                    "hosts": MACHINE,
                    "gather_facts": False,
                    "become": True,
                    "vars": variables,
                    "tasks": [
                        {"name": role, "ansible.builtin.include_role": {"name": "exfil.guard." + role}}
                        for role in roles
                    ],
                }
            ]
        )
    )
    done = lab.playbook(str(path), "--diff", *arguments)
    assert done.code == 0, done.text
    return done.text


def told(text, role):
    """Of each task that changes something: how often, and the lines of its diff."""
    found = {}
    for part in re.split(r"^TASK \[", text.partition("PLAY RECAP")[0], flags=re.MULTILINE)[1:]:
        name = part.partition("]")[0]
        times = len(re.findall(r"^changed: ", part, re.MULTILINE))
        if times and name.startswith("exfil.guard.%s : " % role):
            found[name.partition(" : ")[2]] = (
                times,
                [line for line in part.splitlines() if re.match(r"[+-](?![+-]{2} )", line)],
            )
    return found


STARTED = {
    "Start the audit unit, or restart it if it changed": "Report that the audit unit would be started",
    "Start the metrics timer, or restart it if it changed": "Report that the metrics timer would be started",
}


def as_check_mode_says(found):
    """What is started has a task of its own in check mode, as systemd does not know the unit yet."""
    return {
        STARTED.get(name, name): (times, [] if name in STARTED else lines) for name, (times, lines) in found.items()
    }


def test_check_mode_tells_what_a_run_does(lab):
    roles = ("enforcer", "policy", "audit")
    before = state(lab)
    try:
        would = play(lab, roles, "--check", **KEPT)
        assert state(lab) == before
        did = play(lab, roles, **KEPT)
        print(json.dumps([told(would, "audit"), told(did, "audit")], indent=1))
        assert told(would, "audit") == as_check_mode_says(told(did, "audit")) != {}
        assert lab.may(MACHINE, "alice", "read:/srv/exports/customers.csv") == "denied"
        assert (
            lab.ssh(MACHINE, "systemctl is-active exfil-guard-audit.service exfil-guard-metrics.timer").split()
            == ["active"] * 2
        )
        for again in (("--check",), ()):
            assert "changed=0" in play(lab, roles, *again, **KEPT)
    finally:
        gone = ("audit", "enforcer")
        would = play(lab, gone, "--check", **KEPT, exfil_guard_state="absent")
        did = play(lab, gone, **KEPT, exfil_guard_state="absent")
        lab.ssh(MACHINE, "sudo rm -f /var/log/exfil-guard.jsonl /var/log/exfil_guard.prom")  # what it wrote stays
    assert told(would, "audit") == told(did, "audit") != {}
    assert state(lab) == before
    assert lab.may(MACHINE, "alice", "read:/srv/exports/customers.csv") == "ok"
