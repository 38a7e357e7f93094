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
import os
import resource
import select
import signal
import socket
import statistics
import sys
import termios
import time
from pathlib import Path

import pytest

from benchmarks.harness.crowd import data_segments_in
from benchmarks.harness.process import DEADLINE
from benchmarks.harness.server import Server
from tests.support.needed import needed_in_ci
from tests.support.wire import HIGH_WATER, KERNEL_BUFFERS, PROMPTLY, Peer, Room

pytestmark = pytest.mark.wire

IDLE = 1.0
"""Seconds: what `--idle` says in the exercise."""
DELAYED_ACK = 0.04
"""Seconds for which Linux keeps an acknowledgement back at least: TCP_DELACK_MIN."""


@pytest.mark.servers("v3")
def test_poll_lets_1100_clients_in(room: Room) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1300:
        needed_in_ci("a hard limit of 1,300 descriptors (ulimit -Hn)")
    ana, bea = room.join(), room.join()
    crowd = [Peer(room.server.address) for _ in range(1098)]
    last = crowd[-1]
    with contextlib.suppress(ConnectionError):  # refused, and closed already
        last.say("so many of us")
    poll = select.poll()  # our own descriptors are too high for select(), too
    for peer in (bea, last):
        poll.register(peer.sock, select.POLLIN)
    ready = [fd for fd, _ in poll.poll(DEADLINE * 1000)]
    told = last.rest() if last.sock.fileno() in ready else b""
    assert not told, f"the last of 1,100 clients is told {told!r}"
    room.hear(last, "so many of us")
    ana.say("welcome")
    room.hear(ana, "welcome")
    for peer in crowd:
        if peer is not last:
            assert peer.line() == f"{last.name} dice: so many of us"
        assert peer.line() == f"{ana.name} dice: welcome"


class Flow:
    """One who talks as fast as she is read from, and all who read, in one thread that waits for
    nobody."""

    def __init__(self, room: Room, talker: Peer, *readers: Peer):
        self._server = room.server
        self._talker = talker
        self._words = bytearray()  # not yet taken by the kernel
        self._batches = 0
        self.said = bytearray()  # as the others must hear it
        self.heard: dict[Peer, bytearray] = {}
        for peer in (talker, *readers):
            self.add(peer)

    def add(self, reader: Peer) -> None:
        reader.sock.setblocking(False)
        self.heard[reader] = bytearray()

    def step(self) -> int:
        """Send what is taken and read what is there; how many bytes that were."""
        moved = 0
        if self._words:
            with contextlib.suppress(BlockingIOError):
                moved = self._talker.sock.send(self._words)
                del self._words[:moved]
        for reader, heard in self.heard.items():
            with contextlib.suppress(BlockingIOError):
                data = reader.sock.recv(1 << 18)
                assert data, f"{reader.name} was disconnected"
                heard += data
                moved += len(data)
        return moved

    def until_held(self) -> None:
        """Talk until the server no longer reads what is there, and the kernel takes no more.

        Failed when it reads on, whatever is said. Long lines fill buffers; short ones end a turn
        before all of them are handled.
        """
        limit = 2 * KERNEL_BUFFERS
        end = self._server.end_of(self._talker.sock)
        if end:  # what is not read does not fill megabytes
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            self._talker.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
            limit = 5 * HIGH_WATER
        with end or contextlib.nullcontext():
            self._until_held(limit, end)

    def _until_held(self, limit: int, end: socket.socket | None) -> None:
        while True:
            while len(self._words) < 1 << 16:
                texts = [f"{self._batches} ".ljust(8000, "p"), *map(str, range(40))]
                self._words += "".join(f"{text}\n" for text in texts).encode()
                self.said += self._talker.as_heard(*texts)
                self._batches += 1
            said = len(self.said)
            assert said < limit, "a sender is read from, however much waits for a client"
            if self.step():
                continue
            # Everybody has heard what there is to hear, the kernel takes nothing, every thread of
            # the server sleeps. If it sleeps on, with bytes to read, it does not want them: whom it
            # waits for is neither TCP, which has timers of its own, nor us, who read its log.
            self._server.wait_until_at_rest()
            switches = self._server.context_switches()
            self.wait(0.1 if end else 1.0)
            asleep = self._server.context_switches() == switches
            if not self.step() and asleep and (end is None or unread(end)):
                return

    def until_heard(self, reader: Peer, size: int) -> None:
        """Until the reader has heard so many bytes."""
        deadline = time.monotonic() + DEADLINE
        while len(self.heard[reader]) < size:
            late = time.monotonic() > deadline
            heard = f"{reader.name} has heard {len(self.heard[reader])} of {size} bytes"
            assert not late, f"{heard}, and no more comes"
            if not self.step():
                self.wait(0.1)

    def wait(self, seconds: float) -> None:
        """Until step() has something to do, or so long."""
        poll = select.poll()
        for peer in self.heard:
            talks = peer is self._talker and self._words
            poll.register(peer.sock, select.POLLIN | (select.POLLOUT if talks else 0))
        poll.poll(seconds * 1000)

    def end(self) -> None:
        for peer in self.heard:
            peer.sock.settimeout(DEADLINE)


def unread(end: socket.socket) -> int:
    """How many bytes wait to be read from this end of a connection."""
    return int.from_bytes(fcntl.ioctl(end, termios.FIONREAD, bytes(4)), sys.byteorder)


def held(room: Room) -> tuple[Flow, Peer, Peer, Peer]:
    """A room in which nobody is read from, because one of them does not read."""
    ana, bea = room.join(), room.join()
    slow = room.join_slow()
    room.log = None
    flow = Flow(room, ana, bea)
    flow.until_held()
    return flow, ana, bea, slow


