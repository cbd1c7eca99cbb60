# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each advice finds what it is about, says where, and is quiet once its remedy is there."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import jinja2
import pytest
import yaml
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import administrators
from ansible_collections.exfil.guard.plugins.plugin_utils._language import advice, pipeline
from ansible_collections.exfil.guard.plugins.plugin_utils._plan import plan, validation

ROOT = Path(__file__).resolve().parents[3]
TODAY = datetime.date(2026, 12, 1)
PAGE = ROOT / "docs" / "advice.md"


def checked(*sources, **variables):
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["to_json"] = json.dumps
    templates = [pipeline.Template(f"policies/{number}.yml.j2", source) for number, source in enumerate(sources)]
    return pipeline.checked(templates, lambda text: environment.from_string(text).render(**variables), TODAY)


def found(name, *sources, **variables):
    """What one advice says, as text."""
    wanted = next(each for each in advice.ADVICES if each.name == name)
    result = checked(*sources, **variables)
    own = {finding.found for finding in wanted.find(result.document, TODAY)}
    return [str(each) for each in result.advice if any(text in each.found for text in own)]


def policy(rule, more=(), **sets):
    return yaml.safe_dump({"policy": 1, **sets, "rules": [{"name": "r", **rule}, *more]})


LOCKED = (ROOT / "policies" / "exfil.guard" / "locked-down-root.yml.j2").read_text(encoding="utf-8")
SEND = {"deny": ["connect", "send"], "destinations": {"cidrs": ["10.0.0.0/8"]}}
READ = {"deny": ["read"], "resources": {"paths": ["/srv/data/**"]}}
WEB = {"web": {"services": ["web.service"]}}
ROOT_USER = {"web": {"users": ["root"]}}


@pytest.mark.parametrize("who", (WEB, ROOT_USER, {"web": {"users": [0]}}))
@pytest.mark.parametrize("rule", (SEND, READ))
def test_root_gets_around(rule, who):
    source = policy({**rule, "subjects": ["web"]}, subjects=who)
    (line,) = found("root-gets-around", source)
    assert line.startswith("policies/0.yml.j2:") and "$.rules[0].subjects: rule 'r' binds" in line
    for part in ("block-device", "ptrace", "perf", "load-module", "/dev/mem", "/proc/kcore", "cgroup.procs", "kprobe"):
        assert part in line
    assert ("cap-net-admin" in line) == ("/dev/kmsg" in line) == (rule is SEND)
    assert advice.LOCKED_DOWN_ROOT in line
    # the remedy
    same = policy({**rule, "subjects": ["locked-down-root"]}, subjects={"locked-down-root": who["web"]})
    assert found("root-gets-around", same, LOCKED, locked_down_root=who["web"]) == []


@pytest.mark.parametrize(
    "who",
    (
        {"users": ["alice"]},
        {"groups": ["staff"]},
        {"services": ["web.service"], "users": ["www-data"]},
        {"login_users": ["alice"]},
    ),
)
def test_who_is_not_root_does_not_get_around(who):
    assert found("root-gets-around", policy({**SEND, "subjects": ["s"]}, subjects={"s": who})) == []


def test_an_assertion_says_that_a_service_is_not_root():
    rule = {**SEND, "subjects": ["web"]}
    for user, lines in (("www-data", 0), ("root", 1)):
        says = [{"service": "web", "user": user, "action": "connect", "address": "10.0.0.1", "expect": "deny"}]
        assert len(found("root-gets-around", policy(rule, subjects=WEB, assertions=says))) == lines
    assert found("root-gets-around", policy({"deny": ["mount"], "subjects": ["web"]}, subjects=WEB)) == []


def test_leaves_by_exec():
    who = {"s": {"users": ["alice"], "executables": ["/usr/bin/restic"]}}
    (line,) = found("leaves-by-exec", policy({**SEND, "subjects": ["s"]}, subjects=who))
    assert "a program that one of them executes is not bound" in line
    more = [{"name": "x", "deny": ["execute"], "subjects": ["s"], "resources": {"not": ["own"]}}]
    own = {"own": {"paths": ["/usr/bin/restic", "/usr/lib/**"]}}
    assert found("leaves-by-exec", policy({**SEND, "subjects": ["s"]}, subjects=who, resources=own, more=more)) == []


@pytest.mark.parametrize("group", sorted(administrators.GROUPS))
def test_administrators(group):
    who = {"s": {"groups": [group]}}
    (line,) = found("administrators", policy({**READ, "subjects": ["s"]}, subjects=who))
    assert f"members of '{group}'" in line
    action, path = administrators.GROUPS[group]
    remedy = {"name": "x", "deny": [action], "subjects": ["s"], **({"resources": {"paths": [path]}} if path else {})}
    assert found("administrators", policy({**READ, "subjects": ["s"]}, subjects=who, more=[remedy])) == []
    assert found("administrators", policy({**READ, "subjects": ["s"]}, subjects={"s": {"groups": ["staff"]}})) == []


