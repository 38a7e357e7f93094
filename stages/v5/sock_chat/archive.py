"""What a log has in the database of a server (`store`): its jobs there.

A row is a chunk of what was said in a room, up to CHUNK messages, in JSON: in a busy room a row for
each message would cost more than all the sending. Any SQLite can take it apart:

    SELECT room, value ->> 'at', value ->> 'nick', value ->> 'text' FROM chunks, json_each(messages)

How far the positions may have come is `reserved`. What is not certain to be there any more, up to
`forgotten`: it was removed, or lost.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

import msgspec

from sock_chat.events import Said
from sock_chat.log import Author

BLOCK = 1 << 32  # positions that are reserved at once; a client's numbers end at 2**53
FIRST = 1  # reserved by a server that has ended before anything was said
CHUNK = 100
LOADED = 1000  # messages, or a few more, that are in memory from the start

# Decoding checks nothing that encoding has not written.
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Said]).decode


class Lines(NamedTuple):
    """What was said in a room in a turn, and how much each has said of it."""

    room: str
    messages: Sequence[Said]
    shares: Mapping[Author, int]


class Note(NamedTuple):
    reserved: int
    forgotten: int


class State(NamedTuple):
    """What the database says at the start."""

    epoch: str
    position: int  # all up to here may have been heard
    note: Note
    size: int  # in messages
    newest: Sequence[tuple[str, list[Said]]]  # by room, of all rooms
    floor: int  # all after this position are among the newest
    holes: list[tuple[int, int]]  # nothing between two positions has ever been said here


def begin(database: sqlite3.Connection) -> State:
    """Reserve positions, and see what there is."""
    database.execute("BEGIN IMMEDIATE")
    epoch, reserved, forgotten = database.execute("SELECT * FROM log").fetchone()
    size, last = database.execute("SELECT total(count), max(last) FROM chunks").fetchone()
    if reserved not in (FIRST, last or 0):  # it was killed, or has lost what came last
        forgotten = reserved
    note = Note(reserved + BLOCK, forgotten)
    database.execute("UPDATE log SET reserved = ?, forgotten = ?", note)
    newest: list[tuple[str, list[Said]]] = []
    loaded, first = 0, 1
    rows = "SELECT position, count, room, messages FROM chunks ORDER BY position DESC"
    with closing(database.execute(rows)) as cursor:
        for position, count, room, messages in cursor:
            first = position
            newest.append((room, _decode(messages)))
            loaded += count
            if loaded >= LOADED:
                break
    # Chunks of several rooms that were written together overlap.
    older = "SELECT max(last) FROM chunks WHERE position < ?"
    floor = database.execute(older, (first,)).fetchone()[0] or 0
    return State(epoch, reserved, note, int(size), newest[::-1], floor, _holes(database))


def _holes(database: sqlite3.Connection) -> list[tuple[int, int]]:
    """Each server leaves one before what is said first (`sqlite_log`)."""
    holes: list[tuple[int, int]] = []
    end = 0
    with closing(database.execute("SELECT position, last FROM chunks ORDER BY position")) as cursor:
        for position, last in cursor:
            if position > end + 1:
                holes.append((end, position - 1))
            end = max(end, last)  # chunks of several rooms overlap
    return holes


def write(batch: Sequence[Lines], database: sqlite3.Connection) -> None:
    """The whole batch is one step of SQLite's, and that is all there is to most transactions: after
    each step the interpreter's lock has to be got back from a loop that is busy.

    What a batch that was written already begins with is written once more: its chunks are the same,
    but for the last of a room, which may be longer now."""
    values = [value for chunk in _chunks(batch) for value in chunk]
    if values:
        rows = ", ".join(["(?, ?, ?, ?, ?)"] * (len(values) // 5))
        database.execute(f"INSERT OR REPLACE INTO chunks VALUES {rows}", values)


def _chunks(batch: Sequence[Lines]) -> Iterator[tuple[int, int, int, str, str]]:
    rooms: dict[str, list[Said]] = {}
    for room, messages, _ in batch:
        rooms.setdefault(room, []).extend(messages)
    for room, messages in rooms.items():
        for start in range(0, len(messages), CHUNK):
            chunk = messages[start : start + CHUNK]
            text = _encode(chunk).decode()
            yield chunk[0].position, chunk[-1].position, len(chunk), room, text


def write_and_note(
    batch: Sequence[Lines], note: Note, excess: int, database: sqlite3.Connection
) -> tuple[int, Note]:
    """Write messages, and remove the oldest, as far as they are whole chunks; how many those were,
    and what is noted now."""
    database.execute("BEGIN IMMEDIATE")
    write(batch, database)
    removed, newest = 0, 0
    with closing(
        database.execute("SELECT position, last, count FROM chunks ORDER BY position")
    ) as cursor:
        for position, last, count in cursor:
            if removed + count > excess:
                break
            removed += count
            newest = position
            note = Note(note.reserved, max(note.forgotten, last))
    database.execute("DELETE FROM chunks WHERE position <= ?", (newest,))
    database.execute("UPDATE log SET reserved = ?, forgotten = ?", note)
    return removed, note


def select(
    room: str, since: int, count: int, upto: int, database: sqlite3.Connection
) -> list[Said]:
    """The newest messages of a room between two positions, the first left out; oldest first."""
    parts: list[list[Said]] = []
    missing = count
    rows = "SELECT position, messages FROM chunks WHERE room = ? AND position <= ?"
    with closing(database.execute(f"{rows} ORDER BY position DESC", (room, upto))) as cursor:
        for position, messages in cursor:
            parts.append([s for s in _decode(messages) if since < s.position <= upto])
            missing -= len(parts[-1])
            if missing <= 0 or position <= since:
                break
    return [message for part in reversed(parts) for message in part][-count:]
