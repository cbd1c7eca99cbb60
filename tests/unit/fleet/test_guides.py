# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guides in docs/ are followed, line by line, over the example's hosts, simulated: each command of a console block is
run, each diff applied. What a block shows below a command has to be in what it says, in that order; `…` is any text."""

import os
import re
import subprocess

import pytest
from example import Example
from fleet import COLLECTIONS, ROOT

BLOCK = re.compile(r"^```(console|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STATUS = re.compile(r"\(exit status (\d+)\)")
# what takes longer than a test may
SHORTER = {"exfil_guard_soak_seconds=86400": "exfil_guard_soak_seconds=1"}


class Command:
    """``place``: `$` for where Ansible runs, else the host on whose console it is typed."""

    def __init__(self, place, text):
        self.place, self.text, self.shown, self.status = place, text, [], 0

    def __repr__(self):
        return f"{self.place} {self.text}"


def steps(guide):
    """Commands, and diffs as texts."""
    with open(os.path.join(ROOT, "docs", guide), encoding="utf-8") as file:
        for kind, text in BLOCK.findall(file.read()):
            if kind == "diff":
                yield text
                continue
            command = None
            for line in text.splitlines():
                prompt = re.match(r"(\$|[a-z0-9]+#) (.*)", line)
                if prompt:
                    if command:
                        yield command
                    command = Command(prompt[1], prompt[2])
                elif STATUS.match(line):
                    command.status = int(STATUS.match(line)[1])
                elif command.text.endswith("\\"):
                    command.text = command.text[:-1] + line.strip()
                elif line.strip():
                    command.shown.append(line.strip())
            yield command


def follow(site, command, environment):
    text = command.text
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    if command.place == "$":
        return site.run("bash", "-c", text, **environment)
    python = site.fleet.path(f"{command.place[:-1]}.example.com", "python")
    return site.run("bash", "-c", f'exfil-guard() {{ {python} /usr/sbin/exfil-guard "$@"; }}; {text}')


def as_said(shown, said):
    """The first line that is not there; none: all are."""
    at = 0
    for line in shown:
        found = re.compile(".*?".join(map(re.escape, " ".join(line.split()).split("…")))).search(said, at)
        if not found:
            return line
        at = found.end()
    return None


@pytest.mark.parametrize("guide", ["gitops.md", "operations.md"])
def test_a_guide_can_be_followed(guide, tmp_path):
    site = Example(tmp_path)
    followed = 0
    try:
        environment = {
            "SERVER": f"file://{site.bare}",
            "DEPLOY": str(tmp_path / "deploy"),
            "COLLECTION": os.path.join(COLLECTIONS, "ansible_collections", "exfil", "guard"),
        }
        if guide == "gitops.md":  # it begins where something is in force
            assert site.run("ci/deploy", "HEAD").code == 0
        for step in steps(guide):
            if isinstance(step, str):
                done = subprocess.run(
                    ["git", "-C", str(site.work), "apply"],
                    input=step,
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
                assert done.returncode == 0, step + done.stdout
                continue
            done = follow(site, step, environment)
            assert done.code == step.status, f"{step!r} ended with {done.code}:\n{done.text}"
            missing = as_said(step.shown, " ".join(done.text.split()))
            assert missing is None, f"{step!r} did not say {missing!r}, but:\n{done.text}"
            followed += 1
        assert followed > 10
    finally:
        site.close()


def test_what_is_shown_has_to_be_said():
    assert as_said(["a … c", "d"], "a b c d") is None
    assert as_said(["d", "a"], "a b c d") == "a"
    assert as_said(["a … x"], "a b c d") == "a … x"
