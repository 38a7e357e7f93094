"""v5 as a process, by what its clients and its log see."""

from __future__ import annotations

import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from benchmarks.harness.process import DEADLINE, wait_until
from benchmarks.harness.server import Server
from tests.chat.conftest import Guest, Serve
from tests.support.wire import HIGH_WATER, KERNEL_BUFFERS, PROMPTLY, Peer, refused


def test_a_nick_and_then_lines(server: Server) -> None:
    ana = Guest(server, "ana")
    bea = Guest(server)
    bea.send("аna\nbea\r\nhola\n/list\n\n//x\n".encode())
    bea.lines(
        "* El apodo аna se parece demasiado a ana.",
        "* Hola, bea. En general: ana, bea.",
        "* En general (2): ana, bea",
    )
    ana.lines("* bea ha entrado.", "bea dice: hola", "bea dice: /x")
    ana.say("/quit adiós")
    ana.ends()
    bea.lines("* ana ha salido: adiós")
    assert Guest(server, "ana")


def test_every_byte_a_segment(server: Server) -> None:
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.lines("* bea ha entrado.")
    for byte in "ñandú\n".encode():
        bea.send(bytes([byte]))
    ana.lines("bea dice: ñandú")


def test_a_line_that_is_too_long_is_answered_and_the_client_stays(server: Server) -> None:
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.lines("* bea ha entrado.")
    bea.send(b"x" * 4096 + b"\n" + b"y" * 100_000 + b"\nhola\n")
    bea.lines("* Línea demasiado larga: 4096 bytes como mucho.")
    ana.lines("bea dice: " + "x" * 4096, "bea dice: hola")


def test_a_half_closed_client_is_heard_out(server: Server) -> None:
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.lines("* bea ha entrado.")
    bea.send("".join(f"{number}\n" for number in range(5000)).encode() + b"fin")
    bea.finish()
    ana.lines(*[f"bea dice: {number}" for number in range(5000)])
    ana.lines("bea dice: fin", "* bea ha salido.")
    bea.ends()


def test_a_reset_in_mid_line_leaves_the_line_unsaid(server: Server) -> None:
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.lines("* bea ha entrado.")
    bea.send(b"hola\nadi")
    ana.lines("bea dice: hola")
    bea.reset()
    ana.lines("* bea ha salido.")


def test_one_who_does_not_read_delays_nobody_and_is_disconnected(server: Server) -> None:
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.lines("* bea ha entrado.")
    slow = Guest(server, "slow", receive_buffer=4096)
    server.shrink_send_buffer(slow.sock)
    for peer in (ana, bea):
        peer.lines("* slow ha entrado.")
    sent = 0
    while sent < KERNEL_BUFFERS:
        ana.say(*["x" * 1000] * 16)
        for _ in range(16):
            line = bea.line(within=PROMPTLY)
            if line == "* slow ha salido.":
                break
        else:
            sent += 16_000
            continue
        break
    assert sent > HIGH_WATER // 2
    server.log.wait(f"Cliente desconectado: {slow.name} (lector lento)".__eq__)
    slow.rest()


