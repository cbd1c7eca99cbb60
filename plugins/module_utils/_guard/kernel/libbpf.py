# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libbpf through ctypes: the functions and structures needed to load an object."""

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
    """Whether a shared library is installed."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


class Libbpf:
    """Loads objects. What libbpf prints becomes part of the error message."""

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
        # a va_list is passed as a pointer on x86_64 and aarch64
        self._printer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(self._keep)
        lib.libbpf_set_print.restype = ctypes.c_void_p
        lib.libbpf_set_print(self._printer)
        # libbpf before 1.3 uses its list of handlers after freeing it with the last one: keep one registered
        lib.libbpf_register_prog_handler(b"exfil_guard", _SOCKET_FILTER, 0, None)

    def _keep(self, level: int, form: int, arguments: int) -> int:
        if level == 0:
            buffer = ctypes.create_string_buffer(1 << 24)  # libbpf's longest log; the reason is at its end
            self._libc.vsnprintf(
                buffer, ctypes.c_size_t(len(buffer)), ctypes.c_void_p(form), ctypes.c_void_p(arguments)
            )
            self._log.extend(buffer.value.decode("utf-8", "replace").splitlines())
        return 0

    def _open(self, data: bytes, btf: str = "") -> int:
        del self._log[:]
        # struct bpf_object_open_opts: size, name, relaxed maps, pin root, unused, kconfig, BTF to relocate by;
        # without a name, libbpf derives one from an address
        name, types = ctypes.create_string_buffer(b"exfil_guard"), ctypes.create_string_buffer(os.fsencode(btf))
        options = ctypes.create_string_buffer(
            struct.pack("=QQQQQQQ", 56, ctypes.addressof(name), 0, 0, 0, 0, ctypes.addressof(types) if btf else 0), 56
        )
        handle: int | None = self._lib.bpf_object__open_mem(data, len(data), options)
        if not handle:
            raise self._error(
                "the object file cannot be read", ctypes.get_errno(), "Install the enforcer's package again"
            )
        return handle

    def _error(self, message: str, number: int, remedy: str) -> EnforcerError:
        """An error with the end of libbpf's log. ``number``: an errno, also negative, or libbpf's own."""
        tail = [line[8:] if line.startswith("libbpf: ") else line for line in self._log if line.strip()][-12:]
        reason = os.strerror(abs(number)) if abs(number) < 4000 else "not a BPF object"  # libbpf's own numbers
        log = "; libbpf says: " + " | ".join(tail) if tail else ""
        return EnforcerError(f"{message}: {reason}{log}", remedy)

    def _iterate(self, following: Callable[[int, int | None], int | None], handle: int) -> list[int]:
        handles: list[int] = []
        current = following(handle, None)
        while current:
            handles.append(current)
            current = following(handle, current)
        return handles

    def _maps(self, handle: int) -> dict[str, int]:
        lib = self._lib
        return {
            lib.bpf_map__name(map_).decode(): map_
            for map_ in self._iterate(lib.bpf_object__next_map, handle)
            if not lib.bpf_map__is_internal(map_)
        }

    def _programs(self, handle: int) -> dict[str, int]:
        lib = self._lib
        programs = self._iterate(lib.bpf_object__next_program, handle)
        return {lib.bpf_program__name(program).decode(): program for program in programs}

    def _attach_point(self, program: int) -> tuple[str, str]:
        """The kind of program and its hook or function, from the name of its section."""
        kind, _unused, name = self._lib.bpf_program__section_name(program).decode().partition("/")
        return kind, name

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
        """The maps and programs of an object file. Raises EnforcerError."""
        lib = self._lib
        handle = self._open(data)
        try:
            maps, inner = {}, {}
            for name, map_ in self._maps(handle).items():
                maps[name] = self._spec(map_)
                inner_map = lib.bpf_map__inner_map(map_) if maps[name].type == ARRAY_OF_MAPS else None
                if inner_map:
                    inner[name] = self._spec(inner_map)
            return ObjectInfo(maps, inner, tuple(self._programs(handle)))
        finally:
            lib.bpf_object__close(handle)

    def has_hook(self, program: str) -> bool:
        """Whether this kernel has the hook of the program, with the number of arguments that the program expects."""
        types = self._lib.btf__load_vmlinux_btf()
        if not types:
            return False
        try:
            return self._has_hook(types, program)
        finally:
            self._lib.btf__free(types)

    def _has_hook(self, types: int, program: str) -> bool:
        lib = self._lib
        hook, _unused, arguments = program.partition("__")
        function = self._function_id(types, "bpf_lsm_" + hook)
        if function <= 0 or not arguments.isdigit():
            return function > 0
        # struct btf_type: name, info, type; the type of a function is its prototype, whose info has the count
        prototype = struct.unpack("=III", ctypes.string_at(lib.btf__type_by_id(types, function), 12))[2]
        info: int = struct.unpack("=II", ctypes.string_at(lib.btf__type_by_id(types, prototype), 8))[1]
        return info & 0xFFFF == int(arguments)

    def _function_id(self, types: int, name: str) -> int:
        """The BTF id of a function; negative: there is none."""
        number: int = self._lib.btf__find_by_name_kind(types, name.encode(), _BTF_FUNCTION)
        return number

    def _has_function(self, function: str) -> bool:
        types = self._lib.btf__load_vmlinux_btf()
        if not types:
            return False
        try:
            return self._function_id(types, function) > 0
        finally:
            self._lib.btf__free(types)

    def load(self, data: bytes, reuse: Mapping[str, int]) -> Loaded:
        """Loads the object; see Kernel.load. Raises EnforcerError."""
        lib = self._lib
        handle = self._open(data)
        try:
            maps = self._maps(handle)
            for name, fd in reuse.items():
                result = lib.bpf_map__reuse_fd(maps[name], fd)
                if result:
                    raise self._error(
                        f"the pinned map {name} cannot be used", result, "Remove the enforcer and run again"
                    )
            programs = {}
            for name, program in self._programs(handle).items():
                kind, function = self._attach_point(program)
                if self._has_function(function) if kind == "fentry" else self.has_hook(name):
                    programs[hook_of(name)] = program
                else:
                    lib.bpf_program__set_autoload(program, False)
            del self._log[:]
            result = lib.bpf_object__load(handle)
            if result:
                raise self._error(
                    "the kernel refuses the enforcer's programs",
                    result,
                    "Run a kernel that allows BPF LSM programs (CONFIG_BPF_LSM, CONFIG_DEBUG_INFO_BTF, "
                    "`bpf` among the active LSMs)",
                )
            return Loaded(
                {name: os.dup(lib.bpf_map__fd(map_)) for name, map_ in maps.items()},
                {name: os.dup(lib.bpf_program__fd(program)) for name, program in programs.items()},
            )
        finally:
            lib.bpf_object__close(handle)

    def relocate(self, data: bytes, btf: str, placeholder: int) -> list[Relocated]:
        """Relocates the programs without loading them; see Kernel.relocate. ``placeholder``: the descriptor of a map.

        libbpf relocates all programs before it loads the first one, where a handler stops it. The handler declares them
        as socket filters, so that libbpf does not need the running kernel's hooks."""
        lib = self._lib
        types = lib.btf__parse(btf.encode(), None) if btf else lib.btf__load_vmlinux_btf()
        if not types:
            raise EnforcerError(f"no BTF in {btf or BTF}", "Give a kernel's BTF (CONFIG_DEBUG_INFO_BTF)")
        relocated: list[Relocated] = []
        maps: dict[int, str] = {}

        def stop(_first: int, _options: int, _cookie: int) -> int:
            for name, program in self._programs(handle).items():
                if lib.bpf_program__autoload(program):
                    code = ctypes.string_at(lib.bpf_program__insns(program), 8 * lib.bpf_program__insn_cnt(program))
                    hook = self._attach_point(program)[1]
                    relocated.append(Relocated(name, hook, self._function_id(types, "bpf_lsm_" + hook), code, maps))
            return -errno.ECANCELED

        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)(stop)
        # struct libbpf_prog_handler_opts: size, cookie, setup, prepare, attach
        options = struct.pack("=QqQQQ", 40, 0, 0, ctypes.cast(callback, ctypes.c_void_p).value or 0, 0)
        handler = lib.libbpf_register_prog_handler(b"lsm/", _SOCKET_FILTER, 0, options)
        if handler < 0:
            raise self._error(
                "programs cannot be relocated without being loaded", handler, "Install libbpf 1.0 or newer"
            )
        handle = 0
        try:
            handle = self._open(data, btf)
            self._replace_maps(handle, placeholder, maps)
            for name, program in self._programs(handle).items():
                lib.bpf_program__set_autoload(program, self._has_hook(types, name))
            del self._log[:]
            result = lib.bpf_object__load(handle)
            if not relocated:
                raise self._error("the object cannot be relocated", result, "Install the enforcer's package again")
            return relocated
        finally:
            if handle:
                lib.bpf_object__close(handle)
            lib.libbpf_unregister_prog_handler(handler)
            lib.btf__free(types)

    def _replace_maps(self, handle: int, placeholder: int, names: dict[int, str]) -> None:
        """Uses the placeholder for every map. Adds to ``names`` the descriptor that stands for each map."""
        lib = self._lib
        for map_ in self._iterate(lib.bpf_object__next_map, handle):
            name = lib.bpf_map__name(map_).decode()
            result = lib.bpf_map__reuse_fd(map_, placeholder)
            if result:
                raise self._error(
                    "a map cannot be replaced by a placeholder", result, "Report it with libbpf's version"
                )
            names[lib.bpf_map__fd(map_)] = name
