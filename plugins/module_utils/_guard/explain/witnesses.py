# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One example of each kind of task and of object that given sets tell apart. What no set tells apart the semantics
decides alike, so that asking it about the examples is asking it about everything. Nothing is decided here."""

from __future__ import annotations

import ipaddress
import os
from typing import Any, Callable, Dict, Iterable, NamedTuple, Sequence, Tuple

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

LIMIT = 4096  # kinds of tasks; beyond it some are left out, and that is said
NOBODY = 4_100_000_000  # and up: ids that no policy names
# documentation's own, then the first of both families, and the first after the mapped ones, which are IPv4
_ADDRESSES = ("198.51.100.7", "2001:db8::7", "0.0.0.0", "::", "::1:0:0:0")
_PORTS, _TRANSPORTS = (443, 0), (6, 17, 254)
_CIDS = (2, 3, 0xFFFFFFF0)
_LETTERS = tuple(b"xabcdefghijklmnopqrstuvwyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class TaskKind(NamedTuple):
    """``may``, ``surely``: bit i tells whether the task counts as in the i-th set when a rule binds, or excepts."""

    task: Task
    may: int
    surely: int


class ObjectKind(NamedTuple):
    """``event``: gives the event in which a task tries the action on the object. ``inside``: bit i: it is in the i-th
    set. ``untold``: where it is can't be told."""

    event: Callable[[Task], Any]
    text: str
    inside: int
    untold: bool = False


# ---- tasks --------------------------------------------------------------------------------------------------------

_Masks = Tuple[int, int]
_Part = Dict[_Masks, Dict[str, Any]]  # the masks of an example, and the fields of Task that make it


def tasks(sets: Sequence[SubjectSet], superblocks: frozenset[int], limit: int = LIMIT) -> tuple[list[TaskKind], bool]:
    """The kinds of tasks that the sets tell apart, the plainest first, and whether that is all of them."""
    every = (1 << len(sets)) - 1
    parts, whole = [], True
    for field in (_users, _groups, _logins, _services, _programs, _labels):
        part, complete = field(sets, superblocks, limit)
        parts.append(part)
        whole = whole and complete
    found: _Part = {(every, every): {}}
    found, complete = _joined(found, parts, limit)
    cut, more = _joined(_cut_lists(sets, every), parts[2:], limit)
    for masks, fields in cut.items():
        found.setdefault(masks, fields)
    kinds = [TaskKind(_task(fields), *masks) for masks, fields in found.items()]
    return kinds, whole and complete and more


def _joined(found: _Part, parts: Sequence[_Part], limit: int) -> tuple[_Part, bool]:
    """Keys of a set are joined by AND."""
    whole = True
    for part in parts:
        product: _Part = {}
        for masks, fields in part.items():
            for other, more in found.items():
                product.setdefault((masks[0] & other[0], masks[1] & other[1]), dict(fields, **more))
        whole = whole and len(product) <= limit
        found = dict(list(product.items())[:limit])
    return found, whole


def _task(fields: dict[str, Any]) -> Task:
    plain = {
        "users": frozenset([NOBODY]),
        "groups": frozenset(),
        "memberships": frozenset(),
        "login_user": NOBODY,
        "service": ("user.slice",),
        "executable": None,
    }
    return Task(**dict(plain, **fields))


def _cut_lists(sets: Sequence[SubjectSet], every: int) -> _Part:
    surely = sum(1 << i for i, one in enumerate(sets) if one.users is None and one.groups is None)
    return {(every, surely): {"ids_truncated": True}}


def _unasked(sets: Sequence[SubjectSet], key: str) -> int:
    return sum(1 << i for i, one in enumerate(sets) if getattr(one, key) is None)


def _members(sets: Sequence[SubjectSet], key: str) -> dict[int, Any]:
    """Of the values that some set lists under a key, and of one that none lists, an example for each combination of
    sets that list it."""
    listed = [frozenset() if getattr(one, key) is None else getattr(one, key) for one in sets]
    found: dict[int, Any] = {}
    for value in sorted(frozenset().union(*listed)) if listed else ():
        found.setdefault(sum(1 << i for i, values in enumerate(listed) if value in values), value)
    return found


def _users(sets: Sequence[SubjectSet], _superblocks: frozenset[int], limit: int) -> tuple[_Part, bool]:
    free = _unasked(sets, "users")
    single = {(free, free): frozenset([NOBODY])}
    single.update(((mask | free, mask | free), frozenset([user])) for mask, user in _members(sets, "users").items())
    found, whole = _closed(single, lambda one, other: (one[0] | other[0], one[1] & other[1]), limit)
    return {masks: {"users": users} for masks, users in found.items()}, whole


