# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a host's policy document from the templates of its groups: renders and validates each template, merges the
fragments and checks the assertions. Private to this collection."""

from __future__ import annotations

import datetime
import os
from typing import Any, Callable, Dict, Iterable, NamedTuple

from ansible_collections.exfil.guard.plugins.module_utils._guard import errors

from . import advice, assertions, merge, render, schema
from . import document as _document
from .problems import FragmentError, Problem, did_you_mean

SUFFIX = ".yml.j2"


class Template(NamedTuple):
    """A template file. ``file``: its name in messages."""

    file: str
    source: str
    problem: str = ""  # why it could not be read


def read(folder: str, path: str) -> Template:
    """The template at ``path``. Does not raise: an unreadable file is a template with a problem."""
    file = os.path.relpath(path, os.path.dirname(folder))
    try:
        with open(path, encoding="utf-8") as opened:
            return Template(file, opened.read())
    except UnicodeDecodeError as error:
        return Template(file, "", f"byte {error.start + 1} is not UTF-8. Save it as UTF-8")
    except OSError as error:
        return Template(file, "", f"cannot be read: {error.strerror}")


def find(folder: str, groups: Iterable[str], host: str) -> list[str]:
    """The existing template files of a host: one for each of its groups and one for the host."""
    names = [group + SUFFIX for group in ["all", *groups]] + [os.path.join("hosts", host + SUFFIX)]
    paths = [os.path.join(folder, name) for name in dict.fromkeys(names)]
    return [path for path in paths if os.path.isfile(path)]


def stray(folder: str, groups: Iterable[str], hosts: Iterable[str]) -> list[str]:
    """A warning for each template that belongs to no group or host, because a misspelt name has no effect."""
    warnings = []
    for place, kind, names in ((folder, "group", set(groups)), (os.path.join(folder, "hosts"), "host", set(hosts))):
        for file in sorted(os.listdir(place)) if os.path.isdir(place) else ():
            name = file[: -len(SUFFIX)]
            if file.endswith(SUFFIX) and name not in names:
                where = os.path.relpath(os.path.join(place, file), os.path.dirname(folder))
                warnings.append(f"{where}: the inventory has no {kind} '{name}'. {did_you_mean(name, names)}".rstrip())
    return warnings


Cache = Callable[[object, Callable[[], Dict[str, Any]]], Dict[str, Any]]


def _uncached(_key: object, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return compute()


class Checked(NamedTuple):
    """The document of one host, and the advice about it."""

    document: dict[str, Any]
    advice: list[Problem]


def document(
    templates: Iterable[Template], renderer: Callable[[str], Any], today: datetime.date, cached: Cache = _uncached
) -> dict[str, Any]:
    """The document of one host: see checked."""
    return checked(templates, renderer, today, cached).document


def checked(
    templates: Iterable[Template], renderer: Callable[[str], Any], today: datetime.date, cached: Cache = _uncached
) -> Checked:
    """The document of one host, and advice. ``cached``: shares results between hosts whose templates render to the same
    text. Raises FragmentError with all problems that can be found in one pass."""
    rendered, problems = [], []
    for template in templates:
        if template.problem:
            problems.append(Problem(template.file, None, "", template.problem))
            continue
        try:
            rendered.append((template.file, template.source, render.render(template.file, template.source, renderer)))
        except FragmentError as error:
            problems.extend(error.problems)
    if problems:
        result = _document_of(rendered, problems, today)
    else:
        result = cached(["document", rendered, today.isoformat()], lambda: _document_of(rendered, [], today))
    return Checked(result["document"], [Problem(*values) for values in result["advice"]])


def _document_of(rendered: list[tuple[str, str, str]], problems: list[Problem], today: datetime.date) -> dict[str, Any]:
    """The fields of Checked as JSON. ``rendered``: file, template source and rendered text of each template.
    ``problems``: found while rendering."""
    fragments, problems = [], list(problems)
    for file, source, text in rendered:
        try:
            fragment = render.read(file, source, text)
        except FragmentError as error:
            problems.extend(error.problems)
            continue
        violations = schema.validate(fragment)
        problems.extend(violations)
        if not violations:
            fragments.append(fragment)
    merged, conflicts = merge.merge(fragments)
    if problems:
        # an invalid fragment may define the sets that seem to be missing
        raise FragmentError(problems + [conflict for conflict in conflicts if not conflict.found.startswith("no set ")])
    if conflicts:
        raise FragmentError(conflicts)
    result = _document.finished(merged)
    try:
        assertions.check(result, fragments, today)
    except errors.PolicyErrors as error:
        files = ", ".join(fragment.file for fragment in fragments)
        raise FragmentError(
            Problem(files, None, problem.where, problem.found, problem.expected, problem.remedy)
            for problem in error.problems
        ) from error
    return {"document": result, "advice": [list(each) for each in advice.find(result, fragments, today)]}
