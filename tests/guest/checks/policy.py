# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy that the attempts of all checks are made under, and what the checks have in common."""

import os

from harness.checks import VAULT4, VAULT6
from harness.process import ALICE, in_child, write

READS, RUNS, SENDS = "alice reads no secrets", "alice runs no tool", "alice sends nothing to the vault"
MAKES = "carol makes no user namespace"  # not alice: she makes some on her way to a file


def rule(name, deny, **more):
    return {"name": name, "deny": deny, **more}


RESOURCES = {
    "secret": {"paths": ["/srv/secret/**"]},
    "deep": {"paths": ["/srv/deep/inner/secret/**"]},
    "exports": {"paths": ["/srv/exports/*.csv"]},
    "tools": {"paths": ["/srv/bin/tool", "/srv/bin/dynamic"]},
}
POLICY = {
    "subjects": {"alice": {"users": ["alice"]}, "carol": {"users": ["carol"]}},
    "resources": {**RESOURCES},
    "destinations": {"vault": {"cidrs": [VAULT4 + "/32", VAULT6 + "/128"]}},
    "rules": [
        rule(READS, ["read", "write"], subjects=["alice"], resources=["deep", "exports", "secret"]),
        rule(RUNS, ["execute"], subjects=["alice"], resources=["tools"]),
        rule(SENDS, ["connect", "send"], subjects=["alice"], destinations=["vault"]),
        rule(MAKES, ["user-namespace"], subjects=["carol"]),
    ],
}


def look(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags))


def alice(operation, **more):
    return in_child(operation, user=ALICE, **more)


def fresh(path, text="x"):
    if os.path.lexists(path):
        os.unlink(path)
    write(path, text)
    os.chmod(path, 0o666)


def expect(found, wanted, what):
    assert found == wanted, f"{what}: {found}, expected {wanted}"
