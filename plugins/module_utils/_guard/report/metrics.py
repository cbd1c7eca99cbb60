# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Status as a Prometheus textfile, for node_exporter's textfile collector."""

from __future__ import annotations

from typing import Any, Dict, Sequence, Tuple

from ..errors import EnforcerError
from ..host import atomic

Samples = Sequence[Tuple[Dict[str, str], Any]]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _family(name: str, kind: str, text: str, samples: Samples) -> list[str]:
    if not samples:
        return []
    lines = [f"# HELP exfil_guard_{name} {text}", f"# TYPE exfil_guard_{name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(each)}"' for key, each in labels.items())
        lines.append("exfil_guard_{0}{1} {2}".format(name, "{" + inside + "}" if inside else "", int(value)))
    return lines


def to_text(status: dict[str, Any]) -> str:
    """``status``: what status.status gives."""
    totals, accounts, collector = status["totals"], status["events"], status["audit"]
    rules = status["rules"]
    lines = _family("installed", "gauge", "Whether the enforcer is in the kernel.", [({}, status["installed"])])
    lines += _family("running", "gauge", "Whether BPF is among the active security modules.", [({}, status["running"])])
    lines += _family("in_force", "gauge", "Whether a policy is in force.", [({}, status["in_force"])])
    lines += _family(
        "enforcing",
        "gauge",
        "Whether the policy in force is in mode enforce.",
        [({}, status["in_force"] and status["mode"] == "enforce")],
    )
    lines += _family("generation", "gauge", "The generation in force, 0 for none.", [({}, status["generation"])])
    lines += _family("pending", "gauge", "Whether it is on trial.", [({}, status["pending"])])
    if status["drift"] is not None:
        lines += _family(
            "drift", "gauge", "Differences between the kernel and the stored document.", [({}, len(status["drift"]))]
        )
    lines += _family(
        "unenforced",
        "gauge",
        "Rules of which this host does not enforce every action.",
        [({}, len(status["unenforced"]))],
    )
    lines += _family("problems", "gauge", "What keeps this host from being guarded.", [({}, len(status["problems"]))])
    if totals:
        lines += _family(
            "decisions_total",
            "counter",
            "What was denied, and what was reported only.",
            [({"verdict": "denied"}, totals["denied"]), ({"verdict": "audit"}, totals["audited"])],
        )
        lines += _family(
            "undecidable_total",
            "counter",
            "Decisions taken for another reason than a rule.",
            [({"reason": name}, count) for name, count in sorted(totals["reasons"].items())],
        )
        lines += _family(
            "events_total",
            "counter",
            "Events of these decisions: each is written or lost.",
            [({"fate": "written"}, accounts["written"]), ({"fate": "lost"}, accounts["lost"])],
        )
        lines += _family("events_waiting", "gauge", "Events that wait to be taken.", [({}, accounts["waiting"])])
    lines += _family(
        "rule_decisions_total",
        "counter",
        "What each rule in force denied, and what it reported.",
        [
            ({"rule": rule["name"], "verdict": verdict}, rule[key])
            for rule in rules
            for verdict, key in (("denied", "denied"), ("audit", "audited"))
        ],
    )
    if collector:
        lines += _family("audit_running", "gauge", "Whether the audit trail's unit runs.", [({}, collector["running"])])
        lines += _family("audit_failing", "gauge", "Whether it cannot go on.", [({}, bool(collector["failing"]))])
        lines += _family("audit_collected_total", "counter", "Events that it took.", [({}, collector["collected"])])
        lines += _family("audit_lines_total", "counter", "Lines that it made of them.", [({}, collector["lines"])])
        lines += _family(
            "audit_unreadable_total", "counter", "Records that were of another layout.", [({}, collector["unreadable"])]
        )
    return "\n".join(lines) + "\n"


def write(text: str, path: str) -> None:
    """In one step: whoever reads it finds a whole one."""
    try:
        atomic.write(path, text.encode("utf-8"), 0o644, durable=False)
    except OSError as error:
        raise EnforcerError(
            f"cannot write {path}: {error.strerror or error}", "Look at the folder and its space"
        ) from error
