# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws charts as inline SVG with pygal. Style, script and links of pygal are removed, so that the report's content
security policy needs no exception. Private to this collection."""

from __future__ import annotations

import html
from typing import Any, Mapping, Sequence, Tuple
from xml.etree.ElementTree import Element

import pygal

# Elements and attributes that a chart may have. All others are removed.
_ELEMENTS = {"svg", "g", "rect", "path", "text"}
_ATTRIBUTES = {"viewBox", "class", "x", "y", "width", "height", "d", "transform"}
_DROPPED = {"background", "tooltip-overlay", "text-overlay", "overlay"}
_OPTIONS: Mapping[str, Any] = {
    "js": (), "css": (), "show_legend": False, "truncate_label": -1, "margin": 8, "margin_right": 60,
    "margin_left": 24,
    "print_zeroes": False, "no_prefix": True, "min_scale": 2, "max_scale": 5}  # fmt: skip

Series = Sequence[Tuple[str, Sequence[int]]]  # the name, which is the class of the bars, and a value for each label


def over_time(name: str, moments: Sequence[str], shown: Sequence[str], series: Series) -> str:
    """Vertical stacked bars, one for each of ``moments``. ``shown``: the moments that label the axis."""
    chart = pygal.StackedBar(width=1200, height=230, spacing=4, **_OPTIONS)
    chart.x_labels, chart.x_labels_major, chart.show_minor_x_labels = list(moments), list(shown), False
    return _draw(name, chart, moments, series)


def by_name(name: str, names: Sequence[str], series: Series) -> str:
    """Horizontal stacked bars, the first of ``names`` on top."""
    chart = pygal.HorizontalStackedBar(width=1200, height=46 + 30 * len(names), spacing=4, **_OPTIONS)
    chart.x_labels = [text if len(text) <= 28 else text[:27] + "…" for text in reversed(names)]
    return _draw(name, chart, list(reversed(names)), [(kind, list(reversed(values))) for kind, values in series])


def _draw(name: str, chart: pygal.graph.graph.Graph, labels: Sequence[str], series: Series) -> str:
    most = max((sum(at) for at in zip(*(values for _unused, values in series))), default=0)
    if most < 5:  # otherwise pygal labels the axis with rounded halves
        chart.y_labels = range(max(most, 1) + 1)
    chart.value_formatter = lambda value: f"{value:,.0f}"
    for kind, values in series:
        chart.add(kind, [{"value": value, "label": f"{label}: {value:,} {kind}"} if value else None
                         for label, value in zip(labels, values)])  # fmt: skip
    kinds = {f"color-{at}": kind.replace(" ", "-") for at, (kind, _unused) in enumerate(series)}
    return _markup(chart.render_tree(), kinds, f' role="img" aria-label="{html.escape(name)}"')


def _markup(node: Element, kinds: Mapping[str, str], more: str = "") -> str:
    element = node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""  # the tag of a comment is a function
    classes = [kinds.get(class_, class_) for class_ in node.get("class", "").split()]
    if element not in _ELEMENTS or _DROPPED.intersection(classes):
        return ""
    if element == "rect" and not (float(node.get("width", 0)) > 0 and float(node.get("height", 0)) > 0):
        return ""  # an empty bar
    attributes = "".join(
        f' {key}="{html.escape(" ".join(classes) if key == "class" else value)}"'
        for key, value in node.items()
        if key in _ATTRIBUTES
    )
    inside: list[str] = [html.escape(node.text or "")] if element == "text" else []
    for child in node:
        if child.get("class") == "label" and child.text:  # the bar's tooltip
            inside.append(f"<title>{html.escape(child.text)}</title>")
        else:
            inside.append(_markup(child, kinds))
    return f"<{element}{attributes}{more}>{''.join(inside)}</{element}>"
