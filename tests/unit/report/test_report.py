# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a fleet: its figures, its page as a parser and a script engine take it, and the playbook that makes it."""

import base64
import hashlib
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.exfil.guard.plugins.filter.fleet_report import fleet_report
from ansible_collections.exfil.guard.plugins.plugin_utils._report import figures
from ansible_collections.exfil.guard.plugins.plugin_utils._report import page as _page

ROOT = Path(__file__).resolve().parents[3]
NOW = "2026-11-28T12:00:00+00:00"


def status(**parts):
    return {
        "installed": True,
        "running": True,
        "in_force": True,
        "mode": "enforce",
        "generation": 3,
        "kernel": "6.1.0",
        "revision": "a" * 40,
        "totals": {"denied": 7, "audited": 1, "events_lost": 0},
        "certificate": {"policy": {"generation": 3}, "not_proved": []},
        "audit": {"running": True},
        "problems": [],
        "unenforced": [],
        "drift": [],
        **parts,
    }


def record(at="2026-11-28T10:00:00.000+00:00", count=1, **parts):
    return {
        "kind": "decision",
        "time": at,
        "last_time": at,
        "count": count,
        "verdict": "denied",
        "rule": "customers",
        "user": "alice",
        "uid": 1,
        "executable": "/usr/bin/cat",
        "action": "read",
        "path": "/srv/a",
        "object": "/srv/a",
        **parts,
    }


def report(plan=None, **answers):
    return figures.report(
        {name: {"groups": ["web"], "status": status(), **each} for name, each in answers.items()}, NOW, plan
    )


# ---- figures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts, state",
    [
        ({}, "enforcing"),
        ({"mode": "audit"}, "reporting only"),
        ({"in_force": False}, "not guarded"),
        ({"running": False}, "not guarded"),
        ({"installed": False}, "not guarded"),
    ],
)
def test_the_state_of_a_host(parts, state):
    found = report(web1={"status": status(**parts)})
    assert found["hosts"][0]["state"] == state and found["states"] == {state: 1}


def test_a_host_that_gave_no_answer():
    found = report(web1={"status": None, "message": "Failed to connect"}, web2={"status": None})
    assert [(host["state"], host["attention"]) for host in found["hosts"]] == [
        ("no answer", ["Failed to connect"]),
        ("no answer", ["the host was not reached"]),
    ]


def test_what_needs_attention():
    parts = {
        "problems": ["p"],
        "unenforced": ["u"],
        "drift": ["d"],
        "pending": True,
        "soak": True,
        "hardlinks": ["h"],
        "paths": ["q"],
        "certificate": {"policy": {"generation": 2}, "not_proved": ["n"]},
        "audit": None,
    }
    host = report(web1={"status": status(**parts), "message": "no journal"})["hosts"][0]
    assert host["attention"] == [
        "p",
        "not enforced: u",
        "drift: d",
        "the policy is on trial and not confirmed",
        "new and changed rules are in audit mode",
        "hard link: h",
        "path: q",
        "not proved: n",
        "no audit trail: no journal",
    ]
    assert host["certificate"] == "of generation 2, not of the current one" and host["collector"] == "none"


def test_denials_over_time_and_by_what():
    found = report(
        web1={
            "records": [record(), record("2026-11-28T10:30:00+00:00", 4, verdict="audit"), {"kind": "lost", "count": 3}]
        },
        web2={
            "records": [
                record(
                    "2026-11-28T11:59:00+00:00",
                    2,
                    rule=None,
                    reason="tamper",
                    path=None,
                    user=None,
                    address="10.0.0.1",
                    object="10.0.0.1:443/tcp",
                    login_user="bob",
                ),
                "junk",
                {"kind": "decision"},
            ]
        },
    )
    timeline = found["timeline"]
    assert timeline["start"] == "2026-11-28T10:00:00+00:00" and timeline["width"] == 300
    assert (timeline["denied"][0], timeline["audit"][6], timeline["denied"][-1]) == (1, 4, 2) and found["told"] == 7
    assert sum(timeline["denied"] + timeline["audit"]) == 7 and len(timeline["denied"]) <= figures.BUCKETS
    assert found["top"] == {  # what would have been denied is told apart
        "denied": {
            "rules": [{"name": "tamper", "count": 2}, {"name": "customers", "count": 1}],
            "subjects": [{"name": "uid 1, /usr/bin/cat", "count": 2}, {"name": "alice, /usr/bin/cat", "count": 1}],
            "destinations": [{"name": "10.0.0.1:443/tcp", "count": 2}],
            "files": [{"name": "/srv/a", "count": 1}],
        },
        "audit": {
            "rules": [{"name": "customers", "count": 4}],
            "subjects": [{"name": "alice, /usr/bin/cat", "count": 4}],
            "destinations": [],
            "files": [{"name": "/srv/a", "count": 4}],
        },
    }
    assert [(row["host"], row["verdict"], row["count"]) for row in found["rows"]] == [
        ("web1", "audit", 4),
        ("web2", "denied", 2),
        ("web1", "denied", 1),
    ]


