# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root against what enforces, tried for real: by a service that a rule names, and by root that none does."""

import contextlib
import datetime
import errno
import functools
import os
import signal
import socket
import struct
import time

from harness.checks import Places, Trial, as_user, enforcer, story
from harness.process import ALICE, in_child, wait_until, write
from techniques import tamper
from techniques.machine import PTRACE_SEIZE
from techniques.registry import TECHNIQUES, Absent
from techniques.steps import NEWNS
from techniques.syscalls import call, mount, system

from checks.flows import beside

assert tamper  # it fills the registry of techniques
UNIT = "/sys/fs/cgroup/system.slice/kept.service"
PINS, PACKAGE, STATE = "/sys/fs/bpf/exfil_guard", "/usr/lib/exfil-guard", "/var/lib/exfil-guard"
UNITS = "/etc/systemd/system"
OBJECT = PACKAGE + "/guard.bpf.o"
RULE = "the service makes no raw socket"
TAMPER = 8  # among the reasons
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, MS_SHARED, MS_REMOUNT, DETACH = 0x1000, 0x2000, 0x4000, 1 << 18, 1 << 20, 0x20, 2
BPF_LINK_DETACH = 34


def policy(**more):
    return {
        "subjects": {"kept": {"services": ["kept.service"]}},
        "rules": [{"name": RULE, "deny": ["raw-socket"], "subjects": ["kept"], **more}],
    }


def by_the_service(operation, *, before=None):
    def joined():
        if before:
            before()
        write(UNIT + "/cgroup.procs", str(os.getpid()))

    os.makedirs(UNIT, exist_ok=True)
    return in_child(operation, before=joined)


def opened(path, flags):
    return lambda: os.close(os.open(path, flags, 0o600))


def pinned(name, readonly):
    return lambda: os.close(enforcer.kernel.get(f"{PINS}/v1/maps/{name}", readonly))


def number_of_map(name):
    fd = enforcer.kernel.get(f"{PINS}/v1/maps/{name}", True)
    try:
        return enforcer.kernel.map_info(fd).id
    finally:
        os.close(fd)


def number_of_table(name):
    """Of the generation's own map."""
    fd = enforcer.kernel.get(f"{PINS}/v1/maps/{name}", True)
    try:
        found = (enforcer.kernel.lookup(fd, struct.pack("=I", slot)) for slot in range(3))
        return next(struct.unpack("=I", each)[0] for each in found if each)
    finally:
        os.close(fd)


def programs():
    folder = next(name for name in os.listdir(PINS + "/v1") if name.startswith("programs-"))
    return f"{PINS}/v1/{folder}"


def number_of_program():
    fd = enforcer.kernel.get(programs() + "/socket_create")
    try:
        return enforcer.kernel.program_info(fd).id
    finally:
        os.close(fd)


def over(target):
    """Mounted over; taken away again where that passes."""

    def operation():
        mount("none", target, "tmpfs")
        call("umount2", target, 0)

    return operation


def there_and_back(old, new):
    def operation():
        os.rename(old, new)
        os.rename(new, old)

    return operation


def made_and_removed(path):
    def operation():
        os.mkdir(path)
        os.rmdir(path)

    return operation


def written_and_removed(path):
    def operation():
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(path)

    return operation


def linked_out():
    os.link(OBJECT, "/usr/lib/alias")
    os.unlink("/usr/lib/alias")


def seized(process):
    system("ptrace", PTRACE_SEIZE, process, 0, 0)  # until the caller ends


def traced():
    seized(os.getppid())  # the check itself


