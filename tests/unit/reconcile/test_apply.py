# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy applied, confirmed, rolled back and removed, against the kernel in memory: what is in force after each
step, after being killed at each step, and after somebody meddled."""

import contextlib
import datetime
import errno
import os
import struct

import fake_package
import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import programs
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError, PolicyErrors
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import lock
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.paths import Paths
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.store import Store
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.system import System
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import (
    generations,
    links,
    mapspecs,
    pins,
    running,
)
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.generations import SECOND
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import apply, confirm, enforcer
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle.context import Context, Options
from fake_kernel import GOOD, FakeKernel, Killed

NOW = datetime.date(2026, 6, 1)
OBJECT = b"object"
VERSION = enforcer.version_of(OBJECT)
IDENTITY = ["bprm_committed_creds", "cred_free", "task_alloc"]
NETWORK_HOOKS = sorted(IDENTITY + list(programs.of_action("connect")) + list(programs.BUILT_IN))


def document(*rules):
    return {
        "policy": 1,
        "mode": "enforce",
        "boot": "best-effort",
        "subjects": {},
        "resources": {},
        "assertions": [],
        "destinations": {
            "corp": {"cidrs": ["10.0.0.0/8"]},
            "lab": {"cidrs": ["192.168.0.0/16"]},
            "loopback": {"cidrs": ["127.0.0.0/8"]},
        },
        "rules": sorted(rules, key=lambda rule: rule["name"]),
    }


def rule(name, destination, deny=("connect",)):
    return {"name": name, "deny": list(deny), "destinations": {"not": [destination, "loopback"]}}


CORP = document(rule("corp only", "corp"))
BOTH = document(rule("corp only", "corp"), rule("lab only", "lab"))
LAB = document(rule("lab only", "lab", deny=("send",)))


class Host:
    """One guarded host: what the modules would call."""

    def __init__(self, folder):
        self.kernel = FakeKernel()
        library = fake_package.install(folder / "library", OBJECT, fake_package.proved(self.kernel, OBJECT))
        self.store = Store(str(folder / "state"), library)
        self.options = {"lock_path": str(folder / "lock")}
        self.folder = str(folder / "canary")
        self.system = System()

    def context(self, now=NOW, **options):
        paths = Paths(canary=self.folder, lock=self.options["lock_path"])
        return Context(self.kernel, self.system, self.store, now, Options(paths=paths, **options))

    def apply(self, wanted, **options):
        return apply.apply(self.context(**options), wanted)

    def put(self, wanted):
        """Applied and confirmed."""
        result = self.apply(wanted)
        confirm.confirm(self.kernel, self.store, result["generation"], **self.options)
        self.kernel.revive()
        return result["generation"]

    def live(self):
        return generations.read(self.kernel)

    def ids(self):
        return generations.rule_ids(self.live().tables)

    def writes(self):
        return self.kernel.calls

    def quiet(self, wanted):
        """Nothing is left to do."""
        self.kernel.revive()
        result = self.apply(wanted)
        assert (result["changed"], result["confirm_needed"], result["diff"]["prepared"]) == (False, False, "")
        assert self.writes() == [] and self.kernel.open_descriptors() == 0
        return True


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    enforcer.ensure(host.kernel, OBJECT)
    host.kernel.revive()
    return host


# ---- the plain way ------------------------------------------------------------------------------------------------


def test_applied_confirmed_and_then_quiet(host):
    result = host.apply(CORP)
    assert result["changed"] and result["confirm_needed"] and result["generation"] == 1
    assert result["deadline_seconds"] == 60 and result["hooks"] == NETWORK_HOOKS
    assert result["rules"] == {"added": 1, "removed": 0, "changed": 0}
    assert result["digest_before"] is None and len(result["digest_after"]) == 64
    live = host.live()
    assert live.pending and live.record.deadline == host.kernel.now + 60 * SECOND
    assert host.kernel.attached() == NETWORK_HOOKS and not host.store.load(1).confirmed
    assert confirm.confirm(host.kernel, host.store, 1, **host.options)["changed"]
    assert host.live().record.deadline == 0 and host.store.last_confirmed().generation == 1
    assert host.quiet(CORP)
    assert not confirm.confirm(host.kernel, host.store, 1, **host.options)["changed"]


def test_one_program_at_a_time_looks_after_opens(host):
    files = dict(
        CORP, resources={"etc": {"paths": ["/etc/**"]}}, rules=[{"name": "etc", "deny": ["read"], "resources": ["etc"]}]
    )
    host.put(CORP)
    assert "file_open__tamper" in host.kernel.attached() and "file_open" not in host.kernel.attached()
    trial = host.apply(files)["generation"]
    assert {"file_open__tamper", "file_open"} <= set(host.kernel.attached())  # the fallback has to be whole
    confirm.confirm(host.kernel, host.store, trial, **host.options)
    assert "file_open__tamper" not in host.kernel.attached() and "file_open" in host.kernel.attached()
    host.put(CORP)
    assert "file_open__tamper" in host.kernel.attached() and "file_open" not in host.kernel.attached()


def test_what_is_enforced_is_told(host):
    audited = document(
        dict(rule("corp only", "corp"), mode="audit"),
        rule("lab only", "lab", deny=("send", "connect")),
        dict(rule("gone", "lab"), expires="2026-06-01"),
    )
    for check in (True, False, True, False):
        result = host.apply(audited, check=check)
        assert (result["enforced"], result["unenforced"]) == ({"lab only": ["connect", "send"]}, [])


@pytest.mark.parametrize(
    "lsms, lines",
    [
        (GOOD.lsms, ["lab only: send (hook socket_accept not in this kernel)"]),
        (("capability",), ["every rule: bpf is not among the active Linux Security Modules"]),
    ],
)
def test_what_a_kernel_could_not_enforce_is_told_before_anything_is_installed(tmp_path, lsms, lines):
    host = Host(tmp_path)
    host.kernel.found = GOOD._replace(lsms=lsms)
    host.kernel.object = host.kernel.object._replace(
        programs=tuple(each for each in host.kernel.object.programs if each != "socket_accept")
    )
    result = host.apply(document(rule("lab only", "lab", deny=("send", "connect"))), check=True)
    assert result["unenforced"] == lines and result["changed"]
    assert result["enforced"] == {"lab only": ["connect"] if "bpf" in lsms else []}
    assert host.writes() == []


def test_listeners_from_before_are_known_before_anything_asks_for_them(host):
    host.kernel.listening = frozenset({22, 65535})
    order = []
    attach, ports = host.kernel.attach, host.kernel.listening_ports
    host.kernel.attach = lambda program: order.append(host.kernel.program_info(program).name) or attach(program)
    host.kernel.listening_ports = lambda: order.append("ports") or ports()
    host.put(LAB)
    assert set(order[len(links.IDENTITY_HOOKS) : order.index("ports")]) == set(links.DIRECTION_HOOKS)
    assert order.index("ports") < order.index("socket_sendmsg")
    with pins.opened(host.kernel, pins.map_path(host.kernel, "listeners")) as fd:
        words = {key: value for key, value in host.kernel.read_all(fd).items() if any(value)}
    assert words == {
        struct.pack("=I", 0): struct.pack("=Q", 1 << 22),
        struct.pack("=I", 1023): struct.pack("=Q", 1 << 63),
    }
    assert host.quiet(LAB)


def test_before_sendpage_went_sending_is_decided_at_files_too(host):
    assert "file_permission" in host.apply(LAB, check=True)["hooks"]
    host.kernel.found = GOOD._replace(release="6.12.1")
    assert "file_permission" not in host.apply(LAB, check=True)["hooks"]


def test_every_inner_map_is_frozen(host):
    host.put(CORP)
    for name in [*list(mapspecs.TABLES), "control"]:
        outer = host.kernel.pins[pins.map_path(host.kernel, name)]
        assert outer.inner and all(inner.frozen for inner in outer.inner.values())


def test_check_mode_changes_nothing_and_says_the_same(host, tmp_path):
    host.put(CORP)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    would = host.apply(BOTH, check=True)
    assert host.writes() == [] and sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert host.apply(BOTH) == would


def test_confirmed_at_once_without_a_window(host):
    result = host.apply(CORP, confirm_seconds=0)
    assert result["changed"] and not result["confirm_needed"]
    assert host.live().record.deadline == 0 and host.store.load(1).confirmed
    assert host.quiet(CORP)


def test_hooks_of_both_generations_until_confirmed(host):
    host.put(CORP)
    result = host.apply(LAB)
    assert "socket_connect" in host.kernel.attached() and "socket_sendmsg" in host.kernel.attached()
    confirm.confirm(host.kernel, host.store, result["generation"], **host.options)
    assert host.kernel.attached() == sorted(result["hooks"])
    assert host.quiet(LAB)


def test_three_slots_are_enough_for_ever(host):
    for wanted in (CORP, BOTH, LAB) * 3:
        before = host.live()
        host.put(wanted)
        after = host.live()
        assert after.slot != before.slot and after.record.fallback_slot == before.slot
        assert after.generation == before.generation + 1


def test_start_of_recording_is_noted_after_the_identity_hooks(host):
    host.kernel.now = 77 * SECOND
    host.put(CORP)
    fd = host.kernel.get(pins.map_path(host.kernel, "facts"))
    assert layout.FACTS.unpack(host.kernel.lookup(fd, bytes(4))) == (77 * SECOND, 0, 0, 0)
    assert host.kernel.attached()


READERS = dict(
    document(dict(rule("readers", "corp", deny=("send",)), subjects=["readers"])),
    subjects={"readers": {"has_read": ["programs"]}},
    resources={"programs": {"paths": ["/usr/**"]}},
)


def facts(host):
    fd = host.kernel.get(pins.map_path(host.kernel, "facts"))
    return layout.FACTS.unpack(host.kernel.lookup(fd, bytes(4)))


def cells(host):
    fd = host.kernel.get(pins.map_path(host.kernel, "cells"))
    return {
        layout.LABEL_GROUP_KEY.unpack(key): layout.LABEL_GROUP.unpack(value)
        for key, value in host.kernel.read_all(fd).items()
    }


def test_labels_are_followed_while_a_rule_asks_for_them(host):
    host.put(CORP)
    assert facts(host).labels_since == 0 and cells(host) == {}
    host.kernel.now += SECOND
    since = host.kernel.now
    host.put(READERS)
    assert set(programs.LABEL_PROGRAMS) <= set(host.kernel.attached())
    assert facts(host).labels_since == since and cells(host) == {(since, 1): (0, 2)}
    # another policy that asks for them, an upgrade, an apply on trial that is given up: nobody loses a label
    host.kernel.now += SECOND
    host.put(dict(READERS, mode="audit"))
    enforcer.ensure(host.kernel, b"another object")
    host.apply(LAB)
    confirm.rollback(host.kernel, host.store, **host.options)
    assert facts(host).labels_since == since and cells(host) == {(since, 1): (0, 2)}
    host.put(CORP)
    assert facts(host).labels_since == 0 and host.kernel.attached() == NETWORK_HOOKS
    host.kernel.now += SECOND
    host.put(READERS)
    assert facts(host).labels_since == host.kernel.now and list(cells(host)) == [(host.kernel.now, 1)]


def test_one_link_at_a_time_goes_and_only_under_the_lock(host, monkeypatch):
    """The kernel detaches a program some time after the pin of its link is gone."""
    going, gone = {}, []
    unlink, attached = host.kernel.unlink, []

    def unlink_and_linger(path):
        if "/links-" in path:
            assert not going, "another link is going"
            attached.append(lock.holder(host.options["lock_path"]))
            going[host.kernel.pins[path].number] = 3
        unlink(path)

    def exists(number):
        going[number] -= 1
        if not going[number]:
            gone.append(number)
            del going[number]
            return False
        return True

    monkeypatch.setattr(host.kernel, "unlink", unlink_and_linger)
    monkeypatch.setattr(host.kernel, "link_exists", exists)
    host.put(READERS)
    host.put(CORP)  # needs fewer hooks
    dropped = len(gone)
    assert dropped >= len(programs.LABEL_PROGRAMS)
    host.apply(READERS)
    confirm.rollback(host.kernel, host.store, **host.options)
    assert len(gone) > dropped
    dropped = len(gone)
    confirm.remove(host.kernel, host.store, **host.options)
    assert len(gone) > dropped and host.kernel.attached() == [] and all(attached)
    host.put(CORP)
    for change in (lambda: enforcer.ensure(host.kernel, b"another object"), lambda: enforcer.remove(host.kernel)):
        dropped = len(gone)
        with lock.hold("a module", host.options["lock_path"]):  # as host_api does
            change()
        assert len(gone) == dropped + len(NETWORK_HOOKS) and all(attached)


def test_a_link_that_somebody_else_holds_does_not_stop_an_apply(host, monkeypatch):
    host.put(READERS)
    monkeypatch.setattr(host.kernel, "link_exists", lambda _number: True)
    monkeypatch.setattr(links, "DETACHED_WITHIN", 0)
    host.put(CORP)
    assert host.kernel.attached() == NETWORK_HOOKS


# ---- the confirm window -------------------------------------------------------------------------------------------


def test_past_the_deadline_the_fallback_is_in_force_and_a_confirm_refused(host):
    host.put(CORP)
    corp = host.ids()
    assert host.apply(BOTH)["generation"] == 2
    assert host.ids() != corp
    host.kernel.now += 60 * SECOND
    live = host.live()
    assert live.expired and live.generation == 1 and host.ids() == corp
    with pytest.raises(EnforcerError) as refused:
        confirm.confirm(host.kernel, host.store, 2, **host.options)
    assert str(refused.value) == (
        "generation 2 was not confirmed in time: generation 1 is in force. "
        "Apply the policy again, with a longer confirm_seconds if the way here takes that "
        "long"
    )


def test_a_confirm_within_a_second_of_the_deadline_is_refused(host):
    host.apply(CORP)
    host.kernel.now += 59 * SECOND
    with pytest.raises(EnforcerError, match="generation 1 was not confirmed in time: no policy is in force"):
        confirm.confirm(host.kernel, host.store, 1, **host.options)
    host.kernel.now -= 1
    assert confirm.confirm(host.kernel, host.store, 1, **host.options)["changed"]


def test_a_confirm_of_another_generation_is_refused(host):
    host.apply(CORP)
    with pytest.raises(EnforcerError) as refused:
        confirm.confirm(host.kernel, host.store, 7, **host.options)
    assert str(refused.value) == (
        "generation 7 is not the one on trial: that is 1. "
        "Apply the policy again and confirm the generation that this gives"
    )


def test_after_an_expiry_the_old_policy_is_settled_once(host):
    host.put(CORP)
    host.apply(LAB)
    host.kernel.now += 61 * SECOND
    result = host.apply(CORP)
    assert result["changed"] and not result["confirm_needed"] and result["generation"] == 1
    assert "! generation 2 was not confirmed in time: generation 1 is in force again" in result["diff"]["prepared"]
    assert host.quiet(CORP) and host.kernel.attached() == NETWORK_HOOKS
    assert host.put(LAB) == 3


def test_while_one_is_on_trial_the_next_falls_back_to_the_confirmed_one(host):
    host.put(CORP)
    host.apply(BOTH)
    host.apply(LAB)
    live = host.live()
    assert live.generation == 3 and live.fallback_target[0] == 1
    host.kernel.now += 61 * SECOND
    assert host.live().generation == 1


def test_applied_again_while_on_trial_the_window_starts_again(host):
    host.apply(CORP)
    host.kernel.now += 50 * SECOND
    result = host.apply(CORP)
    assert result["changed"] and result["confirm_needed"] and result["generation"] == 1
    assert host.live().record.deadline == host.kernel.now + 60 * SECOND


# ---- killed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confirm_seconds", [60, 0])
def test_killed_at_any_step_one_whole_generation_is_in_force_and_the_next_run_mends(tmp_path, confirm_seconds):
    step = 0
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        host = Host(folder)
        enforcer.ensure(host.kernel, OBJECT)
        host.put(CORP)
        old = host.live().tables
        host.kernel.kill_at = step
        try:
            result = host.apply(BOTH, confirm_seconds=confirm_seconds)
            finished = True
        except Killed:
            finished = False
        host.kernel.revive()
        live = host.live()
        assert live.generation in (1, 2)
        published = live.generation == 2
        if not published:
            assert live.tables == old  # bit for bit
        else:
            assert len(generations.rule_ids(live.tables)) == 3  # two rules and the canary
        assert set(NETWORK_HOOKS) <= set(host.kernel.attached())
        host.kernel.now += 61 * SECOND
        if confirm_seconds:
            assert host.live().generation == 1 and host.live().tables == old
        host.put(BOTH) if host.apply(BOTH, check=True)["changed"] else None
        assert host.quiet(BOTH)
        if finished:
            assert result["changed"] and step > 30
            break
        step += 1


def test_a_confirm_killed_at_any_step_is_mended(tmp_path):
    for step in range(12):
        folder = tmp_path / str(step)
        folder.mkdir()
        host = Host(folder)
        enforcer.ensure(host.kernel, OBJECT)
        host.put(CORP)
        number = host.apply(LAB)["generation"]
        host.kernel.revive()
        host.kernel.kill_at = step
        with contextlib.suppress(Killed):
            confirm.confirm(host.kernel, host.store, number, **host.options)
        host.kernel.revive()
        assert host.live().generation == number
        result = host.apply(LAB)
        if result["confirm_needed"]:
            confirm.confirm(host.kernel, host.store, number, **host.options)
        assert host.quiet(LAB) and host.store.last_confirmed().generation == number


@pytest.mark.parametrize("method", ["create_map", "update_all", "update", "freeze", "attach", "pin"])
def test_refused_by_the_kernel_the_old_generation_stays(host, method):
    host.put(CORP)
    old = host.live()
    host.kernel.unlink(pins.links_path(host.kernel, VERSION) + "/socket_sendmsg")
    host.kernel.refuse(method, errno.ENOMEM)
    with pytest.raises(EnforcerError) as refused:
        host.apply(BOTH)
    assert str(refused.value) == (
        f"the kernel refuses: Cannot allocate memory ({method}); the old policy is in force. "
        "Free some memory and run again"
    )
    assert host.live() == old
    host.kernel.refusals.clear()
    host.put(BOTH)
    assert host.quiet(BOTH)


def test_a_disk_that_is_full_leaves_the_old_generation(host, monkeypatch):
    host.put(CORP)
    old = host.live()

    def full(_unused):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnforcerError, match="No space left on device. Free some space there and run again"):
        host.apply(BOTH)
    assert host.live() == old and host.writes() == []


# ---- the canary ---------------------------------------------------------------------------------------------------


def test_programs_that_never_run_are_found_out_and_the_old_record_put_back(host):
    host.put(CORP)
    old = host.live()
    host.kernel.runs = False
    with pytest.raises(EnforcerError) as refused:
        host.apply(BOTH)
    assert str(refused.value) == (
        "the canary was not denied: connecting to 192.0.2.1 passed; the programs are attached and do not run: nothing is "
        "denied. Look for what stopped them at `dmesg` and in docs/kernel-switches.md"
    )
    assert host.live() == old and host.kernel.attached() == NETWORK_HOOKS
    host.kernel.runs = True
    assert host.apply(BOTH)["generation"] == 3  # 2 has been seen by the programs


def readers(**more):
    """Whoever has read the customers' data may not even talk to the host itself."""
    return dict(
        document({"name": "readers", "deny": ["connect"], "subjects": ["reader"], "destinations": {"not": []}, **more}),
        subjects={"reader": {"has_read": ["customers"]}},
        resources={"customers": {"optional": True, "paths": ["/srv/customers/**"]}},
    )


