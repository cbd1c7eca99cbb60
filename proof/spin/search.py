#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has Spin search every state of each model: as it is, where no assertion may fail, and without each of its safeguards,
where one has to fail. Prints a table."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / ".build" / "proof" / "spin"
MODELS = {
    "switch": ("NO_WAIT", "TWO_SLOTS", "IN_PLACE", "NO_DEADLINE", "NO_MARGIN", "CONFIRM_LATE"),
    "upgrade": ("OLD_FIRST", "ONE_BY_ONE_AT_RANDOM"),
    "boot": ("NOT_ORDERED", "NOT_REQUIRED", "LAST_WRITTEN"),
}
# model: a formula that has to hold under weak fairness, and the safeguard without which it does not
EVENTUALLY = {"switch": ("settled", "NO_CLOCK")}


class Result(NamedTuple):
    """The result of one search."""

    states: int
    errors: int
    complete: bool  # whether all states were searched
    failed: str  # the assertion


def search(model: str, without: str, formula: str = "") -> Result:
    """Searches one model. Raises CalledProcessError when Spin or the C compiler rejects it."""
    folder = OUT / "-".join(filter(None, (model, without, formula)))
    folder.mkdir(parents=True, exist_ok=True)
    options = [f"-D{without}"] if without else []
    subprocess.run(["spin", *options, "-a", HERE / f"{model}.pml"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    build = ["-DNFAIR=4"] if formula else ["-DSAFETY", "-DNOCLAIM"]
    subprocess.run(["gcc", "-O2", "-w", "-DCOLLAPSE", *build, "-o", "pan", "pan.c"], cwd=folder, check=True)
    how = ["-a", "-f"] if formula else []  # the model has one formula
    # without -E a process that has nothing left to do would count as an error
    command = ["./pan", "-E", *how, "-m1000000", "-w24"]
    output = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
    states = re.search(r"(\d+) states, stored", output)
    errors = re.search(r"errors: (\d+)", output)
    failed = re.search(r"assertion violated (.*) \(at depth|(acceptance cycle)", output)
    return Result(
        int(states[1]) if states else 0,
        int(errors[1]) if errors else 1,
        "Search not completed" not in output and "max search depth too small" not in output,
        (failed[1] or "the formula does not hold") if failed else "",
    )


def row(model: str, without: str, formula: str = "") -> bool:
    """Prints a row. False: an assertion fails in the model, or none fails without the safeguard."""
    result = search(model, without, formula)
    holds = result.complete and not result.errors and result.states > 0
    if without:
        good, text = bool(result.errors and result.failed), f"found: {result.failed}" if result.failed else "NOT FOUND"
    else:
        reason = result.failed or "the search was not completed"
        good, text = holds, "holds in every state" if holds else f"FAILS: {reason}"
    name, variant = f"{model} {formula}".strip(), f"with the mistake {without}" if without else "as it is"
    print(f"{name:15} {variant:38} {result.states:>9} states  {text}", flush=True)
    return good


def main() -> int:
    """Exit status 1 when a row is not as expected."""
    rows = [(model, without, "") for model, mistakes in MODELS.items() for without in ("", *mistakes)]
    rows += [(model, without, formula) for model, (formula, mistake) in EVENTUALLY.items() for without in ("", mistake)]
    results = [row(*arguments) for arguments in rows]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
