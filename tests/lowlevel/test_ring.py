"""What lowlevel's io_uring code takes the kernel's word for, on the kernel's own rings."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowlevel.uring import ring as uring
from lowlevel.uring.buffers import Buffers
from lowlevel.uring.completion import KIND_BITS, TELL, Completions
from lowlevel.uring.ring import Completion, Ring, address_of, sqe

WAITALL, DONTWAIT = 0x100, 0x40
NOP = 0

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["uring"])
def ring(request: pytest.FixtureRequest) -> Iterator[Ring]:
    ring = Ring(8)
    yield ring
    ring.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """TCP, since some of it is about send buffers, FIN and RST; a small send buffer here."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        theirs.connect(listener.getsockname())
        ours, _ = listener.accept()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with ours, theirs:
        theirs.settimeout(5)
        yield ours, theirs


def completed(ring: Ring, count: int) -> list[Completion]:
    """The next completions, when there are so many; what is queued is submitted."""
    completions: list[Completion] = []
    deadline = time.monotonic() + 5
    while len(completions) < count:
        assert time.monotonic() < deadline, completions
        ring.wait(1)
        completions += ring.take()
    return completions


def tell(sock: socket.socket, data: bytes, user_data: int = 1) -> bytes:
    flags = DONTWAIT | WAITALL
    address = address_of(data)
    fd = sock.fileno()
    return sqe(uring.SEND, fd, user_data, address, len(data), flags, uring.SKIP_SUCCESS)


def receive(fd: int, user_data: int) -> bytes:
    return sqe(
        uring.RECV, fd, user_data, flags=uring.BUFFER_SELECT, ioprio=uring.RECV_MULTISHOT, group=0
    )


def test_more_is_queued_than_fits_and_both_queues_go_round(ring: Ring) -> None:
    for turn in range(10):
        ring.queue(b"".join(sqe(NOP, -1, turn * 100 + number) for number in range(13)))
        expected = [(turn * 100 + number, 0, 0) for number in range(13)]
        assert completed(ring, 13) == expected
        assert ring.pending == 0


