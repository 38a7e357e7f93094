r"""Say what goes through the rings of `python -m lowlevel uring`, among the marks of marks.py.

strace shows that io_uring_enter(2) was called, not what it was handed, nor what had been done when
it returned. So each submission and each completion is a mark of its own, in its place among the
calls, written by functions that are put around those of lowlevel/uring:

    {"at": ["lowlevel/uring/teller.py", 90, "tell"], "ours": ...,
     "operation": "IORING_OP_SEND", "text": "9, \"hola\\n\", 5, MSG_DONTWAIT|MSG_WAITALL)"}

at: the line that has queued it, just now or, what completes, at some time before. ours: the line
that called this. text: arguments and result, as strace writes those of a call. What has to be
known is recorded from the start; nothing is written before the marks are.
"""

import ctypes
import sys
from types import FrameType
from typing import Any, Callable, Dict, List

from lowlevel.uring import ring
from lowlevel.uring.buffers import Buffers

OPERATIONS = {
    ring.POLL_ADD: "IORING_OP_POLL_ADD",
    ring.ASYNC_CANCEL: "IORING_OP_ASYNC_CANCEL",
    ring.CLOSE: "IORING_OP_CLOSE",
    ring.SEND: "IORING_OP_SEND",
    ring.RECV: "IORING_OP_RECV",
}
SEND_FLAGS = {0x40: "MSG_DONTWAIT", 0x100: "MSG_WAITALL"}

Mark = Dict[str, Any]


class Recorder:
    """place: file, line and function of a frame. write: a mark, if marks are wanted now."""

    def __init__(self, place: Callable[[FrameType], List[Any]], write: Callable[[Mark], None]):
        self._place = place
        self._write = write
        self._queued: Dict[int, Mark] = {}  # by user_data, which comes back with the completion
        self._filled: Dict[int, Mark] = {}  # by the number of a buffer

    def watch(self) -> None:
        """All rings that are made from now on."""
        queue, take, take_buffer = ring.Ring.queue, ring.Ring.take, Buffers.take

        def recorded_queue(one: ring.Ring, sqes: Any) -> None:
            self._queue(bytes(sqes), sys._getframe(1))
            queue(one, sqes)

        def recorded_take(one: ring.Ring) -> List[ring.Completion]:
            completions = take(one)
            for completion in completions:
                self._complete(*completion)
            return completions

        def recorded_take_buffer(one: Buffers, number: int, length: int) -> bytes:
            data = take_buffer(one, number, length)
            mark = self._filled.pop(number)
            self._write({**mark, "text": f"{mark['fd']}, {quoted(data)}) = {length}"})
            return data

        ring.Ring.queue = recorded_queue  # type: ignore[assignment,method-assign]
        ring.Ring.take = recorded_take  # type: ignore[assignment,method-assign]
        Buffers.take = recorded_take_buffer  # type: ignore[assignment,method-assign]

    def _queue(self, sqes: bytes, frame: FrameType) -> None:
        assert frame.f_back
        places = {"at": self._place(frame), "ours": self._place(frame.f_back)}
        for sqe in ring.SQE.iter_unpack(sqes):
            opcode, _, _, fd, _, address, length, flags, user_data, _ = sqe
            mark = {**places, "operation": OPERATIONS[opcode], "fd": fd}
            self._queued[user_data] = mark
            if opcode == ring.SEND:
                names = "|".join(name for flag, name in SEND_FLAGS.items() if flags & flag)
                data = quoted(ctypes.string_at(address, length))
                self._write({**mark, "text": f"{fd}, {data}, {length}, {names or 0})"})
            elif opcode != ring.RECV:  # one receive goes on for many messages
                self._write({**mark, "text": f"{fd})"})

    def _complete(self, user_data: int, result: int, flags: int) -> None:
        mark = self._queued[user_data]
        if flags & ring.F_BUFFER:
            self._filled[flags >> 16] = mark
        else:
            self._write({**mark, "text": f"{mark['fd']}) = {result}"})


def quoted(data: bytes) -> str:
    text = data.decode("latin-1").encode("unicode_escape").decode("ascii")
    return '"' + text.replace('"', '\\"') + '"'
