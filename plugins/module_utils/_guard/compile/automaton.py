# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiles path patterns to one deterministic automaton over path components.

A state whose patterns have a component with ``*``, or a literal too long for an edge, has a second automaton over the
bytes of a component. A state is identified by the remainders of the patterns in it, so superblocks share states."""

from __future__ import annotations

import os
from typing import FrozenSet, Iterable, Mapping, NamedTuple, Sequence, Tuple

from .. import layout
from ..policy import model

# the remainder of a pattern -> what the pattern accepts, as bits
Items = FrozenSet[Tuple[Tuple[bytes, ...], int]]

DEAD: Items = frozenset()
_ANY, _TREE, _STAR = b"*", b"**", -1  # a star among the bytes of a head
STATES, BYTE_STATES = 1 << 16, (1 << 16) - 2


class TooLargeError(ValueError):
    """The patterns need more states than the maps can hold."""


class State(NamedTuple):
    """A state of the automaton over components."""

    accepts: int  # the bits of every pattern that matches here
    otherwise: int  # next state for any other component
    edges: dict[bytes, int]  # component -> next state; empty if the byte automaton decides
    bytes: int  # the first row of its byte automaton plus one; 0: it has none


class Row(NamedTuple):
    """A state of an automaton over the bytes of a component."""

    target: int  # the next state if the component ends here
    next: dict[int, int]  # byte -> row plus one


class Automaton(NamedTuple):
    """The result of build()."""

    states: list[State]  # 0 is dead
    rows: list[Row]
    starts: list[int]  # by the index of the pattern list


def items(patterns: Mapping[model.Components, int]) -> Items:
    """The start state of a set of patterns: each with all of its components left."""
    return frozenset((tuple(os.fsencode(c) for c in components), accepts) for components, accepts in patterns.items())


def build(starts: Sequence[Mapping[model.Components, int]]) -> Automaton:
    """One automaton for several roots. Each start maps patterns to the bits that they accept.

    Raises TooLargeError."""
    builder = _Builder()
    numbers = [builder.number(items(patterns)) for patterns in starts]
    builder.run()
    return Automaton(builder.states, builder.rows, numbers)


class _Builder:
    def __init__(self) -> None:
        self._numbers: dict[Items, int] = {DEAD: 0}
        self._pending: list[Items] = [DEAD]
        self.states: list[State] = []
        self.rows: list[Row] = []

    def number(self, state: Items) -> int:
        if state not in self._numbers:
            if len(self._numbers) >= STATES:
                raise TooLargeError(f"path patterns need more than {STATES} states")
            self._numbers[state] = len(self._numbers)
            self._pending.append(state)
        return self._numbers[state]

    def run(self) -> None:
        while len(self.states) < len(self._pending):
            self.states.append(self._expand(self._pending[len(self.states)]))

    def _expand(self, state: Items) -> State:
        accepts = 0
        heads = set()
        for rest, bits in state:
            if not rest or rest[0] == _TREE:
                accepts |= bits
            if rest and rest[0] not in (_ANY, _TREE):
                heads.add(rest[0])
        otherwise = self._after(state, frozenset())
        if all(_STAR not in _bytes(head) and len(_bytes(head)) < layout.COMPONENT for head in heads):
            edges = {bytes(_bytes(head)): self._after(state, frozenset((head,))) for head in sorted(heads)}
            return State(accepts, otherwise, {h: n for h, n in edges.items() if n != otherwise}, 0)
        return State(accepts, otherwise, {}, self._byte_rows(state, sorted(heads), otherwise))

    def _after(self, state: Items, matched: frozenset[bytes]) -> int:
        """The state after a component that matches the heads ``matched`` and no other literal or glob."""
        left: dict[tuple[bytes, ...], int] = {}
        for rest, bits in state:
            if not rest:
                continue
            if rest[0] == _TREE:
                left[rest] = left.get(rest, 0) | bits
            elif rest[0] == _ANY or rest[0] in matched:
                left[rest[1:]] = left.get(rest[1:], 0) | bits
        return self.number(frozenset(left.items()))

    def _byte_rows(self, state: Items, names: list[bytes], otherwise: int) -> int:
        """Adds the byte automaton of a state and returns the number of its first row plus one."""
        heads = [_bytes(name) for name in names]
        start = _closure({(h, 0) for h in range(len(heads))}, heads)
        numbers = {start: len(self.rows)}
        pending = [start]
        first = len(self.rows)
        alphabet = sorted({byte for head in heads for byte in head if byte != _STAR})
        for positions in pending:
            ended = frozenset(names[h] for h, at in positions if at == len(heads[h]))
            row = Row(self._after(state, ended) if ended else otherwise, {})
            self.rows.append(row)
            has_star = any(heads[h][at : at + 1] == (_STAR,) for h, at in positions)
            for byte in range(1, 256) if has_star else alphabet:
                following = _closure(_step(positions, heads, byte), heads)
                if not following:
                    continue
                if following not in numbers:
                    if first + len(numbers) >= BYTE_STATES:
                        raise TooLargeError(
                            f"patterns with * inside a component need more than {BYTE_STATES} byte states"
                        )
                    numbers[following] = first + len(numbers)
                    pending.append(following)
                row.next[byte] = numbers[following] + 1
        return first + 1


def _bytes(head: bytes) -> tuple[int, ...]:
    """The bytes of a component of a pattern. ``*`` is _STAR, unless the component is a name: see model.literal."""
    if head.startswith(b"\0"):
        return tuple(head[1:])
    return tuple(_STAR if byte == ord("*") else byte for byte in head)


def _step(positions: Iterable[tuple[int, int]], heads: list[tuple[int, ...]], byte: int) -> set[tuple[int, int]]:
    """The positions in the heads after one byte. ``*`` takes any byte."""
    result = set()
    for h, at in positions:
        if heads[h][at : at + 1] == (_STAR,):
            result.add((h, at))
        elif at < len(heads[h]) and heads[h][at] == byte != _STAR:
            result.add((h, at + 1))
    return result


def _closure(positions: Iterable[tuple[int, int]], heads: list[tuple[int, ...]]) -> frozenset[tuple[int, int]]:
    """Adds the positions after each ``*``, which may also match nothing."""
    result = set(positions)
    for h, position in tuple(result):
        at = position
        while heads[h][at : at + 1] == (_STAR,):
            at += 1
            result.add((h, at))
    return frozenset(result)
