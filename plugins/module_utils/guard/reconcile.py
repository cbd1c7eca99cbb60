# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is pinned, and the generations in it: read the live one back, write the next one, switch with one store.

Three slots: the active generation's, its fallback's and an idle one. Only the idle one is ever written. Its maps are
fresh, read back, compared and frozen before the record names them. Killed at any step, the old record stands."""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, Iterable, Mapping, NamedTuple

from . import kernel as kernel_module
from . import layout
from .errors import EnforcerError
from .kernel import ARRAY, ARRAY_OF_MAPS, HASH, INNER_MAP, LPM_TRIE, NO_PREALLOC, Kernel, MapSpec

LAYOUT = layout.LAYOUT
SLOTS = layout.SLOTS
NO_SLOT = 0xFFFFFFFF
SECOND = 1_000_000_000
CROWD = 1  # the cell of those for whom there is no room
CREDS_HOOK = "cred_free"
# who a task is; attached with any policy, and first
IDENTITY_HOOKS = ("bprm_committed_creds", CREDS_HOOK, "task_alloc")
# which side a connection is from: attached before the hooks that ask
DIRECTION_HOOKS = ("sctp_sk_clone", "socket_accept", "socket_connect", "socket_listen")
# what a task carries; labels hold while these are attached
FOLLOWING_HOOKS = ("bprm_committed_creds", "task_alloc", "bprm_creds_for_exec")

# the tables of a generation: the inner maps' type, key and value sizes and flags; entries as many as there are
TABLES: dict[str, MapSpec] = {
    "policy": MapSpec(ARRAY, 4, layout.POLICY.size, 1),
    "subjects": MapSpec(ARRAY, 4, layout.SUBJECT.size, 1, INNER_MAP),
    "destinations": MapSpec(ARRAY, 4, layout.DESTINATION.size, 1, INNER_MAP),
    "ids": MapSpec(HASH, layout.ID_KEY.size, 8, 1),
    "ipv4": MapSpec(LPM_TRIE, layout.IPV4_KEY.size, 8, 1, NO_PREALLOC),
    "ipv6": MapSpec(LPM_TRIE, layout.IPV6_KEY.size, 8, 1, NO_PREALLOC),
    "ports": MapSpec(LPM_TRIE, layout.PORT_KEY.size, 8, 1, NO_PREALLOC),
    "vsock": MapSpec(LPM_TRIE, layout.VSOCK_KEY.size, 8, 1, NO_PREALLOC),
    "devices": MapSpec(HASH, layout.DEVICE_KEY.size, 4, 1),
    "labels": MapSpec(ARRAY, 4, layout.LABEL.size, 1, INNER_MAP),
    "superblocks": MapSpec(HASH, 4, 4, 1),
    "states": MapSpec(ARRAY, 4, layout.STATE.size, 1, INNER_MAP),
    "edges": MapSpec(HASH, layout.EDGE_KEY.size, 4, 1),
    "bytes": MapSpec(ARRAY, 4, layout.BYTES.size, 1, INNER_MAP),
    "rules": MapSpec(ARRAY, 4, layout.RULE.size, 1, INNER_MAP),
}
RECORD = MapSpec(ARRAY, 4, layout.RECORD.size, 1)
OUTER = MapSpec(ARRAY_OF_MAPS, 4, 4, SLOTS)
CONTROL = MapSpec(ARRAY_OF_MAPS, 4, 4, 1)

# the maps that outlive a generation; STORAGES hold caches, whose values may change with the object
MAPS: dict[str, MapSpec] = dict(
    {name: OUTER for name in TABLES},
    control=CONTROL,
    events=MapSpec(kernel_module.RINGBUF, 0, 0, 1 << 20),
    counters=MapSpec(HASH, 8, 16, 8192),
    totals=MapSpec(ARRAY, 4, layout.TOTALS.size, 1),
    facts=MapSpec(ARRAY, 4, layout.FACTS.size, 1),
    our=MapSpec(HASH, layout.OUR_KEY.size, 4, 1024),
    listeners=MapSpec(ARRAY, 4, 8, 65536 // 64),
    carriers=MapSpec(HASH, 8, layout.CARRIER.size, layout.CARRIERS, NO_PREALLOC),
    cells=MapSpec(HASH, layout.CELL_KEY.size, layout.CELL.size, layout.CELLS, NO_PREALLOC),
    wires=MapSpec(HASH, 8, layout.MARK.size, layout.WIRES, NO_PREALLOC),
    kept=MapSpec(HASH, layout.KEPT_KEY.size, layout.KEPT.size, layout.KEPT_FILES, NO_PREALLOC),
)
STORAGES = ("tasks", "inodes", "spare", "blank", "known", "covered", "readings", "marked_files", "sockets", "marks")

_ZERO = struct.pack("=I", 0)

Tables = Dict[str, Dict[bytes, bytes]]


class Record(NamedTuple):
    """struct guard_record: what one pointer store exchanges."""

    generation: int
    deadline: int  # CLOCK_BOOTTIME ns; 0: confirmed
    fallback_generation: int
    slot: int  # NO_SLOT: no policy
    fallback_slot: int  # in force once the deadline has passed

    def pack(self) -> bytes:
        return struct.pack("=QQQII", *self)

    @classmethod
    def unpack(cls, value: bytes) -> Record:
        return cls(*struct.unpack("=QQQII", value))


class Live(NamedTuple):
    """What the kernel decides by right now. ``tables``: of the slot in force, what could be read of it."""

    record: Record | None
    generation: int  # in force; 0: none
    slot: int
    pending: bool  # not confirmed yet, and its deadline is still to come
    expired: bool  # never confirmed: the fallback is in force
    tables: Tables

    @property
    def newest(self) -> int:
        """The highest number that any cache in the kernel may be tagged with."""
        return max(self.record.generation, self.record.fallback_generation) if self.record else 0

    @property
    def confirmed(self) -> tuple[int, int]:
        """Number and slot of what to fall back to: the last generation that was confirmed."""
        if self.record and self.pending:
            return self.record.fallback_generation, self.record.fallback_slot
        return self.generation, self.slot


def base(kernel: Kernel) -> str:
    return kernel.path("exfil_guard", f"v{LAYOUT}")


def map_path(kernel: Kernel, name: str) -> str:
    return f"{base(kernel)}/maps/{name}"


class _Opened:
    """A descriptor that is closed at the end of a block."""

    def __init__(self, kernel: Kernel, fd: int) -> None:
        self.kernel, self.fd = kernel, fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_unused: Any) -> None:
        self.kernel.close(self.fd)


def opened(kernel: Kernel, path: str, readonly: bool = False) -> _Opened:
    return _Opened(kernel, kernel.get(path, readonly))


def _opened_map(kernel: Kernel, name: str, readonly: bool = False) -> _Opened:
    return opened(kernel, map_path(kernel, name), readonly)


# ---- reading ----------------------------------------------------------------------------------------------------


def read_record(kernel: Kernel) -> Record | None:
    with _opened_map(kernel, "control", readonly=True) as outer:
        number = kernel.lookup(outer, _ZERO)
    if number is None:
        return None
    with _Opened(kernel, kernel.map_by_id(struct.unpack("=I", number)[0], readonly=True)) as inner:
        value = kernel.lookup(inner, _ZERO)
    return Record.unpack(value) if value is not None else None


def read_tables(kernel: Kernel, slot: int) -> Tables:
    """Every table of a slot; one that is not there is left out."""
    tables: Tables = {}
    for name in TABLES:
        with _opened_map(kernel, name, readonly=True) as outer:
            number = kernel.lookup(outer, struct.pack("=I", slot))
        if number is not None:
            with _Opened(kernel, kernel.map_by_id(struct.unpack("=I", number)[0], readonly=True)) as inner:
                tables[name] = kernel.read_all(inner)
    return tables


def read(kernel: Kernel) -> Live:
    record = read_record(kernel)
    if record is None:
        return Live(None, 0, NO_SLOT, False, False, {})
    expired = bool(record.deadline) and kernel.boottime() >= record.deadline
    generation, slot = (
        (record.fallback_generation, record.fallback_slot) if expired else (record.generation, record.slot)
    )
    if slot >= SLOTS:
        generation, slot = 0, NO_SLOT
    tables = read_tables(kernel, slot) if slot != NO_SLOT else {}
    return Live(record, generation, slot, bool(record.deadline) and not expired, expired, tables)


def _whole(name: str, entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """An array has at least one entry, so that an empty one reads back as one of zeros."""
    if TABLES[name].type == ARRAY and not entries:
        return {_ZERO: bytes(TABLES[name].value_size)}
    return dict(entries)


def differences(wanted: Mapping[str, Mapping[bytes, bytes]], found: Tables) -> dict[str, int]:
    """How many entries of each table are not as wanted; a table that is missing counts at least one."""
    counts = {}
    for name in TABLES:
        want = _whole(name, wanted.get(name, {}))
        if name not in found:
            counts[name] = max(1, len(want))
            continue
        have = found[name]
        count = sum(1 for key in want.keys() | have.keys() if want.get(key) != have.get(key))
        if count:
            counts[name] = count
    return counts


def idle_slot(record: Record | None) -> int:
    used = (record.slot, record.fallback_slot) if record else ()
    return next(slot for slot in range(SLOTS) if slot not in used)


# ---- writing ----------------------------------------------------------------------------------------------------


def write(kernel: Kernel, tables: Mapping[str, Mapping[bytes, bytes]], slot: int) -> None:
    """Fills an idle slot: nobody sees it before a record names it."""
    for name, spec in TABLES.items():
        entries = tables.get(name, {})
        inner = kernel.create_map("eg_" + name, spec._replace(max_entries=max(1, len(entries))))
        with _Opened(kernel, inner):
            kernel.update_all(inner, entries)
            kernel.freeze(inner)
            with _opened_map(kernel, name) as outer:
                kernel.update(outer, struct.pack("=I", slot), struct.pack("=I", inner))
    wrong = differences(tables, read_tables(kernel, slot))
    if wrong:
        raise EnforcerError(
            f"the tables read back differ from those written: {_counted(wrong)}",
            "Run again; if it happens again, report it with the kernel's release",
        )


def publish(kernel: Kernel, record: Record) -> None:
    """One pointer store; every decision begun before it has ended when this returns."""
    inner = kernel.create_map("eg_record", RECORD)
    with _Opened(kernel, inner):
        kernel.update(inner, _ZERO, record.pack())
        kernel.freeze(inner)
        if kernel.lookup(inner, _ZERO) != record.pack():
            raise EnforcerError("the record reads back differently from what was written", "Run again")
        with _opened_map(kernel, "control") as outer:
            kernel.update(outer, _ZERO, struct.pack("=I", inner))


def clear_slots(kernel: Kernel) -> None:
    """Frees the tables of every generation that the record does not name."""
    record = read_record(kernel)
    used = (record.slot, record.fallback_slot) if record else ()
    for name in TABLES:
        with _opened_map(kernel, name) as outer:
            for slot in range(SLOTS):
                if slot not in used:
                    kernel.delete(outer, struct.pack("=I", slot))


def rule_ids(tables: Mapping[str, Mapping[bytes, bytes]]) -> list[bytes]:
    """The keys in "counters" of a generation's rules."""
    return [value[:8] for _, value in sorted(tables.get("rules", {}).items()) if any(value[8:])]


