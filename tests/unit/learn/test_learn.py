# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was seen to a proposal: what is read, what is wrong with it, what is proposed, and the module that writes it."""

import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
from ansible_collections.exfil.guard.plugins.action import learn
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import mountinfo
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import semantics
from ansible_collections.exfil.guard.plugins.plugin_utils._language import document as _document
from ansible_collections.exfil.guard.plugins.plugin_utils._language import pipeline
from ansible_collections.exfil.guard.plugins.plugin_utils._learn import generalise, observed, proposer, template

ROOT = Path(__file__).resolve().parents[3]
TODAY = datetime.date(2026, 11, 28)
TIME = "2026-11-28T10:00:00.000+00:00"
ACTIONS = ["read", "write", "execute", "connect", "send", "bind", "unix-connect"]
SESSION = "/user.slice/user-1000.slice/session-3.scope"
POSTGRES = {
    "uid": 110,
    "user": "postgres",
    "cgroup": "/system.slice/system-postgresql.slice/postgresql@15-main.service",
    "executable": "/usr/lib/postgresql/15/bin/postgres",
}
DUMPER = {"uid": 1005, "user": "dumper", "login_uid": 1005, "login_user": "dumper", "executable": "/usr/bin/scp"}
ROOT_USER = {"uid": 0, "user": "root", "executable": "/usr/bin/dig"}
DATA = {"data": ["/var/lib/postgresql/**", "/srv/dumps/**"]}


def seen(who, action, what, count=1, **parts):
    """`what`: a path, or (address, port, protocol)."""
    line = {
        "observation": 1,
        "kind": "seen",
        "time": TIME,
        "last_time": TIME,
        "action": action,
        "count": count,
        "gid": 100,
        "groups": [],
        "cgroup": SESSION,
        **who,
    }
    line.setdefault("euid", line["uid"])
    if isinstance(what, tuple):
        line.update(zip(("address", "port", "protocol"), what))
        line["object"] = "{}:{}/{}".format(*what)
    else:
        line["path"] = line["object"] = what
    if "effective_user" not in line and "user" in line and line["euid"] == line["uid"]:
        line["effective_user"] = line["user"]
    return {**line, **parts}


def start(host="db1", **parts):
    return {
        "observation": 1,
        "kind": "start",
        "time": TIME,
        "host": host,
        "boot": "b",
        "kernel": "6.1.0",
        "seconds": 60,
        "actions": ACTIONS,
        **parts,
    }


def end(lines, **parts):
    return {"observation": 1, "kind": "end", "time": TIME, "lines": lines, "lost": {}, **parts}


def written(*lines):
    return "".join(json.dumps(each) + "\n" for each in lines).encode()


def observation(events, host="db1", **parts):
    return written(start(host, **parts), *events, end(len(events) + 1))


def read(events, host="db1", **parts):
    source, problems = observed.read(host + ".jsonl", observation(events, host, **parts), [host])
    assert problems == []
    return source


def propose(*sources, todays=None, **options):
    options = proposer.Options("db", **{"resources": DATA, **options})
    return proposer.propose(sources, options, todays or {source.host: None for source in sources}, TODAY)


def text_of(proposal, *sources, audit_by_rule=False, **options):
    return template.to_text(proposal, proposer.Options("db", **{"resources": DATA, **options}), sources, audit_by_rule)


def document_of(text):
    return pipeline.document(
        [pipeline.Template("p", text)], lambda source: jinja2.Environment().from_string(source).render(), TODAY
    )


def rules(proposal):
    return {rule["name"]: rule for rule in proposal.rules}


WORKLOAD = [seen(POSTGRES, "read", f"/var/lib/postgresql/15/main/base/{number}", 3) for number in range(30)] + [
    seen(POSTGRES, "write", "/var/lib/postgresql/15/main/base/1"),
    seen(DUMPER, "read", "/srv/dumps/shop.sql"),
    seen(DUMPER, "connect", ("192.168.157.11", 22, "tcp"), 2),
    seen(DUMPER, "send", ("192.168.157.11", 22, "tcp"), 50),
    seen(ROOT_USER, "connect", ("9.9.9.9", 53, "udp")),
]


# ---- what is proposed ---------------------------------------------------------------------------------------------


