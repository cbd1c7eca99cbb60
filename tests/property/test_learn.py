# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever was seen, the proposal is a valid policy that denies none of it, whatever order it is told in, and what was
not seen is denied to whom it binds."""

from __future__ import annotations

import datetime
import json

import jinja2
from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import events
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import model, semantics
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import resolver
from ansible_collections.exfil.guard.plugins.plugin_utils._language import pipeline
from ansible_collections.exfil.guard.plugins.plugin_utils._learn import observed, proposer, template
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TODAY = datetime.date(2026, 11, 28)
TIME = "2026-11-28T10:00:00.000+00:00"
NAMES = {0: "root", 1000: "alice", 1001: "b*b", 1002: None, 33: "www-data", 1003: "{{ x }}", 1004: "true"}
CGROUPS = (
    "/system.slice/web.service",
    "/system.slice/db.slice/db@1.service",
    "/system.slice/web.service/child",
    "/init.scope",
    "/user.slice/user-1000.slice/session-3.scope",
    "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
    "/system.slice/run-u7.service",
    "/system.slice/exfil-guard-audit.service",
    "/",
    "/system.slice/a\\x2db.service",
)
PARTS = st.one_of(
    st.sampled_from(
        ["a", "b", "data", "*", "a*.csv", "{{ 1 }}", "{% x %}", "{#", "no", "- x", "\udcff", "#", ": ", "'", '"', "\\"]
    ),
    st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=6),
).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)) | st.builds(
    lambda number: f"/srv/data/{number}", st.integers(0, 60)
)
ADDRESSES = st.sampled_from(
    ["10.0.0.1", "10.0.0.2", "10.0.1.1", "127.0.0.1", "::1", "fd00::1", "::ffff:10.0.0.1", "224.0.0.251", "203.0.113.9"]
)
RESOURCES = st.dictionaries(
    st.sampled_from(["data", "other", "keys"]),
    st.lists(
        st.sampled_from(["/srv/data/**", "/a/**", "/**", "/b", "/srv/data/1", "/*/a", "/data/*.csv"]),
        min_size=1,
        unique=True,
    ),
)


def escaped(name):
    return events.text(name.encode("utf-8", "surrogateescape"))


@st.composite
def lines(draw):
    uid, euid = draw(st.sampled_from(sorted(NAMES))), draw(st.sampled_from(sorted(NAMES)))
    uid, euid = (uid, euid) if draw(st.integers(0, 4)) == 0 else (uid, uid)
    line = {
        "observation": 1,
        "kind": "seen",
        "time": TIME,
        "last_time": TIME,
        "count": draw(st.integers(1, 9)),
        "uid": uid,
        "euid": euid,
        "gid": uid,
        "groups": draw(st.lists(st.sampled_from([10, 20]), unique=True)),
        "cgroup": escaped(draw(st.sampled_from(CGROUPS))),
    }
    if NAMES[uid]:
        line["user"] = NAMES[uid]
    if NAMES[euid]:
        line["effective_user"] = NAMES[euid]
    if draw(st.booleans()):
        line.update(login_uid=1000, login_user="alice")
    line["group_names"] = [{10: "staff", 20: "dba"}[each] for each in line["groups"]]
    program = draw(st.sampled_from(["/usr/bin/cat", "/usr/bin/psql", "/opt/{{ x }}", "/opt/*", "[...]/cut", None]))
    if program:
        line["executable"] = escaped(program)
    action = draw(
        st.sampled_from(
            [
                "read",
                "write",
                "read",
                "connect",
                "send",
                "connect",
                "execute",
                "bind",
                "accept",
                "unix-connect",
                "chdir",
            ]
        )
    )
    line["action"] = action
    if action in ("connect", "send", "bind", "accept"):
        line.update(
            address=draw(ADDRESSES),
            port=draw(st.sampled_from([0, 53, 443, 5432]) | st.integers(32768, 65535)),
            protocol=draw(st.sampled_from(["tcp", "udp", "icmp", "47"])),
        )
        line["object"] = "{address}:{port}/{protocol}".format(**line)
    else:
        line["path"] = line["object"] = escaped(draw(PATHS))
    return line


def observation(host, seen):
    start = {
        "observation": 1,
        "kind": "start",
        "time": TIME,
        "host": host,
        "boot": "b",
        "kernel": "6.1.0",
        "seconds": 60,
        "actions": ["read", "write", "execute", "connect", "send", "bind", "accept", "unix-connect", "chdir"],
    }
    end = {"observation": 1, "kind": "end", "time": TIME, "lines": len(seen) + 1, "lost": {}}
    return "".join(json.dumps(each) + "\n" for each in (start, *seen, end)).encode()


def sources_of(hosts):
    found = []
    for host, seen in hosts:
        source, problems = observed.read(host + ".jsonl", observation(host, seen), [host])
        assert problems == []
        found.append(source)
    return found


OBSERVED = st.lists(st.lists(lines(), min_size=1, max_size=25), min_size=1, max_size=3).map(
    lambda hosts: [(f"host{number}", seen) for number, seen in enumerate(hosts)]
)
OPTIONS = st.builds(
    proposer.Options,
    st.sampled_from(["db", "db:&prod", "{{ x }}", "\u00e9"]),
    RESOURCES,
    files=st.integers(1, 5),
    executables=st.integers(1, 3),
    users=st.integers(1, 3),
    ports=st.integers(1, 3),
    ipv4_prefix=st.sampled_from([0, 24, 32]),
    ipv6_prefix=st.sampled_from([64, 128]),
    assertions=st.integers(0, 20),
    listed=st.integers(0, 20),
    unbound=st.lists(st.sampled_from(["web.service", "alice", "nobody"]), unique=True).map(tuple),
)
tries = settings(
    max_examples=min(settings().max_examples, 3000), deadline=None, suppress_health_check=list(HealthCheck)
)


def rendered(text, **variables):
    return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(text).render(**variables)


def document_of(text):
    return pipeline.document([pipeline.Template("proposal.yml.j2", text)], rendered, TODAY)


@tries
@given(OBSERVED, OPTIONS, st.booleans(), st.randoms(use_true_random=False))
def test_a_proposal_is_valid_and_denies_nothing_that_was_seen(hosts, options, audit_by_rule, random):
    sources = sources_of(hosts)
    todays = {host: None for host, _seen in hosts}
    text = template.to_text(proposer.propose(sources, options, todays, TODAY), options, sources, audit_by_rule)
    document = document_of(text)
    assert audit_by_rule or document["mode"] == "audit"
    assert all(rule.get("mode") == ("audit" if audit_by_rule else None) for rule in document["rules"])
    decided, denied = proposer.replay(document, sources, TODAY)
    assert denied == []
    assert decided == sum(
        1
        for source in sources
        for seen in source.seen
        if seen.address is not None
        or (seen.path is not None and seen.action in ("read", "write", "execute", "unix-connect"))
    )
    enforced = document_of(
        text.replace('learned_mode = "audit"', 'learned_mode = "enforce"').replace("mode: audit", "mode: enforce")
    )
    assert enforced["mode"] == "enforce" and not any(rule.get("mode") == "audit" for rule in enforced["rules"])

    shuffled = [(host, random.sample(seen, len(seen))) for host, seen in random.sample(hosts, len(hosts))]
    again = sources_of(shuffled)
    assert template.to_text(proposer.propose(again, options, todays, TODAY), options, again, audit_by_rule) == text


@tries
@given(OBSERVED, OPTIONS)
def test_what_was_not_seen_is_denied_to_whom_it_binds(hosts, options):
    """Whoever was seen, but root's own sessions, the enforcer's units and what is left out, reaches no other place."""
    sources = sources_of(hosts)
    options = options._replace(ipv4_prefix=32)
    proposal = proposer.propose(sources, options, {host: None for host, _seen in hosts}, TODAY)
    document = document_of(template.to_text(proposal, options, sources, False))
    for source in sources:
        host = proposer._Host(source)
        policy = resolver.resolve(dict(document, mode="enforce"), host.system)
        for actor, task in host.tasks.items():
            event = model.NetworkEvent(task, "send", "198.18.0.1", 443, 6)
            outcome = semantics.decide(policy, event, TODAY).outcome
            free = proposer.bound(actor, options.unbound) is None
            if free and actor.uid == 0 and actor.euid == 0:
                assert outcome == "allow"  # no rule with subjects takes root its means to change the policy
            assert free or outcome == "deny"
