# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:  # private to this collection
    DOCUMENTATION = r"""
options: {}
requirements:
  - Python 3.8 or newer, systemd and libbpf 1.x on the host
  - Linux 6.1 or newer with the BPF LSM and cgroup v2 on the host
notes:
  - Needs root on the host, with C(become=true).
attributes:
  check_mode:
    description: Can run in check mode. Reports exactly what a run would change.
    support: full
  platform:
    description: The supported hosts.
    platforms: posix
    support: full
"""

    STATE = r"""
options: {}
attributes:
  diff_mode:
    description: Returns the changes line by line, in check mode the changes that a run would make.
    support: full
  idempotent:
    description: A second run with the same arguments changes nothing.
    support: full
"""

    INFO = r"""
options: {}
attributes:
  diff_mode:
    description: Returns the changes line by line, in check mode the changes that a run would make.
    support: N/A
    details: This module changes nothing.
  idempotent:
    description: A second run with the same arguments changes nothing.
    support: full
"""
