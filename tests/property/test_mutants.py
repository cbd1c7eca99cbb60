# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutated policies: each is accepted and says the same again from its canonical document, or it is refused with a message
that names the place. MUTANTS says how many; the seed is fixed, and each mutant has a seed of its own."""

from __future__ import annotations

import copy
import datetime
import json
import os
import random
import re
from pathlib import Path

import jinja2
import pytest
import yaml
from ansible_collections.exfil.guard.plugins.plugin_utils._language import document as _document
from ansible_collections.exfil.guard.plugins.plugin_utils._language import pipeline
from ansible_collections.exfil.guard.plugins.plugin_utils._language.problems import FragmentError

ROOT = Path(__file__).resolve().parents[2]
TODAY = datetime.date(2026, 6, 1)
MUTANTS = int(os.environ.get("MUTANTS", "500"))
PARTS = 10
SEED = 20260601
VARIABLES = {
    "company_networks": ["10.0.0.0/8"], "resolvers": ["10.0.0.53"], "policy_mode": "enforce", "vault": "10.9.0.7",
    "database_admins": ["dba"], "payment_provider": ["203.0.113.16/28"]}  # fmt: skip
VALUES = [
    None, True, False, 0, -1, 1, 443, 65536, 1 << 32, 1 << 70, 0.5, float("nan"), float("inf"), "", " ", "*", "**",
    "/", "/**", "/a/../b", "//", "/x/**/y", "a" * 300, "é", "\ud800", "\u202e", "\x00", "\x1b[31m", "10.0.0.0/8",
    "10.0.0.1/8", "::/0", "fe80::1%eth0", "999.1.1.1", "0-65535", "9-1", "443", "any", "2:1024", "read", "mount", "deny",
    "enforce", "loopback", "not", "dba", "2026-02-31", "2027-03-31", "root", "x.service", "{{ 1 }}", "{% if %}", [],
    {}, [[]], [None], {"not": []}, {"not": ["corp"]}, {"": ""}, {"users": [1000]}, ["read", "read"], [{"a": "b"}]]  # fmt: skip
KEYS = ["policy", "mode", "subjects", "resources", "destinations", "rules", "assertions", "name", "deny", "except",
        "paths", "cidrs", "ports", "users", "groups", "has_read", "not", "optional", "extensible", "expires", "vsock",
        "boot", "", "<<", "on", "é", "0"]  # fmt: skip
JUNK = ["{{", "}}", "{%", "%}", "{#", "&a ", "*a", "<<: ", "- ", ": ", "\t", "'", '"', "|", ">", "!!python/object:x ",
        "!!binary ", "---\n", "...\n", "#", "[", "]", "{", "}", "\x00", "\x85", "\ufeff", "\u2028", "é", "\ud800", "~",
        "0x1F", "1_000", "1:30", "yes", "\n", "  ", "%YAML 9.9\n", "? ", "{{ nope }}", "{% for x in y %}"]  # fmt: skip
environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
environment.filters["to_json"] = json.dumps


def render(source):
    return environment.from_string(source).render(**VARIABLES)


def originals():
    folder = ROOT / "inventories" / "example" / "policies"
    found = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yml.j2"))]
    language = (ROOT / "docs" / "policy-language.md").read_text(encoding="utf-8")
    return found + re.findall(r"```yaml\n(policy: 1\n.*?)```", language, re.DOTALL)


ORIGINALS = originals()


# ---- mutations ----------------------------------------------------------------------------------------------------


def places(data, path=()):
    """Every value in the data, as the path to it."""
    yield path
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inside:
        yield from places(value, (*path, key))


def at(data, path):
    for key in path:
        data = data[key]
    return data


def mutate_data(chance, source):
    data = yaml.safe_load(render(source))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        path = chance.choice(list(places(data)))
        if not path:
            continue
        holder, key = at(data, path[:-1]), path[-1]
        kind = chance.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
        elif kind == 2:
            holder[key] = copy.deepcopy(at(data, chance.choice(list(places(data)))))
        elif kind == 3 and isinstance(holder, dict):
            holder[chance.choice(KEYS)] = holder.pop(key)
        elif kind == 4 and isinstance(holder, dict):
            holder[chance.choice(KEYS)] = copy.deepcopy(chance.choice(VALUES))
        elif isinstance(holder, list):
            holder.insert(chance.randrange(len(holder) + 1), copy.deepcopy(chance.choice([holder[key], *VALUES])))
    text = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    return text if "{{" in text or "{%" in text else "{% raw %}" + text + "{% endraw %}"


def mutate_text(chance, source):
    for _ in range(chance.choice((1, 1, 2, 3))):
        lines = source.splitlines(keepends=True)
        kind, line = chance.randrange(6), chance.randrange(len(lines)) if lines else 0
        spot = chance.randrange(len(source) + 1)
        if kind == 0:
            source = source[:spot] + chance.choice(JUNK) + source[spot:]
        elif kind == 1:
            source = source[:spot] + source[spot + chance.choice((1, 1, 5, 40)) :]
        elif kind == 2 and lines:
            source = "".join(lines[:line] + lines[line + 1 :])
        elif kind == 3 and lines:
            source = "".join([*lines[:line], lines[line], *lines[line:]])
        elif kind == 4 and lines:
            source = "".join([*lines[:line], chance.choice(("  ", " ", "\t")) + lines[line], *lines[line + 1 :]])
        else:
            source = source[:spot]
    return source


def mutant(seed):
    chance = random.Random(seed)
    sources = [chance.choice(ORIGINALS)]
    if chance.random() < 0.3:
        sources.append(chance.choice(ORIGINALS))
    change = chance.choice((mutate_data, mutate_text))
    return [change(chance, sources[0]), *sources[1:]]


# ---- what has to hold ---------------------------------------------------------------------------------------------


def examine(sources):
    """The document, or the problems in words."""
    templates = [pipeline.Template(f"policies/{chr(97 + number)}.yml.j2", source)
                 for number, source in enumerate(sources)]  # fmt: skip
    try:
        return pipeline.document(templates, render, TODAY), []
    except FragmentError as error:
        return None, error.problems


def as_fragment(document):
    """A document as somebody would write it: sets said in place back in their rules, built-in ones left out."""
    found = copy.deepcopy(document)
    for name in _document.BUILT_IN:
        found["destinations"].pop(name, None)
    for rule in found["rules"]:
        for kind in ("subjects", "resources", "destinations"):
            name = f"{rule['name']} (inline)"
            if rule.get(kind) == [name]:
                rule[kind] = found[kind].pop(name)
    return found


def wrong(sources):
    """What is wrong with how a mutant is answered."""
    document, problems = examine(sources)
    if document is None:
        nameless = [each for each in problems if not each.file or not each.found or not (each.line or each.path)]
        unreadable = [str(each) for each in problems if not str(each).startswith("policies/") or "\n" in str(each)]
        return nameless + unreadable if problems else ["refused without a word"]
    again, problems = examine(["{% raw %}" + json.dumps(as_fragment(document)) + "{% endraw %}"])
    if again is None:
        return ["the canonical document is refused", *map(str, problems)]
    return [] if _document.digest(again) == _document.digest(document) else ["the digest differs"]


@pytest.mark.parametrize("part", range(PARTS))
def test_mutants_are_accepted_for_good_or_refused_with_their_place(part):
    accepted = refused = 0
    for number in range(part, MUTANTS, PARTS):
        sources = mutant(SEED + number)
        found = wrong(sources)
        assert found == [], (SEED + number, sources)
        accepted, refused = (accepted + 1, refused) if examine(sources)[0] else (accepted, refused + 1)
    if accepted + refused >= 40:  # both ways are tried
        assert accepted >= 2 and refused >= 2


@pytest.mark.parametrize("number", range(len(ORIGINALS)))
def test_what_they_are_made_from_is_accepted(number):
    assert wrong([ORIGINALS[number]]) == [] and examine([ORIGINALS[number]])[0]


def test_an_answer_without_a_place_would_be_found(monkeypatch):
    bad = ["policy: 1\nmode: x\n"]
    assert wrong(bad) == []
    monkeypatch.setattr(pipeline.schema, "validate", lambda fragment: [pipeline.Problem("", None, "", "no")])
    assert wrong(bad) != []


def test_a_document_that_loses_something_would_be_found(monkeypatch):
    sources = ["policy: 1\nresources: {a: {paths: [/a]}}\nrules: [{name: x, deny: [read], resources: [a]}]\n"]
    assert wrong(sources) == []
    calls = iter((True, False))
    canonical = pipeline._document.finished
    monkeypatch.setattr(
        pipeline._document, "finished", lambda found: dict(canonical(found), **({} if next(calls) else {"rules": []}))
    )
    assert wrong(sources) == ["the digest differs"]
