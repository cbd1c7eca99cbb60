# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A resolved policy becomes the image of the maps: pure, the same bytes for the same policy and day."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from typing import Any, Dict, Iterable, Mapping, NamedTuple, Sequence

from .. import layout
from ..policy import actions, model, semantics
from . import automaton

Table = Dict[bytes, bytes]


class Image(NamedTuple):
    tables: dict[str, Table]

    def digest(self) -> str:
        """SHA-256 over every table's entries in order."""
        total = hashlib.sha256()
        for name in sorted(self.tables):
            for key, value in sorted(self.tables[name].items()):
                for part in (name.encode(), key, value):
                    total.update(len(part).to_bytes(4, "little") + part)
        return total.hexdigest()


def rule_bits(image: Image) -> list[str]:
    """Names of the rules by bit."""
    rows = sorted((int.from_bytes(k, "little"), v) for k, v in image.tables["rules"].items())
    return [layout.RULE.unpack(value).name.rstrip(b"\0").decode() for _index, value in rows if any(value)]


def rule_id(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def compile_policy(
    resolved: model.Resolved,
    now: datetime.date,
    canary: model.PathPattern | None = None,
    labels: Mapping[str, int] = {},
) -> Image:
    """``canary``: the file that only layout.CANARY_USER may not read; ``labels``: the bits that names have in the
    kernel already (see labels_of). Raises automaton.TooLarge."""
    rules = [rule for rule in sorted(resolved.rules) if semantics.in_force(rule, now)]
    subjects, resources, destinations = dict(resolved.subjects), dict(resolved.resources), dict(resolved.destinations)
    if canary and any(rule.deny.intersection(actions.FILES) for rule in rules):
        resources[layout.CANARY_FILE_RULE] = model.ResourceSet(frozenset([canary]))
        rules.append(
            _canary(layout.CANARY_FILE_RULE, "read", resources=model.Selection(frozenset([layout.CANARY_FILE_RULE])))
        )
    if any(rule.deny.intersection(actions.NETWORK) for rule in rules):
        destinations[layout.CANARY_NETWORK_RULE] = model.DestinationSet(
            cidrs=frozenset([layout.CANARY_ADDRESS + "/32"])
        )
        rules.append(
            _canary(
                layout.CANARY_NETWORK_RULE,
                "connect",
                destinations=model.Selection(frozenset([layout.CANARY_NETWORK_RULE])),
            )
        )
    if any(rule.name in (layout.CANARY_FILE_RULE, layout.CANARY_NETWORK_RULE) for rule in rules):
        subjects[layout.CANARY_FILE_RULE] = model.SubjectSet(users=frozenset([layout.CANARY_USER]))
    where = sorted(destinations)
    # the canary's set has a place of its own, since no other set may be taken for it on suspicion
    who: list[str | None] = [name for name in sorted(subjects) if name != layout.CANARY_FILE_RULE]
    if layout.CANARY_FILE_RULE in subjects:
        who += [None] * (layout.CANARY_SET - len(who)) + [layout.CANARY_FILE_RULE]
    tables: dict[str, Table] = {"ids": {}}
    bits = _label_bits(subjects, labels)
    superblocks = resolved.superblocks | {canary.device} if canary else resolved.superblocks
    root = _automaton_tables(tables, rules, subjects, who, resources, superblocks, bits, resolved.tamper_paths)
    _number_tables(tables, subjects, who, destinations, where, bits)
    _rule_tables(tables, rules, who, where, subjects, destinations, root, bits)
    names = {bit: name for name, bit in bits.items()}
    tables["labels"] = _rows(layout.LABEL, [layout.Label(names.get(bit, "").encode()) for bit in range(layout.LABELS)])
    tables["devices"] = {
        layout.DEVICE_KEY.pack(layout.DeviceKey(block, device)): _index(actions.NUMBERS[action])
        for block, device, action in resolved.devices
    }
    return Image(tables)


def _canary(name: str, action: str, **objects) -> model.Rule:
    return model.Rule(name=name, deny=frozenset([action]), subjects=frozenset([layout.CANARY_FILE_RULE]), **objects)


def _index(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _bits(rules: Iterable[model.Rule], wanted) -> int:
    return sum(1 << bit for bit, rule in enumerate(rules) if wanted(rule))


def _sets(names: list[str | None], wanted) -> int:
    return sum(1 << bit for bit, name in enumerate(names) if name is not None and wanted(name))


# -- labels -------------------------------------------------------------------------------------------------------


def labels_of(tables: Mapping[str, Table]) -> dict[str, int]:
    """The bits that names have in a generation: what the next one starts from."""
    named = {
        layout.LABEL.unpack(value).name.rstrip(b"\0").decode(): int.from_bytes(key, "little")
        for key, value in tables.get("labels", {}).items()
    }
    return {name: bit for name, bit in named.items() if name}


def _label_bits(subjects: Mapping[str, model.SubjectSet], labels: Mapping[str, int]) -> dict[str, int]:
    """A name keeps its bit, also while no rule needs it: tasks may still carry it. When none is free, such a bit goes
    to a new name."""
    wanted = sorted({name for who in subjects.values() for name in who.has_read or ()})
    bits = dict(labels)
    free = [bit for bit in range(layout.LABELS) if bit not in bits.values()]
    unused = sorted(name for name in bits if name not in wanted)
    for name in wanted:
        if name not in bits:
            bits[name] = free.pop(0) if free else bits.pop(unused.pop(0))
    return bits


# -- paths --------------------------------------------------------------------------------------------------------


def _automaton_tables(tables, rules, subjects, who, resources, superblocks, bits, protected) -> int:
    """Fills superblocks, states, edges and bytes; returns the state of the cgroup root. Names of abstract unix sockets
    lie on a superblock of their own, which is always there."""
    superblocks = set(superblocks) | {layout.ABSTRACT} | {p.device for p in protected}
    names = sorted(resources)
    devices = sorted(superblocks | {p.device for r in resources.values() for p in r.paths})
    roots: dict[int, dict[model.Components, int]] = {device: {} for device in devices}
    for bit, name in enumerate(names):
        for pattern in resources[name].paths:
            root = roots[pattern.device]
            root[pattern.components] = root.get(pattern.components, 0) | 1 << (2 * layout.SETS + bit)
    for pattern in protected:
        root = roots[pattern.device]
        root[pattern.components] = root.get(pattern.components, 0) | 1 << (2 * layout.SETS + len(names))
    services: dict[model.Components, int] = {}
    for bit, name in enumerate(who):
        if name is None:
            continue
        for pattern in subjects[name].executables or ():
            root = roots.setdefault(pattern.device, {})
            root[pattern.components] = root.get(pattern.components, 0) | 1 << bit
        for path in subjects[name].services or ():
            tree = (*path, "**")
            services[tree] = services.get(tree, 0) | 1 << (layout.SETS + bit)
    devices = sorted(roots)
    built = automaton.build([roots[device] for device in devices] + [services])

    plain = [0] * len(names)
    negated = [0] * len(names)
    everything = 0
    for bit, rule in enumerate(rules):
        if rule.resources is None:
            continue
        if rule.resources.negated:
            everything |= 1 << bit
        for index, name in enumerate(names):
            if name in rule.resources.names:
                (negated if rule.resources.negated else plain)[index] |= 1 << bit
    known: dict[int, int] = {}

    def covering(marks: int) -> int:
        marks >>= 2 * layout.SETS
        if marks not in known:
            plainly, spared = 0, 0
            for index in range(len(names)):
                if marks >> index & 1:
                    plainly |= plain[index]
                    spared |= negated[index]
            ours = marks >> len(names) & 1
            known[marks] = plainly | (everything & ~spared) | ours << layout.PROTECTED
        return known[marks]

    def labels(marks: int) -> int:
        return sum(1 << bits[name] for index, name in enumerate(names) if name in bits and marks >> index & 1)

    covers = [covering(state.marks) for state in built.states]
    reaches, pervades = _below(built, covers)
    limit = (1 << layout.SETS) - 1
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
                services=state.marks >> layout.SETS & limit,
                executables=state.marks & limit,
                labels=labels(state.marks >> 2 * layout.SETS),
                covers=covers[number],
                reaches=reaches[number],
                pervades=pervades[number],
            )
        )
        for number, state in enumerate(built.states)
    }
    tables["edges"] = {
        layout.EDGE_KEY.pack(layout.EdgeKey(number, component)): _index(following)
        for number, state in enumerate(built.states)
        for component, following in state.edges.items()
    }
    rows = built.rows or [automaton.Row(0, {})]
    tables["bytes"] = {
        _index(number): layout.BYTES.pack(
            layout.ByteRow(row.target, 0, tuple(row.next.get(byte, 0) for byte in range(256)))
        )
        for number, row in enumerate(rows)
    }
    return built.starts[-1]


