# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what under a policy. The reference semantics answers; nothing is tried out."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any, Callable, Iterable, NamedTuple

from ..errors import EnforcerError
from ..host import mountinfo
from ..policy import actions, semantics
from ..policy.model import NO_ID, FileEvent, Location, NetworkEvent, PlainEvent, Resolved, Rule, Task, VsockEvent
from ..resolve import resolver
from . import witnesses

_NOBODY = Task(frozenset(), frozenset(), frozenset())


class Attempt(NamedTuple):
    action: str
    object: str  # as it was said
    event: Callable[[Task], Any]


def location(system: Any, path: str) -> Location:
    """Where a path leads today, links followed."""
    if not path.startswith("/"):
        raise EnforcerError(f"{path!r} is no absolute path", "Begin it with /")
    components = mountinfo.split(system.realpath(path))
    best = [
        mount
        for mount in mountinfo.visible(mountinfo.parse_mounts(system.mountinfo()))
        if mount.root is not None and components[: len(mount.point)] == mount.point
    ]
    if not best:
        raise EnforcerError(f"{path!r} lies on no known mount")
    mount = max(best, key=lambda each: len(each.point))
    return Location(mount.device, (mount.root or ()) + components[len(mount.point) :], mount.type in mountinfo.PSEUDO)


def _number(name: str, look_up: Any, kind: str) -> int:
    number = int(name) if name.isdigit() else look_up(name)
    if number is None:
        raise EnforcerError(f"unknown {kind} {name!r}")
    return number


def task(
    system: Any,
    *,
    user: str,
    groups: list[str] | None = None,
    login_user: str | None = None,
    service: str | None = None,
    executable: str | None = None,
    has_read: Iterable[str] = (),
) -> Task:
    number = _number(user, system.user, "user")
    members = set(system.memberships(number))
    members.update(_number(name, system.group, "group") for name in groups or ())
    cgroup = ("user.slice", f"user-{number}.slice")
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
    *,
    path: str | None = None,
    address: str | None = None,
    port: int = 443,
    protocol: Any = "tcp",
    action: str | None = None,
    system: Any = None,
) -> list[Attempt]:
    """What is asked about: one attempt for each action that fits. An address may be `vsock:CID`; an action without an
    object needs neither path nor address. Raises EnforcerError."""
    if path is not None and address is not None:
        raise EnforcerError("say either a path or an address")
    vsock = address is not None and address.startswith("vsock:")
    if path is not None:
        possible, what = (*actions.FILES, "unix-connect"), "a path"
    elif vsock:
        possible, what = ("vsock",), "a vsock address"
    elif address is not None:
        possible, what = actions.NETWORK, "an address"
    else:
        possible, what = actions.PLAIN, "nothing"
        if action is None:
            raise EnforcerError(
                "say a path, an address or an action without an object",
                "Actions without an object are {0}".format(", ".join(possible)),
            )
    if action is not None and action not in possible:
        raise EnforcerError(f"{action!r} is no action on {what}", "Use one of {0}".format(", ".join(possible)))
    event = _event(path, address, port, protocol, system)
    told = path or (address if vsock else address and f"{address} port {port}/{protocol}") or ""
    # of an address that is said without an action, it is the other side's
    chosen = (action,) if action else possible[:3] if address and not vsock else possible
    return [Attempt(each, told, lambda who, each=each: event(who, each)) for each in chosen]  # type: ignore[misc]


def _event(path: str | None, address: str | None, port: int, protocol: Any, system: Any) -> Callable[[Task, str], Any]:
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
        raise EnforcerError(f"{error}", "Say an IPv4 or IPv6 address or vsock:CID, and a protocol as tcp") from error
    return lambda who, action: NetworkEvent(who, action, address or "", port, number)


def explain(resolved: Resolved, who: Task, now: datetime.date, **asked: Any) -> list[dict[str, Any]]:
    """For each action: the verdict on a task, and every rule that alone would decide it so. ``asked``: see
    attempts."""
    answers = []
    for attempt in attempts(**asked):
        event = attempt.event(who)
        verdict = semantics.decide(resolved, event, now)
        rules = []
        for rule in resolved.rules:
            alone = semantics.decide(resolved._replace(rules=(rule,)), event, now)
            if alone.outcome != "allow":
                rules.append({"name": rule.name, "outcome": alone.outcome, "reason": alone.reason})
        answers.append(
            {
                "action": attempt.action,
                "object": attempt.object,
                "outcome": verdict.outcome,
                "rule": verdict.rule,
                "reason": verdict.reason,
                "rules": rules,
            }
        )
    return answers


def who_may(resolved: Resolved, now: datetime.date, **asked: Any) -> list[dict[str, Any]]:
    """For each action: who may, whose attempt is reported and whose is denied, in the policy's own names, each with
    the rule. ``asked``: see attempts. Of every kind of task that the rules involved tell apart, an example is
    decided."""
    answers = []
    for attempt in attempts(**asked):
        rules = tuple(rule for rule in resolved.rules if _covers(resolved, rule, attempt.event(_NOBODY), now))
        names = sorted({name for rule in rules for name in list(rule.subjects or ()) + list(rule.excepts)})
        kinds, whole = witnesses.tasks([resolved.subjects[name] for name in names], resolved.superblocks)
        found: dict[Any, list[witnesses.TaskKind]] = {}
        for kind in kinds:
            verdict = semantics.decide(resolved._replace(rules=rules), attempt.event(kind.task), now)
            found.setdefault((verdict.outcome, verdict.rule), []).append(kind)
        outcomes = [
            {
                "outcome": outcome,
                "rule": rule,
                "who": witnesses.who(names, chosen, [kind for kind in kinds if kind not in chosen]),
            }
            for (outcome, rule), chosen in sorted(found.items(), key=lambda each: (each[0][0], each[0][1] or ""))
        ]
        answers.append({"action": attempt.action, "object": attempt.object, "outcomes": outcomes, "complete": whole})
    return answers


def _covers(resolved: Resolved, rule: Rule, event: Any, now: datetime.date) -> bool:
    """Would it deny or report it if it bound everybody?"""
    everybody = rule._replace(subjects=None, excepts=frozenset())
    return semantics.decide(resolved._replace(rules=(everybody,)), event, now).outcome != "allow"


def to_text(answers: list[dict[str, Any]]) -> str:
    lines = []
    for answer in answers:
        lines.append("{outcome:<5} {action} {object}".format(**answer).rstrip())
        for rule in answer["rules"]:
            why = "" if rule["reason"] == "rule" else " ({0})".format(rule["reason"])
            lines.append(
                "      {0}: rule {1!r}{2}".format(
                    "denied by" if rule["outcome"] == "deny" else "reported by", rule["name"], why
                )
            )
    return "\n".join(lines)


def who_to_text(answers: list[dict[str, Any]]) -> str:
    words = {"allow": "allowed to", "audit": "reported of", "deny": "denied to"}
    lines = []
    for answer in answers:
        lines.append("{action} {object}".format(**answer).rstrip())
        for each in answer["outcomes"]:
            rule = ": rule {0!r}".format(each["rule"]) if each["rule"] else ""
            lines.append("      {0:<11} {1}{2}".format(words[each["outcome"]], each["who"], rule))
        if not answer["complete"]:
            lines.append("      (too many combinations of subjects: not all of them were looked at)")
    return "\n".join(lines)
