# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import re

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import PolicyErrors
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import mountinfo
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import semantics
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
        (22, "**"),
        (30, "**"),
    }
    assert (SDB, "x") in located(system, "/*/x")
    assert located(system, "/with space/**") == {(SDC, "**"), (SDA, "with space/**")}


def test_a_link_in_the_literal_part_is_followed_and_kept():
    system = FakeSystem()
    system.links["/var/exports"] = "/srv/exports"
    assert (SDB, "exports/**") in located(system, "/var/exports/**")
    assert (SDA, "var/exports/**") in located(system, "/var/exports/**")


def test_a_hidden_mount_is_not_covered_but_known():
    system = FakeSystem()
    system.mounts += "30 23 8:9 / /srv rw - ext4 /dev/sdd rw\n31 23 8:10 / /srv/exports rw - ext4 /dev/sde rw\n"
    assert located(system, "/srv/exports/**") == {(8 << 20 | 9, "exports/**"), (SDA, "srv/exports/**")}
    found = resolver.resolve(document(), system)
    assert {8 << 20 | 9, 8 << 20 | 10, SDB} <= found.superblocks


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
    assert "destinations 'd', names: host name 'vault' does not resolve" in str(caught.value)
    assert "getent ahosts vault" in str(caught.value)
    assert resolver.resolve(document(destinations=body), system, found.host_addresses) == found
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
    mounts = [mountinfo.Mount(1, 0, 1, (), (), "ext4")]
    for number in range(2, 2 + draw(st.integers(0, 5))):
        point = draw(paths)
        parent = walk(mounts, point)[0]
        mounts.append(mountinfo.Mount(number, parent.number, draw(st.integers(1, 4)), draw(paths), point, "ext4"))
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
    found = resolver.translate(["/" + "/".join(pattern)], shown)
    assert {walk(mounts, path)[0] for path in asked} <= set(shown)
    for path in asked:
        mount, inside = walk(mounts, path)
        if matches(pattern, path):  # what a matching name leads to is covered
            assert any(each.device == mount.device and matches(each.components, inside) for each in found)
    for mount in shown:  # and nothing is covered that has no matching name on a visible mount
        inside = mount.root + below
        covered = any(each.device == mount.device and matches(each.components, inside) for each in found)
        named = any(
            other.device == mount.device
            and inside[: len(other.root)] == other.root
            and matches(pattern, other.point + inside[len(other.root) :])
            for other in shown
        )
        assert covered == named
