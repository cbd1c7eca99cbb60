# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers that are killed, and two that come at once, with ansible-playbook itself over a simulated host. The orders
in which their calls can mix are in tests/unit/reconcile/test_bad_input.py."""

import json
import os
import threading
import time

import pytest
from fleet import ROOT, Fleet

SITE = os.path.join(ROOT, "site.yml")
POLICY = """policy: 1
rules:
  - {{name: {name}, deny: [connect], destinations: {{not: [loopback]}}}}
"""


class Site:
    """One host, and a folder of policies for each rule."""

    def __init__(self, folder):
        self.folder, self.fleet = folder, Fleet(str(folder / "fleet"), ["h1"])
        self.inventory = folder / "hosts.json"
        self.inventory.write_text(
            json.dumps(
                {
                    "all": {
                        "vars": self.fleet.variables(),
                        "children": {"guarded": {"hosts": {"h1": self.fleet.host_variables("h1")}}},
                    }
                }
            )
        )

    def run(self, name, seconds=900):
        policies = self.folder / name
        policies.mkdir(exist_ok=True)
        (policies / "all.yml.j2").write_text(POLICY.format(name=name))
        return self.fleet.playbook(
            "-i",
            str(self.inventory),
            SITE,
            "-e",
            json.dumps({"exfil_guard_policies": str(policies), "exfil_guard_confirm_seconds": seconds}),
        )

    def rules(self):
        return [each["name"] for each in self.fleet.status("h1")["rules"] if each["audit"] is not None]

    def settled(self):
        """What is in force once a trial that nobody confirmed is over."""
        status = self.fleet.status("h1")
        if status["pending"]:
            time.sleep(status["deadline_seconds"] + 0.1)
        return self.rules()


@pytest.fixture
def site(tmp_path):
    """Rule `old` is in force."""
    found = Site(tmp_path)
    try:
        first = found.run("old")
        assert first.code == 0, first.text
        yield found
    finally:
        found.fleet.close()


@pytest.mark.parametrize("calls", [0, 1])
def test_a_controller_that_is_killed_at_one_of_its_calls(site, calls):
    with open(site.fleet.path("h1", "kills"), "w", encoding="ascii") as file:
        file.write(str(calls))
    killed = site.run("new", seconds=40)
    assert killed.code in (-9, 137), killed.text
    assert site.fleet.status("h1")["pending"] == (calls == 1)
    assert site.settled() == ["old"]
    again = site.run("new")
    assert again.code == 0 and site.rules() == ["new"] and not site.fleet.status("h1")["pending"], again.text


def test_two_controllers_at_once(site):
    ended = {}
    runs = [threading.Thread(target=lambda name=name: ended.update({name: site.run(name)})) for name in ("one", "two")]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    well = [name for name, done in ended.items() if done.code == 0]
    assert well, ended
    for name in set(ended) - set(well):
        assert "is not the one on trial" in ended[name].text or "another run holds the lock" in ended[name].text
    assert site.rules() in [[name] for name in well] and not site.fleet.status("h1")["pending"]
    last = site.run("one")
    assert last.code == 0 and site.rules() == ["one"]
