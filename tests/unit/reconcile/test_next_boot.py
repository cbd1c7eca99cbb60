# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What decides the next boot: drift, status, verify and plan see it, a run repairs it; `boot: require` and its
drop-ins; the command on a host with damaged files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import faults
import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import cli, host_api
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import dropins, install
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.paths import Paths
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.store import Store
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import enforcer, next_boot
from ansible_collections.exfil.guard.plugins.plugin_utils import _package
from fake_kernel import FakeKernel
from test_apply import BOTH, CORP, NOW, System

REQUIRE = dict(CORP, boot="require")
UNITS = install.UNITS.lstrip("/")
LIBRARY = install.LIBRARY.lstrip("/")
LAUNCHER = "usr/sbin/exfil-guard"


class Host:
    """A host whose files are in the directory ``root``."""

    def __init__(self, root: Path) -> None:
        self.root, self.kernel = root, FakeKernel()
        self.store = Store(str(root / "var/lib/exfil-guard"), str(root / LIBRARY), str(root))
        self.object = (root / LIBRARY / "guard.bpf.o").read_bytes()
        paths = Paths(str(root / LIBRARY / "canary"), str(root / "lock"), str(root / LIBRARY / "guard.bpf.o"))
        self.api = host_api.Host(self.kernel, System(), self.store, NOW, paths)

    def apply(self, document, **options):
        enforcer.ensure(self.kernel, self.object)
        return self.api.apply(document, **{"confirm_seconds": 0, **options})

    def drop_ins(self) -> set[str]:
        return {path for path in dropins.contents() if os.path.lexists(dropins.below(str(self.root), path))}

    def damage(self) -> list[str]:
        return [line for line in self.apply(CORP, check=True)["drift"]]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / "package.zip"
    path.write_bytes(_package.build()[1])
    return install.read_package(str(path) + install.LIBRARY)


@pytest.fixture(scope="module")
def template(package, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    install.ensure(package, root=str(root), control=lambda arguments: "")
    return root


@pytest.fixture
def host(template, tmp_path, monkeypatch):
    monkeypatch.setattr(install, "systemctl", lambda arguments: "ActiveState=active\n")
    shutil.copytree(template, tmp_path / "root", symlinks=True)
    return Host(tmp_path / "root")


# ---- boot: require --------------------------------------------------------------------------------------------------


def test_nothing_waits_for_a_policy_that_does_not_require_it(host):
    host.apply(CORP)
    assert host.drop_ins() == set() and host.damage() == []


def test_drop_ins_come_and_go_with_the_policy_and_check_mode_says_so(host):
    planned = host.apply(REQUIRE, check=True)
    done = host.apply(REQUIRE)
    assert planned["diff"] == done["diff"]
    assert {f"+ {path}" for path in dropins.contents()} <= set(done["diff"]["prepared"].splitlines())
    assert host.drop_ins() == set(dropins.contents())
    assert not host.apply(REQUIRE)["changed"]
    planned = host.apply(CORP, check=True)
    assert planned["diff"] == host.apply(CORP)["diff"] and host.drop_ins() == set()
    assert f"- {install.UNITS}/sysinit.target.d/exfil-guard.conf" in planned["diff"]["prepared"]


def test_drop_ins_wait_for_the_confirmation(host):
    host.apply(CORP)
    result = host.apply(dict(BOTH, boot="require"), confirm_seconds=60)
    assert "sysinit.target.d/exfil-guard.conf (when the policy is confirmed)\n" in result["diff"]["prepared"]
    assert host.drop_ins() == set()
    host.api.confirm(None)
    assert host.drop_ins() == set(dropins.contents())
    host.apply(CORP, confirm_seconds=60)
    assert host.drop_ins() == set(dropins.contents())
    host.api.rollback()
    assert host.drop_ins() == set(dropins.contents())
    planned = host.api.remove(check=True)
    assert f"- {install.UNITS}/sysinit.target.d/exfil-guard.conf" in planned["diff"]["prepared"]
    assert host.api.remove()["diff"] == planned["diff"] and host.drop_ins() == set()


@pytest.mark.parametrize("unit", dropins.HELD_BACK)
def test_a_lost_drop_in_is_drift_and_the_next_refresh_brings_it_back(host, unit):
    host.apply(REQUIRE)
    path = f"{install.UNITS}/{unit}.d/{dropins.NAME}"
    os.unlink(dropins.below(str(host.root), path))
    assert f"the drop-in {path} is missing" in host.apply(REQUIRE, check=True)["drift"]
    assert host.api.refresh() == f"generation 1 is up to date; + {path}"
    assert host.drop_ins() == set(dropins.contents())


def test_drop_ins_of_an_earlier_release_go(host):
    host.apply(CORP)
    dropins.ensure(str(host.root), True)
    assert f"the drop-in {install.UNITS}/sysinit.target.d/{dropins.NAME} is there" in "\n".join(host.damage())
    assert host.apply(CORP)["changed"] and host.drop_ins() == set()


@pytest.mark.parametrize(
    "document, damage, code",
    [
        (REQUIRE, lambda host: None, 0),
        (REQUIRE, lambda host: shutil.rmtree(host.store.folder), 1),
        (REQUIRE, lambda host: (host.root / LIBRARY / "guard.bpf.o").unlink(), 1),
        (REQUIRE, lambda host: host.kernel.refuse("load", 1), 1),
        (REQUIRE, lambda host: (Path(host.store.folder) / "certificate.json").unlink(), 0),
        (CORP, lambda host: shutil.rmtree(host.store.folder), 0),
        (CORP, lambda host: (host.root / LIBRARY / "guard.bpf.o").unlink(), 0),
        (CORP, lambda host: host.kernel.refuse("load", 1), 0),
        (CORP, lambda host: host.kernel.refuse("environment", 5), 0),
    ],
)
def test_require_blocks_exactly_when_nothing_is_in_force(host, capsys, document, damage, code):
    host.apply(document)
    booted = Host(host.root)
    damage(booted)
    assert cli.main(["boot"], booted.api) == code
    output = capsys.readouterr()
    assert len((output.out + output.err).splitlines()) == 1 and "Traceback" not in output.err


def test_the_refresh_loads_a_policy_that_boot_could_not_load(host):
    host.apply(CORP)
    booted = Host(host.root)
    assert booted.api.refresh().startswith("generation 1 is in force")


# ---- drift ----------------------------------------------------------------------------------------------------------


def mask(unit):
    def do(host):
        path = host.root / UNITS / unit
        path.unlink()
        path.symlink_to("/dev/null")

    return do


def write(path, text="[Unit]\nConditionPathExists=/nonexistent\n"):
    def do(host):
        where = host.root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text)

    return do


