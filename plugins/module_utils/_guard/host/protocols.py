# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host as the rest of the package uses it. `system.System` and `store.Store` are the real ones; tests have some in
memory."""

from __future__ import annotations

from typing import Any, Container, Iterable, Iterator, Protocol

from .stored import Stored
from .system import Entry, Step


class System(Protocol):
    """What the operating system knows about names: users, groups, hosts, processes, mounts, files and units."""

    def user(self, name: str) -> int | None:
        """The id of a user."""

    def group(self, name: str) -> int | None:
        """The id of a group."""

    def user_name(self, number: int) -> str | None:
        """The name of a user id."""

    def group_name(self, number: int) -> str | None:
        """The name of a group id."""

    def memberships(self, number: int) -> frozenset[int]:
        """The groups of a user id."""

    def users(self) -> list[str]:
        """The names of all users that can be listed."""

    def groups(self) -> list[str]:
        """The names of all groups that can be listed."""

    def addresses(self, name: str) -> list[str]:
        """The addresses of a host name; empty if it does not resolve."""

    def current_process(self) -> dict[str, str]:
        """Status, control group, login user and executable of this process."""

    def process(self, number: int) -> dict[str, str]:
        """The same of another process; empty if it has ended."""

    def executable(self, number: int) -> str | None:
        """The path of a process's executable."""

    def mountinfo(self) -> str:
        """The mounts that this process sees."""

    def host_mounts(self) -> str:
        """The mounts that the first process sees."""

    def exists(self, path: str) -> bool:
        """Whether something has this path; a dangling symbolic link counts."""

    def realpath(self, path: str) -> str:
        """The path without symbolic links."""

    def step(self, path: str, mounts: Container[int]) -> Step | None:
        """One file on the way of a path, nothing followed."""

    def below(self, folder: str, names: Iterable[str]) -> bool | None:
        """Whether there is a file below a folder."""

    def entry(self, path: str) -> Entry | None:
        """The file or directory at a path."""

    def entries(self, folder: str, without: Container[str] = ()) -> Iterator[tuple[str, Entry]]:
        """The names in a folder with what they are."""

    def names(self, folder: str) -> list[str]:
        """The names in a folder; empty if there is no such folder."""

    def device_tables(self) -> dict[str, str]:
        """The kernel's lists of device drivers."""

    def units(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Properties of systemd units, by the names that were given."""


class Store(Protocol):
    """The generations and the certificate on disk. ``folder``: where they are; ``library``: the installed package;
    ``root``: where the package's other files are."""

    @property
    def root(self) -> str: ...

    @property
    def folder(self) -> str: ...

    @property
    def library(self) -> str: ...

    def numbers(self) -> list[int]:
        """Every stored generation, readable or not, in order."""

    def load(self, generation: int, *, edited: bool = False) -> Stored | None:
        """A stored generation; None if it is missing or damaged. ``edited``: also one that is not as it was written."""

    def problem(self, generation: int) -> str:
        """Why the file of a generation counts as missing; empty if it does not."""

    def folder_problems(self) -> list[str]:
        """What is wrong with the directories."""

    def mend_folders(self) -> None:
        """Makes the directories as they must be."""

    def delete(self, generation: int) -> None:
        """Deletes a stored generation."""

    def last_confirmed(self) -> Stored | None:
        """The newest generation that was confirmed."""

    def save(self, generation: Stored) -> None:
        """Stores a generation under its number."""

    def prune(self, in_use: Iterable[int]) -> None:
        """Deletes old generations, but none that is in use."""

    def certificate(self) -> dict[str, Any] | None:
        """The certificate; None if it is missing or damaged."""

    def certify(self, certificate: dict[str, Any]) -> None:
        """Replaces the certificate."""

    def decertify(self) -> None:
        """Deletes the certificate."""

    def paths(self) -> list[str]:
        """The files that `clear` deletes."""

    def clear(self) -> bool:
        """Deletes everything; True if there was a generation."""
