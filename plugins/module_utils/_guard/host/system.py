# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only place that asks the operating system what names mean. Tests and assertions put their own in its stead."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
import subprocess
from typing import Iterable, Iterator, NamedTuple

from ..errors import EnforcerError

MOUNTINFO = "/proc/self/mountinfo"
HOST_MOUNTINFO = "/proc/1/mountinfo"
DEVICE_TABLES = {
    "devices": "/proc/devices",
    "misc": "/proc/misc",
    "ttys": "/proc/tty/drivers",
    "consoles": "/proc/consoles",
}
UNIT_PROPERTIES = ("Id", "LoadState", "ControlGroup", "Slice")


class Entry(NamedTuple):
    directory: bool
    regular: bool
    device: int
    inode: int
    links: int


def _entry(found: os.stat_result) -> Entry:
    return Entry(stat.S_ISDIR(found.st_mode), stat.S_ISREG(found.st_mode), found.st_dev, found.st_ino, found.st_nlink)


class System:
    # ---- users and groups (NSS) ---------------------------------------------------------------------------------

    def user(self, name: str) -> int | None:
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            return None

    def group(self, name: str) -> int | None:
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    def user_name(self, number: int) -> str | None:
        try:
            return pwd.getpwuid(number).pw_name
        except KeyError:
            return None

    def group_name(self, number: int) -> str | None:
        try:
            return grp.getgrgid(number).gr_name
        except KeyError:
            return None

    def memberships(self, number: int) -> frozenset[int]:
        """The groups that a user has after login."""
        try:
            entry = pwd.getpwuid(number)
        except KeyError:
            return frozenset()
        return frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))

    def users(self) -> list[str]:
        """For suggestions only: a directory service need not list its users."""
        return [entry.pw_name for entry in pwd.getpwall()]

    def groups(self) -> list[str]:
        return [entry.gr_name for entry in grp.getgrall()]

    # ---- hosts (NSS, so DNS among others) ------------------------------------------------------------------------

    def addresses(self, name: str) -> list[str]:
        """IPv4 and IPv6 addresses of a host; none when it does not resolve."""
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []
        return sorted({str(each[4][0]).partition("%")[0] for each in found})

    # ---- the process itself -------------------------------------------------------------------------------------

    def current_process(self) -> dict[str, str]:
        """What /proc says of this process; of what it does not say there is no entry."""
        found = {}
        for name in ("status", "cgroup", "loginuid"):
            try:
                with open("/proc/self/" + name, encoding="utf-8", errors="surrogateescape") as file:
                    found[name] = file.read()
            except OSError:
                continue  # no audit in this kernel
        found["executable"] = os.path.realpath("/proc/self/exe")
        return found

    # ---- other processes ----------------------------------------------------------------------------------------

    def process(self, number: int) -> dict[str, str]:
        """What /proc says of a process; of one that is gone nothing."""
        found = {}
        for name in ("stat", "status"):
            try:
                with open(f"/proc/{number}/{name}", encoding="utf-8", errors="surrogateescape") as file:
                    found[name] = file.read()
            except OSError:
                continue
        return found

    def executable(self, number: int) -> str | None:
        """None: it is gone, is the kernel's own, or may not be looked at."""
        try:
            return os.readlink(f"/proc/{number}/exe")
        except OSError:
            return None

    # ---- paths --------------------------------------------------------------------------------------------------

    def mountinfo(self) -> str:
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    def host_mounts(self) -> str:
        """The first process's: what a unit that is shut in sees is not what paths mean on the host."""
        with open(HOST_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def realpath(self, path: str) -> str:
        return os.path.realpath(path)

    def entry(self, path: str) -> Entry | None:
        """What is at a path, no link followed; None: nothing, or it can't be told."""
        try:
            return _entry(os.lstat(path))
        except OSError:
            return None

    def entries(self, folder: str) -> Iterator[tuple[str, Entry]]:
        """What is in a folder. One that goes meanwhile has nothing in it."""
        try:
            with os.scandir(folder) as found:
                for each in found:
                    try:
                        yield each.name, _entry(each.stat(follow_symlinks=False))
                    except OSError:
                        continue
        except OSError:
            return

    def names(self, folder: str) -> list[str]:
        """For suggestions."""
        try:
            return os.listdir(folder)
        except OSError:
            return []

    # ---- devices ------------------------------------------------------------------------------------------------

    def device_tables(self) -> dict[str, str]:
        """What the kernel says of the numbers of its devices; a table that this kernel lacks is empty."""
        tables = {}
        for name, path in DEVICE_TABLES.items():
            try:
                with open(path, encoding="utf-8", errors="surrogateescape") as file:
                    tables[name] = file.read()
            except FileNotFoundError:
                tables[name] = ""
        return tables

    # ---- systemd units ------------------------------------------------------------------------------------------

    def units(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """UNIT_PROPERTIES of each unit, by one call. Never called when a policy names no service."""
        wanted = list(names)
        command = ["systemctl", "show", "--property=" + ",".join(UNIT_PROPERTIES), "--", *wanted]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=30,
                check=False,
                env=dict(os.environ, LC_ALL="C", SYSTEMD_PAGER=""),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EnforcerError(
                f"systemd does not say where services run: {error}",
                "Look at `systemctl status`, or name no services in the policy",
            ) from error
        text = done.stdout.decode("utf-8", "surrogateescape")
        blocks = [
            dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            for block in text.split("\n\n")
            if block.strip()
        ]
        if len(blocks) != len(wanted):
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise EnforcerError(
                "systemd does not say where services run: {0}".format(
                    said[0] if said else f"{len(blocks)} answers for {len(wanted)} units"
                ),
                "Look at `systemctl status`, or name no services in the policy",
            )
        return dict(zip(wanted, blocks))
