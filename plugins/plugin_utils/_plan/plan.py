# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run would change on many hosts: hosts on which it would do the same are one entry. As text, as Markdown and as
data. Private to this collection."""

from __future__ import annotations

import datetime
from typing import Any, Callable, Iterable, NamedTuple

from ansible_collections.exfil.guard.plugins.module_utils._guard import errors
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import resolver
from ansible_collections.exfil.guard.plugins.plugin_utils._language import assertions, document

from . import compare as _compare
from .validation import hosts_text

NO_CHANGE, ERROR, CHANGE = 0, 1, 2  # exit status
LINES, DECISIONS = 30, 12  # shown of one entry
_POLICY = "policy: "  # the line of a module's diff that tells the documents' digests
_NOTHING: dict[str, Any] = {
    "policy": 1, "mode": "enforce", "boot": "best-effort", "subjects": {}, "resources": {}, "destinations": {},
    "rules": [], "assertions": []}  # fmt: skip
_KINDS = (("drift", "DRIFT"), ("renewal", "RENEWAL"), ("unsettled", "TRIAL"), ("unenforced", "NOT ENFORCED"))


class Seen(NamedTuple):
    """What the tasks told of one host. ``compared``: of the documents before and after, when they differ."""

    changed: bool = False
    error: str = ""  # it failed or could not be reached
    pending: bool = False
    lines: tuple[str, ...] = ()  # what would be done
    drift: tuple[str, ...] = ()
    renewal: tuple[str, ...] = ()
    unsettled: tuple[str, ...] = ()
    unenforced: tuple[str, ...] = ()
    compared: Compared | None = None


class Compared(NamedTuple):
    changes: tuple[_compare.Change, ...] = ()
    examples: tuple[str, ...] = ()  # actions that were decided by examples of every kind
    structure: tuple[str, ...] = ()  # actions with too many kinds, by structure
    open: tuple[str, ...] = ()
    failed: str = ""  # why it could not be done


class Entry(NamedTuple):
    hosts: tuple[str, ...]
    seen: Seen


class Comparer:
    """Compares each pair of documents once."""

    def __init__(self, today: datetime.date, compare: Callable[..., _compare.Comparison] = _compare.compare) -> None:
        self._today, self._compare = today, compare
        self._known: dict[tuple[str, str], Compared] = {}

    def __call__(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> Compared:
        """None: no policy."""
        pair = before or _NOTHING, after or _NOTHING
        key = document.digest(pair[0]), document.digest(pair[1])
        if key not in self._known:
            self._known[key] = self._of(*pair)
        return self._known[key]

    def _of(self, before: dict[str, Any], after: dict[str, Any]) -> Compared:
        system = assertions.SymbolicSystem()
        try:
            found = self._compare(
                resolver.resolve(before, system), resolver.resolve(after, system), self._today,
                lambda _kind, number: system.name(number))  # fmt: skip
        except (errors.PolicyErrors, KeyError, ValueError) as error:  # a document of another release
            return Compared(failed=" ".join(str(error).split()) or type(error).__name__)
        by = {how: tuple(sorted(action for action, method in found.methods.items() if method == how))
              for how in ("examples", "structure")}  # fmt: skip
        return Compared(found.changes, by["examples"], by["structure"], found.open)


def seen(results: Iterable[dict[str, Any]], comparer: Comparer) -> Seen:
    """Of one host, from what the modules policy and enforcer returned in check mode."""
    found = Seen()
    for result in results:
        told = str((result.get("diff") or {}).get("prepared") or "").splitlines()
        lacking = [f"! {each['found']}. {each['remedy']}" for each in result.get("lacking") or ()]
        found = found._replace(
            changed=found.changed or bool(result.get("changed")),
            pending=found.pending or bool(result.get("pending")),
            lines=found.lines + tuple(line for line in told + lacking if not line.startswith(_POLICY)),
            **{kind: getattr(found, kind) + tuple(result.get(kind) or ()) for kind, _word in _KINDS},
        )
        removed = result.get("document_before") if "pending" not in result else None
        if result.get("pending") or removed:
            found = found._replace(compared=comparer(result.get("document_before"), result.get("document_after")))
    return found


def fold(hosts: dict[str, Seen]) -> list[Entry]:
    """Errors first, then drift, then what concerns most hosts."""
    groups: dict[Seen, list[str]] = {}
    for host, each in hosts.items():
        groups.setdefault(each, []).append(host)
    entries = [Entry(tuple(sorted(names)), each) for each, names in groups.items()]
    return sorted(entries, key=lambda each: (not each.seen.error, not each.seen.drift, -len(each.hosts), each.hosts))


def status(entries: Iterable[Entry]) -> int:
    entries = list(entries)
    if not entries or any(each.seen.error for each in entries):
        return ERROR
    return CHANGE if any(each.seen.changed for each in entries) else NO_CHANGE


# ---- text ------------------------------------------------------------------------------------------------------------


def summary(kind: str, entries: list[Entry]) -> str:
    def count(wanted: Callable[[Seen], Any]) -> int:
        return sum(len(each.hosts) for each in entries if wanted(each.seen))

    total = f"{count(lambda one: True):,} host{'' if count(lambda one: True) == 1 else 's'}"
    failed = count(lambda one: one.error)
    parts = [f"{count(lambda one: not one.error and not one.changed):,} in order"]
    if kind == "drift":
        parts.append(f"{count(lambda one: one.drift):,} drifted")
        parts.append(f"{count(lambda one: one.pending):,} with a pending change")
        parts += [f"{count(lambda one: one.renewal):,} to renew", f"{count(lambda one: one.unsettled):,} on trial"]
    else:
        parts += [f"{count(lambda one: not one.error and one.changed):,} would change"]
    return f"{kind.capitalize()} of {total}: {', '.join(parts)}, {failed:,} failed"


def text(kind: str, entries: list[Entry]) -> str:
    """``kind``: plan or drift."""
    lines = [summary(kind, entries)]
    for entry in entries:
        if entry.seen.changed or entry.seen.error:
            lines += ["", _hosts(entry)] + ["  " + line for line in _body(kind, entry.seen)]
    return "\n".join(lines)


def _hosts(entry: Entry) -> str:
    number = len(entry.hosts)
    return f"{hosts_text(entry.hosts)}{f' ({number:,} hosts)' if number > 1 else ''}"


def _body(kind: str, found: Seen) -> list[str]:
    if found.error:
        return [f"FAILED  {line}" if not index else f"        {line}"
                for index, line in enumerate(found.error.splitlines())]  # fmt: skip
    lines = [f"{word}  {line}" for key, word in _KINDS for line in getattr(found, key)]
    if kind == "drift":
        return lines + (["PENDING  the policy of the templates is another one: see playbooks/plan.yml"]
                        if found.pending else [])  # fmt: skip
    lines += _decisions(found.compared) if found.compared else []
    return lines + _cut(list(found.lines), LINES)


def _decisions(found: Compared) -> list[str]:
    if found.failed:
        return [f"what gets stricter or weaker can't be told: {found.failed}"]
    lines = []
    for direction in _compare.DIRECTIONS:
        changes = [change for change in found.changes if change.direction == direction]
        if changes:
            lines += [direction, *_cut([f"  {change}" for change in changes], DECISIONS)]
    lines += [f"not ruled out: {each} (too many combinations of subjects)" for each in found.open]
    return lines or ["no decision changes"]


def _cut(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"... and {len(lines) - most} more lines"]


# ---- Markdown --------------------------------------------------------------------------------------------------------


def markdown(kind: str, entries: list[Entry]) -> str:
    """For a merge request: what gets weaker is seen without opening anything."""
    lines = [f"### {summary(kind, entries)}", ""]
    for entry in entries:
        found = entry.seen
        if not (found.changed or found.error):
            continue
        lines += [f"**{_escaped(_hosts(entry))}**", ""]
        if found.error:
            lines += [*_fenced("text", found.error.splitlines()), ""]
            continue
        lines += [f"* {word}: {_escaped(line)}" for key, word in _KINDS for line in getattr(found, key)]
        if found.compared and kind == "plan":
            lines += _marked_decisions(found.compared)
        if found.lines:
            lines += ["", "<details><summary>what would be done</summary>", "",
                      *_fenced("diff", _cut(list(found.lines), LINES)), "", "</details>"]  # fmt: skip
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _marked_decisions(found: Compared) -> list[str]:
    if found.failed:
        return [f"* {_escaped(_decisions(found)[0])}"]
    marks = {"weaker": "🔓", "stricter": "🔒"}
    lines = [f"* {marks[change.direction]} **{change.direction}** {_escaped(str(change))}" for change in found.changes]
    lines += [f"* ❓ not ruled out: {_escaped(each)}" for each in found.open]
    return _cut(lines, 2 * DECISIONS) or ["* no decision changes"]


def _fenced(language: str, lines: list[str]) -> list[str]:
    longest = max((len(run) for line in lines for run in "".join(
        char if char == "`" else " " for char in line).split()), default=0)  # fmt: skip
    fence = "`" * max(3, longest + 1)
    return [fence + language, *lines, fence]


def _escaped(line: str) -> str:
    """Nothing of a rule's name is markup."""
    return "".join("\\" + char if char in "\\`*_{}[]<>#|~&" else char for char in line)


# ---- data ------------------------------------------------------------------------------------------------------------


def data(kind: str, entries: list[Entry]) -> dict[str, Any]:
    found = []
    for entry in entries:
        each = entry.seen
        told: dict[str, Any] = {"hosts": list(entry.hosts), "changed": each.changed, "error": each.error or None,
                                "pending": each.pending, "lines": list(each.lines)}  # fmt: skip
        told.update({key: list(getattr(each, key)) for key, _word in _KINDS})
        told["decisions"] = None
        if each.compared:
            told["decisions"] = {
                "changes": [dict(change._asdict(), actions=list(change.actions)) for change in each.compared.changes],
                "examples": list(each.compared.examples),
                "structure": list(each.compared.structure),
                "open": list(each.compared.open),
                "failed": each.compared.failed or None,
            }
        found.append(told)
    return {"kind": kind, "summary": summary(kind, entries), "status": status(entries), "entries": found}
