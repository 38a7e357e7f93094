"""The reactor's back end on io_uring: it waits for completions instead of readiness.

What is queued by anybody goes to the kernel together with the wait, in one io_uring_enter(2).
Connections attach themselves: a receive is armed once and goes on completing, a send that
found the send buffer full completes when some of it was taken. What they get is kept in them, and
reported to the reactor as READABLE or WRITABLE, so that turns, requeueing, looking again, timers
and the stop are the reactor's, as ever. Other handlers, the listener and the wakeup, are asked
about as any back end does: a poll request completes when a descriptor is ready.

The user_data of a completion says whom it is for: a key that is given out once, and the kind of the
operation. A descriptor's number goes to the next one who asks; a key does not.
"""

from itertools import count
from typing import Dict, List, Optional, Protocol, Tuple

from lowlevel.reactor import READABLE, WRITABLE
from lowlevel.uring.buffers import Buffers
from lowlevel.uring.ring import (
    ASYNC_CANCEL,
    BUFFER_SELECT,
    CLOSE,
    F_BUFFER,
    F_MORE,
    POLL_ADD,
    RECV,
    RECV_MULTISHOT,
    SEND,
    SKIP_SUCCESS,
    Completion,
    Ring,
    address_of,
    sqe,
)

ENTRIES = 32768  # so many members are told by one call
BUFFERS, BUFFER_SIZE = 256, 4096
# Kinds of operations, in the low bits of user_data.
KIND_BITS = 3
KINDS = (1 << KIND_BITS) - 1
POLL, RECEIVE, TELL, OUT_BUFFER, OTHER = range(5)


class Owner(Protocol):
    """Somebody who receives and sends."""

    def fileno(self) -> int: ...

    def received(self, data: bytes) -> None: ...

    def receive_over(self, result: int) -> None:
        """The receive that was armed has ended. 0: the EOF; else a negative errno."""

    def out_buffer_sent(self, result: int) -> None:
        """How many bytes, or a negative errno."""

    def tell_fell_short(self, result: int) -> None:
        """So many bytes were taken of what it was told; or a negative errno, and none was."""


