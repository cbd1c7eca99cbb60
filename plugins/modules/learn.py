#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of the action plugin of this name: nothing of it runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: learn
short_description: Propose a policy from what was seen on hosts
version_added: 0.2.0
description:
  - Takes what role exfil.guard.observe saw on each host, or what rules in audit mode reported, and writes a policy
    template that lets it pass and nothing else. It is a proposal for people to read; nothing is put in force and no
    host is reached.
  - The set of each of O(resources) is denied to everybody but those that were seen to use it. Every unit and user that
    was seen may reach where it was seen to reach. What else was seen stands in the file as comments.
  - Before the file is written, everything that was seen is tried against the proposal as if it was enforced, and the
    proposal is validated, alone and together with each host's policy of today.
  - It looks at all hosts of the play by itself. Say C(run_once=true).
options:
  group:
    description: What the hosts are called together. The names of sets and rules begin with it.
    type: str
    required: true
  file:
    description: The file on the controller that the proposal is written to, with mode 0600.
    type: str
    required: true
  observations:
    description: Folder on the controller with C(HOST.jsonl) for each host, as role exfil.guard.observe leaves it there.
    type: str
  records:
    description: For each host the C(records) of M(exfil.guard.audit_info). What was denied is not learned from.
    type: dict
  resources:
    description: The names of what is sensitive, each with a list of paths as in a policy.
    type: dict
    default: {}
  hosts:
    description:
      - Names of the hosts to learn from.
      - The default is every host of the play.
    type: list
    elements: str
  names:
    description: What a host calls itself, where that is neither its name in the inventory nor the first part of that.
    type: dict
    default: {}
  policies:
    description:
      - Folder on the controller with one template per group, as in M(exfil.guard.policy).
      - The default is the folder C(policies) beside the inventory.
    type: str
  cut:
    description: Take what is whole of a file that was cut off.
    type: bool
    default: false
  files:
    description: More paths than this in a folder are told as the folder.
    type: int
    default: 20
  roots:
    description: Folders such as C(/etc) that may be told as one although all of the system hangs below them.
    type: list
    elements: str
    default: []
  executables:
    description: Who is excepted with more programs than this is excepted with whatever it executes.
    type: int
    default: 8
  users:
    description: More users than this that have a group for themselves become the group.
    type: int
    default: 4
  ports:
    description: More ports than this of one address, all of them above 1023, become a range.
    type: int
    default: 16
  ipv4_prefix:
    description: Length of the networks that take the place of IPv4 addresses, V(24) for instance.
    type: int
    default: 32
  ipv6_prefix:
    description: The same for IPv6.
    type: int
    default: 128
  assertions:
    description: At most so many assertions that what was seen passes.
    type: int
    default: 50
  listed:
    description: At most so many lines of what is in no rule, and with each rule of what it lets pass.
    type: int
    default: 200
  unbound:
    description: Units and users that no rule on reaching binds. Whoever applies policies from a unit belongs here.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Can run in check mode and tells exactly what a run would do, without doing it.
    support: full
  diff_mode:
    description: Tells what changed, or in check mode what would change, line by line.
    support: full
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

- name: The same from what audit mode reported
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
  description: What is proposed, in one line.
  returned: success
  type: str
file:
  description: The file, with its folder.
  returned: success
  type: str
rules:
  description: How many rules are proposed.
  returned: success
  type: int
events:
  description: How many events were seen.
  returned: success
  type: int
denied:
  description: How many different events that were seen the proposal would deny. Always 0, else there is no proposal.
  returned: success
  type: int
today:
  description: How many of the events today's policies let pass, deny, report, and of how many that can't be told.
  returned: success
  type: dict
notes:
  description: What the reader has to know, as in the file.
  returned: success
  type: list
  elements: str
problems:
  description: What is wrong, each with its C(file), C(line), C(path), C(found), C(expected) and C(remedy).
  returned: failure
  type: list
  elements: dict
"""
