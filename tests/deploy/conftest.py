"""The proxies of stages/v5/deploy, as they are but for addresses, before servers on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
from collections.abc import Callable, Mapping
from http.client import HTTPSConnection
from typing import Any

from websockets import Origin
from websockets.sync.client import ClientConnection, connect

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE, wait_until
from tests.chat.conftest import serve as serve
from tests.chat.test_stop import PASSWORD
from tests.support.needed import needed_in_ci
from tests.support.wire import Peer

DEPLOY = ROOT / "stages" / "v5" / "deploy"
CLIENT = "192.0.2.7"


def program(name: str) -> str:
    """Debian has it where only root looks."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if not path:
        needed_in_ci(f"{name} is not installed: apt-get install {name}")
    return path


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Each must be there to be changed."""
    for old, new in changes.items():
        text, count = re.subn(old, new, text)
        assert count, f"{old!r} is not in the configuration"
    return text


def browse(port: int, tls: ssl.SSLContext, **headers: str) -> ClientConnection:
    """The WebSocket of a page that has come from the proxy."""
    origin = Origin(f"https://127.0.0.1:{port}")
    return connect(
        f"wss://127.0.0.1:{port}/ws",
        sock=Visitor(port).sock,
        ssl=tls,
        origin=origin,
        additional_headers=headers,
        compression=None,
        open_timeout=DEADLINE,
    )


def events(socket: ClientConnection) -> list[dict[str, Any]]:
    """Of the next frame."""
    frame: list[dict[str, Any]] = json.loads(socket.recv(DEADLINE))
    return frame


def get(port: int, path: str, tls: ssl.SSLContext) -> tuple[int, str]:
    """The status, and the body."""
    connection = HTTPSConnection("127.0.0.1", port, context=tls, timeout=DEADLINE)
    connection.sock = Visitor(port, tls=tls).sock
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def come_in_by_web(port: int, tls: ssl.SSLContext, log: Callable[[], list[str]]) -> None:
    """All that a proxy has to do for the page: who comes is who the server takes him for, by TLS,
    whatever he says himself; he may open the WebSocket of the page, and stays."""
    status, page = get(port, "/", tls)
    assert status == 200 and "<title>sock_chat</title>" in page
    assert get(port, "/healthz", tls) == (200, "ok\n")
    assert get(port, "/metrics", tls)[0] in (403, 404)
    lies = {"X-Forwarded-For": "192.0.2.99", "X-Forwarded-Proto": "http"}
    with browse(port, tls, **lies) as socket:
        assert events(socket) == [{"type": "ask", "what": "nick"}]
        wait_until(lambda: any(f"('{CLIENT}'" in line for line in log()), "not who it is")
        assert not any("192.0.2.99" in line for line in log())
        socket.send("dora")
        assert events(socket)[0]["type"] == "welcome"
        socket.send(f"/register {PASSWORD}")
        assert events(socket)[0]["text"] == "El apodo dora es tuyo."


class Visitor(Peer):
    """A client of the proxy, which a header before its first byte says to come from elsewhere.
    tls: what it goes by, if it comes by TLS."""

    def __init__(self, port: int, address: str = CLIENT, tls: ssl.SSLContext | None = None):
        super().__init__(("127.0.0.1", port))
        self.send(f"PROXY TCP4 {address} 127.0.0.1 40000 {port}\r\n".encode())
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname="127.0.0.1")
