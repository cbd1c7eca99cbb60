# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each system call of each kernel has a technique, or a reason why it needs none; docs/system-calls.md says what is so.
UPDATE=1 writes the page instead."""

from __future__ import annotations

import concurrent.futures
import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import boot, callpage, report
from techniques import coverage

report.names()  # fills the registry
from techniques.registry import TECHNIQUES


@pytest.fixture(scope="session", name="kernels")
def fixture_kernels() -> dict[str, dict[str, Any]]:
    boot.fetch()
    boot.image.base()
    boot.image.programs()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(boot.KERNELS, pool.map(callpage.ask, boot.KERNELS)))


def test_each_row_names_techniques_or_a_reason() -> None:
    assert not coverage.mistakes(TECHNIQUES)


def test_a_call_that_is_not_listed_fails() -> None:
    new = {
        "64": ["read", "shiny_new"],
        "32": ["shiny_new32"],
        "x32": ["y"],
        "io_uring": ["shiny"],
        "bpf": ["new_command"],
    }
    assert coverage.lacking(new) == [
        "system call shiny_new",
        "32-bit call shiny_new32",
        "x32 call y",
        "operation shiny of an io_uring",
        "command new_command of bpf(2)",
    ]


@pytest.mark.parametrize("kernel", boot.KERNELS)
def test_the_kernel_has_no_call_that_is_not_listed(kernels: dict[str, dict[str, Any]], kernel: str) -> None:
    assert len(kernels[kernel]["64"]) > 300 and len(kernels[kernel]["32"]) > 300  # the list was read
    assert not coverage.lacking(kernels[kernel])


def test_nothing_is_listed_that_no_kernel_has(kernels: dict[str, dict[str, Any]]) -> None:
    assert not coverage.left_over(kernels.values())


def test_the_page_says_what_is_so(kernels: dict[str, dict[str, Any]]) -> None:
    shown = callpage.page(kernels)
    if os.environ.get("UPDATE") == "1":
        callpage.PAGE.write_text(shown, encoding="utf-8")
    tracked = callpage.PAGE.read_text(encoding="utf-8") if callpage.PAGE.exists() else ""
    assert tracked == shown, "docs/system-calls.md is stale: UPDATE=1 pytest tests/guest/test_calls.py writes it"