def test_what_is_sensitive_is_for_those_that_used_it():
    proposal = propose(read(WORKLOAD))
    found = rules(proposal)
    reading, writing = (
        found["db: data is read by those that were seen to read it"],
        found["db: data is written by those that were seen to write it"],
    )
    assert [proposal.subjects[name] for name in reading["except"]] == [
        {"users": ["dumper"], "executables": ["/usr/bin/scp"]},
        {"services": ["postgresql@15-main.service"], "executables": ["/usr/lib/postgresql/15/bin/postgres"]},
    ]
    assert reading["deny"] == ["read"] and writing["deny"] == ["write"] and len(writing["except"]) == 1


def test_who_reached_something_reaches_that_only():
    proposal = propose(read(WORKLOAD))
    rule = rules(proposal)["db: dumper reaches only what was seen"]
    assert proposal.subjects[rule["subjects"][0]] == {"users": ["dumper"]}  # whatever it executes
    assert [proposal.destinations[name] for name in rule["destinations"]["not"]] == [
        {"cidrs": ["192.168.157.11/32"], "ports": [22], "protocols": ["tcp"]}
    ]


@pytest.mark.parametrize(
    "who, action, what, outcome",
    [
        (DUMPER, "send", ("192.168.157.11", 22, "tcp"), "allow"),
        (DUMPER, "send", ("192.168.157.200", 22, "tcp"), "deny"),
        (DUMPER, "connect", ("192.168.157.11", 443, "tcp"), "deny"),
        (POSTGRES, "connect", ("192.168.157.11", 22, "tcp"), "deny"),
        (
            {**POSTGRES, "cgroup": SESSION},
            "connect",
            ("192.168.157.11", 22, "tcp"),
            "deny",
        ),  # the unit's user, elsewhere
        (DUMPER, "read", "/srv/dumps/shop.sql", "allow"),
        ({**DUMPER, "executable": "/usr/bin/curl"}, "read", "/srv/dumps/shop.sql", "deny"),
        ({"uid": 1, "user": "other"}, "read", "/srv/dumps/shop.sql", "deny"),
        (DUMPER, "write", "/srv/dumps/shop.sql", "deny"),
        (ROOT_USER, "connect", ("9.9.9.9", 99, "udp"), "allow"),
    ],
)
def test_the_proposal_enforced(who, action, what, outcome):
    """What was seen passes, the same user at another place or by another program does not, and root can change the policy."""
    source = read(WORKLOAD)
    document = document_of(text_of(propose(source), source))
    other = read([*WORKLOAD, seen(who, action, what)])
    decided, denied = proposer.replay(document, [other], TODAY)
    assert (len(denied) == 1) == (outcome == "deny") and decided >= len(WORKLOAD)


def test_replay_can_find_what_is_denied():
    source = read(WORKLOAD)
    document = document_of(text_of(propose(source), source))
    assert proposer.replay(document, [source], TODAY)[1] == []
    for rule in document["rules"]:
        rule.pop("except", None)
        rule["destinations"] = {"not": []} if "destinations" in rule else rule.get("destinations")
    assert (
        len(
            proposer.replay(
                {
                    **document,
                    "rules": [
                        {key: value for key, value in rule.items() if value is not None} for rule in document["rules"]
                    ],
                },
                [source],
                TODAY,
            )[1]
        )
        == len(WORKLOAD) - 1
    )


def test_what_is_in_no_rule_is_told():
    source = read(
        [
            *WORKLOAD,
            *[seen(DUMPER, "read", f"/opt/app/{number}") for number in range(30)],
            seen(DUMPER, "bind", ("0.0.0.0", 80, "tcp")),
        ]
    )
    text = text_of(propose(source), source)
    assert (
        "# dumper, /usr/bin/scp: read /opt/app/** (30 files): 30 times on 1 host; today no policy" in text.splitlines()
    )
    assert "# root, /usr/bin/dig: connect 9.9.9.9:53/udp: once on 1 host; today no policy" in text.splitlines()
    assert "bind 0.0.0.0:80/tcp" in text and "/opt/app" not in json.dumps(document_of(text))


def test_counts_are_those_of_all_hosts():
    one, two = read(WORKLOAD), read(WORKLOAD, "db2")
    lines = text_of(propose(one, two), one, two).splitlines()
    assert "  # dumper, /usr/bin/scp: send 192.168.157.11:22/tcp: 100 times on 2 hosts; today no policy" in lines


def test_what_a_host_may_lack_is_optional():
    one, two = read(WORKLOAD), read([seen(POSTGRES, "read", "/var/lib/postgresql/x")], "db2")
    proposal = propose(one, two)
    assert {json.dumps(body): body.get("optional", False) for body in proposal.subjects.values()} == {
        json.dumps(body): "dumper" in json.dumps(body) or "scp" in json.dumps(body)
        for body in proposal.subjects.values()
    }


