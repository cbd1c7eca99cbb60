# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why it was denied, and what would have to change in which set for it to pass. Each change that is named is tried: the
reference semantics decides again with it."""

from __future__ import annotations

import datetime
import itertools
import socket
import time
from typing import Any, Iterable, NamedTuple

from ..audit import aggregate, events, journal
from ..audit import record as trail
from ..audit.collector import CollectorStatus
from ..errors import EnforcerError
from ..host import mountinfo
from ..kernel import pins
from ..policy import actions, semantics
from ..policy.model import (
    NO_ID,
    Components,
    FileEvent,
    Location,
    NetworkEvent,
    PathPattern,
    PlainEvent,
    Resolved,
    Rule,
    SubjectSet,
    Task,
    VsockEvent,
)
from ..resolve import encoding, resolver
from . import decision

BUILT_IN = ("link-local", "loopback", "metadata", "multicast")  # destinations that no policy can change
# what no rule's sets can change, with the remedy
REASONS = {
    "no-chain": "the place of the file could not be told: it has been unlinked, or lies outside of its filesystem's "
    "tree. Open it by a name",
    "too-deep": "the file lies deeper than 64 folders. Move it higher",
    "unknown-filesystem": "the filesystem was mounted since the policy was looked at. Wait a minute, or run "
    "exfil-guard refresh",
    "unstable": "folders above the file were being renamed all the time. Try again",
    "broken-map": "a table of the policy is damaged. Run exfil-guard status, and apply the policy again",
    "no-address": "where it goes cannot be told: source routing, or an address that cannot be read. Use a plain "
    "address",
    "no-label": "what was read could not be remembered. See the limits of has_read in docs/policy-language.md",
    "tamper": "what enforces is guarded, whatever the rules say. Only real root that no rule with subjects binds may "
    "change it",
}


class Change(NamedTuple):
    """``text`` says it; ``policy`` is what it gives."""

    text: str
    policy: Resolved


# ---- which denials ------------------------------------------------------------------------------------------------


def chosen(
    records: Iterable[dict[str, Any]], *, user: int | None = None, pid: int | None = None
) -> list[dict[str, Any]]:
    """Of those about a user, by any of the ids that are told, or about a process."""
    found = []
    for record in records:
        ids = (record.get("uid"), record.get("euid"), record.get("login_uid"))
        if (
            record.get("kind") == trail.DECISION
            and (user is None or user in ids)
            and (pid is None or pid in record["pids"])
        ):
            found.append(record)
    return found


def denials(
    kernel: Any,
    system: Any,
    store: Any,
    *,
    user: int | None,
    pid: int | None,
    limit: int,
    collector: CollectorStatus | None,
) -> list[dict[str, Any]]:
    """The newest first: what waits in the ring, which stays there, and what the unit has told the journal."""
    with pins.opened(kernel, pins.map_path(kernel, "events")) as fd, kernel.ring(fd, False) as ring:
        waiting = [data for data in ring.peek().records if events.readable(data)]
    seen = trail.view(
        system,
        now=time.time(),
        boottime=kernel.boottime(),
        boot=kernel.boot_id(),
        host=socket.gethostname(),
        labels=trail.Documents(store).labels,
    )
    folding = aggregate.Fold(0, {})
    for data in waiting:
        folding.add(data, 0, seen)
    found = chosen(reversed(folding.due(0)), user=user, pid=pid)[:limit]
    if collector is None or len(found) >= limit:
        return found
    asked: list[str] = []
    for values in [{"uid": user}, {"euid": user}, {"login_uid": user}] if user is not None else [{}]:
        more = values if pid is None else dict(values, pids=pid)
        asked += (["+"] if asked else []) + journal.matches(trail.DECISION, **more)
    return found + chosen(journal.read(asked, limit - len(found)), user=user, pid=pid)


def user_number(system: Any, name: str) -> int:
    number = int(name) if name.isdigit() else system.user(name)
    if number is None:
        raise EnforcerError(f"unknown user {name!r}")
    return number


# ---- the event again ----------------------------------------------------------------------------------------------


def task(system: Any, record: dict[str, Any]) -> Task:
    """As far as the record tells; the groups are the user's own where it does not."""
    groups = record.get("groups")
    members = frozenset(groups if groups is not None else system.memberships(record["uid"])) | {record["gid"]}
    cgroup = record.get("cgroup")
    return Task(
        frozenset({record["uid"], record["euid"]}),
        members,
        members,
        record.get("login_uid", NO_ID),
        mountinfo.split(cgroup) if cgroup else (),
        _place(system, record.get("executable")),
        frozenset(record.get("labels", ())),
    )


