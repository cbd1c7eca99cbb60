#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: status_info
short_description: Tell what is in force on a host
version_added: 0.1.0
description:
  - Reads from the kernel which policy is in force, what its rules have denied, and how it differs from the stored
    document.
  - The same as C(exfil-guard status --json) on the host.
extends_documentation_fragment:
  - exfil.guard._attributes
  - exfil.guard._attributes.info
seealso:
  - module: exfil.guard.events_info
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Look at what is in force
  exfil.guard.status_info:
  register: guard

- name: Stop when a host drifts
  ansible.builtin.assert:
    that:
      - guard.status.in_force
      - guard.status.drift | length == 0
"""

RETURN = r"""
status:
  description: What is in force.
  returned: success
  type: dict
  contains:
    installed:
      description: Whether the enforcer is in the kernel. Without it most other keys are empty.
      type: bool
    running:
      description: Whether BPF is among the kernel's active security modules.
      type: bool
    enforcer:
      description: Which release of the BPF object.
      type: str
    generation:
      description: The policy in force, V(0) for none.
      type: int
    in_force:
      description: Whether there is one.
      type: bool
    mode:
      description: V(enforce) or V(audit).
      type: str
    revision:
      description: The commit that it was made from, when that was told.
      type: str
    soak:
      description: Whether what is new in it only reports for now.
      type: bool
    generations:
      description: What is stored, oldest first. What to go back to.
      type: list
      elements: dict
      contains:
        generation:
          description: Its number.
          type: int
        revision:
          description: The commit that it was made from, when that was told.
          type: str
        digest:
          description: SHA-256 of the document.
          type: str
        applied_at:
          description: When it was applied, in UTC.
          type: str
        confirmed:
          description: Whether it was confirmed.
          type: bool
        soak:
          description: Whether it was a soak.
          type: bool
    pull:
      description: How the last pull of this host ended, V(null) when it does not pull. See role exfil.guard.pull.
      type: dict
      contains:
        outcome:
          description:
            - V(ok), V(unchanged), V(refused) for a commit that is not signed by who may sign, V(unreachable) for the
              repository, V(failed), or V(running).
          type: str
        message:
          description: What happened.
          type: str
        revision:
          description: The commit that it was about.
          type: str
        started:
          description: When, in UTC.
          type: str
        ended:
          description: When, in UTC.
          type: str
    pending:
      description: Whether it is on trial, waiting to be confirmed.
      type: bool
    hooks:
      description: The kernel's hooks that are attached.
      type: list
      elements: str
    rules:
      description: Each rule in force.
      type: list
      elements: dict
      contains:
        name:
          description: What the policy calls it.
          type: str
        denied:
          description: How often it denied.
          type: int
        audited:
          description: How often it reported only.
          type: int
        counted:
          description: Whether the kernel keeps counters for it.
          type: bool
        audit:
          description: Whether it only reports, by its own word or the policy's.
          type: bool
        enforced:
          description: Whether this host enforces all of its actions, or would, when the rule only reports.
          type: bool
        actions:
          description: Each of its actions, and what it lacks on this host.
          type: list
          elements: dict
          contains:
            action:
              description: The action.
              type: str
            enforced:
              description: Whether each program that decides it runs here.
              type: bool
            lacking:
              description: The programs that are not there, each with why (V(not loaded) or V(not attached)).
              type: dict
    unenforced:
      description: A line for each rule of which this host does not enforce every action, with the reason.
      type: list
      elements: str
    labels:
      description: Each name that a rule has under C(has_read), and how many carry that label now.
      type: list
      elements: dict
      contains:
        name:
          description: The set of resources.
          type: str
        tasks:
          description: Tasks that count as having read something of it.
          type: int
        channels:
          description: Pipes, sockets and message queues that such a task has written to. Files are not counted.
          type: int
    totals:
      description: Counts of denials, reports, events written and events lost.
      type: dict
    events:
      description: Where the event of each decision is. Exact when nothing is being decided.
      type: dict
      contains:
        decided:
          description: Decisions that were denied or reported.
          type: int
        written:
          description: Events that the kernel wrote.
          type: int
        lost:
          description: Events for which its buffer had no room. V(written) and V(lost) add up to V(decided).
          type: int
        unaccounted:
          description: What is left of V(decided), events under way.
          type: int
        waiting:
          description: Events that were written and not taken yet.
          type: int
    audit:
      description: How the audit trail of role exfil.guard.audit stands, V(null) where there is none.
      type: dict
      contains:
        running:
          description: Whether its unit takes events.
          type: bool
        collected:
          description: Events that it took.
          type: int
        lines:
          description: Lines that it made of them.
          type: int
        held:
          description: Events that are folded and still to be told.
          type: int
        missing:
          description: Events that by their numbers were lost, or taken by somebody else.
          type: int
        unreadable:
          description: Records of another layout.
          type: int
        undelivered:
          description: Lines that wait, for the V(journal) or the V(file).
          type: dict
        file_lost:
          description: Lines for which the file had no room.
          type: int
        failing:
          description: Why it does not go on.
          type: list
          elements: str
    drift:
      description: How the kernel differs from the stored document.
      type: list
      elements: str
    hardlinks:
      description: Covered files that had another hard link when the policy was applied, which no rule covers.
      type: list
      elements: str
    problems:
      description: What keeps this host from being guarded.
      type: list
      elements: str
"""

import datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.exfil.guard.plugins.module_utils._installed import LIBRARY, Guard, installed, run


def main():
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
    guard = Guard(LIBRARY)

    def work():
        now = datetime.datetime.now(datetime.timezone.utc).date()
        return {
            "changed": False,
            "status": guard.status.status(guard.kernel.Kernel(), guard.store.Store(), guard.system.System(), now),
        }

    run(module, guard, work)


if __name__ == "__main__":
    main()
