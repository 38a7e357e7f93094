"""A process that says something in a log on the disk, to be killed or to be kept from writing.

    python -m tests.chat.speaker FILE

It does what the lines of its stdin say, and answers each on stdout in JSON:

    say ROOM COUNT      the positions of so many messages, said in one turn
    flood               for each turn its last position and the time; it never ends
    latest ROOM COUNT   the texts of the past
    limit BYTES         RLIMIT_FSIZE, -1 being none
    close               the end

Lines for the operator come as {"report": LINE}.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from datetime import datetime, timezone

from sock_chat import sqlite_log
from sock_chat.events import RoomEvent, Said
from sock_chat.log import Author, Past, Turn
from sock_chat.sqlite_log import SqliteLog
from sock_chat.store import Store

KEEP = 100_000_000
NOW = datetime(2026, 11, 24, 16, 45, 10, tzinfo=timezone.utc)


class Nobody:
    def wake(self) -> None:
        pass


def turn(room: str, *texts: str, author: Author = None, nick: str = "ana") -> Turn:
    entries: list[tuple[Author, RoomEvent]] = [(author, Said(0, NOW, nick, text)) for text in texts]
    return Turn(room, NOW, entries)


def answer(value: object) -> None:
    print(json.dumps(value), flush=True)


async def main(path: str) -> None:
    loop = asyncio.get_running_loop()
    sqlite_log.JUMP = 1  # no position is left out: a text is its position
    store = Store(path, loop.call_soon_threadsafe)
    log = SqliteLog(store, loop.call_later, KEEP, lambda line: answer({"report": line}))
    log.subscribe(lambda turn: None, lambda turn, text: None)
    answer(log.position)
    while True:
        line = await loop.run_in_executor(None, sys.stdin.readline)
        command, *words = line.split()
        if command == "say":
            first = log.position + 1
            log.append(turn(words[0], *[f"{first + i}" for i in range(int(words[1]))]))
            answer([first, log.position])
        elif command == "flood":
            author = Nobody()
            while True:
                if not log.full(author):
                    first = log.position + 1
                    texts = [f"{first + i}" for i in range(first % 50)] or [f"{first}"]
                    log.append(turn("general", *texts, author=author))
                    answer([log.position, time.monotonic()])
                await asyncio.sleep(0)
        elif command == "latest":
            past: asyncio.Future[Past] = loop.create_future()
            log.latest(words[0], int(words[1]), log.position, past.set_result)
            answer([message.text for message in (await past).messages])
        elif command == "limit":
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(words[0]), hard))
            answer("limit")
        else:
            log.close()
            store.close()
            return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
