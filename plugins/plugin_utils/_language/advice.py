# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Advice about rules that read well and protect little, or break the system. Each advice is one function of the merged
document. docs/advice.md lists them. Private to this collection."""

from __future__ import annotations

import datetime
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple

from ansible_collections.exfil.guard.plugins.module_utils._guard.host.mountinfo import split
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import administrators as _administrators
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import semantics

from .problems import Problem
from .render import Fragment

LOCKED_DOWN_ROOT = "exfil.guard/locked-down-root.yml.j2"
FILES, NETWORK = frozenset(("read", "write", "execute")), frozenset(("connect", "send", "reply"))
# what root can use to get around a rule on files or on addresses; around one on addresses with the second two as well
ROOT_ACTIONS = ("block-device", "bpf", "load-module", "mount", "perf", "ptrace")
ROOT_NETWORK_ACTIONS = ("cap-net-admin", "packet-socket", "raw-socket")
ROOT_PATHS = (
    ("read", "/dev/mem"),
    ("read", "/proc/kcore"),
    ("write", "/sys/kernel/tracing/kprobe_events"),
    ("write", "/sys/fs/cgroup/system.slice/ssh.service/cgroup.procs"),
)
ROOT_NETWORK_PATHS = (("write", "/dev/kmsg"),)
JOB_PROGRAMS = ("/usr/bin/crontab", "/usr/bin/at")
JOB_SOCKETS = ("/run/dbus/system_bus_socket", "/run/systemd/private")
SHADOW = ("/etc/shadow", "/etc/gshadow")
SHADOW_READERS = (
    "/usr/bin/chage",
    "/usr/bin/login",
    "/usr/bin/passwd",
    "/usr/bin/su",
    "/usr/bin/sudo",
    "/usr/sbin/cron",
    "/usr/sbin/sshd",
    "/usr/sbin/unix_chkpwd",
)
PROGRAM_FOLDERS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
WRITABLE = ("/tmp/x", "/var/tmp/x", "/dev/shm/x", "/home/x", "/run/user/1000/x")
LOGIN_UNITS = frozenset(
    (
        "atd.service",
        "console-getty.service",
        "cron.service",
        "crond.service",
        "gdm.service",
        "lightdm.service",
        "sddm.service",
        "ssh.service",
        "sshd.service",
    )
)
OWN_PROCESS = ("/proc/self", "/proc/thread-self", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr")

Document = Mapping[str, Any]
Rule = Mapping[str, Any]


class Finding(NamedTuple):
    """What is wrong with one field. ``rule``: its name, or empty; ``path``: the field inside the rule or document."""

    rule: str
    path: tuple[str, ...]
    found: str
    remedy: str


class Advice(NamedTuple):
    """One advice. ``meaning``: what it finds; ``remedy``: what helps in general. The documentation has both."""

    name: str
    meaning: str
    remedy: str
    find: Callable[[Document, datetime.date], Iterator[Finding]]


# ---- what a document denies -----------------------------------------------------------------------------------------


def _binds(rule: Rule, names: Iterable[str] | None) -> bool:
    """Whether a rule binds at least whom the sets ``names`` select; None: everybody."""
    own = rule.get("subjects")
    return own is None or (names is not None and set(names) <= set(own))


def _denied(document: Document, names: Iterable[str] | None) -> frozenset[str]:
    """The actions that need no object and that some rule denies to the sets."""
    return frozenset(action for rule in document["rules"] if _binds(rule, names) for action in rule["deny"])


def _covers(document: Document, rule: Rule, path: str) -> bool:
    """Whether a rule covers a file, by the texts of its paths."""
    selected = rule.get("resources")
    if selected is None:
        return False
    negated = isinstance(selected, dict)
    names = selected["not"] if negated else selected
    patterns = (split(each) for name in names for each in document["resources"][name].get("paths") or ())
    return any(semantics.matches(pattern, split(path)) for pattern in patterns) != negated


def _denies(document: Document, names: Iterable[str] | None, action: str, path: str) -> bool:
    """Whether some rule denies the sets an action on a file."""
    return any(
        action in rule["deny"] and _binds(rule, names) and _covers(document, rule, path) for rule in document["rules"]
    )


def _sets(document: Document, rule: Rule) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, document["subjects"][name]) for name in rule.get("subjects") or ()]


def _texts(body: Mapping[str, Any], key: str) -> frozenset[str]:
    return frozenset(str(each) for each in body.get(key) or ())


# ---- the advices ----------------------------------------------------------------------------------------------------


def _unit(name: str) -> str:
    return name if "." in name else name + ".service"


def _not_root(document: Document, service: str) -> bool:
    """Whether the assertions say as whom a service runs, and that this is not root."""
    users = {
        str(assertion["user"])
        for assertion in document["assertions"]
        if "user" in assertion and "service" in assertion and _unit(assertion["service"]) == _unit(service)
    }
    return bool(users) and not users & {"root", "0"}


def _may_be_root(document: Document, body: Mapping[str, Any]) -> bool:
    if "has_read" in body or "login_users" in body:
        return False
    ids = {str(each) for key in ("users", "groups") for each in body.get(key) or ()}
    if ids:
        return bool(ids & {"root", "0"})
    return any(not _not_root(document, service) for service in body.get("services") or ())


def root_gets_around(document: Document, _today: datetime.date) -> Iterator[Finding]:
    """A rule on data or addresses binds root, who has other ways to both."""
    done: set[tuple[str, ...]] = set()
    for rule in document["rules"]:
        names = tuple(name for name, body in _sets(document, rule) if _may_be_root(document, body))
        network = bool(NETWORK.intersection(rule["deny"]))
        if not names or names in done or not (network or FILES.intersection(rule["deny"])):
            continue
        denied = _denied(document, names)
        lacking = [action for action in ROOT_ACTIONS + ROOT_NETWORK_ACTIONS * network if action not in denied]
        lacking += [
            f"{action} {path}"
            for action, path in ROOT_PATHS + ROOT_NETWORK_PATHS * network
            if not _denies(document, names, action, path)
        ]
        if lacking:
            done.add(names)
            yield Finding(
                rule["name"],
                ("subjects",),
                f"binds processes that may run as root ({', '.join(names)}), which get around it by "
                f"{', '.join(lacking)}",
                f"Include {LOCKED_DOWN_ROOT} for them. If a service does not run as root, say so in an assertion with "
                "its `service` and `user`",
            )


def leaves_by_exec(document: Document, _today: datetime.date) -> Iterator[Finding]:
    """A rule binds by `executables`, which a process leaves when it executes another program."""
    for rule in document["rules"]:
        for name, body in _sets(document, rule):
            if "executables" in body and not _denies(document, (name,), "execute", "/usr/bin/another-program"):
                yield Finding(
                    rule["name"],
                    ("subjects",),
                    f"'{name}' selects by `executables`: a program that one of them executes is not bound",
                    "Select the users or services without `executables`, or also deny them `execute` of "
                    "{not: [the executables]}",
                )


def administrators(document: Document, _today: datetime.date) -> Iterator[Finding]:
    """A rule on files binds a group whose members become somebody whom it does not bind."""
    for rule in document["rules"]:
        if not FILES.intersection(rule["deny"]):
            continue
        for name, body in _sets(document, rule):
            for group in body.get("groups") or ():
                action, path = _administrators.GROUPS.get(str(group), ("", ""))
                if not action or (
                    _denies(document, (name,), action, path) if path else action in _denied(document, (name,))
                ):
                    continue
                yield Finding(
                    rule["name"],
                    ("subjects",),
                    f"members of '{group}' get at the files as root, whom '{name}' does not select",
                    f"Deny them `{action}`{' of ' + path if path else ''} as well, or bind root too, except the "
                    "services that need the files",
                )


def another_login(document: Document, _today: datetime.date) -> Iterator[Finding]:
    """A rule on files binds by `login_users`, which holds in sudo and su, but in no job of a service."""
    for rule in document["rules"]:
        if not FILES.intersection(rule["deny"]):
            continue
        for name, body in _sets(document, rule):
            if "login_users" not in body:
                continue
            lacking = [path for path in JOB_PROGRAMS if not _denies(document, (name,), "execute", path)]
            lacking += [path for path in JOB_SOCKETS if not _denies(document, (name,), "unix-connect", path)]
            if lacking:
                yield Finding(
                    rule["name"],
                    ("subjects",),
                    f"'{name}' selects by `login_users`, which a job of cron or of a unit (systemd-run) does not have",
                    f"Also deny `execute` or `unix-connect` of {', '.join(lacking)}",
                )


def half_of_sending(document: Document, _today: datetime.date) -> Iterator[Finding]:
    """A rule denies `connect` or `send` without the other."""

    def same(a: Rule, b: Rule) -> bool:
        return all(a.get(key) == b.get(key) for key in ("subjects", "destinations", "mode"))

    for rule in document["rules"]:
        for action, other, way in (
            ("connect", "send", "a UDP packet or TCP Fast Open needs no connect"),
            ("send", "connect", "connecting alone carries data in the address, the port and the times"),
        ):
            if action in rule["deny"] and not any(
                other in each["deny"] and (each is rule or same(rule, each) or each.get("subjects") is None)
                for each in document["rules"]
            ):
                yield Finding(
                    rule["name"], ("deny",), f"denies `{action}` without `{other}`: {way}", f"Deny `{other}` as well"
                )


def answers(document: Document, _today: datetime.date) -> Iterator[Finding]:
    """A rule binds who has read something and denies sending, but not answering."""
    for rule in document["rules"]:
        names = [name for name, body in _sets(document, rule) if "has_read" in body]
        if names and "send" in rule["deny"] and "reply" not in _denied(document, names):
            yield Finding(
                rule["name"],
                ("deny",),
                "denies `send` without `reply`: who has read the data may answer anybody who connects to it",
                "Deny `reply` as well",
            )


def password_files(document: Document, _today: datetime.date) -> Iterator[Finding]:
    """A rule on /etc/shadow binds the programs that check and change passwords."""
    for rule in document["rules"]:
        everybody = rule.get("subjects") is None
        root = any(
            "root" in _texts(body, "users") or "0" in _texts(body, "users") for _n, body in _sets(document, rule)
        )
        covered = [path for path in SHADOW if _covers(document, rule, path)]
        if not (covered and (everybody or root) and {"read", "write"}.intersection(rule["deny"])):
            continue
        excepted = {
            path for name in rule.get("except") or () for path in _texts(document["subjects"][name], "executables")
        }
        if not excepted.issuperset(SHADOW_READERS):
            yield Finding(
                rule["name"],
                ("resources",),
                f"covers {' and '.join(covered)}: su, sudo, passwd, cron and logins fail",
                "Except the programs that need them: `except: [passwords]` with `subjects: {passwords: "
                f"{{services: ['-.slice'], executables: [{', '.join(SHADOW_READERS)}]}}}}`",
            )


def program_by_name(document: Document, _today: datetime.date) -> Iterator[Finding]:
    """A rule denies `execute` of a program by its place, and a copy of it runs from another."""
    for rule in document["rules"]:
        selected = rule.get("resources")
        if "execute" not in rule["deny"] or selected is None or isinstance(selected, dict):
            continue
        if {"read", "write"} <= set(rule["deny"]):
            continue
        for name in selected:
            named = [
                path
                for path in document["resources"][name].get("paths") or ()
                if "*" not in path and path.rpartition("/")[0] in PROGRAM_FOLDERS
            ]
            if named:
                yield Finding(
                    rule["name"],
                    ("resources",),
                    f"denies `execute` of {', '.join(named[:3])}: a copy elsewhere, or another program that does the "
                    "same, runs",
                    "Name the programs that may run instead: `resources: {not: [...]}`, or deny what the program does",
                )


def writable_programs(document: Document, _today: datetime.date) -> Iterator[Finding]:
    """A rule lists the programs that may run, and the list has a folder where users write."""
    for rule in document["rules"]:
        selected = rule.get("resources")
        if "execute" not in rule["deny"] or not isinstance(selected, dict) or not selected["not"]:
            continue
        writable = [path.rpartition("/")[0] for path in WRITABLE if not _covers(document, rule, path)]
        if writable:
            yield Finding(
                rule["name"],
                ("resources",),
                f"lets programs below {', '.join(writable)} run, where users put their own",
                "List only folders that nobody but root can write to",
            )


def login_service(document: Document, _today: datetime.date) -> Iterator[Finding]:
    """A rule binds the service that starts sessions, and the sessions are elsewhere."""
    for rule in document["rules"]:
        for name, body in _sets(document, rule):
            units = sorted(LOGIN_UNITS & {_unit(service) for service in body.get("services") or ()})
            if units and "user.slice" not in (body.get("services") or ()):
                yield Finding(
                    rule["name"],
                    ("subjects",),
                    f"'{name}' selects {', '.join(units)}: its sessions are below user.slice and are not bound",
                    "Select `user.slice` as well, or the users",
                )


def own_process(document: Document, _today: datetime.date) -> Iterator[Finding]:
    """A path means the process that reads it, and so the one that applies the policy."""
    for name, body in sorted(document["resources"].items()):
        for path in body.get("paths") or ():
            if any(path == own or path.startswith(own + "/") for own in OWN_PROCESS):
                yield Finding(
                    "",
                    ("resources", name, "paths"),
                    f"'{path}' is that of the process that applies the policy, not of the one that opens it",
                    "Write /proc/*/… for every process",
                )


def expired(document: Document, today: datetime.date) -> Iterator[Finding]:
    """A rule has expired."""
    for rule in document["rules"]:
        if rule.get("expires") and rule["expires"] <= today.isoformat():
            yield Finding(
                rule["name"], ("expires",), f"expired on {rule['expires']}: it does nothing", "Remove it, or renew it"
            )


ADVICES = (
    Advice(
        "root-gets-around",
        "A rule on files or addresses binds root or a service that may run as root, and root can get at the same by "
        "the disk, a tracer, a mount, tracefs, /dev/mem, /proc/kcore, another service's cgroup; for addresses also by "
        "changing routes and addresses (`cap-net-admin`), by raw packets, or by netconsole through /dev/kmsg.",
        f"Include `{LOCKED_DOWN_ROOT}` for these subjects. An assertion with `service` and `user` says that a service "
        "does not run as root.",
        root_gets_around,
    ),
    Advice(
        "leaves-by-exec",
        "A rule binds by `executables`. A program that one of them executes is not bound.",
        "Select users or services, or also deny `execute` of everything else.",
        leaves_by_exec,
    ),
    Advice(
        "administrators",
        "A rule on files binds a group such as sudo, docker or disk, whose members reach the files as root.",
        "Also deny what the group gives (`execute` of sudo, `unix-connect` of the engine, `block-device`), or bind "
        "root.",
        administrators,
    ),
    Advice(
        "another-login",
        "A rule on files binds by `login_users`. A job of cron, or a unit that systemd-run starts, has no login user.",
        "Also deny `execute` of crontab and at, and `unix-connect` of D-Bus and systemd.",
        another_login,
    ),
    Advice(
        "half-of-sending",
        "A rule denies `connect` without `send`, or `send` without `connect`.",
        "Deny both.",
        half_of_sending,
    ),
    Advice(
        "answers", "A rule binds with `has_read` and denies `send`, but not `reply`.", "Deny `reply` as well.", answers
    ),
    Advice(
        "password-files",
        "A rule on /etc/shadow or /etc/gshadow binds everybody or root: su, sudo, passwd, cron and logins fail.",
        "Except the programs that need it, by `executables` together with `services: ['-.slice']`: every process.",
        password_files,
    ),
    Advice(
        "program-by-name",
        "A rule denies `execute` of single programs. A copy elsewhere runs.",
        "List what may run: `resources: {not: [...]}`.",
        program_by_name,
    ),
    Advice(
        "writable-programs",
        "A rule lists the programs that may run, and the list has a folder where users write.",
        "List only folders of root.",
        writable_programs,
    ),
    Advice(
        "login-service",
        "A rule binds ssh, cron or a display manager. The sessions that it starts are below user.slice.",
        "Select `user.slice` or the users.",
        login_service,
    ),
    Advice(
        "own-process",
        "A path below /proc/self, /dev/fd or /dev/stdin is that of the process that applies the policy.",
        "Write `/proc/*/…`.",
        own_process,
    ),
    Advice("expired", "A rule has expired.", "Remove it, or renew it.", expired),
)


def find(document: Document, fragments: Iterable[Fragment], today: datetime.date) -> list[Problem]:
    """All advice about a document, each with its place in a fragment."""
    known = list(fragments)
    problems = [_placed(finding, known) for advice in ADVICES for finding in advice.find(document, today)]
    return sorted(set(problems), key=lambda p: (p.file, p.line or 0, p.path, p.found))


def _placed(finding: Finding, fragments: list[Fragment]) -> Problem:
    for fragment in fragments:
        if not finding.rule:
            kind, name = finding.path[:2]
            if name in (fragment.data.get(kind) or {}):
                return fragment.problem(finding.path, finding.found, "", finding.remedy)
            continue
        for number, rule in enumerate(fragment.data.get("rules") or ()):
            if rule["name"] == finding.rule:
                text = f"rule '{finding.rule}' {finding.found}"
                return fragment.problem(("rules", number, *finding.path), text, "", finding.remedy)
    where = f"rule '{finding.rule}' " if finding.rule else ""
    return Problem("", None, "", where + finding.found, "", finding.remedy)
