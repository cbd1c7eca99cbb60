# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of two on the lab's virtual machines (make lab-up): web1, the canary, and db1."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SSH_CONFIG = ROOT / "lab" / ".build" / "ssh-config"
MACHINES = ("web1", "db1")
CONFIRM = 40  # seconds: who is not confirmed goes back after these


class Ran:
    def __init__(self, done):
        self.code, self.text = done.returncode, done.stdout


def run(*command, **options):
    """Output, or an error that shows it."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    assert done.returncode == 0, "{0}:\n{1}".format(" ".join(map(str, command)), done.stdout)
    return done.stdout.strip()


class Lab:
    """A copy of the lab's inventory to change, and the machines."""

    def __init__(self, folder):
        self.folder = folder / "site"
        shutil.copytree(ROOT / "inventories" / "lab", self.folder)
        hosts = self.folder / "hosts.yml"
        hosts.write_text(hosts.read_text().replace("guarded:\n", "canary:\n  hosts:\n    web1:\nguarded:\n", 1))
        common = self.folder / "group_vars" / "all.yml"
        common.write_text(
            common.read_text().replace("{{ inventory_dir }}/../../lab/.build/ssh-config", str(SSH_CONFIG))
        )

    def ssh(self, machine, command, **options):
        return run("ssh", "-F", SSH_CONFIG, machine, command, timeout=300, **options)

    def playbook(self, name, *arguments):
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                "-i",
                str(self.folder / "hosts.yml"),
                name,
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=1200,
            cwd=ROOT,
            env=dict(os.environ, ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), NO_COLOR="1"),
        )
        print(done.stdout)
        return Ran(done)

    def status(self, machine):
        # it ends with 1 when something is wrong, which it tells
        return json.loads(self.ssh(machine, "sudo exfil-guard status --json || [ $? = 1 ]"))

    def rules(self, machine):
        """Names of the rules in force, the confirmed ones or those on trial."""
        return [rule["name"] for rule in self.status(machine)["rules"]]

    def generations(self):
        return {machine: self.status(machine)["generation"] for machine in MACHINES}

    def may(self, machine, who, what):
        """How an attempt ended: ok, denied, or the name of an error."""
        trials = json.dumps([{"who": who, "do": [what]}])
        return json.loads(self.ssh(machine, "sudo /usr/local/bin/attempt --trials", input=trials))[0]["outcome"]

    def add_rule(self, text):
        """To what every guarded machine has."""
        path = self.folder / "policies" / "all.yml.j2"
        path.write_text(path.read_text().replace("assertions:\n", text + "assertions:\n", 1))


def wait(seconds, condition, what):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"not within {seconds} seconds: {what}"
        time.sleep(3)
