# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in force on this host, read from the kernel, and how that compares with the documents on disk."""

from __future__ import annotations

import datetime
import struct
import time
from typing import Any

from .. import layout
from ..audit import collector
from ..compile import tables as compile
from ..errors import EnforcerError
from ..host import pull
from ..kernel import generations, links, mapspecs, pins
from ..lifecycle import coverage, enforcer, history
from ..lifecycle.drift import difference_lines
from ..policy.model import Resolved
from ..resolve import encoding, hardlinks

_ZERO = bytes(4)
_ADDRESS_SPACE_BASE, _EVERY = 1 << 63, (1 << 64) - 1  # see bpf/subject/task_label.h


def status(
    kernel: Any,
    store: Any,
    system: Any = None,
    now: datetime.date | None = None,
    *,
    pull_result: str = pull.RESULT,
    audit_state: str = collector.STATE,
) -> dict[str, Any]:
    """``system`` and ``now`` are needed to tell drift; without them `drift` is None."""
    environment = kernel.environment()
    if not environment.root:
        raise EnforcerError("the kernel's state can only be read by root", "Run as root (sudo exfil-guard status)")
    result: dict[str, Any] = {
        "layout": pins.LAYOUT,
        "kernel": environment.release,
        "lsms": list(environment.lsms),
        "running": "bpf" in environment.lsms,
        "problems": [],
        "installed": False,
        "enforcer": None,
        "generation": 0,
        "mode": None,
        "in_force": False,
        "pending": False,
        "expired": False,
        "deadline_seconds": None,
        "slot": None,
        "fallback_slot": None,
        "fallback_generation": None,
        "hooks": [],
        "hooks_available": [],
        "rules": [],
        "totals": {},
        "rename_cache": None,
        "digest": None,
        "stored_generation": None,
        "confirmed_generation": None,
        "certificate": store.certificate(),
        "drift": None,
        "hardlinks": [],
        "labels": [],
        "unenforced": [],
        "revision": None,
        "soak": False,
        "generations": [history.summary(each) for each in history.generations(store)],
        "pull": pull.last(pull_result),
        "events": None,
        "audit": collector.told(audit_state),
    }
    result["problems"].extend("{0}. {1}".format(*each) for each in enforcer.prerequisites(environment))
    result["problems"].extend(
        f"the audit trail does not go on: {text}" for text in (result["audit"] or {}).get("failing", ())
    )
    confirmed = store.last_confirmed()
    numbers = store.numbers()
    result["stored_generation"] = numbers[-1] if numbers else None
    result["confirmed_generation"] = confirmed["generation"] if confirmed else None
    try:
        version = enforcer.installed(kernel)
    except EnforcerError as error:
        result["problems"].append(str(error))
        return result
    result.update(installed=version is not None, enforcer=version)
    if version is None:
        return result
    live = generations.read(kernel)
    stored = store.load(live.generation) if live.generation else None
    result["hooks"] = sorted(links.attached_hooks(kernel, version))
    result["hooks_available"] = sorted(pins.available_hooks(kernel, version))
    result.update(
        generation=live.generation,
        in_force=bool(live.generation),
        pending=live.pending,
        expired=live.expired,
        slot=live.slot if live.generation else None,
    )
    if live.record:
        has_fallback = live.record.fallback_slot < mapspecs.SLOTS
        result["fallback_slot"] = live.record.fallback_slot if has_fallback else None
        result["fallback_generation"] = live.record.fallback_generation if has_fallback else None
        if live.pending:
            result["deadline_seconds"] = round(max(0, live.record.deadline - kernel.boottime()) / 1e9, 1)
    if stored:
        result.update(
            mode=stored["document"].get("mode"),
            digest=stored["digest"],
            revision=stored.get("revision"),
            soak="replaces" in stored,
        )
        if "hardlinks" in stored:
            result["hardlinks"] = hardlinks.lines(stored["hardlinks"])
    result["rules"] = _rules(kernel, live.tables)
    _tell_enforced(result, encoding.from_json(stored["resolved"]) if stored else None, environment)
    result["unenforced"] = coverage.lines(result["rules"], environment)
    result["labels"] = _carried(kernel, compile.labels_of(live.tables))
    result["totals"], result["events"] = _accounted(kernel)
    with pins.opened(kernel, pins.map_path(kernel, "facts"), readonly=True) as facts:
        value = kernel.lookup(facts, _ZERO) or bytes(16)
    result["rename_cache"] = struct.unpack_from("=Q", value, 8)[0] == 1
    if system is not None and now is not None:
        result["drift"] = difference_lines(live, stored, result["hooks"], system, now)
    return result


