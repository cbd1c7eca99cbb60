# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The results of validating the policies of many hosts, as text and as JUnit XML. In the text, hosts with the same
problems are one entry. Private to this collection."""

from __future__ import annotations

import re
from typing import Iterable, NamedTuple
from xml.etree import ElementTree

HOSTS_SHOWN = 3  # in one line
VALID = "the policy is valid"
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Case(NamedTuple):
    """A check of a host's policy. Without problems, it passed."""

    name: str
    problems: tuple[str, ...] = ()


class Checked(NamedTuple):
    """The checks of one host: of its policy and of each assertion. ``digest``: of its document, empty if it is not
    valid. ``advice``: about a valid policy."""

    digest: str
    cases: tuple[Case, ...]
    advice: tuple[str, ...] = ()

    @property
    def problems(self) -> list[str]:
        """The problems of all checks."""
        return [problem for case in self.cases for problem in case.problems]


def hosts_text(hosts: Iterable[str], shown: int = HOSTS_SHOWN) -> str:
    """The first ``shown`` names, and the number of the others."""
    names = sorted(hosts)
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def report(checked: dict[str, Checked]) -> str:
    """The results as text: each list of problems once, with its hosts."""
    digests = {result.digest for result in checked.values() if result.digest}
    wrong: dict[tuple[str, ...], list[str]] = {}
    for host, result in checked.items():
        if result.problems:
            wrong.setdefault(tuple(result.problems), []).append(host)
    cases = [case for result in checked.values() for case in result.cases if case.name != VALID]
    held = sum(1 for case in cases if not case.problems)
    broken = sum(map(len, wrong.values()))
    lines = [
        f"{_count(len(checked), 'host')}: {len(checked) - broken:,} valid with "
        f"{_count(len(digests), 'different policy', 'different policies')}, {broken:,} not valid; "
        f"{held:,} of {_count(len(cases), 'assertion')} hold"
    ]
    for problems, hosts in sorted(wrong.items(), key=lambda item: sorted(item[1])):
        lines.append(f"NOT VALID  {hosts_text(hosts)}")
        lines.extend(f"  - {problem}" for problem in problems)
    advised: dict[str, list[str]] = {}
    for host, result in checked.items():
        for line in result.advice:
            advised.setdefault(line, []).append(host)
    for line, hosts in sorted(advised.items()):
        lines.append(f"ADVICE  {hosts_text(hosts)}: {line}")
    return "\n".join(lines)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def junit(checked: dict[str, Checked]) -> bytes:
    """The results as JUnit XML: a test suite for each host, with a test case for its policy and for each assertion."""
    root = ElementTree.Element("testsuites", name="exfil.guard")
    for host, result in sorted(checked.items()):
        failed = [case for case in result.cases if case.problems]
        counts = {"tests": str(len(result.cases)), "failures": str(len(failed)), "errors": "0"}
        suite = ElementTree.SubElement(root, "testsuite", {"name": _text(host), **counts})
        for case in result.cases:
            element = ElementTree.SubElement(suite, "testcase", classname=_text(host), name=_text(case.name))
            if case.problems:
                failure = ElementTree.SubElement(element, "failure", message=_text(case.problems[0]))
                failure.text = _text("\n".join(case.problems))
    for key in ("tests", "failures"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    xml: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml + b"\n"


def _text(text: str) -> str:
    """The text without control characters, most of which XML cannot represent."""
    return _NO_XML.sub("\ufffd", text)
