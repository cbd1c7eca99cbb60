# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a path at one instruction: the registers, the stacks of the function and its callers, the facts about
the terms in them, and what happened on the path."""

from __future__ import annotations

from typing import Any, Callable, Dict, Hashable, NamedTuple, Tuple, Union

from arithmetic import NOT_EQUAL, Condition, Scalar, Term, Truth, byte, condition, fresh, joined, low, possible

Region = Tuple[Any, ...]
Slots = Dict[Tuple[int, int], "Value"]  # (offset from the frame's end, size in bytes)


class Pointer(NamedTuple):
    """An address in memory of ours. ``region``: ("stack", frames up), ("context",), ("value", MAP) or ("record", MAP);
    or what no instruction accesses: ("map", MAP), ("inner", MAP), ("function", Function). The address of something in
    the kernel is a plain number."""

    region: Region
    offset: Scalar


Value = Union[Scalar, Pointer, None]  # None: nothing that an instruction may read

PLAIN = 3  # numbers below it may be a verdict or a flag, and are kept apart


class Trace(NamedTuple):
    """What happened on a path, the last event first."""

    what: tuple[Any, ...]
    before: Trace | None


class Violation(NamedTuple):
    """A path that violates a property. ``property``: its name in properties.py."""

    property: str
    what: str
    trace: Trace | None


class Inputs:
    """The callers' stacks as a function reads them.

    It records what the function read, so that the function's outcomes can be reused for callers with similar stacks. A
    term is replaced by a new one about which nothing is assumed. So is a number of 8 bytes other than 0 (0 may stand
    for no address); a number from PLAIN on, which is only assumed not to be 0; and, if ``blunt``, each shorter number.
    """

    def __init__(self, caller: State, blunt: bool = False) -> None:
        self.caller, self.blunt = caller, blunt
        self.answers: dict[tuple[int, int, int], Value] = {}
        self.kinds: dict[tuple[int, int, int], Hashable] = {}  # of the answers: see kind_of
        self.facts: dict[Condition, None] = {}  # of the answers

    def read(self, frame: int, offset: int, size: int) -> Value:
        """The value on a caller's stack."""
        place = frame, offset, size
        if place not in self.answers:
            self.answers[place] = self._answer(self.caller.read(frame - 1, offset, size), place)
        return self.answers[place]

    def _answer(self, value: Value, place: tuple[int, int, int]) -> Value:
        kind = self.kinds[place] = kind_of(value, place[2], self.caller, self.blunt)
        if isinstance(value, Pointer):
            return inward(value, "")
        if isinstance(kind, int):
            return kind
        answer = fresh(f"caller{place[1]}", 8 * place[2])
        if kind == "not 0":
            self.facts[condition(NOT_EQUAL, 64, answer, 0)] = None
        return answer


def kind_of(value: Value, size: int, holder: State, blunt: bool = False) -> Hashable:
    """What is assumed about a value in ``size`` bytes of a stack: a number, a pointer, "not 0", or "?" for nothing."""
    if isinstance(value, Pointer):
        return value.region, value.offset if isinstance(value.offset, int) else "?"
    if size == 8:
        return 0 if value == 0 else "?"
    if value is None or blunt:
        return "?"
    if isinstance(value, Term):
        return "not 0" if not_zero(holder, value) else "?"
    return value if value < PLAIN else "not 0"


def not_zero(holder: State, value: Term) -> bool:
    """Whether the facts say that the term is not 0."""
    return holder.decided(condition(NOT_EQUAL, 64, value, 0)) is True


def covers(kind: Hashable, value: Value, size: int, holder: State) -> bool:
    """Whether the value is of this kind, so that what was assumed about it holds."""
    own = kind_of(value, size, holder)
    return kind == own or (kind == "?" and not isinstance(value, Pointer))


def inward(value: Value, name: str, bits: int = 64) -> Value:
    """A caller's value as the callee sees it."""
    if isinstance(value, Pointer):
        offset = value.offset if isinstance(value.offset, int) else fresh(name or "offset")
        return Pointer(("stack", value.region[1] + 1) if value.region[0] == "stack" else value.region, offset)
    return value if value is None or isinstance(value, int) else fresh(name, bits)


