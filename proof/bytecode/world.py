# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The world in which programs are proved: nothing is assumed about maps and the kernel's memory. Each read may return
anything, at any time, as if others wrote concurrently; each lookup may find an entry or none; each helper may fail. So
the proofs hold for every content of the maps. States with the same numbers in the same places are merged, and what
differs between them becomes unknown. So no path is missed, and each loop ends.

A function is executed once for each kind of arguments. Its possible outcomes are then reused: results, writes to its
callers' stacks, and marks."""

from __future__ import annotations

import time
from typing import Generic, Hashable, Iterable, NamedTuple, Protocol, TypeVar

from arithmetic import EQUAL, NOT_EQUAL, Condition, Scalar, Term, condition, fresh
from decode import ATOMIC, STACK, STX, Function, Instruction
from execute import UnprovedError, run
from state import PLAIN, Inputs, Pointer, State, Trace, Value, Violation, covers, inward, kind_of, not_zero

STATES = 256  # at one instruction, before the numbers that vary most become unknown there
IN_LOOP = 16  # the same at the start of a loop
VARIES = 4  # values of a number that varies much
STACK_BYTES = 512  # of one function's stack
VARIANTS = 2  # combinations of numbers as arguments that a function is executed with, before it is with unknown ones
ENTRIES = 4  # the same for numbers on the callers' stacks
ROUNDS = 16  # of bpf_loop, after which no new state may occur

(
    LOOKUP,
    UPDATE,
    DELETE,
    COMM,
    TASK,
    SK_STORAGE,
    READ,
    READ_STRING,
    TIME,
    RESERVE,
    SUBMIT,
    INODE_STORAGE,
    TASK_STORAGE,
    TASK_BTF,
    SOCKET_OF,
    LOOP,
) = 1, 2, 3, 16, 35, 107, 113, 115, 125, 131, 132, 145, 156, 158, 162, 181
ABSENT = 0xBAD2310
NO_ROOM = -12 & (1 << 64) - 1  # -ENOMEM; no program examines which error it is
LOOKED_UP = -1  # instead of an entry's byte: the map was looked up
NAMES = {
    LOOKUP: "entry",
    SK_STORAGE: "storage",
    INODE_STORAGE: "storage",
    TASK_STORAGE: "storage",
    RESERVE: "room for an event",
}


class Outcome(NamedTuple):
    """One way in which a function may end. ``written``: values on its callers' stacks by frame, offset and size.
    ``not_zero``: the result is an unknown value other than 0."""

    result: Value
    not_zero: bool
    written: tuple[tuple[tuple[int, int, int], Value], ...]
    ghost: frozenset[str]
    trace: Trace | None


class Known(NamedTuple):
    """What a function does with one kind of arguments and of values on its callers' stacks."""

    reads: dict[tuple[int, int, int], Hashable]  # see state.kind_of
    outcomes: list[Outcome]
    trespasses: list[Violation]
    fetched: frozenset[tuple[str, int]]  # what any path in it may have read of entries that the caller has


class Rules(Protocol):
    """How the marks of a path, State.ghost, change: see properties.py."""

    def missed(self, state: State, table: str, kind: str, function: str) -> None:
        """A lookup found nothing. ``kind``: outer, array, hash, storage or other; full: an entry was not created."""

    def before(self, state: State, callee: str, function: str) -> None:
        """The function is about to call another."""

    def after(self, state: State, function: str) -> None:
        """The function reached one of its ends."""

    def arrived(self, state: State, function: str) -> None:
        """The state reached a join, where it may be merged with others."""

    def precise(self, function: str) -> bool:
        """Whether all numbers that the function finds on its callers' stacks are distinguished."""

    def passed(self, ghost: frozenset[str], inner: frozenset[str]) -> frozenset[str]:
        """The marks after a call. ``inner``: the marks that the callee set."""

    def once(self, table: str, at: int | None, size: int) -> Iterable[int]:
        """The bytes of a read of a map's entry that may be read only once. ``at``: None if the offset is unknown."""

    def looked_up(self, table: str) -> bool:
        """Whether the map may be looked up only once."""


RulesT_co = TypeVar("RulesT_co", bound=Rules, covariant=True)


