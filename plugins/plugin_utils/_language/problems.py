# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of a template, with their file and line. Private to this collection."""

from __future__ import annotations

import difflib
from typing import Iterable, NamedTuple


class Problem(NamedTuple):
    """An error of a template. ``file``: its path from the inventory's folder; ``line``: None if it is unknown."""

    file: str
    line: int | None
    path: str  # JSON path in the rendered document, or empty
    found: str
    expected: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        text = ": ".join(part for part in (place, self.path, self.found) if part)
        if self.expected:
            text += f"; expected {self.expected}"
        if self.remedy:
            text += f". {self.remedy}"
        return text


class FragmentError(Exception):
    """All problems of all fragments of a host."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems), key=lambda p: (p.file, p.line or 0, p.path, p.found))
        super().__init__(str(self))

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        return "\n".join([f"{len(self.problems)} problems:"] + [f"  - {problem}" for problem in self.problems])


def did_you_mean(found: object, candidates: Iterable[str]) -> str:
    """A question that names the candidate most similar to ``found``; empty if none is similar."""
    close = difflib.get_close_matches(str(found), list(candidates), n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'?" if close else ""


def json_path(parts: Iterable[object]) -> str:
    """The JSON path of keys and indexes, such as `$.rules[0].name`."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
