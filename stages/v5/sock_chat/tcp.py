"""A connection that speaks lines over TCP."""

from __future__ import annotations

from sock_chat.chat import Visit
from sock_chat.codec import LineDecoder
from sock_chat.connection import Connection
from sock_chat.owner import Owner


class LineConnection(Connection):
    __slots__ = ("_decoder",)

    def __init__(self, owner: Owner):
        super().__init__(owner)
        self._decoder = LineDecoder()

    def come_in(self, secure: bool) -> None:
        self._begin()
        self._enter(Visit(self.address, secure))

    def take(self, data: bytes) -> None:
        assert self.session
        self.session.feed(self._decoder.receive(data))

    def take_rest(self) -> None:
        """What follows the last newline is a line."""
        assert self.session
        self.session.feed(self._decoder.finish())
