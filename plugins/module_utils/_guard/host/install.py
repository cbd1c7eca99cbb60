# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs and removes the files of the package on a host: code, object, canary, command and units.

The changes are computed from the files that exist. Each file is replaced in one step. PACKAGE, which has the digests of
the others, is written last; COMPILED has those of the compiled modules, which differ between versions of Python.
`problems` finds what a run would change without the package that was sent: the drift of an installed host."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import subprocess
import zipfile
from typing import Any, Callable, Mapping, Sequence

from .. import layout
from ..errors import EnforcerError
from . import atomic, dropins, files, pyc
from .dropins import UNITS, below

LIBRARY = layout.LIBRARY
STATE = "/var/lib/exfil-guard"
COMMAND = "/usr/sbin/exfil-guard"
BOOT, REFRESH, TIMER = dropins.BOOT, "exfil-guard-refresh.service", "exfil-guard-refresh.timer"
PACKAGE, COMPILED = LIBRARY + "/PACKAGE", LIBRARY + "/COMPILED"
ENABLED = {  # link -> unit, as `systemctl enable` creates them
    f"{UNITS}/sysinit.target.wants/{BOOT}": f"{UNITS}/{BOOT}",
    f"{UNITS}/timers.target.wants/{TIMER}": f"{UNITS}/{TIMER}",
}
_OVERRIDES = (  # directories whose unit files systemd prefers to ours
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
)
_DROP_IN_FOLDERS = (
    *_OVERRIDES,
    UNITS,
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)

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
    listed = _listed(os.path.join(library, "PACKAGE"))
    return {path: files.read(path) for path in (PACKAGE, *(listed or ()))}


def _listed(path: str) -> dict[str, str] | None:
    """Path -> digest of the files that a list names. None if there is no such list."""
    try:
        text = files.read(path).decode("ascii", "replace")
    except OSError:
        return None
    pairs = (line.partition("  ") for line in text.splitlines())
    return {name: digest for digest, _unused, name in pairs if name}


def _list(contents: Mapping[str, bytes]) -> bytes:
    lines = (f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in sorted(contents.items()))
    return "".join(lines).encode("ascii")


def mode_of(path: str) -> int:
    """The mode of a file of the package."""
    return 0o755 if path == COMMAND else 0o644


# ---- install ------------------------------------------------------------------------------------------------------


def ensure(
    package: dict[str, bytes], *, check: bool = False, root: str = "/", control: Systemctl = systemctl
) -> list[str]:
    """Makes the host's files those of ``package``, with its modules compiled.

    Other files in the package's directory are deleted, the units are enabled and the timer is started. Returns the
    lines of the diff, none if nothing changes. ``check``: changes nothing."""
    compiled = pyc.compiled(package)
    package = {**package, **compiled, COMPILED: _list(compiled)}
    lines: list[str] = []
    steps: list[Callable[[], None]] = []
    changed: list[str] = []
    for path in sorted(package, key=lambda path: (path in (PACKAGE, COMPILED), path)):
        difference = _difference(below(root, path), hashlib.sha256(package[path]).hexdigest(), mode_of(path))
        if difference:
            lines.append(f"+ {path}" if difference == "missing" else f"~ {path} ({difference})")
            changed.append(path)
            steps.append(functools.partial(_write, root, path, package[path], mode_of(path)))
    for path in [*_unlisted_files(root, package), *_overriding(root)]:
        lines.append(f"- {path}")
        changed.append(path)
        steps.append(functools.partial(_unlink, below(root, path)))
    for link, unit in sorted(ENABLED.items()):
        if _target(below(root, link)) != unit:
            lines.append(f"+ {os.path.basename(unit)} is enabled")
            changed.append(link)
            steps.append(functools.partial(_enable, below(root, link), unit))
    shown = control(["show", "-p", "NeedDaemonReload", "-p", "ActiveState", BOOT, REFRESH, TIMER])
    reload = any("/systemd/" in path for path in changed)
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


def problems(library: str, root: str) -> list[str]:
    """A line for each file, unit and timer that is not as it was installed. None if nothing was installed.

    A run of `ensure` puts all of it right."""
    units = _unit_problems(root) if os.path.lexists(below(root, f"{UNITS}/{BOOT}")) else []
    return file_problems(library, root) + units


def file_problems(library: str, root: str) -> list[str]:
    """A line for each file that is not as it was installed."""
    listed = _listed(os.path.join(library, "PACKAGE"))
    if not listed:
        left = [
            path for path in (os.path.join(library, "exfil_guard"), *_installed_units(root)) if os.path.lexists(path)
        ]
        return [f"no package is installed in {library}, or not complete"] if left else []
    listed.update(_listed(os.path.join(library, "COMPILED")) or {})
    lines = []
    for path, digest in sorted(listed.items()):
        difference = _difference(below(root, path), digest, mode_of(path))
        if difference:
            detail = "" if difference in ("content", "missing") else f": {difference}"
            lines.append(f"the file {path} is not as the package has it{detail}")
    if f"{LIBRARY}/exfil_guard/cli.py" in listed:  # otherwise the package is somewhere else
        listed.update(dict.fromkeys((PACKAGE, COMPILED), ""))
        lines.extend(f"the file {path} is not as the package has it" for path in _unlisted_files(root, listed))
    return lines


