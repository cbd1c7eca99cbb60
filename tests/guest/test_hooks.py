# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check of hooks on every kernel, also with the rename sequence hidden and with full preemption. One
boot for each pair runs them all; a check that does not report has failed."""

from __future__ import annotations

import concurrent.futures
import json
import os
import sys
from pathlib import Path
from typing import Callable, Iterator

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import boot, hooks
from harness.checks import ATTEMPTS, STORIES

SCRIPT = boot.image.GUEST / "harness" / "hooks.py"
assert hooks  # fills the registry of checks
VARIANTS: dict[str, dict] = {
    "plain": {},
    "kptr_restrict=2": {"sysctl": ["kernel.kptr_restrict=2"]},
    "preempt=full": {"arguments": "preempt=full"},
}


# They switch ftrace off and on as their control. A kernel may refuse to attach a program afterwards (seen on 6.1 and
# 6.12), so that each needs a boot of its own: on one kernel, and in the long run on all.
ALONE = {
    "6.1": "a_switch_that_stops_the_programs_is_seen",
    "6.12": "no_switch_of_the_kernel_is_moved_by_who_is_bound",
    "7.2": "no_user_namespace_gives_a_right_over_what_enforces",
}


def checks(module: str | None = None) -> list[str]:
    """The names in the registry of checks, of one module or of all, but for those that run alone."""
    return [
        each.name
        for registry in (ATTEMPTS, STORIES)
        for each in registry.values()
        if module in (None, each.module) and each.name not in ALONE.values()
    ]


# a variant on one kernel each, but in the long run; 7.2 is preempted as it comes
PAIRS = [
    (kernel, variant)
    for kernel in boot.KERNELS
    for variant in VARIANTS
    if os.environ.get("HOOKS") == "all"
    or variant == "plain"
    or (kernel, variant) in (("6.1", "kptr_restrict=2"), ("6.12", "preempt=full"))
] + [
    (kernel, story)
    for kernel in boot.KERNELS
    for story in ALONE.values()
    if os.environ.get("HOOKS") == "all" or ALONE[kernel] == story
]


def checks_of(variant: str) -> list[str]:
    """Of the variants those of checks/hooks.py, which the variants are about; all of them in the long run. A check that
    runs alone is a variant of its own."""
    if variant in ALONE.values():
        return [variant]
    every = variant == "plain" or os.environ.get("HOOKS") == "all"
    return checks(None if every else "checks.hooks")


def run(kernel: str, variant: str) -> dict[str, dict]:
    result = boot.boot(kernel, [str(SCRIPT), *checks_of(variant)], seconds=3600, **VARIANTS.get(variant, {}))
    found = {}
    for line in result.output.splitlines():
        if line.startswith('{"check"'):
            one = json.loads(line)
            found[one["check"]] = one
    found[""] = {"ok": result.status == 0, "detail": result.console[-2000:] + result.output[-4000:]}
    return found


@pytest.fixture(scope="session", name="ran")
def fixture_ran(request: pytest.FixtureRequest) -> Iterator[Callable[[str, str], dict[str, dict]]]:
    """One boot for each pair that a selected test asks for, as many at once as there are processors."""
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    pairs = dict.fromkeys((p["kernel"], p["variant"]) for p in parameters if {"kernel", "variant"} <= set(p))
    boot.fetch(sorted({kernel for kernel, _variant in pairs}))
    boot.image.base()
    boot.image.programs()
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    futures = {pair: pool.submit(run, *pair) for pair in pairs}
    yield lambda kernel, variant: futures[kernel, variant].result()
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(
    "kernel, variant, check", [(kernel, variant, check) for kernel, variant in PAIRS for check in checks_of(variant)]
)
def test_hook(ran: Callable, kernel: str, variant: str, check: str) -> None:
    found = ran(kernel, variant)
    assert check in found, "did not report:\n" + found[""]["detail"]
    assert found[check]["ok"], found[check]["detail"]


@pytest.mark.parametrize("kernel, variant", PAIRS)
def test_guest_ran_to_its_end(ran: Callable, kernel: str, variant: str) -> None:
    end = ran(kernel, variant)[""]
    assert end["ok"], end["detail"]
    for trouble in ("BUG:", "WARNING:", "Oops", "rcu_sched detected"):
        assert trouble not in end["detail"]
