# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs and removes the files of the package on a host: code, object, canary, command and units.

The changes are computed from the files that exist. Each file is replaced in one step. PACKAGE, which has the digests of
the others, is written last."""

from __future__ import annotations

import functools
import os
import stat
import subprocess
import zipfile
from typing import Any, Callable, Sequence

from .. import layout
from ..errors import EnforcerError
from . import atomic, pyc

LIBRARY = layout.LIBRARY
STATE = "/var/lib/exfil-guard"
UNITS = "/etc/systemd/system"
COMMAND = "/usr/sbin/exfil-guard"
BOOT, REFRESH, TIMER = "exfil-guard-boot.service", "exfil-guard-refresh.service", "exfil-guard-refresh.timer"
ENABLED = {  # link -> unit, as `systemctl enable` creates them
    f"{UNITS}/sysinit.target.wants/{BOOT}": f"{UNITS}/{BOOT}",
    f"{UNITS}/timers.target.wants/{TIMER}": f"{UNITS}/{TIMER}",
}
_DROP_IN = "exfil-guard.conf"

Systemctl = Callable[[Sequence[str]], str]


def systemctl(arguments: Sequence[str]) -> str:
    """Runs systemctl and returns its output. Raises EnforcerError."""
    try:
        return subprocess.run(["systemctl", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout
    except OSError as error:
        raise EnforcerError(f"cannot run systemctl: {error.strerror}", "exfil.guard needs systemd") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        reason = (error.stderr or "").strip() if isinstance(error, subprocess.CalledProcessError) else "no answer"
        raise EnforcerError(f"systemctl {' '.join(arguments)} failed: {reason}") from error


def read_package(library: str) -> dict[str, bytes]:
    """Path -> content of the package's files, from a zip (``….zip/usr/lib/exfil-guard``) or from this host."""
    suffix = ".zip" + LIBRARY
    if library.endswith(suffix):
        with zipfile.ZipFile(library[: -len(LIBRARY)]) as archive:
            return {"/" + name: archive.read(name) for name in archive.namelist()}
    files = {}
    for path in [LIBRARY + "/PACKAGE", *_listed(library)]:
        with open(path, "rb") as file:
            files[path] = file.read()
    return files


def _listed(library: str) -> list[str]:
    with open(os.path.join(library, "PACKAGE"), encoding="ascii") as file:
        return [line.split("  ", 1)[1] for line in file.read().splitlines()]


def mode_of(path: str) -> int:
    """The mode of a file of the package."""
    return 0o755 if path == COMMAND else 0o644


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


# ---- install ------------------------------------------------------------------------------------------------------


def ensure(
    package: dict[str, bytes], *, check: bool = False, root: str = "/", control: Systemctl = systemctl
) -> list[str]:
    """Makes the host's files those of ``package``, with its modules compiled.

    Other files in the package's directory are deleted, the units are enabled and the timer is started. Returns the
    lines of the diff, none if nothing changes. ``check``: changes nothing."""
    package = dict(package, **pyc.compiled(package))
    lines: list[str] = []
    steps: list[Callable[[], None]] = []
    changed: list[str] = []
    for path in sorted(package, key=lambda path: (path == LIBRARY + "/PACKAGE", path)):
        difference = _difference(_below(root, path), package[path], mode_of(path))
        if difference:
            lines.append(f"+ {path}" if difference == "missing" else f"~ {path} ({difference})")
            changed.append(path)
            steps.append(functools.partial(_write, root, path, package[path], mode_of(path)))
    for path in _unlisted_files(root, package):
        lines.append(f"- {path}")
        steps.append(functools.partial(os.unlink, _below(root, path)))
    for link, unit in sorted(ENABLED.items()):
        if _target(_below(root, link)) != unit:
            lines.append(f"+ {os.path.basename(unit)} is enabled")
            changed.append(link)
            steps.append(functools.partial(_enable, _below(root, link), unit))
    shown = control(["show", "-p", "NeedDaemonReload", "-p", "ActiveState", BOOT, REFRESH, TIMER])
    reload = any(path.startswith(UNITS) for path in changed)
    if "NeedDaemonReload=yes" in shown and not reload:
        lines.append("~ systemd reloads its units")
        reload = True
    started = "ActiveState=active" in shown.strip().split("\n\n")[-1]
    if not started:
        lines.append(f"+ {TIMER} is started")
    if check:
        return lines
    for step in steps:
        step()
    if reload:
        control(["daemon-reload"])
    if not started:
        control(["start", TIMER])
    return lines


