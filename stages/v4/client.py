#!/usr/bin/env python3
"""v4: chat client on asyncio streams; a thread reads the keyboard.

epoll refuses a regular file, and a terminal made non-blocking takes stdout with it, which is
the same open file: so the keyboard is read by a thread, which hands the bytes to the loop and
waits until they are sent. The keyboard may be a terminal, a pipe or a file; at its end the
client half-closes the connection, shows what still arrives until the server has taken all, and
leaves with 0. Status 1: the server went away or is not there; 130: Ctrl-C.
Try: python3 stages/v4/client.py, with a server running
"""

import argparse
import asyncio
import codecs
import os
import select
import signal
import sys
import threading

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
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader = reader
        self.writer = writer
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")  # characters cut in two
        self.input_ended = False
        writer.transport.set_write_buffer_limits(high=0)  # drain() waits until all is sent

    def watch_keyboard(self, loop: asyncio.AbstractEventLoop) -> None:
        """The life of the keyboard's thread."""
        try:
            while not self.input_ended:
                data = read_keyboard()
                asyncio.run_coroutine_threadsafe(self.send(data), loop).result()
        except (OSError, RuntimeError):  # the connection or the loop is gone
            pass

    async def send(self, data: bytes) -> None:
        if data:
            self.writer.write(data)
            await self.writer.drain()
        else:
            self.input_ended = True
            self.writer.write_eof()

    async def receive(self) -> int:
        """Show what arrives until the server has closed its side; the exit status."""
        try:
            while True:
                data = await self.reader.read(READ_SIZE)
                say(visible(self.decoder.decode(data, final=not data)))
                if not data:
                    break
        except OSError as error:
            say(f"El servidor se ha ido: {error.strerror or error}\n", STDERR)
            return 1
        if not self.input_ended or self.writer.transport.get_write_buffer_size():
            say("El servidor ha cerrado la conexión\n", STDERR)
            return 1
        return 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        threading.Thread(target=self.watch_keyboard, args=(loop,), daemon=True).start()
        return await self.receive()


async def talk(host: str, port: int) -> int:
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, os._exit, 130)
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except (OSError, UnicodeError) as error:
        say(f"No se puede conectar con {(host, port)}: {error}\n", STDERR)
        return 1
    # At once: the keyboard's thread is in read(), or in a send() that the end of the loop would
    # cancel, and may be for ever.
    os._exit(await Client(reader, writer).run())


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


def main() -> int:
    args = parse_args()
    if sys.platform != "linux":
        say("sock_chat solo funciona en Linux\n", STDERR)
        return 1
    reserve_standard_streams()
    return asyncio.run(talk(args.host, args.port))


if __name__ == "__main__":
    sys.exit(main())
