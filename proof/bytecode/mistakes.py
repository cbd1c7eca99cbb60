#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Would a mistake in the C be found? Each of these is made in a copy of the sources, one at a time, which is compiled;
what it goes against must not be proved any more of the program named. They are about the rules of properties.py: most
of them end an internal error open, in one line. seeds.py puts others into instructions.

    mistakes.py [--kernel 6.1] [--only TEXT]"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
from btf import hooks
from prove import prove, prover
from submitted import KERNELS, ROOT, kernel_types, programs

SOURCES = ROOT / "bpf"


class Mistake(NamedTuple):
    """``old``: a piece of the source that occurs once."""

    property: str
    what: str
    program: str
    file: str
    old: str
    new: str


class Looked(NamedTuple):
    found: bool
    lines: list[str]
    seconds: float


MISTAKES = (
    Mistake(
        "closed",
        "an object that could not be placed is allowed",
        "inode_setxattr",
        "decision/file.h",
        "	o.reason = at->reason;\n	if (at->reason == GUARD_BY_RULE) {",
        "	o.reason = at->reason;\n	if (at->reason != GUARD_BY_RULE)\n"
        "		return 0;\n	if (at->reason == GUARD_BY_RULE) {",
    ),
    Mistake(
        "closed",
        "a state that is missing is allowed",
        "inode_readlink",
        "decision/file.h",
        "			o.reason = GUARD_BROKEN_MAP;\n	}\n	for",
        "			return 0;\n	}\n	for",
    ),
    Mistake(
        "closed",
        "a new name is judged by where the old one was alone",
        "inode_rename",
        "decision/file.h",
        "move->source.reason ? move->source.reason : move->target.reason;",
        "move->source.reason;",
    ),
    Mistake(
        "closed",
        "a rename of what could not be placed is allowed",
        "inode_rename",
        "decision/file.h",
        "	return refuse_move(&gen, subject, &move, from, to);",
        "	if (move.source.reason && !move.target.reason)\n		return 0;\n"
        "	return refuse_move(&gen, subject, &move, from, to);",
    ),
    Mistake(
        "closed",
        "a file that could not be placed is not asked about",
        "file_mprotect",
        "decision/file.h",
        "	if (own)\n		return refuse_place",
        "	if (at.reason)\n		return 0;\n	if (own)\n		return refuse_place",
    ),
    Mistake(
        "closed",
        "a component that could not be looked up leaves the state",
        "unix_stream_connect",
        "object/path.h",
        "			if (next < 0)\n				return GUARD_BROKEN_MAP;",
        "			if (next < 0)\n				return GUARD_BY_RULE;",
    ),
    Mistake(
        "closed",
        "a path that is too deep is at its root",
        "inode_setxattr",
        "object/path.h",
        "		return -left;\n",
        "		return GUARD_BY_RULE;\n",
    ),
    Mistake(
        "closed",
        "without the table of filesystems a path is at its root",
        "inode_setxattr",
        "object/path.h",
        "	inner = INNER_OF(superblocks, slot);\n	if (!inner)\n		return GUARD_BROKEN_MAP;",
        "	inner = INNER_OF(superblocks, slot);\n	if (!inner)\n		return GUARD_BY_RULE;",
    ),
    Mistake(
        "closed",
        "an abstract name that could not be looked up is at its root",
        "unix_stream_connect",
        "decision/unix.h",
        "	if (next < 0)\n		return;\n",
        "	if (next < 0)\n		next = 0;\n",
    ),
    Mistake(
        "closed",
        "an endpoint of which nobody knows what covers it is allowed",
        "socket_bind",
        "decision/endpoint.h",
        "		relevant = compute_endpoint_actions(&copy, e);\n",
        "		relevant = compute_endpoint_actions(&copy, e);\n	if (relevant == ~0U)\n		return 0;\n",
    ),
    Mistake(
        "closed",
        "an endpoint that could not be read is allowed",
        "socket_setsockopt",
        "decision/endpoint.h",
        "	if (o->reason != GUARD_BY_RULE)\n		return allowed(gen, subject, 0, o);",
        "	if (o->reason != GUARD_BY_RULE)\n		return 1;",
    ),
    Mistake(
        "closed",
        "without the table of devices every device is allowed",
        "file_open__device",
        "decision/action.h",
        "	if (!inner)\n		return 1;\n	key.device",
        "	if (!inner)\n		return 0;\n	key.device",
    ),
    Mistake(
        "closed",
        "nothing is protected where a state is missing",
        "inode_create__tamper",
        "decision/protection.h",
        "	if (!s)\n		return 1;\n	if (above)",
        "	if (!s)\n		return 0;\n	if (above)",
    ),
    Mistake(
        "closed",
        "who is bound may touch what enforces",
        "inode_create__tamper",
        "decision/protection.h",
        "	if (!is_initial_root(bpf_get",
        "	o->verdict = GUARD_ALLOW;\n	if (!is_initial_root(bpf_get",
    ),
    Mistake(
        "closed",
        "nobody knows who acts, so that it may touch what enforces",
        "bpf_map__tamper",
        "decision/protection.h",
        "	if (!subject || !p)\n		return 0;\n	guard_verdict",
        "	if (!subject || !p)\n		return 1;\n	guard_verdict",
    ),
    Mistake(
        "closed",
        "a file that could not be placed gives no label",
        "inode_readlink__label",
        "label/flow.h",
        "at->reason != GUARD_BY_RULE)\n		return named;",
        "at->reason != GUARD_BY_RULE)\n		return 0;",
    ),
    Mistake(
        "closed",
        "a state that is missing gives no label",
        "inode_getxattr__label",
        "label/flow.h",
        "	return s ? s->labels : named;",
        "	return s ? s->labels : 0;",
    ),
    Mistake(
        "audit",
        "a label that was remembered is refused",
        "inode_readlink__label",
        "label/flow.h",
        "	return labels && !label_current_task(&l, labels) && refuse_unlabelled(&gen, GUARD_READ, d);",
        "	return labels && label_current_task(&l, labels) && refuse_unlabelled(&gen, GUARD_READ, d);",
    ),
    Mistake(
        "binding",
        "rules of a set that could not be looked up do not bind",
        "sb_remount",
        "subject/subject.h",
        "		if (guard_join(slot, guard_lowest(sets), !!(binding & sets), !!(freeing & sets), t))\n"
        "			return -1;\n",
        "		guard_join(slot, guard_lowest(sets), !!(binding & sets), !!(freeing & sets), t);\n",
    ),
    Mistake(
        "binding",
        "without the table of users nobody is bound",
        "sb_remount",
        "subject/subject.h",
        "	table = INNER_OF(ids, slot);\n	if (!table)\n		return -1;",
        "	table = INNER_OF(ids, slot);\n	if (!table)\n		return 0;",
    ),
    Mistake(
        "closed",
        "a service that could not be looked up is none",
        "sb_remount",
        "subject/subject.h",
        "	}\n	return state;\n}",
        "	}\n	return state < 0 ? 0 : state;\n}",
    ),
    Mistake(
        "returns",
        "what an LSM before it refused is allowed",
        "sb_remount",
        "hooks/machine.h",
        "sb_remount, struct super_block *sb, void *options, int ret)\n{\n	if (ret)\n		return ret;",
        "sb_remount, struct super_block *sb, void *options, int ret)\n{\n	if (ret)\n		return 0;",
    ),
    Mistake(
        "once",
        "a second look at which generation is in force",
        "inode_link__tamper",
        "hooks/tamper.h",
        "refuse_tamper(&gen, from, 0, GUARD_LINK) || refuse_tamper(&gen, to, 0, GUARD_LINK)",
        "refuse_tamper_by_privileged(from, 0, GUARD_LINK) || refuse_tamper_by_privileged(to, 0, GUARD_LINK)",
    ),
)


