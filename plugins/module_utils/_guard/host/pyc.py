# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Python makes of the package's modules, kept beside them: compiling them took more of a run that changes nothing
than finding that out. The files are of PEP 552's kind that carries a hash of the source: Python compares it at each
import, so that a module that was edited is never passed over."""

from __future__ import annotations

import importlib.util
import marshal
import sys
from typing import Mapping

_CHECKED = 0b11  # by hash, at each import
_VERSION = 2  # later ones write references, which depend on what else is in memory


def compiled(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Of the ``files`` (path -> content) that are modules: where this Python looks for them compiled -> content. The
    same source gives the same bytes. A module that can't be written down like that is left out: it works all the
    same."""
    found = {}
    for path, source in files.items():
        if not path.endswith(".py"):
            continue
        try:
            code = marshal.dumps(compile(source, path, "exec", dont_inherit=True), _VERSION)
        except (SyntaxError, ValueError):  # Python 3.14 has constants that older versions of the format have not
            continue
        folder, _, name = path[: -len(".py")].rpartition("/")
        found[f"{folder}/__pycache__/{name}.{sys.implementation.cache_tag}.pyc"] = (
            importlib.util.MAGIC_NUMBER + _CHECKED.to_bytes(4, "little") + importlib.util.source_hash(source) + code
        )
    return found
