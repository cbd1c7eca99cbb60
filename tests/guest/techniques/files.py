# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to a covered file by a name: to read it, to write it, to run it, to give it another name first."""

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import stat
import struct
import time

from techniques.registry import Absent, in_child, technique
from techniques.steps import (
    BIND,
    NEWNS,
    NEWPID,
    gone,
    link_followed,
    own_namespaces,
    piped_child,
    private_mounts,
    put,
    run,
    spread,
    take,
)
from techniques.syscalls import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    Ring,
    call,
    handle_of,
    map_memory,
    mount,
    open_handle,
    protect,
    system,
)

# ---- to read: the same file by every path ---------------------------------------------------------------------------


@technique("files", "open for reading", "read")
def open_read(t):
    return take(t.secret)


@technique("files", "open for reading and writing", "read")
def open_read_write(t):
    return take(t.secret, os.O_RDWR)


@technique("files", "openat2", "read")
def openat2(t):
    how = ctypes.create_string_buffer(struct.pack("=QQQ", os.O_RDONLY, 0, 0), 24)
    return os.read(system("openat2", AT_FDCWD, t.secret, how, 24), 4096)


@technique("files", "open below a directory descriptor", "read")
def open_below_descriptor(t):
    return take("data", dir_fd=os.open(t.secret_folder, os.O_PATH))


@technique("files", "open below a directory descriptor", "read")
def open_below_descriptor_dot_dot(t):
    return take("../secret/data", dir_fd=os.open(t.open, os.O_RDONLY))


@technique("files", "reopen an O_PATH descriptor", "read")
def reopen_path_descriptor(t):
    return take(f"/proc/self/fd/{os.open(t.secret, os.O_PATH)}")


@technique("files", "reopen an O_PATH descriptor", "read")
def reopen_path_descriptor_of_thread(t):
    return take(f"/proc/thread-self/fd/{os.open(t.secret, os.O_PATH)}")


@technique("files", "reopen an O_PATH descriptor", "read")
def reopen_by_dev_fd(t):
    descriptor = os.open(t.secret, os.O_PATH)
    if not os.path.exists("/dev/fd"):
        return take(f"/proc/{os.getpid()}/fd/{descriptor}")
    return take(f"/dev/fd/{descriptor}")


@technique("files", "symbolic link", "read")
def symlink(t):
    gone(t.own)
    os.symlink(t.secret, t.own)
    return take(t.own)


@technique("files", "symbolic link", "read")
def symlink_of_the_folder(t):
    gone(t.own)
    os.symlink("../secret", t.own)
    return take(t.own + "/data")


@technique("files", "symbolic link", "read")
def symlinks_in_a_row(t):
    names = [f"{t.own}-{turn}" for turn in range(6)]
    gone(*names)
    for name, target in zip(names, [t.secret_folder, *names]):
        os.symlink(target, name)
    return take(names[-1] + "/./data")


@technique("files", "path with ..", "read")
def dot_dot(t):
    return take(f"{t.open}/.././open/../secret//data")


@technique("files", "/proc/self/root, /proc/self/cwd", "read")
def proc_self_root(t):
    return take("/proc/self/root" + t.secret)


@technique("files", "/proc/self/root, /proc/self/cwd", "read")
def proc_self_cwd(t):
    os.chdir(t.secret_folder)
    return take("/proc/self/cwd/data")


@technique("files", "/proc/self/root, /proc/self/cwd", "read", who="files.service")
def proc_other_root(t):
    return take("/proc/1/root" + t.secret)


@technique("files", "relative to the working directory", "read")
def working_directory(t):
    os.chdir(t.secret_folder)
    return take("data")


@technique("files", "relative to the working directory", "read", held=lambda t: os.chdir(t.secret_folder))
def working_directory_of_before(t, _held):
    return take("data")


@technique("files", "chroot", "read", root=lambda t: os.chroot(t.secret_folder))
def chroot(t):
    return take("/data")


@technique("files", "chroot", "read")
def chroot_in_a_user_namespace(t):
    own_namespaces()
    os.chroot(t.secret_folder)
    return take("/data")


def _bound(t):
    private_mounts()
    mount(t.secret_folder, "/mnt", None, BIND)