def test_users_that_have_a_group_for_themselves_become_the_group():
    users = [
        seen(
            {"uid": 2000 + number, "user": f"u{number}", "executable": "/usr/bin/psql"},
            "read",
            "/srv/dumps/a",
            gid=50,
            group_names=["staff", "dba"],
        )
        for number in range(6)
    ]
    other = seen({"uid": 3000, "user": "else"}, "read", "/etc/passwd", group_names=["staff"])
    proposal = propose(read([*users, other]))
    assert {"groups": ["dba"], "executables": ["/usr/bin/psql"]} in proposal.subjects.values()
    proposal = propose(read([*users, {**other, "group_names": ["staff", "dba"]}]))
    assert not any("groups" in body for body in proposal.subjects.values())


def test_a_network_only_when_told_so():
    source = read([seen(DUMPER, "connect", (f"10.0.0.{number}", 22, "tcp")) for number in (1, 2)])
    assert propose(source).destinations["db-to-tcp-22"]["cidrs"] == ["10.0.0.1/32", "10.0.0.2/32"]
    assert propose(source, ipv4_prefix=24).destinations["db-to-tcp-22"]["cidrs"] == ["10.0.0.0/24"]


def test_units_of_the_enforcer_and_what_is_left_out_are_not_bound():
    events = [
        seen({"uid": 0, "cgroup": f"/system.slice/{name}.service"}, "connect", ("10.0.0.1", 22, "tcp"))
        for name in ("exfil-guard-audit", "networkd", "web")
    ]
    proposal = propose(read(events), unbound=["networkd.service"])
    assert [body["services"] for body in proposal.subjects.values()] == [["web.service"]]


def test_what_was_not_observed_is_in_no_rule():
    proposal = propose(read(WORKLOAD, actions=["read", "write"]))
    assert all("resources" in rule for rule in proposal.rules) and any(
        "connect was not observed" in note for note in proposal.notes
    )
    proposal = propose(read(WORKLOAD, actions=["connect", "send", "read"]))
    assert not any("write" in rule["deny"] for rule in proposal.rules) and any(
        "On db1 write was not observed" in note for note in proposal.notes
    )


def test_a_resource_that_nobody_used_is_told():
    proposal = propose(read(WORKLOAD), resources={"keys": ["/etc/keys/**"]})
    assert "No use of keys was observed: when enforced, the rules deny it to all subjects" in proposal.notes
    assert rules(proposal)["db: keys is read and written by nobody, as was seen"]["deny"] == ["read", "write"]


def test_today_is_told():
    today = {
        "policy": 1,
        "mode": "enforce",
        "subjects": {},
        "resources": {"dumps": {"paths": ["/srv/dumps/**"]}},
        "destinations": {},
        "assertions": [],
        "rules": [{"name": "no dumps", "deny": ["read"], "resources": ["dumps"]}],
    }
    source = read(WORKLOAD)
    proposal = propose(source, todays={"db1": today})
    assert proposal.covered == {"denied": 1, "let pass": sum(event["count"] for event in WORKLOAD) - 1}
    assert "today denied by 'no dumps'" in text_of(proposal, source)
    pinned = [each for each in proposal.assertions if each["expect"] == "allow"]
    assert pinned and not any(each.get("path", "").startswith("/srv/dumps") for each in pinned)  # it would not hold


def test_assertions_are_bounded_and_everybody_s_first_comes_first():
    proposal = propose(read(WORKLOAD), assertions=3)
    assert len([each for each in proposal.assertions if each["expect"] == "allow"]) == 3
    assert (
        len(
            {
                (each.get("service"), each["user"], each["action"])
                for each in proposal.assertions
                if each["expect"] == "allow"
            }
        )
        == 3
    )


def test_more_sets_than_a_host_takes_are_made_coarser_or_refused():
    many = [
        seen(
            {"uid": 0, "cgroup": f"/system.slice/s{number}.service", "executable": f"/usr/bin/e{number}"},
            "read",
            "/srv/dumps/a",
        )
        for number in range(70)
    ]
    source = read(many)
    proposal = propose(source)
    assert proposal.problems == [] and any("too many subjects" in note for note in proposal.notes)
    assert proposer.replay(document_of(text_of(proposal, source)), [source], TODAY)[1] == []
    apart = [
        seen({"uid": 0, "cgroup": f"/system.slice/s{number}.service"}, "connect", (f"10.0.0.{number}", 22, "tcp"))
        for number in range(70)
    ]
    assert "the proposal needs 70 sets of destinations" in propose(read(apart)).problems[1]


