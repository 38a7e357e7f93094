"""The client where stdin or stdout is no terminal: bytes of stdin out, lines of the server's in.

As in v4 a thread reads stdin, for epoll refuses a regular file, and hands on no more than is sent.
At the end of stdin v4 half-closes the connection. TLS has no half-close, and to a server that
delays who speaks too fast the end of the stream says that nobody waits; so here the end is /quit,
which the server obeys when all that stands before it has been said. The exit statuses are v4's.

stdin may still be a terminal, as in `sock-chat | tee log`: it echoes no answer to a question for a
password.
"""

import asyncio
import contextlib
import os
import re
import select
import signal
import sys
import termios
import threading
from typing import Any, NoReturn

from sock_chat.client.connection import READ_SIZE, Lines, Streams
from sock_chat.client.conversation import Conversation

STDIN, STDOUT, STDERR = 0, 1, 2
FAREWELL = b"\n\n/quit\n"  # the first ends an unfinished line, the second answers for a password
QUIT = re.compile(rb"(?:^|\n)/quit(?: [^\n]*)?\r?\n+$", re.IGNORECASE)
LONGEST_QUIT = 4096
LOCAL_MODES = 3  # in what tcgetattr() gives
settings: list[Any] = []  # of the terminal, while it shows no keys


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
        end(1)


def hide_keys() -> None:
    """Let a terminal show nothing of what is typed."""
    if os.isatty(STDIN) and not settings:
        settings.extend(termios.tcgetattr(STDIN))
        modes = settings.copy()
        modes[LOCAL_MODES] &= ~termios.ECHO
        termios.tcsetattr(STDIN, termios.TCSANOW, modes)


def show_keys() -> None:
    if settings:
        with contextlib.suppress(termios.error):  # EIO: the terminal is gone
            termios.tcsetattr(STDIN, termios.TCSANOW, settings)
        settings.clear()


def end(status: int) -> NoReturn:
    """At once: the keyboard's thread is in read(), and may be for ever."""
    show_keys()
    os._exit(status)


def read_keyboard() -> bytes:
    """What has been typed or piped; b"" at the end. read(2): sys.stdin would hold lines back."""
    while True:
        try:
            return os.read(STDIN, READ_SIZE)
        except BlockingIOError:  # a pipe that its other user made non-blocking
            select.select([STDIN], [], [])
        except OSError:  # EIO: the terminal is gone
            return b""


class Pipe:
    def __init__(self, streams: Streams):
        self.reader, self.writer = streams
        self.conversation = Conversation()
        self.tail = b""  # of what has been sent
        self.input_ended = False
        # drain() waits until all is sent. To asyncio's TLS an empty buffer of size 0 is a full one.
        self.writer.transport.set_write_buffer_limits(high=1, low=0)

    def watch_keyboard(self, loop: asyncio.AbstractEventLoop) -> None:
        """The life of the keyboard's thread."""
        try:
            while not self.input_ended:
                data = read_keyboard()
                asyncio.run_coroutine_threadsafe(self.send(data), loop).result()
        except (OSError, RuntimeError):  # the connection or the loop is gone
            pass

    async def send(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-LONGEST_QUIT:]
        if self.conversation.asks_password:
            self.conversation.say(data.decode("utf-8", "replace"))
            self.follow_question()
        self.writer.write(data or FAREWELL)
        await self.writer.drain()
        self.input_ended = not data

    async def receive(self) -> int:
        """Show what arrives until the server has closed the connection; the exit status."""
        lines = Lines()
        try:
            while data := await self.reader.read(READ_SIZE):
                self.show(lines.receive(data))
            say(lines.finish())
        except OSError as error:
            reason = f"El servidor se ha ido: {error.strerror or error}"
        else:
            if self.input_ended:
                return 0
            reason = "El servidor ha cerrado la conexión"
        if QUIT.search(self.tail):  # it has been asked to
            return 0
        say(f"{reason}\n", STDERR)
        return 1

    def show(self, lines: list[str]) -> None:
        for line in lines:
            self.conversation.receive(line)
        self.follow_question()
        say("".join([f"{line}\n" for line in lines]))

    def follow_question(self) -> None:
        if self.conversation.asks_password:
            hide_keys()
        else:
            show_keys()

    async def run(self) -> NoReturn:
        """Talk until either side ends it, and end the process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, end, 128 + number)
        threading.Thread(target=self.watch_keyboard, args=(loop,), daemon=True).start()
        end(await self.receive())
