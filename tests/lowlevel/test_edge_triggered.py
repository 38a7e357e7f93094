"""The ways to get edge-triggered readiness wrong, one by one, on the kernel's own epoll.

Reactor, room and connections run in this process, turn by turn; level-triggered they must do the
same, and on completions, so each test runs for all three.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from benchmarks.harness.process import wait_until
from lowlevel.__main__ import LOOKS, LOOPS
from lowlevel.connection import LOW_WATER, READ_SIZE, Connection
from lowlevel.room import Flush


class House:
    """A room whose members are one end of a socket pair each; the tests have the other."""

    def __init__(self, loop: str):
        self.log: list[str] = []
        self.reactor, self.room, self.let_in = LOOPS[loop](LOOKS, Flush.TURN, self._hear)
        self.reactor.before_wait = self.room.flush
        self.ends: list[socket.socket] = []

    def _hear(self, lines: str) -> None:
        self.log += lines.split("\n")

    def guest(self, name: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        ours.setblocking(False)
        self.ends += [ours, theirs]
        self.let_in(theirs, name)
        return ours

    def turns(self, count: int = 1) -> None:
        for _ in range(count):
            self.reactor.poll(0)

    def lines_of(self, name: str) -> list[str]:
        prefix = f"{name} dice: "
        return [line.removeprefix(prefix) for line in self.log if line.startswith(prefix)]

    def left(self, name: str) -> bool:
        return self.log[-1] == f"Cliente desconectado: {name}"

    def member(self, name: str) -> Connection:
        member = next(member for member in self.room._members if member.name == name)
        assert isinstance(member, Connection)
        return member

    def stalled(self, name: str, more_than: int = LOW_WATER) -> socket.socket:
        """A guest for whom more than so much waits; above LOW_WATER it is not read from."""
        guest, speaker = self.guest(name), self.guest("speaker")
        while self.member(name)._waiting() <= more_than:
            speaker.send(b"s" * 5000 + b"\n")
            self.turns(2)
        speaker.shutdown(socket.SHUT_WR)
        self.turns(3)
        return guest

    def is_quiet(self) -> bool:
        """Whether nobody is ready, again and again, for nothing."""
        return not self.reactor._requeued and list(self.reactor._backend.wait(0)) == []

    def close(self) -> None:
        self.room.close()
        self.reactor.close()
        for end in self.ends:
            end.close()


@pytest.fixture(params=["epoll-et", "epoll", "uring"], ids=["edge", "level", "uring"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    house = House(request.param)
    yield house
    house.close()


def test_one_flooder_starves_nobody(house: House) -> None:
    """Draining to EAGAIN without a budget would serve a peer that never stops for ever."""
    flooder, ana = house.guest("flooder"), house.guest("ana")
    flooder.send(b"x" * 99 + b"\n" + (b"y" * 99 + b"\n") * 5000)
    ana.send(b"here\n")
    house.turns()
    assert house.lines_of("ana") == ["here"]
    assert 1 <= len(house.lines_of("flooder")) <= READ_SIZE // 100 + 1
    ana.send(b"and still here\n")
    house.turns()
    assert house.lines_of("ana") == ["here", "and still here"], "a turn of hers in each of his"


def test_many_flooders_starve_nobody(house: House) -> None:
    """Who had a turn comes after those who still wait for theirs, however much is said."""
    flooders = [house.guest(f"flooder {number}") for number in range(12)]
    ana = house.guest("ana")
    for flooder in flooders:
        flooder.send(b"f\n" * 8000)
    house.turns()
    for guest in [*flooders, ana]:  # or it would not be read from
        guest.recv(1 << 20)
    ana.send(b"here\n")
    house.turns()
    assert house.lines_of("ana") == ["here"]
    counts = [len(house.lines_of(f"flooder {number}")) for number in range(12)]
    assert max(counts) < 1.1 * min(counts), "turn about"


def test_urgent_data_leaves_nothing_behind(house: House) -> None:
    """A read stops at it, tcp(7), as short as if it had found the bottom."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ana = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    house.ends += [ana, theirs]
    house.let_in(theirs, "ana")
    ana.sendall(b"one\n")
    ana.send(b"!", socket.MSG_OOB)
    ana.sendall(b"two\n")

    def comes() -> bool:
        house.turns()
        return "two" in house.log[-1]

    wait_until(comes, "the rest does not come")
    house.turns(3)
    assert house.lines_of("ana") == ["one", "two"]
    assert not house.reactor._requeued


