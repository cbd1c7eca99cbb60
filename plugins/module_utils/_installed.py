# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locates and imports the package that is installed on the host. Its file PACKAGE lists its files as sha256sum does;
the SHA-256 of PACKAGE is the package's digest. Private to this collection."""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import sys
import traceback
from typing import Any, Callable, Iterable, Protocol, Sequence, cast

from ansible.module_utils.basic import AnsibleModule

# Also in the package's layout.py, which cannot be imported before the package is located; a test compares them.
LIBRARY = "/usr/lib/exfil-guard"

PACKAGE_OPTIONS: dict[str, dict[str, Any]] = {
    "package_digest": {"type": "str"},
    "package": {"type": "str", "no_log": True},  # not secret, but a hundred kilobytes too long for a log
}


def installed(library: str = LIBRARY) -> str | None:
    """The digest of the installed package; None if there is none, or if one of its files was changed."""
    try:
        listed = _read(os.path.join(library, "PACKAGE"))
        for line in listed.decode("ascii").splitlines():
            digest, path = line.split("  ", 1)
            if hashlib.sha256(_read(path)).hexdigest() != digest:
                return None
    except (OSError, ValueError):
        return None
    return hashlib.sha256(listed).hexdigest()


def _read(path: str) -> bytes:
    if not os.path.isfile(path):  # opening a pipe would wait
        raise OSError(f"{path} is not a file")
    with open(path, "rb") as file:
        return file.read()


def locate(module: AnsibleModule) -> str:
    """Gives the folder to import from: the host's if the package of ``package_digest`` is installed, otherwise one
    inside the package that was sent. If none was sent, the module ends here and its result asks for it."""
    digest = installed()
    if digest is not None and digest == module.params["package_digest"]:
        return LIBRARY
    if module.params["package"] is None:
        module.exit_json(changed=False, package_required=True, installed=digest)
    path = os.path.join(module.tmpdir, "package.zip")
    with open(path, "wb") as file:
        file.write(base64.b64decode(module.params["package"]))
    return path + LIBRARY


class Event(Protocol):
    """An event that the kernel wrote."""

    def to_json(self) -> dict[str, Any]: ...


class Host(Protocol):
    """The operations of ``exfil_guard.host_api.Host`` that modules call."""

    def install(self, library: str, *, check: bool = False) -> dict[str, Any]: ...

    def uninstall(self, *, check: bool = False) -> dict[str, Any]: ...

    def installation_problems(self) -> tuple[str, ...]: ...

    def enforcer_problem(self, installation: Sequence[str]) -> str: ...

    def apply(
        self,
        document: dict[str, Any],
        *,
        check: bool = False,
        confirm_seconds: float = 60,
        revision: str | None = None,
        soak: bool = False,
        installation: tuple[str, ...] | None = None,
    ) -> dict[str, Any]: ...

    def restore(
        self,
        *,
        generation: int | None = None,
        revisions: Iterable[str] = (),
        check: bool = False,
        confirm_seconds: float = 60,
        installation: tuple[str, ...] | None = None,
    ) -> dict[str, Any]: ...

    def confirm(self, generation: int | None, *, check: bool = False) -> dict[str, Any]: ...

    def remove(self, *, check: bool = False) -> dict[str, Any]: ...

    def status(self) -> dict[str, Any]: ...

    def events(self, *, take: bool = False, limit: int | None = None) -> Sequence[Event]: ...

    def audit_records(self, *, since: str, limit: int) -> list[dict[str, Any]]: ...


class HostAPI(Protocol):
    """The part of the module ``exfil_guard.host_api`` that modules call. It is written down here a second time because
    Ansible would send the package to the host if this file imported it."""

    @property
    def EnforcerError(self) -> type[Exception]: ...  # noqa: N802 - the name of a class

    def this_host(self) -> Host: ...

    def failure(self, error: BaseException) -> dict[str, Any] | None: ...


def load(where: str) -> HostAPI:
    """Imports the package's API from ``where``, which `locate` gives."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, where)
    return cast(HostAPI, importlib.import_module("exfil_guard.host_api"))


def run(module: AnsibleModule, api: HostAPI, work: Callable[[], dict[str, Any]]) -> None:
    """Ends the module with the result of ``work``, or with a message if it fails."""
    try:
        result = work()
    except Exception as error:
        failure = api.failure(error)
        if failure is None:
            failure = {
                "msg": f"an error in exfil.guard itself: {type(error).__name__}: {error}",
                "exception": traceback.format_exc(),
            }
        module.fail_json(**failure)
    for warning in result.pop("warnings", []):
        module.warn(warning)
    # the result leaves out the large inputs: a controller keeps the results of all hosts
    arguments = {key: value for key, value in module.params.items() if key not in ("document", "package")}
    module.exit_json(invocation={"module_args": arguments}, **result)
