#!/usr/bin/env python3
# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the prover finds mistakes in the C. Each mistake below is made in a copy of the sources, one at a time.
After compilation the property that it violates must not be proved of the named program. Most of the mistakes allow the
operation after an internal error. seeds.py makes others in instructions.

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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from btf import hooks
from kernels import KERNELS, kernel_types
from prove import prove, prover
from submitted import ROOT, programs

SOURCES = ROOT / "bpf"


class Mistake(NamedTuple):
    """A mistake. ``old``: a part of the source that occurs once."""

    property: str
    what: str
    program: str
    file: str
    old: str
    new: str


class Result(NamedTuple):
    """Whether a mistake was found, and what shows it."""

    found: bool
    lines: list[str]
    seconds: float


MISTAKES = (
    Mistake(
        "closed",
        "a task leaves its service if its rules cannot be computed",
        "file_permission__identity",
        "decision/identity.h",
        "	if (!compute_subject(gen, t))\n		return 1;\n	return refuse_change(gen, t, change, named, d);",
        "	if (!compute_subject(gen, t))\n		return 0;\n	return refuse_change(gen, t, change, named, d);",
    ),
    Mistake(
        "closed",
        "a task leaves its service if the rules that it loses cannot be computed",
        "file_permission__identity",
        "decision/identity.h",
        "	if (!rules_lost(gen, t, change, &lost))\n		return 1;",
        "	if (!rules_lost(gen, t, change, &lost))\n		return 0;",
    ),
    Mistake(
        "audit",
        "a task does not leave its service, although only a rule in audit mode is lost",
        "file_permission__identity",
        "decision/identity.h",
        "		return 0;\n	return emit_file(gen, &o, d);",
        "		return 0;\n	emit_file(gen, &o, d);\n	return 1;",
    ),
    Mistake(
        "binding",
        "the rules of a set that cannot be read do not bind",
        "task_alloc",
        "subject/subject.h",
        "	return guard_bind(gen->slot, exe, t) || guard_select(gen->slot, t);",
        "	if (guard_bind(gen->slot, exe, t))\n		return -1;\n	guard_select(gen->slot, t);\n	return 0;",
    ),
    Mistake(
        "closed",
        "an object without a state is allowed",
        "inode_setxattr",
        "decision/file.h",
        "	o.reason = at->reason;\n	if (at->reason == GUARD_BY_RULE) {",
        "	o.reason = at->reason;\n	if (at->reason != GUARD_BY_RULE)\n"
        "		return 0;\n	if (at->reason == GUARD_BY_RULE) {",
    ),
    Mistake(
        "closed",
        "a missing state is allowed",
        "inode_readlink",
        "decision/file.h",
        "			o.reason = GUARD_BROKEN_MAP;\n	}\n#pragma unroll\n	for",
        "			return 0;\n	}\n#pragma unroll\n	for",
    ),
    Mistake(
        "closed",
        "a rename is decided by the source alone",
        "inode_rename",
        "decision/file.h",
        "move->source.reason ? move->source.reason : move->target.reason;",
        "move->source.reason;",
    ),
    Mistake(
        "closed",
        "a rename of an object without a state is allowed",
        "inode_rename",
        "decision/file.h",
        "	return refuse_move(&gen, subject, &move, from, to);",
        "	if (move.source.reason && !move.target.reason)\n		return 0;\n"
        "	return refuse_move(&gen, subject, &move, from, to);",
    ),
    Mistake(
        "closed",
        "a file without a state is not decided about",
        "file_mprotect",
        "decision/file.h",
        "	if (own)\n		return refuse_place",
        "	if (at.reason)\n		return 0;\n	if (own)\n		return refuse_place",
    ),
    Mistake(
        "closed",
        "a component that could not be looked up keeps the state",
        "unix_stream_connect",
        "object/path.h",
        "			if (next < 0)\n				return GUARD_BROKEN_MAP;",
        "			if (next < 0)\n				return GUARD_BY_RULE;",
    ),
    Mistake(
        "closed",
        "a path that is too deep has the state of its root",
        "inode_setxattr",
        "object/path.h",
        "		return -left;\n",
        "		return GUARD_BY_RULE;\n",
    ),
    Mistake(
        "closed",
        "without the table of filesystems a path has the state of its root",
        "inode_setxattr",
        "object/path.h",
        "	inner = INNER_OF(superblocks, slot);\n	if (!inner)\n		return GUARD_BROKEN_MAP;",
        "	inner = INNER_OF(superblocks, slot);\n	if (!inner)\n		return GUARD_BY_RULE;",
    ),
    Mistake(
        "closed",
        "an abstract name that could not be looked up has the state of its root",
        "unix_stream_connect",
        "decision/unix.h",
        "	if (next < 0)\n		return;\n",
        "	if (next < 0)\n		next = 0;\n",
    ),
    Mistake(
        "closed",
        "an endpoint whose rules could not be determined is allowed",
        "socket_bind",
        "decision/endpoint.h",
        "		relevant = compute_endpoint_actions(&copy, e);\n",
        "		relevant = compute_endpoint_actions(&copy, e);\n	if (relevant == ~0U)\n		return 0;\n",
    ),
    Mistake(
        "closed",
        "without its table a join is covered by no rule",
        "socket_setsockopt",
        "object/endpoint.h",
        "			return -1;\n		plain = sets_of(table, GUARD_ID_RANGE, e->range);",
        "			return 0;\n		plain = sets_of(table, GUARD_ID_RANGE, e->range);",
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
        "an object with a missing state is not protected",
        "inode_create__tamper",
        "decision/protection.h",
        "	if (!s)\n		return 1;\n	if (above)",
        "	if (!s)\n		return 0;\n	if (above)",
    ),
    Mistake(
        "closed",
        "a task that a rule denies may modify the enforcer",
        "inode_create__tamper",
        "decision/protection.h",
        "	if (!is_initial_root(bpf_get",
        "	o->verdict = GUARD_ALLOW;\n	if (!is_initial_root(bpf_get",
    ),
    Mistake(
        "closed",
        "a task whose rules could not be computed may modify the enforcer",
        "bpf_map__tamper",
        "decision/protection.h",
        "	if (!subject || !p)\n		return 0;\n	guard_verdict",
        "	if (!subject || !p)\n		return 1;\n	guard_verdict",
    ),
    Mistake(
        "closed",
        "a file without a state gives no label",
        "inode_readlink__label",
        "label/flow.h",
        "at->reason != GUARD_BY_RULE)\n		return named;",
        "at->reason != GUARD_BY_RULE)\n		return 0;",
    ),
    Mistake(
        "closed",
        "a missing state gives no label",
        "inode_getxattr__label",
        "label/flow.h",
        "	return s ? s->labels : named;",
        "	return s ? s->labels : 0;",
    ),
    Mistake(
        "audit",
        "a label that was stored is denied",
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
        "without the table of users no rule binds",
        "sb_remount",
        "subject/subject.h",
        "	table = INNER_OF(ids, slot);\n	if (!table)\n		return -1;",
        "	table = INNER_OF(ids, slot);\n	if (!table)\n		return 0;",
    ),
    Mistake(
        "closed",
        "a service that could not be looked up counts as none",
        "sb_remount",
        "subject/subject.h",
        "	}\n	return state;\n}\n\n#define NEVER_LEFT",
        "	}\n	return state < 0 ? 0 : state;\n}\n\n#define NEVER_LEFT",
    ),
    Mistake(
        "closed",
        "a service that was left and could not be looked up counts as none",
        "sb_remount",
        "subject/subject.h",
        "	}\n	return state;\n}\n\n/* The automaton state of the executable",
        "	}\n	return state < 0 ? 0 : state;\n}\n\n/* The automaton state of the executable",
    ),
    Mistake(
        "returns",
        "an operation that an earlier LSM denied is allowed",
        "sb_remount",
        "hooks/machine.h",
        "sb_remount, struct super_block *sb, void *options, int ret)\n{\n	if (ret)\n		return ret;",
        "sb_remount, struct super_block *sb, void *options, int ret)\n{\n	if (ret)\n		return 0;",
    ),
    Mistake(
        "once",
        "the active generation is looked up twice",
        "inode_link__tamper",
        "hooks/tamper.h",
        "refuse_tamper(&gen, from, 0, GUARD_LINK) || refuse_tamper(&gen, to, 0, GUARD_LINK)",
        "refuse_tamper_by_privileged(from, 0, GUARD_LINK) || refuse_tamper_by_privileged(to, 0, GUARD_LINK)",
    ),
)