def _groups(sets: Sequence[SubjectSet], _superblocks: frozenset[int], limit: int) -> tuple[_Part, bool]:
    free = _unasked(sets, "groups")
    single = {(free, free): frozenset()}
    for mask, group in _members(sets, "groups").items():  # a group that it is in, and one that only an id names
        single[mask | free, mask | free] = frozenset([(group, True)])
        single[mask | free, free] = frozenset([(group, False)])
    found, whole = _closed(single, lambda one, other: (one[0] | other[0], one[1] | other[1]), limit)
    return {
        masks: {
            "groups": frozenset(group for group, _ in groups),
            "memberships": frozenset(group for group, member in groups if member),
        }
        for masks, groups in found.items()
    }, whole


def _logins(sets: Sequence[SubjectSet], _superblocks: frozenset[int], _limit: int) -> tuple[_Part, bool]:
    free = _unasked(sets, "login_users")
    found: _Part = {(free, free): {}}
    for mask, user in _members(sets, "login_users").items():
        found[mask | free, mask | free] = {"login_user": user}
    return found, True


def _services(sets: Sequence[SubjectSet], _superblocks: frozenset[int], _limit: int) -> tuple[_Part, bool]:
    free, every = _unasked(sets, "services"), (1 << len(sets)) - 1
    found: _Part = {}
    named = sorted(path for one in sets for path in one.services or ())
    for cgroup in [("user.slice",), ("another.slice",), *named]:
        mask = sum(
            1 << i for i, one in enumerate(sets) if any(cgroup[: len(path)] == path for path in one.services or ())
        )
        found.setdefault((mask | free, mask | free), {} if cgroup == ("user.slice",) else {"service": cgroup})
    found.setdefault((every, free), {"service": None})
    return found, True


def _programs(sets: Sequence[SubjectSet], superblocks: frozenset[int], _limit: int) -> tuple[_Part, bool]:
    free, every = _unasked(sets, "executables"), (1 << len(sets)) - 1
    found: _Part = {}
    for where, mask in places([one.executables or frozenset() for one in sets], superblocks):
        found.setdefault((mask | free, mask | free), {"executable": where})
    found.setdefault((every, free), {"executable": None})
    return found, True


def _labels(sets: Sequence[SubjectSet], _superblocks: frozenset[int], limit: int) -> tuple[_Part, bool]:
    free = _unasked(sets, "has_read")
    single = {(free, free): frozenset()}
    single.update(((mask | free, mask | free), frozenset([name])) for mask, name in _members(sets, "has_read").items())
    found, whole = _closed(single, lambda one, other: (one[0] | other[0], one[1] | other[1]), limit)
    return {masks: {"labels": names} for masks, names in found.items()}, whole


def _closed(
    single: dict[_Masks, frozenset[Any]], joined: Callable[[_Masks, _Masks], _Masks], limit: int
) -> tuple[dict[_Masks, frozenset[Any]], bool]:
    """Whoever has several ids, groups or labels: every combination that makes a difference."""
    found = dict(single)
    todo = list(found)
    for masks in todo:
        for other, values in single.items():
            both = joined(masks, other)
            if both not in found:
                if len(found) >= limit:
                    return found, False
                found[both] = found[masks] | values
                todo.append(both)
    return found, True


# ---- objects ------------------------------------------------------------------------------------------------------


def objects(action: str, sets: Sequence[Any], superblocks: frozenset[int]) -> list[ObjectKind]:
    """The kinds of objects of an action that the sets (ResourceSet or DestinationSet) tell apart."""
    if action in actions.RESOURCES:
        found = [_file(action, where, mask) for where, mask in places([one.paths for one in sets], superblocks)]
        untold = Location(0, (), trouble="too-deep")
        return [*found, ObjectKind(lambda task: FileEvent(task, action, untold), "what can't be placed", 0, True)]
    if action in actions.NETWORK:
        found = [_endpoint(action, *each) for each in endpoints(sets, action)]
        return [
            *found,
            ObjectKind(
                lambda task: NetworkEvent(task, action, "0.0.0.0", 0, 6, "no-address"),
                "where it goes can't be told",
                0,
                True,
            ),
        ]
    if action == "vsock":
        return [_vsock(*each) for each in contexts(sets)]
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

    return next((name for name, each in PROTOCOLS.items() if each == number), str(number))