@pytest.mark.servers("v3")
def test_pause_makes_everybody_wait_for_the_slow_reader(room: Room) -> None:
    """It is not dropped and gets all that was said, in order; meanwhile little more than
    HIGH_WATER waits for it in the server, since nobody else is read from."""
    resident = room.server.resident_kib()
    flow, ana, bea, slow = held(room)
    assert room.server.resident_kib() - resident < 4 * HIGH_WATER >> 10, "KiB more"
    bea.send(b"me too\n")  # she has said nothing so far, and has to wait, too
    room.server.wait_until_at_rest()
    assert not flow.step(), "somebody hears something while the slow reader is behind"
    me_too = bea.as_heard("me too")
    flow.add(slow)
    flow.until_heard(slow, len(flow.said) + len(me_too))
    flow.until_heard(bea, len(flow.said))
    flow.until_heard(ana, len(me_too))
    flow.end()
    assert flow.heard[slow].replace(me_too, b"", 1) == flow.said
    assert flow.heard[bea] == flow.said
    assert flow.heard[ana] == me_too
    ana.say("together again")
    room.hear(ana, "together again")
    assert slow.line() == f"{ana.name} dice: together again"


@pytest.mark.servers("v3")
def test_pause_ends_when_the_slow_reader_leaves(room: Room) -> None:
    flow, _ana, bea, slow = held(room)
    slow.reset()
    flow.until_heard(bea, len(flow.said))
    flow.end()
    assert flow.heard[bea] == flow.said
    bea.say("he has gone")
    room.hear(bea, "he has gone")


@pytest.mark.servers("v3")
def test_coalesce_sends_once_to_each_client_in_a_turn(room: Room) -> None:
    """A turn that brings lines of ten clients, since the server was stopped meanwhile. All of it
    fits into one segment; of two sends the first would have left at once, as one of its own."""
    ana, *speakers = (room.join() for _ in range(11))
    room.log = None
    room.server.wait_until_at_rest()
    before = {peer: data_segments_in(peer.sock) for peer in (ana, *speakers)}
    stop(room.server)
    for speaker in speakers:
        speaker.say(*(f"line {number}" for number in range(20)))
    os.kill(room.server.pid, signal.SIGCONT)
    for peer in (ana, *speakers):
        others = [speaker for speaker in speakers if speaker is not peer]
        heard = [peer.line() for _ in range(20 * len(others))]
        for speaker in others:
            expected = [f"{speaker.name} dice: line {number}" for number in range(20)]
            assert [line for line in heard if line.startswith(speaker.name)] == expected
        segments = data_segments_in(peer.sock) - before[peer]
        assert segments == 1, f"{len(heard)} lines came in {segments} segments"
    ana.say("alone")
    room.hear(ana, "alone", within=PROMPTLY)


def stop(server: Server) -> None:
    """SIGSTOP takes effect when the server wakes up for it, which must not be for a message."""
    os.kill(server.pid, signal.SIGSTOP)
    deadline = time.monotonic() + DEADLINE
    while Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "it does not stop"
        time.sleep(0.001)


@pytest.mark.servers("epoll")
def test_idle_clients_are_disconnected_in_time_and_for_no_wakeup_more(room: Room) -> None:
    server = room.server
    begin = time.monotonic()
    ana = room.join()
    silent = [room.join(listens=False) for _ in range(3)]
    joined = time.monotonic()
    here = 0
    while silent or time.monotonic() < begin + 2 * IDLE:
        for peer in list(silent):
            if closed(peer):
                now = time.monotonic()
                assert now >= begin + IDLE, "disconnected too soon"
                silent.remove(peer)
        due = silent and time.monotonic() > joined + IDLE + PROMPTLY
        assert not due, f"{len(silent)} silent clients are still there"
        here += 1
        said = time.monotonic()
        ana.say(f"still here {here}")
        gone = closed(ana, IDLE / 5)
        assert not gone, "who has just spoken is not idle"
    server.wait_until_at_rest()
    switches = server.context_switches()
    time.sleep(max(0.0, said + 0.8 * IDLE - time.monotonic()))  # what is observed: hardly anything
    woken = server.context_switches() - switches
    assert woken <= 1, f"woken up {woken} times for one client, whose time has not come"
    gone = closed(ana, said + IDLE + PROMPTLY - time.monotonic())
    assert gone, "the last client is still there"
    assert time.monotonic() >= said + IDLE, "disconnected too soon"
    server.wait_until_at_rest()
    switches = server.context_switches()
    time.sleep(0.3)  # what is observed is that nothing happens
    assert server.context_switches() == switches, "woken up for nobody"


def closed(peer: Peer, within: float = 0.0) -> bool:
    """Whether the server closes the connection within so many seconds; what it sends is lost."""
    deadline = time.monotonic() + within
    while True:
        peer.sock.settimeout(max(1e-6, deadline - time.monotonic()))
        try:
            if not peer.sock.recv(1 << 18):
                return True
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False


@pytest.mark.servers("v3")
def test_nagle_keeps_no_line_back(room: Room) -> None:
    """Two lines for a client who has just spoken herself, so that her kernel keeps its
    acknowledgements back, in case that she goes on."""
    ana, bea = room.join(), room.join()
    room.log = None
    gaps = []
    for number in range(20):
        bea.say(f"question {number}")
        room.hear(bea, f"question {number}")
        ana.say("well", "yes")
        assert bea.line() == f"{ana.name} dice: well"
        begin = time.monotonic()
        assert bea.line() == f"{ana.name} dice: yes"
        gaps.append(time.monotonic() - begin)
    late = statistics.median(gaps)
    assert late < DELAYED_ACK / 2, f"the second of two lines comes {late * 1000:.1f} ms later"
