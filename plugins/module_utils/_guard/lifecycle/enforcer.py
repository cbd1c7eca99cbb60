# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads the programs and maps into the kernel, upgrades them without a gap in enforcement, and removes them. Every step
starts from what is pinned now, so the next run completes an interrupted one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Callable

from ..errors import EnforcerError, PolicyErrors, Problem
from ..host.protocols import Store
from ..kernel import links, mapspecs, pins
from ..kernel.protocol import Kernel
from ..kernel.types import Environment, Loaded, MapSpec, ObjectInfo, hook_of

OLDEST = {"x86_64": (6, 1), "aarch64": (6, 4)}  # 64-bit Arm has what LSM programs need from 6.4
NOT_INSTALLED = Problem("host", "enforcer not installed", "", "run role exfil.guard.enforcer")
_RUN_ROLE = "Run the role exfil.guard.enforcer"


# ---- what the host must offer -------------------------------------------------------------------------------------


def prerequisites(environment: Environment) -> list[tuple[str, str]]:
    """The prerequisites that a host does not meet, each with its remedy."""
    missing = []
    if not environment.root:
        missing.append(("not running as root", "Run with become: true"))
    if environment.machine not in OLDEST:
        missing.append((f"the architecture {environment.machine} is not supported", "Use x86_64 or aarch64"))
    release = re.match(r"(\d+)\.(\d+)", environment.release)
    oldest = OLDEST.get(environment.machine, (6, 1))
    if not release or (int(release.group(1)), int(release.group(2))) < oldest:
        missing.append((f"Linux {environment.release} is too old", "Boot Linux {}.{} or newer".format(*oldest)))
    if not environment.libbpf:
        missing.append(("libbpf.so.1 is not there", "Install libbpf 1.0 or newer (Debian: libbpf1)"))
    elif environment.libbpf.startswith("0"):
        missing.append(("libbpf is older than 1.0", "Install libbpf 1.0 or newer (Debian: libbpf1)"))
    if not environment.bpffs:
        missing.append(
            ("no bpf filesystem is mounted at /sys/fs/bpf", "Start sys-fs-bpf.mount, or: mount -t bpf bpf /sys/fs/bpf")
        )
    if not environment.cgroup2:
        missing.append(("/sys/fs/cgroup is not cgroup v2", "Boot with systemd.unified_cgroup_hierarchy=1"))
    if "bpf" not in environment.lsms:
        active = ",".join(environment.lsms)
        missing.append(
            (
                "bpf is not among the active Linux Security Modules ({})".format(active or "the list cannot be read"),
                "Boot with lsm={} on the kernel command line".format(
                    ",".join([name for name in environment.lsms if name != "capability"] + ["bpf"])
                )
                if active
                else "Mount securityfs at /sys/kernel/security and run again",
            )
        )
    return missing


def _as_error(missing: list[tuple[str, str]]) -> EnforcerError:
    if len(missing) == 1:
        return EnforcerError(*missing[0])
    return EnforcerError(
        "this host cannot be guarded yet: " + "; ".join(text for text, _unused in missing),
        "; ".join(remedy for _unused, remedy in missing),
    )


def check_layout(info: ObjectInfo) -> None:
    """Raises EnforcerError unless the object's maps are those that this package reads and writes."""
    remedy = "Install the package and the object of one release"
    expected: list[tuple[str, Any, Any]] = [(name, spec, info.maps.get(name)) for name, spec in mapspecs.MAPS.items()]
    inner = dict(mapspecs.TABLES, control=mapspecs.RECORD)
    expected += [("entries of " + name, spec, info.inner.get(name)) for name, spec in inner.items()]
    for name, spec, actual in expected:
        if actual is None:
            raise EnforcerError(f"the object is built for another layout: it has no map {name}", remedy)
        if actual != spec:
            raise EnforcerError(
                f"the object is built for another layout: map {name} is {_sizes(actual)}, expected {_sizes(spec)}",
                remedy,
            )
    for name in mapspecs.STORAGES:
        if name not in info.maps:
            raise EnforcerError(f"the object is built for another layout: it has no map {name}", remedy)


