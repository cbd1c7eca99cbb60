# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The meaning of a policy: one pure function over resolved names. Assertions, `explain` and every differential test
use it; nothing else decides anything."""

from __future__ import annotations

import datetime
import ipaddress
import re
from typing import Callable, Iterable

from .. import layout
from . import actions, model

Covers = Callable[[model.Rule], bool]


def decide(policy: model.Resolved, event, now: datetime.date) -> model.Verdict:
    """An event is denied iff some rule in force with its action binds the task, does not except it, and covers the
    object. ``event``: one of the events of records; ``now``: the UTC date."""
    trouble: str | None = None
    if isinstance(event, model.TamperEvent):
        return _tampering(policy, event, now)
    if isinstance(event, model.PlainEvent):
        covers, tried = (lambda rule: True), (event.action,)
    elif isinstance(event, model.NetworkEvent):
        trouble = event.trouble
        covers, tried = _covers_endpoint(policy, event), (event.action,)
    elif isinstance(event, model.VsockEvent):
        covers, tried = _covers_vsock(policy, event), ("vsock",)
    elif isinstance(event, model.AliasEvent):
        trouble = _trouble(policy, event.source) or _trouble(policy, event.target)
        covers, tried = _covers_alias(policy, event), actions.RESOURCES
    else:
        trouble = _trouble(policy, event.location)
        covers, tried = _covers_file(policy, event.location), (event.action,)
    hits = [
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
        for rule in hits:
            if rule.audit is audit:
                return model.Verdict(outcome, rule.name, reason)
    return model.Verdict("allow")


def _tampering(policy: model.Resolved, event: model.TamperEvent, now: datetime.date) -> model.Verdict:
    """Built in: what enforces is touched by nobody but real root, and not by that root either while a rule that names
    subjects binds it, or while it carries a label. Rules that only report report this, too, and labels that none but
    such rules ask for are reported. Each of these says something; the strictest holds."""
    if event.location is not None and not _is_protected(policy, event.location, event.below):
        return model.Verdict("allow")
    binding = [
        rule
        for rule in sorted(policy.rules)
        if in_force(rule, now)
        and rule.subjects is not None
        and binds(policy, rule, event.task)
        and not excepts(policy, rule, event.task)
    ]
    enforcing = [rule for rule in binding if not rule.audit]
    labelled = bool(event.task.labels)
    by = (enforcing or binding or [None])[0]
    if not event.root or enforcing or (labelled and labels_deny(policy, now)):
        return model.Verdict("deny", by.name if by else None, "tamper")
    if binding or labelled:
        return model.Verdict("audit", by.name if by else None, "tamper")
    return model.Verdict("allow")


def labels_deny(policy: model.Resolved, now: datetime.date) -> bool:
    """Does a rule ask for labels that does more than report? Else no label denies anything by itself."""
    asking = [rule for rule in policy.rules if in_force(rule, now) and not rule.audit]
    return any(policy.subjects[name].has_read is not None for rule in asking for name in rule.subjects or ())


def _is_protected(policy: model.Resolved, where: model.Location, below: bool) -> bool:
    """What can't be told is: the protected paths are not too deep, nor on a filesystem that nobody has resolved."""
    trouble = _trouble(policy, where)
    if trouble:
        return trouble not in ("unknown-filesystem", "too-deep")
    patterns = [p.components for p in policy.tamper_paths if p.device == where.device]
    if below:
        return _some_below(patterns, where.components)
    return any(matches(pattern, where.components) for pattern in patterns)


def labels(policy: model.Resolved, where: model.Location) -> frozenset[str]:
    """What a task has read of, once it has read the object: of the resource sets that any `has_read` names, those that
    hold it; all of them when it can't be told where it is."""
    named = frozenset(name for who in policy.subjects.values() for name in who.has_read or ())
    if _trouble(policy, where):
        return named
    return frozenset(name for name in named if _matches(policy.resources[name].paths, where))


def in_force(rule: model.Rule, now: datetime.date) -> bool:
    return rule.expires is None or now.isoformat() < rule.expires


# -- who ----------------------------------------------------------------------------------------------------------


def binds(policy: model.Resolved, rule: model.Rule, task: model.Task) -> bool:
    """Errs towards binding: what is not known of the task counts as satisfied."""
    return rule.subjects is None or any(_may_be(policy, name, task) for name in rule.subjects)


def excepts(policy: model.Resolved, rule: model.Rule, task: model.Task) -> bool:
    """Errs against the task: what is not known counts as not satisfied."""
    return any(_surely_is(policy, name, task) for name in rule.excepts)


def _may_be(policy: model.Resolved, name: str, task: model.Task) -> bool:
    who = policy.subjects[name]
    return (
        (who.users is None or task.lists_cut or bool(who.users & task.users))
        and (who.groups is None or task.lists_cut or bool(who.groups & task.groups))
        and (who.login_users is None or task.login_user in who.login_users)
        and (who.services is None or task.service is None or _in_service(who.services, task.service))
        and (who.executables is None or not _known(policy, task) or _matches(who.executables, task.executable))
        and (who.has_read is None or bool(who.has_read & task.labels))
    )


