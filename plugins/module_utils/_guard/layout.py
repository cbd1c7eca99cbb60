# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sizes, numbers and structures that user space shares with the BPF programs: the counterpart of bpf/abi/layout.h.

tests/native/test_layout.py compares every structure with the type information of the compiled header."""

from __future__ import annotations

import struct
from typing import Any, Generic, Mapping, NamedTuple, TypeVar

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
TASK_LABELS, LABEL_GROUPS, CHANNELS, READERS, PERSISTENT_LABELS = 131072, 65536, 65536, 16, 262144
ABSTRACT = 0xFFFFFFFF
KIND = 0xFFE00000
KINDS = (  # by number, the filesystem's type as in mountinfo
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "binfmt_misc",
    "efivarfs",
    "pstore",
    "selinuxfs",
)
CANARY_USER = 4294967293
CANARY_FILE_RULE, CANARY_NETWORK_RULE = "exfil-guard canary: file", "exfil-guard canary: network"
CANARY_ADDRESS = "192.0.2.1"

# Paths on the host. module_utils/_installed.py repeats LIBRARY: it locates the package before it can import it.
LIBRARY = "/usr/lib/exfil-guard"
CANARY_FOLDER = LIBRARY + "/canary"
CANARY_DENIED, CANARY_ALLOWED = "denied", "allowed"  # files in it
CANARY_CONTENT = b"exfil-guard canary\n"

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
ID_USER, ID_LOGIN, ID_GROUP, ID_PROTOCOL, ID_LABEL, ID_RANGE = range(6)
GROUPS_IPV4, GROUPS_IPV6, ALL_IPV4, ALL_IPV6 = range(1, 5)  # what a join announces
RANGES = {GROUPS_IPV4: "224.0.0.0/4", GROUPS_IPV6: "ff00::/8", ALL_IPV4: "0.0.0.0/0", ALL_IPV6: "::/0"}
USES_GROUPS, USES_SERVICES, USES_EXECUTABLES, USES_LOGIN, USES_LABELS = 1, 2, 4, 8, 16
DENIES_LABELS = 32
ANY_MINOR = 0xFFFFF

PROTECTED_MAP, PROTECTED_PROGRAM, HOST_MOUNT_NAMESPACE = range(3)

_Values = TypeVar("_Values", bound=NamedTuple)


class Field(NamedTuple):
    """``offset`` and ``size`` in bytes. ``format`` as in struct, or "V": a rule vector, as one integer."""

    name: str
    format: str
    offset: int
    size: int


class Structure(Generic[_Values]):
    """One structure that C and Python share, as a table of named fields; little endian.

    ``name``: in C, without its prefix. ``formats``: of each field of ``values``, in order, a code of the struct module
    or "V" for a rule vector; a count comes before it. ``padding``: bytes that C adds at the end."""

    def __init__(self, name: str, values: type[_Values], formats: Mapping[str, str], padding: int = 0) -> None:
        if tuple(formats) != values._fields:
            raise ValueError("the fields of {} are {}".format(name, ", ".join(values._fields)))
        self.name, self._values = name, values
        fields, plain = [], "<"
        for field, format_ in formats.items():
            count, code = int(format_[:-1] or 1), format_[-1]
            start = struct.calcsize(plain)
            plain += f"{8 * WORDS * count}s" if code == "V" else format_
            fields.append(Field(field, format_, start, struct.calcsize(plain) - start))
        self.fields: tuple[Field, ...] = tuple(fields)
        self._struct = struct.Struct(plain + f"{padding}x")
        self.size = self._struct.size
        self._lists = [(field, _values_in(field)) for field in self.fields]
        self._scalar = all(field.format[-1] != "V" and count == 1 for field, count in self._lists)
        self._by_name = {field.name: field for field in self.fields}

    def pack(self, values: _Values) -> bytes:
        """Raises struct.error when a value does not fit its field."""
        if self._scalar:
            return self._struct.pack(*values)
        flat: list[Any] = []
        for (field, count), value in zip(self._lists, values):
            if field.format == "V":
                flat.append(value.to_bytes(field.size, "little"))
            elif field.format[-1] == "V":
                flat.append(b"".join(vector.to_bytes(8 * WORDS, "little") for vector in value))
            elif count == 1:
                flat.append(value)
            else:
                flat.extend(value)
        return self._struct.pack(*flat)

    def unpack(self, data: bytes) -> _Values:
        """Raises struct.error when there are not as many bytes as the structure has."""
        flat = self._struct.unpack(data)
        if self._scalar:
            return self._values._make(flat)
        found: list[Any] = []
        at = 0
        for field, count in self._lists:
            part = flat[at : at + count]
            at += count
            if field.format == "V":
                found.append(int.from_bytes(part[0], "little"))
            elif field.format[-1] == "V":
                found.append(
                    tuple(
                        int.from_bytes(part[0][start : start + 8 * WORDS], "little")
                        for start in range(0, field.size, 8 * WORDS)
                    )
                )
            else:
                found.append(part[0] if count == 1 else tuple(part))
        return self._values._make(found)

    def empty(self) -> _Values:
        """The values of a structure whose bytes are all 0."""
        return self.unpack(bytes(self.size))

    def field(self, name: str) -> Field:
        """The field of that name. Raises KeyError when there is none."""
        return self._by_name[name]

    def span(self, first: str, last: str | None = None) -> slice:
        """The bytes of a field, or from the first of two fields to the end of the last."""
        end = self._by_name[last or first]
        return slice(self._by_name[first].offset, end.offset + end.size)


def _values_in(field: Field) -> int:
    """How many values struct gives for a field."""
    return 1 if field.format[-1] in "Vs" else int(field.format[:-1] or 1)


class Vector(NamedTuple):
    """A set of rules, 64 bits a word."""

    word: tuple[int, ...]


class Record(NamedTuple):
    """Map control: the generation in force, and its fallback."""

    generation: int
    deadline: int  # CLOCK_BOOTTIME, ns; 0: confirmed
    fallback_generation: int
    slot: int
    fallback_slot: int


class Policy(NamedTuple):
    """Map policy: what does not depend on an object. Rule sets, then subject and destination sets."""

    always: int
    rules_by_action: tuple[int, ...]
    audit: int
    not_destinations: int
    named: int
    any_user: int
    any_login: int
    any_group: int
    any_service: int
    any_executable: int
    any_label: int
    any_address: int
    any_port: int
    any_protocol: int
    service_root: int
    uses: int
    labels: int


class Subject(NamedTuple):
    """Map subjects, by subject set: the rules that name it, and those that exempt it."""

    binds: int
    exempts: int


class Destination(NamedTuple):
    """Map destinations, by destination set: the rules that name it, and those that name it under `not`."""

    covers: int
    exempts: int


class IdKey(NamedTuple):
    """Map ids: a number of a kind, ID_*."""

    kind: int
    number: int


class AddressKey(NamedTuple):
    """Maps ipv4 and ipv6: a prefix of an address."""

    prefixlen: int
    address: bytes


class PortKey(NamedTuple):
    """Map ports: a prefix of a port, which is big endian."""

    prefixlen: int
    port: bytes  # big endian


class VsockKey(NamedTuple):
    """Map vsock: a prefix of a context id and a port, both big endian."""

    prefixlen: int
    cid: bytes  # big endian
    port: bytes  # big endian


class DeviceKey(NamedTuple):
    """Map devices: ``block`` is 1 for a block device; the device number as the kernel has it."""

    block: int
    device: int


class ProtectedKey(NamedTuple):
    """Map our: an id of a kind, OUR_*."""

    kind: int
    number: int


class Label(NamedTuple):
    """Map labels, by label bit: the name of a resource set."""

    name: bytes


class SuperblockKey(NamedTuple):
    """Map superblocks: a device number as the kernel has it."""

    device: int


class State(NamedTuple):
    """Map states: one state of the path automaton."""

    otherwise: int
    bytes: int
    services: int
    executables: int
    labels: int
    covers: int
    reaches: int
    pervades: int


class EdgeKey(NamedTuple):
    """Map edges: a state, and a path component without NUL."""

    state: int
    name: bytes


class ByteRow(NamedTuple):
    """Map bytes: one state of a byte automaton."""

    target: int
    pad: int
    next: tuple[int, ...]


class Rule(NamedTuple):
    """Map rules, by rule bit: the key of counters, and the name."""

    id: int
    name: bytes


class Count(NamedTuple):
    """Map counters: the decisions of one rule."""

    denied: int
    audited: int


class Totals(NamedTuple):
    """Map totals: the decisions of all rules, and the events."""

    denied: int
    audited: int
    written: int
    lost: int
    reasons: tuple[int, ...]
    uncached: int


class Facts(NamedTuple):
    """Map facts: times are CLOCK_BOOTTIME in ns, the others 0 or 1."""

    loaded: int
    rename_lock: int
    labels_since: int
    readers_untracked: int


class TaskLabel(NamedTuple):
    """Map carriers, by the address of a task: its labels; ``exec_labels``: of the file that it executes next."""

    since: int
    group: int
    labels: int
    exec_labels: int


class LabelGroupKey(NamedTuple):
    """Map cells: the number of a label group, valid while labels are tracked since ``since``."""

    since: int
    number: int


class LabelGroup(NamedTuple):
    """Map cells: the labels that the tasks of an address space share, and how many tasks there are."""

    labels: int
    members: int


class ChannelLabel(NamedTuple):
    """Map wires, by an address: the labels of a pipe, socket or queue, and who reads there."""

    since: int
    labels: int
    propagated: int
    readers_overflow: int
    readers: tuple[int, ...]


class PersistentLabelKey(NamedTuple):
    """Map kept: a file, by inode number, device and inode generation."""

    inode: int
    device: int
    generation: int


class PersistentLabel(NamedTuple):
    """Map kept: the labels of a file."""

    since: int
    labels: int


class Event(NamedTuple):
    """Ring buffer events. Times are CLOCK_BOOTTIME in ns; paths begin with the last component, each with its NUL."""

    sequence: int
    time: int
    generation: int
    rule_id: int
    start_time: int
    cgroup_id: int
    inode: int
    device: int
    executable_device: int
    action: int
    verdict: int
    reason: int
    pid: int
    tid: int
    uid: int
    euid: int
    gid: int
    login_uid: int
    family: int
    protocol: int
    port: int
    address: bytes
    comm: bytes
    rule: bytes
    path_size: int
    executable_size: int
    cgroup_size: int
    pad: int
    path: bytes
    executable: bytes
    cgroup: bytes


VECTOR = Structure("vector", Vector, {"word": f"{WORDS}Q"})
RECORD = Structure(
    "record",
    Record,
    {"generation": "Q", "deadline": "Q", "fallback_generation": "Q", "slot": "I", "fallback_slot": "I"},
)
POLICY = Structure(
    "policy",
    Policy,
    {
        "always": "V",
        "rules_by_action": f"{ACTIONS}V",
        "audit": "V",
        "not_destinations": "V",
        "named": "V",
        "any_user": "Q",
        "any_login": "Q",
        "any_group": "Q",
        "any_service": "Q",
        "any_executable": "Q",
        "any_label": "Q",
        "any_address": "Q",
        "any_port": "Q",
        "any_protocol": "Q",
        "service_root": "I",
        "uses": "I",
        "labels": "Q",
    },
)
SUBJECT = Structure("subject", Subject, {"binds": "V", "exempts": "V"})
DESTINATION = Structure("destination", Destination, {"covers": "V", "exempts": "V"})
ID_KEY = Structure("id_key", IdKey, {"kind": "I", "number": "I"})
IPV4_KEY = Structure("ipv4_key", AddressKey, {"prefixlen": "I", "address": "4s"})
IPV6_KEY = Structure("ipv6_key", AddressKey, {"prefixlen": "I", "address": "16s"})
PORT_KEY = Structure("port_key", PortKey, {"prefixlen": "I", "port": "2s"}, padding=2)
VSOCK_KEY = Structure("vsock_key", VsockKey, {"prefixlen": "I", "cid": "4s", "port": "4s"})
DEVICE_KEY = Structure("device_key", DeviceKey, {"block": "I", "device": "I"})
PROTECTED_KEY = Structure("protected_key", ProtectedKey, {"kind": "I", "number": "I"})
LABEL = Structure("label", Label, {"name": f"{LABEL_NAME}s"})
SUPERBLOCK_KEY = Structure("superblock_key", SuperblockKey, {"device": "I"})
STATE = Structure(
    "state",
    State,
    {
        "otherwise": "I",
        "bytes": "I",
        "services": "Q",
        "executables": "Q",
        "labels": "Q",
        "covers": "V",
        "reaches": "V",
        "pervades": "V",
    },
)
EDGE_KEY = Structure("edge_key", EdgeKey, {"state": "I", "name": f"{COMPONENT}s"})
BYTES = Structure("bytes", ByteRow, {"target": "I", "pad": "I", "next": "256H"})
RULE = Structure("rule", Rule, {"id": "Q", "name": f"{NAME}s"})
COUNT = Structure("count", Count, {"denied": "Q", "audited": "Q"})
TOTALS = Structure(
    "totals",
    Totals,
    {"denied": "Q", "audited": "Q", "written": "Q", "lost": "Q", "reasons": f"{REASON_SLOTS}Q", "uncached": "Q"},
)
FACTS = Structure("facts", Facts, {"loaded": "Q", "rename_lock": "Q", "labels_since": "Q", "readers_untracked": "Q"})
TASK_LABEL = Structure("task_label", TaskLabel, {"since": "Q", "group": "Q", "labels": "Q", "exec_labels": "Q"})
LABEL_GROUP_KEY = Structure("label_group_key", LabelGroupKey, {"since": "Q", "number": "Q"})
LABEL_GROUP = Structure("label_group", LabelGroup, {"labels": "Q", "members": "Q"})
CHANNEL_LABEL = Structure(
    "channel_label",
    ChannelLabel,
    {"since": "Q", "labels": "Q", "propagated": "Q", "readers_overflow": "Q", "readers": f"{READERS}Q"},
)
PERSISTENT_LABEL_KEY = Structure(
    "persistent_label_key", PersistentLabelKey, {"inode": "Q", "device": "I", "generation": "I"}
)
PERSISTENT_LABEL = Structure("persistent_label", PersistentLabel, {"since": "Q", "labels": "Q"})
EVENT = Structure(
    "event",
    Event,
    {
        "sequence": "Q",
        "time": "Q",
        "generation": "Q",
        "rule_id": "Q",
        "start_time": "Q",
        "cgroup_id": "Q",
        "inode": "Q",
        "device": "I",
        "executable_device": "I",
        "action": "I",
        "verdict": "I",
        "reason": "I",
        "pid": "I",
        "tid": "I",
        "uid": "I",
        "euid": "I",
        "gid": "I",
        "login_uid": "I",
        "family": "I",
        "protocol": "I",
        "port": "I",
        "address": "16s",
        "comm": "16s",
        "rule": f"{NAME}s",
        "path_size": "I",
        "executable_size": "I",
        "cgroup_size": "I",
        "pad": "I",
        "path": f"{PATH}s",
        "executable": f"{PATH // 2}s",
        "cgroup": f"{PATH // 2}s",
    },
)

# every structure of bpf/abi/layout.h, by its name without guard_
STRUCTURES = {
    structure.name: structure
    for structure in (
        VECTOR,
        RECORD,
        POLICY,
        SUBJECT,
        DESTINATION,
        ID_KEY,
        IPV4_KEY,
        IPV6_KEY,
        PORT_KEY,
        VSOCK_KEY,
        DEVICE_KEY,
        PROTECTED_KEY,
        LABEL,
        SUPERBLOCK_KEY,
        STATE,
        EDGE_KEY,
        BYTES,
        RULE,
        COUNT,
        TOTALS,
        FACTS,
        TASK_LABEL,
        LABEL_GROUP_KEY,
        LABEL_GROUP,
        CHANNEL_LABEL,
        PERSISTENT_LABEL_KEY,
        PERSISTENT_LABEL,
        EVENT,
    )
}
