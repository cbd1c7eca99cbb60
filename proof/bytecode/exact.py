# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision itself: guard_verdict, as submitted, gives for every content of its tables what the reference below
gives, which is guard_decide as the theorems have it (proof/coq/Compile.v), in a few lines over sets of rules."""

from __future__ import annotations

import random
from typing import NamedTuple, Union

import z3
from arithmetic import Solver, Term, fresh
from decode import STACK, Function
from execute import Unproved, run
from plain import Plain
from state import Pointer, State, Value

Number = Union[int, z3.BitVecRef]
WORDS = 9
BITS = (1 << 64) - 1
EFFORT = 150_000_000  # of z3, by its own count: the same on every machine
ALLOW, AUDIT, DENY, NO_RULE = 0, 1, 2, 0xFFFFFFFF
OBJECTS = ("bound", "covers", "of_action", "audit")  # what guard_verdict is given, besides the outcome
_RULES = {"bound": 8}  # where the vector lies in it
_OUTCOME = -16  # on the caller's stack: action, verdict, reason, rule


class Tables(Plain):
    """Objects whose content is not known, but stays as it is."""

    def __init__(self) -> None:
        self.content: dict[tuple[str, int], Term] = {}

    def word(self, name: str, number: int) -> Term:
        place = name, _RULES.get(name, 0) + 8 * number
        if place not in self.content:
            self.content[place] = fresh(f"{name}[{number}]")
        return self.content[place]

    def load(self, state: State, at: Pointer, size: int) -> Value:
        if at.region[0] != "object":
            return super().load(state, at, size)
        name = at.region[1]
        number, rest = divmod(at.offset - _RULES.get(name, 0), 8) if isinstance(at.offset, int) else (0, 1)
        if rest or size != 8 or not 0 <= number < WORDS:
            raise Unproved(f"a read of {size} bytes at {at.offset} of {name}")
        return self.word(name, number)


class Answer(NamedTuple):
    """``differs``: what the tables hold where it is not as the reference has it; empty: that can't be."""

    differs: list[str]
    ends: int


def verdict(function: Function) -> Answer:
    """Raises Unproved when it can't be told."""
    if not counts():
        raise Unproved("the reference does not find the lowest bit")
    differs, count = [], 0
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
    for offset in (0, 8):  # what guard_verdict has no business with
        start.write(1, _OUTCOME + offset, 4, 7)
    return start


def tried(function: Function, times: int) -> list[str]:
    """The same with numbers, for some contents of its tables: a content for which it is not as the reference has it, if
    one is found. Far quicker than `verdict`, and proves nothing. Raises Unproved as that does."""
    chance = random.Random(1)
    for number in range(times):
        placed, world = number % 8 != 0, Tables()
        held = {name: [_word(chance) for _each in range(WORDS)] for name in OBJECTS}
        if number % 2:  # a rule or two that hit, somewhere behind words in which none does
            held["of_action"] = [0] * WORDS
            for _rule in range(chance.choice((1, 2))):
                held["of_action"][chance.randrange(WORDS)] |= 1 << chance.randrange(64)
            held["bound"] = held["covers"] = [BITS] * WORDS
        world.content = {
            (name, _RULES.get(name, 0) + 8 * each): word  # type: ignore[misc]
            for name, words in held.items()
            for each, word in enumerate(words)
        }
        (end,) = run(world, function, _start(placed))
        hits = [
            held["bound"][each] & held["of_action"][each] & (held["covers"][each] if placed else -1)
            for each in range(WORDS)
        ]
        denials = [hit & ~report for hit, report in zip(hits, held["audit"])]
        wanted = DENY if any(denials) else AUDIT if any(hits) else ALLOW
        first = next((each for each in enumerate(denials if any(denials) else hits) if each[1]), None)
        rule = NO_RULE if first is None else 64 * first[0] + lowest(first[1])
        gives = end.registers[0]
        found = [
            gives & NO_RULE if isinstance(gives, int) else gives,
            *(end.read(1, _OUTCOME + offset, 4) for offset in (0, 4, 8, 12)),
        ]
        for what, got, due in zip(
            ("gives", "changes the action to", "leaves", "changes the reason to", "names rule"),
            found,
            (wanted, 7, wanted, 7, rule),
        ):
            if got != due:
                return [f"{what} {got} and not {due}: {_event(_rules(held), placed)}"]
    return []


def _word(chance: random.Random) -> int:
    return chance.choice((0, 0, 0, 1 << chance.randrange(64), BITS, chance.getrandbits(64)))


