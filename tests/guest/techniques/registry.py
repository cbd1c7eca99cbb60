# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of techniques. A technique is an operation that somebody tries: its name, what it does, which action has to
decide it, and how to try it. Two runners use it: the attacks (does the mark get out?) and the checks of hooks (does the
hook of this kernel deny the operation, and allow it otherwise?).

``attempt(t)`` gets the runner's trial, with the places it may use (``t.secret``, ``t.open``, ``t.outside4`` ...) and the mark of this
trial (``t.mark``, ``t.data``). It returns True or what it read, and raises OSError when the kernel refuses."""

import os
import time
import traceback
from typing import Any, Callable, Dict, List, NamedTuple, Optional


class Absent(Exception):
    """What the technique needs is not to be had on this machine: a protocol, a program, a device."""


class Technique(NamedTuple):
    name: str
    group: str  # files, network, machine, flows, others, services, tamper
    what: str  # the operation, as the table in the documentation names it
    action: str  # of the rule that has to stop it
    attempt: Callable  # of the trial, and of what ``held`` gives
    who: str  # a user, or NAME.service: root in that unit
    evidence: Optional[Callable]  # tried by the runner afterwards; without it the function's own answer counts
    ready: Optional[Callable]  # by the runner, before each attempt
    root: Optional[Callable]  # in the attempt's process, before it becomes `who`
    held: Optional[Callable]  # as `who`, before the policy is in force; the function gets what it gives
    last: Optional[Callable]  # by the runner, after each attempt
    open: str  # why no hook sees it
    closed_by: Optional[Dict[str, Any]]  # the rule that stops it nevertheless
    refreshed: bool  # the policy has to be applied once more, as the host does it by itself
    covered: bool  # also once between ``ready`` and ``root``


TECHNIQUES: Dict[str, Technique] = {}


def technique(
    group,
    what,
    action,
    *,
    who="alice",
    evidence=None,
    ready=None,
    root=None,
    held=None,
    last=None,
    open="",
    closed_by=None,
    refreshed=False,
    covered=False,
):
    def register(function):
        name = function.__name__
        assert name not in TECHNIQUES, name
        TECHNIQUES[name] = Technique(
            name,
            group,
            what,
            action,
            function,
            who,
            evidence,
            ready,
            root,
            held,
            last,
            open,
            closed_by,
            refreshed,
            covered,
        )
        return function

    return register


def part_of(names: List[str], share: str, which: str = "") -> List[str]:
    """Of the names that begin with ``which`` those of one part of several, "0/3"; and all others."""
    part, parts = map(int, share.split("/"))
    left_out = {name for place, name in enumerate(n for n in names if n.startswith(which)) if place % parts != part}
    return [name for name in names if name not in left_out]


def arrives(t: Any) -> bool:
    return t.arrived()


def appears(path: str, seconds: float = 15) -> None:
    ends = time.monotonic() + seconds
    while not os.path.lexists(path):
        if time.monotonic() > ends:
            raise OSError(110, f"no {path} appears")
        time.sleep(0.002)


def in_child(operation: Callable[[], Any]) -> Any:
    """Runs in a child; True when it gave True. Only a status comes back."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if operation() is True else 2
        except OSError as error:
            status = error.errno or 1
        except BaseException:
            traceback.print_exc()
            status = 1
        os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return True
    if code > 2:
        raise OSError(code, os.strerror(code) + " (in a child)")
    if code == 1:
        raise OSError(1, "in a child")
    return False
