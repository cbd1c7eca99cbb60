# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""decide.h, compiled for the host, decides as the reference does; its structures are layout.py's."""

from __future__ import annotations

import ctypes
import datetime
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tests" / "property")]

import kernel_model
from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import tables
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions, semantics
from strategies import events, policies

TODAY = datetime.date(2026, 6, 1)
Vector = ctypes.c_uint64 * layout.WORDS
bits = st.integers(0, (1 << 64 * layout.WORDS) - 1)


class Who(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "user_bind", "user_exempt", "login", "group_bind", "group_exempt",
            "service_bind", "service_exempt", "executable_bind", "executable_exempt", "label",
        )
    ]  # fmt: skip


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    built = tmp_path_factory.mktemp("native") / "decide.so"
    source = Path(__file__).with_name("decide.c")
    subprocess.run(
        ["gcc", "-std=gnu11", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-I", ROOT / "bpf", "-o", built, source],
        check=True,
    )
    loaded = ctypes.CDLL(str(built))
    for name in ("binding_sets", "exempting_sets", "destination_sets"):
        getattr(loaded, name).restype = ctypes.c_uint64
    loaded.decide.restype = loaded.lowest.restype = ctypes.c_uint32
    return loaded


def vector(number):
    return Vector(*(number >> 64 * word & (1 << 64) - 1 for word in range(layout.WORDS)))


def number(words):
    return sum(word << 64 * place for place, word in enumerate(words))


class NativeCore:
    def __init__(self, library):
        self.library = library

    def binding_sets(self, policy, who):
        return self.library.binding_sets(policy["raw"], ctypes.byref(Who(**who)))

    def exempting_sets(self, policy, who):
        return self.library.exempting_sets(policy["raw"], ctypes.byref(Who(**who)))

    def destination_sets(self, policy, *found):
        return self.library.destination_sets(policy["raw"], *map(ctypes.c_uint64, found))

    def decide(self, bound, covers, of_action, audit):
        rule = ctypes.c_uint32()
        covering = None if covers is None else ctypes.byref(vector(covers))
        arguments = [
            ctypes.byref(vector(bound)),
            covering,
            ctypes.byref(vector(of_action)),
            ctypes.byref(vector(audit)),
        ]
        verdict = self.library.decide(*arguments, ctypes.byref(rule))
        return kernel_model.OUTCOMES[verdict], rule.value


@given(policies(), st.lists(events, min_size=1, max_size=8))
def test_decides_as_the_reference(library, policy, some_events):
    compiled = kernel_model.Model(tables.compile_policy(policy, TODAY), NativeCore(library))
    for event in some_events:
        assert compiled.decide(event) == semantics.decide(policy, event, TODAY)


@given(bits, st.one_of(st.none(), bits), bits, bits)
def test_decides_on_every_word(library, bound, covers, of_action, audit):
    expected = kernel_model.PythonCore().decide(bound, covers, of_action, audit)
    verdict, rule = NativeCore(library).decide(bound, covers, of_action, audit)
    assert (verdict, None if verdict == "allow" else rule) == expected


@given(bits, bits)
def test_vectors(library, a, b):
    out = vector(a)
    library.add(out, vector(b))
    assert number(out) == a | b
    out = vector(a)
    library.remove_from(out, vector(b))
    assert number(out) == a & ~b
    assert bool(library.concerns(vector(a), vector(b))) is bool(a & b)


@given(bits, bits, bits, bits, bits)
def test_a_move(library, some_old, all_old, some_new, all_new, writing):
    out = vector(0)
    library.moved(out, *map(vector, (some_old, all_old, some_new, all_new, writing)))
    assert number(out) == (some_old & ~all_new) | (some_new & ~all_old & writing)


@given(st.integers(1, (1 << 64) - 1))
def test_lowest_bit(library, word):
    assert library.lowest(ctypes.c_uint64(word)) == (word & -word).bit_length() - 1


def test_sizes_are_those_of_the_layout(library):
    for name in ("vector", "record", "policy", "subject", "destination", "id_key", "ipv4_key", "ipv6_key", "port_key",
                 "vsock_key", "device_key", "label", "state", "edge_key", "bytes", "rule", "totals"):  # fmt: skip
        assert getattr(library, "size_" + name)() == getattr(layout, name.upper()).size, name


def test_numbers_are_those_of_the_layout():
    text = "".join((ROOT / "bpf" / "abi" / name).read_text() for name in ("layout.h", "actions.h"))
    defined = {name: int(value, 0) for name, value in re.findall(r"(?:#define )?\bGUARD_(\w+)(?: =)? (\d+)\b", text)}
    for name in ("LAYOUT", "RULES", "WORDS", "SETS", "CANARY_SET", "SLOTS", "DEPTH", "COMPONENT", "NAME", "PATH", "PLAIN",
                 "LINK", "RENAME", "SOCKET", "OTHER_SOCKET", "RAW_SOCKET", "CAPABILITY", "ACTIONS", "LABELS", "LABEL_NAME",
                 "ID_USER", "ID_LOGIN", "ID_GROUP", "ID_PROTOCOL", "ID_LABEL", "ID_RANGE",
                 "GROUPS_IPV4", "GROUPS_IPV6", "ALL_IPV4", "ALL_IPV6",
                 "USES_GROUPS", "USES_SERVICES", "USES_EXECUTABLES", "USES_LOGIN", "USES_LABELS",
                 "DENIES_LABELS"):  # fmt: skip
        assert getattr(layout, name) == defined[name], name
    reasons = [
        "BY_RULE",
        "NO_CHAIN",
        "TOO_DEEP",
        "UNKNOWN_FS",
        "UNSTABLE",
        "BROKEN_MAP",
        "NO_ADDRESS",
        "NO_LABEL",
        "TAMPER",
    ]
    assert [defined[reason] for reason in reasons] == list(range(len(layout.REASONS)))
    assert defined["REASONS"] == layout.REASON_SLOTS
    for action in (*actions.RESOURCES, *actions.DESTINATIONS, *actions.MACHINE):
        assert defined[action.upper().replace("-", "_")] == actions.NUMBERS[action], action
    families = re.search(r"#define GUARD_NAMED_FAMILIES (\w+)ULL", text)
    assert families and int(families.group(1), 16) == sum(1 << number for number in actions.FAMILIES.values())
