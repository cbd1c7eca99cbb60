# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of bad input ends in one message that names file, line, field and remedy; all of them at once."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

import jinja2
import jsonschema
import pytest
from ansible_collections.exfil.guard.plugins.plugin_utils._language import document as _document
from ansible_collections.exfil.guard.plugins.plugin_utils._language import pipeline
from ansible_collections.exfil.guard.plugins.plugin_utils._language.problems import FragmentError
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[3]
TODAY = datetime.date(2026, 6, 1)
BASE = """policy: 1
subjects:
  dba: {groups: [dba]}
resources:
  exports: {paths: [/srv/exports/**]}
destinations:
  corp: {cidrs: [10.0.0.0/8]}
rules:
  - name: exports
    deny: [read]
    resources: [exports]
    except: [dba]
"""
environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
environment.filters["to_json"] = json.dumps


def checked(*sources, **variables):
    templates = [pipeline.Template(f"policies/{chr(97 + n)}.yml.j2", source) for n, source in enumerate(sources)]
    return pipeline.checked(templates, lambda source: environment.from_string(source).render(**variables), TODAY)


def document(*sources, **variables):
    return checked(*sources, **variables).document


def refused(*sources):
    with pytest.raises(FragmentError) as caught:
        document(*sources)
    return [str(problem) for problem in caught.value.problems]


