# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of the network: ways to send over a socket, to answer, to serve, and to make sockets of other families."""

import collections
import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import select
import socket
import struct
import subprocess

from harness.checks import (
    ARRIVED,
    OTHER4,
    OTHER6,
    PORT,
    VAULT4,
    VAULT6,
    as_root,
    as_user,
    denied,
    denied_techniques,
    enforcer,
    passes,
    passes_technique,
    story,
)
from harness.process import ALICE, BOB, in_child, write
from harness.receiver import MPTCP, SCTP, Receiver
from harness.testbed import address_of
from techniques.network import FAST_OPEN, connection, listener, send_many, splice_from_pipe
from techniques.steps import gone
from techniques.syscalls import Ring, call, system

from checks.hooks import EPERM
from checks.policy import POLICY, SENDS, alice, expect, rule

DORA, ERIC, BEN, UMA, VERA = 1101, 1102, 1103, 1104, 1105
ODD = 2101  # a group of root's that makes no odd sockets
DORAS, ERICS, BENS, UMAS = "dora sends nothing", "eric answers nobody", "ben serves nothing", "uma talks to no agent"
MIRA = 1106
MIRAS = "mira sends to the vault and to groups"
NINA = 1107
NINAS = "nina sends to the vault alone"
ODDS, VERAS = "no odd sockets", "vera talks to no other machine"
CLOSED_PORT = 8081

POLICY["subjects"].update(
    dora={"users": [DORA]},
    eric={"users": [ERIC]},
    ben={"users": [BEN]},
    uma={"users": [UMA]},
    vera={"users": [VERA]},
    mira={"users": [MIRA]},
    nina={"users": [NINA]},
    odd={"groups": [ODD]},
)
POLICY["resources"]["agents"] = {
    "paths": ["/srv/agents/*.sock", "/srv/open/agent.sock", "/run/agent.sock"],
    "abstract_sockets": ["adversary-*", "agent-*", "/run/bus"],
}
POLICY["destinations"]["closed"] = {"ports": [CLOSED_PORT], "protocols": ["tcp", "udp", "sctp"]}
POLICY["destinations"]["groups"] = {"cidrs": ["224.0.0.0/4", "ff00::/8"]}
POLICY["destinations"]["machine"] = {"vsock": [f"1:{PORT}", f"1:{PORT + 2}"]}  # context id 1 is this machine itself
POLICY["rules"] += [
    rule(DORAS, ["send"], subjects=["dora"], destinations=["vault"]),
    rule(ERICS, ["reply"], subjects=["eric"], destinations=["vault"]),
    rule(BENS, ["bind", "listen", "accept"], subjects=["ben"], destinations=["closed"]),
    rule(MIRAS, ["send"], subjects=["mira"], destinations={"not": ["vault", "groups"]}),
    rule(NINAS, ["send"], subjects=["nina"], destinations={"not": ["vault"]}),
    rule(VERAS, ["vsock"], subjects=["vera"], destinations=["machine"]),
    rule(UMAS, ["unix-connect"], subjects=["uma"], resources=["agents"]),
    rule(
        ODDS,
        [
            "raw-socket",
            "packet-socket",
            "netlink-socket",
            "key-socket",
            "bluetooth-socket",
            "other-socket",
            "alg-socket",
            "kcm-socket",
            "rds-socket",
            "tipc-socket",
            "xdp-socket",
        ],
        subjects=["odd"],
    ),
]


denied_techniques(
    __name__,
    DORAS,
    as_user(DORA),
    stream_send="held_send",
    stream_write="held_socket_write",
    stream_sendfile="held_socket_sendfile",
    stream_splice="held_socket_splice",
    stream_send_of_urgent_data="held_out_of_band",
    fast_open_by_option="fast_open_connect",
    multipath_send="mptcp",
    datagram_connected_send="held_udp_send",
    datagram_connected_splice="held_udp_splice",
    ping_send="ping",
    sctp_send="sctp",
    uring_send="held_uring_send",
)
GROUPS = (
    "join_group_ipv4",
    "join_group_ipv6",
    "join_group_request",
    "join_group_request_ipv6",
    "join_ipv4_group_by_ipv6",
)
SOURCES = (
    "join_source_ipv4",
    "join_source_request_ipv4",
    "join_source_request_ipv6",
    "block_source_ipv4",
    "block_source_ipv6",
    "source_filter_ipv4",
    "source_filter_ipv6",
)
# whose rule leaves the vault out; whose rule leaves all groups out; whose rule names another machine alone
denied_techniques(
    __name__, NINAS, as_user(NINA), **{name: name for name in (*GROUPS, *SOURCES, "join_group_by_32_bits")}
)
denied_techniques(__name__, MIRAS, as_user(MIRA), **{name + "_of_one_who_joins": name for name in SOURCES})
for name in GROUPS:
    passes_technique(__name__, as_user(MIRA), name + "_allowed", name)
    passes_technique(__name__, as_user(DORA), name + "_elsewhere", name)
