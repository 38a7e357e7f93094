"""The answer to who asks for the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sock_chat.heads import Answer

if TYPE_CHECKING:
    from sock_chat.server import Server

FRESH = 1.0  # seconds


class Exposition:
    """metrics.exposition(), but not oftener than every FRESH seconds: it looks at each connection,
    and whoever asks without end must not keep the chat waiting."""

    def __init__(self, server: Server):
        self._server = server
        self._answer = Answer(200, b"", {})
        self._time = float("-inf")

    def get(self) -> Answer:
        now = self._server.chat.clock()
        if now - self._time >= FRESH:
            from sock_chat import metrics  # prometheus_client takes time to import

            headers = {"Content-Type": metrics.CONTENT_TYPE, "Cache-Control": "no-store"}
            self._answer = Answer(200, metrics.exposition(self._server), headers)
            self._time = now
        return self._answer
