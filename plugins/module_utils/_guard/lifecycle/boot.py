# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the units run: the last confirmed policy back in force at boot, and kept true to the host afterwards."""

from __future__ import annotations

import datetime
import json
from typing import Any

from ..attest import certificate
from ..compile import programs, tables
from ..errors import EnforcerError
from ..host import lock
from ..kernel import generations, links, pins
from ..layout import LIBRARY
from ..resolve import encoding, resolver
from . import apply, canary, enforcer

OBJECT = LIBRARY + "/guard.bpf.o"


def required(store: Any) -> bool:
    """Whether network and logins must wait for the policy. Unreadable documents count as none."""
    stored = store.last_confirmed()
    return bool(stored and stored["document"].get("boot") == "require")


def _object(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise EnforcerError(
            f"cannot read the enforcer's object {path}: {error.strerror}", "Run role exfil.guard.enforcer"
        ) from error


def boot(
    kernel: Any,
    system: Any,
    store: Any,
    now: datetime.date,
    *,
    object_path: str = OBJECT,
    canary_folder: str = canary.FOLDER,
    lock_path: str = lock.PATH,
) -> str:
    """Loads the enforcer and puts the last confirmed generation in force under its own number. Only devices are
    looked up: there is no directory service and no network yet."""
    with lock.hold("loading the policy at boot", lock_path):
        try:
            return _boot(kernel, system, store, now, _object(object_path), canary_folder)
        except OSError as error:
            raise EnforcerError(
                "the kernel refuses: {0} ({1})".format(error.strerror or error, error.filename or "bpf")
            ) from error


def _boot(kernel: Any, system: Any, store: Any, now: datetime.date, data: bytes, folder: str) -> str:
    stored = store.last_confirmed()
    if stored is None:
        enforcer.ensure(kernel, data)
        broken = store.numbers()
        if broken and all(store.load(number) is None for number in broken):
            raise EnforcerError(f"no document of {store.folder} can be read", "Run role exfil.guard.policy")
        return "no confirmed policy: nothing is denied"
    enforcer.ensure(kernel, data)
    version = enforcer.installed(kernel)
    live = generations.read(kernel)
    if version is None:
        raise EnforcerError("the enforcer is not loaded", "Run role exfil.guard.enforcer")
    if live.generation:
        return f"generation {live.generation} is in force already"
    resolved = resolver.renumber(stored["resolved"], system)
    canary.prepare(folder)
    places = canary.find(system, folder)
    image = tables.compile_policy(resolved, now, canary=places.denied, labels=stored.get("labels") or {})
    available = pins.available_hooks(kernel, version)
    wanted = set(programs.needed(resolved, now, kernel.environment().sendpage)).union(stored.get("hooks") or ())
    wanted = set(programs.attached(wanted.union(links.IDENTITY_HOOKS), available))
    lacking = sorted(wanted - available)
    if lacking:
        raise EnforcerError(
            "this kernel has no hook {0}, which the policy needs".format(", ".join(lacking)),
            "Boot the kernel that the policy was applied on",
        )
    generation = stored["generation"]
    if live.highest_generation >= generation:
        generation = generations.next_generation(live, store.numbers())
    generations.load(kernel, image, generation, wanted, version=version)
    renewed = dict(
        stored,
        generation=generation,
        image=image.digest(),
        hooks=sorted(wanted),
        resolved=json.loads(json.dumps(encoding.to_json(resolved))),
    )
    if renewed != stored:
        store.save(renewed)
    warnings = canary.try_it(kernel, tables.rule_bits(image), resolved, now, places, folder)
    warnings.extend(certificate.issue(kernel, store, version, list(warnings)))
    return "; ".join([f"generation {generation} is in force", *warnings])


def refresh(
    kernel: Any,
    system: Any,
    store: Any,
    now: datetime.date,
    *,
    canary_folder: str = canary.FOLDER,
    lock_path: str = lock.PATH,
) -> str:
    """Users, groups, units, mounts and host names of the confirmed document as they are now, and rules that have
    expired. A host name that does not resolve keeps the addresses it had. What someone changed behind our back is left
    for a play to report: this compares with what was applied."""
    with lock.hold("refreshing the policy", lock_path):
        try:
            return _refresh(kernel, system, store, now, canary_folder)
        except OSError as error:
            raise EnforcerError(
                "the kernel refuses: {0} ({1})".format(error.strerror or error, error.filename or "bpf")
            ) from error


def _refresh(kernel: Any, system: Any, store: Any, now: datetime.date, folder: str) -> str:
    stored = store.last_confirmed()
    if stored is None:
        return "no confirmed policy"
    version = enforcer.installed(kernel)
    if version is None:
        raise EnforcerError("enforcer not installed", "Start exfil-guard-boot.service or run role exfil.guard.enforcer")
    record = generations.read_record(kernel)
    if record and record.deadline and kernel.boottime() < record.deadline:
        return f"generation {record.generation} is on trial: nothing is refreshed before that is settled"
    in_force = record is not None and record.slot != generations.NO_SLOT and not record.deadline
    last = encoding.from_json(stored["resolved"]).host_addresses
    if in_force:
        image = tables.compile_policy(
            resolver.resolve(stored["document"], system, last),
            now,
            canary=canary.find(system, folder).denied,
            labels=stored.get("labels") or {},
        )
        if image.digest() == stored.get("image"):
            return "generation {0} is up to date".format(stored["generation"])
    # under the lock that is held already, so that no other run comes in between
    result = apply._apply(kernel, system, store, stored["document"], now, False, 0, folder, last)
    return "generation {0} is in force: {1}".format(result["generation"], _first(result["diff"]["prepared"]))


def _first(text: str) -> str:
    lines: list[str] = [line for line in text.splitlines() if line]
    return "; ".join(lines[:5]) + (" ..." if lines[5:] else "") if lines else "nothing else changed"
