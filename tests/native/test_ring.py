# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit unit's reader against a ring buffer of this machine's kernel. A program that is attached to nothing, and that
only a test run starts, writes events and counts as guard_tell does; nothing of the enforcement is loaded."""

from __future__ import annotations

import collections
import ctypes
import os
import socket
import struct
import sys
import threading
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for folder in (os.path.join(ROOT, "collections"), os.path.join(ROOT, "tests", "unit"), os.path.join(ROOT, "tests", "unit", "host")):
    if folder not in sys.path:
        sys.path.insert(0, folder)

from ansible_collections.exfil.guard.plugins.module_utils.guard import audit, journal, kernel, trail  # noqa: E402
from fake_system import FakeSystem  # noqa: E402
from test_audit import denial  # noqa: E402

EVENT, PROG_LOAD, TEST_RUN, SOCKET_FILTER = 1280, 5, 10, 1
BURST = 100_000


def instruction(code, destination=0, source=0, offset=0, immediate=0):
    return struct.pack("<BBhi", code, source << 4 | destination, offset, immediate)


def a_map(register, fd):
    return instruction(0x18, register, 1, 0, fd) + instruction(0)


def increment(offset):
    """r8 = ++*(u64 *)(r7 + offset)"""
    return [instruction(0x79, 8, 7, offset), instruction(0x07, 8, immediate=1), instruction(0x7B, 7, 8, offset)]


def program(ring, counts):
    """The value of ``counts``: an event, then how many were decided, written, lost. Each run decides one."""
    return b"".join([
        instruction(0x62, 10, offset=-4), instruction(0xBF, 2, 10), instruction(0x07, 2, immediate=-4), a_map(1, counts),
        instruction(0x85, immediate=1), instruction(0x15, 0, offset=20), instruction(0xBF, 7, 0),  # map_lookup_elem
        instruction(0x79, 8, 7, EVENT), instruction(0x7B, 7, 8, 0), *increment(EVENT),  # its sequence number
        a_map(1, ring), instruction(0xBF, 2, 7), instruction(0xB7, 3, immediate=EVENT), instruction(0xB7, 4),
        instruction(0x85, immediate=130), instruction(0x55, 0, offset=4),  # ringbuf_output
        *increment(EVENT + 8), instruction(0x05, offset=3), *increment(EVENT + 16),
        instruction(0xB7, 0), instruction(0x95)])


class Writer:
    def __init__(self):
        self.kernel = kernel.Kernel()
        self.ring = self.kernel.create_map("test_events", kernel.MapSpec(kernel.RINGBUF, 0, 0, 1 << 20))
        self.counts = self.kernel.create_map("test_counts", kernel.MapSpec(kernel.ARRAY, 4, EVENT + 24, 1))
        self.kernel.update(self.counts, bytes(4), denial() + bytes(24))
        code, licence = ctypes.create_string_buffer(program(self.ring, self.counts)), ctypes.create_string_buffer(b"GPL")
        attr = struct.pack("=IIQQ", SOCKET_FILTER, (len(code) - 1) // 8, ctypes.addressof(code), ctypes.addressof(licence))
        self.program = self.kernel._bpf(PROG_LOAD, attr, "load program")[0]
        self.packet = ctypes.create_string_buffer(64)

    def decide(self, times):
        attr = struct.pack("=IIIIQQI", self.program, 0, 64, 0, ctypes.addressof(self.packet), 0, times)
        self.kernel._bpf(TEST_RUN, attr, "run program")

    def counted(self):
        return struct.unpack_from("=3Q", self.kernel.lookup(self.counts, bytes(4)), EVENT)

    def close(self):
        for fd in (self.program, self.ring, self.counts):
            os.close(fd)


@pytest.fixture
def writer():
    try:
        found = Writer()
    except OSError as error:
        pytest.skip("no BPF here: {0}".format(error))
    yield found
    found.close()


def collector(writer, folder, sinks):
    def view():
        return trail.view(FakeSystem(), now=time.time(), boottime=time.monotonic_ns(), boot="b", host="h", labels=lambda *_: None)

    state = audit.adopt(audit.load(str(folder / "state")), "ring")
    return audit.Collector(writer.kernel.ring(writer.ring, True), view, sinks, state, str(folder / "state"), time.monotonic_ns, 1)


def test_what_has_no_room_is_lost_and_the_rest_waits(writer):
    writer.decide(2000)
    decided, written, lost = writer.counted()
    assert decided == 2000 == written + lost and lost > 0
    with writer.kernel.ring(writer.ring, False) as ring:
        batch = ring.peek()
        assert len(batch.records) == written and ring.peek() == batch
        assert [struct.unpack_from("=Q", each)[0] for each in batch.records] == list(range(written))
    with writer.kernel.ring(writer.ring, True) as ring:
        ring.advance(batch.end)
        assert ring.peek().records == [] and writer.counted()[2] == lost
        writer.decide(1)
        assert struct.unpack_from("=Q", ring.peek().records[0])[0] == 2000


def test_a_burst_while_the_unit_reads_and_is_started_again(writer, tmp_path):
    """Told + lost = decided, exactly."""
    told, ended = [], threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "journal"))
        listener.settimeout(0.2)

        def journald():
            while True:
                try:
                    told.append(listener.recv(1 << 16))
                except socket.timeout:
                    if ended.is_set():
                        return

        def burst():
            for _ in range(BURST // 100):
                writer.decide(100)
                time.sleep(0)

        threads = [threading.Thread(target=each) for each in (journald, burst)]
        for each in threads:
            each.start()
        sinks = {"journal": journal.Journal(str(tmp_path / "journal"))}
        began, unit, turns = time.process_time(), collector(writer, tmp_path, sinks), 0
        while threads[1].is_alive() or unit.state["collected"] < writer.counted()[1]:
            unit.turn()
            turns += 1
            if turns == 50:
                unit = collector(writer, tmp_path, sinks)  # as after a kill
        assert unit.turn(ending=True)
        spent = time.process_time() - began
        ended.set()
        for each in threads:
            each.join()
    decided, written, lost = writer.counted()
    assert decided == BURST == written + lost
    lines = collections.Counter()
    for entry in told:
        fields = dict(line.split("=", 1) for line in entry.decode().splitlines())
        lines[fields["EXFIL_GUARD_KIND"]] += int(fields["EXFIL_GUARD_COUNT"])
    assert lines["decision"] == written == audit.load(str(tmp_path / "state"))["collected"]
    assert lines["lost"] <= lost
    print("{0} decided = {1} written + {2} lost, in {3} lines, {4} turns, {5:.1f} s of processor time".format(
        decided, written, lost, len(told), turns, spent))
