# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the program that was extracted from the proof. It encodes questions as JSON and decodes the answers; answer.ml
has the other half of the format."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterable, List, Mapping, NamedTuple, Sequence, TypeVar

from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions, model, semantics

PROGRAM = Path(__file__).resolve().parents[2] / ".build" / "proof" / "correspondence" / "answer"
# a subject set that no task is in and no rule names
NOBODY = model.SubjectSet(*(frozenset() for _ in model.SubjectSet._fields))
Form = List[Any]  # JSON
T = TypeVar("T")


class Written(NamedTuple):
    """A policy with its rules and sets in the order of their bits."""

    policy: model.Resolved
    rules: tuple[str, ...]
    who: tuple[str, ...]


class Question(NamedTuple):
    """What is asked about one policy."""

    written: Written
    labels: Mapping[str, int]  # name: bit
    tables: bool  # whether to return the tables
    events: Sequence[model.Event] = ()
    objects: Sequence[model.Location] = ()


class Answer(NamedTuple):
    """The answers of the extracted program."""

    valid: bool  # compile_correct is about this policy
    tables: Form | None  # in the format of say_image in answer.ml
    decided: list[tuple[bool, model.Verdict, model.Verdict]]  # possible, by the meaning, by the tables
    read: list[tuple[frozenset[str], int]]  # names of labels by the meaning; bits by the tables


def plain(policy: model.Resolved) -> Written:
    """The policy without the canary."""
    return Written(policy, tuple(sorted(rule.name for rule in policy.rules)), tuple(sorted(policy.subjects)))


def with_canaries(policy: model.Resolved, canary: model.PathPattern | None, now: datetime.date) -> Written:
    """The policy with explicit rules for what compile_policy adds for the canary: after all other rules, and with a
    subject set in its own place."""
    denied = {action for rule in policy.rules if semantics.in_force(rule, now) for action in rule.deny}
    mine = frozenset([layout.CANARY_FILE_RULE])
    resources, destinations, subjects = dict(policy.resources), dict(policy.destinations), dict(policy.subjects)
    added, superblocks = [], policy.superblocks | ({canary.device} if canary else set())
    if canary and denied.intersection(actions.FILES):
        resources[layout.CANARY_FILE_RULE] = model.ResourceSet(frozenset([canary]))
        added.append(model.Rule(layout.CANARY_FILE_RULE, frozenset(["read"]), mine, resources=model.Selection(mine)))
    if denied.intersection(actions.NETWORK):
        destinations[layout.CANARY_NETWORK_RULE] = model.DestinationSet(
            cidrs=frozenset([layout.CANARY_ADDRESS + "/32"])
        )
        there = model.Selection(frozenset([layout.CANARY_NETWORK_RULE]))
        added.append(model.Rule(layout.CANARY_NETWORK_RULE, frozenset(["connect"]), mine, destinations=there))
    rules, who = plain(policy)[1:]
    if added:
        free = [f"nobody {place}" for place in range(len(who), layout.CANARY_SET)]
        subjects.update(dict.fromkeys(free, NOBODY))
        subjects[layout.CANARY_FILE_RULE] = model.SubjectSet(users=frozenset([layout.CANARY_USER]))
        who += (*tuple(free), layout.CANARY_FILE_RULE)
    whole = policy._replace(rules=policy.rules + tuple(added), subjects=subjects, resources=resources,
                            destinations=destinations, superblocks=superblocks)  # fmt: skip
    return Written(whole, rules + tuple(rule.name for rule in added), who)


def ask(questions: Sequence[Question], now: datetime.date, program: Path = PROGRAM) -> list[Answer]:
    """The answers to the questions. Raises CalledProcessError when the program rejects a question."""
    forms = [_Form(question.written) for question in questions]
    asked = (form.question(question, now) for form, question in zip(forms, questions))
    lines = [json.dumps(form, separators=(",", ":")) for form in asked]
    done = subprocess.run([str(program)], input="\n".join(lines) + "\n", stdout=subprocess.PIPE, check=True, text=True)
    answers = done.stdout.splitlines()
    if len(answers) != len(questions):
        raise ValueError(f"{len(questions)} questions, {len(answers)} answers")
    return [form.answer(json.loads(line)) for form, line in zip(forms, answers)]


@functools.lru_cache(maxsize=4096)
def _component(text: str) -> str:
    return os.fsencode(text).hex()


@functools.lru_cache(maxsize=65536)
def _address(text: str) -> Form:
    address = ipaddress.ip_address(text)
    return [address.version == 6, format(int(address), f"0{address.max_prefixlen}b")]


@functools.lru_cache(maxsize=65536)
def _cidr(text: str) -> Form:
    network = ipaddress.ip_network(text)
    six, bits = _address(str(network.network_address))
    return [six, bits[: network.prefixlen]]


def _maybe(values: Iterable[T] | None, form: Callable[[T], object]) -> Form | None:
    return None if values is None else [form(value) for value in values]


def _number(action: str) -> int:
    return actions.NUMBERS[action]


