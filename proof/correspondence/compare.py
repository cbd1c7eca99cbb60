#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the product with the program that is extracted from the proof, for random policies and events:

semantics.py with Meaning.v; the compiler (tables.py, automaton.py), table by table, with Compile.v; and the verdict as
the kernel looks it up in the compiled tables (tests/property/kernel_model.py) with the lookup of Compile.v. With
--mistakes, mistakes are made in the product first, one at a time, and each has to be found.

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
from types import ModuleType
from typing import Any, Callable, Counter, Iterator, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "property"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))

import generate
import kernel_model
import specification
import tables
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import automaton
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import tables as compile
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import model as records
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import semantics

BATCH = 100
SHOWN = 3  # differing cases that are printed
TRIES = 1500  # policies within which a mistake has to be found


class Result(NamedTuple):
    """What occurred, and the cases that differ."""

    counts: Counter[tuple[str, str]]  # (group, what)
    different: list[str]


# ---- one batch ------------------------------------------------------------------------------------------------------


def batch(seed: int, numbers: range, events: int) -> Result:
    """Compares the cases with these numbers."""
    cases = [generate.case(seed, number, events) for number in numbers]
    images: list[compile.Image] = []
    questions: list[specification.Question] = []
    where: list[tuple[int, int]] = []
    for case in cases:
        image = compile.compile_policy(case.policy, generate.TODAY, case.canary, case.labels)
        labels = compile.labels_of(image.tables)
        plain = specification.plain(case.policy)
        whole = specification.with_canaries(case.policy, case.canary, generate.TODAY)
        images.append(image)
        first = len(questions)
        # the canary's rules bind no task of the events, but the tables contain them
        alone = whole.who == plain.who and whole.policy == case.policy
        questions.append(specification.Question(plain, labels, alone, case.events, case.objects))
        if not alone:
            questions.append(specification.Question(whole, labels, True))
        where.append((first, len(questions) - 1))
    answers = specification.ask(questions, generate.TODAY)
    result = Result(collections.Counter(), [])
    for number, case, image, (first, last) in zip(numbers, cases, images, where):
        rules = questions[last].written.rules
        differences = list(_differences(case, image, answers[first], answers[last], rules, result.counts))
        if differences:
            result.counts["", "mismatches"] += len(differences)
            result.different.append(_shown(seed, number, case, differences))
        result.counts["", "policies"] += 1
        result.counts["", "states"] += len(image.tables["states"])
        result.counts.update(("policies", name) for name in generate.features(case.policy))
    return result


def _differences(
    case: generate.Case,
    image: compile.Image,
    answer: specification.Answer,
    whole: specification.Answer,
    rules: tuple[str, ...],
    counts: Counter[tuple[str, str]],
) -> Iterator[str]:
    """``whole``: the answer for the policy with the canary's rules, which has the tables."""
    if not (answer.valid and whole.valid) or whole.tables is None:
        yield "compile_correct does not apply to this policy: it is not valid in Compile.v"
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
            yield f"compile_correct does not apply to this event: {event!r}"
        if mine != meaning:
            yield f"by the meaning: {event!r}\n    semantics.py {mine!r}\n    Meaning.v    {meaning!r}"
        if kernel != looked_up:
            yield f"by the tables: {event!r}\n    compile.py   {kernel!r}\n    Compile.v    {looked_up!r}"
    for at, (given, bits) in zip(case.objects, answer.read):
        counts["", "objects"] += 1
        labels, from_tables = semantics.labels(case.policy, at), model.labels_of(at)
        from_lookup = frozenset(name for name, bit in model.labels.items() if bits >> bit & 1)
        if labels != given or from_tables != from_lookup:
            yield (
                f"labels from reading: {at!r}\n    semantics.py {sorted(labels)}, Meaning.v {sorted(given)}\n"
                f"    tables.py    {sorted(from_tables)}, Compile.v {sorted(from_lookup)}"
            )


def _shown(seed: int, number: int, case: generate.Case, differences: list[str]) -> str:
    policy = case.policy
    lines = [f"policy {number} of seed {seed}"]
    lines += [f"  {rule!r}" for rule in sorted(policy.rules)]
    for sets in (policy.subjects, policy.resources, policy.destinations):
        lines += [f"  {name}: {members!r}" for name, members in sorted(sets.items())]
    lines += [f"  protected: {policy.tamper_paths!r}", f"  canary: {case.canary!r}; labels: {case.labels!r}"]
    return "\n".join(lines + [f"  differs: {difference}" for difference in differences])


# ---- all batches ----------------------------------------------------------------------------------------------------


def compare(seed: int, policies: int, events: int, jobs: int) -> Result:
    """Compares all cases, in ``jobs`` processes."""
    total = Result(collections.Counter(), [])
    numbers = [range(at, min(at + BATCH, policies)) for at in range(0, policies, BATCH)]
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        for result in pool.map(batch, [seed] * len(numbers), numbers, [events] * len(numbers)):
            total.counts.update(result.counts)
            total.different.extend(result.different[: SHOWN - len(total.different)])
            done = total.counts["", "policies"]
            if done % 1000 == 0 and policies > 2000:
                print(f"... {done} policies, {total.counts['', 'mismatches']} mismatches", flush=True)
    return total


