"""What each server asks of the kernel for one message: exact counts, seen by strace(1).

A round is one message and all its deliveries, then the next (lock-step). The trace is cut where
the first and the last message were received, so that start, joins and stop are outside. With 25
clients the rounds use up more than one turn's budget: it begins anew after each wait.
"""

from __future__ import annotations

import fcntl
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.harness.crowd import data_segments_in
from benchmarks.harness.server import BROADCASTING, SERVERS
from benchmarks.harness.strace import calls, window
from tests.conftest import Start, Strace
from tests.support.wire import Peer, Room, logging_into_a_pipe

ROUNDS = 20
EXPECTED: dict[str, Callable[[int], dict[str, int]]] = {
    "v1": lambda n: {"recvfrom": 1, "write": 1},
    "v2": lambda n: {"select": 1, "recvfrom": 1, "write": 1},
    "v3": lambda n: {"select": 1, "recvfrom": 1, "sendto": n - 1},
    "v4": lambda n: {"epoll_wait": 2, "recvfrom": 1, "sendto": n - 1},
    "selectors": lambda n: {"epoll_wait": 1, "recvfrom": 1, "sendto": n - 1},
    "epoll": lambda n: {"epoll_wait": 1, "recvfrom": 1, "sendto": n - 1},
    "epoll --flush message": lambda n: {"epoll_wait": 1, "recvfrom": 1, "sendto": n - 1},
    "epoll-et": lambda n: {"epoll_wait": 1, "recvfrom": 1, "sendto": n - 1},
    "uvloop": lambda n: {"epoll_wait": 1, "read": 1, "write": n - 1},
}
"""Of those that wait for readiness, and then ask."""


@pytest.mark.servers(*EXPECTED)
def test_system_calls_per_message(start: Start, name: str, strace: Strace, tmp_path: Path) -> None:
    quiet = ["--quiet"] if name in BROADCASTING else []
    server = start(*quiet, wrapper=strace("-s", "100"))
    room = Room(server, logs=not quiet)
    peers: list[Peer] = []
    for clients in (2, 25):
        peers += [room.join() for _ in range(clients - len(peers))]
        server.wait_until_at_rest()  # v1: the threads of newcomers, who would ask for the GIL
        for number in range(-10, ROUNDS + 1):  # the first ones to warm up
            room.say(peers[0], f"round {number} of {clients}.")
    assert server.stop() == 0
    returned = calls((tmp_path / "trace").read_text())
    for clients in (2, 25):
        rounds = window(returned, f"round 0 of {clients}.", f"round {ROUNDS} of {clients}.")
        counted = Counter(call for call, _ in rounds)
        expected = {call: count * ROUNDS for call, count in EXPECTED[name](clients).items()}
        assert counted == expected, f"system calls in {ROUNDS} rounds with {clients} clients"
        for call, text in rounds:  # nobody wakes up to look whether it must
            if call == "select":
                assert re.search(r", NULL\) += ", text)
            elif call == "epoll_wait":
                assert re.search(r", (-1|0)(, NULL, 8)?\) += [01]$", text)
                assert not (re.search(r", 0(, NULL, 8)?\) ", text) and text.endswith(" = 1"))


@pytest.mark.servers("uring")
def test_one_call_per_message_on_a_ring_whatever_n(
    start: Start, strace: Strace, tmp_path: Path
) -> None:
    """It hands over the sends and waits for the next message. What is sent and received strace does
    not see; the log, which is written before, it does."""
    server = start(wrapper=strace("-s", "100"))
    room = Room(server)
    peers: list[Peer] = []
    for clients in (2, 10, 40):
        peers += [room.join() for _ in range(clients - len(peers))]
        for number in range(ROUNDS + 1):
            room.say(peers[0], f"round {number} of {clients}.")
    assert server.stop() == 0
    returned = calls((tmp_path / "trace").read_text())
    for clients in (2, 10, 40):
        rounds = window(returned, f"round 0 of {clients}.", f"round {ROUNDS} of {clients}.")
        assert [call for call, _ in rounds] == ["write", "io_uring_enter"] * ROUNDS
        sends = clients - 1
        arguments = rf"\d+, {sends}, 1, IORING_ENTER_GETEVENTS, NULL, \d\) += {sends}"
        for _, text in rounds[1::2]:
            assert re.fullmatch(arguments, text)


@pytest.mark.servers(*(name for name in BROADCASTING if not name.startswith("uring")))
def test_log_is_written_before_the_message_is_passed_on(
    start: Start, strace: Strace, tmp_path: Path
) -> None:
    room = Room(start(wrapper=strace("-s", "100", "-e", "trace=write,sendto")))
    ana, _bea = room.join(), room.join()
    for number in range(3):
        room.say(ana, f"line {number}")
    assert room.server.stop() == 0
    sends = [text for _, text in calls((tmp_path / "trace").read_text()) if " dice: line" in text]
    to_stdout = [text.startswith("1, ") for text in sends]
    assert to_stdout == [True, False] * 3, "first to stdout, then to a socket"


@pytest.mark.servers("selectors", "epoll", "epoll-et", "uring")
def test_what_comes_during_a_turn_is_sent_with_it(name: str, python: str) -> None:
    """Once several have spoken in a turn. The log goes into a pipe that takes less than a line: a
    server that is held up by it has begun its turn and not ended it."""

    def sends(*arguments: str) -> int:
        def say_in_the_turn_of(peer: Peer, *others: Peer) -> None:
            text = "l" * 12_000
            peer.say(text)
            start = log.read(1)  # of a line of which most does not fit in the pipe
            for other in others:
                other.say("and I")
            assert start + log.readline() == f"{peer.name} dice: {text}\n"
            for _ in others:
                assert log.readline().endswith("and I\n")
            for _ in (peer, *others):
                dora.line()

        def shrink(pipe: int) -> None:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)

        command = [python, *SERVERS[name], *arguments]
        with logging_into_a_pipe(command, shrink) as (address, log):
            ana, bea, carla, dora = (Peer(address) for _ in range(4))
            for _ in range(4):
                assert log.readline().startswith("Cliente conectado")
            say_in_the_turn_of(ana, bea, carla)  # who have a turn together
            before = data_segments_in(dora.sock)
            say_in_the_turn_of(ana, bea)
            return data_segments_in(dora.sock) - before

    assert (sends(), sends("--looks", "0")) == (1, 2)
