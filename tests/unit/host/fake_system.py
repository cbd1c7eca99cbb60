# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in memory with the methods of guard.system.System."""

from __future__ import annotations

import posixpath
from typing import Container, Iterable, Iterator

from ansible_collections.exfil.guard.plugins.module_utils._guard.host.system import Entry, Step

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:22 / /proc rw - proc proc rw
23 21 8:2 / /srv rw shared:2 - ext4 /dev/sdb1 rw
24 21 8:1 /var/real /mnt rw - ext4 /dev/sda1 rw
25 21 0:30 / /tmp rw - tmpfs tmpfs rw
26 21 8:3 / /with\\040space rw - ext4 /dev/sdc rw
"""


class FakeSystem:
    def __init__(self) -> None:
        self.accounts: dict[str, int] = {"root": 0, "alice": 1000, "bob": 1001}
        self.teams: dict[str, int] = {"root": 0, "dba": 500, "alice": 1000}
        self.mounts = MOUNTS
        self.host: str | None = None  # the first process's mounts, where they are others
        self.files = {
            "/",
            "/srv",
            "/srv/exports",
            "/usr/bin/cat",
            "/var/log",
            "/mnt",
            "/with space",
            "/usr/lib/exfil-guard/canary/denied",
            "/usr/lib/exfil-guard/canary/allowed",
        }
        self.links: dict[str, str] = {}
        self.owners: dict[str, int] = {}  # of files and links; root owns the others
        self.shared: set[str] = set()  # folders that others can write to
        self.inodes: dict[str, tuple[int, int, int]] = {}  # path: device, inode, link count
        self.hosts: dict[str, list[str]] = {}
        self.known_units: dict[str, dict[str, str]] = {}
        self.unit_calls: list[list[str]] = []
        self.me = {
            "status": "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t\n",
            "cgroup": "0::/user.slice\n",
            "loginuid": "4294967295",
            "executable": "/usr/bin/cat",
        }
        self.processes: dict[int, dict[str, str]] = {}
        self.executables: dict[int, str] = {}
        self.tables = {"devices": "", "misc": "", "ttys": "", "consoles": ""}

    def user(self, name: str) -> int | None:
        return self.accounts.get(name)

    def group(self, name: str) -> int | None:
        return self.teams.get(name)

    def user_name(self, number: int) -> str | None:
        return next((name for name, each in self.accounts.items() if each == number), None)

    def group_name(self, number: int) -> str | None:
        return next((name for name, each in self.teams.items() if each == number), None)

    def memberships(self, number: int) -> frozenset[int]:
        return frozenset({number})

    def users(self) -> list[str]:
        return list(self.accounts)

    def groups(self) -> list[str]:
        return list(self.teams)

    def addresses(self, name: str) -> list[str]:
        return self.hosts.get(name, [])

    def mountinfo(self) -> str:
        return self.mounts

    def host_mounts(self) -> str:
        return self.mounts if self.host is None else self.host

    def exists(self, path: str) -> bool:
        real = self.realpath(path)
        return path in self.links or any(each == real or each.startswith(real.rstrip("/") + "/") for each in self.files)

    def realpath(self, path: str) -> str:
        for link, target in self.links.items():
            if path == link or path.startswith(link + "/"):
                return self.realpath(target + path[len(link) :])
        return posixpath.normpath(path)

    def step(self, path: str, mounts: Container[int]) -> Step | None:
        known = self.files | set(self.links)
        if not any(each == path or each.startswith(path.rstrip("/") + "/") for each in known):
            return None
        return Step(self.links.get(path), not self.owners.get(path) and path not in self.shared)

    def below(self, folder: str, names: Iterable[str]) -> bool | None:
        path = folder
        for name in names:
            path = posixpath.join(path, name)
            if path in self.links:
                return None
            if not self.exists(path):
                return False
        return True

    def names(self, folder: str) -> list[str]:
        inside = folder.rstrip("/") + "/"
        return sorted({each[len(inside) :].split("/")[0] for each in self.files if each.startswith(inside)})

    def current_process(self) -> dict[str, str]:
        return dict(self.me)

    def process(self, number: int) -> dict[str, str]:
        return self.processes.get(number, {})

    def executable(self, number: int) -> str | None:
        return self.executables.get(number)

    def device_tables(self) -> dict[str, str]:
        return self.tables

    def entry(self, path: str) -> Entry | None:
        if not self.exists(path) or path in self.links:
            return None
        directory = any(each.startswith(path.rstrip("/") + "/") for each in self.files)
        device, inode, links = self.inodes.get(path, (1, sum(path.encode()), 1))
        return Entry(directory, not directory, device, inode, links)

    def entries(self, folder: str, without: Container[str] = ()) -> Iterator[tuple[str, Entry]]:
        for name in self.names(folder):
            found = self.entry(posixpath.join(folder, name))
            if found:
                yield name, found

    def units(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        self.unit_calls.append(list(names))
        unknown = {"LoadState": "not-found", "ControlGroup": "", "Slice": ""}
        return {name: self.known_units.get(name, dict(unknown, Id=name)) for name in self.unit_calls[-1]}
