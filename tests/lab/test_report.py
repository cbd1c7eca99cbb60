# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of the lab: its figures are those of the machines. With REPORT=FOLDER the page and the figures are left there."""

import json
import os
import shutil
from pathlib import Path

from machines import MACHINES, run

RULE = """  - name: alice leaves the tool alone, reported
    deny: [read]
    subjects: {users: [alice]}
    resources: {paths: [/srv/public/tool]}
"""


def test_the_figures_are_those_of_the_machines(lab, tmp_path):
    play = lab.folder / "audit.json"
    play.write_text(
        json.dumps(
            [
                {
                    "name": "Keep an audit trail",
                    "hosts": "guarded",
                    "gather_facts": False,
                    "become": True,
                    "tasks": [{"name": "The trail", "ansible.builtin.include_role": {"name": "exfil.guard.audit"}}],
                }
            ]
        )
    )
    done = lab.playbook(str(play))
    assert done.code == 0, done.text
    page = tmp_path / "report.html"
    try:
        assert lab.may("web1", "alice", "read:/srv/exports/customers.csv") == "denied"
        assert lab.may("web1", "alice", "tcp:192.168.157.200:443") == "denied"
        assert lab.may("db1", "alice", "execute:/srv/public/tool") == "denied"
        assert lab.may("db1", "alice", "read:/srv/public/readme.txt") == "ok"  # reported only
        lab.add_rule(RULE)  # in the templates, not in force: what a run would change
        before = {machine: lab.status(machine) for machine in MACHINES}
        done = lab.playbook("exfil.guard.report", "-e", "exfil_guard_report_file=%s" % page)
        assert done.code == 0, done.text
        after = {machine: lab.status(machine) for machine in MACHINES}
    finally:
        lab.playbook(str(play), "-e", "exfil_guard_state=absent")

    found = json.loads(page.with_suffix(".json").read_text())
    assert [host["name"] for host in found["hosts"]] == sorted(MACHINES)
    for host in found["hosts"]:
        status = before[host["name"]]
        assert host["state"] == "enforcing" and host["collector"] == "running" and host["plan"] == "would change"
        assert (host["generation"], host["kernel"], host["mode"]) == (
            status["generation"],
            status["kernel"],
            status["mode"],
        )
        assert (host["drift"], host["unenforced"]) == (len(status["drift"]), len(status["unenforced"]))
        assert after[host["name"]]["generation"] == status["generation"]  # nothing was changed
        for key, name in (("denied", "denied"), ("audited", "audited"), ("lost", "events_lost")):
            assert status["totals"][name] <= host[key] <= after[host["name"]]["totals"][name]
    assert [group["name"] for group in found["groups"] if group["hosts"] == 2] == ["guarded"]
    denied = {
        (row["host"], row["verdict"], row["object"]) for row in found["rows"] if row["subject"].startswith("alice")
    }
    assert {("web1", "denied", "/srv/exports/customers.csv"), ("db1", "audit", "/srv/public/readme.txt")} <= denied
    assert any(
        name.startswith("192.168.157.200") for name in (each["name"] for each in found["top"]["denied"]["destinations"])
    )
    assert "who reads what is published" in {each["name"] for each in found["top"]["audit"]["rules"]}
    planned = [change for entry in found["plan"]["entries"] for change in (entry["decisions"] or {}).get("changes", ())]
    assert {"stricter"} == {change["direction"] for change in planned}
    text = page.read_text()
    assert "alice leaves the tool alone, reported" in text and "/srv/exports/customers.csv" in text
    if os.environ.get("REPORT"):
        os.makedirs(os.environ["REPORT"], exist_ok=True)
        for path in (page, page.with_suffix(".json")):
            shutil.copy(path, Path(os.environ["REPORT"]))


def test_a_host_that_is_down(lab, tmp_path):
    page = tmp_path / "report.html"
    arguments = ("exfil.guard.report", "-e", "exfil_guard_report_file=%s" % page, "-e", "ansible_ssh_timeout=15")
    run("virsh", "-c", "qemu:///system", "suspend", "exfil-guard-db1")
    try:
        done = lab.playbook(*arguments)
    finally:
        run("virsh", "-c", "qemu:///system", "resume", "exfil-guard-db1")
    assert done.code == 0, done.text
    assert "2 hosts: 1 enforcing, 1 no answer" in done.text
    found = json.loads(page.with_suffix(".json").read_text())
    there = {host["name"]: host for host in found["hosts"]}
    assert {name: host["state"] for name, host in there.items()} == {"db1": "no answer", "web1": "enforcing"}
    (told,) = there["db1"]["attention"]
    assert "timed out" in told or "Timeout" in told  # by what of the connection was there already
    assert there["web1"]["generation"] == lab.status("web1")["generation"]
    text = page.read_text()
    assert told in text

    done = lab.playbook(*arguments)  # and when it is back
    assert done.code == 0 and "2 hosts: 2 enforcing" in done.text, done.text
