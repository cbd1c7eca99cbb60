# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host for one role: this machine, with everything that it writes kept apart, and a systemctl that only notes."""

import json
import os
import re
import subprocess
import sys

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


class Host:
    def __init__(self, folder, role, variables):
        self.folder, self.role, self.variables = folder, role, variables
        (folder / "bin").mkdir()
        (folder / "bin" / "systemctl").write_text(SYSTEMCTL.format(folder))
        (folder / "bin" / "systemctl").chmod(0o755)
        (folder / "ansible.cfg").write_text("")
        (folder / "play.json").write_text(
            json.dumps(
                [
                    {
                        "name": "Play",
                        "hosts": "h1",
                        "gather_facts": False,
                        "tasks": [{"name": "Role", "ansible.builtin.include_role": {"name": role}}],
                    }
                ]
            )
        )
        (folder / "hosts.json").write_text(
            json.dumps(
                {
                    "all": {
                        "hosts": {
                            "h1": {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
                        }
                    }
                }
            )
        )

    def run(self, *options, **variables):
        given = {key: value for key, value in dict(self.variables, **variables).items() if value is not None}
        done = subprocess.run(
            [
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                _HOST,
                "sh",
                str(self.folder / "host"),
                sys.executable,
                "-m",
                "ansible",
                "playbook",
                "-i",
                str(self.folder / "hosts.json"),
                "--diff",
                "-e",
                json.dumps(given),
                *options,
                str(self.folder / "play.json"),
            ],
            env=dict(
                os.environ,
                PATH="{0}:{1}".format(self.folder / "bin", os.environ["PATH"]),
                NO_COLOR="1",
                ANSIBLE_CONFIG=str(self.folder / "ansible.cfg"),
                ANSIBLE_COLLECTIONS_PATH=COLLECTIONS,
                ANSIBLE_HOME=str(self.folder / "home"),
            ),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def changes(self, *options, **variables):
        """How many tasks changed something, and the diff."""
        code, said = self.run(*options, **variables)
        assert code == 0, said
        return int(re.findall(r"changed=(\d+)", said)[-1]), sorted(
            line for line in said.splitlines() if re.match(r"[+-] ?[^+-]", line) and "ansible-tmp" not in line
        )

    def tree(self):
        """What differs from this machine: path -> content, None for what was removed."""
        found = {}
        for layer in ("etc/upper", "usr/upper", "lib"):
            top = self.folder / "host" / layer
            for path in sorted(top.rglob("*")) if top.is_dir() else ():
                if "exfil" in path.name or "exfil" in str(path.relative_to(top)):
                    found[str(path.relative_to(self.folder / "host"))] = (
                        os.readlink(path)
                        if path.is_symlink()
                        else path.read_text()
                        if path.is_file()
                        else "folder"
                        if path.is_dir()
                        else None
                    )
        return found

    def calls(self):
        """What systemd was told to do."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        if lines:
            path.write_text("")
        return [line for line in lines if not line.startswith("show")]
