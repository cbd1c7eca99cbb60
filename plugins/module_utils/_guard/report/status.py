# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of a host: what is in force, read from the kernel, and how it compares with the documents on disk."""

from __future__ import annotations

import dataclasses
import datetime
import time
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, NamedTuple, TypeVar

from .. import layout
from ..audit import collector
from ..compile import tables as compile
from ..errors import EnforcerError
from ..host import pull
from ..host.protocols import Store, System
from ..kernel import generations, links, mapspecs, pins, running
from ..kernel.protocol import Kernel
from ..kernel.types import Environment
from ..lifecycle import coverage, enforcer, history, next_boot
from ..lifecycle.drift import difference_lines
from ..policy.model import Resolved
from ..resolve import encoding, hardlinks, resolver

_FIRST_KEY = bytes(4)
_ADDRESS_SPACE_BASE, _ALL_LABELS = 1 << 63, (1 << 64) - 1  # see bpf/subject/task_label.h
_READS = 10  # of the totals, while an event is being written
_PAUSE_SECONDS = 0.01

_Values = TypeVar("_Values", bound=NamedTuple)


# ---- the record -----------------------------------------------------------------------------------------------------


@dataclass
class RuleStatus:
    """A rule in force. ``counted``: it has counters; ``audit``: it only reports, None when the document is missing;
    ``actions``: what coverage.of_rule returns; ``enforced``: this host enforces every action."""

    name: str
    denied: int
    audited: int
    counted: bool
    audit: bool | None = None
    actions: list[dict[str, Any]] = field(default_factory=list)
    enforced: bool = False


@dataclass
class LabelStatus:
    """How many tasks carry a label, and how many pipes, sockets and message queues."""

    name: str
    tasks: int = 0
    channels: int = 0


class Totals(NamedTuple):
    """The kernel's counters since the enforcer was loaded. ``reasons``: decisions for a reason other than a rule."""

    denied: int
    audited: int
    events_written: int
    events_lost: int
    reasons: dict[str, int]
    uncached: int


class EventAccount(NamedTuple):
    """What became of the events of all decisions. ``unaccounted``: events that are being written."""

    decided: int
    written: int
    lost: int
    waiting: int
    unaccounted: int


@dataclass
class Status:
    """The status of a host. Most fields are empty when the enforcer is not installed. ``drift``: None when it was not
    computed; ``rename_cache``: whether the kernel side caches paths; ``paths``: paths of the policy that are missing or
    not followed, and filesystems that are covered although they are not mounted."""

    kernel: str
    lsms: list[str]
    running: bool
    certificate: dict[str, Any] | None
    generations: list[dict[str, Any]]
    pull: dict[str, Any] | None
    audit: collector.CollectorStatus | None
    problems: list[str]
    stored_generation: int | None
    confirmed_generation: int | None
    layout: int = pins.LAYOUT
    installed: bool = False
    enforcer: str | None = None
    generation: int = 0
    mode: str | None = None
    in_force: bool = False
    pending: bool = False
    expired: bool = False
    deadline_seconds: float | None = None
    slot: int | None = None
    fallback_slot: int | None = None
    fallback_generation: int | None = None
    hooks: list[str] = field(default_factory=list)
    hooks_available: list[str] = field(default_factory=list)
    rules: list[RuleStatus] = field(default_factory=list)
    totals: Totals | None = None
    rename_cache: bool | None = None
    digest: str | None = None
    drift: list[str] | None = None
    hardlinks: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    labels: list[LabelStatus] = field(default_factory=list)
    unenforced: list[str] = field(default_factory=list)
    revision: str | None = None
    soak: bool = False
    events: EventAccount | None = None

    @property
    def ok(self) -> bool:
        """Whether the enforcer is installed, without drift and problems."""
        return self.installed and not self.drift and not self.problems

    def to_json(self) -> dict[str, Any]:
        """Returns the status for `--json` and for the module status_info."""
        return {
            **vars(self),
            "rules": [dataclasses.asdict(rule) for rule in self.rules],
            "labels": [dataclasses.asdict(label) for label in self.labels],
            "totals": self.totals._asdict() if self.totals else {},
            "events": self.events._asdict() if self.events else None,
            "audit": self.audit._asdict() if self.audit else None,
        }


# ---- reading --------------------------------------------------------------------------------------------------------