class Prover(Generic[RulesT_co]):
    """Executes programs and keeps what their functions do. ``kinds``: of each map, see Rules.missed."""

    def __init__(self, kinds: dict[str, str], rules: RulesT_co, seconds: float = 60) -> None:
        self.kinds, self.rules, self.seconds = kinds, rules, seconds
        self.until = 0.0
        self.memory: dict[tuple[str, Hashable], list[Known]] = {}
        self.variants: dict[tuple[str, Hashable], set[tuple[int, ...]]] = {}
        self.arguments: dict[int, Term] = {}
        self.symbols: dict[str, Term] = {}
        self.current = fresh("current")

    def argument(self, number: int) -> Term:
        """The hook's argument."""
        return self.arguments.setdefault(number, fresh(f"argument{number}"))

    def program(self, function: Function) -> tuple[list[State], list[Violation]]:
        """All ends of a program, and its violations on the way. Raises UnprovedError after ``seconds``."""
        self.until = time.process_time() + self.seconds
        walk = Walk(self, function)
        start = State([None] * 11)
        start.registers[1] = Pointer(("context",), 0)
        start.registers[STACK] = Pointer(("stack", 0), 0)
        ends = run(walk, function, start)
        for end in ends:
            self.rules.after(end, function.name)
        return ends, walk.trespasses

    def known(self, caller: State, callee: Function) -> Known:
        """What the callee does when it is called in this state. Executes it if that is new."""
        arguments = self._arguments(caller, callee)
        key = callee.digest, tuple(_of(value) for value in arguments)
        precise = self.rules.precise(callee.name)
        fitting = None
        for entry in self.memory.get(key, ()):
            lying = {place: caller.read(place[0] - 1, *place[1:]) for place in entry.reads}
            if all(kind == kind_of(lying[place], place[2], caller) for place, kind in entry.reads.items()):
                return entry
            if not precise and all(covers(kind, lying[place], place[2], caller) for place, kind in entry.reads.items()):
                fitting = entry
        if fitting is not None:
            return fitting
        blunt = len(self.memory.get(key, ())) >= ENTRIES and not precise
        inputs = Inputs(caller, blunt)
        start = State([*arguments, *[None] * 5], inputs)
        start.arguments = tuple(arguments)
        start.registers[STACK] = Pointer(("stack", 0), 0)
        walk = Walk(self, callee)
        ends = run(walk, callee, start)
        outcomes = self._outcomes(callee, ends)
        shared = [
            *arguments,
            *inputs.answers.values(),
            *(end.registers[0] for end in ends),
            *(value for outcome in outcomes for _place, value in outcome.written),
        ]
        entries = {value.region[1] for value in shared if isinstance(value, Pointer) and value.region[0] == "value"}
        fetched = frozenset(item for item in walk.fetched if item[1] == LOOKED_UP or item[0] in entries)
        entry = Known(inputs.kinds, _widest(outcomes), walk.trespasses, fetched)
        self.memory.setdefault(key, []).append(entry)
        return entry

    def _arguments(self, caller: State, callee: Function) -> list[Value]:
        """The callee's arguments. Numbers become unknown when it is called with many; 0 may stand for no address."""
        wanted = callee.shape.live[0]
        arguments = [
            inward(value, f"r{number}") if number in wanted else None
            for number, value in enumerate(caller.registers[:6])
        ]
        pointers = tuple(value if isinstance(value, Pointer) else None for value in arguments)
        variants = self.variants.setdefault((callee.digest, tuple(_of(value) for value in pointers)), set())
        numbers = tuple(value for value in arguments if isinstance(value, int))
        if len(variants) < VARIANTS or numbers in variants:
            variants.add(numbers)
            return arguments
        return [
            fresh(f"r{number}") if isinstance(value, int) and value else value for number, value in enumerate(arguments)
        ]

    def _outcomes(self, callee: Function, ends: list[State]) -> list[Outcome]:
        outcomes: dict[Hashable, Outcome] = {}
        for end in ends:
            self.rules.after(end, callee.name)
            written = tuple(
                sorted(
                    ((number, *place), _kept(end, value, place[1]))
                    for number, frame in enumerate(end.frames)
                    if number
                    for place, value in frame.items()
                )
            )
            result = end.registers[0]
            if isinstance(result, Pointer) and result.region == ("stack", 0):
                raise UnprovedError(f"{callee.name} returns an address on its own stack")
            known = isinstance(result, Term) and not end.possible(condition(EQUAL, 64, result, 0))
            outcome = Outcome(result, known, written, end.ghost, end.trace)
            outcomes.setdefault((end.ghost, known, _pattern(result, written)), outcome)
        return list(outcomes.values())


