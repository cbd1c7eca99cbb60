# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Computes the figures of the fleet's report: the state of each host and group, and the denials. Private to this
collection."""

from __future__ import annotations

import collections
import dataclasses
import datetime
from typing import Any, Callable, Counter, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import events

TOP, ROWS, BUCKETS = 15, 2000, 96  # most entries of a ranking, rows of denials and bars of the timeline
_TEXTS = (
    *("rule", "reason", "user", "executable", "command", "action"),
    *("object", "path", "address", "login_user", "unit"),
)
_BUCKET_SECONDS = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 86400, 7 * 86400)
GUARDED, AUDITING, UNGUARDED, SILENT = "enforcing", "reporting only", "not guarded", "no answer"
STATES = (GUARDED, AUDITING, UNGUARDED, SILENT)
VERDICTS = ("denied", "audit")  # audit: reported by a rule in audit mode and not denied
CHANGE, IN_ORDER, UNKNOWN = "would change", "in order", "failed"  # of a host in the plan

Record = Dict[str, Any]  # an audit record as in schemas/audit-record.schema.json
Records = List[Tuple[str, Record]]  # with the name of the host


@dataclasses.dataclass
class Host:
    """A host's row of the report. None: the value is unknown."""

    name: str
    groups: list[str]
    state: str = SILENT
    mode: str | None = None
    generation: int | None = None
    revision: str | None = None
    kernel: str | None = None
    certificate: str = "none"
    drift: int = 0
    unenforced: int = 0
    plan: str | None = None
    attention: list[str] = dataclasses.field(default_factory=list)
    denied: int | None = None
    audited: int | None = None
    lost: int | None = None
    collector: str = "none"


@dataclasses.dataclass(frozen=True)
class Group:
    """A group's row: numbers of hosts, in all, by state, with drift, with rules that are not enforced and with a change
    in the plan; and the sums of their counters."""

    name: str
    hosts: int
    states: dict[str, int]
    drift: int
    unenforced: int
    change: int
    denied: int
    audited: int


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Counts of events per bucket of ``width`` seconds, from ``start`` (ISO date and time) on. Empty without events."""

    start: str | None
    width: int | None
    denied: list[int]
    audit: list[int]


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What equal events have in common."""

    host: str
    verdict: str
    action: str | None
    object: str
    subject: str
    login: str
    unit: str
    rule: str | None


