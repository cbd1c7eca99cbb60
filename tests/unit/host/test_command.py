# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The admin command and the boot units, from the arguments down to a kernel in memory."""

from __future__ import annotations

import datetime
import errno
import json
import struct

import fake_package
import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import cli, host_api, layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import tables
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.paths import Paths
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.store import Store
from ansible_collections.exfil.guard.plugins.module_utils._guard.kernel import generations, links, pins
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import apply, boot, drift, enforcer
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle.context import Context, Options
from ansible_collections.exfil.guard.plugins.module_utils._guard.report import status
from fake_kernel import FakeKernel
from fake_system import FakeSystem

NOW = datetime.date(2026, 6, 1)
POLICY = {
    "policy": 1,
    "mode": "enforce",
    "boot": "require",
    "assertions": [],
    "subjects": {"dba": {"groups": ["dba"]}},
    "destinations": {"corp": {"cidrs": ["10.0.0.0/8", "127.0.0.0/8"]}},
    "resources": {"customers": {"paths": ["/srv/exports/**"]}},
    "rules": [
        {"name": "inside only", "deny": ["connect", "send"], "destinations": {"not": ["corp"]}},
        {"name": "customers", "deny": ["read"], "except": ["dba"], "resources": ["customers"]},
        {"name": "old", "deny": ["write"], "resources": ["customers"], "expires": "2026-07-01"},
    ],
}


class Host:
    def __init__(self, folder):
        self.folder = folder
        self.kernel, self.system = FakeKernel(), FakeSystem()
        library = fake_package.install(folder / "library", b"object", fake_package.proved(self.kernel, b"object"))
        self.store = Store(str(folder / "store"), library)
        self.now, self.root = NOW, True
        for name in ("denied", "allowed"):
            self.system.files.add(str(folder / "canary" / name))
        (folder / "guard.bpf.o").write_bytes(b"object")
        self.paths = Paths(str(folder / "canary"), str(folder / "lock"), str(folder / "guard.bpf.o"))

    def apply(self, document=POLICY, seconds=0):
        enforcer.ensure(self.kernel, b"object")
        return apply.apply(self.context(confirm_seconds=seconds), document)

    def context(self, **options):
        return Context(self.kernel, self.system, self.store, self.now, Options(paths=self.paths, **options))

    def reboot(self):
        self.kernel = FakeKernel()

    def boot(self):
        return boot.boot(self.context())

    def refresh(self):
        return boot.refresh(self.context())

    def run(self, *arguments):
        return cli.main(list(arguments), self.api())

    def api(self):
        return host_api.Host(self.kernel, self.system, self.store, self.now, self.paths, self.root)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def drift_of(host):
    live = generations.read(host.kernel)
    return drift.difference_lines(
        live,
        host.store.load(live.generation),
        status.status(host.kernel, host.store).to_json()["hooks"],
        host.system,
        host.now,
        str(host.folder / "canary"),
    )


def test_boot_brings_the_policy_back_with_new_devices(host):
    assert host.apply()["changed"]
    hooks = host.kernel.attached()
    host.reboot()
    host.system.mounts = host.system.mounts.replace("8:2 /", "259:3 /")
    host.system.accounts.clear()
    host.system.teams.clear()  # no directory service yet
    assert host.boot() == "generation 1 is in force"
    assert host.kernel.attached() == hooks
    live = generations.read(host.kernel)
    assert live.generation == 1 and not live.pending
    assert (259 << 20 | 3).to_bytes(4, "little") in live.tables["superblocks"]
    assert host.boot() == "generation 1 is in force already"
    host.system = FakeSystem()
    host.system.mounts = host.system.mounts.replace("8:2 /", "259:3 /")
    for name in ("denied", "allowed"):
        host.system.files.add(str(host.folder / "canary" / name))
    assert host.apply()["changed"] is False  # a reboot is no change
    assert host.refresh() == "generation 1 is up to date"


