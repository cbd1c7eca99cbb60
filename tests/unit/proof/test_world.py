# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a program whatever maps and the kernel's memory hold: nothing that may happen is missed, each loop is
ended, each write to what is not ours is told, and a function is looked at no more often than it has to be."""

import itertools

import pytest
import world
from arithmetic import EQUAL, Term, compare, fresh
from assembly import program
from execute import UnprovedError, run
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import Plain
from state import Pointer, State
from world import ABSENT, NO_ROOM, Prover

MASK = (1 << 64) - 1
KINDS = {"outer": "outer array", "table": "array", "notes": "hash", "events": "other"}
LOOKUP, UPDATE, DELETE, COMM, READ, RESERVE, SUBMIT, LOOP = 1, 2, 3, 16, 113, 131, 132, 181


class Notes:
    """Rules that note what they are told."""

    def __init__(self, precise=(), versions=None):
        self.told, self.exact, self.versions = [], precise, versions or {}

    def missed(self, state, table, kind, function):
        self.told.append(("missed", table, kind, function))
        state.ghost |= {f"no {table}"}

    def before(self, state, callee, function):
        self.told.append(("before", callee, function))

    def after(self, state, function):
        self.told.append(("after", function))

    def arrived(self, state, function):
        pass

    def precise(self, function):
        return function in self.exact

    def passed(self, ghost, inner):
        return ghost | inner

    def once(self, table, at, size):
        if table not in self.versions:
            return ()
        return range(self.versions[table], 64) if at is None else range(max(at, self.versions[table]), at + size)

    def looked_up(self, table):
        return table == "outer" and table in self.versions


def proved(text, rules=None, **functions):
    """Its ends, what it trespasses on, and the prover."""
    prover = Prover(KINDS, rules or Notes())
    ends, trespasses = prover.program(program(text, **functions))
    return ends, [each.what for each in trespasses], prover


def may_give(ends, number, *arguments, prover=None, register=0):
    """May one of the ends be with that in the register?"""
    for end in ends:
        facts = [compare(EQUAL, 64, end.registers[register], number)] + [
            compare(EQUAL, 64, prover.argument(at), value) for at, value in enumerate(arguments)
        ]
        if False not in facts and end.possible(*(each for each in facts if each is not True)):
            return True
    return False


def given_numbers(ends, register=0):
    return sorted(end.registers[register] for end in ends)


# ---- ways ---------------------------------------------------------------------------------------------------------


def test_both_ways_of_a_branch():
    ends, trespasses, prover = proved("r2 = *(u64 *)(r1 + 8)\nr0 = 0\nif r2 == 7 goto end\nr0 = -1\nend:\nexit")
    assert given_numbers(ends) == [0, MASK] and trespasses == []
    assert may_give(ends, 0, 1, 7, prover=prover) and may_give(ends, MASK, 1, 8, prover=prover)
    apart, _, prover = proved("r2 = *(u64 *)(r1 + 8)\nr0 = 0\nif r2 == 7 goto end\nr0 = -1\nexit\nend:\nexit")
    assert not may_give(apart, 0, 1, 8, prover=prover) and not may_give(apart, MASK, 1, 7, prover=prover)


def test_ways_with_the_same_numbers_are_taken_together():
    """Ten questions would be a thousand ways."""
    questions = "".join(
        f"r3 = *(u64 *)(r1 + {8 * at})\nif r3 == 5 goto l{at}\nr2 = *(u64 *)(r10 - 8)\nl{at}:\n" for at in range(10)
    )
    ends, _, _ = proved(f"r2 = 0\n{questions}r0 = r2\nexit")
    assert len(ends) == 2 and may_give(ends, 0) and may_give(ends, 12345)


def test_what_is_known_in_both_is_known_of_both():
    text = "r2 = *(u64 *)(r1 + 0)\nr3 = *(u64 *)(r1 + 8)\nif r2 > 9 goto far\n{0}\nr0 = r2\nexit\nfar:\nr0 = 100\nexit"
    ends, _, _ = proved(text.format("if r3 == 0 goto next\nr3 += 1\nnext:"))
    assert may_give(ends, 9) and not may_give(ends, 10)
    ends, _, _ = proved(text.format("if r3 == 0 goto next\nr2 = r3\nnext:"))
    assert may_give(ends, 9) and may_give(ends, 10)


WAYS = {
    "same": "r2 = *(u64 *)(r1 + 16)\nr3 = r2",
    "same again": "r2 = *(u64 *)(r1 + 24)\nr3 = r2",
    "other": "r2 = *(u64 *)(r1 + 32)\nr3 = *(u64 *)(r1 + 40)",
    "byte": "r4 = value notes\nr2 = *(u8 *)(r4 + 0)\nr3 = 0",
    "byte again": "r4 = value notes\nr2 = *(u8 *)(r4 + 1)\nr3 = 0",
    "whole": "r4 = value notes\nr2 = *(u64 *)(r4 + 8)\nr3 = 0",
}


def met(*ways):
    """The ends, where these ways have met."""
    asked = "".join(f"r4 = *(u64 *)(r1 + 0)\nif r4 == {number} goto w{number}\n" for number in range(len(ways) - 1))
    taken = "".join(f"goto last\nw{number}:\n{WAYS[way]}\n" for number, way in enumerate(ways[:-1]))
    return proved(f"{asked}{WAYS[ways[-1]]}\n{taken}last:\nr0 = r2\nr0 -= r3\nexit")[0]


@pytest.mark.parametrize(
    "ways", [*itertools.permutations(["same", "same again", "other"]), ("same", "other"), ("other", "same")]
)
def test_what_is_the_same_in_some_ways_need_not_be_in_all(ways):
    assert may_give(met(*ways), 7) and not may_give(met("same", "same again"), 7)


@pytest.mark.parametrize(
    "ways", [*itertools.permutations(["byte", "byte again", "whole"]), ("byte", "whole"), ("whole", "byte")]
)
def test_what_is_small_in_some_ways_need_not_be_in_all(ways):
    assert may_give(met(*ways), 256) and not may_give(met("byte", "byte again"), 256)


@pytest.mark.parametrize(
    "ways",
    [
        "if r2 == 0 goto {0}\n*(u64 *)(r10 - 8) = r3\n{0}:",
        "if r2 == 0 goto {0}\ngoto end\n{0}:\n*(u64 *)(r10 - 8) = r3",
    ],
)
def test_what_was_put_down_on_one_way_alone_is_not_known(ways):
    ends, _, _ = proved(
        f"r2 = *(u64 *)(r1 + 0)\nr3 = value notes\nr3 = *(u8 *)(r3 + 0)\n{ways.format('there')}\nend:\n"
        "r0 = *(u64 *)(r10 - 8)\nexit"
    )
    assert may_give(ends, 5) and may_give(ends, 256)


# ---- loops --------------------------------------------------------------------------------------------------------

COUNTS = """
    r2 = *(u64 *)(r1 + 0)
    r0 = 0
  again:
    r0 += 1
    if r0 < r2 goto again
    exit"""


def test_a_loop_ends_by_forgetting_what_varies_in_it():
    ends, _, _ = proved(COUNTS)
    assert len(ends) < 20
    assert all(may_give(ends, number) for number in (1, 2, 15, 16, 17, 1000, MASK))
    assert any(isinstance(end.registers[0], Term) for end in ends)


def test_what_does_not_vary_in_a_loop_is_kept():
    ends, _, _ = proved(
        "r5 = 5\n*(u64 *)(r10 - 8) = 6\n" + COUNTS.replace("exit", "r0 = r5\nr3 = *(u64 *)(r10 - 8)\nr0 += r3\nexit")
    )
    assert set(given_numbers(ends)) == {11}


def test_what_is_counted_on_the_stack_is_forgotten_as_well():
    ends, _, _ = proved("""
        r2 = *(u64 *)(r1 + 0)
        *(u64 *)(r10 - 8) = 0
      again:
        r0 = *(u64 *)(r10 - 8)
        r0 += 3
        *(u64 *)(r10 - 8) = r0
        if r0 < r2 goto again
        exit""")
    assert may_give(ends, 3) and may_give(ends, 3000)


def test_small_numbers_are_forgotten_where_they_are_too_many_together():
    """Three times 0 to 2 are 27 states; 0 is among what they may be then."""
    turns = "".join(
        f"r5 = *(u64 *)(r7 + 0)\nif r5 == 1 goto l{number}\nr{number} += 1\nif r{number} != 3 goto l{number}\n"
        f"r{number} = 0\nl{number}:\n"
        for number in (2, 3, 4)
    )
    ends, _, _ = proved(
        f"r7 = *(u64 *)(r1 + 0)\nr2 = 0\nr3 = 0\nr4 = 0\nagain:\n{turns}r5 = *(u64 *)(r7 + 0)\nif r5 != 9 goto again\n"
        "r0 = r2\nr0 <<= 2\nr0 |= r3\nr0 <<= 2\nr0 |= r4\nexit"
    )
    for numbers in itertools.product(range(3), repeat=3):
        assert may_give(ends, numbers[0] << 4 | numbers[1] << 2 | numbers[2])


@pytest.mark.parametrize(
    "number, much, kept", [(0, 1, True), (2, 1, True), (3, 1, False), (0, 2, False), (2, 2, False)]
)
def test_of_a_number_that_is_forgotten_it_is_kept_whether_it_is_0(number, much, kept):
    state = State([None] * 11)
    value = world._forgotten(state, number, 4, much)
    assert (value == number) == kept
    if not kept:
        assert state.possible(compare(EQUAL, 64, value, number)) and state.possible(compare(EQUAL, 64, value, 77))
        assert state.possible(compare(EQUAL, 64, value, 0)) == (number == 0)


def test_an_address_that_goes_along_a_value_is_still_one_of_that_value():
    ends, trespasses, _ = proved("""
        r2 = *(u64 *)(r1 + 0)
        r3 = value notes
        r4 = 0
      again:
        *(u8 *)(r3 + 0) = 1
        r3 += 8
        r4 += 1
        if r4 < r2 goto again
        r0 = r3
        exit""")
    assert trespasses == [] and {end.registers[0].region for end in ends} == {("value", "notes")}


def test_a_loop_along_the_stack_without_an_end_is_given_up():
    with pytest.raises(UnprovedError, match="has too many states"):
        proved("r2 = r10\nr2 += -512\nagain:\nr2 += 8\nr3 = *(u64 *)(r1 + 0)\nif r3 != 5 goto again\nr0 = 0\nexit")


def test_time_runs_out():
    prover = Prover(KINDS, Notes(), seconds=-1)
    with pytest.raises(UnprovedError, match="seconds do not suffice"):
        prover.program(program(COUNTS))


class Given(Plain):
    """An interpreter, which has the arguments."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def load(self, state, at, size):
        return self.arguments[at.offset // 8] if at.region == ("context",) else super().load(state, at, size)


SOME = [
    "r2 += 1",
    "r3 ^= r2",
    "r2 = r3",
    "r3 = 5",
    "w2 = w3",
    "r3 &= 7",
    "r2 *= 3",
    "r4 = r2",
    "r4 = 0",
    "r3 = r4",
    "r2 >>= 1",
    "*(u64 *)(r10 - 8) = r2",
    "*(u32 *)(r10 - 8) = r3",
    "r3 = *(u64 *)(r10 - 8)",
    "r2 = *(u8 *)(r10 - 7)",
    "*(u16 *)(r10 - 6) = 1",
    "if r2 == 0 goto {0}",
    "if r2 > r3 goto {0}",
    "if r3 != 5 goto {0}",
    "if w4 s< 3 goto {0}",
    "if r2 == r4 goto {0}",
]
CALLS = ["r1 = r10\nr1 += -8\nr2 = r3\ncall inner\nr2 = r0\nr3 = 1\nr4 = 2\nr1 = r6"]
INNER = """
    r0 = *(u32 *)(r1 + 0)
    if r0 == 1 goto one
    *(u16 *)(r1 + 4) = r2
    if r2 == 5 goto end
    r0 = r2
    *(u32 *)(r1 + 0) = 1
  end:
    exit
  one:
    *(u64 *)(r1 + 0) = 0
    exit"""


@settings(max_examples=max(200, settings().max_examples))
@given(st.data())
def test_nothing_that_may_happen_is_missed(data):
    """Programs with jumps forward, calls, and one loop around them, which ends after some rounds: whatever numbers come
    in, what an interpreter then gives is an end of the prover's."""
    picked = data.draw(st.lists(st.sampled_from(SOME + CALLS), min_size=2, max_size=9))
    lines = [
        f"l{at}:\n" + each.format(f"l{data.draw(st.integers(at + 1, len(picked)))}") for at, each in enumerate(picked)
    ]
    rounds = data.draw(st.sampled_from([1, 2, 20]))
    text = "\n".join(
        [
            "r6 = r1",
            "*(u64 *)(r10 - 8) = 0",
            "r2 = *(u64 *)(r1 + 0)",
            "r3 = *(u64 *)(r1 + 8)",
            "r4 = 1",
            "r7 = 0",
            "again:",
            *lines,
            f"l{len(picked)}:",
            "r7 += 1",
            f"if r7 < {rounds} goto again",
            "r0 = r2",
            "r0 ^= r3",
            "r8 = *(u64 *)(r10 - 8)",
            "r0 += r8",
            "exit",
        ]
    )
    functions = {"inner": INNER} if any("call" in each for each in picked) else {}
    ends, trespasses, prover = proved(text, **functions)
    assert trespasses == []
    for numbers in data.draw(
        st.lists(st.tuples(*[st.sampled_from([0, 1, 3, 5, 8, 1 << 32, MASK])] * 2), min_size=1, max_size=3)
    ):
        start = State([None] * 11)
        start.registers[1], start.registers[10] = Pointer(("context",), 0), Pointer(("stack", 0), 0)
        (one,) = run(Given(*numbers), program(text, **functions), start)
        assert may_give(ends, one.registers[0], *numbers, prover=prover), (text, numbers)


# ---- maps ---------------------------------------------------------------------------------------------------------


def test_a_look_up_may_find_something_or_nothing():
    rules = Notes()
    ends, trespasses, _ = proved(
        "r1 = map notes\ncall 1\nif r0 == 0 goto none\nr0 = *(u32 *)(r0 + 4)\nexit\nnone:\nr0 = -1\nexit", rules
    )
    (found,) = (end for end in ends if not end.ghost)
    (none,) = (end for end in ends if end.ghost == {"no notes"})
    assert none.registers[0] == MASK and none.trace.what == ("none", "entry", "notes")
    assert may_give([found], 0) and may_give([found], 0xFFFFFFFF) and not may_give([found], 1 << 32)
    assert ("missed", "notes", "hash", "program") in rules.told and trespasses == []


def test_a_write_to_what_was_not_looked_for_is_told():
    """Where it was not there, 0 is an address in the kernel."""
    text = "r1 = map notes\ncall 1\n{0}*(u64 *)(r0 + 0) = 1\nnone:\nr0 = 0\nexit"
    assert proved(text.format("if r0 == 0 goto none\n"))[1] == []
    assert proved(text.format(""))[1] == ["program stores 8 bytes at an address in the kernel"]


def test_a_table_of_a_generation_is_looked_up_twice():
    rules = Notes()
    ends, trespasses, _ = proved(
        """
        r1 = map outer
        call 1
        if r0 == 0 goto none
        r1 = r0
        call 1
        if r0 == 0 goto none
        *(u64 *)(r0 + 0) = 5
      none:
        r0 = 0
        exit""",
        rules,
    )
    assert [each[2] for each in rules.told if each[0] == "missed"] == ["outer", "array"] and trespasses == []
    assert len(ends) == 2


def test_what_a_map_holds_is_another_each_time():
    ends, _, _ = proved(
        "r1 = map notes\ncall 1\nr6 = r0\nif r0 == 0 goto none\n*(u64 *)(r6 + 0) = 5\nr0 = *(u64 *)(r6 + 0)\n"
        "r2 = *(u64 *)(r6 + 0)\nr0 -= r2\nexit\nnone:\nr0 = 0\nexit"
    )
    assert may_give(ends, 0) and may_give(ends, 7)


def test_a_map_may_be_full():
    rules = Notes()
    ends, _, _ = proved("r1 = map notes\ncall 2\nexit", rules)
    assert given_numbers(ends) == [0, NO_ROOM] and ("missed", "notes", "full", "program") in rules.told


def test_an_event_may_find_no_room():
    ends, trespasses, _ = proved(
        "r1 = map events\ncall 131\nif r0 == 0 goto none\n*(u64 *)(r0 + 8) = 5\nr1 = r0\ncall 132\nnone:\nr0 = 0\nexit"
    )
    assert trespasses == [] and {end.ghost for end in ends} == {frozenset(), frozenset({"no events"})}


@pytest.mark.parametrize("text", ["call 1", "r1 = 5\ncall 1", "r1 = value notes\ncall 1", "r1 = r10\ncall 2"])
def test_a_map_that_is_not_known(text):
    with pytest.raises(UnprovedError, match=r"a lookup in an unknown map|an unknown map is changed"):
        proved(text + "\nexit")


# ---- what is not ours ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, said",
    [
        ("r2 = *(u64 *)(r1 + 0)\n*(u64 *)(r2 + 0) = 1", "stores 8 bytes at an address in the kernel"),
        ("r2 = *(u64 *)(r1 + 0)\nlock *(u32 *)(r2 + 0) += r2", "changes 4 bytes at an address in the kernel"),
        ("*(u64 *)(r1 + 8) = 1", "stores 8 bytes to its context"),
        ("r2 = map notes\n*(u8 *)(r2 + 0) = 1", "stores 1 bytes to its map"),
        ("r2 = function inner\n*(u8 *)(r2 + 0) = 1", "stores 1 bytes to its function"),
        ("r2 = symbol lock\n*(u8 *)(r2 + 0) = 1", "stores 1 bytes at an address in the kernel"),
        ("r2 = *(u64 *)(r1 + 0)\nr1 = r2\nr2 = 8\nr3 = r1\ncall 113", "has a helper write to memory that is not ours"),
        ("r2 = 16\ncall 16", "has a helper write to memory that is not ours"),
    ],
)
def test_a_write_to_what_is_not_ours_is_told(text, said):
    assert proved(text + "\nr0 = 0\nexit", inner="r0 = 0\nexit")[1] == [f"program {said}"]


