# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The enforcer, used through its own package as its modules use it."""

import datetime
import functools
import hashlib
import json
import mmap
import os
import signal
import struct
import traceback
from typing import NamedTuple

OBJECT = "/usr/lib/exfil-guard/guard.bpf.o"


# The numbers of struct guard_event in their order: eight bytes each, then four bytes each. They are listed here a second
# time on purpose: the guest checks do not read events with the code that they test.
WIDE = ["sequence", "time", "generation", "rule_id", "start_time", "cgroup_id", "inode"]
NARROW = [
    "device",
    "executable_device",
    "action",
    "verdict",
    "reason",
    "pid",
    "tid",
    "uid",
    "euid",
    "gid",
    "login_uid",
    "family",
    "protocol",
    "port",
]


class Event(NamedTuple):
    """What the checks look at of struct guard_event."""

    generation: int
    inode: int
    device: int
    action: int
    verdict: int
    reason: int
    pid: int
    uid: int
    family: int
    protocol: int
    port: int
    address: bytes
    comm: str
    rule: str
    path: str
    executable: str
    cgroup: str

    @classmethod
    def of(cls, raw):
        numbers = dict(zip(WIDE + NARROW, struct.unpack_from(f"={len(WIDE)}Q{len(NARROW)}I", raw)))
        sizes = struct.unpack_from("=3I", raw, 240)

        def text(data):
            return data.split(b"\0")[0].decode()

        def path(start, size):
            return "/" + "/".join(
                os.fsdecode(part) for part in reversed(raw[start : start + size].split(b"\0")) if part
            )

        return cls(
            **{name: number for name, number in numbers.items() if name in cls._fields},
            address=raw[112:128],
            comm=text(raw[128:144]),
            rule=text(raw[144:240]),
            path=path(256, sizes[0]),
            executable=path(768, sizes[1]),
            cgroup=path(1024, sizes[2]),
        )


class Enforcer:
    """The product, used as its modules use it, each step in a child that ends: nothing of ours stays alive."""

    def __init__(self):
        self.generation = 0

    @functools.cached_property
    def kernel(self):
        from exfil_guard.kernel.bpf import Kernel

        return Kernel()

    def _parts(self):
        from exfil_guard.host import store, system

        return self.kernel, system.System(), store.Store("/var/lib/exfil-guard")

    def _report(self, operation):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                answer = {"result": operation()}
            except BaseException as error:
                answer = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
            with os.fdopen(writer, "wb") as stream:
                stream.write(json.dumps(answer, default=str).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            answer = stream.read()
        os.waitpid(child, 0)
        return json.loads(answer or b'{"error": "the child died", "trace": ""}')

    def _result(self, operation):
        answer = self._report(operation)
        if "error" in answer:
            raise AssertionError(answer["error"] + "\n" + answer["trace"])
        return answer["result"]

    def install(self, data=None):
        def operation():
            from exfil_guard.attest import certificate
            from exfil_guard.lifecycle import enforcer

            given = data
            if given is None:
                with open(OBJECT, "rb") as file:
                    given = file.read()
            result = enforcer.ensure(self.kernel, given, check=False)
            if result["changed"]:
                certificate.issue(self.kernel, self._parts()[2], result["version"])
            return result

        return self._result(operation)

    def apply(self, document, confirm_seconds=0, check=False):
        def operation():
            from exfil_guard.lifecycle import apply
            from exfil_guard.lifecycle.context import Context, Options

            now = datetime.datetime.now(datetime.timezone.utc).date()
            context = Context(*self._parts(), now, Options(check=check, confirm_seconds=confirm_seconds))
            return apply.apply(context, finished(document))

        result = self._result(operation)
        self.generation = result["generation"]
        return result

    def refresh(self):
        """What the host's timer does; the line that it prints."""

        def operation():
            from exfil_guard.lifecycle import boot
            from exfil_guard.lifecycle.context import Context

            now = datetime.datetime.now(datetime.timezone.utc).date()
            return boot.refresh(Context(*self._parts(), now))

        return self._result(operation)

    def confirm(self, generation):
        """The error's text, or None."""

        def operation():
            from exfil_guard.lifecycle import confirm

            kernel, _system, store = self._parts()
            return confirm.confirm(kernel, store, generation)

        return self._report(operation).get("error")

    def remove(self):
        def operation():
            from exfil_guard.lifecycle import enforcer

            return enforcer.remove(self.kernel, self._parts()[2], check=False)

        return self._result(operation)

    def drop(self):
        """No policy; the enforcer stays loaded."""

        def operation():
            from exfil_guard.lifecycle import confirm

            kernel, _system, store = self._parts()
            return confirm.remove(kernel, store)

        return self._result(operation)

    def table(self, name):
        fd = self.kernel.get("/sys/fs/bpf/exfil_guard/v1/maps/" + name)
        try:
            return self.kernel.read_all(fd)
        finally:
            os.close(fd)

    def totals(self):
        """denied, audited, written, lost, and the list of reasons."""
        numbers = struct.unpack("=21Q", next(iter(self.table("totals").values())))
        return {
            "denied": numbers[0],
            "audited": numbers[1],
            "written": numbers[2],
            "lost": numbers[3],
            "reasons": numbers[4:20],
        }

    def events(self):
        """What the ring buffer holds, read without the product's reader; it is empty afterwards."""
        fd = self.kernel.get("/sys/fs/bpf/exfil_guard/v1/maps/events")
        size = self.kernel.map_info(fd).spec.max_entries
        mine = mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        ring = mmap.mmap(fd, 4096 + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=4096)
        os.close(fd)
        at, end = struct.unpack_from("=Q", mine)[0], struct.unpack_from("=Q", ring)[0]
        found = []
        while at < end:
            start = 4096 + at % size
            length = struct.unpack_from("=I", ring, start)[0]
            if not length & (1 << 31 | 1 << 30):
                found.append(Event.of(ring[start + 8 : start + 8 + length]))
            at += ((length & ~(1 << 30 | 1 << 31)) + 8 + 7) // 8 * 8
        struct.pack_into("=Q", mine, 0, at)
        return found

    def told(self):
        """What the product's own reader makes of the events that wait."""

        def operation():
            from exfil_guard.audit import events
            from exfil_guard.host import system

            return [event.to_json() for event in events.read(self.kernel, system.System(), take=True)]

        return self._result(operation)

    def counter(self, rule):
        key = hashlib.sha256(rule.encode()).digest()[:8]
        return struct.unpack("=QQ", self.table("counters").get(key, bytes(16)))


def finished(document):
    """A document as the controller would send it: canonical, the parts left out filled in."""
    whole = {
        "policy": 1,
        "mode": "enforce",
        "boot": "require",
        "subjects": {},
        "resources": {},
        "destinations": {},
        "rules": [],
        "assertions": [],
    }
    whole.update(document)
    whole["rules"] = sorted(whole["rules"], key=lambda rule: rule["name"])
    return whole
