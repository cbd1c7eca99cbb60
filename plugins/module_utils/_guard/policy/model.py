# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed records: a policy with every name resolved to a number, the events it decides, and the verdict."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Tuple, Union

Components = Tuple[str, ...]
NO_ID = 0xFFFFFFFF  # (uid_t) -1, which no user or group has: the kernel's login uid of a task without a login


class PathPattern(NamedTuple):
    """A path inside one superblock.

    ``*`` matches any run of bytes within a component. ``**`` as the last component matches any number of components,
    including none. ``()`` is the root of the superblock. A component that begins with NUL is a name: see
    literal."""

    device: int  # the kernel's device number, major << 20 | minor; layout.ABSTRACT: the name of an abstract unix socket
    components: Components


LITERAL = "\0"  # begins a component that is a name


def literal(name: str) -> str:
    """The component of a pattern that matches this name only. NUL marks a name with a star: neither the name of a file
    nor a pattern has one. The name of an abstract socket may begin with a slash."""
    return LITERAL + name if "*" in name else name


class SubjectSet(NamedTuple):
    """Attributes of a task: AND across keys, OR within a key. A key that is None matches every task."""

    users: frozenset[int] | None = None
    login_users: frozenset[int] | None = None
    groups: frozenset[int] | None = None
    services: frozenset[Components] | None = None  # cgroup paths from the root; each includes the cgroups below it
    executables: frozenset[PathPattern] | None = None
    has_read: frozenset[str] | None = None  # names of resource sets; not allowed in an exception


class ResourceSet(NamedTuple):
    """Objects that have a path."""

    paths: frozenset[PathPattern]


class DestinationSet(NamedTuple):
    """Network endpoints: AND across keys, OR within a key. A key that is None matches every endpoint."""

    cidrs: frozenset[str] | None = None  # canonical text, with the addresses of `names`; IPv4-mapped IPv6 is IPv4
    ports: frozenset[tuple[int, int]] | None = None  # first and last, both included
    protocols: frozenset[int] | None = None  # IP protocol numbers; MPTCP counts as TCP
    # context id and port, None: any. A set with this key matches vsock endpoints only and has no other key
    vsock: frozenset[tuple[int | None, int | None]] | None = None


class Selection(NamedTuple):
    """Names of sets. A negated selection covers what is in none of them."""

    names: frozenset[str]
    negated: bool = False


class Rule(NamedTuple):
    """One rule of a policy."""

    name: str
    deny: frozenset[str]
    subjects: frozenset[str] | None = None  # None: the rule applies to every task
    excepts: frozenset[str] = frozenset()
    resources: Selection | None = None  # for actions.RESOURCES
    destinations: Selection | None = None  # for actions.DESTINATIONS
    audit: bool = False
    expires: str | None = None  # ISO date (UTC): the first day on which the rule is no longer in force


class Resolved(NamedTuple):
    """A policy document on one host, every name resolved.

    ``superblocks``: the device numbers of the filesystems that were resolved. An object on any other filesystem is
    denied to a task to which a path rule applies, unless the filesystem is a pseudo filesystem."""

    rules: tuple[Rule, ...]  # sorted by name; names are unique
    subjects: dict[str, SubjectSet]
    resources: dict[str, ResourceSet]
    destinations: dict[str, DestinationSet]
    superblocks: frozenset[int]
    # the policy paths of `subjects/<set>` and `resources/<set>`, links followed: boot translates them to new devices
    source_paths: Mapping[str, frozenset[str]] = {}
    # devices whose opening is an action without an object: (is a block device, device number, action); a minor number
    # layout.ANY_MINOR stands for all of that major number
    devices: frozenset[tuple[bool, int, str]] = frozenset()
    host_addresses: Mapping[str, frozenset[str]] = {}  # host name of `destinations` -> CIDRs
    tamper_paths: frozenset[PathPattern] = frozenset()  # the enforcer's own files: see TamperEvent
    # policy path -> the paths that it stands for, if they are several: itself, and where its links led
    places: Mapping[str, frozenset[str]] = {}
    # device of a pattern -> type and source of its filesystem; empty if it is gone from the table of mounts
    mounted: Mapping[int, str] = {}


class Location(NamedTuple):
    """Where an object is. ``trouble``: a member of layout.REASONS if its path could not be resolved."""

    device: int
    components: Components
    pseudo: bool = False  # tmpfs or a pseudo filesystem: allowed although its device is not in Resolved.superblocks
    trouble: str | None = None


class Task(NamedTuple):
    """The attributes of the process that acts, as far as a policy can refer to them."""

    users: frozenset[int]  # real, effective, saved, fs id of both creds, owners of user namespaces above the first
    groups: frozenset[int]  # real, effective, saved, fs, supplementary of both creds, and given up: for subjects
    memberships: frozenset[int]  # real and supplementary groups that both creds have: for exceptions
    login_user: int = NO_ID
    service: Components | None = ()  # cgroup path; None: could not be read
    executable: Location | None = None  # None or with trouble: unknown; rules apply, exceptions do not
    labels: frozenset[str] = frozenset()  # resource sets from which it has read
    # it has more groups or user namespaces than are examined: `users` and `groups` match in subjects, not in exceptions
    ids_truncated: bool = False
    # the cgroup that it was cloned out of, if it was: rules apply by it as well, exceptions apply only if both match
    left_service: Components | None = None


class FileEvent(NamedTuple):
    """An action on an object that has a path."""

    task: Task
    action: str
    location: Location


class AliasEvent(NamedTuple):
    """A link or a rename: the object at ``source`` gets the name ``target``."""

    task: Task
    source: Location
    target: Location
    directory: bool = False


class NetworkEvent(NamedTuple):
    """An action on a socket. ``address`` and ``port`` are the peer's; for `bind`, `listen` and `accept`, the local
    ones."""

    task: Task
    action: str
    address: str  # text form; the meaning treats IPv4-mapped IPv6 as IPv4
    port: int
    protocol: int
    trouble: str | None = None  # a member of layout.REASONS if the destination could not be determined


class JoinEvent(NamedTuple):
    """A socket joins a multicast group, or names sources, which the kernel announces to the routers.

    It counts as sending to what it announces. ``range``: a key of layout.RANGES; the programs do not see the
    addresses."""

    task: Task
    range: int


class VsockEvent(NamedTuple):
    """A connection to, or a message for, a vsock endpoint."""

    task: Task
    cid: int
    port: int


class PlainEvent(NamedTuple):
    """An action without an object."""

    task: Task
    action: str


class TamperEvent(NamedTuple):
    """An attempt to modify the enforcer itself.

    ``location``: the file; None: a map or program of the enforcer, or a process that may modify one. ``below``: the
    operation affects the whole tree, as moving a directory or mounting over it. ``root``: the task is root in the
    initial user namespace."""

    task: Task
    root: bool
    location: Location | None
    below: bool = False


Event = Union[FileEvent, AliasEvent, NetworkEvent, JoinEvent, VsockEvent, PlainEvent, TamperEvent]


class Verdict(NamedTuple):
    """``rule``: the first by name of the rules that decided; None if no rule did, or if ``reason`` is not 'rule' and no
    rule applies."""

    outcome: str  # 'allow', 'audit' or 'deny'
    rule: str | None = None
    reason: str = "rule"
