# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Explains denials: why each was denied, and which change in which set would let it pass. Each change that is named is
checked: the reference semantics decides again with it."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, NamedTuple, Union

from .. import layout
from ..audit import aggregate, events, journal
from ..audit import record as audit_record
from ..audit.collector import CollectorStatus
from ..audit.record import Decision, Record
from ..errors import EnforcerError
from ..host import mountinfo
from ..host.protocols import Store, System
from ..host.stored import Stored
from ..kernel import pins
from ..kernel.protocol import Kernel
from ..policy import actions, semantics
from ..policy.model import (
    NO_ID,
    Components,
    DestinationSet,
    FileEvent,
    JoinEvent,
    Location,
    NetworkEvent,
    PathPattern,
    PlainEvent,
    Resolved,
    Rule,
    Selection,
    SubjectSet,
    Task,
    VsockEvent,
)
from ..resolve import encoding, resolver
from . import decision

Event = Union[FileEvent, JoinEvent, NetworkEvent, PlainEvent, VsockEvent]
# a join, by the address and the protocol of its record: see bpf/object/sockaddr.h
_ANNOUNCED = {
    ("224.0.0.0", 2): layout.GROUPS_IPV4,
    ("ff00::", 58): layout.GROUPS_IPV6,
    ("0.0.0.0", 2): layout.ALL_IPV4,
    ("::", 58): layout.ALL_IPV6,
}

_MAX_GROUPS = 3  # that are suggested
BUILT_IN = ("link-local", "loopback", "metadata", "multicast")  # destinations that no policy can change
# Reasons other than a rule: what happened, and a remedy. No change of a set helps.
REASONS = {
    "no-chain": "the file's path could not be determined: it has been unlinked, or lies outside of its filesystem's "
    "tree. Open it by a path",
    "too-deep": "the file lies deeper than 64 folders. Move it to a higher folder",
    "unknown-filesystem": "the filesystem was mounted after the policy was resolved. Wait a minute, or run "
    "exfil-guard refresh",
    "unstable": "folders above the file were being renamed all the time. Try again",
    "broken-map": "a table of the policy is damaged. Run exfil-guard status, and apply the policy again",
    "no-address": "the destination could not be determined: source routing, or an address that cannot be read. Use a "
    "plain address",
    "no-label": "the label of what was read could not be recorded. See the limits of has_read in "
    "docs/policy-language.md",
    "tamper": "the enforcer protects itself, whatever the rules say. Only root in the initial user namespace may "
    "modify it, or the switches of docs/kernel-switches.md, if no rule with subjects applies to that process. Nor may "
    "a process lift a rule from itself by its cgroup, its login user or the clock",
}


class Change(NamedTuple):
    """A change of the policy. ``text``: for people; ``policy``: the changed policy."""

    text: str
    policy: Resolved


@dataclass
class Explanation:
    """Why one record was denied. ``changes``: alternatives, each of which lets it pass this rule; ``also``: other rules
    that would then deny it; ``note``: why there are no changes."""

    record: Decision
    changes: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the explanation for `--json`."""
        return {**vars(self), "record": self.record.to_json()}


# ---- which denials ------------------------------------------------------------------------------------------------


def _selected(records: Iterable[Record], user: int | None, pid: int | None) -> list[Decision]:
    """``user``: the real, effective or login user."""
    return [
        record
        for record in records
        if isinstance(record, Decision)
        and (user is None or user in (record.uid, record.euid, record.login_uid))
        and (pid is None or pid in (record.pids or ()))
    ]


def denials(
    kernel: Kernel,
    system: System,
    store: Store,
    *,
    user: int | None,
    pid: int | None,
    limit: int,
    collector: CollectorStatus | None,
) -> list[Decision]:
    """Returns records, newest first: events in the ring buffer, which stay there, then those in the journal.
    ``collector``: None if this host has no audit unit, so that the journal has no records."""
    with pins.opened(kernel, pins.map_path(kernel, "events")) as fd, kernel.ring(fd, False) as ring:
        waiting = [data for data in ring.peek().records if events.readable(data)]
    view = audit_record.view(
        system,
        now=time.time(),
        boottime=kernel.boottime(),
        boot=kernel.boot_id(),
        host=socket.gethostname(),
        labels=audit_record.Documents(store).labels,
    )
    aggregator = aggregate.Aggregator(0, {})
    for data in waiting:
        aggregator.add(data, 0, view)
    records = _selected(reversed(aggregator.due(0)), user, pid)[:limit]
    if collector is None or len(records) >= limit:
        return records
    arguments: list[str] = []
    for key in ("uid", "euid", "login_uid") if user is not None else (None,):
        values: dict[str, int] = {} if key is None or user is None else {key: user}
        if pid is not None:
            values["pids"] = pid
        arguments += (["+"] if arguments else []) + journal.matches(audit_record.DECISION, **values)
    return records + _selected(journal.read(arguments, limit - len(records)), user, pid)


def user_number(system: System, name: str) -> int:
    """Returns the id of a user, who is given by name or number. Raises EnforcerError."""
    number = int(name) if name.isdigit() else system.user(name)
    if number is None:
        raise EnforcerError(f"unknown user {name!r}")
    return number


# ---- the event again ----------------------------------------------------------------------------------------------


def task(system: System, record: Decision) -> Task:
    """Rebuilds the task from the record. If the record has no groups, the user's own are taken."""
    groups = system.memberships(record.uid) if record.groups is None else record.groups
    members = frozenset(groups) | frozenset(() if record.gid is None else (record.gid,))
    return Task(
        frozenset({record.uid, record.uid if record.euid is None else record.euid}),
        members,
        members,
        NO_ID if record.login_uid is None else record.login_uid,
        mountinfo.split(record.cgroup) if record.cgroup else (),
        _location(system, record.executable),
        frozenset(record.labels or ()),
    )