denied_techniques(__name__, ERICS, as_user(ERIC), answer="reply", answer_by_splice="reply_by_splice")
denied_techniques(
    __name__,
    UMAS,
    as_user(UMA),
    unix_stream="unix_stream",
    unix_stream_by_symlink="unix_by_symlink",
    unix_stream_by_descriptor="unix_by_descriptor",
    unix_stream_abstract="unix_abstract",
    unix_datagram="unix_datagram_sendto",
    unix_datagram_connected="unix_datagram",
    unix_socket_renamed_away="unix_by_rename",
)
denied_techniques(
    __name__,
    ODDS,
    as_root(ODD),
    netlink_socket="netlink_socket_family",
    alg_socket="alg_socket_family",
    rds_socket="rds_socket_family",
    tipc_socket="tipc_socket_family",
    xdp_socket="xdp_socket_family",
)
denied_techniques(
    __name__,
    SENDS,
    as_user(ALICE),
    sctp_connect="sctp",
    sctp_connect_to_several="sctp_connectx",
    sctp_send_that_connects="sctp_many",
    uring_connect="uring_connect",
)


def connected(address=VAULT4, kind=socket.SOCK_STREAM, protocol=0):
    return connection(address, PORT, kind, protocol)


def as_dora(operation, **more):
    return in_child(operation, user=DORA, **more)


def as_uma(operation, **more):
    return in_child(operation, user=UMA, **more)


def caller(server, source=VAULT4):
    """A client of a listener of ours, from an address that may not be sent to."""
    one = socket.socket(server.family, socket.SOCK_STREAM, server.proto)
    one.bind((source, 0))
    one.connect((source, server.getsockname()[1]))
    return one


def accepted(server, source=VAULT4):
    client = caller(server, source)
    return server.accept()[0], client


def address_at(family, address, port=PORT):
    """A raw address of ``family``, of the length that the address itself has."""
    return struct.pack("=H", family) + address_of(10 if ":" in address else 2, address, port)[2:]


def send_to(one, name):
    call("sendto", one.fileno(), b"x", 1, 0, name, len(name))


# ---- sending through a connection ---------------------------------------------------------------------------------


def send_messages(one, name, *controls):
    """Sends a message for each control message, or for None, by one call."""
    send_many(one, *((b"x", name, control) for control in controls))


@denied(DORAS)
def stream_send_many():
    return as_dora(lambda: send_messages(connected(), b"", None))


@denied(DORAS)
def stream_send_ipv6():
    return as_dora(lambda: connected(VAULT6).send(b"x"))


@denied(DORAS)
def stream_send_mapped():
    return as_dora(lambda: connected("::ffff:" + VAULT4).send(b"x"))


@denied(DORAS)
def stream_send_with_another_address():
    """A connected stream takes no notice of it."""
    return as_dora(lambda: send_to(connected(), address_at(2, OTHER4)))


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
        one, _client = accepted(listener())
        one.send(b"x")
        call("connect", one.fileno(), address_at(0, OTHER4), 16)
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
            one.sendto(b"x", FAST_OPEN, (OTHER4, PORT))
        except OSError as error:
            if error.errno == EPERM:
                raise

    return as_dora(operation)


@denied(DORAS)
def datagram_connected_send_to_no_family():
    """An IPv6 datagram socket takes an address of no family for none."""
    return as_dora(lambda: send_to(connected(VAULT6, socket.SOCK_DGRAM), address_at(0, OTHER6)))


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
        call("sendto", one.fileno(), b"\x08\0\0\0\0\0\0\1", 8, 0, address_at(2, OTHER4), 0)

    return in_child(operation)


