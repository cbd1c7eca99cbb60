# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generations of the policy in the pinned maps: reads the one in force, writes the next one, and switches to it.

There are three slots: of the active generation, of its fallback, and an idle one. Only the idle slot is written. Its
maps are new; they are read back, compared and frozen before the record refers to the slot. The switch is one pointer
store. If the process is killed at any step, the old record stays in force."""

from __future__ import annotations

import struct
from typing import Dict, Iterable, Mapping, NamedTuple, Protocol

from .. import layout
from ..errors import EnforcerError
from ..layout import Record
from .links import attach, claim
from .mapspecs import MAPS, RECORD, SLOTS, TABLES
from .pins import FIRST_KEY, Opened, opened_map
from .protocol import Kernel
from .types import ARRAY

NO_SLOT = layout.NO_SLOT
SECOND = 1_000_000_000  # ns

Tables = Dict[str, Dict[bytes, bytes]]


class Image(Protocol):
    """The contents of the maps of one generation."""

    @property
    def tables(self) -> Mapping[str, Mapping[bytes, bytes]]:
        """Map name -> entries."""


class Live(NamedTuple):
    """The state of the kernel. ``tables``: those of the slot in force; tables that do not exist are left out."""

    record: Record | None
    generation: int  # in force; 0: none
    slot: int
    pending: bool  # not confirmed, and its deadline has not passed
    expired: bool  # its deadline passed without confirmation: the fallback is in force
    tables: Tables

    @property
    def highest_generation(self) -> int:
        """The highest generation number that a cache entry in the kernel may have."""
        return max(self.record.generation, self.record.fallback_generation) if self.record else 0

    @property
    def fallback_target(self) -> tuple[int, int]:
        """The number and slot of the last confirmed generation, to which a new one falls back."""
        if self.record and self.pending:
            return self.record.fallback_generation, self.record.fallback_slot
        return self.generation, self.slot


# ---- reading ----------------------------------------------------------------------------------------------------


def read_record(kernel: Kernel) -> Record | None:
    """The record of the generation in force, or None before the first policy."""
    with opened_map(kernel, "control", readonly=True) as outer:
        number = kernel.lookup(outer, FIRST_KEY)
    if number is None:
        return None
    with Opened(kernel, kernel.map_by_id(struct.unpack("=I", number)[0], readonly=True)) as inner:
        value = kernel.lookup(inner, FIRST_KEY)
    return layout.RECORD.unpack(value) if value is not None else None


def read_tables(kernel: Kernel, slot: int) -> Tables:
    """The tables of a slot. Tables that do not exist are left out."""
    tables: Tables = {}
    for name in TABLES:
        with opened_map(kernel, name, readonly=True) as outer:
            number = kernel.lookup(outer, struct.pack("=I", slot))
        if number is not None:
            with Opened(kernel, kernel.map_by_id(struct.unpack("=I", number)[0], readonly=True)) as inner:
                tables[name] = kernel.read_all(inner)
    return tables


def read(kernel: Kernel) -> Live:
    """Reads the record and the tables in force."""
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


def _complete(name: str, entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """An array has at least one entry: an empty table reads back as one entry of zeros."""
    if TABLES[name].type == ARRAY and not entries:
        return {FIRST_KEY: bytes(TABLES[name].value_size)}
    return dict(entries)


def differences(expected: Mapping[str, Mapping[bytes, bytes]], actual: Tables) -> dict[str, int]:
    """The number of entries that differ, by table. A table that is missing counts at least one."""
    counts = {}
    for name in TABLES:
        entries = _complete(name, expected.get(name, {}))
        if name not in actual:
            counts[name] = max(1, len(entries))
            continue
        count = sum(1 for key in entries.keys() | actual[name].keys() if entries.get(key) != actual[name].get(key))
        if count:
            counts[name] = count
    return counts


def idle_slot(record: Record | None) -> int:
    """A slot to which the record does not refer."""
    used = (record.slot, record.fallback_slot) if record else ()
    return next(slot for slot in range(SLOTS) if slot not in used)


# ---- writing ----------------------------------------------------------------------------------------------------


def write(kernel: Kernel, tables: Mapping[str, Mapping[bytes, bytes]], slot: int) -> None:
    """Fills an idle slot. No program uses it before a record refers to it. Raises EnforcerError."""
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
    """Switches to a generation with one pointer store. On return, all decisions by the previous record have ended.

    Raises EnforcerError."""
    inner = kernel.create_map("eg_record", RECORD)
    with Opened(kernel, inner):
        kernel.update(inner, FIRST_KEY, layout.RECORD.pack(record))
        kernel.freeze(inner)
        if kernel.lookup(inner, FIRST_KEY) != layout.RECORD.pack(record):
            raise EnforcerError("the record reads back differently from what was written", "Run again")
        with opened_map(kernel, "control") as outer:
            kernel.update(outer, FIRST_KEY, struct.pack("=I", inner))


def clear_slots(kernel: Kernel) -> None:
    """Deletes the tables of the slots to which the record does not refer."""
    record = read_record(kernel)
    used = (record.slot, record.fallback_slot) if record else ()
    for name in TABLES:
        with opened_map(kernel, name) as outer:
            for slot in range(SLOTS):
                if slot not in used:
                    kernel.delete(outer, struct.pack("=I", slot))


def rule_ids(tables: Mapping[str, Mapping[bytes, bytes]]) -> list[bytes]:
    """The keys of a generation's rules in the map counters."""
    return [value[:8] for _unused, value in sorted(tables.get("rules", {}).items()) if any(value[8:])]


def missing_counters(kernel: Kernel, tables: Mapping[str, Mapping[bytes, bytes]]) -> list[bytes]:
    """The keys of the rules that have no counter."""
    with opened_map(kernel, "counters", readonly=True) as counters:
        present = kernel.read_all(counters)
    return [key for key in rule_ids(tables) if key not in present]


def add_counters(kernel: Kernel, tables: Mapping[str, Mapping[bytes, bytes]]) -> None:
    """Adds the missing counters, with 0. If the map is full, counters of rules not in ``tables`` are deleted."""
    missing = missing_counters(kernel, tables)
    if not missing:
        return
    with opened_map(kernel, "counters") as counters:
        present = kernel.read_all(counters)
        room = MAPS["counters"].max_entries - len(present)
        if room < len(missing):
            keep = set(rule_ids(tables))
            for key in [key for key in sorted(present) if key not in keep][: len(missing) - room]:
                kernel.delete(counters, key)
        for key in missing:
            kernel.update(counters, key, bytes(layout.COUNT.size))


# ---- a whole generation -----------------------------------------------------------------------------------------


def next_generation(live: Live, stored: Iterable[int]) -> int:
    """A generation number that no stored document and no cache entry in the kernel has."""
    return max([live.highest_generation, *list(stored)]) + 1


def load(
    kernel: Kernel, image: Image, generation: int, hooks: Iterable[str], *, version: str, confirm_seconds: float = 0
) -> Record:
    """Puts ``image`` in force as ``generation``. Raises EnforcerError.

    With ``confirm_seconds`` it expires after that time unless it is confirmed; the last confirmed generation is its
    fallback. Without, it is confirmed at once, as at boot."""
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
