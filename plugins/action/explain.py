# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Explains the decision of a host's policy about an attempt, from its templates, without a connection to the host."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError
from ansible_collections.exfil.guard.plugins.module_utils._guard.explain import decision
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import model
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import resolver

try:
    from ansible_collections.exfil.guard.plugins.plugin_utils._language import assertions, site
    from ansible_collections.exfil.guard.plugins.plugin_utils._language.problems import FragmentError
except ImportError as error:  # jsonschema is not a dependency of ansible-core
    LACKING = f"this controller cannot read policies: {error}. Install jsonschema for Ansible's Python"
else:
    LACKING = ""

WHO = {
    "user": {"type": "str"},
    "groups": {"type": "list", "elements": "str"},
    "login_user": {"type": "str"},
    "service": {"type": "str"},
    "executable": {"type": "str"},
    "has_read": {"type": "list", "elements": "str"},
}
WHAT = {
    "action": {"type": "str"},
    "path": {"type": "str"},
    "address": {"type": "str"},
    "port": {"type": "int", "default": 443},
    "protocol": {"type": "str", "default": "tcp"},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """Action plugin exfil.guard.explain."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("policies", *WHO, *WHAT))

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Runs the task."""
        super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(
            argument_spec={"policies": {"type": "str"}, **WHO, **WHAT},
            mutually_exclusive=[("path", "address")],
            required_by={key: ["user"] for key in WHO if key != "user"},
        )
        if LACKING:
            raise AnsibleError(LACKING)
        try:
            variables = task_vars or {}
            folder = site.folder(self._loader, options["policies"], variables)
            document = site.document(self._templar, folder, variables)
            system = assertions.SymbolicSystem()
            answers, text = _answers(resolver.resolve(document, system), system, options)
        except FragmentError as error:
            return {"failed": True, "changed": False, "msg": f"The policy of this host is not valid. {error}"}
        except EnforcerError as error:
            return {"failed": True, "changed": False, "msg": str(error)}
        return {"changed": False, "answers": answers, "msg": text}


def _answers(
    policy: model.Resolved, system: assertions.SymbolicSystem, options: dict[str, Any]
) -> tuple[list[dict[str, Any]], str]:
    """The answers as data and as text."""
    attempts = decision.attempts(system, **{key: options[key] for key in WHAT})
    if options["user"] is None:
        permissions = decision.who_may(policy, site.today(), attempts)
        return [answer.to_json() for answer in permissions], decision.who_to_text(permissions)
    who = decision.task(system, **{key: options[key] for key in WHO if options[key] is not None})
    decisions = decision.explain(policy, who, site.today(), attempts)
    return [answer.to_json() for answer in decisions], decision.to_text(decisions)
