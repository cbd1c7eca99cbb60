# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The properties that are proved of each program, whatever the maps and the kernel's memory contain:

returns   The program returns 0, -EPERM, or the result of an LSM that ran before it where that is not 0. If it has seen
          that this result is not 0, it does not return 0.
writes    The program writes only to its stack, to values of our maps and to events.
audit     The program returns -EPERM only where guard_verdict returned GUARD_DENY; where the rules that bind the task
          could not be computed; where `may_modify_enforcer` found that the task may not modify the enforcer, and not
          because of an audit rule; where a label could not be stored, and some rule on labels is not in audit mode or
          the policy table is missing; or where data that the decision depends on could not be read, and that error was
          not resolved. That guard_verdict does not return GUARD_DENY for a rule in audit mode is the property `verdict`
          (exact.py).
closed    The program returns -EPERM where guard_verdict returned GUARD_DENY, where the rules that bind the task could
          not be computed, and where a lost label is denied; except for verdicts about whether a task may modify the
          enforcer. If a table of the generation, or an entry of it, was missing on the way to an object's state, or if
          the state of the object or the endpoint could not be determined, the program returns -EPERM or the error was
          resolved. An error is resolved by any of these: guard_verdict was called for some action as if every rule
          covered the object; no rule that binds the task is about the requested actions; the object gave every label
          that a rule names; the endpoint was looked up again and found; or the question was whether the object belongs
          to the enforcer (all of whose paths have a state), and no table was missing or an event was emitted. A
          generation without its policy table binds nobody.
once      The program looks up the record that names the active generation once, so that one generation decides. It
          does not read any byte of it twice, nor of an entry of a cache that others may write meanwhile, except for the
          version that detects such a write. Reads by atomic instructions do not count: they see the value they change.
binding   Where guard_bind could not compute which rules bind the task, the program returns -EPERM, except where the
          question was whether the task may modify the enforcer.

