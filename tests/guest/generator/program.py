# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program is a list of steps, a step an operation and its arguments. Programs are made from a seed alone, so that a run can be
repeated; they are changed as syzkaller does it: what led to something new is kept and changed again."""

import random
from typing import Callable, List, NamedTuple, Tuple

from generator.operations import DOMAINS, OPERATIONS

LONGEST = 12


class Step(NamedTuple):
    name: str
    arguments: Tuple

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.arguments))})"


Program = Tuple[Step, ...]


def step(dice: random.Random, who: str) -> Step:
    names = [name for name, operation in OPERATIONS.items() if who in operation.whose]
    weights = [OPERATIONS[name].weight for name in names]
    name = dice.choices(names, weights)[0]
    return Step(name, tuple(dice.choice(DOMAINS[kind]) for kind in OPERATIONS[name].arguments))


def fresh(dice: random.Random, who: str) -> Program:
    return tuple(step(dice, who) for _ in range(dice.randint(2, 8)))


def changed(dice: random.Random, who: str, program: Program, corpus: List[Program]) -> Program:
    """One to three changes: a step more, a step less, other arguments, the end of another program."""
    steps = list(program)
    for _ in range(dice.randint(1, 3)):
        what = dice.randrange(10)
        if what < 4 or not steps:
            steps.insert(dice.randint(0, len(steps)), step(dice, who))
        elif what < 6:
            steps.pop(dice.randrange(len(steps)))
        elif what < 9:
            place = dice.randrange(len(steps))
            one = steps[place]
            kinds = OPERATIONS[one.name].arguments
            if kinds:
                which = dice.randrange(len(kinds))
                words = list(one.arguments)
                words[which] = dice.choice(DOMAINS[kinds[which]])
                steps[place] = Step(one.name, tuple(words))
        else:
            other = dice.choice(corpus)
            steps = steps[: dice.randint(0, len(steps))] + list(other[dice.randint(0, len(other)) :])
    return tuple(steps[:LONGEST])


def reduced(program: Program, happens: Callable[[Program], bool]) -> Program:
    """The program without the steps that are not needed for what happens."""
    place = 0
    while place < len(program):
        shorter = program[:place] + program[place + 1 :]
        if happens(shorter):
            program = shorter
        else:
            place += 1
    return program


def to_json(program: Program) -> List:
    return [[one.name, *one.arguments] for one in program]


def from_json(data: List) -> Program:
    return tuple(Step(name, tuple(words)) for name, *words in data)


def script(who: str, program: Program, found: str) -> str:
    """As it is printed when it found something."""
    return "\n".join([f"# {found}; as {who}; what it has read it sends at the end", *map(str, program)])
