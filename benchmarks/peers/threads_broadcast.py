"""The chat room on threads: socketserver, one thread for each client.

The thread that reads a client's line sends it to all the others itself, under a lock that keeps
lines whole and in order. So a client that does not read stops the whole room, which is the limit of
this model: once its kernel buffers are full, a send waits up to SEND_TIMEOUT, and then that client
is out. Nothing else waits anywhere in this process: the kernel's buffers are the out-buffers.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import socketserver
import struct
import threading
from typing import Any

SEND_TIMEOUT = 0.25  # seconds

clients: dict[socket.socket, None] = {}  # in the order of their coming
reset: set[socket.socket] = set()  # as a send found out; the kernel tells it once
lock = threading.Lock()


def broadcast(sender: socket.socket, data: bytes) -> None:
    with lock:
        for client in list(clients):
            if client is not sender:
                try:
                    client.sendall(data)
                except OSError as error:  # it is gone, or EAGAIN: SO_SNDTIMEO has passed
                    if isinstance(error, ConnectionResetError):
                        reset.add(client)
                    clients.pop(client, None)
                    with contextlib.suppress(OSError):
                        client.shutdown(socket.SHUT_WR)  # its own thread reads on, and ends it


def was_reset(client: socket.socket) -> bool:
    with lock:  # whoever has met the reset has noted it by then
        return client in reset


class Chat(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        timeval = struct.pack("ll", int(SEND_TIMEOUT), int(SEND_TIMEOUT % 1 * 1e6))
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        prefix = f"{self.client_address} dice: "
        with lock:
            clients[self.request] = None
        try:
            for line in self.rfile:  # and the unfinished one before EOF
                if not line.endswith(b"\n") and was_reset(self.request):
                    break
                text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")
                if text:
                    broadcast(self.request, f"{prefix}{text}\n".encode())
        except OSError:
            pass  # a reset: what it has begun stays unsaid
        finally:
            with lock:  # before the descriptor is closed: its number is given out again
                clients.pop(self.request, None)
                reset.discard(self.request)


class ChatServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024  # the backlog

    def handle_error(self, request: Any, client_address: Any) -> None:
        """No thread for a newcomer: it is closed, and the room goes on."""


def main() -> None:
    parser = argparse.ArgumentParser(description="The chat room on threads.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    threading.stack_size(256 << 10)  # 15,000 stacks of the usual 8 MiB would be 120 GB of addresses
    with ChatServer(("127.0.0.1", port), Chat) as server:
        # It goes to select() as it is, and typeshed knows numbers only.
        server.serve_forever(poll_interval=None)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
