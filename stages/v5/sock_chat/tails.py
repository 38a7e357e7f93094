"""The newest messages of each room, in memory: nearly all that anybody asks for of the past.

What is in here has come in order. Every message after the floor is in the tail of its room, unless
that tail has dropped it; a tail drops its oldest when it is full, and when all of them take too
much memory, the tail of the room that has been silent for longest goes.
"""

from collections import deque
from collections.abc import Sequence

from sock_chat.events import Said

LENGTH = 200  # messages of a room
SIZE = 16 << 20  # characters of all of them
MESSAGE_SIZE = 200  # that an empty message counts as


def size(message: Said) -> int:
    return MESSAGE_SIZE + len(message.text)


def total(messages: Sequence[Said]) -> int:
    return MESSAGE_SIZE * len(messages) + sum([len(message.text) for message in messages])


class Tail:
    __slots__ = ("messages", "size", "start")

    def __init__(self, start: int):
        self.start = start  # every later message of the room is in here
        self.messages: deque[Said] = deque()
        self.size = 0


class Tails:
    def __init__(self, floor: int = 0, length: int = LENGTH):
        self._floor = floor
        self._length = length
        self._size = 0
        self._tails: dict[str, Tail] = {}  # who has spoken last is last

    def add(self, room: str, messages: Sequence[Said]) -> None:
        tail = self._tails.pop(room, None) or Tail(self._floor)
        self._tails[room] = tail
        tail.messages.extend(messages)
        excess = len(tail.messages) - self._length
        dropped = [tail.messages.popleft() for _ in range(excess)]
        if dropped:
            tail.start = dropped[-1].position
        growth = total(messages) - total(dropped)
        tail.size += growth
        self._size += growth
        while self._size > SIZE and len(self._tails) > 1:
            self._drop(next(iter(self._tails)))

    def _drop(self, room: str) -> None:
        tail = self._tails.pop(room)
        self._size -= tail.size
        if tail.messages:
            self._floor = max(self._floor, tail.messages[-1].position)

    def find(self, room: str, since: int, upto: int) -> tuple[list[Said], bool]:
        """The messages of a room after one position, up to and with another, as far as they are
        here; and whether these are all."""
        tail = self._tails.get(room)
        if tail is None:
            return [], self._floor <= since
        return [s for s in tail.messages if since < s.position <= upto], tail.start <= since
