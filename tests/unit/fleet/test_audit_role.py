# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role audit on a host that is this machine with everything that it writes kept apart: each step in check mode, in
earnest, and again; and no trace after removal."""

import os
import shutil
import subprocess

import pytest
from alone import Host

EVERYTHING = {
    "exfil_guard_audit_json_lines": "/var/log/exfil-guard.jsonl",
    "exfil_guard_audit_metrics": "/var/tmp/exfil_guard.prom",
}
UNITS = "etc/upper/systemd/system/"


@pytest.fixture
def host(tmp_path):
    found = Host(tmp_path, "exfil.guard.audit", {})
    command = tmp_path / "host" / "usr" / "upper" / "sbin" / "exfil-guard"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    package = tmp_path / "host" / "usr" / "upper" / "lib" / "systemd"
    for name in ("systemd-journal-upload", "system/systemd-journal-upload.service"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("")
    return found


def tree(host):
    return {path: content for path, content in host.tree().items() if path != "usr/upper/sbin/exfil-guard" and content}


def test_installed_changed_and_removed_in_four_steps_each(host):
    would, diff = host.changes("--check")
    assert tree(host) == {} and host.calls() == [] and would > 0
    done, same = host.changes()
    assert done == would and [line for line in diff if line.startswith("+Exec")] == [
        line for line in same if line.startswith("+Exec")
    ]
    assert set(tree(host)) == {
        UNITS + "exfil-guard-audit.service",
        UNITS + "multi-user.target.wants/exfil-guard-audit.service",
    }
    assert host.calls()[-1] == "start exfil-guard-audit.service"
    assert host.changes() == (0, []) and host.calls() == []

    # with everything
    before = tree(host)
    would = host.changes("--check", **EVERYTHING)
    assert tree(host) == before and host.calls() == []
    done = host.changes(**EVERYTHING)
    assert done[0] == would[0] and set(done[1]) >= set(
        line for line in would[1] if line.startswith(("+Exec", "-Exec", "+ReadWrite"))
    )
    unit = tree(host)[UNITS + "exfil-guard-audit.service"]
    assert "ExecStart=/usr/sbin/exfil-guard audit --fold 10 --json-lines /var/log/exfil-guard.jsonl\n" in unit
    assert "ReadWritePaths=/run/lock /var/log\n" in unit
    assert "--output /var/tmp/exfil_guard.prom\n" in tree(host)[UNITS + "exfil-guard-metrics.service"]
    assert "/var/log/exfil-guard.jsonl {" in tree(host)["etc/upper/logrotate.d/exfil-guard"]
    assert [call for call in host.calls() if call != "daemon-reload"] == [
        "restart exfil-guard-audit.service",
        "start exfil-guard-metrics.timer",
    ]
    for again in ((), ("--check",)):
        assert host.changes(*again, **EVERYTHING) == (0, []) and host.calls() == []

    # and without again
    host.changes()
    assert tree(host) == before
    assert [call for call in host.calls() if call != "daemon-reload"] == [
        "stop exfil-guard-metrics.timer",
        "restart exfil-guard-audit.service",
    ]

    # away
    host.changes(**EVERYTHING)
    host.calls()
    would = host.changes("--check", exfil_guard_state="absent")
    assert UNITS + "exfil-guard-audit.service" in tree(host)
    assert host.changes(exfil_guard_state="absent")[0] == would[0]
    assert tree(host) == {}
    assert [call for call in host.calls() if call != "daemon-reload"] == [
        "stop exfil-guard-metrics.timer",
        "stop exfil-guard-audit.service",
    ]
    assert host.changes(exfil_guard_state="absent")[0] == 0 and host.calls() == []


UPLOAD = {
    "exfil_guard_audit_upload_url": "https://logs.example.com:19532",
    "exfil_guard_audit_upload_key": "/etc/ssl/private/journal.pem",
    "exfil_guard_audit_upload_certificate": "/etc/ssl/certs/journal.pem",
    "exfil_guard_audit_upload_authority": "/etc/ssl/certs/ca.pem",
}
SENT = (
    "etc/upper/systemd/journal-upload.conf.d/exfil-guard.conf",
    UNITS + "systemd-journal-upload.service.d/exfil-guard.conf",
)


def test_the_journal_is_sent_and_no_more_in_four_steps_each(host):
    host.changes()
    before = tree(host)
    host.calls()
    would = host.changes("--check", **UPLOAD)[0]
    assert tree(host) == before and host.calls() == []
    assert host.changes(**UPLOAD)[0] == would
    configuration, unit = (tree(host)[path] for path in SENT)
    assert (
        "URL=https://logs.example.com:19532\nServerKeyFile=/run/credentials/systemd-journal-upload.service/key\n"
        in configuration
    )
    assert "RestartSec=10\n" in unit and "LoadCredential=key:/etc/ssl/private/journal.pem\n" in unit
    link = (
        host.folder
        / "host"
        / "etc"
        / "upper"
        / "systemd"
        / "system"
        / "multi-user.target.wants"
        / "systemd-journal-upload.service"
    )
    assert os.readlink(link) == "/usr/lib/systemd/system/systemd-journal-upload.service"
    assert [call for call in host.calls() if call != "daemon-reload"] == ["start systemd-journal-upload.service"]
    for again in ((), ("--check",)):
        assert host.changes(*again, **UPLOAD) == (0, []) and host.calls() == []

    host.changes(exfil_guard_audit_upload_url="http://192.0.2.1:19532", exfil_guard_audit_upload_plain=True)
    assert "Key" not in tree(host)[SENT[0]] and "Credential" not in tree(host)[SENT[1]]
    host.calls()
    would = host.changes("--check")[0]
    assert would > 0 and SENT[0] in tree(host)
    assert host.changes()[0] == would
    assert tree(host) == before and not os.path.lexists(link)
    assert [call for call in host.calls() if call != "daemon-reload"] == ["stop systemd-journal-upload.service"]
    assert host.changes() == (0, []) and host.calls() == []


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"exfil_guard_audit_upload_url": "http://192.0.2.1:19532"}, "only if exfil_guard_audit_upload_plain is true"),
        ({"exfil_guard_audit_upload_url": "https://192.0.2.1:19532"}, "must be absolute paths of files on the host"),
        ({"exfil_guard_audit_upload_url": "ftp://192.0.2.1"}, "must be https://HOST:PORT"),
        ({"exfil_guard_audit_json_lines": "/nonexistent/a.jsonl"}, "There is no /nonexistent on this host"),
        ({"exfil_guard_audit_metrics": "metrics.prom"}, "must be absolute paths"),
        ({"exfil_guard_audit_json_lines": "/var/log/a b"}, "must be absolute paths"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_written(host, variables, message):
    code, said = host.run(**variables)
    assert code != 0 and message in " ".join(said.split()), said
    assert tree(host) == {} and host.calls() == []


def test_without_the_enforcer(host):
    shutil.rmtree(host.folder / "host" / "usr" / "upper" / "sbin")
    code, said = host.run()
    assert (
        code != 0
        and "There is no /usr/sbin/exfil-guard on this host. Run role exfil.guard.enforcer first"
        in " ".join(said.split())
    )
    assert tree(host) == {}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")
def test_systemd_takes_the_units_and_finds_them_well_shut_in(host):
    host.changes(**EVERYTHING)
    folder = host.folder / "units"
    folder.mkdir()
    for name in ("exfil-guard-audit.service", "exfil-guard-metrics.service", "exfil-guard-metrics.timer"):
        (folder / name).write_text(tree(host)[UNITS + name].replace("/usr/sbin/exfil-guard", "/bin/true"))
    said = subprocess.run(
        ["systemd-analyze", "verify", *sorted(map(str, folder.iterdir()))],
        env=dict(os.environ, LC_ALL="C"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert said.returncode == 0 and str(folder) not in said.stdout, said.stdout
    for name, most in (("exfil-guard-audit.service", 20), ("exfil-guard-metrics.service", 25)):
        subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", f"--threshold={most}", str(folder / name)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
