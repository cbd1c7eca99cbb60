# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the decisions of two policies: which become stricter and which become weaker. Private to this collection.

Rules with the same meaning in both policies are ignored, whatever their names: they decide every event in the same way.
For the other rules, the semantics decides an example of every kind of task and object that the rules' sets distinguish,
under both policies. If there are too many kinds, a direction can be ruled out by structure: a policy is not stricter if
the other one has an equal or wider rule for each of its rules. A direction that neither method rules out is open."""

from __future__ import annotations

import datetime
from typing import Any, Callable, FrozenSet, Iterable, Mapping, NamedTuple, Sequence, Tuple

from ansible_collections.exfil.guard.plugins.module_utils._guard.explain import witnesses
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions, model, semantics

DIRECTIONS = ("stricter", "weaker")
_SEVERITY = ("allow", "audit", "deny").index
_ANY_TASK = model.Task(frozenset(), frozenset(), frozenset())
OBJECTS_SHOWN = 3  # in one line

Policies = Tuple[model.Resolved, model.Resolved]  # before and after
Naming = Callable[[str, int], str]
Covering = Tuple[FrozenSet[model.Rule], FrozenSet[model.Rule]]  # by policy, before and after


class Change(NamedTuple):
    """Decisions with different outcomes. ``direction``: of DIRECTIONS; ``before`` and ``after``: allow, audit or deny;
    ``rule``: the rule that denies or reports in the stricter policy; ``since``: the first day of the change in ISO
    format, None for today; ``example``: one of the tasks and objects."""

    direction: str
    actions: tuple[str, ...]
    who: str
    what: str
    before: str
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
    """All changed decisions. ``methods``: for each action whose rules differ, how it was compared: `examples` or
    `structure`. ``open``: directions that could not be ruled out, such as 'weaker: connect'."""

    changes: tuple[Change, ...]
    methods: dict[str, str]
    open: tuple[str, ...]


class _Case(NamedTuple):
    """A kind of object, and the subjects whose decision about it differs."""

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
    name: Naming = lambda kind, number: str(number),
    limit: int = witnesses.LIMIT,
) -> Comparison:
    """Compares two policies, which must be resolved by the same system. ``name``: names a `user` or `group` by its
    number. ``limit``: the maximum number of kinds of tasks for one kind of object."""
    policies = before, after
    cases: list[_Case] = []
    methods: dict[str, str] = {}
    open_directions: set[str] = set()
    compared: dict[str, list[tuple[set[_Meaning], set[_Meaning]]]] = {}
    for day in _days(policies, today):
        for action in sorted({action for policy in policies for rule in policy.rules for action in rule.deny}):
            question = _Question(policies, action, day, name, limit)
            meanings = question.meanings()
            if meanings[0] == meanings[1] or meanings in compared.setdefault(action, []):
                continue
            compared[action].append(meanings)
            found, complete = _cases(question, None if day == today else day.isoformat())
            cases.extend(found)
            methods[action] = "examples" if complete and methods.get(action) != "structure" else "structure"
            if not complete:
                open_directions.update(f"{direction}: {action}" for direction in _not_ruled_out(found, *meanings))
    cases.extend(_labels(policies))
    return Comparison(_grouped(cases), methods, tuple(sorted(open_directions)))


def _not_ruled_out(found: Iterable[_Case], before: set[_Meaning], after: set[_Meaning]) -> list[str]:
    """The directions without an example that the structure of the rules does not rule out."""
    shown = {_direction(case.before, case.after) for case in found}
    return [direction for direction, less, more in (("stricter", after, before), ("weaker", before, after))
            if direction not in shown and not _covered(less, more)]  # fmt: skip


def _days(policies: Policies, today: datetime.date) -> list[datetime.date]:
    """Today, and each later day on which a rule expires."""
    ends = {rule.expires for policy in policies for rule in policy.rules if rule.expires}
    return [today, *sorted(day for day in map(datetime.date.fromisoformat, ends) if day > today)]


def _rules(policy: model.Resolved, action: str, day: datetime.date) -> list[model.Rule]:
    return [rule for rule in policy.rules if action in rule.deny and semantics.in_force(rule, day)]


# ---- what rules mean, without the names of sets ----------------------------------------------------------------------


class _Meaning(NamedTuple):
    """A rule with its sets in place of their names."""

    subjects: frozenset[Any] | None
    excepts: frozenset[Any]
    objects: frozenset[Any]
    negated: bool
    audit: bool


def _selection(rule: model.Rule, action: str) -> model.Selection | None:
    if action in actions.RESOURCES:
        return rule.resources
    return rule.destinations if action in actions.DESTINATIONS else None


def _object_sets(policy: model.Resolved, action: str) -> Mapping[str, Any]:
    if action in actions.RESOURCES:
        resources: Mapping[str, Any] = policy.resources
        return resources
    return policy.destinations if action in actions.DESTINATIONS else {}


def _meaning(policy: model.Resolved, rule: model.Rule, action: str) -> _Meaning:
    chosen = _selection(rule, action)
    return _Meaning(
        None if rule.subjects is None else frozenset(policy.subjects[name] for name in rule.subjects),
        frozenset(policy.subjects[name] for name in rule.excepts),
        frozenset(_object_sets(policy, action)[name] for name in chosen.names) if chosen else frozenset(),
        bool(chosen and chosen.negated),
        rule.audit,
    )


def _covered(less: Iterable[_Meaning], more: Iterable[_Meaning]) -> bool:
    """Whether each rule of ``less`` has an equal or wider one in ``more``."""
    return all(any(_wider(other, one) for other in more) for one in less)


def _wider(one: _Meaning, other: _Meaning) -> bool:
    """Whether ``one`` denies at least what ``other`` denies."""
    return (
        (one.subjects is None or (other.subjects is not None and one.subjects >= other.subjects))
        and one.excepts <= other.excepts
        and one.negated == other.negated
        and (one.objects <= other.objects if one.negated else one.objects >= other.objects)
        and (not one.audit or other.audit)
    )


# ---- by examples -----------------------------------------------------------------------------------------------------


class _Question(NamedTuple):
    """What to compare: the decisions of two policies about an action on a day."""

    policies: Policies
    action: str
    day: datetime.date
    name: Naming
    limit: int

    def rules(self) -> tuple[list[model.Rule], list[model.Rule]]:
        before, after = self.policies
        return _rules(before, self.action, self.day), _rules(after, self.action, self.day)

    def meanings(self) -> tuple[set[_Meaning], set[_Meaning]]:
        before, after = ({_meaning(policy, rule, self.action) for rule in rules}
                         for policy, rules in zip(self.policies, self.rules()))  # fmt: skip
        return before, after

    def differing(self) -> list[list[model.Rule]]:
        """The rules of each policy without an equal rule in the other."""
        meanings = self.meanings()
        return [[rule for rule in rules if _meaning(policy, rule, self.action) not in meanings[1 - index]]
                for index, (policy, rules) in enumerate(zip(self.policies, self.rules()))]  # fmt: skip


class _Sets(NamedTuple):
    """Different sets, each with its name."""

    bodies: list[Any]
    names: list[str]


def _sets(policies: Policies, kind: str, chosen: Sequence[Iterable[str]]) -> _Sets:
    """The named sets of both policies, without duplicates. A name with a different meaning in the other policy gets a
    suffix."""
    sets: dict[Any, str] = {}
    for policy, names, suffix in zip(policies, chosen, ("before", "after")):
        own, other = getattr(policy, kind), getattr(policies[0 if suffix == "after" else 1], kind)
        for name in sorted(names):
            differs = name in other and other[name] != own[name]
            sets.setdefault(own[name], f"{name} ({suffix})" if differs else name)
    return _Sets(list(sets), list(sets.values()))


def _objects(question: _Question) -> tuple[_Sets, dict[Covering, list[witnesses.ObjectKind]]]:
    """The object sets, and the kinds of objects that a differing rule covers, by the rules that cover them."""
    rules, differing = question.rules(), question.differing()
    kind = "resources" if question.action in actions.RESOURCES else "destinations"
    names = [
        {name for rule in own for name in (_selection(rule, question.action) or model.Selection(frozenset())).names}
        for own in rules
    ]
    sets = _sets(question.policies, kind, names)
    groups: dict[Covering, list[witnesses.ObjectKind]] = {}
    for place in witnesses.objects(question.action, sets.bodies, _superblocks(question.policies)):
        if any(_covering(policy, own, place, question.day) for policy, own in zip(question.policies, differing)):
            before, after = (frozenset(_covering(policy, own, place, question.day))
                             for policy, own in zip(question.policies, rules))  # fmt: skip
            groups.setdefault((before, after), []).append(place)
    return sets, groups


def _cases(question: _Question, since: str | None) -> tuple[list[_Case], bool]:
    """The decisions that differ, and whether every kind of task was evaluated."""
    objects, groups = _objects(question)
    cases: list[_Case] = []
    complete = True
    for covering, places in groups.items():
        names = [{name for rule in own for name in (*(rule.subjects or ()), *rule.excepts)} for own in covering]
        subjects = _sets(question.policies, "subjects", names)
        tasks, every = witnesses.tasks(subjects.bodies, _superblocks(question.policies), question.limit)
        complete = complete and every
        before, after = (policy._replace(rules=tuple(sorted(own))) for policy, own in zip(question.policies, covering))
        events = [places[0].event(task.task) for task in tasks]
        verdicts = [
            (semantics.decide(before, event, question.day), semantics.decide(after, event, question.day))
            for event in events
        ]
        outcomes = [(first.outcome, second.outcome) for first, second in verdicts]
        for changed in sorted({pair for pair in outcomes if pair[0] != pair[1]}):
            indexes = [index for index, pair in enumerate(outcomes) if pair == changed]
            others = [task for task, pair in zip(tasks, outcomes) if pair != changed]
            who = witnesses.describe_subjects(subjects.names, [tasks[index] for index in indexes], others)
            example = witnesses.task_text(tasks[indexes[0]].task, question.name)
            for place in places:
                inside = [name for bit, name in enumerate(objects.names) if place.inside >> bit & 1]
                cases.append(
                    _Case(
                        question.action,
                        _what(place, inside),
                        place.untold,
                        who,
                        *verdicts[indexes[0]],
                        since,
                        f"{example}{': ' if place.text else ''}{place.text}",
                    )
                )
    return cases, complete


def _superblocks(policies: Policies) -> frozenset[int]:
    return frozenset(policies[0].superblocks | policies[1].superblocks)


def _covering(
    policy: model.Resolved, rules: Iterable[model.Rule], place: witnesses.ObjectKind, day: datetime.date
) -> list[model.Rule]:
    """The rules that cover the object: those that would deny or report it if they applied to all subjects."""
    event, covering = place.event(_ANY_TASK), []
    for rule in rules:
        alone = policy._replace(rules=(rule._replace(subjects=None, excepts=frozenset()),))
        if semantics.decide(alone, event, day).outcome != "allow":
            covering.append(rule)
    return covering


def _what(place: witnesses.ObjectKind, inside: list[str]) -> str:
    if place.untold or not place.text:
        return str(place.text)
    return f"{' and '.join(inside) or 'anything else'}, as {place.text}"


def _labels(policies: Policies) -> list[_Case]:
    """The files from which reading gives a label in only one of the policies, for labels of both."""
    used = [frozenset(name for who in policy.subjects.values() for name in who.has_read or ()) for policy in policies]
    cases = []
    for label in sorted(used[0] & used[1]):
        bodies = [policy.resources[label] for policy in policies]
        if bodies[0] == bodies[1]:
            continue
        for where, _mask in witnesses.places([body.paths for body in bodies], _superblocks(policies)):
            before, after = (label in semantics.labels(policy, where) for policy in policies)
            if before != after:
                text = witnesses.path_text(where)
                cases.append(
                    _Case(
                        f"to have read {label}",
                        f"by reading, as {text}",
                        False,
                        "everyone",
                        model.Verdict("deny" if before else "allow", None),
                        model.Verdict("deny" if after else "allow", None),
                        None,
                        text,
                    )
                )
    return cases


# ---- changes ---------------------------------------------------------------------------------------------------------


def _direction(before: model.Verdict, after: model.Verdict) -> str:
    return "stricter" if _SEVERITY(after.outcome) > _SEVERITY(before.outcome) else "weaker"


def _grouped(cases: Sequence[_Case]) -> tuple[Change, ...]:
    """One change for cases that differ only in the action or the object. Objects at an unknown place are omitted if the
    same action has changes at known places."""
    known = {(case.action, _direction(case.before, case.after)) for case in cases if not case.untold}
    by_action: dict[tuple[Any, ...], list[_Case]] = {}
    for case in cases:
        direction = _direction(case.before, case.after)
        if not case.untold or (case.action, direction) not in known:
            rule = (case.after if direction == "stricter" else case.before).rule
            key = (direction, case.action, case.who, case.before.outcome, case.after.outcome, rule, case.since)
            by_action.setdefault(key, []).append(case)
    groups: dict[tuple[Any, ...], list[str]] = {}
    for (direction, action, *rest), same in by_action.items():
        what = list(dict.fromkeys(case.what for case in same))
        more = f" and {len(what) - OBJECTS_SHOWN} more" if len(what) > OBJECTS_SHOWN else ""
        objects = "; ".join(what[:OBJECTS_SHOWN]) + more
        groups.setdefault((direction, objects, same[0].example, *rest), []).append(action)
    changes = [
        Change(direction, tuple(names), who, what, before, after, rule, since, example)
        for (direction, what, example, who, before, after, rule, since), names in groups.items()
    ]
    return tuple(sorted(changes, key=lambda change: (DIRECTIONS.index(change.direction), change.since or "", change)))
