# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every structure that C and Python share, field by field: name, offset and size."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "collections"), str(Path(__file__).resolve().parent)]

import btf
from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils.observe import records

ENFORCER = ROOT / "roles" / "enforcer" / "files" / "guard.bpf.o"
OBSERVER = ROOT / "roles" / "observe" / "files" / "observe.bpf.o"
SHARED = {btf.LAYOUT: ("guard_", layout.STRUCTURES), btf.OBSERVE: ("observe_", records.STRUCTURES)}
# structures of these headers that Python does not read or write, and why
KERNEL_ONLY: dict[str, dict[str, str]] = {btf.LAYOUT: {}, btf.OBSERVE: {}}
EACH = [(header, name) for header in SHARED for name in SHARED[header][1]]


def described(structure: layout.Structure) -> btf.Struct:
    members = (btf.Member(field.name, field.offset, field.size) for field in structure.fields)
    return btf.Struct(structure.size, tuple(members))


def differences(header: str, found: dict[str, btf.Struct]) -> list[str]:
    """The names of the structures in which Python and ``found`` differ."""
    structures = SHARED[header][1]
    return [name for name in structures if found.get(name) != described(structures[name])]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, dict[str, btf.Struct]]:
    folder = tmp_path_factory.mktemp("types")
    return {header: btf.compiled(folder, header, prefix) for header, (prefix, _structures) in SHARED.items()}


@pytest.mark.parametrize("header", SHARED)
def test_every_structure_is_compared(header):
    prefix, structures = SHARED[header]
    names = btf.declared(btf.BPF / header, prefix)
    assert names
    assert len(set(names)) == len(names)
    assert set(names) == set(structures) | set(KERNEL_ONLY[header])
    assert not set(structures) & set(KERNEL_ONLY[header])


@pytest.mark.parametrize(("header", "name"), EACH)
def test_fields(found, header, name):
    assert described(SHARED[header][1][name]) == found[header][name]


@pytest.mark.parametrize(("header", "object_file"), [(btf.LAYOUT, ENFORCER), (btf.OBSERVE, OBSERVER)])
def test_the_object_has_the_same(found, header, object_file):
    inside = btf.structs(object_file, SHARED[header][0])
    common = set(inside) & set(found[header])
    assert common
    assert {name: inside[name] for name in common} == {name: found[header][name] for name in common}


def swapped(text: str, struct: str) -> str:
    """``text`` with the first two fields of a structure in each other's place. Of one that has a single field, that field
    begins four bytes later."""
    start = text.index(f"struct {struct} {{\n") + len(f"struct {struct} {{\n")
    body = text[start : text.index("\n}", start)]
    fields = []
    for declaration in re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL).split(";")[:-1]:
        kind, names = re.fullmatch(r"\s*((?:struct )?\w+) (.*)", declaration, re.DOTALL).groups()
        fields += [f"{kind} {name.strip()};" for name in names.split(",")]
    if len(fields) == 1:
        fields.insert(0, "unsigned int other;")
    else:
        fields[:2] = fields[1::-1]
    return text[:start] + "\n".join(fields) + text[start + len(body) :]


@pytest.mark.parametrize(("header", "name"), EACH)
def test_a_swap_of_fields_is_found(header, name, tmp_path):
    prefix = SHARED[header][0]
    shutil.copytree(btf.BPF, tmp_path / "bpf")
    changed = tmp_path / "bpf" / header
    changed.write_text(swapped(changed.read_text(encoding="utf-8"), prefix + name), encoding="utf-8")
    assert name in differences(header, btf.compiled(tmp_path, header, prefix, tmp_path / "bpf"))


def test_values_come_back():
    for structure in layout.STRUCTURES.values():
        data = bytes(range(1, 251)) * 40
        size = structure.fields[-1].offset + structure.fields[-1].size
        data = data[:size] + bytes(structure.size - size)
        assert structure.pack(structure.unpack(data)) == data


def test_other_fields_are_refused():
    with pytest.raises(ValueError, match="the fields of label_group are labels, members"):
        layout.Structure("label_group", layout.LabelGroup, {"members": "Q", "labels": "Q"})
