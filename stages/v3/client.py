#!/usr/bin/env python3
"""v2, v3: chat client with one thread, in select() on keyboard and connection.

The keyboard may be a terminal, a pipe or a file; at its end the client half-closes the connection,
shows what still arrives until the server has taken all, and leaves with 0. Status 1: the server
went away or is not there; 130: Ctrl-C.
Try: python3 stages/v2/client.py, with a server running
"""

import argparse
import codecs
import os
import select
import signal
import socket
import sys
from typing import Any, List, Optional

READ_SIZE = 16384
STDIN, STDOUT, STDERR = 0, 1, 2


def say(text: str, stream: int = STDOUT) -> None:
    """Write to a standard stream, visible at once; what it cannot show costs one character."""
    encoding = getattr(sys.stdout if stream == STDOUT else sys.stderr, "encoding", "utf-8")
    data = text.encode(encoding, "backslashreplace")
    try:
        while data:
            try:
                data = data[os.write(stream, data) :]
            except BlockingIOError:  # a pipe that its other user made non-blocking
                select.select([], [stream], [])
    except OSError as error:  # nobody looks any more
        if stream == STDOUT:
            say(f"No se puede mostrar nada: {error.strerror}\n", STDERR)
        os._exit(1)


def visible(text: str) -> str:
    """Escape what a terminal would obey or hide, as `\\x1b` or `\\u202e`; lines stay lines."""
    shown = (char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
    return "".join(shown)


def read_keyboard() -> bytes:
    """What has been typed or piped; b"" at the end. read(2): sys.stdin would hold lines back."""
    while True:
        try:
            return os.read(STDIN, READ_SIZE)
        except BlockingIOError:  # a pipe that its other user made non-blocking
            select.select([STDIN], [], [])
        except OSError:  # EIO: the terminal is gone
            return b""


class Client:
    def __init__(self, sock: socket.socket):
        self.sock = sock
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")  # characters cut in two
        self.out_buffer = b""  # typed, not yet taken by the kernel
        self.input_ended = False

    def send(self) -> None:
        """Send what the kernel takes; after the last of it, half-close."""
        try:
            self.out_buffer = self.out_buffer[self.sock.send(self.out_buffer) :]
            if self.input_ended and not self.out_buffer:
                self.sock.shutdown(socket.SHUT_WR)
        except OSError:  # EAGAIN; or the connection is gone: recv() hears of it too
            pass

    def receive(self) -> Optional[int]:
        """Show what has arrived. The exit status, when the server has closed its side."""
        try:
            data = self.sock.recv(READ_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            say(f"El servidor se ha ido: {error.strerror}\n", STDERR)
            return 1
        say(visible(self.decoder.decode(data, final=not data)))
        if data:
            return None
        if not self.input_ended or self.out_buffer:
            say("El servidor ha cerrado la conexión\n", STDERR)
            return 1
        return 0

    def run(self) -> int:
        # A Ctrl-C that comes just before select() would not interrupt it; this byte does.
        wakeup, sender = socket.socketpair()
        sender.setblocking(False)
        signal.set_wakeup_fd(sender.fileno())
        self.sock.setblocking(False)
        while True:
            # The keyboard waits while the server does not take what was typed before.
            readers: List[Any] = [self.sock, wakeup]
            if not (self.out_buffer or self.input_ended):
                readers.append(STDIN)
            writers = [self.sock] if self.out_buffer else []
            readable, writable, _ = select.select(readers, writers, [])
            if STDIN in readable:
                self.out_buffer = read_keyboard()
                self.input_ended = not self.out_buffer
                self.send()
            elif writable:
                self.send()
            if self.sock in readable:
                status = self.receive()
                if status is not None:
                    return status


def reserve_standard_streams() -> None:
    """Put /dev/null where 0, 1 or 2 was closed at the start: no socket may get their numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(fd)


def port_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"not a port from 0 to 65535: {text!r}")
    return int(text)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Chat client.", allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1", help="address or name (%(default)s)")
    parser.add_argument("--port", type=port_number, default=8080, help="(%(default)s)")
    return parser.parse_args()


def quit_at_once(signum: int, frame: Any) -> None:
    os._exit(130)  # 128 + SIGINT, as a shell counts; nothing is buffered here


def main() -> int:
    args = parse_args()
    if sys.platform != "linux":
        say("sock_chat solo funciona en Linux\n", STDERR)
        return 1
    signal.signal(signal.SIGINT, quit_at_once)
    reserve_standard_streams()
    try:
        sock = socket.create_connection((args.host, args.port))
    except (OSError, UnicodeError) as error:
        say(f"No se puede conectar con {(args.host, args.port)}: {error}\n", STDERR)
        return 1
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a line leaves when it is typed
    return Client(sock).run()


if __name__ == "__main__":
    sys.exit(main())
