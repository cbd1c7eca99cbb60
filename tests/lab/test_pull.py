# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GitOps on virtual machines: what is merged in a Git repository changes what alice may do on both, with no other hand. What
is not signed changes nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from machines import MACHINES, ROOT, SSH_CONFIG, run, wait

SERVER = "192.168.157.12"  # db1 serves the repository; web1 may reach it, as it is the company's
FILE = "/srv/public/readme.txt"
RULE = """  - name: alice does not read what is published
    deny: [read]
    subjects: {users: [alice]}
    resources: {paths: [/srv/public/readme.txt]}
"""
PULL_SECONDS = 20
ANSIBLE = "/opt/ansible"
COMMAND = """#!/bin/sh
PYTHONPATH={0} exec {0}/bin/ansible-pull "$@"
"""


def pinned(*names):
    """As the controller has them."""
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    return [line for line in lines if line.partition("==")[0] in names]


@pytest.fixture(scope="module", name="ansible")
def fixture_ansible(tmp_path_factory):
    """A newer Ansible than Debian's, and the collection, as an archive for /opt/ansible on the machines, which run the Python
    that we do."""
    folder = tmp_path_factory.mktemp("ansible")
    tree = folder / "tree"
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-compile",
        "--target",
        tree,
        *pinned("ansible-core", "jsonschema"),
    )
    for script in (tree / "bin").iterdir():
        script.write_text("#!/usr/bin/python3\n" + script.read_text().partition("\n")[2])
    (tree / "pull").write_text(COMMAND.format(ANSIBLE))
    (tree / "pull").chmod(0o755)
    run(Path(sys.executable).with_name("ansible-galaxy"), "collection", "build", "--output-path", folder, cwd=ROOT)
    run(
        Path(sys.executable).with_name("ansible-galaxy"),
        "collection",
        "install",
        "--collections-path",
        tree / "collections",
        next(folder.glob("exfil-guard-*.tar.gz")),
        "--no-deps",
        "--offline",
        cwd=folder,
    )
    archive = folder / "ansible.tar.gz"
    run("tar", "-C", tree, "-czf", archive, ".")
    return archive


class Repository:
    """site.git on db1, and a clone here."""

    def __init__(self, lab, folder):
        self.work = folder / "work"
        self.key = folder / "alex"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alex", "-f", self.key)
        lab.ssh(
            "db1",
            "sudo sh -ec 'rm -rf /srv/git; install -d -o vagrant /srv/git'; git init -q --bare -b main /srv/git/site.git;"
            "sudo systemctl reset-failed git-server 2>/dev/null; sudo systemctl stop git-server 2>/dev/null;"
            "sudo systemd-run -q --unit git-server --uid vagrant git daemon --export-all --base-path=/srv/git "
            "--listen=%s --reuseaddr" % SERVER,
        )
        run("git", "init", "-q", "-b", "main", self.work)
        self.git("remote", "add", "origin", "ssh://db1/srv/git/site.git")

    def git(self, *arguments):
        return run(
            "git",
            "-C",
            self.work,
            "-c",
            "user.name=alex",
            "-c",
            "user.email=alex@example.com",
            "-c",
            "gpg.format=ssh",
            "-c",
            "user.signingkey=%s" % self.key,
            *arguments,
            env=dict(os.environ, GIT_SSH_COMMAND="ssh -F %s" % SSH_CONFIG),
        )

    def push(self, message, signed):
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message, *(["-S"] if signed else []))
        self.git("push", "-q", "origin", "main")
        return self.git("rev-parse", "HEAD")


def wait_for_pull(lab, machine, revision, *outcomes):
    """Until a pull of ``revision`` has ended so."""

    def there():
        found = json.loads(lab.ssh(machine, "sudo cat /var/lib/exfil-guard-pull/result.json 2>/dev/null || echo '{}'"))
        return found.get("revision") == revision and found["outcome"] in outcomes

    wait(600, there, "{0} pulls {1}: {2}".format(machine, revision, " or ".join(outcomes)))


