# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic and the comparisons of BPF, on numbers and on terms.

A value is a number of 64 bits, or a term: the result of an operation on unknown values. Operations on numbers return
numbers. Equal terms are the same object, so that comparing two is quick; z3 is used only where the structure of terms
does not decide. check.py compares both ways with a kernel."""

from __future__ import annotations

import itertools
from typing import Any, Callable, ClassVar, Iterable, Union, cast

import z3

MASK = {8: 0xFF, 16: 0xFFFF, 32: 0xFFFFFFFF, 64: 0xFFFFFFFFFFFFFFFF}
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR, MOV, ARSH, END = range(0x00, 0xE0, 0x10)
EQUAL, SET, NOT_EQUAL, NOT_SET = 0x10, 0x40, 0x50, 0x41  # BPF has no NOT_SET: it is the opposite of SET
_OPPOSITE = {0x10: 0x50, 0x40: 0x41, 0x20: 0xB0, 0x30: 0xA0, 0x60: 0xD0, 0x70: 0xC0}
_OPPOSITE.update({there: here for here, there in _OPPOSITE.items()})


class Term:
    """An unknown value. ``what``: a name, or an operation and its operands. Bits from ``bits`` on are 0."""

    __slots__ = ("__weakref__", "bits", "what")
    known: ClassVar[dict[tuple[Any, ...], Term]] = {}

    def __init__(self, what: tuple[Any, ...], bits: int) -> None:
        self.what, self.bits = what, bits

    def __repr__(self) -> str:
        return str(self.what[1]) if self.what[0] == "name" else repr(self.what)


class Condition:
    """A comparison. ``what``: its operation, width and values; or ("all"|"any", conditions)."""

    __slots__ = ("what",)
    known: ClassVar[dict[tuple[Any, ...], Condition]] = {}

    def __init__(self, what: tuple[Any, ...]) -> None:
        self.what = what

    def opposite(self) -> Condition:
        """The condition that holds exactly where this one does not."""
        what = self.what
        if what[0] in ("all", "any"):
            return condition("any" if what[0] == "all" else "all", tuple(part.opposite() for part in what[1]))
        return condition(_OPPOSITE[what[0]], *what[1:])

    def __repr__(self) -> str:
        return repr(self.what)


Scalar = Union[int, Term]
Truth = Union[bool, Condition]
_numbers = itertools.count()


def term(bits: int, *what: object) -> Term:
    """The one term for these operands."""
    existing = Term.known.get(what)
    if existing is None:
        existing = Term.known[what] = Term(what, bits)
    return existing


def condition(*what: object) -> Condition:
    """The one condition for these operands."""
    existing = Condition.known.get(what)
    if existing is None:
        existing = Condition.known[what] = Condition(what)
    return existing


def fresh(name: str, bits: int = 64) -> Term:
    """A new unknown value of at most ``bits`` bits."""
    return Term(("name", f"{name}#{next(_numbers)}"), bits)


def signed(value: int, width: int) -> int:
    """The lowest ``width`` bits as a number with sign."""
    value &= MASK[width]
    return value - (1 << width) if value >> (width - 1) else value


def bits_of(value: Scalar) -> int:
    """How many bits of the value can be set."""
    return value.bit_length() if isinstance(value, int) else value.bits


def low(value: Scalar, width: int) -> Scalar:
    """The lowest ``width`` bits."""
    if isinstance(value, int):
        return value & (1 << width) - 1
    return value if value.bits <= width else term(width, "low", width, value)


# a and b have the operation's width, without sign; the caller truncates the result to it
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
    """The result of an ALU operation other than END; the upper half of a 32-bit result is 0."""
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
    bits = _result_bits(operation, width, a, b)
    return term(bits, operation, width, a, b) if bits else 0


def _result_bits(operation: int, width: int, a: Scalar, b: Scalar) -> int:
    left, right = min(width, bits_of(a)), min(width, bits_of(b))
    if operation == AND:
        return min(left, right)
    if operation in (OR, XOR):
        return max(left, right)
    if operation == RSH and isinstance(b, int):
        return max(0, left - (b & width - 1))
    return width


def swap(value: Scalar, width: int, swaps: bool) -> Scalar:
    """The result of END: the lowest bytes, reversed where the requested order is not the machine's."""
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
    """The result of a comparison, or the condition that it is true."""
    if isinstance(a, int) and isinstance(b, int):
        return _COMPARED[operation](a & MASK[width], b & MASK[width], width)
    a, b = low(a, width), low(b, width)
    if operation in (EQUAL, NOT_EQUAL):
        if a is b:
            return operation == EQUAL
        if (isinstance(b, int) and b >> bits_of(a)) or (isinstance(a, int) and a >> bits_of(b)):
            return operation == NOT_EQUAL
    if operation < 0x60 or operation in (0xA0, 0xB0):
        width = 64  # an unsigned comparison does not depend on the width
    return condition(operation, width, a, b)


