# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import mmap
import os
import struct
import tempfile

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import events
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import lock
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import ring
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import enforcer
from fake_kernel import FakeKernel
from fake_system import FakeSystem


def record(**fields):
    values = dict.fromkeys(layout.Event._fields, 0)
    values.update(address=b"", comm=b"cat", rule=b"no", path=b"", executable=b"", cgroup=b"")
    values.update(fields)
    for key in ("path", "executable", "cgroup"):
        values[key + "_size"] = len(values[key])
    return layout.EVENT.pack(layout.Event(**values))


def decoded(**fields):
    return events.decode_all([record(**fields)], FakeSystem(), 0)[0]


def test_the_struct_is_the_kernels():
    assert layout.EVENT.size == 1280


def test_a_file():
    event = decoded(
        action=0,
        verdict=2,
        uid=1000,
        device=8 << 20 | 2,
        path=b"a.csv\0exports\0",
        login_uid=0xFFFFFFFF,
        executable=b"cat\0bin\0usr\0",
        executable_device=8 << 20 | 1,
        cgroup=b"foo.service\0system.slice\0",
    )
    assert event.target.path == "/srv/exports/a.csv" and event.executable == "/usr/bin/cat"
    assert (event.user, event.unit, event.cgroup) == ("alice", "foo.service", "/system.slice/foo.service")
    assert event.login_uid is None
    line = events.to_line(event)
    assert "denied read /srv/exports/a.csv by alice (/usr/bin/cat, pid 0, foo.service): rule 'no'" in line


def test_an_address():
    event = decoded(action=3, verdict=1, family=2, address=b"\x0a\0\0\1", port=443, protocol=6)
    assert "audit  connect 10.0.0.1:443/tcp" in events.to_line(event)
    assert decoded(family=10, address=b"\xfd" + bytes(15), protocol=17).target.address == "fd00::"


def test_what_a_name_may_do_to_a_terminal():
    event = decoded(path=b"\x1b[2J\n\xff\\\xe2\x80\xae\0", device=8 << 20 | 1, comm=b"\rx")
    assert event.target.path == "/\\x1b[2J\\x0a\\xff\\\\\\xe2\\x80\\xae" and event.command == "\\x0dx"
    assert events.to_line(event).isprintable()


def test_unknown_devices_and_cut_paths():
    assert decoded(path=b"x\0", device=99).target.path == "[device 0:99]/x"
    assert decoded(path=b"y" * 200 + b"\0" + b"z" * 70 + b"\0", device=8 << 20 | 1).target.path.startswith("[...]/zz")


def test_a_connection_that_is_not_by_internet():
    event = decoded(action=10, verdict=2, family=40, address=b"\0\0\0\x02", port=1024)
    assert "denied vsock vsock:2 port 1024 by" in events.to_line(event)
    assert decoded(family=21, protocol=0).target.address is None


def test_an_action_without_an_object_and_an_abstract_socket():
    event = decoded(action=65, verdict=2, uid=0)
    assert (
        event.target is None
        and not {"path", "address"} & set(event.to_json())
        and " denied mount by root (" in events.to_line(event)
    )
    assert decoded(path=b"/x\x1b\0", device=0xFFFFFFFF).target.path == "@/x\\x1b"


def test_the_ring():
    size = mmap.PAGESIZE
    wanted = [record(sequence=number) for number in range(2)]
    with tempfile.TemporaryFile() as file:

        def put(at, data):
            for copy in (0, size):
                for i, byte in enumerate(data):
                    os.pwrite(file.fileno(), bytes([byte]), 2 * mmap.PAGESIZE + copy + (at + i) % size)

        os.ftruncate(file.fileno(), 2 * mmap.PAGESIZE + 2 * size)
        start = at = size - 600 - 600 % 8 + size  # over the edge
        for length, data in ((1280, wanted[0]), (16 | ring._DISCARD, bytes(16)), (1280, wanted[1])):
            put(at, struct.pack("=II", length, 0) + data)
            at += 8 + len(data)
        put(at, struct.pack("=II", 16 | ring._BUSY, 0))
        os.pwrite(file.fileno(), struct.pack("=Q", start), 0)
        os.pwrite(file.fileno(), struct.pack("=Q", at + 24), mmap.PAGESIZE)
        with ring.Ring(file.fileno(), size, False) as buffer:
            assert buffer.peek().records == wanted and buffer.positions() == (start, at + 24)
        with ring.Ring(file.fileno(), size, True) as buffer:
            first = buffer.peek(1)
            assert first == ring.Batch(wanted[:1], start, start + 1288)
            buffer.advance(first.end)
            rest = buffer.peek()
            assert rest.records == wanted[1:] and rest.end == at
            buffer.advance(rest.end)
            assert buffer.peek() == ring.Batch([], at, at)
        assert struct.unpack("=Q", os.pread(file.fileno(), 8, 0))[0] == at


@pytest.mark.parametrize(
    "data",
    [
        b"short",
        record() + bytes(8),
        record(verdict=7),
        record(verdict=2, reason=16)[:1280],
        record()[:240] + struct.pack("=I", 513) + record()[244:],
        record()[:244] + struct.pack("=I", 257) + record()[248:],
    ],
)
def test_an_event_of_another_layout_is_reported_and_not_decoded(data):
    (event,) = events.decode_all([data], FakeSystem(), 0)
    content = event.to_json()
    assert content["verdict"] == "unreadable" and content["size"] == len(data) and content["rule"] is None
    assert events.to_line(event) == f"an event of {len(data)} bytes is not of layout 1 and was not read"
    assert set(decoded(verdict=2).to_json()) >= set(events.KEYS) and set(content) == {*events.KEYS, "size"}


def test_taking_is_left_to_the_unit_while_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "LOCK", str(tmp_path / "lock"))
    kernel = FakeKernel()
    enforcer.ensure(kernel, b"object")
    kernel.buffer.put(record(verdict=2))
    with lock.hold(events.COLLECTOR, events.LOCK):
        with pytest.raises(EnforcerError, match=r"exfil-guard-audit\.service takes the events\. Read them there"):
            events.read(kernel, FakeSystem(), take=True)
        assert len(events.read(kernel, FakeSystem())) == 1
    assert lock.holder(events.LOCK) == ""
    assert len(events.read(kernel, FakeSystem(), take=True)) == 1 and events.read(kernel, FakeSystem()) == []
