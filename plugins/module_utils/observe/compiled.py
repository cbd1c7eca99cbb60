# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only place that needs BCC (Debian: python3-bpfcc): compiles bpf/observer/observe.bcc.c against the running kernel's
headers and attaches it. Programs and maps go with the process."""

from __future__ import annotations

import os
import platform
from typing import Any

from .._guard.errors import EnforcerError

ENTRIES = 32768  # subjects, objects, and pairs of them, each
HEADERS = (
    "linux/sched.h",
    "linux/cred.h",
    "linux/fs.h",
    "linux/cgroup-defs.h",
    "linux/kernfs.h",
    "linux/net.h",
    "net/sock.h",
    "linux/version.h",
)
MAPS = ("subjects", "objects", "entries", "lost", "listeners", "fresh", "units")


def source(layout: str, programs: str, itself: int) -> str:
    """``layout``: bpf/observer/observe.h; ``programs``: bpf/observer/observe.bcc.c; ``itself``: the process that is not observed."""
    head = [f"#include <{name}>" for name in HEADERS]
    head += ["#define OBSERVE_PROGRAMS", f"#define OBSERVE_ENTRIES {ENTRIES}", f"#define OBSERVE_SELF {itself}"]
    return "\n".join(head) + "\n" + layout + programs


def check(modules: str = "/lib/modules") -> None:
    """Whether this host has what compiling takes. Raises EnforcerError."""
    try:
        import bcc
    except (ImportError, OSError) as error:
        raise EnforcerError(
            f"python3-bpfcc is not installed for this Python ({error})",
            "Install Debian's package python3-bpfcc; not `bcc` from PyPI, which is something else",
        ) from error
    if not hasattr(bcc, "BPF"):
        raise EnforcerError(
            "the Python module `bcc` here is not the BPF Compiler Collection",
            "Remove it, and install Debian's package python3-bpfcc",
        )
    release = platform.release()
    if not os.path.isdir(os.path.join(modules, release, "build")):
        raise EnforcerError(
            f"the headers of the running kernel {release} are not installed",
            f"Install the package linux-headers-{release}, or boot the kernel whose headers there are",
        )


def load(text: str) -> tuple[Any, dict[str, int]]:
    """Attaches everything. Gives what keeps it attached, and the maps' descriptors, which go with that."""
    import bcc

    said = os.memfd_create("bcc")  # the compiler writes to stderr from C
    saved = os.dup(2)
    os.dup2(said, 2)
    try:
        held = bcc.BPF(text=text.encode("utf-8"), cflags=["-Wno-everything"])
    except Exception as error:  # BCC raises Exception itself
        tail = os.pread(said, 1 << 20, 0).decode("utf-8", "replace").strip().splitlines()[-6:]
        raise EnforcerError(
            "the observer's programs cannot be compiled, or the kernel refuses them: {0}{1}".format(
                error, "; BCC says: " + " | ".join(tail) if tail else ""
            ),
            f"Look whether python3-bpfcc and the headers fit the kernel {platform.release()}",
        ) from error
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(said)
    return held, {name: held[name.encode()].map_fd for name in MAPS}


def release(held: Any) -> None:
    """Detaches everything now."""
    held.cleanup()
