"""What the web port answers, to a browser and to whatever else may come there."""

from __future__ import annotations

import re
import resource
import socket
from http.client import HTTPConnection
from typing import Any

import pytest

from benchmarks.harness.process import DEADLINE, wait_until
from benchmarks.harness.server import Server
from sock_chat import files, limits, web
from sock_chat.heads import MAX_BODY, MAX_HEAD
from tests.chat.certificates import Certificates
from tests.chat.conftest import QUESTION, Guest, Serve
from tests.support.wire import Peer
from tests.web.conftest import PROXY, answer, head, upgrade
from tests.web.test_metrics import Running

ONCE = "Connection: close"
TWO_LENGTHS = ("Content-Length: 1", "Transfer-Encoding: chunked")


@pytest.fixture
def client(shared: Server) -> HTTPConnection:
    assert shared.web
    return HTTPConnection(*shared.web, timeout=DEADLINE)


def get(client: HTTPConnection, path: str, method: str = "GET", **headers: str) -> Any:
    client.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    response = client.getresponse()
    response.body = response.read()  # type: ignore[attr-defined]
    return response


def test_the_page_and_its_files_on_one_connection(client: HTTPConnection) -> None:
    page = get(client, "/")
    assert page.status == 200 and page.headers["Content-Type"] == "text/html; charset=utf-8"
    names = re.findall(r'(?:src|href)="([^"#]+)"', page.body.decode())
    paths = [path for path in files.load() if path != "/"]
    assert {f"/{name.lstrip('/')}" for name in names} <= set(paths)
    port = client.sock.getsockname()
    for path in paths:
        file = get(client, path)
        assert file.status == 200 and file.body
        assert "default-src 'none'" in file.headers["Content-Security-Policy"]
        assert file.headers["X-Content-Type-Options"] == "nosniff"
    assert client.sock.getsockname() == port
    tag = page.headers["ETag"]
    for known in (tag, f'"x", W/{tag}', "*"):
        assert (get(client, "/?x=1", If_None_Match=known).status) == 304
    again = get(client, "/", If_None_Match='"x"')
    assert (again.status, again.body) == (200, page.body)


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/ws", "/nope"])
def test_head_is_get_without_the_body(client: HTTPConnection, path: str) -> None:
    whole, bare = get(client, path), get(client, path, "HEAD")
    assert bare.body == b""
    assert bare.status == whole.status
    if path != "/metrics":  # which grow
        assert bare.headers["Content-Length"] == str(len(whole.body))


def test_health(client: HTTPConnection) -> None:
    assert (get(client, "/healthz").status, get(client, "/healthz").body) == (200, b"ok\n")


@pytest.mark.parametrize(
    ("segments", "status", "text"),
    [
        ([head("GET /nope HTTP/1.1", "Host: x", ONCE)], 404, "No hay nada"),
        ([head("GET //x/../.. HTTP/1.1", "Host: x", ONCE)], 404, ""),
        ([head("GET http://x/healthz HTTP/1.1", "Host: x", ONCE)], 200, "ok"),
        ([head("GET /healthz HTTP/1.0")], 200, "ok"),
        ([head("PUT / HTTP/1.1", "Host: x", ONCE)], 405, "Allow: GET, HEAD"),
        ([head("POST /ws HTTP/1.1", "Host: x", ONCE)], 405, "Allow: GET, HEAD"),
        ([head("POST / HTTP/1.1", "Host: x", "Content-Length: 4"), b"hola"], 405, ONCE),
        ([head("GET / HTTP/1.1", "Host: x", "Content-Length: 4")], 200, ONCE),
        ([head("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked"), b"x"], 405, ONCE),
        ([head("GET / HTTP/1.1", "Host: x", f"Content-Length: {MAX_BODY + 1}")], 413, ONCE),
        ([head("GET / HTTP/1.1", "Host: x", "Content-Length: -1")], 400, ONCE),
        ([head("CONNECT x:80 HTTP/1.1", "Host: x", ONCE)], 404, ONCE),
        ([head("GET /x HTTP/1.1", "Host: x", "Upgrade: x", f"{ONCE}, Upgrade")], 404, ONCE),
        ([b"\r\n" + head("GET /healthz HTTP/1.1", "Host: x", ONCE)], 200, "ok"),
        ([b"\r\n\r\n" + head("GET /healthz HTTP/1.1", "Host: x", ONCE)], 400, ONCE),
        ([head("GET / HTTP/1.1", "Host: x", *TWO_LENGTHS), b"x"], 400, ONCE),
        ([head("GET / HTTP/1.1")], 400, ONCE),
        ([head("GET / HTTP/1.1", "Host: x", "no colon")], 400, ONCE),
        ([b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n" * MAX_HEAD], 431, ONCE),
        ([b"GET / HTTP/1.1\r\nHost: x\r\n", *[b"X: " + b"y" * 1000] * 9], 431, ONCE),
        ([b"G" * (MAX_HEAD + 1)], 431, ONCE),
        ([head("GET / HTTP/1.1", "Host: x", f"X: {'x' * MAX_HEAD}")], 431, ONCE),
        ([b"ana\nhola\n"], 400, "puerto web"),
        ([b"\xff\xfb\x01\n"], 400, "puerto web"),
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 200], 400, "sin TLS"),
        ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], 505, ONCE),
        ([head("GET /healthz HTTP/1.1", "Host: x") + b"rubbish\n" * 1000], 200, " 400 "),
        ([head("GET /healthz HTTP/1.1", "Host: x") * 3 + b"\n"], 200, " 400 "),
    ],
)
def test_one_clear_answer(shared: Server, segments: list[bytes], status: int, text: str) -> None:
    got, whole = answer(shared, *segments)
    assert got == status
    assert text in whole
    assert whole.rstrip("\n").rpartition("\n")[2]


