# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the running kernel can be asked to do, as the kernel itself tells it: the entries of its table of system calls, the
entries for 32-bit programs, the operations of an io_uring, the commands of bpf(2). Run in a guest it prints JSON."""

import json
import os
import re
import struct
import sys

ENTRY = re.compile(r"__(x64|ia32|x32)_(compat_)?sys_([a-z0-9_]+)$")
NO_SUCH_CALL = b"\x48\xc7\xc0\xda\xff\xff\xff"  # mov $-ENOSYS, %rax: all that is left of a call that was not built
ENUM, ENUM64 = 6, 19
MORE = {1: 4, 3: 12, 14: 4, 17: 4}  # bytes behind a type of BTF, by its kind; by kind and number of members:
EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


class Core:
    """The kernel's memory, by its addresses."""

    def __init__(self):
        self.file = os.open("/proc/kcore", os.O_RDONLY)
        head = os.pread(self.file, 64, 0)
        start, number = struct.unpack_from("=Q", head, 32)[0], struct.unpack_from("=H", head, 56)[0]
        table = os.pread(self.file, 56 * number, start)
        self.parts = [struct.unpack_from("=IIQQQQQQ", table, 56 * each) for each in range(number)]

    def read(self, address, size):
        for kind, _flags, offset, start, _physical, _size, length, _align in self.parts:
            if kind == 1 and start <= address < start + length:
                return os.pread(self.file, size, offset + address - start)
        raise ValueError(f"/proc/kcore has no address {address:#x}")


def entries():
    """{"64": names with a number, "32": names, "x32": names}, without those that were not built."""
    core, names, table = Core(), {}, 0
    with open("/proc/kallsyms", encoding="ascii", errors="replace") as symbols:
        for line in symbols:
            address, _kind, name = line.split()[:3]
            found = ENTRY.match(name)
            if found:
                names[int(address, 16)] = found
            elif name == "sys_call_table":
                table = int(address, 16)
    if not table or not any(names):
        raise ValueError("/proc/kallsyms shows no table of system calls")
    built = {address for address in names if NO_SUCH_CALL not in core.read(address, 24)}
    result = {"64": set(), "32": set(), "x32": set()}
    for place in range(4096):
        address = struct.unpack("=Q", core.read(table + 8 * place, 8))[0]
        if address not in names:  # the end of the table
            break
        if address in built:
            result["64"].add(names[address].group(3))
    for address in built:
        kind, compat, name = names[address].groups()
        if kind == "x32" or (kind == "x64" and compat):
            result["x32"].add(name)
        elif kind == "ia32":
            result["32"].add(name)
    return {kind: sorted(found) for kind, found in result.items()}


def enumerations(data):
    """{name: [names of its values]} of the enumerations in the kernel's types (BTF)."""
    header, start, size, strings = struct.unpack_from("=IIIII", data, 4)[0], *struct.unpack_from("=III", data, 8)
    at, end, texts = header + start, header + start + size, header + strings

    def text(offset):
        return data[texts + offset : data.index(b"\0", texts + offset)].decode()

    found = {}
    while at < end:
        name, information = struct.unpack_from("=II", data, at)
        kind, number = information >> 24 & 31, information & 0xFFFF
        at += 12
        if kind in (ENUM, ENUM64):
            values = [struct.unpack_from("=I", data, at + EACH[kind] * each)[0] for each in range(number)]
            found.setdefault(text(name) if name else f"#{at}", [text(value) for value in values])
        at += MORE.get(kind, 0) + EACH.get(kind, 0) * number
    return found


def all_of_it():
    with open("/sys/kernel/btf/vmlinux", "rb") as file:
        values = [names for names in enumerations(file.read()).values() if names]

    def beginning(prefix, first):
        listed = next(names for names in values if first in names)
        return [
            name[len(prefix) :].lower()
            for name in listed
            if name.startswith(prefix) and not name.startswith("__") and name not in (prefix + "LAST",)
        ]

    return {
        **entries(),
        "io_uring": beginning("IORING_OP_", "IORING_OP_NOP"),
        "bpf": beginning("BPF_", "BPF_MAP_CREATE"),
    }


if __name__ == "__main__":
    json.dump(all_of_it(), sys.stdout)
    print()
