# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The path automaton's step: guard_step, as submitted, gives for every content of its tables and every name what the
reference below gives, which is the transition as proof/coq/Compile.v has it, with -1 where a table, an entry or the
name can't be read.

Each table, entry, field and byte of the name is a name of its own, the same whenever the same is asked for; whatever
may be missing may be missing. No states are taken together: each end of guard_step is one way through it, and the
reference is followed by what is known there."""

from __future__ import annotations

from typing import Callable, Hashable, Iterator, NamedTuple

import z3
from arithmetic import ADD, EQUAL, LSH, NOT_EQUAL, Condition, Scalar, Solver, Term, calculate, condition, either, fresh
from decode import STACK, Function, Instruction
from exact import EFFORT, Answer
from execute import Unproved, run
from plain import Plain
from state import Pointer, State, Value

BROKEN = 0xFFFFFFFF
COMPONENT = 36  # GUARD_COMPONENT
ENTRY = {"states": 248, "edges": 4, "bytes": 520}  # bytes of a value
KEY = {"states": (4,), "edges": (4, *[1] * COMPONENT), "bytes": (4,)}
OTHERWISE, FIRST, TARGET, NEXT = 0, 4, 0, 8  # where they lie: guard_state, guard_bytes
LENGTH = 256  # bytes of a name that the byte automaton takes
LOOKUP, READ, READ_STRING = 1, 113, 115
LESS, MORE = 0xC0, 0x60  # with sign
STEPS = 5000  # of guard_step, more than it has: what goes on is a loop that the verifier refuses
WAYS = 64  # of the reference, for one end


class Tables(Plain):
    def __init__(self) -> None:
        self.slot, self.state, self.name = fresh("slot", 32), fresh("state", 32), fresh("name")
        self.terms = Solver()
        self.made: dict[tuple[Hashable, ...], Term] = {}
        self.written: dict[Term, str] = {}
        self.keys: dict[Term, tuple[str, tuple[Scalar, ...], Hashable]] = {}  # a name -> table, key, what of the entry

    # ---- what may be asked ----------------------------------------------------------------------------------------

    def _same(self, value: Scalar) -> Hashable:
        """What is written in two ways, and is the same."""
        if isinstance(value, int) or value.what[0] == "name":
            return value
        if value not in self.written:
            self.written[value] = z3.simplify(self.terms.of(value)).sexpr()
        return self.written[value]

    def _named(self, bits: int, table: str, key: tuple[Scalar, ...], what: Hashable) -> Term:
        place = table, tuple(self._same(each) for each in key), what
        if place not in self.made:
            self.made[place] = made = fresh(f"{table}.{len(self.made)}", bits)
            self.keys[made] = table, key, what
        return self.made[place]

    def has(self, table: str) -> Condition:
        return self._present(f"outer {table}", (self.slot,))

    def holds(self, table: str, *key: Scalar) -> Condition:
        return self._present(table, key)

    def _present(self, table: str, key: tuple[Scalar, ...]) -> Condition:
        return condition(NOT_EQUAL, 64, self._named(1, table, key, "present"), 0)

    def field(self, table: str, key: tuple[Scalar, ...], offset: Scalar, size: int) -> Term:
        return self._named(8 * size, table, key, (self._same(offset), size))

    def failed(self, at: Scalar) -> Term:
        """What a read of a byte there gives: 0, or an error."""
        return self._named(64, "read", (at,), "error")

    def byte(self, at: Scalar) -> Scalar:
        return either(condition(EQUAL, 64, self.failed(at), 0), self._named(8, "read", (at,), "byte"), 0)

    def length(self, at: Scalar, room: int) -> Term:
        """Of the string there with its NUL, or of as much of it as there is room for; below 1: it can't be read."""
        return self._named(64, f"string of {room}", (at,), "length")

    def character(self, at: Scalar, room: int, number: int, before: Scalar) -> Scalar:
        length, read = self.length(at, room), self._named(8, f"string of {room}", (at,), number)
        return either(condition(MORE, 64, length, number), read, either(condition(LESS, 64, length, 0), 0, before))

    # ---- as guard_step asks ---------------------------------------------------------------------------------------

    def constant(self, state: State, each: Instruction) -> Value:
        return Pointer(("outer", each.map), 0) if each.map else each.constant

    def load(self, state: State, at: Pointer, size: int) -> Value:
        if at.region[0] != "entry":
            return super().load(state, at, size)
        _kind, table, key = at.region
        room, offset = ENTRY[table] - size, at.offset
        if (
            not 0 <= offset <= room if isinstance(offset, int) else self._possible([condition(0x20, 64, offset, room)])
        ):  # above it, without sign
            raise Unproved(f"a read of {size} bytes beyond an entry of {table}")
        return self.field(table, key, offset, size)

    def helper(self, state: State, number: int, function: Function) -> list[State]:
        registers = state.registers
        if number == LOOKUP:
            return self._looked_up(state)
        to, size, source = registers[1:4]
        if (
            number not in (READ, READ_STRING)
            or not isinstance(to, Pointer)
            or not isinstance(size, int)
            or source is None
            or isinstance(source, Pointer)
        ):
            raise Unproved(f"helper {number}")
        for each in range(size):
            at = Pointer(to.region, calculate(ADD, 64, to.offset & BEYOND, each) - (1 << 64))  # type: ignore[operator]
            if number == READ:
                written = self.byte(calculate(ADD, 64, source, each))
            else:
                before = self.load(state, at, 1)
                written = self.character(source, size, each, before)  # type: ignore[arg-type]
            self.store(state, at, 1, written)
        if number == READ_STRING:
            registers[0] = self.length(source, size)
            state.learn(condition(0xD0, 64, registers[0], size))  # no more than there is room for
        else:
            registers[0] = self.failed(source)
        return [state]

    def _looked_up(self, state: State) -> list[State]:
        table, key = state.registers[1:3]
        if (
            not isinstance(table, Pointer)
            or table.region[0] not in ("outer", "inner")
            or not isinstance(key, Pointer)
            or not isinstance(key.offset, int)
        ):
            raise Unproved("a look-up in what is no table")
        kind, name = table.region
        at, values = key.offset, []
        for size in (4,) if kind == "outer" else KEY[name]:
            values.append(self.load(state, Pointer(key.region, at), size))
            at += size
        if kind == "outer":
            present = self._present(f"outer {name}", tuple(values))  # type: ignore[arg-type]
            found = Pointer(("inner", name), 0)
        else:
            present = self.holds(name, *values)  # type: ignore[arg-type]
            found = Pointer(("entry", name, tuple(values)), 0)
        known, missing = state.decided(present), state.copy(state.at)
        state.registers[0], missing.registers[0] = found, 0
        if known is not None:
            return [state if known else missing]
        state.learn(present)
        missing.learn(present.opposite())
        return [state, missing]

    def arrive(self, function: Function, state: State, pending: dict[Hashable, State]) -> None:
        pending[len(pending)] = state

    # ---- whether it is the same -----------------------------------------------------------------------------------

    def _possible(self, all_of: list[Condition], *also: z3.BoolRef) -> bool:
        solver = z3.Solver()
        solver.set("rlimit", EFFORT)
        solver.add(*(self.terms.truth(each) for each in all_of), *also)
        answer = solver.check()
        if answer == z3.unknown:
            raise Unproved("guard_step: z3 does not find out")
        return bool(answer == z3.sat)

    def alike(self, all_of: list[Condition], *values: Scalar) -> list[z3.BoolRef]:
        """Where two entries are of the same key, they are the same."""
        used = sorted((each for each in _named_in([*all_of, *values]) if each in self.keys), key=str)
        found = []
        for number, one in enumerate(used):
            table, key, what = self.keys[one]
            for other in used[:number]:
                beside, its, of = self.keys[other]
                if beside == table and of == what:
                    same = z3.And(*(self.terms.of(a) == self.terms.of(b) for a, b in zip(key, its)))
                    found.append(z3.Implies(same, self.terms.of(one) == self.terms.of(other)))
        return found


