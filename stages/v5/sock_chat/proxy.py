"""The PROXY protocol, versions 1 and 2: what a proxy that is trusted says of the client behind it.

Its header comes before anything else, before TLS, too. Who is trusted and sends none is a client
itself; one that waits for the server to speak, as clients of a chat do, is taken for such after
PATIENCE seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from sock_chat.connection import Connection, buffer
from sock_chat.limits import is_loopback, plain_address
from sock_chat.link import Reason

PATIENCE = 1.0
HEADER_TIME = 10.0  # seconds within which a header that has begun must be there
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LENGTH = 16  # bytes of a version 2 header before what its length counts
MAX_V1 = 107  # bytes
MAX_V2 = 2048  # bytes, of which addresses take a few dozen
LOCAL, PROXIED = 0x20, 0x21  # version and command
TCP4, TCP6 = 0x11, 0x21  # family and protocol
TYPE_SSL, CLIENT_SSL = 0x20, 0x01

Networks = Iterable[IPv4Network | IPv6Network]


class Malformed(Exception):
    """It begins like a header and is none."""


class Header(NamedTuple):
    """size: in bytes. client: address and port; None: the proxy itself. tls: how it came there."""

    size: int
    client: tuple[str, int] | None = None
    tls: bool = False


NO_HEADER = Header(0)


def parse(data: bytes) -> Header | None:
    """The header at the beginning of data. None: more of it has to come."""
    if data.startswith(SIGNATURE):
        return _parse_v2(data)
    if data.startswith(b"PROXY "):
        return _parse_v1(data)
    return None if SIGNATURE.startswith(data) or b"PROXY ".startswith(data) else NO_HEADER


def _parse_v1(data: bytes) -> Header | None:
    line, end, _ = data[:MAX_V1].partition(b"\r\n")
    if not end:
        if len(data) >= MAX_V1:
            raise Malformed
        return None
    size = len(line) + len(end)
    match line.decode("ascii", "replace").split(" "):
        case ["PROXY", "UNKNOWN", *_]:
            return Header(size)
        case ["PROXY", "TCP4" | "TCP6" as family, source, destination, port, other]:
            try:
                versions = {ip_address(text).version for text in (source, destination)}
                ports = [int(text) for text in (port, other) if text.isdigit()]
            except ValueError:
                raise Malformed from None
            if versions == {int(family[-1])} and len(ports) == 2 and max(ports) < 1 << 16:
                return Header(size, (str(ip_address(source)), ports[0]))
    raise Malformed


def _parse_v2(data: bytes) -> Header | None:
    if len(data) < LENGTH:
        return None
    command, family = data[12:14]
    size = LENGTH + int.from_bytes(data[14:16], "big")
    if command not in (LOCAL, PROXIED) or size > MAX_V2:
        raise Malformed
    if len(data) < size:
        return None
    rest = data[LENGTH:size]
    width = {TCP4: 4, TCP6: 16}.get(family)
    if command == LOCAL or width is None:
        return Header(size)
    if len(rest) < 2 * width + 4:
        raise Malformed
    address = str(ip_address(rest[:width]))
    port = int.from_bytes(rest[2 * width : 2 * width + 2], "big")
    return Header(size, (address, port), _by_tls(rest[2 * width + 4 :]))


def _by_tls(data: bytes) -> bool:
    """Whether one of the further fields says so: type, length in two bytes, value."""
    while len(data) >= 3:
        end = 3 + int.from_bytes(data[1:3], "big")
        if data[0] == TYPE_SSL:
            return end > 3 and len(data) >= end and bool(data[3] & CLIENT_SSL)
        data = data[end:]
    return False


def is_trusted(address: str, networks: Networks) -> bool:
    parsed = plain_address(address)
    return parsed is not None and any(parsed in network for network in networks)


class HeaderReader(asyncio.BufferedProtocol):
    """Has the transport of a connection until its header is there."""

    __slots__ = ("_connection", "_data", "_loop", "_timer")

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop):
        self._connection = connection
        self._data = b""
        self._loop = loop
        self._timer = loop.call_later(PATIENCE, self._go_on, NO_HEADER)

    def get_buffer(self, sizehint: int) -> bytearray:
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._data:
            self._timer.cancel()
            self._timer = self._loop.call_later(HEADER_TIME, self._refuse)
        self._data += memoryview(buffer)[:nbytes]
        try:
            header = parse(self._data)
        except Malformed:
            self._refuse()
        else:
            if header:
                self._go_on(header)

    def _go_on(self, header: Header) -> None:
        self._timer.cancel()
        connection, secure = self._connection, header.tls
        if header.client:
            connection.name, connection.address = str(header.client), header.client[0]
        connection.transport.set_protocol(connection)
        connection.come_in(secure or is_loopback(connection.address))
        if rest := self._data[header.size :]:
            connection.receive(rest, True)

    def _refuse(self) -> None:
        self._timer.cancel()
        self._connection.abort(Reason.BAD_HEADER)

    def connection_lost(self, error: Exception | None) -> None:
        self._timer.cancel()
        self._connection.connection_lost(error)
