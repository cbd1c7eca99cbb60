# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin inside Ansible itself, against a host that does not answer: whatever is wrong with a policy is told
without trying to reach it. And what it asks of a host that answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.exfil.guard.plugins.action import policy

ROOT = Path(__file__).resolve().parents[3]
COMMON = """# of every host
policy: 1
destinations:
  corp: {cidrs: {{ networks | to_json }}}

{% include 'parts/subjects.j2' %}


rules:
{% for action in ['connect', 'send'] %}
  - name: {{ action }} from {{ inventory_hostname }} "\\d" {{ '\\\\d' }}
    deny: [{{ action }}]
    destinations: {not: [corp]}
    except: [ops]
{% endfor %}
"""
HOSTS = {
    "undefined": ("policy: 1\nmode: {{ nope }}\n", ":2: undefined variable: 'nope' is undefined. "),
    "filtered": (
        "policy: 1\ndestinations:\n  x: {cidrs: {{ nope | to_json }}}\n",
        ":3: undefined variable: 'nope' is undefined. ",
    ),
    "attribute": ("policy: 1\n\nmode: {{ networks.nope }}\n", ":3: undefined variable: "),
    "syntax": ("policy: 1\nmode: {% endif %}\n", ":2: template syntax: "),
    "filter": ("policy: 1\nmode: {{ 'x' | nope }}\n", ":2: template syntax: "),
    "division": ("policy: 1\nmode: {{ 1 / 0 }}\n", ":2: template: "),
    "lookup": ("policy: 1\nmode: {{ lookup('file', '/nonexistent') }}\n", ": template: "),
    "yaml": ("policy: 1\nmode: a: b\n", ":2: not YAML: "),
    "schema": ("policy: 1\nmode: {{ 'audti' }}\n", ":2: $.mode: found 'audti'; expected enforce or audit. "),
    "assertion": (
        "policy: 1\nassertions:\n  - {action: send, address: 192.0.2.1, expect: allow}\n",
        ":3: $.assertions[0]: the assertion does not hold: ",
    ),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Of one run over all hosts: what the tasks returned, and what was printed."""
    site = tmp_path_factory.mktemp("site")
    folder = site / "policies"
    (folder / "hosts").mkdir(parents=True)
    (folder / "parts").mkdir()
    (folder / "all.yml.j2").write_text(COMMON)
    (folder / "wbe.yml.j2").write_text("policy: 1\n")
    (folder / "parts" / "subjects.j2").write_text("subjects:\n  ops: {users: [{{ operator }}]}\n")
    for name, (text, _message) in HOSTS.items():
        (folder / "hosts" / f"{name}.yml.j2").write_text(text)
    unreachable = {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": 1,
        "operator": "{{ chief }}",
        "chief": "carol",
        "networks": ["10.0.0.0/8"],
        "ansible_python_interpreter": sys.executable,
    }
    (folder / "hosts" / "locked.yml.j2").write_text("{% include 'exfil.guard/locked-down-root.yml.j2' %}\n")
    hosts = {name: {} for name in [*HOSTS, "good"]}
    hosts["locked"] = {"locked_down_root": {"users": ["root"]}}
    (site / "hosts.json").write_text(json.dumps({"all": {"vars": unreachable, "children": {"web": {"hosts": hosts}}}}))
    task = {"exfil.guard.policy": None, "register": "tried", "ignore_errors": True, "ignore_unreachable": True}
    kept = {"ansible.builtin.copy": {"dest": f"{site}/{{{{ inventory_hostname }}}}", "content": "{{ tried | to_json }}"},
            "delegate_to": "localhost", "vars": {"ansible_connection": "local"}}  # fmt: skip
    (site / "ansible.cfg").write_text("[defaults]\n")
    play = [{"hosts": "all", "gather_facts": False, "tasks": [task, kept]}]
    (site / "play.json").write_text(json.dumps(play))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", site / "hosts.json", site / "play.json"],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "NO_COLOR": "1", "ANSIBLE_FORKS": "4",
             "ANSIBLE_HOST_KEY_CHECKING": "0", "ANSIBLE_CONFIG": str(site / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(site / "tmp")},
        cwd=site, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    found = {name: json.loads((site / name).read_text()) for name in hosts if (site / name).exists()}
    assert set(found) == set(hosts), done.stdout + done.stderr
    return SimpleNamespace(results=found, text=done.stdout + done.stderr)


@pytest.mark.parametrize("name", sorted(HOSTS))
def test_what_is_wrong_is_told_before_a_host_is_reached(outcome, name):
    result = outcome.results[name]
    assert result["failed"] and not result["changed"] and not result.get("unreachable")
    assert result["msg"].startswith("The policy of this host is not valid. ")
    assert f"policies/hosts/{name}.yml.j2:" in result["msg"] and HOSTS[name][1] in result["msg"]
    assert [problem["file"] for problem in result["problems"]] == [f"policies/hosts/{name}.yml.j2"]


def test_what_is_right_is_sent(outcome):
    assert outcome.results["good"]["unreachable"]


def test_a_template_may_include_a_fragment_of_the_collection(outcome):
    assert outcome.results["locked"]["unreachable"], outcome.results["locked"]["msg"]


def test_no_traceback_reaches_the_operator(outcome):
    assert "Traceback" not in outcome.text


def test_a_template_of_no_group_is_told(outcome):
    assert "policies/wbe.yml.j2: the inventory has no group 'wbe'. Did you mean 'web'?" in " ".join(
        outcome.text.split()
    )


# ---- what is asked of a host --------------------------------------------------------------------------------------


class Connection:
    _shell = SimpleNamespace(tmpdir=None)
    resets = 0

    def reset(self):
        self.resets += 1


def plugin(answers, **arguments):
    """The action plugin over a host that gives these answers, and what it was asked."""
    asked = []

    def execute(name, module_args, task_vars):
        asked.append(dict(module_args))
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    task = SimpleNamespace(args={"state": "absent", **arguments}, check_mode=False, async_val=0, action="", diff=False)
    action = policy.ActionModule(task, Connection(), SimpleNamespace(), None, None, None)
    action._execute_module = execute
    action.validate_argument_spec = lambda argument_spec: (
        None,
        {**{key: each.get("default") for key, each in argument_spec.items()}, **task.args},
    )
    return action, asked


DONE = {"enforcer_needed": False, "settled": True}  # what a role asks
ON_TRIAL = {"changed": True, "generation": 7, "confirm_needed": True}


def test_one_call_when_nothing_changes():
    action, asked = plugin([{"changed": False}])
    assert action.run(task_vars={}) == {"changed": False, **DONE}
    assert len(asked) == 1 and "package" not in asked[0] and action._connection.resets == 0


def test_a_host_that_does_not_enforce_everything_is_not_done():
    action, _asked = plugin([{"changed": False, "unenforced": ["one: connect"]}])
    assert action.run(task_vars={})["settled"] is False


def test_a_policy_on_trial_is_confirmed_over_a_new_connection():
    action, asked = plugin([ON_TRIAL, {"changed": True}])
    result = action.run(task_vars={})
    assert result == {"changed": True, "generation": 7, "confirm_needed": False, "confirmed": True, **DONE}
    assert asked[1]["state"] == "confirmed" and asked[1]["generation"] == 7 and action._connection.resets == 1


@pytest.mark.parametrize("answer", [
    AnsibleConnectionFailure("no route to host"),
    {"unreachable": True, "msg": "no route to host"},
    {"failed": True, "msg": "no route to host."},
])  # fmt: skip
def test_a_policy_that_cuts_the_host_off(answer):
    action, _asked = plugin([ON_TRIAL, answer], confirm_seconds=30)
    result = action.run(task_vars={})
    assert result["failed"] and not result["confirmed"]
    assert result["msg"] == (
        "The new policy was not confirmed over a new connection: no route to host. The host returns to the previous "
        "policy 30 seconds after the new one came into force"
    )


def test_the_package_is_sent_only_to_look():
    action, asked = plugin([{"changed": False, "package_required": True}, {"changed": True, "enforcer_needed": True}])
    action._task.check_mode = True
    assert action.run(task_vars={}) == {"changed": True, "enforcer_needed": True, "settled": False}
    assert "package" not in asked[0] and asked[1]["package"]

    action, asked = plugin([{"changed": False, "package_required": True}])
    result = action.run(task_vars={})
    assert len(asked) == 1 and result["failed"] and result["enforcer_needed"] and not result["settled"]
    assert result["msg"] == "The enforcer of this release is not installed on the host. Run role exfil.guard.enforcer"


def test_a_controller_without_jsonschema(monkeypatch):
    action, asked = plugin([], state="present")
    monkeypatch.setattr(policy, "LACKING", "Install jsonschema")
    with pytest.raises(policy.AnsibleError, match="Install jsonschema"):
        action.run(task_vars={})
    assert asked == []
