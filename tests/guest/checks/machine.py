# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task may do to the machine, tried for real: each action without an object, by root or by somebody, with the
one group that its rule binds."""

import ctypes
import errno
import fcntl
import glob
import os
import resource
import signal
import socket
import struct
import time

from harness.checks import denied, enforcer, passes, story
from harness.process import NEWNS, call, in_child, libc, mount, own_user_namespace, write

SOMEBODY = 1010
MODULE = glob.glob("/modules/*-tun.ko")[0]
PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_TRACEME = 16, 0x4206, 0
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


def root(action, operation, *, before=None):
    """Root, with the group of the action's rule."""

    def joined():
        os.setgroups([GROUPS[action]])
        if before:
            before()

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


def syscall(number, *arguments):
    result = libc.syscall(
        ctypes.c_long(number),
        *(
            ctypes.c_char_p(a) if isinstance(a, bytes) or a is None else ctypes.c_long(a) if isinstance(a, int) else a
            for a in arguments
        ),
    )
    if result == -1:
        raise OSError(ctypes.get_errno(), f"system call {number}: " + os.strerror(ctypes.get_errno()))
    return result


def look(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags | os.O_NOCTTY | os.O_NONBLOCK))


# ---- mount --------------------------------------------------------------------------------------------------------


def own_mounts():
    call("unshare", NEWNS)
    mount("none", "/", flags=0x44000)  # MS_REC | MS_PRIVATE


@denied("no mount")
def mount_a_tmpfs():
    return root("mount", lambda: mount("none", "/mnt", "tmpfs"), before=own_mounts_unbound)


def own_mounts_unbound():
    """The namespace is made before the group is joined."""
    groups = os.getgroups()
    os.setgroups([])
    own_mounts()
    os.setgroups(groups)


@denied("no mount")
def mount_bind():
    return root("mount", lambda: mount("/srv/open", "/mnt", flags=0x1000), before=own_mounts_unbound)


@denied("no mount")
def mount_made_writable_again():
    def before():
        own_mounts_unbound()
        groups = os.getgroups()
        os.setgroups([])
        mount("none", "/mnt", "tmpfs", 1)
        os.setgroups(groups)

    return root("mount", lambda: mount("none", "/mnt", None, 0x20), before=before)  # MS_REMOUNT


@denied("no mount")
def mount_overlay_in_a_user_namespace():
    def operation():
        own_user_namespace(NEWNS)
        mount("overlay", "/mnt", "overlay", 0, "lowerdir=/srv/open:/srv/exports")

    return somebody("mount", operation)


@denied("no mount")
def mount_tmpfs_in_a_user_namespace():
    def operation():
        own_user_namespace(NEWNS)
        mount("none", "/mnt", "tmpfs")

    return somebody("mount", operation)


FSOPEN, FSCONFIG, FSMOUNT, MOVE_MOUNT, OPEN_TREE = 430, 431, 432, 429, 428


def opened_file_system(kind=b"tmpfs"):
    context = syscall(FSOPEN, kind, 0)
    syscall(FSCONFIG, context, 6, None, None, 0)  # FSCONFIG_CMD_CREATE
    return syscall(FSMOUNT, context, 0, 0)


@denied("no mount")
def mount_by_the_new_calls():
    def operation():
        syscall(MOVE_MOUNT, opened_file_system(), b"", -100, b"/mnt", 4)  # MOVE_MOUNT_F_EMPTY_PATH

    return root("mount", operation, before=own_mounts_unbound)


@denied("no mount")
def mount_that_never_gets_a_place():
    """A file of the new filesystem through the mount's descriptor."""

    def operation():
        os.close(os.open("file", os.O_RDWR | os.O_CREAT, dir_fd=opened_file_system()))

    return root("mount", operation)


@denied("no mount")
def mount_copied_by_open_tree():
    def operation():
        tree = syscall(OPEN_TREE, -100, b"/srv/open", 1)  # OPEN_TREE_CLONE
        syscall(MOVE_MOUNT, tree, b"", -100, b"/mnt", 4)

    return root("mount", operation, before=own_mounts_unbound)


