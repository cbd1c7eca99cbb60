# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`has_read`, tried for real: each way from a file to the network with the secret and with a public file, to where a
reader of the secret may not send and to where he may, under a policy without labels and under one with them."""

import ctypes
import os
import socket
import traceback

from machine import ALICE, execute, in_child

EPERM = 1
SECRET, PUBLIC = "/srv/secret/a", "/srv/open/file"
VAULT, ELSEWHERE, PORT = "10.9.0.1", "10.9.1.1", 4443
RULE = "who has read the secret talks to the vault only"
POLICY = {
    "subjects": {"reader": {"has_read": ["secret"]}},
    "resources": {"secret": {"paths": ["/srv/secret/**"]}, "deep": {"paths": ["/srv/deep/**"]}},
    "destinations": {"vault": {"cidrs": [VAULT + "/32"]}},
    "rules": [
        {"name": RULE, "deny": ["connect", "send"], "subjects": ["reader"], "destinations": {"not": ["vault"]}},
    ],
}
WITHOUT = {
    "subjects": {"alice": {"users": ["alice"]}},
    "resources": {"deep": {"paths": ["/srv/deep/**"]}},
    "rules": [{"name": "something else", "deny": ["read"], "subjects": ["alice"], "resources": ["deep"]}],
}
WAYS = {}


def denied(function):
    """A way from a file to the network: a reader of the secret is denied."""
    WAYS[function.__name__] = (function, EPERM)
    return function


def passes(function):
    """What looks like one and is none."""
    WAYS[function.__name__] = (function, 0)
    return function


def known_open(function):
    """A way that no hook sees: it passes, and is printed as such."""
    WAYS[function.__name__] = (function, None)
    return function


def look(path):
    with open(path, "rb") as file:
        return file.read()


def sending(address):
    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(b"x", (address, PORT))

    return send


def in_another(operation):
    """In a child of the task; its errno is raised here."""
    number = in_child(operation)
    if number:
        raise OSError(number, "in the child")


def carry(how, path, send):
    execute("/guest/carry", how, path, send.address, str(PORT))


# ---- one task, or a family ----------------------------------------------------------------------------------------


@denied
def read_then_send(path, send):
    look(path)
    send()


@denied
def open_then_send(path, send):
    os.open(path, os.O_RDONLY)
    send()


@passes
def opened_for_writing_only(path, send):
    os.close(os.open(path, os.O_WRONLY))
    send()


@passes
def only_looked_at(path, send):
    os.stat(path)
    os.close(os.open(path, os.O_PATH))
    send()


@denied
def connected_before(path, send):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((send.address, PORT))
        look(path)
        one.send(b"x")


@denied
def child_sends(path, send):
    look(path)
    in_another(send)


@denied
def grandchild_sends(path, send):
    look(path)
    in_another(lambda: in_another(send))


@passes
def child_reads_and_parent_sends(path, send):
    in_another(lambda: look(path))
    send()


@denied
def executes_the_sender(path, send):
    look(path)
    carry("send", path, send)


@denied
def forks_before_it_executes(path, send):
    look(path)
    in_another(lambda: carry("send", path, send))


@denied
def executes_what_is_labelled(path, send):
    program = "/srv/secret/carry" if path == SECRET else "/srv/open/carry"
    execute(program, "send", path, send.address, str(PORT))


@denied
def executes_a_script_that_is_labelled(path, send):
    execute("/srv/secret/script" if path == SECRET else "/srv/open/sends", send.address, str(PORT))


# ---- tasks that share memory --------------------------------------------------------------------------------------


@denied
def thread_sends(path, send):
    carry("thread-sends", path, send)


@denied
def thread_reads(path, send):
    carry("thread-reads", path, send)


@denied
def shared_memory_task_sends(path, send):
    carry("clone-sends", path, send)


@denied
def shared_memory_task_reads(path, send):
    carry("clone-reads", path, send)


@denied
def vfork_child_sends(path, send):
    carry("vfork-sends", path, send)


@denied
def vfork_child_reads(path, send):
    carry("vfork-reads", path, send)


@passes
def vfork_child_executes_what_is_labelled(path, send):
    carry("vfork-executes", "/srv/secret/opener" if path == SECRET else "/guest/opener", send)


# ---- the run ------------------------------------------------------------------------------------------------------


def prepare():
    import shutil

    for folder in ("/srv/secret", "/srv/open"):
        for program in ("carry", "opener"):
            shutil.copy("/guest/" + program, folder + "/" + program)
    for script in ("/srv/secret/script", "/srv/open/sends"):
        with open(script, "w", encoding="ascii") as file:
            file.write("#!/guest/carry send\n")
        os.chmod(script, 0o755)


def attempt(function, path, address, user=ALICE):
    send = sending(address)
    send.address = address
    return in_child(lambda: function(path, send), user=user)


def run(enforcer, wanted, report):
    wrong = {name: [] for name in WAYS if not wanted or name in wanted}
    if not wrong:
        return
    prepare()
    for phase, document in (("without", WITHOUT), ("audit", {**POLICY, "mode": "audit"}), ("enforce", POLICY)):
        try:
            enforcer.apply(document)
        except Exception:
            for lines in wrong.values():
                lines.append(traceback.format_exc(limit=-1))
            continue
        for name in wrong:
            function, ends = WAYS[name]
            for path, address in ((PUBLIC, ELSEWHERE), (SECRET, VAULT), (SECRET, ELSEWHERE)):
                expected = ends if phase == "enforce" and (path, address) == (SECRET, ELSEWHERE) else 0
                before = enforcer.counter(RULE)
                try:
                    found = attempt(function, path, address)
                except Exception:
                    wrong[name].append(f"{phase}, {path} to {address}: {traceback.format_exc(limit=-3)}")
                    continue
                if expected is None:
                    print(f"known open: {name}" if found == 0 else f"closed after all: {name}, {found}", flush=True)
                elif found != expected:
                    wrong[name].append(f"{phase}: {path} to {address} ended with {found}, expected {expected}")
                grown = tuple(new > old for new, old in zip(enforcer.counter(RULE), before))
                hit = ends == EPERM and (path, address) == (SECRET, ELSEWHERE)
                if ends is not None and grown != (hit and phase == "enforce", hit and phase == "audit"):
                    wrong[name].append(f"{phase}: {path} to {address}: the rule's counters grew: {grown}")
    for name, lines in wrong.items():
        report(name, "\n".join(lines))
