"""Two servers on one NATS are one chat."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from benchmarks.harness.broker import Nats
from benchmarks.harness.process import free_port
from benchmarks.harness.server import Server
from tests.bus.conftest import SERVE, Serve
from tests.chat.conftest import Guest

PASSWORD = "correct horse"


@pytest.fixture
def pair(serve: Serve, nats: Nats) -> tuple[Server, Server]:
    return serve(nats.url), serve(nats.url)


def test_two_servers_are_one_chat(pair: tuple[Server, Server], serve: Serve, nats: Nats) -> None:
    """Order, names, lists, private messages, takeover and history, whoever is where."""
    one, two = pair
    ana, bea = Guest(one, "ana"), Guest(two, "bea")
    ana.lines("* bea ha entrado.")
    ana.say("hola", "/pm bea secreto")
    bea.lines("ana dice: hola", "ana te dice: secreto")
    bea.say("buenas", "/pm ana lo mismo", "/list", "/pm zoe nada")
    ana.lines("bea dice: buenas", "bea te dice: lo mismo")
    bea.lines("* En general (2): ana, bea", "* No hay nadie llamado zoe.")

    other = Guest(two)
    other.say("Ana", "аna", "admin", "carlos")  # noqa: RUF001
    other.lines(
        "* El apodo Ana está en uso.",
        "* El apodo аna se parece demasiado a ana.",  # noqa: RUF001
        "* El apodo admin está reservado.",
    )
    assert [other.line()[22:] for _ in range(2)] == ["ana dice: hola", "bea dice: buenas"]
    other.lines("* Hola, carlos. En general: ana, bea, carlos.")
    for guest in (ana, bea):
        guest.lines("* carlos ha entrado.")

    ana.say(f"/register {PASSWORD}")
    ana.lines("* El apodo ana es tuyo.")
    owner = Guest(two)
    owner.say(f"/login ana {PASSWORD}")
    ana.ends("* Has entrado desde otro sitio.")
    bea.lines("* ana ha salido.", "* ana ha entrado.")
    other.lines("* ana ha salido.", "* ana ha entrado.")
    while not owner.line().startswith("* Hola, ana. En general: ana, bea, carlos."):
        pass
    owner.say("/nick anita", "/join cine", "hay alguien")
    other.lines("* ana ahora es anita.", "* anita ha salido.")
    bea.lines("* ana ahora es anita.", "* anita ha salido.")
    owner.lines("* ana ahora es anita.", "* En cine: anita.")
    bea.say("/rooms", "/quit hasta luego")
    bea.lines("* Salas: cine (1), general (2)")
    other.lines("* bea ha salido: hasta luego")

    assert one.stop() == 0
    three = serve(nats.url)
    zoe = Guest(three)
    zoe.say("bea")
    assert [zoe.line()[22:] for _ in range(2)] == ["ana dice: hola", "bea dice: buenas"]
    zoe.lines("* Hola, bea. En general: bea, carlos.")
    zoe.say("/join cine")
    assert zoe.line()[22:] == "anita dice: hay alguien"
    zoe.lines("* En cine: anita, bea.")


@pytest.mark.unsteady
def test_bans_and_kicks_reach_other_servers(serve: Serve, nats: Nats) -> None:
    one = serve(nats.url, arguments="--operator jefa")
    two = serve(nats.url)
    chief, bea = Guest(one, "jefa"), Guest(two, "bea")
    chief.say(f"/register {PASSWORD}")
    chief.lines("* bea ha entrado.", "* El apodo jefa es tuyo.")
    chief.say("/kick bea por pesada")
    bea.ends("* Te han echado: por pesada")
    chief.lines("* bea ha salido.")
    carlos = Guest(two, "carlos", source="127.0.0.9")
    chief.lines("* carlos ha entrado.")
    chief.say("/ban carlos 5")
    carlos.ends("* Tienes prohibida la entrada.")
    banned = "* Prohibidos: 127.0.0.9 (5 min)"
    assert {chief.line() for _ in range(2)} == {banned, "* carlos ha salido."}
    chief.say("/bans")
    chief.lines(banned)
    chief.say("/unban 127.0.0.9")
    chief.lines("* 127.0.0.9 puede entrar.")
    Guest(one, "carlos", source="127.0.0.9").say("/quit")


@pytest.mark.unsteady
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_the_people_of_a_server_that_ends_have_left(
    pair: tuple[Server, Server], signum: signal.Signals
) -> None:
    """Killed, when its lease is over; stopped, at once. Their nicks are free then."""
    one, two = pair
    ana, bea = Guest(one, "ana"), Guest(two, "bea")
    ana.lines("* bea ha entrado.")
    ana.say("hola")
    bea.lines("ana dice: hola")
    one.stop(signum)
    bea.lines("* ana ha salido.")
    bea.say("/list", "/nick ana", "sigo aquí")
    bea.lines("* En general (1): bea", "* bea ahora es ana.")


def test_without_nats_it_does_not_start() -> None:
    port = free_port()
    options = ["--port", "0", "--no-web", "--bus", f"nats://127.0.0.1:{port}"]
    command = [*SERVE.split(), '{"connect": 0.5}', *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"No se puede usar el bus nats://127.0.0.1:{port}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.unsteady
def test_an_owner_is_forgotten_while_servers_run(pair: tuple[Server, Server], nats: Nats) -> None:
    one, two = pair
    ana = Guest(one, "ana")
    ana.say(f"/register {PASSWORD}", "/quit")
    ana.lines("* El apodo ana es tuyo.")
    name = one.name.partition("--bus-name ")[2].split()[0]
    options = ["--bus", nats.url, "--bus-name", name, "--forget", "ana"]
    forget = [sys.executable, "-m", "sock_chat", *options]
    assert subprocess.run(forget, check=False).returncode == 0
    done = subprocess.run(forget, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "El apodo ana no tiene dueño.\n")
    Guest(two, "ana")
