# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Few patterns in place of many paths and ports. Pure. Private to this collection."""

from __future__ import annotations

from typing import Iterable, Tuple

Components = Tuple[str, ...]

# Too much hangs below these to be said in one pattern, unless the operator says so.
SYSTEM_ROOTS = frozenset((
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt", "/opt", "/proc",
    "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec",
    "/usr/local", "/usr/local/bin", "/usr/local/lib", "/usr/sbin", "/usr/share", "/usr/src", "/var", "/var/backups",
    "/var/cache", "/var/lib", "/var/local", "/var/log", "/var/mail", "/var/opt", "/var/spool", "/var/tmp",
))  # fmt: skip
HOMES = ("home",)  # whose folders are users'
_NUMBERED = ("proc",)  # whose folders are processes'
EPHEMERAL = 32768  # where Linux chooses ports of its own from


def split(path: str) -> Components:
    return tuple(part for part in path.split("/") if part)


def sayable(path: str) -> bool:
    """The language has no way to say a `*` that is one, and a policy is UTF-8 text."""
    return "*" not in path and not any("\ud800" <= char <= "\udfff" for char in path)


def patterns(paths: Iterable[str], most: int, roots: Iterable[str] = ()) -> dict[str, frozenset[str]]:
    """A pattern in place of the paths it covers -> these paths. More than ``most`` paths in one folder become the
    folder, but never one of SYSTEM_ROOTS or a user's home unless ``roots`` names it. What is alike in several homes,
    or of several processes, becomes one with `*`. The paths have to be sayable."""
    allowed = frozenset("/" + "/".join(split(each)) for each in roots)
    tree = _Node(())
    for path in sorted(set(paths)):
        tree.add(split(path), path)
    found: dict[str, frozenset[str]] = {}
    for pattern, covered in _collapsed(tree, most, allowed):
        found[pattern] = found.get(pattern, frozenset()) | covered
    return _alike(found)


class _Node:
    def __init__(self, place: Components) -> None:
        self.place = place
        self.here: str = ""  # the path itself, when it is among them
        self.below: dict[str, _Node] = {}

    def add(self, rest: Components, path: str) -> None:
        node = self
        for name in rest:
            node = node.below.setdefault(name, _Node((*node.place, name)))
        node.here = path


def _collapsed(top: _Node, most: int, allowed: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    """Bottom-up, without recursion: a path may be deep."""
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
            covered = frozenset(each for _pattern, paths in found for each in paths)
            found = [(path.rstrip("/") + "/**", covered)]
        done[id(node)] = found
    return done[id(top)]


def _is_root(place: Components) -> bool:
    return "/" + "/".join(place) in SYSTEM_ROOTS or (len(place) == 2 and place[0] in HOMES + _NUMBERED)


def _alike(found: dict[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """What two homes or two processes have in common."""
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
    """Each port, or, of more than ``most`` that no service is known by, the range that such ports are from."""
    numbers = sorted(set(found))
    if len(numbers) <= most or numbers[0] < 1024:
        return list(numbers)
    return [f"{EPHEMERAL if numbers[0] >= EPHEMERAL else 1024}-65535"]
