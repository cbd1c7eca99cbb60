# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the arithmetic and the comparisons of BPF give. A value is a number of 64 bits, or a term: what an operation
gives on values that are not known. Numbers give numbers. A term is the same object whenever it is built of the same,
so that comparing two is quick; z3 is asked only where the look of a term does not decide. Both ways are compared with
the kernel: see check.py."""

from __future__ import annotations

import itertools
from typing import Any, Callable, Union

import z3

MASK = {8: 0xFF, 16: 0xFFFF, 32: 0xFFFFFFFF, 64: 0xFFFFFFFFFFFFFFFF}
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR, MOV, ARSH, END = range(0x00, 0xE0, 0x10)
EQUAL, SET, NOT_EQUAL, NOT_SET = 0x10, 0x40, 0x50, 0x41  # the last is none of BPF's: the opposite of SET
_OPPOSITE = {0x10: 0x50, 0x40: 0x41, 0x20: 0xB0, 0x30: 0xA0, 0x60: 0xD0, 0x70: 0xC0}
_OPPOSITE.update({there: here for here, there in _OPPOSITE.items()})


class Term:
    """``what``: a name, or an operation with what it is on. Above ``bits`` it is 0."""

    __slots__ = ("__weakref__", "bits", "what")
    known: dict[tuple[Any, ...], Term] = {}

    def __init__(self, what: tuple[Any, ...], bits: int) -> None:
        self.what, self.bits = what, bits

    def __repr__(self) -> str:
        return self.what[1] if self.what[0] == "name" else repr(self.what)


class Condition:
    """``what``: a comparison's operation, width and values; or ("all"|"any", conditions)."""

    __slots__ = ("what",)
    known: dict[tuple[Any, ...], Condition] = {}

    def __init__(self, what: tuple[Any, ...]) -> None:
        self.what = what

    def opposite(self) -> Condition:
        what = self.what
        if what[0] in ("all", "any"):
            return condition("any" if what[0] == "all" else "all", tuple(each.opposite() for each in what[1]))
        return condition(_OPPOSITE[what[0]], *what[1:])

    def __repr__(self) -> str:
        return repr(self.what)


Scalar = Union[int, Term]
Truth = Union[bool, Condition]
_numbers = itertools.count()


def term(bits: int, *what: Any) -> Term:
    found = Term.known.get(what)
    if found is None:
        found = Term.known[what] = Term(what, bits)
    return found


def condition(*what: Any) -> Condition:
    found = Condition.known.get(what)
    if found is None:
        found = Condition.known[what] = Condition(what)
    return found


def fresh(name: str, bits: int = 64) -> Term:
    """A value of which nothing is known but that it has no more bits."""
    return Term(("name", f"{name}#{next(_numbers)}"), bits)


def signed(value: int, width: int) -> int:
    value &= MASK[width]
    return value - (1 << width) if value >> (width - 1) else value


def bits_of(value: Scalar) -> int:
    return value.bit_length() if isinstance(value, int) else value.bits


def low(value: Scalar, width: int) -> Scalar:
    """The lowest bits."""
    if isinstance(value, int):
        return value & (1 << width) - 1
    return value if value.bits <= width else term(width, "low", width, value)


# a and b are of the operation's width, without sign; what comes out is cut to it
_NUMBERS: dict[int, Callable[[int, int, int], int]] = {
    ADD: lambda a, b, w: a + b,
    SUB: lambda a, b, w: a - b,
    MUL: lambda a, b, w: a * b,
    DIV: lambda a, b, w: a // b if b else 0,
    MOD: lambda a, b, w: a % b if b else a,
    OR: lambda a, b, w: a | b,
    AND: lambda a, b, w: a & b,
    XOR: lambda a, b, w: a ^ b,
    LSH: lambda a, b, w: a << (b & w - 1),
    RSH: lambda a, b, w: a >> (b & w - 1),
    ARSH: lambda a, b, w: signed(a, w) >> (b & w - 1),
    NEG: lambda a, b, w: -a,
    MOV: lambda a, b, w: b,
}
_TERMS: dict[int, Callable[[z3.BitVecRef, z3.BitVecRef, int], z3.BitVecRef]] = {
    ADD: lambda a, b, w: a + b,
    SUB: lambda a, b, w: a - b,
    MUL: lambda a, b, w: a * b,
    DIV: lambda a, b, w: z3.If(b == 0, z3.BitVecVal(0, w), z3.UDiv(a, b)),
    MOD: lambda a, b, w: z3.If(b == 0, a, z3.URem(a, b)),
    OR: lambda a, b, w: a | b,
    AND: lambda a, b, w: a & b,
    XOR: lambda a, b, w: a ^ b,
    LSH: lambda a, b, w: a << (b & w - 1),
    RSH: lambda a, b, w: z3.LShR(a, b & w - 1),
    ARSH: lambda a, b, w: a >> (b & w - 1),
    NEG: lambda a, b, w: -a,
    MOV: lambda a, b, w: b,
}


