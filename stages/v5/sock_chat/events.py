"""What happens in the chat, and how each kind of client reads it.

An event has two forms. line() is for people with a terminal: lines of text, Spanish, each with its
"\\n"; those that the server says itself begin with "* ", which no nick can, and are at most
MAX_LINE bytes long. json() is for programs: one JSON object with a "type". An event that one kind
of client needs no word about is empty in that form.

Said, Joined, Left and Renamed are what the log of a room consists of, for everybody in it. The
other events are for one client.

No text comes in here that has not been through names.clean().
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

MAX_LINE = 400  # bytes of a line of the server's own, its "\n" included
MAX_NAMES = 20  # in a greeting
NICK_QUESTION = "¿Qué apodo quieres?"
NOT_YET = datetime.fromtimestamp(0, timezone.utc)  # when what has no position yet was said

_encode_lines = msgspec.json.Encoder().encode_lines


class Event(msgspec.Struct, tag_field="type", gc=False):
    """gc=False: events are many and refer to no event in turn but to messages, so no cycle."""

    def line(self) -> str:
        raise NotImplementedError

    def public(self) -> "Event":
        """As programs may see it."""
        return self


class Said(Event, tag="said"):
    """The log gives position and time: see log.Turn.number()."""

    position: int
    at: datetime
    nick: str
    text: str

    def line(self) -> str:
        return f"{self.nick} dice: {self.text}\n"

    def ack(self) -> "Ack":
        """What the speaker hears instead."""
        return Ack(self.position, self.at)

    def public(self) -> "Said":
        return self


class Post(Said, tag="said"):
    """Said with an id of the sender's, which nobody else gets to see."""

    id: str

    def ack(self) -> "Ack":
        return Ack(self.position, self.at, self.id)

    def public(self) -> Said:
        return Said(self.position, self.at, self.nick, self.text)


class Ack(Event, tag="ack"):
    position: int
    at: datetime
    id: str | UnsetType = UNSET

    def line(self) -> str:
        return ""


class Joined(Event, tag="joined"):
    nick: str

    def line(self) -> str:
        return f"* {self.nick} ha entrado.\n"


class Left(Event, tag="left"):
    nick: str
    reason: str | UnsetType = UNSET  # the text of /quit

    def line(self) -> str:
        return f"* {self.nick} ha salido{f': {self.reason}' if self.reason else '.'}\n"


class Renamed(Event, tag="renamed"):
    nick: str
    to: str

    def line(self) -> str:
        return f"* {self.nick} ahora es {self.to}.\n"


class Private(Event, tag="private"):
    nick: str
    text: str
    at: datetime

    def line(self) -> str:
        return f"{self.nick} te dice: {self.text}\n"


class History(Event, tag="history"):
    messages: Sequence[Said]

    def line(self) -> str:
        return "".join([f"[{each.at:%Y-%m-%d %H:%M:%S}] {each.line()}" for each in self.messages])


class Welcome(Event, tag="welcome"):
    """What one hears first in a room: history, then who is there. Afterwards it hears the room."""

    nick: str
    room: str
    members: Sequence[str]  # as many as are told, sorted
    count: int  # of all
    history: Sequence[Said]
    position: int  # the newest of all rooms; what the room hears later comes after it
    epoch: str
    gap: bool  # there is more between what the client knows and the history than it gets
    resume: str

    def line(self) -> str:
        return History(self.history).line() + own_lines(f"{self.who_is_there()}.")

    def who_is_there(self) -> str:
        names, more = ", ".join(self.members[:MAX_NAMES]), self.count - MAX_NAMES
        return f"En {self.room}: {names}{f' y {more} más' if more > 0 else ''}"


class Greeting(Welcome, tag="welcome"):
    """The first of a session."""

    def who_is_there(self) -> str:
        return f"Hola, {self.nick}. {Welcome.who_is_there(self)}"


class Notice(Event, tag="notice"):
    """An answer."""

    text: str

    def line(self) -> str:
        return own_lines(self.text)


class Error(Event, tag="error"):
    """A refusal."""

    text: str

    def line(self) -> str:
        return own_lines(self.text)


class Ask(Event, tag="ask"):
    """The next line is the answer. Programs know the words for it by themselves."""

    what: Literal["nick", "password"]
    text: str

    def line(self) -> str:
        return own_lines(self.text)

    def public(self) -> "Asked":
        return Asked(self.what)


class Asked(Event, tag="ask"):
    what: str


class Closing(Event, tag="closing"):
    retry_after: float  # seconds

    def line(self) -> str:
        return "* El servidor se cierra.\n"


def json_objects(events: Sequence[Event]) -> list[bytes]:
    """What programs see of each; in one step, for that is much faster than one by one."""
    public = [event if type(event) is Said else event.public() for event in events]
    return _encode_lines(public).split(b"\n")[:-1]


def json_acks(messages: Sequence[Said]) -> list[bytes]:
    """What programs see in the place of what they have said."""
    acks = [Ack(each.position, each.at) if type(each) is Said else each.ack() for each in messages]
    return _encode_lines(acks).split(b"\n")[:-1]


RoomEvent = Said | Joined | Left | Renamed


def own_lines(text: str) -> str:
    """Lines of the server's own, none longer than MAX_LINE: what does not fit goes on in the next,
    from a space on. Names have none, so a list is never broken within one."""
    return "".join([f"* {part}\n" for line in text.split("\n") for part in _folded(line)])


def _folded(line: str) -> Iterable[str]:
    width = MAX_LINE - len("* \n")
    data = line.encode()
    while len(data) > width:
        end = data.rfind(b" ", 0, width + 1)
        if end <= 0:
            end = len(data[:width].decode("utf-8", "ignore").encode())  # between two characters
        yield data[:end].decode()
        data = data[end:].removeprefix(b" ")
    yield data.decode()