@pytest.mark.parametrize(
    "text",
    [
        "*(u64 *)(r10 - 8) = 1",
        "r2 = value notes + 8\n*(u64 *)(r2 + 0) = 1",
        "r2 = *(u64 *)(r1 + 0)\nr3 = *(u64 *)(r2 + 0)",
        "r1 = r10\nr1 += -16\nr2 = 16\ncall 16",
        "r1 = value notes\nr2 = 16\ncall 16",
    ],
)
def test_a_write_to_what_is_ours_is_not(text):
    assert proved(text + "\nr0 = 0\nexit")[1] == []


def test_a_write_within_a_callee_is_told_with_the_way_to_it():
    prover = Prover(KINDS, Notes())
    _, (one, again) = prover.program(
        program(
            "r6 = r1\nr1 = *(u64 *)(r6 + 0)\ncall outside\nr1 = *(u64 *)(r6 + 8)\ncall outside\nexit",
            outside="*(u8 *)(r1 + 0) = 1\nr0 = 0\nexit",
        )
    )
    assert one.what == again.what == "outside stores 1 bytes at an address in the kernel"
    assert one.trace.what[:2] == ("call", "outside") and one.trace.before is None
    assert again.trace.before.what == ("call", "outside", 0, None)


# ---- somewhere on the stack ---------------------------------------------------------------------------------------

