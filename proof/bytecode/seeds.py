#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the prover finds mistakes. Each mistake below is made in a program's instructions, one at a time. The
property that it violates must be proved without the mistake and not with it."""

from __future__ import annotations

import argparse
import struct
import sys
from pathlib import Path
from typing import Callable, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from btf import hooks
from decode import decode, inner
from effects import VERDICT
from exact import verdict
from execute import UnprovedError
from kernels import KERNELS, kernel_types
from properties import NAMES
from prove import prove, prover
from submitted import OBJECT, Program, programs

SIZE = 8  # bytes of an instruction

MOVE, MOVE_64, STORE = 0xB4, 0xB7, 0x7B
LOAD_32 = 0x61
AND, OR, XOR = 0x5F, 0x4F, 0xA7
NEVER = 0x5E  # jumps if r0 != r0


class Raw(NamedTuple):
    """An instruction as it is encoded."""

    code: int
    registers: int
    offset: int
    constant: int


class Seed(NamedTuple):
    """A mistake. ``change`` returns the instruction that replaces one in ``function``; None: it stays. Only one is
    replaced, after ``skip`` others that it could replace."""

    property: str
    what: str
    program: str
    function: str
    change: Callable[[Raw], Raw | None]
    skip: int = 0


def _constant(codes: tuple[int, ...], old: int, new: int) -> Callable[[Raw], Raw | None]:
    return lambda raw: raw._replace(constant=new) if raw.code in codes and raw.constant == old else None


def _code(old: int, new: int) -> Callable[[Raw], Raw | None]:
    return lambda raw: raw._replace(code=new) if raw.code == old else None


def _stored(raw: Raw) -> Raw | None:
    """A store to the stack becomes a store to the address in r7, the hook's argument."""
    if raw.code != STORE or raw.registers & 15 != 10:
        return None
    return raw._replace(registers=raw.registers & 0xF0 | 7, offset=0)


# those of `verdict` first, because z3 gives up on them after much other work
SEEDS = (
    Seed(
        "verdict",
        "a rule in audit mode denies",
        "sb_remount",
        VERDICT,
        lambda raw: raw._replace(constant=0) if raw.code == XOR and raw.constant == -1 else None,
    ),
    Seed("verdict", "rules that do not cover the object count too", "sb_remount", VERDICT, _code(AND, OR)),
    Seed(
        "returns",
        "1 instead of -EPERM",
        "bprm_creds_for_exec",
        "bprm_creds_for_exec",
        _constant((MOVE, MOVE_64), -1, 1),
    ),
    Seed("returns", "-1 becomes -2", "key_permission", "key_permission", _constant((MOVE, MOVE_64), -1, -2)),
    Seed("writes", "a store to the hook's argument", "inode_free_security", "inode_free_security", _stored),
    Seed(
        "audit", "a verdict to audit denies", "sb_remount", "refuse_action", _constant((0x15, 0x16, 0x55, 0x56), 2, 1)
    ),
    Seed(
        "binding",
        "rules that could not be computed are used",
        "sb_remount",
        "compute_subject",
        lambda raw: raw._replace(code=NEVER) if raw == Raw(0x56, 0, raw.offset, 0) else None,
        skip=1,  # the first such jump asks whether a policy is active
    ),
    Seed(
        "once",
        "the slot is read at the deadline's offset",
        "sb_remount",
        "sb_remount",
        lambda raw: raw._replace(offset=-16) if raw.code == LOAD_32 and raw.registers >> 4 not in (1, 10) else None,
    ),
    Seed("closed", "a verdict to deny allows", "sb_remount", "sb_remount", _constant((MOVE, MOVE_64), -1, 0)),
)


def seeded(program: Program, seed: Seed) -> Program:
    """The program with the mistake. Raises ValueError when the program has nothing that the mistake can change."""
    function = next(function for function in program.functions if function.name == seed.function)
    code, left = bytearray(program.submitted.code), seed.skip
    for at in range(function.start, function.start + function.size):
        raw = Raw(*struct.unpack_from("<BBhi", code, at * SIZE))
        changed = seed.change(raw)
        if changed is None or changed == raw:
            continue
        if left:
            left -= 1
            continue
        struct.pack_into("<BBhi", code, at * SIZE, *changed)
        return Program(program.submitted._replace(code=bytes(code)), program.functions)
    raise ValueError(f"the mistake '{seed.what}' changes nothing in {seed.function}")


def _compare_verdicts(program: Program, wrong: Program) -> tuple[bool, list[str]]:
    """Whether guard_verdict is right without the mistake, and what is wrong with it."""
    try:
        functions = [inner(decode(variant), VERDICT) for variant in (program, wrong)]
        right, mistaken = ([] if function is None else verdict(function).differs for function in functions)
    except UnprovedError as error:
        return False, [str(error)]
    return not right, mistaken


def main() -> int:
    """Exit status 1 when a mistake is not found."""
    parser = argparse.ArgumentParser(description="Makes mistakes in programs, which have to be found.")
    parser.add_argument("--kernel", default=KERNELS[0], choices=KERNELS)
    options = parser.parse_args()
    types, data = kernel_types(options.kernel), OBJECT.read_bytes()
    found, counts = programs(types, data), hooks(types.btf)
    good, known = True, prover(data)
    for seed in SEEDS:
        program = found[seed.program]
        wrong = seeded(program, seed)
        lines: list[str] = []
        if seed.property == "verdict":
            holds, lines = _compare_verdicts(program, wrong)
        else:
            arguments = counts[program.submitted.hook]
            before, after = prove(known, program, arguments), prove(known, wrong, arguments)
            holds = seed.property in before.properties
            if seed.property in after.reasons and len(after.reasons) < len(NAMES):  # otherwise it could not be executed
                lines = [after.reasons[seed.property], *after.shown.get(seed.property, ())]
        ok = holds and bool(lines)
        good &= ok
        result = f"found: {lines[0]}" if ok else "NOT FOUND" if holds else "not proved without the mistake either"
        print(f"{seed.property:8} {seed.program}: {seed.what}: {result}", flush=True)
        for line in lines[1:8]:
            print(f"           {line}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
