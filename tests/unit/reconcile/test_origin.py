# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a difference comes from: somebody meddled with the kernel or the documents, the templates changed, the host
changed, or a trial was left. Seen in check mode, which changes nothing, and in the run that mends it."""

import os
import sys

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import generations, links, pins
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import enforcer
from test_apply import BOTH, CORP, OBJECT, Host

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "host"))
from fake_system import FakeSystem

KEYS = ("drift", "pending", "renewal", "unsettled")


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    enforcer.ensure(host.kernel, OBJECT)
    host.kernel.revive()
    return host


def origins(host, wanted):
    """As check mode tells it, which must be what the run tells, and must change nothing."""
    host.kernel.revive()
    result = host.apply(wanted, check=True)
    assert host.writes() == []
    return {key: result[key] for key in KEYS}


def expected(**some):
    return {**{"drift": [], "pending": False, "renewal": [], "unsettled": []}, **some}


def mended(host, wanted, **some):
    """A normal run tells the same, and afterwards there is nothing."""
    result = host.apply(wanted)
    assert {key: result[key] for key in KEYS} == expected(**some) and result["changed"]
    if result["confirm_needed"]:
        host.put(wanted)
    assert origins(host, wanted) == expected()
    assert host.quiet(wanted)


def tamper_with_table(host, name):
    """An entry of the table in force goes."""
    outer = host.kernel.pins[pins.map_path(host.kernel, name)]
    inner = outer.inner[host.live().slot.to_bytes(4, "little")]
    inner.entries.popitem()


def test_in_order(host):
    host.put(CORP)
    assert origins(host, CORP) == expected()


def test_a_new_host_has_a_pending_policy_and_no_drift(tmp_path):
    host = Host(tmp_path)
    assert origins(host, CORP) == expected(pending=True)
    enforcer.ensure(host.kernel, OBJECT)
    assert origins(host, CORP) == expected(pending=True)


def test_a_change_of_the_templates_is_pending(host):
    host.put(CORP)
    assert origins(host, BOTH) == expected(pending=True)
    assert host.apply(BOTH, check=True)["document_before"] == CORP
    mended(host, BOTH, pending=True)


def test_a_changed_table_is_drift(host):
    host.put(CORP)
    tamper_with_table(host, "ipv4")
    told = expected(drift=["table ipv4: 1 entries differ"])
    assert origins(host, CORP) == told
    mended(host, CORP, drift=told["drift"])


def test_a_hook_that_is_gone_is_drift(host):
    host.put(CORP)
    version = enforcer.installed(host.kernel)
    host.kernel.unlink(pins.links_path(host.kernel, version) + "/socket_connect")
    told = ["hook socket_connect is not attached"]
    assert origins(host, CORP) == expected(drift=told)
    mended(host, CORP, drift=told)


def test_a_hook_too_many_is_drift(host):
    host.put(CORP)
    links.attach(host.kernel, enforcer.installed(host.kernel), ["file_open"])
    told = ["hook file_open is attached, and no rule needs it"]
    assert origins(host, CORP) == expected(drift=told)
    mended(host, CORP, drift=told)


def test_counters_that_are_gone_are_drift(host):
    host.put(CORP)
    host.kernel.pins[pins.map_path(host.kernel, "counters")].entries.clear()
    told = ["the counters of 2 rules are missing"]  # the canary's is the other
    assert origins(host, CORP) == expected(drift=told)
    mended(host, CORP, drift=told)


def test_a_document_that_is_gone_is_drift(host):
    generation = host.put(CORP)
    os.unlink(os.path.join(host.store.generations_folder, f"{generation}.json"))
    told = [f"the document of generation {generation} is missing"]
    assert origins(host, CORP) == expected(drift=told)
    assert origins(host, BOTH) == expected(drift=told)  # of nothing it can't be said that something else is pending
    mended(host, CORP, drift=told)


def test_both_at_once(host):
    host.put(CORP)
    tamper_with_table(host, "ipv4")
    told = expected(drift=["table ipv4: 1 entries differ"], pending=True)
    assert origins(host, BOTH) == told
    mended(host, BOTH, drift=told["drift"], pending=True)


def test_an_enforcer_that_is_gone_is_drift(host):
    generation = host.put(CORP)
    host.kernel.pins.clear()
    host.kernel.folders = {"/bpf"}
    assert origins(host, CORP) == expected(
        pending=True, drift=[f"the enforcer is not in the kernel, generation {generation} is stored as in force"]
    )


def test_another_user_of_the_same_name_is_a_renewal(host):
    host.system = FakeSystem()
    wanted = dict(CORP, subjects={"alice": {"users": ["alice"]}}, rules=[dict(CORP["rules"][0], subjects=["alice"])])
    host.put(wanted)
    assert origins(host, wanted) == expected()
    host.system.accounts["alice"] = 1234
    told = ["~ subject alice: means something else on this host now (users)"]
    found = origins(host, wanted)
    assert found["renewal"][0] == told[0] and found == expected(renewal=found["renewal"])
    mended(host, wanted, renewal=found["renewal"])


def test_a_trial_is_neither(host):
    host.put(CORP)
    generation = host.apply(BOTH)["generation"]
    assert origins(host, BOTH) == expected(unsettled=[f"generation {generation} is on trial"])
    host.kernel.now += 61 * generations.SECOND
    assert origins(host, BOTH) == expected(
        pending=True, unsettled=[f"generation {generation} was not confirmed in time"]
    )
