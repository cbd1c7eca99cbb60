# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instructions as records, and a program as functions with digests. Two functions with the same digest do the same
wherever they lie, so that insn is examined once."""

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
_FROM_MAP, _FROM_VALUE, _FUNCTION, _CALL_LOCAL = 1, 2, 4, 1
_NEGATE, _MOVE, _END = 0x80, 0xB0, 0xD0  # operations
STACK = 10  # the frame pointer


class Instruction(NamedTuple):
    """An instruction (struct bpf_insn). ``map``, ``symbol``, ``callee``: what the constant of a load or a call refers
    to. ``callee`` of a load of a function's address is that function."""

    code: int
    dst: int
    src: int
    offset: int
    constant: int  # with sign; of a wide load, 64 bits without sign
    map: str = ""
    symbol: str = ""
    callee: int | None = None  # the place where it starts in the program

    @property
    def kind(self) -> int:
        """The class of the instruction, BPF_CLASS."""
        return self.code & 7

    @property
    def operation(self) -> int:
        """The operation, BPF_OP."""
        return self.code & 0xF0

    @property
    def by_register(self) -> bool:
        """Whether the second operand is a register."""
        return bool(self.code & 8)

    @property
    def size(self) -> int:
        """How many bytes it loads or stores."""
        return SIZES[self.code & 0x18]


class Function(NamedTuple):
    """A function. ``code``: instructions by their place in the function, without the second halves of wide loads.
    ``callees``: the function that an instruction calls or loads the address of, by the instruction's place."""

    name: str
    digest: str
    code: dict[int, Instruction]
    callees: dict[int, Function]
    shape: Shape


class Shape(NamedTuple):
    """The control flow of a function. A leader is the first instruction of a block.

    order    The leaders, insn with its number. Except for backward jumps a block comes after its predecessors.
    joins    The leaders that are reached in more than one way.
    loops    The joins that a backward jump leads to.
    live     By leader: the registers, and the bytes of the stack, that are read from there on before they are written.
    floor    The stack from this offset on is always live, because its address is taken.
    """

    order: dict[int, int]
    joins: frozenset[int]
    loops: frozenset[int]
    live: dict[int, frozenset[int]]
    floor: int


def decode(program: Program) -> Function:
    """The program's main function, with all functions that it calls."""
    raw = program.instructions
    starts = {placed.start: placed for placed in program.functions}
    maps, symbols = program.submitted.maps, program.submitted.symbols
    made: dict[int, Function] = {}

    def function_at(start: int) -> Function:
        if start not in made:
            at, code, callees = start, {}, {}
            while at < start + starts[start].size:
                insn = instruction(raw[at], raw[at + 1] if raw[at][0] == WIDE else b"", at, maps, symbols)
                code[at - start] = insn
                if insn.callee is not None:
                    callees[at - start] = function_at(insn.callee)
                at += 2 if insn.code == WIDE else 1
            made[start] = function(starts[start].name, code, callees)
        return made[start]

    return function_at(0)


def instruction(raw: bytes, more: bytes, at: int, maps: dict[int, str], symbols: dict[int, str]) -> Instruction:
    """Decodes the 8 bytes ``raw``. ``more``: the 8 bytes after them, for a wide load."""
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
    """A function with its digest and its control flow."""
    text = name + "".join(
        f"{at} {insn._replace(callee=None)} {callees[at].digest if at in callees else ''}\n"
        for at, insn in sorted(code.items())
    )
    digest = hashlib.sha256(text.encode("ascii")).hexdigest()
    return Function(name, digest, code, callees, _shape(digest, tuple(sorted(code.items()))))


def inner(function: Function, name: str) -> Function | None:
    """The function with this name among the function and all that it calls."""
    if function.name == name:
        return function
    candidates = (inner(callee, name) for callee in function.callees.values())
    return next((candidate for candidate in candidates if candidate is not None), None)


