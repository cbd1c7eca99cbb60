# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of the package on a host: code, object, canary, command and units. Worked out from the files that are
there now; each is exchanged in one step, and PACKAGE, which vouches for the others, comes last."""

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
ENABLED = {  # link -> unit, as `systemctl enable` makes them
    f"{UNITS}/sysinit.target.wants/{BOOT}": f"{UNITS}/{BOOT}",
    f"{UNITS}/timers.target.wants/{TIMER}": f"{UNITS}/{TIMER}",
}
_DROP_IN = "exfil-guard.conf"

Systemctl = Callable[[Sequence[str]], str]


def systemctl(arguments: Sequence[str]) -> str:
    try:
        return subprocess.run(["systemctl", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout
    except OSError as error:
        raise EnforcerError(f"cannot run systemctl: {error.strerror}", "exfil.guard needs systemd") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or "").strip() if isinstance(error, subprocess.CalledProcessError) else "no answer"
        raise EnforcerError("systemctl {0} failed: {1}".format(" ".join(arguments), said)) from error


def read_package(library: str) -> dict[str, bytes]:
    """Path -> content, from a zip (``….zip/usr/lib/exfil-guard``) or from the host itself."""
    suffix = ".zip" + LIBRARY
    if library.endswith(suffix):
        with zipfile.ZipFile(library[: -len(LIBRARY)]) as archive:
            return {"/" + name: archive.read(name) for name in archive.namelist()}
    found = {}
    for path in [LIBRARY + "/PACKAGE", *_listed(library)]:
        with open(path, "rb") as file:
            found[path] = file.read()
    return found


def _listed(library: str) -> list[str]:
    with open(os.path.join(library, "PACKAGE"), encoding="ascii") as file:
        return [line.split("  ", 1)[1] for line in file.read().splitlines()]


def mode_of(path: str) -> int:
    return 0o755 if path == COMMAND else 0o644


def _there(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


# ---- install ------------------------------------------------------------------------------------------------------


def ensure(
    package: dict[str, bytes], *, check: bool = False, root: str = "/", control: Systemctl = systemctl
) -> list[str]:
    """Every file as in ``package``, and its modules compiled; no other in its folder, units enabled and the timer
    running. Gives the lines of the diff, none when nothing was to do."""
    package = dict(package, **pyc.compiled(package))
    lines: list[str] = []
    todo: list[Callable[[], None]] = []
    changed: list[str] = []
    for path in sorted(package, key=lambda each: (each == LIBRARY + "/PACKAGE", each)):
        found = _difference(_there(root, path), package[path], mode_of(path))
        if found:
            lines.append(
                "{0} {1}{2}".format(
                    "+" if found == "missing" else "~", path, "" if found == "missing" else f" ({found})"
                )
            )
            changed.append(path)
            todo.append(functools.partial(_write, root, path, package[path], mode_of(path)))
    for path in _unlisted_files(root, package):
        lines.append(f"- {path}")
        todo.append(functools.partial(os.unlink, _there(root, path)))
    for link, unit in sorted(ENABLED.items()):
        if _target(_there(root, link)) != unit:
            lines.append(f"+ {os.path.basename(unit)} is enabled")
            changed.append(link)
            todo.append(functools.partial(_enable, _there(root, link), unit))
    shown = control(["show", "-p", "NeedDaemonReload", "-p", "ActiveState", BOOT, REFRESH, TIMER])
    touched = any(path.startswith(UNITS) for path in changed)
    if "NeedDaemonReload=yes" in shown and not touched:
        lines.append("~ systemd reads its units again")
        touched = True
    started = "ActiveState=active" in shown.strip().split("\n\n")[-1]
    if not started:
        lines.append(f"+ {TIMER} is started")
    if check:
        return lines
    for step in todo:
        step()
    if touched:
        control(["daemon-reload"])
    if not started:
        control(["start", TIMER])
    return lines


def _difference(path: str, content: bytes, mode: int) -> str:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    if not stat.S_ISREG(found.st_mode):
        return "not a file"
    with open(path, "rb") as file:
        if file.read() != content:
            return "content"
    if stat.S_IMODE(found.st_mode) != mode:
        return f"mode {mode:04o}, was {stat.S_IMODE(found.st_mode):04o}"
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        return "owner"
    return ""


def _write(root: str, path: str, content: bytes, mode: int) -> None:
    where = _there(root, path)
    folder = os.path.dirname(where)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    try:
        atomic.write(where, content, mode, exact=True)
    except OSError as error:
        raise EnforcerError(f"cannot write {path}: {error.strerror or error}") from error
    atomic.sync(folder)


def _unlisted_files(root: str, package: dict[str, bytes]) -> list[str]:
    """Files in our folder that this package does not have: code of another release must not be imported."""
    found = []
    for folder, _, names in os.walk(_there(root, LIBRARY)):
        for name in names:
            path = "/" + os.path.relpath(os.path.join(folder, name), root)
            if path not in package:
                found.append(path)
    return sorted(found)


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
    """Every file and folder of ours, in the order in which they go: a folder after what is in it, and what leans on the
    boot unit before the unit."""
    found: list[str] = []

    def add(path: str) -> bool:
        paths = [each for each in (atomic.beside(path), path) if os.path.lexists(_there(root, each))]
        found.extend(paths)
        return bool(paths)

    for link in sorted(ENABLED):
        add(link)
    units = _there(root, UNITS)
    for name in sorted(os.listdir(units)) if os.path.isdir(units) else ():
        folder = f"{UNITS}/{name}"
        if name.endswith(".d") and add(f"{folder}/{_DROP_IN}"):
            if all(f"{folder}/{each}" in found for each in os.listdir(_there(root, folder))):
                found.append(folder)
    for path in [f"{UNITS}/{unit}" for unit in (BOOT, REFRESH, TIMER)] + [COMMAND]:
        add(path)
    for top in (STATE, LIBRARY):  # the code last: until then the next run can end what this one began
        for folder, folders, names in os.walk(_there(root, top), topdown=False):
            inside = "/" + os.path.relpath(folder, root)
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            found.extend(f"{inside}/{name}" for name in sorted(names + links))
            found.append(inside)
    return found


def remove(
    *, check: bool = False, gone: Sequence[str] = (), root: str = "/", control: Systemctl = systemctl
) -> list[str]:
    """None of our files and units is left. ``gone``: what somebody else has taken away by then."""
    paths = [path for path in traces(root) if path not in gone]
    lines = [f"- {path}" for path in paths]
    if check or not paths:
        return lines
    units = [path for path in paths if path.startswith(UNITS)]
    for path in paths:
        where = _there(root, path)
        if os.path.isdir(where) and not os.path.islink(where):
            os.rmdir(where)
        else:
            os.unlink(where)
    if units:
        control(["daemon-reload"])
        if "ActiveState=active" in control(["show", "-p", "ActiveState", BOOT]):
            control(["stop", BOOT])  # nothing requires it any more
    return lines


def quiet(*, root: str = "/", control: Systemctl = systemctl) -> None:
    """Before a removal: the timer must not put back what goes."""
    if os.path.lexists(_there(root, f"{UNITS}/{TIMER}")):
        control(["stop", TIMER, REFRESH])


def result_of(files: list[str], kernel: dict[str, Any]) -> dict[str, Any]:
    """One result for the files and what is in the kernel."""
    text = "".join(line + "\n" for line in files) + kernel["diff"]["prepared"]
    return dict(kernel, changed=bool(files) or kernel["changed"], diff={"prepared": text})
