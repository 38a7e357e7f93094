"""What the contract does not say and an exercise of stages/exercises.md asks for.

Like the tests of the contract these need no more than a port:

    pytest tests/exercises/exercise_checks.py --server "COMMAND with {port}" -k WORD

The exercise says which word. Without --server they look at the server that the exercise begins
with, and all but nagle's must fail. No other run of pytest collects this file: its name does not
begin with `test_`.
"""

from __future__ import annotations

import contextlib
import fcntl
import resource
import select
import socket
import statistics
import sys
import termios
import time

import pytest

from benchmarks.harness.crowd import data_segments_in
from benchmarks.harness.process import DEADLINE, wait_until
from tests.support.needed import needed_in_ci
from tests.support.wire import HIGH_WATER, KERNEL_BUFFERS, PROMPTLY, Peer, Room, stopped

pytestmark = pytest.mark.wire

IDLE = 1.0
"""Seconds: what `--idle` says in the exercise."""
DELAYED_ACK = 0.04
"""Seconds for which Linux keeps an acknowledgement back at least: TCP_DELACK_MIN."""


@pytest.mark.servers("v3")
def test_poll_lets_1100_clients_in(room: Room, ana: Peer, bea: Peer) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1300:
        needed_in_ci("a hard limit of 1,300 descriptors (ulimit -Hn)")
    *crowd, last = (Peer(room.server.address) for _ in range(1098))
    with contextlib.suppress(ConnectionError):  # refused, and closed already
        last.say("so many of us")
    wait_until(lambda: bea.answered() or last.answered(), "the last is neither heard nor told")
    assert not last.answered(), f"the last of 1,100 clients is told {last.rest()!r}"
    room.hear(last, "so many of us")
    room.say(ana, "welcome")
    for peer in crowd:
        assert peer.line() == f"{last.name} dice: so many of us"
    for peer in (*crowd, last):
        assert peer.line() == f"{ana.name} dice: welcome"


class Flow:
    """One who talks as fast as she is read from, and all who read, in one thread that waits for
    nobody."""

    def __init__(self, room: Room, talker: Peer, *readers: Peer):
        self._server = room.server
        self._talker = talker
        self._words = bytearray()  # not yet taken by the kernel
        self._batches = 0
        self.sent = bytearray()  # as the others must hear it
        self.received: dict[Peer, bytearray] = {}
        for peer in (talker, *readers):
            self.add(peer)

    def add(self, reader: Peer) -> None:
        reader.sock.setblocking(False)
        self.received[reader] = bytearray()

    def step(self) -> int:
        """Send what is taken and read what is there; how many bytes that were."""
        moved = 0
        if self._words:
            with contextlib.suppress(BlockingIOError):
                moved = self._talker.sock.send(self._words)
                del self._words[:moved]
        for reader, received in self.received.items():
            with contextlib.suppress(BlockingIOError):
                data = reader.sock.recv(1 << 18)
                assert data, f"{reader.name} was disconnected"
                received += data
                moved += len(data)
        return moved

    def until_held(self) -> None:
        """Talk until the server no longer reads what is there, and the kernel takes no more.

        Failed when it reads on, whatever is said. Long lines fill buffers; short ones end a turn
        before all of them are handled.
        """
        limit, seconds = 2 * KERNEL_BUFFERS, 1.0
        end = self._server.end_of(self._talker.sock)
        if end:  # what is not read does not fill megabytes
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            self._talker.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
            limit, seconds = 5 * HIGH_WATER, 0.1
        with end or contextlib.nullcontext():
            held = False
            while not held:
                while len(self._words) < 1 << 16:
                    texts = [f"{self._batches} ".ljust(8000, "p"), *map(str, range(40))]
                    self._words += "".join(f"{text}\n" for text in texts).encode()
                    self.sent += self._talker.delivery(*texts)
                    self._batches += 1
                taken = len(self.sent)
                assert taken < limit, "a sender is read from, however much waits for a client"
                if self.step():
                    continue
                # Everybody has heard what there is to hear, the kernel takes nothing, every thread
                # of the server sleeps. If it sleeps on, with bytes to read, it does not want them:
                # whom it waits for is neither TCP, which has timers of its own, nor us.
                self._server.wait_until_at_rest()
                switches = self._server.context_switches()
                self.wait(seconds)
                asleep = self._server.context_switches() == switches
                held = not self.step() and asleep and (end is None or unread(end) > 0)

    def until_received(self, reader: Peer, size: int) -> None:
        deadline = time.monotonic() + DEADLINE
        while len(self.received[reader]) < size:
            late = time.monotonic() > deadline
            received = f"{reader.name} has heard {len(self.received[reader])} of {size} bytes"
            assert not late, f"{received}, and no more comes"
            if not self.step():
                self.wait(0.1)

    def wait(self, seconds: float) -> None:
        """Until step() has something to do, or so long."""
        poll = select.poll()
        for peer in self.received:
            talks = peer is self._talker and self._words
            poll.register(peer.sock, select.POLLIN | (select.POLLOUT if talks else 0))
        poll.poll(seconds * 1000)

    def end(self) -> None:
        for peer in self.received:
            peer.sock.settimeout(DEADLINE)


def unread(end: socket.socket) -> int:
    """How many bytes wait to be read from this end of a connection."""
    return int.from_bytes(fcntl.ioctl(end, termios.FIONREAD, bytes(4)), sys.byteorder)