def missing_counters(kernel: Kernel, tables: Mapping[str, Mapping[bytes, bytes]]) -> list[bytes]:
    with _opened_map(kernel, "counters", readonly=True) as counters:
        present = kernel.read_all(counters)
    return [each for each in rule_ids(tables) if each not in present]


def add_counters(kernel: Kernel, tables: Mapping[str, Mapping[bytes, bytes]]) -> None:
    missing = missing_counters(kernel, tables)
    if not missing:
        return
    with _opened_map(kernel, "counters") as counters:
        present = kernel.read_all(counters)
        room = MAPS["counters"].max_entries - len(present)
        if room < len(missing):  # rules of long ago make room
            keep = set(rule_ids(tables))
            for each in [key for key in sorted(present) if key not in keep][: len(missing) - room]:
                kernel.delete(counters, each)
        for each in missing:
            kernel.update(counters, each, bytes(16))


# ---- hooks ------------------------------------------------------------------------------------------------------


def versions(kernel: Kernel) -> list[str]:
    """The objects whose programs are pinned, by the first digits of their digest; more than one during an upgrade."""
    return [name[len("programs-") :] for name in kernel.names(base(kernel)) if name.startswith("programs-")]


def program_path(kernel: Kernel, version: str, hook: str) -> str:
    return f"{base(kernel)}/programs-{version}/{hook}"


