# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import re

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import automaton
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import PolicyErrors
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import mountinfo
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.system import Step, System
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import semantics, switches
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy.model import PathPattern
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import encoding, resolver
from fake_system import FakeSystem
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
SDA, SDB, SDC = 8 << 20 | 1, 8 << 20 | 2, 8 << 20 | 3


def document(**parts):
    return dict(
        {
            "policy": 1,
            "mode": "enforce",
            "boot": "require",
            "subjects": {},
            "resources": {},
            "destinations": {},
            "rules": [],
            "assertions": [],
        },
        **parts,
    )


def located(system, *paths, **more):
    found = resolver.resolve(document(resources={"r": dict(paths=list(paths), **more)}), system)
    return {(each.device, "/".join(each.components)) for each in found.resources["r"].paths}


def services(system, *names, **more):
    found = resolver.resolve(document(subjects={"s": dict(services=list(names), **more)}), system)
    return {"/".join(each) for each in found.subjects["s"].services}


def test_paths_go_through_every_mount_that_their_names_lead_to():
    system = FakeSystem()
    assert located(system, "/srv/exports/*.csv") == {(SDB, "exports/*.csv"), (SDA, "srv/exports/*.csv")}
    assert located(system, "/srv/**") == {(SDB, "**"), (SDA, "srv/**")}
    assert located(system, "/srv") == {(SDB, ""), (SDA, "srv")}
    assert (SDA, "var/real/a") in located(system, "/mnt/a", optional=True)
    assert located(system, "/**") == {
        (SDA, "**"),
        (SDB, "**"),
        (SDC, "**"),
        (SDA, "var/real/**"),
        (30, "**"),
        *((layout.KIND + number, "**") for number in range(len(layout.KINDS))),
    }
    assert (SDB, "x") in located(system, "/*/x")
    assert located(system, "/with space/**") == {(SDC, "**"), (SDA, "with space/**")}


def test_a_link_in_the_literal_part_is_followed_and_kept():
    system = FakeSystem()
    system.links["/var/exports"] = "/srv/exports"
    assert (SDB, "exports/**") in located(system, "/var/exports/**")
    assert (SDA, "var/exports/**") in located(system, "/var/exports/**")


def test_a_hidden_mount_is_covered():
    """Who opened something there before still reaches it."""
    system = FakeSystem()
    system.mounts += "30 23 8:9 / /srv rw - ext4 /dev/sdd rw\n31 23 8:10 / /srv/exports rw - ext4 /dev/sde rw\n"
    assert located(system, "/srv/exports/**") == {
        (SDA, "srv/exports/**"),
        (SDB, "exports/**"),
        (8 << 20 | 9, "exports/**"),
        (8 << 20 | 10, "**"),
    }
    found = resolver.resolve(document(), system)
    assert {8 << 20 | 9, 8 << 20 | 10, SDB} <= found.superblocks
    # the canary's file, and the executable of the task that applies, are where a path leads now
    assert resolver.visible_place(system, "/srv/exports/a") is None
    system.files.add("/srv/exports/a")
    assert resolver.visible_place(system, "/srv/exports/a") == PathPattern(8 << 20 | 9, ("exports", "a"))


COVERED = document(
    resources={"r": {"paths": ["/srv/**"]}}, rules=[{"name": "no", "deny": ["read"], "resources": ["r"]}]
)
VOLUME = "30 23 0:47 / /srv/volume rw - tmpfs tmpfs rw\n"
BOUND = "30 23 8:3 /inside /srv/volume rw - ext4 /dev/sdc rw\n"


def again(system, last, wanted=COVERED, **more):
    """Resolved again, stored in between."""
    stored = encoding.from_json(json.loads(json.dumps(encoding.to_json(last))))
    assert stored == last
    return resolver.resolve(wanted, system, resolver.Last(stored, again=True, refresh=True, **more))


def covered(found):
    return {(each.device, "/".join(each.components)) for each in found.resources["r"].paths}