# ---- what audit mode reported -------------------------------------------------------------------------------------


def record(action, what, rule, **parts):
    event = seen(DUMPER, action, what)
    kept = {key: event[key] for key in event if key not in ("observation", "kind", "group_names")}
    return {
        **kept,
        "record": 1,
        "kind": "decision",
        "boottime_ns": 1,
        "boot": "b",
        "host": "db1",
        "sequence": 0,
        "last_sequence": 0,
        "generation": 1,
        "verdict": "audit",
        "rule": rule,
        "reason": "rule",
        "cgroup_id": 1,
        "command": "scp",
        "pid": 1,
        "tid": 1,
        "pids": [1],
        "started": TIME,
        "process_started": 1,
        **parts,
    }


def test_a_proposal_from_the_audit_trail_goes_on_letting_pass_what_is_not_reported():
    today = {
        "policy": 1,
        "mode": "audit",
        "assertions": [],
        "resources": {"dumps": {"paths": ["/srv/dumps/**"]}},
        "subjects": {"dba": {"groups": ["dba"]}},
        "destinations": {"corp": {"cidrs": ["10.0.0.0/8"]}, "loopback": _document.BUILT_IN["loopback"]},
        "rules": [
            {"name": "dumps", "deny": ["read"], "resources": ["dumps"], "except": ["dba"]},
            {"name": "inside", "deny": ["connect", "send"], "destinations": {"not": ["corp", "loopback"]}},
        ],
    }
    source, problems = observed.reported(
        "db1",
        [
            record("read", "/srv/dumps/a", "dumps"),
            record("connect", ("192.0.2.1", 22, "tcp"), "inside"),
            record("read", "/srv/dumps/b", "dumps", verdict="denied", errno="EPERM"),
        ],
    )
    assert problems == [] and len(source.seen) == 2 and source.audit
    proposal = propose(source, todays={"db1": today})
    reading = next(rule for rule in proposal.rules if rule["deny"] == ["read"])
    assert {"groups": ["dba"]} in [
        {key: value for key, value in proposal.subjects[name].items() if key != "optional"}
        for name in reading["except"]
    ]
    reach = rules(proposal)["db: dumper reaches only what was seen"]["destinations"]["not"]
    assert {"cidrs": ["10.0.0.0/8"]} in [proposal.destinations.get(name) for name in reach] and "loopback" in reach
    assert proposer.replay(document_of(text_of(proposal, source)), [source], TODAY) == (2, [])


def test_whom_a_rule_of_today_excepts_goes_on_doing_what_nobody_else_was_seen_to_do():
    today = {
        "policy": 1,
        "mode": "audit",
        "assertions": [],
        "resources": {"dumps": {"paths": ["/srv/dumps/**"]}},
        "subjects": {"dba": {"groups": ["dba"]}},
        "destinations": {},
        "rules": [{"name": "dumps", "deny": ["read", "write"], "resources": ["dumps"], "except": ["dba"]}],
    }
    source, problems = observed.reported("db1", [record("read", "/srv/dumps/a", "dumps")])
    assert problems == []
    proposal = propose(source, todays={"db1": today}, resources={"dumps": ["/srv/dumps/**"]})
    excepted = {
        action: {name for rule in proposal.rules if action in rule["deny"] for name in rule.get("except", ())}
        for action in ("read", "write", "execute")
    }
    dba = {name for name, body in proposal.subjects.items() if body.get("groups") == ["dba"]}
    assert len(dba) == 1 and dba < excepted["read"] and dba == excepted["write"] and excepted["execute"] == set()


def test_an_audit_trail_that_is_none():
    _source, problems = observed.reported(
        "db1", ["x", {**record("read", "/a", "r"), "uid": "0"}, record("read", "/a", "r", unknown=1)]
    )
    assert all(problem.file == "audit trail of db1" for problem in problems) and {
        problem.line for problem in problems
    } == {1, 2, 3}
    assert "no events of audit mode" in str(observed.reported("db1", [])[1][0])


