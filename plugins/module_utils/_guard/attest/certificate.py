# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate that an apply leaves on the host: what was put in force, which programs decide by it, that they are
those of the object, and what is proved of them. `exfil-guard verify` compares the host with it at any time.

    {"version": 1, "issued_at": TIME, "object": SHA-256, "enforcer": its first digits, "package": SHA-256,
     "kernel": {"release", "boot", "btf": SHA-256},
     "policy": {"generation", "digest", "resolved", "image"},      SHA-256 of the document, resolved, and compiled
     "tables": {NAME: {"id", "digest"}}, "maps": {NAME: id},
     "programs": {HOOK: {"id", "tag", "proved": [PROPERTY, ...]}}, "attached": [HOOK, ...],
     "canary": {"tried", "warnings"}, "proof": {"version", "release"},
     "not_proved": [LINE, ...], "differences": [LINE, ...]}        what was not as it must be when it was issued

It is written last, once all that is read back; a run that changes nothing leaves it as it is."""

from __future__ import annotations

import datetime
import hashlib
import os
from typing import Any, NamedTuple

from ..errors import EnforcerError
from ..host.store import Store
from ..kernel import instructions
from ..kernel.bpf import Kernel
from ..kernel.types import LSM_MAC, Relocated, hook_of
from ..policy import canonical
from . import evidence, proved
from .evidence import Evidence, Package, Running

VERSION = 1
_MENDED = "Run role exfil.guard.enforcer with exfil_guard_state absent, then role exfil.guard.policy"


class Difference(NamedTuple):
    what: str
    remedy: str

    def __str__(self) -> str:
        return "{0}. {1}".format(*self) if self.remedy else self.what


class Expected(NamedTuple):
    """What the object gives for this kernel, by the hook that a program is pinned as. ``lines``: why it gives none."""

    programs: dict[str, Relocated]
    lines: list[str]


# ---- what is compared, from records alone ---------------------------------------------------------------------------


def unexpected_objects(found: Evidence, expected: Expected) -> list[Difference]:
    """Programs, links and maps that are not those of the object."""
    wrong = [Difference(line, "Run role exfil.guard.enforcer") for line in expected.lines]

    def tell(text: str, *parts: Any) -> None:
        wrong.append(Difference(text.format(*parts), _MENDED))

    for hook, running in sorted(found.programs.items()):
        wanted = expected.programs.get(hook)
        if wanted is None:
            if expected.programs:
                tell("the program pinned as {0} is none of the object's", hook)
            continue
        if running.tag not in instructions.tags(wanted.code):
            tell(
                "the program pinned as {0} (id {1}, tag {2}) is not the object's (tag {3})",
                hook,
                running.id,
                running.tag,
                " or ".join(instructions.tags(wanted.code)),
            )
        # one that is not pinned may be held besides, as libbpf does with constants: no instruction loads it
        names = set(instructions.submitted(wanted, ()).maps.values())
        if running.maps.intersection(found.maps.values()) != {found.maps.get(name, 0) for name in names}:
            tell("the program pinned as {0} does not use the maps that are pinned", hook)
        link = running.link
        if link and link.program != running.id:
            tell(
                "the link pinned as {0} runs another program (id {1}) than is pinned (id {2})",
                hook,
                link.program,
                running.id,
            )
        if link and (link.attach_type != LSM_MAC or link.function != wanted.function):
            tell("the link pinned as {0} is not attached to the LSM hook {1}", hook, wanted.hook)
    for hook in sorted(set(expected.programs) - set(found.programs)):
        tell("the program for {0} is not pinned", hook)
    for hook in found.stray:
        tell("the link pinned as {0} has no program of that name", hook)
    return wrong


def outdated(known: dict[str, Any] | None, found: Evidence, stored: dict[str, Any], package: Package) -> str:
    """Why a certificate is not that of what runs now; empty when it is. Without relocating anything, as each run asks
    it."""
    if known is None:
        return "missing"
    if known["version"] != VERSION:
        return "of another release"
    now = _of_records(found, stored, package)
    for key, name in (
        ("kernel", "boot"),
        ("package", "package"),
        ("object", "object"),
        ("enforcer", "enforcer"),
        ("policy", "policy"),
        ("tables", "tables"),
        ("maps", "maps"),
        ("attached", "hooks"),
    ):
        then = dict(known[key], btf="") if key == "kernel" else known[key]
        if then != now[key]:
            return f"of another {name}" if key not in ("tables", "maps", "attached") else f"of other {name}"
    return "" if _programs(known) == _running(found) else "of other programs"


def _programs(known: dict[str, Any]) -> dict[str, tuple[int, str]]:
    return {hook: (each.get("id"), each.get("tag")) for hook, each in known["programs"].items()}


def _running(found: Evidence) -> dict[str, tuple[int, str]]:
    return {hook: (each.id, each.tag) for hook, each in found.programs.items()}


def _holds(before: dict[str, Any] | None, now: dict[str, Any], found: Evidence) -> bool:
    """Is what the certificate before says of the programs true still? Then they need not be compared with the object
    once more: within one boot a program's number is never another's, nor can its maps and its hook change."""
    return (
        before is not None
        and before["version"] == VERSION
        and not before["differences"]
        and not found.stray
        and all(before[key] == now[key] for key in ("object", "package", "enforcer", "maps"))
        and before["kernel"].get("boot") == found.boot
        and _programs(before) == _running(found)
        and all(each.link.program == each.id for each in found.programs.values() if each.link)
    )


def _of_records(found: Evidence, stored: dict[str, Any], package: Package) -> dict[str, Any]:
    return {
        "kernel": {"release": found.release, "boot": found.boot, "btf": ""},
        "object": package.object,
        "package": package.digest,
        "enforcer": found.version,
        "policy": {
            "generation": found.live.generation,
            "digest": stored["digest"],
            "resolved": canonical.digest(stored["resolved"]),
            "image": stored.get("image"),
        },
        "tables": {name: {"id": held.id, "digest": held.digest} for name, held in sorted(found.tables.items())},
        "maps": dict(sorted(found.maps.items())),
        "attached": found.attached,
    }


# ---- on a host ------------------------------------------------------------------------------------------------------


def expect(kernel: Kernel, store: Store, version: str) -> Expected:
    """The object's programs as libbpf relocates them for this kernel, without loading them."""
    try:
        with open(os.path.join(store.library, "guard.bpf.o"), "rb") as file:
            data = file.read()
        if not hashlib.sha256(data).hexdigest().startswith(version):
            return Expected({}, ["the object file is not the one whose programs are loaded: they were not compared"])
        return Expected({hook_of(each.name): each for each in kernel.relocate(data)}, [])
    except (EnforcerError, OSError) as error:
        return Expected({}, [f"the programs were not compared with the object: {error}"])


