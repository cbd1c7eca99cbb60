# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a policy locks out: the task that puts it in force, as the policy will see it."""

from __future__ import annotations

import datetime

from ..host.protocols import System
from ..policy import semantics
from ..policy.model import NO_ID, Location, Resolved, Task
from . import canary

# without any of these no policy can be changed
_NEEDED = frozenset({"bpf", "cap-bpf", "cap-sys-admin", "cap-perfmon"})


def task(system: System) -> Task:
    found = system.current_process()
    fields = dict(line.split(":", 1) for line in found.get("status", "").splitlines() if ":" in line)
    users, groups, more = ([int(each) for each in fields.get(name, "").split()] for name in ("Uid", "Gid", "Groups"))
    service = None
    for line in found.get("cgroup", "").splitlines():
        if line.startswith("0::"):
            service = tuple(part for part in line[3:].split("/") if part)
    executable = canary.place(system, found["executable"])
    return Task(
        frozenset(users),
        frozenset(groups + more),
        frozenset(groups[:1] + more),
        int(found.get("loginuid") or NO_ID),
        service,
        Location(executable.device, executable.components) if executable else None,
    )


def locked_out(resolved: Resolved, system: System, now: datetime.date) -> list[str]:
    """What a task like this one will not be able to undo; a policy on trial ends by itself all the same."""
    if not resolved.rules:
        return []
    who = task(system)
    warnings = []
    for rule in resolved.rules:
        if (
            rule.audit
            or not semantics.in_force(rule, now)
            or not semantics.binds(resolved, rule, who)
            or semantics.excepts(resolved, rule, who)
        ):
            continue
        denied = sorted(rule.deny & _NEEDED)
        if rule.subjects is not None:
            why = "names subjects and binds the task that applies it, which then may not touch what enforces"
        elif denied:
            why = "denies {} to the task that applies it".format(", ".join(denied))
        else:
            continue
        warnings.append(
            f"rule {rule.name!r} {why}: such a task can neither confirm nor change this policy. Except the operator "
            "in the rule"
        )
    return warnings