class Completions:
    """A back end, and the operations of those who do without readiness, its owners."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self._buffers = Buffers(ring, BUFFERS, BUFFER_SIZE)
        self._keys = count(1)
        self._owners: Dict[int, Owner] = {}
        self._out_buffers: Dict[int, bytes] = {}  # what the kernel still reads from
        self._polls: Dict[int, Tuple[int, int]] = {}  # descriptor: key, interest
        self._polled: Dict[int, int] = {}  # key: descriptor
        self._to_poll: List[int] = []  # descriptors
        self._ready: Dict[int, int] = {}  # descriptor: mask

    # What a back end does.

    def add(self, fd: int, interest: int) -> None:
        """Interest 0: the descriptor of an owner, which arms its own operations."""
        if interest:
            self._poll(fd, interest)

    def modify(self, fd: int, interest: int) -> None:
        self.remove(fd)
        self.add(fd, interest)

    def remove(self, fd: int) -> None:
        self._ready.pop(fd, None)
        key, _ = self._polls.pop(fd, (0, 0))
        if key:
            self._polled.pop(key, None)
            self._cancel(key << KIND_BITS | POLL)

    def wait(self, timeout: Optional[float]) -> List[Tuple[int, int]]:
        for fd in self._to_poll:
            if fd in self._polls:
                self._poll(fd, self._polls[fd][1])
        self._to_poll.clear()
        self.ring.wait(0 if self._ready else timeout)
        self._complete(self.ring.take())
        if not self._ready:
            return []
        ready, self._ready = self._ready, {}
        return list(ready.items())

    def close(self) -> None:
        """Cancel everything, and let go of every socket before the process ends: what is left to
        the kernel's own tidying up holds the port for a while."""
        for keys, kind in (
            (self._polled, POLL),
            (self._owners, RECEIVE),
            (self._out_buffers, OUT_BUFFER),
        ):
            for key in keys:
                self._cancel(key << KIND_BITS | kind)
        while True:
            self.ring.wait(0)
            if not self.ring.take() and not self.ring.pending:
                break
        self.ring.close()
        self._buffers.close()

    # What an owner does.

    def attach(self, owner: Owner) -> int:
        """A key, under which it will be told of what completes."""
        key = next(self._keys)
        self._owners[key] = owner
        return key

    def receive(self, key: int, fd: int) -> None:
        """Arm a receive: one submission, and a completion for every buffer that is filled."""
        user_data, group = key << KIND_BITS | RECEIVE, self._buffers.group
        self.ring.queue(sqe(RECV, fd, user_data, 0, 0, 0, BUFFER_SELECT, RECV_MULTISHOT, group))

    def stop_receiving(self, key: int) -> None:
        """What it had got is told before it is over."""
        self._cancel(key << KIND_BITS | RECEIVE)

    def send_out_buffer(self, key: int, fd: int, data: bytes, start: int) -> None:
        """Send from `start`, some of it, when there is space."""
        self._out_buffers[key] = data
        address, length = address_of(data) + start, len(data) - start
        self.ring.queue(sqe(SEND, fd, key << KIND_BITS | OUT_BUFFER, address, length))

    def release(self, key: int, fd: int, receiving: bool) -> None:
        """Cancel what it has under way, then close. Both are queued behind what it was still told:
        the number belongs to this connection until the kernel has seen all of that. And both are
        needed: a receive that is armed holds the connection, and no FIN is sent."""
        del self._owners[key]
        self._ready.pop(fd, None)
        if receiving:
            self.stop_receiving(key)
        if key in self._out_buffers:
            self._cancel(key << KIND_BITS | OUT_BUFFER)
        self.ring.queue(sqe(CLOSE, fd, OTHER, flags=SKIP_SUCCESS))

    def settle(self) -> None:
        """Let the kernel do what is queued, and tell those who fell short."""
        while self.ring.pending:
            self.ring.submit()
            self._complete(self.ring.take())

    def _poll(self, fd: int, interest: int) -> None:
        key = next(self._keys)
        self._polls[fd] = key, interest
        self._polled[key] = fd
        self.ring.queue(sqe(POLL_ADD, fd, key << KIND_BITS | POLL, operation_flags=interest))

    def _cancel(self, user_data: int) -> None:
        self.ring.queue(sqe(ASYNC_CANCEL, -1, OTHER, address=user_data, flags=SKIP_SUCCESS))

    def _complete(self, completions: List[Completion]) -> None:
        """Those who fell short come first: it happened while the sends were submitted, and what
        else they are told must go behind the rest."""
        for user_data, result, _ in completions:
            if user_data & KINDS == TELL:
                owner = self._owners.get(user_data >> KIND_BITS)
                if owner:
                    owner.tell_fell_short(result)
        for user_data, result, flags in completions:
            key, kind = user_data >> KIND_BITS, user_data & KINDS
            if kind == RECEIVE:
                self._complete_receive(key, result, flags)
            elif kind == OUT_BUFFER:
                del self._out_buffers[key]
                owner = self._owners.get(key)
                if owner:
                    owner.out_buffer_sent(result)
                    self._report(owner, WRITABLE)
            elif kind == POLL:
                fd = self._polled.pop(key, -1)
                if fd >= 0:
                    self._to_poll.append(fd)
                    self._ready[fd] = result

    def _complete_receive(self, key: int, result: int, flags: int) -> None:
        owner = self._owners.get(key)
        if flags & F_BUFFER:  # it goes back, whoever it was for
            data = self._buffers.take(flags >> 16, max(result, 0))
            if owner and data:
                owner.received(data)
        if owner:
            if not flags & F_MORE:
                owner.receive_over(result)
            self._report(owner, READABLE)

    def _report(self, owner: Owner, mask: int) -> None:
        fd = owner.fileno()
        self._ready[fd] = self._ready.get(fd, 0) | mask
