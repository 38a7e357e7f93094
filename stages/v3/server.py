#!/usr/bin/env python3
"""v3: a chat room on select(), one thread for everybody.

Who waits, for what: one thread, in select(), for a newcomer, a line, space to send, a signal.
Changed since v2: clients hear each other, and nobody waits for one that does not read.
    Changed: Client() has an out-buffer, Server() the sets for it; receive() counts the sends it
    causes, and may stop before all lines are handled; handle() broadcasts; turn() asks about
    writability, too, and comes back to those lines; disconnect() forgets them.
    New: broadcast(), send(), try_send() and flush(), the way out; set_interest(), who is asked
    about what. Gone: nothing.
Cost per message: 1 select + 1 recvfrom + (N-1) sendto, with N clients in the room.
Cost of an idle client: no wakeup; a Client, and its share of the set that select() walks through.
Breaks when: a descriptor reaches FD_SETSIZE (tests/contract/test_limits.py::test_1100_clients).
Next: v4 leaves readiness to asyncio, which uses epoll: an idle client costs a turn nothing.
Try: python3 stages/v3/server.py, and in two other terminals: python3 stages/v3/client.py
"""

import argparse
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Any, Dict, Optional, Set, Union

NAME = "select+broadcast"
BACKLOG = 1024  # connections the kernel completes before we accept(): a burst of 500 fits
MAX_LINE = 65536  # bytes before the "\n" of a legal line
READ_SIZE = 16384  # bytes of one client's input handled before the others get their turn
SEND_COST = 32  # bytes of that turn which one send() uses up: short lines cost their sends
HIGH_WATER = 1 << 20  # bytes that may wait for a client; with more it is a slow reader
LOW_WATER = 1 << 16  # bytes waiting for a client above which it is not read from
RESERVE = 16  # descriptors that no client gets: the log, a library, an operator need some
FD_SETSIZE = 1024  # select(2): an fd_set is a bit map of this size, whatever the limit says
ACCEPTS = 16  # newcomers per turn
NO_RESOURCES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)  # what accept() may fail for
ACCEPT_PAUSE = 0.2  # seconds without accept() after it failed for want of descriptors
FULL = b"servidor lleno\n"
TOO_LONG = "línea demasiado larga"
SLOW = "lector lento"
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


class Client:
    """What a thread kept on its stack in v1: the state of a connection between two events."""

    def __init__(self, sock: socket.socket, addr: Any):
        self.sock = sock
        self.name = str(addr)
        self.in_buffer = bytearray()  # received, not yet a whole line
        self.out_buffer = bytearray()  # for it, not yet taken by the kernel
        self.eof = False  # it has sent its last; it leaves when the out-buffer is empty
        self.lost: Optional[OSError] = None  # why it takes no more