def test_a_nick_is_free_again_however_its_holder_has_gone(serve: Serve) -> None:
    server = serve("--operator", "bea")
    bea = Guest(server, "bea")
    bea.say("/register correct horse")
    bea.lines("* El apodo bea es tuyo.")

    def bea_hears(*lines: str) -> None:
        while bea.line() not in lines:
            pass

    def fill(ana: Guest) -> None:
        server.shrink_send_buffer(ana.sock)
        bea.say(*["x" * 4000] * (2 * HIGH_WATER // 4000))

    ends: list[tuple[Callable[[Guest], object], str]] = [
        (Guest.close, ""),
        (Guest.reset, ""),
        (Guest.finish, ""),
        (lambda ana: ana.say("/quit"), ""),
        (lambda ana: ana.say(*["/nick bea", "incorrecta"] * 3), " (demasiados intentos)"),
        (lambda ana: bea.say("/kick ana"), " (expulsado)"),
        (lambda ana: bea.say("/ban ana"), " (entrada prohibida)"),
        (lambda ana: bea.say(f"/ban {ana.sock.getsockname()[0]}"), " (entrada prohibida)"),
        (fill, " (lector lento)"),
        (lambda ana: ana.say("/nick zoe", "/quit"), ""),
    ]
    for number, (end, reason) in enumerate(ends, 1):
        ana = Guest(server, "ana", receive_buffer=4096, source=f"127.0.1.{number}")
        bea_hears("* ana ha entrado.")
        end(ana)
        bea_hears("* ana ha salido.", "* zoe ha salido.")
        server.log.wait(f"Cliente desconectado: {ana.name}{reason}".__eq__)
    assert Guest(server, "ana")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_socket_options(serve: Serve, loop: str) -> None:
    server = serve("--loop", loop)
    end = server.end_of(Guest(server, "ana").sock)
    if end is None:
        pytest.fail("pidfd_getfd(2) is needed to see it: Linux 5.6, and the right to trace a child")
    with end:
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (
            socket.TCP_NODELAY,
            socket.TCP_KEEPIDLE,
            socket.TCP_KEEPINTVL,
            socket.TCP_KEEPCNT,
        )
        assert [end.getsockopt(socket.IPPROTO_TCP, each) for each in options] == [1, 60, 10, 3]


def test_who_quits_gets_what_waits_for_it(server: Server) -> None:
    ana = Guest(server, "ana", receive_buffer=4096)
    server.shrink_send_buffer(ana.sock)
    ana.say(*["/help"] * 500, "/quit")
    assert ana.rest().count(b"* /help: ") == 500


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_who_is_thrown_out_and_does_not_read_is_gone_soon(serve: Serve, loop: str) -> None:
    """What waits for it is not waited for as long as for one who quits."""
    server = serve("--loop", loop, "--operator", "ana")
    ana = Guest(server, "ana")
    ana.say("/register correct horse")
    ana.lines("* El apodo ana es tuyo.")
    server.wait_until_at_rest()
    before = server.descriptors()
    bea = Guest(server, "bea", receive_buffer=4096)
    server.shrink_send_buffer(bea.sock)
    ana.say(*["x" * 4000] * 100, "/kick bea")
    ana.lines("* bea ha entrado.", "* bea ha salido.")
    wait_until(lambda: server.descriptors() == before, "its connection stays")


def test_a_flooder_that_does_not_read_is_not_read_from(server: Server) -> None:
    """What is waiting for it is bounded, and so is what it can say."""
    ana, bea = Guest(server, "ana"), Guest(server, "bea", receive_buffer=4096)
    ana.lines("* bea ha entrado.")
    server.shrink_send_buffer(bea.sock)
    stopped = threading.Event()

    def flood() -> None:
        try:
            while True:
                bea.sock.sendall(b"/help\n" * 1000)
        except OSError:
            stopped.set()

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    before = server.resident_kib()
    for number in range(20):
        ana.say(f"/pm ana {number}")
        assert ana.line(within=PROMPTLY) == f"ana te dice: {number}"
        assert server.resident_kib() - before < 8 << 10
        time.sleep(0.02)
    bea.finish()  # close() alone would wait for the sendall() that holds on to the socket
    assert stopped.wait(DEADLINE)
    bea.reset()
    ana.lines("* bea ha salido.")


def test_a_flooder_starves_nobody(server: Server) -> None:
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.lines("* bea ha entrado.")

    def flood() -> None:
        with suppress(OSError):
            bea.send(b"/rooms\n" * 200_000)

    def read() -> None:
        with suppress(OSError, ValueError):
            while bea.sock.recv(1 << 16):
                pass

    threads = [threading.Thread(target=call, daemon=True) for call in (flood, read)]
    for thread in threads:
        thread.start()
    for number in range(20):
        ana.say(f"/pm ana {number}")
        assert ana.line(within=PROMPTLY) == f"ana te dice: {number}"
    bea.sock.shutdown(socket.SHUT_RDWR)
    ana.lines("* bea ha salido.")
    for thread in threads:
        thread.join()


def test_full(serve: Serve) -> None:
    server = serve("--quiet", limits={resource.RLIMIT_NOFILE: (48, 48)})
    guests = []
    while True:
        peer = Peer(server.address)
        line = peer.line()
        if line == "servidor lleno":
            break
        guests.append(peer)
    assert len(guests) > 10
    refused(server)
    guests.pop().close()
    server.wait_until_at_rest()
    assert Guest(server, "ana")
    assert server.stop() == 0
    lines = [line for line in server.log.rest() if line.startswith("Servidor lleno: ")]
    assert len(lines) == 1, "said once an episode"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_told_and_what_waits_is_sent(server: Server, signum: int) -> None:
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    door = Guest(server)
    ana.lines("* bea ha entrado.")
    text = "x" * 4000
    ana.say(*[text] * 200)
    bea.lines(f"ana dice: {text}")
    server.wait_until_at_rest()
    begun = time.monotonic()
    assert server.stop(signum) == 0
    assert time.monotonic() - begun < 2
    bea.ends(*[f"ana dice: {text}"] * 199, "* El servidor se cierra.")
    ana.ends("* El servidor se cierra.")
    door.ends("* El servidor se cierra.")


def test_a_stop_waits_a_second_for_those_who_do_not_read(server: Server) -> None:
    ana, bea = Guest(server, "ana"), Guest(server, "bea", receive_buffer=4096)
    server.shrink_send_buffer(bea.sock)
    ana.say(*["x" * 4000] * 200)
    ana.say("/list")
    ana.lines("* bea ha entrado.", "* En general (2): ana, bea")
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < 2
