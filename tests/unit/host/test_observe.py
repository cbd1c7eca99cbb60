# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The observer on the host, without a kernel: from what its programs write to lines, and what goes wrong."""

import errno
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import types
from pathlib import Path

import jsonschema
import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError, PolicyErrors
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import lock, mountinfo
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy.model import NO_ID
from ansible_collections.exfil.guard.plugins.module_utils.observe import collect, compiled, lines, records
from ansible_collections.exfil.guard.plugins.modules import observe
from fake_kernel import GOOD, FakeKernel
from fake_system import FakeSystem

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "schemas" / "observation.schema.json").read_text()))
DISK, SRV, TMP = 8 << 20 | 1, 8 << 20 | 2, 30
TCP, UDP = 6, 17
GONE = records.Chain(0, (), False)


def chain(device, path, whole=True):
    return records.Chain(device, tuple(part.encode() for part in path.split("/") if part), whole)


def file(number, device=SRV):
    return records.WHAT.pack(records.What(number, device, 1, 0, 0, 0, 0, b""))


def endpoint(address, port, protocol=TCP):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return records.WHAT.pack(records.What(0, 0, 0, family, protocol, port, 0, socket.inet_pton(family, address)))


def who(uid=1000, **more):
    base = records.Subject(
        uid, uid, uid, NO_ID, (500,), chain(DISK, "/usr/bin/cat"), chain(0, "system.slice/app.service")
    )
    return base._replace(**more)


def times(first=10**9, count=1):
    return records.Times(count, first, first + count)


def number(action):
    return records.ACTIONS.index(action)


def told(entries, subjects=None, paths=None, units=None, listings=None, lost=None):
    system = FakeSystem()
    view = lines.View(system, mountinfo.visible(mountinfo.parse_mounts(system.mounts)), 1.7e9, "boot", "web1", "6.1.0")
    seen = lines.Seen(
        subjects or {1: who()},
        paths or {},
        entries,
        units or {},
        listings or {},
        lost or dict.fromkeys(records.LOST, 0),
    )
    found = lines.lines(seen, view, actions=records.ACTIONS, seconds=60, began=1.7e9, ended=1.7e9 + 60)
    for line in found:
        SCHEMA.validate(line)
    assert found[0]["kind"] == "start" and found[-1]["kind"] == "end" and found[-1]["lines"] == len(found) - 1
    assert lines.to_text(found).count("\n") == len(found)
    return found


def seen(*arguments, **more):
    return [line for line in told(*arguments, **more) if line["kind"] == "seen"]


