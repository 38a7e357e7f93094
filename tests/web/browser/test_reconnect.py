"""The connection ends, in many ways and at many moments, and the conversation goes on."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from benchmarks.harness.browser import Visitor
from benchmarks.harness.process import free_port
from benchmarks.harness.server import Server
from tests.chat.conftest import Guest, Serve
from tests.support.cuts import Network
from tests.web.browser.conftest import Open, eventually, shows, url_of

pytestmark = pytest.mark.long

MEANWHILE = 50
"""More than the past that a newcomer is shown."""


@pytest.fixture
def network(server: Server) -> Iterator[Network]:
    """Between browsers and the server's web port."""
    assert server.web
    with Network(server.web) as network:
        yield network


def cut_visitor(visit: Open, url: str, nick: str) -> Visitor:
    visitor = visit(url)
    visitor.cut = True
    visitor.enter(nick)
    return visitor


def address_of(network: Network) -> str:
    return f"http://127.0.0.1:{network.address[1]}/"


def heard_until(guest: Guest, last: str) -> list[str]:
    """What others say to it before this line."""
    return [line for line in iter(guest.line, last) if not line.startswith("* ")]


def acknowledged(visitor: Visitor) -> bool:
    """Whether everything that it has said is; where it waits for its next try, it connects now."""
    retry = visitor.page.get_by_text("Reintentar ahora")
    retry.evaluate("(button) => button.hidden || button.click()")
    return not visitor.pending().count()


def test_cut_is_shown_and_mended(server: Server, network: Network, visit: Open) -> None:
    """What is said on either side meanwhile is there afterwards, and the draft too."""
    carlos = Guest(server, "carlos")
    ana = cut_visitor(visit, address_of(network), "ana")
    carlos.lines("* ana ha entrado.")
    ana.say("uno")
    carlos.lines("ana dice: uno")
    expect(ana.pending()).to_have_count(0)
    network.shut()
    expect(ana.status).to_contain_text("Sin conexión")
    meanwhile = [f"dos {n}" for n in range(MEANWHILE)]
    carlos.say(*meanwhile)
    ana.say("tres")
    ana.composer.fill("a medio escribir")
    expect(ana.pending()).to_have_count(1)
    network.open()
    eventually(lambda: acknowledged(ana), "it does not come back")
    expect(ana.status).to_contain_text("Conectado")
    expect(ana.composer).to_have_value("a medio escribir")
    assert [text for nick, text in ana.messages() if nick == "carlos"] == meanwhile
    assert [text for nick, text in ana.messages() if nick == "ana"] == ["uno", "tres"]
    assert heard_until(carlos, "ana dice: tres") == []
    ana.composer.press("Enter")
    assert heard_until(carlos, "ana dice: a medio escribir") == []


def test_it_comes_back_by_itself(server: Server, network: Network, visit: Open) -> None:
    carlos = Guest(server, "carlos")
    ana = cut_visitor(visit, address_of(network), "ana")
    network.cut()
    carlos.say("¿sigues ahí?")
    shows(ana, ("carlos", "¿sigues ahí?"))
    expect(ana.status).to_contain_text("Conectado")