SOMEWHERE = """
    *(u64 *)(r10 - 24) = 1
    *(u64 *)(r10 - 16) = 2
    *(u64 *)(r10 - 8) = 3
    r2 = *(u64 *)(r1 + 0)
    {0}
    r3 = r10
    r3 += -16
    r3 += r2
    *(u8 *)(r3 + 0) = 77
    r0 = *(u64 *)(r10 - {1})
    exit"""


@pytest.mark.parametrize("bound", ["r2 &= 7", "if r2 < 8 goto fits\nr0 = 0\nexit\nfits:"])
def test_a_write_somewhere_leaves_the_rest_as_it_is(bound):
    for at, number in ((24, 1), (8, 3)):
        ends, trespasses, _ = proved(SOMEWHERE.format(bound, at))
        assert set(given_numbers(ends)) - {0} == {number} and trespasses == []
    ends, _, _ = proved(SOMEWHERE.format(bound, 16))
    assert may_give(ends, 2) and may_give(ends, 77) and may_give(ends, 77 << 56 | 2)


def test_a_write_to_who_knows_where():
    with pytest.raises(UnprovedError, match="program writes somewhere on a stack"):
        proved(SOMEWHERE.format("", 8))


def test_what_a_helper_writes_is_not_known_and_what_lies_beside_it_is():
    ends, _, _ = proved(
        "*(u64 *)(r10 - 24) = 5\n*(u64 *)(r10 - 16) = 5\n*(u64 *)(r10 - 8) = 5\nr3 = *(u64 *)(r1 + 0)\nr1 = r10\n"
        "r1 += -20\nr2 = 8\ncall 113\nr0 = *(u64 *)(r10 - 24)\nr2 = *(u64 *)(r10 - 16)\nr3 = *(u64 *)(r10 - 8)\nexit"
    )
    assert may_give(ends, 5) and may_give(ends, 9 << 32 | 5) and not may_give(ends, 6)
    assert may_give(ends, 9, register=2) and not may_give(ends, 9 << 32, register=2) and given_numbers(ends, 3) == [5]