def _place(system: Any, path: str | None) -> Location | None:
    if not path or not path.startswith("/") or "\\" in path:
        return None  # cut off, on a filesystem without a mount, or with bytes that had to be written otherwise
    try:
        return decision.location(system, path)
    except EnforcerError:
        return None


def event(system: Any, record: dict[str, Any], rule: Rule) -> Any:
    """None: the record does not tell enough of the object."""
    who, action = task(system, record), record["action"]
    if record.get("address", "").startswith("vsock:"):
        return VsockEvent(who, int(record["address"][len("vsock:") :]), record["port"])
    if record.get("address"):
        try:
            return NetworkEvent(
                who, action, record["address"], record["port"], resolver.parse_protocol(record["protocol"])
            )
        except ValueError:
            return None
    if record.get("path", "").startswith("@"):
        return FileEvent(who, "unix-connect", Location(resolver.layout.ABSTRACT, (record["path"][1:],)))
    if record.get("path"):
        where = _place(system, record["path"])
        if action not in actions.RESOURCES:  # a link or rename: asked by every action on files that the rule has
            action = next((each for each in actions.RESOURCES if each in rule.deny), "read")
        return FileEvent(who, action, where) if where else None
    return PlainEvent(who, action) if action in actions.PLAIN else None


# ---- what would have to change ------------------------------------------------------------------------------------


def explain_record(record: dict[str, Any], stored: dict[str, Any] | None, system: Any) -> dict[str, Any]:
    """``stored``: the document of the record's generation, if it is still there. ``changes``: alternatives, each of
    which lets it pass by this rule; ``also``: other rules that would deny it then."""
    answer: dict[str, Any] = {"record": record, "changes": [], "also": [], "note": None}
    if record["reason"] != "rule":
        answer["note"] = REASONS.get(record["reason"], record["reason"])
        return answer
    if stored is None:
        answer["note"] = "generation {0} is no longer stored: what its rules were cannot be told".format(
            record["generation"]
        )
        return answer
    resolved = encoding.from_json(stored["resolved"])
    rule = next((each for each in resolved.rules if events.text(each.name.encode()) == record.get("rule")), None)
    if rule is None:
        answer["note"] = "generation {0} has no such rule".format(record["generation"])
        return answer
    asked = event(system, record, rule)
    day = datetime.date(*(int(part) for part in record["time"][:10].split("-")))
    if asked is None or _passes(resolved, rule, asked, day):
        answer["note"] = (
            "the event does not tell enough to say what would have to change: a path is cut off, or "
            "some id was seen by the kernel alone"
        )
        return answer
    answer["changes"] = [
        change.text
        for change in changes(resolved, rule, asked, _words(record, rule), system, stored["document"])
        if _passes(change.policy, _rule(change.policy, rule.name), asked, day)
    ]
    answer["also"] = [
        each.name
        for each in resolved.rules
        if each.name != rule.name and not each.audit and not _passes(resolved, each, event(system, record, each), day)
    ]
    return answer


def _words(record: dict[str, Any], rule: Rule) -> list[str]:
    """What the rule denies of it: a link or rename needs all that the rule denies of files."""
    own = record["action"]
    return sorted(rule.deny & ({own} if own in actions.NUMBERS else set(actions.RESOURCES)))


def _rule(policy: Resolved, name: str) -> Rule:
    return next(each for each in policy.rules if each.name == name)


def _passes(policy: Resolved, rule: Rule, asked: Any, now: datetime.date) -> bool:
    return semantics.decide(policy._replace(rules=(rule,)), asked, now).outcome == "allow"


def changes(
    policy: Resolved, rule: Rule, asked: Any, words: list[str], system: Any, document: dict[str, Any]
) -> list[Change]:
    """What might let it pass: who is excepted, who is bound, what is covered. At last ``words`` of the rule itself."""
    found = list(
        itertools.chain(
            (_join(policy, name, asked.task, system) for name in sorted(rule.excepts)),
            _leave(policy, rule, asked.task, system),
            _objects(policy, rule, asked, system, document),
        )
    )
    less = policy._replace(
        rules=tuple(
            each if each.name != rule.name else each._replace(deny=rule.deny - set(words)) for each in policy.rules
        )
    )
    return [*found, Change("rule {0!r}, `deny`: without {1}".format(rule.name, ", ".join(words)), less)]


def _with_subject(policy: Resolved, name: str, who: SubjectSet) -> Resolved:
    return policy._replace(subjects=dict(policy.subjects, **{name: who}))