def _below(built: automaton.Automaton, covers: list[int]) -> tuple[list[int], list[int]]:
    """Which rules cover a state or one that can be reached from it; which cover it and all of those."""
    following = []
    for state in built.states:
        to = {state.otherwise, *state.edges.values()}
        row = state.bytes - 1
        if row >= 0:
            seen, pending = {row}, [row]
            for at in pending:
                to.add(built.rows[at].target)
                for after in built.rows[at].next.values():
                    if after - 1 not in seen:
                        seen.add(after - 1)
                        pending.append(after - 1)
        following.append(to)
    some, every = list(covers), list(covers)
    changed = True
    while changed:
        changed = False
        for number in range(len(built.states) - 1, -1, -1):
            one, all_ = some[number], every[number]
            for after in following[number]:
                one |= some[after]
                all_ &= every[after]
            if one != some[number] or all_ != every[number]:
                some[number], every[number], changed = one, all_, True
    return some, every


# -- numbers ------------------------------------------------------------------------------------------------------


def _number_tables(tables, subjects, who, destinations, where, bits) -> None:
    """Fills ids, ipv4, ipv6, ports and vsock."""
    ids: dict[tuple[int, int], int] = {}
    for bit, name in enumerate(who):
        if name is None:
            continue
        found = subjects[name]
        for kind, numbers in (
            (layout.ID_USER, found.users),
            (layout.ID_LOGIN, found.login_users),
            (layout.ID_GROUP, found.groups),
            (layout.ID_LABEL, None if found.has_read is None else [bits[name] for name in found.has_read]),
        ):
            for number in numbers or ():
                ids[kind, number] = ids.get((kind, number), 0) | 1 << bit
    networks: dict[object, int] = {}
    ports: dict[tuple[int, int], int] = {}
    for bit, name in enumerate(where):
        found = destinations[name]
        for number in found.protocols or ():
            key = layout.ID_PROTOCOL, number
            ids[key] = ids.get(key, 0) | 1 << bit
        for cidr in found.cidrs or ():
            network = ipaddress.ip_network(cidr)
            networks[network] = networks.get(network, 0) | 1 << bit
        for first, last in found.ports or ():
            for prefix in _port_prefixes(first, last):
                ports[prefix] = ports.get(prefix, 0) | 1 << bit
    tables["ids"] = {layout.ID_KEY.pack(layout.IdKey(*key)): sets.to_bytes(8, "little") for key, sets in ids.items()}
    tables["ipv4"], tables["ipv6"] = {}, {}
    for network, sets in networks.items():
        for length in range(network.prefixlen):
            above = networks.get(network.supernet(new_prefix=length))
            sets |= above or 0
        name, shape = ("ipv4", layout.IPV4_KEY) if network.version == 4 else ("ipv6", layout.IPV6_KEY)
        packed = shape.pack(layout.AddressKey(network.prefixlen, network.network_address.packed))
        tables[name][packed] = sets.to_bytes(8, "little")
    tables["vsock"] = _vsock_table(destinations, where)
    tables["ports"] = {}
    for (length, number), sets in ports.items():
        for shorter in range(length):
            sets |= ports.get((shorter, number >> (16 - shorter) << (16 - shorter)), 0)
        tables["ports"][layout.PORT_KEY.pack(layout.PortKey(length, number.to_bytes(2, "big")))] = sets.to_bytes(
            8, "little"
        )


