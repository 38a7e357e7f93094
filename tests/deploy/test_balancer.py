"""haproxy.cfg, as compose.yaml has it, before three servers that know nothing of each other."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from benchmarks.harness import browser, certificate
from benchmarks.harness.process import DEADLINE, accepts, free_port, wait_until
from benchmarks.harness.server import Server
from sock_chat.server import CROWDED
from tests.chat.conftest import QUESTION
from tests.chat.test_stop import PASSWORD
from tests.deploy.conftest import CLIENT, DEPLOY, Visitor, come_in_by_web, program, replaced
from tests.support.needed import needed_in_ci
from tests.support.run import running


class Ports(NamedTuple):
    lines: int
    lines_tls: int
    web: int
    health: int


class Balancer(NamedTuple):
    ports: Ports
    tls: ssl.SSLContext
    servers: list[Server]

    def log(self) -> list[str]:
        """Of all servers."""
        return [line for server in self.servers for line in server.log.all()]


@contextmanager
def balanced(folder: Path, header: str = "accept-proxy") -> Iterator[Balancer]:
    """header: by which a client on loopback, who is exempt from much, says where it comes from."""
    haproxy = program("haproxy")
    tls = certificate.issue(folder)
    pem = folder / "chat.pem"
    pem.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    with ExitStack() as stack:
        options = ("--trust-proxy", "127.0.0.0/8", "--per-address", "1")
        servers = [stack.enter_context(Server("v5", arguments=options)) for _ in range(3)]
        ports = Ports(*[free_port() for _ in range(4)])
        (folder / "haproxy.cfg").write_text(configuration(servers, ports, pem, header))
        command = [haproxy, "-db", "-f", str(folder / "haproxy.cfg")]
        process = stack.enter_context(running(command))
        wait_until(
            lambda: process.poll() is not None or accepts(ports.health), "haproxy does not start"
        )
        assert process.poll() is None, process.communicate()[1]
        yield Balancer(ports, tls, servers)
        for server in servers:
            if server.process.poll() is None:
                assert (server.stop(), server.errors.rest()) == (0, [])


@pytest.fixture(scope="module")
def balancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    """One for all tests that stop nothing. Each has addresses of its own."""
    with balanced(tmp_path_factory.mktemp("balancer")) as balancer:
        yield balancer


def configuration(servers: list[Server], ports: Ports, pem: Path, header: str) -> str:
    lines, lines_tls, web, health = (f"127.0.0.1:{port}" for port in ports)
    changes = {
        "bind :8080": f"bind {lines} {header}",
        "bind :8443": f"bind {lines_tls} {header}",
        "bind :8081": f"bind {web} {header}",
        r"bind 127\.0\.0\.1:8404": f"bind {health}",
        "/run/secrets/chat.pem": str(pem),
        "check port 8081 ": "check ",
    }
    for number, server in enumerate(servers, 1):
        assert server.web
        changes |= {
            f"chat{number}:8080": f"127.0.0.1:{server.address[1]} port {server.web[1]}",
            f"chat{number}:8081": f"127.0.0.1:{server.web[1]}",
        }
    return replaced((DEPLOY / "haproxy.cfg").read_text(), changes)


def connected(address: str) -> str:
    return f"Cliente conectado: ('{address}', 40000)"


def test_a_client_is_who_it_is_behind_the_balancer(balancer: Balancer) -> None:
    peer = Visitor(balancer.ports.lines, "198.51.100.1")
    assert peer.line() == QUESTION
    wait_until(lambda: connected("198.51.100.1") in balancer.log(), "not who it is")
    peer.say("ana", f"/register {PASSWORD}")
    assert peer.line() == "* Hola, ana. En general: ana."
    assert peer.line() == "* Solo por TLS."


def test_who_comes_by_tls_may_say_a_password(balancer: Balancer) -> None:
    peer = Visitor(balancer.ports.lines_tls, "198.51.100.2", balancer.tls)
    assert peer.line() == QUESTION
    peer.say("bea", f"/register {PASSWORD}")
    assert peer.line() == "* Hola, bea. En general: bea."
    assert peer.line() == "* El apodo bea es tuyo."


def test_the_page_and_its_websocket(balancer: Balancer) -> None:
    come_in_by_web(balancer.ports.web, balancer.tls, balancer.log)


@pytest.mark.long
def test_newcomers_go_where_few_are_and_limits_are_their_own(tmp_path: Path) -> None:
    """One of each address is let in by each server. One that stops gets nobody new, and nobody is
    turned away for it."""
    with balanced(tmp_path) as balancer:
        port, servers = balancer.ports.lines, balancer.servers
        peers = [Visitor(port) for _ in servers]
        for peer in peers:
            assert peer.line() == QUESTION
        for server in servers:
            server.log.wait(connected(CLIENT).__eq__)
        assert Visitor(port).rest().decode() == f"* {CROWDED}\n"
        assert Visitor(port, "198.51.100.1").line() == QUESTION
        assert servers[0].stop() == 0
        for number in range(4, 10):
            assert Visitor(port, f"198.51.100.{number}").line() == QUESTION
        assert health(balancer) == 200
        for server in servers[1:]:
            assert server.stop() == 0
        wait_until(lambda: health(balancer) == 503, "it does not notice", pause=0.1)


def health(balancer: Balancer) -> int:
    """The status by which the balancer's own container is judged."""
    url = f"http://127.0.0.1:{balancer.ports.health}/healthz"
    try:
        with urlopen(url, timeout=DEADLINE) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


@pytest.mark.long
def test_a_browser_by_http_2(tmp_path: Path) -> None:
    """It opens the WebSocket within the connection that it has the page from, RFC 8441."""
    reason = browser.missing()
    if reason:
        needed_in_ci(reason)
    with balanced(tmp_path, header="") as balancer, browser.chromium() as chromium:
        url = f"https://127.0.0.1:{balancer.ports.web}/"
        with browser.opened(chromium, url, ignore_https_errors=True) as visitor:
            visitor.enter("ana")
            visitor.say("hola")
            wait_until(lambda: visitor.messages() == [("ana", "hola")], "she is not heard", 0.02)
            entry = "performance.getEntriesByType('navigation')[0]"
            assert visitor.page.evaluate(f"{entry}.nextHopProtocol") == "h2"
            assert visitor.problems == []
