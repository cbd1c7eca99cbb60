# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules and the command use the package through its API only, and the API has the types that modules expect."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import typed

ROOT = Path(__file__).resolve().parents[3]
GUARD = "ansible_collections.exfil.guard.plugins.module_utils._guard"
SENT_WITH_ITS_CODE = "observe"  # works on hosts that have no package, so Ansible sends what it imports


def imported(path: Path) -> set[str]:
    """Every module that a file imports, with leading dots where the import is relative."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names.update(base.rstrip(".") + "." + alias.name for alias in node.names)
    return names


@pytest.mark.parametrize("path", sorted(ROOT.joinpath("plugins", "modules").glob("*.py")), ids=lambda path: path.stem)
def test_a_module_imports_nothing_of_the_package(path):
    names = {name for name in imported(path) if name.startswith(GUARD)}
    assert (names == set()) == (path.stem != SENT_WITH_ITS_CODE)


def test_the_door_imports_nothing_of_the_package_either():
    path = ROOT / "plugins" / "module_utils" / "_installed.py"
    assert not {name for name in imported(path) if "_guard" in name}
    assert path.read_text().count("import_module(") == 1


def test_the_command_imports_the_api_alone():
    names = {name for name in imported(ROOT / "plugins" / "module_utils" / "_guard" / "cli.py") if name.startswith(".")}
    assert {name.split(".")[1] for name in names} == {"host_api"}


def test_the_api_is_what_modules_expect(tmp_path):
    """mypy compares the protocols in _installed.py with the package."""
    imports = f"from {GUARD} import host_api\nfrom {GUARD.rpartition('.')[0]} import _installed\n"
    assert typed.problems(tmp_path / "good.py", imports + "api: _installed.HostAPI = host_api\n") == ""
    wrong = typed.problems(tmp_path / "bad.py", imports + "api: _installed.Host = host_api\n")
    assert "Incompatible types" in wrong
