"""Many browsers at once, and one among them that does not read."""

from __future__ import annotations

import socket

import pytest

from benchmarks.harness.compiled import no_compiler
from benchmarks.harness.crowd import Client, DeliveryError, message
from benchmarks.harness.flood import SOURCE, FloodInC
from benchmarks.harness.process import descriptor_limit_raised
from benchmarks.harness.server import BROWSERS, Server
from tests.support.needed import needed_in_ci
from tests.support.wire import HIGH_WATER, KERNEL_BUFFERS, PROMPTLY

CROWD = 5000
MESSAGES = 20
BATCH = 16


@pytest.mark.long
def test_five_thousand_browsers_in_a_flood() -> None:
    """Each delivery is checked: it comes once, in its sender's order, and never to the sender."""
    if no_compiler(SOURCE):
        needed_in_ci("no C compiler")
    with descriptor_limit_raised() as limit, Server(BROWSERS) as server:
        if limit < CROWD + 100:
            pytest.skip(f"at most {limit} descriptors")
        with FloodInC(server, CROWD, 10, deadline=60) as load:
            assert load.run(MESSAGES).deliveries == 10 * MESSAGES * (CROWD - 1)
        assert server.stop() == 0
        assert server.errors.rest() == []


def test_a_slow_browser_is_closed_and_delays_nobody() -> None:
    """It gets the close code 1013, if it reads on, or is cut off."""
    with Server("v5") as server:
        assert server.web
        guests = [Client(server.web, 0, nick, websocket=True) for nick in ("ana", "bea", "slow")]
        for guest in guests:
            guest.tell(f"{guest.name}\n".encode())
            guest.await_greeting()
        ana, bea, slow = guests
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.shrink_send_buffer(slow.sock)
        bea.sock.settimeout(PROMPTLY)
        heard, size = b"", 4000
        while b"* left\n" not in heard and ana.sent * size < KERNEL_BUFFERS:
            *_, last = (ana.say(size) for _ in range(BATCH))
            while last not in heard[-2 * size :]:
                heard += bea.receive()
            ana.receive()  # acknowledgements, or it would be slow, too
        server.log.wait(f"Cliente desconectado: {slow.sock.getsockname()} (lector lento)".__eq__)
        assert ana.sent * size > HIGH_WATER // 2
        said = [line for line in heard.splitlines(keepends=True) if not line.startswith(b"* ")]
        assert said == [ana.prefix + message(number, size) for number in range(ana.sent)]
        with pytest.raises(DeliveryError, match=r"type 8 with b'\\x03\\xf5|closed|reset"):
            list(iter(slow.receive, None))
        for guest in guests:
            guest.sock.close()  # or the server waits for its close frame
        assert server.stop() == 0
        assert server.errors.rest() == []
