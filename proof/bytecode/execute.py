# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The executor: follows a function's instructions from one state to all in which it may end. Values are numbers where
they are known and terms where they are not; with numbers alone it is an interpreter. What memory beside the stack
holds, what helpers do, and which states are taken together, is the world's business (world.py, exact.py)."""

from __future__ import annotations

import heapq
from typing import Hashable, Protocol

from arithmetic import (
    ADD,
    END,
    EQUAL,
    MOV,
    NEG,
    NOT_EQUAL,
    SUB,
    Condition,
    Scalar,
    Term,
    Truth,
    calculate,
    compare,
    condition,
    either,
    fresh,
    low,
    swap,
)
from decode import ALU, ALU64, ATOMIC, CALL, EXIT, JMP, JMP32, JUMP, LDX, MEMORY, ST, STX, WIDE, Function, Instruction
from state import Pointer, State, Value

MASK64 = (1 << 64) - 1


class Unproved(Exception):
    """Nothing can be said of it, and why."""


class World(Protocol):
    def load(self, state: State, at: Pointer, size: int) -> Value: ...
    def store(self, state: State, at: Pointer, size: int, value: Value) -> None: ...
    def outside(self, state: State, address: Scalar, size: int) -> Value:
        """A read of the kernel's memory."""

    def trespass(self, state: State, what: str) -> None:
        """A write to what is not ours."""

    def helper(self, state: State, number: int, function: Function) -> list[State]:
        """Where the state may be after the helper; r0 is set, the others are not looked at any more."""

    def call(self, state: State, callee: Function) -> list[State]: ...
    def constant(self, state: State, each: Instruction) -> Value:
        """A load of what is known when the program is loaded."""

    def arrive(self, function: Function, state: State, pending: dict[Hashable, State]) -> None:
        """A state comes to a leader; those that wait there are in ``pending``, where it may be put."""


def run(world: World, function: Function, start: State, limit: int = 200_000) -> list[State]:
    """The states at the function's ends."""
    order, joins = function.shape.order, function.shape.joins
    pending: dict[int, dict[Hashable, State]] = {0: {(): start}}
    queue = [(0, 0)]
    ends: list[State] = []
    while queue:
        at = heapq.heappop(queue)[1]
        for state in pending.pop(at, {}).values():
            ready = [state]
            while ready:
                one = ready.pop()
                for after in _block(world, function, one, ends):
                    limit -= 1
                    if limit < 0:
                        raise Unproved(f"{function.name} has too many paths")
                    if after.at in joins:
                        if after.at not in pending:
                            pending[after.at] = {}
                            heapq.heappush(queue, (order[after.at], after.at))
                        world.arrive(function, after, pending[after.at])
                    else:
                        ready.append(after)
    return ends


def _block(world: World, function: Function, state: State, ends: list[State]) -> list[State]:
    """Follows the state to where it divides or meets others."""
    code, order = function.code, function.shape.order
    first = True
    while first or state.at not in order:
        first = False
        each = code.get(state.at)
        if each is None:
            raise Unproved(f"{function.name} leads to {state.at}, where no instruction begins")
        if each.code == EXIT:
            ends.append(state)
            return []
        if each.code == CALL:
            return _called(world, function, state, each)
        if each.kind in (JMP, JMP32) and each.code != JUMP:
            return _branch(state, each)
        step(world, state, each, function)
    return [state]


def _called(world: World, function: Function, state: State, each: Instruction) -> list[State]:
    following = state.at + 1
    if each.src == 2:
        raise Unproved(f"{function.name} calls a kernel function")
    if each.src == 1:
        after = world.call(state, function.callees[state.at])
    else:
        after = world.helper(state, each.constant & 0xFFFFFFFF, function)
    for one in after:
        one.at = following
        one.registers[1:6] = [None] * 5
    return after


def _branch(state: State, each: Instruction) -> list[State]:
    there, here = state.at + 1 + each.offset, state.at + 1
    width = 64 if each.kind == JMP else 32
    a = state.registers[each.dst]
    b = state.registers[each.src] if each.by_register else each.constant & MASK64
    truth = _compared(each.operation, width, a, b)
    known = truth if isinstance(truth, bool) else state.decided(truth)
    if known is not None:
        state.at = there if known else here
        return [state]
    assert isinstance(truth, Condition)
    taken = state.copy(there)
    taken.learn(truth)
    state.at = here
    state.learn(truth.opposite())
    if truth.what[0] in (EQUAL, NOT_EQUAL) and isinstance(truth.what[2], Term) and isinstance(truth.what[3], int):
        (taken if truth.what[0] == EQUAL else state).equate(truth.what[2], truth.what[3])
    return [state, taken]


def _compared(operation: int, width: int, a: Value, b: Value) -> Truth:
    if isinstance(a, Pointer) or isinstance(b, Pointer):
        if isinstance(a, Pointer) and isinstance(b, Pointer):
            if a.region == b.region:
                return compare(operation, width, a.offset, b.offset)
        elif 0 in (a, b) and operation in (EQUAL, NOT_EQUAL):
            return operation == NOT_EQUAL  # none of our pointers is 0
        return condition(NOT_EQUAL, 64, fresh("address", 1), 0)
    if a is None or b is None:
        raise Unproved("a register is compared before it is written")
    return compare(operation, width, a, b)


