#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of the action plugin of this name: nothing of it runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: validate
short_description: Validate the policies of many hosts without connecting to them
version_added: 0.2.0
description:
  - Renders the policy templates of each host's groups on the controller, validates them, merges them into one document
    for each host and checks its assertions. Does not connect to any host.
  - Reports all problems of all hosts together. A problem that several hosts share is reported once. The task fails if
    there is any problem.
  - One task validates all hosts of the play. Set C(run_once=true), or it is repeated for each host.
options:
  policies:
    description:
      - Folder on the controller with one template per group, as in M(exfil.guard.policy).
      - The default is the folder C(policies) beside the inventory.
    type: str
  hosts:
    description:
      - The names of the hosts to validate.
      - The default is every host of the play.
    type: list
    elements: str
  junit:
    description: A file on the controller for the result as JUnit XML, with a test suite for each host.
    type: str
attributes:
  check_mode:
    description: Can run in check mode. Reports exactly what a run would change.
    support: full
  diff_mode:
    description: Returns the changes line by line, in check mode the changes that a run would make.
    support: N/A
    details: This module changes nothing.
  idempotent:
    description: A second run with the same arguments changes nothing.
    support: full
  platform:
    description: The supported hosts.
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
- name: Validate every host's policy before a merge
  exfil.guard.validate:
    junit: policies.xml
  run_once: true

- name: Validate the policies of the databases only
  exfil.guard.validate:
    hosts: "{{ groups['db'] }}"
  run_once: true
"""

RETURN = r"""
report:
  description: The result as text.
  returned: always
  type: str
invalid:
  description: Hosts with an invalid policy or a failed assertion.
  returned: always
  type: list
  elements: str
digests:
  description: The digest of each valid host's document. Equal documents have equal digests.
  returned: always
  type: dict
advice:
  description: Advice about the valid policies, a list for each host that has some. It is no error.
  returned: always
  type: dict
"""
