# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The types and sizes of the enforcer's maps, by name."""

from __future__ import annotations

from .. import layout
from . import types
from .types import ARRAY, ARRAY_OF_MAPS, HASH, INNER_MAP, LPM_TRIE, NO_PREALLOC, MapSpec

SLOTS = layout.SLOTS

# The tables of a generation: inner maps, created with as many entries as the table has.
TABLES: dict[str, MapSpec] = {
    "policy": MapSpec(ARRAY, 4, layout.POLICY.size, 1),
    "subjects": MapSpec(ARRAY, 4, layout.SUBJECT.size, 1, INNER_MAP),
    "destinations": MapSpec(ARRAY, 4, layout.DESTINATION.size, 1, INNER_MAP),
    "ids": MapSpec(HASH, layout.ID_KEY.size, 8, 1),
    "ipv4": MapSpec(LPM_TRIE, layout.IPV4_KEY.size, 8, 1, NO_PREALLOC),
    "ipv6": MapSpec(LPM_TRIE, layout.IPV6_KEY.size, 8, 1, NO_PREALLOC),
    "ports": MapSpec(LPM_TRIE, layout.PORT_KEY.size, 8, 1, NO_PREALLOC),
    "vsock": MapSpec(LPM_TRIE, layout.VSOCK_KEY.size, 8, 1, NO_PREALLOC),
    "devices": MapSpec(HASH, layout.DEVICE_KEY.size, 4, 1),
    "labels": MapSpec(ARRAY, 4, layout.LABEL.size, 1, INNER_MAP),
    "superblocks": MapSpec(HASH, layout.SUPERBLOCK_KEY.size, 4, 1),
    "states": MapSpec(ARRAY, 4, layout.STATE.size, 1, INNER_MAP),
    "edges": MapSpec(HASH, layout.EDGE_KEY.size, 4, 1),
    "bytes": MapSpec(ARRAY, 4, layout.BYTES.size, 1, INNER_MAP),
    "rules": MapSpec(ARRAY, 4, layout.RULE.size, 1, INNER_MAP),
}

RECORD = MapSpec(ARRAY, 4, layout.RECORD.size, 1)
OUTER = MapSpec(ARRAY_OF_MAPS, 4, 4, SLOTS)
CONTROL = MapSpec(ARRAY_OF_MAPS, 4, 4, 1)

# The maps that all generations share. STORAGES are local storage maps; their values may change with the object.
MAPS: dict[str, MapSpec] = dict(
    {name: OUTER for name in TABLES},
    control=CONTROL,
    events=MapSpec(types.RINGBUF, 0, 0, 1 << 20),
    counters=MapSpec(HASH, 8, layout.COUNT.size, 8192),
    totals=MapSpec(ARRAY, 4, layout.TOTALS.size, 1),
    facts=MapSpec(ARRAY, 4, layout.FACTS.size, 1),
    our=MapSpec(HASH, layout.PROTECTED_KEY.size, 4, 1024),
    listeners=MapSpec(ARRAY, 4, 8, 65536 // 64),
    carriers=MapSpec(HASH, 8, layout.TASK_LABEL.size, layout.TASK_LABELS, NO_PREALLOC),
    cells=MapSpec(HASH, layout.LABEL_GROUP_KEY.size, layout.LABEL_GROUP.size, layout.LABEL_GROUPS, NO_PREALLOC),
    wires=MapSpec(HASH, 8, layout.CHANNEL_LABEL.size, layout.CHANNELS, NO_PREALLOC),
    kept=MapSpec(
        HASH, layout.PERSISTENT_LABEL_KEY.size, layout.PERSISTENT_LABEL.size, layout.PERSISTENT_LABELS, NO_PREALLOC
    ),
)

STORAGES = (
    "tasks",
    "former",
    "inodes",
    "spare",
    "blank",
    "known",
    "covered",
    "readings",
    "marked_files",
    "sockets",
    "marks",
)
