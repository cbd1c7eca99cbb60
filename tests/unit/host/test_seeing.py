# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`exfil-guard status`, `watch`, `why`, `metrics` and `audit`, from the arguments down to a kernel in memory."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import cli, layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import (
    aggregate,
    collector,
    events,
    journal,
    watch,
)
from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import record as trail
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError
from ansible_collections.exfil.guard.plugins.module_utils._guard.explain import denial as why
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import lock
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.stored import Stored
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import pins
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions
from ansible_collections.exfil.guard.plugins.module_utils._guard.report import metrics, status
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import encoding, resolver
from ansible_collections.exfil.guard.plugins.plugin_utils._language import document as _document
from fake_system import FakeSystem
from test_audit import ROOT, denial, view
from test_command import POLICY, Host

ADDRESS = {
    "device": 0,
    "path": b"",
    "inode": 0,
    "family": 2,
    "action": actions.NUMBERS["connect"],
    "address": bytes((203, 0, 113, 9)),
    "port": 443,
    "protocol": 6,
    "rule": b"inside only",
}


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "LOCK", str(tmp_path / "events.lock"))
    monkeypatch.setattr(watch.events, "LOCK", str(tmp_path / "events.lock"))
    monkeypatch.setattr(
        collector.status,
        "__defaults__",
        (str(tmp_path / "state.json"), str(tmp_path / "events.lock"), str(tmp_path / "unit")),
    )
    monkeypatch.setattr(
        status.status, "__kwdefaults__", dict(status.status.__kwdefaults__, audit_state=str(tmp_path / "state.json"))
    )
    return Host(tmp_path)


def count(host, denied=0, audited=0, written=0, lost=0):
    totals = layout.TOTALS.empty()._replace(denied=denied, audited=audited, written=written, lost=lost)
    with pins.opened(host.kernel, pins.map_path(host.kernel, "totals")) as fd:
        host.kernel.update(fd, bytes(4), layout.TOTALS.pack(totals))


# ---- status, metrics ----------------------------------------------------------------------------------------------


def test_status_accounts_for_every_event(host, capsys):
    host.apply()
    host.kernel.buffer.put(*(denial(number) for number in range(3)))
    count(host, denied=8, audited=2, written=7, lost=3)
    found = status.status(host.kernel, host.store).to_json()
    assert (
        found["events"] == {"decided": 10, "written": 7, "lost": 3, "waiting": 3, "unaccounted": 0}
        and found["audit"] is None
    )
    host.run("status")
    assert "events        7 written + 3 lost = 10 decided; 3 waiting\n" in capsys.readouterr().out
    count(host, denied=8, audited=2, written=6, lost=3)
    host.run("status")
    assert "6 written + 3 lost = 10 decided; 3 waiting; 1 IN PROGRESS\n" in capsys.readouterr().out


def test_status_shows_the_audit_collector(host, capsys):
    host.apply()
    state = collector.State(
        "ring",
        collected=4,
        lines=2,
        missing=1,
        file_lost=7,
        outbox={"journal": [trail.describe(denial(), view())], "file": []},
        failing={"journal": "/run/systemd/journal/socket: Connection refused"},
    )
    collector.save(state, str(host.folder / "state.json"))
    host.run("status")
    out = capsys.readouterr().out
    assert (
        "audit trail   NOT RUNNING: 4 events taken, 2 lines, 1 missing, 7 lines dropped from the file, "
        "1 lines wait for the journal\n"
    ) in out
    assert "PROBLEM       audit collector stalled: /run/systemd/journal/socket: Connection refused\n" in out
    collector.save(collector.State("ring"), str(host.folder / "state.json"))
    with lock.hold(events.COLLECTOR, events.LOCK):
        host.run("status")
    assert "audit trail   running: 0 events taken, 0 lines\n" in capsys.readouterr().out


