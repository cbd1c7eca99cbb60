# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role pull on a host that is this machine with everything that it writes kept apart: each step in check mode, in
earnest, and again; and no trace after removal."""

import json
import os
import sys

import pytest
from alone import Host

VARIABLES = {
    "exfil_guard_pull_url": "https://git.example.com/site.git",
    "exfil_guard_pull_signers": ["alice@example.com ssh-ed25519 AAAA", "bob@example.com ssh-ed25519 BBBB"],
    "exfil_guard_pull_environment": {"GIT_SSH_COMMAND": 'ssh -i "/etc/key" -o ServerAliveInterval=5%'},
    "exfil_guard_pull_command": os.path.join(os.path.dirname(sys.executable), "ansible-pull"),
}


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path, "exfil.guard.pull", VARIABLES)


def test_installed_changed_and_removed_in_four_steps_each(host):
    would, diff = host.changes("--check")
    assert host.tree() == {} and host.calls() == [] and would > 0
    done, same = host.changes()
    assert done >= would and "exfil-guard-pull.service" in str(host.tree())
    assert [line for line in diff if line.startswith("+[") or line.startswith("+Exec")] == [
        line for line in same if line.startswith("+[") or line.startswith("+Exec")
    ]
    assert host.calls()[-1] == "start exfil-guard-pull.timer"
    for again in ((), ("--check",)):
        assert host.changes(*again) == (0, []) and host.calls() == []

    # what is written is what was asked for
    tree = host.tree()
    assert tree["etc/upper/exfil-guard-pull/allowed_signers"] == (
        "alice@example.com ssh-ed25519 AAAA\nbob@example.com ssh-ed25519 BBBB\n"
    )
    settings = json.loads(tree["etc/upper/exfil-guard-pull/settings.json"])
    assert (settings["host"], settings["timeout"], settings["url"]) == ("h1", 1800, VARIABLES["exfil_guard_pull_url"])
    unit = tree["etc/upper/systemd/system/exfil-guard-pull.service"]
    assert 'Environment="GIT_SSH_COMMAND=ssh -i \\"/etc/key\\" -o ServerAliveInterval=5%%"' in unit
    assert tree["etc/upper/systemd/system/timers.target.wants/exfil-guard-pull.timer"] == (
        "/etc/systemd/system/exfil-guard-pull.timer"
    )

    # another interval, and one who may sign no more
    less = {"exfil_guard_pull_seconds": 60, "exfil_guard_pull_signers": VARIABLES["exfil_guard_pull_signers"][:1]}
    would = host.changes("--check", **less)
    assert host.tree() == tree and host.calls() == []
    done = host.changes(**less)
    assert "-OnUnitInactiveSec=300" in done[1] and "-bob@example.com ssh-ed25519 BBBB" in done[1]
    assert would[1] == done[1] and host.calls() == ["daemon-reload", "restart exfil-guard-pull.timer"]
    assert host.changes(**less) == (0, [])

    # away
    would = host.changes("--check", exfil_guard_state="absent")
    assert "etc/upper/exfil-guard-pull" in host.tree()
    assert host.changes(exfil_guard_state="absent")[0] == would[0]
    assert {path for path, content in host.tree().items() if content is not None} == set()
    assert host.calls() == ["stop exfil-guard-pull.timer", "daemon-reload"]
    assert host.changes(exfil_guard_state="absent")[0] == 0
    assert host.changes("--check", exfil_guard_state="absent")[0] == 0 and host.calls() == []


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"exfil_guard_pull_url": None}, "Set exfil_guard_pull_url to the repository"),
        ({"exfil_guard_pull_signers": None}, "and the authorized signers of its commits"),
        ({"exfil_guard_pull_command": "/nonexistent/ansible-pull"}, "This host cannot pull: "),
    ],
)
def test_what_is_missing_is_told_and_nothing_written(host, variables, message):
    code, said = host.run(**variables)
    assert code != 0 and message in " ".join(said.split()), said
    assert host.tree() == {}


def test_an_ansible_that_is_too_old(host):
    old = host.folder / "ansible-pull"
    old.write_text("#!/bin/sh\necho 'ansible-pull [core 2.14.18]'\n")
    old.chmod(0o755)
    code, said = host.run(exfil_guard_pull_command=str(old))
    assert code != 0 and "This host has ansible-core 2.14.18, but 2.18 or newer is required" in " ".join(
        said.split()
    ), said
    assert host.tree() == {}
