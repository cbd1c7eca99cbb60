# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever happens to a file of ours, to a write or to the power: a boot puts the old or the new generation in force,
complete, and the next run repairs the rest. A run ends with one line, never with a traceback, and never waits.

EXFIL_GUARD_FAULTS=all tries every fault; otherwise every STRIDE-th is tried."""

from __future__ import annotations

import dataclasses
import datetime
import errno
import json
import os
import shutil
from pathlib import Path

import fake_package
import faults
import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import cli, host_api
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import tables
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError, PolicyErrors
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.paths import Paths
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.store import Store
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import generations
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import apply, boot, confirm, enforcer
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle.context import Context, Options
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import encoding
from fake_kernel import FakeKernel
from test_apply import BOTH, CORP, NOW, OBJECT, System

ALL = os.environ.get("EXFIL_GUARD_FAULTS") == "all"
STRIDE = 1 if ALL else 7
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
DOCUMENTS = ("state/generations/1.json", "state/generations/2.json")
FILES = (*DOCUMENTS, "state/certificate.json", "library/PACKAGE", "library/proved.json", "guard.bpf.o")


class Host:
    """A host in the directory ``folder``, with a new kernel: it has just been booted."""

    def __init__(self, folder: Path) -> None:
        self.kernel, self.system, self.folder = FakeKernel(), System(), folder
        self.store = Store(str(folder / "state"), str(folder / "library"))
        self.paths = Paths(str(folder / "canary"), str(folder / "lock"), str(folder / "guard.bpf.o"))

    def api(self) -> host_api.Host:
        return host_api.Host(self.kernel, self.system, self.store, NOW, self.paths)

    def context(self, **options) -> Context:
        return Context(self.kernel, self.system, self.store, NOW, Options(paths=self.paths, **options))

    def apply(self, document, seconds=0):
        enforcer.ensure(self.kernel, OBJECT)
        return apply.apply(self.context(confirm_seconds=seconds), document)

    def command(self, capsys, *arguments) -> int:
        capsys.readouterr()
        code = cli.main(list(arguments), self.api())
        output = capsys.readouterr()
        lines = (output.out + output.err).splitlines()
        assert len(lines) == 1 and "Traceback" not in lines[0] and "error in exfil.guard itself" not in lines[0], lines
        return code

    def in_force(self) -> int:
        """The generation in force. Its tables are those of its document."""
        if not enforcer.installed(self.kernel):
            return 0
        live = generations.read(self.kernel)
        if live.generation:
            stored = self.store.load(live.generation)
            assert stored is not None
            image = tables.compile_policy(encoding.from_json(stored.resolved), NOW)
            rules = {name for name in generations.rule_ids(live.tables) if "canary" not in str(name)}
            wanted = {name for name in generations.rule_ids(image.tables) if "canary" not in str(name)}
            assert len(rules) >= len(wanted)
        return live.generation

    def repaired(self, document) -> None:
        """The next run of the roles repairs everything."""
        if not (self.folder / "guard.bpf.o").is_file() or (self.folder / "guard.bpf.o").read_bytes() != OBJECT:
            remove(self.folder / "guard.bpf.o")
            (self.folder / "guard.bpf.o").write_bytes(OBJECT)  # by the role enforcer
        shutil.rmtree(self.folder / "library", ignore_errors=True)
        fake_package.install(self.folder / "library", OBJECT, fake_package.proved(self.kernel, OBJECT))
        self.apply(document)
        self.kernel.revive()
        again = self.apply(document)
        assert not again["changed"] and again["drift"] == [] and not again["pending"], again["diff"]
        assert self.store.last_confirmed() is not None and self.store.certificate() is not None
        assert self.store.last_confirmed().generation == generations.read(self.kernel).generation


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A host with two confirmed generations: CORP and BOTH."""
    host = Host(tmp_path_factory.mktemp("template"))
    (host.folder / "guard.bpf.o").write_bytes(OBJECT)
    fake_package.install(host.folder / "library", OBJECT, fake_package.proved(host.kernel, OBJECT))
    host.apply(CORP)
    host.apply(BOTH)
    assert host.store.numbers() == [1, 2]
    return host.folder


@pytest.fixture
def booted(template, tmp_path):
    """Gives copies of the host, each just booted."""

    def copy(name: str) -> Host:
        folder = tmp_path / name
        shutil.copytree(template, folder)
        listed = folder / "library" / "PACKAGE"
        listed.write_text(listed.read_text().replace(str(template), str(folder)))
        return Host(folder)

    return copy


def test_a_damaged_file_leaves_the_old_or_the_new_generation(template, booted, capsys):
    cases = [(name, what) for name in FILES for what in faults.damages(template / name)]
    tried = 0
    for number, (name, what) in enumerate(cases):
        if number % STRIDE and what not in ("pipe", "cut at 0", "owner", "directory"):
            continue
        host = booted(f"damage-{number}")
        path = host.folder / name
        faults.damages(path)[what](path)
        code = host.command(capsys, "boot")
        expected = 1 if name == DOCUMENTS[1] else 2
        if name == "guard.bpf.o" and not path.is_file():
            expected = 0  # nothing can be loaded, and nothing waits for it
        assert code == 0 and host.in_force() == expected, (name, what)
        host.command(capsys, "refresh")
        assert host.in_force() == expected, (name, what)
        host.repaired(BOTH)
        tried += 1
    assert tried >= (len(cases) if ALL else 30)


