# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package: the same bytes for the same files, installed into a folder that plays the host, mended and removed."""

import functools
import hashlib
import os
import subprocess
import sys

import pytest
from ansible_collections.exfil.guard.plugins.module_utils import _installed
from ansible_collections.exfil.guard.plugins.module_utils._guard import layout
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import install, pyc
from ansible_collections.exfil.guard.plugins.module_utils._guard.lifecycle import canary
from ansible_collections.exfil.guard.plugins.plugin_utils import _package


class Systemd:
    """Units as `systemctl show` tells them."""

    def __init__(self):
        self.calls, self.active, self.stale = [], set(), False

    def __call__(self, arguments):
        if arguments[0] == "show":
            return (
                "\n\n".join(
                    "NeedDaemonReload={0}\nActiveState={1}".format(
                        "yes" if self.stale else "no", "active" if unit in self.active else "inactive"
                    )
                    for unit in arguments
                    if unit.startswith("exfil-guard")
                )
                + "\n"
            )
        self.calls.append(" ".join(arguments))
        if arguments[0] == "start":
            self.active.update(arguments[1:])
        if arguments[0] == "stop":
            self.active.difference_update(arguments[1:])
        if arguments[0] == "daemon-reload":
            self.stale = False
        return ""


@pytest.fixture
def systemd():
    return Systemd()


@pytest.fixture
def package(tmp_path):
    path = tmp_path / "package.zip"
    path.write_bytes(_package.build()[1])
    return install.read_package(str(path) + install.LIBRARY)


@pytest.fixture
def host(tmp_path):
    root = tmp_path / "host"
    root.mkdir()
    return str(root)


def tree(root):
    return sorted(os.path.join(folder, name) for folder, folders, names in os.walk(root) for name in folders + names)


def test_the_same_files_give_the_same_bytes():
    assert _package.build.__wrapped__() == _package.build.__wrapped__()


def test_code_can_be_imported_from_the_zip(tmp_path):
    path = tmp_path / "package.zip"
    path.write_bytes(_package.build()[1])
    code = "import sys; sys.path.insert(0, sys.argv[1]); from exfil_guard.lifecycle import apply; print(apply.__file__)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(path) + install.LIBRARY], capture_output=True, text=True
    )
    assert done.stdout.startswith(str(path)), done.stderr


def test_check_mode_says_what_a_run_does_and_does_nothing(package, host, systemd):
    planned = install.ensure(package, check=True, root=host, control=systemd)
    assert tree(host) == [] and systemd.calls == []
    assert planned == install.ensure(package, root=host, control=systemd)
    assert len(planned) == len(package) + len(pyc.compiled(package)) + 4
    assert systemd.calls == ["daemon-reload", "start exfil-guard-refresh.timer"]


def test_no_run_has_to_compile_the_modules(package, host, systemd):
    install.ensure(package, root=host, control=systemd)
    library = host + install.LIBRARY
    code = "import sys; sys.path.insert(0, sys.argv[1]); from exfil_guard.lifecycle import apply"
    done = subprocess.run([sys.executable, "-I", "-v", "-c", code, library], capture_output=True, text=True)
    assert f"matches {library}/exfil_guard/lifecycle/apply.py" in done.stderr, done.stderr[-2000:]
    assert "wrote" not in done.stderr
    with open(library + "/exfil_guard/lifecycle/apply.py", "a") as file:
        file.write("raise SystemExit('edited')\n")
    done = subprocess.run([sys.executable, "-I", "-B", "-c", code, library], capture_output=True, text=True)
    assert done.stderr == "edited\n"


def test_what_is_compiled_is_put_right_like_any_file(package, host, systemd):
    install.ensure(package, root=host, control=systemd)
    path = next(each for each in pyc.compiled(package) if "/generations." in each)
    with open(host + path, "ab") as file:
        file.write(b"x")
    assert install.ensure(package, root=host, control=systemd) == [f"~ {path} (content)"]
    assert install.ensure(package, root=host, control=systemd) == []


def test_a_second_run_finds_nothing(package, host, systemd):
    install.ensure(package, root=host, control=systemd)
    systemd.calls = []
    assert install.ensure(package, root=host, control=systemd) == []
    assert systemd.calls == []


