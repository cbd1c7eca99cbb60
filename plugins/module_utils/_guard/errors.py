# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors with a remedy for the operator. No traceback reaches a user."""

from __future__ import annotations

from typing import Iterable, NamedTuple


class Problem(NamedTuple):
    """One problem of a policy or a host. ``where``: a rule, a set, a path or a part of the host."""

    where: str
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        text = f"{self.where}: {self.found}"
        if self.expected:
            text += f"; expected {self.expected}"
        if self.remedy:
            text += f". {self.remedy}"
        return text


class PolicyErrors(Exception):  # noqa: N818  # it holds several errors
    """All problems of a policy on this host."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: list[Problem] = list(problems)
        super().__init__(str(self))

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        lines = [f"{len(self.problems)} problems:"]
        lines.extend(f"  - {problem}" for problem in self.problems)
        return "\n".join(lines)


class EnforcerError(Exception):
    """An operation failed on the host or in the kernel: what happened, and the remedy."""

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(message, remedy)

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message
