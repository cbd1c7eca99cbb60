# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A document put in force on this host, confirmed, rolled back or removed. What changes is worked out from what the
kernel holds now; the result says the same in check mode as in earnest."""

from __future__ import annotations

import datetime
import errno
import json
from typing import Any, Iterable, Mapping, NamedTuple

from ..attest import certificate, evidence
from ..compile import programs as hooks
from ..compile import tables
from ..errors import EnforcerError, PolicyErrors, Problem
from ..host import lock
from ..host.store import Store
from ..kernel import generations, links, pins
from ..kernel.bpf import Kernel
from ..kernel.generations import NO_SLOT, SECOND, Live, Record
from ..policy import diff
from ..policy import soak as soaking
from ..policy.canonical import digest
from ..policy.model import Resolved
from ..resolve import encoding, hardlinks, resolver
from . import canary, coverage, drift, enforcer, history, lockout

CONFIRM_MARGIN_NS = SECOND  # a confirm this close to the deadline might come after it
_NOT_INSTALLED = Problem("host", "enforcer not installed", "", "run role exfil.guard.enforcer")
_KERNEL_REMEDIES = {
    errno.ENOMEM: "Free some memory and run again",
    errno.EPERM: "Run as root with CAP_BPF, CAP_SYS_ADMIN and CAP_PERFMON, as a task that no rule with `subjects` "
    "binds and that has read nothing labelled, and without lockdown=confidentiality",
}


class Compiled(NamedTuple):
    """A resolved policy as the kernel takes it, the canary's rules and hooks with it."""

    image: Any
    hooks: frozenset[str]
    rules: list[str]  # names, in order of their bits
    places: canary.Places
    labels: dict[str, int]


class _Wanted(NamedTuple):
    """What the document means here and now."""

    document: dict[str, Any]
    digest: str
    resolved: Resolved
    image: Any
    hooks: frozenset[str]
    rules: list[str]
    places: canary.Places
    labels: dict[str, int]
    kept: dict[str, Any] = {}  # what else is stored with it: the revision it was made from, what a soak replaces


def compiled(
    resolved: Resolved,
    system: Any,
    now: datetime.date,
    canary_folder: str,
    labels: Mapping[str, int],
    available: frozenset[str],
    sendpage: bool,
) -> Compiled:
    """The same for an apply and at boot, so that the first run after a reboot finds nothing to do. ``labels``: the bits
    that names have already; ``available``: the programs that are loaded; ``sendpage``: of the kernel's environment."""
    places = canary.find(system, canary_folder)
    image = tables.compile_policy(resolved, now, canary=places.denied, labels=labels)
    rules = tables.rule_bits(image)
    wanted = set(hooks.needed(resolved, now, sendpage)).union(links.IDENTITY_HOOKS)
    if canary.FILE_RULE in rules:
        wanted.add(canary.FILE_HOOK)
    if canary.NETWORK_RULE in rules:
        wanted.add(canary.NETWORK_HOOK)
    return Compiled(image, hooks.attached(wanted, available), rules, places, tables.labels_of(image.tables))


def apply(
    kernel: Kernel,
    system: Any,
    store: Store,
    document: dict[str, Any],
    *,
    now: datetime.date,
    check: bool = False,
    confirm_seconds: float = 60,
    canary_folder: str = canary.FOLDER,
    lock_path: str = lock.PATH,
    revision: str | None = None,
    soak: bool = False,
) -> dict[str, Any]:
    """``revision``: what the document was made from, kept with it. ``soak``: what is in force goes on, and what is new
    in ``document`` only reports."""
    work = (_apply, kernel, system, store, document, now, check, confirm_seconds, canary_folder, {}, revision, soak)
    if check:
        return _told(*work)
    with lock.hold("applying a policy", lock_path):
        return _told(*work)


