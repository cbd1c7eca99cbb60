# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of what a task may do to the machine: each action without an object, by root or by a user in the group that the
action's rule binds."""

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct

from harness.attempt import NOTHING
from harness.checks import as_root, as_user, denied, denied_techniques, enforcer, passes, story
from harness.process import CAROL, in_child, write
from techniques.machine import PTRACE_SEIZE, new_filesystem
from techniques.steps import NEWNS, own_namespaces, private_mounts
from techniques.syscalls import AT_FDCWD, call, mount, remote_memory, system

from checks.policy import POLICY

SOMEBODY = 1010
CAPABILITIES = (
    "chown",
    "dac-override",
    "kill",
    "setuid",
    "net-bind-service",
    "net-admin",
    "net-raw",
    "sys-chroot",
    "sys-admin",
    "sys-boot",
    "sys-resource",
    "sys-time",
    "mknod",
    "sys-nice",
)
ACTIONS = (
    "mount",
    "ptrace",
    "load-module",
    "bpf",
    "perf",
    "io-uring",
    "block-device",
    "serial",
    "tun",
    "virtio-port",
    "guest-device",
    *("cap-" + name for name in CAPABILITIES),
)
GROUPS = {action: 3100 + place for place, action in enumerate(ACTIONS)}
SUBJECTS = {"group of " + action: {"groups": [str(group)]} for action, group in GROUPS.items()}
RULES = [{"name": f"no {a}", "deny": [a], "subjects": ["group of " + a]} for a in ACTIONS]


def in_group(action):
    """Root, in the group of the action's rule."""
    return as_root(GROUPS[action])


POLICY["subjects"].update(SUBJECTS)
POLICY["rules"] += RULES
denied_techniques(
    __name__,
    "no mount",
    in_group("mount"),
    mount_a_tmpfs="mount_tmpfs",
    mount_bind="mount_bind",
    mount_by_the_new_calls="new_mount_calls",
    mount_that_never_gets_a_place="detached_filesystem",
    mount_copied_by_open_tree="cloned_tree",
)
denied_techniques(
    __name__,
    "no ptrace",
    as_user(CAROL, GROUPS["ptrace"]),
    ptrace_attach="ptrace_attach",
    ptrace_seize="ptrace_seize",
    process_vm_readv="process_vm_readv",
    process_vm_writev="process_vm_writev",
    descriptor_of_a_process="pidfd_getfd_of_same_user",
)
denied_techniques(
    __name__, "no ptrace", as_user(CAROL, GROUPS["ptrace"]), ends=errno.EACCES, memory_of_a_process="proc_mem"
)
denied_techniques(__name__, "no ptrace", as_user(CAROL, GROUPS["ptrace"]), ends=NOTHING, ptrace_traceme="ptrace_child")
denied_techniques(
    __name__,
    "no load-module",
    in_group("load-module"),
    module_by_descriptor="finit_module",
    module_by_bytes="init_module",
)
denied_techniques(__name__, "no bpf", in_group("bpf"), bpf_map="bpf_map")
denied_techniques(__name__, "no perf", in_group("perf"), perf_event="perf")
denied_techniques(
    __name__,
    "no io-uring",
    as_user(SOMEBODY, GROUPS["io-uring"]),
    io_uring="io_uring",
    io_uring_with_a_polling_thread="io_uring_with_polling_thread",
)
denied_techniques(
    __name__,
    "no block-device",
    in_group("block-device"),
    block_device="block_device",
    block_device_by_a_node_of_ones_own="block_device_of_own_making",
)
denied_techniques(
    __name__,
    "no serial",
    in_group("serial"),
    serial_line="serial_line",
    serial_line_by_a_node_of_ones_own="serial_line_of_own_making",
    console_that_is_a_serial_line="console",
)
denied_techniques(__name__, "no tun", in_group("tun"), tunnel="tun")
denied_techniques(__name__, "no virtio-port", in_group("virtio-port"), virtio_port="virtio_port")
for _capability, _ends in (
    ("chown", errno.EPERM),
    ("dac-override", errno.EACCES),
    ("kill", errno.EPERM),
    ("setuid", errno.EPERM),
    ("net-bind-service", errno.EACCES),
    ("net-admin", errno.EPERM),
    ("net-raw", errno.EPERM),
    ("sys-chroot", errno.EPERM),
    ("sys-admin", errno.EPERM),
    ("sys-resource", errno.EPERM),
    ("sys-time", errno.EPERM),
    ("mknod", errno.EPERM),
):
    _name = _capability.replace("-", "_")
    denied_techniques(
        __name__, f"no cap-{_capability}", in_group("cap-" + _capability), ends=_ends,
        **{"capability_" + _name: "cap_" + _name},
    )  # fmt: skip


