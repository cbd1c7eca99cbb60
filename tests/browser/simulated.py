# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hosts of a fleet that does not exist answer: the same each time."""

import datetime
import random

NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.timezone.utc)
GROUPS = (("web", 40), ("db", 20), ("batch", 15), ("build", 15), ("edge", 10))  # and their share, in percent
RULES = {
    "customer data is for the database and its backup": ("read", "/srv/exports/customers-{0}.csv", "denied"),
    "nothing leaves the company network": ("connect", "198.51.100.{0}", "denied"),
    "no packet sockets": ("packet-socket", "", "denied"),
    "builders run the system's programs only": ("execute", "/opt/tools/tool-{0}", "audit"),
    "who has read customer data talks to the vault only": ("send", "203.0.113.{0}", "audit"),
}
SUBJECTS = (
    ("alice", "/usr/bin/cat", "session-3.scope"),
    ("bob", "/usr/bin/curl", "session-7.scope"),
    ("builder", "/usr/bin/make", "runner.service"),
    ("exporter", "/usr/bin/python3.11", "exporter.service"),
)


def answers(hosts=1000, events=100_000):
    """As _report.report takes them: ``events`` single ones, each a record of its own."""
    dice = random.Random(7)
    names = []
    for group, share in GROUPS:
        names += [(f"{group}{number:04}.example.com", group) for number in range(1, hosts * share // 100 + 1)]
    return {
        name: {"groups": ["guarded", group], **_answer(dice, at, group, events // len(names))}
        for at, (name, group) in enumerate(names)
    }


def _answer(dice, at, group, events):
    if at % 250 == 17:
        return {"status": None, "message": "Failed to connect to the host via ssh: No route to host"}
    status = {
        "installed": True,
        "running": True,
        "in_force": True,
        "mode": "audit" if group == "build" else "enforce",
        "generation": 12,
        "kernel": dice.choice(("6.1.0-40-amd64", "6.1.0-40-amd64", "6.12.48+deb13-amd64")),
        "revision": "5f3c" * 10,
        "totals": {"denied": events * 7 // 10, "audited": events * 3 // 10, "events_lost": 0},
        "certificate": {"policy": {"generation": 12}, "not_proved": []},
        "audit": {"running": True},
        "problems": [],
        "unenforced": [],
        "drift": [],
        "hardlinks": [],
        "pending": False,
        "soak": False,
    }
    if at % 97 == 5:
        status.update(
            drift=["rule 'no packet sockets': its entry in map rules is not the document's"],
            certificate={"policy": {"generation": 11}},
        )
    if at % 61 == 9:
        status["unenforced"] = [
            "rule 'customer data is for the database and its backup': read: file_permission is not attached"
        ]
    if at % 333 == 40:
        status.update(
            in_force=False,
            problems=["BPF is not among the kernel's active security modules"],
            certificate={},
            mode=None,
            generation=0,
        )
    return {"status": status, "records": [_record(dice, group) for _ in range(events)]}


def _record(dice, group):
    rule = dice.choice(list(RULES))
    action, name, verdict = RULES[rule]
    user, executable, unit = dice.choice(SUBJECTS)
    name = name.format(min(int(dice.expovariate(0.1)), 254))
    hour = min(dice.triangular(0, 168, 150), 167.9)
    when = (NOW - datetime.timedelta(hours=168 - hour)).isoformat(timespec="milliseconds")
    network = action in ("connect", "send")
    return {
        "kind": "decision",
        "time": when,
        "last_time": when,
        "count": 1,
        "verdict": "audit" if group == "build" else verdict,
        "rule": rule,
        "user": user,
        "uid": 2001,
        "executable": executable,
        "command": "x",
        "unit": unit,
        "login_user": user,
        "action": action,
        "object": name + ":443/tcp" if network else name,
        "path": name if name and not network else None,
        "address": name if network else None,
    }


def plan(names):
    """As _plan.data gives it: every web host would change, one host failed."""
    web = sorted(name for name in names if name.startswith("web"))
    other = sorted(set(names) - set(web))
    entry = {
        "changed": True,
        "error": None,
        "pending": True,
        "drift": [],
        "renewal": [],
        "unsettled": [],
        "unenforced": [],
        "decisions": None,
    }
    change = {
        "direction": "weaker",
        "actions": ["connect", "send"],
        "who": "everyone",
        "what": "corp (after)",
        "before": "deny",
        "after": "allow",
        "rule": "nothing leaves the company network",
        "since": None,
        "example": "as 10.128.0.0 port 443/tcp",
    }
    stricter = dict(
        change,
        direction="stricter",
        actions=["execute"],
        who="builders",
        what="not system-programs",
        before="allow",
        after="deny",
        rule="builders run the system's programs only",
    )
    return {
        "kind": "plan",
        "status": 2,
        "summary": f"Plan of {len(names):,} hosts: {len(other):,} in order, {len(web):,} would change, 0 failed",
        "entries": [
            dict(
                entry,
                hosts=web,
                lines=["~ destination corp", "    - cidrs: 10.0.0.0/9", "    + cidrs: 10.0.0.0/8"],
                decisions={
                    "changes": [change, stricter],
                    "examples": ["connect", "send"],
                    "structure": [],
                    "open": [],
                    "failed": None,
                },
            ),
            dict(entry, hosts=other, changed=False, pending=False, lines=[]),
        ],
    }
