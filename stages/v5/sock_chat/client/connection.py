"""The way to the server and back: addresses, TLS, and lines of what arrives."""

import asyncio
import os
import socket
import ssl
from typing import NamedTuple

from sock_chat.names import clean

READ_SIZE = 16384
MAX_LINE = 1 << 16  # bytes: no line of a v5 server is that long, and no other server fills memory
KEEPALIVE = (  # a network that is gone ends the connection within 90 s, though nobody speaks
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Address(NamedTuple):
    host: str
    port: int
    tls: ssl.SSLContext | None = None

    async def connect(self) -> Streams:
        """OSError, UnicodeError: it cannot, and says why in one line."""
        try:
            streams = await asyncio.open_connection(self.host, self.port, ssl=self.tls)
        except ssl.SSLCertVerificationError as error:
            raise OSError(f"certificado no válido: {error.verify_message}") from None
        except (ssl.SSLError, socket.gaierror) as error:
            raise OSError(error.strerror) from None
        except OSError as error:
            raise OSError(os.strerror(error.errno) if error.errno else str(error)) from None
        sock = streams[1].get_extra_info("socket")
        for level, name, value in KEEPALIVE:
            sock.setsockopt(level, name, value)
        return streams


class Lines:
    """Lines of bytes, fit for a terminal: what it would obey is U+FFFD, as the server has it."""

    def __init__(self) -> None:
        self._partial = b""  # what follows the last newline

    def receive(self, data: bytes) -> list[str]:
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > MAX_LINE:
            lines.append(self._partial)
            self._partial = b""
        return [_text(line.removesuffix(b"\r")) for line in lines]

    def finish(self) -> str:
        """What the server has not ended with a newline."""
        partial, self._partial = self._partial, b""
        return _text(partial)


def _text(line: bytes) -> str:
    return clean(line.decode("utf-8", "replace"))
