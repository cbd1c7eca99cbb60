# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate that an apply leaves on the host. It records which policy is in force, which programs enforce it,
whether those are the object's programs, and which properties are proved of them. `exfil-guard verify` compares the host
with it.

    {"version": 1, "issued_at": TIME, "object": SHA-256, "enforcer": its first digits, "package": SHA-256,
     "kernel": {"release", "boot", "btf": SHA-256},
     "policy": {"generation", "digest", "resolved", "image"},      SHA-256 of the document, resolved, and compiled
     "tables": {NAME: {"id", "digest"}}, "maps": {NAME: id},
     "programs": {HOOK: {"id", "tag", "proved": [PROPERTY, ...]}}, "attached": [HOOK, ...],
     "canary": {"tried", "warnings"}, "proof": {"version", "release"},
     "not_proved": [LINE, ...], "differences": [LINE, ...]}        differences that were found when it was issued

It is written last, after everything in it was read back. A run that changes nothing does not rewrite it."""

from __future__ import annotations

import datetime
import hashlib
import os
from typing import Any, Mapping, NamedTuple

from ..errors import EnforcerError
from ..host import files
from ..host.protocols import Store
from ..host.stored import Stored
from ..kernel import instructions
from ..kernel.protocol import Kernel
from ..kernel.types import LSM_MAC, LinkInfo, Relocated, hook_of
from ..policy import canonical
from . import evidence, proved
from .evidence import Evidence, Package, Running

VERSION = 1
_REINSTALL = "Run role exfil.guard.enforcer with exfil_guard_state absent, then role exfil.guard.policy"


class Difference(NamedTuple):
    """One way in which a host differs from what it must be, and what an operator can do about it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}" if self.remedy else self.what


class Expected(NamedTuple):
    """The object's programs for this kernel, by the hook that each is pinned as. ``lines``: why there are none."""

    programs: dict[str, Relocated]
    lines: list[str]


# ---- the record -----------------------------------------------------------------------------------------------------


class KernelIdentity(NamedTuple):
    """The running kernel. ``boot``: the boot's id; ``btf``: SHA-256 of the kernel's types."""

    release: str | None
    boot: str | None
    btf: str = ""


class PolicyIdentity(NamedTuple):
    """The generation in force, with the SHA-256 of its document, of the resolved document and of its compiled image."""

    generation: int | None
    digest: str | None
    resolved: str | None
    image: str | None


class TableIdentity(NamedTuple):
    """A table of the generation: the map's id and the SHA-256 of its entries."""

    id: int | None
    digest: str | None


class ProgramIdentity(NamedTuple):
    """A program in the kernel and the properties that are proved of it."""

    id: int | None
    tag: str | None
    proved: list[str]


class CanaryResult(NamedTuple):
    """Whether the self-test ran when the certificate was issued, and its warnings."""

    tried: bool
    warnings: list[str]


class ProofSource(NamedTuple):
    """The format of the proofs, and the release of the kernel that they were made for ("": there are none for it)."""

    version: int | None
    release: str | None


class Certificate(NamedTuple):
    """A certificate. Parts that a damaged file lacks are None, so that they differ from every host."""

    version: int
    issued_at: str
    object: str
    enforcer: str
    package: str
    kernel: KernelIdentity
    policy: PolicyIdentity
    tables: dict[str, TableIdentity]
    maps: dict[str, int]
    programs: dict[str, ProgramIdentity]  # by hook
    attached: list[str]
    canary: CanaryResult
    proof: ProofSource
    not_proved: list[str]
    differences: list[str]

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the certificate's file."""
        return {
            **self._asdict(),
            "kernel": self.kernel._asdict(),
            "policy": self.policy._asdict(),
            "tables": {name: table._asdict() for name, table in self.tables.items()},
            "programs": {hook: program._asdict() for hook, program in self.programs.items()},
            "canary": self.canary._asdict(),
            "proof": self.proof._asdict(),
        }

    def program_ids(self) -> dict[str, tuple[int | None, str | None]]:
        """Returns the id and the tag of each program, by hook."""
        return {hook: (program.id, program.tag) for hook, program in self.programs.items()}


