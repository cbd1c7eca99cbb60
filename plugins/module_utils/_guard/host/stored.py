# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A generation as it is kept on disk, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..policy import canonical

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


CHECKSUM = "checksum"  # of everything else in the file
_KINDS: dict[str, tuple[type, ...]] = {
    "generation": (int,),
    "document": (dict,),
    "digest": (str,),
    "resolved": (dict,),
    "confirmed": (bool,),
    "applied_at": (str,),
    "hooks": (list, type(None)),
    "image": (str, type(None)),
    "labels": (dict, type(None)),
    "hardlinks": (dict, type(None)),
    "revision": (str, type(None)),
    "replaces": (dict, type(None)),
}


def to_bytes(generation: Stored) -> bytes:
    """The generation's file. Its checksum shows an edit, and a disk that lost a bit."""
    content = generation.to_json()
    return canonical.canonical_json(dict(content, **{CHECKSUM: canonical.digest(content)}))


def from_json(content: object) -> Stored | None:
    """Reads the content of a file; None if a field is missing or of another type."""
    if not isinstance(content, dict) or any(key not in content for key in _REQUIRED):
        return None
    fields: dict[str, Any] = {key: content.get(key) for key in _KINDS}
    if not all(isinstance(fields[key], kinds) for key, kinds in _KINDS.items()):
        return None
    return Stored(soak="replaces" in content, **fields)


def edited(content: dict[str, Any]) -> bool:
    """Whether the content is not what was written. Earlier releases wrote no checksum; what they wrote is compared with
    the digest of the document."""
    if CHECKSUM not in content:
        return bool(content["digest"] != canonical.digest(content["document"]))
    known = {key: value for key, value in content.items() if key != CHECKSUM}
    return bool(content[CHECKSUM] != canonical.digest(known))