@denied(DORAS)
def raw_ipv6_send_to_no_family():
    def operation():
        one = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)
        os.setresuid(DORA, DORA, DORA)
        call("sendto", one.fileno(), b"\x80\0\0\0\0\0\0\1", 8, 0, address_at(0, VAULT6, 0), 28)

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
            server = listener(protocol=protocol)
            for _ in range(2):
                accepted(server)[0].send(b"x")

    return as_dora(operation)


# ---- answering ----------------------------------------------------------------------------------------------------


@denied(ERICS)
def answer_ipv6():
    return in_child(lambda: accepted(listener(address="::"), VAULT6)[0].send(b"x"), user=ERIC)


@denied(ERICS)
def answer_multipath():
    return in_child(lambda: accepted(listener(protocol=MPTCP))[0].send(b"x"), user=ERIC)


@passes
def send_under_a_rule_on_answering():
    def operation():
        connected().send(b"x")
        connected(kind=socket.SOCK_DGRAM).send(b"x")
        accepted(listener(), OTHER4)[0].send(b"x")

    return in_child(operation, user=ERIC)


# ---- the socket's own address -------------------------------------------------------------------------------------


def as_ben(operation, **more):
    return in_child(operation, user=BEN, **more)


@denied(BENS)
def bind_stream():
    return as_ben(lambda: socket.socket().bind(("127.0.0.1", CLOSED_PORT)))


@denied(BENS)
def bind_stream_to_every_address():
    return as_ben(lambda: socket.socket(socket.AF_INET6).bind(("::", CLOSED_PORT)))


@denied(BENS)
def bind_datagram():
    return as_ben(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.0.0.1", CLOSED_PORT)))


@denied(BENS)
def bind_without_a_family():
    def operation():
        one = socket.socket()
        call("bind", one.fileno(), struct.pack("=H", 0) + struct.pack("!H", CLOSED_PORT) + bytes(12), 16)

    return as_ben(operation)


@denied(BENS)
def bind_multipath():
    return as_ben(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP).bind(("127.0.0.1", CLOSED_PORT)))


def bound_by_root():
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", CLOSED_PORT))
    return one


@denied(BENS)
def listen_on_what_another_bound():
    def operation():
        one = bound_by_root()
        os.setresuid(BEN, BEN, BEN)
        one.listen()

    return in_child(operation)


@denied(BENS)
def accept_what_another_listens_for():
    def operation():
        one = bound_by_root()
        one.listen()
        client = socket.create_connection(("127.0.0.1", CLOSED_PORT))
        os.setresuid(BEN, BEN, BEN)
        one.accept()[0].send(b"x")
        client.close()

    return in_child(operation)


@passes
def serve_on_another_port():
    def operation():
        accepted(listener())[0].send(b"x")
        accepted(listener(address="::"), VAULT6)[0].send(b"x")
        socket.socket().listen()

    return as_ben(operation)


# ---- unix sockets -------------------------------------------------------------------------------------------------


def unix_connect(kind, name):
    def operation():
        with socket.socket(socket.AF_UNIX, kind) as one:
            one.connect(name)
            one.send(b"x")

    return as_uma(operation)


@denied(UMAS)
def unix_stream_on_tmpfs():
    return unix_connect(socket.SOCK_STREAM, "/run/agent.sock")


@denied(UMAS)
def unix_stream_by_proc():
    return unix_connect(socket.SOCK_STREAM, "/proc/self/root/srv/open/agent.sock")


@denied(UMAS)
def unix_stream_abstract_with_zeros_behind():
    return unix_connect(socket.SOCK_STREAM, b"\0agent-zeros" + bytes(96))


@denied(UMAS)
def unix_seqpacket_abstract_with_a_slash():
    return unix_connect(socket.SOCK_SEQPACKET, b"\0/run/bus")


@passes
def other_unix_sockets():
    def operation():
        for kind, name in (
            (socket.SOCK_STREAM, "/srv/open/free.sock"),
            (socket.SOCK_STREAM, b"\0other"),
            (socket.SOCK_STREAM, b"\0run/bus"),
        ):
            with socket.socket(socket.AF_UNIX, kind) as one:
                one.connect(name)
                one.send(b"x")
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            one, other = socket.socketpair(socket.AF_UNIX, kind)
            one.send(b"x")
            other.send(b"x")

    return as_uma(operation)


# ---- sockets as such ----------------------------------------------------------------------------------------------


def as_odd(operation):
    return in_child(operation, before=lambda: os.setgroups([ODD]))


def making(family, kind, protocol=0):
    return as_odd(lambda: socket.socket(family, kind, protocol).close())


