# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet's certificates compared, and the playbook that collects them, run by Ansible itself over hosts whose command
is a stand-in that prints what a test says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.exfil.guard.plugins.plugin_utils._report import certificates

ROOT = Path(__file__).resolve().parents[3]
PROVED = {"file_open": {"id": 1, "tag": "00", "proved": ["verdict"]}, "bpf": {"id": 2, "tag": "01", "proved": []}}


def said(differences=(), not_proved=(), **parts):
    known = {
        "object": "a" * 64,
        "package": "b" * 64,
        "kernel": {"release": "6.1.0", "btf": "c" * 64, "boot": "1"},
        "policy": {"digest": "d" * 64, "generation": 1},
        "programs": PROVED,
        **parts,
    }
    return {
        "verified": not differences,
        "differences": [dict(zip(("what", "remedy"), each)) for each in differences],
        "not_proved": list(not_proved),
        "foreign": [],
        "certificate": known,
    }


def report(**answers):
    return certificates.report(
        {host: each if isinstance(each, str) else json.dumps(each) for host, each in answers.items()}
    )


def test_hosts_that_are_alike():
    assert report(web2=said(), web1=said()) == {
        "wrong": [],
        "odd": [],
        "lines": [
            "2 hosts, 2 with a certificate, 2 without differences",
            "object   aaaaaaaaaaaa  2 hosts (web1, web2)",
            "package  bbbbbbbbbbbb  2 hosts (web1, web2)",
            "kernel   6.1.0 (types cccccccccccc)  2 hosts (web1, web2)",
            "policy   dddddddddddd  2 hosts (web1, web2)",
            "proof    1 of 2 programs  2 hosts (web1, web2)",
        ],
    }


@pytest.mark.parametrize(
    "respect, parts, line",
    [
        ("object", {"object": "e" * 64}, "         eeeeeeeeeeee  odd: 1 host (web3)"),
        ("package", {"package": "e" * 64}, "         eeeeeeeeeeee  odd: 1 host (web3)"),
        (
            "kernel",
            {"kernel": {"release": "6.12.0", "btf": "c" * 64}},
            "         6.12.0 (types cccccccccccc)  odd: 1 host (web3)",
        ),
        (
            "kernel",
            {"kernel": {"release": "6.1.0", "btf": "e" * 64}},
            "         6.1.0 (types eeeeeeeeeeee)  odd: 1 host (web3)",
        ),
        ("policy", {"policy": {"digest": "e" * 64}}, "         eeeeeeeeeeee  odd: 1 host (web3)"),
        ("proof", {"programs": {}}, "         0 of 0 programs  odd: 1 host (web3)"),
    ],
)
def test_an_odd_host_is_told_and_no_failure(respect, parts, line):
    found = report(web1=said(), web2=said(), web3=said(**parts))
    assert found["odd"] == ["web3"] and found["wrong"] == []
    at = found["lines"].index(line)
    assert found["lines"][at - 1].startswith(respect + " ")


def test_who_is_wrong_and_what_is_not_proved():
    found = report(
        web1=said([("table rules is another map", "Run role x")], ["range is not proved of bpf"]),
        web2=said(not_proved=["range is not proved of bpf"]),
        web3="",
        web4="{",
        web5="[]",
        web6=json.dumps({"differences": [], "not_proved": [], "certificate": None}),
        web7=json.dumps({"differences": [], "not_proved": [], "certificate": {"object": "a"}}),
    )
    assert found["wrong"] == ["web1", "web3", "web4", "web5", "web6", "web7"] and found["odd"] == []
    assert found["lines"][0] == "7 hosts, 2 with a certificate, 1 without differences"
    none = "DIFFERS: no answer. The host was not reached, or the enforcer of this release is not installed"
    assert found["lines"][6:] == [
        "web1 DIFFERS: table rules is another map. Run role x",
        "web3 " + none,
        "web4 " + none,
        "web5 " + none,
        "web6 DIFFERS: there is no certificate. Run role exfil.guard.policy",
        "web7 " + none,
        "NOT PROVED on 2 hosts (web1, web2): range is not proved of bpf",
    ]


def test_many_hosts_are_counted():
    lines = report(**{f"web{i}": said() for i in range(10)})["lines"]
    assert lines[1] == "object   aaaaaaaaaaaa  10 hosts (web0, web1, web2, web3, web4, web5, web6, web7, …)"


# ---- the playbook -------------------------------------------------------------------------------------------------


class Fleet:
    def __init__(self, folder):
        self.folder, self.hosts = folder, {}

    def host(self, name, answer=None, status=0, **variables):
        command = self.folder / name
        if answer is not None:
            command.write_text(
                f"#!{sys.executable}\nimport sys\nassert sys.argv[1:] == ['verify', '--json']\nprint({json.dumps(answer)!r})\nsys.exit({status})\n"
            )
            command.chmod(0o755)
        self.hosts[name] = {
            "ansible_connection": "local",
            "ansible_become": False,
            "exfil_guard_command": str(command),
            "ansible_python_interpreter": sys.executable,
            **variables,
        }

    def run(self, *arguments):
        """The exit status and what was printed."""
        (self.folder / "hosts.json").write_text(json.dumps({"guarded": {"hosts": self.hosts}}))
        environment = dict(
            os.environ,
            ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"),
            NO_COLOR="1",
            ANSIBLE_SSH_TIMEOUT="1",
            PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"],
        )
        done = subprocess.run(
            ["ansible-playbook", "-i", str(self.folder / "hosts.json"), "playbooks/certificates.yml", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr

    def kept(self):
        folder = self.folder / "certificates"
        return (
            {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
            if folder.exists()
            else None
        )


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path)


def test_certificates_are_kept_and_a_second_run_changes_nothing(fleet):
    fleet.host("web1", said())
    fleet.host("web2", said(object="e" * 64))
    assert fleet.run("--check")[0] == 0 and fleet.kept() is None
    status, text = fleet.run()
    assert status == 0, text
    assert "odd: 1 host (web2)" in text
    assert fleet.kept() == {"web1": said()["certificate"], "web2": said(object="e" * 64)["certificate"]}
    assert (fleet.folder / "certificates" / "web1.json").stat().st_mode & 0o777 == 0o600
    status, text = fleet.run()
    assert status == 0 and "changed=1" not in text and "changed=0" in text


def test_a_host_that_differs_or_does_not_answer_ends_it_with_two(fleet):
    fleet.host("web1", said())
    fleet.host("web2", said([("a program is not ours", "Run role x")]), status=1)
    fleet.host("web3")
    fleet.host("web4", ansible_connection="ssh", ansible_host="192.0.2.1", ansible_port=1)
    status, text = fleet.run()
    assert status == 2, text
    assert "web2 DIFFERS: a program is not ours. Run role x" in text
    assert "web3 DIFFERS: no answer" in text and "web4 DIFFERS: no answer" in text
    assert "These hosts differ from their certificate or did not answer: web2, web3, web4" in text
    assert sorted(fleet.kept()) == ["web1", "web2"]
