"""WebSocket frames (RFC 6455) to lines, and events to frames, sans-IO.

ServerProtocol of the websockets library decides what a frame is. But its parser costs more than all
else that a message needs, so what is nearly everything, whole text frames of less than 126 bytes,
is taken apart here; the parser is made when something else comes, gets it whole, and goes when it
has no part of a message in it. So an idle browser has none.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from sock_chat.codec import MAX_LINE, Control, Input, decode_frames, json_codec

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without a compiler
    from websockets.utils import apply_mask

TEXT = 0x81  # the first byte of a whole text frame
MASKED = 0x80  # the second: so much and the length
LONG = 126  # bytes from which the length stands elsewhere
HEADER = 6  # bytes of such a frame before its payload: the last four are the mask
NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_BINARY, NO_STATUS = 1000, 1001, 1002, 1003, 1005
NOT_UTF8, POLICY, SLOW = 1007, 1008, 1013

_new_text = codecs.getincrementaldecoder("utf-8")


def array_frame(parts: bytes) -> bytes:
    """A JSON array in a text frame, unmasked, and so the same for everybody; what Frame.serialize()
    makes of it, in a tenth of the time."""
    size = len(parts) + 2
    if size < LONG:
        return b"\x81%c[%b]" % (size, parts)
    if size < 1 << 16:
        return b"\x81\x7e%b[%b]" % (size.to_bytes(2, "big"), parts)
    return b"\x81\x7f%b[%b]" % (size.to_bytes(8, "big"), parts)


def close_frame(code: int, reason: str = "") -> bytes:
    payload = b"" if code == NO_STATUS else Close(code, reason).serialize()
    return Frame(Opcode.CLOSE, payload).serialize(mask=False)


PING = Frame(Opcode.PING, b"").serialize(mask=False)
WEB = json_codec(array_frame)


def _cut(data: bytes, payloads: list[bytes]) -> int:
    """Cut short text frames off its beginning; where they end."""
    position, size = 0, len(data)
    while position + HEADER <= size and data[position] == TEXT:
        length = data[position + 1] - MASKED
        start = position + HEADER
        end = start + length
        if not 0 <= length < LONG or end > size:
            break
        payloads.append(apply_mask(data[start:end], data[position + 2 : start]))
        position = end
    return position


class FrameDecoder:
    """fast: whether it takes apart what it can itself.

    answers: what is to be sent to the client, for its pings. code: with which the connection is to
    be closed when all lines have been handled, as the client wants it or as its fault; 0: not.
    failed: whether it is its fault.
    """

    max_size = MAX_LINE  # bytes of a message
    decode = staticmethod(decode_frames)  # what messages are

    _fragments: list[bytes]  # of a message: while there is a decoder

    __slots__ = (
        "_decoder", "_fast", "_fed", "_fragments", "_partial", "_protocol", "answers", "code",
        "failed",
    )  # fmt: skip

    def __init__(self, fast: bool = True) -> None:
        self._fast = fast
        self._partial = b""  # the beginning of a short text frame
        self._protocol: ServerProtocol | None = None
        self._fed = 0  # bytes that it has been given and that make no whole frame yet
        self._decoder: codecs.IncrementalDecoder | None = None  # of a message in fragments
        self.answers = b""
        self.code = 0
        self.failed = False

    @property
    def in_message(self) -> bool:
        """Whether it has some fragments of a message."""
        return self._decoder is not None

    def receive(self, data: bytes) -> list[Input]:
        """Take data; the lines that it completes, and what costs as much."""
        lines: list[Input] = []
        if self.code:
            return lines
        if self._protocol is None and self._fast:
            if self._partial:
                data = self._partial + data
                self._partial = b""
            payloads: list[bytes] = []
            end = _cut(data, payloads)
            if payloads:
                try:
                    lines = self.decode(payloads)
                except UnicodeDecodeError:
                    self._take_one_by_one(payloads, lines)
                    return lines
            if end == len(data):
                return lines  # nearly always
            data = data[end:]
            if data[0] == TEXT and (len(data) == 1 or 0 <= data[1] - MASKED < LONG):
                self._partial = data
                return lines
        self._parse(data, lines)
        return lines

    def _take_one_by_one(self, payloads: Sequence[bytes], lines: list[Input]) -> None:
        """Up to the first that is no text."""
        try:
            for payload in payloads:
                lines += self.decode([payload])
        except UnicodeDecodeError:
            self._fail(NOT_UTF8)

    def _parse(self, data: bytes, lines: list[Input]) -> None:
        protocol = self._protocol
        if protocol is None:
            protocol = self._protocol = ServerProtocol(state=State.OPEN, max_size=self.max_size)
            self._fed = 0
        self._fed += len(data)
        protocol.receive_data(data)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            # Who wants the long form of a short length keeps the parser.
            self._fed -= HEADER + len(frame.data) + (2 if len(frame.data) > 125 else 0)
            self.take(frame, lines)
            if self.code:
                return
        if protocol.close_rcvd:  # amid a message in fragments, which the library takes for a fault
            self.code = protocol.close_rcvd.code
        elif protocol.close_sent:
            self._fail(protocol.close_sent.code)
        elif self._fed == 0 and self._fast and not self.in_message:
            self._protocol = None

    def take(self, frame: Frame, lines: list[Input]) -> None:
        """A frame that the parser has got whole."""
        data = bytes(frame.data)
        if frame.opcode is Opcode.CLOSE:
            self.code = Close.parse(data).code
        elif frame.opcode is Opcode.BINARY:
            self._fail(NO_BINARY)
        elif frame.opcode in (Opcode.PING, Opcode.PONG):
            lines.append(Control())
            if frame.opcode is Opcode.PING:
                self.answers += Frame(Opcode.PONG, data).serialize(mask=False)
        else:
            self._take_text(data, frame.fin, lines)

    def _take_text(self, data: bytes, is_last: bool, lines: list[Input]) -> None:
        if self._decoder is None:
            self._decoder, self._fragments = _new_text(), []
        try:
            self._decoder.decode(data, is_last)
        except UnicodeDecodeError:
            self._fail(NOT_UTF8)
            return
        if data:  # any number of empty ones may come
            self._fragments.append(data)
        if is_last:
            lines += self.decode([b"".join(self._fragments)])
            self._decoder = None
            del self._fragments
        else:
            lines.append(Control())

    def _fail(self, code: int) -> None:
        self.code, self.failed = code, True
        self._protocol = self._decoder = None
