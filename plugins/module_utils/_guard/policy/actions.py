# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of actions that a rule can deny. `make generate` writes from it the C enum, the lists of the JSON Schema,
the tables of docs/policy-language.md and the lists of the Coq files; everything else is derived from it here."""

from __future__ import annotations

from typing import NamedTuple

from .. import layout

# kinds of object
FILE = "file"  # a path in a filesystem; with `resources`
UNIX_SOCKET = "unix socket"  # a path or an abstract name; with `resources`
PEER = "peer address"  # with `destinations`
OWN_ADDRESS = "own address"  # of the socket itself; with `destinations`
VSOCK = "vsock address"  # with `destinations`
NOTHING = "nothing"  # the action has no object


class Action(NamedTuple):
    """An action that a rule can deny.

    ``number``: in the kernel, and the index into guard_policy.rules_by_action; below layout.PLAIN for an action on an
    object. ``object``: a kind of object. ``hooks``: the programs, all of which must be attached for a rule with the
    action to be complete. ``doc``: the operations, as one cell of a Markdown table. ``optional_hooks``: programs for
    hooks that some kernels lack; there another hook of the action sees the same operations. ``sendpage_hooks``:
    programs that are needed too where sendfile and splice reach a socket without sendmsg (Linux 6.1)."""

    name: str
    number: int
    object: str
    hooks: tuple[str, ...]
    doc: str
    optional_hooks: tuple[str, ...] = ()
    sendpage_hooks: tuple[str, ...] = ()


# use of an open file: opened before the policy, received, or mapped
_OPEN = ("file_open", "file_permission", "file_receive", "mmap_file", "file_mprotect")
_NEW_NAME = ("inode_link", "inode_rename")  # a new name for an object must not escape the rules that cover it
# who opened a connection decides between send and reply; the routing options decide where packets really go
_SENDING = (
    "socket_sendmsg",
    "socket_setsockopt",
    "socket_connect",
    "socket_listen",
    "socket_accept",
    "sctp_bind_connect",
    "sctp_sk_clone",
)
_DEVICE = ("file_open__device",)


def _family(name: str, number: int) -> Action:
    return Action(
        name + "-socket",
        layout.SOCKET + number,
        NOTHING,
        ("socket_create",),
        f"creating a socket of the address family with the number {number}",
    )


def _capability(name: str, number: int) -> Action:
    doc = f"using the capability CAP_{name.upper().replace('-', '_')}"
    return Action("cap-" + name, layout.CAPABILITY + number, NOTHING, ("capable",), doc)


# address families by the number of socket(2)
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
OTHER_SOCKET = "other-socket"
# in the order of <linux/capability.h>
_CAPABILITIES = (
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

TABLE: tuple[Action, ...] = (
    Action(
        "read",
        0,
        FILE,
        (*_OPEN, "inode_readlink", "inode_getxattr", *_NEW_NAME),
        "opening a file, folder, device or named pipe for reading; reading from an open one, mapping it, or "
        "receiving its descriptor from another process; reading the target of a symbolic link or an extended "
        "attribute in `user.`",
        optional_hooks=("mmap_backing_file",),
    ),
    Action(
        "write",
        1,
        FILE,
        (
            *_OPEN,
            "inode_setattr",
            "inode_setxattr",
            "inode_removexattr",
            "inode_create",
            "inode_symlink",
            "inode_mkdir",
            "inode_mknod",
            *_NEW_NAME,
        ),
        "the same for writing; truncating; changing mode, owner, times, access lists or extended attributes; "
        "creating a file, folder, symbolic link, named pipe or unix socket there; linking or renaming something to "
        "there",
        optional_hooks=("mmap_backing_file", "inode_set_acl", "inode_remove_acl"),
    ),
    Action(
        "execute",
        2,
        FILE,
        ("file_open", "mmap_file", "file_mprotect", *_NEW_NAME),
        "executing a file, or mapping it as code, so that `ld.so FILE` is denied as well",
        optional_hooks=("mmap_backing_file",),
    ),
    Action(
        "connect",
        3,
        PEER,
        ("socket_connect", "socket_sendmsg", "socket_setsockopt", "sctp_bind_connect"),
        "connecting, including TCP Fast Open",
    ),
    Action(
        "send",
        4,
        PEER,
        _SENDING,
        "sending to an address given with the data, or through a socket that this host connected, including one that "
        "was connected before the policy changed",
        sendpage_hooks=("file_permission",),
    ),
    Action(
        "reply",
        5,
        PEER,
        _SENDING,
        "sending through a connection that this host accepted; a rule on `send` does not cover it",
        sendpage_hooks=("file_permission",),
    ),
    Action(
        "bind",
        6,
        OWN_ADDRESS,
        ("socket_bind", "sctp_bind_connect"),
        "binding to an address; the destination is the socket's own address",
    ),
    Action(
        "listen",
        7,
        OWN_ADDRESS,
        ("socket_listen",),
        "listening; the destination is the address that the socket listens on",
    ),
    Action(
        "accept",
        8,
        OWN_ADDRESS,
        ("socket_accept",),
        "accepting a connection; the destination is the local address of the connection",
    ),
    Action(
        "unix-connect",
        9,
        UNIX_SOCKET,
        ("unix_stream_connect", "unix_may_send", "socket_sendmsg", *_NEW_NAME),
        "connecting or sending to a unix socket, such as that of an agent, a container engine or D-Bus",
        sendpage_hooks=("file_permission",),
    ),
    Action(
        "vsock",
        10,
        VSOCK,
        ("socket_connect", "socket_sendmsg"),
        "connecting or sending to a vsock context id: to the hypervisor, or to another machine on it",
        sendpage_hooks=("file_permission",),
    ),
    *(_family(name, number) for name, number in FAMILIES.items()),
    Action(
        OTHER_SOCKET,
        layout.OTHER_SOCKET,
        NOTHING,
        ("socket_create",),
        "creating a socket of an address family that has no action of its own",
    ),
    Action(
        "raw-socket", 64, NOTHING, ("socket_create",), "creating an IPv4 or IPv6 socket that writes its own headers"
    ),
    Action(
        "mount",
        65,
        NOTHING,
        ("sb_mount", "move_mount", "sb_set_mnt_opts", "sb_remount", "sb_pivotroot"),
        "every kind of mount, changing or moving a mount, and `pivot_root`, by mount(2) or by fsopen, fsmount, "
        "open_tree and move_mount; entering an automount point. mount_setattr(2) reaches no hook: deny "
        "`cap-sys-admin`, which it needs",
    ),
    Action(
        "ptrace",
        66,
        NOTHING,
        ("ptrace_access_check", "ptrace_traceme"),
        "controlling another process, or reading its memory or descriptors: ptrace, process_vm_readv and "
        "process_vm_writev, /proc/PID/mem, pidfd_getfd; also asking to be traced by the parent (PTRACE_TRACEME). "
        "What `ps` reads in /proc is not covered",
    ),
    Action(
        "load-module",
        67,
        NOTHING,
        ("kernel_read_file", "kernel_load_data", "kernel_module_request"),
        "loading a kernel module or another kernel (kexec); causing the kernel to load a module, for example by "
        "creating a socket of a family whose module is not loaded yet",
    ),
    Action("bpf", 68, NOTHING, ("bpf",), "bpf(2)"),
    Action("perf", 69, NOTHING, ("perf_event_open",), "perf_event_open"),
    Action("user-namespace", 70, NOTHING, ("userns_create",), "creating a user namespace"),
    Action(
        "io-uring",
        71,
        NOTHING,
        ("inode_init_security_anon",),
        "creating an io_uring. One that exists already stays usable",
    ),
    Action(
        "block-device",
        72,
        NOTHING,
        _DEVICE,
        "opening a block device, or a disk through a character device (sg, bsg, st, nvme)",
    ),
    Action("virtio-port", 73, NOTHING, _DEVICE, "opening a port of a virtio console, which leads to the hypervisor"),
    Action("serial", 74, NOTHING, _DEVICE, "opening a serial line, or the console if it is a serial line"),
    Action(
        "tun",
        75,
        NOTHING,
        (*_DEVICE, "tun_dev_create"),
        "opening /dev/net/tun, macvtap or ipvtap, and creating a network device through it",
    ),
    Action(
        "guest-device",
        76,
        NOTHING,
        _DEVICE,
        "opening a device through which guest and host communicate under VMware, VirtualBox, Hyper-V, Xen or vhost",
    ),
    *(_capability(name, number) for number, name in enumerate(_CAPABILITIES)),
)
BY_NAME: dict[str, Action] = {action.name: action for action in TABLE}


def _names(*objects: str) -> tuple[str, ...]:
    return tuple(action.name for action in TABLE if action.object in objects)


FILES = _names(FILE)
RESOURCES = _names(FILE, UNIX_SOCKET)  # with `resources`
NETWORK = _names(PEER, OWN_ADDRESS)
OWN = _names(OWN_ADDRESS)
DESTINATIONS = _names(PEER, OWN_ADDRESS, VSOCK)  # with `destinations`
PLAIN = _names(NOTHING)  # with neither
CAPABILITIES = tuple(action.name for action in TABLE if action.number >= layout.CAPABILITY)
MACHINE = tuple(action.name for action in TABLE if layout.RAW_SOCKET <= action.number < layout.CAPABILITY)
NUMBERS: dict[str, int] = {action.name: action.number for action in TABLE}

# as events show them: a new name for an object counts as an action of its own there
NAMES: dict[int, str] = {number: name for name, number in NUMBERS.items()}
NAMES.update({layout.LINK: "link", layout.RENAME: "rename"})
