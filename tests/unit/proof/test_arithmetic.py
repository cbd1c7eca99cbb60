# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Terms against numbers: whatever is built of names is, with numbers put in their place, what plain integers give."""

import itertools

import pytest
import z3
from arithmetic import (
    ADD,
    AND,
    ARSH,
    DIV,
    EQUAL,
    LSH,
    MOD,
    MOV,
    MUL,
    NEG,
    NOT_EQUAL,
    OR,
    RSH,
    SUB,
    XOR,
    Condition,
    Solver,
    bits_of,
    byte,
    calculate,
    compare,
    condition,
    either,
    fresh,
    joined,
    low,
    possible,
    swap,
    term,
)
from hypothesis import given
from hypothesis import strategies as st

EDGES = [
    0,
    1,
    2,
    7,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
]
numbers = st.one_of(st.sampled_from(EDGES), st.integers(0, (1 << 64) - 1), st.integers(0, 300))
widths = st.sampled_from([32, 64])
OPERATIONS = [ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR, MOV, ARSH]
COMPARISONS = {
    0x10: "==",
    0x50: "!=",
    0x40: "&",
    0x20: ">",
    0x30: ">=",
    0xA0: "<",
    0xB0: "<=",
    0x60: "s>",
    0x70: "s>=",
    0xC0: "s<",
    0xD0: "s<=",
}


