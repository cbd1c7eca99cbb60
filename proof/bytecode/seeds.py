#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Would a mistake be found? Each of these is put into a program's instructions, one at a time; what it goes against
must be proved without it and not with it. Prints what was found."""

from __future__ import annotations

import argparse
import struct
import sys
from pathlib import Path
from typing import Callable, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
from btf import hooks
from decode import decode, inner
from exact import verdict
from execute import Unproved
from prove import NAMES, prove, prover
from submitted import KERNELS, OBJECT, SIZE, Program, kernel_types, programs

MOVE, MOVE_64, STORE = 0xB4, 0xB7, 0x7B
LOAD_32 = 0x61
AND, OR, XOR = 0x5F, 0x4F, 0xA7
NEVER = 0x5E  # where r0 is not what it is


class Raw(NamedTuple):
    code: int
    registers: int
    offset: int
    constant: int


class Seed(NamedTuple):
    """``change``: gives the instruction that takes the place of one in ``function``, or None where it stays. The first
    that is changed is the mistake; ``skip``: as many before it are left."""

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
    """What goes to the stack goes to where r7 points: what the hook was given."""
    if raw.code != STORE or raw.registers & 15 != 10:
        return None
    return raw._replace(registers=raw.registers & 0xF0 | 7, offset=0)


# those of `verdict` first: a solver that has done much else gives up on them
SEEDS = (
    Seed(
        "verdict",
        "a rule that only reports denies",
        "sb_remount",
        "guard_verdict",
        lambda raw: raw._replace(constant=0) if raw.code == XOR and raw.constant == -1 else None,
    ),
    Seed("verdict", "what covers an object is not looked at", "sb_remount", "guard_verdict", _code(AND, OR)),
    Seed("returns", "1 for a denial", "bprm_creds_for_exec", "bprm_creds_for_exec", _constant((MOVE, MOVE_64), -1, 1)),
    Seed("returns", "-1 becomes -2", "key_permission", "key_permission", _constant((MOVE, MOVE_64), -1, -2)),
    Seed("writes", "a store into what the hook was given", "inode_free_security", "inode_free_security", _stored),
    Seed(
        "audit", "a verdict to audit denies", "sb_remount", "refuse_action", _constant((0x15, 0x16, 0x55, 0x56), 2, 1)
    ),
    Seed(
        "binding",
        "rules that could not be worked out are taken as they are",
        "sb_remount",
        "compute_subject",
        lambda raw: raw._replace(code=NEVER) if raw == Raw(0x56, 0, raw.offset, 0) else None,
    ),
    Seed(
        "once",
        "the slot is read where the deadline was",
        "sb_remount",
        "sb_remount",
        lambda raw: raw._replace(offset=-16) if raw.code == LOAD_32 and raw.registers >> 4 not in (1, 10) else None,
    ),
    Seed("closed", "a verdict to deny allows", "sb_remount", "sb_remount", _constant((MOVE, MOVE_64), -1, 0)),
)


def seeded(program: Program, seed: Seed) -> Program:
    """Raises ValueError when there is nothing to change any more."""
    function = next(each for each in program.functions if each.name == seed.function)
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
    raise ValueError(f"the mistake '{seed.what}' is no longer a change")


def main() -> int:
    parser = argparse.ArgumentParser(description="Puts mistakes into programs, which have to be found.")
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
            try:
                answers = [verdict(inner(decode(each), "guard_verdict")).differs for each in (program, wrong)]
                holds, lines = not answers[0], answers[1]
            except Unproved as error:
                holds, lines = False, [str(error)]
        else:
            arguments = counts[program.submitted.hook]
            before, after = prove(known, program, arguments), prove(known, wrong, arguments)
            holds = seed.property in before.properties
            if seed.property in after.reasons and len(after.reasons) < len(NAMES):  # else it could not be followed
                lines = [after.reasons[seed.property], *after.shown.get(seed.property, ())]
        ok = holds and bool(lines)
        good &= ok
        said = f"found: {lines[0]}" if ok else "NOT FOUND" if holds else "not proved without it either"
        print(f"{seed.property:8} {seed.program}: {seed.what}: {said}", flush=True)
        for line in lines[1:8]:
            print(f"           {line}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
