# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers what a policy decides about an attempt, and who may make it. The reference semantics decides; nothing is
tried on the host."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import asdict, dataclass
from typing import Any, Callable, Iterable, NamedTuple, Protocol, Union

from ..errors import EnforcerError
from ..host import mountinfo
from ..policy import actions, semantics
from ..policy.model import (
    NO_ID,
    Components,
    FileEvent,
    Location,
    NetworkEvent,
    PlainEvent,
    Resolved,
    Rule,
    Task,
    VsockEvent,
)
from ..resolve import resolver
from . import witnesses

Event = Union[FileEvent, NetworkEvent, PlainEvent, VsockEvent]

_NO_TASK = Task(frozenset(), frozenset(), frozenset())
_DEFAULT_ACTIONS = 3  # of an address without an action: those about the other side of a connection
_HEADINGS = {"allow": "allowed to", "audit": "reported of", "deny": "denied to"}


class Host(resolver.HostNames, Protocol):
    """What is looked up on the host; host.system.System implements it."""

    def memberships(self, number: int) -> frozenset[int]:
        """The groups that a user has after login."""


class Mounts(Protocol):
    """What `location` needs of a host."""

    def mountinfo(self) -> str:
        """The text of /proc/self/mountinfo."""

    def realpath(self, path: str) -> str:
        """The path without symbolic links."""


class Attempt(NamedTuple):
    """One action on one object. ``object``: as the caller named it; ``event``: the attempt by a task."""

    action: str
    object: str
    event: Callable[[Task], Event]


@dataclass(frozen=True)
class RuleOutcome:
    """What a rule would decide if it were the only one."""

    name: str
    outcome: str
    reason: str


@dataclass(frozen=True)
class Decision:
    """The decision on one attempt of one task, with every rule that alone would deny or report it."""

    action: str
    object: str
    outcome: str
    rule: str | None
    reason: str
    rules: list[RuleOutcome]

    def to_json(self) -> dict[str, Any]:
        """Returns the decision for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class SubjectOutcome:
    """An outcome, and a description of the subjects that have it."""

    outcome: str
    rule: str | None
    who: str


@dataclass(frozen=True)
class Permissions:
    """For one attempt, who may make it. ``complete``: every kind of task was decided."""

    action: str
    object: str
    outcomes: list[SubjectOutcome]
    complete: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the permissions for JSON."""
        return asdict(self)


# ---- the question -------------------------------------------------------------------------------------------------


def location(system: Mounts, path: str) -> Location:
    """Returns where a path leads today, symbolic links followed. Raises EnforcerError."""
    if not path.startswith("/"):
        raise EnforcerError(f"{path!r} is not an absolute path", "Begin it with /")
    components = mountinfo.split(system.realpath(path))
    candidates = [
        mount
        for mount in mountinfo.visible(mountinfo.parse_mounts(system.mountinfo()))
        if mount.root is not None and components[: len(mount.point)] == mount.point
    ]
    if not candidates:
        raise EnforcerError(f"{path!r} is not on a known mount")
    mount = max(candidates, key=lambda mount: len(mount.point))
    return Location(
        mount.superblock, (mount.root or ()) + components[len(mount.point) :], mount.type in mountinfo.PSEUDO
    )


def _number(name: str, look_up: Callable[[str], int | None], kind: str) -> int:
    number = int(name) if name.isdigit() else look_up(name)
    if number is None:
        raise EnforcerError(f"unknown {kind} {name!r}")
    return number


def task(
    system: Host,
    *,
    user: str,
    groups: Iterable[str] | None = None,
    login_user: str | None = None,
    service: str | None = None,
    executable: str | None = None,
    has_read: Iterable[str] = (),
) -> Task:
    """Builds a task from the words of `exfil-guard explain`. Raises EnforcerError for unknown names."""
    number = _number(user, system.user, "user")
    members = set(system.memberships(number))
    members.update(_number(name, system.group, "group") for name in groups or ())
    cgroup: Components = ("user.slice", f"user-{number}.slice")
    if service:
        body = {"subjects": {"service": {"services": [service]}}, "rules": []}
        cgroup = sorted(resolver.resolve(body, system).subjects["service"].services or ())[0]
    login = NO_ID
    if login_user is not None:
        login = _number(login_user, system.user, "user")
    elif not service:
        login = number
    return Task(
        frozenset({number}),
        frozenset(members),
        frozenset(members),
        login,
        cgroup,
        location(system, executable) if executable else None,
        frozenset(has_read),
    )


def attempts(
    system: Mounts,
    *,
    path: str | None = None,
    address: str | None = None,
    port: int = 443,
    protocol: str | int = "tcp",
    action: str | None = None,
) -> list[Attempt]:
    """Returns one attempt for each action that fits the object. An address may be `vsock:CID`; an action without an
    object needs neither path nor address. Raises EnforcerError."""
    if path is not None and address is not None:
        raise EnforcerError("a path and an address exclude each other", "Name one of them")
    vsock = address is not None and address.startswith("vsock:")
    possible, what = _possible_actions(path, address, vsock)
    if action is None and path is None and address is None:
        raise EnforcerError(
            "a path, an address or an action without an object is required",
            f"Actions without an object are {', '.join(possible)}",
        )
    if action is not None and action not in possible:
        raise EnforcerError(f"{action!r} is not an action on {what}", f"Use one of {', '.join(possible)}")
    event = _event(system, path, address, port, protocol)
    text = path or address or ""
    if address and not vsock:
        text = f"{address} port {port}/{protocol}"
        possible = possible[:_DEFAULT_ACTIONS]
    chosen = (action,) if action else possible
    return [_attempt(name, text, event) for name in chosen]