def clean(value: Any) -> Any:  # noqa: ANN401 - any JSON value, of the type of the argument
    """A copy of a host's answer with printable text only: control and bidirectional characters are escaped."""
    if isinstance(value, str):
        return value if value.isprintable() else events.text(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    return [clean(item) for item in value] if isinstance(value, (list, tuple)) else value


def answer(groups: Sequence[str], status: Mapping[str, Any], trail: Mapping[str, Any]) -> dict[str, Any]:
    """A host's answer for ``report``, from the results of modules status_info and audit_info."""
    message = trail.get("msg") if "records" not in trail else None
    return {
        "groups": groups,
        "status": status.get("status"),
        "records": trail.get("records") or (),
        "message": status.get("msg") if "status" not in status else message,
    }


def report(answers: Mapping[str, Mapping[str, Any]], now: str, plan: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The figures as JSON data. ``answers``: for each host the result of ``answer``. ``plan``: the result of plan.data,
    None if no plan was requested."""
    plan = None if plan is None else clean(plan)
    planned = {host: entry for entry in (plan or {}).get("entries", ()) for host in entry["hosts"]}
    hosts = [_host(name, clean(dict(answers[name])), planned.get(clean(name))) for name in sorted(answers)]
    records = [
        (name, record)
        for name in sorted(answers)
        for record in clean(list(answers[name].get("records") or ()))
        if _is_decision(record)
    ]
    rows = _rows(records)
    return {
        "version": 1,
        "generated": now,
        "hosts": [dataclasses.asdict(host) for host in hosts],
        "groups": [dataclasses.asdict(group) for group in _groups(hosts)],
        "states": dict(collections.Counter(host.state for host in hosts)),
        "plan": plan,
        "told": sum(record["count"] for _unused, record in records),
        "timeline": dataclasses.asdict(_timeline(records)),
        "top": {verdict: _tops([pair for pair in records if pair[1]["verdict"] == verdict]) for verdict in VERDICTS},
        "rows": rows[:ROWS],
        "rows_left_out": len(rows[ROWS:]),
    }


def _is_decision(record: object) -> bool:
    """Whether the record is a valid decision. A host can answer anything; other records are ignored."""
    return (
        isinstance(record, dict)
        and record.get("kind") == "decision"
        and record.get("verdict") in VERDICTS
        and isinstance(record.get("count"), int)
        and all(isinstance(record.get(key), (str, type(None))) for key in _TEXTS)
        and _seconds(record.get("time")) is not None
    )


# ---- hosts --------------------------------------------------------------------------------------------------------


def _host(name: str, answer: dict[str, Any], planned: Mapping[str, Any] | None) -> Host:
    groups = answer.get("groups")
    try:
        host = _answered(name, answer)
    except (AttributeError, KeyError, TypeError, ValueError):
        host = _answered(name, {"groups": groups, "message": "the host's answer is not a valid status"})
    if planned:
        host.plan = UNKNOWN if planned["error"] else CHANGE if planned["changed"] else IN_ORDER
    return host


def _answered(name: str, answer: dict[str, Any]) -> Host:
    """The host's row. Raises AttributeError, KeyError, TypeError or ValueError if the answer is not valid."""
    status = answer.get("status")
    groups = sorted(map(str, answer.get("groups") or ()))
    if not isinstance(status, dict):
        return Host(clean(name), groups, attention=[str(answer.get("message") or "the host was not reached")])
    totals, certificate = status.get("totals") or {}, status.get("certificate") or {}
    return Host(
        name=clean(name),
        groups=groups,
        state=_state(status),
        mode=_text(status.get("mode")),
        generation=_integer(status.get("generation")),
        revision=_text(status.get("revision")),
        kernel=_text(status.get("kernel")),
        certificate=_certificate(status, certificate),
        drift=len(status.get("drift") or ()),
        unenforced=len(status.get("unenforced") or ()),
        attention=_attention(status, answer),
        denied=_integer(totals.get("denied")),
        audited=_integer(totals.get("audited")),
        lost=_integer(totals.get("events_lost")),
        collector=_collector(status.get("audit")),
    )


def _groups(hosts: list[Host]) -> list[Group]:
    groups = []
    for name in sorted({name for host in hosts for name in host.groups}):
        members = [host for host in hosts if name in host.groups]
        groups.append(
            Group(
                name=name,
                hosts=len(members),
                states={state: sum(host.state == state for host in members) for state in STATES},
                drift=sum(host.drift > 0 for host in members),
                unenforced=sum(host.unenforced > 0 for host in members),
                change=sum(host.plan == CHANGE for host in members),
                denied=sum(host.denied or 0 for host in members),
                audited=sum(host.audited or 0 for host in members),
            )
        )
    return groups


def _integer(value: Any) -> int | None:  # noqa: ANN401 - int() decides what it accepts
    return None if value is None else int(value)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _state(status: dict[str, Any]) -> str:
    if not status.get("installed") or not status.get("in_force") or not status.get("running"):
        return UNGUARDED
    return GUARDED if status.get("mode") == "enforce" else AUDITING


def _certificate(status: dict[str, Any], certificate: dict[str, Any]) -> str:
    generation = (certificate.get("policy") or {}).get("generation")
    if generation is None:
        return "none"
    outdated = "" if generation == status.get("generation") else ", not of the current one"
    return f"of generation {generation}{outdated}"


def _collector(audit: dict[str, Any] | None) -> str:
    if not audit:
        return "none"
    return "running" if audit.get("running") else "not running"


def _attention(status: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """The problems of a host, the most severe first."""
    lines = list(status.get("problems") or ())
    lines += [f"not enforced: {line}" for line in status.get("unenforced") or ()]
    lines += [f"drift: {line}" for line in status.get("drift") or ()]
    if status.get("pending"):
        lines.append("the policy is on trial and not confirmed")
    if status.get("soak"):
        lines.append("new and changed rules are in audit mode")
    lines += [f"hard link: {line}" for line in status.get("hardlinks") or ()]
    lines += [f"path: {line}" for line in status.get("paths") or ()]
    lines += [f"not proved: {line}" for line in (status.get("certificate") or {}).get("not_proved") or ()]
    if answer.get("message"):
        lines.append(f"no audit trail: {answer['message']}")
    return lines


# ---- denials ------------------------------------------------------------------------------------------------------


def _seconds(text: Any) -> int | None:  # noqa: ANN401 - fromisoformat() decides what it accepts
    try:
        return int(datetime.datetime.fromisoformat(text).timestamp())
    except (TypeError, ValueError, OverflowError):
        return None


def _subject(record: Record) -> str:
    user = record.get("user") or f"uid {record.get('uid')}"
    return f"{user}, {record.get('executable') or record.get('command')}"


def _tops(records: Records) -> dict[str, list[dict[str, Any]]]:
    return {
        "rules": _top(records, lambda record: record.get("rule") or record.get("reason")),
        "subjects": _top(records, _subject),
        "destinations": _top(records, lambda record: record.get("object") if record.get("address") else None),
        "files": _top(records, lambda record: record.get("path")),
    }


def _top(records: Records, key: Callable[[Record], str | None]) -> list[dict[str, Any]]:
    """The most frequent values of ``key``, with their counts of events."""
    counts: Counter[str] = collections.Counter()
    for _unused, record in records:
        name = key(record)
        if name:
            counts[name] += record["count"]
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name, "count": count} for name, count in ordered[:TOP]]


def _timeline(records: Records) -> Timeline:
    """At most BUCKETS counts, from the first record to the last."""
    if not records:
        return Timeline(None, None, [], [])
    times = [_seconds(record["time"]) or 0 for _unused, record in records]
    first, last = min(times), max(times)
    width = next(
        (seconds for seconds in _BUCKET_SECONDS if last // seconds - first // seconds < BUCKETS),
        (last - first) // BUCKETS + 1,
    )
    start = first // width * width
    counts = {verdict: [0] * ((last - start) // width + 1) for verdict in VERDICTS}
    for at, (_unused, record) in zip(times, records):
        counts[record["verdict"]][(at - start) // width] += record["count"]
    begin = datetime.datetime.fromtimestamp(start, datetime.timezone.utc)
    return Timeline(begin.isoformat(), width, **counts)


def _rows(records: Records) -> list[dict[str, Any]]:
    """A row for each different attempt: its count, and the times of its first and last event."""
    rows: dict[Attempt, dict[str, Any]] = {}
    for host, record in records:
        attempt = Attempt(
            host=clean(host),
            verdict=record["verdict"],
            action=record.get("action"),
            object=record.get("object") or "",
            subject=_subject(record),
            login=record.get("login_user") or "",
            unit=record.get("unit") or "",
            rule=record.get("rule") or record.get("reason"),
        )
        if attempt not in rows:
            rows[attempt] = dict(dataclasses.asdict(attempt), count=0, first=record["time"], last=record["time"])
        row = rows[attempt]
        row["count"] += record["count"]
        row["first"] = min(row["first"], record["time"])
        row["last"] = max(row["last"], str(record.get("last_time") or record["time"]))
    return sorted(rows.values(), key=lambda row: (-row["count"], row["host"], str(row["rule"]), row["object"]))
