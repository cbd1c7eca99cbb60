# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Advice that needs the host: whether a user whom a rule on files binds gets at the files as root."""

from __future__ import annotations

import datetime

from ..host.protocols import System
from ..policy import actions, administrators, semantics
from ..policy.model import Resolved, Task

_ROOT = Task(frozenset({0}), frozenset({0}), frozenset({0}))


def advice(resolved: Resolved, system: System, now: datetime.date) -> list[str]:
    """A line for each rule on files and each user whom it names, who is a member of a group of administrators. A rule
    that binds root as well is not meant."""
    gids = {group: system.group(group) for group in sorted(administrators.GROUPS)}
    lines = []
    for rule in resolved.rules:
        if (
            rule.subjects is None
            or not semantics.in_force(rule, now)
            or not rule.deny.intersection(actions.FILES)
            or semantics.binds(resolved, rule, _ROOT)
        ):
            continue
        users = {user for name in rule.subjects for user in resolved.subjects[name].users or ()}
        for user in sorted(users - {0}):
            memberships = system.memberships(user)
            given = [group for group, gid in gids.items() if gid is not None and gid in memberships]
            if given:
                who = system.user_name(user) or str(user)
                lines.append(
                    f"rule {rule.name!r} binds {who}, who is a member of {', '.join(given)} and gets at the files as "
                    "root. Select `login_users` too, deny what the group gives, or end the membership"
                )
    return lines
