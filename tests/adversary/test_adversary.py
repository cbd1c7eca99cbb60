# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing gets through, on any kernel; every technique reported; the tracked table says what the run showed. UPDATE=1
writes the table instead. LONG=1 makes the storms as long as promised."""

from __future__ import annotations

import concurrent.futures
import os
import sys
from pathlib import Path
from typing import Callable, Iterator

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import report  # noqa: E402

KERNELS = report.boot.KERNELS
LONG = os.environ.get("LONG") == "1"
# of the guest's script; memory for 10,000 tasks and 100,000 open files
STORMS = {"seconds": 3600, "memory": 3072, "arguments": ["--long"]} if LONG else {"seconds": 300, "memory": 768}


@pytest.fixture(scope="session", name="ran")
def fixture_ran(request: pytest.FixtureRequest) -> Iterator[Callable]:
    """As many guests at once as there are processors, for what the selected tests ask."""
    wanted = {item.originalname for item in request.session.items}  # type: ignore[attr-defined]
    report.boot.fetch(KERNELS)
    report.boot.image.base()
    report.programs()
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    futures = {}
    for kernel in KERNELS:
        if wanted - {"test_storms"}:
            futures[kernel, "adversary.py"] = pool.submit(report.run, kernel)
        if "test_storms" in wanted:
            futures[kernel, "storms.py"] = pool.submit(report.run, kernel, script="storms.py", **STORMS)
    yield lambda kernel, script="adversary.py": futures[kernel, script].result()
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_gets_through(ran: Callable, kernel: str) -> None:
    found = ran(kernel)
    print("\n" + report.summary(found))
    assert not report.wrong(found), "\n".join(report.wrong(found))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_technique_reported(ran: Callable, kernel: str) -> None:
    assert sorted(ran(kernel).techniques) == sorted(report.names())


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
        pytest.fail("docs/mediation.md says something else; make adversary UPDATE=1 writes it:\n" + "\n".join(different))


@pytest.mark.parametrize("kernel", KERNELS)
def test_storms(ran: Callable, kernel: str) -> None:
    found = ran(kernel, "storms.py")
    assert found.end, found.output
    for name, one in found.end["storms"].items():
        print(f"\n{kernel}: {name}: {one['said']}")
    assert not found.end["wrong"], found.end["wrong"]
    for trouble in ("BUG:", "WARNING:", "Oops", "rcu_sched detected", "general protection", "Out of memory"):
        assert trouble not in found.output
