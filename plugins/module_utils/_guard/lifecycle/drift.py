# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Classifies differences: drift of the kernel, a pending change of the policy, a change of the host, or a trial that
was not confirmed."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

from ..compile import tables
from ..host.protocols import Store, System
from ..host.stored import Stored
from ..kernel import generations, links, running
from ..kernel.generations import Live
from ..policy import diff
from ..resolve import encoding
from . import canary, next_boot
from .context import Context


@dataclass(frozen=True)
class Differences:
    """What differs between a document and what is in force, by its cause.

    ``drift``: lines about changes of the kernel that no run made. ``pending``: whether the document is another one than
    the stored one, ``document_before``, which is None if it is not. ``renewal``: lines about another meaning of the
    same document. ``unsettled``: lines about a trial that was not confirmed."""

    drift: list[str] = field(default_factory=list)
    pending: bool = True
    renewal: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    document_before: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The part of a result that describes the differences."""
        return dict(vars(self))


def not_installed(store: Store) -> Differences:
    """The differences on a host without an enforcer, where the confirmed generation is not in force."""
    confirmed = store.last_confirmed()
    drift = next_boot.lines(store, Live(None, 0, generations.NO_SLOT, False, False, {}))
    if confirmed is not None:
        drift.insert(0, f"the enforcer is not in the kernel, generation {confirmed.generation} is stored as in force")
    return Differences(drift)


def classify(
    context: Context, live: Live, before: Stored | None, after: Stored, attached: frozenset[str], differing: bool
) -> Differences:
    """Classifies the differences.

    ``before``: the stored generation in force; ``after``: the wanted one, as it would be stored; ``attached``: the
    hooks; ``differing``: whether the kernel's tables differ from ``after``."""
    pending = before is None or before.digest != after.digest if live.generation else True
    drift = running.line(context.kernel, True) if live.generation else []
    if live.generation and (differing or pending):
        drift.extend(
            difference_lines(live, before, sorted(attached), context.system, context.now, context.options.paths.canary)
        )
    elif live.generation:
        drift.extend(f"hook {hook} is not attached" for hook in sorted(set(after.hooks or ()) - attached))
    if before and not live.pending:
        drift.extend(
            f"hook {hook} is attached, and no rule needs it"
            for hook in sorted(attached - set(before.hooks or attached))
        )
    uncounted = generations.missing_counters(context.kernel, live.tables) if live.generation else []
    if uncounted:
        drift.append(f"the counters of {len(uncounted)} rules are missing")
    drift.extend(next_boot.lines(context.store, live, context.options.installation))
    renewal = (
        diff.compare(before.to_json(), after.to_json()).lines[:-1]
        if before and not pending and before.resolved != after.resolved
        else []
    )
    if before and not pending and differing and not renewal and before.image != after.image:
        renewal = ["the same document means something else today"]
    unsettled = []
    if live.pending:
        unsettled.append(f"generation {live.generation} is on trial")
    if live.expired and live.record:
        unsettled.append(f"generation {live.record.generation} was not confirmed in time")
    return Differences(
        drift=drift,
        pending=pending and not (before is None and live.generation),
        renewal=renewal,
        unsettled=unsettled,
        document_before=before.document if before and pending else None,
    )


def difference_lines(
    live: Live,
    stored: Stored | None,
    attached: list[str],
    system: System,
    now: datetime.date,
    canary_folder: str = canary.FOLDER,
) -> list[str]:
    """How the kernel differs from the stored generation that is in force. A rule in the tables that has expired since
    the apply is no drift: the next refresh removes it."""
    if not live.generation:
        return []
    if stored is None:
        return [f"the document of generation {live.generation} is missing"]
    resolved = encoding.from_json(stored.resolved)
    places = canary.find(system, canary_folder)
    applied_on = datetime.date(*(int(part) for part in stored.applied_at[:10].split("-")))
    differing: dict[str, int] = {}
    for day in (now, applied_on):
        image = tables.compile_policy(resolved, day, canary=places.denied, labels=tables.labels_of(live.tables))
        differing_that_day = generations.differences(image.tables, live.tables)
        if not differing_that_day:
            differing = {}
            break
        differing = differing or differing_that_day
    lines = [f"table {name}: {count} entries differ" for name, count in sorted(differing.items())]
    needed = set(stored.hooks or links.IDENTITY_HOOKS)
    lines.extend(f"hook {hook} is not attached" for hook in sorted(needed - set(attached)))
    return lines
