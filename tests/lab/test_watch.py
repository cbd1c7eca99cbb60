# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who sits at a virtual machine: `exfil-guard watch` shows a denial as it happens, `exfil-guard why` what would let it pass; and each
change that it names does."""

import json
import re
import select
import subprocess
import time

import pytest
from machines import SSH_CONFIG
from test_audit import NASTY, play, python, settled

MACHINE, FILE = "web1", "/srv/exports/customers.csv"
SEEN = re.compile(
    r"\d\d:\d\d:\d\d denied read (\S+) alice \(login vagrant\) \[(\S+), session-\d+\.scope, pid \d+\] "
    r"by exports are for the exporter and the DBAs(?: x(\d+))?"
)
COLOURS = re.compile(r"\x1b\[(0|1|2|31|33)m")
# six denials by one process within a second, and one read that passes
READS = f"i=0; while [ $i -lt 6 ]; do i=$((i + 1)); sudo -u alice cat {FILE} 2>/dev/null; sleep 0.1; done; sudo -u dora cat {FILE} >/dev/null"


@pytest.fixture(name="seen", params=["the journal", "the ring"])
def fixture_seen(request, lab):
    """With the audit unit, and without."""
    if request.param == "the journal":
        done = play(lab)
        assert done.code == 0, done.text
        settled(lab)
    else:
        lab.ssh(MACHINE, "sudo exfil-guard events --take >/dev/null")
    yield lab
    done = play(lab, exfil_guard_state="absent")
    assert done.code == 0, done.text


class Watch:
    def __init__(self, *arguments):
        # it ends there, by itself: an ssh that is ended here leaves it
        self.process = subprocess.Popen(
            ["ssh", "-F", str(SSH_CONFIG), MACHINE, "sudo timeout 30 exfil-guard watch " + " ".join(arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._rest = b""

    def lines(self, seconds):
        """What is shown within so long."""
        ends, found = time.monotonic() + seconds, []
        while time.monotonic() < ends:
            if select.select([self.process.stdout], [], [], 0.2)[0]:
                data = self.process.stdout.read1(65536)
                if not data:
                    break
                *whole, self._rest = (self._rest + data).split(b"\n")
                found += [line.decode() for line in whole]
        return found

    def end(self):
        self.lines(60)
        self.process.wait(30)


def test_watch(seen):
    """Live, and the same told once; then only a terminal gets colours, and no name moves its cursor."""
    lives(seen)
    colours(seen)


def lives(seen):
    watching = Watch("--before", "0")
    try:
        assert watching.lines(8) == []
        began = time.monotonic()
        seen.ssh(MACHINE, READS)
        tried = time.monotonic()
        first = watching.lines(2)
        assert first, "nothing within two seconds"
        lines = first + watching.lines(60)
    finally:
        watching.end()
    print("six denials in {0:.1f} s:\n{1}".format(tried - began, "\n".join(lines)))
    found = [SEEN.fullmatch(line) for line in lines]
    assert all(found), lines  # dora's is not among them
    assert {(each[1], each[2]) for each in found} == {(FILE, "/usr/bin/cat")}
    assert sum(int(each[3] or 1) for each in found) == 6 and len(found) < 6


def colours(seen):
    python(seen, MACHINE, f"import shutil\nshutil.copy('/usr/bin/cat', '/srv/public/' + {NASTY!r})")
    attempt = f"import subprocess\nsubprocess.run(['/srv/public/' + {NASTY!r}, '{FILE}'], stderr=subprocess.DEVNULL)"
    found = {}
    try:
        for name, command in (
            ("pipe", "timeout 14 exfil-guard watch --before 0"),
            ("pipe, json", "timeout 14 exfil-guard watch --json --before 0"),
            ("terminal", 'script -qec "timeout 14 exfil-guard watch --before 0" /dev/null'),
        ):
            seen.ssh(MACHINE, f"sudo sh -c '{command} </dev/null >/tmp/seen 2>&1 &'")
            time.sleep(5)
            python(seen, MACHINE, attempt, "alice")
            time.sleep(14)
            found[name] = seen.ssh(MACHINE, "sudo cat /tmp/seen; sudo rm /tmp/seen")
    finally:
        python(seen, MACHINE, f"import os\nos.unlink('/srv/public/' + {NASTY!r})")
    print("\n".join(map(repr, found.items())))
    assert found["pipe"].isprintable() and "\\x1b[2J\\x1b]0;x\\x07" in found["pipe"]
    assert json.loads(found["pipe, json"])["executable"].startswith("/srv/public/\\x1b[2J")
    assert "\x1b[31mdenied\x1b[0m" in found["terminal"]
    plain = COLOURS.sub("", found["terminal"])
    assert (
        plain.isprintable()
        and plain.partition(" ")[2].split(", session")[0] == found["pipe"].partition(" ")[2].split(", session")[0]
    )


def test_a_second_one_is_told_who_takes_the_events(lab):
    first = Watch()
    try:
        time.sleep(5)
        said = lab.ssh(MACHINE, "sudo timeout 20 exfil-guard watch || echo $?")
    finally:
        first.end()
    assert re.fullmatch(
        r"exfil-guard: another run holds the lock /\S+: pid \d+, watch\. Wait until it ends and run again\n1", said
    )


ASSERTION = ("path: /srv/exports/customers.csv, expect: deny", "path: /srv/exports/customers.csv, expect: allow")
FILES = {  # what `why` says: what to write
    "subjects 'dba', which the rule excepts: `groups` with alice": (
        "dba: {groups: [dba]}",
        "dba: {groups: [dba, alice]}",
    ),
    "resources 'exports': `paths` without /srv/exports/**": ("paths: [/srv/exports/**]", "paths: [/srv/public/*.none]"),
    "rule 'exports are for the exporter and the DBAs', `deny`: without read": ("deny: [read, write]", "deny: [write]"),
}
ADDRESSES = {
    "destinations 'company': `cidrs` with 192.168.157.200/32": (
        '"192.168.157.0/26"',
        '"192.168.157.0/26", "192.168.157.200/32"',
    ),
    "rule 'web servers reach the company network only', `deny`: without connect": (
        "deny: [connect, send]\n    destinations: {not: [loopback, link-local, company]}",
        "deny: [send]\n    destinations: {not: [loopback, link-local, company]}",
    ),
}
READ, CONTROL = "read:" + FILE, "tcp:[fd57:e9::200]:443"
TRY = """
import os, socket
print(os.getpid())
try:
    socket.create_connection(("192.168.157.200", 443), 5)
