# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What user space shares with the kernel side: the other half of bpf/abi/layout.h, compared with it by a test."""

from __future__ import annotations

import struct

LAYOUT = 1
RULES = 512
WORDS = 9
SETS = 64
CANARY_SET = 63
PROTECTED = 575
SLOTS = 3
NO_SLOT = 0xFFFFFFFF
DEPTH = 64
COMPONENT = 36
NAME = 96
PATH = 512
LABELS = 64
LABEL_NAME = 64
CARRIERS, CELLS, WIRES, READERS, KEPT_FILES = 131072, 65536, 65536, 16, 262144
ABSTRACT = 0xFFFFFFFF
CANARY_USER = 4294967293
CANARY_FILE_RULE, CANARY_NETWORK_RULE = "exfil-guard canary: file", "exfil-guard canary: network"
CANARY_ADDRESS = "192.0.2.1"

# Paths on the host. module_utils/_installed.py repeats LIBRARY: it locates the package before it can import it.
LIBRARY = "/usr/lib/exfil-guard"
CANARY_FOLDER = LIBRARY + "/canary"
CANARY_DENIED, CANARY_ALLOWED = "denied", "allowed"  # files in it
CANARY_CONTENT = b"exfil-guard canary\n"

READ, WRITE, EXECUTE, CONNECT, SEND, REPLY, BIND, LISTEN, ACCEPT, UNIX_CONNECT, VSOCK = range(11)
PLAIN, LINK, RENAME, SOCKET = 13, 14, 15, 16
OTHER_SOCKET, RAW_SOCKET, CAPABILITY, ACTIONS = 63, 64, 80, 128
REASON_SLOTS = 16
REASONS = (
    "rule",
    "no-chain",
    "too-deep",
    "unknown-filesystem",
    "unstable",
    "broken-map",
    "no-address",
    "no-label",
    "tamper",
)
ID_USER, ID_LOGIN, ID_GROUP, ID_PROTOCOL, ID_LABEL = range(5)
USES_GROUPS, USES_SERVICES, USES_EXECUTABLES, USES_LOGIN, USES_LABELS = 1, 2, 4, 8, 16
DENIES_LABELS = 32
ANY_MINOR = 0xFFFFF

VECTOR = struct.Struct("<%dQ" % WORDS)
RECORD = struct.Struct("<QQQII")  # generation, deadline, fallback generation, slot, fallback slot
POLICY = struct.Struct("<%dQ9QIIQ" % (WORDS * (4 + ACTIONS)))
SUBJECT = struct.Struct("<%dQ" % (2 * WORDS))
DESTINATION = struct.Struct("<%dQ" % (2 * WORDS))
ID_KEY = struct.Struct("<II")
IPV4_KEY = struct.Struct("<I4s")
IPV6_KEY = struct.Struct("<I16s")
PORT_KEY = struct.Struct("<I2s2x")
VSOCK_KEY = struct.Struct("<I8s")
DEVICE_KEY = struct.Struct("<II")
OUR_KEY = struct.Struct("<II")
OUR_MAP, OUR_PROGRAM, OUR_NAMESPACE = range(3)
LABEL = struct.Struct("<%ds" % LABEL_NAME)
STATE = struct.Struct("<IIQQQ%dQ" % (3 * WORDS))
FACTS = struct.Struct("<QQQQ")  # loaded, rename_lock, labels_since, unwatched
CELL_KEY = struct.Struct("<QQ")  # labels_since, number
CELL = struct.Struct("<QQ")  # labels, members
CARRIER = struct.Struct("<QQQQ")  # labels_since, cell, labels, labels of what it is about to execute
KEPT_KEY = struct.Struct("<QII")  # inode, device, generation
KEPT = struct.Struct("<QQ")  # labels_since, labels
MARK = struct.Struct("<%dQ" % (4 + READERS))
TOTALS = struct.Struct("<%dQ" % (4 + REASON_SLOTS + 1))
EDGE_KEY = struct.Struct("<I%ds" % COMPONENT)
BYTES = struct.Struct("<II256H")
RULE = struct.Struct("<Q%ds" % NAME)