def step(world: World, state: State, each: Instruction, function: Function) -> None:
    """Any instruction but a conditional jump, a call, the end."""
    registers, kind = state.registers, each.kind
    following = state.at + (2 if each.code == WIDE else 1)
    if each.code == JUMP:
        following = state.at + 1 + each.offset
    elif each.code == WIDE:
        if each.callee is not None:
            registers[each.dst] = Pointer(("function", function.callees[state.at]), 0)
        else:
            registers[each.dst] = world.constant(state, each)
    elif kind in (ALU, ALU64):
        width = 64 if kind == ALU64 else 32
        if each.operation == END:
            if kind == ALU64:
                raise Unproved("bswap is an instruction that the executor does not know")
            registers[each.dst] = swap(_number(registers[each.dst]), each.constant, each.by_register)
        else:
            if each.offset:
                raise Unproved("signed division and moves are instructions that the executor does not know")
            b = registers[each.src] if each.by_register else each.constant & MASK64
            registers[each.dst] = _calculated(each.operation, width, registers[each.dst], b)
    elif kind == LDX and each.code & 0xE0 == MEMORY:
        registers[each.dst] = _load(world, state, registers[each.src], each)
    elif kind in (ST, STX) and each.code & 0xE0 == MEMORY:
        value = registers[each.src] if kind == STX else each.constant & (1 << 8 * each.size) - 1
        target = _moved(registers[each.dst], each.offset)
        if isinstance(target, Pointer):
            world.store(state, target, each.size, value)
        else:
            world.trespass(state, f"{function.name} stores {each.size} bytes at an address of the kernel's")
    elif kind == STX and each.code & 0xE0 == ATOMIC:
        _atomic(world, state, each, function)
    else:
        raise Unproved(f"instruction {each.code:#x} is one that the executor does not know")
    state.at = following


def _number(value: Value) -> Scalar:
    if value is None:
        raise Unproved("a register is read before it is written")
    return fresh("address") if isinstance(value, Pointer) else value


def _moved(value: Value, offset: int) -> Value:
    if isinstance(value, Pointer):
        return Pointer(value.region, _offset(value.offset, offset))
    return calculate(ADD, 64, _number(value), offset & MASK64)


def _offset(offset: Scalar, more: Scalar) -> Scalar:
    """Offsets are kept with their sign where they are known."""
    if isinstance(offset, int) and isinstance(more, int):
        total = (offset + more) & MASK64
        return total - (1 << 64) if total >> 63 else total
    return calculate(ADD, 64, offset & MASK64 if isinstance(offset, int) else offset, more)


def _calculated(operation: int, width: int, a: Value, b: Value) -> Value:
    if operation == MOV and width == 64:
        if b is None:
            raise Unproved("a register is read before it is written")
        return b
    if width == 64 and operation in (ADD, SUB):
        if isinstance(a, Pointer) and not isinstance(b, Pointer):
            more = _number(b)
            if operation == SUB:
                more = calculate(SUB, 64, 0, more)
            return Pointer(a.region, _offset(a.offset, more))
        if operation == ADD and isinstance(b, Pointer) and not isinstance(a, Pointer):
            return Pointer(b.region, _offset(b.offset, _number(a)))
        if operation == SUB and isinstance(a, Pointer) and isinstance(b, Pointer) and a.region == b.region:
            negated = calculate(SUB, 64, 0, b.offset & MASK64 if isinstance(b.offset, int) else b.offset)
            total = _offset(a.offset, negated)
            return total & MASK64 if isinstance(total, int) else total
    if operation == MOV:
        a = 0
    if operation == NEG:
        b = 0
    return calculate(operation, width, _number(a), _number(b))


def _load(world: World, state: State, base: Value, each: Instruction) -> Value:
    target = _moved(base, each.offset)
    if isinstance(target, Pointer):
        return world.load(state, target, each.size)
    return world.outside(state, _number(target), each.size)


def _atomic(world: World, state: State, each: Instruction, function: Function) -> None:
    registers, size = state.registers, each.size
    if size not in (4, 8):
        raise Unproved("an atomic operation of a size that the executor does not know")
    target = _moved(registers[each.dst], each.offset)
    if not isinstance(target, Pointer):
        world.trespass(state, f"{function.name} changes {size} bytes at an address of the kernel's")
        if each.constant & 1:
            registers[0 if each.constant == 0xF1 else each.src] = fresh("atomic", 8 * size)
        return
    old, operand = _number(world.load(state, target, size)), _number(registers[each.src])
    width = 8 * size
    if each.constant == 0xF1:  # compare and exchange
        equal = compare(EQUAL, width, old, _number(registers[0]))
        new = (operand if equal else old) if isinstance(equal, bool) else either(equal, low(operand, width), old)
        world.store(state, target, size, new)
        registers[0] = old
        return
    new = operand if each.constant == 225 else calculate(each.constant & 240, width, old, operand)
    world.store(state, target, size, low(new, width))
    if each.constant & 1:
        registers[each.src] = old