The proofs depend on assumptions about the purpose of some functions and maps. effects.py lists all of them. The state
of a path keeps a set of marks that record what happened on it (marks.py)."""

from __future__ import annotations

from typing import Iterable

from arithmetic import NOT_EQUAL, Condition, Term, condition, low
from effects import Return, effect, table
from marks import (
    ASKED,
    BROKEN,
    CLOSED,
    DENIED,
    EMITTED,
    ERROR,
    GROUNDLESS,
    LOST,
    MISPLACED,
    NO_POLICY,
    REFUSED,
    TAMPER,
    UNBOUND,
    UNDECIDED,
    UNLABELLED,
    Marks,
    is_placed,
    names_in,
    resolved,
    wants_none_of,
)
from state import State, Value, Violation

NOT_SET = 0x41  # the opposite of BPF_JSET
ENTRY_BYTES = 512  # no entry of a map with a version is larger
EPERM = 0xFFFFFFFF  # -EPERM, as an int without sign
NAMES = ("returns", "writes", "audit", "closed", "binding", "once")


class Rules:
    """How the marks of a path change.

    ``uses`` is the offset of guard_policy.uses, ``denies_labels`` its bit GUARD_DENIES_LABELS."""

    def __init__(self, uses: int, denies_labels: int) -> None:
        self.refused: list[Condition] = []  # that an earlier LSM's result is not 0
        self.uses, self.denies_labels = f"policy+{uses}#", denies_labels

    def begin(self, before: Term | None) -> None:
        """Prepares for the next program. ``before``: the result of an earlier LSM; None: the hook has no result."""
        self.refused = [] if before is None else [condition(NOT_EQUAL, 64, low(before, width), 0) for width in (32, 64)]

    def arrived(self, state: State, function: str) -> None:
        """See world.Rules.arrived: marks what the path shows about the earlier LSM and the requested actions."""
        if state.inputs is None:
            state.ghost -= {CLOSED}  # the program itself has no caller that this mark matters to
        if any(fact in state.facts for fact in self.refused):
            state.ghost |= {REFUSED}
        actions = effect(function).decides_actions
        if (
            actions is not None
            and ASKED not in state.ghost
            and (ERROR in state.ghost or CLOSED not in state.ghost)
            and wants_none_of(state, actions.argument, actions.decided)
        ):
            state.ghost = resolved(state.ghost) | {CLOSED}  # no rule that binds the task is about these actions

    def precise(self, function: str) -> bool:
        """See world.Rules.precise."""
        return effect(function).exact_inputs

    def missed(self, state: State, name: str, kind: str, function: str) -> None:
        """See world.Rules.missed: marks what the missing entry makes unknown."""
        missing, caller = table(name), effect(function)
        if missing.policy and caller.denies_without_policy:
            state.ghost |= {NO_POLICY}
        elif missing.policy:
            state.ghost = resolved(state.ghost) | {CLOSED}  # without it no rule binds anybody
        elif missing.binds and kind == "outer" and caller.binds:
            state.ghost |= {UNBOUND}
        elif (missing.decides and kind == "outer") or (missing.decides_by_entry and kind == "array"):
            state.ghost |= {ERROR, BROKEN} if caller.protects else {ERROR}
        elif missing.label_entry or (missing.label_room and kind == "full"):
            state.ghost |= {LOST}

    def before(self, state: State, callee: str, function: str) -> None:
        """See world.Rules.before: ``function`` is about to call ``callee``."""
        called, caller = effect(callee), effect(function)
        if called.answers_lost_label and not caller.answers_lost_label and LOST not in state.ghost:
            state.ghost |= {GROUNDLESS}
        if not called.decides:
            return
        covers = state.registers[2]
        state.ghost |= {ASKED}
        if covers == 0:
            state.ghost = resolved(state.ghost) | {CLOSED}
        elif caller.decides_object is not None and not is_placed(state, *caller.decides_object):
            state.ghost |= {MISPLACED}

    def after(self, state: State, function: str) -> None:
        """See world.Rules.after: applies the effect that is assumed about the function."""
        self.arrived(state, function)
        returned, marks = effect(function), state.ghost
        if returned.after is not None:
            marks = returned.after(Return(state, marks, lambda: self._label_rules_deny(state)))
        if returned.discards_on_zero and state.registers[0] == 0:
            marks -= {TAMPER, LOST}  # the refusal returned 0: the pending denial is discarded
        # these marks are about the current function or its last call
        marks = marks | {EMITTED} if returned.emits else marks - {EMITTED}
        if returned.decides_object is None and returned.decides_actions is None:
            marks -= {ASKED}
        state.ghost = marks - {NO_POLICY} if returned.denies_without_policy else marks

    def passed(self, ghost: Marks, inner: Marks) -> Marks:
        """See world.Rules.passed."""
        return (resolved(ghost) if CLOSED in inner else ghost) | inner

    def once(self, name: str, at: int | None, size: int) -> Iterable[int]:
        """See world.Rules.once: the bytes behind the version."""
        version = table(name).version
        if version is None:
            return ()
        return range(version, ENTRY_BYTES) if at is None else range(max(version, at), at + size)

    def looked_up(self, name: str) -> bool:
        """See world.Rules.looked_up."""
        return table(name).single_lookup

    def _label_rules_deny(self, state: State) -> bool:
        """Whether a rule on labels is not in audit mode, or the policy table is missing."""
        if NO_POLICY in state.ghost:
            return True
        uses = [name for fact in state.facts for name in names_in(fact) if name.what[1].startswith(self.uses)]
        return any(not state.possible(condition(NOT_SET, 64, name, self.denies_labels)) for name in uses)


def violations(end: State, before: Term | None) -> list[Violation]:
    """What one end of a program violates. ``before``: the result of an earlier LSM; None: the hook has no result."""
    found: list[Violation] = []
    result, ghost = end.registers[0], end.ghost
    result = low(result, 32) if isinstance(result, (int, Term)) else result
    refused = REFUSED in ghost

    def violate(name: str, what: str) -> None:
        found.append(Violation(name, what, end.trace))

    if result not in (0, EPERM) and not (refused and before is not None and result is low(before, 32)):
        violate("returns", f"returns {_number(result)}")
    if result == 0 and refused:
        violate("returns", "allows what an earlier LSM denied")
    grounds = {DENIED, UNDECIDED, TAMPER, ERROR, *(() if GROUNDLESS in ghost else (UNLABELLED,))}
    if result != 0 and not refused and not ghost & grounds:
        violate(
            "audit",
            "denies although the verdict is not to deny"
            if LOST not in ghost
            else "denies because a label could not be stored, although every rule on labels may be in audit mode",
        )
    if result != EPERM and not refused:
        for name, what in (
            (DENIED, "allows what guard_verdict denied"),
            (UNDECIDED, "allows although the rules that bind the task could not be computed"),
            (UNLABELLED, "allows although a label could not be stored"),
            (MISPLACED, "decides by a state although the object has none"),
            (ERROR, "allows although data that the decision depends on could not be read"),
        ):
            if name in ghost:
                violate("closed", what)
        if UNBOUND in ghost and DENIED not in ghost:
            violate("binding", "allows although it could not be computed which rules bind the task")
    return [violation for violation in found if end.possible()]


def _number(value: Value) -> str:
    return str(value - (1 << 32) if value >> 31 else value) if isinstance(value, int) else "something else"
