# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest's root file system as cpio archives: one that hardly changes (Python, busybox, libbpf, an ext4 image),
and one made for each boot (our package, the BPF object, the guest scripts, the kernel's modules). The kernel unpacks both."""

from __future__ import annotations

import hashlib
import json
import os
import py_compile
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import BinaryIO, Iterable

GUEST = Path(__file__).resolve().parents[1]
ROOT = GUEST.parents[1]
CACHE = ROOT / ".cache" / "kernels"
PYTHON = "python3.11"
DISK_MEGABYTES = 8

# parts of the standard library that nothing in the guest imports
LEFT_OUT = {
    "asyncio",
    "concurrent",
    "curses",
    "dbm",
    "distutils",
    "ensurepip",
    "http",
    "html",
    "idlelib",
    "lib2to3",
    "multiprocessing",
    "pydoc_data",
    "sqlite3",
    "test",
    "tkinter",
    "tomllib",
    "turtledemo",
    "unittest",
    "venv",
    "wsgiref",
    "xml",
    "xmlrpc",
    "config-3.11-x86_64-linux-gnu",
    "__pycache__",
    "site-packages",
    "dist-packages",
    "mailbox.py",
    "pydoc.py",
    "turtle.py",
}
LIBRARIES = (
    "libbpf.so.1",
    "libelf.so.1",
    "libz.so.1",
    "libc.so.6",
    "libffi.so.8",
    "libexpat.so.1",
    "libm.so.6",
    "ld-linux-x86-64.so.2",
    "libuuid.so.1",
)
ACCOUNTS = {"root": 0, "alice": 1001, "bob": 1002, "carol": 1003, "nobody": 65534}
GROUPS = {"root": 0, "alice": 1001, "bob": 1002, "carol": 1003, "dba": 2001, "nogroup": 65534}


class Archive:
    """A cpio archive of the kind the kernel reads ("newc"), written without needing root or real device files."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.number = 0
        self.folders: set = set()

    def add(self, name: str, mode: int, data: bytes = b"") -> None:
        name = name.strip("/")
        parent = os.path.dirname(name)
        if parent and parent not in self.folders:
            self.add(parent, stat.S_IFDIR | 0o755)
        if stat.S_ISDIR(mode):
            if name in self.folders:
                return
            self.folders.add(name)
        self._entry(name, mode, data)

    def _entry(self, name: str, mode: int, data: bytes) -> None:
        self.number += 1
        encoded = name.encode() + b"\0"
        fields = (self.number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        self.stream.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        self.add(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def close(self) -> None:
        self._entry("TRAILER!!!", 0, b"")
        self.stream.write(b"\0" * (-self.stream.tell() % 512))


def _library(guest: Path, name: str) -> Path:
    for found in guest.rglob(name):
        return found.resolve() if not found.is_symlink() else found.parent / os.readlink(found)
    raise FileNotFoundError(f"{name} is in none of the guest's packages: remove {guest} and fetch again")


def _standard_library(guest: Path) -> Iterable[tuple[str, bytes]]:
    top = guest / "usr" / "lib" / PYTHON
    with tempfile.TemporaryDirectory() as scratch:
        compiled = os.path.join(scratch, "module.pyc")
        for path in sorted(top.rglob("*")):
            parts = path.relative_to(top).parts
            if LEFT_OUT & set(parts) or not path.is_file():
                continue
            name = f"usr/lib/{PYTHON}/" + "/".join(parts)
            if path.suffix == ".py":
                py_compile.compile(
                    str(path),
                    compiled,
                    dfile="/" + name,
                    doraise=True,
                    optimize=1,
                    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                )
                yield name + "c", Path(compiled).read_bytes()
            elif path.suffix == ".so":
                yield name, path.read_bytes()


def _disk() -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        image = os.path.join(scratch, "disk.img")
        subprocess.run(
            ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-b", "1024", image, f"{DISK_MEGABYTES}M"],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        return Path(image).read_bytes()


def base() -> Path:
    """What every boot shares; made once and whenever this file is newer."""
    target = CACHE / "base.cpio"
    guest = CACHE / "guest"
    if target.exists() and target.stat().st_mtime > max(
        Path(__file__).stat().st_mtime, (guest / "done").stat().st_mtime
    ):
        return target
    with tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as stream:
        archive = Archive(stream)  # type: ignore[arg-type]
        for folder in ("proc", "sys", "dev", "srv", "run", "tmp", "root", "usr/sbin", "var/lib", "mnt"):
            archive.add(folder, stat.S_IFDIR | 0o755)
        archive.file("bin/busybox", (guest / "bin" / "busybox").read_bytes(), 0o755)
        archive.file("usr/bin/python3", (guest / "usr" / "bin" / PYTHON).read_bytes(), 0o755)
        for name in LIBRARIES:
            archive.file(f"lib64/{name}", _library(guest, name).read_bytes(), 0o755)
        archive.link("lib", "lib64")
        for name, data in _standard_library(guest):
            archive.file(name, data)
        archive.file(
            "etc/passwd", "".join(f"{n}:x:{i}:{GROUPS.get(n, i)}::/:/bin/sh\n" for n, i in ACCOUNTS.items()).encode()
        )
        archive.file("etc/group", "".join(f"{n}:x:{i}:\n" for n, i in GROUPS.items()).encode())
        archive.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\n")
        archive.file("disk.img", _disk())
        archive.close()
    os.replace(stream.name, target)
    return target


def programs() -> dict[str, bytes]:
    """The small C programs for the guest; all but two linked statically."""
    built = CACHE / "programs"
    built.mkdir(exist_ok=True)
    found = {}
    for source in sorted((GUEST / "programs").glob("*.c")):
        target = built / source.stem
        if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
            linking = [] if source.stem in ("dynamic", "linked") else ["-static"]
            subprocess.run(
                ["gcc", "-O2", "-Wall", "-Werror", "-s", *linking, "-o", str(target), str(source)], check=True
            )
        found[source.stem] = target.read_bytes()
    return found


def packages() -> list[Path]:
    """What the guests and the tests on the host import: harness, techniques and checks."""
    return sorted(GUEST.glob("*/*.py"))


def boot_archive(
    target: Path,
    kernel: str,
    command: list[str],
    extra: Iterable[Path] = (),
    sysctl: Iterable[str] = (),
    bpf_object: Path = ROOT / "roles" / "enforcer" / "files" / "guard.bpf.o",
) -> None:
    """``command[0]`` is a host path of a script. The Python packages of this folder, the script and ``extra`` are put into
    /guest; a script of the packages stays at its place among them."""
    with target.open("wb") as stream:
        archive = Archive(stream)
        archive.file("init", (GUEST / "harness" / "init").read_bytes(), 0o755)
        script = Path(command[0]).resolve()
        placed = {path: path.relative_to(GUEST).as_posix() for path in packages()}
        placed.update((path, path.name) for path in [GUEST / "harness" / "systemctl", *extra])
        placed.setdefault(script, script.name)
        for path, name in placed.items():
            archive.file(f"guest/{name}", path.read_bytes(), 0o755 if os.access(path, os.X_OK) else 0o644)
        for name, data in programs().items():
            archive.file(f"guest/{name}", data, 0o755)
        archive.file("guest/command.json", json.dumps([f"/guest/{placed[script]}", *command[1:]]).encode("ascii"))
        archive.file("guest/sysctl", "\n".join(sysctl).encode())
        for path in sorted((CACHE / kernel / "modules").glob("*.ko")):
            archive.file(f"modules/{path.name}", path.read_bytes())
        for name, content in package(bpf_object).items():
            archive.file(name, content)
        archive.close()


def package(bpf_object: Path) -> dict[str, bytes]:
    """What role enforcer installs, units and command aside."""
    source = ROOT / "plugins" / "module_utils" / "_guard"
    files = {
        f"usr/lib/exfil-guard/exfil_guard/{path.relative_to(source)}": path.read_bytes()
        for path in source.rglob("*.py")
    }
    for name in ("allowed", "denied"):
        files[f"usr/lib/exfil-guard/canary/{name}"] = name.encode()
    files["usr/lib/exfil-guard/guard.bpf.o"] = bpf_object.read_bytes()
    files["usr/lib/exfil-guard/proved.json"] = (ROOT / "roles" / "enforcer" / "files" / "proved.json").read_bytes()
    listed = [f"{hashlib.sha256(content).hexdigest()}  /{name}\n" for name, content in sorted(files.items())]
    return {**files, "usr/lib/exfil-guard/PACKAGE": "".join(listed).encode("ascii")}