def test_restart_of_the_server(serve: Serve, visit: Open, tmp_path: Path) -> None:
    """Same port, same database: no gap and no repeat; a draft stays."""
    options = [*("--db", str(tmp_path / "chat.db")), *("--port", str(free_port()))]
    options += ["--web-port", str(free_port())]
    server = serve(*options)
    ana = cut_visitor(visit, url_of(server), "ana")
    carlos = Guest(server, "carlos")
    ana.say("antes")
    carlos.say("igualmente")
    shows(ana, ("ana", "antes"), ("carlos", "igualmente"))
    expect(ana.pending()).to_have_count(0)
    ana.composer.fill("a medio escribir")
    assert server.stop() == 0
    expect(ana.status).to_contain_text("Sin conexión")
    ana.say("mientras tanto")
    ana.composer.fill("a medio escribir")

    server = serve(*options)
    bea = Guest(server, "bea")
    bea.say("ya ha vuelto")
    eventually(lambda: acknowledged(ana), "it does not come back")
    expect(ana.status).to_contain_text("Conectado")
    expect(ana.composer).to_have_value("a medio escribir")
    ana.composer.press("Enter")
    expected = ["antes", "igualmente", "mientras tanto", "ya ha vuelto", "a medio escribir"]
    eventually(lambda: len(ana.messages()) >= len(expected), f"it shows {ana.messages()}")
    assert sorted(text for _, text in ana.messages()) == sorted(expected)
    own = [text for nick, text in ana.messages() if nick == "ana"]
    assert own == ["antes", "mientras tanto", "a medio escribir"]
    assert heard_until(bea, "ana dice: a medio escribir") == ["ana dice: mientras tanto"]


@pytest.mark.parametrize("moment", [0, 1, 200, 450, 700, 1000])
def test_cut_at_a_moment(server: Server, network: Network, visit: Open, moment: int) -> None:
    """After so many bytes: of the request, of the answer, of the resume, of the history."""
    carlos = Guest(server, "carlos")
    ana = cut_visitor(visit, address_of(network), "ana")
    ana.say("uno")
    carlos.say("dos")
    expect(ana.pending()).to_have_count(0)
    network.cut()
    network.cut_after(moment)
    carlos.say("tres")
    ana.say("cuatro")
    eventually(lambda: acknowledged(ana), "it does not come back")
    carlos.say("fin")
    eventually(lambda: ("carlos", "fin") in ana.messages(), "it does not hear the room")
    texts = [text for _, text in ana.messages()]
    assert sorted(texts) == ["cuatro", "dos", "fin", "tres", "uno"]
    assert [text for nick, text in ana.messages() if nick == "carlos"] == ["dos", "tres", "fin"]


def test_random_cuts(server: Server, network: Network, visit: Open) -> None:
    """Twenty, while both talk: what each says reaches the other once, and in order."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    carlos = Guest(server, "carlos")
    ana = cut_visitor(visit, address_of(network), "ana")
    own, others = [], []
    turns = itertools.count()
    while network.cuts < 20:
        turn = next(turns)
        network.cut_after(chance.randrange(1500))
        for n in range(chance.randrange(1, 6)):
            own.append(f"ana {turn} {n}")
            ana.say(own[-1])
            others.append(f"carlos {turn} {n}")
            carlos.say(others[-1])
        if chance.random() < 0.5:
            network.cut()
        if chance.random() < 0.7:
            eventually(lambda: acknowledged(ana), f"{seed}: it stays away")
    eventually(lambda: acknowledged(ana), f"{seed}: it stays away")
    carlos.say("fin")
    eventually(lambda: ("carlos", "fin") in ana.messages(), f"{seed}: it does not hear the room")
    shown = ana.messages()
    assert [text for nick, text in shown if nick == "carlos"] == [*others, "fin"], seed
    assert [text for nick, text in shown if nick == "ana"] == own, seed
    ana.say("fin")
    assert heard_until(carlos, "ana dice: fin") == [f"ana dice: {text}" for text in own], seed


def test_asleep(server: Server, network: Network, visit: Open) -> None:
    """A laptop whose lid is shut: neither side hears of it, until it wakes up elsewhere."""
    carlos = Guest(server, "carlos")
    ana = cut_visitor(visit, address_of(network), "ana")
    network.asleep = True
    ana.say("buenas noches")
    carlos.say("¿te has dormido?")
    network.cut()
    network.asleep = False
    eventually(lambda: acknowledged(ana), "it does not come back")
    assert sorted(ana.messages()) == [("ana", "buenas noches"), ("carlos", "¿te has dormido?")]
    assert heard_until(carlos, "ana dice: buenas noches") == []
