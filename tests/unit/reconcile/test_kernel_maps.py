# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The map half of kernel.Kernel against the kernel of this machine, in a mount namespace with a bpffs of its own."""

import ctypes
import errno
import os
import socket
import struct
import sys
import traceback

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import bpf, generations, mapspecs, pins
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.bpf import Kernel
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.types import (
    ARRAY,
    HASH,
    INNER_MAP,
    LPM_TRIE,
    MapSpec,
    hook_of,
)
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import enforcer


@pytest.fixture(autouse=True, scope="module")
def root():
    assert os.geteuid() == 0, "maps are made as root: run `make test-unit`, which uses sudo"


ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18


def number(value):
    return struct.pack("=I", value)


class Inside(Kernel):
    """Where the first process is not root's to look at, the test's own namespace stands for its."""

    def mount_namespace(self):
        return os.stat("/proc/self/ns/mnt").st_ino


@pytest.fixture
def inside(tmp_path):
    """Runs a function in a child that has a bpffs of its own."""

    def run(function):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
                    raise OSError(ctypes.get_errno(), "unshare")
                if libc.mount(b"bpf", os.fsencode(str(tmp_path)), b"bpf", 0, None):
                    raise OSError(ctypes.get_errno(), "mount")
                function(Inside(str(tmp_path)))
                status = 0
            except BaseException:
                traceback.print_exc(file=sys.stderr)
            finally:
                sys.stderr.flush()
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    return run


def test_hash_array_and_trie_give_back_what_was_put_in(inside):
    def check(kernel):
        for spec, entries in (
            (MapSpec(HASH, 8, 8, 1000), {struct.pack("=II", 1, i): struct.pack("=Q", i) for i in range(1000)}),
            (MapSpec(ARRAY, 4, 16, 50, INNER_MAP), {number(i): bytes([i]) * 16 for i in range(50)}),
            (
                MapSpec(LPM_TRIE, 8, 8, 300, 1),
                {struct.pack("=IBBBB", 24, 10, 0, i % 256, 0): struct.pack("=Q", i) for i in range(200)},
            ),
            (
                MapSpec(LPM_TRIE, 20, 8, 9, 1),
                {number(128) + bytes(15) + b"\1": bytes(8), number(0) + bytes(16): bytes(8)},
            ),
            (MapSpec(HASH, 4, 4, 1), {}),
        ):
            fd = kernel.create_map("try", spec)
            kernel.update_all(fd, entries)
            assert kernel.read_all(fd) == entries
            assert kernel._read_singly(fd, spec) == entries
            assert kernel.map_info(fd).spec == spec
            kernel.close(fd)

    inside(check)


def test_entries_one_by_one(inside):
    def check(kernel):
        fd = kernel.create_map("try", MapSpec(HASH, 4, 4, 2))
        assert kernel.lookup(fd, number(1)) is None
        kernel.update(fd, number(1), number(7))
        assert kernel.lookup(fd, number(1)) == number(7)
        kernel.delete(fd, number(1))
        kernel.delete(fd, number(1))
        assert kernel.read_all(fd) == {}
        for i in range(2):
            kernel.update(fd, number(i), number(i))
        with pytest.raises(OSError) as refused:
            kernel.update(fd, number(9), number(9))
        assert refused.value.errno == errno.E2BIG

    inside(check)


def test_a_frozen_map_and_a_descriptor_for_reading_refuse_writes(inside):
    def check(kernel):
        fd = kernel.create_map("try", MapSpec(HASH, 4, 4, 2))
        kernel.update(fd, number(1), number(7))
        kernel.pin(fd, kernel.path("map"))
        reader = kernel.get(kernel.path("map"), readonly=True)
        with pytest.raises(OSError) as refused:
            kernel.update(reader, number(1), number(8))
        assert refused.value.errno == errno.EPERM
        assert not kernel.map_info(fd).frozen
        kernel.freeze(fd)
        assert kernel.map_info(fd).frozen
        for change in (lambda: kernel.update(fd, number(1), number(8)), lambda: kernel.delete(fd, number(1))):
            with pytest.raises(OSError) as refused:
                change()
            assert refused.value.errno == errno.EPERM
        assert kernel.read_all(reader) == {number(1): number(7)}
        by_id = kernel.map_by_id(kernel.map_info(fd).id, readonly=True)
        assert kernel.lookup(by_id, number(1)) == number(7)

    inside(check)


def test_pins_are_found_renamed_and_removed(inside):
    def check(kernel):
        fd = kernel.create_map("try", MapSpec(ARRAY, 4, 4, 1))
        kernel.mkdir(kernel.path("one"))
        kernel.pin(fd, kernel.path("one", "map"))
        kernel.rename(kernel.path("one"), kernel.path("two"))
        assert kernel.names(kernel.path("one")) == [] and kernel.names(kernel.path("two")) == ["map"]
        assert kernel.exists(kernel.path("two", "map"))
        kernel.unlink(kernel.path("two", "map"))
        kernel.rmdir(kernel.path("two"))
        with pytest.raises(OSError) as refused:
            kernel.get(kernel.path("two", "map"))
        assert refused.value.errno == errno.ENOENT

    inside(check)


