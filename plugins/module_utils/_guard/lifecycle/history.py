# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which stored generation an operator means who wants to go back."""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from ..errors import EnforcerError
from ..host.protocols import Store


def generations(store: Store) -> list[dict[str, Any]]:
    """What is stored, oldest first; a document that can't be read is left out."""
    return [each for each in map(store.load, store.numbers()) if each is not None]


def summary(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored generation without what is in it."""
    return {
        "generation": stored["generation"],
        "digest": stored["digest"],
        "revision": stored.get("revision"),
        "applied_at": stored["applied_at"],
        "confirmed": stored["confirmed"],
        "soak": "replaces" in stored,
    }


def find(
    found: Sequence[dict[str, Any]], generation: int | None = None, revisions: Iterable[str] = ()
) -> dict[str, Any]:
    """``generation``: by number. ``revisions``: a commit and those before it, newest first; what was in force then is
    the confirmed generation of the first of them that has one. Raises EnforcerError when there is none."""
    whole = [each for each in found if "replaces" not in each]
    if generation is not None:
        for each in whole:
            if each["generation"] == generation:
                return each
        raise EnforcerError(f"generation {generation} is not stored on this host{_those(whole)}", _REMEDY)
    wanted = list(revisions)
    for revision in wanted:
        of_it = [each for each in whole if each["confirmed"] and each.get("revision") == revision]
        if of_it:
            return of_it[-1]
    raise EnforcerError(
        "no generation stored on this host was in force at commit {}{}".format(
            wanted[0] if wanted else "(none named)", _those(whole)
        ),
        _REMEDY,
    )


_REMEDY = "Check that commit out and run the rollout from there"


def _those(found: Sequence[dict[str, Any]]) -> str:
    told = ", ".join(
        "{} ({})".format(each["generation"], (each.get("revision") or "no commit known")[:12]) for each in found
    )
    return f": there are {told}" if told else ""
