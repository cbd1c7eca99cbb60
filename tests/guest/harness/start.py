# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the guest's one script; what it prints goes to the second serial line, apart from the kernel's messages."""

import json
import os
import runpy
import sys
import traceback

with open("/guest/command.json", encoding="ascii") as command:
    sys.argv = json.load(command)
line = os.open("/dev/ttyS1", os.O_WRONLY | os.O_NOCTTY)
os.dup2(line, 1)
os.dup2(line, 2)
status = 0
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    status = end.code if isinstance(end.code, int) else int(bool(end.code))
except BaseException:
    traceback.print_exc()
    status = 1
sys.stdout.flush()
os._exit(status)