def test_nothing_is_lost_when_the_completion_queue_overflows(ring: Ring) -> None:
    """It takes 16. The kernel keeps the rest, and puts it there when there is space."""
    ring.queue(b"".join(sqe(NOP, -1, number) for number in range(50)))
    ring.submit()
    assert [user_data for user_data, _, _ in completed(ring, 50)] == list(range(50))


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EBUSY])
def test_what_the_kernel_has_no_room_for_is_retried_when_something_has_completed(
    ring: Ring, pair: Pair, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Completions are taken first, so that there is room; and where there are none, one is waited
    for, or it would be a spin."""
    Buffers(ring, 2, 16)
    calls: list[tuple[int, int]] = []
    failures = 0
    real = uring._syscall

    def enter(number: int, fd: int, submit: int, complete: int, *rest: object) -> int:
        nonlocal failures
        calls.append((submit, complete))
        assert len(calls) < 10, f"a spin: {calls}"
        if submit and failures:
            failures -= 1
            ctypes.set_errno(error)
            return -1
        return int(real(number, fd, submit, complete, *rest))

    monkeypatch.setattr(uring, "_syscall", enter)
    ring.queue(sqe(NOP, -1, 0) + sqe(NOP, -1, 1))
    ring.submit()
    failures = 2
    ring.queue(b"".join(sqe(NOP, -1, number) for number in range(2, 11)))  # one more than fits
    assert calls == [(2, 0), (8, 0), (8, 0), (0, 1), (8, 0)], "take, retry, wait for one, retry"
    assert [user_data for user_data, _, _ in completed(ring, 11)] == list(range(11))
    ring.queue(sqe(NOP, -1, 11))
    ring.submit()
    failures = 1
    ring.queue(receive(pair[0].fileno(), 12))
    ring.submit()
    ring.wait(5)
    assert calls[-1] == (1, 0), "it sleeps on what has been taken, and nobody knows of"
    assert ring.take() == [(11, 0, 0)]


def test_nothing_is_left_of_a_ring_that_is_closed(ring: Ring) -> None:
    """Neither its descriptor nor its memory."""

    def held() -> tuple[int, list[str]]:
        maps = Path("/proc/self/maps").read_text("ascii")
        return maps.count("[io_uring]"), os.listdir("/proc/self/fd")

    before = held()
    assert before[0], "the fixture's"
    another = Ring(64)
    assert held() != before
    another.close()
    assert held() == before


def test_a_wait_ends_in_time(ring: Ring) -> None:
    before = time.monotonic()
    ring.wait(0)
    ring.wait(0.02)
    assert 0.02 <= time.monotonic() - before < 5
    assert ring.take() == []


def test_a_send_that_succeeds_is_silent(ring: Ring, pair: Pair) -> None:
    ours, theirs = pair
    ring.queue(tell(ours, b"hello\n"))
    ring.submit()
    assert ring.take() == []
    assert theirs.recv(100) == b"hello\n"


def test_a_send_that_is_cut_short_says_so_and_in_the_end_that_nothing_fits(
    ring: Ring, pair: Pair
) -> None:
    """MSG_WAITALL together with MSG_DONTWAIT: without the first there would be silence. That a
    second send gets something in although the first did not get all is why nobody is sent
    anything before it is known what has become of the last."""
    ours, theirs = pair
    data = bytes(range(256)) * (1 << 12)
    results: list[int] = []
    while -errno.EAGAIN not in results:
        ring.queue(tell(ours, data))
        ring.submit()
        ((_, result, _),) = ring.take()
        results.append(result)
        assert result < len(data)
    expected = b"".join(data[: max(result, 0)] for result in results)
    received = b""
    while len(received) < len(expected):
        received += theirs.recv(1 << 16)
    assert received == expected


def test_a_send_to_a_client_that_is_gone_says_why(ring: Ring, pair: Pair) -> None:
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    ring.queue(tell(ours, b"x") * 2)
    ring.submit()
    assert [result for _, result, _ in ring.take()] == [-errno.ECONNRESET, -errno.EPIPE]


def test_one_submission_receives_until_the_end(ring: Ring, pair: Pair) -> None:
    ours, theirs = pair
    buffers = Buffers(ring, 4, 16)
    ring.queue(receive(ours.fileno(), 7))
    received = b""
    for number in range(20):  # five times round the buffers
        theirs.send(b"line %02d\n" % number)
        ((user_data, result, flags),) = completed(ring, 1)
        assert user_data == 7
        assert flags & (uring.F_BUFFER | uring.F_MORE) == uring.F_BUFFER | uring.F_MORE
        received += buffers.take(flags >> 16, result)
    assert received == b"".join(b"line %02d\n" % number for number in range(20))
    theirs.close()
    ((_, result, flags),) = completed(ring, 1)
    assert (result, flags & uring.F_MORE) == (0, 0)


def test_a_receive_without_a_buffer_ends_and_the_next_one_gets_the_rest(
    ring: Ring, pair: Pair
) -> None:
    ours, theirs = pair
    buffers = Buffers(ring, 2, 16)
    sent = bytes(range(100))
    theirs.send(sent)
    ring.queue(receive(ours.fileno(), 1))
    received, ends = b"", []
    while len(received) < len(sent):
        for _, result, flags in completed(ring, 1):
            if flags & uring.F_BUFFER:
                received += buffers.take(flags >> 16, result)
            if not flags & uring.F_MORE:
                ends.append(result)
                ring.queue(receive(ours.fileno(), 1))
    assert received == sent
    assert ends == [-errno.ENOBUFS] * 3


def test_buffers_may_go_back_in_any_order(ring: Ring, pair: Pair) -> None:
    ours, theirs = pair
    buffers = Buffers(ring, 4, 16)
    ring.queue(receive(ours.fileno(), 1))
    theirs.send(b"".join(b"%016d" % number for number in range(3)))
    first, *others = completed(ring, 3)
    taken = [buffers.take(flags >> 16, result) for _, result, flags in reversed(others)]
    assert taken == [b"%016d" % 2, b"%016d" % 1]
    theirs.send(b"".join(b"%016d" % number for number in range(3, 6)))
    taken = [buffers.take(flags >> 16, result) for _, result, flags in (*completed(ring, 3), first)]
    assert taken == [b"%016d" % number for number in (3, 4, 5, 0)], "the first was not given back"


def test_a_close_under_a_receive_needs_a_cancel_to_send_a_fin(ring: Ring, pair: Pair) -> None:
    ours, theirs = pair
    Buffers(ring, 2, 16)
    ring.queue(receive(ours.fileno(), 1))
    ring.submit()
    fd = ours.detach()
    os.close(fd)
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    ring.queue(sqe(uring.ASYNC_CANCEL, -1, 2, address=1, flags=uring.SKIP_SUCCESS))
    assert completed(ring, 1)[0][:2] == (1, -errno.ECANCELED)
    theirs.settimeout(5)
    assert theirs.recv(1) == b""


class Client:
    """An owner that keeps what it is told."""

    def __init__(self, sock: socket.socket):
        self.sock = sock
        self.input = b""
        self.results: list[int] = []

    def fileno(self) -> int:
        return self.sock.fileno()

    def received(self, data: bytes) -> None:
        self.input += data

    def receive_over(self, result: int) -> None:
        self.results.append(result)

    def out_buffer_sent(self, result: int) -> None:
        self.results.append(result)

    def tell_fell_short(self, result: int) -> None:
        self.results.append(result)


def test_whoever_gets_the_number_of_a_client_gets_nothing_else_of_it(
    ring: Ring, pair: Pair
) -> None:
    """What was queued for the one that leaves goes to it, before the number is free; what comes
    for it afterwards goes to nobody."""
    completions = Completions(ring)
    ours, theirs = pair
    leaver = Client(ours)
    key = completions.attach(leaver)
    number = ours.fileno()
    completions.receive(key, number)
    completions.wait(0)
    theirs.send(b"too late")
    ring.queue(tell(ours, b"farewell", key << KIND_BITS | TELL))
    completions.release(key, ours.detach(), receiving=True)
    fresh = socket.socketpair()
    assert number not in (sock.fileno() for sock in fresh), (
        "taken before the sends were handed over"
    )
    assert completions.wait(0) == []
    later = socket.socketpair()
    assert number in (sock.fileno() for sock in later)
    for _ in range(3):
        assert completions.wait(0) == []
    assert (leaver.input, leaver.results) == (b"", [])
    assert theirs.recv(100) == b"farewell"
    for sock in (*fresh, *later):
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
    for sock in (*fresh, *later):
        sock.close()