# ---- the layout ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
def test_structures_are_those_of_the_programs(tmp_path):
    program = tmp_path / "sizes.c"
    names = {
        "who": records.WHO,
        "what": records.WHAT,
        "entry": records.ENTRY,
        "times": records.TIMES,
        "chain": records.CHAIN,
        "subject": records.SUBJECT,
        "object": records.OBJECT,
    }
    program.write_text(
        '#include <stdio.h>\n#include "observer/observe.h"\nint main(void) {{ {0} '
        'printf("%d %d %d", OBSERVE_CHDIR, OBSERVE_LOSSES, OBSERVE_GROUPS); return 0; }}'.format(
            " ".join(f'printf("%zu\\n", sizeof(struct observe_{name}));' for name in names)
        )
    )
    subprocess.run(["gcc", "-I", ROOT / "bpf", "-o", tmp_path / "sizes", program], check=True)
    said = subprocess.run([tmp_path / "sizes"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    assert [int(each) for each in said[:-3]] == [each.size for each in names.values()]
    assert [int(each) for each in said[-3:]] == [number("chdir"), len(records.LOST), records.GROUPS]


def test_records_are_decoded_and_others_are_none():
    def raw(path, device=SRV, whole=1):
        names = b"".join(part.encode() + b"\0" for part in reversed(path.split("/")))
        return records.CHAIN.pack(records.RawChain(device, len(names), whole, 0, names))

    subject = records.SUBJECT.pack(
        records.RawSubject(
            kind=1,
            group_count=40,
            subject=77,
            who=records.WHO.pack(records.Who(1, 2, 3, 4, 5, 6, 7, 8, 9)),
            groups=tuple(range(32)),
            executable=raw("usr/bin/cat", whole=0),
            cgroup=raw("a.slice/b.service"),
        )
    )
    place = records.OBJECT.pack(records.RawObject(2, 0, file(5), raw("exports/a.csv")))
    subjects, objects = {}, {}
    assert records.fresh([subject, place, place, b"", b"\7\0\0\0", place[:50]], subjects, objects) == [file(5)]
    assert objects == {file(5): chain(SRV, "exports/a.csv")}
    assert subjects[77] == records.Subject(
        6, 7, 8, 9, tuple(range(32)), chain(SRV, "usr/bin/cat", False), chain(SRV, "a.slice/b.service")
    )
    key = records.ENTRY.pack(records.Entry(77, number("write"), 0, file(5)))
    assert records.entries({key: records.TIMES.pack(records.Times(3, 4, 5))}) == [
        (77, number("write"), file(5), records.Times(3, 4, 5))
    ]
    for opened, names in (
        (16 | 1, ["read"]),
        (16 | 2, ["write"]),
        (16 | 3, ["read", "write"]),
        (16 | 32 | 1, ["execute"]),
        (16, []),
    ):
        key = records.ENTRY.pack(records.Entry(77, opened, 0, file(5)))
        assert [each[1] for each in records.entries({key: records.TIMES.pack(records.Times(1, 1, 1))})] == [
            number(name) for name in names
        ]


# ---- lines --------------------------------------------------------------------------------------------------------


def test_a_line_says_who_what_and_how_often():
    (line,) = seen(
        [(1, number("read"), file(5), times(count=3))],
        paths={file(5): "/srv/exports/a.csv"},
        subjects={1: who(login_uid=1001)},
    )
    assert line == {
        "observation": 1,
        "kind": "seen",
        "action": "read",
        "user": "alice",
        "uid": 1000,
        "effective_user": "alice",
        "euid": 1000,
        "login_user": "bob",
        "login_uid": 1001,
        "gid": 1000,
        "groups": [500],
        "group_names": ["alice", "dba"],
        "unit": "app.service",
        "cgroup": "/system.slice/app.service",
        "executable": "/usr/bin/cat",
        "object": "/srv/exports/a.csv",
        "path": "/srv/exports/a.csv",
        "count": 3,
        "time": "2023-11-14T22:13:21.000+00:00",
        "last_time": "2023-11-14T22:13:21.000+00:00",
    }


def test_endpoints():
    found = seen(
        [
            (1, number("connect"), endpoint("10.0.0.1", 443), times()),
            (1, number("send"), endpoint("fd00::1", 53, UDP), times(2 * 10**9)),
        ]
    )
    assert [(line["address"], line["port"], line["protocol"], line["object"]) for line in found] == [
        ("10.0.0.1", 443, "tcp", "10.0.0.1:443/tcp"),
        ("fd00::1", 53, "udp", "[fd00::1]:53/udp"),
    ]


def test_the_same_file_by_two_numbers_is_one_line():
    paths = {file(5): "/srv/a", file(6): "/srv/a", file(7): "/srv/b"}
    found = seen([(1, number("read"), file(each), times(each * 10**9, each)) for each in (7, 6, 5)], paths=paths)
    assert [(line["path"], line["count"]) for line in found] == [("/srv/a", 11), ("/srv/b", 7)]
    assert found[0]["time"] < found[0]["last_time"] < found[1]["time"]


def test_users_apart_stay_apart():
    subjects = {1: who(), 2: who(euid=0), 3: who(login_uid=1001), 4: who(groups=()), 5: who(executable=GONE)}
    found = seen([(each, number("read"), file(5), times()) for each in subjects], subjects, {file(5): "/srv/a"})
    assert len(found) == 5 and "executable" not in found[4]


@pytest.mark.parametrize(
    "name, shown",
    [
        ("a\x1b[2J", "a\\x1b[2J"),
        ("<script>alert(1)</script>", "[...]"),
        ("a\nb", "a\\x0ab"),
        ("a\\b", "a\\\\b"),
        ("\udcff", "\\xff"),
    ],
)
def test_names_are_harmless(name, shown):
    raw = records.Chain(DISK, (b"usr", os.fsencode(name)), True)
    if shown == "[...]":  # a slash can be in no name; the rest is left as it is and quoted by JSON
        raw, shown = records.Chain(DISK, (b"usr", b"<script>"), True), "<script>"
    (line,) = seen([(1, number("read"), file(5), times())], {1: who(executable=raw)}, {file(5): "/srv/a"})
    assert line["executable"] == "/usr/" + shown
    assert json.loads(lines.to_text([line])) == line and "\x1b" not in lines.to_text([line])


def test_paths_are_those_of_policies():
    mounts = mountinfo.visible(mountinfo.parse_mounts(FakeSystem().mounts))
    assert lines.path_of(chain(SRV, "/exports/a"), mounts) == "/srv/exports/a"
    assert lines.path_of(chain(DISK, "/var/real/x"), mounts) == "/var/real/x"
    assert lines.path_of(chain(DISK, ""), mounts) == "/"
    assert lines.path_of(chain(99 << 20 | 3, "/x"), mounts) == "[device 99:3]/x"
    assert lines.path_of(chain(SRV, "deep/x", whole=False), mounts) == "[...]/deep/x"
    assert lines.path_of(GONE, mounts) == ""
    assert lines.real_path(chain(SRV, "/exports"), mounts) == (b"/srv/exports", "")
    assert lines.real_path(chain(99 << 20, "/x"), mounts)[0] is None
    remote = [mount._replace(type="fuse.sshfs") for mount in mounts]
    assert lines.real_path(chain(SRV, "/x"), remote) == (None, "a filesystem of the kind fuse.sshfs is not read")


def test_what_is_not_known_counts_as_lost():
    found = told(
        [(9, number("read"), file(5), times(count=4)), (1, number("read"), file(6), times(count=2))],
        paths={file(5): "/srv/a"},
        lost={"subject": 1, "object": 0, "entry": 7, "unit": 0},
    )
    assert [line["kind"] for line in found] == ["start", "end"]
    assert found[-1]["lost"] == {"subject": 5, "object": 2, "entry": 7, "unit": 0}


def test_a_listing_is_told_once_with_who_came_first():
    subjects = {1: who(), 2: who(1001)}
    entries = [(2, number("chdir"), file(5), times(1)), (1, number("chdir"), file(5), times(5))]
    found = told(entries, subjects, {file(5): "/srv"}, listings={file(5): lines.Listing(("a", "b"), 3)})
    (listing,) = [line for line in found if line["kind"] == "listing"]
    assert (listing["user"], listing["path"], listing["entries"], listing["more"]) == ("bob", "/srv", ["a", "b"], 3)


def test_a_unit_has_the_program_that_was_executed_first_in_it():
    subjects = {
        1: who(0, executable=chain(DISK, "/usr/lib/systemd/systemd")),
        2: who(1001, executable=chain(DISK, "/usr/bin/app")),
    }
    entries = [(1, number("execute"), file(5), times(5)), (2, number("execute"), file(6), times(6))]
    found = told(
        entries,
        subjects,
        {file(5): "/usr/bin/app", file(6): "/usr/bin/more"},
        units={b"/system.slice/app.service": times(4, 2), b"/user.slice": times(4), b"/x/app.service": times(9)},
    )
    (unit,) = [line for line in found if line["kind"] == "unit"]
    assert (unit["unit"], unit["executable"], unit["user"], unit["count"]) == ("app.service", "/usr/bin/app", "bob", 3)


# ---- directories --------------------------------------------------------------------------------------------------


def test_a_directory_is_listed_as_far_as_asked_and_no_link_followed(tmp_path):
    for name in ("a", "b\x1b", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    inode = os.stat(tmp_path).st_ino
    everything = collect.list_directory(os.fsencode(tmp_path), inode, 10)
    assert everything == lines.Listing(("a", "b\\x1b", "c", "link"), 0)
    part = collect.list_directory(os.fsencode(tmp_path), inode, 1)
    assert len(part.entries) == 1 and part.more == 3
    assert collect.list_directory(os.fsencode(tmp_path), inode + 1, 9).trouble == "another directory has its name now"
    assert collect.list_directory(os.fsencode(tmp_path / "link"), inode, 9).trouble
    assert collect.list_directory(os.fsencode(tmp_path / "none"), inode, 9).trouble == os.strerror(errno.ENOENT)


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.fixture
def private(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    return folder


def test_options_are_refused_all_at_once(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(PolicyErrors) as refused:
        collect.check_options(0, str(shared / "x"), ["read", "fly"], 1001)
    said = str(refused.value)
    for part in (
        "seconds: 0; expected 1 to 604800",
        "names: 1001",
        "actions: fly",
        "others may write in " + str(shared),
    ):
        assert part in said
    for path, part in (("x", "an absolute path"), (str(tmp_path / "none" / "x"), "No such file")):
        with pytest.raises(PolicyErrors, match=part):
            collect.check_options(604800, path, ["read"], 0)


def test_good_options(private):
    for seconds in (1, 604800):
        collect.check_options(seconds, str(private / "x"), ["chdir"], 1000)
    with pytest.raises(PolicyErrors, match="604801"):
        collect.check_options(604801, str(private / "x"), ["chdir"], 1000)


def test_a_kernel_without_btf(monkeypatch, tmp_path):
    kernel = FakeKernel()
    kernel.found = GOOD._replace(libbpf="")
    monkeypatch.setattr(collect, "BTF", str(tmp_path / "none"))
    with pytest.raises(PolicyErrors) as refused:
        collect.check_host(kernel, ["chdir"])
    assert "has no BTF. Boot a kernel with CONFIG_DEBUG_INFO_BTF=y" in str(refused.value)
    assert "libbpf.so.1 is not there. Install libbpf 1.0" in str(refused.value)


def test_without_bcc_with_another_bcc_and_without_headers(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(EnforcerError, match="python3-bpfcc is not installed.*Install Debian's package"):
        compiled.check()
    monkeypatch.setitem(sys.modules, "bcc", types.ModuleType("bcc"))
    with pytest.raises(EnforcerError, match="is not the BPF Compiler Collection"):
        compiled.check()
    right = types.ModuleType("bcc")
    right.BPF = object
    monkeypatch.setitem(sys.modules, "bcc", right)
    with pytest.raises(EnforcerError, match="the headers of the running kernel .* are not installed"):
        compiled.check(str(tmp_path))
    (tmp_path / os.uname().release / "build").mkdir(parents=True)
    compiled.check(str(tmp_path))


def test_what_bcc_says_is_told_in_one_line(monkeypatch):
    def refuse(**_):
        os.write(2, b"a.c:1: error: no such thing\n")
        raise Exception("Failed to compile BPF module")  # as BCC does

    wrong = types.ModuleType("bcc")
    wrong.BPF = refuse
    monkeypatch.setitem(sys.modules, "bcc", wrong)
    with pytest.raises(
        EnforcerError, match=r"Failed to compile BPF module; BCC says: a.c:1: error: no such thing\. Check"
    ):
        compiled.load("")


def test_nothing_is_left_of_a_file_for_which_there_is_no_room(private, monkeypatch):
    path = private / "observed.jsonl"
    path.write_text("earlier\n")

    def full(_fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(EnforcerError, match="cannot be written to .*: No space left on device. Make room there"):
            collect.write([{"kind": "end"}], str(path))
    assert path.read_text() == "earlier\n" and os.listdir(private) == ["observed.jsonl"]
    collect.write([{"kind": "end"}], str(path))
    assert path.read_text() == '{"kind": "end"}\n' and path.stat().st_mode & 0o777 == 0o600


# ---- a whole run --------------------------------------------------------------------------------------------------


class Source:
    """Stands for the programs: what they would have told."""

    made = []

    def __init__(self, _kernel, data):
        self.data, self.calls, self.subjects, self.objects = data, [], {1: who()}, {file(5): chain(SRV, "exports")}
        self.new = [file(5)]
        Source.made.append(self)

    def drain(self):
        new, self.new = self.new, []
        return new

    def waits(self):
        return False

    def entries(self):
        return [(1, number("chdir"), file(5), times(count=2))]

    def units(self):
        return {}

    def lost(self):
        return {"entry": 3}

    def close(self):
        self.calls.append("close")

    def release(self):
        self.calls.append("release")


class Host(FakeSystem):
    def host_mounts(self):
        return self.mounts


@pytest.fixture
def stood(monkeypatch, tmp_path):
    Source.made = []
    btf = tmp_path / "btf"
    btf.write_text("")
    monkeypatch.setattr(collect, "BTF", str(btf))
    monkeypatch.setattr(collect, "_Chdir", Source)
    monkeypatch.setattr(collect, "LOCK", str(tmp_path / "lock"))
    return tmp_path


def run(stood, path, seconds=1, ready=None):
    return collect.run(
        FakeKernel(),
        Host(),
        collect.Options(seconds=seconds, path=str(path), actions=["chdir"], names=5),
        collect.Programs(b"object", "", ""),
        lock_path=str(stood / "lock"),
        ready=ready,
    )


def test_a_run_writes_a_whole_file_and_lets_go_of_everything(stood, private):
    assert run(stood, private / "o") == {"lines": 4, "lost": {"subject": 0, "object": 0, "entry": 3, "unit": 0}}
    found = [json.loads(line) for line in (private / "o").read_text().splitlines()]
    for line in found:
        SCHEMA.validate(line)
    assert [line["kind"] for line in found] == ["start", "seen", "listing", "end"]
    assert found[0]["actions"] == ["chdir"] and found[2]["trouble"]
    assert [source.calls for source in Source.made] == [["close", "release"]]


def test_a_second_observer_is_told_of_the_first(stood, private):
    with lock.hold("observing", str(stood / "lock")):
        assert collect.holder() == (f"pid {os.getpid()}, observing", os.getpid())
        with pytest.raises(EnforcerError, match=f"another run holds the lock .* pid {os.getpid()}, observing"):
            run(stood, private / "o")
    assert collect.holder() == ("", 0) and os.listdir(private) == [] and Source.made == []


def test_an_error_lets_go_of_everything(stood, private, monkeypatch):
    def broken(self):
        raise OSError(errno.EIO, "no answer")

    monkeypatch.setattr(Source, "entries", broken)
    with pytest.raises(OSError, match="no answer"):
        run(stood, private / "o")
    assert [source.calls for source in Source.made] == [["close", "release"]] and os.listdir(private) == []


def test_being_told_to_stop_is_an_end_as_any_other(stood, private):
    run(stood, private / "o", seconds=1000, ready=lambda: os.kill(os.getpid(), 15))
    assert (private / "o").read_text().count("\n") == 4


# ---- the module ---------------------------------------------------------------------------------------------------


def test_check_mode_says_what_is_lacking_and_does_nothing(stood, private):
    parameters = {"file": str(private / "o"), "actions": ["chdir"], "seconds": 0, "names": 10}
    result = observe.observe(parameters, FakeKernel(), Host(), True)
    assert result["changed"] and result["lacking"] == [
        "seconds: 0; expected 1 to 604800 (7 days). Observe again for longer"
    ]
    assert result["diff"]["prepared"] == "observe for 0 seconds: chdir\n+ {0}\n".format(private / "o")
    assert os.listdir(private) == [] and Source.made == []


def test_stopping_where_nothing_runs_changes_nothing(stood):
    for check in (True, False):
        assert observe.stopped(check) == {"changed": False, "diff": {"prepared": ""}}


def test_units_of_maps_end_at_their_nul():
    class Kernel:
        def read_all(self, _fd):
            return {records.UNIT.pack(records.Unit(b"/a.service")): records.TIMES.pack(records.Times(1, 2, 3))}

    source = collect.Source.__new__(collect.Source)
    source._kernel, source._maps = Kernel(), {"units": 3}
    assert source.units() == {b"/a.service": records.Times(1, 2, 3)}
    assert struct.calcsize("=3Q") == records.TIMES.size
