# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generates random policies, with events that are close to their rules. The same seed and number result in the same
case. ``features`` names the parts of the language that occur in a policy."""

from __future__ import annotations

import datetime
import ipaddress
import random
from typing import Callable, Iterable, Mapping, NamedTuple, Sequence, TypeVar

from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions, model

TODAY = datetime.date(2026, 6, 1)
IDS = (0, 1, 1000, 1001, 65534, 4294967295)
DEVICES = (1, 2)
UNRESOLVED = 3  # a device that the policy does not know
WHOLE = ("a", "b", "ab", "*", "x" * 35, "é")  # each matches by one lookup
HEADS = ("a", "b", "ab", "*", "a*", "*b", "*.csv", "*a*", "a*b", "a**", "x" * 40, "x" * 35, "x" * 36, "é")
NAMES = ("a", "b", "ab", "aab", "ba", "c.csv", ".csv", "x" * 35, "x" * 36, "x" * 40, "x" * 40 + "y", "é", "\udcff")
RUNS = ("", "a", "b", ".csv", "yz", "a.b")  # what a * matches
UNITS = ("system.slice", "user.slice", "a.service", "x" * 40)
CIDRS = ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "10.0.0.1/32", "::/0", "fd00::/8", "fd00::1/128")
ADDRESSES = ("10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "fe80::1", "::", "0.0.0.0", "::ffff:0.0.0.0")
PORTS = ((443, 443), (0, 65535), (1024, 65535), (80, 90), (65535, 65535), (0, 0), (442, 449))
PROTOCOLS = (1, 6, 17, 132)
CIDS, VSOCK_PORTS = (1, 2, 0xFFFFFFFF), (0, 1024, 0xFFFFFFFF)
DAYS = ("2026-05-31", "2026-06-01", "2026-06-02", "2027-01-01")
PLACES = layout.REASONS[1:5]  # why a file's path cannot be determined
FILES, NETWORKS, VSOCK = actions.RESOURCES, actions.NETWORK, ("vsock",)
KINDS = (FILES, FILES, FILES, NETWORKS, NETWORKS, VSOCK, actions.PLAIN)  # events on files have most variants
T = TypeVar("T")


class Case(NamedTuple):
    """A policy, and what is asked about it."""

    policy: model.Resolved
    canary: model.PathPattern | None
    labels: dict[str, int]  # bits that an earlier generation assigned
    events: tuple[model.Event, ...]
    objects: tuple[model.Location, ...]  # files whose labels are asked for


def case(seed: int, number: int, events: int) -> Case:
    """The case with this number, with ``events`` events."""
    rng = random.Random(f"{seed}/{number}")
    policy = _policy(rng)
    kept = rng.sample("mnopq", rng.randrange(4)) if rng.random() < 0.3 else []
    return Case(
        policy,
        model.PathPattern(rng.choice((1, 4)), ("usr", "lib", "canary")) if rng.random() < 0.5 else None,
        dict(zip(kept, rng.sample(range(layout.LABELS), len(kept)))),
        tuple(_event(rng, policy) for _ in range(events)),
        tuple(_location(rng, policy) for _ in range(2)),
    )


# ---- policies -------------------------------------------------------------------------------------------------------


def _some(rng: random.Random, pool: Iterable[T], least: int, most: int) -> frozenset[T]:
    values = list(pool)
    return frozenset(rng.sample(values, min(len(values), rng.randint(least, most))))


def _maybe(rng: random.Random, chance: float, make: Callable[[], T]) -> T | None:
    return make() if rng.random() < chance else None


def _pattern(
    rng: random.Random, heads: Sequence[str] = HEADS, devices: Sequence[int] = (*DEVICES, layout.ABSTRACT)
) -> model.PathPattern:
    head = tuple(rng.choice(heads) for _ in range(rng.choice((0, 1, 1, 2, 2, 3))))
    return model.PathPattern(rng.choice(devices), head + (("**",) if rng.random() < 0.5 else ()))


def _patterns(rng: random.Random, most: int, heads: Sequence[str]) -> frozenset[model.PathPattern]:
    return frozenset(_pattern(rng, heads) for _ in range(rng.randint(1, most)))


def _unit(rng: random.Random) -> model.Components:
    return tuple(rng.choice(UNITS) for _ in range(rng.randrange(4)))


def _cidr(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return rng.choice(CIDRS)
    if rng.random() < 0.6:
        return str(ipaddress.ip_network((10 << 24 | rng.getrandbits(24), rng.randint(7, 32)), strict=False))
    return str(ipaddress.ip_network((0xFD << 120 | rng.getrandbits(64), rng.randint(7, 128)), strict=False))


def _ports(rng: random.Random) -> tuple[int, int]:
    if rng.random() < 0.6:
        return rng.choice(PORTS)
    first, last = sorted((rng.getrandbits(16), rng.getrandbits(16)))
    return first, last


def _subject(rng: random.Random, resources: Sequence[str], heads: Sequence[str]) -> model.SubjectSet:
    return model.SubjectSet(
        users=_maybe(rng, 0.4, lambda: _some(rng, IDS, 1, 3)),
        login_users=_maybe(rng, 0.15, lambda: _some(rng, IDS, 1, 4)),
        groups=_maybe(rng, 0.25, lambda: _some(rng, IDS, 1, 3)),
        services=_maybe(rng, 0.25, lambda: frozenset(_unit(rng) for _ in range(rng.randint(1, 2)))),
        executables=_maybe(rng, 0.25, lambda: _patterns(rng, 3, heads)),
        has_read=_maybe(rng, 0.25, lambda: _some(rng, resources, 1, 2)) if resources else None,
    )


def _destination(rng: random.Random) -> model.DestinationSet:
    if rng.random() < 0.25:
        cids = [rng.choice((None, *CIDS)) for _ in range(2)]
        ends = ((cid, None if cid is None else rng.choice((None, *VSOCK_PORTS))) for cid in cids)
        return model.DestinationSet(vsock=frozenset(ends))
    return model.DestinationSet(
        cidrs=_maybe(rng, 0.7, lambda: frozenset(_cidr(rng) for _ in range(rng.randint(1, 4)))),
        ports=_maybe(rng, 0.4, lambda: frozenset(_ports(rng) for _ in range(rng.randint(1, 2)))),
        protocols=_maybe(rng, 0.35, lambda: _some(rng, PROTOCOLS, 1, 3)),
    )


def _deny(rng: random.Random) -> frozenset[str]:
    pools: Sequence[Iterable[str]]
    pools = rng.choice(((FILES,), (FILES,), (NETWORKS,), (NETWORKS,), (VSOCK,), (actions.PLAIN,),
                        (FILES, NETWORKS), (FILES, VSOCK, actions.PLAIN)))  # fmt: skip
    return frozenset().union(*(_some(rng, pool, 1, 3) for pool in pools))


def _selection(rng: random.Random, sets: Iterable[str]) -> model.Selection:
    return model.Selection(_some(rng, sorted(sets), 0 if rng.random() < 0.1 else 1, 2), rng.random() < 0.4)


def _rule(
    rng: random.Random,
    name: str,
    subjects: Mapping[str, model.SubjectSet],
    resources: Mapping[str, model.ResourceSet],
    destinations: Mapping[str, model.DestinationSet],
) -> model.Rule:
    deny = _deny(rng)
    return model.Rule(
        name=name,
        deny=deny,
        subjects=_maybe(rng, 0.6, lambda: _some(rng, sorted(subjects), 1, 2)) if subjects else None,
        excepts=_some(rng, sorted(subjects), 1, 2) if subjects and rng.random() < 0.35 else frozenset(),
        resources=_selection(rng, resources) if deny.intersection(actions.RESOURCES) else None,
        destinations=_selection(rng, destinations) if deny.intersection(actions.DESTINATIONS) else None,
        audit=rng.random() < 0.35,
        expires=rng.choice(DAYS) if rng.random() < 0.3 else None,
    )


def _policy(rng: random.Random) -> model.Resolved:
    heads = HEADS if rng.random() < 0.5 else WHOLE  # automata over bytes take most of the time
    resources = {name: model.ResourceSet(_patterns(rng, 4, heads)) for name in rng.sample("mno", rng.randrange(4))}
    subjects = {name: _subject(rng, sorted(resources), heads) for name in rng.sample("stuvw", rng.randrange(6))}
    destinations = {name: _destination(rng) for name in rng.sample("defg", rng.randrange(5))}
    names = rng.sample(range(100), rng.choice((0, 1, 2, 3, 3, 4, 5, 6, 8)))
    return model.Resolved(
        tuple(_rule(rng, f"rule {name}", subjects, resources, destinations) for name in names),
        subjects, resources, destinations, frozenset(DEVICES),
        tamper_paths=frozenset(_pattern(rng, heads, DEVICES) for _ in range(rng.randrange(3))))  # fmt: skip


# ---- events ---------------------------------------------------------------------------------------------------------


def _component(rng: random.Random, head: str) -> str:
    if head == "*":
        return rng.choice(NAMES)
    return "".join(rng.choice(RUNS) if byte == "*" else byte for byte in head) or "a"


def _location(rng: random.Random, policy: model.Resolved, wanted: frozenset[str] = frozenset()) -> model.Location:
    """A path that is likely to be in one of these resource sets."""
    known: list[model.PathPattern] = [p for name in sorted(wanted) for p in policy.resources[name].paths]
    if not known or rng.random() < 0.3:
        known = [p for resources in policy.resources.values() for p in resources.paths]
        known += [p for who in policy.subjects.values() for p in who.executables or ()] + list(policy.tamper_paths)
    near = rng.choice(sorted(known)) if known and rng.random() < 0.85 else _pattern(rng)
    tree = near.components[-1:] == ("**",)
    path = [_component(rng, head) for head in near.components[: -1 if tree else None]]
    if tree:
        path += [rng.choice(NAMES) for _ in range(rng.randrange(3))]
    change = rng.random()
    if change < 0.15:
        path = path[:-1]
    elif change < 0.25:
        path.append(rng.choice(NAMES))
    elif change < 0.35 and path:
        path[rng.randrange(len(path))] = rng.choice(NAMES)
    device = near.device if rng.random() < 0.9 else rng.choice((*DEVICES, UNRESOLVED, layout.ABSTRACT))
    lost = rng.choice(PLACES) if rng.random() < 0.08 else None
    return model.Location(device, tuple(path), rng.random() < 0.2, lost)


def _task(rng: random.Random, policy: model.Resolved) -> model.Task:
    units = sorted({unit for who in policy.subjects.values() for unit in who.services or ()})
    unit = rng.choice(units) if units and rng.random() < 0.6 else _unit(rng)
    groups = _some(rng, IDS, 1, 3)
    return model.Task(
        users=_some(rng, IDS, 1, 2),
        groups=groups,
        memberships=frozenset(group for group in groups if rng.random() < 0.6),
        login_user=rng.choice(IDS),
        service=None if rng.random() < 0.1 else unit + ((rng.choice(UNITS),) if rng.random() < 0.3 else ()),
        executable=None if rng.random() < 0.15 else _location(rng, policy),
        labels=_some(rng, "mno", 1, 2) if rng.random() < 0.4 else frozenset(),
        ids_truncated=rng.random() < 0.1,
    )


def _one_of(rng: random.Random, task: model.Task, who: model.SubjectSet) -> model.Task:
    """The task, changed so that it is in the set by its numbers and labels."""
    return task._replace(
        users=task.users | _some(rng, sorted(who.users or ()), 1, 1),
        groups=task.groups | _some(rng, sorted(who.groups or ()), 1, 1),
        login_user=rng.choice(sorted(who.login_users)) if who.login_users else task.login_user,
        service=rng.choice(sorted(who.services)) if who.services else task.service,
        labels=task.labels | _some(rng, sorted(who.has_read or ()), 1, 1),
    )


def _address(rng: random.Random, sets: list[model.DestinationSet]) -> str:
    known = sorted({cidr for where in sets for cidr in where.cidrs or ()})
    if not known or rng.random() < 0.25:
        return rng.choice(ADDRESSES)
    network = ipaddress.ip_network(rng.choice(known))
    first, last = int(network.network_address), int(network.broadcast_address)
    number = rng.choice((first, last, first - 1, last + 1, rng.randint(first, last)))
    number = min(max(number, 0), (1 << network.max_prefixlen) - 1)
    address = (ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address)(number)
    return f"::ffff:{address}" if network.version == 4 and rng.random() < 0.2 else str(address)


def _port(rng: random.Random, sets: list[model.DestinationSet]) -> int:
    known = sorted({edge for where in sets for both in where.ports or () for edge in both})
    return min(max(rng.choice(known or [443]) + rng.choice((-1, 0, 0, 1)), 0), 65535)


def _protocol(rng: random.Random, sets: list[model.DestinationSet]) -> int:
    known = sorted({number for where in sets for number in where.protocols or ()})
    return rng.choice(known if known and rng.random() < 0.7 else PROTOCOLS)


def _event(rng: random.Random, policy: model.Resolved) -> model.Event:
    """An event, in most cases about something that a rule denies."""
    task, rule = _task(rng, policy), rng.choice(policy.rules) if policy.rules else None
    if rule and rule.subjects and rng.random() < 0.5:
        task = _one_of(rng, task, policy.subjects[rng.choice(sorted(rule.subjects))])
    if rng.random() < 0.12:
        at = None if rng.random() < 0.1 else _location(rng, policy)
        return model.TamperEvent(task, rng.random() < 0.6, at, rng.random() < 0.5)
    near = rule if rule and rng.random() < 0.85 else None
    pools = [pool for pool in KINDS if not near or near.deny.intersection(pool)]
    action = rng.choice([name for name in rng.choice(pools) if not near or name in near.deny])
    if action in FILES:
        wanted = near.resources.names if near and near.resources else frozenset()
        where = _location(rng, policy, wanted)
        if rng.random() < 0.55:
            return model.FileEvent(task, action, where)
        return model.AliasEvent(task, where, _location(rng, policy, wanted), rng.random() < 0.6)
    ends = near.destinations.names if near and near.destinations else policy.destinations
    sets = [policy.destinations[name] for name in sorted(ends)]
    if action in NETWORKS:
        return model.NetworkEvent(task, action, _address(rng, sets), _port(rng, sets), _protocol(rng, sets),
                                    "no-address" if rng.random() < 0.06 else None)  # fmt: skip
    if action == "vsock":
        return model.VsockEvent(task, rng.choice(CIDS), rng.choice(VSOCK_PORTS))
    return model.PlainEvent(task, action)


# ---- distribution ---------------------------------------------------------------------------------------------------


def features(policy: model.Resolved) -> Iterable[str]:
    """The parts of the language that occur in the policy."""
    rules = policy.rules
    components: set[str] = set()
    for resources in policy.resources.values():
        for pattern in resources.paths:
            components.update(pattern.components)
    selections = [rule.destinations for rule in rules if rule.destinations]
    used = [policy.destinations[name] for selection in selections for name in selection.names]
    named = [policy.subjects[name] for rule in rules for name in rule.excepts.union(rule.subjects or ())]
    occurs = {
        "not, of resources": any(rule.resources and rule.resources.negated for rule in rules),
        "not, of destinations": any(selection.negated for selection in selections),
        "except": any(rule.excepts for rule in rules),
        "audit": any(rule.audit for rule in rules),
        "expires": any(rule.expires for rule in rules),
        "users": any(who.users for who in named),
        "login_users": any(who.login_users for who in named),
        "groups": any(who.groups for who in named),
        "services": any(who.services for who in named),
        "executables": any(who.executables for who in named),
        "has_read": any(who.has_read for who in named),
        "cidrs": any(where.cidrs for where in used),
        "ports": any(where.ports for where in used),
        "protocols": any(where.protocols for where in used),
        "vsock": any(where.vsock for where in used),
        "*": "*" in components,
        "* within": any("*" in part and part not in ("*", "**") for part in components),
        "**": "**" in components,
        "long components": any(len(part) >= layout.COMPONENT for part in components),
        "protected": bool(policy.tamper_paths),
    }
    return [name for name, there in occurs.items() if there]


def kind(event: model.Event) -> str:
    """The kind of an event, for the distribution."""
    if isinstance(event, model.AliasEvent):
        return "alias of a folder" if event.directory else "alias"
    if isinstance(event, model.TamperEvent):
        return "tamper below" if event.below else "tamper"
    return type(event).__name__[: -len("Event")].lower()
