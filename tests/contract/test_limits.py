"""What each model cannot do. A server that must fail here fails with LimitReached and nothing
else; the reason names a stage that does not have this limit. A crash, a spin or silence is a
failure."""

from __future__ import annotations

import os
import re
import resource
import signal
from pathlib import Path

import pytest

from benchmarks.harness.server import BROADCASTING, Server
from tests.conftest import PROGRAMS, LimitReached, Start
from tests.support.needed import needed_in_ci
from tests.support.wire import FULL, Peer, Room


def crowd(server: Server, count: int, name: str, reason: str, at_least: int) -> None:
    """Let `count` clients connect, and see whether the last one was let in; and somebody else,
    after they have left.

    Raises LimitReached when it was refused in the way of the contract, for that reason (a regular
    expression), and no sooner than after `at_least` clients.
    """
    room = Room(server, broadcasts=name in BROADCASTING)
    ana, _bea = room.join(), room.join()
    peers = [Peer(server.address) for _ in range(count - 2)]
    names = {peer.name for peer in peers}
    last = peers[-1]
    connected = f"Cliente conectado: {last.name}"
    index = server.log.wait(
        lambda line: line == connected or line.startswith("Servidor lleno: "),
    )
    full = server.log[index] != connected
    if full:
        assert re.fullmatch(f"Servidor lleno: {reason}", server.log[index])
        assert index > at_least, "a limit of the author's, and not of the model"
        assert last.rest() == FULL
    else:
        room.listeners.append(last)
    ana.say("we go on")
    room.hear(ana, "we go on")
    if not full:
        last.say("so many of us")
        room.hear(last, "so many of us")
        room.leave(last)
    for peer in peers:
        peer.close()
    for line in server.log.all():
        if line.startswith("Cliente conectado: ") and line.split(": ")[1] in names:
            server.log.wait(line.replace("conectado", "desconectado").__eq__)
    newcomer = room.join()
    newcomer.say("a place again")
    room.hear(newcomer, "a place again")
    if full:
        raise LimitReached(server.log[index])


@pytest.mark.servers(*PROGRAMS)
@pytest.mark.limit("v2", "v3", reason="select(2) takes no descriptor above 1023; epoll in v4 does")
def test_1100_clients(start: Start, name: str) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1300:
        needed_in_ci("a hard limit of 1,300 descriptors (ulimit -Hn)")
    crowd(start(), 1100, name, "no quedan descriptores por debajo del 1024", 1000)


@pytest.mark.servers("v1", "v2")
@pytest.mark.limit("v1", reason="each thread takes address space for a stack; v2 needs one thread")
def test_small_address_space(start: Start, name: str) -> None:
    server = start()
    status = Path(f"/proc/{server.pid}/status").read_text()
    used = re.search(r"VmSize:\s+(\d+) kB", status)
    assert used
    room_for = int(used[1]) * 1024 + (24 << 20)
    resource.prlimit(server.pid, resource.RLIMIT_AS, (room_for, room_for))
    crowd(server, 700, name, r"no caben más hilos que \d+", 40)


@pytest.mark.servers(*BROADCASTING)
@pytest.mark.limit(
    "v4", reason="asyncio drops a connection whole when a write to it fails; v3 reads it to its end"
)
def test_last_words_in_a_flood(room: Room) -> None:
    """A client says more than one read takes and closes at once, while lines for it come in:
    they cannot be delivered, but what it said can. (libuv takes all of it in one read.)"""
    ana, _bea = room.join(), room.join()
    hasty = room.join(listens=False)
    os.kill(room.server.pid, signal.SIGSTOP)  # so that all of it is there in one wakeup
    words = [f"word {number}" for number in range(4000)]
    hasty.say(*words)
    hasty.close()
    ana.say(*(f"line {number}" for number in range(10)))
    os.kill(room.server.pid, signal.SIGCONT)
    room.server.log.wait(f"Cliente desconectado: {hasty.name}".__eq__)
    heard = [line for line in room.server.log.all() if line.startswith(f"{hasty.name} dice: ")]
    said = [f"{hasty.name} dice: {word}" for word in words]
    assert heard == said[: len(heard)], "what is heard is what was said, up to some point"
    carla = room.join(listens=False)
    carla.say("we go on")
    room.server.log.wait(f"{carla.name} dice: we go on".__eq__)
    if len(heard) < len(said):
        raise LimitReached(f"{len(heard)} of {len(said)} lines")