def _installed_units(root: str) -> list[str]:
    return [below(root, path) for path in (COMMAND, *ENABLED, *ENABLED.values())]


def _unit_problems(root: str) -> list[str]:
    lines = [
        f"{os.path.basename(unit)} is not enabled"
        for link, unit in sorted(ENABLED.items())
        if _target(below(root, link)) != unit
    ]
    lines.extend(f"{path} changes a unit of the package" for path in _overriding(root))
    try:
        if "ActiveState=active" not in systemctl(["show", "-p", "ActiveState", TIMER]):
            lines.append(f"{TIMER} is not started")
    except EnforcerError as error:
        lines.append(str(error))
    return lines


def _overriding(root: str) -> list[str]:
    """Files of others that change our units: a unit of the same name that systemd prefers, and drop-ins."""
    found: list[str] = []
    for unit in (BOOT, REFRESH, TIMER):
        found.extend(f"{folder}/{unit}" for folder in _OVERRIDES if os.path.lexists(below(root, f"{folder}/{unit}")))
        stem, _unused, suffix = unit.rpartition(".")
        parts = stem.split("-")
        names = [unit, *("-".join(parts[:count]) + f"-.{suffix}" for count in range(1, len(parts)))]
        for folder in (f"{top}/{name}.d" for top in _DROP_IN_FOLDERS for name in names):
            try:
                files_there = os.listdir(below(root, folder))
            except OSError:
                continue
            paths = [f"{folder}/{name}" for name in sorted(files_there) if name.endswith(".conf")]
            found.extend(path for path in paths if path not in dropins.contents())
    return list(dict.fromkeys(found))


def _unlink(path: str) -> None:
    try:
        atomic.remove(path)
        atomic.sync(os.path.dirname(path))
    except OSError as error:
        raise EnforcerError(f"cannot delete {path}: {error.strerror or error}") from error


def _difference(path: str, digest: str, mode: int) -> str:
    """How a file differs. ``digest``: the SHA-256 that it must have."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    try:
        content = files.read(path)
    except OSError as error:
        return error.strerror or "not readable"
    if hashlib.sha256(content).hexdigest() != digest:
        return "content"
    if stat.S_IMODE(status.st_mode) != mode:
        return f"mode {mode:04o}, was {stat.S_IMODE(status.st_mode):04o}"
    return "" if (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid()) else "owner"


def _write(root: str, path: str, content: bytes, mode: int) -> None:
    where = below(root, path)
    folder = os.path.dirname(where)
    try:
        atomic.make_folder(folder)
        atomic.write(where, content, mode, exact=True)
        atomic.sync(folder)  # PACKAGE is written last, and must not be on the disk before the files that it lists
    except OSError as error:
        raise EnforcerError(f"cannot write {path}: {error.strerror or error}") from error


def _unlisted_files(root: str, package: Mapping[str, object]) -> list[str]:
    """Files in the package's directory that are not in the package: code of another release must not be imported."""
    unlisted = []
    for folder, folders, names in os.walk(below(root, LIBRARY)):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in names + links:
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
    folder = os.path.dirname(link)
    temporary = atomic.beside(link)
    try:
        atomic.make_folder(folder)
        atomic.remove(temporary)
        os.symlink(unit, temporary)
        if os.path.isdir(link) and not os.path.islink(link):
            atomic.remove(link)
        os.replace(temporary, link)
        atomic.sync(folder)
    except OSError as error:
        raise EnforcerError(f"cannot write {link}: {error.strerror or error}") from error


# ---- remove -------------------------------------------------------------------------------------------------------


def traces(root: str = "/") -> list[str]:
    """The files and directories of the enforcer, in the order in which they are removed.

    A directory comes after its files, and what depends on the boot unit comes before the unit."""
    result: list[str] = []

    def add(path: str) -> bool:
        paths = [name for name in (atomic.beside(path), path) if os.path.lexists(below(root, name))]
        result.extend(paths)
        return bool(paths)

    for link in sorted(ENABLED):
        add(link)
    units = below(root, UNITS)
    for name in sorted(os.listdir(units)) if os.path.isdir(units) else ():
        folder = f"{UNITS}/{name}"
        if not name.endswith(".d") or not add(f"{folder}/{dropins.NAME}"):
            continue
        if all(f"{folder}/{file}" in result for file in os.listdir(below(root, folder))):
            result.append(folder)
    for path in [f"{UNITS}/{unit}" for unit in (BOOT, REFRESH, TIMER)] + [COMMAND]:
        add(path)
    for top in (STATE, LIBRARY):  # the code last: until then another run can finish an interrupted removal
        for folder, folders, names in os.walk(below(root, top), topdown=False):
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
        where = below(root, path)
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
    if os.path.lexists(below(root, f"{UNITS}/{TIMER}")):
        control(["stop", TIMER, REFRESH])


def result_of(files: list[str], kernel: dict[str, Any]) -> dict[str, Any]:
    """One result of a module for the changes of files and those in the kernel."""
    text = "".join(line + "\n" for line in files) + kernel["diff"]["prepared"]
    return dict(kernel, changed=bool(files) or kernel["changed"], diff={"prepared": text})
