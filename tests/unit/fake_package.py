# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package as it is installed on a host, in a folder: an object, a set of proved programs, and PACKAGE."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import instructions


def install(folder: Path, data: bytes, proved: dict[str, Any]) -> str:
    """Gives the folder; only the files that are listed are vouched for."""
    (folder / "exfil_guard").mkdir(parents=True, exist_ok=True)
    files = {"guard.bpf.o": data, "proved.json": json.dumps(proved).encode(), "exfil_guard/cli.py": b"# code\n"}
    lines = []
    for name, content in sorted(files.items()):
        (folder / name).write_bytes(content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {folder / name}\n")
    (folder / "PACKAGE").write_text("".join(lines))
    return str(folder)


def proved(kernel: Any, data: bytes) -> dict[str, Any]:
    """Everything proved of everything, for this kernel alone."""
    programs = {
        each.name: {"digest": instructions.submitted(each, ()).digest(), "symbols": [], "proved": ["verdict"]}
        for each in kernel.relocate(data)
    }
    return {
        "version": 1,
        "object": hashlib.sha256(data).hexdigest(),
        "properties": ["verdict"],
        "kernels": {kernel.btf_digest(): {"release": kernel.environment().release, "programs": programs}},
    }
