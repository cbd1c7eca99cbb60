# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rollout and the rollback, by ansible-playbook over simulated hosts with real maps: what each host has in force
after a canary failed, could not be reached, or died on the way, and after the repair."""

import itertools
import json
import os
import re
import subprocess
import threading
import time

import pytest
from fleet import ROOT, Fleet

NAMES = ["c1", "w1", "w2"]
POLICY = """policy: 1
destinations:
  corp: {{cidrs: [10.0.0.0/8]}}
rules:
  - {{name: corp only, deny: [connect], destinations: {{not: [corp, loopback]}}}}
{more}"""
MORE = "  - {name: no sending, deny: [send], destinations: {not: [corp, loopback]}}\n"
ROLLOUT, ROLLBACK = (os.path.join(ROOT, "playbooks", name + ".yml") for name in ("rollout", "rollback"))


class Site:
    """Three hosts under one policy, in a repository; c1 is the canary."""

    def __init__(self, folder):
        self.fleet = Fleet(str(folder / "fleet"), NAMES)
        self.folder = folder / "site"
        (self.folder / "policies").mkdir(parents=True)
        hosts = {name: self.fleet.host_variables(name) for name in NAMES}
        self.inventory = self.folder / "hosts.json"
        self.inventory.write_text(
            json.dumps(
                {
                    "all": {
                        "vars": self.fleet.variables(),
                        "children": {"guarded": {"hosts": hosts}, "canary": {"hosts": {"c1": {}}}},
                    }
                }
            )
        )
        self.git("init", "-q", "-b", "main")
        self.write("")

    def git(self, *arguments):
        return subprocess.run(
            ["git", "-C", str(self.folder), "-c", "user.name=x", "-c", "user.email=x@example.com", *arguments],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def write(self, more):
        (self.folder / "policies" / "all.yml.j2").write_text(POLICY.format(more=more))
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "policy")

    def run(self, playbook, **variables):
        given = dict(
            {
                "exfil_guard_waves": ["100%"],
                "exfil_guard_confirm_seconds": 15,
                "exfil_guard_revision": self.git("rev-parse", "HEAD"),
            },
            **variables,
        )
        return self.fleet.playbook("-i", str(self.inventory), playbook, "-e", json.dumps(given))

    def rules(self, name):
        return [each["name"] for each in self.fleet.status(name)["rules"] if not each["name"].startswith("exfil-guard")]

    def where(self):
        """Host -> has it the new rule?"""
        return {name: any("no sending" in each for each in self.rules(name)) for name in NAMES}


@pytest.fixture
def site(tmp_path):
    """Nothing is in force yet."""
    found = Site(tmp_path)
    try:
        found.write(MORE)
        yield found
    finally:
        found.fleet.close()


@pytest.fixture
def guarded(site):
    """The policy without the new rule is in force."""
    site.write("")
    first = site.run(ROLLOUT)
    assert first.code == 0, first.text
    site.write(MORE)
    return site


def flag(site, name, file, text=""):
    with open(site.fleet.path(name, file), "w", encoding="ascii") as opened:
        opened.write(text)


def repair(site, name):
    for file in ("down", "dies", "canary-fails"):
        if os.path.exists(site.fleet.path(name, file)):
            os.unlink(site.fleet.path(name, file))


OLD, NEW = dict.fromkeys(NAMES, False), dict.fromkeys(NAMES, True)


def settled(site):
    """What is in force once every trial is over that nobody confirmed."""
    for name in NAMES:
        status = site.fleet.status(name)
        if status["pending"]:
            time.sleep(status["deadline_seconds"] + 0.1)
    return site.where()


def resumes(site):
    done = site.run(ROLLOUT)
    assert done.code == 0, done.text
    assert site.where() == NEW and not any(site.fleet.status(name)["pending"] for name in NAMES)


def test_all_well(site):
    resumes(site)
    again = site.run(ROLLOUT)
    assert again.code == 0 and again.text.count("changed=0") == len(NAMES), again.text
    assert {site.fleet.status(name)["revision"] for name in NAMES} == {site.git("rev-parse", "HEAD")}


def test_a_canary_that_fails_stops_it(site):
    flag(site, "c1", "canary-fails")
    done = site.run(ROLLOUT)
    assert done.code != 0 and "the canary was not denied" in done.text and "w1" not in done.text.split("PLAY RECAP")[0]
    assert settled(site) == OLD
    repair(site, "c1")
    resumes(site)


def test_a_canary_that_can_not_be_reached_stops_it(site):
    flag(site, "c1", "down")
    done = site.run(ROLLOUT)
    assert done.code != 0 and "no route to host" in done.text and "w1" not in done.text.split("PLAY RECAP")[0]
    assert settled(site) == OLD
    repair(site, "c1")
    resumes(site)


@pytest.mark.parametrize("calls, c1", [(1, False), (2, True)])
def test_one_of_two_canaries_that_dies_on_the_way_stops_it(site, calls, c1):
    """After it got the policy: nobody is confirmed. While it is confirmed: it goes back, and the next wave waits."""
    inventory = json.loads(site.inventory.read_text())
    inventory["all"]["children"]["canary"]["hosts"]["w1"] = {}
    site.inventory.write_text(json.dumps(inventory))
    flag(site, "w1", "dies", str(calls))
    done = site.run(ROLLOUT)
    assert done.code != 0 and not site.where()["w2"], done.text
    repair(site, "w1")
    assert settled(site) == dict(OLD, c1=c1)
    resumes(site)


def test_a_later_wave_that_fails_leaves_the_next_alone_and_the_earlier_done(site):
    flag(site, "w1", "down")
    done = site.run(ROLLOUT, exfil_guard_waves=[1, "100%"])
    assert done.code != 0
    assert settled(site) == dict(OLD, c1=True)
    repair(site, "w1")
    resumes(site)


def test_a_host_that_is_not_well_stops_it(site):
    health = site.folder / "health.yml"
    health.write_text("- ansible.builtin.assert: {that: inventory_hostname != 'c1', fail_msg: the shop is down}\n")
    done = site.run(ROLLOUT, exfil_guard_health_tasks=str(health))
    assert done.code != 0 and "the shop is down" in done.text
    assert settled(site) == OLD
    resumes(site)


def test_check_mode_changes_nothing(site):
    done = site.fleet.playbook(
        "-i", str(site.inventory), ROLLOUT, "--check", "--diff", "-e", "exfil_guard_soak_seconds=60"
    )
    assert done.code == 0 and done.text.count("+ rule no sending") == len(NAMES), done.text
    assert site.where() == OLD


# ---- soak ---------------------------------------------------------------------------------------------------------


def audited(site, name, rule, count):
    """The kernel counts a would-be denial."""
    code = f"""
