# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the kernel finds a verdict in an image: the hooks and decide.h again, over plain tables. ``core`` is decide.h
compiled for the host, or its twin in Python."""

from __future__ import annotations

import ipaddress
import os

from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import tables
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions, model

ALL = (1 << 64) - 1
OUTCOMES = ("allow", "audit", "deny")


class PythonCore:
    """decide.h, in Python: vectors are big integers."""

    def binding_sets(self, policy, who):
        return self._sets(
            policy,
            who["user_bind"],
            who["login"],
            who["group_bind"],
            who["service_bind"],
            who["executable_bind"],
            who["label"],
        )

    def exempting_sets(self, policy, who):
        return self._sets(
            policy,
            who["user_exempt"],
            who["login"],
            who["group_exempt"],
            who["service_exempt"],
            who["executable_exempt"],
            who["label"],
        )

    def _sets(self, policy, *found):
        total = ALL
        for anyone, sets in zip(policy["any"][:6], found):
            total &= anyone | sets
        return total

    def destination_sets(self, policy, *found):
        total = ALL
        for anywhere, sets in zip(policy["any"][6:], found):
            total &= anywhere | sets
        return total

    def decide(self, bound, covers, of_action, audit):
        hits = bound & of_action & (covers if covers is not None else bound)
        for outcome, bits in (("deny", hits & ~audit), ("audit", hits)):
            if bits:
                return outcome, (bits & -bits).bit_length() - 1
        return "allow", None


class Model:
    def __init__(self, image: tables.Image, core=None):
        self.tables = image.tables
        self.core = core or PythonCore()
        policy = layout.POLICY.unpack(self.tables["policy"][_index(0)])
        self.policy = {
            "raw": self.tables["policy"][_index(0)],
            **policy._asdict(),
            "any": tuple(value for name, value in policy._asdict().items() if name.startswith("any_")),
        }
        self.labels = tables.labels_of(self.tables)
        self.named = policy.labels
        self.names = [
            layout.RULE.unpack(value).name.rstrip(b"\0").decode()
            for _key, value in sorted(self.tables["rules"].items(), key=_number)
        ]

    def decide(self, event) -> model.Verdict:
        bound = self.bound(event.task)
        if isinstance(event, model.TamperEvent):
            return self.tampering(event, bound)
        if isinstance(event, model.PlainEvent):
            return self._verdict(bound, (1 << 64 * layout.WORDS) - 1, actions.NUMBERS[event.action], None)
        if isinstance(event, model.NetworkEvent):
            covers = None if event.trouble else self.reach(event)
            return self._verdict(bound, covers, actions.NUMBERS[event.action], event.trouble)
        if isinstance(event, model.JoinEvent):
            return self._verdict(bound, self.reach_range(event.range), actions.NUMBERS["send"], None)
        if isinstance(event, model.VsockEvent):
            return self._verdict(bound, self.reach_vsock(event), actions.NUMBERS["vsock"], None)
        if isinstance(event, model.AliasEvent):
            source, target = self.place(event.source), self.place(event.target)
            trouble = source[1] or target[1]
            if trouble:
                return self._verdict(bound, None, layout.LINK, trouble)
            some, every = (1, 2) if event.directory else (0, 0)
            old, new = self.vectors(source[0]), self.vectors(target[0])
            writing = self.policy["rules_by_action"][actions.NUMBERS["write"]]
            covers = (old[some] & ~new[every]) | (new[some] & ~old[every] & writing)
            return self._verdict(bound, covers, layout.LINK, None)
        state, trouble = self.place(event.location)
        covers = None if trouble else self.vectors(state)[0]
        return self._verdict(bound, covers, actions.NUMBERS[event.action], trouble)

    def _verdict(self, bound, covers, action, trouble):
        outcome, rule = self.core.decide(bound, covers, self.policy["rules_by_action"][action], self.policy["audit"])
        if outcome == "allow":
            return model.Verdict("allow")
        return model.Verdict(outcome, self.names[rule], trouble or "rule")

    def tampering(self, event: model.TamperEvent, bound: int) -> model.Verdict:
        """bpf/decision/protection.h"""
        if event.location is not None:
            state, trouble = self.place(event.location)
            if trouble in ("unknown-filesystem", "too-deep"):
                return model.Verdict("allow")
            if not trouble and not self.vectors(state)[1 if event.below else 0] >> layout.PROTECTED & 1:
                return model.Verdict("allow")
        outcome, rule = self.core.decide(bound, None, self.policy["named"], self.policy["audit"])
        named = None if outcome == "allow" else self.names[rule]
        if not event.root:
            outcome = "deny"
        if outcome != "deny" and event.task.labels:
            outcome = "deny" if self.policy["uses"] & layout.DENIES_LABELS else "audit"
        return model.Verdict(outcome, named, "tamper") if outcome != "allow" else model.Verdict("allow")

    # -- who

    def bound(self, task: model.Task) -> int:
        who = self.who(task)
        binding, freeing = self.core.binding_sets(self.policy, who), self.core.exempting_sets(self.policy, who)
        rules, freed = self.policy["always"], 0
        for key, value in self.tables["subjects"].items():
            bit = 1 << int.from_bytes(key, "little")
            subject = layout.SUBJECT.unpack(value)
            if binding & bit:
                rules |= subject.binds
            if freeing & bit:
                freed |= subject.exempts
        return rules & ~freed

    def who(self, task: model.Task) -> dict:
        users = [self.ids(layout.ID_USER, user) for user in task.users]
        groups = [self.ids(layout.ID_GROUP, group) for group in task.groups]
        memberships = [self.ids(layout.ID_GROUP, group) for group in task.memberships]
        service = None if task.service is None else self.walk(self.policy["service_root"], task.service)
        services = None if service is None else self.state(service).services
        bind, exempt = (ALL, 0) if services is None else (services, services)
        if task.left_service is not None:
            left = self.state(self.walk(self.policy["service_root"], task.left_service)).services
            bind, exempt = bind | left, exempt & left
        executables = None
        if task.executable is not None:
            state, trouble = self.place(task.executable)
            if not trouble:
                executables = self.state(state).executables
        return {
            "user_bind": _any(users) | (ALL & ~(1 << layout.CANARY_SET) if task.ids_truncated else 0),
            "user_exempt": 0 if task.ids_truncated else _all(users),
            "login": self.ids(layout.ID_LOGIN, task.login_user),
            "label": _any(self.ids(layout.ID_LABEL, bit) for name, bit in self.labels.items() if name in task.labels),
            "group_bind": ALL if task.ids_truncated else _any(groups),
            "group_exempt": 0 if task.ids_truncated else _any(memberships),
            "service_bind": bind,
            "service_exempt": exempt,
            "executable_bind": ALL if executables is None else executables,
            "executable_exempt": 0 if executables is None else executables,
        }

    def ids(self, kind, number):
        return int.from_bytes(self.tables["ids"].get(layout.ID_KEY.pack(layout.IdKey(kind, number)), b""), "little")

    # -- what

    def state(self, number):
        return layout.STATE.unpack(self.tables["states"][_index(number)])

    def labels_of(self, where: model.Location):
        """As label.h finds them: those of the state that some `has_read` names, all of these when it can't be told."""
        state, trouble = self.place(where)
        bits = self.named if trouble else self.named & self.state(state).labels
        return frozenset(name for name, bit in self.labels.items() if bits >> bit & 1)

    def vectors(self, number):
        state = self.state(number)
        return [state.covers, state.reaches, state.pervades]

    def place(self, where: model.Location):
        if where.trouble:
            return 0, where.trouble
        start = self.tables["superblocks"].get(_index(where.device))
        if start is None:
            return 0, None if where.pseudo else "unknown-filesystem"
        return self.walk(int.from_bytes(start, "little"), where.components), None

    def walk(self, state, components):
        for component in components:
            if state == 0:
                break
            state = self.step(state, os.fsencode(component))
        return state

    def step(self, state, name):
        otherwise, at = self.state(state).otherwise, self.state(state).bytes
        if not at:
            if len(name) >= layout.COMPONENT:
                return otherwise
            found = self.tables["edges"].get(layout.EDGE_KEY.pack(layout.EdgeKey(state, name)))
            return otherwise if found is None else int.from_bytes(found, "little")
        for byte in name:
            at = layout.BYTES.unpack(self.tables["bytes"][_index(at - 1)]).next[byte]
            if not at:
                return otherwise
        return layout.BYTES.unpack(self.tables["bytes"][_index(at - 1)]).target

    # -- where to

    def reach(self, event: model.NetworkEvent) -> int:
        address = ipaddress.ip_address(event.address)
        address = getattr(address, "ipv4_mapped", None) or address
        if event.action in actions.OWN and address.is_unspecified:
            plain = ALL
            spared = _longest(self.tables["ipv4"], _ipv4_key, bytes(4), 0)
            if address.version == 6:
                spared &= _longest(self.tables["ipv6"], _ipv6_key, bytes(16), 0)
        else:
            name, key = ("ipv4", _ipv4_key) if address.version == 4 else ("ipv6", _ipv6_key)
            plain = spared = _longest(self.tables[name], key, address.packed)
        more = (
            _longest(self.tables["ports"], _port_key, event.port.to_bytes(2, "big")),
            self.ids(layout.ID_PROTOCOL, event.protocol),
        )
        return self._covering(
            self.core.destination_sets(self.policy, plain, *more),
            self.core.destination_sets(self.policy, spared, *more),
        )

    def reach_range(self, number: int) -> int:
        network = ipaddress.ip_network(layout.RANGES[number])
        name, key = ("ipv4", _ipv4_key) if network.version == 4 else ("ipv6", _ipv6_key)
        more = (
            _longest(self.tables["ports"], _port_key, bytes(2)),
            self.ids(layout.ID_PROTOCOL, 2 if network.version == 4 else 58),
        )
        plain = self.ids(layout.ID_RANGE, number)
        spared = _longest(self.tables[name], key, network.network_address.packed, network.prefixlen)
        return self._covering(
            self.core.destination_sets(self.policy, plain, *more),
            self.core.destination_sets(self.policy, spared, *more),
        )

    def reach_vsock(self, event: model.VsockEvent) -> int:
        packed = event.cid.to_bytes(4, "big") + event.port.to_bytes(4, "big")
        sets = _longest(self.tables["vsock"], _vsock_key, packed)
        return self._covering(sets, sets)

    def _covering(self, plain: int, spared: int) -> int:
        covers, spares = 0, 0
        for index, value in self.tables["destinations"].items():
            bit = 1 << int.from_bytes(index, "little")
            destination = layout.DESTINATION.unpack(value)
            if plain & bit:
                covers |= destination.covers
            if spared & bit:
                spares |= destination.exempts
        return covers | self.policy["not_destinations"] & ~spares


def _index(number):
    return number.to_bytes(4, "little")


def _number(item):
    return int.from_bytes(item[0], "little")


def _any(masks):
    total = 0
    for mask in masks:
        total |= mask
    return total


def _all(masks):
    total = ALL
    for mask in masks:
        total &= mask
    return total


def _ipv4_key(length, data):
    return layout.IPV4_KEY.pack(layout.AddressKey(length, data))


def _ipv6_key(length, data):
    return layout.IPV6_KEY.pack(layout.AddressKey(length, data))


def _port_key(length, data):
    return layout.PORT_KEY.pack(layout.PortKey(length, data))


def _vsock_key(length, data):
    return layout.VSOCK_KEY.pack(layout.VsockKey(length, data[:4], data[4:]))


def _longest(table, key, packed, most=None):
    """A longest-prefix look-up, the slow way; ``most``: prefixes up to that length."""
    wanted = int.from_bytes(packed, "big")
    for length in range(8 * len(packed) if most is None else most, -1, -1):
        prefix = wanted >> (8 * len(packed) - length) << (8 * len(packed) - length)
        found = table.get(key(length, prefix.to_bytes(len(packed), "big")))
        if found is not None:
            return int.from_bytes(found, "little")
    return 0
