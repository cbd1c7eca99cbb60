# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores the generations of the policy on disk: boot loads them, and a plan compares with them.

Whether a run changes something is decided by what is in the kernel, not by these files."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import Any, Iterable

from .. import layout
from ..errors import EnforcerError
from ..policy.canonical import canonical_json
from . import atomic, stored
from .stored import Stored

FOLDER = "/var/lib/exfil-guard"
KEPT = 5  # generations kept besides those in use: so many to roll back to, and so many others
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
    """The stored generations and the certificate. ``library``: the directory of the package."""

    def __init__(self, folder: str = FOLDER, library: str = layout.LIBRARY) -> None:
        self.folder, self.library = folder, library
        self.generations_folder = os.path.join(folder, "generations")

    def numbers(self) -> list[int]:
        """The generations that have a file, in order. The files may be unreadable."""
        try:
            names = os.listdir(self.generations_folder)
        except FileNotFoundError:
            return []
        stems = [name[:-5] for name in names if name.endswith(".json")]
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def load(self, generation: int) -> Stored | None:
        """One stored generation. None if it does not exist or is incomplete. Raises EnforcerError."""
        try:
            with open(self._path(generation), encoding="utf-8") as file:
                result = stored.from_json(json.load(file))
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise EnforcerError(f"cannot read {self._path(generation)}: {error.strerror}") from error
        return result if result and result.generation == generation else None

    def last_confirmed(self) -> Stored | None:
        """The confirmed generation with the highest number, or None."""
        for number in reversed(self.numbers()):
            generation = self.load(number)
            if generation and generation.confirmed:
                return generation
        return None

    def save(self, generation: Stored) -> None:
        """Writes a generation. Raises EnforcerError."""
        self._write(self._path(generation.generation), generation.to_json())

    def certificate(self) -> dict[str, Any] | None:
        """The certificate that was issued last. None if there is none or it is incomplete. Raises EnforcerError."""
        try:
            with open(self._certificate, encoding="utf-8") as file:
                certificate = json.load(file)
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise EnforcerError(f"cannot read {self._certificate}: {error.strerror}") from error
        if not isinstance(certificate, dict):
            return None
        complete = all(isinstance(certificate.get(key), kind) for key, kind in _CERTIFIED.items())
        return certificate if complete else None

    def certify(self, certificate: dict[str, Any]) -> None:
        """Writes the certificate. Raises EnforcerError."""
        self._write(self._certificate, certificate)

    def decertify(self) -> None:
        """Deletes the certificate, if there is one."""
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
        """Deletes a stored generation, if it exists."""
        try:
            os.unlink(self._path(generation))
            atomic.sync(self.generations_folder)
        except FileNotFoundError:
            pass

    def prune(self, in_use: Iterable[int]) -> None:
        """Deletes old generations.

        It keeps those in use, the last confirmed one, the newest of the earlier confirmed ones, for a rollback, and the
        newest others: trials that were not confirmed, and soaks."""
        keep = set(in_use)
        last = self.last_confirmed()
        if last:
            keep.add(last.generation)
        others: list[int] = []
        earlier: list[int] = []
        for number in self.numbers():
            if number not in keep:
                generation = self.load(number)
                can_roll_back = generation and generation.confirmed and not generation.soak
                (earlier if can_roll_back else others).append(number)
        for number in earlier[:-KEPT] + others[:-KEPT]:
            self.delete(number)

    def paths(self) -> list[str]:
        """The files that `clear` deletes."""
        files = [self._path(number) for number in self.numbers()]
        return files + [path for path in (self._certificate,) if os.path.lexists(path)]

    def clear(self) -> bool:
        """Deletes all generations and the certificate. Returns whether there was a generation."""
        self.decertify()
        numbers = self.numbers()
        for number in numbers:
            self.delete(number)
        return bool(numbers)

    def _path(self, generation: int) -> str:
        return os.path.join(self.generations_folder, f"{generation}.json")
