# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generates one example (a witness) of each kind of task and of object that given sets distinguish. The semantics
decides alike what no set distinguishes, so the decisions on the examples cover everything."""

from __future__ import annotations

import ipaddress
import itertools
import os
from typing import Any, Callable, Dict, Iterable, NamedTuple, Sequence, Tuple, TypeVar, Union

from .. import layout
from ..compile import automaton
from ..policy import actions
from ..policy.model import (
    Components,
    DestinationSet,
    FileEvent,
    Location,
    NetworkEvent,
    PathPattern,
    PlainEvent,
    SubjectSet,
    Task,
    VsockEvent,
)

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Event = Union[FileEvent, NetworkEvent, PlainEvent, VsockEvent]
_Value = TypeVar("_Value", int, str)
_Item = TypeVar("_Item")

LIMIT = 4096  # kinds of tasks; beyond it some are left out, and the result says so
UNNAMED_ID = 4_100_000_000  # the first of the ids that no policy names
# addresses for documentation, the first of both families, and the first after the IPv4-mapped ones
_ADDRESSES = ("198.51.100.7", "2001:db8::7", "0.0.0.0", "::", "::1:0:0:0")
_PORTS, _TRANSPORTS = (443, 0), (6, 17, 254)
_LAST_PORT, _HIGH_VSOCK_PORT = 65535, 4294967280
_CIDS = (2, 3, 0xFFFFFFF0)
_LETTERS = tuple(b"xabcdefghijklmnopqrstuvwyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class TaskKind(NamedTuple):
    """A kind of task. Bit i of ``may``: a rule with the i-th set as subjects applies to it. Bit i of ``surely``: a rule
    with that set as exception excepts it."""

    task: Task
    may: int
    surely: int


class ObjectKind(NamedTuple):
    """A kind of object. ``event``: the attempt by a task; ``inside``: bit i: the i-th set has it; ``untold``: the
    object is unknown, as if its path could not be determined."""

    event: Callable[[Task], Event]
    text: str
    inside: int
    untold: bool = False


# ---- tasks --------------------------------------------------------------------------------------------------------

_Masks = Tuple[int, int]  # `may` and `surely`
_Part = Dict[_Masks, Dict[str, Any]]  # the masks of an example, and the fields of Task that make it


def tasks(sets: Sequence[SubjectSet], superblocks: frozenset[int], limit: int = LIMIT) -> tuple[list[TaskKind], bool]:
    """Returns the kinds of tasks that the sets distinguish, the plainest first, and whether these are all of them."""
    every = (1 << len(sets)) - 1
    parts, whole = [], True
    for field in (_users, _groups, _logins, _services, _programs, _labels):
        part, complete = field(sets, superblocks, limit)
        parts.append(part)
        whole = whole and complete
    product, complete = _joined({(every, every): {}}, parts, limit)
    cut, more = _joined(_cut_lists(sets, every), parts[2:], limit)
    for masks, fields in cut.items():
        product.setdefault(masks, fields)
    kinds = [TaskKind(_task(fields), *masks) for masks, fields in product.items()]
    return kinds, whole and complete and more


def _joined(joined: _Part, parts: Sequence[_Part], limit: int) -> tuple[_Part, bool]:
    """Combines the examples of all keys: a task is in a set if every key holds."""
    whole = True
    for part in parts:
        product: _Part = {}
        for masks, fields in part.items():
            for other, more in joined.items():
                product.setdefault((masks[0] & other[0], masks[1] & other[1]), dict(fields, **more))
        whole = whole and len(product) <= limit
        joined = dict(list(product.items())[:limit])
    return joined, whole


def _task(fields: dict[str, Any]) -> Task:
    plain = {
        "users": frozenset([UNNAMED_ID]),
        "groups": frozenset(),
        "memberships": frozenset(),
        "login_user": UNNAMED_ID,
        "service": ("user.slice",),
        "executable": None,
    }
    return Task(**dict(plain, **fields))


def _cut_lists(sets: Sequence[SubjectSet], every: int) -> _Part:
    surely = sum(1 << i for i, body in enumerate(sets) if body.users is None and body.groups is None)
    return {(every, surely): {"ids_truncated": True}}


def _unasked(sets: Sequence[SubjectSet], key: str) -> int:
    return sum(1 << i for i, body in enumerate(sets) if getattr(body, key) is None)


def _members(listed: Sequence[frozenset[_Value]]) -> dict[int, _Value]:
    """Returns a value for each combination of sets that list it. ``listed``: the values of each set."""
    members: dict[int, _Value] = {}
    for value in sorted(frozenset().union(*listed)) if listed else ():
        members.setdefault(sum(1 << i for i, values in enumerate(listed) if value in values), value)
    return members


def _users(sets: Sequence[SubjectSet], _superblocks: frozenset[int], limit: int) -> tuple[_Part, bool]:
    free = _unasked(sets, "users")
    single = {(free, free): frozenset([UNNAMED_ID])}
    for mask, user in _members([body.users or frozenset() for body in sets]).items():
        single[mask | free, mask | free] = frozenset([user])
    closed, whole = _closed(single, lambda first, second: (first[0] | second[0], first[1] & second[1]), limit)
    return {masks: {"users": users} for masks, users in closed.items()}, whole


def _groups(sets: Sequence[SubjectSet], _superblocks: frozenset[int], limit: int) -> tuple[_Part, bool]:
    free = _unasked(sets, "groups")
    single: dict[_Masks, frozenset[tuple[int, bool]]] = {(free, free): frozenset()}  # group, whether it is a member
    for mask, group in _members([body.groups or frozenset() for body in sets]).items():
        single[mask | free, mask | free] = frozenset([(group, True)])
        single[mask | free, free] = frozenset([(group, False)])
    closed, whole = _closed(single, lambda first, second: (first[0] | second[0], first[1] | second[1]), limit)
    return {
        masks: {
            "groups": frozenset(group for group, _unused in groups),
            "memberships": frozenset(group for group, member in groups if member),
        }
        for masks, groups in closed.items()
    }, whole


def _logins(sets: Sequence[SubjectSet], _superblocks: frozenset[int], _limit: int) -> tuple[_Part, bool]:
    free = _unasked(sets, "login_users")
    part: _Part = {(free, free): {}}
    for mask, user in _members([body.login_users or frozenset() for body in sets]).items():
        part[mask | free, mask | free] = {"login_user": user}
    return part, True


def _services(sets: Sequence[SubjectSet], _superblocks: frozenset[int], _limit: int) -> tuple[_Part, bool]:
    free, every = _unasked(sets, "services"), (1 << len(sets)) - 1
    part: _Part = {}
    named = sorted(path for body in sets for path in body.services or ())
    for cgroup in [("user.slice",), ("another.slice",), *named]:
        mask = sum(
            1 << i for i, body in enumerate(sets) if any(cgroup[: len(path)] == path for path in body.services or ())
        )
        part.setdefault((mask | free, mask | free), {} if cgroup == ("user.slice",) else {"service": cgroup})
    part.setdefault((every, free), {"service": None})
    return part, True


def _programs(sets: Sequence[SubjectSet], superblocks: frozenset[int], _limit: int) -> tuple[_Part, bool]:
    free, every = _unasked(sets, "executables"), (1 << len(sets)) - 1
    part: _Part = {}
    for where, mask in places([body.executables or frozenset() for body in sets], superblocks):
        part.setdefault((mask | free, mask | free), {"executable": where})
    part.setdefault((every, free), {"executable": None})
    return part, True


def _labels(sets: Sequence[SubjectSet], _superblocks: frozenset[int], limit: int) -> tuple[_Part, bool]:
    free = _unasked(sets, "has_read")
    single: dict[_Masks, frozenset[str]] = {(free, free): frozenset()}
    for mask, name in _members([body.has_read or frozenset() for body in sets]).items():
        single[mask | free, mask | free] = frozenset([name])
    closed, whole = _closed(single, lambda first, second: (first[0] | second[0], first[1] | second[1]), limit)
    return {masks: {"labels": names} for masks, names in closed.items()}, whole


def _closed(
    single: dict[_Masks, frozenset[_Item]], joined: Callable[[_Masks, _Masks], _Masks], limit: int
) -> tuple[dict[_Masks, frozenset[_Item]], bool]:
    """Adds tasks with several ids, groups or labels: every combination that the sets distinguish."""
    closed = dict(single)
    todo = list(closed)
    for masks in todo:
        for other, values in single.items():
            both = joined(masks, other)
            if both not in closed:
                if len(closed) >= limit:
                    return closed, False
                closed[both] = closed[masks] | values
                todo.append(both)
    return closed, True


# ---- objects ------------------------------------------------------------------------------------------------------


def objects(action: str, sets: Sequence[Any], superblocks: frozenset[int]) -> list[ObjectKind]:
    """Returns the kinds of objects of an action that the sets (ResourceSet or DestinationSet) distinguish."""
    if action in actions.RESOURCES:
        kinds = [_file(action, where, mask) for where, mask in places([body.paths for body in sets], superblocks)]
        unknown = Location(0, (), trouble="too-deep")
        return [
            *kinds,
            ObjectKind(lambda task: FileEvent(task, action, unknown), "an object whose path is unknown", 0, True),
        ]
    if action in actions.NETWORK:
        kinds = [_endpoint(action, *example) for example in endpoints(sets, action)]
        return [
            *kinds,
            ObjectKind(
                lambda task: NetworkEvent(task, action, "0.0.0.0", 0, 6, "no-address"),
                "an unknown destination",
                0,
                True,
            ),
        ]
    if action == "vsock":
        return [_vsock(*example) for example in contexts(sets)]
    return [ObjectKind(lambda task: PlainEvent(task, action), "", 0)]


def _file(action: str, where: Location, mask: int) -> ObjectKind:
    return ObjectKind(lambda task: FileEvent(task, action, where), path_text(where), mask)


def _endpoint(action: str, address: str, port: int, protocol: int, mask: int) -> ObjectKind:
    text = f"{address} port {port}/{_protocol_text(protocol)}"
    return ObjectKind(lambda task: NetworkEvent(task, action, address, port, protocol), text, mask)


def _vsock(cid: int, port: int, mask: int) -> ObjectKind:
    return ObjectKind(lambda task: VsockEvent(task, cid, port), f"vsock {cid}:{port}", mask)


def _protocol_text(number: int) -> str:
    from ..resolve.resolver import PROTOCOLS

    return next((name for name, value in PROTOCOLS.items() if value == number), str(number))


def path_text(where: Location) -> str:
    """Returns a path, or the name of an abstract socket, for people."""
    if where.device == layout.ABSTRACT:
        return "@" + "/".join(where.components)
    text = "/" + "/".join(where.components)
    return "".join(char if char.isprintable() else f"\\x{ord(char) & 0xFF:02x}" for char in text)


def places(sets: Sequence[Iterable[PathPattern]], superblocks: frozenset[int]) -> list[tuple[Location, int]]:
    """Returns a path for each combination of sets that can match a path, by a walk through the kernel's automaton. The
    numbers are masks of the sets."""
    roots: dict[int, dict[Components, int]] = {device: {} for device in sorted(superblocks)[:1]}
    for i, patterns in enumerate(sets):
        for pattern in patterns:
            root = roots.setdefault(pattern.device, {})
            root[pattern.components] = root.get(pattern.components, 0) | 1 << i
    devices = sorted(roots)
    built = automaton.build([roots[device] for device in devices])
    examples: dict[int, Location] = {}
    for device, start in zip(devices, built.starts):
        known = device in superblocks or device == layout.ABSTRACT
        for mask, path in _walk(built, start):
            if mask not in examples or (not examples[mask].components and path):
                examples[mask] = Location(device, path, pseudo=not known)
    examples.setdefault(0, Location(0, ("x",), pseudo=True))
    return [(where, mask) for mask, where in examples.items()]


def _walk(built: automaton.Automaton, start: int) -> Iterable[tuple[int, Components]]:
    """Yields the accepted sets of every reachable state, with a shortest path to it."""
    ways: dict[int, Components] = {start: ()}
    todo = [start]
    for number in todo:
        state = built.states[number]
        yield state.accepts, ways[number]
        for name, following in _steps(built, state):
            if following not in ways:
                ways[following] = ways[number] + (os.fsdecode(name),)
                todo.append(following)
            elif following == number == start:  # the root itself is a poor example of the paths below it
                yield state.accepts, (os.fsdecode(name),)


def _steps(built: automaton.Automaton, state: automaton.State) -> Iterable[tuple[bytes, int]]:
    """Yields, for each state that a component can lead to, such a component."""
    if not state.bytes:
        yield next(name for name in _unused_names() if name not in state.edges), state.otherwise
        yield from state.edges.items()
        return
    ways: dict[int, bytes] = {state.bytes - 1: b""}
    todo = [state.bytes - 1]
    left = True  # no component was yielded yet that matches none of the patterns
    for number in todo:
        row = built.rows[number]
        if ways[number]:
            longer = b"x" + ways[number]  # a better example for a pattern that begins with *
            yield longer if _ends(built, state, longer) == row.target else ways[number], row.target
        for byte in _LETTERS + tuple(byte for byte in sorted(row.next) if byte not in _LETTERS and byte != 0x2F):
            target = row.next.get(byte)
            if not target:
                if left:
                    yield ways[number] + bytes([byte]), state.otherwise
                left = False
            elif target - 1 not in ways:
                ways[target - 1] = ways[number] + bytes([byte])
                todo.append(target - 1)


def _ends(built: automaton.Automaton, state: automaton.State, name: bytes) -> int:
    row = built.rows[state.bytes - 1]
    for byte in name:
        following = row.next.get(byte)
        if not following:
            return state.otherwise
        row = built.rows[following - 1]
    return row.target


def _unused_names() -> Iterable[bytes]:
    yield b"x"
    yield b"example"
    number = 0
    while True:
        number += 1
        yield b"example-%d" % number


def endpoints(sets: Sequence[DestinationSet], action: str) -> list[tuple[str, int, int, int]]:
    """Returns addresses, ports, protocols and the masks of the sets that have them. The first value of a network or
    of a range of ports, and the one after its last, distinguish it from its neighbours."""
    by_address = _addresses(sets, action)
    ports = list(_PORTS) + sorted(
        {
            number
            for body in sets
            for first, last in body.ports or ()
            for number in (first, last + 1)
            if number <= _LAST_PORT
        }
    )
    by_port = _distinguished(ports, [_in_ranges(body.ports) if body.ports else None for body in sets])
    protocols = list(_TRANSPORTS) + sorted({number for body in sets for number in body.protocols or ()})
    by_protocol = _distinguished(protocols, [body.protocols.__contains__ if body.protocols else None for body in sets])
    examples: dict[tuple[int, str], tuple[str, int, int, int]] = {}
    for (first, own), address in by_address.items():
        for second, port in by_port.items():
            for third, protocol in by_protocol.items():
                inside = first & second & third
                examples.setdefault((inside, own), (address, port, protocol, inside))
    return list(examples.values())


def _addresses(sets: Sequence[DestinationSet], action: str) -> dict[tuple[int, str], str]:
    """An address for each combination of sets that have it."""
    networks = [[ipaddress.ip_network(cidr) for cidr in sorted(body.cidrs or ())] for body in sets]
    candidates: list[Address] = [ipaddress.ip_address(address) for address in _ADDRESSES]
    for network in itertools.chain.from_iterable(networks):
        candidates.append(network[1] if network.num_addresses > 2 else network[0])
        numbers = (int(network[0]), int(network[-1]) + 1)
        candidates.extend(type(network[0])(number) for number in numbers if number < 1 << network.max_prefixlen)
    by_address: dict[tuple[int, str], str] = {}
    for address in candidates:
        if getattr(address, "ipv4_mapped", None):
            continue
        mask = sum(
            1 << i
            for i, body in enumerate(sets)
            if body.vsock is None
            and (
                body.cidrs is None
                or any(network.version == address.version and address in network for network in networks[i])
            )
        )
        # the address that stands for all addresses of the host is a case of its own
        own = str(address) if action in actions.OWN and address.is_unspecified else ""
        by_address.setdefault((mask, own), str(address))
    return by_address


def _in_ranges(ranges: Iterable[tuple[int, int]]) -> Callable[[int], bool]:
    return lambda port: any(first <= port <= last for first, last in ranges)


def _distinguished(values: Iterable[int], tests: Sequence[Callable[[int], bool] | None]) -> dict[int, int]:
    """A value for each combination of tests that it passes. None passes every value."""
    examples: dict[int, int] = {}
    for value in values:
        examples.setdefault(sum(1 << i for i, test in enumerate(tests) if test is None or test(value)), value)
    return examples


def contexts(sets: Sequence[DestinationSet]) -> list[tuple[int, int, int]]:
    """Returns context ids and ports of vsock, and the masks of the sets that have them."""
    listed = [body.vsock or frozenset() for body in sets]
    cids = list(_CIDS) + sorted({cid for pairs in listed for cid, _unused in pairs if cid is not None})
    ports = [
        *_PORTS,
        _HIGH_VSOCK_PORT,
        *sorted({port for pairs in listed for _unused, port in pairs if port is not None}),
    ]
    examples: dict[int, tuple[int, int, int]] = {}
    for cid in cids:
        for port in ports:
            inside = sum(
                1 << i
                for i, pairs in enumerate(listed)
                if any(own_cid in (None, cid) and own_port in (None, port) for own_cid, own_port in pairs)
            )
            examples.setdefault(inside, (cid, port, inside))
    return list(examples.values())


# ---- for people -----------------------------------------------------------------------------------------------------


def describe_subjects(names: Sequence[str], chosen: Sequence[TaskKind], others: Sequence[TaskKind]) -> str:
    """Describes the chosen kinds of tasks by the names of the sets. Kinds that are only partly in a set are ignored
    when there are others."""
    if not others:
        return "everyone"
    wanted = sorted({kind.may for kind in chosen if kind.may == kind.surely})
    partly = not wanted
    if partly:
        wanted = sorted({kind.may for kind in chosen})
    unwanted = sorted({kind.may for kind in others if kind.may == kind.surely} - set(wanted))
    base = _minimal(wanted)
    but = _minimal(mask for mask in unwanted if _above(mask, base))
    also = _minimal(mask for mask in wanted if _above(mask, but))
    text = " or ".join(_named(names, mask) for mask in base)
    if partly:
        text = "in part " + text
    if but:
        text += (" but " if base == [0] else " but not ") + ", ".join(
            _named(names, mask & ~_below(mask, base)) for mask in but
        )
    if also:
        text += ", and " + " or ".join(_named(names, mask) for mask in also)
    exact = all(
        ((_above(mask, base) and not _above(mask, but)) or _above(mask, also)) == (mask in wanted)
        for mask in wanted + unwanted
    )
    return text if exact else text + " (roughly)"


def _minimal(masks: Iterable[int]) -> list[int]:
    """The masks that contain no other."""
    minimal: list[int] = []
    for mask in sorted(masks, key=lambda mask: (bin(mask).count("1"), mask)):
        if not _above(mask, minimal):
            minimal.append(mask)
    return minimal


def _above(mask: int, minimal: Iterable[int]) -> bool:
    """Whether the mask contains one of the others."""
    return any(other & mask == other for other in minimal)


def _below(mask: int, minimal: Iterable[int]) -> int:
    """One of the others that the mask contains."""
    return next((other for other in minimal if other & mask == other), 0)


def _named(names: Sequence[str], mask: int) -> str:
    chosen = [name for i, name in enumerate(names) if mask >> i & 1]
    return " and ".join(chosen) if chosen else "everyone"


def task_text(task: Task, name: Callable[[str, int], str]) -> str:
    """Describes an example of a task. ``name``: looks up a "user" or "group" by its number."""
    parts: list[str] = []
    for kind, ids in (("user", task.users), ("group", task.groups)):
        parts.extend(f"{kind} {name(kind, number)}" for number in sorted(ids) if number < UNNAMED_ID)
    if task.login_user < UNNAMED_ID:
        parts.append(f"login user {name('user', task.login_user)}")
    if task.service is None or task.service != ("user.slice",):
        parts.append(f"service {task.service[-1] if task.service else 'unknown'}")
    if task.executable is not None and task.executable.components not in ((), ("x",)):
        parts.append(f"program {path_text(task.executable)}")
    parts.extend(f"has read {label}" for label in sorted(task.labels))
    if task.ids_truncated:
        parts.append("too many groups")
    return ", ".join(parts) or "anybody"
