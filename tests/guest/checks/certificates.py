# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate of a real kernel: root meddles with what is in force, and `exfil-guard verify` tells."""

import contextlib
import ctypes
import datetime
import hashlib
import json
import os
import struct

from harness.checks import enforcer, story

LIBRARY, STATE = "/usr/lib/exfil-guard", "/var/lib/exfil-guard"
POLICY = {
    "resources": {"kept": {"paths": ["/srv/kept/**"]}},
    "rules": [{"name": "nobody reads what is kept", "deny": ["read"], "resources": ["kept"]}],
}
HOOK = "file_open"
ACCEPTS = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # r0 = 0; exit


def verify():
    """In a child, as the command does it."""

    def operation():
        from exfil_guard.report import verify as command

        kernel, system, store = enforcer._parts()
        return command.verify(kernel, store, system, datetime.datetime.now(datetime.timezone.utc).date()).to_json()

    return enforcer._result(operation)


def told(result):
    return [each["what"] for each in result["differences"]]


def well():
    result = verify()
    assert result["verified"] and not result["differences"], told(result)
    return result


def tells(*parts):
    """Each of ``parts`` is in some line, and each line has its remedy."""
    result = verify()
    lines = told(result)
    assert not result["verified"], "nothing is told"
    for part in parts:
        assert any(part in line for line in lines), f"{part!r} is not among {lines}"
    assert all(each["remedy"] for each in result["differences"]), result["differences"]


def folder(kind):
    base = "/sys/fs/bpf/exfil_guard/v1"
    return f"{base}/{next(name for name in os.listdir(base) if name.startswith(kind))}"


def program_by_hand():
    """An LSM program for the hook that lets everything pass."""
    kernel = enforcer.kernel
    with open(LIBRARY + "/guard.bpf.o", "rb") as file:
        function = next(each.function for each in kernel.relocate(file.read()) if each.hook == HOOK)
    code, licence = ctypes.create_string_buffer(ACCEPTS), ctypes.create_string_buffer(b"GPL")
    attr = struct.pack(
        "=IIQQIIQII16sIIIIQIIQIII",
        29,
        2,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        HOOK.encode(),
        0,
        27,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        function,
        0,
    )
    return kernel._bpf(5, attr, "load program")[0]


@contextlib.contextmanager
def instead(path, fd):
    """Something else pinned at ``path`` for a while."""
    kernel = enforcer.kernel
    before = kernel.get(path)
    try:
        kernel.unlink(path)
        kernel.pin(fd, path)
        yield
        kernel.unlink(path)
        kernel.pin(before, path)
    finally:
        os.close(before)


@contextlib.contextmanager
def edited(path, change):
    with open(path, "rb") as file:
        before = file.read()
    with open(path, "wb") as file:
        file.write(change(before))
    yield
    with open(path, "wb") as file:
        file.write(before)


def put_in_force():
    os.makedirs("/srv/kept", exist_ok=True)
    enforcer.install()
    return enforcer.apply(POLICY)


@story
def a_fresh_apply_is_certified():
    put_in_force()
    result = well()
    known = result["certificate"]
    with open("/sys/kernel/btf/vmlinux", "rb") as file:
        types = hashlib.sha256(file.read()).hexdigest()
    assert known["kernel"]["btf"] == types and known["kernel"]["release"] == os.uname().release, known["kernel"]
    assert known["proof"]["release"] == os.uname().release, (known["proof"], result["not_proved"])
    assert not any("instructions" in line or "compared" in line for line in result["not_proved"]), result["not_proved"]
    assert known["canary"] == {"tried": True, "warnings": []}, known["canary"]
    status = os.stat(STATE + "/certificate.json")
    assert status.st_mode & 0o777 == 0o600, oct(status.st_mode)
    assert not enforcer.apply(POLICY)["changed"], "a second run"
    assert os.stat(STATE + "/certificate.json").st_ino == status.st_ino, "it was written again"


@story
def a_program_that_is_swapped_is_told():
    put_in_force()
    well()
    kernel = enforcer.kernel
    program = program_by_hand()
    link = kernel.attach(program)
    assert any("is not ours" in line and HOOK in line for line in well()["foreign"]), "a foreign program"
    with instead(f"{folder('programs-')}/{HOOK}", program):
        tells("the program pinned as file_open", "is not the object's", "runs another program")
    well()
    with instead(f"{folder('links-')}/{HOOK}", link):
        tells("the link pinned as file_open runs another program", "the program for file_open is not attached")
    well()
    with instead(f"{folder('programs-')}/{HOOK}", program), instead(f"{folder('links-')}/{HOOK}", link):
        tells("the program pinned as file_open")
    well()
    os.close(link)
    os.close(program)
    kernel.unlink(f"{folder('links-')}/{HOOK}")
    tells("the program for file_open is not attached")
    enforcer.apply(POLICY)
    well()


@story
def a_table_that_is_exchanged_is_told():
    from exfil_guard.kernel import generations, mapspecs, pins

    put_in_force()
    well()
    kernel = enforcer.kernel
    slot = struct.pack("=I", generations.read(kernel).slot)
    for name, entries, line in (
        ("policy", True, "is another map"),
        ("edges", False, "has other entries"),
        ("rules", True, "can be written"),
    ):
        outer = kernel.get(pins.map_path(kernel, name))
        before = kernel.map_by_id(struct.unpack("=I", kernel.lookup(outer, slot))[0])
        found = kernel.read_all(before)
        other = kernel.create_map("eg_" + name, mapspecs.TABLES[name]._replace(max_entries=max(1, len(found))))
        kernel.update_all(other, found if entries else dict(list(found.items())[:-1]))
        if line != "can be written":
            kernel.freeze(other)
        kernel.update(outer, slot, struct.pack("=I", other))
        tells(f"table {name} of generation", line)
        kernel.update(outer, slot, struct.pack("=I", before))
        well()
        for fd in (outer, before, other):
            os.close(fd)


@story
def edited_files_are_told():
    number = put_in_force()["generation"]
    well()

    def weaker(content):
        stored = json.loads(content)
        stored["document"]["mode"] = "audit"
        return json.dumps(stored).encode()

    def elsewhere(content):
        stored = json.loads(content)
        stored["resolved"]["rules"] = []
        return json.dumps(stored).encode()

    with edited(f"{STATE}/generations/{number}.json", weaker):
        tells("the document of generation", "was edited")
    with edited(f"{STATE}/generations/{number}.json", elsewhere):
        tells("the resolved document of generation", "table rules")
    with edited(LIBRARY + "/guard.bpf.o", lambda content: content + b"\0"):
        tells("guard.bpf.o is not as the package has it", "the object file is another")
    with edited(LIBRARY + "/exfil_guard/policy/semantics.py", lambda content: content + b"\n"):
        tells("semantics.py is not as the package has it")
    with edited(STATE + "/certificate.json", lambda content: content.replace(b'"boot":"', b'"boot":"0')):
        tells("there is no certificate")
    well()