class Server:
    def __init__(self, listener: socket.socket, limit: int, quiet: bool):
        listener.setblocking(False)
        self.listener = listener
        self.limit = min(limit - RESERVE, FD_SETSIZE)
        self.quiet = quiet
        self.clients: Dict[socket.socket, Client] = {}
        # Whom select() is asked about. Sockets, not descriptors: a number is given out again as
        # soon as it is closed, and an event of this turn must not reach its next owner.
        self.readers: Set[socket.socket] = {listener}
        self.writers: Set[socket.socket] = set()
        self.requeued: Dict[socket.socket, Client] = {}  # the budget ended before their lines did
        self.budget = READ_SIZE  # what is left of the turn
        self.accept_again = 0.0
        self.full = False
        self.stopping = False

    def log(self, line: str) -> None:
        if not self.quiet:
            say(visible(line))

    def accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, addr = self.listener.accept()
            except OSError as error:
                if error.errno in NO_RESOURCES:
                    # The newcomer stays in the backlog, the listener stays readable. Without a
                    # pause select() would return at once, for nothing, for ever.
                    self.readers.discard(self.listener)
                    self.accept_again = time.monotonic() + ACCEPT_PAUSE
                    self.say_full(str(error))
                return  # else EAGAIN; or an error of the newcomer's connection, accept(2)
            if sock.fileno() >= self.limit:
                self.refuse(sock, f"no quedan descriptores por debajo del {self.limit}")
                continue
            sock.setblocking(False)
            self.full = False
            client = self.clients[sock] = Client(sock, addr)
            self.readers.add(sock)
            self.log(f"Cliente conectado: {client.name}")

    def refuse(self, sock: socket.socket, reason: str) -> None:
        with sock, suppress(OSError):
            sock.send(FULL)  # an empty send buffer takes these few bytes at once
        self.say_full(reason)

    def say_full(self, reason: str) -> None:
        """Once per episode, which lasts until a newcomer is let in again."""
        if not self.full:
            self.full = True
            say(f"Servidor lleno: {reason}")

    def receive(self, client: Client) -> None:
        """Handle what it says, or as much of it as the budget allows. A line that comes alone is
        handled in any case, and does not queue up with those of a flood."""
        requeued = self.requeued.pop(client.sock, None)
        try:
            data = b"" if requeued else client.sock.recv(READ_SIZE)
            client.in_buffer += data
            while self.budget > 0 or client.in_buffer.count(b"\n") <= 1:
                line = next_line(client.in_buffer)
                if line is None:
                    break
                sends = self.handle(client, line)
                self.budget -= max(len(line) + 1, SEND_COST * sends)
            if b"\n" in client.in_buffer:
                self.requeued[client.sock] = client
            elif not data and not requeued:  # EOF: the last line needs no newline
                client.eof = True
                if client.lost is None or isinstance(client.lost, BrokenPipeError):
                    self.handle(client, bytes(client.in_buffer))
                self.flush(client)
        except BlockingIOError:
            pass
        except OSError:  # ECONNRESET, ETIMEDOUT: an unfinished line stays unsaid
            self.disconnect(client)
        except ValueError:
            self.disconnect(client, TOO_LONG)

    def handle(self, client: Client, line: bytes) -> int:
        """Pass a line on; how many had to be told."""
        text = (line[:-1] if line.endswith(b"\r") else line).decode("utf-8", "replace")
        if not text:
            return 0
        message = f"{client.name} dice: {text}"
        self.log(message)
        self.broadcast(client, f"{message}\n".encode())
        return len(self.clients) - 1

    def broadcast(self, sender: Client, data: bytes) -> None:
        for client in list(self.clients.values()):  # a slow reader leaves during the loop
            if client is not sender:
                self.send(client, data)

    def send(self, client: Client, data: bytes) -> None:
        """Send now what the kernel takes now; keep the rest, in order, once."""
        if not client.out_buffer and not client.lost:
            data = data[self.try_send(client, data) :]
        if not data or client.lost:
            return
        client.out_buffer += data
        if len(client.out_buffer) <= HIGH_WATER:
            self.set_interest(client)
        else:
            self.flush(client)  # it may have read since select() looked
        if len(client.out_buffer) > HIGH_WATER:
            self.disconnect(client, SLOW)

    def try_send(self, client: Client, data: Union[bytes, bytearray]) -> int:
        """How many bytes are off our hands."""
        try:
            return client.sock.send(data)
        except BlockingIOError:  # the send buffer is full
            return 0
        except OSError as error:
            # EPIPE: it has closed; ECONNRESET, ETIMEDOUT: the connection broke. What it has said
            # is still to be read, so only an EOF ends it, which follows: an error is told once.
            client.lost = error
            return len(data)

    def flush(self, client: Client) -> None:
        del client.out_buffer[: self.try_send(client, client.out_buffer)]
        if client.eof and not client.out_buffer:
            self.disconnect(client)
        else:
            self.set_interest(client)

    def set_interest(self, client: Client) -> None:
        """Ask select() about what can be done now and nothing else: level-triggered, it would
        report the rest again and again."""
        may_read = len(client.out_buffer) <= LOW_WATER and not client.eof
        for sockets, wanted in ((self.readers, may_read), (self.writers, client.out_buffer)):
            if wanted:
                sockets.add(client.sock)
            else:
                sockets.discard(client.sock)

    def disconnect(self, client: Client, reason: str = "") -> None:
        del self.clients[client.sock]
        self.readers.discard(client.sock)
        self.writers.discard(client.sock)
        self.requeued.pop(client.sock, None)
        client.sock.close()
        self.log(f"Cliente desconectado: {client.name}" + (f" ({reason})" if reason else ""))

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        # The self-pipe: no signal ends select(), Python takes it up again (PEP 475), and one that
        # comes just before does not even interrupt it. The byte that set_wakeup_fd() writes does.
        wakeup, sender = socket.socketpair()
        sender.setblocking(False)
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        for signum in STOP_SIGNALS:
            signal.signal(signum, self.stop)
        self.readers.add(wakeup)
        say(f"Servidor {NAME} iniciado en {self.listener.getsockname()}")
        while not self.stopping:
            self.turn()
        for client in list(self.clients.values()):
            self.disconnect(client)

    def stop(self, signum: int, frame: Any) -> None:
        self.stopping = True
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # at exit a second one would kill
        signal.alarm(1)  # a second later the process ends, whatever holds it up

    def turn(self) -> None:
        """Wait, then give everyone who is ready one turn."""
        requeued = [client for sock, client in self.requeued.items() if sock in self.readers]
        pause = None if self.listener in self.readers else ACCEPT_PAUSE
        timeout = 0 if requeued else pause
        readable, writable, _ = select.select(self.readers, self.writers, [], timeout)
        for sock in writable:
            if sock in self.clients:
                self.flush(self.clients[sock])
        self.budget = READ_SIZE
        for sock in readable:
            if sock in self.clients and sock in self.readers and sock not in self.requeued:
                self.receive(self.clients[sock])
        self.budget = READ_SIZE
        for client in requeued:  # in the order in which their turns ended
            if self.budget > 0 and client.sock in self.readers:
                self.receive(client)
        if time.monotonic() >= self.accept_again:
            self.readers.add(self.listener)
        if self.listener in readable:
            self.accept()


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