def test_what_is_read_from_our_own_stack_is_copied():
    ends, _, _ = proved(
        "*(u64 *)(r10 - 16) = 5\nr1 = r10\nr1 += -8\nr2 = 8\nr3 = r10\nr3 += -16\ncall 113\nr6 = r0\n"
        "r0 = *(u64 *)(r10 - 8)\nexit"
    )
    assert given_numbers(ends) == [5] and given_numbers(ends, 6) == [0]


# ---- calls --------------------------------------------------------------------------------------------------------

SETS = "if r2 == 0 goto end\n*(u32 *)(r1 + 0) = r2\nend:\nr0 = *(u32 *)(r1 + 0)\nexit"
ASKS = "*(u64 *)(r10 - 8) = 0\nr6 = *(u64 *)(r1 + 0)\nr1 = r10\nr1 += -8\nr2 = {0}\ncall sets\nr3 = *(u32 *)(r10 - 8)\nexit"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_callee_writes_to_its_callers_stack(number):
    ends, _, _ = proved(ASKS.format(number), sets=SETS)
    assert given_numbers(ends) == [number] == given_numbers(ends, 3)


def test_what_a_callee_was_given_may_be_anything_then():
    ends, _, _ = proved(ASKS.format("r6"), sets=SETS)
    assert {number for number in (0, 1, 5) if may_give(ends, number, register=3)} == {0, 1, 5}
    ends, _, _ = proved(ASKS.format("77"), sets=SETS)  # which number it is matters to nobody, but that it is one
    assert not may_give(ends, 0, register=3) and may_give(ends, 77, register=3)


