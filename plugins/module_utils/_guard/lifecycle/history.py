# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Selects the stored generation to roll back to."""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from ..errors import EnforcerError
from ..host.protocols import Store
from ..host.stored import Stored

_REMEDY = "Check that commit out and run the rollout from there"


def generations(store: Store) -> list[Stored]:
    """What is stored, oldest first, without generations that cannot be read."""
    return [stored for stored in map(store.load, store.numbers()) if stored is not None]


def summary(stored: Stored) -> dict[str, Any]:
    """A stored generation without its content."""
    return {
        "generation": stored.generation,
        "digest": stored.digest,
        "revision": stored.revision,
        "applied_at": stored.applied_at,
        "confirmed": stored.confirmed,
        "soak": stored.soak,
    }


def find(candidates: Sequence[Stored], generation: int | None = None, revisions: Iterable[str] = ()) -> Stored:
    """Finds a generation by its number, or by the commit that was in force.

    ``revisions``: a commit and its ancestors, newest first. The result is the confirmed generation of the first of them
    that has one: it was in force at that commit. Raises EnforcerError if there is none."""
    complete = [stored for stored in candidates if not stored.soak]
    if generation is not None:
        for stored in complete:
            if stored.generation == generation:
                return stored
        raise EnforcerError(f"generation {generation} is not stored on this host{_list_text(complete)}", _REMEDY)
    commits = list(revisions)
    for commit in commits:
        confirmed = [stored for stored in complete if stored.confirmed and stored.revision == commit]
        if confirmed:
            return confirmed[-1]
    commit = commits[0] if commits else "(none named)"
    raise EnforcerError(
        f"no generation stored on this host was in force at commit {commit}{_list_text(complete)}", _REMEDY
    )


def _list_text(generations: Sequence[Stored]) -> str:
    text = ", ".join(f"{stored.generation} ({(stored.revision or 'no commit known')[:12]})" for stored in generations)
    return f": there are {text}" if text else ""
