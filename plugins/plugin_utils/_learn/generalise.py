# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replaces many paths and ports by few patterns and ranges. Private to this collection."""

from __future__ import annotations

from typing import Iterable, Tuple

Components = Tuple[str, ...]

# Folders of the system: too wide for one pattern, unless option `roots` names them.
SYSTEM_ROOTS = frozenset((
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt", "/opt", "/proc",
    "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec",
    "/usr/local", "/usr/local/bin", "/usr/local/lib", "/usr/sbin", "/usr/share", "/usr/src", "/var", "/var/backups",
    "/var/cache", "/var/lib", "/var/local", "/var/log", "/var/mail", "/var/opt", "/var/spool", "/var/tmp",
))  # fmt: skip
HOMES = ("home",)  # with a folder for each user
_NUMBERED = ("proc",)  # with a folder for each process
EPHEMERAL = 32768  # first port that Linux assigns by itself


def split(path: str) -> Components:
    """The names of a path."""
    return tuple(part for part in path.split("/") if part)


def sayable(path: str) -> bool:
    """Whether a policy can name the path: a literal `*` cannot be escaped, and a policy is UTF-8 text."""
    return "*" not in path and not any("\ud800" <= char <= "\udfff" for char in path)


def patterns(paths: Iterable[str], most: int, roots: Iterable[str] = ()) -> dict[str, frozenset[str]]:
    """Patterns in place of paths, each with the paths that it covers. More than ``most`` paths in one folder become a
    pattern of the folder, except in SYSTEM_ROOTS and homes that ``roots`` does not name. Equal paths of several users
    or processes become one pattern with `*`. All paths must be sayable."""
    allowed = frozenset("/" + "/".join(split(root)) for root in roots)
    tree = _Node(())
    for path in sorted(set(paths)):
        tree.add(split(path), path)
    merged: dict[str, frozenset[str]] = {}
    for pattern, covered in _collapsed(tree, most, allowed):
        merged[pattern] = merged.get(pattern, frozenset()) | covered
    return _alike(merged)


class _Node:
    """A folder or file in a tree of paths. ``here``: its path if it is one of the paths, else empty."""

    def __init__(self, place: Components) -> None:
        self.place = place
        self.here: str = ""
        self.below: dict[str, _Node] = {}

    def add(self, rest: Components, path: str) -> None:
        """Adds a path. ``rest``: its names below this node."""
        node = self
        for name in rest:
            node = node.below.setdefault(name, _Node((*node.place, name)))
        node.here = path


def _collapsed(top: _Node, most: int, allowed: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    """Patterns with their covered paths, bottom-up. Not recursive, because paths can be deep."""
    order, stack = [], [top]
    while stack:
        node = stack.pop()
        order.append(node)
        stack.extend(node.below.values())
    done: dict[int, list[tuple[str, frozenset[str]]]] = {}
    for node in reversed(order):
        path = "/" + "/".join(node.place)
        found = [(path, frozenset([node.here]))] if node.here else []
        for name in sorted(node.below):
            found += done.pop(id(node.below[name]))
        if len(found) > most and (path in allowed or not _is_root(node.place)):
            covered = frozenset(path_ for _pattern, paths in found for path_ in paths)
            found = [(path.rstrip("/") + "/**", covered)]
        done[id(node)] = found
    return done[id(top)]


def _is_root(place: Components) -> bool:
    return "/" + "/".join(place) in SYSTEM_ROOTS or (len(place) == 2 and place[0] in HOMES + _NUMBERED)


def _alike(found: dict[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Merges equal patterns of several homes or processes."""
    groups: dict[tuple[str, Components], list[str]] = {}
    for pattern in found:
        parts = split(pattern)
        home = len(parts) > 2 and parts[0] in HOMES
        process = len(parts) > 2 and parts[0] in _NUMBERED and parts[1].isdigit()
        if home or process:
            groups.setdefault((parts[0], parts[2:]), []).append(pattern)
    result = dict(found)
    for (root, rest), same in groups.items():
        if len(same) > 1:
            joined = f"/{root}/*/{'/'.join(rest)}"
            covered = frozenset(path for pattern in same for path in result.pop(pattern))
            result[joined] = result.get(joined, frozenset()) | covered
    return dict(sorted(result.items()))


def ports(found: Iterable[int], most: int) -> list[int | str]:
    """The ports. More than ``most`` unprivileged ports become a range."""
    numbers = sorted(set(found))
    if len(numbers) <= most or numbers[0] < 1024:
        return list(numbers)
    return [f"{EPHEMERAL if numbers[0] >= EPHEMERAL else 1024}-65535"]
