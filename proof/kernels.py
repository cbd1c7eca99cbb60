# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernels that the proofs are for: the release and the BTF of Debian's images.

tests/guest/harness/fetch downloads and unpacks the images."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "kernels"
KERNELS: tuple[str, ...] = ("6.1", "6.12", "7.2")

# Linux/x86 boot protocol: offsets in a bzImage
_SETUP_SECTORS, _RELEASE, _PAYLOAD = 0x1F1, 0x20E, 0x248
_COMPRESSED = {b"\x02\x21\x4c\x18": ["lz4", "-dcq"], b"\x28\xb5\x2f\xfd": ["zstd", "-dcq"], b"\xfd7zXZ": ["xz", "-dcq"]}


class KernelTypes(NamedTuple):
    """``btf``: a file with what the kernel shows as /sys/kernel/btf/vmlinux; ``digest``: its SHA-256 in hex."""

    kernel: str
    release: str  # as uname prints it
    btf: Path
    digest: str


def kernel_types(kernel: str) -> KernelTypes:
    """Raises FileNotFoundError when the image has not been fetched, ValueError when it cannot be read."""
    image = CACHE / kernel / "vmlinuz"
    if not image.exists():
        raise FileNotFoundError(f"{image} does not exist: run tests/guest/harness/fetch {kernel}")
    data = image.read_bytes()
    target = CACHE / kernel / "btf"
    if not target.exists() or target.stat().st_mtime < image.stat().st_mtime:
        section = ELFFile(io.BytesIO(_unpacked(data, image))).get_section_by_name(".BTF")
        if section is None:
            raise ValueError(f"{image} has no section .BTF: use a kernel with CONFIG_DEBUG_INFO_BTF")
        scratch = target.with_suffix(".new")
        scratch.write_bytes(section.data())
        scratch.replace(target)
    return KernelTypes(kernel, release(data), target, hashlib.sha256(target.read_bytes()).hexdigest())


def release(image: bytes) -> str:
    """The kernel's release, from the header of a bzImage."""
    at = struct.unpack_from("<H", image, _RELEASE)[0] + 0x200
    return image[at : image.index(b"\0", at)].split()[0].decode("ascii")


def _unpacked(image: bytes, path: Path) -> bytes:
    """The kernel's ELF file in a bzImage. The length follows the compressed stream."""
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    at = (image[_SETUP_SECTORS] + 1) * 512 + offset
    payload = image[at : at + length]
    for magic, command in _COMPRESSED.items():
        if payload.startswith(magic):
            return subprocess.run(command, input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
    raise ValueError(
        f"the compression of {path} is none of " + ", ".join(command[0] for command in _COMPRESSED.values())
    )
