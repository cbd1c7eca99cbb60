# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy document of a host: canonical, so that equal policies have equal digests. Private to this collection."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import canonical

RULES, SETS = 512, 63  # the 64th set of a kind is the canary's

BUILT_IN: dict[str, dict[str, Any]] = {
    "loopback": {"cidrs": ["0.0.0.0/32", "127.0.0.0/8", "::/128", "::1/128"]},
    "link-local": {"cidrs": ["169.254.0.0/16", "fe80::/10"]},
    "multicast": {"cidrs": ["224.0.0.0/4", "ff00::/8"]},
    "metadata": {"cidrs": ["100.100.100.200/32", "168.63.129.16/32", "169.254.169.254/32", "fd00:ec2::254/128"]},
}


def plain(value: Any) -> Any:
    """Copies without the controller's marks on them: plain data, as JSON has it."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _sorted(values):
    return sorted({json.dumps(value): value for value in values}.values(), key=lambda value: (str(type(value)), value))


def canonical_set(body: dict[str, Any]) -> dict[str, Any]:
    kept = {key: _sorted(value) if isinstance(value, list) else value for key, value in body.items()}
    return {key: value for key, value in kept.items() if value is not False}


def canonical_rule(body: dict[str, Any]) -> dict[str, Any]:
    rule = {key: _sorted(value) if isinstance(value, list) else value for key, value in body.items()}
    for key in ("resources", "destinations"):
        if isinstance(rule.get(key), dict):
            rule[key] = canonical_set(rule[key])
    return rule


def finished(document: dict[str, Any]) -> dict[str, Any]:
    """What is sent: without what only the merge needs."""
    result = dict(document)
    for kind in ("subjects", "resources", "destinations"):
        result[kind] = {
            name: {key: value for key, value in body.items() if key != "extensible"}
            for name, body in sorted(document[kind].items())
        }
    return plain(result)


def digest(document: dict[str, Any]) -> str:
    """Returns the document's SHA-256, as the host works it out."""
    return canonical.digest(document)