def _rules(kernel: Any, tables: dict[str, dict[bytes, bytes]]) -> list[dict[str, Any]]:
    with pins.opened(kernel, pins.map_path(kernel, "counters"), readonly=True) as counters:
        counts = kernel.read_all(counters)
    found = []
    for _, value in sorted(tables.get("rules", {}).items()):
        name = layout.RULE.unpack(value).name.split(b"\0")[0].decode("utf-8", "replace")
        key = value[layout.RULE.span("id")]
        if name:
            count = layout.COUNT.unpack(counts[key]) if key in counts else layout.COUNT.empty()
            found.append({"name": name, "denied": count.denied, "audited": count.audited, "counted": key in counts})
    return sorted(found, key=lambda rule: rule["name"])


def _tell_enforced(result: dict[str, Any], resolved: Resolved | None, environment: Any) -> None:
    available, attached = frozenset(result["hooks_available"]), frozenset(result["hooks"])
    rules = {rule.name: rule for rule in resolved.rules} if resolved else {}
    for told in result["rules"]:
        rule = rules.get(told["name"])
        told["audit"] = rule.audit if rule else None
        told["actions"] = (
            coverage.of_rule(resolved, rule, environment, available, attached) if resolved and rule else []
        )
        told["enforced"] = "bpf" in environment.lsms and all(each["enforced"] for each in told["actions"])


def _carried(kernel: Any, names: dict[str, int]) -> list[dict[str, Any]]:
    """How many tasks carry each label, and how many pipes, sockets and message queues; of files only the kernel's
    inodes know."""
    since = links.labels_since(kernel)
    found = {name: {"name": name, "tasks": 0, "channels": 0} for name in names}
    if since and names:
        carriers, cells, wires = (
            _read_map(kernel, name, entry.unpack)
            for name, entry in (
                ("carriers", layout.TASK_LABEL),
                ("cells", layout.LABEL_GROUP),
                ("wires", layout.CHANNEL_LABEL),
            )
        )
        groups = {layout.LABEL_GROUP_KEY.unpack(key): group.labels for key, group in cells.items()}
        for task in carriers.values():
            if task.since == since:
                _count(found, names, task.labels | _of_group(groups, since, task.group), "tasks")
        for channel in wires.values():
            if channel.since == since:
                _count(found, names, channel.labels, "channels")
    return [found[name] for name in sorted(found)]


def _read_map(kernel: Any, name: str, unpack: Any) -> dict[bytes, Any]:
    with pins.opened(kernel, pins.map_path(kernel, name), readonly=True) as fd:
        return {key: unpack(value) for key, value in kernel.read_all(fd).items()}


def _of_group(groups: dict[layout.LabelGroupKey, int], since: int, number: int) -> int:
    """The labels of a group, as labels_of_task in bpf/subject/task_label.h finds them. An address space has an entry
    only once it has a label; another group without an entry counts as having every label."""
    return groups.get(layout.LabelGroupKey(since, number), 0 if not number or number >= _ADDRESS_SPACE_BASE else _EVERY)


def _count(found: dict[str, dict[str, Any]], names: dict[str, int], labels: int, what: str) -> None:
    for name, bit in names.items():
        if labels >> bit & 1:
            found[name][what] += 1


def _totals(kernel: Any) -> dict[str, Any]:
    with pins.opened(kernel, pins.map_path(kernel, "totals"), readonly=True) as totals:
        value = kernel.lookup(totals, _ZERO) or bytes(layout.TOTALS.size)
    found = layout.TOTALS.unpack(value)
    return {
        "denied": found.denied,
        "audited": found.audited,
        "events_written": found.written,
        "events_lost": found.lost,
        "reasons": dict(zip(layout.REASONS[1:], found.reasons[1:])),
        "uncached": found.uncached,
    }


