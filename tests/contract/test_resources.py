"""The contract of stages/README.md as far as the server's descriptors, threads, memory and CPU time
show it: what it does when they run out, and that it costs nothing when nothing happens."""

from __future__ import annotations

import re
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from benchmarks.harness.process import wait_until
from benchmarks.harness.server import Server
from tests.conftest import PROGRAMS, LimitReached, Start, Strace, broadcasting, one_of_each
from tests.contract.test_process import STOP_WITHIN
from tests.support.wire import (
    FULL,
    KERNEL_BUFFERS,
    PROMPTLY,
    Peer,
    Room,
    come_in,
    limit_memory,
    padded,
    refused,
    stopped,
)

CPU_WHEN_FULL = 0.15
"""Share of one CPU that a server may use while it has no place for newcomers (the contract)."""

FULL_LINE = re.compile(r"Servidor lleno: .+").fullmatch


def times_full(server: Server) -> int:
    """How often it has said to be full; once per episode, says the contract."""
    return len(list(filter(FULL_LINE, server.log.all())))


def cpu_share(server: Server, work: Callable[[], None]) -> float:
    """Share of one CPU that the server uses meanwhile."""
    cpu, started = server.cpu_seconds(), time.monotonic()
    work()
    return (server.cpu_seconds() - cpu) / (time.monotonic() - started)


def let_in(server: Server, peer: Peer) -> bool:
    """Whether a newcomer was let in; else it must be told."""
    connected = f"Cliente conectado: {peer.name}"
    wait_until(lambda: connected in server.log.all() or peer.answered(), "neither let in nor told")
    inside = connected in server.log.all()
    assert inside or peer.rest() == FULL
    return inside


@contextmanager
def limited(server: Server, count: int) -> Iterator[None]:
    """It may open so many descriptors; afterwards as many as before."""
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (count, hard))
    yield
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))


def held(server: Server) -> tuple[int, int]:
    """The descriptors and threads that it has, once a first client has come and gone: with that
    libuv opens a descriptor of its own."""
    first = Peer(server.address)
    first.finish()
    first.rest()
    server.wait_until_at_rest()
    return server.descriptors(), server.threads()


def comes_back_to(server: Server, before: tuple[int, int]) -> None:
    wait_until(
        lambda: (server.descriptors(), server.threads()) == before,
        "descriptors or threads are left behind",
    )


def test_socket_options(room: Room, ana: Peer) -> None:
    end = room.server.end_of(ana.sock)
    if end is None:
        pytest.fail("pidfd_getfd(2) is needed to see it: Linux 5.6, and the right to trace a child")
    with end:
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_idle_clients_cost_nothing(server: Server) -> None:
    """500 of them: no CPU time, no wakeup."""
    peers = [Peer(server.address) for _ in range(500)]
    peers[0].send(b"half a line")
    come_in(server, *peers)
    server.wait_until_at_rest()
    cpu, switches = server.cpu_seconds(), server.context_switches()
    time.sleep(0.3)  # what is observed is that nothing happens
    assert server.context_switches() - switches == 0, "woken up with nothing to do"
    assert server.cpu_seconds() - cpu == 0


def test_full_of_descriptors(start: Start) -> None:
    """16 are kept in reserve. Newcomers are told and closed, those inside talk on, and when one
    leaves there is a place again; each such episode is logged once."""
    server = start(limits={resource.RLIMIT_NOFILE: (40, 64)})
    room = Room(server)
    at_start, _ = held(server)
    for episode in (1, 2):
        crowd = [room.join() for _ in range(64 - 16 - at_start)]
        assert server.descriptors() == 64 - 16
        for _ in range(40):
            refused(server)
        room.say(crowd[0], "we talk on")
        early = Peer(server.address)
        early.send(b"already speaking\n" * 100)
        assert early.rest() == FULL, "it is told even when its own words were not read"
        for peer in crowd:
            peer.close()
        room.gone(*crowd)
        server.wait_until_at_rest()
        assert times_full(server) == episode


