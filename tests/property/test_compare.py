# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever the comparison of two policies says changes does change, and whatever changes it says, or leaves open."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard.explain import witnesses
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions, model, semantics
from ansible_collections.exfil.guard.plugins.plugin_utils._plan import compare
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import decided_by_rules, policies

TODAY = datetime.date(2026, 6, 1)
DAYS = [TODAY, datetime.date(2026, 6, 2), datetime.date(2026, 6, 3)]
SEVERITY = ("allow", "audit", "deny").index
of_the_language = decided_by_rules.filter(lambda event: not isinstance(event, model.AliasEvent))
tries = settings(
    max_examples=min(settings().max_examples // 3, 1500), deadline=None, suppress_health_check=list(HealthCheck)
)


@st.composite
def neighbours(draw):
    """Two policies that have most of their rules and sets in common."""
    one, other = draw(policies()), draw(policies())
    kept = draw(st.frozensets(st.sampled_from(sorted(rule.name for rule in one.rules) or [""])))
    rules = tuple(rule for rule in one.rules if rule.name in kept)
    names = {rule.name for rule in rules}
    mixed = other._replace(rules=rules + tuple(rule for rule in other.rules if rule.name not in names))
    for kind in ("subjects", "resources", "destinations"):
        changed = draw(st.booleans())
        first, second = getattr(one, kind), getattr(other, kind)
        mixed = mixed._replace(**{kind: {**first, **second} if changed else {**second, **first}})
    return one, mixed


def told(comparison, day):
    """Direction and action of every change that is there on a day, and of what is left open."""
    found = {
        (each.direction, action)
        for each in comparison.changes
        for action in each.actions
        if each.since is None or each.since <= day.isoformat()
    }
    return found | {tuple(each.split(": ")) for each in comparison.open}


def missed(pair, events, **options):
    """Events that end otherwise, of which the comparison says nothing."""
    comparison = compare.compare(*pair, TODAY, **options)
    found = []
    for day in DAYS:
        for event in events:
            before, after = (SEVERITY(semantics.decide(policy, event, day).outcome) for policy in pair)
            join = isinstance(event, model.JoinEvent)  # decided as a send
            action = "send" if join else getattr(event, "action", "vsock")
            direction = "stricter" if after > before else "weaker"
            if after != before and (direction, action) not in told(comparison, day):
                found.append((day, event, direction))
    return found


@tries
@given(neighbours(), st.lists(of_the_language, min_size=1, max_size=12))
def test_no_change_goes_untold(pair, events):
    assert missed(pair, events) == []


@tries
@given(neighbours(), st.lists(of_the_language, min_size=1, max_size=12))
def test_not_either_where_there_are_too_many_kinds_of_tasks(pair, events):
    assert missed(pair, events, limit=4) == []


@tries
@given(policies())
def test_nothing_differs_from_itself(policy):
    rules = tuple(rule._replace(name=rule.name + " renamed") for rule in reversed(policy.rules))
    assert compare.compare(policy, policy._replace(rules=rules), TODAY) == ((), {}, ())


@tries
@given(neighbours())
def test_the_other_way_round_it_is_the_opposite(pair):
    there, back = compare.compare(*pair, TODAY), compare.compare(*reversed(pair), TODAY)
    opposite = {"stricter": "weaker", "weaker": "stricter"}
    assert {(opposite[each.direction], action, each.since) for each in there.changes for action in each.actions} == {
        (each.direction, action, each.since) for each in back.changes for action in each.actions
    }


@tries
@given(policies(), st.data())
def test_a_rule_less_is_weaker_or_nothing(policy, data):
    kept = data.draw(st.frozensets(st.sampled_from(policy.rules))) if policy.rules else frozenset()
    less = policy._replace(rules=tuple(rule for rule in policy.rules if rule in kept))
    assert {each.direction for each in compare.compare(policy, less, TODAY).changes} <= {"weaker"}


# ---- the test has teeth -----------------------------------------------------------------------------------------------


def policy_of(**rule):
    rule = model.Rule(
        **{
            "name": "one",
            "deny": frozenset(["connect"]),
            "subjects": frozenset(["s"]),
            "destinations": model.Selection(frozenset(["d"])),
            **rule,
        }
    )
    who = model.SubjectSet(groups=frozenset([500]))
    where = model.DestinationSet(ports=frozenset([(80, 90)]))
    return model.Resolved((rule,), {"s": who}, {}, {"d": where}, frozenset([1]))


NONE = policy_of()._replace(rules=())
MEMBER = model.Task(frozenset([1000]), frozenset([500]), frozenset([500]))
EVENT = model.NetworkEvent(MEMBER, "connect", "10.0.0.1", 80, 6)


def without_groups(sets, superblocks, limit):
    return {(witnesses._unasked(sets, "groups"),) * 2: {}}, True


@pytest.mark.parametrize("seeded", ["groups", "ports", "exceptions"])
def test_what_is_left_out_is_found(seeded, monkeypatch):
    pair = NONE, policy_of(**({"subjects": None} if seeded == "ports" else {}))
    if seeded == "exceptions":
        pair = policy_of(subjects=None), policy_of(subjects=None, excepts=frozenset(["s"]))
    assert missed(pair, [EVENT]) == []
    if seeded == "groups":
        monkeypatch.setattr(witnesses, "_groups", without_groups)
        monkeypatch.setattr(witnesses, "_cut_lists", lambda sets, every: {})
    elif seeded == "ports":
        whole = witnesses.endpoints
        monkeypatch.setattr(witnesses, "endpoints", lambda *of: [each for each in whole(*of) if each[1] == 443])
        monkeypatch.setattr(
            compare,
            "_grouped",
            lambda cases, group=compare._grouped: group([case for case in cases if not case.untold]),
        )
    else:
        meaning = compare._meaning
        monkeypatch.setattr(compare, "_meaning", lambda *of: meaning(*of)._replace(excepts=frozenset()))
    assert missed(pair, [EVENT]) != []


# ---- the examples are what they are said to be ------------------------------------------------------------------------


@tries
@given(policies())
def test_each_kind_of_task_is_in_the_sets_that_it_is_said_to_be_in(policy):
    names = sorted(policy.subjects)
    tasks, _whole = witnesses.tasks([policy.subjects[name] for name in names], policy.superblocks)
    assert len({(each.may, each.surely) for each in tasks}) == len(tasks)
    for each in tasks:
        for bit, name in enumerate(names):
            rule = model.Rule("one", frozenset(["mount"]), frozenset([name]), frozenset([name]))
            assert semantics.binds(policy, rule, each.task) == bool(each.may >> bit & 1)
            assert semantics.excepts(policy, rule, each.task) == bool(each.surely >> bit & 1)


@tries
@given(policies(), st.sampled_from(["read", "unix-connect", "connect", "bind", "vsock"]))
def test_each_kind_of_object_is_in_the_sets_that_it_is_said_to_be_in(policy, action):
    kind = "resources" if action in actions.RESOURCES else "destinations"
    sets = getattr(policy, kind)
    names = sorted(sets)
    task = model.Task(frozenset(), frozenset(), frozenset())
    for each in witnesses.objects(action, [sets[name] for name in names], policy.superblocks):
        event = each.event(task)
        own = action == "bind" and event.address in ("0.0.0.0", "::")
        for bit, name in enumerate(names) if not (each.untold or own) else ():
            rule = model.Rule("one", frozenset([action]), **{kind: model.Selection(frozenset([name]))})
            found = semantics.decide(policy._replace(rules=(rule,)), event, TODAY).outcome
            assert (found == "deny") == bool(each.inside >> bit & 1)
