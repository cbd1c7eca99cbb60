# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store in memory with the methods of host.store.Store."""

from __future__ import annotations

import json
from typing import Any, Iterable


class FakeStore:
    """Keeps generations as they would be read back from their files."""

    def __init__(self, folder: str = "/nonexistent/state", library: str = "/nonexistent/library") -> None:
        self.folder, self.library = folder, library
        self.generations: dict[int, str] = {}
        self.certified: str | None = None

    def numbers(self) -> list[int]:
        return sorted(self.generations)

    def load(self, generation: int) -> dict[str, Any] | None:
        stored: dict[str, Any] | None = json.loads(self.generations.get(generation, "null"))
        return stored

    def last_confirmed(self) -> dict[str, Any] | None:
        for number in reversed(self.numbers()):
            stored = self.load(number)
            if stored and stored["confirmed"]:
                return stored
        return None

    def save(self, stored: dict[str, Any]) -> None:
        self.generations[stored["generation"]] = json.dumps(stored)

    def prune(self, in_use: Iterable[int]) -> None:
        """Deletes nothing: how many are kept is the real store's to decide."""

    def certificate(self) -> dict[str, Any] | None:
        content: dict[str, Any] | None = json.loads(self.certified or "null")
        return content

    def certify(self, certificate: dict[str, Any]) -> None:
        self.certified = json.dumps(certificate)

    def decertify(self) -> None:
        self.certified = None

    def paths(self) -> list[str]:
        return []

    def clear(self) -> bool:
        cleared = bool(self.generations)
        self.generations.clear()
        self.decertify()
        return cleared