def test_another_login():
    who = {"s": {"login_users": ["alice"]}}
    (line,) = found("another-login", policy({**READ, "subjects": ["s"]}, subjects=who))
    assert "systemd-run" in line and "/usr/bin/crontab" in line
    more = [
        {"name": "x", "deny": ["execute"], "subjects": ["s"], "resources": {"paths": list(advice.JOB_PROGRAMS)}},
        {"name": "y", "deny": ["unix-connect"], "subjects": ["s"], "resources": {"paths": list(advice.JOB_SOCKETS)}},
    ]
    assert found("another-login", policy({**READ, "subjects": ["s"]}, subjects=who, more=more)) == []


@pytest.mark.parametrize("action, other", (("connect", "send"), ("send", "connect")))
def test_half_of_sending(action, other):
    (line,) = found("half-of-sending", policy({**SEND, "deny": [action]}))
    assert f"denies `{action}` without `{other}`" in line and "$.rules[0].deny" in line
    assert found("half-of-sending", policy(SEND)) == []
    sets = {"destinations": {"d": {"cidrs": ["10.0.0.0/8"]}}}
    more = [{"name": "x", "deny": [other], "destinations": ["d"]}]
    assert found("half-of-sending", policy({"deny": [action], "destinations": ["d"]}, **sets, more=more)) == []


def test_answers():
    sets = {"subjects": {"s": {"has_read": ["data"]}}, "resources": {"data": {"paths": ["/srv/data/**"]}}}
    (line,) = found("answers", policy({**SEND, "subjects": ["s"]}, **sets))
    assert "without `reply`" in line
    assert found("answers", policy({**SEND, "deny": ["connect", "send", "reply"], "subjects": ["s"]}, **sets)) == []


@pytest.mark.parametrize("path", ("/etc/shadow", "/etc/**", "/etc/*shadow", "/**"))
def test_password_files(path):
    rule = {"deny": ["read"], "resources": {"paths": [path]}}
    (line,) = found("password-files", policy(rule))
    assert "su, sudo, passwd, cron and logins fail" in line and "/usr/sbin/unix_chkpwd" in line
    passwords = {"passwords": {"services": ["-.slice"], "executables": list(advice.SHADOW_READERS)}}
    assert found("password-files", policy({**rule, "except": ["passwords"]}, subjects=passwords)) == []
    assert found("password-files", policy({**rule, "subjects": ["s"]}, subjects={"s": {"users": ["alice"]}})) == []
    assert found("password-files", policy({**rule, "resources": {"paths": ["/etc/shop/**"]}})) == []


def test_program_by_name():
    (line,) = found("program-by-name", policy({"deny": ["execute"], "resources": {"paths": ["/usr/bin/curl"]}}))
    assert "/usr/bin/curl: a copy elsewhere" in line
    assert found("program-by-name", policy({"deny": ["execute"], "resources": {"paths": ["/srv/uploads/**"]}})) == []


def test_writable_programs():
    def listed(*paths):
        rule = {"deny": ["execute"], "resources": {"not": ["programs"]}}
        return found("writable-programs", policy(rule, resources={"programs": {"paths": list(paths)}}))

    (line,) = listed("/usr/**", "/tmp/**", "/home/**")
    assert "/tmp, /home run" in line
    assert listed("/usr/**", "/lib/**") == []


def test_login_service():
    def bound(*services):
        return found("login-service", policy({**SEND, "subjects": ["s"]}, subjects={"s": {"services": list(services)}}))

    assert "below user.slice" in bound("ssh.service")[0]
    assert bound("ssh.service", "user.slice") == [] and bound("web.service") == []


def test_own_process():
    (line,) = found(
        "own-process", policy({"deny": ["read"], "resources": ["r"]}, resources={"r": {"paths": ["/proc/self/mem"]}})
    )
    assert "$.resources.r.paths" in line and "/proc/*/" in line
    assert found("own-process", policy({"deny": ["read"], "resources": {"paths": ["/proc/*/mem"]}})) == []


def test_expired():
    assert "expired on 2026-12-01" in found("expired", policy({**SEND, "expires": datetime.date(2026, 12, 1)}))[0]
    assert found("expired", policy({**SEND, "expires": datetime.date(2026, 12, 2)})) == []


def test_the_page_has_each_advice():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == [f"| `{each.name}` | {each.meaning} | {each.remedy} |" for each in advice.ADVICES]


def test_advice_is_reported_and_is_no_error():
    result = checked(policy({**SEND, "deny": ["connect"]}))
    lines = tuple(map(str, result.advice))
    host = validation.Checked("digest", (validation.Case(validation.VALID),), lines)
    text = validation.report({"one": host, "two": host})
    assert "2 valid" in text and f"ADVICE  one, two: {lines[0]}" in text
    entries = plan.group({"one": plan.host_result([{"changed": False, "advice": list(lines)}], plan.Comparer(TODAY))})
    assert plan.status(entries) == plan.NO_CHANGE
    assert f"  ADVICE  {lines[0]}" in plan.text("plan", entries) and "ADVICE" in plan.markdown("plan", entries)
    assert "ADVICE" not in plan.text("drift", entries)
