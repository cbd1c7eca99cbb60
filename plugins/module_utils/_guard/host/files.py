# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads files that somebody may have replaced by something else."""

from __future__ import annotations

import errno
import os
import stat

_SHARED = stat.S_IWGRP | stat.S_IWOTH


def read(path: str) -> bytes:
    """The content of a regular file, also through symbolic links. Raises OSError.

    Anything else is refused: to open or to read a pipe, a socket or a device can wait for ever."""
    return _read(path, follow=True, own=False)


def read_own(path: str) -> bytes:
    """The content of a regular file that only this process's user can write. Raises OSError, also for a symbolic
    link."""
    return _read(path, follow=False, own=True)


def _read(path: str, *, follow: bool, own: bool) -> bytes:
    _check(os.stat(path, follow_symlinks=follow), path, own)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags)
    try:
        _check(os.fstat(fd), path, own)  # it may have been replaced in between
        with open(fd, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(fd)


def _check(status: os.stat_result, path: str, own: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    if own and status.st_uid != os.geteuid():
        raise OSError(errno.EINVAL, f"it belongs to user {status.st_uid}", path)
    if own and status.st_mode & _SHARED:
        raise OSError(errno.EINVAL, f"others can write it (mode {stat.S_IMODE(status.st_mode):04o})", path)
