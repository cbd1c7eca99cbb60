# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the systemd units run: `boot` puts the last confirmed policy in force, and `refresh` keeps its meaning up to
date."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Iterator, NamedTuple

from ..attest import certificate
from ..errors import EnforcerError, PolicyErrors
from ..host import dropins, files, install, lock
from ..host.protocols import Store
from ..host.stored import Stored
from ..kernel import generations, pins, running
from ..kernel.generations import Live
from ..policy.model import Resolved
from ..resolve import encoding, resolver
from . import apply, canary, enforcer, next_boot
from .context import Context
from .target import Target, compile_target, encoded

_MANY = 3  # names in a line


def required(store: Store) -> bool:
    """Whether network and logins must wait for the policy: they do if the drop-ins are there, or the policy says so."""
    if dropins.present(store.root):
        return True
    return bool(next_boot.required(store))


def _object(path: str) -> bytes:
    try:
        return files.read(path)
    except OSError as error:
        raise EnforcerError(
            f"cannot read the enforcer's object {path}: {error.strerror}", "Run role exfil.guard.enforcer"
        ) from error


def boot(context: Context) -> str:
    """Loads the enforcer and puts in force the newest confirmed generation that can be, under its own number. Looks up
    devices only: there is no directory service and no network yet. Gives one line.

    It writes files, but none has to be written: the disk may be full or read-only."""
    paths = context.options.paths
    with contextlib.ExitStack() as stack, _explained():
        notes = []
        try:
            stack.enter_context(lock.hold("loading the policy at boot", paths.lock))
        except lock.UnusableError as error:
            notes.append(str(error))
        return "; ".join([_boot(context, _object(paths.object)), *notes, *_edited(context.store)])


def _edited(store: Store) -> list[str]:
    lines = install.file_problems(store.library, store.root)
    return [*lines[:_MANY], *([f"and {len(lines) - _MANY} more files"] if len(lines) > _MANY else [])]


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnforcerError(f"the kernel refuses: {error.strerror or error} ({error.filename or 'bpf'})") from error


def _boot(context: Context, data: bytes) -> str:
    kernel, store = context.kernel, context.store
    enforcer.ensure(kernel, data)
    version = enforcer.installed(kernel)
    if version is None:
        raise EnforcerError("the enforcer is not loaded", "Run role exfil.guard.enforcer")
    live = generations.read(kernel)
    if live.generation:
        return f"generation {live.generation} is in force already"
    notes: list[str] = []
    with _noted(notes, "the self-test"):
        canary.prepare(context.options.paths.canary)
    available = pins.available_hooks(kernel, version)
    for stored in _candidates(store, notes):
        try:
            loaded = _load(context, version, live, stored, available)
        except Exception as error:  # whatever a damaged document leads to, an older one may work
            notes.append(f"generation {stored.generation} cannot be loaded: {_text(error)}")
            continue
        return "; ".join([f"generation {loaded.generation} is in force", *notes, *_finish(context, version, loaded)])
    if notes and store.numbers():
        raise EnforcerError("; ".join(notes), "Run role exfil.guard.policy")
    if dropins.present(store.root):
        raise EnforcerError(
            "no policy is stored, but one that requires its boot was in force",
            "Run role exfil.guard.policy, also to remove it (state: absent)",
        )
    return "no confirmed policy: nothing is denied"


def _candidates(store: Store, notes: list[str]) -> Iterator[Stored]:
    """The confirmed generations, newest first. One that was edited comes last: it is better than none. ``notes`` gets
    what cannot be used."""
    edited = []
    for number in reversed(store.numbers()):
        try:
            problem, stored = store.problem(number), store.load(number, edited=True)
        except EnforcerError as error:
            problem, stored = str(error), None
        if problem:
            notes.append(f"generation {number} cannot be used: {problem}")
            if stored and stored.confirmed:
                edited.append(stored)
        elif stored and stored.confirmed:
            yield stored
    for stored in edited:
        notes.append(f"generation {stored.generation} is used as it is, because no other can be")
        yield stored