BEYOND = (1 << 64) - 1


def reference(tables: Tables, ask: Callable[[Condition], bool]) -> Scalar:
    """The next state. ``ask``: whether something is so."""

    def is_zero(value: Scalar) -> bool:
        return not value if isinstance(value, int) else ask(condition(EQUAL, 64, value, 0))

    state, name = tables.state, tables.name
    if not ask(tables.has("states")) or not ask(tables.holds("states", state)):
        return BROKEN
    otherwise, row = (tables.field("states", (state,), each, 4) for each in (OTHERWISE, FIRST))
    if is_zero(row):
        return _literal(tables, ask, is_zero, otherwise)
    if not ask(tables.has("bytes")):
        return BROKEN
    for number in range(LENGTH):
        row = calculate(ADD, 32, row, BEYOND)  # its number is one less
        at = calculate(ADD, 64, name, number)
        if not ask(tables.holds("bytes", row)) or not is_zero(tables.failed(at)):
            return BROKEN
        byte = tables.byte(at)
        if is_zero(byte):
            return tables.field("bytes", (row,), TARGET, 4)
        place = calculate(ADD, 64, calculate(ADD, 64, 0, calculate(LSH, 64, byte, 1)), NEXT)
        row = tables.field("bytes", (row,), place, 2)
        if is_zero(row):
            return otherwise
    return BROKEN


