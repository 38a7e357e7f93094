"""What the page does with a connection that may be cut, sans-IO: the user's lines and the server's
events in, frames out.

It knows where it is: a room, and the newest position of it that it has seen. A line is pending from
when it is typed until it is acknowledged; on a new connection, once inside, all pending lines go
out again, with the ids that they had. What is typed after a /join or a /nick waits for its end, so
that it is said where and by whom the user has seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

Event = dict[str, Any]
RECENT = 20  # messages that a newcomer gets to see
REMEMBERED = 100.0  # seconds for which the server surely knows an id


@dataclass
class Line:
    id: str
    text: str
    time: float  # when it was typed

    @property
    def is_command(self) -> bool:
        return self.text.startswith("/")

    @property
    def moves(self) -> bool:
        """What comes next would be said somewhere else, or by somebody else."""
        return self.text.startswith(("/join ", "/nick "))


@dataclass
class View:
    """Messages of a room in a row: none between two of them is missing."""

    room: str
    start: int  # it knows everything after this position
    whole: bool  # there may be more before that
    messages: list[tuple[int, str]] = field(default_factory=list)  # positions and texts


class Reader:
    """nicks: those to try, the first one first. now: tells seconds."""

    def __init__(self, name: str, nicks: Iterator[str], now: Callable[[], float]):
        self.name = name
        self.nicks = nicks
        self.now = now
        self.nick = next(nicks)
        self.names: set[str] = set()  # that it had since its oldest pending line
        self.room = "general"
        self.since: int | None = None
        self.epoch = self.token = ""
        self.inside = False
        self.resuming = False
        self.resumed = False  # the server knew it
        self.refused_token = ""
        self.known_until = 0.0  # whoever tests it says until when the server has to know its token
        self.doubts = False  # the history may not show all that it has said
        self.unsure = False  # and the server did not know either
        self.pending: list[Line] = []
        self.sent = 0  # of the pending ones, on this connection
        self.views: list[View] = []
        self.members: list[str] = []
        self.typed: list[str] = []
        self.private: list[str] = []
        self.refused: list[str] = []
        self.frames: list[str] = []  # to be sent
        self._ids = count(1)

    def query(self) -> Event:
        query: Event = {"room": self.room}
        if self.since is not None:
            query |= {"since": self.since, "epoch": self.epoch}
        return query

    def close(self) -> None:
        """The connection has gone."""
        self.inside = False
        self.frames.clear()

    def open(self) -> None:
        """There is a new connection."""
        self.close()
        self.sent = 0
        self.resuming = self.resumed = bool(self.token)
        if self.token:
            self._send({"resume": self.token})

    def type(self, text: str) -> None:
        self.typed.append(text)
        if not self.pending:
            self.names = {self.nick}
        self.pending.append(Line(f"{self.name}{next(self._ids)}", text, self.now()))
        self._send_pending()

    def receive(self, event: Event) -> None:
        getattr(self, f"_{event['type']}", lambda event: None)(event)
        self._send_pending()

    def _send(self, frame: object) -> None:
        self.frames.append(frame if isinstance(frame, str) else json.dumps(frame))

    def _send_pending(self) -> None:
        while (
            self.inside
            and self.sent < len(self.pending)
            and not any(line.moves for line in self.pending[: self.sent])
        ):
            line = self.pending[self.sent]
            self.sent += 1
            self._send({"id": line.id, "text": line.text})

    def _resolve(self, line: Line) -> None:
        self.sent -= self.pending.index(line) < self.sent
        self.pending.remove(line)

    def _ask(self, event: Event) -> None:
        if not self.resuming:
            self.refused_token, self.token, self.resumed = self.token, "", False
            self._send(self.nick)
        self.resuming = False  # a second question refuses

    def _error(self, event: Event) -> None:
        if not self.inside:
            self.nick = next(self.nicks)
            self.resuming = False
            self._send(self.nick)
        elif line := next((line for line in self.pending[: self.sent] if line.is_command), None):
            self.refused.append(line.text)  # commands are done one after the other
            self._resolve(line)

    def _welcome(self, event: Event) -> None:
        since = -1 if self.inside or self.since is None else self.since
        join = f"/join {event['room']}"
        moved = since >= 0 and event["room"] != self.room
        moved &= join in [line.text for line in self.pending]
        comes_back = since >= 0 and event["room"] == self.room
        # Only what it has not seen yet may be what it waits for.
        unseen = since if since >= 0 and event["epoch"] == self.epoch else event["position"]
        if not comes_back or event["gap"]:
            start = event["history"][0]["position"] - 1 if event["history"] else event["position"]
            whole = event["gap"] or len(event["history"]) == RECENT
            self.views.append(View(event["room"], start, whole))
        done = [line.text for line in self.pending].index(join) + 1 if moved else 0
        for line in self.pending[:done]:  # they are handled in their order
            self._resolve(line)
        self.inside = True
        self.nick, self.room = event["nick"], event["room"]
        self.names.add(self.nick)
        self.epoch, self.token = event["epoch"], event["resume"]
        self.members = list(event["members"])
        rest = [line for line in self.pending if not line.is_command]
        for message in event["history"]:
            self._show(message)
            if message["position"] > unseen and message["nick"] in self.names:
                for index, line in enumerate(rest):
                    if line.text == message["text"]:
                        self._resolve(line)
                        del rest[: index + 1]
                        break
        assert event["history"] == sorted(event["history"], key=lambda each: each["position"])
        self.doubts = bool(self.pending and (self.doubts or event["gap"]))
        known = all(line.time + REMEMBERED > self.now() for line in self.pending)
        self.unsure |= self.doubts and not (self.resumed and known)
        self.since = event["position"]

    def _show(self, message: Event) -> None:
        self.views[-1].messages.append((message["position"], message["text"]))

    def _said(self, event: Event) -> None:
        assert self.since is not None and event["position"] > self.since
        self._show(event)
        self.since = event["position"]

    def _ack(self, event: Event) -> None:
        line = next((line for line in self.pending if line.id == event.get("id")), None)
        assert self.since is not None
        if line:
            self._resolve(line)
            if not line.is_command and event["position"] > self.since:
                self._show({"position": event["position"], "text": line.text})
        self.since = max(self.since, event["position"])

    def _joined(self, event: Event) -> None:
        assert event["nick"] not in self.members
        self.members.append(event["nick"])

    def _left(self, event: Event) -> None:
        self.members.remove(event["nick"])

    def _renamed(self, event: Event) -> None:
        self.members[self.members.index(event["nick"])] = event["to"]
        if event["nick"] == self.nick:
            self.nick = event["to"]
            self.names.add(self.nick)

    def _private(self, event: Event) -> None:
        self.private.append(event["text"])