def test_pipelined_requests_are_answered_in_order(shared: Server) -> None:
    paths = ["/healthz", "/nope", "/", "/healthz"] * 20
    requests = b"".join(head(f"GET {path} HTTP/1.1", "Host: x") for path in paths)
    _, text = answer(shared, requests + head("GET /ws HTTP/1.1", "Host: x", ONCE))
    statuses = re.findall(r"^HTTP/1.1 (\d+)", text, re.MULTILINE)
    assert statuses == ["200", "404", "200", "200"] * 20 + ["426"]


def test_who_still_sends_is_not_reset(shared: Server) -> None:
    """Or it would not read the answer."""
    assert shared.web
    peer = Peer(shared.web)
    peer.send(head("POST / HTTP/1.1", "Host: x", f"Content-Length: {MAX_BODY + 1}"))
    text = peer.sock.recv(4096)
    peer.send(b"x" * MAX_BODY)
    peer.finish()
    while data := peer.sock.recv(4096):
        text += data
    assert text.startswith(b"HTTP/1.1 413") and text.endswith(b".\n")


def test_who_ends_its_stream_is_answered(shared: Server) -> None:
    assert shared.web
    peer = Peer(shared.web)
    peer.send(head("GET /healthz HTTP/1.1", "Host: x"))
    peer.finish()
    assert peer.rest().endswith(b"ok\n")


def test_a_browser_at_the_port_for_lines(shared: Server) -> None:
    for request in (head("GET / HTTP/1.1", "Host: x"), head("POST /x HTTP/1.0") + b"ana\nhola\n"):
        peer = Peer(shared.address)
        peer.send(request)
        sentence = "* Esto es un chat por líneas: la página está en otro puerto."
        assert peer.rest().decode() == f"{QUESTION}\n{sentence}\n"
    with Guest(shared, "GET").sock:
        pass  # it is a nick


@pytest.mark.parametrize("source", ["", PROXY])
def test_who_is_behind_a_proxy_is_believed_of_that(shared: Server, source: str) -> None:
    for name, status in (("192.0.2.1", 403), ("192.0.2.1, 127.0.0.1", 200), ("no", 200), ("", 200)):
        request = head("GET /metrics HTTP/1.1", "Host: x", ONCE, f"X-Forwarded-For: {name}")
        assert answer(shared, request, source=source)[0] == (status if source else 200)


@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.long)])
def certified(request: pytest.FixtureRequest, serve: Serve, tmp_path: Any) -> Server:
    return serve(*Certificates(tmp_path).options, "--loop", request.param)


def test_http_without_tls_on_the_port_with(certified: Server) -> None:
    status, text = answer(certified, head("GET / HTTP/1.1", "Host: x"))
    assert (status, text.rpartition("\r\n")[2]) == (
        400,
        "Esto es un puerto con TLS: https://, no http://.\n",
    )


def test_no_descriptor_left(serve: Serve) -> None:
    server = serve(limits={resource.RLIMIT_NOFILE: (80, 80)})
    assert server.web
    peers = [Peer(server.web) for _ in range(80)]
    answers = [peer.rest(within=DEADLINE) for peer in peers[-5:]]
    assert all(each.startswith(b"HTTP/1.1 503 ") for each in answers)
    for peer in peers:
        peer.close()
    wait_until(lambda: answer(server, head("GET / HTTP/1.0"))[0] == 200, "it does not recover")


# With a server of this process, whose times are short.


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(web, "HEAD_TIME", 0.3)
    server = Running("--db", ":memory:", "--web-port", "0", "--per-address", "2")
    yield server
    server.close()


def test_slow_heads(running: Running) -> None:
    begun, silent, kept = (Peer(running.address(0)) for _ in range(3))
    begun.send(b"GET / HTTP/1.1\r\nHo")
    kept.send(head("GET /healthz HTTP/1.1", "Host: x"))
    assert begun.rest().startswith(b"HTTP/1.1 408 ")
    assert silent.rest() == b""
    assert kept.rest().endswith(b"ok\n")


def test_connections_of_an_address_before_they_ask(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "is_loopback", lambda address: False)
    monkeypatch.setattr(web, "HEAD_TIME", 10.0)
    peers = [Peer(running.address(0)) for _ in range(2)]
    wait_until(lambda: len(running.server.connections) == 2, "they have not come in")
    third = Peer(running.address(0))
    assert b"HTTP/1.1 503 " in third.rest()
    peers[0].send(upgrade())  # it is inside now
    assert peers[0].take(12) == b"HTTP/1.1 101"
    assert Peer(running.address(0)).sock.send(b"x")
    socket.socket.shutdown(peers[1].sock, socket.SHUT_RDWR)
