# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instructions as records, functions with what they call, and what is worked out of the ways through them: where states
meet, where loops begin, and what is still read."""

import pytest
from assembly import assembled, program
from decode import inner, instruction, successors
from hypothesis import given
from hypothesis import strategies as st

# ---- instructions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw, text",
    [  # as llvm-mc has them
        ("bf21000000000000", "r1 = r2"),
        ("bc21000000000000", "w1 = w2"),
        ("b4030000f9ffffff", "w3 = -7"),
        ("8700000000000000", "r0 = -r0"),
        ("dc01000010000000", "r1 = be16 r1"),
        ("d401000020000000", "r1 = le32 r1"),
        ("18010000907856340000000078563412", "r1 = 0x1234567834567890 ll"),
        ("61a1fcff00000000", "r1 = *(u32 *)(r10 - 4)"),
        ("6921060000000000", "r1 = *(u16 *)(r2 + 6)"),
        ("7b3af8ff00000000", "*(u64 *)(r10 - 8) = r3"),
        ("720affff07000000", "*(u8 *)(r10 - 1) = 7"),
        ("db1af8ff00000000", "lock *(u64 *)(r10 - 8) += r1"),
        ("c31af8ff51000000", "fetch *(u32 *)(r10 - 8) &= r1"),
        ("8500000019000000", "call 25"),
        ("9500000000000000", "exit"),
    ],
)
def test_the_programs_of_these_tests_are_what_they_say(raw, text):
    assert assembled(program=text).submitted.code.hex() == raw


def test_the_fields_of_an_instruction():
    one = instruction(bytes.fromhex("c51afefff8ffffff"), b"", 0, {}, {})
    assert (one.code, one.dst, one.src, one.offset, one.constant) == (0xC5, 10, 1, -2, -8)
    assert (one.kind, one.operation, one.by_register) == (5, 0xC0, False)
    assert instruction(bytes.fromhex("cd1afeff00000000"), b"", 0, {}, {}).by_register
    sizes = {text: program(f"r0 = *({text} *)(r1 + 0)\nexit").code[0].size for text in ("u8", "u16", "u32", "u64")}
    assert sizes == {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


def test_what_a_wide_load_stands_for():
    code = program(
        """
        r1 = map states
        r2 = value counters + 24
        r3 = symbol rename_lock
        r4 = 0xffffffff80000000 ll
        r5 = function callback
        exit""",
        callback="exit",
    ).code
    assert sorted(code) == [0, 2, 4, 6, 8, 10]  # second halves are none
    assert [
        (code[at].dst, code[at].map, code[at].symbol, code[at].constant, code[at].callee) for at in range(0, 10, 2)
    ] == [
        (1, "states", "", 0, None),
        (2, "counters", "", 24, None),
        (3, "", "rename_lock", 0, None),
        (4, "", "", 0xFFFFFFFF80000000, None),
        (5, "", "", 0, 11),
    ]


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("r0 = 1", [8]),
        ("r0 = 1 ll", [9]),
        ("exit", []),
        ("goto back", [5]),
        ("goto there", [10]),
        ("call 1", [8]),
        ("if r1 == 0 goto there", [8, 10]),
        ("if w1 s< w2 goto back", [8, 5]),
        ("if r1 & 4 goto next", [8, 8]),
    ],
)
def test_where_an_instruction_leads(text, wanted):
    """Seven instructions before it, the second of them of two places."""
    before = "r0 = 0\nr0 = 0 ll\n" + "r0 = 1\n" * 2 + "back:\n" + "r0 = 1\n" * 2
    code = program(before + text + "\nnext:\n" + ("r0 = 1\n" if "ll" not in text else "") + "r0 = 1\nthere:\nexit").code
    assert successors(7, code[7]) == wanted


# ---- functions ----------------------------------------------------------------------------------------------------

LEAF = "r0 = 5 ll\nexit"
MIDDLE = "call leaf\nr0 += 1\nexit"


def test_each_function_has_its_own_instructions_and_no_others():
    main = program(main="r1 = 1 ll\ncall middle\ncall leaf\nexit", leaf=LEAF, middle=MIDDLE)
    assert sorted(main.code) == [0, 2, 3, 4] and list(main.callees) == [2, 3]
    middle, leaf = main.callees[2], main.callees[3]
    assert (middle.name, sorted(middle.code)) == ("middle", [0, 1, 2])
    assert (leaf.name, sorted(leaf.code)) == ("leaf", [0, 2])
    assert middle.callees[0] is leaf  # looked at once
    assert inner(main, "leaf") is leaf and inner(main, "main") is main and inner(main, "other") is None


def test_a_function_whose_address_is_taken_is_one_that_is_called():
    main = program(main="r2 = function callback\nexit", callback=LEAF)
    assert main.callees[0].name == "callback"


def test_a_function_is_the_same_wherever_it_lies():
    here = program(main="call middle\nexit", middle=MIDDLE, leaf=LEAF)
    there = program(main="r1 = 0\nr2 = 0\ncall middle\nr3 = 0\ncall leaf\nexit", leaf=LEAF, middle=MIDDLE)
    assert here.callees[0].digest == there.callees[2].digest and here.digest != there.digest


@pytest.mark.parametrize(
    "other",
    [
        {"leaf": "r0 = 6 ll\nexit"},
        {"leaf": "r0 = 5 ll\nr0 += 0\nexit"},
        {"middle": "call leaf\nr0 += 2\nexit"},
        {"middle": "call leaf\nr1 += 1\nexit"},
        {"leaf": "r0 = map five\nexit"},
        {"leaf": "r0 = symbol five\nexit"},
    ],
)
def test_another_function_is_another(other):
    """Whatever differs in it, or in what it calls."""
    one = {"main": "call middle\nexit", "middle": MIDDLE, "leaf": LEAF}
    assert program(**one).digest != program(**dict(one, **other)).digest


def test_maps_of_other_names_make_another_function():
    one, other = program("r1 = map a\nexit"), program("r1 = map b\nexit")
    assert one.digest != other.digest
    assert program("r1 = value a + 4\nexit").digest != program("r1 = value a + 8\nexit").digest


# ---- the ways through a function ----------------------------------------------------------------------------------


def test_a_fork_meets_once():
    shape = program("""
        r0 = 0
        if r1 == 0 goto other
        r0 = 1
        goto end
      other:
        r0 = 2
      end:
        exit""").shape
    assert set(shape.order) == {0, 2, 4, 5} and shape.joins == {5} and shape.loops == set()
    assert shape.order[0] < shape.order[2] < shape.order[5] > shape.order[4] > shape.order[0]


def test_a_loop_begins_where_it_is_jumped_back_to():
    shape = program("""
        r0 = 0
      again:
        r0 += 1
        if r0 == 3 goto again
        if r0 < 5 goto again
        exit""").shape
    assert shape.joins == {1} == shape.loops


def test_the_way_back_from_a_call_is_a_join():
    shape = program("r1 = 0\ncall 5\nr0 = 0\nexit").shape
    assert shape.joins == {2} and shape.loops == set()


@pytest.mark.parametrize(
    "text, floor",
    [
        ("r0 = 0", 0),
        ("r2 = r10\nr2 += -16", -16),
        ("r2 = r10\nr2 += -16\nr3 = r10\nr3 += -40", -40),
        ("r2 = r10", -512),
        ("r2 = r10\nr3 += -16", -512),
        ("*(u64 *)(r10 - 8) = r10", -512),
        ("r2 = r10\nr2 -= 16", -512),
    ],
)
def test_what_lies_above_an_address_that_is_taken_may_always_be_read(text, floor):
    shape = program(text + "\nif r1 == 0 goto end\nr3 = *(u64 *)(r10 - 24)\nend:\nr0 = 0\nexit").shape
    assert shape.floor == floor
    after = max(shape.order) - 1  # where the stack is read
    assert set(range(-24, -16)) & shape.live[after] == (set(range(-24, -16)) if floor >= -16 else set())


# what it reads and what it writes: registers, and bytes of the stack by their negative place
SOME = [
    ("r1 = r2", {2}, {1}),
    ("w4 = w1", {1}, {4}),
    ("r3 = 5", set(), {3}),
    ("r1 += r2", {1, 2}, {1}),
    ("w2 *= 3", {2}, {2}),
    ("r3 = -r3", {3}, {3}),
    ("r4 = be32 r4", {4}, {4}),
    ("r2 = 77 ll", set(), {2}),
    ("r3 = map m", set(), {3}),
    ("r1 = *(u32 *)(r10 - 4)", {-4, -3, -2, -1}, {1}),
    ("r1 = *(u8 *)(r10 - 7)", {-7}, {1}),
    ("r3 = *(u64 *)(r2 + 8)", {2}, {3}),
    ("*(u64 *)(r2 + 0) = r3", {2, 3}, set()),
    ("*(u64 *)(r10 - 8) = r3", {3}, set(range(-8, 0))),
    ("*(u16 *)(r10 - 6) = 1", set(), {-6, -5}),
    ("cmpxchg *(u32 *)(r10 - 8) = r1", {0, 1, -8, -7, -6, -5}, set()),
    ("call 5", {1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}),
]
FORKS = [("if r1 > r2 goto {0}", {1, 2}, set()), ("if w3 == 0 goto {0}", {3}, set()), ("goto {0}", set(), set())]


@st.composite
def tangles(draw, some):
    """Instructions, with labels before all of them, and jumps to any; the last is the end."""
    picked = draw(st.lists(st.one_of(st.sampled_from(some), st.sampled_from(FORKS)), min_size=1, max_size=9))
    made = [(each[0].format(f"l{draw(st.integers(0, len(picked)))}"), *each[1:]) for each in picked]
    return [*made, ("exit", {0}, set())]


def tangled(made):
    """The program, and the place of each of its instructions."""
    one = program("\n".join(f"l{number}:\n{each[0]}" for number, each in enumerate(made)))
    return one, sorted(one.code)


def leads(code, start, wanted, shut=()):
    """Is there a way from one of these places to what is wanted, and through nothing that is shut?"""
    left, seen = list(start), set()
    while left:
        at = left.pop()
        if wanted(at):
            return True
        if at not in seen and at not in shut:
            seen.add(at)
            left.extend(successors(at, code[at]))
    return False


@given(tangles(SOME))
def test_live_is_what_some_way_reads_before_it_writes_it(made):
    """Against a search for such a way, for each register and byte by itself."""
    one, places = tangled(made)
    reads = {at: each[1] for at, each in zip(places, made)}
    writes = {at: each[2] for at, each in zip(places, made)}
    for start in one.shape.order:
        for each in range(-8, 10):
            shut = {at for at in places if each in writes[at]}
            assert (each in one.shape.live[start]) == leads(
                one.code, [start], lambda at, each=each: each in reads[at], shut
            ), (start, each)


@given(tangles([("r0 = 1", set(), set()), ("r0 = 1 ll", set(), set()), ("call 5", set(), set())]))
def test_each_place_comes_after_what_leads_to_it_but_for_loops(made):
    one, places = tangled(made)
    code, shape = one.code, one.shape
    after = {at: successors(at, code[at]) for at in places}
    reached = {at for at in places if leads(code, [0], lambda here, at=at: here == at)}
    comes = [0] + [target for at in places for target in after[at]]
    met = {at for at in reached if comes.count(at) > 1}
    called = {at for at in reached if any(at in after[before] and code[before].code == 0x85 for before in places)}
    begun = {target for at in places if len(after[at]) > 1 or code[at].code == 0x05 for target in after[at]}
    assert set(shape.order) == {0} | met | called | begun & reached
    assert shape.joins & reached == met | called
    circles = {at for at in reached if leads(code, after[at], lambda here, at=at: here == at)}
    assert shape.loops <= circles & met
    for at in reached - shape.loops:
        assert not leads(code, after[at], lambda here, at=at: here == at, shape.loops)
    for at in shape.order:
        for other in shape.order:
            beside = set(shape.order) - {at, other}
            if leads(code, after[at], lambda here, other=other: here == other, beside):
                assert shape.order[at] < shape.order[other] or other in shape.loops