@denied(ODDS)
def raw_ipv4_socket():
    return making(socket.AF_INET, socket.SOCK_RAW, 1)


@denied(ODDS)
def raw_ipv6_socket():
    return making(socket.AF_INET6, socket.SOCK_RAW, 58)


@denied(ODDS)
def packet_socket():
    return making(socket.AF_PACKET, socket.SOCK_RAW, 0x300)


@denied(ODDS)
def packet_socket_the_old_way():
    return making(socket.AF_INET, 10, 0x300)  # SOCK_PACKET


@denied(ODDS)
def key_socket():
    return making(socket.AF_KEY, socket.SOCK_RAW, 2)


@denied(ODDS)
def kcm_socket():
    return making(41, socket.SOCK_DGRAM)


@passes
def ordinary_sockets():
    def operation():
        for family in (socket.AF_INET, socket.AF_INET6):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                socket.socket(family, kind).close()
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP).close()
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1).close()
        for one in socket.socketpair():
            one.close()

    return as_odd(operation)


# ---- source routes ------------------------------------------------------------------------------------------------

ROUTE4 = b"\x83\x07\x04" + socket.inet_aton(OTHER4) + b"\0"  # loose, by way of one router
ROUTE6 = struct.pack("!BBBBI", 0, 2, 2, 1, 0) + socket.inet_pton(socket.AF_INET6, OTHER6)  # type 2: one address


def become_privileged():
    """As alice, too, but with root's capabilities: newer kernels want one for a source route."""
    os.setresuid(0, 0, ALICE)


def privileged(operation):
    return in_child(operation, before=become_privileged)


denied_techniques(
    __name__,
    SENDS,
    become_privileged,
    source_route_by_option="source_route_option",
    routing_header_by_option="routing_header_option",
    source_route_with_the_message="source_route_message",
    routing_header_with_the_message="routing_header_message",
)


def set_option(family, level, name, value):
    def operation():
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.setsockopt(level, name, value)

    return privileged(operation)


@denied(SENDS)
def routing_header_by_packet_options():
    return set_option(socket.AF_INET6, 41, 6, b"")  # IPV6_2292PKTOPTIONS


@denied(SENDS)
def source_route_with_a_later_message():
    """The kernel asks once for messages to one address that are sent by one call."""

    def operation():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            send_messages(one, address_at(2, OTHER4), None, (0, 7, ROUTE4))

    return privileged(operation)


@denied(SENDS)
def routing_header_with_a_later_message():
    def operation():
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
            send_messages(one, address_at(10, OTHER6), None, None, (41, 57, ROUTE6))

    return privileged(operation)


@passes
def many_messages():
    def operation():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            send_messages(one, address_at(2, OTHER4), None)
        send_messages(connected(OTHER4), b"", None, None)

    return alice(operation) or in_child(
        lambda: send_messages(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), address_at(2, VAULT4), None, None),
        user=BOB,
    )


@denied(DORAS)
def sctp_messages_to_all_with_a_later_one():
    """SCTP_SENDALL: to whoever the socket has an association with"""

    def operation():
        with socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET, SCTP) as one:
            one.connect((OTHER4, PORT))
            send_messages(one, address_at(2, OTHER4), None, (SCTP, 2, struct.pack("=HHIII", 0, 0x40, 0, 0, 0)))

    return as_dora(operation)


@denied(SENDS)
def source_route_that_somebody_else_set():
    def operation():
        one = socket.socket()
        one.settimeout(2)  # that route leads nowhere: nobody answers
        one.setsockopt(0, 4, ROUTE4)
        os.setresuid(1001, 1001, 1001)
        try:
            one.connect((OTHER4, PORT))
        except OSError as error:
            if error.errno == EPERM:
                raise

    return in_child(operation)


@denied(SENDS)
def routing_header_that_somebody_else_set():
    def operation():
        one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        one.setsockopt(41, 57, ROUTE6)
        os.setresuid(1001, 1001, 1001)
        one.sendto(b"x", (OTHER6, PORT))

    return in_child(operation)


@denied(SENDS)
def headers_of_her_own_by_option():
    def operation():
        one = socket.socket(socket.AF_INET, socket.SOCK_RAW, 17)
        os.setresuid(1001, 1001, 1001)
        one.setsockopt(0, 3, 1)  # IP_HDRINCL

    return in_child(operation)


