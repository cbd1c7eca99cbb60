# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the tables that the product compiles with those that Compile.v compiles, entry by entry.

The states of the automaton and the rows of its byte automata are compared up to their numbers: both automata are walked
in parallel from every root, and each state of Coq's has to correspond to one of the product's. Coq keeps the remaining
patterns of a state in order, so that it may have a state twice."""

from __future__ import annotations

from typing import Any, Iterable, List, Mapping

from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.compile import tables as compile

COLUMNS = ("services", "executables", "labels", "covers", "reaches", "pervades")
ANY = ("user", "login", "group", "service", "executable", "label", "address", "port", "protocol")


Form = List[Any]  # JSON


class _DifferenceError(Exception):
    """The automata differ."""


def differences(image: compile.Image, proved: Form, rules: tuple[str, ...]) -> list[str]:
    """``proved``: the tables in the format of answer.ml; ``rules``: names by the numbers that it uses."""
    names, vectors, of_action, any_, root, denies_labels, subjects, destinations, ids = proved[:9]
    ipv4, ipv6, ports, vsock, superblocks, nodes, columns = proved[9:]
    tables = image.tables
    policy = layout.POLICY.unpack(tables["policy"][_index(0)])
    found: list[str] = []

    def same(what: str, mine: object, theirs: object) -> None:
        if mine != theirs:
            found.append(f"{what}: compile.py {_short(mine, theirs)}, Compile.v {_short(theirs, mine)}")

    same("rules", compile.rule_bits(image), [rules[number] for number in names])
    for what, theirs in zip(("always", "audit", "not_destinations", "named"), vectors):
        same(what, getattr(policy, what), _bits(theirs))
    same("of_action", dict(enumerate(policy.rules_by_action)), dict(enumerate(map(_bits, of_action))))
    for what, theirs in zip(ANY, any_):
        same(f"any_{what}", getattr(policy, f"any_{what}"), _bits(theirs))
    same("denies_labels", bool(policy.uses & layout.DENIES_LABELS), denies_labels)
    same("subjects", _rows(tables["subjects"], layout.SUBJECT), _pairs(subjects))
    same("destinations", _rows(tables["destinations"], layout.DESTINATION), _pairs(destinations))
    # the specification has no joins of groups; tests/property compares what the ranges decide with the semantics
    numbered = {tuple(layout.ID_KEY.unpack(key)): _value(sets) for key, sets in tables["ids"].items()}
    same("ids", {key: sets for key, sets in numbered.items() if key[0] != layout.ID_RANGE},
         _dictionary((tuple(key), sets) for key, sets in ids))  # fmt: skip
    tries = (("ipv4", layout.IPV4_KEY, ipv4), ("ipv6", layout.IPV6_KEY, ipv6), ("ports", layout.PORT_KEY, ports))
    for what, key, theirs in tries:
        prefixes = {_prefix(*key.unpack(packed)): _value(sets) for packed, sets in tables[what].items()}
        same(what, prefixes, _dictionary(theirs))
    same("vsock", {_endpoint(layout.VSOCK_KEY.unpack(key)): _value(sets) for key, sets in tables["vsock"].items()},
         _dictionary((tuple(key), sets) for key, sets in vsock))  # fmt: skip
    starts = {_value(device): _value(state) for device, state in tables["superblocks"].items()}
    same("superblocks", sorted(starts), sorted(device for device, _state in superblocks))
    if not found:
        roots = [(0, 0), (policy.service_root, root)] + [(starts[device], state) for device, state in superblocks]
        try:
            _Walk(tables, nodes, [[_bits(sets) for sets in column] for column in columns]).run(roots)
        except _DifferenceError as error:
            found.append(str(error))
    return found


class _Walk:
    """The walk of both automata. ``ours``: a state of the product; ``theirs``: a state of Coq's."""

    def __init__(self, tables: Mapping[str, Mapping[bytes, bytes]], nodes: Form, columns: list[list[int]]) -> None:
        self.states = {_value(key): layout.STATE.unpack(value) for key, value in tables["states"].items()}
        self.bytes = tables["bytes"]
        self.edges: dict[int, dict[str, int]] = {}
        for key, following in tables["edges"].items():
            edge = layout.EDGE_KEY.unpack(key)
            self.edges.setdefault(edge.state, {})[edge.name.rstrip(b"\0").hex()] = _value(following)
        self.nodes, self.columns = nodes, columns
        self.taken: dict[int, int] = {}  # theirs: ours
        self.pending: list[tuple[int, int]] = []
        self.rows: set[int] = set()

    def run(self, roots: list[tuple[int, int]]) -> None:
        """Walks from all roots. Raises _DifferenceError."""
        for ours, theirs in roots:
            self.pair("a root", ours, theirs)
        for ours, theirs in self.pending:
            self.state(ours, theirs)
        self.demand(set(self.taken.values()) == set(self.states), "states of compile.py that Compile.v has not",
                    sorted(set(self.states).difference(self.taken.values())))  # fmt: skip
        self.demand(len(self.taken) == len(self.nodes), "states of Compile.v that nothing leads to", len(self.nodes))
        wanted = set(range(len(self.bytes))) if any(state.bytes for state in self.states.values()) else set()
        self.demand(self.rows == wanted, "rows of bytes that nothing leads to", sorted(wanted ^ self.rows))

    @staticmethod
    def demand(holds: bool, *message: object) -> None:
        """Raises _DifferenceError with the message if the condition does not hold."""
        if not holds:
            raise _DifferenceError("automaton: " + " ".join(map(str, message)))

    def pair(self, where: str, ours: int, theirs: int) -> None:
        """Demands that the states correspond."""
        if theirs not in self.taken:
            self.taken[theirs] = ours
            self.pending.append((ours, theirs))
        expected = self.taken[theirs]
        self.demand(expected == ours, where, "leads to", ours, "in compile.py, in Compile.v to", expected)

    def state(self, ours: int, theirs: int) -> None:
        """Compares two states."""
        where = f"state {ours} (Compile.v: {theirs})"
        state, (otherwise, edges, rows) = self.states[ours], self.nodes[theirs]
        for name, column in zip(COLUMNS, self.columns):
            value = getattr(state, name)
            message = f"{where}: {name}: compile.py {value:x}, Compile.v {column[theirs]:x}"
            self.demand(value == column[theirs], message)
        self.pair(f"{where} otherwise", state.otherwise, otherwise)
        self.demand(bool(state.bytes) == bool(rows), where, "has rows of bytes in one of them only")
        if rows:
            self.walk_rows(where, state.bytes, rows)
            return
        there, here = dict(edges), self.edges.get(ours, {})
        for component in {*there, *here}:
            self.pair(f"{where} by {component}", here.get(component, state.otherwise), there.get(component, otherwise))

    def walk_rows(self, where: str, first: int, rows: Form) -> None:
        """Compares two byte automata."""
        taken, pending = {1: first}, [1]

        def pair(byte: int | str, ours: int, theirs: int) -> None:
            self.demand(bool(ours) == bool(theirs), where, "byte", byte, "goes on in one of them only")
            if theirs and theirs not in taken:
                taken[theirs] = ours
                pending.append(theirs)
            self.demand(not theirs or taken[theirs] == ours, where, "byte", byte, "leads to different rows")

        for theirs in pending:
            following: list[int | None]
            self.rows.add(taken[theirs] - 1)
            row_of_bytes = layout.BYTES.unpack(self.bytes[_index(taken[theirs] - 1)])
            target, following = row_of_bytes.target, list(row_of_bytes.next)
            to, after, other = rows[theirs - 1]
            self.pair(where + " at the end of a component", target, to)
            for byte, row in after:
                ours = following[byte]
                assert ours is not None
                pair(byte, ours, row)
                following[byte] = None
            following[0] = None  # no component contains it
            for row in set(following):
                if row is not None:
                    pair("otherwise", row, other)


