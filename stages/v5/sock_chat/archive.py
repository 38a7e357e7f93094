"""What a log has in the database of a server (`store`): its jobs there.

How far the positions may have come is `reserved`. What is not certain to be there any more, up to
`forgotten`: it was removed, or lost.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import NamedTuple

import msgspec

from sock_chat.events import Said
from sock_chat.log import Author

BLOCK = 1 << 32  # positions that are reserved at once; a client's numbers end at 2**53
LOADED = 1000  # messages that are in memory from the start

# The whole batch is one step of SQLite's, and that is all there is to most transactions: for each
# step the interpreter's lock has to be got back from a loop that is busy.
INSERT = f"""
INSERT OR IGNORE INTO messages
SELECT {", ".join(f"json_extract(value, '$[{column}]')" for column in range(5))} FROM json_each(?)
"""
COLUMNS = "SELECT room, position, at, nick, text FROM messages"
NEWEST = "ORDER BY position DESC LIMIT ?"


class Lines(NamedTuple):
    """What was said in a room in a turn, and how much each has said of it."""

    room: str
    at: datetime
    messages: Sequence[Said]
    shares: Sequence[tuple[Author, int]]


class Note(NamedTuple):
    reserved: int
    forgotten: int


class State(NamedTuple):
    """What the database says at the start."""

    epoch: str
    position: int  # all up to here may have been heard
    note: Note
    size: int  # in messages
    newest: Sequence[tuple[str, Said]]  # of all rooms

    @property
    def floor(self) -> int:
        """All after this position are among the newest."""
        return self.newest[0][1].position - 1 if len(self.newest) < self.size else 0


def begin(database: sqlite3.Connection) -> State:
    """Reserve positions, and see what there is."""
    database.execute("BEGIN IMMEDIATE")
    epoch, reserved, forgotten = database.execute("SELECT * FROM log").fetchone()
    size, newest = database.execute("SELECT count(*), max(position) FROM messages").fetchone()
    if reserved != (newest or 0):  # it was killed, or has lost what came last
        forgotten = reserved
    note = Note(reserved + BLOCK, forgotten)
    database.execute("UPDATE log SET reserved = ?, forgotten = ?", note)
    rows = database.execute(f"{COLUMNS} {NEWEST}", (LOADED,)).fetchall()
    return State(epoch, reserved, note, size, [_message(*row) for row in reversed(rows)])


def write(batch: Sequence[Lines], database: sqlite3.Connection) -> None:
    rows = [
        (message.position, room, int(at.timestamp()), message.nick, message.text)
        for room, at, messages, _ in batch
        for message in messages
    ]
    database.execute(INSERT, (msgspec.json.encode(rows).decode(),))


def write_and_note(
    batch: Sequence[Lines], note: Note, excess: int, database: sqlite3.Connection
) -> tuple[int, Note]:
    """Write messages, and remove the oldest; how many those were, and what is noted now."""
    database.execute("BEGIN IMMEDIATE")
    write(batch, database)
    removed = 0
    if excess > 0:
        oldest = "SELECT position FROM messages ORDER BY position LIMIT 1 OFFSET ?"
        last = database.execute(oldest, (excess - 1,)).fetchone()
        if last:
            note = Note(note.reserved, max(note.forgotten, last[0]))
            removed = database.execute("DELETE FROM messages WHERE position <= ?", last).rowcount
    database.execute("UPDATE log SET reserved = ?, forgotten = ?", note)
    return removed, note


def select(
    room: str, since: int, count: int, upto: int, database: sqlite3.Connection
) -> list[Said]:
    """The newest messages of a room between two positions, the first left out; oldest first."""
    rows = database.execute(
        f"{COLUMNS} WHERE room = ? AND position > ? AND position <= ? {NEWEST}",
        (room, since, upto, count),
    )
    return [_message(*row)[1] for row in rows.fetchall()][::-1]


def _message(room: str, position: int, at: int, nick: str, text: str) -> tuple[str, Said]:
    return room, Said(position, datetime.fromtimestamp(at, timezone.utc), nick, text)