def test_an_unconfirmed_policy_does_not_come_back(host):
    host.apply()
    host.apply(dict(POLICY, mode="audit"), seconds=60)
    assert "on trial" in host.refresh()
    host.reboot()
    assert host.boot() == "generation 1 is in force"


def test_nothing_to_boot(host):
    assert host.boot() == "no confirmed policy: nothing is denied"
    assert host.kernel.attached() == []


@pytest.mark.parametrize("wanted, code", [("require", 1), ("best-effort", 0)])
def test_a_failed_boot_holds_back_what_the_policy_says(host, capsys, wanted, code):
    host.apply(dict(POLICY, boot=wanted))
    host.reboot()
    host.kernel.refuse("load", errno.EPERM)
    assert host.run("boot") == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and ("NOT GUARDED" in said[0]) == (code == 0)


def test_refresh_follows_mounts_groups_and_dates(host):
    host.apply()
    calls = len(host.kernel.calls)
    assert host.refresh() == "generation 1 is up to date" and len(host.kernel.calls) == calls
    host.system.mounts += "40 21 7:1 / /new rw - ext4 /dev/loop1 rw\n"
    assert host.refresh().startswith("generation 2 is in force")
    host.system.teams["dba"] = 501
    assert host.refresh().startswith("generation 3 is in force")
    host.now = datetime.date(2026, 7, 1)
    assert host.refresh().startswith("generation 4 is in force")
    assert host.refresh() == "generation 4 is up to date" and drift_of(host) == []


def test_refresh_and_status_find_programs_that_have_stopped(host, capsys):
    host.apply()
    host.kernel.found = host.kernel.found._replace(ftrace=False)
    assert host.run("refresh") == 1
    assert "kernel.ftrace_enabled is 0" in capsys.readouterr().err
    assert host.run("status") == 1
    said = capsys.readouterr().out
    assert "kernel.ftrace_enabled is 0" in said and "NOT ENFORCED" in said
    host.kernel.found = host.kernel.found._replace(ftrace=True)
    assert host.refresh() == "generation 1 is up to date"
    host.kernel.runs = False
    assert host.run("refresh") == 1
    assert "do not run" in capsys.readouterr().err


def test_refresh_keeps_the_old_policy_when_a_name_is_gone(host, capsys):
    host.apply()
    del host.system.teams["dba"]
    assert host.run("refresh") == 1
    assert "unknown group 'dba'" in capsys.readouterr().err
    assert generations.read(host.kernel).generation == 1


def test_refresh_follows_host_names_and_keeps_the_last_good_addresses(host):
    document = dict(
        POLICY,
        destinations=dict(POLICY["destinations"], vault={"names": ["vault"]}),
        rules=POLICY["rules"] + [{"name": "not the vault", "deny": ["connect"], "destinations": ["vault"]}],
    )
    host.system.hosts = {"vault": ["10.9.0.7"]}
    host.apply(document)
    assert host.refresh() == "generation 1 is up to date"
    host.system.hosts = {"vault": ["10.9.0.8"]}
    assert "means something else on this host now" in host.refresh()
    host.system.hosts = {}
    assert host.refresh() == "generation 2 is up to date"
    host.system.teams["dba"] = 501
    assert host.refresh().startswith("generation 3 is in force")
    stored = host.store.last_confirmed().resolved
    assert stored["destinations"]["vault"]["cidrs"] == ["10.9.0.8/32"] and stored["names"] == {"vault": ["10.9.0.8/32"]}
    host.reboot()
    assert host.boot().startswith("generation 3 is in force")
    assert host.store.last_confirmed().resolved["names"] == {"vault": ["10.9.0.8/32"]}


