# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What root may do to what enforces: its pins, its maps and programs, its package and documents."""

import ctypes
import glob
import os
import resource
import signal
import struct

from techniques.registry import Absent, appears, technique
from techniques.steps import (
    BIND,
    NEWNS,
    NEWPID,
    NEWUSER,
    PRIVATE,
    another_id,
    gone,
    mapping_root,
    piped_child,
    private_mounts,
    put,
    text_of,
)
from techniques.syscalls import bpf, call, mount, system

PINS = "/sys/fs/bpf/exfil_guard/v1"
MOVE, SHARED = 0x2000, 0x100000


def tampers(what, **more):
    return technique("tamper", what, "what enforces", who="tamper.service", **more)


def _pins():
    if not os.path.isdir(PINS):
        raise Absent("not installed yet")
    return PINS


@tampers("unlink a pin of the guard")
def unlink_pin(t):
    links = next(name for name in os.listdir(_pins()) if name.startswith("links-"))
    one = sorted(os.listdir(f"{PINS}/{links}"))[-1]
    os.unlink(f"{PINS}/{links}/{one}")
    return True


@tampers("rename pins of the guard")
def rename_pins(t):
    os.rename(_pins(), PINS + "x")
    os.rename(PINS + "x", PINS)
    return True


@tampers("unmount, cover or move the filesystem of the pins")
def unmount_pins(t):
    _pins()
    call("umount2", "/sys/fs/bpf", 2)
    return True


@tampers(
    "unmount, cover or move the filesystem of the pins",
    evidence=lambda t: os.path.isdir("/mnt/exfil_guard"),
    last=lambda t: os.path.ismount("/mnt") and mount("/mnt", "/sys/fs/bpf", None, MOVE),
)
def move_pins(t):
    _pins()
    mount("/sys/fs/bpf", "/mnt", None, MOVE)


def _shared_parent(_t):
    if not os.path.ismount("/sys/fs/bpf"):
        mount("bpf", "/sys/fs/bpf", "bpf")
    mount(None, "/sys", None, SHARED)


@tampers(
    "unmount, cover or move the filesystem of the pins",
    evidence=lambda t: not os.path.ismount("/sys/fs/bpf"),
    ready=_shared_parent,
    root=lambda t: call("unshare", NEWNS),
    last=lambda t: mount(None, "/sys", None, PRIVATE),
)
def unmount_pins_from_elsewhere(t):
    """In a namespace of one's own: where the mount above is shared, the host's goes, too."""
    mount(None, "/sys/fs/bpf", None, PRIVATE)
    call("umount2", "/sys/fs/bpf", 2)


def open_pin(path, flags=0):
    name = ctypes.create_string_buffer(path.encode())
    return bpf(7, "=QII", ctypes.addressof(name), 0, flags)


@tampers("open a pinned map of the guard for writing")
def write_pinned_map(t):
    return open_pin(_pins() + "/maps/control") >= 0


@tampers("open a map of the guard by its number")
def map_by_number(t):
    _pins()
    wanted, number = b"control", 0
    while True:
        attribute = ctypes.create_string_buffer(struct.pack("=II", number, 0), 128)
        system("bpf", 12, attribute, 128)  # BPF_MAP_GET_NEXT_ID
        number = struct.unpack_from("=I", attribute.raw, 4)[0]
        fd = bpf(14, "=III", number, 0, 0)
        info = ctypes.create_string_buffer(256)
        bpf(15, "=IIQ", fd, 256, ctypes.addressof(info))
        if info.raw[24:40].rstrip(b"\0") == wanted:
            return True
        os.close(fd)


@tampers("open a program of the guard by its number")
def program_by_number(t):
    _pins()
    number = 0
    while True:
        attribute = ctypes.create_string_buffer(struct.pack("=II", number, 0), 128)
        system("bpf", 11, attribute, 128)  # BPF_PROG_GET_NEXT_ID
        number = struct.unpack_from("=I", attribute, 4)[0]
        fd = bpf(13, "=I", number)
        info = ctypes.create_string_buffer(256)
        bpf(15, "=IIQ", fd, 256, ctypes.addressof(info))
        if info.raw[64:80].rstrip(b"\0") == b"file_permission":
            return True
        os.close(fd)


@tampers("write the guard's package, object and documents")
def write_package(t):
    put("/usr/lib/exfil-guard/exfil_guard/__init__.py", b"", os.O_WRONLY | os.O_APPEND)
    return True


@tampers("write the guard's package, object and documents")
def write_document(t):
    _pins()
    found = sorted(glob.glob("/var/lib/exfil-guard/**", recursive=True))
    put(next(p for p in found if os.path.isfile(p)), b"", os.O_WRONLY | os.O_APPEND)
    return True


@tampers("write the guard's package, object and documents")
def replace_object(t):
    path = "/usr/lib/exfil-guard/guard.bpf.o"
    os.rename(path, path + ".away")
    os.rename(path + ".away", path)
    return True


# ---- in a user namespace, where kernel id 0 keeps its owner's rights -------------------------------------------------