except OSError as error:
    print(error.errno)
"""


def newest(lab, *arguments):
    print(lab.ssh(MACHINE, "sudo exfil-guard why --limit 1 " + " ".join(arguments)))
    (found,) = json.loads(lab.ssh(MACHINE, "sudo exfil-guard why --json --limit 1 " + " ".join(arguments)))["denials"]
    return found


@pytest.fixture(name="changed")
def fixture_changed(lab):
    """A function that puts the templates in force with these changes and no others."""
    texts = {
        path: path.read_text()
        for path in (lab.folder / name for name in ("policies/all.yml.j2", "policies/web.yml.j2", "group_vars/all.yml"))
    }

    def changed(*edits):
        found = dict(texts)
        for old, new in edits:
            (path,) = [path for path, text in found.items() if old in text]
            found[path] = found[path].replace(old, new)
        for path, text in found.items():
            path.write_text(text)
        return lab.playbook("site.yml", "--limit", "web")

    yield changed
    done = changed()
    assert done.code == 0, done.text


def test_each_change_that_why_names_lets_it_pass(lab, changed):
    assert lab.may(MACHINE, "alice", READ) == "denied"
    found = newest(lab, "--user", "alice")
    assert found["record"]["path"] == FILE and set(found["changes"]) == set(FILES)
    process, outcome = python(lab, MACHINE, TRY, "alice").split()
    assert outcome == "1"  # EPERM
    assert lab.may(MACHINE, "alice", CONTROL) == "denied"  # a later one, which is not asked about
    found = newest(lab, "--pid", process)
    assert found["record"]["pid"] == int(process) and found["record"]["address"] == "192.168.157.200"
    assert set(found["changes"]) == set(ADDRESSES)

    refused = changed(FILES["rule 'exports are for the exporter and the DBAs', `deny`: without read"])
    assert refused.code != 0 and "expect" in refused.text  # what the policy asserts it still has to say
    addresses = list(ADDRESSES.values())
    for place, (text, edit) in enumerate(FILES.items()):
        # an assertion knows nothing of alice's own group, so it holds as it is
        edits = [edit] if "groups" in text else [edit, ASSERTION]
        done = changed(*edits, *addresses[place : place + 1])
        assert done.code == 0, done.text
        assert lab.may(MACHINE, "alice", READ) == "ok", text
        # the attempt that was denied: what is sent over it then is another one
        assert (len(python(lab, MACHINE, TRY, "alice").split()) == 1) == (place < len(addresses))
        # and no more than that
        if "groups" in text:
            assert lab.may(MACHINE, "bob", READ) == "denied" and lab.may(MACHINE, "alice", CONTROL) == "denied"
        if "without read" in text:
            assert lab.may(MACHINE, "alice", "write:" + FILE) == "denied"
