# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changes between two policies, told in words: which decisions, for whom, on what, from when."""

from __future__ import annotations

import datetime
import json

import jinja2
import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard.explain import witnesses
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import resolver
from ansible_collections.exfil.guard.plugins.plugin_utils._language import assertions, pipeline
from ansible_collections.exfil.guard.plugins.plugin_utils._plan import compare

TODAY = datetime.date(2026, 6, 1)
BASE = """policy: 1
subjects: {dba: {groups: [dba]}, backup: {services: [restic.service], executables: [/usr/bin/restic]}}
resources: {data: {paths: [/var/lib/postgresql/**, "/srv/exports/*.csv"]}}
destinations: {corp: {cidrs: [10.0.0.0/8, "fd00::/8"]}}
rules:
  - {name: data, deny: [read, write], resources: [data], except: [dba, backup]}
  - {name: net, deny: [connect, send], destinations: {not: [corp, loopback]}}
"""
READERS = """policy: 1
subjects: {readers: {has_read: [data]}}
resources: {data: {paths: [/srv/a/**]}}
rules:
  - {name: who has read, deny: [mount], subjects: [readers]}
"""


def document(source):
    environment = jinja2.Environment()
    environment.filters["to_json"] = json.dumps
    return pipeline.document(
        [pipeline.Template("a", source)], lambda text: environment.from_string(text).render(), TODAY
    )


def compared(before, after, **options):
    system = assertions.SymbolicSystem()
    return compare.compare(
        *(resolver.resolve(document(each), system) for each in (before, after)),
        TODAY,
        lambda _kind, number: system.name(number),
        **options,
    )


def told(before, after):
    return [f"{each.direction}: {each}" for each in compared(before, after).changes]


CASES = {
    "an exception less": (
        BASE.replace("[dba, backup]", "[dba]"),
        ["stricter: read, write: backup but not dba → data, as /srv/exports/x.csv: allow → deny (rule 'data')"]),
    "a network more in an allow-list": (
        BASE.replace("[10.0.0.0/8,", "[10.0.0.0/8, 192.168.0.0/16,"),
        ["weaker: connect, send: everyone → corp (after), as 192.168.0.1 port 443/tcp: deny → allow (rule 'net')"]),
    "a wider pattern": (
        BASE.replace("*.csv", "*.c*"),
        ["stricter: read, write: everyone but backup, dba → data (after), as /srv/exports/x.c: allow → deny (rule 'data')"]),
    "a group more in an exception": (
        BASE.replace("{groups: [dba]}", "{groups: [dba, ops]}"),
        ["weaker: read, write: dba (after) but not backup, dba (before) → data, as /srv/exports/x.csv: deny → allow (rule 'data')"]),
    "to audit": (
        BASE.replace("policy: 1", "policy: 1\nmode: audit"),
        ["weaker: connect, send: everyone → anything else, as 198.51.100.7 port 443/tcp: deny → audit (rule 'net')",
         "weaker: read, write: everyone but backup, dba → data, as /srv/exports/x.csv: deny → audit (rule 'data')"]),
    "a rule that ends": (
        BASE.replace("except: [dba, backup]}", "except: [dba, backup], expires: 2026-07-01}"),
        ["weaker: read, write: everyone but backup, dba → data, as /srv/exports/x.csv: deny → allow, from 2026-07-01 on "
         "(rule 'data')"]),
    "a rule without an object": (
        BASE + "  - {name: no mounts, deny: [mount, ptrace], subjects: {users: [bob]}}\n",
        ["stricter: mount, ptrace: no mounts (inline): allow → deny (rule 'no mounts')"]),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_changes(name):
    after, expected = CASES[name]
    assert told(BASE, after) == expected
    opposite = {"stricter": "weaker", "weaker": "stricter"}
    assert sorted(opposite[each.split(":")[0]] for each in expected) == sorted(
        each.direction for each in compared(after, BASE).changes
    )


@pytest.mark.parametrize("after", [
    BASE.replace("name: data", "name: another name"),
    BASE.replace("{data:", "{records:").replace("resources: [data]", "resources: [records]"),
    BASE.replace("10.0.0.0/8", "10.0.0.0/9, 10.128.0.0/9"),  # said otherwise
    BASE + "  - {name: again, deny: [read], resources: {paths: [/srv/exports/x.csv]}, except: [dba, backup]}\n",
    BASE + "  - {name: over, deny: [mount], expires: 2026-06-01}\n",
])  # fmt: skip
def test_another_text_that_means_the_same_changes_nothing(after):
    assert after != BASE and told(BASE, after) == []


def test_what_counts_as_read():
    changes = told(READERS, READERS.replace("[/srv/a/**]", "[/srv/a/**, /srv/b]"))
    assert changes == ["stricter: to have read data: everyone → by reading, as /srv/b: allow → deny"]


def test_an_example_is_given():
    [change] = compared(BASE, CASES["a group more in an exception"][0]).changes
    assert change.example == "group ops: /srv/exports/x.csv"


def test_too_many_kinds_of_tasks_are_settled_by_structure():
    names = [f"g{number}" for number in range(14)]
    many = BASE + "".join(f"  - {{name: {name}, deny: [mount], subjects: {{groups: [{name}]}}}}\n" for name in names)
    fewer = many.replace("  - {name: g3, deny: [mount], subjects: {groups: [g3]}}\n", "")
    found = compared(many, fewer, limit=64)
    assert found.methods == {"mount": "structure"}
    assert {each.direction for each in found.changes} <= {"weaker"}
    assert not [each for each in found.open if each.startswith("stricter")]
    assert {each.direction for each in found.changes} | {each.split(":")[0] for each in found.open} == {"weaker"}


def test_places_are_found_for_every_combination_of_patterns():
    system = assertions.SymbolicSystem()
    policy = resolver.resolve(document("""policy: 1
resources: {a: {paths: ["/s/a*"]}, b: {paths: ["/s/*b"]}, c: {paths: ["/s/**"]}, d: {paths: [/s/axb]}}
"""), system)  # fmt: skip
    found = witnesses.places([policy.resources[name].paths for name in "abcd"], policy.superblocks)
    assert {mask for _where, mask in found} == {0b0000, 0b0100, 0b0101, 0b0110, 0b0111, 0b1111}
