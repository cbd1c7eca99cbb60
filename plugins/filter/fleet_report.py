# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a fleet, as figures and as a page."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_report
short_description: Summarize the state and the denials of a fleet
version_added: 0.2.0
description:
  - Takes the results of M(exfil.guard.status_info) and M(exfil.guard.audit_info) of each host.
  - The report has for each host its state, generation, certificate and problems. It has the denials over time, the
    rules, subjects, destinations and files with most denials and audit events, a count of equal attempts, and the
    changes that a run would make.
options:
  _input:
    description: The names of the hosts.
    type: list
    elements: str
    required: true
  groups:
    description: The groups of each host, in the same order.
    type: list
    elements: list
    required: true
  status:
    description: The result of M(exfil.guard.status_info) of each host, in the same order, or an empty dict.
    type: list
    elements: dict
    required: true
  trail:
    description: The result of M(exfil.guard.audit_info) of each host, in the same order, or an empty dict.
    type: list
    elements: dict
    required: true
  planned:
    description:
      - The result of M(exfil.guard.policy) in check mode of each host, in the same order, or an empty dict. Without it
        the report has no plan.
    type: list
    elements: dict
  now:
    description: The time of the report, as an ISO date and time.
    type: str
    required: true
requirements:
  - pygal 3.1 or newer, and jsonschema, on the controller
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Write the page
  ansible.builtin.copy:
    content: "{{ (['web1'] | exfil.guard.fleet_report([['web']], [status], [trail], '2026-11-28T12:00')).html }}"
    dest: report.html
    mode: "0600"
"""

RETURN = r"""
_value:
  description: V(data), the figures. V(html), the page. V(line), a summary in one line.
  type: dict
"""

import datetime
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

try:
    from ansible_collections.exfil.guard.plugins.plugin_utils._plan import plan as _plan
    from ansible_collections.exfil.guard.plugins.plugin_utils._report import figures, page
except ImportError as error:  # pygal and jsonschema are all that Ansible does not bring itself
    LACKING = f"no report can be made on this controller: {error}. Install pygal and jsonschema for Ansible's Python"
else:
    LACKING = ""


def fleet_report(hosts, groups, status, trail, now, planned=None):
    if LACKING:
        raise AnsibleFilterError(LACKING)
    lists = [list(each) for each in (hosts, groups, status, trail)] + ([] if planned is None else [list(planned)])
    results = [each for part in lists[2:] for each in part]
    if len({len(each) for each in lists}) != 1 or not all(isinstance(each, Mapping) for each in results):
        raise AnsibleFilterError("fleet_report takes hosts, their groups, and what the modules gave, in one order")
    plan = None if planned is None else _planned(dict(zip(lists[0], lists[4])))
    found = figures.report({name: figures.answer(*parts) for name, *parts in zip(*lists[:4])}, str(now), plan)
    states = ", ".join(f"{count} {state}" for state, count in sorted(found["states"].items()))
    line = "{0} hosts: {1}; {2} events told".format(len(found["hosts"]), states or "none", found["told"])
    return {"data": found, "html": page.page(found), "line": line}


def _planned(results):
    comparer = _plan.Comparer(datetime.datetime.now(datetime.timezone.utc).date())
    seen = {}
    for host, result in results.items():
        failed = result.get("failed") or result.get("unreachable") or "changed" not in result
        told = str(result.get("msg") or "it gave no answer")
        seen[host] = _plan.Seen(error=told) if failed else _plan.seen([result], comparer)
    return _plan.data("plan", _plan.fold(seen))


class FilterModule:
    def filters(self):
        return {"fleet_report": fleet_report}
