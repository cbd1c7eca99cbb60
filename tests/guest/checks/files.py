# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of files that are not opened by their name: descriptors from before the policy, from a parent or another process,
mappings, handles, attributes, copies of programs, names that are hard to match."""

import mmap
import os
import shutil
import signal
import socket
import stat
import struct

from harness.attempt import NOTHING
from harness.checks import Places, as_root, as_user, denied, denied_techniques, enforcer, passes, story
from harness.process import ALICE, execute, in_child, write
from techniques.steps import gone, link_followed, private_mounts
from techniques.syscalls import Ring, call, map_memory, mount, protect, system

from checks.policy import POLICY, alice, expect

EPERM = 1
HIDES, KEEPS, LISTED = "alice reads nothing hidden", "alice changes nothing kept", "the runner runs what is listed"
FIRST = "alice reads no secrets"  # by name: what can't be placed is told of the first rule that binds
HOLDER, RUNNER = 3999, 1011  # a group of root's that is bound; a user
LONG = "n" * 255
STRANGE = b"/srv/hidden/\xff\xfe\n\x01 \xc3"
SUBJECTS = {"holder": {"groups": [str(HOLDER)]}, "runner": {"users": [str(RUNNER)]}}
RESOURCES = {
    "hidden": {"paths": ["/srv/hidden/**"]},
    "kept": {"paths": ["/srv/kept/**"]},
    "programs": {"paths": ["/lib64/**", "/usr/bin/**", "/bin/**", "/srv/bin/other"]},
}
RULES = [
    {"name": HIDES, "deny": ["read"], "subjects": ["alice", "holder"], "resources": ["hidden"]},
    {"name": KEEPS, "deny": ["write"], "subjects": ["alice", "holder"], "resources": ["kept"]},
    {"name": LISTED, "deny": ["execute"], "subjects": ["runner"], "resources": {"not": ["programs"]}},
]
HELD = []  # descriptors that a child finds open


HIDDEN = Places(secret_folder="/srv/hidden", secret="/srv/hidden/data")
KEPT = Places(secret_folder="/srv/kept", secret="/srv/kept/data")
POLICY["subjects"].update(SUBJECTS)
POLICY["resources"].update(RESOURCES)
POLICY["rules"] += RULES

denied_techniques(
    __name__,
    HIDES,
    as_user(ALICE),
    HIDDEN,
    read_an_inherited_descriptor="held_read",
    pread_an_inherited_descriptor="held_preadv",
    list_an_inherited_folder="list_folder_opened_before",
    sendfile_from_an_inherited_descriptor="held_sendfile",
    splice_from_an_inherited_descriptor="held_splice",
    copy_file_range_from_an_inherited_descriptor="held_copy_file_range",
    io_uring_read="held_uring_read",
    io_uring_open="uring_open",
    map_an_inherited_descriptor="held_mmap_private",
    map_an_inherited_descriptor_shared="held_mmap",
    received_over_a_unix_socket="received_in_flight",
    name_of_255_bytes="name_of_255_bytes",
    name_that_is_no_text="name_not_utf8",
)
denied_techniques(
    __name__,
    FIRST,
    as_user(ALICE),
    HIDDEN,
    deeper_than_is_looked="three_hundred_deep",
    overlay_with_an_upper_layer="overlay_with_an_upper_folder",
)
denied_techniques(
    __name__,
    HIDES,
    as_root(HOLDER),
    HIDDEN,
    opened_again_from_another_process="proc_other_descriptor",
    opened_by_handle="by_handle_uncached",
    opened_for_a_watcher="fanotify",
)
denied_techniques(
    __name__,
    KEEPS,
    as_user(ALICE),
    KEPT,
    write_to_an_inherited_descriptor="held_write",
    pwrite_to_an_inherited_descriptor="held_pwrite",
    sendfile_to_an_inherited_descriptor="held_sendfile_into",
    splice_to_an_inherited_descriptor="held_splice_into",
    copy_file_range_to_an_inherited_descriptor="held_copy_into",
    io_uring_write="held_uring_write",
    fallocate="held_fallocate",
    ftruncate="held_ftruncate",
    map_shared_for_writing="held_mmap_write",
    received_for_writing="received_in_flight",
    truncate="truncate",
    open_to_truncate="open_truncate",
    chmod="chmod",
    set_an_attribute="held_fsetxattr",
    make_a_file_without_a_name="temporary_file",
)
denied_techniques(__name__, KEEPS, as_root(HOLDER), KEPT, chown="chown")
denied_techniques(
    __name__,
    LISTED,
    as_user(RUNNER),
    execute_a_copy="copy_elsewhere",
    execute_a_copy_in_memory="copy_in_shared_memory",
    execute_a_memfd="memfd",
    make_a_mapping_executable="mprotect_to_code",
    make_a_memfd_executable="map_memfd_as_code",
)
denied_techniques(
    __name__, LISTED, as_user(RUNNER), ends=NOTHING, execute_a_copy_through_the_dynamic_linker="through_the_linker"
)


def prepare():
    mount("none", "/dev/shm", "tmpfs")
    os.chmod("/dev/shm", 0o1777)
    for path in ("/srv/hidden", "/srv/hidden/folder", "/srv/kept"):
        os.makedirs(path)
        os.chmod(path, 0o777)
    for path in ("/srv/hidden/a", "/srv/hidden/folder/b", "/srv/kept/f", "/srv/open/own", STRANGE):
        with open(path, "w", encoding="ascii") as file:
            file.write("secret")
        os.chmod(path, 0o666)
    os.chown("/srv/kept/f", ALICE, ALICE)
    os.setxattr("/srv/hidden/a", "user.note", b"secret")
    os.setxattr("/srv/kept/f", "user.note", b"x")
    os.symlink("secret", "/srv/hidden/link")
    shutil.copy("/guest/hand", "/srv/hidden/hand")
    write("/srv/open/listing", "#!/srv/bin/other\n")
    os.chmod("/srv/open/listing", 0o755)


def opened(path, flags=os.O_RDONLY):
    """For ``before``: root opens, and alice finds it open."""
    return lambda: HELD.append(os.open(path, flags))


def reading(operation, path="/srv/hidden/a"):
    return alice(lambda: operation(HELD[-1]), before=opened(path))


def writing(operation, flags=os.O_RDWR, path="/srv/kept/f"):
    return alice(lambda: operation(HELD[-1]), before=opened(path, flags))


# ---- what is open already, for reading ----------------------------------------------------------------------------


@denied(HIDES)
def io_uring_read_by_its_own_thread():
    return reading(lambda fd: Ring(Ring.SQPOLL).read(fd))


@denied(HIDES)
def map_without_access():
    """Before anyone may look at it; mprotect would come later."""
    return reading(lambda fd: map_memory(4096, 0, 2, fd))


@denied(HIDES)
def give_access_to_a_mapping_from_before():
    def before():
        HELD.append(map_memory(4096, 0, 2, os.open("/srv/hidden/a", os.O_RDONLY)))

    return alice(lambda: protect(HELD[-1], 1), before=before)


@denied(HIDES)
def taken_from_another_process():
    def operation():
        child = os.fork()
        if child == 0:
            signal.pause()
        try:
            os.close(system("pidfd_getfd", os.pidfd_open(child), HELD[-1], 0))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    return alice(operation, before=opened("/srv/hidden/a"))


@denied(HIDES)
def read_a_links_target():
    return alice(lambda: os.readlink("/srv/hidden/link"))


@denied(HIDES)
def read_an_attribute():
    return alice(lambda: os.getxattr("/srv/hidden/a", "user.note"))


@passes
def look_at_what_may_not_be_read():
    def operation():
        os.stat("/srv/hidden/a")
        os.close(os.open("/srv/hidden/a", os.O_PATH))
        os.listxattr("/srv/hidden/a")

    return alice(operation)


@passes
def write_what_may_not_be_read():
    def operation():
        descriptor = os.open("/srv/hidden/folder/b", os.O_WRONLY)
        os.write(descriptor, b"secret")
        os.ftruncate(descriptor, 6)

    return alice(operation)


@passes
def execute_what_may_not_be_read():
    """The kernel reads it, not she."""
    return alice(lambda: execute("/srv/hidden/hand", "touch", "/srv/open/ran"))


@passes
def use_what_has_no_name():
    """Pipes, sockets, a memfd, shared memory."""

    def operation():
        ends = os.pipe()
        os.write(ends[1], b"x")
        os.read(ends[0], 1)
        one, other = socket.socketpair()
        os.write(one.fileno(), b"x")
        os.read(other.fileno(), 1)
        memory = os.memfd_create("m")
        os.write(memory, b"x")
        os.fchmod(memory, 0o600)
        os.ftruncate(memory, 4096)
        map_memory(4096, 3, 1, memory)
        mmap.mmap(-1, 4096).write(b"x")

    return alice(operation)


# ---- what is open already, for writing, and what needs no opening --------------------------------------------------


@denied(KEEPS)
def append_to_an_inherited_descriptor():
    return writing(lambda fd: os.writev(fd, [b"x"]), os.O_WRONLY | os.O_APPEND)


@denied(KEEPS)
def io_uring_write_by_its_own_thread():
    return writing(lambda fd: Ring(Ring.SQPOLL).do(Ring.WRITE, fd, b"x", 1))


@denied(KEEPS)
def make_a_mapping_from_before_writable():
    def before():
        HELD.append(map_memory(4096, 1, 1, os.open("/srv/kept/f", os.O_RDWR)))

    return alice(lambda: protect(HELD[-1], 3), before=before)


@denied(KEEPS)
def fchmod():
    return writing(lambda fd: os.fchmod(fd, 0o666), os.O_RDONLY)


@denied(KEEPS)
def set_times():
    return alice(lambda: os.utime("/srv/kept/f", (1, 1)))


@denied(KEEPS)
def remove_an_attribute():
    def operation():
        os.removexattr("/srv/kept/f", "user.note")

    os.setxattr("/srv/kept/f", "user.note", b"x")
    return alice(operation)


ACCESS_LIST = struct.pack("<I" + "HHI" * 3, 2, 1, 6, 0xFFFFFFFF, 4, 6, 0xFFFFFFFF, 0x20, 6, 0xFFFFFFFF)


@denied(KEEPS)
def set_an_access_list():
    return alice(lambda: os.setxattr("/srv/kept/f", "system.posix_acl_access", ACCESS_LIST))


@denied(KEEPS)
def remove_an_access_list():
    os.setxattr("/srv/kept/f", "system.posix_acl_access", ACCESS_LIST)
    return alice(lambda: os.removexattr("/srv/kept/f", "system.posix_acl_access"))


def made(name, make):
    path = "/srv/kept/" + name
    gone(path)
    return alice(lambda: make(path))


@denied(KEEPS)
def make_a_link():
    return made("link", lambda path: os.symlink("the data itself", path))


@denied(KEEPS)
def make_a_folder():
    return made("folder", os.mkdir)


@denied(KEEPS)
def make_a_named_pipe():
    return made("fifo", os.mkfifo)


def without_a_name(make):
    """Nothing may be left of a denied attempt, not even an empty file."""
    number = made("regular", make)
    return NOTHING if number and os.path.lexists("/srv/kept/regular") else number


@denied(KEEPS)
def make_a_regular_file():
    return without_a_name(lambda path: os.mknod(path, stat.S_IFREG | 0o666))


@denied(KEEPS)
def create_a_file_for_writing():
    return without_a_name(lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)))


@denied(KEEPS)
def create_a_file_for_reading():
    return without_a_name(lambda path: os.close(os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)))


@denied(KEEPS)
def bind_a_unix_socket():
    return made("socket", lambda path: socket.socket(socket.AF_UNIX).bind(path))


def brought(bring):
    gone("/srv/kept/brought")
    write("/srv/open/to-bring", "x")
    os.chmod("/srv/open/to-bring", 0o666)
    return alice(bring)


@denied(KEEPS)
def link_a_file_into_the_tree():
    return brought(lambda: os.link("/srv/open/to-bring", "/srv/kept/brought"))


@denied(KEEPS)
def rename_a_file_into_the_tree():
    return brought(lambda: os.rename("/srv/open/to-bring", "/srv/kept/brought"))


@denied(KEEPS)
def link_a_file_without_a_name_into_the_tree():
    def operation():
        descriptor = os.open("/srv/open", os.O_TMPFILE | os.O_RDWR)
        link_followed(f"/proc/self/fd/{descriptor}", "/srv/kept/brought")

    return brought(operation)


@denied(KEEPS)
def rename_a_folder_into_the_tree():
    for path in ("/srv/open/folder", "/srv/kept/folder-brought"):
        shutil.rmtree(path, ignore_errors=True)
    os.mkdir("/srv/open/folder")
    os.chown("/srv/open/folder", ALICE, ALICE)
    return alice(lambda: os.rename("/srv/open/folder", "/srv/kept/folder-brought"))


@passes
def read_what_may_not_be_written():
    def operation():
        descriptor = os.open("/srv/kept/f", os.O_RDONLY)
        os.read(descriptor, 10)
        map_memory(4096, 3, 2, descriptor)  # private: not written back
        protect(map_memory(4096, 1, 2, descriptor), 3)
        os.getxattr("/srv/kept/f", "user.note")

    os.setxattr("/srv/kept/f", "user.note", b"x")
    return alice(operation)


@passes
def change_what_is_not_kept():
    def operation():
        os.truncate("/srv/open/own", 6)
        descriptor = os.open("/srv/open", os.O_TMPFILE | os.O_RDWR)
        os.write(descriptor, b"x")
        os.fchmod(descriptor, 0o600)
        os.setxattr(f"/proc/self/fd/{descriptor}", "user.note", b"y")
        Ring().do(Ring.WRITE, descriptor, b"x", 1)

    return alice(operation)


# ---- execution where only what is listed may be executed ------------------------------------------------------------


def runner(operation, **more):
    return in_child(operation, user=RUNNER, **more)


@denied(LISTED)
def execute_a_script_that_is_not_listed():
    return runner(lambda: execute("/srv/open/listing", "/srv/open/file"))


@passes
def execute_what_is_listed():
    return runner(lambda: execute("/srv/bin/other", "/srv/open/file"))


@passes
def interpret_what_is_not_listed():
    """To its interpreter a script is a file to read: a rule on reading says who may."""
    return runner(lambda: execute("/bin/busybox", "sh", "/srv/open/listing"))


# ---- names that are hard to read -------------------------------------------------------------------------------------


@denied(HIDES)
def path_of_4096_bytes():
    path = "/srv/hidden" + "/." * ((4095 - len("/srv/hidden/a")) // 2)
    path += "/" * (4095 - len(path) - 1) + "a"
    return alice(lambda: os.close(os.open(path, os.O_RDONLY)))


# ---- overlays ---------------------------------------------------------------------------------------------------------


def overlaid(*layers):
    """For ``before``: overlays on each other in a mount namespace, the last one at /mnt."""

    def before():
        private_mounts()
        below = "/srv/hidden"
        for number, where in enumerate((*layers, "/mnt")):
            upper, work = f"/srv/open/upper-{number}", f"/srv/open/work-{number}"
            for path in (upper, work, where):
                os.makedirs(path, exist_ok=True)
            mount("overlay", where, "overlay", 0, f"lowerdir={below},upperdir={upper},workdir={work}")
            below = where

    return before


@denied(FIRST)
def overlay_on_an_overlay():
    return alice(lambda: os.close(os.open("/mnt/a", os.O_RDONLY)), before=overlaid("/srv/open/between"))


# ---- stories ----------------------------------------------------------------------------------------------------------


def number(operation, **more):
    return alice(lambda: os.close(operation()), **more)


def only(name, deny, *paths):
    return {
        "subjects": {"alice": SUBJECTS["holder"], "really": {"users": ["alice"]}},
        "resources": {"one": {"paths": list(paths)}},
        "rules": [{"name": name, "deny": deny, "subjects": ["alice", "really"], "resources": ["one"]}],
    }


def layered(where, below, number):
    upper, work = f"/srv/open/layer-{number}", f"/srv/open/work-of-{number}"
    for path in (upper, work):
        shutil.rmtree(path, ignore_errors=True)
    for path in (upper, work, where):
        os.makedirs(path, exist_ok=True)
        os.chmod(path, 0o777)
    mount("overlay", where, "overlay", 0, f"lowerdir={below},upperdir={upper},workdir={work}")


@story
def overlays_that_were_there():
    """The rule is on the lower tree; the overlays are known and on no rule's path."""
    for name in ("a", "b", "c"):
        write("/srv/hidden/" + name, "secret")
        os.chmod("/srv/hidden/" + name, 0o666)
    layered("/srv/open/merged", "/srv/hidden", 1)
    layered("/srv/open/twice", "/srv/open/merged", 2)
    try:
        enforcer.apply(only("lower", ["read"], "/srv/hidden/**"))
        expect(number(lambda: os.open("/srv/open/file", os.O_RDONLY)), 0, "another file")
        for where in ("/srv/open/merged/a", "/srv/open/twice/a"):
            expect(number(lambda where=where: os.open(where, os.O_RDONLY)), EPERM, where)
            expect(number(lambda where=where: os.open(where, os.O_WRONLY)), EPERM, where + ", to be copied up")
            expect(reading(lambda fd: os.read(fd, 6), where), EPERM, where + ", inherited")
            expect(reading(lambda fd: os.sendfile(os.pipe()[1], fd, 0, 6), where), EPERM, where + ", sent")
            expect(reading(lambda fd: map_memory(4096, 1, 2, fd), where), EPERM, where + ", mapped")
            expect(os.path.exists("/srv/open/layer-1/a"), False, "the copy")
        expect(alice(lambda: execute("/srv/open/merged/hand", "touch", "/srv/open/ran")), 0, "executed")
        with open("/srv/open/merged/b", "a", encoding="ascii") as file:
            file.write("more")
        expect(number(lambda: os.open("/srv/open/layer-1/b", os.O_RDONLY)), 0, "copied by root, in the upper layer")
        expect(number(lambda: os.open("/srv/open/merged/b", os.O_RDONLY)), 0, "copied by root")

        enforcer.apply(only("merged", ["read"], "/srv/open/merged/**"))
        expect(number(lambda: os.open("/srv/open/merged/c", os.O_RDONLY)), EPERM, "merged")
        expect(number(lambda: os.open("/srv/open/twice/c", os.O_RDONLY)), EPERM, "merged, below another")
        expect(reading(lambda fd: os.read(fd, 6), "/srv/open/merged/c"), EPERM, "merged, inherited")
        expect(reading(lambda fd: map_memory(4096, 1, 2, fd), "/srv/open/merged/c"), EPERM, "merged, mapped")

        enforcer.apply(only("both", ["write"], "/srv/open/merged/**", "/srv/hidden/**"))
        expect(number(lambda: os.open("/srv/open/merged/c", os.O_RDONLY)), 0, "both, read")
        expect(number(lambda: os.open("/srv/open/merged/c", os.O_WRONLY)), EPERM, "both, written")
        expect(alice(lambda: os.chmod("/srv/open/twice/c", 0o666)), EPERM, "changed above")
    finally:
        call("umount", "/srv/open/twice")
        call("umount", "/srv/open/merged")