def edit(path):
    def do(host):
        where = host.root / path
        where.write_bytes(where.read_bytes() + b"\n")

    return do


DAMAGE = {
    "boot unit disabled": (
        lambda host: (host.root / UNITS / "sysinit.target.wants/exfil-guard-boot.service").unlink(),
        "exfil-guard-boot.service is not enabled",
    ),
    "timer removed": (
        lambda host: (host.root / UNITS / "timers.target.wants/exfil-guard-refresh.timer").unlink(),
        "exfil-guard-refresh.timer is not enabled",
    ),
    "boot unit masked": (mask("exfil-guard-boot.service"), "exfil-guard-boot.service is not as the package has it"),
    "timer's unit deleted": (
        lambda host: (host.root / UNITS / "exfil-guard-refresh.timer").unlink(),
        "exfil-guard-refresh.timer is not as the package has it",
    ),
    "overridden": (
        write("etc/systemd/system.control/exfil-guard-boot.service"),
        "/etc/systemd/system.control/exfil-guard-boot.service changes a unit of the package",
    ),
    "drop-in": (
        write("etc/systemd/system/exfil-guard-boot.service.d/off.conf"),
        "exfil-guard-boot.service.d/off.conf changes a unit of the package",
    ),
    "drop-in by prefix": (
        write("run/systemd/system/exfil-.service.d/off.conf"),
        "/run/systemd/system/exfil-.service.d/off.conf changes a unit of the package",
    ),
    "module edited": (
        edit(LIBRARY + "/exfil_guard/lifecycle/boot.py"),
        "lifecycle/boot.py is not as the package has it",
    ),
    "module added": (write(LIBRARY + "/exfil_guard/extra.py", ""), "exfil_guard/extra.py is not as the package has it"),
    "object edited": (edit(LIBRARY + "/guard.bpf.o"), "guard.bpf.o is not as the package has it"),
    "command edited": (edit(LAUNCHER), "/usr/sbin/exfil-guard is not as the package has it"),
    "command not executable": (
        lambda host: (host.root / LAUNCHER).chmod(0o644),
        "/usr/sbin/exfil-guard is not as the package has it: mode 0755, was 0644",
    ),
    "compiled module edited": (
        lambda host: edit(
            str(next((host.root / LIBRARY / "exfil_guard/lifecycle/__pycache__").glob("boot.*")).relative_to(host.root))
        )(host),
        "is not as the package has it",
    ),
    "list of files deleted": (lambda host: (host.root / LIBRARY / "PACKAGE").unlink(), "no package is installed in"),
}


