# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Searches by random programs: runs one in a guest and reads what it found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Iterable, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import boot

SCRIPT = boot.image.GUEST / "generator" / "main.py"
START = 300  # seconds that a guest may need before and after the search, on a busy machine


class Found(NamedTuple):
    kernel: str
    finds: list[dict[str, Any]]
    end: dict[str, Any]  # empty: the guest did not get that far
    output: str


def run(kernel: str, seconds: int, arguments: Iterable[str] = ()) -> Found:
    command = [str(SCRIPT), "--seconds", str(seconds), *arguments]
    result = boot.boot(kernel, command, seconds=seconds * 2 + START, memory=768)
    lines = [json.loads(line) for line in result.output.splitlines() if line.startswith("{")]
    end = next((line for line in lines if "end" in line), {})
    return Found(kernel, [line for line in lines if "find" in line], end, result.output + result.console[-3000:])


def summary(found: Found) -> str:
    numbers = "{programs} programs, {steps} steps, {signatures} signatures, {corpus} programs kept".format(**found.end)
    return "\n\n".join(
        [f"{found.kernel}: {numbers}, {len(found.finds)} finds", *(one["script"] for one in found.finds)]
    )
