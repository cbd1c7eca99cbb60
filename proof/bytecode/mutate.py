#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutants of the two functions that decide: guard_verdict, and guard_step, the path automaton's step. Each has one
other instruction. One is killed when it gives something else for some tables, and it is told what; refused when it
reads what is not there, as the kernel's verifier would refuse it; the same when it is proved to give what the
reference gives (exact.py, step.py). None may be left. Most are killed by trying some tables; whoever lives through
that is given to z3.

    mutate.py [--sample N] [--function guard_step] [--kernel 6.1] [--verbose]"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
from decode import ALU, ALU64, CALL, EXIT, JMP, JMP32, JUMP, LDX, STX, Function, Instruction, decode, inner
from decode import function as made
from exact import tried, verdict
from execute import Unproved
from step import stepped
from submitted import KERNELS, kernel_types, programs

_OTHER_OPERATION = {0x50: 0x40, 0x40: 0x50, 0x00: 0x10, 0x10: 0x00, 0xA0: 0x50, 0x60: 0x70, 0x70: 0x60, 0x20: 0x00}
_OTHER_JUMP = {0x10: 0x50, 0x50: 0x10}


def mutants(of: Function) -> Iterator[tuple[str, Function]]:
    for at, each in sorted(of.code.items()):
        for what, other in _others(each):
            code = dict(of.code)
            code[at] = other
            yield f"{at}: {what}", made(of.name, code, of.callees)


def _others(each: Instruction) -> Iterator[tuple[str, Instruction]]:
    if each.kind in (ALU, ALU64):
        other = _OTHER_OPERATION.get(each.operation)
        if other is not None:
            yield f"operation {each.operation:#x} becomes {other:#x}", each._replace(code=each.code & 0x0F | other)
        if not each.by_register:
            yield f"constant {each.constant} becomes {each.constant + 1}", each._replace(constant=each.constant + 1)
    elif each.kind in (JMP, JMP32) and each.code not in (CALL, EXIT, JUMP):
        other = _OTHER_JUMP.get(each.operation)
        if other is not None:
            yield "jumps where it did not", each._replace(code=each.code & 0x0F | other)
    elif each.kind in (LDX, STX):
        yield f"offset {each.offset} becomes {each.offset + 8}", each._replace(offset=each.offset + 8)


TRIES = 20, 1000  # most are killed by the first few


def decided(function: Function) -> list[str]:
    return next(filter(None, (tried(function, each) for each in TRIES)), []) or verdict(function).differs


DECIDING: dict[str, Callable[[Function], list[str]]] = {
    "guard_verdict": decided,
    "guard_step": lambda function: stepped(function).differs,
}


class Chosen(NamedTuple):
    function: str
    kernel: str
    sample: int | None
    verbose: bool


def look_at(chosen: Chosen) -> bool:
    """Prints what becomes of the mutants; False: one is left, or it is not as the reference has it even unchanged."""
    decoded = (decode(each) for each in programs(kernel_types(chosen.kernel)).values())
    function = next(found for found in (inner(each, chosen.function) for each in decoded) if found is not None)
    differences, started = DECIDING[chosen.function], time.monotonic()
    own, every = differences(function), list(mutants(function))
    if own:
        print(f"{function.name} is not as the reference has it: {own[0]}")
        return False
    count: Counter[str] = Counter()
    taken = every if chosen.sample is None else random.Random(1).sample(every, min(chosen.sample, len(every)))
    for what, mutant in taken:
        try:
            differs = differences(mutant)
            result = "killed" if differs else "the same"
        except Unproved as error:
            differs, result = [str(error)], "left" if "z3" in str(error) else "refused"
        count[result] += 1
        said = differs[0][:160] if differs else "proved equal to the reference"
        if chosen.verbose or result in ("the same", "left"):
            print(f"{function.name} {what}: {result}: {said}", flush=True)
    print(
        f"{len(taken)} of {len(every)} mutants of {function.name}: "
        + ", ".join(f"{count[each]} {each}" for each in ("killed", "refused", "the same", "left"))
        + f"; {time.monotonic() - started:.0f} s",
        flush=True,
    )
    return not count["left"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutants of what decides.")
    parser.add_argument("--sample", type=int, help="so many of each function, and not every one")
    parser.add_argument("--function", action="append", choices=list(DECIDING))
    parser.add_argument("--kernel", default=KERNELS[0], choices=KERNELS)
    parser.add_argument("--verbose", action="store_true", help="also what kills a mutant")
    options = parser.parse_args()
    tasks = [Chosen(name, options.kernel, options.sample, options.verbose) for name in options.function or DECIDING]
    with multiprocessing.Pool(2) as pool:
        return 0 if all(pool.map(look_at, tasks, 1)) else 1


if __name__ == "__main__":
    sys.exit(main())
