# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records that describe maps, programs, links and object files, and the features of a host."""

from __future__ import annotations

import re
from typing import NamedTuple

BTF = "/sys/kernel/btf/vmlinux"

# enum bpf_map_type
HASH, ARRAY, LRU_HASH, LPM_TRIE, ARRAY_OF_MAPS, SK_STORAGE = 1, 2, 9, 11, 12, 24
RINGBUF, INODE_STORAGE, TASK_STORAGE = 27, 28, 29

NO_PREALLOC, INNER_MAP = 1, 0x1000  # flags of a map

LSM_MAC, MODIFY_RETURN = 27, 26  # enum bpf_attach_type


class MapSpec(NamedTuple):
    """The properties with which a map is created. Sizes are in bytes."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


class MapInfo(NamedTuple):
    """An existing map."""

    id: int
    name: str
    spec: MapSpec
    frozen: bool


class ProgramInfo(NamedTuple):
    """A loaded program. ``tag``: the kernel's digest of its instructions, in hex."""

    id: int
    name: str
    tag: str
    maps: tuple[int, ...]  # ids


class LinkInfo(NamedTuple):
    """An attached program.

    The last three fields are 0 unless it is a tracing link, which LSM programs have. ``target``: the id of the kernel's
    BTF, or of the traced program. ``function``: the BTF id of the function there."""

    id: int
    program: int  # id
    attach_type: int = 0  # enum bpf_attach_type
    target: int = 0
    function: int = 0


class ObjectInfo(NamedTuple):
    """The contents of an object file. ``inner``: the inner maps of its arrays of maps."""

    maps: dict[str, MapSpec]
    inner: dict[str, MapSpec]
    programs: tuple[str, ...]


class Loaded(NamedTuple):
    """The descriptors of a loaded object."""

    maps: dict[str, int]  # name -> descriptor
    programs: dict[str, int]  # hook -> descriptor


class Relocated(NamedTuple):
    """A program as libbpf passes it to bpf(2): with its subprograms, and field offsets from the kernel's BTF."""

    name: str
    hook: str  # what it is attached to: the kernel's bpf_lsm_HOOK
    function: int  # the BTF id of that function
    code: bytes  # struct bpf_insn, 8 bytes each
    maps: dict[int, str]  # the descriptors in the code that stand for maps -> their names


class Environment(NamedTuple):
    """The features of the host that the enforcer needs."""

    root: bool
    machine: str
    release: str
    bpffs: bool
    cgroup2: bool
    lsms: tuple[str, ...]
    libbpf: str  # its version; empty: not installed
    ftrace: bool = True  # kernel.ftrace_enabled: without it no program of the enforcer runs

    @property
    def sendpage(self) -> bool:
        """Whether sendfile and splice to a socket call only the hook file_permission: before Linux 6.5."""
        version = re.match(r"(\d+)\.(\d+)", self.release)
        return version is not None and (int(version.group(1)), int(version.group(2))) < (6, 5)


def hook_of(program: str) -> str:
    """The name under which a program is loaded: for ``HOOK__N``, a variant for N arguments, the hook.

    ``HOOK__PURPOSE``, a second program for the hook, keeps its name."""
    hook, _unused, rest = program.partition("__")
    return hook if rest.isdigit() else program
