#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of the action plugin of this name: nothing of it runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: explain
short_description: Explain who may do what under a host's policy, and by which rule
version_added: 0.2.0
description:
  - Evaluates the host's policy templates on the controller, without a connection to the host. Assumes that every
    user, group, unit and path in the policy exists.
  - With O(user), returns whether such a task may do the action, and every rule that decides it. Without O(user),
    returns who may do it and who may not, by the names of the policy's sets.
  - C(exfil-guard explain) on a host answers the same questions about the policy in force there.
options:
  policies:
    description:
      - Folder on the controller with one template per group, as in M(exfil.guard.policy).
      - The default is the folder C(policies) beside the inventory.
    type: str
  user:
    description: The user who makes the attempt, a name or a number.
    type: str
  groups:
    description: Groups of the user.
    type: list
    elements: str
  login_user:
    description: The user who logged in. The default is O(user), or with O(service) no login user.
    type: str
  service:
    description: The systemd unit that the task is in. The default is the user's session.
    type: str
  executable:
    description: The program of the task. By default it is unknown. Rules then apply to the task, and exceptions do not.
    type: str
  has_read:
    description: Sets of C(resources) from which the task has read.
    type: list
    elements: str
  action:
    description:
      - An action of the policy language. It is required if there is no object.
      - The default is every action that fits the object.
    type: str
  path:
    description: The path of a file or of a unix socket.
    type: str
  address:
    description: An IPv4 or IPv6 address, or C(vsock:CID).
    type: str
  port:
    description: The port at O(address).
    type: int
    default: 443
  protocol:
    description: The IP protocol, a name or a number.
    type: str
    default: tcp
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
  - module: exfil.guard.validate
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: List who may read an export
  exfil.guard.explain:
    path: /srv/exports/a.csv
    action: read

- name: Check whether the backup may connect to the vault
  exfil.guard.explain:
    user: root
    service: restic.service
    executable: /usr/bin/restic
    address: 10.9.0.7
    port: 8000
"""

RETURN = r"""
msg:
  description: The answers as text.
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
      description: The object of the question.
      type: str
    outcome:
      description: V(allow), V(audit) (allowed and reported) or V(deny). With O(user).
      type: str
    rule:
      description: The first rule, by name, with this outcome, or V(null) if there is none. With O(user).
      type: str
    reason:
      description: V(rule), or why the object could not be identified. With O(user).
      type: str
    rules:
      description: Every rule that alone would deny or report the attempt. With O(user).
      type: list
      elements: dict
    outcomes:
      description: For each outcome and rule, the subjects it applies to, as C(who). Without O(user).
      type: list
      elements: dict
    complete:
      description: Whether every combination of subjects was evaluated. Without O(user).
      type: bool
"""
