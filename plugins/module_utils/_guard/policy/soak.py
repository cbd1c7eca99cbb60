# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy tried without effect: what is in force goes on enforcing, and what is new beside it only reports.

Not the whole policy in audit mode: that would take the old rules out of force while the new ones are watched."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

KINDS = ("subjects", "resources", "destinations")
LONGEST = 95  # bytes of a name, see the policy's schema
_MARK = " (new)"


class Soak(NamedTuple):
    document: dict[str, Any]
    rules: list[str]  # the names, in that document, of the rules that report now and will enforce


def document(before: dict[str, Any] | None, after: dict[str, Any]) -> Soak:
    """``before``: the document in force, or None; ``after``: the one to come. Rules and sets of ``before`` stay as they
    are, under their names, so that counters and labels go on. A rule of ``after`` that ``before`` does not have in the
    same words and with the same sets is added in audit mode; one that is in audit mode anyway is added as it is."""
    old: dict[str, Any] = before or {"rules": []}
    renamed = {kind: _renamed(old.get(kind) or {}, after.get(kind) or {}) for kind in ("resources", "destinations")}
    new = {kind: dict(after.get(kind) or {}) for kind in KINDS}
    new["subjects"] = {name: _labels(body, renamed["resources"]) for name, body in new["subjects"].items()}
    renamed["subjects"] = _renamed(old.get("subjects") or {}, new["subjects"])
    result = dict(after)
    for key in ("mode", "boot"):
        if before:
            result[key] = old[key]
    for kind in KINDS:
        sets = dict(old.get(kind) or {}, **{renamed[kind][name]: body for name, body in new[kind].items()})
        result[kind] = dict(sorted(sets.items()))
    taken = {rule["name"]: rule for rule in old["rules"]}
    rules, reporting = list(old["rules"]), []
    for rule in after["rules"]:
        candidate = _with_sets(rule, renamed)
        if taken.get(rule["name"]) == candidate and (not before or old.get("mode") == after.get("mode")):
            continue
        name = _free(rule["name"], taken)
        rules.append(dict(candidate, name=name, mode="audit"))
        if rule.get("mode", after.get("mode")) != "audit":
            reporting.append(name)
    result["rules"] = sorted(rules, key=lambda rule: rule["name"])
    return Soak(result, sorted(reporting))


def _renamed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """What each new set is called beside the old ones: its own name, unless that stands for something else there."""
    return {name: name if old.get(name, body) == body else _free(name, old) for name, body in new.items()}


def _free(name: str, taken: dict[str, Any]) -> str:
    if name not in taken:
        return name
    marked = name + _MARK
    if len(marked.encode()) > LONGEST or marked in taken:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        cut = name.encode()[: LONGEST - len(_MARK) - 9].decode("utf-8", "ignore")
        marked = f"{cut} {digest}{_MARK}"
    return marked


def _labels(body: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    if "has_read" not in body:
        return body
    return dict(body, has_read=sorted(renamed.get(name, name) for name in body["has_read"]))


def _with_sets(rule: dict[str, Any], renamed: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The rule with the names that its sets have in the soak."""
    found = dict(rule)
    for key, kind in (
        ("subjects", "subjects"),
        ("except", "subjects"),
        ("resources", "resources"),
        ("destinations", "destinations"),
    ):
        value = rule.get(key)
        if isinstance(value, dict):
            found[key] = dict(value, **{"not": sorted(renamed[kind].get(name, name) for name in value["not"])})
        elif value is not None:
            found[key] = sorted(renamed[kind].get(name, name) for name in value)
    return found
