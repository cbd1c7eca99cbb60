# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is proved of each program, whatever the maps hold and whatever the kernel's memory says:

returns   It gives 0, -EPERM, or what an LSM before it gave, and that only where it was not 0; where it has seen that it
          was not 0, it does not give 0.
writes    It writes to its stack, to values of our maps and to events, and to nothing else.
audit     It gives -EPERM only where guard_verdict has said GUARD_DENY; where it could not be told who acts; where
          `trusted` said that the task may not touch what enforces, and not because of a rule that only reports; where
          a label could not be remembered, and some rule that asks for labels is not in audit mode, or its table is
          missing; or where something that it decides by could not be read, and nothing has settled that. That
          guard_verdict does not say so of a rule in audit mode is `verdict`.
closed    It gives -EPERM where guard_verdict said GUARD_DENY, where it could not be told who acts, and where a label
          was refused; but for what is asked about whether a task may touch what enforces. Where a table of the
          generation, or an entry of it, was missing on the way to an object's state, or the object or the endpoint
          could not be placed, it gives -EPERM or has settled that: guard_verdict was asked about some action as if
          every rule covered the object; none of the actions that are wanted is one that a rule which binds the task is
          about; every label that is named was given; an endpoint was looked up once more and found; or it was asked
          whether the object is what enforces, which has paths that can be placed, and no table was missing, or it was
          told. A generation without its policy table binds nobody.
once      The record that says which generation is in force is looked up once, so that all is decided under one. No byte
          of it is read twice, nor one of an entry of a cache that others write meanwhile, but for the version by which
          that shows. What an atomic instruction reads does not count: it sees what it changes.
binding   Where guard_bind says that it could not work out which rules bind the task, -EPERM is given, but where it was
          asked whether the task may touch what enforces. It is asked where there is a policy.

