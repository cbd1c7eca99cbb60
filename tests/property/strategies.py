# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random policies, and events that lie near them."""

from __future__ import annotations

from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions as all_actions
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import model
from hypothesis import strategies as st

IDS = [0, 1000, 1001, 4294967295]
DEVICES = [1, 2]
ON_DEVICES = [*DEVICES, layout.ABSTRACT]
ACTIONS = [
    *all_actions.RESOURCES,
    *all_actions.DESTINATIONS,
    "raw-socket",
    "packet-socket",
    "other-socket",
    "mount",
    "cap-bpf",
]
CIDS, VSOCK_PORTS = [1, 2, 0xFFFFFFFF], [0, 1024, 0xFFFFFFFF]
LONG = "x" * 40
NAMES = ["a", "b", "ab", "aab", "c.csv", ".csv", LONG, LONG + "y", "é"]
HEADS = ["a", "b", "ab", "*", "a*", "*.csv", "*a*", LONG, "é"]
CIDRS = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/9",
    "10.128.0.0/9",
    "10.0.0.1/32",
    "224.0.0.0/4",
    "239.1.0.0/16",
    "::/0",
    "fd00::/8",
    "fd00::1/128",
    "ff00::/8",
    "ff02::/16",
]
ADDRESSES = [
    "10.0.0.1",
    "10.0.0.2",
    "10.127.255.255",
    "10.128.0.0",
    "11.0.0.0",
    "::ffff:10.0.0.1",
    "fd00::1",
    "fe00::",
    "::",
    "0.0.0.0",
    "::ffff:0.0.0.0",
]
PORTS = [(443, 443), (0, 65535), (1024, 65535), (80, 90), (442, 443)]
PORT = [0, 79, 80, 90, 91, 442, 443, 444, 1023, 1024, 65535]


def some(elements, least=0, most=3):
    return st.frozensets(st.sampled_from(elements), min_size=least, max_size=most)


patterns = st.builds(
    lambda device, head, tree: model.PathPattern(device, tuple(head) + (("**",) if tree else ())),
    st.sampled_from(ON_DEVICES),
    st.lists(st.sampled_from(HEADS), max_size=3),
    st.booleans(),
)
own_patterns = patterns.filter(lambda pattern: pattern.device in DEVICES)
paths = st.frozensets(patterns, min_size=1, max_size=4)
cgroups = st.lists(st.sampled_from(["system.slice", "user.slice", "a.service"]), max_size=3).map(tuple)


def maybe(strategy):
    return st.one_of(st.none(), strategy)


subject_sets = st.builds(
    model.SubjectSet,
    users=maybe(some(IDS, 1)),
    login_users=maybe(some(IDS, 1)),
    groups=maybe(some(IDS, 1)),
    services=maybe(st.frozensets(cgroups, min_size=1, max_size=2)),
    executables=maybe(paths),
    has_read=st.none(),  # policies() names their own resource sets
)
endpoints = st.one_of(st.just((None, None)), st.tuples(st.sampled_from(CIDS), st.sampled_from([None, *VSOCK_PORTS])))
destination_sets = st.one_of(
    st.builds(
        model.DestinationSet,
        cidrs=maybe(some(CIDRS, 1, 4)),
        ports=maybe(some(PORTS, 1)),
        protocols=maybe(some([6, 17], 1)),
        vsock=st.none(),
    ),
    st.frozensets(endpoints, min_size=1, max_size=3).map(lambda found: model.DestinationSet(vsock=found)),
)


@st.composite
def policies(draw):
    subjects = draw(st.dictionaries(st.sampled_from("stuv"), subject_sets, max_size=4))
    resources = draw(st.dictionaries(st.sampled_from("mno"), st.builds(model.ResourceSet, paths), max_size=3))
    destinations = draw(st.dictionaries(st.sampled_from("def"), destination_sets, max_size=3))
    if resources:
        for name in draw(some(sorted(subjects))) if subjects else ():
            subjects[name] = subjects[name]._replace(has_read=draw(some(sorted(resources), 1)))

    def selection(sets):
        return st.builds(model.Selection, some(sorted(sets)) if sets else st.just(frozenset()), st.booleans())

    names = sorted(subjects)
    rules = []
    for number in range(draw(st.integers(0, 5))):
        actions = draw(some(ACTIONS, 1))
        rules.append(
            model.Rule(
                name=f"rule {number}",
                deny=actions,
                subjects=draw(maybe(some(names, 1))) if names else None,
                excepts=draw(some(names)) if names else frozenset(),
                resources=draw(selection(resources)) if actions & set(all_actions.RESOURCES) else None,
                destinations=draw(selection(destinations)) if actions & set(all_actions.DESTINATIONS) else None,
                audit=draw(st.booleans()),
                expires=draw(st.sampled_from([None, None, "2026-05-31", "2026-06-01", "2026-06-02"])),
            )
        )
    return model.Resolved(
        tuple(rules),
        subjects,
        resources,
        destinations,
        frozenset(DEVICES),
        tamper_paths=draw(st.frozensets(own_patterns, max_size=2)),
    )


locations = st.builds(
    model.Location,
    st.sampled_from([*ON_DEVICES, 3]),  # the last is a superblock that nobody resolved
    st.lists(st.sampled_from(NAMES), max_size=4).map(tuple),
    st.booleans(),
    st.sampled_from([None, None, None, "too-deep"]),
)


@st.composite
def tasks(draw):
    groups = draw(some(IDS, 1))
    return model.Task(
        users=draw(some(IDS, 1)),
        groups=groups,
        memberships=frozenset(group for group in groups if draw(st.booleans())),
        login_user=draw(st.sampled_from(IDS)),
        service=draw(maybe(cgroups)),
        left_service=draw(maybe(cgroups)),
        executable=draw(maybe(locations)),
        labels=draw(some(list("mno"))),
        ids_truncated=draw(st.booleans()),
    )


file_events = st.builds(model.FileEvent, tasks(), st.sampled_from(all_actions.RESOURCES), locations)
alias_events = st.builds(model.AliasEvent, tasks(), locations, locations, st.booleans())
network_events = st.builds(
    model.NetworkEvent,
    tasks(),
    st.sampled_from(all_actions.NETWORK),
    st.sampled_from(ADDRESSES),
    st.sampled_from(PORT),
    st.sampled_from([1, 6, 17]),
    st.sampled_from([None, None, None, "no-address"]),
)
join_events = st.builds(model.JoinEvent, tasks(), st.sampled_from(sorted(layout.RANGES)))
vsock_events = st.builds(model.VsockEvent, tasks(), st.sampled_from(CIDS), st.sampled_from(VSOCK_PORTS))
plain_events = st.builds(model.PlainEvent, tasks(), st.sampled_from([a for a in ACTIONS if a in all_actions.PLAIN]))
tamper_events = st.builds(model.TamperEvent, tasks(), st.booleans(), maybe(locations), st.booleans())
decided_by_rules = st.one_of(file_events, alias_events, network_events, join_events, vsock_events, plain_events)
events = st.one_of(decided_by_rules, tamper_events)  # the last are decided without a rule, too
