# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The executor: follows a function's instructions from one state to all states in which it may end.

Known values are numbers, unknown values are terms; with numbers alone it is an interpreter. A World says what memory
other than the stack contains, what helpers do, and which states are merged (world.py, exact.py, step.py)."""

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


class UnprovedError(Exception):
    """The prover cannot decide; the text says why."""


class World(Protocol):
    """What surrounds a function."""

    def load(self, state: State, at: Pointer, size: int) -> Value:
        """Reads from memory of ours."""

    def store(self, state: State, at: Pointer, size: int, value: Value) -> None:
        """Writes to memory of ours."""

    def outside(self, state: State, address: Scalar, size: int) -> Value:
        """Reads from the kernel's memory."""

    def trespass(self, state: State, what: str) -> None:
        """Handles a write to memory that is not ours."""

    def helper(self, state: State, number: int, function: Function) -> list[State]:
        """The states after a helper. r0 is set; r1 to r5 are undefined."""

    def call(self, state: State, callee: Function) -> list[State]:
        """The states after a call of a function."""

    def constant(self, state: State, insn: Instruction) -> Value:
        """The value of a wide load, which is fixed when the program is loaded."""

    def arrive(self, function: Function, state: State, pending: dict[Hashable, State]) -> None:
        """A state reaches a join. ``pending``: the states that wait there; it may be added or merged."""


def run(world: World, function: Function, start: State, limit: int = 200_000) -> list[State]:
    """The states at the function's ends. Raises UnprovedError when it has more than ``limit`` paths."""
    order, joins = function.shape.order, function.shape.joins
    pending: dict[int, dict[Hashable, State]] = {0: {(): start}}
    queue = [(0, 0)]
    ends: list[State] = []
    while queue:
        at = heapq.heappop(queue)[1]
        for state in pending.pop(at, {}).values():
            ready = [state]
            while ready:
                for after in _block(world, function, ready.pop(), ends):
                    limit -= 1
                    if limit < 0:
                        raise UnprovedError(f"{function.name} has too many paths")
                    if after.at in joins:
                        if after.at not in pending:
                            pending[after.at] = {}
                            heapq.heappush(queue, (order[after.at], after.at))
                        world.arrive(function, after, pending[after.at])
                    else:
                        ready.append(after)
    return ends


def _block(world: World, function: Function, state: State, ends: list[State]) -> list[State]:
    """Follows the state to the end of its block."""
    code, order = function.code, function.shape.order
    first = True
    while first or state.at not in order:
        first = False
        insn = code.get(state.at)
        if insn is None:
            raise UnprovedError(f"{function.name} continues at {state.at}, where no instruction begins")
        if insn.code == EXIT:
            ends.append(state)
            return []
        if insn.code == CALL:
            return _called(world, function, state, insn)
        if insn.kind in (JMP, JMP32) and insn.code != JUMP:
            return _branch(state, insn)
        step(world, state, insn, function)
    return [state]


def _called(world: World, function: Function, state: State, insn: Instruction) -> list[State]:
    following = state.at + 1
    if insn.src == 2:
        raise UnprovedError(f"{function.name} calls a kernel function")
    if insn.src == 1:
        after = world.call(state, function.callees[state.at])
    else:
        after = world.helper(state, insn.constant & 0xFFFFFFFF, function)
    for state_after in after:
        state_after.at = following
        state_after.registers[1:6] = [None] * 5
    return after


def _branch(state: State, insn: Instruction) -> list[State]:
    there, here = state.at + 1 + insn.offset, state.at + 1
    width = 64 if insn.kind == JMP else 32
    a = state.registers[insn.dst]
    b = state.registers[insn.src] if insn.by_register else insn.constant & MASK64
    truth = _compared(insn.operation, width, a, b)
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
        raise UnprovedError("a register is compared before it is written")
    return compare(operation, width, a, b)


