# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of actions, and the files that `make generate` writes from it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import programs
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions

ROOT = Path(__file__).resolve().parents[3]
GENERATED = ("bpf/abi/actions.h", "schemas/policy.schema.json", "docs/policy-language.md", "proof/coq/Meaning.v")


def generate(folder, *options):
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "generate", *options, folder], capture_output=True, text=True, check=False
    )


@pytest.fixture
def copied(tmp_path):
    for path in GENERATED:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def test_no_generated_file_is_stale():
    checked = generate(ROOT, "--check")
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    "path, old, new",
    [
        ("bpf/abi/actions.h", "GUARD_WRITE = 1", "GUARD_WRITE = 2"),
        ("schemas/policy.schema.json", '"tun", ', ""),
        ("docs/policy-language.md", "| `perf` | perf_event_open |", "| `perf` | perf |"),
        ("proof/coq/Meaning.v", "Definition OWN := [6; 7; 8].", "Definition OWN := [6; 7]."),
    ],
)
def test_a_stale_file_is_named_and_written_anew(copied, path, old, new):
    file = copied / path
    right = file.read_text()
    assert right.count(old) == 1
    file.write_text(right.replace(old, new))
    checked = generate(copied, "--check")
    assert (
        checked.returncode == 1
        and f"{path} is not what the table of actions gives: run `make generate`" in checked.stderr
    )
    assert file.read_text() != right
    assert generate(copied).stdout == f"wrote {path}\n" and file.read_text() == right
    assert generate(copied).stdout == ""


def test_names_and_numbers_are_unique():
    assert (
        len({action.name for action in actions.TABLE})
        == len({action.number for action in actions.TABLE})
        == len(actions.TABLE)
    )


def test_numbers_lie_where_the_kernel_side_expects_them():
    for action in actions.TABLE:
        if action.object != actions.NOTHING:
            assert action.number < layout.PLAIN, action.name
        elif action.name in actions.CAPABILITIES:
            assert layout.CAPABILITY <= action.number < layout.ACTIONS, action.name
        elif action.name in actions.MACHINE:
            assert layout.RAW_SOCKET <= action.number < layout.CAPABILITY, action.name
        else:
            assert layout.SOCKET <= action.number <= layout.OTHER_SOCKET, action.name


def test_every_program_of_the_table_is_in_the_object():
    sources = "".join(path.read_text() for path in ROOT.joinpath("bpf").rglob("*.[ch]"))
    sections = set(re.findall(r'SEC\("lsm/(\w+)"\)', sources))
    assert len(sections) > 50
    for action in actions.TABLE:
        for program in programs.of_action(action.name, sendpage=True):
            assert program.partition("__")[0] in sections, (action.name, program)


def test_an_action_has_hooks_and_a_line_of_documentation():
    for action in actions.TABLE:
        assert action.hooks and action.doc and "\n" not in action.doc and "|" not in action.doc, action.name
        assert not set(action.hooks) & set(action.optional_hooks), action.name
