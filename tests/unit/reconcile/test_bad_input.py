# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong around a host, against the kernel in memory: controllers that die or come together, a full disk, a clock
that jumps, an enforcer of another layout. Each ends with one whole generation in force, and the next run mends the rest."""

import datetime
import errno
import itertools
import os
import time

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError, PolicyErrors
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import store
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import pins
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.bpf import Kernel
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel.generations import SECOND
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import confirm, enforcer, target
from test_apply import BOTH, CORP, LAB, OBJECT, Host


def guarded(folder):
    """CORP is in force."""
    folder.mkdir(exist_ok=True)
    host = Host(folder)
    enforcer.ensure(host.kernel, OBJECT)
    host.put(CORP)
    return host


class Controller:
    """The calls of one run, one by one: apply, and over a new connection confirm."""

    def __init__(self, host, wanted):
        self.host, self.wanted, self.result, self.said = host, wanted, None, ""
        self.left = [self.apply, self.confirm]

    def step(self):
        try:
            self.left.pop(0)()
        except EnforcerError as error:
            self.said, self.left = str(error), []

    def apply(self):
        self.result = self.host.apply(self.wanted)

    def confirm(self):
        if self.result["confirm_needed"]:
            confirm.confirm(self.host.kernel, self.host.store, self.result["generation"], **self.host.options)


def mended(host, wanted):
    host.kernel.revive()
    if host.apply(wanted, check=True)["changed"]:
        host.put(wanted)
    return host.quiet(wanted)


# ---- controllers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls, generation", [(0, 1), (1, 1), (2, 2)])
def test_a_controller_that_dies_between_its_calls(tmp_path, calls, generation):
    host = guarded(tmp_path)
    old = host.live().tables
    controller = Controller(host, BOTH)
    for _ in range(calls):
        controller.step()
    host.kernel.now += 61 * SECOND
    live = host.live()
    assert live.generation == generation and (live.tables == old) == (generation == 1)
    assert mended(host, BOTH)


@pytest.mark.parametrize("order", sorted(set(itertools.permutations("AABB"))))
@pytest.mark.parametrize("second", [BOTH, LAB], ids=["equal", "another"])
def test_two_controllers_at_once(tmp_path, order, second):
    """Push and push, or push and pull: with the same policy both end well; else whoever comes last, and the other is
    told. What was never tried over a new connection is never confirmed."""
    host = guarded(tmp_path)
    runs = {"A": Controller(host, BOTH), "B": Controller(host, second)}
    for name in order:
        if runs[name].left:
            runs[name].step()
    host.kernel.now += 61 * SECOND
    live = host.live()
    assert not live.pending
    if second is BOTH:
        assert [run.said for run in runs.values()] == ["", ""] and live.generation == 2
        assert host.quiet(BOTH)
        return
    ended_well = [name for name, run in runs.items() if not run.said]
    for run in runs.values():
        assert not run.said or "is not the one on trial: that is" in run.said
    assert (
        ended_well
        and host.store.load(live.generation).document
        == runs[max(ended_well, key=lambda name: runs[name].result["generation"])].wanted
    )
    assert mended(host, runs[order[-1]].wanted)


def test_a_confirm_without_a_number_is_of_whatever_is_on_trial(tmp_path):
    """Why the playbooks say the number: this one keeps what the other has not tried yet."""
    host = guarded(tmp_path)
    mine = Controller(host, BOTH)
    mine.step()
    other = Controller(host, LAB)
    other.step()
    mine.step()
    assert "generation 2 is not the one on trial: that is 3" in mine.said and host.live().pending
    confirm.confirm(host.kernel, host.store, None, **host.options)
    assert not host.live().pending and host.live().generation == 3


# ---- a full disk --------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_at_any_write(tmp_path, monkeypatch):
    real, at = os.fsync, 0
    while True:
        host = guarded(tmp_path / str(at))
        old = host.live()
        written = itertools.count()

        def full(fd, written=written, at=at):
            if next(written) >= at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(fd)

        monkeypatch.setattr(os, "fsync", full)
        controller = Controller(host, BOTH)
        while controller.left:
            controller.step()
        monkeypatch.setattr(os, "fsync", real)
        if not controller.said:
            break
        assert "No space left on device. Free some space there and run again" in controller.said
        host.kernel.now += 61 * SECOND
        live = host.live()
        assert live.generation in (1, 2)
        if live.generation == 1:
            assert live.tables == old.tables
        assert mended(host, BOTH)
        at += 1
    assert at > 2


# ---- the clock ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [datetime.timedelta(hours=1), datetime.timedelta(days=-30)])
def test_a_clock_that_jumps_neither_ends_nor_prolongs_a_trial(tmp_path, monkeypatch, jump):
    now, real = time.time, datetime.datetime

    class Jumped(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return real.now(tz) + jump

    host = guarded(tmp_path)
    controller = Controller(host, BOTH)
    controller.step()
    monkeypatch.setattr(time, "time", lambda: now() + jump.total_seconds())
    monkeypatch.setattr(target.datetime, "datetime", Jumped)
    host.kernel.now += 30 * SECOND
    assert host.live().pending and host.live().generation == 2
    controller.step()
    assert not controller.said and not host.live().pending
    late = Controller(host, LAB)
    late.step()
    host.kernel.now += 61 * SECOND
    late.step()
    assert "was not confirmed in time: generation 2 is in force" in late.said
    assert mended(host, LAB)


def test_deadlines_are_of_the_clock_that_nobody_sets():
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert before <= Kernel().boottime() <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


# ---- an enforcer of another layout --------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [f"v{pins.LAYOUT - 1}", f"v{pins.LAYOUT + 1}"], ids=["older", "newer"])
def test_an_enforcer_of_another_layout_is_told_and_goes_on(tmp_path, layout):
    host = guarded(tmp_path)
    kernel = host.kernel
    kernel.rename(kernel.path("exfil_guard", f"v{pins.LAYOUT}"), kernel.path("exfil_guard", layout))
    pinned, stored = dict(kernel.pins), host.store.numbers()
    kernel.revive()
    with pytest.raises(PolicyErrors, match="enforcer not installed"):
        host.apply(BOTH)  # upon which role enforcer runs, and says:
    with pytest.raises(EnforcerError) as refused:
        enforcer.ensure(kernel, OBJECT)
    assert str(refused.value) == (
        f"an enforcer of another layout is in place: {layout}. Remove it with the release that "
        "installed it (state: absent)"
    )
    assert kernel.calls == [] and kernel.pins == pinned and host.store.numbers() == stored
    assert set(kernel.attached()) > {"task_alloc"}
    # as the message says; the documents stay for the release that follows
    enforcer.remove(kernel, store.Store(str(tmp_path / "elsewhere")))
    enforcer.ensure(kernel, OBJECT)
    assert mended(host, BOTH)
