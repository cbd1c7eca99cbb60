# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiles a resolved policy to the contents of the maps. The same policy and day give the same bytes."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from typing import AbstractSet, Any, Callable, Dict, Iterable, Mapping, NamedTuple, Sequence, TypeVar, Union

from .. import layout
from ..policy import actions, model, semantics
from . import automaton

Table = Dict[bytes, bytes]
_Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
_Key = TypeVar("_Key")
_RANGES: dict[int, _Network] = {number: ipaddress.ip_network(text) for number, text in layout.RANGES.items()}
# What a state of the path automaton accepts: bits for executables by subject set, services by subject set, resource
# sets, and after the last resource set the paths that self-protection covers.
_SERVICES_SHIFT, _RESOURCES_SHIFT = layout.SETS, 2 * layout.SETS


class Image(NamedTuple):
    """The contents of the maps of one generation, by the map's name."""

    tables: dict[str, Table]

    def digest(self) -> str:
        """SHA-256 over the entries of every table in order."""
        total = hashlib.sha256()
        for name in sorted(self.tables):
            for key, value in sorted(self.tables[name].items()):
                for part in (name.encode(), key, value):
                    total.update(len(part).to_bytes(4, "little") + part)
        return total.hexdigest()


class _Sets(NamedTuple):
    """The sets of a policy and the bits that stand for them."""

    subjects: Mapping[str, model.SubjectSet]
    subject_names: list[str | None]  # by bit; None: the bit is not used
    resources: Mapping[str, model.ResourceSet]
    destinations: Mapping[str, model.DestinationSet]
    destination_names: list[str]  # by bit
    label_bits: Mapping[str, int]


def rule_bits(image: Image) -> list[str]:
    """The names of the rules by bit."""
    rows = sorted((int.from_bytes(k, "little"), v) for k, v in image.tables["rules"].items())
    return [layout.RULE.unpack(value).name.rstrip(b"\0").decode() for _index, value in rows if any(value)]


def rule_id(name: str) -> int:
    """The key of the rule in the map of counters."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def compile_policy(
    resolved: model.Resolved,
    now: datetime.date,
    canary: model.PathPattern | None = None,
    labels: Mapping[str, int] = {},
) -> Image:
    """Compiles the rules in force on the day ``now`` (UTC).

    ``canary``: the file that layout.CANARY_USER must not read, for the self-test. ``labels``: the label bits that the
    kernel uses already (see labels_of). Raises automaton.TooLargeError."""
    rules = [rule for rule in sorted(resolved.rules) if semantics.in_force(rule, now)]
    subjects, resources, destinations = dict(resolved.subjects), dict(resolved.resources), dict(resolved.destinations)
    canary_rules = _canary_rules(rules, canary is not None)
    rules += canary_rules
    if canary_rules:
        subjects[layout.CANARY_FILE_RULE] = model.SubjectSet(users=frozenset([layout.CANARY_USER]))
    for rule in canary_rules:
        if canary is not None and rule.resources is not None:
            resources[layout.CANARY_FILE_RULE] = model.ResourceSet(frozenset([canary]))
        if rule.destinations is not None:
            cidr = layout.CANARY_ADDRESS + "/32"
            destinations[layout.CANARY_NETWORK_RULE] = model.DestinationSet(cidrs=frozenset([cidr]))
    # The self-test's subject set has a fixed bit: unlike the other sets, it does not match if ids are truncated.
    names: list[str | None] = [name for name in sorted(subjects) if name != layout.CANARY_FILE_RULE]
    if layout.CANARY_FILE_RULE in subjects:
        names += [None] * (layout.CANARY_SET - len(names)) + [layout.CANARY_FILE_RULE]
    label_bits = _label_bits(subjects, labels)
    sets = _Sets(subjects, names, resources, destinations, sorted(destinations), label_bits)
    superblocks = resolved.superblocks | {canary.device} if canary else resolved.superblocks
    tables, service_root = _automaton_tables(sets, rules, superblocks, resolved.tamper_paths)
    tables.update(_number_tables(sets))
    tables.update(_rule_tables(sets, rules, service_root))
    label_names = {bit: name for name, bit in label_bits.items()}
    tables["labels"] = _rows(
        layout.LABEL, [layout.Label(label_names.get(bit, "").encode()) for bit in range(layout.LABELS)]
    )
    tables["devices"] = {
        layout.DEVICE_KEY.pack(layout.DeviceKey(block, device)): _index(actions.NUMBERS[action])
        for block, device, action in resolved.devices
    }
    return Image(tables)


def _canary_rules(rules: Iterable[model.Rule], has_file: bool) -> list[model.Rule]:
    """The self-test's rules: one for files and one for the network, if the policy has rules of that kind."""
    result = []
    subjects = frozenset([layout.CANARY_FILE_RULE])
    denied = frozenset(action for rule in rules for action in rule.deny)
    if has_file and denied.intersection(actions.FILES):
        selection = model.Selection(frozenset([layout.CANARY_FILE_RULE]))
        result.append(model.Rule(layout.CANARY_FILE_RULE, frozenset(["read"]), subjects, resources=selection))
    if denied.intersection(actions.NETWORK):
        selection = model.Selection(frozenset([layout.CANARY_NETWORK_RULE]))
        result.append(model.Rule(layout.CANARY_NETWORK_RULE, frozenset(["connect"]), subjects, destinations=selection))
    return result


