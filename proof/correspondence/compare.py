#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the product do what is proved? Random policies and events go through it and through the program that is
extracted from the proof: semantics.py against Meaning.v, compile.py and automaton.py table by table against Compile.v,
and the verdict as the kernel looks it up in compile.py's tables (tests/property/kernel_model.py) against Compile.v's
look-up. With --mistakes, mistakes are put into the product first, one at a time, and each has to be found.

    compare.py [--policies N] [--events N] [--seed N] [--jobs N]
    compare.py --mistakes"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Callable, Counter, Iterator, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tests" / "property")]

import generate
import kernel_model
import specification
import tables
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import automaton
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import tables as compile
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import model as records
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import semantics

BATCH = 100
SHOWN = 3  # cases that differ
TRIES = 1500  # policies within which a mistake has to be found


class Found(NamedTuple):
    counts: Counter[tuple[str, str]]  # (group, what)
    different: list[str]


# ---- one batch ------------------------------------------------------------------------------------------------------


def batch(seed: int, numbers: range, events: int) -> Found:
    cases = [generate.case(seed, number, events) for number in numbers]
    images, questions, where = [], [], []
    for case in cases:
        image = compile.compile_policy(case.policy, generate.TODAY, case.canary, case.labels)
        labels = compile.labels_of(image.tables)
        plain = specification.plain(case.policy)
        whole = specification.with_canaries(case.policy, case.canary, generate.TODAY)
        images.append(image)
        first = len(questions)
        # a canary binds nobody that the events are about; the tables are compared with it
        alone = whole.who == plain.who and whole.policy == case.policy
        questions.append(specification.Question(plain, labels, alone, case.events, case.objects))
        if not alone:
            questions.append(specification.Question(whole, labels, True))
        where.append((first, len(questions) - 1))
    answers = specification.ask(questions, generate.TODAY)
    found = Found(collections.Counter(), [])
    for number, case, image, (first, last) in zip(numbers, cases, images, where):
        rules = questions[last].written.rules
        said = list(_differences(case, image, answers[first], answers[last], rules, found.counts))
        if said:
            found.counts["", "mismatches"] += len(said)
            found.different.append(_shown(seed, number, case, said))
        found.counts["", "policies"] += 1
        found.counts["", "states"] += len(image.tables["states"])
        found.counts.update(("policies", name) for name in generate.features(case.policy))
    return found


def _differences(case, image, answer, whole, rules, counts) -> Iterator[str]:
    if not (answer.valid and whole.valid):
        yield "compile_correct says nothing of this policy: Compile.v does not take it for valid"
        return
    yield from tables.differences(image, whole.tables, rules)
    model = kernel_model.Model(image)
    for event, (possible, meaning, looked_up) in zip(case.events, answer.decided):
        mine, kernel = semantics.decide(case.policy, event, generate.TODAY), model.decide(event)
        counts["", "events"] += 1
        counts["events", generate.kind(event)] += 1
        counts["verdicts", meaning.outcome] += 1
        if meaning.outcome != "allow":
            counts["reasons", meaning.reason] += 1
        if not possible:
            yield "compile_correct says nothing of this event: %r" % (event,)
        if mine != meaning:
            yield "by the meaning: %r\n    semantics.py %r\n    Meaning.v    %r" % (event, mine, meaning)
        if kernel != looked_up:
            yield "by the tables: %r\n    compile.py   %r\n    Compile.v    %r" % (event, kernel, looked_up)
    for at, (given, bits) in zip(case.objects, answer.read):
        counts["", "objects"] += 1
        mine, kernel = semantics.labels(case.policy, at), model.labels_of(at)
        looked_up = frozenset(name for name, bit in model.labels.items() if bits >> bit & 1)
        if mine != given or kernel != looked_up:
            said = tuple(map(sorted, (mine, given, kernel, looked_up)))
            yield "labels that reading gives: %r\n    semantics.py %s, Meaning.v %s\n" % (at, *said[:2]) + (
                "    compile.py   %s, Compile.v %s" % said[2:])  # fmt: skip


def _shown(seed: int, number: int, case: generate.Case, said: list[str]) -> str:
    policy = case.policy
    lines = ["policy %d of seed %d" % (number, seed)]
    lines += ["  %r" % (rule,) for rule in sorted(policy.rules)]
    for sets in (policy.subjects, policy.resources, policy.destinations):
        lines += ["  %s: %r" % (name, found) for name, found in sorted(sets.items())]
    lines += ["  protected: %r" % (policy.tamper_paths,), "  canary: %r; labels: %r" % (case.canary, case.labels)]
    return "\n".join(lines + ["  differs: " + each for each in said])


# ---- all of them ----------------------------------------------------------------------------------------------------


def compare(seed: int, policies: int, events: int, jobs: int) -> Found:
    total = Found(collections.Counter(), [])
    numbers = [range(at, min(at + BATCH, policies)) for at in range(0, policies, BATCH)]
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        for found in pool.map(batch, [seed] * len(numbers), numbers, [events] * len(numbers)):
            total.counts.update(found.counts)
            total.different.extend(found.different[: SHOWN - len(total.different)])
            done = total.counts["", "policies"]
            if done % 1000 == 0 and policies > 2000:
                print("... %d policies, %d mismatches" % (done, total.counts["", "mismatches"]), flush=True)
    return total


