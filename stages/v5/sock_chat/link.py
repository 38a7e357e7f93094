"""A connection as the chat sees it: something that takes bytes. `tcp` and `ws` are two of them."""

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from sock_chat.codec import Codec

HIGH_WATER = 1 << 20  # bytes that may wait for a client; with more it is a slow reader
LOW_WATER = 1 << 16  # bytes waiting for a client above which its lines are not handled


class Kind(Enum):
    """How a client is connected."""

    LINES = "lines"
    TLS = "tls"
    BROWSER = "browser"


class Reason(Enum):
    """Why the server closes a connection. The value is for the operator's log."""

    QUIT = ""
    NO_NICK = "sin apodo"
    TRIES = "demasiados intentos"
    TAKEN_OVER = "ha entrado desde otro sitio"
    KICKED = "expulsado"
    BANNED = "entrada prohibida"
    CROWDED = "demasiadas conexiones"
    STOPPING = "el servidor se cierra"
    SLOW = "lector lento"
    NO_TLS = "sin TLS"
    NO_BUS = "demasiado tiempo sin el bus"
    BAD_FRAME = "mensaje no admitido"
    DEAD = "no responde"
    BROWSER = "navegador en el puerto de líneas"
    BAD_HEADER = "cabecera PROXY mal formada"
    FULL = "servidor lleno"


class Member(Protocol):
    """Somebody in a room."""

    @property
    def codec(self) -> Codec: ...

    @property
    def write(self) -> Callable[[bytes], object]:
        """Send bytes, now or later. It never raises: a connection that has ended, or that more
        than HIGH_WATER bytes wait for, ends by itself, and drops them."""

    @property
    def waiting(self) -> int:
        """Bytes that wait for it."""

    def abort(self, reason: Reason) -> None:
        """End it at once; what waits for it is dropped. It may have ended already."""


class Link(Member, Protocol):
    """What a session needs of its connection beside."""

    def close(self, reason: Reason) -> None:
        """End it when what waits for it has been sent. What is written from now on is dropped."""

    def wake(self) -> None:
        """Call the session's run() in a turn to come: it can go on with what it has."""
