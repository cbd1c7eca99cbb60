# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parents[1] / "collections"):
    sys.path.insert(0, str(folder))
import browser


@pytest.fixture(scope="module", name="chromium")
def fixture_chromium():
    driver = browser.start()
    yield driver
    driver.quit()
