"""io_uring on a FakeKernel: what is submitted is done for its sockets in memory, in any order and
in any pieces that the real one may choose, and what must not be submitted is asserted."""

from __future__ import annotations

import ctypes
import errno
import random
from dataclasses import dataclass
from typing import Any

from lowlevel.reactor import READABLE
from lowlevel.uring import ring
from lowlevel.uring.buffers import ENTRY, ENTRY_SIZE, TAIL
from lowlevel.uring.ring import SQE, SQE_SIZE

DONTWAIT, WAITALL = 0x40, 0x100


@dataclass(eq=False)
class Request:
    """A submission that has not completed for the last time."""

    opcode: int
    fd: int
    address: int
    length: int
    user_data: int
    sock: Any  # which it holds, whatever becomes of the descriptor
    cancelled: bool = False
    data: bytes = b""  # what is to be sent, which must stay where it is


class FakeRing:
    """In place of Ring. Only with eager set everything moves that can."""

    def __init__(self, kernel: Any, seed: int):
        self.kernel = kernel
        self.random = random.Random(seed)
        self.eager = False
        self.entries = 4  # few, so that the queue is full now and then
        self.queued: list[bytes] = []
        self.requests: list[Request] = []
        self.completions: list[tuple[int, int, int]] = []
        self.used = 0  # provided buffers

    @property
    def pending(self) -> int:
        return len(self.queued)

    def register(self, operation: int, argument: bytearray, count: int) -> None:
        self.buffers = int.from_bytes(argument[:8], "little")
        self.mask = int.from_bytes(argument[8:12], "little") - 1

    def queue(self, sqes: bytes | memoryview) -> None:
        data = bytes(sqes)
        for start in range(0, len(data), SQE_SIZE):
            if len(self.queued) == self.entries:
                self.submit()
            self.queued.append(data[start : start + SQE_SIZE])

    def submit(self) -> None:
        queued, self.queued = self.queued, []
        for submission in queued:
            opcode, flags, _, fd, _, address, length, more, user_data, _ = SQE.unpack(submission)
            sock = self.kernel.sockets.get(fd)
            request = Request(opcode, fd, address, length, user_data, sock)
            if opcode == ring.ASYNC_CANCEL:
                for other in self.requests:
                    if other.user_data == address:
                        other.cancelled = True
            elif opcode == ring.CLOSE:
                self.kernel.sockets.pop(fd).fd = -1
            elif opcode == ring.SEND and more & DONTWAIT:
                assert more & WAITALL, "a short send would pass for a whole one"
                assert flags & ring.SKIP_SUCCESS
                sent = self._send(request, length)
                if sent < length:
                    self.completions.append((user_data, sent, 0))
            else:
                assert not flags & ring.SKIP_SUCCESS
                same = [other for other in self.requests if other.user_data == user_data]
                assert all(other.cancelled for other in same), "twice at a time"
                request.data = ctypes.string_at(address, length)
                self.requests.append(request)

    def wait(self, timeout: float | None) -> None:
        self.submit()
        self.random.shuffle(self.requests)
        for request in list(self.requests):
            if self.eager or self.random.random() < 0.7:
                self._progress(request)

    def take(self) -> list[tuple[int, int, int]]:
        completions, self.completions = self.completions, []
        return completions

    def close(self) -> None: ...

    def _progress(self, request: Request) -> None:
        assert ctypes.string_at(request.address, request.length) == request.data
        if request.opcode == ring.POLL_ADD:
            if request.cancelled:
                self._end(request, -errno.ECANCELED)
            elif request.sock is None and self.kernel.backlog and request.fd == 999_999:
                self._end(request, READABLE)
        elif request.opcode == ring.RECV:
            self._receive(request)
        elif request.cancelled:
            self._end(request, -errno.ECANCELED)
        else:
            sent = self._send(request, self.random.randint(1, request.length))
            if sent != -errno.EAGAIN:
                self._end(request, sent)

    def _receive(self, request: Request) -> None:
        for _ in range(self.random.randint(1, 4)):  # more than one turn of the server's
            sock = request.sock
            if sock.received:
                if self.random.random() < 0.1 and not self.eager:
                    self._end(request, -errno.ENOBUFS)
                    return
                buffer = self._buffer()
                if buffer is None:
                    self._end(request, -errno.ENOBUFS)
                    return
                address, size, number = buffer
                data = sock.recv(self.random.randint(1, size))
                ctypes.memmove(address, data, len(data))
                flags = ring.F_BUFFER | number << 16
                if self.random.random() < 0.1:  # the completion queue has overflowed
                    self._end(request, len(data), flags)
                    return
                self.completions.append((request.user_data, len(data), flags | ring.F_MORE))
            elif request.cancelled:
                break
            else:
                try:
                    assert sock.recv(1) == b""
                except BlockingIOError:
                    return
                except OSError as error:
                    self._end(request, -(error.errno or 0))
                    return
                self._end(request, 0)
                return
        if request.cancelled:
            self._end(request, -errno.ECANCELED)

    def _buffer(self) -> tuple[int, int, int] | None:
        tail = int.from_bytes(ctypes.string_at(self.buffers + TAIL, 2), "little")
        if self.used & 0xFFFF == tail:
            return None
        at = self.buffers + (self.used & self.mask) * ENTRY_SIZE
        self.used += 1
        address, size, number = ENTRY.unpack(ctypes.string_at(at, ENTRY.size))
        return address, size, number

    def _send(self, request: Request, length: int) -> int:
        assert request.sock, "a descriptor of somebody who has gone"
        data = ctypes.string_at(request.address, length)
        try:
            sent: int = request.sock.send(data)
        except OSError as error:
            return -(error.errno or 0)
        return sent

    def _end(self, request: Request, result: int, flags: int = 0) -> None:
        self.requests.remove(request)
        self.completions.append((request.user_data, result, flags))