def _accounted(kernel: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The totals, and where each event is. A decision is counted before its event is written: while one is under way,
    the numbers are read again."""
    for _ in range(10):
        totals = _totals(kernel)
        found = {
            "decided": totals["denied"] + totals["audited"],
            "written": totals["events_written"],
            "lost": totals["events_lost"],
            "waiting": _waiting(kernel),
        }
        found["unaccounted"] = found["decided"] - found["written"] - found["lost"]
        if not found["unaccounted"]:
            break
        time.sleep(0.01)
    return totals, found


def _waiting(kernel: Any) -> int:
    with pins.opened(kernel, pins.map_path(kernel, "events")) as fd, kernel.ring(fd, False) as ring:
        return len(ring.peek().records)


def _accounts(found: dict[str, Any]) -> str:
    text = "events        {written} written + {lost} lost = {decided} decided; {waiting} waiting".format(**found)
    return text + ("; {unaccounted} UNDER WAY".format(**found) if found["unaccounted"] else "")


def _collector(found: dict[str, Any] | None) -> list[str]:
    """How the audit trail stands; nothing where there is none."""
    if not found:
        return []
    parts = ["{collected} events taken".format(**found), "{lines} lines".format(**found)]
    parts += [
        f"{found[key]} {what}"
        for key, what in (
            ("held", "still to be told"),
            ("missing", "missing"),
            ("unreadable", "unreadable"),
            ("file_lost", "lines without room in the file"),
        )
        if found[key]
    ]
    parts += [f"{count} lines wait for the {name}" for name, count in found["undelivered"].items()]
    return ["audit trail   {0}: {1}".format("collected" if found["running"] else "NOT RUNNING", ", ".join(parts))]


def to_text(result: dict[str, Any]) -> str:
    lines = []
    if not result["installed"]:
        lines.append("enforcer      not installed")
    else:
        lines.append("enforcer      {0}, layout {1}".format(result["enforcer"], result["layout"]))
        if not result["in_force"]:
            lines.append("policy        none in force")
        else:
            lines.append(
                "policy        generation {0}, {1}, digest {2}".format(
                    result["generation"], result["mode"] or "mode unknown", (result["digest"] or "unknown")[:12]
                )
            )
        if result["revision"]:
            lines.append("made from     {0}".format(result["revision"]))
        if result["soak"]:
            lines.append("soak          what is new only reports")
        if result["pending"]:
            back = (
                "generation {0}".format(result["fallback_generation"])
                if result["fallback_slot"] is not None
                else "no policy"
            )
            lines.append(
                "on trial      not confirmed: in {0} s {1} comes back".format(result["deadline_seconds"], back)
            )
        if result["expired"]:
            lines.append("on trial      a newer generation was not confirmed in time")
        lines.append("hooks         {0}".format(", ".join(result["hooks"]) or "none attached"))
    lines.append(
        "stored        newest {0}, last confirmed {1}".format(
            result["stored_generation"] or "none", result["confirmed_generation"] or "none"
        )
    )
    known = result["certificate"]
    if known:
        lines.append(
            "certificate   of generation {0}, written {1}; `exfil-guard verify` compares".format(
                known["policy"].get("generation"), known["issued_at"]
            )
        )
    if result["pull"]:
        lines.append(
            "last pull     {outcome} at {ended}, commit {revision}: {message}".format(
                **dict(result["pull"], revision=(result["pull"]["revision"] or "unknown")[:12])
            )
        )
    lines.append("kernel        {0}, LSMs {1}".format(result["kernel"], ",".join(result["lsms"]) or "unknown"))
    if result["rename_cache"] is not None and result["in_force"]:
        lines.append(
            "path cache    {0}".format(
                "on" if result["rename_cache"] else "off (unused so far, or kptr_restrict=2): slower, same answers"
            )
        )
    if result["totals"]:
        totals = result["totals"]
        lines.append(
            "totals        {denied} denied, {audited} audited, {events_written} events, {events_lost} lost".format(
                **totals
            )
        )
        lines.append(_accounts(result["events"]))
        lines.extend(_collector(result["audit"]))
        other = [f"{count} {name}" for name, count in sorted(totals["reasons"].items()) if count]
        if other:
            lines.append("undecidable   {0}".format(", ".join(other)))
    if result["rules"]:
        lines.append("rules         {0:>10} {1:>10}".format("denied", "audited"))
        lines.extend("              {denied:>10} {audited:>10}  {name}".format(**rule) for rule in result["rules"])
    if result["labels"]:
        lines.append("has read      {0:>10} {1:>10}".format("tasks", "channels"))
        lines.extend("              {tasks:>10} {channels:>10}  {name}".format(**label) for label in result["labels"])
    lines.extend(f"HARD LINK     {line}" for line in result["hardlinks"])
    lines.extend(f"NOT ENFORCED  {line}" for line in result["unenforced"])
    lines.extend(f"NOT PROVED    {line}" for line in (known or {}).get("not_proved", ()))
    lines.extend(f"DRIFT         {line}" for line in result["drift"] or ())
    lines.extend(f"PROBLEM       {line}" for line in result["problems"])
    return "\n".join(lines)
