#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves the properties (properties.py) of each program for each kernel, as submitted after CO-RE.

Prints what is not proved, with a path through the program that shows it, and writes the results to
.build/proof/results.json.

    prove.py [--kernel 6.1] [--program NAME] [--object FILE] [--verbose]"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any, Iterator, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))
from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.bpf import Kernel
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.types import ARRAY, ARRAY_OF_MAPS
from btf import hooks
from decode import Function, decode, inner
from effects import VERDICT, check_functions, check_maps, effect
from exact import verdict
from execute import UnprovedError
from kernels import KERNELS, kernel_types
from properties import NAMES, Rules, violations
from state import Trace, Violation
from submitted import OBJECT, ROOT, Program, programs
from world import Prover

RESULTS = ROOT / ".build" / "proof" / "results.json"
LINES = 40  # of a printed path


class Proved(NamedTuple):
    """The properties that are proved of one program."""

    program: str
    digest: str
    properties: tuple[str, ...]
    reasons: dict[str, str]  # property -> why it is not proved
    shown: dict[str, list[str]]  # property -> a path that shows it
    seconds: float


def prover(data: bytes) -> Prover[Rules]:
    """The prover for an object. Raises effects.TableError where the assumptions about maps do not fit it."""
    described = Kernel().describe(data)
    check_maps(described.maps)
    kinds = {}
    for name, spec in described.maps.items():
        inner = described.inner.get(name)
        outer = "outer " if spec.type == ARRAY_OF_MAPS else ""
        kinds[name] = outer + ("array" if (inner or spec).type == ARRAY else "hash" if outer else "other")
    return Prover(kinds, Rules(layout.POLICY.field("uses").offset, layout.DENIES_LABELS))


def prove(with_: Prover[Rules], program: Program, arguments: int | None) -> Proved:
    """Proves all properties of a program. ``arguments``: how many its hook has; None: the hook has no result."""
    started = time.process_time()
    found: dict[str, Violation] = {}
    try:
        before = None if arguments is None else with_.argument(arguments)
        with_.rules.begin(before)
        ends, trespasses = with_.program(decode(program))
        for end in ends:
            for violation in violations(end, before):
                found.setdefault(violation.property, violation)
        for trespass in trespasses:
            found.setdefault(trespass.property, trespass)
        reasons = {violation.property: violation.what for violation in found.values()}
    except UnprovedError as error:
        reasons = dict.fromkeys(NAMES, str(error))
    differs = decision(decode(program))
    if differs:
        reasons["verdict"] = differs
    shown = {violation.property: list(_format_trace(violation.trace))[-LINES:] for violation in found.values()}
    held = tuple(name for name in (*NAMES, "verdict") if name not in reasons)
    return Proved(
        program.submitted.name, program.submitted.digest(), held, reasons, shown, time.process_time() - started
    )


_decisions: dict[str, str] = {}  # digest of a guard_verdict -> how it differs from the reference


def decision(function: Function) -> str:
    """How the program's guard_verdict differs from the reference; empty: it does not, or there is none."""
    decides = inner(function, VERDICT)
    if decides is None:
        return ""
    if decides.digest not in _decisions:
        try:
            _decisions[decides.digest] = "; ".join(verdict(decides).differs[:1])
        except UnprovedError as error:
            _decisions[decides.digest] = str(error)
    return _decisions[decides.digest]


_VERDICTS = {0: "0, allow", 1: "1, audit", 2: "2, deny"}


def _format_trace(trace: Trace | None, depth: int = 0) -> Iterator[str]:
    """The lines of a readable path through a program."""
    steps = []
    while trace is not None:
        steps.append(trace.what)
        trace = trace.before
    for what in reversed(steps):
        if what[0] == "none":
            yield f"{'  ' * depth}no {what[1]} in {what[2]}"
        elif what[0] == "call":
            _kind, callee, result, inner = what
            shown = _VERDICTS.get(result, result) if callee == VERDICT else result
            if result is not None and effect(callee).shown != "nothing":
                if isinstance(shown, int) and shown >> 31 == 1:
                    shown -= 1 << 32
                yield f"{'  ' * depth}{callee} returns {shown}"
                if effect(callee).shown == "calls":
                    yield from list(_format_trace(inner, depth + 1))[:LINES]


def _kernel(task: tuple[str, bytes, list[str] | None, bool]) -> tuple[str, list[Proved]]:
    kernel, data, wanted, verbose = task
    types = kernel_types(kernel)
    counts, with_, every = hooks(types.btf), prover(data), programs(types, data)
    check_functions(function.name for program in every.values() for function in program.functions)
    results = []
    for program in every.values():  # first, because z3 gives up on it after much other work
        decision(decode(program))
    for name, program in every.items():
        if not wanted or name in wanted:
            results.append(prove(with_, program, counts[program.submitted.hook]))
            if verbose:
                print(f"{kernel:5} {name} {results[-1].seconds:.1f} s {results[-1].reasons or ''}", flush=True)
    return kernel, results


def main() -> int:
    """Exit status 1 when a property is not proved."""
    parser = argparse.ArgumentParser(description="Proves properties of the programs as submitted.")
    parser.add_argument("--kernel", action="append", choices=KERNELS)
    parser.add_argument("--program", action="append")
    parser.add_argument("--object", type=Path, default=OBJECT)
    parser.add_argument("--verbose", action="store_true", help="print each program as soon as it is done")
    options = parser.parse_args()
    data, started = options.object.read_bytes(), time.monotonic()
    results: dict[str, Any] = {"object": hashlib.sha256(data).hexdigest(), "kernels": {}}
    good = True
    tasks = [(kernel, data, options.program, options.verbose) for kernel in options.kernel or KERNELS]
    with multiprocessing.Pool(2) as pool:
        for kernel, proved in pool.imap(_kernel, tasks):
            results["kernels"][kernel] = {
                program.program: {"digest": program.digest, "proved": list(program.properties)} for program in proved
            }
            for name in (*NAMES, "verdict"):
                held = sum(name in program.properties for program in proved)
                print(f"{kernel:5} {name:8} is proved of {held} of {len(proved)} programs", flush=True)
            longest = sorted(proved, key=lambda program: -program.seconds)[:3]
            print(
                f"{kernel:5} {sum(program.seconds for program in proved):.0f} s of one core; the longest: "
                + ", ".join(f"{program.program} {program.seconds:.1f} s" for program in longest)
            )
            for program in proved:
                for name, reason in sorted(program.reasons.items()):
                    good = False
                    print(f"{kernel:5} {name} is not proved of {program.program}: {reason}")
                    for line in program.shown.get(name, ()):
                        print(f"        {line}")
    print(f"{time.monotonic() - started:.0f} s")
    if not options.program and options.object == OBJECT and not options.kernel:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results), encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
