# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A resolved policy as it is stored on the host, and back."""

from __future__ import annotations

from typing import Any, Iterable

from ..policy.model import DestinationSet, PathPattern, Resolved, ResourceSet, Rule, Selection, SubjectSet


def _listed(values: Iterable[Any] | None) -> list[Any] | None:
    return None if values is None else [list(each) if isinstance(each, tuple) else each for each in sorted(values)]


def _endpoints(values: Iterable[tuple[int | None, int | None]] | None) -> list[Any] | None:
    return None if values is None else sorted((list(each) for each in values), key=str)


def _patterns(values: Iterable[PathPattern] | None) -> list[Any] | None:
    return None if values is None else [[each.device, list(each.components)] for each in sorted(values)]


def _chosen(value: Selection | None) -> Any:
    return None if value is None else {"names": sorted(value.names), "negated": value.negated}


def to_json(resolved: Resolved) -> dict[str, Any]:
    return {
        "rules": [
            {
                "name": rule.name,
                "deny": sorted(rule.deny),
                "subjects": _listed(rule.subjects),
                "except": sorted(rule.excepts),
                "resources": _chosen(rule.resources),
                "destinations": _chosen(rule.destinations),
                "audit": rule.audit,
                "expires": rule.expires,
            }
            for rule in resolved.rules
        ],
        "subjects": {
            name: {
                "users": _listed(each.users),
                "login_users": _listed(each.login_users),
                "groups": _listed(each.groups),
                "services": _listed(each.services),
                "executables": _patterns(each.executables),
                "has_read": _listed(each.has_read),
            }
            for name, each in resolved.subjects.items()
        },
        "resources": {name: _patterns(each.paths) for name, each in resolved.resources.items()},
        "destinations": {
            name: {
                "cidrs": _listed(each.cidrs),
                "ports": _listed(each.ports),
                "protocols": _listed(each.protocols),
                "vsock": _endpoints(each.vsock),
            }
            for name, each in resolved.destinations.items()
        },
        "superblocks": sorted(resolved.superblocks),
        "paths": {key: sorted(paths) for key, paths in resolved.source_paths.items()},
        "devices": [list(each) for each in sorted(resolved.devices)],
        "names": {name: sorted(addresses) for name, addresses in resolved.host_addresses.items()},
        "protected": _patterns(resolved.tamper_paths),
    }


def _set(values: Iterable[Any] | None) -> frozenset[Any] | None:
    return None if values is None else frozenset(tuple(each) if isinstance(each, list) else each for each in values)


def _located(values: Iterable[Any] | None) -> frozenset[PathPattern] | None:
    return None if values is None else frozenset(PathPattern(device, tuple(parts)) for device, parts in values)


def from_json(stored: dict[str, Any]) -> Resolved:
    def chosen(value: Any) -> Selection | None:
        return None if value is None else Selection(frozenset(value["names"]), value["negated"])

    return Resolved(
        tuple(
            Rule(
                each["name"],
                frozenset(each["deny"]),
                _set(each["subjects"]),
                frozenset(each["except"]),
                chosen(each["resources"]),
                chosen(each["destinations"]),
                each["audit"],
                each["expires"],
            )
            for each in stored["rules"]
        ),
        {
            name: SubjectSet(
                _set(each["users"]),
                _set(each["login_users"]),
                _set(each["groups"]),
                _set(each["services"]),
                _located(each["executables"]),
                _set(each["has_read"]),
            )
            for name, each in stored["subjects"].items()
        },
        {name: ResourceSet(_located(each) or frozenset()) for name, each in stored["resources"].items()},
        {
            name: DestinationSet(_set(each["cidrs"]), _set(each["ports"]), _set(each["protocols"]), _set(each["vsock"]))
            for name, each in stored["destinations"].items()
        },
        frozenset(stored["superblocks"]),
        {key: frozenset(paths) for key, paths in stored["paths"].items()},
        frozenset((bool(block), device, action) for block, device, action in stored["devices"]),
        {name: frozenset(addresses) for name, addresses in stored["names"].items()},
        _located(stored.get("protected")) or frozenset(),
    )
