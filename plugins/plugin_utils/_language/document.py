# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy document of a host in canonical form: equal policies have equal digests. Private to this collection."""

from __future__ import annotations

import json
from typing import Any, Iterable

from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import canonical

RULES, SETS = 512, 63  # the 64th set of a kind is the canary's

BUILT_IN: dict[str, dict[str, Any]] = {
    "loopback": {"cidrs": ["0.0.0.0/32", "127.0.0.0/8", "::/128", "::1/128"]},
    "link-local": {"cidrs": ["169.254.0.0/16", "fe80::/10"]},
    "multicast": {"cidrs": ["224.0.0.0/4", "ff00::/8"]},
    "metadata": {"cidrs": ["100.100.100.200/32", "168.63.129.16/32", "169.254.169.254/32", "fd00:ec2::254/128"]},
}


def plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value, of the type of the argument
    """A copy of ``value`` in plain JSON types, without Ansible's subclasses and tags."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _sorted(values: Iterable[Any]) -> list[Any]:
    """Without duplicates; 1 and True, or 1 and "1", are different."""
    return sorted({json.dumps(value): value for value in values}.values(), key=lambda value: (str(type(value)), value))


def canonical_set(body: dict[str, Any]) -> dict[str, Any]:
    """The set with sorted lists and without options that are false."""
    canonical = {key: _sorted(value) if isinstance(value, list) else value for key, value in body.items()}
    return {key: value for key, value in canonical.items() if value is not False}


def canonical_rule(body: dict[str, Any]) -> dict[str, Any]:
    """The rule with sorted lists, also in sets that it defines inline."""
    rule: dict[str, Any] = {key: _sorted(value) if isinstance(value, list) else value for key, value in body.items()}
    for key in ("resources", "destinations"):
        if isinstance(rule.get(key), dict):
            rule[key] = canonical_set(rule[key])
    return rule


def finished(document: dict[str, Any]) -> dict[str, Any]:
    """The document as it is sent to the host, without the options that only the merge needs."""
    result = dict(document)
    for kind in ("subjects", "resources", "destinations"):
        result[kind] = {
            name: {key: value for key, value in body.items() if key != "extensible"}
            for name, body in sorted(document[kind].items())
        }
    final: dict[str, Any] = plain(result)
    return final


def digest(document: dict[str, Any]) -> str:
    """The SHA-256 of the document's canonical JSON text, the same as on the host."""
    sha256: str = canonical.digest(document)
    return sha256
