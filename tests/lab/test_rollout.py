# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout on virtual machines: it stops at a canary that fails and at one that can't be reached, the other machine is not
touched, and after the repair it goes on from there."""

import subprocess

from machines import CONFIRM, MACHINES, ROOT, run, wait

RULE = """  - name: {name}
    deny: [read]
    subjects: {{users: [alice]}}
    resources: {{paths: [/srv/public/tool]}}
"""
ROLLOUT = (
    "exfil.guard.rollout",
    "-e",
    '{"exfil_guard_waves": ["100%"]}',
    "-e",
    "exfil_guard_confirm_seconds=%d" % CONFIRM,
)
HEALTH = """- name: Look whether the service answers
  ansible.builtin.command:
    argv: [test, -e, /run/healthy]
  changed_when: false
"""


def test_a_canary_that_fails(lab):
    name = "alice leaves the tool alone, failed canary"
    lab.add_rule(RULE.format(name=name))
    health = lab.folder / "health.yml"
    health.write_text(HEALTH)
    for machine in MACHINES:
        lab.ssh(machine, "sudo rm -f /run/healthy")
    before = lab.generations()
    arguments = (*ROLLOUT, "-e", "exfil_guard_health_tasks=%s" % health)
    assert lab.may("web1", "alice", "read:/srv/public/tool") == "ok"

    found = lab.playbook(*arguments)
    assert found.code != 0
    assert lab.status("db1")["generation"] == before["db1"] and name not in lab.rules("db1")
    wait(CONFIRM + 60, lambda: name not in lab.rules("web1"), "web1 goes back to the policy before")
    assert lab.may("web1", "alice", "read:/srv/public/tool") == "ok"

    for machine in MACHINES:
        lab.ssh(machine, "sudo touch /run/healthy")
    found = lab.playbook(*arguments)
    assert found.code == 0, found.text
    for machine in MACHINES:
        assert name in lab.rules(machine)
        assert lab.may(machine, "alice", "read:/srv/public/tool") == "denied"
    wait(CONFIRM + 5, lambda: all(lab.status(machine)["deadline_seconds"] is None for machine in MACHINES), "confirmed")


def test_a_canary_that_can_not_be_reached(lab):
    name = "alice leaves the tool alone, unreachable canary"
    lab.add_rule(RULE.format(name=name))
    before = lab.generations()
    run("virsh", "-c", "qemu:///system", "suspend", "exfil-guard-web1")
    try:
        found = lab.playbook(*ROLLOUT, "-e", "ansible_ssh_timeout=15")
    finally:
        subprocess.run(["virsh", "-c", "qemu:///system", "resume", "exfil-guard-web1"], check=True, cwd=ROOT)
    assert found.code != 0
    assert "unreachable=1" in found.text.partition("PLAY RECAP")[2]
    assert lab.status("db1")["generation"] == before["db1"] and name not in lab.rules("db1")

    found = lab.playbook(*ROLLOUT)
    assert found.code == 0, found.text
    for machine in MACHINES:
        assert name in lab.rules(machine)
        assert lab.may(machine, "alice", "read:/srv/public/tool") == "denied"
