# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import re
from pathlib import Path

from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import devices, encoding, resolver
from fake_system import FakeSystem

ANY = layout.ANY_MINOR
TABLES = {
    "devices": "Character devices:\n  1 mem\n  4 ttyS\n 10 misc\n 21 sg\n245 virtio-portsdev\n\n"
    "Block devices:\n  8 sd\n 21 virtio-portsdev\n",
    "misc": "259 vmci\n200 tun\n237 loop-control\n",
    "ttys": "/dev/tty             /dev/tty        5       0 system:/dev/tty\n"
    "/dev/console         /dev/console    5       1 system:console\n"
    "serial               /dev/ttyS       4 64-66 serial\n"
    "hvc                  /dev/hvc      229 0-7 system\n"
    "usbserial            /dev/ttyUSB   188 0-511 serial\n"
    "pty_slave            /dev/pts      136 0-1048575 pty:slave\n"
    "unknown              /dev/tty        4 1-63 console\n"
    "odd line\n",
    "consoles": "tty0                 -WU (EC p  )    4:7\n",
}
FIXED = {
    (False, 10 << 20 | 200, "tun"),
    (False, 10 << 20 | 238, "guest-device"),
    (False, 10 << 20 | 241, "guest-device"),
}


def found(**changed):
    return devices.find(dict(TABLES, **changed))


def test_a_device_is_known_by_the_numbers_of_its_driver():
    assert found() == FIXED | {
        (False, 245 << 20 | ANY, "virtio-port"),
        (False, 21 << 20 | ANY, "block-device"),
        (False, 10 << 20 | 259, "guest-device"),
        (False, 229 << 20 | ANY, "serial"),
        (False, 188 << 20 | ANY, "serial"),
        (False, 4 << 20 | 64, "serial"),
        (False, 4 << 20 | 65, "serial"),
        (False, 4 << 20 | 66, "serial"),
    }


def test_the_console_is_a_serial_line_when_the_kernel_writes_to_one():
    console = (False, 5 << 20 | 1, "serial")
    assert console not in found()
    assert console in found(consoles=TABLES["consoles"] + "ttyS0                -W- (EC  a)  4:64\n")
    assert console in found(consoles="hvc0                 -W- (EC  p  )  229:0\n")
    assert console not in found(consoles="netcon0              -W- (EN  )\n")


def test_fixed_numbers_need_no_driver():
    assert devices.find({"devices": "", "misc": "", "ttys": "", "consoles": ""}) == FIXED


def test_they_are_resolved_stored_and_found_anew_at_boot():
    system = FakeSystem()
    system.tables = TABLES
    document = {"policy": 1, "mode": "enforce", "rules": []}
    assert resolver.resolve(document, system).devices == frozenset()  # no rule is about any
    document["rules"].append({"name": "no tunnels", "deny": ["tun"]})
    resolved = resolver.resolve(document, system)
    assert resolved.devices == found()
    stored = json.loads(json.dumps(encoding.to_json(resolved)))
    assert encoding.from_json(stored).devices == found()
    system.tables = dict(TABLES, misc="77 vmci\n")
    assert (False, 10 << 20 | 77, "guest-device") in resolver.renumber(stored, system).devices


def test_capabilities_have_the_kernel_s_numbers():
    header = Path("/usr/include/linux/capability.h").read_text()
    numbers = {
        name.lower().replace("_", "-"): int(number)
        for name, number in re.findall(r"^#define CAP_([A-Z_]+)\s+(\d+)$", header, re.MULTILINE)
    }
    assert "net-raw" in numbers and len(numbers) == 41
    assert {
        name: number - layout.CAPABILITY for name, number in actions.NUMBERS.items() if name.startswith("cap-")
    } == {"cap-" + name: number for name, number in numbers.items()}
