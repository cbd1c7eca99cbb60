# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The observer's CO-RE object on the oldest and the newest kernel: who changed to which directory, and what lay there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import boot, observer


@pytest.mark.parametrize("kernel", [boot.KERNELS[0], boot.KERNELS[-1]])
def test_who_changes_directory(kernel: str, tmp_path: Path) -> None:
    result = boot.boot(kernel, [str(boot.image.GUEST / "checks" / "observe.py")], extra=observer.files(tmp_path))
    assert result.status == 0, result.output + result.console
    assert "ok: what lay there" in result.output and "FAILED" not in result.output
