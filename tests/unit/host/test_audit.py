# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit trail: what becomes of an event on its way to the journal, also when the journal does not accept entries, the disk is
full, the clock is set back, or the unit is killed."""

from __future__ import annotations

import collections
import dataclasses
import errno
import json
import os
import socket
import stat
import subprocess
import sys

import jsonschema
import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import aggregate, collector, journal
from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import record as trail
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.stored import Stored
from fake_kernel import FakeRing
from fake_system import FakeSystem
from test_events import record

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
SECOND = 1_000_000_000
BOOT = 1_700_000_000.0  # when the host was started, by its clock


def view(system=None, now=BOOT + 100, boottime=100 * SECOND, labels=lambda generation, rule: None):
    return trail.view(system or FakeSystem(), now=now, boottime=boottime, boot="b00t", host="h1\x1b", labels=labels)


def denial(sequence=0, **fields):
    values = dict(
        sequence=sequence,
        time=(50 + sequence) * SECOND,
        generation=3,
        action=0,
        verdict=2,
        uid=1000,
        euid=0,
        gid=1000,
        login_uid=1001,
        pid=42,
        tid=42,
        start_time=40 * SECOND + 12_345,
        device=8 << 20 | 2,
        path=b"a.csv\0exports\0",
        executable=b"cat\0bin\0usr\0",
        executable_device=8 << 20 | 1,
        cgroup=b"foo.service\0system.slice\0",
        rule=b"customers",
        inode=7,
    )
    return record(**{**values, **fields})


class Sink:
    def __init__(self):
        self.lines, self.refuses = [], None

    def deliver(self, lines):
        while lines:
            if self.refuses:
                raise OSError(self.refuses, os.strerror(self.refuses), "/journal")
            self.lines.append(lines.popleft())

    def count(self):
        return sum(line.count for line in self.lines)


class Unit:
    """The unit from one start to the next, over a ring that stays."""

    def __init__(self, folder, room=1 << 20):
        self.ring, self.journal, self.now = FakeRing(room), Sink(), 100 * SECOND
        self.path = str(folder / "state.json")
        self.sinks = {"journal": self.journal}
        self.start()

    def start(self, ring="ring"):
        self.collector = collector.Collector(
            self.ring,
            lambda: view(boottime=self.now, now=BOOT + self.now / 1e9),
            self.sinks,
            collector.adopt(collector.load(self.path), ring),
            self.path,
            lambda: self.now,
        )

    def turn(self, seconds=1, **how):
        self.now += seconds * SECOND
        return self.collector.turn(**how)

    def state(self):
        return collector.load(self.path)


@pytest.fixture
def unit(tmp_path):
    return Unit(tmp_path)


# ---- the record ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema():
    with open(os.path.join(ROOT, "schemas", "audit-record.schema.json"), encoding="utf-8") as file:
        found = json.load(file)
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def test_every_key_is_in_the_published_schema(schema):
    kinds = {int: "integer", str: "string", list: "array"}
    assert {key: kinds[kind] for key, kind in trail.KEYS.items()} == {
        key: each["type"] for key, each in schema.schema["properties"].items()
    }


def test_every_field_of_a_record_is_a_key():
    names = {field.name for kind in (trail.Decision, trail.Note) for field in dataclasses.fields(kind)}
    assert names | {"record"} == set(trail.KEYS)


def test_a_record_has_everything_that_is_known(schema):
    system = FakeSystem()
    system.processes[42] = {"stat": "42 (a) b) S 7 " + "0 " * 17 + "4000 0", "status": "Name:\ta\nGroups:\t1000 500 \n"}
    system.executables[7] = "/usr/bin/ba\x1bsh"
    found = trail.describe(denial(), view(system, labels=lambda generation, rule: ["customers"]))
    schema.validate(found.to_json())
    assert found.to_json() == {
        "record": 1,
        "kind": "decision",
        "time": "2023-11-14T22:14:10.000+00:00",
        "last_time": "2023-11-14T22:14:10.000+00:00",
        "boottime_ns": 50 * SECOND,
        "boot": "b00t",
        "host": "h1\\x1b",
        "count": 1,
        "sequence": 0,
        "last_sequence": 0,
        "generation": 3,
        "rule": "customers",
        "verdict": "denied",
        "action": "read",
        "errno": "EPERM",
        "reason": "rule",
        "labels": ["customers"],
        "user": "alice",
        "uid": 1000,
        "effective_user": "root",
        "euid": 0,
        "login_user": "bob",
        "login_uid": 1001,
        "gid": 1000,
        "groups": [500, 1000],
        "unit": "foo.service",
        "cgroup": "/system.slice/foo.service",
        "cgroup_id": 0,
        "executable": "/usr/bin/cat",
        "command": "cat",
        "pid": 42,
        "tid": 42,
        "pids": [42],
        "started": "2023-11-14T22:14:00.000+00:00",
        "process_started": 40 * SECOND + 12_345,
        "parent_pid": 7,
        "parent_executable": "/usr/bin/ba\\x1bsh",
        "object": "/srv/exports/a.csv",
        "path": "/srv/exports/a.csv",
        "inode": 7,
        "device": "8:2",
    }


def test_paths_are_the_hosts_where_the_unit_sees_others():
    system = FakeSystem()
    system.host, system.mounts = (
        system.mounts,
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 21 0:9 / /srv rw - tmpfs tmpfs ro\n",
    )
    assert trail.describe(denial(), view(system)).path == "/srv/exports/a.csv"


@pytest.mark.parametrize("stat_line", ["", "42 (cat) S 7", "42 (cat) S 7 " + "0 " * 17 + "4001 0"])
def test_a_process_that_has_ended_lends_nothing_to_the_next_of_its_number(stat_line, schema):
    system = FakeSystem()
    system.processes[42] = {"stat": stat_line, "status": "Groups:\t0\n"}
    system.executables[7] = "/bin/sh"
    found = trail.describe(denial(), view(system))
    assert not {"groups", "parent_pid", "parent_executable"} & set(found.to_json())
    schema.validate(found.to_json())


def test_what_is_only_reported_has_no_errno_and_a_network_event_no_path(schema):
    found = trail.describe(
        denial(
            verdict=1,
            action=3,
            device=0,
            inode=0,
            path=b"",
            family=2,
            address=b"\x0a\0\0\1",
            port=443,
            protocol=6,
            login_uid=0xFFFFFFFF,
        ),
        view(),
    )
    schema.validate(found.to_json())
    assert found.object == "10.0.0.1:443/tcp"
    assert not {"errno", "path", "device", "login_user"} & set(found.to_json())
    for kind in (trail.LOST, trail.UNREADABLE):
        schema.validate(trail.note(kind, 3, view(), SECOND, 8 if kind == trail.UNREADABLE else None).to_json())


@pytest.mark.parametrize(
    "wrong", [{"verdict": "allowed"}, {"count": 0}, {"color": "red"}, {"kind": "other"}, {"pid": "1"}]
)
def test_the_schema_refuses(schema, wrong):
    assert list(schema.iter_errors(dict(trail.describe(denial(), view()).to_json(), **wrong)))


def test_a_field_for_each_key_and_back():
    found = trail.describe(denial(), view(labels=lambda generation, rule: ["a", "b"]))
    found.pids = [42, 43]
    fields = trail.to_fields(found)
    assert dict(fields)["MESSAGE_ID"] == trail.MESSAGE_IDS["decision"] and dict(fields)["PRIORITY"] == "4"
    assert ("EXFIL_GUARD_RULE", "customers") in fields
    assert [value for name, value in fields if name == "EXFIL_GUARD_PIDS"] == ["42", "43"]
    entry = {}
    for name, value in fields:  # as `journalctl -o json` has it
        entry[name] = (
            value if name not in entry else (entry[name] if isinstance(entry[name], list) else [entry[name]]) + [value]
        )
    assert trail.from_fields(entry) == found
    entry["EXFIL_GUARD_COMMAND"] = list(b"c\x1bt")  # what is not plain text
    assert trail.harmless(trail.from_fields(entry)).command == "c\\x1bt"
    for key, value in (
        ("EXFIL_GUARD_PID", "x"),
        ("EXFIL_GUARD_RECORD", "2"),
        ("EXFIL_GUARD_KIND", "new"),
        ("EXFIL_GUARD_UID", None),
        ("EXFIL_GUARD_COUNT", {}),
    ):
        assert trail.from_fields(dict(entry, **{key: value})) is None


NASTY = b"\x1b[2J\n<script>alert(1)</script>\r\xff\xe2\x80\xaeMESSAGE=x"


def test_what_a_name_may_do_to_journal_terminal_and_json():
    data = denial(
        path=NASTY + b"\0",
        executable=NASTY + b"\0",
        comm=NASTY[:15],
        rule=NASTY,
        cgroup=NASTY + b"\0",
        executable_device=99,
    )
    found = trail.describe(data, view())
    encoded = journal.encode(trail.to_fields(found))
    assert all(line.split(b"=")[0].isupper() and b"=" in line for line in encoded.splitlines())
    assert encoded.count(b"\nMESSAGE=") == 0 and b"\x1b" not in encoded and b"\r" not in encoded
    assert trail.to_line(found).isprintable()
    assert all(value.isprintable() for value in found.to_json().values() if isinstance(value, str))
    assert json.dumps(found.to_json()).isascii()


def test_a_newline_in_a_value_ends_no_field():
    assert journal.encode([("A", "x\nB=y"), ("C", "z")]) == b"A\n\x05\0\0\0\0\0\0\0x\nB=y\nC=z\n"


def test_a_clock_that_is_set_back_changes_no_order():
    line = trail.describe(denial(1), view())
    line.extend(denial(2), view(now=BOOT - 3600))
    assert line.last_time < line.time and line.sequence < line.last_sequence and line.boottime_ns == 51 * SECOND


class Documents:
    def __init__(self):
        self.loads = []

    def load(self, generation):
        self.loads.append(generation)
        if generation != 3:
            return None
        resolved = {
            "subjects": {"readers": {"has_read": ["b"]}, "more": {"has_read": ["a"]}, "alice": {}},
            "rules": [
                {"name": "labelled", "subjects": ["readers", "more"]},
                {"name": "mixed", "subjects": ["readers", "alice"]},
                {"name": "all", "subjects": None},
            ],
        }
        return Stored(3, {}, "digest", resolved, True, "2026-06-01T00:00:00+00:00")


def test_a_record_has_labels_only_if_the_rule_binds_by_them_alone():
    store = Documents()
    documents = trail.Documents(store)
    assert [documents.labels(3, name) for name in ("labelled", "mixed", "all", "none")] == [
        ["a", "b"],
        None,
        None,
        None,
    ]
    assert store.loads == [3] and documents.labels(4, "all") is None


# ---- aggregation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "same",
    [
        {"sequence": 9},
        {"time": 9},
        {"pid": 9, "tid": 9, "start_time": 9},
        {"comm": b"other"},
        {"inode": 9},
        {"cgroup_id": 9},
    ],
)
def test_the_same_subject_rule_and_object(same):
    assert aggregate.key(denial(**same)) == aggregate.key(denial())


@pytest.mark.parametrize(
    "other",
    [
        {"uid": 1},
        {"euid": 1},
        {"gid": 1},
        {"login_uid": 1},
        {"executable": b"dog\0bin\0usr\0"},
        {"executable_device": 1},
        {"cgroup": b"bar.service\0system.slice\0"},
        {"rule": b"others"},
        {"rule_id": 1},
        {"reason": 1},
        {"verdict": 1},
        {"generation": 4},
        {"action": 1},
        {"path": b"b.csv\0exports\0"},
        {"device": 1},
        {"family": 2},
        {"port": 1},
        {"protocol": 6},
        {"address": b"\x01"},
    ],
)
def test_another_subject_rule_or_object(other):
    assert aggregate.key(denial(**other)) != aggregate.key(denial())


def test_what_lies_behind_the_end_of_a_path_does_not_count():
    data = denial()
    assert aggregate.key(data[:300] + b"\xaa" * 100 + data[400:]) == aggregate.key(data)
    assert aggregate.key(denial(path=b"", inode=1)) != aggregate.key(
        denial(path=b"", inode=2)
    )  # distinguished by its number alone


def test_a_flood_is_few_lines_that_add_up(unit):
    for burst in range(50):
        unit.ring.put(*(denial(burst * 20 + each, pid=each) for each in range(20)))
        assert unit.turn(0.5)
    unit.turn(11)
    assert len(unit.journal.lines) <= 5 and unit.journal.count() == 1000
    first = unit.journal.lines[0]
    assert (first.count, first.sequence, first.last_sequence) == (20, 0, 19)
    assert first.pids == list(range(16))
    assert sorted((line.sequence, line.last_sequence) for line in unit.journal.lines)[-1][1] == 999
    assert ", 20 times until 2023-" in trail.to_line(first)


def test_the_first_of_a_kind_is_reported_at_once_and_forgotten_after_the_window(unit):
    for wait, sequence in ((1, 0), (25, 1)):
        unit.ring.put(denial(sequence))
        unit.turn(wait)
        assert unit.journal.count() == sequence + 1
    unit.turn(11)
    unit.turn(11)
    assert unit.collector.aggregator.held == {} and not unit.collector.busy()


def test_the_number_of_held_kinds_is_bounded_and_nothing_is_lost(unit):
    for sequence in range(3 * aggregate.MAX_KINDS):
        unit.ring.put(denial(2 * sequence, port=sequence), denial(2 * sequence + 1, port=sequence))
        if sequence % 100 == 0:
            unit.turn(0)
    unit.turn(0)
    assert len(unit.collector.aggregator.held) <= aggregate.MAX_KINDS
    unit.turn(0, ending=True)
    assert unit.journal.count() == 6 * aggregate.MAX_KINDS == unit.state().collected


# ---- every event counts -------------------------------------------------------------------------------------------


def test_while_the_journal_takes_nothing_events_wait_and_then_are_lost(tmp_path, capsys):
    unit = Unit(tmp_path, room=30)
    unit.journal.refuses = errno.ECONNREFUSED
    for sequence in range(100):
        unit.ring.put(denial(sequence, port=sequence))
        assert not unit.turn()
    taken, lost = unit.ring.consumer, unit.ring.lost
    assert (taken, lost) == (1, 69)  # one is in the unit's hands, thirty wait
    assert collector.status(unit.path, str(tmp_path / "lock")).failing == ["/journal: Connection refused"]
    assert capsys.readouterr().err.count("stalled: /journal: Connection refused") == 1
    unit.journal.refuses = None
    unit.ring.put(denial(100, port=100))  # still no room
    assert unit.turn() and unit.turn()
    unit.ring.put(denial(101, port=101))
    unit.turn()
    unit.turn(0)
    decisions = [line for line in unit.journal.lines if line.kind == "decision"]
    assert sum(line.count for line in decisions) + unit.ring.lost == 102
    assert sum(line.count for line in unit.journal.lines if line.kind == "lost") == unit.ring.lost == 70
    assert collector.status(unit.path, str(tmp_path / "lock")).failing == []
    assert "resumed (journal)" in capsys.readouterr().err


class Killed(BaseException):
    """What ends the unit at a step."""


def killed_after(steps, folder, monkeypatch):
    """Runs the unit, kills it once after so many steps and starts it again. A step changes the state, the ring buffer or
    the journal. Returns whether it was killed: it may need fewer steps."""
    left = [steps]

    def step():
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    folder.mkdir()
    unit = Unit(folder)
    advance, replace, popleft = unit.ring.advance, os.replace, unit.journal.deliver

    def deliver(lines):
        while lines:
            step()
            one = collections.deque([lines[0]])
            popleft(one)
            step()
            lines.popleft()

    unit.journal.deliver = deliver
    unit.ring.advance = lambda position: (step(), advance(position), step())
    monkeypatch.setattr(collector.os, "replace", lambda *paths: (step(), replace(*paths), step()))
    killed = False
    for turn in range(4):
        unit.ring.put(denial(2 * turn, port=turn % 2), denial(2 * turn + 1, port=turn % 2))
        try:
            unit.turn(3)
        except Killed:
            killed = True
            left[0] = 1000
            unit.start()
    left[0] = 1000
    unit.turn(11)
    unit.turn(0, ending=True)
    spans = {(line.sequence, line.last_sequence): line.count for line in unit.journal.lines}
    assert sum(spans.values()) == 8, (steps, unit.journal.lines)  # delivered twice: the same numbers
    assert unit.state().collected == 8 == unit.ring.consumer
    monkeypatch.undo()
    return killed


def test_killed_at_every_step_it_loses_nothing(tmp_path, monkeypatch):
    for steps in range(60):
        if not killed_after(steps, tmp_path / str(steps), monkeypatch):
            break
    else:
        pytest.fail("it was killed at the last step, too")
    assert steps > 15


def full(*_unused):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_under_the_state_takes_nothing_from_the_ring(unit, monkeypatch):
    unit.ring.put(denial())
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert not unit.turn() and not unit.turn()
    assert unit.ring.consumer == 0 and unit.journal.lines == []
    assert unit.turn() and unit.ring.consumer == 1 and unit.journal.count() == 1
    assert unit.state().collected == 1


def test_a_damaged_state_is_none(unit):
    for text in ("", "{", "[]", '{"version": 1}', json.dumps(dict(collector.State("ring").to_json(), version=2))):
        with open(unit.path, "w", encoding="ascii") as file:
            file.write(text)
        assert unit.state() is None
        unit.start()
        assert unit.turn()


def test_a_new_ring_buffer_begins_a_new_state_and_held_records_are_delivered(unit):
    unit.ring.put(denial(0), denial(1))
    unit.turn()
    unit.ring.put(denial(2))
    unit.turn()
    assert unit.state().collected == 3 and unit.journal.count() == 2
    unit.ring = FakeRing()
    unit.ring.put(denial(0, port=1))
    unit.start("another")
    unit.turn(11)
    assert unit.journal.count() == 4 and unit.state().collected == 1 == unit.state().position


def test_gaps_are_noted_when_the_ring_buffer_is_empty(unit):
    unit.ring.put(denial(5), denial(7), denial(0, verdict=1))  # 6 is a little late
    unit.collector.turn()
    unit.ring.put(denial(6))
    unit.turn()
    kinds = [line.kind for line in unit.journal.lines]
    assert kinds.count("lost") == 1  # noted when the ring buffer was empty, before 6 came
    unit.ring.put(denial(20), denial(1, verdict=1))
    unit.turn()
    unit.turn()
    assert [line.count for line in unit.journal.lines if line.kind == "lost"] == [1, 11]


def test_events_of_another_layout_are_counted_and_noted(unit):
    unit.ring.put(b"old" * 300, denial(1), b"old" * 300, b"new")
    unit.turn()
    notes = {line.size: line.count for line in unit.journal.lines if line.kind == "unreadable"}
    assert notes == {900: 2, 3: 1} and unit.state().unreadable == 3 and unit.state().collected == 4
    assert "2 events of 900 bytes are not of layout 1" in "".join(map(trail.to_line, unit.journal.lines))


# ---- where it goes ------------------------------------------------------------------------------------------------


def test_the_journal_by_its_socket(tmp_path):
    path = str(tmp_path / "journal")
    lines = collections.deque([trail.describe(denial(number), view()) for number in range(3)])
    sink = journal.Journal(path)
    with pytest.raises(FileNotFoundError):
        sink.deliver(lines)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        sink.deliver(collections.deque([lines.popleft()]))
        assert b"\nEXFIL_GUARD_RULE=customers\n" in listener.recv(1 << 16)
    with pytest.raises(ConnectionRefusedError):
        sink.deliver(lines)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:  # started again
        listener.bind(path)
        sink.deliver(lines)
        assert not lines
        many = collections.deque([trail.describe(denial(number), view()) for number in range(5000)])
        with pytest.raises(OSError, match="the journal does not accept entries"):
            sink.deliver(many)  # nobody reads
        arrived = 0
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                listener.recv(1 << 16)
                arrived += 1
        assert arrived == 2 + 5000 - len(many) > 2


def test_json_lines_are_whole_or_not_there(tmp_path):
    path = tmp_path / "audit.jsonl"
    sink = journal.File(str(path))
    sink.deliver(collections.deque())
    assert not path.exists()
    sink.deliver(collections.deque([trail.describe(denial(0), view())]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.rename(path, tmp_path / "moved")  # by logrotate
    sink.deliver(collections.deque([trail.describe(denial(number), view()) for number in (1, 2)]))
    assert [json.loads(line)["sequence"] for line in path.read_text().splitlines()] == [1, 2]
    path.unlink()
    os.symlink(tmp_path / "moved", path)
    with pytest.raises(OSError):
        sink.deliver(collections.deque([trail.describe(denial(3), view())]))
    assert len((tmp_path / "moved").read_text().splitlines()) == 1


FILLED = """
import collections, resource, signal, sys
sys.path[:0] = sys.argv[2:]
from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
class Entry:
    def __init__(self, number):
        self.number = number

    def to_json(self):
        return {"n": self.number, "text": "x" * 300}


