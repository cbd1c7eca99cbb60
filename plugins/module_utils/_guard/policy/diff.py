# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changes between two generations, as an operator reads it: rules, sets, paths and networks by name."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

LINES = 200
_KINDS = ("subjects", "resources", "destinations")


class Plan(NamedTuple):
    lines: list[str]
    counts: dict[str, int]  # rules added, removed, changed; sets_added, sets_removed, sets_changed


def _text(value: Any) -> str:
    """One value on one line; nothing in it moves the cursor."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _selection(value: Any) -> str:
    if isinstance(value, dict):
        return "not " + (_values(value.get("not") or ()) or "(nothing: everything is covered)")
    return _values(value)


def _values(value: Any) -> str:
    return ", ".join(_text(each) for each in value) if isinstance(value, (list, tuple)) else _text(value)


def _rule_line(rule: dict[str, Any]) -> str:
    parts = ["deny {0}".format(", ".join(rule.get("deny", ())))]
    for key, word in (("resources", "of"), ("destinations", "to")):
        if key in rule:
            parts.append(f"{word} {_selection(rule[key])}")
    parts.append("for {0}".format(_values(rule["subjects"])) if rule.get("subjects") is not None else "for everyone")
    if rule.get("except"):
        parts.append("except {0}".format(_values(rule["except"])))
    if "mode" in rule:
        parts.append("({0})".format(rule["mode"]))
    if "expires" in rule:
        parts.append("until {0}".format(rule["expires"]))
    return " ".join(parts)


def _compare(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The keys of a rule or set that differ; lists value by value."""
    lines = []
    for key in sorted(set(before) | set(after)):
        old, new = before.get(key), after.get(key)
        if key == "name" or old == new:
            continue
        negated = isinstance(old, dict) or isinstance(new, dict)
        if isinstance(old, list) and isinstance(new, list):
            lines.extend(f"    - {key}: {_text(each)}" for each in old if each not in new)
            lines.extend(f"    + {key}: {_text(each)}" for each in new if each not in old)
        else:
            if old is not None:
                lines.append(f"    - {key}: {_selection(old) if negated else _values(old)}")
            if new is not None:
                lines.append(f"    + {key}: {_selection(new) if negated else _values(new)}")
    return lines


def _resolved_changes(before: dict[str, Any], after: dict[str, Any], document_same: Any) -> list[str]:
    """The same words that mean something else on this host now: ids, units, devices, addresses of host names."""
    lines = []
    for kind in _KINDS:
        old_sets, new_sets = before.get(kind) or {}, after.get(kind) or {}
        for name in sorted(set(old_sets) & set(new_sets)):
            if old_sets[name] != new_sets[name] and document_same(kind, name):
                keys = []
                if isinstance(new_sets[name], dict):
                    keys = [key for key in new_sets[name] if old_sets[name].get(key) != new_sets[name][key]]
                lines.append(
                    "~ {0} {1}: means something else on this host now{2}".format(
                        kind[:-1], _text(name), " ({0})".format(", ".join(keys)) if keys else ""
                    )
                )
    return lines


def plan(before: dict[str, Any] | None, after: dict[str, Any] | None) -> Plan:
    """``before`` and ``after``: stored generations, or None for no policy."""
    old = (before or {}).get("document") or {}
    new = (after or {}).get("document") or {}
    counts = {"added": 0, "removed": 0, "changed": 0, "sets_added": 0, "sets_removed": 0, "sets_changed": 0}
    lines: list[str] = []
    for key in ("mode", "boot"):
        if old.get(key) != new.get(key):
            if key in old and key in new:
                lines.append(f"~ {key}: {_text(old[key])} -> {_text(new[key])}")
            else:
                lines.append("{0} {1}: {2}".format("+" if key in new else "-", key, _text(new.get(key, old.get(key)))))
    old_rules = {rule["name"]: rule for rule in old.get("rules") or ()}
    new_rules = {rule["name"]: rule for rule in new.get("rules") or ()}
    for name in sorted(set(old_rules) | set(new_rules)):
        if name not in old_rules:
            counts["added"] += 1
            lines.append(f"+ rule {_text(name)}: {_rule_line(new_rules[name])}")
        elif name not in new_rules:
            counts["removed"] += 1
            lines.append(f"- rule {_text(name)}: {_rule_line(old_rules[name])}")
        elif old_rules[name] != new_rules[name]:
            counts["changed"] += 1
            lines.append(f"~ rule {_text(name)}")
            lines.extend(_compare(old_rules[name], new_rules[name]))
    for kind in _KINDS:
        old_sets, new_sets = old.get(kind) or {}, new.get(kind) or {}
        for name in sorted(set(old_sets) | set(new_sets)):
            if old_sets.get(name) == new_sets.get(name):
                continue
            change, sign = (
                ("added", "+")
                if name not in old_sets
                else ("removed", "-")
                if name not in new_sets
                else ("changed", "~")
            )
            counts["sets_" + change] += 1
            lines.append(f"{sign} {kind[:-1]} {_text(name)}")
            lines.extend(_compare(old_sets.get(name, {}), new_sets.get(name, {})))
    if before and after:
        lines.extend(
            _resolved_changes(
                before.get("resolved") or {},
                after.get("resolved") or {},
                lambda kind, name: (old.get(kind) or {}).get(name) == (new.get(kind) or {}).get(name),
            )
        )
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"... and {len(lines) - LINES} more lines"]
    if lines:
        lines.append("rules: {added} added, {removed} removed, {changed} changed".format(**counts))
        digests = [(each or {}).get("digest") for each in (before, after)]
        if digests[0] != digests[1]:
            lines.append("policy: {0} -> {1}".format(*((each or "none")[:12] for each in digests)))
    return Plan(lines, counts)