@technique("files", "bind mount", "read", root=_bound)
def bind_mount(t):
    return take("/mnt/data")


@technique("files", "bind mount", "read")
def bind_mount_in_a_user_namespace(t):
    own_namespaces(NEWNS)
    mount(t.secret_folder, "/mnt", None, BIND)
    return take("/mnt/data")


@technique("files", "bind mount", "read")
def bind_mount_of_the_file(t):
    own_namespaces(NEWNS)
    gone(t.own)
    put(t.own, b"", os.O_WRONLY | os.O_CREAT)
    mount(t.secret, t.own, None, BIND)
    return take(t.own)


@technique("files", "detached tree (open_tree)", "read")
def open_tree(t):
    own_namespaces(NEWNS)
    return take("data", dir_fd=system("open_tree", AT_FDCWD, t.secret_folder, 1))


@technique("files", "the filesystem mounted once more", "read", who="files.service")
def second_mount(t):
    private_mounts()
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        lines = [line.split() for line in file]
    fields = next(line for line in lines if line[4] == _mount_point(t.base))
    kind, device = fields[fields.index("-") + 1 : fields.index("-") + 3]
    os.sync()
    mount(device, "/mnt", kind)
    return take("/mnt" + os.path.join("/", os.path.relpath(t.secret, _mount_point(t.base))))


def _mount_point(path):
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


@technique("files", "overlay on top", "read")
def overlay_in_a_user_namespace(t):
    own_namespaces(NEWNS)
    mount("overlay", "/mnt", "overlay", 0, f"lowerdir={t.secret_folder}:{t.open}")
    return take("/mnt/data")


def _overlay(options):
    def root(t):
        private_mounts()
        mount("tmpfs", "/tmp", "tmpfs")
        for folder in ("/tmp/upper", "/tmp/work"):
            os.mkdir(folder)
            os.chmod(folder, 0o777)
        mount("overlay", "/mnt", "overlay", 0, options.format(t.secret_folder, t.open))

    return root


@technique("files", "overlay on top", "read", root=_overlay("lowerdir={0}:{1}"))
def overlay_by_root(t):
    return take("/mnt/data")


@technique("files", "overlay on top", "read", root=_overlay("lowerdir={0},upperdir=/tmp/upper,workdir=/tmp/work"))
def overlay_with_an_upper_folder(t):
    return take("/mnt/data")


def _hers(t):
    os.chown(t.secret, t.users["alice"], t.users["alice"])


def _domain(t):
    """The mark in a file of procfs that the rule covers."""
    put("/proc/sys/kernel/domainname", t.mark.encode())


def _another_procfs():
    """Mounted by the first process of another pid namespace."""

    def mounted():
        mount("proc", "/mnt", "proc")
        return take("/mnt/sys/kernel/domainname")

    return piped_child(mounted)


@technique("files", "procfs mounted once more", "read", ready=_domain)
def procfs(t):
    return take("/proc/sys/kernel/domainname")


@technique("files", "procfs mounted once more", "read", ready=_domain)
def another_procfs(t):
    own_namespaces(NEWNS, NEWPID)
    return _another_procfs()


@technique("files", "procfs mounted once more", "read", who="files.service", ready=_domain)
def another_procfs_of_root(t):
    private_mounts()
    call("unshare", NEWPID)
    return _another_procfs()


def _own_overlay(t, options):
    own_namespaces(NEWNS)
    mount("tmpfs", "/tmp", "tmpfs")
    os.mkdir("/tmp/upper")
    os.mkdir("/tmp/work")
    mount(
        "overlay", "/mnt", "overlay", 0, f"lowerdir={t.secret_folder},upperdir=/tmp/upper,workdir=/tmp/work,{options}"
    )


@technique("files", "overlay on top, copied up", "read", ready=_hers, last=lambda t: os.chown(t.secret, 0, 0))
def overlay_copied_up(t):
    _own_overlay(t, "userxattr")
    os.chmod("/mnt/data", 0o600)  # copies it up
    return take("/tmp/upper/data")


@technique("files", "overlay on top, copied up", "read", ready=_hers, last=lambda t: os.chown(t.secret, 0, 0))
def overlay_opened_for_writing(t):
    _own_overlay(t, "userxattr")
    return take("/mnt/data", os.O_RDWR)


