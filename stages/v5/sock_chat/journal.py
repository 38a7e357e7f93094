"""The operator's log: who comes, who goes and why, on stdout; what is said only when he wants it.

A line of text for each event, as the stages have it, or a JSON object (`--log json`), in which
whatever could do something to a terminal is escaped. What the server says about itself (that it
accepts, what fails) is text in either case.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime

from sock_chat.config import Config
from sock_chat.connection import Connection
from sock_chat.events import Said
from sock_chat.link import Reason
from sock_chat.log import Turn
from sock_chat.system import say, visible


class Journal:
    """today: tells date and time, in UTC."""

    def __init__(self, config: Config, today: Callable[[], datetime]):
        self._quiet = config.quiet
        self._json = config.log == "json"
        self._today = today
        self._full = False
        self.wants_messages = config.log_messages and not config.quiet

    def connected(self, connection: Connection) -> None:
        self._write("connected", f"Cliente conectado: {connection.name}", address=connection.name)

    def gone(self, connection: Connection, reason: Reason) -> None:
        """Whether it had come in or not; a reset during the handshake is not worth a line."""
        why = f" ({reason.value})" if reason.value else ""
        address, session = connection.name, connection.session
        if session is None:
            if why and reason is not Reason.FULL:  # of which full() has one line for many
                line = f"Cliente rechazado: {address}{why}"
                self._write("refused", line, address=address, reason=reason.value)
            return
        nick = session.nick.shown if session.nick else ""
        room = session.room_name if session.nick else ""
        line = f"Cliente desconectado: {address}{why}"
        self._write(
            "disconnected", line, address=address, nick=nick, room=room, reason=reason.value
        )

    def record(self, turn: Turn) -> None:
        """What was said in a turn; for --log-messages."""
        for _, event in turn.entries:
            if isinstance(event, Said):
                line = f"{event.nick} dice: {event.text}"
                self._write("said", line, nick=event.nick, room=turn.room, text=event.text)

    def full(self, reason: str) -> None:
        """Once per episode, which lasts until has_room()."""
        if not self._full:
            self._full = True
            self._write("full", f"Servidor lleno: {reason}", quiet=False, reason=reason)

    def has_room(self) -> None:
        self._full = False

    def _write(self, event: str, line: str, quiet: bool | None = None, **fields: str) -> None:
        if self._quiet if quiet is None else quiet:
            return
        if self._json:
            known = {name: value for name, value in fields.items() if value}
            say(
                json.dumps({"time": f"{self._today():%Y-%m-%dT%H:%M:%SZ}", "event": event, **known})
            )
        else:
            say(visible(line))
