#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applies, confirms, restores and removes the policy of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: policy
short_description: Apply, confirm, restore or remove a host's policy
version_added: 0.1.0
description:
  - Renders the policy templates of all the host's groups on the controller, validates them, merges them into one
    document, checks its assertions, and puts it in force on the host in one step.
  - The new policy is on trial at first. The action plugin confirms it over a new connection to the host. Without a
    confirmation, the kernel returns to the previous policy after O(confirm_seconds).
  - RV(ignore:changed) is computed from the current state of the kernel. Deleted links, pins and counters are restored.
  - If nothing has changed, a run is one short module call per host.
options:
  policies:
    description:
      - Folder on the controller with one template per group, C(all.yml.j2), C(web.yml.j2) and so on, and with
        C(hosts/NAME.yml.j2) for one host alone. A group without a template is skipped.
      - The default is the folder C(policies) beside the inventory.
    type: str
  state:
    description:
      - V(present) applies the policy.
      - V(absent) removes the policy in force and deletes the stored documents. The enforcer stays installed.
      - V(confirmed) confirms the policy on trial, if there is one. See O(confirm).
      - V(restored) applies an earlier policy that is stored on the host, as a new generation. O(generation) or
        O(revisions) selects it.
    type: str
    choices: [present, absent, confirmed, restored]
    default: present
  confirm_seconds:
    description:
      - The duration of the trial in seconds. V(0) confirms the policy at once, without a check of the connection.
    type: int
    default: 60
  confirm:
    description:
      - V(false) leaves a changed policy on trial. A later task must confirm it with O(state=confirmed). Otherwise the
        host returns to the previous policy.
    version_added: 0.2.0
    type: bool
    default: true
  soak:
    description:
      - Keeps the policy in force and adds new and changed rules in audit mode. These rules count and report what they
        would deny, and deny nothing.
    version_added: 0.2.0
    type: bool
    default: false
  revision:
    description: The commit of the policy's templates. It is stored with the policy and shown in the status.
    version_added: 0.2.0
    type: str
  revisions:
    description:
      - With O(state=restored), a commit and its ancestors, newest first, as from C(git rev-list). Restores the policy
        that was in force at that commit.
    version_added: 0.2.0
    type: list
    elements: str
    default: []
  document:
    description: Set by the action plugin. The merged policy of this host.
    type: dict
  generation:
    description:
      - With O(state=confirmed), the generation to confirm. The module fails if a different one is on trial.
      - With O(state=restored), the generation to restore.
    type: int
  package_digest:
    description: Set by the action plugin. Identifies the package of this release.
    type: str
  package:
    description: Set by the action plugin in check mode, if the enforcer is not on the host. A zip file in Base64.
    type: str
extends_documentation_fragment:
  - exfil.guard._attributes
  - exfil.guard._attributes.state
seealso:
  - module: exfil.guard.enforcer
  - module: exfil.guard.status_info
  - module: exfil.guard.events_info
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Apply the policy of the host's groups
  exfil.guard.policy:

- name: Apply the policy of another folder, with a longer trial
  exfil.guard.policy:
    policies: "{{ playbook_dir }}/policies"
    confirm_seconds: 300

- name: Remove the policy
  exfil.guard.policy:
    state: absent

- name: Apply new and changed rules in audit mode
  exfil.guard.policy:
    soak: true

- name: Apply the policy on trial
  exfil.guard.policy:
    confirm: false
    confirm_seconds: 300
  register: on_trial

- name: Confirm the policy after the host's checks
  exfil.guard.policy:
    state: confirmed
  when: on_trial.confirm_needed

- name: Restore an earlier policy
  exfil.guard.policy:
    state: restored
    generation: 7
"""

RETURN = r"""
generation:
  description: The generation of the policy in force, V(0) for none.
  returned: success
  type: int
  sample: 7
digest_before:
  description: SHA-256 of the previous document, V(null) if there was none.
  returned: O(state=present)
  type: str
digest_after:
  description: SHA-256 of the document in force.
  returned: O(state=present)
  type: str
rules:
  description: The number of added, removed and changed rules.
  returned: O(state=present)
  type: dict
  sample: {added: 2, removed: 0, changed: 1}
hooks:
  description: The kernel hooks that the policy needs.
  returned: O(state=present)
  type: list
  elements: str
  sample: [bprm_committed_creds, file_open, task_alloc]
enforced:
  description:
    - Each rule with the actions that this host enforces, read back after the run. In check mode, the expected result.
    - Rules in audit mode and expired rules are omitted.
  returned: O(state=present)
  type: dict
  sample: {customer data is for the database: [read, write]}
unenforced:
  description:
    - A line for each rule with actions that this host cannot enforce, with the reason. Normally empty, because such a
      policy is refused. In check mode on a host without the enforcer, it lists what the kernel does not support.
  returned: O(state=present)
  type: list
  elements: str
  sample: ["customer data is for the database: read (hook file_open not in this kernel)"]