def from_json(content: Mapping[str, Any]) -> Certificate:
    """Reads what Store.certificate returns for this VERSION: every top-level key is there and has its type."""
    kernel, policy, canary = content["kernel"], content["policy"], content["canary"]
    return Certificate(
        version=content["version"],
        issued_at=content["issued_at"],
        object=content["object"],
        enforcer=content["enforcer"],
        package=content["package"],
        kernel=KernelIdentity(kernel.get("release"), kernel.get("boot"), kernel.get("btf", "")),
        policy=PolicyIdentity(*(policy.get(key) for key in PolicyIdentity._fields)),
        tables={name: TableIdentity(table.get("id"), table.get("digest")) for name, table in content["tables"].items()},
        maps=content["maps"],
        programs={
            hook: ProgramIdentity(program.get("id"), program.get("tag"), program.get("proved") or [])
            for hook, program in content["programs"].items()
        },
        attached=content["attached"],
        canary=CanaryResult(canary.get("tried", False), canary.get("warnings", [])),
        proof=ProofSource(content["proof"].get("version"), content["proof"].get("release")),
        not_proved=content["not_proved"],
        differences=content["differences"],
    )


# ---- comparison -----------------------------------------------------------------------------------------------------


def unexpected_objects(running: Evidence, expected: Expected) -> list[Difference]:
    """Compares the pinned programs, links and maps with the object's."""
    lines = []
    for hook, program in sorted(running.programs.items()):
        wanted = expected.programs.get(hook)
        if wanted is not None:
            lines.extend(_unexpected_program(hook, program, wanted, running.maps))
        elif expected.programs:
            lines.append(f"the object has no program for {hook}, but one is pinned")
    lines.extend(
        f"the program for {hook} is not pinned" for hook in sorted(set(expected.programs) - set(running.programs))
    )
    lines.extend(f"the link pinned as {hook} has no program of that name" for hook in running.stray)
    return [
        *(Difference(line, "Run role exfil.guard.enforcer") for line in expected.lines),
        *(Difference(line, _REINSTALL) for line in lines),
    ]


def _unexpected_program(hook: str, running: Running, wanted: Relocated, pinned_maps: Mapping[str, int]) -> list[str]:
    lines = []
    tags = instructions.tags(wanted.code)
    if running.tag not in tags:
        lines.append(
            f"the program pinned as {hook} (id {running.id}, tag {running.tag}) is not the object's "
            f"(tag {' or '.join(tags)})"
        )
    # A program may also hold maps that are not pinned: libbpf adds one for constants, which no instruction loads.
    names = set(instructions.submitted(wanted, ()).maps.values())
    if running.maps.intersection(pinned_maps.values()) != {pinned_maps.get(name, 0) for name in names}:
        lines.append(f"the program pinned as {hook} does not use the maps that are pinned")
    return lines + (_unexpected_link(hook, running.link, running.id, wanted) if running.link else [])


def _unexpected_link(hook: str, link: LinkInfo, program: int, wanted: Relocated) -> list[str]:
    lines = []
    if link.program != program:
        lines.append(
            f"the link pinned as {hook} runs another program (id {link.program}) than is pinned (id {program})"
        )
    if link.attach_type != LSM_MAC or link.function != wanted.function:
        lines.append(f"the link pinned as {hook} is not attached to the LSM hook {wanted.hook}")
    return lines


def outdated(content: Mapping[str, Any] | None, running: Evidence, stored: Stored, package: Package) -> str:
    """Returns why the stored certificate is not that of the running host, or "" if it is. Relocates nothing, because
    every run calls this."""
    if content is None:
        return "missing"
    if content["version"] != VERSION:
        return "of another release"
    known, now = from_json(content), _of_records(running, stored, package)
    for same, why in (
        (known.kernel._replace(btf="") == now.kernel, "of another boot"),
        (known.package == now.package, "of another package"),
        (known.object == now.object, "of another object"),
        (known.enforcer == now.enforcer, "of another enforcer"),
        (known.policy == now.policy, "of another policy"),
        (known.tables == now.tables, "of other tables"),
        (known.maps == now.maps, "of other maps"),
        (known.attached == now.attached, "of other hooks"),
        (known.program_ids() == _running_ids(running), "of other programs"),
    ):
        if not same:
            return why
    return ""


def _running_ids(running: Evidence) -> dict[str, tuple[int | None, str | None]]:
    return {hook: (program.id, program.tag) for hook, program in running.programs.items()}


def _still_holds(before: Certificate, now: Certificate, running: Evidence) -> bool:
    """Whether the previous certificate's statements about the programs hold, so that they need not be compared with the
    object again: within one boot the kernel does not reuse a program's id, and its maps and hook cannot change."""
    return (
        not before.differences
        and not running.stray
        and (before.object, before.package, before.enforcer) == (now.object, now.package, now.enforcer)
        and before.maps == now.maps
        and before.kernel.boot == running.boot
        and before.program_ids() == _running_ids(running)
        and all(program.link.program == program.id for program in running.programs.values() if program.link)
    )