def _possible_actions(path: str | None, address: str | None, vsock: bool) -> tuple[tuple[str, ...], str]:
    if path is not None:
        return (*actions.FILES, "unix-connect"), "a path"
    if vsock:
        return ("vsock",), "a vsock address"
    if address is not None:
        return tuple(actions.NETWORK), "an address"
    return tuple(actions.PLAIN), "nothing"


def _attempt(action: str, text: str, event: Callable[[Task, str], Event]) -> Attempt:
    return Attempt(action, text, lambda who: event(who, action))


def _event(
    system: Mounts, path: str | None, address: str | None, port: int, protocol: str | int
) -> Callable[[Task, str], Event]:
    if path is not None:
        where = location(system, path)
        return lambda who, action: FileEvent(who, action, where)
    if address is None:
        return PlainEvent
    try:
        if address.startswith("vsock:"):
            cid = int(address[len("vsock:") :])
            return lambda who, action: VsockEvent(who, cid, port)
        ipaddress.ip_address(address)
        number = resolver.parse_protocol(protocol)
    except ValueError as error:
        remedy = "Use an IPv4 or IPv6 address or vsock:CID, and a protocol such as tcp"
        raise EnforcerError(f"{error}", remedy) from error
    return lambda who, action: NetworkEvent(who, action, address or "", port, number)


# ---- the answer ---------------------------------------------------------------------------------------------------


def explain(resolved: Resolved, who: Task, now: datetime.date, tried: Iterable[Attempt]) -> list[Decision]:
    """Returns the decision on each attempt of a task."""
    decisions = []
    for attempt in tried:
        event = attempt.event(who)
        verdict = semantics.decide(resolved, event, now)
        rules = []
        for rule in resolved.rules:
            alone = semantics.decide(resolved._replace(rules=(rule,)), event, now)
            if alone.outcome != "allow":
                rules.append(RuleOutcome(rule.name, alone.outcome, alone.reason))
        decisions.append(Decision(attempt.action, attempt.object, verdict.outcome, verdict.rule, verdict.reason, rules))
    return decisions


def who_may(resolved: Resolved, now: datetime.date, tried: Iterable[Attempt]) -> list[Permissions]:
    """Returns for each attempt who may make it, whose attempt is reported and whose is denied, in the names of the
    policy's sets. One example of each kind of task is decided: see witnesses.tasks."""
    answers = []
    for attempt in tried:
        rules = tuple(rule for rule in resolved.rules if _covers(resolved, rule, attempt.event(_NO_TASK), now))
        names = sorted({name for rule in rules for name in (*(rule.subjects or ()), *rule.excepts)})
        kinds, complete = witnesses.tasks([resolved.subjects[name] for name in names], resolved.superblocks)
        groups: dict[tuple[str, str | None], list[witnesses.TaskKind]] = {}
        for kind in kinds:
            verdict = semantics.decide(resolved._replace(rules=rules), attempt.event(kind.task), now)
            groups.setdefault((verdict.outcome, verdict.rule), []).append(kind)
        outcomes = []
        for (outcome, rule_name), chosen in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] or "")):
            others = [kind for kind in kinds if kind not in chosen]
            outcomes.append(SubjectOutcome(outcome, rule_name, witnesses.describe_subjects(names, chosen, others)))
        answers.append(Permissions(attempt.action, attempt.object, outcomes, complete))
    return answers


def _covers(resolved: Resolved, rule: Rule, event: Event, now: datetime.date) -> bool:
    """Whether the rule would deny or report the event if it applied to every task."""
    everybody = rule._replace(subjects=None, excepts=frozenset())
    return semantics.decide(resolved._replace(rules=(everybody,)), event, now).outcome != "allow"


# ---- for people ---------------------------------------------------------------------------------------------------


def to_text(answers: Iterable[Decision]) -> str:
    """Returns decisions for people."""
    lines = []
    for answer in answers:
        lines.append(f"{answer.outcome:<5} {answer.action} {answer.object}".rstrip())
        for rule in answer.rules:
            verb = "denied by" if rule.outcome == "deny" else "reported by"
            reason = "" if rule.reason == "rule" else f" ({rule.reason})"
            lines.append(f"      {verb}: rule {rule.name!r}{reason}")
    return "\n".join(lines)


def who_to_text(answers: Iterable[Permissions]) -> str:
    """Returns permissions for people."""
    lines = []
    for answer in answers:
        lines.append(f"{answer.action} {answer.object}".rstrip())
        for entry in answer.outcomes:
            rule = f": rule {entry.rule!r}" if entry.rule else ""
            lines.append(f"      {_HEADINGS[entry.outcome]:<11} {entry.who}{rule}")
        if not answer.complete:
            lines.append("      (too many combinations of subjects: some were not evaluated)")
    return "\n".join(lines)
