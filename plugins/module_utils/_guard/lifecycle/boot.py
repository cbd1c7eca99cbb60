# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the systemd units run: `boot` puts the last confirmed policy in force, and `refresh` keeps its meaning up to
date."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Iterator

from ..attest import certificate
from ..errors import EnforcerError
from ..host import lock
from ..host.protocols import Store
from ..kernel import generations, pins, running
from ..resolve import encoding, resolver
from . import apply, canary, enforcer
from .context import Context
from .target import compile_target, encoded


def required(store: Store) -> bool:
    """Whether network and logins must wait for the policy. An unreadable document does not count."""
    stored = store.last_confirmed()
    return bool(stored and stored.document.get("boot") == "require")


def _object(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise EnforcerError(
            f"cannot read the enforcer's object {path}: {error.strerror}", "Run role exfil.guard.enforcer"
        ) from error


def boot(context: Context) -> str:
    """Loads the enforcer and puts the last confirmed generation in force under its own number. Looks up devices only:
    there is no directory service and no network yet."""
    paths = context.options.paths
    with lock.hold("loading the policy at boot", paths.lock), _explained():
        return _boot(context, _object(paths.object))


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnforcerError(f"the kernel refuses: {error.strerror or error} ({error.filename or 'bpf'})") from error


def _boot(context: Context, data: bytes) -> str:
    kernel, store = context.kernel, context.store
    stored = store.last_confirmed()
    enforcer.ensure(kernel, data)
    if stored is None:
        numbers = store.numbers()
        if numbers and all(store.load(number) is None for number in numbers):
            raise EnforcerError(f"no document of {store.folder} can be read", "Run role exfil.guard.policy")
        return "no confirmed policy: nothing is denied"
    version = enforcer.installed(kernel)
    live = generations.read(kernel)
    if version is None:
        raise EnforcerError("the enforcer is not loaded", "Run role exfil.guard.enforcer")
    if live.generation:
        return f"generation {live.generation} is in force already"
    resolved = resolver.renumber(stored.resolved, context.system)
    canary.prepare(context.options.paths.canary)
    available = pins.available_hooks(kernel, version)
    target = compile_target(context, stored.document, resolved, stored.labels or {}, available)
    missing = sorted(target.hooks - available)
    if missing:
        raise EnforcerError(
            "this kernel has no hook {}, which the policy needs".format(", ".join(missing)),
            "Boot the kernel that the policy was applied on",
        )
    generation = stored.generation
    if live.highest_generation >= generation:
        generation = generations.next_generation(live, store.numbers())
    generations.load(kernel, target.image, generation, target.hooks, version=version)
    renewed = replace(
        stored,
        generation=generation,
        image=target.image.digest(),
        hooks=sorted(target.hooks),
        resolved=encoded(resolved),
    )
    if renewed != stored:
        store.save(renewed)
    warnings = canary.run(kernel, target.rules, resolved, context.now, target.places, context.options.paths.canary)
    warnings.extend(certificate.issue(kernel, store, version, list(warnings)))
    return "; ".join([f"generation {generation} is in force", *warnings])


def refresh(context: Context) -> str:
    """Applies the confirmed document again if users, groups, units, mounts, host names or expired rules give it another
    meaning today. A host name that does not resolve keeps its addresses. This compares with what was applied; a play
    reports what somebody changed in the kernel."""
    with lock.hold("refreshing the policy", context.options.paths.lock), _explained():
        return _refresh(context)


def _refresh(context: Context) -> str:
    kernel, store = context.kernel, context.store
    stored = store.last_confirmed()
    if stored is None:
        return "no confirmed policy"
    version = enforcer.installed(kernel)
    if version is None:
        raise EnforcerError("enforcer not installed", "Start exfil-guard-boot.service or run role exfil.guard.enforcer")
    record = generations.read_record(kernel)
    if record and record.deadline and kernel.boottime() < record.deadline:
        return f"generation {record.generation} is on trial: nothing is refreshed before that is settled"
    last = encoding.from_json(stored.resolved)
    previous = resolver.Last(last, again=True, refresh=True, addresses=last.host_addresses)
    if record is not None and record.slot != generations.NO_SLOT and not record.deadline:
        resolved = resolver.resolve(
            stored.document,
            context.system,
            resolver.Last(last, again=True, refresh=True, addresses=last.host_addresses),
        )
        available = pins.available_hooks(kernel, version)
        target = compile_target(context, stored.document, resolved, stored.labels or {}, available)
        stopped = running.stopped(kernel, True)
        if stopped:
            raise EnforcerError(*stopped)
        if target.image.digest() == stored.image:
            notes = resolver.notes(stored.document, context.system, previous)
            return "; ".join([f"generation {stored.generation} is up to date", *notes])
    options = replace(context.options, check=False, confirm_seconds=0, refresh=True)
    # the lock is held already, so that no other run comes in between
    result = apply.run(replace(context, options=options), stored.document)
    text = "generation {} is in force: {}".format(result["generation"], _first(result["diff"]["prepared"]))
    return "; ".join([text, *resolver.notes(stored.document, context.system, previous)])


def _first(text: str) -> str:
    lines = [line for line in text.splitlines() if line]
    return "; ".join(lines[:5]) + (" ..." if lines[5:] else "") if lines else "nothing else changed"
