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
from typing import Any, Iterable, Sequence

from . import charts

STYLE = """
:root { color-scheme: light dark; --denied: #b3261e; --audit: #a15c00; --ok: #1b6e3c; }
:root { --line: #8886; --dim: #666; --none: #757575; }
* { print-color-adjust: exact; }
html { scroll-padding-top: 7rem; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 90rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: .8rem 0 .3rem; }
nav { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: .4rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top; }
th, td { overflow-wrap: break-word; } td.state { white-space: nowrap; }
td.long { overflow-wrap: anywhere; min-width: 14rem; }
td.number, th.number { text-align: right; } td.number { white-space: nowrap; }
.scroll { overflow-x: auto; }
.denied, .bad { color: var(--denied); } .audit, .warn { color: var(--audit); }
.ok { color: var(--ok); } .dim { color: var(--dim); font-weight: normal; }
:focus-visible { outline: 3px solid #1a73e8; outline-offset: 2px; }
form { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: .6rem 0; padding: .6rem 0; }
form { position: sticky; top: 0; background: Canvas; border-bottom: 1px solid var(--line); }
form[hidden] { display: none; }
input, select, button { font: inherit; } input[type=search] { width: 18rem; max-width: 80vw; }
.tops { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1rem 2rem; }
.tops th { color: CanvasText; } .tops th:first-child { width: 99%; overflow-wrap: anywhere; }
.tops tbody th { font-weight: normal; }
meter { display: block; width: 100%; height: .6rem; }
meter::-webkit-meter-bar { background: none; border: 0; }
.denied meter::-webkit-meter-optimum-value { background: var(--denied); }
.audit meter::-webkit-meter-optimum-value { background: var(--audit); }
.states { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.8rem, 1fr)); gap: .6rem; }
.states { padding: 0; list-style: none; margin: .8rem 0; }
.states li { border: 1px solid var(--line); border-radius: .4rem; padding: .4rem .7rem; }
.states b { font-size: 1.5rem; line-height: 1.2; display: block; }
.states .long { font-size: 1.15rem; line-height: 1.57; }
svg { width: 100%; min-width: 44rem; height: auto; display: block; }
svg text { fill: CanvasText; font: 12px system-ui, sans-serif; }
svg .x text { text-anchor: middle; } svg .y text { text-anchor: end; }
svg path { fill: none; stroke: var(--line); } svg .guide { stroke-dasharray: 3 4; }
svg .denied rect, svg .not-guarded rect { fill: var(--denied); }
svg .would-be-denied rect, svg .reporting-only rect { fill: var(--audit); }
svg .enforcing rect { fill: var(--ok); } svg .no-answer rect { fill: var(--none); }
.key { margin: .2rem 0; }
.key i { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 .9rem; background: currentColor; }
.key i.no-answer { color: var(--none); }
ul.attention { margin: 0; padding-left: 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .82rem; margin: .3rem 0; }
summary { cursor: pointer; width: fit-content; }
@media (prefers-color-scheme: dark) {
  :root { --denied: #ff8a80; --audit: #ffb74d; --ok: #81c784; --dim: #a0a0a0; }
  :focus-visible { outline-color: #8ab4f8; }
}
@media print {
  :root { color-scheme: light; --denied: #b3261e; --audit: #a15c00; --ok: #1b6e3c; --dim: #666; }
  form, nav { display: none; } body { max-width: none; padding: 0; font-size: 11px; }
  svg { min-width: 0; } .scroll { overflow: visible; }
  table { font-size: 9px; } th, td { padding: .1rem .25rem; } td.long { min-width: 0; }
  tr, svg, .states, .tops section { break-inside: avoid; } h2, h3 { break-after: avoid; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
}
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

_STATES = {"enforcing": "ok", "reporting only": "warn", "not guarded": "bad", "no answer": "dim"}
_WORST = ("not guarded", "no answer", "reporting only", "enforcing")  # first
_PLANS = {"would change": "warn", "in order": "ok", "failed": "bad"}
_VERDICTS = {"denied": "denied", "audit": "would be denied"}
_CHARTED = 15  # groups in a chart; the table has all of them
_ATTENTION = 5  # lines of a host
_CHANGES = 12  # of an entry of the plan


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


def page(found: dict[str, Any]) -> str:
    """``found``: what _report.report gives."""
    policy = f"default-src 'none'; style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'; base-uri 'none'; form-action 'none'"
    sections = [
        ("Groups", _groups(found)),
        ("Denials over time", _timeline(found["timeline"], found["told"])),
        ("Denied most", _tops(found["top"]["denied"], "denied")),
        ("Would be denied: what rules in audit mode let pass", _tops(found["top"]["audit"], "audit")),
        ("The plan: what a run would change", _plan(found["plan"])),
    ]
    lists = [("Hosts", _hosts(found)), ("Denials", _denials(found))]
    names = {title: f"s{at}" for at, (title, _) in enumerate(sections + lists)}
    body = [
        _tag(
            "h1",
            "exfil.guard: {0:,} hosts on {1} UTC".format(
                len(found["hosts"]), found["generated"][:16].replace("T", " ")
            ),
        ),
        _summary(found),
        _tag(
            "nav",
            [_tag("a", title.partition(":")[0], href="#" + name) for title, name in names.items()],
            aria_label="Sections",
        ),
        [[_tag("h2", title, id=names[title]), inside] for title, inside in sections],
        _form(found),
        [[_tag("h2", title, id=names[title]), inside] for title, inside in lists],
    ]
    head = [
        _Raw('<meta charset="utf-8">'),
        _Raw(f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'),
        _Raw('<meta name="viewport" content="width=device-width">'),
        _tag("title", "exfil.guard: the fleet"),
        _Raw(f"<style>{STYLE}</style>"),
    ]
    return (
        "<!DOCTYPE html>\n"
        + _tag("html", _tag("head", head), _tag("body", body, _Raw(f"<script>{SCRIPT}</script>")), lang="en")
        + "\n"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _summary(found: dict[str, Any]) -> _Raw:
    """What someone new sees first."""
    hosts = found["hosts"]
    told = [
        (found["states"].get(state, 0), "hosts {0}".format(state.replace("no answer", "without an answer")), kind)
        for state, kind in _STATES.items()
    ]
    told += [
        (sum(host["drift"] > 0 for host in hosts), "with drift", "bad"),
        (sum(host["unenforced"] > 0 for host in hosts), "can't enforce a rule", "bad"),
        *(
            [(sum(host["plan"] == "would change" for host in hosts), "would change by a run", "warn")]
            if found["plan"]
            else []
        ),
        (sum(host["denied"] or 0 for host in hosts), "denied", "denied"),
        (sum(host["audited"] or 0 for host in hosts), "would be denied", "audit"),
        (sum(host["lost"] or 0 for host in hosts), "events lost", "bad"),
    ]
    return _tag(
        "ul",
        [
            _tag(
                "li", _tag("b", _number(count), class_=(kind if count else "dim") + " long" * (count > 999_999)), words
            )
            for count, words, kind in told
        ],
        class_="states",
    )


def _form(found: dict[str, Any]) -> _Raw:
    def choice(name: str, label: str, values: Iterable[str], words: dict[str, str] | None = None) -> _Raw:
        options = [_tag("option", (words or {}).get(value, value), value=value) for value in values]
        options.insert(0, _tag("option", "all", value=""))
        return _tag("label", label, " ", _tag("select", options, name=name))

    return _tag(
        "form",
        _tag("label", "Search ", _Raw('<input type="search" name="search">')),
        choice("group", "Group", [group["name"] for group in found["groups"]]),
        choice("state", "State", _STATES),
        choice("verdict", "Verdict", _VERDICTS, _VERDICTS),
        _tag("button", "Reset", type="reset"),
        hidden="hidden",
        aria_label="Filter hosts and denials",
    )


def _table(name: str, caption: str, heads: Sequence[str], numbers: Iterable[str], rows: list[_Raw]) -> list[_Raw]:
    numbers = set(numbers)
    head = _tag("tr", [_tag("th", each, scope="col", class_="number" if each in numbers else None) for each in heads])
    return [
        _tag("p", caption, " ", _tag("span", id=name + "-shown", class_="dim", role="status")),
        _scrolled(name, _tag("table", _tag("thead", head), _tag("tbody", rows), id=name, data_filter="yes")),
    ]


def _scrolled(name: str, table: str) -> _Raw:
    """On a narrow screen, by pointer and by keyboard."""
    return _tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=name)


def _hosts(found: dict[str, Any]) -> list[_Raw]:
    heads = ("Host", "State", "Attention", "Generation", "Certificate", "Drift", "Not enforced", "Plan", "Kernel",
             "Denied", "Would be denied", "Lost", "Audit trail")  # fmt: skip
    numbers = ("Drift", "Not enforced", "Denied", "Would be denied", "Lost")
    rows = []
    for host in sorted(found["hosts"], key=_urgency):
        attention = [_tag("li", line) for line in host["attention"][:_ATTENTION]]
        if host["attention"][_ATTENTION:]:
            attention.append(_tag("li", "and {0} more".format(len(host["attention"][_ATTENTION:]))))
        revision = (host["revision"] or "")[:12]
        right = host["certificate"].split() == ["of", "generation", str(host["generation"])]
        answered = host["state"] != "no answer"
        rows.append(
            _tag(
                "tr",
                _tag("th", host["name"], _tag("div", ", ".join(host["groups"]), class_="dim"), scope="row"),
                _tag("td", host["state"], class_="state " + _STATES[host["state"]]),
                _tag("td", _tag("ul", attention, class_="attention") if attention else None, class_="long"),
                _tag("td", host["generation"] or "none", _tag("div", revision, class_="dim") if revision else None),
                _tag("td", host["certificate"], class_="ok" if right else "warn"),
                [_tag("td", host[key] if answered else "", class_="number bad" if host[key] else "number dim")
                 for key in ("drift", "unenforced")],
                _tag("td", host["plan"] or "", class_="state " + _PLANS.get(host["plan"], "dim")),
                _tag("td", host["kernel"]),
                [_tag("td", _number(host[key]), class_="number") for key in ("denied", "audited", "lost")],
                _tag("td", host["collector"], class_="ok" if host["collector"] == "running" else "dim"),
                data_groups=" ".join(host["groups"]),
                data_state=host["state"],
            )
        )  # fmt: skip
    return _table("hosts", f"{len(rows):,} hosts, those in need first.", heads, numbers, rows)


def _urgency(host: dict[str, Any]) -> Any:
    rank = _WORST.index(host["state"])
    return min(rank, 2), not host["attention"], rank, host["name"]


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _denials(found: dict[str, Any]) -> list[_Raw]:
    groups = {host["name"]: host for host in found["hosts"]}
    rows = [
        _tag(
            "tr",
            _tag("td", _number(row["count"]), class_="number"),
            _tag("td", _VERDICTS[row["verdict"]], class_=row["verdict"]),
            _tag("td", row["host"]),
            _tag("td", row["action"], " ", row["object"], class_="long"),
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
                class_="long",
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
        caption += " These are the {0:,} most frequent; {1:,} more are counted above.".format(
            len(rows), found["rows_left_out"]
        )
    return _table(
        "denials", caption, ("Times", "Verdict", "Host", "What", "By whom", "Rule", "Last (UTC)"), ("Times",), rows
    )


# ---- figures --------------------------------------------------------------------------------------------------------


def _key(names: dict[str, str]) -> _Raw:
    """Of a chart's colours; ``names``: each with its class."""
    return _tag("p", [[_tag("i", class_=kind, aria_hidden="true"), name] for name, kind in names.items()], class_="key")