def _mount_below(t):
    os.makedirs(t.secret_folder + "/later", exist_ok=True)
    if not os.path.ismount(t.secret_folder + "/later"):
        mount("tmpfs", t.secret_folder + "/later", "tmpfs")
    spread(t, t.secret_folder + "/later/data")


@technique(
    "files",
    "a mount that appears below the tree",
    "read",
    ready=_mount_below,
    last=lambda t: call("umount2", t.secret_folder + "/later", 2),
    open="a filesystem mounted below a covered tree after the apply is another superblock; the next refresh, which a mount "
    "starts by itself where systemd runs, covers it; a rule on `mount` stops who would mount one",
    refreshed=True,
)
def mounted_below(t):
    return take(t.secret_folder + "/later/data")


# ---- a mount that is hidden, or gone from the mount table, when the policy is refreshed -------------------------------


def _volume(t):
    return t.secret_folder + "/volume"


def _aside(t):
    return f"{t.base}/aside"


def _mount_volume(t):
    _unmount_volume(t)
    os.makedirs(_volume(t), exist_ok=True)
    mount("tmpfs", _volume(t), "tmpfs")
    os.chmod(_volume(t), 0o777)
    spread(t, _volume(t) + "/data")


def _bind_volume(t):
    _unmount_volume(t)
    os.makedirs(_volume(t), exist_ok=True)
    os.makedirs(_aside(t), exist_ok=True)
    mount(_aside(t), _volume(t), None, BIND)
    spread(t, _volume(t) + "/data")


def _unmount_volume(t):
    for path in (t.secret_folder, _volume(t)):
        with contextlib.suppress(OSError):
            while True:  # a bind mount of the same filesystem does not look like a mount
                call("umount2", path, 2)


def _keeping(then):
    """Root opens the volume, then hides it; what was opened stays with whoever the process becomes."""

    def root(t):
        t.kept["folder"] = os.open(_volume(t), os.O_PATH)
        then(t)

    return root


def hidden_volume(what, ready, then):
    """A volume below the covered tree: mounted and covered, then hidden, then the policy is refreshed."""
    return technique(
        "files", what, "read", ready=ready, root=_keeping(then), last=_unmount_volume, covered=True, refreshed=True
    )


@hidden_volume("a covered mount under another mount", _mount_volume, lambda t: mount("tmpfs", _volume(t), "tmpfs"))
def over_mounted(t):
    return take("data", dir_fd=t.kept["folder"])


@hidden_volume("a covered mount under another mount", _mount_volume, lambda t: mount("tmpfs", t.secret_folder, "tmpfs"))
def over_mounted_above(t):
    return take("data", dir_fd=t.kept["folder"])


@hidden_volume("a covered mount under another mount", _bind_volume, lambda t: mount("tmpfs", _volume(t), "tmpfs"))
def over_mounted_bind(t):
    return take("data", dir_fd=t.kept["folder"])


@hidden_volume("a covered mount that was detached", _mount_volume, lambda t: call("umount2", _volume(t), 2))
def detached_mount(t):
    return take("data", dir_fd=t.kept["folder"])


@hidden_volume("a covered mount that was detached", _bind_volume, lambda t: call("umount2", _volume(t), 2))
def detached_bind_mount(t):
    return take("data", dir_fd=t.kept["folder"])


def _only_in_another_namespace(t):
    """The host unmounts; this process has the mount in its own namespace."""
    host = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    private_mounts()
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    call("setns", host, NEWNS)
    call("umount2", _volume(t), 2)
    call("setns", own, NEWNS)


@technique(
    "files",
    "a covered mount that only another mount namespace has",
    "read",
    ready=_mount_volume,
    root=_only_in_another_namespace,
    last=_unmount_volume,
    covered=True,
    refreshed=True,
)
def mount_of_another_namespace(t):
    return take(_volume(t) + "/data")


@technique("files", "open_by_handle_at", "read", who="files.service")
def by_handle(t):
    return os.read(open_handle(t.open, handle_of(t.secret)), 4096)


