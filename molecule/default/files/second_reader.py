#!/usr/bin/python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what is in force with bpftool alone, none of our code, and prints it as JSON."""

import glob
import ipaddress
import json
import os
import struct
import subprocess

PINS = "/sys/fs/bpf/exfil_guard/v1"
NO_SLOT = 0xFFFFFFFF
NAME = 96


def bpftool(*arguments):
    done = subprocess.run(["bpftool", "-j", *arguments], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def raw(values):
    return bytes(int(value, 16) for value in values)


def entries(*which):
    """Key and value bytes of every entry. With type information bpftool adds "formatted"; the bytes are there too."""
    return [(raw(entry["key"]), raw(entry["value"])) for entry in bpftool("map", "dump", *which) if "value" in entry]


def inner(name, index):
    """The id of an inner map, as the kernel gives it for a slot of an array of maps."""
    found = bpftool(
        "map",
        "lookup",
        "pinned",
        os.path.join(PINS, "maps", name),
        "key",
        *(str(byte) for byte in struct.pack("<I", index)),
    )
    if "inner_map_id" in found:
        return found["inner_map_id"]
    return struct.unpack("<I", raw(found["value"]))[0]


def table(name, slot):
    return entries("id", str(inner(name, slot)))


def main():
    record = entries("id", str(inner("control", 0)))[0][1]
    generation, deadline, _fallback, slot, _fallback_slot = struct.unpack("<QQQII", record)
    networks = []
    for name, size, kind in (("ipv4", 4, ipaddress.IPv4Network), ("ipv6", 16, ipaddress.IPv6Network)):
        for key, _sets in table(name, slot):
            prefix = struct.unpack("<I", key[:4])[0]
            networks.append(str(kind((key[4 : 4 + size], prefix))))
    rules = {}
    for _index, value in table("rules", slot):
        name = value[8 : 8 + NAME].rstrip(b"\0").decode()
        if name:
            rules[struct.unpack("<Q", value[:8])[0]] = name
    counts = {}
    for key, value in entries("pinned", PINS + "/maps/counters"):
        number = struct.unpack("<Q", key)[0]
        denied, audited = struct.unpack("<QQ", value[:16])
        counts[rules.get(number, f"{number:016x}")] = {"denied": denied, "audited": audited}
    links = {}
    for path in sorted(glob.glob(PINS + "/links-*/*")):
        link = bpftool("link", "show", "pinned", path)
        program = bpftool("prog", "show", "id", str(link["prog_id"]))
        links[os.path.basename(path)] = {"type": program["type"], "name": program["name"]}
    ids = [list(struct.unpack("<II", key)) for key, _sets in table("ids", slot)]
    print(
        json.dumps(
            {
                "generation": generation,
                "confirmed": deadline == 0,
                "slot": slot,
                "rules": sorted(rules.values()),
                "networks": sorted(networks),
                "ids": sorted(ids),
                "counts": counts,
                "links": links,
            }
        )
    )


main()