def _location(system: System, path: str | None) -> Location | None:
    if not path or not path.startswith("/") or "\\" in path:
        return None  # truncated, on a filesystem without a mount, or with escaped bytes
    try:
        return decision.location(system, path)
    except EnforcerError:
        return None


def _address_event(who: Task, record: Decision, address: str) -> Event | None:
    try:
        protocol = resolver.parse_protocol(record.protocol or "")
    except ValueError:
        return None
    announced = _ANNOUNCED.get((address, protocol)) if record.action == "send" else None
    if announced is not None:
        return JoinEvent(who, announced)
    return NetworkEvent(who, record.action, address, record.port or 0, protocol)


def _event(system: System, record: Decision, rule: Rule) -> Event | None:
    """None: the record lacks something of the object."""
    who, action, address, path = task(system, record), record.action, record.address or "", record.path or ""
    if address.startswith("vsock:"):
        return VsockEvent(who, int(address[len("vsock:") :]), record.port or 0)
    if address:
        return _address_event(who, record, address)
    if path.startswith("@"):
        return FileEvent(who, "unix-connect", Location(layout.ABSTRACT, (path[1:],)))
    if path:
        where = _location(system, path)
        if action not in actions.RESOURCES:  # a link or rename: the rule decides by each of its actions on files
            action = next((name for name in actions.RESOURCES if name in rule.deny), "read")
        return FileEvent(who, action, where) if where else None
    return PlainEvent(who, action) if action in actions.PLAIN else None


# ---- what would have to change ------------------------------------------------------------------------------------


def explain_record(record: Decision, stored: Stored | None, system: System) -> Explanation:
    """``stored``: the record's generation; None: it is no longer stored."""
    if record.reason != "rule":
        return Explanation(record, note=REASONS.get(record.reason, record.reason))
    if stored is None:
        return Explanation(record, note=f"generation {record.generation} is no longer stored: its rules are unknown")
    resolved = encoding.from_json(stored.resolved)
    rule = next((entry for entry in resolved.rules if events.text(entry.name.encode()) == record.rule), None)
    if rule is None:
        return Explanation(record, note=f"generation {record.generation} has no such rule")
    event = _event(system, record, rule)
    day = datetime.date(*(int(part) for part in record.time[:10].split("-")))
    if event is None or _passes(resolved, rule, event, day):
        note = "the record is not sufficient to find a change: a path is truncated, or the kernel alone knows an id"
        return Explanation(record, note=note)
    candidates = _changes(resolved, rule, event, _denied_actions(record, rule), system, stored.document)
    changes = [
        change.text for change in candidates if _passes(change.policy, _rule(change.policy, rule.name), event, day)
    ]
    also = []
    for other in resolved.rules:
        if other.name != rule.name and not other.audit:
            other_event = _event(system, record, other)
            if other_event is not None and not _passes(resolved, other, other_event, day):
                also.append(other.name)
    return Explanation(record, changes, also)


