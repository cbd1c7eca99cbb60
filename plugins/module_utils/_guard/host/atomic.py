# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes files atomically: a temporary file in the same directory replaces the target in one step."""

from __future__ import annotations

import contextlib
import os


def beside(path: str) -> str:
    """The name of the temporary file. A killed run may leave it behind; the next run uses the same name.

    It starts with a dot and has an unusual suffix, so that programs which read all files of a directory skip it."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.exfil-guard")


def write(path: str, content: bytes, mode: int = 0o600, *, durable: bool = True, exact: bool = False) -> None:
    """Replaces a file, also a symbolic link. On OSError the old file is unchanged and the temporary one is removed.

    ``durable``: after a power failure the file has the old content or the new one, never none; only ``sync`` makes sure
    that it is the new one. ``exact``: sets ``mode`` and the process's owner and group, whatever the umask and the
    directory are."""
    temporary = beside(path)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600 if exact else mode)
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            if exact:
                os.fchown(fd, os.geteuid(), os.getegid())
                os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def sync(folder: str) -> None:
    """Makes created, renamed and deleted names in the directory survive a power failure."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
