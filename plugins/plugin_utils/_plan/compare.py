# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which decisions differ between two policies: what gets stricter and what gets weaker. Private to this collection.

Rules that mean the same in both, whatever they are called, are set aside: an event that one of them decides is decided
alike. For the others the semantics is asked about an example of every kind of task and object that the sets involved
tell apart, under both policies. Where there are too many kinds, a direction can still be ruled out by structure: a
policy whose rules all have their equal or a wider one in the other is not the stricter one. What neither settles is
told as open."""

from __future__ import annotations

import datetime
from typing import Any, Callable, Iterable, NamedTuple, Sequence, Tuple

from ansible_collections.exfil.guard.plugins.module_utils._guard.explain import witnesses
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions, model, semantics

DIRECTIONS = ("stricter", "weaker")
_SEVERITY = ("allow", "audit", "deny").index
_NOBODY = model.Task(frozenset(), frozenset(), frozenset())
SHOWN = 3  # objects named in one line

Policies = Tuple[model.Resolved, model.Resolved]


class Change(NamedTuple):
    """Decisions that end otherwise. ``rule``: the one that denies or reports in the stricter policy. ``since``: the
    day (ISO) from which they do, None: now. ``example``: one such task and object."""

    direction: str  # of DIRECTIONS
    actions: tuple[str, ...]
    who: str
    what: str
    before: str  # outcome: allow, audit or deny
    after: str
    rule: str | None
    since: str | None
    example: str

    def __str__(self) -> str:
        what = f" → {self.what}" if self.what else ""
        since = f", from {self.since} on" if self.since else ""
        rule = f" (rule '{self.rule}')" if self.rule else ""
        return f"{', '.join(self.actions)}: {self.who}{what}: {self.before} → {self.after}{since}{rule}"


class Comparison(NamedTuple):
    """``methods``: for each action whose rules differ, how it was decided: `examples` (of every kind) or `structure`.
    ``open``: directions that could not be ruled out, as 'weaker: connect'."""

    changes: tuple[Change, ...]
    methods: dict[str, str]
    open: tuple[str, ...]


class _Case(NamedTuple):
    """One kind of object, and whom the policies treat differently there."""

    action: str
    what: str
    untold: bool
    who: str
    before: model.Verdict
    after: model.Verdict
    since: str | None
    example: str


def compare(
    before: model.Resolved,
    after: model.Resolved,
    today: datetime.date,
    name: Callable[[str, int], str] = lambda kind, number: str(number),
    limit: int = witnesses.LIMIT,
) -> Comparison:
    """``before`` and ``after`` are resolved by the same system. ``name``: of a `user` or `group` by its number;
    ``limit``: most kinds of tasks to look at in one place."""
    cases: list[_Case] = []
    methods: dict[str, str] = {}
    left: set = set()
    seen: dict[str, list[Any]] = {}
    for day in _days((before, after), today):
        for action in sorted({action for policy in (before, after) for rule in policy.rules for action in rule.deny}):
            rules = tuple(_of(policy, action, day) for policy in (before, after))
            meanings = [{_meaning(policy, rule, action) for rule in mine}
                        for policy, mine in zip((before, after), rules)]  # fmt: skip
            if meanings[0] == meanings[1] or meanings in seen.setdefault(action, []):
                continue
            seen[action].append(meanings)
            since = None if day == today else day.isoformat()
            found, whole = _cases((before, after), rules, meanings, action, day, since, name, limit)
            cases.extend(found)
            methods[action] = "examples" if whole and methods.get(action) != "structure" else "structure"
            if not whole:
                told = {_direction(case.before, case.after) for case in found}
                possible = [word for word, less, more in (("stricter", *meanings[::-1]), ("weaker", *meanings))
                            if word not in told and not _held(less, more)]  # fmt: skip
                left.update(f"{word}: {action}" for word in possible)
    cases.extend(_labels((before, after)))
    return Comparison(_folded(cases), methods, tuple(sorted(left)))


def _days(policies: Policies, today: datetime.date) -> list[datetime.date]:
    """Today, and each day on which a rule ends."""
    ends = {rule.expires for policy in policies for rule in policy.rules if rule.expires}
    return [today, *sorted(day for day in map(datetime.date.fromisoformat, ends) if day > today)]


def _of(policy: model.Resolved, action: str, day: datetime.date) -> list[model.Rule]:
    return [rule for rule in policy.rules if action in rule.deny and semantics.in_force(rule, day)]


# ---- what rules mean, without the names of sets ----------------------------------------------------------------------


class _Meaning(NamedTuple):
    subjects: frozenset | None
    excepts: frozenset
    objects: frozenset
    negated: bool
    audit: bool


def _selection(rule: model.Rule, action: str) -> model.Selection | None:
    if action in actions.RESOURCES:
        return rule.resources
    return rule.destinations if action in actions.DESTINATIONS else None


def _kind(policy: model.Resolved, action: str) -> dict[str, Any]:
    if action in actions.RESOURCES:
        return policy.resources
    return policy.destinations if action in actions.DESTINATIONS else {}


def _meaning(policy: model.Resolved, rule: model.Rule, action: str) -> _Meaning:
    chosen = _selection(rule, action)
    return _Meaning(
        None if rule.subjects is None else frozenset(policy.subjects[name] for name in rule.subjects),
        frozenset(policy.subjects[name] for name in rule.excepts),
        frozenset(_kind(policy, action)[name] for name in chosen.names) if chosen else frozenset(),
        bool(chosen and chosen.negated),
        rule.audit,
    )


def _held(less: Iterable[_Meaning], more: Iterable[_Meaning]) -> bool:
    """Is each of the rules there again, or a wider one in its stead?"""
    return all(any(_wider(other, one) for other in more) for one in less)


def _wider(one: _Meaning, other: _Meaning) -> bool:
    return (
        (one.subjects is None or (other.subjects is not None and one.subjects >= other.subjects))
        and one.excepts <= other.excepts
        and one.negated == other.negated
        and (one.objects <= other.objects if one.negated else one.objects >= other.objects)
        and (not one.audit or other.audit)
    )


# ---- by examples -----------------------------------------------------------------------------------------------------


class _Sets(NamedTuple):
    bodies: list[Any]
    names: list[str]


def _sets(policies: Policies, kind: str, chosen: Sequence[Iterable[str]]) -> _Sets:
    """The sets of both policies that are named, each body once. Of a name that means something else in the other
    policy it is said which of the two is meant."""
    found: dict[Any, str] = {}
    for policy, names, word in zip(policies, chosen, ("before", "after")):
        mine, other = getattr(policy, kind), getattr(policies[0 if word == "after" else 1], kind)
        for name in sorted(names):
            differs = name in other and other[name] != mine[name]
            found.setdefault(mine[name], f"{name} ({word})" if differs else name)
    return _Sets(list(found), list(found.values()))


def _cases(policies: Policies, rules, meanings, action: str, day, since, name, limit) -> tuple[list[_Case], bool]:
    differing = [[rule for rule in mine if _meaning(policy, rule, action) not in meanings[1 - index]]
                 for index, (policy, mine) in enumerate(zip(policies, rules))]  # fmt: skip
    kind = "resources" if action in actions.RESOURCES else "destinations"
    chosen = [
        {each for rule in mine for each in (_selection(rule, action) or model.Selection(frozenset())).names}
        for mine in rules
    ]
    objects = _sets(policies, kind, chosen)
    known = policies[0].superblocks | policies[1].superblocks
    groups: dict[tuple[frozenset, frozenset], list[witnesses.ObjectKind]] = {}
    for each in witnesses.objects(action, objects.bodies, known):
        if any(_covering(policy, mine, each, day) for policy, mine in zip(policies, differing)):
            both = tuple(frozenset(_covering(policy, mine, each, day)) for policy, mine in zip(policies, rules))
            groups.setdefault(both, []).append(each)
    found: list[_Case] = []
    whole = True
    for covering, places in groups.items():
        who = [{name for rule in mine for name in (*(rule.subjects or ()), *rule.excepts)} for mine in covering]
        subjects = _sets(policies, "subjects", who)
        tasks, complete = witnesses.tasks(subjects.bodies, known, limit)
        whole = whole and complete
        asked = [policy._replace(rules=tuple(sorted(mine))) for policy, mine in zip(policies, covering)]
        verdicts = [tuple(semantics.decide(policy, places[0].event(task.task), day) for policy in asked)
                    for task in tasks]  # fmt: skip
        for told in sorted({(one.outcome, other.outcome) for one, other in verdicts if one.outcome != other.outcome}):
            changed = [index for index, both in enumerate(verdicts) if (both[0].outcome, both[1].outcome) == told]
            others = [task for index, task in enumerate(tasks) if index not in set(changed)]
            first = changed[0]
            text = witnesses.who(subjects.names, [tasks[index] for index in changed], others)
            example = witnesses.task_text(tasks[first].task, name)
            for place in places:
                inside = [each for bit, each in enumerate(objects.names) if place.inside >> bit & 1]
                found.append(
                    _Case(
                        action,
                        _told(place, inside),
                        place.untold,
                        text,
                        *verdicts[first],
                        since,
                        f"{example}{': ' if place.text else ''}{place.text}",
                    )
                )
    return found, whole


def _covering(policy: model.Resolved, rules: Iterable[model.Rule], place: witnesses.ObjectKind, day) -> list[Any]:
    """The rules that would deny it to everybody if they bound everybody: that is what covering means."""
    event, found = place.event(_NOBODY), []
    for rule in rules:
        alone = policy._replace(rules=(rule._replace(subjects=None, excepts=frozenset()),))
        if semantics.decide(alone, event, day).outcome != "allow":
            found.append(rule)
    return found


def _told(place: witnesses.ObjectKind, inside: list[str]) -> str:
    if place.untold or not place.text:
        return place.text
    return f"{' and '.join(inside) or 'anything else'}, as {place.text}"


def _labels(policies: Policies) -> list[_Case]:
    """What a task counts as having read of, once it has read something, where both policies ask for it."""
    asked = [frozenset(name for who in policy.subjects.values() for name in who.has_read or ()) for policy in policies]
    found = []
    for label in sorted(asked[0] & asked[1]):
        bodies = [policy.resources[label] for policy in policies]
        if bodies[0] == bodies[1]:
            continue
        for where, _mask in witnesses.places([each.paths for each in bodies],
                                            policies[0].superblocks | policies[1].superblocks):  # fmt: skip
            both = [label in semantics.labels(policy, where) for policy in policies]
            if both[0] != both[1]:
                verdicts = [model.Verdict("deny" if each else "allow", None) for each in both]
                text = witnesses.path_text(where)
                found.append(_Case(f"to have read {label}", f"by reading, as {text}", False, "everyone", *verdicts,
                                   None, text))  # fmt: skip
    return found


# ---- told ------------------------------------------------------------------------------------------------------------


def _direction(before: model.Verdict, after: model.Verdict) -> str:
    return "stricter" if _SEVERITY(after.outcome) > _SEVERITY(before.outcome) else "weaker"


def _folded(cases: Sequence[_Case]) -> tuple[Change, ...]:
    """One change for what differs in nothing but the action or the object. What can't be told where it is follows the
    other objects of a rule, and is told only where there are none."""
    plain = {(case.action, _direction(case.before, case.after)) for case in cases if not case.untold}
    objects: dict[tuple[Any, ...], list[_Case]] = {}
    for case in cases:
        direction = _direction(case.before, case.after)
        if not case.untold or (case.action, direction) not in plain:
            rule = (case.after if direction == "stricter" else case.before).rule
            key = (direction, case.action, case.who, case.before.outcome, case.after.outcome, rule, case.since)
            objects.setdefault(key, []).append(case)
    folded: dict[tuple[Any, ...], list[str]] = {}
    for (direction, action, *rest), found in objects.items():
        what = list(dict.fromkeys(case.what for case in found))
        more = f" and {len(what) - SHOWN} more" if len(what) > SHOWN else ""
        folded.setdefault((direction, "; ".join(what[:SHOWN]) + more, found[0].example, *rest), []).append(action)
    changes = [
        Change(direction, tuple(acting), who, what, before, after, rule, since, example)
        for (direction, what, example, who, before, after, rule, since), acting in folded.items()
    ]
    return tuple(sorted(changes, key=lambda each: (DIRECTIONS.index(each.direction), each.since or "", each)))