def _compared(world: Tables, end: State, placed: bool) -> list[str]:
    terms, solver = Solver(), z3.Solver()
    solver.set("rlimit", EFFORT)
    words = {name: [terms.of(world.word(name, each)) for each in range(WORDS)] for name in OBJECTS}
    hits = [
        words["bound"][each] & words["of_action"][each] & (words["covers"][each] if placed else -1)
        for each in range(WORDS)
    ]
    denials = [hit & ~words["audit"][each] for each, hit in enumerate(hits)]
    any_hit, any_denial = (z3.Or(*(word != 0 for word in each)) for each in (hits, denials))
    wanted = z3.If(any_denial, z3.BitVecVal(DENY, 64), z3.If(any_hit, z3.BitVecVal(AUDIT, 64), z3.BitVecVal(ALLOW, 64)))
    gives = end.registers[0]
    said, rule = (end.read(1, _OUTCOME + offset, 4) for offset in (4, 12))
    if isinstance(gives, Pointer) or gives is None or isinstance(said, Pointer) or isinstance(rule, Pointer):
        return ["gives an address"]
    if end.read(1, _OUTCOME, 4) != 7 or end.read(1, _OUTCOME + 8, 4) != 7:
        return ["changes the action or the reason"]
    solver.add(*(terms.truth(fact) for fact in end.facts))
    found = []
    for what, wrong in (
        ("gives another verdict", terms.of(gives) & NO_RULE != wanted),
        ("leaves another verdict", terms.of(said) != wanted),
        ("names another rule", z3.Not(_first(terms.of(rule), hits, denials, any_hit, any_denial))),
    ):
        solver.push()
        solver.add(wrong)
        answer = solver.check()
        if answer == z3.unknown:
            raise Unproved(f"guard_verdict: z3 does not find out whether it {what}")
        if answer == z3.sat:
            model = solver.model()
            held = {
                name: [model.eval(word, model_completion=True).as_long() for word in each]
                for name, each in words.items()
            }
            found.append(f"{what}: {_event(_rules(held), placed)}")
        solver.pop()
    return found


def _first(
    rule: z3.BitVecRef,
    hits: list[z3.BitVecRef],
    denials: list[z3.BitVecRef],
    any_hit: z3.BoolRef,
    any_denial: z3.BoolRef,
) -> z3.BoolRef:
    """Is it the first rule that denies; without one the first that hits; without that none?"""
    wanted = z3.BitVecVal(NO_RULE, 64)
    for number, (hit, denial) in reversed(list(enumerate(zip(hits, denials)))):
        word = z3.If(any_denial, denial, hit)
        wanted = z3.If(word != 0, 64 * number + lowest(word), wanted)
    return z3.And(rule == wanted, z3.Implies(z3.Not(any_hit), wanted == NO_RULE))


def lowest(word: Number) -> Number:
    """The number of the lowest bit that is set: how many are below it. `counts` says that it is."""
    below = (word & -word) - 1
    below = below - (_shifted(below, 1) & 0x5555555555555555)
    below = (below & 0x3333333333333333) + (_shifted(below, 2) & 0x3333333333333333)
    below = (below + _shifted(below, 4)) & 0x0F0F0F0F0F0F0F0F
    return _shifted(below * 0x0101010101010101, 56) & 0xFF


def _shifted(word: Number, by: int) -> Number:
    return word >> by if isinstance(word, int) else z3.LShR(word, by)


def counts() -> bool:
    """word & -word is one bit, so that this is all there is."""
    return all(lowest(1 << bit) == bit for bit in range(64))


def _rules(held: dict[str, list[int]]) -> dict[str, list[int]]:
    return {
        name: [64 * number + bit for number, word in enumerate(words) for bit in range(64) if word >> bit & 1]
        for name, words in held.items()
    }


def _event(rules: dict[str, list[int]], placed: bool) -> str:
    """For a person: which rules are where."""
    told = []
    for name in OBJECTS:
        if name == "covers" and not placed:
            told.append("an object that could not be placed")
            continue
        shown = ", ".join(map(str, rules[name][:6])) + (f" and {len(rules[name]) - 6} more" if rules[name][6:] else "")
        told.append(f"{_SAID[name]} {shown or 'none'}")
    return "; ".join(told)


_SAID = {
    "bound": "rules that bind the task:",
    "covers": "rules that cover the object:",
    "of_action": "rules on the action:",
    "audit": "rules that only report:",
}
