# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that a module takes along: the way to the package that is installed on the host. PACKAGE lists every file of it
as sha256sum does; its own sha256 is the package's digest. Private to this collection."""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import sys
import traceback
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

# Also in the package's layout.py, which cannot be imported before the package is located; a test compares them.
LIBRARY = "/usr/lib/exfil-guard"

PACKAGE_OPTIONS: dict[str, dict[str, Any]] = {
    "package_digest": {"type": "str"},
    "package": {"type": "str", "no_log": True},  # not secret: a hundred kilobytes that no log should hold
}


def installed(library: str = LIBRARY) -> str | None:
    """The digest of the package in place; None when there is none, or a file of it is not as listed."""
    try:
        with open(os.path.join(library, "PACKAGE"), "rb") as file:
            listed = file.read()
        for line in listed.decode("ascii").splitlines():
            digest, path = line.split("  ", 1)
            with open(path, "rb") as file:
                if hashlib.sha256(file.read()).hexdigest() != digest:
                    return None
    except (OSError, ValueError):
        return None
    return hashlib.sha256(listed).hexdigest()


def locate(module: AnsibleModule) -> str:
    """Where to import from: the host when it has the package of ``package_digest``, else the one that was sent. When
    none was sent the module ends here and asks for it."""
    found = installed()
    if found is not None and found == module.params["package_digest"]:
        return LIBRARY
    if module.params["package"] is None:
        module.exit_json(changed=False, package_required=True, installed=found)
    path = os.path.join(module.tmpdir, "package.zip")
    with open(path, "wb") as file:
        file.write(base64.b64decode(module.params["package"]))
    return path + LIBRARY


_PLACES = {
    "apply": "lifecycle.apply",
    "certificate": "attest.certificate",
    "enforcer": "lifecycle.enforcer",
    "errors": "errors",
    "events": "audit.events",
    "explain": "explain.decision",
    "install": "host.install",
    "journal": "audit.journal",
    "kernel": "kernel.bpf",
    "lock": "host.lock",
    "pull": "host.pull",
    "records": "policy.model",
    "status": "report.status",
    "store": "host.store",
    "system": "host.system",
}


class Guard:
    """The package's modules by name: ``guard.apply.confirm(...)``."""

    def __init__(self, where: str) -> None:
        sys.dont_write_bytecode = True
        sys.path.insert(0, where)

    def __getattr__(self, name: str) -> Any:
        return importlib.import_module("exfil_guard." + _PLACES[name])


def run(module: AnsibleModule, guard: Guard, work: Callable[[], dict[str, Any]]) -> None:
    """Ends the module with what ``work`` gives. What goes wrong is told in words."""
    try:
        result = work()
    except guard.errors.PolicyErrors as error:
        module.fail_json(msg=str(error), problems=[problem._asdict() for problem in error.problems])
    except guard.errors.EnforcerError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg="{0}{1}".format(error.strerror or error, ": " + str(error.filename) if error.filename else "")
        )
    except Exception as error:  # pylint: disable=broad-except
        module.fail_json(
            msg=f"an error in exfil.guard itself: {type(error).__name__}: {error}", exception=traceback.format_exc()
        )
    for warning in result.pop("warnings", []):
        module.warn(warning)
    # what was sent would else come back with each result, and a controller keeps a thousand of them
    told = {key: value for key, value in module.params.items() if key not in ("document", "package")}
    module.exit_json(invocation={"module_args": told}, **result)
