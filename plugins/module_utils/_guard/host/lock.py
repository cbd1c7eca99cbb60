# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock that allows one run at a time. The kernel releases it when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from typing import Iterator

from ..errors import EnforcerError
from . import atomic

PATH = "/run/lock/exfil-guard.lock"
_ATTEMPTS = 100  # another user may keep putting something there
WAIT = 10.0  # seconds; boot and refresh hold the lock for less


class UnusableError(EnforcerError):
    """There is no lock file, and none can be made. Boot goes on without one."""


def _open(path: str) -> int:
    """Opens or creates the lock file. Every user may write to its directory: what another user put there, and what is
    no file, is deleted."""
    for _unused in range(_ATTEMPTS):
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            try:
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                continue
        except OSError:
            atomic.remove(path)  # a symbolic link or a directory
            continue
        status = os.fstat(fd)
        if status.st_uid == os.geteuid() and stat.S_ISREG(status.st_mode):
            return fd
        os.close(fd)
        atomic.remove(path)
    raise OSError(errno.EAGAIN, "something else is put in its place again and again")


def _description(fd: int) -> str:
    return os.pread(fd, 200, 0).decode("utf-8", "replace").strip() or "another process"


def holder(path: str = PATH) -> str:
    """Describes the process that holds the lock. Empty if no process does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ""
    except BlockingIOError:
        return _description(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def hold(command: str, path: str = PATH, wait: float = WAIT) -> Iterator[None]:
    """Holds the lock for a `with` block. Raises EnforcerError after ``wait`` seconds.

    ``command``: what this run does, for the error message of another run."""
    try:
        fd = _open(path)
    except OSError as error:
        raise UnusableError(f"cannot open the lock {path}: {error.strerror}", "Run as root") from error
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise EnforcerError(
                        f"another run holds the lock {path}: {_description(fd)}", "Wait until it ends and run again"
                    ) from None
                time.sleep(0.1)
        with contextlib.suppress(OSError):  # on a full filesystem the lock holds all the same
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"pid {os.getpid()}, {command}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