def step(world: World, state: State, insn: Instruction, function: Function) -> None:
    """Executes an instruction other than a conditional jump, a call or the end."""
    registers, kind = state.registers, insn.kind
    following = state.at + (2 if insn.code == WIDE else 1)
    if insn.code == JUMP:
        following = state.at + 1 + insn.offset
    elif insn.code == WIDE:
        if insn.callee is not None:
            registers[insn.dst] = Pointer(("function", function.callees[state.at]), 0)
        else:
            registers[insn.dst] = world.constant(state, insn)
    elif kind in (ALU, ALU64):
        registers[insn.dst] = _arithmetic(state, insn)
    elif kind == LDX and insn.code & 0xE0 == MEMORY:
        registers[insn.dst] = _load(world, state, registers[insn.src], insn)
    elif kind in (ST, STX) and insn.code & 0xE0 == MEMORY:
        value = registers[insn.src] if kind == STX else insn.constant & (1 << 8 * insn.size) - 1
        target = _moved(registers[insn.dst], insn.offset)
        if isinstance(target, Pointer):
            world.store(state, target, insn.size, value)
        else:
            world.trespass(state, f"{function.name} stores {insn.size} bytes at an address in the kernel")
    elif kind == STX and insn.code & 0xE0 == ATOMIC:
        _atomic(world, state, insn, function)
    else:
        raise UnprovedError(f"the executor does not support the instruction {insn.code:#x}")
    state.at = following


def _arithmetic(state: State, insn: Instruction) -> Value:
    registers, kind = state.registers, insn.kind
    if insn.operation == END:
        if kind == ALU64:
            raise UnprovedError("the executor does not support the instruction bswap")
        return swap(_number(registers[insn.dst]), insn.constant, insn.by_register)
    if insn.offset:
        raise UnprovedError("the executor does not support signed division and moves")
    b = registers[insn.src] if insn.by_register else insn.constant & MASK64
    return _calculated(insn.operation, 64 if kind == ALU64 else 32, registers[insn.dst], b)


def _number(value: Value) -> Scalar:
    if value is None:
        raise UnprovedError("a register is read before it is written")
    return fresh("address") if isinstance(value, Pointer) else value


def _moved(value: Value, offset: int) -> Value:
    if isinstance(value, Pointer):
        return Pointer(value.region, _offset(value.offset, offset))
    return calculate(ADD, 64, _number(value), offset & MASK64)


def _offset(offset: Scalar, more: Scalar) -> Scalar:
    """The sum of two offsets; a known sum has its sign."""
    if isinstance(offset, int) and isinstance(more, int):
        total = (offset + more) & MASK64
        return total - (1 << 64) if total >> 63 else total
    return calculate(ADD, 64, offset & MASK64 if isinstance(offset, int) else offset, more)


def _calculated(operation: int, width: int, a: Value, b: Value) -> Value:
    if operation == MOV and width == 64:
        if b is None:
            raise UnprovedError("a register is read before it is written")
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


def _load(world: World, state: State, base: Value, insn: Instruction) -> Value:
    target = _moved(base, insn.offset)
    if isinstance(target, Pointer):
        return world.load(state, target, insn.size)
    return world.outside(state, _number(target), insn.size)


def _atomic(world: World, state: State, insn: Instruction, function: Function) -> None:
    registers, size = state.registers, insn.size
    if size not in (4, 8):
        raise UnprovedError(f"the executor does not support atomic operations on {size} bytes")
    target = _moved(registers[insn.dst], insn.offset)
    if not isinstance(target, Pointer):
        world.trespass(state, f"{function.name} changes {size} bytes at an address in the kernel")
        if insn.constant & 1:
            registers[0 if insn.constant == 0xF1 else insn.src] = fresh("atomic", 8 * size)
        return
    old, operand = _number(world.load(state, target, size)), _number(registers[insn.src])
    width = 8 * size
    if insn.constant == 0xF1:  # compare and exchange
        equal = compare(EQUAL, width, old, _number(registers[0]))
        new = (operand if equal else old) if isinstance(equal, bool) else either(equal, low(operand, width), old)
        world.store(state, target, size, new)
        registers[0] = old
        return
    new = operand if insn.constant == 225 else calculate(insn.constant & 240, width, old, operand)
    world.store(state, target, size, low(new, width))
    if insn.constant & 1:
        registers[insn.src] = old