def _denied_actions(record: Decision, rule: Rule) -> list[str]:
    """The rule's actions that denied it. A link or rename is denied by any of the rule's actions on files."""
    tried = {record.action} if record.action in actions.NUMBERS else set(actions.RESOURCES)
    return sorted(rule.deny & tried)


def _rule(policy: Resolved, name: str) -> Rule:
    return next(rule for rule in policy.rules if rule.name == name)


def _passes(policy: Resolved, rule: Rule, event: Event, now: datetime.date) -> bool:
    return semantics.decide(policy._replace(rules=(rule,)), event, now).outcome == "allow"


def _changes(
    policy: Resolved, rule: Rule, event: Event, denied: list[str], system: System, document: Mapping[str, Any]
) -> list[Change]:
    """Changes that may let the event pass: of the exceptions, of the subjects, of the objects, and of the rule's
    actions."""
    changes = itertools.chain(
        (_exempt_change(policy, name, event.task, system) for name in sorted(rule.excepts)),
        _unbind_change(policy, rule, event.task, system),
        _object_changes(policy, rule, event, system, document),
    )
    less = policy._replace(
        rules=tuple(
            entry if entry.name != rule.name else entry._replace(deny=rule.deny - set(denied)) for entry in policy.rules
        )
    )
    return [*changes, Change(f"rule {rule.name!r}, `deny`: without {', '.join(denied)}", less)]


def _with_subject(policy: Resolved, name: str, subjects: SubjectSet) -> Resolved:
    return policy._replace(subjects={**policy.subjects, name: subjects})


def _user(system: System, number: int) -> str:
    name = system.user_name(number)
    return events.text(name.encode("utf-8", "surrogateescape")) if name else str(number)


def _users(system: System, numbers: Iterable[int]) -> str:
    return ", ".join(_user(system, number) for number in sorted(numbers))


def _group(system: System, number: int) -> str:
    return system.group_name(number) or str(number)


def _path(parts: Components) -> str:
    return "/" + "/".join(parts)


def _exempt_change(policy: Resolved, name: str, who: Task, system: System) -> Change:
    """Extends a set that the rule excepts, so that it includes the task."""
    subjects, texts = policy.subjects[name], []
    if subjects.users is not None and not who.users <= subjects.users:
        texts.append(f"`users` with {_users(system, who.users - subjects.users)}")
        subjects = subjects._replace(users=subjects.users | who.users)
    if subjects.groups is not None and not subjects.groups & who.memberships:
        groups = sorted(who.memberships)
        texts.append(f"`groups` with {' or '.join(_group(system, group) for group in groups[:_MAX_GROUPS])}")
        subjects = subjects._replace(groups=subjects.groups | frozenset(groups[:1]))
    if subjects.login_users is not None and who.login_user not in (*subjects.login_users, NO_ID):
        texts.append(f"`login_users` with {_user(system, who.login_user)}")
        subjects = subjects._replace(login_users=subjects.login_users | {who.login_user})
    unit = _unit(who)
    if subjects.services is not None and unit and not semantics._in_service(subjects.services, unit):
        texts.append(f"`services` with {unit[-1]}")
        subjects = subjects._replace(services=subjects.services | {unit})
    program = who.executable
    if subjects.executables is not None and program and not semantics._matches(subjects.executables, program):
        texts.append("`executables` with its program")
        subjects = subjects._replace(executables=subjects.executables | {_pattern(program)})
    return Change(
        f"subjects {name!r}, which the rule excepts: {' and '.join(texts)}", _with_subject(policy, name, subjects)
    )


def _unit(who: Task) -> Components:
    """The cgroup of the system service that the task belongs to. A session ends, and a user's own service has no name
    among the system's services."""
    for index, part in enumerate(who.service or ()):
        if part.endswith(".service"):
            return (who.service or ())[: index + 1]
    return ()


def _pattern(where: Location) -> PathPattern:
    return PathPattern(where.device, where.components)


def _unbind_change(policy: Resolved, rule: Rule, who: Task, system: System) -> list[Change]:
    """Shrinks every set that makes the rule apply to the task, so that none includes it."""
    texts, changed = [], policy
    for name in sorted(rule.subjects or ()):
        if semantics._may_be(policy, name, who):
            text, subjects = _without_task(policy.subjects[name], who, system)
            if text:
                texts.append(f"subjects {name!r}: {text}")
            changed = _with_subject(changed, name, subjects)
    return [Change(" and ".join(texts), changed)] if texts else []


