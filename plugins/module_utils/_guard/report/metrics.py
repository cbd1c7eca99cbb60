# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the status as a text file for Prometheus: node_exporter's textfile collector reads it."""

from __future__ import annotations

from typing import Dict, Sequence, Tuple

from ..errors import EnforcerError
from ..host import atomic
from .status import Status

Samples = Sequence[Tuple[Dict[str, str], int]]  # labels and value


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _family(name: str, kind: str, text: str, samples: Samples) -> list[str]:
    if not samples:
        return []
    lines = [f"# HELP exfil_guard_{name} {text}", f"# TYPE exfil_guard_{name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        lines.append(f"exfil_guard_{name}{{{inside}}} {int(value)}" if inside else f"exfil_guard_{name} {int(value)}")
    return lines


def to_text(status: Status) -> str:
    """Returns the content of the text file."""
    lines = _policy_lines(status) + _decision_lines(status)
    if status.audit:
        audit = status.audit
        for name, kind, text, value in (
            ("running", "gauge", "Whether the audit collector runs.", audit.running),
            ("failing", "gauge", "Whether the audit collector is stalled.", bool(audit.failing)),
            ("collected_total", "counter", "Events that the audit collector took.", audit.collected),
            ("lines_total", "counter", "Audit records that it made of them.", audit.lines),
            ("unreadable_total", "counter", "Events of another layout.", audit.unreadable),
        ):
            lines += _family("audit_" + name, kind, text, [({}, value)])
    return "\n".join(lines) + "\n"


def _policy_lines(status: Status) -> list[str]:
    enforcing = status.in_force and status.mode == "enforce"
    gauges = [
        ("installed", "Whether the enforcer is in the kernel.", status.installed),
        ("running", "Whether BPF is among the active security modules.", status.running),
        ("in_force", "Whether a policy is in force.", status.in_force),
        ("enforcing", "Whether the policy in force is in mode enforce.", enforcing),
        ("generation", "The generation in force, 0 for none.", status.generation),
        ("pending", "Whether the generation in force is on trial.", status.pending),
    ]
    if status.drift is not None:
        gauges.append(("drift", "Differences between the kernel and the stored document.", len(status.drift)))
    gauges += [
        ("unenforced", "Rules of which this host does not enforce every action.", len(status.unenforced)),
        ("problems", "Problems that keep the host from being protected.", len(status.problems)),
    ]
    return [line for name, text, value in gauges for line in _family(name, "gauge", text, [({}, value)])]


def _decision_lines(status: Status) -> list[str]:
    lines = []
    if status.totals and status.events:
        totals, events = status.totals, status.events
        lines += _family(
            "decisions_total",
            "counter",
            "Decisions that denied, and decisions that only reported.",
            [({"verdict": "denied"}, totals.denied), ({"verdict": "audit"}, totals.audited)],
        )
        lines += _family(
            "undecidable_total",
            "counter",
            "Decisions for a reason other than a rule.",
            [({"reason": name}, count) for name, count in sorted(totals.reasons.items())],
        )
        lines += _family(
            "events_total",
            "counter",
            "Events of these decisions: each is written or lost.",
            [({"fate": "written"}, events.written), ({"fate": "lost"}, events.lost)],
        )
        lines += _family("events_waiting", "gauge", "Events that wait in the ring buffer.", [({}, events.waiting)])
    lines += _family(
        "rule_decisions_total",
        "counter",
        "Decisions of each rule in force.",
        [
            ({"rule": rule.name, "verdict": verdict}, count)
            for rule in status.rules
            for verdict, count in (("denied", rule.denied), ("audit", rule.audited))
        ],
    )
    return lines


def write(text: str, path: str) -> None:
    """Replaces the file in one step, so that nobody reads half of it. Raises EnforcerError."""
    try:
        atomic.write(path, text.encode("utf-8"), 0o644, durable=False)
    except OSError as error:
        raise EnforcerError(
            f"cannot write {path}: {error.strerror or error}", "Check the folder and its free space"
        ) from error
