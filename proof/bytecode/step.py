# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The path automaton's step: guard_step, as submitted, returns the same as the reference below for every content of its
tables and every name. The reference is the transition as proof/coq/Compile.v defines it, with -1 where a table, an
entry or the name cannot be read.

Each table, entry, field and byte of the name is one named term, the same for each access. Each of them may be missing.
States are not merged: each end of guard_step is one path. The reference is then evaluated under the facts of that path.
"""

from __future__ import annotations

from typing import Callable, Hashable, Iterator, NamedTuple

import z3
from arithmetic import ADD, EQUAL, LSH, NOT_EQUAL, Condition, Scalar, Solver, Term, calculate, condition, either, fresh
from decode import STACK, Function, Instruction
from effects import STEP
from exact import EFFORT, Answer
from execute import UnprovedError, run
from plain import Plain
from state import Pointer, State, Value

BROKEN = 0xFFFFFFFF
COMPONENT = 36  # GUARD_COMPONENT
ENTRY = {"states": 248, "edges": 4, "bytes": 520}  # bytes of a value
KEY = {"states": (4,), "edges": (4, *[1] * COMPONENT), "bytes": (4,)}  # sizes of a key's fields
OTHERWISE, FIRST, TARGET, NEXT = 0, 4, 0, 8  # offsets in guard_state and guard_bytes
LENGTH = 256  # bytes of a name that the byte automaton accepts
LOOKUP, READ, READ_STRING = 1, 113, 115
LESS, MORE = 0xC0, 0x60  # with sign
STEPS = 5000  # limit of guard_step's blocks, more than it has: beyond it is a loop that the verifier refuses
WAYS = 64  # limit of the reference's results for one end


class Tables(Plain):
    """A world in which tables and the name have an unknown, constant content."""

    def __init__(self) -> None:
        self.slot, self.state, self.name = fresh("slot", 32), fresh("state", 32), fresh("name")
        self.terms = Solver()
        self.made: dict[tuple[Hashable, ...], Term] = {}
        self.written: dict[Term, str] = {}
        self.keys: dict[Term, tuple[str, tuple[Scalar, ...], Hashable]] = {}  # a term -> table, key, part of the entry

    # ---- tables and the name ----------------------------------------------------------------------------------------

    def _same(self, value: Scalar) -> Hashable:
        """A key for equal values, however they are written."""
        if isinstance(value, int) or value.what[0] == "name":
            return value
        if value not in self.written:
            self.written[value] = z3.simplify(self.terms.of(value)).sexpr()
        return self.written[value]

    def _named(self, bits: int, table: str, key: tuple[Scalar, ...], what: Hashable) -> Term:
        place = table, tuple(self._same(part) for part in key), what
        if place not in self.made:
            self.made[place] = made = fresh(f"{table}.{len(self.made)}", bits)
            self.keys[made] = table, key, what
        return self.made[place]

    def has(self, table: str) -> Condition:
        """That the generation has the table."""
        return self._present(f"outer {table}", (self.slot,))

    def holds(self, table: str, *key: Scalar) -> Condition:
        """That the table has the entry."""
        return self._present(table, key)

    def _present(self, table: str, key: tuple[Scalar, ...]) -> Condition:
        return condition(NOT_EQUAL, 64, self._named(1, table, key, "present"), 0)

    def field(self, table: str, key: tuple[Scalar, ...], offset: Scalar, size: int) -> Term:
        """A field of an entry."""
        return self._named(8 * size, table, key, (self._same(offset), size))

    def failed(self, at: Scalar) -> Term:
        """The result of a read of a byte: 0, or an error."""
        return self._named(64, "read", (at,), "error")

    def byte(self, at: Scalar) -> Scalar:
        """The byte at an address; 0 if the read failed."""
        return either(condition(EQUAL, 64, self.failed(at), 0), self._named(8, "read", (at,), "byte"), 0)

    def length(self, at: Scalar, room: int) -> Term:
        """The length of the string with its NUL, at most ``room``; below 1: it cannot be read."""
        return self._named(64, f"string of {room}", (at,), "length")

    def character(self, at: Scalar, room: int, number: int, before: Scalar) -> Scalar:
        """The byte ``number`` of a buffer after a string was read into it. ``before``: its old value."""
        length, read = self.length(at, room), self._named(8, f"string of {room}", (at,), number)
        return either(condition(MORE, 64, length, number), read, either(condition(LESS, 64, length, 0), 0, before))

    # ---- guard_step's accesses --------------------------------------------------------------------------------------

    def constant(self, state: State, insn: Instruction) -> Value:
        """A map or a number."""
        return Pointer(("outer", insn.map), 0) if insn.map else insn.constant

    def load(self, state: State, at: Pointer, size: int) -> Value:
        """Reads a field of an entry, or from the stack."""
        if at.region[0] != "entry":
            return super().load(state, at, size)
        _kind, table, key = at.region
        room, offset = ENTRY[table] - size, at.offset
        if isinstance(offset, int):
            outside = not 0 <= offset <= room
        else:
            outside = self.possible([condition(0x20, 64, offset, room)])  # without sign
        if outside:
            raise UnprovedError(f"a read of {size} bytes beyond an entry of {table}")
        return self.field(table, key, offset, size)

    def helper(self, state: State, number: int, function: Function) -> list[State]:
        """A lookup, or a read of the name."""
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
            raise UnprovedError(f"helper {number}")
        if not isinstance(to.offset, int):
            raise UnprovedError("a read to an unknown place")
        for place in range(size):
            at = Pointer(to.region, to.offset + place)
            if number == READ:
                written = self.byte(calculate(ADD, 64, source, place))
            else:
                before = self.load(state, at, 1)
                assert isinstance(before, (int, Term))
                written = self.character(source, size, place, before)
            self.store(state, at, 1, written)
        if number == READ_STRING:
            registers[0] = self.length(source, size)
            state.learn(condition(0xD0, 64, registers[0], size))  # at most the size of the buffer
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
            raise UnprovedError("a lookup in something other than a table")
        kind, name = table.region
        at, values = key.offset, []
        for size in (4,) if kind == "outer" else KEY[name]:
            value = self.load(state, Pointer(key.region, at), size)
            if not isinstance(value, (int, Term)):
                raise UnprovedError("a lookup by an address")
            values.append(value)
            at += size
        if kind == "outer":
            present = self._present(f"outer {name}", tuple(values))
            found = Pointer(("inner", name), 0)
        else:
            present = self.holds(name, *values)
            found = Pointer(("entry", name, tuple(values)), 0)
        known, missing = state.decided(present), state.copy(state.at)
        state.registers[0], missing.registers[0] = found, 0
        if known is not None:
            return [state if known else missing]
        state.learn(present)
        missing.learn(present.opposite())
        return [state, missing]

    def arrive(self, function: Function, state: State, pending: dict[Hashable, State]) -> None:
        """Merges no states."""
        pending[len(pending)] = state

    # ---- comparison with the reference ----------------------------------------------------------------------------

    def possible(self, facts: list[Condition]) -> bool:
        """Whether all facts can hold together. Raises UnprovedError when z3 cannot decide."""
        solver = z3.Solver()
        solver.set("rlimit", EFFORT)
        solver.add(*(self.terms.truth(fact) for fact in facts))
        answer = solver.check()
        if answer == z3.unknown:
            raise UnprovedError(f"{STEP}: z3 cannot decide whether a path exists")
        return bool(answer == z3.sat)

    def alike(self, facts: list[Condition], *values: Scalar) -> list[z3.BoolRef]:
        """That parts of entries with the same key are the same."""
        used = sorted((name for name in _named_in([*facts, *values]) if name in self.keys), key=str)
        implications = []
        for number, one in enumerate(used):
            table, key, what = self.keys[one]
            for other in used[:number]:
                other_table, other_key, other_what = self.keys[other]
                if other_table == table and other_what == what:
                    same = z3.And(*(self.terms.of(a) == self.terms.of(b) for a, b in zip(key, other_key)))
                    implications.append(z3.Implies(same, self.terms.of(one) == self.terms.of(other)))
        return implications


MINUS_ONE = (1 << 64) - 1


def reference(tables: Tables, ask: Callable[[Condition], bool]) -> Scalar:
    """The next state. ``ask``: whether a condition holds."""

    def is_zero(value: Scalar) -> bool:
        return not value if isinstance(value, int) else ask(condition(EQUAL, 64, value, 0))

    state = tables.state
    if not ask(tables.has("states")) or not ask(tables.holds("states", state)):
        return BROKEN
    otherwise, row = (tables.field("states", (state,), offset, 4) for offset in (OTHERWISE, FIRST))
    if is_zero(row):
        return _literal(tables, ask, is_zero, otherwise)
    return _bytewise(tables, ask, is_zero, row, otherwise)


def _bytewise(
    tables: Tables, ask: Callable[[Condition], bool], is_zero: Callable[[Scalar], bool], row: Scalar, otherwise: Scalar
) -> Scalar:
    """The next state of a state with a byte automaton. ``row``: its first row, plus 1."""
    name = tables.name
    if not ask(tables.has("bytes")):
        return BROKEN
    for number in range(LENGTH):
        row = calculate(ADD, 32, row, MINUS_ONE)
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
    """The next state of a state whose edges are whole names."""
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
    key = tables.state, *(tables.character(tables.name, COMPONENT, number, 0) for number in range(COMPONENT))
    return tables.field("edges", key, 0, 4) if ask(tables.holds("edges", *key)) else otherwise


class Leaf(NamedTuple):
    """One result of the reference, under these additional assumptions."""

    value: Scalar
    assumed: list[Condition]


def _leaves(tables: Tables, end: State) -> Iterator[Leaf]:
    """The results that the reference may have under the facts of one end."""
    pending: list[list[tuple[Condition, bool]]] = [[]]
    count = 0
    while pending:
        chosen = list(pending.pop())

        def ask(asked: Condition, chosen: list[tuple[Condition, bool]] = chosen) -> bool:
            known = end.decided(asked)
            if known is not None:
                return known
            for before, holds in chosen:
                if before in (asked, asked.opposite()):
                    return holds == (before is asked)
            facts = [*end.facts, *_assumed(chosen)]
            holds = tables.possible([*facts, asked])
            if holds and tables.possible([*facts, asked.opposite()]):
                pending.append([*chosen, (asked, False)])
            chosen.append((asked, holds))
            return holds

        value = reference(tables, ask)
        count += 1
        if count > WAYS:
            raise UnprovedError(f"{STEP}: z3 is needed for too many results of the reference")
        yield Leaf(value, _assumed(chosen))


def _assumed(chosen: list[tuple[Condition, bool]]) -> list[Condition]:
    return [fact if holds else fact.opposite() for fact, holds in chosen]


def stepped(function: Function) -> Answer:
    """Compares guard_step with the reference. Raises UnprovedError when z3 cannot decide."""
    tables = Tables()
    start = State([None] * 11)
    start.registers[1:4] = [tables.slot, tables.state, tables.name]
    start.registers[STACK] = Pointer(("stack", 0), 0)
    ends = run(tables, function, start, STEPS)
    for end in sorted(ends, key=lambda end: len(end.facts)):
        result = end.registers[0]
        if result is None or isinstance(result, Pointer):
            return Answer(["returns an address"], len(ends))
        for leaf in _leaves(tables, end):
            if leaf.value is result or leaf.value == result:
                continue
            difference = _differs(tables, end, leaf, result)
            if difference:
                return Answer([difference], len(ends))
    return Answer([], len(ends))


def _differs(tables: Tables, end: State, leaf: Leaf, result: Scalar) -> str | None:
    known = [*end.facts, *leaf.assumed]
    solver = z3.Solver()
    solver.set("rlimit", EFFORT)
    solver.add(*(tables.terms.truth(fact) for fact in known), *tables.alike(known, result, leaf.value))
    solver.add((tables.terms.of(result) ^ tables.terms.of(leaf.value)) & BROKEN != 0)
    answer = solver.check()
    if answer == z3.unknown:
        raise UnprovedError(f"{STEP}: z3 cannot decide whether it returns another state")
    if answer == z3.unsat:
        return None
    model = solver.model()
    got, wanted = (
        model.eval(tables.terms.of(value), model_completion=True).as_long() & BROKEN for value in (result, leaf.value)
    )
    sources = [_source(tables, value) for value in (result, leaf.value)]
    return f"returns {got} ({sources[0]}) instead of {wanted} ({sources[1]})"


def _source(tables: Tables, value: Scalar) -> str:
    if value == BROKEN:
        return "broken"
    if isinstance(value, int) or value not in tables.keys:
        return "calculated"
    table, _key, what = tables.keys[value]
    return f"of {table}, at {what[0]}" if isinstance(what, tuple) else f"of {table}"


def _named_in(values: list[Condition | Term | int]) -> set[Term]:
    names: set[Term] = set()
    seen: set[Condition | Term] = set()
    left = list(values)
    while left:
        value = left.pop()
        if isinstance(value, int) or value in seen:
            continue
        seen.add(value)
        if isinstance(value, Term) and value.what[0] == "name":
            names.add(value)
        else:
            parts = value.what[1] if value.what[0] in ("all", "any", "joined") else value.what[1:]
            left.extend(part for part in parts if isinstance(part, (Condition, Term)))
    return names