import sys
sys.path[:0] = ["/usr/lib/exfil-guard"]
from exfil_guard.compile import tables
from exfil_guard.kernel import bpf, pins
import struct
found = bpf.Kernel()
with pins.opened(found, pins.map_path(found, "counters")) as fd:
    found.update(fd, struct.pack("<Q", tables.rule_id({rule!r})), struct.pack("=QQ", 0, {count}))
"""
    return [site.fleet.path(name, "python"), "-c", code]


def test_a_soak_without_denials_is_followed_by_the_policy(guarded):
    done = guarded.run(ROLLOUT, exfil_guard_soak_seconds=1)
    assert done.code == 0 and done.text.count("The new rules would have denied") == len(NAMES), done.text
    assert guarded.where() == NEW
    assert [each["soak"] for each in guarded.fleet.status("w2")["generations"]] == [False, True, False]
    assert not any(each["audit"] for each in guarded.fleet.status("w2")["rules"])
    again = guarded.run(ROLLOUT, exfil_guard_soak_seconds=1000)  # nothing is new: nobody waits
    assert again.code == 0 and again.text.count("changed=0") == len(NAMES)


def test_would_be_denials_stop_it_and_what_was_in_force_still_is(guarded):
    over, sent = threading.Event(), [0]

    def sending():
        """Somebody goes on sending while the canary soaks, however long that takes."""
        for times in itertools.count(1):
            if over.wait(2):
                return
            sent.append(times)
            guarded.fleet.run(audited(guarded, "c1", "no sending", times))

    meanwhile = threading.Thread(target=sending)
    meanwhile.start()
    try:
        done = guarded.run(ROLLOUT, exfil_guard_soak_seconds=14)
    finally:
        over.set()
        meanwhile.join()
    told = re.search(r"would have denied: \{'no sending': (\d+)\}", " ".join(done.text.split()))
    assert done.code != 0 and told and 1 <= int(told[1]) <= sent[-1], done.text
    status = guarded.fleet.status("c1")
    assert status["soak"] and [
        (each["name"], each["audit"]) for each in status["rules"] if each["audit"] is not None
    ] == [("corp only", False), ("no sending", True)]
    assert guarded.where() == dict(OLD, c1=True)
    resumes(guarded)


# ---- rollback -----------------------------------------------------------------------------------------------------


def test_back_to_a_commit_and_forth(guarded):
    resumes(guarded)
    done = guarded.run(ROLLBACK, exfil_guard_commit="HEAD~1")
    assert done.code == 0, done.text
    assert guarded.where() == OLD
    again = guarded.run(ROLLBACK, exfil_guard_commit="HEAD~1")
    assert again.code == 0 and again.text.count("changed=0") == len(NAMES) + 1, again.text
    resumes(guarded)


def test_back_to_a_generation(guarded):
    resumes(guarded)
    done = guarded.run(ROLLBACK, exfil_guard_generation=1)
    assert done.code == 0 and guarded.where() == OLD, done.text


def test_back_to_where_nobody_was(guarded):
    before = guarded.where()
    done = guarded.run(ROLLBACK, exfil_guard_generation=9)
    assert done.code != 0 and "generation 9 is not stored on this host: there are 1" in " ".join(done.text.split())
    neither = guarded.run(ROLLBACK)
    assert neither.code != 0 and "Set either exfil_guard_commit or exfil_guard_generation" in neither.text
    assert guarded.where() == before