def made(mistake: Mistake, folder: Path) -> bytes:
    """The object with the mistake in it. Raises ValueError when there is nothing to change any more."""
    sources = folder / "bpf"
    shutil.copytree(SOURCES, sources)
    source = sources / mistake.file
    text = source.read_text(encoding="utf-8")
    if text.count(mistake.old) != 1:
        raise ValueError(f"the mistake '{mistake.what}' is no longer a change of {mistake.file}")
    source.write_text(text.replace(mistake.old, mistake.new), encoding="utf-8")
    target = folder / "guard.bpf.o"
    subprocess.run(["make", "-s", "-C", str(sources), f"OBJECT={target}", str(target)], check=True)
    return target.read_bytes()


def look_at(task: tuple[Mistake, str]) -> Looked:
    mistake, kernel = task
    started, types = time.monotonic(), kernel_types(kernel)
    with tempfile.TemporaryDirectory() as folder:
        data = made(mistake, Path(folder))
    program = programs(types, data)[mistake.program]
    after = prove(prover(data), program, hooks(types.btf)[program.submitted.hook])
    reason = after.reasons.get(mistake.property)
    lines = [reason, *after.shown.get(mistake.property, ())] if reason and mistake.property in after.shown else []
    return Looked(bool(lines), lines, time.monotonic() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes mistakes in the C, which have to be found.")
    parser.add_argument("--kernel", default=KERNELS[0], choices=KERNELS)
    parser.add_argument("--only", default="", help="those of which this is said")
    options = parser.parse_args()
    chosen = [each for each in MISTAKES if options.only in each.what]
    started, found = time.monotonic(), 0
    with multiprocessing.Pool(2) as pool:
        for mistake, looked in zip(chosen, pool.imap(look_at, [(each, options.kernel) for each in chosen])):
            found += looked.found
            said = f"found: {looked.lines[0]}" if looked.found else "NOT FOUND"
            print(f"{mistake.property:8} {mistake.program}: {mistake.what}: {said}; {looked.seconds:.0f} s", flush=True)
    print(f"{found} of {len(chosen)} mistakes in the C found; {time.monotonic() - started:.0f} s")
    return 0 if found == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
