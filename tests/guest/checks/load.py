# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads the BPF object with libbpf alone and attaches every program; prints what libbpf and the verifier had to say.

With the argument "log" it also prints the verifier's last line (instructions processed) for each program."""

import ctypes
import os
import sys

from exfil_guard.kernel.bpf import Kernel

fits = Kernel().has_hook
libc = ctypes.CDLL(None)
bpf = ctypes.CDLL("libbpf.so.1")
PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
libc.vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]
buffer = ctypes.create_string_buffer(1 << 24)


@PRINT
def show(level, text, arguments):
    if level == 0:
        libc.vsnprintf(buffer, len(buffer), text, arguments)
        lines = buffer.value.decode(errors="replace").splitlines()
        print("\n".join(lines if len(lines) < 160 else [*lines[:4], "…", *lines[-150:]]))
    return 0


fits("file_open")  # takes the printer first
bpf.libbpf_set_print(show)
for name in ("bpf_object__open_file", "bpf_object__next_program", "bpf_program__attach_lsm"):
    getattr(bpf, name).restype = ctypes.c_void_p
bpf.bpf_object__next_program.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
bpf.bpf_program__name.restype = ctypes.c_char_p
bpf.bpf_program__insn_cnt.restype = ctypes.c_size_t
for name in ("bpf_object__load", "bpf_program__name", "bpf_program__attach_lsm", "bpf_program__insn_cnt"):
    getattr(bpf, name).argtypes = [ctypes.c_void_p]
bpf.bpf_program__set_log_level.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
bpf.bpf_program__set_log_buf.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
bpf.bpf_object__open_file.argtypes = [ctypes.c_char_p, ctypes.c_void_p]

bpf.bpf_program__set_autoload.argtypes = [ctypes.c_void_p, ctypes.c_bool]

target = bpf.bpf_object__open_file(b"/usr/lib/exfil-guard/guard.bpf.o", None)
if not target:
    sys.exit("open failed")
programs, logs, current = [], {}, None
while True:
    current = bpf.bpf_object__next_program(target, current)
    if not current:
        break
    if not fits(bpf.bpf_program__name(current).decode()):
        bpf.bpf_program__set_autoload(current, False)
        continue
    programs.append(current)
    if "log" in sys.argv:
        logs[current] = ctypes.create_string_buffer(1 << 16)
        bpf.bpf_program__set_log_level(current, 4)
        bpf.bpf_program__set_log_buf(current, logs[current], 1 << 16)
result = bpf.bpf_object__load(target)
for current in programs:
    log = logs[current].value.decode(errors="replace").strip().splitlines()[-3:] if current in logs else []
    print(bpf.bpf_program__name(current).decode(), bpf.bpf_program__insn_cnt(current), "instructions;", *log)
if result:
    sys.exit(f"load failed: {result} {os.strerror(-result)}")
failed = 0
for current in programs:
    if not bpf.bpf_program__attach_lsm(current):
        failed = 1
        print("attach failed:", bpf.bpf_program__name(current).decode())
print("loaded and attached", len(programs) - failed if not failed else "some")
sys.exit(failed)
