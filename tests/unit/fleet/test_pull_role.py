# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role pull on a host that is this machine with everything that it writes kept apart: each step in check mode, in
earnest, and again; and no trace after removal."""

import json
import os
import re
import subprocess
import sys

import pytest
from fleet import COLLECTIONS

# what is written lies in upper layers, for a run to find what the run before left
_HOST = """set -e
for each in etc usr; do
    mkdir -p "$1/$each/upper" "$1/$each/work"
    mount -t overlay overlay -o lowerdir=/$each,upperdir="$1/$each/upper",workdir="$1/$each/work" /$each
done
mkdir -p "$1/lib" && mount --bind "$1/lib" /var/lib
shift
exec "$@"
"""
SYSTEMCTL = """#!/bin/sh
echo "$*" >>{0}/calls
touch {0}/active
case "$1" in
start | restart) echo "$2" >>{0}/active ;;
stop) grep -vx "$2" {0}/active >{0}/left; mv {0}/left {0}/active ;;
show)
    for unit; do case "$unit" in *.timer | *.service)
        state=inactive; grep -qx "$unit" {0}/active && state=active
        case "$*" in *--value*) echo $state; echo ;; *) echo "Id=$unit"; echo LoadState=loaded; echo ActiveState=$state ;; esac
    esac; done ;;
esac
exit 0
"""
VARIABLES = {"exfil_guard_pull_url": "https://git.example.com/site.git",
             "exfil_guard_pull_signers": ["alice@example.com ssh-ed25519 AAAA", "bob@example.com ssh-ed25519 BBBB"],
             "exfil_guard_pull_environment": {"GIT_SSH_COMMAND": 'ssh -i "/etc/key" -o ServerAliveInterval=5%'},
             "exfil_guard_pull_command": os.path.join(os.path.dirname(sys.executable), "ansible-pull")}


class Host:
    def __init__(self, folder):
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "bin" / "systemctl").write_text(SYSTEMCTL.format(folder))
        (folder / "bin" / "systemctl").chmod(0o755)
        (folder / "ansible.cfg").write_text("")
        (folder / "play.json").write_text(json.dumps([{
            "name": "Pull", "hosts": "h1", "gather_facts": False,
            "tasks": [{"name": "Role", "ansible.builtin.include_role": {"name": "exfil.guard.pull"}}]}]))
        (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": {"h1": {
            "ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}}}}))

    def run(self, *options, **variables):
        given = {key: value for key, value in dict(VARIABLES, **variables).items() if value is not None}
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _HOST, "sh", str(self.folder / "host"),
             sys.executable, "-m", "ansible", "playbook", "-i", str(self.folder / "hosts.json"), "--diff",
             "-e", json.dumps(given), *options, str(self.folder / "play.json")],
            env=dict(os.environ, PATH="{0}:{1}".format(self.folder / "bin", os.environ["PATH"]), NO_COLOR="1",
                     ANSIBLE_CONFIG=str(self.folder / "ansible.cfg"), ANSIBLE_COLLECTIONS_PATH=COLLECTIONS,
                     ANSIBLE_HOME=str(self.folder / "home")),
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout

    def changes(self, *options, **variables):
        """How many tasks changed something, and the diff."""
        code, said = self.run(*options, **variables)
        assert code == 0, said
        return int(re.findall(r"changed=(\d+)", said)[-1]), sorted(
            line for line in said.splitlines() if re.match(r"[+-] ?[^+-]", line) and "ansible-tmp" not in line)

    def tree(self):
        """What differs from this machine: path -> content, None for what was removed."""
        found = {}
        for layer in ("etc/upper", "usr/upper", "lib"):
            top = self.folder / "host" / layer
            for path in sorted(top.rglob("*")) if top.is_dir() else ():
                if "exfil" in path.name or "exfil" in str(path.relative_to(top)):
                    found[str(path.relative_to(self.folder / "host"))] = os.readlink(path) if path.is_symlink() else \
                        path.read_text() if path.is_file() else "folder" if path.is_dir() else None
        return found

    def calls(self):
        """What systemd was told to do."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        if lines:
            path.write_text("")
        return [line for line in lines if not line.startswith("show")]


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_installed_changed_and_removed_in_four_steps_each(host):
    would, diff = host.changes("--check")
    assert host.tree() == {} and host.calls() == [] and would > 0
    done, same = host.changes()
    assert done >= would and "exfil-guard-pull.service" in str(host.tree())
    assert [line for line in diff if line.startswith("+[") or line.startswith("+Exec")] == [
        line for line in same if line.startswith("+[") or line.startswith("+Exec")]
    assert host.calls()[-1] == "start exfil-guard-pull.timer"
    for again in ((), ("--check",)):
        assert host.changes(*again) == (0, []) and host.calls() == []

    # what is written is what was asked for
    tree = host.tree()
    assert tree["etc/upper/exfil-guard-pull/allowed_signers"] == (
        "alice@example.com ssh-ed25519 AAAA\nbob@example.com ssh-ed25519 BBBB\n")
    settings = json.loads(tree["etc/upper/exfil-guard-pull/settings.json"])
    assert (settings["host"], settings["timeout"], settings["url"]) == ("h1", 1800, VARIABLES["exfil_guard_pull_url"])
    unit = tree["etc/upper/systemd/system/exfil-guard-pull.service"]
    assert 'Environment="GIT_SSH_COMMAND=ssh -i \\"/etc/key\\" -o ServerAliveInterval=5%%"' in unit
    assert tree["etc/upper/systemd/system/timers.target.wants/exfil-guard-pull.timer"] == (
        "/etc/systemd/system/exfil-guard-pull.timer")

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


@pytest.mark.parametrize("variables, message", [
    ({"exfil_guard_pull_url": None}, "Set exfil_guard_pull_url to the repository"),
    ({"exfil_guard_pull_signers": None}, "and who may sign its commits"),
    ({"exfil_guard_pull_command": "/nonexistent/ansible-pull"}, "This host can't pull: ")])
def test_what_is_missing_is_told_and_nothing_written(host, variables, message):
    code, said = host.run(**variables)
    assert code != 0 and message in " ".join(said.split()), said
    assert host.tree() == {}


def test_an_ansible_that_is_too_old(host):
    old = host.folder / "ansible-pull"
    old.write_text("#!/bin/sh\necho 'ansible-pull [core 2.14.18]'\n")
    old.chmod(0o755)
    code, said = host.run(exfil_guard_pull_command=str(old))
    assert code != 0 and "This host has ansible-core 2.14.18, and needs 2.18 or newer" in " ".join(said.split()), said
    assert host.tree() == {}
