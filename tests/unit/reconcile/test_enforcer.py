# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
import contextlib

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import links, mapspecs
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.types import MapSpec
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import enforcer
from fake_kernel import GOOD, HOOKS, FakeKernel, Killed, _Program

OLD, NEW = b"old object", b"new object"
ALL_MAPS = sorted(list(mapspecs.MAPS) + list(mapspecs.STORAGES))


@pytest.fixture
def kernel():
    return FakeKernel()


def whole(kernel, data=OLD):
    version = enforcer.version_of(data)
    assert kernel.names("/bpf/exfil_guard/v1/maps") == ALL_MAPS
    assert kernel.names("/bpf/exfil_guard/v1/programs-" + version) == sorted(HOOKS)
    assert enforcer.installed(kernel) == version
    kernel.calls.clear()
    assert not enforcer.ensure(kernel, data)["changed"]
    assert kernel.calls == []
    return True


def test_loaded_once(kernel):
    result = enforcer.ensure(kernel, OLD)
    assert result["changed"] and result["diff"]["prepared"] == f"+ enforcer {enforcer.version_of(OLD)}\n"
    assert whole(kernel) and kernel.attached() == [] and kernel.open_descriptors() == 0


def test_check_mode_changes_nothing(kernel):
    would = enforcer.ensure(kernel, OLD, check=True)
    assert kernel.calls == [] and kernel.pins == {}
    assert enforcer.ensure(kernel, OLD) == would


@pytest.mark.parametrize(
    "change, message",
    [
        ({"root": False}, "not running as root. Run with become: true"),
        ({"machine": "riscv64"}, "the architecture riscv64 is not supported. Use x86_64 or aarch64"),
        ({"release": "5.15.0-91-generic"}, "Linux 5.15.0-91-generic is too old. Boot Linux 6.1 or newer"),
        ({"release": "6.1.0", "machine": "aarch64"}, "Linux 6.1.0 is too old. Boot Linux 6.4 or newer"),
        ({"libbpf": ""}, "libbpf.so.1 is not there. Install libbpf 1.0 or newer (Debian: libbpf1)"),
        ({"libbpf": "0"}, "libbpf is older than 1.0. Install libbpf 1.0 or newer (Debian: libbpf1)"),
        (
            {"bpffs": False},
            "no bpf filesystem is mounted at /sys/fs/bpf. Start sys-fs-bpf.mount, or: mount -t bpf bpf /sys/fs/bpf",
        ),
        ({"cgroup2": False}, "/sys/fs/cgroup is not cgroup v2. Boot with systemd.unified_cgroup_hierarchy=1"),
        (
            {"lsms": ("lockdown", "capability", "apparmor")},
            "bpf is not among the active Linux Security Modules (lockdown,capability,apparmor). "
            "Boot with lsm=lockdown,apparmor,bpf on the kernel command line",
        ),
        (
            {"lsms": ()},
            "bpf is not among the active Linux Security Modules (the list cannot be read). "
            "Mount securityfs at /sys/kernel/security and run again",
        ),
    ],
)
def test_what_a_host_lacks_is_told_with_the_remedy(kernel, change, message):
    kernel.found = GOOD._replace(**change)
    with pytest.raises(EnforcerError) as refused:
        enforcer.ensure(kernel, OLD)
    assert str(refused.value) == message
    assert kernel.calls == []
    assert enforcer.ensure(kernel, OLD, check=True)["warnings"] == [message]


def test_all_that_a_host_lacks_is_told_at_once(kernel):
    kernel.found = GOOD._replace(root=False, bpffs=False)
    with pytest.raises(EnforcerError) as refused:
        enforcer.ensure(kernel, OLD)
    assert refused.value.message == (
        "this host cannot be guarded yet: not running as root; no bpf filesystem is mounted at /sys/fs/bpf"
    )


def test_an_object_of_another_layout_is_refused(kernel):
    kernel.object.inner["states"] = kernel.object.inner["states"]._replace(value_size=layout.STATE.size + 8)
    with pytest.raises(EnforcerError) as refused:
        enforcer.ensure(kernel, OLD)
    assert str(refused.value) == (
        "the object is built for another layout: "
        f"map entries of states is type 2, key 4, value {layout.STATE.size + 8}, entries 1, flags 0x1000, expected type 2, key 4, value {layout.STATE.size}, "
        "entries 1, flags 0x1000. Install the package and the object of one release"
    )
    assert kernel.calls == []


def test_an_object_without_a_map_is_refused(kernel):
    del kernel.object.maps["facts"]
    with pytest.raises(EnforcerError, match="it has no map facts"):
        enforcer.ensure(kernel, OLD)


def test_an_enforcer_of_another_layout_is_left_alone(kernel):
    kernel.folders |= {"/bpf/exfil_guard", "/bpf/exfil_guard/v2"}
    with pytest.raises(EnforcerError, match="an enforcer of another layout is in place: v2"):
        enforcer.ensure(kernel, OLD)


@pytest.mark.parametrize("step", range(0, 40))
def test_killed_while_loading_is_mended_by_the_next_run(kernel, step):
    kernel.kill_at = step
    with contextlib.suppress(Killed):
        enforcer.ensure(kernel, OLD)
    kernel.revive()
    enforcer.ensure(kernel, OLD)
    assert whole(kernel)