class Image:
    def __init__(self, tables):
        self.tables = tables


def make_maps(kernel):
    """What libbpf does for the object's maps."""
    os.makedirs(pins.base(kernel) + "/maps")
    for name, spec in mapspecs.MAPS.items():
        template = mapspecs.RECORD if name == "control" else mapspecs.TABLES.get(name)
        inner = kernel.create_map("inner", template) if template else None
        fd = kernel.create_map(name, spec, inner)
        kernel.pin(fd, pins.map_path(kernel, name))
        kernel.close(fd)
    for name in mapspecs.STORAGES:  # whatever they are: nobody looks into them from outside
        fd = kernel.create_map(name, MapSpec(ARRAY, 4, 4, 1))
        kernel.pin(fd, pins.map_path(kernel, name))
        kernel.close(fd)


def test_generations_are_written_read_back_and_switched(inside):
    def check(kernel):
        make_maps(kernel)
        assert generations.read(kernel).record is None
        first = {
            "policy": {number(0): b"\1" * layout.POLICY.size},
            "states": {number(i): bytes([i]) * layout.STATE.size for i in range(7)},
            "edges": {number(i) + bytes(36): number(i) for i in range(40)},
            "ipv4": {struct.pack("=IBBBB", 8, 10, 0, 0, 0): bytes(8)},
            "rules": {number(0): b"\7" * 8 + b"a rule".ljust(96, b"\0")},
        }
        generations.load(kernel, Image(first), 1, [], version="none")
        live = generations.read(kernel)
        assert (live.generation, live.slot, live.pending) == (1, 0, False)
        assert generations.differences(first, live.tables) == {}
        assert generations.missing_counters(kernel, first) == []
        second = dict(first, edges={number(i) + bytes(36): number(i) for i in range(41)})
        generations.load(kernel, Image(second), 2, [], version="none", confirm_seconds=60)
        live = generations.read(kernel)
        assert (live.generation, live.slot, live.pending, live.fallback_target) == (2, 1, True, (1, 0))
        assert generations.differences(first, live.tables) == {"edges": 1}
        generations.publish(kernel, live.record._replace(deadline=1))
        assert generations.read(kernel).generation == 1
        generations.clear_slots(kernel)
        assert generations.differences(first, generations.read(kernel).tables) == {}
        assert generations.differences(second, generations.read_tables(kernel, 1)) == {}
        with pins.opened(kernel, pins.map_path(kernel, "states")) as outer:
            kernel.delete(outer, number(0))
        assert set(generations.differences(first, generations.read(kernel).tables)) == {"states"}

    inside(check)


@pytest.fixture
def built():
    with open(os.path.join(ROOT, "roles", "enforcer", "files", "guard.bpf.o"), "rb") as file:
        return file.read()


def test_the_built_object_has_the_layout_that_we_write(built):
    kernel = Kernel()
    info = kernel.describe(built)
    enforcer.check_layout(info)
    assert {"file_open", "task_alloc", "bprm_committed_creds", "socket_connect"} <= set(info.programs)


def test_one_program_fits_a_hook_that_kernels_differ_in(built):
    kernel = Kernel()
    variants = [name for name in kernel.describe(built).programs if name.startswith("inode_setattr")]
    assert [hook_of(name) for name in variants] == ["inode_setattr", "inode_setattr"]
    assert [kernel.has_hook(name) for name in variants].count(True) == 1
    assert not kernel.has_hook("inode_setattr__9") and not kernel.has_hook("no_such_hook__2")


def test_ports_that_are_listened_on():
    families = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    found = Kernel().listening_ports()
    for family, address in families:
        with socket.socket(family) as one:
            one.bind((address, 0))
            port = one.getsockname()[1]
            assert port not in Kernel().listening_ports() - found
            one.listen()
            assert port in Kernel().listening_ports()


def test_a_file_that_is_no_object_is_refused_in_one_line(capfd):
    with pytest.raises(Exception) as refused:
        Kernel().describe(b"no object")
    assert str(refused.value).startswith("the object file cannot be read: not a BPF object")
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")  # libbpf's own words go into the message, not to the terminal


def test_hooks_are_told_by_the_names_in_btf(tmp_path, monkeypatch):
    path = tmp_path / "vmlinux"
    monkeypatch.setattr(bpf, "BTF", str(path))
    assert Kernel().lsm_hooks() == frozenset()
    path.write_bytes(b"\0bpf_lsm_file_open\0bpf_lsm_bpf\0x_bpf_lsm_capable\0bpf_lsm_\0int\0bpf_lsm_cut")
    assert Kernel().lsm_hooks() == {"file_open", "bpf"}