def signed(number, width):
    return int.from_bytes((number % (1 << width)).to_bytes(width // 8, "little"), "little", signed=True)


def calculated(operation, width, a, b):
    """As RFC 9669 says it."""
    a, b = a % (1 << width), b % (1 << width)
    by = b % width
    result = {
        ADD: a + b,
        SUB: a - b,
        MUL: a * b,
        OR: a | b,
        AND: a & b,
        XOR: a ^ b,
        MOV: b,
        NEG: 0 - a,
        DIV: a // b if b else 0,
        MOD: a - a // b * b if b else a,
        LSH: a * 2**by,
        RSH: a // 2**by,
        ARSH: signed(a, width) // 2**by,
    }[operation]
    return result % (1 << width)


def compared(operation, width, a, b):
    a, b = a % (1 << width), b % (1 << width)
    c, d = signed(a, width), signed(b, width)
    return {
        "==": a == b,
        "!=": a != b,
        "&": a & b != 0,
        ">": a > b,
        ">=": a >= b,
        "<": a < b,
        "<=": a <= b,
        "s>": c > d,
        "s>=": c >= d,
        "s<": c < d,
        "s<=": c <= d,
    }[COMPARISONS[operation]]


def number(value, values):
    return z3.simplify(Solver(values).of(value)).as_long()


def holds(truth, values):
    return truth if isinstance(truth, bool) else z3.is_true(z3.simplify(Solver(values).truth(truth)))


@st.composite
def grown(draw):
    """Values, each with the number that it is; and the numbers that names stand for."""
    values, pool = {}, []
    for bits in draw(st.lists(st.sampled_from([1, 8, 16, 32, 64]), min_size=1, max_size=3)):
        name = fresh("x", bits)
        values[name] = draw(numbers) % (1 << bits)
        pool.append((name, values[name]))
    for each in draw(st.lists(numbers, max_size=2)):
        pool.append((each, each))
    for step in draw(st.lists(st.sampled_from("++++lbjjse"), max_size=8)):
        (a, this), (b, that) = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
        if step == "+":
            operation, width = draw(st.sampled_from(OPERATIONS)), draw(widths)
            pool.append((calculate(operation, width, a, b), calculated(operation, width, this, that)))
        elif step == "l":
            width = draw(st.sampled_from([8, 16, 32, 64]))
            pool.append((low(a, width), this % (1 << width)))
        elif step == "b":
            at = draw(st.integers(0, 7))
            pool.append((byte(a, at), this.to_bytes(8, "little")[at]))
        elif step == "s":
            width, turned = draw(st.sampled_from([16, 32, 64])), draw(st.booleans())
            cut = (this % (1 << width)).to_bytes(width // 8, "little")
            pool.append((swap(a, width, turned), int.from_bytes(cut, "big" if turned else "little")))
        elif step == "e":
            operation, width = draw(st.sampled_from(sorted(COMPARISONS))), draw(widths)
            first = compare(operation, width, a, b)
            if isinstance(first, Condition):
                one, other = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
                pool.append(
                    (either(first, one[0], other[0]), one[1] if compared(operation, width, this, that) else other[1])
                )
        else:  # bytes of the one from somewhere on, and perhaps of the other
            size, start = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([0, 0, 0, 1, 4]))
            taken = [(a, this, at) for at in range(start, min(8, start + size))]
            taken = draw(st.one_of(st.just(taken), st.permutations(taken))) + [(b, that, at) for at in range(size)]
            taken = taken[:size]
            pool.append(
                (
                    joined([byte(value, at) for value, _, at in taken]),
                    int.from_bytes(bytes(whole.to_bytes(8, "little")[at] for _, whole, at in taken), "little"),
                )
            )
    return pool, values


@given(st.sampled_from(OPERATIONS), widths, numbers, numbers)
def test_numbers_give_numbers(operation, width, a, b):
    assert calculate(operation, width, a, b) == calculated(operation, width, a, b)


@pytest.mark.parametrize("operation", OPERATIONS)
@given(widths, numbers, numbers, st.sampled_from([1, 8, 16, 32, 64]), st.sampled_from(["first", "second", "both"]))
def test_one_operation(operation, width, a, b, bits, named):
    x, y = fresh("x", bits), fresh("y")
    a = a if named == "second" else a % (1 << bits)
    values = {x: a, y: b}
    value = calculate(operation, width, a if named == "second" else x, b if named == "first" else y)
    wanted = calculated(operation, width, a, b)
    assert number(value, values) == wanted < 1 << bits_of(value)


@given(grown())
def test_terms_give_what_numbers_do(made):
    pool, values = made
    for value, wanted in pool:
        assert number(value, values) == wanted
        assert wanted < 1 << bits_of(value)


@given(grown(), st.data())
def test_comparisons_and_their_opposites(made, data):
    pool, values = made
    (a, this), (b, that) = data.draw(st.sampled_from(pool)), data.draw(st.sampled_from(pool))
    operation, width = data.draw(st.sampled_from(sorted(COMPARISONS))), data.draw(widths)
    truth, wanted = compare(operation, width, a, b), compared(operation, width, this, that)
    assert holds(truth, values) is wanted
    if isinstance(truth, Condition):
        assert holds(truth.opposite(), values) is not wanted
        assert truth.opposite().opposite() is truth


@given(st.lists(numbers, max_size=4), numbers, st.data())
def test_all_and_any(others, this, data):
    x = fresh("x")
    picked = [(operation, other) for other in others for operation in [data.draw(st.sampled_from(sorted(COMPARISONS)))]]
    conditions = tuple(each for operation, other in picked for each in [compare(operation, 64, x, other)])
    truths = [compared(operation, 64, this, other) for operation, other in picked]
    for name, wanted in (("all", all(truths)), ("any", any(truths))):
        one = condition(name, conditions)
        assert holds(one, {x: this}) is wanted and holds(one.opposite(), {x: this}) is not wanted


@given(st.sampled_from(OPERATIONS), widths, numbers)
def test_the_same_is_the_same_object(operation, width, other):
    x = fresh("x")
    assert calculate(operation, width, x, other) == calculate(operation, width, x, other)  # terms: by identity
    y = fresh("x")
    assert x is not y and calculate(ADD, width, x, y) is calculate(ADD, width, x, y)
    assert compare(EQUAL, 64, x, x) is True and compare(NOT_EQUAL, 64, x, x) is False
    assert condition(0x20, 64, x, 5) is condition(0x20, 64, x, 5) is not condition(0x20, 64, y, 5)
    assert term(64, ADD, 64, x, y) is calculate(ADD, 64, x, y)


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_value_that_was_taken_apart_is_put_together_again(bits, size):
    """What is spilled byte by byte, and read back, is still known to be the same."""
    x = fresh("x", bits)
    assert joined([byte(x, at) for at in range(size)]) is low(x, 8 * size)
    other = fresh("y", 8)
    mixed = joined([byte(x, 0), other, 0, 0])
    assert [byte(mixed, at) for at in range(4)] == [byte(x, 0), other, 0, 0] and bits_of(mixed) == 16
    assert byte(x, bits // 8) == 0


def test_what_is_too_large_for_a_name_is_not_equal_to_it():
    x = fresh("x", 8)
    assert compare(EQUAL, 64, x, 0x100) is False and compare(NOT_EQUAL, 32, 0x100, x) is True
    assert isinstance(compare(EQUAL, 64, x, 0xFF), Condition)
    assert isinstance(compare(EQUAL, 32, x, 1 << 32 | 5), Condition)  # of which 32 bits are looked at


@given(st.data())
def test_possible_is_what_some_numbers_are(data):
    """Of two names of three bits, tried out."""
    x, y = fresh("x", 3), fresh("y", 3)
    values = [
        (x, lambda a, b: a),
        (y, lambda a, b: b),
        (calculate(ADD, 64, x, y), lambda a, b: a + b),
        (calculate(AND, 64, x, y), lambda a, b: a & b),
        (calculate(SUB, 64, x, y), lambda a, b: a - b),
    ]
    facts, meant = [], []
    for _each in range(data.draw(st.integers(1, 4))):
        one, this = data.draw(st.sampled_from(values))
        limit = data.draw(st.integers(0, 9))
        other, that = data.draw(st.sampled_from([*values, *[(limit, lambda a, b, limit=limit: limit)] * 3]))
        operation = data.draw(st.sampled_from(sorted(COMPARISONS)))
        truth = compare(operation, 64, one, other)
        if isinstance(truth, Condition):
            facts.append(truth)
            meant.append(lambda a, b, o=operation, this=this, that=that: compared(o, 64, this(a, b), that(a, b)))
    wanted = any(all(each(a, b) for each in meant) for a, b in itertools.product(range(8), repeat=2))
    assert possible(facts) is wanted


def test_what_cannot_be_found_out_is_possible():
    """No square is 3 more than a multiple of 4, but that takes some effort to see."""
    x, y = fresh("x"), fresh("y")
    never = [compare(EQUAL, 64, calculate(MUL, 64, x, x), calculate(ADD, 64, calculate(MUL, 64, y, 4), 3))]
    assert possible(never, effort=1)
    assert not possible([compare(EQUAL, 64, x, 1), compare(EQUAL, 64, x, 2)])
