# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents in force and before, on disk: what boot loads and what a plan compares with. Never what decides
whether something changed: that is read from the kernel."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import Any, Iterable

from .. import layout
from ..errors import EnforcerError
from ..policy.canonical import canonical_json
from . import atomic

FOLDER = "/var/lib/exfil-guard"
KEPT = 5  # generations beside those in use: that many to go back to, and that many others
_KEYS = ("generation", "document", "digest", "resolved", "confirmed", "applied_at")
_CERTIFIED = {
    "version": int,
    "object": str,
    "enforcer": str,
    "package": str,
    "kernel": dict,
    "policy": dict,
    "tables": dict,
    "maps": dict,
    "programs": dict,
    "attached": list,
    "canary": dict,
    "proof": dict,
    "not_proved": list,
    "differences": list,
    "issued_at": str,
}
_WRITE_REMEDIES = {
    errno.ENOSPC: "Free some space there and run again",
    errno.EDQUOT: "Raise the quota there and run again",
    errno.EROFS: "Mount it writable and run again",
}


class Store:
    def __init__(self, folder: str = FOLDER, library: str = layout.LIBRARY) -> None:
        self.folder, self.library = folder, library
        self.generations_folder = os.path.join(folder, "generations")

    def numbers(self) -> list[int]:
        """Every generation that has a file, readable or not, in order."""
        try:
            names = os.listdir(self.generations_folder)
        except FileNotFoundError:
            return []
        stems = [name[:-5] for name in names if name.endswith(".json")]
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def load(self, generation: int) -> dict[str, Any] | None:
        """None when it is not there, or not whole."""
        try:
            with open(self._path(generation), encoding="utf-8") as file:
                stored = json.load(file)
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise EnforcerError(f"cannot read {self._path(generation)}: {error.strerror}") from error
        if not isinstance(stored, dict) or any(key not in stored for key in _KEYS):
            return None
        return stored if stored["generation"] == generation else None

    def last_confirmed(self) -> dict[str, Any] | None:
        for number in reversed(self.numbers()):
            stored = self.load(number)
            if stored and stored["confirmed"]:
                return stored
        return None

    def save(self, stored: dict[str, Any]) -> None:
        self._write(self._path(stored["generation"]), stored)

    def certificate(self) -> dict[str, Any] | None:
        """What certificate.issue wrote last; None when there is none, or it is not whole."""
        try:
            with open(self._certificate, encoding="utf-8") as file:
                found = json.load(file)
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise EnforcerError(f"cannot read {self._certificate}: {error.strerror}") from error
        whole = isinstance(found, dict) and all(isinstance(found.get(key), kind) for key, kind in _CERTIFIED.items())
        return found if whole else None

    def certify(self, certificate: dict[str, Any]) -> None:
        self._write(self._certificate, certificate)

    def decertify(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._certificate)

    @property
    def _certificate(self) -> str:
        return os.path.join(self.folder, "certificate.json")

    def _write(self, path: str, content: dict[str, Any]) -> None:
        try:
            for folder in (self.folder, self.generations_folder):
                if not os.path.isdir(folder):
                    os.makedirs(folder, mode=0o700)
                    atomic.sync(os.path.dirname(folder))
            atomic.write(path, canonical_json(content))
            atomic.sync(os.path.dirname(path))
        except OSError as error:
            raise EnforcerError(
                f"cannot write {path}: {error.strerror or error}", _WRITE_REMEDIES.get(error.errno or 0, "")
            ) from error

    def delete(self, generation: int) -> None:
        try:
            os.unlink(self._path(generation))
            atomic.sync(self.generations_folder)
        except FileNotFoundError:
            pass

    def prune(self, in_use: Iterable[int]) -> None:
        """Keeps what is in use, the last confirmed one, the newest that were confirmed before, for a rollback, and the
        newest others: trials that failed, and soaks."""
        keep = set(in_use)
        last = self.last_confirmed()
        if last:
            keep.add(last["generation"])
        others: list[int] = []
        earlier: list[int] = []
        for number in self.numbers():
            if number not in keep:
                stored = self.load(number)
                whole = stored and stored["confirmed"] and "replaces" not in stored
                (earlier if whole else others).append(number)
        for number in earlier[:-KEPT] + others[:-KEPT]:
            self.delete(number)

    def paths(self) -> list[str]:
        """The files that `clear` deletes."""
        found = [self._path(number) for number in self.numbers()]
        return found + [path for path in (self._certificate,) if os.path.lexists(path)]

    def clear(self) -> bool:
        """Deletes every document, and the certificate; True when there was a document."""
        self.decertify()
        numbers = self.numbers()
        for number in numbers:
            self.delete(number)
        return bool(numbers)

    def _path(self, generation: int) -> str:
        return os.path.join(self.generations_folder, f"{generation}.json")
