# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Merges the fragments of all groups of a host into one document. Their order does not matter. Private to this
collection."""

from __future__ import annotations

from typing import Any, Iterable, NamedTuple

from .document import BUILT_IN, RULES, SETS, canonical_rule, canonical_set
from .problems import Problem, did_you_mean
from .render import Fragment
from .schema import MERGE_RULES, MERGE_SETS

KINDS = ("subjects", "resources", "destinations")
WHO = ("users", "groups", "services")  # one of these must select an exception


def merge(fragments: Iterable[Fragment]) -> tuple[dict[str, Any], list[Problem]]:
    """The merged document, and the conflicts between the fragments."""
    ordered = sorted(fragments, key=lambda fragment: fragment.file)
    problems: list[Problem] = []
    document: dict[str, Any] = {
        "policy": 1,
        "mode": _agreed(ordered, "mode", "enforce", problems),
        "boot": _agreed(ordered, "boot", "best-effort", problems),
    }
    extensible: dict[str, set[str]] = {}
    for kind in KINDS:
        document[kind], extensible[kind] = _sets(ordered, kind, problems)
    rules = _rules(ordered, document, problems)
    _labels(ordered, document, problems)
    for name in sorted(rules):
        _names(rules[name], document, extensible, problems)
    document["rules"] = [rules[name].body for name in sorted(rules)]
    document["assertions"] = [assertion for fragment in ordered for assertion in fragment.data.get("assertions") or ()]
    document["assertions"].sort(key=lambda assertion: sorted((key, str(value)) for key, value in assertion.items()))
    _limits(ordered, document, problems)
    return document, problems


def _agreed(ordered: list[Fragment], key: str, default: str, problems: list[Problem]) -> str:
    """The one value that the fragments have for ``key``."""
    first = None
    for fragment in ordered:
        if key not in fragment.data:
            continue
        if first is None:
            first = fragment
        elif fragment.data[key] != first.data[key]:
            problems.append(
                fragment.problem(
                    (key,),
                    f"'{fragment.data[key]}', but {first.file} has '{first.data[key]}'",
                    "one value per host",
                    "Set it in one fragment only",
                )
            )
    return first.data[key] if first else default


def _sets(ordered: list[Fragment], kind: str, problems: list[Problem]) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """The sets of ``kind`` by name, and the names of those that are extensible."""
    sets: dict[str, tuple[Fragment, dict[str, Any]]] = {}
    extensible = set()
    for fragment in ordered:
        for name, definition in sorted((fragment.data.get(kind) or {}).items()):
            body = canonical_set(definition)
            if body.get("extensible"):
                extensible.add(name)
            if name in sets:
                other, before = sets[name]
                sets[name] = other, _joined(fragment, (kind, name), body, other, before, problems)
            else:
                sets[name] = fragment, body
    return {name: body for name, (_fragment, body) in sets.items()}, extensible


def _joined(
    fragment: Fragment,
    path: tuple[str, str],
    body: dict[str, Any],
    other: Fragment,
    before: dict[str, Any],
    problems: list[Problem],
) -> dict[str, Any]:
    """The set that two fragments define: ``before`` in ``other`` and ``body`` in ``fragment``."""
    if before == body and not body.get("extensible"):
        return before
    name = path[1]
    if not (before.get("extensible") and body.get("extensible")):
        problems.append(
            fragment.problem(
                path,
                f"'{name}' differs from the one in {other.file}",
                "the same set",
                "Rename it, or set `extensible: true` in both",
            )
        )
        return before
    if set(before) != set(body):
        problems.append(
            fragment.problem(
                path,
                f"'{name}' and the set in {other.file} have different keys",
                "the same keys",
                "Keys are combined with AND, so another key would shrink the set",
            )
        )
        return before
    return canonical_set({key: before[key] + body[key] if isinstance(body[key], list) else body[key] for key in body})


class _Rule(NamedTuple):
    """A rule and its place: the fragment and the rule's index there."""

    fragment: Fragment
    number: int
    body: dict[str, Any]

    def problem(self, path: tuple[str, ...], found: str, expected: str = "", remedy: str = "") -> Problem:
        return self.fragment.problem(("rules", self.number, *path), found, expected, remedy)


def _rules(ordered: list[Fragment], document: dict[str, Any], problems: list[Problem]) -> dict[str, _Rule]:
    """The rules by name. Adds sets that a rule defines inline to ``document``."""
    rules: dict[str, _Rule] = {}
    for fragment in ordered:
        for number, definition in enumerate(fragment.data.get("rules") or ()):
            rule = _Rule(fragment, number, canonical_rule(definition))
            name = rule.body["name"]
            if name not in rules:
                rules[name] = rule
            elif rules[name].body != rule.body:
                problems.append(
                    rule.problem(
                        (),
                        f"rule '{name}' differs from the one in {rules[name].fragment.file}",
                        "the same rule",
                        "Rename it",
                    )
                )
    for name, rule in rules.items():
        for kind in KINDS:
            inline = rule.body.get(kind)
            if isinstance(inline, dict) and "not" not in inline:
                set_name = f"{name} (inline)"
                document[kind][set_name] = canonical_set(inline)
                rule.body[kind] = [set_name]
    return rules


