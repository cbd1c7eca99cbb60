# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the host with its certificate. Everything is read and computed again; no statement of the certificate is
trusted. Changes nothing, but the self-test's denied attempts are counted like any other."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Iterable, Mapping

from ..attest import certificate, evidence
from ..attest.certificate import Certificate, Difference
from ..attest.evidence import Evidence, Package
from ..compile import tables
from ..errors import EnforcerError, PolicyErrors
from ..host.protocols import Store, System
from ..host.stored import Stored
from ..kernel.protocol import Kernel
from ..kernel.types import LSM_MAC, MODIFY_RETURN, LinkInfo
from ..lifecycle import canary, drift, enforcer, next_boot
from ..policy import canonical
from ..resolve import encoding

_APPLY = "Run role exfil.guard.policy"
_INSTALL = "Run role exfil.guard.enforcer"


@dataclass(frozen=True)
class Verification:
    """The result of `exfil-guard verify`. Lines in ``not_proved`` and ``foreign`` are not differences."""

    differences: list[Difference]
    not_proved: list[str]
    foreign: list[str]
    certificate: dict[str, Any] | None  # as it is stored

    @property
    def verified(self) -> bool:
        """Whether the host is as its certificate says."""
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        """Returns the result for `--json`."""
        return {
            "verified": self.verified,
            "differences": [difference._asdict() for difference in self.differences],
            "not_proved": self.not_proved,
            "foreign": self.foreign,
            "certificate": self.certificate,
        }


def verify(
    kernel: Kernel, store: Store, system: System, now: datetime.date, *, canary_folder: str = canary.FOLDER
) -> Verification:
    """Raises EnforcerError when the enforcer is not installed."""
    version = enforcer.installed(kernel)
    content = store.certificate()
    if version is None:
        raise EnforcerError("the enforcer is not installed", _INSTALL)
    running = evidence.read(kernel, version)
    package = evidence.package(store)
    stored = next_boot.document(store, running.live.generation, edited=True) if running.live.generation else None
    expected = certificate.expect(kernel, store, version)
    differences = [
        *_compare_files(content, package),
        *(
            Difference(damage.line, _INSTALL if damage.installation else _APPLY)
            for damage in next_boot.problems(store, running.live)
        ),
        *(Difference(f"{path} is not what its source compiles to", _INSTALL) for path in evidence.miscompiled(store)),
        *certificate.unexpected_objects(running, expected),
        *_compare_certificate(content, running, stored),
        *_compare_policy(running, stored, system, now, canary_folder),
    ]
    if stored:
        differences.extend(_run_canary(kernel, running, stored, system, now, canary_folder))
    _unused, proofs = certificate.check_proofs(kernel, store, package.object if package else "", expected)
    differences = list(dict.fromkeys(differences))  # a file of the package is compared twice
    return Verification(differences, proofs.lines, _foreign(kernel, running), content)


def _compare_files(content: Mapping[str, Any] | None, package: Package | None) -> list[Difference]:
    if package is None:
        return [Difference("the package is not installed, or not complete", _INSTALL)]
    differences = [Difference(f"the file {path} is not as the package has it", _INSTALL) for path in package.edited]
    if content and content["package"] != package.digest:
        differences.append(Difference("the package is another than when the policy was applied", _APPLY))
    if content and content["object"] != package.object:
        differences.append(Difference("the object file is another than when the policy was applied", _INSTALL))
    return differences


# ---- the certificate ------------------------------------------------------------------------------------------------


def _compare_certificate(
    content: Mapping[str, Any] | None, running: Evidence, stored: Stored | None
) -> list[Difference]:
    if content is None:
        what = "there is no certificate" if running.live.generation else "no policy is in force"
        return [Difference(what, _APPLY)]
    if content["version"] != certificate.VERSION:
        return [Difference("the certificate is of another release", _APPLY)]
    known = certificate.from_json(content)
    lines = _compare_host(known, running)
    if known.policy.generation != running.live.generation:
        lines.append(
            f"generation {running.live.generation} is in force" if running.live.generation else "no policy is in force"
        )
        lines[-1] += f", the certificate is for generation {known.policy.generation}"
    else:
        lines.extend(_compare_document(known, running.live.generation, stored))
        if known.kernel.boot == running.boot:  # otherwise ids and addresses are of another boot
            lines.extend(_compare_tables(known, running))
            lines.extend(_compare_objects(known, running))
    return [Difference(line, _APPLY) for line in lines]


def _compare_host(known: Certificate, running: Evidence) -> list[str]:
    lines = []
    if known.kernel.release != running.release:
        lines.append(f"the kernel is {running.release}, the certificate is for {known.kernel.release}")
    elif known.kernel.boot != running.boot:
        lines.append("the host was booted since the certificate was written")
    if known.enforcer != running.version:
        lines.append(f"the enforcer is {running.version}, the certificate is for {known.enforcer}")
    return lines


