"""nats-py's client, with what it does amid a reconnection made harmless."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg


class NatsClient(Client):
    async def request(self, *arguments: Any, **options: Any) -> Msg:
        """In a task of its own: the client may cancel what that waits for, and whoever asks would
        take it for his own end. For him it is a timeout."""
        task = asyncio.ensure_future(super().request(*arguments, **options))
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.cancelled():
            raise nats.errors.TimeoutError
        return task.result()
