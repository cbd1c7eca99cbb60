# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the attached programs run. A switch of the kernel can stop them all while their links stay as they are."""

from __future__ import annotations

from .pins import opened_map
from .protocol import Kernel

_FTRACE = "kernel.ftrace_enabled is 0: no program of the enforcer runs, nothing is denied"
_STOPPED = "the programs are attached and do not run: nothing is denied"


def stopped(kernel: Kernel, in_force: bool) -> tuple[str, str] | None:
    """What has stopped the programs, and the remedy; None if they run. ``in_force``: a policy is active, so that the
    programs record tasks."""
    if not kernel.environment().ftrace:
        return _FTRACE, "Run `sysctl kernel.ftrace_enabled=1`, and look for who changed it"
    if in_force and not _recorded(kernel):
        return _STOPPED, "Look for what stopped them at `dmesg` and in docs/kernel-switches.md"
    return None


def _recorded(kernel: Kernel) -> bool:
    try:
        with opened_map(kernel, "tasks", readonly=True) as storage:
            return kernel.records_new_task(storage)
    except PermissionError:
        # A program denied it, so the programs run: the policy that was just put in force binds whoever applies it. The
        # trial must go on, so that the kernel goes back to the fallback at its deadline.
        return True


def line(kernel: Kernel, in_force: bool) -> list[str]:
    """The result of `stopped` as one line, or none."""
    found = stopped(kernel, in_force)
    return ["{}. {}".format(*found)] if found else []
