# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain records of what the kernel holds: maps, programs, links, objects, and what a kernel can do."""

from __future__ import annotations

import re
from typing import NamedTuple

BTF = "/sys/kernel/btf/vmlinux"


HASH, ARRAY, LRU_HASH, LPM_TRIE, ARRAY_OF_MAPS, SK_STORAGE = 1, 2, 9, 11, 12, 24


RINGBUF, INODE_STORAGE, TASK_STORAGE = 27, 28, 29


NO_PREALLOC, INNER_MAP = 1, 0x1000


LSM_MAC, MODIFY_RETURN = 27, 26  # enum bpf_attach_type


class MapSpec(NamedTuple):
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


class MapInfo(NamedTuple):
    id: int
    name: str
    spec: MapSpec
    frozen: bool


class ProgramInfo(NamedTuple):
    id: int
    name: str
    tag: str
    maps: tuple[int, ...]  # ids


class LinkInfo(NamedTuple):
    """``attach_type``, ``target`` and ``function`` are those of a tracing link, which LSM programs have: the enum, the
    id of the kernel's BTF or of the program that is traced, and the function's number in it."""

    id: int
    program: int  # id
    attach_type: int = 0
    target: int = 0
    function: int = 0


class ObjectInfo(NamedTuple):
    """What an object file holds. ``inner``: the inner maps of its arrays of maps."""

    maps: dict[str, MapSpec]
    inner: dict[str, MapSpec]
    programs: tuple[str, ...]


class Loaded(NamedTuple):
    maps: dict[str, int]  # name -> descriptor
    programs: dict[str, int]


class Relocated(NamedTuple):
    """A program as libbpf hands it to bpf(2): subprograms appended, fields where the kernel's BTF has them."""

    name: str
    hook: str  # what it is attached to: the kernel's bpf_lsm_HOOK
    function: int  # the number of that in the BTF
    code: bytes  # struct bpf_insn, 8 bytes each
    maps: dict[int, str]  # the numbers that stand for maps -> their names


class Environment(NamedTuple):
    """What the host offers."""

    root: bool
    machine: str
    release: str
    bpffs: bool
    cgroup2: bool
    lsms: tuple[str, ...]
    libbpf: str  # its version; empty: there is none

    @property
    def sendpage(self) -> bool:
        """Before 6.5 sendfile and splice reach a socket by file_permission alone."""
        found = re.match(r"(\d+)\.(\d+)", self.release)
        return found is not None and (int(found.group(1)), int(found.group(2))) < (6, 5)


def hook_of(program: str) -> str:
    """What a program is known as: its hook, whichever of the kernels' variants it is for; HOOK__PURPOSE, which stands
    beside the hook's other program, as itself."""
    hook, _, rest = program.partition("__")
    return hook if rest.isdigit() else program
