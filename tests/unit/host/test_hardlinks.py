# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that a covered file had before its rule."""

from __future__ import annotations

import datetime
import os

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.system import Entry, System
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import model
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import hardlinks
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve.hardlinks import Found, Seen
from test_command import host as host  # noqa: PLC0414 -- a fixture, which pytest finds by its name here

NOW = datetime.date(2026, 6, 1)
A, B = (1, 10), (1, 11)


def test_a_file_with_all_its_names_inside_is_none():
    assert hardlinks.outside({"r": [Seen("/c/1", A, 2), Seen("/c/2", A, 2)]}) == []


def test_a_name_seen_twice_counts_once():
    assert hardlinks.outside({"r": [Seen("/c/1", A, 2), Seen("/c/1", A, 2)]}) == [Found("/c/1", 2, 1, ("r",))]


def test_each_rule_counts_the_names_that_it_covers():
    both = [Seen("/c/1", A, 2), Seen("/d/1", A, 2), Seen("/d/2", B, 2)]
    assert hardlinks.outside({"one": both[:1], "two": both, "three": both[2:]}) == [
        Found("/c/1", 2, 1, ("one",)),
        Found("/d/2", 2, 1, ("three", "two")),
    ]


class Here(System):
    """This machine; its clock is a list."""

    def __init__(self, times=(0.0,)):
        self.times = list(times)

    def clock(self):
        return self.times.pop(0) if len(self.times) > 1 else self.times[0]


def resolved(*paths, rules=(), **more):
    rule = model.Rule("r", frozenset({"read"}), resources=model.Selection(frozenset({"s"}), **more))
    return model.Resolved(tuple(rules) or (rule,), {}, {}, {}, frozenset(), {"resources/s": frozenset(paths)})


@pytest.fixture
def tree(tmp_path):
    for path in ("in/a", "in/deep/b", "in/c.csv", "out/d"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    return tmp_path


def look(*paths, system=None, **more):
    system = system or Here()
    return hardlinks.look(resolved(*map(str, paths), **more), system, NOW, system.clock)


def names(stored):
    return [each["path"] for each in stored["found"]]


def test_a_tree_is_looked_through(tree):
    os.link(tree / "in/deep/b", tree / "out/b")
    os.link(tree / "in/a", tree / "in/deep/a")
    assert look(tree / "in/**") == {
        "found": [{"path": str(tree / "in/deep/b"), "links": 2, "inside": 1, "rules": ["r"]}],
        "cut": [],
    }


def test_a_pattern_covers_only_what_it_matches(tree):
    os.link(tree / "in/a", tree / "in/deep/a")
    os.link(tree / "in/c.csv", tree / "in/c.txt")
    assert names(look(tree / "in/*.csv")) == [str(tree / "in/c.csv")]
    assert names(look(tree / "in/a")) == [str(tree / "in/a")]
    assert names(look(tree / "*/deep/**")) == [str(tree / "in/deep/a")]


def test_no_link_is_followed_and_nothing_missing_is_an_error(tree):
    os.link(tree / "out/d", tree / "out/e")
    os.symlink(tree / "out", tree / "in/away")
    assert look(tree / "in/**", tree / "nothing/**")["found"] == []


def test_no_other_file_system_is_entered(tree, monkeypatch):
    os.link(tree / "in/deep/b", tree / "out/b")
    real = System.entries

    def entries(self, folder, without=()):
        for name, entry in real(self, folder, without):
            yield name, entry._replace(device=7) if name == "deep" else entry

    monkeypatch.setattr(System, "entries", entries)
    assert look(tree / "in/**")["found"] == []


def test_the_look_is_bounded_and_says_so(tree, monkeypatch):
    assert look(tree / "in/**", system=Here([0.0, 1.0, 99.0]))["cut"] == [str(tree / "in/**")]
    monkeypatch.setattr(hardlinks, "MAX_ENTRIES", 2)
    stored = look(tree / "in/**")
    assert stored["cut"] == [str(tree / "in/**")] and "did not finish" in hardlinks.lines(stored)[-1]


def test_a_folder_of_millions_is_not_read_to_its_end(tree, monkeypatch):
    asked = []

    def entries(self, folder, without=()):
        for number in range(10**7):
            asked.append(number)
            yield str(number), Entry(False, True, os.stat(folder).st_dev, number, 1)

    monkeypatch.setattr(System, "entries", entries)
    monkeypatch.setattr(hardlinks, "MAX_ENTRIES", 50)
    assert look(tree / "in/**")["cut"] and len(asked) < 100
    monkeypatch.setattr(hardlinks, "MAX_ENTRIES", 10**9)
    assert look(tree / "in/**", system=Here([0.0, 1.0, 2.0, 3.0, 99.0]))["cut"]


def test_a_users_filesystem_is_not_asked(tree, monkeypatch):
    table = System.mountinfo
    user = f"9999 1 0:9999 / {tree}/in/deep rw - fuse.x x rw,user_id=1000\n"
    monkeypatch.setattr(System, "mountinfo", lambda self: table(self) + user)
    os.link(tree / "in/deep/b", tree / "out/b")
    assert look(tree / "in/**")["found"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"deny": frozenset({"connect"})},
        {"expires": "2026-05-31"},
        {"resources": model.Selection(frozenset({"s"}), negated=True)},
        {"resources": None},
    ],
)
def test_rules_that_cover_no_tree_are_not_looked_at(tree, change):
    os.link(tree / "in/a", tree / "out/a")
    rule = resolved().rules[0]._replace(**change)
    assert look(tree / "in/**", rules=[rule]) == {"found": [], "cut": []}


def test_names_in_warnings_are_plain_text():
    found = [{"path": "/c/\udcff\n\x1b" + str(i), "links": 3, "inside": 1, "rules": ["it's"]} for i in range(12)]
    told = hardlinks.lines({"found": found, "cut": []})
    assert len(told) == hardlinks.SHOWN + 1 and "2 more files" in told[-1]
    assert told[0].startswith("/c/\\udcff\\n\\x1b0 has 2 more hard link(s) that no path of rule ")


def test_told_when_something_changes_and_kept_for_status(host, capsys):
    host.system.files.add("/srv/exports/a.csv")
    host.system.inodes["/srv/exports/a.csv"] = (1, 10, 2)
    first = host.apply()
    assert len(first["warnings"]) == 1 and "/srv/exports/a.csv has 1 more hard link(s)" in first["warnings"][0]
    assert "rule 'customers', rule 'old'" in first["warnings"][0]
    second = host.apply()
    assert not second["changed"] and second["warnings"] == []
    host.run("status")
    assert "HARD LINK     /srv/exports/a.csv" in capsys.readouterr().out
