"""What the server does at its edges: its log, its limits, its listener. The functions are those of
the stages, to the byte; a test holds them so."""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
from contextlib import suppress

BACKLOG = 1024  # connections the kernel completes before we accept(): a burst of 500 fits
RESERVE = 16  # descriptors that no client gets: the log, a library, an operator need some

STDOUT, STDERR = 1, 2
OWN = 16  # descriptors that a server of any kind needs for itself
failed_streams: set[int] = set()


def say(line: str, stream: int = STDOUT) -> None:
    """Write one line to a standard stream, by write(2) itself: no buffer holds it back, or fails
    once more at exit. EPIPE or ENOSPC cost this line, and stderr hears of it once."""
    encoding = getattr(sys.stdout if stream == STDOUT else sys.stderr, "encoding", "utf-8")
    data = f"{line}\n".encode(encoding, "backslashreplace")
    try:
        while data:
            try:
                data = data[os.write(stream, data) :]
            except BlockingIOError:  # a pipe that its other user made non-blocking
                select.select([], [stream], [])
    except OSError as error:
        if stream not in failed_streams:
            failed_streams.add(stream)
            say(f"No se puede escribir el registro: {error.strerror}", STDERR)


def visible(text: str) -> str:
    """Escape what a terminal would obey or hide, as `\\x1b` or `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def raise_descriptor_limit() -> int:
    """Raise the soft limit on descriptors to the hard one, getrlimit(2), and return it."""
    import resource  # only here: elsewhere than on Unix main() must get to its clear line

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a hard limit above fs.nr_open
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def reserve_standard_streams() -> None:
    """Put /dev/null where 0, 1 or 2 was closed at the start: no socket may get their numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(fd)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the first address of `host`. OSError, UnicodeError: cannot."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, proto, _, addr = infos[0]
    listener = socket.socket(family, kind, proto)
    # Connections of an earlier run may linger in TIME_WAIT; they must not keep the port.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Linux hands these on to every accepted socket: a peer that vanished is found out, and a small
    # message does not wait for the acknowledgement of the one before (Nagle).
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind(addr)
    listener.listen(BACKLOG)
    return listener


def port_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"not a port from 0 to 65535: {text!r}")
    return int(text)