def test_a_lost_pin_is_pinned_again_with_what_was_in_the_map(kernel):
    enforcer.ensure(kernel, OLD)
    fd = kernel.get("/bpf/exfil_guard/v1/maps/counters")
    kernel.update(fd, bytes(8), b"\5" * 16)
    kernel.close(fd)
    kernel.unlink("/bpf/exfil_guard/v1/maps/counters")
    kernel.unlink(f"/bpf/exfil_guard/v1/programs-{enforcer.version_of(OLD)}/file_open")
    with pytest.raises(EnforcerError, match="the enforcer is incomplete: no pin for the maps counters. Run the role"):
        enforcer.installed(kernel)
    result = enforcer.ensure(kernel, OLD)
    assert result["diff"]["prepared"] == (
        "+ program file_open (its pin was missing)\n+ map counters (its pin was missing)\n"
    )
    assert whole(kernel)
    fd = kernel.get("/bpf/exfil_guard/v1/maps/counters")
    assert kernel.read_all(fd) == {bytes(8): b"\5" * 16}


def test_another_program_in_the_place_of_ours_goes(kernel):
    enforcer.ensure(kernel, OLD)
    path = f"/bpf/exfil_guard/v1/programs-{enforcer.version_of(OLD)}/file_open"
    assert enforcer.foreign_programs(kernel, enforcer.version_of(OLD)) == []
    kernel.pins[path] = _Program(9001, "file_open", ())
    assert enforcer.foreign_programs(kernel, enforcer.version_of(OLD)) == ["file_open"]
    planned = enforcer.ensure(kernel, OLD, check=True)
    assert planned["diff"]["prepared"] == "~ program file_open (another was pinned in its place)\n"
    assert enforcer.ensure(kernel, OLD)["diff"] == planned["diff"]
    assert kernel.pins[path].number != 9001 and whole(kernel)
    assert not enforcer.ensure(kernel, OLD)["changed"]


def test_a_program_for_another_kernel_is_not_missed(kernel):
    enforcer.ensure(kernel, OLD)
    assert not enforcer.ensure(kernel, OLD)["changed"]
    kernel.unlink(f"/bpf/exfil_guard/v1/programs-{enforcer.version_of(OLD)}/inode_setattr")
    result = enforcer.ensure(kernel, OLD)
    assert result["diff"]["prepared"] == "+ program inode_setattr (its pin was missing)\n"
    assert whole(kernel)


def old_in_force(kernel):
    enforcer.ensure(kernel, OLD)
    hooks = ["task_alloc", "bprm_committed_creds", "cred_free", "file_open"]
    links.attach(kernel, enforcer.version_of(OLD), hooks)
    return sorted(hooks)


def test_an_upgrade_takes_the_hooks_over_before_it_lets_go(kernel):
    hooks = old_in_force(kernel)
    kernel.calls.clear()
    result = enforcer.ensure(kernel, NEW)
    assert kernel.attached() == hooks and whole(kernel, NEW)
    old, new = enforcer.version_of(OLD), enforcer.version_of(NEW)
    assert result["diff"]["prepared"].splitlines() == (
        ["+ enforcer " + new] + [f"~ hook {hook}: from {old} to {new}" for hook in hooks] + ["- enforcer " + old]
    )


@pytest.mark.parametrize("step", range(0, 45))
def test_an_upgrade_killed_anywhere_leaves_every_hook_attached(kernel, step):
    hooks = old_in_force(kernel)
    kernel.revive()
    kernel.kill_at = step
    with contextlib.suppress(Killed):
        enforcer.ensure(kernel, NEW)
    assert set(kernel.attached()) == set(hooks)
    kernel.revive()
    enforcer.ensure(kernel, NEW)
    assert kernel.attached() == hooks and whole(kernel, NEW)


def test_a_storage_of_another_size_is_made_anew(kernel):
    old_in_force(kernel)
    kernel.object.maps["tasks"] = MapSpec(29, 4, 240, 0, 1)
    enforcer.ensure(kernel, NEW)
    fd = kernel.get("/bpf/exfil_guard/v1/maps/tasks")
    assert kernel.map_info(fd).spec.value_size == 240
    assert whole(kernel, NEW)


def test_removed_without_trace(kernel):
    old_in_force(kernel)
    assert enforcer.remove(kernel, check=True)["changed"] and kernel.pins
    assert enforcer.remove(kernel)["changed"]
    assert kernel.pins == {} and kernel.folders == {"/bpf"} and kernel.open_descriptors() == 0
    kernel.calls.clear()
    assert not enforcer.remove(kernel)["changed"] and kernel.calls == []


@pytest.mark.parametrize("step", range(0, 45, 4))
def test_a_removal_killed_anywhere_is_finished_by_the_next(kernel, step):
    old_in_force(kernel)
    kernel.revive()
    kernel.kill_at = step
    with contextlib.suppress(Killed):
        enforcer.remove(kernel)
    kernel.revive()
    enforcer.remove(kernel)
    assert kernel.pins == {} and kernel.folders == {"/bpf"}
