# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`once`: what others may change meanwhile decides by one read of it.

view      The record, which says which generation is in force, is read once on each way through a function, with what is
          inlined there; a callee that reads it asks a question of its own, and hands no view out.
version   Nothing is concluded from an entry of a cache unless its version, read before, is read again afterwards, and
          is the same: neither what it holds nor that it is about this.
twice     No field of any other map is branched on in two reads of it on one way through a function, but for EXCEPT.

Values are followed through registers, the stack and callees to where they are branched on, given or stored. What is not
followed is a value's effect on which way is taken: for that, `open` is kept, of which caches something was concluded
since. Ways are taken together at each instruction, but for what is open and what a callee gave: more ways than there
are, never fewer."""

from __future__ import annotations

import heapq
from typing import Dict, FrozenSet, Hashable, Iterable, List, NamedTuple, Optional, Set, Tuple

from decode import ALU, ALU64, ATOMIC, CALL, EXIT, JMP, JMP32, JUMP, LDX, ST, STACK, STX, WIDE, Function, \
    Instruction
from world import INODE_STORAGE, LOOKUP, LOOP, READ, READ_STRING, SK_STORAGE, TASK_STORAGE

# why nobody changes it while a decision that has seen it goes on
STANDS_STILL = {
    # a slot is filled again only when every decision that saw it is over: proof/spin/switch.pml
    "of a generation": frozenset(("policy", "subjects", "destinations", "ids", "ipv4", "ipv6", "ports", "vsock", "devices",
                                  "labels", "superblocks", "states", "edges", "bytes", "rules")),
    # only the task itself writes there, and it is busy deciding; a new task's is written before it runs
    "of the task": frozenset(("tasks", "spare", "blank")),
    # what is told: no answer follows from it
    "told": frozenset(("events", "counters", "totals")),
    # written once, before the programs that read it are attached
    "of the start": frozenset(("listeners",)),
}
STILL = frozenset().union(*STANDS_STILL.values())
RECORD = "control"
# fields of a cache that hold what was worked out, by offset; the others say what that is about. At 0: the version.
CACHES: Dict[str, FrozenSet[int]] = {
    "known": frozenset((40,)), "covered": frozenset((56,)), "inodes": frozenset((8,)), "readings": frozenset(),
}
# (function, map) -> why two reads of the same field may both decide
EXCEPT: Dict[Tuple[str, str], str] = {}

AND, ADD, MOV = 0x50, 0x00, 0xB0
PLACES = 4  # of one object that an address is followed to, before it may be anywhere in it
EQUAL, NOT_EQUAL = 0x10, 0x50

Origin = Tuple  # ("number", n) | ("map"|"inner"|"entry", MAP, offset) of an address; ("perhaps", MAP, place): 0, or an entry's |
# ("stack", frames up, offset) | ("read", MAP, offset,
#                 place, versions before) | ("function", place)
Value = FrozenSet[Origin]
NOTHING: Value = frozenset()


class State(NamedTuple):
    """``last``: of each cache, where its version was read last; ``decided``: fields that were branched on, with where
    they were read; ``beside``: what lies somewhere on the stacks."""

    registers: Tuple[Value, ...]
    slots: Tuple[Tuple[Tuple[int, int], Value], ...]
    beside: Value
    open: FrozenSet[str]
    last: FrozenSet[Tuple[str, str]]
    decided: FrozenSet[Tuple[str, int, str]]
    viewed: bool


class Found(NamedTuple):
    """What is against it: where, what."""

    function: str
    map: str
    what: str


class Ending(NamedTuple):
    result: Value
    beside: Value
    open: FrozenSet[str]
    last: FrozenSet[Tuple[str, str]]


def reads(program: Function) -> List[Found]:
    """All that is against it in a program; EXCEPT is applied."""
    walk = _Walk()
    start = State((NOTHING, frozenset((("context", "", 0),)), *[NOTHING] * 9), (), NOTHING, frozenset(), frozenset(),
                  frozenset(), False)
    for end in walk.function(program, start):
        for name in end.open:
            walk.found.add(Found(program.name, name, f"an answer follows from an entry of {name} whose version was not "
                                                     "looked at again"))
        if _tainted(end.result):
            walk.found.add(Found(program.name, "", "gives what an entry holds whose version was not looked at again"))
    return sorted(each for each in walk.found if (each.function, each.map) not in EXCEPT)


class _Walk:
    def __init__(self) -> None:
        self.found: Set[Found] = set()
        self.known: Dict[Hashable, List[Ending]] = {}

    def function(self, of: Function, start: State) -> List[Ending]:
        key = of.digest, start
        if key in self.known:
            return self.known[key]
        at: Dict[int, Dict[Hashable, State]] = {}
        pending: List[Tuple[int, List[str], str, Tuple[FrozenSet[str], Optional[int]]]] = []

        def arrive(place: int, state: State) -> None:
            live = of.shape.live.get(place)
            if live is not None:
                state = state._replace(registers=tuple(each if number in live or number == STACK else NOTHING
                                                       for number, each in enumerate(state.registers)))
            kind = state.open, _number(state.registers[0])
            before = at.setdefault(place, {}).get(kind)
            both = state if before is None else _together(before, state)
            if both != before:
                at[place][kind] = both
                heapq.heappush(pending, (place, sorted(kind[0]), str(kind[1]), kind))

        arrive(0, start._replace(registers=(*start.registers[:STACK], frozenset((("stack", 0, 0),)))))
        ends: Dict[Hashable, Ending] = {}
        while pending:
            place, _order, _by, kind = heapq.heappop(pending)
            state, each = at[place][kind], of.code[place]
            if each.code == EXIT:
                kind = state.open, _number(state.registers[0])
                end = Ending(state.registers[0], state.beside, state.open, state.last)
                ends[kind] = end if kind not in ends else Ending(
                    end.result | ends[kind].result, end.beside | ends[kind].beside, end.open, end.last | ends[kind].last)
                continue
            for target, after in self._step(of, place, each, state):
                arrive(target, after)
        self.known[key] = list(ends.values())
        return self.known[key]

    def _step(self, of: Function, at: int, each: Instruction, state: State) -> Iterable[Tuple[int, State]]:
        registers, following = state.registers, at + (2 if each.code == WIDE else 1)
        if each.code == JUMP:
            return [(at + 1 + each.offset, state)]
        if each.code == CALL:
            return [(following, one) for one in self._call(of, at, each, state)]
        if each.kind in (JMP, JMP32):
            return self._branch(of, at, each, state)
        if each.code == WIDE:
            value: Value = frozenset((("map", each.map, 0),)) if each.map and each.src != 2 else \
                frozenset((("entry", each.map, each.constant),)) if each.map else \
                frozenset((("function", at),)) if each.callee is not None else NOTHING
            return [(following, _set(state, each.dst, value))]
        if each.kind in (ALU, ALU64):
            other = registers[each.src] if each.by_register else frozenset((("number", each.constant),))
            return [(following, _set(state, each.dst, _calculated(each, registers[each.dst], other)))]
        if each.kind == LDX:
            return [(following, self._load(of, at, each, state, registers[each.src], each.dst))]
        if each.kind in (ST, STX):
            return [(following, self._store(of, at, each, state))]
        raise ValueError(f"{of.name}: instruction {each.code:#x} is not one that is followed")

    # ---- memory -------------------------------------------------------------------------------------------------

    def _load(self, of: Function, at: int, each: Instruction, state: State, base: Value, to: int) -> State:
        value, last = set(), set(state.last)
        for kind, *rest in base:
            if kind == "entry":
                name, offset = rest[0], _more(rest[1], each.offset)
                place = f"{of.name}+{at}"
                if name in STILL:
                    continue
                if name in CACHES and offset == 0:
                    last = {one for one in last if one[0] != name} | {(name, place)}
                    value.add(("read", name, 0, place, frozenset()))
                else:
                    value.add(("read", name, offset, place, frozenset(one for _name, one in state.last if _name == name)))
            elif kind == "stack":
                value |= _lying(state, rest[0], _more(rest[1], each.offset), each.size)
        return _set(state._replace(last=frozenset(last)), to, frozenset(value))

    def _store(self, of: Function, at: int, each: Instruction, state: State) -> State:
        base = state.registers[each.dst]
        value = state.registers[each.src] if each.kind == STX else NOTHING
        if each.kind == STX and each.code & 0xE0 == ATOMIC:
            if each.constant & 1:
                return self._load(of, at, each, state, base, 0 if each.constant == 0xF1 else each.src)
            return state
        for kind, *rest in base:
            if kind == "stack":
                offset = _more(rest[1], each.offset)
                if rest[0] == 0 and offset is not None:
                    kept = tuple(one for one in state.slots if not _meet(one[0], (offset, each.size)))
                    placed = (((offset, each.size), value),) if value else ()
                    state = state._replace(slots=tuple(sorted((*kept, *placed), key=lambda one: one[0])))
                else:
                    state = state._replace(beside=state.beside | frozenset(one for one in value if one[0] == "read"))
            elif kind == "entry" and _tainted(value):
                self.found.add(Found(of.name, rest[0], "stores what an entry holds whose version was not looked at again"))
        return state

    # ---- branches -----------------------------------------------------------------------------------------------

    def _branch(self, of: Function, at: int, each: Instruction, state: State) -> List[Tuple[int, State]]:
        there, here = at + 1 + each.offset, at + 1
        a = state.registers[each.dst]
        b = state.registers[each.src] if each.by_register else frozenset((("number", each.constant),))
        one, other = _number(a), _number(b)
        if one is not None and other is not None and each.operation in (EQUAL, NOT_EQUAL):
            return [(there if (one == other) == (each.operation == EQUAL) else here, state)]
        if other == 0 and each.operation in (EQUAL, NOT_EQUAL) and len(a) == 1 and next(iter(a))[0] in ("entry", "perhaps"):
            none, some = (there, here) if each.operation == EQUAL else (here, there)
            address = next(iter(a))
            if address[0] == "entry":
                return [(some, state)]
            return [(none, _settled(state, address, ("number", 0))), (some, _settled(state, address, ("entry", address[1], 0)))]
        read = {each for each in a | b if each[0] == "read"}
        taken = left = state
        for name in CACHES:
            versions = {place for _kind, of_map, offset, place, _before in read if of_map == name and offset == 0}
            held = {offset for _kind, of_map, offset, _place, _before in read if of_map == name and offset != 0}
            now = {place for of_map, place in state.last if of_map == name}
            if len(versions) > 1 and len(now) == 1 and now < versions and not held and each.operation in (EQUAL, NOT_EQUAL):
                same = _looked_again(state, name, versions, next(iter(now)))
                differs = state._replace(open=state.open - {name})  # nothing has been read, then
                taken, left = (same, differs) if each.operation == EQUAL else (differs, same)
            elif held:
                concluded = state._replace(open=state.open | {name})
                unlike = state._replace(open=state.open - {name})  # an entry about something else
                if held & CACHES[name] or None in held or each.operation not in (EQUAL, NOT_EQUAL):
                    taken = left = concluded
                else:
                    taken, left = (concluded, unlike) if each.operation == EQUAL else (unlike, concluded)
        for _kind, name, offset, place, _before in read:
            if name in CACHES or name == RECORD:
                continue
            if any(of_map == name and where == offset and elsewhere != place for of_map, where, elsewhere in state.decided):
                self.found.add(Found(of.name, name, f"branches on two reads of {name} at {offset}"))
            more = frozenset(((name, offset, place),))
            taken, left = (one._replace(decided=one.decided | more) for one in (taken, left))
        return [(there, taken), (here, left)]

    # ---- calls --------------------------------------------------------------------------------------------------

    def _call(self, of: Function, at: int, each: Instruction, state: State) -> List[State]:
        if each.src == 1:
            return self._called(of, of.callees[at], state, state.registers[1:6])
        number, registers = each.constant & 0xFFFFFFFF, state.registers
        result: Set[Origin] = set()
        if number in (LOOKUP, SK_STORAGE, INODE_STORAGE, TASK_STORAGE):
            for kind, *rest in registers[1]:
                if kind == "map" and rest[0] == RECORD:
                    if state.viewed:
                        self.found.add(Found(of.name, RECORD, "reads the record twice"))
                    state = state._replace(viewed=True)
                outer = kind == "map" and (rest[0] == RECORD or rest[0] in STANDS_STILL["of a generation"])
                if kind in ("map", "inner"):
                    result.add(("inner", rest[0], 0) if outer else ("perhaps", rest[0], f"{of.name}+{at}"))
        elif number == LOOP:
            after = [state]
            for kind, *rest in registers[2]:
                if kind == "function":
                    callback = of.callees[rest[0]]
                    after = self._called(of, callback, state, (NOTHING, registers[3], *[NOTHING] * 3))
            return [_scratched(one, NOTHING) for one in (state, *after)]
        elif number in (READ, READ_STRING) and any(kind == "entry" and rest[0] in (*CACHES, RECORD)
                                                    for kind, *rest in registers[3]):
            self.found.add(Found(of.name, "", "copies an entry, which is not followed"))
        return [_scratched(state, frozenset(result))]

    def _called(self, of: Function, callee: Function, state: State, arguments: Iterable[Value]) -> List[State]:
        inward = tuple(frozenset(("stack", one[1] + 1, one[2]) if one[0] == "stack" else one for one in each
                                 if number in callee.shape.live[0]) for number, each in enumerate(arguments, 1))
        start = State((NOTHING, *inward, *[NOTHING] * 5), (), _of_maps(state), state.open, state.last, frozenset(), False)
        found = []
        for end in self.function(callee, start):
            if any(one[:2] == ("read", RECORD) for one in (end.beside | end.result) - start.beside.union(*inward)):
                self.found.add(Found(callee.name, RECORD, "hands out what the record says"))
            result = frozenset(("stack", one[1] - 1, one[2]) if one[0] == "stack" else one for one in end.result)
            found.append(_scratched(state._replace(beside=state.beside | end.beside, open=end.open, last=end.last), result))
        return found


def _settled(state: State, address: Origin, so: Origin) -> State:
    """What a look-up gave, wherever it lies."""
    def other(value: Value) -> Value:
        return frozenset(so if one == address else one for one in value) if address in value else value

    return state._replace(registers=tuple(map(other, state.registers)),
                          slots=tuple((place, other(value)) for place, value in state.slots))


def _set(state: State, register: int, value: Value) -> State:
    return state._replace(registers=(*state.registers[:register], value, *state.registers[register + 1:]))


def _scratched(state: State, result: Value) -> State:
    return state._replace(registers=(result, *[NOTHING] * 5, *state.registers[6:]))


def _number(value: Value) -> Optional[int]:
    return next(iter(value))[1] if len(value) == 1 and next(iter(value))[0] == "number" else None


def _more(offset: Optional[int], more: Optional[int]) -> Optional[int]:
    return None if offset is None or more is None else offset + more


def _calculated(each: Instruction, a: Value, b: Value) -> Value:
    if each.operation == MOV:
        return b
    if each.operation == AND and ("number", 0) in (*a, *b):
        return frozenset((("number", 0),))
    if each.operation == ADD:
        for one, other in ((a, b), (b, a)):
            if any(kind in ("entry", "stack", "context") for kind, *_rest in one):
                by = _number(other)
                return frozenset((part[0], part[1], _more(part[2], by)) if part[0] in ("entry", "stack", "context") else part
                                 for part in one) | frozenset(part for part in other if part[0] == "read")
    return frozenset(part for part in a | b if part[0] == "read")


def _lying(state: State, frame: int, offset: Optional[int], size: int) -> Value:
    found = set(state.beside)
    for place, value in state.slots if frame == 0 else ():
        if offset is None or _meet(place, (offset, size)):
            exact = place == (offset, size)
            found |= value if exact else {one for one in value if one[0] == "read"}
    return frozenset(found)


def _meet(one: Tuple[int, int], other: Tuple[int, int]) -> bool:
    return one[0] < other[0] + other[1] and other[0] < one[0] + one[1]


def _of_maps(state: State) -> Value:
    """What was read and lies on the stacks."""
    return state.beside | frozenset(one for _place, value in state.slots for one in value if one[0] == "read")


def _tainted(value: Value) -> bool:
    return any(one[0] == "read" and one[1] in CACHES and one[2] != 0 and (one[2] is None or one[2] in CACHES[one[1]])
               for one in value)


def _looked_again(state: State, name: str, versions: Set[str], now: str) -> State:
    """What was read between the two may count."""
    def good(value: Value) -> Value:
        return frozenset(one for one in value if not (one[0] == "read" and one[1] == name and one[2] != 0 and one[4] and
                                                      one[4] <= versions - {now}))

    return state._replace(registers=tuple(map(good, state.registers)), beside=good(state.beside), open=state.open - {name},
                          slots=tuple((place, good(value)) for place, value in state.slots))


def _together(a: State, b: State) -> State:
    mine, others = dict(a.slots), dict(b.slots)
    slots = {place: _either(mine.get(place, NOTHING), others.get(place, NOTHING)) for place in {*mine, *others}}
    return State(tuple(map(_either, a.registers, b.registers)),
                 tuple(sorted(((place, value) for place, value in slots.items() if value), key=lambda one: one[0])),
                 a.beside | b.beside, a.open, a.last | b.last, a.decided | b.decided, a.viewed or b.viewed)


def _either(a: Value, b: Value) -> Value:
    """A number that is not the same in both is not known; nor is a place that moves along."""
    if a == b:
        return a
    found = {one for one in a | b if one[0] != "number"}
    for kind, name in {one[:2] for one in found if one[0] in ("entry", "stack")}:
        places = {one for one in found if one[:2] == (kind, name)}
        if len(places) > PLACES or (kind, name, None) in places:
            found = found - places | {(kind, name, None)}
    return frozenset(found)
