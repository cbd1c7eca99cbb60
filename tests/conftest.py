# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection is imported by its name, from the folder of links in the repository."""

import os
import sys

COLLECTIONS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "collections")
if COLLECTIONS not in sys.path:
    sys.path.insert(0, COLLECTIONS)
PROPERTY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "property")
if PROPERTY not in sys.path:
    sys.path.insert(0, PROPERTY)  # the strategies and the model are shared

from hypothesis import HealthCheck, settings

# HYPOTHESIS_PROFILE=long tries a hundred times as many cases
for _name, _examples in (("default", 150), ("long", 15000)):
    settings.register_profile(_name, max_examples=_examples, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
