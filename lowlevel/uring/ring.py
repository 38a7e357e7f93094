"""An io_uring instance: its two queues in shared memory, and the one system call that moves them.

It knows nothing of sockets and of chat: bytes of submissions in, completions out.

What stands here of numbers and structures is linux/io_uring.h as any kernel has it since 6.1, in 64
bits and little-endian, x86-64 and arm64 alike: a submission of 64 bytes and a completion of 16, as
neither SQE128 nor CQE32 is asked for. A later kernel adds at the end, and to what was reserved, and
what was reserved is 0 here. Elsewhere it has not been tried, so it is refused.
"""

import ctypes
import math
import mmap
import os
import struct
from errno import EAGAIN, EBUSY, EINTR, EINVAL, ENOMEM, ENOSYS, EPERM, ETIME
from typing import List, Optional, Tuple, Union

from lowlevel.reactor import Unavailable

SETUP, ENTER, REGISTER = 425, 426, 427  # on x86-64 and on arm64
# io_uring_setup(2)
SUBMIT_ALL, SINGLE_ISSUER, DEFER_TASKRUN = 1 << 7, 1 << 12, 1 << 13
PARAMETERS = struct.Struct("<7I12x10I10I")  # both offset tables end in 8 bytes we have no use for
OFF_SQES = 0x10000000
# io_uring_enter(2)
GETEVENTS, EXT_ARG = 1 << 0, 1 << 3
# A submission queue entry. Its last words are other things for other operations.
SQE = struct.Struct("<BBHiQQIIQH22x")
SQE_SIZE = SQE.size
POLL_ADD, ASYNC_CANCEL, CLOSE, SEND, RECV = 6, 14, 19, 26, 27
BUFFER_SELECT, SKIP_SUCCESS = 1 << 5, 1 << 6  # its flags
RECV_MULTISHOT = 1 << 1
# A completion queue entry: user_data, result, flags.
CQE = struct.Struct("<QiI")
F_BUFFER, F_MORE = 1 << 0, 1 << 1  # its flags; the buffer's number is in the upper half

RETRY_PAUSE = 10_000_000  # nanoseconds, at most, before what the kernel had no room for is retried

Completion = Tuple[int, int, int]

# Without argtypes a call costs half. An int goes as a C int then, which is right for the first
# six; the seventh is a size_t, whose upper half would be what happens to be there.
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_NO_ARGUMENT = (None, ctypes.c_size_t(0))


def sqe(
    opcode: int,
    fd: int,
    user_data: int,
    address: int = 0,
    length: int = 0,
    operation_flags: int = 0,
    flags: int = 0,
    ioprio: int = 0,
    group: int = 0,
) -> bytes:
    """A submission queue entry."""
    return SQE.pack(
        opcode, flags, ioprio, fd, 0, address, length, operation_flags, user_data, group
    )


def address_of(data: bytes) -> int:
    """Where they are in memory, for as long as somebody has a reference to them."""
    return ctypes.c_void_p.from_buffer(ctypes.c_char_p(data)).value or 0  # cast() costs thrice


def address_of_map(shared: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(shared))


