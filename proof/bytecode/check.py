#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the executor with a kernel. Random programs of all kinds of instruction that the object has are run by a
kernel in a guest, and by the executor: with numbers, and with terms that the numbers are inserted into at the end.
Prints each difference.

    check.py [--programs N] [--kernel 6.1] [--seed N]"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import z3
from arithmetic import Solver, Term, fresh
from decode import (
    ALU,
    ALU64,
    ATOMIC,
    CALL,
    EXIT,
    JMP,
    JMP32,
    LDX,
    STACK,
    STX,
    WIDE,
    Function,
    Instruction,
    function,
    instruction,
)
from execute import run
from plain import Plain
from state import Pointer, State

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "guest"))
from harness import boot
from kernels import KERNELS, kernel_types
from submitted import programs

STACK_BYTES = 64  # of the stack that the programs use
FREE = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
MASK64 = (1 << 64) - 1
_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 1 << 63, MASK64)
_SIZES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_ATOMIC = (0x00, 0x01, 0x40, 0x41, 0x50, 0x51, 0xA0, 0xA1, 0xE1, 0xF1)


class Generated(NamedTuple):
    """A random program. ``inputs``: the initial values of r0 to r9."""

    code: bytes
    inputs: tuple[int, ...]


def pack(code: int, dst: int = 0, src: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    """One instruction."""
    return struct.pack("<BBhI", code, dst | src << 4, offset, constant & 0xFFFFFFFF)


def wide(dst: int, value: int) -> bytes:
    """A load of 64 bits, which takes two instructions."""
    return pack(WIDE, dst, 0, 0, value & 0xFFFFFFFF) + pack(0, 0, 0, 0, value >> 32)


def number(rng: random.Random) -> int:
    """A random number of 64 bits, often near an edge."""
    kind = rng.random()
    if kind < 0.4:
        return (rng.choice(_EDGES) + rng.choice((-1, 0, 0, 1))) & MASK64
    return rng.getrandbits(rng.choice((4, 8, 16, 31, 32, 33, 63, 64)))


def generated(rng: random.Random, length: int, kinds: list[int]) -> Generated:
    """A program that fills registers and stack, runs random instructions and combines everything into r0."""
    inputs = tuple(number(rng) for _ in FREE)
    head = [wide(register, value) for register, value in zip(FREE, inputs)]
    head += [pack(0x7B, STACK, register, -8 * (register + 1)) for register in range(STACK_BYTES // 8)]
    body: list[bytes] = []
    while len(body) < length:
        body.extend(_some(rng, rng.choice(kinds), length - len(body)))
    body = body[:length]
    tail = [pack(0x18 + 0x61, 1, STACK, -8 * (word + 1)) + _mix(0, 1) for word in range(STACK_BYTES // 8)]
    whole = [_mix(0, register) for register in FREE[1:]] + tail
    folded = [pack(0xBF, 1, 0), pack(0x77, 1, 0, 0, 32), pack(0xAF, 0, 1)]
    inner = rng.random() < 0.3
    if inner:
        # a function that uses r6 to r9, which have to keep their values in the caller
        own = [
            pack(0xBF, 0, 1),
            *(pack(0xBF, register, rng.randrange(1, 6)) for register in (6, 7, 8, 9)),
            pack(0x7B, STACK, 2, -8),
            pack(rng.choice((0x0F, 0xAF, 0x1F)), 0, 3),
            pack(0x79, 4, STACK, -8),
            pack(0x0F, 0, 4),
            pack(EXIT),
        ]
        after = [pack(0xB7, register, 0, 0, register) for register in (1, 2, 3, 4, 5)]
        rest = b"".join(after + whole + folded + [pack(EXIT)])
        call = pack(CALL, 0, 1, 0, len(rest) // 8)
        return Generated(b"".join(head + body) + call + rest + b"".join(own), inputs)
    return Generated(b"".join(head + body + whole + folded + [pack(EXIT)]), inputs)


def _mix(into: int, value: int) -> bytes:
    """Instructions for into = into * odd + value, which loses no bit."""
    return pack(0x27, into, 0, 0, 0x2545F491) + pack(0x0F, into, value)


def _some(rng: random.Random, code: int, left: int) -> list[bytes]:
    """One random instruction with this code, such as the kernel accepts. ``left``: how many may follow."""
    kind, by_register = code & 7, bool(code & 8)
    dst, src = rng.choice(FREE), rng.choice(FREE)
    if kind in (ALU, ALU64):
        return [_arithmetic(rng, code, dst, src)]
    if kind in (JMP, JMP32):
        return [
            pack(
                code,
                dst,
                src if by_register else 0,
                rng.randrange(0, min(4, left)) if left else 0,
                0 if by_register else number(rng),
            )
        ]
    size = {0x18: 8, 0x00: 4, 0x08: 2, 0x10: 1}[code & 0x18]
    offset = -size * rng.randrange(1, STACK_BYTES // size + 1)
    if kind == LDX:
        return [pack(code, dst, STACK, offset)]
    if kind == STX:
        return [pack(code, STACK, src, offset, rng.choice(_ATOMIC) if code & 0xE0 == ATOMIC else 0)]
    return [pack(code, STACK, 0, offset, number(rng))]


def _arithmetic(rng: random.Random, code: int, dst: int, src: int) -> bytes:
    operation, bits = code & 0xF0, 64 if code & 7 == ALU64 else 32
    if operation == 0xD0:  # BPF_END
        return pack(code, dst, 0, 0, rng.choice((16, 32, 64)))
    if code & 8:
        return pack(code, dst, src)
    constant = number(rng) & 0xFFFFFFFF
    if operation in (0x60, 0x70, 0xC0):  # shifts
        constant %= bits
    if operation in (0x30, 0x90):  # division
        constant |= 1
    return pack(code, dst, 0, 0, 0 if operation == 0x80 else constant)


def kinds_of(kernels: list[str]) -> list[int]:
    """The codes of the object's instructions, without calls and jumps; also those of the other width and stores of
    numbers, which a compiler may use instead."""
    codes: set[int] = {
        0x62,
        0x6A,
        0x72,
        0x7A,
        0x07,
        0x0F,
        0x17,
        0x1F,
        0x24,
        0x27,
        0x2C,
        0x34,
        0x37,
        0x3C,
        0x3F,
        0x94,
        0x97,
        0x9C,
        0x9F,
        0x87,
        0x84,
        0xC4,
        0xC7,
        0xCC,
        0xCF,
        0x64,
        0x67,
        0x6C,
        0x6F,
        0x74,
        0x77,
        0x7C,
        0x7F,
        0xD4,
        0xDC,
        0xC3,
        0xDB,
    }
    for kernel in kernels:
        for program in programs(kernel_types(kernel)).values():
            codes |= {raw[0] for raw in program.instructions}
    return sorted(codes - {0x00, 0x05, WIDE, CALL, EXIT})


# ---- the executor -------------------------------------------------------------------------------------------------


def functions(code: bytes) -> Function:
    """Decodes a random program."""
    raw = [code[at : at + 8] for at in range(0, len(code), 8)]
    decoded: dict[int, Instruction] = {}
    at = 0
    while at < len(raw):
        decoded[at] = instruction(raw[at], raw[at + 1] if raw[at][0] == WIDE else b"", at, {}, {})
        at += 2 if raw[at][0] == WIDE else 1
    called = {at: insn.callee for at, insn in decoded.items() if insn.callee is not None}
    callees: dict[int, Function] = {}
    for at, start in called.items():
        inner = {place - start: insn for place, insn in decoded.items() if place >= start}
        callees[at] = function("inner", inner, {})
        decoded = {place: insn for place, insn in decoded.items() if place < start}
    return function("program", decoded, callees)


def begun() -> State:
    """The state at the start of a program."""
    state = State([None] * 11)
    state.registers[1] = Pointer(("context",), 0)
    state.registers[STACK] = Pointer(("stack", 0), 0)
    return state


def by_numbers(program: Generated) -> int:
    """The executor's result with numbers."""
    ends = run(Plain(), functions(program.code), begun())
    assert len(ends) == 1 and isinstance(ends[0].registers[0], int)
    return ends[0].registers[0] & 0xFFFFFFFF


class Symbolic(Plain):
    """A world in which the first ten loads of a number return terms."""

    def __init__(self) -> None:
        self.inputs = [fresh(f"r{register}") for register in FREE]

    def constant(self, state: State, insn: Instruction) -> Term | int:
        """A term for each of the first loads."""
        return self.inputs[insn.dst] if state.at < 2 * len(FREE) else insn.constant


def by_terms(program: Generated) -> int:
    """The executor's result with terms, into which the numbers are then inserted."""
    world = Symbolic()
    ends = run(world, functions(program.code), begun())
    solver = Solver(dict(zip(world.inputs, program.inputs)))
    results: list[int] = []
    for end in ends:
        if all(z3.is_true(z3.simplify(solver.truth(fact))) for fact in end.facts):
            result = end.registers[0]
            assert isinstance(result, (int, Term))
            results.append(z3.simplify(solver.of(result)).as_long() & 0xFFFFFFFF)
    assert len(results) == 1, f"{len(results)} of {len(ends)} ends are reached"
    return results[0]


# ---- the kernel ---------------------------------------------------------------------------------------------------


def by_kernel(kernel: str, generated_programs: list[Generated], seconds: int) -> list[str]:
    """The kernel's results, one line per program. Raises RuntimeError when the guest fails."""
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch) / "programs"
        listed.write_text("".join(program.code.hex() + "\n" for program in generated_programs), encoding="ascii")
        script = str(Path(__file__).with_name("guest.py"))
        result = boot.boot(kernel, [script, "/guest/programs"], extra=[listed], seconds=seconds)
    if result.status != 0:
        raise RuntimeError(
            f"the guest with {kernel} ended with {result.status}: {result.output[-2000:]}{result.console[-2000:]}"
        )
    lines: list[str] = result.output.splitlines()
    return lines


def main() -> int:
    """Exit status 1 when a result differs, or the kernel did not run enough programs."""
    parser = argparse.ArgumentParser(description="Compares the executor with a kernel.")
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--length", type=int, default=60)
    parser.add_argument("--kernel", action="append", choices=KERNELS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kernels = options.kernel or ["6.1"]
    kinds = kinds_of(kernels)
    generated_programs = [generated(rng, options.length, kinds) for _ in range(options.programs)]
    started = time.monotonic()
    wanted = [(by_numbers(program), by_terms(program)) for program in generated_programs]
    print(
        f"{len(generated_programs)} random programs with {len(kinds)} kinds of instruction, executed with numbers and "
        f"with terms in {time.monotonic() - started:.0f} s",
        flush=True,
    )
    mismatches = 0
    for kernel in kernels:
        started = time.monotonic()
        results = by_kernel(kernel, generated_programs, options.seconds)
        if len(results) != len(generated_programs):
            raise RuntimeError(f"the guest printed {len(results)} results for {len(generated_programs)} programs")
        count: Counter[str] = Counter()
        for program, result, expected in zip(generated_programs, results, wanted):
            if not result.isdigit():
                count["refused"] += 1
                if count["refused"] <= 3:
                    print(f"  {kernel}: {result}")
                continue
            count["run"] += 1
            for how, value in zip(("numbers", "terms"), expected):
                if int(result) != value:
                    mismatches += 1
                    code = program.code.hex()
                    print(f"  {kernel} returns {result}, the executor with {how} {value}: {code}")
        print(
            f"{kernel}: {count['run']} programs run, {count['refused']} refused, mismatches {mismatches} "
            f"({time.monotonic() - started:.0f} s)",
            flush=True,
        )
        if count["run"] < len(generated_programs) * 0.95:
            print("  the kernel refused too many programs")
            return 1
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
