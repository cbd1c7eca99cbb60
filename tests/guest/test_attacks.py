# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing gets through, on any kernel; every technique reported; the tracked table says what the run showed. UPDATE=1
writes the table instead. LONG=1 is for `-k storms`: these alone, as long as promised. SHORT=1 is for `-k "not table"`:
everything on one kernel, a part of it on the others."""

from __future__ import annotations

import concurrent.futures
import os
import sys
from pathlib import Path
from typing import Callable, Iterator

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import report

KERNELS = report.boot.KERNELS
STORMS = 8
LONG, SHORT = os.environ.get("LONG") == "1", os.environ.get("SHORT") == "1"
# memory for 10,000 tasks and 100,000 open files
HOW = (
    {"arguments": ["--storms", "long", "--group", "none"], "seconds": 7200, "memory": 3072} if LONG else {"memory": 768}
)


def parts(kernel: str) -> tuple[str, str]:
    """Each kernel takes its part of the random combinations; of everything, when it is to be short."""
    place = KERNELS.index(kernel)
    return f"{place}/{len(KERNELS)}", f"{place}/6" if SHORT and place else "0/1"


def arguments(kernel: str) -> list[str]:
    mixes, share = parts(kernel)
    storms = "none" if SHORT and KERNELS.index(kernel) else "short"
    return ["--storms", storms, "--mixes", mixes, "--share", share]


@pytest.fixture(scope="session", name="ran")
def fixture_ran(request: pytest.FixtureRequest) -> Iterator[Callable]:
    """Each kernel that a test is about; as many guests at once as there are processors."""
    asked = [
        getattr(item, "callspec", None) for item in request.session.items if "ran" in getattr(item, "fixturenames", ())
    ]
    kernels = [
        kernel for kernel in KERNELS if None in asked or any(kernel == one.params["kernel"] for one in asked if one)
    ]
    report.boot.fetch(kernels)
    report.boot.image.base()
    report.programs()
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    futures = {kernel: pool.submit(report.run, kernel, **{"arguments": arguments(kernel), **HOW}) for kernel in kernels}
    yield lambda kernel: futures[kernel].result()
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_gets_through(ran: Callable, kernel: str) -> None:
    found = ran(kernel)
    print("\n" + report.summary(found))
    assert not report.wrong(found), "\n".join(report.wrong(found))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_technique_reported(ran: Callable, kernel: str) -> None:
    assert sorted(ran(kernel).techniques) == sorted(report.names(*parts(kernel)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_is_well(ran: Callable, kernel: str) -> None:
    for trouble in ("BUG:", "WARNING:", "Oops", "rcu_sched detected", "general protection"):
        assert trouble not in ran(kernel).output


def test_at_least_120_techniques() -> None:
    assert sum(not name.startswith("mix__") for name in report.names()) >= 120
    assert sum(name.startswith("mix__") for name in report.names()) >= 200


def test_table_is_what_the_run_shows(ran: Callable) -> None:
    shown = report.table([ran(kernel) for kernel in KERNELS])
    if os.environ.get("UPDATE") == "1":
        report.TABLE.write_text(shown, encoding="utf-8")
    tracked = report.TABLE.read_text(encoding="utf-8") if report.TABLE.exists() else ""
    if tracked != shown:
        different = [line for line in shown.splitlines() if line not in tracked.splitlines()]
        pytest.fail(
            "docs/mediation.md says something else; make adversary UPDATE=1 writes it:\n" + "\n".join(different)
        )


@pytest.mark.parametrize("kernel", KERNELS)
def test_storms(ran: Callable, kernel: str) -> None:
    found = ran(kernel)
    assert len(found.end.get("storms", ())) == (STORMS if "none" not in arguments(kernel) or LONG else 0), found.output
    for name, one in found.end["storms"].items():
        print(f"\n{kernel}: {name}: {one['said']} ({one['seconds']} s)")
    assert not found.end["wrong"], found.end["wrong"]
    for trouble in ("BUG:", "WARNING:", "Oops", "rcu_sched detected", "general protection", "Out of memory"):
        assert trouble not in found.output
