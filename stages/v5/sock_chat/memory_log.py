"""A log (`log`) that nothing is left of: one server, and what is said is in its memory only.

It gives a turn back before append() returns. What is kept longer builds on it (`sqlite_log`).
"""

from collections.abc import Callable, Sequence

from sock_chat.events import Said
from sock_chat.log import Past, Speaker, Turn
from sock_chat.tails import Tails


class MemoryLog:
    def __init__(self, epoch: str, position: int = 0, tails: Tails | None = None):
        self.epoch = epoch
        self.position = position
        self._tails = tails or Tails()

    def subscribe(
        self, deliver: Callable[[Turn], None], refuse: Callable[[Turn, str], None]
    ) -> None:
        self._deliver = deliver

    def append(self, turn: Turn) -> None:
        self.position = turn.number(self.position + 1) - 1
        messages = [event.public() for _, event in turn.entries if isinstance(event, Said)]
        if messages:
            self._tails.add(turn.room, messages)
            self._keep(turn, messages)
        self._deliver(turn)

    def _keep(self, turn: Turn, messages: Sequence[Said]) -> None:
        """Before anybody hears them."""

    @property
    def queue(self) -> tuple[int, int]:
        """Messages that wait to be written, and what they take of the queue, in bytes."""
        return 0, 0

    def latest(self, room: str, count: int, upto: int, done: Callable[[Past], None]) -> None:
        messages, _ = self._tails.find(room, 0, upto)
        done(Past(messages[-count:], True))

    def after(
        self, room: str, since: int, count: int, upto: int, done: Callable[[Past], None]
    ) -> None:
        messages, complete = self._tails.find(room, since, upto)
        done(Past(messages[-count:], not complete or len(messages) > count))

    def close(self) -> None:
        pass

    def save(self, timeout: float) -> None:
        pass

    def full(self, author: Speaker) -> bool:
        return False