BAD = {
    "template syntax": (
        "policy: 1\nrules: {% if %}\n",
        "policies/a.yml.j2:2: template syntax: Expected an expression, got 'end of statement block'",
    ),
    "undefined variable": (
        "policy: 1\nmode: {{ nope }}\n",
        "policies/a.yml.j2:2: undefined variable: 'nope' is undefined. "
        "Set the variable for this host or give it a default",
    ),
    "YAML": (
        "policy: 1\nmode: a: b\n",
        "policies/a.yml.j2:2: not YAML: mapping values are not allowed here. The rendered line is 'mode: a: b'",
    ),
    "key twice": (
        "policy: 1\nmode: audit\nmode: audit\n",
        "policies/a.yml.j2:3: $.mode: duplicate key 'mode'. Remove one of them",
    ),
    "not a mapping": ("- 1\n", "policies/a.yml.j2:1: $: found [1]; expected a mapping"),
    "no version": ("mode: audit\n", "policies/a.yml.j2:1: $: 'policy' is missing. Add `policy:`"),
    "unknown key": (
        "policy: 1\nsubject: {}\n",
        "policies/a.yml.j2:2: $.subject: unknown key 'subject'; expected assertions, boot, destinations, mode, policy, "
        "resources, rules or subjects. Did you mean 'subjects'?",
    ),
    "unknown key of a set": (
        "policy: 1\nsubjects:\n  dba:\n    group: [dba]\n",
        "policies/a.yml.j2:4: $.subjects.dba.group: unknown key 'group'; expected executables, extensible, groups, "
        "has_read, login_users, optional, services or users. Did you mean 'groups'?",
    ),
    "unknown action": (
        BASE + "  - name: x\n    deny: [raed]\n    resources: [exports]\n",
        "policies/a.yml.j2:14: $.rules[1].deny[0]: found 'raed'; expected one of the documented values. "
        "Did you mean 'read'?",
    ),
    "no resources": (
        BASE + "  - name: x\n    deny: [read]\n",
        "policies/a.yml.j2:13: $.rules[1]: 'resources' is missing and required by read. "
        "Add `resources:`; {not: []} selects everything",
    ),
    "destinations without an action": (
        BASE + "  - name: x\n    deny: [read]\n    resources: [exports]\n    destinations: [corp]\n",
        "policies/a.yml.j2:16: $.rules[1].destinations: 'destinations' without an action that uses it; expected connect, "
        "send, reply, bind, listen, accept or vsock. Add one to `deny` or remove `destinations`",
    ),
    "unknown set": (
        BASE + "  - name: x\n    deny: [read]\n    resources: [exprts]\n",
        "policies/a.yml.j2:15: $.rules[1].resources: no set 'exprts' under resources. Did you mean 'exports'?",
    ),
    "relative path": (
        "policy: 1\nresources:\n  x: {paths: [srv/x]}\n",
        'policies/a.yml.j2:3: $.resources.x.paths[0]: found "srv/x"; expected an absolute path without `..`; * matches '
        "any characters within one component, ** as the last component matches the folder itself and everything below it",
    ),
    "host bits": (
        "policy: 1\ndestinations:\n  x: {cidrs: [10.0.0.1/8]}\n",
        "policies/a.yml.j2:3: $.destinations.x.cidrs[0]: found '10.0.0.1/8'; expected a network such as 10.0.0.0/8 "
        "without host bits",
    ),
    "port range": (
        "policy: 1\ndestinations:\n  x: {ports: [90-80]}\n",
        "policies/a.yml.j2:3: $.destinations.x.ports[0]: found '90-80'; expected first-last, at most 65535",
    ),
    "date": (
        BASE + "    expires: soon\n",
        "policies/a.yml.j2:13: $.rules[0].expires: found 'soon'; expected a date such as 2027-03-31",
    ),
    "empty list": (
        BASE + "    subjects: []\n",
        "policies/a.yml.j2:13: $.rules[0].subjects: it is empty; expected at least one entry. Remove it or give it a value",
    ),
    "reserved rule name": (
        BASE.replace("name: exports", "name: exfil-guard x"),
        'policies/a.yml.j2:9: $.rules[0].name: found "exfil-guard x"; expected a name that does not begin with '
        "'exfil-guard '",
    ),
    "built-in set": (
        "policy: 1\ndestinations:\n  loopback: {cidrs: [10.0.0.0/8]}\n",
        'policies/a.yml.j2:3: $.destinations.loopback: found "loopback"; expected a name that is not built in',
    ),
    "no such day": (
        BASE + "    expires: 2027-02-31\n",
        "policies/a.yml.j2:13: $.rules[0].expires: found '2027-02-31'; expected a date such as 2027-03-31",
    ),
    "unknown YAML tag": (
        "policy: !vault x\n",
        "policies/a.yml.j2:1: not YAML: could not determine a constructor for the tag '!vault'. "
        "The rendered line is 'policy: !vault x'",
    ),
    "two documents": (
        "policy: 1\n---\npolicy: 1\n",
        "policies/a.yml.j2:2: not YAML: expected a single document in the stream but found another document. "
        "The rendered line is '---'",
    ),
    "an anchor in itself": (
        "policy: 1\nrules: &rules\n  - *rules\n",
        "policies/a.yml.j2:2: $.rules[0]: it contains itself. Replace the alias with its value",
    ),
    "an expression that fails": ("policy: 1\nmode: {{ 1 / 0 }}\n", "policies/a.yml.j2:2: template: division by zero"),
    "a variable without the attribute": (
        "policy: 1\nmode: {{ {}.mode }}\n",
        "policies/a.yml.j2:2: undefined variable: 'dict object' has no attribute 'mode'. "
        "Set the variable for this host or give it a default",
    ),
    "nothing": ("", "policies/a.yml.j2: $: 'policy' is missing. Add `policy:`"),
    "name of a set": (
        "policy: 1\nsubjects:\n  the admins: {users: [root]}\n",
        'policies/a.yml.j2:3: $.subjects.the admins: found "the admins"; expected the name of a set: letters, digits, '
        "dot, dash and underscore, at most 63",
    ),
    "a set of everybody": (
        "policy: 1\nsubjects:\n  dba: {optional: true}\n",
        "policies/a.yml.j2:3: $.subjects.dba: the set selects nothing; expected at least one of users, login_users, "
        "groups, services, executables or has_read",
    ),
    "** within a path": (
        "policy: 1\nresources:\n  x: {paths: [/srv/x**]}\n",
        'policies/a.yml.j2:3: $.resources.x.paths[0]: found "/srv/x**"; expected an absolute path without `..`; * matches '
        "any characters within one component, ** as the last component matches the folder itself and everything below it",
    ),
    "port": (
        "policy: 1\ndestinations:\n  x: {ports: [70000]}\n",
        "policies/a.yml.j2:3: $.destinations.x.ports[0]: found 70000; expected at most 65535",
    ),
    "unknown protocol": (
        "policy: 1\ndestinations:\n  x: {protocols: [tpc]}\n",
        "policies/a.yml.j2:3: $.destinations.x.protocols[0]: found 'tpc'; expected tcp, udp, udplite, sctp, dccp, icmp or "
        "icmpv6. Did you mean 'tcp'?",
    ),
    "long name": (
        BASE.replace("name: exports", "name: " + "é" * 48),
        "policies/a.yml.j2:9: $.rules[0].name: 96 bytes of UTF-8; expected at most 95. Shorten it",
    ),
    "not of a rule": (
        BASE + "    not: [exports]\n",
        "policies/a.yml.j2:13: $.rules[0].not: unknown key 'not'; expected accepts_extensible, deny, destinations, "
        "except, expires, mode, name, resources or subjects",
    ),
    "not misspelt": (
        BASE + "  - name: x\n    deny: [read]\n    resources: {nto: [exports]}\n",
        "policies/a.yml.j2:15: $.rules[1].resources.nto: unknown key 'nto'; expected abstract_sockets, not, optional or paths. "
        "Did you mean 'not'?",
    ),
    "a set and not": (
        BASE + "  - name: x\n    deny: [send]\n    destinations: {not: [corp], ports: [53]}\n",
        "policies/a.yml.j2:15: $.rules[1].destinations.ports: 'ports' cannot be combined with 'not'. Remove one of them",
    ),
    "an assertion on nothing": (
        "policy: 1\nassertions:\n  - {action: read, expect: deny}\n",
        "policies/a.yml.j2:3: $.assertions[0]: 'path' is missing. Add `path:`",
    ),
    "an assertion on a path and an address": (
        "policy: 1\nassertions:\n  - {action: read, path: /x, address: 10.0.0.1, expect: allow}\n",
        "policies/a.yml.j2:3: $.assertions[0].address: 'address' cannot be combined with action 'read'. Remove one of them",
    ),
    "except by program alone": (
        BASE.replace("{groups: [dba]}", "{executables: [/usr/bin/psql]}"),
        "policies/a.yml.j2:12: $.rules[0].except: 'dba' excepts every task that runs one of its `executables`; expected "
        "also one of users, groups, services. Programs can be misused: also select the excepted users, groups "
        "or services",
    ),
    "except by login user alone": (
        BASE.replace("{groups: [dba]}", "{login_users: [carol]}"),
        "policies/a.yml.j2:12: $.rules[0].except: 'dba' excepts every task that has one of its `login_users`; expected "
        "also one of users, groups, services. A process without a login user can set any: also select the excepted "
        "users, groups or services",
    ),
    "except by login user and program": (
        BASE.replace("{groups: [dba]}", "{login_users: [carol], executables: [/usr/bin/psql]}"),
        "policies/a.yml.j2:12: $.rules[0].except: 'dba' excepts every task that has one of its `login_users`; expected "
        "also one of users, groups, services. A process without a login user can set any: also select the excepted "
        "users, groups or services",
    ),
    "accepts what is not there": (
        BASE + "    accepts_extensible: [dbas]\n",
        "policies/a.yml.j2:13: $.rules[0].accepts_extensible: this rule has no 'dbas' under `not` or `except`. "
        "Did you mean 'dba'?",
    ),
    "extensible under not": (
        BASE.replace("[10.0.0.0/8]}", "[10.0.0.0/8], extensible: true}")
        + "  - name: x\n    deny: [send]\n    destinations: {not: [corp]}\n",
        "policies/a.yml.j2:15: $.rules[1].destinations.not: 'corp' is extensible, so another fragment could weaken "
        "this rule; expected a set that is not extensible. Add `accepts_extensible: [corp]` to accept this",
    ),
    "assertion": (
        BASE + "assertions:\n  - {user: alice, action: read, path: /srv/exports/a, expect: allow}\n",
        "policies/a.yml.j2:14: $.assertions[0]: the assertion does not hold: deny by rule 'exports'; expected allow. "
        "Correct the rule or the assertion",
    ),
    "extensible under except": (
        BASE.replace("{groups: [dba]}", "{groups: [dba], extensible: true}"),
        "policies/a.yml.j2:12: $.rules[0].except: 'dba' is extensible, so another fragment could weaken this rule; "
        "expected a set that is not extensible. Add `accepts_extensible: [dba]` to accept this",
    ),
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_bad_input(kind):
    source, message = BAD[kind]
    assert refused(source) == [message]


def test_good_input_passes():
    assert document(BASE)["rules"] == [
        {"name": "exports", "deny": ["read"], "resources": ["exports"], "except": ["dba"]}
    ]


def test_every_error_of_every_fragment_at_once():
    sources = [source for source, _message in BAD.values()]
    messages = refused(*sources)
    files = {message.split(":")[0] for message in messages}
    # what is found only in the merged policy waits until each fragment is right by itself
    late = {"assertion", "unknown set"}
    expected = {f"policies/{chr(97 + n)}.yml.j2" for n, kind in enumerate(BAD) if kind not in late}
    assert expected <= files


def test_line_in_the_template_of_what_a_loop_made():
    source = "policy: 1\nsubjects:\n{% for n in [1, 2] %}\n  s{{ n }}: {usrs: [a]}\n{% endfor %}\n"
    lines = [int(re.match(r"policies/a.yml.j2:(\d+):", message)[1]) for message in refused(source)]
    assert len(lines) == 2 and all(3 <= line <= 5 for line in lines)


@pytest.mark.parametrize("change, message", [
    ("deny: [read]|deny: [write]", "policies/b.yml.j2:9: $.rules[0]: rule 'exports' differs from the one in policies/a.yml.j2; "
     "expected the same rule. Rename it"),
    ("[/srv/exports/**]|[/srv/**]", "policies/b.yml.j2:5: $.resources.exports: 'exports' differs from the one in "
     "policies/a.yml.j2; expected the same set. Rename it, or set `extensible: true` in both"),
    ("policy: 1|policy: 1\nmode: audit", None),
])  # fmt: skip
def test_fragments_that_disagree(change, message):
    old, new = change.split("|")
    if message is None:
        return_value = document(BASE, BASE.replace(old, new))
        assert return_value["mode"] == "audit"
        assert refused(BASE.replace(old, new), BASE.replace(old, "policy: 1\nmode: enforce")) == [
            "policies/b.yml.j2:2: $.mode: 'enforce', but policies/a.yml.j2 has 'audit'; expected one value per host. "
            "Set it in one fragment only"
        ]
        return
    assert refused(BASE, BASE.replace(old, new)) == [message]


def test_extensible_sets_with_other_keys():
    one = "policy: 1\nsubjects:\n  ops: {extensible: true, %s}\n"
    assert refused(one % "users: [alice]", one % "groups: [ops]") == [
        "policies/b.yml.j2:3: $.subjects.ops: 'ops' and the set in policies/a.yml.j2 have different keys; expected the same keys. "
        "Keys are combined with AND, so another key would shrink the set"
    ]


def test_a_template_that_is_not_text(tmp_path):
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "all.yml.j2").write_bytes(b"policy: 1\n# \xff\n")
    template = pipeline.read(str(folder), str(folder / "all.yml.j2"))
    missing = pipeline.read(str(folder), str(folder / "web.yml.j2"))
    with pytest.raises(FragmentError) as caught:
        pipeline.document([template, missing], lambda source: source, TODAY)
    assert [str(problem) for problem in caught.value.problems] == [
        "policies/all.yml.j2: byte 13 is not UTF-8. Save it as UTF-8",
        "policies/web.yml.j2: cannot be read: No such file or directory",
    ]


