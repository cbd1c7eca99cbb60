# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validates a fragment against the JSON Schema and reports all errors together. Private to this collection."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import json
import os
from typing import Any, Callable, Iterable, NamedTuple

import jsonschema
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions

from .problems import Problem, did_you_mean
from .render import Fragment

SCHEMA = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))),
    "schemas",
    "policy.schema.json",
)
_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
}
_FORMATS = {
    "cidr": "a network such as 10.0.0.0/8 without host bits",
    "ip": "an IPv4 or IPv6 address",
    "date": "a date such as 2027-03-31",
}

NAME_BYTES = 95  # of a rule
REMOVE_ONE = "Remove one of them"
MERGE_RULES = "Merge rules that differ only in their sets"
MERGE_SETS = "Merge sets that are always used together"

formats = jsonschema.FormatChecker(())


@formats.checks("cidr", ValueError)
def _cidr(value: object) -> bool:
    return not isinstance(value, str) or ("%" not in value and bool(ipaddress.ip_network(value)))


@formats.checks("ip", ValueError)
def _ip(value: object) -> bool:
    return not isinstance(value, str) or ("%" not in value and bool(ipaddress.ip_address(value)))


@formats.checks("date", ValueError)
def _date(value: object) -> bool:
    return not isinstance(value, str) or (len(value) == 10 and bool(datetime.date.fromisoformat(value)))


@functools.lru_cache(maxsize=None)
def schema() -> dict[str, Any]:
    """The JSON Schema of a fragment."""
    with open(SCHEMA, encoding="utf-8") as file:
        loaded: dict[str, Any] = json.load(file)
    return loaded


@functools.lru_cache(maxsize=None)
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema(), format_checker=formats)


def validate(fragment: Fragment) -> list[Problem]:
    """Every problem of ``fragment`` that the schema, or a rule that a schema cannot express, finds."""
    problems: list[Problem] = []
    for error in _validator().iter_errors(fragment.data):
        problems.extend(explain(fragment, error))
    if not problems:
        problems.extend(_combinations(fragment))
    return problems


# ---- errors of jsonschema as problems --------------------------------------------------------------------------------


class _Violation(NamedTuple):
    """A violated keyword of the schema. ``required``: the keyword's value in the schema; ``found``: the value in the
    fragment."""

    fragment: Fragment
    path: tuple[object, ...]
    keyword: str
    required: Any
    found: Any
    error: jsonschema.ValidationError

    def problem(self, found: str, expected: str = "", remedy: str = "") -> Problem:
        return self.fragment.problem(self.path, found, expected, remedy)

    def problem_of(self, key: object, found: str, expected: str = "", remedy: str = "") -> Problem:
        return self.fragment.problem((*self.path, key), found, expected, remedy)


def explain(fragment: Fragment, error: jsonschema.ValidationError) -> Iterable[Problem]:
    """The problems that an error of jsonschema stands for, with their lines in the fragment."""
    path: tuple[object, ...] = tuple(error.absolute_path)
    keyword = str(error.validator)
    if "propertyNames" in error.absolute_schema_path:
        path += (error.instance,)
    violation = _Violation(fragment, path, keyword, error.validator_value, error.instance, error)
    explanation = _EXPLANATIONS.get(keyword, _other)
    return explanation(violation)


def _unknown_keys(violation: _Violation) -> Iterable[Problem]:
    part: Any = violation.error.schema
    found, allowed = violation.found, _allowed_keys(part)
    if not isinstance(found, dict):
        yield from _other(violation)
        return
    for key in found:
        if key not in allowed:
            yield violation.problem_of(key, f"unknown key '{key}'", _either(allowed), did_you_mean(key, allowed))
        elif key != "not" and "not" in found and "not" in allowed:
            yield violation.problem_of(key, f"'{key}' cannot be combined with 'not'", "", REMOVE_ONE)


def _missing_keys(violation: _Violation) -> Iterable[Problem]:
    for key in violation.required:
        if key not in violation.found and violation.error.message.startswith(f"'{key}'"):
            yield violation.problem(f"'{key}' is missing", "", f"Add `{key}:`")


def _missing_dependents(violation: _Violation) -> Iterable[Problem]:
    for present, dependents in violation.required.items():
        if present in violation.found:
            for key in dependents:
                if key not in violation.found:
                    yield violation.problem(f"'{key}' is missing", "", f"Add `{key}:`")


def _no_selecting_key(violation: _Violation) -> Iterable[Problem]:
    """`anyOf` lists the keys of which a set must have one."""
    if set(violation.found) <= {"optional", "extensible"}:
        keys = (key for alternative in violation.required for key in alternative["required"])
        yield violation.problem("the set selects nothing", f"at least one of {_either(keys)}")


def _not_in_enum(violation: _Violation) -> Iterable[Problem]:
    found, allowed = violation.found, violation.required
    shown = repr(found) if isinstance(found, str) else _short(found)
    expected = _either(allowed) if len(allowed) <= 20 else "one of the documented values"
    yield violation.problem(f"found {shown}", expected, did_you_mean(found, map(str, allowed)))


def _not_const(violation: _Violation) -> Iterable[Problem]:
    yield violation.problem(f"found {violation.found!r}", repr(violation.required))


def _wrong_type(violation: _Violation) -> Iterable[Problem]:
    types = [violation.required] if isinstance(violation.required, str) else violation.required
    yield violation.problem(f"found {_short(violation.found)}", " or ".join(_TYPES[name] for name in types))


def _wrong_format(violation: _Violation) -> Iterable[Problem]:
    yield violation.problem(f"found {violation.found!r}", _FORMATS[violation.required])


