# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only code that needs BCC (Debian: python3-bpfcc).

It compiles bpf/observer/observe.bcc.c with the running kernel's headers and attaches the programs. They and their maps
belong to the process."""

from __future__ import annotations

import os
import platform
from typing import Protocol

from .._guard.errors import EnforcerError

ENTRIES = 32768  # the size of each map: subjects, objects, and pairs of them
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


class Attached(Protocol):
    """Attached programs: bcc.BPF."""

    def cleanup(self) -> None:
        """Detaches them and closes the maps."""


def source(layout: str, programs: str, itself: int) -> str:
    """The text to compile. ``layout``: bpf/observer/observe.h; ``programs``: observe.bcc.c beside it.

    ``itself``: the id of the process that is not observed."""
    head = [f"#include <{name}>" for name in HEADERS]
    head += ["#define OBSERVE_PROGRAMS", f"#define OBSERVE_ENTRIES {ENTRIES}", f"#define OBSERVE_SELF {itself}"]
    return "\n".join(head) + "\n" + layout + programs


def check(modules: str = "/lib/modules") -> None:
    """Checks that this host has BCC and the kernel's headers. Raises EnforcerError."""
    try:
        import bcc
    except (ImportError, OSError) as error:
        raise EnforcerError(
            f"python3-bpfcc is not installed for this Python ({error})",
            "Install Debian's package python3-bpfcc; not `bcc` from PyPI, which is another program",
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
            f"Install the package linux-headers-{release}, or boot a kernel whose headers are installed",
        )


def load(text: str) -> tuple[Attached, dict[str, int]]:
    """Compiles and attaches the programs. Raises EnforcerError.

    Returns the object that keeps them attached, and the descriptors of its maps."""
    import bcc

    output = os.memfd_create("bcc")  # the compiler writes to stderr from C
    saved = os.dup(2)
    os.dup2(output, 2)
    try:
        attached = bcc.BPF(text=text.encode("utf-8"), cflags=["-Wno-everything"])
    except Exception as error:  # BCC raises Exception itself
        tail = os.pread(output, 1 << 20, 0).decode("utf-8", "replace").strip().splitlines()[-6:]
        log = "; BCC says: " + " | ".join(tail) if tail else ""
        raise EnforcerError(
            f"the observer's programs cannot be compiled, or the kernel refuses them: {error}{log}",
            f"Check that python3-bpfcc and the headers fit the kernel {platform.release()}",
        ) from error
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(output)
    return attached, {name: attached[name.encode()].map_fd for name in MAPS}


def release(attached: Attached) -> None:
    """Detaches the programs."""
    attached.cleanup()
