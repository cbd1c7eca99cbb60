# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders, validates, merges and asserts a host's policy on the controller, sends it to the host, and confirms it over
a new connection."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.exfil.guard.plugins.plugin_utils import _package
from ansible_collections.exfil.guard.plugins.plugin_utils._language import once

try:
    from ansible_collections.exfil.guard.plugins.plugin_utils._language import document, site
    from ansible_collections.exfil.guard.plugins.plugin_utils._language.problems import FragmentError, Problem
except ImportError as error:  # jsonschema is not a dependency of ansible-core
    LACKING = f"this controller cannot read policies: {error}. Install jsonschema for Ansible's Python"
else:
    LACKING = ""


MODULE = "exfil.guard.policy"
# the options that are sent to the host, by requested state
SENT = {
    "present": ("confirm_seconds", "revision", "soak"),
    "absent": (),
    "confirmed": ("generation",),
    "restored": ("confirm_seconds", "generation", "revisions"),
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """Action plugin exfil.guard.policy."""

    _VALID_ARGS = frozenset(
        ("policies", "state", "confirm_seconds", "confirm", "soak", "revision", "revisions", "generation")
    )

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Runs the task."""
        super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(
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
        variables = task_vars or {}
        warnings: list[str] = []
        advice: list[Problem] = []
        if options["state"] == "present":
            if LACKING:
                raise AnsibleError(LACKING)
            try:
                folder = site.folder(self._loader, options["policies"], variables)
                warnings.extend(site.stray(folder, variables))
                arguments["document"], advice = site.checked(self._templar, folder, variables)
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
        result = self._apply(arguments, options, variables)
        # the roles need only one key to decide which hosts to install the enforcer on
        result["enforcer_needed"] = bool(result.get("enforcer_needed") or result.get("package_required"))
        result["settled"] = not (result.get("failed") or result["enforcer_needed"] or result.get("unenforced"))
        if self._task.check_mode and result.get("pending"):
            result["document_after"] = arguments["document"]  # for callback exfil.guard.plan
        if advice and self._task.check_mode:
            result["advice"] = [*map(str, advice), *result.get("advice", ())]
        if warnings:
            result["warnings"] = [*result.get("warnings", ()), *warnings]
        return result

    def _apply(self, arguments: dict[str, Any], options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """The module's result, after the confirmation if one is needed."""
        result: dict[str, Any] = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        if result.get("package_required") and self._task.check_mode:
            arguments["package"] = _package.encoded()
            result = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        elif result.get("package_required"):
            result.update(
                failed=True,
                msg="The enforcer of this release is not installed on the host. Run role exfil.guard.enforcer",
            )
        confirm = options["confirm"] and result.get("confirm_needed")
        if confirm and not result.get("failed") and not self._task.check_mode:
            return self._confirm(result, arguments["package_digest"], options["confirm_seconds"], task_vars)
        return result

    def _confirm(
        self, result: dict[str, Any], package_digest: str, seconds: int, task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Confirms the policy over a new connection. If that fails, the host returns to the previous policy."""
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
                msg="The new policy was not confirmed over a new connection: "
                f"{str(confirmed.get('msg', '')).strip().rstrip('.')}. The host returns to the previous policy "
                f"{seconds} seconds after the new one came into force",
            )
        else:
            result.update(confirmed=True, confirm_needed=False)
        return result
