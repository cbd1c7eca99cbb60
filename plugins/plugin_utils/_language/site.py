# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the policy document of an inventory host from Ansible's variables. Private to this collection."""

from __future__ import annotations

import datetime
import os
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from . import document as _document
from . import once, pipeline

try:
    from ansible.template import trust_as_template as trust_as_template  # noqa: PLC0414 - exported
except ImportError:  # ansible-core before 2.19 renders every string

    def trust_as_template(value: str) -> str:
        return value


def today() -> datetime.date:
    """The current day in UTC, by which rules expire."""
    return datetime.datetime.now(datetime.timezone.utc).date()


def folder(loader: DataLoader, given: str | None, variables: dict[str, Any]) -> str:
    """The folder of the templates: ``given``, or by default `policies` beside the inventory."""
    if not given:
        inventory = variables.get("inventory_dir")
        if not inventory:
            raise AnsibleError("the inventory has no folder. Set `policies` to the folder of the policy templates")
        given = os.path.join(str(inventory), "policies")
    return os.path.normpath(str(loader.path_dwim(given)))


def searchpath(templates: str) -> list[str]:
    """Where `include` looks: the folder of the templates, then the fragments of this collection."""
    here = os.path.abspath(__file__)  # not resolved: the folder of links has `policies` as well
    return [templates, os.path.join(os.path.dirname(here), "..", "..", "..", "policies")]


def document(templar: Templar, templates: str, variables: dict[str, Any]) -> dict[str, Any]:
    """The document of the host with these variables: see checked."""
    return checked(templar, templates, variables).document


def checked(templar: Templar, templates: str, variables: dict[str, Any]) -> pipeline.Checked:
    """The document of the host with these variables, and the advice about it. ``templates``: the templates' folder.
    Raises FragmentError, and AnsibleError if the host has no template."""
    host = variables["inventory_hostname"]
    paths = pipeline.find(templates, variables.get("group_names", []), host)
    if not paths:
        raise AnsibleError(
            f"no policy template for {host} in {templates}: searched for all.yml.j2, a template for each of its groups "
            f"and hosts/{host}.yml.j2. Add one, or set `policies`"
        )
    renderer = templar.copy_with_new_env(searchpath=searchpath(templates), available_variables=variables)
    return pipeline.checked(
        [pipeline.read(templates, path) for path in paths],
        lambda source: _document.plain(renderer.template(trust_as_template(source), escape_backslashes=False)),
        today(),
        once.in_this_run,
    )


def stray(templates: str, variables: dict[str, Any]) -> list[str]:
    """Warnings about templates that belong to no group or host of the inventory."""
    groups = variables.get("groups", {})
    return pipeline.stray(templates, groups, groups.get("all", [variables["inventory_hostname"]]))
