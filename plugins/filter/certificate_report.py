# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the certificates of a fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
name: certificate_report
short_description: Tell which hosts' certificates differ
version_added: 0.2.0
description:
  - Takes what C(exfil-guard verify --json) printed on each host, and tells which hosts have the same object, package,
    kernel, policy and proofs, which are odd, and which are not as their certificate says.
options:
  _input:
    description: The host's name and what its command printed, empty when there was no answer.
    type: dict
    required: true
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Tell who differs from whom
  ansible.builtin.debug:
    msg: "{{ ({'web1': verified.stdout} | exfil.guard.certificate_report).lines }}"
"""

RETURN = r"""
_value:
  description: V(lines), the report; V(wrong), the hosts that are not as their certificate says or gave no answer;
    V(odd), the hosts that are not like most others.
  type: dict
"""

from collections.abc import Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.exfil.guard.plugins.plugin_utils._report import certificates


def certificate_report(answers):
    if not isinstance(answers, Mapping) or not all(isinstance(each, str) for each in answers.values()):
        raise AnsibleFilterError("certificate_report takes a dict of what the command printed on each host")
    return certificates.report(answers)


class FilterModule:
    def filters(self):
        return {"certificate_report": certificate_report}