def test_a_detached_pseudo_filesystem_stays_covered():
    """Any other filesystem without a mount is unknown, and so denied."""
    system = FakeSystem()
    plain = system.mounts
    system.mounts = plain + VOLUME
    first = resolver.resolve(COVERED, system)
    assert (47, "**") in covered(first) and 47 in first.superblocks
    system.mounts = plain
    second = again(system, first)
    assert (47, "**") in covered(second) and 47 in second.superblocks
    assert again(system, second) == second
    # the number as that of another filesystem
    system.mounts = plain + VOLUME.replace("/srv/volume", "/run/user/1000")
    assert (47, "**") not in covered(again(system, second))
    # another document, and another boot
    system.mounts = plain
    assert (47, "**") not in covered(resolver.resolve(COVERED, system, resolver.Last(second)))
    assert resolver.renumber(encoding.to_json(second), system) == resolver.resolve(COVERED, system)


def test_a_detached_bind_mount_stays_covered():
    system = FakeSystem()
    plain = system.mounts
    system.mounts = plain + BOUND
    first = resolver.resolve(COVERED, system)
    assert (SDC, "inside/**") in covered(first)
    system.mounts = plain
    second = again(system, first)
    assert (SDC, "inside/**") in covered(second) and again(system, second) == second
    system.mounts = plain.replace("/dev/sdc", "/dev/sdx")  # another disk under that number
    assert (SDC, "inside/**") not in covered(again(system, second))


def test_what_stays_is_limited():
    system = FakeSystem()
    plain = system.mounts
    last = resolver.resolve(COVERED, system)
    for number in range(resolver._PATTERNS_KEPT + 20):
        system.mounts = plain + BOUND.replace("/inside", f"/inside{number}")
        last = again(system, last)
    assert len(covered(last)) <= resolver._PATTERNS_KEPT + 4
    many = "".join(VOLUME.replace("0:47", f"0:{number}") for number in range(100, 900))
    system.mounts = plain + many
    last = again(system, last)
    system.mounts = plain
    assert len(covered(again(system, last))) <= resolver._PATTERNS_KEPT + resolver._DETACHED_KEPT + 4


@pytest.mark.parametrize("name", ("*", "**", "a*b", "*" * 40, "plain"))
def test_the_name_of_a_bind_mounts_source_is_no_pattern(name):
    """Whoever may rename the folder would choose what the rule covers."""
    system = FakeSystem()
    system.files.add("/srv/volume")
    system.mounts += f"30 23 8:3 /shared/{name} /srv/volume rw - ext4 /dev/sdc rw\n"
    found = resolver.resolve(document(resources={"r": {"paths": ["/srv/volume/**"]}}, rules=COVERED["rules"]), system)
    (pattern,) = (each for each in found.resources["r"].paths if each.device == SDC)
    accepted = automaton.build([{pattern.components: 1}])
    for path in (
        ("shared", name),
        ("shared", name, "a", "b"),
        ("shared", "other"),
        ("shared", "axb", "a"),
        ("shared",),
    ):
        wanted = path[:2] == ("shared", name)
        assert semantics.matches(pattern.components, path) == wanted
        assert bool(walked(accepted, path)) == wanted


def walked(built, path):
    """What the automaton accepts at a path, as bpf/object/path.h goes through it."""
    at = built.starts[0]
    for component in path:
        state, name = built.states[at], component.encode()
        if not state.bytes:
            at = state.edges.get(name, state.otherwise)
            continue
        row, following = built.rows[state.bytes - 1], 0
        for byte in name:
            following = row.next.get(byte, 0)
            if not following:
                break
            row = built.rows[following - 1]
        at = row.target if following else state.otherwise
    return built.states[at].accepts


# ---- what a user does to his own paths ------------------------------------------------------------------------------


def homes():
    system = FakeSystem()
    system.files |= {"/homes/alice/exports/a", "/data/customers"}
    system.owners["/homes/alice"] = 1000
    return system


