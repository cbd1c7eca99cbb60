#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of proved programs that is installed with the object, roles/enforcer/files/proved.json:

    {"version": 1, "object": SHA-256 of the object, "properties": [NAME, ...],
     "kernels": {SHA-256 of the kernel's BTF: {"release": as uname prints it, "programs": {NAME in the object: {
         "hook": HOOK, "digest": Submitted.digest, "symbols": [place of a load of an address, ...],
         "proved": [PROPERTY, ...]}}}}}

A program without a proof has an empty list. The proofs write their results to .build/proof/results.json:

    {"object": SHA-256 of the object,
     "kernels": {"6.1": {NAME in the object: {"digest": Submitted.digest of what was proved, "proved": [PROPERTY]}}}}

`proof/proved.py` compares the tracked file with the object, the kernels and the results, and exits with status 1 when
it differs; `proof/proved.py --write` writes it. A result counts only for the instructions with its digest."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any, Mapping

sys.path.insert(0, str(Path(__file__).resolve().parent))
from kernels import KERNELS, kernel_types
from submitted import OBJECT, ROOT, Program, programs

TRACKED = OBJECT.with_name("proved.json")
RESULTS = ROOT / ".build" / "proof" / "results.json"
VERSION = 1  # as attest/proved.py


def entries(loaded: Mapping[str, Program], results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The list of one kernel's programs. ``results``: of that kernel.

    Raises ValueError for a result that is of other instructions, or of a program that the kernel does not load."""
    unknown = sorted(set(results) - set(loaded))
    if unknown:
        raise ValueError(f"there are results of programs that this kernel does not load: {', '.join(unknown)}")
    listed = {}
    for name, program in sorted(loaded.items()):
        digest, result = program.submitted.digest(), results.get(name)
        if result and result["digest"] != digest:
            raise ValueError(f"the proofs of {name} are of other instructions")
        listed[name] = {
            "hook": program.submitted.hook,
            "digest": digest,
            "symbols": sorted(program.submitted.symbols),
            "proved": sorted(result["proved"]) if result else [],
        }
    return listed


def whole(data: bytes, results: Mapping[str, Any]) -> dict[str, Any]:
    """The file's content for the object ``data``. Raises ValueError when the results are of another object."""
    digest = hashlib.sha256(data).hexdigest()
    if results.get("object", digest) != digest:
        raise ValueError("the results are of another object: run the proofs again")
    kernels: dict[str, dict[str, Any]] = {}
    properties: set[str] = set()
    for kernel in KERNELS:
        types = kernel_types(kernel)
        listed = entries(programs(types, data), results.get("kernels", {}).get(kernel, {}))
        kernels[types.digest] = {"release": types.release, "programs": listed}
        properties.update(name for program in listed.values() for name in program["proved"])
    return {"version": VERSION, "object": digest, "properties": sorted(properties), "kernels": kernels}


def text(content: Mapping[str, Any]) -> str:
    """The file's text, with one line per program, so that diffs are readable."""
    kernels: list[str] = []
    for btf, kernel in sorted(content["kernels"].items()):
        lines = ",\n".join(
            f"   {json.dumps(name)}: {json.dumps(program, sort_keys=True, separators=(',', ':'))}"
            for name, program in sorted(kernel["programs"].items())
        )
        kernels.append(f'  "{btf}": {{"release": {json.dumps(kernel["release"])}, "programs": {{\n{lines}}}}}')
    head = {key: content[key] for key in ("version", "object", "properties")}
    return json.dumps(head)[:-1] + ', "kernels": {\n' + ",\n".join(kernels) + "}}\n"


def main() -> int:
    """Exit status 1 when the tracked file is not up to date."""
    parser = argparse.ArgumentParser(description="Compares the list of proved programs with the proofs' results.")
    parser.add_argument("--write", action="store_true", help="write the list instead")
    write = parser.parse_args().write
    try:
        results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        made = text(whole(OBJECT.read_bytes(), results))
    except (FileNotFoundError, ValueError) as error:
        print(f"proof/proved.py: {error}", file=sys.stderr)
        return 1
    if write:
        TRACKED.write_text(made, encoding="utf-8")
    elif not TRACKED.exists() or TRACKED.read_text(encoding="utf-8") != made:
        print(
            f"proof/proved.py: {TRACKED.relative_to(ROOT)} differs from the proofs' results for this object and these "
            "kernels: run proof/run and then proof/proved.py --write",
            file=sys.stderr,
        )
        return 1
    for kernel in json.loads(made)["kernels"].values():
        count = sum(1 for program in kernel["programs"].values() if program["proved"])
        print(f"{kernel['release']}: {len(kernel['programs'])} programs, {count} of them with proofs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