@passes
def mount_by_whom_the_rule_does_not_bind():
    def operation():
        own_user_namespace(NEWNS)
        mount("none", "/mnt", "tmpfs")
        syscall(MOVE_MOUNT, opened_file_system(), b"", -100, b"/srv/open/mounted", 4)

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


def trace(request):
    def action(child):
        syscall(101, request, child, 0, 0)

    return action


@denied("no ptrace")
def ptrace_attach():
    return somebody("ptrace", on_a_child(trace(PTRACE_ATTACH)))


@denied("no ptrace")
def ptrace_seize():
    return somebody("ptrace", on_a_child(trace(PTRACE_SEIZE)))


@denied("no ptrace")
def ptrace_traceme():
    return somebody("ptrace", lambda: syscall(101, PTRACE_TRACEME, 0, 0, 0))


def copy_memory(number):
    def action(child):
        data = ctypes.create_string_buffer(b"some text")
        local = struct.pack("=QQ", ctypes.addressof(data), 4)
        syscall(number, child, local, 1, struct.pack("=QQ", ctypes.addressof(data), 4), 1, 0)

    return action


@denied("no ptrace")
def process_vm_readv():
    return somebody("ptrace", on_a_child(copy_memory(310)))


@denied("no ptrace")
def process_vm_writev():
    return somebody("ptrace", on_a_child(copy_memory(311)))


@denied("no ptrace", ends=errno.EACCES)
def memory_of_a_process():
    return somebody("ptrace", on_a_child(lambda child: look(f"/proc/{child}/mem")))


@denied("no ptrace")
def descriptor_of_a_process():
    def action(child):
        pidfd = syscall(434, child, 0)
        os.close(syscall(438, pidfd, 0, 0))

    return somebody("ptrace", on_a_child(action))


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
    def operation():
        on_a_child(trace(PTRACE_SEIZE))()
        on_a_child(copy_memory(310))()

    return in_child(operation, user=SOMEBODY)


# ---- the kernel ---------------------------------------------------------------------------------------------------


def load_module(operation):
    try:
        call("syscall", 176, b"tun", 0)  # delete_module
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    result = root("load-module", operation)
    if result:
        descriptor = os.open(MODULE, os.O_RDONLY)
        syscall(313, descriptor, b"", 0)
        os.close(descriptor)
    return result


@denied("no load-module")
def module_by_descriptor():
    return load_module(lambda: syscall(313, os.open(MODULE, os.O_RDONLY), b"", 0))


@denied("no load-module")
def module_by_bytes():
    def operation():
        with open(MODULE, "rb") as file:
            data = file.read()
        syscall(175, ctypes.c_char_p(data), len(data), b"")

    return load_module(operation)


@denied("no load-module")
def kexec():
    return root("load-module", lambda: syscall(246, 0, 0, 0, 0))


@denied("no bpf")
def bpf_map():
    def operation():
        attributes = struct.pack("=5I", 2, 4, 4, 1, 0).ljust(72, b"\0")
        os.close(syscall(321, 0, attributes, len(attributes)))

    return root("bpf", operation)


@denied("no perf")
def perf_event():
    def operation():
        attributes = struct.pack("=IIQ", 1, 112, 0).ljust(112, b"\0")  # software, CPU clock
        os.close(syscall(298, attributes, 0, -1, -1, 0))

    return root("perf", operation)


@denied("no io-uring")
def io_uring():
    return somebody("io-uring", lambda: os.close(syscall(425, 4, bytes(120))))


@denied("no io-uring")
def io_uring_with_a_polling_thread():
    return somebody("io-uring", lambda: os.close(syscall(425, 4, struct.pack("=III", 0, 0, 2).ljust(120, b"\0"))))


