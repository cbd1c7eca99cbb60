#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: policy
short_description: Put a policy in force, or take it back
version_added: 0.1.0
description:
  - Renders the policy templates of all the host's groups on the controller, validates them, merges them into one
    document, checks its assertions, and puts it in force on the host in one step.
  - The new policy is on trial at first. When a new connection to the host works under it, it is confirmed. When it
    does not, the kernel itself goes back to the policy before after O(confirm_seconds).
  - What is reported as changed is worked out from what is in the kernel now. A deleted link, pin or counter is mended.
  - In the steady state a host costs one small module call.
options:
  policies:
    description:
      - Folder on the controller with one template per group, C(all.yml.j2), C(web.yml.j2) and so on, and with
        C(hosts/NAME.yml.j2) for one host alone. A group without a template is skipped.
      - The default is the folder C(policies) beside the inventory.
    type: str
  state:
    description:
      - V(present) puts the policy in force.
      - V(absent) takes every rule out of force and deletes the stored documents. The enforcer stays.
      - V(confirmed) keeps the policy that is on trial, when one is. See O(confirm).
      - V(restored) puts an earlier policy in force again that is still stored on the host, as a new generation. Which
        one is said by O(generation) or O(revisions).
    type: str
    choices: [present, absent, confirmed, restored]
    default: present
  confirm_seconds:
    description:
      - How long the policy is on trial. V(0) confirms it at once, without looking whether the host is still reachable.
    type: int
    default: 60
  confirm:
    description:
      - V(false) leaves a changed policy on trial, for a later task to confirm with O(state=confirmed). Without one the
        host goes back by itself.
    version_added: 0.2.0
    type: bool
    default: true
  soak:
    description:
      - Leaves what is in force as it is, and adds what is new in the policy in audit mode. What it would deny is then
        counted and reported, and nothing more is denied than before.
    version_added: 0.2.0
    type: bool
    default: false
  revision:
    description: What the policy was made from, the commit of its templates. It is stored with it, and shown.
    version_added: 0.2.0
    type: str
  revisions:
    description:
      - With O(state=restored), a commit and those before it, newest first, as C(git rev-list) gives them. The policy
        that was in force at that commit is restored.
    version_added: 0.2.0
    type: list
    elements: str
    default: []
  document:
    description: Set by the action plugin. The merged policy of this host.
    type: dict
  generation:
    description:
      - With O(state=confirmed), fails when another generation is on trial than this one.
      - With O(state=restored), the generation to restore.
    type: int
  package_digest:
    description: Set by the action plugin. Identifies the package of this release.
    type: str
  package:
    description: Set by the action plugin, in check mode on a host without the enforcer. A zip in Base64.
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
- name: Put the policy of the host's groups in force
  exfil.guard.policy:

- name: The same from another folder, with more time to come back
  exfil.guard.policy:
    policies: "{{ playbook_dir }}/policies"
    confirm_seconds: 300

- name: Take every rule out of force
  exfil.guard.policy:
    state: absent

- name: Let what is new only report
  exfil.guard.policy:
    soak: true

- name: Put it in force on trial
  exfil.guard.policy:
    confirm: false
    confirm_seconds: 300
  register: on_trial

- name: Keep it, now that the host is seen to be well
  exfil.guard.policy:
    state: confirmed
  when: on_trial.confirm_needed

- name: Go back to an earlier policy
  exfil.guard.policy:
    state: restored
    generation: 7
"""

RETURN = r"""
generation:
  description: The number of the policy in force, V(0) for none.
  returned: success
  type: int
  sample: 7
digest_before:
  description: SHA-256 of the document before, V(null) when there was none.
  returned: O(state=present)
  type: str
digest_after:
  description: SHA-256 of the document in force.
  returned: O(state=present)
  type: str
rules:
  description: How many rules are new, gone and different.
  returned: O(state=present)
  type: dict
  sample: {added: 2, removed: 0, changed: 1}
hooks:
  description: The kernel's hooks that the policy needs.
  returned: O(state=present)
  type: list
  elements: str
  sample: [bprm_committed_creds, file_open, task_alloc]
enforced:
  description:
    - Each rule and those of its actions that this host enforces, read back after the run. In check mode, as it will be.
    - A rule in audit mode is not among them, nor one that has expired.
  returned: O(state=present)
  type: dict
  sample: {customer data is for the database: [read, write]}
unenforced:
  description:
    - A line for each rule of which this host does not enforce every action, with the reason. Normally empty, since
      such a policy is refused. In check mode on a host without the enforcer it tells what the kernel cannot do.
  returned: O(state=present)
  type: list
  elements: str
  sample: ["customer data is for the database: read (hook file_open not in this kernel)"]
soaked:
  description: With O(soak), the rules that report now and will enforce, under the names that they have meanwhile.
  returned: O(state=present)
  type: list
  elements: str
  sample: ["nothing leaves the company network (new)"]
