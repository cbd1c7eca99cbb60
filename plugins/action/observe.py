# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends the observer's programs to the host: the object for libbpf and the source for BCC."""

from __future__ import annotations

import base64
import os
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.exfil.guard.plugins.plugin_utils import _package

OBJECT = "roles/observe/files/observe.bpf.o"
LAYOUT, PROGRAMS = "bpf/observer/observe.h", "bpf/observer/observe.bcc.c"


def _read(path: str) -> bytes:
    with open(os.path.join(_package.COLLECTION, path), "rb") as file:
        return file.read()


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """Action plugin exfil.guard.observe."""

    _supports_async = True
    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Runs the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state", "observed") == "observed":
            arguments.update(
                object=base64.b64encode(_read(OBJECT)).decode("ascii"),
                layout=_read(LAYOUT).decode("utf-8"),
                programs=_read(PROGRAMS).decode("utf-8"),
            )
        asynchronous = bool(self._task.async_val) and not self._task.check_mode
        result.update(
            self._execute_module(
                "exfil.guard.observe", module_args=arguments, task_vars=task_vars, wrap_async=asynchronous
            )
        )
        return result