# ---- names that are no names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "{{ 7 + 42 }}",
        "{% for %}",
        "{# x",
        "a\nrules: []",
        "\u2028",
        "- x",
        "yes",
        "#",
        "a: b",
        "'\"\\",
        "é",
        "\x85",
        "😀",
    ],
)
def test_a_name_is_never_anything_else(name):
    from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import events

    program = events.text(("/opt/" + name).encode())
    source = read(
        [
            seen({**DUMPER, "executable": program}, "read", events.text(("/srv/dumps/" + name).encode())),
            seen({**DUMPER, "executable": program}, "read", events.text(("/else/" + name).encode())),
        ]
    )
    text = text_of(propose(source), source)
    document = document_of(text)
    assert [body["executables"] for body in document["subjects"].values() if "executables" in body] == [
        ["/opt/" + name]
    ]
    assert "/srv/dumps/" + name in [each.get("path") for each in document["assertions"]]
    assert len(document["rules"]) == 3 and "49" not in text


def test_a_star_in_a_name_becomes_no_pattern():
    source = read([seen({**DUMPER, "executable": "/opt/*"}, "read", "/srv/dumps/*"), seen(DUMPER, "read", "/else/a*")])
    proposal = propose(source)
    assert not any("executables" in body for body in proposal.subjects.values())
    assert any("dumper is excepted for data with any program" in note for note in proposal.notes)
    assert "read /else/a* (not possible in a policy)" in text_of(proposal, source)


def test_a_name_that_is_not_utf8():
    source = read([seen({**DUMPER, "executable": r"/opt/\xff"}, "read", r"/srv/dumps/\xfe")])
    text = text_of(propose(source), source)
    assert r"read /srv/dumps/\xfe" in text and proposer.replay(document_of(text), [source], TODAY) == (1, [])


# ---- generalisation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "paths, roots, found",
    [
        ([f"/a/b/{n}" for n in range(4)], (), ["/a/b/**"]),
        ([f"/etc/{n}" for n in range(4)], (), ["/etc/0", "/etc/1", "/etc/2", "/etc/3"]),
        ([f"/etc/{n}" for n in range(4)], ("/etc",), ["/etc/**"]),
        ([f"/{n}" for n in range(4)], (), ["/0", "/1", "/2", "/3"]),
        ([f"/home/a1/{n}" for n in range(4)], (), ["/home/a1/0", "/home/a1/1", "/home/a1/2", "/home/a1/3"]),
        ([f"/home/a1/.cache/{n}" for n in range(4)], (), ["/home/a1/.cache/**"]),
        ([f"/home/{user}/.cache/{n}" for user in ("al", "bo") for n in range(4)], (), ["/home/*/.cache/**"]),
        ([f"/proc/{n}/stat" for n in range(9)], (), ["/proc/*/stat"]),
        ([f"/a/b/{n}/c" for n in range(4)] + ["/a/x"], (), ["/a/b/**", "/a/x"]),
    ],
)
def test_patterns(paths, roots, found):
    patterns = generalise.patterns(paths, 3, roots)
    assert list(patterns) == found and set().union(*patterns.values()) == set(paths)
    assert all(
        semantics.matches(mountinfo.split(pattern), mountinfo.split(path))
        for pattern, covered in patterns.items()
        for path in covered
    )


@pytest.mark.parametrize(
    "numbers, found",
    [
        ([80, 443], [80, 443]),
        (range(40000, 40010), ["32768-65535"]),
        ([2000, 40000, 40001, 40002], ["1024-65535"]),
        ([53, 40000, 40001, 40002], [53, 40000, 40001, 40002]),
    ],
)
def test_ports(numbers, found):
    assert generalise.ports(numbers, 3) == found


# ---- what is wrong with a file ------------------------------------------------------------------------------------


GOOD = seen(DUMPER, "read", "/a")
CUT = observation([GOOD, GOOD])[:-80]


