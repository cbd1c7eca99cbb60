# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replaces a file in one step, so that a reader sees the old content or the new one.

The order makes it safe against a power failure, too. The content is on the disk (fsync of the file) before the name
refers to it (rename); otherwise a filesystem may write the name first, and the file is empty after the failure. The
name is on the disk once the directory is (`sync`), which matters where one file vouches for another."""

from __future__ import annotations

import contextlib
import os
import shutil


def beside(path: str) -> str:
    """The name of the temporary file. A killed run may leave it behind; the next run uses the same name.

    It starts with a dot and has an unusual suffix, so that programs which read all files of a directory skip it."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.exfil-guard")


def write(path: str, content: bytes, mode: int = 0o600, *, durable: bool = True, exact: bool = False) -> None:
    """Replaces a file, also a symbolic link or a directory. On OSError the old file is unchanged and the temporary one
    is removed.

    ``durable``: after a power failure the file has the old content or the new one, never none; only ``sync`` makes sure
    that it is the new one. ``exact``: sets ``mode`` and the process's owner and group, whatever the umask and the
    directory are."""
    temporary = beside(path)
    try:
        remove(temporary)  # opening a pipe that somebody left there would wait
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600 if exact else mode)
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            if exact:
                os.fchown(fd, os.geteuid(), os.getegid())
                os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        if _is_folder(path):  # a file cannot be renamed to it
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def remove(path: str) -> bool:
    """Deletes whatever has this name. Returns whether something had it."""
    if _is_folder(path):
        shutil.rmtree(path)
        return True
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def make_folder(path: str, mode: int = 0o755) -> None:
    """Creates a directory, its parents too, so that they survive a power failure. Replaces a last component that is not
    a directory."""
    if _is_folder(path):
        return
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        make_folder(parent)
    remove(path)
    os.mkdir(path, mode)
    sync(parent)


def sync(folder: str) -> None:
    """Makes created, renamed and deleted names in the directory survive a power failure."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