def _kept(end: State, value: Value, size: int) -> Value:
    """A value on a caller's stack as the caller sees it. PLAIN stands for an unknown value other than 0."""
    return PLAIN if isinstance(value, Term) and size < 8 and not_zero(end, value) else value


def _pattern(result: Value, written: tuple[tuple[tuple[int, int, int], Value], ...]) -> Hashable:
    """A key for equivalent outcomes: the same numbers, or numbers other than 0; and the same unknown values in the same
    places."""
    numbers: dict[Term, int] = {}

    def of(value: Value) -> Hashable:
        if isinstance(value, Term):
            return "?", numbers.setdefault(value, len(numbers)), value.bits
        if isinstance(value, Pointer):
            return _of(value), of(value.offset)
        return value

    return of(result), tuple(
        (place, "not 0" if isinstance(value, int) and value >= PLAIN else of(value)) for place, value in written
    )


def _widest(outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes without those that are a case of another."""
    kept: list[Outcome] = []
    for outcome in outcomes:
        if not any(_case_of(outcome, other) for other in kept):
            kept = [other for other in kept if not _case_of(other, outcome)] + [outcome]
    return kept


def _case_of(one: Outcome, other: Outcome) -> bool:
    """Whether ``other`` covers everything that ``one`` may be."""
    if one.ghost != other.ghost or (other.not_zero and not one.not_zero) or len(one.written) != len(other.written):
        return False
    pairs = [(8, one.result, other.result)]
    for (place, value), (where, wide) in zip(one.written, other.written):
        if place != where:
            return False
        pairs.append((place[2], value, wide))
    wide_ones = [wide for _size, _value, wide in pairs if isinstance(wide, Term)]
    if len(set(wide_ones)) < len(wide_ones):
        return False  # values that are equal in the other need not be equal in the one
    return all(
        value == wide
        or (isinstance(wide, Term) and not isinstance(value, Pointer) and value is not None)
        or (isinstance(wide, int) and isinstance(value, int) and size < 8 and value > 0 and wide >= PLAIN)
        for size, value, wide in pairs
    )


def _of(value: Value) -> Hashable:
    """A key for equivalent values: the same number, or any unknown value."""
    if isinstance(value, Pointer):
        region = (*value.region[:-1], value.region[-1].digest) if value.region[0] == "function" else value.region
        return region, value.offset if isinstance(value.offset, int) else "?"
    return value if value is None or isinstance(value, int) else "?"


class Walk:
    """The world of one function while it is executed: see execute.World."""

    def __init__(self, prover: Prover[Rules], function: Function) -> None:
        self.prover, self.function = prover, function
        self.seen: dict[int, dict[Hashable, State]] = {}
        # what became unknown of each place: 1, which number from PLAIN on it is (not 0 remains); 2, which number it is
        self.forgotten: dict[int, dict[Hashable, int]] = {}
        self.blanks: dict[tuple[int, Hashable], set[Term]] = {}  # of the states in ``seen``
        self.trespasses: list[Violation] = []
        self.fetched: set[tuple[str, int]] = set()  # anywhere in it

    # ---- memory -------------------------------------------------------------------------------------------------

    def load(self, state: State, at: Pointer, size: int) -> Value:
        """Reads from the stack, the hook's arguments, a map's entry or an event."""
        kind = at.region[0]
        if kind == "stack":
            if isinstance(at.offset, int):
                return state.read(at.region[1], at.offset, size)
            return fresh("stack", 8 * size)
        if kind == "context":
            if not isinstance(at.offset, int) or at.offset % 8 or size != 8:
                raise UnprovedError("an argument is read in parts")
            return self.prover.argument(at.offset // 8)
        if kind in ("value", "record"):
            self._fetch(state, at, size)
            where = at.offset if isinstance(at.offset, int) else "?"
            return fresh(f"{at.region[-1]}+{where}", 8 * size)
        raise UnprovedError(f"a read from {kind}")

    def _fetch(self, state: State, at: Pointer, size: int) -> None:
        atomic = self.function.code[state.at].code & 0xE7 == ATOMIC | STX  # an exchange returns the old value
        if at.region[0] == "value" and not atomic:
            table = at.region[1]
            bytes_ = self.prover.rules.once(table, at.offset if isinstance(at.offset, int) else None, size)
            self._once(state, frozenset((table, place) for place in bytes_))

    def _once(self, state: State, fetched: frozenset[tuple[str, int]]) -> None:
        for table, at in sorted(fetched & state.fetched)[:1]:
            what = f"byte {at} of an entry of {table} is read" if at >= 0 else f"{table} is looked up"
            self.trespass(state, f"{what} more than once", "once")
        state.fetched |= fetched
        self.fetched |= fetched

    def store(self, state: State, at: Pointer, size: int, value: Value) -> None:
        """Writes to the stack, a map's entry or an event."""
        kind = at.region[0]
        if kind == "stack":
            self._stack(state, at, size, value)
        elif kind not in ("value", "record"):
            self.trespass(state, f"{self.function.name} stores {size} bytes to its {kind}")

    def _stack(self, state: State, at: Pointer, size: int, value: Value) -> None:
        frame = at.region[1]
        if isinstance(at.offset, int):
            state.write(frame, at.offset, size, value)
            return
        span = _span(state, at.offset)
        if span is None:
            raise UnprovedError(f"{self.function.name} writes somewhere on a stack")
        self._blur(state, frame, span[0], span[1] + size - span[0], "somewhere")

    def _blur(self, state: State, frame: int, offset: int, size: int, name: str) -> None:
        if frame:
            state.blur(frame, offset, size, name)
            return
        slots = state.frames[0]  # a place without a value is unknown
        for place in [slot for slot in slots if slot[0] < offset + size and offset < slot[0] + slot[1]]:
            value = slots.pop(place)
            for byte_at in range(place[0], place[0] + place[1]):
                if not offset <= byte_at < offset + size and isinstance(value, int):
                    slots[byte_at, 1] = value >> 8 * (byte_at - place[0]) & 0xFF

    def outside(self, state: State, address: Scalar, size: int) -> Value:
        """Reads anything from the kernel's memory."""
        return fresh("kernel", 8 * size)

    def trespass(self, state: State, what: str, against: str = "writes") -> None:
        """Records a violation of the property ``against``."""
        self.trespasses.append(Violation(against, what, state.trace))

    def constant(self, state: State, insn: Instruction) -> Value:
        """A map, an address in a map's value, a kernel symbol or a number."""
        if insn.map:
            if insn.src == 2:
                return Pointer(("value", insn.map), insn.constant)
            return Pointer(("map", insn.map), 0)
        if insn.symbol:
            return self.prover.symbols.setdefault(insn.symbol, fresh(insn.symbol))
        return insn.constant

    # ---- calls --------------------------------------------------------------------------------------------------

    def call(self, state: State, callee: Function) -> list[State]:
        """One state for each outcome of the callee."""
        self.prover.rules.before(state, callee.name, self.function.name)
        entry = self.prover.known(state, callee)
        self.trespasses.extend(
            trespass._replace(trace=Trace(("call", callee.name, None, trespass.trace), state.trace))
            for trespass in entry.trespasses
        )
        self._once(state, entry.fetched)
        return [self._ended(state, callee, outcome) for outcome in entry.outcomes]

    def _ended(self, state: State, callee: Function, outcome: Outcome) -> State:
        after = state.copy(state.at)
        names: dict[Term, Term] = {}

        def renamed(value: Scalar) -> Scalar:
            if isinstance(value, int):
                return value
            if value not in names:
                names[value] = fresh(callee.name, value.bits)
            return names[value]

        def outward(value: Value) -> Value:
            if isinstance(value, Pointer):
                region = ("stack", value.region[1] - 1) if value.region[0] == "stack" else value.region
                return Pointer(region, renamed(value.offset))
            return None if value is None else renamed(value)

        for (frame, at, size), value in outcome.written:
            if isinstance(value, int) and value >= PLAIN:
                not_zero_ = fresh(callee.name, 8 * size)
                after.write(frame - 1, at, size, not_zero_)
                after.learn(condition(NOT_EQUAL, 64, not_zero_, 0))
            else:
                after.write(frame - 1, at, size, outward(value))
        after.registers[0] = outward(outcome.result)
        if outcome.not_zero:
            after.learn(condition(NOT_EQUAL, 64, after.registers[0], 0))
        after.ghost = self.prover.rules.passed(after.ghost, outcome.ghost)
        after.record("call", callee.name, outcome.result if isinstance(outcome.result, int) else None, outcome.trace)
        return after

    def helper(self, state: State, number: int, function: Function) -> list[State]:
        """The states after a helper: it may succeed or fail."""
        registers = state.registers
        if number == ABSENT:
            return []  # the kernel accepts it only where it is never reached
        if number in (TASK, TASK_BTF):
            registers[0] = self.prover.current
        elif number in (LOOKUP, SK_STORAGE, INODE_STORAGE, TASK_STORAGE, RESERVE):
            return self._found(state, number)
        elif number in (READ, READ_STRING):
            self._read(state, number)
        elif number == COMM:
            self._fill(state, registers[1], registers[2], "comm")
            registers[0] = fresh("comm", 64)
        elif number in (UPDATE, DELETE):
            if not isinstance(registers[1], Pointer) or registers[1].region[0] not in ("map", "inner"):
                raise UnprovedError("an unknown map is changed")
            if number == UPDATE:
                full = state.copy(state.at)
                full.registers[0] = NO_ROOM
                full.record("none", "room", registers[1].region[1])
                self.prover.rules.missed(full, registers[1].region[1], "full", function.name)
                registers[0] = 0
                return [state, full]
            registers[0] = fresh("delete")
        elif number == LOOP:
            return self._loop(state)
        elif number in (TIME, SOCKET_OF):
            registers[0] = fresh("time" if number == TIME else "socket")
        elif number == SUBMIT:
            registers[0] = 0
        else:
            raise UnprovedError(f"{function.name} calls helper {number}, which the prover does not support")
        return [state]

    def _found(self, state: State, number: int) -> list[State]:
        table = state.registers[1]
        if not isinstance(table, Pointer) or table.region[0] not in ("map", "inner"):
            raise UnprovedError("a lookup in an unknown map")
        name = table.region[1]
        kind = self.prover.kinds[name]
        outer = kind.startswith("outer") and table.region[0] == "map"
        if self.prover.rules.looked_up(name):
            if table.region[0] == "map":
                self._once(state, frozenset({(name, LOOKED_UP)}))
        else:  # later reads are of another entry
            state.fetched = frozenset(item for item in state.fetched if item[0] != name)
        missing = state.copy(state.at)
        missing.registers[0] = 0
        missing.record("none", NAMES[number], name)
        self.prover.rules.missed(missing, name, "outer" if outer else kind.split()[-1], self.function.name)
        region = ("inner", name) if outer else ("record", name) if number == RESERVE else ("value", name)
        state.registers[0] = Pointer(region, 0)
        return [state, missing]

    def _read(self, state: State, number: int) -> None:
        to, size, source = state.registers[1:4]
        if number == READ and isinstance(source, Pointer) and isinstance(size, int):
            # the program's own stack and the hook's arguments can always be read
            if source.region[0] == "stack" and isinstance(source.offset, int):
                pieces = [(at, min(8, size - at)) for at in range(0, size, 8)]
                values = [state.read(source.region[1], source.offset + at, length) for at, length in pieces]
                self._put(state, to, pieces, values)
                return
            if source.region[0] == "context" and size % 8 == 0:
                words = range(0, size, 8)
                self._put(
                    state,
                    to,
                    [(at, 8) for at in words],
                    [self.load(state, Pointer(source.region, at), 8) for at in words],
                )
                return
        if isinstance(source, Pointer):
            whole = size if isinstance(size, int) and number == READ else STACK_BYTES
            self._fetch(state, source if whole == size else Pointer(source.region, fresh("somewhere")), whole)
        self._fill(state, to, size, "kernel")
        state.registers[0] = fresh("read")

    def _put(self, state: State, to: Value, pieces: list[tuple[int, int]], values: list[Value]) -> None:
        if not isinstance(to, Pointer) or not isinstance(to.offset, int):
            raise UnprovedError("a read to an unknown place")
        for (at, length), value in zip(pieces, values):
            if length & (length - 1):
                raise UnprovedError("a read of a size that is not a power of 2")
            self.store(state, Pointer(to.region, to.offset + at), length, value)
        state.registers[0] = 0

    def _fill(self, state: State, to: Value, size: Value, name: str) -> None:
        """A helper writes an unknown value."""
        if not isinstance(to, Pointer) or to.region[0] not in ("stack", "value", "record"):
            self.trespass(state, f"{self.function.name} has a helper write to memory that is not ours")
            return
        if to.region[0] != "stack":
            return
        frame, most = to.region[1], _most(state, size)
        span = _span(state, to.offset)
        if span is None or (most is None and frame):
            raise UnprovedError(f"{self.function.name} has a helper write somewhere on a stack")
        self._blur(state, frame, span[0], -span[0] if most is None else span[1] + most - span[0], name)

    def _loop(self, state: State) -> list[State]:
        """The states after bpf_loop, which calls the callback any number of times."""
        callback, context = state.registers[2], state.registers[3]
        if not isinstance(callback, Pointer) or callback.region[0] != "function":
            raise UnprovedError("bpf_loop with an unknown callback")
        state.registers[:6] = [None] * 6
        seen: dict[Hashable, State] = {}
        blanks: dict[Hashable, set[Term]] = {}
        reached = [state]
        for _round in range(ROUNDS):
            new: dict[Hashable, State] = {}
            for arrival in reached:
                key = self.key(arrival)
                if key not in seen:
                    seen[key] = new[key] = arrival.copy(arrival.at)
                    blanks[key] = set()
                else:
                    merged, changed = self.merge(seen[key], arrival, blanks[key])
                    if changed:
                        seen[key] = new[key] = merged
            if not new:
                for end in seen.values():
                    end.registers[0] = fresh("rounds")
                return list(seen.values())
            reached = []
            for arrival in new.values():
                start = arrival.copy(arrival.at)
                start.registers[1:3] = [fresh("index", 32), context]
                for after in self.call(start, callback.region[1]):
                    after.registers[:6] = [None] * 6
                    reached.append(after)
        raise UnprovedError(f"{self.function.name} has a bpf_loop whose states do not converge")

    # ---- merging states --------------------------------------------------------------------------------------------

    def arrive(self, function: Function, state: State, pending: dict[Hashable, State]) -> None:
        """Merges the state with those that were here before. Only what is new waits in ``pending``."""
        if time.process_time() > self.prover.until:
            raise UnprovedError(f"{self.prover.seconds:.0f} seconds do not suffice")
        self.prover.rules.arrived(state, function.name)
        at = state.at
        live, floor = function.shape.live[at], function.shape.floor
        state.registers = [
            value if number in live or number == STACK else None for number, value in enumerate(state.registers)
        ]
        state.frames[0] = {
            (start, size): value
            for (start, size), value in state.frames[0].items()
            if start + size > floor or any(place in live for place in range(start, start + size))
        }
        for place, much in self.forgotten.get(at, {}).items():
            self._forget(state, place, much)
        key = self.key(state)
        seen = self.seen.setdefault(at, {})
        if key not in seen:
            limit = IN_LOOP if at in function.shape.loops else STATES
            if len(seen) >= limit:
                self._widen(at, seen)
                for place, much in self.forgotten.get(at, {}).items():
                    self._forget(state, place, much)
                key = self.key(state)
            if key not in seen:
                waiting = pending.get(key)  # from before states were widened, and not executed yet
                seen[key], self.blanks[at, key] = (waiting or state).copy(at), set()
                if waiting is None:
                    pending[key] = state
                    return
        merged, changed = self.merge(seen[key], state, self.blanks[at, key])
        if changed:
            seen[key] = merged
            pending[key] = merged.copy(at)

    def key(self, state: State) -> Hashable:
        """A key: states with the same key are merged."""
        return (
            state.ghost,
            tuple(_of(value) for value in state.registers),
            frozenset(
                (number, place, kind)
                for number, frame in enumerate(state.frames)
                for place, kind in ((place, _of(value)) for place, value in frame.items())
                if number or kind != "?"
            ),
        )

    def merge(self, old: State, new: State, blanks: set[Term]) -> tuple[State, bool]:
        """One state that covers both, which have the same key. False: it is the old one.

        ``blanks``: names that earlier merges gave to values of the old state. Nothing else depends on them, so that
        they may stand for anything. The new names are added."""
        made, changed = old.copy(old.at), False
        stands: dict[Term, Scalar] = {}  # blanks of the old state -> what they stand for in the new one
        pairs: dict[tuple[Term, Term], Term] = {}
        named: list[Term] = []

        def either(one: Value, other: Value) -> Value:
            if isinstance(one, Pointer):
                assert isinstance(other, Pointer)
                return Pointer(one.region, either_scalar(one.offset, other.offset))
            return None if one is None else either_scalar(one, other)

        def either_scalar(one: Scalar, other: Value) -> Scalar:
            nonlocal changed
            if isinstance(one, int):
                return one
            assert isinstance(other, Term)
            if one in blanks and one.bits >= other.bits:
                if stands.setdefault(one, other) is other:
                    return one
            elif one is other:
                return one
            pair = one, other
            if pair not in pairs:
                pairs[pair] = fresh("either", max(one.bits, other.bits))
                named.append(pairs[pair])
            changed = True
            return pairs[pair]

        made.registers = [either(one, other) for one, other in zip(old.registers, new.registers)]
        for number, frame in enumerate(old.frames):
            others = new.frame(number)
            for place, value in frame.items():
                if place in others:
                    made.frames[number][place] = either(value, others[place])
                else:  # it is unknown in one of them, and on the function's own stack
                    del made.frames[number][place]
                    changed = True
        made.fetched = old.fetched | new.fetched
        changed |= made.fetched != old.fetched
        made.facts = _common_facts(old, new, pairs, blanks, stands)
        changed |= any(fact not in made.facts for fact in old.facts)
        blanks.update(named)
        return made, changed

    def _places(self, state: State) -> dict[Hashable, Value]:
        values: dict[Hashable, Value] = dict(enumerate(state.registers[:STACK]))
        for number, frame in enumerate(state.frames):
            values.update({(number, *place): value for place, value in frame.items()})
        return values

    def _widen(self, at: int, seen: dict[Hashable, State]) -> None:
        """Selects the numbers that vary most at this instruction. They become unknown from now on."""
        values: dict[Hashable, set[Hashable]] = {}
        stack: dict[Hashable, set[Hashable]] = {}  # pointers that move along the stack: a loop over an array
        pointers: set[Hashable] = set()  # places of pointers, where 0 stands for none
        for state in seen.values():
            for place, value in self._places(state).items():
                if isinstance(value, Pointer) and (value.region[0] not in ("value", "record") or value.offset == 0):
                    pointers.add(place)
                if isinstance(value, Pointer) and value.region[0] == "stack":
                    stack.setdefault(place, set()).add(_of(value))
                elif value is not None and (not isinstance(value, Pointer) or value.region[0] in ("value", "record")):
                    values.setdefault(place, set()).add(_of(value))
        forgotten = self.forgotten.setdefault(at, {})
        ways = [
            (
                {
                    place: len(held)
                    for place, held in values.items()
                    if forgotten.get(place, 0) < much
                    and place not in pointers
                    and len(held) > 1
                    and (much == 2 or any(_large(kind) for kind in held))
                },
                much,
            )
            for much in (1, 2)
        ]
        if at not in self.function.shape.loops:  # numbers on the stack matter less than those in registers
            ways = [
                ({place: count for place, count in left.items() if isinstance(place, tuple) == lies}, much)
                for lies in (True, False)
                for left, much in ways
            ]
        left, much = next(((left, much) for left, much in ways if left), ({}, 2))
        moving = any(len(held) >= IN_LOOP for held in stack.values())
        if (moving or not left) and len(seen) < STATES:
            return
        if not left or moving:
            raise UnprovedError(f"{self.function.name} has too many states at {at}")
        most = max(left.values())
        chosen = [place for place, count in left.items() if count >= min(most, VARIES)]
        if most < VARIES:  # a flag matters less than a number with so few values, which may be a verdict
            least = min(_bytes(place) for place in chosen)
            chosen = [place for place in chosen if _bytes(place) == least]
        forgotten.update((place, much) for place in chosen)
        seen.clear()  # the wider states cover them

    def _forget(self, state: State, place: Hashable, much: int) -> None:
        if isinstance(place, int):
            state.registers[place] = _forgotten(state, state.registers[place], 8, much)
        elif isinstance(place, tuple):
            frame, at, size = place
            if frame < len(state.frames) and (at, size) in state.frames[frame]:
                state.frames[frame][at, size] = _forgotten(state, state.frames[frame][at, size], size, much)


def _common_facts(
    old: State, new: State, pairs: dict[tuple[Term, Term], Term], blanks: set[Term], stands: dict[Term, Scalar]
) -> dict[Condition, None]:
    """The facts that hold in both states, in terms of the merged one. ``pairs``: new names, by the values that they
    stand for; ``stands``: the values in the new state of blanks of the old one. Facts about other blanks are dropped.
    """
    renamed: dict[Term, list[tuple[Scalar, Scalar]]] = {}
    for (one, other), name in pairs.items():
        renamed.setdefault(one, []).append((other, name))

    def ways(value: Scalar) -> list[tuple[Scalar, Scalar]]:
        """The value's equivalents in the new state, each with its name in the merged one."""
        if isinstance(value, int):
            return [(value, value)]
        if value not in blanks:
            return [(value, value), *renamed.get(value, ())]
        return [(stands[value], value)] if value in stands else renamed.get(value, [])

    common: dict[Condition, None] = {}
    for fact in old.facts:
        if fact.what[0] in ("all", "any"):
            continue
        operation, width, a, b = fact.what
        for there, here in ways(a):
            for beside, with_ in ways(b):
                if Condition.known.get((operation, width, there, beside)) in new.facts:
                    common[condition(operation, width, here, with_)] = None
    return common


def _bytes(place: Hashable) -> int:
    """How many bytes a register or a place on a stack has: see Walk._places."""
    return place[2] if isinstance(place, tuple) else 8


def _large(kind: Hashable) -> bool:
    """Whether a key of _of is a number from PLAIN on, or an address."""
    return kind >= PLAIN if isinstance(kind, int) else kind != "?"


def _forgotten(state: State, value: Value, size: int, much: int) -> Value:
    if isinstance(value, Pointer) and value.region[0] in ("value", "record"):
        return Pointer(value.region, fresh("loop")) if isinstance(value.offset, int) else value
    if not isinstance(value, int) or (much < 2 and value < PLAIN):
        return value
    other = fresh("loop", 8 * size)
    if value:
        state.learn(condition(NOT_EQUAL, 64, other, 0))
    return other


def _most(state: State, size: Value) -> int | None:
    """The largest possible value; None: it may exceed a stack."""
    if isinstance(size, Term):
        fitting = (
            most for most in (8, 16, 32, 48, 64, 128, 256, 512) if not state.possible(condition(0x20, 64, size, most))
        )
        return next(fitting, None)
    return size if isinstance(size, int) else None


def _span(state: State, offset: Scalar) -> tuple[int, int] | None:
    """The lowest and the highest possible place on a stack; None: it may be outside."""
    if isinstance(offset, int):
        return offset, offset
    least = -STACK_BYTES & (1 << 64) - 1  # without sign the stack has the highest offsets
    if state.possible(condition(0xA0, 64, offset, least)):
        return None
    ends: list[int] = []
    for beyond in (0xB0, 0x20):  # at or below a place, above it
        lowest, highest = -STACK_BYTES - 1, -1  # bisection: the condition holds at one of them
        while highest - lowest > 1:
            middle = (lowest + highest) // 2
            if state.possible(condition(beyond, 64, offset, middle & (1 << 64) - 1)) == (not ends):
                highest = middle
            else:
                lowest = middle
        ends.append(highest)
    return ends[0], ends[1]
