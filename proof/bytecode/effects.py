# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proofs assume about the functions and maps of the object: the tables EFFECTS and TABLES.

The prover executes every function. EFFECTS lists, by the function's name in C, what it assumes in addition about some
of them: what a returned value means, for example that guard_verdict returns GUARD_DENY when a rule denies. Nothing
follows from a name. A function that is not listed is executed without any assumed effect.

check_functions and check_maps reject a table that does not fit the object: an entry without its function or map, and a
function `refuse_*` without an entry. The latter is an error because a refusal that returns 0 discards the grounds that
it collected. Without its entry these grounds would still excuse a denial, so that the proof of `audit` would be weaker.

To add a function: add its entry, with one sentence about what the function is for, and compare that with the C."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Callable, Iterable, Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions
from marks import (
    ALL_ACTIONS,
    ALLOW,
    ASKED,
    AUDIT,
    BROKEN,
    CLOSED,
    DENIED,
    EMITTED,
    ERROR,
    LOST,
    MISPLACED,
    NO_STATE,
    TAMPER,
    UNBOUND,
    UNDECIDED,
    UNLABELLED,
    WALKED,
    Marks,
    field,
    is_negative,
    is_placed,
    may_be_zero,
    resolved,
)
from state import State, Value

FILE = "proof/bytecode/effects.py"
# the functions that exact.py and step.py compare with a reference
VERDICT, STEP = "guard_verdict", "guard_step"
# the actions on files and on other objects, as sets of bits
PATH_ACTIONS = sum(1 << action.number for action in actions.TABLE if action.object == actions.FILE)
ENDPOINT_ACTIONS = sum(
    1 << action.number for action in actions.TABLE if action.object not in (actions.FILE, actions.NOTHING)
)


class Return(NamedTuple):
    """A function that returns. ``label_rules_deny``: whether the path shows that a rule on labels is not in audit mode,
    or that the policy table is missing."""

    state: State
    marks: Marks
    label_rules_deny: Callable[[], bool]

    @property
    def result(self) -> Value:
        """The returned value."""
        return self.state.registers[0]


class Object(NamedTuple):
    """The argument that describes an object, and the offsets in it of the reasons why it has no state (0: it has)."""

    argument: int
    reasons: tuple[int, ...]


class Actions(NamedTuple):
    """The argument that is a set of actions, and those actions that the function decides about."""

    argument: int
    decided: int


class Effect(NamedTuple):
    """What is assumed about one function. The default of each field assumes nothing.

    purpose              One sentence: what the function is for.
    after                The marks after it returned.
    decides              It is guard_verdict: it decides about one action; its argument 2 is 0 to say that every rule
                         covers the object.
    decides_object       It calls guard_verdict about this object.
    decides_actions      It calls guard_verdict for each of these actions.
    binds                It computes which rules bind a task: a missing table of users or sets leaves them unknown.
    protects             It decides whether an object belongs to the enforcer. All paths of the enforcer have a state:
                         an object without one is not part of it.
    answers_lost_label   It may only be called after a label could not be stored.
    denies_without_policy  It treats a missing policy table as a rule that denies.
    discards_on_zero     It is a refusal: if it returns 0, the grounds that it collected excuse no later denial.
    emits                It emits an event.
    exact_inputs         Its result depends on the verdict or the object's state on its caller's stack, so that the
                         prover distinguishes all values there.
    shown                How a printed path shows it: its "calls" too, its "result" alone, or "nothing".
    """

    purpose: str
    after: Callable[[Return], Marks] | None = None
    decides: bool = False
    decides_object: Object | None = None
    decides_actions: Actions | None = None
    binds: bool = False
    protects: bool = False
    answers_lost_label: bool = False
    denies_without_policy: bool = False
    discards_on_zero: bool = False
    emits: bool = False
    exact_inputs: bool = False
    shown: Literal["calls", "result", "nothing"] = "calls"


# ---- what a return means ----------------------------------------------------------------------------------------


def _verdict(end: Return) -> Marks:
    return end.marks if end.result in (ALLOW, AUDIT) else end.marks | {DENIED}


def _event(_end: Return) -> Marks:
    return frozenset()  # a failure in guard_emit_event loses an event but cannot change a verdict


def _state_or_error(end: Return) -> Marks:
    return end.marks | {ERROR} if is_negative(end.result) else end.marks


def _step(end: Return) -> Marks:
    return end.marks | {ERROR} if end.result == NO_STATE else end.marks