@technique("files", "open_by_handle_at", "read", who="files.service", ready=lambda t: os.sync())
def by_handle_uncached(t):
    handle = handle_of(t.secret)
    put("/proc/sys/vm/drop_caches", b"2")
    return os.read(open_handle(t.open, handle), 4096)


@technique("files", "open_by_handle_at", "read")
def by_handle_of_a_user(t):
    handle = handle_of(t.secret)
    own_namespaces(NEWNS)
    try:
        return os.read(open_handle(t.open, handle), 4096)
    except PermissionError as error:
        if t.phase == "without":
            raise Absent("this kernel asks for the capability in the first user namespace") from error
        raise


@technique("files", "io_uring: open, read", "read")
def uring_open(t):
    ring = Ring()
    return ring.read(ring.open(t.secret))


@technique("files", "io_uring: open, read", "read")
def uring_open_by_polling_thread(t):
    ring = Ring(Ring.SQPOLL)
    return ring.read(ring.open(t.secret))


@technique("files", "io_uring: open, read", "read", held=lambda t: Ring(Ring.SQPOLL))
def uring_of_before(t, ring):
    return ring.read(ring.open(t.secret))


@technique("files", "pattern in a name", "read")
def pattern(t):
    return take(t.exports + "/a.csv")


def _named(t):
    gone(*(t.secret_folder + "/" + name for name in os.listdir(t.secret_folder) if name.startswith("mark-")))
    put(f"{t.secret_folder}/{t.mark}", b"", os.O_WRONLY | os.O_CREAT)


@technique("files", "list a folder", "read", ready=_named)
def list_folder(t):
    return os.listdir(t.secret_folder)


@technique(
    "files", "list a folder opened before", "read", ready=_named, held=lambda t: os.open(t.secret_folder, os.O_RDONLY)
)
def list_folder_opened_before(t, folder):
    return os.listdir(folder)


def _replaced(t):
    for _ in range(2):
        spread(t, t.own)
        os.rename(t.own, t.secret_folder + "/replaced")


@technique("files", "a file that replaced the covered one", "read", ready=_replaced)
def replaced(t):
    return take(t.secret_folder + "/replaced")


def _linked_in(t):
    gone(t.secret_folder + "/linked")
    spread(t, t.own)
    os.link(t.own, t.secret_folder + "/linked")
    os.unlink(t.own)


@technique("files", "a file linked into the tree", "read", ready=_linked_in)
def linked_into_the_tree(t):
    return take(t.secret_folder + "/linked")


def _moved_in(t):
    gone(t.own, t.secret_folder + "/moved")
    os.mkdir(t.own)
    spread(t, t.own + "/f")
    os.chmod(t.own, 0o777)
    os.rename(t.own, t.secret_folder + "/moved")


@technique("files", "a folder moved into the tree", "read", ready=_moved_in)
def moved_into_the_tree(t):
    return take(t.secret_folder + "/moved/f")


def _linked_before(t):
    gone(t.own)
    os.link(t.secret, t.own)


@technique(
    "files",
    "a hard link made before the policy",
    "read",
    ready=_linked_before,
    open="a name outside the tree that was there before is another path; apply reports files of a covered tree that have "
    "more than one name",
    closed_by={
        "deny": ["read"],
        "subjects": ["alice"],
        "resources": {"paths": ["/srv/adversary/open/hard_link_of_before"]},
    },
)
def hard_link_of_before(t):
    return take(t.own)


# ---- names that are hard to match ------------------------------------------------------------------------------------


def _named_file(name):
    def ready(t):
        with open(os.fsencode(t.secret_folder) + b"/" + name, "wb") as file:
            file.write(t.data)
        os.chmod(os.fsencode(t.secret_folder) + b"/" + name, 0o666)

    return ready


def _bad_name(function_name, name, what):
    def function(t):
        return take(os.fsencode(t.secret_folder) + b"/" + name)

    function.__name__ = function_name
    technique("files", what, "read", ready=_named_file(name))(function)


_bad_name("name_of_255_bytes", b"n" * 255, "a name of 255 bytes")


_bad_name("name_as_long_as_the_key", b"k" * 35, "a name as long as a literal in the tables")


_bad_name("name_longer_than_the_key", b"k" * 36, "a name as long as a literal in the tables")


_bad_name("name_not_utf8", b"\xff\xfe\x80name", "a name that is not UTF-8")


