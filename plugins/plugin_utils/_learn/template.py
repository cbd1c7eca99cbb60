# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a proposal as the text of a policy template. Names come from hosts and are quoted, so that they cannot become
Jinja, another line or another YAML value. Private to this collection."""

from __future__ import annotations

import re
from typing import Any, Iterable, Sequence

import yaml

from .observed import Source
from .proposer import Line, Options, Proposal

WIDTH = 120
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./@*-]*")
_ESCAPES = {'"': '\\"', "\\": "\\\\"}
AUDIT_BY_RULE = "learned_mode"
_EXPECT_DENY = '{{ "deny" if learned_mode == "enforce" else "audit" }}'


def scalar(value: object) -> str:
    """The value as YAML for a list or mapping in one line, without characters that Jinja interprets."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    return '"' + "".join(_character(char) for char in text) + '"'


def _character(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable() and char not in "{}":
        return char
    number = ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def comment(text: str, indent: str = "") -> str:
    """One line of a comment, without characters that Jinja interprets in comments, too."""
    shown = "".join(
        char
        if char.isprintable() and char not in "{}"
        else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))
        for char in text
    )
    return f"{indent}# {shown}".rstrip()


def to_text(proposal: Proposal, options: Options, sources: Iterable[Source], audit_by_rule: bool) -> str:
    """The text of the template. ``audit_by_rule``: each rule has its own `mode`, because the hosts' current policy is
    in enforce mode and a fragment with another `mode` would be an error."""
    lines = _head(proposal, options, sorted(sources, key=lambda source: source.host))
    if audit_by_rule:
        lines += [
            "# The rules are in audit mode. Set this to enforce when they report only events that must be denied.",
            "{% set " + AUDIT_BY_RULE + ' = "audit" %}',
            "policy: 1",
        ]
    else:
        lines += ["policy: 1", "mode: audit    # set to enforce when only events are reported that must be denied"]
    for kind in ("subjects", "resources", "destinations"):
        sets: dict[str, dict[str, Any]] = getattr(proposal, kind)
        if sets:
            lines += ["", f"{kind}:"]
            for name in sorted(sets):
                lines += _set(name, sets[name])
    if proposal.rules:
        lines += ["", "rules:"]
        for rule in proposal.rules:
            lines += _rule(rule, proposal.lines[rule["name"]], options.listed, audit_by_rule)
    if proposal.assertions:
        lines += ["", "# Observed events are allowed, and other events are denied.", "assertions:"]
        lines += [_assertion(assertion, audit_by_rule) for assertion in proposal.assertions]
    lines += _tail(proposal)
    return "\n".join(lines) + "\n"


def _head(proposal: Proposal, options: Options, sources: Sequence[Source]) -> list[str]:
    lines = [
        comment(f"A proposed policy from the observed events of {options.name}. It is not in force."),
        "#",
        comment("Observed on:"),
    ]
    lines += [
        comment(
            f"  {source.host}: {source.span}; {sum(seen.times for seen in source.seen):,} events, "
            f"{len(source.seen):,} different"
        )
        for source in sources
    ]
    lines += [comment(f"Evaluated: {proposal.decided:,} different events with these rules enforced. None is denied.")]
    lines += [
        comment("Current policies: " + "; ".join(f"{count:,} {kind}" for kind, count in proposal.covered.items()) + ".")
    ]
    for note in proposal.notes:
        lines += [comment(f"NOTE: {note}.")]
    return [*lines, "#"]


def _set(name: str, body: dict[str, Any]) -> list[str]:
    parts = [f"{key}: {_value(value)}" for key, value in body.items()]
    line = f"  {scalar(name)}: {{{', '.join(parts)}}}"
    if len(line) <= WIDTH and "{{" not in line and "}}" not in line:
        return [line]
    lines = [f"  {scalar(name)}:"]
    for key, value in body.items():
        if isinstance(value, list) and len(_value(value)) > WIDTH - 20:
            lines += [f"    {key}:"] + [f"      - {scalar(item)}" for item in value]
        else:
            lines.append(f"    {key}: {_value(value)}")
    return lines


def _value(value: object) -> str:
    return f"[{', '.join(map(scalar, value))}]" if isinstance(value, list) else scalar(value)


def _rule(rule: dict[str, Any], seen: Sequence[Line], most: int, audit_by_rule: bool) -> list[str]:
    lines = [event_comment(line, "  ") for line in seen[:most]]
    if seen[most:]:
        lines.append(comment(f"and {len(seen) - most:,} more", "  "))
    lines += [f"  - name: {scalar(rule['name'])}"]
    for key in ("deny", "subjects", "resources", "destinations", "except"):
        if key not in rule:
            continue
        value, inside = rule[key], ""
        if isinstance(value, dict):
            value, inside = value["not"], "not"
        if len(_value(value)) > WIDTH - 30:
            lines += [f"    {key}:"] + ([f"      {inside}:"] if inside else [])
            lines += [f"      {'  ' if inside else ''}- {scalar(item)}" for item in value]
        else:
            lines.append(f"    {key}: " + (f"{{not: {_value(value)}}}" if inside else _value(value)))
    if audit_by_rule:
        lines.append("    mode: {{ " + AUDIT_BY_RULE + " }}")
    return lines


def event_comment(line: Line, indent: str = "") -> str:
    """A line of observed events as a comment."""
    hosts = f"on {line.hosts} hosts" if line.hosts > 1 else "on 1 host"
    times = f"{line.times:,} times" if line.times > 1 else "once"
    return comment(f"{line.who}: {line.what}: {times} {hosts}; today {line.today}", indent)


def _assertion(assertion: dict[str, Any], audit_by_rule: bool) -> str:
    parts = []
    for key, value in assertion.items():
        by_mode = audit_by_rule and key == "expect" and value == "deny"
        parts.append(f"{key}: {_EXPECT_DENY if by_mode else _value(value)}")
    return f"  - {{{', '.join(parts)} }}" if parts[-1].endswith("}") else f"  - {{{', '.join(parts)}}}"


def _tail(proposal: Proposal) -> list[str]:
    if not proposal.others:
        return []
    lines = [
        "",
        comment("Observed events that no rule covers. To protect an object, add it to the resources of the"),
        comment("proposal."),
    ]
    lines += [event_comment(line) for line in proposal.others]
    if proposal.left_out:
        lines.append(comment(f"and {proposal.left_out:,} more, with fewer events"))
    return lines
