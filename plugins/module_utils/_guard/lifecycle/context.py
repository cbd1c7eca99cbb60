# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every operation on a policy needs: the kernel, the host, the stored generations, the date and the options."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from ..host.paths import Paths
from ..host.protocols import Store, System
from ..kernel.protocol import Kernel


@dataclass(frozen=True)
class Options:
    """How a document is applied.

    ``check``: only report what would change. ``confirm_seconds``: how long the generation is on trial; 0 confirms it
    at once. ``revision``: the commit that the document was made from. ``soak``: what is in force stays, and what is new
    only reports. ``refresh``: nobody reviews the result: names and paths that are gone keep their last meaning.
    ``installation``: what was just found wrong with the installed files and units; None: look."""

    check: bool = False
    confirm_seconds: float = 60
    revision: str | None = None
    soak: bool = False
    refresh: bool = False
    installation: tuple[str, ...] | None = None
    paths: Paths = field(default_factory=Paths)


@dataclass(frozen=True)
class Context:
    """What apply, boot and refresh share. ``now``: the date (UTC) by which rules expire."""

    kernel: Kernel
    system: System
    store: Store
    now: datetime.date
    options: Options = field(default_factory=Options)
