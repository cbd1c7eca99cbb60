# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks that hooks.py runs, whichever file they stand in, and the enforcer they are about."""

from harness.enforcer import Enforcer

ATTEMPTS, STORIES = {}, {}
enforcer = Enforcer()


def denied(rule, ends=1):
    """An attempt of whom ``rule`` binds: it passes without a policy and in audit mode, and ends with ``ends`` under the
    policy."""

    def register(function):
        ATTEMPTS[function.__name__] = (function, rule, ends)
        return function

    return register


def passes(function):
    """An attempt that no policy may hinder."""
    ATTEMPTS[function.__name__] = (function, None, 0)
    return function


def story(function):
    STORIES[function.__name__] = function
    return function
