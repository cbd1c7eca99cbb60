# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a fleet stands, and what was denied on it: the figures of the report. Pure. Private to this collection."""

from __future__ import annotations

import collections
import datetime
from typing import Any, Counter, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import events

TOP, ROWS, BUCKETS = 15, 2000, 96
_TEXTS = (
    *("rule", "reason", "user", "executable", "command", "action"),
    *("object", "path", "address", "login_user", "unit"),
)
_WIDTHS = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 86400, 7 * 86400)  # seconds of a bucket
GUARDED, AUDITING, UNGUARDED, SILENT = "enforcing", "reporting only", "not guarded", "no answer"
STATES = (GUARDED, AUDITING, UNGUARDED, SILENT)
VERDICTS = ("denied", "audit")  # audit: it would have been denied, were the rule enforced
CHANGE, IN_ORDER, UNKNOWN = "would change", "in order", "failed"  # of a host in the plan


def clean(value: Any) -> Any:
    """What a host says is only text: nothing in it moves a cursor or turns a line around."""
    if isinstance(value, str):
        return value if value.isprintable() else events.text(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(each) for key, each in value.items()}
    return [clean(each) for each in value] if isinstance(value, (list, tuple)) else value


def answer(groups: Sequence[str], status: Mapping[str, Any], trail: Mapping[str, Any]) -> dict[str, Any]:
    """Of one host, from the results of its two tasks."""
    told = trail.get("msg") if "records" not in trail else None
    return {
        "groups": groups,
        "status": status.get("status"),
        "records": trail.get("records") or (),
        "message": status.get("msg") if "status" not in status else told,
    }


