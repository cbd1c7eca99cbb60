# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network's checks: every way out over a socket. hooks.py imports this at its end and runs them with its own."""

import contextlib
import ctypes
import os
import select
import shutil
import socket
import struct
import threading
import time

from __main__ import (
    EPERM,
    OTHER4,
    OTHER6,
    POLICY,
    PORT,
    SENDS,
    VAULT4,
    VAULT6,
    alice,
    denied,
    enforcer,
    expect,
    gone,
    passes,
    rule,
    story,
)
from machine import BOB, call, execute, in_child

DORA, ERIC, BEN, UMA = 1101, 1102, 1103, 1104
ODD = 2101  # a group of root's that makes no odd sockets
FASTOPEN, MPTCP, SCTP = 0x20000000, 262, 132
DORAS, ERICS, BENS, UMAS = "dora sends nothing", "eric answers nobody", "ben serves nothing", "uma talks to no agent"
ODDS = "no odd sockets"
CLOSED_PORT = 8081

POLICY["subjects"].update(
    dora={"users": [DORA]}, eric={"users": [ERIC]}, ben={"users": [BEN]}, uma={"users": [UMA]}, odd={"groups": [ODD]}
)
POLICY["resources"]["agents"] = {
    "paths": ["/srv/open/agent.sock", "/run/agent.sock"],
    "abstract_sockets": ["agent-*", "/run/bus"],
}
POLICY["destinations"]["closed"] = {"ports": [CLOSED_PORT], "protocols": ["tcp", "udp"]}
POLICY["rules"] += [
    rule(DORAS, ["send"], subjects=["dora"], destinations=["vault"]),
    rule(ERICS, ["reply"], subjects=["eric"], destinations=["vault"]),
    rule(BENS, ["bind", "listen", "accept"], subjects=["ben"], destinations=["closed"]),
    rule(UMAS, ["unix-connect"], subjects=["uma"], resources=["agents"]),
    rule(
        ODDS,
        ["raw-socket", "packet-socket", "netlink-socket", "key-socket", "bluetooth-socket", "other-socket"],
        subjects=["odd"],
    ),
]


def as_dora(operation, **more):
    return in_child(operation, user=DORA, **more)


def as_uma(operation, **more):
    return in_child(operation, user=UMA, **more)


def connected(address=VAULT4, kind=socket.SOCK_STREAM, protocol=0, source=None):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, kind, protocol)
    if source:
        one.bind((source, 0))
    one.connect((address, PORT))
    return one


def listening(port=0, kind=socket.SOCK_STREAM, protocol=0, address="0.0.0.0", reuse=False):
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind, protocol)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((address, port))
    one.listen(16)
    return one


def caller(server, source=VAULT4):
    """A client of a listener of ours, from an address that may not be sent to."""
    one = socket.socket(server.family, socket.SOCK_STREAM, server.proto)
    one.bind((source, 0))
    one.connect((source, server.getsockname()[1]))
    return one


def accepted(server, source=VAULT4):
    client = caller(server, source)
    return server.accept()[0], client


def raw_sockaddr(family, address, port=PORT):
    if ":" in address:
        return struct.pack("=H", family) + struct.pack("!HI", port, 0) + socket.inet_pton(10, address) + bytes(4)
    return struct.pack("=H", family) + struct.pack("!H", port) + socket.inet_aton(address) + bytes(8)


def send_to(one, name):
    call("sendto", one.fileno(), b"x", 1, 0, name, len(name))


# ---- sending through a connection ---------------------------------------------------------------------------------


@denied(DORAS)
def stream_send():
    return as_dora(lambda: connected().send(b"x"))


@denied(DORAS)
def stream_send_ipv6():
    return as_dora(lambda: connected(VAULT6).send(b"x"))


@denied(DORAS)
def stream_send_mapped():
    return as_dora(lambda: connected("::ffff:" + VAULT4).send(b"x"))


@denied(DORAS)
def stream_write():
    return as_dora(lambda: os.write(connected().fileno(), b"x"))


@denied(DORAS)
def stream_send_with_another_address():
    """A connected stream takes no notice of it."""
    return as_dora(lambda: send_to(connected(), raw_sockaddr(2, OTHER4)))


@denied(DORAS)
def stream_send_many():
    def operation():
        one = connected()
        vector = (ctypes.c_char * 16)()
        data = ctypes.create_string_buffer(b"x")
        struct.pack_into("=QQ", vector, 0, ctypes.addressof(data), 1)
        header = (ctypes.c_char * 64)()
        struct.pack_into("=QIxxxxQQQQII", header, 0, 0, 0, ctypes.addressof(vector), 1, 0, 0, 0, 0)
        call("sendmmsg", one.fileno(), header, 1, 0)

    return as_dora(operation)


@denied(DORAS)
def stream_sendfile():
    def operation():
        with open("/srv/open/file", "rb") as file:
            os.sendfile(connected().fileno(), file.fileno(), 0, 1)

    return as_dora(operation)


@denied(DORAS)
def stream_splice():
    def operation():
        reader, writer = os.pipe()
        os.write(writer, b"x")
        os.splice(reader, connected().fileno(), 1)

    return as_dora(operation)


@denied(DORAS)
def stream_send_of_urgent_data():
    return as_dora(lambda: connected().send(b"x", socket.MSG_OOB))


