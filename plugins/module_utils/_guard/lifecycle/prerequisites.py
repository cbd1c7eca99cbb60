# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names the prerequisites that a host does not meet, so that a role can install or configure them."""

from __future__ import annotations

from ..kernel.protocol import Kernel
from . import enforcer


def has_bpf_lsm(path: str = "/sys/kernel/btf/vmlinux") -> bool:
    """Whether the kernel is built with the BPF LSM and with BTF. ``path``: the kernel's BTF."""
    try:
        with open(path, "rb") as file:
            return b"\0bpf_lsm_file_open\0" in file.read()
    except OSError:
        return False


def missing(kernel: Kernel) -> list[dict[str, str]]:
    """Each unmet prerequisite as ``name``, ``found`` and ``remedy``. Roles can fix ``libbpf`` and ``lsm``; every
    other one is named ``other``."""
    environment = kernel.environment()
    result = []
    for text, remedy in enforcer.prerequisites(environment):
        name = "other"
        if text.startswith("libbpf"):
            name = "libbpf"
        elif text.startswith("bpf is not among") and environment.lsms:
            name = "lsm"
        result.append({"name": name, "found": text, "remedy": remedy})
    if not has_bpf_lsm():
        result.append(
            {
                "name": "other",
                "found": f"the kernel {environment.release} is built without the BPF LSM or without BTF",
                "remedy": "Boot a kernel with CONFIG_BPF_LSM=y and CONFIG_DEBUG_INFO_BTF=y",
            }
        )
    return result


def wanted_lsms(kernel: Kernel) -> str:
    """The value of the kernel parameter ``lsm=`` that activates bpf beside the security modules active now."""
    return ",".join([name for name in kernel.environment().lsms if name not in ("capability", "bpf")] + ["bpf"])
