# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiles a document for this host and this kernel. Apply, boot and refresh all use it, so a run after a reboot
reports no change."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import Any, Mapping

from ..compile import programs, tables
from ..errors import PolicyErrors, Problem
from ..host.stored import Stored
from ..kernel import links
from ..kernel.types import Environment
from ..policy.canonical import digest
from ..policy.model import Resolved
from ..resolve import encoding
from . import canary
from .context import Context


@dataclass(frozen=True)
class Target:
    """What a document means on this host now.

    ``rules``: names in the order of their bits in the tables. ``labels``: the bit of each label. ``revision``, ``soak``
    and ``replaces``: as they are stored."""

    document: dict[str, Any]
    digest: str
    resolved: Resolved
    image: tables.Image
    hooks: frozenset[str]
    rules: list[str]
    places: canary.Places
    labels: dict[str, int]
    revision: str | None = None
    soak: bool = False
    replaces: dict[str, Any] | None = None

    def stored(self, generation: int, confirmed: bool) -> Stored:
        """The generation as the store keeps it."""
        return Stored(
            generation=generation,
            document=self.document,
            digest=self.digest,
            confirmed=confirmed,
            resolved=encoded(self.resolved),
            hooks=sorted(self.hooks),
            image=self.image.digest(),
            labels=self.labels,
            applied_at=datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0).isoformat(),
            revision=self.revision,
            soak=self.soak,
            replaces=self.replaces,
        )


def encoded(resolved: Resolved) -> dict[str, Any]:
    """A resolved policy as it is read back from a file."""
    content: dict[str, Any] = json.loads(json.dumps(encoding.to_json(resolved)))
    return content


def compile_target(
    context: Context, document: dict[str, Any], resolved: Resolved, labels: Mapping[str, int], available: frozenset[str]
) -> Target:
    """Compiles ``resolved`` with the rules of the self-test. ``labels``: bits that labels have already;
    ``available``: the programs that are loaded."""
    places = canary.find(context.system, context.options.paths.canary)
    image = tables.compile_policy(resolved, context.now, canary=places.denied, labels=labels)
    rules = tables.rule_bits(image)
    sendpage = context.kernel.environment().sendpage
    hooks = set(programs.needed(resolved, context.now, sendpage)).union(links.IDENTITY_HOOKS)
    if canary.FILE_RULE in rules:
        hooks.add(canary.FILE_HOOK)
    if canary.NETWORK_RULE in rules:
        hooks.add(canary.NETWORK_HOOK)
    return Target(
        document=document,
        digest=digest(document),
        resolved=resolved,
        image=image,
        hooks=programs.attached(hooks, available),
        rules=rules,
        places=places,
        labels=tables.labels_of(image.tables),
    )


def check_capability(context: Context, target: Target, available: frozenset[str]) -> None:
    """Raises PolicyErrors unless this host can enforce every rule."""
    environment = context.kernel.environment()
    problems = _missing_lsm(environment)
    for rule in target.resolved.rules:
        alone = target.resolved._replace(rules=(rule,))
        needed = programs.here(programs.needed(alone, context.now, environment.sendpage), available)
        actions = ", ".join(sorted(rule.deny))
        problems.extend(
            Problem(
                "rule " + rule.name,
                f"this kernel's hook {hook} is not guarded",
                "",
                f"Run role exfil.guard.enforcer on a kernel that has it, or drop the rule's action ({actions})",
            )
            for hook in sorted(needed - available)
        )
    if not problems:
        problems.extend(
            Problem("host", f"the program for hook {hook} is not loaded", "", "Run role exfil.guard.enforcer")
            for hook in sorted(target.hooks - available)
        )
    if problems:
        raise PolicyErrors(problems)


def _missing_lsm(environment: Environment) -> list[Problem]:
    if "bpf" in environment.lsms:
        return []
    active = ",".join(environment.lsms) or "the list cannot be read"
    return [
        Problem(
            "host",
            f"bpf is not among the active Linux Security Modules ({active})",
            "",
            "Run role exfil.guard.enforcer; it adds bpf and reboots",
        )
    ]
