# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks before, beside and after a merge, run by Ansible itself: no target, targets that do not answer, and
targets whose module is a stand-in that answers what a test says."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ansible_collections.exfil.guard.plugins.plugin_utils._language import document as _document
from ansible_collections.exfil.guard.plugins.plugin_utils._plan import plan, validation

ROOT = Path(__file__).resolve().parents[3]
TODAY = datetime.date(2026, 6, 1)
POLICY = """policy: 1
destinations:
  corp: {cidrs: {{ networks | to_json }}}
rules:
  - name: inside only
    deny: [connect, send]
    destinations: {not: [corp, loopback]}
assertions:
  - {user: alice, action: connect, address: 198.51.100.7, expect: {{ expect }}}
  - {user: alice, action: connect, address: 10.0.0.1, expect: allow}
"""
# answers with what lies in the folder that the host has for its temporary files
STAND_IN = """
import json, os
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(argument_spec={key: {"type": "raw"} for key in (
    "state", "policies", "confirm_seconds", "document", "package_digest", "package", "confirm", "soak", "revision")},
    supports_check_mode=True)
assert module.check_mode
with open(os.path.join(module._remote_tmp, "answer.json")) as file:
    module.exit_json(**json.load(file))
"""
SAME = {
    "changed": False,
    "pending": False,
    "drift": [],
    "renewal": [],
    "unsettled": [],
    "unenforced": [],
    "document_before": None,
    "diff": {"prepared": ""},
}


def document(cidr):
    return {
        "policy": 1,
        "mode": "enforce",
        "boot": "best-effort",
        "subjects": {},
        "resources": {},
        "destinations": {"corp": {"cidrs": [cidr]}, "loopback": _document.BUILT_IN["loopback"]},
        "assertions": [],
        "rules": [{"name": "inside only", "deny": ["connect", "send"], "destinations": {"not": ["corp", "loopback"]}}],
    }


