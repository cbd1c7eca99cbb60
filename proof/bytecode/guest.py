# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a guest kernel: loads each program of a file, runs it once by BPF_PROG_TEST_RUN and prints its result.

The file has one program per line, the instructions in hex. The output has one line per program."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys

BPF, LOAD, TEST_RUN, SOCKET_FILTER = 321, 5, 10, 1
libc = ctypes.CDLL(None, use_errno=True)
licence, log = ctypes.create_string_buffer(b"GPL"), ctypes.create_string_buffer(1 << 16)
packet, output = ctypes.create_string_buffer(64), ctypes.create_string_buffer(256)


def bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """The result of bpf(2), and the attributes as the kernel changed them. Raises OSError."""
    data = ctypes.create_string_buffer(attributes, 144)
    result = libc.syscall(BPF, command, data, len(data))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result, data.raw


def load(code: bytes, level: int = 0) -> int:
    """Loads a program. Returns its file descriptor. ``level``: of the verifier's log. Raises OSError."""
    held = ctypes.create_string_buffer(code, len(code))
    room = (level, len(log), ctypes.addressof(log)) if level else (0, 0, 0)
    return bpf(
        LOAD,
        struct.pack(
            "=IIQQIIQ", SOCKET_FILTER, len(code) // 8, ctypes.addressof(held), ctypes.addressof(licence), *room
        ),
    )[0]


def run(program: int) -> int:
    """Runs a program once. Returns its result. Raises OSError."""
    attributes = struct.pack("=IIIIQQI", program, 0, 64, 256, ctypes.addressof(packet), ctypes.addressof(output), 1)
    return int(struct.unpack_from("=I", bpf(TEST_RUN, attributes)[1], 4)[0])


def main() -> None:
    """Runs the programs of the file that the first argument names."""
    with open(sys.argv[1], encoding="ascii") as file:
        for line in file:
            code = bytes.fromhex(line)
            try:
                program = load(code)
            except OSError as error:
                with contextlib.suppress(OSError):
                    load(code, 1)
                print("refused", error.strerror, repr(log.value[-300:]))
                continue
            try:
                print(run(program))
            except OSError as error:
                print("not run", error.strerror)
            os.close(program)


if __name__ == "__main__":
    main()