@pytest.mark.parametrize(
    "data, found",
    [
        (b"", ["db1.jsonl: it is empty; expected an observation."]),
        (
            CUT,
            [
                "db1.jsonl:4: the file ends in the middle of this line. Observe the host again, or fetch the file again, or set `cut`"
            ],
        ),
        (written(start(), GOOD), ["db1.jsonl:2: the file is truncated: its last line is not of the kind `end`. "]),
        (written(start(), GOOD, end(7)), ["db1.jsonl:3: $.lines: 7 lines are expected before it and 2 were read. "]),
        (written(start(), GOOD, end(2), GOOD), ["db1.jsonl:4: $.kind: a line of the kind `seen` after the `end` line"]),
        (
            written(GOOD, end(1)),
            ["db1.jsonl:1: $.kind: the first line is of the kind `seen`; expected one `start` line"],
        ),
        (observation([GOOD, start()]), ["db1.jsonl:3: $.kind: a second `start` line"]),
        (
            observation([GOOD], "web1"),
            [
                "db1.jsonl:1: $.host: it is from host 'web1'; expected 'db1'. Move the file, or set the host's own name in `names`"
            ],
        ),
        (
            observation([]),
            [
                "db1.jsonl: it has no events; expected at least one line of the kind `seen`. Observe while the host is in use"
            ],
        ),
        (
            observation([GOOD, {**GOOD, "observation": 2}, {**GOOD, "observation": 2}]),
            ["db1.jsonl:3: $.observation: found 2; expected 1. Observe with the role of this release"],
        ),
        (
            observation(
                [{**GOOD, "extra": 1}, {**GOOD, "count": "x"}, {key: GOOD[key] for key in GOOD if key != "uid"}]
            ),
            [
                "db1.jsonl:2: $.extra: unknown key 'extra'",
                'db1.jsonl:3: $.count: found "x"; expected a whole number. Observe',
                "db1.jsonl:4: $: 'uid' is missing. Add `uid:`",
            ],
        ),
        (observation([{**GOOD, "action": "raed"}]), ["db1.jsonl:2: $.action: found 'raed'; expected read, write"]),
        (observation([{**GOOD, "path": "\\q"}]), ["db1.jsonl:2: $.path: found '\\\\q'; expected text with"]),
        (
            observation([seen(DUMPER, "connect", ("10.0.0.300", 22, "tcp"))]),
            ["db1.jsonl:2: $.address: found '10.0.0.300'; expected an IPv4 or IPv6 address. "],
        ),
        (
            observation([seen(DUMPER, "connect", ("10.0.0.3", 22, "nope"))]),
            ["db1.jsonl:2: $.protocol: found 'nope'; expected a protocol such as tcp"],
        ),
        (
            observation([GOOD]).replace(b'"count": 1', b'"count": 1, "count": 2'),
            ["db1.jsonl:2: not JSON: duplicate key 'count'. "],
        ),
        (
            observation([GOOD]).replace(b'"count": 1', b'"count": NaN'),
            ["db1.jsonl:2: not JSON: NaN is not a whole number. "],
        ),
        (
            observation([GOOD]).replace(b'"count": 1', b'"count": 1.0'),
            ["db1.jsonl:2: not JSON: 1.0 is not a whole number. "],
        ),
        (observation([GOOD]).replace(b"/a", b"/\xff"), ["db1.jsonl:2: not JSON: 'utf-8' codec can't decode"]),
        (
            written(start(), GOOD) + b"no json\n" + written(end(3)),
            ["db1.jsonl:3: not JSON: Expecting value at character 1. "],
        ),
        (
            written(start(), GOOD) + b"[" * 100000 + b"\n" + written(end(3)),
            ["db1.jsonl:3: not JSON: it is nested too deeply"],
        ),
        (written(start(), GOOD) + b"[1]\n" + written(end(3)), ["db1.jsonl:3: $: found [1]; expected a mapping"]),
    ],
)
def test_what_is_wrong_is_told_with_its_line(data, found):
    source, problems = observed.read("db1.jsonl", data, ["db1"])
    assert source is None
    texts = [str(problem) for problem in problems]
    assert len(texts) == len(found), texts
    for text, expected in zip(sorted(texts), sorted(found)):
        assert text.startswith(expected), texts


def test_every_line_is_told_up_to_a_number():
    _source, problems = observed.read("f", observation([{**GOOD, "extra": 1}] * 50), ["db1"])
    assert len(problems) == 21 and problems[-1].found == "30 more problems"


def test_what_is_whole_of_a_file_that_was_cut():
    source, problems = observed.read("db1.jsonl", CUT, ["db1"], cut=True)
    assert problems == [] and source.cut and [event.times for event in source.seen] == [2]
    assert any("The end of the file of db1 is missing" in note for note in propose(source).notes)


# ---- what is documented -------------------------------------------------------------------------------------------


GUIDE = (ROOT / "docs" / "learn.md").read_text()


def test_the_policy_in_the_guide_is_valid():
    example = re.search(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)[1]
    assert len(document_of(example)["rules"]) == 2 and len(document_of(example)["assertions"]) == 2


