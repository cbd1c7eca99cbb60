#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is proved: the instructions of each program as they are submitted to a kernel, after CO-RE.

    programs(kernel_types("6.1")) -> {name: Program}

libbpf relocates, as it does on a host, and is stopped before it loads anything (kernel/bpf.py, kernel/instructions.py:
the same code makes a host's certificate). What libbpf does not tell, where each function lies and what it is called, is
read from the object. Without a guest; needs CAP_BPF, as libbpf asks the running kernel for what it can do."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "proof"), str(ROOT / "collections")]
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

OBJECT = ROOT / "roles" / "enforcer" / "files" / "guard.bpf.o"
# the call that libbpf leaves where a field is accessed that the kernel does not have: it may not be reached
ABSENT = 0xBAD2310
_CALL = 0x85  # BPF_JMP | BPF_CALL
_TO_FUNCTIONS = ((_CALL, 1), (0x18, 4))  # with BPF_PSEUDO_CALL; BPF_LD | BPF_IMM | BPF_DW with BPF_PSEUDO_FUNC


class Function(NamedTuple):
    """A function of a program: ``start`` and ``size`` in instructions; the first is the program's own."""

    name: str
    start: int
    size: int


class Program(NamedTuple):
    """``submitted.code``: 8 bytes each (struct bpf_insn), in which ``submitted.maps`` says which instruction loads
    which map, and ``submitted.symbols`` which loads a kernel address: both halves of that are 0, its register is set to
    the address at load time. Calls among functions are relative, as the kernel takes them; ABSENT is a call that the
    kernel accepts only where it is not reached."""

    submitted: Submitted
    functions: tuple[Function, ...]

    @property
    def instructions(self) -> tuple[bytes, ...]:
        code = self.submitted.code
        return tuple(code[at : at + SIZE] for at in range(0, len(code), SIZE))


def programs(types: KernelTypes, data: bytes | None = None, kernel: Kernel | None = None) -> dict[str, Program]:
    """The programs of the object ``data`` (default: the tracked one) that a host with this kernel loads, by name."""
    data = OBJECT.read_bytes() if data is None else data
    source = _Object(data)
    return {each.name: source.program(each) for each in (kernel or Kernel()).relocate(data, str(types.btf))}


class _Place(NamedTuple):
    """An instruction in the object: a section's index, and the place in it in instructions."""

    section: int
    at: int


class _Object:
    """The functions, and what the linker is told of calls, as they are in the object file."""

    def __init__(self, data: bytes) -> None:
        elf = ELFFile(io.BytesIO(data))
        symbols = elf.get_section_by_name(".symtab")
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
            if section["sh_type"] == "SHT_REL" and section["sh_info"] in self.code:
                for entry in section.iter_relocations():
                    symbol = symbols.get_symbol(entry["r_info_sym"])
                    target = symbol["st_shndx"]
                    place = _Place(target, symbol["st_value"] // SIZE) if isinstance(target, int) else _Place(0, 0)
                    self.linked[_Place(section["sh_info"], entry["r_offset"] // SIZE)] = symbol.name, place

    def program(self, relocated: Relocated) -> Program:
        """Follows each call in the program and, beside it, in the object. Raises ValueError where the two differ in
        more than libbpf may change."""
        name, code = relocated.name, relocated.code
        origins, done = {0: self.programs[name]}, {}
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
                    raise ValueError(f"{name}: instruction {at} is a call, in the object it is not")
                if self.linked.get(here, ("",))[0] == SYMBOL:
                    symbols.append(at)
                if (operation, registers >> 4) in _TO_FUNCTIONS:
                    target = self._target(here, linked, operation == _CALL)
                    if origins.setdefault(at + 1 + constant, target) != target:
                        raise ValueError(f"{name}: instruction {at} leads to two functions")
        functions = [done[start] for start in sorted(done)]
        starts = [each.start for each in functions] + [len(code) // SIZE]
        if starts != [0] + [each.start + each.size for each in functions]:
            raise ValueError(f"{name}: its functions do not fill its {len(code) // SIZE} instructions")
        return Program(submitted(relocated, symbols), tuple(functions))

    def _target(self, here: _Place, constant: int, called: bool) -> _Place:
        linked = self.linked.get(here)
        if linked is None:  # within its own section
            return _Place(here.section, here.at + 1 + constant)
        # a call has the place in the section less one as its constant, a pointer the bytes
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