_bad_name("name_with_newline", b"new\nline", "a name with a newline")


_bad_name("name_with_glob", b"*", "a name that reads like a pattern")


def _deep(components, name):
    def make(t):
        here = os.open(t.secret_folder, os.O_RDONLY)
        for _ in range(components):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o777, dir_fd=here)
            deeper = os.open(name, os.O_RDONLY, dir_fd=here)
            os.chmod(deeper, 0o777)
            os.close(here)
            here = deeper
        descriptor = os.open("data", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666, dir_fd=here)
        os.write(descriptor, t.data)
        os.fchmod(descriptor, 0o666)
        return True

    # in a child: whoever opens what is too deep to be placed is taken to have read everything
    return lambda t: in_child(lambda: make(t))


@technique("files", "300 folders deep", "read", ready=_deep(300, "d"))
def three_hundred_deep(t):
    return take(t.secret_folder + "/d" * 300 + "/data")


@technique("files", "300 folders deep", "read", ready=_deep(60, "d"))
def as_deep_as_the_walk(t):
    return take(t.secret_folder + "/d" * 60 + "/data")


@technique("files", "a path of 4,000 bytes", "read", ready=_deep(15, "l" * 250))
def long_path(t):
    return take(t.secret_folder + ("/" + "l" * 250) * 15 + "/data")


@technique("files", "a path longer than 4,096 bytes", "read", ready=_deep(17, "l" * 250))
def longer_path(t):
    here = os.open(t.secret_folder + ("/" + "l" * 250) * 15, os.O_PATH)
    return take(("l" * 250 + "/") * 2 + "data", dir_fd=here)


# ---- to write --------------------------------------------------------------------------------------------------------


def changed(t):
    with open(t.secret, "rb") as file:
        return b"overwritten" in file.read()


def emptied(t):
    return os.path.getsize(t.secret) != len(t.data)


def attempt_write(what, **more):
    more.setdefault("evidence", changed)
    return technique("files", what, "write", **more)


@attempt_write("open for writing")
def open_write(t):
    put(t.secret, b"overwritten")


@attempt_write("open for writing")
def open_append(t):
    put(t.secret, b"overwritten", os.O_WRONLY | os.O_APPEND)


@attempt_write("open with O_TRUNC", evidence=emptied)
def open_truncate(t):
    os.open(t.secret, os.O_RDONLY | os.O_TRUNC)


@attempt_write("truncate", evidence=emptied)
def truncate(t):
    os.truncate(t.secret, 0)


def made(t):
    """A name says something, even that of an empty file."""
    return os.path.lexists(f"{t.secret_folder}/{t.mark}")


@attempt_write("create a file in the tree", evidence=made)
def create(t):
    put(f"{t.secret_folder}/{t.mark}", b"x", os.O_WRONLY | os.O_CREAT)


@attempt_write("create an empty file in the tree", evidence=made)
def create_for_reading(t):
    """Nothing is opened for writing: the name is all there is."""
    os.close(os.open(f"{t.secret_folder}/{t.mark}", os.O_RDONLY | os.O_CREAT, 0o666))


@attempt_write("create an empty file in the tree", evidence=made)
def create_with_path_descriptor(t):
    os.close(os.open(t.mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=os.open(t.secret_folder, os.O_PATH)))


@attempt_write("create an empty file in the tree", evidence=made)
def create_with_a_ring(t):
    os.close(Ring().open(f"{t.secret_folder}/{t.mark}", os.O_WRONLY | os.O_CREAT))


@attempt_write("mknod of a regular file in the tree", evidence=made)
def mknod_file(t):
    os.mknod(f"{t.secret_folder}/{t.mark}", stat.S_IFREG | 0o666)


@attempt_write("create an empty file in the tree", evidence=made)
def create_by_overlay(t):
    """The tree is the upper layer of an overlay of one's own."""
    own_namespaces(NEWNS)
    mount("tmpfs", "/mnt", "tmpfs")
    for name in ("lower", "merged"):
        os.mkdir("/mnt/" + name)
    gone(t.own)
    os.mkdir(t.own)
    options = f"lowerdir=/mnt/lower,upperdir={t.secret_folder},workdir={t.own},userxattr"
    mount("overlay", "/mnt/merged", "overlay", 0, options)
    os.close(os.open(f"/mnt/merged/{t.mark}", os.O_WRONLY | os.O_CREAT, 0o666))


