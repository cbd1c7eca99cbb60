# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way of checks/flows.py, one boot for a kernel, the oldest and the newest, in the long run on all of them: from a file to
the network, with `has_read`."""

from __future__ import annotations

import concurrent.futures
import functools
import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from checks import flows
from harness import boot

SCRIPT = boot.image.GUEST / "harness" / "hooks.py"
KERNELS = boot.KERNELS if os.environ.get("HOOKS") == "all" else [boot.KERNELS[0], boot.KERNELS[-1]]


WAYS = [*flows.WAYS, *flows.STORIES]


@functools.lru_cache(None)
def boots() -> dict[str, concurrent.futures.Future]:
    """All of them, as many at once as there are processors."""
    boot.fetch()
    boot.image.base()
    boot.image.programs()
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    command = [str(SCRIPT), "labels"]
    return {kernel: pool.submit(boot.boot, kernel, command, seconds=3600) for kernel in KERNELS}


@functools.lru_cache(None)
def ran(kernel: str) -> tuple[dict[str, dict], str]:
    result = boots()[kernel].result()
    found = {}
    for line in result.output.splitlines():
        if line.startswith('{"check"'):
            one = json.loads(line)
            found[one["check"]] = one
        elif line.startswith(("known open", "closed after all")):
            print(f"{kernel}: {line}")
    return found, result.console[-2000:] + result.output[-4000:]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_way(kernel: str, way: str) -> None:
    found, end = ran(kernel)
    assert way in found, "did not report:\n" + end
    assert found[way]["ok"], found[way]["detail"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_is_well(kernel: str) -> None:
    end = ran(kernel)[1]
    for trouble in ("BUG:", "WARNING:", "Oops", "rcu_sched detected"):
        assert trouble not in end
