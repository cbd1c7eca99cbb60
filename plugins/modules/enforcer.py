#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs and removes the enforcer on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: enforcer
short_description: Install or remove the enforcer
version_added: 0.1.0
description:
  - Installs the enforcer's files, loads its BPF programs, and pins the programs and their maps in the BPF filesystem.
    Starts no daemon.
  - An upgrade reuses the maps and attaches the new programs before it detaches the old ones. The policy in force is
    enforced without interruption.
  - RV(ignore:changed) is computed from the current files and kernel objects.
options:
  state:
    description:
      - V(present) installs, upgrades or repairs the enforcer.
      - V(absent) removes the policy, the programs, the maps, the stored documents and every file.
    type: str
    choices: [present, absent]
    default: present
  package_digest:
    description: Set by the action plugin. Identifies the package of this release.
    type: str
  package:
    description: Set by the action plugin if the package is not yet on the host. A zip file in Base64.
    type: str
extends_documentation_fragment:
  - exfil.guard._attributes
  - exfil.guard._attributes.state
seealso:
  - module: exfil.guard.policy
  - module: exfil.guard.status_info
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Install the enforcer
  exfil.guard.enforcer:

- name: Remove the enforcer and its policy from the host
  exfil.guard.enforcer:
    state: absent
"""

RETURN = r"""
version:
  description: The first 12 digits of the SHA-256 of the BPF object.
  returned: O(state=present)
  type: str
  sample: 3f0c2b9a71de
lacking:
  description: Unmet requirements of this host. Outside check mode, the module fails if there are any.
  returned: O(state=present)
  type: list
  elements: dict
  contains:
    name:
      description: V(libbpf) and V(lsm) if role exfil.guard.enforcer can meet the requirement, otherwise V(other).
      type: str
    found:
      description: The state of the host.
      type: str
    remedy:
      description: What to do.
      type: str
lsm:
  description: The value of C(lsm=) on the kernel command line that adds BPF to the active security modules.
  returned: if BPF is not among them
  type: str
  sample: lockdown,landlock,yama,apparmor,bpf
package_required:
  description: The package of this release is not on the host. The action plugin then sends it.
  returned: never to a task
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.exfil.guard.plugins.module_utils._installed import PACKAGE_OPTIONS, load, locate, run


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec=dict(
            PACKAGE_OPTIONS, state={"type": "str", "choices": ["present", "absent"], "default": "present"}
        ),
        supports_check_mode=True,
    )
    library = locate(module)
    api = load(library)

    def work() -> dict[str, Any]:
        host = api.this_host()
        if module.params["state"] == "absent":
            return host.uninstall(check=module.check_mode)
        return host.install(library, check=module.check_mode)

    run(module, api, work)


if __name__ == "__main__":
    main()