def tell(found: Found, seconds: float) -> bool:
    """Prints what was compared; were there no differences, and did everything occur?"""
    counts = found.counts
    for each in found.different:
        print(each)
    for group, of in (("policies", "policies"), ("events", "events"), ("verdicts", "events"), ("reasons", "events")):
        parts = sorted(((number, what) for (at, what), number in counts.items() if at == group), reverse=True)
        shares = ("%s %.1f %%" % (what, 100 * number / counts["", of]) for number, what in parts)
        print("%s: %s" % (group, ", ".join(shares)))
    missing = [name for name in EXPECTED if not counts[name]] if counts["", "policies"] >= BATCH else []
    if missing:
        print("correspondence: does not occur: " + ", ".join("%s (%s)" % (what, group) for group, what in missing))
    numbers = ("%s %d" % (what, counts["", what]) for what in ("policies", "states", "events", "objects", "mismatches"))
    print("correspondence: %s, seconds %.0f" % (", ".join(numbers), seconds))
    return not missing and not counts["", "mismatches"] and counts["", "policies"] > 0


EXPECTED = (
    [("policies", what) for what in ("not, of resources", "not, of destinations", "except", "audit", "expires", "users",
        "login_users", "groups", "services", "executables", "has_read", "cidrs", "ports", "protocols", "vsock", "*",
        "* within", "**", "long components", "protected")]
    + [("events", what) for what in ("file", "alias", "alias of a folder", "network", "vsock", "plain", "tamper",
                                     "tamper below")]
    + [("verdicts", what) for what in ("allow", "audit", "deny")]
    + [("reasons", what) for what in ("rule", "no-chain", "too-deep", "unknown-filesystem", "no-address", "tamper")]
)  # fmt: skip


# ---- would a mistake be found? --------------------------------------------------------------------------------------


def _rules(change: Callable[[records.Rule], records.Rule], at: int):
    """A function of compile.py is given other rules, as its argument ``at``."""
    return lambda right: lambda *given: right(*given[:at], [change(rule) for rule in given[at]], *given[at + 1 :])


def _not_negated(rule: records.Rule) -> records.Rule:
    return rule._replace(resources=rule.resources and rule.resources._replace(negated=False))


def _without_star(right):
    return lambda positions, heads: frozenset(positions)


def _reached(right):
    def below(built, covers):
        some, _every = right(built, covers)
        return some, some

    return below


MISTAKES = (
    ("a rule in audit mode denies", compile, "_rule_tables", _rules(lambda rule: rule._replace(audit=False), 1)),
    ("`not` of resources is not seen", compile, "_automaton_tables", _rules(_not_negated, 1)),
    ("an exception frees nobody", compile, "_rule_tables", _rules(lambda rule: rule._replace(excepts=frozenset()), 1)),
    ("a * stands for one byte at least", automaton, "_closure", _without_star),
    ("what is covered below a folder pervades it", compile, "_below", _reached),
    ("a range of ports ends before its last", compile, "_port_prefixes",
     lambda right: lambda first, last: right(first, max(first, last - 1))),
    ("a label has the bit of another name", compile, "_label_bits",
     lambda right: lambda subjects, labels: dict.fromkeys(right(subjects, labels), 0)),
    ("the meaning: a rule holds on the day it expires", semantics, "in_force",
     lambda right: lambda rule, now: rule.expires is None or now.isoformat() <= rule.expires),
    ("the meaning: an exception frees whoever may be meant", semantics, "_surely_is", lambda right: semantics._may_be),
    ("the meaning: below a folder, only what is there now", semantics, "_some_below",
     lambda right: lambda patterns, path: any(semantics.matches(pattern, path) for pattern in patterns)),
    ("the look-up: lists that were cut bind nobody", kernel_model.Model, "bound",
     lambda right: lambda self, task: right(self, task._replace(ids_truncated=False))),
)  # fmt: skip


@contextlib.contextmanager
def seeded(module, name: str, wrong):
    right = getattr(module, name)
    setattr(module, name, wrong(right))
    try:
        yield
    finally:
        setattr(module, name, right)


def mistakes(seed: int, events: int) -> bool:
    missed = 0
    if batch(seed, range(100), events).different:
        print("correspondence: there are differences without a mistake, too")
        return False
    for said, module, name, wrong in MISTAKES:
        with seeded(module, name, wrong):
            for at in range(0, TRIES, 20):
                different = batch(seed, range(at, at + 20), events).different
                if different:
                    print("found, as it must be: %s (%s)" % (said, different[0].splitlines()[0]), flush=True)
                    break
            else:
                missed += 1
                print("correspondence: not found within %d policies: %s" % (TRIES, said))
    print("%d seeded mistakes, %d not found" % (len(MISTAKES), missed))
    return not missed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policies", type=int, default=2000)
    parser.add_argument("--events", type=int, default=8, help="for each policy")
    parser.add_argument("--seed", type=int, default=20260601)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--mistakes", action="store_true", help="put mistakes into the product; each has to be found")
    options = parser.parse_args()
    if options.mistakes:
        return 0 if mistakes(options.seed, options.events) else 1
    started = time.monotonic()
    found = compare(options.seed, options.policies, options.events, options.jobs)
    return 0 if tell(found, time.monotonic() - started) else 1


if __name__ == "__main__":
    sys.exit(main())