def restore(
    kernel: Kernel,
    system: Any,
    store: Store,
    *,
    now: datetime.date,
    generation: int | None = None,
    revisions: Iterable[str] = (),
    check: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """An earlier generation's document applied again, under a new number. Which one: see history.find."""
    stored = history.find(history.generations(store), generation, revisions)
    result = apply(
        kernel, system, store, stored["document"], now=now, check=check, revision=stored.get("revision"), **options
    )
    return dict(result, restored=stored["generation"])


def confirm(
    kernel: Kernel, store: Store, generation: int | None, *, check: bool = False, lock_path: str = lock.PATH
) -> dict[str, Any]:
    """Makes the generation on trial the one that stays. Refused once the deadline has passed: the kernel has gone
    back to the fallback by itself. None: whichever is on trial, if one is."""
    if check:
        return _told(_confirm, kernel, store, generation, True)
    with lock.hold(
        "confirming {0}".format("the policy on trial" if generation is None else f"generation {generation}"), lock_path
    ):
        return _told(_confirm, kernel, store, generation, False)


def rollback(kernel: Kernel, store: Store, *, check: bool = False, lock_path: str = lock.PATH) -> dict[str, Any]:
    """Puts the fallback in force now."""
    if check:
        return _told(_rollback, kernel, store, True)
    with lock.hold("rolling back", lock_path):
        return _told(_rollback, kernel, store, False)


def remove(kernel: Kernel, store: Store, *, check: bool = False, lock_path: str = lock.PATH) -> dict[str, Any]:
    """No policy: nothing is denied, no hook attached, no document left. The enforcer stays loaded."""
    if check:
        return _told(_remove, kernel, store, True)
    with lock.hold("removing the policy", lock_path):
        return _told(_remove, kernel, store, False)


def _told(function: Any, *arguments: Any) -> dict[str, Any]:
    """What the kernel refuses on the way is told as an error of ours."""
    try:
        return function(*arguments)
    except OSError as error:
        what = f" ({error.filename})" if error.filename else ""
        stays = "; the old policy is in force" if function is _apply else ""
        raise EnforcerError(
            f"the kernel refuses: {error.strerror or error}{what}{stays}", _KERNEL_REMEDIES.get(error.errno or 0, "")
        ) from error


# ---- apply --------------------------------------------------------------------------------------------------------


def _apply(
    kernel: Kernel,
    system: Any,
    store: Store,
    document: dict[str, Any],
    now: datetime.date,
    check: bool,
    confirm_seconds: float,
    folder: str,
    last: Mapping[str, frozenset[str]] = {},
    revision: str | None = None,
    soak: bool = False,
) -> dict[str, Any]:
    version = enforcer.installed(kernel) if check else _installed(kernel)
    if not check:
        canary.prepare(folder)
    live = generations.read(kernel) if version else None
    before = store.load(live.generation) if live and live.generation else None
    kept: dict[str, Any] = {"revision": revision} if revision else {}
    soaked: list[str] = []
    if soak:
        replaced = _replaced(before)
        document, soaked = soaking.document(replaced, document)
        if document != replaced:
            kept["replaces"] = replaced
    wanted = _want(
        document,
        system,
        now,
        folder,
        tables.labels_of(live.tables) if live else {},
        pins.available_hooks(kernel, version) if version else hooks.before_install(kernel.lsm_hooks()),
        kernel.environment().sendpage,
        last,
    )._replace(kept=kept)
    warnings: list[str] = []
    if version is None or live is None:
        lacking = enforcer.prerequisites(kernel.environment())
        warnings.append("the enforcer is not installed yet: run without check mode installs it first")
        warnings.extend("{0}. {1}".format(*each) for each in lacking)
        result = _result(wanted, None, 1, True, _plan(None, wanted), _attaches(wanted.hooks), confirm_seconds, warnings)
        return dict(
            result, soaked=soaked, **drift.nowhere(store), **coverage.before_install(wanted.resolved, now, kernel)
        )
    _check_capability(kernel, version, wanted, now)
    locked = lockout.locked_out(wanted.resolved, system, now)
    wrong = generations.differences(wanted.image.tables, live.tables) if live.generation else {"policy": 1}
    # without it what the programs remember may be of a cred that is gone: a new generation forgets all of it
    attached = links.attached_hooks(kernel, version)
    forgetful = live.generation and links.CREDS_HOOK not in attached
    origins = drift.apart(
        kernel, live, before, _stored(wanted, live.generation, True), bool(wrong), attached, system, now, folder
    )
    if not wrong and not forgetful:
        result = _keep(kernel, store, version, live, before, wanted, attached, now, check, confirm_seconds, folder)
    else:
        found = hardlinks.look(wanted.resolved, system, now)
        result = _switch(
            kernel, store, version, live, before, wanted, attached, wrong, found, now, check, confirm_seconds, folder
        )
    result["warnings"].extend(locked)
    result.update(origins)
    available = pins.available_hooks(kernel, version)
    if check:
        attached = available
    elif result["changed"]:
        attached = links.attached_hooks(kernel, version)
    result["soaked"] = soaked
    result["warnings"].extend(_certify(kernel, store, version, result, check, bool(locked)))
    return dict(result, **coverage.told(wanted.resolved, now, kernel.environment(), available, attached))


def _certify(
    kernel: Kernel, store: Store, version: str, result: dict[str, Any], check: bool, locked_out: bool
) -> list[str]:
    """Last of all; a run that changed nothing repeats what its certificate says to be wrong."""
    tried = result.pop("canary", None)
    if check:
        return []
    if not result["changed"]:
        return (store.certificate() or {}).get("differences", [])
    try:
        return certificate.issue(kernel, store, version, tried)
    except PermissionError:
        if not locked_out:
            raise
        # it rules already, and cannot be read back from here; unconfirmed it ends by itself
        return ["no certificate is written: this very task is bound by the policy that it put in force"]


def _replaced(before: dict[str, Any] | None) -> dict[str, Any] | None:
    """The document that rules, without what an earlier soak put beside it."""
    if before is None:
        return None
    found: dict[str, Any] | None = before["replaces"] if "replaces" in before else before["document"]
    return found


def _installed(kernel: Kernel) -> str:
    version = enforcer.installed(kernel)
    if version is None:
        raise PolicyErrors([_NOT_INSTALLED])
    return version


def _want(
    document: dict[str, Any],
    system: Any,
    now: datetime.date,
    folder: str,
    labels: Mapping[str, int],
    available: frozenset[str],
    sendpage: bool,
    last: Mapping[str, frozenset[str]],
) -> _Wanted:
    resolved = resolver.resolve(document, system, last)
    return _Wanted(
        document, digest(document), resolved, *compiled(resolved, system, now, folder, labels, available, sendpage)
    )


def _check_capability(kernel: Kernel, version: str, wanted: _Wanted, now: datetime.date) -> None:
    """Complete or refused: no rule is left unenforced."""
    problems = []
    environment = kernel.environment()
    lsms = environment.lsms
    if "bpf" not in lsms:
        problems.append(
            Problem(
                "host",
                "bpf is not among the active Linux Security Modules ({0})".format(
                    ",".join(lsms) or "the list cannot be read"
                ),
                "",
                "Run role exfil.guard.enforcer; it adds bpf and reboots",
            )
        )
    available = pins.available_hooks(kernel, version)
    for rule in wanted.resolved.rules:
        alone = wanted.resolved._replace(rules=(rule,))
        for hook in sorted(hooks.here(hooks.needed(alone, now, environment.sendpage), available) - available):
            problems.append(
                Problem(
                    "rule " + rule.name,
                    f"this kernel's hook {hook} is not guarded",
                    "",
                    "Run role exfil.guard.enforcer on a kernel that has it, or drop the rule's action ({0})".format(
                        ", ".join(sorted(rule.deny))
                    ),
                )
            )
    for hook in sorted(wanted.hooks - available) if not problems else ():
        problems.append(
            Problem("host", f"the program for hook {hook} is not loaded", "", "Run role exfil.guard.enforcer")
        )
    if problems:
        raise PolicyErrors(problems)


def _stored(wanted: _Wanted, generation: int, confirmed: bool) -> dict[str, Any]:
    resolved = json.loads(json.dumps(encoding.to_json(wanted.resolved)))  # as it will be read back
    return {
        "generation": generation,
        "document": wanted.document,
        "digest": wanted.digest,
        "confirmed": confirmed,
        "resolved": resolved,
        "hooks": sorted(wanted.hooks),
        "image": wanted.image.digest(),
        "labels": wanted.labels,
        "applied_at": datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0).isoformat(),
        **wanted.kept,
    }


