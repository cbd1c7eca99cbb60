# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random programs of bound tasks find nothing, and find a leak within a minute where there is one. GENERATE=seconds is for a
search on every kernel (`make adversary`: ten minutes, `make test-all`: an hour); without it, a minute on the newest. SEED=number
makes another search."""

from __future__ import annotations

import concurrent.futures
import os
import random
import sys
from pathlib import Path
from typing import Callable, Iterator

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from generator import program as programs
from generator.operations import ALL, OPERATIONS
from harness import boot, searches

LONG = os.environ.get("GENERATE")
SECONDS = int(LONG or 60)
KERNELS = boot.KERNELS if LONG else boot.KERNELS[-1:]
SEED = os.environ.get("SEED", "1")
LEFT_OUT = {"audit": ["--mode", "audit"], "no file_permission": ["--without", "file_permission"]}
OLDEST = boot.KERNELS[0]


@pytest.fixture(scope="session", name="search")
def fixture_search() -> Iterator[Callable[[str, tuple[str, ...]], searches.Found]]:
    """As many guests at once as there are processors."""
    boot.fetch()
    boot.image.base()
    boot.image.programs()
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    futures = {(kernel, ()): pool.submit(searches.run, kernel, SECONDS, ["--seed", SEED]) for kernel in KERNELS}
    for arguments in LEFT_OUT.values():
        words = [*arguments, "--most", "1", "--seed", SEED]
        futures[OLDEST, tuple(arguments)] = pool.submit(searches.run, OLDEST, 60, words)
    yield lambda kernel, arguments: futures[kernel, arguments].result()
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("left_out", LEFT_OUT)
def test_a_leak_is_found_within_a_minute(search: Callable, left_out: str) -> None:
    found = search(OLDEST, tuple(LEFT_OUT[left_out]))
    assert found.end, found.output
    assert found.finds and found.end["first"] < 60, found.end
    assert found.finds[0]["steps"]  # reduced to what leaks


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_is_found(search: Callable, kernel: str) -> None:
    found = search(kernel, ())
    assert found.end, found.output
    print("\n" + searches.summary(found))
    assert not found.finds, "\n\n".join(one["script"] for one in found.finds)
    assert found.end["programs"] > SECONDS / 4  # it did search
    verdicts = found.end["verdicts"]
    assert verdicts["alice reads the secret"] == 1 and verdicts["bob reads the customers' data and sends"] == 1


def _some(seed: int) -> list[programs.Program]:
    dice, made = random.Random(seed), []
    for _ in range(50):
        made.append(programs.fresh(dice, "alice"))
        made.append(programs.changed(dice, "alice", made[-1], made))
    return made


def test_a_seed_makes_the_same_programs() -> None:
    assert _some(1) == _some(1) != _some(2)


def test_programs_are_of_what_their_subject_may_try() -> None:
    names = {step.name for program in _some(3) for step in program}
    assert names and all("alice" in OPERATIONS[name].whose for name in names)
    assert all(program == programs.from_json(programs.to_json(program)) for program in _some(3))


def test_every_operation_is_somebody_s() -> None:
    dice = random.Random(4)
    made = {programs.step(dice, who).name for who in ALL for _ in range(4000)}
    assert made == set(OPERATIONS)


def test_a_find_is_reduced_to_the_steps_it_needs() -> None:
    program = programs.from_json([["pipe"], ["openat", "secret", 0], ["fork"], ["read", -1, 64], ["unlink", "a"]])
    needed = {"openat", "read"}
    assert [step.name for step in programs.reduced(program, lambda p: needed <= {one.name for one in p})] == [
        "openat",
        "read",
    ]
