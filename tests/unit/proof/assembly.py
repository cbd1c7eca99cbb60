# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small programs, written as LLVM prints them, as the instructions that libbpf would submit. Beyond that: `label:`,
`goto label`, `call function`, and `map NAME`, `value NAME`, `symbol NAME`, `function NAME` as what a register may be."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

import decode
import submitted

CODES = {
    "+=": 0x00,
    "-=": 0x10,
    "*=": 0x20,
    "/=": 0x30,
    "|=": 0x40,
    "&=": 0x50,
    "<<=": 0x60,
    ">>=": 0x70,
    "%=": 0x90,
    "^=": 0xA0,
    "=": 0xB0,
    "s>>=": 0xC0,
}
JUMPS = {
    "==": 0x10,
    ">": 0x20,
    ">=": 0x30,
    "&": 0x40,
    "!=": 0x50,
    "s>": 0x60,
    "s>=": 0x70,
    "<": 0xA0,
    "<=": 0xB0,
    "s<": 0xC0,
    "s<=": 0xD0,
}
SIZES = {"u8": 0x10, "u16": 0x08, "u32": 0x00, "u64": 0x18}
_MEMORY = r"\*\((u\d+) \*\)\(r(\d+) ([+-]) (\d+)\)"
_PSEUDO = {"map": 1, "value": 2, "function": 4, "symbol": 0}


class _Line(NamedTuple):
    code: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    constant: int = 0
    to: str = ""  # a label, or a function's name
    pseudo: str = ""  # what kind of a thing a wide load is of


def _number(text: str) -> int:
    return int(text, 0)


def _line(text: str) -> _Line:
    return _jump(text) or _load_or_store(text) or _arithmetic(text)


def _jump(text: str) -> _Line | None:
    if text == "exit":
        return _Line(0x95)
    if match := re.fullmatch(r"goto (\w+)", text):
        return _Line(0x05, to=match[1])
    if match := re.fullmatch(r"call (\d+)", text):
        return _Line(0x85, constant=int(match[1]))
    if match := re.fullmatch(r"call (\w+)", text):
        return _Line(0x85, src=1, to=match[1])
    if match := re.fullmatch(r"if ([rw])(\d+) (\S+) (?:[rw](\d+)|(-?\w+)) goto (\w+)", text):
        code = JUMPS[match[3]] | (5 if match[1] == "r" else 6)
        if match[4]:
            return _Line(code | 8, int(match[2]), int(match[4]), to=match[6])
        return _Line(code, int(match[2]), constant=_number(match[5]), to=match[6])
    return None


def _load_or_store(text: str) -> _Line | None:
    def found(pattern: str) -> re.Match[str] | None:
        return re.fullmatch(pattern, text)

    if match := found(r"r(\d+) = (-?\w+) ll"):
        return _Line(0x18, int(match[1]), constant=_number(match[2]))
    if match := found(r"r(\d+) = (map|value|symbol|function) (\w+)(?: \+ (\d+))?"):
        return _Line(0x18, int(match[1]), _PSEUDO[match[2]], constant=int(match[4] or 0), to=match[3], pseudo=match[2])
    if match := found(r"[rw](\d+) = " + _MEMORY):
        return _Line(0x61 | SIZES[match[2]], int(match[1]), int(match[3]), int(match[4] + match[5]))
    if match := found(_MEMORY + r" = (?:[rw](\d+)|(-?\w+))"):
        size, base, offset = SIZES[match[1]], int(match[2]), int(match[3] + match[4])
        if match[5]:
            return _Line(0x63 | size, base, int(match[5]), offset)
        return _Line(0x62 | size, base, 0, offset, _number(match[6]))
    if match := found(r"(lock|fetch|xchg|cmpxchg) " + _MEMORY + r" (\S+) r(\d+)"):
        kind = {"lock": CODES.get(match[6], 0), "fetch": CODES.get(match[6], 0) | 1, "xchg": 0xE1, "cmpxchg": 0xF1}
        return _Line(0xC3 | SIZES[match[2]], int(match[3]), int(match[7]), int(match[4] + match[5]), kind[match[1]])
    return None


def _arithmetic(text: str) -> _Line:
    if match := re.fullmatch(r"([rw])(\d+) = -[rw](\d+)", text):
        assert match[2] == match[3]
        return _Line(0x80 | (7 if match[1] == "r" else 4), int(match[2]))
    if match := re.fullmatch(r"r(\d+) = (le|be)(16|32|64) r(\d+)", text):
        assert match[1] == match[4]
        return _Line(0xD4 | (8 if match[2] == "be" else 0), int(match[1]), constant=int(match[3]))
    match = re.fullmatch(r"([rw])(\d+) (\S+) (?:[rw](\d+)|(-?\w+))", text)
    assert match, text
    code = CODES[match[3]] | (7 if match[1] == "r" else 4)
    if match[4]:
        return _Line(code | 8, int(match[2]), int(match[4]))
    return _Line(code, int(match[2]), constant=_number(match[5]))


def _packed(line: _Line) -> bytes:
    first = struct.pack("<BBhI", line.code, line.dst | line.src << 4, line.offset, line.constant & 0xFFFFFFFF)
    if line.code != 0x18:
        return first
    if line.pseudo == "value":  # the place of a map is 0, its other half the offset
        first = struct.pack("<BBhI", line.code, line.dst | line.src << 4, 0, 0)
        return first + struct.pack("<II", 0, line.constant)
    return first + struct.pack("<II", 0, line.constant >> 32 & 0xFFFFFFFF if not line.pseudo else 0)


def assembled(**functions: str) -> submitted.Program:
    """The first function is the program's own."""
    lines: list[tuple[int, str, _Line]] = []  # place, function
    labels: dict[tuple[str, str], int] = {}
    starts: dict[str, int] = {}
    at = 0
    for name, text in functions.items():
        starts[name] = at
        for part in filter(None, (each.strip() for each in text.splitlines())):
            if part.endswith(":"):
                labels[name, part[:-1]] = at
                continue
            line = _line(part)
            lines.append((at, name, line))
            at += 2 if line.code == 0x18 else 1
    ends = [*starts.values(), at]
    code, maps, symbols = b"", {}, {}
    for place, name, line in lines:
        if line.pseudo in ("map", "value"):
            maps[place] = line.to
        elif line.pseudo == "symbol":
            symbols[place] = line.to
        elif line.pseudo == "function" or (line.code == 0x85 and line.to):
            line = line._replace(constant=starts[line.to] - place - 1)
        elif line.to:
            line = line._replace(offset=labels[name, line.to] - place - 1)
        code += _packed(line)
    pieces = tuple(
        submitted.Function(name, start, ends[number + 1] - start) for number, (name, start) in enumerate(starts.items())
    )
    return submitted.Program(submitted.Submitted("program", "lsm/program", code, maps, symbols), pieces)


def program(text: str = "", **functions: str) -> decode.Function:
    """As the executor has it."""
    return decode.decode(assembled(**({"program": text} if text else {}), **functions))
