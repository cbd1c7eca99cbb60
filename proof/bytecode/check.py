#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the executor right? Random programs of all kinds of instruction that the object has are run by a kernel, in a
guest, and by the executor: with numbers, and with terms in which the numbers are put at the end. Prints what differs.

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
from decode import CALL, EXIT, STACK, WIDE, Function, Instruction, function, instruction
from execute import run
from plain import Plain
from state import Pointer, State

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "proof"), str(ROOT / "tests" / "guest")]
from harness import boot
from submitted import KERNELS, kernel_types, programs

ROOM = 64  # bytes of the stack that are used
FREE = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
MASK64 = (1 << 64) - 1
_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 1 << 63, MASK64)
_SIZES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_ATOMIC = (0x00, 0x01, 0x40, 0x41, 0x50, 0x51, 0xA0, 0xA1, 0xE1, 0xF1)


class Made(NamedTuple):
    code: bytes
    inputs: tuple[int, ...]  # what r0 to r9 begin with


def pack(code: int, dst: int = 0, src: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    return struct.pack("<BBhI", code, dst | src << 4, offset, constant & 0xFFFFFFFF)


def wide(dst: int, value: int) -> bytes:
    return pack(WIDE, dst, 0, 0, value & 0xFFFFFFFF) + pack(0, 0, 0, 0, value >> 32)


def number(rng: random.Random) -> int:
    kind = rng.random()
    if kind < 0.4:
        return (rng.choice(_EDGES) + rng.choice((-1, 0, 0, 1))) & MASK64
    return rng.getrandbits(rng.choice((4, 8, 16, 31, 32, 33, 63, 64)))


def made(rng: random.Random, length: int, kinds: list[int]) -> Made:
    """A program: registers and stack are filled, random instructions follow, and all of it goes into r0."""
    inputs = tuple(number(rng) for _each in FREE)
    head = [wide(register, value) for register, value in zip(FREE, inputs)]
    head += [pack(0x7B, STACK, register, -8 * (register + 1)) for register in range(ROOM // 8)]
    body: list[bytes] = []
    while len(body) < length:
        body.extend(_some(rng, rng.choice(kinds), length - len(body)))
    body = body[:length]
    tail = [pack(0x18 + 0x61, 1, STACK, -8 * (word + 1)) + _mix(0, 1) for word in range(ROOM // 8)]
    whole = [_mix(0, register) for register in FREE[1:]] + tail
    folded = [pack(0xBF, 1, 0), pack(0x77, 1, 0, 0, 32), pack(0xAF, 0, 1)]
    inner = rng.random() < 0.3
    if inner:
        # a function of one's own, in which the callers' registers 6 to 9 are to stay as they are
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
        return Made(b"".join(head + body) + call + rest + b"".join(own), inputs)
    return Made(b"".join(head + body + whole + folded + [pack(EXIT)]), inputs)


def _mix(into: int, value: int) -> bytes:
    """into = into * odd + value: no bit is lost."""
    return pack(0x27, into, 0, 0, 0x2545F491) + pack(0x0F, into, value)


def _some(rng: random.Random, code: int, left: int) -> list[bytes]:
    """One instruction of this code, such as the kernel takes."""
    kind, operation, by_register = code & 7, code & 0xF0, bool(code & 8)
    dst, src = rng.choice(FREE), rng.choice(FREE)
    if kind in (4, 7):
        bits = 64 if kind == 7 else 32
        if operation == 0xD0:
            return [pack(code, dst, 0, 0, rng.choice((16, 32, 64)))]
        if by_register:
            return [pack(code, dst, src)]
        constant = number(rng) & 0xFFFFFFFF
        if operation in (0x60, 0x70, 0xC0):
            constant %= bits
        if operation in (0x30, 0x90):
            constant |= 1
        return [pack(code, dst, 0, 0, 0 if operation == 0x80 else constant)]
    if kind in (5, 6):
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
    offset = -size * rng.randrange(1, ROOM // size + 1)
    if kind == 1:
        return [pack(code, dst, STACK, offset)]
    if kind == 3 and code & 0xE0 == 0xC0:
        return [pack(code, STACK, src, offset, rng.choice(_ATOMIC))]
    if kind == 3:
        return [pack(code, STACK, src, offset)]
    return [pack(code, STACK, 0, offset, number(rng))]


def kinds_of(kernels: list[str]) -> list[int]:
    """The codes that the object has, those of a call and the like apart; those of the other width and of stores of
    numbers, which a compiler may take instead, besides."""
    found: set[int] = {
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
        for each in programs(kernel_types(kernel)).values():
            found |= {raw[0] for raw in each.instructions}
    return sorted(found - {0x00, 0x05, WIDE, CALL, EXIT})


# ---- the executor -------------------------------------------------------------------------------------------------


def functions(code: bytes) -> Function:
    raw = [code[at : at + 8] for at in range(0, len(code), 8)]
    decoded: dict[int, Instruction] = {}
    at = 0
    while at < len(raw):
        decoded[at] = instruction(raw[at], raw[at + 1] if raw[at][0] == WIDE else b"", at, {}, {})
        at += 2 if raw[at][0] == WIDE else 1
    called = {at: each.callee for at, each in decoded.items() if each.callee is not None}
    callees: dict[int, Function] = {}
    for at, start in called.items():
        inner = {place - start: each for place, each in decoded.items() if place >= start}
        callees[at] = function("inner", inner, {})
        decoded = {place: each for place, each in decoded.items() if place < start}
    return function("program", decoded, callees)


def begun() -> State:
    state = State([None] * 11)
    state.registers[1] = Pointer(("context",), 0)
    state.registers[STACK] = Pointer(("stack", 0), 0)
    return state


def by_numbers(one: Made) -> int:
    ends = run(Plain(), functions(one.code), begun())
    assert len(ends) == 1 and isinstance(ends[0].registers[0], int)
    return ends[0].registers[0] & 0xFFFFFFFF


class Symbolic(Plain):
    """The first ten loads of a number are of terms instead."""

    def __init__(self) -> None:
        self.inputs = [fresh(f"r{register}") for register in FREE]

    def constant(self, state: State, each: Instruction) -> Term | int:
        if state.at < 2 * len(FREE):
            return self.inputs[each.dst]
        return each.constant


def by_terms(one: Made) -> int:
    world = Symbolic()
    ends = run(world, functions(one.code), begun())
    solver = Solver(dict(zip(world.inputs, one.inputs)))
    found = []
    for end in ends:
        if all(z3.is_true(z3.simplify(solver.truth(fact))) for fact in end.facts):
            found.append(z3.simplify(solver.of(end.registers[0])).as_long() & 0xFFFFFFFF)
    assert len(found) == 1, f"{len(found)} of {len(ends)} ends are reached"
    return found[0]


# ---- the kernel ---------------------------------------------------------------------------------------------------


def by_kernel(kernel: str, all_of_them: list[Made], seconds: int) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch) / "programs"
        listed.write_text("".join(each.code.hex() + "\n" for each in all_of_them), encoding="ascii")
        script = str(Path(__file__).with_name("guest.py"))
        result = boot.boot(kernel, [script, "/guest/programs"], extra=[listed], seconds=seconds)
    if result.status != 0:
        raise RuntimeError(
            f"the guest with {kernel} ended with {result.status}: {result.output[-2000:]}{result.console[-2000:]}"
        )
    return result.output.splitlines()


def main() -> int:
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
    all_of_them = [made(rng, options.length, kinds) for _each in range(options.programs)]
    started = time.monotonic()
    wanted = [(by_numbers(each), by_terms(each)) for each in all_of_them]
    print(
        f"{len(all_of_them)} random programs with {len(kinds)} kinds of instruction, executed with numbers and with "
        f"terms in {time.monotonic() - started:.0f} s",
        flush=True,
    )
    mismatches = 0
    for kernel in kernels:
        started = time.monotonic()
        said = by_kernel(kernel, all_of_them, options.seconds)
        if len(said) != len(all_of_them):
            raise RuntimeError(f"the guest has given {len(said)} results for {len(all_of_them)} programs")
        count: Counter[str] = Counter()
        for one, result, expected in zip(all_of_them, said, wanted):
            if not result.isdigit():
                count["refused"] += 1
                if count["refused"] <= 3:
                    print(f"  {kernel}: {result}")
                continue
            count["run"] += 1
            for how, value in zip(("numbers", "terms"), expected):
                if int(result) != value:
                    mismatches += 1
                    print(f"  {kernel} gives {result}, the executor with {how} {value}: {one.code.hex()}")
        print(
            f"{kernel}: {count['run']} programs run, {count['refused']} refused, mismatches {mismatches} "
            f"({time.monotonic() - started:.0f} s)",
            flush=True,
        )
        if count["run"] < len(all_of_them) * 0.95:
            print("  too few programs were run")
            return 1
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
