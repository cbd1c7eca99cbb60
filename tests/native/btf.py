# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The structures of the shared headers, as the type information (BTF) of a BPF object has them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

BPF = Path(__file__).resolve().parents[2] / "bpf"
LAYOUT, OBSERVE = "abi/layout.h", "observer/observe.h"  # the headers that Python shares
_POINTER = 8  # bytes


class Member(NamedTuple):
    """``offset`` and ``size`` in bytes."""

    name: str
    offset: int
    size: int


class Struct(NamedTuple):
    size: int
    members: tuple[Member, ...]


def declared(header: Path, prefix: str) -> list[str]:
    """The names of the structures that a header defines, without the prefix, in order."""
    return re.findall(rf"^struct {prefix}(\w+) \{{", header.read_text(encoding="utf-8"), re.MULTILINE)


def structs(path: Path, prefix: str) -> dict[str, Struct]:
    """By the name without its prefix: each structure of an object whose name begins so."""
    done = subprocess.run(["bpftool", "-j", "btf", "dump", "file", path], check=True, capture_output=True)
    types = {each["id"]: each for each in json.loads(done.stdout)["types"]}
    found = {}
    for each in types.values():
        if each["kind"] == "STRUCT" and each["name"].startswith(prefix):
            members = (
                Member(member["name"], member["bits_offset"] // 8, _size(types, member["type_id"]))
                for member in each["members"]
            )
            found[each["name"][len(prefix) :]] = Struct(each["size"], tuple(members))
    return found


def _size(types: dict[int, dict[str, Any]], number: int) -> int:
    found = types[number]
    if found["kind"] == "ARRAY":
        return int(found["nr_elems"]) * _size(types, found["type_id"])
    if found["kind"] == "PTR":
        return _POINTER
    if "size" in found:
        return int(found["size"])
    return _size(types, found["type_id"])  # a name or a qualifier of another type


def compiled(folder: Path, header: str, prefix: str, sources: Path = BPF) -> dict[str, Struct]:
    """Every structure of a header of ``sources``, compiled as the object is. The object itself has only those in its type
    information that a function or a map has a pointer to, so each gets a variable here."""
    names = declared(sources / header, prefix)
    source, target = folder / "types.bpf.c", folder / "types.bpf.o"
    variables = "".join(f"struct {prefix}{name} of_{name};\n" for name in names)
    source.write_text(f'#include "{header}"\n{variables}', encoding="utf-8")
    flags = ["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-D__TARGET_ARCH_x86", "-I", sources]
    subprocess.run(["clang-14", *flags, "-c", source, "-o", target], check=True, cwd=folder)
    return structs(target, prefix)
