# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout leans on: a soak that denies nothing new and frees nothing, and generations to go back to."""

import datetime
import json

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.store import KEPT
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.system import System
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.generations import SECOND
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import apply, confirm, enforcer, history
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import semantics, soak
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy.model import NetworkEvent, Task
from ansible_collections.exfil.guard.plugins.module_utils._guard.report import status
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve.resolver import resolve
from hypothesis import given, settings
from hypothesis import strategies as st
from test_apply import BOTH, CORP, LAB, NOW, OBJECT, Host, document, rule


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    enforcer.ensure(host.kernel, OBJECT)
    host.kernel.revive()
    return host


# ---- soak ---------------------------------------------------------------------------------------------------------


def test_what_is_new_only_reports_and_what_was_stays():
    found = soak.document(CORP, BOTH)
    assert found.rules == ["lab only"]
    assert found.document == document(rule("corp only", "corp"), dict(rule("lab only", "lab"), mode="audit"))


def test_a_changed_rule_reports_beside_the_old_one():
    found = soak.document(CORP, document(rule("corp only", "lab")))
    assert found.rules == ["corp only (new)"]
    assert found.document["rules"] == [rule("corp only", "corp"), dict(rule("corp only (new)", "lab"), mode="audit")]


def test_a_rule_over_a_changed_set_is_a_changed_rule():
    wider = json.loads(json.dumps(CORP))
    wider["destinations"]["corp"]["cidrs"].append("172.16.0.0/12")
    found = soak.document(CORP, wider)
    assert found.document["destinations"]["corp"] == CORP["destinations"]["corp"]
    assert found.document["destinations"]["corp (new)"] == wider["destinations"]["corp"]
    assert found.document["rules"][1] == {
        "name": "corp only (new)",
        "deny": ["connect"],
        "mode": "audit",
        "destinations": {"not": ["corp (new)", "loopback"]},
    }


def test_labels_of_a_changed_set_have_its_other_name():
    def readers(path):
        return dict(
            document({"name": "readers", "deny": ["connect"], "subjects": ["reader"], "destinations": ["lab"]}),
            subjects={"reader": {"has_read": ["data"]}},
            resources={"data": {"paths": [path]}},
        )

    found = soak.document(readers("/srv/a/**"), readers("/srv/b/**"))
    assert found.document["subjects"]["reader"] == {"has_read": ["data"]}
    new = [each for each in found.document["rules"] if each.get("mode") == "audit"]
    assert [each["subjects"] for each in new] == [["reader (new)"]]
    assert found.document["subjects"]["reader (new)"] == {"has_read": ["data (new)"]}
    assert found.document["resources"]["data (new)"] == {"paths": ["/srv/b/**"]}


def test_what_goes_stays_until_the_new_policy_is_in_force():
    assert soak.document(BOTH, CORP) == (BOTH, [])


def test_a_first_policy_only_reports():
    found = soak.document(None, CORP)
    assert found.rules == ["corp only"] and found.document["rules"] == [dict(rule("corp only", "corp"), mode="audit")]


def test_what_stays_in_audit_mode_is_no_would_be_denial():
    assert (
        soak.document(CORP, document(rule("corp only", "corp"), dict(rule("lab only", "lab"), mode="audit"))).rules
        == []
    )


def test_long_names_have_room_for_the_mark():
    name = "é" * 47
    found = soak.document(document(rule(name, "corp")), document(rule(name, "lab")))
    assert len(found.rules[0].encode()) <= 95 and found.rules[0].endswith(" (new)")


ADDRESSES = ["10.1.1.1", "192.168.1.1", "172.16.0.1", "127.0.0.1", "8.8.8.8"]
RULES = st.lists(
    st.builds(
        lambda name, destination, deny, mode: dict(rule(name, destination, (deny,)), **mode),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["corp", "lab"]),
        st.sampled_from(["connect", "send"]),
        st.sampled_from([{}, {"mode": "audit"}]),
    ),
    max_size=3,
    unique_by=lambda each: each["name"],
)
SETS = st.sampled_from([["10.0.0.0/8"], ["172.16.0.0/12"], ["8.0.0.0/6"]])
DOCUMENTS = st.builds(
    lambda rules, corp, mode: dict(
        document(*rules), mode=mode, destinations=dict(document()["destinations"], corp={"cidrs": corp})
    ),
    RULES,
    SETS,
    st.sampled_from(["audit", "enforce"]),
)


@settings(max_examples=60)
@given(st.one_of(st.none(), DOCUMENTS), DOCUMENTS)
def test_a_soak_denies_what_was_denied_and_reports_what_will_be(before, after):
    root = Task(frozenset({0}), frozenset({0}), frozenset({0}), 0, ("init.scope",), None)
    system = System()

    def outcome(policy, action, address):
        event = NetworkEvent(root, action, address, 443, 6)
        return semantics.decide(resolve(policy, system), event, NOW).outcome if policy else "allow"

    during = soak.document(before, after)
    for action in ("connect", "send"):
        for address in ADDRESSES:
            found = outcome(during.document, action, address)
            assert (found == "deny") == (outcome(before, action, address) == "deny")
            if outcome(after, action, address) != "allow":
                assert found != "allow"


def test_applied_soaked_and_then_in_force(host):
    host.put(CORP)
    result = host.apply(BOTH, soak=True, revision="b" * 40)
    assert result["soaked"] == ["lab only"] and result["changed"]
    confirm.confirm(host.kernel, host.store, result["generation"], **host.options)
    stored = host.store.load(2)
    assert stored.replaces == CORP and stored.revision == "b" * 40
    again = host.apply(BOTH, soak=True)
    assert not again["changed"] and again["soaked"] == ["lab only"]
    assert host.put(BOTH) == 3 and not host.store.load(3).soak
    assert host.quiet(BOTH) and not host.apply(BOTH, soak=True)["changed"]


