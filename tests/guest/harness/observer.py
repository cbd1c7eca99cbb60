# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the observer's guest needs besides: its modules, as the packages `exfil._guard` and `exfil.observe`, and its programs."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import image


def files(folder: Path) -> list[Path]:
    """For boot.boot(extra=)."""
    target = folder / "observer.zip"
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("exfil/__init__.py", "")
        utilities = image.ROOT / "plugins" / "module_utils"
        for name in ("_guard", "observe"):
            for path in sorted((utilities / name).rglob("*.py")):
                archive.write(path, f"exfil/{path.relative_to(utilities)}")
    return [
        target,
        image.ROOT / "roles" / "observe" / "files" / "observe.bpf.o",
        image.ROOT / "bpf" / "observer" / "observe.h",
        image.ROOT / "bpf" / "observer" / "observe.bcc.c",
    ]
