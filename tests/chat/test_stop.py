"""The stop, whatever is under way."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress

import pytest

from benchmarks.harness.process import wait_until
from benchmarks.harness.server import SERVERS, Server
from tests.chat.conftest import Guest, Serve
from tests.conftest import Strace
from tests.support.run import ends
from tests.support.wire import Peer, stopped

STOP_WITHIN = 2.0
PASSWORD = "correct horse"


def test_a_second_signal_changes_nothing(server: Server) -> None:
    """Whichever thread the kernel gives it to."""
    ana = Guest(server, "ana")
    ana.say(f"/register {PASSWORD}")
    ana.lines("* El apodo ana es tuyo.")
    os.kill(server.pid, signal.SIGTERM)

    def ended() -> bool:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(server.pid, signum)
        return server.process.poll() is not None

    wait_until(ended, "it goes on")


def test_newcomers_in_the_same_wakeup_as_the_signal(server: Server) -> None:
    with stopped(server):
        for _ in range(30):
            Peer(server.address)
        os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0


def test_newcomers_that_keep_coming(server: Server) -> None:
    over = threading.Event()

    def storm() -> None:
        with suppress(OSError):
            while not over.is_set():
                Peer(server.address).close()

    thread = threading.Thread(target=storm, daemon=True)
    thread.start()
    Guest(server, "ana")
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < STOP_WITHIN
    over.set()
    thread.join()


def test_passwords_that_wait_to_be_hashed(server: Server) -> None:
    ana = Guest(server, "ana")
    ana.say(f"/register {PASSWORD}")
    ana.lines("* El apodo ana es tuyo.")
    for number in range(50):
        Guest(server, source=f"127.0.0.{2 + number % 10}").say("/login ana incorrecta")
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < STOP_WITHIN


def test_the_port_can_be_bound_again_at_once(serve: Serve) -> None:
    server = serve()
    ana = Guest(server, "ana")
    assert server.stop() == 0
    ana.ends("* El servidor se cierra.")
    assert serve("--port", str(server.address[1])).address == server.address


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_ready_line_ends_it(strace: Strace, signum: signal.Signals) -> None:
    """strace sends it when the server calls listen(2). No traceback, and nothing is printed."""
    inject = strace("-e", "trace=listen", "-e", f"inject=listen:signal={signum.name}")
    assert ends([*inject, sys.executable, *SERVERS["v5"], "--port", "0"], -signum) == ""
