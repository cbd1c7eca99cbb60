#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The set of proved programs that comes with the object, roles/enforcer/files/proved.json:

    {"version": 1, "object": SHA-256 of the object, "properties": [NAME, ...],
     "kernels": {SHA-256 of the kernel's BTF: {"release": as uname tells it, "programs": {NAME in the object: {
         "hook": HOOK, "digest": guard.instructions.Submitted.digest, "symbols": [place of a load of an address, ...],
         "proved": [PROPERTY, ...]}}}}}

A program without a proof stands in it with none. What was proved is told by the proofs, in .build/proof/results.json:

    {"object": SHA-256 of the object,
     "kernels": {"6.1": {NAME in the object: {"digest": Submitted.digest of what was proved, "proved": [PROPERTY]}}}}

`proof/proved.py` compares the tracked file with the object, the kernels and the results, exit status 1 when it is not
theirs; `proof/proved.py --write` writes it. A result counts for the instructions of its digest alone."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any, Mapping

sys.path.insert(0, str(Path(__file__).resolve().parent))
from submitted import KERNELS, OBJECT, ROOT, Program, kernel_types, programs

TRACKED = OBJECT.with_name("proved.json")
RESULTS = ROOT / ".build" / "proof" / "results.json"
VERSION = 1  # as attest/proved.py


def entries(found: Mapping[str, Program], results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """``results``: of one kernel. Raises ValueError for a result that is of other instructions, or of no program."""
    unknown = sorted(set(results) - set(found))
    if unknown:
        raise ValueError(f"there are results of programs that this kernel does not load: {', '.join(unknown)}")
    made = {}
    for name, program in sorted(found.items()):
        digest, result = program.submitted.digest(), results.get(name)
        if result and result["digest"] != digest:
            raise ValueError(f"what was proved of {name} is of other instructions")
        made[name] = {
            "hook": program.submitted.hook,
            "digest": digest,
            "symbols": sorted(program.submitted.symbols),
            "proved": sorted(result["proved"]) if result else [],
        }
    return made


def whole(data: bytes, results: Mapping[str, Any]) -> dict[str, Any]:
    """The file's content for the object ``data``. Raises ValueError where the results are of another object."""
    digest = hashlib.sha256(data).hexdigest()
    if results.get("object", digest) != digest:
        raise ValueError("the results are of another object: run the proofs again")
    kernels = {}
    for kernel in KERNELS:
        types = kernel_types(kernel)
        found = entries(programs(types, data), results.get("kernels", {}).get(kernel, {}))
        kernels[types.digest] = {"release": types.release, "programs": found}
    properties = {one for kernel in kernels.values() for each in kernel["programs"].values() for one in each["proved"]}
    return {"version": VERSION, "object": digest, "properties": sorted(properties), "kernels": kernels}


def text(content: Mapping[str, Any]) -> str:
    """A line for each program, so that a change is seen in a diff."""
    kernels: list[str] = []
    for btf, kernel in sorted(content["kernels"].items()):
        lines = ",\n".join(
            f"   {json.dumps(name)}: {json.dumps(each, sort_keys=True, separators=(',', ':'))}"
            for name, each in sorted(kernel["programs"].items())
        )
        kernels.append(f'  "{btf}": {{"release": {json.dumps(kernel["release"])}, "programs": {{\n{lines}}}}}')
    head = {key: content[key] for key in ("version", "object", "properties")}
    return json.dumps(head)[:-1] + ', "kernels": {\n' + ",\n".join(kernels) + "}}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares the set of proved programs with what was proved.")
    parser.add_argument("--write", action="store_true", help="write it instead")
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
            f"proof/proved.py: {TRACKED.relative_to(ROOT)} is not what was proved of this object on these kernels: "
            "run proof/run and then proof/proved.py --write",
            file=sys.stderr,
        )
        return 1
    found = json.loads(made)
    for kernel in found["kernels"].values():
        count = sum(1 for each in kernel["programs"].values() if each["proved"])
        print(f"{kernel['release']}: {len(kernel['programs'])} programs, something is proved of {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
