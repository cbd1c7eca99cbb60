# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The target side of exfil.guard: one file for each step from a policy document to a denial in the kernel.

The installed package brings its own loader. Python itself fails if a compiled module is truncated, and waits for ever
if it is a pipe; then a damaged file that nobody needs would keep the policy from coming into force."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from types import CodeType


class _Loader(importlib.machinery.SourceFileLoader):
    """Ignores a compiled module that it cannot use, and compiles the source."""

    def get_data(self, path: str) -> bytes:
        if not os.path.isfile(path):
            raise OSError(f"{path} is not a file")
        return super().get_data(path)

    def get_code(self, fullname: str) -> CodeType | None:
        try:
            return super().get_code(fullname)
        except (EOFError, ImportError, TypeError, ValueError):
            return self.source_to_code(self.get_data(self.path), self.path)


def _finder(folder: str) -> importlib.machinery.FileFinder:
    """Finds modules in the package's own directories and in no others."""
    if folder == _HERE or folder.startswith(_HERE + os.sep):
        return importlib.machinery.FileFinder(folder, (_Loader, importlib.machinery.SOURCE_SUFFIXES))
    raise ImportError("not a directory of the package", path=folder)


_HERE = os.path.dirname(os.path.abspath(__file__))
if __name__ == "exfil_guard" and os.path.isdir(_HERE):  # not in a zip file, where nothing is compiled
    sys.path_hooks.insert(0, _finder)