def _vsock_table(destinations, where) -> Table:
    """Keyed by context id, then port; resolve refuses a port of any context id, which a trie can't say."""
    entries: dict[tuple[int | None, int | None], int] = {}
    for bit, name in enumerate(where):
        for entry in destinations[name].vsock or ():
            entries[entry] = entries.get(entry, 0) | 1 << bit
    table: Table = {}
    for (cid, port), sets in entries.items():
        if cid is not None:
            sets |= entries.get((None, None), 0)
        if port is not None:
            sets |= entries.get((cid, None), 0)
        length = 0 if cid is None else 32 if port is None else 64
        key = layout.VsockKey(length, (cid or 0).to_bytes(4, "big"), (port or 0).to_bytes(4, "big"))
        table[layout.VSOCK_KEY.pack(key)] = sets.to_bytes(8, "little")
    return table


def _port_prefixes(first: int, last: int) -> Iterable[tuple[int, int]]:
    while first <= last:
        size = first & -first or 1 << 16
        while first + size - 1 > last:
            size >>= 1
        yield 16 - (size.bit_length() - 1), first
        first += size


# -- rules --------------------------------------------------------------------------------------------------------


def _rule_tables(tables, rules, who, where, subjects, destinations, service_root, bits) -> None:
    of_action = [0] * layout.ACTIONS
    for bit, rule in enumerate(rules):
        for action in rule.deny:
            of_action[actions.NUMBERS[action]] |= 1 << bit
    of_action[layout.LINK] = of_action[layout.RENAME] = _union(of_action, actions.RESOURCES)
    of_action[layout.PLAIN] = _union(of_action, actions.PLAIN)
    found = [subjects[name] for name in who if name is not None]
    uses = (
        (layout.USES_GROUPS if any(s.groups is not None for s in found) else 0)
        | (layout.USES_SERVICES if any(s.services is not None for s in found) else 0)
        | (layout.USES_EXECUTABLES if any(s.executables is not None for s in found) else 0)
        | (layout.USES_LOGIN if any(s.login_users is not None for s in found) else 0)
        | (layout.USES_LABELS if any(s.has_read is not None for s in found) else 0)
        | (
            layout.DENIES_LABELS
            if any(
                subjects[name].has_read is not None for rule in rules if not rule.audit for name in rule.subjects or ()
            )
            else 0
        )
    )
    labels = sum(1 << bits[name] for name in {name for s in found for name in s.has_read or ()})
    tables["policy"] = {
        _index(0): layout.POLICY.pack(
            layout.Policy(
                always=_bits(rules, lambda rule: rule.subjects is None),
                rules_by_action=tuple(of_action),
                audit=_bits(rules, lambda rule: rule.audit),
                not_destinations=_bits(rules, lambda rule: rule.destinations is not None and rule.destinations.negated),
                named=_bits(rules, lambda rule: rule.subjects is not None),
                any_user=_sets(who, lambda name: subjects[name].users is None),
                any_login=_sets(who, lambda name: subjects[name].login_users is None),
                any_group=_sets(who, lambda name: subjects[name].groups is None),
                any_service=_sets(who, lambda name: subjects[name].services is None),
                any_executable=_sets(who, lambda name: subjects[name].executables is None),
                any_label=_sets(who, lambda name: subjects[name].has_read is None),
                any_address=_sets(
                    where, lambda name: destinations[name].vsock is None and destinations[name].cidrs is None
                ),
                any_port=_sets(
                    where, lambda name: destinations[name].vsock is None and destinations[name].ports is None
                ),
                any_protocol=_sets(
                    where, lambda name: destinations[name].vsock is None and destinations[name].protocols is None
                ),
                service_root=service_root,
                uses=uses,
                labels=labels,
            )
        )
    }
    tables["subjects"] = _rows(
        layout.SUBJECT,
        [
            layout.Subject(
                binds=_bits(rules, lambda rule, name=name: rule.subjects is not None and name in rule.subjects),
                exempts=_bits(rules, lambda rule, name=name: name in rule.excepts),
            )
            for name in who
        ],
    )
    tables["destinations"] = _rows(
        layout.DESTINATION,
        [
            layout.Destination(
                covers=_bits(rules, lambda rule, name=name: _names(rule, name, False)),
                exempts=_bits(rules, lambda rule, name=name: _names(rule, name, True)),
            )
            for name in where
        ],
    )
    tables["rules"] = _rows(layout.RULE, [layout.Rule(rule_id(rule.name), rule.name.encode()) for rule in rules])


def _union(of_action: list[int], names: Iterable[str]) -> int:
    rules = 0
    for name in names:
        rules |= of_action[actions.NUMBERS[name]]
    return rules


def _names(rule: model.Rule, name: str, negated: bool) -> bool:
    return rule.destinations is not None and rule.destinations.negated is negated and name in rule.destinations.names


def _rows(shape: layout.Structure[Any], rows: Sequence[Any]) -> Table:
    """An array table has at least one entry."""
    return {_index(number): shape.pack(row) for number, row in enumerate(rows or [shape.empty()])}
