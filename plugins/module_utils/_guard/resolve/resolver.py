# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resolves a policy document on one host: users and groups to ids, services to cgroup paths, paths to patterns inside
superblocks, host names to addresses.

A policy path is translated for each mount that it can lead to, also for one that is hidden by another mount: who opened
something there before, or is in another mount namespace, still reaches its files.

What users do to their own paths must not stop a policy nor change what it covers elsewhere: see places. The places of a
policy that is resolved again stay until the document changes, and a path that is missing keeps its last places."""

from __future__ import annotations

import difflib
import functools
import ipaddress
import re
from typing import AbstractSet, Any, Callable, Container, Iterable, Mapping, NamedTuple, Protocol, TypeVar

from .. import layout
from ..errors import PolicyErrors, Problem
from ..host.mountinfo import PSEUDO, Mount, parse_mounts, split, usual, visible
from ..host.system import Step
from ..policy import switches
from ..policy.model import (
    NO_ID,
    Components,
    DestinationSet,
    PathPattern,
    Resolved,
    ResourceSet,
    Rule,
    Selection,
    SubjectSet,
    literal,
)
from ..policy.semantics import component_matches
from . import devices, places
from .encoding import from_json

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "icmpv6": 58, "sctp": 132, "udplite": 136, "mptcp": 6}
_MPTCP, _TCP = 262, 6
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
# The enforcer's files, the units that start it at boot, and the kernel's switches, which self-protection covers: see
# semantics.
PROTECTED = (
    layout.LIBRARY + "/**",
    "/var/lib/exfil-guard/**",
    "/usr/sbin/exfil-guard",
    "/sys/fs/bpf/exfil_guard/**",
    "/etc/systemd/system/exfil-guard*/**",
    "/etc/systemd/system/*/exfil-guard*",
    "/etc/systemd/system.control/exfil-guard*/**",
    "/run/systemd/system/exfil-guard*/**",
    "/run/systemd/system.control/exfil-guard*/**",
    *switches.PATHS,
)
_PROTECTED = "built in/protected"  # among Resolved.source_paths
# Limits for what stays of an earlier resolution, so that it cannot fill the tables.
_PLACES_KEPT, _PATTERNS_KEPT, _DETACHED_KEPT = 64, 64, 256
_DETACHED = ""  # in Resolved.mounted: the filesystem was gone from the table of mounts
_UNIT_TYPES = (".service", ".slice", ".scope", ".socket", ".mount", ".swap")
_SETS_OF = (  # key of a rule -> kind of the sets that it names
    ("subjects", "subjects"),
    ("except", "subjects"),
    ("resources", "resources"),
    ("destinations", "destinations"),
)
_Value = TypeVar("_Value")


class HostNames(Protocol):
    """What the resolver needs of a host: see host.system.System."""

    def user(self, name: str) -> int | None:
        """The id of a user."""

    def group(self, name: str) -> int | None:
        """The id of a group."""

    def users(self) -> list[str]:
        """User names, for suggestions."""

    def groups(self) -> list[str]:
        """Group names, for suggestions."""

    def addresses(self, name: str) -> list[str]:
        """The addresses of a host name."""

    def mountinfo(self) -> str:
        """The text of /proc/self/mountinfo."""

    def exists(self, path: str) -> bool:
        """Whether a path exists."""

    def realpath(self, path: str) -> str:
        """The path without symbolic links."""

    def names(self, folder: str) -> list[str]:
        """The names in a directory, for suggestions."""

    def step(self, path: str, mounts: Container[int]) -> Step | None:
        """One file on the way of a path, nothing followed."""

    def below(self, folder: str, names: Iterable[str]) -> bool | None:
        """Whether there is a file below a folder."""

    def device_tables(self) -> dict[str, str]:
        """The kernel's tables of device numbers."""

    def units(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """The properties of systemd units."""


# ---- mounts -------------------------------------------------------------------------------------------------------


def residual(pattern: Components, point: Components) -> Components | None:
    """The rest of a pattern below a mount point. None if the pattern covers nothing there."""
    for i, name in enumerate(point):
        if i < len(pattern) and pattern[i] == "**" and i == len(pattern) - 1:
            return ("**",)
        if i >= len(pattern) or not component_matches(pattern[i], name):
            return None
    return pattern[len(point) :]


def translate(paths: Iterable[str], mounts: Iterable[Mount]) -> frozenset[PathPattern]:
    """The patterns for policy paths on ``mounts``."""
    result: set[PathPattern] = set()
    patterns = [split(path) for path in paths]
    for mount in (*mounts, *usual()):
        if mount.root is not None:
            for pattern in patterns:
                rest = residual(pattern, mount.point)
                if rest is not None:
                    result.add(PathPattern(mount.superblock, tuple(map(literal, mount.root)) + rest))
    return frozenset(result)


def superblocks(
    mounts: Iterable[Mount],
    subjects: dict[str, SubjectSet],
    resources: dict[str, ResourceSet],
    protected: frozenset[PathPattern],
) -> frozenset[int]:
    """The devices that the kernel's table must have.

    Of pseudo filesystems, only those with a pattern are needed. Others are mounted at every login, and objects on them
    are allowed anyway."""
    named = _named(subjects, resources) | {pattern.device for pattern in protected}
    return frozenset(named | {mount.device for mount in mounts if mount.type not in PSEUDO})


def _named(subjects: Mapping[str, SubjectSet], resources: Mapping[str, ResourceSet]) -> set[int]:
    """The devices of all patterns, but for abstract sockets."""
    named = {pattern.device for body in resources.values() for pattern in body.paths}
    named.update(pattern.device for body in subjects.values() for pattern in body.executables or ())
    return named - {layout.ABSTRACT}


def identities(mounts: Iterable[Mount]) -> dict[int, str]:
    """The type and source of each filesystem in the table of mounts, by its device number."""
    result: dict[int, str] = {}
    for mount in mounts:
        result.setdefault(mount.device, f"{mount.type} {mount.source}")
    return result


def _kept(
    before: Iterable[PathPattern], now: AbstractSet[PathPattern], last: Resolved, present: Mapping[int, str]
) -> frozenset[PathPattern]:
    """The patterns of the last resolution that stay although no mount leads to them now.

    The filesystem may be in use: by a descriptor from before, or in another mount namespace. One that is gone from the
    table of mounts is denied as unknown anyway, unless it is a pseudo filesystem. Once it is gone, its number may come
    back as that of another one."""
    still_mounted, gone = [], []
    for pattern in sorted(set(before) - now):
        known = last.mounted.get(pattern.device)
        if known is None or pattern.device >= layout.KIND:  # a kind of filesystem is always covered where it is now
            continue
        if pattern.device in present:
            if present[pattern.device] == known:
                still_mounted.append(pattern)
        elif known == _DETACHED or known.split(" ")[0] in PSEUDO:
            gone.append(pattern)
    return frozenset(still_mounted[:_PATTERNS_KEPT] + gone[:_DETACHED_KEPT])


# ---- names --------------------------------------------------------------------------------------------------------


def _close(name: str, candidates: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(candidates), 1, 0.6)
    return f"Did you mean {matches[0]!r}? " if matches else ""


def literal_prefix(components: Components) -> Components:
    """The components before the first one with ``*``."""
    for i, part in enumerate(components):
        if "*" in part:
            return components[:i]
    return components


def unit_name(name: str) -> str:
    """The full name of a systemd unit: without a type it is a service."""
    return name if name.endswith(_UNIT_TYPES) else name + ".service"


def slice_path(name: str) -> Components:
    """The cgroup path of a slice: `a-b.slice` is below `a.slice`, and `-.slice` is the root."""
    if not name or name == "-.slice":
        return ()
    parts = name[: -len(".slice")].split("-")
    return tuple("-".join(parts[: i + 1]) + ".slice" for i in range(len(parts)))


_NOTHING = Resolved((), {}, {}, {}, frozenset())


class Last(NamedTuple):
    """The last resolution.

    ``again``: it was of the same document. ``refresh``: nobody reviews the result, so a missing path is no error.
    ``addresses``: the addresses that host names keep if they do not resolve now."""

    resolved: Resolved = _NOTHING
    again: bool = False
    refresh: bool = False
    addresses: Mapping[str, frozenset[str]] = {}

    def patterns(self, key: str) -> frozenset[PathPattern]:
        """The patterns of a set. ``key``: as in Resolved.source_paths."""
        kind, _unused, name = key.partition("/")
        if kind == "resources" and name in self.resolved.resources:
            return frozenset(p for p in self.resolved.resources[name].paths if p.device != layout.ABSTRACT)
        if kind == "subjects" and name in self.resolved.subjects:
            return self.resolved.subjects[name].executables or frozenset()
        return frozenset()


class _Resolver:
    """Resolves one document, and collects all of its problems."""

    def __init__(self, document: dict[str, Any], system: HostNames, last: Last) -> None:
        self.document, self.system, self.last = document, system, last
        self.addresses: dict[str, frozenset[str]] = {}
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.mounts = parse_mounts(system.mountinfo())
        self.present = identities(self.mounts)
        self.roots_own = frozenset(mount.number for mount in self.mounts if not mount.user)
        self.paths: dict[str, frozenset[str]] = {}
        self.places: dict[str, frozenset[str]] = {}

    def _problem(self, where: str, problem: str, expected: str, remedy: str = "") -> None:
        self.problems.append(Problem(where, problem, expected, remedy))

    def _where(self, kind: str, name: str, key: str) -> str:
        """Names a key of a set, and the rules that use the set."""
        rules = []
        for rule in self.document.get("rules", ()):
            named: set[str] = set()
            for part in ("subjects", "except") if kind == "subjects" else (kind,):
                value = rule.get(part) or ()
                named.update(value["not"] if isinstance(value, dict) else value)
            if name in named:
                rules.append(rule["name"])
        text = f"{kind} {name!r}, {key}"
        if rules:
            text += f" (rule {', '.join(repr(rule) for rule in rules[:3])}{' …' if rules[3:] else ''})"
        return text

    @functools.cached_property
    def units(self) -> dict[str, dict[str, str]]:
        names = {
            unit_name(name)
            for body in (self.document.get("subjects") or {}).values()
            for name in body.get("services", ())
            if _UNIT.fullmatch(name)
        }
        return self.system.units(sorted(names)) if names else {}

    def ids(
        self,
        values: Iterable[object],
        look_up: Callable[[str], int | None],
        candidates: Callable[[], list[str]],
        kind: str,
        where: str,
        optional: bool,
    ) -> frozenset[int]:
        ids = set()
        for value in values:
            text = str(value)
            if text.isascii() and text.isdigit():
                number: int | None = int(text)
                if int(text) >= NO_ID:
                    self._problem(where, f"{text} is not a valid id", f"0 to {NO_ID - 1}")
                    continue
            else:
                number = look_up(text)
            if number is not None:
                ids.add(number)
            elif not optional:
                self._problem(
                    where,
                    f"unknown {kind} {text!r}",
                    f"a {kind} of this host",
                    f"{_close(text, candidates())}Create it, or set `optional: true`",
                )
        return frozenset(ids)

    def located(self, values: Iterable[str], key: str, where: str, optional: bool) -> frozenset[PathPattern]:
        paths: set[str] = set()
        for path in values:
            components = split(path)
            if not path.startswith("/") or ".." in components or "**" in components[:-1]:
                expected = "an absolute path without `..`, with `**` only at its end"
                self._problem(where, f"path {path!r} cannot be guarded", expected)
                continue
            found = self._places(path, components, where, optional)
            paths.update(found)
            if len(found) > 1:
                self.places[path] = found
        dropped: frozenset[PathPattern] = frozenset()
        if self.last.again:
            before = self.last.resolved.source_paths.get(key, frozenset())
            stay = sorted(other for other in before - paths if self._may_exist(other))[:_PLACES_KEPT]
            paths.update(stay)
            dropped = translate(before - paths, self.mounts)
        self.paths[key] = frozenset(paths)
        now = translate(paths, self.mounts)
        if not self.last.again:
            return now
        return now | _kept(self.last.patterns(key) - dropped, now, self.last.resolved, self.present)

    def _places(self, path: str, components: Components, where: str, optional: bool) -> frozenset[str]:
        """The paths that a policy path stands for: itself, and where its links lead."""
        prefix = literal_prefix(components)
        found = places.find(self.system, prefix, self.roots_own)
        own = "/" + "/".join(components)
        if found.state == places.MISSING and not (optional or found.users or self.last.refresh):
            self._problem(
                where,
                f"no such path {'/' + '/'.join(prefix)!r}",
                "a path of this host",
                f"{self._close_path(found.at)}Create it, or set `optional: true`",
            )
            return frozenset()
        result = {own, "/" + "/".join(found.components + components[len(prefix) :])}
        if found.state != places.FOUND:
            before = self.last.resolved.places.get(path, frozenset())
            result |= before
            self._note(path, where, found, optional, before - {own})
        return frozenset(result)

    def _note(self, path: str, where: str, found: places.Place, optional: bool, kept: frozenset[str]) -> None:
        if found.state == places.MISSING and optional and not kept:
            return
        if found.state == places.MISSING:
            close = "" if found.users else self._close_path(found.at)  # his folder may be large, or never answer
            text = f"{found.at} does not exist; the path itself stays covered. {close}"
            remedy = "Create it, name another path, or set `optional: true`"
        else:
            text = f"{found.at} is not followed, because a user can change it or a link on its way. "
            remedy = "Name the path that it leads to"
        also = f" The last known places also stay in force: {', '.join(sorted(kept))}." if kept else ""
        self.notes.append(f"{where}: {path!r}: {text}{remedy}.{also}")

    def _may_exist(self, path: str) -> bool:
        place = places.find(self.system, literal_prefix(split(path)), self.roots_own)
        return place.users or place.state != places.MISSING

    def _close_path(self, missing: str) -> str:
        folder, _unused, name = missing.rpartition("/")
        matches = difflib.get_close_matches(name, self.system.names(folder or "/"), 1, 0.7)
        return f"Did you mean {folder + '/' + matches[0]!r}? " if matches else ""

    def path_notes(self) -> list[str]:
        """What a user may have done to the paths of the policy, without an error."""
        for kind, key in (("subjects", "executables"), ("resources", "paths")):
            for name, body in sorted((self.document.get(kind) or {}).items()):
                where = self._where(kind, name, key)
                self.located(body.get(key) or (), f"{kind}/{name}", where, bool(body.get("optional")))
        return self.notes

    def services(self, values: Iterable[str], where: str, optional: bool) -> frozenset[Components]:
        paths = set()
        for value in values:
            name = unit_name(value)
            if not _UNIT.fullmatch(value):
                self._problem(where, f"{value!r} is not a valid unit name", "a systemd unit")
                continue
            unit = self.units.get(name, {})
            if unit.get("LoadState", "not-found") == "not-found":
                if not optional:
                    self._problem(
                        where,
                        f"unknown unit {name!r}",
                        "a systemd unit of this host",
                        "Install it, or set `optional: true`",
                    )
                continue
            own = unit.get("Id") or name  # of an alias, the unit's real name
            running = split(unit.get("ControlGroup", ""))
            if running:
                paths.add(running)
            elif own.endswith(".slice"):
                paths.add(slice_path(own))
            else:
                paths.add((*slice_path(unit.get("Slice") or "system.slice"), own))
        return frozenset(paths)

    def subject(self, name: str, body: dict[str, Any]) -> SubjectSet:
        optional = bool(body.get("optional"))
        fields: dict[str, Any] = {}
        for key in ("users", "login_users", "groups"):
            if key in body:
                group = key == "groups"
                fields[key] = self.ids(
                    body[key],
                    self.system.group if group else self.system.user,
                    self.system.groups if group else self.system.users,
                    "group" if group else "user",
                    self._where("subjects", name, key),
                    optional,
                )
        if "services" in body:
            fields["services"] = self.services(body["services"], self._where("subjects", name, "services"), optional)
        if "executables" in body:
            fields["executables"] = self.located(
                body["executables"], "subjects/" + name, self._where("subjects", name, "executables"), optional
            )
        if "has_read" in body:
            self._check_sets(body["has_read"], "resources", lambda: self._where("subjects", name, "has_read"))
            fields["has_read"] = frozenset(body["has_read"])
        return SubjectSet(**fields)

    def _check_sets(self, names: Iterable[str], kind: str, where: Callable[[], str]) -> None:
        sets = self.document.get(kind) or {}
        for name in names:
            if name not in sets:
                self._problem(where(), f"unknown set {name!r}", f"a set of `{kind}`", _close(name, sets).strip())

    def destination(self, name: str, body: dict[str, Any]) -> DestinationSet:
        def parsed(key: str, parse: Callable[[object], _Value], expected: str) -> frozenset[_Value] | None:
            if key not in body:
                return None
            values = set()
            for value in body[key]:
                try:
                    values.add(parse(value))
                except ValueError:
                    remedy = _close(str(value), PROTOCOLS).strip() if key == "protocols" else ""
                    self._problem(self._where("destinations", name, key), f"{value!r}", expected, remedy)
            return frozenset(values)

        cidrs = parsed("cidrs", parse_cidr, "an IPv4 or IPv6 network, as 10.0.0.0/8")
        ports = parsed("ports", parse_port, "a port or a range, as 443 or 8000-8100")
        protocols = parsed("protocols", parse_protocol, ", ".join(sorted(PROTOCOLS)) + " or a number")
        vsock = parsed("vsock", parse_vsock, "a context id, a context id and a port as 2:1024, or any")
        if "names" in body:
            where = self._where("destinations", name, "names")
            cidrs = (cidrs or frozenset()) | self.hosts(body["names"], where, bool(body.get("optional")))
        return DestinationSet(cidrs, ports, protocols, vsock)

    def hosts(self, values: Iterable[str], where: str, optional: bool) -> frozenset[str]:
        """The addresses of host names. A name that does not resolve keeps its last addresses."""
        addresses: set[str] = set()
        for value in values:
            if value not in self.addresses:
                current = frozenset(parse_cidr(address) for address in self.system.addresses(value))
                self.addresses[value] = current or frozenset(self.last.addresses.get(value, ()))
            addresses |= self.addresses[value]
            if not self.addresses[value] and not optional:
                self._problem(
                    where,
                    f"host name {value!r} does not resolve",
                    "a name that this host can resolve",
                    f"Run `getent ahosts {value}` on the host, or set `optional: true`",
                )
        return frozenset(addresses)

    def rule(self, body: dict[str, Any]) -> Rule:
        for key, kind in _SETS_OF:
            value = body.get(key) or ()
            names = value["not"] if isinstance(value, dict) else value
            self._check_sets(names, kind, functools.partial("rule {!r}, {}".format, body["name"], key))
        subjects = body.get("subjects")
        return Rule(
            body["name"],
            frozenset(body["deny"]),
            None if subjects is None else frozenset(subjects),
            frozenset(body.get("except") or ()),
            _selection(body.get("resources")),
            _selection(body.get("destinations")),
            (body.get("mode") or self.document.get("mode")) == "audit",
            body.get("expires"),
        )

    def run(self) -> Resolved:
        document = self.document
        subjects = {name: self.subject(name, body) for name, body in sorted((document.get("subjects") or {}).items())}
        resources = {}
        for name, body in sorted((document.get("resources") or {}).items()):
            paths = self.located(
                body.get("paths") or (),
                "resources/" + name,
                self._where("resources", name, "paths"),
                bool(body.get("optional")),
            )
            resources[name] = ResourceSet(paths | abstract(body.get("abstract_sockets") or ()))
        destinations = {
            name: self.destination(name, body) for name, body in sorted((document.get("destinations") or {}).items())
        }
        rules = tuple(sorted((self.rule(body) for body in document.get("rules") or ()), key=lambda rule: rule.name))
        if self.problems:
            raise PolicyErrors(self.problems)
        protected = self.located(PROTECTED, _PROTECTED, "", True)
        return Resolved(
            rules,
            subjects,
            resources,
            destinations,
            superblocks(self.mounts, subjects, resources, protected),
            self.paths,
            _devices(rules, self.system),
            self.addresses,
            protected,
            self.places,
            self._mounted(subjects, resources),
        )

    def _mounted(self, subjects: Mapping[str, SubjectSet], resources: Mapping[str, ResourceSet]) -> Mapping[int, str]:
        return {device: self.present.get(device, _DETACHED) for device in sorted(_named(subjects, resources))}


def _devices(rules: Iterable[Rule], system: HostNames) -> frozenset[devices.Device]:
    """Empty unless a rule denies access to devices: a driver that is loaded must not cause a difference otherwise."""
    return devices.find(system.device_tables()) if any(devices.ACTIONS & rule.deny for rule in rules) else frozenset()


def _selection(value: dict[str, list[str]] | list[str] | None) -> Selection | None:
    if value is None:
        return None
    return Selection(frozenset(value["not"]), True) if isinstance(value, dict) else Selection(frozenset(value))


def parse_cidr(value: object) -> str:
    """A network in canonical form; IPv4-mapped IPv6 becomes IPv4. Raises ValueError."""
    network = ipaddress.ip_network(str(value), strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            network = ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return str(network)


def parse_port(value: object) -> tuple[int, int]:
    """The first and last port of a range, or of one port. Raises ValueError."""
    first, _unused, last = str(value).partition("-")
    ends = (int(first), int(last or first))
    if not 0 <= ends[0] <= ends[1] <= 65535:
        raise ValueError(value)
    return ends


def parse_protocol(value: object) -> int:
    """The number of an IP protocol. Raises ValueError."""
    text = str(value).lower()
    number = PROTOCOLS[text] if text in PROTOCOLS else int(text)
    if number == _MPTCP:
        return _TCP
    if not 0 <= number <= 255:
        raise ValueError(value)
    return number


def parse_vsock(value: object) -> tuple[int | None, int | None]:
    """A context id and a port, None for any. Raises ValueError."""
    if value == "any":
        return None, None
    cid, _unused, port = str(value).partition(":")
    numbers = int(cid), int(port) if port else None
    if not all(number is None or 0 <= number <= 0xFFFFFFFF for number in numbers):
        raise ValueError(value)
    return numbers


def abstract(names: Iterable[str]) -> frozenset[PathPattern]:
    """Patterns for the names of abstract unix sockets. Each name is one component."""
    return frozenset(PathPattern(layout.ABSTRACT, (name,)) for name in names)


def resolve(document: dict[str, Any], system: HostNames, last: Last | None = None) -> Resolved:
    """Resolves a document. Raises errors.PolicyErrors with all of its problems."""
    return _Resolver(document, system, last or Last()).run()


def notes(document: dict[str, Any], system: HostNames, last: Last | None = None) -> list[str]:
    """A line for each path that is missing or not followed, as far as that is no error."""
    return _Resolver(document, system, (last or Last())._replace(refresh=True)).path_notes()


def detached(resolved: Resolved) -> list[str]:
    """A line about the filesystems that are covered although they are gone from the table of mounts."""
    gone = [device for device, described in sorted(resolved.mounted.items()) if described == _DETACHED]
    if not gone:
        return []
    numbers = ", ".join(f"{device >> 20}:{device & 0xFFFFF}" for device in gone[:5]) + (" …" if gone[5:] else "")
    return [
        f"{len(gone)} filesystem(s) without a mount stay covered, for who has them open or in another mount namespace "
        f"({numbers}), until the document changes or the host boots"
    ]


# ---- stored -------------------------------------------------------------------------------------------------------


def renumber(stored: dict[str, Any], system: HostNames) -> Resolved:
    """The stored policy with the devices and mounts of this boot. Ids, units and addresses stay as stored."""
    resolved = from_json(stored)
    mounts = parse_mounts(system.mountinfo())
    present = identities(mounts)
    subjects = {
        name: body
        if body.executables is None
        else body._replace(executables=translate(resolved.source_paths["subjects/" + name], mounts))
        for name, body in resolved.subjects.items()
    }
    resources = {
        name: ResourceSet(
            translate(resolved.source_paths["resources/" + name], mounts)
            | {path for path in body.paths if path.device == layout.ABSTRACT}
        )
        for name, body in resolved.resources.items()
    }
    tamper_sources = resolved.source_paths.get(_PROTECTED, frozenset()) | frozenset(PROTECTED)
    protected = translate(tamper_sources, mounts)
    return resolved._replace(
        subjects=subjects,
        resources=resources,
        superblocks=superblocks(mounts, subjects, resources, protected),
        tamper_paths=protected,
        devices=_devices(resolved.rules, system),
        mounted={device: present.get(device, _DETACHED) for device in sorted(_named(subjects, resources))},
    )


def visible_place(system: HostNames, path: str) -> PathPattern | None:
    """Where a path leads now, all links followed; None if it does not exist."""
    if not system.exists(path):
        return None
    components = split(system.realpath(path))
    candidates = [
        mount
        for mount in visible(parse_mounts(system.mountinfo()))
        if mount.root is not None and components[: len(mount.point)] == mount.point
    ]
    if not candidates:
        return None
    mount = max(candidates, key=lambda mount: len(mount.point))
    return PathPattern(mount.superblock, (mount.root or ()) + components[len(mount.point) :])