def links_path(kernel: Kernel, version: str) -> str:
    return f"{base(kernel)}/links-{version}"


def available_hooks(kernel: Kernel, version: str) -> frozenset[str]:
    return frozenset(kernel.names(f"{base(kernel)}/programs-{version}"))


def attached_hooks(kernel: Kernel, version: str) -> frozenset[str]:
    """The hooks whose pinned link runs the pinned program."""
    found = set()
    for hook in kernel.names(links_path(kernel, version)):
        try:
            with opened(kernel, links_path(kernel, version) + "/" + hook) as link:
                runs = kernel.link_info(link).program
            with opened(kernel, program_path(kernel, version, hook)) as program:
                if runs == kernel.program_info(program).id:
                    found.add(hook)
        except OSError:
            continue
    return frozenset(found)


def _in_order(hooks: Iterable[str]) -> list[str]:
    return sorted(hooks, key=lambda hook: (hook not in IDENTITY_HOOKS, hook not in DIRECTION_HOOKS, hook))


def attach(kernel: Kernel, version: str, hooks: Iterable[str]) -> list[str]:
    """Attaches what is not attached yet; gives the hooks that were attached."""
    folder = links_path(kernel, version)
    before = attached_hooks(kernel, version)
    following = _following(kernel)
    added = [hook for hook in _in_order(hooks) if hook not in before]
    if added and not kernel.exists(folder):
        kernel.mkdir(folder)
    identified = all(hook in before for hook in IDENTITY_HOOKS)
    directed = not set(added) & set(DIRECTION_HOOKS)
    for hook in added:
        path = folder + "/" + hook
        if not identified and hook not in IDENTITY_HOOKS:
            _note_start(kernel)
            identified = True
        if not directed and hook not in IDENTITY_HOOKS + DIRECTION_HOOKS:
            _note_listeners(kernel)
            directed = True
        with opened(kernel, program_path(kernel, version, hook)) as program:
            with _Opened(kernel, kernel.attach(program)) as link:
                if kernel.exists(path):
                    kernel.unlink(path)
                kernel.pin(link, path)
    if added and not identified:
        _note_start(kernel)
    if not directed:
        _note_listeners(kernel)
    if not following and _following(kernel):
        _follow_labels(kernel)
    return added