HOMES = document(
    resources={"r": {"paths": ["/homes/alice/exports/**"]}, "other": {"paths": ["/srv/**"]}},
    subjects={"bob": {"users": ["bob"]}},
    rules=[{"name": "no", "deny": ["read"], "subjects": ["bob"], "resources": ["r", "other"]}],
)
PLAIN = {(SDA, "homes/alice/exports/**")}


def test_a_renamed_folder_stops_nothing():
    system = homes()
    first = resolver.resolve(HOMES, system)
    assert covered(first) == PLAIN and resolver.notes(HOMES, system) == []
    system.files = {path for path in system.files if not path.startswith("/homes/alice/exports")} | {"/homes/alice/x"}
    assert again(system, first, HOMES) == first
    assert resolver.resolve(HOMES, system) == first  # a first apply, too
    (note,) = resolver.notes(HOMES, system)
    assert "resources 'r', paths (rule 'no'): '/homes/alice/exports/**': /homes/alice/exports does not exist" in note


def test_a_users_link_is_not_followed():
    for link, target in (("/homes/alice/exports", "/"), ("/homes/alice/exports", "/data/customers")):
        system = homes()
        first = resolver.resolve(HOMES, system)
        system.links[link] = target
        assert covered(again(system, first, HOMES)) == PLAIN
        assert covered(resolver.resolve(HOMES, system)) == PLAIN
        (note,) = resolver.notes(HOMES, system)
        assert "/homes/alice/exports is not followed" in note and "Name the path that it leads to" in note


@pytest.mark.parametrize(
    "change",
    (
        {"owners": {"/data": 1000}},
        {"owners": {"/data/link": 1000}},
        {"shared": {"/data"}},
        {"owners": {"/": 1000}},
        {"shared": {"/"}},
    ),
)
def test_only_links_that_root_alone_can_change_are_followed(change):
    policy = document(resources={"r": {"paths": ["/data/link/**"]}})
    system = homes()
    system.files.add("/data/link")
    system.links["/data/link"] = "/srv/exports"
    assert (SDB, "exports/**") in covered(resolver.resolve(policy, system)) and not resolver.notes(policy, system)
    before = resolver.resolve(policy, system)
    for key, value in change.items():
        setattr(system, key, value)
    assert covered(resolver.resolve(policy, system)) == {(SDA, "data/link/**")}
    assert "is not followed" in resolver.notes(policy, system)[0]
    # what was known stays, also for another document with that path
    assert (SDB, "exports/**") in covered(again(system, before, policy))
    other = document(resources={"r": {"paths": ["/data/link/**", "/srv"]}})
    assert (SDB, "exports/**") in covered(resolver.resolve(other, system, resolver.Last(before)))


def test_links_of_root_are_followed_through_their_own_links():
    system = homes()
    system.files |= {"/a/b/link", "/c"}
    system.links = {"/a/b/link": "../../c/d", "/c/d": "e/../exports", "/c/e": "/srv/exports"}
    policy = document(resources={"r": {"paths": ["/a/b/link/*.csv"]}})
    assert (SDB, "exports/*.csv") in covered(resolver.resolve(policy, system))
    system.links["/c/e"] = "/a/b/link"  # a loop
    assert covered(resolver.resolve(policy, system)) >= {(SDA, "a/b/link/*.csv")}
    assert resolver.notes(policy, system)


def test_a_link_of_root_that_moves_keeps_the_last_places():
    """A bound service that runs as root could otherwise take its rule off what the link led to."""
    system = FakeSystem()
    system.files |= {f"/srv/releases/{number}/x" for number in range(3)}
    system.links["/srv/current"] = "/srv/releases/0"
    policy = document(resources={"r": {"paths": ["/srv/current/**"]}})
    last = resolver.resolve(policy, system)
    for number in (1, 2):
        system.links["/srv/current"] = f"/srv/releases/{number}"
        last = again(system, last, policy)
    assert {(SDB, f"releases/{number}/**") for number in range(3)} <= covered(last)
    system.files.remove("/srv/releases/0/x")
    assert (SDB, "releases/0/**") not in covered(again(system, last, policy))
    changed = dict(policy, mode="audit")
    assert (SDB, "releases/1/**") not in covered(resolver.resolve(changed, system, resolver.Last(last)))