@pytest.mark.limit(
    "uvloop", reason="libuv closes newcomers when accept() fails; asyncio in v4 lets them wait"
)
@pytest.mark.servers(*PROGRAMS, "epoll-et")
def test_accept_fails_all_the_same(room: Room, ana: Peer) -> None:
    """EMFILE although there is a reserve: the newcomer waits in the backlog, nobody spins,
    those inside talk, and it recovers by itself."""
    server = room.server
    with limited(server, server.descriptors()):
        waiting = [Peer(server.address) for _ in range(40)]
        wait_until(
            lambda: times_full(server) or waiting[0].answered(),
            "neither full nor closed",
        )
        assert cpu_share(server, lambda: time.sleep(0.4)) < CPU_WHEN_FULL
        room.say(ana, "still here")
        closed = times_full(server) == 0
        if closed:
            assert {peer.rest() for peer in waiting} == {b""}, "neither let in nor told"
        else:
            assert times_full(server) == 1
    if closed:
        room.say(room.join(), "a place again")
        raise LimitReached("closed without a word")
    started = time.monotonic()
    come_in(server, *waiting)
    assert time.monotonic() - started < 1.0 + PROMPTLY, "a pause lasts a second at most"


@pytest.mark.limit(
    "uvloop", reason="libuv tries on without a pause where its own last descriptor is refused"
)
@one_of_each
def test_accept_is_not_tried_more_often_than_every_tenth_second(
    start: Start, name: str, strace: Strace, tmp_path: Path
) -> None:
    """While it fails; asyncio tries as often as it accepts in a turn, a second later again."""
    trace = tmp_path / "trace"
    server = start(wrapper=strace("-e", "trace=accept,accept4"))
    held(server)
    with limited(server, 4):
        for _ in range(40):
            Peer(server.address)
        started = time.monotonic()
        wait_until(lambda: "EMFILE" in trace.read_text(), "accept() does not fail")
        time.sleep(1.5 if name == "v4" else 0.5)  # the window that is looked at
    took = time.monotonic() - started
    come_in(server, Peer(server.address))
    failed = trace.read_text().count("EMFILE")
    if not times_full(server):
        assert failed > 100
        raise LimitReached(f"accept() failed {failed} times in {took:.1f} s")
    assert 1 <= failed <= 1 + took / 0.1


@pytest.mark.long
@pytest.mark.limit("uvloop", reason="libuv tries again and tells nobody; v4 says it once")
@pytest.mark.servers(*PROGRAMS, "epoll-et")
@pytest.mark.parametrize("error", ["ENFILE", "ENOBUFS", "ENOMEM"])
def test_accept_fails_for_what_the_whole_system_lacks(
    start: Start, strace: Strace, error: str
) -> None:
    """Twice, by strace's hand: the newcomer waits, and is let in."""
    inject = f"inject=accept4:error={error}:when=1..2"
    server = start(wrapper=strace("-e", "trace=accept4", "-e", inject))
    come_in(server, Peer(server.address))
    if not times_full(server):
        raise LimitReached("let in, and nothing said")
    assert times_full(server) == 1


@pytest.mark.servers("epoll", "epoll-et")
def test_newcomer_that_epoll_cannot_watch_is_told(start: Start, strace: Strace) -> None:
    """ENOSPC: the user watches as much as fs.epoll.max_user_watches allows. strace says so once,
    after the wakeup and the listener."""
    inject = "inject=epoll_ctl:error=ENOSPC:when=3"
    server = start(wrapper=strace("-e", "trace=epoll_ctl", "-e", inject))
    refused(server)
    server.log.wait(re.compile(r"Servidor lleno: .+ No space left on device").fullmatch)
    come_in(server, Peer(server.address))


def test_burst_does_not_use_up_the_reserve(start: Start, strace: Strace, tmp_path: Path) -> None:
    """A hundred newcomers in one wakeup: those beyond the limit are refused one by one, and
    accept() never fails."""
    wrapper = strace("-e", "trace=accept,accept4")
    server = start(wrapper=wrapper, limits={resource.RLIMIT_NOFILE: (64, 64)})
    with stopped(server):
        peers = [Peer(server.address) for _ in range(100)]
    server.log.wait(FULL_LINE)
    inside = [let_in(server, peer) for peer in peers]
    assert "EMFILE" not in (tmp_path / "trace").read_text()
    assert 64 - 16 - 16 <= sum(inside) <= 64 - 16 - 4
    assert inside == sorted(inside, reverse=True), "the first to come were let in"