def _sizes(spec: MapSpec) -> str:
    return "type {}, key {}, value {}, entries {}, flags {:#x}".format(*spec)


# ---- what is pinned -----------------------------------------------------------------------------------------------


def version_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def missing_maps(kernel: Kernel) -> list[str]:
    return [
        name for name in list(mapspecs.MAPS) + list(mapspecs.STORAGES) if not kernel.exists(pins.map_path(kernel, name))
    ]


def installed(kernel: Kernel) -> str | None:
    """The version of the enforcer in place; None if there is none. Raises EnforcerError if it is incomplete."""
    versions = pins.versions(kernel)
    missing = missing_maps(kernel)
    if not versions and not kernel.names(pins.base(kernel) + "/maps"):
        return None
    if missing:
        raise EnforcerError("the enforcer is incomplete: no pin for the maps {}".format(", ".join(missing)), _RUN_ROLE)
    if len(versions) != 1:
        raise EnforcerError("loading the enforcer was interrupted", _RUN_ROLE)
    return versions[0]


def require_installed(kernel: Kernel) -> str:
    """The version of the enforcer in place. Raises PolicyErrors if there is none."""
    version = installed(kernel)
    if version is None:
        raise PolicyErrors([NOT_INSTALLED])
    return version


def foreign_programs(kernel: Kernel, version: str) -> list[str]:
    """Hooks as whose program something is pinned that uses none of our maps: each of our programs uses some. Only
    `exfil-guard verify`, which takes seconds, compares programs with the object."""
    own_maps = set()
    for name in list(mapspecs.MAPS) + list(mapspecs.STORAGES):
        if kernel.exists(pins.map_path(kernel, name)):
            with pins.opened(kernel, pins.map_path(kernel, name), readonly=True) as fd:
                own_maps.add(kernel.map_info(fd).id)
    foreign = []
    for hook in sorted(pins.available_hooks(kernel, version)):
        with pins.opened(kernel, pins.program_path(kernel, version, hook)) as fd:
            if not own_maps.intersection(kernel.program_info(fd).maps):
                foreign.append(hook)
    return foreign


def _link_versions(kernel: Kernel) -> list[str]:
    return [name[len("links-") :] for name in kernel.names(pins.base(kernel)) if name.startswith("links-")]


def _attached(kernel: Kernel, versions: list[str]) -> list[str]:
    hooks: set[str] = set()
    for version in versions:
        hooks.update(kernel.names(pins.links_path(kernel, version)))
    return sorted(hooks)


# ---- ensure -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Changes:
    """What differs between the object and what is pinned.

    ``present``: hooks with a program of this version; ``absent``: hooks without one; ``foreign``: hooks as whose
    program something else is pinned; ``maps``: maps without a pin; ``old``: other versions; ``leftovers``: folders that
    an interrupted run left; ``moved``: hooks attached by another version."""

    version: str
    present: list[str]
    absent: list[str]
    foreign: list[str]
    maps: list[str]
    old: list[str]
    leftovers: list[str]
    moved: list[str]

    def lines(self, maps_folder_exists: bool) -> list[str]:
        """The lines of the diff."""
        lines: list[str] = []
        if not self.present:
            lines.append(f"+ enforcer {self.version}")
        else:
            lines.extend(f"+ program {hook} (its pin was missing)" for hook in self.absent)
        lines.extend(f"~ program {hook} (another was pinned in its place)" for hook in self.foreign)
        if self.maps and maps_folder_exists:
            lines.extend(f"+ map {name} (its pin was missing)" for name in self.maps)
        elif self.maps and self.present:
            lines.append("+ maps (their pins were missing)")
        old = ", ".join(self.old)
        lines.extend(f"~ hook {hook}: from {old} to {self.version}" for hook in self.moved)
        lines.extend(f"- enforcer {version}" for version in self.old)
        lines.extend(f"- {name} (left by an interrupted run)" for name in self.leftovers)
        return lines


