#!/usr/bin/env python3
"""v4: the chat room on asyncio, one coroutine for each client.

Who waits, for what: the event loop, in epoll_wait(), for everybody; each coroutine in readline()
    for its client's next line.
Changed since v3: the loop, the sets and the partial lines are asyncio's. A client has a coroutine
    as in v1 a thread; an await that has to wait ends its turn. The out-buffer stays ours: asyncio's
    has no mark that ends anybody, and each write to it costs more the longer it is.
    Changed: accept() is the life of a coroutine; receive() is a conversation again; Client() has
    its two streams; send(), flush(), refuse() and disconnect() speak to a transport; run() starts
    asyncio's loop; stop() sets the alarm only; Server() keeps the connections.
    New: feed_data() and set_exception(), what asyncio tells a reader; serve(), from the start to
    the stop; complain(), for errors that nobody awaits.
    Gone: next_line() and turn(), for which readline() stands; try_send() and set_interest(),
    which a transport does by itself.
Cost per message: 2 epoll_wait + 1 recvfrom + (N-1) sendto, with N clients in the room; the
    second epoll_wait, without a wait, is the turn of the loop in which the coroutine runs.
Cost of an idle client: no wakeup, no turn made longer; a task, a transport, a reader, a writer.
Breaks when: a write to a client that has closed fails: asyncio then drops the connection whole,
    with lines of that client that nobody has read yet
    (tests/contract/test_limits.py::test_last_words_in_a_flood).
Next: lowlevel/ does by hand what asyncio hides here, and puts v4 itself on another loop.
Try: python3 stages/v4/server.py, and in two other terminals: python3 stages/v4/client.py
"""

import argparse
import asyncio
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Any, Dict, Optional, Set

NAME = "asyncio"
BACKLOG = 1024  # connections the kernel completes before we accept(): a burst of 500 fits
MAX_LINE = 65536  # bytes before the "\n" of a legal line
READ_SIZE = 16384  # bytes of one client's input handled before the others get their turn
SEND_COST = 32  # bytes of that turn which one send() uses up: short lines cost their sends
HIGH_WATER = 1 << 20  # bytes that may wait for a client; with more it is a slow reader
LOW_WATER = 1 << 16  # bytes waiting for a client above which it is not read from
FLUSH_SIZE = 1 << 14  # bytes of the out-buffer given to a transport at a time
RESERVE = 16  # descriptors that no client gets: the log, a library, an operator need some
ACCEPTS = 4  # newcomers per turn; asyncio takes four turns to refuse one: RESERVE bears that
NO_RESOURCES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)  # what accept() may fail for
FULL = b"servidor lleno\n"
TOO_LONG = "línea demasiado larga"
SLOW = "lector lento"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Reader(asyncio.StreamReader):
    """asyncio's own, and two things that readline() keeps back."""

    lines = 0  # received, and not handled yet
    reset = False  # the connection is lost

    def feed_data(self, data: Any) -> None:
        self.lines += data.count(b"\n")
        super().feed_data(data)

    def set_exception(self, exc: Exception) -> None:
        # readline() would raise it at once, before the lines that have been received.
        self.reset = True
        self.feed_eof()


class Client:
    """What others need of a connection; the rest is on the stack of its coroutine."""

    def __init__(self, reader: Reader, writer: asyncio.StreamWriter):
        self.reader = reader
        self.writer = writer
        self.name = str(writer.get_extra_info("peername"))
        self.out_buffer = bytearray()  # for it, not yet given to its transport
        self.flusher: Optional[asyncio.Task[None]] = None  # runs while anything waits for it
        self.caught_up = asyncio.Event()  # no more than LOW_WATER waits for it
        self.caught_up.set()
        with suppress(AttributeError):  # not every loop's transport has it
            # A turn's input. And for asyncio's own 256 KiB malloc() asks the kernel: each read
            # would cost an mmap, an mremap and a munmap, mallopt(3).
            writer.transport.max_size = READ_SIZE  # type: ignore[attr-defined]
        writer.transport.set_write_buffer_limits(high=0)  # drain() waits until nothing waits