def test_what_is_merged_comes_into_force_on_both(lab, ansible, tmp_path):
    for machine in MACHINES:
        with open(ansible, "rb") as stream:
            done = subprocess.run(
                [
                    "ssh",
                    "-F",
                    SSH_CONFIG,
                    machine,
                    f"sudo sh -ec 'rm -rf {ANSIBLE}; mkdir {ANSIBLE}; tar -C {ANSIBLE} -xzf -; "
                    f"chown -R root: {ANSIBLE}'",
                ],
                stdin=stream,
                check=False,
            )
        assert done.returncode == 0
    repository = Repository(lab, tmp_path)
    for name in ("policies", "group_vars"):
        shutil.copytree(lab.folder / name, repository.work / name)
    shutil.copy(lab.folder / "hosts.yml", repository.work / "hosts.yml")
    (repository.work / "pull.yml").write_text("- name: The policy of this host\n  import_playbook: exfil.guard.pull\n")
    first = repository.push("The policy as it is", signed=True)

    variables = lab.folder / "pull.json"
    variables.write_text(
        json.dumps(
            {
                "exfil_guard_pull_url": "git://%s/site.git" % SERVER,
                "exfil_guard_pull_signers": [
                    "alex@example.com " + repository.key.with_suffix(".pub").read_text().strip()
                ],
                "exfil_guard_pull_seconds": PULL_SECONDS,
                "exfil_guard_pull_splay": 1,
                "exfil_guard_pull_command": ANSIBLE + "/pull",
                "exfil_guard_pull_environment": {"ANSIBLE_COLLECTIONS_PATH": ANSIBLE + "/collections"},
            }
        )
    )
    play = lab.folder / "role.yml"
    play.write_text(
        json.dumps(
            [
                {
                    "name": "Let hosts pull",
                    "hosts": "guarded",
                    "gather_facts": False,
                    "become": True,
                    "roles": ["exfil.guard.pull"],
                }
            ]
        )
    )
    for arguments in (
        ("-e", "exfil_guard_state=absent"),
        ("-e", "@%s" % variables),
    ):  # an earlier run may have been ended
        found = lab.playbook(str(play), *arguments)
        assert found.code == 0, found.text
    try:
        for machine in MACHINES:
            wait_for_pull(lab, machine, first, "ok", "unchanged")
            assert lab.may(machine, "alice", "read:" + FILE) == "ok"
        policies = repository.work / "policies" / "all.yml.j2"
        before = policies.read_text()
        changed = before.replace("assertions:\n", RULE + "assertions:\n", 1).replace(
            "path: %s, expect: allow" % FILE, "path: %s, expect: deny" % FILE
        )
        assert changed != before

        policies.write_text(changed)
        unsigned = repository.push("Not signed", signed=False)
        for machine in MACHINES:
            wait_for_pull(lab, machine, unsigned, "refused")
            assert lab.may(machine, "alice", "read:" + FILE) == "ok"
            assert lab.status(machine)["revision"] in (first, None)

        repository.git("commit", "-q", "--amend", "-S", "-m", "Signed")
        repository.git("push", "-q", "-f", "origin", "main")
        signed = repository.git("rev-parse", "HEAD")
        for machine in MACHINES:
            wait_for_pull(lab, machine, signed, "ok", "unchanged")
            assert lab.may(machine, "alice", "read:" + FILE) == "denied"
            assert lab.status(machine)["revision"] == signed
    finally:
        lab.playbook(str(play), "-e", "exfil_guard_state=absent")
        lab.ssh("db1", "sudo systemctl stop git-server")
    for machine in MACHINES:
        assert (
            lab.ssh(machine, "ls -d /etc/exfil-guard-pull /etc/systemd/system/exfil-guard-pull* 2>/dev/null || :") == ""
        )