def _without_task(subjects: SubjectSet, who: Task, system: System) -> tuple[str, SubjectSet]:
    """Removes the task by one key of the set: all keys must hold for a task in it."""
    text = ""
    if subjects.users is not None:
        text = f"`users` without {_users(system, subjects.users & who.users)}"
        subjects = subjects._replace(users=subjects.users - who.users)
    elif subjects.groups is not None:
        groups = ", ".join(_group(system, group) for group in sorted(subjects.groups & who.groups))
        text = f"`groups` without {groups}, or the user removed from it"
        subjects = subjects._replace(groups=subjects.groups - who.groups)
    elif subjects.login_users is not None:
        text = f"`login_users` without {_user(system, who.login_user)}"
        subjects = subjects._replace(login_users=subjects.login_users - {who.login_user})
    elif subjects.services is not None and who.service is not None:
        removed = frozenset(path for path in subjects.services if who.service[: len(path)] == path)
        text = f"`services` without {', '.join(sorted((path or ('-.slice',))[-1] for path in removed))}"
        subjects = subjects._replace(services=subjects.services - removed)
    elif subjects.executables is not None and who.executable is not None:
        text = f"`executables` without what matches {_path(who.executable.components)}"
        subjects = subjects._replace(executables=_without(subjects.executables, who.executable))
    elif subjects.has_read is not None:
        text = f"a process that has not read {', '.join(sorted(subjects.has_read & who.labels))}"
        subjects = subjects._replace(has_read=subjects.has_read - who.labels)
    return text, subjects


def _without(patterns: frozenset[PathPattern], where: Location) -> frozenset[PathPattern]:
    return frozenset(pattern for pattern in patterns if not semantics._matches((pattern,), where))


# ---- of the objects -----------------------------------------------------------------------------------------------


def _object_changes(
    policy: Resolved, rule: Rule, event: Event, system: System, document: Mapping[str, Any]
) -> list[Change]:
    if isinstance(event, FileEvent) and rule.resources:
        if rule.resources.negated:
            return _path_added(policy, rule.resources, event.location)
        return _path_removed(policy, rule.resources, event.location, system, document)
    if isinstance(event, NetworkEvent) and rule.destinations:
        if rule.destinations.negated:
            return _address_added(policy, rule.destinations, event)
        return _address_removed(policy, rule.destinations, event)
    if isinstance(event, JoinEvent) and rule.destinations and rule.destinations.negated:
        return _range_added(policy, rule.destinations, layout.RANGES[event.range])
    return []


def _with_paths(policy: Resolved, name: str, paths: frozenset[PathPattern]) -> Resolved:
    return policy._replace(resources={**policy.resources, name: policy.resources[name]._replace(paths=paths)})


def _path_added(policy: Resolved, selection: Selection, where: Location) -> list[Change]:
    return [
        Change(
            f"resources {name!r}: `paths` with this one",
            _with_paths(policy, name, policy.resources[name].paths | {_pattern(where)}),
        )
        for name in sorted(selection.names)
    ]


def _path_removed(
    policy: Resolved, selection: Selection, where: Location, system: System, document: Mapping[str, Any]
) -> list[Change]:
    texts, result = [], policy
    mounts = mountinfo.visible(mountinfo.parse_mounts(system.mountinfo()))
    for name in sorted(selection.names):
        patterns = policy.resources[name].paths
        if semantics._matches(patterns, where):
            resources = (document.get("resources") or {}).get(name) or {}
            matching = [
                path
                for path in resources.get("paths", ())
                if semantics._matches(resolver.translate([path], mounts), where)
            ]
            matching += [
                "@" + socket_name
                for socket_name in resources.get("abstract_sockets", ())
                if semantics._matches(resolver.abstract([socket_name]), where)
            ]
            texts.append(f"resources {name!r}: `paths` without {', '.join(matching) or 'what matches this one'}")
            result = _with_paths(result, name, _without(patterns, where))
    return [Change(" and ".join(texts), result)] if texts else []


def _destinations(policy: Resolved, selection: Selection) -> list[tuple[str, DestinationSet]]:
    """The sets of addresses that a policy can change."""
    names = sorted(selection.names.difference(BUILT_IN))
    return [(name, policy.destinations[name]) for name in names if policy.destinations[name].vsock is None]


