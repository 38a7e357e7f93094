"""haproxy.cfg, as compose.yaml has it, before three servers that know nothing of each other."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.harness import certificate
from benchmarks.harness.process import accepts, free_port, wait_until
from benchmarks.harness.server import Server
from tests.chat.conftest import QUESTION
from tests.chat.test_stop import PASSWORD
from tests.deploy.conftest import CLIENT, DEPLOY, Visitor, program, replaced
from tests.support.run import running

NEIGHBOUR = "192.0.2.8"
CROWDED = "* Demasiadas conexiones desde tu dirección."


class Balancer(NamedTuple):
    lines: int
    lines_tls: int
    web: int
    health: int
    tls: ssl.SSLContext
    servers: list[Server]

    def log(self) -> list[str]:
        """Of all servers."""
        return [line for server in self.servers for line in server.log.all()]


@pytest.fixture(scope="module")
def balancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    folder = tmp_path_factory.mktemp("balancer")
    haproxy = program("haproxy")
    tls = certificate.issue(folder)
    pem = folder / "chat.pem"
    pem.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    with ExitStack() as stack:
        options = ("--trust-proxy", "127.0.0.0/8", "--per-address", "1", "--web-port", "0")
        servers = [stack.enter_context(Server("v5", arguments=options)) for _ in range(3)]
        ports = [free_port() for _ in range(4)]
        (folder / "haproxy.cfg").write_text(configuration(servers, ports, pem))
        command = [haproxy, "-db", "-f", str(folder / "haproxy.cfg")]
        process = stack.enter_context(running(command))
        wait_until(
            lambda: process.poll() is not None or accepts(ports[-1]), "haproxy does not start"
        )
        assert process.poll() is None, process.communicate()[1]
        yield Balancer(*ports, tls, servers)
        for server in servers:
            if server.process.poll() is None:
                assert (server.stop(), server.errors.rest()) == (0, [])


def configuration(servers: list[Server], ports: list[int], pem: Path) -> str:
    lines, lines_tls, web, health = (f"127.0.0.1:{port}" for port in ports)
    changes = {
        # A client on loopback is exempt from much: these say where they come from.
        "bind :8080": f"bind {lines} accept-proxy",
        "bind :8443": f"bind {lines_tls} accept-proxy",
        "bind :8081": f"bind {web} accept-proxy",
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


def test_a_client_is_who_it_is_behind_the_balancer(balancer: Balancer) -> None:
    peer = Visitor(balancer.lines)
    assert peer.line() == QUESTION
    assert f"Cliente conectado: ('{CLIENT}', 40000)" in balancer.log()
    peer.say("ana", f"/register {PASSWORD}")
    assert peer.line() == "* Hola, ana. En general: ana."
    assert peer.line() == "* Solo por TLS."


def test_who_comes_by_tls_may_say_a_password(balancer: Balancer) -> None:
    peer = Visitor(balancer.lines_tls, tls=balancer.tls)
    assert peer.line() == QUESTION
    peer.say("bea", f"/register {PASSWORD}")
    assert peer.line() == "* Hola, bea. En general: bea."
    assert peer.line() == "* El apodo bea es tuyo."
