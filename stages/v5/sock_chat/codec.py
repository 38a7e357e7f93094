"""Bytes to lines, and events to bytes: what stands between a connection and its session.

LineDecoder frames what comes from TCP. Whatever the segments are, the lines are the same: each
without its "\\n" and a "\\r" right before it, with U+FFFD where bytes are not UTF-8 and where a
character could do something to a terminal. A line that is too long is dropped up to its newline,
and what comes out in its place is a Refused: it is answered, in its turn, and costs no memory.
decode_frame() takes what a WebSocket has framed already.

A Codec writes events. It encodes each into a part and makes one write of many parts, in two steps,
so that what a turn has brought is encoded once for all clients with the same codec.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from sock_chat.events import MAX_NAMES, Event, Said, json_acks, json_objects
from sock_chat.names import clean

MAX_LINE = 4096  # bytes before the "\n" of a legal line
MAX_ID = 64  # characters
NO_OBJECT = "No conozco este objeto."
TOO_LONG = "Línea demasiado larga: 4096 bytes como mucho."


class Marked(NamedTuple):
    """A line with an id of its sender's: it is said once, however often it comes."""

    text: str
    id: str


class Resume(NamedTuple):
    """Instead of a nick: one's session from before the connection was cut."""

    token: str


class Refused(NamedTuple):
    """What is no input at all, and why."""

    text: str


class Control(NamedTuple):
    """What says nothing, and costs as much as a line: a ping, a part of a message."""

    text: str = ""


Input = str | Marked | Resume | Refused | Control


class LineDecoder:
    __slots__ = ("_dropping", "_partial")

    def __init__(self) -> None:
        self._partial = bytearray()  # what follows the last newline
        self._dropping = False  # it follows on a line that is too long

    def receive(self, data: bytes) -> list[Input]:
        """Take data; the lines that it completes, empty ones too."""
        end = data.rfind(b"\n") + 1
        if end == len(data) and not (self._partial or self._dropping):
            return _lines(data)  # nearly always
        lines: list[Input] = []
        if end:
            whole = data[:end]
            if self._dropping:
                self._dropping = False
                whole = whole[whole.index(b"\n") + 1 :]
            elif self._partial:
                whole = bytes(self._partial) + whole
                self._partial.clear()
            lines += _lines(whole)
        if not self._dropping:
            self._partial += data[end:]
            if len(self._partial) > MAX_LINE:
                self._partial.clear()
                self._dropping = True
                lines.append(Refused(TOO_LONG))
        return lines

    def finish(self) -> list[Input]:
        """The end of the stream ends a line as a newline would."""
        return self.receive(b"\n") if self._partial else []


def _lines(data: bytes) -> list[Input]:
    """The lines of data that ends in a newline, or is empty."""
    if not data.endswith(b"\n"):
        return []
    text = data[:-1].decode("utf-8", "replace")
    fits = len(data) <= MAX_LINE or max(map(len, data.split(b"\n"))) <= MAX_LINE
    if fits and text.replace("\n", "").isprintable():
        return [*text.split("\n")]  # nearly always, and far cheaper than a look at each
    return [_line(line) for line in data[:-1].split(b"\n")]


def _line(line: bytes) -> Input:
    if len(line) > MAX_LINE:
        return Refused(TOO_LONG)
    return clean(line.removesuffix(b"\r").decode("utf-8", "replace"))


class FrameObject(msgspec.Struct, forbid_unknown_fields=True):
    id: str = ""
    text: str = ""
    resume: str = ""


def decode_frames(frames: Sequence[bytes]) -> list[Input]:
    """Each is a line, or an object that is more than a line. UnicodeDecodeError: one of them is
    neither."""
    text = b"\n".join(frames).decode()
    if "{" not in text and text.replace("\n", "").isprintable():
        lines = text.split("\n")
        if len(lines) == len(frames):
            return [*lines]  # nearly always, and far cheaper than a look at each
    return [decode_frame(frame.decode()) for frame in frames]


def decode_frame(text: str) -> Input:
    if not text.startswith("{"):
        return clean(text)
    try:
        frame = msgspec.json.decode(text, type=FrameObject)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return Refused(NO_OBJECT)
    if frame.resume and not (frame.id or frame.text):
        return Resume(frame.resume)
    if frame.text and 0 < len(frame.id) <= MAX_ID and not frame.resume:
        return Marked(clean(frame.text), frame.id)
    return Refused(NO_OBJECT)


@dataclass(frozen=True, eq=False)
class Codec:
    """encode: a part for each event, which may be empty.
    acks: a part for each message, which its speaker gets in its place. None: it gets nothing.
    separator: what stands between two parts.
    wrap: makes of parts, joined, what is written.
    names: how many a welcome has.
    resumes: whether its clients know what a token to resume with is.
    """

    encode: Callable[[Sequence[Event]], list[bytes]]
    acks: Callable[[Sequence[Said]], list[bytes]] | None
    separator: bytes
    wrap: Callable[[bytes], bytes]
    names: int
    resumes: bool

    def write(self, event: Event) -> bytes:
        """What is written for an event that comes alone."""
        (part,) = self.encode([event])
        return self.wrap(part) if part else b""


def json_codec(array: Callable[[bytes], bytes]) -> Codec:
    """A JSON array for each write; array: makes it, and what carries it, of what is in it."""
    return Codec(
        encode=json_objects,
        acks=json_acks,
        separator=b",",
        wrap=array,
        names=1000,
        resumes=True,
    )


LINES = Codec(
    encode=lambda events: [event.line().encode() for event in events],
    acks=None,
    separator=b"",
    wrap=bytes,
    names=MAX_NAMES,
    resumes=False,
)
JSON = json_codec(b"[%b]".__mod__)