def dumped(t):
    return any(name.startswith("core") for name in os.listdir(t.secret_folder))


@attempt_write(
    "a core dump in the tree",
    evidence=dumped,
    last=lambda t: gone(*(f"{t.secret_folder}/{name}" for name in os.listdir(t.secret_folder) if "core" in name)),
)
def core_dump(t):
    with open("/proc/sys/kernel/core_pattern", encoding="ascii") as file:
        if not file.read().startswith("core"):
            raise Absent("this machine does not write core dumps into the working directory")
    os.chdir(t.secret_folder)
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    os.waitpid(child, 0)


def overwriting(t):
    put(t.own, b"overwritten", os.O_WRONLY | os.O_CREAT)
    return os.open(t.own, os.O_RDONLY)


@attempt_write("rename over a file of the tree")
def rename_over(t):
    overwriting(t)
    os.rename(t.own, t.secret)


@attempt_write(
    "chmod",
    evidence=lambda t: stat.S_IMODE(os.stat(t.secret).st_mode) == 0o604,
    ready=lambda t: os.chown(t.secret, t.users["alice"], -1),
    last=lambda t: os.chown(t.secret, 0, 0),
)
def chmod(t):
    os.chmod(t.secret, 0o604)


@attempt_write(
    "chown",
    who="files.service",
    evidence=lambda t: os.stat(t.secret).st_uid == 12345,
    last=lambda t: os.chown(t.secret, 0, 0),
)
def chown(t):
    os.chown(t.secret, 12345, -1)


@attempt_write(
    "set an extended attribute",
    who="files.service",
    evidence=lambda t: "trusted.mark" in os.listxattr(t.secret),
    last=lambda t: os.removexattr(t.secret, "trusted.mark") if "trusted.mark" in os.listxattr(t.secret) else None,
)
def setxattr(t):
    os.setxattr(t.secret, "trusted.mark", t.data)


@attempt_write("O_TMPFILE in the tree, then a name", evidence=made)
def temporary_file(t):
    fd = os.open(t.secret_folder, os.O_TMPFILE | os.O_WRONLY, 0o666)
    os.write(fd, b"x")
    link_followed(f"/proc/self/fd/{fd}", f"{t.secret_folder}/{t.mark}")


# ---- to run ----------------------------------------------------------------------------------------------------------


def ran(t):
    return os.path.exists(f"{t.open}/{t.mark}")


def attempt_run(what, **more):
    more.setdefault("evidence", ran)
    return technique("files", what, "execute", **more)


def touching(t):
    return "touch", f"{t.open}/{t.mark}"


@attempt_run("execve")
def execute(t):
    run(t.tool, *touching(t))


@attempt_run("execve")
def execute_by_symlink(t):
    gone(t.own)
    os.symlink(t.tool, t.own)
    run(t.own, *touching(t))


@attempt_run("execveat on an O_PATH descriptor")
def execute_descriptor(t):
    run("", *touching(t), descriptor=os.open(t.tool, os.O_PATH))


@attempt_run("execveat on an O_PATH descriptor", held=lambda t: os.open(t.tool, os.O_PATH))
def execute_held_descriptor(t, fd):
    run("", *touching(t), descriptor=fd)


@attempt_run("execve of /proc/self/fd")
def execute_proc_descriptor(t):
    run(f"/proc/self/fd/{os.open(t.tool, os.O_RDONLY)}", *touching(t))


@attempt_run(
    "execve through #!", evidence=lambda t: os.path.exists(t.own + ".ran"), last=lambda t: gone(t.own + ".ran")
)
def execute_as_interpreter(t):
    gone(t.own)
    put(t.own, f"#!{t.tool} ran\n".encode(), os.O_WRONLY | os.O_CREAT)
    os.chmod(t.own, 0o755)
    run(t.own)


@attempt_run("execve in a bind mount over an allowed program")
def execute_bound_over(t):
    own_namespaces(NEWNS)
    mount(t.tool, t.bin + "/linked", None, BIND)
    run(t.bin + "/linked", *touching(t))