def report(result: Result, seconds: float) -> bool:
    """Prints what was compared. False: there are differences, or a part of the language did not occur."""
    counts = result.counts
    for case in result.different:
        print(case)
    for group, of in (("policies", "policies"), ("events", "events"), ("verdicts", "events"), ("reasons", "events")):
        parts = sorted(((number, what) for (at, what), number in counts.items() if at == group), reverse=True)
        shares = (f"{what} {100 * number / counts['', of]:.1f} %" for number, what in parts)
        print(f"{group}: {', '.join(shares)}")
    missing = [name for name in EXPECTED if not counts[name]] if counts["", "policies"] >= BATCH else []
    if missing:
        print("correspondence: does not occur: " + ", ".join(f"{what} ({group})" for group, what in missing))
    numbers = (f"{what} {counts['', what]}" for what in ("policies", "states", "events", "objects", "mismatches"))
    print(f"correspondence: {', '.join(numbers)}, seconds {seconds:.0f}")
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


# ---- mistakes ------------------------------------------------------------------------------------------------------


Function = Callable[..., Any]


def _rules(change: Callable[[records.Rule], records.Rule], at: int) -> Callable[[Function], Function]:
    """A function of the compiler gets changed rules as its argument ``at``."""
    return lambda right: lambda *given: right(*given[:at], [change(rule) for rule in given[at]], *given[at + 1 :])


def _not_negated(rule: records.Rule) -> records.Rule:
    return rule._replace(resources=rule.resources and rule.resources._replace(negated=False))


def _without_star(right: Function) -> Function:
    return lambda positions, heads: frozenset(positions)


def _reached(right: Function) -> Function:
    def below(built: object, covers: object) -> tuple[object, object]:
        some, _every = right(built, covers)
        return some, some

    return below


MISTAKES = (
    ("a rule in audit mode denies", compile, "_rule_tables", _rules(lambda rule: rule._replace(audit=False), 1)),
    ("`not` of resources is ignored", compile, "_automaton_tables", _rules(_not_negated, 1)),
    ("exceptions are ignored", compile, "_rule_tables", _rules(lambda rule: rule._replace(excepts=frozenset()), 1)),
    ("a * matches at least one byte", automaton, "_closure", _without_star),
    ("rules on a part of a folder cover all of it", compile, "_below", _reached),
    ("a range of ports ends before its last port", compile, "_port_prefixes",
     lambda right: lambda first, last: right(first, max(first, last - 1))),
    ("a label has the bit of another name", compile, "_label_bits",
     lambda right: lambda subjects, labels: dict.fromkeys(right(subjects, labels), 0)),
    ("the meaning: a rule is in force on the day it expires", semantics, "in_force",
     lambda right: lambda rule, now: rule.expires is None or now.isoformat() <= rule.expires),
    ("the meaning: an exception applies if an attribute is unknown", semantics, "_surely_is",
     lambda right: semantics._may_be),
    ("the meaning: below a folder, only its own path", semantics, "_some_below",
     lambda right: lambda patterns, path: any(semantics.matches(pattern, path) for pattern in patterns)),
    ("the lookup: truncated lists of groups count as complete", kernel_model.Model, "bound",
     lambda right: lambda self, task: right(self, task._replace(ids_truncated=False))),
)  # fmt: skip


@contextlib.contextmanager
def seeded(module: ModuleType | type, name: str, wrong: Callable[[Function], Function]) -> Iterator[None]:
    """Replaces a function of the product by a wrong one."""
    right = getattr(module, name)
    setattr(module, name, wrong(right))
    try:
        yield
    finally:
        setattr(module, name, right)


def mistakes(seed: int, events: int) -> bool:
    """Makes each mistake. False: one is not found."""
    missed = 0
    if batch(seed, range(100), events).different:
        print("correspondence: there are differences without a mistake")
        return False
    for what, module, name, wrong in MISTAKES:
        with seeded(module, name, wrong):
            for at in range(0, TRIES, 20):
                different = batch(seed, range(at, at + 20), events).different
                if different:
                    print(f"found: {what} ({different[0].splitlines()[0]})", flush=True)
                    break
            else:
                missed += 1
                print(f"correspondence: not found within {TRIES} policies: {what}")
    print(f"{len(MISTAKES)} seeded mistakes, {missed} not found")
    return not missed


def main() -> int:
    """Exit status 1 when there are differences, or a mistake is not found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policies", type=int, default=2000)
    parser.add_argument("--events", type=int, default=8, help="for each policy")
    parser.add_argument("--seed", type=int, default=20260601)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--mistakes", action="store_true", help="make mistakes in the product; each has to be found")
    options = parser.parse_args()
    if options.mistakes:
        return 0 if mistakes(options.seed, options.events) else 1
    started = time.monotonic()
    result = compare(options.seed, options.policies, options.events, options.jobs)
    return 0 if report(result, time.monotonic() - started) else 1


if __name__ == "__main__":
    sys.exit(main())