def test_both_documents_damaged_is_told_and_the_next_run_repairs(template, booted, capsys):
    for what in faults.damages(template / DOCUMENTS[0]):
        if STRIDE > 1 and what not in ("pipe", "cut at 512", "one bit", "directory"):
            continue
        host = booted(what.replace(" ", "-"))
        for name in DOCUMENTS:
            path = host.folder / name
            faults.damages(path).get(what, Path.unlink)(path)
        assert host.command(capsys, "boot") == 0
        # One changed bit may leave a document that can be read. It is used, since there is no other.
        assert what == "one bit" or host.in_force() == 0
        host.repaired(BOTH)


def test_an_edited_document_is_used_if_there_is_no_other(booted, capsys):
    host = booted("edited")
    (host.folder / DOCUMENTS[1]).unlink()
    content = json.loads((host.folder / DOCUMENTS[0]).read_text())
    content["applied_at"] = "2026-01-02T00:00:00+00:00"
    (host.folder / DOCUMENTS[0]).write_text(json.dumps(content))
    assert host.api().boot().startswith("generation 1 is in force; generation 1 cannot be used: it was edited")
    host.repaired(BOTH)


ATTEMPTS = {
    "apply": lambda host: host.apply(CORP),
    "confirm": lambda host: confirm.confirm(host.kernel, host.store, None, lock_path=host.paths.lock),
    "boot": lambda host: boot.boot(host.context()),
    "refresh": lambda host: boot.refresh(host.context()),
    "rollback": lambda host: confirm.rollback(host.kernel, host.store, lock_path=host.paths.lock),
}


def ready(host: Host, what: str) -> None:
    """What comes before the attempt."""
    if what == "boot":
        return
    boot.boot(host.context())
    if what == "confirm":
        host.apply(CORP, seconds=60)
    if what == "refresh":
        stored = host.store.last_confirmed()
        host.store.save(dataclasses.replace(stored, image="another"))  # the same document means something else
    if what == "rollback":
        host.apply(CORP)
    host.kernel.revive()


def steps(booted, monkeypatch, what) -> int:
    """How many calls of the attempt write."""
    host = booted(f"{what}-counted")
    ready(host, what)
    disk = faults.Disk(host.folder)
    with disk.watched(monkeypatch):
        ATTEMPTS[what](host)
    assert disk.calls, what
    return disk.calls


def rebooted(host: Host, capsys, what, case) -> None:
    after = Host(host.folder)
    assert after.command(capsys, "boot") == 0
    assert 0 < after.in_force() == after.store.last_confirmed().generation, (what, case)
    after.repaired(BOTH)


@pytest.mark.parametrize("what", sorted(ATTEMPTS))
def test_a_write_that_fails(booted, monkeypatch, capsys, what):
    count = steps(booted, monkeypatch, what)
    for at in range(1, count + 1):
        for error in ERRORS:
            if (at * len(ERRORS) + ERRORS.index(error)) % STRIDE:
                continue
            host = booted(f"{what}-{at}-{error}")
            ready(host, what)
            before = host.in_force()
            disk = faults.Disk(host.folder)
            disk.fail(at, error)
            with disk.watched(monkeypatch):
                try:
                    ATTEMPTS[what](host)
                except (EnforcerError, PolicyErrors, OSError):
                    assert what != "boot"  # it needs no write
            if what == "boot":
                assert generations.read(host.kernel).generation == 2
            else:
                assert generations.read(host.kernel).generation in (before, 2, 3)
            rebooted(host, capsys, what, (at, error))


def killed(booted, monkeypatch, what, at):
    """A host on which the process was killed at writing call number ``at``, and its disk."""
    host = booted(f"{what}-{at}")
    ready(host, what)
    disk = faults.Disk(host.folder)
    disk.kill(at)
    with disk.watched(monkeypatch), pytest.raises(faults.Killed):
        ATTEMPTS[what](host)
    return host, disk


@pytest.mark.parametrize("what", sorted(ATTEMPTS))
def test_a_run_killed_at_a_writing_call(booted, monkeypatch, capsys, what):
    count = steps(booted, monkeypatch, what)
    for at in range(1, count + 1, max(1, STRIDE // 2)):
        host, _disk = killed(booted, monkeypatch, what, at)
        host.kernel.revive()
        if at % 2:  # the next run comes in the same boot
            host.repaired(BOTH)
        rebooted(host, capsys, what, at)


@pytest.mark.parametrize("names", [True, False], ids=["every name is written", "only what was synchronized"])
@pytest.mark.parametrize("what", ["apply", "confirm", "rollback", "refresh"])
def test_a_power_failure(booted, monkeypatch, capsys, what, names):
    count = steps(booted, monkeypatch, what)
    for at in range(1, count + 1, max(1, STRIDE // 2)):
        host, disk = killed(booted, monkeypatch, what, at)
        disk.lose_power(names=names)
        rebooted(host, capsys, what, at)


def test_a_clock_at_the_beginning_of_time(booted, monkeypatch, capsys):
    host = booted("clock")
    api = host_api.Host(host.kernel, host.system, host.store, datetime.date(1970, 1, 1), host.paths)
    assert api.boot().startswith("generation 2 is in force")
