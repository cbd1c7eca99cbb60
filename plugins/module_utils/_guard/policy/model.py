# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain typed records: a policy with every name resolved to a number, and the events it is asked about."""

from __future__ import annotations

from typing import NamedTuple, Tuple

Components = Tuple[str, ...]
NO_ID = 0xFFFFFFFF  # (uid_t) -1, which no user or group has: the kernel's login uid of a task without a login


class PathPattern(NamedTuple):
    """A path inside one superblock. ``*`` stands for any run of bytes within a component; a last component ``**``
    for any number of components, also none. ``()`` is the superblock's root itself."""

    device: int  # the kernel's number, major << 20 | minor; layout.ABSTRACT: the name of an abstract unix socket
    components: Components


class SubjectSet(NamedTuple):
    """AND across keys, OR within a key; None: the key is not there and holds for everybody."""

    users: frozenset[int] | None = None
    login_users: frozenset[int] | None = None
    groups: frozenset[int] | None = None
    services: frozenset[Components] | None = None  # cgroup paths from the root; each means the cgroup and all below
    executables: frozenset[PathPattern] | None = None
    has_read: frozenset[str] | None = None  # names of resource sets; binds only


class ResourceSet(NamedTuple):
    paths: frozenset[PathPattern]


class DestinationSet(NamedTuple):
    """AND across keys, OR within a key; None: any."""

    cidrs: frozenset[str] | None = None  # canonical text, those of `names` among them; mapped IPv6 has become IPv4
    ports: frozenset[tuple[int, int]] | None = None  # first and last, both included
    protocols: frozenset[int] | None = None  # IP protocol numbers; MPTCP counts as TCP
    # context id and port, None: any. A set with this key is about vsock alone and has no other
    vsock: frozenset[tuple[int | None, int | None]] | None = None


class Selection(NamedTuple):
    """Names of sets; negated covers what satisfies none of them."""

    names: frozenset[str]
    negated: bool = False


class Rule(NamedTuple):
    name: str
    deny: frozenset[str]
    subjects: frozenset[str] | None = None  # None binds everyone
    excepts: frozenset[str] = frozenset()
    resources: Selection | None = None  # for actions.RESOURCES
    destinations: Selection | None = None  # for actions.DESTINATIONS
    audit: bool = False
    expires: str | None = None  # ISO date (UTC): the first day on which the rule is no longer in force


class Resolved(NamedTuple):
    """A policy document on one host, every name resolved. ``superblocks``: every device number that was looked at;
    an object on any other is denied to a task that a path rule binds, pseudo filesystems aside."""

    rules: tuple[Rule, ...]  # sorted by name; names are unique
    subjects: dict[str, SubjectSet]
    resources: dict[str, ResourceSet]
    destinations: dict[str, DestinationSet]
    superblocks: frozenset[int]
    # the policy paths of `subjects/<set>` and `resources/<set>`, links followed: from them boot finds new devices
    source_paths: dict[str, frozenset[str]] = {}
    # device numbers whose opening is an action without an object: is it a block device, number (minor
    # layout.ANY_MINOR: any), action
    devices: frozenset[tuple[bool, int, str]] = frozenset()
    host_addresses: dict[str, frozenset[str]] = {}  # the networks that each host name of `destinations` stands for
    tamper_paths: frozenset[PathPattern] = frozenset()  # what enforces: see TamperEvent


class Location(NamedTuple):
    """Where an object is. ``trouble`` names a member of layout.REASONS when the chain could not be followed."""

    device: int
    components: Components
    pseudo: bool = False  # tmpfs or a pseudo filesystem: not denied for being unresolved
    trouble: str | None = None


class Task(NamedTuple):
    """Who acts. The four ids of ``cred`` and ``real_cred`` and the owners of the user namespaces are told apart only
    as far as the meaning needs it."""

    users: frozenset[int]  # real, effective, saved, fs id of both creds, owners of user namespaces above the first
    groups: frozenset[int]  # real, effective, saved, fs and supplementary groups of both creds: what may bind
    memberships: frozenset[int]  # real and supplementary groups that both creds have: what may except
    login_user: int = NO_ID
    service: Components | None = ()  # cgroup path; None: could not be read
    executable: Location | None = None  # None or with trouble: not known; binds, does not except
    labels: frozenset[str] = frozenset()  # resource sets of which it has read something
    lists_cut: bool = False  # more groups or namespaces than looked at: bound by any `users`/`groups`, not excepted


class FileEvent(NamedTuple):
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
    """``address`` and ``port`` are the other side's; of `bind`, `listen` and `accept`, the socket's own."""

    task: Task
    action: str
    address: str  # text form; the meaning treats IPv4-mapped IPv6 as IPv4
    port: int
    protocol: int
    trouble: str | None = None  # member of layout.REASONS: where it goes can't be told


class VsockEvent(NamedTuple):
    task: Task
    cid: int
    port: int


class PlainEvent(NamedTuple):
    """An action without an object."""

    task: Task
    action: str


class TamperEvent(NamedTuple):
    """What enforces is touched: a file at ``location``; ``location`` None: a map or program of ours, or a process that
    may touch it. ``below``: with all that lies below, by moving it or mounting over it. ``root``: the task is real root
    of the first user namespace."""

    task: Task
    root: bool
    location: Location | None
    below: bool = False


class Verdict(NamedTuple):
    """``rule``: first by name among the rules that decided; None when nothing matched or ``reason`` is not 'rule'."""

    outcome: str  # 'allow', 'audit' or 'deny'
    rule: str | None = None
    reason: str = "rule"
