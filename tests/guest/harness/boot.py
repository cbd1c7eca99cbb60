# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boots one of the kernels into one guest script under QEMU's software emulation and hands back what it printed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterable, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import image

KERNELS = ("6.1", "6.12", "7.2")
COUNTING = ["-accel", "tcg,thread=single", "-icount", "shift=0,align=off,sleep=off"]


class Result(NamedTuple):
    status: int | None  # the script's exit status; None: the guest did not get that far
    output: str  # what the script printed
    console: str  # what the kernel printed


def fetch(kernels: Iterable[str] = KERNELS) -> None:
    script = image.GUEST / "harness" / "fetch"  # newer than what it fetched: it may want other modules by now
    made = [image.CACHE / "guest" / "done", *(image.CACHE / kernel / "wanted" for kernel in kernels)]
    if not all(each.exists() for each in made) or any(
        each.stat().st_mtime < script.stat().st_mtime for each in made[1:]
    ):
        subprocess.run([str(script), *kernels], check=True, stdout=sys.stderr)


def boot(
    kernel: str,
    command: list[str],
    *,
    extra: Iterable[Path] = (),
    sysctl: Iterable[str] = (),
    arguments: str = "",
    counting: bool = False,
    seconds: int = 180,
    memory: int = 512,
    bpf_object: Path | None = None,
) -> Result:
    fetch([kernel])
    with tempfile.TemporaryDirectory(prefix="guest-") as name:
        folder = Path(name)
        more = {} if bpf_object is None else {"bpf_object": bpf_object}
        image.boot_archive(folder / "boot.cpio", kernel, command, extra, sysctl, **more)
        with (folder / "initrd").open("wb") as whole:
            for part in (image.base(), folder / "boot.cpio"):
                whole.write(part.read_bytes())
        qemu = [
            "qemu-system-x86_64",
            *(COUNTING if counting else ["-accel", "tcg"]),
            "-cpu",
            "max",
            "-m",
            str(memory),
            "-smp",
            "1",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-kernel",
            str(image.CACHE / kernel / "vmlinuz"),
            "-initrd",
            str(folder / "initrd"),
            "-append",
            f"console=ttyS0 loglevel=4 panic=-1 nokaslr mitigations=off no_timer_check random.trust_cpu=on {arguments}".strip(),
            *("-device", "virtio-serial-pci", "-chardev", "null,id=port", "-device", "virtserialport,chardev=port"),
            "-serial",
            f"file:{folder}/console",
            "-serial",
            f"file:{folder}/output",
        ]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(qemu, check=True, timeout=seconds, stdin=subprocess.DEVNULL)
        output = (folder / "output").read_text(errors="replace").replace("\r\n", "\n")
        console = (folder / "console").read_text(errors="replace").replace("\r\n", "\n")
    body, _found, last = output.rstrip("\n").rpartition("exit ")
    if (body.endswith("\n") or not body) and last.isdigit():
        return Result(int(last), body, console)
    return Result(None, output, console)
