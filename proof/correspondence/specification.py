# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the program that was extracted from the proof: records as it reads them (answer.ml has the other half of the
form), and its answers as records."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import json
import os
import subprocess
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions, model, semantics

PROGRAM = Path(__file__).resolve().parents[2] / ".build" / "proof" / "correspondence" / "answer"
# a place among the subject sets that nobody is in and no rule names
NOBODY = model.SubjectSet(*(frozenset() for _ in model.SubjectSet._fields))


class Written(NamedTuple):
    """A policy with its rules and sets in the order of their bits."""

    policy: model.Resolved
    rules: tuple[str, ...]
    who: tuple[str, ...]


class Question(NamedTuple):
    written: Written
    labels: Mapping[str, int]  # name: bit
    tables: bool  # are they wanted?
    events: Sequence[object] = ()
    objects: Sequence[model.Location] = ()


class Answer(NamedTuple):
    valid: bool  # compile_correct is about this policy
    tables: list | None  # as answer.ml's say_image
    decided: list[tuple[bool, model.Verdict, model.Verdict]]  # possible, by the meaning, by the tables
    read: list[tuple[frozenset, int]]  # names of labels by the meaning; bits by the tables


def plain(policy: model.Resolved) -> Written:
    return Written(policy, tuple(sorted(rule.name for rule in policy.rules)), tuple(sorted(policy.subjects)))


def with_canaries(policy: model.Resolved, canary: model.PathPattern | None, now: datetime.date) -> Written:
    """What compile_policy adds for the canary, written out as a policy would have it: after all other rules, and with a
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
        free = ["nobody %d" % place for place in range(len(who), layout.CANARY_SET)]
        subjects.update(dict.fromkeys(free, NOBODY))
        subjects[layout.CANARY_FILE_RULE] = model.SubjectSet(users=frozenset([layout.CANARY_USER]))
        who += (*tuple(free), layout.CANARY_FILE_RULE)
    whole = policy._replace(rules=policy.rules + tuple(added), subjects=subjects, resources=resources,
                            destinations=destinations, superblocks=superblocks)  # fmt: skip
    return Written(whole, rules + tuple(rule.name for rule in added), who)


def ask(questions: Sequence[Question], now: datetime.date, program: Path = PROGRAM) -> list[Answer]:
    """Raises CalledProcessError when the program does not take a question."""
    forms = [_Form(question.written) for question in questions]
    asked = (form.question(question, now) for form, question in zip(forms, questions))
    lines = [json.dumps(each, separators=(",", ":")) for each in asked]
    done = subprocess.run([str(program)], input="\n".join(lines) + "\n", stdout=subprocess.PIPE, check=True, text=True)
    answers = done.stdout.splitlines()
    if len(answers) != len(questions):
        raise ValueError("%d questions, %d answers" % (len(questions), len(answers)))
    return [form.answer(json.loads(line)) for form, line in zip(forms, answers)]


@functools.lru_cache(maxsize=4096)
def _component(text: str) -> str:
    return os.fsencode(text).hex()


@functools.lru_cache(maxsize=65536)
def _address(text: str) -> list:
    address = ipaddress.ip_address(text)
    return [address.version == 6, format(int(address), "0%db" % address.max_prefixlen)]


@functools.lru_cache(maxsize=65536)
def _cidr(text: str) -> list:
    network = ipaddress.ip_network(text)
    six, bits = _address(str(network.network_address))
    return [six, bits[: network.prefixlen]]


def _maybe(found, form):
    return None if found is None else [form(each) for each in found]


def _number(action: str) -> int:
    return actions.NUMBERS[action]


def _reason(trouble: str | None) -> int | None:
    return layout.REASONS.index(trouble) if trouble else None


def _path(components: model.Components) -> list:
    return [_component(each) for each in components]


def _placed(pattern: model.PathPattern) -> list:
    tree = pattern.components[-1:] == ("**",)
    head = pattern.components[:-1] if tree else pattern.components
    return [pattern.device, [None if each == "*" else _component(each) for each in head], tree]


def _location(where: model.Location | None) -> list | None:
    return where and [where.device, _path(where.components), where.pseudo, _reason(where.trouble)]


class _Form:
    """Names are numbers: those of rules in the order of their bits, those of sets in any."""

    def __init__(self, written: Written):
        self.written = written
        self.rules = {name: number for number, name in enumerate(written.rules)}
        self.sets: dict[str, int] = {}

    def name(self, name: str) -> int:
        return self.sets.setdefault(name, len(self.sets))

    def names(self, names) -> list:
        return [self.name(name) for name in sorted(names)]

    def question(self, asked: Question, now: datetime.date) -> list:
        policy = self.written.policy
        resources = ((name, policy.resources[name].paths) for name in sorted(policy.resources))
        destinations = ((name, policy.destinations[name]) for name in sorted(policy.destinations))
        return [
            [
                [self.rule(rule) for rule in policy.rules],
                [[self.name(name), self.subject(policy.subjects[name])] for name in self.written.who],
                [[self.name(name), [_placed(pattern) for pattern in paths]] for name, paths in resources],
                [[self.name(name), self.destination(found)] for name, found in destinations],
                sorted(policy.superblocks),
                [_placed(pattern) for pattern in policy.tamper_paths],
            ],
            [[self.name(name), bit] for name, bit in asked.labels.items()],
            now.toordinal(),
            asked.tables,
            [[self.task(event.task), self.event(event)] for event in asked.events],
            [_location(where) for where in asked.objects],
        ]

    def subject(self, who: model.SubjectSet) -> list:
        return [_maybe(who.users, int), _maybe(who.login_users, int), _maybe(who.groups, int),
                _maybe(who.services, _path), _maybe(who.executables, _placed),
                _maybe(who.has_read, self.name)]  # fmt: skip

    @staticmethod
    def destination(where: model.DestinationSet) -> list:
        return [_maybe(where.cidrs, _cidr), _maybe(where.ports, list), _maybe(where.protocols, int),
                _maybe(where.vsock, list)]  # fmt: skip

    def selection(self, found: model.Selection | None) -> list | None:
        return found and [self.names(found.names), found.negated]

    def rule(self, rule: model.Rule) -> list:
        day = rule.expires and datetime.date.fromisoformat(rule.expires).toordinal()
        return [self.rules[rule.name], [_number(action) for action in rule.deny],
                None if rule.subjects is None else self.names(rule.subjects), self.names(rule.excepts),
                self.selection(rule.resources), self.selection(rule.destinations), rule.audit, day]  # fmt: skip

    def task(self, task: model.Task) -> list:
        return [list(task.users), list(task.groups), list(task.memberships), task.login_user,
                None if task.service is None else _path(task.service), _location(task.executable),
                self.names(task.labels), task.ids_truncated]  # fmt: skip

    @staticmethod
    def event(event) -> list:
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
        return ["tamper", event.root, _location(event.location), event.below]

    def verdict(self, said: list) -> model.Verdict:
        outcome, rule, reason = said
        return model.Verdict(outcome, None if rule is None else self.written.rules[rule], layout.REASONS[reason])

    def answer(self, said: list) -> Answer:
        valid, tables, decided, read = said
        names = {number: name for name, number in self.sets.items()}
        return Answer(
            valid,
            tables,
            [(possible, self.verdict(meaning), self.verdict(found)) for possible, meaning, found in decided],
            [(frozenset(names[number] for number in given), int(bits, 16)) for given, bits in read],
        )