def _walk(end: Return) -> Marks:
    if not may_be_zero(end.state, end.result):
        return end.marks
    return end.marks | ({MISPLACED} if ERROR in end.marks else {WALKED})


def _place(end: Return) -> Marks:
    """An error before is resolved if another try found the state."""
    placed = field(end.state, 3, 4) == 0
    if placed and WALKED in end.marks:
        return resolved(end.marks) - {WALKED}
    return resolved(end.marks) - {WALKED} | {MISPLACED if placed else ERROR}


def _attribute(end: Return) -> Marks:
    """A negative result says that it could not be determined."""
    misplaced = ERROR in end.marks and not is_negative(end.result)
    return resolved(end.marks | {MISPLACED} if misplaced else end.marks)


def _bind(end: Return) -> Marks:
    """A service or an executable that could not be determined matches the rules, so that an error is resolved."""
    return resolved(end.marks) | ({UNBOUND} if end.result != 0 else set())


def _compute_subject(end: Return) -> Marks:
    return resolved(end.marks) | {UNDECIDED} if end.result == 0 else end.marks


def _actions(end: Return) -> Marks:
    """It returns all actions where it cannot determine them; the caller then looks the object up again."""
    misplaced = ERROR in end.marks and end.result != ALL_ACTIONS
    return resolved(end.marks) | ({MISPLACED} if misplaced else set())


def _covering(end: Return) -> Marks:
    """It returns all actions where it cannot determine them; a caller that wants none of them does not look again."""
    if end.result == ALL_ACTIONS:
        return resolved(end.marks) | {ERROR}
    return resolved(end.marks) | ({MISPLACED} if ERROR in end.marks else set())


def _endpoint(end: Return) -> Marks:
    """It looked the endpoint up again, without an error."""
    return end.marks | {CLOSED} if ASKED in end.marks and ERROR not in end.marks else end.marks


def _labels_of_state(end: Return) -> Marks:
    """It returns its argument 3, every label that a rule names, where it cannot determine the file's labels."""
    every = end.state.arguments[3]
    if end.result is every or end.result == every:
        return resolved(end.marks) | {CLOSED}
    misplaced = ERROR in end.marks or not is_placed(end.state, 2, (4,))
    return end.marks | {MISPLACED} if misplaced else end.marks


def _trusted(end: Return) -> Marks:
    """0: the task may not modify the enforcer. The verdict at offset 4 of argument 2 says whether by audit rules."""
    if end.result != 0:
        return end.marks
    marks = resolved(end.marks) - {DENIED, UNDECIDED, UNBOUND}
    return marks if field(end.state, 2, 4) == AUDIT else marks | {TAMPER}


def _other_task(end: Return) -> Marks:
    return end.marks - {DENIED}  # the verdict was about another task


def _protected(end: Return) -> Marks:
    """A missing table is an error unless the object is taken for one of the enforcer's, or an event is emitted."""
    marks = end.marks
    if end.result != 0 or EMITTED in marks:
        marks -= {BROKEN}
    return marks if BROKEN in marks else resolved(marks)  # an object without a state does not belong to the enforcer


def _lost_label(end: Return) -> Marks:
    if end.result == 0:
        return end.marks
    return end.marks - {LOST} | {UNLABELLED if end.label_rules_deny() else LOST}


def _stored_label(end: Return) -> Marks:
    return end.marks | {LOST} if end.result == 0 else end.marks


# ---- the tables -------------------------------------------------------------------------------------------------


def _refusal(purpose: str) -> Effect:
    return Effect(purpose, discards_on_zero=True)


def _emitter(purpose: str) -> Effect:
    return Effect(purpose, emits=True, exact_inputs=True)


def _label_store(purpose: str) -> Effect:
    return Effect(f"{purpose} 0: the label could not be stored.", after=_stored_label)