def _surely_is(policy: model.Resolved, name: str, task: model.Task) -> bool:
    who = policy.subjects[name]
    return (
        (who.users is None or (not task.lists_cut and task.users <= who.users))
        and (who.groups is None or (not task.lists_cut and bool(who.groups & task.memberships)))
        and (who.login_users is None or task.login_user in who.login_users)
        and (who.services is None or (task.service is not None and _in_service(who.services, task.service)))
        and (who.executables is None or (_known(policy, task) and _matches(who.executables, task.executable)))
        and (who.has_read is None or bool(who.has_read & task.labels))
    )


def _known(policy: model.Resolved, task: model.Task) -> bool:
    return task.executable is not None and _trouble(policy, task.executable) is None


def _in_service(services: frozenset[model.Components], cgroup: model.Components) -> bool:
    return any(cgroup[: len(path)] == path for path in services)


# -- what ---------------------------------------------------------------------------------------------------------


def _trouble(policy: model.Resolved, where: model.Location) -> str | None:
    if where.trouble:
        return where.trouble
    if where.device not in policy.superblocks and where.device != layout.ABSTRACT and not where.pseudo:
        return "unknown-filesystem"
    return None


def _covers_file(policy: model.Resolved, where: model.Location) -> Covers:
    return lambda rule: _selected(rule.resources, lambda name: _matches(policy.resources[name].paths, where))


def _covers_alias(policy: model.Resolved, event: model.AliasEvent) -> Covers:
    """A rule is about a new name when it would lose something of what is behind the old one, and, if it is on writing,
    when it would gain something: that is written there."""
    if event.directory:
        some, every = _reaches, _pervades
    else:
        some = every = lambda policy, rule, where: _covers_file(policy, where)(rule)
    return lambda rule: (
        (some(policy, rule, event.source) and not every(policy, rule, event.target))
        or ("write" in rule.deny and some(policy, rule, event.target) and not every(policy, rule, event.source))
    )


def _reaches(policy: model.Resolved, rule: model.Rule, where: model.Location) -> bool:
    """Does the rule cover the directory or anything that could be below it?"""
    return _selected_below(policy, rule, where, _some_below, _all_below)


def _pervades(policy: model.Resolved, rule: model.Rule, where: model.Location) -> bool:
    """Does the rule cover the directory and everything that could be below it?"""
    return _selected_below(policy, rule, where, _all_below, _some_below)


def _selected_below(policy, rule, where, plain, negated) -> bool:
    if rule.resources is None:
        return False
    patterns = [
        p.components for name in rule.resources.names for p in policy.resources[name].paths if p.device == where.device
    ]
    if rule.resources.negated:
        return not negated(patterns, where.components)
    return plain(patterns, where.components)


def _some_below(patterns: Iterable[model.Components], path: model.Components) -> bool:
    for pattern in patterns:
        head, tree = (pattern[:-1], True) if pattern and pattern[-1] == "**" else (pattern, False)
        if (tree or len(path) <= len(head)) and all(map(component_matches, head, path)):
            return True
    return False


def _all_below(patterns: Iterable[model.Components], path: model.Components) -> bool:
    # a name that no literal and no glob matches stands for every name: only * and ** match it, and they match all
    patterns = list(patterns)
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
    """``**`` at the end stands for any number of components, also none; ``*`` for any run within one."""
    if pattern and pattern[-1] == "**":
        head = pattern[:-1]
        return len(path) >= len(head) and all(map(component_matches, head, path))
    return len(pattern) == len(path) and all(map(component_matches, pattern, path))


def component_matches(pattern: str, component: str) -> bool:
    """Whether one component of a path matches one of a pattern, where ``*`` stands for any run of bytes."""
    if "*" not in pattern:  # most patterns: no regular expression is compiled
        return pattern == component
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), component, re.DOTALL) is not None


# -- where to -----------------------------------------------------------------------------------------------------


def _covers_endpoint(policy: model.Resolved, event: model.NetworkEvent) -> Covers:
    address = ipaddress.ip_address(event.address)
    address = getattr(address, "ipv4_mapped", None) or address
    everywhere = event.action in actions.OWN and address.is_unspecified

    def holds(cidrs: frozenset[str], negated: bool) -> bool:
        if not everywhere:
            return any(_in(address, cidr) for cidr in cidrs)
        # every address of the host: touches whatever a rule names, and is spared where every one is; :: takes IPv4, too
        return not negated or ("0.0.0.0/0" in cidrs and (address.version == 4 or "::/0" in cidrs))

    def satisfied(name: str, negated: bool) -> bool:
        where = policy.destinations[name]
        return (
            where.vsock is None
            and (where.cidrs is None or holds(where.cidrs, negated))
            and (where.ports is None or any(first <= event.port <= last for first, last in where.ports))
            and (where.protocols is None or event.protocol in where.protocols)
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


def _in(address, cidr: str) -> bool:
    network = ipaddress.ip_network(cidr)
    return network.version == address.version and address in network
