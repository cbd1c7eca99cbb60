# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the certificates of a fleet's hosts, from the output of `exfil-guard verify --json`. Private to this
collection."""

from __future__ import annotations

import json
from typing import Any, Callable, Mapping, NamedTuple, Sequence

_HOSTS_SHOWN = 8  # in a line


class Answer(NamedTuple):
    """A host's answer. ``wrong``: its differences from its certificate, or why there is none."""

    host: str
    certificate: dict[str, Any] | None
    wrong: tuple[str, ...]
    not_proved: tuple[str, ...]


class Kind(NamedTuple):
    """The hosts with the same value of one property."""

    value: str
    hosts: tuple[str, ...]


def answer(host: str, text: str) -> Answer:
    """The answer of a host. ``text``: the output of the command, empty without a connection or an enforcer."""
    try:
        output = json.loads(text or "{}")
        certificate = output["certificate"]
        wrong = [f"{difference['what']}. {difference['remedy']}" for difference in output["differences"]]
        not_proved = tuple(map(str, output["not_proved"]))
        if certificate is not None:
            for value in _PROPERTIES.values():
                value(certificate)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Answer(
            host, None, ("no answer. The host was not reached, or the enforcer of this release is not installed",), ()
        )
    if certificate is None and not wrong:
        wrong = ["there is no certificate. Run role exfil.guard.policy"]
    return Answer(host, certificate, tuple(wrong), not_proved)


def _proved_programs(certificate: Mapping[str, Any]) -> str:
    programs = certificate["programs"].values()
    return f"{sum(1 for program in programs if program['proved'])} of {len(programs)} programs"


_PROPERTIES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "object": lambda certificate: str(certificate["object"][:12]),
    "package": lambda certificate: str(certificate["package"][:12]),
    "kernel": lambda certificate: f"{certificate['kernel']['release']} (types {certificate['kernel']['btf'][:12]})",
    "policy": lambda certificate: str(certificate["policy"]["digest"][:12]),
    "proof": _proved_programs,
}


def kinds(answers: Sequence[Answer], name: str) -> list[Kind]:
    """The values of a property with their hosts, the most common value first. Equally common values are sorted."""
    hosts: dict[str, list[str]] = {}
    for answered in answers:
        if answered.certificate is not None:
            hosts.setdefault(_PROPERTIES[name](answered.certificate), []).append(answered.host)
    return sorted(
        (Kind(value, tuple(sorted(names))) for value, names in hosts.items()),
        key=lambda kind: (-len(kind.hosts), kind.value),
    )


def report(texts: Mapping[str, str]) -> dict[str, Any]:
    """The comparison: ``lines``, the report; ``wrong``, the hosts that differ from their certificate or did not answer;
    ``odd``, the hosts that deviate from the majority. ``texts``: the output of each host's command."""
    answers = [answer(host, texts[host]) for host in sorted(texts)]
    certified = [answered for answered in answers if answered.certificate is not None]
    wrong = [answered.host for answered in answers if answered.wrong]
    lines = [
        f"{_count(len(answers))}, {len(certified)} with a certificate, {len(answers) - len(wrong)} without differences"
    ]
    odd: set[str] = set()
    for name in _PROPERTIES:
        for i, kind in enumerate(kinds(certified, name)):
            lines.append(f"{'' if i else name:8} {kind.value}  {'odd: ' if i else ''}{_names(kind.hosts)}")
            if i:
                odd.update(kind.hosts)
    for answered in answers:
        lines.extend(f"{answered.host} DIFFERS: {line}" for line in answered.wrong)
    reasons: dict[str, list[str]] = {}
    for answered in answers:
        for line in answered.not_proved:
            reasons.setdefault(line, []).append(answered.host)
    lines.extend(f"NOT PROVED on {_names(hosts)}: {line}" for line, hosts in sorted(reasons.items()))
    return {"lines": lines, "wrong": wrong, "odd": sorted(odd)}


def _names(hosts: Sequence[str]) -> str:
    shown = ", ".join(hosts[:_HOSTS_SHOWN])
    more = ", …" if hosts[_HOSTS_SHOWN:] else ""
    return f"{_count(len(hosts))} ({shown}{more})"


def _count(number: int) -> str:
    return f"{number} host{'' if number == 1 else 's'}"
