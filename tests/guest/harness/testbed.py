# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the attacks happen: folders, users, units, addresses, and the policy that has to hold. The same on a machine
that runs nothing but this and on one with systemd."""

import ctypes
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from typing import Any, Dict, List

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # with the programs
PORT, OTHER_PORT = 4443, 4444
UNITS = (
    "files",
    "network",
    "reply",
    "bind",
    "listen",
    "accept",
    "sockets",
    "machine",
    "caps",
    "tamper",
    "programs",
    "devices",
)
PROGRAMS = ("hand", "linked", "storm")


class Testbed:
    def __init__(self, base: str = "/srv/adversary", users=("alice", "bob", "carol"), keep: str = "") -> None:
        self.base = base
        self.names = dict(zip(("alice", "bob", "carol"), users))
        self.secret_folder, self.open = base + "/secret", base + "/open"
        self.secret = self.secret_folder + "/data"
        self.exports, self.deep = base + "/exports", base + "/deep/inner/secret"
        self.customers_folder = base + "/customers"
        self.customers = self.customers_folder + "/data"
        self.bin, self.tool = base + "/bin", base + "/bin/tool"
        self.run, self.logs = base + "/run", keep or "/run/adversary/logs"
        self.arrived_folder = "/run/adversary/arrived"
        self.outside4, self.outside6 = "10.91.1.1", "fd91:1::1"
        self.vault4, self.vault6 = "10.91.0.1", "fd91::1"
        self.metadata = "169.254.169.254"
        self.port = PORT
        self.systemd = os.path.isdir("/run/systemd/system")
        self.background: List[int] = []

    # ---- what is there for all attempts -----------------------------------------------------------------------------

    def prepare(self) -> None:
        for folder in ("/run/adversary", self.logs, self.arrived_folder):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            os.chmod(folder, 0o777)
        shutil.rmtree(self.base, ignore_errors=True)
        for folder in (
            self.secret_folder,
            self.open,
            self.exports,
            self.deep,
            self.customers_folder,
            self.bin,
            self.run,
        ):
            os.makedirs(folder)
        for folder in (
            self.base,
            self.secret_folder,
            self.open,
            self.exports,
            self.base + "/deep",
            self.base + "/deep/inner",
            self.deep,
            self.customers_folder,
            self.run,
        ):
            os.chmod(folder, 0o777)
        self.users = {name: self._user(real) for name, real in self.names.items()}
        for name in PROGRAMS:
            shutil.copy(f"{HERE}/{name}", f"{self.bin}/{name}")
        shutil.copy(self.bin + "/hand", self.tool)
        shutil.copy(self.bin + "/hand", self.bin + "/setuid")
        os.chmod(self.bin + "/setuid", 0o4755)
        if not shutil.which("systemctl"):  # what answers for it where there is no systemd
            shutil.copy(HERE + "/systemctl", "/usr/bin/systemctl")
            os.chmod("/usr/bin/systemctl", 0o755)
        for name in UNITS:
            self._unit(name)
        self._settings()
        for address in (self.outside4, self.vault4, self.metadata):
            _quietly("ip", "addr", "add", address + "/32", "dev", "lo")
        for address in (self.outside6, self.vault6):
            _quietly("ip", "addr", "add", address + "/128", "dev", "lo")
        _quietly("ip", "-6", "route", "add", "local", "ff02::1", "dev", "lo", "table", "local")
        _quietly("ip", "-6", "route", "add", "multicast", "ff00::/8", "dev", "lo", "table", "local")
        _quietly("ip", "route", "add", "multicast", "239.0.0.0/8", "dev", "lo")
        arguments = json.dumps(
            [
                self.arrived_folder,
                [[self.outside4, self.vault4, self.metadata, "127.0.0.1"], [self.outside6, self.vault6, "::1"]],
                [self.vault4, self.vault6],
                [PORT, 53],
            ]
        )
        ready = "/run/adversary/outside"
        self.background.append(
            os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, f"{HERE}/harness/receiver.py", arguments, ready])
        )
        for _ in range(600):
            if os.path.exists(ready):
                return
            if os.waitpid(self.background[-1], os.WNOHANG)[0]:
                break
            time.sleep(0.1)
        raise RuntimeError("the outside does not come up")

    def _user(self, name: str) -> int:
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            subprocess.run(["useradd", "--no-create-home", name], check=True)
            return pwd.getpwnam(name).pw_uid

    def _unit(self, name: str) -> None:
        if self.systemd:
            path = f"/run/systemd/system/adversary-{name}.service"
            with open(path, "w", encoding="ascii") as file:
                file.write("[Service]\nExecStart=/bin/sleep infinity\nDelegate=yes\n")
            subprocess.run(["systemctl", "daemon-reload"], check=True)
            subprocess.run(["systemctl", "restart", f"adversary-{name}"], check=True)
        else:
            os.makedirs(self.cgroup(name), exist_ok=True)

    def cgroup(self, name: str) -> str:
        return f"/sys/fs/cgroup/system.slice/adversary-{name}.service"

    def _settings(self) -> None:
        for path, value in (
            ("/proc/sys/net/ipv4/tcp_fastopen", "3"),
            ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
            ("/proc/sys/kernel/yama/ptrace_scope", "0"),
            ("/proc/sys/net/ipv4/conf/all/accept_source_route", "1"),
            ("/proc/sys/net/ipv4/conf/lo/accept_source_route", "1"),
            ("/proc/sys/kernel/perf_event_paranoid", "1"),
            ("/proc/sys/fs/protected_hardlinks", "0"),
            ("/proc/sys/kernel/io_uring_disabled", "0"),
            ("/proc/sys/fs/protected_regular", "0"),
            ("/proc/sys/fs/protected_symlinks", "0"),
            ("/proc/sys/fs/protected_fifos", "0"),
            ("/proc/sys/net/ipv6/conf/lo/seg6_enabled", "1"),
        ):
            try:
                with open(path, "w", encoding="ascii") as file:
                    file.write(value)
            except OSError:
                pass  # not every kernel has every switch: the control of what needs it says so
        if not self.systemd:  # what a host has
            for path, kind in (("/dev/shm", "tmpfs"), ("/dev/pts", "devpts")):
                os.makedirs(path, exist_ok=True)
                if not os.path.ismount(path):
                    _quietly("mount", "-t", kind, kind, path)
            os.chmod("/dev/shm", 0o1777)

    def fresh(self, attempt: Any) -> None:
        """The mark of this attempt in everything that is guarded."""
        for path in (self.secret, self.customers, self.exports + "/a.csv", self.deep + "/data"):
            with open(path, "wb") as file:
                file.write(attempt.data)
            os.chmod(path, 0o666)

    def end(self) -> None:
        for child in self.background:
            os.kill(child, 9)
            os.waitpid(child, 0)
        if self.systemd:
            for name in UNITS:
                _quietly("systemctl", "stop", f"adversary-{name}")

    # ---- who --------------------------------------------------------------------------------------------------------

    def become(self, who: str) -> None:
        if who.endswith(".service"):
            with open(self.cgroup(who[: -len(".service")]) + "/cgroup.procs", "w", encoding="ascii") as file:
                file.write(str(os.getpid()))
            return
        if who == "root":  # bound by nothing
            return
        user = 65534 if who == "nobody" else self.users[who]
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is one's own again

    def unbound(self) -> None:
        """Makes the process, root's, one that no rule names."""
        with open("/sys/fs/cgroup/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(os.getpid()))

    # ---- the policy -------------------------------------------------------------------------------------------------

    def policy(self, more: Any = ()) -> Dict[str, Any]:
        names = self.names
        units: Dict[str, Any] = {f"u-{name}": {"services": [f"adversary-{name}.service"]} for name in UNITS}
        subjects = {
            **units,
            "alice": {"users": [names["alice"]]},
            "carol": {"users": [names["carol"]]},
            "readers": {"has_read": ["customers"]},
        }
        resources: Dict[str, Any] = {
            "secret": {
                "paths": [
                    self.secret_folder + "/**",
                    self.exports + "/*.csv",
                    self.deep + "/**",
                    "/proc/sys/kernel/domainname",
                ]
            },
            "customers": {"paths": [self.customers_folder + "/**"]},
            "tool": {"paths": [self.tool]},
            "programs": {
                "optional": True,
                "paths": [
                    "/usr/bin/**",
                    "/bin/**",
                    "/usr/lib/**",
                    "/lib/**",
                    "/lib64/**",
                    "/usr/lib64/**",
                    self.bin + "/hand",
                ],
            },
            "broker": {"optional": True, "paths": [self.run + "/*.sock"], "abstract_sockets": ["adversary-*"]},
        }
        away = {"not": ["vault"]}
        machine = ["mount", "ptrace", "load-module", "bpf", "perf", "user-namespace", "io-uring"]
        rules = [
            _rule("files", ["read", "write"], ["alice", "u-files"], resources=["secret"]),
            _rule("tool", ["execute"], ["alice"], resources=["tool"]),
            _rule("programs", ["execute"], ["u-programs"], resources={"not": ["programs"]}),
            _rule("connect", ["connect", "send"], ["alice", "u-network"], destinations=away),
            _rule("broker", ["unix-connect"], ["alice"], resources=["broker"]),
            _rule("readers", ["connect", "send", "reply"], ["readers"], destinations=away),
            *(_rule(name, [name], [f"u-{name}"], destinations=away) for name in ("reply", "bind", "listen", "accept")),
            *(
                _rule(name, [name], ["u-sockets"])
                for name in (
                    "raw-socket",
                    "packet-socket",
                    "netlink-socket",
                    "xdp-socket",
                    "alg-socket",
                    "vsock-socket",
                    "other-socket",
                    "bluetooth-socket",
                    "can-socket",
                    "tipc-socket",
                    "key-socket",
                    "rds-socket",
                    "smc-socket",
                )
            ),
            _rule("vsock", ["vsock"], ["u-network"], destinations=["hypervisor"]),
            *(_rule(name, [name], ["carol", "u-machine"]) for name in machine),
            *(
                _rule(name, [name], ["u-devices"])
                for name in ("block-device", "virtio-port", "serial", "tun", "guest-device")
            ),
            *(_rule(name, [name], ["u-caps"]) for name in CAPABILITIES),
            _rule("tamper", ["perf"], ["u-tamper"]),
        ]
        for rule in more:  # sets said in place get a name, as the controller gives them one
            rule = dict(rule)
            for kind, sets in (("subjects", subjects), ("resources", resources)):
                if isinstance(rule.get(kind), dict) and "not" not in rule[kind]:
                    sets[rule["name"]] = rule[kind] if kind == "subjects" else {"optional": True, **rule[kind]}
                    rule[kind] = [rule["name"]]
            rules.append(rule)
        return {
            "subjects": subjects,
            "resources": resources,
            "destinations": {
                "vault": {"cidrs": [self.vault4 + "/32", self.vault6 + "/128"]},
                "hypervisor": {"vsock": ["any"]},
            },
            "rules": rules,
        }


CAPABILITIES = tuple(
    "cap-" + name
    for name in (
        "chown",
        "dac-override",
        "dac-read-search",
        "fowner",
        "kill",
        "setuid",
        "setgid",
        "net-bind-service",
        "net-admin",
        "net-raw",
        "sys-chroot",
        "sys-admin",
        "sys-time",
        "mknod",
        "syslog",
        "setfcap",
        "sys-rawio",
        "sys-resource",
        "sys-ptrace",
        "setpcap",
        "sys-boot",
        "sys-tty-config",
        "sys-nice",
        "ipc-lock",
        "linux-immutable",
    )
)


def _rule(name: str, deny: List[str], subjects: List[str], **more: Any) -> Dict[str, Any]:
    return {"name": name, "deny": deny, "subjects": subjects, **more}


def _quietly(*command: str) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def address_of(family: int, address: str, port: int) -> bytes:
    """A raw socket address."""
    if family == socket.AF_INET6:
        return (
            (10).to_bytes(2, "little")
            + port.to_bytes(2, "big")
            + bytes(4)
            + socket.inet_pton(family, address)
            + bytes(4)
        )
    return family.to_bytes(2, "little") + port.to_bytes(2, "big") + socket.inet_aton(address) + bytes(8)
