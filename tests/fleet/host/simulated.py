# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is simulated of a host: a bpffs, /var/lib and /run/lock of its own, real maps in them, and programs that are never
loaded: a program is a map of its own that holds its place among the object's, a link one that holds that and the program's
number. They say of themselves what the kernel would say of the real ones. The package is the real one."""

import ctypes
import errno
import importlib.abc
import importlib.machinery
import json
import os
import struct
import sys

CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 1 << 18
FILLED_BY_PROGRAMS = {"events": 4096, "wires": 1, "carriers": 1, "cells": 1, "kept": 1}  # entries, or bytes of the ring
PLACES = {"bpf": "/sys/fs/bpf", "lib": "/var/lib", "lock": "/run/lock"}


def enter(folder):
    """From here on this process, and what it starts, is on the host whose ``folder`` it is. The bpffs of the host is
    FOLDER/bpf, a bind mount of a folder of the fleet's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "unshare")
    for name, place in PLACES.items():
        source = os.path.realpath(os.path.join(folder, name))
        if libc.mount(os.fsencode(source), place.encode(), None, MS_BIND, None):
            raise OSError(ctypes.get_errno(), "mount", place)
    sys.meta_path.insert(0, _Finder(folder))


class _Finder(importlib.abc.MetaPathFinder):
    """Puts the simulated kernel in the place of the package's."""

    def __init__(self, folder):
        self.folder = folder

    def find_spec(self, name, path, target=None):
        if name != "exfil_guard.kernel.bpf":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        spec.loader = _Loader(spec.loader, self.folder)
        return spec


class _Loader(importlib.abc.Loader):
    """Around the package's own loader, which is one for all of its modules where it is an archive."""

    def __init__(self, loader, folder):
        self.loader, self.folder = loader, folder

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        self.loader.exec_module(module)
        module.Kernel = kernel_of(module, self.folder)


def kernel_of(module, folder):
    """The package's Kernel over a simulated host."""
    types = importlib.import_module(module.__name__.rpartition(".")[0] + ".types")

    class Simulated(module.Kernel):
        described, relocations, known = {}, {}, []

        def environment(self):
            found = super().environment()
            return found._replace(
                root=True,
                machine="x86_64",
                release="6.1.0-40-amd64",
                bpffs=True,
                cgroup2=True,
                lsms=("lockdown", "capability", "landlock", "yama", "apparmor", "bpf"),
                libbpf="1.1.2",
                ftrace=True,
            )

        def records_new_task(self, storage):
            """The stand-ins of the programs record nothing; the programs of this host run."""
            return True

        def mount_namespace(self):
            return 4026531841

        def listening_ports(self):
            return frozenset({22})

        def as_user(self, user, operation):
            """Denied is what the canary's rules deny, while a policy is in force. A host may be made to fail."""
            if os.path.exists(os.path.join(folder, "canary-fails")):
                return 0
            names = [str(cell.cell_contents) for cell in operation.__closure__ or ()]
            forbidden = any(name.endswith("/denied") or name == "192.0.2.1" for name in names)
            return errno.EPERM if forbidden else 0

        # ---- programs and links ------------------------------------------------------------------------------------

        def _stand_in(self, name, place, number=0):
            fd = self.create_map(name, types.MapSpec(types.ARRAY, 4, 8, 1))
            self.update(fd, bytes(4), struct.pack("=II", place, number))
            return fd

        def _told(self, fd):
            """(what the object says of the program, its number)"""
            if not self.known:
                with open(os.path.join(folder, "programs"), encoding="ascii") as file:
                    self.known.extend(json.load(file))
            place, number = struct.unpack("=II", self.lookup(fd, bytes(4)))
            return self.known[place], number

        def program_info(self, fd):
            found, (told, _number) = self.map_info(fd), self._told(fd)
            return types.ProgramInfo(found.id, told["name"], told["tag"], tuple(told["maps"]))

        def program_by_id(self, number):
            return self.map_by_id(number)

        def link_info(self, fd):
            told, number = self._told(fd)
            return types.LinkInfo(self.map_info(fd).id, number, types.LSM_MAC, 1, told["function"])

        def link_exists(self, number):
            return False

        def attach(self, program):
            place, _number = struct.unpack("=II", self.lookup(program, bytes(4)))
            return self._stand_in("link", place, self.map_info(program).id)

        def describe(self, data):
            if data not in self.described:
                self.described[data] = super().describe(data)
            return self.described[data]

        def load(self, data, reuse):
            info = self.describe(data)
            maps = {}
            for name, spec in info.maps.items():
                inner = self.create_map("inner", info.inner[name]) if name in info.inner else None
                if spec.type in (types.INODE_STORAGE, types.TASK_STORAGE, types.SK_STORAGE):
                    spec = types.MapSpec(types.ARRAY, 4, 4, 1)  # these belong to programs
                if name in FILLED_BY_PROGRAMS:  # ten megabytes of a thousand hosts are too many
                    spec = spec._replace(max_entries=FILLED_BY_PROGRAMS[name])
                maps[name] = reuse[name] if name in reuse else self.create_map(name, spec, inner)
            instructions = importlib.import_module(module.__name__.rpartition(".")[0] + ".instructions")
            programs, known = {}, []
            for place, each in enumerate(self.relocated(data)):
                used = instructions.submitted(each, ()).maps.values()
                known.append(
                    {
                        "name": each.name,
                        "tag": instructions.tags(each.code)[0],
                        "function": each.function,
                        "maps": [self.map_info(maps[name]).id for name in sorted(set(used))],
                    }
                )
                programs[types.hook_of(each.name)] = self._stand_in(each.name, place)
            with open(os.path.join(folder, "programs"), "w", encoding="ascii") as file:
                json.dump(known, file)
            del self.known[:]
            return types.Loaded(maps, programs)

        def relocated(self, data):
            if data not in self.relocations:
                self.relocations[data] = self.relocate(data)
            return self.relocations[data]

    return Simulated
