# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tries a policy without effect: the rules in force continue to enforce, and new rules run in audit mode beside them.

The whole policy is not set to audit mode, because that would stop enforcing the old rules during the trial."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

KINDS = ("subjects", "resources", "destinations")
MAX_NAME_BYTES = 95  # as in the policy's schema
_SUFFIX = " (new)"
_SETS_OF = (  # key of a rule -> kind of the sets that it names
    ("subjects", "subjects"),
    ("except", "subjects"),
    ("resources", "resources"),
    ("destinations", "destinations"),
)


class Soak(NamedTuple):
    """A combined document. ``rules``: the names in it of the rules that only audit now and would enforce."""

    document: dict[str, Any]
    rules: list[str]


def document(before: dict[str, Any] | None, after: dict[str, Any]) -> Soak:
    """Combines the document in force, ``before`` (None: there is none), with the next one, ``after``.

    Rules and sets of ``before`` keep their names, so that their counters and labels continue. A rule of ``after`` is
    added in audit mode unless ``before`` has the same rule with the same sets. A rule that is in audit mode in
    ``after`` is added unchanged."""
    old: dict[str, Any] = before or {"rules": []}
    renamed = {kind: _new_names(old.get(kind) or {}, after.get(kind) or {}) for kind in ("resources", "destinations")}
    new = {kind: dict(after.get(kind) or {}) for kind in KINDS}
    new["subjects"] = {name: _with_labels(body, renamed["resources"]) for name, body in new["subjects"].items()}
    renamed["subjects"] = _new_names(old.get("subjects") or {}, new["subjects"])
    result = dict(after)
    for key in ("mode", "boot"):
        if before:
            result[key] = old[key]
    for kind in KINDS:
        sets = dict(old.get(kind) or {}, **{renamed[kind][name]: body for name, body in new[kind].items()})
        result[kind] = dict(sorted(sets.items()))
    taken = {rule["name"]: rule for rule in old["rules"]}
    rules, auditing = list(old["rules"]), []
    for rule in after["rules"]:
        candidate = _with_sets(rule, renamed)
        if taken.get(rule["name"]) == candidate and (not before or old.get("mode") == after.get("mode")):
            continue
        name = _free_name(rule["name"], taken)
        rules.append(dict(candidate, name=name, mode="audit"))
        if rule.get("mode", after.get("mode")) != "audit":
            auditing.append(name)
    result["rules"] = sorted(rules, key=lambda rule: rule["name"])
    return Soak(result, sorted(auditing))


def _new_names(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """The name of each new set in the combined document: its own, unless an old set has it with another content."""
    return {name: name if old.get(name, body) == body else _free_name(name, old) for name, body in new.items()}


def _free_name(name: str, taken: dict[str, Any]) -> str:
    if name not in taken:
        return name
    suffixed = name + _SUFFIX
    if len(suffixed.encode()) > MAX_NAME_BYTES or suffixed in taken:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        shortened = name.encode()[: MAX_NAME_BYTES - len(_SUFFIX) - 9].decode("utf-8", "ignore")
        suffixed = f"{shortened} {digest}{_SUFFIX}"
    return suffixed


def _with_labels(body: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    """The subject set with the names that its `has_read` sets have in the combined document."""
    if "has_read" not in body:
        return body
    return dict(body, has_read=sorted(renamed.get(name, name) for name in body["has_read"]))


def _with_sets(rule: dict[str, Any], renamed: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The rule with the names that its sets have in the combined document."""
    result = dict(rule)
    for key, kind in _SETS_OF:
        value = rule.get(key)
        if isinstance(value, dict):
            result[key] = dict(value, **{"not": sorted(renamed[kind].get(name, name) for name in value["not"])})
        elif value is not None:
            result[key] = sorted(renamed[kind].get(name, name) for name in value)
    return result
