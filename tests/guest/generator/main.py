# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Searches, in a guest, for a program of a bound task that does what must not happen. Prints each find as a JSON line with a
short script, and one line at the end.

    main.py [--seconds N] [--seed N] [--mode audit] [--without HOOK] [--who USER --program JSON]
"""

import argparse
import json
import os
import random
import sys
import time

from generator import program as programs
from generator.operations import ALL
from generator.world import NO_EFFECT, World

EVERY = 30  # programs between two looks at the enforcer
MOST = 12  # finds, then it ends


class Search:
    def __init__(self, world, seed, whose):
        self.world, self.whose = world, whose
        self.dice = {who: random.Random(f"{seed} {who}") for who in whose}
        self.corpus = {who: [] for who in whose}
        self.seen, self.finds, self.number, self.steps = set(), [], 0, 0
        self.since = []  # programs since the last look
        self.first = None  # when the first find was, in seconds
        self.started = time.monotonic()

    def signature(self, who, program, ran):
        """What is new is worth keeping: an operation that ends in a new way, after another one, with such denials."""
        found, before = set(), ""
        for place, end in enumerate(ran.ends):
            if not end:
                continue
            name = program[place % programs.LONGEST].name
            found |= {(who, name, end), (who, before, name, end), (who, name, end, ran.reasons)}
            before = name
        return found

    def one(self, who):
        dice, corpus = self.dice[who], self.corpus[who]
        if corpus and dice.random() < 0.75:
            program = programs.changed(dice, who, dice.choice(corpus), corpus)
        else:
            program = programs.fresh(dice, who)
        if not program or any(who == find["who"] and contains(program, find["steps"]) for find in self.finds):
            return
        ran = self.world.run(who, program)
        self.number += 1
        self.steps += sum(1 for end in ran.ends if end not in (0, NO_EFFECT + 1))
        self.since.append((who, program))
        new = self.signature(who, program, ran) - self.seen
        if new:
            self.seen |= new
            corpus.append(program)
        leak = self.world.leaked()
        if leak:
            self.found(*leak, "what is secret arrived at the listener", self.leaks)
        if len(self.since) >= EVERY:
            self.look()

    def leaks(self, who, program):
        self.world.leaked()  # what came late of others
        self.world.run(who, program)
        return self.world.leaked(0.5) is not None

    def breaks(self, who, program):
        self.world.run(who, program)
        changed = self.world.changed()
        if changed:
            self.world.restore()
        return changed

    def look(self):
        since, self.since = self.since, []
        changed = self.world.changed()
        leak = self.world.leaked(0.2)
        if leak:
            self.found(*leak, "what is secret arrived at the listener", self.leaks)
        if not changed:
            return
        self.world.restore()
        for who, program in since:
            if any(who == find["who"] and contains(program, find["steps"]) for find in self.finds):
                continue
            again = self.breaks(who, program)
            if again:
                self.found(who, program, again, self.breaks)
                return
        self.report(
            since[-1][0],
            (),
            changed
            + "; none of the last programs does it alone: "
            + repr([(w, programs.to_json(p)) for w, p in since]),
        )

    def found(self, who, program, what, happens):
        if not happens(who, program):
            self.report(who, program, what + "; not again when it was repeated")
            return
        self.report(who, programs.reduced(program, lambda shorter: bool(happens(who, shorter))), what)

    def report(self, who, program, what):
        self.first = self.first or time.monotonic() - self.started
        find = {
            "find": what,
            "who": who,
            "steps": programs.to_json(program),
            "script": programs.script(who, program, what),
        }
        find["seconds"] = round(time.monotonic() - self.started, 1)
        self.finds.append(find)
        print(json.dumps(find), flush=True)

    def search(self, seconds, most):
        ends = self.started + seconds
        while time.monotonic() < ends and len(self.finds) < most:
            for who in self.whose:
                self.one(who)
        self.look()


def contains(program, steps):
    """Whether the program has these steps, in this order."""
    rest = iter(programs.to_json(program))
    return bool(steps) and all(any(step == other for other in rest) for step in steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", choices=("enforce", "audit"), default="enforce")
    parser.add_argument("--without", action="append", default=[], metavar="HOOK", help="leave its programs out")
    parser.add_argument("--most", type=int, default=MOST, help="end after so many finds")
    parser.add_argument("--who", action="append", choices=ALL)
    parser.add_argument("--program", help="JSON: run this one only")
    options = parser.parse_args()
    world = World(options.mode, options.without, options.seed)
    search = Search(world, options.seed, options.who or list(ALL))
    if options.program:
        program = programs.from_json(json.loads(options.program))
        who = search.whose[0]
        ran = world.run(who, program)
        print(
            json.dumps(
                {
                    "ends": ran.ends,
                    "reasons": ran.reasons,
                    "leaked": bool(world.leaked(0.5)),
                    "changed": world.changed(),
                }
            )
        )
        return
    search.search(options.seconds, options.most)
    print(
        json.dumps(
            {
                "end": True,
                "programs": search.number,
                "steps": search.steps,
                "signatures": len(search.seen),
                "corpus": sum(map(len, search.corpus.values())),
                "finds": len(search.finds),
                "first": search.first,
                "verdicts": world.wanted,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    os.chdir("/")
    main()
    sys.stdout.flush()
    os._exit(0)
