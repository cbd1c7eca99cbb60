#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what is proved: the instructions of each program as they are submitted to a kernel, after CO-RE.

    programs(kernel_types("6.1")) -> {name: Program}

libbpf relocates them as on a host, and is stopped before it loads anything. The code for this is the product's own,
which also makes a host's certificate. The place and the name of each function are read from the object, because libbpf
does not report them. No guest is needed, but CAP_BPF, because libbpf tests the running kernel's features."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "collections"))
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.bpf import Kernel
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.instructions import (
    SIZE,
    SYMBOL,
    Submitted,
    submitted,
    tags,
)
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.types import Relocated
from kernels import KERNELS, KernelTypes, kernel_types

ROOT = Path(__file__).resolve().parents[1]
OBJECT = ROOT / "roles" / "enforcer" / "files" / "guard.bpf.o"
# the call that libbpf leaves where the program accesses a field that the kernel does not have; it must not be reached
ABSENT = 0xBAD2310
_CALL = 0x85  # BPF_JMP | BPF_CALL
_TO_FUNCTIONS = ((_CALL, 1), (0x18, 4))  # with BPF_PSEUDO_CALL; BPF_LD | BPF_IMM | BPF_DW with BPF_PSEUDO_FUNC


class Function(NamedTuple):
    """A function of a program: ``start`` and ``size`` in instructions; the first is the program's own."""

    name: str
    start: int
    size: int


class Program(NamedTuple):
    """A program. ``submitted.code``: instructions of 8 bytes each (struct bpf_insn). ``submitted.maps`` says which of
    them loads which map, ``submitted.symbols`` which loads a kernel address: both halves of it are 0, and the kernel
    inserts the address at load time. Calls among functions are relative, as the kernel expects them. The kernel accepts
    the call ABSENT only where it is not reached."""

    submitted: Submitted
    functions: tuple[Function, ...]

    @property
    def instructions(self) -> tuple[bytes, ...]:
        """The code, cut into instructions."""
        code = self.submitted.code
        return tuple(code[at : at + SIZE] for at in range(0, len(code), SIZE))


def programs(types: KernelTypes, data: bytes | None = None, kernel: Kernel | None = None) -> dict[str, Program]:
    """The programs of the object ``data`` (default: the tracked one) that a host with this kernel loads, by name."""
    data = OBJECT.read_bytes() if data is None else data
    source = _Object(data)
    relocated = (kernel or Kernel()).relocate(data, str(types.btf))
    return {program.name: source.program(program) for program in relocated}


class _Place(NamedTuple):
    """The place of an instruction in the object: the section's index, and the number of the instruction in it."""

    section: int
    at: int


class _Object:
    """The functions of an object file, and the relocations of their calls."""

    def __init__(self, data: bytes) -> None:
        elf = ELFFile(io.BytesIO(data))
        symbols = elf.get_section_by_name(".symtab")
        if not isinstance(symbols, SymbolTableSection):
            raise ValueError("the object has no symbol table")
        self.code = {
            i: section.data()
            for i, section in enumerate(elf.iter_sections())
            if section["sh_type"] == "SHT_PROGBITS" and section["sh_flags"] & 4
        }
        self.starts: dict[_Place, tuple[str, int]] = {}
        self.programs: dict[str, _Place] = {}
        for symbol in symbols.iter_symbols():
            if symbol["st_info"]["type"] == "STT_FUNC":
                place = _Place(symbol["st_shndx"], symbol["st_value"] // SIZE)
                self.starts[place] = symbol.name, symbol["st_size"] // SIZE
                self.programs[symbol.name] = place
        self.linked: dict[_Place, tuple[str, _Place]] = {}
        for section in elf.iter_sections():
            if isinstance(section, RelocationSection) and section["sh_info"] in self.code:
                for entry in section.iter_relocations():
                    symbol = symbols.get_symbol(entry["r_info_sym"])
                    target = symbol["st_shndx"]
                    place = _Place(target, symbol["st_value"] // SIZE) if isinstance(target, int) else _Place(0, 0)
                    self.linked[_Place(section["sh_info"], entry["r_offset"] // SIZE)] = symbol.name, place

    def program(self, relocated: Relocated) -> Program:
        """Follows each call in the program and in the object. Raises ValueError where the two differ in more than
        libbpf may change."""
        name, code = relocated.name, relocated.code
        origins = {0: self.programs[name]}
        done: dict[int, Function] = {}
        symbols: list[int] = []
        while origins.keys() - done.keys():
            start = min(origins.keys() - done.keys())
            origin = origins[start]
            done[start] = Function(self.starts[origin][0], start, self.starts[origin][1])
            for at in range(start, start + done[start].size):
                here = _Place(origin.section, origin.at + at - start)
                operation, registers, _offset, constant = struct.unpack_from("<BBhi", code, at * SIZE)
                before, *_unused, linked = struct.unpack_from("<BBhi", self.code[here.section], here.at * SIZE)
                if operation == _CALL != before and constant != ABSENT:
                    raise ValueError(f"{name}: instruction {at} is a call, but not in the object")
                if self.linked.get(here, ("",))[0] == SYMBOL:
                    symbols.append(at)
                if (operation, registers >> 4) in _TO_FUNCTIONS:
                    target = self._target(here, linked, operation == _CALL)
                    if origins.setdefault(at + 1 + constant, target) != target:
                        raise ValueError(f"{name}: instruction {at} leads to two functions")
        functions = [done[start] for start in sorted(done)]
        starts = [function.start for function in functions] + [len(code) // SIZE]
        if starts != [0] + [function.start + function.size for function in functions]:
            raise ValueError(f"{name}: its functions do not fill its {len(code) // SIZE} instructions")
        return Program(submitted(relocated, symbols), tuple(functions))

    def _target(self, here: _Place, constant: int, called: bool) -> _Place:
        linked = self.linked.get(here)
        if linked is None:  # in the same section
            return _Place(here.section, here.at + 1 + constant)
        # the constant of a call is the place in the section minus 1, that of a pointer is the offset in bytes
        place = linked[1]
        return _Place(place.section, place.at + (constant + 1 if called else constant // SIZE))


if __name__ == "__main__":
    for wanted in sys.argv[1:] or KERNELS:
        known = kernel_types(wanted)
        print(f"{known.release}  BTF {known.digest}")
        for program in programs(known).values():
            made = program.submitted
            print(
                f"  {made.name:30} {len(program.instructions):5} instructions, {len(program.functions):2} functions, "
                f"{len(made.maps):3} map loads, {len(made.symbols):2} addresses, tags {tags(made.code)}"
            )
