# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads back the enforcer's programs, links, maps and tables from the kernel, and its package from the disk.
certificate.py and verify.py compare them with what they must be."""

from __future__ import annotations

import hashlib
import os
import struct
from typing import NamedTuple

from ..host import files, pyc
from ..host.protocols import Store
from ..kernel import generations, mapspecs, pins
from ..kernel.generations import Live
from ..kernel.pins import opened
from ..kernel.protocol import Kernel
from ..kernel.types import LSM_MAC, MODIFY_RETURN, LinkInfo


class Running(NamedTuple):
    """A pinned program and the pinned link of the same hook, if there is one."""

    id: int
    tag: str
    maps: frozenset[int]  # ids
    link: LinkInfo | None


class Held(NamedTuple):
    """A table of the generation in force."""

    id: int
    frozen: bool
    digest: str  # SHA-256 over its entries in order


class Package(NamedTuple):
    """The installed package. ``digest``: SHA-256 of the file PACKAGE, which lists the others; ``edited``: files that
    differ from that list."""

    digest: str
    object: str  # SHA-256
    edited: list[str]


class Evidence(NamedTuple):
    """What the kernel holds for the enforcer."""

    release: str
    boot: str  # the boot's id
    version: str  # of the enforcer: the first digits of its object's SHA-256
    live: Live
    programs: dict[str, Running]  # by the hook that each is pinned as
    stray: list[str]  # links pinned in our folder without a program of that name
    maps: dict[str, int]  # pinned, by name -> id
    tables: dict[str, Held]

    @property
    def attached(self) -> list[str]:
        """Hooks whose pinned link runs the pinned program."""
        return sorted(
            hook for hook, program in self.programs.items() if program.link and program.link.program == program.id
        )


def read(kernel: Kernel, version: str, live: Live | None = None) -> Evidence:
    """Reads the kernel. ``live``: the generation in force, when the caller has just read it."""
    live = live or generations.read(kernel)
    linked = set(kernel.names(pins.links_path(kernel, version)))
    programs = {}
    for hook in sorted(pins.available_hooks(kernel, version)):
        link = _link(kernel, version, hook) if hook in linked else None
        with opened(kernel, pins.program_path(kernel, version, hook)) as fd:
            info = kernel.program_info(fd)
        programs[hook] = Running(info.id, info.tag, frozenset(info.maps), link)
    maps = {}
    for name in list(mapspecs.MAPS) + list(mapspecs.STORAGES):
        with opened(kernel, pins.map_path(kernel, name), readonly=True) as fd:
            maps[name] = kernel.map_info(fd).id
    return Evidence(
        kernel.environment().release,
        kernel.boot_id(),
        version,
        live,
        programs,
        sorted(linked - set(programs)),
        maps,
        _tables(kernel, live),
    )


def _link(kernel: Kernel, version: str, hook: str) -> LinkInfo:
    with opened(kernel, pins.links_path(kernel, version) + "/" + hook) as fd:
        return kernel.link_info(fd)


def _tables(kernel: Kernel, live: Live) -> dict[str, Held]:
    held = {}
    for name, entries in live.tables.items():
        with opened(kernel, pins.map_path(kernel, name), readonly=True) as outer:
            number = kernel.lookup(outer, struct.pack("=I", live.slot))
        if number is None:
            continue  # replaced while we read; verify reports it as a missing table
        inner = kernel.map_by_id(struct.unpack("=I", number)[0], readonly=True)
        try:
            info = kernel.map_info(inner)
        finally:
            kernel.close(inner)
        held[name] = Held(info.id, info.frozen, digest_of(entries))
    return held


def digest_of(entries: dict[bytes, bytes]) -> str:
    """Returns the SHA-256 of a table's entries, sorted by key."""
    total = hashlib.sha256()
    for key, value in sorted(entries.items()):
        total.update(key + value)  # all keys of a table have one size, and so have its values
    return total.hexdigest()


def package(store: Store) -> Package | None:
    """Reads the installed package; None when there is none."""
    listed = _content(os.path.join(store.library, "PACKAGE"))
    data = _content(os.path.join(store.library, "guard.bpf.o"))
    if listed is None or data is None:
        return None
    edited: list[str] = []
    paths: set[str] = set()
    for line in listed.decode("utf-8", "replace").splitlines():
        digest, _unused, path = line.partition("  ")
        content = _content(path)
        paths.add(path)
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            edited.append(path)
    if paths:
        edited.extend(path for path in _code(store) if path not in paths)
    return Package(hashlib.sha256(listed).hexdigest(), hashlib.sha256(data).hexdigest(), edited)


def _code(store: Store) -> list[str]:
    """Every file below the package's folder, sub-packages included; Python's compiled files excluded."""
    files: list[str] = []
    for folder, _unused, names in os.walk(os.path.join(store.library, "exfil_guard")):
        if os.path.basename(folder) != "__pycache__":
            files.extend(os.path.join(folder, name) for name in names)
    return sorted(files)


def miscompiled(store: Store) -> list[str]:
    """Returns the compiled modules of the package that differ from what their source compiles to."""
    sources = {path: _content(path) for path in _code(store) if path.endswith(".py")}
    compiled = pyc.compiled({path: source for path, source in sources.items() if source is not None})
    return [path for path, content in compiled.items() if _content(path) not in (None, content)]


def _content(path: str) -> bytes | None:
    try:
        return files.read(path)
    except OSError:
        return None


def foreign(kernel: Kernel, evidence: Evidence) -> list[LinkInfo]:
    """Returns the links of other programs that trace our programs, that are attached to one of our hooks, or that can
    replace the return value of a kernel function."""
    ours = {program.id for program in evidence.programs.values()}
    links = [program.link for program in evidence.programs.values() if program.link]
    hooks = {link.function for link in links}
    traced = ours - {link.target for link in links}  # a link's target is the id of a program or of the kernel's BTF
    return [
        link
        for link in kernel.links()
        if link.program not in ours
        and (
            link.target in traced
            or link.attach_type == MODIFY_RETURN
            or (link.attach_type == LSM_MAC and link.function in hooks)
        )
    ]