@passes
def other_options_and_messages():
    def operation():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.setsockopt(0, 1, 16)  # IP_TOS
            one.sendmsg([b"x"], [(0, 1, struct.pack("=i", 16))], 0, (OTHER4, PORT))

    return alice(operation)


# ---- vsock --------------------------------------------------------------------------------------------------------


def vsock(port, kind=socket.SOCK_STREAM):
    def operation():
        with socket.socket(socket.AF_VSOCK, kind) as one:
            one.connect((1, port))
            one.send(b"x")

    return in_child(operation, user=VERA)


@denied(VERAS)
def vsock_stream():
    return vsock(PORT)


@denied(VERAS)
def vsock_seqpacket():
    return vsock(PORT + 2, socket.SOCK_SEQPACKET)


@denied(VERAS)
def vsock_send_through_somebody_elses_connection():
    def operation():
        one = socket.socket(socket.AF_VSOCK)
        one.connect((1, PORT))
        os.setresuid(VERA, VERA, VERA)
        one.send(b"x")

    return in_child(operation)


@passes
def vsock_to_another_port():
    return vsock(PORT + 1)


# ---- SCTP ---------------------------------------------------------------------------------------------------------


@denied(BENS)
def sctp_bind_several():
    def operation():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP) as one:
            one.setsockopt(SCTP, 100, address_at(2, "127.0.0.1", CLOSED_PORT))  # BINDX_ADD

    return as_ben(operation)


@denied(ERICS)
def sctp_answer():
    def operation():
        one, _client = accepted(listener(protocol=SCTP))
        one.send(b"x")

    return in_child(operation, user=ERIC)


@passes
def sctp_answer_under_a_rule_on_sending():
    def operation():
        one, _client = accepted(listener(protocol=SCTP))
        one.send(b"x")

    return as_dora(operation)


@passes
def sctp_elsewhere():
    return as_dora(lambda: connected(OTHER4, protocol=SCTP).send(b"x"))


# ---- io_uring -----------------------------------------------------------------------------------------------------


def uring(*steps, address, entry_flags):
    """A connection to ``address`` and a send through it: what is among ``steps`` by an io_uring, the rest by plain calls."""

    def operation():
        with socket.socket() as one:
            name = address_of(socket.AF_INET, address, PORT)
            if "connect" in steps:
                Ring().do(Ring.CONNECT, one.fileno(), name, 0, len(name), entry_flags=entry_flags)
            else:
                one.connect((address, PORT))
            if "send" in steps:
                Ring().do(Ring.SEND, one.fileno(), b"x", 1, entry_flags=entry_flags)

    return operation


@denied(SENDS)
def uring_connect_by_a_worker():
    return alice(uring("connect", address=VAULT4, entry_flags=Ring.ASYNC))


@denied(DORAS)
def uring_send_by_a_worker():
    return as_dora(uring("send", address=VAULT4, entry_flags=Ring.ASYNC))


@passes
def uring_elsewhere():
    def operation():
        for step in ("connect", "send"):
            for entry_flags in (0, Ring.ASYNC):
                uring(step, address=OTHER4, entry_flags=entry_flags)()

    return as_dora(operation)


# ---- stories ------------------------------------------------------------------------------------------------------


def nothing_sent(*actions):
    """Nobody may send to the vault."""
    return {
        "destinations": {"vault": POLICY["destinations"]["vault"]},
        "rules": [rule("nobody sends to the vault", list(actions or ("send",)), destinations=["vault"])],
    }


NOTHING = {
    "subjects": {"bob": {"users": ["bob"]}},
    "rules": [rule("bob makes none", ["user-namespace"], subjects=["bob"])],
}


def outcome(operation):
    try:
        operation()
    except OSError as error:
        return error.errno
    return 0


