"""lowlevel's reactor: its rules one by one, on each back end. That a stop ends the turn:
test_looks.py; that a signal ends the wait: tests/contract/test_process.py."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial

import pytest

from benchmarks.harness.process import DEADLINE
from lowlevel.epoll_backend import EpollBackend
from lowlevel.reactor import HANGUP, READABLE, WRITABLE, Backend, Reactor
from lowlevel.selectors_backend import SelectorsBackend
from lowlevel.uring.completion import Completions
from lowlevel.uring.ring import Ring

BACKENDS: dict[str, Callable[[], Backend]] = {
    "selectors": SelectorsBackend,
    "epoll": EpollBackend,
    "epoll-et": lambda: EpollBackend(edge_triggered=True),
    "uring": lambda: Completions(Ring(64)),
}
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=BACKENDS)
def reactor(request: pytest.FixtureRequest) -> Iterator[Reactor]:
    reactor = Reactor(BACKENDS[request.param]())
    yield reactor
    reactor.close()


class Ear:
    """A handler that notes the masks that it is called with, and does what it is asked to."""

    def __init__(self, sock: socket.socket, action: Callable[[], None] = lambda: None):
        self.sock = sock
        self.action = action
        self.masks: list[int] = []

    def fileno(self) -> int:
        return self.sock.fileno()

    def handle(self, mask: int) -> None:
        self.masks.append(mask)
        self.action()


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    """What closes the sockets of the test at its end."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def pair(sockets: ExitStack) -> Pair:
    ours, theirs = (sockets.enter_context(sock) for sock in socket.socketpair())
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def test_reports_what_was_asked_about(reactor: Reactor, pair: Pair) -> None:
    ear = Ear(pair[0])
    reactor.register(ear, READABLE)
    reactor.poll(0)
    assert ear.masks == []
    pair[1].send(b"x")
    reactor.poll(None)
    assert ear.masks == [READABLE]
    reactor.modify(ear, WRITABLE)
    reactor.poll(None)
    assert ear.masks[1:] == [WRITABLE]
    reactor.modify(ear, READABLE)  # what was ready all the time is reported, edge or not
    reactor.poll(None)
    assert ear.masks[2:] == [READABLE]
    reactor.unregister(ear)
    reactor.poll(0)
    assert len(ear.masks) == 3


@pytest.mark.parametrize("interest", [READABLE, WRITABLE])
def test_an_end_is_reported_whatever_was_asked_about(
    reactor: Reactor, pair: Pair, interest: int
) -> None:
    ear = Ear(pair[0])
    with suppress(BlockingIOError):
        while interest == WRITABLE:  # until it is not
            pair[0].send(bytes(1 << 16))
    reactor.register(ear, interest)
    reactor.poll(0)
    assert ear.masks == []
    pair[1].close()
    reactor.poll(DEADLINE)
    assert ear.masks and ear.masks[0] & (READABLE | WRITABLE | HANGUP)


def test_a_newcomer_on_the_same_descriptor_gets_no_event_of_its_predecessor(
    reactor: Reactor, sockets: ExitStack
) -> None:
    """Two are ready in one batch; whoever is called first closes the other, who is not called any
    more, and the next socket that is opened has its number."""
    newcomers: list[Ear] = []

    def open_pair() -> list[socket.socket]:
        return [sockets.enter_context(sock) for sock in socket.socketpair()]

    def replace(ear: Ear) -> None:
        number = ear.fileno()
        reactor.unregister(ear)
        ear.sock.close()
        newcomers.extend(Ear(sock) for sock in open_pair() if sock.fileno() == number)
        reactor.register(newcomers[0], READABLE)

    pairs = open_pair(), open_pair()
    ears = [Ear(ours) for ours, _ in pairs]
    for ear, other, (_, theirs) in zip(ears, reversed(ears), pairs):
        ear.action = partial(replace, other)
        theirs.send(b"x")
        reactor.register(ear, READABLE)
    reactor.poll(None)
    assert sorted(len(ear.masks) for ear in ears) == [0, 1]
    assert [ear.masks for ear in newcomers] == [[]], "an event of somebody who has gone"


def test_requeued_handlers_are_called_in_the_next_turn_which_does_not_wait(
    reactor: Reactor, pair: Pair
) -> None:
    ear = Ear(pair[0])
    reactor.register(ear, READABLE)
    reactor.requeue(ear, READABLE)
    reactor.requeue(ear, HANGUP)
    reactor.poll(None)
    assert ear.masks == [READABLE | HANGUP]
    pair[1].send(b"x")
    reactor.requeue(ear, READABLE)
    reactor.poll(None)
    assert ear.masks[1:] == [READABLE], "ready and requeued is one call"
    reactor.requeue(ear, READABLE)
    reactor.unregister(ear)
    assert not reactor._requeued, "the next wait would end at once, for nobody"
    reactor.poll(0)
    assert len(ear.masks) == 2


def test_timers_come_in_their_order_and_not_before_their_time(reactor: Reactor) -> None:
    called: list[str] = []
    for delay, name in ((0.02, "second"), (0.01, "first"), (0.02, "third")):
        reactor.call_later(delay, partial(called.append, name))
    reactor.call_later(0.01, partial(called.append, "never")).cancel()
    started = time.monotonic()
    reactor.poll(0)
    assert called == []
    while len(called) < 3:
        reactor.poll(None)
    assert time.monotonic() - started >= 0.02
    assert called == ["first", "second", "third"]


def test_a_timer_of_a_timer_waits_for_the_next_turn(reactor: Reactor) -> None:
    """Or a timer that sets itself again would never let anybody else be called."""
    called: list[int] = []

    def again() -> None:
        called.append(1)
        reactor.call_later(0, again)

    again()
    for turn in (2, 3):
        reactor.poll(None)
        assert len(called) == turn


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
