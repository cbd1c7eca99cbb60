# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel as the rest of the package uses it. `bpf.Kernel` is the real one; tests have one in memory.

Objects of the kernel are named by descriptors, which are plain numbers, or by the paths where they are pinned. Methods
raise OSError with the name of the call that the kernel refused."""

from __future__ import annotations

from typing import Callable, Mapping, Protocol

from .ring import Batch
from .types import Environment, LinkInfo, Loaded, MapInfo, MapSpec, ObjectInfo, ProgramInfo, Relocated


class Ring(Protocol):
    """A mapped ring buffer, which is unmapped at the end of a block. Positions count bytes."""

    def __enter__(self) -> Ring: ...

    def __exit__(self, *_unused: object) -> None: ...

    def close(self) -> None:
        """Unmaps the ring."""

    def positions(self) -> tuple[int, int]:
        """The consumer's and the producer's position."""

    def peek(self, limit: int | None = None) -> Batch:
        """At most ``limit`` records, which stay in the buffer."""

    def advance(self, position: int) -> None:
        """Frees everything before ``position``."""


class Kernel(Protocol):
    """What a host's kernel offers: facts about the host, bpffs, maps, programs and links, and the object file."""

    # ---- the host ---------------------------------------------------------------------------------------------

    def environment(self) -> Environment:
        """What the host offers."""

    def lsm_hooks(self) -> frozenset[str]:
        """The LSM hooks that a program can be attached to; empty without BTF."""

    def boot_id(self) -> str:
        """The identifier of this boot."""

    def btf_digest(self) -> str:
        """SHA-256, in hex, of the kernel's own types; empty if it has none."""

    def mount_namespace(self) -> int:
        """The number of the first process's mount namespace."""

    def boottime(self) -> int:
        """Nanoseconds since boot, including time asleep."""

    def listening_ports(self) -> frozenset[int]:
        """The TCP ports with a listening socket, in every network namespace."""

    def as_user(self, user: int, operation: Callable[[], None]) -> int:
        """Runs ``operation`` in a child process as ``user``. Gives its errno, 0 if it succeeded."""

    def records_new_task(self, storage: int) -> bool:
        """Whether the programs made an entry for a new task in its storage ``storage``."""

    # ---- bpffs ------------------------------------------------------------------------------------------------

    def path(self, *parts: str) -> str:
        """A path in bpffs."""

    def names(self, path: str) -> list[str]:
        """The names in a folder; empty if there is no such folder."""

    def exists(self, path: str) -> bool:
        """Whether something has this path."""

    def identity(self, path: str) -> str:
        """Identifies the pinned object: it differs for another object with the same path."""

    def mkdir(self, path: str) -> None:
        """Makes a folder that only root can use."""

    def rename(self, old: str, new: str) -> None:
        """Renames a folder or a pin."""

    def unlink(self, path: str) -> None:
        """Removes a pin."""

    def rmdir(self, path: str) -> None:
        """Removes an empty folder."""

    def pin(self, fd: int, path: str) -> None:
        """Pins an object."""

    def get(self, path: str, readonly: bool = False) -> int:
        """Opens a pinned object."""

    def close(self, fd: int) -> None:
        """Closes a descriptor."""

    # ---- maps -------------------------------------------------------------------------------------------------

    def create_map(self, name: str, spec: MapSpec, inner: int | None = None) -> int:
        """Creates a map. ``inner``: the descriptor of a map like those that an array of maps will hold."""

    def map_info(self, fd: int) -> MapInfo:
        """Describes a map."""

    def ring(self, fd: int, take: bool) -> Ring:
        """Maps a ring buffer. ``take``: whether records will be freed; the descriptor must then be writable."""

    def map_by_id(self, number: int, readonly: bool = False) -> int:
        """Opens a map by its id."""

    def lookup(self, fd: int, key: bytes) -> bytes | None:
        """The value of a key; the id of the inner map in an array of maps."""

    def update(self, fd: int, key: bytes, value: bytes) -> None:
        """Writes one entry. In an array of maps, ``value`` is the inner map's descriptor."""

    def delete(self, fd: int, key: bytes) -> None:
        """Deletes an entry, if there is one."""

    def update_all(self, fd: int, entries: Mapping[bytes, bytes]) -> None:
        """Writes many entries."""

    def read_all(self, fd: int) -> dict[bytes, bytes]:
        """Reads all entries."""

    def freeze(self, fd: int) -> None:
        """Makes a map read-only for user space."""

    # ---- programs and links -----------------------------------------------------------------------------------

    def program_info(self, fd: int) -> ProgramInfo:
        """Describes a program."""

    def program_by_id(self, number: int) -> int:
        """Opens a program by its id."""

    def link_info(self, fd: int) -> LinkInfo:
        """Describes a link."""

    def links(self) -> list[LinkInfo]:
        """Every tracing link in the kernel, of whichever owner."""

    def link_exists(self, number: int) -> bool:
        """Whether the link with this id exists. The kernel removes the id when it begins to detach the program."""

    def attach(self, program: int) -> int:
        """Attaches a program to its hook and gives the link."""

    # ---- the object file --------------------------------------------------------------------------------------

    def describe(self, data: bytes) -> ObjectInfo:
        """What an object file holds."""

    def has_hook(self, program: str) -> bool:
        """Whether the kernel has the hook of a program of the object, with the arguments that it expects."""

    def load(self, data: bytes, reuse: Mapping[str, int]) -> Loaded:
        """Loads an object file. ``reuse``: maps by name that exist already."""

    def relocate(self, data: bytes, btf: str = "") -> list[Relocated]:
        """The programs as they would be loaded, without loading them. ``btf``: a file with another kernel's BTF."""
