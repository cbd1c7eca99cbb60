# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate of an apply, and what `exfil-guard verify` makes of a host that somebody meddled with. Each kind of
meddling is reported with what differs. An unchanged host has no differences."""

import dataclasses
import json
import os
import struct
from pathlib import Path
from typing import Callable

import fake_package
import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import cli, host_api
from ansible_collections.exfil.guard.plugins.module_utils._guard.attest import evidence, proved
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import pyc
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import generations, instructions, mapspecs
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.types import MODIFY_RETURN, Relocated
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import confirm, enforcer
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import canonical
from ansible_collections.exfil.guard.plugins.module_utils._guard.report import status, verify
from fake_kernel import LSM_MAC, FakeKernel, _Link, _Map, _Program, function_of
from test_apply import BOTH, CORP, NOW, OBJECT, VERSION
from test_apply import host as host  # noqa: PLC0414 -- a fixture, which pytest finds by its name here

BASE = "/bpf/exfil_guard/v1/"
HOOK = "socket_connect"
PROGRAM, LINK = BASE + f"programs-{VERSION}/{HOOK}", BASE + f"links-{VERSION}/{HOOK}"


def checked(host):
    return verify.verify(host.kernel, host.store, host.system, NOW, canary_folder=host.folder)


def differences(host):
    result = checked(host)
    content = result.to_json()
    assert content["verified"] == (not content["differences"])
    assert all(each["remedy"] for each in content["differences"])
    return [each["what"] for each in content["differences"]]


@pytest.fixture
def certified(host):
    host.put(CORP)
    assert differences(host) == []
    return host


def path_of(host):
    return Path(host.store.folder) / "certificate.json"


# ---- what is written, and when ------------------------------------------------------------------------------------


def test_says_what_was_put_in_force(certified):
    known = certified.store.certificate()
    stored = certified.store.load(1)
    assert known["object"].startswith(VERSION) and known["enforcer"] == VERSION
    assert known["policy"] == {
        "generation": 1,
        "digest": stored.digest,
        "image": stored.image,
        "resolved": canonical.digest(stored.resolved),
    }
    assert known["kernel"] == {"release": "6.1.0-40-amd64", "boot": certified.kernel.booted, "btf": "b7f0" * 16}
    assert known["attached"] == certified.kernel.attached() and HOOK in known["attached"]
    assert set(known["tables"]) == set(mapspecs.TABLES)
    assert known["programs"][HOOK]["proved"] == ["verdict"] and len(known["programs"][HOOK]["tag"]) == 16
    assert known["canary"] == {"tried": True, "warnings": []}
    assert known["proof"] == {"version": 1, "release": "6.1.0-40-amd64"}
    assert known["not_proved"] == known["differences"] == []
    assert path_of(certified).stat().st_mode & 0o777 == 0o600
    text = path_of(certified).read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def test_a_run_that_changes_nothing_leaves_it_alone(certified):
    before = path_of(certified).stat()
    assert certified.quiet(CORP)
    assert path_of(certified).stat() == before


def test_one_for_each_generation_none_without_a_policy(certified):
    certified.put(BOTH)
    assert certified.store.certificate()["policy"]["generation"] == 2 and differences(certified) == []
    confirm.rollback(certified.kernel, certified.store, **certified.options)
    known = certified.store.certificate()
    assert known["policy"]["generation"] == 1 and known["canary"] == {"tried": False, "warnings": []}
    assert differences(certified) == []
    result = confirm.remove(certified.kernel, certified.store, check=True, **certified.options)
    assert "- certificate\n" in result["diff"]["prepared"] and path_of(certified).exists()
    assert confirm.remove(certified.kernel, certified.store, **certified.options) == result
    assert not path_of(certified).exists()


@pytest.mark.parametrize(
    "damage, why",
    [
        (lambda host: path_of(host).unlink(), "missing"),
        (lambda host: path_of(host).write_text("{}"), "missing"),
        (lambda host: path_of(host).write_text("nonsense"), "missing"),
        (lambda host: change(host, version=0), "of another release"),
        (lambda host: change(host, kernel={"release": "6.1.0-40-amd64", "boot": "before"}), "of another boot"),
        (lambda host: change(host, attached=[]), "of other hooks"),
        (lambda host: change(host, programs={}), "of other programs"),
    ],
)
def test_one_that_is_not_of_what_runs_is_written_again(certified, damage, why):
    damage(certified)
    assert differences(certified)
    would = certified.apply(CORP, check=True)
    line = f"~ certificate of generation 1 (it was {why})\n"
    assert would["changed"] and would["diff"]["prepared"] == line
    assert certified.apply(CORP) == would
    assert differences(certified) == [] and certified.quiet(CORP)


def change(host, **parts):
    content = dict(json.loads(path_of(host).read_text()), **parts)
    del content["checksum"]  # as earlier releases wrote it; with it, a changed certificate counts as missing
    path_of(host).write_text(json.dumps(content))


def test_status_shows_it(certified):
    found = status.status(certified.kernel, certified.store)
    assert found.certificate == certified.store.certificate()
    assert "certificate   of generation 1, written " in status.to_text(found)


# ---- who meddled --------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Meddling:
    what: str
    do: Callable
    lines: tuple


def other_program(host):
    real = host.kernel.pins[PROGRAM]
    return _Program(9001, "socket_connect_by_hand", real.maps)


def swap_program(host):
    host.kernel.pins[PROGRAM] = other_program(host)


def swap_link(host):
    link = _Link(9002, other_program(host))
    link.function = function_of(HOOK)
    host.kernel.pins[LINK] = link


def swap_both(host):
    swap_program(host)
    link = _Link(9002, host.kernel.pins[PROGRAM])
    link.function = function_of(HOOK)
    host.kernel.pins[LINK] = link


def other_hook(host):
    link = _Link(9002, host.kernel.pins[PROGRAM])
    link.function += 1
    host.kernel.pins[LINK] = link


def other_map_of_a_program(host):
    real = host.kernel.pins[PROGRAM]
    counters = host.kernel.pins[BASE + "maps/counters"]
    copy = _Map(9003, "counters", counters.spec)
    program = _Program(real.number, real.name, tuple(copy if each is counters else each for each in real.maps))
    host.kernel.pins[PROGRAM] = program
    link = _Link(host.kernel.pins[LINK].number, program)
    host.kernel.pins[LINK] = link


def other_pinned_map(host):
    found = host.kernel.pins[BASE + "maps/counters"]
    copy = _Map(9003, "counters", found.spec)
    copy.entries = dict(found.entries)
    host.kernel.pins[BASE + "maps/counters"] = copy


def table(host, name):
    outer = host.kernel.pins[BASE + "maps/" + name]
    key = struct.pack("=I", host.live().slot)
    return outer, key, outer.inner[key]


def exchange_table(name, entries, frozen=True):
    def do(host):
        outer, key, inner = table(host, name)
        copy = _Map(9004, inner.name, inner.spec)
        copy.entries, copy.frozen = entries(dict(inner.entries)), frozen
        outer.inner[key] = copy

    return do


def without_one(entries):
    entries.pop(sorted(entries)[0])
    return entries


def edit_document(part, value):
    def do(host):
        path = Path(host.store.generations_folder) / "1.json"
        stored = json.loads(path.read_text())
        stored[part].update(value)
        path.write_text(json.dumps(stored))

    return do


def edit_file(name):
    def do(host):
        path = Path(host.store.library) / name
        path.write_bytes(path.read_bytes() + b"\n")

    return do


def add_file(host):
    (Path(host.store.library) / "exfil_guard" / "more.py").write_text("# more\n")


def add_file_below(host):
    folder = Path(host.store.library) / "exfil_guard" / "policy"
    folder.mkdir()
    (folder / "more.py").write_text("# more\n")


def compile_other(host):
    path, made = next(iter(pyc.compiled({host.store.library + "/exfil_guard/cli.py": b"# other code\n"}).items()))
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(made)


def other_generation(host):
    record = host.live().record
    generations.publish(host.kernel, record._replace(generation=7))


def other_kernel(host):
    host.kernel.found = host.kernel.found._replace(release="6.12.1")


def other_boot(host):
    host.kernel.booted = "another"


def no_program_runs(host):
    host.kernel.runs = False


def switch_ftrace_off(host):
    host.kernel.found = host.kernel.found._replace(ftrace=False)


def detach(host):
    del host.kernel.pins[LINK]


MEDDLING = [
    Meddling(
        "a program pinned in place of ours",
        swap_program,
        (
            "the program pinned as socket_connect (id 9001",
            "the link pinned as socket_connect runs another program",
            "the program for socket_connect is not attached",
        ),
    ),
    Meddling(
        "a link pinned in place of ours",
        swap_link,
        ("the link pinned as socket_connect runs another program (id 9001)",),
    ),
    Meddling("both", swap_both, ("the program pinned as socket_connect (id 9001", "is not the object's")),
    Meddling("our program on another hook", other_hook, ("is not attached to the LSM hook socket_connect",)),
    Meddling("our program with another map", other_map_of_a_program, ("does not use the maps that are pinned",)),
    Meddling("a map pinned in place of ours", other_pinned_map, ("the map pinned as counters is another (id 9003",)),
    Meddling("a link taken away", detach, ("the program for socket_connect is not attached",)),
    Meddling(
        "a table with an entry less",
        exchange_table("ipv4", without_one),
        ("table ipv4 of generation 1 has other entries", "table ipv4: 1 entries differ"),
    ),
    Meddling("a table that is a copy", exchange_table("rules", dict), ("table rules of generation 1 is another map",)),
    Meddling(
        "a table that can be written", exchange_table("rules", dict, False), ("table rules of generation 1 can be",)
    ),
    Meddling(
        "the document", edit_document("document", {"mode": "audit"}), ("the document of generation 1 was edited",)
    ),
    Meddling(
        "the resolved document",
        edit_document("resolved", {"rules": []}),
        ("the resolved document of generation 1 is not the one", "table rules: "),
    ),
    Meddling(
        "the object file",
        edit_file("guard.bpf.o"),
        ("guard.bpf.o is not as the package has it", "the object file is another", "they were not compared"),
    ),
    Meddling("the code", edit_file("exfil_guard/cli.py"), ("exfil_guard/cli.py is not as the package has it",)),
    Meddling("compiled code", compile_other, (".pyc is not what its source compiles to",)),
    Meddling("the proofs", edit_file("proved.json"), ("proved.json is not as the package has it",)),
    Meddling("the package's list", edit_file("PACKAGE"), ("the package is another",)),
    Meddling("code that is not of the package", add_file, ("exfil_guard/more.py is not as the package has it",)),
    Meddling(
        "code in a sub-package that is not of the package",
        add_file_below,
        ("exfil_guard/policy/more.py is not as the package has it",),
    ),
    Meddling("the record", other_generation, ("generation 7 is in force, the certificate is for generation 1",)),
    Meddling("another kernel", other_kernel, ("the kernel is 6.12.1, the certificate is for 6.1.0-40-amd64",)),
    Meddling("another boot", other_boot, ("the host was booted since",)),
    Meddling(
        "programs that do not run",
        no_program_runs,
        ("the canary was not denied: connecting to 192.0.2.1 passed; the programs are attached and do not run",),
    ),
    Meddling("a switch that stops all programs", switch_ftrace_off, ("kernel.ftrace_enabled is 0",)),
]


@pytest.mark.parametrize("meddling", MEDDLING, ids=lambda each: each.what)
def test_meddling_is_reported(certified, meddling):
    meddling.do(certified)
    lines = differences(certified)
    for wanted in meddling.lines:
        assert any(wanted in line for line in lines), lines
    assert certified.kernel.open_descriptors() == 0


def test_changed_counters_are_no_difference(certified):
    counters = certified.kernel.pins[BASE + "maps/counters"].entries
    counters[next(iter(counters))] = struct.pack("=QQ", 5, 6)
    assert differences(certified) == []


def test_every_apply_warns_of_a_program_that_is_not_ours(certified):
    swap_both(certified)
    first = certified.apply(CORP)
    assert first["diff"]["prepared"] == "~ certificate of generation 1 (it was of other programs)\n"
    assert any("is not the object's" in line for line in first["warnings"])
    known = certified.store.certificate()
    assert known["programs"][HOOK]["proved"] == [] and known["programs"]["file_open"]["proved"] == ["verdict"]
    second = certified.apply(CORP)
    assert not second["changed"] and second["warnings"] == first["warnings"] == known["differences"]


def test_programs_of_others_are_reported_and_are_no_difference(certified):
    other = _Program(9001, "theirs", ())
    for number, kind, function in ((1, LSM_MAC, function_of(HOOK)), (2, MODIFY_RETURN, 5), (3, LSM_MAC, 6)):
        link = _Link(9000 + number, other)
        link.attach_type, link.function = kind, function
        certified.kernel.pins[f"/bpf/{number}"] = link
    result = checked(certified)
    assert result.verified and result.foreign == [
        "a program that is not ours (id 9001, theirs) is attached to hook socket_connect, too; it can deny more, not less",
        "a program that is not ours (id 9001, theirs) can replace the return value of a kernel function",
    ]


def test_a_program_that_replaces_ours_is_reported(certified):
    link = _Link(9000, _Program(9001, "theirs", ()))
    link.attach_type, link.target = 0, certified.kernel.pins[PROGRAM].number
    certified.kernel.pins["/bpf/theirs"] = link
    assert checked(certified).foreign == [
        "a program that is not ours (id 9001, theirs) traces or replaces a program of ours"
    ]


# ---- what is not proved -------------------------------------------------------------------------------------------


def test_an_unknown_kernel_is_reported_and_is_no_error(host):
    host.kernel.types = "ffff" * 16
    host.put(CORP)
    known = host.store.certificate()
    assert known["proof"]["release"] == "" and known["programs"][HOOK]["proved"] == []
    assert known["differences"] == [] and known["not_proved"] == [
        "nothing is proved for this kernel: its types (ffffffffffff) are none of those that the proofs are for "
        "(6.1.0-40-amd64); {0} of its {0} programs have the instructions that they have on 6.1.0-40-amd64".format(
            len(host.kernel.relocate(OBJECT))
        )
    ]
    result = checked(host)
    assert result.verified and result.not_proved == known["not_proved"]
    assert "NOT PROVED    nothing is proved for this kernel" in verify.to_text(result)


def known_of(kernel, **parts):
    return proved.read(dict(fake_package.proved(kernel, OBJECT), **parts))


def judge(kernel, known, digest=None, programs=None):
    return proved.check(known, digest or known.object, kernel.btf_digest(), programs or kernel.relocate(OBJECT))


def test_proofs_hold_for_the_same_instructions_maps_hook_and_object():
    kernel = FakeKernel()
    known = known_of(kernel)
    good = judge(kernel, known)
    assert good.lines == [] and set(good.properties.values()) == {("verdict",)}
    assert "the proofs are for another" in judge(kernel, known, digest="00" * 32).lines[0]
    programs = kernel.relocate(OBJECT)
    first = programs[0]
    names = dict(first.maps)
    one, other = sorted(names)[:2]
    names[one], names[other] = names[other], names[one]
    for changed in (
        first._replace(code=first.code[:-1] + b"\1"),
        first._replace(maps=names),
        first._replace(hook="file_open" if first.hook != "file_open" else "bpf"),
    ):
        found = judge(kernel, known, programs=[changed, *programs[1:]])
        assert found.lines == [f"the instructions of {first.name} are not those that the proofs are for"]
        assert found.properties[first.name] == () and found.properties[programs[1].name] == ("verdict",)


def test_each_property_that_is_not_proved_of_some_program_is_reported():
    kernel = FakeKernel()
    content = fake_package.proved(kernel, OBJECT)
    programs = content["kernels"][kernel.types]["programs"]
    programs["file_open"]["proved"] = []
    found = judge(kernel, proved.read(dict(content, properties=["range", "verdict"])))
    assert found.lines[1:] == ["verdict is not proved of file_open"]
    assert found.lines[0].startswith("range is not proved of ") and found.lines[0].endswith(
        f" and {len(programs) - 6} more"
    )
    assert judge(kernel, known_of(kernel, properties=[])).lines == ["nothing is proved of any program in this release"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "object": "", "properties": [], "kernels": {"a": 5}}']
)
def test_a_damaged_set_of_proofs_is_reported(certified, content):
    (Path(certified.store.library) / "proved.json").write_text(content)
    with pytest.raises(EnforcerError, match=r"does not have format 1 of the proofs\. Run role"):
        proved.load(certified.store.library)
    assert checked(certified).not_proved[0].startswith("nothing is proved: ")
    os.unlink(os.path.join(certified.store.library, "proved.json"))
    assert "cannot read" in checked(certified).not_proved[0]


# ---- instructions -------------------------------------------------------------------------------------------------

CODE = struct.pack(
    "<BBhiBBhiBBhiBBhiBBhi", 0x18, 0x11, 0, 77, 0, 0, 0, 0, 0x18, 2, 0, 0x1234, 0, 0, 0, 0x5678, 0x95, 0, 0, 0
)


def test_the_numbers_of_a_boot_are_taken_out_and_put_back():
    relocated = Relocated("p", "h", 1, CODE, {77: "counters"})
    found = instructions.submitted(relocated, [2])
    assert found.maps == {0: "counters"} and found.symbols == {2: "rename_lock"}
    assert found.code == CODE.replace(struct.pack("<i", 77), bytes(4)).replace(
        struct.pack("<i", 0x1234), bytes(4)
    ).replace(struct.pack("<i", 0x5678), bytes(4))
    assert found.at(0x567800001234) == CODE.replace(struct.pack("<i", 77), bytes(4))
    other = relocated._replace(code=CODE.replace(struct.pack("<i", 77), struct.pack("<i", 78)), maps={78: "counters"})
    assert instructions.submitted(other, [2]).digest() == found.digest()
    assert (
        instructions.tags(other.code)
        == instructions.tags(relocated.code)
        == instructions.tags(found.at(0x567800001234))
    )
    assert instructions.tags(found.at(5)) != instructions.tags(CODE)


# ---- the command --------------------------------------------------------------------------------------------------


def api(host):
    """The host that the command works on."""
    return host_api.Host(host.kernel, host.system, host.store, NOW, host_api.Paths(canary=host.folder))


def test_the_command_ends_with_one_when_something_differs(certified, capsys):
    assert cli.main(["verify"], api(certified)) == 0
    assert capsys.readouterr().out.endswith("verified      yes, this host is as its certificate says\n")
    detach(certified)
    assert cli.main(["verify", "--json"], api(certified)) == 1
    assert json.loads(capsys.readouterr().out)["verified"] is False
    assert cli.main(["verify"], api(certified)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "verified      NO"
    assert "DIFFERS       the program for socket_connect is not attached. Run role exfil.guard.policy" in lines


def test_a_host_without_the_enforcer(host, capsys):
    assert differences(host) == ["no policy is in force"]
    enforcer.remove(host.kernel)
    assert cli.main(["verify"], api(host)) == 1
    assert capsys.readouterr().err == "exfil-guard: the enforcer is not installed. Run role exfil.guard.enforcer\n"


def test_no_package_no_certificate(certified):
    os.unlink(os.path.join(certified.store.library, "guard.bpf.o"))
    assert evidence.package(certified.store) is None
    assert "the package is not installed, or not complete" in differences(certified)