class _Loaded(NamedTuple):
    generation: int
    stored: Stored
    resolved: Resolved
    target: Target


def _load(context: Context, version: str, live: Live, stored: Stored, available: frozenset[str]) -> _Loaded:
    kernel = context.kernel
    resolved = resolver.renumber(stored.resolved, context.system)
    target = compile_target(context, stored.document, resolved, stored.labels or {}, available)
    missing = sorted(target.hooks - available)
    if missing:
        raise EnforcerError(
            "this kernel has no hook {}, which the policy needs".format(", ".join(missing)),
            "Boot the kernel that the policy was applied on",
        )
    generation = stored.generation
    if live.highest_generation >= generation:
        generation = generations.next_generation(live, context.store.numbers())
    generations.load(kernel, target.image, generation, target.hooks, version=version)
    return _Loaded(generation, stored, resolved, target)


def _finish(context: Context, version: str, loaded: _Loaded) -> list[str]:
    """Stores what the documents mean now, tests, and certifies. Gives warnings: the policy is in force whatever cannot
    be written. Raises EnforcerError if the self-test shows that the kernel does not deny."""
    kernel, store, target = context.kernel, context.store, loaded.target
    warnings: list[str] = []
    renewed = replace(
        loaded.stored,
        generation=loaded.generation,
        image=target.image.digest(),
        hooks=sorted(target.hooks),
        resolved=encoded(loaded.resolved),
    )
    if renewed != loaded.stored and store.load(loaded.stored.generation):  # an edited one stays as it is
        with _noted(warnings, "the document"):
            store.save(renewed)
    try:
        warnings.extend(
            canary.run(kernel, target.rules, loaded.resolved, context.now, target.places, context.options.paths.canary)
        )
    except OSError as error:
        warnings.append(f"the self-test could not run: {error.strerror or error}")
    with _noted(warnings, "the certificate"):
        warnings.extend(certificate.issue(kernel, store, version, list(warnings)))
    return warnings


@contextlib.contextmanager
def _noted(notes: list[str], what: str) -> Iterator[None]:
    """Makes a failure a note: what comes next does not need it."""
    try:
        yield
    except (EnforcerError, PolicyErrors, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        notes.append(f"{what}: {_text(error)}")


def _text(error: Exception) -> str:
    known = isinstance(error, (EnforcerError, PolicyErrors, OSError))
    return str(error) if known else f"{type(error).__name__}: {error}"


def refresh(context: Context) -> str:
    """Applies the confirmed document again if users, groups, units, mounts, host names or expired rules give it another
    meaning today. A host name that does not resolve keeps its addresses. This compares with what was applied; a play
    reports what somebody changed in the kernel.

    It loads the policy if boot did not: boot may have been too slow, or libbpf missing."""
    with lock.hold("refreshing the policy", context.options.paths.lock), _explained():
        return "; ".join([_refresh(context), *_held_back(context.store)])


def _held_back(store: Store) -> list[str]:
    """Repairs the drop-ins of `boot: require`, which an interrupted run may have left."""
    wanted = next_boot.required(store)
    return [] if wanted is None else next_boot.hold_back(store, wanted)


def _refresh(context: Context) -> str:
    kernel, store = context.kernel, context.store
    stored = store.last_confirmed()
    version = enforcer.installed(kernel)
    record = generations.read_record(kernel) if version else None
    if version is None or record is None:
        return _boot(context, _object(context.options.paths.object)) if store.numbers() else "no confirmed policy"
    if record.deadline and kernel.boottime() < record.deadline:
        return f"generation {record.generation} is on trial: nothing is refreshed before that is settled"
    in_force = record.slot != generations.NO_SLOT and not record.deadline
    if in_force and (stored is None or stored.generation != record.generation):
        raise EnforcerError(
            f"the document of generation {record.generation}, which is in force, cannot be used",
            "Run role exfil.guard.policy",
        )
    if stored is None:
        return "no confirmed policy"
    last = encoding.from_json(stored.resolved)
    previous = resolver.Last(last, again=True, refresh=True, addresses=last.host_addresses)
    if in_force:
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
