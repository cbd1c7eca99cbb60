# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy's own assertions, against the meaning, on a host that has every name. Private to this collection."""

from __future__ import annotations

import datetime
from typing import Any, Iterable, NamedTuple

from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import model, semantics
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import resolver

from .problems import FragmentErrors, Problem
from .render import Fragment

NOBODY = "\0nobody"
FIRST_ID = 4000000000  # of those that are made up: no numbers that a policy would name
_WHO = ("login_user", "groups", "service", "executable", "has_read")
_HOLDS = {"allow": ("allow", "audit"), "audit": ("audit",), "deny": ("deny",)}  # what a rule only reports passes
_PROTOCOLS = {"tcp": 6, "udp": 17, "udplite": 136, "sctp": 132, "dccp": 33, "icmp": 1, "icmpv6": 58}


class SymbolicSystem:
    """A host on which everything that is named exists: ids are made up, one filesystem holds every path."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def _number(self, name: object) -> int:
        text = str(name)
        if text.isascii() and text.isdigit():
            return int(text)
        return self._numbers.setdefault(text, FIRST_ID + len(self._numbers))

    user = group = _number

    def users(self) -> list[str]:
        return []

    groups = users

    def memberships(self, number: int) -> frozenset[int]:
        return frozenset()

    def name(self, number: int) -> str:
        """Of a user or group that was asked for."""
        return next((name for name, each in self._numbers.items() if each == number), str(number))

    def addresses(self, name: str) -> list[str]:
        """One of its own, out of a range that nothing is in."""
        return [f"240.0.{self._number(name) - FIRST_ID >> 8 & 255}.{self._number(name) - FIRST_ID & 255}"]

    def mountinfo(self) -> str:
        return "1 0 0:1 / / rw - ext4 symbolic rw\n"

    def exists(self, path: str) -> bool:
        return True

    def realpath(self, path: str) -> str:
        return path

    def names(self, folder: str) -> list[str]:
        return []

    def device_tables(self) -> dict[str, str]:
        return {"devices": "", "misc": "", "ttys": "", "consoles": ""}

    def units(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        return {
            name: {
                "Id": resolver.unit_name(name),
                "LoadState": "loaded",
                "Slice": "system.slice",
                "ControlGroup": "/" + "/".join(_cgroup(name)),
            }
            for name in names
        }


def _cgroup(unit: str) -> model.Components:
    name = resolver.unit_name(unit)
    return resolver.slice_path(name) if name.endswith(".slice") else ("system.slice", name)


class Outcome(NamedTuple):
    assertion: str  # in words
    problem: Problem | None  # None: it holds


class AssertionErrors(FragmentErrors):
    """Some assertions do not hold. ``outcomes``: of all of them."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes
        super().__init__(outcome.problem for outcome in outcomes if outcome.problem)


def check(document: dict[str, Any], fragments: Iterable[Fragment], today: datetime.date) -> None:
    """Raises AssertionErrors when one does not hold. They are about the policy as it is enforced: a document in audit
    mode is on its way there. Raises errors.PolicyErrors when it can't be resolved."""
    system = SymbolicSystem()
    policy = resolver.resolve(dict(document, mode="enforce"), system)
    outcomes = []
    for fragment in fragments:
        for number, assertion in enumerate(fragment.data.get("assertions") or ()):
            verdict = semantics.decide(policy, event(assertion, system), today)
            problem = None
            if verdict.outcome not in _HOLDS[assertion["expect"]]:
                by = f" by rule '{verdict.rule}'" if verdict.rule else ": no rule covers it"
                problem = fragment.problem(
                    ("assertions", number),
                    f"the assertion does not hold: {verdict.outcome}{by}",
                    assertion["expect"],
                    "Mend the rule or the assertion",
                )
            outcomes.append(Outcome(told(assertion), problem))
    if any(outcome.problem for outcome in outcomes):
        raise AssertionErrors(outcomes)


def told(assertion: dict[str, Any]) -> str:
    """In one line: who, what, and how it has to end."""
    who = [str(assertion.get("user", "nobody"))]
    who += [f"{key.replace('_', ' ')} {_values(assertion[key])}" for key in _WHO if key in assertion]
    what = [str(assertion[key]) for key in ("path", "address") if key in assertion]
    if "cid" in assertion:
        what.append(f"vsock {assertion['cid']}")
    if "address" in assertion or "cid" in assertion:
        protocol = f"/{assertion.get('protocol', 'tcp')}" if "address" in assertion else ""
        what.append(f"port {assertion.get('port', 443)}{protocol}")
    return f"{', '.join(who)}: {' '.join([assertion['action'], *what])}: {assertion['expect']}"


def _values(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def event(assertion: dict[str, Any], system: SymbolicSystem):
    """The attempt that an assertion is about."""
    user = system.user(assertion.get("user", NOBODY))
    groups: frozenset[int] = frozenset(map(system.group, assertion.get("groups", ())))
    service = assertion.get("service")
    task = model.Task(
        users=frozenset([user]),
        groups=groups,
        memberships=groups,
        login_user=system.user(assertion.get("login_user", assertion.get("user", NOBODY))),
        service=_cgroup(service) if service else ("user.slice",),
        executable=_location(assertion.get("executable", "/" + NOBODY)),
        labels=frozenset(assertion.get("has_read", ())),
    )
    if "path" in assertion:
        return model.FileEvent(task, assertion["action"], _location(assertion["path"]))
    if "cid" in assertion:
        return model.VsockEvent(task, assertion["cid"], assertion.get("port", 443))
    if "address" not in assertion:
        return model.PlainEvent(task, assertion["action"])
    protocol = _PROTOCOLS[assertion.get("protocol", "tcp")]
    return model.NetworkEvent(task, assertion["action"], assertion["address"], assertion.get("port", 443), protocol)


def _location(path: str) -> model.Location:
    return model.Location(1, tuple(part for part in path.split("/") if part))
