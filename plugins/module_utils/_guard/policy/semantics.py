# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The meaning of a policy: one pure function over resolved names.

Assertions, `explain` and every differential test use this function. The kernel's programs must agree with it."""

from __future__ import annotations

import datetime
import ipaddress
import re
from typing import Callable, Iterable, Sequence, Union

from .. import layout
from . import actions, model

Covers = Callable[[model.Rule], bool]
CoversLocation = Callable[[model.Resolved, model.Rule, model.Location], bool]
CoversTree = Callable[[Sequence[model.Components], model.Components], bool]
Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
_IGMP, _ICMPV6 = 2, 58  # what the kernel announces groups by


def decide(policy: model.Resolved, event: model.Event, now: datetime.date) -> model.Verdict:
    """Decides one event. ``now``: the UTC date.

    An event is denied if and only if a rule in force denies its action, applies to the task, does not except the task,
    and covers the object. A rule in audit mode gives 'audit' instead of 'deny'."""
    if isinstance(event, model.TamperEvent):
        return _decide_tampering(policy, event, now)
    trouble, covers, tried = _object_of(policy, event)
    matching = [
        rule
        for rule in sorted(policy.rules)
        if in_force(rule, now)
        and rule.deny.intersection(tried)
        and binds(policy, rule, event.task)
        and not excepts(policy, rule, event.task)
        and (trouble or covers(rule))
    ]
    reason = trouble or "rule"
    for outcome, audit in (("deny", False), ("audit", True)):
        for rule in matching:
            if rule.audit is audit:
                return model.Verdict(outcome, rule.name, reason)
    return model.Verdict("allow")


def _object_of(
    policy: model.Resolved,
    event: model.FileEvent
    | model.AliasEvent
    | model.NetworkEvent
    | model.JoinEvent
    | model.VsockEvent
    | model.PlainEvent,
) -> tuple[str | None, Covers, tuple[str, ...]]:
    """Why the object is unknown (None: it is known), whether a rule covers the object, and the actions attempted."""
    if isinstance(event, model.PlainEvent):
        return None, lambda _rule: True, (event.action,)
    if isinstance(event, model.NetworkEvent):
        return event.trouble, _covers_endpoint(policy, event), (event.action,)
    if isinstance(event, model.JoinEvent):
        return None, _covers_join(policy, event), ("send",)
    if isinstance(event, model.VsockEvent):
        return None, _covers_vsock(policy, event), ("vsock",)
    if isinstance(event, model.AliasEvent):
        trouble = _trouble(policy, event.source) or _trouble(policy, event.target)
        return trouble, _covers_alias(policy, event), actions.RESOURCES
    return _trouble(policy, event.location), _covers_file(policy, event.location), (event.action,)


def _decide_tampering(policy: model.Resolved, event: model.TamperEvent, now: datetime.date) -> model.Verdict:
    """Self-protection, which needs no rule.

    Only root in the initial user namespace may modify the enforcer, and not if an enforcing rule with `subjects`
    applies to that task, or if the task carries a label while an enforcing rule uses labels. A rule in audit mode that
    applies, and a label that only audit rules use, give 'audit'. The strictest of these verdicts holds."""
    if event.location is not None and not _is_protected(policy, event.location, event.below):
        return model.Verdict("allow")
    applicable = [
        rule
        for rule in sorted(policy.rules)
        if in_force(rule, now)
        and rule.subjects is not None
        and binds(policy, rule, event.task)
        and not excepts(policy, rule, event.task)
    ]
    enforcing = [rule for rule in applicable if not rule.audit]
    labelled = bool(event.task.labels)
    name = next((rule.name for rule in enforcing or applicable), None)
    if not event.root or enforcing or (labelled and labels_deny(policy, now)):
        return model.Verdict("deny", name, "tamper")
    if applicable or labelled:
        return model.Verdict("audit", name, "tamper")
    return model.Verdict("allow")


def labels_deny(policy: model.Resolved, now: datetime.date) -> bool:
    """Whether an enforcing rule in force has subjects with `has_read`. Otherwise a label cannot cause a denial."""
    enforcing = [rule for rule in policy.rules if in_force(rule, now) and not rule.audit]
    return any(policy.subjects[name].has_read is not None for rule in enforcing for name in rule.subjects or ())


def _is_protected(policy: model.Resolved, where: model.Location, below: bool) -> bool:
    """Fails closed: a location that is unknown counts as protected. The exceptions are a path that is too deep and a
    filesystem that was not resolved, because no protected path is there."""
    trouble = _trouble(policy, where)
    if trouble:
        return trouble not in ("unknown-filesystem", "too-deep")
    patterns = [p.components for p in policy.tamper_paths if p.device == where.device]
    if below:
        return _some_below(patterns, where.components)
    return any(matches(pattern, where.components) for pattern in patterns)