@pytest.mark.parametrize("path", sorted("/" + name.lstrip("/") for name in _package.files()))
def test_a_damaged_file_is_mended(package, host, systemd, path):
    install.ensure(package, root=host, control=systemd)
    with open(host + path, "ab") as file:
        file.write(b"#")
    assert install.ensure(package, check=True, root=host, control=systemd) == [f"~ {path} (content)"]
    assert install.ensure(package, root=host, control=systemd) == [f"~ {path} (content)"]
    assert install.ensure(package, root=host, control=systemd) == []


def test_modes(package, host, systemd):
    install.ensure(package, root=host, control=systemd)
    assert os.stat(host + install.COMMAND).st_mode & 0o7777 == 0o755
    os.chmod(host + install.LIBRARY + "/guard.bpf.o", 0o666)
    assert install.ensure(package, root=host, control=systemd) == [
        "~ /usr/lib/exfil-guard/guard.bpf.o (mode 0644, was 0666)"
    ]
    assert os.stat(host + install.LIBRARY + "/guard.bpf.o").st_mode & 0o7777 == 0o644


def test_code_of_another_release_goes(package, host, systemd):
    install.ensure(package, root=host, control=systemd)
    stranger = host + install.LIBRARY + "/exfil_guard/old.py"
    with open(stranger, "w", encoding="ascii"):
        pass
    assert install.ensure(package, root=host, control=systemd) == ["- /usr/lib/exfil-guard/exfil_guard/old.py"]
    assert not os.path.exists(stranger)


def test_a_sub_package_of_another_release_goes(package, host, systemd):
    install.ensure(package, root=host, control=systemd)
    planted = host + install.LIBRARY + "/exfil_guard/policy/more.py"
    with open(planted, "w", encoding="ascii"):
        pass
    assert install.ensure(package, root=host, control=systemd) == ["- /usr/lib/exfil-guard/exfil_guard/policy/more.py"]
    assert not os.path.exists(planted)


def test_units_are_enabled_started_and_read_again(package, host, systemd):
    install.ensure(package, root=host, control=systemd)
    os.unlink(host + "/etc/systemd/system/sysinit.target.wants/exfil-guard-boot.service")
    assert install.ensure(package, root=host, control=systemd) == ["+ exfil-guard-boot.service is enabled"]
    systemd.active.clear()
    assert install.ensure(package, root=host, control=systemd) == ["+ exfil-guard-refresh.timer is started"]
    systemd.stale = True
    assert install.ensure(package, root=host, control=systemd) == ["~ systemd reloads its units"]
    assert install.ensure(package, root=host, control=systemd) == []


def test_a_link_in_place_of_a_file_is_not_written_through(package, host, systemd, tmp_path):
    install.ensure(package, root=host, control=systemd)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    os.unlink(host + install.COMMAND)
    os.symlink(victim, host + install.COMMAND)
    assert install.ensure(package, root=host, control=systemd) == ["~ /usr/sbin/exfil-guard (not a file)"]
    assert victim.read_text() == "mine" and not os.path.islink(host + install.COMMAND)


def test_removal_leaves_no_trace(package, host, systemd):
    os.makedirs(host + "/etc/systemd/system/networking.service.d")
    with open(host + "/etc/systemd/system/networking.service.d/mine.conf", "w", encoding="ascii"):
        pass
    for folder in (
        "/etc/systemd/system/sysinit.target.wants",
        "/etc/systemd/system/timers.target.wants",
        "/usr/sbin",
        "/usr/lib",
        "/var/lib",
    ):
        os.makedirs(host + folder, exist_ok=True)
    before = tree(host)
    install.ensure(package, root=host, control=systemd)
    os.makedirs(host + install.STATE + "/generations", mode=0o700)
    document = install.STATE + "/generations/1.json"
    with open(host + document, "w", encoding="ascii"):
        pass
    planned = install.remove(check=True, gone=[document], root=host, control=systemd)
    os.unlink(host + document)  # it is the enforcer's to take away, and to tell of
    assert install.remove(root=host, control=systemd) == planned
    assert tree(host) == before
    assert install.remove(root=host, control=systemd) == []


