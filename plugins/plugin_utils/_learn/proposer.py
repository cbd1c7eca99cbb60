# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proposes a policy that allows the events observed on hosts and denies others: sets, rules, assertions and notes.
Equal input, in any order, gives an equal proposal. Private to this collection.

There are two kinds of rules. Rules on resources deny access to the sensitive resources, except for the subjects that
were observed to use them. Rules on destinations allow each observed subject only its observed destinations. The latter
select subjects by unit or user alone, so that they cannot be evaded with another program. Exceptions also select
programs."""

from __future__ import annotations

import collections
import datetime
import ipaddress
import re
from typing import Any, Counter, Iterable, Mapping, NamedTuple, Sequence, Tuple, Union

from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import events
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import mountinfo
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions, model, semantics
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import resolver
from ansible_collections.exfil.guard.plugins.plugin_utils._language import assertions as _assert
from ansible_collections.exfil.guard.plugins.plugin_utils._language.document import BUILT_IN

from . import generalise
from .observed import Actor, Seen, Source, task

Id = Union[str, int]
Event = Tuple[str, Seen]  # with the name of its host

FILES, REACHING = ("read", "write"), ("connect", "send")  # the actions of proposed rules
MAX_ASSERTIONS = 5  # on one subject and action
SETS = 56  # of a kind; the rest of the 63 is for the current policy
UNUSED_NETWORKS = ("203.0.113.", "198.51.100.", "192.0.2.")  # reserved for documentation
OWN_UNITS = "exfil-guard"  # prefix of the enforcer's units; a rule with subjects that applies to them would stop them
_PROTOCOLS = ("tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_ID = re.compile(r"[^\x00-\x1f\x7f:,/\ud800-\udfff]+")
_NO_SET_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_LOOPBACK = [ipaddress.ip_network(cidr) for cidr in BUILT_IN["loopback"]["cidrs"]]


class Options(NamedTuple):
    """The options of module learn. ``name``: the prefix of the names of sets and rules. ``resources``: the paths of
    each sensitive set. The numbers are the most items of a kind before they are replaced by a pattern, group or
    range."""

    name: str
    resources: Mapping[str, Sequence[str]] = {}
    files: int = 20
    roots: Sequence[str] = ()
    executables: int = 8
    users: int = 4
    ports: int = 16
    ipv4_prefix: int = 32
    ipv6_prefix: int = 128
    assertions: int = 50
    listed: int = 200
    unbound: Sequence[str] = ()  # units and users without a rule on destinations


class Line(NamedTuple):
    """Equal events as text, with their number and the number of hosts. ``today``: the decisions of the current
    policies."""

    who: str
    what: str
    times: int
    hosts: int
    today: str


class Proposal(NamedTuple):
    """The proposed policy. ``lines``: the events that each rule allows. ``others``: events that no rule covers, at most
    Options.listed; ``left_out``: the number of further ones. ``decided``: the number of events that could be evaluated.
    ``covered``: numbers of events by the current policies' decisions. ``notes``: notes for the reader. ``problems``:
    why no policy can be proposed."""

    subjects: dict[str, dict[str, Any]]
    resources: dict[str, dict[str, Any]]
    destinations: dict[str, dict[str, Any]]
    rules: list[dict[str, Any]]
    assertions: list[dict[str, Any]]
    lines: dict[str, list[Line]]
    others: list[Line]
    left_out: int
    notes: list[str]
    decided: int
    covered: dict[str, int]
    problems: list[str]


# ---- hosts --------------------------------------------------------------------------------------------------------


class ObservedSystem(_assert.SymbolicSystem):
    """A host as far as it was observed: the IDs of its users and the cgroups of its units. All other names exist, too.
    The name of a group has a made-up ID, which all its members have."""

    def __init__(self, seen: Iterable[Seen]) -> None:
        super().__init__()
        self._users: dict[str, int] = {}
        self._cgroups: dict[str, model.Components] = {}
        for actor in {event.actor for event in seen}:
            pairs = ((actor.user, actor.uid), (actor.effective_user, actor.euid), (actor.login_user, actor.login_uid))
            self._users.update((name, number) for name, number in pairs if name is not None and number is not None)
            place = unit_place(actor.cgroup)
            if place:
                other = self._cgroups.get(place[-1])
                self._cgroups[place[-1]] = place if other is None else min(place, other)

    def user(self, name: object) -> int:
        """The ID of a user."""
        return self._users[str(name)] if str(name) in self._users else self._number(name)

    def units(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """The properties of units, with their observed cgroups."""
        units: dict[str, dict[str, str]] = super().units(names)
        for name, unit in units.items():
            if name in self._cgroups:
                unit["ControlGroup"] = "/" + "/".join(self._cgroups[name])
        return units


def unit_place(cgroup: model.Components | None) -> model.Components | None:
    """The cgroup of the system service that a cgroup belongs to. None for login sessions and services of a user's
    manager."""
    for size, part in enumerate(cgroup or (), 1):
        if part.endswith(".slice") and part != "user.slice":
            continue
        return (cgroup or ())[:size] if part.endswith(".service") and _UNIT.fullmatch(part) else None
    return None


class _Host:
    """A host with its system and tasks, as the semantics needs them."""

    def __init__(self, source: Source) -> None:
        self.system = ObservedSystem(source.seen)
        self.tasks = {event.actor: task(event.actor, self.system.group) for event in source.seen}

    def event(self, seen: Seen) -> model.FileEvent | model.NetworkEvent | None:
        """The event for the semantics. None if its object is unknown."""
        who = self.tasks[seen.actor]
        if seen.reason != "rule":
            return None
        if seen.action in actions.RESOURCES and seen.path is not None:
            return model.FileEvent(who, seen.action, model.Location(1, mountinfo.split(seen.path)))
        if seen.action in actions.NETWORK and seen.address is not None:
            return model.NetworkEvent(who, seen.action, seen.address, seen.port, resolver.parse_protocol(seen.protocol))
        return None


def replay(document: Mapping[str, Any], sources: Iterable[Source], today: datetime.date) -> tuple[int, list[str]]:
    """Evaluates the events against ``document`` with all rules enforced. Returns the number of events that could be
    evaluated, and a line for each denied one."""
    enforced = dict(
        document,
        mode="enforce",
        rules=[{key: value for key, value in rule.items() if key != "mode"} for rule in document.get("rules") or ()],
    )
    decided, denied = 0, []
    for source in sources:
        host = _Host(source)
        policy = resolver.resolve(enforced, host.system)
        for seen in source.seen:
            event = host.event(seen)
            if event is None:
                continue
            decided += 1
            verdict = semantics.decide(policy, event, today)
            if verdict.outcome != "allow":
                denied.append(f"{source.host}: {_who(seen.actor)}: {seen.action} {_what(seen)}: rule '{verdict.rule}'")
    return decided, sorted(denied)


# ---- who ----------------------------------------------------------------------------------------------------------


class Identity(NamedTuple):
    """A subject: a unit, or all user IDs of a task, and the login user if it narrows the selection."""

    unit: str = ""
    users: tuple[Id, ...] = ()
    login: tuple[Id, ...] = ()

    def body(self) -> dict[str, Any]:
        """The set of subjects that selects it."""
        if self.unit:
            return {"services": [self.unit]}
        return {"users": list(self.users), **({"login_users": list(self.login)} if self.login else {})}

    def __str__(self) -> str:
        if self.unit:
            return self.unit
        login = f" (logged in as {self.login[0]})" if self.login else ""
        return " as ".join(user if isinstance(user, str) else f"user {user}" for user in self.users) + login


def _id(name: str | None, number: int) -> Id:
    """The user as in a policy: the name, or the ID if the name is not valid there."""
    return name if name is not None and _ID.fullmatch(name) and not name.isdigit() else number


def _ids(actor: Actor) -> tuple[Id, ...]:
    real, effective = _id(actor.user, actor.uid), _id(actor.effective_user, actor.euid)
    return (real,) if actor.uid == actor.euid else (real, effective)


def identity(actor: Actor) -> Identity:
    """The subject to except for the actor."""
    place = unit_place(actor.cgroup)
    if place:
        return Identity(place[-1])
    narrows = actor.login_uid is not None and (actor.login_uid != actor.uid or actor.uid != actor.euid)
    return Identity("", _ids(actor), (_id(actor.login_user, actor.login_uid or 0),) if narrows else ())


def bound(actor: Actor, unbound: Iterable[str]) -> Identity | None:
    """The subject of a rule on destinations for the actor. None if it has no such rule. Root's sessions have none: a
    rule with subjects that applies to root would prevent it from changing the policy."""
    place = unit_place(actor.cgroup)
    if place:
        return None if place[-1].startswith(OWN_UNITS) or place[-1] in unbound else Identity(place[-1])
    who = _id(actor.user, actor.uid)
    return None if actor.uid == 0 or str(who) in unbound else Identity("", (who,))


def outside(actor: Actor, unbound: Iterable[str]) -> Identity | None:
    """The user of a unit, as a subject for its processes outside of the unit."""
    who = _id(actor.user, actor.uid)
    return Identity("", (who,)) if unit_place(actor.cgroup) and actor.uid and str(who) not in unbound else None


def _shown(name: str) -> str:
    return events.text(name.encode("utf-8", "surrogateescape"))


def _who(actor: Actor) -> str:
    return f"{identity(actor)}, {_shown(actor.executable) if actor.executable else 'an unknown program'}"


def _what(seen: Seen) -> str:
    """The object as text, with escapes for unprintable characters."""
    if seen.address is not None:
        address = f"[{seen.address}]" if ":" in seen.address else seen.address
        return f"{address}:{seen.port}/{seen.protocol}"
    return _shown(seen.path) if seen.path is not None else seen.object


# ---- the proposal -------------------------------------------------------------------------------------------------


def propose(
    sources: Iterable[Source], options: Options, todays: Mapping[str, Mapping[str, Any] | None], today: datetime.date
) -> Proposal:
    """The proposal for ``sources``. ``todays``: the current document of each host, None if it has none. A proposal with
    too many sets is made again with coarser sets."""
    ordered = sorted(sources, key=lambda source: source.host)
    exact = _Proposer(ordered, options, todays, today, coarse=False).run()
    if not exact.problems:
        return exact
    return _Proposer(ordered, options, todays, today, coarse=True).run()


class _Proposer:
    """Makes one proposal. ``coarse``: exceptions do not select programs, and destinations are combined."""

    def __init__(
        self,
        sources: list[Source],
        options: Options,
        todays: Mapping[str, Mapping[str, Any] | None],
        today: datetime.date,
        coarse: bool,
    ) -> None:
        self.sources, self.options, self.todays, self.today, self.coarse = sources, options, todays, today, coarse
        self.hosts = {source.host: _Host(source) for source in sources}
        self.events: list[Event] = [(source.host, seen) for source in sources for seen in source.seen]
        self.sets: dict[str, dict[str, dict[str, Any]]] = {"subjects": {}, "resources": {}, "destinations": {}}
        self.rules: list[dict[str, Any]] = []
        self.of_rule: dict[str, list[Event]] = {}
        self.notes: list[str] = []
        self.verdicts: dict[Event, str] = {}
        self.assertions: list[dict[str, Any]] = []
        self.prefix = _NO_SET_NAME.sub("-", options.name).strip("-._") or "hosts"

    def run(self) -> Proposal:
        """The proposal."""
        covered = self._decide_today()
        self._resources()
        self._reaching()
        self._assert()
        others, left_out = self._others()
        lines = {name: self._lines(events) for name, events in self.of_rule.items()}
        if self.coarse:
            self.notes.append(
                "There are too many subjects and destinations for separate sets: exceptions do not select "
                "programs, and a subject may use all its addresses with all its ports"
            )
        problems = [
            f"the proposal needs {len(found)} sets of {kind}, but at most {SETS} fit beside the current policy. "
            "Learn from fewer hosts at a time, or set `unbound`, `ipv4_prefix` or `ports`"
            for kind, found in self.sets.items()
            if len(found) > SETS
        ]
        return Proposal(
            **self.sets,
            rules=self.rules,
            assertions=self.assertions,
            lines=lines,
            others=others,
            left_out=left_out,
            notes=self._all_notes(),
            covered=covered,
            problems=problems,
            decided=sum(1 for host, seen in self.events if self.hosts[host].event(seen) is not None),
        )

    # -- the current policy

    def _decide_today(self) -> dict[str, int]:
        policies = {}
        for host, found in self.hosts.items():
            document = self.todays.get(host)
            policies[host] = None if document is None else resolver.resolve(dict(document), found.system)
        counts: Counter[str] = collections.Counter()
        for host, seen in self.events:
            policy, event = policies[host], self.hosts[host].event(seen)
            if seen.rule:
                kind = text = f"reported by '{seen.rule}'"
            elif event is None:
                kind = text = "not decided"
            elif policy is None:
                kind, text = "no policy", "no policy"
            else:
                verdict = semantics.decide(policy, event, self.today)
                kind = {"deny": "denied", "audit": "reported"}.get(verdict.outcome, "let pass")
                text = f"{kind} by '{verdict.rule}'" if verdict.rule else kind
            self.verdicts[host, seen] = text
            counts[kind.partition(" by ")[0]] += seen.times
        return dict(sorted(counts.items()))

    # -- rules on resources

    def _resources(self) -> None:
        for name in sorted(self.options.resources):
            paths = sorted(set(self.options.resources[name]))
            self.sets["resources"][name] = {"paths": paths}
            patterns = [mountinfo.split(path) for path in paths]
            used: dict[str, list[Event]] = {action: [] for action in FILES}
            for host, seen in self.events:
                if (
                    seen.action in used
                    and seen.path is not None
                    and seen.reason == "rule"
                    and any(semantics.matches(pattern, mountinfo.split(seen.path)) for pattern in patterns)
                ):
                    used[seen.action].append((host, seen))
            known = [action for action in FILES if self._was_observed(action, f"no rule denies it on {name}")]
            every = [event for events in used.values() for event in events]
            excepted = {
                action: tuple(sorted(self._excepted(name, used[action]) | self._excepted_today(every, action)))
                for action in known
            }
            for names in sorted(set(excepted.values()), reverse=True):
                denied = [action for action in known if excepted[action] == names]
                self._rule(
                    _resource_rule(self.options.name, name, denied, bool(names)),
                    [event for action in denied for event in used[action]],
                    deny=denied,
                    resources=[name],
                    **({"except": list(names)} if names else {}),
                )
            if not any(used.values()):
                self.notes.append(f"No use of {name} was observed: when enforced, the rules deny it to all subjects")
            root = sorted(
                {
                    str(identity(seen.actor))
                    for events in used.values()
                    for _host, seen in events
                    if bound(seen.actor, self.options.unbound) is None
                }
            )
            if root:
                self.notes.append(
                    f"{', '.join(root)} used {name} and may send it to any destination: no rule on destinations "
                    "applies to root's sessions, the enforcer's units and subjects in `unbound`"
                )

    def _excepted(self, resource: str, events: list[Event]) -> set[str]:
        """The names of the sets that select the subjects of ``events``."""
        by_identity: dict[Identity, list[Event]] = {}
        for host, seen in events:
            by_identity.setdefault(identity(seen.actor), []).append((host, seen))
        group = self._group(by_identity)
        names = set()
        if group:
            of_group = [
                subject for subject in by_identity if not subject.unit and not subject.login and len(subject.users) == 1
            ]
            together = [event for subject in of_group for event in by_identity.pop(subject)]
            names.add(self._subject(f"group {group}", {"groups": [group]}, together, resource))
        if self.coarse:
            units = sorted(subject.unit for subject in by_identity if subject.unit)
            for unit in units:
                del by_identity[Identity(unit)]
            if units:
                names.add(self._subject("services", {"services": units}, events, resource))
        for subject in sorted(by_identity, key=str):
            names.add(self._subject(str(subject), subject.body(), by_identity[subject], resource))
        return names

    def _was_observed(self, action: str, otherwise: str) -> bool:
        """Whether the action was observed on all hosts. Otherwise there are no rules on it."""
        missing = [source.host for source in self.sources if action not in source.observed_actions]
        if missing:
            self._note(f"On {', '.join(missing)} {action} was not observed: {otherwise}")
        return not missing

    def _reporting(self, found: Iterable[Event]) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        """The current rules that reported these events: host, rule and document."""
        reporting: dict[tuple[str, str], tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {}
        for host, name in sorted({(host, seen.rule) for host, seen in found if seen.rule}):
            document = self.todays.get(host) or {}
            rule = next((candidate for candidate in document.get("rules") or () if candidate["name"] == name), None)
            if rule is None:
                self._note(f"{host} no longer has rule '{name}', which reported some of the events")
            else:
                reporting[host, name] = host, rule, document
        return [reporting[key] for key in sorted(reporting)]

    def _excepted_today(self, found: Iterable[Event], action: str) -> set[str]:
        """The exceptions of the reporting rules. A rule does not report its exceptions, so they are kept for all its
        actions, also for actions that nobody else was observed to do."""
        names = set()
        for _host, rule, document in self._reporting(found):
            if action not in rule["deny"]:
                continue
            if "subjects" in rule:
                self._note(
                    f"Rule '{rule['name']}' reported only its own subjects. Events of other subjects are missing"
                )
            for name in rule.get("except", ()):
                names.add(self._named("subjects", f"today {name}", dict(document["subjects"][name])))
        return names

    def _let_pass_today(self, found: Iterable[Event]) -> list[str]:
        """The allowed destinations of the reporting rules. A rule does not report them, so they are kept."""
        names = set()
        for _host, rule, document in self._reporting(found):
            where = rule.get("destinations")
            if not isinstance(where, dict):
                self._note(f"Rule '{rule['name']}' reported only its own destinations. Other destinations are missing")
            for name in where["not"] if isinstance(where, dict) else ():
                built_in = name in BUILT_IN
                names.add(
                    name
                    if built_in
                    else self._named("destinations", f"today {name}", dict(document["destinations"][name]))
                )
        return sorted(names)

    def _group(self, by_identity: Mapping[Identity, Any]) -> str | None:
        """A group that has exactly the users of ``by_identity``, if they are more than Options.users."""
        users = {
            subject.users[0]
            for subject in by_identity
            if not subject.unit and not subject.login and len(subject.users) == 1
        }
        if len(users) <= self.options.users:
            return None
        having: dict[str, set[Id]] = {}
        common: set[str] | None = None
        for actor in {seen.actor for _host, seen in self.events}:
            who = _id(actor.user, actor.uid)
            for name in actor.group_names:
                having.setdefault(name, set()).add(who)
            if who in users and not unit_place(actor.cgroup):
                common = set(actor.group_names) if common is None else common & set(actor.group_names)
        exact = sorted(
            name for name in common or () if having[name] == users and _ID.fullmatch(name) and not name.isdigit()
        )
        return exact[0] if exact else None

    def _subject(self, about: str, body: dict[str, Any], events: Iterable[Event], resource: str) -> str:
        programs = {seen.actor.executable for _host, seen in events}
        why = ""
        if self.coarse:
            pass
        elif None in programs:
            why = "one is unknown"
        elif not all(generalise.sayable(str(program)) for program in programs):
            why = "the name of one is not possible in a policy"
        elif len(programs) > self.options.executables:
            why = f"there are {len(programs)}"
        else:
            body = dict(body, executables=sorted(map(str, programs)))
        if why:
            self.notes.append(f"{about} is excepted for {resource} with any program: of its programs {why}")
        return self._named("subjects", about, body)

    # -- rules on destinations

    def _reaching(self) -> None:
        if not all([self._was_observed(action, "there are no rules on destinations") for action in REACHING]):
            return
        # audit records do not show that a subject used no destinations
        audit = {source.host for source in self.sources if source.audit}
        who = sorted(
            {
                subject
                for subject in (
                    bound(seen.actor, self.options.unbound)
                    for host, seen in self.events
                    if host not in audit or (seen.action in REACHING and seen.address is not None)
                )
                if subject is not None
            }
            | (
                {
                    subject
                    for subject in (outside(seen.actor, self.options.unbound) for _host, seen in self.events)
                    if subject is not None
                }
                if not audit
                else set()
            ),
            key=str,
        )
        units = [subject for subject in who if subject.unit] + [
            Identity(name) for name in self.options.unbound if name.endswith(".service")
        ]
        reached = self._reached(who, units)
        groups: dict[tuple[bool, str], list[Identity]] = {}
        allowed: dict[str, list[dict[str, Any]]] = {}
        for subject in who:
            bodies = self._endpoints(reached[subject])
            bodies += [{"set": name} for name in self._let_pass_today(reached[subject])]
            groups.setdefault((bool(subject.unit), repr(bodies)), []).append(subject)
            allowed[repr(bodies)] = bodies
        by_unit = {key: members for key, members in groups.items() if key[0]}
        unit_sets = []
        for (_is_unit, key), members in sorted(by_unit.items(), key=lambda group: _together(group[1])):
            unit_sets.append(self._reach(members, allowed[key], reached, ()))
        free = sorted(name for name in self.options.unbound if name.endswith(".service"))
        by_user = [(key, members) for key, members in groups.items() if not key[0]]
        if free and by_user:
            unit_sets.append(self._named("subjects", "unbound", {"services": free, "optional": True}))
        for (_is_unit, key), members in sorted(by_user, key=lambda group: _together(group[1])):
            self._reach(members, allowed[key], reached, unit_sets)

    def _reached(self, who: list[Identity], units: list[Identity]) -> dict[Identity, list[Event]]:
        """The events to which each subject's rule would apply, by the semantics. The rule of a unit applies to its
        processes, the rule of its user does not."""
        subjects = {str(number): subject.body() for number, subject in enumerate([*who, *units])}
        excepted = [str(number) for number in range(len(who), len(subjects))]
        rules = [
            {
                "name": str(number),
                "deny": list(REACHING),
                "subjects": [str(number)],
                "destinations": {"not": []},
                **({} if subject.unit else {"except": excepted}),
            }
            for number, subject in enumerate(who)
        ]
        document = {"mode": "enforce", "subjects": subjects, "rules": rules}
        found: dict[Identity, list[Event]] = {subject: [] for subject in who}
        for source in self.sources:
            host = self.hosts[source.host]
            policy = resolver.resolve(document, host.system)
            binding = {
                actor: [
                    who[int(rule.name)]
                    for rule in policy.rules
                    if semantics.binds(policy, rule, one) and not semantics.excepts(policy, rule, one)
                ]
                for actor, one in host.tasks.items()
            }
            for seen in source.seen:
                if seen.action in REACHING and host.event(seen) is not None:
                    for subject in binding[seen.actor]:
                        found[subject].append((source.host, seen))
        return found

    def _endpoints(self, events: Iterable[Event]) -> list[dict[str, Any]]:
        """The destination sets of the events: exact, except for prefixes and port ranges of the options."""
        numbers: dict[tuple[str, str], set[int]] = {}
        local = False
        for _host, seen in events:
            address = ipaddress.ip_address(str(seen.address))
            if any(address.version == loopback.version and address in loopback for loopback in _LOOPBACK):
                local = True
                continue
            prefix = self.options.ipv4_prefix if address.version == 4 else self.options.ipv6_prefix
            network = str(ipaddress.ip_network((address, prefix), strict=False))
            numbers.setdefault((seen.protocol, network), set()).add(seen.port)
        ports: dict[tuple[str, str], tuple[int | str, ...]] = {
            key: tuple(generalise.ports(found, self.options.ports)) for key, found in numbers.items()
        }
        if self.coarse:
            every = tuple(generalise.ports({port for found in numbers.values() for port in found}, self.options.ports))
            ports = {key: every for key in ports}
        networks: dict[tuple[str, tuple[int | str, ...]], set[str]] = {}
        for (protocol, network), found_ports in ports.items():
            networks.setdefault((protocol, found_ports), set()).add(network)
        if self.coarse:
            whole = {network for found in networks.values() for network in found}
            networks = {key: whole for key in networks}
        protocols: dict[tuple[tuple[str, ...], tuple[int | str, ...]], set[str]] = {}
        for (protocol, found_ports), found in networks.items():
            protocols.setdefault((tuple(sorted(found, key=_network_order)), found_ports), set()).add(protocol)
        bodies = []
        for (cidrs, found_ports), named in protocols.items():
            body: dict[str, Any] = {"cidrs": list(cidrs), "ports": list(found_ports)}
            if named <= set(_PROTOCOLS):
                body["protocols"] = sorted(named)
            else:
                odd = ", ".join(sorted(named - set(_PROTOCOLS)))
                self._note(
                    f"The language has no name for IP protocol {odd}: any protocol is allowed to "
                    f"{', '.join(cidrs)} at port {', '.join(map(str, found_ports))}"
                )
            bodies.append(body)
        return ([{"set": "loopback"}] if local else []) + sorted(bodies, key=repr)

    def _reach(
        self,
        members: list[Identity],
        bodies: list[dict[str, Any]],
        reached: Mapping[Identity, list[Event]],
        excepted: Sequence[str],
    ) -> str:
        """Adds a rule on subjects with the same destinations. Returns the name of their set."""
        first, units = members[0], bool(members[0].unit)
        events = [event for member in members for event in reached[member]]
        key = "services" if units else "users"
        values = sorted({value for member in members for value in member.body()[key]}, key=_id_order)
        about = str(first) if len(members) == 1 else _crowd(members, bool(bodies))
        name = self._named("subjects", about, {key: values})
        destinations = []
        for body in bodies:
            if "set" in body:
                destinations.append(body["set"])
            else:
                about_set = f"to {_protocols(body)} {_few(body['ports'])}"
                destinations.append(self._named("destinations", about_set, body))
        reach = "reaches" if len(members) == 1 else "reach"
        text = f"{about} {reach} {'only what was seen' if bodies else 'nothing, as was seen'}"
        self._rule(
            f"{self.options.name}: {text}",
            events,
            deny=list(REACHING),
            subjects=[name],
            destinations={"not": sorted(set(destinations))},
            **({"except": list(excepted)} if excepted else {}),
        )
        return name

    # -- names

    def _rule(self, name: str, events: list[Event], **body: object) -> None:
        name = _short(name, {rule["name"] for rule in self.rules}, 95, " ")
        self.rules.append({"name": name, **body})
        self.of_rule[name] = events

    def _named(self, kind: str, about: str, body: dict[str, Any]) -> str:
        """The name of a set, which is added unless it exists. A set that a host may lack is optional."""
        if kind == "subjects" and "optional" not in body and self._may_lack(body):
            body = dict(body, optional=True)
        for name, existing in self.sets[kind].items():
            if existing == body:
                return name
        stem = f"{self.prefix}-{_NO_SET_NAME.sub('-', about).strip('-._') or 'some'}"
        name = _short(stem, set(self.sets[kind]) | set(BUILT_IN), 63, "-")
        self.sets[kind][name] = body
        return name

    def _may_lack(self, body: Mapping[str, Any]) -> bool:
        """Whether the set has something that was not observed on every host, or a transient unit."""
        if any(str(unit).startswith("run-") for unit in body.get("services", ())):
            return True
        for key in ("users", "login_users", "groups", "services", "executables"):
            for value in body.get(key, ()):
                if any(value not in self._there(source)[key] for source in self.sources):
                    return True
        return False

    def _there(self, source: Source) -> dict[str, set[Any]]:
        if not hasattr(self, "_known"):
            self._known: dict[str, dict[str, set[Any]]] = {}
        if source.host not in self._known:
            actors = {seen.actor for seen in source.seen}
            users = {user for actor in actors for user in _ids(actor)} | {0, "root"}
            users |= {_id(actor.login_user, actor.login_uid) for actor in actors if actor.login_uid is not None}
            self._known[source.host] = {
                "users": users,
                "login_users": users,
                "groups": {name for actor in actors for name in actor.group_names},
                "services": {place[-1] for place in (unit_place(actor.cgroup) for actor in actors) if place},
                "executables": {actor.executable for actor in actors},
            }
        return self._known[source.host]

    # -- notes and comments

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _all_notes(self) -> list[str]:
        notes = sorted(set(self.notes))
        undecided = sum(
            seen.times
            for host, seen in self.events
            if seen.action in FILES + REACHING and self.hosts[host].event(seen) is None
        )
        if undecided:
            notes.append(
                f"The objects of {undecided} reads, writes, connects and sends are unknown: no rule was made for "
                "them, and a rule may deny them"
            )
        for source in self.sources:
            lost = ", ".join(f"{count} {reason}" for reason, count in source.lost.items())
            if lost:
                notes.append(f"Events of {source.host} are missing: {lost} lost. The proposal may deny them")
            if source.cut:
                notes.append(f"The end of the file of {source.host} is missing. The proposal may deny its events")
        return notes

    def _lines(self, events: Iterable[Event]) -> list[Line]:
        found: dict[tuple[str, str], list[Event]] = {}
        for (who, action, what), group in self._generalised(events).items():
            found[who, f"{action} {what}"] = group
        return self._counted(found)

    def _generalised(self, events: Iterable[Event]) -> dict[tuple[str, str, str], list[Event]]:
        """The events by subject, action and object, with a pattern in place of many paths."""
        groups: dict[tuple[str, str], dict[str, list[Event]]] = {}
        for host, seen in events:
            by = groups.setdefault((_who(seen.actor), seen.action), {})
            by.setdefault(_what(seen) if seen.path is None else seen.path, []).append((host, seen))
        found: dict[tuple[str, str, str], list[Event]] = {}
        for (who, action), objects in groups.items():
            same = objects.values()
            paths = {str(seen.path) for events in same for _host, seen in events if seen.path is not None}
            sayable = {path for path in paths if generalise.sayable(path)}
            patterns = generalise.patterns(sayable, self.options.files, self.options.roots)
            for pattern, covered in patterns.items():
                shown = _shown(pattern) if len(covered) == 1 else f"{_shown(pattern)} ({len(covered)} files)"
                found[who, action, shown] = [event for path in sorted(covered) for event in objects[path]]
            for path in paths - sayable:
                found[who, action, f"{_shown(path)} (not possible in a policy)"] = objects[path]
            for what in set(objects) - paths:
                found[who, action, what] = objects[what]
        return found

    def _counted(self, found: Mapping[tuple[str, str], list[Event]]) -> list[Line]:
        lines = []
        for (who, what), group in found.items():
            today = "; ".join(sorted({self.verdicts[event] for event in group}))
            lines.append(
                Line(who, what, sum(seen.times for _host, seen in group), len({host for host, _seen in group}), today)
            )
        return sorted(lines, key=lambda line: (line.who, -line.times, line.what))

    def _others(self) -> tuple[list[Line], int]:
        covered = {event for events in self.of_rule.values() for event in events}
        rest = [event for event in self.events if event not in covered]
        found = {
            (who, f"{action} {what}".strip()): events for (who, action, what), events in self._generalised(rest).items()
        }
        lines = sorted(self._counted(found), key=lambda line: (-line.times, line.who, line.what))
        return sorted(lines[: self.options.listed]), len(lines[self.options.listed :])

    # -- assertions

    def _assert(self) -> None:
        """Adds assertions that the most frequent events of each subject are allowed, at most Options.assertions, and
        that another event is denied."""
        system = _assert.SymbolicSystem()
        document: dict[str, Any] = {"mode": "enforce", "rules": self.rules, **self.sets}
        document["destinations"] = {**BUILT_IN, **self.sets["destinations"]}
        policies = [resolver.resolve(document, system)]
        policies += [
            resolver.resolve(dict(document, mode="enforce"), system)
            for _host, document in sorted(self.todays.items())
            if document is not None
        ]

        def holds(assertion: dict[str, Any], policies: Sequence[model.Resolved], outcome: str) -> bool:
            event = _assert.event(assertion, system)
            return all(
                (semantics.decide(policy, event, self.today).outcome == "deny") == (outcome == "deny")
                for policy in policies
            )

        named = frozenset(
            name
            for current in self.todays.values()
            if current
            for body in current["subjects"].values()
            for name in body.get("groups", ())
        ) | frozenset(name for body in self.sets["subjects"].values() for name in body.get("groups", ()))
        counts: Counter[tuple[tuple[str, Any], ...]] = collections.Counter()
        for _host, seen in {event for allowed in self.of_rule.values() for event in allowed}:
            counts[_frozen(_assertion(seen, named))] += seen.times
        counts.pop((), None)
        taken: Counter[Any] = collections.Counter()
        order = []
        for key, count in sorted(counts.items(), key=lambda item: (-item[1], repr(item[0]))):
            subject = tuple(part for part in key if part[0] in ("user", "service", "action"))
            if taken[subject] >= MAX_ASSERTIONS:
                continue
            order.append((taken[subject], -count, key))  # the first of each subject before the second of any
            taken[subject] += 1
        for _place, _count, key in sorted(order, key=lambda entry: (entry[0], entry[1], repr(entry[2]))):
            if len(self.assertions) >= self.options.assertions:
                break
            assertion = {name: list(value) if isinstance(value, tuple) else value for name, value in key}
            if holds(assertion, policies, "allow"):
                self.assertions.append(dict(assertion, expect="allow"))
        for rule in self.rules:  # the current policy has its own assertions
            attempt = self._elsewhere(rule)
            if attempt and holds(attempt, policies[:1], "deny") and holds(attempt, policies[1:], "allow"):
                self.assertions.append(dict(attempt, expect="deny"))

    def _elsewhere(self, rule: Mapping[str, Any]) -> dict[str, Any] | None:
        """An event that the rule denies: its subject with an object that was not used."""
        if "resources" in rule:
            path = next(iter(self.sets["resources"][rule["resources"][0]]["paths"]), "")
            literal = path[: -len("/**")] if path.endswith("/**") else path
            return None if "*" in literal or not literal else {"action": rule["deny"][0], "path": literal}
        body = self.sets["subjects"][rule["subjects"][0]]
        who = {"service": body["services"][0]} if "services" in body else {"user": body["users"][0]}
        used = {str(seen.address) for _host, seen in self.of_rule[rule["name"]]}
        for network in UNUSED_NETWORKS:
            if not any(address.startswith(network) for address in used):
                return dict(who, action="connect", address=network + "1", port=443)
        return None


# ---- small parts --------------------------------------------------------------------------------------------------


def _assertion(seen: Seen, groups: frozenset[str]) -> dict[str, Any]:
    """The assertion about an event. Empty if an assertion cannot describe it."""
    actor = seen.actor
    found: dict[str, Any] = {}
    if actor.uid != actor.euid:
        return {}
    place = unit_place(actor.cgroup)
    found["user"] = _id(actor.user, actor.uid)
    if actor.login_uid is not None and actor.login_uid != actor.uid:
        found["login_user"] = _id(actor.login_user, actor.login_uid)
    named = sorted(groups.intersection(actor.group_names))
    if named:
        found["groups"] = named
    if place:
        found["service"] = place[-1]
    if actor.executable is not None and _is_text(actor.executable):
        found["executable"] = actor.executable
    found["action"] = seen.action
    if seen.path is not None:
        return dict(found, path=seen.path) if _is_text(seen.path) else {}
    if seen.protocol not in _PROTOCOLS:
        return {}
    return dict(found, address=seen.address, port=seen.port, protocol=seen.protocol)


def _is_text(path: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in path)


def _frozen(assertion: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in assertion.items())


def _resource_rule(group: str, name: str, denied: list[str], used: bool) -> str:
    passive = {"read": "read", "write": "written"}
    done = " and ".join(passive[action] for action in denied)
    seen = " and ".join(denied)
    return f"{group}: {name} is {done} by " + (f"those that were seen to {seen} it" if used else "nobody, as was seen")


def _crowd(members: list[Identity], reaching: bool) -> str:
    kind = "services" if members[0].unit else "users"
    if not reaching:
        return f"{kind} without network"
    return f"{members[0]} and {len(members) - 1} more {kind}"


def _together(members: list[Identity]) -> tuple[str, ...]:
    return tuple(map(str, members))


def _protocols(body: Mapping[str, Any]) -> str:
    return " ".join(body.get("protocols", ("any",)))


def _few(values: Sequence[Any]) -> str:
    return " ".join(map(str, values[:3])) + (" and more" if values[3:] else "")


def _id_order(value: Id) -> tuple[bool, Any]:
    return isinstance(value, str), value


def _network_order(text: str) -> tuple[int, Any]:
    network = ipaddress.ip_network(text)
    return network.version, network


def _short(text: str, taken: set[str], most: int, joint: str) -> str:
    """The text with at most ``most`` bytes, made different from all of ``taken``."""
    number = 1
    while True:
        tail = "" if number == 1 else f"{joint}{number}"
        head = text.encode("utf-8")[: most - len(tail)].decode("utf-8", "ignore").rstrip("-._ ")
        if head + tail not in taken:
            return head + tail
        number += 1