def held(room: Room, ana: Peer, bea: Peer) -> tuple[Flow, Peer]:
    """Nobody in the room is read from, because one does not read; whom the second is."""
    slow = room.join_slow()
    flow = Flow(room, ana, bea)
    flow.until_held()
    return flow, slow


@pytest.mark.servers("v3")
def test_pause_makes_everybody_wait_for_the_slow_reader(room: Room, ana: Peer, bea: Peer) -> None:
    """It is not dropped and gets all that was said, in order; meanwhile little more than
    HIGH_WATER waits for it in the server, since nobody else is read from."""
    room.log = None
    resident = room.server.resident_kib()
    flow, slow = held(room, ana, bea)
    assert room.server.resident_kib() - resident < 4 * HIGH_WATER >> 10, "KiB more"
    bea.say("me too")  # she has said nothing so far, and has to wait, too
    room.server.wait_until_at_rest()
    assert not flow.step(), "somebody hears something while the slow reader is behind"
    me_too = bea.delivery("me too")
    flow.add(slow)
    flow.until_received(slow, len(flow.sent) + len(me_too))
    flow.until_received(bea, len(flow.sent))
    flow.until_received(ana, len(me_too))
    flow.end()
    assert flow.received[slow].replace(me_too, b"", 1) == flow.sent
    assert flow.received[bea] == flow.sent
    assert flow.received[ana] == me_too
    room.say(ana, "together again")
    assert slow.line() == f"{ana.name} dice: together again"


@pytest.mark.servers("v3")
def test_pause_ends_when_the_slow_reader_leaves(room: Room, ana: Peer, bea: Peer) -> None:
    room.log = None
    flow, slow = held(room, ana, bea)
    slow.reset()
    flow.until_received(bea, len(flow.sent))
    flow.end()
    assert flow.received[bea] == flow.sent
    room.say(bea, "he has gone")


@pytest.mark.servers("v3")
def test_coalesce_sends_once_to_each_client_in_a_turn(room: Room) -> None:
    """A turn that brings lines of ten clients, since the server was stopped meanwhile. All of it
    fits into one segment; of two sends the first would have left at once, as one of its own."""
    ana, *speakers = (room.join() for _ in range(11))
    room.log = None
    texts = [f"line {number}" for number in range(20)]
    room.server.wait_until_at_rest()
    before = {peer: data_segments_in(peer.sock) for peer in (ana, *speakers)}
    with stopped(room.server):
        for speaker in speakers:
            speaker.say(*texts)
    for peer in (ana, *speakers):
        others = [speaker for speaker in speakers if speaker is not peer]
        lines = [peer.line() for _ in range(20 * len(others))]
        for speaker in others:
            expected = [f"{speaker.name} dice: {text}" for text in texts]
            assert [line for line in lines if line.startswith(speaker.name)] == expected
        segments = data_segments_in(peer.sock) - before[peer]
        assert segments == 1, f"{len(lines)} lines came in {segments} segments"
    room.say(ana, "alone", within=PROMPTLY)


@pytest.mark.servers("epoll")
def test_idle_clients_are_disconnected_in_time_and_for_no_wakeup_more(room: Room) -> None:
    server = room.server
    begin = time.monotonic()
    ana = room.join()
    silent = [room.join(listens=False) for _ in range(3)]
    joined = time.monotonic()
    while silent or time.monotonic() < begin + 2 * IDLE:
        for peer in list(silent):
            if closed(peer):
                now = time.monotonic()
                assert now >= begin + IDLE, "disconnected too soon"
                silent.remove(peer)
        due = silent and time.monotonic() > joined + IDLE + PROMPTLY
        assert not due, f"{len(silent)} silent clients are still there"
        spoke = time.monotonic()
        ana.say("still here")
        assert not closed(ana, IDLE / 5), "who has just spoken is not idle"
    server.wait_until_at_rest()
    switches = server.context_switches()
    time.sleep(max(0.0, spoke + 0.8 * IDLE - time.monotonic()))  # what is observed: hardly anything
    woken = server.context_switches() - switches
    assert woken <= 1, f"woken up {woken} times for one client, whose time has not come"
    assert closed(ana, spoke + IDLE + PROMPTLY - time.monotonic()), "the last client is still there"
    assert time.monotonic() >= spoke + IDLE, "disconnected too soon"
    server.wait_until_at_rest()
    switches = server.context_switches()
    time.sleep(0.3)  # what is observed is that nothing happens
    assert server.context_switches() == switches, "woken up for nobody"


def closed(peer: Peer, within: float = 0.001) -> bool:
    """Whether the server closes the connection within so many seconds; what it sends is lost."""
    with contextlib.suppress(TimeoutError):
        peer.rest(within)
        return True
    return False


@pytest.mark.servers("v3")
def test_nagle_keeps_no_line_back(room: Room, ana: Peer, bea: Peer) -> None:
    """Two lines for a client who has just spoken herself, so that her kernel keeps its
    acknowledgements back, in case that she goes on."""
    room.log = None
    gaps = []
    for number in range(20):
        room.say(bea, f"question {number}")
        ana.say("well", "yes")
        assert bea.line() == f"{ana.name} dice: well"
        begin = time.monotonic()
        assert bea.line() == f"{ana.name} dice: yes"
        gaps.append(time.monotonic() - begin)
    late = statistics.median(gaps)
    assert late < DELAYED_ACK / 2, f"the second of two lines comes {late * 1000:.1f} ms later"
