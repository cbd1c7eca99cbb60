# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Works out what a document changes on this host. Planning only reads; the change holds the lines that check mode shows
and the steps that a run takes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Callable, Iterable, List, NamedTuple, Optional

from ..attest import certificate, evidence
from ..compile import programs, tables
from ..errors import EnforcerError
from ..host import dropins
from ..host.stored import Stored
from ..kernel import generations, links, pins
from ..kernel.generations import NO_SLOT, SECOND, Live
from ..layout import Record
from ..policy import diff
from ..policy import soak as soaking
from ..resolve import encoding, hardlinks, resolver
from . import administration, canary, coverage, drift, enforcer, lockout, next_boot
from .confirm import fallback_record, settle
from .context import Context
from .target import Target, check_capability, compile_target

# A step gives the warnings of the self-test if it ran it, None otherwise.
Step = Callable[[], Optional[List[str]]]


@dataclass(frozen=True)
class State:
    """What the kernel and the store hold before the change.

    ``version``: of the enforcer. ``before``: the stored generation in force, None if it is missing. ``attached`` and
    ``available``: hooks whose program is attached, and hooks that have a program."""

    version: str
    live: Live
    before: Stored | None
    attached: frozenset[str]
    available: frozenset[str]


@dataclass(frozen=True)
class Change:
    """What a run does, and what its result says.

    ``state``: None if the enforcer is not installed; such a change cannot be executed. ``policy``: how the document
    differs from the one in force; ``details``: the other lines of the diff. ``deadline_seconds``: how long the
    generation is on trial. ``lockout``: warnings about a policy that binds the process that applies it; ``advice``: see
    administration, in check mode only."""

    context: Context
    target: Target
    state: State | None
    generation: int
    changed: bool
    policy: diff.Diff
    details: list[str]
    deadline_seconds: float
    warnings: list[str]
    steps: list[Step] = field(default_factory=list)
    lockout: list[str] = field(default_factory=list)
    differences: drift.Differences = field(default_factory=drift.Differences)
    soaked: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """The diff, line by line."""
        return [*self.policy.lines, *self.details]

    def result(self) -> dict[str, Any]:
        """The result of a run, as far as it is known before the run."""
        before = self.state.before if self.state else None
        counts = dict(self.policy.counts)
        return {
            "changed": self.changed,
            "generation": self.generation,
            "digest_before": before.digest if before else None,
            "digest_after": self.target.digest,
            "rules": {key: counts.get(key, 0) for key in ("added", "removed", "changed")},
            "confirm_needed": bool(self.changed and self.deadline_seconds),
            "deadline_seconds": self.deadline_seconds if self.changed else 0,
            "warnings": [*self.warnings, *self.lockout],
            "diff": {"prepared": "".join(line + "\n" for line in self.lines)},
            "hooks": sorted(self.target.hooks),
            "soaked": self.soaked,
            "advice": self.advice,
            **self.differences.to_json(),
        }

    def coverage(self, attached: frozenset[str]) -> coverage.Coverage:
        """Which rules are enforced if the programs of the hooks in ``attached`` are attached."""
        kernel, now = self.context.kernel, self.context.now
        if self.state is None:
            return coverage.before_install(self.target.resolved, now, kernel)
        return coverage.coverage(self.target.resolved, now, kernel.environment(), self.state.available, attached)


def plan(context: Context, document: dict[str, Any]) -> Change:
    """Compares ``document`` with what is in force. Raises PolicyErrors and EnforcerError if it cannot be applied."""
    version = enforcer.installed(context.kernel)
    if version is None:
        return _plan_without_enforcer(context, document)
    state = _read_state(context, version)
    target, soaked = _compile(context, document, state)
    check_capability(context, target, state.available)
    locked_out = lockout.locked_out(target.resolved, context.system, context.now)
    live = state.live
    differing = generations.differences(target.image.tables, live.tables) if live.generation else {"policy": 1}
    differences = drift.classify(
        context, live, state.before, target.stored(live.generation, True), state.attached, bool(differing)
    )
    # the kernel clears its caches of credentials by this hook; without it only a new generation makes them invalid
    stale_caches = bool(live.generation) and links.CREDS_HOOK not in state.attached
    if differing or stale_caches:
        change = _plan_new_generation(context, target, state, differing)
    else:
        change = _plan_repair(context, target, state)
    warnings = [*change.warnings, *resolver.notes(target.document, context.system, _last(state.before, document, True))]
    advice = administration.advice(target.resolved, context.system, context.now) if context.options.check else []
    return replace(change, lockout=locked_out, differences=differences, soaked=soaked, warnings=warnings, advice=advice)


