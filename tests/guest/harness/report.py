# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the attacks in the small guests, judges what came back, and writes the table of operations and kernels."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Iterable, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import boot

SCRIPT = boot.image.GUEST / "harness" / "attacks.py"
PROGRAMS = ("hand", "linked", "storm")  # of the attackers
TABLE = boot.image.ROOT / "docs" / "mediation.md"
SECONDS = 2400
PASSES = ("undecided", "allowed")  # groups that nothing has to stop


class Report(NamedTuple):
    kernel: str
    techniques: dict[str, dict[str, Any]]
    end: dict[str, Any]  # empty: the guest did not get that far
    output: str


def run(kernel: str, arguments: Iterable[str] = (), seconds: int = SECONDS, memory: int = 768) -> Report:
    result = boot.boot(kernel, [str(SCRIPT), *arguments], extra=senders(), seconds=seconds, memory=memory)
    return parse(kernel, result.output, result.console)


def programs() -> list[Path]:
    """The attackers' small programs, built."""
    boot.image.programs()
    return [boot.image.CACHE / "programs" / name for name in PROGRAMS]


def senders() -> list[Path]:
    """Programs that people send data with, and their libraries."""
    boot.fetch(["senders"])
    found = boot.image.CACHE / "senders"
    names = ("openssl", "tar", "dropbear", "dbclient", "dropbearkey")
    return [
        path
        for path in sorted(found.rglob("*"))
        if (path.name in names and path.parent.name.endswith("bin")) or re.fullmatch(r"lib[^/]*\.so\.\d+", path.name)
    ]


def parse(kernel: str, output: str, console: str = "") -> Report:
    techniques, end = {}, {}
    for line in output.splitlines():
        if line.startswith('{"technique"'):
            one = json.loads(line)
            techniques[one["technique"]] = one
        elif line.startswith('{"end"'):
            end = json.loads(line)
    return Report(kernel, techniques, end, console[-3000:] + output[-6000:])


# ---- how one technique ended -----------------------------------------------------------------------------------------


def verdict(one: dict[str, Any]) -> str:
    """stopped, open (known, and closed by a rule), undecided, passes, absent; else what is wrong with it."""
    if one["absent"]:
        return "absent"
    if not one["control"]:
        return "no control: it does not work without the policy either"
    if one["group"] == "allowed":
        return "passes" if one["through"] else "hindered: a policy must not stop this"
    if one["group"] == "undecided":
        return "undecided" if one["through"] else "stopped"
    if one["open"] and one["through"]:
        return "open" if one["closed"] else "the rule that should close it does not"
    if one["through"]:
        return "got through"
    return "stopped" if one.get("denied") else "not denied: it ended for another reason"


GOOD = ("stopped", "open", "undecided", "passes", "absent")


def wrong(report: Report) -> list[str]:
    found = [
        f"{name}: {verdict(one)}\n    {one['detail']}"
        for name, one in report.techniques.items()
        if verdict(one) not in GOOD
    ]
    if not report.end:
        found.append("the guest did not get to its end:\n" + report.output)
    elif report.end["wrong"]:
        found.append(report.end["wrong"])
    return found


def summary(report: Report) -> str:
    counts: dict[str, int] = {}
    for one in report.techniques.values():
        end = verdict(one)
        counts[end if end in GOOD else "wrong"] = counts.get(end if end in GOOD else "wrong", 0) + 1
    tried = sum(one["group"] not in PASSES for one in report.techniques.values() if not one["absent"])
    controls = sum(one["control"] for one in report.techniques.values() if one["group"] not in PASSES)
    through = sum(verdict(one) == "got through" for one in report.techniques.values())
    lines = [
        f"{report.kernel}: {tried} techniques, {controls} controls passed, got through: {through}; "
        f"{counts.get('open', 0)} known open, each closed by a rule; {counts.get('absent', 0)} not on this kernel; "
        f"{report.end.get('seconds', '?')} s"
    ]
    for one in report.techniques.values():
        if verdict(one) == "open":
            lines.append(f"    known open: {one['technique']}: {one['open']}")
    return "\n".join(lines)