def root(action, operation, *, before=None):
    """Root, with the group of the action's rule."""

    def joined():
        if before:
            before()
        os.setgroups([GROUPS[action]])

    return in_child(operation, before=joined)


def somebody(action, operation, *, before=None):
    return in_child(operation, user=SOMEBODY, groups=[GROUPS[action]], before=before)


def prepare():
    os.makedirs("/srv/open/mounted", exist_ok=True)
    os.chmod("/srv/open/mounted", 0o777)
    write("/srv/open/unreadable", "x")
    os.chmod("/srv/open/unreadable", 0)
    os.chown("/srv/open/unreadable", SOMEBODY, SOMEBODY)
    for name, kind, major, minor in (
        ("line", 0o020666, 4, 64),
        ("tunnel", 0o020666, 10, 200),
        ("disk", 0o060666, 7, 0),
        ("nothing", 0o020666, 1, 3),
        ("vhost", 0o020666, 10, 238),
        ("terminal", 0o020666, 4, 0),
    ):
        os.mknod("/tmp/" + name, kind, os.makedev(major, minor))
        os.chmod("/tmp/" + name, 0o666)


def look(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags | os.O_NOCTTY | os.O_NONBLOCK))


# ---- mount --------------------------------------------------------------------------------------------------------


@denied("no mount")
def mount_made_writable_again():
    def before():
        private_mounts()
        mount("none", "/mnt", "tmpfs", 1)

    return root("mount", lambda: mount("none", "/mnt", None, 0x20), before=before)  # MS_REMOUNT


@denied("no mount")
def mount_overlay_in_a_user_namespace():
    def operation():
        own_namespaces(NEWNS)
        mount("overlay", "/mnt", "overlay", 0, "lowerdir=/srv/open:/srv/exports")

    return somebody("mount", operation)


@denied("no mount")
def mount_tmpfs_in_a_user_namespace():
    def operation():
        own_namespaces(NEWNS)
        mount("none", "/mnt", "tmpfs")

    return somebody("mount", operation)


@passes
def mount_by_whom_the_rule_does_not_bind():
    def operation():
        own_namespaces(NEWNS)
        mount("none", "/mnt", "tmpfs")
        system("move_mount", new_filesystem("tmpfs"), "", AT_FDCWD, "/srv/open/mounted", 4)

    return in_child(operation, user=SOMEBODY)


@passes
def namespaces_of_whom_mount_is_denied():
    """The kernel mounts for itself when it makes a namespace."""
    return root("mount", lambda: call("unshare", 0x08000000 | 0x20000000 | 0x40000000))  # IPC, PID, network


# ---- ptrace -------------------------------------------------------------------------------------------------------


def victim():
    """A child that waits, of the same user; no rule binds it."""
    child = os.fork()
    if child == 0:
        os.setgroups([]) if os.getuid() == 0 else None
        signal.pause()
        os._exit(0)
    return child


def on_a_child(action):
    def operation():
        child = victim()
        try:
            action(child)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    return operation


@passes
def what_ps_looks_at():
    def action(child):
        for name in ("status", "cmdline", "stat", "environ", "maps", "io"):
            with open(f"/proc/{child}/{name}", "rb") as file:
                file.read()
        os.readlink(f"/proc/{child}/exe")
        os.listdir(f"/proc/{child}/fd")

    return somebody("ptrace", on_a_child(action))


