# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collects the modules' results in check mode, and shows a summary at the end of the playbook."""

from __future__ import annotations

DOCUMENTATION = r"""
name: plan
type: aggregate
short_description: Show what a run of exfil.guard would change, with equal hosts as one entry
version_added: 0.2.0
description:
  - Shows a summary at the end of C(playbooks/plan.yml) and C(playbooks/drift.yml) of this collection. Hosts with the
    same changes are one entry. A change is stricter or weaker by the decisions of both policies, not by their text.
  - Then ends Ansible with exit status 0 (no change), 2 (change or drift) or 1 (a host failed or was unreachable).
  - Has no effect on other playbooks. A play takes part if it has the variable C(exfil_guard_report) with the value
    V(plan) or V(drift).
  - It can replace the usual output (C(ANSIBLE_STDOUT_CALLBACK=exfil.guard.plan)) or follow it
    (C(ANSIBLE_CALLBACKS_ENABLED=exfil.guard.plan)).
options:
  json:
    description: A file for the summary as JSON.
    type: path
    env:
      - name: EXFIL_GUARD_PLAN_JSON
    ini:
      - section: callback_exfil_guard_plan
        key: json
  markdown:
    description: A file for the summary as Markdown, for a merge request.
    type: path
    env:
      - name: EXFIL_GUARD_PLAN_MARKDOWN
    ini:
      - section: callback_exfil_guard_plan
        key: markdown
requirements:
  - enabled as the stdout callback, or in C(callbacks_enabled)
  - jsonschema on the controller
author:
  - the exfil.guard authors (!UNKNOWN)
"""

import datetime
import json
import os
from typing import TYPE_CHECKING, Any

from ansible.plugins.callback import CallbackBase
from ansible_collections.exfil.guard.plugins.plugin_utils._plan import plan

if TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult
    from ansible.playbook.play import Play

MODULES = ("exfil.guard.policy", "exfil.guard.enforcer")
KINDS = ("plan", "drift")


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible-core has no types
    """Callback plugin exfil.guard.plan."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "exfil.guard.plan"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - passed on to Ansible
        super().__init__(*args, **options)
        self._kind: str | None = None
        self._results: dict[str, list[dict[str, Any]]] = {}  # results of the collection's modules by host, in order
        self._errors: dict[str, str] = {}  # error messages by host
        self._comparer = plan.Comparer(datetime.datetime.now(datetime.timezone.utc).date())

    def v2_playbook_on_play_start(self, play: Play) -> None:
        """Reads the kind of the report from the play's variables."""
        kind = play.get_vars().get("exfil_guard_report")
        if kind in KINDS:
            self._kind = str(kind)

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        """Records the result of one of the collection's modules."""
        if self._kind and result._task.resolved_action in MODULES:
            self._results.setdefault(result._host.get_name(), []).append(result._result)

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """Records the error of a failed task."""
        if self._kind and not ignore_errors:
            self._errors[result._host.get_name()] = str(
                result._result.get("msg") or "the task failed without a message"
            )

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        """Records that a host is unreachable."""
        if self._kind:
            message = str(result._result.get("msg") or "no answer")
            self._errors[result._host.get_name()] = f"unreachable: {message}"

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        """Shows and writes the summary, and ends Ansible with its exit status."""
        if not self._kind:
            return
        hosts = {host: plan.host_result(results, self._comparer) for host, results in self._results.items()}
        hosts.update({host: plan.HostResult(error=error) for host, error in self._errors.items()})
        entries = plan.group(hosts)
        status = plan.status(entries)
        self._display.display(plan.text(self._kind, entries))
        contents = {
            "json": json.dumps(plan.data(self._kind, entries), indent=2, sort_keys=True) + "\n",
            "markdown": plan.markdown(self._kind, entries),
        }
        for option, content in contents.items():
            if self.get_option(option) and not self._write(self.get_option(option), content):
                status = plan.ERROR
        if status != plan.NO_CHANGE:
            raise SystemExit(status)

    def _write(self, path: str, content: str) -> bool:
        try:
            with open(os.path.expanduser(path), "w", encoding="utf-8") as file:
                file.write(content)
        except OSError as error:
            self._display.error(f"{path} cannot be written: {error.strerror}")
            return False
        return True
