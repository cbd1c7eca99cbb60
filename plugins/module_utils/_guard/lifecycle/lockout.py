# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Warns when a policy would prevent the applying process from changing it again."""

from __future__ import annotations

import datetime

from ..host.protocols import System
from ..policy import semantics
from ..policy.model import NO_ID, Location, Resolved, Task
from . import canary

# without any of these no policy can be changed
_NEEDED = frozenset({"bpf", "cap-bpf", "cap-sys-admin", "cap-perfmon"})


def task(system: System) -> Task:
    """The current process as a policy sees it."""
    process = system.current_process()
    fields = dict(line.split(":", 1) for line in process.get("status", "").splitlines() if ":" in line)
    users, groups, more = (
        [int(number) for number in fields.get(name, "").split()] for name in ("Uid", "Gid", "Groups")
    )
    service = None
    for line in process.get("cgroup", "").splitlines():
        if line.startswith("0::"):
            service = tuple(part for part in line[3:].split("/") if part)
    executable = canary.place(system, process["executable"])
    return Task(
        frozenset(users),
        frozenset(groups + more),
        frozenset(groups[:1] + more),
        int(process.get("loginuid") or NO_ID),
        service,
        Location(executable.device, executable.components) if executable else None,
    )


def locked_out(resolved: Resolved, system: System, now: datetime.date) -> list[str]:
    """A warning for each rule that would keep a task like this one from changing the policy. A policy on trial ends
    without such a task."""
    if not resolved.rules:
        return []
    applying_task = task(system)
    warnings = []
    for rule in resolved.rules:
        if (
            rule.audit
            or not semantics.in_force(rule, now)
            or not semantics.binds(resolved, rule, applying_task)
            or semantics.excepts(resolved, rule, applying_task)
        ):
            continue
        denied = sorted(rule.deny & _NEEDED)
        if rule.subjects is not None:
            reason = "names subjects and binds the task that applies it, which then may not touch what enforces"
        elif denied:
            reason = "denies {} to the task that applies it".format(", ".join(denied))
        else:
            continue
        warnings.append(
            f"rule {rule.name!r} {reason}: such a task can neither confirm nor change this policy. Except the operator "
            "in the rule"
        )
    return warnings
