"""The reactor: one loop that waits for readiness and calls whoever asked about it.

It follows redis' ae: a loop that knows nothing of sockets, over a back end that knows nothing of
handlers and of which there are several (`selectors_backend`, `epoll_backend`,
`uring.completion`). What is ready is said as a mask, whose bits are those of epoll(7):

READABLE    a read will not block: there are bytes, or newcomers, or an EOF, or an error.
WRITABLE    a write will take something, or fail.
HANGUP      the peer has sent its last, or the connection has failed. It is a reason to read, even
            for a handler that did not ask: EPOLLHUP and EPOLLERR cannot be masked, and whoever
            does not look at them is told again at once, for ever. What the peer sent before its
            end is still there and comes first; only read() tells how it really stands.
URGENT      there is urgent data, which ends a read early: it may leave bytes behind.

Readiness is a hint. Between the wait and the call a handler may have lost its reason, so it must
take EAGAIN for an answer. The one thing it may rely on: it is not called after unregister().
"""

import heapq
import socket
import time
from contextlib import suppress
from itertools import count
from typing import Callable, Dict, List, Optional, Protocol, Sequence, Tuple

READABLE = 0x001  # EPOLLIN
WRITABLE = 0x004  # EPOLLOUT
URGENT = 0x002  # EPOLLPRI
HANGUP = 0x008 | 0x010 | 0x2000  # EPOLLERR, EPOLLHUP, EPOLLRDHUP

CROWDED = 8  # turns that look again, too, after one in which several were ready


class Unavailable(Exception):
    """A back end cannot be had here, and why."""


class Handler(Protocol):
    """Somebody whom the reactor calls."""

    def fileno(self) -> int:
        """The descriptor, the same from register() to unregister()."""

    def handle(self, mask: int) -> None:
        """What of READABLE, WRITABLE, HANGUP and URGENT is the case, as far as the kernel knew."""


class Backend(Protocol):
    """What a reactor needs of select(), epoll or anything else that waits for descriptors."""

    def add(self, fd: int, interest: int) -> None:
        """Ask about READABLE, WRITABLE or both. What is ready already is reported, too."""

    def modify(self, fd: int, interest: int) -> None:
        """Ask about something else from now on, and about what is ready already, too."""

    def remove(self, fd: int) -> None:
        """Ask no more. The descriptor must still be open."""

    def wait(self, timeout: Optional[float]) -> Sequence[Tuple[int, int]]:
        """(descriptor, mask) of all that are ready, after `timeout` seconds at most; None: any."""

    def close(self) -> None: ...


class Timer:
    """A call that is due at `when`, in seconds of time.monotonic()."""

    def __init__(self, when: float, callback: Callable[[], None]):
        self.when = when
        self.callback: Optional[Callable[[], None]] = callback

    def cancel(self) -> None:
        self.callback = None


class Wakeup:
    """The self-pipe: a byte written to it ends a wait that has begun, and the next one if none
    has. Another thread writes it in Reactor.wakeup(), a signal by set_wakeup_fd(): by
    itself no signal ends a wait, PEP 475."""

    def __init__(self) -> None:
        self.receiver, self.sender = socket.socketpair()
        self.receiver.setblocking(False)
        self.sender.setblocking(False)

    def fileno(self) -> int:
        return self.receiver.fileno()

    def handle(self, mask: int) -> None:
        with suppress(BlockingIOError):
            while len(self.receiver.recv(4096)) == 4096:
                pass

    def close(self) -> None:
        self.receiver.close()
        self.sender.close()


Event = Tuple[Optional[Handler], int, int]  # whom it is about, if anybody; descriptor; mask


