# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libbpf through ctypes: the functions and structures that loading an object needs."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Callable, Mapping

from ..errors import EnforcerError
from .types import ARRAY_OF_MAPS, BTF, Loaded, MapSpec, ObjectInfo, Relocated, hook_of

_SOCKET_FILTER = 1  # enum bpf_prog_type


_BTF_FUNCTION = 12  # BTF_KIND_FUNC


def library_loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


class Libbpf:
    """Only what loading an object takes. What it prints is kept for the error message."""

    def __init__(self, libc: ctypes.CDLL) -> None:
        try:
            lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError as error:
            raise EnforcerError("libbpf.so.1 cannot be loaded", "Install libbpf 1.0 or newer") from error
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32
        for name, result, arguments in (
            ("libbpf_version_string", text, ()),
            ("bpf_object__open_mem", pointer, (text, ctypes.c_size_t, pointer)),
            ("bpf_object__load", ctypes.c_int, (pointer,)),
            ("bpf_object__close", None, (pointer,)),
            ("bpf_object__next_map", pointer, (pointer, pointer)),
            ("bpf_object__next_program", pointer, (pointer, pointer)),
            ("bpf_map__name", text, (pointer,)),
            ("bpf_map__fd", ctypes.c_int, (pointer,)),
            ("bpf_map__type", number, (pointer,)),
            ("bpf_map__key_size", number, (pointer,)),
            ("bpf_map__value_size", number, (pointer,)),
            ("bpf_map__max_entries", number, (pointer,)),
            ("bpf_map__map_flags", number, (pointer,)),
            ("bpf_map__inner_map", pointer, (pointer,)),
            ("bpf_map__is_internal", ctypes.c_bool, (pointer,)),
            ("bpf_map__reuse_fd", ctypes.c_int, (pointer, ctypes.c_int)),
            ("bpf_program__name", text, (pointer,)),
            ("bpf_program__fd", ctypes.c_int, (pointer,)),
            ("bpf_program__set_autoload", ctypes.c_int, (pointer, ctypes.c_bool)),
            ("bpf_program__section_name", text, (pointer,)),
            ("bpf_program__insns", pointer, (pointer,)),
            ("bpf_program__insn_cnt", ctypes.c_size_t, (pointer,)),
            ("bpf_program__autoload", ctypes.c_bool, (pointer,)),
            ("libbpf_register_prog_handler", ctypes.c_int, (text, ctypes.c_int, ctypes.c_int, pointer)),
            ("libbpf_unregister_prog_handler", ctypes.c_int, (ctypes.c_int,)),
            ("btf__load_vmlinux_btf", pointer, ()),
            ("btf__parse", pointer, (text, pointer)),
            ("btf__free", None, (pointer,)),
            ("btf__find_by_name_kind", ctypes.c_int, (pointer, text, number)),
            ("btf__type_by_id", pointer, (pointer, number)),
        ):
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        self._lib, self._libc = lib, libc
        self.version = lib.libbpf_version_string().decode().lstrip("v")
        self._log: list[str] = []
        # a va_list is passed as a pointer on both architectures
        self._printer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(self._keep)
        lib.libbpf_set_print.restype = ctypes.c_void_p
        lib.libbpf_set_print(self._printer)
        # before 1.3 libbpf frees its list when the last handler goes, and goes on using it: this one stays
        lib.libbpf_register_prog_handler(b"exfil_guard", _SOCKET_FILTER, 0, None)

    def _keep(self, level: int, form: int, arguments: int) -> int:
        if level == 0:
            buffer = ctypes.create_string_buffer(1 << 24)  # libbpf's longest log, at whose end the reason is
            self._libc.vsnprintf(
                buffer, ctypes.c_size_t(len(buffer)), ctypes.c_void_p(form), ctypes.c_void_p(arguments)
            )
            self._log.extend(buffer.value.decode("utf-8", "replace").splitlines())
        return 0

    def _open(self, data: bytes, btf: str = "") -> int:
        del self._log[:]
        # struct bpf_object_open_opts: size, name, relaxed maps, pin root, nothing, kconfig, BTF to relocate by;
        # without a name, libbpf makes one up from an address
        name, types = ctypes.create_string_buffer(b"exfil_guard"), ctypes.create_string_buffer(os.fsencode(btf))
        options = ctypes.create_string_buffer(
            struct.pack("=QQQQQQQ", 56, ctypes.addressof(name), 0, 0, 0, 0, ctypes.addressof(types) if btf else 0), 56
        )
        handle = self._lib.bpf_object__open_mem(data, len(data), options)
        if not handle:
            self._refuse("the object file cannot be read", ctypes.get_errno(), "Install the enforcer's package again")
        return handle

    def _refuse(self, message: str, number: int, remedy: str) -> None:
        tail = [line[8:] if line.startswith("libbpf: ") else line for line in self._log if line.strip()][-12:]
        reason = os.strerror(abs(number)) if abs(number) < 4000 else "not a BPF object"  # libbpf's own numbers
        raise EnforcerError(
            "{0}: {1}{2}".format(message, reason, "; libbpf says: " + " | ".join(tail) if tail else ""), remedy
        )

    def _each(self, following: Callable[[int, int | None], int | None], handle: int) -> list[int]:
        found: list[int] = []
        at = following(handle, None)
        while at:
            found.append(at)
            at = following(handle, at)
        return found

    def _spec(self, handle: int) -> MapSpec:
        lib = self._lib
        return MapSpec(
            lib.bpf_map__type(handle),
            lib.bpf_map__key_size(handle),
            lib.bpf_map__value_size(handle),
            lib.bpf_map__max_entries(handle),
            lib.bpf_map__map_flags(handle),
        )

    def describe(self, data: bytes) -> ObjectInfo:
        lib = self._lib
        handle = self._open(data)
        try:
            maps, inner = {}, {}
            for each in self._each(lib.bpf_object__next_map, handle):
                if lib.bpf_map__is_internal(each):
                    continue
                name = lib.bpf_map__name(each).decode()
                maps[name] = self._spec(each)
                if maps[name].type == ARRAY_OF_MAPS:
                    inside = lib.bpf_map__inner_map(each)
                    if inside:
                        inner[name] = self._spec(inside)
            programs = tuple(
                lib.bpf_program__name(each).decode() for each in self._each(lib.bpf_object__next_program, handle)
            )
            return ObjectInfo(maps, inner, programs)
        finally:
            lib.bpf_object__close(handle)

    def has_hook(self, program: str) -> bool:
        types = self._lib.btf__load_vmlinux_btf()
        if not types:
            return False
        try:
            return self._has_hook(types, program)
        finally:
            self._lib.btf__free(types)

    def _has_hook(self, types: int, program: str) -> bool:
        lib = self._lib
        hook, _, arguments = program.partition("__")
        function = lib.btf__find_by_name_kind(types, b"bpf_lsm_" + hook.encode(), _BTF_FUNCTION)
        if function <= 0 or not arguments.isdigit():
            return function > 0
        # struct btf_type: name, info, type; a function's type is its prototype, whose info ends in the count
        prototype = struct.unpack("=III", ctypes.string_at(lib.btf__type_by_id(types, function), 12))[2]
        count = struct.unpack("=II", ctypes.string_at(lib.btf__type_by_id(types, prototype), 8))[1] & 0xFFFF
        return count == int(arguments)

    def _has_function(self, function: str) -> bool:
        types = self._lib.btf__load_vmlinux_btf()
        if not types:
            return False
        try:
            return self._lib.btf__find_by_name_kind(types, function.encode(), _BTF_FUNCTION) > 0
        finally:
            self._lib.btf__free(types)

    def load(self, data: bytes, reuse: Mapping[str, int]) -> Loaded:
        lib = self._lib
        handle = self._open(data)
        try:
            maps = {
                lib.bpf_map__name(each).decode(): each
                for each in self._each(lib.bpf_object__next_map, handle)
                if not lib.bpf_map__is_internal(each)
            }
            for name, fd in reuse.items():
                result = lib.bpf_map__reuse_fd(maps[name], fd)
                if result:
                    self._refuse(f"the pinned map {name} cannot be used", result, "Remove the enforcer and run again")
            programs = {}
            for each in self._each(lib.bpf_object__next_program, handle):
                name = lib.bpf_program__name(each).decode()
                kind, _, function = lib.bpf_program__section_name(each).decode().partition("/")
                if self._has_function(function) if kind == "fentry" else self.has_hook(name):
                    programs[hook_of(name)] = each
                else:
                    lib.bpf_program__set_autoload(each, False)
            del self._log[:]
            result = lib.bpf_object__load(handle)
            if result:
                self._refuse(
                    "the kernel refuses the enforcer's programs",
                    result,
                    "Run a kernel that allows BPF LSM programs (CONFIG_BPF_LSM, CONFIG_DEBUG_INFO_BTF, "
                    "`bpf` among the active LSMs)",
                )
            return Loaded(
                {name: os.dup(lib.bpf_map__fd(each)) for name, each in maps.items()},
                {name: os.dup(lib.bpf_program__fd(each)) for name, each in programs.items()},
            )
        finally:
            lib.bpf_object__close(handle)

    def relocate(self, data: bytes, btf: str, place: int) -> list[Relocated]:
        """libbpf relocates all programs before it loads the first: there it is stopped. As socket filters, so that it
        asks nothing of the kernel that runs here."""
        lib = self._lib
        types = lib.btf__parse(btf.encode(), None) if btf else lib.btf__load_vmlinux_btf()
        if not types:
            raise EnforcerError(f"no BTF in {btf or BTF}", "Give a kernel's BTF (CONFIG_DEBUG_INFO_BTF)")
        found: list[Relocated] = []
        maps: dict[int, str] = {}

        def stop(_first: int, _options: int, _cookie: int) -> int:
            for each in self._each(lib.bpf_object__next_program, handle):
                if lib.bpf_program__autoload(each):
                    code = ctypes.string_at(lib.bpf_program__insns(each), 8 * lib.bpf_program__insn_cnt(each))
                    hook = lib.bpf_program__section_name(each).decode().partition("/")[2]
                    function = lib.btf__find_by_name_kind(types, b"bpf_lsm_" + hook.encode(), _BTF_FUNCTION)
                    found.append(Relocated(lib.bpf_program__name(each).decode(), hook, function, code, maps))
            return -errno.ECANCELED

        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)(stop)
        # struct libbpf_prog_handler_opts: size, cookie, setup, prepare, attach
        options = struct.pack("=QqQQQ", 40, 0, 0, ctypes.cast(callback, ctypes.c_void_p).value or 0, 0)
        handler = lib.libbpf_register_prog_handler(b"lsm/", _SOCKET_FILTER, 0, options)
        if handler < 0:
            self._refuse("programs cannot be relocated without being loaded", handler, "Install libbpf 1.0 or newer")
        handle = 0
        try:
            handle = self._open(data, btf)
            for each in self._each(lib.bpf_object__next_map, handle):
                name = lib.bpf_map__name(each).decode()
                result = lib.bpf_map__reuse_fd(each, place)
                if result:
                    self._refuse("a map cannot be stood for", result, "Report it with libbpf's version")
                maps[lib.bpf_map__fd(each)] = name
            for each in self._each(lib.bpf_object__next_program, handle):
                lib.bpf_program__set_autoload(each, self._has_hook(types, lib.bpf_program__name(each).decode()))
            del self._log[:]
            result = lib.bpf_object__load(handle)
            if not found:
                self._refuse("the object cannot be relocated", result, "Install the enforcer's package again")
            return found
        finally:
            if handle:
                lib.bpf_object__close(handle)
            lib.libbpf_unregister_prog_handler(handler)
            lib.btf__free(types)
