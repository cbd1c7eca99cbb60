# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy document on one host: users and groups become numbers, services cgroup paths, paths places inside
superblocks. Every error is told at once.

A policy path is translated for each mount that its names lead to. What lies hidden under another mount point of the
same superblock is covered too, since a pattern cannot leave it out; a mount that is covered whole by another is not."""

from __future__ import annotations

import difflib
import ipaddress
import re
from typing import Any, Callable, Iterable, Mapping

from .. import layout
from ..errors import PolicyErrors, Problem
from ..host.mountinfo import PSEUDO, Mount, parse_mounts, split, visible
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
)
from ..policy.semantics import component_matches
from . import devices
from .encoding import from_json

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "icmpv6": 58, "sctp": 132, "udplite": 136, "mptcp": 6}
_MPTCP, _TCP = 262, 6
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
# What enforces, and what starts it at boot. Nobody but real root has business there: see semantics.
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
)
_PROTECTED = "built in/protected"  # among Resolved.source_paths
_UNIT_TYPES = (".service", ".slice", ".scope", ".socket", ".mount", ".swap")


# ---- mounts -------------------------------------------------------------------------------------------------------


def residual(pattern: Components, point: Components) -> Components | None:
    """What is left of a pattern below a mount point; None when it covers nothing there."""
    for i, name in enumerate(point):
        if i < len(pattern) and pattern[i] == "**" and i == len(pattern) - 1:
            return ("**",)
        if i >= len(pattern) or not component_matches(pattern[i], name):
            return None
    return pattern[len(point) :]


def translate(paths: Iterable[str], mounts: Iterable[Mount]) -> frozenset[PathPattern]:
    """Where the paths of a policy lie, given the visible mounts."""
    found: set[PathPattern] = set()
    patterns = [split(path) for path in paths]
    for mount in mounts:
        if mount.root is not None:
            for pattern in patterns:
                rest = residual(pattern, mount.point)
                if rest is not None:
                    found.add(PathPattern(mount.device, mount.root + rest))
    return frozenset(found)


def superblocks(
    mounts: Iterable[Mount],
    subjects: dict[str, SubjectSet],
    resources: dict[str, ResourceSet],
    protected: frozenset[PathPattern],
) -> frozenset[int]:
    """The devices that the kernel has to know: of pseudo filesystems, those that a pattern lies on. The others come and
    go with every login, and what is on them is decided the same without."""
    named = {each.device for one in resources.values() for each in one.paths}
    named.update(each.device for one in subjects.values() for each in one.executables or ())
    named.update(each.device for each in protected)
    return frozenset(mount.device for mount in mounts if mount.type not in PSEUDO or mount.device in named)


# ---- names --------------------------------------------------------------------------------------------------------


def _close(name: str, candidates: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(candidates), 1, 0.6)
    return f"Did you mean {found[0]!r}? " if found else ""


def literal_prefix(components: Components) -> Components:
    for i, part in enumerate(components):
        if "*" in part:
            return components[:i]
    return components


def unit_name(name: str) -> str:
    return name if name.endswith(_UNIT_TYPES) else name + ".service"


def slice_path(name: str) -> Components:
    """`a-b.slice` lies in `a.slice`; `-.slice` is the root."""
    if not name or name == "-.slice":
        return ()
    parts = name[: -len(".slice")].split("-")
    return tuple("-".join(parts[: i + 1]) + ".slice" for i in range(len(parts)))


class _Resolver:
    def __init__(self, document: dict[str, Any], system: Any, last: Mapping[str, frozenset[str]]) -> None:
        self.document, self.system, self.last = document, system, last
        self.names: dict[str, frozenset[str]] = {}
        self.problems: list[Problem] = []
        self.mounts = parse_mounts(system.mountinfo())
        self.visible = visible(self.mounts)
        self.paths: dict[str, frozenset[str]] = {}
        self.units = self._ask_units()

    def _where(self, kind: str, name: str, key: str) -> str:
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
            text += " (rule {0})".format(", ".join(repr(rule) for rule in rules[:3]) + (" …" if rules[3:] else ""))
        return text

    def _ask_units(self) -> dict[str, dict[str, str]]:
        names = {
            unit_name(name)
            for each in (self.document.get("subjects") or {}).values()
            for name in each.get("services", ())
            if _UNIT.fullmatch(name)
        }
        return self.system.units(sorted(names)) if names else {}

    def ids(
        self,
        values: Iterable[Any],
        look_up: Callable[[str], int | None],
        candidates: Callable[[], list[str]],
        kind: str,
        where: str,
        optional: bool,
    ) -> frozenset[int]:
        found = set()
        for value in values:
            text = str(value)
            if text.isascii() and text.isdigit():
                number: int | None = int(text)
                if int(text) >= NO_ID:
                    self.problems.append(Problem(where, f"{text} is no id", f"0 to {NO_ID - 1}", ""))
                    continue
            else:
                number = look_up(text)
            if number is not None:
                found.add(number)
            elif not optional:
                self.problems.append(
                    Problem(
                        where,
                        f"unknown {kind} {text!r}",
                        f"a {kind} of this host",
                        f"{_close(text, candidates())}Create it, or say `optional: true` in the set",
                    )
                )
        return frozenset(found)

    def located(self, values: Iterable[str], key: str, where: str, optional: bool) -> frozenset[PathPattern]:
        paths = set()
        for path in values:
            components = split(path)
            prefix = literal_prefix(components)
            literal = "/" + "/".join(prefix)
            if not path.startswith("/") or ".." in components or "**" in components[:-1]:
                self.problems.append(
                    Problem(
                        where,
                        f"path {path!r} cannot be guarded",
                        "an absolute path without `..`, with `**` only at its end",
                        "",
                    )
                )
                continue
            if self.system.exists(literal):
                real = split(self.system.realpath(literal))
                if real != prefix:
                    paths.add("/" + "/".join(real + components[len(prefix) :]))
            elif not optional:
                self.problems.append(
                    Problem(
                        where,
                        f"no such path {literal!r}",
                        "a path of this host",
                        f"{self._close_path(prefix)}Create it, or say `optional: true` in the set",
                    )
                )
                continue
            paths.add("/" + "/".join(components))
        self.paths[key] = frozenset(paths)
        return translate(paths, self.visible)

    def _close_path(self, prefix: Components) -> str:
        for i in range(len(prefix)):
            folder = "/" + "/".join(prefix[:i])
            if not self.system.exists("/" + "/".join(prefix[: i + 1])):
                found = difflib.get_close_matches(prefix[i], self.system.names(folder), 1, 0.7)
                return "Did you mean {0!r}? ".format(folder.rstrip("/") + "/" + found[0]) if found else ""
        return ""

    def services(self, values: Iterable[str], where: str, optional: bool) -> frozenset[Components]:
        found = set()
        for value in values:
            name = unit_name(value)
            if not _UNIT.fullmatch(value):
                self.problems.append(Problem(where, f"{value!r} is no unit name", "a systemd unit", ""))
                continue
            unit = self.units.get(name, {})
            if unit.get("LoadState", "not-found") == "not-found":
                if not optional:
                    self.problems.append(
                        Problem(
                            where,
                            f"unknown unit {name!r}",
                            "a systemd unit of this host",
                            "Install it, or say `optional: true` in the set",
                        )
                    )
                continue
            own = unit.get("Id") or name  # of an alias, the unit's real name
            running = split(unit.get("ControlGroup", ""))
            if running:
                found.add(running)
            elif own.endswith(".slice"):
                found.add(slice_path(own))
            else:
                found.add((*slice_path(unit.get("Slice") or "system.slice"), own))
        return frozenset(found)

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
            known = self.document.get("resources") or {}
            for each in body["has_read"]:
                if each not in known:
                    self.problems.append(
                        Problem(
                            self._where("subjects", name, "has_read"),
                            f"unknown set {each!r}",
                            "a set of `resources`",
                            _close(each, known).strip(),
                        )
                    )
            fields["has_read"] = frozenset(body["has_read"])
        return SubjectSet(**fields)

    def destination(self, name: str, body: dict[str, Any]) -> DestinationSet:
        fields: dict[str, Any] = {}
        for key, parse, expected in (
            ("cidrs", parse_cidr, "an IPv4 or IPv6 network, as 10.0.0.0/8"),
            ("ports", parse_port, "a port or a range, as 443 or 8000-8100"),
            ("protocols", parse_protocol, ", ".join(sorted(PROTOCOLS)) + " or a number"),
            ("vsock", parse_vsock, "a context id, a context id and a port as 2:1024, or any"),
        ):
            if key in body:
                values = set()
                for value in body[key]:
                    try:
                        values.add(parse(value))
                    except ValueError:
                        self.problems.append(
                            Problem(
                                self._where("destinations", name, key),
                                f"{value!r}",
                                expected,
                                _close(str(value), PROTOCOLS).strip() if key == "protocols" else "",
                            )
                        )
                fields[key] = frozenset(values)
        if "names" in body:
            fields["cidrs"] = fields.get("cidrs", frozenset()) | self.hosts(
                body["names"], self._where("destinations", name, "names"), bool(body.get("optional"))
            )
        return DestinationSet(**fields)

    def hosts(self, values: Iterable[str], where: str, optional: bool) -> frozenset[str]:
        """The addresses of host names; of one that resolves no more, those that it had, if that is allowed."""
        found: set[str] = set()
        for value in values:
            if value not in self.names:
                addresses = frozenset(parse_cidr(each) for each in self.system.addresses(value))
                self.names[value] = addresses or frozenset(self.last.get(value, ()))
            found |= self.names[value]
            if not self.names[value] and not optional:
                self.problems.append(
                    Problem(
                        where,
                        f"host name {value!r} does not resolve",
                        "a name that this host can resolve",
                        f"Look at `getent ahosts {value}` on the host, or say `optional: true` in the set",
                    )
                )
        return frozenset(found)

    def rule(self, body: dict[str, Any]) -> Rule:
        for part, kind in (
            ("subjects", "subjects"),
            ("except", "subjects"),
            ("resources", "resources"),
            ("destinations", "destinations"),
        ):
            value = body.get(part) or ()
            known = self.document.get(kind) or {}
            for name in value["not"] if isinstance(value, dict) else value:
                if name not in known:
                    self.problems.append(
                        Problem(
                            "rule {0!r}, {1}".format(body["name"], part),
                            f"unknown set {name!r}",
                            f"a set of `{kind}`",
                            _close(name, known).strip(),
                        )
                    )
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
        protected = self.located(PROTECTED, _PROTECTED, "", True) | translate(PROTECTED, self.visible)
        return Resolved(
            rules,
            subjects,
            resources,
            destinations,
            superblocks(self.mounts, subjects, resources, protected),
            self.paths,
            _devices(rules, self.system),
            self.names,
            protected,
        )


def _devices(rules: Iterable[Rule], system: Any) -> frozenset[devices.Device]:
    """Asked for only when a rule is about them: drivers come and go."""
    return devices.find(system.device_tables()) if any(devices.ACTIONS & rule.deny for rule in rules) else frozenset()


def _selection(value: Any) -> Selection | None:
    if value is None:
        return None
    return Selection(frozenset(value["not"]), True) if isinstance(value, dict) else Selection(frozenset(value))


def parse_cidr(value: Any) -> str:
    network = ipaddress.ip_network(str(value), strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            network = ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return str(network)


def parse_port(value: Any) -> tuple[int, int]:
    first, _, last = str(value).partition("-")
    ends = (int(first), int(last or first))
    if not 0 <= ends[0] <= ends[1] <= 65535:
        raise ValueError(value)
    return ends


def parse_protocol(value: Any) -> int:
    text = str(value).lower()
    number = PROTOCOLS[text] if text in PROTOCOLS else int(text)
    if number == _MPTCP:
        return _TCP
    if not 0 <= number <= 255:
        raise ValueError(value)
    return number


def parse_vsock(value: Any) -> tuple[int | None, int | None]:
    if value == "any":
        return None, None
    cid, _, port = str(value).partition(":")
    numbers = int(cid), int(port) if port else None
    if not all(number is None or 0 <= number <= 0xFFFFFFFF for number in numbers):
        raise ValueError(value)
    return numbers


def abstract(names: Iterable[str]) -> frozenset[PathPattern]:
    """Names of abstract unix sockets, as patterns: each is one component, whatever is in it."""
    return frozenset(PathPattern(layout.ABSTRACT, (name,)) for name in names)


def resolve(document: dict[str, Any], system: Any, last: Mapping[str, frozenset[str]] = {}) -> Resolved:
    """Raises errors.PolicyErrors with every error at once. ``last``: addresses that host names keep when they do not
    resolve now (model.Resolved.host_addresses)."""
    return _Resolver(document, system, last).run()


# ---- stored -------------------------------------------------------------------------------------------------------


def renumber(stored: dict[str, Any], system: Any) -> Resolved:
    """At boot: the last good ids, units and addresses, with devices and mount roots as they are now."""
    resolved = from_json(stored)
    mounts = parse_mounts(system.mountinfo())
    shown = visible(mounts)
    subjects = {
        name: each
        if each.executables is None
        else each._replace(executables=translate(resolved.source_paths["subjects/" + name], shown))
        for name, each in resolved.subjects.items()
    }
    resources = {
        name: ResourceSet(
            translate(resolved.source_paths["resources/" + name], shown)
            | {path for path in each.paths if path.device == layout.ABSTRACT}
        )
        for name, each in resolved.resources.items()
    }
    protected = translate(resolved.source_paths.get(_PROTECTED, frozenset()) | frozenset(PROTECTED), shown)
    return resolved._replace(
        subjects=subjects,
        resources=resources,
        superblocks=superblocks(mounts, subjects, resources, protected),
        tamper_paths=protected,
        devices=_devices(resolved.rules, system),
    )
