# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's package is built in layers: a module imports from its own sub-package and from lower layers only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "plugins" / "module_utils" / "_guard"
# from the lowest to the highest; names on one line do not import each other
LAYERS = (
    ("errors", "layout"),
    ("policy", "kernel"),
    ("host", "compile"),
    ("resolve", "attest"),
    ("audit", "lifecycle"),
    ("explain", "report"),
    ("host_api",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imports(source: str, module: tuple[str, ...]) -> list[str]:
    """The sub-packages and top modules that a module of the package imports. ``module``: its path, without suffix."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*module[: len(module) - node.level], *(node.module or "").split("."))
            target = [part for part in base if part]
            names.extend(target[:1] or [alias.name for alias in node.names])
    return names


def upward(source: str, module: tuple[str, ...]) -> list[str]:
    """What a module may not import."""
    own = RANK[module[0]]
    return sorted({name for name in imports(source, module) if name != module[0] and RANK[name] >= own})


def modules() -> list[tuple[str, ...]]:
    paths = (path.relative_to(PACKAGE).with_suffix("").parts for path in sorted(PACKAGE.rglob("*.py")))
    return [path for path in paths if path != ("__init__",)]


@pytest.mark.parametrize("module", modules(), ids="/".join)
def test_no_import_runs_upwards(module):
    assert upward(PACKAGE.joinpath(*module).with_suffix(".py").read_text(), module) == []


def test_every_part_of_the_package_has_a_layer():
    parts = {path.stem for path in PACKAGE.iterdir() if path.name not in ("__init__.py", "__pycache__")}
    assert parts <= set(RANK)


@pytest.mark.parametrize(
    "source",
    ["from ..lifecycle import apply\n", "def f():\n    from ..report.status import status\n", "from .. import cli\n"],
)
def test_an_upward_import_is_found(source):
    assert upward(source, ("policy", "model")) != []


def test_an_import_within_the_layer_is_found():
    assert upward("from ..kernel import pins\n", ("policy", "model")) == ["kernel"]
    assert upward("from . import model\nfrom ..errors import Problem\n", ("policy", "semantics")) == []


def test_the_package_has_two_import_names():
    """The collection's and the installed package's: a third would load the same code twice."""
    others = []
    for path in ROOT.joinpath("plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = (node.module or "") if isinstance(node, ast.ImportFrom) and not node.level else ""
            if name.split(".")[0] in ("guard", "_guard"):
                others.append(f"{path}: {name}")
    assert others == []
