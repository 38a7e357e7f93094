#!/usr/bin/env python3
"""v4: the chat room on asyncio, one coroutine for each client.

Who waits, for what: the event loop, in epoll_wait(), for everybody; each coroutine in readline()
    for its client's next line.
Changed since v3: the loop, the sets and the partial lines are asyncio's. A client has a coroutine
    as in v1 a thread, and reads line after line again; an await that has to wait ends its turn.
    The out-buffer stays ours: asyncio's own has no mark that ends anybody, and from Python 3.12 on
    each write to it costs more the longer it is.
    Changed: accept() starts a coroutine for each newcomer; receive() is a conversation again;
    send() and flush() fill and empty the out-buffer beside a transport; broadcast() and
    disconnect() speak to transports, and Client() has one; run() waits for the loop, which main()
    starts; Server() keeps the tasks.
    New: serve(), the life of a coroutine; admit(), its way in; watch(), which tells when a turn
    begins; complain(), for errors that nobody awaits.
    Gone: next_line(), end() and turn(), for which readline() stands; try_send() and
    set_interest(), which a transport does by itself; stop().
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
from unicodedata import category

NAME = "asyncio"
BACKLOG = 1024  # connections the kernel completes before we accept(): a burst of 500 fits
MAX_LINE = 65536  # bytes before the "\n" of a legal line
READ_SIZE = 16384  # bytes of one client's input handled before the others get their turn
SEND_COST = 32  # bytes of that turn which one send() uses up: short lines cost their sends
HIGH_WATER = 1 << 20  # bytes that may wait for a client; with more it is a slow reader
LOW_WATER = 1 << 16  # bytes waiting for a client above which it is not read from
FLUSH_SIZE = 1 << 14  # bytes of the out-buffer given to a transport at a time
RESERVE = 16  # descriptors that no client gets: the log, a library, an operator need some
OWN = 16  # descriptors that a server of any kind needs for itself
ACCEPTS = 16  # newcomers per turn
NO_RESOURCES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)  # what accept() may fail for
ACCEPT_PAUSE = 0.2  # seconds without accept() after it failed for want of descriptors
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # Unicode categories
FULL = b"servidor lleno\n"
TOO_LONG = "línea demasiado larga"
SLOW = "lector lento"

STDOUT, STDERR = 1, 2
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
failed_streams: Set[int] = set()


def say(line: str, stream: int = STDOUT) -> None:
    """Write one line to a standard stream, visible at once.

    write(2) itself: what the stream does not take must not stay in a buffer that fails once more
    at exit. EPIPE or ENOSPC cost this line; the room lives on, and stderr hears of it once.
    """
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
    return "".join(escape(char) if category(char) in HIDDEN else char for char in text)


def escape(char: str) -> str:
    if char < "\x80":
        return f"\\x{ord(char):02x}"
    return char.encode("ascii", "backslashreplace").decode()


def text_of(line: bytes) -> str:
    """The text of a line: a "\\r" before the "\\n" is not part of it, invalid UTF-8 is U+FFFD."""
    return (line[:-1] if line.endswith(b"\r") else line).decode("utf-8", "replace")


class Client:
    """What others need of a connection; the rest is on the stack of its coroutine."""

    def __init__(self, writer: asyncio.StreamWriter, name: str):
        self.writer = writer
        self.name = name
        self.out_buffer = bytearray()  # for it, not yet given to its transport
        self.flusher: Optional[asyncio.Task[None]] = None  # runs while anything waits for it
        self.caught_up = asyncio.Event()  # no more than LOW_WATER waits for it
        self.caught_up.set()
        self.budget = READ_SIZE  # what is left of its turn
        self.reset = False  # the connection is lost


def watch(client: Client, reader: asyncio.StreamReader) -> None:
    """Tell the client what its reader's protocol tells the reader, and readline() keeps back."""
    feed_data = reader.feed_data

    def feed(data: Any) -> None:
        # The loop calls this, so the others had their turn since the coroutine last ran.
        client.budget = READ_SIZE
        feed_data(data)

    def fail(exc: Exception) -> None:
        # readline() would raise it at once, before the lines that have been received.
        client.reset = True
        reader.feed_eof()

    reader.feed_data = feed  # type: ignore[method-assign]
    reader.set_exception = fail  # type: ignore[method-assign]


