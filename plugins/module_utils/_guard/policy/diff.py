# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares two generations of the policy for an operator: rules, sets, paths and networks, by name."""

from __future__ import annotations

import json
from typing import Any, Callable, NamedTuple

LINES = 200
_KINDS = ("subjects", "resources", "destinations")


class Diff(NamedTuple):
    """``lines``: the changes, in words. ``counts``: rules added, removed, changed; sets_added, sets_removed,
    sets_changed."""

    lines: list[str]
    counts: dict[str, int]


def _text(value: object) -> str:
    """One value on one line, without characters that control a terminal."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _selection(value: object) -> str:
    if isinstance(value, dict):
        return "not " + (_values(value.get("not") or ()) or "(nothing: everything is covered)")
    return _values(value)


def _values(value: object) -> str:
    return ", ".join(_text(item) for item in value) if isinstance(value, (list, tuple)) else _text(value)


def _rule_line(rule: dict[str, Any]) -> str:
    parts = [f"deny {', '.join(rule.get('deny', ()))}"]
    for key, word in (("resources", "of"), ("destinations", "to")):
        if key in rule:
            parts.append(f"{word} {_selection(rule[key])}")
    parts.append(f"for {_values(rule['subjects'])}" if rule.get("subjects") is not None else "for everyone")
    if rule.get("except"):
        parts.append(f"except {_values(rule['except'])}")
    if "mode" in rule:
        parts.append(f"({rule['mode']})")
    if "expires" in rule:
        parts.append(f"until {rule['expires']}")
    return " ".join(parts)


def _key_lines(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The keys of a rule or set that differ. Lists are compared value by value."""
    lines: list[str] = []
    for key in sorted(set(before) | set(after)):
        old, new = before.get(key), after.get(key)
        if key == "name" or old == new:
            continue
        negated = isinstance(old, dict) or isinstance(new, dict)
        if isinstance(old, list) and isinstance(new, list):
            lines.extend(f"    - {key}: {_text(item)}" for item in old if item not in new)
            lines.extend(f"    + {key}: {_text(item)}" for item in new if item not in old)
        else:
            if old is not None:
                lines.append(f"    - {key}: {_selection(old) if negated else _values(old)}")
            if new is not None:
                lines.append(f"    + {key}: {_selection(new) if negated else _values(new)}")
    return lines


def _setting_lines(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    lines = []
    for key in ("mode", "boot"):
        if old.get(key) == new.get(key):
            continue
        if key in old and key in new:
            lines.append(f"~ {key}: {_text(old[key])} -> {_text(new[key])}")
        else:
            lines.append(f"{'+' if key in new else '-'} {key}: {_text(new.get(key, old.get(key)))}")
    return lines


def _rule_lines(old: dict[str, Any], new: dict[str, Any], counts: dict[str, int]) -> list[str]:
    lines = []
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
            lines.extend(_key_lines(old_rules[name], new_rules[name]))
    return lines


def _set_lines(old: dict[str, Any], new: dict[str, Any], counts: dict[str, int]) -> list[str]:
    lines = []
    for kind in _KINDS:
        old_sets, new_sets = old.get(kind) or {}, new.get(kind) or {}
        for name in sorted(set(old_sets) | set(new_sets)):
            if old_sets.get(name) == new_sets.get(name):
                continue
            change, sign = "changed", "~"
            if name not in old_sets:
                change, sign = "added", "+"
            elif name not in new_sets:
                change, sign = "removed", "-"
            counts["sets_" + change] += 1
            lines.append(f"{sign} {kind[:-1]} {_text(name)}")
            lines.extend(_key_lines(old_sets.get(name, {}), new_sets.get(name, {})))
    return lines


def _resolved_lines(
    before: dict[str, Any], after: dict[str, Any], document_same: Callable[[str, str], bool]
) -> list[str]:
    """Sets whose text is the same but whose meaning on this host differs: ids, units, devices, addresses."""
    lines = []
    for kind in _KINDS:
        old_sets, new_sets = before.get(kind) or {}, after.get(kind) or {}
        for name in sorted(set(old_sets) & set(new_sets)):
            if old_sets[name] != new_sets[name] and document_same(kind, name):
                keys: list[str] = []
                if isinstance(new_sets[name], dict):
                    keys = [key for key in new_sets[name] if old_sets[name].get(key) != new_sets[name][key]]
                suffix = f" ({', '.join(keys)})" if keys else ""
                lines.append(f"~ {kind[:-1]} {_text(name)}: means something else on this host now{suffix}")
    return lines


def compare(before: dict[str, Any] | None, after: dict[str, Any] | None) -> Diff:
    """``before`` and ``after``: stored generations, or None for no policy."""
    old: dict[str, Any] = (before or {}).get("document") or {}
    new: dict[str, Any] = (after or {}).get("document") or {}
    counts = {"added": 0, "removed": 0, "changed": 0, "sets_added": 0, "sets_removed": 0, "sets_changed": 0}
    lines = _setting_lines(old, new) + _rule_lines(old, new, counts) + _set_lines(old, new, counts)
    if before and after:
        lines += _resolved_lines(
            before.get("resolved") or {},
            after.get("resolved") or {},
            lambda kind, name: (old.get(kind) or {}).get(name) == (new.get(kind) or {}).get(name),
        )
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"... and {len(lines) - LINES} more lines"]
    if lines:
        lines.append(f"rules: {counts['added']} added, {counts['removed']} removed, {counts['changed']} changed")
        old_digest, new_digest = ((stored or {}).get("digest") for stored in (before, after))
        if old_digest != new_digest:
            lines.append(f"policy: {(old_digest or 'none')[:12]} -> {(new_digest or 'none')[:12]}")
    return Diff(lines, counts)