def _plan(before: dict[str, Any] | None, wanted: _Wanted) -> Any:
    return diff.compare(before, _stored(wanted, 0, False))


def _result(
    wanted: _Wanted,
    before: dict[str, Any] | None,
    generation: int,
    changed: bool,
    planned: Any,
    lines: Iterable[str],
    seconds: float,
    warnings: list[str],
) -> dict[str, Any]:
    text = "".join(line + "\n" for line in list(planned.lines) + list(lines))
    counts = dict(planned.counts)
    return {
        "changed": changed,
        "generation": generation,
        "digest_before": before["digest"] if before else None,
        "digest_after": wanted.digest,
        "rules": {key: counts.get(key, 0) for key in ("added", "removed", "changed")},
        "confirm_needed": bool(changed and seconds),
        "deadline_seconds": seconds if changed else 0,
        "warnings": warnings,
        "diff": {"prepared": text},
        "hooks": sorted(wanted.hooks),
    }


def _attaches(found: Iterable[str]) -> list[str]:
    return [f"+ hook {hook}" for hook in sorted(found)]


def _switch(
    kernel: Kernel,
    store: Store,
    version: str,
    live: Live,
    before: dict[str, Any] | None,
    wanted: _Wanted,
    attached: frozenset[str],
    wrong: dict[str, int],
    found: dict[str, Any],
    now: datetime.date,
    check: bool,
    confirm_seconds: float,
    folder: str,
) -> dict[str, Any]:
    """A new generation: all of it beside the old one, then one pointer store."""
    generation = generations.next_generation(live, store.numbers())
    warnings = hardlinks.lines(found)
    lines = []
    if live.generation and before is None:
        lines.append(f"! the document of generation {live.generation} is missing: all of the policy is shown as new")
    elif before and before["digest"] == wanted.digest and before.get("image") == wanted.image.digest():
        lines.extend(
            f"! table {name} of generation {live.generation} was changed from outside: {count} entries"
            for name, count in sorted(wrong.items())
        )
    elif before and before["digest"] == wanted.digest:
        lines.append(
            "~ the same document means something else on this host now: {0}".format(
                ", ".join("{0} ({1} entries)".format(*each) for each in sorted(wrong.items()))
            )
        )
    if live.expired:
        lines.append(_expired(live))
    lines.extend(_attaches(wanted.hooks - attached))
    planned = _plan(before, wanted)
    result = _result(wanted, before, generation, True, planned, lines, confirm_seconds, warnings)
    if check:
        return result

    stored = dict(_stored(wanted, generation, False), hardlinks=found)
    store.save(stored)
    try:
        generations.load(
            kernel, wanted.image, generation, wanted.hooks, version=version, confirm_seconds=confirm_seconds
        )
        result["canary"] = canary.try_it(kernel, wanted.rules, wanted.resolved, now, wanted.places, folder)
        warnings.extend(result["canary"])
    except Exception:
        _undo(kernel, version, live, generation, attached)
        raise
    if not confirm_seconds:
        _settle(kernel, store, version, stored)
    elif live.record:
        store.prune([generation, live.fallback_target[0]])
    return result