SPARE_PIN, SPARE_FILE = "/sys/fs/bpf/exfil_guard/spare", "/usr/lib/exfil-guard/spare"


def _spares(_t):
    """Something among the pins and in the package that nobody misses."""
    gone(SPARE_PIN, SPARE_FILE)
    if os.path.isdir(os.path.dirname(SPARE_PIN)):
        os.symlink("nowhere", SPARE_PIN)
    put(SPARE_FILE, b"spare", os.O_WRONLY | os.O_CREAT)


def in_user_namespace(what, **more):
    return tampers(what, ready=_spares, last=lambda t: gone(SPARE_PIN, SPARE_FILE), **more)


def _without_a_map():
    call("unshare", NEWUSER)


def _nested():
    mapping_root()
    mapping_root()


@in_user_namespace("the same in a user namespace", evidence=lambda t: not os.path.lexists(SPARE_PIN))
def user_namespace_unlinks_pin(t):
    mapping_root()
    os.unlink(SPARE_PIN)


@in_user_namespace("the same in a user namespace", evidence=lambda t: not os.path.lexists(SPARE_PIN))
def user_namespace_without_a_map(t):
    _without_a_map()
    os.unlink(SPARE_PIN)


@in_user_namespace("the same in a user namespace", evidence=lambda t: not os.path.getsize(SPARE_FILE))
def user_namespace_truncates(t):
    mapping_root()
    os.truncate(SPARE_FILE, 0)


@in_user_namespace("the same in a user namespace", evidence=lambda t: os.path.getsize(SPARE_FILE) > 5)
def user_namespace_writes(t):
    mapping_root()
    put(SPARE_FILE, b"more", os.O_WRONLY | os.O_APPEND)


@in_user_namespace("the same in a user namespace", evidence=lambda t: os.path.getsize(SPARE_FILE) > 5)
def user_namespace_with_another_id(t):
    """Only the capabilities of the namespace give the right: the kernel's id is that of somebody else."""
    mapping_root()
    another_id()
    put(SPARE_FILE, b"more", os.O_WRONLY | os.O_APPEND)


@in_user_namespace("the same in a user namespace", evidence=lambda t: os.path.getsize(SPARE_FILE) > 5)
def user_namespace_in_another(t):
    _nested()
    another_id()
    put(SPARE_FILE, b"more", os.O_WRONLY | os.O_APPEND)


@in_user_namespace("the same in a user namespace", evidence=lambda t: os.stat(SPARE_FILE).st_mode & 0o777 == 0o123)
def user_namespace_chmod(t):
    mapping_root()
    os.chmod(SPARE_FILE, 0o123)


@in_user_namespace("the same in a user namespace", evidence=lambda t: not os.path.exists(SPARE_FILE))
def user_namespace_renames(t):
    mapping_root()
    os.rename(SPARE_FILE, "/tmp/spare" if os.stat("/tmp").st_dev == os.stat(SPARE_FILE).st_dev else "/usr/lib/spare")


@in_user_namespace("the same in a user namespace")
def user_namespace_mkdir(t):
    mapping_root()
    os.mkdir(_pins() + "/more")
    os.rmdir(PINS + "/more")
    return True


def _overlay():
    """The package through an overlay of one's own, which writes with the credentials of whoever mounted it."""
    mapping_root(NEWNS)
    mount("none", "/mnt", "tmpfs")
    for name in ("lower", "work", "merged"):
        os.mkdir("/mnt/" + name)
    mount(
        "overlay",
        "/mnt/merged",
        "overlay",
        data="lowerdir=/mnt/lower,upperdir=/usr/lib/exfil-guard,workdir=/usr/lib/work",
    )


@in_user_namespace(
    "the same in a user namespace",
    evidence=lambda t: not os.path.exists(SPARE_FILE),
    root=lambda t: os.makedirs("/usr/lib/work", exist_ok=True),
)
def user_namespace_overlay(t):
    """The package is the upper layer."""
    _overlay()
    os.unlink("/mnt/merged/spare")


# ---- switches of the kernel ------------------------------------------------------------------------------------------

FTRACE, CORE_PATTERN = "/proc/sys/kernel/ftrace_enabled", "/proc/sys/kernel/core_pattern"
PROBES = "/sys/kernel/tracing/kprobe_events"


def _kept(path):
    def ready(t):
        if not os.path.exists(path):
            raise Absent("this kernel has no " + path)
        t.kept[path] = text_of(path)

    return ready


def _restored(path):
    """Back as it was, by real root."""

    def last(t):
        if path in t.kept and text_of(path) != t.kept[path]:
            put(path, (t.kept[path] + "\n").encode())

    return last


def switches(what, path, value, **more):
    more.setdefault("evidence", lambda t: text_of(path) == value)
    return tampers(what, ready=_kept(path), last=_restored(path), **more)


def _switch(name, path, value):
    def attempt(t):
        put(path, value.encode())

    attempt.__name__ = "switch_" + name
    switches("write a switch of the kernel", path, value)(attempt)