def _note_start(kernel: Kernel) -> None:
    """Tasks started from here on have their executable recorded; older ones are judged by what they run."""
    _set_facts(kernel, lambda _loaded, *others: (kernel.boottime(), *others))


def _set_facts(kernel: Kernel, change: Callable[..., tuple[int, ...]]) -> None:
    with _opened_map(kernel, "facts") as facts:
        value = kernel.lookup(facts, _ZERO) or bytes(layout.FACTS.size)
        kernel.update(facts, _ZERO, layout.FACTS.pack(*change(*layout.FACTS.unpack(value))))


def labels_since(kernel: Kernel) -> int:
    with _opened_map(kernel, "facts", readonly=True) as facts:
        return layout.FACTS.unpack(kernel.lookup(facts, _ZERO) or bytes(layout.FACTS.size))[2]


def _following(kernel: Kernel) -> bool:
    """Is every task's label handed on, by whichever version, and has it been since labels came into use?"""
    return any(
        all(kernel.exists(links_path(kernel, each) + "/" + hook) for hook in FOLLOWING_HOOKS)
        for each in versions(kernel)
    )


def _follow_labels(kernel: Kernel) -> None:
    """Labels of an earlier time are void: nobody has followed them since."""
    since = kernel.boottime()
    for name in ("carriers", "cells", "wires", "kept"):
        with _opened_map(kernel, name) as void:
            for key in kernel.read_all(void):
                kernel.delete(void, key)
    with _opened_map(kernel, "cells") as cells:
        kernel.update(cells, layout.CELL_KEY.pack(since, CROWD), layout.CELL.pack(0, CROWD + 1))
    _set_facts(kernel, lambda loaded, rename_lock, _since, _unwatched: (loaded, rename_lock, since, 0))