@one_of_each
def test_backlog_takes_a_burst_of_five_hundred(server: Server) -> None:
    """Without the server's help: the kernel completes the connections, listen(2). Where
    net.core.somaxconn is below 500 it cannot."""
    somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with ExitStack() as stack:
        with stopped(server):
            burst = [stack.enter_context(socket.socket()) for _ in range(min(500, somaxconn))]
            for sock in burst:
                sock.settimeout(0.9)  # a SYN that was dropped is sent again after a second
                sock.connect(server.address)
        server.log.wait(f"Cliente conectado: {burst[-1].getsockname()}".__eq__)


def test_reset_before_accept_is_dropped_silently(room: Room, ana: Peer) -> None:
    """accept(2) still returns such a connection, and it may have no name any more."""
    with stopped(room.server):
        for _ in range(30):
            Peer(room.server.address).reset()
    room.join()
    room.say(ana, "nobody noticed")
    assert not any("None" in line for line in room.server.log.all())


@broadcasting
def test_lines_before_a_reset_count_though_a_turn_does_not_take_them(room: Room, ana: Peer) -> None:
    """What the kernel has taken before the RST is read and said, for as many turns as it takes."""
    hasty = room.join(listens=False)
    texts = [f"{number}" for number in range(5000)]
    with stopped(room.server):  # so that all of it is there, and the RST after it
        hasty.say(*texts)
        hasty.send(b"half a li")
        hasty.reset()
    room.hear(hasty, *texts)
    room.gone(hasty)


@broadcasting
def test_flooder_that_never_reads_fills_no_memory(room: Room, ana: Peer) -> None:
    """While much waits for it, its flood stays in the kernel, and so does it."""
    flooder = room.join_slow()
    room.say(ana, *padded(40, 8000))
    resident = room.server.resident_kib()
    flooder.sock.settimeout(0.3)
    sent = 0
    with suppress(TimeoutError):
        while sent < KERNEL_BUFFERS * 2:
            sent += flooder.sock.send(b"unheard of\n" * 10_000)
    assert sent < KERNEL_BUFFERS * 2, "somebody takes all that it sends"
    assert room.server.resident_kib() - resident < 2000, "KiB more"
    room.say(ana, "we hear each other")


@one_of_each
def test_refusing_is_cheap_when_newcomers_keep_coming(start: Start) -> None:
    """A newcomer that is refused every 20 ms does not make a server spin. --quiet still says it."""
    server = start("--quiet", limits={resource.RLIMIT_NOFILE: (64, 64)})
    for _ in range(64 - 16 - server.descriptors()):
        Peer(server.address)

    def come() -> None:
        for _ in range(20):
            refused(server)
            time.sleep(0.02)  # the pace of the newcomers

    refused(server)
    assert cpu_share(server, come) < CPU_WHEN_FULL
    server.log.wait(FULL_LINE)
    assert len(server.log.all()) == 2