def _groups(found: dict[str, Any]) -> Any:
    groups = sorted(found["groups"], key=lambda group: (-group["hosts"], group["name"]))
    if not groups:
        return _tag("p", "No host is in a group.", class_="dim")
    charted = groups[:_CHARTED]
    chart = charts.by_name(
        "Hosts of each group by state; the table below has the figures",
        [group["name"] for group in charted],
        [(state, [group["states"][state] for group in charted]) for state in _STATES],
    )
    columns: list[Any] = [
        (state, lambda group, state=state: group["states"][state], kind) for state, kind in _STATES.items()
    ]
    columns += [
        ("With drift", lambda group: group["drift"], "bad"),
        ("Can't enforce a rule", lambda group: group["unenforced"], "bad"),
        *([("Would change", lambda group: group["change"], "warn")] if found["plan"] else []),
        ("Denied", lambda group: group["denied"], "denied"),
        ("Would be denied", lambda group: group["audited"], "audit"),
    ]
    heads = [_tag("th", each, scope="col", class_="number" if at else None) for at, each in enumerate(
        ["Group", "Hosts"] + [title[0].upper() + title[1:] for title, _, _ in columns])]  # fmt: skip
    rows = [
        _tag(
            "tr",
            _tag("th", group["name"], scope="row"),
            _tag("td", _number(group["hosts"]), class_="number"),
            [
                _tag("td", _number(value(group)), class_="number " + (kind if value(group) else "dim"))
                for _, value, kind in columns
            ],
        )
        for group in groups
    ]
    table = _tag("table", _tag("thead", _tag("tr", heads)), _tag("tbody", rows))
    return [
        _scrolled("groups, chart", _Raw(chart)),
        _key({state: "no-answer" if kind == "dim" else kind for state, kind in _STATES.items()}),
        _scrolled("groups", table),
    ]