def labels(policy: model.Resolved, where: model.Location) -> frozenset[str]:
    """The labels that a task gets when it reads the object: the resource sets used by any `has_read` that contain it.

    If the location of the object is unknown, these are all such sets."""
    named = frozenset(name for subject in policy.subjects.values() for name in subject.has_read or ())
    if _trouble(policy, where):
        return named
    return frozenset(name for name in named if _matches(policy.resources[name].paths, where))


def in_force(rule: model.Rule, now: datetime.date) -> bool:
    """Whether the rule has not expired."""
    return rule.expires is None or now.isoformat() < rule.expires


# -- subjects ----------------------------------------------------------------------------------------------------------


def binds(policy: model.Resolved, rule: model.Rule, task: model.Task) -> bool:
    """Whether the rule applies to the task. Fails closed: an unknown attribute matches."""
    return rule.subjects is None or any(_may_be(policy, name, task) for name in rule.subjects)


def excepts(policy: model.Resolved, rule: model.Rule, task: model.Task) -> bool:
    """Whether the rule excepts the task. Fails closed: an unknown attribute does not match."""
    return any(_surely_is(policy, name, task) for name in rule.excepts)


def _may_be(policy: model.Resolved, name: str, task: model.Task) -> bool:
    subject, executable = policy.subjects[name], _known_executable(policy, task)
    return (
        (subject.users is None or task.ids_truncated or bool(subject.users & task.users))
        and (subject.groups is None or task.ids_truncated or bool(subject.groups & task.groups))
        and (subject.login_users is None or task.login_user in subject.login_users)
        and (
            subject.services is None
            or task.service is None
            or _in_service(subject.services, task.service)
            or (task.left_service is not None and _in_service(subject.services, task.left_service))
        )
        and (subject.executables is None or executable is None or _matches(subject.executables, executable))
        and (subject.has_read is None or bool(subject.has_read & task.labels))
    )


def _surely_is(policy: model.Resolved, name: str, task: model.Task) -> bool:
    subject, executable = policy.subjects[name], _known_executable(policy, task)
    return (
        (subject.users is None or (not task.ids_truncated and task.users <= subject.users))
        and (subject.groups is None or (not task.ids_truncated and bool(subject.groups & task.memberships)))
        and (subject.login_users is None or task.login_user in subject.login_users)
        and (
            subject.services is None
            or (
                task.service is not None
                and _in_service(subject.services, task.service)
                and (task.left_service is None or _in_service(subject.services, task.left_service))
            )
        )
        and (subject.executables is None or (executable is not None and _matches(subject.executables, executable)))
        and (subject.has_read is None or bool(subject.has_read & task.labels))
    )


def _known_executable(policy: model.Resolved, task: model.Task) -> model.Location | None:
    """None if the executable or its path is unknown."""
    if task.executable is None or _trouble(policy, task.executable) is not None:
        return None
    return task.executable


def _in_service(services: frozenset[model.Components], cgroup: model.Components) -> bool:
    return any(cgroup[: len(path)] == path for path in services)


# -- resources ---------------------------------------------------------------------------------------------------------


def _trouble(policy: model.Resolved, where: model.Location) -> str | None:
    if where.trouble:
        return where.trouble
    if where.device not in policy.superblocks and where.device != layout.ABSTRACT and not where.pseudo:
        return "unknown-filesystem"
    return None


def _covers_file(policy: model.Resolved, where: model.Location) -> Covers:
    return lambda rule: _selected(rule.resources, lambda name: _matches(policy.resources[name].paths, where))


def _covers_alias(policy: model.Resolved, event: model.AliasEvent) -> Covers:
    """A rule covers a new name in two cases.

    An object that the rule covers by its old name would not be covered by the new one. Or the rule denies `write`, and
    would cover the object by its new name but not by its old one: the new name counts as a write there."""
    some: CoversLocation = _covers_some_below if event.directory else _covers_location
    every: CoversLocation = _covers_all_below if event.directory else _covers_location
    return lambda rule: (
        (some(policy, rule, event.source) and not every(policy, rule, event.target))
        or ("write" in rule.deny and some(policy, rule, event.target) and not every(policy, rule, event.source))
    )


def _covers_location(policy: model.Resolved, rule: model.Rule, where: model.Location) -> bool:
    return _covers_file(policy, where)(rule)


def _covers_some_below(policy: model.Resolved, rule: model.Rule, where: model.Location) -> bool:
    """Whether the rule covers the directory or any path that may exist below it."""
    return _selected_below(policy, rule, where, _some_below, _all_below)


def _covers_all_below(policy: model.Resolved, rule: model.Rule, where: model.Location) -> bool:
    """Whether the rule covers the directory and every path that may exist below it."""
    return _selected_below(policy, rule, where, _all_below, _some_below)


def _selected_below(
    policy: model.Resolved, rule: model.Rule, where: model.Location, plain: CoversTree, negated: CoversTree
) -> bool:
    if rule.resources is None:
        return False
    patterns = [
        p.components for name in rule.resources.names for p in policy.resources[name].paths if p.device == where.device
    ]
    if rule.resources.negated:
        return not negated(patterns, where.components)
    return plain(patterns, where.components)


