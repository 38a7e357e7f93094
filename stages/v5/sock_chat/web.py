"""A connection on the web port: HTTP until one request of it opens the WebSocket.

A request is handled when all of its head is there, one in a turn of the loop; meanwhile, and while
the answers wait for a client that does not read them, nothing more is read. Each has HEAD_TIME
from the answer before, or the connection's beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol, cast
from urllib.parse import parse_qs

from sock_chat.chat import Visit
from sock_chat.exposition import Exposition
from sock_chat.files import revalidated
from sock_chat.forwarded import Client, client
from sock_chat.heads import Answer, Refused, Request, find_end, parse, plain, serialize
from sock_chat.limits import is_loopback
from sock_chat.link import LOW_WATER, Reason
from sock_chat.owner import Owner
from sock_chat.proxy import Networks
from sock_chat.rooms import GENERAL
from sock_chat.session import NEVER
from sock_chat.tls import Tls
from sock_chat.ws import Pings, WebSocket, shake_hands

HEAD_TIME = 10.0  # seconds
MAX_DIGITS = 18  # of a position
STOPPING = "El servidor se cierra."
CROWDED = "Demasiadas conexiones desde tu dirección."
METHODS = {"GET", "HEAD"}


class Site(Owner, Protocol):
    """What the web port needs of the server, beside."""

    files: Mapping[str, Answer]
    origins: Collection[str]
    trusted: Networks
    pings: Pings
    exposition: Exposition

    def health(self) -> str:
        """What keeps it from serving; "" when nothing does."""


def is_own(origin: str, host: str, origins: Collection[str]) -> bool:
    """Whether a page of this origin may open the WebSocket."""
    scheme, separator, authority = origin.lower().partition("://")
    if not separator or scheme not in ("http", "https"):
        return False
    return authority == host.lower() or f"{scheme}://{authority}" in origins


class Http:
    """connection.Dialogue of requests and answers."""

    def __init__(self, connection: WebConnection, site: Site, secure: bool):
        self.deadline = site.chat.clock() + HEAD_TIME
        self.idle = True
        self._connection = connection
        self._site = site
        self._files = site.files
        self._peer = Client(connection.address, secure)
        self._data = bytearray()
        self._input_ended = False
        self._get: dict[str, Callable[[Request, Client], Answer]] = {
            "/healthz": self._healthz,
            "/metrics": self._metrics,
            "/ws": self._ws,
        }

    def feed(self, data: bytes) -> None:
        self._data += data

    def finish_input(self) -> None:
        self._input_ended = True

    def expire(self) -> None:
        if self._data:
            self._send(plain(408, f"Petición sin terminar en {HEAD_TIME:g} s.", closes=True))
        self._connection.close(Reason.QUIT)

    def run(self, budget: int) -> float:
        self.idle = self._connection.waiting <= LOW_WATER
        if not self.idle:
            return NEVER
        try:
            if self._data.startswith(b"\r\n"):  # after the one before: RFC 9112, 2.2
                del self._data[:2]
            end = find_end(self._data) if self._data else 0
            if end:
                head = bytes(self._data[:end])
                del self._data[:end]
                self._answer(parse(head))
        except Refused as refused:
            self._send(refused.answer)
            self._connection.close(Reason.QUIT)
            return NEVER
        if self._connection.session:
            if self._data:
                self._connection.take(bytes(self._data))
            return 0.0
        if end and self._data:
            self.idle = False
            return 0.0
        if self._input_ended:
            self._connection.close(Reason.QUIT)
        return NEVER

    def _answer(self, request: Request) -> None:
        who = client(request, self._peer, self._site.trusted)
        get = self._get.get(request.path)
        file = self._files.get(request.path)
        if not (get or file):
            answer = plain(404, "No hay nada aquí.")
        elif request.method not in METHODS:
            answer = plain(405, "Solo GET y HEAD.", Allow="GET, HEAD")
        elif get:
            answer = get(request, who)
        else:
            assert file
            answer = revalidated(file, request.get("if-none-match"))
        if self._connection.session:
            return
        if not request.keeps_alive or self._site.health():
            answer = answer._replace(closes=True)
        self._send(answer, request.method)
        if answer.closes:
            self._connection.close(Reason.QUIT)
        self.deadline = self._site.chat.clock() + HEAD_TIME

    def _send(self, answer: Answer, method: str = "GET") -> None:
        self._connection.write(serialize(answer, method, answer.closes))

    def _healthz(self, request: Request, who: Client) -> Answer:
        why = self._site.health()
        return plain(503, why) if why else plain(200, "ok")

    def _metrics(self, request: Request, who: Client) -> Answer:
        if not is_loopback(who.address):
            return plain(403, "Solo desde la propia máquina.")
        return self._exposition(request, who)

    def _exposition(self, request: Request, who: Client) -> Answer:
        return self._site.exposition.get()

    def _ws(self, request: Request, who: Client) -> Answer:
        counters = self._site.chat.counters
        counters.websocket_handshakes += 1
        answer = self._open(request, who)
        if not self._connection.session:
            counters.websocket_failures += 1
        return answer

    def _open(self, request: Request, who: Client) -> Answer:
        """Open the WebSocket, and then the answer is not needed, or say why not."""
        if request.get("upgrade").lower() != "websocket":
            return plain(426, "Aquí se abre un WebSocket.", Upgrade="websocket")
        if why := self._site.health():
            return plain(503, why)
        origins = request.all("origin")
        host = request.get("host")
        if len(origins) > 1 or (origins and not is_own(origins[0], host, self._site.origins)):
            return plain(403, "Una página de otro sitio no abre este WebSocket.")
        query = {name: values[-1] for name, values in parse_qs(request.query).items()}
        since = query.get("since", "")
        if since and not (since.isascii() and since.isdigit() and len(since) <= MAX_DIGITS):
            return plain(400, "since es una posición.")
        status, reply = shake_hands(request.head)
        if status != 101:
            return plain(status, "Esto no abre un WebSocket.", Sec_WebSocket_Version="13")
        visit = Visit(
            who.address,
            who.secure,
            query.get("room", GENERAL),
            int(since) if since else None,
            query.get("epoch", ""),
        )
        self._connection.upgrade(visit, reply)
        return Answer(status)


class MetricsHttp(Http):
    """On a port that has nothing but the metrics, for whoever reaches it."""

    def __init__(self, connection: WebConnection, site: Site, secure: bool):
        super().__init__(connection, site, secure)
        self._files = {}
        self._get = {"/metrics": self._exposition}


class WebConnection(WebSocket):
    """The HTTP part of it."""

    __slots__ = ()
    dialogue: type[Http] = Http
    full = serialize(plain(503, "Servidor lleno."), "GET", closes=True)
    proxy_header = False  # X-Forwarded-For says it

    def come_in(self, secure: bool) -> None:
        self._begin()
        self._dialogue = self.dialogue(self, cast(Site, self._owner), secure)
        if not self._owner.count_outside(self):
            self.write(serialize(plain(503, CROWDED), "GET", closes=True))
            self.close(Reason.CROWDED)
            return
        self._keep_deadline()

    def take(self, data: bytes) -> None:
        if self.session:
            super().take(data)
        else:
            cast(Http, self._dialogue).feed(data)

    def upgrade(self, visit: Visit, reply: bytes) -> None:
        self.write(reply)
        if visit.address != self.address:
            port = self.transport.get_extra_info("peername")[1]
            self.name, self.address = str((visit.address, port)), visit.address
        cast(Site, self._owner).pings.join(self)
        self.open(visit)

    def connection_lost(self, error: Exception | None) -> None:
        if self.session:
            cast(Site, self._owner).pings.leave(self)
        super().connection_lost(error)


class MetricsConnection(WebConnection):
    __slots__ = ()
    dialogue = MetricsHttp


class TlsWeb(Tls, WebConnection):
    __slots__ = ()
    not_tls = serialize(
        plain(400, "Esto es un puerto con TLS: https://, no http://."), "GET", closes=True
    )
