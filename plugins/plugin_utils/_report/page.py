# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the report as one HTML page. The page loads nothing: its content security policy allows only its own style
sheet and script, by their digests. It is readable without the script, which adds the filters. Private to this
collection."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import functools
import hashlib
import pathlib
from typing import Any, Mapping

import jinja2
from markupsafe import Markup

from . import charts

_FOLDER = pathlib.Path(__file__).resolve().parent
_TEMPLATE = "page.html.j2"

# The class of a figure or cell, by what it shows.
_STATES = {"enforcing": "ok", "reporting only": "warn", "not guarded": "bad", "no answer": "dim"}
_PLAN_STATES = {"would change": "warn", "in order": "ok", "failed": "bad"}
_DIRECTIONS = {"weaker": "bad", "stricter": "ok"}

_WORST_FIRST = ("not guarded", "no answer", "reporting only", "enforcing")
_VERDICTS = {"denied": "denied", "audit": "would be denied"}
_GROUPS_IN_CHART = 15  # the table below the chart has all of them
_ATTENTION_SHOWN = 5  # lines of a host
_CHANGES_SHOWN = 12  # of an entry of the plan
_ALL_MOMENTS_SHOWN = 8  # bars up to which the axis of the timeline names every one

_TITLES = (
    "Groups",
    "Denials over time",
    "Most denied",
    "Would be denied: reported by rules in audit mode",
    "Plan: changes that a run would make",
    "Hosts",
    "Denials",
)


@dataclasses.dataclass(frozen=True)
class _Figure:
    """A number of the summary, its label and the class of its colour."""

    count: int
    label: str
    kind: str


@dataclasses.dataclass(frozen=True)
class _GroupRow:
    """A group's row: ``counts`` has a count and its class for each of the table's titles."""

    name: str
    hosts: int
    counts: list[tuple[int, str]]


@dataclasses.dataclass(frozen=True)
class _Groups:
    """The section of the groups; without rows, no host is in a group."""

    chart: Markup
    key: dict[str, str]
    titles: list[str]
    rows: list[_GroupRow]


@dataclasses.dataclass(frozen=True)
class _Timeline:
    """The section of denials over time; ``rows``: a moment, the denied and the would-be-denied events from then on."""

    label: str
    chart: Markup
    key: dict[str, str]
    rows: list[tuple[str, int, int]]


def page(report: Mapping[str, Any]) -> str:
    """The page of ``report``, which is what figures.report returns."""
    style, script = (Markup(_file(name)) for name in ("page.css", "page.js"))
    return (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            report=report,
            style=style,
            script=script,
            security_policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
            "base-uri 'none'; form-action 'none'",
            summary=_summary(report),
            groups=_groups(report),
            group_names=[group["name"] for group in report["groups"]],
            timeline=_timeline(report["timeline"], report["told"]),
            hosts=sorted(report["hosts"], key=_urgency),
            hosts_by_name={host["name"]: host for host in report["hosts"]},
        )
    )


@functools.lru_cache(maxsize=None)
def _file(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@functools.lru_cache(maxsize=None)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(str(_FOLDER)),
    )
    environment.filters.update(number=_number, change=_change, zip=zip)
    environment.tests.update(certified=_is_certified)
    environment.globals.update(
        titles=_TITLES,
        states=_STATES,
        plan_states=_PLAN_STATES,
        directions=_DIRECTIONS,
        verdicts=_VERDICTS,
        attention_shown=_ATTENTION_SHOWN,
        changes_shown=_CHANGES_SHOWN,
    )
    return environment


def _digest(text: str) -> str:
    """The source expression that allows ``text`` in a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _change(change: Mapping[str, Any]) -> str:
    """A changed decision of the plan as one line."""
    actions = ", ".join(change["actions"])
    object_ = f" → {change['what']}" if change["what"] else ""
    since = f", from {change['since']} on" if change["since"] else ""
    rule = f" (rule '{change['rule']}')" if change["rule"] else ""
    return f"{actions}: {change['who']}{object_}: {change['before']} → {change['after']}{since}{rule}"


def _is_certified(host: Mapping[str, Any]) -> bool:
    """Whether the host's certificate is of the generation in force."""
    return bool(host["certificate"] == f"of generation {host['generation']}")


