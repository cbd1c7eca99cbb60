# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instructions as records, and a program as functions that are known by what they do: two functions with the same
digest are the same wherever they lie, so that each is looked at once."""

from __future__ import annotations

import hashlib
import struct
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from submitted import Program

LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)
CALL, EXIT, JUMP = 0x85, 0x95, 0x05
WIDE = 0x18
ATOMIC, IMMEDIATE, MEMORY = 0xC0, 0x00, 0x60
SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_FROM_MAP, _FROM_VALUE, _FUNCTION, _CALL_LOCAL, _CALL_KERNEL = 1, 2, 4, 1, 2
STACK = 10  # the frame pointer


class Instruction(NamedTuple):
    """``map``, ``symbol``, ``callee``: what the constant of a load or a call stands for. ``callee`` of a load of a
    function's address is that function."""

    code: int
    dst: int
    src: int
    offset: int
    constant: int  # signed; of a wide load, 64 bits without sign
    map: str = ""
    symbol: str = ""
    callee: int | None = None  # the place where it starts in the program

    @property
    def kind(self) -> int:
        return self.code & 7

    @property
    def operation(self) -> int:
        return self.code & 0xF0

    @property
    def by_register(self) -> bool:
        return bool(self.code & 8)

    @property
    def size(self) -> int:
        return SIZES[self.code & 0x18]


class Function(NamedTuple):
    """``code``: by place within the function; the second half of a wide load is not there. ``callees``: of each place
    that calls or names a function, that function."""

    name: str
    digest: str
    code: dict[int, Instruction]
    callees: dict[int, Function]  # type: ignore[misc]
    shape: Shape


class Shape(NamedTuple):
    """``leaders``: where blocks begin, in the order in which they are looked at: each after what leads to it, but for
    jumps backwards. ``joins``: leaders that are reached in more than one way. ``live``: registers, and bytes of the
    stack below every address that is taken, that are read before they are written from there on."""

    order: dict[int, int]
    joins: frozenset[int]
    loops: frozenset[int]  # joins that are jumped back to
    live: dict[int, frozenset[int]]
    floor: int  # the stack from here on is always live


def decode(program: Program) -> Function:
    """The program's own function, with all that it calls."""
    raw = program.instructions
    starts = {each.start: each for each in program.functions}
    maps, symbols = program.submitted.maps, program.submitted.symbols
    made: dict[int, Function] = {}

    def one(start: int) -> Function:
        if start not in made:
            at, code, callees = start, {}, {}
            while at < start + starts[start].size:
                each = instruction(raw[at], raw[at + 1] if raw[at][0] == WIDE else b"", at, maps, symbols)
                code[at - start] = each
                if each.callee is not None:
                    callees[at - start] = one(each.callee)
                at += 2 if each.code == WIDE else 1
            made[start] = function(starts[start].name, code, callees)
        return made[start]

    return one(0)


def instruction(raw: bytes, more: bytes, at: int, maps: dict[int, str], symbols: dict[int, str]) -> Instruction:
    code, registers, offset, constant = struct.unpack("<BBhi", raw)
    dst, src = registers & 15, registers >> 4
    if code == WIDE:
        low, high = constant & 0xFFFFFFFF, struct.unpack_from("<I", more, 4)[0]
        if src == _FUNCTION:
            return Instruction(code, dst, src, offset, 0, callee=at + 1 + constant)
        if src in (_FROM_MAP, _FROM_VALUE):
            return Instruction(code, dst, src, offset, high, map=maps[at])
        return Instruction(code, dst, src, offset, low | high << 32, symbol=symbols.get(at, ""))
    if code == CALL and src == _CALL_LOCAL:
        return Instruction(code, dst, src, offset, 0, callee=at + 1 + constant)
    return Instruction(code, dst, src, offset, constant)


def function(name: str, code: dict[int, Instruction], callees: dict[int, Function]) -> Function:
    text = name + "".join(
        f"{at} {each._replace(callee=None)} {callees[at].digest if at in callees else ''}\n"
        for at, each in sorted(code.items())
    )
    digest = hashlib.sha256(text.encode("ascii")).hexdigest()
    return Function(name, digest, code, callees, _shape(digest, tuple(sorted(code.items()))))


def inner(function: Function, name: str) -> Function | None:
    if function.name == name:
        return function
    found = (inner(each, name) for each in function.callees.values())
    return next((each for each in found if each is not None), None)