def status(
    kernel: Kernel,
    store: Store,
    system: System | None = None,
    now: datetime.date | None = None,
    *,
    pull_result: str = pull.RESULT,
    audit_state: str = collector.STATE,
) -> Status:
    """Reads the status; drift only with ``system`` and ``now``. Raises EnforcerError if not run as root."""
    environment = kernel.environment()
    if not environment.root:
        raise EnforcerError("the kernel's state can only be read by root", "Run as root (sudo exfil-guard status)")
    audit = collector.status(audit_state)
    problems = ["{}. {}".format(*problem) for problem in enforcer.prerequisites(environment)]
    problems += [f"audit collector stalled: {text}" for text in (audit.failing if audit else ())]
    confirmed, numbers = store.last_confirmed(), store.numbers()
    result = Status(
        kernel=environment.release,
        lsms=list(environment.lsms),
        running="bpf" in environment.lsms,
        certificate=store.certificate(),
        generations=[history.summary(stored) for stored in history.generations(store)],
        pull=pull.last(pull_result),
        audit=audit,
        problems=problems,
        stored_generation=numbers[-1] if numbers else None,
        confirmed_generation=confirmed.generation if confirmed else None,
    )
    try:
        result.enforcer = enforcer.installed(kernel)
    except EnforcerError as error:
        problems.append(str(error))
    if result.enforcer is not None:
        result.installed = True
        _read_generation(result, kernel, store, environment, system, now)
    return result


def _read_generation(
    result: Status,
    kernel: Kernel,
    store: Store,
    environment: Environment,
    system: System | None,
    now: datetime.date | None,
) -> None:
    live = generations.read(kernel)
    stored = next_boot.document(store, live.generation) if live.generation else None
    stopped = running.line(kernel, bool(live.generation))
    result.problems.extend(stopped)
    result.running = result.running and not stopped
    result.hooks = sorted(links.attached_hooks(kernel, result.enforcer or ""))
    result.hooks_available = sorted(pins.available_hooks(kernel, result.enforcer or ""))
    result.generation, result.in_force = live.generation, bool(live.generation)
    result.pending, result.expired = live.pending, live.expired
    result.slot = live.slot if live.generation else None
    if live.record and live.record.fallback_slot < mapspecs.SLOTS:
        result.fallback_slot = live.record.fallback_slot
        result.fallback_generation = live.record.fallback_generation
    if live.record and live.pending:
        result.deadline_seconds = round(max(0, live.record.deadline - kernel.boottime()) / 1e9, 1)
    if stored:
        result.mode, result.digest = stored.document.get("mode"), stored.digest
        result.revision, result.soak = stored.revision, stored.soak
        if stored.hardlinks is not None:
            result.hardlinks = hardlinks.lines(stored.hardlinks)
    result.rules = _rules(kernel, live.tables)
    if stored:
        _set_coverage(result, encoding.from_json(stored.resolved), environment)
    for rule in result.rules:
        rule.enforced = result.running and all(action["enforced"] for action in rule.actions)
    rules = [{"name": rule.name, "actions": rule.actions} for rule in result.rules]
    result.unenforced = coverage.lines(rules, environment) or ["every rule: " + text for text in stopped if rules]
    result.labels = _labels(kernel, compile.labels_of(live.tables))
    result.totals, result.events = _accounted(kernel)
    with pins.opened(kernel, pins.map_path(kernel, "facts"), readonly=True) as facts:
        value = kernel.lookup(facts, _FIRST_KEY) or bytes(layout.FACTS.size)
    result.rename_cache = layout.FACTS.unpack(value).rename_lock == 1
    if system is not None and now is not None:
        result.drift = difference_lines(live, stored, result.hooks, system, now) + next_boot.lines(store, live)
        if stored:
            resolved = encoding.from_json(stored.resolved)
            last = resolver.Last(resolved, again=True, refresh=True)
            result.paths = resolver.notes(stored.document, system, last) + resolver.detached(resolved)


def _rules(kernel: Kernel, tables: Mapping[str, Mapping[bytes, bytes]]) -> list[RuleStatus]:
    with pins.opened(kernel, pins.map_path(kernel, "counters"), readonly=True) as counters:
        counts = kernel.read_all(counters)
    rules = []
    for _unused, value in sorted(tables.get("rules", {}).items()):
        name = layout.RULE.unpack(value).name.split(b"\0")[0].decode("utf-8", "replace")
        key = value[layout.RULE.span("id")]
        if name:
            count = layout.COUNT.unpack(counts[key]) if key in counts else layout.COUNT.empty()
            rules.append(RuleStatus(name, count.denied, count.audited, key in counts))
    return sorted(rules, key=lambda rule: rule.name)


