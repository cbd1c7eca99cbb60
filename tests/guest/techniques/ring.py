# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Just enough of io_uring to hand one request to the kernel, by a call or to its own thread that polls."""

import ctypes
import mmap
import os
import struct
import time

from harness.process import libc

READ, WRITE, OPENAT = 22, 23, 18
_SETUP, _ENTER = 425, 426
_SQPOLL = 2
_CQ_RING, _SQES = 0x8000000, 0x10000000


def _syscall(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def submit(opcode, fd, address, length, offset=0, flags=0, polled=False):
    """The result of one request; OSError when it is an error."""
    parameters = ctypes.create_string_buffer(120)
    struct.pack_into("=I", parameters, 8, _SQPOLL if polled else 0)
    ring = _syscall(_SETUP, 4, parameters)
    head, tail, mask, _, _, _, array = struct.unpack_from("=7I", parameters, 40)
    c_head, c_tail, c_mask, _, _, cqes = struct.unpack_from("=6I", parameters, 80)
    entries = struct.unpack_from("=I", parameters, 0)[0]
    submissions = mmap.mmap(ring, array + 4 * entries)
    completions = mmap.mmap(ring, cqes + 2 * entries * 16, offset=_CQ_RING)
    requests = mmap.mmap(ring, 64 * entries, offset=_SQES)
    struct.pack_into("=BBHiQQIIQ", requests, 0, opcode, 0, 0, fd, offset, address, length, flags, 7)
    struct.pack_into("=I", submissions, array, 0)
    struct.pack_into("=I", submissions, tail, struct.unpack_from("=I", submissions, head)[0] + 1)
    try:
        _syscall(_ENTER, ring, 1, 0 if polled else 1, 2 if polled else 1, None, 0)
        ends = time.clock_gettime(time.CLOCK_BOOTTIME) + 20
        while struct.unpack_from("=I", completions, c_tail)[0] == struct.unpack_from("=I", completions, c_head)[0]:
            assert time.clock_gettime(time.CLOCK_BOOTTIME) < ends, "no completion"
            time.sleep(0.01)
        result = struct.unpack_from("=Qi", completions, cqes)[1]
    finally:
        os.close(ring)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
