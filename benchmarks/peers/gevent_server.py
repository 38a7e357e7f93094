"""The chat room on gevent: two greenlets for each client, one that reads and one that writes.

Between them is a queue for each client, so that nobody waits for a slow reader. Its length is not
bounded, nor are the bytes in it.
"""

from __future__ import annotations

import argparse
import resource
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any

import gevent
from gevent.queue import Queue
from gevent.server import StreamServer

room: dict[Queue, None] = {}  # in the order of their coming


def write(sock: Any, messages: Queue) -> None:
    try:
        for message in messages:  # until StopIteration comes out of it
            sock.sendall(message)
    except OSError:
        room.pop(messages, None)  # it takes no more; chat() hears what it still has to say


def chat(sock: Any, address: Any) -> None:
    """One client; StreamServer closes the socket afterwards."""
    sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    prefix = f"{address} dice: "
    outbox = Queue()
    writer = gevent.spawn(write, sock, outbox)
    room[outbox] = None
    try:
        with sock.makefile("rb") as lines:
            for line in lines:  # and the unfinished one before EOF
                text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")
                if text:
                    message = f"{prefix}{text}\n".encode()
                    for other in room:
                        if other is not outbox:
                            other.put(message)
    except OSError:
        pass  # a reset: what it has begun stays unsaid
    finally:
        room.pop(outbox, None)
        outbox.put(StopIteration)
        writer.join()  # when all that waits for it is sent


def main() -> None:
    parser = argparse.ArgumentParser(description="The chat room on gevent.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    StreamServer(("127.0.0.1", port), chat, backlog=1024).serve_forever()


if __name__ == "__main__":
    main()