def attacks():
    """Name -> what passes for root that no rule names, and leaves everything as it was."""
    control, table, program = number_of_map("control"), number_of_table("policy"), number_of_program()
    socket_create = programs() + "/socket_create"
    kernel = enforcer.kernel
    return {
        "a pinned map for writing": pinned("control", False),
        "a pinned map for reading": pinned("policy", True),
        "a map by its number": lambda: os.close(kernel.map_by_id(control)),
        "a table by its number": lambda: os.close(kernel.map_by_id(table)),
        "a pinned program": lambda: os.close(kernel.get(socket_create)),
        "a program by its number": lambda: os.close(kernel.program_by_id(program)),
        "the pins renamed": there_and_back(PINS, "/sys/fs/bpf/else"),
        "a pin renamed": there_and_back(PINS + "/v1/maps/totals", PINS + "/v1/maps/else"),
        "a folder among the pins": made_and_removed(PINS + "/v1/more"),
        "the pins mounted over": over(PINS),
        "their filesystem mounted over": over("/sys/fs/bpf"),
        "what it is mounted on mounted over": over("/sys/fs"),
        "the package mounted over": over(PACKAGE),
        "what the package is in mounted over": over("/usr"),
        "the object written": opened(OBJECT, os.O_WRONLY),
        "the object appended to": opened(OBJECT, os.O_RDWR | os.O_APPEND),
        "the object's mode": lambda: os.chmod(OBJECT, 0o644),
        "the object's owner": lambda: os.chown(OBJECT, 0, 0),
        "the object linked": linked_out,
        "the object renamed": there_and_back(OBJECT, "/usr/lib/object"),
        "the package renamed": there_and_back(PACKAGE, "/usr/lib/else"),
        "what it is in renamed": there_and_back("/usr", "/else"),
        "a module more": written_and_removed(PACKAGE + "/exfil_guard/more.py"),
        "a document more": written_and_removed(STATE + "/more.json"),
        "the documents renamed": there_and_back(STATE, "/var/lib/else"),
        "the command": written_and_removed("/usr/sbin/exfil-guard"),
        "a drop-in of a unit": made_and_removed(UNITS + "/exfil-guard-boot.service.d"),
        "a drop-in at run time": made_and_removed("/run/systemd/system/exfil-guard-boot.service.d"),
        "a process of root that no rule names": traced,
    }


def prepare():
    for folder in (UNITS, "/run/systemd/system", STATE):
        os.makedirs(folder, exist_ok=True)


@story
def nobody_who_is_bound_touches_what_enforces():
    prepare()
    enforcer.apply(policy())
    wrong = []
    for name, attack in attacks().items():
        before = enforcer.totals()["reasons"][TAMPER]
        found = in_child(attack)
        if found or enforcer.totals()["reasons"][TAMPER] != before:
            wrong.append(f"root, {name}: ended with {found}")
        found = by_the_service(attack)
        if found != errno.EPERM or enforcer.totals()["reasons"][TAMPER] != before + 1:
            grown = enforcer.totals()["reasons"][TAMPER] - before
            wrong.append(f"the service, {name}: ended with {found}, told {grown} times")
    assert not wrong, "\n".join(wrong)


@story
def nobody_who_is_bound_ends_what_enforces():
    """What leaves nothing as it was: tried by the service only."""
    prepare()
    enforcer.apply(policy())
    link = next(name for name in os.listdir(PINS + "/v1") if name.startswith("links-"))
    hook = f"{PINS}/v1/{link}/socket_create"

    documents = [os.path.join(folder, name) for folder, _, names in os.walk(STATE) for name in names]

    def detached():
        fd = enforcer.kernel.get(hook)
        attributes = struct.pack("=I", fd)
        system("bpf", BPF_LINK_DETACH, attributes, len(attributes))

    wrong = []
    for name, attack in {
        "a pin unlinked": lambda: os.unlink(hook),
        "the pins unmounted": lambda: call("umount2", "/sys/fs/bpf", DETACH),
        "all of /sys unmounted": lambda: call("umount2", "/sys", DETACH),
        "the pins' filesystem moved": lambda: mount("/sys/fs/bpf", "/mnt", None, MS_MOVE),
        "the object truncated": lambda: os.truncate(OBJECT, 0),
        "the object unlinked": lambda: os.unlink(OBJECT),
        "the documents unlinked": lambda: os.unlink(documents[0]),
    }.items():
        found = by_the_service(attack)
        if found != errno.EPERM:
            wrong.append(f"{name}: ended with {found}")
    found = by_the_service(detached)
    if found not in (errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL):
        wrong.append(f"a link detached: ended with {found}")
    raw = by_the_service(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close())
    if raw != errno.EPERM:
        wrong.append(f"the rule itself: ended with {raw}")
    assert not wrong, "\n".join(wrong)