def ensure(kernel: Kernel, data: bytes, *, check: bool = False) -> dict[str, Any]:
    """Loads and pins the programs and maps of the object file ``data``. Hooks that another version has attached are
    moved to the new programs before the old ones are removed."""
    missing = prerequisites(kernel.environment())
    if missing and not check:
        raise _as_error(missing)
    version = version_of(data)
    other = [name for name in kernel.names(kernel.path("exfil_guard")) if name != f"v{pins.LAYOUT}"]
    if other:
        raise EnforcerError(
            "an enforcer of another layout is in place: {}".format(", ".join(other)),
            "Remove it with the release that installed it (state: absent)",
        )
    programs: tuple[str, ...] = ()
    if not missing:
        info = kernel.describe(data)
        check_layout(info)
        programs = info.programs
    changes = _compare(kernel, version, programs)
    lines = changes.lines(bool(kernel.names(pins.base(kernel) + "/maps")))
    result = {
        "changed": bool(lines),
        "version": version,
        "diff": {"prepared": "".join(line + "\n" for line in lines)},
        "warnings": [f"{text}. {remedy}" for text, remedy in missing],
    }
    if lines and not check:
        _upgrade(kernel, data, changes)
    return result


def _compare(kernel: Kernel, version: str, programs: tuple[str, ...]) -> _Changes:
    present = kernel.names(f"{pins.base(kernel)}/programs-{version}")
    absent = [program for program in programs if hook_of(program) not in present]
    if absent and present:
        absent = [program for program in absent if kernel.has_hook(program)]
    old = sorted(set(pins.versions(kernel) + _link_versions(kernel)) - {version})
    return _Changes(
        version=version,
        present=present,
        absent=list(dict.fromkeys(map(hook_of, absent))),
        foreign=foreign_programs(kernel, version) if present else [],
        maps=missing_maps(kernel),
        old=old,
        leftovers=[name for name in kernel.names(pins.base(kernel)) if name.startswith("loading-")],
        moved=_attached(kernel, old),
    )


def _upgrade(kernel: Kernel, data: bytes, changes: _Changes) -> None:
    version = changes.version
    _make_folders(kernel)
    for name in changes.leftovers:
        _remove_folder(kernel, f"{pins.base(kernel)}/{name}")
    _recover_maps(kernel, changes.maps)
    for hook in changes.foreign:
        kernel.unlink(pins.program_path(kernel, version, hook))
    absent = changes.absent + changes.foreign
    if absent or missing_maps(kernel):
        _load(kernel, data, version, absent)
    if changes.moved:
        links.claim(kernel, *pins.versions(kernel))
        available = pins.available_hooks(kernel, version)
        hooks = set(changes.moved) | set(links.IDENTITY_HOOKS)
        links.attach(kernel, version, [hook for hook in hooks if hook in available])
    for old in changes.old:
        _remove_folder(kernel, pins.links_path(kernel, old), links.drop)
        _remove_folder(kernel, f"{pins.base(kernel)}/programs-{old}")


def _make_folders(kernel: Kernel) -> None:
    for path in (kernel.path("exfil_guard"), pins.base(kernel), pins.base(kernel) + "/maps"):
        if not kernel.exists(path):
            kernel.mkdir(path)


def _recover_maps(kernel: Kernel, missing: list[str]) -> None:
    """Pins maps again that lost their pin. A map exists, with its entries, while a program uses it."""
    if not missing:
        return
    names = set(missing)
    for fd in _programs(kernel):
        try:
            map_ids = kernel.program_info(fd).maps if names else ()
        finally:
            kernel.close(fd)
        for number in map_ids:
            map_fd = kernel.map_by_id(number)
            try:
                name = kernel.map_info(map_fd).name
                if name in names:
                    kernel.pin(map_fd, pins.map_path(kernel, name))
                    names.discard(name)
            finally:
                kernel.close(map_fd)


def _programs(kernel: Kernel) -> list[int]:
    """Descriptors of all our programs: the pinned ones and those that pinned links run."""
    descriptors = []
    for version in pins.versions(kernel):
        for hook in sorted(pins.available_hooks(kernel, version)):
            descriptors.append(kernel.get(pins.program_path(kernel, version, hook)))
    for version in _link_versions(kernel):
        for hook in kernel.names(pins.links_path(kernel, version)):
            with pins.opened(kernel, pins.links_path(kernel, version) + "/" + hook) as link:
                descriptors.append(kernel.program_by_id(kernel.link_info(link).program))
    return descriptors


