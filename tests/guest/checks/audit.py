# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit trail of a real kernel: bursts of denials, with the unit running, killed, and not there at all. In place of
the journal stands a socket that a check reads."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time

from harness.checks import enforcer, story
from harness.process import ALICE, BOB, become, in_child, write
from techniques.steps import text_of

SOCKET = "/run/systemd/journal/socket"
STATE = "/run/exfil-guard-audit"
RULE = "nobody reads the ledger"
POLICY = {
    "subjects": {"clerks": {"groups": ["dba"]}},
    "resources": {"ledger": {"paths": ["/srv/ledger/**"]}},
    "rules": [{"name": RULE, "deny": ["read"], "resources": ["ledger"], "except": ["clerks"]}],
}
BURST = 2000


def prepare():
    os.makedirs("/srv/ledger", exist_ok=True)
    for name in ("a", "b"):
        if not os.path.exists("/srv/ledger/" + name):
            write("/srv/ledger/" + name, "x")
    os.chmod("/srv/ledger", 0o777)


def attempts(number, user=ALICE, path="/srv/ledger/a"):
    """So many, one after the other, by one process; gives how many ended with EPERM."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        become(user)
        denied = 0
        for _ in range(number):
            try:
                os.close(os.open(path, os.O_RDONLY))
            except PermissionError:
                denied += 1
        os.write(writer, str(denied).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = int(stream.read())
    os.waitpid(child, 0)
    return answer


class Journal:
    """What arrives at the journal's socket; a process of its own, so that nothing waits for the check."""

    def __init__(self):
        os.makedirs(os.path.dirname(SOCKET), exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.listener.bind(SOCKET)
        self.listener.settimeout(0.5)
        reader, writer = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            ending, lines = [], []
            signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
            while True:
                try:
                    fields = dict(line.split("=", 1) for line in self.listener.recv(1 << 16).decode().splitlines())
                    lines.append(json.dumps(fields).encode() + b"\n")
                except socket.timeout:
                    if ending:
                        break
            with os.fdopen(writer, "wb") as stream:  # not before: a full pipe would hold it up
                stream.writelines(lines)
            os._exit(0)
        os.close(writer)
        self.listener.close()
        self.stream = os.fdopen(reader, "rb")

    def end(self):
        """All entries, each once: a unit that was killed may tell the last ones again."""
        os.kill(self.child, signal.SIGTERM)
        found = {}
        for line in self.stream:
            fields = json.loads(line)
            key = tuple(fields.get("EXFIL_GUARD_" + each) for each in ("KIND", "VERDICT", "SEQUENCE", "LAST_SEQUENCE"))
            found[key] = fields
        os.waitpid(self.child, 0)
        os.unlink(SOCKET)
        return list(found.values())


def start():
    os.makedirs(STATE, exist_ok=True)
    return subprocess.Popen(
        [
            "/usr/bin/python3",
            "-c",
            "import sys; from exfil_guard import cli; sys.exit(cli.main())",
            "audit",
            "--fold",
            "1",
        ]
    )


def state():
    try:
        with open(STATE + "/state.json", encoding="ascii") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {"collected": 0}


def until(what, seconds=60):
    ends = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
    while not what():
        assert time.clock_gettime(time.CLOCK_BOOTTIME) < ends, ("it does not come to that", state(), enforcer.totals())
        time.sleep(0.1)


def counted():
    totals = enforcer.totals()
    return totals["denied"] + totals["audited"], totals["written"], totals["lost"]


def begin():
    """The policy in force, an empty ring; gives the counts."""
    prepare()
    shutil.rmtree(STATE, ignore_errors=True)
    enforcer.apply(POLICY)
    enforcer.events()
    decided, written, lost = counted()
    assert decided == written + lost, (decided, written, lost)
    return decided, written, lost


@story
def no_policy_no_record():
    prepare()
    enforcer.install()
    enforcer.drop()
    enforcer.events()
    before = counted()
    assert attempts(100) == 0
    assert counted() == before and enforcer.events() == []


@story
def a_burst_without_the_unit():
    """As many as have room wait; every other one is counted as lost."""
    before = begin()
    assert attempts(BURST) == BURST
    decided, written, lost = (now - then for now, then in zip(counted(), before))
    assert decided == BURST == written + lost and lost > 0, (decided, written, lost)
    waiting = enforcer.events()
    assert len(waiting) == written and {event.rule for event in waiting} == {RULE}
    found = status()
    assert found["events"]["waiting"] == 0 and found["events"]["unaccounted"] == 0 and found["audit"] is None, found[
        "events"
    ]


def status():
    def operation():
        from exfil_guard.report import status as command

        kernel, system, store = enforcer._parts()
        return command.status(kernel, store, system, None).to_json()

    return enforcer._result(operation)


@story
def a_burst_with_the_unit():
    """Told + lost = decided, exactly, with the unit killed in the middle and started again."""
    before = begin()
    journal, unit = Journal(), start()
    try:
        until(lambda: lines_of(unit.pid, "CapEff") == ["0000000000080000"])  # CAP_SYS_PTRACE alone
        assert lines_of(unit.pid, "CapPrm") == ["0000000000080000"]
        assert attempts(BURST) == BURST
        until(lambda: state()["collected"] == counted()[1] - before[1])  # there is room again
        assert "audit" in text_of("/run/lock/exfil-guard-events.lock")
        other = os.fork()
        if other == 0:
            os._exit(0 if attempts(BURST, BOB, "/srv/ledger/b") == BURST else 1)
        time.sleep(0.3)
        unit.kill()
        unit.wait()
        unit = start()
        assert os.waitpid(other, 0)[1] == 0
        until(lambda: state()["collected"] == counted()[1] - before[1])
        until(lambda: status()["audit"]["running"])  # the one that was started again may still be on its way
        assert status()["events"]["waiting"] == 0
    finally:
        unit.terminate()
        code = unit.wait()
        entries = journal.end()
        seen = state()
        shutil.rmtree(STATE)
    assert code == 0, code
    decided, written, lost = (now - then for now, then in zip(counted(), before))
    assert decided == 2 * BURST == written + lost, (decided, written, lost)
    decisions = [each for each in entries if each["EXFIL_GUARD_KIND"] == "decision"]
    told = sum(int(each["EXFIL_GUARD_COUNT"]) for each in decisions)
    assert told == written == seen["collected"], (told, written, seen["collected"])
    assert len(decisions) < written / 4, (len(decisions), written)  # folded
    found = {tuple(each.get("EXFIL_GUARD_" + key) for key in ("USER", "OBJECT", "RULE")) for each in decisions}
    assert found == {("alice", "/srv/ledger/a", RULE), ("bob", "/srv/ledger/b", RULE)}, found
    missing = sum(int(each["EXFIL_GUARD_COUNT"]) for each in entries if each["EXFIL_GUARD_KIND"] == "lost")
    assert missing <= lost, (missing, lost)  # those after the last one that was told cannot be seen missing
    print(f"burst: {decided} decided = {written} written + {lost} lost; {len(decisions)} lines", flush=True)


def lines_of(pid, name):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return [line.split()[1] for line in file if line.startswith(name + ":")]


@story
def the_journal_away_and_back():
    """While nobody takes the entries events wait, in the ring and in the unit; afterwards all are told."""
    before = begin()
    unit, journal, entries = start(), None, []
    try:
        until(lambda: "journal" in state().get("failing", {}) or (attempts(1) and False))
        assert attempts(100) == 100
        held = counted()[1] - before[1]
        journal = Journal()
        until(lambda: state()["collected"] == held)
    finally:
        unit.terminate()
        code = unit.wait()
        if journal:
            entries = journal.end()
        shutil.rmtree(STATE)
    assert code == 0, code
    assert sum(int(each["EXFIL_GUARD_COUNT"]) for each in entries) == held == counted()[0] - before[0]


@story
def why_it_was_denied():
    """From the ring, when there is no unit: each change that is named is one that the reference semantics takes."""
    begin()
    assert attempts(2) == 2
    found = enforcer._result(lambda: why("--user", "alice"))
    assert len(found["denials"]) == 1 and found["denials"][0]["record"]["count"] == 2, found
    assert found["denials"][0]["changes"][:2] == [
        "subjects 'clerks', which the rule excepts: `groups` with alice",
        "resources 'ledger': `paths` without /srv/ledger/**",
    ], found["denials"][0]["changes"]
    assert enforcer._result(lambda: why("--user", "bob"))["denials"] == []
    assert len(enforcer.events()) == 2  # they are still there
    assert in_child(lambda: os.listdir("/srv/ledger"), user=ALICE) == 1


def why(*arguments):
    import contextlib
    import io

    from exfil_guard import cli

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert cli.main(["why", "--json", *arguments]) == 0
    return json.loads(said.getvalue())
