# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups whose members become root, or read the disk, by something that the group gives them."""

from __future__ import annotations

# group -> the action that it needs, and on which file if the action has one
GROUPS = {
    "sudo": ("execute", "/usr/bin/sudo"),
    "wheel": ("execute", "/usr/bin/sudo"),
    "admin": ("execute", "/usr/bin/sudo"),
    "docker": ("unix-connect", "/run/docker.sock"),
    "podman": ("unix-connect", "/run/podman/podman.sock"),
    "lxd": ("unix-connect", "/var/lib/lxd/unix.socket"),
    "incus-admin": ("unix-connect", "/var/lib/incus/unix.socket"),
    "libvirt": ("unix-connect", "/run/libvirt/libvirt-sock"),
    "disk": ("block-device", ""),
}
