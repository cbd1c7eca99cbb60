# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders, validates, merges and asserts the policies of many hosts here; none of them is reached."""

from __future__ import annotations

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

try:
    from ansible_collections.exfil.guard.plugins.plugin_utils._language import assertions, site
    from ansible_collections.exfil.guard.plugins.plugin_utils._language import document as _document
    from ansible_collections.exfil.guard.plugins.plugin_utils._language.problems import FragmentError
    from ansible_collections.exfil.guard.plugins.plugin_utils._plan import validation
except ImportError as error:  # jsonschema is all that Ansible does not bring itself
    LACKING = f"policies can't be read on this controller: {error}. Install jsonschema for Ansible's Python"
else:
    LACKING = ""

OPTIONS = {"policies": {"type": "str"}, "hosts": {"type": "list", "elements": "str"}, "junit": {"type": "str"}}


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(OPTIONS)

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(argument_spec=OPTIONS)
        if LACKING:
            raise AnsibleError(LACKING)
        hosts = options["hosts"] if options["hosts"] is not None else list(task_vars["ansible_play_hosts_all"])
        checked, warnings = {}, []
        for host in hosts:
            if host not in task_vars["hostvars"]:
                raise AnsibleError(f"the inventory has no host '{host}'")
            variables = dict(task_vars["hostvars"].raw_get(host), hostvars=task_vars["hostvars"])
            checked[str(host)] = self._check(options["policies"], variables, warnings)
        if options["junit"]:
            self._write(options["junit"], validation.junit(checked))
        text = validation.report(checked)
        self._display.display(text)
        wrong = sorted(host for host, each in checked.items() if each.problems)
        return {
            "changed": False,
            "failed": bool(wrong),
            "msg": text.splitlines()[0],
            "report": text,
            "invalid": wrong,
            "digests": {host: each.digest for host, each in checked.items() if each.digest},
            "warnings": warnings,
        }

    def _check(self, policies, variables, warnings):
        valid = validation.VALID
        try:
            folder = site.folder(self._loader, policies, variables)
            warnings.extend(each for each in site.stray(folder, variables) if each not in warnings)
            document = site.document(self._templar, folder, variables)
        except assertions.FailedAssertionsError as error:
            cases = [
                validation.Case(each.assertion, (str(each.problem),) if each.problem else ()) for each in error.outcomes
            ]
            return validation.Checked("", (validation.Case(valid), *cases))
        except FragmentError as error:
            return validation.Checked("", (validation.Case(valid, tuple(map(str, error.problems))),))
        except AnsibleError as error:  # no template, no folder
            return validation.Checked("", (validation.Case(valid, (error.message,)),))
        held = [validation.Case(assertions.describe(assertion)) for assertion in document["assertions"]]
        return validation.Checked(_document.digest(document), (validation.Case(valid), *held))

    def _write(self, path, content):
        path = self._loader.path_dwim(path)
        try:
            with open(path, "wb") as file:
                file.write(content)
        except OSError as error:
            raise AnsibleError(
                f"the JUnit file {path} cannot be written: {error.strerror}. Set `junit` to another"
            ) from error
