# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file is there whole or not at all, whatever the disk, a link or an earlier run that was killed makes of it; and what
each of those who write so says when it can't be done."""

import builtins
import errno
import os
import stat

import pytest
from ansible_collections.exfil.guard.plugins.module_utils._guard.audit import collector
from ansible_collections.exfil.guard.plugins.module_utils._guard.errors import EnforcerError
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import atomic, install, store
from ansible_collections.exfil.guard.plugins.module_utils._guard.report import metrics
from ansible_collections.exfil.guard.plugins.module_utils.observe import collect

NEW = b"new " * 100_000  # more than any buffer holds


class Torn:
    """A file whose disk is full after a third of what is written."""

    def __init__(self, file):
        self._file = file

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_unused):
        self._file.close()

    def write(self, content):
        self._file.write(content[: len(content) // 3])
        self._file.flush()
        full()


def full(*_unused):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_up(monkeypatch, step):
    """The disk is full from that step on."""
    if step == "write":
        monkeypatch.setattr(atomic, "open", lambda *call: Torn(builtins.open(*call)), raising=False)
    else:
        monkeypatch.setattr(atomic.os, step, full)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "file")


def content(path):
    with open(path, "rb") as file:
        return file.read()


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.mark.parametrize("old", [None, b"", b"old" * 1000])
def test_it_is_there_and_nothing_beside_it(tmp_path, path, old):
    if old is not None:
        with open(path, "wb") as file:
            file.write(old)
    atomic.write(path, NEW)
    assert content(path) == NEW and os.listdir(tmp_path) == ["file"]


def test_who_has_opened_the_old_one_reads_all_of_it(path):
    atomic.write(path, b"old")
    with open(path, "rb") as file:
        atomic.write(path, NEW)
        assert file.read() == b"old"


@pytest.mark.parametrize("step", ["open", "write", "fchmod", "fsync", "replace"])
@pytest.mark.parametrize("there", [True, False], ids=["replaced", "new"])
def test_a_full_disk_leaves_what_was_there(tmp_path, path, monkeypatch, step, there):
    if there:
        atomic.write(path, b"old", 0o640, exact=True)
    with monkeypatch.context() as patched:
        fill_up(patched, step)
        with pytest.raises(OSError) as refused:
            atomic.write(path, NEW, 0o600, exact=True)
    assert refused.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == (["file"] if there else [])
    assert not there or (content(path) == b"old" and mode(path) == 0o640)


def test_what_is_not_durable_waits_for_no_disk(path, monkeypatch):
    monkeypatch.setattr(atomic.os, "fsync", full)
    atomic.write(path, NEW, durable=False)
    assert content(path) == NEW


def test_it_is_on_the_disk_before_it_has_its_name(path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def synced(fd):
        done.append(("fsync", os.fstat(fd).st_ino, os.fstat(fd).st_size))
        fsync(fd)

    def replaced(old, new):
        done.append(("replace", os.stat(old).st_ino, new))
        replace(old, new)

    monkeypatch.setattr(atomic.os, "fsync", synced)
    monkeypatch.setattr(atomic.os, "replace", replaced)
    atomic.write(path, b"new")  # no buffer is full of it
    assert done == [("fsync", os.stat(path).st_ino, 3), ("replace", os.stat(path).st_ino, path)]
    done.clear()
    atomic.sync(os.path.dirname(path))
    assert [each[:2] for each in done] == [("fsync", os.stat(os.path.dirname(path)).st_ino)]


@pytest.mark.parametrize("umask, exact, wanted", [(0o022, False, 0o644), (0o077, False, 0o600), (0o077, True, 0o644)])
def test_modes(path, umask, exact, wanted):
    before = os.umask(umask)
    try:
        atomic.write(path, NEW, 0o644, exact=exact)
    finally:
        os.umask(before)
    assert mode(path) == wanted


def test_without_a_mode_it_is_for_nobody_else(path):
    atomic.write(path, NEW)
    assert mode(path) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away")
@pytest.mark.parametrize("exact, group", [(False, 1000), (True, 0)])
def test_owners(tmp_path, path, exact, group):
    """A folder may hand its group down."""
    os.chown(tmp_path, 1000, 1000)
    os.chmod(tmp_path, 0o2755)
    atomic.write(path, NEW, exact=exact)
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (0, group)


@pytest.mark.parametrize("target", ["victim", "nowhere"])
def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path, path, target):
    (tmp_path / "victim").write_bytes(b"mine")
    os.symlink(target, path)
    atomic.write(path, NEW)
    assert (tmp_path / "victim").read_bytes() == b"mine" and sorted(os.listdir(tmp_path)) == ["file", "victim"]
    assert not os.path.islink(path) and content(path) == NEW


def test_a_link_beside_it_is_not_followed_either(tmp_path, path):
    (tmp_path / "victim").write_bytes(b"mine")
    os.symlink("victim", atomic.beside(path))
    atomic.write(path, NEW)
    assert (tmp_path / "victim").read_bytes() == b"mine" and sorted(os.listdir(tmp_path)) == ["file", "victim"]
    assert content(path) == NEW


def test_what_a_killed_run_left_is_taken(tmp_path, path):
    with open(atomic.beside(path), "wb") as file:
        file.write(b"half" * len(NEW))
    os.chmod(atomic.beside(path), 0o666)
    atomic.write(path, NEW, 0o644, exact=True)
    assert content(path) == NEW and mode(path) == 0o644 and os.listdir(tmp_path) == ["file"]


def test_a_path_without_a_folder_is_of_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not os.path.dirname(atomic.beside("file"))
    atomic.write("file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW


# ---- who writes so ------------------------------------------------------------------------------------------------


def save(path):
    collector.save(collector.State("ring"), path)


def certify(path):
    store.Store(os.path.dirname(path)).certify({"version": 1})


def put(path):
    install._write("/", path, b"code", 0o755)


def observed(path):
    collect.write([{"kind": "end"}], path)


WRITERS = [  # name, how, mode, does it wait for the disk, what it says
    ("state.json", save, 0o600, False, "[Errno 28] No space left on device"),
    (
        "certificate.json",
        certify,
        0o600,
        True,
        "cannot write {0}: No space left on device. Free some space there and run again",
    ),
    ("command", put, 0o755, True, "cannot write {0}: No space left on device"),
    (
        "exfil_guard.prom",
        lambda path: metrics.write("text\n", path),
        0o644,
        False,
        "cannot write {0}: No space left on device. Check the folder and its free space",
    ),
    (
        "observed.jsonl",
        observed,
        0o600,
        True,
        "what was observed cannot be written to {0}: No space left on device. "
        "Make room there, or name another file, and observe again",
    ),
]


@pytest.mark.parametrize("name, work, wanted, durable, said", WRITERS, ids=[each[0] for each in WRITERS])
def test_each_keeps_what_was_there_and_says_what_to_do(tmp_path, monkeypatch, name, work, wanted, durable, said):
    path = str(tmp_path / name)
    work(path)
    before = content(path), sorted(os.listdir(tmp_path))
    assert mode(path) == wanted
    for step in ("open", "write", "fsync", "replace"):
        with monkeypatch.context() as patched:
            fill_up(patched, step)
            if step == "fsync" and not durable:
                work(path)
                continue
            with pytest.raises((OSError, EnforcerError)) as refused:
                work(path)
        assert str(refused.value) == said.format(path)
        assert (content(path), sorted(os.listdir(tmp_path))) == before
