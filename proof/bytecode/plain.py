# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A world that has only a stack. With numbers the executor is an interpreter in it; with terms each result is one term
for all paths. check.py compares both with a kernel. exact.py and step.py build on it."""

from __future__ import annotations

from typing import Hashable

from arithmetic import Condition, Scalar, condition, either
from decode import STACK, Function, Instruction
from execute import UnprovedError, run
from state import Pointer, State, Value, map_values


class Plain:
    """The world: see execute.World."""

    def load(self, state: State, at: Pointer, size: int) -> Value:
        """Reads from the stack."""
        if at.region[0] == "stack" and isinstance(at.offset, int):
            return state.read(at.region[1], at.offset, size)
        raise UnprovedError(f"a read from {at.region}")

    def store(self, state: State, at: Pointer, size: int, value: Value) -> None:
        """Writes to the stack."""
        if at.region[0] != "stack" or not isinstance(at.offset, int):
            raise UnprovedError(f"a write to {at.region}")
        state.write(at.region[1], at.offset, size, value)

    def outside(self, state: State, address: Scalar, size: int) -> Value:
        """There is no other memory."""
        raise UnprovedError("a read of the kernel's memory")

    def trespass(self, state: State, what: str) -> None:
        """There is no other memory."""
        raise UnprovedError(what)

    def helper(self, state: State, number: int, function: Function) -> list[State]:
        """There are no helpers."""
        raise UnprovedError(f"helper {number}")

    def constant(self, state: State, insn: Instruction) -> Value:
        """The number in the instruction."""
        return insn.constant

    def call(self, state: State, callee: Function) -> list[State]:
        """Follows the callee from the caller's own state, so that nothing is lost."""
        inner = state.copy(0)
        inner.frames.insert(0, {})
        map_values(inner, lambda value: shifted(value, 1))
        inner.registers[STACK] = Pointer(("stack", 0), 0)
        ends = run(self, callee, inner)
        for end in ends:
            del end.frames[0]
            map_values(end, lambda value: shifted(value, -1))
            end.registers[6:] = state.registers[6:]
        return ends

    def arrive(self, function: Function, state: State, pending: dict[Hashable, State]) -> None:
        """Merges all states of the same shape."""
        live, floor = function.shape.live[state.at], function.shape.floor
        state.registers = [
            value if number in live or number == STACK else None for number, value in enumerate(state.registers)
        ]
        state.frames[0] = {
            (start, size): value
            for (start, size), value in state.frames[0].items()
            if start + size > floor or any(place in live for place in range(start, start + size))
        }
        key = shape(state)
        other = pending.get(key)
        pending[key] = state if other is None else both(other, state)


def shifted(value: Value, by: int) -> Value:
    """The value as a function sees it that is ``by`` calls further down."""
    if isinstance(value, Pointer) and value.region[0] == "stack":
        return Pointer(("stack", value.region[1] + by), value.offset)
    return value


def shape(state: State) -> Hashable:
    """A key: states of the same shape differ only in numbers and terms."""

    def of(value: Value) -> Hashable:
        if isinstance(value, Pointer):
            return value.region, value.offset
        return value is None

    # numbers and terms on the stack may be missing in one of the states: then they are unknown
    return tuple(of(value) for value in state.registers), frozenset(
        (number, place, of(value))
        for number, frame in enumerate(state.frames)
        for place, value in frame.items()
        if isinstance(value, Pointer)
    )


def both(a: State, b: State) -> State:
    """One state for two of the same shape; the facts of each select the values."""
    common = {fact: None for fact in a.facts if fact in b.facts}
    ways = [_all([fact for fact in state.facts if fact not in common]) for state in (a, b)]
    made = a.copy(a.at)
    made.facts = dict(common)
    if ways[0].opposite() is not ways[1]:
        made.learn(condition("any", tuple(ways)))

    def choose(one: Value, other: Value) -> Value:
        if one is None or isinstance(one, Pointer) or isinstance(other, Pointer):
            return one
        assert other is not None
        return either(ways[0], one, other)

    made.registers = [choose(one, other) for one, other in zip(a.registers, b.registers)]
    for number in range(max(len(a.frames), len(b.frames))):
        slots, mine, others = made.frame(number), a.frame(number), b.frame(number)
        places = set(mine) | set(others)
        if set(mine) != set(others):  # byte by byte where the places differ
            places = {place for place in places if place in mine and place in others}
            rest = {(at + one, 1) for at, size in (set(mine) ^ set(others)) for one in range(size)}
            places |= rest
        slots.clear()
        for at, size in places:
            slots[at, size] = choose(a.read(number, at, size), b.read(number, at, size))
    return made


def _all(facts: list[Condition]) -> Condition:
    return facts[0] if len(facts) == 1 else condition("all", tuple(facts))