def _compare_document(known: Certificate, generation: int, stored: Stored | None) -> list[str]:
    if stored and known.policy.digest != stored.digest:
        return [f"the document of generation {generation} is not the one of the certificate"]
    if stored and known.policy.resolved != canonical.digest(stored.resolved):
        return [f"the resolved document of generation {generation} is not the one of the certificate"]
    return []


def _compare_tables(known: Certificate, running: Evidence) -> list[str]:
    lines = []
    for name, table in sorted(known.tables.items()):
        title = f"table {name} of generation {running.live.generation}"
        held = running.tables.get(name)
        if held is None:
            lines.append(f"{title} is missing")
            continue
        if held.digest != table.digest:
            lines.append(f"{title} has other entries than the certificate says")
        elif held.id != table.id:
            lines.append(f"{title} is another map (id {held.id}, was {table.id})")
        if not held.frozen:
            lines.append(f"{title} can be written: it is not the one that was applied")
    return lines


def _compare_objects(known: Certificate, running: Evidence) -> list[str]:
    lines = [
        f"the map pinned as {name} is another (id {running.maps.get(name)}, was {number})"
        for name, number in sorted(known.maps.items())
        if running.maps.get(name) != number
    ]
    recorded, attached = set(known.attached), set(running.attached)
    lines.extend(f"the program for {hook} is not attached" for hook in sorted(recorded - attached))
    lines.extend(
        f"the program for {hook} is attached, but not according to the certificate"
        for hook in sorted(attached - recorded)
    )
    programs = known.program_ids()
    for hook, running_program in sorted(running.programs.items()):
        number, tag = programs.get(hook, (None, None))
        if (running_program.id, running_program.tag) != (number, tag):
            lines.append(
                f"the program pinned as {hook} is another (id {running_program.id}, tag {running_program.tag}) "
                f"than the certificate says (id {number}, tag {tag})"
            )
    return lines


# ---- the policy -----------------------------------------------------------------------------------------------------


def _compare_policy(
    running: Evidence, stored: Stored | None, system: System, now: datetime.date, folder: str
) -> list[Difference]:
    """The document on disk against its own digest, and its compiled image against the kernel's tables."""
    if not running.live.generation:
        return []
    if stored is None:
        what = f"the document of generation {running.live.generation} is missing, or not complete"
        return [Difference(what, _APPLY)]
    lines = []
    if canonical.digest(stored.document) != stored.digest:
        lines.append(f"the document of generation {running.live.generation} was edited")
    lines.extend(drift.difference_lines(running.live, stored, running.attached, system, now, folder))
    return [Difference(line, _APPLY) for line in lines]


def _run_canary(
    kernel: Kernel, running: Evidence, stored: Stored, system: System, now: datetime.date, folder: str
) -> list[Difference]:
    rules = tables.rule_bits(tables.Image({"rules": {}, **running.live.tables}))
    try:
        canary.run(kernel, rules, encoding.from_json(stored.resolved), now, canary.find(system, folder), folder)
    except EnforcerError as error:
        return [Difference(error.message, _INSTALL)]
    except PolicyErrors as error:
        return [Difference(str(error), _INSTALL)]
    return []


# ---- programs of others ---------------------------------------------------------------------------------------------


def _foreign(kernel: Kernel, running: Evidence) -> list[str]:
    hooks = {program.link.function: hook for hook, program in running.programs.items() if program.link}
    lines = []
    for link in evidence.foreign(kernel, running):
        fd = kernel.program_by_id(link.program)
        try:
            name = kernel.program_info(fd).name
        finally:
            kernel.close(fd)
        lines.append(
            f"a program that is not ours (id {link.program}, {name or 'no name'}) {_foreign_effect(link, hooks)}"
        )
    return lines


def _foreign_effect(link: LinkInfo, hooks: Mapping[int, str]) -> str:
    if link.attach_type == LSM_MAC:
        return f"is attached to hook {hooks[link.function]}, too; it can deny more, not less"
    if link.attach_type == MODIFY_RETURN:
        return "can replace the return value of a kernel function"
    return "traces or replaces a program of ours"


def to_text(result: Verification) -> str:
    """Returns the result for people."""
    lines = []
    if result.certificate:
        known = certificate.from_json(result.certificate)
        proved = sum(1 for program in known.programs.values() if program.proved)
        lines.append(
            f"certificate   of generation {known.policy.generation}, written {known.issued_at}, "
            f"for {known.kernel.release}"
        )
        lines.append(f"proved        at least one property of {proved} of {len(known.programs)} programs")
    lines.extend(_labelled("NOT PROVED", result.not_proved))
    lines.extend(_labelled("FOREIGN", result.foreign))
    lines.extend(_labelled("DIFFERS", map(str, result.differences)))
    lines.append("verified      yes, this host is as its certificate says" if result.verified else "verified      NO")
    return "\n".join(lines)


def _labelled(label: str, lines: Iterable[str]) -> list[str]:
    return [f"{label:<13} {line}" for line in lines]
