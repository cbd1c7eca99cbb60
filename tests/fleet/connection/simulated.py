# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to a simulated host: local, until the host is down."""

from __future__ import annotations

DOCUMENTATION = """
name: simulated
short_description: To a simulated host
description:
  - Local, as long as the host's folder holds no file C(down). C(dies) holds after how many commands the host goes down,
    C(kills) after how many the controller is killed.
options:
  folder:
    description: The host's folder.
    vars:
      - name: simulated_folder
"""

import os
import signal

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local


class Connection(Local):
    transport = "simulated"

    def exec_command(self, *arguments, **options):
        folder = self.get_option("folder")
        if self._counted(folder, "dies"):
            with open(os.path.join(folder, "down"), "w", encoding="ascii"):
                pass
        if self._counted(folder, "kills"):
            os.kill(os.getppid(), signal.SIGKILL)  # Ansible, of which this is a worker
            os.kill(os.getpid(), signal.SIGKILL)
        if os.path.exists(os.path.join(folder, "down")):
            raise AnsibleConnectionFailure("no route to host")
        return super().exec_command(*arguments, **options)

    @staticmethod
    def _counted(folder, name):
        """Whether this is the command that the file of this name waits for."""
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            return False
        with open(path, encoding="ascii") as file:
            left = int(file.read())
        if not left:
            os.unlink(path)
            return True
        with open(path, "w", encoding="ascii") as file:
            file.write(str(left - 1))
        return False
