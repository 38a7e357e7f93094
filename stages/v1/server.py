#!/usr/bin/env python3
"""v1: one thread for each client. It listens and prints; nobody hears the others yet.

Who waits, for what: one thread in sigwait() for a signal, one in accept() for a newcomer, and one
    for each client in recv() for its next bytes. Each reads like a conversation with one peer.
Changed since nothing: this is the first.
Cost per message: 1 recvfrom + 1 write (the log), whatever N.
Cost of an idle client: no wakeup; a thread, with its stacks in the process and in the kernel.
Breaks when: no more threads can be started
    (tests/contract/test_limits.py::test_small_address_space).
Next: v2 waits for everybody in one thread.
Try: python3 stages/v1/server.py, and in another terminal: python3 stages/v1/client.py
"""

import argparse
import mmap
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Dict, Optional, Set

NAME = "thread-per-client"
BACKLOG = 1024  # connections the kernel completes before we accept(): a burst of 500 fits
MAX_LINE = 65536  # bytes before the "\n" of a legal line
READ_SIZE = 16384  # bytes of one recv(); then another thread may have the interpreter
STACK_SIZE = 1 << 18  # bytes of stack for a thread: what receive() needs, with room to spare
MEMORY_RESERVE = 1 << 23  # bytes of address space that no newcomer's thread gets
RESERVE = 16  # descriptors that no client gets: the log, a library, an operator need some
NO_RESOURCES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)  # what accept() may fail for
ACCEPT_PAUSE = 0.2  # seconds without accept() after it failed for want of descriptors
FULL = b"servidor lleno\n"
TOO_LONG = "línea demasiado larga"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def next_line(in_buffer: bytearray) -> Optional[bytes]:
    """Cut the first line off `in_buffer`, without its "\\n"; None while there is no whole line."""
    end = in_buffer.find(b"\n")
    if (end if end >= 0 else len(in_buffer)) > MAX_LINE:
        raise ValueError("no newline within MAX_LINE")
    if end < 0:
        return None
    line = bytes(in_buffer[:end])
    del in_buffer[: end + 1]  # a bytearray forgets its front without moving the rest
    return line