def joined(pieces: list[Scalar]) -> Scalar:
    """The value that consists of these bytes, the lowest first."""
    numbers = [piece for piece in pieces if isinstance(piece, int)]
    if len(numbers) == len(pieces):
        return sum(number << 8 * at for at, number in enumerate(numbers))
    whole = _whole(pieces)
    if whole is not None:
        return whole
    while pieces and pieces[-1] == 0:
        pieces = pieces[:-1]
    if len(pieces) == 1:
        return pieces[0]
    return term(8 * len(pieces), "joined", tuple(pieces))


def _whole(pieces: list[Scalar]) -> Scalar | None:
    """The value whose lowest bytes these are; None: they are of several values."""
    first = pieces[0]
    if not isinstance(first, Term) or first.what[0] != "byte" or first.what[1]:
        return None
    source = first.what[2]
    for at, piece in enumerate(pieces):
        if piece is not first and piece != byte(source, at):
            return None
    return low(source, 8 * len(pieces))


def byte(value: Scalar, at: int) -> Scalar:
    """The byte at this place; 0 is the lowest."""
    if isinstance(value, int):
        return value >> 8 * at & 0xFF
    if value.bits <= 8 * at:
        return 0
    if value.what[0] == "joined":
        return cast("Scalar", value.what[1][at])
    return value if value.bits <= 8 else term(8, "byte", at, value)


def either(first: Condition, one: Scalar, other: Scalar) -> Scalar:
    """``one`` where the condition holds, ``other`` elsewhere."""
    if one is other or one == other:
        return one
    return term(max(bits_of(one), bits_of(other)), "if", first, one, other)


# ---- terms in z3 ----------------------------------------------------------------------------------------------------


class Solver:
    """Translates terms and conditions to z3. ``values``: the numbers that replace names."""

    def __init__(self, values: dict[Term, int] | None = None) -> None:
        self.made: dict[Any, Any] = {}
        self.values = values or {}

    def of(self, value: Scalar) -> z3.BitVecRef:
        """The value as a bit vector of 64 bits."""
        return z3.BitVecVal(value, 64) if isinstance(value, int) else self._translated(value)

    def truth(self, fact: Condition) -> z3.BoolRef:
        """The condition as a z3 formula."""
        return self._translated(fact)

    def _translated(self, root: Term | Condition) -> z3.ExprRef:
        stack = [root]
        while stack:  # not recursive: terms may be deep
            top = stack[-1]
            if top in self.made:
                stack.pop()
                continue
            missing = [part for part in _parts(top) if part not in self.made]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            self.made[top] = self._condition(top) if isinstance(top, Condition) else self._term(top)
        return self.made[root]

    def _get(self, value: Scalar) -> z3.BitVecRef:
        return z3.BitVecVal(value, 64) if isinstance(value, int) else self.made[value]

    def _term(self, one: Term) -> z3.BitVecRef:
        kind = one.what[0]
        if kind == "name":
            if one in self.values:
                return z3.BitVecVal(self.values[one], 64)
            result = z3.BitVec(one.what[1], one.bits)
        elif kind == "low":
            result = z3.Extract(one.what[1] - 1, 0, self._get(one.what[2]))
        elif kind == "byte":
            at = 8 * one.what[1]
            result = z3.Extract(at + 7, at, self._get(one.what[2]))
        elif kind == "joined":
            pieces = [z3.Extract(7, 0, self._get(piece)) for piece in reversed(one.what[1])]
            result = z3.Concat(*pieces) if len(pieces) > 1 else pieces[0]
        elif kind == "if":
            result = z3.If(self.made[one.what[1]], self._get(one.what[2]), self._get(one.what[3]))
        else:
            operation, width, a, b = one.what
            result = _TERMS[operation](self._low(a, width), self._low(b, width), width)
        return result if result.size() == 64 else z3.ZeroExt(64 - result.size(), result)

    def _low(self, value: Scalar, width: int) -> z3.BitVecRef:
        return self._get(value) if width == 64 else z3.Extract(width - 1, 0, self._get(value))

    def _condition(self, one: Condition) -> z3.BoolRef:
        kind = one.what[0]
        if kind == "all":
            return z3.And(*(self.made[part] for part in one.what[1]), True)
        if kind == "any":
            return z3.Or(*(self.made[part] for part in one.what[1]), False)
        operation, width, a, b = one.what
        return _CONDITIONS[operation](self._low(a, width), self._low(b, width))


def _parts(one: Term | Condition) -> list[Term | Condition]:
    what = one.what
    if what[0] == "name":
        return []
    if what[0] in ("all", "any", "joined"):
        return [part for part in what[1] if not isinstance(part, int)]
    return [part for part in what[1:] if isinstance(part, (Term, Condition))]


def possible(facts: Iterable[Condition], effort: int = 3_000_000) -> bool:
    """Whether all facts can hold together. ``effort`` limits z3's steps; True when they do not suffice."""
    made, solver = Solver(), z3.Solver()
    solver.set("rlimit", effort)
    solver.add(*(made.truth(fact) for fact in facts))
    return bool(solver.check() != z3.unsat)
