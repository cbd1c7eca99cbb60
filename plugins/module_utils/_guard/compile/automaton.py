# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Path patterns become one deterministic automaton over components, and where a component holds a ``*`` or a long
literal, one over its bytes. A state is known by what is left of the patterns in it: superblocks share states."""

from __future__ import annotations

import os
from typing import FrozenSet, Mapping, NamedTuple, Tuple

from .. import layout
from ..policy import model

# what is left of a pattern -> the marks of what it accepts for
Items = FrozenSet[Tuple[Tuple[bytes, ...], int]]

DEAD: Items = frozenset()
_ANY, _TREE = b"*", b"**"
STATES, BYTE_STATES = 1 << 16, (1 << 16) - 2


class TooLarge(ValueError):
    """The patterns need more states than the tables have room for."""


class State(NamedTuple):
    marks: int  # of every pattern that accepts here
    otherwise: int  # next state for any other component
    edges: dict[bytes, int]  # component -> next state; empty where the byte automaton decides
    bytes: int  # its first row plus one; 0: none


class Row(NamedTuple):
    target: int  # the next state when the component ends here
    next: dict[int, int]  # byte -> row plus one


class Automaton(NamedTuple):
    states: list[State]  # 0 is dead
    rows: list[Row]
    starts: list[int]  # by the index of the pattern list


def items(patterns: Mapping[model.Components, int]) -> Items:
    return frozenset((tuple(os.fsencode(c) for c in components), marks) for components, marks in patterns.items())


def build(starts: list[Mapping[model.Components, int]]) -> Automaton:
    """One automaton for several roots; each start maps patterns to marks. Raises TooLarge."""
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
                raise TooLarge("path patterns need more than %d states" % STATES)
            self._numbers[state] = len(self._numbers)
            self._pending.append(state)
        return self._numbers[state]

    def run(self) -> None:
        while len(self.states) < len(self._pending):
            self.states.append(self._expand(self._pending[len(self.states)]))

    def _expand(self, state: Items) -> State:
        marks = 0
        heads = set()
        for rest, mark in state:
            if not rest or rest[0] == _TREE:
                marks |= mark
            if rest and rest[0] not in (_ANY, _TREE):
                heads.add(rest[0])
        otherwise = self._after(state, frozenset())
        if all(b"*" not in head and len(head) < layout.COMPONENT for head in heads):
            edges = {head: self._after(state, frozenset((head,))) for head in sorted(heads)}
            return State(marks, otherwise, {h: n for h, n in edges.items() if n != otherwise}, 0)
        return State(marks, otherwise, {}, self._byte_rows(state, sorted(heads), otherwise))

    def _after(self, state: Items, matched: frozenset[bytes]) -> int:
        left: dict[tuple[bytes, ...], int] = {}
        for rest, mark in state:
            if not rest:
                continue
            if rest[0] == _TREE:
                left[rest] = left.get(rest, 0) | mark
            elif rest[0] == _ANY or rest[0] in matched:
                left[rest[1:]] = left.get(rest[1:], 0) | mark
        return self.number(frozenset(left.items()))

    def _byte_rows(self, state: Items, heads: list[bytes], otherwise: int) -> int:
        start = _closure({(h, 0) for h in range(len(heads))}, heads)
        numbers = {start: len(self.rows)}
        pending = [start]
        first = len(self.rows)
        alphabet = sorted({b for head in heads for b in head if b != 42})
        for current in pending:
            ended = frozenset(heads[h] for h, at in current if at == len(heads[h]))
            row = Row(self._after(state, ended) if ended else otherwise, {})
            self.rows.append(row)
            starred = any(heads[h][at : at + 1] == b"*" for h, at in current)
            for byte in range(1, 256) if starred else alphabet:
                following = _closure(
                    {(h, at) for h, at in current if heads[h][at : at + 1] == b"*"}
                    | {(h, at + 1) for h, at in current if at < len(heads[h]) and heads[h][at] == byte != 42},
                    heads,
                )
                if not following:
                    continue
                if following not in numbers:
                    if first + len(numbers) >= BYTE_STATES:
                        raise TooLarge("patterns with * inside a component need more than %d byte states" % BYTE_STATES)
                    numbers[following] = first + len(numbers)
                    pending.append(following)
                row.next[byte] = numbers[following] + 1
        return first + 1


def _closure(positions, heads: list[bytes]) -> frozenset[tuple[int, int]]:
    """A ``*`` may also stand for nothing."""
    found = set(positions)
    for h, at in positions:
        while heads[h][at : at + 1] == b"*":
            at += 1
            found.add((h, at))
    return frozenset(found)
