# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What user space shares with the kernel side: the other half of bpf/layout.h, compared with it by a test."""

from __future__ import annotations

import struct


LAYOUT = 1
RULES = 512
WORDS = 9
SETS = 64
CANARY_SET = 63
SLOTS = 3
NO_SLOT = 0xFFFFFFFF
DEPTH = 64
COMPONENT = 36
NAME = 96
PATH = 512
CANARY_USER = 4294967293

READ, WRITE, EXECUTE, CONNECT, SEND = range(5)
LINK, RENAME = 6, 7
ACTION_SLOTS = 8
REASONS = ("rule", "no-chain", "too-deep", "unknown-filesystem", "unstable", "broken-map")
ID_USER, ID_LOGIN, ID_GROUP, ID_PROTOCOL = range(4)
USES_GROUPS, USES_SERVICES, USES_EXECUTABLES, USES_LOGIN = 1, 2, 4, 8

VECTOR = struct.Struct("<%dQ" % WORDS)
RECORD = struct.Struct("<QQQII")  # generation, deadline, fallback generation, slot, fallback slot
POLICY = struct.Struct("<%dQ8QII" % (WORDS * (3 + ACTION_SLOTS)))
SUBJECT = struct.Struct("<%dQ" % (2 * WORDS))
DESTINATION = struct.Struct("<%dQ" % (2 * WORDS))
ID_KEY = struct.Struct("<II")
IPV4_KEY = struct.Struct("<I4s")
IPV6_KEY = struct.Struct("<I16s")
PORT_KEY = struct.Struct("<I2s2x")
STATE = struct.Struct("<IIQQ%dQ" % (3 * WORDS))
EDGE_KEY = struct.Struct("<I%ds" % COMPONENT)
BYTES = struct.Struct("<II256H")
RULE = struct.Struct("<Q%ds" % NAME)