def _undo(kernel: Kernel, version: str, live: Live, generation: int, attached: frozenset[str]) -> None:
    """The record as it was; its generations have not been touched."""
    record = generations.read_record(kernel)
    if record and record.generation == generation:
        old = live.record or Record(0, 0, 0, NO_SLOT, NO_SLOT)
        if old.slot == NO_SLOT:  # remember the number: caches are tagged with it
            old = old._replace(fallback_generation=generation)
        try:
            generations.publish(kernel, old)
        except OSError as error:
            raise EnforcerError(
                f"generation {generation} does not work and cannot be taken back: {error.strerror}",
                "Run `exfil-guard rollback`, or wait: unconfirmed, it ends by itself",
            ) from error
    links.detach(kernel, version, links.attached_hooks(kernel, version) - attached)
    # the document stays, never confirmed: its number must not be given again


def _keep(
    kernel: Kernel,
    store: Store,
    version: str,
    live: Live,
    before: dict[str, Any] | None,
    wanted: _Wanted,
    attached: frozenset[str],
    now: datetime.date,
    check: bool,
    confirm_seconds: float,
    folder: str,
) -> dict[str, Any]:
    """The kernel decides as the document says already: mended is what is missing around it."""
    lines: list[str] = []
    warnings: list[str] = []
    lost = sorted(wanted.hooks - attached)
    lines.extend(f"+ hook {hook} (it was not attached)" for hook in lost)
    surplus = [] if live.pending else sorted(attached - wanted.hooks)
    lines.extend(f"- hook {hook} (no rule needs it)" for hook in surplus)
    uncounted = generations.missing_counters(kernel, wanted.image.tables)
    if uncounted:
        lines.append(f"+ counters of {len(uncounted)} rules (they were missing)")
    if live.expired:
        lines.append(_expired(live))
    if live.pending:
        lines.append(
            f"~ generation {live.generation} is not confirmed: its confirm window starts again"
            if confirm_seconds
            else f"~ generation {live.generation} is confirmed"
        )

    stored = _stored(wanted, live.generation, not live.pending or not confirm_seconds)
    # a revision under which nothing changed is not written down: the document has been there since an earlier one
    same = (
        before is not None
        and all(before.get(key) == stored[key] for key in stored if key not in ("applied_at", "revision"))
        and _is_soak(before) == _is_soak(stored)
    )
    planned = diff.Diff([], {})
    if before is None:
        lines.append(f"+ document of generation {live.generation} (it was missing)")
    elif not same and not live.pending:
        planned = _plan(before, wanted)
        if not list(planned.lines):
            lines.append(f"~ document of generation {live.generation} (it was not up to date)")
    if same and before:
        stored = before
    elif before and "hardlinks" in before:
        stored["hardlinks"] = before["hardlinks"]
    overdue = [] if live.pending else _overdue(store, live.generation)
    lines.extend(
        "~ document of generation {0}: not confirmed, after all".format(each["generation"]) for each in overdue
    )

    if not lines and not list(planned.lines):
        lines.extend(_outdated(kernel, store, version, live, stored))

    changed = bool(lines or list(planned.lines))
    trial = confirm_seconds if live.pending else 0
    result = _result(wanted, before, live.generation, changed, planned, lines, trial, warnings)
    if check or not changed:
        return result
    if not same:
        store.save(stored)
    for each in overdue:
        store.save(dict(each, confirmed=False))
    links.attach(kernel, version, lost)
    generations.add_counters(kernel, wanted.image.tables)
    if live.record and live.pending:
        deadline = kernel.boottime() + int(confirm_seconds * SECOND) if confirm_seconds else 0
        generations.publish(kernel, live.record._replace(deadline=deadline))
    elif live.record and live.expired:
        generations.publish(kernel, _back(live.record))
    result["canary"] = canary.try_it(kernel, wanted.rules, wanted.resolved, now, wanted.places, folder)
    warnings.extend(result["canary"])
    links.detach(kernel, version, surplus)
    if live.pending and not confirm_seconds:
        _settle(kernel, store, version, stored)
    return result


