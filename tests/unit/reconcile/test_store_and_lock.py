# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
import dataclasses
import errno
import hashlib
import json
import multiprocessing
import os
import stat

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import lock
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.store import KEPT, Store
from ansible_collections.exfil.guard.plugins.module_utils._guard.host.stored import Stored


def stored(generation, confirmed=False):
    return Stored(
        generation=generation,
        document={"rules": []},
        digest="d",
        resolved={},
        confirmed=confirmed,
        applied_at="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "state"))


def test_what_was_saved_is_loaded_and_for_root_only(store):
    store.save(stored(3, True))
    assert store.load(3) == stored(3, True)
    with open(os.path.join(store.generations_folder, "3.json"), encoding="ascii") as file:
        text = file.read()
    rest = '{"applied_at":"2026-01-01T00:00:00+00:00",%s"confirmed":true,"digest":"d","document":{"rules":[]},'
    rest += '"generation":3,"resolved":{}}'
    checksum = hashlib.sha256((rest % "").encode()).hexdigest()
    assert text == rest % f'"checksum":"{checksum}",'
    assert store.numbers() == [3]
    assert stat.S_IMODE(os.stat(store.folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(store.generations_folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(os.path.join(store.generations_folder, "3.json")).st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"generation": 4}', "\x00\x00\x00"])
def test_a_half_written_document_is_none(store, text):
    store.save(stored(1, True))
    store.save(stored(2, True))
    with open(os.path.join(store.generations_folder, "2.json"), "w", encoding="utf-8") as file:
        file.write(text)
    assert store.load(2) is None
    assert store.last_confirmed() == stored(1, True)
    assert store.numbers() == [1, 2]  # its number is not given again


@pytest.mark.parametrize("replaces", [None, {"rules": []}])
def test_a_soak_is_stored_with_the_document_that_it_replaces(store, replaces):
    soak = dataclasses.replace(stored(1), soak=True, replaces=replaces, revision="c", labels={}, hooks=[], hardlinks={})
    store.save(soak)
    assert store.load(1) == soak
    with open(os.path.join(store.generations_folder, "1.json"), encoding="ascii") as file:
        content = json.load(file)
    assert content["replaces"] == replaces and set(content) == {
        *("generation", "document", "digest", "resolved", "confirmed", "applied_at"),
        *("replaces", "revision", "labels", "hooks", "hardlinks", "checksum"),
    }


def test_nothing_stored_is_no_error(store):
    assert store.numbers() == [] and store.load(1) is None and store.last_confirmed() is None
    assert not store.clear()


def test_prune_keeps_what_is_in_use_the_last_confirmed_and_the_newest(store):
    for number in range(1, 21):
        store.save(stored(number, number == 4))
    store.prune([20, 2])
    assert store.numbers() == [2, 4, *list(range(20 - KEPT, 20)), 20]


@pytest.mark.parametrize(
    "number, remedy",
    [(errno.ENOSPC, "Free some space there and run again"), (errno.EROFS, "Mount it writable and run again")],
)
def test_a_disk_that_takes_nothing_is_told_and_the_old_document_stays(store, monkeypatch, number, remedy):
    store.save(stored(1))

    def full(_unused):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnforcerError) as refused:
        store.save(stored(1, True))
    path = os.path.join(store.generations_folder, "1.json")
    assert str(refused.value) == f"cannot write {path}: {os.strerror(number)}. {remedy}"
    assert store.load(1) == stored(1) and os.listdir(store.generations_folder) == ["1.json"]


def _hold(path, ready, leave):
    with lock.hold("applying a policy", path):
        ready.set()
        leave.wait(10)


def test_a_lock_held_by_another_names_the_holder(tmp_path):
    path = str(tmp_path / "lock")
    ready, leave = multiprocessing.Event(), multiprocessing.Event()
    other = multiprocessing.Process(target=_hold, args=(path, ready, leave))
    other.start()
    try:
        assert ready.wait(10)
        with pytest.raises(EnforcerError) as refused, lock.hold("confirming", path, wait=0.2):
            pass
        assert str(refused.value) == (
            f"another run holds the lock {path}: pid {other.pid}, applying a policy. Wait until it ends and run again"
        )
    finally:
        leave.set()
        other.join()
    with lock.hold("confirming", path, wait=0):
        pass


def test_a_link_in_the_locks_place_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "lock").symlink_to(victim)
    with lock.hold("applying", str(tmp_path / "lock")):
        assert victim.read_text() == "mine"
        assert not (tmp_path / "lock").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_file_of_another_user_in_the_locks_place_is_replaced(tmp_path):
    path = tmp_path / "lock"
    path.write_text("")
    os.chown(str(path), 1000, 1000)
    with lock.hold("applying", str(path)):
        assert path.stat().st_uid == 0