These lean on what some functions are for, which are known by their names; prove.py fails where one is not to be had.
What has happened on the way to an end is kept as a set of names, below; see world.Rules."""

from __future__ import annotations

from typing import Iterable

from arithmetic import EQUAL, NOT_EQUAL, Condition, Term, condition, low
from state import Pointer, State, Value, Violation

SET = 0x40  # any of these bits is set: BPF_JSET
ENTRY = 512  # bytes; none of those maps has larger ones
EPERM = 0xFFFFFFFF  # -EPERM, as an int without sign
ALLOW, AUDIT, DENY = 0, 1, 2
NAMES = ("returns", "writes", "audit", "closed", "binding", "once")

# what a program may deny for
DENIED, UNDECIDED, UNREMEMBERED, TAMPER = "denied", "undecided", "unremembered", "tamper"
LOST = "lost"  # a label could not be remembered, and nobody has asked whether that is to be denied
MISPLACED = "misplaced"  # guard_verdict was asked about a state though the object has none
ERROR = "error"  # what the object's state, or who acts, follows from could not be read
CLOSED = "closed"  # what was missing before is settled: guard_verdict was asked as if every rule covered the object
REFUSED = "refused"  # by an LSM before this one
UNBOUND = "unbound"  # guard_bind could not work out which rules bind the task
NO_POLICY = "without a policy"
ASKED = "asked"  # guard_verdict, in a function that asks about an object
WALKED = "walked"  # guard_walk came to a state, and missed nothing on the way
BROKEN = "broken"  # where it is told what enforces, a table or an entry was missing
TOLD = "told"
GROUNDLESS = "groundless"  # refuse_unlabelled was asked though nothing was lost

# tables without which an object's state, or who acts, is not known
OUTER = (
    "states",
    "edges",
    "bytes",
    "superblocks",
    "ids",
    "subjects",
    "destinations",
    "ipv4",
    "ipv6",
    "ports",
    "vsock",
    "devices",
)
ENTRIES = ("states", "bytes", "destinations")
# what enforces has paths where each can be placed: an object that can't be is none of it
PROTECTING = ("refuse_touch", "refuse_unmounting", "next_mount")
# functions that ask guard_verdict about an object -> their argument, and where in it the reasons are
PLACED = {
    "refuse_place": (3, (4,)),
    "allowed_place": (3, (4,)),
    "refuse_move": (3, (4, 16)),
    "allowed_endpoint": (3, (12,)),
}
# functions that work out which rules bind a task, and those that tell where its service and its executable are
WORKED_OUT, WHERE = ("guard_bind", "guard_join"), ("guard_service", "guard_executable")
# functions that ask about each action that is wanted -> their argument, and the actions that they know
EACH = {"refuse_place": (4, 0x7), "guard_refuse": (4, 0x7F8)}
# a label of the current task, or of another: 0 says that it could not be remembered
REMEMBERING = ("label_carrier", "carrier_of", "found_cell", "mark_write_ends", "spread")


# Maps that others change while a decision leans on them -> how many bytes of an entry are its version. Tables of a
# generation are frozen, a task writes its storage itself, and what labels are kept in only grows (proof/coq/Labels.v).
VERSIONS = {"control": 0, "known": 8, "covered": 8, "inodes": 4, "readings": 8}
# all whose names matter: were one of them inlined, or called otherwise, what is said of it would say nothing
NAMED = frozenset(
    {
        "guard_verdict",
        "guard_tell",
        "guard_step",
        "guard_depth",
        "guard_walk",
        "guard_place",
        "work_out",
        "actions_of",
        "learn_covering",
        "labels_of_state",
        "trusted",
        "may_touch",
        "refuse_unlabelled",
        "refuse_lost_label",
        *PROTECTING,
        *PLACED,
        *WORKED_OUT,
        *WHERE,
        *EACH,
        *REMEMBERING,
    }
)


class Rules:
    """``uses``: the offset of guard_policy.uses; ``denies_labels``: its bit GUARD_DENIES_LABELS."""

    refused: list[Condition] = []

    def __init__(self, uses: int, denies_labels: int) -> None:
        self.uses, self.denies_labels = f"policy+{uses}#", denies_labels

    def arguments(self, before: Term | None) -> None:
        """``before``: what an LSM before the next program has given; None: the hook gives nothing."""
        self.refused = [] if before is None else [condition(NOT_EQUAL, 64, low(before, width), 0) for width in (32, 64)]

    def arrived(self, state: State, function: str) -> None:
        if state.inputs is None:
            state.ghost -= {CLOSED}  # there is nobody that it would tell anything
        if any(each in state.facts for each in self.refused):
            state.ghost |= {REFUSED}
        if (
            function in EACH
            and ASKED not in state.ghost
            and (ERROR in state.ghost or CLOSED not in state.ghost)
            and _none_wanted(state, *EACH[function])
        ):
            state.ghost = settled(state.ghost) | {CLOSED}  # nobody who is bound is concerned

    def precise(self, function: str) -> bool:
        # they answer by the verdict that they are given, and by whether the object was placed
        return function.startswith("tell_") or function in PLACED or function == "labels_of_state"

    def missed(self, state: State, table: str, kind: str, function: str) -> None:
        if table == "policy" and function == "refuse_unlabelled":
            state.ghost |= {NO_POLICY}
        elif table == "policy":
            state.ghost = settled(state.ghost) | {CLOSED}  # without it nobody is bound
        elif table in ("ids", "subjects") and kind == "outer" and function in WORKED_OUT:
            state.ghost |= {UNBOUND}
        elif (table in OUTER and kind == "outer") or (table in ENTRIES and kind == "array"):
            state.ghost |= {ERROR, BROKEN} if function in PROTECTING else {ERROR}
        elif (table == "carriers" and kind == "full") or table == "marks":
            state.ghost |= {LOST}

    def before(self, state: State, callee: str, function: str) -> None:
        if (
            callee in ("refuse_unlabelled", "refuse_lost_label")
            and function != "refuse_lost_label"
            and LOST not in state.ghost
        ):
            state.ghost |= {GROUNDLESS}
        if callee != "guard_verdict":
            return
        covers = state.registers[2]
        state.ghost |= {ASKED}
        if covers == 0:
            state.ghost = settled(state.ghost) | {CLOSED}
        elif function in PLACED and not _placed(state, *PLACED[function]):
            state.ghost |= {MISPLACED}

    def after(self, state: State, function: str) -> None:
        self.arrived(state, function)
        result, ghost = state.registers[0], state.ghost
        if function == "guard_verdict" and result != ALLOW and result != AUDIT:
            ghost |= {DENIED}
        elif function == "guard_tell":
            ghost = frozenset()  # what it misses is told less, not decided otherwise
        elif (function == "guard_step" and result == EPERM) or (function == "guard_depth" and _negative(result)):
            ghost |= {ERROR}
        elif function == "guard_walk":
            if _may_be_zero(state, result):
                ghost |= {MISPLACED} if ERROR in ghost else {WALKED}
        elif function == "guard_place":  # it may have been found by another try
            placed = _field(state, 3, 4) == 0
            found = set() if placed and WALKED in ghost else {MISPLACED if placed else ERROR}
            ghost = settled(ghost) - {WALKED} | found
        elif function in WHERE:
            if ERROR in ghost and not _negative(result):
                ghost |= {MISPLACED}
            ghost = settled(ghost)
        elif function == "guard_bind":  # what could not be told of its service and its executable binds it
            ghost = settled(ghost) | ({UNBOUND} if result != 0 else set())
        elif function == "work_out" and result == 0:
            ghost = settled(ghost) | {UNDECIDED}
        elif function == "actions_of":  # every action where it can't tell: whoever decides on one of them looks again
            ghost = settled(ghost) | ({MISPLACED} if ERROR in ghost and result != 0xFFFFFFFF else set())
        elif function == "learn_covering":  # the same; and whoever wants none of them does not look
            ghost = settled(ghost) | ({ERROR} if result == 0xFFFFFFFF else {MISPLACED} if ERROR in ghost else set())
        elif function == "allowed_endpoint" and ASKED in ghost and ERROR not in ghost:
            ghost |= {CLOSED}  # it has looked again
        elif function == "labels_of_state":  # every label that is named where it can't tell
            if result is state.arguments[3] or result == state.arguments[3]:
                ghost = settled(ghost) | {CLOSED}
            elif ERROR in ghost or not _placed(state, 2, (4,)):
                ghost |= {MISPLACED}
        elif function == "trusted" and result == 0:
            ghost = settled(ghost) - {DENIED, UNDECIDED, UNBOUND}
            if _field(state, 2, 4) != AUDIT:
                ghost |= {TAMPER}
        elif function == "may_touch":
            ghost -= {DENIED}  # it was asked about another task
        elif function in PROTECTING:
            if result != 0 or TOLD in ghost:
                ghost -= {BROKEN}
            if BROKEN not in ghost:  # what has no place is not what enforces
                ghost = settled(ghost)
        elif function == "refuse_unlabelled" and result != 0:
            ghost = ghost - {LOST, NO_POLICY} | {UNREMEMBERED if self._denies(state) else LOST}
        elif function in REMEMBERING and result == 0:
            ghost |= {LOST}
        if function.startswith("refuse_") and result == 0:
            ghost -= {TAMPER, LOST}  # it has come to nothing
        ghost = ghost | {TOLD} if function.startswith("tell_") else ghost - {TOLD}
        if function not in PLACED and function not in EACH:
            ghost -= {ASKED}
        state.ghost = ghost - {NO_POLICY} if function == "refuse_unlabelled" else ghost

    def passed(self, ghost: frozenset[str], inner: frozenset[str]) -> frozenset[str]:
        return (settled(ghost) if CLOSED in inner else ghost) | inner

    def once(self, table: str, at: int | None, size: int) -> Iterable[int]:
        first = VERSIONS.get(table)
        if first is None:
            return ()
        return range(first, ENTRY) if at is None else range(max(first, at), at + size)

    def looked_up(self, table: str) -> bool:
        return table == "control"

    def _denies(self, state: State) -> bool:
        """Is some rule on labels not in audit mode, or the policy not to be had?"""
        if NO_POLICY in state.ghost:
            return True
        read = [name for fact in state.facts for name in _names(fact) if name.what[1].startswith(self.uses)]
        return any(not state.possible(condition(0x41, 64, name, self.denies_labels)) for name in read)


def settled(ghost: frozenset[str]) -> frozenset[str]:
    return ghost - {ERROR}


def _negative(result: Value) -> bool:
    """Is it known to be below 0, as an int?"""
    return isinstance(result, int) and result >> 31 & 1 == 1


def _may_be_zero(state: State, result: Value) -> bool:
    return result == 0 or (isinstance(result, Term) and state.possible(condition(EQUAL, 64, low(result, 32), 0)))


def _none_wanted(state: State, argument: int, known: int) -> bool:
    """Is it known that none of these actions is?"""
    wanted = state.arguments[argument]
    if isinstance(wanted, Term):
        return not state.possible(condition(SET, 64, wanted, known))
    return isinstance(wanted, int) and not wanted & known


def _field(state: State, argument: int, offset: int) -> Value:
    """4 bytes of what a function was given the address of."""
    at = state.arguments[argument]
    if not isinstance(at, Pointer) or at.region[0] != "stack" or not isinstance(at.offset, int):
        return None
    return state.read(at.region[1], at.offset + offset, 4)


def _placed(state: State, argument: int, reasons: tuple[int, ...]) -> bool:
    """Is the object known to have been placed?"""
    for offset in reasons:
        reason = _field(state, argument, offset)
        if isinstance(reason, Term) and not state.possible(condition(NOT_EQUAL, 64, reason, 0)):
            continue
        if reason != 0:
            return False
    return True


def _names(of: Condition | Term) -> list[Term]:
    found, left = [], [of]
    while left:
        one = left.pop()
        if one.what[0] == "name":
            found.append(one)
            continue
        parts = one.what[1] if one.what[0] in ("all", "any", "joined") else one.what[1:]
        left.extend(each for each in parts if isinstance(each, (Condition, Term)))
    return found


def violations(end: State, before: Term | None) -> list[Violation]:
    """Of one end of a program. ``before``: what an LSM before it gave; None: the hook gives nothing."""
    found, result, ghost = [], end.registers[0], end.ghost
    result = low(result, 32) if isinstance(result, (int, Term)) else result
    refused = REFUSED in ghost

    def tell(name: str, what: str) -> None:
        found.append(Violation(name, what, end.trace))

    if result not in (0, EPERM) and not (refused and before is not None and result is low(before, 32)):
        tell("returns", f"gives {_number(result)}")
    if result == 0 and refused:
        tell("returns", "allows what an LSM before it has refused")
    grounds = {DENIED, UNDECIDED, TAMPER, ERROR, *(() if GROUNDLESS in ghost else (UNREMEMBERED,))}
    if result != 0 and not refused and not ghost & grounds:
        tell(
            "audit",
            "denies though the verdict is not to deny"
            if LOST not in ghost
            else "denies because a label could not be remembered, though every rule on labels may be in audit mode",
        )
    if result != EPERM and not refused:
        for name, what in (
            (DENIED, "allows what guard_verdict denied"),
            (UNDECIDED, "allows though nobody knows who acts"),
            (UNREMEMBERED, "allows though a label could not be remembered"),
            (MISPLACED, "decides by a state though the object has none"),
            (ERROR, "allows though something that it decides by could not be read"),
        ):
            if name in ghost:
                tell("closed", what)
        if UNBOUND in ghost and DENIED not in ghost:
            tell("binding", "allows though it could not be worked out which rules bind the task")
    return [each for each in found if end.possible()]


def _number(value: Value) -> str:
    return str(value - (1 << 32) if value >> 31 else value) if isinstance(value, int) else "something else"