@story
def sending_after_the_policy_has_changed():
    enforcer.apply(NOTHING)
    stream, datagram, elsewhere = connected(), connected(VAULT6, socket.SOCK_DGRAM), connected(OTHER4)
    machine = socket.socket(socket.AF_VSOCK)
    machine.connect((1, PORT))
    unix = socket.socket(socket.AF_UNIX)
    unix.connect("/srv/open/agent.sock")
    for one in (stream, datagram, elsewhere, machine, unix):
        one.send(b"x")
    document = nothing_sent()
    document["resources"] = {"agents": POLICY["resources"]["agents"]}
    document["destinations"]["machine"] = POLICY["destinations"]["machine"]
    document["rules"].append(rule("nobody talks to the machine", ["vsock"], destinations=["machine"]))
    document["rules"].append(rule("nobody talks to an agent", ["unix-connect"], resources=["agents"]))
    enforcer.apply(document)
    expect(outcome(lambda: stream.send(b"x")), EPERM, "the stream")
    expect(outcome(lambda: splice_from_pipe(stream)), EPERM, "splice into the stream")
    expect(outcome(lambda: datagram.send(b"x")), EPERM, "the datagram socket")
    expect(outcome(lambda: machine.send(b"x")), EPERM, "the vsock stream")
    expect(outcome(lambda: unix.send(b"x")), EPERM, "the unix stream")
    expect(outcome(lambda: splice_from_pipe(unix)), EPERM, "splice into the unix stream")
    expect(outcome(lambda: elsewhere.send(b"x")), 0, "a stream to elsewhere")


@story
def connections_older_than_the_enforcer():
    """What was accepted before goes on being answered, also from a listener that was there before; what was connected
    before does not go on sending."""
    enforcer.remove()
    servers = [listener(), listener(address="::"), listener(protocol=MPTCP), listener(reuse=True)]
    pairs = [accepted(server, VAULT6 if server.family == socket.AF_INET6 else VAULT4) for server in servers]
    sending = [connected(), connected(protocol=MPTCP)]
    queued = caller(servers[0])  # not accepted yet
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # inside accept(2) when the policy comes
        os.write(ready[1], b"r")
        one = servers[1].accept()[0]
        os.write(done[1], bytes([outcome(lambda: one.send(b"x"))]))
        os._exit(0)
    os.read(ready[0], 1)
    enforcer.install()
    enforcer.apply(nothing_sent())
    for turn, (one, _client) in enumerate(pairs):
        expect(outcome(functools.partial(one.send, b"x")), 0, f"accepted before, {turn}")
    for turn, one in enumerate(sending):
        expect(outcome(functools.partial(one.send, b"x")), EPERM, f"connected before, {turn}")
    late = caller(servers[1], VAULT6)
    expect(os.read(done[0], 1), b"\0", "accepted by a call from before")
    os.waitpid(child, 0)
    for server in servers:
        source = VAULT6 if server.family == socket.AF_INET6 else VAULT4
        for turn in range(2):
            pairs.append(accepted(server, source))
            expect(outcome(functools.partial(pairs[-1][0].send, b"x")), 0, f"accepted after, {turn}")
    with contextlib.suppress(OSError):
        sending[0].listen()
        servers[0].accept()
    expect(outcome(lambda: sending[0].send(b"x")), EPERM, "connected before, having tried to listen")
    # a port that was listened on before is no way to pass for an answer
    port = servers[3].getsockname()[1]
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(("0.0.0.0", port))
    one.connect((VAULT4, PORT))
    expect(outcome(lambda: one.send(b"x")), EPERM, "from a port that was listened on")
    queued.close()
    late.close()


def kinds_of(family):
    """The errors of making such a socket in every way, none when one was made."""
    errors = set()
    for kind, protocol in ((1, 0), (2, 0), (5, 0), (3, 0), (4, 0), (3, 2), (3, 1)):
        try:
            socket.socket(family, kind, protocol).close()
            return set()
        except OSError as error:
            errors.add(error.errno)
    return errors


def families_refused(families):
    """By name; the kernel's own answers are that it has no such family, or no such kind of it."""
    refused = set()
    for name, number in families.items():
        errors = kinds_of(number)
        if EPERM in errors:
            refused.add(name)
        else:
            expect(
                errors - {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EINVAL}, set(), name
            )
    return refused


@story
def every_family_by_its_name():
    """Also where the kernel has none of it: refused before the kernel says so."""
    from exfil_guard.policy import actions

    families = {name: number for name, number in actions.FAMILIES.items() if name not in ("unix", "ipv4", "ipv6")}
    enforcer.apply(NOTHING)
    expect(as_odd(lambda: expect(families_refused(families), set(), "without the rules")), 0, "without the rules")
    enforcer.apply(
        {
            "subjects": {"odd": {"groups": [ODD]}},
            "rules": [rule(name, [name + "-socket"], subjects=["odd"]) for name in families],
        }
    )
    expect(as_odd(lambda: expect(families_refused(families), set(families), "with them")), 0, "with them")
    uncounted = {name for name in families if not enforcer.counter(name)[0]}
    expect(uncounted, set(), "refused by another rule")


