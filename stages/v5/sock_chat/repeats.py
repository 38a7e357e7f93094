"""What has come with an id of its sender's: a client that was cut sends it once more, for it cannot
know what has arrived; then it is acknowledged, and not done again.
"""

from collections.abc import Callable, Iterable

from sock_chat.events import Ack
from sock_chat.limits import Recent
from sock_chat.link import Member

REPEATED = 120.0  # seconds within which the same id is the same line


class Repeats:
    """Nicks are folded. clock: tells seconds that never go back."""

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._recent: Recent[Ack | list[Member]] = Recent(REPEATED)

    def begin(self, nicks: Iterable[str], post_id: str, member: Member) -> bool:
        """Whether it is to be done, and is then kept under the first of the nicks. If not, because
        it has come under one of them, it is acknowledged to the member, now or when it is done."""
        now, keys = self._clock(), [(nick, post_id) for nick in nicks]
        entries = [self._recent.get(key, now) for key in keys]
        known = next((entry for entry in entries if entry is not None), None)
        if known is None:
            self._recent.put(keys[0], [], now)
        elif isinstance(known, Ack):
            member.write(member.codec.write(known))
        else:
            known.append(member)
        return known is None

    def _get(self, nick: str, post_id: str, now: float) -> Ack | list[Member] | None:
        return self._recent.get((nick, post_id), now)

    def finish(self, nick: str, ack: Ack) -> None:
        """It has been done. Whoever has sent it again meanwhile gets its ack, too."""
        assert isinstance(ack.id, str)
        waiting = self._get(nick, ack.id, now := self._clock())
        self._recent.put((nick, ack.id), ack, now)
        for member in waiting if isinstance(waiting, list) else ():
            member.write(member.codec.write(ack))

    def drop(self, nick: str, post_id: str) -> Iterable[Member]:
        """It has not been done. Who has sent it again meanwhile."""
        waiting = self._get(nick, post_id, self._clock())
        self._recent.drop((nick, post_id))
        return waiting if isinstance(waiting, list) else ()
