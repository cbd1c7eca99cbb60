# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs precompiled .pyc files, because compiling the modules dominated the run time of a no-change run.

The files are of the kind in PEP 552 that carries a hash of the source. Python compares it at each import, so a modified
module is never ignored."""

from __future__ import annotations

import importlib.util
import marshal
import sys
from typing import Mapping

_CHECKED = 0b11  # PEP 552: has the hash of the source, which Python checks at each import
_VERSION = 2  # of the marshal format; later versions write references, which differ between runs


def compiled(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The compiled modules among ``files``: the path where this Python looks for them -> content.

    The same source gives the same bytes. A module that cannot be written in this format is left out; Python compiles it
    at each import. So is the package's first module, which Python itself loads: its loader reads the others."""
    result = {}
    for path, source in files.items():
        if not path.endswith(".py") or path.endswith("/exfil_guard/__init__.py"):
            continue
        try:
            code = marshal.dumps(compile(source, path, "exec", dont_inherit=True), _VERSION)
        except (SyntaxError, ValueError):  # Python 3.14 has constants that this version of the format does not support
            continue
        folder, _unused, name = path[: -len(".py")].rpartition("/")
        result[f"{folder}/__pycache__/{name}.{sys.implementation.cache_tag}.pyc"] = (
            importlib.util.MAGIC_NUMBER + _CHECKED.to_bytes(4, "little") + importlib.util.source_hash(source) + code
        )
    return result
