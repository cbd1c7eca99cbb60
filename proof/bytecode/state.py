# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a function has before it at one instruction: registers, its stack and those of its callers, what is known of the
terms in them, and what has happened on the way."""

from __future__ import annotations

from typing import Any, Callable, Dict, NamedTuple, Tuple, Union

from arithmetic import NOT_EQUAL, Condition, Scalar, Term, Truth, byte, condition, fresh, joined, low, possible

Region = Tuple[Any, ...]
Slots = Dict[Tuple[int, int], "Value"]  # (offset from the frame's end, size in bytes)


class Pointer(NamedTuple):
    """Into what is ours, by name: ("stack", frames up), ("context",), ("value", MAP), ("record",); and what cannot be
    followed: ("map", MAP), ("inner", MAP), ("function", Function). An address in the kernel is a plain number."""

    region: Region
    offset: Scalar


Value = Union[Scalar, Pointer, None]  # None: nothing that may be read

PLAIN = 3


class Trace(NamedTuple):
    """What happened, the last first."""

    what: tuple[Any, ...]
    before: Trace | None


class Violation(NamedTuple):
    """``property``: what it is against, as properties.py has it."""

    property: str
    what: str
    trace: Trace | None


class Inputs:
    """The callers' stacks, as a function finds them; it remembers what was asked, so that the result can be used again
    where the answers are alike. A term is answered by one of its own: nothing is taken for granted of it. So is a
    number of 8 bytes but 0, which may stand for no address: it is never one that matters; and one from PLAIN on, of
    which it is known that it is not 0; and every number of fewer bytes when it is ``blunt``."""

    def __init__(self, caller: State, blunt: bool = False) -> None:
        self.caller, self.blunt = caller, blunt
        self.answers: dict[tuple[int, int, int], Value] = {}
        self.kinds: dict[tuple[int, int, int], Any] = {}  # of the answers, as `matches` takes them
        self.facts: dict[Condition, None] = {}  # of the answers

    def read(self, frame: int, offset: int, size: int) -> Value:
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


def kind_of(value: Value, size: int, holder: State, blunt: bool = False) -> Any:
    """What is taken for granted of what lies in ``size`` bytes of a stack."""
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
    """Is that known of it?"""
    return holder.decided(condition(NOT_EQUAL, 64, value, 0)) is True


def covers(kind: Any, value: Value, size: int, holder: State) -> bool:
    """Is what was taken for granted so of this value?"""
    own = kind_of(value, size, holder)
    return kind == own or (kind == "?" and not isinstance(value, Pointer))


def inward(value: Value, name: str, bits: int = 64) -> Value:
    """A caller's value as the callee has it."""
    if isinstance(value, Pointer):
        offset = value.offset if isinstance(value.offset, int) else fresh(name or "offset")
        return Pointer(("stack", value.region[1] + 1) if value.region[0] == "stack" else value.region, offset)
    return value if value is None or isinstance(value, int) else fresh(name, bits)


class State:
    __slots__ = ("arguments", "at", "facts", "fetched", "frames", "ghost", "inputs", "registers", "trace")

    def __init__(self, registers: list[Value], inputs: Inputs | None = None) -> None:
        self.at = 0
        self.registers = registers
        self.frames: list[Slots] = [{}]  # of a caller's: what was written since
        self.inputs = inputs
        self.facts: dict[Condition, None] = {}  # in the order in which they came to be known
        self.ghost: frozenset[str] = frozenset()
        self.trace: Trace | None = None
        self.arguments: tuple[Value, ...] = ()  # what the function was called with
        self.fetched: frozenset[tuple[str, int]] = frozenset()  # map, byte of an entry: what may have been read of it

    def copy(self, at: int) -> State:
        other = State(list(self.registers), self.inputs)
        other.ghost, other.fetched = self.ghost, self.fetched
        other.at, other.trace, other.arguments = at, self.trace, self.arguments
        other.frames = [dict(each) for each in self.frames]
        other.facts = dict(self.facts)
        return other

    def tell(self, *what: Any) -> None:
        self.trace = Trace(what, self.trace)

    # ---- the stack ----------------------------------------------------------------------------------------------

    def frame(self, number: int) -> Slots:
        while len(self.frames) <= number:
            self.frames.append({})
        return self.frames[number]

    def read(self, frame: int, offset: int, size: int) -> Value:
        slots = self.frame(frame)
        exact = slots.get((offset, size))
        if exact is not None:
            return exact
        pieces: list[Scalar | None] = [None] * size
        for (at, length), value in slots.items():
            if at < offset + size and offset < at + length:
                if isinstance(value, Pointer) or value is None:
                    return fresh("part")  # of a pointer: a number that nothing is known of
                for one in range(max(at, offset), min(at + length, offset + size)):
                    pieces[one - offset] = byte(value, one - at)
        if all(each is None for each in pieces):
            if frame and self.inputs is not None:
                return self.inputs.read(frame, offset, size)
            return fresh("stack", 8 * size)
        for one, piece in enumerate(pieces):
            if piece is None:
                got = fresh("stack", 8)
                if frame and self.inputs is not None:
                    got = self.inputs.read(frame, offset + one, 1)
                pieces[one] = fresh("part", 8) if isinstance(got, Pointer) or got is None else byte(got, 0)
        return joined(pieces)  # type: ignore[arg-type]

    def write(self, frame: int, offset: int, size: int, value: Value) -> None:
        slots = self.frame(frame)
        for place in [each for each in slots if each[0] < offset + size and offset < each[0] + each[1]]:
            old = slots.pop(place)
            if place == (offset, size):
                continue
            for one in range(place[0], place[0] + place[1]):
                if not offset <= one < offset + size:
                    known = not isinstance(old, Pointer) and old is not None
                    slots[one, 1] = byte(old, one - place[0]) if known else fresh("part", 8)
        if value is None:
            value = fresh("nothing", 8 * size)
        elif size < 8 and not isinstance(value, Pointer):
            value = low(value, 8 * size)
        elif size < 8:
            value = fresh("part", 8 * size)
        slots[offset, size] = value

    def blur(self, frame: int, offset: int, size: int, name: str) -> None:
        """Something unknown was written there."""
        for one in range(offset, offset + size, 8):
            length = min(8, offset + size - one)
            while length & (length - 1):
                length &= length - 1
            self.write(frame, one, length, fresh(name, 8 * length))
            for rest in range(one + length, min(one + 8, offset + size)):
                self.write(frame, rest, 1, fresh(name, 8))

    # ---- what is known --------------------------------------------------------------------------------------------

    def learn(self, truth: Truth) -> None:
        if not isinstance(truth, bool):
            self.facts[truth] = None

    def decided(self, one: Condition) -> bool | None:
        also = self.inputs.facts if self.inputs is not None else self.facts
        if one in self.facts or one in also:
            return True
        opposite = one.opposite()
        return False if opposite in self.facts or opposite in also else None

    def equate(self, term: Term, value: int) -> None:
        """The term is the number: so it is wherever it lies."""
        self.registers = [value if each is term else each for each in self.registers]
        for frame in self.frames:
            for place, each in frame.items():
                if each is term:
                    frame[place] = value

    def possible(self, *also: Condition) -> bool:
        """May what is known be so?"""
        inputs = self.inputs.facts if self.inputs is not None else ()
        return possible([*inputs, *self.facts, *also])


def map_values(state: State, change: Callable[[Value], Value]) -> None:
    state.registers = [change(each) for each in state.registers]
    for frame in state.frames:
        for place in frame:
            frame[place] = change(frame[place])
