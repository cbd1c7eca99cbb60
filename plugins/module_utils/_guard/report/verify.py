# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is this host as its certificate says, now? Everything is read and worked out anew: nothing is believed because the
certificate says so. Changes nothing; the canary's denied attempts are counted like any other."""

from __future__ import annotations

import datetime
from typing import Any

from ..attest import certificate, evidence
from ..attest.certificate import Difference
from ..attest.evidence import Evidence, Package
from ..compile import tables
from ..errors import EnforcerError, PolicyErrors
from ..host.store import Store
from ..kernel.bpf import Kernel
from ..kernel.types import LSM_MAC, MODIFY_RETURN
from ..lifecycle import canary, drift, enforcer
from ..policy import canonical
from ..resolve import encoding

_APPLY = "Run role exfil.guard.policy"
_INSTALL = "Run role exfil.guard.enforcer"


def verify(
    kernel: Kernel, store: Store, system: Any, now: datetime.date, *, canary_folder: str = canary.FOLDER
) -> dict[str, Any]:
    """{"verified": bool, "differences": [{"what", "remedy"}], "not_proved": [LINE], "foreign": [LINE], "certificate"}.
    ``not_proved`` and ``foreign`` are told and are no differences. Raises EnforcerError where there is nothing."""
    version = enforcer.installed(kernel)
    known = store.certificate()
    if version is None:
        raise EnforcerError("the enforcer is not installed", _INSTALL)
    found = evidence.read(kernel, version)
    package = evidence.package(store)
    stored = store.load(found.live.generation) if found.live.generation else None
    expected = certificate.expect(kernel, store, version)
    wrong = files(known, package)
    wrong += [Difference(f"{path} is not what its source gives", _INSTALL) for path in evidence.miscompiled(store)]
    wrong += certificate.unexpected_objects(found, expected)
    wrong += against(known, found, stored)
    wrong += policy(found, stored, system, now, canary_folder)
    if stored:
        wrong += _canary(kernel, found, stored, system, now, canary_folder)
    judgement = certificate.judged(kernel, store, package.object if package else "", expected)[1]
    return {
        "verified": not wrong,
        "differences": [each._asdict() for each in wrong],
        "not_proved": judgement.lines,
        "foreign": _foreign(kernel, found),
        "certificate": known,
    }


def files(known: dict[str, Any] | None, package: Package | None) -> list[Difference]:
    if package is None:
        return [Difference("the package is not installed, or not whole", _INSTALL)]
    wrong = [Difference(f"the file {path} is not as the package has it", _INSTALL) for path in package.edited]
    if known and known.get("package") != package.digest:
        wrong.append(Difference("the package is another than when the policy was applied", _APPLY))
    if known and known.get("object") != package.object:
        wrong.append(Difference("the object file is another than when the policy was applied", _INSTALL))
    return wrong


def against(known: dict[str, Any] | None, found: Evidence, stored: dict[str, Any] | None) -> list[Difference]:
    """What is recorded in the certificate, compared with what runs."""
    number = found.live.generation
    if known is None:
        return (
            [Difference("there is no certificate", _APPLY)] if number else [Difference("no policy is in force", _APPLY)]
        )
    wrong: list[Difference] = []

    def tell(text: str, *parts: Any) -> None:
        wrong.append(Difference(text.format(*parts), _APPLY))

    if known["version"] != certificate.VERSION:
        tell("the certificate is of another release")
        return wrong
    same_boot = known["kernel"].get("boot") == found.boot
    if known["kernel"].get("release") != found.release:
        tell("the kernel is {0}, the certificate is for {1}", found.release, known["kernel"].get("release"))
    elif not same_boot:
        tell("the host was booted since the certificate was written")
    if known["enforcer"] != found.version:
        tell("the enforcer is {0}, the certificate is for {1}", found.version, known["enforcer"])
    if known["policy"].get("generation") != number:
        tell(
            "{0}, the certificate is for generation {1}",
            f"generation {number} is in force" if number else "no policy is in force",
            known["policy"].get("generation"),
        )
        return wrong
    if stored and known["policy"].get("digest") != stored["digest"]:
        tell("the document of generation {0} is not the one of the certificate", number)
    elif stored and known["policy"].get("resolved") != canonical.digest(stored["resolved"]):
        tell("the resolved document of generation {0} is not the one of the certificate", number)
    if not same_boot:
        return wrong  # ids and addresses are of another boot
    for name, each in sorted(known["tables"].items()):
        held = found.tables.get(name)
        if held is None:
            tell("table {0} of generation {1} is gone", name, number)
        elif held.digest != each.get("digest"):
            tell("table {0} of generation {1} has other entries than the certificate says", name, number)
        elif held.id != each.get("id"):
            tell("table {0} of generation {1} is another map (id {2}, was {3})", name, number, held.id, each.get("id"))
        if held and not held.frozen:
            tell("table {0} of generation {1} can be written: it is not the one that was applied", name, number)
    for name, then in sorted(known["maps"].items()):
        if found.maps.get(name) != then:
            tell("the map pinned as {0} is another (id {1}, was {2})", name, found.maps.get(name), then)
    for hook in sorted(set(known["attached"]) - set(found.attached)):
        tell("the program for {0} is not attached", hook)
    for hook in sorted(set(found.attached) - set(known["attached"])):
        tell("the program for {0} is attached, which the certificate does not say", hook)
    for hook, running in sorted(found.programs.items()):
        program = known["programs"].get(hook, {})
        if (running.id, running.tag) != (program.get("id"), program.get("tag")):
            tell(
                "the program pinned as {0} is another (id {1}, tag {2}) than the certificate says (id {3}, tag {4})",
                hook,
                running.id,
                running.tag,
                program.get("id"),
                program.get("tag"),
            )
    return wrong