class Server:
    def __init__(self, listener: socket.socket, limit: int, quiet: bool):
        self.listener = listener
        self.limit = limit - RESERVE
        self.quiet = quiet
        self.clients: Dict[asyncio.StreamWriter, Client] = {}
        self.writers: Set[asyncio.StreamWriter] = set()  # of all connections, to the last byte
        self.budget = READ_SIZE  # what is left until who has more lines gives way
        self.full = False
        # Made in serve(): until 3.9 they belong to a loop from birth.
        self.floor: asyncio.Lock
        self.stopping: asyncio.Event

    def log(self, line: str) -> None:
        if not self.quiet:
            say(visible(line))

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The life of a client's coroutine, which asyncio starts after its own accept()."""
        assert isinstance(reader, Reader)
        self.writers.add(writer)
        try:
            if writer.get_extra_info("socket").fileno() >= self.limit:
                self.refuse(writer, f"no quedan descriptores por debajo del {self.limit}")
            elif writer.get_extra_info("peername") and not self.stopping.is_set():
                self.full = False
                await self.receive(Client(reader, writer))
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()  # what waits for it is still sent
            self.writers.remove(writer)

    def refuse(self, writer: asyncio.StreamWriter, reason: str) -> None:
        writer.write(FULL)  # an empty send buffer takes these few bytes at once
        self.say_full(reason)

    def say_full(self, reason: str) -> None:
        """Once per episode, which lasts until a newcomer is let in again."""
        if not self.full:
            self.full = True
            say(f"Servidor lleno: {reason}")

    async def receive(self, client: Client) -> None:
        self.clients[client.writer] = client
        self.log(f"Cliente conectado: {client.name}")
        reader = client.reader
        reason = ""
        try:
            while client.writer in self.clients:
                try:
                    line = await reader.readline()
                except ValueError:  # no newline within MAX_LINE
                    reason = TOO_LONG
                    break
                whole = line.endswith(b"\n")
                reader.lines -= whole
                if self.budget <= 0 and reader.lines:
                    # readline() does not yield while lines are buffered. Those who have some go
                    # on one by one, and who says one line at a time does not queue up with them.
                    async with self.floor:
                        await asyncio.sleep(0)
                    self.budget = READ_SIZE
                await client.caught_up.wait()  # for itself; nobody waits for a neighbour
                if client.writer not in self.clients or self.stopping.is_set():
                    break  # cut off meanwhile
                if reader.reset and not whole:
                    break  # ECONNRESET, ETIMEDOUT: an unfinished line stays unsaid
                sends = self.handle(client, line[:-1] if whole else line)
                self.budget -= max(len(line), SEND_COST * sends)
                if not whole:  # EOF: the last line needs no newline
                    while client.flusher:
                        await client.flusher
                    break
        finally:
            self.disconnect(client, reason)

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
        transport = client.writer.transport
        if transport.is_closing():
            return  # a write to it failed; its coroutine will hear of it from readline()
        if client.flusher:
            client.out_buffer += data
        else:
            transport.write(data)
            if not transport.get_write_buffer_size():
                return
            client.flusher = asyncio.create_task(self.flush(client))
        waiting = len(client.out_buffer) + transport.get_write_buffer_size()
        if waiting > HIGH_WATER:
            self.disconnect(client, SLOW)
        elif waiting > LOW_WATER:
            client.caught_up.clear()

    async def flush(self, client: Client) -> None:
        """Give the transport a part of the out-buffer each time that it has none left."""
        with suppress(OSError):  # its coroutine will hear of it from readline()
            await client.writer.drain()
            while client.out_buffer and not client.writer.transport.is_closing():
                if len(client.out_buffer) <= LOW_WATER:
                    client.caught_up.set()
                client.writer.write(client.out_buffer[:FLUSH_SIZE])
                del client.out_buffer[:FLUSH_SIZE]
                await client.writer.drain()
        client.out_buffer.clear()
        client.caught_up.set()
        client.flusher = None

    def disconnect(self, client: Client, reason: str = "") -> None:
        if self.clients.pop(client.writer, None) is None:
            return
        if reason:
            client.writer.transport.abort()  # what waits for it is dropped
        self.log(f"Cliente desconectado: {client.name}" + (f" ({reason})" if reason else ""))

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        asyncio.run(self.serve())

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        self.floor, self.stopping = asyncio.Lock(), asyncio.Event()
        loop.set_exception_handler(self.complain)
        for signum in STOP_SIGNALS:
            loop.add_signal_handler(signum, self.stopping.set)
            signal.signal(signum, self.stop)  # beside it, and at once

        def protocol() -> asyncio.StreamReaderProtocol:
            reader = Reader(limit=MAX_LINE, loop=loop)
            return asyncio.StreamReaderProtocol(reader, self.accept, loop=loop)

        # What asyncio.start_server(self.accept, ...) does, but with a Reader.
        server = await loop.create_server(protocol, sock=self.listener, backlog=ACCEPTS)
        self.listener.listen(BACKLOG)  # asyncio takes `backlog` for this queue and for its turns
        say(f"Servidor {NAME} iniciado en {self.listener.getsockname()}")
        await self.stopping.wait()
        loop.remove_reader(self.listener)  # a close() amid an accept() trips asyncio 3.12 and later
        await asyncio.sleep(0)
        server.close()
        while len(asyncio.all_tasks()) > 1:  # this one; every other comes to its end by itself
            for writer in self.writers:
                writer.transport.abort()  # what waits for it is dropped
            await asyncio.sleep(0)

    def stop(self, signum: int, frame: Any) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # at exit a second one would kill
        signal.alarm(1)  # a second later the process ends, whatever holds it up

    def complain(self, loop: asyncio.AbstractEventLoop, context: Dict[str, Any]) -> None:
        """One line for what asyncio would log with a traceback."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in NO_RESOURCES:
            self.say_full(str(error))  # accept() failed; asyncio tries again after a second
        elif not self.stopping.is_set():
            say(f"{context['message']}: {error!r}", STDERR)


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