def test_status(host, capsys):
    host.apply()
    host.apply(dict(POLICY, mode="audit"), seconds=60)
    host.run("status", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["generation"], found["pending"], found["mode"], found["fallback_generation"]) == (2, True, "audit", 1)
    assert {"inside only", "customers", "old"} <= {rule["name"] for rule in found["rules"]}
    assert found["confirmed_generation"] == 1 and "file_open" in found["hooks"]
    host.kernel.now += 61 * generations.SECOND
    host.run("status")
    assert "not confirmed in time" in capsys.readouterr().out


def test_status_shows_what_is_enforced(host, capsys):
    host.apply()
    rules = {rule["name"]: rule for rule in status.status(host.kernel, host.store).to_json()["rules"]}
    assert all(rule["enforced"] for rule in rules.values())
    assert [each["action"] for each in rules["inside only"]["actions"]] == ["connect", "send"]
    version = enforcer.installed(host.kernel)
    links.detach(host.kernel, version, ["file_open"])
    host.kernel.unlink(pins.program_path(host.kernel, version, "socket_listen"))
    host.kernel.unlink(pins.links_path(host.kernel, version) + "/socket_listen")
    rules = {rule["name"]: rule for rule in status.status(host.kernel, host.store).to_json()["rules"]}
    assert rules["customers"]["actions"] == [
        {"action": "read", "enforced": False, "lacking": {"file_open": "not attached"}}
    ]
    assert [(each["enforced"], each["lacking"]) for each in rules["inside only"]["actions"]] == [
        (True, {}),
        (False, {"socket_listen": "not loaded"}),
    ]
    host.run("status")
    assert "NOT ENFORCED  customers: read (hook file_open not attached)" in capsys.readouterr().out
    host.kernel.found = host.kernel.found._replace(lsms=("capability",))
    found = status.status(host.kernel, host.store).to_json()
    assert not any(rule["enforced"] for rule in found["rules"])
    assert found["unenforced"] == ["every rule: bpf is not among the active Linux Security Modules"]


def test_status_counts_the_carriers_of_each_label(host, capsys):
    host.apply(
        dict(
            POLICY,
            subjects=dict(POLICY["subjects"], readers={"has_read": ["customers"]}),
            rules=POLICY["rules"]
            + [{"name": "readers", "deny": ["connect"], "subjects": ["readers"], "destinations": ["corp"]}],
        )
    )
    since = links.labels_since(host.kernel)
    bit = 1 << tables.labels_of(generations.read(host.kernel).tables)["customers"]
    put = {
        "cells": {
            layout.LABEL_GROUP_KEY.pack(layout.LabelGroupKey(since, 7)): layout.LABEL_GROUP.pack(
                layout.LabelGroup(bit, 2)
            )
        },
        "carriers": {
            struct.pack("=Q", at): layout.TASK_LABEL.pack(layout.TaskLabel(*carrier))
            for at, carrier in enumerate(
                (
                    (since, 7, 0, 0),
                    (since, 7, 0, 0),
                    (since, 0, bit, 0),
                    (since, 0, 0, 0),
                    (since, 8, 0, 0),  # its cell is gone: it carries everything
                    (since, 1 << 63, 0, 0),  # an address space that has no label
                    (since - 1, 0, bit, 0),
                )
            )
        },  # of an earlier time
        "wires": {
            struct.pack("=Q", at): layout.CHANNEL_LABEL.pack(
                layout.CHANNEL_LABEL.empty()._replace(since=begun, labels=labels)
            )
            for at, (begun, labels) in enumerate(((since, bit), (since, 0), (since - 1, bit)))
        },
    }
    for name, entries in put.items():
        with pins.opened(host.kernel, pins.map_path(host.kernel, name)) as fd:
            host.kernel.update_all(fd, entries)
    assert status.status(host.kernel, host.store).to_json()["labels"] == [
        {"name": "customers", "tasks": 4, "channels": 1}
    ]
    host.run("status")
    assert "                       4          1  customers\n" in capsys.readouterr().out


