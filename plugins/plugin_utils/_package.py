# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the package for the hosts: a zip file whose names are the paths on the host. Equal files give equal bytes.
Private to this collection."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import os
import zipfile

from ansible_collections.exfil.guard.plugins.module_utils._guard import layout

COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIBRARY = layout.LIBRARY
UNITS = "/etc/systemd/system"
PYTHON = "plugins/module_utils/_guard"
FILES = "roles/enforcer/files"


def files(collection: str = COLLECTION) -> dict[str, bytes]:
    """The content of each file by its path on the host, without the file PACKAGE."""
    contents = {}
    source = os.path.join(collection, PYTHON)
    for folder, _unused, names in os.walk(source):
        for name in names:
            if name.endswith(".py"):
                path = os.path.relpath(os.path.join(folder, name), source)
                contents[f"{LIBRARY}/exfil_guard/{path}"] = _read(source, path)
    for name in ("guard.bpf.o", "proved.json"):
        contents[f"{LIBRARY}/{name}"] = _read(collection, FILES, name)
    for name in (layout.CANARY_DENIED, layout.CANARY_ALLOWED):
        contents[f"{layout.CANARY_FOLDER}/{name}"] = layout.CANARY_CONTENT
    contents["/usr/sbin/exfil-guard"] = _read(collection, FILES, "exfil-guard")
    for name in ("exfil-guard-boot.service", "exfil-guard-refresh.service", "exfil-guard-refresh.timer"):
        contents[f"{UNITS}/{name}"] = _read(collection, FILES, name)
    return contents


def _read(*parts: str) -> bytes:
    with open(os.path.join(*parts), "rb") as file:
        return file.read()


def digest(collection: str = COLLECTION) -> str:
    """The digest of the package, without building it."""
    return hashlib.sha256(_listed(files(collection))).hexdigest()


def _listed(contents: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(contents[path]).hexdigest()}  {path}\n" for path in sorted(contents)).encode(
        "ascii"
    )


@functools.lru_cache(maxsize=None)
def build(collection: str = COLLECTION) -> tuple[str, bytes]:
    """The digest of the package, and the zip file."""
    contents = files(collection)
    listed = _listed(contents)
    contents[LIBRARY + "/PACKAGE"] = listed
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(contents):
            archive.writestr(
                zipfile.ZipInfo(path.lstrip("/"), (1980, 1, 1, 0, 0, 0)), contents[path], zipfile.ZIP_DEFLATED
            )
    return hashlib.sha256(listed).hexdigest(), buffer.getvalue()


def encoded(collection: str = COLLECTION) -> str:
    """The zip file in Base64, as a module parameter."""
    return base64.b64encode(build(collection)[1]).decode("ascii")
