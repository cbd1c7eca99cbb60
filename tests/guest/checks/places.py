# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user does to paths of his own that a policy names: rules on other paths are neither stopped nor widened by it."""

import contextlib
import os

from harness.checks import enforcer, story
from harness.process import ALICE, BOB, in_child, write

HOME, EXPORTS, ELSEWHERE, OTHER, ROOTS = (
    "/var/lib/places/homes/alice",
    "/var/lib/places/homes/alice/exports",
    "/var/lib/places/elsewhere",
    "/var/lib/places/others",
    "/var/lib/places/releases",
)
POLICY = {
    "subjects": {"bob": {"users": ["bob"]}},
    "resources": {
        "hers": {"paths": [EXPORTS + "/**"]},
        "others": {"paths": [OTHER + "/**"]},
        "current": {"paths": [ROOTS + "/current/**"]},
    },
    "rules": [
        {
            "name": "bob reads no exports",
            "deny": ["read"],
            "subjects": ["bob"],
            "resources": ["current", "hers", "others"],
        }
    ],
}


def _file(path, owner=0):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    for folder in ("/", "/var/lib/places", ROOTS, os.path.dirname(path)):
        if os.path.isdir(folder):
            os.chmod(folder, 0o755)  # the guest has no umask, and only links in such folders are followed
    write(path, "x")
    os.chmod(path, 0o644)
    for each in (os.path.dirname(path), path):
        os.chown(each, owner, owner)


def _reads(path):
    """What bob gets."""
    return in_child(lambda: os.close(os.open(path, os.O_RDONLY)), user=BOB)


def _by_alice(operation):
    assert in_child(operation, user=ALICE) == 0


def _fresh():
    enforcer.drop()
    for name in ("exports", "moved"):
        with contextlib.suppress(OSError):
            os.unlink(f"{HOME}/{name}")
    _file(EXPORTS + "/a", ALICE)
    _file(ELSEWHERE + "/a")
    _file(OTHER + "/a")
    for number in (1, 2):
        _file(f"{ROOTS}/{number}/a")
    os.chown(HOME, ALICE, ALICE)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(ROOTS + "/current")
    os.symlink("1", ROOTS + "/current")
    assert (_reads(EXPORTS + "/a"), _reads(OTHER + "/a"), _reads(ELSEWHERE + "/a")) == (0, 0, 0)
    enforcer.apply(POLICY)
    assert (_reads(EXPORTS + "/a"), _reads(OTHER + "/a"), _reads(ELSEWHERE + "/a")) == (1, 1, 0)


@story
def a_folder_that_a_user_renames():
    _fresh()
    _by_alice(lambda: os.rename(EXPORTS, HOME + "/moved"))
    try:
        os.mkdir(OTHER + "/more", 0o755)
        enforcer.refresh()
        enforcer.apply({**POLICY, "mode": "audit"})
        assert _reads(OTHER + "/a") == 0  # so that it is another policy
        enforcer.apply(POLICY)
        assert _reads(OTHER + "/a") == 1
    finally:
        os.rename(HOME + "/moved", EXPORTS)
    assert _reads(EXPORTS + "/a") == 1
    enforcer.drop()


@story
def a_link_that_a_user_makes():
    for target in ("/", ELSEWHERE):
        _fresh()
        _by_alice(lambda: os.rename(EXPORTS, HOME + "/moved"))
        _by_alice(lambda target=target: os.symlink(target, EXPORTS))
        try:
            enforcer.refresh()
            assert (_reads(ELSEWHERE + "/a"), _reads(OTHER + "/a")) == (0, 1), target
            enforcer.apply({**POLICY, "boot": "best-effort"})
            assert (_reads(ELSEWHERE + "/a"), _reads(OTHER + "/a")) == (0, 1), target
        finally:
            enforcer.drop()
            os.unlink(EXPORTS)
            os.rename(HOME + "/moved", EXPORTS)


@story
def a_link_of_root_that_moves():
    """It is followed, and what it led to stays covered."""
    _fresh()
    assert (_reads(ROOTS + "/1/a"), _reads(ROOTS + "/2/a")) == (1, 0)
    os.unlink(ROOTS + "/current")
    os.symlink("2", ROOTS + "/current")
    enforcer.refresh()
    assert (_reads(ROOTS + "/1/a"), _reads(ROOTS + "/2/a")) == (1, 1)
    enforcer.drop()
