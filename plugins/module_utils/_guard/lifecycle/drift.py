# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the differences come from that a run finds: the kernel has drifted from the host's own document, a change of
the policy is pending, the host itself has changed, or a trial was left unsettled."""

from __future__ import annotations

import datetime
from typing import Any

from ..compile import tables
from ..host.protocols import Store, System
from ..host.stored import Stored
from ..kernel import generations, links
from ..kernel.generations import Live
from ..policy import diff
from ..resolve import encoding
from . import canary
from .context import Context


def nowhere(store: Store) -> dict[str, Any]:
    """Without an enforcer: whatever is stored as confirmed is not in force."""
    lost = store.last_confirmed()
    drift = [f"the enforcer is not in the kernel, generation {lost.generation} is stored as in force"] if lost else []
    return {"drift": drift, "pending": True, "renewal": [], "unsettled": [], "document_before": None}


def apart(
    context: Context, live: Live, before: Stored | None, after: Stored, attached: frozenset[str], differing: bool
) -> dict[str, Any]:
    """Classifies the differences.

    ``before``: the stored generation in force; ``after``: the wanted one, as it would be stored; ``attached``: the
    hooks; ``differing``: whether the kernel's tables differ from ``after``. Gives `drift`, `renewal` and `unsettled`,
    each a list of lines, `pending`, and the document before if it is another one."""
    pending = before is None or before.digest != after.digest if live.generation else True
    drift: list[str] = []
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
    return {
        "drift": drift,
        "pending": pending and not (before is None and live.generation),
        "renewal": renewal,
        "unsettled": unsettled,
        "document_before": before.document if before and pending else None,
    }


def difference_lines(
    live: Live,
    stored: Stored | None,
    attached: list[str],
    system: System,
    now: datetime.date,
    canary_folder: str = canary.FOLDER,
) -> list[str]:
    """How the kernel differs from the document of the generation that it says is in force. A rule that has expired
    since then and is still there is planned, not drift."""
    if not live.generation:
        return []
    if stored is None:
        return [f"the document of generation {live.generation} is missing"]
    resolved = encoding.from_json(stored.resolved)
    places = canary.find(system, canary_folder)
    wrong: dict[str, int] = {}
    for day in (now, datetime.date(*(int(part) for part in stored.applied_at[:10].split("-")))):
        image = tables.compile_policy(resolved, day, canary=places.denied, labels=tables.labels_of(live.tables))
        differing = generations.differences(image.tables, live.tables)
        wrong = wrong or differing
        if not differing:
            wrong = {}
            break
    lines = ["table {}: {} entries differ".format(*each) for each in sorted(wrong.items())]
    needed = set(stored.hooks or links.IDENTITY_HOOKS)
    lines.extend(f"hook {hook} is not attached" for hook in sorted(needed - set(attached)))
    return lines
