"""How one comes in, by the form and by its session, and how one is thrown out."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from benchmarks.harness.browser import Visitor
from benchmarks.harness.server import Server
from tests.chat.conftest import Guest, Serve
from tests.web.browser.conftest import Open, eventually, shows, url_of

pytestmark = pytest.mark.long

PASSWORD = "correct horse battery"


def owner(server: Server, nick: str) -> Guest:
    guest = Guest(server, nick)
    guest.say(f"/register {PASSWORD}")
    guest.lines(f"* El apodo {nick} es tuyo.")
    return guest


def test_nick_is_refused_until_it_is_free(server: Server, visit: Open) -> None:
    Guest(server, "ana")
    visitor = visit(url_of(server))
    for nick, refusal in (
        ("1x", "Apodo no válido: de 1 a 24 letras"),
        ("admin", "El apodo admin está reservado."),
        ("ana", "El apodo ana está en uso."),
        ("аna", "El apodo аna se parece demasiado a ana."),
    ):
        visitor.give_nick(nick)
        expect(visitor.alert).to_contain_text(refusal)
        expect(visitor.composer).to_be_hidden()
    visitor.enter("bea")
    expect(visitor.members()).to_have_text([re.compile("ana"), re.compile("bea")])
    expect(visitor.log.locator(".error")).to_have_count(0)


def test_owner_gives_the_password(server: Server, visit: Open) -> None:
    """Only when it is needed; it takes the nick over, and is stored nowhere."""
    ana = owner(server, "ana")
    visitor = visit(url_of(server))
    expect(visitor.password).to_be_hidden()
    visitor.give_nick("ana")
    visitor.give_password("incorrecta")
    expect(visitor.alert).to_contain_text("Contraseña incorrecta.")
    visitor.give_password(PASSWORD)
    visitor.composer.wait_for()
    ana.ends("* Has entrado desde otro sitio.")
    visitor.say("soy yo")
    shows(visitor, ("ana", "soy yo"))
    expect(visitor.pending()).to_have_count(0)
    stored = "() => JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie])"
    assert PASSWORD not in visitor.page.evaluate(stored)
    assert PASSWORD not in visitor.page.content()


def test_too_many_tries_are_told(server: Server, visit: Open) -> None:
    owner(server, "ana")
    visitor = visit(url_of(server))
    visitor.give_nick("ana")
    for attempt in range(3):
        visitor.give_password(f"incorrecta {attempt}")
        refusal = "Demasiados intentos." if attempt == 2 else "Contraseña incorrecta."
        expect(visitor.page.get_by_text(refusal).first).to_be_visible()


def test_operator_throws_out_and_says_why(serve: Serve, visit: Open) -> None:
    """And whoever has been thrown out does not come back by itself."""
    server = serve("--operator", "ana")
    ana = owner(server, "ana")
    visitor = visit(url_of(server), "bea")
    ana.lines("* bea ha entrado.")
    ana.say("/kick bea por <i>gritar</i>")
    ana.lines("* bea ha salido.")
    expect(visitor.page.get_by_text("Te han echado: por <i>gritar</i>").first).to_be_visible()
    expect(visitor.status).not_to_contain_text("Conectado")
    assert not ana.answered(), "it has come back"


def second_tab(visitor: Visitor) -> Visitor:
    """Of the same session: what is opened by a page gets a copy of its sessionStorage."""
    stored = "() => JSON.stringify({...sessionStorage}).includes('token')"
    eventually(lambda: visitor.page.evaluate(stored), "the session is stored nowhere")
    with visitor.page.expect_popup() as popup:
        visitor.page.evaluate("() => { window.open(location.href) }")
    return Visitor(popup.value)


def test_second_tab_takes_the_session_over(server: Server, visit: Open) -> None:
    """And they do not take it from each other for ever."""
    carlos = Guest(server, "carlos")
    first = visit(url_of(server), "ana")
    carlos.lines("* ana ha entrado.")
    first.say("desde la primera")
    carlos.lines("ana dice: desde la primera")
    second = second_tab(first)
    second.composer.wait_for()
    expect(first.page.get_by_text("Has entrado desde otro sitio.").first).to_be_visible()
    second.say("desde la segunda")
    shows(second, ("ana", "desde la primera"), ("ana", "desde la segunda"))
    expect(second.pending()).to_have_count(0)
    carlos.say("/list")
    while (line := carlos.line()) != "* En general (2): ana, carlos":
        assert line in ("* ana ha salido.", "* ana ha entrado.", "ana dice: desde la segunda")
    assert not carlos.answered()
    expect(first.status).not_to_contain_text("Conectado")
    assert second.problems == []


def test_reload_goes_on(server: Server, visit: Open) -> None:
    carlos = Guest(server, "carlos")
    ana = visit(url_of(server), "ana")
    ana.say("antes")
    shows(ana, ("ana", "antes"))
    expect(ana.pending()).to_have_count(0)
    ana.composer.fill("a medio escribir")
    ana.page.reload()
    ana.composer.wait_for()
    expect(ana.composer).to_have_value("a medio escribir")
    ana.composer.press("Enter")
    carlos.say("después")
    expected = ("ana", "antes"), ("ana", "a medio escribir"), ("carlos", "después")
    eventually(lambda: len(ana.messages()) >= 3, f"it shows {ana.messages()}")
    assert sorted(ana.messages()) == sorted(expected)


def test_quit_leaves_for_good(server: Server, visit: Open) -> None:
    carlos = Guest(server, "carlos")
    ana = visit(url_of(server), "ana")
    carlos.lines("* ana ha entrado.")
    ana.say("/quit hasta luego")
    carlos.lines("* ana ha salido: hasta luego")
    expect(ana.status).not_to_contain_text("Conectado")
    assert not carlos.answered()