NOT_SEEN = (
    "the canary's allowed address is denied by the policy to whoever has read what this session has read: nothing "
    "was seen to pass"
)


def test_a_session_that_has_read_what_a_rule_asks_for_applies_all_the_same(host):
    assert not host.apply(readers())["warnings"]  # it has read nothing
    host.kernel.labelled = {"127.0.0.1"}
    assert host.apply(readers(deny=["connect", "send"]))["warnings"] == [NOT_SEEN]


def test_what_no_label_explains_is_found_out(host):
    host.kernel.labelled = {"127.0.0.1"}
    for wanted in (CORP, readers(mode="audit"), readers(destinations={"not": ["loopback"]})):
        with pytest.raises(EnforcerError, match="the canary was denied what must pass: connecting to 127.0.0.1"):
            host.apply(wanted)


def test_a_first_policy_that_does_not_work_leaves_none(host):
    host.kernel.runs = False
    with pytest.raises(EnforcerError):
        host.apply(CORP)
    assert host.live().generation == 0 and host.kernel.attached() == []
    host.kernel.runs = True
    assert host.put(CORP) == 2


def test_a_denial_by_self_protection_shows_that_the_programs_run(host, monkeypatch):
    """A policy that binds whoever applies it stays on trial, and the kernel goes back by itself."""
    host.put(CORP)
    host.kernel.runs = False
    assert running.stopped(host.kernel, True)
    monkeypatch.setattr(host.kernel, "get", denied)
    assert running.stopped(host.kernel, True) is None