def test_a_path_of_root_that_is_missing_is_an_error_of_an_apply_and_not_of_a_refresh():
    system = FakeSystem()
    last = resolver.resolve(COVERED, system)
    system.files = {path for path in system.files if not path.startswith("/srv")}
    with pytest.raises(PolicyErrors, match="no such path '/srv'"):
        resolver.resolve(COVERED, system)
    assert again(system, last) == last
    assert "/srv does not exist" in resolver.notes(COVERED, system)[0]


def test_the_steps_of_a_path_on_a_real_filesystem(tmp_path):
    system = System()
    mounts = frozenset(mount.number for mount in mountinfo.parse_mounts(system.mountinfo()))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "folder" / "file").write_text("")
    assert system.step(str(tmp_path / "link"), mounts) == Step("folder", os.getuid() == 0)
    assert system.step(str(tmp_path / "none"), mounts) is None
    assert system.step(str(tmp_path / "folder" / "file" / "x"), mounts) is None
    assert system.step(str(tmp_path), ()) == Step(None, False)  # not asked for anything
    os.chmod(tmp_path / "folder", 0o777)
    assert system.step(str(tmp_path / "folder"), mounts) == Step(None, False)
    os.chmod(tmp_path / "folder", 0o755)
    assert system.step(str(tmp_path / "folder"), mounts) == Step(None, os.getuid() == 0)
    assert system.below(str(tmp_path), ["folder", "file"]) is True
    assert system.below(str(tmp_path), ["folder", "none"]) is False
    assert system.below(str(tmp_path), ["link", "file"]) is None
    assert system.below("/", ["proc", "self"]) is None  # another filesystem


def test_a_users_filesystem_is_told_by_its_options():
    text = (
        "40 21 0:50 / /mnt/a rw,nosuid - fuse.sshfs alice@host: rw,user_id=1000,group_id=1000\n"
        "41 21 0:51 / /mnt/b rw - fuse.glusterfs vol rw,user_id=0,group_id=0\n"
        "42 21 0:52 / /mnt/c rw - ext4 user_id=7 rw\n"
    )
    assert [mount.user for mount in mountinfo.parse_mounts(text)] == [1000, 0, 0]


def test_a_login_changes_nothing():
    """Each brings a tmpfs of its own, below /run/user."""
    system = FakeSystem()
    before = resolver.resolve(document(), system)
    system.mounts += "40 21 0:41 / /run/user/1000 rw - tmpfs tmpfs rw\n"
    assert resolver.resolve(document(), system) == before
    covered = document(resources={"run": {"paths": ["/run/**"], "optional": True}})
    system.files.add("/run")
    assert 41 in resolver.resolve(covered, system).superblocks


def test_pseudo_filesystems_are_those_of_the_kernel_side():
    with open(os.path.join(ROOT, "bpf", "object", "path.h"), encoding="utf-8") as file:
        known = set(re.findall(r"\b([A-Z0-9_]+)_MAGIC\b", file.read()))
    names = {
        "BINFMTFS": "binfmt_misc",
        "SELINUX": "selinuxfs",
        "RPCPIPEFS": "rpc_pipefs",
        "BPFFS": "bpf",
        "PSTOREFS": "pstore",
    }
    told = {names.get(name, name.lower()) for name in known - {"ANON_INODE"}}
    assert told | {"devtmpfs"} == mountinfo.PSEUDO


def kind(name):
    return layout.KIND + layout.KINDS.index(name)


def test_what_the_kernel_shows_is_the_same_however_often_it_is_mounted():
    """A pattern is about the kind of the filesystem, not about one of its mounts."""
    system = FakeSystem()
    assert located(system, "/proc/sys/**", optional=True) == {
        (kind("proc"), "sys/**"),
        (kind("binfmt_misc"), "**"),
        (SDA, "proc/sys/**"),
    }
    before = resolver.resolve(document(), system)
    system.mounts += "40 21 0:77 / /var/chroot/proc rw - proc proc rw\n41 21 0:78 / /x rw - tracefs tracefs rw\n"
    assert resolver.resolve(document(), system) == before
    assert (kind("proc"), "1/environ") in located(system, "/var/chroot/proc/1/environ", optional=True)


