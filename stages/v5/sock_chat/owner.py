"""What a connection has to do with: the server that owns it, and the dialogue that it carries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from sock_chat.chat import Chat
from sock_chat.link import Reason
from sock_chat.turns import Turns

if TYPE_CHECKING:
    from sock_chat.connection import Connection


class Owner(Protocol):
    """What a connection needs of the server."""

    chat: Chat
    loop: asyncio.AbstractEventLoop
    turns: Turns

    def admit(self, connection: Connection) -> bool:
        """Whether come_in() is to be called now. If not, the connection has been closed, or
        another protocol has its transport, and calls it later."""

    def count_outside(self, connection: Connection) -> bool:
        """Whether it may stay, as far as one sees before it has a session."""

    def enter(self, connection: Connection) -> None:
        """Start the session, or end it instead."""

    def leave(self, connection: Connection, reason: Reason) -> None:
        """The connection is gone, however far it came."""


class Dialogue(Protocol):
    """What a connection is about: a session of the chat, or what comes before it."""

    deadline: float  # of expire(), on the chat's clock; NEVER: there is none

    @property
    def idle(self) -> bool:
        """Whether all its input has been handled."""

    def run(self, budget: int) -> float:
        """Handle input, and when to be called again: see session.Session.run()."""

    def expire(self) -> None:
        """The deadline is past."""

    def finish_input(self) -> None:
        """The client sends no more. It ends when all has been handled; call run()."""
