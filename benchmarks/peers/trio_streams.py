"""The chat room on trio: two tasks for each client, one that reads and one that writes.

Between them is a memory channel for each client, so that nobody waits for a slow reader. Its length
is not bounded, nor are the bytes in it.
"""

from __future__ import annotations

import argparse
import math
import resource

import trio

room: dict[trio.MemorySendChannel[bytes], None] = {}  # in the order of their coming


async def write(stream: trio.SocketStream, messages: trio.MemoryReceiveChannel[bytes]) -> None:
    async with messages:
        try:
            async for message in messages:
                await stream.send_all(message)
        except trio.BrokenResourceError:
            pass  # it takes no more; read() hears what it still has to say


async def read(stream: trio.SocketStream, outbox: trio.MemorySendChannel[bytes]) -> None:
    rest = b""
    try:
        prefix = f"{stream.socket.getpeername()} dice: "
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                say(outbox, prefix, line)
        say(outbox, prefix, rest)
    except (trio.BrokenResourceError, OSError):  # from the stream, from getpeername()
        pass  # a reset: what it has begun stays unsaid


def say(sender: trio.MemorySendChannel[bytes], prefix: str, line: bytes) -> None:
    text = line.removesuffix(b"\r").decode("utf-8", "replace")
    if text:
        message = f"{prefix}{text}\n".encode()
        for outbox in list(room):
            if outbox is not sender:
                try:
                    outbox.send_nowait(message)
                except trio.BrokenResourceError:  # its write() has ended
                    room.pop(outbox, None)


async def chat(stream: trio.SocketStream) -> None:
    """One client. The stream sets TCP_NODELAY by itself, and serve_tcp() closes it."""
    outbox, messages = trio.open_memory_channel[bytes](math.inf)
    try:
        async with trio.open_nursery() as nursery, outbox:
            nursery.start_soon(write, stream, messages)
            room[outbox] = None
            await read(stream, outbox)
            room.pop(outbox, None)  # closed now, it lets write() send the rest, and end
    finally:
        room.pop(outbox, None)


def main() -> None:
    parser = argparse.ArgumentParser(description="The chat room on trio.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def serve() -> None:
        await trio.serve_tcp(chat, port, host="127.0.0.1", backlog=1024)

    trio.run(serve)


if __name__ == "__main__":
    main()
