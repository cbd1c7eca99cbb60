# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The marks that the prover sets on a path through a program, and the small questions that decide when to set them.

A mark records one fact about what happened on the path so far, such as "guard_verdict returned GUARD_DENY". The set of
marks of a path is ghost state: it exists in the proof only. effects.py sets marks when a function returns.
properties.py sets them at lookups and calls, and reads them at the end of a program."""

from __future__ import annotations

from arithmetic import EQUAL, NOT_EQUAL, Condition, Term, condition, low
from state import Pointer, State, Value

Marks = frozenset[str]

ALLOW, AUDIT, DENY = 0, 1, 2  # verdicts: GUARD_ALLOW, GUARD_AUDIT, GUARD_DENY
SET = 0x40  # BPF_JSET: any of these bits is set
ALL_ACTIONS = 0xFFFFFFFF  # what a function returns when it cannot determine the actions
NO_STATE = 0xFFFFFFFF  # -1, as an int without sign: what guard_step returns when it cannot determine the next state

# grounds on which a program may deny
DENIED = "denied"  # guard_verdict returned GUARD_DENY
UNDECIDED = "undecided"  # the rules that bind the task could not be computed
UNLABELLED = "unlabelled"  # a label could not be stored, and a rule on labels denies that
TAMPER = "tamper"  # the task may not modify the enforcer

# internal errors
LOST = "lost"  # a label could not be stored, and no function has decided whether that is to be denied
MISPLACED = "misplaced"  # guard_verdict was called for an object whose state is not available
ERROR = "error"  # data that the object's state or the subject depends on could not be read
UNBOUND = "unbound"  # guard_bind could not compute which rules bind the task
BROKEN = "broken"  # a table or an entry was missing while a function looked for the enforcer's own files
GROUNDLESS = "groundless"  # a function asked whether a lost label is denied, but no label was lost

# what else happened
CLOSED = "closed"  # earlier errors are resolved: guard_verdict was called as if every rule covered the object
REFUSED = "refused"  # an LSM that ran before this one denied the operation
NO_POLICY = "no policy"  # the policy table is missing
ASKED = "asked"  # guard_verdict was called in the current function, which decides about an object
WALKED = "walked"  # guard_walk found a state and met no error
EMITTED = "emitted"  # the last call emitted an event


def resolved(marks: Marks) -> Marks:
    """The marks without the pending read error."""
    return marks - {ERROR}


def is_negative(result: Value) -> bool:
    """Whether the value is certainly below 0 as an int."""
    return isinstance(result, int) and result >> 31 & 1 == 1


def may_be_zero(state: State, result: Value) -> bool:
    """Whether the value can be 0 as an int."""
    return result == 0 or (isinstance(result, Term) and state.possible(condition(EQUAL, 64, low(result, 32), 0)))


def wants_none_of(state: State, argument: int, actions: int) -> bool:
    """Whether the function's argument, a set of actions, certainly has none of ``actions``."""
    wanted = state.arguments[argument]
    if isinstance(wanted, Term):
        return not state.possible(condition(SET, 64, wanted, actions))
    return isinstance(wanted, int) and not wanted & actions


def field(state: State, argument: int, offset: int) -> Value:
    """The 4 bytes at ``offset`` of the structure that a function's argument points to; None: it is not on the stack."""
    address = state.arguments[argument]
    if not isinstance(address, Pointer) or address.region[0] != "stack" or not isinstance(address.offset, int):
        return None
    return state.read(address.region[1], address.offset + offset, 4)


def is_placed(state: State, argument: int, reasons: tuple[int, ...]) -> bool:
    """Whether the object's state is certainly available: each reason, at these offsets of the argument, is 0."""
    for offset in reasons:
        reason = field(state, argument, offset)
        if isinstance(reason, Term) and not state.possible(condition(NOT_EQUAL, 64, reason, 0)):
            continue
        if reason != 0:
            return False
    return True


def names_in(value: Condition | Term) -> list[Term]:
    """All named terms that occur in a condition or a term."""
    names: list[Term] = []
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, Term) and part.what[0] == "name":
            names.append(part)
            continue
        parts = part.what[1] if part.what[0] in ("all", "any", "joined") else part.what[1:]
        left.extend(inner for inner in parts if isinstance(inner, (Condition, Term)))
    return names
