"""What was said in a room long ago: messages of the stream that are not in memory any more.

A stream has no way back. So a part of it is read, by a consumer that has only the room's messages,
from some sequence on; if that was not enough, from an earlier one, each time WIDER.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import msgspec
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from sock_chat.bus import Bus
from sock_chat.events import Said
from sock_chat.log import Past
from sock_chat.stream_reader import FAILURES
from sock_chat.wire import POSITIONS, Turned, decode_message, said

SPAN = 2000  # messages of the stream that are looked at first
WIDER = 8
BATCH = 500
TRIES = 8
AT_ONCE = 8  # questions


class StreamHistory:
    def __init__(self, bus: Bus):
        self._bus = bus
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def fetch(
        self, room: str, since: int, count: int, upto: int, done: Callable[[Past], None]
    ) -> None:
        """log.Log.after(). NATS is waited for; a stream that does not answer has nothing left."""
        past = Past([], True)
        async with self._slots:
            for _ in range(TRIES):
                await self._bus.wait()
                with suppress(*FAILURES):
                    past = await self._find(room, since, count, upto)
                    break
        done(past)

    async def _find(self, room: str, since: int, count: int, upto: int) -> Past:
        info = await self._bus.api.stream_info(self._bus.subjects.stream)
        oldest = max(info.state.first_seq, since // POSITIONS, 1)
        span = SPAN
        while True:
            start = max(oldest, upto // POSITIONS - span + 1)
            messages = await self._read(room, start, since, count + 1, upto)
            if len(messages) > count or start == oldest:
                removed = since // POSITIONS + 1 < info.state.first_seq
                return Past(messages[-count:], len(messages) > count or removed)
            span *= WIDER

    async def _read(self, room: str, start: int, since: int, count: int, upto: int) -> list[Said]:
        """The newest so many of those that are there from a sequence on."""
        newest: deque[Said] = deque(maxlen=count)
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=start,
            ack_policy=AckPolicy.NONE, mem_storage=True, num_replicas=1, inactive_threshold=10,
        )  # fmt: skip
        subscription = await self._bus.api.pull_subscribe(
            self._bus.subjects.room(room), stream=self._bus.subjects.stream, config=config
        )
        try:
            left = (await subscription.consumer_info()).num_pending or 0
            while left > 0:
                batch = await subscription.fetch(min(left, BATCH), timeout=1)
                left -= len(batch)
                for raw in batch:
                    sequence = raw.metadata.sequence.stream
                    with suppress(msgspec.DecodeError):
                        message = decode_message(raw.data)
                        if isinstance(message, Turned):
                            newest += [
                                each
                                for each in said(message, sequence)
                                if since < each.position <= upto
                            ]
                if raw.metadata.sequence.stream * POSITIONS > upto:
                    break
        finally:
            with suppress(*FAILURES):
                name = (await subscription.consumer_info()).name
                await subscription.unsubscribe()
                await self._bus.api.delete_consumer(self._bus.subjects.stream, name)
        return list(newest)

    async def delete(self, sequence: int) -> None:
        with suppress(*FAILURES):
            await self._bus.api.delete_msg(self._bus.subjects.stream, sequence)