SMC, SMC_OF_INTERNET = 43, 256  # a family, and from 6.11 on a protocol of IPv4 and IPv6, too


@story
def smc_is_tcp():
    """It falls back to that where there is no such device, which is to say here."""
    enforcer.apply(NOTHING)
    made = []
    for family, protocol in ((SMC, 0), (socket.AF_INET, SMC_OF_INTERNET)):
        with contextlib.suppress(OSError):
            socket.socket(family, socket.SOCK_STREAM, protocol).close()
            made.append((family, protocol))
    with open("/proc/modules", encoding="ascii") as file:
        there = any(line.startswith("smc ") for line in file)
    expect(bool(made), there, "can be made")

    def connecting(family, protocol, address):
        one = socket.socket(family, socket.SOCK_STREAM, protocol)
        call("connect", one.fileno(), address_at(2, address), 16)
        return one

    older = [connecting(*each, VAULT4) for each in made]
    for one in older:
        one.send(b"x")
    enforcer.apply(
        {
            "destinations": {"vault": {"cidrs": [VAULT4 + "/32"], "protocols": ["tcp"]}},
            "rules": [rule("nobody connects or sends to the vault", ["connect", "send"], destinations=["vault"])],
        }
    )
    for each, one in zip(made, older):
        expect(outcome(functools.partial(connecting, *each, VAULT4)), EPERM, f"{each} connects to the vault")
        expect(outcome(functools.partial(connecting, *each, OTHER4)), 0, f"{each} connects elsewhere")
        expect(outcome(functools.partial(one.send, b"x")), EPERM, f"{each} sends through an older connection")
        routed = functools.partial(socket.socket(each[0], socket.SOCK_STREAM, each[1]).setsockopt, 0, 4, ROUTE4)
        expect(outcome(routed), EPERM, f"{each} takes a route")


KCM, SIOCKCMATTACH, PROG_LOAD = 41, 0x89E0, 5