def made(mistake: Mistake, folder: Path) -> bytes:
    """The object with the mistake in it. Raises ValueError when the source does not have the part to change."""
    sources = folder / "bpf"
    shutil.copytree(SOURCES, sources)
    source = sources / mistake.file
    text = source.read_text(encoding="utf-8")
    if text.count(mistake.old) != 1:
        raise ValueError(f"the mistake '{mistake.what}' changes nothing in {mistake.file}")
    source.write_text(text.replace(mistake.old, mistake.new), encoding="utf-8")
    target = folder / "guard.bpf.o"
    subprocess.run(["make", "-s", "-C", str(sources), f"OBJECT={target}", str(target)], check=True)
    return target.read_bytes()


def examine(task: tuple[Mistake, str]) -> Result:
    """Compiles and examines one mistake, for one kernel."""
    mistake, kernel = task
    started, types = time.monotonic(), kernel_types(kernel)
    with tempfile.TemporaryDirectory() as folder:
        data = made(mistake, Path(folder))
    program = programs(types, data)[mistake.program]
    after = prove(prover(data), program, hooks(types.btf)[program.submitted.hook])
    reason = after.reasons.get(mistake.property)
    lines = [reason, *after.shown.get(mistake.property, ())] if reason and mistake.property in after.shown else []
    return Result(bool(lines), lines, time.monotonic() - started)


def main() -> int:
    """Exit status 1 when a mistake is not found."""
    parser = argparse.ArgumentParser(description="Makes mistakes in the C, which have to be found.")
    parser.add_argument("--kernel", default=KERNELS[0], choices=KERNELS)
    parser.add_argument("--only", default="", help="only mistakes with this text in their description")
    options = parser.parse_args()
    chosen = [mistake for mistake in MISTAKES if options.only in mistake.what]
    started, found = time.monotonic(), 0
    with multiprocessing.Pool(2) as pool:
        results = pool.imap(examine, [(mistake, options.kernel) for mistake in chosen])
        for mistake, result in zip(chosen, results):
            found += result.found
            text = f"found: {result.lines[0]}" if result.found else "NOT FOUND"
            print(f"{mistake.property:8} {mistake.program}: {mistake.what}: {text}; {result.seconds:.0f} s", flush=True)
    print(f"{found} of {len(chosen)} mistakes in the C found; {time.monotonic() - started:.0f} s")
    return 0 if found == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