def elsewhere(operation):
    """In a mount namespace of the task's own, whose mounts are the host's peers."""

    def joined():
        call("unshare", NEWNS)
        operation()

    return joined


def private_then_unmounted():
    mount("none", "/sys/fs/bpf", flags=MS_PRIVATE)
    call("umount2", "/sys/fs/bpf", DETACH)


def copied_and_unmounted_from_above():
    """The host's /sys once more, below a mount that has nothing to do with it."""
    mount("none", "/mnt", "tmpfs")
    mount("none", "/mnt", flags=MS_PRIVATE)
    os.makedirs("/mnt/a/b")
    mount("/sys", "/mnt/a/b", flags=MS_BIND | MS_REC)
    call("umount2", "/mnt", DETACH)


def its_mount_point_removed():
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    call("umount2", "/sys", DETACH)
    os.rmdir("/sys")


def its_mount_point_replaced():
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    call("umount2", "/sys", DETACH)
    os.mkdir("/empty")
    try:
        os.rename("/empty", "/sys")
    except OSError:
        os.rmdir("/empty")
        raise


def mounted_again():
    os.makedirs("/sys", exist_ok=True)
    for kind, target in (("sysfs", "/sys"), ("securityfs", "/sys/kernel/security"), ("cgroup2", "/sys/fs/cgroup")):
        if not os.path.ismount(target):
            mount("none", target, kind)
    if not os.path.ismount("/sys/fs/bpf"):
        mount("/tmp/kept", "/sys/fs/bpf", flags=MS_BIND)


@story
def no_mount_elsewhere_takes_the_pins_away():
    """Unmounting is handed on to the peers of what it was mounted on, and a mount goes with its mount point."""
    prepare()
    enforcer.apply(policy())
    mount("none", "/", flags=MS_REC | MS_SHARED)
    os.mkdir("/tmp/kept")
    mount("/sys/fs/bpf", "/tmp/kept", flags=MS_BIND)  # another mount of the pins, to go on with after the controls
    wrong = []
    for name, attack in {
        "a private one": elsewhere(private_then_unmounted),
        "a copy": elsewhere(copied_and_unmounted_from_above),
        "a copy in the host's namespace": copied_and_unmounted_from_above,
        "its mount point removed": elsewhere(its_mount_point_removed),
        "its mount point replaced": elsewhere(its_mount_point_replaced),
    }.items():
        for who, do, wanted in (("the service", by_the_service, errno.EPERM), ("root", in_child, 0)):
            before = enforcer.totals()["reasons"][TAMPER]
            found, left = do(attack), os.path.exists(PINS)
            mounted_again()
            told = enforcer.totals()["reasons"][TAMPER] - before
            if (found, left, told) != (wanted, bool(wanted), bool(wanted)):
                wrong.append(
                    f"{who}, {name}: ended with {found}, the pins are {'left' if left else 'gone'}, told {told} times"
                )
            while os.path.ismount("/mnt"):
                mount("none", "/mnt", flags=MS_REC | MS_PRIVATE)
                call("umount2", "/mnt", DETACH)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    call("umount2", "/tmp/kept", 0)
    os.rmdir("/tmp/kept")
    assert not wrong, "\n".join(wrong)


@story
def what_is_ours_is_left_to_work_with():
    """What a bound service may still do: read, and mount, unmount and write what is not ours."""
    prepare()
    enforcer.apply(policy())

    def own_namespace():
        call("unshare", NEWNS)
        mount("none", "/", flags=0x44000)  # MS_REC | MS_PRIVATE

    def operation():
        os.close(os.open(OBJECT, os.O_RDONLY))
        os.listdir(STATE)
        over("/mnt")()
        mount("none", "/mnt", "tmpfs")
        mount("none", "/mnt", None, MS_REMOUNT | 1)
        call("umount2", "/mnt", DETACH)
        write("/usr/lib/mine", "x")
        os.rename("/usr/lib/mine", "/usr/lib/still")
        os.unlink("/usr/lib/still")
        os.mkdir("/sys/fs/bpf/mine")
        os.rmdir("/sys/fs/bpf/mine")

    found = by_the_service(operation)
    assert found == 0, f"ended with {found}"

    def container():
        """As a container runtime does in a mount namespace of its own."""
        mount("none", "/sys/fs/bpf", "tmpfs")
        call("umount2", "/sys", DETACH)

    found = by_the_service(container, before=own_namespace)
    assert found == 0, f"in its own namespace: ended with {found}"
    assert os.path.exists(PINS), "the host's pins are gone"


