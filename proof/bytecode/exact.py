# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The property `verdict`: guard_verdict, as submitted, returns the same as the reference below for every content of its
tables. The reference is guard_decide as the theorems define it (proof/coq/Compile.v), in a few lines over sets of
rules."""

from __future__ import annotations

import random
from typing import NamedTuple, Union

import z3
from arithmetic import Scalar, Solver, Term, fresh
from decode import STACK, Function
from effects import VERDICT
from execute import UnprovedError, run
from plain import Plain
from state import Pointer, State, Value

Number = Union[int, z3.BitVecRef]
WORDS = 9
BITS = (1 << 64) - 1
EFFORT = 150_000_000  # limit of z3's steps, by its own count: the same on every machine
ALLOW, AUDIT, DENY, NO_RULE = 0, 1, 2, 0xFFFFFFFF
OBJECTS = ("bound", "covers", "of_action", "audit")  # the arguments of guard_verdict, except the outcome
_RULES = {"bound": 8}  # the offset of the vector in the argument
_OUTCOME = -16  # offset on the caller's stack: action, verdict, reason, rule


class Tables(Plain):
    """A world in which the arguments have an unknown, constant content."""

    def __init__(self) -> None:
        self.content: dict[tuple[str, int], Scalar] = {}

    def word(self, name: str, number: int) -> Scalar:
        """One word of an argument's vector."""
        place = name, _RULES.get(name, 0) + 8 * number
        if place not in self.content:
            self.content[place] = fresh(f"{name}[{number}]")
        return self.content[place]

    def load(self, state: State, at: Pointer, size: int) -> Value:
        """Reads a word of an argument, or from the stack."""
        if at.region[0] != "object":
            return super().load(state, at, size)
        name = at.region[1]
        number, rest = divmod(at.offset - _RULES.get(name, 0), 8) if isinstance(at.offset, int) else (0, 1)
        if rest or size != 8 or not 0 <= number < WORDS:
            raise UnprovedError(f"a read of {size} bytes at {at.offset} of {name}")
        return self.word(name, number)


class Answer(NamedTuple):
    """``differs``: contents of the tables for which the results differ; empty: there are none."""

    differs: list[str]
    ends: int


def verdict(function: Function) -> Answer:
    """Compares guard_verdict with the reference. Raises UnprovedError when z3 cannot decide."""
    if not counts():
        raise UnprovedError("the reference does not find the lowest bit")
    differs: list[str] = []
    count = 0
    for placed in (True, False):
        world = Tables()
        ends = run(world, function, _start(placed))
        count += len(ends)
        for end in ends:
            differs.extend(_compared(world, end, placed))
    return Answer(differs, count)


def _start(placed: bool) -> State:
    start = State([None] * 11)
    for number, name in enumerate(OBJECTS, 1):
        start.registers[number] = Pointer(("object", name), 0)
    if not placed:
        start.registers[2] = 0
    start.registers[5], start.registers[STACK] = Pointer(("stack", 1), _OUTCOME), Pointer(("stack", 0), 0)
    for offset in (0, 8):  # the action and the reason, which guard_verdict must not change
        start.write(1, _OUTCOME + offset, 4, 7)
    return start


def tried(function: Function, times: int) -> list[str]:
    """Compares guard_verdict with the reference for ``times`` random contents of its tables.

    Returns a content for which they differ, if one is found. Much faster than `verdict`, but proves nothing. Raises
    UnprovedError as `verdict` does."""
    chance = random.Random(1)
    for number in range(times):
        placed, world = number % 8 != 0, Tables()
        held = {name: [_word(chance) for _ in range(WORDS)] for name in OBJECTS}
        if number % 2:  # one or two rules match, behind words in which none does
            held["of_action"] = [0] * WORDS
            for _rule in range(chance.choice((1, 2))):
                held["of_action"][chance.randrange(WORDS)] |= 1 << chance.randrange(64)
            held["bound"] = held["covers"] = [BITS] * WORDS
        world.content = {
            (name, _RULES.get(name, 0) + 8 * at): word for name, words in held.items() for at, word in enumerate(words)
        }
        (end,) = run(world, function, _start(placed))
        hits = [
            held["bound"][at] & held["of_action"][at] & (held["covers"][at] if placed else -1) for at in range(WORDS)
        ]
        denials = [hit & ~report for hit, report in zip(hits, held["audit"])]
        wanted = DENY if any(denials) else AUDIT if any(hits) else ALLOW
        first = next((item for item in enumerate(denials if any(denials) else hits) if item[1]), None)
        rule = NO_RULE if first is None else 64 * first[0] + lowest(first[1])
        result = end.registers[0]
        results = [
            result & NO_RULE if isinstance(result, int) else result,
            *(end.read(1, _OUTCOME + offset, 4) for offset in (0, 4, 8, 12)),
        ]
        for what, got, due in zip(
            ("returns", "changes the action to", "stores", "changes the reason to", "names rule"),
            results,
            (wanted, 7, wanted, 7, rule),
        ):
            if got != due:
                return [f"{what} {got} instead of {due}: {_event(_rules(held), placed)}"]
    return []