def _outdated(kernel: Kernel, store: Store, version: str, live: Live, stored: dict[str, Any]) -> list[str]:
    package = evidence.package(store)
    if package is None:
        return []  # in check mode, before the package is installed
    why = certificate.outdated(store.certificate(), evidence.read(kernel, version, live), stored, package)
    return [f"~ certificate of generation {live.generation} (it was {why})"] if why else []


def _is_soak(stored: dict[str, Any]) -> bool:
    return "replaces" in stored


def _expired(live: Live) -> str:
    number = live.record.generation if live.record else 0
    now = f"generation {live.generation} is in force again" if live.generation else "no policy is in force"
    return f"! generation {number} was not confirmed in time: {now}"


def _overdue(store: Store, generation: int) -> list[dict[str, Any]]:
    """Documents that boot would prefer to the one in force: left by a rollback that was killed."""
    found = (store.load(number) for number in store.numbers() if number > generation)
    return [each for each in found if each and each["confirmed"]]


def _back(record: Record) -> Record:
    """The fallback in force for good. The number that is given up is kept: caches are tagged with it."""
    return Record(
        record.fallback_generation if record.fallback_slot != NO_SLOT else 0,
        0,
        max(record.generation, record.fallback_generation),
        record.fallback_slot,
        NO_SLOT,
    )


