"""What nobody may hold up: the message of one who was silent, by all others who talk at once, and
the stop, by a burst of messages or by a stdout that nobody reads.

In a burst each of TALKERS has said LINES short lines, and the server finds all of them in one
wakeup. They are TALKERS * TALKERS * LINES deliveries, which take a server that makes a send of each
many seconds. Nobody but one reads them, or need to: a test ends before a send buffer is full.
"""

from __future__ import annotations

import os
import select
import signal
import time

import pytest

from benchmarks.harness.process import free_port, wait_until
from benchmarks.harness.server import BROADCASTING, SERVERS, Server
from tests.conftest import Start
from tests.contract.test_process import STOP_WITHIN, stops_in_time
from tests.support.run import running, stat
from tests.support.wire import PROMPTLY, Peer, stopped

TALKERS = 280
LINES = 40
COALESCING = ("selectors", "epoll", "epoll-et", "uring")
"""Those in which all that a turn has brought is one send to each."""


def burst(server: Server) -> tuple[Peer, Peer]:
    """Let it begin; one who has said nothing, and one who has heard the first line of it."""
    calm, listener, *talkers = (Peer(server.address) for _ in range(2 + TALKERS))
    talkers[-1].say("all are in")
    assert listener.line() == f"{talkers[-1].name} dice: all are in"
    server.wait_until_at_rest()
    with stopped(server):
        for talker in talkers:
            talker.say(*["f"] * LINES)
    assert listener.line().endswith(" dice: f")
    return calm, listener


@pytest.mark.servers("v3", "v4", "uvloop", *COALESCING)
def test_burst_delays_nobody_who_was_silent(start: Start, name: str) -> None:
    """No later than the contract allows, by the time that the server gets of a busy machine; and
    where each line is a send, behind few lines of those who have more to say: not one of each."""
    server = start("--quiet")
    calm, listener = burst(server)
    for number in range(4):
        expected = f"{calm.name} dice: calm {number}"
        began = server.cpu_seconds()
        calm.say(f"calm {number}")
        lines = 0
        while listener.line() != expected:
            lines += 1
        assert server.cpu_seconds() - began < PROMPTLY
        assert lines < TALKERS / 2 or name in COALESCING


@pytest.mark.servers(*BROADCASTING)
def test_burst_does_not_hold_up_the_stop(start: Start) -> None:
    server = start("--quiet")
    burst(server)
    stops_in_time(server)


def test_stdout_that_nobody_reads_does_not_hold_up_the_stop(name: str, python: str) -> None:
    """A server that has been asked to stop while it sleeps in write(2), for want of space in the
    pipe, and then has more to write. It is asked again and again."""
    port = free_port()
    reader, writer = os.pipe()
    command = [python, *SERVERS[name], "--port", str(port)]
    with os.fdopen(reader), running(command, stdout=writer) as process:
        assert os.read(reader, 1 << 16).endswith(f"{port})\n".encode()), "the ready line"
        Peer(("127.0.0.1", port)).say(*["x" * 100] * 2000)  # more than a pipe holds, pipe(7)
        wait_until(
            lambda: not select.select([], [writer], [], 0)[1] and stat(process.pid)[0] == "S",
            "it does not sleep in write(2)",
        )
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        while process.poll() is None:
            assert time.monotonic() - began < STOP_WITHIN
            process.send_signal(signal.SIGTERM)
            time.sleep(0.02)
        assert process.stderr
        assert (process.returncode, process.stderr.read()) == (0, "")
    os.close(writer)