@story
def a_rule_that_only_reports_reports_tampering():
    prepare()
    enforcer.apply(policy(mode="audit"))
    before = enforcer.totals()
    enforcer.events()
    found = by_the_service(opened(OBJECT, os.O_WRONLY))
    after = enforcer.totals()
    assert found == 0, found
    assert (after["denied"], after["audited"]) == (before["denied"], before["audited"] + 1), (before, after)
    event = enforcer.events()[-1]
    assert (event.reason, event.rule, event.path) == (TAMPER, RULE, "/usr/lib/exfil-guard/guard.bpf.o"), event


SECRET = "/srv/told/secret"
READERS_RULE = "who has read it makes no raw socket elsewhere"


def labelled_policy(reporting):
    """Its rule on labels binds nobody here, so that what is denied is denied by a label alone."""
    mode = {"mode": "audit"} if reporting else {}
    own = policy(mode="audit")
    return {
        "subjects": {**own["subjects"], "far": {"services": ["far.service"], "has_read": ["told"]}},
        "resources": {"told": {"paths": [SECRET]}},
        "rules": [*own["rules"], {"name": READERS_RULE, "deny": ["raw-socket"], "subjects": ["far"], **mode}],
    }


def touched(*, labelled, bound):
    """How a change of the object's mode ended, how often it was denied and audited, and by which rule. Nothing that is read
    here may get the label: the child tells by its exit status, and writes to no file that the enforcer reads."""

    def operation():
        if bound:
            write(UNIT + "/cgroup.procs", str(os.getpid()))
        if labelled:
            fd = os.open(SECRET, os.O_RDONLY)
            os.read(fd, 1)
            os.close(fd)
        os.chmod(OBJECT, 0o644)

    before = enforcer.totals()
    enforcer.events()
    found = 0
    try:
        beside(operation)()
    except OSError as error:
        found = error.errno
    after = enforcer.totals()
    counts = tuple(after[name] - before[name] for name in ("denied", "audited"))
    rules = [event.rule for event in enforcer.events() if event.reason == TAMPER]
    assert len(rules) == sum(counts), (counts, rules)
    return (found, *counts, *rules)


@story
def a_rule_that_only_reports_takes_nothing_from_what_a_label_denies():
    """And where every rule that asks for labels only reports, so does the label."""
    prepare()
    os.makedirs(UNIT, exist_ok=True)
    os.makedirs(os.path.dirname(SECRET), exist_ok=True)
    write(SECRET, "secret")
    for reporting, wanted in (
        (False, {
            ("root", "not labelled"): (0, 0, 0),
            ("root", "labelled"): (errno.EPERM, 1, 0, ""),
            ("the service", "not labelled"): (0, 0, 1, RULE),
            ("the service", "labelled"): (errno.EPERM, 1, 0, RULE),
        }),
        (True, {
            ("root", "not labelled"): (0, 0, 0),
            ("root", "labelled"): (0, 0, 1, ""),
            ("the service", "not labelled"): (0, 0, 1, RULE),
            ("the service", "labelled"): (0, 0, 1, RULE),
        }),
    ):  # fmt: skip
        enforcer.apply(labelled_policy(reporting))
        found = {each: touched(labelled=each[1] == "labelled", bound=each[0] == "the service") for each in wanted}
        enforcer.drop()
        assert found == wanted, f"rules on labels {'report' if reporting else 'enforce'}: {found}"


