# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers of a fleet's hosts to `exfil-guard verify --json`, compared: which hosts are alike, and which are odd.
Pure. Private to this collection."""

from __future__ import annotations

import json
from typing import Any, Mapping, NamedTuple, Sequence

_SHOWN = 8  # hosts in a line


class Answer(NamedTuple):
    """What a host said. ``wrong``: why it is not as its certificate says; empty when it is."""

    host: str
    certificate: dict[str, Any] | None
    wrong: tuple[str, ...]
    not_proved: tuple[str, ...]


class Kind(NamedTuple):
    """The hosts that agree in one respect."""

    value: str
    hosts: tuple[str, ...]


def answer(host: str, text: str) -> Answer:
    """``text``: what the command printed; empty when the host was not reached or has no enforcer."""
    try:
        found = json.loads(text or "{}")
        certificate = found["certificate"]
        wrong = ["{0}. {1}".format(each["what"], each["remedy"]) for each in found["differences"]]
        not_proved = tuple(map(str, found["not_proved"]))
        if certificate is not None:
            for respect in _RESPECTS.values():
                respect(certificate)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Answer(host, None, ("no answer. It could not be reached, or has no enforcer of this release",), ())
    if certificate is None and not wrong:
        wrong = ["there is no certificate. Run role exfil.guard.policy"]
    return Answer(host, certificate, tuple(wrong), not_proved)


_RESPECTS = {
    "object": lambda known: known["object"][:12],
    "package": lambda known: known["package"][:12],
    "kernel": lambda known: "{0} (types {1})".format(known["kernel"]["release"], known["kernel"]["btf"][:12]),
    "policy": lambda known: known["policy"]["digest"][:12],
    "proof": lambda known: "{0} of {1} programs".format(
        sum(1 for each in known["programs"].values() if each["proved"]), len(known["programs"])
    ),
}


def kinds(answers: Sequence[Answer], respect: str) -> list[Kind]:
    """The most common first; of two that are as common, the one that sorts first."""
    hosts: dict[str, list[str]] = {}
    for each in answers:
        if each.certificate is not None:
            hosts.setdefault(_RESPECTS[respect](each.certificate), []).append(each.host)
    return sorted(
        (Kind(value, tuple(sorted(names))) for value, names in hosts.items()),
        key=lambda kind: (-len(kind.hosts), kind.value),
    )


def report(texts: Mapping[str, str]) -> dict[str, Any]:
    """{"lines": [LINE], "wrong": [HOST], "odd": [HOST]} of what each host's command printed."""
    answers = [answer(host, texts[host]) for host in sorted(texts)]
    certified = [each for each in answers if each.certificate is not None]
    wrong = [each.host for each in answers if each.wrong]
    lines = [
        f"{_count(len(answers))} asked, {len(certified)} with a certificate, {len(answers) - len(wrong)} as it says"
    ]
    odd = set()
    for respect in _RESPECTS:
        for i, kind in enumerate(kinds(certified, respect)):
            lines.append(
                "{0:8} {1}  {2}{3}".format("" if i else respect, kind.value, "odd: " if i else "", _names(kind.hosts))
            )
            if i:
                odd.update(kind.hosts)
    for each in answers:
        lines.extend(f"{each.host} DIFFERS: {line}" for line in each.wrong)
    reasons: dict[str, list[str]] = {}
    for each in answers:
        for line in each.not_proved:
            reasons.setdefault(line, []).append(each.host)
    lines.extend(f"NOT PROVED on {_names(hosts)}: {line}" for line, hosts in sorted(reasons.items()))
    return {"lines": lines, "wrong": wrong, "odd": sorted(odd)}


def _names(hosts: Sequence[str]) -> str:
    shown = ", ".join(hosts[:_SHOWN])
    return "{0} ({1}{2})".format(_count(len(hosts)), shown, ", …" if hosts[_SHOWN:] else "")


def _count(number: int) -> str:
    return "{0} host{1}".format(number, "" if number == 1 else "s")
