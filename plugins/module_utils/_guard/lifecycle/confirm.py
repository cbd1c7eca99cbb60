# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Confirms a generation, rolls it back, or removes the policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..attest import certificate
from ..errors import EnforcerError
from ..host import dropins, lock
from ..host.protocols import Store
from ..host.stored import Stored
from ..kernel import generations, links, pins
from ..kernel.generations import NO_SLOT, SECOND
from ..kernel.protocol import Kernel
from ..layout import Record
from . import enforcer, next_boot
from .locking import explained, locked

CONFIRM_MARGIN_NS = SECOND  # a confirmation this close to the deadline could take effect after it


def confirm(
    kernel: Kernel, store: Store, generation: int | None, *, check: bool = False, lock_path: str = lock.PATH
) -> dict[str, Any]:
    """Makes the generation on trial permanent. ``generation``: None for the one on trial, if there is one. Raises
    EnforcerError after the deadline, when the kernel has already returned to the fallback."""
    what = "the policy on trial" if generation is None else f"generation {generation}"
    with locked(f"confirming {what}", check, lock_path), explained():
        return _confirm(kernel, store, generation, check)


def rollback(kernel: Kernel, store: Store, *, check: bool = False, lock_path: str = lock.PATH) -> dict[str, Any]:
    """Puts the fallback in force now."""
    with locked("rolling back", check, lock_path), explained():
        return _rollback(kernel, store, check)


def remove(kernel: Kernel, store: Store, *, check: bool = False, lock_path: str = lock.PATH) -> dict[str, Any]:
    """Removes the policy: no hook stays attached, and no document stays stored. The enforcer stays loaded."""
    with locked("removing the policy", check, lock_path), explained():
        return _remove(kernel, store, check)


def fallback_record(record: Record) -> Record:
    """The record that makes the fallback permanent. It keeps the highest number, because caches are tagged with it."""
    return Record(
        record.fallback_generation if record.fallback_slot != NO_SLOT else 0,
        0,
        max(record.generation, record.fallback_generation),
        record.fallback_slot,
        NO_SLOT,
    )


def settle(kernel: Kernel, store: Store, version: str, stored: Stored) -> None:
    """Completes a confirmation: marks the document as confirmed, makes other units wait for it if it says
    `boot: require`, and detaches the hooks that it does not need.

    A run that stops in between leaves no unit waiting for a policy that does not require it."""
    required = next_boot.requires(stored.document)
    if not required:
        next_boot.hold_back(store, False)
    if not stored.confirmed:
        store.save(replace(stored, confirmed=True))
    if required:
        next_boot.hold_back(store, True)
    needed = stored.hooks
    if needed is not None:
        links.detach(kernel, version, links.attached_hooks(kernel, version) - set(needed))
    record = generations.read_record(kernel)
    store.prune([record.generation, record.fallback_generation] if record else [])


def _confirm(kernel: Kernel, store: Store, generation: int | None, check: bool) -> dict[str, Any]:
    version = enforcer.require_installed(kernel)
    record = generations.read_record(kernel)
    if generation is None:
        if record is None or record.slot == NO_SLOT:
            return {"changed": False, "generation": 0, "warnings": []}
        generation = record.generation
    if record is None or record.slot == NO_SLOT or record.generation != generation:
        raise EnforcerError(
            "generation {} is not the one on trial{}".format(
                generation, f": that is {record.generation}" if record and record.slot != NO_SLOT else ""
            ),
            "Apply the policy again and confirm the generation that this gives",
        )
    stored = store.load(generation)
    warnings: list[str] = []
    result = {"changed": True, "generation": generation, "warnings": warnings}
    if not record.deadline:
        mend = bool(stored and not stored.confirmed)
        if mend and stored and not check:
            settle(kernel, store, version, stored)
        return dict(result, changed=mend)
    if kernel.boottime() + CONFIRM_MARGIN_NS >= record.deadline:
        back = f"generation {record.fallback_generation}" if record.fallback_slot != NO_SLOT else "no policy"
        raise EnforcerError(
            f"generation {generation} was not confirmed in time: {back} is in force",
            "Apply the policy again, with a longer confirm_seconds if the way here takes that long",
        )
    if check:
        return result
    generations.publish(kernel, record._replace(deadline=0))
    if stored is not None:
        settle(kernel, store, version, stored)
    warnings.extend(certificate.issue(kernel, store, version))
    if stored is None:
        warnings.append(f"the document of generation {generation} is missing: apply the policy again")
    return result


def _rollback(kernel: Kernel, store: Store, check: bool) -> dict[str, Any]:
    version = enforcer.require_installed(kernel)
    live = generations.read(kernel)
    record = live.record
    if record is None or record.slot == NO_SLOT or (record.fallback_slot == NO_SLOT and record.fallback_generation):
        raise EnforcerError("there is no generation to go back to", "Apply the policy that is wanted")
    back = fallback_record(record)
    warnings: list[str] = []
    result = {"changed": True, "generation": back.generation, "abandoned": record.generation, "warnings": warnings}
    if check:
        return result
    abandoned, target = store.load(record.generation), store.load(back.generation)
    if target is not None:
        needed = frozenset(target.hooks or ()) & pins.available_hooks(kernel, version)
        links.attach(kernel, version, needed)
    if abandoned and abandoned.confirmed:
        store.save(replace(abandoned, confirmed=False))
    generations.publish(kernel, back)
    if target is not None:
        settle(kernel, store, version, target)
    elif back.slot == NO_SLOT:
        next_boot.hold_back(store, False)
        links.detach(kernel, version, links.attached_hooks(kernel, version))
    else:
        warnings.append(f"the document of generation {back.generation} is missing: apply the policy")
    warnings.extend(certificate.issue(kernel, store, version))
    return result


def _remove(kernel: Kernel, store: Store, check: bool) -> dict[str, Any]:
    version = enforcer.installed(kernel)
    lines = dropins.lines(store.root, False)
    record = generations.read_record(kernel) if version else None
    in_force = record is not None and (record.slot != NO_SLOT or bool(record.deadline))
    if record and in_force:
        lines.append(f"- policy of generation {record.generation}")
    hooks = kernel.names(pins.links_path(kernel, version)) if version else []
    lines.extend(f"- hook {hook}" for hook in hooks)
    lines.extend(f"- document of generation {number}" for number in store.numbers())
    if store.certificate() is not None:
        lines.append("- certificate")
    stored = store.load(record.generation) if record and in_force else None
    result: dict[str, Any] = {
        "changed": bool(lines),
        "diff": {"prepared": "".join(line + "\n" for line in lines)},
        "warnings": [],
        "generation": 0,
        "document_before": stored.document if stored else None,
    }
    if check or not lines:
        return result
    next_boot.hold_back(store, False)
    if version:
        if record and in_force:
            newest = max(record.generation, record.fallback_generation)
            generations.publish(kernel, Record(0, 0, newest, NO_SLOT, NO_SLOT))
        links.detach(kernel, version, hooks)
        generations.clear_slots(kernel)
    store.clear()
    return result