def test_a_filesystem_that_is_not_mounted_yet_is_covered_at_its_usual_place():
    assert located(FakeSystem(), "/sys/kernel/debug/**", optional=True) == {
        (kind("sysfs"), "kernel/debug/**"),
        (kind("debugfs"), "**"),
        (kind("tracefs"), "**"),
        (SDA, "sys/kernel/debug/**"),
    }
    found = resolver.resolve(document(), FakeSystem())
    assert {kind(name) for name in ("proc", "sysfs", "debugfs", "tracefs", "cgroup")} <= found.superblocks


def test_kinds_are_those_of_the_kernel_side():
    with open(os.path.join(ROOT, "bpf", "abi", "layout.h"), encoding="utf-8") as file:
        text = file.read()
    names = {"BINFMTFS": "binfmt_misc", "PSTOREFS": "pstore"}
    told = re.search(r"enum guard_kind \{(.*?)\};", text, re.S).group(1)
    numbers = {names.get(name, name.lower()): int(number) for name, number in re.findall(r"GUARD_(\w+) = (\d+)", told)}
    assert numbers.pop("kinds") == len(layout.KINDS)
    assert numbers == {name: number for number, name in enumerate(layout.KINDS)}
    assert int(re.search(r"#define GUARD_KIND (\w+)U", text).group(1), 16) == layout.KIND


def test_the_switches_of_the_kernel_are_protected():
    found = resolver.resolve(document(), FakeSystem()).tamper_paths
    for pattern in (
        PathPattern(kind("proc"), ("sys", "kernel", "**")),
        PathPattern(kind("proc"), ("sysrq-trigger",)),
        PathPattern(kind("tracefs"), ("**",)),
        PathPattern(kind("cgroup"), ("release_agent",)),
        PathPattern(SDA, ("boot", "**")),
    ):
        assert pattern in found


def test_the_documentation_has_the_table_of_switches():
    with open(os.path.join(ROOT, "docs", "kernel-switches.md"), encoding="utf-8") as file:
        rows = [line for line in file.read().splitlines() if line.startswith("| `")]
    expected = [
        "| " + ", ".join(f"`{path}`" for path in switch.paths) + f" | {switch.reason} |" for switch in switches.TABLE
    ]
    assert rows == expected


def test_all_errors_at_once_with_suggestions():
    system = FakeSystem()
    bad = document(
        subjects={"s": {"users": ["alcie", "bob"], "groups": ["nope"], "services": ["ngin"]}},
        resources={"r": {"paths": ["/srv/export/*.csv"]}},
        destinations={"d": {"cidrs": ["10.0.0.0/40"], "ports": ["9-8"], "protocols": ["tpc"]}},
        rules=[{"name": "no", "deny": ["read"], "subjects": ["s"], "resources": ["r"]}],
    )
    with pytest.raises(PolicyErrors) as caught:
        resolver.resolve(bad, system)
    text = str(caught.value)
    assert len(caught.value.problems) == 7
    for part in (
        "unknown user 'alcie'",
        "Did you mean 'alice'?",
        "unknown group 'nope'",
        "unknown unit 'ngin.service'",
        "no such path '/srv/export'",
        "Did you mean '/srv/exports'?",
        "(rule 'no')",
        "Did you mean 'tcp'?",
    ):
        assert part in text, part


def test_what_is_optional_may_be_missing():
    system = FakeSystem()
    found = resolver.resolve(
        document(subjects={"s": {"users": ["nobody-here"], "services": ["gone"], "optional": True}}), system
    )
    assert found.subjects["s"].users == frozenset() and found.subjects["s"].services == frozenset()


