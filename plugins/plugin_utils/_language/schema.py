# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fragment against the JSON Schema, every error at once. Private to this collection."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import json
import os
from typing import Any, Iterable

import jsonschema
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions

from .problems import Problem, did_you_mean
from .render import Fragment

SCHEMA = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))),
    "schemas",
    "policy.schema.json",
)
_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
}

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
    with open(SCHEMA, encoding="utf-8") as file:
        return json.load(file)


@functools.lru_cache(maxsize=None)
def _validator():
    return jsonschema.Draft202012Validator(schema(), format_checker=formats)


def validate(fragment: Fragment) -> list[Problem]:
    problems: list[Problem] = []
    for error in _validator().iter_errors(fragment.data):
        problems.extend(explained(fragment, error))
    if not problems:
        problems.extend(_combinations(fragment))
    return problems


def explained(fragment: Fragment, error) -> Iterable[Problem]:
    """An error of jsonschema's, with its place in the fragment."""
    path: tuple[object, ...] = tuple(error.absolute_path)
    kind, wanted, found = error.validator, error.validator_value, error.instance
    if "propertyNames" in error.absolute_schema_path:
        path += (found,)
    if kind in ("additionalProperties", "unevaluatedProperties") and isinstance(found, dict):
        known = _known(error.schema)
        for key in found:
            if key not in known:
                yield fragment.problem((*path, key), f"unknown key '{key}'", _either(known), did_you_mean(key, known))
            elif key != "not" and "not" in found and "not" in known:
                yield fragment.problem((*path, key), f"'{key}' can't stand beside 'not'", "", "Leave one of them out")
    elif kind == "required":
        for key in wanted:
            if key not in found and error.message.startswith(f"'{key}'"):
                yield fragment.problem(path, f"'{key}' is missing", "", f"Add `{key}:`")
    elif kind == "dependentRequired":
        for key in (need for present in wanted if present in found for need in wanted[present] if need not in found):
            yield fragment.problem(path, f"'{key}' is missing", "", f"Add `{key}:`")
    elif kind == "anyOf":  # which of its own keys a set has to have
        if set(found) <= {"optional", "extensible"}:
            keys = (key for each in wanted for key in each["required"])
            yield fragment.problem(path, "it selects nothing by itself", f"at least one of {_either(keys)}")
    elif kind == "enum":
        shown = repr(found) if isinstance(found, str) else _short(found)
        expected = _either(wanted) if len(wanted) <= 20 else f"one of the {len(wanted)} that the documentation lists"
        yield fragment.problem(path, f"found {shown}", expected, did_you_mean(found, map(str, wanted)))
    elif kind == "const":
        yield fragment.problem(path, f"found {found!r}", repr(wanted))
    elif kind == "type":
        kinds = [wanted] if isinstance(wanted, str) else wanted
        yield fragment.problem(path, f"found {_short(found)}", " or ".join(_KINDS[each] for each in kinds))
    elif kind == "format":
        what = {
            "cidr": "a network such as 10.0.0.0/8 without host bits",
            "ip": "an IPv4 or IPv6 address",
            "date": "a date such as 2027-03-31",
        }[wanted]
        yield fragment.problem(path, f"found {found!r}", what)
    elif kind == "not" and "required" in wanted:
        key = wanted["required"][0]
        yield fragment.problem((*path, key), f"'{key}' with action '{found['action']}'", "", "Leave one of them out")
    elif kind in ("pattern", "not"):
        yield fragment.problem(path, f"found {_short(found)}", _described(error))
    elif kind in ("minimum", "maximum"):
        yield fragment.problem(path, f"found {found}", f"{'at least' if kind == 'minimum' else 'at most'} {wanted}")
    elif kind == "maxLength":
        yield fragment.problem(path, f"{len(found)} characters", f"at most {wanted}", "Make it shorter")
    elif kind == "maxItems":
        yield fragment.problem(
            path,
            f"{len(found)} of {path[-1]}",
            f"at most {wanted} on a host",
            "Put what several rules say into one, with sets",
        )
    elif kind == "maxProperties":
        yield fragment.problem(
            path,
            f"{len(found)} sets",
            f"at most {wanted} of a kind on a host",
            "Put sets that always stand together into one",
        )
    elif kind in ("minItems", "minProperties", "minLength"):
        what = "text" if kind == "minLength" else "at least one entry"
        yield fragment.problem(path, "it is empty", what, "Leave it out, or say what is in it")
    elif kind == "uniqueItems":
        yield fragment.problem(path, "an entry stands twice", "", "Keep one of them")
    else:
        yield fragment.problem(path, f"found {_short(found)}", f"{kind} {wanted}")


def _described(error) -> str:
    if error.validator == "not" and "enum" in error.validator_value:
        return "a name that is not built in"
    if error.validator == "not":
        return "a name that does not begin with 'exfil-guard '"
    text = error.schema.get("description") or f"text that matches {error.validator_value}"
    return (text[:1].lower() + text[1:]).rstrip(".")


def _known(part: dict[str, Any]) -> list[str]:
    known = set(part.get("properties", ()))
    if "$ref" in part:
        known.update(_known(schema()["$defs"][part["$ref"].rsplit("/", 1)[1]]))
    for key in ("then", "else"):
        if key in part:
            known.update(_known(part[key]))
    return sorted(known)


def _combinations(fragment: Fragment) -> Iterable[Problem]:
    """What the schema does not say: objects go with actions; ends of ranges; lengths in bytes."""
    for number, rule in enumerate(fragment.data.get("rules") or ()):
        path = ("rules", number)
        for acting, key in ((actions.RESOURCES, "resources"), (actions.DESTINATIONS, "destinations")):
            wanted = [action for action in rule["deny"] if action in acting]
            if wanted and key not in rule:
                yield fragment.problem(
                    path,
                    f"'{key}' is missing, which {', '.join(wanted)} needs",
                    "",
                    f"Add `{key}:`; {{not: []}} is everything",
                )
            if key in rule and not wanted:
                yield fragment.problem(
                    (*path, key),
                    f"'{key}' without an action for it",
                    _either(acting),
                    "Add one to `deny`, or leave it out",
                )
        if len(rule["name"].encode()) > 95:
            yield fragment.problem(
                (*path, "name"), f"{len(rule['name'].encode())} bytes of UTF-8", "at most 95", "Make it shorter"
            )
        if isinstance(rule.get("destinations"), dict):
            yield from _ranges(fragment, (*path, "destinations"), rule["destinations"])
    for name, found in fragment.data.get("destinations", {}).items():
        yield from _ranges(fragment, ("destinations", name), found)


def _ranges(fragment: Fragment, path: tuple[object, ...], destination: dict[str, Any]) -> Iterable[Problem]:
    for key in sorted(set(destination) & {"cidrs", "names", "ports", "protocols"}) if "vsock" in destination else ():
        yield fragment.problem((*path, key), f"'{key}' can't stand beside 'vsock'", "", "Make two sets of it")
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