def denied(path, readonly=False):
    raise OSError(errno.EPERM, "Operation not permitted", "open " + path)


# ---- drift --------------------------------------------------------------------------------------------------------


def test_programs_that_have_stopped_are_drift(host):
    host.put(CORP)
    host.kernel.runs = False
    found = host.apply(CORP)
    assert not found["changed"]
    assert found["drift"] == [
        "the programs are attached and do not run: nothing is denied. "
        "Look for what stopped them at `dmesg` and in docs/kernel-switches.md"
    ]
    host.kernel.runs = True
    host.kernel.found = host.kernel.found._replace(ftrace=False)
    assert host.apply(CORP)["drift"][0].startswith("kernel.ftrace_enabled is 0")


def test_a_deleted_inner_map_is_drift(host):
    host.put(CORP)
    fd = host.kernel.get(pins.map_path(host.kernel, "ipv4"))
    host.kernel.delete(fd, struct.pack("=I", host.live().slot))
    result = host.apply(CORP)
    assert result["changed"] and result["generation"] == 2
    assert "! table ipv4 of generation 1 was changed from outside" in result["diff"]["prepared"]
    confirm.confirm(host.kernel, host.store, 2, **host.options)
    assert host.quiet(CORP)


def test_an_exchanged_inner_map_is_drift(host):
    host.put(CORP)
    outer = host.kernel.pins[pins.map_path(host.kernel, "destinations")]
    inner = outer.inner[struct.pack("=I", host.live().slot)]
    key = sorted(inner.entries)[0]
    inner.entries[key] = bytes(len(inner.entries[key]) - 1) + b"\1"
    result = host.apply(CORP)
    assert "! table destinations of generation 1 was changed from outside: 1 entries" in result["diff"]["prepared"]
    confirm.confirm(host.kernel, host.store, 2, **host.options)
    assert host.quiet(CORP)


