# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores the generations of the policy on disk: boot loads them, and a plan compares with them.

Whether a run changes something is decided by what is in the kernel, not by these files. A file that is not as it was
written counts as missing: `problem` says what is wrong with it."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from typing import Any, Iterable

from .. import layout
from ..errors import EnforcerError
from ..policy.canonical import canonical_json, digest
from . import atomic, files, stored
from .stored import Stored

FOLDER = "/var/lib/exfil-guard"
_NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)  # fits the kernel's 64 bits; other names are not ours
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
    """The stored generations and the certificate. ``library``: the directory of the package; ``root``: where the
    package's other files are."""

    def __init__(self, folder: str = FOLDER, library: str = layout.LIBRARY, root: str = "/") -> None:
        self.folder, self.library, self.root = folder, library, root
        self.generations_folder = os.path.join(folder, "generations")

    def numbers(self) -> list[int]:
        """The generations that have a file, in order. The files may be unreadable."""
        try:
            names = os.listdir(self.generations_folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise EnforcerError(f"cannot read {self.generations_folder}: {error.strerror}") from error
        stems = [name[:-5] for name in names if name.endswith(".json")]
        return sorted(int(stem) for stem in stems if _NUMBER.fullmatch(stem))

    def load(self, generation: int, *, edited: bool = False) -> Stored | None:
        """One stored generation. None if it does not exist or is damaged. Raises EnforcerError if this process may not
        read it. ``edited``: gives also one that is not as it was written."""
        found, problem = self._read(generation)
        return found if edited or not problem else None

    def problem(self, generation: int) -> str:
        """Why the file of a generation counts as missing. Empty if it does not."""
        return self._read(generation)[1]

    def _read(self, generation: int) -> tuple[Stored | None, str]:
        path = self._path(generation)
        try:
            content = json.loads(files.read_own(path))
        except PermissionError as error:
            raise EnforcerError(f"cannot read {path}: {error.strerror}") from error
        except OSError as error:
            return None, error.strerror or str(error)
        except (ValueError, RecursionError):
            return None, "it is not complete"
        found = stored.from_json(content)
        if found is None or found.generation != generation:
            return None, "it is not complete"
        return found, "it was edited" if stored.edited(content) else ""

    def last_confirmed(self) -> Stored | None:
        """The confirmed generation with the highest number, or None."""
        for number in reversed(self.numbers()):
            generation = self.load(number)
            if generation and generation.confirmed:
                return generation
        return None

    def save(self, generation: Stored) -> None:
        """Writes a generation. Raises EnforcerError."""
        self._write(self._path(generation.generation), stored.to_bytes(generation))

    def certificate(self) -> dict[str, Any] | None:
        """The certificate that was issued last. None if there is none or it is incomplete. Raises EnforcerError."""
        try:
            certificate = json.loads(files.read_own(self._certificate))
        except PermissionError as error:
            raise EnforcerError(f"cannot read {self._certificate}: {error.strerror}") from error
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(certificate, dict):
            return None
        checksum = certificate.pop(stored.CHECKSUM, None)  # earlier releases wrote none
        if checksum is not None and checksum != digest(certificate):
            return None
        complete = all(isinstance(certificate.get(key), kind) for key, kind in _CERTIFIED.items())
        return certificate if complete else None

    def certify(self, certificate: dict[str, Any]) -> None:
        """Writes the certificate. Raises EnforcerError."""
        self._write(self._certificate, canonical_json(dict(certificate, **{stored.CHECKSUM: digest(certificate)})))

    def decertify(self) -> None:
        """Deletes the certificate, if there is one. Raises EnforcerError."""
        self._delete(self._certificate)

    @property
    def _certificate(self) -> str:
        return os.path.join(self.folder, "certificate.json")

    def folder_problems(self) -> list[str]:
        """A line for each directory that others could write, or that is none. `mend_folders` puts it right."""
        lines = []
        for folder in (self.folder, self.generations_folder):
            try:
                status = os.lstat(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            problem = _folder_problem(status)
            if problem:
                lines.append(f"{folder}: {problem}")
        return lines

    def mend_folders(self) -> None:
        """Makes the directories, which belong to this process's user alone. Raises EnforcerError."""
        for folder in (self.folder, self.generations_folder):
            try:
                atomic.make_folder(folder, 0o700)
                if _folder_problem(os.lstat(folder)):
                    os.chown(folder, os.geteuid(), os.getegid())
                    os.chmod(folder, 0o700)
            except OSError as error:
                raise _cannot("write", folder, error) from error

    def _write(self, path: str, content: bytes) -> None:
        """The directory is synchronized, too: when a run ends, the next boot finds what the run reported, although the
        power may fail right after it."""
        self.mend_folders()
        try:
            atomic.write(path, content)
            atomic.sync(os.path.dirname(path))
        except OSError as error:
            raise _cannot("write", path, error) from error

    def delete(self, generation: int) -> None:
        """Deletes a stored generation, if it exists. Raises EnforcerError."""
        self._delete(self._path(generation))

    def _delete(self, path: str) -> None:
        try:
            if atomic.remove(path):
                atomic.sync(os.path.dirname(path))
        except OSError as error:
            raise _cannot("delete", path, error) from error

    def prune(self, in_use: Iterable[int]) -> None:
        """Deletes old generations.

        It keeps those in use, the last confirmed one, the newest of the earlier confirmed ones, for a rollback, and the
        newest others: trials that were not confirmed, and soaks. Damaged files go, unless nothing else is confirmed:
        then boot takes one that was edited."""
        keep = set(in_use)
        last = self.last_confirmed()
        if last:
            keep.add(last.generation)
            for number in self.numbers():
                if self.problem(number):
                    self.delete(number)
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


def _folder_problem(status: os.stat_result) -> str:
    if not stat.S_ISDIR(status.st_mode):
        return "it is not a directory"
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can write it (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _cannot(do: str, path: str, error: OSError) -> EnforcerError:
    return EnforcerError(f"cannot {do} {path}: {error.strerror or error}", _WRITE_REMEDIES.get(error.errno or 0, ""))