def test_units():
    system = FakeSystem()
    assert system.unit_calls == []
    system.known_units = {
        "web.service": {"Id": "nginx.service", "LoadState": "loaded", "ControlGroup": "/system.slice/nginx.service"},
        "getty@tty1.service": {
            "Id": "getty@tty1.service",
            "LoadState": "loaded",
            "ControlGroup": "",
            "Slice": "system-getty.slice",
        },
        "db.service": {"Id": "db.service", "LoadState": "loaded", "ControlGroup": "", "Slice": "data-hot.slice"},
        "data-hot.slice": {"Id": "data-hot.slice", "LoadState": "loaded", "ControlGroup": "", "Slice": "data.slice"},
        "top.service": {"Id": "top.service", "LoadState": "loaded", "ControlGroup": "", "Slice": "-.slice"},
    }
    assert services(system, "web", "getty@tty1.service", "db", "data-hot.slice", "top") == {
        "system.slice/nginx.service",
        "system.slice/system-getty.slice/getty@tty1.service",
        "data.slice/data-hot.slice/db.service",
        "data.slice/data-hot.slice",
        "top.service",
    }
    assert len(system.unit_calls) == 1


def test_no_services_no_systemctl():
    system = FakeSystem()
    resolver.resolve(document(subjects={"s": {"users": ["alice", 7]}}), system)
    assert system.unit_calls == []


def test_destinations():
    found = resolver.resolve(
        document(
            destinations={
                "d": {
                    "cidrs": ["::ffff:10.1.2.3/104", "fd00::1/8", "192.0.2.7"],
                    "ports": [443, "8000-8100"],
                    "protocols": ["tcp", "mptcp", 262, 17],
                }
            }
        ),
        FakeSystem(),
    ).destinations["d"]
    assert found.cidrs == {"10.0.0.0/8", "fd00::/8", "192.0.2.7/32"}
    assert found.ports == {(443, 443), (8000, 8100)} and found.protocols == {6, 17}


def test_host_names():
    system = FakeSystem()
    system.hosts = {"vault": ["10.9.0.7", "fd00::7", "::ffff:10.9.0.8"]}
    body = {"d": {"names": ["vault"], "cidrs": ["192.0.2.0/24"], "ports": [443]}}
    found = resolver.resolve(document(destinations=body), system)
    assert found.destinations["d"].cidrs == {"10.9.0.7/32", "10.9.0.8/32", "fd00::7/128", "192.0.2.0/24"}
    assert found.host_addresses == {"vault": {"10.9.0.7/32", "10.9.0.8/32", "fd00::7/128"}}
    assert encoding.from_json(json.loads(json.dumps(encoding.to_json(found)))) == found
    system.hosts = {}
    with pytest.raises(PolicyErrors) as caught:
        resolver.resolve(document(destinations=body), system)
    kept = resolver.Last(refresh=True, addresses=found.host_addresses)
    assert resolver.resolve(document(destinations=body), system, kept) == found
    assert "destinations 'd', names: host name 'vault' does not resolve" in str(caught.value)
    assert "getent ahosts vault" in str(caught.value)
    body["d"]["optional"] = True
    assert resolver.resolve(document(destinations=body), system).destinations["d"].cidrs == {"192.0.2.0/24"}
    assert (
        resolver.resolve(document(destinations={"d": {"names": ["a"], "optional": True}}), system)
        .destinations["d"]
        .cidrs
        == frozenset()
    )


def test_json_there_and_back_and_renumbered():
    system = FakeSystem()
    system.links["/var/exports"] = "/srv/exports"
    found = resolver.resolve(
        document(
            mode="audit",
            subjects={"s": {"users": ["alice"], "executables": ["/usr/bin/cat"]}},
            resources={"r": {"paths": ["/var/exports/**"]}},
            destinations={"d": {"ports": [1]}},
            rules=[
                {"name": "a", "deny": ["read"], "subjects": ["s"], "resources": {"not": ["r"]}, "expires": "2030-01-01"}
            ],
        ),
        system,
    )
    assert found.rules[0].audit and found.rules[0].resources.negated
    stored = json.loads(json.dumps(encoding.to_json(found)))
    assert encoding.from_json(stored) == found and resolver.renumber(stored, system) == found
    system.mounts = system.mounts.replace("8:2 /", "259:7 /")
    again = resolver.renumber(stored, system)
    assert PathPattern(259 << 20 | 7, ("exports", "**")) in again.resources["r"].paths
    assert 259 << 20 | 7 in again.superblocks and SDB not in again.superblocks