def _index(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _set_vector(sets: int) -> bytes:
    return sets.to_bytes(8, "little")


def _add(table: dict[_Key, int], key: _Key, bit: int) -> None:
    table[key] = table.get(key, 0) | 1 << bit


def _rules_where(rules: Iterable[model.Rule], condition: Callable[[model.Rule], bool]) -> int:
    return sum(1 << bit for bit, rule in enumerate(rules) if condition(rule))


def _sets_where(names: Iterable[str | None], condition: Callable[[str], bool]) -> int:
    return sum(1 << bit for bit, name in enumerate(names) if name is not None and condition(name))


# -- labels -------------------------------------------------------------------------------------------------------


def labels_of(tables: Mapping[str, Table]) -> dict[str, int]:
    """The label bits of a generation by name. The next generation keeps them."""
    named = {
        layout.LABEL.unpack(value).name.rstrip(b"\0").decode(): int.from_bytes(key, "little")
        for key, value in tables.get("labels", {}).items()
    }
    return {name: bit for name, bit in named.items() if name}


def _label_bits(subjects: Mapping[str, model.SubjectSet], labels: Mapping[str, int]) -> dict[str, int]:
    """A name keeps its bit even if no rule uses it, because tasks may carry the label. If no bit is free, the bit of an
    unused name is reassigned."""
    needed = sorted({name for subject in subjects.values() for name in subject.has_read or ()})
    bits = dict(labels)
    free = [bit for bit in range(layout.LABELS) if bit not in bits.values()]
    unused = sorted(name for name in bits if name not in needed)
    for name in needed:
        if name not in bits:
            bits[name] = free.pop(0) if free else bits.pop(unused.pop(0))
    return bits


# -- paths --------------------------------------------------------------------------------------------------------


def _automaton_tables(
    sets: _Sets, rules: Sequence[model.Rule], superblocks: AbstractSet[int], protected: Iterable[model.PathPattern]
) -> tuple[dict[str, Table], int]:
    """The tables superblocks, states, edges and bytes, and the state of the root of the cgroup hierarchy.

    The names of abstract unix sockets have a superblock of their own, which is always present."""
    protected = frozenset(protected)
    superblocks = {*superblocks, layout.ABSTRACT, *(pattern.device for pattern in protected)}
    roots, services = _roots(sets, superblocks, protected)
    devices = sorted(roots)
    built = automaton.build([roots[device] for device in devices] + [services])
    names = sorted(sets.resources)
    covers = _covered_rules(rules, names, [state.accepts >> _RESOURCES_SHIFT for state in built.states])
    reaches, pervades = _below(built, covers)
    limit = (1 << layout.SETS) - 1
    tables: dict[str, Table] = {}
    tables["superblocks"] = {
        layout.SUPERBLOCK_KEY.pack(layout.SuperblockKey(device)): _index(start)
        for device, start in zip(devices, built.starts)
        if device in superblocks
    }
    tables["states"] = {
        _index(number): layout.STATE.pack(
            layout.State(
                otherwise=state.otherwise,
                bytes=state.bytes,
                services=state.accepts >> _SERVICES_SHIFT & limit,
                executables=state.accepts & limit,
                labels=_labels_in(names, sets.label_bits, state.accepts >> _RESOURCES_SHIFT),
                covers=covers[number],
                reaches=reaches[number],
                pervades=pervades[number],
            )
        )
        for number, state in enumerate(built.states)
    }
    tables["edges"] = {
        layout.EDGE_KEY.pack(layout.EdgeKey(number, component)): _index(target)
        for number, state in enumerate(built.states)
        for component, target in state.edges.items()
    }
    tables["bytes"] = {
        _index(number): layout.BYTES.pack(
            layout.ByteRow(row.target, 0, tuple(row.next.get(byte, 0) for byte in range(256)))
        )
        for number, row in enumerate(built.rows or [automaton.Row(0, {})])
    }
    return tables, built.starts[-1]


def _roots(
    sets: _Sets, superblocks: Iterable[int], protected: Iterable[model.PathPattern]
) -> tuple[dict[int, dict[model.Components, int]], dict[model.Components, int]]:
    """The patterns of each device, and those of the cgroup hierarchy, with what each accepts."""
    names = sorted(sets.resources)
    roots: dict[int, dict[model.Components, int]] = {device: {} for device in superblocks}
    services: dict[model.Components, int] = {}
    for bit, name in enumerate(names):
        for pattern in sets.resources[name].paths:
            _add(roots.setdefault(pattern.device, {}), pattern.components, _RESOURCES_SHIFT + bit)
    for pattern in protected:
        _add(roots.setdefault(pattern.device, {}), pattern.components, _RESOURCES_SHIFT + len(names))
    for bit, subject in _subjects_by_bit(sets):
        for pattern in subject.executables or ():
            _add(roots.setdefault(pattern.device, {}), pattern.components, bit)
        for path in subject.services or ():
            _add(services, (*path, "**"), _SERVICES_SHIFT + bit)
    return roots, services


def _subjects_by_bit(sets: _Sets) -> list[tuple[int, model.SubjectSet]]:
    return [(bit, sets.subjects[name]) for bit, name in enumerate(sets.subject_names) if name is not None]


def _covered_rules(rules: Sequence[model.Rule], names: Sequence[str], accepting: Sequence[int]) -> list[int]:
    """For each state, the rules that cover the objects there. ``accepting``: the resource sets of each state."""
    plain, exempting = [0] * len(names), [0] * len(names)
    negated = 0
    for bit, rule in enumerate(rules):
        if rule.resources is None:
            continue
        if rule.resources.negated:
            negated |= 1 << bit
        for index, name in enumerate(names):
            if name in rule.resources.names:
                (exempting if rule.resources.negated else plain)[index] |= 1 << bit

    def covering(accepts: int) -> int:
        inside = [index for index in range(len(names)) if accepts >> index & 1]
        covered, exempted = _union(plain, inside), _union(exempting, inside)
        protected = accepts >> len(names) & 1
        return covered | (negated & ~exempted) | protected << layout.PROTECTED

    by_accepts = {accepts: covering(accepts) for accepts in set(accepting)}
    return [by_accepts[accepts] for accepts in accepting]


def _labels_in(names: Sequence[str], label_bits: Mapping[str, int], accepts: int) -> int:
    return sum(1 << label_bits[name] for index, name in enumerate(names) if name in label_bits and accepts >> index & 1)


def _below(built: automaton.Automaton, covers: list[int]) -> tuple[list[int], list[int]]:
    """For each state, the rules that cover it or a state that follows it, and those that cover it and all of these."""
    targets = [_targets(built, state) for state in built.states]
    some, every = list(covers), list(covers)
    changed = True
    while changed:
        changed = False
        for number in range(len(built.states) - 1, -1, -1):
            any_, all_ = some[number], every[number]
            for target in targets[number]:
                any_ |= some[target]
                all_ &= every[target]
            if any_ != some[number] or all_ != every[number]:
                some[number], every[number], changed = any_, all_, True
    return some, every


def _targets(built: automaton.Automaton, state: automaton.State) -> set[int]:
    """The states that one component leads to."""
    targets = {state.otherwise, *state.edges.values()}
    first = state.bytes - 1
    if first >= 0:
        seen, pending = {first}, [first]
        for number in pending:
            row = built.rows[number]
            targets.add(row.target)
            for after in row.next.values():
                if after - 1 not in seen:
                    seen.add(after - 1)
                    pending.append(after - 1)
    return targets


# -- numbers ------------------------------------------------------------------------------------------------------


def _number_tables(sets: _Sets) -> dict[str, Table]:
    """The tables ids, ipv4, ipv6, ports and vsock."""
    return {"ids": _id_table(sets), **_network_tables(sets), "vsock": _vsock_table(sets), "ports": _port_table(sets)}


def _destinations_by_bit(sets: _Sets) -> list[tuple[int, model.DestinationSet]]:
    return [(bit, sets.destinations[name]) for bit, name in enumerate(sets.destination_names)]


def _id_table(sets: _Sets) -> Table:
    ids: dict[layout.IdKey, int] = {}
    for bit, subject in _subjects_by_bit(sets):
        for kind, numbers in (
            (layout.ID_USER, subject.users),
            (layout.ID_LOGIN, subject.login_users),
            (layout.ID_GROUP, subject.groups),
            (layout.ID_LABEL, [sets.label_bits[name] for name in subject.has_read or ()]),
        ):
            for number in numbers or ():
                _add(ids, layout.IdKey(kind, number), bit)
    for bit, destination in _destinations_by_bit(sets):
        for number in destination.protocols or ():
            _add(ids, layout.IdKey(layout.ID_PROTOCOL, number), bit)
        for number, announced in _RANGES.items():
            if any(_overlaps(announced, ipaddress.ip_network(cidr)) for cidr in destination.cidrs or ()):
                _add(ids, layout.IdKey(layout.ID_RANGE, number), bit)
    return {layout.ID_KEY.pack(key): _set_vector(value) for key, value in ids.items()}


def _overlaps(one: _Network, other: _Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _network_tables(sets: _Sets) -> dict[str, Table]:
    """Tables for a longest-prefix match. An entry includes the sets of every shorter prefix."""
    networks: dict[_Network, int] = {}
    for bit, destination in _destinations_by_bit(sets):
        for cidr in destination.cidrs or ():
            _add(networks, ipaddress.ip_network(cidr), bit)
    tables: dict[str, Table] = {"ipv4": {}, "ipv6": {}}
    for network, own in networks.items():
        value = own
        for length in range(network.prefixlen):
            value |= networks.get(network.supernet(new_prefix=length), 0)
        name, shape = ("ipv4", layout.IPV4_KEY) if network.version == 4 else ("ipv6", layout.IPV6_KEY)
        key = shape.pack(layout.AddressKey(network.prefixlen, network.network_address.packed))
        tables[name][key] = _set_vector(value)
    return tables


def _port_table(sets: _Sets) -> Table:
    """A table for a longest-prefix match. An entry includes the sets of every shorter prefix."""
    ports: dict[tuple[int, int], int] = {}
    for bit, destination in _destinations_by_bit(sets):
        for first, last in destination.ports or ():
            for prefix in _port_prefixes(first, last):
                _add(ports, prefix, bit)
    table: Table = {}
    for (length, number), own in ports.items():
        value = own
        for shorter in range(length):
            value |= ports.get((shorter, number >> (16 - shorter) << (16 - shorter)), 0)
        table[layout.PORT_KEY.pack(layout.PortKey(length, number.to_bytes(2, "big")))] = _set_vector(value)
    return table


def _vsock_table(sets: _Sets) -> Table:
    """A table for a longest-prefix match on the context id and then the port.

    It cannot hold a port of any context id, which the resolver rejects."""
    endpoints: dict[tuple[int | None, int | None], int] = {}
    for bit, destination in _destinations_by_bit(sets):
        for endpoint in destination.vsock or ():
            _add(endpoints, endpoint, bit)
    table: Table = {}
    for (cid, port), own in endpoints.items():
        value = own
        if cid is not None:
            value |= endpoints.get((None, None), 0)
        if port is not None:
            value |= endpoints.get((cid, None), 0)
        length = 0 if cid is None else 32 if port is None else 64
        key = layout.VsockKey(length, (cid or 0).to_bytes(4, "big"), (port or 0).to_bytes(4, "big"))
        table[layout.VSOCK_KEY.pack(key)] = _set_vector(value)
    return table


def _port_prefixes(first: int, last: int) -> Iterable[tuple[int, int]]:
    """The prefixes, as length and first port, that together are the range."""
    while first <= last:
        size = first & -first or 1 << 16
        while first + size - 1 > last:
            size >>= 1
        yield 16 - (size.bit_length() - 1), first
        first += size


# -- rules --------------------------------------------------------------------------------------------------------


def _rule_tables(sets: _Sets, rules: Sequence[model.Rule], service_root: int) -> dict[str, Table]:
    """The tables policy, subjects, destinations and rules."""
    return {
        "policy": {_index(0): layout.POLICY.pack(_policy_record(sets, rules, service_root))},
        "subjects": _rows(
            layout.SUBJECT,
            [
                layout.Subject(
                    sum(1 << bit for bit, rule in enumerate(rules) if rule.subjects and name in rule.subjects),
                    sum(1 << bit for bit, rule in enumerate(rules) if name in rule.excepts),
                )
                for name in sets.subject_names
            ],
        ),
        "destinations": _rows(
            layout.DESTINATION,
            [
                layout.Destination(_with_destination(rules, name, False), _with_destination(rules, name, True))
                for name in sets.destination_names
            ],
        ),
        "rules": _rows(layout.RULE, [layout.Rule(rule_id(rule.name), rule.name.encode()) for rule in rules]),
    }


def _policy_record(sets: _Sets, rules: Sequence[model.Rule], service_root: int) -> layout.Policy:
    subjects, subject_names = sets.subjects, sets.subject_names
    network = {name: body for name, body in sets.destinations.items() if body.vsock is None}
    names = [name if name in network else None for name in sets.destination_names]
    used_labels = {name for _bit, subject in _subjects_by_bit(sets) for name in subject.has_read or ()}
    return layout.Policy(
        always=_rules_where(rules, lambda rule: rule.subjects is None),
        rules_by_action=_rules_by_action(rules),
        audit=_rules_where(rules, lambda rule: rule.audit),
        not_destinations=_rules_where(rules, lambda rule: rule.destinations is not None and rule.destinations.negated),
        named=_rules_where(rules, lambda rule: rule.subjects is not None),
        any_user=_sets_where(subject_names, lambda name: subjects[name].users is None),
        any_login=_sets_where(subject_names, lambda name: subjects[name].login_users is None),
        any_group=_sets_where(subject_names, lambda name: subjects[name].groups is None),
        any_service=_sets_where(subject_names, lambda name: subjects[name].services is None),
        any_executable=_sets_where(subject_names, lambda name: subjects[name].executables is None),
        any_label=_sets_where(subject_names, lambda name: subjects[name].has_read is None),
        any_address=_sets_where(names, lambda name: network[name].cidrs is None),
        any_port=_sets_where(names, lambda name: network[name].ports is None),
        any_protocol=_sets_where(names, lambda name: network[name].protocols is None),
        service_root=service_root,
        uses=_uses(sets, rules),
        labels=sum(1 << sets.label_bits[name] for name in used_labels),
    )


def _rules_by_action(rules: Sequence[model.Rule]) -> tuple[int, ...]:
    """By action number, the rules that deny the action. A link or rename may violate a rule of any path action."""
    by_action = [0] * layout.ACTIONS
    for bit, rule in enumerate(rules):
        for action in rule.deny:
            by_action[actions.NUMBERS[action]] |= 1 << bit
    aliases = _union(by_action, [actions.NUMBERS[name] for name in actions.RESOURCES])
    by_action[layout.LINK] = by_action[layout.RENAME] = aliases
    by_action[layout.PLAIN] = _union(by_action, [actions.NUMBERS[name] for name in actions.PLAIN])
    return tuple(by_action)


def _uses(sets: _Sets, rules: Iterable[model.Rule]) -> int:
    """Which attributes of a task the subject sets refer to, so that the kernel can skip the others."""
    subjects = [subject for _bit, subject in _subjects_by_bit(sets)]
    enforced = [sets.subjects[name] for rule in rules if not rule.audit for name in rule.subjects or ()]
    flags = (
        (layout.USES_GROUPS, any(subject.groups is not None for subject in subjects)),
        (layout.USES_SERVICES, any(subject.services is not None for subject in subjects)),
        (layout.USES_EXECUTABLES, any(subject.executables is not None for subject in subjects)),
        (layout.USES_LOGIN, any(subject.login_users is not None for subject in subjects)),
        (layout.USES_LABELS, any(subject.has_read is not None for subject in subjects)),
        (layout.DENIES_LABELS, any(subject.has_read is not None for subject in enforced)),
    )
    return sum(flag for flag, used in flags if used)


def _union(values: Sequence[int], indexes: Iterable[int]) -> int:
    result = 0
    for index in indexes:
        result |= values[index]
    return result


def _with_destination(rules: Iterable[model.Rule], name: str, negated: bool) -> int:
    """The rules whose destinations name the set, or name it under `not`."""
    return sum(
        1 << bit
        for bit, rule in enumerate(rules)
        if rule.destinations is not None and rule.destinations.negated is negated and name in rule.destinations.names
    )


def _rows(shape: layout.Structure[Any], rows: Sequence[Any]) -> Table:
    """The entries of an array map, which has at least one."""
    return {_index(number): shape.pack(row) for number, row in enumerate(rows or [shape.empty()])}
