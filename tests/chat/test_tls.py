"""Lines over TLS."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.harness.process import DEADLINE, wait_until
from benchmarks.harness.server import Server
from tests.chat.certificates import Certificates, TlsGuest, tls_address
from tests.chat.conftest import QUESTION, Guest, Serve
from tests.chat.test_proxy import v2
from tests.support.wire import PROMPTLY, Peer

HANDSHAKE = 10.0


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.long)])
def server(request: pytest.FixtureRequest, serve: Serve, certificates: Certificates) -> Server:
    return serve(*certificates.options, "--loop", request.param)


def test_two_ports_one_room(server: Server, certificates: Certificates) -> None:
    ready = server.log.all()
    starts = [line.partition("//")[0].partition(" (")[0] for line in ready]
    assert starts == ["TLS en", "Web en https:", "Servidor chat iniciado en"]
    ana, bea = Guest(server, "ana"), TlsGuest(server, certificates, "bea")
    assert ana.line() == "* bea ha entrado."
    bea.say("hola", "x" * 4096, *map(str, range(5000)))
    for text in ["hola", "x" * 4096, *map(str, range(5000))]:
        assert ana.line() == f"bea dice: {text}"
    ana.say(*["y" * 4000] * 50)
    for _ in range(50):
        assert bea.line() == "ana dice: " + "y" * 4000
    bea.say("/quit")
    assert bea.rest() == b"", "a close_notify, or Python would raise SSLEOFError"
    assert ana.line() == "* bea ha salido."


def test_a_silent_peer_is_in_nobodys_way_and_ends(serve: Serve, certificates: Certificates) -> None:
    server = serve(*certificates.options)
    begun = time.monotonic()
    silent = [Peer(tls_address(server)) for _ in range(20)]
    ana = TlsGuest(server, certificates, "ana")
    ana.say("/list")
    assert ana.line(within=PROMPTLY) == "* En general (1): ana"
    for peer in silent:
        assert peer.rest(within=DEADLINE) == b""
        server.log.wait(f"Cliente rechazado: {peer.name} (sin TLS)".__eq__)
    assert time.monotonic() - begun > HANDSHAKE - 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"ana\n", marks=pytest.mark.long),  # too short to be wrong: HANDSHAKE decides
        b"\x16\x03\x01\xff\xff" + b"x" * 20_000,
        b"GET / \r\n",
    ],
)
def test_garbage(server: Server, certificates: Certificates, data: bytes) -> None:
    peer = Peer(tls_address(server))
    peer.send(data)
    peer.rest()
    server.log.wait(f"Cliente rechazado: {peer.name} (sin TLS)".__eq__)
    assert TlsGuest(server, certificates, "ana")


def test_tls_1_1_is_refused(server: Server, certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=str(certificates.ca))
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(tls_address(server)) as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock, server_hostname="127.0.0.1")


def test_tls_1_2(server: Server, certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=str(certificates.ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    peer = Peer(tls_address(server))
    peer.sock = tls = context.wrap_socket(peer.sock, server_hostname="127.0.0.1")
    assert tls.version() == "TLSv1.2"
    assert peer.line() == QUESTION


def test_a_fin_without_close_notify_leaves_the_line_unsaid(
    server: Server, certificates: Certificates
) -> None:
    ana, bea = Guest(server, "ana"), TlsGuest(server, certificates, "bea")
    bea.say("hola")
    bea.send(b"/unfini")
    socket.socket.shutdown(bea.sock, socket.SHUT_WR)
    for line in ("* bea ha entrado.", "bea dice: hola", "* bea ha salido."):
        assert ana.line() == line


def test_close_notify_ends_the_last_line(server: Server, certificates: Certificates) -> None:
    ana, bea = Guest(server, "ana"), TlsGuest(server, certificates, "bea")
    assert isinstance(bea.sock, ssl.SSLSocket)
    bea.send(b"hola\nfin")
    bea.sock.unwrap()
    for line in ("* bea ha entrado.", "bea dice: hola", "bea dice: fin", "* bea ha salido."):
        assert ana.line() == line


def test_a_slow_reader_is_bounded(server: Server, certificates: Certificates) -> None:
    ana, bea = Guest(server, "ana"), TlsGuest(server, certificates, "bea")
    before = server.resident_kib()
    slow = TlsGuest(server, certificates, "slow", receive_buffer=4096)
    server.shrink_send_buffer(slow.sock)
    for peer in (ana, bea):
        while peer.line() != "* slow ha entrado.":
            pass
    for _ in range(1000):
        ana.say(*["x" * 1000] * 16)
        lines = {bea.line(within=PROMPTLY) for _ in range(16)}
        assert server.resident_kib() - before < 12 << 10
        if "* slow ha salido." in lines:
            break
    server.log.wait(f"Cliente desconectado: {slow.name} (lector lento)".__eq__)


def test_sighup_loads_the_certificate_anew_and_connections_stay(
    server: Server, certificates: Certificates
) -> None:
    ana = TlsGuest(server, certificates, "ana")
    assert isinstance(ana.sock, ssl.SSLSocket)
    certificates.renew()
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + DEADLINE
    while True:
        bea = TlsGuest(server, certificates)
        assert isinstance(bea.sock, ssl.SSLSocket)
        if bea.sock.getpeercert(True) != ana.sock.getpeercert(True):
            break
        assert time.monotonic() < deadline
    ana.say("/list")
    assert ana.line() == "* En general (1): ana"


def test_sighup_with_a_bad_certificate_keeps_the_old_one(
    serve: Serve, certificates: Certificates
) -> None:
    server = serve(*certificates.options)
    good = certificates.cert.read_bytes()
    certificates.cert.write_text("no certificate")
    server.process.send_signal(signal.SIGHUP)
    server.errors.wait(lambda line: line.startswith("El certificado sigue siendo el de antes: "))
    assert TlsGuest(server, certificates, "ana")
    certificates.cert.write_bytes(good)
    assert server.stop() == 0
    server.errors._lines.clear()


def test_sighup_without_tls_does_nothing(serve: Serve) -> None:
    server = serve()
    server.process.send_signal(signal.SIGHUP)
    assert Guest(server, "ana")


def test_what_is_no_certificate(certificates: Certificates, tmp_path: Path) -> None:
    for cert, key in [("/nope", str(certificates.key)), (str(certificates.key),) * 2]:
        command = ["--tls-cert", cert, "--tls-key", key, "--port", "0"]
        with pytest.raises(Exception, match="No se puede usar el certificado"):
            Server("v5", arguments=command)


def test_a_proxys_header_comes_before_tls(serve: Serve, certificates: Certificates) -> None:
    server = serve(*certificates.options, "--trust-proxy", "127.0.0.1")
    peer = Peer(tls_address(server))
    peer.send(v2())
    context = ssl.create_default_context(cafile=str(certificates.ca))
    peer.sock = context.wrap_socket(peer.sock, server_hostname="127.0.0.1")
    assert peer.line() == QUESTION
    server.log.wait("Cliente conectado: ('192.0.2.7', 40000)".__eq__)


def test_handshakes_of_an_address_are_limited(serve: Serve, certificates: Certificates) -> None:
    options = ["--trust-proxy", "127.0.0.1", "--per-address", "2"]
    server = serve(*certificates.options, *options)

    def begin() -> Peer:
        peer = Peer(tls_address(server))
        peer.send(v2())
        return peer

    silent = [begin() for _ in range(2)]
    third = begin()
    assert third.rest() == b""
    server.log.wait("Cliente rechazado: ('192.0.2.7', 40000) (demasiadas conexiones)".__eq__)
    silent[0].close()
    deadline = time.monotonic() + DEADLINE
    context = ssl.create_default_context(cafile=str(certificates.ca))
    while True:  # until it has seen that the first has gone
        peer = begin()
        try:
            peer.sock = context.wrap_socket(peer.sock, server_hostname="127.0.0.1")
            break
        except OSError:
            assert time.monotonic() < deadline
    assert peer.line() == QUESTION


def test_openssl_s_client(server: Server, certificates: Certificates) -> None:
    host, port = tls_address(server)
    done = subprocess.run(
        ["openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", str(certificates.ca),
         "-connect", f"{host}:{port}"],
        input=b"ana\n/list\n/quit\n", capture_output=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.stdout.decode().splitlines() == [
        QUESTION, "* Hola, ana. En general: ana.", "* En general (1): ana",
    ]  # fmt: skip


def abort_handshakes(server: Server, count: int) -> None:
    """And wait until their descriptors are closed."""
    descriptors = server.descriptors()
    for number in range(count):
        peer = Peer(tls_address(server))
        peer.send((b"\x16\x03\x01\x02\x00\x01", b"junk\n", b"")[number % 3])
        if number % 2:
            peer.reset()
        else:
            peer.close()
    wait_until(lambda: server.descriptors() <= descriptors, "descriptors are left behind")


def test_aborted_handshakes_leave_no_descriptor(server: Server, certificates: Certificates) -> None:
    assert TlsGuest(server, certificates, "ana")
    abort_handshakes(server, 100)


@pytest.mark.long
def test_aborted_handshakes_leave_nothing(server: Server) -> None:
    abort_handshakes(server, 10_000)  # until the garbage of so many is collected as it comes
    memory = server.resident_kib()
    abort_handshakes(server, 2000)
    assert server.resident_kib() - memory < 1500
