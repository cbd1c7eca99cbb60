#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads audit records from the journal of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit_info
short_description: Read a host's audit trail
version_added: 0.2.0
description:
  - Reads the records that C(exfil-guard-audit.service) has written to the journal, newest first. Role exfil.guard.audit
    installs this unit.
  - Reads only the journal entries of this unit.
options:
  limit:
    description: The maximum number of records. One record can stand for many equal events.
    type: int
    default: 1000
  since:
    description: Only records since this time, in a format of journalctl, such as V(-7d) or V(2026-11-01).
    type: str
    default: -7d
extends_documentation_fragment:
  - exfil.guard._attributes
  - exfil.guard._attributes.info
seealso:
  - module: exfil.guard.events_info
  - module: exfil.guard.status_info
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Read what was denied today
  exfil.guard.audit_info:
    since: today
  register: guard

- name: Show who was denied what, and how often
  ansible.builtin.debug:
    msg: "{{ item.count }} times {{ item.user | default(item.uid) }}: {{ item.action }} {{ item.object | default('') }}"
  loop: "{{ guard.records | selectattr('kind', 'equalto', 'decision') }}"
  loop_control:
    label: "{{ item.sequence }}"
"""

RETURN = r"""
records:
  description: The records, newest first. C(schemas/audit-record.schema.json) describes every key. A key whose value is
    unknown is absent.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: V(decision), V(lost) for lost events, or V(unreadable) for records with an unknown layout.
      type: str
    time:
      description: The time of the first event, in UTC.
      type: str
    count:
      description: The number of events that the record stands for.
      type: int
    verdict:
      description: V(denied), or V(audit) for an event that was reported and not denied.
      type: str
    rule:
      description: The rule that decided.
      type: str
    user:
      description: The user's name.
      type: str
    executable:
      description: The program.
      type: str
    action:
      description: The attempted action.
      type: str
    object:
      description: The object of the action, as readable text.
      type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.exfil.guard.plugins.module_utils._installed import LIBRARY, installed, load, run


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec={"limit": {"type": "int", "default": 1000}, "since": {"type": "str", "default": "-7d"}},
        supports_check_mode=True,
    )
    if installed() is None:
        module.fail_json(msg="the package is not installed. Run the role exfil.guard.enforcer")
    api = load(LIBRARY)

    def work() -> dict[str, Any]:
        records = api.this_host().audit_records(since=module.params["since"], limit=module.params["limit"])
        return {"changed": False, "records": records}

    run(module, api, work)


if __name__ == "__main__":
    main()