@story
def who_may_touch_is_not_controlled_though_a_rule_reports_it():
    """Whom a rule that only reports binds may touch what enforces, and so is not for those to control who may not. The
    control: whom an enforcing rule binds may not touch it, and is."""
    prepare()
    os.makedirs(UNIT, exist_ok=True)
    target = "/sys/fs/cgroup/system.slice/target.service"
    os.makedirs(target, exist_ok=True)

    def started():
        """The target decides something first, so that the rules that bind it are in its storage."""
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:
            write(target + "/cgroup.procs", str(os.getpid()))
            opened(OBJECT, os.O_RDONLY)()
            with contextlib.suppress(OSError):
                opened(OBJECT, os.O_WRONLY)()
            os.write(told, b"x")
            signal.pause()
        os.read(ready, 1)
        return child

    wrong = []
    for mode, expected in (("enforce", 0), ("audit", errno.EPERM)):
        both = policy()
        both["subjects"]["target"] = {"services": ["target.service"]}
        both["rules"].append(
            {"name": "the target makes no raw socket", "deny": ["raw-socket"], "subjects": ["target"], "mode": mode}
        )
        enforcer.apply(both)
        child = started()
        try:
            found = by_the_service(functools.partial(seized, child))
            if found != expected:
                wrong.append(f"the target's rule in mode {mode}: ended with {found}, not {expected}")
            found = in_child(functools.partial(seized, child))
            if found:
                wrong.append(f"by root that no rule names, mode {mode}: ended with {found}")
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert not wrong, "\n".join(wrong)


@story
def root_without_its_powers_is_not_real_root():
    prepare()
    enforcer.apply(policy())

    def without_sys_admin():
        call("prctl", 24, 21, 0, 0, 0)  # PR_CAPBSET_DROP
        header, data = struct.pack("=II", 0x20080522, 0), bytearray(24)
        for half in range(2):
            every = 0xFFFFFFFF if half == 0 else 0x1FF
            keep = every & ~(1 << 21) if half == 0 else every
            struct.pack_into("=III", data, 12 * half, keep, keep, 0)
        call("capset", header, bytes(data))

    found = in_child(opened(OBJECT, os.O_WRONLY), before=without_sys_admin)
    assert found == errno.EPERM, found


def tried(each, who):
    """How a technique ended, and whether self-protection told of it; None: this kernel does not have what it needs."""
    before = enforcer.totals()["reasons"][TAMPER]
    try:
        found = Trial(each, Places()).errno(who)
    except Absent:
        return None
    return found, enforcer.totals()["reasons"][TAMPER] > before


def the_service():
    write(UNIT + "/cgroup.procs", str(os.getpid()))


@story
def no_user_namespace_gives_a_right_over_what_enforces():
    """Kernel ids decide. The control: without a policy the same techniques work."""
    prepare()
    os.makedirs(UNIT, exist_ok=True)
    techniques = [each for each in TECHNIQUES.values() if each.group == "tamper" and "user_namespace" in each.name]
    wrong = []
    for bound, wanted in ((True, (errno.EPERM, True)), (False, (0, False))):
        if bound:
            enforcer.apply(policy())
        else:
            enforcer.drop()
        for each in techniques:
            found = tried(each, the_service)
            if found != wanted:
                wrong.append(f"{each.name}, {'a' if bound else 'no'} policy: {found}, expected {wanted}")
    assert len(techniques) > 10 and not wrong, "\n".join(wrong)


@story
def no_switch_of_the_kernel_is_moved_by_who_is_bound():
    """The control: root that no rule names moves each of them."""
    prepare()
    os.makedirs(UNIT, exist_ok=True)
    enforcer.apply(policy())
    techniques = [each for each in TECHNIQUES.values() if each.group == "tamper" and each.name.startswith("switch_")]
    techniques = [each for each in techniques if "user_namespace" not in each.name]
    wrong, there = [], 0
    for each in techniques:
        found = tried(each, the_service)
        if found is None:
            continue
        there += 1
        if found != (errno.EPERM, True):
            wrong.append(f"the service, {each.name}: {found}")
        found = tried(each, lambda: None)
        if found != (0, False):
            wrong.append(f"root, {each.name}: {found}")
    assert there >= 15, there
    assert not wrong, "\n".join(wrong)