def test_a_template_of_no_group(tmp_path):
    folder = tmp_path / "policies"
    (folder / "hosts").mkdir(parents=True)
    for name in ("all.yml.j2", "databse.yml.j2", "notes.txt", "hosts/db1.yml.j2", "hosts/db7.yml.j2"):
        (folder / name).touch()
    assert pipeline.stray(str(folder), ["all", "database"], ["db1", "web1"]) == [
        "policies/databse.yml.j2: the inventory has no group 'databse'. Did you mean 'database'?",
        "policies/hosts/db7.yml.j2: the inventory has no host 'db7'. Did you mean 'db1'?",
    ]


def test_keys_of_an_anchor_may_be_replaced():
    text = "policy: 1\nsubjects:\n  a: &a {users: [u], optional: true}\n  b: {<<: *a, users: [v]}\n"
    assert document(text)["subjects"] == {
        "a": {"users": ["u"], "optional": True},
        "b": {"users": ["v"], "optional": True},
    }


def test_sets_said_in_place():
    text = """policy: 1
rules:
  - name: x
    deny: [read, connect]
    subjects: {users: [0, alice]}
    resources: {paths: [/srv/x/**]}
    destinations: {cidrs: [10.0.0.0/8], ports: [8000-8100]}
"""
    result = document(text)
    assert result["subjects"] == {"x (inline)": {"users": [0, "alice"]}}
    assert result["resources"] == {"x (inline)": {"paths": ["/srv/x/**"]}}
    assert result["destinations"] == {"x (inline)": {"cidrs": ["10.0.0.0/8"], "ports": ["8000-8100"]}}
    assert result["rules"][0]["resources"] == ["x (inline)"]
    assert refused(text, text.replace("[0, alice]", "[0]")) == [
        "policies/b.yml.j2:3: $.rules[0]: rule 'x' differs from the one in policies/a.yml.j2; expected the same rule. "
        "Rename it"
    ]


