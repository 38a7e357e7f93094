"""The contract of stages/README.md as far as the server's descriptors, threads, memory and CPU time
show it: what it does when they run out, and that it costs nothing when nothing happens."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from benchmarks.harness.process import DEADLINE
from benchmarks.harness.server import BROADCASTING, SERVERS, Server
from tests.conftest import PROGRAMS, LimitReached, Start, Strace
from tests.support.wire import FULL, KERNEL_BUFFERS, PROMPTLY, Peer, Room, refused

CPU_WHEN_FULL = 0.15
"""Share of one CPU that a server may use while it has no place for newcomers (the contract)."""

FULL_LINE = re.compile(r"Servidor lleno: .+").fullmatch

one_of_each = pytest.mark.servers(*PROGRAMS)


def test_socket_options(room: Room) -> None:
    ana = room.join()
    end = room.server.end_of(ana.sock)
    if end is None:
        pytest.fail("pidfd_getfd(2) is needed to see it: Linux 5.6, and the right to trace a child")
    with end:
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_idle_clients_cost_nothing(room: Room) -> None:
    """500 of them: no CPU time, no wakeup."""
    server = room.server
    peers = [Peer(server.address) for _ in range(500)]
    peers[0].send(b"half a line")
    for peer in peers:
        server.log.wait(f"Cliente conectado: {peer.name}".__eq__)
    server.wait_until_at_rest()
    cpu, switches = server.cpu_seconds(), server.context_switches()
    time.sleep(0.3)  # what is observed is that nothing happens
    assert server.context_switches() - switches == 0, "woken up with nothing to do"
    assert server.cpu_seconds() - cpu == 0


def cpu_share(server: Server, seconds: float) -> float:
    """Share of one CPU that the server uses in the next `seconds`."""
    cpu, started = server.cpu_seconds(), time.monotonic()
    time.sleep(seconds)  # the measurement itself
    return (server.cpu_seconds() - cpu) / (time.monotonic() - started)


def test_full_of_descriptors(start: Start, name: str) -> None:
    """16 are kept in reserve. Newcomers are told and closed, those inside talk on, and when one
    leaves there is a place again; each such episode is logged once."""
    server = start(limits={resource.RLIMIT_NOFILE: (40, 64)})
    room = Room(server, broadcasts=name in BROADCASTING)
    first = room.join()  # with which libuv opens a descriptor of its own
    first.close()
    room.gone(first)
    server.wait_until_at_rest()
    at_start = server.descriptors()
    full = 0
    for _ in range(2):
        crowd = [room.join() for _ in range(64 - 16 - at_start)]
        assert server.descriptors() == 64 - 16
        for _ in range(40):
            refused(server)
        full = server.log.wait(FULL_LINE, full) + 1
        crowd[0].say("we talk on")
        room.hear(crowd[0], "we talk on")
        early = Peer(server.address)
        early.send(b"already speaking\n" * 100)
        assert early.rest() == FULL, "it is told even when its own words were not read"
        for peer in crowd:
            peer.close()
            room.gone(peer)
        server.wait_until_at_rest()
    assert len(list(filter(FULL_LINE, server.log.all()))) == 2, "once per episode"


@pytest.mark.limit(
    "uvloop", reason="libuv closes newcomers when accept() fails; asyncio in v4 lets them wait"
)
@pytest.mark.servers(*PROGRAMS, "epoll-et")
def test_accept_fails_all_the_same(room: Room) -> None:
    """EMFILE although there is a reserve: the newcomer waits in the backlog, nobody spins,
    those inside talk, and it recovers by itself."""
    server = room.server
    ana, _bea = room.join(), room.join()
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (server.descriptors(), limits[1]))
    waiting = [Peer(server.address) for _ in range(40)]
    deadline = time.monotonic() + DEADLINE
    closed = False
    while not closed and not any(map(FULL_LINE, server.log.all())):
        assert time.monotonic() < deadline, "neither said to be full, nor closed"
        closed = bool(select.select([waiting[0].sock], [], [], 0.02)[0])
    assert cpu_share(server, 0.4) < CPU_WHEN_FULL
    ana.say("still here")
    room.hear(ana, "still here")
    if closed:
        assert {peer.rest() for peer in waiting} == {b""}, "neither let in nor told"
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        carla = room.join()
        carla.say("a place again")
        room.hear(carla, "a place again")
        raise LimitReached("closed without a word")
    assert len(list(filter(FULL_LINE, server.log.all()))) == 1, "once per episode"
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
    started = time.monotonic()
    for peer in waiting:
        server.log.wait(f"Cliente conectado: {peer.name}".__eq__)
        peer.close()
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
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    Peer(server.address).close()
    server.log.wait(lambda line: line.startswith("Cliente desconectado"))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (4, limits[1]))
    for _ in range(40):
        Peer(server.address)
    started = time.monotonic()
    while "EMFILE" not in trace.read_text():
        assert time.monotonic() - started < DEADLINE
        time.sleep(0.01)
    time.sleep(1.5 if name == "v4" else 0.5)  # the window that is looked at
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
    took = time.monotonic() - started
    newcomer = Peer(server.address)
    server.log.wait(f"Cliente conectado: {newcomer.name}".__eq__)
    failed = trace.read_text().count("EMFILE")
    if not any(map(FULL_LINE, server.log.all())):
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
    server = start(
        wrapper=strace("-e", "trace=accept4", "-e", f"inject=accept4:error={error}:when=1..2")
    )
    peer = Peer(server.address)
    server.log.wait(f"Cliente conectado: {peer.name}".__eq__)
    lines = list(filter(FULL_LINE, server.log.all()))
    if not lines:
        raise LimitReached("let in, and nothing said")
    assert len(lines) == 1, "once per episode"


@pytest.mark.servers("epoll", "epoll-et")
def test_newcomer_that_epoll_cannot_watch_is_told(start: Start, strace: Strace) -> None:
    """ENOSPC: the user watches as much as fs.epoll.max_user_watches allows. strace says so once,
    after the wakeup and the listener."""
    server = start(
        wrapper=strace("-e", "trace=epoll_ctl", "-e", "inject=epoll_ctl:error=ENOSPC:when=3")
    )
    refused(server)
    server.log.wait(re.compile(r"Servidor lleno: .+ No space left on device").fullmatch)
    peer = Peer(server.address)
    server.log.wait(f"Cliente conectado: {peer.name}".__eq__)


def test_burst_does_not_use_up_the_reserve(start: Start, strace: Strace, tmp_path: Path) -> None:
    """A hundred newcomers in one wakeup: those beyond the limit are refused one by one, and
    accept() never fails."""
    wrapper = strace("-e", "trace=accept,accept4")
    server = start(wrapper=wrapper, limits={resource.RLIMIT_NOFILE: (64, 64)})
    os.kill(server.pid, signal.SIGSTOP)
    peers = [Peer(server.address) for _ in range(100)]
    os.kill(server.pid, signal.SIGCONT)
    server.log.wait(FULL_LINE)
    inside = [let_in(server, peer) for peer in peers]
    assert "EMFILE" not in (tmp_path / "trace").read_text()
    assert 64 - 16 - 16 <= sum(inside) <= 64 - 16 - 4
    assert inside == sorted(inside, reverse=True), "the first to come were let in"


def let_in(server: Server, peer: Peer) -> bool:
    """Whether a newcomer was let in; else it must be told."""
    deadline = time.monotonic() + DEADLINE
    while f"Cliente conectado: {peer.name}" not in server.log.all():
        assert time.monotonic() < deadline, "neither let in nor told"
        if select.select([peer.sock], [], [], 0.02)[0]:
            assert peer.rest() == FULL
            return False
    return True


@one_of_each
def test_backlog_takes_a_burst_of_five_hundred(server: Server) -> None:
    """Without the server's help: the kernel completes the connections, listen(2). Where
    net.core.somaxconn is below 500 it cannot."""
    somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text())
    os.kill(server.pid, signal.SIGSTOP)
    with ExitStack() as stack:
        burst = [stack.enter_context(socket.socket()) for _ in range(min(500, somaxconn))]
        for sock in burst:
            sock.settimeout(0.9)  # a SYN that was dropped is sent again after a second
            sock.connect(server.address)
        os.kill(server.pid, signal.SIGCONT)
        server.log.wait(f"Cliente conectado: {burst[-1].getsockname()}".__eq__)


def test_reset_before_accept_is_dropped_silently(room: Room) -> None:
    """accept(2) still returns such a connection, and it may have no name any more."""
    ana, _bea = room.join(), room.join()
    os.kill(room.server.pid, signal.SIGSTOP)
    for _ in range(30):
        Peer(room.server.address).reset()
    os.kill(room.server.pid, signal.SIGCONT)
    carla = room.join()
    ana.say("nobody noticed")
    room.hear(ana, "nobody noticed")
    assert carla.name in "".join(room.server.log.all())
    assert not any("None" in line for line in room.server.log.all())


@pytest.mark.servers(*BROADCASTING)
def test_lines_before_a_reset_count_though_a_turn_does_not_take_them(room: Room) -> None:
    """What the kernel has taken before the RST is read and said, for as many turns as it takes."""
    _bea, _carla = room.join(), room.join()
    hasty = room.join(listens=False)
    os.kill(room.server.pid, signal.SIGSTOP)  # so that all of it is there, and the RST after it
    texts = [f"{number}" for number in range(5000)]
    hasty.say(*texts)
    hasty.send(b"half a li")
    hasty.reset()
    os.kill(room.server.pid, signal.SIGCONT)
    room.hear(hasty, *texts)
    room.gone(hasty)


@pytest.mark.servers(*BROADCASTING)
def test_flooder_that_never_reads_fills_no_memory(room: Room) -> None:
    """While much waits for it, its flood stays in the kernel, and so does it."""
    server = room.server
    ana, _bea = room.join(), room.join()
    flooder = room.join_slow()
    texts = [f"{number} ".ljust(8000, "f") for number in range(40)]
    ana.say(*texts)
    room.hear(ana, *texts)
    resident = server.resident_kib()
    flooder.sock.settimeout(0.3)
    sent = 0
    with suppress(TimeoutError):
        while sent < KERNEL_BUFFERS * 2:
            sent += flooder.sock.send(b"unheard of\n" * 10_000)
    assert sent < KERNEL_BUFFERS * 2, "somebody takes all that it sends"
    assert server.resident_kib() - resident < 2000, "KiB more"
    ana.say("we hear each other")
    room.hear(ana, "we hear each other")


@one_of_each
def test_refusing_is_cheap_when_newcomers_keep_coming(start: Start) -> None:
    """A newcomer that is refused every 20 ms does not make a server spin. --quiet still says it."""
    server = start("--quiet", limits={resource.RLIMIT_NOFILE: (64, 64)})
    for _ in range(64 - 16 - server.descriptors()):
        Peer(server.address)
    refused(server)
    cpu, started = server.cpu_seconds(), time.monotonic()
    for _ in range(20):
        refused(server)
        time.sleep(0.02)  # the pace of the newcomers
    assert (server.cpu_seconds() - cpu) / (time.monotonic() - started) < CPU_WHEN_FULL
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
            for number, peer in enumerate(peers):
                if number % 3 == 0:
                    peer.reset()
                else:
                    peer.finish()
            for number, peer in enumerate(peers):
                if number % 3:
                    peer.rest()
                    peer.close()

    first = Peer(server.address)  # with which libuv opens a descriptor of its own
    first.finish()
    first.rest()
    server.wait_until_at_rest()
    before = server.descriptors(), server.threads()
    visit(400)
    come_back_to(server, before)
    resident = server.resident_kib()
    visit(1600)
    come_back_to(server, before)
    # The allocator's own growth is less than that, and comes to an end; a leaked connection is not.
    assert server.resident_kib() - resident < 3000, "KiB more after 1,600 visitors"


@pytest.mark.long
@pytest.mark.servers("epoll", "uring")
def test_fifteen_thousand_clients_at_a_kibibyte_each(start: Start) -> None:
    """Or as many as the limit on descriptors permits: resident memory, without the kernel's."""
    server = start("--quiet")
    count = min(15_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    first = Peer(server.address)
    peers = [Peer(server.address) for _ in range(100)]
    server.wait_until_at_rest()
    resident = server.resident_kib()
    peers += [Peer(server.address) for _ in range(count)]
    peers[-1].say("all in")
    assert first.line() == f"{peers[-1].name} dice: all in"
    server.wait_until_at_rest()
    assert (server.resident_kib() - resident) / count <= 1.0, "KiB each"
    for peer in peers:
        peer.reset()  # a FIN would leave 15,000 ports in TIME_WAIT


def come_back_to(server: Server, before: tuple[int, int]) -> None:
    deadline = time.monotonic() + DEADLINE
    while (server.descriptors(), server.threads()) != before:
        assert time.monotonic() < deadline, "descriptors or threads are left behind"
        time.sleep(0.02)


def test_line_without_end_does_not_fill_memory(server: Server) -> None:
    ana = Peer(server.address)
    resident = server.resident_kib()
    with suppress(ConnectionError):
        for _ in range(1000):
            ana.send(b"x" * 65536)
        pytest.fail("64 MB of one line, and it is still there")
    assert server.resident_kib() - resident < 4000, "KiB more"
    server.log.wait(f"Cliente desconectado: {ana.name} (línea demasiado larga)".__eq__)


def test_everything_in_one_wake_up(room: Room) -> None:
    """Leavers, speakers and newcomers between two waits of the server, which is stopped
    meanwhile: descriptors are closed and given out again within one batch of events."""
    server = room.server
    ana, bea = room.join(), room.join()
    leavers = [room.join(listens=False) for _ in range(30)]
    speakers = [room.join(listens=False) for _ in range(10)]
    os.kill(server.pid, signal.SIGSTOP)
    for number, leaver in enumerate(leavers):
        if number % 3 == 0:
            leaver.send(b"half a line, and never said")
            leaver.reset()
        elif number % 3 == 1:
            leaver.close()
        else:
            leaver.send(b"last word of %d" % number)
            leaver.finish()
    for number, speaker in enumerate(speakers):
        speaker.say(f"speaker {number}")
    newcomers = [Peer(server.address) for _ in range(30)]
    for number, newcomer in enumerate(newcomers):
        newcomer.say(f"newcomer {number}")
    os.kill(server.pid, signal.SIGCONT)
    expected = {
        *(f"{leavers[n].name} dice: last word of {n}" for n in range(2, 30, 3)),
        *(f"{peer.name} dice: speaker {n}" for n, peer in enumerate(speakers)),
        *(f"{peer.name} dice: newcomer {n}" for n, peer in enumerate(newcomers)),
    }
    if room.broadcasts:
        for listener in (ana, bea):
            heard = [listener.line() for _ in expected]
            assert set(heard) == expected
    logged = 0
    for _ in expected:
        logged = server.log.wait(lambda line: " dice: " in line, logged) + 1
    assert {line for line in server.log.all() if " dice: " in line} == expected
    room.log = None
    ana.say("and on we go")
    room.hear(ana, "and on we go")


@pytest.mark.parametrize("event", ["catches up", "half-closes", "resets"])
@pytest.mark.servers(*BROADCASTING)
def test_slow_reader_does_not_make_it_spin(room: Room, event: str) -> None:
    """Room in a send buffer, an EOF, EPOLLHUP and EPOLLERR are reported again and again, for as
    long as one asks."""
    server = room.server
    ana, _bea = room.join(), room.join()
    slow = room.join_slow()
    texts = [f"{number} ".ljust(4000, "q") for number in range(10)]
    ana.say(*texts)
    room.hear(ana, *texts)
    waiting = ana.as_heard(*texts)
    if event == "resets":
        slow.reset()
        room.gone(slow)
    elif event == "half-closes":
        slow.send(b"bye")
        slow.finish()
        room.hear(slow, "bye")
    else:
        assert slow.take(len(waiting)) == waiting
    server.wait_until_at_rest()  # which never comes when it spins
    ana.say("next")
    room.hear(ana, "next")
    if event == "half-closes":
        assert slow.rest() == waiting + ana.as_heard("next")
        room.gone(slow)


@pytest.mark.servers(*BROADCASTING)
def test_reset_found_out_by_writing_leaves_the_line_unsaid(room: Room) -> None:
    """The error is told once: after a send() that failed, recv() returns EOF."""
    bea, carla = room.join(), room.join()
    victims = [room.join(listens=False) for _ in range(20)]
    for victim in victims:
        victim.send(b"whole\nhalf a li")
        room.hear(victim, "whole")
    os.kill(room.server.pid, signal.SIGSTOP)
    bea.say("one", "two")
    for victim in victims:
        victim.reset()
    os.kill(room.server.pid, signal.SIGCONT)
    for victim in victims:
        room.gone(victim)
    room.hear(bea, "one", "two")
    carla.say("three")
    room.hear(carla, "three")


@pytest.mark.servers("v1")
def test_no_more_threads(python: str, tmp_path: Path) -> None:
    """EAGAIN from clone(2), as under a limit on processes, here from a Thread.start() that fails:
    the newcomer is told, the others are served, and there is a place again when they leave."""
    script = tmp_path / "few_threads.py"
    script.write_text(
        "import runpy, sys, threading\n"
        "start = threading.Thread.start\n"
        "def limited(self):\n"
        "    if threading.active_count() >= 10:\n"
        '        raise RuntimeError("can\'t start new thread")\n'
        "    start(self)\n"
        "threading.Thread.start = limited\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    with Server(f"{python} {script} {SERVERS['v1'][-1]} --port {{port}}") as server:
        server.wait_until_at_rest()
        before = server.descriptors(), server.threads()
        for episode in (1, 2):
            peers = [Peer(server.address) for _ in range(8)]
            for peer in peers:
                server.log.wait(f"Cliente conectado: {peer.name}".__eq__)
            for _ in range(3):
                refused(server)
            peers[-1].say(f"still here {episode}")
            server.log.wait(f"{peers[-1].name} dice: still here {episode}".__eq__)
            for peer in peers:
                peer.close()
                server.log.wait(f"Cliente desconectado: {peer.name}".__eq__)
            come_back_to(server, before)  # a thread logs before it ends
        assert server.stop() == 0
        assert server.errors.rest() == []
        full = [line for line in server.log.all() if line.startswith("Servidor lleno")]
        assert full == ["Servidor lleno: no caben más hilos que 8"] * 2


@pytest.mark.servers("v1")
@pytest.mark.parametrize("spare", [1, 3, 10])
def test_hardly_any_memory_for_threads(start: Start, spare: int) -> None:
    """Every newcomer is either let in or told, whatever is missing first; spare: MiB."""
    server = start()
    used = int(Path(f"/proc/{server.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + (spare << 20)
    resource.prlimit(server.pid, resource.RLIMIT_AS, (limit, limit))
    peers = [Peer(server.address) for _ in range(40)]
    server.log.wait(FULL_LINE)
    assert not let_in(server, peers[-1])
    for peer in peers:
        let_in(server, peer)


@pytest.mark.servers("v1")
def test_long_lines_of_many_threads_stay_whole_in_the_log(room: Room) -> None:
    """pipe(7): what is longer than PIPE_BUF may be cut in two by another thread's write."""
    peers = [room.join() for _ in range(4)]
    texts = [f"{number} ".ljust(60_000, "l") for number in range(15)]
    for text in texts:
        for peer in peers:
            peer.say(text)
    expected = {f"{peer.name} dice: {text}" for peer in peers for text in texts}
    at = 0
    for _ in expected:
        at = room.server.log.wait(lambda line: " dice: " in line, at) + 1
    assert {line for line in room.server.log.all() if " dice: " in line} == expected
