# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the README says is so: its commands, paths, variables and numbers. Its policies are tried in tests/unit/language."""

import json
import os
import re

import pytest
import yaml
from ansible_collections.exfil.guard.plugins.module_utils._guard import cli, layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def read(*parts):
    with open(os.path.join(ROOT, *parts), encoding="utf-8") as file:
        return file.read()


README = read("README.md")
MAKE = sorted(set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README)))
TARGETS = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("target", MAKE)
def test_its_make_commands(target):
    assert target in TARGETS


def test_it_starts_with_the_demo_and_names_the_tests():
    assert {"demo", "test", "lab-down", "help"} <= set(MAKE)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`exfil-guard ([a-z]+)", README))))
def test_its_commands_on_the_host(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0 and "exfil-guard " + command in capsys.readouterr().out


@pytest.mark.parametrize(
    "path",
    sorted(
        set(re.findall(r"\]\(([^)#:]+)\)", README))
        | {
            path
            for cell in re.findall(r"^\| (`[^|]+`) \|", README, re.MULTILINE)
            if "exfil_guard" not in cell
            for path in re.findall(r"`([^`]+)`", cell)
        }
        | set(re.findall(r"(?:plugins|schemas|roles|docs|bpf)/[\w./-]*\w", README))
    ),
)
def test_its_paths(path):
    assert os.path.exists(os.path.join(ROOT, path))


def test_its_picture_names_the_steps():
    steps = re.findall(r" _guard/(\w+(?:/\w+\.py)?)", README)
    assert len(steps) >= 3
    for step in steps:
        assert os.path.exists(os.path.join(ROOT, "plugins", "module_utils", "_guard", step)), step


def test_its_table_of_variables():
    told, role = set(), ""
    for line in README.splitlines():
        cells = re.match(r"\| (\w*) ?\| `(exfil_guard_\w+)` \| (.+?) \|", line)
        if cells:
            role = cells[1] or role
            told.add((role, cells[2], cells[3]))
    expected = set()
    for role in ("audit", "enforcer", "policy"):
        for name, default in yaml.safe_load(read("roles", role, "defaults", "main.yml")).items():
            shown = (
                "`policies/` beside the inventory"
                if "inventory_dir" in str(default)
                else f"`{str(default).lower() if isinstance(default, bool) else default}`"
            )
            expected.add((role, name, shown))
    assert told == {
        each for each in expected if each[:2] not in (("audit", "exfil_guard_state"), ("enforcer", "exfil_guard_state"))
    }


def test_its_numbers():
    schema = json.loads(read("schemas", "policy.schema.json"))
    most = {schema["properties"][kind]["maxProperties"] for kind in ("subjects", "resources", "destinations")}
    assert f"At most {layout.RULES} rules and {most.pop()} sets of a kind" in README and not most


def test_every_action_is_documented():
    language = read("docs", "policy-language.md")
    assert [action for action in actions.NUMBERS if f"`{action}`" not in language] == []


def test_its_support_is_what_is_checked():
    runtime = yaml.safe_load(read("meta", "runtime.yml"))["requires_ansible"]
    assert runtime == ">=2.18.0" and README.count("ansible-core 2.18 or newer") == 2
    from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import enforcer

    assert enforcer.OLDEST["x86_64"] == (6, 1) and "| Linux | 6.1 and newer" in README
    assert enforcer.OLDEST["aarch64"] == (6, 4) and "64-bit Arm from Linux 6.4" in README
