# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drop-ins of systemd's units that make `boot: require` effective. They exist only while the confirmed policy says
so: without them, whatever happens to the boot unit delays nothing and keeps nothing from starting.

sysinit.target, and the network services that start without it, require the boot unit; sysinit.target keeps everything
else from starting, logins included. The boot unit itself waits without a limit, and asks the kernel whether programs
are attached: a damaged command may end with success."""

from __future__ import annotations

import os

from ..errors import EnforcerError
from . import atomic, files

UNITS = "/etc/systemd/system"
BOOT = "exfil-guard-boot.service"
NAME = "exfil-guard.conf"
HELD_BACK = ("sysinit.target", "networking.service", "ifup@.service", "systemd-networkd.service")
_REQUIRE = f"""\
# Installed by exfil.guard while the policy says `boot: require`, and removed with it.

[Unit]
Requires={BOOT}
After={BOOT}
"""
_CHECK = """\
# Installed by exfil.guard while the policy says `boot: require`, and removed with it.

[Service]
TimeoutStartSec=infinity
ExecStartPost=/bin/sh -c 'set -- /sys/fs/bpf/exfil_guard/v*/links-*/*; test -e "$1"'
"""


def below(root: str, path: str) -> str:
    """The place of ``path`` on a host whose files are in the directory ``root``."""
    return os.path.join(root, path.lstrip("/"))


def _path(unit: str) -> str:
    return f"{UNITS}/{unit}.d/{NAME}"


def contents() -> dict[str, str]:
    """Path -> content, in the order in which they are written: first the unit is strict, then others depend on it."""
    return {_path(BOOT): _CHECK, **{_path(unit): _REQUIRE for unit in HELD_BACK}}


def present(root: str) -> bool:
    """Whether a unit waits for the policy."""
    return any(os.path.lexists(below(root, _path(unit))) for unit in HELD_BACK)


def lines(root: str, required: bool, *, unit: bool | None = None) -> list[str]:
    """What `ensure` changes, as lines of a diff. ``unit``: whether the host has the boot unit, default: look."""
    result = []
    if unit is None:
        unit = os.path.lexists(below(root, f"{UNITS}/{BOOT}"))
    for path, content in contents().items():
        there = os.path.lexists(below(root, path))
        if required and unit:
            if not there:
                result.append(f"+ {path}")
            elif not _intact(below(root, path), content):
                result.append(f"~ {path}")
        elif not required and there:
            result.append(f"- {path}")
    return result


def _intact(path: str, content: str) -> bool:
    try:
        return files.read_own(path) == content.encode("ascii")
    except OSError:
        return False


def ensure(root: str, required: bool) -> list[str]:
    """Writes the drop-ins, or deletes them, those of the other units first. Returns the lines of the diff. Raises
    EnforcerError.

    A host without the boot unit gets none: nothing could start it."""
    changes = lines(root, required)
    for change in changes if required else reversed(changes):
        path = change[2:]
        where = below(root, path)
        folder = os.path.dirname(where)
        try:
            if required:
                atomic.make_folder(folder)
                atomic.write(where, contents()[path].encode("ascii"), 0o644, exact=True)
                atomic.sync(folder)
            else:
                atomic.remove(atomic.beside(where))
                atomic.remove(where)
                atomic.sync(folder)
                if not os.listdir(folder):
                    os.rmdir(folder)
        except OSError as error:
            do = "write" if required else "delete"
            raise EnforcerError(f"cannot {do} {path}: {error.strerror or error}") from error
    return changes