EFFECTS: dict[str, Effect] = {
    # the decision
    VERDICT: Effect("Decides about one action by the rules.", after=_verdict, decides=True, shown="result"),
    "guard_bind": Effect("Computes which sets match a task; 0: done.", after=_bind, binds=True, shown="result"),
    "guard_select": Effect("Computes the rules of these sets; 0: done.", after=_bind, binds=True, shown="result"),
    "guard_join": Effect("Adds the rules of one set of subjects.", binds=True),
    "compute_subject": Effect("Computes the current task's rules; 0: it cannot.", after=_compute_subject),
    "guard_service": Effect("Finds the service's state by its cgroup; below 0: it cannot.", after=_attribute),
    "guard_former_service": Effect("Does so for the cgroup that the task was cloned out of.", after=_attribute),
    "guard_executable": Effect("Finds the executable's state; below 0: it cannot.", after=_attribute),
    # the object
    STEP: Effect("Makes one step of the path automaton; -1: it cannot.", after=_step),
    "guard_depth": Effect("Counts the components of a path; below 0: it cannot.", after=_state_or_error),
    "guard_walk": Effect("Walks a path through the automaton; 0: it found a state.", after=_walk, shown="result"),
    "guard_place": Effect("Finds the state of a path; its argument 3 receives the reason and the state.", after=_place),
    "actions_of": Effect("Finds the actions that rules on a file are about.", after=_actions),
    "compute_endpoint_actions": Effect("Finds the actions that rules on an endpoint are about.", after=_covering),
    "labels_of_state": Effect("Finds the labels that a file gives.", after=_labels_of_state, exact_inputs=True),
    # decisions about an object
    "allowed_place": Effect("Decides about one action on a file.", decides_object=Object(3, (4,)), exact_inputs=True),
    "allowed_endpoint": Effect(
        "Decides about one action on an endpoint.", after=_endpoint, decides_object=Object(3, (12,)), exact_inputs=True
    ),
    "guard_refuse": Effect("Decides about each action on an endpoint.", decides_actions=Actions(4, ENDPOINT_ACTIONS)),
    "refuse_place": Effect(
        "Decides about each action on a file.",
        decides_object=Object(3, (4,)),
        decides_actions=Actions(4, PATH_ACTIONS),
        discards_on_zero=True,
        exact_inputs=True,
    ),
    "refuse_move": Effect(
        "Decides about a rename or a link: the source and the target.",
        decides_object=Object(3, (4, 16)),
        discards_on_zero=True,
        exact_inputs=True,
    ),
    # the enforcer's own objects
    "may_modify_enforcer": Effect(
        "Decides whether the current task may modify the enforcer; 0: it may not.", after=_trusted
    ),
    "child_may_modify": Effect("Decides whether another task may modify the enforcer.", after=_other_task),
    "next_mount": Effect("Looks for the enforcer's files below one more mount.", after=_protected, protects=True),
    "refuse_tamper": Effect(
        "Denies to modify a file of the enforcer.", after=_protected, protects=True, discards_on_zero=True
    ),
    "refuse_unmounting": Effect(
        "Denies to unmount a file of the enforcer.", after=_protected, protects=True, discards_on_zero=True
    ),
    "refuse_tamper_object": _refusal("Denies to modify an object of the enforcer that has no path."),
    # labels
    "add_task_labels": _label_store("Adds labels to a task."),
    "task_label_of": _label_store("Finds or creates the record of a task's labels."),
    "ensure_label_group": _label_store("Creates a group of tasks that share labels."),
    "label_write_ends": _label_store("Adds a task's labels to the pipes that it can write to."),
    "propagate_to": _label_store("Adds labels to a channel and to its readers."),
    "refuse_unlabelled": Effect(
        "Decides whether the operation is denied because a label could not be stored.",
        after=_lost_label,
        answers_lost_label=True,
        denies_without_policy=True,
        discards_on_zero=True,
    ),
    "refuse_lost_label": Effect(
        "Calls refuse_unlabelled in hooks that decide about nothing else.",
        answers_lost_label=True,
        discards_on_zero=True,
    ),
    # events
    "guard_emit_event": Effect("Counts a decision and emits its event.", after=_event, shown="nothing"),
    "emit_plain": _emitter("Emits an event about an action without an object."),
    "emit_file": _emitter("Emits an event about a file."),
    "emit_abstract": _emitter("Emits an event about an abstract socket."),
    "emit_endpoint": _emitter("Emits an event about an endpoint."),
    # refusals
    "rules_lost": Effect("Computes which rules a change would lift; 0: it cannot.", after=_compute_subject),
    "refuse_change": _refusal("Denies a task a change that would lift a rule."),
    "refuse_identity": _refusal("Denies to write a file that changes a cgroup or the login user."),
    "refuse_named": _refusal("Denies an action to every task that a rule with subjects binds."),
    "refuse_action": _refusal("Denies an action without an object."),
    "refuse_addresses": _refusal("Denies one of several addresses of an SCTP socket."),
    "refuse_aliases": _refusal("Denies a file by any of its inode's names."),
    "refuse_backing": _refusal("Denies a file that an overlay's file is backed by."),
    "refuse_socket_send": _refusal("Denies data whose label a socket's channel cannot take."),
    "refuse_connect": _refusal("Denies to connect a socket."),
    "refuse_device": _refusal("Denies to open a device by its number."),
    "refuse_ptrace": _refusal("Denies to access another task's memory or descriptors."),
    "refuse_persistent_label": _refusal("Denies to open a file whose label cannot be loaded again."),
    "refuse_metadata_read": _refusal("Denies to read a link's target or an extended attribute."),
    "refuse_message": _refusal("Denies to send a message."),
    "refuse_unix_target": _refusal("Denies to connect or send to a UNIX socket by rules."),
    "refuse_own": _refusal("Denies a socket its own address."),
    "refuse_reading": _refusal("Denies to read a file whose label the task cannot take."),
    "refuse_open_file": _refusal("Denies actions on an open file."),
    "refuse_sending": _refusal("Denies to send to an address or to the connected peer."),
    "refuse_unix": _refusal("Denies to connect or send to a UNIX socket."),
    "refuse_unix_peer": _refusal("Denies to send to the connected UNIX socket."),
    "refuse_vsock": _refusal("Denies a vsock address."),
    "refuse_writing": _refusal("Denies to write to a file that cannot take the task's labels."),
    # nothing is assumed, but a printed path omits it
    "ptr_to_u64": Effect("Returns an address as a number.", shown="nothing"),
}

