"""The section "In containers" of stages/v5/OPERATING.md, on this machine: one container, and
compose.yaml, whose three servers are one chat. Only the ports are others."""

from __future__ import annotations

import ast
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.sync.client import connect

from benchmarks.harness import certificate
from benchmarks.harness.process import DEADLINE, free_port, wait_until
from tests.chat.conftest import QUESTION
from tests.chat.test_stop import PASSWORD
from tests.container.conftest import BUILD_TIME, HERE, environment, packed_project, podman
from tests.container.test_machine import PAGE, blocks
from tests.deploy.conftest import replaced
from tests.support.wire import Peer

pytestmark = pytest.mark.container

ONE, THREE, SAVE = blocks(PAGE.partition("## In containers\n")[2])
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
            pass  # the history
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
            wait_until(partial(is_healthy, service), f"{service} is not healthy", 0.2)
        yield Room(ports["8443"], ports["8081"], tls)
    finally:
        run("docker compose down --volumes --timeout 5", clone)


def hear(peer: Peer, line: str) -> None:
    """After whatever else."""
    while peer.line() != line:
        pass


def is_healthy(service: str) -> bool:
    command = ["podman", "healthcheck", "run", f"sock-chat_{service}_1"]
    done = subprocess.run(command, env=environment(), capture_output=True, check=False)
    return done.returncode == 0


def state(service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(podman("container", "inspect", f"sock-chat_{service}_1"))[0]
    return found


def addresses(service: str) -> list[str]:
    """Of those who have connected there, as the log has it."""
    log = podman("logs", f"sock-chat_{service}_1").splitlines()
    objects = [json.loads(line) for line in log if line.startswith("{")]
    connected = [each for each in objects if each["event"] == "connected"]
    return [ast.literal_eval(each["address"])[0] for each in connected]


def test_three_servers_are_one_chat(room: Room) -> None:
    nicks = ("ana", "bea", "carlos")
    peers = [room.enter(nick) for nick in nicks]
    for nick, peer in zip(nicks, peers, strict=True):
        peer.say(f"hola de {nick}", "/list")
        for other in peers:
            if other is not peer:
                hear(other, f"{nick} dice: hola de {nick}")
        hear(peer, "* En general (3): ana, bea, carlos")
    wait_until(lambda: all(map(addresses, CHATS)), "somebody has no client", 0.2)
    balancer = state("balancer")["NetworkSettings"]["Networks"]["sock-chat_front"]
    found = {address for service in CHATS for address in addresses(service)}
    assert found == {balancer["Gateway"]}, "they come from this machine, not from the balancer"


def test_a_nick_has_its_owner_on_all_servers(room: Room) -> None:
    dora = room.enter("dora")
    dora.say(f"/register {PASSWORD}")
    hear(dora, "* El apodo dora es tuyo.")
    elsewhere = [Peer(("127.0.0.1", room.lines)) for _ in CHATS]
    for peer in elsewhere:
        peer.sock = room.tls.wrap_socket(peer.sock, server_hostname="127.0.0.1")
        peer.say("dora")
        assert [peer.line(), peer.line()] == [
            QUESTION,
            "* El apodo dora tiene dueño. ¿Contraseña?",
        ]
    elsewhere[0].say(PASSWORD)
    assert dora.rest().decode().endswith("* Has entrado desde otro sitio.\n")


def test_the_page_comes_by_the_balancer(room: Room) -> None:
    context = room.tls
    connection = HTTPSConnection("127.0.0.1", room.web, context=context, timeout=DEADLINE)
    for path, status in {"/": 200, "/healthz": 200, "/metrics": 404}.items():
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (status, True)
    connection.close()
    with connect(f"wss://127.0.0.1:{room.web}/ws", ssl=context) as socket:
        assert json.loads(socket.recv(DEADLINE)) == [{"type": "ask", "what": "nick"}]


def test_each_server_has_its_metrics(room: Room) -> None:
    ask = "from urllib.request import urlopen; print(urlopen('http://chat2:9100/metrics').read())"
    output = podman("exec", "sock-chat_chat1_1", "python", "-c", ask)
    assert "sock_chat_messages_total" in output


def test_a_server_stops_and_the_chat_goes_on(room: Room) -> None:
    peers = [room.enter(nick) for nick in ("elena", "fede", "gema", "hugo", "ines", "juan")]
    for peer in peers:
        peer.say("/join cine")  # where nobody is whom an earlier test has left behind
        while not peer.line().startswith("* En cine: "):
            pass
    podman("stop", f"sock-chat_{CHATS[0]}_1")
    assert state(CHATS[0])["State"]["ExitCode"] == 0
    left = [peer for peer in peers if not is_cut(peer)]
    assert 0 < len(left) < len(peers)
    late = room.enter("late")
    late.say("/join cine", "hola")
    for peer in left:
        hear(peer, "late dice: hola")


def is_cut(peer: Peer) -> bool:
    """Whether it was at the server that has stopped; or else it hears of somebody who was."""
    goodbye = "* El servidor se cierra."
    while (line := peer.line()) != goodbye and not line.endswith(" ha salido."):
        pass
    return line == goodbye


@pytest.mark.unsteady
def test_the_volume_is_saved_and_nobody_is_cut(clone: Path, room: Room) -> None:
    kate = room.enter("kate")
    kate.say("/join copia")
    run(SAVE, clone)
    kate.say("sigo")
    lola = room.enter("lola")
    lola.say("/join copia")
    while not lola.line().endswith("kate dice: sigo"):
        pass
    files = subprocess.run(
        ["tar", "--list", "--file", "nats.tar.gz"], cwd=clone, capture_output=True, check=True
    )
    assert b"jetstream" in files.stdout