def test_status_tells_drift(host):
    host.apply()
    assert drift_of(host) == []
    version = enforcer.installed(host.kernel)
    links.detach(host.kernel, version, ["file_open"])
    assert drift_of(host) == ["hook file_open is not attached"]
    host.system.accounts["alice"] = 7
    host.store.delete(1)
    assert drift_of(host)[0] == "the document of generation 1 is missing"


def test_confirm_and_rollback(host, capsys):
    host.apply()
    assert host.run("confirm") == 1 and "no generation is on trial" in capsys.readouterr().err
    host.apply(dict(POLICY, mode="audit"), seconds=60)
    assert host.run("confirm") == 0 and "generation 2 is confirmed" in capsys.readouterr().out
    assert host.run("rollback", "--json") == 0
    assert json.loads(capsys.readouterr().out)["generation"] == 1


def test_explain(host, capsys):
    host.apply()
    host.run("explain", "--user", "alice", "--path", "/srv/exports/a.csv", "--action", "read")
    assert capsys.readouterr().out.splitlines() == [
        "deny  read /srv/exports/a.csv",
        "      denied by: rule 'customers'",
    ]
    host.run("explain", "--user", "alice", "--group", "dba", "--path", "/srv/exports/a.csv", "--action", "read")
    assert capsys.readouterr().out.startswith("allow")
    host.run("explain", "--user", "alice", "--address", "192.0.2.9", "--json")
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [(each["action"], each["outcome"], each["rule"]) for each in answers] == [
        ("connect", "deny", "inside only"),
        ("send", "deny", "inside only"),
        ("reply", "allow", None),
    ]
    host.run("explain", "--user", "alice", "--action", "mount")
    assert capsys.readouterr().out == "allow mount\n"
    assert host.run("explain", "--user", "alice") == 1
    assert capsys.readouterr().err.startswith(
        "exfil-guard: a path, an address or an action without an object is required. "
    )
    assert host.run("explain", "--user", "alcie", "--path", "/srv") == 1
    assert capsys.readouterr().err == "exfil-guard: unknown user 'alcie'\n"
    assert host.run("explain", "--user", "alice", "--address", "10.0.0") == 1
    assert capsys.readouterr().err.startswith("exfil-guard: '10.0.0' does not appear to be an IPv4 or IPv6 address. ")


def test_explain_who_may(host, capsys):
    host.apply()
    host.run("explain", "--path", "/srv/exports/a.csv", "--action", "read")
    assert capsys.readouterr().out.splitlines() == [
        "read /srv/exports/a.csv",
        "      allowed to  dba",
        "      denied to   everyone but dba: rule 'customers'",
    ]
    host.run("explain", "--address", "192.0.2.9", "--action", "connect", "--json")
    assert json.loads(capsys.readouterr().out)["answers"] == [
        {
            "action": "connect",
            "object": "192.0.2.9 port 443/tcp",
            "complete": True,
            "outcomes": [{"outcome": "deny", "rule": "inside only", "who": "everyone"}],
        }
    ]
    assert host.run("explain", "--path", "/srv", "--group", "dba") == 1
    assert (
        capsys.readouterr().err
        == "exfil-guard: --group, --login-user, --service, --executable and --has-read require --user. Add --user, root for most services\n"
    )


@pytest.mark.parametrize("arguments", [["status"], ["events"], ["confirm"], ["rollback"], ["refresh"]])
def test_a_host_without_enforcer(host, capsys, arguments):
    expected = 0 if arguments == ["refresh"] else 1
    assert host.run(*arguments) == expected
    out = capsys.readouterr()
    assert "Traceback" not in out.err and len(out.err.splitlines()) <= 1


def test_usage_and_root(host, capsys):
    for wrong in ([], ["nonsense"], ["explain", "--path", "/srv", "--address", "::1"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(wrong, host.api())
        assert ended.value.code == 2
    host.root = False
    assert cli.main(["status"], host.api()) == 1
    assert "sudo exfil-guard status" in capsys.readouterr().err
