# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the checks of hooks in a guest: each attempt without a policy, under one that only audits, and under one that denies,
then the stories, which have policies of their own. One JSON line for each check; test_hooks.py reads them."""

import json
import os
import sys
import time
import traceback

from checks import audit, certificates, files, flows, hooks, identity, machine, network, places, tamper
from checks.policy import POLICY

from harness.checks import ATTEMPTS, STORIES, enforcer

assert audit and certificates and identity and places and tamper  # they fill the registry of checks


def report(name, wrong):
    print(json.dumps({"check": name, "ok": not wrong, "detail": wrong}), flush=True)


def try_all(wrong, phase):
    for name in wrong:
        check = ATTEMPTS[name]
        counted = check.rule and phase != "none"
        before = enforcer.counter(check.rule) if counted else (0, 0)
        try:
            found = check.attempt()
            wanted = check.errno if phase == "enforce" else 0
            if found != wanted:
                wrong[name].append(f"{phase}: ended with {found}, expected {wanted}")
            if counted:
                after = enforcer.counter(check.rule)
                grown = tuple(new - old > 0 for new, old in zip(after, before))
                if grown != (phase == "enforce", phase == "audit"):
                    wrong[name].append(f"{phase}: counters of the rule went from {before} to {after}")
        except Exception:
            wrong[name].append(f"{phase}: {traceback.format_exc(limit=-3)}")


def tell_story(name, run):
    try:
        run()
        report(name, "")
    except Exception:
        report(name, traceback.format_exc())


def main():
    wanted = set(sys.argv[1:])
    wrong = {name: [] for name in ATTEMPTS if not wanted or name in wanted}
    hooks.prepare()
    machine.prepare()
    files.prepare()
    network.prepare()
    try_all(wrong, "none")
    try:
        enforcer.install()
        for phase in ("audit", "enforce") if wrong else ():
            enforcer.apply({**POLICY, "mode": phase})
            try_all(wrong, phase)
    except Exception:
        trace = traceback.format_exc(limit=-1)
        report("install", trace)
        for lines in wrong.values():
            lines.append(trace)
    for name, lines in wrong.items():
        report(name, "\n".join(lines))
    flows.run(enforcer, wanted, report)
    stories = [each for each in STORIES.values() if not wanted or each.name in wanted]
    for each in sorted(stories, key=lambda each: each.run is hooks.removed_without_trace):  # the last one
        tell_story(each.name, each.run)
    print(json.dumps({"seconds": time.clock_gettime(time.CLOCK_BOOTTIME)}))


if __name__ == "__main__":
    os.chdir("/")
    main()