def _user(system: Any, number: int) -> str:
    name = system.user_name(number)
    return events.text(name.encode("utf-8", "surrogateescape")) if name else str(number)


def _group(system: Any, number: int) -> str:
    return system.group_name(number) or str(number)


def _path(parts: Components) -> str:
    return "/" + "/".join(parts)


def _join(policy: Resolved, name: str, who: Task, system: Any) -> Change:
    """What a set that excepts lacks."""
    have, lacks = policy.subjects[name], []
    if have.users is not None and not who.users <= have.users:
        more = sorted(who.users - have.users)
        lacks.append("`users` with {0}".format(", ".join(_user(system, each) for each in more)))
        have = have._replace(users=have.users | who.users)
    if have.groups is not None and not have.groups & who.memberships:
        own = sorted(who.memberships)
        lacks.append("`groups` with {0}".format(" or ".join(_group(system, each) for each in own[:3])))
        have = have._replace(groups=have.groups | frozenset(own[:1]))
    if have.login_users is not None and who.login_user not in have.login_users and who.login_user != NO_ID:
        lacks.append(f"`login_users` with {_user(system, who.login_user)}")
        have = have._replace(login_users=have.login_users | {who.login_user})
    own = _unit(who)
    if have.services is not None and own and not semantics._in_service(have.services, own):
        lacks.append(f"`services` with {own[-1]}")
        have = have._replace(services=have.services | {own})
    if have.executables is not None and who.executable and not semantics._matches(have.executables, who.executable):
        lacks.append("`executables` with its program")
        have = have._replace(executables=have.executables | {_exactly(who.executable)})
    return Change(
        "subjects {0!r}, which the rule excepts: {1}".format(name, " and ".join(lacks)),
        _with_subject(policy, name, have),
    )


def _unit(who: Task) -> Components:
    """Of the system's own units the one it belongs to. A session is gone tomorrow, and a user's own unit has no name
    there."""
    for place, part in enumerate(who.service or ()):
        if part.endswith(".service"):
            return (who.service or ())[: place + 1]
    return ()


def _exactly(where: Location) -> PathPattern:
    return PathPattern(where.device, where.components)


def _leave(policy: Resolved, rule: Rule, who: Task, system: Any) -> list[Change]:
    """The sets that bind all have to let go of it."""
    texts, changed = [], policy
    for name in sorted(rule.subjects or ()):
        if not semantics._may_be(policy, name, who):
            continue
        have = policy.subjects[name]
        if have.users is not None:
            texts.append(
                "subjects {0!r}: `users` without {1}".format(
                    name, ", ".join(_user(system, each) for each in sorted(have.users & who.users))
                )
            )
            have = have._replace(users=have.users - who.users)
        elif have.groups is not None:
            texts.append(
                "subjects {0!r}: `groups` without {1}, or the user out of it".format(
                    name, ", ".join(_group(system, each) for each in sorted(have.groups & who.groups))
                )
            )
            have = have._replace(groups=have.groups - who.groups)
        elif have.login_users is not None:
            texts.append(f"subjects {name!r}: `login_users` without {_user(system, who.login_user)}")
            have = have._replace(login_users=have.login_users - {who.login_user})
        elif have.services is not None and who.service is not None:
            cut = frozenset(each for each in have.services if who.service[: len(each)] == each)
            texts.append(
                "subjects {0!r}: `services` without {1}".format(
                    name, ", ".join(sorted((each or ("-.slice",))[-1] for each in cut))
                )
            )
            have = have._replace(services=have.services - cut)
        elif have.executables is not None and who.executable is not None:
            texts.append(f"subjects {name!r}: `executables` without what matches {_path(who.executable.components)}")
            have = have._replace(executables=_without(have.executables, who.executable))
        elif have.has_read is not None:
            texts.append(
                "subjects {0!r}: a process that has not read {1}".format(
                    name, ", ".join(sorted(have.has_read & who.labels))
                )
            )
            have = have._replace(has_read=have.has_read - who.labels)
        changed = _with_subject(changed, name, have)
    return [Change(" and ".join(texts), changed)] if texts else []


def _without(patterns: frozenset[PathPattern], where: Location) -> frozenset[PathPattern]:
    return frozenset(each for each in patterns if not semantics._matches((each,), where))


def _objects(policy: Resolved, rule: Rule, asked: Any, system: Any, document: dict[str, Any]) -> list[Change]:
    if isinstance(asked, FileEvent) and rule.resources:
        return _paths(policy, rule, asked.location, system, document)
    if isinstance(asked, NetworkEvent) and rule.destinations:
        return _addresses(policy, rule, asked)
    return []


