# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of each rule and action, whether this host enforces it: bpf is among the LSMs, and each program that decides the
action is loaded and attached."""

from __future__ import annotations

import datetime
from typing import Any, Iterable, Mapping

from ..compile import programs
from ..kernel.protocol import Kernel
from ..kernel.types import Environment
from ..policy import semantics
from ..policy.model import Resolved, Rule

NO_BPF = "bpf is not among the active Linux Security Modules"


def of_rule(
    resolved: Resolved,
    rule: Rule,
    environment: Environment,
    available: frozenset[str],
    attached: frozenset[str],
    absent: str = "not loaded",
) -> list[dict[str, Any]]:
    """``available``: the programs that are loaded; ``absent``: what is said of the others."""
    found = []
    for action in sorted(rule.deny):
        alone = resolved._replace(rules=(rule._replace(deny=frozenset([action]), expires=None),))
        needed = programs.here(programs.needed(alone, datetime.date.min, environment.sendpage), available)
        lacking = {hook: "not attached" if hook in available else absent for hook in sorted(needed - attached)}
        found.append({"action": action, "lacking": lacking, "enforced": not lacking and "bpf" in environment.lsms})
    return found


def told(
    resolved: Resolved,
    now: datetime.date,
    environment: Environment,
    available: frozenset[str],
    attached: frozenset[str],
    absent: str = "not loaded",
) -> dict[str, Any]:
    """As an operator wants it: the actions of each rule that this host enforces, and a line for each rule of which it
    does not enforce all. A rule that only reports is none that is enforced."""
    enforced, rules = {}, []
    for rule in resolved.rules:
        if semantics.in_force(rule, now):
            actions = of_rule(resolved, rule, environment, available, attached, absent)
            rules.append({"name": rule.name, "actions": actions})
            if not rule.audit:
                enforced[rule.name] = [each["action"] for each in actions if each["enforced"]]
    return {"enforced": enforced, "unenforced": lines(rules, environment)}


def before_install(resolved: Resolved, now: datetime.date, kernel: Kernel) -> dict[str, Any]:
    """The same of a host without the enforcer, as it will be with it: by the hooks that its kernel has."""
    environment, present = kernel.environment(), kernel.lsm_hooks()
    known = frozenset(
        hook for hook in programs.needed(resolved, now, environment.sendpage) if hook.partition("__")[0] in present
    )
    return told(resolved, now, environment, known, known, "not in this kernel")


def lines(rules: Iterable[Mapping[str, Any]], environment: Environment) -> list[str]:
    rules = list(rules)
    if rules and "bpf" not in environment.lsms:
        return ["every rule: " + NO_BPF]
    found = []
    for rule in rules:
        lacking: dict[str, str] = {}
        for each in rule["actions"]:
            lacking.update(each["lacking"])
        if lacking:
            actions = [each["action"] for each in rule["actions"] if not each["enforced"]]
            found.append(
                "{}: {} ({})".format(
                    rule["name"],
                    ", ".join(actions),
                    ", ".join("hook {} {}".format(*one) for one in sorted(lacking.items())),
                )
            )
    return found
