# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the certificates of a fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
name: certificate_report
short_description: Compare the certificates of a fleet's hosts
version_added: 0.2.0
description:
  - Takes the output of C(exfil-guard verify --json) of each host. Reports which hosts have the same object, package,
    kernel, policy and proofs, which hosts deviate from the majority, and which differ from their certificate.
options:
  _input:
    description: The output of the command by host name. An empty output means that there was no answer.
    type: dict
    required: true
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Show which hosts differ
  ansible.builtin.debug:
    msg: "{{ ({'web1': verified.stdout} | exfil.guard.certificate_report).lines }}"
"""

RETURN = r"""
_value:
  description: V(lines), the report. V(wrong), the hosts that differ from their certificate or did not answer. V(odd),
    the hosts that deviate from the majority.
  type: dict
"""

from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.exfil.guard.plugins.plugin_utils._report import certificates


def certificate_report(answers: Mapping[str, str]) -> dict[str, Any]:
    """The comparison of the hosts' certificates. ``answers``: the output of `exfil-guard verify --json` by host."""
    if not isinstance(answers, Mapping) or not all(isinstance(text, str) for text in answers.values()):
        raise AnsibleFilterError("certificate_report requires a dict with the command's output for each host")
    return certificates.report(answers)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"certificate_report": certificate_report}