class Ring:
    """entries: how many submissions fit; where memory is short, it gets fewer.

    Only the thread that made it may use it. Unavailable: it cannot be had.
    """

    def __init__(self, entries: int):
        self.fd, parameters = self._setup(entries)
        self.entries, completions = parameters[0], parameters[1]
        _, tail, mask, _, _, _, array = parameters[7:14]
        cq_head, cq_tail, cq_mask, _, _, cqes = parameters[17:23]
        size = max(array + 4 * self.entries, cqes + CQE.size * completions)
        self._rings = mmap.mmap(self.fd, size + -size % 4)
        self._sqes = mmap.mmap(self.fd, SQE_SIZE * self.entries, offset=OFF_SQES)
        words = self._words = memoryview(self._rings).cast("I")
        self._tail, self._mask = tail // 4, words[mask // 4]
        self._cq_head, self._cq_tail = cq_head // 4, cq_tail // 4
        self._cq_mask = words[cq_mask // 4]
        self._queued = words[self._tail]  # the tail, as it will be
        self.pending = 0  # submissions that the kernel has not taken yet
        self._cqes = memoryview(self._rings)[cqes : cqes + CQE.size * completions]
        # The queue is a ring of indices into an array of entries. Here they never change.
        for index in range(self.entries):
            words[array // 4 + index] = index
        self._taken: List[Completion] = []  # out of the queue to make room, nobody has had them
        self._timespec = ctypes.create_string_buffer(16)
        self._argument = ctypes.create_string_buffer(
            struct.pack("<QIIQ", 0, 0, 0, ctypes.addressof(self._timespec)), 24
        )
        self._timed = (self._argument, ctypes.c_size_t(24))

    @staticmethod
    def _setup(entries: int) -> Tuple[int, Tuple[int, ...]]:
        if os.uname().machine not in ("x86_64", "aarch64") or struct.calcsize("P") != 8:
            raise Unavailable("solo x86-64 y arm64")
        while True:
            parameters = bytearray(120)
            PARAMETERS.pack_into(
                parameters, 0, 0, 0, SUBMIT_ALL | SINGLE_ISSUER | DEFER_TASKRUN, *[0] * 24
            )
            fd: int = _syscall(SETUP, entries, (ctypes.c_char * 120).from_buffer(parameters))
            if fd >= 0:
                os.set_inheritable(fd, False)
                return fd, PARAMETERS.unpack(parameters)
            if ctypes.get_errno() != ENOMEM or entries < 64:
                raise Unavailable(why_not(ctypes.get_errno()))
            entries //= 2

    def queue(self, sqes: Union[bytes, memoryview]) -> None:
        """Submit these with the next call. What is queued before them is submitted now if they do
        not fit beside it."""
        while sqes:
            start = self._queued & self._mask
            count = min(len(sqes) // SQE_SIZE, self.entries - self.pending, self.entries - start)
            if not count:
                self.submit()
                continue
            at, size = start * SQE_SIZE, count * SQE_SIZE
            self._sqes[at : at + size] = sqes[:size]
            self._queued = (self._queued + count) & 0xFFFFFFFF
            self.pending += count
            sqes = sqes[size:]

    def submit(self) -> None:
        """Hand over what is queued. What it completes at once is then there to be taken."""
        self._enter(0, 0, _NO_ARGUMENT)

    def wait(self, timeout: Optional[float]) -> None:
        """Hand over what is queued, then wait until something has completed; `timeout` seconds at
        most, or until a signal comes."""
        if self._taken or (timeout is not None and timeout <= 0):
            self._enter(0, GETEVENTS, _NO_ARGUMENT)
        elif timeout is None:
            self._enter(1, GETEVENTS, _NO_ARGUMENT)
        else:
            seconds, rest = divmod(timeout, 1)
            struct.pack_into("<qq", self._timespec, 0, int(seconds), math.ceil(rest * 1e9))
            self._enter(1, GETEVENTS | EXT_ARG, self._timed)

    def _enter(self, complete: int, flags: int, argument: Tuple[object, ctypes.c_size_t]) -> None:
        self._words[self._tail] = self._queued
        taken = _syscall(ENTER, self.fd, self.pending, complete, flags, *argument)
        if taken >= 0:
            self.pending -= taken
        else:  # and nothing was taken
            error = ctypes.get_errno()
            if error in (EAGAIN, EBUSY):
                self._make_room()
            elif error not in (EINTR, ETIME):
                raise OSError(error, os.strerror(error))

    def _make_room(self) -> None:
        """EAGAIN: no memory for another request. EBUSY: no place for its completion. Either comes
        back when something completes, and until then to try again would be a spin."""
        completions = self._reap()
        self._taken += completions
        if not completions:
            struct.pack_into("<qq", self._timespec, 0, 0, RETRY_PAUSE)
            _syscall(ENTER, self.fd, 0, 1, GETEVENTS | EXT_ARG, *self._timed)

    def take(self) -> List[Completion]:
        """What has completed since the last time, in its order."""
        completions = self._reap()
        if self._taken:
            completions, self._taken = self._taken + completions, []
        return completions

    def _reap(self) -> List[Completion]:
        words, head, tail = self._words, self._words[self._cq_head], self._words[self._cq_tail]
        if head == tail:
            return []
        start, end = (head & self._cq_mask) * CQE.size, (tail & self._cq_mask) * CQE.size
        if start < end:
            completions = list(CQE.iter_unpack(self._cqes[start:end]))
        else:
            completions = [*CQE.iter_unpack(self._cqes[start:]), *CQE.iter_unpack(self._cqes[:end])]
        words[self._cq_head] = tail
        return completions

    def register(self, operation: int, argument: bytearray, count: int) -> None:
        """io_uring_register(2)."""
        buffer = (ctypes.c_char * len(argument)).from_buffer(argument)
        if _syscall(REGISTER, self.fd, operation, buffer, count) < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def close(self) -> None:
        """Whatever is under way is cancelled, some time after nobody refers to the ring."""
        self._words.release()
        self._cqes.release()
        self._rings.close()
        self._sqes.close()
        os.close(self.fd)


def why_not(error: int) -> str:
    """In one line, why io_uring_setup(2) fails with this."""
    release = os.uname().release
    if error == EINVAL:
        return f"hace falta Linux 6.1, y este es {release}"
    if error == EPERM:
        try:
            with open("/proc/sys/kernel/io_uring_disabled", encoding="ascii") as file:
                disabled = file.read().strip()
        except OSError:
            disabled = "0"
        if disabled != "0":
            return f"kernel.io_uring_disabled = {disabled}"
        return "lo prohíbe seccomp"
    if error == ENOSYS:
        return f"Linux {release} no lo tiene, o lo prohíbe seccomp"
    return os.strerror(error)
