# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every path of the repository that a document names exists, and so does the target of every link."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# folders at the root; other paths in backticks are on a host, or in a repository of policies
FOLDERS = "bpf|changelogs|docs|inventories|lab|molecule|playbooks|plugins|proof|roles|schemas|tests|tools"
PATH = re.compile(rf"(?:{FOLDERS})/[A-Za-z0-9_./-]*[A-Za-z0-9_]")
# examples of names in a repository of policies or beside an inventory
EXAMPLES = re.compile(r"inventories/(prod|SITE)\b|\.j2$")


def prose(document: Path) -> str:
    """The text without code blocks, which may show files of other repositories."""
    return re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)


def paths(document: Path) -> set[str]:
    """The paths in backticks. A command such as `make test` names none."""
    quoted = (word for quote in re.findall(r"`([^`\n]+)`", prose(document)) for word in quote.split())
    return {word for word in quoted if PATH.fullmatch(word) and not EXAMPLES.search(word)}


def links(document: Path) -> set[str]:
    """The targets of links to files, without anchors."""
    targets = re.findall(r"\]\(([^)#\s]+)", prose(document))
    return {target for target in targets if "://" not in target}


def anchors(document: Path) -> set[str]:
    """The anchors of the headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_paths_in_documents_exist(document):
    assert sorted(path for path in paths(document) if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_in_documents_have_a_target(document):
    assert sorted(target for target in links(document) if not (document.parent / target).exists()) == []


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=lambda path: path.name
)
def test_anchors_in_documents_exist(document):
    missing = [
        f"{target}#{anchor}"
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", prose(document))
        if "://" not in target and anchor not in anchors(document.parent / target if target else document)
    ]
    assert missing == []


def test_the_architecture_names_every_layer():
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    layers = [path.name for path in (ROOT / "plugins/module_utils/_guard").iterdir() if path.name != "__pycache__"]
    assert [name for name in layers if f"`{name.removesuffix('.py')}`" not in text and name != "__init__.py"] == []
    folders = [path.name for path in (ROOT / "bpf").iterdir() if path.is_dir()]
    assert [name for name in folders if f"`bpf/{name}`" not in text] == []


def test_the_test_finds_what_does_not_exist(tmp_path):
    document = tmp_path / "a.md"
    document.write_text("`bpf/nothing.h` `make test` `/usr/lib/x` [x](nowhere.md) ```\n`docs/nothing.md`\n```\n")
    assert paths(document) == {"bpf/nothing.h"} and links(document) == {"nowhere.md"}
