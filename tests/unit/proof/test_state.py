# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stack against plain bytes; what a function takes for granted of its callers' stacks, against what may lie there; and
what a state knows."""

import pytest
import z3
from arithmetic import EQUAL, NOT_EQUAL, Solver, Term, bits_of, compare, condition, fresh
from hypothesis import given
from hypothesis import strategies as st
from state import PLAIN, Inputs, Pointer, State, covers, inward, kind_of

ROOM = 16
SIZES = st.sampled_from([1, 2, 4, 8])
HERE = Pointer(("stack", 0), -16)
MAP = Pointer(("map", "states"), 0)


def empty(inputs=None):
    return State([None] * 11, inputs)


# ---- the stack ----------------------------------------------------------------------------------------------------


class Bytes:
    """What a stack is to hold; None: nothing is known of that byte. ``addresses``: where one begins that is whole."""

    def __init__(self):
        self.bytes, self.addresses = [None] * ROOM, set()

    def write(self, offset, size, number):
        self.bytes[ROOM + offset : ROOM + offset + size] = (
            [None] * size if number is None else list((number % (1 << 8 * size)).to_bytes(size, "little"))
        )
        self.addresses -= set(range(offset - 7, offset + size))

    def read(self, offset, size):
        return self.bytes[ROOM + offset : ROOM + offset + size]


def parts_of(value, size, values):
    whole = Solver(values).of(value)
    return [z3.simplify(z3.Extract(8 * at + 7, 8 * at, whole)) for at in range(size)]


def known(value, size, values):
    return [part.as_long() if z3.is_bv_value(part) else None for part in parts_of(value, size, values)]


def may_be(value, wanted, values):
    """Byte by byte; with anything where that is not known."""
    solver = z3.Solver()
    for unknown in (0x00, 0xFF):
        solver.push()
        solver.add(
            *(
                part == (unknown if one is None else one)
                for part, one in zip(parts_of(value, len(wanted), values), wanted)
            )
        )
        assert solver.check() == z3.sat
        solver.pop()


@given(st.data())
def test_a_stack_is_bytes(data):
    """Slots of all sizes, one over another, of numbers, of names, of addresses and of what is not known."""
    state, model, values = empty(), Bytes(), {}
    places = {(-at, 1) for at in range(1, ROOM + 1)}
    for _each in range(data.draw(st.integers(1, 8))):
        size = data.draw(SIZES)
        offset = -ROOM + data.draw(st.integers(0, ROOM - size))
        number = data.draw(st.integers(0, (1 << 64) - 1))
        what = data.draw(st.sampled_from(["number", "number", "name", "name", "short", "address", "nothing", "blur"]))
        if what == "blur":
            size = data.draw(st.integers(1, -offset))
            state.blur(0, offset, size, "blur")
            model.write(offset, size, None)
        elif what in ("address", "nothing"):
            state.write(0, offset, size, MAP if what == "address" else None)
            model.write(offset, size, None)
            if what == "address" and size == 8:
                model.addresses.add(offset)
        else:
            value = number
            if what != "number":
                value = fresh("x", 64 if what == "name" else 16)
                values[value] = number = number % (1 << value.bits)
            state.write(0, offset, size, value)
            model.write(offset, size, number)
        if size in (1, 2, 4, 8):
            places.add((offset, size))
    size = data.draw(SIZES)
    last = -ROOM + data.draw(st.integers(0, ROOM - size)), size
    for offset, size in [*places, last]:
        found, wanted = state.read(0, offset, size), model.read(offset, size)
        if size == 8 and offset in model.addresses:
            assert found == MAP
            continue
        assert not isinstance(found, Pointer)
        # of a part of an address, with what lies beside it, nothing is said, not even that it is that small
        if model.addresses.isdisjoint(range(offset - 7, offset + size)):
            assert known(found, size, values) == wanted and bits_of(found) <= 8 * size
        if (offset, size) == last:
            may_be(found, wanted, values)


@pytest.mark.parametrize("size", range(1, 20))
def test_where_something_unknown_was_written_nothing_is_known_and_beside_it_all_is(size):
    state = empty()
    for at in range(-24, 0, 8):
        state.write(0, at, 8, 0x0101010101010101)
    state.blur(0, -22, size, "blur")
    assert [known(state.read(0, at, 1), 1, {})[0] for at in range(-24, 0)] == [1, 1] + [None] * size + [1] * (22 - size)


def test_what_was_written_whole_is_read_whole():
    state, x = empty(), fresh("x")
    state.write(0, -8, 8, x)
    state.write(0, -16, 8, HERE)
    assert state.read(0, -8, 8) is x and state.read(0, -16, 8) == HERE
    assert state.read(0, -8, 4) is state.read(0, -8, 4)


def test_of_an_address_that_is_written_over_nothing_is_left():
    state = empty()
    state.write(0, -8, 8, HERE)
    state.write(0, -8, 1, 5)
    found = state.read(0, -8, 8)
    assert not isinstance(found, Pointer)
    may_be(found, [5] + [None] * 7, {})
    assert known(found, 8, {}) == [5] + [None] * 7


def test_what_nobody_wrote_is_another_each_time():
    state = empty()
    one, other = state.read(0, -8, 8), state.read(0, -8, 8)
    assert isinstance(one, Term) and isinstance(other, Term) and one is not other


# ---- the callers' stacks ------------------------------------------------------------------------------------------


def caller(offset, size, value, *facts):
    state = empty()
    state.write(0, offset, size, value)
    for fact in facts:
        state.learn(fact)
    return state


def asked(holder, size, blunt=False):
    """What a callee reads there, and what it takes for granted of it."""
    inputs = Inputs(holder, blunt)
    answer = empty(inputs).read(1, -8, size)
    return answer, inputs.kinds[1, -8, size], inputs


@pytest.mark.parametrize(
    "value, size, kind",
    [
        (0, 4, 0),
        (2, 4, 2),
        (PLAIN, 4, "not 0"),
        (77, 1, "not 0"),
        (0, 8, 0),
        (1, 8, "?"),
        (77, 8, "?"),
        (fresh("x", 32), 4, "?"),
        (fresh("x"), 8, "?"),
        (HERE, 8, (("stack", 0), -16)),
        (Pointer(("value", "counters"), fresh("at")), 8, (("value", "counters"), "?")),
    ],
)
def test_what_is_taken_for_granted(value, size, kind):
    assert kind_of(caller(-8, size, value).read(0, -8, size), size, empty()) == kind
    answer, found, inputs = asked(caller(-8, size, value), size)
    assert found == kind
    if isinstance(value, Pointer):
        assert answer.region == (("stack", 1) if value.region[0] == "stack" else value.region)
        assert answer.offset == value.offset or (isinstance(answer.offset, Term) and answer.offset is not value.offset)
    elif isinstance(kind, int):
        assert answer == value
    else:
        assert isinstance(answer, Term) and answer is not value and answer.bits == 8 * size
        assert list(inputs.facts) == ([condition(NOT_EQUAL, 64, answer, 0)] if kind == "not 0" else [])


def test_a_name_that_is_known_not_to_be_0():
    x = fresh("x", 32)
    fact = condition(NOT_EQUAL, 64, x, 0)
    assert asked(caller(-8, 4, x, fact), 4)[1] == "not 0"
    assert asked(caller(-8, 4, x, fact.opposite()), 4)[1] == "?"
    assert asked(caller(-8, 4, x), 4)[1] == "?"


def test_when_blunt_no_number_but_an_address_is_taken_for_granted():
    assert asked(caller(-8, 4, 2), 4, True)[1] == "?" == asked(caller(-8, 4, 77), 4, True)[1]
    assert asked(caller(-8, 8, 0), 8, True)[1] == 0  # which may stand for no address
    assert asked(caller(-8, 8, MAP), 8, True)[0] == MAP


def test_an_answer_stays():
    holder = caller(-8, 8, fresh("x"))
    inputs = Inputs(holder)
    state = empty(inputs)
    first = state.read(1, -8, 8)
    holder.write(0, -8, 8, 5)
    assert state.read(1, -8, 8) is first is state.copy(3).read(1, -8, 8)
    state.write(1, -8, 8, 7)  # its own, from here on
    assert state.read(1, -8, 8) == 7 and inputs.read(1, -8, 8) is first and holder.read(0, -8, 8) == 5


def test_a_caller_asks_its_own_caller():
    outermost = caller(-8, 8, MAP)
    middle = empty(Inputs(outermost))
    assert empty(Inputs(middle)).read(2, -8, 8) == MAP and middle.inputs.kinds == {(1, -8, 8): (("map", "states"), 0)}


def test_what_is_read_beside_what_was_written_is_the_callers():
    holder = caller(-8, 4, fresh("x", 32))
    holder.write(0, -6, 1, 2)
    state = empty(Inputs(holder))
    state.write(1, -8, 2, 0x1234)
    assert known(state.read(1, -8, 4), 4, {}) == [0x34, 0x12, 2, None]
    assert state.inputs.kinds == {(1, -6, 1): 2, (1, -5, 1): "?"}


def numbers_of(size):
    return st.one_of(st.integers(0, 4), st.integers(0, (1 << 8 * size) - 1))


def granted(kind, number):
    """May what a function was looked at with have been this number?"""
    return number != 0 if kind == "not 0" else kind == "?" or kind == number


@given(st.data(), st.sampled_from([1, 4, 8]))
def test_what_is_taken_for_granted_covers_no_more_than_it_should(data, size):
    """A function that was looked at with one value is used again for another only if that could have been the first."""

    def one():
        what = data.draw(st.sampled_from(["number", "name", "not 0", "address"]))
        if what == "number":
            return data.draw(numbers_of(size)), []
        if what == "address" and size == 8:
            return Pointer(
                data.draw(st.sampled_from([("stack", 0), ("map", "states")])), data.draw(st.sampled_from([0, -8]))
            ), []
        name = fresh("x", 8 * size)
        return name, [condition(NOT_EQUAL, 64, name, 0)] if what == "not 0" else []

    (seen, facts), (other, known) = one(), one()
    _, kind, _ = asked(caller(-8, size, seen, *facts), size, data.draw(st.booleans()))
    holder = caller(-8, size, other, *known)
    if not covers(kind, holder.read(0, -8, size), size, holder):
        return
    if isinstance(other, Pointer) or isinstance(kind, tuple):
        assert seen == other
    elif isinstance(other, int):
        assert granted(kind, other)
    else:
        assert all(granted(kind, number) for number in ([1, 77] if known else [0, 1, 77]))


@pytest.mark.parametrize("value, size", [(0, 4), (1, 4), (77, 4), (0, 8), (77, 8), (MAP, 8), (fresh("x", 32), 4)])
def test_what_is_taken_for_granted_covers_what_it_was_taken_from(value, size):
    holder = caller(-8, size, value)
    assert covers(asked(holder, size)[1], holder.read(0, -8, size), size, holder)


def test_inward():
    x = fresh("x")
    assert inward(HERE, "r1") == Pointer(("stack", 1), -16) and inward(MAP, "r1") == MAP
    assert inward(None, "r1") is None and inward(5, "r1") == 5
    moved = inward(Pointer(("value", "counters"), x), "r1")
    assert moved.region == ("value", "counters") and isinstance(moved.offset, Term) and moved.offset is not x
    assert isinstance(inward(x, "r1"), Term) and inward(x, "r1") is not x


# ---- what is known ------------------------------------------------------------------------------------------------


def test_what_is_known_decides_itself_and_its_opposite():
    state, x = empty(), fresh("x")
    fact = condition(EQUAL, 64, x, 5)
    assert state.decided(fact) is None is state.decided(fact.opposite())
    state.learn(fact)
    state.learn(True)
    assert state.decided(fact) is True and state.decided(fact.opposite()) is False and list(state.facts) == [fact]
    assert state.decided(condition(EQUAL, 64, x, 6)) is None  # that takes z3
    assert not state.possible(condition(EQUAL, 64, x, 6)) and state.possible(condition(0x20, 64, x, 4))


def test_what_is_known_of_the_callers_counts():
    state = empty(Inputs(caller(-8, 4, 77)))
    name = state.read(1, -8, 4)
    assert (
        state.decided(compare(EQUAL, 64, name, 0)) is False and state.decided(compare(NOT_EQUAL, 64, name, 0)) is True
    )
    assert not state.possible(compare(EQUAL, 64, name, 0))
    assert state.possible(compare(EQUAL, 64, name, 78))


def test_a_name_that_is_a_number_is_so_wherever_it_lies():
    state, x, y = empty(), fresh("x"), fresh("y")
    state.registers[1], state.registers[2] = x, y
    state.write(0, -8, 8, x)
    state.write(2, -8, 8, x)
    state.equate(x, 5)
    assert state.registers[1] == 5 == state.read(0, -8, 8) == state.read(2, -8, 8) and state.registers[2] is y


def test_a_copy_goes_its_own_way():
    state, x = empty(), fresh("x")
    state.registers[1], state.ghost, state.arguments = x, frozenset({"told"}), (x,)
    state.write(0, -8, 8, x)
    state.record("first")
    other = state.copy(7)
    assert (other.at, other.ghost, other.arguments, other.trace) == (7, {"told"}, (x,), state.trace)
    other.registers[1] = 5
    other.write(0, -8, 8, 5)
    other.write(1, -8, 8, 5)
    other.learn(condition(EQUAL, 64, x, 5))
    other.record("second")
    assert state.registers[1] is x is state.read(0, -8, 8) and not state.facts and len(state.frames) == 1
    assert state.trace.what == ("first",) and other.trace.before is state.trace