def judged(kernel: Kernel, store: Store, object_digest: str, expected: Expected) -> tuple[str, proved.Judged]:
    """The digest of the kernel's types, and what is proved of the programs."""
    btf = kernel.btf_digest()
    if not expected.programs:
        return btf, proved.Judged("", {}, [*expected.lines, "nothing is proved of programs that were not compared"])
    try:
        known = proved.load(store.library)
    except EnforcerError as error:
        return btf, proved.Judged("", {}, [f"nothing is proved: {error}"])
    return btf, proved.judge(known, object_digest, btf, expected.programs.values())


def issue(kernel: Kernel, store: Store, version: str, canary: list[str] | None = None) -> list[str]:
    """Reads everything back and writes the certificate, or takes it away where no policy is in force. ``canary``: the
    warnings of one that ended well just now. Gives warnings: one for each thing that is not as it must be."""
    package = evidence.package(store)
    found = evidence.read(kernel, version)
    stored = store.load(found.live.generation) if found.live.generation else None
    if stored is None or package is None:
        store.decertify()
        return [f"no certificate is written: no package is installed in {store.library}"] if stored else []
    before, now = store.certificate(), _of_records(found, stored, package)
    same = before is not None and before["policy"].get("generation") == found.live.generation
    now["canary"] = (
        {"tried": True, "warnings": canary}
        if canary is not None
        else before["canary"]
        if same and before
        else {"tried": False, "warnings": []}
    )
    if before is not None and _holds(before, now, found):
        now["kernel"]["btf"] = before["kernel"].get("btf", "")
        now.update({key: before[key] for key in ("programs", "proof", "not_proved", "differences")})
    else:
        now.update(_compared(kernel, store, found, package, now))
    store.certify(
        dict(
            now,
            version=VERSION,
            issued_at=datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0).isoformat(),
        )
    )
    return now["differences"]


def _compared(kernel: Kernel, store: Store, found: Evidence, package: Package, now: dict[str, Any]) -> dict[str, Any]:
    """What the certificate says of the programs."""
    expected = expect(kernel, store, found.version)
    now["kernel"]["btf"], judgement = judged(kernel, store, package.object, expected)
    return {
        "programs": {
            hook: {"id": each.id, "tag": each.tag, "proved": _properties(each, expected.programs.get(hook), judgement)}
            for hook, each in sorted(found.programs.items())
        },
        "proof": {"version": proved.VERSION, "release": judgement.release},
        "not_proved": judgement.lines,
        "differences": [str(each) for each in unexpected_objects(found, expected)],
    }


def _properties(running: Running, wanted: Relocated | None, judgement: proved.Judged) -> list[str]:
    if wanted is None or running.tag not in instructions.tags(wanted.code):
        return []
    return list(judgement.properties.get(wanted.name, ()))
