#!/usr/bin/python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damages an enforcer as a clumsy administrator would, with bpftool and rm; says what it did."""

import glob
import json
import os
import subprocess

PINS = "/sys/fs/bpf/exfil_guard/v1"


def bpftool(*arguments):
    done = subprocess.run(["bpftool", "-j", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    return json.loads(done.stdout or b"null")


def main():
    inner = bpftool("map", "dump", "pinned", PINS + "/maps/control")
    print("control before:", json.dumps(inner)[:200])

    counters = bpftool("map", "dump", "pinned", PINS + "/maps/counters")
    if counters:
        key = counters[0]["key"]
        bpftool("map", "delete", "pinned", PINS + "/maps/counters", "key", *key)
        print("deleted from counters:", " ".join(key))

    # An inner map is frozen: nobody changes it. The slot that points to it can be emptied.
    for slot in range(3):
        key = ["key", str(slot), "0", "0", "0"]
        done = subprocess.run(
            ["bpftool", "map", "delete", "pinned", PINS + "/maps/ipv6", *key],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,  # an empty slot has nothing to delete
        )
        outcome = "yes" if done.returncode == 0 else done.stdout.decode().strip()
        print(f"emptied ipv6's slot {slot}: {outcome}")

    for link in sorted(glob.glob(PINS + "/links-*/file_open")):
        os.unlink(link)
        print("removed", link)

    for document in sorted(glob.glob("/var/lib/exfil-guard/generations/*.json")):
        os.unlink(document)
        print("removed", document)


main()
