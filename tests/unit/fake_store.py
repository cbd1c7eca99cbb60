# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store in memory with the methods of host.store.Store."""

from __future__ import annotations

import json
from typing import Any, Iterable

from ansible_collections.exfil.guard.plugins.module_utils._guard.host import stored
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.stored import Stored


class FakeStore:
    """Keeps generations as they would be read back from their files."""

    def __init__(self, folder: str = "/nonexistent/state", library: str = "/nonexistent/library") -> None:
        self.folder, self.library, self.root = folder, library, "/nonexistent"
        self.generations: dict[int, str] = {}
        self.certified: str | None = None

    def numbers(self) -> list[int]:
        return sorted(self.generations)

    def problem(self, generation: int) -> str:
        return "" if self.load(generation) else "it is not complete"

    def folder_problems(self) -> list[str]:
        return []

    def mend_folders(self) -> None:
        """Nothing can be wrong with them."""

    def delete(self, generation: int) -> None:
        self.generations.pop(generation, None)

    def load(self, generation: int, *, edited: bool = False) -> Stored | None:
        return stored.from_json(json.loads(self.generations.get(generation, "null")))

    def last_confirmed(self) -> Stored | None:
        for number in reversed(self.numbers()):
            generation = self.load(number)
            if generation and generation.confirmed:
                return generation
        return None

    def save(self, generation: Stored) -> None:
        self.generations[generation.generation] = json.dumps(generation.to_json())

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