@story
def mounted_later():
    """Below a covered tree, after the policy: a disk is closed at once, memory once the mounts have been looked at."""
    document = only("tree", ["read"], "/srv/hidden/**")
    enforcer.apply(document)
    for name in ("disk", "memory"):
        os.makedirs("/srv/hidden/" + name, exist_ok=True)
    shutil.copy("/disk.img", "/tmp/second.img")
    os.system("mount -o loop -t ext4 /tmp/second.img /srv/hidden/disk")
    mount("memory", "/srv/hidden/memory", "tmpfs")
    try:
        for name in ("disk", "memory"):
            write(f"/srv/hidden/{name}/x", "x")
        expect(number(lambda: os.open("/srv/hidden/disk/x", os.O_RDONLY)), EPERM, "the disk, at once")
        in_child(lambda: os.close(os.open("/srv/hidden/disk/x", os.O_RDONLY)), user=RUNNER)
        enforcer.apply(document)
        for name in ("disk", "memory"):
            expect(number(lambda name=name: os.open(f"/srv/hidden/{name}/x", os.O_RDONLY)), EPERM, name)
    finally:
        call("umount", "/srv/hidden/memory")
        call("umount", "/srv/hidden/disk")


@story
def strange_names_in_events():
    """The product's own reader of events takes whatever bytes are in a name."""
    write("/srv/hidden/" + LONG, "x")
    enforcer.apply(only("strange", ["read"], "/srv/hidden/**"))
    enforcer.events()
    for path in (STRANGE, b"/srv/hidden/" + LONG.encode()):
        expect(number(lambda path=path: os.open(path, os.O_RDONLY)), EPERM, repr(path))
    strange, long = enforcer.told()
    expect(strange["path"], r"/srv/hidden/\xff\xfe\x0a\x01 \xc3", "strange")
    assert long["path"].endswith("/" + LONG), long


