# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to a simulated host: local, until the host is down."""

from __future__ import annotations

DOCUMENTATION = """
name: simulated
short_description: To a simulated host
description: Local, as long as the host's folder holds no file C(down); C(dies) holds after how many commands it goes down.
options:
  folder:
    description: The host's folder.
    vars:
      - name: simulated_folder
"""

import os

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local


class Connection(Local):
    transport = "simulated"

    def exec_command(self, *arguments, **options):
        folder = self.get_option("folder")
        dies = os.path.join(folder, "dies")
        if os.path.exists(dies):
            with open(dies, encoding="ascii") as file:
                left = int(file.read())
            with open(dies if left else os.path.join(folder, "down"), "w", encoding="ascii") as file:
                file.write(str(left - 1))
            if not left:
                os.unlink(dies)
        if os.path.exists(os.path.join(folder, "down")):
            raise AnsibleConnectionFailure("no route to host")
        return super().exec_command(*arguments, **options)