def _set_coverage(result: Status, resolved: Resolved, environment: Environment) -> None:
    available, attached = frozenset(result.hooks_available), frozenset(result.hooks)
    rules = {rule.name: rule for rule in resolved.rules}
    for entry in result.rules:
        rule = rules.get(entry.name)
        if rule:
            entry.audit = rule.audit
            entry.actions = coverage.of_rule(resolved, rule, environment, available, attached)


def _labels(kernel: Kernel, bits: Mapping[str, int]) -> list[LabelStatus]:
    """Counts the tasks and channels of each label. The labels of files cannot be listed: they are stored with the
    kernel's inodes."""
    since = links.labels_since(kernel)
    labels = {name: LabelStatus(name) for name in sorted(bits)}
    if since and bits:
        tasks = _read_map(kernel, "carriers", layout.TASK_LABEL)
        channels = _read_map(kernel, "wires", layout.CHANNEL_LABEL)
        groups = {
            layout.LABEL_GROUP_KEY.unpack(key): group.labels
            for key, group in _read_map(kernel, "cells", layout.LABEL_GROUP).items()
        }
        carried = [task.labels | _of_group(groups, since, task.group) for task in tasks.values() if task.since == since]
        passing = [channel.labels for channel in channels.values() if channel.since == since]
        for name, bit in bits.items():
            labels[name].tasks = sum(mask >> bit & 1 for mask in carried)
            labels[name].channels = sum(mask >> bit & 1 for mask in passing)
    return list(labels.values())


def _read_map(kernel: Kernel, name: str, structure: layout.Structure[_Values]) -> dict[bytes, _Values]:
    with pins.opened(kernel, pins.map_path(kernel, name), readonly=True) as fd:
        return {key: structure.unpack(value) for key, value in kernel.read_all(fd).items()}


def _of_group(groups: Mapping[layout.LabelGroupKey, int], since: int, number: int) -> int:
    """The labels of a group, as labels_of_task in bpf/subject/task_label.h finds them. An address space has an entry
    only once it has a label; another group without an entry counts as having every label."""
    missing = 0 if not number or number >= _ADDRESS_SPACE_BASE else _ALL_LABELS
    return groups.get(layout.LabelGroupKey(since, number), missing)


def _totals(kernel: Kernel) -> Totals:
    with pins.opened(kernel, pins.map_path(kernel, "totals"), readonly=True) as totals:
        value = kernel.lookup(totals, _FIRST_KEY) or bytes(layout.TOTALS.size)
    counted = layout.TOTALS.unpack(value)
    return Totals(
        denied=counted.denied,
        audited=counted.audited,
        events_written=counted.written,
        events_lost=counted.lost,
        reasons=dict(zip(layout.REASONS[1:], counted.reasons[1:])),
        uncached=counted.uncached,
    )


def _accounted(kernel: Kernel) -> tuple[Totals, EventAccount]:
    """Reads the totals and accounts for every event. The kernel counts a decision before it writes the event; while one
    is being written, the numbers are read again."""
    for _unused in range(_READS):
        totals = _totals(kernel)
        decided = totals.denied + totals.audited
        written, lost = totals.events_written, totals.events_lost
        account = EventAccount(decided, written, lost, _waiting(kernel), decided - written - lost)
        if not account.unaccounted:
            break
        time.sleep(_PAUSE_SECONDS)
    return totals, account


def _waiting(kernel: Kernel) -> int:
    with pins.opened(kernel, pins.map_path(kernel, "events")) as fd, kernel.ring(fd, False) as ring:
        return len(ring.peek().records)


# ---- for people -----------------------------------------------------------------------------------------------------


def to_text(result: Status) -> str:
    """Returns the status for people."""
    not_proved = (result.certificate or {}).get("not_proved", ())
    return "\n".join(
        [
            *(_policy_lines(result) if result.installed else [_line("enforcer", "not installed")]),
            *_host_lines(result),
            *_count_lines(result),
            *_lines("HARD LINK", result.hardlinks),
            *_lines("PATH", result.paths),
            *_lines("NOT ENFORCED", result.unenforced),
            *_lines("NOT PROVED", not_proved),
            *_lines("DRIFT", result.drift or ()),
            *_lines("PROBLEM", result.problems),
        ]
    )


