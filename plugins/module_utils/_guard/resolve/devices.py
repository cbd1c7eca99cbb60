# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the device numbers through which data can leave the machine, and the action that denies to open each.

The source is the kernel's list of drivers. A device node is identified by its number, not by its name or path."""

from __future__ import annotations

import re
from typing import Iterator, Mapping, Tuple

from .. import layout

Device = Tuple[bool, int, str]  # as in model.Resolved.devices
ACTIONS = frozenset(("block-device", "virtio-port", "serial", "tun", "guest-device"))

# by the names of /proc/devices; a character device of a disk counts as a block device
_MAJORS = {
    "virtio-portsdev": "virtio-port",
    "macvtap": "tun",
    "ipvtap": "tun",
    "sg": "block-device",
    "bsg": "block-device",
    "st": "block-device",
    "nvme": "block-device",
    "nvme-generic": "block-device",
    "raw": "block-device",
}
# by the names of /proc/misc
_MISC = {
    "tun": "tun",
    "vmci": "guest-device",
    "vboxguest": "guest-device",
    "vboxuser": "guest-device",
    "vhost-vsock": "guest-device",
    "vhost-net": "guest-device",
    "vhost-vdpa": "guest-device",
    "vmbus/hv_fcopy": "guest-device",
    "vmbus/hv_kvp": "guest-device",
    "vmbus/hv_vss": "guest-device",
    "xen/xenbus": "guest-device",
    "xen/gntalloc": "guest-device",
    "xen/gntdev": "guest-device",
    "xen/evtchn": "guest-device",
    "xen/privcmd": "guest-device",
    "nitro_enclaves": "guest-device",
    "sev-guest": "guest-device",
    "tdx_guest": "guest-device",
}
# Numbers that never change. Opening the node loads the driver, so the driver may not be listed yet.
_MISC_MAJOR = 10
_FIXED = {200: "tun", 238: "guest-device", 241: "guest-device"}  # tun, vhost-net, vhost-vsock
_LINES = re.compile(r"hvc|ttyS|ttyAMA|ttyUSB|ttyACM")  # serial lines, also if the driver reports another kind
_CONSOLE = 5 << 20 | 1


def find(tables: Mapping[str, str]) -> frozenset[Device]:
    """``tables``: see System.device_tables."""
    result: set[Device] = {(False, _MISC_MAJOR << 20 | minor, action) for minor, action in _FIXED.items()}
    for number, name in _pairs(tables["misc"]):
        if name in _MISC:
            result.add((False, _MISC_MAJOR << 20 | number, _MISC[name]))
    character = tables["devices"].partition("Block devices:")[0]
    for number, name in _pairs(character):
        if name in _MAJORS:
            result.add((False, number << 20 | layout.ANY_MINOR, _MAJORS[name]))
    serial = _serial(tables["ttys"])
    result.update((False, number, "serial") for number in serial)
    if any(_is_in(number, serial) for number in _consoles(tables["consoles"])):
        result.add((False, _CONSOLE, "serial"))
    return frozenset(result)


def _pairs(text: str) -> Iterator[tuple[int, str]]:
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 2 and fields[0].isdigit():
            yield int(fields[0]), fields[1]


def _serial(text: str) -> frozenset[int]:
    """One number for a major number that has only serial lines, else one for each line: virtual consoles share their
    major number with the serial lines of a PC."""
    ranges: dict[int, set[int]] = {}
    shared = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 5 or not fields[-3].isdigit():
            continue
        name, major, minors, kind = fields[-4], int(fields[-3]), fields[-2], fields[-1]
        if kind == "serial" or _LINES.match(name.rpartition("/")[2]):
            first, _unused, last = minors.partition("-")
            ranges.setdefault(major, set()).update(range(int(first), int(last or first) + 1))
        else:
            shared.add(major)
    return frozenset(
        major << 20 | minor
        for major, minors in ranges.items()
        for minor in (minors if major in shared else (layout.ANY_MINOR,))
    )


def _consoles(text: str) -> Iterator[int]:
    """The device numbers of the consoles. The last field of a line is the number, if the console is a device."""
    for line in text.splitlines():
        major, _unused, minor = line.split()[-1].partition(":") if line.strip() else ("", "", "")
        if major.isdigit() and minor.isdigit():
            yield int(major) << 20 | int(minor)


def _is_in(number: int, numbers: frozenset[int]) -> bool:
    return number in numbers or number | layout.ANY_MINOR in numbers
