# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.exfil.guard.plugins.module_utils._guard.policy.diff import LINES, compare


def stored(digest="a" * 64, resolved=None, **document):
    return {
        "document": dict({"mode": "enforce", "boot": "require"}, **document),
        "digest": digest,
        "resolved": resolved or {},
    }


RULE = {"name": "no", "deny": ["read"], "resources": ["r"]}


def test_nothing_changes():
    assert compare(stored(rules=[RULE]), stored(rules=[RULE])).lines == []


def test_from_nothing():
    found = compare(None, stored(rules=[RULE], resources={"r": {"paths": ["/a/**"]}}))
    assert found.lines == [
        "+ mode: enforce",
        "+ boot: require",
        "+ rule no: deny read of r for everyone",
        "+ resource r",
        "    + paths: /a/**",
        "rules: 1 added, 0 removed, 0 changed",
        "policy: none -> aaaaaaaaaaaa",
    ]


def test_values_by_name():
    found = compare(
        stored(rules=[RULE], destinations={"d": {"cidrs": ["10.0.0.0/8", "192.0.2.0/24"]}}),
        stored(
            "b" * 64,
            rules=[dict(RULE, resources={"not": ["r"]}, mode="audit")],
            destinations={"d": {"cidrs": ["10.0.0.0/8", "fd00::/8"]}},
        ),
    )
    assert found.lines[:-2] == [
        "~ rule no",
        "    + mode: audit",
        "    - resources: r",
        "    + resources: not r",
        "~ destination d",
        "    - cidrs: 192.0.2.0/24",
        "    + cidrs: fd00::/8",
    ]
    assert found.counts["changed"] == 1 and found.counts["sets_changed"] == 1


def test_the_same_words_mean_something_else():
    body = {"subjects": {"s": {"users": ["alice"]}}}
    found = compare(
        stored(resolved={"subjects": {"s": {"users": [1]}}}, **body),
        stored(resolved={"subjects": {"s": {"users": [2]}}}, **body),
    )
    assert found.lines[0] == "~ subject s: means something else on this host now (users)"


def test_a_host_name_has_other_addresses():
    body = {"destinations": {"d": {"names": ["vault"]}}}
    found = compare(
        stored(resolved={"destinations": {"d": {"cidrs": ["10.9.0.7/32"]}}}, **body),
        stored(resolved={"destinations": {"d": {"cidrs": ["10.9.0.8/32"]}}}, **body),
    )
    assert found.lines[0] == "~ destination d: means something else on this host now (cidrs)"


def test_long_plans_are_cut_and_control_characters_escaped():
    found = compare(None, stored(rules=[dict(RULE, name=f"n{i}\n") for i in range(300)]))
    assert found.lines[LINES] == "... and 102 more lines" and found.counts["added"] == 300
    assert all(line.isprintable() for line in found.lines)
