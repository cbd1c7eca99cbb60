# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import machines


@pytest.fixture(name="lab")
def fixture_lab(tmp_path):
    """Each test starts from the lab's own policies in force, and nothing on trial."""
    assert machines.SSH_CONFIG.exists(), "the lab is not up: make lab-up"
    found = machines.Lab(tmp_path)
    done = found.playbook("site.yml")
    assert done.code == 0, done.text
    return found
