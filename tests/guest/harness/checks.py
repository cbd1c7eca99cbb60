# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of the checks of hooks, and how a check tries a technique. Each attempt is made without a policy, under a
policy that only audits, and under one that denies; what counts is its errno and which rule counted it."""

import glob
import os
import signal
from typing import Any, Callable, Dict, NamedTuple, Optional

from techniques import descriptors, files, identity, machine, network
from techniques.registry import TECHNIQUES, Technique, arrives
from techniques.steps import gone

from harness.attempt import NOTHING, Attempt
from harness.enforcer import Enforcer
from harness.process import ALICE, BOB, CAROL, become, in_child

assert descriptors and files and identity and machine and network  # they fill the registry of techniques
EPERM = 1
VAULT4, VAULT6, OTHER4, OTHER6, PORT = "10.9.0.1", "fd09::1", "10.9.1.1", "fd09:1::1", 4443
ARRIVED = "/run/arrived"


class Check(NamedTuple):
    """An attempt that is made in each phase."""

    name: str
    module: str
    attempt: Callable[[], int]  # gives its errno, 0 if it passed
    rule: Optional[str]  # by which it is denied; None: no policy may hinder it
    errno: int  # how it ends under the policy


class Story(NamedTuple):
    """A check that has policies of its own, tried once."""

    name: str
    module: str
    run: Callable[[], None]


ATTEMPTS: Dict[str, Check] = {}
STORIES: Dict[str, Story] = {}
enforcer = Enforcer()


def denied(rule, ends=EPERM):
    """Registers an attempt of whom ``rule`` binds: it passes without a policy and in audit mode, and ends with ``ends``
    under the policy."""

    def register(function):
        _add(Check(function.__name__, function.__module__, function, rule, ends))
        return function

    return register


def passes(function):
    """Registers an attempt that no policy may hinder."""
    _add(Check(function.__name__, function.__module__, function, None, 0))
    return function


def story(function):
    """Registers a check that has policies of its own."""
    STORIES[function.__name__] = Story(function.__name__, function.__module__, function)
    return function


def denied_techniques(module, rule, who, places=None, ends=EPERM, **techniques):
    """Registers a check for each of ``techniques`` (name of the check = name of the technique), tried as ``who``."""
    for name, technique in techniques.items():
        _add(Check(name, module, _trying(TECHNIQUES[technique], who, places or Places()), rule, ends))


def passes_technique(module, who, name, technique):
    """Registers a check that no policy hinders ``technique``, tried as ``who``."""
    _add(Check(name, module, _trying(TECHNIQUES[technique], who, Places()), None, 0))


def _trying(technique, who, places):
    return lambda: Trial(technique, places).errno(who)


def _add(check):
    assert check.name not in ATTEMPTS, check.name
    ATTEMPTS[check.name] = check


# ---- who: called in the trial's process, as root ---------------------------------------------------------------------


def as_user(number, *groups):
    """Somebody, in the given groups."""
    return lambda: become(number, groups)


def as_root(*groups):
    """Root, in the given groups."""
    return lambda: os.setgroups(groups)


class Places:
    """Where a trial of a check happens. A check about other objects gives other places."""

    base, open, bin, tool = "/srv", "/srv/open", "/srv/bin", "/srv/bin/tool"
    secret_folder, secret = "/srv/secret", "/srv/secret/data"
    exports, deep = "/srv/exports", "/srv/deep/inner/secret"
    run, logs, arrived_folder = "/srv/agents", "/tmp", ARRIVED
    outside4, outside6, vault4, vault6, port = VAULT4, VAULT6, OTHER4, OTHER6, PORT  # rules are about the vault here
    users = {"alice": ALICE, "bob": BOB, "carol": CAROL}
    systemd = False

    def __init__(self, **other: Any) -> None:
        for name, value in other.items():
            setattr(self, name, value)

    def fresh(self, trial: Any) -> None:
        """Writes the mark of this trial into everything that is covered."""
        for path in (
            self.secret,
            self.exports + "/a.csv",
            self.exports + "/a.txt",
            self.deep + "/f",
            self.deep + "/data",
        ):
            with open(path, "wb") as file:
                file.write(trial.data)
            os.chmod(path, 0o666)

    def become(self, who: str) -> None:
        become(65534 if who == "nobody" else self.users[who])

    def unbound(self) -> None:
        """Makes the process, root's, one that no rule names."""
        os.setgroups([])


class Trial(Attempt):
    """One try of a technique for a check. What the technique holds from before is root's: the check is about who uses it
    under the policy."""

    def __init__(self, technique: Technique, places: Places) -> None:
        super().__init__(technique, places, "check")

    def errno(self, who: Callable[[], None]) -> int:
        """Tries it; gives its errno, 0 if it passed, NOTHING if it ended without an error and without an effect."""
        technique = self.technique
        held = []

        def before() -> None:
            if technique.root:
                technique.root(self)
            if technique.held:
                held.append(technique.held(self))
            who()

        def operation() -> None:
            result = technique.attempt(self, *held)
            readable = isinstance(result, (bytes, str, list, tuple))
            if not technique.evidence and result is not True and not (readable and self.has(result)):
                raise OSError(NOTHING, "no error, and nothing came of it")

        self.place.fresh(self)
        try:
            if technique.ready:
                technique.ready(self)
            number = in_child(operation, before=before)
            if number == 0 and technique.evidence not in (None, arrives) and not technique.evidence(self):
                return NOTHING
            return number
        finally:
            self._end()

    def _end(self) -> None:
        for child in self.helpers:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if self.technique.last:
            self.technique.last(self)
        for pattern in (self.own, f"{self.place.open}/{self.mark}", f"{self.place.secret_folder}/{self.mark}"):
            gone(*glob.glob(glob.escape(pattern) + "*"))  # the disk is small
