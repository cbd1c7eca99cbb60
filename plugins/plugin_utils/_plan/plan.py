# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The changes that a run would make on many hosts, as text, Markdown and data. Hosts with equal changes are one entry.
Private to this collection."""

from __future__ import annotations

import datetime
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.exfil.guard.plugins.module_utils._guard import errors
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import resolver
from ansible_collections.exfil.guard.plugins.plugin_utils._language import assertions, document

from . import compare as _compare
from .validation import hosts_text

NO_CHANGE, ERROR, CHANGE = 0, 1, 2  # exit status
LINES, DECISIONS = 30, 12  # most lines of one entry
_POLICY = "policy: "  # prefix of the diff's line with the digests of the documents
_NO_POLICY: dict[str, Any] = {
    "policy": 1, "mode": "enforce", "boot": "best-effort", "subjects": {}, "resources": {}, "destinations": {},
    "rules": [], "assertions": []}  # fmt: skip
_FINDINGS = (("drift", "DRIFT"), ("renewal", "RENEWAL"), ("unsettled", "TRIAL"), ("unenforced", "NOT ENFORCED"))


class HostResult(NamedTuple):
    """The results of one host's tasks. ``error``: why the host failed or was not reached; ``lines``: the changes;
    ``compared``: the comparison of the documents before and after, if they differ; ``advice``: about the policy."""

    changed: bool = False
    error: str = ""
    pending: bool = False
    lines: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()
    renewal: tuple[str, ...] = ()
    unsettled: tuple[str, ...] = ()
    unenforced: tuple[str, ...] = ()
    compared: Compared | None = None
    advice: tuple[str, ...] = ()


class Compared(NamedTuple):
    """The changed decisions. ``examples`` and ``structure``: actions by the method of their comparison, see
    compare.Comparison; ``failed``: why the documents could not be compared."""

    changes: tuple[_compare.Change, ...] = ()
    examples: tuple[str, ...] = ()
    structure: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    failed: str = ""


class Entry(NamedTuple):
    """Hosts with the same result."""

    hosts: tuple[str, ...]
    result: HostResult


class Comparer:
    """Compares each different pair of documents once."""

    def __init__(self, today: datetime.date, compare: Callable[..., _compare.Comparison] = _compare.compare) -> None:
        self._today, self._compare = today, compare
        self._cache: dict[tuple[str, str], Compared] = {}

    def __call__(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> Compared:
        """The comparison of two documents; None stands for no policy."""
        pair = before or _NO_POLICY, after or _NO_POLICY
        key = document.digest(pair[0]), document.digest(pair[1])
        if key not in self._cache:
            self._cache[key] = self._compared(*pair)
        return self._cache[key]

    def _compared(self, before: dict[str, Any], after: dict[str, Any]) -> Compared:
        system = assertions.SymbolicSystem()
        try:
            comparison = self._compare(
                resolver.resolve(before, system), resolver.resolve(after, system), self._today,
                lambda _kind, number: system.name(number))  # fmt: skip
        except (errors.PolicyErrors, KeyError, ValueError) as error:  # a document of another release
            return Compared(failed=" ".join(str(error).split()) or type(error).__name__)
        by = {how: tuple(sorted(action for action, method in comparison.methods.items() if method == how))
              for how in ("examples", "structure")}  # fmt: skip
        return Compared(comparison.changes, by["examples"], by["structure"], comparison.open)


def host_result(results: Iterable[Mapping[str, Any]], comparer: Comparer) -> HostResult:
    """The result of one host, from the results of its policy and enforcer tasks in check mode."""
    total = HostResult()
    for result in results:
        diff = str((result.get("diff") or {}).get("prepared") or "").splitlines()
        lacking = [f"! {problem['found']}. {problem['remedy']}" for problem in result.get("lacking") or ()]
        total = total._replace(
            changed=total.changed or bool(result.get("changed")),
            pending=total.pending or bool(result.get("pending")),
            lines=total.lines + tuple(line for line in diff + lacking if not line.startswith(_POLICY)),
            advice=total.advice + tuple(result.get("advice") or ()),
            **{key: getattr(total, key) + tuple(result.get(key) or ()) for key, _word in _FINDINGS},
        )
        removed = result.get("document_before") if "pending" not in result else None
        if result.get("pending") or removed:
            total = total._replace(compared=comparer(result.get("document_before"), result.get("document_after")))
    return total


def group(hosts: Mapping[str, HostResult]) -> list[Entry]:
    """Entries of hosts with equal results: errors first, then drift, then by number of hosts."""
    groups: dict[HostResult, list[str]] = {}
    for host, result in hosts.items():
        groups.setdefault(result, []).append(host)
    entries = [Entry(tuple(sorted(names)), result) for result, names in groups.items()]
    return sorted(
        entries, key=lambda entry: (not entry.result.error, not entry.result.drift, -len(entry.hosts), entry.hosts)
    )


def status(entries: Sequence[Entry]) -> int:
    """The exit status. No hosts are an error."""
    if not entries or any(entry.result.error for entry in entries):
        return ERROR
    return CHANGE if any(entry.result.changed for entry in entries) else NO_CHANGE


# ---- text ------------------------------------------------------------------------------------------------------------


def summary(kind: str, entries: list[Entry]) -> str:
    """One line with the numbers of hosts. ``kind``: plan or drift."""

    def count(condition: Callable[[HostResult], object]) -> int:
        return sum(len(entry.hosts) for entry in entries if condition(entry.result))

    hosts = sum(len(entry.hosts) for entry in entries)
    total = f"{hosts:,} host{'' if hosts == 1 else 's'}"
    failed = count(lambda result: result.error)
    parts = [f"{count(lambda result: not result.error and not result.changed):,} in order"]
    if kind == "drift":
        parts += [
            f"{count(lambda result: result.drift):,} drifted",
            f"{count(lambda result: result.pending):,} with a pending change",
            f"{count(lambda result: result.renewal):,} to renew",
            f"{count(lambda result: result.unsettled):,} on trial",
        ]
    else:
        parts.append(f"{count(lambda result: not result.error and result.changed):,} would change")
    return f"{kind.capitalize()} of {total}: {', '.join(parts)}, {failed:,} failed"


def text(kind: str, entries: list[Entry]) -> str:
    """The entries with changes or errors as text. ``kind``: plan or drift."""
    lines = [summary(kind, entries)]
    for entry in entries:
        if entry.result.changed or entry.result.error or (kind == "plan" and entry.result.advice):
            lines += ["", _hosts(entry)] + ["  " + line for line in _body(kind, entry.result)]
    return "\n".join(lines)


def _hosts(entry: Entry) -> str:
    number = len(entry.hosts)
    return f"{hosts_text(entry.hosts)}{f' ({number:,} hosts)' if number > 1 else ''}"


def _body(kind: str, result: HostResult) -> list[str]:
    if result.error:
        return [f"FAILED  {line}" if not index else f"        {line}"
                for index, line in enumerate(result.error.splitlines())]  # fmt: skip
    lines = [f"{word}  {line}" for key, word in _FINDINGS for line in getattr(result, key)]
    if kind == "drift":
        pending = ["PENDING  the templates' policy differs from the host's: see playbooks/plan.yml"]
        return lines + (pending if result.pending else [])
    lines += [f"ADVICE  {line}" for line in result.advice]
    lines += _decisions(result.compared) if result.compared else []
    return lines + _cut(list(result.lines), LINES)


def _decisions(compared: Compared) -> list[str]:
    if compared.failed:
        return [f"the decisions of both policies could not be compared: {compared.failed}"]
    lines = []
    for direction in _compare.DIRECTIONS:
        changes = [change for change in compared.changes if change.direction == direction]
        if changes:
            lines += [direction, *_cut([f"  {change}" for change in changes], DECISIONS)]
    lines += [f"not ruled out: {direction} (too many combinations of subjects)" for direction in compared.open]
    return lines or ["no decision changes"]


def _cut(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"... and {len(lines) - most} more lines"]


# ---- Markdown --------------------------------------------------------------------------------------------------------


def markdown(kind: str, entries: list[Entry]) -> str:
    """The entries for a merge request. Weaker decisions are visible without opening a section."""
    lines = [f"### {summary(kind, entries)}", ""]
    for entry in entries:
        result = entry.result
        if not (result.changed or result.error or (kind == "plan" and result.advice)):
            continue
        lines += [f"**{_escaped(_hosts(entry))}**", ""]
        if result.error:
            lines += [*_fenced("text", result.error.splitlines()), ""]
            continue
        lines += [f"* {word}: {_escaped(line)}" for key, word in _FINDINGS for line in getattr(result, key)]
        if kind == "plan":
            lines += [f"* ADVICE: {_escaped(line)}" for line in result.advice]
        if result.compared and kind == "plan":
            lines += _marked_decisions(result.compared)
        if result.lines:
            lines += ["", "<details><summary>changes line by line</summary>", "",
                      *_fenced("diff", _cut(list(result.lines), LINES)), "", "</details>"]  # fmt: skip
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _marked_decisions(compared: Compared) -> list[str]:
    if compared.failed:
        return [f"* {_escaped(_decisions(compared)[0])}"]
    marks = {"weaker": "🔓", "stricter": "🔒"}
    lines = [
        f"* {marks[change.direction]} **{change.direction}** {_escaped(str(change))}" for change in compared.changes
    ]
    lines += [f"* ❓ not ruled out: {_escaped(direction)}" for direction in compared.open]
    return _cut(lines, 2 * DECISIONS) or ["* no decision changes"]


def _fenced(language: str, lines: list[str]) -> list[str]:
    longest = max((len(run) for line in lines for run in "".join(
        char if char == "`" else " " for char in line).split()), default=0)  # fmt: skip
    fence = "`" * max(3, longest + 1)
    return [fence + language, *lines, fence]


def _escaped(line: str) -> str:
    """The line without Markdown markup."""
    return "".join("\\" + char if char in "\\`*_{}[]<>#|~&" else char for char in line)


# ---- data ------------------------------------------------------------------------------------------------------------


def data(kind: str, entries: list[Entry]) -> dict[str, Any]:
    """The entries as JSON data."""
    return {
        "kind": kind,
        "summary": summary(kind, entries),
        "status": status(entries),
        "entries": [_entry_data(entry) for entry in entries],
    }


def _entry_data(entry: Entry) -> dict[str, Any]:
    result, compared = entry.result, entry.result.compared
    return {
        "hosts": list(entry.hosts),
        "changed": result.changed,
        "error": result.error or None,
        "pending": result.pending,
        "lines": list(result.lines),
        "advice": list(result.advice),
        **{key: list(getattr(result, key)) for key, _word in _FINDINGS},
        "decisions": None if compared is None else _decisions_data(compared),
    }


def _decisions_data(compared: Compared) -> dict[str, Any]:
    return {
        "changes": [dict(change._asdict(), actions=list(change.actions)) for change in compared.changes],
        "examples": list(compared.examples),
        "structure": list(compared.structure),
        "open": list(compared.open),
        "failed": compared.failed or None,
    }
