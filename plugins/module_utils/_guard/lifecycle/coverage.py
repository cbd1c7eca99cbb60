# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells which actions of which rules this host enforces: bpf is an active LSM, and every program that decides the
action is loaded and attached."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Iterable, Mapping

from ..compile import programs
from ..kernel.protocol import Kernel
from ..kernel.types import Environment
from ..policy import semantics
from ..policy.model import Resolved, Rule

NO_BPF = "bpf is not among the active Linux Security Modules"


@dataclass(frozen=True)
class Coverage:
    """``enforced``: the actions of each rule that this host enforces. ``unenforced``: a line for each rule of which it
    does not enforce every action."""

    enforced: dict[str, list[str]]
    unenforced: list[str]

    def to_json(self) -> dict[str, Any]:
        """The part of a result that describes the coverage."""
        return dict(vars(self))


def of_rule(
    resolved: Resolved,
    rule: Rule,
    environment: Environment,
    available: frozenset[str],
    attached: frozenset[str],
    absent: str = "not loaded",
) -> list[dict[str, Any]]:
    """Each action of the rule as ``action``, ``enforced`` and ``lacking``: the hooks that do not enforce it, with the
    reason. ``available``: the hooks whose program is loaded; ``absent``: the reason for the others."""
    result = []
    for action in sorted(rule.deny):
        alone = resolved._replace(rules=(rule._replace(deny=frozenset([action]), expires=None),))
        needed = programs.here(programs.needed(alone, datetime.date.min, environment.sendpage), available)
        lacking = {
            hook: "not attached" if hook in available else absent
            for hook in sorted(programs.uncovered(frozenset(needed), frozenset(attached)) - attached)
        }
        result.append({"action": action, "lacking": lacking, "enforced": not lacking and "bpf" in environment.lsms})
    return result


def coverage(
    resolved: Resolved,
    now: datetime.date,
    environment: Environment,
    available: frozenset[str],
    attached: frozenset[str],
    absent: str = "not loaded",
) -> Coverage:
    """Which actions this host enforces. A rule that only reports counts as not enforced, and is not missing."""
    enforced, rules = {}, []
    for rule in resolved.rules:
        if semantics.in_force(rule, now):
            actions = of_rule(resolved, rule, environment, available, attached, absent)
            rules.append({"name": rule.name, "actions": actions})
            if not rule.audit:
                enforced[rule.name] = [action["action"] for action in actions if action["enforced"]]
    return Coverage(enforced, lines(rules, environment))


def before_install(resolved: Resolved, now: datetime.date, kernel: Kernel) -> Coverage:
    """Which actions a host without the enforcer will enforce once it is installed, by the hooks of its kernel."""
    environment, present = kernel.environment(), kernel.lsm_hooks()
    possible = frozenset(
        hook for hook in programs.needed(resolved, now, environment.sendpage) if hook.partition("__")[0] in present
    )
    return coverage(resolved, now, environment, possible, possible, "not in this kernel")


def lines(rules: Iterable[Mapping[str, Any]], environment: Environment) -> list[str]:
    """A line for each rule of which an action is not enforced. ``rules``: ``name`` and, from `of_rule`, ``actions``."""
    rules = list(rules)
    if rules and "bpf" not in environment.lsms:
        return ["every rule: " + NO_BPF]
    result = []
    for rule in rules:
        lacking: dict[str, str] = {}
        for action in rule["actions"]:
            lacking.update(action["lacking"])
        if lacking:
            actions = ", ".join(action["action"] for action in rule["actions"] if not action["enforced"])
            reasons = ", ".join(f"hook {hook} {reason}" for hook, reason in sorted(lacking.items()))
            result.append(f"{rule['name']}: {actions} ({reasons})")
    return result
