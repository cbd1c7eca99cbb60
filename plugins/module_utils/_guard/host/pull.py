# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of the last pull, as roles/pull/files/exfil-guard-pull stored it.

It is only reported. Nothing depends on it."""

from __future__ import annotations

import json
from typing import Any

from . import files

RESULT = "/var/lib/exfil-guard-pull/result.json"
_KEYS = ("outcome", "message", "revision", "started", "ended")


def last(path: str = RESULT) -> dict[str, Any] | None:
    """The keys of _KEYS; None if this host does not pull."""
    try:
        result = json.loads(files.read(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        result = {"outcome": "unknown", "message": f"{path} cannot be read: {error}"}
    if not isinstance(result, dict):
        result = {"outcome": "unknown", "message": f"{path} does not contain a result"}
    return {key: result.get(key) for key in _KEYS}
