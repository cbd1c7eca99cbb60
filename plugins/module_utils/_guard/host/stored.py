# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A generation as it is kept on disk, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_REQUIRED = ("generation", "document", "digest", "resolved", "confirmed", "applied_at")
_OPTIONAL = ("hooks", "image", "labels", "hardlinks", "revision")


@dataclass(frozen=True)
class Stored:
    """A policy that was put in force.

    ``digest``: SHA-256, in hex, of the document. ``resolved``: the resolved policy, as JSON. ``applied_at``: UTC, ISO
    8601. ``hooks``: those that the policy needs. ``image``: the digest of the compiled tables. ``labels``: the bit of
    each label. ``hardlinks``: see resolve.hardlinks. ``revision``: the commit that the document was made from.
    ``soak``: whether part of the document only reports for a time; ``replaces``: the document in force without that
    part, None if there was none. Optional fields are None where an older release did not store them."""

    generation: int
    document: dict[str, Any]
    digest: str
    resolved: dict[str, Any]
    confirmed: bool
    applied_at: str
    hooks: list[str] | None = None
    image: str | None = None
    labels: dict[str, int] | None = None
    hardlinks: dict[str, Any] | None = None
    revision: str | None = None
    soak: bool = False
    replaces: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of the generation's file."""
        content = {key: getattr(self, key) for key in _REQUIRED}
        content.update({key: getattr(self, key) for key in _OPTIONAL if getattr(self, key) is not None})
        if self.soak:
            content["replaces"] = self.replaces
        return content


def from_json(content: object) -> Stored | None:
    """Reads the content of a file; None if a field is missing."""
    if not isinstance(content, dict) or any(key not in content for key in _REQUIRED):
        return None
    fields: dict[str, Any] = {key: content.get(key) for key in (*_REQUIRED, *_OPTIONAL, "replaces")}
    return Stored(soak="replaces" in content, **fields)