soaked:
  description: With O(soak), the rules that are in audit mode until the soak ends, by their temporary names.
  returned: O(state=present)
  type: list
  elements: str
  sample: ["nothing leaves the company network (new)"]
restored:
  description: The generation whose policy was restored.
  returned: O(state=restored)
  type: int
drift:
  description: A line for each difference between the kernel and the host's stored document.
  returned: O(state=present)
  type: list
  elements: str
  sample: ["hook file_open is not attached"]
pending:
  description: Whether the templates' policy differs from the host's stored document.
  returned: O(state=present)
  type: bool
renewal:
  description: Changes of the tables for the same document, because users, units, mounts or addresses have changed.
  returned: O(state=present)
  type: list
  elements: str
unsettled:
  description: An unconfirmed trial of an earlier run.
  returned: O(state=present)
  type: list
  elements: str
document_before:
  description: The host's stored document, if the policy differs from it.
  returned: O(state=present), O(state=absent)
  type: dict
document_after:
  description: The templates' document, in check mode if it differs from the host's.
  returned: O(state=present)
  type: dict
advice:
  description: Advice about the policy, in check mode. It is no error.
  returned: O(state=present)
  type: list
  elements: str
confirm_needed:
  description: The policy is on trial and must be confirmed. The action plugin does this unless O(confirm=false).
  returned: O(state=present)
  type: bool
deadline_seconds:
  description: The duration of the trial in seconds.
  returned: O(state=present)
  type: int
confirmed:
  description: Whether a new connection worked under the policy on trial.
  returned: when the policy was put on trial
  type: bool
problems:
  description: All errors of the policy on this host.
  returned: failure
  type: list
  elements: dict
  contains:
    where:
      description: The rule, set, path or part of the host.
      type: str
    found:
      description: The error.
      type: str
    expected:
      description: What was expected.
      type: str
    remedy:
      description: What to do.
      type: str
package_required:
  description: The package of this release is not on the host. Role exfil.guard.policy installs it.
  returned: if the package is required
  type: bool
enforcer_needed:
  description:
    - The enforcer or its package is missing, incomplete or of another release. Role exfil.guard.policy installs it.
  returned: always
  type: bool
settled:
  description: The task succeeded, the enforcer is of this release, and the host enforces every rule.
  returned: always
  type: bool
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.exfil.guard.plugins.module_utils._installed import (
    LIBRARY,
    PACKAGE_OPTIONS,
    Host,
    HostAPI,
    installed,
    load,
    locate,
    run,
)

TRACES = ("/sys/fs/bpf/exfil_guard", "/var/lib/exfil-guard/generations")
REMEDY = "Run the role exfil.guard.enforcer"


def put_in_force(api: HostAPI, host: Host, params: dict[str, Any], check: bool, sent: bool) -> dict[str, Any]:
    """Applies the document, or restores an earlier one. ``sent``: the package is of another release than the one that
    is installed."""
    installation = host.installation_problems()
    problem = host.enforcer_problem(installation)
    if (problem or sent) and not check:
        return {
            "changed": False,
            "enforcer_needed": True,
            "package_required": sent,
            "failed": True,
            "msg": "{}. {}".format(problem or "the enforcer is of another release", REMEDY),
        }
    try:
        if params["state"] == "restored":
            result = host.restore(
                generation=params["generation"],
                revisions=params["revisions"],
                check=check,
                confirm_seconds=params["confirm_seconds"],
                installation=installation,
            )
        else:
            result = host.apply(
                params["document"],
                check=check,
                confirm_seconds=params["confirm_seconds"],
                revision=params["revision"],
                soak=params["soak"],
                installation=installation,
            )
    except api.EnforcerError as error:
        if not (problem and check):
            raise
        result = {"changed": True, "diff": {"prepared": f"! {problem}\n"}, "warnings": [str(error)]}
    if problem or sent:
        result["enforcer_needed"] = True
    return result


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec=dict(
            PACKAGE_OPTIONS,
            policies={"type": "str"},
            state={"type": "str", "choices": ["present", "absent", "confirmed", "restored"], "default": "present"},
            confirm_seconds={"type": "int", "default": 60},
            confirm={"type": "bool", "default": True},
            soak={"type": "bool", "default": False},
            revision={"type": "str"},
            revisions={"type": "list", "elements": "str", "default": []},
            document={"type": "dict"},
            generation={"type": "int"},
        ),
        required_if=[("state", "present", ["document"]), ("state", "restored", ["generation", "revisions"], True)],
        supports_check_mode=True,
    )
    if module.params["state"] == "absent" and installed() is None and not any(map(os.path.exists, TRACES)):
        module.exit_json(changed=False, generation=0)  # a pristine host needs no package to have no policy
    library = locate(module)
    api = load(library)
    check = module.check_mode

    def work() -> dict[str, Any]:
        host = api.this_host()
        if module.params["state"] == "absent":
            return host.remove(check=check)
        if module.params["state"] == "confirmed":
            return host.confirm(module.params["generation"], check=check)
        return put_in_force(api, host, module.params, check, library != LIBRARY)

    run(module, api, work)


if __name__ == "__main__":
    main()
