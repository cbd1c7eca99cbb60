# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task may do to the machine: other processes, mounts, modules, devices, capabilities, and the guard itself."""

import ctypes
import glob
import mmap
import os
import signal
import socket
import stat
import struct
import time

from harness.receiver import wait_for

from techniques.files import filled
from techniques.registry import Absent, in_child, technique
from techniques.steps import (
    BIND,
    NEWNET,
    NEWNS,
    NEWPID,
    NEWUSER,
    gone,
    own_namespaces,
    private_mounts,
    put,
    system_ioctl,
    take,
    text_of,
)
from techniques.syscalls import AT_FDCWD, Ring, bpf, call, handle_of, libc, mount, open_handle, remote_memory, system

PTRACE_TRACEME, PTRACE_PEEKDATA, PTRACE_ATTACH, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = (
    0,
    2,
    16,
    17,
    0x4206,
    0x4207,
)


def does(what, action, **more):
    more.setdefault("who", "machine.service")
    return technique("machine", what, action, **more)


# ---- other processes -------------------------------------------------------------------------------------------------


def _victim(who):
    def ready(t):
        """Somebody's process that holds the mark in memory, at an address that is known."""
        reader, writer = os.pipe()
        page = mmap.mmap(-1, 4096)

        def hold():
            page[: len(t.data)] = t.data
            os.environ["MARK"] = t.mark
            fd = os.memfd_create("held")
            os.write(fd, t.data)
            os.dup2(fd, 199)
            libc.prctl(0x59616D61, -1, 0, 0, 0)  # PR_SET_PTRACER, anybody
            os.write(writer, b"!")
            signal.pause()

        t.kept["address"] = ctypes.addressof(ctypes.c_char.from_buffer(page))
        t.kept["page"] = page
        t.kept["victim"] = t.helper(hold, who)
        os.read(reader, 1)
        os.close(reader)
        os.close(writer)

    return ready


def traces(what, **more):
    more.setdefault("who", "carol")
    more.setdefault("ready", _victim(more["who"] if not more["who"].endswith(".service") else None))
    return does(what, "ptrace", **more)


def peek(pid, address, length):
    found = b""
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    for offset in range(0, length, 8):
        found += struct.pack("=q", libc.ptrace(PTRACE_PEEKDATA, pid, address + offset, None))
    return found


def trace(t, request):
    victim = t.kept["victim"]
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(request, victim, None, None) == -1:
        raise OSError(ctypes.get_errno(), "ptrace")
    if request == PTRACE_SEIZE:
        libc.ptrace(PTRACE_INTERRUPT, victim, None, None)
    os.waitpid(victim, 0x40000000)
    return peek(victim, t.kept["address"], 64)


@traces("ptrace: attach, seize")
def ptrace_attach(t):
    return trace(t, PTRACE_ATTACH)


@traces("ptrace: attach, seize")
def ptrace_seize(t):
    return trace(t, PTRACE_SEIZE)


@traces("ptrace: attach, seize", who="machine.service")
def ptrace_by_root(t):
    return trace(t, PTRACE_ATTACH)


@traces("PTRACE_TRACEME: a child that lets itself be traced")
def ptrace_child(t):
    child = os.fork()
    if child == 0:
        libc.ptrace.restype = ctypes.c_long
        if libc.ptrace(PTRACE_TRACEME, 0, 0, 0) == -1:
            os._exit(1)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    stopped = os.WIFSTOPPED(os.waitpid(child, 0)[1])
    if stopped:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return stopped


@traces("process_vm_readv, process_vm_writev")
def process_vm_readv(t):
    return remote_memory(t.kept["victim"], t.kept["address"], 64)


@traces("process_vm_readv, process_vm_writev")
def process_vm_writev(t):
    return remote_memory(t.kept["victim"], t.kept["address"], 8, b"written!") == b"written!"


@traces("process_vm_readv, process_vm_writev", who="machine.service")
def process_vm_readv_by_root(t):
    return remote_memory(t.kept["victim"], t.kept["address"], 64)


@traces("/proc/PID/mem")
def proc_mem(t):
    return os.pread(os.open(f"/proc/{t.kept['victim']}/mem", os.O_RDONLY), 64, t.kept["address"])


@traces("/proc/PID/mem")
def proc_mem_for_writing(t):
    fd = os.open(f"/proc/{t.kept['victim']}/mem", os.O_RDWR)
    os.pwrite(fd, b"written!", t.kept["address"])
    return os.pread(fd, 8, t.kept["address"]) == b"written!"


