# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the report of a fleet, as figures and as a page."""

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
from typing import Any, Callable, Mapping, Sequence

from ansible.errors import AnsibleFilterError

try:
    from ansible_collections.exfil.guard.plugins.plugin_utils._plan import plan as _plan
    from ansible_collections.exfil.guard.plugins.plugin_utils._report import figures, page
except ImportError as error:  # pygal and jsonschema are not dependencies of ansible-core
    LACKING = f"this controller cannot make a report: {error}. Install pygal and jsonschema for Ansible's Python"
else:
    LACKING = ""


def fleet_report(
    hosts: Sequence[str],
    groups: Sequence[Sequence[str]],
    status: Sequence[Mapping[str, Any]],
    trail: Sequence[Mapping[str, Any]],
    now: object,
    planned: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The figures, the page and a summary line. All sequences have an item for each host, in the same order."""
    if LACKING:
        raise AnsibleFilterError(LACKING)
    sequences: list[list[Any]] = [list(sequence) for sequence in (hosts, groups, status, trail)]
    if planned is not None:
        sequences.append(list(planned))
    results = [result for sequence in sequences[2:] for result in sequence]
    if len({len(sequence) for sequence in sequences}) != 1 or not all(isinstance(item, Mapping) for item in results):
        raise AnsibleFilterError("fleet_report requires hosts, groups and the modules' results, in the same order")
    plan = None if planned is None else _plan_of(dict(zip(sequences[0], sequences[4])))
    answers = {name: figures.answer(*parts) for name, *parts in zip(*sequences[:4])}
    report = figures.report(answers, str(now), plan)
    states = ", ".join(f"{count} {state}" for state, count in sorted(report["states"].items()))
    line = f"{len(report['hosts'])} hosts: {states or 'none'}; {report['told']} events"
    return {"data": report, "html": page.page(report), "line": line}


def _plan_of(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    comparer = _plan.Comparer(datetime.datetime.now(datetime.timezone.utc).date())
    by_host = {}
    for host, result in results.items():
        failed = result.get("failed") or result.get("unreachable") or "changed" not in result
        message = str(result.get("msg") or "the host gave no answer")
        by_host[host] = _plan.HostResult(error=message) if failed else _plan.host_result([result], comparer)
    data: dict[str, Any] = _plan.data("plan", _plan.group(by_host))
    return data


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"fleet_report": fleet_report}
