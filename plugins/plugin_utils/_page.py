# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one HTML page. It needs no network and may use none: its own style and script are named by their
digests, everything else is refused. Without the script all of it can be read; the script filters. Pure. Private to this
collection."""

from __future__ import annotations

import base64
import datetime
import hashlib
import html
from typing import Any, Dict, Iterable, List, Optional, Sequence

STYLE = """
:root { color-scheme: light dark; --denied: #b3261e; --audit: #b26a00; --ok: #1b6e3c; --line: #8886; --dim: #767676; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 84rem; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; margin: .5rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top; }
th, td { overflow-wrap: anywhere; }
td.number, th.number { text-align: right; white-space: nowrap; overflow-wrap: normal; }
.denied, .bad { color: var(--denied); } .audit, .warn { color: var(--audit); }
.ok { color: var(--ok); } .dim { color: var(--dim); }
form { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: 1rem 0; padding: .5rem 0; }
form { position: sticky; top: 0; background: Canvas; } form[hidden] { display: none; }
input, select { font: inherit; } input[type=search] { min-width: 18rem; }
.tops { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1rem 2rem; }
svg { width: 100%; height: auto; display: block; } section svg { height: 6px; }
svg .denied { fill: var(--denied); } svg .audit { fill: var(--audit); }
svg text { fill: CanvasText; font: 11px system-ui, sans-serif; } svg line { stroke: var(--line); }
.states { display: flex; gap: 2rem; flex-wrap: wrap; padding: 0; list-style: none; }
.states b { font-size: 1.6rem; display: block; }
ul.attention { margin: 0; padding-left: 1rem; }
@media (prefers-color-scheme: dark) { :root { --denied: #ff8a80; --audit: #ffb74d; --ok: #81c784; --dim: #9e9e9e; } }
@media print { form { display: none; } body { max-width: none; } tr { break-inside: avoid; } }
"""

SCRIPT = """
"use strict";
(function () {
  const form = document.querySelector("form");
  const tables = Array.from(document.querySelectorAll("table[data-filter]"));
  const rows = tables.map(table => Array.from(table.tBodies[0].rows).map(row => ({
    row: row, text: row.textContent.toLowerCase(), groups: (row.dataset.groups || "").split(" "),
    state: row.dataset.state || "", verdict: row.dataset.verdict || ""})));
  function apply() {
    const words = form.search.value.toLowerCase().split(/\\s+/).filter(Boolean);
    const group = form.group.value, state = form.state.value, verdict = form.verdict.value;
    tables.forEach(function (table, i) {
      let shown = 0;
      for (const each of rows[i]) {
        const match = words.every(word => each.text.includes(word)) && (!group || each.groups.includes(group)) &&
          (!state || each.state === state) && (!verdict || !each.verdict || each.verdict === verdict);
        each.row.hidden = !match;
        shown += match;
      }
      document.getElementById(table.id + "-shown").textContent = shown + " of " + rows[i].length + " shown";
    });
  }
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  apply();
})();
"""

_STATES = {"enforcing": "ok", "reporting only": "warn", "not guarded": "bad", "no answer": "bad"}
_ATTENTION = 5  # lines of a host


class _Raw(str):
    """Is HTML already."""


def _tag(element: str, *inside: Any, **attributes: Any) -> _Raw:
    """Everything that is not made here is escaped here, and nowhere else."""
    told = "".join(
        ' {0}="{1}"'.format(key.rstrip("_").replace("_", "-"), html.escape(str(value)))
        for key, value in attributes.items()
        if value is not None
    )
    return _Raw("<{0}{1}>{2}</{0}>".format(element, told, "".join(map(_text, inside))))


def _text(value: Any) -> str:
    if isinstance(value, _Raw):
        return value
    if isinstance(value, (list, tuple)):
        return "".join(map(_text, value))
    return "" if value is None else html.escape(str(value))


def page(found: Dict[str, Any]) -> str:
    """``found``: what _report.report gives."""
    policy = "default-src 'none'; style-src '{0}'; script-src '{1}'; base-uri 'none'; form-action 'none'".format(
        _digest(STYLE), _digest(SCRIPT)
    )
    body = [
        _tag("h1", "exfil.guard: the fleet on ", found["generated"][:16].replace("T", " "), " UTC"),
        _tag(
            "ul",
            [
                _tag("li", _tag("b", found["states"].get(state, 0), class_=kind), state)
                for state, kind in _STATES.items()
            ],
            class_="states",
        ),
        _form(found),
        _tag("h2", "Hosts"),
        _hosts(found),
        _tag("h2", "Denials over time"),
        _timeline(found["timeline"], found["told"]),
        _tag("h2", "What is denied most"),
        _tag(
            "div",
            [
                _top(title, found["top"][key])
                for title, key in (
                    ("Rules", "rules"),
                    ("Subjects", "subjects"),
                    ("Destinations", "destinations"),
                    ("Files", "files"),
                )
            ],
            class_="tops",
        ),
        _tag("h2", "Denials"),
        _denials(found),
    ]
    head = [
        _Raw('<meta charset="utf-8">'),
        _Raw('<meta http-equiv="Content-Security-Policy" content="{0}">'.format(html.escape(policy))),
        _Raw('<meta name="viewport" content="width=device-width">'),
        _tag("title", "exfil.guard: the fleet"),
        _Raw("<style>{0}</style>".format(STYLE)),
    ]
    return (
        "<!DOCTYPE html>\n"
        + _tag("html", _tag("head", head), _tag("body", body, _Raw("<script>{0}</script>".format(SCRIPT))), lang="en")
        + "\n"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _form(found: Dict[str, Any]) -> _Raw:
    def choice(name: str, label: str, values: Iterable[str]) -> _Raw:
        options = [_tag("option", "all", value="")] + [_tag("option", value, value=value) for value in values]
        return _tag("label", label, " ", _tag("select", options, name=name))

    return _tag(
        "form",
        _tag("label", "Search ", _Raw('<input type="search" name="search">')),
        choice("group", "Group", found["groups"]),
        choice("state", "State", _STATES),
        choice("verdict", "Verdict", ("denied", "audit")),
        _tag("button", "Reset", type="reset"),
        hidden="hidden",
    )


def _table(name: str, caption: str, heads: Sequence[str], numbers: Iterable[str], rows: List[_Raw]) -> List[_Raw]:
    numbers = set(numbers)
    head = _tag("tr", [_tag("th", each, scope="col", class_="number" if each in numbers else None) for each in heads])
    return [
        _tag("p", caption, " ", _tag("span", id=name + "-shown", class_="dim", role="status")),
        _tag("table", _tag("thead", head), _tag("tbody", rows), id=name, data_filter="yes"),
    ]


def _hosts(found: Dict[str, Any]) -> List[_Raw]:
    heads = (
        "Host",
        "State",
        "Generation",
        "Certificate",
        "Kernel",
        "Denied",
        "Reported",
        "Lost",
        "Audit trail",
        "Attention",
    )
    rows = []
    for host in found["hosts"]:
        attention = [_tag("li", line) for line in host["attention"][:_ATTENTION]]
        if host["attention"][_ATTENTION:]:
            attention.append(_tag("li", "and {0} more".format(len(host["attention"][_ATTENTION:]))))
        revision = (host["revision"] or "")[:12]
        rows.append(
            _tag(
                "tr",
                _tag("th", host["name"], _tag("div", ", ".join(host["groups"]), class_="dim"), scope="row"),
                _tag("td", host["state"], class_=_STATES[host["state"]]),
                _tag("td", host["generation"] or "none", _tag("div", revision, class_="dim") if revision else None),
                _tag(
                    "td",
                    host["certificate"],
                    class_="ok"
                    if host["certificate"].split() == ["of", "generation", str(host["generation"])]
                    else "warn",
                ),
                _tag("td", host["kernel"]),
                [_tag("td", _number(host[key]), class_="number") for key in ("denied", "audited", "lost")],
                _tag("td", host["collector"]),
                _tag("td", _tag("ul", attention, class_="attention") if attention else None),
                data_groups=" ".join(host["groups"]),
                data_state=host["state"],
            )
        )
    return _table("hosts", "{0} hosts.".format(len(rows)), heads, ("Denied", "Reported", "Lost"), rows)


def _number(value: Optional[int]) -> str:
    return "" if value is None else "{0:,}".format(value)


def _denials(found: Dict[str, Any]) -> List[_Raw]:
    groups = {host["name"]: host for host in found["hosts"]}
    rows = [
        _tag(
            "tr",
            _tag("td", _number(row["count"]), class_="number"),
            _tag("td", row["verdict"], class_=row["verdict"]),
            _tag("td", row["host"]),
            _tag("td", row["action"], " ", row["object"]),
            _tag(
                "td",
                row["subject"],
                _tag(
                    "div",
                    " ".join(
                        each for each in ("login {0}".format(row["login"]) if row["login"] else "", row["unit"]) if each
                    ),
                    class_="dim",
                ),
            ),
            _tag("td", row["rule"]),
            _tag("td", row["last"][:19].replace("T", " ")),
            data_groups=" ".join(groups[row["host"]]["groups"]),
            data_state=groups[row["host"]]["state"],
            data_verdict=row["verdict"],
        )
        for row in found["rows"]
    ]
    caption = "The same attempt by the same subject is one line."
    if found["rows_left_out"]:
        caption += " The {0:,} most frequent; {1:,} lines are in the JSON file's sources only.".format(
            len(rows), found["rows_left_out"]
        )
    return _table(
        "denials", caption, ("Times", "Verdict", "Host", "What", "By whom", "Rule", "Last (UTC)"), ("Times",), rows
    )


# ---- charts -------------------------------------------------------------------------------------------------------


def _timeline(found: Dict[str, Any], told: int) -> Any:
    if not found["denied"]:
        return _tag("p", "Nothing was told. Role exfil.guard.audit keeps the trail that this is made of.", class_="dim")
    wide, high, left, bottom = 960, 180, 56, 22
    most = max(denied + audit for denied, audit in zip(found["denied"], found["audit"])) or 1
    step = (wide - left) / len(found["denied"])
    start = datetime.datetime.fromisoformat(found["start"])
    bars = []
    for at, (denied, audit) in enumerate(zip(found["denied"], found["audit"])):
        when = start + datetime.timedelta(seconds=at * found["width"])
        top = high - bottom
        for kind, count in (("denied", denied), ("audit", audit)):
            if count:
                size = max(1.0, count / most * (high - bottom - 14))
                top -= size
                bars.append(
                    _tag(
                        "rect",
                        _tag("title", "{0:%Y-%m-%d %H:%M}: {1:,} {2}".format(when, count, kind)),
                        class_=kind,
                        x=round(left + at * step, 2),
                        y=round(top, 2),
                        width=round(max(step - 1, 0.8), 2),
                        height=round(size, 2),
                    )
                )
    axis = [
        _tag("line", x1=left, x2=wide, y1=high - bottom, y2=high - bottom),
        _tag("text", "{0:,}".format(most), x=left - 6, y=22, text_anchor="end"),
        _tag("text", "0", x=left - 6, y=high - bottom, text_anchor="end"),
    ]
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        when = start + datetime.timedelta(seconds=share * found["width"] * len(found["denied"]))
        axis.append(
            _tag(
                "text",
                "{0:%Y-%m-%d %H:%M}".format(when),
                x=left + share * (wide - left),
                y=high - 5,
                text_anchor=anchor,
            )
        )
    label = "{0:,} events were told, {1} at a time: denied {2:,}, reported {3:,}".format(
        told, _span(found["width"]), sum(found["denied"]), sum(found["audit"])
    )
    return [
        _tag("p", label, "."),
        _tag("svg", axis, bars, viewBox="0 0 {0} {1}".format(wide, high), role="img", aria_label=label),
    ]


def _span(seconds: int) -> str:
    for width, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds % width == 0:
            return "{0} {1}{2}".format(seconds // width, name, "" if seconds == width else "s")
    return "{0} seconds".format(seconds)


def _top(title: str, found: List[Dict[str, Any]]) -> _Raw:
    most = max((each["denied"] + each["audit"] for each in found), default=1)
    rows = []
    for each in found:
        denied, audit = (round(100 * each[kind] / most, 2) for kind in ("denied", "audit"))
        bar = _tag(
            "svg",
            _tag("rect", class_="denied", x=0, y=0, width=denied, height=6),
            _tag("rect", class_="audit", x=denied, y=0, width=audit, height=6),
            viewBox="0 0 100 6",
            preserveAspectRatio="none",
            aria_hidden="true",
        )
        rows.append(
            _tag(
                "tr",
                _tag("th", each["name"], bar, scope="row"),
                _tag("td", _number(each["denied"]), class_="number denied"),
                _tag("td", _number(each["audit"]), class_="number audit"),
            )
        )
    head = _tag(
        "tr",
        _tag("th", title, scope="col"),
        _tag("th", "Denied", scope="col", class_="number"),
        _tag("th", "Reported", scope="col", class_="number"),
    )
    return _tag(
        "section",
        _tag("table", _tag("thead", head), _tag("tbody", rows))
        if rows
        else [_tag("h3", title), _tag("p", "None.", class_="dim")],
    )