def _some_below(patterns: Sequence[model.Components], path: model.Components) -> bool:
    for pattern in patterns:
        head, tree = (pattern[:-1], True) if pattern and pattern[-1] == "**" else (pattern, False)
        if (tree or len(path) <= len(head)) and all(map(component_matches, head, path)):
            return True
    return False


def _all_below(patterns: Sequence[model.Components], path: model.Components) -> bool:
    # "/" is in no name, so no literal matches it: a pattern of * and ** that matches it matches every name
    deepest = max(map(len, patterns), default=0)
    return all(
        any(matches(pattern, path + ("/",) * below) for pattern in patterns)
        for below in range(max(deepest - len(path), 0) + 2)
    )


def _selected(selection: model.Selection | None, satisfied: Callable[[str], bool]) -> bool:
    if selection is None:
        return False
    return any(satisfied(name) for name in selection.names) != selection.negated


def _matches(patterns: Iterable[model.PathPattern], where: model.Location) -> bool:
    return any(p.device == where.device and matches(p.components, where.components) for p in patterns)


def matches(pattern: model.Components, path: model.Components) -> bool:
    """Whether the path matches. ``**`` at the end: any number of components, or none; ``*``: any run within one."""
    if pattern and pattern[-1] == "**":
        head = pattern[:-1]
        return len(path) >= len(head) and all(map(component_matches, head, path))
    return len(pattern) == len(path) and all(map(component_matches, pattern, path))


def component_matches(pattern: str, component: str) -> bool:
    """Whether one component of a path matches one of a pattern, where ``*`` stands for any run of bytes, unless the
    pattern is a name: see model.literal."""
    if pattern.startswith(model.LITERAL):
        return pattern[1:] == component
    if "*" not in pattern:  # most patterns: no regular expression is compiled
        return pattern == component
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), component, re.DOTALL) is not None


# -- destinations -----------------------------------------------------------------------------------------------------


def _covers_endpoint(policy: model.Resolved, event: model.NetworkEvent) -> Covers:
    address = _unmapped(ipaddress.ip_address(event.address))
    all_addresses = event.action in actions.OWN and address.is_unspecified

    def holds(cidrs: frozenset[str], negated: bool) -> bool:
        if not all_addresses:
            return any(_in(address, cidr) for cidr in cidrs)
        # The socket has every address of the host. It is in each network, and outside a negated selection only if the
        # selection holds every address. :: also accepts IPv4.
        return not negated or ("0.0.0.0/0" in cidrs and (address.version == 4 or "::/0" in cidrs))

    return _covers_destination(policy, holds, event.port, event.protocol)


def _covers_join(policy: model.Resolved, event: model.JoinEvent) -> Covers:
    """A rule covers a range of addresses if it names any of them; `not` exempts it only if one network has them all."""
    announced = ipaddress.ip_network(layout.RANGES[event.range])

    def holds(cidrs: frozenset[str], negated: bool) -> bool:
        networks = [network for network in map(ipaddress.ip_network, cidrs) if network.version == announced.version]
        if negated:
            return any(_contains(network, announced) for network in networks)
        return any(network.overlaps(announced) for network in networks)

    return _covers_destination(policy, holds, 0, _IGMP if announced.version == 4 else _ICMPV6)


def _contains(network: Network, part: Network) -> bool:
    return network.prefixlen <= part.prefixlen and network.overlaps(part)


def _covers_destination(
    policy: model.Resolved, holds: Callable[[frozenset[str], bool], bool], port: int, protocol: int
) -> Covers:
    """``holds``: whether networks of a set, negated or not, have the address."""

    def satisfied(name: str, negated: bool) -> bool:
        where = policy.destinations[name]
        return (
            where.vsock is None
            and (where.cidrs is None or holds(where.cidrs, negated))
            and (where.ports is None or any(first <= port <= last for first, last in where.ports))
            and (where.protocols is None or protocol in where.protocols)
        )

    def covers(rule: model.Rule) -> bool:
        negated = rule.destinations is not None and rule.destinations.negated
        return _selected(rule.destinations, lambda name: satisfied(name, negated))

    return covers


def _covers_vsock(policy: model.Resolved, event: model.VsockEvent) -> Covers:
    def satisfied(name: str) -> bool:
        endpoints = policy.destinations[name].vsock or ()
        return any(cid in (None, event.cid) and port in (None, event.port) for cid, port in endpoints)

    return lambda rule: _selected(rule.destinations, satisfied)


def _unmapped(address: Address) -> Address:
    """The IPv4 address of an IPv4-mapped IPv6 address."""
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address


def _in(address: Address, cidr: str) -> bool:
    network = ipaddress.ip_network(cidr)
    return network.version == address.version and address in network
