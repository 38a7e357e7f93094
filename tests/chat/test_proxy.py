"""The PROXY protocol: headers, whole, in pieces and spoiled, and what the server makes of them."""

from __future__ import annotations

import random
import socket
from ipaddress import ip_address

import pytest

from benchmarks.harness.server import Server
from sock_chat.proxy import MAX_V2, NO_HEADER, SIGNATURE, Header, Malformed, parse
from tests.chat.conftest import QUESTION, Guest, Serve
from tests.support.wire import Peer

ADDRESS = "192.0.2.7"


def v1(address: str = ADDRESS, port: int = 40000) -> bytes:
    family = f"TCP{ip_address(address).version}"
    other = "::1" if ":" in address else "127.0.0.1"
    return f"PROXY {family} {address} {other} {port} 8080\r\n".encode()


def v2(
    address: str = ADDRESS, *, command: int = 0x21, fields: bytes = b"", tls: bool = False
) -> bytes:
    packed = ip_address(address).packed
    rest = packed + packed + (40000).to_bytes(2, "big") + (8080).to_bytes(2, "big") + fields
    if tls:
        rest += b"\x20\0\x05" + b"\x01" + bytes(4)
    family = 0x11 if len(packed) == 4 else 0x21
    return SIGNATURE + bytes([command, family]) + len(rest).to_bytes(2, "big") + rest


HEADERS = {
    v1(): Header(len(v1()), (ADDRESS, 40000)),
    v1("2001:db8::1"): Header(len(v1("2001:db8::1")), ("2001:db8::1", 40000)),
    b"PROXY UNKNOWN\r\n": Header(15),
    b"PROXY UNKNOWN a b 1 2\r\n": Header(23),
    v2(): Header(28, (ADDRESS, 40000)),
    v2("2001:db8::1"): Header(52, ("2001:db8::1", 40000)),
    v2(fields=b"\x01\0\x02h2"): Header(33, (ADDRESS, 40000)),
    v2(tls=True, fields=b"\x01\0\x02h2"): Header(41, (ADDRESS, 40000), tls=True),
    v2(command=0x20): Header(28),
    SIGNATURE + b"\x21\x31\0\0": Header(16),
}


@pytest.mark.parametrize(("data", "header"), HEADERS.items(), ids=range(len(HEADERS)))
def test_a_header_whole_and_in_pieces(data: bytes, header: Header) -> None:
    assert parse(data + b"ana\n") == header
    for end in range(len(data)):
        assert parse(data[:end]) is None


@pytest.mark.parametrize("data", [b"ana\n", b"PRO\n", b"\r\n\r\nana", b"\xff"])
def test_what_is_no_header(data: bytes) -> None:
    assert parse(data) is NO_HEADER


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY \r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 ² 2\r\n".encode(),
        b"PROXY TCP4 " + b"1" * 100, SIGNATURE + b"\x11\x11\0\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\0\x0b" + bytes(11),
        SIGNATURE + b"\x21\x11" + (MAX_V2).to_bytes(2, "big"),
    ],
)  # fmt: skip
def test_a_malformed_header(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse(data)


def test_soup_of_headers() -> None:
    chance = random.Random(1)
    for data in [*HEADERS] * 200:
        soup = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            soup[chance.randrange(len(soup))] = chance.randrange(256)
        try:
            header = parse(bytes(soup))
        except Malformed:
            continue
        assert header is None or header.size <= len(soup)


@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.long)])
def server(request: pytest.FixtureRequest, serve: Serve) -> Server:
    return serve("--trust-proxy", "127.0.0.0/8", "--per-address", "2", "--loop", request.param)


def visit(server: Server, header: bytes, *lines: str) -> Peer:
    peer = Peer(server.address)
    peer.send(header + "".join(f"{line}\n" for line in lines).encode())
    return peer


@pytest.mark.parametrize("header", [v1(), v2()], ids=["v1", "v2"])
def test_the_client_behind_a_proxy(server: Server, header: bytes) -> None:
    peer = visit(server, header, "ana", "/register correct horse")
    assert [peer.line() for _ in range(3)] == [
        QUESTION, "* Hola, ana. En general: ana.", "* Solo por TLS.",
    ]  # fmt: skip
    server.log.wait(f"Cliente conectado: ('{ADDRESS}', 40000)".__eq__)


def test_who_comes_to_the_proxy_by_tls_may_say_a_password(server: Server) -> None:
    peer = visit(server, v2(tls=True), "ana", "/register correct horse")
    assert [peer.line() for _ in range(3)] == [
        QUESTION, "* Hola, ana. En general: ana.", "* El apodo ana es tuyo.",
    ]  # fmt: skip


def test_bans_go_by_the_client_behind_the_proxy(serve: Serve) -> None:
    server = serve("--trust-proxy", "127.0.0.1", "--operator", "op")
    op = Guest(server, "op")
    op.say("/register correct horse", f"/ban {ADDRESS}")
    op.lines("* El apodo op es tuyo.", f"* Prohibidos: {ADDRESS} (60 min)")
    assert visit(server, v2()).rest().decode() == "* Tienes prohibida la entrada.\n"
    assert visit(server, v2("192.0.2.8")).line() == QUESTION


def test_limits_go_by_the_client_behind_the_proxy(server: Server) -> None:
    peers = [visit(server, v1()), visit(server, v2())]
    for peer in peers:
        assert peer.line() == QUESTION
    third = visit(server, v1())
    assert third.rest().decode() == "* Demasiadas conexiones desde tu dirección.\n"
    server.log.wait(lambda line: line.endswith(" (demasiadas conexiones)"))
    assert visit(server, v1("192.0.2.8")).line() == QUESTION
    assert visit(server, v1("127.0.0.1")).line() == QUESTION, "loopback is exempt"
    peers[0].close()
    server.log.wait(f"Cliente desconectado: ('{ADDRESS}', 40000)".__eq__)
    assert visit(server, v1()).line() == QUESTION
    assert visit(server, v1("2001:db8::1")).line() == QUESTION
    assert visit(server, v1("2001:db8::2")).line() == QUESTION
    assert visit(server, v1("2001:db8::3")).line().startswith("* Demasiadas")


def test_a_client_that_sends_no_header_is_itself(server: Server) -> None:
    assert Guest(server, "ana"), "it waits for the server to speak"
    assert visit(server, b"", "bea").line() == QUESTION


def test_a_header_in_pieces(server: Server) -> None:
    peer = Peer(server.address)
    for byte in v2():
        peer.send(bytes([byte]))
    assert peer.line() == QUESTION
    peer.say("ana")
    assert peer.line() == "* Hola, ana. En general: ana."


def test_a_malformed_header_ends_the_connection(server: Server) -> None:
    peer = visit(server, b"PROXY TCP4 nonsense\r\n", "ana")
    assert peer.rest() == b""
    server.log.wait(f"Cliente rechazado: {peer.name} (cabecera PROXY mal formada)".__eq__)
    with socket.create_connection(server.address):
        pass


def test_who_is_not_trusted_is_not_believed(serve: Serve) -> None:
    server = serve("--trust-proxy", "192.0.2.0/24")
    peer = visit(server, v1())
    assert peer.line() == QUESTION
    assert peer.line().startswith("* Apodo no válido")
