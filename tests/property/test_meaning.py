# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel would look up in the compiled tables is what the policy means."""

from __future__ import annotations

import datetime
import itertools

import kernel_model
import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import tables
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import model as records
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import semantics
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from strategies import decided_by_rules, events, locations, policies, tamper_events

TODAY = datetime.date(2026, 6, 1)
CANARY = records.PathPattern(1, ("usr", "lib", "canary"))


def model(policy, core=None):
    return kernel_model.Model(tables.compile_policy(policy, TODAY, canary=CANARY), core)


@given(policies(), st.lists(events, min_size=1, max_size=8))
def test_lookup_equals_meaning(policy, some_events):
    compiled = model(policy)
    for event in some_events:
        assert compiled.decide(event) == semantics.decide(policy, event, TODAY)


@given(policies(), events, st.randoms())
def test_order_of_rules_is_irrelevant(policy, event, chance):
    rules = list(policy.rules)
    chance.shuffle(rules)
    other = policy._replace(rules=tuple(rules))
    assert semantics.decide(other, event, TODAY) == semantics.decide(policy, event, TODAY)
    assert tables.compile_policy(other, TODAY).digest() == tables.compile_policy(policy, TODAY).digest()


@given(policies(), events)
def test_a_rule_more_never_allows(policy, event):
    severity = ("allow", "audit", "deny").index
    for less in itertools.combinations(policy.rules, max(len(policy.rules) - 1, 0)):
        fewer = semantics.decide(policy._replace(rules=less), event, TODAY)
        assert severity(fewer.outcome) <= severity(semantics.decide(policy, event, TODAY).outcome)


@given(policies(), events)
def test_an_exception_frees_only_whom_it_names(policy, event):
    without = policy._replace(rules=tuple(rule._replace(excepts=frozenset()) for rule in policy.rules))
    if semantics.decide(policy, event, TODAY) != semantics.decide(without, event, TODAY):
        assert any(semantics.excepts(policy, rule, event.task) for rule in policy.rules)


@given(policies(), tamper_events)
def test_a_rule_more_never_allows_tampering(policy, event):
    severity = ("allow", "audit", "deny").index
    for less in itertools.combinations(policy.rules, max(len(policy.rules) - 1, 0)):
        fewer = semantics.decide(policy._replace(rules=less), event, TODAY)
        assert severity(fewer.outcome) <= severity(semantics.decide(policy, event, TODAY).outcome)


@given(policies(), tamper_events)
def test_audit_never_denies_real_root(policy, event):
    audit = policy._replace(rules=tuple(rule._replace(audit=True) for rule in policy.rules))
    assert semantics.decide(audit, event._replace(root=True), TODAY).outcome != "deny"


def labelled(*rules):
    subjects = {
        "root": records.SubjectSet(users=frozenset([0])),
        "reader elsewhere": records.SubjectSet(users=frozenset([7]), has_read=frozenset(["secret"])),
    }
    secret = {"secret": records.ResourceSet(frozenset([records.PathPattern(1, ("secret",))]))}
    return records.Resolved(rules, subjects, secret, {}, frozenset([1]))


def of(name, subject, audit, **more):
    return records.Rule(name, frozenset(["mount"]), subjects=frozenset([subject]), audit=audit, **more)


ENFORCED, REPORTED = of("on labels", "reader elsewhere", False), of("on labels", "reader elsewhere", True)
BINDS, REPORTS = of("on root", "root", False), of("on root", "root", True)
OVER = of("is over", "reader elsewhere", False, expires="2026-05-31")


@pytest.mark.parametrize(
    "rules, has_read, expected",
    [
        ((), False, ("allow", None)),
        ((), True, ("audit", None)),
        ((REPORTED,), False, ("allow", None)),
        ((REPORTED,), True, ("audit", None)),
        ((REPORTED, OVER), True, ("audit", None)),
        ((ENFORCED,), False, ("allow", None)),
        ((ENFORCED,), True, ("deny", None)),
        ((REPORTS,), True, ("audit", "on root")),
        ((REPORTED, REPORTS), True, ("audit", "on root")),
        ((ENFORCED, REPORTS), False, ("audit", "on root")),
        ((ENFORCED, REPORTS), True, ("deny", "on root")),
        ((REPORTED, BINDS), False, ("deny", "on root")),
    ],
)
def test_what_a_label_says_of_tampering(rules, has_read, expected):
    root = frozenset([0])
    task = records.Task(root, root, root, 0, (), None, frozenset(["secret"] if has_read else []))
    policy = labelled(*rules)
    for found in (model(policy).decide, lambda event: semantics.decide(policy, event, TODAY)):
        verdict = found(records.TamperEvent(task, True, None, False))
        assert (verdict.outcome, verdict.rule) == expected
        assert found(records.TamperEvent(task, False, None, False)).outcome == "deny"