def test_the_guide_has_every_variable_of_the_playbook_with_its_default():
    playbook = (ROOT / "playbooks" / "learn.yml").read_text()
    names = set(re.findall(r"exfil_guard_learn_[a-z0-9_]+", playbook))
    assert names == set(re.findall(r"exfil_guard_learn_[a-z0-9_]+", GUIDE))
    rows = {
        name: default
        for cells in re.findall(r"^\| (`exfil_guard_learn_[^|]*) \| ([^|]*) \|", GUIDE, re.MULTILINE)
        for name, default in zip(re.findall(r"exfil_guard_learn_(\w+)", cells[0]), cells[1].split(", "))
    }
    for name, spec in learn.OPTIONS.items():
        if spec["type"] in ("int", "bool"):
            assert rows[name].strip("`") == str(spec["default"]).lower(), name
    assert set(learn.OPTIONS) - set(rows) == {"records", "hosts", "policies"}


def test_the_messages_in_the_guide():
    shown = re.search(r"```text\n.*?\n(.*?)```", GUIDE, re.DOTALL)[1]
    problems = observed.read("observed/db1.jsonl", written(start(), GOOD, GOOD, GOOD), ["db1"])[1]
    problems += observed.read("observed/db2.jsonl", observation([*[GOOD] * 5, {**GOOD, "extra": 1}], "web1"), ["db2"])[
        1
    ]
    lines = [
        re.sub(r"expected action, .* or user", "expected action, address, … or user", str(each)) for each in problems
    ]
    assert shown.splitlines() == ["  - " + line for line in sorted(lines)]


# ---- the module ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="site")
def fixture_site(tmp_path_factory):
    """One run of Ansible over many tasks: what each returned, and what lay there after it."""
    site = tmp_path_factory.mktemp("site")
    for folder in ("policies", "good", "bad", "out"):
        (site / folder).mkdir()
    (site / "policies" / "all.yml.j2").write_text(
        "policy: 1\nmode: enforce\nresources: {exports: {paths: [/srv/exports/**]}}\nrules:\n"
        "  - {name: exports, deny: [read], resources: [exports]}\n"
    )
    for host in ("db1", "db2"):
        (site / "good" / (host + ".jsonl")).write_bytes(observation(WORKLOAD, host))
    (site / "bad" / "db1.jsonl").write_bytes(CUT)
    (site / "bad" / "db2.jsonl").write_bytes(observation([{**GOOD, "extra": 1}], "web1"))
    good = {
        "group": "db",
        "observations": str(site / "good"),
        "resources": DATA,
        "file": str(site / "out" / "db.yml.j2"),
    }
    bad = {**good, "file": str(site / "out" / "bad.yml.j2")}
    calls = {
        "check": ({**good}, {"check_mode": True, "diff": True}),
        "write": (good, {"diff": True}),
        "again": (good, {}),
        "bad": ({**bad, "observations": str(site / "bad")}, {}),
        "none": ({**bad, "observations": str(site / "nowhere")}, {}),
        "options": ({**bad, "resources": {"da ta": ["srv"]}, "ipv4_prefix": 99, "roots": ["etc"]}, {}),
        "clash": ({**bad, "resources": {"exports": ["/srv/other/**"]}}, {}),
        "trail": (
            {
                **{key: bad[key] for key in bad if key != "observations"},
                "hosts": ["db1"],
                "file": str(site / "out" / "trail.yml.j2"),
                "records": {"db1": [record("read", "/srv/dumps/a", "gone")]},
            },
            {},
        ),
        "no_trail": ({**{key: bad[key] for key in bad if key != "observations"}, "records": {}}, {}),
    }
    tasks = []
    for name, (arguments, keywords) in calls.items():
        tasks.append(
            {
                "exfil.guard.learn": arguments,
                "register": "got_" + name,
                "ignore_errors": True,
                "run_once": True,
                **keywords,
            }
        )
        tasks.append(
            {
                "ansible.builtin.copy": {"dest": f"{site}/{name}.json", "content": f"{{{{ got_{name} | to_json }}}}"},
                "run_once": True,
            }
        )
        tasks.append({"ansible.builtin.stat": {"path": arguments["file"]}, "register": "there", "run_once": True})
        tasks.append(
            {
                "ansible.builtin.copy": {"dest": f"{site}/{name}.stat", "content": "{{ there.stat | to_json }}"},
                "run_once": True,
            }
        )
    (site / "play.json").write_text(json.dumps([{"hosts": "db", "gather_facts": False, "tasks": tasks}]))
    (site / "hosts.json").write_text(
        json.dumps(
            {
                "all": {
                    "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
                    "children": {"db": {"hosts": {"db1": {}, "db2": {}}}},
                }
            }
        )
    )
    (site / "ansible.cfg").write_text("[defaults]\n")
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", site / "hosts.json", site / "play.json"],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "NO_COLOR": "1",
            "ANSIBLE_CONFIG": str(site / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(site / "tmp"),
        },
        cwd=site,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    results = {name: json.loads((site / (name + ".json")).read_text()) for name in calls}
    there = {name: json.loads((site / (name + ".stat")).read_text()) for name in calls}
    return site, results, there


