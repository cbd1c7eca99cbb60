# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the kernels for their system calls and writes docs/system-calls.md from the answers and from the table of coverage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from techniques import coverage

from harness import boot

SCRIPT = boot.image.GUEST / "harness" / "calls.py"
PAGE = boot.image.ROOT / "docs" / "system-calls.md"
HEAD = """# System calls and what tries them

What a kernel can be asked to do, and which techniques of `tests/guest/techniques` use it; [mediation.md](mediation.md) says how they end.
Where no technique is named, the last column says why none is needed. The lists come from the kernels of the tests themselves: the
table of system calls in their memory, their symbols and their types. `make test-kernels` fails if a kernel has a call that is not
listed here, and if this page is stale; `UPDATE=1` writes it. The techniques and the reasons are in
`tests/guest/techniques/coverage.py`.

Kernels: {kernels}. What only some of them have is followed by their names. A call that a kernel was built without is not listed.
"""


def ask(kernel: str) -> dict[str, Any]:
    """What harness/calls.py says in a guest of that kernel."""
    result = boot.boot(kernel, [str(SCRIPT)], seconds=300)
    for line in result.output.splitlines():
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise RuntimeError(f"the guest of {kernel} did not answer:\n{result.output[-3000:]}{result.console[-3000:]}")


def page(kernels: dict[str, dict[str, Any]]) -> str:
    parts = [HEAD.format(kernels=", ".join(kernels))]
    parts += ["## System calls\n", *_rows(coverage.CALLS, kernels, "64")]
    parts += [
        "## 32-bit programs\n",
        "A 64-bit program can make these calls, too (`int 0x80`). They reach the same hooks; the techniques "
        + _names(coverage.COMPAT)
        + " try the entries that differ most. Those with a name of their own:\n",
        "| call | does the same as |\n|---|---|",
        *(
            f"| {_name(name, kernels, '32')} | `{same}` |"
            for name, same in sorted(coverage.CALLS32.items())
            if _having(name, kernels, "32")
        ),
        "",
    ]
    if not any(each["x32"] for each in kernels.values()):
        parts.append("None of the kernels has calls of the x32 interface.\n")
    parts += ["## Operations of an io_uring\n", *_rows(coverage.RING, kernels, "io_uring")]
    parts += ["## Commands of bpf(2)\n", *_rows(coverage.BPF, kernels, "bpf")]
    parts += [
        "## ioctls\n",
        "A kernel has no list of its ioctls. These move data, change what a rule is about, or make a descriptor.\n",
        *_rows(coverage.IOCTLS, kernels, ""),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _rows(table: dict[str, coverage.Cover], kernels: dict[str, dict[str, Any]], kind: str) -> list[str]:
    together: dict[coverage.Cover, list[str]] = {}
    for name, cover in table.items():
        if not kind or _having(name, kernels, kind):
            together.setdefault(cover, []).append(_name(name, kernels, kind))
    return [
        "| call | techniques | remark |\n|---|---|---|",
        *(f"| {', '.join(names)} | {_names(cover.techniques)} | {cover.why} |" for cover, names in together.items()),
        "",
    ]


def _names(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _having(name: str, kernels: dict[str, dict[str, Any]], kind: str) -> list[str]:
    return [kernel for kernel, each in kernels.items() if name in each[kind]]


def _name(name: str, kernels: dict[str, dict[str, Any]], kind: str) -> str:
    having = _having(name, kernels, kind) if kind else list(kernels)
    return f"`{name}`" + ("" if len(having) == len(kernels) else f" ({', '.join(having)})")