def _timeline(found: dict[str, Any], told: int) -> Any:
    if not found["denied"]:
        return _tag("p", "Nothing was told. Role exfil.guard.audit keeps the trail that this is made of.", class_="dim")
    start, count = datetime.datetime.fromisoformat(found["start"]), len(found["denied"])
    moments = [
        "{0:%Y-%m-%d %H:%M}".format(start + datetime.timedelta(seconds=at * found["width"])) for at in range(count)
    ]
    shown = (
        [moments[at] for at in sorted({0, count // 4, count // 2, 3 * count // 4, count - 1})] if count > 8 else moments
    )
    label = "{0:,} events were told, one bar for {1}: {2:,} denied, {3:,} would be denied.".format(
        told, _span(found["width"]), sum(found["denied"]), sum(found["audit"])
    )
    series = [(word, found[verdict]) for verdict, word in _VERDICTS.items()]
    rows = [
        _tag(
            "tr",
            _tag("th", moment, scope="row"),
            [_tag("td", _number(found[verdict][at]), class_="number") for verdict in _VERDICTS],
        )
        for at, moment in enumerate(moments)
        if any(found[verdict][at] for verdict in _VERDICTS)
    ]
    heads = [_tag("th", "From (UTC)", scope="col"), _tag("th", "Denied", scope="col", class_="number"),
             _tag("th", "Would be denied", scope="col", class_="number")]  # fmt: skip
    return [
        _tag("p", label),
        _scrolled("denials over time", _Raw(charts.over_time(label, moments, shown, series))),
        _key({word: verdict for verdict, word in _VERDICTS.items()}),
        _tag(
            "details",
            _tag("summary", "The same as a table"),
            _tag("table", _tag("thead", _tag("tr", heads)), _tag("tbody", rows)),
        ),
    ]


def _span(seconds: int) -> str:
    for width, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds % width == 0:
            return "{0} {1}{2}".format(seconds // width, name, "" if seconds == width else "s")
    return f"{seconds} seconds"


def _tops(found: dict[str, list[dict[str, Any]]], verdict: str) -> _Raw:
    parts = [_top(title, found[title.lower()], verdict) for title in ("Rules", "Subjects", "Destinations", "Files")]
    if not any(found.values()):
        return _tag("p", "None was told.", class_="dim")
    return _tag("div", parts, class_="tops " + verdict)


def _top(title: str, found: list[dict[str, Any]], verdict: str) -> _Raw:
    if not found:
        return _tag("section", _tag("h3", title), _tag("p", "None.", class_="dim"))
    most = max(each["count"] for each in found)
    head = _tag(
        "tr", _tag("th", title, scope="col"), _tag("th", _VERDICTS[verdict].capitalize(), scope="col", class_="number")
    )
    rows = [
        _tag(
            "tr",
            _tag("th", each["name"], _tag("meter", value=each["count"], max=most, aria_hidden="true"), scope="row"),
            _tag("td", _number(each["count"]), class_="number"),
        )
        for each in found
    ]
    return _tag("section", _tag("table", _tag("thead", head), _tag("tbody", rows)))


def _plan(found: dict[str, Any] | None) -> Any:
    """Hosts on which a run would do the same are told as one."""
    if found is None:
        return _tag("p", "Nobody asked for it.", class_="dim")
    parts: list[Any] = [_tag("p", found["summary"], ".")]
    for entry in found["entries"]:
        if not entry["changed"] and not entry["error"]:
            continue
        title = "{0:,} host{1}: {2}{3}".format(
            len(entry["hosts"]), "" if len(entry["hosts"]) == 1 else "s", ", ".join(entry["hosts"][:3]),
            ", …" if entry["hosts"][3:] else "")  # fmt: skip
        changes = (entry["decisions"] or {}).get("changes") or ()
        kinds = {"weaker": "bad", "stricter": "ok"}
        inside = [_tag("li", _tag("b", each["direction"], class_=kinds[each["direction"]]), " ", _change(each))
                  for each in changes[:_CHANGES]]  # fmt: skip
        if changes[_CHANGES:]:
            inside.append(_tag("li", f"and {len(changes[_CHANGES:]):,} more decisions"))
        parts += [
            _tag("h3", title),
            _tag("p", entry["error"], class_="bad") if entry["error"] else None,
            _tag("ul", inside) if inside else None,
            _tag("details", _tag("summary", "What would be done"), _tag("pre", "\n".join(entry["lines"])))
            if entry["lines"]
            else None,
        ]
    return parts


def _change(found: dict[str, Any]) -> str:
    what = " → {0}".format(found["what"]) if found["what"] else ""
    since = ", from {0} on".format(found["since"]) if found["since"] else ""
    rule = " (rule '{0}')".format(found["rule"]) if found["rule"] else ""
    return "{0}: {1}{2}: {3} → {4}{5}{6}".format(
        ", ".join(found["actions"]), found["who"], what, found["before"], found["after"], since, rule)  # fmt: skip