@pytest.mark.parametrize("who, ends", [
    ("{user: 0, action: read}", "deny"),
    ("{user: 1, action: read}", "allow"),
    ("{user: bob, service: app.slice, action: read}", "deny"),
    ("{user: bob, service: app-web.slice, action: read}", "deny"),
    ("{user: bob, service: app.service, action: read}", "allow"),
    ("{user: bob, action: write}", "deny"),  # who logs in is below user.slice
    ("{user: bob, service: cron.service, action: write}", "allow"),
    ("{user: root, login_user: bob, action: execute}", "deny"),
    ("{user: bob, login_user: root, action: execute}", "allow"),
    ("{user: bob, action: execute}", "deny"),
])  # fmt: skip
def test_whom_an_assertion_is_about(who, ends):
    text = """policy: 1
subjects:
  root: {users: [0]}
  app: {services: [app.slice]}
  people: {services: [user.slice]}
  bob: {login_users: [bob]}
resources: {x: {paths: [/srv/x]}}
rules:
  - {name: a, deny: [read], subjects: [root, app], resources: [x]}
  - {name: b, deny: [write], subjects: [people], resources: [x]}
  - {name: c, deny: [execute], subjects: [bob], resources: [x]}
assertions:
"""
    document(text + f"  - {{{who[1:-1]}, path: /srv/x, expect: {ends}}}\n")