@denied(DORAS)
def stream_that_tries_to_listen():
    """Trying to listen makes no accepted connection of it."""

    def operation():
        one = connected()
        with contextlib.suppress(OSError):
            one.listen()
        one.send(b"x")

    return as_dora(operation)


@denied(DORAS)
def accepted_stream_that_connects_elsewhere():
    def operation():
        one, _client = accepted(listening())
        one.send(b"x")
        call("connect", one.fileno(), raw_sockaddr(0, OTHER4), 16)
        one.connect((VAULT4, PORT))
        one.send(b"x")

    return as_dora(operation)


@denied(DORAS)
def fast_open_by_option():
    def operation():
        one = socket.socket()
        one.setsockopt(socket.SOL_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
        one.connect((VAULT4, PORT))
        one.send(b"x")

    return as_dora(operation)


@denied(DORAS)
def fast_open_to_an_address_that_may_be_on_a_connection_that_may_not():
    def operation():
        one = socket.socket()
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            one.connect((VAULT4, PORT))
        try:
            one.sendto(b"x", FASTOPEN, (OTHER4, PORT))
        except OSError as error:
            if error.errno == EPERM:
                raise

    return as_dora(operation)


@denied(DORAS)
def multipath_send():
    return as_dora(lambda: connected(protocol=MPTCP).send(b"x"))


@denied(DORAS)
def datagram_connected_send():
    return as_dora(lambda: connected(kind=socket.SOCK_DGRAM).send(b"x"))


@denied(DORAS)
def datagram_connected_send_to_no_family():
    """An IPv6 datagram socket takes an address of no family for none."""
    return as_dora(lambda: send_to(connected(VAULT6, socket.SOCK_DGRAM), raw_sockaddr(0, OTHER6)))


@denied(DORAS)
def datagram_connected_splice():
    def operation():
        reader, writer = os.pipe()
        os.write(writer, b"x")
        os.splice(reader, connected(kind=socket.SOCK_DGRAM).fileno(), 1)

    return as_dora(operation)


@denied(DORAS)
def ping_send():
    def operation():
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)
        one.sendto(b"\x08\0\0\0\0\0\0\1", (VAULT4, 0))

    return as_dora(operation)


@denied(DORAS)
def raw_send():
    def operation():
        one = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
        os.setresuid(DORA, DORA, DORA)
        one.sendto(b"\x08\0\0\0\0\0\0\1", (VAULT4, 0))

    return in_child(operation)


@denied(DORAS)
def raw_connected_send_to_an_address_of_no_length():
    def operation():
        one = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
        one.connect((VAULT4, 0))
        os.setresuid(DORA, DORA, DORA)
        call("sendto", one.fileno(), b"\x08\0\0\0\0\0\0\1", 8, 0, raw_sockaddr(2, OTHER4), 0)

    return in_child(operation)


@denied(DORAS)
def raw_ipv6_send_to_no_family():
    def operation():
        one = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)
        os.setresuid(DORA, DORA, DORA)
        call("sendto", one.fileno(), b"\x80\0\0\0\0\0\0\1", 8, 0, raw_sockaddr(0, VAULT6, 0), 28)

    return in_child(operation)


@denied(DORAS)
def raw_send_with_headers_of_her_own():
    """The address of the call says nothing about that of the header."""

    def operation():
        one = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        os.setresuid(DORA, DORA, DORA)
        header = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 21, 0, 0, 64, 17, 0, socket.inet_aton(OTHER4), socket.inet_aton(VAULT4)
        )
        one.sendto(header + b"x", (OTHER4, 0))

    return in_child(operation)


@passes
def send_through_connections_elsewhere():
    def operation():
        for address in (OTHER4, OTHER6, "::ffff:" + OTHER4):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                connected(address, kind).send(b"x")
        connected(OTHER4, protocol=MPTCP).send(b"x")

    return as_dora(operation)


@passes
def answer_under_a_rule_on_sending():
    def operation():
        for protocol in (0, MPTCP):
            server = listening(protocol=protocol)
            for _ in range(2):
                accepted(server)[0].send(b"x")

    return as_dora(operation)


# ---- answering ----------------------------------------------------------------------------------------------------


@denied(ERICS)
def answer():
    return in_child(lambda: accepted(listening())[0].send(b"x"), user=ERIC)


@denied(ERICS)
def answer_ipv6():
    return in_child(lambda: accepted(listening(address="::"), VAULT6)[0].send(b"x"), user=ERIC)


@denied(ERICS)
def answer_multipath():
    return in_child(lambda: accepted(listening(protocol=MPTCP))[0].send(b"x"), user=ERIC)


@denied(ERICS)
def answer_by_splice():
    def operation():
        reader, writer = os.pipe()
        os.write(writer, b"x")
        os.splice(reader, accepted(listening())[0].fileno(), 1)

    return in_child(operation, user=ERIC)


@passes
def send_under_a_rule_on_answering():
    def operation():
        connected().send(b"x")
        connected(kind=socket.SOCK_DGRAM).send(b"x")
        accepted(listening(), OTHER4)[0].send(b"x")

    return in_child(operation, user=ERIC)


# ---- the run ------------------------------------------------------------------------------------------------------


def prepare():
    for command in ("sysctl -q -w net.ipv4.ping_group_range='0 65535'",):
        assert os.system(command) == 0, command