def test_another_soak_begins_from_what_rules(host):
    host.put(CORP)
    confirm.confirm(host.kernel, host.store, host.apply(BOTH, soak=True)["generation"], **host.options)
    assert host.apply(LAB, soak=True, check=True)["soaked"] == ["lab only"]
    confirm.confirm(host.kernel, host.store, host.apply(LAB, soak=True)["generation"], **host.options)
    assert [each["name"] for each in host.store.load(3).document["rules"]] == ["corp only", "lab only"]
    assert host.put(CORP) == 4 and host.quiet(CORP)


def test_a_soak_in_check_mode_says_the_same(host):
    host.put(CORP)
    would = host.apply(BOTH, soak=True, check=True)
    assert host.writes() == [] and host.apply(BOTH, soak=True) == would


# ---- going back ---------------------------------------------------------------------------------------------------


def put(host, wanted, revision):
    number = host.apply(wanted, revision=revision)["generation"]
    confirm.confirm(host.kernel, host.store, number, **host.options)
    host.kernel.revive()
    return number


def restore(host, *, generation=None, revisions=(), **options):
    return apply.restore(host.context(**options), generation=generation, revisions=revisions)


def test_an_earlier_generation_is_restored_on_trial(host):
    put(host, CORP, "one")
    put(host, BOTH, "two")
    put(host, LAB, "three")
    would = restore(host, generation=1, check=True)
    assert host.writes() == []
    result = restore(host, generation=1)
    assert dict(result, generation=4) == would and result["restored"] == 1 and result["confirm_needed"]
    assert host.live().pending and host.live().generation == 4
    host.kernel.now += 61 * SECOND
    assert host.live().generation == 3  # nobody confirmed
    host.apply(LAB)
    number = restore(host, generation=1)["generation"]
    confirm.confirm(host.kernel, host.store, number, **host.options)
    assert host.quiet(CORP) and host.store.load(number).revision == "one"


def test_the_policy_of_a_commit_under_which_this_host_did_not_change(host):
    put(host, CORP, "c1")
    assert not host.apply(CORP, revision="c2")["changed"]
    put(host, LAB, "c3")
    assert restore(host, revisions=["c2", "c1", "c0"], check=True)["restored"] == 1
    assert restore(host, revisions=["c3", "c2", "c1"], check=True)["restored"] == 2
    assert not restore(host, revisions=["c3"])["changed"]


def test_a_trial_that_nobody_confirmed_was_never_in_force(host):
    put(host, CORP, "c1")
    host.apply(LAB, revision="c2")
    host.kernel.now += 61 * SECOND
    assert restore(host, revisions=["c2", "c1"], check=True)["restored"] == 1


def test_what_is_not_stored_is_told_with_what_is(host):
    put(host, CORP, "c1" * 20)
    with pytest.raises(EnforcerError) as refused:
        restore(host, generation=9)
    assert str(refused.value) == (
        "generation 9 is not stored on this host: there are 1 (c1c1c1c1c1c1). "
        "Check that commit out and run the rollout from there"
    )
    with pytest.raises(EnforcerError, match="no generation stored on this host was in force at commit zz: there are 1"):
        restore(host, revisions=["zz"])
    host.store.clear()
    with pytest.raises(EnforcerError, match="generation 1 is not stored on this host. Check"):
        restore(host, generation=1)


def test_soaks_and_failed_trials_take_no_room_from_what_to_go_back_to(host):
    wanted = [CORP, LAB] * 5
    for number, policy in enumerate(wanted):
        soaked = host.apply(policy, soak=True)["generation"]
        confirm.confirm(host.kernel, host.store, soaked, **host.options)
        host.apply(BOTH)
        put(host, policy, str(number))
    kept = history.generations(host.store)
    restorable = [each.revision for each in kept if each.confirmed and not each.soak]
    assert restorable[-KEPT - 1 :] == [str(number) for number in range(len(wanted) - KEPT - 1, len(wanted))]
    assert len(kept) <= 2 * KEPT + 3


def test_status_tells_where_one_can_go_back_to(host):
    put(host, CORP, "one")
    confirm.confirm(host.kernel, host.store, host.apply(LAB, soak=True, revision="two")["generation"], **host.options)
    result = status.status(host.kernel, host.store, pull_result="/nonexistent")
    found = result.to_json()
    assert [
        (each["generation"], each["revision"], each["confirmed"], each["soak"]) for each in found["generations"]
    ] == [(1, "one", True, False), (2, "two", True, True)]
    assert found["revision"] == "two" and found["soak"] and found["pull"] is None
    assert "soak          rules that this generation adds only report" in status.to_text(result)


def test_what_is_on_trial_is_confirmed_without_its_number(host):
    assert not confirm.confirm(host.kernel, host.store, None, **host.options)["changed"]
    host.apply(CORP)
    assert confirm.confirm(host.kernel, host.store, None, **host.options)["changed"]
    assert not confirm.confirm(host.kernel, host.store, None, **host.options)["changed"]
    assert not host.live().pending


def test_dates_are_of_the_rule_and_not_of_the_soak():
    gone = document(dict(rule("old", "corp"), expires="2026-01-01"))
    assert soak.document(None, gone).document["rules"][0]["expires"] == "2026-01-01"
    assert datetime.date(2026, 1, 1) < NOW
