"""The section "In containers" of stages/v5/OPERATING.md, on this machine: one container, and
compose.yaml, whose three servers are one chat. Only the ports are others."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.harness import certificate
from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE, free_port, wait_until
from tests.chat.conftest import QUESTION
from tests.chat.test_stop import PASSWORD
from tests.container.conftest import BUILD_TIME, HERE, environment, packed_project, podman
from tests.container.test_machine import PAGE, blocks
from tests.deploy.conftest import events, get, replaced
from tests.support.wire import Peer

pytestmark = pytest.mark.container

ONE, THREE = blocks(PAGE.partition("## In containers\n")[2])
PORTS = ("8080", "8081", "8443")
CHATS = ("chat1", "chat2", "chat3")


def run(script: str, folder: Path) -> str:
    path = f"{HERE}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**environment(), "PATH": path},
        capture_output=True,
        text=True,
        timeout=BUILD_TIME,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def clone(image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """image: it says whether there can be any."""
    folder = tmp_path_factory.mktemp("clone")
    subprocess.run(["tar", "--extract"], cwd=folder, input=packed_project(), check=True)
    return folder


def test_one_container(clone: Path) -> None:
    ports = {f"127.0.0.1:{port}:": f"127.0.0.1:{free_port()}:" for port in ("8080", "8081")}
    try:
        output = run(replaced(ONE, ports), clone)
        assert "* Hola, ana. En general: ana." in output
        assert "Servidor chat iniciado en ('0.0.0.0', 8080)" in output
        state = json.loads(podman("container", "inspect", "chat"))[0]["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    finally:
        podman("rm", "--force", "--ignore", "chat")
        podman("volume", "rm", "--force", "chat")


class Room(NamedTuple):
    """lines: a port for lines over TLS."""

    lines: int
    web: int
    tls: ssl.SSLContext

    def enter(self, nick: str) -> Peer:
        peer = Peer(("127.0.0.1", self.lines))
        peer.sock = self.tls.wrap_socket(peer.sock, server_hostname="127.0.0.1")
        assert peer.line() == QUESTION
        peer.say(nick)
        while not peer.line().startswith(f"* Hola, {nick}. En general: "):
            pass
        return peer


@pytest.fixture(scope="module")
def room(clone: Path) -> Iterator[Room]:
    compose = clone / "compose.yaml"
    ports = {port: free_port() for port in PORTS}
    changes = {f'"{port}:{port}"': f'"127.0.0.1:{ports[port]}:{port}"' for port in PORTS}
    compose.write_text(replaced(compose.read_text(), changes))
    tls = certificate.issue(clone)
    (clone / "cert.pem").rename(clone / "fullchain.pem")
    (clone / "key.pem").rename(clone / "privkey.pem")
    try:
        run(f"{THREE}\nchmod a+r chat.pem", clone)
        for service in ("nats", *CHATS, "balancer"):
            wait_until(lambda name=service: is_healthy(name), f"{service} is not healthy", 0.2)
        yield Room(ports["8443"], ports["8081"], tls)
    finally:
        run("docker compose down --volumes --timeout 5", clone)


def is_healthy(service: str) -> bool:
    command = ["podman", "healthcheck", "run", f"sock-chat_{service}_1"]
    done = subprocess.run(command, env=environment(), capture_output=True, check=False)
    return done.returncode == 0


def addresses(service: str) -> set[str]:
    """Of those who have come in there, as the log has it."""
    log = podman("logs", f"sock-chat_{service}_1").splitlines()
    events = [json.loads(line) for line in log if line.startswith("{")]
    return {event["address"] for event in events if event["nick"]}


def test_three_servers_are_one_chat(room: Room) -> None:
    nicks = ("ana", "bea", "carlos")
    ana, bea, carlos = peers = [room.enter(nick) for nick in nicks]
    for nick, peer in zip(nicks, peers, strict=True):
        peer.say(f"hola de {nick}", "/list")
        for other in peers:
            if other is not peer:
                while other.line() != f"{nick} dice: hola de {nick}":
                    pass
        while peer.line() != "* En general (3): ana, bea, carlos":
            pass