def _index(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _value(packed: bytes) -> int:
    return int.from_bytes(packed, "little")


def _bits(text: str) -> int:
    return int(text, 16)


def _dictionary(pairs: Iterable[Any]) -> dict[Any, int]:
    return {key: _bits(sets) for key, sets in pairs}


def _rows(table: Mapping[bytes, bytes], shape: layout.Structure[Any]) -> dict[int, tuple[int, ...]]:
    return {_value(key): tuple(shape.unpack(value)) for key, value in table.items()}


def _pairs(form: Form) -> dict[int, tuple[int, int]]:
    """The entries by their numbers; an array has at least one entry."""
    return dict(enumerate((_bits(first), _bits(second)) for first, second in form)) or {0: (0, 0)}


def _prefix(length: int, packed: bytes) -> str:
    return format(int.from_bytes(packed, "big"), f"0{8 * len(packed)}b")[:length]


def _endpoint(key: layout.VsockKey) -> tuple[int, ...]:
    return tuple(int.from_bytes(part, "big") for part in (key.cid, key.port)[: key.prefixlen // 32])


def _short(value: object, other: object) -> str:
    """The value as text; of a dictionary, only the entries that the other does not have."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {key: item for key, item in value.items() if key not in other or other[key] != item}
    return repr(value)