@pytest.mark.parametrize("one, other", [(1, 2), (2, 1), (77, 78), (78, 77), (0, 77), (77, 0)])
def test_what_a_callee_writes_is_kept_apart_from_what_it_may_write_instead(one, other):
    ends, _, _ = proved(
        ASKS.format("r6"),
        sets=f"if r2 == 0 goto end\n*(u32 *)(r1 + 0) = {one}\nr0 = 0\nexit\nend:\n"
        f"*(u32 *)(r1 + 0) = {other}\nr0 = 0\nexit",
    )
    assert may_give(ends, one, register=3) and may_give(ends, other, register=3)
    assert may_give(ends, 0, register=3) == (0 in (one, other))


BOTH = "r0 = *(u64 *)(r2 + 0)\n*(u64 *)(r1 + 0) = r0\nexit"
APART = "r0 = *(u64 *)(r2 + 0)\nr3 = *(u64 *)(r2 + 8)\n*(u64 *)(r1 + 0) = r3\nexit"


@pytest.mark.parametrize(
    "text, same",
    [
        (BOTH, True),
        (APART, False),
        (f"if r2 == 0 goto end\n{BOTH}\nend:\n{APART}", False),
        (f"if r2 == 0 goto end\n{APART}\nend:\n{BOTH}", False),
    ],
)
def test_what_a_callee_gives_is_what_it_wrote_where_it_always_is(text, same):
    ends, _, _ = proved(
        ASKS.format("r6").replace("r3 = *(u32", "r3 = *(u64").replace("exit", "r3 -= r0\nexit"), sets=text
    )
    assert may_give(ends, 0, register=3) and may_give(ends, 7, register=3) != same