def names(mixes: str = "0/1", share: str = "0/1") -> list[str]:
    """Every technique there is, by reading the registry itself, or a part of them, as the guest takes it."""
    from techniques import descriptors, files, flows, identity, machine, network, registry, stories, tamper, uncommon

    assert (
        uncommon and descriptors and files and flows and identity and machine and network and stories and tamper
    )  # they fill the registry
    return registry.part_of(registry.part_of(list(registry.TECHNIQUES), mixes, "mix__"), share)


# ---- the table -------------------------------------------------------------------------------------------------------

HEAD = """# What decides each operation

Every operation was tried on every kernel, without a policy and under one. **✔** names the hook that denied it under the policy.
Without the policy, the same operation succeeded, and the data arrived or was read. **🔴** marks an operation that no hook decides; the
reason is below its table. *n/a* means that this kernel, as built for Debian's cloud image, does not support the operation.

A row stands for one or more techniques of `tests/guest/techniques`. `make adversary` runs them all and fails if the result differs
from this table. `make adversary UPDATE=1` writes the table.
"""
SECTIONS = (
    ("files", "Files"),
    ("network", "Network"),
    ("machine", "The machine"),
    ("flows", "What a task has read (`has_read`)"),
    ("stories", "With common tools (`has_read`)"),
    ("mixes", "Random combinations"),
    ("others", "Through another process"),
    ("services", "Through the system's own services"),
    ("tamper", "The enforcer"),
    ("undecided", "Operations that no action covers"),
)


def _rows(reports: list[Report], group: str) -> dict[tuple, dict[str, list[dict[str, Any]]]]:
    rows: dict[tuple, dict[str, list[dict[str, Any]]]] = {}
    for report in reports:
        for one in report.techniques.values():
            if one["group"] == group:
                key = (one["what"], one["action"], bool(one["open"]))
                rows.setdefault(key, {}).setdefault(report.kernel, []).append(one)
    return rows


def _cell(tried: list[dict[str, Any]] | None) -> str:
    if not tried:
        return "🔴 **not tried**"
    ends = {verdict(one) for one in tried}
    bad = sorted(ends - set(GOOD))
    if bad:
        return "🔴 **" + "; ".join(end.split(":")[0] for end in bad) + "**"
    if ends == {"absent"}:
        return "*n/a*"
    if ends & {"open", "undecided"}:
        return "🔴 **nobody**"
    hooks = sorted({hook for one in tried for hook in one["hooks"]})
    return "✔ " + ", ".join(f"`{hook}`" for hook in hooks) if hooks else "🔴 **which hook, is not known**"


def _reason(one: dict[str, Any]) -> str:
    text = f"* {one['what']}: {one['open']}."
    if one["group"] != "undecided" and one["rule"]:
        text += f" Tried under `{_said(one['rule'])}`: stopped."
    elif one["group"] != "undecided":
        text += " Tried after the next refresh: stopped."
    return text


def _said(rule: dict[str, Any]) -> str:
    return json.dumps(rule, ensure_ascii=False).replace('"', "")


def table(reports: list[Report]) -> str:
    kernels = [report.kernel for report in reports]
    parts = [HEAD]
    for group, title in SECTIONS:
        rows = _rows(reports, group)
        if not rows:
            continue
        parts.append(f"## {title}\n")
        parts.append("| operation | ways | stopped by | " + " | ".join(kernels) + " |")
        parts.append("|---|---|---|" + "---|" * len(kernels))
        reasons = []
        for (what, action, known), cells in rows.items():
            some = next(iter(cells.values()))
            label = "" if group in ("undecided", "tamper") or known else f"`{action}`"
            parts.append(
                "| "
                + " | ".join(
                    [
                        what.replace("|", "\\|"),
                        str(len(some)),
                        label or "",
                        *(_cell(cells.get(kernel)) for kernel in kernels),
                    ]
                )
                + " |"
            )
            if known:
                reasons += [_reason(one) for one in some]
        parts.append("")
        parts += [*dict.fromkeys(reasons), ""] if reasons else []
    return "\n".join(parts).rstrip() + "\n"