def _read_state(context: Context, version: str) -> State:
    kernel = context.kernel
    live = generations.read(kernel)
    return State(
        version=version,
        live=live,
        before=next_boot.document(context.store, live.generation) if live.generation else None,
        attached=links.attached_hooks(kernel, version),
        available=pins.available_hooks(kernel, version),
    )


def _compile(context: Context, document: dict[str, Any], state: State | None) -> tuple[Target, list[str]]:
    """The target, and the names of rules that a soak makes report."""
    replaces: dict[str, Any] | None = None
    soaked: list[str] = []
    soak = False
    if context.options.soak:
        replaces = _replaced(state.before if state else None)
        document, soaked = soaking.document(replaces, document)
        soak = document != replaces
    last = _last(state.before if state else None, document, context.options.refresh)
    resolved = resolver.resolve(document, context.system, last)
    labels = tables.labels_of(state.live.tables) if state else {}
    available = state.available if state else programs.before_install(context.kernel.lsm_hooks())
    target = compile_target(context, document, resolved, labels, available)
    return replace(
        target, revision=context.options.revision or None, soak=soak, replaces=replaces if soak else None
    ), soaked


def _last(before: Stored | None, document: dict[str, Any], refresh: bool) -> resolver.Last:
    """What the document in force was resolved to. Of a stored generation that lacks something, nothing is used."""
    if before is None:
        return resolver.Last(refresh=refresh)
    try:
        resolved = encoding.from_json(before.resolved)
    except (KeyError, TypeError, ValueError):
        return resolver.Last(refresh=refresh)
    addresses = resolved.host_addresses if refresh else {}
    return resolver.Last(resolved, before.document == document, refresh, addresses)


def _replaced(before: Stored | None) -> dict[str, Any] | None:
    """The document in force, without the rules that an earlier soak added to it."""
    if before is None:
        return None
    return before.replaces if before.soak else before.document


def _policy_diff(before: Stored | None, target: Target) -> diff.Diff:
    return diff.compare(before.to_json() if before else None, target.stored(0, False).to_json())


def _attach_lines(hooks: Iterable[str]) -> list[str]:
    return [f"+ hook {hook}" for hook in sorted(hooks)]


def _plan_without_enforcer(context: Context, document: dict[str, Any]) -> Change:
    target, soaked = _compile(context, document, None)
    warnings = ["the enforcer is not installed yet: run without check mode installs it first"]
    warnings.extend("{}. {}".format(*item) for item in enforcer.prerequisites(context.kernel.environment()))
    return Change(
        context,
        target,
        state=None,
        generation=1,
        changed=True,
        policy=_policy_diff(None, target),
        details=_attach_lines(target.hooks),
        deadline_seconds=context.options.confirm_seconds,
        warnings=warnings,
        differences=drift.not_installed(context.store),
        soaked=soaked,
    )


# ---- a new generation -----------------------------------------------------------------------------------------------


def _plan_new_generation(context: Context, target: Target, state: State, differing: dict[str, int]) -> Change:
    """All tables of a new generation are written beside the old ones; one pointer then selects them."""
    store, live, options = context.store, state.live, context.options
    generation = generations.next_generation(live, store.numbers())
    linked = hardlinks.look(target.resolved, context.system, context.now)
    details = _reasons(target, state, differing)
    if live.expired:
        details.append(_expired(live))
    details.extend(_attach_lines(target.hooks - state.attached))
    kept = _damage(context, None)
    details.extend([*kept.lines, *_drop_in_lines(context, target, options.confirm_seconds)])
    stored = replace(target.stored(generation, False), hardlinks=linked)
    steps: list[Step] = [partial(store.save, stored), partial(_put_in_force, context, target, state, generation)]
    steps.extend(kept.steps)
    if not options.confirm_seconds:
        steps.append(partial(settle, context.kernel, store, state.version, stored))
    elif live.record:
        steps.append(partial(store.prune, [generation, live.fallback_target[0]]))
    return Change(
        context,
        target,
        state,
        generation=generation,
        changed=True,
        policy=_policy_diff(state.before, target),
        details=details,
        deadline_seconds=options.confirm_seconds,
        warnings=hardlinks.lines(linked),
        steps=steps,
    )