def test_a_deleted_link_is_attached_again(host):
    host.put(CORP)
    host.kernel.unlink(pins.links_path(host.kernel, VERSION) + "/socket_connect")
    would = host.apply(CORP, check=True)
    assert host.kernel.attached() != NETWORK_HOOKS
    result = host.apply(CORP)
    assert result == would and result["changed"] and result["generation"] == 1 and not result["confirm_needed"]
    assert result["diff"]["prepared"] == "+ hook socket_connect (it was not attached)\n"
    assert host.kernel.attached() == NETWORK_HOOKS and host.quiet(CORP)


def test_a_deleted_document_is_written_again(host):
    host.put(CORP)
    host.store.clear()
    result = host.apply(CORP)
    assert result["diff"]["prepared"] == "+ document of generation 1 (it was missing)\n" and result["changed"]
    assert host.store.last_confirmed().generation == 1 and host.quiet(CORP)


def test_missing_counters_are_made_again_and_others_keep_counting(host):
    host.put(BOTH)
    fd = host.kernel.get(pins.map_path(host.kernel, "counters"))
    first, second = host.ids()[:2]
    host.kernel.delete(fd, first)
    host.kernel.update(fd, second, b"\3" * 16)
    assert host.apply(BOTH)["diff"]["prepared"] == "+ counters of 1 rules (they were missing)\n"
    fd = host.kernel.get(pins.map_path(host.kernel, "counters"))
    counts = host.kernel.read_all(fd)
    assert counts[first] == bytes(16) and counts[second] == b"\3" * 16
    host.kernel.close(fd)
    assert host.quiet(BOTH)