def report(answers: Mapping[str, Mapping[str, Any]], now: str, plan: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``answers``: of each host its groups, what status_info and audit_info gave, or why they gave nothing.
    ``plan``: what _plan.data gives; None: nobody asked."""
    plan = None if plan is None else clean(plan)
    planned = {host: entry for entry in (plan or {}).get("entries", ()) for host in entry["hosts"]}
    hosts = [_answered(name, clean(dict(answers[name])), planned.get(clean(name))) for name in sorted(answers)]
    records = [
        (name, record)
        for name in sorted(answers)
        for record in clean(list(answers[name].get("records") or ()))
        if _is_whole(record)
    ]
    rows = _rows(records)
    return {
        "version": 1,
        "generated": now,
        "hosts": hosts,
        "groups": _groups(hosts),
        "states": dict(collections.Counter(host["state"] for host in hosts)),
        "plan": plan,
        "told": sum(record["count"] for _, record in records),
        "timeline": _timeline(records),
        "top": {verdict: _tops([each for each in records if each[1]["verdict"] == verdict]) for verdict in VERDICTS},
        "rows": rows[:ROWS],
        "rows_left_out": len(rows[ROWS:]),
    }


def _is_whole(record: Any) -> bool:
    """A host may say anything; what is no decision of ours is left out."""
    return (
        isinstance(record, dict)
        and record.get("kind") == "decision"
        and record.get("verdict") in VERDICTS
        and isinstance(record.get("count"), int)
        and all(isinstance(record.get(key), (str, type(None))) for key in _TEXTS)
        and _seconds(record.get("time")) is not None
    )


# ---- hosts --------------------------------------------------------------------------------------------------------


def _answered(name: str, answer: dict[str, Any], planned: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        host = _host(name, answer)
    except (AttributeError, KeyError, TypeError, ValueError):
        host = _host(name, {"groups": answer.get("groups"), "message": "what it answered is no status of ours"})
    if planned:
        host["plan"] = UNKNOWN if planned["error"] else CHANGE if planned["changed"] else IN_ORDER
    return host


def _host(name: str, answer: dict[str, Any]) -> dict[str, Any]:
    status = answer.get("status")
    host: dict[str, Any] = {
        "name": clean(name),
        "groups": sorted(map(str, answer.get("groups") or ())),
        "state": SILENT,
        "mode": None,
        "generation": None,
        "revision": None,
        "kernel": None,
        "certificate": "none",
        "drift": 0,
        "unenforced": 0,
        "plan": None,
        "attention": [],
        "denied": None,
        "audited": None,
        "lost": None,
        "collector": "none",
    }
    if not isinstance(status, dict):
        host["attention"] = [str(answer.get("message") or "it could not be reached")]
        return host
    totals, certificate = status.get("totals") or {}, status.get("certificate") or {}
    host.update(
        state=_state(status),
        mode=_said(status.get("mode")),
        generation=_whole(status.get("generation")),
        revision=_said(status.get("revision")),
        kernel=_said(status.get("kernel")),
        certificate=_certificate(status, certificate),
        drift=len(status.get("drift") or ()),
        unenforced=len(status.get("unenforced") or ()),
        attention=_attention(status, answer),
        denied=_whole(totals.get("denied")),
        audited=_whole(totals.get("audited")),
        lost=_whole(totals.get("events_lost")),
        collector=_collector(status.get("audit")),
    )
    return host


def _groups(hosts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each group: how many hosts in which state, how many drift, lack a rule or would be changed, what they counted."""
    found = []
    for name in sorted({each for host in hosts for each in host["groups"]}):
        members = [host for host in hosts if name in host["groups"]]
        found.append(
            {
                "name": name,
                "hosts": len(members),
                "states": {state: sum(host["state"] == state for host in members) for state in STATES},
                "drift": sum(host["drift"] > 0 for host in members),
                "unenforced": sum(host["unenforced"] > 0 for host in members),
                "change": sum(host["plan"] == CHANGE for host in members),
                "denied": sum(host["denied"] or 0 for host in members),
                "audited": sum(host["audited"] or 0 for host in members),
            }
        )
    return found


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _said(value: Any) -> str | None:
    return None if value is None else str(value)


def _state(status: dict[str, Any]) -> str:
    if not status.get("installed") or not status.get("in_force") or not status.get("running"):
        return UNGUARDED
    return GUARDED if status.get("mode") == "enforce" else AUDITING


def _certificate(status: dict[str, Any], certificate: dict[str, Any]) -> str:
    found = (certificate.get("policy") or {}).get("generation")
    if found is None:
        return "none"
    return f"of generation {found}" if found == status.get("generation") else f"of generation {found}, not of this one"


def _collector(audit: dict[str, Any] | None) -> str:
    if not audit:
        return "none"
    return "running" if audit.get("running") else "not running"


def _attention(status: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Everything that is not as it should be, the worst first."""
    found = list(status.get("problems") or ())
    found += [f"not enforced: {line}" for line in status.get("unenforced") or ()]
    found += [f"drift: {line}" for line in status.get("drift") or ()]
    if status.get("pending"):
        found.append("on trial, not confirmed")
    if status.get("soak"):
        found.append("what is new only reports")
    found += [f"hard link: {line}" for line in status.get("hardlinks") or ()]
    found += [f"not proved: {line}" for line in (status.get("certificate") or {}).get("not_proved") or ()]
    if answer.get("message"):
        found.append("no audit trail: {0}".format(answer["message"]))
    return found


# ---- denials ------------------------------------------------------------------------------------------------------

Records = List[Tuple[str, Dict[str, Any]]]


def _seconds(text: Any) -> int | None:
    try:
        return int(datetime.datetime.fromisoformat(text).timestamp())
    except (TypeError, ValueError, OverflowError):
        return None


def _subject(record: dict[str, Any]) -> str:
    who = record.get("user") or "uid {0}".format(record.get("uid"))
    return "{0}, {1}".format(who, record.get("executable") or record.get("command"))


def _tops(records: Records) -> dict[str, list[dict[str, Any]]]:
    return {
        "rules": _top(records, lambda record: record.get("rule") or record.get("reason")),
        "subjects": _top(records, _subject),
        "destinations": _top(records, lambda record: record.get("object") if record.get("address") else None),
        "files": _top(records, lambda record: record.get("path")),
    }


def _top(records: Records, key: Any) -> list[dict[str, Any]]:
    counts: Counter[str] = collections.Counter()
    for _, record in records:
        name = key(record)
        if name:
            counts[name] += record["count"]
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return [{"name": name, "count": count} for name, count in ordered[:TOP]]


def _timeline(records: Records) -> dict[str, Any]:
    """At most BUCKETS counts over the time from the first record to the last."""
    if not records:
        return {"start": None, "width": None, "denied": [], "audit": []}
    times = [_seconds(record["time"]) or 0 for _, record in records]
    first, last = min(times), max(times)
    width = next((each for each in _WIDTHS if last // each - first // each < BUCKETS), (last - first) // BUCKETS + 1)
    start = first // width * width
    found = {verdict: [0] * ((last - start) // width + 1) for verdict in VERDICTS}
    for at, (_, record) in zip(times, records):
        found[record["verdict"]][(at - start) // width] += record["count"]
    when = datetime.datetime.fromtimestamp(start, datetime.timezone.utc)
    return {"start": when.isoformat(), "width": width, **found}


def _rows(records: Records) -> list[dict[str, Any]]:
    """What was tried, by whom, and where: the same as one."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for host, record in records:
        row = {
            "host": clean(host),
            "verdict": record.get("verdict"),
            "action": record.get("action"),
            "object": record.get("object") or "",
            "subject": _subject(record),
            "login": record.get("login_user") or "",
            "unit": record.get("unit") or "",
            "rule": record.get("rule") or record.get("reason"),
        }
        key = tuple(row.values())
        known = found.setdefault(key, dict(row, count=0, first=record["time"], last=record["time"]))
        known["count"] += record["count"]
        known["first"] = min(known["first"], record["time"])
        known["last"] = max(known["last"], str(record.get("last_time") or record["time"]))
    return sorted(found.values(), key=lambda row: (-row["count"], row["host"], str(row["rule"]), row["object"]))
