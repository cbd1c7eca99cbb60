# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converts a resolved policy to the JSON that is stored on the host, and back."""

from __future__ import annotations

from typing import Any, Iterable

from ..policy.model import DestinationSet, PathPattern, Resolved, ResourceSet, Rule, Selection, SubjectSet


def _listed(values: Iterable[Any] | None) -> list[Any] | None:
    return None if values is None else [list(value) if isinstance(value, tuple) else value for value in sorted(values)]


def _endpoints(values: Iterable[tuple[int | None, int | None]] | None) -> list[Any] | None:
    return None if values is None else sorted((list(value) for value in values), key=str)


def _patterns(values: Iterable[PathPattern] | None) -> list[Any] | None:
    return None if values is None else [[pattern.device, list(pattern.components)] for pattern in sorted(values)]


def _selection(value: Selection | None) -> dict[str, Any] | None:
    return None if value is None else {"names": sorted(value.names), "negated": value.negated}


def to_json(resolved: Resolved) -> dict[str, Any]:
    """The stored form."""
    return {
        "rules": [
            {
                "name": rule.name,
                "deny": sorted(rule.deny),
                "subjects": _listed(rule.subjects),
                "except": sorted(rule.excepts),
                "resources": _selection(rule.resources),
                "destinations": _selection(rule.destinations),
                "audit": rule.audit,
                "expires": rule.expires,
            }
            for rule in resolved.rules
        ],
        "subjects": {
            name: {
                "users": _listed(body.users),
                "login_users": _listed(body.login_users),
                "groups": _listed(body.groups),
                "services": _listed(body.services),
                "executables": _patterns(body.executables),
                "has_read": _listed(body.has_read),
            }
            for name, body in resolved.subjects.items()
        },
        "resources": {name: _patterns(body.paths) for name, body in resolved.resources.items()},
        "destinations": {
            name: {
                "cidrs": _listed(body.cidrs),
                "ports": _listed(body.ports),
                "protocols": _listed(body.protocols),
                "vsock": _endpoints(body.vsock),
            }
            for name, body in resolved.destinations.items()
        },
        "superblocks": sorted(resolved.superblocks),
        "paths": {key: sorted(paths) for key, paths in resolved.source_paths.items()},
        "devices": [list(device) for device in sorted(resolved.devices)],
        "names": {name: sorted(addresses) for name, addresses in resolved.host_addresses.items()},
        "protected": _patterns(resolved.tamper_paths),
        "places": {path: sorted(places) for path, places in resolved.places.items()},
        "mounted": [[device, described] for device, described in sorted(resolved.mounted.items())],
    }


def _set(values: Iterable[Any] | None) -> frozenset[Any] | None:
    return None if values is None else frozenset(tuple(value) if isinstance(value, list) else value for value in values)


def _located(values: Iterable[Any] | None) -> frozenset[PathPattern] | None:
    return None if values is None else frozenset(PathPattern(device, tuple(parts)) for device, parts in values)


def from_json(stored: dict[str, Any]) -> Resolved:
    """The policy from its stored form. Raises KeyError if a key is missing."""

    def selection(value: dict[str, Any] | None) -> Selection | None:
        return None if value is None else Selection(frozenset(value["names"]), value["negated"])

    return Resolved(
        tuple(
            Rule(
                rule["name"],
                frozenset(rule["deny"]),
                _set(rule["subjects"]),
                frozenset(rule["except"]),
                selection(rule["resources"]),
                selection(rule["destinations"]),
                rule["audit"],
                rule["expires"],
            )
            for rule in stored["rules"]
        ),
        {
            name: SubjectSet(
                _set(body["users"]),
                _set(body["login_users"]),
                _set(body["groups"]),
                _set(body["services"]),
                _located(body["executables"]),
                _set(body["has_read"]),
            )
            for name, body in stored["subjects"].items()
        },
        {name: ResourceSet(_located(body) or frozenset()) for name, body in stored["resources"].items()},
        {
            name: DestinationSet(_set(body["cidrs"]), _set(body["ports"]), _set(body["protocols"]), _set(body["vsock"]))
            for name, body in stored["destinations"].items()
        },
        frozenset(stored["superblocks"]),
        {key: frozenset(paths) for key, paths in stored["paths"].items()},
        frozenset((bool(block), device, action) for block, device, action in stored["devices"]),
        {name: frozenset(addresses) for name, addresses in stored["names"].items()},
        _located(stored.get("protected")) or frozenset(),
        {path: frozenset(places) for path, places in stored.get("places", {}).items()},
        {device: described for device, described in stored.get("mounted", ())},
    )