@attempt_run(
    "the dynamic linker",
    who="programs.service",
    ready=lambda t: (shutil.copy(t.bin + "/linked", t.own), os.chmod(t.own, 0o755)),
)
def through_the_linker(t):
    if not os.path.exists("/lib64/ld-linux-x86-64.so.2"):
        raise Absent("no dynamic linker at its place")
    run("/lib64/ld-linux-x86-64.so.2", t.own, f"{t.open}/{t.mark}")


def _copied(t):
    shutil.copy(t.tool, t.own)
    os.chmod(t.own, 0o755)


@attempt_run("a copy of a program, under an allow-list", who="programs.service", ready=_copied)
def copy_elsewhere(t):
    run(t.own, *touching(t))


@attempt_run("a copy of a program, under an allow-list", who="programs.service")
def copy_in_shared_memory(t):
    path = f"/dev/shm/{t.mark}"
    shutil.copy(t.tool, path)
    os.chmod(path, 0o755)
    try:
        run(path, *touching(t))
    finally:
        os.unlink(path)


def filled(descriptor, path):
    """The descriptor, with what is in the file."""
    with open(path, "rb") as file:
        os.write(descriptor, file.read())
    return descriptor


@attempt_run("a program in a memfd, under an allow-list", who="programs.service")
def memfd(t):
    fd = filled(os.memfd_create("program", 0), t.tool)
    run("", *touching(t), descriptor=fd)


@attempt_run("a program in a memfd, under an allow-list", who="programs.service")
def memfd_by_proc(t):
    fd = filled(os.memfd_create("program", 0), t.tool)
    run(f"/proc/self/fd/{fd}", *touching(t))


@attempt_run("a deleted program, under an allow-list", who="programs.service", ready=_copied)
def deleted(t):
    fd = os.open(t.own, os.O_RDONLY)
    os.unlink(t.own)
    run("", *touching(t), descriptor=fd)


@attempt_run("O_TMPFILE, under an allow-list", who="programs.service")
def unnamed(t):
    fd = filled(os.open(t.open, os.O_TMPFILE | os.O_RDWR, 0o755), t.tool)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    os.close(fd)
    run("", *touching(t), descriptor=again)


RETURN_42 = b"\xb8\x2a\x00\x00\x00\xc3"  # mov eax, 42; ret


def _call(address):
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)() == 42


@technique(
    "files",
    "mmap a file as code, under an allow-list",
    "execute",
    who="programs.service",
    ready=lambda t: spread(t, t.own, RETURN_42 + bytes(4096)),
)
def map_as_code(t):
    return _call(map_memory(4096, 5, 2, os.open(t.own, os.O_RDONLY)))


@technique(
    "files",
    "mprotect a mapped file to code, under an allow-list",
    "execute",
    who="programs.service",
    ready=lambda t: spread(t, t.own, RETURN_42 + bytes(4096)),
)
def mprotect_to_code(t):
    address = map_memory(4096, 1, 2, os.open(t.own, os.O_RDONLY))
    protect(address, 5)
    return _call(address)


@technique("files", "mmap a memfd as code, under an allow-list", "execute", who="programs.service")
def map_memfd_as_code(t):
    fd = os.memfd_create("code", 0)
    os.write(fd, RETURN_42 + bytes(4096))
    return _call(map_memory(4096, 5, 2, fd))


@technique(
    "files",
    "write code into anonymous memory",
    "execute",
    who="programs.service",
    open="a program that may run can compute anything, so an interpreter on the list is its whole language; keep "
    "interpreters off the list",
    closed_by={"deny": ["execute"], "subjects": ["u-programs"], "resources": {"not": []}},
)
def anonymous_code(t):
    if t.phase == "closed":  # no interpreter to begin with
        return in_child(
            lambda: run(t.bin + "/hand", "touch", f"{t.open}/{t.mark}") or os.path.exists(f"{t.open}/{t.mark}")
        )
    address = map_memory(4096, 7, 0x22)
    ctypes.memmove(address, RETURN_42, len(RETURN_42))
    return _call(address)


# ---- another name first ----------------------------------------------------------------------------------------------


def alias(what, **more):
    return technique("files", what, "read", **more)