def sending(negated, **body):
    destinations = {"set": records.DestinationSet(**{"cidrs": None, "ports": None, "protocols": None, **body})}
    rule = records.Rule("on sending", frozenset(["send"]), destinations=records.Selection(frozenset(["set"]), negated))
    return records.Resolved((rule,), {}, {}, destinations, frozenset([1]))


@pytest.mark.parametrize(
    "policy, denied",
    [
        (sending(False, cidrs=frozenset(["10.0.0.0/8"])), {layout.ALL_IPV4}),
        (sending(False, cidrs=frozenset(["239.0.0.0/8"])), {layout.GROUPS_IPV4, layout.ALL_IPV4}),
        (sending(False, cidrs=frozenset(["239.0.0.0/8"]), ports=frozenset([(53, 53)])), set()),
        (sending(False, cidrs=frozenset(["fd00::/8"]), protocols=frozenset([58])), {layout.ALL_IPV6}),
        (sending(False, cidrs=frozenset(["::/0"])), {layout.GROUPS_IPV6, layout.ALL_IPV6}),
        (sending(False), set(layout.RANGES)),
        (sending(True), set()),
        (sending(True, cidrs=frozenset(["224.0.0.251/32"])), set(layout.RANGES)),
        (sending(True, cidrs=frozenset(["224.0.0.0/4", "ff00::/8"])), {layout.ALL_IPV4, layout.ALL_IPV6}),
        (sending(True, cidrs=frozenset(["224.0.0.0/4"]), ports=frozenset([(5353, 5353)])), set(layout.RANGES)),
        (sending(True, cidrs=frozenset(["224.0.0.0/3"]), protocols=frozenset([2])), set(layout.RANGES) - {1}),
        (sending(True, cidrs=frozenset(["0.0.0.0/0", "::/0"])), set()),
    ],
)
def test_a_join_counts_as_sending_to_some_address(policy, denied):
    task = records.Task(frozenset([0]), frozenset([0]), frozenset([0]))
    for decide in (model(policy).decide, lambda event: semantics.decide(policy, event, TODAY)):
        found = {each for each in layout.RANGES if decide(records.JoinEvent(task, each)).outcome == "deny"}
        assert found == denied


@given(policies(), decided_by_rules)
def test_audit_never_denies(policy, event):
    audit = policy._replace(rules=tuple(rule._replace(audit=True) for rule in policy.rules))
    enforced = policy._replace(rules=tuple(rule._replace(audit=False) for rule in policy.rules))
    would, does = semantics.decide(audit, event, TODAY), semantics.decide(enforced, event, TODAY)
    assert would.outcome != "deny"
    assert (would.rule, would.reason, would.outcome == "audit") == (does.rule, does.reason, does.outcome == "deny")


class ForgetsExceptions(kernel_model.PythonCore):
    def exempting_sets(self, policy, who):
        return 0


class MatchesAnyKey(kernel_model.PythonCore):
    def _sets(self, policy, *found):
        return super()._sets(policy, *found) | found[0]


class IgnoresAudit(kernel_model.PythonCore):
    def decide(self, bound, covers, of_action, audit):
        return super().decide(bound, covers, of_action, 0)


@pytest.mark.parametrize("core", [ForgetsExceptions, MatchesAnyKey, IgnoresAudit])
def test_a_wrong_decision_is_found(core):
    """The comparison has teeth: each of these mistakes shows within a few hundred policies."""

    @settings(max_examples=3000, phases=[Phase.generate])
    @given(policies(), events)
    def compare(policy, event):
        assert model(policy, core()).decide(event) == semantics.decide(policy, event, TODAY)

    with pytest.raises(AssertionError):
        compare()


@given(policies(), locations)
def test_what_reading_an_object_gives_is_what_the_policy_means(policy, where):
    assert model(policy).labels_of(where) == semantics.labels(policy, where)
