# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a policy's assertions by its semantics, on a symbolic host. Private to this collection."""

from __future__ import annotations

import datetime
from typing import Any, Container, Iterable, NamedTuple

from ansible_collections.exfil.guard.plugins.module_utils._guard.host.system import Step
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import model, semantics
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import resolver

from .problems import FragmentError, Problem
from .render import Fragment

NOBODY = "\0nobody"
FIRST_ID = 4000000000  # of the made-up users and groups; policies do not use such high numbers
_WHO = ("login_user", "groups", "service", "executable", "has_read")
_HOLDS = {"allow": ("allow", "audit"), "audit": ("audit",), "deny": ("deny",)}  # an audited action is allowed
_PROTOCOLS = {"tcp": 6, "udp": 17, "udplite": 136, "sctp": 132, "dccp": 33, "icmp": 1, "icmpv6": 58}


class SymbolicSystem:
    """A host on which every named object exists. IDs are made up, and all paths are on one filesystem."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def _number(self, name: object) -> int:
        text = str(name)
        if text.isascii() and text.isdigit():
            return int(text)
        return self._numbers.setdefault(text, FIRST_ID + len(self._numbers))

    user = group = _number

    def users(self) -> list[str]:
        """None: the symbolic host has no list of users."""
        return []

    groups = users

    def memberships(self, number: int) -> frozenset[int]:
        """The groups of a user: none."""
        return frozenset()

    def name(self, number: int) -> str:
        """The name of a user or group that was looked up before, or else its number."""
        return next((name for name, id_ in self._numbers.items() if id_ == number), str(number))

    def addresses(self, name: str) -> list[str]:
        """The addresses of a host name: one made-up address, from a reserved range."""
        return [f"240.0.{self._number(name) - FIRST_ID >> 8 & 255}.{self._number(name) - FIRST_ID & 255}"]

    def mountinfo(self) -> str:
        """One filesystem, mounted at the root."""
        return "1 0 0:1 / / rw - ext4 symbolic rw\n"

    def exists(self, path: str) -> bool:
        """True for every path."""
        return True

    def realpath(self, path: str) -> str:
        """The path itself: there are no symbolic links."""
        return path

    def names(self, folder: str) -> list[str]:
        """The names in a folder: none."""
        return []

    def step(self, path: str, mounts: Container[int]) -> Step | None:
        """A file that root alone can change."""
        return Step(None, True)

    def below(self, folder: str, names: Iterable[str]) -> bool | None:
        """True for every path."""
        return True

    def device_tables(self) -> dict[str, str]:
        """Empty tables: there are no devices."""
        return {"devices": "", "misc": "", "ttys": "", "consoles": ""}

    def units(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """The properties of units, as from `systemctl show`. Every unit is loaded."""
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
    """The result of one assertion. ``assertion``: its description; ``problem``: None if it holds."""

    assertion: str
    problem: Problem | None


class FailedAssertionsError(FragmentError):
    """Some assertions do not hold. ``outcomes``: the results of all assertions."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes
        super().__init__(outcome.problem for outcome in outcomes if outcome.problem)


def check(document: dict[str, Any], fragments: Iterable[Fragment], today: datetime.date) -> None:
    """Checks the assertions of ``fragments``. They apply to the enforced policy, so a document in audit mode is checked
    as if it was enforced. Raises FailedAssertionsError, and errors.PolicyErrors if the document cannot be resolved."""
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
                    "Correct the rule or the assertion",
                )
            outcomes.append(Outcome(describe(assertion), problem))
    if any(outcome.problem for outcome in outcomes):
        raise FailedAssertionsError(outcomes)


def describe(assertion: dict[str, Any]) -> str:
    """The assertion in one line: subject, action, object and expected outcome."""
    who = [str(assertion.get("user", "nobody"))]
    who += [f"{key.replace('_', ' ')} {_values(assertion[key])}" for key in _WHO if key in assertion]
    what = [str(assertion[key]) for key in ("path", "address") if key in assertion]
    if "cid" in assertion:
        what.append(f"vsock {assertion['cid']}")
    if "address" in assertion or "cid" in assertion:
        protocol = f"/{assertion.get('protocol', 'tcp')}" if "address" in assertion else ""
        what.append(f"port {assertion.get('port', 443)}{protocol}")
    return f"{', '.join(who)}: {' '.join([assertion['action'], *what])}: {assertion['expect']}"


def _values(value: object) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def event(
    assertion: dict[str, Any], system: SymbolicSystem
) -> model.FileEvent | model.VsockEvent | model.PlainEvent | model.NetworkEvent:
    """The event whose outcome an assertion states."""
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