def _urgency(host: Mapping[str, Any]) -> tuple[int, bool, int, str]:
    rank = _WORST_FIRST.index(host["state"])
    return min(rank, 2), not host["attention"], rank, host["name"]


def _summary(report: Mapping[str, Any]) -> list[_Figure]:
    hosts = report["hosts"]
    states = [
        _Figure(report["states"].get(state, 0), f"hosts {state.replace('no answer', 'without an answer')}", kind)
        for state, kind in _STATES.items()
    ]
    change = _Figure(sum(host["plan"] == "would change" for host in hosts), "would be changed by a run", "warn")
    return [
        *states,
        _Figure(sum(host["drift"] > 0 for host in hosts), "with drift", "bad"),
        _Figure(sum(host["unenforced"] > 0 for host in hosts), "cannot enforce a rule", "bad"),
        *([change] if report["plan"] else []),
        _Figure(sum(host["denied"] or 0 for host in hosts), "denied", "denied"),
        _Figure(sum(host["audited"] or 0 for host in hosts), "would be denied", "audit"),
        _Figure(sum(host["lost"] or 0 for host in hosts), "events lost", "bad"),
    ]


def _groups(report: Mapping[str, Any]) -> _Groups:
    groups = sorted(report["groups"], key=lambda group: (-group["hosts"], group["name"]))
    charted = groups[:_GROUPS_IN_CHART]
    chart = charts.by_name(
        "Hosts of each group by state; the table below has the figures",
        [group["name"] for group in charted],
        [(state, [group["states"][state] for group in charted]) for state in _STATES],
    )
    columns = {
        "With drift": ("drift", "bad"),
        "Cannot enforce a rule": ("unenforced", "bad"),
        **({"Would change": ("change", "warn")} if report["plan"] else {}),
        "Denied": ("denied", "denied"),
        "Would be denied": ("audited", "audit"),
    }
    rows = [
        _GroupRow(
            name=group["name"],
            hosts=group["hosts"],
            counts=[(group["states"][state], kind) for state, kind in _STATES.items()]
            + [(group[key], kind) for key, kind in columns.values()],
        )
        for group in groups
    ]
    return _Groups(
        chart=Markup(chart),
        key={state: "no-answer" if kind == "dim" else kind for state, kind in _STATES.items()},
        titles=[*(state.capitalize() for state in _STATES), *columns],
        rows=rows,
    )


def _timeline(timeline: Mapping[str, Any], events: int) -> _Timeline | None:
    """None: there are no events."""
    denied, audited, width = timeline["denied"], timeline["audit"], timeline["width"]
    if not denied:
        return None
    start, count = datetime.datetime.fromisoformat(timeline["start"]), len(denied)
    moments = [f"{start + datetime.timedelta(seconds=at * width):%Y-%m-%d %H:%M}" for at in range(count)]
    shown = moments
    if count > _ALL_MOMENTS_SHOWN:
        shown = [moments[at] for at in sorted({0, count // 4, count // 2, 3 * count // 4, count - 1})]
    label = (
        f"{events:,} events, one bar per {_duration(width)}: {sum(denied):,} denied, {sum(audited):,} would be denied."
    )
    series = [(word, timeline[verdict]) for verdict, word in _VERDICTS.items()]
    return _Timeline(
        label=label,
        chart=Markup(charts.over_time(label, moments, shown, series)),
        key={word: verdict for verdict, word in _VERDICTS.items()},
        rows=[row for row in zip(moments, denied, audited) if row[1] or row[2]],
    )


def _duration(seconds: int) -> str:
    for width, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds == width:
            return name
        if seconds % width == 0:
            return f"{seconds // width} {name}s"
    return f"{seconds} seconds"
