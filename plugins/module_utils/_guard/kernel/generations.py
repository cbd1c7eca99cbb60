# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is pinned, and the generations in it: read the live one back, write the next one, switch with one store.

Three slots: the active generation's, its fallback's and an idle one. Only the idle one is ever written. Its maps are
fresh, read back, compared and frozen before the record names them. Killed at any step, the old record stands."""

from __future__ import annotations

import struct
from typing import Any, Dict, Iterable, Mapping, NamedTuple

from .. import layout
from ..errors import EnforcerError
from ..layout import Record
from .bpf import Kernel
from .links import attach, claim
from .mapspecs import MAPS, RECORD, SLOTS, TABLES
from .pins import FIRST_KEY, Opened, opened_map
from .types import ARRAY

NO_SLOT = 0xFFFFFFFF
SECOND = 1_000_000_000


Tables = Dict[str, Dict[bytes, bytes]]


class Live(NamedTuple):
    """What the kernel decides by right now. ``tables``: of the slot in force, what could be read of it."""

    record: Record | None
    generation: int  # in force; 0: none
    slot: int
    pending: bool  # not confirmed yet, and its deadline is still to come
    expired: bool  # never confirmed: the fallback is in force
    tables: Tables

    @property
    def highest_generation(self) -> int:
        """The highest number that any cache in the kernel may be tagged with."""
        return max(self.record.generation, self.record.fallback_generation) if self.record else 0

    @property
    def fallback_target(self) -> tuple[int, int]:
        """Number and slot of what to fall back to: the last generation that was confirmed."""
        if self.record and self.pending:
            return self.record.fallback_generation, self.record.fallback_slot
        return self.generation, self.slot


# ---- reading ----------------------------------------------------------------------------------------------------


def read_record(kernel: Kernel) -> Record | None:
    with opened_map(kernel, "control", readonly=True) as outer:
        number = kernel.lookup(outer, FIRST_KEY)
    if number is None:
        return None
    with Opened(kernel, kernel.map_by_id(struct.unpack("=I", number)[0], readonly=True)) as inner:
        value = kernel.lookup(inner, FIRST_KEY)
    return layout.RECORD.unpack(value) if value is not None else None


def read_tables(kernel: Kernel, slot: int) -> Tables:
    """Every table of a slot; one that is not there is left out."""
    tables: Tables = {}
    for name in TABLES:
        with opened_map(kernel, name, readonly=True) as outer:
            number = kernel.lookup(outer, struct.pack("=I", slot))
        if number is not None:
            with Opened(kernel, kernel.map_by_id(struct.unpack("=I", number)[0], readonly=True)) as inner:
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
        return {FIRST_KEY: bytes(TABLES[name].value_size)}
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
        with Opened(kernel, inner):
            kernel.update_all(inner, entries)
            kernel.freeze(inner)
            with opened_map(kernel, name) as outer:
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
    with Opened(kernel, inner):
        kernel.update(inner, FIRST_KEY, layout.RECORD.pack(record))
        kernel.freeze(inner)
        if kernel.lookup(inner, FIRST_KEY) != layout.RECORD.pack(record):
            raise EnforcerError("the record reads back differently from what was written", "Run again")
        with opened_map(kernel, "control") as outer:
            kernel.update(outer, FIRST_KEY, struct.pack("=I", inner))


def clear_slots(kernel: Kernel) -> None:
    """Frees the tables of every generation that the record does not name."""
    record = read_record(kernel)
    used = (record.slot, record.fallback_slot) if record else ()
    for name in TABLES:
        with opened_map(kernel, name) as outer:
            for slot in range(SLOTS):
                if slot not in used:
                    kernel.delete(outer, struct.pack("=I", slot))


def rule_ids(tables: Mapping[str, Mapping[bytes, bytes]]) -> list[bytes]:
    """The keys in "counters" of a generation's rules."""
    return [value[:8] for _, value in sorted(tables.get("rules", {}).items()) if any(value[8:])]


def missing_counters(kernel: Kernel, tables: Mapping[str, Mapping[bytes, bytes]]) -> list[bytes]:
    with opened_map(kernel, "counters", readonly=True) as counters:
        present = kernel.read_all(counters)
    return [each for each in rule_ids(tables) if each not in present]


def add_counters(kernel: Kernel, tables: Mapping[str, Mapping[bytes, bytes]]) -> None:
    missing = missing_counters(kernel, tables)
    if not missing:
        return
    with opened_map(kernel, "counters") as counters:
        present = kernel.read_all(counters)
        room = MAPS["counters"].max_entries - len(present)
        if room < len(missing):  # rules of long ago make room
            keep = set(rule_ids(tables))
            for each in [key for key in sorted(present) if key not in keep][: len(missing) - room]:
                kernel.delete(counters, each)
        for each in missing:
            kernel.update(counters, each, bytes(layout.COUNT.size))


# ---- hooks ------------------------------------------------------------------------------------------------------


# ---- a whole generation -----------------------------------------------------------------------------------------


def next_generation(live: Live, stored: Iterable[int]) -> int:
    """A number no cache and no document has: caches in the kernel are told apart by it."""
    return max([live.highest_generation, *list(stored)]) + 1


def load(
    kernel: Kernel, image: Any, generation: int, hooks: Iterable[str], *, version: str, confirm_seconds: float = 0
) -> Record:
    """Puts ``image`` in force as ``generation``. With ``confirm_seconds`` it is on trial for so long, and what was
    confirmed last stays its fallback; else it is confirmed at once, as at boot."""
    live = read(kernel)
    if generation <= live.highest_generation:
        raise EnforcerError(f"generation {generation} has been in force already", "Take a new number")
    slot = idle_slot(live.record)
    write(kernel, image.tables, slot)
    add_counters(kernel, image.tables)
    claim(kernel, version)
    attach(kernel, version, hooks)
    fallback_generation, fallback_slot = live.fallback_target
    deadline = kernel.boottime() + int(confirm_seconds * SECOND) if confirm_seconds else 0
    record = Record(generation, deadline, fallback_generation, slot, fallback_slot)
    publish(kernel, record)
    return record


def _counted(wrong: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(wrong.items()))
