#!/usr/bin/python
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observes what tasks do on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: observe
short_description: Observe who does what on a host that has no policy yet
version_added: 0.2.0
description:
  - Records for a given time which files are opened and executed, which destinations are connected and sent to, which
    addresses are bound and listened on, which units start, and which directories are entered, with the names in them.
    Writes JSON lines, which schemas/observation.schema.json describes.
  - The observer never denies. Its BPF programs are attached at points that cannot deny, and are not pinned. The kernel
    removes them when the process exits. The host needs no enforcer, and a policy in force is not affected.
  - BCC compiles the programs for all actions except V(chdir) on the host. Role exfil.guard.observe installs and
    removes the required packages.
  - The task runs for the whole observation. Use C(async) for more than a minute, as the role does.
options:
  state:
    description:
      - V(observed) observes and writes the file.
      - V(stopped) ends a running observation early. Its file is written with everything observed so far.
    type: str
    choices: [observed, stopped]
    default: observed
  seconds:
    description: The duration of the observation in seconds, from 1 to 604800 (7 days).
    type: int
    default: 600
  file:
    description:
      - The file to write. It is replaced atomically when the observation ends. Only root may be able to write to its
        folder.
    type: path
    default: /var/lib/exfil-guard-observe/observed.jsonl
  actions:
    description: The actions to observe. V(chdir) alone requires only libbpf. All other actions require BCC.
    type: list
    elements: str
    choices: [read, write, execute, connect, send, reply, bind, listen, accept, chdir]
    default: [read, write, execute, connect, send, reply, bind, listen, accept, chdir]
  names:
    description: The maximum number of names that are listed of an entered directory, up to 1000.
    type: int
    default: 100
  object:
    description: Set by the action plugin. The BPF object for V(chdir), in Base64.
    type: str
  layout:
    description: Set by the action plugin. The content of bpf/observer/observe.h.
    type: str
  programs:
    description: Set by the action plugin. The content of bpf/observer/observe.bcc.c.
    type: str
requirements:
  - Python 3.8 or newer and libbpf 1.x on the host
  - Linux 6.1 or newer with BTF and cgroup v2 on the host
  - For all actions but V(chdir), Debian's python3-bpfcc and the headers of the running kernel on the host
notes:
  - Needs root on the host, with C(become=true).
attributes:
  check_mode:
    description: Can run in check mode. Reports exactly what a run would change.
    support: full
  diff_mode:
    description: Returns the changes line by line, in check mode the changes that a run would make.
    support: full
    details: Names the file that would be written. Its content cannot be predicted.
  idempotent:
    description: A second run with the same arguments changes nothing.
    support: none
    details: Each run makes a new observation.
  platform:
    description: The supported hosts.
    platforms: posix
    support: full
seealso:
  - module: exfil.guard.policy
author:
  - the exfil.guard authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Observe for a minute which directories are entered
  exfil.guard.observe:
    seconds: 60
    actions: [chdir]
    file: /root/observed.jsonl

- name: Observe for an hour, even if the connection is lost
  exfil.guard.observe:
    seconds: 3600
  async: 4200
  poll: 30

- name: End an observation
  exfil.guard.observe:
    state: stopped
"""

RETURN = r"""
file:
  description: The path of the file.
  returned: O(state=observed)
  type: str
  sample: /var/lib/exfil-guard-observe/observed.jsonl
lines:
  description: The number of lines in the file.
  returned: O(state=observed), not in check mode
  type: int
  sample: 1204
lost:
  description: The number of events that are missing in the file, by the table that was full.
  returned: O(state=observed), not in check mode
  type: dict
  sample: {subject: 0, object: 0, entry: 0, unit: 0}
lacking:
  description: Unmet requirements of this host. Outside check mode, the module fails if there are any.
  returned: O(state=observed), in check mode
  type: list
  elements: str
"""

import base64
import os
import sys
from typing import Any, Callable, Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common import respawn
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError, PolicyErrors
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.system import System
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.bpf import Kernel
from ansible_collections.exfil.guard.plugins.module_utils.observe import collect, records

SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's, for which python3-bpfcc is


def with_bcc(actions: Sequence[str]) -> None:
    """Starts the module again in the system's own Python if only that has BCC."""
    if not set(actions) & set(collect.COMPILED) or respawn.has_respawned():
        return
    try:
        import bcc  # noqa: F401 - only whether it is there
    except ImportError:
        if os.path.realpath(sys.executable) != os.path.realpath(
            SYSTEM_PYTHON
        ) and respawn.probe_interpreters_for_module([SYSTEM_PYTHON], "bcc"):
            respawn.respawn_module(SYSTEM_PYTHON)


def observe(
    parameters: dict[str, Any],
    kernel: Kernel,
    system: System,
    check: bool,
    run: Callable[..., dict[str, Any]] = collect.run,
) -> dict[str, Any]:
    """Observes and writes the file. In check mode, reports what the host lacks."""
    path, actions = parameters["file"], parameters["actions"]
    result = {
        "changed": True,
        "file": path,
        "diff": {
            "prepared": "observe for {} seconds: {}\n+ {}\n".format(
                parameters["seconds"], ", ".join(action for action in records.ACTIONS if action in actions), path
            )
        },
    }
    if check:
        lacking = []
        checks: tuple[Callable[[], object], ...] = (
            lambda: collect.check_options(parameters["seconds"], path, actions, parameters["names"]),
            lambda: collect.check_host(kernel, actions),
        )
        for run_check in checks:
            try:
                run_check()
            except PolicyErrors as error:
                lacking += [str(problem) for problem in error.problems]
            except EnforcerError as error:
                lacking.append(str(error))
        return dict(result, lacking=lacking)
    done = run(
        kernel,
        system,
        collect.Options(parameters["seconds"], path, actions, parameters["names"]),
        collect.Programs(
            base64.b64decode(parameters["object"] or ""), parameters["layout"] or "", parameters["programs"] or ""
        ),
    )
    return dict(result, **done)


def stopped(check: bool) -> dict[str, Any]:
    """Ends an observation that runs."""
    changed = bool(collect.holder()[0]) if check else collect.stop()
    return {"changed": changed, "diff": {"prepared": "- the observation that runs\n" if changed else ""}}


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["observed", "stopped"], "default": "observed"},
            "seconds": {"type": "int", "default": 600},
            "file": {"type": "path", "default": "/var/lib/exfil-guard-observe/observed.jsonl"},
            "actions": {
                "type": "list",
                "elements": "str",
                "choices": list(records.ACTIONS),
                "default": list(records.ACTIONS),
            },
            "names": {"type": "int", "default": 100},
            "object": {"type": "str"},
            "layout": {"type": "str"},
            "programs": {"type": "str"},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["state"] == "stopped":
            result = stopped(module.check_mode)
        else:
            with_bcc(module.params["actions"])
            result = observe(module.params, Kernel(), System(), module.check_mode)
    except PolicyErrors as error:
        module.fail_json(msg=str(error), problems=[problem._asdict() for problem in error.problems])
    except EnforcerError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg="{}{}".format(error.strerror or error, ": " + str(error.filename) if error.filename else "")
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