class Server:
    """Three steps are for a process that runs out of things. dup(): accept(2) takes its descriptor
    before it waits, which may be one of the last although lower ones have become free. mmap(): a
    thread that finds a stack, but no memory for its first steps, dies before it reports, and
    start() waits for ever. Thread(target=int): in Python 3.8 a thread ends with the help of
    libgcc_s, which the C library loads for the first one, or aborts."""

    def __init__(self, listener: socket.socket, limit: int, quiet: bool):
        self.listener = listener
        self.limit = limit - RESERVE
        self.quiet = quiet
        self.clients: Dict[socket.socket, threading.Thread] = {}
        self.lock = threading.Lock()  # of self.clients, which every thread changes
        self.log_lock = threading.Lock()  # a pipe may cut a long write in two, pipe(7)
        self.full = False
        self.stopping = False

    def log(self, line: str) -> None:
        if not self.quiet:
            with self.log_lock:
                say(visible(line))

    def accept(self) -> None:
        """The life of the accepting thread."""
        while not self.stopping:
            try:
                sock, addr = self.listener.accept()
            except (OSError, MemoryError) as error:
                if getattr(error, "errno", ENOMEM) in NO_RESOURCES:
                    # The newcomer stays in the backlog. Without a pause this would spin.
                    self.say_full(str(error))
                    time.sleep(ACCEPT_PAUSE)
                continue  # else EINVAL, at the stop; or an error of the newcomer's connection
            if sock.fileno() >= self.limit:
                with suppress(OSError):
                    sock, high = sock.dup(), sock
                    high.close()
            if sock.fileno() >= self.limit:
                self.refuse(sock, f"no quedan descriptores por debajo del {self.limit}")
                continue
            try:
                mmap.mmap(-1, MEMORY_RESERVE, flags=mmap.MAP_PRIVATE).close()
                thread = threading.Thread(target=self.receive, args=(sock, str(addr)), daemon=True)
                with self.lock:
                    self.clients[sock] = thread
                thread.start()
            except (OSError, RuntimeError, MemoryError):  # mmap(2): ENOMEM; clone(2): EAGAIN
                with self.lock:
                    self.clients.pop(sock, None)
                self.refuse(sock, f"no caben más hilos que {len(self.clients)}")
            else:
                self.full = False

    def refuse(self, sock: socket.socket, reason: str) -> None:
        with sock, suppress(OSError):
            sock.send(FULL)  # an empty send buffer takes these few bytes at once
        self.say_full(reason)

    def say_full(self, reason: str) -> None:
        """Once per episode, which lasts until a newcomer is let in again."""
        if not self.full:
            self.full = True
            with self.log_lock:
                say(f"Servidor lleno: {reason}")

    def receive(self, sock: socket.socket, name: str) -> None:
        """The life of a client's thread."""
        in_buffer = bytearray()  # received, not yet a whole line
        reason = ""
        try:
            self.log(f"Cliente conectado: {name}")
            while not self.stopping:
                data = sock.recv(READ_SIZE)
                in_buffer += data
                while (line := next_line(in_buffer)) is not None:
                    self.handle(name, line)
                if not data:
                    break
            if not self.stopping:  # EOF of theirs, not of ours: the last line needs no newline
                self.handle(name, bytes(in_buffer))
        except (OSError, MemoryError):  # ECONNRESET, ETIMEDOUT: an unfinished line stays unsaid
            pass
        except ValueError:
            reason = TOO_LONG
        finally:
            self.disconnect(sock, name, reason)

    def handle(self, name: str, line: bytes) -> None:
        text = (line[:-1] if line.endswith(b"\r") else line).decode("utf-8", "replace")
        if text:
            self.log(f"{name} dice: {text}")

    def disconnect(self, sock: socket.socket, name: str, reason: str = "") -> None:
        with self.lock:
            del self.clients[sock]
        sock.close()
        self.log(f"Cliente desconectado: {name}" + (f" ({reason})" if reason else ""))

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        # Blocked here, the signals are blocked in every thread started from here, and wait for
        # sigwait(): none can come between a check and a blocking call and be slept over.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        threading.stack_size(STACK_SIZE)
        threading.Thread(target=int).start()
        acceptor = threading.Thread(target=self.accept, daemon=True)
        acceptor.start()
        say(f"Servidor {NAME} iniciado en {self.listener.getsockname()}")
        signal.sigwait(STOP_SIGNALS)
        self.stop(acceptor)

    def stop(self, acceptor: threading.Thread) -> None:
        """Wake every thread and see it end. close() would wake nobody: a blocked call holds on
        to the socket; shutdown() makes accept() fail with EINVAL and recv() return EOF."""
        signal.alarm(1)  # a second later the process ends, whatever holds it up
        self.stopping = True
        self.listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        with self.lock:
            clients = dict(self.clients)
        for sock in clients:
            with suppress(OSError):  # its thread was faster
                sock.shutdown(socket.SHUT_RDWR)
        for thread in clients.values():
            thread.join()


# --- The same in every stage: the log, the limits, the listener, the command line -----------------

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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Chat server, {NAME}.", allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1", help="address or name (%(default)s)")
    parser.add_argument("--port", type=port_number, default=8080, help="0: any (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no line per client or message")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Serve. SystemExit: it cannot, and why."""
    if sys.platform != "linux":
        sys.exit("sock_chat solo funciona en Linux")
    limit = prepare_process()
    if limit < 2 * RESERVE:
        sys.exit(f"El límite de {limit} descriptores no deja sitio a nadie")
    try:
        listener = listen(args.host, args.port)
    except (OSError, UnicodeError) as error:
        sys.exit(f"No se puede escuchar en {(args.host, args.port)}: {error}")
    Server(listener, limit, args.quiet).run()
    signal.alarm(0)


if __name__ == "__main__":
    main(parse_args())