def test_the_same_meaning_in_other_words_only_updates_the_document(host):
    host.put(CORP)
    other = document(rule("corp only", "corp"))
    other["boot"] = "require"
    result = host.apply(other)
    assert result["changed"] and result["generation"] == 1 and not result["confirm_needed"]
    assert host.store.load(1).document["boot"] == "require" and host.quiet(other)


# ---- rollback and remove ------------------------------------------------------------------------------------------


def test_rolled_back_once(host):
    host.put(CORP)
    host.put(LAB)
    result = confirm.rollback(host.kernel, host.store, **host.options)
    assert (result["changed"], result["generation"], result["abandoned"]) == (True, 1, 2)
    assert host.live().generation == 1 and host.kernel.attached() == NETWORK_HOOKS
    assert host.store.last_confirmed().generation == 1
    with pytest.raises(EnforcerError, match="there is no generation to go back to"):
        confirm.rollback(host.kernel, host.store, **host.options)
    assert host.quiet(CORP)
    host.store.clear()
    assert host.put(LAB) == 3  # 2 has been in force


def test_a_rollback_killed_at_any_step_is_mended(tmp_path):
    for step in range(10):
        folder = tmp_path / str(step)
        folder.mkdir()
        host = Host(folder)
        enforcer.ensure(host.kernel, OBJECT)
        host.put(CORP)
        host.put(LAB)
        host.kernel.kill_at = step
        with contextlib.suppress(Killed):
            confirm.rollback(host.kernel, host.store, **host.options)
        host.kernel.revive()
        assert host.live().generation in (1, 2)
        wanted = CORP if host.live().generation == 1 else LAB
        host.apply(wanted)
        assert host.quiet(wanted)
        assert host.store.last_confirmed().generation == host.live().generation