def policy(
    found: Evidence, stored: dict[str, Any] | None, system: Any, now: datetime.date, folder: str
) -> list[Difference]:
    """The document on disk against its own digest, and what it compiles to against the kernel's tables."""
    if not found.live.generation:
        return []
    if stored is None:
        return [Difference(f"the document of generation {found.live.generation} is missing, or not whole", _APPLY)]
    wrong = []
    if canonical.digest(stored["document"]) != stored["digest"]:
        wrong.append("the document of generation {0} was edited".format(stored["generation"]))
    wrong += drift.difference_lines(found.live, stored, found.attached, system, now, folder)
    return [Difference(line, _APPLY) for line in wrong]


def _canary(
    kernel: Kernel, found: Evidence, stored: dict[str, Any], system: Any, now: datetime.date, folder: str
) -> list[Difference]:
    rules = tables.rule_bits(tables.Image(dict({"rules": {}}, **found.live.tables)))
    try:
        canary.try_it(kernel, rules, encoding.from_json(stored["resolved"]), now, canary.find(system, folder), folder)
    except (EnforcerError, PolicyErrors) as error:
        return [Difference(getattr(error, "message", str(error)), _INSTALL)]
    return []


def _foreign(kernel: Kernel, found: Evidence) -> list[str]:
    hooks = {each.link.function: hook for hook, each in found.programs.items() if each.link}
    lines = []
    for link in evidence.foreign(kernel, found):
        fd = kernel.program_by_id(link.program)
        try:
            name = kernel.program_info(fd).name
        finally:
            kernel.close(fd)
        if link.attach_type == LSM_MAC:
            what = f"stands on hook {hooks[link.function]}, too; it can deny more, not less"
        elif link.attach_type == MODIFY_RETURN:
            what = "can replace what a function of the kernel returns"
        else:
            what = "traces or replaces a program of ours"
        lines.append("a program that is not ours (id {0}, {1}) {2}".format(link.program, name or "no name", what))
    return lines


def to_text(result: dict[str, Any]) -> str:
    known = result["certificate"]
    lines = []
    if known:
        lines.append(
            "certificate   of generation {0}, written {1}, for {2}".format(
                known["policy"].get("generation"), known["issued_at"], known["kernel"].get("release")
            )
        )
        proved = sum(1 for each in known["programs"].values() if each.get("proved"))
        lines.append("proved        something of {0} of {1} programs".format(proved, len(known["programs"])))
    lines.extend(f"NOT PROVED    {line}" for line in result["not_proved"])
    lines.extend(f"FOREIGN       {line}" for line in result["foreign"])
    lines.extend(f"DIFFERS       {Difference(**each)}" for each in result["differences"])
    lines.append(
        "verified      {0}".format("yes, this host is as its certificate says" if result["verified"] else "NO")
    )
    return "\n".join(lines)