@story
def a_rule_on_procfs_holds_on_every_procfs():
    """In audit mode the same attempts succeed."""
    techniques = [TECHNIQUES[name] for name in ("procfs", "another_procfs", "another_procfs_of_root")]
    os.makedirs(UNIT, exist_ok=True)
    wrong = []
    for mode, wanted in (("enforce", errno.EPERM), ("audit", 0)):
        document = policy()
        document["resources"] = {"switches": {"paths": ["/proc/sys/kernel/*"]}}
        document["subjects"]["alice"] = {"users": ["alice"]}
        document["rules"].append(
            {
                "name": "nobody reads it",
                "deny": ["read"],
                "subjects": ["alice", "kept"],
                "resources": ["switches"],
                "mode": mode,
            }
        )
        enforcer.apply(document)
        for each in techniques:
            who = the_service if each.who.endswith(".service") else as_user(ALICE)
            found = Trial(each, Places()).errno(who)
            if found != wanted:
                wrong.append(f"{each.name}, {mode}: ended with {found}, not {wanted}")
    assert not wrong, "\n".join(wrong)


def problems():
    """What status, verify, drift and refresh say of programs that have stopped, and how an apply ends."""

    def operation():
        from exfil_guard.kernel import running
        from exfil_guard.lifecycle import boot
        from exfil_guard.lifecycle.context import Context, Options
        from exfil_guard.report import status, verify

        parts = enforcer._parts()
        today = datetime.datetime.now(datetime.timezone.utc).date()
        said = {
            "running": running.line(parts[0], True),
            "status": status.status(parts[0], parts[2]).problems,
            "verify": [str(one) for one in verify.verify(*_in_order(parts), today).differences],
        }
        try:
            said["refresh"] = [boot.refresh(Context(*parts, today, Options(check=False)))]
        except Exception as error:
            said["refresh"] = [f"failed: {error}"]
        return said

    def _in_order(parts):
        return parts[0], parts[2], parts[1]

    return enforcer._result(operation)


@story
def a_switch_that_stops_the_programs_is_seen():
    prepare()
    enforcer.apply(policy())
    before = problems()
    write("/proc/sys/kernel/ftrace_enabled", "0")
    try:
        stopped = problems()
        again = enforcer._report(lambda: enforcer.apply(policy(deny=["mount"])))
    finally:
        write("/proc/sys/kernel/ftrace_enabled", "1")
    after = problems()
    for who, lines in stopped.items():
        assert any("ftrace_enabled" in line for line in lines), (who, lines)
    assert stopped["refresh"][0].startswith("failed: "), stopped
    assert "ftrace_enabled" in again.get("error", ""), again
    for said in (before, after):
        assert not any("ftrace_enabled" in line or "do not run" in line for lines in said.values() for line in lines), (
            said
        )
    assert not before["running"] + after["running"], (before, after)


@story
def no_policy_no_protection():
    prepare()
    enforcer.apply(policy())
    spare = "/usr/lib/exfil-guard/canary/spare"
    found = by_the_service(written_and_removed(spare))
    assert found == errno.EPERM, found
    enforcer.drop()
    found = by_the_service(written_and_removed(spare))
    assert found == 0, found


@story
def whoever_locks_himself_out_is_let_in_again():
    """A service applies the policy that binds it: warned, it cannot confirm, and the kernel goes back by itself."""
    prepare()
    enforcer.apply({"rules": []})
    enforcer.drop()

    def operation():
        result = enforcer.apply(policy(), confirm_seconds=5)
        ends = time.clock_gettime(time.CLOCK_BOOTTIME) + 5
        assert any(RULE in warning for warning in result["warnings"]), result["warnings"]
        assert "Operation not permitted" in enforcer.confirm(result["generation"])
        wait_until(ends + 0.1)
        assert enforcer.apply({"rules": []})["changed"]

    found = by_the_service(operation)
    assert found == 0, found


@story
def a_bound_service_changes_no_policy():
    """Neither by our own tools: an apply, a confirm and a removal fail, and the policy stays as it is."""
    prepare()
    generation = enforcer.apply(policy())["generation"]

    def operation():
        for attempt in (lambda: enforcer.apply({"rules": []}), enforcer.drop):
            try:
                attempt()
            except AssertionError as error:
                if "Operation not permitted" not in str(error):
                    raise
            else:
                raise AssertionError("a bound service changed the policy")

    assert by_the_service(operation) == 0
    assert enforcer.apply(policy())["generation"] == generation