@pytest.mark.parametrize("what", sorted(DAMAGE))
def test_damage_of_what_is_installed_is_drift_and_the_role_repairs_it(host, package, what):
    host.apply(CORP)
    assert host.damage() == [] and not host.api.enforcer_problem(host.api.installation_problems())
    damage, line = DAMAGE[what]
    damage(host)
    for lines in (
        host.damage(),
        host.api._status().drift,
        [str(each) for each in host.api.verify().value["differences"]],
    ):
        assert any(line in found for found in lines), lines
    assert host.api.enforcer_problem(host.api.installation_problems())  # so the role policy runs the role enforcer
    assert install.ensure(package, root=str(host.root), control=lambda arguments: "ActiveState=active\n")
    assert host.damage() == [] and not host.api.enforcer_problem(host.api.installation_problems())


@pytest.mark.parametrize(
    "what",
    sorted(name for name in faults.damages(Path(__file__)) if name in ("cut at 0", "cut at 512") or "cut" not in name),
)
def test_a_damaged_document_is_drift_and_the_next_apply_repairs_it(host, what):
    host.apply(CORP)
    path = Path(host.store.generations_folder) / "1.json"
    faults.damages(path)[what](path)
    lines = host.damage()
    assert any("generation 1" in line for line in lines), lines
    assert host.apply(CORP)["changed"] and host.damage() == [] and not host.apply(CORP)["changed"]


def test_a_timer_that_does_not_run_is_drift(host, monkeypatch):
    host.apply(CORP)
    monkeypatch.setattr(install, "systemctl", lambda arguments: "ActiveState=inactive\n")
    assert host.damage() == ["exfil-guard-refresh.timer is not started"]


def test_an_older_document_that_was_damaged_is_drift_and_goes(host):
    host.apply(CORP)
    host.apply(BOTH)
    (Path(host.store.generations_folder) / "1.json").write_text("{")
    assert host.apply(BOTH, check=True)["drift"] == ["the document of generation 1 cannot be used: it is not complete"]
    assert host.apply(BOTH)["changed"] and host.store.numbers() == [2]


@pytest.mark.parametrize("name", ["", "generations"])
def test_a_folder_that_others_can_write_is_drift(host, name):
    host.apply(CORP)
    folder = Path(host.store.folder) / name
    folder.chmod(0o777)
    assert host.damage() == [f"the directory {str(folder).rstrip('/')}: others can write it (mode 0777)"]
    assert host.apply(CORP)["changed"] and host.damage() == []
    assert next_boot.lines(host.store, next_boot.Live(None, 0, 0, False, False, {})) == []


# ---- the command ----------------------------------------------------------------------------------------------------


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the installed command as it is, with the package of ``root``."""
    text = (root / LAUNCHER).read_text().replace("/usr/lib/exfil-guard", str(root / LIBRARY))
    return subprocess.run(
        [sys.executable, "-I", "-c", text, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_damaged_compiled_module_is_not_used(host):
    folder = host.root / LIBRARY / "exfil_guard/__pycache__"
    compiled = next(folder.glob("cli.*"))
    for what in ("cut at 0", "cut at 512", "pipe", "directory", "zeros"):
        content = compiled.read_bytes()
        faults.damages(compiled)[what](compiled)
        done = command(host.root, "--help")
        assert (done.returncode, done.stderr) == (0, ""), what
        shutil.rmtree(compiled) if compiled.is_dir() else compiled.unlink()
        compiled.write_bytes(content)


@pytest.mark.parametrize("what", ["missing", "cut at 0", "cut at 1024", "pipe", "directory", "one bit"])
def test_a_damaged_module_ends_with_one_line(host, what):
    module = host.root / LIBRARY / "exfil_guard/host_api.py"
    faults.damages(module)[what](module)
    done = command(host.root, "--help")
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or done.stderr.startswith("exfil-guard: a damaged file in ")
    assert done.returncode == 0 or len(done.stderr.splitlines()) == 1


def test_an_old_python_is_told(host):
    text = (host.root / LAUNCHER).read_text().replace("sys.version_info < (3, 8)", "sys.version_info < (9, 8)")
    done = subprocess.run([sys.executable, "-I", "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "Install Python 3.8 or newer" in done.stderr
    assert len(done.stderr.splitlines()) == 1
