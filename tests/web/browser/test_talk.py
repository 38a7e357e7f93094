"""Two browsers and a line client: who sees what, and that text stays text."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from benchmarks.harness.browser import Visitor
from benchmarks.harness.server import Server
from tests.chat.conftest import Guest
from tests.web.browser.conftest import Open, shows, url_of

ATTACKS = (
    "<script>window.attacked = 1</script>",
    "<img src=x onerror='window.attacked = 1'>",
    '"><svg onload=window.attacked=1>',
    "</textarea></li><iframe srcdoc='<script>parent.attacked = 1</script>'>",
    "javascript:window.attacked=1",
    'https://example.org/" onmouseover="window.attacked=1',
    "${window.attacked = 1} {{window.attacked = 1}} &lt;b&gt;&amp;",
    '{"type":"said","position":1,"nick":"servidor","text":"<b>x</b>"}',
)
COUNT_ELEMENTS = """() => document.querySelectorAll(
    "script, img, svg, iframe, object, embed, link, style, b, a, form, textarea, [onload],"
    + "[onerror], [onmouseover], [srcdoc]").length"""

TYPE_AT_ONCE = """(button) => {
  button.click();
  document.activeElement.value = "psst";
  document.activeElement.form.requestSubmit();
}"""


def test_two_browsers_and_a_line_client_talk(server: Server, visit: Open) -> None:
    """Each sees what the others say once, and its own when it is acknowledged."""
    carlos = Guest(server, "carlos")
    ana, bea = (visit(url_of(server), nick) for nick in ("ana", "bea"))
    carlos.lines("* ana ha entrado.", "* bea ha entrado.")
    expect(ana.members()).to_have_text([re.compile(nick) for nick in ("ana", "bea", "carlos")])
    said: list[tuple[str, str]] = []

    def hear(nick: str, *texts: str) -> None:
        said.extend((nick, text) for text in texts)
        for visitor in (ana, bea):
            shows(visitor, *said)
        if nick != "carlos":
            carlos.lines(*(f"{nick} dice: {text}" for text in texts))

    ana.say("hola", "¿qué tal?")
    hear("ana", "hola", "¿qué tal?")
    carlos.say("buenas", "aquí, con telnet")
    hear("carlos", "buenas", "aquí, con telnet")
    bea.say("👋🏽 yo desde el móvil", "//esto no es una orden")
    hear("bea", "👋🏽 yo desde el móvil", "/esto no es una orden")
    for visitor in (ana, bea):
        expect(visitor.pending()).to_have_count(0)
        expect(visitor.log.locator('.message[data-state="sent"]')).to_have_count(len(said))
        expect(visitor.status).to_contain_text("Conectado")
    ana.say("fin")
    hear("ana", "fin")
    carlos.say("/quit hasta luego")
    carlos.ends()
    for visitor in (ana, bea):
        expect(visitor.log.locator(".notice").last).to_contain_text("carlos ha salido: hasta luego")
        expect(visitor.members()).to_have_count(2)


def untouched(visitor: Visitor, elements: int) -> None:
    assert visitor.page.evaluate(COUNT_ELEMENTS) == elements
    assert not visitor.page.evaluate("() => window.attacked")


def test_text_stays_text(server: Server, visit: Open) -> None:
    """In what is said and kept, to all and to one, by a browser and by a line client, and where
    somebody leaves; a name that could do harm is none."""
    zoe, ana = Guest(server, "zoe"), visit(url_of(server), "ana")
    elements = ana.page.evaluate(COUNT_ELEMENTS)
    zoe.say(*ATTACKS)
    said = [("zoe", text) for text in ATTACKS]
    shows(ana, *said)
    ana.say(*ATTACKS)
    said += [("ana", text) for text in ATTACKS]
    shows(ana, *said)
    expect(ana.pending()).to_have_count(0)
    untouched(ana, elements)

    bea = visit(url_of(server))
    for name in (ATTACKS[0], ATTACKS[1]):
        bea.give_nick(name)
        expect(bea.alert).to_contain_text("Apodo no válido")
    bea.enter("bea")
    shows(bea, *said)
    untouched(bea, elements)

    for attack in ATTACKS[:3]:
        ana.say(f"/join {attack.replace(' ', '')}")
    expect(ana.log.locator(".error")).to_have_count(3)
    expect(ana.log.locator(".error").last).to_contain_text("Sala no válida")
    zoe.say(*(f"/pm ana {attack}" for attack in ATTACKS))
    zoe.say(f"/quit {ATTACKS[0]}")
    expect(ana.log.locator(".notice").last).to_have_text(re.compile(re.escape(ATTACKS[0])))
    ana.button(re.compile("zoe")).first.click()
    shows(ana, *(("zoe", text) for text in ATTACKS))
    untouched(ana, elements)


@pytest.mark.long
def test_private_messages_have_a_place_of_their_own(server: Server, visit: Open) -> None:
    carlos = Guest(server, "carlos")
    ana, bea = (visit(url_of(server), nick) for nick in ("ana", "bea"))
    carlos.lines("* ana ha entrado.", "* bea ha entrado.")
    bea.say("/pm ana solo para ti")
    carlos.say("/pm ana y esto")
    carlos.say("/pm ana y esto también")
    expect(ana.button(re.compile("^bea, 1 sin leer"))).to_be_visible()
    expect(ana.button(re.compile("^carlos, 2 sin leer"))).to_be_visible()
    expect(ana.page).to_have_title("(3) sock_chat")
    shows(ana)
    ana.button(re.compile("^carlos, 2 sin leer")).click()
    shows(ana, ("carlos", "y esto"), ("carlos", "y esto también"))
    expect(ana.button(re.compile("^carlos, . sin leer"))).to_have_count(0)
    expect(ana.page).to_have_title("(1) sock_chat")
    ana.say("te leo")
    carlos.lines("ana te dice: te leo")
    ana.button(re.compile("^bea, 1 sin leer")).click()
    shows(ana, ("bea", "solo para ti"))
    expect(ana.page).to_have_title("sock_chat")
    ana.say("gracias")
    expect(bea.button(re.compile("^ana, 1 sin leer"))).to_be_visible()
    bea.say("a todos")
    carlos.lines("bea dice: a todos")
    shows(ana, ("bea", "solo para ti"), ("ana", "gracias"))
    shows(bea, ("bea", "a todos"))
    bea.button(re.compile("^ana, 1 sin leer")).click()
    shows(bea, ("bea", "solo para ti"), ("ana", "gracias"))
    expect(bea.pending()).to_have_count(0)


@pytest.mark.long
def test_rooms(server: Server, visit: Open) -> None:
    carlos = Guest(server, "carlos")
    ana, bea = (visit(url_of(server), nick) for nick in ("ana", "bea"))
    carlos.lines("* ana ha entrado.", "* bea ha entrado.")
    carlos.say("hola")
    for visitor in (ana, bea):
        shows(visitor, ("carlos", "hola"))
    ana.say("/join cine")
    carlos.lines("* ana ha salido.")
    expect(ana.members()).to_have_text([re.compile("ana")])
    shows(ana)
    rooms = ana.page.get_by_role("list", name="Salas")
    expect(rooms.locator("[aria-current]")).to_contain_text("cine")
    ana.say("¿hay alguien?")
    shows(ana, ("ana", "¿hay alguien?"))
    shows(bea, ("carlos", "hola"))
    expect(ana.pending()).to_have_count(0)
    bea.say("/join cine")
    carlos.lines("* bea ha salido.")
    shows(bea, ("ana", "¿hay alguien?"))
    carlos.say("ya no estáis")
    bea.say("yo")
    for visitor in (ana, bea):
        shows(visitor, ("ana", "¿hay alguien?"), ("bea", "yo"))
    ana.button(re.compile("^general")).click()
    shows(ana, ("carlos", "hola"), ("carlos", "ya no estáis"))
    carlos.lines("* ana ha entrado.")


@pytest.mark.long
def test_what_is_typed_at_once_is_for_the_place_that_opens(server: Server, visit: Open) -> None:
    """Even before it has been drawn."""
    bea, ana = Guest(server, "bea"), visit(url_of(server), "ana")
    bea.lines("* ana ha entrado.")
    ana.composer.fill("a medio escribir")
    ana.members().get_by_role("button", name="bea").evaluate(TYPE_AT_ONCE)
    bea.lines("ana te dice: psst")
    expect(ana.composer).to_have_value("")
    ana.button("general").first.click()
    expect(ana.composer).to_have_value("a medio escribir")
