# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The set of proved programs, which comes with the object: for which instructions on which kernel which property was
proved. Made by proof/proved.py, whose docstring has the file's form; here it is read and compared with a host. Pure
but for `load`."""

from __future__ import annotations

import json
import os
from typing import Any, Iterable, NamedTuple

from ..errors import EnforcerError
from ..kernel import instructions
from ..kernel.types import Relocated

FILE = "proved.json"
VERSION = 1  # of the file's form and of what the properties' names mean
_SHOWN = 6  # names in a line


class Entry(NamedTuple):
    """One program on one kernel. ``digest``: instructions.Submitted.digest; ``symbols``: where it loads an address."""

    digest: str
    symbols: tuple[int, ...]
    properties: tuple[str, ...]


class Kernel(NamedTuple):
    release: str
    programs: dict[str, Entry]  # by the program's name in the object


class Proved(NamedTuple):
    object: str  # SHA-256 of the object, in hex
    properties: tuple[str, ...]  # all that there are proofs for
    kernels: dict[str, Kernel]  # by the SHA-256 of the kernel's BTF


class Judged(NamedTuple):
    """What is proved of the programs that run here, by name; and in ``lines`` what is not."""

    release: str  # of the kernel that the proofs were made for; empty: none was made for this one's types
    properties: dict[str, tuple[str, ...]]
    lines: list[str]


def load(library: str) -> Proved:
    """Raises EnforcerError when the file is not there or not of this form."""
    path = os.path.join(library, FILE)
    try:
        with open(path, encoding="utf-8") as file:
            return read(json.load(file))
    except OSError as error:
        raise EnforcerError(f"cannot read {path}: {error.strerror}", "Run role exfil.guard.enforcer") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EnforcerError(
            f"{path} is not a set of proved programs of form {VERSION}", "Run role exfil.guard.enforcer"
        ) from error


def read(found: dict[str, Any]) -> Proved:
    if found["version"] != VERSION:
        raise ValueError("another form")
    return Proved(
        found["object"],
        tuple(found["properties"]),
        {
            btf: Kernel(
                kernel["release"],
                {
                    name: Entry(each["digest"], tuple(each["symbols"]), tuple(each["proved"]))
                    for name, each in kernel["programs"].items()
                },
            )
            for btf, kernel in found["kernels"].items()
        },
    )


def judge(known: Proved, object_digest: str, btf: str, programs: Iterable[Relocated]) -> Judged:
    """``programs``: of the object with ``object_digest``, relocated by the types ``btf``."""
    programs = list(programs)
    nothing: dict[str, tuple[str, ...]] = {each.name: () for each in programs}
    if known.object != object_digest:
        return Judged(
            "", nothing, [f"nothing is proved of this object: the proofs are for another ({known.object[:12]})"]
        )
    kernel = known.kernels.get(btf)
    if kernel is None:
        return Judged("", nothing, [_foreign(known, btf, programs)])
    others = [each.name for each in programs if not _same(kernel, each)]
    found = {each.name: kernel.programs[each.name].properties if each.name not in others else () for each in programs}
    lines = []
    if others:
        lines.append(f"the instructions of {_names(others)} are not those that the proofs are for")
    for wanted in known.properties:
        lacking = [each.name for each in programs if wanted not in found[each.name] and each.name not in others]
        if lacking:
            lines.append(f"{wanted} is not proved of {_names(lacking)}")
    if not known.properties:
        lines.append("nothing is proved of any program in this release")
    return Judged(kernel.release, found, lines)


def _same(kernel: Kernel, program: Relocated) -> bool:
    entry = kernel.programs.get(program.name)
    return entry is not None and instructions.submitted(program, entry.symbols).digest() == entry.digest


def _foreign(known: Proved, btf: str, programs: list[Relocated]) -> str:
    text = "nothing is proved for this kernel: its types ({0}) are none of those that the proofs are for ({1})".format(
        btf[:12] or "none", ", ".join(sorted(each.release for each in known.kernels.values())) or "none"
    )
    counts = [(sum(_same(kernel, each) for each in programs), kernel.release) for kernel in known.kernels.values()]
    best: tuple[int, str] | None = max(counts) if counts else None
    if best and best[0]:
        text += f"; {best[0]} of its {len(programs)} programs have the instructions that they have on {best[1]}"
    return text


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown + f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else shown