def _of_records(running: Evidence, stored: Stored, package: Package) -> Certificate:
    """The parts of the certificate that need no relocation and no test; the others are empty."""
    return Certificate(
        version=VERSION,
        issued_at="",
        object=package.object,
        enforcer=running.version,
        package=package.digest,
        kernel=KernelIdentity(running.release, running.boot),
        policy=PolicyIdentity(running.live.generation, stored.digest, canonical.digest(stored.resolved), stored.image),
        tables={name: TableIdentity(table.id, table.digest) for name, table in sorted(running.tables.items())},
        maps=dict(sorted(running.maps.items())),
        programs={},
        attached=running.attached,
        canary=CanaryResult(False, []),
        proof=ProofSource(None, None),
        not_proved=[],
        differences=[],
    )


# ---- on a host ------------------------------------------------------------------------------------------------------


def expect(kernel: Kernel, store: Store, version: str) -> Expected:
    """Returns the object's programs as libbpf relocates them for this kernel, without loading them."""
    try:
        data = files.read(os.path.join(store.library, "guard.bpf.o"))
        if not hashlib.sha256(data).hexdigest().startswith(version):
            return Expected({}, ["the object file is not the one whose programs are loaded: they were not compared"])
        return Expected({hook_of(program.name): program for program in kernel.relocate(data)}, [])
    except (EnforcerError, OSError) as error:
        return Expected({}, [f"the programs were not compared with the object: {error}"])


def check_proofs(
    kernel: Kernel, store: Store, object_digest: str, expected: Expected
) -> tuple[str, proved.ProofResult]:
    """Returns the digest of the kernel's types, and what is proved of the programs."""
    btf = kernel.btf_digest()
    if not expected.programs:
        lines = [*expected.lines, "nothing is proved of programs that were not compared"]
        return btf, proved.ProofResult("", {}, lines)
    try:
        proofs = proved.load(store.library)
    except EnforcerError as error:
        return btf, proved.ProofResult("", {}, [f"nothing is proved: {error}"])
    return btf, proved.check(proofs, object_digest, btf, expected.programs.values())


def issue(kernel: Kernel, store: Store, version: str, canary: list[str] | None = None) -> list[str]:
    """Reads everything back and writes the certificate; deletes it when no policy is in force. ``canary``: the warnings
    of a self-test that just passed. Returns the differences as warnings."""
    package = evidence.package(store)
    running = evidence.read(kernel, version)
    stored = store.load(running.live.generation) if running.live.generation else None
    if stored is None or package is None:
        store.decertify()
        return [f"no certificate is written: no package is installed in {store.library}"] if stored else []
    content = store.certificate()
    before = from_json(content) if content is not None and content["version"] == VERSION else None
    now = _of_records(running, stored, package)
    if canary is not None:
        now = now._replace(canary=CanaryResult(True, canary))
    elif before is not None and before.policy.generation == running.live.generation:
        now = now._replace(canary=before.canary)
    if before is not None and _still_holds(before, now, running):
        now = now._replace(
            kernel=now.kernel._replace(btf=before.kernel.btf),
            programs=before.programs,
            proof=before.proof,
            not_proved=before.not_proved,
            differences=before.differences,
        )
    else:
        now = _compared(kernel, store, running, package, now)
    issued_at = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0).isoformat()
    store.certify(now._replace(issued_at=issued_at).to_json())
    return now.differences


def _compared(kernel: Kernel, store: Store, running: Evidence, package: Package, now: Certificate) -> Certificate:
    """Adds what is found by comparing the programs with the object and with the proofs."""
    expected = expect(kernel, store, running.version)
    btf, proofs = check_proofs(kernel, store, package.object, expected)
    return now._replace(
        kernel=now.kernel._replace(btf=btf),
        programs={
            hook: ProgramIdentity(program.id, program.tag, _properties(program, expected.programs.get(hook), proofs))
            for hook, program in sorted(running.programs.items())
        },
        proof=ProofSource(proved.VERSION, proofs.release),
        not_proved=proofs.lines,
        differences=[str(difference) for difference in unexpected_objects(running, expected)],
    )


def _properties(running: Running, wanted: Relocated | None, proofs: proved.ProofResult) -> list[str]:
    if wanted is None or running.tag not in instructions.tags(wanted.code):
        return []
    return list(proofs.properties.get(wanted.name, ()))