def successors(at: int, insn: Instruction) -> list[int]:
    """The places that the instruction at ``at`` may continue at."""
    following = at + (2 if insn.code == WIDE else 1)
    if insn.code == EXIT:
        return []
    if insn.code == JUMP:
        return [at + 1 + insn.offset]
    if insn.kind in (JMP, JMP32) and insn.code != CALL:
        return [following, at + 1 + insn.offset]
    return [following]


@lru_cache(maxsize=None)
def _shape(_digest: str, items: tuple[tuple[int, Instruction], ...]) -> Shape:
    code = dict(items)
    after = {at: successors(at, insn) for at, insn in code.items()}
    ways: dict[int, int] = {0: 1}
    leaders = {0}
    for at, insn in code.items():
        for target in after[at]:
            ways[target] = ways.get(target, 0) + 1
            if len(after[at]) > 1 or insn.code in (JUMP, CALL):
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
    after_call = {at + 1 for at, insn in code.items() if insn.code == CALL}
    joins = frozenset(at for at in leaders if ways.get(at, 0) > 1 or at in after_call)
    floor = min(
        (
            code[at + 1].constant
            for at, insn in code.items()
            if _takes_frame(insn) and at + 1 in code and code[at + 1].code == 0x07 and code[at + 1].dst == insn.dst
        ),
        default=0,
    )
    if any(
        _takes_frame(insn) and not (at + 1 in code and code[at + 1].code == 0x07 and code[at + 1].dst == insn.dst)
        for at, insn in code.items()
    ):
        floor = -512
    loops = frozenset(target for at in place for target in after[at] if place[target] <= place[at])
    live = _live(code, after, order, leaders, floor)
    return Shape({at: place[at] for at in leaders if at in place}, joins, loops, live, floor)


def _takes_frame(insn: Instruction) -> bool:
    if insn.kind in (ALU, ALU64) and insn.by_register and insn.src == STACK:
        return True
    return insn.kind == STX and insn.src == STACK


def _uses(insn: Instruction) -> tuple[frozenset[int], frozenset[int]]:
    """What an instruction reads and overwrites: registers, and bytes of the stack by their negative offset."""
    reads: set[int]
    writes: set[int]
    if insn.kind in (ALU, ALU64):
        reads = {insn.dst} if insn.operation != _MOVE else set()
        reads |= {insn.src} if insn.by_register and insn.operation not in (_END, _NEGATE) else set()
        writes = {insn.dst}
    elif insn.kind in (LDX, ST, STX):
        reads, writes = _memory_uses(insn)
    elif insn.code == WIDE:
        reads, writes = set(), {insn.dst}
    elif insn.code == CALL:
        reads, writes = {1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}
    elif insn.code == EXIT:
        reads, writes = {0}, set()
    elif insn.code == JUMP:
        reads, writes = set(), set()
    else:
        reads, writes = {insn.dst, *({insn.src} if insn.by_register else ())}, set()
    return frozenset(reads - {STACK}), frozenset(writes - reads)


def _memory_uses(insn: Instruction) -> tuple[set[int], set[int]]:
    """The same of a load, a store or an atomic instruction."""
    place = set(range(insn.offset, insn.offset + insn.size))
    if insn.kind == LDX:
        return {insn.src, *(place if insn.src == STACK else ())}, {insn.dst}
    if insn.kind == STX and insn.code & 0xE0 == ATOMIC:
        return {0, insn.dst, insn.src, *(place if insn.dst == STACK else ())}, set()
    return {insn.dst, *({insn.src} if insn.kind == STX else ())}, place if insn.dst == STACK else set()


def _live(
    code: dict[int, Instruction], after: dict[int, list[int]], order: list[int], leaders: set[int], floor: int
) -> dict[int, frozenset[int]]:
    live: dict[int, frozenset[int]] = {at: frozenset() for at in code}
    uses = {at: _uses(insn) for at, insn in code.items()}
    changed = True
    while changed:
        changed = False
        for at in order:  # post-order: successors come first
            reads, writes = uses[at]
            now = frozenset().union(*(live[target] for target in after[at])) - writes | reads
            if now != live[at]:
                live[at], changed = now, True
    return {at: frozenset(place for place in live[at] if place >= 0 or place < floor) for at in leaders if at in live}
