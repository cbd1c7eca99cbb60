# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets mypy check a few lines against the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

UNIT = Path(__file__).resolve().parent
ROOT = UNIT.parents[1]


def problems(source: Path, text: str) -> str:
    """What mypy reports about ``text``, which is written to ``source``; empty when it is well typed."""
    source.write_text(text)
    options = ["--strict", "--no-pretty", "--follow-imports=silent", "--cache-dir", str(ROOT / ".mypy_cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(source)],
        cwd=ROOT / "collections",
        env=dict(os.environ, MYPYPATH=f"{UNIT}:{UNIT / 'host'}"),
        capture_output=True,
        text=True,
    )
    return done.stdout if done.returncode else ""