lines = collections.deque(map(Entry, range(5)))
try:
    journal.File(sys.argv[1]).deliver(lines)
except OSError as error:
    print(error.strerror, len(lines))
"""


def test_a_disk_that_is_full_leaves_no_half_line(tmp_path):
    path = tmp_path / "audit.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FILLED, str(path), os.path.join(ROOT, "collections")], capture_output=True, text=True
    )
    assert done.stdout == "No space left on device 2\n", done.stderr
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [0, 1, 2]


def test_a_file_that_takes_nothing_does_not_hold_up_the_journal(unit):
    file = Sink()
    file.refuses = errno.ENOSPC
    unit.sinks["file"] = file
    unit.start()
    for number in range(collector.MAX_FILE_RECORDS + 20):
        unit.ring.put(denial(number, port=number))
        unit.turn(0)
    assert unit.journal.count() == collector.MAX_FILE_RECORDS + 20
    found = unit.state()
    assert (len(found.outbox["file"]), found.file_lost) == (collector.MAX_FILE_RECORDS, 20)
    assert found.failing == {"file": "/journal: No space left on device"}
    file.refuses = None
    unit.start()
    unit.turn(0)
    assert file.count() == collector.MAX_FILE_RECORDS and unit.state().outbox == {"journal": [], "file": []}


def test_the_status_without_a_unit(tmp_path):
    assert collector.status(str(tmp_path / "none"), str(tmp_path / "lock"), str(tmp_path / "unit")) is None
    (tmp_path / "unit").write_text("")
    found = collector.status(str(tmp_path / "none"), str(tmp_path / "lock"), str(tmp_path / "unit"))
    assert found.running is False and found.collected == 0


def test_names_are_looked_up_once():
    class Slow(FakeSystem):
        asked = 0

        def user_name(self, number):
            Slow.asked += 1
            return None

    names = collector._CachedNames(Slow())
    assert [names.user_name(7), names.user_name(7), names.host_mounts() != ""] == [None, None, True] and Slow.asked == 1
