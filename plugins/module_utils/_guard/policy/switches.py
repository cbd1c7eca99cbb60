# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switches of the kernel with which root leaves a rule or stops enforcement. Self-protection covers them like the
enforcer's own files; see bpf/decision/protection.h. docs/kernel-switches.md has the same table: a test compares it."""

from __future__ import annotations

from typing import NamedTuple


class Switch(NamedTuple):
    """What may not be written. ``paths``: as in a policy; ``reason``: what it does, as one cell of a Markdown table."""

    paths: tuple[str, ...]
    reason: str


TABLE: tuple[Switch, ...] = (
    # a filesystem of the kernel
    Switch(
        ("/proc/sys/kernel/**",),
        "`ftrace_enabled` stops every program of the enforcer. `core_pattern`, `modprobe`, `hotplug`, `poweroff_cmd` "
        "and `usermodehelper` decide what the kernel runs as root, outside every service. `sysrq`, `kexec_*`, "
        "`panic*`, `unprivileged_*`, `yama`, `kptr_restrict` and others decide what else is possible",
    ),
    Switch(("/proc/sysrq-trigger",), "restarts or crashes the machine, ends processes, remounts filesystems"),
    Switch(("/proc/sys/debug/**", "/proc/sys/fs/suid_dumpable"), "kprobes, and whose memory is dumped to a file"),
    Switch(
        ("/proc/sys/net/core/bpf_jit_*",),
        "the BPF compiler, without which no program can be attached any more, and its output",
    ),
    Switch(("/proc/sys/fs/binfmt_misc/**",), "an interpreter for programs that other processes execute"),
    Switch(
        ("/sys/kernel/*", "/sys/kernel/livepatch/**", "/sys/kernel/reboot/**"),
        "`uevent_helper`, which the kernel runs as root; `kexec_*`; patches of the running kernel; how it restarts",
    ),
    Switch(
        ("/sys/module/**",),
        "parameters of modules: helpers that the kernel runs (`nfs`, `nfsd`, `drbd`), the search path of firmware",
    ),
    Switch(("/sys/power/**",), "hibernation, and resuming from an image of the writer's own: another kernel"),
    Switch(
        ("/sys/devices/system/machinecheck/*/trigger",), "a program that the kernel runs as root after a hardware error"
    ),
    Switch(("/sys/kernel/debug/**",), "debugfs: kprobes, injected errors and returns, registers of devices"),
    Switch(("/sys/kernel/tracing/**",), "tracefs: probes that read the memory of the kernel and of every process"),
    Switch(
        ("/sys/kernel/config/**",),
        "configfs: netconsole, which sends the kernel's log; tables of the firmware, with code for the kernel",
    ),
    Switch(("/sys/firmware/efi/efivars/**",), "what the firmware boots"),
    Switch(("/sys/fs/cgroup/release_agent",), "a program that the kernel runs as root (cgroup v1)"),
    # files on disks
    Switch(
        ("/boot/**", "/efi/**", "/etc/default/grub", "/etc/default/grub.d/**", "/etc/grub.d/**", "/etc/kernel/**"),
        "the boot loader, the kernel, its command line and its initramfs: the next boot decides what is in force",
    ),
    Switch(
        (
            "/etc/initramfs-tools/**",
            "/usr/share/initramfs-tools/**",
            "/etc/dracut.conf",
            "/etc/dracut.conf.d/**",
            "/usr/lib/dracut/**",
        ),
        "what is put into the initramfs",
    ),
    Switch(
        (
            "/etc/modprobe.d/**",
            "/run/modprobe.d/**",
            "/usr/lib/modprobe.d/**",
            "/etc/request-key.conf",
            "/etc/request-key.d/**",
            "/usr/share/request-key.d/**",
        ),
        "commands that the kernel's helpers run as root, outside every service: `install` of modprobe, and those of "
        "request-key",
    ),
    Switch(
        (
            "/usr/bin/kmod",
            "/usr/sbin/modprobe",
            "/usr/sbin/request-key",
            "/usr/sbin/bridge-stp",
            "/usr/sbin/nfsdcltrack",
            "/usr/sbin/nfs_cache_getent",
            "/usr/lib/systemd/systemd-coredump",
        ),
        "the helpers that the kernel runs",
    ),
)
PATHS: tuple[str, ...] = tuple(path for switch in TABLE for path in switch.paths)
