# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observing a virtual machine that has no policy, with CO-RE and BCC: two users look around, and a file says who, where and what
lay there; afterwards nothing is left."""

import json
import stat
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from machines import ROOT, Lab

MACHINE = "outside"  # has no enforcer
SECONDS = 90
LISTED = (
    'sudo bpftool prog list -j | python3 -c \'import json,sys; print(sorted((p["id"], p.get("name")) for p in json.load(sys.stdin)))\'',
    'sudo bpftool map list -j | python3 -c \'import json,sys; print(sorted((m["id"], m.get("name")) for m in json.load(sys.stdin)))\'',
    "dpkg-query -W",
    "sudo find /etc /usr /var/lib /run/lock /lib/systemd /opt /root -xdev -not -path '*/__pycache__*' -newermt '2020-01-01' "
    "-path '*exfil*' | sort",
    "systemctl list-unit-files --no-legend --no-pager | awk '$2 != \"transient\" {print $1}' | sort",
    "sudo find /root /home /run /tmp /var/tmp -xdev -mindepth 1 -path '*async*' -o -path '*exfil*' | sort",
)
LOOKS = """
import os, sys, time
user, where, file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.setgroups([]); os.setresgid(user, user, user); os.setresuid(user, user, user)
os.chdir(where)
os.chdir(where)
open(file, "rb").read()
os.execv("/bin/true", ["true"])
"""
ACCOUNTS = {"alice": "/srv/alpha", "bob": "/srv/beta"}
# /var/lib on a small disk of its own, as a server has /var
SMALL = """
mkdir -p /run/small
mount -t tmpfs -o size=1m tmpfs /run/small
mkdir /run/small/upper /run/small/work
mount -t overlay -o lowerdir=/var/lib,upperdir=/run/small/upper,workdir=/run/small/work overlay /var/lib
"""
LARGE = "umount -l /var/lib; umount -l /run/small; rmdir /run/small"
ARCHIVE = Path(__file__).with_name("archive.py").read_text()


@pytest.fixture(name="lab")
def fixture_lab(tmp_path):
    """Without a policy: the machine that is not guarded."""
    return Lab(tmp_path)


@pytest.fixture(name="ids")
def fixture_ids(lab):
    """Two users, and a directory for each with a file in it."""
    ids = {}
    for place, (name, folder) in enumerate(ACCOUNTS.items()):
        lab.ssh(MACHINE, f"id {name} 2>/dev/null || sudo useradd -u {4001 + place} {name}")
        ids[name] = int(lab.ssh(MACHINE, f"id -u {name}"))
        lab.ssh(MACHINE, f"sudo sh -ec 'mkdir -p {folder}; echo 1 >{folder}/{name}.csv; chmod -R a+rX {folder}'")
    yield ids
    lab.ssh(MACHINE, "sudo rm -r " + " ".join(ACCOUNTS.values()))


def look(lab, ids):
    for name, folder in ACCOUNTS.items():
        lab.ssh(MACHINE, f"sudo python3 - {ids[name]} {folder} {folder}/{name}.csv", input=LOOKS)


def state(lab):
    return {command: lab.ssh(MACHINE, command) for command in LISTED}


def wait_until_attached(lab):
    ends = time.monotonic() + 600
    while "set_fs_pwd" not in lab.ssh(MACHINE, LISTED[0]):
        assert time.monotonic() < ends, "the observer attached nothing"
        time.sleep(2)


def start(lab, *arguments):
    return subprocess.Popen(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(lab.folder / "hosts.yml"),
            "playbooks/observe.yml",
            "-e",
            "exfil_guard_hosts=" + MACHINE,
            *arguments,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def observed(lab):
    path = lab.folder / "observed" / (MACHINE + ".jsonl")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    found = [json.loads(line) for line in path.read_text().splitlines()]
    schema = jsonschema.Draft202012Validator(json.loads((ROOT / "schemas" / "observation.schema.json").read_text()))
    for line in found:
        schema.validate(line)
    assert found[-1]["kind"] == "end" and found[-1]["lines"] == len(found) - 1
    return found


@pytest.mark.parametrize("actions", [["chdir"], None], ids=["chdir by CO-RE alone", "everything"])
def test_two_users_look_around(lab, ids, actions):
    before = state(lab)
    playing = start(
        lab,
        "-e",
        json.dumps(
            {"exfil_guard_observe_seconds": SECONDS, **({"exfil_guard_observe_actions": actions} if actions else {})}
        ),
    )
    try:
        wait_until_attached(lab)
        look(lab, ids)
        said = playing.communicate(timeout=1800)[0]
    finally:
        playing.kill()
    print(said)
    assert playing.returncode == 0
    found = observed(lab)
    for name, folder in ACCOUNTS.items():
        mine = [line for line in found if line["kind"] == "seen" and line.get("user") == name]
        (moved,) = [line for line in mine if line["action"] == "chdir" and line["path"] == folder]
        assert (
            moved["count"] == 2
            and moved["executable"].startswith("/usr/bin/python3")
            and moved["unit"].endswith(".scope")
        )
        assert moved["uid"] == moved["euid"] == ids[name]
        (listing,) = [line for line in found if line["kind"] == "listing" and line["path"] == folder]
        assert listing["entries"] == [name + ".csv"] and listing["user"] == name
        read = [line for line in mine if line["action"] == "read" and line["path"] == f"{folder}/{name}.csv"]
        executed = [line for line in mine if line["action"] == "execute" and line["path"] == "/usr/bin/true"]
        assert bool(read) == bool(executed) == (actions is None)
    if actions is None:
        assert {"connect", "send", "accept", "reply"} & {line.get("action") for line in found}
        assert any(line["kind"] == "unit" and line["unit"].startswith("session-") for line in found)
    assert not any(found[-1]["lost"].values()), found[-1]
    assert state(lab) == before


def test_check_mode_changes_nothing(lab):
    before = state(lab)
    done = lab.playbook("playbooks/observe.yml", "--check", "--diff", "-e", "exfil_guard_hosts=" + MACHINE)
    assert done.code == 0 and "observe for 600 seconds" in done.text
    assert state(lab) == before and not (lab.folder / "observed").exists()


def test_one_that_runs_is_ended_and_what_it_left_removed(lab):
    before = state(lab)
    playing = start(
        lab, "-e", json.dumps({"exfil_guard_observe_seconds": 3000, "exfil_guard_observe_actions": ["chdir"]})
    )
    try:
        wait_until_attached(lab)
    finally:
        playing.kill()
        playing.communicate()
    assert state(lab) != before  # it goes on without its controller
    second = lab.playbook(
        "playbooks/observe.yml",
        "-e",
        json.dumps(
            {"exfil_guard_hosts": MACHINE, "exfil_guard_observe_seconds": 1, "exfil_guard_observe_actions": ["chdir"]}
        ),
    )
    assert second.code != 0 and "another run holds the lock" in " ".join(second.text.split())
    wait_until_attached(lab)  # the first goes on
    assert (
        lab.playbook(
            "playbooks/observe.yml", "-e", "exfil_guard_hosts=" + MACHINE, "-e", "exfil_guard_state=absent"
        ).code
        == 0
    )
    assert state(lab) == before


def test_the_disk_is_full(lab):
    before = state(lab)
    lab.ssh(MACHINE, "sudo sh -es", input=SMALL)
    try:
        playing = start(
            lab, "-e", json.dumps({"exfil_guard_observe_seconds": 40, "exfil_guard_observe_actions": ["chdir"]})
        )
        try:
            wait_until_attached(lab)
            lab.ssh(MACHINE, "sudo sh -c 'head -c 2M /dev/zero >/var/lib/filler 2>/dev/null || :'")
            assert lab.ssh(MACHINE, "df --output=avail /var/lib | tail -n 1").strip() == "0"
            said = playing.communicate(timeout=600)[0]
        finally:
            playing.kill()
        print(said)
        assert playing.returncode == 2
        told = (
            "cannot be written to /var/lib/exfil-guard-observe/observed.jsonl: No space left on device. Make room there"
        )
        assert told in " ".join(said.split())
        assert "Traceback" not in said and "failed=1" in said
        assert not (lab.folder / "observed").exists()
        assert lab.ssh(MACHINE, "ls /var/lib | grep exfil || :") == ""
    finally:
        lab.ssh(MACHINE, f"sudo sh -c '{LARGE}'")
    assert state(lab) == before


def test_packages_that_were_not_there_are_installed_and_no_more_than_these_removed(lab, ids):
    release = lab.ssh(MACHINE, "uname -r")
    own = ["python3-bpfcc", "libbpfcc", "linux-headers-" + release]
    others = ["linux-headers-cloud-amd64"]  # needs one of these
    installed = lab.ssh(MACHINE, "dpkg-query -W")
    lab.ssh(MACHINE, "sudo python3 - " + " ".join(own + others), input=ARCHIVE)
    try:
        lab.ssh(MACHINE, "sudo apt-get -q -y purge {0}".format(" ".join(own + others)))
        before = state(lab)
        assert not any(name in before["dpkg-query -W"] for name in own)
        done = lab.playbook("playbooks/observe.yml", "--check", "-e", "exfil_guard_hosts=" + MACHINE)
        assert done.code == 0 and state(lab) == before
        playing = start(lab, "-e", json.dumps({"exfil_guard_observe_seconds": SECONDS}))
        try:
            wait_until_attached(lab)
            there = lab.ssh(MACHINE, "dpkg-query -W")
            assert {
                line.split()[0].split(":")[0]
                for line in set(there.splitlines()) - set(before["dpkg-query -W"].splitlines())
            } == set(own)
            look(lab, ids)
            said = playing.communicate(timeout=1800)[0]
        finally:
            playing.kill()
        print(said)
        assert playing.returncode == 0
        assert any(
            line.get("action") == "read" and line.get("user") == "alice" and line["path"] == "/srv/alpha/alice.csv"
            for line in observed(lab)
        )
        assert state(lab) == before
    finally:
        lab.ssh(
            MACHINE,
            "sudo apt-get -q -y install {0} >/dev/null; sudo rm -rf /var/tmp/archive /etc/apt/sources.list.d/archive.list; "
            "sudo apt-get -q update >/dev/null".format(" ".join(own + others)),
        )
    assert lab.ssh(MACHINE, "dpkg-query -W") == installed
