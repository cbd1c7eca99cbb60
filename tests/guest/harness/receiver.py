# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The receiver outside. It takes what is sent to it, by every protocol that the machine has, and records which marks arrived.
It also connects to whoever offers data on a port. The record of a mark is an empty file of that name, so that its reader
reads no data of the attacker's."""

import contextlib
import os
import re
import select
import socket
import struct
import sys
import threading
import time

MARK = re.compile(rb"mark-[0-9a-f]{24}")
MPTCP, SCTP, UDPLITE, DCCP = 262, 132, 136, 33


class Receiver:
    def __init__(self, folder, addresses, vaults, ports):
        self.folder, self.addresses, self.vaults, self.ports = folder, addresses, vaults, ports
        self.ready = []
        self.carried = {}  # by addresses that the kernel announces or asks for, see announced

    def note(self, data, where=""):
        for mark in MARK.findall(data):
            with open(f"{self.folder}/{where}{mark.decode()}", "w", encoding="ascii"):
                pass

    def run(self, sniff=True):
        for family, addresses in ((socket.AF_INET, self.addresses[0]), (socket.AF_INET6, self.addresses[1])):
            for address in addresses:
                for port in self.ports:
                    self.listen(family, socket.SOCK_STREAM, 0, address, port)
                    self.listen(family, socket.SOCK_STREAM, SCTP, address, port)
                    self.listen(family, socket.SOCK_DGRAM, 0, address, port)
                    self.listen(family, socket.SOCK_DGRAM, UDPLITE, address, port)
                self.listen(family, socket.SOCK_STREAM, MPTCP, address, self.ports[0] + MPTCP)
        if sniff:
            threading.Thread(target=self.sniff, daemon=True).start()
        threading.Thread(target=self.come_and_get, daemon=True).start()

    def listen(self, family, kind, protocol, address, port):
        try:
            one = socket.socket(family, kind, protocol)
        except OSError:
            return  # this kernel has no such protocol
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM and protocol != SCTP:
            with contextlib.suppress(OSError):  # MPTCP's came later
                one.setsockopt(socket.SOL_TCP, socket.TCP_FASTOPEN, 64)
        one.bind((address, port))
        where = "vault-" if address in self.vaults else ""
        if kind == socket.SOCK_STREAM:
            one.listen(128)
            threading.Thread(target=self.accept, args=(one, where), daemon=True).start()
        else:
            threading.Thread(target=self.receive, args=(one, where), daemon=True).start()

    def accept(self, listener, where):
        while True:
            one = listener.accept()[0]
            threading.Thread(target=self.drain, args=(one, where), daemon=True).start()

    def drain(self, one, where=""):
        one.settimeout(600)
        seen = b""
        try:
            while len(seen) < 1 << 20:
                more = one.recv(65536)
                if not more:
                    break
                seen += more
                self.note(seen, where)
        except OSError:
            pass
        one.close()

    def receive(self, one, where):
        while True:
            try:
                self.note(one.recv(65535), where)
            except OSError:
                time.sleep(0.01)

    def sniff(self):
        """Everything on the wire that goes neither to the vault nor round the machine itself."""
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        while True:
            data, where = wire.recvfrom(65535)
            self.announced(data, where[1])
            if not MARK.search(data):
                continue
            kind = where[1]
            if kind == 0x0800:
                to = socket.inet_ntoa(data[30:34])
                if to in self.vaults or to.startswith("127."):
                    continue
            elif kind == 0x86DD:
                to = socket.inet_ntop(socket.AF_INET6, data[38:54])
                if to in self.vaults or to == "::1":
                    continue
            self.note(data)

    def announced(self, frame, kind):
        """What the groups and sources in a report of IGMPv3 or MLDv2 carry, put together in the order of the groups; and
        the addresses that the kernel asks for."""
        if kind == 0x0806 and frame[38:40] == b"\x0a\x5c":
            self.carry(kind, frame[40], frame[41:42])
        if kind == 0x86DD and len(frame) > 77 and frame[20] == 58 and frame[54] == 135 and frame[62:64] == b"\xfd\x92":
            self.carry((kind, 135), frame[70], frame[71:78])
        if kind == 0x0800 and len(frame) > 42 and frame[23] == 2:
            at, size, type_, first = 14 + 4 * (frame[14] & 15), 4, 0x22, b"\xef"
        elif kind == 0x86DD and len(frame) > 70 and frame[20] == 0:
            at, size, type_, first = 62, 16, 143, b"\xff\x1e\x45\x47"
        else:
            return
        if frame[at] != type_:
            return
        count = int.from_bytes(frame[at + 6 : at + 8], "big")
        at += 8
        for _ in range(count):
            listed = int.from_bytes(frame[at + 2 : at + 4], "big")
            group, rest = frame[at + 4 : at + 4 + size], frame[at + 4 + size : at + 4 + size * (1 + listed)]
            at += 4 + size * (1 + listed)
            parts = [rest[n : n + size] for n in range(0, len(rest), size)]
            self.note(rest)
            self.note(b"".join(reversed(parts)))
            if group.startswith(first):
                self.carry(kind, group[len(first)], group[len(first) + 1 :])

    def carry(self, kind, place, data):
        carried = self.carried.setdefault(kind, {})
        carried[place] = data
        self.note(b"".join(carried.get(n, b"") for n in range(32)))

    def come_and_get(self):
        """Whoever offers something on one of these ports is connected to, again and again."""
        while True:
            time.sleep(0.02)
            try:
                names = [name for name in os.listdir(self.folder) if name.startswith("get-")]
            except OSError:
                continue
            for name in names:
                _get, protocol, address, port = name.split("_")
                try:
                    os.unlink(f"{self.folder}/{name}")
                except OSError:
                    continue
                threading.Thread(target=self.get, args=(protocol, address, int(port)), daemon=True).start()

    def get(self, protocol, address, port):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        ends = time.monotonic() + 15
        while time.monotonic() < ends:
            one = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
            one.settimeout(10)
            try:
                one.connect((address, port))
                one.send(b"give\n")
                self.drain(one) if protocol == "tcp" else self.note(one.recv(65535))
                return
            except OSError:
                one.close()
                time.sleep(0.03)


def ping_request(data, identity=7):
    """An ICMP echo request that carries data."""
    head = struct.pack("!BBHHH", 8, 0, 0, identity, 1)
    body = head + data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!BBHHH", 8, 0, ~(total + (total >> 16)) & 0xFFFF, identity, 1) + body[8:]


def wait_for(descriptor, seconds):
    return bool(select.select([descriptor], [], [], seconds)[0])


if __name__ == "__main__":
    import json

    Receiver(*json.loads(sys.argv[1])).run()
    with open(sys.argv[2], "w", encoding="ascii"):
        pass
    while True:
        time.sleep(3600)