@story
def a_set_uid_program_reads_the_passwords():
    """The exception that the advice about /etc/shadow names: a program of everybody's, whoever starts it."""
    password = "/var/lib/shadow"
    write(password, "x\n")  # its program prints it before the line of the result
    os.chmod(password, 0o600)
    shutil.copy("/srv/bin/hand", "/var/lib/su")
    os.chmod("/var/lib/su", 0o4755)
    policy = {
        "subjects": {"passwords": {"services": ["-.slice"], "executables": ["/var/lib/su"]}},
        "resources": {"shadow": {"paths": [password]}},
        "rules": [{"name": "no passwords", "deny": ["read"], "resources": ["shadow"], "except": ["passwords"]}],
    }

    def reads(program, user):
        return in_child(lambda: execute(program, "open", password), user=user)

    enforcer.drop()
    assert (reads("/var/lib/su", ALICE), reads("/srv/bin/hand", None)) == (0, 0)
    enforcer.apply({**policy, "rules": [{**policy["rules"][0], "except": []}]})
    assert (reads("/var/lib/su", ALICE), reads("/srv/bin/hand", None)) == (EPERM, EPERM)
    enforcer.apply(policy)
    assert (reads("/var/lib/su", ALICE), reads("/srv/bin/hand", None)) == (0, EPERM)
    enforcer.drop()
