# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What decides the next boot: the package's files, the units, the stored documents and the drop-ins of
`boot: require`. Status, verify, drift and plan all report what `problems` finds, and a run repairs it: the role
enforcer the files and units, an apply the rest."""

from __future__ import annotations

import contextlib
from typing import Any, Mapping, NamedTuple, Sequence

from ..errors import EnforcerError
from ..host import dropins, install
from ..host.protocols import Store
from ..host.stored import Stored
from ..kernel.generations import Live
from ..resolve import encoding


class Damage(NamedTuple):
    """Something that the next boot would do otherwise. ``installation``: the role enforcer repairs it, not an apply."""

    line: str
    installation: bool


def problems(store: Store, live: Live, installation: Sequence[str] | None = None) -> list[Damage]:
    """Everything that keeps the next boot from putting in force what is in force now. ``installation``: the part about
    installed files and units, if it was just looked for."""
    if installation is None:
        installation = install.problems(store.library, store.root)
    files = [Damage(line, True) for line in installation]
    return files + [Damage(line, False) for line in (*_document_lines(store, live), *_drop_in_lines(store))]


def lines(store: Store, live: Live, installation: Sequence[str] | None = None) -> list[str]:
    """The same as text."""
    return [damage.line for damage in problems(store, live, installation)]


def damaged(store: Store) -> dict[int, str]:
    """The stored generations that cannot be used, each with the reason."""
    reasons = {number: store.problem(number) for number in store.numbers()}
    return {number: reason for number, reason in reasons.items() if reason}


def document(store: Store, generation: int, *, edited: bool = False) -> Stored | None:
    """A stored generation; None if it is missing, damaged, or written by a release with another format. ``edited``:
    also one that is not as it was written."""
    stored = store.load(generation, edited=edited)
    try:
        if stored:
            encoding.from_json(stored.resolved)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return stored


def _document_lines(store: Store, live: Live) -> list[str]:
    result = [f"the directory {line}" for line in store.folder_problems()]
    result.extend(
        f"the document of generation {number} cannot be used: {reason}" for number, reason in damaged(store).items()
    )
    current = store.load(live.generation) if live.generation and not live.pending else None
    if current is None:
        return result
    last = store.last_confirmed()
    if last is None or last.generation != live.generation:
        next_one = f"generation {last.generation}" if last else "no policy"
        result.append(f"the next boot loads {next_one}, and generation {live.generation} is in force")
    return result


_WORDS = {
    "+": "the drop-in {} is missing",
    "~": "the drop-in {} is not as it was installed",
    "-": "the drop-in {} is there, and the policy does not say `boot: require`",
}


def _drop_in_lines(store: Store) -> list[str]:
    return [_WORDS[change[0]].format(change[2:]) for change in drop_ins(store)]


# ---- boot: require --------------------------------------------------------------------------------------------------


def required(store: Store) -> bool | None:
    """Whether the policy that the next boot loads says `boot: require`. None if documents are stored and none can be
    used: then nobody knows."""
    last = store.last_confirmed()
    if last is not None:
        return requires(last.document)
    return None if damaged(store) else False


def requires(policy: Mapping[str, Any]) -> bool:
    """Whether a document says `boot: require`."""
    return policy.get("boot") == "require"


def drop_ins(store: Store, *, unit: bool | None = None) -> list[str]:
    """What a run changes in the drop-ins, as lines of a diff. ``unit``: whether the host has the boot unit, default:
    look."""
    wanted = required(store)
    return [] if wanted is None else dropins.lines(store.root, wanted, unit=unit)


def hold_back(store: Store, wanted: bool) -> list[str]:
    """Makes the drop-ins those of a policy that requires its boot, or of one that does not. Returns the lines of the
    diff. Raises EnforcerError."""
    changes = dropins.ensure(store.root, wanted)
    if changes:
        with contextlib.suppress(EnforcerError):  # the next boot reads the files in any case
            install.systemctl(["daemon-reload"])
    return changes
