"""lowlevel's reactor: its rules one by one, on each back end."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from benchmarks.harness.server import DEADLINE
from lowlevel.epoll_backend import EpollBackend
from lowlevel.reactor import HANGUP, READABLE, WRITABLE, Backend, Reactor
from lowlevel.selectors_backend import SelectorsBackend
from lowlevel.uring.completion import Completions

BACKENDS: dict[str, Callable[[], Backend]] = {
    "selectors": SelectorsBackend,
    "epoll": EpollBackend,
    "epoll-et": lambda: EpollBackend(edge_triggered=True),
}


@pytest.fixture(params=[*BACKENDS, "uring"])
def reactor(request: pytest.FixtureRequest) -> Iterator[Reactor]:
    reactor = Reactor(Completions() if request.param == "uring" else BACKENDS[request.param]())
    yield reactor
    reactor.close()


class Ear:
    """A handler that notes what it is told, and does what it is asked to."""

    def __init__(self, sock: socket.socket, action: Callable[[], None] = lambda: None):
        self.sock = sock
        self.action = action
        self.told: list[int] = []

    def fileno(self) -> int:
        return self.sock.fileno()

    def handle(self, mask: int) -> None:
        self.told.append(mask)
        self.action()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def test_reports_what_was_asked_about(reactor: Reactor, pair: Pair) -> None:
    ear = Ear(pair[0])
    reactor.register(ear, READABLE)
    reactor.poll(0)
    assert ear.told == []
    pair[1].send(b"x")
    reactor.poll(None)
    assert ear.told == [READABLE]
    reactor.modify(ear, WRITABLE)
    reactor.poll(None)
    assert ear.told[1:] == [WRITABLE]
    reactor.modify(ear, READABLE)  # what was ready all the time is reported, edge or not
    reactor.poll(None)
    assert ear.told[2:] == [READABLE]
    reactor.unregister(ear)
    reactor.poll(0)
    assert len(ear.told) == 3


@pytest.mark.parametrize("interest", [READABLE, WRITABLE])
def test_an_end_is_reported_whatever_was_asked_about(
    reactor: Reactor, pair: Pair, interest: int
) -> None:
    ear = Ear(pair[0])
    reactor.register(ear, interest)
    pair[1].close()
    reactor.poll(None)
    assert ear.told and ear.told[0] & (READABLE | WRITABLE | HANGUP)


def test_who_is_unregistered_is_not_called_even_if_it_was_ready(reactor: Reactor) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    ears = [Ear(ours) for ours, _ in pairs]
    for ear, other in zip(ears, reversed(ears)):
        ear.action = lambda other=other: reactor.unregister(other)  # type: ignore[misc]
        reactor.register(ear, READABLE)
    for _, theirs in pairs:
        theirs.send(b"x")
    reactor.poll(None)
    assert sorted(len(ear.told) for ear in ears) == [0, 1]
    for sock in (sock for both in pairs for sock in both):
        sock.close()


def test_a_newcomer_on_the_same_descriptor_gets_no_event_of_its_predecessor(
    reactor: Reactor,
) -> None:
    """Both are ready in one batch; whoever is called first closes the other, and the next socket
    that is opened has its number."""
    pairs = [socket.socketpair() for _ in range(2)]
    newcomers: list[Ear] = []
    fresh: list[socket.socket] = []

    def replace(other: socket.socket, ear: Ear) -> None:
        number = other.fileno()
        reactor.unregister(ear)
        other.close()
        fresh.extend(socket.socketpair())
        if fresh[0].fileno() != number:
            fresh.reverse()
        assert fresh[0].fileno() == number
        newcomers.append(Ear(fresh[0]))
        reactor.register(newcomers[0], READABLE)

    ears = [Ear(ours) for ours, _ in pairs]
    for ear, other in zip(ears, reversed(ears)):
        ear.action = lambda other=other: replace(other.sock, other)  # type: ignore[misc]
        reactor.register(ear, READABLE)
    for _, theirs in pairs:
        theirs.send(b"x")
    reactor.poll(None)
    assert [ear.told for ear in newcomers] == [[]], "an event of somebody who has gone"
    for sock in [*fresh, *(sock for both in pairs for sock in both)]:
        sock.close()


def test_requeued_handlers_are_called_in_the_next_turn_which_does_not_wait(
    reactor: Reactor, pair: Pair
) -> None:
    ear = Ear(pair[0])
    reactor.register(ear, READABLE)
    reactor.requeue(ear, READABLE)
    reactor.requeue(ear, HANGUP)
    reactor.poll(None)
    assert ear.told == [READABLE | HANGUP]
    pair[1].send(b"x")
    reactor.requeue(ear, READABLE)
    reactor.poll(None)
    assert ear.told[1:] == [READABLE], "ready and requeued is one call"
    reactor.requeue(ear, READABLE)
    reactor.unregister(ear)
    reactor.poll(0)
    assert len(ear.told) == 2
    assert not reactor._requeued, "the next wait would end at once, for nobody"


def test_timers_come_in_their_order_and_not_before_their_time(reactor: Reactor) -> None:
    called: list[str] = []
    reactor.call_later(0.02, lambda: called.append("second"))
    reactor.call_later(0.01, lambda: called.append("first"))
    reactor.call_later(0.02, lambda: called.append("third"))
    reactor.call_later(0.01, lambda: called.append("never")).cancel()
    started = time.monotonic()
    reactor.poll(0)
    assert called == []
    while len(called) < 3:
        reactor.poll(None)
    assert time.monotonic() - started >= 0.02
    assert called == ["first", "second", "third"]
    reactor.call_later(0, lambda: called.append("now"))
    reactor.poll(None)
    assert called[3:] == ["now"]


def test_a_timer_of_a_timer_waits_for_the_next_turn(reactor: Reactor) -> None:
    """Or a timer that sets itself again would never let anybody else be called."""
    called: list[int] = []

    def again() -> None:
        called.append(1)
        reactor.call_later(0, again)

    reactor.call_later(0, again)
    reactor.poll(None)
    assert called == [1]


def test_another_thread_ends_the_wait(reactor: Reactor) -> None:
    """Before it has begun, too, and however often."""
    for _ in range(100_000):
        reactor.wakeup()
    reactor.poll(None)
    turns: list[float] = []
    reactor.before_wait = lambda: turns.append(time.monotonic())
    thread = threading.Thread(target=reactor.wakeup)
    reactor.poll(0)
    thread.start()
    while len(turns) < 2:
        reactor.poll(DEADLINE)
    thread.join()
    assert turns[1] - turns[0] < DEADLINE
    before = time.monotonic()
    reactor.poll(0.05)
    assert time.monotonic() - before >= 0.05, "woken up once, and not again for it"


def test_a_signal_ends_the_wait(reactor: Reactor) -> None:
    caught: list[int] = []

    def stop(signum: int, _: object) -> None:
        caught.append(signum)
        reactor.stop()

    former = signal.signal(signal.SIGUSR1, stop)
    previous = signal.set_wakeup_fd(reactor.wakeup_fd(), warn_on_full_buffer=False)
    try:
        reactor.call_later(0, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        reactor.run()
    finally:
        signal.set_wakeup_fd(previous)
        signal.signal(signal.SIGUSR1, former)
    assert caught == [signal.SIGUSR1]


def test_stop_ends_the_turn_after_the_callback_that_is_running(reactor: Reactor) -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    ears = [Ear(ours, reactor.stop) for ours, _ in pairs]
    for ear, (_, theirs) in zip(ears, pairs):
        reactor.register(ear, READABLE)
        theirs.send(b"x")
    reactor.run()
    assert sum(len(ear.told) for ear in ears) == 1
    for sock in (sock for both in pairs for sock in both):
        sock.close()