_NOTHING = Effect("")


class Table(NamedTuple):
    """What is assumed about one map, or about the maps that one map of maps holds. The default assumes nothing.

    version              Others may change an entry while a program decides by it. Its first bytes, this many, are a
                         version by which a reader detects that; None: nobody else changes an entry.
    single_lookup        A program may look it up at most once.
    decides              A missing inner map leaves an object's state, or the subject, unknown.
    decides_by_entry     So does a missing entry of an inner map that is an array.
    binds                In a function that computes which rules bind a task, a missing inner map leaves them unknown.
    policy               It is the policy table. Without it no rule binds anybody.
    label_room           If an entry cannot be created, a label could not be stored.
    label_entry          If an entry is missing, or cannot be created, a label could not be stored.
    """

    version: int | None = None
    single_lookup: bool = False
    decides: bool = False
    decides_by_entry: bool = False
    binds: bool = False
    policy: bool = False
    label_room: bool = False
    label_entry: bool = False


# The tables of a generation are frozen. Only the task itself writes its storage. The maps that hold labels change, but
# labels are only ever added (proof/coq/Labels.v).
TABLES: dict[str, Table] = {
    "policy": Table(policy=True),
    "states": Table(decides=True, decides_by_entry=True),
    "bytes": Table(decides=True, decides_by_entry=True),
    "destinations": Table(decides=True, decides_by_entry=True),
    "edges": Table(decides=True),
    "superblocks": Table(decides=True),
    "ids": Table(decides=True, binds=True),
    "subjects": Table(decides=True, binds=True),
    "ipv4": Table(decides=True),
    "ipv6": Table(decides=True),
    "ports": Table(decides=True),
    "vsock": Table(decides=True),
    "devices": Table(decides=True),
    "control": Table(version=0, single_lookup=True),
    "known": Table(version=8),
    "covered": Table(version=8),
    "inodes": Table(version=4),
    "readings": Table(version=8),
    "carriers": Table(label_room=True),
    "marks": Table(label_entry=True),
}

_NO_TABLE = Table()


class TableError(ValueError):
    """EFFECTS or TABLES does not fit the object."""


def effect(function: str) -> Effect:
    """What is assumed about a function. Raises TableError for a `refuse_*` that is not listed."""
    listed = EFFECTS.get(function)
    if listed is None and function.startswith("refuse_"):
        raise TableError(f"the object has a function {function} that EFFECTS does not list: add it in {FILE}")
    return listed or _NOTHING


def table(name: str) -> Table:
    """What is assumed about a map."""
    return TABLES.get(name, _NO_TABLE)


def check_functions(functions: Iterable[str]) -> None:
    """``functions``: all functions of the object. Raises TableError where EFFECTS does not fit them."""
    names = set(functions)
    for name in sorted(names):
        effect(name)
    _check_stale("EFFECTS", EFFECTS.keys() - names, "function")


def check_maps(maps: Iterable[str]) -> None:
    """``maps``: all maps of the object. Raises TableError where TABLES does not fit them."""
    _check_stale("TABLES", TABLES.keys() - set(maps), "map")


def _check_stale(where: str, stale: set[str], kind: str) -> None:
    if stale:
        raise TableError(f"{where} lists what the object has no {kind} for: {', '.join(sorted(stale))}; edit {FILE}")
