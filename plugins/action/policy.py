# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders, validates, merges and asserts a host's policy here, has it put in force there, and confirms it over a new
connection."""

from __future__ import annotations

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.exfil.guard.plugins.plugin_utils import _package
from ansible_collections.exfil.guard.plugins.plugin_utils._language import once

try:
    from ansible_collections.exfil.guard.plugins.plugin_utils._language import document, site
    from ansible_collections.exfil.guard.plugins.plugin_utils._language.problems import FragmentError
except ImportError as error:  # jsonschema is all that Ansible does not bring itself
    LACKING = f"policies can't be read on this controller: {error}. Install jsonschema for Ansible's Python"
else:
    LACKING = ""


MODULE = "exfil.guard.policy"
# which options a host needs, by the state that is asked for
SENT = {
    "present": ("confirm_seconds", "revision", "soak"),
    "absent": (),
    "confirmed": ("generation",),
    "restored": ("confirm_seconds", "generation", "revisions"),
}


class ActionModule(ActionBase):
    _VALID_ARGS = frozenset(
        ("policies", "state", "confirm_seconds", "confirm", "soak", "revision", "revisions", "generation")
    )

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            argument_spec={
                "policies": {"type": "str"},
                "state": {
                    "type": "str",
                    "choices": ["present", "absent", "confirmed", "restored"],
                    "default": "present",
                },
                "confirm_seconds": {"type": "int", "default": 60},
                "confirm": {"type": "bool", "default": True},
                "soak": {"type": "bool", "default": False},
                "revision": {"type": "str"},
                "revisions": {"type": "list", "elements": "str", "default": []},
                "generation": {"type": "int"},
            }
        )
        arguments = {"state": options["state"], "package_digest": once.in_this_run(["package"], _package.digest)}
        arguments.update((name, options[name]) for name in SENT[options["state"]] if options[name] is not None)
        warnings = []
        if options["state"] == "present":
            if LACKING:
                raise AnsibleError(LACKING)
            try:
                folder = site.folder(self._loader, options["policies"], task_vars)
                warnings.extend(site.stray(folder, task_vars))
                arguments["document"] = site.document(self._templar, folder, task_vars)
            except FragmentError as error:
                return {
                    "failed": True,
                    "changed": False,
                    "warnings": warnings,
                    "msg": f"The policy of this host is not valid. {error}",
                    "problems": [document.plain(problem._asdict()) for problem in error.problems],
                    "enforcer_needed": False,
                    "settled": False,
                }
        result = self._put(arguments, options, task_vars)
        # one name for what a role asks, host by host
        result["enforcer_needed"] = bool(result.get("enforcer_needed") or result.get("package_required"))
        result["settled"] = not (result.get("failed") or result["enforcer_needed"] or result.get("unenforced"))
        if self._task.check_mode and result.get("pending"):
            result["document_after"] = arguments["document"]  # for callback exfil.guard.plan
        if warnings:
            result["warnings"] = [*result.get("warnings", ()), *warnings]
        return result

    def _put(self, arguments, options, task_vars):
        result = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        if result.get("package_required") and self._task.check_mode:
            arguments["package"] = _package.encoded()
            result = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        elif result.get("package_required"):
            result.update(
                failed=True, msg="The enforcer of this release is not on the host. Run role exfil.guard.enforcer"
            )
        wanted = options["confirm"] and result.get("confirm_needed")
        if wanted and not result.get("failed") and not self._task.check_mode:
            return self._confirm(result, arguments["package_digest"], options["confirm_seconds"], task_vars)
        return result

    def _confirm(self, result, package_digest, seconds, task_vars):
        """The new policy must let a new connection in; otherwise the host goes back by itself."""
        arguments = {"state": "confirmed", "generation": result["generation"], "package_digest": package_digest}
        try:
            self._connection.reset()
        except (AnsibleError, NotImplementedError, AttributeError):
            self._connection.close()
        try:
            confirmed = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            confirmed = {"failed": True, "msg": str(error)}
        if confirmed.get("failed") or confirmed.get("unreachable"):
            result.update(
                failed=True,
                confirmed=False,
                msg="The new policy was not confirmed over a new connection: {0}. The host goes back to the policy "
                "before by itself, {1} seconds after the new one came into force".format(
                    str(confirmed.get("msg", "")).strip().rstrip("."), seconds
                ),
            )
        else:
            result.update(confirmed=True, confirm_needed=False)
        return result