def _word(chance: random.Random) -> int:
    return chance.choice((0, 0, 0, 1 << chance.randrange(64), BITS, chance.getrandbits(64)))


def _compared(world: Tables, end: State, placed: bool) -> list[str]:
    terms, solver = Solver(), z3.Solver()
    solver.set("rlimit", EFFORT)
    words = {name: [terms.of(world.word(name, at)) for at in range(WORDS)] for name in OBJECTS}
    hits = [
        words["bound"][at] & words["of_action"][at] & (words["covers"][at] if placed else -1) for at in range(WORDS)
    ]
    denials = [hit & ~words["audit"][at] for at, hit in enumerate(hits)]
    any_hit, any_denial = (z3.Or(*(word != 0 for word in vector)) for vector in (hits, denials))
    wanted = z3.If(any_denial, z3.BitVecVal(DENY, 64), z3.If(any_hit, z3.BitVecVal(AUDIT, 64), z3.BitVecVal(ALLOW, 64)))
    result, stored, rule = end.registers[0], end.read(1, _OUTCOME + 4, 4), end.read(1, _OUTCOME + 12, 4)
    if not (isinstance(result, (int, Term)) and isinstance(stored, (int, Term)) and isinstance(rule, (int, Term))):
        return ["returns an address"]
    if end.read(1, _OUTCOME, 4) != 7 or end.read(1, _OUTCOME + 8, 4) != 7:
        return ["changes the action or the reason"]
    solver.add(*(terms.truth(fact) for fact in end.facts))
    differs = []
    for what, wrong in (
        ("returns another verdict", terms.of(result) & NO_RULE != wanted),
        ("stores another verdict", terms.of(stored) != wanted),
        ("names another rule", z3.Not(_first(terms.of(rule), hits, denials, any_hit, any_denial))),
    ):
        solver.push()
        solver.add(wrong)
        answer = solver.check()
        if answer == z3.unknown:
            raise UnprovedError(f"{VERDICT}: z3 cannot decide whether it {what}")
        if answer == z3.sat:
            model = solver.model()
            held = {
                name: [model.eval(word, model_completion=True).as_long() for word in vector]
                for name, vector in words.items()
            }
            differs.append(f"{what}: {_event(_rules(held), placed)}")
        solver.pop()
    return differs


def _first(
    rule: z3.BitVecRef,
    hits: list[z3.BitVecRef],
    denials: list[z3.BitVecRef],
    any_hit: z3.BoolRef,
    any_denial: z3.BoolRef,
) -> z3.BoolRef:
    """Whether it is the first rule that denies, or else the first that matches, or else none."""
    wanted = z3.BitVecVal(NO_RULE, 64)
    for number, (hit, denial) in reversed(list(enumerate(zip(hits, denials)))):
        word = z3.If(any_denial, denial, hit)
        wanted = z3.If(word != 0, 64 * number + lowest(word), wanted)
    return z3.And(rule == wanted, z3.Implies(z3.Not(any_hit), wanted == NO_RULE))


def lowest(word: Number) -> Number:
    """The number of the lowest bit that is set, as the count of the bits below it. `counts` checks this."""
    below = (word & -word) - 1
    below = below - (_shifted(below, 1) & 0x5555555555555555)
    below = (below & 0x3333333333333333) + (_shifted(below, 2) & 0x3333333333333333)
    below = (below + _shifted(below, 4)) & 0x0F0F0F0F0F0F0F0F
    return _shifted(below * 0x0101010101010101, 56) & 0xFF


def _shifted(word: Number, by: int) -> Number:
    return word >> by if isinstance(word, int) else z3.LShR(word, by)


def counts() -> bool:
    """Whether `lowest` is right for each single bit; word & -word is always a single bit."""
    return all(lowest(1 << bit) == bit for bit in range(64))


def _rules(held: dict[str, list[int]]) -> dict[str, list[int]]:
    return {
        name: [64 * number + bit for number, word in enumerate(words) for bit in range(64) if word >> bit & 1]
        for name, words in held.items()
    }


def _event(rules: dict[str, list[int]], placed: bool) -> str:
    """A readable list of the rules in each argument."""
    parts = []
    for name in OBJECTS:
        if name == "covers" and not placed:
            parts.append("an object without a state")
            continue
        shown = ", ".join(map(str, rules[name][:6])) + (f" and {len(rules[name]) - 6} more" if rules[name][6:] else "")
        parts.append(f"{_LABELS[name]} {shown or 'none'}")
    return "; ".join(parts)


_LABELS = {
    "bound": "rules that bind the task:",
    "covers": "rules that cover the object:",
    "of_action": "rules on the action:",
    "audit": "rules in audit mode:",
}