def test_a_first_policy_rolled_back_leaves_none(host):
    host.apply(CORP)
    confirm.rollback(host.kernel, host.store, **host.options)
    assert host.live().generation == 0 and host.kernel.attached() == []


def test_removed_and_then_quiet(host):
    host.put(CORP)
    would = confirm.remove(host.kernel, host.store, check=True, **host.options)
    assert host.writes() == []
    assert confirm.remove(host.kernel, host.store, **host.options) == would
    assert host.live().generation == 0 and host.kernel.attached() == [] and host.store.numbers() == []
    for name in mapspecs.TABLES:
        assert host.kernel.pins[pins.map_path(host.kernel, name)].inner == {}
    host.kernel.revive()
    assert not confirm.remove(host.kernel, host.store, **host.options)["changed"] and host.writes() == []
    assert host.put(CORP) == 2


# ---- refused ------------------------------------------------------------------------------------------------------


def test_without_an_enforcer(tmp_path):
    host = Host(tmp_path)
    with pytest.raises(PolicyErrors) as refused:
        host.apply(CORP)
    assert str(refused.value) == "host: enforcer not installed. run role exfil.guard.enforcer"
    host.kernel.found = GOOD._replace(lsms=("capability", "yama"))
    result = host.apply(CORP, check=True)
    assert result["changed"] and result["rules"]["added"] == 1 and host.writes() == []
    assert result["warnings"] == [
        "the enforcer is not installed yet: run without check mode installs it first",
        "bpf is not among the active Linux Security Modules (capability,yama). "
        "Boot with lsm=yama,bpf on the kernel command line",
    ]


