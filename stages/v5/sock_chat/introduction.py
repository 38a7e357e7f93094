"""How a server that starts comes to know what the others know: it asks some of them, and goes on
with what one of them has read of the stream and has made of it, from that very message on.

Nobody answers whoever is alone. Then nothing is known of those who cannot be reached but that they
have a lease: their people come in when they can be heard again, or their lease ends.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sock_chat.bus import Bus
from sock_chat.replica import Replica
from sock_chat.stream_reader import FAILURES
from sock_chat.wire import PeerState, State, decode_state, encode

ASKED = 4  # others at most
PEOPLE = 1000  # in a message


class Introduction:
    def __init__(self, bus: Bus, replica: Replica):
        self._bus = bus
        self._replica = replica
        self._subscription: Subscription | None = None

    async def listen(self, lease: str, sequence: Callable[[], int]) -> None:
        """Answer others. sequence: tells how far the stream has been read."""

        async def answer(message: Msg) -> None:
            if sequence() >= int(message.data) and message.reply:
                for part in self._parts(sequence()):
                    await self._bus.client.publish(message.reply, encode(part))

        if self._subscription:
            await self._subscription.unsubscribe()
        subject = self._bus.subjects.state(lease)
        self._subscription = await self._bus.client.subscribe(subject, cb=answer)

    def _parts(self, sequence: int) -> Iterable[State]:
        """Made at once, though it is sent by and by."""
        peers: list[PeerState] = []
        for lease, peer in self._replica.peers.items():
            people = list(peer.people.values())
            for start in range(0, len(people) or 1, PEOPLE):
                part = people[start : start + PEOPLE]
                peers.append(PeerState(lease, peer.number, peer.known, sorted(peer.evicted), part))
        ended = list(self._replica.ended)
        states = [State(sequence, True, [peer], []) for peer in peers]
        return [*states, State(sequence, False, [], ended)]

    async def ask(self, leases: Sequence[str], after: int) -> State | None:
        """What the first of them that answers has read up to, if that is so much. None: nobody
        has answered."""
        chosen = random.sample(leases, min(ASKED, len(leases)))
        asked = [asyncio.ensure_future(self._ask(lease, after)) for lease in chosen]
        try:
            for each in asyncio.as_completed(asked, timeout=self._bus.intervals.members):
                if state := await each:
                    return state
        except asyncio.TimeoutError:
            pass
        finally:
            for each in asked:
                each.cancel()
        return None

    async def _ask(self, lease: str, after: int) -> State | None:
        inbox = self._bus.client.new_inbox()
        subscription = await self._bus.client.subscribe(inbox)
        try:
            while True:
                with suppress(*FAILURES):  # it is away, or has not read so far yet
                    subject = self._bus.subjects.state(lease)
                    await self._bus.client.publish(subject, b"%d" % after, reply=inbox)
                    return await self._collect(subscription)
                await asyncio.sleep(self._bus.intervals.retry)
        finally:
            await subscription.unsubscribe()

    async def _collect(self, subscription: Subscription) -> State | None:
        whole = State(0, False, [], [])
        while True:
            message = await subscription.next_msg(self._bus.intervals.answer)
            if not message.data:
                return None  # nobody listens there
            state = decode_state(message.data)
            if whole.sequence not in (0, state.sequence):
                whole = State(0, False, [], [])  # of an answer that came later
            whole = State(state.sequence, False, whole.peers + state.peers, state.ended)
            if not state.more:
                return whole