@one_of_each
def test_thousands_connect_and_leave(start: Start) -> None:
    """Descriptors, threads and memory come back to where they were."""
    server = start("--quiet")

    def visit(count: int) -> None:
        for _ in range(count // 100):
            peers = [Peer(server.address) for _ in range(100)]
            for peer in peers[:50]:
                peer.say("hello and goodbye")
            for peer in peers[::3]:
                peer.reset()
            others = [*peers[1::3], *peers[2::3]]
            for peer in others:
                peer.finish()
            for peer in others:
                peer.rest()
                peer.close()

    before = held(server)
    visit(400)
    comes_back_to(server, before)
    resident = server.resident_kib()
    visit(1600)
    comes_back_to(server, before)
    # The allocator's own growth is less than that, and comes to an end; a leaked connection is not.
    assert server.resident_kib() - resident < 3000, "KiB more after 1,600 visitors"


@pytest.mark.long
@pytest.mark.servers("epoll", "uring")
def test_fifteen_thousand_clients_at_a_kibibyte_each(start: Start) -> None:
    """Or as many as the limit on descriptors permits: resident memory, without the kernel's. And
    they are no reason to stop later: to let one go must not cost a walk through all the others."""
    server = start("--quiet")
    count = min(15_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    first, *peers = (Peer(server.address) for _ in range(101))
    server.wait_until_at_rest()
    resident = server.resident_kib()
    peers += [Peer(server.address) for _ in range(count)]
    peers[-1].say("all in")
    assert first.line() == f"{peers[-1].name} dice: all in"
    server.wait_until_at_rest()
    assert (server.resident_kib() - resident) / count <= 1.0, "KiB each"
    asked = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - asked < STOP_WITHIN
    for peer in peers:
        peer.reset()  # a FIN would leave 15,000 ports in TIME_WAIT


def test_everything_in_one_wake_up(room: Room, ana: Peer, bea: Peer) -> None:
    """Leavers, speakers and newcomers between two waits of the server, which is stopped
    meanwhile: descriptors are closed and given out again within one batch of events."""
    server = room.server
    leavers = [room.join(listens=False) for _ in range(30)]
    speakers = [room.join(listens=False) for _ in range(10)]
    with stopped(server):
        for resetting, closing, finishing in zip(leavers[::3], leavers[1::3], leavers[2::3]):
            resetting.send(b"half a line, and never said")
            resetting.reset()
            closing.close()
            finishing.send(b"last word")
            finishing.finish()
        speakers += [Peer(server.address) for _ in range(30)]
        for speaker in speakers:
            speaker.say("and I")
    expected = {
        *(f"{peer.name} dice: last word" for peer in leavers[2::3]),
        *(f"{peer.name} dice: and I" for peer in speakers),
    }
    room.hear_all(expected)
    room.say(ana, "and on we go")


@pytest.mark.parametrize("event", ["catches up", "half-closes", "resets"])
@broadcasting
def test_slow_reader_does_not_make_it_spin(room: Room, ana: Peer, event: str) -> None:
    """Room in a send buffer, an EOF, EPOLLHUP and EPOLLERR are reported again and again, for as
    long as one asks."""
    slow = room.join_slow()
    texts = padded(10, 4000)
    room.say(ana, *texts)
    waiting = ana.delivery(*texts)
    if event == "resets":
        slow.reset()
        room.gone(slow)
    elif event == "half-closes":
        slow.send(b"bye")
        slow.finish()
        room.hear(slow, "bye")
    else:
        assert slow.take(len(waiting)) == waiting
    room.server.wait_until_at_rest()  # which never comes when it spins
    room.say(ana, "next")
    if event == "half-closes":
        assert slow.rest() == waiting + ana.delivery("next")
        room.gone(slow)


@broadcasting
def test_reset_found_out_by_writing_leaves_the_line_unsaid(
    room: Room, ana: Peer, bea: Peer
) -> None:
    """The error is told once: after a send() that failed, recv() returns EOF."""
    victims = [room.join(listens=False) for _ in range(20)]
    for victim in victims:
        victim.send(b"whole\nhalf a li")
        room.hear(victim, "whole")
    with stopped(room.server):
        ana.say("one", "two")
        for victim in victims:
            victim.reset()
    room.gone(*victims)
    room.hear(ana, "one", "two")
    room.say(bea, "three")


# Threads: v1 needs one for each client.


@pytest.mark.servers("v1")
def test_no_more_threads(start: Start, strace: Strace) -> None:
    """EAGAIN from clone(2), as under a limit on processes: newcomers are told, the others are
    served, and there is a place again."""
    inject = "inject=clone,clone3:error=EAGAIN:when=3..5"
    server = start(wrapper=strace("-e", "trace=clone,clone3", "-e", inject))
    room = Room(server)
    ana, _bea = room.join(), room.join()
    for _ in range(3):
        refused(server)
    server.log.wait("Servidor lleno: no caben más hilos que 2".__eq__)
    room.say(ana, "still here")
    room.say(room.join(), "a place again")
    assert times_full(server) == 1


@pytest.mark.servers("v1")
@pytest.mark.parametrize("spare", [1, 3, 10])
def test_hardly_any_memory_for_threads(server: Server, spare: int) -> None:
    """Every newcomer is either let in or told, whatever is missing first; spare: MiB."""
    limit_memory(server, spare)
    peers = [Peer(server.address) for _ in range(40)]
    server.log.wait(FULL_LINE)
    assert not let_in(server, peers[-1])
    for peer in peers:
        let_in(server, peer)


@pytest.mark.servers("v1")
def test_long_lines_of_many_threads_stay_whole_in_the_log(room: Room) -> None:
    """pipe(7): what is longer than PIPE_BUF may be cut in two by another thread's write."""
    peers = [room.join() for _ in range(4)]
    texts = padded(15, 60_000)
    for text in texts:
        for peer in peers:
            peer.say(text)
    room.hear_all({f"{peer.name} dice: {text}" for peer in peers for text in texts})