@passes
def anonymous_files_of_whom_io_uring_is_denied():
    def operation():
        for number, arguments in ((290, (0, 0)), (291, (0,)), (319, (b"name", 0)), (323, (0o4000 | 1,))):
            os.close(syscall(number, *arguments))  # eventfd2, epoll_create1, memfd_create, userfaultfd

    return somebody("io-uring", operation)


# ---- devices ------------------------------------------------------------------------------------------------------


@denied("no block-device")
def block_device():
    return root("block-device", lambda: look("/dev/loop0"))


@denied("no block-device")
def block_device_by_a_node_of_ones_own():
    return root("block-device", lambda: look("/tmp/disk"))


@denied("no serial")
def serial_line():
    return root("serial", lambda: look("/dev/ttyS0", os.O_RDWR))


@denied("no serial")
def serial_line_by_a_node_of_ones_own():
    return somebody("serial", lambda: look("/tmp/line", os.O_WRONLY))


@denied("no serial")
def console_that_is_a_serial_line():
    return root("serial", lambda: look("/dev/console", os.O_WRONLY))


@denied("no tun")
def tunnel():
    return somebody("tun", lambda: look("/tmp/tunnel", os.O_RDWR))


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


@denied("no virtio-port")
def virtio_port():
    return root("virtio-port", lambda: look("/dev/vport0p1", os.O_RDWR))


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


@denied("no cap-chown")
def capability_chown():
    write("/tmp/owned")
    return root("cap-chown", lambda: os.chown("/tmp/owned", SOMEBODY, SOMEBODY))


@denied("no cap-dac-override", ends=errno.EACCES)
def capability_dac_override():
    return root("cap-dac-override", lambda: look("/srv/open/unreadable", os.O_WRONLY))


@denied("no cap-kill")
def capability_kill():
    child = victim_of(SOMEBODY)
    try:
        return root("cap-kill", lambda: os.kill(child, 0))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def victim_of(user):
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        os.write(tell, b"r")
        signal.pause()
        os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(tell)
    return child


@denied("no cap-setuid")
def capability_setuid():
    return root("cap-setuid", lambda: os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY))


@denied("no cap-net-bind-service", ends=errno.EACCES)
def capability_net_bind_service():
    def operation():
        with socket.socket() as one:
            one.bind(("127.0.0.1", 81))

    return root("cap-net-bind-service", operation)


@denied("no cap-net-admin")
def capability_net_admin():
    def operation():
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, 33, 1)  # SO_RCVBUFFORCE

    return root("cap-net-admin", operation)


@denied("no cap-net-raw")
def capability_net_raw():
    def operation():
        socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()

    return root("cap-net-raw", operation)


@denied("no cap-sys-chroot")
def capability_sys_chroot():
    return root("cap-sys-chroot", lambda: os.chroot("/srv"))


@denied("no cap-sys-admin")
def capability_sys_admin():
    return root("cap-sys-admin", lambda: call("sethostname", b"guest", 5))


@denied("no cap-sys-boot")
def capability_sys_boot():
    return root("cap-sys-boot", lambda: call("reboot", 0x89ABCDEF))  # LINUX_REBOOT_CMD_CAD_ON


@denied("no cap-sys-resource")
def capability_sys_resource():
    def operation():
        soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        call("setrlimit", resource.RLIMIT_NPROC, struct.pack("=QQ", soft, hard + 1))

    return root("cap-sys-resource", operation)


@denied("no cap-sys-time")
def capability_sys_time():
    return root("cap-sys-time", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))


@denied("no cap-mknod")
def capability_mknod():
    def operation():
        os.mknod("/tmp/made", 0o020600, os.makedev(1, 3))
        os.unlink("/tmp/made")

    return root("cap-mknod", operation)


@denied("no cap-sys-nice", ends=errno.EACCES)
def capability_sys_nice():
    return root("cap-sys-nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))


@denied("no cap-net-admin")
def capability_in_a_namespace_of_ones_own():
    def operation():
        own_user_namespace(0x40000000)  # network
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
