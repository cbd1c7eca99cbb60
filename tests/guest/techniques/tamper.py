# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What root may do to what enforces: its pins, its maps and programs, its package and documents."""

import ctypes
import glob
import os
import struct

from techniques.registry import Absent, technique
from techniques.steps import NEWNS, PRIVATE, put
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
