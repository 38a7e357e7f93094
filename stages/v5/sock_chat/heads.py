"""The head of an HTTP request, and the bytes of an answer: h11 decides what is one, we how much of
it there may be, for h11 counts only what has come in part.

A request with a body is answered without reading it, and then the connection is closed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

import h11

MAX_HEAD = 8192  # bytes
MAX_BODY = 8192  # bytes that a request may declare
END = re.compile(rb"\r?\n\r?\n")  # of a head
REQUEST_LINE = re.compile(rb"[!#-'*+.^-z|~0-9A-Z-]+ [^ ]+ HTTP/(\d)\.(\d)\r?")


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}
    closes: bool = False  # whether it is the last on its connection


class Refused(Exception):
    """It is no request that could be answered otherwise."""

    def __init__(self, answer: Answer):
        super().__init__()
        self.answer = answer


def plain(status: int, text: str, closes: bool = False, **headers: str) -> Answer:
    """A short text."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(
        status,
        f"{text}\n".encode(),
        {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", **named},
        closes,
    )


class Request(NamedTuple):
    """head: the bytes of it. headers: names are lower case."""

    head: bytes
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    keeps_alive: bool

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def get(self, name: str) -> str:
        """All values of a header in one, "" when there is none."""
        return ",".join(self.all(name))


def find_end(data: bytes | bytearray) -> int:
    """Where the head ends that data begins with; 0: it is not whole. Refused: it never will be."""
    if data[:1] == b"\x16":
        raise Refused(plain(400, "Esto es un puerto sin TLS: http://, no https://.", True))
    line, newline, _ = data[:MAX_HEAD].partition(b"\n")
    if newline:
        known = REQUEST_LINE.fullmatch(line)
        if not known:
            raise Refused(plain(400, "Esto es un puerto web: no se entiende la petición.", True))
        if known[1] != b"1":
            raise Refused(plain(505, "Solo HTTP/1.1.", True))
    end = END.search(data, 0, MAX_HEAD)
    if end:
        return end.end()
    if len(data) >= MAX_HEAD:
        raise Refused(plain(431, f"Cabecera demasiado larga: {MAX_HEAD} bytes como mucho.", True))
    return 0


def parse(head: bytes) -> Request:
    """Refused: it is not HTTP, or more than we take."""
    parser = h11.Connection(h11.SERVER)
    try:
        parser.receive_data(head)
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise Refused(plain(error.error_status_hint, "Petición mal formada.", True)) from None
    if not isinstance(event, h11.Request):
        raise Refused(plain(400, "Petición mal formada.", True))
    headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers]
    target = event.target.decode("ascii")
    if target.lower().startswith("http://"):  # absolute-form, as to a proxy
        _, slash, rest = target[len("http://") :].partition("/")
        target = slash + rest or "/"
    path, _, query = target.partition("?")
    method = event.method.decode("ascii")
    has_body = not isinstance(parser.next_event(), h11.EndOfMessage)
    options = [value for name, value in headers if name == "connection"]
    closes = "close" in re.split(r"[\s,]+", ",".join(options).lower())
    # h11's own word for it is lost where a CONNECT or an Upgrade might switch protocols
    keeps_alive = not has_body and not closes and event.http_version >= b"1.1"
    request = Request(head, method, path, query, headers, keeps_alive)
    if request.get("content-length") and request.get("transfer-encoding"):
        raise Refused(plain(400, "Content-Length o Transfer-Encoding, no los dos.", True))
    if has_body and int(request.get("content-length") or 0) > MAX_BODY:
        raise Refused(plain(413, f"Cuerpo demasiado largo: {MAX_BODY} bytes como mucho.", True))
    return request


def serialize(answer: Answer, method: str, closes: bool) -> bytes:
    """closes: whether the connection is closed after it."""
    headers = {
        "Date": formatdate(usegmt=True),
        "X-Content-Type-Options": "nosniff",
        "Content-Length": str(len(answer.body)),
        **answer.headers,
    }
    if closes:
        headers["Connection"] = "close"
    if answer.status == HTTPStatus.NOT_MODIFIED:
        del headers["Content-Length"]
    status = HTTPStatus(answer.status)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
    return head if method == "HEAD" else head + answer.body
