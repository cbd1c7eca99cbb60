# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders, validates, merges and asserts the policies of many hosts on the controller, without connections to them."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

try:
    from ansible_collections.exfil.guard.plugins.plugin_utils._language import assertions, site
    from ansible_collections.exfil.guard.plugins.plugin_utils._language import document as _document
    from ansible_collections.exfil.guard.plugins.plugin_utils._language.problems import FragmentError
    from ansible_collections.exfil.guard.plugins.plugin_utils._plan import validation
except ImportError as error:  # jsonschema is not a dependency of ansible-core
    LACKING = f"this controller cannot read policies: {error}. Install jsonschema for Ansible's Python"
else:
    LACKING = ""

OPTIONS = {"policies": {"type": "str"}, "hosts": {"type": "list", "elements": "str"}, "junit": {"type": "str"}}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """Action plugin exfil.guard.validate."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(OPTIONS)

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Runs the task."""
        super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(argument_spec=OPTIONS)
        if LACKING:
            raise AnsibleError(LACKING)
        variables = task_vars or {}
        hosts = options["hosts"] if options["hosts"] is not None else list(variables["ansible_play_hosts_all"])
        checked: dict[str, validation.Checked] = {}
        warnings: list[str] = []
        hostvars = variables["hostvars"]
        for host in hosts:
            if host not in hostvars:
                raise AnsibleError(f"the inventory has no host '{host}'")
            own = dict(hostvars.raw_get(host), hostvars=hostvars)
            checked[str(host)] = self._check(options["policies"], own, warnings)
        if options["junit"]:
            self._write(options["junit"], validation.junit(checked))
        text = validation.report(checked)
        self._display.display(text)
        wrong = sorted(host for host, result in checked.items() if result.problems)
        return {
            "changed": False,
            "failed": bool(wrong),
            "msg": text.splitlines()[0],
            "report": text,
            "invalid": wrong,
            "digests": {host: result.digest for host, result in checked.items() if result.digest},
            "advice": {host: list(result.advice) for host, result in checked.items() if result.advice},
            "warnings": warnings,
        }

    def _check(self, policies: str | None, variables: dict[str, Any], warnings: list[str]) -> validation.Checked:
        """The checks of one host. Adds warnings that are not yet in ``warnings``."""
        valid = validation.VALID
        try:
            folder = site.folder(self._loader, policies, variables)
            warnings.extend(line for line in site.stray(folder, variables) if line not in warnings)
            document, advice = site.checked(self._templar, folder, variables)
        except assertions.FailedAssertionsError as error:
            cases = [
                validation.Case(outcome.assertion, (str(outcome.problem),) if outcome.problem else ())
                for outcome in error.outcomes
            ]
            return validation.Checked("", (validation.Case(valid), *cases))
        except FragmentError as error:
            return validation.Checked("", (validation.Case(valid, tuple(map(str, error.problems))),))
        except AnsibleError as error:  # no template, no folder
            return validation.Checked("", (validation.Case(valid, (error.message,)),))
        held = [validation.Case(assertions.describe(assertion)) for assertion in document["assertions"]]
        return validation.Checked(_document.digest(document), (validation.Case(valid), *held), tuple(map(str, advice)))

    def _write(self, path: str, content: bytes) -> None:
        path = self._loader.path_dwim(path)
        try:
            with open(path, "wb") as file:
                file.write(content)
        except OSError as error:
            raise AnsibleError(
                f"the JUnit file {path} cannot be written: {error.strerror}. Set `junit` to another"
            ) from error
