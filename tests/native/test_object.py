# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tracked BPF object is what its sources build to, byte for byte, and holds no trace of where it was built."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRACKED = ROOT / "roles" / "enforcer" / "files" / "guard.bpf.o"


OBSERVER = ROOT / "roles" / "observe" / "files" / "observe.bpf.o"


def build(source: Path, target: Path) -> bytes:
    other = target.with_name("observe.bpf.o")
    subprocess.run(["make", "-s", "-C", source, f"OBJECT={target}", f"OBSERVER={other}"], check=True)
    return target.read_bytes()


def test_the_object_is_reproducible(tmp_path):
    elsewhere = tmp_path / "another" / "folder"
    elsewhere.mkdir(parents=True)
    subprocess.run(["cp", "-r", ROOT / "bpf", elsewhere], check=True)
    built = build(elsewhere / "bpf", tmp_path / "guard.bpf.o")
    assert built == TRACKED.read_bytes(), "run `make -C bpf` and commit the object with its sources"
    assert str(ROOT).encode() not in built and str(tmp_path).encode() not in built
    assert (tmp_path / "observe.bpf.o").read_bytes() == OBSERVER.read_bytes()


def test_a_changed_source_is_another_object(tmp_path):
    subprocess.run(["cp", "-r", ROOT / "bpf", tmp_path], check=True)
    layout = tmp_path / "bpf" / "abi" / "layout.h"
    layout.write_text(layout.read_text().replace("#define GUARD_GROUPS 32", "#define GUARD_GROUPS 16"))
    assert build(tmp_path / "bpf", tmp_path / "guard.bpf.o") != TRACKED.read_bytes()
