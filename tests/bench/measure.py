# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In the guest: what open+close and a UDP connect cost, in instructions; one JSON line per number."""

import json
import os
import shutil

from machine import ALICE, BOB, Enforcer, write

FILE, ADDRESS = "/srv/open/a/b/c/file", "10.9.1.1"
SETS = 60
enforcer = Enforcer()


def policy(rules):
    """Rules that bind alice and cover neither the file nor the address, though they share all of the file's folders."""
    sets = [f"{number:02}" for number in range(min(rules, SETS))]
    return {
        "subjects": {"alice": {"users": ["alice"]}},
        "resources": {
            n: {"paths": [f"/srv/open/a/b/c/{n}/**", f"/srv/open/a/b/{n}-*.csv", f"/srv/closed/{n}/**"]} for n in sets
        },
        "destinations": {
            n: {"cidrs": [f"10.8.{int(n)}.0/24", f"fd08:{n}::/32"], "ports": [443, "8000-8100"]} for n in sets
        },
        "rules": [
            {
                "name": f"rule {number:03}",
                "deny": ["read", "write", "connect", "send"],
                "subjects": ["alice"],
                "resources": [sets[number % len(sets)]],
                "destinations": [sets[number % len(sets)]],
            }
            for number in range(rules)
        ],
    }


def measure(label, user, operation, temperature):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.execv("/guest/loop", ["loop", str(user), operation, temperature, FILE if operation == "open" else ADDRESS])
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read().strip()
    status = os.waitpid(child, 0)[1]
    assert status == 0 and text, f"{label}: loop ended with {os.WEXITSTATUS(status)}"
    print(
        json.dumps({"row": label, "operation": operation, "temperature": temperature, "count": int(text)}), flush=True
    )


def both(label, user, temperature):
    for operation in ("open", "connect"):
        measure(label, user, operation, temperature)


os.makedirs(os.path.dirname(FILE))
for number in range(SETS):
    os.makedirs(f"{os.path.dirname(FILE)}/{number:02}")
    os.makedirs(f"/srv/closed/{number:02}")
write(FILE)
os.chmod(FILE, 0o644)
write("/tmp/loop-a")
os.chmod("/tmp", 0o777)
shutil.copy("/guest/systemctl", "/usr/bin/systemctl")
assert os.system(f"ip addr add {ADDRESS}/32 dev lo") == 0
both("warm-up", BOB, "warm")
both("none", ALICE, "warm")
both("none", ALICE, "cold")
enforcer.install()
for rules in (10, 500):
    enforcer.apply(policy(rules))
    both(f"unbound {rules}", BOB, "warm")
    both(f"bound {rules}", ALICE, "warm")
    both(f"bound {rules}", ALICE, "cold")
