# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only access to the operating system's names: users, groups, hosts, paths, devices and units. Tests and
assertions replace it."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
import subprocess
from typing import Container, Iterable, Iterator, NamedTuple

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
    """The attributes of a file."""

    directory: bool
    regular: bool
    device: int
    inode: int
    links: int


class Step(NamedTuple):
    """A file on the way of a path, nothing followed.

    ``link``: the target of a symbolic link, None if it is none. ``root_only``: root owns it, nobody else can write to
    it, and its filesystem is not a user's. Of a link, the owner counts."""

    link: str | None
    root_only: bool


def _entry(status: os.stat_result) -> Entry:
    return Entry(
        stat.S_ISDIR(status.st_mode), stat.S_ISREG(status.st_mode), status.st_dev, status.st_ino, status.st_nlink
    )


class System:
    """The running host."""

    # ---- users and groups (NSS) ---------------------------------------------------------------------------------

    def user(self, name: str) -> int | None:
        """The id of a user, or None."""
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            return None

    def group(self, name: str) -> int | None:
        """The id of a group, or None."""
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    def user_name(self, number: int) -> str | None:
        """The name of a user id, or None."""
        try:
            return pwd.getpwuid(number).pw_name
        except KeyError:
            return None

    def group_name(self, number: int) -> str | None:
        """The name of a group id, or None."""
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
        """User names, for suggestions only: a directory service may not list all users."""
        return [entry.pw_name for entry in pwd.getpwall()]

    def groups(self) -> list[str]:
        """Group names, for suggestions only."""
        return [entry.gr_name for entry in grp.getgrall()]

    # ---- hosts (NSS, so DNS among others) ------------------------------------------------------------------------

    def addresses(self, name: str) -> list[str]:
        """The IPv4 and IPv6 addresses of a host. Empty if it does not resolve."""
        try:
            results = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []
        return sorted({str(result[4][0]).partition("%")[0] for result in results})

    # ---- the process itself -------------------------------------------------------------------------------------

    def current_process(self) -> dict[str, str]:
        """The attributes of this process in /proc. Those that the kernel does not have are left out."""
        attributes = {}
        for name in ("status", "cgroup", "loginuid"):
            try:
                with open("/proc/self/" + name, encoding="utf-8", errors="surrogateescape") as file:
                    attributes[name] = file.read()
            except OSError:
                continue  # a kernel without audit has no loginuid
        attributes["executable"] = os.path.realpath("/proc/self/exe")
        return attributes

    # ---- other processes ----------------------------------------------------------------------------------------

    def process(self, number: int) -> dict[str, str]:
        """The attributes of a process in /proc. Empty if it has exited."""
        attributes = {}
        for name in ("stat", "status"):
            try:
                with open(f"/proc/{number}/{name}", encoding="utf-8", errors="surrogateescape") as file:
                    attributes[name] = file.read()
            except OSError:
                continue
        return attributes

    def executable(self, number: int) -> str | None:
        """The executable of a process. None if it has exited, is a kernel thread, or must not be read."""
        try:
            return os.readlink(f"/proc/{number}/exe")
        except OSError:
            return None

    # ---- paths --------------------------------------------------------------------------------------------------

    def mountinfo(self) -> str:
        """The mounts that this process sees."""
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    def host_mounts(self) -> str:
        """The mounts that the first process sees. A unit with restricted file access sees others."""
        with open(HOST_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    def exists(self, path: str) -> bool:
        """Whether the path exists; a link at its end is not followed."""
        return os.path.lexists(path)

    def realpath(self, path: str) -> str:
        """The path without symbolic links."""
        return os.path.realpath(path)

    def step(self, path: str, mounts: Container[int]) -> Step | None:
        """One file on the way of a path; None if there is none. ``mounts``: the ids of the mounts that are not a
        user's. A file of another mount is not asked for anything, since its filesystem may never answer."""
        try:
            descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return Step(None, False)
        try:
            if _mount_of(descriptor) not in mounts:
                return Step(None, False)
            status = os.fstat(descriptor)
            if stat.S_ISLNK(status.st_mode):
                return Step(os.readlink("", dir_fd=descriptor), status.st_uid == 0)
            return Step(None, status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
        except OSError:
            return Step(None, False)
        finally:
            os.close(descriptor)

    def below(self, folder: str, names: Iterable[str]) -> bool | None:
        """Whether there is a file below a folder; None if that depends on a link or on another filesystem."""
        held = []
        try:
            held.append(os.open(folder, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
            mount = _mount_of(held[0])
            for name in names:
                held.append(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held[-1]))
                if _mount_of(held[-1]) != mount or stat.S_ISLNK(os.fstat(held[-1]).st_mode):
                    return None
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return None
        finally:
            for descriptor in held:
                os.close(descriptor)

    def entry(self, path: str) -> Entry | None:
        """The attributes of a file; a link at its end is not followed. None if they cannot be read."""
        try:
            return _entry(os.lstat(path))
        except OSError:
            return None

    def entries(self, folder: str, without: Container[str] = ()) -> Iterator[tuple[str, Entry]]:
        """The files of a directory. Files that cannot be read, and paths in ``without``, are left out."""
        try:
            with os.scandir(folder) as files:
                for file in files:
                    if file.path in without:
                        continue
                    try:
                        yield file.name, _entry(file.stat(follow_symlinks=False))
                    except OSError:
                        continue
        except OSError:
            return

    def names(self, folder: str) -> list[str]:
        """The names in a directory, for suggestions."""
        try:
            return os.listdir(folder)
        except OSError:
            return []

    # ---- devices ------------------------------------------------------------------------------------------------

    def device_tables(self) -> dict[str, str]:
        """The kernel's tables of device numbers. A table that this kernel does not have is empty."""
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
        """UNIT_PROPERTIES of each unit, with one call of systemctl. Raises EnforcerError.

        It is not called if a policy names no service."""
        names = list(names)
        command = ["systemctl", "show", "--property=" + ",".join(UNIT_PROPERTIES), "--", *names]
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
            raise _no_units(str(error)) from error
        text = done.stdout.decode("utf-8", "surrogateescape")
        blocks = [
            dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            for block in text.split("\n\n")
            if block.strip()
        ]
        if len(blocks) != len(names):
            output = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise _no_units(output[0] if output else f"{len(blocks)} answers for {len(names)} units")
        return dict(zip(names, blocks))


def _mount_of(descriptor: int) -> int:
    """The id of the mount of an open file. Unlike stat(), this does not ask the filesystem."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        for line in file:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    return -1


def _no_units(reason: str) -> EnforcerError:
    return EnforcerError(
        f"systemd does not report the cgroups of services: {reason}",
        "Look at `systemctl status`, or name no services in the policy",
    )