CHANGES = ("mkdir", "replace", "symlink", "unlink", "rmdir", "open")


class Killed(BaseException):
    pass


def killed_after(steps, monkeypatch, work):
    """Runs ``work`` until that many changes of the disk were made; whether it was killed."""
    left = [steps]

    def counted(original, name):
        def call(*arguments, **options):
            if name == "open" and not arguments[1] & os.O_CREAT:
                return original(*arguments, **options)
            if not left[0]:
                raise Killed
            left[0] -= 1
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in CHANGES:
            patch.setattr(install.os, name, counted(getattr(os, name), name))
        try:
            work()
        except Killed:
            return True
    return False


def test_a_run_killed_at_any_step_is_ended_or_undone_by_the_next(package, tmp_path, monkeypatch):
    few = {path: package[path] for path in [*sorted(package)[:2], install.COMMAND, install.LIBRARY + "/PACKAGE"]}
    few.update((path, body) for path, body in package.items() if path.startswith(install.UNITS))
    for began in ("ensure", "remove"):
        for steps in range(1000):
            root, control = str(tmp_path / f"{began}-{steps}"), Systemd()
            for folder in (
                "etc/systemd/system/sysinit.target.wants",
                "etc/systemd/system/timers.target.wants",
                "usr/sbin",
                "usr/lib",
                "var/lib",
            ):
                os.makedirs(os.path.join(root, folder))
            before = tree(root)
            if began == "remove":
                install.ensure(few, root=root, control=control)
            work = {
                "ensure": functools.partial(install.ensure, few, root=root, control=control),
                "remove": functools.partial(install.remove, root=root, control=control),
            }[began]
            killed = killed_after(steps, monkeypatch, work)
            if began == "ensure":  # PACKAGE vouches for all the others, so it must not be there before them
                vouched = os.path.exists(root + install.LIBRARY + "/PACKAGE")
                assert not vouched or all(os.path.exists(root + path) for path in few)
            if steps % 2:
                install.ensure(few, root=root, control=control)
                assert install.ensure(few, root=root, control=control) == []
            install.remove(root=root, control=control)
            # a folder for a drop-in that was not written yet tells nobody whose it is
            assert [path for path in tree(root) if path not in before and not path.endswith(".d")] == []
            if not killed:
                break
        assert not killed and steps > 7


def test_the_boot_unit_stops_after_everything_that_requires_it(package, host, systemd):
    install.ensure(package, root=host, control=systemd)
    systemd.active.add("exfil-guard-boot.service")
    systemd.calls = []
    install.quiet(root=host, control=systemd)
    install.remove(root=host, control=systemd)
    assert systemd.calls == [
        "stop exfil-guard-refresh.timer exfil-guard-refresh.service",
        "daemon-reload",
        "stop exfil-guard-boot.service",
    ]


def test_the_canary_is_the_one_that_apply_looks_for(package, host, systemd):
    install.ensure(package, root=host, control=systemd)
    before = {name: os.stat(host + canary.FOLDER + "/" + name).st_mtime_ns for name in ("denied", "allowed")}
    canary.prepare(host + canary.FOLDER)
    assert before == {name: os.stat(host + canary.FOLDER + "/" + name).st_mtime_ns for name in ("denied", "allowed")}


def test_the_list_vouches_for_every_file(tmp_path):
    library = tmp_path / "library"
    library.mkdir()
    code = library / "code.py"
    code.write_bytes(b"pass\n")
    listed = "{0}  {1}\n".format(_sha256(b"pass\n"), code).encode()
    (library / "PACKAGE").write_bytes(listed)
    assert _installed.installed(str(library)) == _sha256(listed)
    code.write_bytes(b"fail\n")
    assert _installed.installed(str(library)) is None
    code.unlink()
    assert _installed.installed(str(library)) is None
    assert _installed.installed(str(tmp_path)) is None


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_the_package_is_at_one_place():
    """_installed.py repeats the path: it locates the package before it can import it."""
    assert _installed.LIBRARY == layout.LIBRARY == _package.LIBRARY
    assert canary.FOLDER.startswith(layout.LIBRARY + "/")
