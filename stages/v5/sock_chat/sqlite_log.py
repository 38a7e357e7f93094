"""The log of one server, kept in its database (`store`).

What is said gets its position, is heard, and waits for at most BATCH_TIME to be written: all that
waits is one transaction. kill -9 loses no more than that, and the time a transaction takes.

No position is used twice, though what had it may never have been written: the database says how
far the positions may have come. That limit is BLOCK ahead, so that nobody waits for it to move, and
a server that was killed goes on from there. Nor do two servers that have found the same database,
of which one may have got an older copy of it, use the same: each leaves out a random number of
positions before its first message. Whoever has seen one of those that were left out has seen what
is not in this database, and is told of a gap.

`forgotten` is the newest position of which it is not
certain that it is still here: it was removed (--keep), the disk refused it, or the end came first.
Whoever has seen nothing later is told of a gap.

The queue to the disk is bounded. A speaker may have as much in it as is free beside it: one alone
half of it, ten of them a tenth each. When the disk refuses, nobody waits: the newest messages stay
in the queue, the others are lost to the history, and it is tried again.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial

from sock_chat import archive
from sock_chat.archive import BLOCK, FIRST, Lines, Note
from sock_chat.events import Said
from sock_chat.log import Author, Past, Speaker, Turn
from sock_chat.memory_log import MemoryLog
from sock_chat.store import CLOSE_TIMEOUT, Store, StoreError
from sock_chat.tails import LENGTH, MESSAGE_SIZE, Tails

BATCH_TIME = 0.05  # seconds
RETRY_TIME = 1.0
QUEUE_SIZE = 4 << 20  # in characters, and MESSAGE_SIZE for each message
JUMP = BLOCK >> 2  # positions that are left out, at most
TRIM = 500  # messages too many that are removed while others come in


class SqliteLog(MemoryLog):
    """later: calls a function in the loop after so many seconds. keep: messages that stay.
    report: takes a line for the operator."""

    def __init__(
        self,
        store: Store,
        later: Callable[[float, Callable[[], None]], object],
        keep: int,
        report: Callable[[str], None],
    ):
        state = store.wait(archive.begin)
        store.relax()
        super().__init__(state.epoch, state.position, Tails(state.floor, min(LENGTH, keep)))
        for room, messages in state.newest:
            self._tails.add(room, [each for each in messages if each.position > state.floor])
        self._store = store
        self._later = later
        self._kept = keep
        self._report = report
        self._stored = state.size
        self._noted = state.note  # in the database
        self._reserved, self._forgotten = state.note
        self._holes = state.holes
        self._silent = state.position > 0  # nothing has been said since the start
        self._waiting: deque[Lines] = deque()
        self._writing: Sequence[Lines] = ()
        self._busy = False  # a transaction is under way, or a call of _write() is
        self._size = 0  # of what is waiting or being written
        self._shares: Counter[Author] = Counter()  # the same, by speaker
        self._blocked: set[Speaker] = set()
        self._refusing = False
        self._lost = 0  # messages, since the disk refuses

    @property
    def queue(self) -> tuple[int, int]:
        waiting = sum([len(lines.messages) for lines in (*self._writing, *self._waiting)])
        return waiting, self._size

    def full(self, author: Speaker) -> bool:
        if self._refusing or self._shares[author] < QUEUE_SIZE - self._size:
            return False
        self._blocked.add(author)
        return True

    def append(self, turn: Turn) -> None:
        if self._silent and any(isinstance(event, Said) for _, event in turn.entries):
            self._silent = False
            start = self.position + secrets.randbelow(JUMP)
            self._holes.append((self.position, start))
            self.position = start
        super().append(turn)

    def _keep(self, turn: Turn, messages: Sequence[Said]) -> None:
        shares: dict[Author, int] = {}
        for author, event in turn.entries:
            if isinstance(event, Said):
                shares[author] = shares.get(author, 0) + MESSAGE_SIZE + len(event.text)
        self._waiting.append(Lines(turn.room, messages, shares))
        for author, share in shares.items():
            self._size += share
            self._shares[author] += share
        if self._refusing:
            self._lose()
        self._plan(BATCH_TIME)

    def _plan(self, seconds: float) -> None:
        if not self._busy:
            self._busy = True
            self._later(seconds, self._write)

    def _write(self) -> None:
        self._writing, self._waiting = self._waiting, deque()
        coming = sum([len(lines.messages) for lines in self._writing])
        excess = self._stored + coming - self._kept
        if self.position > self._reserved - BLOCK // 2:
            self._reserved += BLOCK
        note = Note(self._reserved, self._forgotten)
        if note == self._noted and (excess <= 0 or (self._writing and excess < TRIM)):
            self._store.do(partial(archive.write, self._writing), self._written, self._refused)
        else:
            job = partial(archive.write_and_note, self._writing, note, min(excess, coming + TRIM))
            self._store.do(job, self._written_and_noted, self._refused)

    def _written_and_noted(self, result: tuple[int, Note]) -> None:
        removed, self._noted = result
        self._forgotten = max(self._forgotten, self._noted.forgotten)
        self._stored -= removed
        self._end_write(trim=removed > 0)

    def _written(self, _: None) -> None:
        self._end_write(trim=True)

    def _end_write(self, trim: bool) -> None:
        """trim: look whether there are too many still."""
        for lines in self._writing:
            self._stored += len(lines.messages)
            self._release(lines)
        self._writing = ()
        if self._refusing:
            self._refusing = False
            self._report(f"El historial se guarda de nuevo; faltan {self._lost} mensajes.")
        self._wake()
        self._busy = False
        if self._waiting or (trim and self._stored > self._kept):
            self._plan(BATCH_TIME)

    def _refused(self, error: Exception) -> None:
        if not self._refusing:
            self._refusing, self._lost = True, 0
            self._report(f"El historial no se guarda: {error}")
        self._waiting.extendleft(reversed(self._writing))
        self._writing = ()
        self._lose()
        self._wake()
        self._busy = False
        self._plan(RETRY_TIME)

    def _lose(self) -> None:
        """Nobody waits for a disk that refuses: the oldest has to go."""
        while self._size > QUEUE_SIZE and self._waiting:
            lines = self._waiting.popleft()
            self._release(lines)
            self._lost += len(lines.messages)
            self._store.counters.lost += len(lines.messages)
            self._forgotten = lines.messages[-1].position

    def _release(self, lines: Lines) -> None:
        for author, share in lines.shares.items():
            self._size -= share
            self._shares[author] -= share
            if not self._shares[author]:
                del self._shares[author]

    def _wake(self) -> None:
        blocked, self._blocked = self._blocked, set()
        for author in blocked:
            author.wake()

    def latest(self, room: str, count: int, upto: int, done: Callable[[Past], None]) -> None:
        messages, complete = self._tails.find(room, 0, upto)
        if complete or len(messages) >= count:
            done(self._past(messages, 0, count))
        else:
            self._read(room, 0, count, upto, done)

    def after(
        self, room: str, since: int, count: int, upto: int, done: Callable[[Past], None]
    ) -> None:
        messages, complete = self._tails.find(room, since, upto)
        if complete or len(messages) > count:
            done(self._past(messages, since, count))
        else:
            self._read(room, since, count, upto, done)

    def _past(self, messages: Sequence[Said], since: int, count: int) -> Past:
        unknown = since < self._forgotten or any(low < since < high for low, high in self._holes)
        return Past(messages[-count:], len(messages) > count or unknown)

    def _read(
        self, room: str, since: int, count: int, upto: int, done: Callable[[Past], None]
    ) -> None:
        def complete(messages: list[Said]) -> None:
            newest = messages[-1].position if messages else since
            for lines in (*self._writing, *self._waiting):  # that were not written by then
                if lines.room == room:
                    messages += [s for s in lines.messages if newest < s.position <= upto]
            done(self._past(messages, since, count))

        def failed(error: Exception) -> None:
            done(Past(self._tails.find(room, since, upto)[0][-count:], True))

        self._store.do(partial(archive.select, room, since, count + 1, upto), complete, failed)

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        try:
            self.save(timeout)
        except StoreError as error:
            self._report(f"No se ha guardado lo último que se ha dicho. {error}")

    def save(self, timeout: float) -> None:
        """Write all that is waiting, and how far the positions have come. Blocks: for the end.
        Raises StoreError."""
        # What is being written may fail; what is written already is ignored.
        batch = [*self._writing, *self._waiting]
        note = Note(self.position or FIRST, self._forgotten)
        self._store.wait(partial(archive.write_and_note, batch, note, 0), timeout)
