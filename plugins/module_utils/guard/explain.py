# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what under the stored policy. The reference semantics answers; nothing is tried out."""

from __future__ import annotations

import datetime
from typing import Any, Dict, Iterable, List, Optional

from . import actions, resolve, semantics
from .errors import EnforcerError
from .records import FileEvent, Location, NetworkEvent, PlainEvent, Resolved, Task, VsockEvent


def location(system: Any, path: str) -> Location:
    """Where a path leads today, links followed."""
    if not path.startswith("/"):
        raise EnforcerError("{0!r} is no absolute path".format(path), "Begin it with /")
    components = resolve.split(system.realpath(path))
    best = [mount for mount in resolve.visible(resolve.parse_mounts(system.mountinfo()))
            if mount.root is not None and components[:len(mount.point)] == mount.point]
    if not best:
        raise EnforcerError("{0!r} lies on no known mount".format(path))
    mount = max(best, key=lambda each: len(each.point))
    return Location(mount.device, (mount.root or ()) + components[len(mount.point):], mount.type in resolve.PSEUDO)


def _number(name: str, look_up: Any, kind: str) -> int:
    number = int(name) if name.isdigit() else look_up(name)
    if number is None:
        raise EnforcerError("unknown {0} {1!r}".format(kind, name))
    return number


def task(system: Any, *, user: str, groups: Optional[List[str]] = None, login_user: Optional[str] = None,
         service: Optional[str] = None, executable: Optional[str] = None, has_read: Iterable[str] = ()) -> Task:
    number = _number(user, system.user, "user")
    members = set(system.memberships(number))
    members.update(_number(name, system.group, "group") for name in groups or ())
    cgroup = ("user.slice", "user-{0}.slice".format(number))
    if service:
        body = {"subjects": {"service": {"services": [service]}}, "rules": []}
        cgroup = sorted(resolve.resolve(body, system).subjects["service"].services or ())[0]
    login = 0xFFFFFFFF
    if login_user is not None:
        login = _number(login_user, system.user, "user")
    elif not service:
        login = number
    return Task(frozenset({number}), frozenset(members), frozenset(members), login, cgroup,
                location(system, executable) if executable else None, frozenset(has_read))


def explain(resolved: Resolved, who: Task, now: datetime.date, *, path: Optional[str] = None,
            address: Optional[str] = None, port: int = 443, protocol: Any = "tcp", action: Optional[str] = None,
            system: Any = None) -> List[Dict[str, Any]]:
    """For each action: the verdict, and every rule that alone would decide it so. An address may be `vsock:CID`; an
    action without an object needs neither path nor address."""
    if path is not None and address is not None:
        raise EnforcerError("say either a path or an address")
    vsock = address is not None and address.startswith("vsock:")
    if path is not None:
        possible, what = actions.FILES + ("unix-connect",), "a path"
    elif vsock:
        possible, what = ("vsock",), "a vsock address"
    elif address is not None:
        possible, what = actions.NETWORK, "an address"
    else:
        possible, what = actions.PLAIN, "nothing"
        if action is None:
            raise EnforcerError("say a path, an address or an action without an object",
                                "Actions without an object are {0}".format(", ".join(possible)))
    if action is not None and action not in possible:
        raise EnforcerError("{0!r} is no action on {1}".format(action, what),
                            "Use one of {0}".format(", ".join(possible)))
    where = location(system, path) if path is not None else None
    told = path or (address if vsock else address and "{0} port {1}/{2}".format(address, port, protocol)) or ""
    answers = []
    # of an address that is said without an action, it is the other side's
    for each in (action,) if action else possible[:3] if address and not vsock else possible:
        if where is not None:
            event: Any = FileEvent(who, each, where)
        elif vsock:
            event = VsockEvent(who, int((address or "")[len("vsock:"):]), port)
        elif address is not None:
            event = NetworkEvent(who, each, address, port, resolve.parse_protocol(protocol))
        else:
            event = PlainEvent(who, each)
        verdict = semantics.decide(resolved, event, now)
        rules = []
        for rule in resolved.rules:
            alone = semantics.decide(resolved._replace(rules=(rule,)), event, now)
            if alone.outcome != "allow":
                rules.append({"name": rule.name, "outcome": alone.outcome, "reason": alone.reason})
        answers.append({"action": each, "object": told, "outcome": verdict.outcome, "rule": verdict.rule,
                        "reason": verdict.reason, "rules": rules})
    return answers


def to_text(answers: List[Dict[str, Any]]) -> str:
    lines = []
    for answer in answers:
        lines.append("{outcome:<5} {action} {object}".format(**answer).rstrip())
        for rule in answer["rules"]:
            why = "" if rule["reason"] == "rule" else " ({0})".format(rule["reason"])
            lines.append("      {0}: rule {1!r}{2}".format(
                "denied by" if rule["outcome"] == "deny" else "reported by", rule["name"], why))
    return "\n".join(lines)
