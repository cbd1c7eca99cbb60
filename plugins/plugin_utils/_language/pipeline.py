# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the templates of a host's groups to its policy document: render, validate, merge, assert, each in its own file.
Private to this collection."""

from __future__ import annotations

import datetime
import os
from typing import Any, Callable, Dict, Iterable, NamedTuple

from ansible_collections.exfil.guard.plugins.module_utils._guard import errors

from . import assertions, merge, render, schema
from . import document as _document
from .problems import FragmentErrors, Problem, did_you_mean

SUFFIX = ".yml.j2"


class Template(NamedTuple):
    file: str  # as in messages
    source: str
    problem: str = ""  # why it could not be read


def read(folder: str, path: str) -> Template:
    file = os.path.relpath(path, os.path.dirname(folder))
    try:
        with open(path, encoding="utf-8") as opened:
            return Template(file, opened.read())
    except UnicodeDecodeError as error:
        return Template(file, "", f"byte {error.start + 1} is not UTF-8. Save it as UTF-8")
    except OSError as error:
        return Template(file, "", f"it can't be read: {error.strerror}")


def find(folder: str, groups: Iterable[str], host: str) -> list[str]:
    """The template files of a host that are there: one for each of its groups, one of its own."""
    names = [group + SUFFIX for group in ["all", *groups]] + [os.path.join("hosts", host + SUFFIX)]
    paths = [os.path.join(folder, name) for name in dict.fromkeys(names)]
    return [path for path in paths if os.path.isfile(path)]


def stray(folder: str, groups: Iterable[str], hosts: Iterable[str]) -> list[str]:
    """A warning for each template that belongs to no group and no host: a misspelt name would guard nobody."""
    warnings = []
    for place, kind, names in ((folder, "group", set(groups)), (os.path.join(folder, "hosts"), "host", set(hosts))):
        for file in sorted(os.listdir(place)) if os.path.isdir(place) else ():
            name = file[: -len(SUFFIX)]
            if file.endswith(SUFFIX) and name not in names:
                where = os.path.relpath(os.path.join(place, file), os.path.dirname(folder))
                warnings.append(f"{where}: the inventory has no {kind} '{name}'. {did_you_mean(name, names)}".rstrip())
    return warnings


Once = Callable[[Any, Callable[[], Dict[str, Any]]], Dict[str, Any]]


def _each_time(_parts: Any, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return work()


def document(
    templates: Iterable[Template], renderer: Callable[[str], Any], today: datetime.date, once: Once = _each_time
) -> dict[str, Any]:
    """Raises FragmentErrors with every problem that can be told at once. ``once`` works out only once what hosts have
    in common whose templates render to the same text."""
    rendered, problems = [], []
    for template in templates:
        if template.problem:
            problems.append(Problem(template.file, None, "", template.problem))
            continue
        try:
            rendered.append((template.file, template.source, render.render(template.file, template.source, renderer)))
        except FragmentErrors as error:
            problems.extend(error.problems)
    if problems:
        return _document_of(rendered, problems, today)
    return once(["document", rendered, today.isoformat()], lambda: _document_of(rendered, [], today))


def _document_of(rendered: list[tuple[str, str, str]], problems: list[Problem], today: datetime.date) -> dict[str, Any]:
    """From what was rendered: file, template and text. ``problems``: those found before."""
    fragments, problems = [], list(problems)
    for file, source, text in rendered:
        try:
            fragment = render.read(file, source, text)
        except FragmentErrors as error:
            problems.extend(error.problems)
            continue
        found = schema.validate(fragment)
        problems.extend(found)
        if not found:
            fragments.append(fragment)
    merged, clashes = merge.merge(fragments)
    if problems:
        # names that a broken fragment would have defined are not reported as missing
        raise FragmentErrors(problems + [clash for clash in clashes if not clash.found.startswith("no set ")])
    if clashes:
        raise FragmentErrors(clashes)
    result = _document.finished(merged)
    try:
        assertions.check(result, fragments, today)
    except errors.PolicyErrors as error:
        files = ", ".join(fragment.file for fragment in fragments)
        raise FragmentErrors(
            Problem(files, None, each.where, each.found, each.expected, each.remedy) for each in error.problems
        ) from error
    return result
