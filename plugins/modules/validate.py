#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of the action plugin of this name: nothing of it runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: validate
short_description: Try the policies of many hosts without reaching any of them
version_added: 0.2.0
description:
  - Renders the policy templates of each host's groups on the controller, validates them, merges them into one document
    for each host and checks its assertions. No host is reached.
  - Every problem of every host is told at once, those that several hosts have once. The task fails when there is one.
  - It looks at all hosts of the play by itself. Say C(run_once=true), or it does so for each of them.
options:
  policies:
    description:
      - Folder on the controller with one template per group, as in M(exfil.guard.policy).
      - The default is the folder C(policies) beside the inventory.
    type: str
  hosts:
    description:
      - Names of the hosts to look at.
      - The default is every host of the play.
    type: list
    elements: str
  junit:
    description: A file on the controller for the outcome as JUnit XML, a test suite for each host.
    type: str
attributes:
  check_mode:
    description: Can run in check mode and tells exactly what a run would do, without doing it.
    support: full
  diff_mode:
    description: Tells what changed, or in check mode what would change, line by line.
    support: N/A
    details: This module changes nothing.
  idempotent:
    description: A second run with the same arguments changes nothing.
    support: full
  platform:
    description: Which hosts it works on.
    platforms: posix
    support: full
requirements:
  - jsonschema on the controller
seealso:
  - module: exfil.guard.explain
  - module: exfil.guard.policy
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Try every host's policy before a merge
  exfil.guard.validate:
    junit: policies.xml
  run_once: true

- name: Those of the databases alone
  exfil.guard.validate:
    hosts: "{{ groups['db'] }}"
  run_once: true
"""

RETURN = r"""
report:
  description: What was found, for people.
  returned: always
  type: str
invalid:
  description: Hosts whose policy is not valid, or one of whose assertions does not hold.
  returned: always
  type: list
  elements: str
digests:
  description: The digest of each valid host's document. Equal documents have equal digests.
  returned: always
  type: dict
"""
