# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pull: the real command with the real Git and ansible-pull, from a bare repository on this machine. What is signed by who
may sign comes into force on a simulated host; of anything else nothing is run."""

import fcntl
import json
import os
import shutil
import subprocess
import sys

import pytest
from fleet import COLLECTIONS, HERE, ROOT, Fleet

COMMAND = os.path.join(ROOT, "roles", "pull", "files", "exfil-guard-pull")
POLICY = """policy: 1
rules:
  - {{name: {name}, deny: [connect], destinations: {{not: [loopback]}}}}
"""


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


class Repository:
    """A bare repository, a clone to work in, and three people with keys of which alice's and the team's may sign."""

    def __init__(self, folder):
        self.folder, self.bare, self.work = folder, folder / "site.git", folder / "work"
        self.gnupg = str(folder / "team")
        os.mkdir(self.gnupg, 0o700)
        run("git", "init", "-q", "--bare", "-b", "main", str(self.bare))
        run("git", "clone", "-q", str(self.bare), str(self.work))
        self.git("checkout", "-q", "-b", "main")
        for name in ("alice", "mallory"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name))
        for person in ("team", "stranger"):
            run(
                "gpg",
                "--homedir",
                self.gnupg,
                "--batch",
                "--quiet",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "",
                "--quick-generate-key",
                person + "@example.com",
                "ed25519",
                "sign",
                "never",
            )

    def git(self, *arguments):
        return run(
            "git",
            "-C",
            str(self.work),
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@example.com",
            *arguments,
            env=dict(os.environ, GNUPGHOME=self.gnupg),
        )

    def commit(self, signer=None, push=True, **files):
        for name, text in files.items():
            path = self.work / name.replace("__", "/").replace("_yml", ".yml").replace("_j2", ".j2")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        signed = {
            None: [],
            "alice": self._ssh("alice"),
            "mallory": self._ssh("mallory"),
            "team": ["-c", "user.signingkey=team@example.com"],
            "stranger": ["-c", "user.signingkey=stranger@example.com"],
        }[signer]
        self.git(*signed, "commit", "-q", "--allow-empty", *(["-S"] if signer else []), "-m", "change")
        if push:
            self.git("push", "-q", "-f", "origin", "main")
        return self.git("rev-parse", "HEAD")

    def _ssh(self, name):
        return ["-c", "gpg.format=ssh", "-c", "user.signingkey=" + str(self.folder / name)]


class Puller:
    """A simulated host that pulls, set up as role exfil.guard.pull does it."""

    def __init__(self, folder):
        self.repository = Repository(folder)
        self.fleet = Fleet(str(folder / "fleet"), ["h1"])
        self.folder = folder / "pull"
        (self.folder / "gnupg").mkdir(parents=True, mode=0o700)
        (self.folder / "allowed_signers").write_text("alice@example.com " + (folder / "alice.pub").read_text())
        key = run("gpg", "--homedir", self.repository.gnupg, "--armor", "--export", "team@example.com")
        run("gpg", "--homedir", str(self.folder / "gnupg"), "--batch", "--quiet", "--import", input=key)
        (self.folder / "gitconfig").write_text(f'[gpg "ssh"]\n\tallowedSignersFile = {self.folder}/allowed_signers\n')
        self.settings = {
            "url": f"file://{self.repository.bare}",
            "branch": "main",
            "inventory": "hosts.yml",
            "playbook": "pull.yml",
            "host": "h1",
            "timeout": 120,
            "folder": str(self.folder),
            "command": os.path.join(os.path.dirname(sys.executable), "ansible-pull"),
        }
        variables = dict(self.fleet.variables(), **self.fleet.host_variables("h1"))
        self.first = {
            "hosts_yml": json.dumps({"guarded": {"hosts": {"h1": variables}}}),
            "pull_yml": json.dumps([{"name": "The policy of this host", "import_playbook": "exfil.guard.pull"}]),
            "policies__all_yml_j2": POLICY.format(name="one"),
        }

    def pull(self, **settings):
        """(exit status, result.json)"""
        path = self.folder / "settings.json"
        path.write_text(json.dumps(dict(self.settings, **settings)))
        done = self.fleet.run(
            [sys.executable, COMMAND, str(path)],
            HOME=str(self.folder),
            GNUPGHOME=str(self.folder / "gnupg"),
            GIT_CONFIG_NOSYSTEM="1",
            GIT_CONFIG_GLOBAL=str(self.folder / "gitconfig"),
            GIT_TERMINAL_PROMPT="0",
            ANSIBLE_COLLECTIONS_PATH=COLLECTIONS,
            ANSIBLE_CONNECTION_PLUGINS=os.path.join(HERE, "connection"),
            ANSIBLE_CONFIG=os.path.join(self.fleet.folder, "ansible.cfg"),
            LC_ALL="C.UTF-8",
        )
        self.said = done.text
        with open(self.folder / "result.json", encoding="utf-8") as file:
            return done.code, json.load(file)

    def rules(self):
        return [each["name"] for each in self.fleet.status("h1")["rules"] if each["audit"] is not None]


@pytest.fixture
def puller(tmp_path):
    found = Puller(tmp_path)
    try:
        yield found
    finally:
        found.fleet.close()


def test_signed_commits_come_into_force_and_others_do_not(puller):
    repository = puller.repository
    # nothing yet, and then a first commit that nobody signed
    code, result = puller.pull()
    assert code == 1 and result["outcome"] == "unreachable" and result["revision"] is None
    unsigned = repository.commit(None, **puller.first)
    code, result = puller.pull()
    assert (code, result["outcome"], result["revision"]) == (1, "refused", unsigned)
    assert result["message"] == f"commit {unsigned[:12]} is not signed by anyone who may sign: there is no signature"
    assert puller.rules() == [] and not (puller.folder / "checkout").exists()
    # alice signs it, too
    first = repository.commit("alice")
    code, result = puller.pull()
    assert (code, result["outcome"], result["revision"]) == (0, "ok", first), puller.said
    assert puller.rules() == ["one"] and puller.fleet.status("h1")["revision"] == first
    assert not puller.fleet.status("h1")["pending"]
    code, result = puller.pull()
    assert (code, result["outcome"]) == (0, "unchanged")
    # the wrong people
    for signer in ("mallory", "stranger", None):
        wrong = repository.commit(signer, policies__all_yml_j2=POLICY.format(name="two"))
        code, result = puller.pull()
        assert (code, result["outcome"], result["revision"]) == (1, "refused", wrong), (signer, puller.said)
        assert puller.rules() == ["one"]
    # the team's OpenPGP key
    second = repository.commit("team")
    code, result = puller.pull()
    assert (code, result["outcome"], result["revision"]) == (0, "ok", second), puller.said
    assert puller.rules() == ["two"]
    # a server that brings back what was signed once, or gives its number to a name
    repository.git("reset", "-q", "--hard", first)
    repository.git("push", "-q", "-f", "origin", "main")
    code, result = puller.pull()
    assert (code, result["outcome"]) == (1, "refused") and f"does not follow commit {second[:12]}" in result["message"]
    repository.git("reset", "-q", "--hard", second)
    repository.commit(None, policies__all_yml_j2=POLICY.format(name="three"))
    repository.git("push", "-q", "origin", f"{second}:refs/tags/main")
    code, result = puller.pull()
    assert (code, result["outcome"]) == (1, "refused") and puller.rules() == ["two"]


def test_what_can_go_wrong_is_told_and_the_next_pull_mends(puller):
    first = puller.repository.commit("alice", **puller.first)
    code, result = puller.pull(url="file:///nonexistent")
    assert (code, result["outcome"]) == (1, "unreachable") and "file:///nonexistent can't be fetched: " in result[
        "message"
    ]
    code, result = puller.pull(branch="nope")
    assert (code, result["outcome"]) == (1, "unreachable")
    code, result = puller.pull(command="/nonexistent/ansible-pull")
    assert result["message"] == "/nonexistent/ansible-pull can't be run: No such file or directory"
    code, result = puller.pull(host="h2")
    assert code == 1 and result["outcome"] == "failed", puller.said
    code, result = puller.pull(inventory="nope.yml")
    assert code == 1 and result["outcome"] == "failed", puller.said
    assert puller.rules() == []
    # a pull that was killed in the middle of a clone
    (puller.folder / "checkout").mkdir(exist_ok=True)
    (puller.folder / "result.json").write_text("{")
    code, result = puller.pull()
    assert (code, result["outcome"], result["revision"]) == (0, "ok", first), puller.said
    assert puller.rules() == ["one"]
    # a policy that is not valid
    puller.repository.commit("alice", policies__all_yml_j2="policy: 1\nrules: [{name: x}]\n")
    code, result = puller.pull()
    assert (
        code == 1 and result["outcome"] == "failed" and "The policy of this host is not valid" in result["message"]
    ), result
    assert puller.rules() == ["one"]
    puller.repository.commit("alice", policies__all_yml_j2=POLICY.format(name="two"))
    assert puller.pull()[1]["outcome"] == "ok" and puller.rules() == ["two"]


def test_a_policy_under_which_the_repository_can_not_be_reached_is_not_confirmed(puller):
    puller.repository.commit("alice", **puller.first)
    assert puller.pull()[0] == 0
    # git answers to fetch, and no more once the policy is in force: as if the new rule had cut it off
    wrapper = puller.folder / "bin"
    wrapper.mkdir()
    (wrapper / "git").write_text(
        '#!/bin/sh\n[ "$1 $2" != "ls-remote --quiet" ] || exit 128\nexec {} "$@"\n'.format(shutil.which("git"))
    )
    (wrapper / "git").chmod(0o755)
    puller.repository.commit("alice", policies__all_yml_j2=POLICY.format(name="cuts off"))
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{wrapper}:{path}"
    try:
        code, result = puller.pull()
    finally:
        os.environ["PATH"] = path
    assert code == 1 and result["outcome"] == "failed", puller.said
    status = puller.fleet.status("h1")
    assert status["pending"] and status["fallback_generation"] == 1
    assert status["confirmed_generation"] == 1


def test_two_pulls_at_once(puller):
    with open(puller.folder / "lock", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (puller.folder / "result.json").write_text('{"outcome": "running"}')
        code, result = puller.pull()
        assert code == 0 and result == {"outcome": "running"} and "another pull is running" in puller.said


def test_without_settings():
    done = subprocess.run([sys.executable, COMMAND, "/nonexistent"], capture_output=True, text=True)
    assert done.returncode == 2 and "Run role exfil.guard.pull" in done.stderr and "Traceback" not in done.stderr
