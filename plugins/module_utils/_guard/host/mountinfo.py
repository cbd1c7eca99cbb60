# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parses the mounts of the host from /proc/self/mountinfo."""

from __future__ import annotations

import re
from typing import NamedTuple, Sequence

from .. import layout
from ..policy.model import Components

_ESCAPE = re.compile(r"\\([0-7]{3})")
_FUSE_USER = re.compile(r"(?:^|,)user_id=(\d+)")


class Mount(NamedTuple):
    """One mount. ``number`` and ``parent``: mount ids."""

    number: int
    parent: int
    device: int  # as in model.PathPattern
    root: Components | None  # inside the superblock; None: a namespace file, which has no path
    point: Components
    type: str
    source: str = ""
    user: int = 0  # who mounted a FUSE filesystem, and so decides what it shows

    @property
    def superblock(self) -> int:
        """What a pattern of this mount has as its device. The instances of some filesystems show the same objects: they
        share a number of their kind, as superblock_number() in bpf/object/path.h gives it."""
        return layout.KIND + layout.KINDS.index(self.type) if self.type in layout.KINDS else self.device


# Filesystems that do not store data: the same as those of is_pseudo_fs() in bpf/object/path.h.
PSEUDO = frozenset(
    (
        "tmpfs",
        "devtmpfs",
        "ramfs",
        "proc",
        "sysfs",
        "devpts",
        "cgroup",
        "cgroup2",
        "bpf",
        "debugfs",
        "tracefs",
        "securityfs",
        "pipefs",
        "sockfs",
        "nsfs",
        "pidfs",
        "mqueue",
        "hugetlbfs",
        "configfs",
        "binfmt_misc",
        "efivarfs",
        "pstore",
        "autofs",
        "selinuxfs",
        "rpc_pipefs",
    )
)


# Where the filesystems with a kind are usually mounted. Some are mounted by the first use only, which may be long after
# a policy came into force.
_USUAL = (
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("cgroup", "/sys/fs/cgroup"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
    ("tracefs", "/sys/kernel/debug/tracing"),
    ("securityfs", "/sys/kernel/security"),
    ("configfs", "/sys/kernel/config"),
    ("binfmt_misc", "/proc/sys/fs/binfmt_misc"),
    ("efivarfs", "/sys/firmware/efi/efivars"),
    ("pstore", "/sys/fs/pstore"),
    ("selinuxfs", "/sys/fs/selinux"),
)


def split(path: str) -> Components:
    """The components of a path."""
    return tuple(part for part in path.split("/") if part and part != ".")


def _unescape(text: str) -> str:
    """Decodes the octal escapes of space, tab, newline and backslash."""
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), text)


def parse_mounts(text: str) -> list[Mount]:
    """The mounts in the text of a mountinfo file. Lines that are not in its format are skipped."""
    mounts = []
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) < 10 or "-" not in fields[6:]:
            continue
        major, minor = fields[2].split(":")
        root = _unescape(fields[3])
        type_at = fields.index("-", 6) + 1
        if root.endswith("//deleted"):
            root = root[: -len("//deleted")]
        mounts.append(
            Mount(
                int(fields[0]),
                int(fields[1]),
                int(major) << 20 | int(minor),
                split(root) if root.startswith("/") else None,
                split(_unescape(fields[4])),
                fields[type_at],
                _unescape(fields[type_at + 1]) if len(fields) > type_at + 1 else "",
                _user(fields[type_at:]),
            )
        )
    return mounts


def _user(described: Sequence[str]) -> int:
    """``described``: type, source and options of the superblock."""
    if described[0] != "fuse" and not described[0].startswith(("fuse.", "fuseblk")):
        return 0
    found = _FUSE_USER.search(described[2]) if len(described) > 2 else None
    return int(found.group(1)) if found else 0


def visible(mounts: Sequence[Mount]) -> list[Mount]:
    """The mounts that a path can lead to: those not hidden by another mount at the same mount point or above.

    What is hidden can be in use: by a descriptor from before, or in another mount namespace."""
    numbers = {mount.number for mount in mounts}
    children: dict[int, list[Mount]] = {}
    tops = []
    for mount in mounts:
        if mount.parent in numbers and mount.parent != mount.number:
            children.setdefault(mount.parent, []).append(mount)
        else:
            tops.append(mount)
    result = []
    while tops:
        mount = tops.pop()
        below = children.get(mount.number, [])
        over = [child for child in below if child.point == mount.point]
        if over:  # the last one hides the mount and everything mounted on it
            tops.append(over[-1])
            continue
        result.append(mount)
        points = {child.point for child in below}
        tops.extend(
            child
            for child in below
            if not any(child.point[:i] in points for i in range(len(mount.point), len(child.point)))
        )
    return sorted(result)


def usual() -> list[Mount]:
    """The usual mounts of the filesystems that have a kind, as if all of them were mounted."""
    return [Mount(0, 0, 0, (), split(point), kind) for kind, point in _USUAL]