def test_metrics_are_what_prometheus_takes(host, tmp_path, capsys):
    host.apply()
    count(host, denied=8, audited=2, written=7, lost=3)
    collector.save(collector.State("ring"), str(tmp_path / "state.json"))
    path = tmp_path / "exfil_guard.prom"
    assert host.run("metrics", "--output", str(path)) == 0 and host.run("metrics") == 0
    text = path.read_text()
    assert capsys.readouterr().out == text and os.listdir(tmp_path).count("exfil_guard.prom") == 1
    assert (
        re.sub(
            r'(# (HELP|TYPE) exfil_guard_\w+ .+|exfil_guard_\w+(\{\w+="[^"\n]*"(,\w+="[^"\n]*")*\})? \d+)\n', "", text
        )
        == ""
    )
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for sample, value in (
        ("in_force", "1"),
        ("enforcing", "1"),
        ("generation", "1"),
        ('decisions_total{verdict="denied"}', "8"),
        ('events_total{fate="written"}', "7"),
        ('events_total{fate="lost"}', "3"),
        ("audit_running", "0"),
        ('rule_decisions_total{rule="customers",verdict="denied"}', "0"),
    ):
        assert samples["exfil_guard_" + sample] == value
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    assert metrics._family("a", "gauge", "b.", [({"rule": 'x"\\\n'}, 1)])[-1] == 'exfil_guard_a{rule="x\\"\\\\\\n"} 1'
    assert host.run("metrics", "--output", str(tmp_path / "no" / "a.prom")) == 1
    assert "cannot write" in capsys.readouterr().err


def test_metrics_of_a_host_without_enforcer(host, capsys):
    assert host.run("metrics") == 0
    out = capsys.readouterr().out
    assert "exfil_guard_installed 0\n" in out and "exfil_guard_events_total" not in out


# ---- watch --------------------------------------------------------------------------------------------------------


def test_watch_takes_from_the_ring_where_nobody_else_does(host):
    host.apply()
    host.kernel.buffer.put(denial(0), denial(1), denial(2, path=b"\x1b]0;x\x07\0"), b"old")
    found = watch.taken(host.kernel, host.system, host.store, pause=0)
    lines = [watch.to_line(record, False) for record in itertools.islice(found, 3)]
    found.close()
    assert "not of layout 1" in lines[0]
    assert lines[1][8:] == (
        " denied read /srv/exports/a.csv alice (login bob) [/usr/bin/cat, foo.service, pid 42] by customers x2"
    )
    assert all(line.isprintable() for line in lines)


