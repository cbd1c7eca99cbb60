# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role observe on a host that is this machine with what it writes kept apart. Nothing is observed here: check mode, what is
refused, and removal. Observing is tried on real kernels (tests/guest/checks/observe.py) and machines (tests/lab)."""

import pytest
from alone import Host

APT_GET = """#!/bin/sh
echo "$*" >>{0}/apt
{1}
"""


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path, "exfil.guard.observe", {"exfil_guard_observe_actions": ["chdir"]})


def apt_get(host, script):
    path = host.folder / "bin" / "apt-get"
    path.write_text(APT_GET.format(host.folder, script))
    path.chmod(0o755)


def words(said):
    return " ".join(said.split())


def test_check_mode_tells_and_does_nothing(host):
    code, said = host.run("--check", exfil_guard_observe_seconds=5)
    assert (
        code == 0 and "observe for 5 seconds: chdir" in said and "+ /var/lib/exfil-guard-observe/observed.jsonl" in said
    ), said
    assert host.tree() == {}


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"exfil_guard_observe_seconds": 0}, "exfil_guard_observe_seconds must be a whole number from 1 to 604800"),
        (
            {"exfil_guard_observe_seconds": 604801},
            "exfil_guard_observe_seconds must be a whole number from 1 to 604800",
        ),
        ({"exfil_guard_observe_names": 1001}, "exfil_guard_observe_names one from 0 to 1000"),
        ({"exfil_guard_observe_actions": []}, "must name at least one action"),
        ({"exfil_guard_observe_actions": ["fly"]}, "value of exfil_guard_observe_actions must be one or more of"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_done(host, variables, message):
    code, said = host.run(**variables)
    assert code != 0 and message in words(said), said
    assert host.tree() == {}


def test_packages_that_cannot_be_had(host):
    apt_get(host, "echo 'E: Unable to locate package python3-bpfcc' >&2; exit 100")
    code, said = host.run("--check", exfil_guard_observe_actions=["read"])
    assert code != 0 and "E: Unable to locate package python3-bpfcc. Run apt-get update there" in words(said), said
    assert host.tree() == {}


def test_removal_where_nothing_is(host):
    for options in (("--check",), ()):
        assert host.changes(*options, exfil_guard_state="absent") == (0, [])


def test_packages_that_others_need_by_now_stay(host):
    folder = host.folder / "host" / "lib" / "exfil-guard-observe"
    folder.mkdir(parents=True)
    (folder / "packages").write_text("libllvm14\npython3-bpfcc\n")
    apt_get(host, "echo 'Purg python3-bpfcc [1]'; echo 'Purg clang-14 [1]'; echo 'Purg libllvm14 [1]'")
    code, said = host.run(exfil_guard_state="absent")
    assert code != 0 and "clang-14 came later and needs what was installed for the observation" in words(said), said
    assert (host.folder / "apt").read_text() == "--simulate purge libllvm14 python3-bpfcc\n"
    assert (folder / "packages").read_text() == "libllvm14\npython3-bpfcc\n"
