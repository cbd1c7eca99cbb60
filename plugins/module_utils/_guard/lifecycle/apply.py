# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a document in force. The kernel's state decides what changes; check mode gives the same result without the
steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Iterable

from ..attest import certificate
from ..errors import PolicyErrors
from ..kernel import links
from . import canary, enforcer, history
from .change import Change, State, plan
from .context import Context
from .locking import explained, locked


def apply(context: Context, document: dict[str, Any]) -> dict[str, Any]:
    """Puts ``document`` in force as ``context.options`` say. Raises EnforcerError and PolicyErrors."""
    options = context.options
    with locked("applying a policy", options.check, options.paths.lock), explained("; the old policy is in force"):
        return run(context, document)


def restore(context: Context, *, generation: int | None = None, revisions: Iterable[str] = ()) -> dict[str, Any]:
    """Applies the document of an earlier generation again, under a new number. ``generation`` and ``revisions``: see
    history.find."""
    stored = history.find(history.generations(context.store), generation, revisions)
    options = replace(context.options, revision=stored.revision)
    result = apply(replace(context, options=options), stored.document)
    return dict(result, restored=stored.generation)


def run(context: Context, document: dict[str, Any]) -> dict[str, Any]:
    """The same as `apply` for a caller that holds the lock already."""
    if context.options.check:
        change = plan(context, document)
        attached = change.state.available if change.state else frozenset()
        return dict(change.result(), **change.coverage(attached).to_json())
    enforcer.require_installed(context.kernel)
    canary.prepare(context.options.paths.canary)  # the plan compiles rules about these files
    return execute(plan(context, document))


def execute(change: Change) -> dict[str, Any]:
    """Runs the steps of ``change`` in order, writes the certificate and gives the result."""
    if change.state is None:
        raise PolicyErrors([enforcer.NOT_INSTALLED])
    canary_warnings: list[str] | None = None
    for step in change.steps:
        warnings = step()
        if warnings is not None:
            canary_warnings = warnings
    return _finish(change, change.state, canary_warnings)


def _finish(change: Change, state: State, canary_warnings: list[str] | None) -> dict[str, Any]:
    attached = links.attached_hooks(change.context.kernel, state.version) if change.changed else state.attached
    result = change.result()
    result["warnings"] = [
        *change.warnings,
        *(canary_warnings or ()),
        *change.lockout,
        *_certify(change, state, canary_warnings),
    ]
    return dict(result, **change.coverage(attached).to_json())


def _certify(change: Change, state: State, canary_warnings: list[str] | None) -> list[str]:
    """Writes the certificate and gives its warnings. A run that changed nothing repeats those of the last one."""
    context = change.context
    if not change.changed:
        return list((context.store.certificate() or {}).get("differences", []))
    try:
        return certificate.issue(context.kernel, context.store, state.version, canary_warnings)
    except PermissionError:
        if not change.lockout:
            raise
        # the policy is already active and this process may not read it back; without confirmation it expires
        return ["no certificate is written: this very task is bound by the policy that it put in force"]