def successors(at: int, each: Instruction) -> list[int]:
    following = at + (2 if each.code == WIDE else 1)
    if each.code == EXIT:
        return []
    if each.code == JUMP:
        return [at + 1 + each.offset]
    if each.kind in (JMP, JMP32) and each.code != CALL:
        return [following, at + 1 + each.offset]
    return [following]


@lru_cache(maxsize=None)
def _shape(_digest: str, items: tuple[tuple[int, Instruction], ...]) -> Shape:
    code = dict(items)
    after = {at: successors(at, each) for at, each in code.items()}
    ways: dict[int, int] = {0: 1}
    leaders = {0}
    for at, each in code.items():
        for target in after[at]:
            ways[target] = ways.get(target, 0) + 1
            if len(after[at]) > 1 or each.code == JUMP or each.code == CALL:
                leaders.add(target)
    leaders |= {at for at, count in ways.items() if count > 1}
    # reverse post-order over single instructions
    order, seen, path = [], {0}, [(0, iter(after[0]))]
    while path:
        at, rest = path[-1]
        for target in rest:
            if target not in seen:
                seen.add(target)
                path.append((target, iter(after[target])))
                break
        else:
            order.append(at)
            path.pop()
    place = {at: number for number, at in enumerate(reversed(order))}
    after_call = {at + 1 for at, each in code.items() if each.code == CALL}
    joins = frozenset(at for at in leaders if ways.get(at, 0) > 1 or at in after_call)
    floor = min(
        (
            code[at + 1].constant
            for at, each in code.items()
            if _takes_frame(each) and at + 1 in code and code[at + 1].code == 0x07 and code[at + 1].dst == each.dst
        ),
        default=0,
    )
    if any(
        _takes_frame(each) and not (at + 1 in code and code[at + 1].code == 0x07 and code[at + 1].dst == each.dst)
        for at, each in code.items()
    ):
        floor = -512
    loops = frozenset(target for at in place for target in after[at] if place[target] <= place[at])
    live = _live(code, after, order, leaders, floor)
    return Shape({at: place[at] for at in leaders if at in place}, joins, loops, live, floor)


def _takes_frame(each: Instruction) -> bool:
    if each.kind in (ALU, ALU64) and each.by_register and each.src == STACK:
        return True
    return each.kind == STX and each.src == STACK


def _uses(each: Instruction) -> tuple[frozenset[int], frozenset[int]]:
    """What an instruction reads, and what it overwrites: registers, and bytes of the stack by their negative offset."""
    reads, writes = set(), set()
    kind = each.kind
    if kind in (ALU, ALU64):
        if each.operation != 0xB0:
            reads.add(each.dst)
        if each.by_register and each.operation not in (0xD0, 0x80):
            reads.add(each.src)
        writes.add(each.dst)
    elif kind == LDX:
        reads.add(each.src)
        if each.src == STACK:
            reads |= set(range(each.offset, each.offset + each.size))
        writes.add(each.dst)
    elif kind in (ST, STX):
        reads.add(each.dst)
        if kind == STX:
            reads.add(each.src)
            if each.code & 0xE0 == ATOMIC:
                reads.add(0)
                if each.dst == STACK:
                    reads |= set(range(each.offset, each.offset + each.size))
        if each.dst == STACK and each.code & 0xE0 != ATOMIC:
            writes |= set(range(each.offset, each.offset + each.size))
    elif each.code == WIDE:
        writes.add(each.dst)
    elif each.code == CALL:
        reads |= {1, 2, 3, 4, 5}
        writes |= {0, 1, 2, 3, 4, 5}
    elif each.code == EXIT:
        reads.add(0)
    elif each.code != JUMP:
        reads.add(each.dst)
        if each.by_register:
            reads.add(each.src)
    return frozenset(reads - {STACK}), frozenset(writes - reads)


def _live(
    code: dict[int, Instruction], after: dict[int, list[int]], order: list[int], leaders: set[int], floor: int
) -> dict[int, frozenset[int]]:
    live: dict[int, frozenset[int]] = {at: frozenset() for at in code}
    uses = {at: _uses(each) for at, each in code.items()}
    changed = True
    while changed:
        changed = False
        for at in order:  # post-order: what follows comes first
            reads, writes = uses[at]
            found = frozenset().union(*(live[target] for target in after[at])) - writes | reads
            if found != live[at]:
                live[at], changed = found, True
    return {at: frozenset(one for one in live[at] if one >= 0 or one < floor) for at in leaders if at in live}
