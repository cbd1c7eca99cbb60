#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what is in force on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status_info
short_description: Read the status of a host's enforcer and policy
version_added: 0.1.0
description:
  - Reads from the kernel which policy is in force, how often its rules have denied, and how the kernel differs from
    the stored document.
  - C(exfil-guard status --json) prints the same on the host.
extends_documentation_fragment:
  - exfil.guard._attributes
  - exfil.guard._attributes.info
seealso:
  - module: exfil.guard.events_info
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Read the status
  exfil.guard.status_info:
  register: guard

- name: Fail if the host has drifted
  ansible.builtin.assert:
    that:
      - guard.status.in_force
      - guard.status.drift | length == 0
"""

RETURN = r"""
status:
  description: The status of the enforcer and of the policy in force.
  returned: success
  type: dict
  contains:
    installed:
      description: Whether the enforcer is loaded into the kernel. If not, most other keys are empty.
      type: bool
    running:
      description: Whether BPF is among the kernel's active security modules.
      type: bool
    enforcer:
      description: The release of the BPF object.
      type: str
    generation:
      description: The generation of the policy in force, V(0) for none.
      type: int
    in_force:
      description: Whether a policy is in force.
      type: bool
    mode:
      description: V(enforce) or V(audit).
      type: str
    revision:
      description: The commit of the policy's templates, if it was given.
      type: str
    soak:
      description: Whether new and changed rules are in audit mode, by O(exfil.guard.policy#module:soak).
      type: bool
    generations:
      description: The stored generations, oldest first. Each can be restored.
      type: list
      elements: dict
      contains:
        generation:
          description: The number of the generation.
          type: int
        revision:
          description: The commit of the policy's templates, if it was given.
          type: str
        digest:
          description: SHA-256 of the document.
          type: str
        applied_at:
          description: When the generation was applied, in UTC.
          type: str
        confirmed:
          description: Whether the generation was confirmed.
          type: bool
        soak:
          description: Whether the generation was applied with O(exfil.guard.policy#module:soak).
          type: bool
    pull:
      description: The last pull of this host, V(null) if it does not pull. See role exfil.guard.pull.
      type: dict
      contains:
        outcome:
          description:
            - V(ok), V(unchanged), V(refused) for a commit without a signature by an allowed signer, V(unreachable) if
              the repository was not reached, V(failed), or V(running).
          type: str
        message:
          description: The result as text.
          type: str
        revision:
          description: The commit that was pulled.
          type: str
        started:
          description: The start of the pull, in UTC.
          type: str
        ended:
          description: The end of the pull, in UTC.
          type: str
    pending:
      description: Whether the policy is on trial and not confirmed.
      type: bool
    hooks:
      description: The attached kernel hooks.
      type: list
      elements: str
    rules:
      description: The rules in force.
      type: list
      elements: dict
      contains:
        name:
          description: The name of the rule.
          type: str
        denied:
          description: The number of denials.
          type: int
        audited:
          description: The number of events that were reported and not denied.
          type: int
        counted:
          description: Whether the kernel has counters for the rule.
          type: bool
        audit:
          description: Whether the rule is in audit mode, by its own mode or the policy's.
          type: bool
        enforced:
          description: Whether this host enforces all actions of the rule, or could, if the rule is in audit mode.
          type: bool
        actions:
          description: The actions of the rule, with the missing programs.
          type: list
          elements: dict
          contains:
            action:
              description: The action.
              type: str
            enforced:
              description: Whether all programs that decide this action are attached.
              type: bool
            lacking:
              description: The missing programs, each with the reason (V(not loaded) or V(not attached)).
              type: dict
    unenforced:
      description: A line for each rule with actions that this host does not enforce, with the reason.
      type: list
      elements: str
    labels:
      description: The labels, which are the resource sets that rules name under C(has_read), with their carriers.
      type: list
      elements: dict
      contains:
        name:
          description: The set of resources.
          type: str
        tasks:
          description: The number of tasks with this label.
          type: int
        channels:
          description: The number of labelled pipes, sockets and message queues. Files are not counted.
          type: int
    totals:
      description: The numbers of denials, audit events, written events and lost events.
      type: dict
    events:
      description: What became of the events of all decisions. The numbers are exact if no decision is in progress.
      type: dict
      contains:
        decided:
          description: Decisions with the outcome deny or audit.
          type: int
        written:
          description: Events that the kernel wrote.
          type: int
        lost:
          description: Events that were lost because the buffer was full. V(written) and V(lost) add up to V(decided).
          type: int
        unaccounted:
          description: The rest of V(decided), which are events that are being written.
          type: int
        waiting:
          description: Written events that are not yet collected.
          type: int
    audit:
      description: The state of the audit collector of role exfil.guard.audit, V(null) if it is not installed.
      type: dict
      contains:
        running:
          description: Whether the collector's unit is running.
          type: bool
        collected:
          description: The number of collected events.
          type: int
        lines:
          description: The number of records made from them.
          type: int
        held:
          description: Aggregated events that are not yet written as a record.
          type: int
        missing:
          description: Events whose sequence numbers are missing. They were lost or read by another process.
          type: int
        unreadable:
          description: The number of events with an unknown layout.
          type: int
        undelivered:
          description: Records that are not yet written to the V(journal) or to the V(file).
          type: dict
        file_lost:
          description: Records that were dropped because too many were waiting for the file.
          type: int
        failing:
          description: Why the collector is stalled.
          type: list
          elements: str
    drift:
      description: Differences between the kernel and the stored document, a line for each.
      type: list
      elements: str
    hardlinks:
      description: Covered files that had a hard link outside of every rule's paths when the policy was applied.
      type: list
      elements: str
    paths:
      description: Paths of the policy that are missing or not followed, and filesystems covered without a mount.
      type: list
      elements: str
    problems:
      description: Reasons why this host is not protected.
      type: list
      elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.exfil.guard.plugins.module_utils._installed import LIBRARY, installed, load, run


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    if installed() is None:
        module.exit_json(
            changed=False,
            status={
                "installed": False,
                "running": None,
                "enforcer": None,
                "generation": 0,
                "in_force": False,
                "mode": None,
                "pending": False,
                "hooks": [],
                "rules": [],
                "totals": {},
                "drift": None,
                "hardlinks": [],
                "paths": [],
                "labels": [],
                "unenforced": [],
                "revision": None,
                "soak": False,
                "generations": [],
                "pull": None,
                "events": None,
                "audit": None,
                "problems": ["the package is not installed. Run the role exfil.guard.enforcer"],
            },
        )
    api = load(LIBRARY)

    def work() -> dict[str, Any]:
        return {"changed": False, "status": api.this_host().status()}

    run(module, api, work)


if __name__ == "__main__":
    main()