def _forbidden(violation: _Violation) -> Iterable[Problem]:
    if "required" not in violation.required:
        yield from _no_match(violation)
        return
    key = violation.required["required"][0]
    action = violation.found["action"]
    yield violation.problem_of(key, f"'{key}' cannot be combined with action '{action}'", "", REMOVE_ONE)


def _no_match(violation: _Violation) -> Iterable[Problem]:
    yield violation.problem(f"found {_short(violation.found)}", _description(violation.error))


def _out_of_range(violation: _Violation) -> Iterable[Problem]:
    bound = "at least" if violation.keyword == "minimum" else "at most"
    yield violation.problem(f"found {violation.found}", f"{bound} {violation.required}")


def _too_long(violation: _Violation) -> Iterable[Problem]:
    yield violation.problem(f"{len(violation.found)} characters", f"at most {violation.required}", "Shorten it")


def _too_many_items(violation: _Violation) -> Iterable[Problem]:
    found = f"{len(violation.found)} {violation.path[-1]}"
    yield violation.problem(found, f"at most {violation.required} on a host", MERGE_RULES)


def _too_many_sets(violation: _Violation) -> Iterable[Problem]:
    found = f"{len(violation.found)} sets"
    yield violation.problem(found, f"at most {violation.required} of a kind on a host", MERGE_SETS)


def _empty(violation: _Violation) -> Iterable[Problem]:
    expected = "text" if violation.keyword == "minLength" else "at least one entry"
    yield violation.problem("it is empty", expected, "Remove it or give it a value")


def _duplicate(violation: _Violation) -> Iterable[Problem]:
    yield violation.problem("duplicate entry", "", REMOVE_ONE)


def _other(violation: _Violation) -> Iterable[Problem]:
    yield violation.problem(f"found {_short(violation.found)}", f"{violation.keyword} {violation.required}")


_EXPLANATIONS: dict[str, Callable[[_Violation], Iterable[Problem]]] = {
    "additionalProperties": _unknown_keys,
    "unevaluatedProperties": _unknown_keys,
    "required": _missing_keys,
    "dependentRequired": _missing_dependents,
    "anyOf": _no_selecting_key,
    "enum": _not_in_enum,
    "const": _not_const,
    "type": _wrong_type,
    "format": _wrong_format,
    "not": _forbidden,
    "pattern": _no_match,
    "minimum": _out_of_range,
    "maximum": _out_of_range,
    "maxLength": _too_long,
    "maxItems": _too_many_items,
    "maxProperties": _too_many_sets,
    "minItems": _empty,
    "minProperties": _empty,
    "minLength": _empty,
    "uniqueItems": _duplicate,
}


def _description(error: jsonschema.ValidationError) -> str:
    violated: Any = error.validator_value
    if error.validator == "not" and "enum" in violated:
        return "a name that is not built in"
    if error.validator == "not":
        return "a name that does not begin with 'exfil-guard '"
    part: Any = error.schema
    text = str(part.get("description") or f"text that matches {violated}")
    return (text[:1].lower() + text[1:]).rstrip(".")


def _allowed_keys(part: dict[str, Any]) -> list[str]:
    keys = set(part.get("properties", ()))
    if "$ref" in part:
        keys.update(_allowed_keys(schema()["$defs"][part["$ref"].rsplit("/", 1)[1]]))
    for key in ("then", "else"):
        if key in part:
            keys.update(_allowed_keys(part[key]))
    return sorted(keys)


# ---- rules that the schema does not express --------------------------------------------------------------------------


def _combinations(fragment: Fragment) -> Iterable[Problem]:
    """Checks that rules have objects that fit their actions, the bounds of ranges, and lengths in bytes."""
    for number, rule in enumerate(fragment.data.get("rules") or ()):
        path = ("rules", number)
        yield from _objects(fragment, path, rule)
        name_bytes = len(rule["name"].encode())
        if name_bytes > NAME_BYTES:
            yield fragment.problem(
                (*path, "name"), f"{name_bytes} bytes of UTF-8", f"at most {NAME_BYTES}", "Shorten it"
            )
        if isinstance(rule.get("destinations"), dict):
            yield from _ranges(fragment, (*path, "destinations"), rule["destinations"])
    for name, destination in fragment.data.get("destinations", {}).items():
        yield from _ranges(fragment, ("destinations", name), destination)


def _objects(fragment: Fragment, path: tuple[object, ...], rule: dict[str, Any]) -> Iterable[Problem]:
    for accepted, key in ((actions.RESOURCES, "resources"), (actions.DESTINATIONS, "destinations")):
        requiring = [action for action in rule["deny"] if action in accepted]
        if requiring and key not in rule:
            yield fragment.problem(
                path,
                f"'{key}' is missing and required by {', '.join(requiring)}",
                "",
                f"Add `{key}:`; {{not: []}} selects everything",
            )
        if key in rule and not requiring:
            yield fragment.problem(
                (*path, key),
                f"'{key}' without an action that uses it",
                _either(accepted),
                f"Add one to `deny` or remove `{key}`",
            )


def _ranges(fragment: Fragment, path: tuple[object, ...], destination: dict[str, Any]) -> Iterable[Problem]:
    for key in sorted(set(destination) & {"cidrs", "names", "ports", "protocols"}) if "vsock" in destination else ():
        yield fragment.problem((*path, key), f"'{key}' cannot be combined with 'vsock'", "", "Use two sets")
    for index, port in enumerate(destination.get("ports") or ()):
        if isinstance(port, str):
            first, last = map(int, port.split("-"))
            if not first <= last <= 65535:
                yield fragment.problem((*path, "ports", index), f"found {port!r}", "first-last, at most 65535")


def _either(values: Iterable[object]) -> str:
    shown = [str(value) for value in values]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " or " + shown[-1]


def _short(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