def test_what_a_callee_gives_may_be_0_where_nobody_says_that_it_is_not():
    text = "r1 = *(u64 *)(r1 + 0)\ncall same\nexit"
    assert may_give(proved(text, same="r0 = r1\nexit")[0], 0)
    ends, _, _ = proved(text, same="if r1 != 0 goto end\nr1 = 1\nend:\nr0 = r1\nexit")
    assert may_give(ends, 1) and may_give(ends, 99) and not may_give(ends, 0)


def test_a_callee_does_not_change_its_callers_registers():
    ends, _, _ = proved(
        "r6 = 5\nr7 = r10\ncall changes\nr0 = r6\nr2 = r7\nexit", changes="r6 = 1\nr7 = 1\nr0 = 0\nexit"
    )
    assert given_numbers(ends) == [5] and ends[0].registers[2] == Pointer(("stack", 0), 0)


def test_an_address_of_the_callers_comes_back_as_the_callers():
    ends, _, _ = proved(
        "r1 = r10\nr1 += -8\ncall same\n*(u64 *)(r0 + 0) = 5\nr0 = *(u64 *)(r10 - 8)\nexit", same="r0 = r1\nexit"
    )
    assert given_numbers(ends) == [5]
    with pytest.raises(UnprovedError, match="own returns an address on its own stack"):
        proved("call own\nr0 = 0\nexit", own="r0 = r10\nexit")


CALLER = "*(u32 *)(r10 - 4) = {0}\nr1 = r10\nr1 += -4\ncall looks\nr6 = r0\n*(u32 *)(r10 - 4) = {1}\nr1 = r10\nr1 += -4\ncall looks\nr2 = r6\nexit"
LOOKS = "r0 = *(u32 *)(r1 + 0)\nexit"


@pytest.mark.parametrize("first, second, times", [(0, 0, 1), (0, 1, 2), (5, 6, 1), (5, 0, 2), (0, 5, 2)])
def test_a_function_is_looked_at_once_for_what_it_finds(first, second, times):
    """Numbers from 3 on are all alike, but 0 is not among them."""
    rules = Notes()
    ends, _, prover = proved(CALLER.format(first, second), rules, looks=LOOKS)
    assert sum(map(len, prover.memory.values())) == times == rules.told.count(("after", "looks"))
    for register, number in ((2, first), (0, second)):
        assert may_give(ends, number, register=register)
        assert number < 3 or not may_give(ends, 0, register=register)


def test_what_was_found_with_anything_is_used_again_where_it_does_not_matter():
    text = "r2 = *(u64 *)(r1 + 0)\n" + CALLER.format("r2", 1)
    for exact, times in (((), 1), (("looks",), 2)):
        ends, _, prover = proved(text, Notes(exact), looks=LOOKS)
        assert sum(map(len, prover.memory.values())) == times
        assert may_give(ends, 1) and may_give(ends, 9) == (not exact)


