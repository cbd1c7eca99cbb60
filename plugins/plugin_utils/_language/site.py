# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of the inventory and its policy document: the one way from Ansible's variables to it. Private to this
collection."""

from __future__ import annotations

import datetime
import os
from typing import Any

from ansible.errors import AnsibleError

from . import document as _document
from . import once, pipeline

try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19 every text was a template

    def trust_as_template(text):
        return text


def today() -> datetime.date:
    return datetime.datetime.now(datetime.timezone.utc).date()


def folder(loader, given: str | None, variables: dict[str, Any]) -> str:
    """Of the templates: the one that is given, or `policies` beside the inventory."""
    if not given:
        inventory = variables.get("inventory_dir")
        if not inventory:
            raise AnsibleError("the inventory has no folder. Set `policies` to the folder of the policy templates")
        given = os.path.join(str(inventory), "policies")
    return os.path.normpath(loader.path_dwim(given))


def document(templar, templates: str, variables: dict[str, Any]) -> dict[str, Any]:
    """The document of the host whose variables these are. ``templates``: the folder. Raises FragmentErrors, and
    AnsibleError when there is no template for it."""
    host = variables["inventory_hostname"]
    paths = pipeline.find(templates, variables.get("group_names", []), host)
    if not paths:
        raise AnsibleError(
            f"no policy template for {host} in {templates}: looked for all.yml.j2, one for each of its groups and "
            f"hosts/{host}.yml.j2. Add one, or set `policies`"
        )
    renderer = templar.copy_with_new_env(searchpath=[templates], available_variables=variables)
    return pipeline.document(
        [pipeline.read(templates, path) for path in paths],
        lambda source: _document.plain(renderer.template(trust_as_template(source), escape_backslashes=False)),
        today(),
        once.in_this_run,
    )


def stray(templates: str, variables: dict[str, Any]) -> list[str]:
    """Warnings of templates that belong to nobody in the inventory."""
    groups = variables.get("groups", {})
    return pipeline.stray(templates, groups, groups.get("all", [variables["inventory_hostname"]]))