def _reasons(target: Target, state: State, differing: dict[str, int]) -> list[str]:
    """Why the tables differ although the document does not."""
    live, before = state.live, state.before
    if live.generation and before is None:
        return [f"! the document of generation {live.generation} is missing: all of the policy is shown as new"]
    if not before or before.digest != target.digest:
        return []
    counts = sorted(differing.items())
    if before.image == target.image.digest():
        return [
            f"! table {name} of generation {live.generation} was changed from outside: {count} entries"
            for name, count in counts
        ]
    changed = ", ".join(f"{name} ({count} entries)" for name, count in counts)
    return [f"~ the same document means something else on this host now: {changed}"]


def _put_in_force(context: Context, target: Target, state: State, generation: int) -> list[str]:
    """Loads the generation and runs the self-test; restores the old record if either fails."""
    try:
        generations.load(
            context.kernel,
            target.image,
            generation,
            target.hooks,
            version=state.version,
            confirm_seconds=context.options.confirm_seconds,
        )
        return _self_test(context, target)
    except Exception:
        _undo(context, state, generation)
        raise


def _self_test(context: Context, target: Target) -> list[str]:
    return canary.run(
        context.kernel, target.rules, target.resolved, context.now, target.places, context.options.paths.canary
    )


def _undo(context: Context, state: State, generation: int) -> None:
    """Publishes the record as it was; the generations that it names were not changed."""
    kernel = context.kernel
    record = generations.read_record(kernel)
    if record and record.generation == generation:
        old = state.live.record or Record(0, 0, 0, NO_SLOT, NO_SLOT)
        if old.slot == NO_SLOT:  # caches are tagged with the number, so it must not be used again
            old = old._replace(fallback_generation=generation)
        try:
            generations.publish(kernel, old)
        except OSError as error:
            raise EnforcerError(
                f"generation {generation} does not work and cannot be taken back: {error.strerror}",
                "Run `exfil-guard rollback`, or wait: without a confirmation it ends by itself",
            ) from error
    links.detach(kernel, state.version, links.attached_hooks(kernel, state.version) - state.attached)
    # the document stays unconfirmed in the store, so that its number is not used again


# ---- the generation in force stays ----------------------------------------------------------------------------------


def _plan_repair(context: Context, target: Target, state: State) -> Change:
    """The tables already match the document; only hooks, counters and stored files are repaired."""
    live, options = state.live, context.options
    lost = sorted(target.hooks - state.attached)
    surplus = [] if live.pending else sorted(state.attached - target.hooks)
    details = [f"+ hook {hook} (it was not attached)" for hook in lost]
    details.extend(f"- hook {hook} (no rule needs it)" for hook in surplus)
    details.extend(_counter_and_trial_lines(context, target, live))
    stored, policy, document_lines = _plan_document(target, state, options.confirm_seconds)
    details.extend(document_lines)
    overdue = [] if live.pending else _overdue(context, live.generation)
    details.extend(f"~ document of generation {item.generation}: not confirmed, after all" for item in overdue)
    kept = _damage(context, live.generation)
    details.extend(kept.lines)
    trial_seconds = options.confirm_seconds if live.pending else 0
    drop_in_lines = _drop_in_lines(context, target, trial_seconds)
    details.extend(drop_in_lines)
    if not details and not policy.lines:
        details.extend(_outdated_certificate(context, state, stored))
    changed = bool(details or policy.lines)
    steps: list[Step] = []
    if changed:
        steps = _repair_steps(context, target, state, stored, overdue)
        steps.append(partial(_detach, context, state.version, surplus))
        steps.extend(kept.steps)
        if drop_in_lines and not live.pending:
            # never does a unit wait for a policy that is not stored
            steps.insert(len(steps) if next_boot.requires(target.document) else 0, partial(_hold_back, context, target))
        if live.pending and not options.confirm_seconds:
            steps.append(partial(settle, context.kernel, context.store, state.version, stored))
    return Change(
        context,
        target,
        state,
        generation=live.generation,
        changed=changed,
        policy=policy,
        details=details,
        deadline_seconds=trial_seconds,
        warnings=[],
        steps=steps,
    )


class _Damage(NamedTuple):
    """Damage of the stored documents: the lines of the diff, and the steps that repair it."""

    lines: list[str]
    steps: list[Step]