for _name, _path, _value in (
    ("ftrace", FTRACE, "0"),
    ("core_pattern", CORE_PATTERN, "|/bin/false"),
    ("modprobe", "/proc/sys/kernel/modprobe", "/bin/false"),
    ("hotplug", "/proc/sys/kernel/hotplug", "/bin/false"),
    ("poweroff", "/proc/sys/kernel/poweroff_cmd", "/bin/false"),
    ("uevent_helper", "/sys/kernel/uevent_helper", "/bin/false"),
    ("sysrq", "/proc/sys/kernel/sysrq", "3"),
    ("dump", "/proc/sys/fs/suid_dumpable", "2"),
    ("bpf_jit", "/proc/sys/net/core/bpf_jit_harden", "2"),
    ("firmware", "/sys/module/firmware_class/parameters/path", "/tmp"),
    ("machine_check", "/sys/devices/system/machinecheck/machinecheck0/trigger", "/bin/false"),
):
    _switch(_name, _path, _value)


def _by_another_mount(kind, switch, value):
    def written():
        mount(kind, "/mnt", kind)
        put("/mnt/" + switch, value)
        return b"written"

    piped_child(written)


@switches("the same through another mount", FTRACE, "0")
def switch_by_another_procfs(t):
    private_mounts()
    call("unshare", NEWPID)
    _by_another_mount("proc", "sys/kernel/ftrace_enabled", b"0")


@switches("the same through another mount", FTRACE, "0")
def switch_by_bind_mount(t):
    private_mounts()
    put("/tmp/switch", b"", os.O_WRONLY | os.O_CREAT)
    mount(FTRACE, "/tmp/switch", None, BIND)
    put("/tmp/switch", b"0")


@switches("the same through another mount", "/sys/module/firmware_class/parameters/path", "/tmp")
def switch_by_another_sysfs(t):
    private_mounts()
    _by_another_mount("sysfs", "module/firmware_class/parameters/path", b"/tmp")


@switches("the same in a user namespace", FTRACE, "0")
def switch_in_user_namespace(t):
    mapping_root()
    put(FTRACE, b"0")


@switches("the same in a user namespace", FTRACE, "0")
def switch_by_procfs_of_user_namespace(t):
    mapping_root(NEWNS, NEWPID)
    _by_another_mount("proc", "sys/kernel/ftrace_enabled", b"0")


@switches(
    "a handler of core dumps, and a crash", CORE_PATTERN, "", evidence=lambda t: os.path.exists(f"{t.open}/{t.mark}")
)
def switch_core_handler(t):
    """The handler runs as root, in the root cgroup."""
    put(CORE_PATTERN, f"|{t.bin}/hand touch {t.open}/{t.mark}".encode())
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    os.waitpid(child, 0)
    appears(f"{t.open}/{t.mark}")


def _tracefs(_t):
    if not os.path.exists(PROBES):
        mount("tracefs", "/sys/kernel/tracing", "tracefs")


@tampers("probes in tracefs", ready=_tracefs, last=lambda t: put(PROBES, b"\n", os.O_WRONLY | os.O_TRUNC))
def switch_kprobe(t):
    put(PROBES, b"p:guard_probe do_exit\n", os.O_WRONLY | os.O_APPEND)
    return True


@tampers("probes in tracefs", ready=_tracefs, last=lambda t: put(PROBES, b"\n", os.O_WRONLY | os.O_TRUNC))
def switch_kprobe_by_another_mount(t):
    private_mounts()
    mount("tracefs", "/mnt", "tracefs")
    put("/mnt/kprobe_events", b"p:guard_probe do_exit\n", os.O_WRONLY | os.O_APPEND)
    return True


@tampers("write to debugfs")
def switch_debugfs(t):
    private_mounts()
    mount("debugfs", "/mnt", "debugfs")
    path = "/mnt/kprobes/enabled"
    put(path, text_of(path).encode())
    return True


@tampers("a release agent of cgroup v1")
def switch_release_agent(t):
    private_mounts()
    mount("none", "/mnt", "cgroup", 0, "none,name=adversary")
    put("/mnt/release_agent", b"/bin/false")
    return text_of("/mnt/release_agent") == "/bin/false"


@tampers("keys of sysrq")
def switch_sysrq_trigger(t):
    put("/proc/sysrq-trigger", b"h")  # only shows the help
    return True


@tampers("commands of modprobe", last=lambda t: gone("/etc/modprobe.d/adversary.conf"))
def switch_modprobe_configuration(t):
    os.makedirs("/etc/modprobe.d", exist_ok=True)
    put("/etc/modprobe.d/adversary.conf", b"install pppox /bin/false\n", os.O_WRONLY | os.O_CREAT)
    return True


@tampers("the boot loader's files", last=lambda t: gone("/boot/adversary"))
def switch_boot(t):
    os.makedirs("/boot", exist_ok=True)
    put("/boot/adversary", b"x", os.O_WRONLY | os.O_CREAT)
    return True
