# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The executor on small programs: with numbers it is an interpreter, with names it follows every way, and each end is
what an interpreter comes to where what is known at that end is so."""

import pytest
import z3
from arithmetic import Solver, Term, fresh
from assembly import CODES, JUMPS, SIZES, assembled, program
from decode import STACK, decode
from execute import UnprovedError, run
from hypothesis import given
from hypothesis import strategies as st
from plain import Plain
from state import Pointer, State

MASK = (1 << 64) - 1
CONTEXT = Pointer(("context",), 0)


class Stacked(Plain):
    """Notes what is done beside the stack instead of giving up."""

    def __init__(self):
        self.done = []

    def outside(self, state, address, size):
        self.done.append(("read", address, size))
        return fresh("kernel", 8 * size)

    def trespass(self, state, what):
        self.done.append(what)


def begun(**registers):
    state = State([None] * 11)
    state.registers[1], state.registers[STACK] = CONTEXT, Pointer(("stack", 0), 0)
    for name, value in registers.items():
        state.registers[int(name[1:])] = value
    return state


def ends(text, world=None, functions=None, **registers):
    return run(world or Plain(), program(text, **(functions or {})), begun(**registers))


def result(text, **registers):
    """Of a program that has one end."""
    (one,) = ends(text + "\nexit", **registers)
    return one.registers[0]


# ---- an interpreter -----------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.sampled_from([0, 1, 0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 63, MASK]), st.integers(0, MASK), st.integers(0, 70)
)
CONSTANTS = st.one_of(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(-3, 70))


class Machine:
    """As RFC 9669 says it: registers 0 to 3, and 16 bytes of stack."""

    def __init__(self, registers):
        self.registers, self.stack = list(registers), bytearray(16)

    def alu(self, operator, bits, dst, other):
        cut = (1 << bits) - 1
        a, b = self.registers[dst] & cut, other & cut
        negative = a - (1 << bits) if a >> bits - 1 else a
        by = b % bits
        self.registers[dst] = {
            "+=": a + b,
            "-=": a - b,
            "*=": a * b,
            "/=": a // b if b else 0,
            "%=": a % b if b else a,
            "|=": a | b,
            "&=": a & b,
            "^=": a ^ b,
            "=": b,
            "<<=": a << by,
            ">>=": a >> by,
            "s>>=": negative >> by,
        }[operator] & cut

    def jumps(self, operator, bits, dst, other):
        a, b = self.registers[dst] & (1 << bits) - 1, other & (1 << bits) - 1
        c, d = (each - (1 << bits) if each >> bits - 1 else each for each in (a, b))
        return {
            "==": a == b,
            "!=": a != b,
            "&": a & b,
            ">": a > b,
            ">=": a >= b,
            "<": a < b,
            "<=": a <= b,
            "s>": c > d,
            "s>=": c >= d,
            "s<": c < d,
            "s<=": c <= d,
        }[operator]


@st.composite
def straight(draw):
    """Lines without a jump backwards, each with what a machine does; labels after each of them."""
    lines = []
    for _each in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from("aaaajgsln"))
        dst, src, letter = draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(st.sampled_from("rw"))
        bits = 64 if letter == "r" else 32
        constant = None if draw(st.booleans()) else draw(CONSTANTS)
        size = draw(st.sampled_from(sorted(SIZES)))
        length = int(size[1:]) // 8
        at = length * draw(st.integers(1, 16 // length))
        other = f"{letter}{src}" if constant is None else str(constant)
        if kind == "a":
            operator = draw(st.sampled_from(sorted(CODES)))
            if constant is not None and operator in ("<<=", ">>=", "s>>="):
                constant %= bits
                other = str(constant)
            lines.append((f"{letter}{dst} {operator} {other}", "alu", operator, bits, dst, src, constant))
        elif kind == "j":
            operator = draw(st.sampled_from(sorted(JUMPS)))
            lines.append((f"if {letter}{dst} {operator} {other} goto ", "jump", operator, bits, dst, src, constant))
        elif kind == "g":
            lines.append(("goto ", "goto"))
        elif kind == "n":
            lines.append((f"{letter}{dst} = -{letter}{dst}", "negate", bits, dst))
        elif kind == "l":
            lines.append((f"r{dst} = *({size} *)(r10 - {at})", "load", length, dst, 16 - at))
        else:
            lines.append((f"*({size} *)(r10 - {at}) = {other}", "store", length, src, 16 - at, constant))
    ways = [draw(st.integers(at + 1, len(lines))) for at in range(len(lines))]
    text = "".join(
        f"l{at}:\n{line[0]}{f'l{way}' if line[0].endswith('goto ') else ''}\n"
        for at, (line, way) in enumerate(zip(lines, ways))
    )
    head = "*(u64 *)(r10 - 8) = 0\n*(u64 *)(r10 - 16) = 0\n"
    tail = "r4 = *(u64 *)(r10 - 8)\nr5 = *(u64 *)(r10 - 16)\nexit"
    return head + text + f"l{len(lines)}:\n" + tail, lines, ways


def interpreted(lines, ways, registers):
    """What is in r0 to r5 in the end."""
    machine = Machine(registers)
    at = 0
    while at < len(lines):
        _, kind, *rest = lines[at]
        at += 1
        if kind in ("alu", "jump"):
            operator, bits, dst, src, constant = rest
            other = machine.registers[src] if constant is None else constant & MASK
            if kind == "alu":
                machine.alu(operator, bits, dst, other)
            elif machine.jumps(operator, bits, dst, other):
                at = ways[at - 1]
        elif kind == "goto":
            at = ways[at - 1]
        elif kind == "negate":
            machine.registers[rest[1]] = -machine.registers[rest[1]] & (1 << rest[0]) - 1
        elif kind == "load":
            length, dst, place = rest
            machine.registers[dst] = int.from_bytes(machine.stack[place : place + length], "little")
        else:
            length, src, place, constant = rest
            value = machine.registers[src] if constant is None else constant
            machine.stack[place : place + length] = (value & (1 << 8 * length) - 1).to_bytes(length, "little")
    return [*machine.registers, *(int.from_bytes(machine.stack[place : place + 8], "little") for place in (8, 0))]


@given(straight(), st.lists(NUMBERS, min_size=4, max_size=4))
def test_with_numbers_it_is_an_interpreter(made, numbers):
    text, lines, ways = made
    (one,) = ends(text, **{f"r{number}": value for number, value in enumerate(numbers)})
    # what nobody reads any more is let go of, where ways meet
    wanted = interpreted(lines, ways, numbers)
    assert one.registers[0] == wanted[0] and one.registers[4:6] == wanted[4:6]


@given(straight(), st.lists(NUMBERS, min_size=4, max_size=4), st.integers(0, 3))
def test_with_names_one_end_is_where_the_numbers_lead(made, numbers, known):
    text, lines, ways = made
    names = [fresh(f"r{number}") for number in range(4)]
    values = dict(zip(names, numbers))
    given_ = [number if at == known else name for at, (number, name) in enumerate(zip(numbers, names))]
    solver = Solver(values)
    found = [
        end
        for end in ends(text, **{f"r{number}": value for number, value in enumerate(given_)})
        if all(z3.is_true(z3.simplify(solver.truth(fact))) for fact in end.facts)
    ]
    assert len(found) == 1
    wanted = interpreted(lines, ways, numbers)
    for number in (0, 4, 5):
        assert z3.simplify(solver.of(found[0].registers[number])).as_long() == wanted[number]


def test_a_loop_over_numbers():
    assert (
        result("""
        r0 = 0
        r2 = 10
      again:
        r0 += r2
        r2 -= 1
        if r2 != 0 goto again""")
        == 55
    )


# ---- ways ---------------------------------------------------------------------------------------------------------


def test_what_is_not_known_divides():
    x = fresh("x")
    text = "r0 = 1\nif r2 == 7 goto end\nr0 = 2\nexit\nend:\nexit"
    first, other = sorted(ends(text, r2=x), key=lambda end: end.registers[0])
    assert (first.registers[0], other.registers[0]) == (1, 2)
    assert [str(fact.what[:2]) for fact in first.facts] == ["(16, 64)"] and other.decided(
        next(iter(first.facts))
    ) is False
    assert [end.registers[0] for end in ends(text, r2=7)] == [1] and [end.registers[0] for end in ends(text, r2=8)] == [
        2
    ]


def test_what_was_asked_before_does_not_divide_again():
    text = "r0 = 0\nif r2 > 7 goto a\nr0 = 1\na:\nif r2 > 7 goto b\nr0 += 2\nb:\nexit"
    x = fresh("x")

    class Apart(Plain):
        def arrive(self, function, state, pending):
            pending[len(pending)] = state

    assert sorted(end.registers[0] for end in ends(text, Apart(), r2=x)) == [0, 3]


@pytest.mark.parametrize("operator, jumps", [("==", True), ("!=", False)])
def test_what_is_equal_to_a_number_is_that_number(operator, jumps):
    """Also where it was put before."""
    x, read = fresh("x"), "r0 = *(u64 *)(r10 - 8)\nexit\n"
    found = ends(f"r4 = 0\n*(u64 *)(r10 - 8) = r2\nif r2 {operator} 7 goto there\n{read}there:\nr4 = 1\n{read}", r2=x)
    assert {end.registers[4]: end.registers[0] for end in found} == {int(jumps): 7, int(not jumps): x}


def test_ways_without_an_end_are_given_up():
    text = "r0 = 0\nagain:\nr0 += 1\nif r0 != 0 goto again\nexit"
    with pytest.raises(UnprovedError, match="program has too many paths"):
        run(Plain(), program(text), begun(), limit=1000)


# ---- addresses ----------------------------------------------------------------------------------------------------


def test_addresses_move_with_what_is_added():
    assert result("r0 = r10\nr0 += -16\nr2 = 8\nr2 += r0\nr0 = r2\nr0 -= 4") == Pointer(("stack", 0), -12)
    assert result("r2 = r10\nr2 += -16\nr0 = r10\nr0 -= r2") == 16
    assert result("r2 = r10\nr2 += -16\nr2 -= r10\nr0 = r2") == -16 & MASK
    moved = result("r0 = r10\nr0 += r2", r2=fresh("x"))
    assert moved.region == ("stack", 0) and isinstance(moved.offset, Term)


def test_what_is_stored_through_an_address_lies_on_the_stack():
    assert result("r2 = r10\nr2 += -16\n*(u32 *)(r2 + 4) = 77\nr0 = *(u8 *)(r10 - 12)") == 77
    assert result("*(u64 *)(r10 - 8) = r1\nr0 = *(u64 *)(r10 - 8)") == CONTEXT


@pytest.mark.parametrize(
    "text",
    [
        "w0 = w10",
        "r0 = r10\nw0 += 8",
        "r0 = r10\nw0 -= w1",
        "r0 = r10\nr0 *= 2",
        "r0 = r10\nr0 += r10",
        "r0 = r10\nr0 -= r1",
        "r0 = r10\nr0 = -r0",
    ],
)
def test_what_else_is_made_of_an_address_is_a_number_of_which_nothing_is_known(text):
    value = result(text)
    solver = z3.Solver()
    solver.add(Solver().of(value) == 12345678)
    assert isinstance(value, Term) and solver.check() == z3.sat


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("if r10 == 0 goto yes", [2]),
        ("if r10 != 0 goto yes", [1]),
        ("if r10 > 0 goto yes", [1, 2]),
        ("if r10 == 5 goto yes", [1, 2]),
        ("r2 = r10\nr2 += -8\nif r2 == r10 goto yes", [2]),
        ("r2 = r10\nif r2 == r10 goto yes", [1]),
        ("if r1 == r10 goto yes", [1, 2]),
    ],
)
def test_addresses_that_are_compared(text, wanted):
    assert sorted(end.registers[0] for end in ends(text + "\nr0 = 2\nexit\nyes:\nr0 = 1\nexit")) == wanted


def test_memory_that_is_not_ours():
    world = Stacked()
    x = fresh("x")
    (one,) = ends("r0 = *(u16 *)(r2 + 6)\n*(u32 *)(r2 + 0) = 5\nlock *(u64 *)(r2 + 8) += r3\nexit", world, r2=x, r3=1)
    assert isinstance(one.registers[0], Term) and one.registers[0].bits == 16
    assert world.done[0][::2] == ("read", 2) and Solver({x: 100}).of(world.done[0][1]) is not None
    assert z3.simplify(Solver({x: 100}).of(world.done[0][1])).as_long() == 106
    assert world.done[1:] == [
        "program stores 4 bytes at an address in the kernel",
        "program changes 8 bytes at an address in the kernel",
    ]


@pytest.mark.parametrize("text, register", [("fetch {0} += r3", 3), ("xchg {0} = r3", 3), ("cmpxchg {0} = r3", 0)])
def test_what_was_in_the_kernels_memory_is_not_known(text, register):
    (one,) = ends(text.format("*(u32 *)(r2 + 0)") + "\nexit", Stacked(), r0=9, r2=fresh("x"), r3=1)
    found = one.registers[register]
    assert isinstance(found, Term) and found.bits == 32 and {0: 1, 3: 9}[register] == one.registers[3 - register]


# ---- atomic operations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation, old, operand, new, register",
    [
        ("lock {0} += r3", 5, 7, 12, 7),
        ("fetch {0} += r3", 5, 7, 12, 5),
        ("lock {0} &= r3", 6, 3, 2, 3),
        ("fetch {0} |= r3", 6, 1, 7, 6),
        ("fetch {0} ^= r3", 6, 3, 5, 6),
        ("xchg {0} = r3", 5, 7, 7, 5),
        ("cmpxchg {0} = r3", 5, 7, 5, 7),
        ("cmpxchg {0} = r3", 9, 7, 7, 7),
    ],
)
@pytest.mark.parametrize("size", [4, 8])
def test_atomic(operation, old, operand, new, register, size):
    """r0 is 9, which is what cmpxchg looks for."""
    high = 0x1_0000_0000  # of 8 bytes that are not looked at where it is about 4
    (one,) = ends(
        f"*(u64 *)(r10 - 8) = r2\n{operation.format(f'*(u{8 * size} *)(r10 - 8)')}\nr4 = *(u64 *)(r10 - 8)\nexit",
        r0=9,
        r2=old + high * (size == 4),
        r3=operand,
    )
    assert one.registers[4] == new + high * (size == 4) and one.registers[3] == register
    assert one.registers[0] == (old if "cmpxchg" in operation else 9)


# ---- calls --------------------------------------------------------------------------------------------------------

ADDS = "r0 = r1\nr0 += r2\nr6 = 1\n*(u64 *)(r10 - 8) = 1\nexit"


def test_a_call_keeps_the_callers_registers_and_stack():
    text = "r6 = 5\n*(u64 *)(r10 - 8) = 7\nr1 = 20\nr2 = 3\ncall adds\nr3 = r6\nr4 = *(u64 *)(r10 - 8)\nexit"
    (one,) = ends(text, functions={"adds": ADDS})
    assert [one.registers[number] for number in (0, 1, 2, 3, 4, 5)] == [23, None, None, 5, 7, None]


def test_a_callee_writes_where_it_was_told_to():
    (one,) = ends(
        "r1 = r10\nr1 += -8\n*(u64 *)(r10 - 8) = 7\ncall puts\nr0 += 0\nr3 = *(u64 *)(r10 - 8)\nexit",
        functions={"puts": "r0 = *(u64 *)(r1 + 0)\n*(u64 *)(r1 + 0) = 9\n*(u64 *)(r10 - 8) = 1\nexit"},
    )
    assert (one.registers[0], one.registers[3]) == (7, 9)


def test_each_end_of_a_callee_goes_on():
    x = fresh("x")
    (one,) = ends(
        "r1 = r2\ncall asks\nr0 += 10\nexit", functions={"asks": "r0 = 1\nif r1 > 7 goto end\nr0 = 2\nend:\nexit"}, r2=x
    )
    assert [z3.simplify(Solver({x: number}).of(one.registers[0])).as_long() for number in (7, 8)] == [12, 11]


# ---- what it does not know ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, said",
    [
        ("r0 = r3", "a register is read before it is written"),
        ("r0 = 0\nr0 += r3", "a register is read before it is written"),
        ("w0 = w3", "a register is read before it is written"),
        ("r0 = *(u64 *)(r3 + 0)", "a register is read before it is written"),
        ("if r3 == 0 goto end\nend:", "a register is compared before it is written"),
        ("call 1", "helper 1"),
        ("r0 = *(u64 *)(r1 + 0)", r"a read from \('context',\)"),
        ("*(u64 *)(r1 + 0) = 0", r"a write to \('context',\)"),
        ("r2 = 4\n*(u64 *)(r2 + 0) = 0", "program stores 8 bytes at an address in the kernel"),
        ("r0 = 0\nlock *(u16 *)(r10 - 8) += r0", "the executor does not support atomic operations on 2 bytes"),
        ("call adds\nr0 = r1", "a register is read before it is written"),
    ],
)
def test_what_cannot_be_followed_is_told(text, said):
    with pytest.raises(UnprovedError, match=said):
        ends(text + "\nexit", functions={"adds": "r0 = 0\nexit"})


@pytest.mark.parametrize(
    "raw, said",
    [
        ("3711010002000000", "the executor does not support signed division and moves"),
        ("bf21080000000000", "support signed division and moves"),
        ("d701000010000000", "the executor does not support the instruction bswap"),
        ("8520000001000000", "calls a kernel function"),
        ("9921000000000000", "the executor does not support the instruction 0x99"),
    ],
)
def test_instructions_that_it_does_not_know(raw, said):
    """Those of newer compilers."""
    made = assembled(program="r2 = 1\nr0 = 0\nr3 = 1 ll\nexit")
    code = bytes.fromhex(raw) + made.submitted.code[8:]
    with pytest.raises(UnprovedError, match=said):
        run(Plain(), decode(made._replace(submitted=made.submitted._replace(code=code))), begun())