def _difference(path: str, content: bytes, mode: int) -> str:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    with open(path, "rb") as file:
        if file.read() != content:
            return "content"
    if stat.S_IMODE(status.st_mode) != mode:
        return f"mode {mode:04o}, was {stat.S_IMODE(status.st_mode):04o}"
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        return "owner"
    return ""


def _write(root: str, path: str, content: bytes, mode: int) -> None:
    where = _below(root, path)
    folder = os.path.dirname(where)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    try:
        atomic.write(where, content, mode, exact=True)
    except OSError as error:
        raise EnforcerError(f"cannot write {path}: {error.strerror or error}") from error
    atomic.sync(folder)


def _unlisted_files(root: str, package: dict[str, bytes]) -> list[str]:
    """Files in the package's directory that are not in the package: code of another release must not be imported."""
    unlisted = []
    for folder, _unused, names in os.walk(_below(root, LIBRARY)):
        for name in names:
            path = "/" + os.path.relpath(os.path.join(folder, name), root)
            if path not in package:
                unlisted.append(path)
    return sorted(unlisted)


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _enable(link: str, unit: str) -> None:
    os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
    temporary = atomic.beside(link)
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(unit, temporary)
    os.replace(temporary, link)


# ---- remove -------------------------------------------------------------------------------------------------------


def traces(root: str = "/") -> list[str]:
    """The files and directories of the enforcer, in the order in which they are removed.

    A directory comes after its files, and what depends on the boot unit comes before the unit."""
    result: list[str] = []

    def add(path: str) -> bool:
        paths = [name for name in (atomic.beside(path), path) if os.path.lexists(_below(root, name))]
        result.extend(paths)
        return bool(paths)

    for link in sorted(ENABLED):
        add(link)
    units = _below(root, UNITS)
    for name in sorted(os.listdir(units)) if os.path.isdir(units) else ():
        folder = f"{UNITS}/{name}"
        if not name.endswith(".d") or not add(f"{folder}/{_DROP_IN}"):
            continue
        if all(f"{folder}/{file}" in result for file in os.listdir(_below(root, folder))):
            result.append(folder)
    for path in [f"{UNITS}/{unit}" for unit in (BOOT, REFRESH, TIMER)] + [COMMAND]:
        add(path)
    for top in (STATE, LIBRARY):  # the code last: until then another run can finish an interrupted removal
        for folder, folders, names in os.walk(_below(root, top), topdown=False):
            inside = "/" + os.path.relpath(folder, root)
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            result.extend(f"{inside}/{name}" for name in sorted(names + links))
            result.append(inside)
    return result


def remove(
    *, check: bool = False, gone: Sequence[str] = (), root: str = "/", control: Systemctl = systemctl
) -> list[str]:
    """Removes the enforcer's files and units, and returns the lines of the diff.

    ``gone``: files that another step removes. ``check``: changes nothing."""
    paths = [path for path in traces(root) if path not in gone]
    lines = [f"- {path}" for path in paths]
    if check or not paths:
        return lines
    units = [path for path in paths if path.startswith(UNITS)]
    for path in paths:
        where = _below(root, path)
        if os.path.isdir(where) and not os.path.islink(where):
            os.rmdir(where)
        else:
            os.unlink(where)
    if units:
        control(["daemon-reload"])
        if "ActiveState=active" in control(["show", "-p", "ActiveState", BOOT]):
            control(["stop", BOOT])  # no other unit requires it now
    return lines


def quiet(*, root: str = "/", control: Systemctl = systemctl) -> None:
    """Stops the timer before a removal: a refresh must not create files again."""
    if os.path.lexists(_below(root, f"{UNITS}/{TIMER}")):
        control(["stop", TIMER, REFRESH])


def result_of(files: list[str], kernel: dict[str, Any]) -> dict[str, Any]:
    """One result of a module for the changes of files and those in the kernel."""
    text = "".join(line + "\n" for line in files) + kernel["diff"]["prepared"]
    return dict(kernel, changed=bool(files) or kernel["changed"], diff={"prepared": text})