@alias("link, then read")
def link_out(t):
    gone(t.own)
    os.link(t.secret, t.own)
    return take(t.own)


@alias("link, then read")
def link_out_by_descriptor(t):
    gone(t.own)
    link_followed(f"/proc/self/fd/{os.open(t.secret, os.O_PATH)}", t.own)
    return take(t.own)


@alias("link, then read", who="files.service")
def link_out_by_empty_path(t):
    gone(t.own)
    call("linkat", os.open(t.secret, os.O_PATH), "", AT_FDCWD, t.own, AT_EMPTY_PATH)
    return take(t.own)


@alias("io_uring: link, rename, then read")
def link_out_by_uring(t):
    gone(t.own)
    old, new = ctypes.create_string_buffer(t.secret.encode()), ctypes.create_string_buffer(t.own.encode())
    Ring().do(Ring.LINKAT, AT_FDCWD, ctypes.addressof(old), AT_FDCWD & 0xFFFFFFFF, ctypes.addressof(new))
    return take(t.own)


@alias("io_uring: link, rename, then read")
def rename_out_by_uring(t):
    gone(t.own)
    old, new = ctypes.create_string_buffer(t.secret.encode()), ctypes.create_string_buffer(t.own.encode())
    Ring().do(Ring.RENAMEAT, AT_FDCWD, ctypes.addressof(old), AT_FDCWD & 0xFFFFFFFF, ctypes.addressof(new))
    return take(t.own)


@alias("rename, then read")
def rename_out(t):
    gone(t.own)
    os.rename(t.secret, t.own)
    return take(t.own)


@alias("rename, then read")
def rename_out_of_the_pattern(t):
    gone(t.exports + "/a.txt")
    os.rename(t.exports + "/a.csv", t.exports + "/a.txt")
    return take(t.exports + "/a.txt")


def _back(t):
    if os.path.exists(t.base + "/deep/elsewhere"):
        os.rename(t.base + "/deep/elsewhere", t.base + "/deep/inner")


@alias("rename a folder above, then read", last=_back)
def rename_ancestor(t):
    os.rename(t.base + "/deep/inner", t.base + "/deep/elsewhere")
    return take(t.base + "/deep/elsewhere/secret/data")


@alias("exchange, then read", ready=lambda t: spread(t, t.own, b"other"))
def exchange(t):
    call("renameat2", AT_FDCWD, t.own, AT_FDCWD, t.secret, 2)
    return take(t.own)


@alias("exchange, then read", ready=lambda t: spread(t, t.own, b"other"))
def exchange_the_other_way_round(t):
    call("renameat2", AT_FDCWD, t.secret, AT_FDCWD, t.own, 2)
    return take(t.own)


def _folder(t):
    gone(t.own)
    os.mkdir(t.own)
    os.chmod(t.own, 0o777)


def _exchanged_back(t):
    if not os.path.exists(t.deep + "/data") and os.path.exists(t.own + "/secret/data"):
        call("renameat2", AT_FDCWD, t.own, AT_FDCWD, t.base + "/deep/inner", 2)


@alias("exchange, then read", ready=_folder, last=_exchanged_back)
def exchange_folders(t):
    call("renameat2", AT_FDCWD, t.own, AT_FDCWD, t.base + "/deep/inner", 2)
    return take(t.own + "/secret/data")


@alias("rename in a bind mount, then read")
def rename_in_a_bind_mount(t):
    own_namespaces(NEWNS)
    mount(t.base, "/mnt", None, BIND)
    gone(t.own)
    os.rename("/mnt/secret/data", "/mnt/open/" + os.path.basename(t.own))
    return take(t.own)


@alias("a symbolic link that changes meanwhile")
def race_symlink(t):
    gone(t.own, t.own + ".a", t.own + ".b")
    put(t.own + ".free", b"free", os.O_WRONLY | os.O_CREAT)
    child = os.fork()
    if child == 0:
        while True:
            for target in (t.own + ".free", t.secret):
                try:
                    os.symlink(target, t.own + ".a")
                    os.rename(t.own + ".a", t.own)
                except OSError:
                    os._exit(1)
    found = b""
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                found = take(t.own)
            time.sleep(0.0002)
            if t.has(found):
                break
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return found