def _literal(
    tables: Tables, ask: Callable[[Condition], bool], is_zero: Callable[[Scalar], bool], otherwise: Scalar
) -> Scalar:
    """A state all of whose edges are names."""
    length, last = tables.length(tables.name, COMPONENT), calculate(ADD, 64, tables.name, COMPONENT - 1)
    if ask(condition(LESS, 64, length, 1)):
        return BROKEN
    if ask(condition(EQUAL, 64, length, COMPONENT)):
        if not is_zero(tables.failed(last)):
            return BROKEN
        if not is_zero(tables.byte(last)):
            return otherwise  # longer than any edge
    if not ask(tables.has("edges")):
        return BROKEN
    key = tables.state, *(tables.character(tables.name, COMPONENT, each, 0) for each in range(COMPONENT))
    return tables.field("edges", key, 0, 4) if ask(tables.holds("edges", *key)) else otherwise


class Leaf(NamedTuple):
    value: Scalar
    also: list[Condition]  # what it was taken to be so for


def _leaves(tables: Tables, end: State) -> Iterator[Leaf]:
    """What the reference may give where this is known."""
    pending: list[list[tuple[Condition, bool]]] = [[]]
    count = 0
    while pending:
        chosen = list(pending.pop())

        def ask(one: Condition, chosen: list[tuple[Condition, bool]] = chosen) -> bool:
            known = end.decided(one)
            if known is not None:
                return known
            for before, so in chosen:
                if before in (one, one.opposite()):
                    return so == (before is one)
            also = [each if so else each.opposite() for each, so in chosen]
            if not tables._possible([*end.facts, *also, one]):
                so = False
            else:
                so = True
                if tables._possible([*end.facts, *also, one.opposite()]):
                    pending.append([*chosen, (one, False)])
            chosen.append((one, so))
            return so

        value = reference(tables, ask)
        count += 1
        if count > WAYS:
            raise Unproved("guard_step: z3 is asked too much")
        yield Leaf(value, [each if so else each.opposite() for each, so in chosen])


def stepped(function: Function) -> Answer:
    """Raises Unproved when it can't be told."""
    tables = Tables()
    start = State([None] * 11)
    start.registers[1:4] = [tables.slot, tables.state, tables.name]
    start.registers[STACK] = Pointer(("stack", 0), 0)
    ends = run(tables, function, start, STEPS)
    for end in sorted(ends, key=lambda one: len(one.facts)):
        gives = end.registers[0]
        if gives is None or isinstance(gives, Pointer):
            return Answer(["gives an address"], len(ends))
        for leaf in _leaves(tables, end):
            if leaf.value is gives or leaf.value == gives:
                continue
            told = _differs(tables, end, leaf, gives)
            if told:
                return Answer([told], len(ends))
    return Answer([], len(ends))


def _differs(tables: Tables, end: State, leaf: Leaf, gives: Scalar) -> str | None:
    known = [*end.facts, *leaf.also]
    solver = z3.Solver()
    solver.set("rlimit", EFFORT)
    solver.add(*(tables.terms.truth(each) for each in known), *tables.alike(known, gives, leaf.value))
    solver.add((tables.terms.of(gives) ^ tables.terms.of(leaf.value)) & BROKEN != 0)
    answer = solver.check()
    if answer == z3.unknown:
        raise Unproved("guard_step: z3 does not find out whether it gives another state")
    if answer == z3.unsat:
        return None
    model = solver.model()
    got, wanted = (
        model.eval(tables.terms.of(each), model_completion=True).as_long() & BROKEN for each in (gives, leaf.value)
    )
    where = [_said(tables, each) for each in (gives, leaf.value)]
    return f"gives {got} ({where[0]}) and not {wanted} ({where[1]})"


def _said(tables: Tables, value: Scalar) -> str:
    if value == BROKEN:
        return "broken"
    if isinstance(value, int) or value not in tables.keys:
        return "calculated"
    table, _key, what = tables.keys[value]
    return f"of {table}, at {what[0]}" if isinstance(what, tuple) else f"of {table}"


def _named_in(of: list[Condition | Term | int]) -> set[Term]:
    found, seen, left = set(), set(), list(of)
    while left:
        one = left.pop()
        if isinstance(one, int) or one in seen:
            continue
        seen.add(one)
        if one.what[0] == "name":
            found.add(one)
        else:
            parts = one.what[1] if one.what[0] in ("all", "any", "joined") else one.what[1:]
            left.extend(each for each in parts if isinstance(each, (Condition, Term)))
    return found