@pytest.mark.parametrize("lacks", ["", "inode_set_acl"])
def test_check_mode_before_the_enforcer_is_there_tells_what_a_run_does(tmp_path, lacks):
    host = Host(tmp_path)
    here = tuple(name for name in host.kernel.object.programs if name.partition("__")[0] != lacks)
    host.kernel.object = host.kernel.object._replace(programs=here)
    would = host.apply(BOTH, check=True)
    enforcer.ensure(host.kernel, OBJECT)
    host.kernel.revive()
    did = host.apply(BOTH)
    assert would["diff"] == did["diff"] and would["hooks"] == did["hooks"]
    assert all(f"+ hook {each}\n" in did["diff"]["prepared"] for each in did["hooks"])
    assert ("inode_set_acl__tamper" in did["hooks"]) != bool(lacks)


def test_a_rule_that_this_kernel_cannot_enforce(host):
    host.put(CORP)
    old = host.live()
    host.kernel.unlink(pins.program_path(host.kernel, VERSION, "socket_sendmsg"))
    host.kernel.revive()
    with pytest.raises(PolicyErrors) as refused:
        host.apply(LAB)
    assert str(refused.value) == (
        "rule lab only: this kernel's hook socket_sendmsg is not guarded. "
        "Run role exfil.guard.enforcer on a kernel that has it, or drop the rule's action (send)"
    )
    assert host.writes() == [] and host.live() == old


def test_bpf_not_active(host):
    host.kernel.found = GOOD._replace(lsms=("capability", "yama"))
    with pytest.raises(PolicyErrors, match="bpf is not among the active Linux Security Modules .capability,yama."):
        host.apply(CORP)
    assert host.writes() == []


def test_a_half_loaded_enforcer(host):
    host.kernel.unlink(pins.map_path(host.kernel, "edges"))
    with pytest.raises(EnforcerError) as refused:
        host.apply(CORP)
    assert str(refused.value) == (
        "the enforcer is incomplete: no pin for the maps edges. Run the role exfil.guard.enforcer"
    )