def _note_listeners(kernel: Kernel) -> None:
    """Connections from before have no mark: those on a port that is listened on count as accepted."""
    ports = kernel.listening_ports()
    words = [0] * MAPS["listeners"].max_entries
    for port in ports:
        words[port // 64] |= 1 << port % 64
    with _opened_map(kernel, "listeners") as listeners:
        kernel.update_all(listeners, {struct.pack("=I", i): struct.pack("=Q", word) for i, word in enumerate(words)})


def detach(kernel: Kernel, version: str, hooks: Iterable[str]) -> list[str]:
    folder = links_path(kernel, version)
    gone = [hook for hook in reversed(_in_order(hooks)) if kernel.exists(folder + "/" + hook)]
    if set(gone) & set(FOLLOWING_HOOKS) and labels_since(kernel):
        _set_facts(kernel, lambda loaded, rename_lock, _since, unwatched: (loaded, rename_lock, 0, unwatched))
    for hook in gone:
        kernel.unlink(folder + "/" + hook)
    if not kernel.names(folder) and kernel.exists(folder):
        kernel.rmdir(folder)
    return gone


def claim(kernel: Kernel, *versions_: str) -> None:
    """Says which maps and programs are ours, and which mount namespace is the host's: see bpf/decision/protection.h. The tables of a
    generation are known by their names."""
    wanted = {layout.OUR_KEY.pack(layout.OUR_NAMESPACE, kernel.mount_namespace())}
    for name in list(MAPS) + list(STORAGES):
        with _opened_map(kernel, name, readonly=True) as fd:
            wanted.add(layout.OUR_KEY.pack(layout.OUR_MAP, kernel.map_info(fd).id))
    for version in versions_:
        for hook in sorted(available_hooks(kernel, version)):
            with opened(kernel, program_path(kernel, version, hook)) as program:
                wanted.add(layout.OUR_KEY.pack(layout.OUR_PROGRAM, kernel.program_info(program).id))
    with _opened_map(kernel, "our") as our:
        present = kernel.read_all(our)
        for key in sorted(wanted - set(present)):
            kernel.update(our, key, bytes(4))
        for key in sorted(set(present) - wanted):
            kernel.delete(our, key)


# ---- a whole generation -----------------------------------------------------------------------------------------


def next_generation(live: Live, stored: Iterable[int]) -> int:
    """A number no cache and no document has: caches in the kernel are told apart by it."""
    return max([live.newest, *list(stored)]) + 1


def load(
    kernel: Kernel, image: Any, generation: int, hooks: Iterable[str], *, version: str, confirm_seconds: float = 0
) -> Record:
    """Puts ``image`` in force as ``generation``. With ``confirm_seconds`` it is on trial for so long, and what was
    confirmed last stays its fallback; else it is confirmed at once, as at boot."""
    live = read(kernel)
    if generation <= live.newest:
        raise EnforcerError(f"generation {generation} has been in force already", "Take a new number")
    slot = idle_slot(live.record)
    write(kernel, image.tables, slot)
    add_counters(kernel, image.tables)
    claim(kernel, version)
    attach(kernel, version, hooks)
    fallback_generation, fallback_slot = live.confirmed
    deadline = kernel.boottime() + int(confirm_seconds * SECOND) if confirm_seconds else 0
    record = Record(generation, deadline, fallback_generation, slot, fallback_slot)
    publish(kernel, record)
    return record


def _counted(wrong: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(wrong.items()))