def _line(title: str, text: str) -> str:
    return f"{title:<13} {text}"


def _lines(title: str, texts: Iterable[str]) -> list[str]:
    return [_line(title, text) for text in texts]


def _policy_lines(result: Status) -> list[str]:
    lines = [_line("enforcer", f"{result.enforcer}, layout {result.layout}")]
    if result.in_force:
        digest = (result.digest or "unknown")[:12]
        mode = result.mode or "mode unknown"
        lines.append(_line("policy", f"generation {result.generation}, {mode}, digest {digest}"))
    else:
        lines.append(_line("policy", "none in force"))
    if result.revision:
        lines.append(_line("made from", result.revision))
    if result.soak:
        lines.append(_line("soak", "rules that this generation adds only report"))
    if result.pending:
        fallback = "no policy" if result.fallback_slot is None else f"generation {result.fallback_generation}"
        lines.append(_line("on trial", f"not confirmed: in {result.deadline_seconds} s the host returns to {fallback}"))
    if result.expired:
        lines.append(_line("on trial", "a newer generation was not confirmed in time"))
    lines.append(_line("hooks", ", ".join(result.hooks) or "none attached"))
    return lines


def _host_lines(result: Status) -> list[str]:
    newest, confirmed = result.stored_generation or "none", result.confirmed_generation or "none"
    lines = [_line("stored", f"newest {newest}, last confirmed {confirmed}")]
    if result.certificate:
        generation, issued_at = result.certificate["policy"].get("generation"), result.certificate["issued_at"]
        text = f"of generation {generation}, written {issued_at}; `exfil-guard verify` compares"
        lines.append(_line("certificate", text))
    if result.pull:
        revision = (result.pull["revision"] or "unknown")[:12]
        text = "{outcome} at {ended}, commit {revision}: {message}".format(**{**result.pull, "revision": revision})
        lines.append(_line("last pull", text))
    lines.append(_line("kernel", f"{result.kernel}, LSMs {','.join(result.lsms) or 'unknown'}"))
    if result.rename_cache is not None and result.in_force:
        off = "off (unused so far, or kptr_restrict=2): slower, same decisions"
        lines.append(_line("path cache", "on" if result.rename_cache else off))
    return lines


def _count_lines(result: Status) -> list[str]:
    lines = []
    if result.totals and result.events:
        totals, events = result.totals, result.events
        lines.append(
            _line(
                "totals",
                f"{totals.denied} denied, {totals.audited} audited, {totals.events_written} events, "
                f"{totals.events_lost} lost",
            )
        )
        text = f"{events.written} written + {events.lost} lost = {events.decided} decided; {events.waiting} waiting"
        lines.append(_line("events", text + (f"; {events.unaccounted} IN PROGRESS" if events.unaccounted else "")))
        lines.extend(_collector_lines(result.audit))
        other = [f"{count} {name}" for name, count in sorted(totals.reasons.items()) if count]
        if other:
            lines.append(_line("undecidable", ", ".join(other)))
    if result.rules:
        lines.append(_line("rules", f"{'denied':>10} {'audited':>10}"))
        lines.extend(_line("", f"{rule.denied:>10} {rule.audited:>10}  {rule.name}") for rule in result.rules)
    if result.labels:
        lines.append(_line("has read", f"{'tasks':>10} {'channels':>10}"))
        lines.extend(_line("", f"{label.tasks:>10} {label.channels:>10}  {label.name}") for label in result.labels)
    return lines


def _collector_lines(audit: collector.CollectorStatus | None) -> list[str]:
    if audit is None:
        return []
    parts = [f"{audit.collected} events taken", f"{audit.lines} lines"]
    parts += [
        f"{count} {what}"
        for count, what in (
            (audit.held, "held back to be aggregated"),
            (audit.missing, "missing"),
            (audit.unreadable, "unreadable"),
            (audit.file_lost, "lines dropped from the file"),
        )
        if count
    ]
    parts += [f"{count} lines wait for the {name}" for name, count in audit.undelivered.items()]
    return [_line("audit trail", f"{'running' if audit.running else 'NOT RUNNING'}: {', '.join(parts)}")]
