# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The paths of the enforcer's pins in bpffs, and how to open them."""

from __future__ import annotations

import struct

from .. import layout
from .protocol import Kernel

LAYOUT = layout.LAYOUT

FIRST_KEY = struct.pack("=I", 0)


def base(kernel: Kernel) -> str:
    """The directory of all pins."""
    return kernel.path("exfil_guard", f"v{LAYOUT}")


def map_path(kernel: Kernel, name: str) -> str:
    """The pin of a map."""
    return f"{base(kernel)}/maps/{name}"


class Opened:
    """A context manager that closes a descriptor."""

    def __init__(self, kernel: Kernel, fd: int) -> None:
        self.kernel, self.fd = kernel, fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_unused: object) -> None:
        self.kernel.close(self.fd)


def opened(kernel: Kernel, path: str, readonly: bool = False) -> Opened:
    """Opens a pin for a `with` block."""
    return Opened(kernel, kernel.get(path, readonly))


def opened_map(kernel: Kernel, name: str, readonly: bool = False) -> Opened:
    """Opens a pinned map for a `with` block."""
    return opened(kernel, map_path(kernel, name), readonly)


def versions(kernel: Kernel) -> list[str]:
    """The versions of the object whose programs are pinned: the first digits of its digest. Two during an upgrade."""
    return [name[len("programs-") :] for name in kernel.names(base(kernel)) if name.startswith("programs-")]


def program_path(kernel: Kernel, version: str, hook: str) -> str:
    """The pin of a program."""
    return f"{base(kernel)}/programs-{version}/{hook}"


def links_path(kernel: Kernel, version: str) -> str:
    """The directory of the pinned links of a version."""
    return f"{base(kernel)}/links-{version}"


def available_hooks(kernel: Kernel, version: str) -> frozenset[str]:
    """The hooks for which this kernel has a program of the version."""
    return frozenset(kernel.names(f"{base(kernel)}/programs-{version}"))
