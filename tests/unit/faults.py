# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults for tests: damage of a file, calls of the operating system that fail or never return, and a power failure.

`damages` lists what can happen to one file. `Disk` counts the calls that write, makes one of them fail or kills the run
there, and knows what would be left after a power failure at that moment."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

WRITING = ("open", "mkdir", "replace", "fsync", "unlink", "rmdir", "symlink", "chmod", "chown", "fchmod", "fchown")
BLOCK = 512  # a disk writes at least so many bytes at once


class Killed(BaseException):
    """The process is gone: no handler of it may run."""


def damages(path: Path) -> dict[str, Callable[[Path], object]]:
    """What can happen to a file, by name. Each takes the path."""
    found: dict[str, Callable[[Path], object]] = {
        "missing": Path.unlink,
        "directory": _directory,
        "pipe": _instead(os.mkfifo),
        "dangling link": _instead(lambda each: os.symlink("/nonexistent/target", each)),
        "link to nothing": _instead(lambda each: os.symlink("/dev/null", each)),
        "link that waits": _link_to_pipe,
        "writable by all": lambda each: each.chmod(0o666),
        "zeros": lambda each: each.write_bytes(bytes(each.stat().st_size)),
        "one bit": _flip,
    }
    if os.geteuid() == 0:
        found["owner"] = lambda each: os.chown(each, 1000, 1000)
        found["device"] = _instead(lambda each: os.mknod(each, stat.S_IFCHR | 0o600, os.makedev(1, 5)))
    for size in range(0, path.stat().st_size, BLOCK):
        found[f"cut at {size}"] = _cut(size)
    return found


def _instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def _cut(size: int) -> Callable[[Path], object]:
    return lambda path: os.truncate(path, size)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("something\n")


def _link_to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(f"{path}.pipe")
    path.symlink_to(f"{path}.pipe")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class Disk:
    """The calls of os that change the directory ``top``, or that make a change of it permanent."""

    def __init__(self, top: Path) -> None:
        self.top = str(top)
        self.calls = 0
        self._at = -1
        self._error: int | None = None
        self._lasting = False
        self._names: dict[str, dict[str, int]] = {}  # of each directory, when it was last synchronized
        self._contents: dict[int, bytes] = {}  # of each file by inode, when it was last synchronized
        for folder, folders, names in os.walk(self.top):
            self._names[folder] = {name: os.lstat(os.path.join(folder, name)).st_ino for name in folders + names}
            for name in names:
                self._remember(os.path.join(folder, name))

    def fail(self, at: int, error: int, *, lasting: bool = True) -> None:
        """Makes the call number ``at`` fail. ``lasting``: and every later one, as on a full disk."""
        self._at, self._error, self._lasting = at, error, lasting

    def kill(self, at: int) -> None:
        """Kills the run instead of making the call number ``at``."""
        self._at, self._error = at, None

    @contextlib.contextmanager
    def watched(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Counts the calls in a `with` block."""
        self.calls = 0
        with monkeypatch.context() as patch:
            for name in WRITING:
                patch.setattr(os, name, self._counted(name, getattr(os, name)))
            yield

    def _counted(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
            reads = name == "open" and not (arguments and arguments[0] & os.O_CREAT)
            if reads or not (path + "/").startswith(self.top + "/"):
                return original(target, *arguments, **options)
            self.calls += 1
            if self.calls == self._at or (self._lasting and 0 < self._at < self.calls):
                if self._error is None:
                    raise Killed()
                raise OSError(self._error, os.strerror(self._error), path)
            result = original(target, *arguments, **options)
            if name == "fsync":
                self._synchronized(path)
            return result

        return call

    def _synchronized(self, path: str) -> None:
        if os.path.isdir(path):
            self._names[path] = {name: os.lstat(os.path.join(path, name)).st_ino for name in os.listdir(path)}
        else:
            self._remember(path)

    def _remember(self, path: str) -> None:
        if os.path.isfile(path) and not os.path.islink(path):
            self._contents[os.lstat(path).st_ino] = Path(path).read_bytes()

    def lose_power(self, *, names: bool) -> None:
        """Leaves what was synchronized. ``names``: the filesystem wrote every name, whether it had to or not."""
        paths = {
            os.lstat(os.path.join(folder, name)).st_ino: os.path.join(folder, name)
            for folder, _unused, found in os.walk(self.top)
            for name in found
        }
        if names:
            for inode, path in paths.items():
                if os.path.isfile(path) and not os.path.islink(path):
                    Path(path).write_bytes(self._contents.get(inode, b""))
            return
        for folder in sorted((each for each in self._names if each != self.top), key=len):
            wanted = self._names[folder]
            parent = self._names.get(os.path.dirname(folder), {})
            if os.path.basename(folder) not in parent:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                path = os.path.join(folder, name)
                if name not in wanted and not os.path.isdir(path):
                    os.unlink(path)
            for name, inode in wanted.items():
                path = os.path.join(folder, name)
                if inode in self._contents and not os.path.isdir(path) and not os.path.islink(path):
                    Path(path).write_bytes(self._contents[inode])
                    os.chmod(path, 0o600)