def _names(rule: _Rule, document: dict[str, Any], extensible: dict[str, set[str]], problems: list[Problem]) -> None:
    """Checks the sets that the rule names."""
    accepted = rule.body.pop("accepts_extensible", ())
    weakening = set(rule.body.get("except", ()))
    for key in ("subjects", "except", "resources", "destinations"):
        value = rule.body.get(key)
        if value is None:
            continue
        negated = isinstance(value, dict)
        names = value["not"] if negated else value
        weakening.update(names if negated else ())
        kind = "subjects" if key == "except" else key
        for name in names:
            if kind == "destinations" and name in BUILT_IN:
                document[kind].setdefault(name, BUILT_IN[name])
            path = (key, "not") if negated else (key,)
            weakens = (negated or key == "except") and name in extensible[kind] and name not in accepted
            problems.extend(_name(rule, path, name, document[kind], weakens))
    problems.extend(
        rule.problem(
            ("accepts_extensible",),
            f"this rule has no '{name}' under `not` or `except`",
            "",
            did_you_mean(name, weakening) or "Remove it",
        )
        for name in accepted
        if name not in weakening
    )


def _name(
    rule: _Rule, path: tuple[str, ...], name: str, sets: dict[str, dict[str, Any]], weakens: bool
) -> Iterable[Problem]:
    """Checks one set that the rule names. ``weakens``: another fragment could weaken the rule through it."""
    key = path[0]
    if name not in sets:
        kind = "subjects" if key == "except" else key
        candidates = [*sets, *(BUILT_IN if kind == "destinations" else ())]
        yield rule.problem(path, f"no set '{name}' under {kind}", "", did_you_mean(name, candidates) or "Define it")
    elif weakens:
        yield rule.problem(
            path,
            f"'{name}' is extensible, so another fragment could weaken this rule",
            "a set that is not extensible",
            f"Add `accepts_extensible: [{name}]` to accept this",
        )
    elif key == "except" and "has_read" in sets[name]:
        yield rule.problem(
            path,
            f"'{name}' excepts tasks because they have read something",
            "a set without `has_read`",
            "Reading must not lift a rule: select the excepted subjects in another way",
        )
    elif key == "except" and "login_users" in sets[name] and not set(WHO) & set(sets[name]):
        yield rule.problem(
            path,
            f"'{name}' excepts every task that has one of its `login_users`",
            f"also one of {', '.join(WHO)}",
            "A process without a login user can set any: also select the excepted users, groups or services",
        )
    elif key == "except" and not set(WHO) & set(sets[name]):
        yield rule.problem(
            path,
            f"'{name}' excepts every task that runs one of its `executables`",
            f"also one of {', '.join(WHO)}",
            "Programs can be misused: also select the excepted users, groups or services",
        )


def _labels(ordered: list[Fragment], document: dict[str, Any], problems: list[Problem]) -> None:
    """Checks that the names under `has_read` are resource sets."""
    resources = document["resources"]
    for fragment in ordered:
        places: list[tuple[tuple[object, ...], dict[str, Any]]] = [
            (("subjects", name), body) for name, body in sorted((fragment.data.get("subjects") or {}).items())
        ]
        places += [
            (("rules", number, "subjects"), rule["subjects"])
            for number, rule in enumerate(fragment.data.get("rules") or ())
            if isinstance(rule.get("subjects"), dict)
        ]
        for path, body in places:
            for name in body.get("has_read") or ():
                if name not in resources:
                    problems.append(
                        fragment.problem(
                            (*path, "has_read"),
                            f"no set '{name}' under resources",
                            "",
                            did_you_mean(name, list(resources)) or "Define it",
                        )
                    )


def _limits(ordered: list[Fragment], document: dict[str, Any], problems: list[Problem]) -> None:
    """Checks the numbers of rules and sets."""
    file = ", ".join(fragment.file for fragment in ordered)
    if len(document["rules"]) > RULES:
        problems.append(
            Problem(file, None, "$.rules", f"{len(document['rules'])} rules", f"at most {RULES} on a host", MERGE_RULES)
        )
    for kind in KINDS:
        if len(document[kind]) > SETS:
            problems.append(
                Problem(
                    file,
                    None,
                    f"$.{kind}",
                    f"{len(document[kind])} sets",
                    f"at most {SETS} of a kind on a host",
                    MERGE_SETS,
                )
            )
