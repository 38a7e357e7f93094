"""A connection that speaks lines over TCP."""

from __future__ import annotations

import re

from sock_chat.chat import Visit
from sock_chat.codec import LineDecoder
from sock_chat.connection import Connection
from sock_chat.link import Reason
from sock_chat.owner import Owner

REQUEST_LINE = re.compile(r"[A-Z]+ \S+ HTTP/\d\.\d").fullmatch
NO_PAGE = "Esto es un chat por líneas: la página está en otro puerto."


class LineConnection(Connection):
    __slots__ = ("_decoder", "_is_new")

    def __init__(self, owner: Owner):
        super().__init__(owner)
        self._decoder = LineDecoder()
        self._is_new = True  # no line has come yet

    def come_in(self, secure: bool) -> None:
        self._begin()
        self._enter(Visit(self.address, secure))

    def take(self, data: bytes) -> None:
        assert self.session
        lines = self._decoder.receive(data)
        if self._is_new and lines:
            self._is_new = False
            if isinstance(lines[0], str) and REQUEST_LINE(lines[0]):
                # A page of somebody else's could have its reader's browser talk here.
                self.session.finish(Reason.BROWSER, NO_PAGE)
        self.session.feed(lines)

    def take_rest(self) -> None:
        """What follows the last newline is a line."""
        assert self.session
        self.session.feed(self._decoder.finish())
