#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of the action plugin of this name: nothing of it runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: explain
short_description: Ask a host's policy who may do what, and which rule says so
version_added: 0.2.0
description:
  - Answers from the host's policy templates on the controller. The host is not reached. Every user, group, unit and
    path that is named counts as there.
  - With O(user), whether such a task may do it, and every rule that says so. Without, who may do it and who may not, in
    the policy's own names.
  - The same as C(exfil-guard explain) on a host, which answers from what is in force there.
options:
  policies:
    description:
      - Folder on the controller with one template per group, as in M(exfil.guard.policy).
      - The default is the folder C(policies) beside the inventory.
    type: str
  user:
    description: Whose attempt it is, a name or a number.
    type: str
  groups:
    description: Groups of the user.
    type: list
    elements: str
  login_user:
    description: Who logged in, if that is another. The default is O(user), and nobody with O(service).
    type: str
  service:
    description: The systemd unit that the task is in. The default is the user's session.
    type: str
  executable:
    description: What the task executes. The default is unknown, which binds and does not except.
    type: str
  has_read:
    description: Sets of C(resources) that the task has read something of.
    type: list
    elements: str
  action:
    description:
      - An action of the policy language. An action without an object has to be said.
      - The default is every action that fits the object.
    type: str
  path:
    description: The file, or a unix socket.
    type: str
  address:
    description: An IPv4 or IPv6 address, or C(vsock:CID).
    type: str
  port:
    description: The port at O(address).
    type: int
    default: 443
  protocol:
    description: The protocol over IP, a name or a number.
    type: str
    default: tcp
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
  - module: exfil.guard.validate
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Who may read an export
  exfil.guard.explain:
    path: /srv/exports/a.csv
    action: read

- name: May the backup send to the vault
  exfil.guard.explain:
    user: root
    service: restic.service
    executable: /usr/bin/restic
    address: 10.9.0.7
    port: 8000
"""

RETURN = r"""
msg:
  description: The answers, for people.
  returned: success
  type: str
answers:
  description: One for each action.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: The action.
      type: str
    object:
      description: What it was asked about.
      type: str
    outcome:
      description: V(allow), V(audit) (it passes and is reported) or V(deny). With O(user).
      type: str
    rule:
      description: The first rule by name that decides it so, V(null) when none does. With O(user).
      type: str
    reason:
      description: V(rule), or why it could not be told what the object is. With O(user).
      type: str
    rules:
      description: Every rule that alone would deny or report it. With O(user).
      type: list
      elements: dict
    outcomes:
      description: For each outcome and rule, C(who) has it. Without O(user).
      type: list
      elements: dict
    complete:
      description: Whether every combination of subjects was looked at. Without O(user).
      type: bool
"""
