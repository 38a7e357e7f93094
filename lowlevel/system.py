"""What a server does at its edges: its log, its limits, its listener. The functions are those of
the stages, to the byte; a test holds them so."""

import argparse
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Set

BACKLOG = 1024  # connections the kernel completes before we accept(): a burst of 500 fits
RESERVE = 16  # descriptors that no client gets: the log, a library, an operator need some

STDOUT, STDERR = 1, 2
failed_streams: Set[int] = set()


def say(line: str, stream: int = STDOUT) -> None:
    """Write one line to a standard stream, by write(2) itself: no buffer holds it back, or fails
    once more at exit. EPIPE or ENOSPC cost this line, and stderr hears of it once."""
    data = f"{line}\n".encode(getattr(sys.stdout, "encoding", "utf-8"), "backslashreplace")
    while data:
        try:
            data = data[os.write(stream, data) :]
        except BlockingIOError:  # a pipe that its other user made non-blocking
            select.select([], [stream], [])
        except OSError as error:
            if stream not in failed_streams:
                failed_streams.add(stream)
                say(f"No se puede escribir el registro: {error.strerror}", STDERR)
            return


def visible(text: str) -> str:
    """Escape what a terminal would obey or hide, as `\\x1b` or `\\u202e`."""
    escaped = (char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if text.isprintable() else "".join(escaped)


def prepare_process() -> int:
    """What comes before the first socket. Returns how many descriptors there may be."""
    import resource  # only here: elsewhere than on Unix main() must get to its clear line

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback before run() takes over
    # The alarm of a stop. A write(2) that blocks is taken up again, PEP 475, but after the handler.
    signal.signal(signal.SIGALRM, lambda signum, frame: os._exit(0))
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass  # no socket may get the number of a stream that was closed at the start
    os.close(fd)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError):  # EPERM: a hard limit above fs.nr_open
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the first address of `host`. OSError, UnicodeError: cannot."""
    family, kind, proto, _, addr = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, proto)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # in spite of TIME_WAIT
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