class Reactor:
    """Turns: wait once, call everyone who is ready, then whoever is due.

    before_wait: called at the end of every turn, like redis' beforesleep. What a turn has
        gathered goes out here.
    looks: how often a turn asks the back end again, without waiting, once everyone has been
        called, and calls whoever has become ready meanwhile. While what a turn has gathered is
        being sent, those who get it first answer. They come one after the other, and the first
        answer ends the wait; without a second look it costs a round of sends of its own. The
        number is a bound, so that a flood cannot hold back what was gathered, and a look that
        brings nobody is the last. Where one handler at a time is ready there is nothing to
        gather: only a turn in which several are, and CROWDED turns after it, look again.
    """

    def __init__(self, backend: Backend, looks: int = 0):
        self.before_wait: Callable[[], None] = lambda: None
        self._backend = backend
        self._looks = looks
        self._crowded = 0  # turns that will still look again
        self._handlers: Dict[int, Handler] = {}
        self._requeued: Dict[Handler, int] = {}  # with what mask; in the order of requeue()
        self._timers: List[Tuple[float, int, Timer]] = []
        self._order = count()  # of timers due at the same time
        self._stopped = False
        self._wakeup = Wakeup()
        self.register(self._wakeup, READABLE)

    def register(self, handler: Handler, interest: int) -> None:
        """Call `handler` when its descriptor is ready for `interest`. OSError: it cannot be
        watched."""
        fd = handler.fileno()
        self._backend.add(fd, interest)
        self._handlers[fd] = handler

    def modify(self, handler: Handler, interest: int) -> None:
        self._backend.modify(handler.fileno(), interest)

    def unregister(self, handler: Handler) -> None:
        """Never call it again, not even for what is ready already. To be called before its
        descriptor is closed, whose number goes to the next one who asks."""
        fd = handler.fileno()
        del self._handlers[fd]
        self._requeued.pop(handler, None)
        self._backend.remove(fd)

    def requeue(self, handler: Handler, mask: int) -> None:
        """Call it in the next turn whatever the kernel says, and do not wait before: it has more
        to do than fits in one turn, and about that no edge will come. `mask` is what it was
        called with, since a HANGUP is not told twice either."""
        self._requeued[handler] = self._requeued.get(handler, 0) | mask

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, `delay` seconds from now or a little later."""
        timer = Timer(time.monotonic() + delay, callback)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def wakeup(self) -> None:
        """End the wait. The one method that another thread may call."""
        with suppress(BlockingIOError):  # full of bytes that do the same
            self._wakeup.sender.send(b"\0")

    def wakeup_fd(self) -> int:
        """The descriptor for signal.set_wakeup_fd(): bytes written to it end the wait."""
        return self._wakeup.sender.fileno()

    def stop(self) -> None:
        """End run(), after the handler that is called now or next. Signal handlers may call it,
        other threads with a wakeup() after it."""
        self._stopped = True

    def run(self) -> None:
        """Turn after turn, until stop()."""
        while not self._stopped:
            self.poll(None)

    def poll(self, timeout: Optional[float]) -> None:
        """One turn, which begins after `timeout` seconds at the latest; None: when there is
        something to do."""
        if self._requeued:
            timeout = 0
        elif self._timers:
            due = max(0.0, self._timers[0][0] - time.monotonic())
            timeout = due if timeout is None else min(timeout, due)
        events = self._wait(timeout)
        if self._requeued:
            events = self._with_requeued(events)
        looks = self._looks if self._crowded or len(events) > 1 else 0
        ready = 0
        while events:
            ready += len(events)
            self._call(events)
            if self._stopped:
                return
            events = self._look_again() if looks else []
            looks -= 1
        self._crowded = CROWDED if ready > 1 else max(0, self._crowded - 1)
        if self._timers:
            self._call_due()
        self.before_wait()

    def _wait(self, timeout: Optional[float]) -> List[Event]:
        """Who is meant is settled now: a handler called later may close a descriptor, and another
        one accept a newcomer under the same number, which this event is not about."""
        handlers = self._handlers
        return [(handlers.get(fd), fd, mask) for fd, mask in self._backend.wait(timeout)]

    def _with_requeued(self, events: List[Event]) -> List[Event]:
        """They have waited longest, so they come first; whoever is in both is called once."""
        masks, self._requeued = self._requeued, {}
        ready = []
        for handler, fd, mask in events:
            if handler in masks:
                masks[handler] |= mask
            else:
                ready.append((handler, fd, mask))
        return [(handler, handler.fileno(), mask) for handler, mask in masks.items()] + ready

    def _look_again(self) -> List[Event]:
        """Whoever is requeued has had its turn. It waits for the next one together with what the
        back end says of it now, since that may be an edge."""
        ready = []
        for handler, fd, mask in self._wait(0):
            if handler in self._requeued:
                self._requeued[handler] |= mask
            else:
                ready.append((handler, fd, mask))
        return ready

    def _call(self, events: List[Event]) -> None:
        handlers = self._handlers
        for handler, fd, mask in events:
            if handler is not None and handlers.get(fd) is handler:
                handler.handle(mask)
                if self._stopped:
                    return

    def _call_due(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback:
                timer.callback()

    def close(self) -> None:
        """Close the wakeup and the back end; handlers stay as they are."""
        self._wakeup.close()
        self._backend.close()
