# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is installed on a host, as one zip whose names are the paths there. The same files give the same bytes.
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
HELD_BACK = ("sysinit.target", "networking.service", "ifup@.service", "systemd-networkd.service")
PYTHON = "plugins/module_utils/_guard"
FILES = "roles/enforcer/files"


def files(collection: str = COLLECTION) -> dict[str, bytes]:
    """Path on the host -> content, PACKAGE not among them."""
    found = {}
    source = os.path.join(collection, PYTHON)
    for folder, _, names in os.walk(source):
        for name in names:
            if name.endswith(".py"):
                path = os.path.relpath(os.path.join(folder, name), source)
                found[f"{LIBRARY}/exfil_guard/{path}"] = _read(source, path)
    for name in ("guard.bpf.o", "proved.json"):
        found[f"{LIBRARY}/{name}"] = _read(collection, FILES, name)
    for name in (layout.CANARY_DENIED, layout.CANARY_ALLOWED):
        found[f"{layout.CANARY_FOLDER}/{name}"] = layout.CANARY_CONTENT
    found["/usr/sbin/exfil-guard"] = _read(collection, FILES, "exfil-guard")
    for name in ("exfil-guard-boot.service", "exfil-guard-refresh.service", "exfil-guard-refresh.timer"):
        found[f"{UNITS}/{name}"] = _read(collection, FILES, name)
    for unit in HELD_BACK:
        found[f"{UNITS}/{unit}.d/exfil-guard.conf"] = _read(collection, FILES, "exfil-guard-require.conf")
    return found


def _read(*parts: str) -> bytes:
    with open(os.path.join(*parts), "rb") as file:
        return file.read()


def digest(collection: str = COLLECTION) -> str:
    """The package's digest, without building it."""
    return hashlib.sha256(_listed(files(collection))).hexdigest()


def _listed(contents: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(contents[path]).hexdigest()}  {path}\n" for path in sorted(contents)).encode(
        "ascii"
    )


@functools.lru_cache(maxsize=None)
def build(collection: str = COLLECTION) -> tuple[str, bytes]:
    """The package's digest and the zip."""
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
    """The zip as a module's parameter."""
    return base64.b64encode(build(collection)[1]).decode("ascii")