class Server:
    def __init__(self, listener: socket.socket, limit: int, quiet: bool):
        self.listener = listener
        self.limit = limit - RESERVE
        self.quiet = quiet
        self.clients: Set[Client] = set()
        self.tasks: Set[asyncio.Task[None]] = set()  # of all connections
        self.writers: Set[asyncio.StreamWriter] = set()  # of all connections, to the last byte
        self.pause: Optional[asyncio.TimerHandle] = None  # of accept()
        self.full = False
        self.stopping: asyncio.Event  # run() makes it: until 3.9 it belongs to a loop from birth

    def log(self, line: str) -> None:
        if not self.quiet:
            say(visible(line))

    def accept(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTS):
            try:
                sock, addr = self.listener.accept()
            except OSError as error:
                if error.errno not in NO_RESOURCES:
                    return  # EAGAIN; or an error of the newcomer's connection, accept(2)
                # The newcomer stays in the backlog, the listener stays readable. Without a pause
                # epoll_wait() would return at once, for nothing, for ever.
                loop.remove_reader(self.listener)
                self.pause = loop.call_later(
                    ACCEPT_PAUSE, loop.add_reader, self.listener, self.accept
                )
                self.say_full(str(error))
                return
            if sock.fileno() >= self.limit:
                self.refuse(sock, f"no quedan descriptores por debajo del {self.limit}")
                continue
            sock.setblocking(False)
            self.full = False
            task = asyncio.create_task(self.serve(sock, str(addr)))
            self.tasks.add(task)  # the loop itself holds tasks by weak references
            task.add_done_callback(self.tasks.remove)

    def refuse(self, sock: socket.socket, reason: str) -> None:
        with suppress(OSError):
            sock.send(FULL)  # an empty send buffer takes these few bytes at once
        sock.close()
        self.say_full(reason)

    def say_full(self, reason: str) -> None:
        """Once per episode, which lasts until a newcomer is let in again."""
        if not self.full:
            self.full = True
            say(f"Servidor lleno: {reason}")

    async def serve(self, sock: socket.socket, name: str) -> None:
        """The life of a client's coroutine."""
        reader, writer = await asyncio.open_connection(sock=sock, limit=MAX_LINE)
        self.writers.add(writer)
        try:
            if not self.stopping.is_set():
                await self.admit(reader, writer, name)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()  # what waits for it is still sent
            self.writers.remove(writer)

    async def admit(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str
    ) -> None:
        with suppress(AttributeError):  # not every loop's transport has it
            # asyncio's reads 256 KiB at a time, into a buffer beyond malloc's threshold: each
            # read costs an mmap, an mremap and a munmap, until the first EOF frees a whole
            # buffer and malloc raises the threshold, mallopt(3). And this is a turn's input.
            writer.transport.max_size = READ_SIZE  # type: ignore[attr-defined]
        writer.transport.set_write_buffer_limits(high=0)  # drain() waits until nothing waits
        client = Client(writer, name)
        self.clients.add(client)
        self.log(f"Cliente conectado: {client.name}")
        await self.receive(client, reader)

    async def receive(self, client: Client, reader: asyncio.StreamReader) -> None:
        watch(client, reader)
        reason = ""
        try:
            while client in self.clients:
                try:
                    line = await reader.readline()
                except ValueError:  # no newline within MAX_LINE
                    reason = TOO_LONG
                    break
                if client.budget <= 0:  # readline() does not yield while lines are buffered
                    client.budget = READ_SIZE
                    await asyncio.sleep(0)
                await client.caught_up.wait()  # for itself; nobody waits for a neighbour
                if client not in self.clients or self.stopping.is_set():
                    break  # cut off meanwhile
                whole = line.endswith(b"\n")
                if client.reset and not whole:
                    break  # ECONNRESET, ETIMEDOUT: an unfinished line stays unsaid
                sends = self.handle(client, line[:-1] if whole else line)
                client.budget -= max(len(line), SEND_COST * sends)
                if not whole:  # EOF: the last line needs no newline
                    while client.flusher:
                        await client.flusher
                    break
        finally:
            self.disconnect(client, reason)

    def handle(self, client: Client, line: bytes) -> int:
        """Pass a line on; how many had to be told."""
        text = text_of(line)
        if not text:
            return 0
        message = f"{client.name} dice: {text}"
        self.log(message)
        self.broadcast(client, f"{message}\n".encode())
        return len(self.clients) - 1

    def broadcast(self, sender: Client, data: bytes) -> None:
        for client in list(self.clients):  # a slow reader leaves during the loop
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
        try:
            while True:
                await client.writer.drain()
                if len(client.out_buffer) <= LOW_WATER:
                    client.caught_up.set()
                if not client.out_buffer or client.writer.transport.is_closing():
                    break
                client.writer.write(client.out_buffer[:FLUSH_SIZE])
                del client.out_buffer[:FLUSH_SIZE]
        except OSError:  # its coroutine will hear of it from readline()
            pass
        finally:
            client.out_buffer.clear()
            client.caught_up.set()
            client.flusher = None

    def disconnect(self, client: Client, reason: str = "") -> None:
        if client not in self.clients:
            return
        self.clients.remove(client)
        if reason:
            client.writer.transport.abort()  # what waits for it is dropped
        self.log(f"Cliente desconectado: {client.name}" + (f" ({reason})" if reason else ""))

    async def run(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        loop = asyncio.get_running_loop()
        self.stopping = asyncio.Event()
        loop.set_exception_handler(self.complain)
        for signum in STOP_SIGNALS:
            loop.add_signal_handler(signum, self.stopping.set)
        loop.add_reader(self.listener, self.accept)
        say(f"Servidor {NAME} iniciado en {self.listener.getsockname()}")
        await self.stopping.wait()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # no handler outlives the end
        loop.remove_reader(self.listener)
        if self.pause:
            self.pause.cancel()  # or it would ask about a listener that is closed
        while len(asyncio.all_tasks()) > 1:  # this one; every other comes to its end by itself
            for writer in self.writers:
                writer.transport.abort()  # what waits for it is dropped
            await asyncio.sleep(0)
        self.listener.close()

    def complain(self, loop: asyncio.AbstractEventLoop, context: Dict[str, Any]) -> None:
        """One line for what asyncio would log with a traceback, and nobody awaits."""
        say(f"{context['message']}: {context.get('exception')!r}", STDERR)


def raise_descriptor_limit() -> int:
    """Raise the soft limit on descriptors to the hard one, getrlimit(2), and return it."""
    import resource  # only here: elsewhere than on Unix main() must get to its clear line

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a hard limit above fs.nr_open
        hard = soft
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def reserve_standard_streams() -> None:
    """Put /dev/null where 0, 1 or 2 was closed at the start: no socket may get their numbers."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > STDERR:
            os.close(fd)
            return


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the first address of `host`. OSError, UnicodeError: cannot."""
    family, kind, proto, _, addr = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, proto)
    # Connections of an earlier run may linger in TIME_WAIT; they must not keep the port.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Linux hands these two on to every accepted socket: a peer that vanished is found out, and
    # a small message does not wait for the acknowledgement of the one before (Nagle).
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
    parser.add_argument(
        "--port", type=port_number, default=8080, help="0 picks a free one (%(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no line per client or message")
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    if sys.platform != "linux":
        say("sock_chat solo funciona en Linux", STDERR)
        return 1
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback before run() takes over
    reserve_standard_streams()
    limit = raise_descriptor_limit()
    if limit < RESERVE + OWN:
        say(f"El límite de {limit} descriptores no deja sitio a nadie", STDERR)
        return 1
    try:
        listener = listen(args.host, args.port)
    except (OSError, UnicodeError) as error:
        say(f"No se puede escuchar en {(args.host, args.port)}: {error}", STDERR)
        return 1
    listener.setblocking(False)
    asyncio.run(Server(listener, limit, args.quiet).run())
    return 0


if __name__ == "__main__":
    sys.exit(main(parse_args()))