restored:
  description: The generation whose policy was put in force again.
  returned: O(state=restored)
  type: int
drift:
  description: How the kernel differed from the host's own document, a line for each difference. Somebody meddled.
  returned: O(state=present)
  type: list
  elements: str
  sample: ["hook file_open is not attached"]
pending:
  description: Whether the policy of the templates is another one than the host's document.
  returned: O(state=present)
  type: bool
renewal:
  description: What the same document means now that the host has other users, units, mounts or addresses.
  returned: O(state=present)
  type: list
  elements: str
unsettled:
  description: A trial that an earlier run left without a confirmation.
  returned: O(state=present)
  type: list
  elements: str
document_before:
  description: The host's document, when the policy is another one.
  returned: O(state=present), O(state=absent)
  type: dict
document_after:
  description: The document of the templates, in check mode when it is another one than the host's.
  returned: O(state=present)
  type: dict
confirm_needed:
  description: The policy is on trial until it is confirmed. Answered by the action plugin, unless O(confirm=false).
  returned: O(state=present)
  type: bool
deadline_seconds:
  description: How long it stays on trial.
  returned: O(state=present)
  type: int
confirmed:
  description: Whether a new connection worked under the policy on trial.
  returned: when the policy was put on trial
  type: bool
problems:
  description: Every error of the policy on this host.
  returned: failure
  type: list
  elements: dict
  contains:
    where:
      description: The rule, set, path or part of the host.
      type: str
    found:
      description: What is wrong.
      type: str
    expected:
      description: What was expected.
      type: str
    remedy:
      description: The way out.
      type: str
package_required:
  description: The host does not have the package of this release. Role exfil.guard.policy installs it.
  returned: when so
  type: bool
enforcer_needed:
  description:
    - The enforcer is not loaded, not whole, or of another release, or the package is. Role exfil.guard.policy mends it.
  returned: always
  type: bool
settled:
  description: Nothing is left to do, the enforcer is of this release, and the host enforces every rule.
  returned: always
  type: bool
"""

import datetime
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.exfil.guard.plugins.module_utils._installed import (
    LIBRARY,
    PACKAGE_OPTIONS,
    Guard,
    installed,
    locate,
    run,
)

TRACES = ("/sys/fs/bpf/exfil_guard", "/var/lib/exfil-guard/generations")
REMEDY = "Run the role exfil.guard.enforcer"


def stale(guard, kernel, library=LIBRARY):
    """Why role enforcer has to run first; empty when it has not."""
    try:
        version = guard.enforcer.installed(kernel)
        with open(library + "/guard.bpf.o", "rb") as file:
            wanted = guard.enforcer.version_of(file.read())
    except guard.errors.EnforcerError as error:
        return error.message
    except OSError:
        return "the enforcer is not installed"
    if version is None:
        return "the enforcer is not installed"
    if version != wanted:
        return "the enforcer in the kernel is of another release"
    others = guard.enforcer.foreign_programs(kernel, version)
    if others:
        return "another program is pinned in place of {0}".format(", ".join(others))
    return ""


def present(guard, kernel, store, params, check, sent):
    """Also V(restored): the same from an earlier document."""
    why = stale(guard, kernel)
    if (why or sent) and not check:
        return {
            "changed": False,
            "enforcer_needed": True,
            "package_required": sent,
            "failed": True,
            "msg": "{0}. {1}".format(why or "the enforcer is of another release", REMEDY),
        }
    options = {
        "check": check,
        "confirm_seconds": params["confirm_seconds"],
        "now": datetime.datetime.now(datetime.timezone.utc).date(),
    }
    try:
        if params["state"] == "restored":
            result = guard.apply.restore(
                kernel,
                guard.system.System(),
                store,
                generation=params["generation"],
                revisions=params["revisions"],
                **options,
            )
        else:
            result = guard.apply.apply(
                kernel,
                guard.system.System(),
                store,
                params["document"],
                revision=params["revision"],
                soak=params["soak"],
                **options,
            )
    except guard.errors.EnforcerError as error:
        if not (why and check):
            raise
        result = {"changed": True, "diff": {"prepared": f"! {why}\n"}, "warnings": [str(error)]}
    if why or sent:
        result["enforcer_needed"] = True
    return result


def main():
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
    where = locate(module)
    guard = Guard(where)
    check = module.check_mode

    def work():
        kernel, store = guard.kernel.Kernel(), guard.store.Store()
        if module.params["state"] == "absent":
            return guard.apply.remove(kernel, store, check=check)
        if module.params["state"] == "confirmed":
            return guard.apply.confirm(kernel, store, module.params["generation"], check=check)
        return present(guard, kernel, store, module.params, check, where != LIBRARY)

    run(module, guard, work)


if __name__ == "__main__":
    main()
