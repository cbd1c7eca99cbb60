# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The headers of the BPF object: layers, without cycles, each of which compiles alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

BPF = Path(__file__).resolve().parents[2] / "bpf"
LAYERS = ("abi", "core", "object", "subject", "decision", "label", "hooks")
OBSERVER = "observer"  # beside the layers, on abi
HEADERS = sorted(str(path.relative_to(BPF)) for path in BPF.glob("**/*.h"))
# as in bpf/Makefile, but for functions that are defined for other headers
FLAGS = ["-target", "bpf", "-mcpu=v3", "-D__TARGET_ARCH_x86", "-I", str(BPF), "-Wall", "-Wextra", "-Werror",
         "-Wno-unused-parameter", "-Wno-unused-function"]  # fmt: skip


def included(path: Path) -> list[str]:
    return re.findall(r'^#include "([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)


def upward(includes: dict[str, list[str]]) -> list[str]:
    """Includes that go from a layer to a later one, or between the observer and a layer other than abi."""
    wrong = []
    for header, targets in includes.items():
        layer = header.split("/")[0]
        for target in targets:
            other = target.split("/")[0]
            if layer == OBSERVER:
                allowed = other in (OBSERVER, "abi")
            else:
                allowed = other in LAYERS and LAYERS.index(other) <= LAYERS.index(layer)
            if not allowed:
                wrong.append(f"{header} includes {target}")
    return wrong


def cycle(includes: dict[str, list[str]]) -> list[str]:
    """The headers of one include cycle, the first of them again at the end; empty without a cycle."""
    done: set[str] = set()

    def follow(header: str, way: list[str]) -> list[str]:
        if header in way:
            return [*way[way.index(header) :], header]
        if header in done:
            return []
        for target in includes.get(header, []):
            found = follow(target, [*way, header])
            if found:
                return found
        done.add(header)
        return []

    for header in includes:
        found = follow(header, [])
        if found:
            return found
    return []


def reached(source: str) -> set[str]:
    seen: set[str] = set()
    left = [source]
    while left:
        for target in included(BPF / left.pop()):
            if target not in seen:
                seen.add(target)
                left.append(target)
    return seen


@pytest.fixture(scope="module")
def includes() -> dict[str, list[str]]:
    return {header: included(BPF / header) for header in HEADERS}


def test_every_header_is_in_a_layer():
    assert {header.split("/")[0] for header in HEADERS} == {*LAYERS, OBSERVER}
    assert all(header.count("/") == 1 for header in HEADERS)


def test_no_include_goes_upwards(includes):
    assert upward(includes) == []


def test_an_upward_include_is_found():
    assert upward({"object/path.h": ["hooks/file.h", "core/maps.h", "object/locate.h"]}) == [
        "object/path.h includes hooks/file.h"
    ]
    assert upward({"observer/observe.h": ["core/maps.h"], "hooks/file.h": ["observer/observe.h"]}) == [
        "observer/observe.h includes core/maps.h",
        "hooks/file.h includes observer/observe.h",
    ]


def test_no_include_cycle(includes):
    assert cycle(includes) == []


def test_an_include_cycle_is_found():
    assert cycle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]


def test_the_objects_reach_every_header():
    enforcer = reached("guard.bpf.c")
    observer = reached("observer/observe.bpf.c")
    assert enforcer | observer == set(HEADERS)
    assert not any(header.startswith(OBSERVER) for header in enforcer)


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_compiles_alone(header, tmp_path):
    source = tmp_path / "alone.c"
    source.write_text(f'#include "{header}"\n', encoding="utf-8")
    done = subprocess.run(
        ["clang-14", *FLAGS, "-fsyntax-only", source],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
