# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the templates of a host's groups to its policy document: render, validate, merge, assert, each in its own file.
Private to this collection."""

from __future__ import annotations

import datetime
import os
from typing import Any, Callable, Dict, Iterable, List, NamedTuple

from ansible_collections.exfil.guard.plugins.module_utils.guard import errors

from . import _assert, _document, _merge, _render, _schema
from ._problems import FragmentErrors, Problem


class Template(NamedTuple):
    file: str  # as in messages
    source: str


def find(folder: str, groups: Iterable[str], host: str) -> List[str]:
    """The template files of a host that are there: one for each of its groups, one of its own."""
    names = [f"{group}.yml.j2" for group in ["all", *groups]] + [os.path.join("hosts", f"{host}.yml.j2")]
    paths = [os.path.join(folder, name) for name in dict.fromkeys(names)]
    return [path for path in paths if os.path.isfile(path)]


def document(templates: Iterable[Template], renderer: Callable[[str], Any], today: datetime.date) -> Dict[str, Any]:
    """Raises FragmentErrors with every problem that can be told at once."""
    fragments, problems = [], []
    for template in templates:
        try:
            fragment = _render.fragment(template.file, template.source, renderer)
        except FragmentErrors as error:
            problems.extend(error.problems)
            continue
        found = _schema.validate(fragment)
        problems.extend(found)
        if not found:
            fragments.append(fragment)
    merged, clashes = _merge.merge(fragments)
    if problems:
        # names that a broken fragment would have defined are not reported as missing
        raise FragmentErrors(problems + [clash for clash in clashes if not clash.found.startswith("no set ")])
    if clashes:
        raise FragmentErrors(clashes)
    result = _document.finished(merged)
    try:
        failed = _assert.check(result, fragments, today)
    except errors.PolicyErrors as error:
        files = ", ".join(fragment.file for fragment in fragments)
        raise FragmentErrors(
            Problem(files, None, each.where, each.found, each.expected, each.remedy) for each in error.problems
        ) from error
    if failed:
        raise FragmentErrors(failed)
    return result
