# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fragments of all the host's groups become one document; their order never matters. Private to this collection."""

from __future__ import annotations

from typing import Any, Iterable

from .document import BUILT_IN, RULES, SETS, canonical_rule, canonical_set
from .problems import Problem, did_you_mean
from .render import Fragment

KINDS = ("subjects", "resources", "destinations")
WHO = ("users", "login_users", "groups", "services")


def merge(fragments: Iterable[Fragment]) -> tuple[dict[str, Any], list[Problem]]:
    """The document, and what keeps the fragments from being one."""
    ordered = sorted(fragments, key=lambda fragment: fragment.file)
    problems: list[Problem] = []
    document: dict[str, Any] = {
        "policy": 1,
        "mode": _agreed(ordered, "mode", "enforce", problems),
        "boot": _agreed(ordered, "boot", "best-effort", problems),
    }
    extensible: dict[str, set] = {}
    for kind in KINDS:
        document[kind], extensible[kind] = _sets(ordered, kind, problems)
    rules = _rules(ordered, document, problems)
    _labels(ordered, document, problems)
    for _name, (fragment, number, rule) in sorted(rules.items()):
        _names(fragment, number, rule, document, extensible, problems)
    document["rules"] = [rules[name][2] for name in sorted(rules)]
    document["assertions"] = [assertion for fragment in ordered for assertion in fragment.data.get("assertions") or ()]
    document["assertions"].sort(key=lambda assertion: sorted((key, str(value)) for key, value in assertion.items()))
    _limits(ordered, document, problems)
    return document, problems


def _agreed(ordered: list[Fragment], key: str, default: str, problems: list[Problem]) -> str:
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
                    f"'{fragment.data[key]}', but {first.file} says '{first.data[key]}'",
                    "one value for a host",
                    "Say it in one fragment only",
                )
            )
    return first.data[key] if first else default


def _sets(ordered: list[Fragment], kind: str, problems: list[Problem]):
    found: dict[str, tuple[Fragment, dict[str, Any]]] = {}
    extensible = set()
    for fragment in ordered:
        for name, body in sorted((fragment.data.get(kind) or {}).items()):
            body = canonical_set(body)
            if body.get("extensible"):
                extensible.add(name)
            if name not in found:
                found[name] = fragment, body
                continue
            other, before = found[name]
            if before == body and not body.get("extensible"):
                continue
            where, both = (kind, name), bool(before.get("extensible") and body.get("extensible"))
            if not both:
                problems.append(
                    fragment.problem(
                        where,
                        f"'{name}' differs from the one in {other.file}",
                        "the same set",
                        "Give it another name, or say `extensible: true` in both",
                    )
                )
            elif set(before) != set(body):
                problems.append(
                    fragment.problem(
                        where,
                        f"'{name}' has other keys than in {other.file}",
                        "the same keys",
                        "Keys are joined by AND: another key would make the set smaller",
                    )
                )
            else:
                found[name] = (
                    other,
                    canonical_set(
                        {key: before[key] + body[key] if isinstance(body[key], list) else body[key] for key in body}
                    ),
                )
    return {name: body for name, (_fragment, body) in found.items()}, extensible


def _rules(ordered: list[Fragment], document: dict[str, Any], problems: list[Problem]):
    found: dict[str, tuple[Fragment, int, dict[str, Any]]] = {}
    for fragment in ordered:
        for number, body in enumerate(fragment.data.get("rules") or ()):
            rule = canonical_rule(body)
            if rule["name"] not in found:
                found[rule["name"]] = fragment, number, rule
                continue
            other, _number, before = found[rule["name"]]
            if before != rule:
                problems.append(
                    fragment.problem(
                        ("rules", number),
                        f"rule '{rule['name']}' differs from the one in {other.file}",
                        "the same rule",
                        "Give it another name",
                    )
                )
    for _fragment, _number, rule in found.values():
        for kind in KINDS:  # what is said in place becomes a set of that rule
            inline = rule.get(kind)
            if isinstance(inline, dict) and "not" not in inline:
                name = f"{rule['name']} (inline)"
                document[kind][name] = canonical_set(inline)
                rule[kind] = [name]
    return found


def _names(fragment, number, rule, document, extensible, problems) -> None:
    accepted = rule.pop("accepts_extensible", ())
    weakening = set(rule.get("except", ()))
    for key, kind in (
        ("subjects", "subjects"),
        ("except", "subjects"),
        ("resources", "resources"),
        ("destinations", "destinations"),
    ):
        value = rule.get(key)
        if value is None:
            continue
        negated = isinstance(value, dict)
        weakening.update(value["not"] if negated else ())
        known = document[kind]
        for name in value["not"] if negated else value:
            path = ("rules", number, key) + (("not",) if negated else ())
            if name not in known and not (kind == "destinations" and name in BUILT_IN):
                candidates = list(known) + (list(BUILT_IN) if kind == "destinations" else [])
                problems.append(
                    fragment.problem(
                        path, f"no set '{name}' under {kind}", "", did_you_mean(name, candidates) or "Define it"
                    )
                )
            elif name in extensible[kind] and (negated or key == "except") and name not in accepted:
                problems.append(
                    fragment.problem(
                        path,
                        f"'{name}' is extensible, so that another fragment could weaken this rule",
                        "a closed set",
                        f"Say `accepts_extensible: [{name}]` if that is meant",
                    )
                )
            elif key == "except" and "has_read" in known[name]:
                problems.append(
                    fragment.problem(
                        path,
                        f"'{name}' excepts whoever has read something",
                        "a set without `has_read`",
                        "Reading must not free anyone: say who is excepted",
                    )
                )
            elif key == "except" and not set(WHO) & set(known[name]):
                problems.append(
                    fragment.problem(
                        path,
                        f"'{name}' excepts whoever executes its `executables`",
                        f"one of {', '.join(WHO)} in it too",
                        "A program can be made to do what it was not written for: say who is excepted with it",
                    )
                )
            if name in BUILT_IN and kind == "destinations":
                known.setdefault(name, BUILT_IN[name])
    for name in accepted:
        if name not in weakening:
            problems.append(
                fragment.problem(
                    ("rules", number, "accepts_extensible"),
                    f"this rule has no '{name}' under `not` or `except`",
                    "",
                    did_you_mean(name, weakening) or "Leave it out",
                )
            )


def _labels(ordered: list[Fragment], document: dict[str, Any], problems: list[Problem]) -> None:
    """`has_read` names resource sets."""
    known = document["resources"]
    for fragment in ordered:
        places = [(("subjects", name), body) for name, body in sorted((fragment.data.get("subjects") or {}).items())]
        places += [
            (("rules", number, "subjects"), rule["subjects"])
            for number, rule in enumerate(fragment.data.get("rules") or ())
            if isinstance(rule.get("subjects"), dict)
        ]
        for path, body in places:
            for name in body.get("has_read") or ():
                if name not in known:
                    problems.append(
                        fragment.problem(
                            (*path, "has_read"),
                            f"no set '{name}' under resources",
                            "",
                            did_you_mean(name, list(known)) or "Define it",
                        )
                    )


def _limits(ordered: list[Fragment], document: dict[str, Any], problems: list[Problem]) -> None:
    file = ", ".join(fragment.file for fragment in ordered)
    if len(document["rules"]) > RULES:
        problems.append(
            Problem(
                file,
                None,
                "$.rules",
                f"{len(document['rules'])} rules",
                f"at most {RULES} on a host",
                "Put what several rules say into one, with sets",
            )
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
                    "Put sets that always stand together into one",
                )
            )
