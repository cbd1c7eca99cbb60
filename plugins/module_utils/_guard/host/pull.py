# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the last pull ended, as roles/pull/files/exfil-guard-pull wrote it down. Only told, never decided by."""

from __future__ import annotations

import json
from typing import Any

RESULT = "/var/lib/exfil-guard-pull/result.json"
_KEYS = ("outcome", "message", "revision", "started", "ended")


def last(path: str = RESULT) -> dict[str, Any] | None:
    """None when this host does not pull."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        found = {"outcome": "unknown", "message": f"{path} can't be read: {error}"}
    if not isinstance(found, dict):
        found = {"outcome": "unknown", "message": f"{path} holds no result"}
    return {key: found.get(key) for key in _KEYS}