def path_text(where: Location) -> str:
    if where.device == layout.ABSTRACT:
        return "@" + "/".join(where.components)
    text = "/" + "/".join(where.components)
    return "".join(char if char.isprintable() else f"\\x{ord(char) & 0xFF:02x}" for char in text)


def places(sets: Sequence[Iterable[PathPattern]], superblocks: frozenset[int]) -> list[tuple[Location, int]]:
    """A place for each combination of sets of patterns that a place can be in: found on the way through the automaton
    that the kernel walks."""
    roots: dict[int, dict[Components, int]] = {device: {} for device in sorted(superblocks)[:1]}
    for i, patterns in enumerate(sets):
        for pattern in patterns:
            root = roots.setdefault(pattern.device, {})
            root[pattern.components] = root.get(pattern.components, 0) | 1 << i
    devices = sorted(roots)
    built = automaton.build([roots[device] for device in devices])
    found: dict[int, Location] = {}
    for device, start in zip(devices, built.starts):
        known = device in superblocks or device == layout.ABSTRACT
        for marks, path in _walk(built, start):
            if marks not in found or (not found[marks].components and path):
                found[marks] = Location(device, path, pseudo=not known)
    found.setdefault(0, Location(0, ("x",), pseudo=True))
    return [(where, marks) for marks, where in found.items()]


def _walk(built: automaton.Automaton, start: int) -> Iterable[tuple[int, Components]]:
    """The marks of every state that can be reached, each with a shortest way there."""
    ways: dict[int, Components] = {start: ()}
    todo = [start]
    for number in todo:
        state = built.states[number]
        yield state.accepts, ways[number]
        for name, following in _steps(built, state):
            if following not in ways:
                ways[following] = ways[number] + (os.fsdecode(name),)
                todo.append(following)
            elif following == number == start:  # the root itself is a poor example of what is below it
                yield state.accepts, (os.fsdecode(name),)


def _steps(built: automaton.Automaton, state: automaton.State) -> Iterable[tuple[bytes, int]]:
    """For each state that a component can lead to, a component that does."""
    if not state.bytes:
        yield next(name for name in _fresh() if name not in state.edges), state.otherwise
        for name, following in state.edges.items():
            yield name, following
        return
    ways: dict[int, bytes] = {state.bytes - 1: b""}
    todo = [state.bytes - 1]
    left = True  # a name that none of the patterns matches is still to be found
    for number in todo:
        row = built.rows[number]
        if ways[number]:
            longer = b"x" + ways[number]  # reads better for what begins with *
            yield longer if _ends(built, state, longer) == row.target else ways[number], row.target
        for byte in _LETTERS + tuple(byte for byte in sorted(row.next) if byte not in _LETTERS and byte != 0x2F):
            following = row.next.get(byte)
            if not following:
                if left:
                    yield ways[number] + bytes([byte]), state.otherwise
                left = False
            elif following - 1 not in ways:
                ways[following - 1] = ways[number] + bytes([byte])
                todo.append(following - 1)


def _ends(built: automaton.Automaton, state: automaton.State, name: bytes) -> int:
    row = built.rows[state.bytes - 1]
    for byte in name:
        following = row.next.get(byte)
        if not following:
            return state.otherwise
        row = built.rows[following - 1]
    return row.target


def _fresh() -> Iterable[bytes]:
    yield b"x"
    yield b"example"
    number = 0
    while True:
        number += 1
        yield b"example-%d" % number