class State:
    """One state of a path. ``ghost``: its marks (marks.py)."""

    __slots__ = ("arguments", "at", "facts", "fetched", "frames", "ghost", "inputs", "registers", "trace")

    def __init__(self, registers: list[Value], inputs: Inputs | None = None) -> None:
        self.at = 0
        self.registers = registers
        self.frames: list[Slots] = [{}]  # of a caller's stack: what the function wrote to it
        self.inputs = inputs
        self.facts: dict[Condition, None] = {}  # in the order in which they were learned
        self.ghost: frozenset[str] = frozenset()
        self.trace: Trace | None = None
        self.arguments: tuple[Value, ...] = ()  # what the function was called with
        self.fetched: frozenset[tuple[str, int]] = frozenset()  # map, byte of an entry that may have been read

    def copy(self, at: int) -> State:
        """A copy of the state, at another instruction."""
        other = State(list(self.registers), self.inputs)
        other.ghost, other.fetched = self.ghost, self.fetched
        other.at, other.trace, other.arguments = at, self.trace, self.arguments
        other.frames = [dict(frame) for frame in self.frames]
        other.facts = dict(self.facts)
        return other

    def record(self, *what: object) -> None:
        """Adds an event to the path's trace."""
        self.trace = Trace(what, self.trace)

    # ---- the stack ----------------------------------------------------------------------------------------------

    def frame(self, number: int) -> Slots:
        """The frame of the function (0) or of the caller that is ``number`` calls up."""
        while len(self.frames) <= number:
            self.frames.append({})
        return self.frames[number]

    def read(self, frame: int, offset: int, size: int) -> Value:
        """The value on a stack; what nobody wrote is unknown."""
        slots = self.frame(frame)
        exact = slots.get((offset, size))
        if exact is not None:
            return exact
        pieces: list[Scalar | None] = [None] * size
        for (at, length), value in slots.items():
            if at < offset + size and offset < at + length:
                if isinstance(value, Pointer) or value is None:
                    return fresh("part")  # a part of a pointer is an unknown number
                for place in range(max(at, offset), min(at + length, offset + size)):
                    pieces[place - offset] = byte(value, place - at)
        if all(piece is None for piece in pieces):
            if frame and self.inputs is not None:
                return self.inputs.read(frame, offset, size)
            return fresh("stack", 8 * size)
        return joined(
            [self._unwritten(frame, offset + at) if piece is None else piece for at, piece in enumerate(pieces)]
        )

    def _unwritten(self, frame: int, offset: int) -> Scalar:
        """A byte that the function did not write."""
        if not frame or self.inputs is None:
            return fresh("stack", 8)
        value = self.inputs.read(frame, offset, 1)
        return fresh("part", 8) if isinstance(value, Pointer) or value is None else byte(value, 0)

    def write(self, frame: int, offset: int, size: int, value: Value) -> None:
        """Stores a value on a stack."""
        slots = self.frame(frame)
        for place in [slot for slot in slots if slot[0] < offset + size and offset < slot[0] + slot[1]]:
            old = slots.pop(place)
            if place == (offset, size):
                continue
            for at in range(place[0], place[0] + place[1]):
                if not offset <= at < offset + size:
                    unknown = isinstance(old, Pointer) or old is None
                    slots[at, 1] = fresh("part", 8) if unknown else byte(old, at - place[0])  # type: ignore[arg-type]
        if value is None:
            value = fresh("nothing", 8 * size)
        elif size < 8 and not isinstance(value, Pointer):
            value = low(value, 8 * size)
        elif size < 8:
            value = fresh("part", 8 * size)
        slots[offset, size] = value

    def blur(self, frame: int, offset: int, size: int, name: str) -> None:
        """Stores an unknown value on a stack."""
        for at in range(offset, offset + size, 8):
            length = min(8, offset + size - at)
            while length & (length - 1):
                length &= length - 1
            self.write(frame, at, length, fresh(name, 8 * length))
            for rest in range(at + length, min(at + 8, offset + size)):
                self.write(frame, rest, 1, fresh(name, 8))

    # ---- facts ------------------------------------------------------------------------------------------------------

    def learn(self, truth: Truth) -> None:
        """Adds a fact."""
        if not isinstance(truth, bool):
            self.facts[truth] = None

    def decided(self, fact: Condition) -> bool | None:
        """Whether the fact is known to hold, or not to hold; None: it is not known."""
        also = self.inputs.facts if self.inputs is not None else self.facts
        if fact in self.facts or fact in also:
            return True
        opposite = fact.opposite()
        return False if opposite in self.facts or opposite in also else None

    def equate(self, term: Term, value: int) -> None:
        """Replaces the term by a number that it is equal to."""
        self.registers = [value if held is term else held for held in self.registers]
        for frame in self.frames:
            for place, held in frame.items():
                if held is term:
                    frame[place] = value

    def possible(self, *also: Condition) -> bool:
        """Whether all facts, and these, can hold together."""
        inputs = self.inputs.facts if self.inputs is not None else ()
        return possible([*inputs, *self.facts, *also])


def map_values(state: State, change: Callable[[Value], Value]) -> None:
    """Replaces each value in the registers and on the stacks."""
    state.registers = [change(each) for each in state.registers]
    for frame in state.frames:
        for place in frame:
            frame[place] = change(frame[place])
