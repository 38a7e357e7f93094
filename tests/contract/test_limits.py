"""What each model cannot do. A server that must fail here fails with LimitReached and nothing
else; the reason names a stage that does not have this limit. A crash, a spin or silence is a
failure."""

from __future__ import annotations

import re
import resource

import pytest

from benchmarks.harness.server import Server
from tests.conftest import LimitReached, broadcasting, one_of_each
from tests.support.needed import needed_in_ci
from tests.support.wire import FULL, Peer, Room, limit_memory, stopped


def crowd(server: Server, count: int, reason: str, at_least: int) -> None:
    """Let `count` clients connect, and see whether the last one was let in; and somebody else,
    after they have left.

    Raises LimitReached when it was refused in the way of the contract, for that reason (a regular
    expression), and no sooner than after `at_least` clients.
    """
    room = Room(server)
    ana, _bea = room.join(), room.join()
    peers = [Peer(server.address) for _ in range(count - 2)]
    last = peers[-1]
    connected = f"Cliente conectado: {last.name}"
    index = server.log.wait(lambda line: line == connected or line.startswith("Servidor lleno: "))
    full = server.log[index] != connected
    if full:
        assert re.fullmatch(f"Servidor lleno: {reason}", server.log[index])
        assert index > at_least, "a limit of the author's, and not of the model"
        assert last.rest() == FULL
    room.say(ana, "we go on")
    if not full:
        assert not room.broadcasts or last.line() == f"{ana.name} dice: we go on"
        room.say(last, "so many of us")
    for peer in peers:
        peer.close()
    lines = set(server.log.all())
    room.gone(*(peer for peer in peers if f"Cliente conectado: {peer.name}" in lines))
    room.say(room.join(), "a place again")
    if full:
        raise LimitReached(server.log[index])


@one_of_each
@pytest.mark.limit("v2", "v3", reason="select(2) takes no descriptor above 1023; epoll in v4 does")
def test_1100_clients(server: Server) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1300:
        needed_in_ci("a hard limit of 1,300 descriptors (ulimit -Hn)")
    crowd(server, 1100, "no quedan descriptores por debajo del 1024", 1000)


@pytest.mark.servers("v1", "v2")
@pytest.mark.limit("v1", reason="each thread takes address space for a stack; v2 needs one thread")
def test_small_address_space(server: Server) -> None:
    limit_memory(server, 24)
    crowd(server, 700, r"no caben más hilos que \d+", 40)


@broadcasting
@pytest.mark.limit(
    "v4", reason="asyncio drops a connection whole when a write to it fails; v3 reads it to its end"
)
def test_last_words_in_a_flood(room: Room, ana: Peer) -> None:
    """A client says more than one read takes and closes at once, while lines for it come in:
    they cannot be delivered, but what it said can. (libuv takes all of it in one read.)"""
    hasty, *others = (room.join(listens=False) for _ in range(10))
    words = [f"word {number}" for number in range(4000)]
    with stopped(room.server):  # so that all of it is there in one wakeup
        hasty.say(*words)
        hasty.close()
        for other in (ana, *others):
            other.say("and I")
    room.gone(hasty)
    logged = [line for line in room.server.log.all() if line.startswith(f"{hasty.name} dice: ")]
    expected = [f"{hasty.name} dice: {word}" for word in words]
    assert logged == expected[: len(logged)], "what is said is in order, up to some point"
    carla = room.join(listens=False)
    carla.say("we go on")
    room.server.log.wait(f"{carla.name} dice: we go on".__eq__)
    if len(logged) < len(expected):
        raise LimitReached(f"{len(logged)} of {len(expected)} lines")
