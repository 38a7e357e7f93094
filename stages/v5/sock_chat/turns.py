"""When a turn of the chat ends, and what has happened in it is told.

It begins with the first thing that happens in a room, and ends when all have been heard who are to
be heard: by call_soon(), after the callbacks of this turn of the loop. Where several clients have
been read it hops LOOKS times more, and the loop asks the kernel each time: while a turn is sent,
those who get it first answer, and all their answers go out in one more turn instead of two. A hop
that has brought nobody is the last, and where clients speak one by one there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOKS = 2  # hops; more of them gather few messages more
CROWDED = 8  # turns after one with several clients that hop, too


class Turns:
    """end: ends the turn. reads: connections count there how often they have been read."""

    def __init__(self, end: Callable[[], None]):
        self.loop: asyncio.AbstractEventLoop
        self.reads = 0
        self._end = end
        self._looks = 0  # hops that are left
        self._crowded = 0  # turns that will still hop
        self._seen = 0  # reads before the last hop

    def begin(self) -> None:
        self._looks, self._seen = LOOKS, 0
        self.loop.call_soon(self._hop)

    def _hop(self) -> None:
        reads = self.reads
        if self._looks and reads > self._seen and (reads > 1 or self._crowded):
            self._looks -= 1
            self._seen = reads
            self.loop.call_soon(self._hop)
        else:
            self._crowded = CROWDED if reads > 1 else max(0, self._crowded - 1)
            self.reads = 0
            self._end()
