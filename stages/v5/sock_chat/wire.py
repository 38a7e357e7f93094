"""What servers write to one another by way of NATS, and where: the messages of the stream, the
values of the bucket, and the subjects and keys of both, which are ASCII.

A server writes under its lease, a random word, and numbers its messages: 1, 2, 3. Those numbers are
what every reader goes by (`replica`). In a message a client is a number, too, that its server has
given it and no other client while the lease lasts.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from sock_chat.events import Joined, Left, Renamed, RoomEvent, Said

POSITIONS = 1000  # of a message of the stream; nothing takes the first of them
MAX_ENTRIES = POSITIONS - 1


class Person(NamedTuple):
    author: int
    nick: str
    room: str


class SaidEntry(msgspec.Struct, array_like=True, tag="s", gc=False):
    author: int
    nick: str
    text: str


class JoinedEntry(msgspec.Struct, array_like=True, tag="j", gc=False):
    author: int
    nick: str


class LeftEntry(msgspec.Struct, array_like=True, tag="l", gc=False):
    author: int
    nick: str
    reason: str


class RenamedEntry(msgspec.Struct, array_like=True, tag="r", gc=False):
    author: int
    nick: str
    to: str


Entry = SaidEntry | JoinedEntry | LeftEntry | RenamedEntry


class Turned(msgspec.Struct, array_like=True, tag="t"):
    """What has happened in a room in a turn of a server's."""

    lease: str
    number: int
    at: int  # seconds since 1970
    room: str
    entries: list[Entry]

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.at, timezone.utc)


class Started(msgspec.Struct, array_like=True, tag="b"):
    """A server is there. The others answer with Members."""

    lease: str
    number: int


class Members(msgspec.Struct, array_like=True, tag="m"):
    """Who is in the rooms from this server, all that it has written before counted in."""

    lease: str
    number: int
    more: bool  # the next message goes on with them
    people: list[Person]


class Evicted(msgspec.Struct, array_like=True, tag="v"):
    """A client of another server's has lost its nick to one of this server's."""

    lease: str
    number: int
    other: str  # the lease of its server
    author: int


class Ended(msgspec.Struct, array_like=True, tag="e"):
    """A lease is over, whoever writes this: its people have left, its nicks are free."""

    lease: str


Numbered = Turned | Started | Members | Evicted
Message = Numbered | Ended


class PeerState(msgspec.Struct, array_like=True):
    """What a server knows of another one, or a part of it, with some of the people."""

    lease: str
    number: int | None
    known: bool
    evicted: list[int]
    people: list[Person]


class State(msgspec.Struct, array_like=True):
    """What a server has made of the stream up to a sequence. more: another part follows."""

    sequence: int
    more: bool
    peers: list[PeerState]
    ended: list[str]


class Claim(msgspec.Struct, array_like=True, frozen=True):
    """A nick that is held, under `nick`. token: a hash of what resumes its session, if anything."""

    lease: str
    author: int
    shown: str
    skeletons: list[str]
    address: str
    owner: bool
    token: str


class Gone(msgspec.Struct, array_like=True, frozen=True):
    """A session that can be resumed, under `token`."""

    shown: str
    room: str
    owner: bool


class BanValue(msgspec.Struct, array_like=True, frozen=True):
    who: str
    until: int  # seconds since 1970
    minutes: int
    lease: str  # and author: who gave the order
    author: int


class Problem(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class Answer(msgspec.Struct):
    """JetStream's, to what is written."""

    error: Problem | None = None


decode_answer = msgspec.json.Decoder(Answer).decode
encode = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(Message).decode
decode_state = msgspec.msgpack.Decoder(State).decode
decode_claim = msgspec.msgpack.Decoder(Claim).decode
decode_gone = msgspec.msgpack.Decoder(Gone).decode
decode_ban = msgspec.msgpack.Decoder(BanValue).decode


def to_ascii(text: str) -> str:
    """A token of a subject or of a key."""
    return urlsafe_b64encode(text.encode()).decode()


class Subjects:
    """name: what parts several chats on one NATS."""

    def __init__(self, name: str):
        self.stream = f"sock_chat_{name}"
        self.bucket = f"KV_{self.stream}"  # the stream of a KV bucket
        self.keys = f"$KV.{self.stream}."
        self._prefix = f"sock_chat.{name}"
        self.log = f"{self._prefix}.log.>"

    def room(self, name: str) -> str:
        return f"{self._prefix}.log.room.{to_ascii(name)}"

    def server(self, lease: str) -> str:
        return f"{self._prefix}.log.server.{lease}"

    def end(self, lease: str) -> str:
        return f"{self._prefix}.log.end.{lease}"

    def state(self, lease: str) -> str:
        """Requests for its State; not in the stream, as the next."""
        return f"{self._prefix}.state.{lease}"

    def to(self, lease: str) -> str:
        """Requests to a server about its clients."""
        return f"{self._prefix}.to.{lease}"


def to_entry(author: int, event: RoomEvent) -> Entry:
    if isinstance(event, Said):
        return SaidEntry(author, event.nick, event.text)
    if isinstance(event, Joined):
        return JoinedEntry(author, event.nick)
    if isinstance(event, Renamed):
        return RenamedEntry(author, event.nick, event.to)
    return LeftEntry(author, event.nick, event.reason or "")


def to_event(entry: Entry, at: datetime) -> RoomEvent:
    if isinstance(entry, SaidEntry):
        return Said(0, at, entry.nick, entry.text)
    if isinstance(entry, JoinedEntry):
        return Joined(entry.nick)
    if isinstance(entry, RenamedEntry):
        return Renamed(entry.nick, entry.to)
    return Left(entry.nick, entry.reason or UNSET)


def said(message: Turned, sequence: int) -> Iterable[Said]:
    """What was said in a message that stands in the stream, with its positions."""
    position, at = sequence * POSITIONS, message.time
    for entry in message.entries:
        if isinstance(entry, SaidEntry):
            position += 1
            yield Said(position, at, entry.nick, entry.text)
