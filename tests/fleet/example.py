# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""inventories/example as a repository of its own, with the four hosts that it has, simulated; and its people, of whom
alice may sign."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from fleet import ROOT, Fleet, Ran

EXAMPLE = os.path.join(ROOT, "inventories", "example")
HOSTS = ["web1.example.com", "web2.example.com", "db1.example.com", "backup1.example.com"]


def _read(*parts: str) -> str:
    with open(os.path.join(*parts), encoding="utf-8") as file:
        return file.read()


# what the example's policies name
WITH_IT = {
    "usr/bin/systemctl": _read(ROOT, "tests", "guest", "harness", "systemctl"),
    "usr/bin/restic": "",
    "etc/shop/tls.key": "",
    "srv/exports/a.csv": "",
    "srv/restic/config": "",
    "srv/shop/uploads/a": "",
    "etc/group": _read("/etc/group") + "dba:x:64001:\nrestore:x:64002:\n",
    "etc/passwd": _read("/etc/passwd") + "alice:x:64003:64003::/nonexistent:/bin/false\n",
}


def run(*command: str, **options: Any) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


class Example:
    """``folder``: a new one, for everything. ``work``: the clone to work in; ``bare``: what it is pushed to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work, self.bare = folder, folder / "work", folder / "server.git"
        for name in ("alice", "mallory"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name))
        self.signers = folder / "allowed_signers"
        self.signers.write_text("alice@example.com " + (folder / "alice.pub").read_text())
        (folder / "bin").mkdir()
        for name in ("ansible", "ansible-playbook", "ansible-galaxy"):
            (folder / "bin" / name).write_text(
                '#!/bin/sh\nexec {0} -m ansible {1} "$@"\n'.format(sys.executable, name.partition("-")[2] or "adhoc")
            )
            (folder / "bin" / name).chmod(0o755)
        run("git", "init", "-q", "--bare", "-b", "main", str(self.bare))
        shutil.copytree(EXAMPLE, self.work)
        self.fleet = Fleet(str(folder / "fleet"), HOSTS, WITH_IT)
        for name in HOSTS:
            os.mkdir(self.fleet.path(name, "lib", "postgresql"))
        # a machine that is busy with other things has its time to confirm
        variables = dict(
            self.fleet.variables(),
            **self.fleet.host_variables("{{ inventory_hostname }}"),
            exfil_guard_confirm_seconds=900,
        )
        (self.work / "group_vars" / "guarded.yml").write_text(json.dumps(variables))
        self.edit("ci/rollout.yml", "exfil_guard_confirm_seconds: 120\n", "")
        self.sign("alice")
        self.git("init", "-q", "-b", "main")
        self.git("remote", "add", "origin", f"file://{self.bare}")
        self.commit("The example")

    def close(self) -> None:
        self.fleet.close()

    def sign(self, name: str) -> None:
        """Who signs from here on; empty: nobody."""
        (self.folder / "gitconfig").write_text(
            "[user]\n\tname = x\n\temail = x@example.com\n\tsigningkey = {0}/{1}\n[gpg]\n\tformat = ssh\n"
            '[commit]\n\tgpgsign = {2}\n[safe]\n\tdirectory = *\n[protocol "file"]\n\tallow = always\n'.format(
                self.folder, name or "alice", "true" if name else "false"
            )
        )

    def environment(self) -> dict[str, str]:
        return dict(
            self.fleet.settings(),
            GIT_CONFIG_NOSYSTEM="1",
            GIT_CONFIG_GLOBAL=str(self.folder / "gitconfig"),
            GIT_TERMINAL_PROMPT="0",
            GNUPGHOME=str(self.folder),
            EXFIL_GUARD_SIGNERS=str(self.signers),
            PATH="{0}:{1}".format(self.folder / "bin", os.environ["PATH"]),
            LC_ALL="C.UTF-8",
        )

    def git(self, *arguments: str) -> str:
        return run("git", "-C", str(self.work), *arguments, env=dict(os.environ, **self.environment()))

    def commit(self, message: str, push: bool = True) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        if push:
            self.git("push", "-q", "-f", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.work / path).read_text()
        assert text.count(old) == 1, (path, old)
        (self.work / path).write_text(text.replace(old, new))

    def run(self, *command: str, **environment: str) -> Ran:
        """A command in the clone."""
        return self.fleet.run(list(command), folder=str(self.work), **dict(self.environment(), **environment))

    def rules(self, name: str) -> dict[str, bool]:
        """In force on a host: name -> whether it only reports."""
        return {each["name"]: each["audit"] for each in self.fleet.status(name)["rules"] if each["audit"] is not None}

    def everywhere(self) -> list[dict[str, bool]]:
        return [self.rules(name) for name in HOSTS]