def _load(kernel: Kernel, data: bytes, version: str, absent: list[str]) -> None:
    """Loads the object with the maps that are pinned already, and pins what is new. A new version's programs are pinned
    in a folder that gets its name last, so that an interrupted run leaves no incomplete version."""
    opened: list[int] = []
    try:
        reuse = _pinned_maps(kernel, kernel.describe(data), opened)
        loaded = kernel.load(data, reuse)
        opened.extend(loaded.maps.values())
        opened.extend(loaded.programs.values())
        for name, fd in loaded.maps.items():
            path = pins.map_path(kernel, name)
            if name in reuse:
                continue
            if kernel.exists(path):
                kernel.unlink(path)
            kernel.pin(fd, path)
        _pin_programs(kernel, loaded, version, absent)
    finally:
        for fd in opened:
            kernel.close(fd)


def _pinned_maps(kernel: Kernel, info: ObjectInfo, opened: list[int]) -> dict[str, int]:
    """Opens the pinned maps that the object can use and adds their descriptors to ``opened``. Raises EnforcerError if
    one has another size."""
    reuse: dict[str, int] = {}
    for name, spec in info.maps.items():
        path = pins.map_path(kernel, name)
        if not kernel.exists(path):
            continue
        fd = kernel.get(path)
        opened.append(fd)
        pinned = kernel.map_info(fd).spec
        if pinned == spec:
            reuse[name] = fd
        elif name not in mapspecs.STORAGES:  # a storage is a cache: a new one takes its place
            raise EnforcerError(
                f"the pinned map {name} is {_sizes(pinned)}, the object's is {_sizes(spec)}",
                "Remove the enforcer (state: absent) and run again",
            )
    return reuse


def _pin_programs(kernel: Kernel, loaded: Loaded, version: str, absent: list[str]) -> None:
    final = f"{pins.base(kernel)}/programs-{version}"
    if kernel.exists(final):
        for hook in absent:
            if hook in loaded.programs:
                kernel.pin(loaded.programs[hook], final + "/" + hook)
        return
    loading = f"{pins.base(kernel)}/loading-{version}"
    kernel.mkdir(loading)
    for hook, fd in loaded.programs.items():
        kernel.pin(fd, loading + "/" + hook)
    kernel.rename(loading, final)


# ---- remove -------------------------------------------------------------------------------------------------------


def remove(kernel: Kernel, store: Store | None = None, *, check: bool = False) -> dict[str, Any]:
    """Removes every link, program, map, folder and document."""
    root = kernel.path("exfil_guard")
    lines = [f"- {root}/{name}" for name in kernel.names(root)]
    if not lines and kernel.exists(root):
        lines.append(f"- {root}")
    if store is not None:
        lines.extend(f"- document of generation {number}" for number in store.numbers())
        if store.certificate() is not None:
            lines.append("- certificate")
    result = {"changed": bool(lines), "diff": {"prepared": "".join(line + "\n" for line in lines)}, "warnings": []}
    if check or not lines:
        return result
    for layout in kernel.names(root):
        inside = f"{root}/{layout}"
        folders = kernel.names(inside)
        for name in sorted(folders, key=lambda name: not name.startswith("links-")):  # the links first
            _remove_folder(kernel, f"{inside}/{name}", links.drop if name.startswith("links-") else None)
        kernel.rmdir(inside)
    if kernel.exists(root):
        kernel.rmdir(root)
    if store is not None:
        store.clear()
    return result


def _remove_folder(kernel: Kernel, folder: str, drop: Callable[[Kernel, str], None] | None = None) -> None:
    """``drop``: removes one entry; without it, an entry is only unlinked."""
    if kernel.exists(folder):
        for name in kernel.names(folder):
            path = folder + "/" + name
            if drop is None:
                kernel.unlink(path)
            else:
                drop(kernel, path)
        kernel.rmdir(folder)