def test_colours_are_all_that_a_terminal_gets(monkeypatch):
    record = trail.describe(denial(path=b"\x1b[2J\0", rule=b"\x1b[0m"), view())
    line = watch.to_line(record, True)
    assert line.startswith("\x1b[2m") and "\x1b[31mdenied" in line
    assert re.sub(r"\x1b\[(0|1|2|31)m", "", line) == watch.to_line(record, False)
    assert "\x1b[33m" in watch.to_line(dataclasses.replace(record, verdict="audit"), True)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert watch.coloured(Terminal()) and not watch.coloured(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not watch.coloured(Terminal())


def journalctl(folder, monkeypatch, entries, status=0):
    """One that notes how it was called and gives ``entries``."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "entries").write_text("".join(json.dumps(each) + "\n" for each in entries))
    path = folder / "bin" / "journalctl"
    path.write_text(
        f'#!/bin/sh\nfor each; do echo "$each"; done >{folder}/asked\ncat {folder}/entries\necho no >&2\nexit {status}\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def entry(record):
    found = {}
    for name, value in trail.to_fields(record):
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def test_watch_follows_the_journal_while_the_unit_collects(host, tmp_path, monkeypatch, capsys):
    host.apply()
    record = trail.describe(denial(), view())
    journalctl(
        tmp_path,
        monkeypatch,
        [
            entry(record),
            {"MESSAGE": "forged"},
            dict(entry(record), EXFIL_GUARD_COMMAND="\x1b[2J", EXFIL_GUARD_EXECUTABLE=None),
        ],
    )
    with lock.hold(events.COLLECTOR, events.LOCK):
        assert host.run("watch", "--before", "3") == 0
        assert host.run("watch", "--json") == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 4 and "alice (login bob) [/usr/bin/cat" in out[0] and "[\\x1b[2J, foo.service" in out[1]
    assert json.loads(out[2]) == record.to_json()
    asked = (tmp_path / "asked").read_text().splitlines()
    assert {"--follow", "--output=json", "_SYSTEMD_UNIT=exfil-guard-audit.service", "_UID=0"} <= set(asked)


def test_a_journal_that_cannot_be_read(tmp_path, monkeypatch):
    journalctl(tmp_path, monkeypatch, [], status=1)
    with pytest.raises(EnforcerError, match=r"journalctl ended with status 1: no\. Check systemctl"):
        journal.read(journal.matches(), 3)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnforcerError, match="journalctl cannot be run"):
        journal.read(journal.matches(), 3)


# ---- why ----------------------------------------------------------------------------------------------------------


def answers(host, capsys, *arguments):
    assert host.run("why", "--json", *arguments) == 0
    return json.loads(capsys.readouterr().out)["denials"]


def test_why_a_file_was_denied(host, capsys):
    host.apply()
    host.kernel.buffer.put(denial(0, generation=1), denial(1, generation=1))
    host.run("why", "--user", "alice")
    out = capsys.readouterr().out.splitlines()
    assert ", 2 times until " in out[0] and out[1:] == [
        "      any one of these changes of the policy would let it pass:",
        "        subjects 'dba', which the rule excepts: `groups` with alice",
        "        resources 'customers': `paths` without /srv/exports/**",
        "        rule 'customers', `deny`: without read",
    ]
    assert len(host.kernel.buffer.peek().records) == 2  # left where they are
    for who, found in (("alice", 1), ("bob", 1), ("root", 1), ("7", 0)):  # real, login and effective user
        assert len(answers(host, capsys, "--user", who)) == found
    assert [len(answers(host, capsys, "--pid", pid)) for pid in ("42", "43")] == [1, 0]
    assert host.run("why", "--user", "alcie") == 1 and capsys.readouterr().err == "exfil-guard: unknown user 'alcie'\n"
    host.run("why", "--pid", "1")
    assert capsys.readouterr().out == "nothing was denied\n"


def test_why_an_address_was_denied(host, capsys):
    host.apply()
    host.kernel.buffer.put(denial(0, generation=1, **ADDRESS))
    (found,) = answers(host, capsys)
    assert (
        found["changes"]
        == ["destinations 'corp': `cidrs` with 203.0.113.9/32", "rule 'inside only', `deny`: without connect"]
        and found["also"] == []
    )


SETS = {
    "subjects": {
        "dba": {"groups": ["dba"]},
        "backup": {"users": ["bob"], "executables": ["/usr/bin/cat"]},
        "exporter": {"services": ["exporter.service"], "optional": True},
        "readers": {"has_read": ["customers"]},
        "people": {"users": ["alice"]},
        "logins": {"login_users": ["bob"]},
    },
    "resources": {"customers": {"paths": ["/srv/exports/**"]}, "programs": {"paths": ["/usr/bin/**"]}},
    "destinations": {
        "corp": {"cidrs": ["10.0.0.0/8", "127.0.0.0/8"]},
        "loopback": {"cidrs": ["127.0.0.0/8"]},
        "web": {"cidrs": ["203.0.113.0/24"], "ports": [443]},
        "vault": {"cidrs": ["10.9.0.7/32"], "ports": [8443], "protocols": ["udp"]},
    },
}


@pytest.mark.parametrize(
    "rule, event, changes",
    [
        (
            {"deny": ["read"], "resources": ["customers"], "except": ["backup", "dba"]},
            {},
            [
                "subjects 'backup', which the rule excepts: `users` with root, alice",
                "subjects 'dba', which the rule excepts: `groups` with alice",
                "resources 'customers': `paths` without /srv/exports/**",
            ],
        ),
        (
            {"deny": ["read"], "resources": ["customers"], "subjects": ["people"]},
            {},
            ["subjects 'people': `users` without alice", "resources 'customers': `paths` without /srv/exports/**"],
        ),
        (
            {"deny": ["read"], "resources": ["customers"], "subjects": ["people", "logins"]},
            {},
            [
                "subjects 'logins': `login_users` without bob and subjects 'people': `users` without alice",
                "resources 'customers': `paths` without /srv/exports/**",
            ],
        ),
        ({"deny": ["read"], "resources": {"not": ["programs"]}}, {}, ["resources 'programs': `paths` with this one"]),
        (
            {"deny": ["connect"], "destinations": ["web"]},
            ADDRESS,
            ["destinations 'web': `cidrs` without 203.0.113.0/24"],
        ),
        (
            {"deny": ["connect"], "destinations": {"not": ["corp", "vault"]}},
            ADDRESS,
            [
                "destinations 'corp': `cidrs` with 203.0.113.9/32",
                "destinations 'vault': `cidrs` with 203.0.113.9/32 and `ports` with 443 and `protocols` with tcp",
            ],
        ),
        (
            {"deny": ["connect"], "destinations": ["web"], "subjects": ["readers"]},
            ADDRESS,
            [
                "subjects 'readers': a process that has not read customers",
                "destinations 'web': `cidrs` without 203.0.113.0/24",
            ],
        ),
        # no policy can change what is built in
        (
            {"deny": ["connect"], "destinations": {"not": ["corp", "loopback"]}},
            ADDRESS,
            ["destinations 'corp': `cidrs` with 203.0.113.9/32"],
        ),
        # the system's own unit, whatever is below it; a session is gone tomorrow, and a user's own unit is none of the system's
        (
            {"deny": ["read"], "resources": ["customers"], "except": ["exporter"]},
            {"cgroup": b"below\0bar.service\0system.slice\0"},
            [
                "subjects 'exporter', which the rule excepts: `services` with bar.service",
                "resources 'customers': `paths` without /srv/exports/**",
            ],
        ),
        (
            {"deny": ["read"], "resources": ["customers"], "except": ["exporter"]},
            {"cgroup": b"session-7.scope\0user-1000.slice\0user.slice\0"},
            ["resources 'customers': `paths` without /srv/exports/**"],
        ),
        (
            {"deny": ["read"], "resources": ["customers"], "except": ["exporter"]},
            {"cgroup": b"foo.service\0app.slice\0user@1000.service\0user-1000.slice\0user.slice\0"},
            [
                "subjects 'exporter', which the rule excepts: `services` with user@1000.service",
                "resources 'customers': `paths` without /srv/exports/**",
            ],
        ),
    ],
)
def test_each_change_that_is_named_lets_it_pass(host, capsys, rule, event, changes):
    host.apply(dict(POLICY, **SETS, rules=[dict(rule, name="it")]))
    host.kernel.buffer.put(denial(0, generation=1, **{**event, "rule": b"it"}))
    (found,) = answers(host, capsys)
    words = ", ".join(rule["deny"])
    assert found["note"] is None and found["changes"] == [*changes, "rule 'it', `deny`: without " + words]


def test_a_new_name_needs_all_that_the_rule_denies_of_files(host, capsys):
    host.apply(dict(POLICY, **SETS, rules=[{"name": "it", "deny": ["read", "write"], "resources": ["customers"]}]))
    host.kernel.buffer.put(denial(0, generation=1, rule=b"it", action=layout.LINK))
    assert answers(host, capsys)[0]["changes"] == [
        "resources 'customers': `paths` without /srv/exports/**",
        "rule 'it', `deny`: without read, write",
    ]


def test_an_action_without_an_object():
    document = dict(POLICY, **SETS, rules=[{"name": "it", "deny": ["mount", "bpf"], "subjects": ["people"]}])
    system = FakeSystem()
    resolved = encoding.to_json(resolver.resolve(document, system))
    stored = Stored(1, document, "digest", resolved, True, "2026-06-01T00:00:00+00:00")
    record = trail.describe(denial(action=actions.NUMBERS["mount"], path=b"", device=0, inode=0, rule=b"it"), view())
    assert why.explain_record(record, stored, system).changes == [
        "subjects 'people': `users` without alice",
        "rule 'it', `deny`: without mount",
    ]


def test_another_rule_that_denies_it_too_is_named(host, capsys):
    host.apply(
        dict(
            POLICY,
            rules=POLICY["rules"]
            + [
                {"name": "all", "deny": ["read"], "resources": ["customers"]},
                {"name": "new", "deny": ["write"], "resources": ["customers"]},
                {"name": "tells", "deny": ["read"], "mode": "audit", "resources": ["customers"]},
            ],
        )
    )
    host.kernel.buffer.put(denial(0, generation=1))
    host.kernel.buffer.put(denial(1, generation=1, action=layout.LINK))
    assert [found["also"] for found in answers(host, capsys)] == [["all", "new"], ["all"]]
    host.run("why", "--limit", "2")
    assert "      but only if these rules let it pass, too: rule 'all'" in capsys.readouterr().out


@pytest.mark.parametrize(
    "event, note",
    [
        ({"generation": 9}, "generation 9 is no longer stored"),
        ({"rule": b"gone"}, "generation 1 has no such rule"),
        ({"reason": layout.REASONS.index("tamper")}, "the enforcer protects itself"),
        ({"device": 99}, "is not sufficient to find a change"),
        ({"path": b"x" * 400 + b"\0"}, "is not sufficient to find a change"),
        ({"path": b"b.txt\0other\0"}, "is not sufficient to find a change"),
        ({"reason": 12}, "12"),
    ],
)
def test_a_note_explains_why_there_are_no_changes(host, capsys, event, note):
    host.apply()
    host.kernel.buffer.put(denial(0, **{"generation": 1, **event}))
    (found,) = answers(host, capsys)
    assert note in found["note"] and found["changes"] == []


def test_the_built_in_destinations_are_the_documents():
    assert set(why.BUILT_IN) == set(_document.BUILT_IN)


def test_each_reason_has_a_note():
    assert set(why.REASONS) == set(layout.REASONS) - {"rule"}


def test_why_asks_the_journal_for_what_has_left_the_ring(host, tmp_path, monkeypatch, capsys):
    host.apply()
    host.apply(dict(POLICY, mode="audit"))
    old = trail.describe(denial(generation=1), view())
    journalctl(tmp_path, monkeypatch, [entry(old), entry(dataclasses.replace(old, uid=7, euid=7, login_uid=7))])
    host.kernel.buffer.put(denial(1, generation=1, pid=50))
    assert len(answers(host, capsys, "--user", "alice")) == 1 and not (tmp_path / "asked").exists()  # there is no unit
    (tmp_path / "unit").write_text("")
    host.run("why", "--user", "alice")
    out = capsys.readouterr().out
    assert out.count("denied read") == 2 and "generation 1 is no longer in force: generation 2 is" in out
    asked = (tmp_path / "asked").read_text()
    assert "EXFIL_GUARD_UID=1000\n+\n" in asked and "EXFIL_GUARD_LOGIN_UID=1000\n" in asked and "--lines=4\n" in asked
    host.run("why", "--pid", "42", "--limit", "1")
    assert "EXFIL_GUARD_PIDS=42\n" in (tmp_path / "asked").read_text()


# ---- the unit -----------------------------------------------------------------------------------------------------

RUN = """
import sys
sys.path[:0] = sys.argv[1:4]
from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import collector, privilege
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import store
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import enforcer
from fake_kernel import FakeKernel
from fake_system import FakeSystem
from test_audit import denial
folder = sys.argv[4]
kernel = FakeKernel()
kernel.boottime = __import__("time").monotonic_ns
ring = kernel.ring
import os
pipe = os.pipe()
os.write(pipe[1], b"x")
kernel.get = lambda path, get=kernel.get: (get(path), pipe[0])[1]
kernel.ring = lambda fd, take: kernel.buffer
enforcer.ensure(kernel, b"object")
kernel.buffer.put(*(denial(number, port=number % 2) for number in range(6)))
privilege.keep = lambda names: print("keeps", *names, flush=True)
sys.exit(collector.run(kernel, FakeSystem(), store.Store(folder), json_lines=folder + "/lines", window=1, state_path=folder + "/state",
                   lock_path=folder + "/lock", journal_path=folder + "/journal"))
"""


def test_the_unit_from_its_start_to_its_end(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "journal"))
        listener.settimeout(60)
        here = os.path.dirname(os.path.abspath(__file__))
        unit = subprocess.Popen(
            [sys.executable, "-c", RUN, os.path.join(ROOT, "collections"), os.path.dirname(here), here, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            found = [listener.recv(1 << 16).decode() for _ in range(2)]
            assert unit.stdout.readline() == "keeps cap-sys-ptrace\n"
            assert all("\nEXFIL_GUARD_COUNT=3\n" in each for each in found)
            assert lock.holder(str(tmp_path / "lock")) == f"pid {unit.pid}, audit"
        finally:
            unit.send_signal(signal.SIGTERM)
            assert unit.wait(60) == 0
    assert [json.loads(line)["count"] for line in (tmp_path / "lines").read_text().splitlines()] == [3, 3]
    assert collector.load(str(tmp_path / "state")).collected == 6
    assert lock.holder(str(tmp_path / "lock")) == ""


def test_the_unit_waits_for_an_enforcer(tmp_path):
    code = textwrap.dedent("""
        import sys
        sys.path[:0] = sys.argv[1:3]
        from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import collector
        from fake_kernel import FakeKernel
        sys.exit(collector.run(FakeKernel(), None, None))
    """)
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    unit = subprocess.Popen(
        [sys.executable, "-c", code, os.path.join(ROOT, "collections"), here], stderr=subprocess.PIPE, text=True
    )
    assert unit.stderr.readline() == "exfil-guard: waiting for the enforcer\n"
    unit.send_signal(signal.SIGTERM)
    assert unit.wait(30) == 0


def test_a_flood_costs_little(capsys):
    """Many times what the ring holds, folded; to be seen with -s, and far from what a slow machine takes."""
    batch = [denial(number, pid=number) for number in range(20_000)]
    aggregator, seen, began = aggregate.Aggregator(10, {}), view(), time.process_time()
    for data in batch:
        aggregator.add(data, 0, seen)
    spent = time.process_time() - began
    assert aggregator.due(0)[0].count == 20_000 and spent < 60
    print(f"{len(batch) / spent:.0f} events a second")


def test_usage():
    for arguments in (["watch", "--before", "x"], ["why", "--limit", "x"], ["audit", "--fold", "x"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2