def test_audit_of_a_rule_passes_and_is_reported():
    text = BASE + "    mode: audit\nassertions:\n  - {action: read, path: /srv/exports/a, expect: %s}\n"
    document(text % "audit")
    document(text % "allow")
    assert refused(text % "deny") == [
        "policies/a.yml.j2:15: $.assertions[0]: the assertion does not hold: audit by rule 'exports'; expected deny. "
        "Correct the rule or the assertion"
    ]


def test_the_schema_is_a_schema_and_says_what_each_field_is():
    schema = json.loads((ROOT / "schemas" / "policy.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)

    def described(part):
        while "description" not in part and part.get("$ref", "").startswith("#/$defs/"):
            part = schema["$defs"][part["$ref"].rsplit("/", 1)[1]]
        return "description" in part

    def fields(part):
        if isinstance(part, dict):
            yield from part.get("properties", {}).items()
            for key, each in part.items():
                if key != "if":
                    yield from fields(each)

    assert [name for name, part in fields(schema) if not described(part)] == []


def test_equal_fragments_are_one():
    assert document(BASE, BASE) == document(BASE)


def test_extensible_sets_are_joined():
    one = "policy: 1\nsubjects:\n  ops: {extensible: true, users: [%s]}\n"
    assert document(one % "alice", one % "bob")["subjects"]["ops"] == {"users": ["alice", "bob"]}


def test_limits():
    def rules(count, prefix):
        return BASE + "".join(f"  - {{name: {prefix}{n}, deny: [read], resources: [exports]}}\n" for n in range(count))

    assert len(document(rules(300, "a"), rules(211, "b"))["rules"]) == 512
    assert refused(rules(300, "a"), rules(212, "b")) == [
        "policies/a.yml.j2, policies/b.yml.j2: $.rules: 513 rules; expected at most 512 on a host. "
        "Merge rules that differ only in their sets"
    ]
    sets = "policy: 1\nsubjects:\n" + "".join(f"  s{n}: {{users: [u]}}\n" for n in range(64))
    assert refused(sets) == [
        "policies/a.yml.j2:2: $.subjects: 64 sets; expected at most 63 of a kind on a host. "
        "Merge sets that are always used together"
    ]


def test_assertions_are_about_the_policy_as_enforced():
    text = BASE + "assertions:\n  - {user: alice, action: read, path: /srv/exports/a, expect: deny}\n"
    assert document(text.replace("policy: 1", "policy: 1\nmode: audit"))["mode"] == "audit"


def test_built_in_destinations_are_written_out():
    text = BASE + "  - {name: n, deny: [send], destinations: {not: [corp, loopback]}}\n"
    assert document(text)["destinations"]["loopback"]["cidrs"] == ["0.0.0.0/32", "127.0.0.0/8", "::/128", "::1/128"]


fragments = st.lists(
    st.sampled_from([
        BASE,
        BASE.replace("exports", "other"),
        "policy: 1\nsubjects:\n  ops: {extensible: true, users: [alice, bob]}\n",
        "policy: 1\nsubjects:\n  ops: {extensible: true, users: [carol]}\n",
        BASE + "  - {name: n, deny: [send], subjects: {users: [alice]}, destinations: {not: [loopback]}}\n",
        "policy: 1\nmode: audit\nboot: require\n",
    ]),
    min_size=1,
)  # fmt: skip


@given(fragments, st.randoms())
def test_order_of_fragments_is_irrelevant(sources, chance):
    before = _document.digest(document(*sources))
    chance.shuffle(sources)
    assert _document.digest(document(*sources)) == before


def examples(file):
    return re.findall(r"```(?:yaml|jinja)\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)


@pytest.mark.parametrize(
    "example", examples("docs/policy-language.md") + [each for each in examples("README.md") if "policy: 1" in each]
)
def test_every_policy_in_the_documentation_is_valid(example):
    found = checked(example, **VARIABLES)
    assert found.document["rules"] and found.advice == []


def test_the_messages_in_the_documentation():
    shown = re.search(r"```text\n.*?\n(.*?)```", (ROOT / "docs" / "policy-language.md").read_text(), re.DOTALL)[1]
    first = "policy: 1\nmode: audit\ndestinations:\n  company: {cidrs: [{{ company_networks }}]}\n"
    second = "policy: 1\nresources:\n  exports:\n    paths:\n      - /srv/exports/**\nrules:\n  - name: exports\n"
    second += "    resources: [exports]\n    deny: [raed]\n"
    templates = [pipeline.Template("policies/all.yml.j2", first), pipeline.Template("policies/web.yml.j2", second)]
    with pytest.raises(FragmentError) as caught:
        pipeline.document(templates, lambda source: environment.from_string(source).render(), TODAY)
    assert shown == "".join(f"  - {problem}\n" for problem in caught.value.problems)


VARIABLES = {
    "company_networks": ["10.0.0.0/8", "fd00:5172::/32"], "resolvers": ["10.0.0.53"], "policy_mode": "enforce",
    "payment_provider": ["203.0.113.16/28"], "vault": "10.9.0.7", "database_admins": ["dba"], "analysts": ["alice"],
    "partner": {"ipv4": "192.0.2.9", "ipv6": "2001:db8::9", "port": 443},
}  # fmt: skip


@pytest.mark.parametrize("inventory, groups", [
    ("example", ["all", "web"]), ("example", ["all", "db"]), ("example", ["all", "backup"]),
    ("lab", ["all", "web"]), ("lab", ["all", "db"]),
])  # fmt: skip
def test_policies_of_the_inventories_hold(inventory, groups):
    folder = ROOT / "inventories" / inventory / "policies"
    paths = pipeline.find(str(folder), groups[1:], "nobody")
    assert [Path(path).name for path in paths] == [f"{group}.yml.j2" for group in groups]
    found = checked(*[Path(path).read_text() for path in paths], **VARIABLES)
    assert found.document["rules"] and found.advice == []
