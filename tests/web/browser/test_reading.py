"""What a reader has of it: where the page stays, by keyboard alone, and when much is said."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from benchmarks.harness.browser import Visitor
from benchmarks.harness.server import Server
from tests.chat.conftest import Guest
from tests.web.browser.conftest import Open, eventually, url_of

pytestmark = pytest.mark.long

MANY = 10_000
NODES = 4_000
"""Elements that the page may have, however much is said."""

SCROLLED = """(log) => {
  for (let box = log; box; box = box.parentElement)
    if (box.scrollHeight > box.clientHeight + 1 && getComputedStyle(box).overflowY !== "visible")
      return [box.scrollTop, box.scrollHeight - box.clientHeight - box.scrollTop];
  return [0, 0];
}"""
SCROLL_UP = """(log) => {
  for (let box = log; box; box = box.parentElement)
    if (box.scrollHeight > box.clientHeight + 1 && getComputedStyle(box).overflowY !== "visible")
      return box.scrollBy(0, -400);
}"""


def scrolled(visitor: Visitor) -> tuple[float, float]:
    """How far from the top, and from the end."""
    top, below = visitor.log.evaluate(SCROLLED)
    return top, below


def fill(visitor: Visitor, guest: Guest, count: int, start: int = 0) -> None:
    guest.say(*(f"línea {n}" for n in range(start, start + count)))
    last = (guest.name, f"línea {start + count - 1}")
    eventually(lambda: visitor.messages()[-1:] == [(last[0], last[1])], f"no {last[1]}")


def test_reader_stays_where_he_is(server: Server, visit: Open) -> None:
    """And is led to what is new; who is at the end stays at the end."""
    carlos, ana = Guest(server, "carlos"), visit(url_of(server), "ana")
    carlos.name = "carlos"
    fill(ana, carlos, 100)
    eventually(lambda: scrolled(ana)[1] < 4, "it is not at the end")
    ana.log.evaluate(SCROLL_UP)
    top, below = scrolled(ana)
    assert below > 100
    fill(ana, carlos, 3, start=100)
    button = ana.button(re.compile("^3 mensajes nuevos"))
    expect(button).to_be_visible()
    assert scrolled(ana)[0] == top
    button.click()
    eventually(lambda: scrolled(ana)[1] < 4, "the button does not lead to the end")
    expect(ana.button(re.compile("nuevos?$"))).to_have_count(0)
    assert focused(ana), "the focus is lost with the button"


def test_own_message_is_seen(server: Server, visit: Open) -> None:
    """Who says something sees it, wherever he was reading."""
    carlos, ana = Guest(server, "carlos"), visit(url_of(server), "ana")
    carlos.name = "carlos"
    fill(ana, carlos, 100)
    ana.log.evaluate(SCROLL_UP)
    ana.say("aquí")
    eventually(lambda: scrolled(ana)[1] < 4, "it is not at the end")


def test_ten_thousand_messages(server: Server, visit: Open) -> None:
    """The page does not grow with what is said, shows the newest, and answers."""
    carlos, ana = Guest(server, "carlos"), visit(url_of(server), "ana")
    carlos.name = "carlos"
    for start in range(0, MANY, 1000):
        fill(ana, carlos, 1000, start)
    nodes = ana.page.evaluate("() => document.querySelectorAll('*').length")
    assert 100 < nodes < NODES
    ana.say("sigo aquí")
    expect(ana.pending()).to_have_count(0)
    assert ana.messages()[-1] == ("ana", "sigo aquí")
    numbers = [int(text.split()[1]) for nick, text in ana.messages() if nick == "carlos"]
    assert numbers == [*range(MANY - len(numbers), MANY)]


FOCUSED = """() => {
  const { activeElement: e, body } = document;
  return e === body ? "" : e.getAttribute("aria-label") || (e.labels?.[0] ?? e).textContent || "?";
}"""


def focused(visitor: Visitor) -> str:
    """The name of what has the focus; "": nothing has it."""
    name: str = visitor.page.evaluate(FOCUSED)
    return name


def focus_on(visitor: Visitor, name: str, key: str = "Tab") -> None:
    """By this key alone, in at most forty steps."""
    for _ in range(40):
        if re.search(name, focused(visitor)):
            return
        visitor.page.keyboard.press(key)
    raise AssertionError(f"no key leads to {name}")


def focus_is_visible(visitor: Visitor) -> bool:
    """Whether an outline or a shadow marks what has the focus."""
    shown: bool = visitor.page.evaluate(
        "() => { const s = getComputedStyle(document.activeElement);"
        "  return (s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 1)"
        "    || s.boxShadow !== 'none' }"
    )
    return shown


def test_by_keyboard_alone(server: Server, visit: Open) -> None:
    carlos, ana = Guest(server, "carlos"), visit(url_of(server))
    keyboard = ana.page.keyboard
    focus_on(ana, "Apodo")
    assert focus_is_visible(ana)
    keyboard.type("ana")
    keyboard.press("Enter")
    carlos.lines("* ana ha entrado.")
    expect(ana.composer).to_be_focused()
    assert focus_is_visible(ana)
    keyboard.type("hola")
    keyboard.press("Enter")
    carlos.lines("ana dice: hola")
    carlos.say("/pm ana psst")
    expect(ana.button(re.compile("^carlos, 1 sin leer"))).to_be_visible()
    focus_on(ana, "^carlos, 1 sin leer|carlos.*1")
    assert focus_is_visible(ana)
    keyboard.press("Enter")
    eventually(lambda: ana.messages() == [("carlos", "psst")], "the conversation does not open")
    focus_on(ana, "^Mensaje$")
    keyboard.type("te oigo")
    keyboard.press("Enter")
    carlos.lines("ana te dice: te oigo")
    keyboard.type("/join cine")
    keyboard.press("Enter")
    carlos.lines("* ana ha salido.")
    expect(ana.page.get_by_role("list", name="Salas").locator("[aria-current]")).to_contain_text(
        "cine"
    )
    focus_on(ana, "^general")
    keyboard.press("Enter")
    carlos.lines("* ana ha entrado.")
    keyboard.press("Escape")
    focus_on(ana, "^Mensaje$", "Shift+Tab")
    keyboard.type("una")
    keyboard.press("Shift+Enter")
    keyboard.type("línea")
    keyboard.press("Enter")
    carlos.lines("ana dice: una línea")
