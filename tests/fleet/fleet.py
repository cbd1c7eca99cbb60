# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet on this machine: hosts with a bpffs, /var/lib and /run/lock of their own, reached by Ansible as any others.

Everything is in a mount namespace that one process keeps open and that goes with it. Root is needed, and a kernel with
overlayfs, bpffs and BTF; no BPF program is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any, Iterable, Mapping, NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
COLLECTIONS = os.path.join(ROOT, "collections")
if COLLECTIONS not in sys.path:
    sys.path.insert(0, COLLECTIONS)

from ansible_collections.exfil.guard.plugins.plugin_utils import _package

PYTHON = "/usr/bin/python3"
_MOUNTS = """set -e
mount -t bpf bpf "$1/bpf"
for each in usr etc srv; do
    mkdir -p "$1/upper/$each" "$1/spare/$each"
    mount -t overlay overlay -o "lowerdir=$1/image/$each:/$each,upperdir=$1/upper/$each,workdir=$1/spare/$each" "/$each"
done
echo ready
exec sleep infinity
"""
_IMAGE = """
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from exfil_guard.host import install
install.ensure(install.read_package(sys.argv[1]), root=sys.argv[2], control=lambda arguments: "")
"""
_INSTALL = """
import os, sys
sys.path[:0] = [{host!r}, "/usr/lib/exfil-guard"]
sys.dont_write_bytecode = True
import simulated
from exfil_guard.kernel import bpf
from exfil_guard.lifecycle import enforcer
with open("/usr/lib/exfil-guard/guard.bpf.o", "rb") as file:
    data = file.read()
described, relocations = dict(), dict()
for folder in sys.stdin.read().splitlines():
    os.makedirs(os.path.realpath(folder + "/bpf"))
    host = simulated.kernel_of(bpf, folder)
    host.described, host.relocations = described, relocations
    enforcer.ensure(host(os.path.realpath(folder + "/bpf")), data)
"""


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    text: str
    seconds: float


class Fleet:
    """``names``: the hosts, with the enforcer on them and no policy. ``folder``: a new one, for everything. ``files``: what
    every host has besides, below usr, etc and srv."""

    def __init__(self, folder: str, names: Iterable[str], files: Mapping[str, str] = {}) -> None:
        self.folder, self.names = folder, list(names)
        for each in ("bpf", "hosts", "image", "tmp"):
            os.makedirs(os.path.join(folder, each))
        package = os.path.join(folder, "package.zip")
        with open(package, "wb") as archive:
            archive.write(_package.build()[1])
        library = package + _package.LIBRARY
        subprocess.run([PYTHON, "-I", "-c", _IMAGE, library, os.path.join(folder, "image")], check=True)
        os.mkdir(os.path.join(folder, "image", "srv"))
        with open(os.path.join(ROOT, "tests", "guest", "harness", "systemctl"), encoding="utf-8") as file:
            systemctl = {"usr/bin/systemctl": file.read()}
        for path, text in {**systemctl, **files}.items():
            path = os.path.join(folder, "image", path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(path, 0o755)
        with open(os.path.join(folder, "ansible.cfg"), "w", encoding="ascii"):
            pass
        for name in self.names:
            self._make(name)
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNTS, "sh", folder],
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._keeper.stdout is None or self._keeper.stdout.readline() != "ready\n":
            raise OSError("bpffs and overlayfs can't be mounted here")
        made = self.run(
            [PYTHON, "-c", _INSTALL.format(host=os.path.join(HERE, "host"))], "\n".join(map(self.path, self.names))
        )
        if made.code:
            raise OSError(made.text)

    def path(self, name: str, *parts: str) -> str:
        return os.path.join(self.folder, "hosts", name, *parts)

    def _make(self, name: str) -> None:
        for each in ("lib", "lock"):
            os.makedirs(self.path(name, each))
        os.symlink(
            os.path.join(self.folder, "bpf", name.replace(".", "-")), self.path(name, "bpf")
        )  # bpffs has no dots
        with open(self.path(name, "python"), "w", encoding="utf-8") as file:
            file.write(
                '#!/bin/sh\nSIMULATED_HOST={0} PYTHONPATH={1} exec {2} "$@"\n'.format(
                    self.path(name), os.path.join(HERE, "host"), PYTHON
                )
            )
        os.chmod(self.path(name, "python"), 0o755)

    def close(self) -> None:
        self._keeper.terminate()
        self._keeper.wait()

    def run(
        self, command: list[str], given: str = "", timeout: float = 600, folder: str = "", **environment: str
    ) -> Ran:
        """A command where the hosts are. ``folder``: where it starts."""
        started = time.monotonic()
        done = subprocess.run(
            ["nsenter", "--mount", "--target", str(self._keeper.pid), "--wd=" + (folder or self.folder), *command],
            input=given,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            env=dict(os.environ, **environment),
        )
        return Ran(done.returncode, done.stdout, time.monotonic() - started)

    def host_variables(self, name: str) -> dict[str, Any]:
        return {"ansible_python_interpreter": self.path(name, "python"), "simulated_folder": self.path(name)}

    def variables(self) -> dict[str, Any]:
        """Those of all hosts: how to reach them. We are root already."""
        return {
            "ansible_connection": "simulated",
            "ansible_become": False,
            "ansible_remote_tmp": os.path.join(self.folder, "tmp"),
        }

    def settings(self) -> dict[str, str]:
        """The environment in which Ansible finds this repository's collection, and the hosts."""
        return {
            "ANSIBLE_CONFIG": os.path.join(self.folder, "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS,
            "NO_COLOR": "1",
            "ANSIBLE_CONNECTION_PLUGINS": os.path.join(HERE, "connection"),
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            "ANSIBLE_LOCAL_TEMP": os.path.join(self.folder, "tmp"),
            "ANSIBLE_HOME": os.path.join(self.folder, "home"),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def playbook(self, *arguments: str, timeout: float = 600, **environment: str) -> Ran:
        """ansible-playbook with what this repository has."""
        return self.run(
            [sys.executable, "-m", "ansible", "playbook", *arguments],
            timeout=timeout,
            **dict(self.settings(), **environment),
        )

    def status(self, name: str) -> dict[str, Any]:
        """`exfil-guard status --json` on a host."""
        done = self.run([self.path(name, "python"), "/usr/sbin/exfil-guard", "status", "--json"])
        found: dict[str, Any] = json.loads(done.text)
        return found