def test_groups_and_the_plan():
    entry = {"error": None, "changed": False, "lines": [], "decisions": None}
    plan = {
        "summary": "Plan of 3 hosts",
        "entries": [
            dict(entry, hosts=["web1"], changed=True),
            dict(entry, hosts=["web2"]),
            dict(entry, hosts=["db1"], error="unreachable"),
        ],
    }
    found = figures.report(
        {
            "web1": {"groups": ["eu", "web"], "status": status(drift=["d", "e"])},
            "web2": {"groups": ["web"], "status": status(mode="audit", unenforced=["u"])},
            "db1": {"groups": ["db"], "status": None},
        },
        NOW,
        plan,
    )
    assert [(host["name"], host["drift"], host["unenforced"], host["plan"]) for host in found["hosts"]] == [
        ("db1", 0, 0, "failed"),
        ("web1", 2, 0, "would change"),
        ("web2", 0, 1, "in order"),
    ]
    groups = {group.pop("name"): group for group in found["groups"]}
    assert list(groups) == ["db", "eu", "web"]
    assert groups["web"] == {
        "hosts": 2,
        "states": {"enforcing": 1, "reporting only": 1, "not guarded": 0, "no answer": 0},
        "drift": 1,
        "unenforced": 1,
        "change": 1,
        "denied": 14,
        "audited": 2,
    }
    assert groups["db"]["states"]["no answer"] == 1 and found["plan"] == plan


@pytest.mark.parametrize(
    "first, last",
    [
        ("2026-11-28T10:00:00+00:00", "2026-11-28T10:00:01+00:00"),
        ("2019-01-01T00:00:00+00:00", "2026-11-28T10:00:01+00:00"),
        ("1970-01-01T00:00:00+00:00", "2026-11-28T10:00:01+00:00"),
    ],
)
def test_any_stretch_of_time_fits(first, last):
    timeline = report(web1={"records": [record(first), record(last)]})["timeline"]
    assert len(timeline["denied"]) <= figures.BUCKETS + 1 and sum(timeline["denied"]) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"totals": [1]},
        {"totals": {"denied": "many"}},
        {"generation": {}},
        {"certificate": "x"},
        {"problems": 3},
        {"audit": "x"},
    ],
)
def test_one_host_that_answers_nonsense_spoils_nothing(wrong):
    found = report(
        web1={"status": status(**wrong)},
        web2={"records": [record(rule=[]), record(count="x"), record(verdict="x"), record()]},
    )
    assert [host["state"] for host in found["hosts"]] == ["no answer", "enforcing"] and found["told"] == 1
    assert "not a valid status" in _page.page(found)


# ---- the page -----------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """What a browser makes of it, as far as that matters: elements that close, rows with their text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.elements, self.rows, self.table = [], [], [], [], None
        self.script = self.style = ""
        self.feed(text)
        self.close()
        assert not self.open and not self.wrong, (self.open, self.wrong)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.elements.append((tag, found))
        if tag not in ("meta", "input"):
            self.open.append(tag)
        if tag == "table":
            self.table = found.get("id")
        if tag == "tr":
            self.rows.append({"table": self.table, "text": "", **found})

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            setattr(self, self.open[-1], data)
        elif self.rows and "tr" in self.open:
            self.rows[-1]["text"] += data


NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x1b[2J\u202e"


NASTY_CHANGE = {
    "direction": "weaker",
    "actions": [NASTY],
    "since": NASTY,
    **dict.fromkeys(("who", "what", "before", "after", "rule"), NASTY),
}
NASTY_PLAN = {
    "summary": NASTY,
    "entries": [
        {
            "hosts": [NASTY, "web1"],
            "error": NASTY,
            "changed": True,
            "lines": [NASTY],
            "decisions": {"changes": [NASTY_CHANGE]},
        }
    ],
}


def nasty():
    parts = {
        key: NASTY
        for key in ("rule", "user", "executable", "action", "path", "object", "login_user", "unit", "address")
    }
    whole = dict.fromkeys(("revision", "kernel", "mode"), NASTY)
    return report(
        NASTY_PLAN,
        **{
            "web1": {
                "groups": [NASTY],
                "records": [record(**parts), record(verdict=NASTY)],
                "message": NASTY,
                "status": status(problems=[NASTY], drift=[NASTY], **whole),
            },
            NASTY: {"records": [record()]},
        },
    )


def test_no_name_becomes_markup():
    text = _page.page(nasty())
    page = Page(text)
    assert [tag for tag, _ in page.elements].count("script") == 1 and "img" not in {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "\x1b" not in text and "\u202e" not in text and text.count(NASTY[:9]) == 1


def test_a_host_or_rule_whose_name_is_a_tag_is_shown_as_text():
    text = _page.page(
        report(**{"<script>": {"groups": ["<b>"], "records": [record(rule="<script>"), record(rule="<i>", count=2)]}})
    )
    rows = [row for row in Page(text).rows if "<script>" in row["text"]]
    assert {row["table"] for row in rows} == {"hosts", "denials", None}  # None: the tables of the rules denied most
    assert text.count("<script>") == 1 and "&lt;script&gt;" in text and "<i>" not in text and "&lt;b&gt;" in text


def test_the_template_escapes_everything_but_style_script_and_charts():
    source = (ROOT / "plugins/plugin_utils/_report/page.html.j2").read_text()
    assert "safe" not in source and "autoescape" not in source
    figures_with_markup = report(web1={"groups": ["a&b"], "records": [record(object='"><svg onload=x>')]})
    assert [tag for tag, attributes in Page(_page.page(figures_with_markup)).elements if "onload" in attributes] == []


def test_it_needs_no_network_and_may_use_none():
    text = _page.page(nasty())
    page = Page(text)
    policy = next(found["content"] for tag, found in page.elements if found.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    for part in (page.script, page.style):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" in policy
    assert not any(name in ("src", "style", "action") for _, found in page.elements for name in found)
    assert all(found["href"].startswith("#s") for _, found in page.elements if "href" in found)
    assert "url(" not in page.style and "@import" not in page.style and "://" not in text


def test_an_empty_fleet_has_a_page():
    assert "There are no events" in _page.page(figures.report({}, NOW))


ENGINE = """
const page = JSON.parse(require("fs").readFileSync(0));
const tables = {};
const row = each => ({textContent: each.text, dataset: {groups: each["data-groups"], state: each["data-state"], verdict: each["data-verdict"]}});
for (const each of page.rows) if (each["data-groups"] !== undefined)
  (tables[each.table] = tables[each.table] || {id: each.table, tBodies: [{rows: []}]}).tBodies[0].rows.push(row(each));
const notes = {}, handlers = {};
const field = () => ({value: ""});
const form = {search: field(), group: field(), state: field(), verdict: field(), hidden: true,
              addEventListener: (name, handler) => { handlers[name] = handler; }};
global.document = {querySelector: () => form, querySelectorAll: () => Object.values(tables),
                   getElementById: id => notes[id] = notes[id] || {}};
new Function(page.script)();
const shown = () => Object.fromEntries(Object.values(tables).map(table => [table.id, table.tBodies[0].rows.filter(row => !row.hidden).length]));
const found = [{...shown(), note: notes["hosts-shown"].textContent, form: form.hidden}];
for (const step of page.steps) {
  for (const name of ["search", "group", "state", "verdict"]) form[name].value = step[name] || "";
  handlers.input();
  found.push(shown());
}
console.log(JSON.stringify(found));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="no script engine")
def test_the_script_filters_and_searches():
    found = report(
        web1={"groups": ["web"], "records": [record(), record(verdict="audit")]},
        db1={"groups": ["db", "eu"], "status": status(mode="audit"), "records": [record(user="bob", object="/Srv/B")]},
    )
    page = Page(_page.page(found))
    steps = [
        {"group": "eu"},
        {"search": "bob /srv/b"},
        {"state": "enforcing"},
        {"verdict": "audit"},
        {"search": "nothing of the kind"},
        {},
    ]
    done = subprocess.run(
        ["node", "-e", ENGINE],
        input=json.dumps({"rows": page.rows, "script": page.script, "steps": steps}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, *others = json.loads(done.stdout)
    assert first == {"hosts": 2, "denials": 3, "note": "2 of 2 shown", "form": False}
    assert others == [
        {"hosts": 1, "denials": 1},
        {"hosts": 0, "denials": 1},
        {"hosts": 1, "denials": 2},
        {"hosts": 2, "denials": 1},
        {"hosts": 0, "denials": 0},
        {"hosts": 2, "denials": 3},
    ]


def test_a_thousand_hosts_and_a_hundred_thousand_records():
    answers = {
        f"web{number}": {
            "records": [
                record(f"2026-11-28T1{each % 10}:00:00+00:00", user=f"u{each}", object=f"/srv/{number}/{each}")
                for each in range(100)
            ]
        }
        for number in range(1000)
    }
    began = time.process_time()
    found = report(**answers)
    text = _page.page(found)
    assert time.process_time() - began < 120
    assert found["told"] == 100_000 and len(found["rows"]) == figures.ROWS and found["rows_left_out"] == 98_000
    assert len(text) < 3_000_000
    rows = [row["table"] for row in Page(text).rows]
    assert rows.count("hosts") == 1 + 1000 and rows.count("denials") == 1 + figures.ROWS


# ---- filter and playbook ------------------------------------------------------------------------------------------


def test_the_filter():
    found = fleet_report(["web1"], [["web"]], [{"status": status()}], [{"records": [record(count=2)]}], NOW)
    assert found["line"] == "1 hosts: 1 enforcing; 2 events" and [
        group["name"] for group in found["data"]["groups"]
    ] == ["web"]
    assert found["html"] == _page.page(found["data"]) and json.loads(json.dumps(found["data"])) == found["data"]
    assert found["data"]["plan"] is None and "No plan was requested" in found["html"]
    planned = [{"changed": True, "pending": False, "diff": {"prepared": "+ rule r\n"}}]
    found = fleet_report(["web1"], [["web"]], [{"status": status()}], [{}], NOW, planned)
    assert found["data"]["hosts"][0]["plan"] == "would change" and "+ rule r" in found["html"]
    for wrong in (
        {},
        {"failed": True, "msg": "no template"},
        {"unreachable": True, "msg": "no route", "changed": False},
    ):
        found = fleet_report(["web1"], [["web"]], [{"status": status()}], [{}], NOW, [wrong])
        assert found["data"]["hosts"][0]["plan"] == "failed" and found["data"]["plan"]["entries"][0][
            "error"
        ] == wrong.get("msg", "the host gave no answer")
    for wrong in ((["web1"], [], [{}], [{}]), (["web1"], [[]], ["x"], [{}])):
        with pytest.raises(AnsibleFilterError, match="in the same order"):
            fleet_report(*wrong, NOW)


def test_the_playbook_tells_hosts_that_give_no_answer(tmp_path):
    common = {"ansible_become": False, "ansible_python_interpreter": sys.executable}
    (tmp_path / "hosts.json").write_text(
        json.dumps(
            {
                "guarded": {
                    "hosts": {
                        "bare": {"ansible_connection": "local", **common},
                        "down": {"ansible_connection": "ssh", "ansible_host": "192.0.2.1", "ansible_port": 1, **common},
                    }
                }
            }
        )
    )
    environment = dict(
        os.environ,
        ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"),
        NO_COLOR="1",
        ANSIBLE_SSH_TIMEOUT="1",
        PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"],
    )
    done = subprocess.run(
        ["ansible-playbook", "-i", str(tmp_path / "hosts.json"), "playbooks/report.yml"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "report.json").read_text())
    assert [(host["name"], host["state"], host["groups"]) for host in found["hosts"]] == [
        ("bare", "not guarded", ["guarded"]),
        ("down", "no answer", ["guarded"]),
    ]
    assert "the package is not installed" in str(found["hosts"][0]["attention"]) and "192.0.2.1" in str(
        found["hosts"][1]["attention"]
    )
    page = tmp_path / "report.html"
    assert page.stat().st_mode & 0o777 == 0o600 and Page(page.read_text()).rows
    assert re.search(r"2 hosts: 1 no answer, 1 not guarded; 0 events, in .*report.html", done.stdout)
