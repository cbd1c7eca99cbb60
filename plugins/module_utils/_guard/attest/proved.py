# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The set of proofs that comes with the object: which properties were proved of which instructions on which kernel.
proof/proved.py writes it and documents its format; this module reads it and compares it with a host. Only `load` reads
a file."""

from __future__ import annotations

import json
import os
from typing import Any, Iterable, NamedTuple

from ..errors import EnforcerError
from ..host import files
from ..kernel import instructions
from ..kernel.types import Relocated

FILE = "proved.json"
VERSION = 1  # of the file's format and of the meaning of the properties' names
_MAX_NAMES = 6  # in a line


class Entry(NamedTuple):
    """One program on one kernel. ``digest``: instructions.Submitted.digest; ``symbols``: indexes of the
    instructions that load the address of a kernel symbol."""

    digest: str
    symbols: tuple[int, ...]
    properties: tuple[str, ...]


class Kernel(NamedTuple):
    """The proofs for one kernel."""

    release: str
    programs: dict[str, Entry]  # by the program's name in the object


class Proved(NamedTuple):
    """The content of the file."""

    object: str  # SHA-256 of the object, in hex
    properties: tuple[str, ...]  # every property that this release proves
    kernels: dict[str, Kernel]  # by the SHA-256 of the kernel's BTF


class ProofResult(NamedTuple):
    """``properties``: what is proved of each program, by its name. ``lines``: what is not proved."""

    release: str  # of the kernel that the proofs were made for; empty: there are none for this kernel's types
    properties: dict[str, tuple[str, ...]]
    lines: list[str]


def load(library: str) -> Proved:
    """Reads the file. Raises EnforcerError when it is missing or has another format."""
    path = os.path.join(library, FILE)
    try:
        return read(json.loads(files.read(path)))
    except OSError as error:
        raise EnforcerError(f"cannot read {path}: {error.strerror}", "Run role exfil.guard.enforcer") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise EnforcerError(
            f"{path} does not have format {VERSION} of the proofs", "Run role exfil.guard.enforcer"
        ) from error


def read(content: dict[str, Any]) -> Proved:
    """Raises KeyError, TypeError, ValueError or AttributeError when the format is another."""
    if content["version"] != VERSION:
        raise ValueError("another format")
    return Proved(
        content["object"],
        tuple(content["properties"]),
        {
            btf: Kernel(
                kernel["release"],
                {
                    name: Entry(entry["digest"], tuple(entry["symbols"]), tuple(entry["proved"]))
                    for name, entry in kernel["programs"].items()
                },
            )
            for btf, kernel in content["kernels"].items()
        },
    )


def check(proofs: Proved, object_digest: str, btf: str, programs: Iterable[Relocated]) -> ProofResult:
    """Returns what is proved of ``programs``: those of the object ``object_digest``, relocated by the types ``btf``."""
    programs = list(programs)
    nothing: dict[str, tuple[str, ...]] = {program.name: () for program in programs}
    if proofs.object != object_digest:
        text = f"nothing is proved of this object: the proofs are for another ({proofs.object[:12]})"
        return ProofResult("", nothing, [text])
    kernel = proofs.kernels.get(btf)
    if kernel is None:
        return ProofResult("", nothing, [_unknown_kernel(proofs, btf, programs)])
    others = [program.name for program in programs if not _same(kernel, program)]
    properties = {**nothing, **{name: kernel.programs[name].properties for name in nothing if name not in others}}
    lines = []
    if others:
        lines.append(f"the instructions of {_names(others)} are not those that the proofs are for")
    for wanted in proofs.properties:
        lacking = [name for name in nothing if wanted not in properties[name] and name not in others]
        if lacking:
            lines.append(f"{wanted} is not proved of {_names(lacking)}")
    if not proofs.properties:
        lines.append("nothing is proved of any program in this release")
    return ProofResult(kernel.release, properties, lines)


def _same(kernel: Kernel, program: Relocated) -> bool:
    entry = kernel.programs.get(program.name)
    if entry is None or any(index * instructions.SIZE >= len(program.code) for index in entry.symbols):
        return False
    return instructions.submitted(program, entry.symbols).digest() == entry.digest


def _unknown_kernel(proofs: Proved, btf: str, programs: list[Relocated]) -> str:
    releases = ", ".join(sorted(kernel.release for kernel in proofs.kernels.values()))
    text = (
        f"nothing is proved for this kernel: its types ({btf[:12] or 'none'}) are none of those that the proofs are "
        f"for ({releases or 'none'})"
    )
    counts = [
        (sum(_same(kernel, program) for program in programs), kernel.release) for kernel in proofs.kernels.values()
    ]
    best: tuple[int, str] | None = max(counts) if counts else None
    if best and best[0]:
        text += f"; {best[0]} of its {len(programs)} programs have the instructions that they have on {best[1]}"
    return text


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES])
    return shown + f" and {len(names) - _MAX_NAMES} more" if names[_MAX_NAMES:] else shown
