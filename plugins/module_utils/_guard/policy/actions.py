# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every action that a rule can deny: its name, its number in the kernel, and what a rule says with it."""

from __future__ import annotations

from .. import layout

FILES = ("read", "write", "execute")
RESOURCES = FILES + ("unix-connect",)  # with `resources`
NETWORK = ("connect", "send", "reply", "bind", "listen", "accept")
OWN = ("bind", "listen", "accept")  # the address is the socket's own
DESTINATIONS = NETWORK + ("vsock",)  # with `destinations`

# address families by the number of socket(2); `NAME-socket` denies to make a socket of one
FAMILIES: dict[str, int] = {
    "unix": 1,
    "ipv4": 2,
    "ax25": 3,
    "ipx": 4,
    "appletalk": 5,
    "netrom": 6,
    "atmpvc": 8,
    "x25": 9,
    "ipv6": 10,
    "rose": 11,
    "key": 15,
    "netlink": 16,
    "packet": 17,
    "atmsvc": 20,
    "rds": 21,
    "pppox": 24,
    "llc": 26,
    "infiniband": 27,
    "mpls": 28,
    "can": 29,
    "tipc": 30,
    "bluetooth": 31,
    "iucv": 32,
    "rxrpc": 33,
    "phonet": 35,
    "ieee802154": 36,
    "caif": 37,
    "alg": 38,
    "nfc": 39,
    "vsock": 40,
    "kcm": 41,
    "qipcrtr": 42,
    "smc": 43,
    "xdp": 44,
    "mctp": 45,
}
OTHER_SOCKET = "other-socket"  # of a family that has no name here

# without an object: whether the task may at all; the order is that of enum guard_action from GUARD_RAW_SOCKET on
MACHINE = (
    "raw-socket",
    "mount",
    "ptrace",
    "load-module",
    "bpf",
    "perf",
    "user-namespace",
    "io-uring",
    "block-device",
    "virtio-port",
    "serial",
    "tun",
    "guest-device",
)
# in the order of <linux/capability.h>
CAPABILITIES = tuple(
    "cap-" + name
    for name in (
        "chown",
        "dac-override",
        "dac-read-search",
        "fowner",
        "fsetid",
        "kill",
        "setgid",
        "setuid",
        "setpcap",
        "linux-immutable",
        "net-bind-service",
        "net-broadcast",
        "net-admin",
        "net-raw",
        "ipc-lock",
        "ipc-owner",
        "sys-module",
        "sys-rawio",
        "sys-chroot",
        "sys-ptrace",
        "sys-pacct",
        "sys-admin",
        "sys-boot",
        "sys-nice",
        "sys-resource",
        "sys-time",
        "sys-tty-config",
        "mknod",
        "lease",
        "audit-write",
        "audit-control",
        "setfcap",
        "mac-override",
        "mac-admin",
        "syslog",
        "wake-alarm",
        "block-suspend",
        "audit-read",
        "perfmon",
        "bpf",
        "checkpoint-restore",
    )
)

NUMBERS: dict[str, int] = {
    "read": layout.READ,
    "write": layout.WRITE,
    "execute": layout.EXECUTE,
    "connect": layout.CONNECT,
    "send": layout.SEND,
    "reply": layout.REPLY,
    "bind": layout.BIND,
    "listen": layout.LISTEN,
    "accept": layout.ACCEPT,
    "unix-connect": layout.UNIX_CONNECT,
    "vsock": layout.VSOCK,
}
NUMBERS.update((name + "-socket", layout.SOCKET + family) for name, family in FAMILIES.items())
NUMBERS[OTHER_SOCKET] = layout.OTHER_SOCKET
NUMBERS.update((name, layout.RAW_SOCKET + place) for place, name in enumerate(MACHINE))
NUMBERS.update((name, layout.CAPABILITY + number) for number, name in enumerate(CAPABILITIES))

PLAIN = tuple(name for name in NUMBERS if name not in RESOURCES and name not in DESTINATIONS)  # with neither

# as events tell them: a new name for an object counts as an action of its own there
NAMES: dict[int, str] = {number: name for name, number in NUMBERS.items()}
NAMES.update({layout.LINK: "link", layout.RENAME: "rename"})
