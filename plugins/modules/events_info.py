#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the events that wait in the kernel of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: events_info
short_description: Read the denials and audit events of a host
version_added: 0.1.0
description:
  - Reads the events in the kernel's ring buffer, oldest first. Does not remove them from the buffer.
  - If role exfil.guard.audit collects events into the journal, the buffer has only events that are not yet collected.
  - If the buffer is full, new events are lost. The counters in M(exfil.guard.status_info) include lost events.
options:
  limit:
    description: The maximum number of events.
    type: int
    default: 1000
extends_documentation_fragment:
  - exfil.guard._attributes
  - exfil.guard._attributes.info
seealso:
  - module: exfil.guard.status_info
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Read the events
  exfil.guard.events_info:
    limit: 100
  register: guard

- name: Show who was denied what
  ansible.builtin.debug:
    msg: "{{ item.user }}: {{ item.action }} {{ item.path | default(item.address | default('')) }} by {{ item.rule }}"
  loop: "{{ guard.events }}"
  loop_control:
    label: "{{ item.sequence }}"
"""

RETURN = r"""
events:
  description: The events, oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    sequence:
      description: The event's number on this host. A gap in the numbers means lost events.
      type: int
    time:
      description: The time of the event, in UTC.
      type: str
    verdict:
      description:
        - V(denied), or V(audit) for an event that was reported and not denied. V(unreadable) for a record with an
          unknown layout, which has only RV(ignore:size).
      type: str
    action:
      description: The attempted action.
      type: str
    rule:
      description: The rule that denied or reported the action.
      type: str
    reason:
      description: V(rule), or why the action was denied without a decision.
      type: str
    user:
      description: The user's name, V(null) if the host has no name for O(ignore:uid).
      type: str
    uid:
      description: The user's ID.
      type: int
    pid:
      description: The process ID.
      type: int
    executable:
      description: The path of the process's program.
      type: str
    unit:
      description: The systemd unit of the process.
      type: str
    path:
      description: The file, for actions on files. An action without an object has neither path nor address.
      type: str
    address:
      description: The peer's address, for actions on the network.
      type: str
    port:
      description: The peer's port, for actions on the network.
      type: int
    protocol:
      description: The protocol, for actions on the network.
      type: str
    generation:
      description: The generation of the policy that decided.
      type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.exfil.guard.plugins.module_utils._installed import LIBRARY, installed, load, run


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(argument_spec={"limit": {"type": "int", "default": 1000}}, supports_check_mode=True)
    if installed() is None:
        module.fail_json(msg="the package is not installed. Run the role exfil.guard.enforcer")
    api = load(LIBRARY)

    def work() -> dict[str, Any]:
        events = api.this_host().events(limit=module.params["limit"])
        return {"changed": False, "events": [event.to_json() for event in events]}

    run(module, api, work)


if __name__ == "__main__":
    main()
