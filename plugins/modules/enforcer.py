#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

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

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.exfil.guard.plugins.module_utils._installed import PACKAGE_OPTIONS, Guard, locate, run


def lacking(guard, kernel):
    found = kernel.environment()
    result = []
    for text, remedy in guard.enforcer.prerequisites(found):
        name = "other"
        if text.startswith("libbpf"):
            name = "libbpf"
        elif text.startswith("bpf is not among") and found.lsms:
            name = "lsm"
        result.append({"name": name, "found": text, "remedy": remedy})
    if not has_bpf_lsm():
        result.append(
            {
                "name": "other",
                "found": f"the kernel {found.release} is built without the BPF LSM or without BTF",
                "remedy": "Boot a kernel with CONFIG_BPF_LSM=y and CONFIG_DEBUG_INFO_BTF=y",
            }
        )
    return result, ",".join([name for name in found.lsms if name not in ("capability", "bpf")] + ["bpf"])


def has_bpf_lsm(path="/sys/kernel/btf/vmlinux"):
    try:
        with open(path, "rb") as file:
            return b"\0bpf_lsm_file_open\0" in file.read()
    except OSError:
        return False


def present(guard, kernel, where, check):
    shortfalls, lsm = lacking(guard, kernel)
    if shortfalls and not check:
        raise guard.errors.PolicyErrors(
            guard.errors.Problem("host", each["found"], "", each["remedy"]) for each in shortfalls
        )
    package = guard.install.read_package(where)

    def work():
        # the kernel is asked first: an object that it refuses must not replace one that it runs
        loaded = guard.enforcer.ensure(kernel, package[guard.install.LIBRARY + "/guard.bpf.o"], check=check)
        result = guard.install.result_of(guard.install.ensure(package, check=check), loaded)
        if result["changed"] and not check:  # the policy in force is decided by other programs now
            result["warnings"] = result.get("warnings", []) + guard.certificate.issue(
                kernel, guard.store.Store(), loaded["version"]
            )
        return result

    if check:
        result = work()
    else:
        with guard.lock.hold("installing the enforcer"):
            result = work()
    result["lacking"] = shortfalls
    if any(each["name"] == "lsm" for each in shortfalls):
        result["lsm"] = lsm
    return result


def absent(guard, kernel, check):
    store = guard.store.Store()
    if check:
        files = guard.install.remove(check=True, gone=store.paths())
        return guard.install.result_of(files, guard.enforcer.remove(kernel, store, check=True))
    if not guard.install.traces() and not kernel.exists(kernel.path("exfil_guard")):
        return {"changed": False, "diff": {"prepared": ""}}
    guard.install.quiet()
    with guard.lock.hold("removing the enforcer"):
        removed = guard.enforcer.remove(kernel, store)
        result = guard.install.result_of(guard.install.remove(), removed)
        os.unlink(guard.lock.PATH)
        return result


def main():
    module = AnsibleModule(
        argument_spec=dict(
            PACKAGE_OPTIONS, state={"type": "str", "choices": ["present", "absent"], "default": "present"}
        ),
        supports_check_mode=True,
    )
    where = locate(module)
    guard = Guard(where)

    def work():
        kernel = guard.kernel.Kernel()
        if module.params["state"] == "absent":
            return absent(guard, kernel, module.check_mode)
        return present(guard, kernel, where, module.check_mode)

    run(module, guard, work)


if __name__ == "__main__":
    main()