def _reason(trouble: str | None) -> int | None:
    return layout.REASONS.index(trouble) if trouble else None


def _path(components: model.Components) -> Form:
    return [_component(component) for component in components]


def _placed(pattern: model.PathPattern) -> Form:
    tree = pattern.components[-1:] == ("**",)
    head = pattern.components[:-1] if tree else pattern.components
    return [pattern.device, [None if component == "*" else _component(component) for component in head], tree]


def _location(where: model.Location | None) -> Form | None:
    return None if where is None else [where.device, _path(where.components), where.pseudo, _reason(where.trouble)]


class _Form:
    """The format of one policy's questions. Names are numbers: rules in the order of their bits, sets in any order."""

    def __init__(self, written: Written) -> None:
        self.written = written
        self.rules = {name: number for number, name in enumerate(written.rules)}
        self.sets: dict[str, int] = {}

    def name(self, name: str) -> int:
        """The number of a set."""
        return self.sets.setdefault(name, len(self.sets))

    def names(self, names: Iterable[str]) -> Form:
        """The numbers of sets."""
        return [self.name(name) for name in sorted(names)]

    def question(self, asked: Question, now: datetime.date) -> Form:
        """The question as JSON."""
        policy = self.written.policy
        resources = ((name, policy.resources[name].paths) for name in sorted(policy.resources))
        destinations = ((name, policy.destinations[name]) for name in sorted(policy.destinations))
        return [
            [
                [self.rule(rule) for rule in policy.rules],
                [[self.name(name), self.subject(policy.subjects[name])] for name in self.written.who],
                [[self.name(name), [_placed(pattern) for pattern in paths]] for name, paths in resources],
                [[self.name(name), self.destination(where)] for name, where in destinations],
                sorted(policy.superblocks),
                [_placed(pattern) for pattern in policy.tamper_paths],
            ],
            [[self.name(name), bit] for name, bit in asked.labels.items()],
            now.toordinal(),
            asked.tables,
            [[self.task(event.task), self.event(event)] for event in asked.events],
            [_location(where) for where in asked.objects],
        ]

    def subject(self, who: model.SubjectSet) -> Form:
        """A subject set."""
        return [_maybe(who.users, int), _maybe(who.login_users, int), _maybe(who.groups, int),
                _maybe(who.services, _path), _maybe(who.executables, _placed),
                _maybe(who.has_read, self.name)]  # fmt: skip

    @staticmethod
    def destination(where: model.DestinationSet) -> Form:
        """A destination set."""
        return [_maybe(where.cidrs, _cidr), _maybe(where.ports, list), _maybe(where.protocols, int),
                _maybe(where.vsock, list)]  # fmt: skip

    def selection(self, sets: model.Selection | None) -> Form | None:
        """The sets that a rule names."""
        return None if sets is None else [self.names(sets.names), sets.negated]

    def rule(self, rule: model.Rule) -> Form:
        """A rule."""
        day = rule.expires and datetime.date.fromisoformat(rule.expires).toordinal()
        return [self.rules[rule.name], [_number(action) for action in rule.deny],
                None if rule.subjects is None else self.names(rule.subjects), self.names(rule.excepts),
                self.selection(rule.resources), self.selection(rule.destinations), rule.audit, day]  # fmt: skip

    def task(self, task: model.Task) -> Form:
        """The task of an event."""
        return [list(task.users), list(task.groups), list(task.memberships), task.login_user,
                None if task.service is None else _path(task.service), _location(task.executable),
                self.names(task.labels), task.ids_truncated]  # fmt: skip

    @staticmethod
    def event(event: model.Event) -> Form:
        """An event without its task."""
        if isinstance(event, model.FileEvent):
            return ["file", _number(event.action), _location(event.location)]
        if isinstance(event, model.AliasEvent):
            return ["alias", _location(event.source), _location(event.target), event.directory]
        if isinstance(event, model.NetworkEvent):
            return ["network", _number(event.action), _address(event.address), event.port, event.protocol,
                    _reason(event.trouble)]  # fmt: skip
        if isinstance(event, model.VsockEvent):
            return ["vsock", event.cid, event.port]
        if isinstance(event, model.PlainEvent):
            return ["plain", _number(event.action)]
        if isinstance(event, model.JoinEvent):
            raise TypeError("the specification has no joins: tests/property compares them")
        return ["tamper", event.root, _location(event.location), event.below]

    def verdict(self, form: Form) -> model.Verdict:
        """A verdict."""
        outcome, rule, reason = form
        return model.Verdict(outcome, None if rule is None else self.written.rules[rule], layout.REASONS[reason])

    def answer(self, form: Form) -> Answer:
        """The answer to a question."""
        valid, tables, decided, read = form
        names = {number: name for name, number in self.sets.items()}
        return Answer(
            valid,
            tables,
            [(possible, self.verdict(meaning), self.verdict(lookup)) for possible, meaning, lookup in decided],
            [(frozenset(names[number] for number in given), int(bits, 16)) for given, bits in read],
        )