@passes
def ptrace_by_whom_the_rule_does_not_bind():
    data = ctypes.create_string_buffer(b"some text")  # also in the child
    address = ctypes.addressof(data)

    def operation():
        on_a_child(lambda child: system("ptrace", PTRACE_SEIZE, child, 0, 0))()
        on_a_child(lambda child: remote_memory(child, address, 4))()

    return in_child(operation, user=SOMEBODY)


# ---- the kernel ---------------------------------------------------------------------------------------------------


@denied("no load-module")
def kexec():
    return root("load-module", lambda: system("kexec_load", 0, 0, 0, 0))


@passes
def anonymous_files_of_whom_io_uring_is_denied():
    def operation():
        for name, arguments in (
            ("eventfd2", (0, 0)),
            ("epoll_create1", (0,)),
            ("memfd_create", (b"name", 0)),
            ("userfaultfd", (0o4000 | 1,)),
        ):
            os.close(system(name, *arguments))

    return somebody("io-uring", operation)


# ---- devices ------------------------------------------------------------------------------------------------------


@denied("no tun")
def tunnel_through_an_open_device():
    """Opened before: the device itself is not to be made."""

    def operation():
        opened = opening[0]
        fcntl.ioctl(opened, 0x400454CA, struct.pack("16sH22x", b"", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI

    opening = [os.open("/tmp/tunnel", os.O_RDWR)]
    try:
        return root("tun", operation)
    finally:
        os.close(opening[0])


@passes
def other_devices():
    def operation():
        for path in ("/dev/null", "/tmp/nothing", "/dev/urandom"):
            look(path)

    return in_child(
        operation,
        before=lambda: os.setgroups(
            sorted(GROUPS[a] for a in ("block-device", "serial", "tun", "virtio-port", "guest-device"))
        ),
    )


@story
def devices_that_are_not_there():
    """The number decides before the driver is looked for."""
    enforcer.apply({"subjects": SUBJECTS, "rules": RULES})
    found = in_child(lambda: look("/tmp/vhost"))
    assert found in (errno.ENODEV, errno.ENXIO), found
    found = root("guest-device", lambda: look("/tmp/vhost"))
    assert found == errno.EPERM, found


@story
def modules_that_the_kernel_wants():
    """A socket of a family that a module would have to bring: asked for without a policy, not asked for by whom the
    rule binds."""
    enforcer.apply({"subjects": SUBJECTS, "rules": RULES})

    def operation():
        socket.socket(9, socket.SOCK_SEQPACKET, 0)  # AF_X25

    before = enforcer.counter("no load-module")[0]
    found = in_child(operation)
    assert found == errno.EAFNOSUPPORT, found
    assert enforcer.counter("no load-module")[0] == before, "counted for whom no rule binds"
    found = somebody("load-module", operation)
    assert found == errno.EAFNOSUPPORT, found
    assert enforcer.counter("no load-module")[0] > before, "the request was not denied"


# ---- capabilities -------------------------------------------------------------------------------------------------


@denied("no cap-sys-boot")
def capability_sys_boot():
    return root("cap-sys-boot", lambda: call("reboot", 0x89ABCDEF))  # LINUX_REBOOT_CMD_CAD_ON


@denied("no cap-sys-nice", ends=errno.EACCES)
def capability_sys_nice():
    return root("cap-sys-nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))


@denied("no cap-net-admin")
def capability_in_a_namespace_of_ones_own():
    def operation():
        own_namespaces(0x40000000)  # network
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            fcntl.ioctl(one, 0x8914, struct.pack("16sH22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP

    return somebody("cap-net-admin", operation)


@passes
def the_other_capabilities():
    def operation():
        call("sethostname", b"guest", 5)
        os.setpriority(os.PRIO_PROCESS, 0, -5)
        os.chroot("/srv")

    return root("cap-net-raw", operation)


@story
def capability_probes_are_answered_and_not_told():
    """What the kernel asks without audit is no denial: no flood of events from a process that does nothing."""
    enforcer.apply({"subjects": SUBJECTS, "rules": RULES})
    before = enforcer.totals()["denied"]

    def operation():
        for _ in range(100):
            os.listxattr("/srv/open")  # asks whether `trusted.` is to be listed

    root("cap-sys-admin", operation)
    assert enforcer.totals()["denied"] == before, enforcer.totals()["denied"] - before