def _with_destination(policy: Resolved, name: str, body: DestinationSet) -> Resolved:
    return policy._replace(destinations={**policy.destinations, name: body})


def _holds(cidr: str, event: NetworkEvent) -> bool:
    network = ipaddress.ip_network(resolver.parse_cidr(event.address))
    return semantics._in(network[0], cidr)


def _keys_that_hold(body: DestinationSet, event: NetworkEvent) -> dict[str, bool]:
    """For each key of a set, whether the event's address satisfies it."""
    return {
        "cidrs": body.cidrs is None or any(_holds(cidr, event) for cidr in body.cidrs),
        "ports": body.ports is None or any(first <= event.port <= last for first, last in body.ports),
        "protocols": body.protocols is None or event.protocol in body.protocols,
    }


def _address_added(policy: Resolved, selection: Selection, event: NetworkEvent) -> list[Change]:
    cidr, protocol = resolver.parse_cidr(event.address), events.protocol_name(event.protocol)
    changes = []
    for name, body in _destinations(policy, selection):
        texts = []
        holds = _keys_that_hold(body, event)
        if not holds["cidrs"]:
            texts.append(f"`cidrs` with {cidr}")
            body = body._replace(cidrs=(body.cidrs or frozenset()) | {cidr})  # noqa: PLW2901 -- extended key by key
        if not holds["ports"]:
            texts.append(f"`ports` with {event.port}")
            body = body._replace(ports=(body.ports or frozenset()) | {(event.port, event.port)})  # noqa: PLW2901
        if not holds["protocols"]:
            texts.append(f"`protocols` with {protocol}")
            body = body._replace(protocols=(body.protocols or frozenset()) | {event.protocol})  # noqa: PLW2901
        text = f"destinations {name!r}: {' and '.join(texts)}"
        changes.append(Change(text, _with_destination(policy, name, body)))
    return changes


def _range_added(policy: Resolved, selection: Selection, announced: str) -> list[Change]:
    return [
        Change(
            f"destinations {name!r}: `cidrs` with {announced}",
            _with_destination(policy, name, body._replace(cidrs=(body.cidrs or frozenset()) | {announced})),
        )
        for name, body in _destinations(policy, selection)
    ]


def _address_removed(policy: Resolved, selection: Selection, event: NetworkEvent) -> list[Change]:
    texts, result = [], policy
    for name, body in _destinations(policy, selection):
        if all(_keys_that_hold(body, event).values()):
            text, smaller = _without_address(body, event)
            if text:
                texts.append(f"destinations {name!r}: {text}")
            result = _with_destination(result, name, smaller)
    return [Change(" and ".join(texts), result)] if texts else []


def _without_address(body: DestinationSet, event: NetworkEvent) -> tuple[str, DestinationSet]:
    if body.cidrs is not None:
        removed = sorted(cidr for cidr in body.cidrs if _holds(cidr, event))
        return f"`cidrs` without {', '.join(removed)}", body._replace(cidrs=body.cidrs - set(removed))
    if body.ports is not None:
        ports = frozenset(ports for ports in body.ports if not ports[0] <= event.port <= ports[1])
        return f"`ports` without {event.port}", body._replace(ports=ports)
    if body.protocols is not None:
        text = f"`protocols` without {events.protocol_name(event.protocol)}"
        return text, body._replace(protocols=body.protocols - {event.protocol})
    return "", body


# ---- for people ---------------------------------------------------------------------------------------------------


def to_text(answers: Iterable[Explanation], generation: int) -> str:
    """``generation``: the one in force, 0 for none."""
    lines = []
    for answer in answers:
        record = answer.record
        lines.append(audit_record.to_line(record))
        if record.generation != generation:
            current = f"generation {generation}" if generation else "none"
            lines.append(f"      generation {record.generation} is no longer in force: {current} is")
        if answer.note:
            lines.append(f"      {answer.note}")
        if answer.changes:
            lines.append("      any one of these changes of the policy would let it pass:")
            lines.extend(f"        {text}" for text in answer.changes)
        if answer.also:
            rules = ", ".join(f"rule {name!r}" for name in answer.also)
            lines.append(f"      but only if these rules let it pass, too: {rules}")
    return "\n".join(lines) if lines else "nothing was denied"