def test_a_function_that_gets_other_numbers_each_time_is_looked_at_with_any():
    text = "".join(f"r1 = {number}\ncall looks\nr6 = r0\n" for number in range(5, 15))
    ends, _, prover = proved(text + "exit", looks="r0 = r1\nexit")
    assert len(prover.memory) == world.VARIANTS + 1 and may_give(ends, 14) and may_give(ends, 99)


def test_what_is_missed_in_a_callee_is_known_to_its_caller():
    ends, _, _ = proved("call looks\nr0 = 0\nexit", looks="r1 = map notes\ncall 1\nr0 = 7\nexit")
    assert {end.ghost for end in ends} == {frozenset(), frozenset({"no notes"})}


# ---- the kernel's loop, and helpers -------------------------------------------------------------------------------

ROUNDS = "*(u64 *)(r10 - 8) = 0\nr1 = 10\nr2 = function counts\nr3 = r10\nr3 += -8\nr4 = 0\ncall 181\nr0 = *(u64 *)(r10 - 8)\nexit"


def test_a_callback_is_called_any_number_of_times():
    ends, _, _ = proved(ROUNDS, counts="r3 = *(u64 *)(r2 + 0)\nr3 += 1\n*(u64 *)(r2 + 0) = r3\nr0 = 0\nexit")
    assert all(may_give(ends, number) for number in (0, 1, 2, 7, 100))
    ends, _, _ = proved(ROUNDS, counts="r3 = *(u64 *)(r2 + 0)\nr0 = 0\nexit")
    assert set(given_numbers(ends)) == {0}


def test_what_a_callback_writes_elsewhere_is_told():
    assert proved(ROUNDS, counts="*(u64 *)(r1 + 0) = 1\nr0 = 0\nexit")[1] == [
        "counts stores 8 bytes at an address in the kernel"
    ]


def test_what_the_kernel_does_not_have_is_never_reached():
    ends, _, _ = proved(f"r2 = *(u64 *)(r1 + 0)\nr0 = 0\nif r2 == 0 goto end\ncall {ABSENT}\nr0 = 5\nend:\nexit")
    assert given_numbers(ends) == [0]


@pytest.mark.parametrize(
    "text, said",
    [
        ("call 9999", "program calls helper 9999, which the prover does not support"),
        ("r0 = *(u32 *)(r1 + 0)", "an argument is read in parts"),
        ("r2 = map notes\nr0 = *(u64 *)(r2 + 0)", "a read from map"),
        ("r2 = 5\ncall 181", "bpf_loop with an unknown callback"),
    ],
)
def test_what_cannot_be_followed_is_told(text, said):
    with pytest.raises(UnprovedError, match=said):
        proved(text + "\nexit")


# ---- what is read once ----------------------------------------------------------------------------------------------

FOUND = """
    r1 = map {0}
    r2 = 0
    *(u32 *)(r10 - 4) = r2
    r2 = r10
    r2 += -4
    call 1
    if r0 == 0 goto none
"""
READS = {
    "twice": ("r3 = *(u64 *)(r0 + 8)\nr4 = *(u64 *)(r0 + 8)", True),
    "in part": ("r3 = *(u64 *)(r0 + 8)\nr4 = *(u8 *)(r0 + 15)", True),
    "beside": ("r3 = *(u64 *)(r0 + 8)\nr4 = *(u8 *)(r0 + 16)", False),
    "the version": ("r3 = *(u64 *)(r0 + 0)\nr3 = *(u64 *)(r0 + 8)\nr4 = *(u64 *)(r0 + 0)", False),
    "by an exchange": ("r3 = *(u64 *)(r0 + 8)\nr4 = 1\nfetch *(u64 *)(r0 + 8) += r4", False),
    "on two ways": (
        "r3 = *(u64 *)(r10 - 16)\nif r3 == 0 goto other\nr3 = *(u64 *)(r0 + 8)\ngoto none\nother:\n"
        "r3 = *(u64 *)(r0 + 8)",
        False,
    ),
    "after either way": (
        "r3 = *(u64 *)(r10 - 16)\nif r3 == 0 goto next\nr3 = *(u64 *)(r0 + 8)\nnext:\nr4 = *(u64 *)(r0 + 8)",
        True,
    ),
    "anywhere": (
        "r3 = *(u64 *)(r10 - 16)\nr3 &= 31\nr4 = r0\nr4 += r3\nr4 = *(u8 *)(r4 + 0)\nr3 = *(u64 *)(r0 + 8)",
        True,
    ),
}


