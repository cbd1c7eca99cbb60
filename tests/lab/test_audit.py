# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit trail on a virtual machine: a flood that is denied whole and accounted for whole, also when the unit is killed in it, the
journal is away, or the clock is set back; names made to deceive; and the trail on another machine."""

import base64
import json
import time

import pytest
from machines import wait

MACHINE, COLLECTOR = "web1", "db1"
ADDRESS = "192.168.157.12"  # db1's; web1 may reach it, as it is the company's
PORT = 19532
RULE = "exports are for the exporter and the DBAs"
NETWORK_RULE = "web servers reach the company network only"
UNIT = "exfil-guard-audit.service"
OBJECTS = 120  # files; each is tried for reading and for writing
TRIES = 100_000
FOLD = 5  # seconds
FULL = 60
DISK = "/var/log/exfil-guard-disk"
FILE = DISK + "/denied.jsonl"
LEFT = "/srv/exports/burst-"
STOP = "/run/burst.stop"
BURST = """
import errno, json, os
names = ["{left}%d.csv" % number for number in range({objects})]
found = {{"denied": 0, "passed": 0, "other": 0}}
for number in range({tries}):
    if number % 1000 == 0 and os.path.exists("{stop}"):
        break
    try:
        os.close(os.open(names[number % {objects}], os.O_WRONLY if number // {objects} % 2 else os.O_RDONLY))
        found["passed"] += 1
    except OSError as error:
        found["denied" if error.errno == errno.EPERM else "other"] += 1
print(json.dumps(found))
"""
FILES = """
import os
os.umask(0)
for number in range({0}):
    {1}
"""
# the journal has room for every line of these tests, also where it is kept in memory
ROOM = """install -d /run/systemd/journald.conf.d
printf '[Journal]\\nRuntimeMaxUse=64M\\nRuntimeKeepFree=1M\\nSystemMaxUse=64M\\n' >/run/systemd/journald.conf.d/burst.conf
systemctl restart systemd-journald"""
# an executable's name that would move a cursor, set a title, end a line, forge a field, turn a line around, and be markup
NASTY = "\x1b[2J\x1b]0;x\x07\n_UID=1\r<script>alert(1)<script>\u202e"

# a record as programs of another layout would write it, by a program in the kernel that writes into the ring: 64 bytes
OTHER = """
import ctypes, os, struct, sys
sys.path.insert(0, "/usr/lib/exfil-guard")
sys.dont_write_bytecode = True
from exfil_guard.kernel import bpf, generations, mapspecs, pins
kernel = bpf.Kernel()
ring = kernel.get(pins.map_path(kernel, "events"))
def op(code, registers=0, offset=0, value=0):
    return struct.pack("<BBhi", code, registers, offset, value)
code = b"".join(op(0x7A, 10, -place, 0x1B1B1B1B) for place in range(8, 65, 8))    # fill it, on the stack
code += op(0x18, 0x11, 0, ring) + op(0)                                         # the ring
code += op(0xBF, 0xA2) + op(0x07, 2, 0, -64) + op(0xB7, 3, 0, 64) + op(0xB7, 4)  # where it is, its size, no flags
code += op(0x85, 0, 0, 130) + op(0xB7) + op(0x95)                               # bpf_ringbuf_output, and out
instructions, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
program = kernel._bpf(5, struct.pack(
    "=IIQQIIQII16s", 17, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence), 0, 0, 0, 0, 0, b"other"), "load")[0]
kernel._bpf(10, struct.pack("=IIIIQQIIIIQQII", program, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), "run")
"""


def play(lab, **variables):
    path = lab.folder / "audit.json"
    path.write_text(
        json.dumps(
            [
                {
                    "name": "Keep an audit trail",
                    "hosts": MACHINE,
                    "gather_facts": False,
                    "become": True,
                    "tasks": [
                        {
                            "name": "The trail",
                            "ansible.builtin.include_role": {"name": "exfil.guard.audit"},
                            "vars": dict({"exfil_guard_audit_fold_seconds": FOLD}, **variables),
                        }
                    ],
                }
            ]
        )
    )
    return lab.playbook(str(path))


def python(lab, machine, text, user="root"):
    coded = base64.b64encode(text.encode()).decode()
    return lab.ssh(machine, f"sudo -u {user} python3 -c \"import base64; exec(base64.b64decode('{coded}'))\"")


@pytest.fixture(name="audited")
def fixture_audited(lab):
    lab.ssh(MACHINE, "sudo sh -e", input=ROOM)
    done = play(lab)
    assert done.code == 0, done.text
    python(lab, MACHINE, FILES.format(OBJECTS, "open('%s%%d.csv' %% number, 'w').close()" % LEFT), "dora")
    try:
        settled(lab)
        yield lab
    finally:
        python(lab, MACHINE, FILES.format(OBJECTS, "os.unlink('%s%%d.csv' %% number)" % LEFT), "dora")
        done = play(lab, exfil_guard_state="absent")
        lab.ssh(MACHINE, "sudo rm -f /run/systemd/journald.conf.d/burst.conf; sudo systemctl restart systemd-journald")
    assert done.code == 0, done.text


def settled(lab, file_waits=False):
    """The status, when nothing waits and nothing is held back any more, but for the file."""
    found = {}

    def there():
        found.clear()
        found.update(lab.status(MACHINE))
        audit = found["audit"] or {}
        return audit.get("running") and not (
            found["events"]["waiting"]
            or audit["held"]
            or set(audit["undelivered"]) - ({"file"} if file_waits else set())
            or [each for each in audit["failing"] if not (file_waits and each.startswith(FILE))]
        )

    wait(300, there, "the trail is told whole")
    return found


def entries(lab, machine=MACHINE, folder="", *matches):
    text = lab.ssh(
        machine,
        "sudo journalctl {0} -q --all -o json _SYSTEMD_UNIT={1} _UID=0 EXFIL_GUARD_KIND=decision {2}".format(
            folder, UNIT, " ".join(matches)
        ),
    )
    return [json.loads(line) for line in text.splitlines()]


def told(lab):
    """Every decision in the journal: each line once, though a unit that was killed may tell some again."""
    return {
        (line["EXFIL_GUARD_VERDICT"], int(line["EXFIL_GUARD_SEQUENCE"]), int(line["EXFIL_GUARD_BOOTTIME_NS"])): line
        for line in entries(lab)
    }


def of_rule(status, name=RULE):
    return next(rule["denied"] for rule in status["rules"] if rule["name"] == name)


def cpu(lab):
    """Seconds of the processor that the unit has used since it was started the last time."""
    return int(lab.ssh(MACHINE, "systemctl show -p CPUUsageNSec --value " + UNIT)) / 1e9


class Burst:
    """Denied opens by alice, from a unit of its own, so that they go on by themselves."""

    def __init__(self, lab, tries=TRIES, file_waits=False):
        """Without ``tries`` until it is told to stop."""
        self.lab, self.tries, self.file_waits = lab, tries or 1 << 40, file_waits
        self.more = 0  # attempts beside those of the burst
        self.status, self.lines, self.cpu = settled(lab, file_waits), told(lab), cpu(lab)
        text = base64.b64encode(BURST.format(left=LEFT, objects=OBJECTS, tries=self.tries, stop=STOP).encode()).decode()
        lab.ssh(MACHINE, "sudo systemctl reset-failed burst 2>/dev/null; sudo rm -f /run/burst.json " + STOP)
        lab.ssh(
            MACHINE,
            "sudo systemd-run -q --unit burst --uid alice --collect --property=StandardOutput=truncate:/run/burst.json "
            f"python3 -c \"import base64; exec(base64.b64decode('{text}'))\"",
        )
        self.began = time.monotonic()

    def under_way(self):
        wait(120, lambda: self._decided() > TRIES // 50, "the burst has begun")
        assert self._decided() < self.tries, "the burst was over too soon to be disturbed"

    def _decided(self):
        return of_rule(self.lab.status(MACHINE)) - of_rule(self.status)

    def attempt(self):
        self.more += 1
        assert self.lab.may(MACHINE, "alice", "read:" + LEFT + "0.csv") == "denied"

    def stop(self):
        assert self.lab.ssh(MACHINE, "systemctl is-active burst; sudo touch " + STOP) == "active"
        wait(60, lambda: self.lab.ssh(MACHINE, "cat /run/burst.json 2>/dev/null || :"), "the burst ends")
        self.tries = json.loads(self.lab.ssh(MACHINE, "cat /run/burst.json"))["denied"]

    def ended(self):
        """How it was accounted for; asserts what always holds. Gives the counts of events, and the lines."""
        wait(1800, lambda: self.lab.ssh(MACHINE, "cat /run/burst.json 2>/dev/null || :"), "the burst ends")
        took = time.monotonic() - self.began
        found = json.loads(self.lab.ssh(MACHINE, "cat /run/burst.json"))
        assert found == {"denied": self.tries, "passed": 0, "other": 0}
        settled(self.lab, self.file_waits)
        self.attempt()  # after which a gap at the end of the burst shows as well
        after = settled(self.lab, self.file_waits)
        assert of_rule(after) - of_rule(self.status) == self.tries + self.more
        events = {key: after["events"][key] - self.status["events"][key] for key in ("decided", "written", "lost")}
        collected, missing = (after["audit"][key] - self.status["audit"][key] for key in ("collected", "missing"))
        lines = {key: line for key, line in told(self.lab).items() if key not in self.lines}
        counted = sum(int(line["EXFIL_GUARD_COUNT"]) for line in lines.values())
        print(
            f"{self.tries:,} denied in {took:.0f} s: {events}, collected {collected:,}, missing {missing:,}, told {counted:,} in {len(lines):,} lines; {cpu(self.lab) - self.cpu:.2f} s of the processor"
        )
        assert events["written"] + events["lost"] == events["decided"] >= self.tries + self.more
        assert after["events"]["unaccounted"] == 0 and after["audit"]["unreadable"] == 0
        assert counted == collected == events["written"]
        assert missing == events["lost"]
        return events, list(lines.values())


def test_a_flood(audited):
    _, lines = Burst(audited).ended()
    assert {line["EXFIL_GUARD_ACTION"] for line in lines if line["EXFIL_GUARD_USER"] == "alice"} == {"read", "write"}
    used = audited.ssh(MACHINE, "systemctl show -p MemoryCurrent --value " + UNIT)
    print(f"the unit's memory: {int(used) // 1_000_000} MB")


def test_the_unit_is_killed_in_a_flood(audited):
    before = int(audited.ssh(MACHINE, "systemctl show -p NRestarts --value " + UNIT))
    burst = Burst(audited)
    burst.under_way()
    audited.ssh(MACHINE, "sudo systemctl kill --signal=KILL " + UNIT)
    burst.cpu = 0  # the new one's begins anew
    burst.ended()
    assert int(audited.ssh(MACHINE, "systemctl show -p NRestarts --value " + UNIT)) == before + 1


def test_the_kernels_buffer_is_full_for_a_minute(audited):
    """The journal takes nothing meanwhile. It is held, not ended: what a journal in memory has would go with it. Its watchdog gives
    it three minutes."""
    burst = Burst(audited, None)
    burst.under_way()
    audited.ssh(MACHINE, "sudo systemctl kill --signal=STOP systemd-journald")
    try:
        wait(60, lambda: audited.status(MACHINE)["audit"]["failing"], "the journal's socket is full")
        wait(
            40,
            lambda: audited.status(MACHINE)["events"]["lost"] > burst.status["events"]["lost"],
            "the kernel's buffer is full",
        )
        found, began = [audited.status(MACHINE)], time.monotonic()
        while time.monotonic() - began < FULL:
            burst.attempt()
            time.sleep(5)
            found.append(audited.status(MACHINE))
        took = time.monotonic() - began
    finally:
        audited.ssh(MACHINE, "sudo systemctl kill --signal=CONT systemd-journald")
    burst.stop()
    lost = [each["events"]["lost"] for each in found]
    print(
        "full for {0:.0f} s: {1} events wait, lost were {2:,} and then {3:,}".format(
            took, {each["events"]["waiting"] for each in found}, lost[0], lost[-1]
        )
    )
    assert lost == sorted(set(lost))  # in each five seconds some more
    assert (
        len({(each["events"]["waiting"], each["events"]["written"], each["audit"]["collected"]) for each in found}) == 1
    )
    assert any("the journal does not accept entries" in problem for problem in found[-1]["problems"])
    events, _ = burst.ended()
    assert events["lost"] > lost[-1] - lost[0]


def test_the_disk_of_the_file_is_full(audited):
    """The file of JSON lines on a disk of its own. The journal goes on; what finds no room in the file is counted."""
    audited.ssh(MACHINE, f"sudo sh -ec 'mkdir -p {DISK}; mount -t tmpfs -o size=2m,mode=0755 exports-disk {DISK}'")
    try:
        done = play(audited, exfil_guard_audit_json_lines=FILE)
        assert done.code == 0, done.text
        before = settled(audited)
        assert audited.may(MACHINE, "alice", "read:" + LEFT + "3.csv") == "denied"
        wait(60, lambda: audited.ssh(MACHINE, f"sudo cat {FILE} 2>/dev/null || :"), "the file has a line")
        audited.ssh(MACHINE, f"sudo sh -c 'head -c 4M /dev/zero >{DISK}/filler 2>/dev/null || :'")
        room = f"df --output=avail {DISK} | tail -n 1"
        assert int(audited.ssh(MACHINE, room)) == 0
        for _ in range(4):  # the journal has all of each; for the file there is room for 500 lines to wait
            Burst(audited, 2 * OBJECTS, file_waits=True).ended()
            time.sleep(FOLD)
        status = audited.status(MACHINE)
        assert status["audit"]["undelivered"].get("file") == 500
        full = f"{FILE}: No space left on device"
        assert any(full in problem for problem in status["problems"]), status["problems"]
        text = audited.ssh(MACHINE, "sudo exfil-guard status || [ $? = 1 ]")
        print(text)
        assert "lines without room in the file" in text and "500 lines wait for the file" in text and full in text

        audited.ssh(MACHINE, f"sudo rm {DISK}/filler")
        after = settled(audited)
        assert not [problem for problem in after["problems"] if FILE in problem]
        written = [json.loads(line) for line in audited.ssh(MACHINE, "sudo cat " + FILE).splitlines()]
        lines = after["audit"]["lines"] - before["audit"]["lines"]
        lost = after["audit"]["file_lost"] - before["audit"]["file_lost"]
        print(f"{lines} lines, in the file {len(written)}, counted as lost {lost}")
        assert lost > 0 and len(written) + lost == lines
        in_journal = {(verdict, sequence) for verdict, sequence, _ in told(audited)}
        assert {(each["verdict"], each["sequence"]) for each in written if each["kind"] == "decision"} <= in_journal
        assert audited.may(MACHINE, "alice", "read:" + LEFT + "7.csv") == "denied"
        wait(60, lambda: LEFT + "7.csv" in audited.ssh(MACHINE, "sudo tail -n 1 " + FILE), "the file goes on")
    finally:
        done = play(audited)
        audited.ssh(MACHINE, f"sudo sh -c 'umount {DISK}; rmdir {DISK}'")
    assert done.code == 0, done.text


def test_the_clock_is_set_back_in_a_flood(audited):
    clock = "import time\nprint(time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_BOOTTIME))"
    settime = "import time\ntime.clock_settime(time.CLOCK_REALTIME, {0} + time.clock_gettime(time.CLOCK_BOOTTIME))"
    offset = float(python(audited, MACHINE, clock))
    burst = Burst(audited)
    burst.under_way()
    python(audited, MACHINE, settime.format(offset - 3600))
    try:
        _, lines = burst.ended()
    finally:
        python(audited, MACHINE, settime.format(offset))
    lines.sort(key=lambda line: int(line["EXFIL_GUARD_BOOTTIME_NS"]))
    times = [line["EXFIL_GUARD_TIME"] for line in lines]
    assert any(later < earlier for earlier, later in zip(times, times[1:])), (
        "no line was told by the clock that was set back"
    )
    for verdict in {line["EXFIL_GUARD_VERDICT"] for line in lines}:  # the order is known all the same
        numbers = [int(line["EXFIL_GUARD_SEQUENCE"]) for line in lines if line["EXFIL_GUARD_VERDICT"] == verdict]
        assert numbers == sorted(numbers)


def test_an_executable_whose_name_deceives(audited):
    before = told(audited)
    python(audited, MACHINE, f"import shutil\nshutil.copy('/usr/bin/cat', '/srv/public/' + {NASTY!r})")
    try:
        ran = python(
            audited,
            MACHINE,
            f"import subprocess\nprint(subprocess.run(['/srv/public/' + {NASTY!r}, '{LEFT}0.csv'],"
            "stderr=subprocess.DEVNULL).returncode)",
            "alice",
        )
    finally:
        python(audited, MACHINE, f"import os\nos.unlink('/srv/public/' + {NASTY!r})")
    assert ran == "1"  # it ran, and was denied
    settled(audited)
    lines = [line for key, line in told(audited).items() if key not in before and line["EXFIL_GUARD_USER"] == "alice"]
    assert len(lines) == 1 and lines[0]["_UID"] == "0"
    assert (
        lines[0]["EXFIL_GUARD_EXECUTABLE"]
        == "/srv/public/\\x1b[2J\\x1b]0;x\\x07\\x0a_UID=1\\x0d<script>alert(1)<script>\\xe2\\x80\\xae"
    )
    assert all(value.isprintable() for key, value in lines[0].items() if key.startswith(("EXFIL_GUARD_", "MESSAGE")))
    said = audited.ssh(MACHINE, "sudo exfil-guard why --user alice --limit 1")
    assert "\\x1b[2J" in said and all(line.isprintable() for line in said.splitlines())


def test_a_record_of_another_layout(audited):
    """It is counted and told, and nothing in it is taken for anything; what comes after it is told as ever."""
    before = audited.status(MACHINE)
    audited.ssh(MACHINE, "sudo systemctl stop " + UNIT)
    python(audited, MACHINE, OTHER)
    assert audited.may(MACHINE, "alice", "read:" + LEFT + "5.csv") == "denied"
    waiting = audited.ssh(MACHINE, "sudo exfil-guard events").splitlines()
    assert (
        waiting[0] == "an event of 64 bytes is not of layout 1 and was not read"
        and LEFT + "5.csv" in waiting[1]
        and len(waiting) == 2
    )
    assert LEFT + "5.csv" in audited.ssh(MACHINE, "sudo exfil-guard why --user alice --limit 1")
    audited.ssh(MACHINE, "sudo systemctl start " + UNIT)
    after = settled(audited)
    assert after["audit"]["unreadable"] == before["audit"]["unreadable"] + 1
    assert after["audit"]["collected"] == before["audit"]["collected"] + 2
    assert after["events"]["unaccounted"] == 0
    assert "1 unreadable" in audited.ssh(MACHINE, "sudo exfil-guard status || [ $? = 1 ]")
    (note,) = json.loads(
        "["
        + ",".join(
            audited.ssh(
                MACHINE, f"sudo journalctl -q -o json _SYSTEMD_UNIT={UNIT} EXFIL_GUARD_KIND=unreadable"
            ).splitlines()
        )
        + "]"
    )
    assert (note["EXFIL_GUARD_COUNT"], note["EXFIL_GUARD_SIZE"]) == ("1", "64")
    print(note["MESSAGE"])
    assert entries(audited, MACHINE, "", "EXFIL_GUARD_OBJECT=" + LEFT + "5.csv")
    module = audited.folder / "module.json"
    module.write_text(
        json.dumps(
            [
                {
                    "name": "Read it",
                    "hosts": MACHINE,
                    "gather_facts": False,
                    "become": True,
                    "tasks": [
                        {"name": "Ask", "exfil.guard.audit_info": {}, "register": "found"},
                        {
                            "name": "Tell",
                            "ansible.builtin.assert": {
                                "that": "found.records | selectattr('kind', 'equalto', 'unreadable') | list | length == 1"
                            },
                        },
                    ],
                }
            ]
        )
    )
    assert audited.playbook(str(module)).code == 0


def test_the_trail_on_another_machine(audited):
    """Over http, since this network has nobody else in it; with https role audit takes a key and two certificates."""
    folder = "/var/tmp/collected"
    audited.ssh(
        COLLECTOR,
        f"sudo sh -ec 'systemctl stop collector 2>/dev/null || :; rm -rf {folder}; install -d {folder}; "
        f"systemd-run -q --unit collector --collect /lib/systemd/systemd-journal-remote --listen-http={ADDRESS}:{PORT} "
        f"--output={folder}'",
    )
    before = of_rule(settled(audited), NETWORK_RULE)
    try:
        done = play(
            audited, exfil_guard_audit_upload_url=f"http://{ADDRESS}:{PORT}", exfil_guard_audit_upload_plain=True
        )
        assert done.code == 0, done.text
        again = play(
            audited, exfil_guard_audit_upload_url=f"http://{ADDRESS}:{PORT}", exfil_guard_audit_upload_plain=True
        )
        assert again.code == 0 and "changed=0" in again.text, again.text
        where = "--directory=" + folder
        assert audited.may(MACHINE, "alice", "write:" + LEFT + "0.csv") == "denied"
        wait(
            300,
            lambda: entries(audited, COLLECTOR, where, "EXFIL_GUARD_OBJECT=" + LEFT + "0.csv"),
            "what was there before has arrived",
        )

        match = "EXFIL_GUARD_OBJECT=" + LEFT + "7.csv"
        assert audited.may(MACHINE, "alice", "read:" + LEFT + "7.csv") == "denied"
        began, ends = time.monotonic(), time.monotonic() + 60
        found = []
        while not found and time.monotonic() < ends:
            found = entries(audited, COLLECTOR, where, match)
        print(f"read on the collector {time.monotonic() - began:.1f} s after the attempt")
        here = entries(audited, MACHINE, "", match)
        assert len(found) == len(here) == 1
        there, here = (
            {key: value for key, value in line.items() if not key.startswith("__")} for line in (found[0], here[0])
        )
        assert there == here and here["EXFIL_GUARD_USER"] == "alice" and here["_HOSTNAME"] == MACHINE
        assert of_rule(audited.status(MACHINE), NETWORK_RULE) == before  # the policy lets it through

        # the collector is away for a while: what happens meanwhile is sent afterwards
        audited.ssh(COLLECTOR, "sudo systemctl stop collector")
        match = "EXFIL_GUARD_OBJECT=" + LEFT + "8.csv"
        assert audited.may(MACHINE, "alice", "read:" + LEFT + "8.csv") == "denied"
        time.sleep(15)
        audited.ssh(
            COLLECTOR,
            "sudo systemd-run -q --unit collector --collect /lib/systemd/systemd-journal-remote "
            f"--listen-http={ADDRESS}:{PORT} --output={folder}",
        )
        wait(120, lambda: entries(audited, COLLECTOR, where, match), "the journal is sent on")
    finally:
        done = play(audited)
        audited.ssh(COLLECTOR, f"sudo sh -c 'systemctl stop collector; rm -rf {folder}'")
    assert done.code == 0, done.text
    state = audited.ssh(
        MACHINE, "systemctl show -p ActiveState --value systemd-journal-upload; ls /etc/systemd/journal-upload.conf.d"
    )
    assert state == "inactive"
