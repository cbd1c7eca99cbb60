# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of validating the policies of many hosts: a report in which equal hosts are one entry, and the same as
JUnit XML. Private to this collection."""

from __future__ import annotations

import re
from typing import Iterable, NamedTuple
from xml.etree import ElementTree

SHOWN = 3  # hosts named in one line
VALID = "the policy is valid"
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Case(NamedTuple):
    name: str
    problems: tuple[str, ...] = ()  # none: it holds


class Checked(NamedTuple):
    """One host. ``cases``: that its policy is valid, and each of its assertions."""

    digest: str  # of its document; empty: it is not valid
    cases: tuple[Case, ...]

    @property
    def problems(self) -> list[str]:
        return [problem for case in self.cases for problem in case.problems]


def hosts_text(hosts: Iterable[str], shown: int = SHOWN) -> str:
    names = sorted(hosts)
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def report(checked: dict[str, Checked]) -> str:
    """For people: every problem once, with the hosts that have it."""
    digests = {each.digest for each in checked.values() if each.digest}
    wrong: dict[tuple[str, ...], list[str]] = {}
    for host, each in checked.items():
        if each.problems:
            wrong.setdefault(tuple(each.problems), []).append(host)
    cases = [case for each in checked.values() for case in each.cases if case.name != VALID]
    held = sum(1 for case in cases if not case.problems)
    broken = sum(map(len, wrong.values()))
    lines = [
        f"{_count(len(checked), 'host')}: {len(checked) - broken:,} valid with "
        f"{_count(len(digests), 'different policy', 'different policies')}, {broken:,} not valid; "
        f"{held:,} of {_count(len(cases), 'assertion')} hold"
    ]
    for problems, hosts in sorted(wrong.items(), key=lambda each: sorted(each[1])):
        lines.append(f"NOT VALID  {hosts_text(hosts)}")
        lines.extend(f"  - {problem}" for problem in problems)
    return "\n".join(lines)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def junit(checked: dict[str, Checked]) -> bytes:
    """One test suite for each host, one test case for its policy and for each assertion."""
    root = ElementTree.Element("testsuites", name="exfil.guard")
    for host, each in sorted(checked.items()):
        failed = [case for case in each.cases if case.problems]
        counts = {"tests": str(len(each.cases)), "failures": str(len(failed)), "errors": "0"}
        suite = ElementTree.SubElement(root, "testsuite", name=_text(host), **counts)
        for case in each.cases:
            found = ElementTree.SubElement(suite, "testcase", classname=_text(host), name=_text(case.name))
            if case.problems:
                failure = ElementTree.SubElement(found, "failure", message=_text(case.problems[0]))
                failure.text = _text("\n".join(case.problems))
    for key in ("tests", "failures"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _text(text: str) -> str:
    """XML has no way to say most control characters."""
    return _NO_XML.sub("\ufffd", text)