def test_what_the_budget_leaves_is_requeued(house: House) -> None:
    """All of it came with one edge; there is no other that would bring its reader back."""
    ana = house.guest("ana")
    lines = [f"line {number}" for number in range(20_000)]
    ana.sendall("".join(f"{line}\n" for line in lines).encode())
    house.turns(200)
    count = len(house.lines_of("ana"))
    assert count == len(lines), f"{count} of {len(lines)} lines, and no more come"
    assert house.lines_of("ana") == lines


@pytest.mark.parametrize("size", [0, 1, READ_SIZE - 5, READ_SIZE, READ_SIZE + 5, 3 * READ_SIZE])
def test_data_and_fin_that_come_together_leave_no_client_behind(house: House, size: int) -> None:
    """One event for both: the short read that takes the bytes must not end the turns."""
    ana = house.guest("ana")
    words = [b"w" * 99] * (size // 100) + [b"w" * (size % 100)]
    ana.send(b"\n".join(words))
    ana.shutdown(socket.SHUT_WR)
    house.turns(12)
    assert house.lines_of("ana") == [word.decode() for word in words if word]
    assert house.left("ana")
    assert ana.recv(1) == b""


def test_a_fin_after_the_data_has_an_edge_of_its_own(house: House) -> None:
    ana = house.guest("ana")
    ana.send(b"one\n")
    house.turns(2)
    ana.shutdown(socket.SHUT_WR)
    house.turns(2)
    assert house.left("ana")


def test_a_fin_between_requeue_and_read_is_not_missed(house: House) -> None:
    ana = house.guest("ana")
    ana.send(b"x" * (READ_SIZE - 1) + b"\n")
    house.turns()
    ana.send(b"last")
    ana.shutdown(socket.SHUT_WR)
    house.turns(4)
    assert house.lines_of("ana")[1:] == ["last"]
    assert house.left("ana")


def test_what_came_while_a_client_was_not_read_from_is_read_later(house: House) -> None:
    """Its edge came when nobody wanted it: asking anew must bring it back."""
    slow = house.stalled("slow")
    slow.send(b"meanwhile\n")
    house.turns(3)
    assert house.lines_of("slow") == [], "a client that talks and does not read has to wait"
    while not house.lines_of("slow"):
        slow.recv(1 << 20)
        house.turns()
    assert house.lines_of("slow") == ["meanwhile"]
    house.turns(3)
    slow.send(b"afterwards\n")
    house.turns()
    assert house.lines_of("slow") == ["meanwhile", "afterwards"]


def test_lines_that_the_budget_left_wait_with_their_client(house: House) -> None:
    """They are in no receive buffer, so nothing but a requeue brings them back."""
    slow, loud = house.guest("slow"), [house.guest(f"loud {number}") for number in range(5)]
    connection = house.member("slow")
    lines = [str(number % 10) for number in range(20_000)]
    slow.sendall("".join(f"{line}\n" for line in lines).encode())
    for guest in loud:
        guest.sendall((b"l" * (READ_SIZE - 1) + b"\n") * 6)
    house.turns(10)
    assert connection._waiting() > LOW_WATER
    assert connection._protocol.pending
    before = house.lines_of("slow")
    house.turns(3)
    assert house.lines_of("slow") == before, "a client that talks and does not read has to wait"
    while house.reactor._requeued or connection._waiting():
        with suppress(BlockingIOError):
            slow.recv(1 << 20)
        house.turns()
    assert house.lines_of("slow") == lines


@pytest.mark.parametrize("end", ["close", "finish"])
def test_the_end_of_a_client_that_is_not_read_from_does_not_spin(house: House, end: str) -> None:
    """EPOLLHUP cannot be masked: told, and told again, until somebody reads."""
    slow = house.stalled("slow")
    if end == "close":
        slow.close()
    else:
        slow.shutdown(socket.SHUT_WR)
    house.turns(6)
    assert house.left("slow") == (end == "close")
    assert house.is_quiet()


def test_an_end_with_little_left_to_send_does_not_spin(house: House) -> None:
    """An EOF stays readable: asked about while the last bytes wait, it would be told for ever."""
    slow = house.stalled("slow", more_than=0)
    assert house.member("slow")._waiting() < LOW_WATER
    slow.shutdown(socket.SHUT_WR)
    house.turns(3)
    assert house.is_quiet()
    while slow.recv(1 << 20):
        house.turns(2)
    assert house.left("slow")