# ---- random mount tables against an oracle that walks paths ---------------------------------------------------------

NAMES = ("a", "b", "ab")
paths = st.lists(st.sampled_from(NAMES), max_size=3).map(tuple)
patterns = st.tuples(st.lists(st.sampled_from((*NAMES, "*", "a*", "*b")), max_size=3).map(tuple), st.booleans()).map(
    lambda pair: pair[0] + (("**",) if pair[1] else ())
)


@st.composite
def tables(draw):
    """Mounts made one after the other, as mount(8) does: each on what its point leads to at that time."""
    mounts = [mountinfo.Mount(1, 0, 1, (), (), "ext4", "none")]
    for number in range(2, 2 + draw(st.integers(0, 5))):
        point = draw(paths)
        parent = walk(mounts, point)[0]
        mounts.append(
            mountinfo.Mount(number, parent.number, draw(st.integers(1, 4)), draw(paths), point, "ext4", "none")
        )
    return mounts


def walk(mounts, path):
    """One component after the other, up onto what is mounted there: as the kernel does."""

    def up(mount, point):
        over = [each for each in mounts if each.parent == mount.number and each.point == point]
        return up(over[0], point) if over else mount

    mount = up(mounts[0], ())
    inside = mount.root
    for i, name in enumerate(path):
        inside += (name,)
        above = up(mount, path[: i + 1])
        if above is not mount:
            mount, inside = above, above.root
    return mount, inside


def matches(pattern, path):
    if pattern and pattern[-1] == "**":
        head = pattern[:-1]
        return len(path) >= len(head) and matches(head, path[: len(head)])
    return len(pattern) == len(path) and all(semantics.component_matches(*pair) for pair in zip(pattern, path))


def text_of(mounts):
    return "".join(
        "{0} {1} 0:{2} /{3} /{4} rw - {5} none rw\n".format(
            each.number, each.parent, each.device, "/".join(each.root), "/".join(each.point), each.type
        )
        for each in mounts
    )


@settings(max_examples=400, deadline=None)
@given(tables(), patterns, st.lists(paths, min_size=1, max_size=20), paths)
def test_translation_equals_walking(mounts, pattern, asked, below):
    assert mountinfo.parse_mounts(text_of(mounts)) == mounts
    shown = mountinfo.visible(mounts)
    found = resolver.translate(["/" + "/".join(pattern)], mounts)
    assert {walk(mounts, path)[0] for path in asked} <= set(shown)
    for path in asked:
        mount, inside = walk(mounts, path)
        if matches(pattern, path):  # what a matching name leads to is covered
            assert any(each.device == mount.device and matches(each.components, inside) for each in found)
    for mount in mounts:  # and nothing is covered that has no matching name on any mount, hidden or not
        inside = mount.root + below
        is_covered = any(each.device == mount.device and matches(each.components, inside) for each in found)
        named = any(
            other.device == mount.device
            and inside[: len(other.root)] == other.root
            and matches(pattern, other.point + inside[len(other.root) :])
            for other in mounts
        )
        assert is_covered == named


def test_an_abstract_name_may_begin_with_a_slash():
    """It is not taken for a component that is a name."""
    (pattern,) = resolver.abstract(["/run/bus"])
    accepted = automaton.build([{pattern.components: 1}])
    for name, wanted in (("/run/bus", True), ("run/bus", False)):
        assert semantics.matches(pattern.components, (name,)) == wanted
        assert bool(walked(accepted, (name,))) == wanted
