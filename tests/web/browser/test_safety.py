"""A page of somebody else, and https."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import expect

from benchmarks.harness.server import Server
from tests.chat.certificates import Certificates
from tests.chat.conftest import Guest, Serve
from tests.web.browser.conftest import Open, shows, url_of

pytestmark = pytest.mark.long

TRY = """(url) => new Promise((resolve) => {
  const socket = new WebSocket(url);
  socket.onopen = () => { socket.send("eva"); resolve("open"); };
  socket.onclose = (event) => resolve(event.code);
})"""


class Foreign(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><link rel=icon href=data:,><title>another page</title>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def foreign() -> Iterator[str]:
    """The URL of a page of another origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_page_of_another_origin_is_refused(
    server: Server, serve: Serve, visit: Open, foreign: str
) -> None:
    """And let in where the operator says so."""
    visitor = visit(foreign)
    visitor.cut = True
    socket = url_of(server).replace("http:", "ws:") + "ws"
    assert visitor.page.evaluate(TRY, socket) == 1006
    Guest(server, "carlos").say("/list")
    open_to_it = serve("--origin", foreign.rstrip("/"))
    assert visitor.page.evaluate(TRY, url_of(open_to_it).replace("http:", "ws:") + "ws") == "open"


def test_page_cannot_be_framed(server: Server, visit: Open, foreign: str) -> None:
    visitor = visit(foreign)
    visitor.cut = True
    visitor.page.evaluate(
        "(url) => new Promise((resolve) => { const frame = document.createElement('iframe');"
        "  frame.onload = resolve; frame.src = url; document.body.append(frame) })",
        url_of(server),
    )
    frame = visitor.page.frames[1]
    assert frame.get_by_role("textbox").count() == 0
    assert [problem for problem in visitor.problems if "frame-ancestors" in problem]
    visitor.problems.clear()


def test_https(serve: Serve, visit: Open, tmp_path: Path) -> None:
    server = serve(*Certificates(tmp_path).options)
    ana = visit(url_of(server).replace("http:", "https:"), "ana", ignore_https_errors=True)
    carlos = Guest(server, "carlos")
    ana.say("hola")
    carlos.lines("ana dice: hola")
    carlos.say("buenas")
    shows(ana, ("ana", "hola"), ("carlos", "buenas"))
    expect(ana.status).to_contain_text("Conectado")
    assert ana.page.evaluate("() => isSecureContext && location.protocol") == "https:"
