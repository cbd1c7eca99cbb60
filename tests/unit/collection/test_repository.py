# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every tracked file: it has a licence, and it works on other machines than its author's."""

import fnmatch
import os
import re
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
DUAL = "GPL-2.0-only OR BSD-2-Clause"
# Packages come from what the machine is set up with; addresses are the reader's to choose.
FOREIGN = {
    "the address of a package registry": re.compile(
        r"py" r"pi\.org|python" r"hosted\.org|galaxy\.ansible" r"\.com|deb\.debian" r"\.org|registry\.[a-z]+\."
    ),
    "somebody's own folder": re.compile(r"(?<![\w.$}])/(work|home/[a-z]+|opt/[a-z]+-venv)/"),
}


def tracked():
    try:
        listed = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return []  # an export, without the repository
    paths = [os.fsdecode(path) for path in listed.split(b"\0") if path]
    return [path for path in paths if os.path.isfile(os.path.join(ROOT, path))]


FILES = [path for path in tracked() if not path.startswith(("collections/", "LICENSES/"))]


def text(path):
    with open(os.path.join(ROOT, path), "rb") as file:
        return file.read().decode("utf-8", "replace")


def annotations():
    """(pattern, licence) of REUSE.toml; no TOML reader comes with every Python here."""
    found = []
    for block in text("REUSE.toml").split("[[annotations]]")[1:]:
        licence = re.search(r'SPDX-License-Identifier = "(.*)"', block)[1]
        paths = re.search(r"path = \[(.*?)\]", block, re.DOTALL)[1]
        found.extend((path, licence) for path in re.findall(r'"(.*?)"', paths))
    return found


# REUSE-IgnoreStart
def licence_of(path):
    for line in text(path).splitlines()[:12]:
        if "SPDX-License-Identifier:" in line:
            return re.sub(r"\s*(\*/|-->|\*\))$", "", line.split("SPDX-License-Identifier:")[1]).strip()
    for pattern, licence in annotations():
        if fnmatch.fnmatchcase(path, pattern):
            return licence
    return None


# REUSE-IgnoreEnd


@pytest.mark.skipif(not FILES, reason="not a repository")
def test_every_file_has_a_licence():
    licences = {path: licence_of(path) for path in FILES}
    assert {path for path, licence in licences.items() if licence is None} == set()
    for path, licence in licences.items():
        ours = path.startswith("bpf/") or path.endswith(".bpf.o")
        assert licence == DUAL or not ours, path
        for name in re.split(r" OR | AND ", licence):
            assert os.path.isfile(os.path.join(ROOT, "LICENSES", name + ".txt")), (path, name)


@pytest.mark.parametrize("what", sorted(FOREIGN))
def test_nothing_leans_on_one_machine(what):
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in FILES
        if not path.endswith(".o")
        for number, line in enumerate(text(path).splitlines(), 1)
        if FOREIGN[what].search(line)
    ]
    assert found == []


def test_nothing_made_is_tracked():
    made = re.compile(
        r"(^|/)(__pycache__|\.venv|\.cache|\.build|\.vagrant|state)/|\.(pyc|tmp|retry|tar\.gz|box|qcow2)$"
    )
    assert [path for path in FILES if made.search(path)] == []
