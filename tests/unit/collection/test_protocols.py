# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel, system and store: the real ones and the fakes satisfy the same protocols."""

from __future__ import annotations

import datetime
import inspect
import sys
from pathlib import Path

import pytest
import typed
from ansible_collections.exfil.guard.plugins.module_utils._guard import host_api
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import bpf, protocol
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import enforcer
from fake_kernel import FakeKernel
from fake_store import FakeStore

ROOT = Path(__file__).resolve().parents[3]
UNIT = ROOT / "tests" / "unit"
sys.path[:0] = [str(UNIT / "host"), str(ROOT / "tests" / "fleet" / "host")]
import simulated
from fake_system import FakeSystem

GUARD = "ansible_collections.exfil.guard.plugins.module_utils._guard"
SOURCE = f"""
from {GUARD}.host import protocols, store, system
from {GUARD}.kernel import bpf, protocol
from fake_kernel import FakeKernel
from fake_store import FakeStore
from fake_system import FakeSystem

kernels: list[protocol.Kernel] = [bpf.Kernel(), FakeKernel()]
systems: list[protocols.System] = [system.System(), FakeSystem()]
stores: list[protocols.Store] = [store.Store(), FakeStore()]
"""


def test_the_real_ones_and_the_fakes_have_the_types_of_the_protocols(tmp_path):
    assert typed.problems(tmp_path / "good.py", SOURCE) == ""
    wrong = typed.problems(tmp_path / "bad.py", SOURCE + "kernels.append(FakeSystem())\n")
    assert 'has incompatible type "FakeSystem"; expected "Kernel"' in wrong


@pytest.mark.parametrize("name", [name for name in vars(protocol.Kernel) if not name.startswith("_")])
def test_the_simulated_kernel_has_the_methods_of_the_protocol(name, tmp_path):
    """It is made when a process starts, so mypy cannot see it."""
    kernel = simulated.kernel_of(bpf, str(tmp_path))
    asked, given = (inspect.signature(getattr(kind, name)) for kind in (protocol.Kernel, kernel))
    assert [(each.name, each.default) for each in given.parameters.values()] == [
        (each.name, each.default) for each in asked.parameters.values()
    ]


def test_a_policy_is_applied_to_a_host_in_memory(tmp_path):
    kernel, store = FakeKernel(), FakeStore()
    enforcer.ensure(kernel, b"object")
    paths = host_api.Paths(canary=str(tmp_path / "canary"), lock=str(tmp_path / "lock"))
    host = host_api.Host(kernel, FakeSystem(), store, datetime.date(2026, 6, 1), paths)
    document = {
        "policy": 1,
        "mode": "enforce",
        "boot": "best-effort",
        "subjects": {},
        "resources": {},
        "assertions": [],
        "destinations": {"inside": {"cidrs": ["10.0.0.0/8", "127.0.0.0/8"]}},
        "rules": [{"name": "inside only", "deny": ["connect"], "destinations": {"not": ["inside"]}}],
    }
    assert host.apply(document, check=True)["changed"] and store.numbers() == []
    assert host.apply(document)["generation"] == 1 and host.on_trial() == 1
    assert host.confirm(None)["changed"] and store.last_confirmed().generation == 1
    assert not host.apply(document)["changed"] and host.remove()["changed"] and store.numbers() == []
