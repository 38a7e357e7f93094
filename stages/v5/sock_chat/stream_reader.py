"""Reads a stream of JetStream's from a position on: each message once, in order.

NATS sends the messages to a consumer of this reader's own, in its memory, with nothing to be
acknowledged. The consumer numbers what it sends, so a hole shows; when nothing comes it sends a
heartbeat, so silence shows, too. Then it is not mended, but replaced by another one, which begins
after what has been read: restart(). It is for others to call that (`bus`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext

ABANDONED = 30.0  # seconds after which NATS forgets a consumer that nobody listens to
FAILURES = (nats.errors.Error, asyncio.TimeoutError, OSError)  # what nats-py raises
REPLY_TOKENS = 9  # $JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.SENT.TIME.PENDING, before domains


class StreamReader:
    """deliver: called with the sequence of each message, and the message.
    lost: called when the consumer is of no use any more.
    heartbeat: seconds of silence at most."""

    def __init__(
        self,
        client: Client,
        stream: str,
        deliver: Callable[[int, Msg], None],
        lost: Callable[[], None],
        heartbeat: float,
    ):
        self.stream = stream
        self.last = 0  # the sequence up to which all has been read
        self.heard = 0.0  # when there was a sign of life
        self._client = client
        self._api: JetStreamContext = client.jetstream(timeout=heartbeat)
        self._deliver = deliver
        self._lost = lost
        self._heartbeat = heartbeat
        self._subscription: Subscription | None = None
        self._inbox = ""  # of the consumer; "": it is of no use any more
        self._sent = 0  # messages of this consumer
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def restart(self, last_of_each: bool = False) -> int:
        """Read on with a new consumer; how many messages are there to be read, for catch_up().
        last_of_each: begin with the newest message of each subject. Raises FAILURES."""
        await self.close()
        inbox = self._inbox = self._client.new_inbox()
        self._sent = 0
        self._subscription = await self._client.subscribe(
            inbox,
            cb=partial(self._receive, inbox),
            pending_msgs_limit=0,  # no limit: what nats-py drops would have to be read again
            pending_bytes_limit=0,
        )
        start: dict[str, Any] = {
            "deliver_policy": DeliverPolicy.BY_START_SEQUENCE,
            "opt_start_seq": self.last + 1,
        }
        if last_of_each:
            start = {"deliver_policy": DeliverPolicy.LAST_PER_SUBJECT, "filter_subject": ">"}
        config = ConsumerConfig(
            deliver_subject=inbox, ack_policy=AckPolicy.NONE, max_deliver=1, mem_storage=True,
            num_replicas=1, idle_heartbeat=self._heartbeat, flow_control=True,
            inactive_threshold=ABANDONED, **start,
        )  # fmt: skip
        info = await self._api.add_consumer(self.stream, config)
        self.heard = asyncio.get_running_loop().time()
        delivered = info.delivered.consumer_seq if info.delivered else 0
        return (info.num_pending or 0) + delivered

    async def close(self) -> None:
        self._inbox = ""
        if self._subscription:
            subscription, self._subscription = self._subscription, None
            with suppress(*FAILURES):
                await subscription.unsubscribe()

    async def catch_up(self, count: int) -> None:
        """Wait until this consumer has sent so many messages."""
        await self._wait(lambda: self._sent >= count)

    async def reach(self, sequence: int) -> None:
        """Wait until so much has been read, be it by this consumer or by another one."""
        await self._wait(lambda: self.last >= sequence)

    async def _wait(self, is_reached: Callable[[], bool]) -> None:
        if not is_reached():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((is_reached, future))
            await future

    async def _receive(self, inbox: str, message: Msg) -> None:
        if inbox != self._inbox:
            return
        self.heard = asyncio.get_running_loop().time()
        tokens = message.reply.split(".")
        if tokens[:2] != ["$JS", "ACK"]:
            await self._obey(message)
            return
        first = 5 if len(tokens) == REPLY_TOKENS else 7
        if int(tokens[first + 1]) != self._sent + 1:
            self._fail()
            return
        self._sent += 1
        self.last = int(tokens[first])
        self._deliver(self.last, message)
        if self._waiting:
            self._wake()

    async def _obey(self, message: Msg) -> None:
        """A heartbeat, or NATS wants to know whether it may send more, or the consumer is gone."""
        headers = message.headers or {}
        if headers.get("Status") != "100":
            self._fail()
            return
        reply = message.reply or headers.get("Nats-Consumer-Stalled")
        if reply:
            await self._client.publish(reply)
        if int(headers.get("Nats-Last-Consumer", self._sent)) > self._sent:
            self._fail()

    def _fail(self) -> None:
        self._inbox = ""
        self._lost()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for is_reached, future in waiting:
            if future.done():
                continue
            if is_reached():
                future.set_result(None)
            else:
                self._waiting.append((is_reached, future))
