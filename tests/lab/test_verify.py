# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root meddles with what is in force on a virtual machine: `exfil-guard verify` tells what differs, and a run of the playbook
puts it right."""

import json
import subprocess

import pytest
from machines import SSH_CONFIG

MACHINE = "web1"
BEGIN = """
import ctypes, glob, json, os, struct, sys
sys.path.insert(0, "/usr/lib/exfil-guard")
sys.dont_write_bytecode = True
from exfil_guard.kernel import bpf, generations, mapspecs, pins
kernel = bpf.Kernel()
def pinned(kind):
    return glob.glob("/sys/fs/bpf/exfil_guard/v*/{0}-*/file_open".format(kind))[0]
def instead(path, fd):
    kernel.unlink(path)
    kernel.pin(fd, path)
def program_that_lets_all_pass():
    with open("/usr/lib/exfil-guard/guard.bpf.o", "rb") as file:
        function = next(each.function for each in kernel.relocate(file.read()) if each.hook == "file_open")
    code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    return kernel._bpf(5, struct.pack(
        "=IIQQIIQII16sIIIIQIIQIII", 29, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0, b"file_open",
        0, 27, 0, 0, 0, 0, 0, 0, 0, function, 0), "load program")[0]
"""
PROGRAM = """
program = program_that_lets_all_pass()
link = kernel.attach(program)
instead(pinned("programs"), program)
instead(pinned("links"), link)
"""
MAP = """
slot = struct.pack("=I", generations.read(kernel).slot)
outer = kernel.get(pins.map_path(kernel, "rules"))
found = kernel.read_all(kernel.map_by_id(struct.unpack("=I", kernel.lookup(outer, slot))[0]))
other = kernel.create_map("eg_rules", mapspecs.TABLES["rules"]._replace(max_entries=len(found)))
kernel.update_all(other, dict(list(found.items())[:-1]))
kernel.update(outer, slot, struct.pack("=I", other))
"""
DOCUMENT = """
path = "/var/lib/exfil-guard/generations/{0}.json".format(generations.read(kernel).record.generation)
with open(path) as file:
    stored = json.load(file)
stored["document"]["mode"] = "audit"
with open(path, "w") as file:
    json.dump(stored, file)
"""
MEDDLING = {
    "a program that is swapped": (PROGRAM, ("the program pinned as file_open is another", "is not the object's")),
    "a map that is changed": (MAP, ("table rules of generation", "has other entries than the certificate says")),
    "a policy file that is edited": (DOCUMENT, ("the document of generation", "was edited")),
}


def verify(lab):
    done = subprocess.run(
        ["ssh", "-F", SSH_CONFIG, MACHINE, "sudo exfil-guard verify"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    print(done.stdout)
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", MEDDLING)
def test_what_differs_is_told_and_put_right(lab, name):
    script, parts = MEDDLING[name]
    code, text = verify(lab)
    assert code == 0 and "DIFFERS" not in text, text
    lab.ssh(MACHINE, "sudo python3 -I -", input=BEGIN + script)
    code, text = verify(lab)
    assert code == 1, text
    for part in parts:
        assert any(part in line for line in text.splitlines() if line.startswith("DIFFERS")), text
    found = lab.playbook("site.yml")
    assert found.code == 0, found.text
    code, text = verify(lab)
    assert code == 0, text
    collected = lab.playbook("exfil.guard.certificates")
    assert collected.code == 0, collected.text
    assert json.dumps(lab.status(MACHINE)["drift"]) in ("[]", "null"), lab.status(MACHINE)