def _settle(kernel: Kernel, store: Store, version: str, stored: dict[str, Any]) -> None:
    """After a confirm: the document says so, and only the hooks that it needs stay attached."""
    if not stored["confirmed"]:
        store.save(dict(stored, confirmed=True))
    needed = stored.get("hooks")
    if needed is not None:
        links.detach(kernel, version, links.attached_hooks(kernel, version) - set(needed))
    record = generations.read_record(kernel)
    store.prune([record.generation, record.fallback_generation] if record else [])


# ---- confirm, rollback, remove ------------------------------------------------------------------------------------


def _confirm(kernel: Kernel, store: Store, generation: int | None, check: bool) -> dict[str, Any]:
    version = _installed(kernel)
    record = generations.read_record(kernel)
    if generation is None:
        if record is None or record.slot == NO_SLOT:
            return {"changed": False, "generation": 0, "warnings": []}
        generation = record.generation
    if record is None or record.slot == NO_SLOT or record.generation != generation:
        raise EnforcerError(
            "generation {0} is not the one on trial{1}".format(
                generation, f": that is {record.generation}" if record and record.slot != NO_SLOT else ""
            ),
            "Apply the policy again and confirm the generation that this gives",
        )
    stored = store.load(generation)
    result = {"changed": True, "generation": generation, "warnings": []}
    if not record.deadline:
        mend = bool(stored and not stored["confirmed"])
        if mend and stored and not check:
            _settle(kernel, store, version, stored)
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
        _settle(kernel, store, version, stored)
    result["warnings"].extend(certificate.issue(kernel, store, version))
    if stored is None:
        result["warnings"].append(f"the document of generation {generation} is missing: apply the policy again")
    return result


def _rollback(kernel: Kernel, store: Store, check: bool) -> dict[str, Any]:
    version = _installed(kernel)
    live = generations.read(kernel)
    record = live.record
    if record is None or record.slot == NO_SLOT or (record.fallback_slot == NO_SLOT and record.fallback_generation):
        raise EnforcerError("there is no generation to go back to", "Apply the policy that is wanted")
    back = _back(record)
    result = {"changed": True, "generation": back.generation, "abandoned": record.generation, "warnings": []}
    if check:
        return result
    abandoned, target = store.load(record.generation), store.load(back.generation)
    if target is not None:
        needed = frozenset(target.get("hooks", ())) & pins.available_hooks(kernel, version)
        links.attach(kernel, version, needed)
    if abandoned and abandoned["confirmed"]:
        store.save(dict(abandoned, confirmed=False))
    generations.publish(kernel, back)
    if target is not None:
        _settle(kernel, store, version, target)
    elif back.slot == NO_SLOT:
        links.detach(kernel, version, links.attached_hooks(kernel, version))
    else:
        result["warnings"].append(f"the document of generation {back.generation} is missing: apply the policy")
    result["warnings"].extend(certificate.issue(kernel, store, version))
    return result


def _remove(kernel: Kernel, store: Store, check: bool) -> dict[str, Any]:
    version = enforcer.installed(kernel)
    lines: list[str] = []
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
    result = {
        "changed": bool(lines),
        "diff": {"prepared": "".join(line + "\n" for line in lines)},
        "warnings": [],
        "generation": 0,
        "document_before": stored["document"] if stored else None,
    }
    if check or not lines:
        return result
    if version:
        if record and in_force:
            newest = max(record.generation, record.fallback_generation)
            generations.publish(kernel, Record(0, 0, newest, NO_SLOT, NO_SLOT))
        links.detach(kernel, version, hooks)
        generations.clear_slots(kernel)
    store.clear()
    return result