def test_check_mode_tells_and_writes_nothing(site):
    folder, results, there = site
    assert results["check"]["changed"] and not there["check"]["exists"]
    assert (
        results["check"]["diff"]["after"] == (folder / "out" / "db.yml.j2").read_text()
        and results["check"]["diff"]["before"] == ""
    )
    assert results["check"]["diff"] == results["write"]["diff"]


def test_it_is_written_once_and_for_nobody_else(site):
    _folder, results, there = site
    assert results["write"]["changed"] and there["write"]["mode"] == "0600" and not results["again"]["changed"]
    assert results["write"]["denied"] == 0 and results["write"]["events"] == 2 * sum(
        event["count"] for event in WORKLOAD
    )


def test_it_is_valid_beside_the_policy_of_today(site):
    folder, _results, _there = site
    text = (folder / "out" / "db.yml.j2").read_text()
    assert (
        '{% set learned_mode = "audit" %}' in text and "mode: {{ learned_mode }}" in text
    )  # today's policy enforces, and goes on doing so
    today = (folder / "policies" / "all.yml.j2").read_text()
    for mode in ("audit", "enforce"):
        templates = [
            pipeline.Template("all.yml.j2", today),
            pipeline.Template("db.yml.j2", text.replace('= "audit"', f'= "{mode}"')),
        ]
        document = pipeline.document(templates, lambda source: jinja2.Environment().from_string(source).render(), TODAY)
        assert document["mode"] == "enforce" and {rule.get("mode") for rule in document["rules"]} == {None, mode}


def test_everything_that_is_wrong_is_told_at_once_and_nothing_is_written(site):
    _folder, results, there = site
    bad = results["bad"]
    assert bad["failed"] and not there["bad"]["exists"] and bad["msg"].startswith("Nothing was written. 3 problems:")
    for part in (
        "bad/db1.jsonl:4: the file ends in the middle",
        "bad/db2.jsonl:2: $.extra: unknown key 'extra'",
        "bad/db2.jsonl:1: $.host: it is from host 'web1'",
    ):
        assert part in bad["msg"]
    none = results["none"]["msg"]
    assert (
        none.count("cannot be read: No such file or directory. Run role exfil.guard.observe on db") == 2
        and not there["none"]["exists"]
    )
    options = results["options"]["msg"]
    for part in (
        "option `ipv4_prefix`: found 99; expected 0 to 32",
        "option `roots`: found 'etc'; expected an absolute path",
        "option `resources`: ",
    ):
        assert part in options
    assert "'exports' differs from the one in" in results["clash"]["msg"] and not there["clash"]["exists"]


@pytest.mark.parametrize(
    "left, line",
    [(0.5, "the file ends in the middle"), (1.0, "the file is truncated: its last line is not of the kind `end`")],
)
def test_the_playbook_stops_at_a_file_that_was_cut_off(tmp_path, left, line):
    """In the middle of a line, and between two."""
    folder = tmp_path / "observed"
    folder.mkdir()
    whole = observation(WORKLOAD, "db1").splitlines(True)
    (folder / "db1.jsonl").write_bytes(b"".join(whole[:5]) + whole[5][: int(len(whole[5]) * left)])
    (tmp_path / "hosts.json").write_text(
        json.dumps(
            {"db": {"hosts": {"db1": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}}
        )
    )
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ansible",
            "playbook",
            "-i",
            tmp_path / "hosts.json",
            ROOT / "playbooks" / "learn.yml",
            "-e",
            json.dumps({"exfil_guard_hosts": "db", "exfil_guard_learn_resources": DATA}),
        ],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    said = " ".join(done.stdout.split())
    assert done.returncode == 2 and "Traceback" not in said, said
    assert sorted(tmp_path.rglob("*")) == before
    assert f"Nothing was written. {folder}/db1.jsonl:6: {line}" in said
    assert "Observe the host again, or fetch the file again" in said


def test_from_the_audit_trail(site):
    _folder, results, there = site
    assert not results["trail"].get("failed") and there["trail"]["exists"]
    assert "db1 no longer has rule 'gone', which reported some of the events" in results["trail"]["notes"]
    assert results["no_trail"]["msg"].count("audit trail of db") == 2
