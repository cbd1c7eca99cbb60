#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of the action plugin of this name: nothing of it runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: learn
short_description: Propose a policy from events observed on hosts
version_added: 0.2.0
description:
  - Reads the observations of role exfil.guard.observe, or the events that rules in audit mode reported, and writes a
    policy template that allows the observed accesses and denies others. The template is a proposal for review. The
    module applies no policy and does not connect to hosts.
  - Access to each set of O(resources) is denied, except for the subjects that were observed to use it. Each observed
    unit and user may connect only to its observed destinations. All other observed events are listed in the file as
    comments.
  - Before it writes the file, the module evaluates every observed event against the proposal in enforce mode. It also
    validates the proposal, alone and merged with each host's current policy.
  - One task processes all hosts of the play. Set C(run_once=true).
options:
  group:
    description: A name for the hosts. The names of sets and rules begin with it.
    type: str
    required: true
  file:
    description: The file on the controller for the proposal. Its mode is 0600.
    type: str
    required: true
  observations:
    description: Folder on the controller with a file C(HOST.jsonl) for each host, written by role exfil.guard.observe.
    type: str
  records:
    description: For each host the C(records) of M(exfil.guard.audit_info). Denied events are ignored.
    type: dict
  resources:
    description: The sensitive sets of resources. Each has a name and a list of path patterns, as in a policy.
    type: dict
    default: {}
  hosts:
    description:
      - Names of the hosts to learn from.
      - The default is every host of the play.
    type: list
    elements: str
  names:
    description: The hostname of each host whose hostname is neither its inventory name nor the first label of it.
    type: dict
    default: {}
  policies:
    description:
      - Folder on the controller with one template per group, as in M(exfil.guard.policy).
      - The default is the folder C(policies) beside the inventory.
    type: str
  cut:
    description: Accept the complete lines of a truncated file.
    type: bool
    default: false
  files:
    description: If more paths than this are in one folder, the proposal has a pattern for the folder.
    type: int
    default: 20
  roots:
    description: System folders such as C(/etc) for which the proposal may have one pattern for the whole folder.
    type: list
    elements: str
    default: []
  executables:
    description: A subject with more programs than this is excepted with any program.
    type: int
    default: 8
  users:
    description: More users than this are replaced by a group that has exactly these users.
    type: int
    default: 4
  ports:
    description: More ports than this of one address, all above 1023, are replaced by a range.
    type: int
    default: 16
  ipv4_prefix:
    description: The prefix length of the networks that replace IPv4 addresses, for example V(24).
    type: int
    default: 32
  ipv6_prefix:
    description: The prefix length of the networks that replace IPv6 addresses.
    type: int
    default: 128
  assertions:
    description: The maximum number of assertions that an observed event is allowed.
    type: int
    default: 50
  listed:
    description: The maximum number of comment lines for events that no rule covers, and for each rule.
    type: int
    default: 200
  unbound:
    description: Units and users to which no rule on destinations applies. Add each unit that applies policies.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Can run in check mode. Reports exactly what a run would change.
    support: full
  diff_mode:
    description: Returns the changes line by line, in check mode the changes that a run would make.
    support: full
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
  - module: exfil.guard.audit_info
  - module: exfil.guard.validate
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Propose a policy for the databases
  exfil.guard.learn:
    group: db
    observations: "{{ inventory_dir }}/observed"
    resources:
      customer-data: ["/var/lib/postgresql/**", "/srv/exports/*.csv"]
    file: "{{ inventory_dir }}/learned-db.yml.j2"
  run_once: true

- name: Propose a policy from the events of audit mode
  exfil.guard.learn:
    group: db
    records:
      db1: "{{ hostvars.db1.trail.records }}"
      db2: "{{ hostvars.db2.trail.records }}"
    resources:
      customer-data: ["/var/lib/postgresql/**"]
    file: "{{ inventory_dir }}/learned-db.yml.j2"
    hosts: [db1, db2]
    ipv4_prefix: 24
  run_once: true
"""

RETURN = r"""
msg:
  description: A summary of the proposal in one line.
  returned: success
  type: str
file:
  description: The path of the file.
  returned: success
  type: str
rules:
  description: The number of proposed rules.
  returned: success
  type: int
events:
  description: The number of observed events.
  returned: success
  type: int
denied:
  description: The number of observed events that the proposal would deny. Always V(0), otherwise the module fails.
  returned: success
  type: int
today:
  description: How many of the events the current policies allow, deny and report, and how many could not be evaluated.
  returned: success
  type: dict
notes:
  description: Notes for the reader, as in the file.
  returned: success
  type: list
  elements: str
problems:
  description: The errors, each with C(file), C(line), C(path), C(found), C(expected) and C(remedy).
  returned: failure
  type: list
  elements: dict
"""