@traces("pidfd_getfd")
def pidfd_getfd_of_same_user(t):
    return os.pread(system("pidfd_getfd", system("pidfd_open", t.kept["victim"], 0), 199, 0), 64, 0)


@traces(
    "/proc/PID/fd, environ",
    open="what `ps` looks at of another process, its open files and environment with it, is not "
    "`ptrace`; whoever may look is kept from sending",
    closed_by={"deny": ["connect", "send"], "subjects": ["carol"], "destinations": {"not": ["vault"]}},
)
def proc_fd(t):
    return t.out(os.pread(os.open(f"/proc/{t.kept['victim']}/fd/199", os.O_RDONLY), 64, 0))


# ---- mounts ----------------------------------------------------------------------------------------------------------


def mounted(path):
    """Also where it is a part of the same filesystem."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return any(line.split()[4] == path for line in file)


@does("mount", "mount", root=private_mounts)
def mount_tmpfs(t):
    mount("tmpfs", "/mnt", "tmpfs")
    return os.path.ismount("/mnt")


@does("mount", "mount", root=private_mounts)
def mount_bind(t):
    mount(t.open, "/mnt", None, BIND)
    return mounted("/mnt")


@does("mount", "mount", root=private_mounts, ready=lambda t: _image(t))
def mount_medium(t):
    """What an inserted medium would be: a loop device with a filesystem on it."""
    mount(t.kept["device"], "/mnt", "ext4")
    put(f"/mnt/{t.mark}", t.data, os.O_WRONLY | os.O_CREAT)
    return take(f"/mnt/{t.mark}")


def _image(t):
    path = "/run/adversary/medium"
    if not os.path.exists(path):
        with open(path, "wb") as target:
            target.truncate(8 << 20)
        control = os.open("/dev/loop-control", os.O_RDWR)
        number = system_ioctl(control, 0x4C82, 0)
        loop = os.open(f"/dev/loop{number}", os.O_RDWR)
        system_ioctl(loop, 0x4C00, os.open(path, os.O_RDWR))
        t.place.medium = f"/dev/loop{number}"
        if os.system(f"mkfs.ext4 -q {t.place.medium} 2>/dev/null || mke2fs {t.place.medium} >/dev/null 2>&1"):
            raise Absent("no mkfs")
    t.kept["device"] = t.place.medium


@does("fsopen, fsmount, move_mount", "mount", root=private_mounts)
def new_mount_calls(t):
    fd = new_filesystem("tmpfs")
    system("move_mount", fd, "", AT_FDCWD, "/mnt", 4)
    return os.path.ismount("/mnt")


def new_filesystem(kind):
    context = system("fsopen", kind, 0)
    system("fsconfig", context, 6, None, None, 0)
    return system("fsmount", context, 0, 0)


@does("fsopen, fsmount, used without a mount point", "mount")
def detached_filesystem(t):
    folder = new_filesystem("tmpfs")
    fd = os.open("data", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=folder)
    os.write(fd, t.data)
    return os.pread(fd, 64, 0)


@does("open_tree, move_mount", "mount", root=private_mounts)
def cloned_tree(t):
    system("move_mount", system("open_tree", AT_FDCWD, t.open, 1), "", AT_FDCWD, "/mnt", 4)
    return mounted("/mnt")


@does("mount: remount, move, propagation", "mount", root=lambda t: (private_mounts(), mount("tmpfs", "/mnt", "tmpfs")))
def mount_move(t):
    mount("/mnt", t.open, None, 8192)
    return os.path.ismount(t.open)


# ---- modules, bpf, perf, namespaces, io_uring ------------------------------------------------------------------------


def _module(t):
    found = sorted(
        glob.glob("/modules/*.ko") + glob.glob(f"/lib/modules/{os.uname().release}/kernel/fs/overlayfs/*.ko")
    )
    path = next((p for p in found if "overlay" in p), None)
    if not path:
        raise Absent("no module at hand")
    t.kept["module"] = path
    try:
        system("delete_module", b"overlay", 0)
    except OSError as error:
        if error.errno != 2:
            raise Absent(f"the module cannot be unloaded: {error}") from error


def _module_back(t):
    try:
        with open(t.kept["module"], "rb") as file:
            system("finit_module", file.fileno(), b"", 0)
    except OSError as error:
        if error.errno != 17:
            raise


def module_loaded(t):
    return any(line.startswith("overlay ") for line in text_of("/proc/modules").splitlines())


def loads(function):
    return does("load a module", "load-module", ready=_module, last=_module_back, evidence=module_loaded)(function)


@loads
def finit_module(t):
    with open(t.kept["module"], "rb") as file:
        system("finit_module", file.fileno(), b"", 0)


@loads
def init_module(t):
    with open(t.kept["module"], "rb") as file:
        data = file.read()
    system("init_module", data, len(data), b"")


@loads
def finit_module_from_memory(t):
    fd = filled(os.memfd_create("module"), t.kept["module"])
    system("finit_module", os.open(f"/proc/self/fd/{fd}", os.O_RDONLY), b"", 0)


@does("bpf(): maps, programs", "bpf")
def bpf_map(t):
    return bpf(0, "=4I", 2, 4, 8, 1) >= 0


@does("bpf(): maps, programs", "bpf")
def bpf_program(t):
    code = ctypes.create_string_buffer(struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    return bpf(5, "=IIQQ", 1, 2, ctypes.addressof(code), ctypes.addressof(licence)) >= 0


@does("bpf(): maps, programs", "bpf", who="carol")
def bpf_of_a_user(t):
    if text_of("/proc/sys/kernel/unprivileged_bpf_disabled") != "0":
        raise Absent("users may not anyway")
    return bpf(0, "=4I", 2, 4, 8, 1) >= 0


@does("perf_event_open", "perf")
def perf(t):
    attribute = ctypes.create_string_buffer(struct.pack("=IIQ", 1, 128, 0), 128)  # a software clock
    return system("perf_event_open", attribute, 0, -1, -1, 0) >= 0


@does("perf_event_open", "perf", who="carol")
def perf_of_a_user(t):
    attribute = ctypes.create_string_buffer(
        struct.pack("=IIQ", 1, 128, 0) + bytes(24) + struct.pack("=Q", 1 << 5 | 1 << 6), 128
    )
    return system("perf_event_open", attribute, 0, -1, -1, 0) >= 0


@does("make a user namespace", "user-namespace", who="carol")
def user_namespace(t):
    call("unshare", NEWUSER)
    return True


@does("make a user namespace", "user-namespace", who="carol")
def user_namespace_with_others(t):
    own_namespaces(NEWNS, NEWPID, NEWNET)
    return os.getuid() == 0


@does("make a user namespace", "user-namespace", who="carol")
def user_namespace_by_clone3(t):
    arguments = ctypes.create_string_buffer(struct.pack("=8Q", NEWUSER, 0, 0, 0, 17, 0, 0, 0), 88)
    child = system("clone3", arguments, 64)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True


@does("make a user namespace", "user-namespace")
def user_namespace_of_root(t):
    call("unshare", NEWUSER)
    return True


@does("make an io_uring", "io-uring", who="carol")
def io_uring(t):
    ring = Ring()
    return ring.do(Ring.NOP) == 0


@does("make an io_uring", "io-uring", who="carol")
def io_uring_with_polling_thread(t):
    return Ring(Ring.SQPOLL).fd > 0


@does("make an io_uring", "io-uring")
def io_uring_of_root(t):
    return Ring().fd > 0


# ---- devices ---------------------------------------------------------------------------------------------------------


def opens(what, action, **more):
    return technique("machine", what, action, who="devices.service", **more)


def disk_of(path):
    """The block device below a folder, and its number."""
    number = os.stat(path).st_dev
    name = os.path.basename(os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"))
    if not name or int(text_of(f"/sys/class/block/{name}/size")) > 1 << 16:
        raise Absent("no small disk to look through")
    return f"/dev/{name}", number


def search_disk(t, path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    while True:
        block = os.read(fd, 1 << 20)
        if not block or t.has(block):
            return block


@opens("open a block device", "block-device", ready=lambda t: os.sync())
def block_device(t):
    return search_disk(t, disk_of(t.base)[0])


@opens("open a block device", "block-device", ready=lambda t: os.sync())
def block_device_of_own_making(t):
    number = disk_of(t.base)[1]
    path = "/dev/" + t.mark
    os.mknod(path, 0o600 | stat.S_IFBLK, number)
    try:
        return search_disk(t, path)
    finally:
        os.unlink(path)


@opens("open a block device", "block-device", ready=lambda t: os.sync())
def block_device_reopened(t):
    return search_disk(t, f"/proc/self/fd/{os.open(disk_of(t.base)[0], os.O_PATH)}")


@opens("open a serial line", "serial")
def serial_line(t):
    return os.write(os.open("/dev/ttyS0", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK), t.data) == len(t.data)


@opens("open a serial line", "serial")
def serial_line_of_own_making(t):
    path = "/dev/" + t.mark
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(4, 64))
    try:
        return os.write(os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK), t.data) == len(t.data)
    finally:
        os.unlink(path)


@opens("open a serial line", "serial")
def console(t):
    path = "/dev/console"
    return os.write(os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK), t.data) == len(t.data)


@opens("open a virtio port", "virtio-port")
def virtio_port(t):
    found = glob.glob("/dev/vport*") + glob.glob("/dev/hvc0")
    if not found:
        raise Absent("no such device")
    return os.open(found[0], os.O_WRONLY | os.O_NONBLOCK) >= 0  # nobody listens at its other end here


def tunnel(flags):
    if not os.path.exists("/dev/net/tun"):
        raise Absent("no such device")
    fd = os.open("/dev/net/tun", os.O_RDWR)
    system_ioctl(fd, 0x400454CA, ctypes.create_string_buffer(struct.pack("=16sH", b"adv0", flags), 40))
    return os.path.exists("/sys/class/net/adv0")


@opens("make a tun or tap device", "tun")
def tun(t):
    return tunnel(0x1001)


@opens("make a tun or tap device", "tun")
def tap(t):
    return tunnel(0x1002)


@opens("open a way to the hypervisor", "guest-device")
def guest_device(t):
    for name in ("vmci", "vboxguest", "vhost-vsock", "vhost-net"):
        if os.path.exists("/dev/" + name):
            return os.open("/dev/" + name, os.O_RDWR) >= 0
    raise Absent("no such device")


# ---- capabilities ----------------------------------------------------------------------------------------------------


def uses(capability, what, **more):
    return technique("machine", what, "cap-" + capability, who="caps.service", **more)


def _owned(t):
    gone(t.own)
    put(t.own, t.data, os.O_WRONLY | os.O_CREAT)
    os.chown(t.own, 4242, 4242)
    os.chmod(t.own, 0o600)


@uses("chown", "chown of another's file", ready=_owned)
def cap_chown(t):
    os.chown(t.own, 4243, 4243)
    return os.stat(t.own).st_uid == 4243


@uses("dac-override", "write what the mode does not allow", ready=_owned)
def cap_dac_override(t):
    put(t.own, b"x")
    return True


@uses("dac-read-search", "open_by_handle_at, without a rule on files", ready=_owned)
def cap_dac_read_search(t):
    return os.read(open_handle(t.open, handle_of(t.own)), 64)


@uses("fowner", "chmod of another's file", ready=_owned)
def cap_fowner(t):
    os.chmod(t.own, 0o601)
    return stat.S_IMODE(os.stat(t.own).st_mode) == 0o601


@uses("kill", "signal another's process", ready=lambda t: t.kept.update(pid=t.helper(signal.pause, "nobody")))
def cap_kill(t):
    time.sleep(0.05)
    os.kill(t.kept["pid"], 0)
    return True


@uses("setuid", "become another user")
def cap_setuid(t):
    os.setresuid(4242, 4242, 4242)
    return os.getuid() == 4242


@uses("setgid", "become another group")
def cap_setgid(t):
    os.setresgid(4242, 4242, 4242)
    return os.getgid() == 4242


@uses("net-bind-service", "bind a port below 1024")
def cap_net_bind_service(t):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 99))
        return True


@uses("net-admin", "configure the network", last=lambda t: os.system("ip link set lo mtu 65536"))
def cap_net_admin(t):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        system_ioctl(
            one.fileno(), 0x8922, ctypes.create_string_buffer(struct.pack("=16si", b"lo", 60000), 40)
        )  # SIOCSIFMTU
    return text_of("/sys/class/net/lo/mtu") == "60000"


@uses("net-raw", "a raw socket, by its capability")
def cap_net_raw(t):
    socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()
    return True


@uses("sys-chroot", "chroot, by its capability")
def cap_sys_chroot(t):
    os.chroot(t.open)
    return True


@uses("sys-admin", "sethostname, by its capability")
def cap_sys_admin(t):
    socket.sethostname(socket.gethostname())
    return True


@uses("sys-admin", "mount, by its capability", root=private_mounts)
def cap_sys_admin_mount(t):
    mount("tmpfs", "/mnt", "tmpfs")
    return True


@uses("sys-time", "set the clock")
def cap_sys_time(t):
    time.clock_settime_ns(time.CLOCK_REALTIME, time.clock_gettime_ns(time.CLOCK_REALTIME))
    return True


@uses("mknod", "make a device node")
def cap_mknod(t):
    path = "/dev/" + t.mark
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.unlink(path)
    return True


@uses("syslog", "read the kernel's log")
def cap_syslog(t):
    return call("klogctl", 3, ctypes.create_string_buffer(64), 64) >= 0


@uses("setfcap", "give a file capabilities", ready=lambda t: (gone(t.own), put(t.own, b"", os.O_WRONLY | os.O_CREAT)))
def cap_setfcap(t):
    os.setxattr(t.own, "security.capability", struct.pack("=5I", 0x02000000, 1, 0, 0, 0))
    return True


@uses("sys-rawio", "/dev/mem, ports")
def cap_sys_rawio(t):
    call("ioperm", 0x80, 1, 1)
    return True


@uses("sys-resource", "raise one's own limits")
def cap_sys_resource(t):
    import resource

    limit = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        for size in (1 << 20, 1 << 21):
            resource.setrlimit(resource.RLIMIT_MSGQUEUE, (size, size))
    except ValueError as error:  # Python's way to say EPERM here
        raise PermissionError(1, str(error)) from error
    return limit is not None


@uses("sys-ptrace", "ptrace of another's process, by its capability", ready=_victim("nobody"))
def cap_sys_ptrace(t):
    return remote_memory(t.kept["victim"], t.kept["address"], 64)


@uses("setpcap", "drop a capability from the bounding set")
def cap_setpcap(t):
    call("prctl", 24, 30, 0, 0, 0)
    return True


# ---- operations that nobody decides ----------------------------------------------------------------------------------


def undecided(what, why, **more):
    more.setdefault("who", "alice")
    return technique("undecided", what, "none", open=why, **more)


@undecided("open with O_PATH", "it reads nothing; opening what it names is decided")
def open_path(t):
    return os.open(t.secret, os.O_PATH) > 0


@undecided("stat, access, readlink", "names and sizes are no content")
def stat_only(t):
    return os.stat(t.secret).st_size > 0


@undecided(
    "unlink, rmdir in a covered tree",
    "deleting brings nothing out",
    ready=lambda t: put(t.secret_folder + "/gone", b"x", os.O_WRONLY | os.O_CREAT),
)
def unlink(t):
    os.unlink(t.secret_folder + "/gone")
    return True


@undecided("memfd_create", "memory of one's own; executing it and passing it on are decided")
def make_memfd(t):
    return os.memfd_create("x") > 0


@undecided("symlink", "it is followed to the file it names, which is decided")
def make_symlink(t):
    gone(t.own)
    os.symlink(t.secret, t.own)
    return True


@undecided("socketpair, pipe", "both ends are one's own; has_read follows what goes through")
def make_pair(t):
    one, other = socket.socketpair()
    one.send(b"x")
    return other.recv(1) == b"x"


@undecided("recv, poll", "what comes in is no way out")
def receive(t):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return not wait_for(one.fileno(), 0)


@undecided(
    "umount",
    "it opens nothing; what it uncovers is decided by its path",
    who="machine.service",
    root=lambda t: (private_mounts(), mount("tmpfs", "/mnt", "tmpfs")),
)
def umount(t):
    call("umount2", "/mnt", 0)
    return True


@undecided(
    "mount_setattr",
    "it changes flags of what is mounted already",
    who="machine.service",
    root=lambda t: (private_mounts(), mount("tmpfs", "/mnt", "tmpfs")),
)
def mount_setattr(t):
    system("mount_setattr", AT_FDCWD, "/mnt", 0, ctypes.create_string_buffer(struct.pack("=4Q", 1, 0, 0, 0)), 32)
    return True


@undecided("kill", "a signal carries no data; who may be signalled is the system's own rule")
def kill(t):
    return in_child(lambda: os.kill(os.getpid(), 0) is None)


@undecided("exit status, timing, load", "covert channels of a few bits are not followed")
def exit_status(t):
    child = os.fork()
    if child == 0:
        os._exit(65)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 65