def _damage(context: Context, current: int | None) -> _Damage:
    """``current``: the generation in force, whose document another step writes again."""
    store = context.store
    lines = [f"~ {line}" for line in store.folder_problems()]
    steps: list[Step] = [store.mend_folders] if lines else []
    # without another document, boot takes one that was edited
    for number, reason in next_boot.damaged(store).items() if current or store.last_confirmed() else ():
        if number != current:
            lines.append(f"- document of generation {number} ({reason})")
            steps.append(partial(store.delete, number))
    return _Damage(lines, steps)


def _drop_in_lines(context: Context, target: Target, trial_seconds: float) -> list[str]:
    when = " (when the policy is confirmed)" if trial_seconds else ""
    required = next_boot.requires(target.document)
    return [line + when for line in dropins.lines(context.store.root, required)]


def _hold_back(context: Context, target: Target) -> None:
    next_boot.hold_back(context.store, next_boot.requires(target.document))


def _counter_and_trial_lines(context: Context, target: Target, live: Live) -> list[str]:
    lines = []
    uncounted = generations.missing_counters(context.kernel, target.image.tables)
    if uncounted:
        lines.append(f"+ counters of {len(uncounted)} rules (they were missing)")
    if live.expired:
        lines.append(_expired(live))
    if live.pending:
        lines.append(
            f"~ generation {live.generation} is not confirmed: its confirm window starts again"
            if context.options.confirm_seconds
            else f"~ generation {live.generation} is confirmed"
        )
    return lines


def _plan_document(target: Target, state: State, confirm_seconds: float) -> tuple[Stored, diff.Diff, list[str]]:
    """The generation to be stored (the one that is stored, if that is up to date), the difference, and lines."""
    live, before = state.live, state.before
    unchanged = diff.Diff([], {})
    stored = target.stored(live.generation, not live.pending or not confirm_seconds)
    if before is None:
        return stored, unchanged, [f"+ document of generation {live.generation} (it was missing)"]
    # a revision that changed nothing is not stored: the document is in force since an earlier one
    if replace(before, applied_at=stored.applied_at, revision=stored.revision, hardlinks=None) == stored:
        return before, unchanged, []
    stored = replace(stored, hardlinks=before.hardlinks)
    if live.pending:
        return stored, unchanged, []
    policy = _policy_diff(before, target)
    outdated = [f"~ document of generation {live.generation} (it was not up to date)"]
    return stored, policy, [] if policy.lines else outdated


def _repair_steps(context: Context, target: Target, state: State, stored: Stored, overdue: list[Stored]) -> list[Step]:
    kernel, store, record = context.kernel, context.store, state.live.record
    steps: list[Step] = []
    if stored is not state.before:
        steps.append(partial(store.save, stored))
    steps.extend(partial(store.save, replace(item, confirmed=False)) for item in overdue)
    steps.append(partial(_attach, context, state.version, sorted(target.hooks - state.attached)))
    steps.append(partial(generations.add_counters, kernel, target.image.tables))
    if record and state.live.pending:
        steps.append(partial(_restart_trial, context, record))
    elif record and state.live.expired:
        steps.append(partial(generations.publish, kernel, fallback_record(record)))
    steps.append(partial(_self_test, context, target))
    return steps


def _attach(context: Context, version: str, hooks: list[str]) -> None:
    links.attach(context.kernel, version, hooks)


def _detach(context: Context, version: str, hooks: list[str]) -> None:
    links.detach(context.kernel, version, hooks)


def _restart_trial(context: Context, record: Record) -> None:
    seconds = context.options.confirm_seconds
    deadline = context.kernel.boottime() + int(seconds * SECOND) if seconds else 0
    generations.publish(context.kernel, record._replace(deadline=deadline))


def _outdated_certificate(context: Context, state: State, stored: Stored) -> list[str]:
    package = evidence.package(context.store)
    if package is None:
        return []  # in check mode, before the package is installed
    running = evidence.read(context.kernel, state.version, state.live)
    reason = certificate.outdated(context.store.certificate(), running, stored, package)
    return [f"~ certificate of generation {state.live.generation} (it was {reason})"] if reason else []


def _expired(live: Live) -> str:
    number = live.record.generation if live.record else 0
    now = f"generation {live.generation} is in force again" if live.generation else "no policy is in force"
    return f"! generation {number} was not confirmed in time: {now}"


def _overdue(context: Context, generation: int) -> list[Stored]:
    """Confirmed generations newer than the one in force, which boot would prefer: an interrupted rollback left them."""
    store = context.store
    newer = (store.load(number) for number in store.numbers() if number > generation)
    return [stored for stored in newer if stored and stored.confirmed]