class Site:
    """An inventory, a policy, and the collection with a stand-in for the module that reaches into the kernel."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hosts = folder, {}
        guard = folder / "collections" / "ansible_collections" / "exfil" / "guard"
        (guard / "plugins" / "modules").mkdir(parents=True)
        links = ROOT / "collections" / "ansible_collections" / "exfil" / "guard"
        for each in links.iterdir():
            if each.name != "plugins":
                (guard / each.name).symlink_to(each.resolve())
        for each in (ROOT / "plugins").iterdir():
            if each.name not in ("modules", "__pycache__"):
                (guard / "plugins" / each.name).symlink_to(each)
        for each in (ROOT / "plugins" / "modules").iterdir():
            if each.suffix == ".py":
                (guard / "plugins" / "modules" / each.name).symlink_to(each)
        (guard / "plugins" / "modules" / "policy.py").unlink()
        (guard / "plugins" / "modules" / "policy.py").write_text(STAND_IN)
        (folder / "policies").mkdir()
        (folder / "policies" / "all.yml.j2").write_text(POLICY)

    def host(self, name, answer=None, **variables):
        tmp = self.folder / "tmp" / name
        tmp.mkdir(parents=True)
        self.hosts[name] = {
            "ansible_connection": "local",
            "ansible_remote_tmp": str(tmp),
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "networks": ["10.0.0.0/8"],
            "expect": "deny",
            **variables,
        }
        (tmp / "answer.json").write_text(json.dumps({**SAME, **(answer or {})}))

    def unreachable(self, name):
        self.host(name, ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)

    def run(self, playbook, *more, callback="exfil.guard.plan", **environment):
        inventory = self.folder / "hosts.json"
        inventory.write_text(json.dumps({"all": {"children": {"guarded": {"hosts": self.hosts}}}}))
        (self.folder / "ansible.cfg").write_text("[defaults]\nforks = 4\nhost_key_checking = false\n")
        return subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), playbook, *more],
            cwd=self.folder, capture_output=True, text=True, timeout=300,
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"), "NO_COLOR": "1",
                 "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": callback, **environment},
        )  # fmt: skip


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


# ---- before the merge ---------------------------------------------------------------------------------------------


def validated(site, *more):
    return site.run("exfil.guard.validate", *more, callback="default")


def test_policies_are_validated_without_a_host(site):
    for name in ("web1", "web2"):
        site.unreachable(name)
    done = validated(site, "-e", f"exfil_guard_junit={site.folder}/found.xml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 hosts: 2 valid with 1 different policy, 0 not valid; 4 of 4 assertions hold" in done.stdout
    root = ElementTree.parse(site.folder / "found.xml").getroot()
    assert [suite.get("name") for suite in root] == ["web1", "web2"]
    assert (root.get("tests"), root.get("failures")) == ("6", "0")
    assert [case.get("name") for case in root[0]] == [
        "the policy is valid",
        "alice: connect 10.0.0.1 port 443/tcp: allow",
        "alice: connect 198.51.100.7 port 443/tcp: deny",
    ]


def test_every_problem_is_told_once_with_its_hosts(site):
    site.unreachable("good")
    for name in ("db1", "db2"):
        site.host(name, expect="allow")
    site.host("odd", networks=["10.0.0.1/8", "x"])
    done = validated(site, "-e", f"exfil_guard_junit={site.folder}/found.xml")
    told = done.stdout
    assert done.returncode == 2 and "Traceback" not in told + done.stderr
    assert "4 hosts: 1 valid with 1 different policy, 3 not valid; 4 of 6 assertions hold" in told
    report = told.split("TASK")[1].split("[ERROR]")[0]
    assert (
        report.count("NOT VALID") == 2 and "NOT VALID  db1, db2\n  - policies/all.yml.j2:9: $.assertions[0]: " in report
    )
    assert "NOT VALID  odd\n  - policies/all.yml.j2:3: $.destinations.corp.cidrs[0]: found '10.0.0.1/8'" in report
    assert "$.destinations.corp.cidrs[1]: found 'x'" in report
    root = ElementTree.parse(site.folder / "found.xml").getroot()
    assert root.get("failures") == "3"
    failures = {
        suite.get("name"): [case.get("name") for case in suite if case.find("failure") is not None] for suite in root
    }
    assert failures == {
        "good": [],
        "odd": ["the policy is valid"],
        **{name: ["alice: connect 198.51.100.7 port 443/tcp: allow"] for name in ("db1", "db2")},
    }


def test_a_file_that_cant_be_written_is_told(site):
    site.unreachable("web1")
    done = validated(site, "-e", "exfil_guard_junit=/nonexistent/found.xml")
    assert (
        done.returncode == 2
        and "the JUnit file /nonexistent/found.xml cannot be written: " in done.stdout + done.stderr
    )
    assert "Traceback" not in done.stdout + done.stderr


def test_control_characters_do_not_break_the_xml():
    checked = {"h\x01": validation.Checked("", (validation.Case("a\x00<&>", ("b\ud800]]>",)),))}
    root = ElementTree.fromstring(validation.junit(checked))
    assert root[0][0].get("name") == "a\ufffd<&>" and root[0][0][0].text == "b\ufffd]]>"


def test_who_may_do_what_is_answered_without_the_host(site):
    site.unreachable("web1")
    play = [
        {
            "hosts": "all",
            "gather_facts": False,
            "tasks": [
                {"exfil.guard.explain": {"address": "198.51.100.7", "action": "connect"}},
                {"exfil.guard.explain": {"user": "alice", "address": "10.0.0.1"}},
                {"exfil.guard.explain": {"user": "alice"}, "ignore_errors": True},
                {"exfil.guard.explain": {"groups": ["dba"], "path": "/x"}, "ignore_errors": True},
            ],
        }
    ]
    (site.folder / "play.json").write_text(json.dumps(play))
    done = site.run("play.json", "-v", callback="default", ANSIBLE_CALLBACK_RESULT_FORMAT="yaml")
    assert "denied to   everyone: rule 'inside only'" in done.stdout
    assert "allow connect 10.0.0.1 port 443/tcp" in done.stdout
    assert "a path, an address or an action without an object is required. " in done.stdout
    assert "missing parameter(s) required by 'groups': user" in done.stdout
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr


# ---- the plan -----------------------------------------------------------------------------------------------------


CHANGE = {
    "changed": True,
    "pending": True,
    "document_before": document("10.0.0.0/9"),
    "diff": {"prepared": "~ destination corp\n    - cidrs: 10.0.0.0/9\n    + cidrs: 10.0.0.0/8\npolicy: aa -> bb\n"},
}


def test_no_change_is_status_0(site):
    site.host("web1")
    done = site.run("exfil.guard.plan")
    assert (done.returncode, done.stdout.strip()) == (0, "Plan of 1 host: 1 in order, 0 would change, 0 failed")


def test_a_change_is_status_2_and_equal_hosts_are_one(site):
    for name in ("web1", "web2", "web3", "web4"):
        site.host(name, CHANGE if name != "web3" else None)
    done = site.run(
        "exfil.guard.plan",
        EXFIL_GUARD_PLAN_JSON=str(site.folder / "plan.json"),
        EXFIL_GUARD_PLAN_MARKDOWN=str(site.folder / "plan.md"),
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout.strip().splitlines() == [
        "Plan of 4 hosts: 1 in order, 3 would change, 0 failed",
        "",
        "web1, web2, web4 (3 hosts)",
        "  weaker",
        "    connect, send: everyone → corp (after), as 10.128.0.0 port 443/tcp: deny → allow (rule 'inside only')",
        "  ~ destination corp",
        "      - cidrs: 10.0.0.0/9",
        "      + cidrs: 10.0.0.0/8",
    ]
    data = json.loads((site.folder / "plan.json").read_text())
    assert data["status"] == 2 and [each["hosts"] for each in data["entries"]] == [["web1", "web2", "web4"], ["web3"]]
    assert data["entries"][0]["decisions"]["changes"][0]["direction"] == "weaker"
    assert data["entries"][0]["decisions"]["examples"] == ["connect", "send"]
    marked = (site.folder / "plan.md").read_text()
    assert marked.startswith("### Plan of 4 hosts") and "🔓 **weaker** connect, send: everyone" in marked
    assert "```diff\n~ destination corp\n" in marked


def test_a_host_that_does_not_answer_is_status_1(site):
    site.host("web1", CHANGE)
    site.unreachable("web2")
    site.host("web3", networks=["nonsense"])
    done = site.run("exfil.guard.plan")
    assert done.returncode == 1
    lines = done.stdout.strip().splitlines()
    assert lines[0] == "Plan of 3 hosts: 0 in order, 1 would change, 2 failed"
    assert "web2" in lines and "web3" in lines and "Traceback" not in done.stdout + done.stderr
    assert any(line.startswith("  FAILED  unreachable: ") for line in lines)
    assert any("$.destinations.corp.cidrs[0]: found 'nonsense'" in line for line in lines)


def test_a_plan_that_cant_be_written_is_status_1(site):
    site.host("web1")
    done = site.run("exfil.guard.plan", EXFIL_GUARD_PLAN_JSON="/nonexistent/plan.json")
    assert done.returncode == 1 and "/nonexistent/plan.json cannot be written" in done.stderr


def test_without_the_callback_it_stops(site):
    site.host("web1", CHANGE)
    done = site.run("exfil.guard.plan", callback="default")
    assert done.returncode == 2 and "Run with ANSIBLE_STDOUT_CALLBACK=exfil.guard.plan" in done.stdout + done.stderr
    done = site.run("exfil.guard.plan", callback="default", ANSIBLE_CALLBACKS_ENABLED="exfil.guard.plan")
    assert done.returncode == 2 and "PLAY RECAP" in done.stdout and "  weaker\n" in done.stdout


def test_other_plays_are_left_alone(site):
    site.host("web1", CHANGE)
    (site.folder / "play.json").write_text(
        json.dumps(
            [{"hosts": "all", "gather_facts": False, "check_mode": True, "tasks": [{"exfil.guard.policy": None}]}]
        )
    )
    done = site.run("play.json", callback="default", ANSIBLE_CALLBACKS_ENABLED="exfil.guard.plan")
    assert done.returncode == 0 and "Plan of" not in done.stdout


def test_drift_and_what_is_pending_are_told_apart(site):
    site.host("web1", dict(CHANGE, drift=["hook file_open is not attached"]))
    site.host("web2", CHANGE)
    site.host("web3", {"changed": True, "renewal": ["~ subject dba: means something else on this host now (groups)"]})
    site.host("web4")
    done = site.run("exfil.guard.drift")
    assert done.returncode == 2
    assert done.stdout.strip().splitlines() == [
        "Drift of 4 hosts: 1 in order, 1 drifted, 2 with a pending change, 1 to renew, 0 on trial, 0 failed",
        "",
        "web1",
        "  DRIFT  hook file_open is not attached",
        "  PENDING  the templates' policy differs from the host's: see playbooks/plan.yml",
        "",
        "web2",
        "  PENDING  the templates' policy differs from the host's: see playbooks/plan.yml",
        "",
        "web3",
        "  RENEWAL  ~ subject dba: means something else on this host now (groups)",
    ]


# ---- a thousand hosts -----------------------------------------------------------------------------------------------


def fleet(size, differing=False):
    """One changed rule. ``differing``: every host has a document of its own."""
    answers = {}
    for number in range(size):
        before, after = document("10.0.0.0/9"), document("10.0.0.0/8")
        for each in (before, after) if differing else ():
            each["destinations"]["own"] = {"cidrs": [f"10.1.{number // 256}.{number % 256}/32"]}
        answers[f"host{number:04}.example.com"] = dict(CHANGE, document_before=before, document_after=after)
    return answers


@pytest.mark.parametrize("differing", [False, True])
def test_one_changed_rule_over_a_thousand_hosts_fits_one_screen(differing):
    asked = []
    comparer = plan.Comparer(TODAY, lambda *of: asked.append(of) or plan._compare.compare(*of))
    begun = time.monotonic()
    entries = plan.group({host: plan.host_result([each], comparer) for host, each in fleet(1000, differing).items()})
    took = time.monotonic() - begun
    for told in (plan.text("plan", entries), plan.markdown("plan", entries)):
        assert len(told.splitlines()) <= 24 and max(map(len, told.splitlines())) <= 160
    assert (
        "host0000.example.com, host0001.example.com, host0002.example.com and 997 more (1,000 hosts)"
        in told.replace("\\", "")
    )
    assert len(asked) == (1000 if differing else 1)  # equal policies are compared once
    assert took < 60
    data = plan.data("plan", entries)
    assert (
        len(data["entries"]) == 1 and len(data["entries"][0]["hosts"]) == 1000 and plan.status(entries) == plan.CHANGE
    )


def test_a_document_of_another_release_is_no_traceback():
    comparer = plan.Comparer(TODAY)
    found = comparer(dict(document("10.0.0.0/8"), rules=[{"name": "x"}]), document("10.0.0.0/8"))
    assert found.failed
    entries = plan.group({"h": plan.HostResult(changed=True, compared=found)})
    assert "the decisions of both policies could not be compared: " in plan.text("plan", entries)


def test_a_name_is_no_markup():
    entries = plan.group({"h": plan.HostResult(changed=True, drift=("a <b> `c` [d](e) *f*",), lines=("````", "x"))})
    marked = plan.markdown("plan", entries)
    assert "a \\<b\\> \\`c\\` \\[d\\](e) \\*f\\*" in marked and "`````diff\n````\nx\n`````" in marked


def test_taking_a_policy_out_is_weaker():
    seen = plan.host_result([{"changed": True, "document_before": document("10.0.0.0/8")}], plan.Comparer(TODAY))
    assert {each.direction for each in seen.compared.changes} == {"weaker"}


def test_nobody_is_an_error():
    assert plan.status([]) == plan.ERROR
    assert _document.digest(plan._NO_POLICY) != _document.digest(document("10.0.0.0/8"))