def parser():
    """A socket filter for KCM: every message is a byte long."""
    code = ctypes.create_string_buffer(struct.pack("=BBhi", 0xB7, 0, 0, 1) + struct.pack("=BBhi", 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("=IIQQIIQII", 1, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0)
    return system("bpf", PROG_LOAD, attributes, len(attributes))


@story
def sending_by_a_family_on_top_of_the_internet():
    """A connection below a KCM socket is known to that alone, and so is where RDS sends to."""
    enforcer.apply(NOTHING)
    below, program = connected(), parser()
    kcm = socket.socket(KCM, socket.SOCK_DGRAM)
    fcntl.ioctl(kcm, SIOCKCMATTACH, struct.pack("=ii", below.fileno(), program))
    rds = socket.socket(socket.AF_RDS, socket.SOCK_SEQPACKET)
    elsewhere = address_at(2, OTHER4)
    expect(outcome(lambda: kcm.send(b"x")), 0, "KCM without the rule")
    expect(outcome(lambda: splice_from_pipe(kcm)), 0, "KCM without the rule, spliced")
    expect(outcome(lambda: send_to(kcm, elsewhere)), 0, "KCM without the rule, with an address")
    expect(outcome(lambda: send_to(rds, elsewhere)), errno.ENOTCONN, "RDS without the rule: it has no device here")
    enforcer.apply(nothing_sent())
    expect(outcome(lambda: kcm.send(b"x")), EPERM, "KCM")
    expect(outcome(lambda: splice_from_pipe(kcm)), EPERM, "KCM, spliced")
    expect(outcome(lambda: send_to(kcm, elsewhere)), EPERM, "KCM with an address that may be")
    expect(outcome(lambda: send_to(rds, elsewhere)), EPERM, "RDS")


def refreshed():
    """What the timer runs."""
    done = subprocess.run(
        ["/usr/bin/python3", "-c", "from exfil_guard import cli; raise SystemExit(cli.main(['refresh']))"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.decode()


@story
def host_names():
    """A rule on a name follows it from one address to another, and keeps the last ones while it is not found."""

    def tried():
        return [
            in_child(functools.partial(connected, address), user=BOB) for address in (VAULT4, VAULT6, OTHER4, OTHER6)
        ]

    def named(*addresses):
        write("/etc/hosts", "127.0.0.1 localhost\n" + "".join(f"{each} vault.example\n" for each in addresses))

    try:
        write("/etc/host.conf", "multi on\n")  # as Debian has it: all of a name's lines count
        named(VAULT4, VAULT6)
        enforcer.apply(NOTHING)
        expect(tried(), [0, 0, 0, 0], "without the rule")
        document = {
            "destinations": {"vault": {"names": ["vault.example"]}},
            "rules": [rule("nobody connects to the vault", ["connect"], destinations=["vault"])],
        }
        enforcer.apply(document)
        expect(tried(), [EPERM, EPERM, 0, 0], "as it was resolved at the apply")
        said = refreshed()
        assert "is up to date" in said, said
        named(OTHER4, VAULT6)
        expect(tried(), [EPERM, EPERM, 0, 0], "before the refresh")
        said = refreshed()
        assert "means something else on this host now" in said, said
        expect(tried(), [0, EPERM, EPERM, 0], "after the refresh")
        named()
        said = refreshed()
        assert "is up to date" in said, said
        expect(tried(), [0, EPERM, EPERM, 0], "while the name is not found")
        named(OTHER6)
        assert enforcer.apply(document)["changed"]
        expect(tried(), [0, 0, 0, EPERM], "after another apply")
    finally:
        gone("/etc/hosts", "/etc/host.conf")


@story
def events_of_the_network():
    enforcer.apply(POLICY)
    enforcer.events()
    unix_connect(socket.SOCK_STREAM, "/srv/open/agent.sock")
    unix_connect(socket.SOCK_STREAM, b"\0agent-1")
    in_child(lambda: accepted(listener())[0].send(b"x"), user=ERIC)
    set_option(socket.AF_INET, 0, 4, ROUTE4)
    path, name, answered, routed = enforcer.events()
    expect((path.action, path.path, path.rule), (9, "/open/agent.sock", UMAS), "the event of a path")
    expect((name.action, name.path, name.device), (9, "/agent-1", 0xFFFFFFFF), "the event of an abstract name")
    expect(
        (answered.action, answered.family, answered.protocol, answered.address[:4]),
        (5, 2, 6, socket.inet_aton(VAULT4)),
        "the event of an answer",
    )
    expect((routed.action, routed.reason, routed.rule), (3, 6, SENDS), "the event of a source route")


# ---- who is talked to ------------------------------------------------------------------------------------------------------


def serve():
    """Sockets for others to talk to; they live as long as this process."""
    held = []
    for kind, name in (
        (socket.SOCK_STREAM, "/srv/open/agent.sock"),
        (socket.SOCK_STREAM, "/srv/open/free.sock"),
        (socket.SOCK_STREAM, "/run/agent.sock"),
        (socket.SOCK_STREAM, b"\0agent-1"),
        (socket.SOCK_STREAM, b"\0agent-zeros" + bytes(96)),
        (socket.SOCK_STREAM, b"\0other"),
        (socket.SOCK_STREAM, b"\0run/bus"),
        (socket.SOCK_SEQPACKET, b"\0/run/bus"),
    ):
        one = socket.socket(socket.AF_UNIX, kind)
        one.bind(name)
        if isinstance(name, str):
            os.chmod(name, 0o777)
        one.listen(1024)
        held.append(one)
    for port, kind in ((PORT, socket.SOCK_STREAM), (PORT + 1, socket.SOCK_STREAM), (PORT + 2, socket.SOCK_SEQPACKET)):
        one = socket.socket(socket.AF_VSOCK, kind)
        one.bind((socket.VMADDR_CID_ANY, port))
        one.listen(16)
        held.append(one)
    receiver = Receiver(ARRIVED, [[VAULT4, OTHER4], [VAULT6, OTHER6]], [OTHER4, OTHER6], [PORT])
    reader, writer = os.pipe()
    if os.fork() == 0:
        receiver.run(sniff=False)
        os.write(writer, b"x")
        lately = collections.deque(maxlen=64)  # closing with unread bytes would break the connection
        while True:
            for one in select.select(held, [], [])[0]:
                lately.append(one.accept())
    assert os.read(reader, 1) == b"x", "the receiver does not come up"


def prepare():
    write("/proc/sys/net/ipv4/ping_group_range", "0 65535")
    for address in (VAULT4 + "/32", OTHER4 + "/32", VAULT6 + "/128", OTHER6 + "/128"):
        assert os.system(f"ip addr add {address} dev lo") == 0, address
    for folder in (ARRIVED, "/srv/agents"):
        os.makedirs(folder)
        os.chmod(folder, 0o777)
    serve()
