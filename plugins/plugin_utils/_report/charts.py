# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Charts as inline SVG. pygal draws; what it adds for a page of its own (style, script, links) is not taken over, so
that the report's content security policy needs no exception. Pure. Private to this collection."""

from __future__ import annotations

import html
from typing import Any, Mapping, Sequence, Tuple

import pygal

# All that a chart is made of. An element or attribute that is not named here is left out.
_ELEMENTS = {"svg", "g", "rect", "path", "text"}
_ATTRIBUTES = {"viewBox", "class", "x", "y", "width", "height", "d", "transform"}
_DROPPED = {"background", "tooltip-overlay", "text-overlay", "overlay"}
_OPTIONS: Mapping[str, Any] = {
    "js": (), "css": (), "show_legend": False, "truncate_label": -1, "margin": 8, "margin_right": 60,
    "margin_left": 24,
    "print_zeroes": False, "no_prefix": True, "min_scale": 2, "max_scale": 5}  # fmt: skip

Series = Sequence[Tuple[str, Sequence[int]]]  # its kind, which is the class of its bars, and a value for each label


def over_time(name: str, moments: Sequence[str], shown: Sequence[str], series: Series) -> str:
    """Stacked bars, one for each of ``moments``; ``shown``: those that the axis tells."""
    chart = pygal.StackedBar(width=1200, height=230, spacing=4, **_OPTIONS)
    chart.x_labels, chart.x_labels_major, chart.show_minor_x_labels = list(moments), list(shown), False
    return _drawn(name, chart, moments, series)


def by_name(name: str, names: Sequence[str], series: Series) -> str:
    """Stacked bars that lie, the first of ``names`` on top."""
    chart = pygal.HorizontalStackedBar(width=1200, height=46 + 30 * len(names), spacing=4, **_OPTIONS)
    chart.x_labels = [each if len(each) <= 28 else each[:27] + "…" for each in reversed(names)]
    return _drawn(name, chart, list(reversed(names)), [(kind, list(reversed(values))) for kind, values in series])


def _drawn(name: str, chart: Any, labels: Sequence[str], series: Series) -> str:
    most = max((sum(at) for at in zip(*(values for _, values in series))), default=0)
    if most < 5:  # or the axis would have halves, told as whole numbers
        chart.y_labels = range(max(most, 1) + 1)
    chart.value_formatter = lambda value: f"{value:,.0f}"
    for kind, values in series:
        chart.add(kind, [{"value": value, "label": f"{label}: {value:,} {kind}"} if value else None
                         for label, value in zip(labels, values)])  # fmt: skip
    kinds = {f"color-{at}": kind.replace(" ", "-") for at, (kind, _) in enumerate(series)}
    return _markup(chart.render_tree(), kinds, f' role="img" aria-label="{html.escape(name)}"')


def _markup(node: Any, kinds: Mapping[str, str], more: str = "") -> str:
    element = node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""  # a comment's tag is a function
    classes = [kinds.get(each, each) for each in node.get("class", "").split()]
    if element not in _ELEMENTS or _DROPPED.intersection(classes):
        return ""
    if element == "rect" and not (float(node.get("width", 0)) > 0 and float(node.get("height", 0)) > 0):
        return ""  # of nothing
    told = "".join(
        ' {0}="{1}"'.format(key, html.escape(" ".join(classes) if key == "class" else value))
        for key, value in node.items()
        if key in _ATTRIBUTES
    )
    inside: list[str] = [html.escape(node.text or "")] if element == "text" else []
    for child in node:
        if child.get("class") == "label" and child.text:  # what a pointer over the bar is told
            inside.append(f"<title>{html.escape(child.text)}</title>")
        else:
            inside.append(_markup(child, kinds))
    return "<{0}{1}{2}>{3}</{0}>".format(element, told, more, "".join(inside))
