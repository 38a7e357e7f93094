"""The WebSocket: who may open it, how it closes, and whom it takes for dead."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from benchmarks.harness.frames import PONG, TEXT, client_frame
from benchmarks.harness.process import DEADLINE, wait_until
from benchmarks.harness.server import Server
from sock_chat import ws
from sock_chat.codec import JSON, Control
from tests.chat.certificates import Certificates
from tests.chat.conftest import Guest, Serve
from tests.chat.world import World
from tests.support.wire import Peer
from tests.web.conftest import LOOPS, OTHER_ORIGIN, PROXY, Browser, answer, upgrade
from tests.web.test_metrics import Running


def closed(browser: Browser) -> tuple[int, list[str]]:
    """The close code, and the types of what came before."""
    types = []
    try:
        while True:
            types.append(browser.event()["type"])
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else 0, types


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("", 101),
        ("http://chat", 101),
        ("https://CHAT", 101),
        (OTHER_ORIGIN, 101),
        ("http://chat.example.org", 403),
        ("http://chat:81", 403),
        ("http://chat.evil.example", 403),
        ("null", 403),
        ("chat", 403),
        ("file://chat", 403),
    ],
)
def test_whose_pages_may_open_it(shared: Server, origin: str, status: int) -> None:
    assert shared.web
    peer = Peer(shared.web)
    peer.send(upgrade(Origin=origin))
    assert peer.take(12).decode() == f"HTTP/1.1 {status}"
    twice = upgrade(Origin="http://chat").replace(b"\r\n\r\n", b"\r\nOrigin: http://chat\r\n\r\n")
    assert answer(shared, twice + b"\n")[0] == 403


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"Upgrade": ""}, 426),
        ({"Connection": ""}, 426),
        ({"Sec_WebSocket_Key": "short"}, 400),
        ({"Sec_WebSocket_Version": "8"}, 400),
        ({"path": "/ws?since=x"}, 400),
        ({"path": "/ws?since=1234567890123456789"}, 400),
    ],
)
def test_what_does_not_open_it(shared: Server, wrong: dict[str, str], status: int) -> None:
    got, text = answer(shared, upgrade(**wrong) + b"\n")
    assert got == status
    assert "\r\n\r\n" in text


def test_all_in_one_segment(shared: Server) -> None:
    assert shared.web
    peer = Peer(shared.web)
    peer.send(upgrade() + client_frame(TEXT, b"segment") + client_frame(TEXT, b"/quit"))
    data = peer.rest()
    assert b'"nick":"segment"' in data and data.endswith(b"\x88\x02\x03\xe8")


def test_a_telnet_and_a_browser_talk(shared: Server) -> None:
    with Browser(shared, "ana") as ana:
        bea = Guest(shared, "bea")
        assert ana.next("joined")["nick"] == "bea"
        ana.socket.send("hola")
        assert bea.line() == "ana dice: hola"
        assert ana.next("ack")
        bea.say("y tú", "/pm ana psst", "/quit adiós")
        assert ana.next("said")["text"] == "y tú"
        assert ana.next("private")["text"] == "psst"
        assert ana.next("left")["reason"] == "adiós"


END: dict[str, tuple[Callable[[Browser], Any], int]] = {
    "quit": (lambda browser: browser.socket.send("/quit"), 1000),
    "binary": (lambda browser: browser.socket.send(b"hola"), 1003),
    "not UTF-8": (lambda browser: browser.socket.send(b"\xff", text=True), 1007),
    "too long": (lambda browser: browser.socket.send("x" * 4097), 1009),
    "no frame": (lambda browser: browser.socket.socket.sendall(b"hola\n"), 1002),
    "its own": (lambda browser: browser.socket.close(1001), 1001),
}


@pytest.mark.parametrize("how", END)
def test_how_it_closes(shared: Server, how: str) -> None:
    """All that was said before is heard."""
    end, code = END[how]
    bea = Guest(shared, "bea")
    with Browser(shared, "ana") as ana:
        assert bea.line() == "* ana ha entrado."
        ana.socket.send("hola")
        end(ana)
        assert closed(ana)[0] == code
    bea.lines("ana dice: hola", "* ana ha salido.")
    bea.say("/quit")
    bea.ends()


def test_who_is_taken_over(shared: Server) -> None:
    with Browser(shared, "ana") as ana, Browser(shared) as again:
        again.socket.send(json.dumps({"resume": ana.welcome["resume"]}))
        assert again.next("welcome")["nick"] == "ana"
        code, types = closed(ana)
        assert (code, types[-1]) == (1008, "error")


@pytest.mark.parametrize("loop", LOOPS)
def test_too_many_of_an_address(serve: Serve, loop: str) -> None:
    """Counted after the upgrade, for only then a page can learn why."""
    server = serve("--loop", loop, "--trust-proxy", PROXY, "--per-address", "1")
    how: Any = {
        "source_address": (PROXY, 0),
        "additional_headers": {"X-Forwarded-For": "192.0.2.7"},
    }
    with Browser(server, "ana", **how):
        server.log.wait(lambda line: line.startswith("Cliente conectado: ('192.0.2.7', "))
        assert server.web
        peer = Peer(server.web, source=PROXY)
        peer.send(upgrade(X_Forwarded_For="8.8.8.8, 192.0.2.7"))
        data = peer.rest()
        assert b"Demasiadas conexiones" in data and b"\x03\xf0" in data  # 1008


@pytest.mark.parametrize("loop", LOOPS)
def test_the_stop(serve: Serve, loop: str) -> None:
    """Everybody is told when to come back, not all at the same time; whoever asks for the health
    meanwhile hears that it stops."""
    server = serve("--loop", loop)
    assert server.web
    health = HTTPConnection(*server.web, timeout=DEADLINE)
    health.request("GET", "/healthz")
    assert health.getresponse().read() == b"ok\n"
    silent = Peer(server.web)  # does not answer the close frame, which holds up the stop
    silent.send(upgrade())
    with Browser(server, "ana") as ana, Browser(server, "bea") as bea:
        server.process.terminate()
        times = [browser.next("closing")["retry_after"] for browser in (ana, bea)]
        assert len(set(times)) == 2 and all(1 <= time < 60 for time in times)
        health.request("GET", "/healthz")
        response = health.getresponse()
        assert (response.status, response.headers["Connection"]) == (503, "close")
        assert closed(ana)[0] == closed(bea)[0] == 1001


@pytest.mark.parametrize("loop", LOOPS)
def test_over_tls(serve: Serve, tmp_path: Path, loop: str) -> None:
    certificates = Certificates(tmp_path)
    server = serve(*certificates.options, "--loop", loop)
    context = ssl.create_default_context(cafile=str(certificates.ca))
    with Browser(server, "ana", ssl=context) as ana, Browser(server, "bea", ssl=context) as bea:
        ana.socket.send("x" * 4096)
        assert bea.next("said")["text"] == "x" * 4096
        ana.socket.send("/quit")
        assert closed(ana)[0] == 1000


def test_what_says_nothing_costs_as_much_as_a_line() -> None:
    world = World(rate=1, burst=5)
    (bea,) = world.enter("bea")
    ana = world.connect("ana", codec=JSON)
    ana.send(*[Control()] * 4, "hola")
    world.turn()
    assert bea.new() == ["* ana ha entrado."]
    world.clock += 1
    world.turn()
    assert bea.new() == ["ana dice: hola"]


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(ws, "PING_TIME", 0.4)
    server = Running("--db", ":memory:", "--web-port", "0", "--rate", "1", "--burst", "3")
    yield server
    server.close()


def test_who_does_not_answer_a_ping_is_dead(running: Running) -> None:
    """Unless its input waits to be handled: then it has not been read."""
    ping = b"\x89\x00"

    def connect(*lines: bytes) -> Peer:
        peer = Peer(running.address(0))
        peer.send(upgrade() + b"".join(client_frame(TEXT, line) for line in lines))
        return peer

    dead, busy, alive = connect(), connect(b"ana", *[b"x"] * 50), connect()
    wait_until(lambda: len(running.server.connections) == 3, "they have not come in")
    data = b""
    while data.count(ping) < 4:
        data += alive.sock.recv(4096)
        if data.endswith(ping):
            alive.send(client_frame(PONG, b""))
    assert ping in dead.rest()
    assert busy.sock.send(client_frame(TEXT, b"still here"))
    wait_until(lambda: len(running.server.connections) == 2, "nobody has been taken for dead")
    reasons = [reason for reason, count in running.server.counters.closed.items() if count]
    assert [reason.value for reason in reasons] == ["no responde"]
