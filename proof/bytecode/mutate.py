#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes one instruction at a time in the two functions that decide: guard_verdict, and guard_step, the path
automaton's step. A mutant is

killed      if it returns something else for some tables;
refused     if it reads what does not exist, as the kernel's verifier would refuse it;
equivalent  if it is proved to return the same as the reference (exact.py, step.py);
undecided   otherwise, which is a failure.

Most mutants are killed by trying some tables; surviving mutants are passed to z3.

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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from decode import ALU, ALU64, CALL, EXIT, JMP, JMP32, JUMP, LDX, STX, Function, Instruction, decode, inner
from decode import function as made
from effects import STEP, VERDICT
from exact import tried, verdict
from execute import UnprovedError
from kernels import KERNELS, kernel_types
from step import stepped
from submitted import programs

_OTHER_OPERATION = {0x50: 0x40, 0x40: 0x50, 0x00: 0x10, 0x10: 0x00, 0xA0: 0x50, 0x60: 0x70, 0x70: 0x60, 0x20: 0x00}
_OTHER_JUMP = {0x10: 0x50, 0x50: 0x10}


def mutants(of: Function) -> Iterator[tuple[str, Function]]:
    """Each mutant of the function, with a description of the change."""
    for at, insn in sorted(of.code.items()):
        for what, other in _others(insn):
            code = dict(of.code)
            code[at] = other
            yield f"{at}: {what}", made(of.name, code, of.callees)


def _others(insn: Instruction) -> Iterator[tuple[str, Instruction]]:
    if insn.kind in (ALU, ALU64):
        other = _OTHER_OPERATION.get(insn.operation)
        if other is not None:
            yield f"operation {insn.operation:#x} becomes {other:#x}", insn._replace(code=insn.code & 0x0F | other)
        if not insn.by_register:
            yield f"constant {insn.constant} becomes {insn.constant + 1}", insn._replace(constant=insn.constant + 1)
    elif insn.kind in (JMP, JMP32) and insn.code not in (CALL, EXIT, JUMP):
        other = _OTHER_JUMP.get(insn.operation)
        if other is not None:
            yield "jumps where it did not", insn._replace(code=insn.code & 0x0F | other)
    elif insn.kind in (LDX, STX):
        yield f"offset {insn.offset} becomes {insn.offset + 8}", insn._replace(offset=insn.offset + 8)


TRIES = 20, 1000  # most are killed by the first few


def decided(function: Function) -> list[str]:
    """How a guard_verdict differs from its reference. Raises UnprovedError when z3 cannot decide."""
    return next(filter(None, (tried(function, times) for times in TRIES)), []) or verdict(function).differs


DECIDING: dict[str, Callable[[Function], list[str]]] = {
    VERDICT: decided,
    STEP: lambda function: stepped(function).differs,
}


class Chosen(NamedTuple):
    """The mutants to examine. ``sample``: how many of them; None: all."""

    function: str
    kernel: str
    sample: int | None
    verbose: bool


def look_at(chosen: Chosen) -> bool:
    """Prints the results. False: a mutant is undecided, or the unchanged function differs from the reference."""
    decoded = (decode(program) for program in programs(kernel_types(chosen.kernel)).values())
    function = next(filter(None, (inner(program, chosen.function) for program in decoded)))
    differences, started = DECIDING[chosen.function], time.monotonic()
    own, every = differences(function), list(mutants(function))
    if own:
        print(f"{function.name} differs from the reference: {own[0]}")
        return False
    count: Counter[str] = Counter()
    taken = every if chosen.sample is None else random.Random(1).sample(every, min(chosen.sample, len(every)))
    for what, mutant in taken:
        try:
            differs = differences(mutant)
            result = "killed" if differs else "equivalent"
        except UnprovedError as error:
            differs, result = [str(error)], "undecided" if "z3" in str(error) else "refused"
        count[result] += 1
        reason = differs[0][:160] if differs else "proved equal to the reference"
        if chosen.verbose or result in ("equivalent", "undecided"):
            print(f"{function.name} {what}: {result}: {reason}", flush=True)
    print(
        f"{len(taken)} of {len(every)} mutants of {function.name}: "
        + ", ".join(f"{count[result]} {result}" for result in ("killed", "refused", "equivalent", "undecided"))
        + f"; {time.monotonic() - started:.0f} s",
        flush=True,
    )
    return not count["undecided"]


def main() -> int:
    """Exit status 1 when a mutant is undecided."""
    parser = argparse.ArgumentParser(description="Mutants of guard_verdict and guard_step.")
    parser.add_argument("--sample", type=int, help="how many mutants of insn function; default: all")
    parser.add_argument("--function", action="append", choices=list(DECIDING))
    parser.add_argument("--kernel", default=KERNELS[0], choices=KERNELS)
    parser.add_argument("--verbose", action="store_true", help="print insn mutant")
    options = parser.parse_args()
    tasks = [Chosen(name, options.kernel, options.sample, options.verbose) for name in options.function or DECIDING]
    with multiprocessing.Pool(2) as pool:
        return 0 if all(pool.map(look_at, tasks, 1)) else 1


if __name__ == "__main__":
    sys.exit(main())