def calculate(operation: int, width: int, a: Scalar, b: Scalar) -> Scalar:
    """One ALU operation but END; the upper half of a result of 32 bits is 0."""
    if isinstance(a, int) and isinstance(b, int):
        return _NUMBERS[operation](a & MASK[width], b & MASK[width], width) & MASK[width]
    if operation == MOV:
        return low(b, width)
    if operation in (AND, OR) and isinstance(a, int):
        a, b = b, a
    if isinstance(b, int):
        b &= MASK[width]
        if b == 0 and operation in (ADD, SUB, OR, XOR, LSH, RSH, ARSH):
            return low(a, width)
        if b == 0 and operation in (AND, MUL):
            return 0
        if b == MASK[width] and operation == AND:
            return low(a, width)
    bits, mine, other = width, min(width, bits_of(a)), min(width, bits_of(b))
    if operation == AND:
        bits = min(mine, other)
    elif operation in (OR, XOR):
        bits = max(mine, other)
    elif operation == RSH and isinstance(b, int):
        bits = max(0, mine - (b & width - 1))
    return term(bits, operation, width, a, b) if bits else 0


def swap(value: Scalar, width: int, swaps: bool) -> Scalar:
    """END: the lowest bytes, turned round where the order asked for is not the machine's."""
    cut = low(value, width)
    if not swaps:
        return cut
    if isinstance(cut, int):
        return int.from_bytes(cut.to_bytes(width // 8, "little"), "big")
    return joined([byte(cut, at) for at in reversed(range(width // 8))])


_COMPARED: dict[int, Callable[[int, int, int], bool]] = {
    0x10: lambda a, b, w: a == b,
    0x50: lambda a, b, w: a != b,
    0x40: lambda a, b, w: bool(a & b),
    0x20: lambda a, b, w: a > b,
    0x30: lambda a, b, w: a >= b,
    0xA0: lambda a, b, w: a < b,
    0xB0: lambda a, b, w: a <= b,
    0x60: lambda a, b, w: signed(a, w) > signed(b, w),
    0x70: lambda a, b, w: signed(a, w) >= signed(b, w),
    0xC0: lambda a, b, w: signed(a, w) < signed(b, w),
    0xD0: lambda a, b, w: signed(a, w) <= signed(b, w),
}
_CONDITIONS: dict[int, Callable[[z3.BitVecRef, z3.BitVecRef], z3.BoolRef]] = {
    0x10: lambda a, b: a == b,
    0x50: lambda a, b: a != b,
    0x40: lambda a, b: a & b != 0,
    0x41: lambda a, b: a & b == 0,
    0x20: z3.UGT,
    0x30: z3.UGE,
    0xA0: z3.ULT,
    0xB0: z3.ULE,
    0x60: lambda a, b: a > b,
    0x70: lambda a, b: a >= b,
    0xC0: lambda a, b: a < b,
    0xD0: lambda a, b: a <= b,
}


def compare(operation: int, width: int, a: Scalar, b: Scalar) -> Truth:
    if isinstance(a, int) and isinstance(b, int):
        return _COMPARED[operation](a & MASK[width], b & MASK[width], width)
    a, b = low(a, width), low(b, width)
    if operation in (EQUAL, NOT_EQUAL):
        if a is b:
            return operation == EQUAL
        if (isinstance(b, int) and b >> bits_of(a)) or (isinstance(a, int) and a >> bits_of(b)):
            return operation == NOT_EQUAL
    if operation < 0x60 or operation in (0xA0, 0xB0):
        width = 64  # without sign it makes no difference
    return condition(operation, width, a, b)


def joined(pieces: list[Scalar]) -> Scalar:
    """Bytes, the lowest first, as one value."""
    if all(isinstance(each, int) for each in pieces):
        return sum(each << 8 * at for at, each in enumerate(pieces))  # type: ignore[operator]
    whole = _whole(pieces)
    if whole is not None:
        return whole
    while pieces and pieces[-1] == 0:
        pieces = pieces[:-1]
    if len(pieces) == 1:
        return pieces[0]
    return term(8 * len(pieces), "joined", tuple(pieces))


def _whole(pieces: list[Scalar]) -> Scalar | None:
    """What the bytes are all of, or the lowest."""
    first = pieces[0]
    if not isinstance(first, Term) or first.what[0] != "byte" or first.what[1]:
        return None
    source = first.what[2]
    for at, each in enumerate(pieces):
        if each is not first and each != byte(source, at):
            return None
    return low(source, 8 * len(pieces))


def byte(value: Scalar, at: int) -> Scalar:
    if isinstance(value, int):
        return value >> 8 * at & 0xFF
    if value.bits <= 8 * at:
        return 0
    if value.what[0] == "joined":
        return value.what[1][at]
    return value if value.bits <= 8 else term(8, "byte", at, value)


def either(first: Condition, one: Scalar, other: Scalar) -> Scalar:
    """The one where the condition holds."""
    if one is other or one == other:
        return one
    return term(max(bits_of(one), bits_of(other)), "if", first, one, other)


# ---- as z3 has it ---------------------------------------------------------------------------------------------------


class Solver:
    """``values``: numbers that stand for names."""

    def __init__(self, values: dict[Term, int] | None = None) -> None:
        self.made: dict[Any, Any] = {}
        self.values = values or {}

    def of(self, value: Scalar) -> z3.BitVecRef:
        """64 bits."""
        if isinstance(value, int):
            return z3.BitVecVal(value, 64)
        stack = [value]
        while stack:  # terms may be deep
            one = stack[-1]
            if one in self.made:
                stack.pop()
                continue
            wanted = [each for each in _parts(one) if each not in self.made]
            if wanted:
                stack.extend(wanted)
                continue
            stack.pop()
            self.made[one] = self._condition(one) if isinstance(one, Condition) else self._term(one)
        return self.made[value]

    def truth(self, one: Condition) -> z3.BoolRef:
        self.of(one)  # type: ignore[arg-type]
        return self.made[one]

    def _get(self, value: Scalar) -> z3.BitVecRef:
        return z3.BitVecVal(value, 64) if isinstance(value, int) else self.made[value]

    def _term(self, one: Term) -> z3.BitVecRef:
        kind = one.what[0]
        if kind == "name":
            if one in self.values:
                return z3.BitVecVal(self.values[one], 64)
            name = z3.BitVec(one.what[1], one.bits)
            return name if one.bits == 64 else z3.ZeroExt(64 - one.bits, name)
        if kind == "low":
            return self._cut(self._get(one.what[2]), one.what[1])
        if kind == "byte":
            at = 8 * one.what[1]
            return z3.ZeroExt(56, z3.Extract(at + 7, at, self._get(one.what[2])))
        if kind == "joined":
            pieces = [z3.Extract(7, 0, self._get(each)) for each in reversed(one.what[1])]
            whole = z3.Concat(*pieces) if len(pieces) > 1 else pieces[0]
            return whole if whole.size() == 64 else z3.ZeroExt(64 - whole.size(), whole)
        if kind == "if":
            return z3.If(self.made[one.what[1]], self._get(one.what[2]), self._get(one.what[3]))
        operation, width, a, b = one.what
        a, b = (each if width == 64 else z3.Extract(width - 1, 0, each) for each in (self._get(a), self._get(b)))
        result = _TERMS[operation](a, b, width)
        return result if width == 64 else z3.ZeroExt(64 - width, result)

    @staticmethod
    def _cut(value: z3.BitVecRef, width: int) -> z3.BitVecRef:
        return z3.ZeroExt(64 - width, z3.Extract(width - 1, 0, value))

    def _condition(self, one: Condition) -> z3.BoolRef:
        kind = one.what[0]
        if kind == "all":
            return z3.And(*(self.made[each] for each in one.what[1]), True)
        if kind == "any":
            return z3.Or(*(self.made[each] for each in one.what[1]), False)
        operation, width, a, b = one.what
        a, b = (each if width == 64 else z3.Extract(width - 1, 0, each) for each in (self._get(a), self._get(b)))
        return _CONDITIONS[operation](a, b)


def _parts(one: Term | Condition) -> list[Term | Condition]:
    what = one.what
    if what[0] == "name":
        return []
    if what[0] in ("all", "any", "joined"):
        return [each for each in what[1] if not isinstance(each, int)]
    return [each for each in what[1:] if isinstance(each, (Term, Condition))]


def possible(facts: Any, effort: int = 3_000_000) -> bool:
    """May all of it be so? Not to know after that effort, by z3's own count, is a yes."""
    made, solver = Solver(), z3.Solver()
    solver.set("rlimit", effort)
    solver.add(*(made.truth(each) for each in facts))
    return solver.check() != z3.unsat