@pytest.mark.parametrize("name", READS)
def test_what_others_write_is_read_once(name):
    text, against = READS[name]
    _, told, _ = proved(FOUND.format("notes") + text + "\nnone:\nr0 = 0\nexit", Notes(versions={"notes": 8}))
    assert bool(told) == against and all("notes is read more than once" in each for each in told)
    assert proved(FOUND.format("notes") + text + "\nnone:\nr0 = 0\nexit")[1] == []  # others do not write there


@pytest.mark.parametrize("again", [False, True])
def test_a_loop_that_reads_again(again):
    body = "again:\nr3 = *(u64 *)(r0 + 8)\n" if again else "r3 = *(u64 *)(r0 + 8)\nagain:\n"
    _, told, _ = proved(
        FOUND.format("notes") + body + "r4 = *(u64 *)(r10 - 16)\nif r4 != 0 goto again\nnone:\nr0 = 0\nexit",
        Notes(versions={"notes": 8}),
    )
    assert bool(told) == again


@pytest.mark.parametrize("own", [False, True])
def test_what_a_function_reads_of_its_callers_entry(own):
    """An entry that it has looked up itself is another one."""
    reading = "r0 = *(u64 *)(r1 + 8)\nexit"
    if own:
        reading = FOUND.format("notes") + "r0 = *(u64 *)(r0 + 8)\nnone:\nr0 = 0\nexit"
    _, told, _ = proved(
        FOUND.format("notes")
        + "r3 = *(u64 *)(r0 + 8)\nr1 = r0\n"
        + ("r1 = 0\n" if own else "")
        + "call reads\nnone:\nr0 = 0\nexit",
        Notes(versions={"notes": 8}),
        reads=reading,
    )
    assert bool(told) != own


@pytest.mark.parametrize("times, told", [(1, []), (2, ["outer is looked up more than once"])])
def test_a_map_that_is_looked_up_once(times, told):
    text = "".join(FOUND.format("outer").replace("none", f"n{each}") + f"n{each}:\n" for each in range(times))
    assert sorted(set(proved(text + "r0 = 0\nexit", Notes(versions={"outer": 0}))[1])) == told


# ---- states that wait when others are forgotten ---------------------------------------------------------------------


@pytest.mark.parametrize("ways", [5, 30, 300])
def test_a_state_that_waits_is_not_lost(ways):
    """The first way to the loop's head is the only one that stores; the others make it forget their number, so that it
    is of their kind."""
    many = "".join(f"r7 = {103 + each}\nif r8 == {3 + each} goto head\n" for each in range(ways))
    _, told, _ = proved(
        "r6 = *(u64 *)(r1 + 0)\nr8 = *(u64 *)(r1 + 8)\nr7 = r8\nif r8 > 1000 goto head\nif r6 == 0 goto end\n"
        f"{many}goto end\nhead:\nif r6 != 0 goto next\n*(u64 *)(r1 + 0) = r6\nnext:\n"
        "if r8 == 7777 goto head\nr0 = r7\nexit\nend:\nr0 = 0\nexit"
    )
    assert set(told) == {"program stores 8 bytes to its context"}


# ---- outcomes ---------------------------------------------------------------------------------------------------------


def outcome(result, *written, ghost=(), not_zero=False):
    return world.Outcome(
        result,
        not_zero,
        tuple(((1, -8 * at - 8, size), value) for at, (size, value) in enumerate(written)),
        frozenset(ghost),
        None,
    )


def test_what_is_a_case_of_another_outcome():
    a, b = fresh("a"), fresh("b")
    wide = outcome(a, (4, b))
    assert world._widest([outcome(0, (4, 7)), wide, outcome(5, (4, 0))]) == [wide]
    assert world._widest([wide, outcome(0, (4, 7))]) == [wide]
    known = outcome(0, (4, world.PLAIN))  # whatever is not 0
    assert world._widest([known, outcome(0, (4, 1)), outcome(0, (4, 77))]) == [known]


@pytest.mark.parametrize(
    "one, other",
    [
        (outcome(0, ghost={"x"}), outcome(fresh("a"))),
        (outcome(0), outcome(fresh("a"), not_zero=True)),
        (outcome(0, (4, 0)), outcome(0, (4, world.PLAIN))),
        (outcome(0, (8, 5)), outcome(0, (8, world.PLAIN))),
        (outcome(0, (8, Pointer(("stack", 1), 0))), outcome(0, (8, fresh("a")))),
        (outcome(0, (4, 1)), outcome(0)),
        (outcome(1), outcome(2)),
    ],
)
def test_what_is_no_case_of_another_outcome(one, other):
    assert world._widest([one, other]) == [one, other]


def test_what_is_alike_in_an_outcome_need_not_be_in_another():
    a = fresh("a", 32)
    pair = [outcome(0, (4, a), (4, a)), outcome(0, (4, 1), (4, 2))]
    assert world._widest(pair) == pair
