# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the package keeps its files on a host."""

from __future__ import annotations

from dataclasses import dataclass

from ..layout import CANARY_FOLDER, LIBRARY
from . import lock as locking


@dataclass(frozen=True)
class Paths:
    """Files that the operations use. The defaults are those of an installed host; tests use other folders."""

    canary: str = CANARY_FOLDER  # folder of the two files that the self-test opens
    lock: str = locking.PATH
    object: str = LIBRARY + "/guard.bpf.o"  # the compiled BPF programs