def _paths(policy: Resolved, rule: Rule, where: Location, system: Any, document: dict[str, Any]) -> list[Change]:
    selection = rule.resources
    assert selection is not None
    negated, names = selection.negated, sorted(selection.names)

    def changed(found: Resolved, name: str, paths: frozenset[PathPattern]) -> Resolved:
        return found._replace(resources=dict(found.resources, **{name: found.resources[name]._replace(paths=paths)}))

    if negated:
        return [
            Change(
                f"resources {name!r}: `paths` with this one",
                changed(policy, name, policy.resources[name].paths | {_exactly(where)}),
            )
            for name in names
        ]
    texts, result = [], policy
    mounts = mountinfo.visible(mountinfo.parse_mounts(system.mountinfo()))
    for name in names:
        paths = policy.resources[name].paths
        if semantics._matches(paths, where):
            said = (document.get("resources") or {}).get(name) or {}
            own = [
                path for path in said.get("paths", ()) if semantics._matches(resolver.translate([path], mounts), where)
            ]
            own += [
                "@" + each
                for each in said.get("abstract_sockets", ())
                if semantics._matches(resolver.abstract([each]), where)
            ]
            texts.append("resources {0!r}: `paths` without {1}".format(name, ", ".join(own) or "what matches this one"))
            result = changed(result, name, _without(paths, where))
    return [Change(" and ".join(texts), result)] if texts else []


def _addresses(policy: Resolved, rule: Rule, asked: NetworkEvent) -> list[Change]:
    selection = rule.destinations
    assert selection is not None
    one = resolver.parse_cidr(asked.address)

    def holds(cidr: str) -> bool:
        return semantics._in(resolver.ipaddress.ip_network(one)[0], cidr)

    found, texts, result = [], [], policy
    for name in sorted(selection.names.difference(BUILT_IN)):
        have = policy.destinations[name]
        if have.vsock is not None:
            continue
        inside = {
            "cidrs": have.cidrs is None or any(map(holds, have.cidrs)),
            "ports": have.ports is None or any(first <= asked.port <= last for first, last in have.ports),
            "protocols": have.protocols is None or asked.protocol in have.protocols,
        }
        if selection.negated:
            more = {
                "cidrs": (one, one),
                "ports": (asked.port, (asked.port, asked.port)),
                "protocols": (events.protocol_name(asked.protocol), asked.protocol),
            }  # in words, as an entry
            lacks = [key for key, holds_it in inside.items() if not holds_it]
            added: dict[str, Any] = {key: (getattr(have, key) or frozenset()) | {more[key][1]} for key in lacks}
            wider = have._replace(**added)
            found.append(
                Change(
                    "destinations {0!r}: {1}".format(
                        name, " and ".join(f"`{key}` with {more[key][0]}" for key in lacks)
                    ),
                    policy._replace(destinations=dict(policy.destinations, **{name: wider})),
                )
            )
        elif all(inside.values()):
            if have.cidrs is not None:
                cut = sorted(filter(holds, have.cidrs))
                texts.append("destinations {0!r}: `cidrs` without {1}".format(name, ", ".join(cut)))
                have = have._replace(cidrs=have.cidrs - set(cut))
            elif have.ports is not None:
                texts.append(f"destinations {name!r}: `ports` without {asked.port}")
                have = have._replace(
                    ports=frozenset(each for each in have.ports if not each[0] <= asked.port <= each[1])
                )
            elif have.protocols is not None:
                texts.append(f"destinations {name!r}: `protocols` without {events.protocol_name(asked.protocol)}")
                have = have._replace(protocols=have.protocols - {asked.protocol})
            result = result._replace(destinations=dict(result.destinations, **{name: have}))
    return found + ([Change(" and ".join(texts), result)] if texts else [])


# ---- for people ---------------------------------------------------------------------------------------------------


def to_text(answers: list[dict[str, Any]], generation: int) -> str:
    lines = []
    for answer in answers:
        record = answer["record"]
        lines.append(trail.to_line(record))
        if record["generation"] != generation:
            lines.append(
                "      generation {0} is no longer in force: {1} is".format(
                    record["generation"], f"generation {generation}" if generation else "none"
                )
            )
        if answer["note"]:
            lines.append("      {0}".format(answer["note"]))
        if answer["changes"]:
            lines.append("      it would pass with any one of these in the policy:")
            lines.extend(f"        {text}" for text in answer["changes"])
        if answer["also"]:
            lines.append(
                "      and only if these let it pass, too: {0}".format(
                    ", ".join(f"rule {name!r}" for name in answer["also"])
                )
            )
    return "\n".join(lines) if lines else "nothing was denied"