def endpoints(sets: Sequence[DestinationSet], action: str) -> list[tuple[str, int, int, int]]:
    """Address, port, protocol and the sets that hold them. A network, and a range of ports, is told apart from what is
    beside it by its first value and the one after its last."""
    networks = [[ipaddress.ip_network(cidr) for cidr in sorted(one.cidrs or ())] for one in sets]
    candidates = [ipaddress.ip_address(each) for each in _ADDRESSES]
    for each in (network for one in networks for network in one):
        candidates.append(each[1] if each.num_addresses > 2 else each[0])
        candidates.extend(
            type(each[0])(number) for number in (int(each[0]), int(each[-1]) + 1) if number < 1 << each.max_prefixlen
        )
    candidates = [each for each in candidates if not getattr(each, "ipv4_mapped", None)]
    by_address: dict[tuple[int, str], str] = {}
    for address in candidates:
        mask = sum(
            1 << i
            for i, one in enumerate(sets)
            if one.vsock is None
            and (
                one.cidrs is None
                or any(network.version == address.version and address in network for network in networks[i])
            )
        )
        # what stands for all addresses of the host is a case of its own
        own = str(address) if action in actions.OWN and address.is_unspecified else ""
        by_address.setdefault((mask, own), str(address))
    ports = list(_PORTS) + sorted(
        {number for one in sets for first, last in one.ports or () for number in (first, last + 1) if number <= 65535}
    )
    by_port = _told_apart(
        ports,
        [one.ports and (lambda port, one=one: any(first <= port <= last for first, last in one.ports)) for one in sets],
    )
    protocols = list(_TRANSPORTS) + sorted({number for one in sets for number in one.protocols or ()})
    by_protocol = _told_apart(protocols, [one.protocols and one.protocols.__contains__ for one in sets])
    found: dict[tuple[int, str], tuple[str, int, int, int]] = {}
    for (first, own), address in by_address.items():
        for second, port in by_port.items():
            for third, protocol in by_protocol.items():
                inside = first & second & third
                found.setdefault((inside, own), (address, port, protocol, inside))
    return list(found.values())


def _told_apart(values: Iterable[int], holding: Sequence[Any]) -> dict[int, int]:
    found: dict[int, int] = {}
    for value in values:
        found.setdefault(sum(1 << i for i, holds in enumerate(holding) if not holds or holds(value)), value)
    return found


def contexts(sets: Sequence[DestinationSet]) -> list[tuple[int, int, int]]:
    """Context id and port of vsock, and the sets that hold them."""
    listed = [one.vsock or frozenset() for one in sets]
    cids = list(_CIDS) + sorted({cid for each in listed for cid, _ in each if cid is not None})
    ports = [*list(_PORTS), 4294967280, *sorted({port for each in listed for _, port in each if port is not None})]
    found: dict[int, tuple[int, int, int]] = {}
    for cid in cids:
        for port in ports:
            inside = sum(
                1 << i
                for i, each in enumerate(listed)
                if any(one in (None, cid) and other in (None, port) for one, other in each)
            )
            found.setdefault(inside, (cid, port, inside))
    return list(found.values())


# ---- in words -----------------------------------------------------------------------------------------------------


def who(names: Sequence[str], chosen: Sequence[TaskKind], others: Sequence[TaskKind]) -> str:
    """Whom the chosen kinds of tasks are, by the names of the sets. Kinds that are in a set only in part are left out
    of the words where others are there."""
    if not others:
        return "everyone"
    wanted = sorted({each.may for each in chosen if each.may == each.surely})
    partly = not wanted
    if partly:
        wanted = sorted({each.may for each in chosen})
    unwanted = sorted({each.may for each in others if each.may == each.surely} - set(wanted))
    base = _least(wanted)
    but = _least(mask for mask in unwanted if _above(mask, base))
    also = _least(mask for mask in wanted if _above(mask, but))
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


def _least(masks: Iterable[int]) -> list[int]:
    found: list[int] = []
    for mask in sorted(masks, key=lambda each: (bin(each).count("1"), each)):
        if not _above(mask, found):
            found.append(mask)
    return found


def _above(mask: int, least: Iterable[int]) -> bool:
    return any(each & mask == each for each in least)


def _below(mask: int, least: Iterable[int]) -> int:
    return next((each for each in least if each & mask == each), 0)


def _named(names: Sequence[str], mask: int) -> str:
    found = [name for i, name in enumerate(names) if mask >> i & 1]
    return " and ".join(found) if found else "everyone"


def task_text(task: Task, name: Callable[[str, int], str]) -> str:
    """An example in words. ``name``: of a `user` or `group` by its number."""
    parts: list[str] = []
    for kind, ids in (("user", task.users), ("group", task.groups)):
        parts.extend(f"{kind} {name(kind, each)}" for each in sorted(ids) if each < NOBODY)
    if task.login_user < NOBODY:
        parts.append("login user {0}".format(name("user", task.login_user)))
    if task.service is None or task.service != ("user.slice",):
        parts.append("service {0}".format(task.service[-1] if task.service else "unknown"))
    if task.executable is not None and task.executable.components not in ((), ("x",)):
        parts.append(f"program {path_text(task.executable)}")
    parts.extend(f"has read {each}" for each in sorted(task.labels))
    if task.ids_truncated:
        parts.append("too many groups")
    return ", ".join(parts) or "anybody"
