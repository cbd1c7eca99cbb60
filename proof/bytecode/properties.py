# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is proved of each program, whatever the maps hold and whatever the kernel's memory says:

returns   It gives 0, -EPERM, or what an LSM before it gave, and that only where it was not 0.
writes    It writes to its stack, to values of our maps and to events, and to nothing else.
audit     It gives -EPERM only where guard_verdict has said GUARD_DENY, or for one of these: nothing can be told of who
          acts, or of where the object is; what enforces is touched; a label could not be remembered, and some rule that
          asks for labels is not in audit mode. That guard_verdict does not say so of a rule in audit mode is `verdict`.
closed    Where guard_verdict said GUARD_DENY it gives -EPERM. So it does where it could not be told who acts. And where
          a table of the generation, or an entry of it, was missing on the way to an object's state, or the object could
          not be placed, and it was about more than whether that is what enforces, guard_verdict was asked as if every
          rule covered the object, or -EPERM is given; that there is an action to ask about is refuse_place's to see to.
          A generation without its policy table binds nobody.
binding   Where guard_bind says that it could not work out which rules bind the task, -EPERM is given. It is asked
          where there is a policy.

What has happened on the way to an end is kept as a set of names, below; see world.Rules."""

from __future__ import annotations

from typing import FrozenSet, List, NamedTuple, Optional, Tuple

from arithmetic import NOT_EQUAL, Condition, Term, condition, low
from state import Pointer, State, Trace, Value

EPERM = 0xFFFFFFFF  # -EPERM, as an int without sign
ALLOW, AUDIT, DENY = 0, 1, 2
NAMES = ("returns", "writes", "audit", "closed", "binding")

# what a program may deny for
DENIED, UNDECIDED, UNREMEMBERED, TAMPER = "denied", "undecided", "unremembered", "tamper"
LOST = "lost"  # a label could not be remembered, and nobody has asked whether that is to be denied
MISPLACED = "misplaced"  # guard_verdict was asked about a state though the object has none
ERROR = "error"  # what the object's state, or who acts, follows from could not be read
CLOSED = "closed"  # what was missing before is settled: guard_verdict was asked as if every rule covered the object
REFUSED = "refused"  # by an LSM before this one
UNBOUND = "unbound"  # guard_bind could not work out which rules bind the task
NO_POLICY = "without a policy"

# tables without which an object's state, or who acts, is not known
OUTER = ("states", "edges", "bytes", "superblocks", "ids", "subjects", "destinations", "ipv4", "ipv6", "ports", "vsock",
         "devices")
ENTRIES = ("states", "bytes", "destinations")
# what enforces has paths where each can be placed: an object that can't be is none of it
PROTECTING = ("refuse_touch", "refuse_unmounting", "takes_ours")
# functions that ask guard_verdict about an object -> their argument, and where in it the reasons are
PLACED = {"refuse_place": (3, (4,)), "allowed_place": (3, (4,)), "refuse_move": (3, (4, 16)),
          "allowed_endpoint": (3, (12,))}
# functions that give the actions which rules may be about; every action where they can't tell
EVERY = ("actions_of", "learn_covering")
# a label of the current task, or of another: 0 says that it could not be remembered
REMEMBERING = ("label_carrier", "carrier_of", "found_cell", "mark_write_ends", "spread")


class Violation(NamedTuple):
    property: str
    what: str
    trace: Optional[Trace]


class Rules:
    """``uses``: the offset of guard_policy.uses; ``denies_labels``: its bit GUARD_DENIES_LABELS."""

    refused: List[Condition] = []

    def __init__(self, uses: int, denies_labels: int) -> None:
        self.uses, self.denies_labels = f"policy+{uses}#", denies_labels

    def arguments(self, before: Optional[Term]) -> None:
        """``before``: what an LSM before the next program has given; None: the hook gives nothing."""
        self.refused = [] if before is None else [condition(NOT_EQUAL, 64, low(before, width), 0) for width in (32, 64)]

    def arrived(self, state: State) -> None:
        if state.inputs is None:
            state.ghost -= {CLOSED}  # there is nobody that it would tell anything
        if any(each in state.facts for each in self.refused):
            state.ghost |= {REFUSED}

    def precise(self, function: str) -> bool:
        # they answer by the verdict that they are given, and by whether the object was placed
        return function.startswith("tell_") or function in PLACED

    def missed(self, state: State, table: str, kind: str, function: str) -> None:
        if table == "policy" and function == "refuse_unlabelled":
            state.ghost |= {NO_POLICY}
        elif table == "policy":
            state.ghost = settled(state.ghost) | {CLOSED}  # without it nobody is bound
        elif table in OUTER and kind == "outer" or table in ENTRIES and kind == "array":
            state.ghost |= {ERROR}
        elif table == "carriers" and kind == "full":
            state.ghost |= {LOST}

    def before(self, state: State, callee: str, function: str) -> None:
        if callee == "labels_of_state":  # of an object that was not placed it gives every label that is named
            state.ghost = settled(state.ghost) | {CLOSED}
        if callee != "guard_verdict":
            return
        covers = state.registers[2]
        if covers == 0:
            state.ghost = settled(state.ghost) | {CLOSED}
        elif function in PLACED and not _placed(state, *PLACED[function]):
            state.ghost |= {MISPLACED}

    def after(self, state: State, function: str) -> None:
        self.arrived(state)
        result, ghost = state.registers[0], state.ghost
        if function == "guard_verdict" and result != ALLOW and result != AUDIT:
            ghost |= {DENIED}
        elif function == "guard_tell":
            ghost = frozenset()  # what it misses is told less, not decided otherwise
        elif function == "guard_step" and result == 0xFFFFFFFF:
            ghost |= {ERROR}
        elif function == "guard_place":
            # it may have been found by another try
            ghost = settled(ghost) | ({CLOSED} if _field(state, 3, 4) == 0 else {ERROR})
        elif function in EVERY and result == 0xFFFFFFFF:
            ghost = settled(ghost) | {CLOSED}  # whoever decides on one of them looks again
        elif function == "labels_of_state" or function in (*PROTECTING, "refuse_place") and result == 0:
            # every label that is named; not what enforces; none of the actions is left to ask about
            ghost = settled(ghost) | {CLOSED}
        elif function == "guard_bind":
            # what could not be told of the task's service and file binds it: that is guard_bind's to see to
            ghost = settled(ghost) | ({CLOSED, UNBOUND} if result != 0 else {CLOSED})
        elif function == "work_out" and result == 0:
            ghost = settled(ghost) | {CLOSED, UNDECIDED}
        elif function == "trusted":
            ghost = settled(ghost) - {DENIED, UNDECIDED, UNBOUND}
            if result == 0 and _field(state, 2, 4) != AUDIT:
                ghost |= {TAMPER, CLOSED}
        elif function == "may_touch":
            ghost -= {DENIED}  # it was asked about another task
        elif function == "refuse_unlabelled" and result != 0:
            ghost = ghost - {LOST, NO_POLICY} | {UNREMEMBERED if self._denies(state) else LOST}
        elif function in REMEMBERING and result == 0:
            ghost |= {LOST}
        if function.startswith("refuse_") and result == 0:
            ghost -= {TAMPER, LOST}  # it has come to nothing
        state.ghost = ghost - {NO_POLICY} if function == "refuse_unlabelled" else ghost

    def passed(self, ghost: FrozenSet[str], inner: FrozenSet[str]) -> FrozenSet[str]:
        return (settled(ghost) if CLOSED in inner else ghost) | inner

    def _denies(self, state: State) -> bool:
        """Is some rule on labels not in audit mode, or the policy not to be had?"""
        if NO_POLICY in state.ghost:
            return True
        read = [name for fact in state.facts for name in _names(fact) if name.what[1].startswith(self.uses)]
        return any(not state.possible(condition(0x41, 64, name, self.denies_labels)) for name in read)


def settled(ghost: FrozenSet[str]) -> FrozenSet[str]:
    return ghost - {ERROR}


def _field(state: State, argument: int, offset: int) -> Value:
    """4 bytes of what a function was given the address of."""
    at = state.arguments[argument]
    if not isinstance(at, Pointer) or at.region[0] != "stack" or not isinstance(at.offset, int):
        return None
    return state.read(at.region[1], at.offset + offset, 4)


def _placed(state: State, argument: int, reasons: Tuple[int, ...]) -> bool:
    """Is the object known to have been placed?"""
    for offset in reasons:
        reason = _field(state, argument, offset)
        if isinstance(reason, Term) and not state.possible(condition(NOT_EQUAL, 64, reason, 0)):
            continue
        if reason != 0:
            return False
    return True


def _names(of: "Condition | Term") -> List[Term]:
    found, left = [], [of]
    while left:
        one = left.pop()
        if one.what[0] == "name":
            found.append(one)
            continue
        parts = one.what[1] if one.what[0] in ("all", "any", "joined") else one.what[1:]
        left.extend(each for each in parts if isinstance(each, (Condition, Term)))
    return found


def violations(end: State, before: Optional[Term]) -> List[Violation]:
    """Of one end of a program. ``before``: what an LSM before it gave; None: the hook gives nothing."""
    found, result, ghost = [], end.registers[0], end.ghost
    result = low(result, 32) if isinstance(result, (int, Term)) else result
    refused = REFUSED in ghost
    def tell(name: str, what: str) -> None:
        found.append(Violation(name, what, end.trace))

    if result not in (0, EPERM) and not (refused and before is not None and result is low(before, 32)):
        tell("returns", f"gives {_number(result)}")
    if result != 0 and not refused and not ghost & {DENIED, UNDECIDED, UNREMEMBERED, TAMPER, ERROR}:
        tell("audit", "denies though the verdict is not to deny" if LOST not in ghost else
             "denies because a label could not be remembered, though every rule on labels may be in audit mode")
    if result != EPERM and not refused:
        for name, what in ((DENIED, "allows what guard_verdict denied"),
                           (UNDECIDED, "allows though nobody knows who acts"),
                           (UNREMEMBERED, "allows though a label could not be remembered"),
                           (MISPLACED, "decides by a state though the object has none"),
                           (ERROR, "allows though something that it decides by could not be read")):
            if name in ghost:
                tell("closed", what)
        if UNBOUND in ghost and DENIED not in ghost:
            tell("binding", "allows though it could not be worked out which rules bind the task")
    return [each for each in found if end.possible()]


def _number(value: Value) -> str:
    return str(value - (1 << 32) if value >> 31 else value) if isinstance(value, int) else "something else"
