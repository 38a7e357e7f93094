"""axe finds nothing serious, in light and dark, on a phone and on a desk; nothing leaves a phone's
screen."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from benchmarks.harness.browser import Visitor
from benchmarks.harness.server import Server
from tests.chat.conftest import Guest
from tests.web.browser.conftest import Open, eventually, url_of

pytestmark = pytest.mark.long

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 800}


def check(visitor: Visitor) -> None:
    """What axe finds of this weight, and what is wider than the window."""
    violations = Axe().run(visitor.page).response["violations"]
    serious = [
        (violation["id"], violation["help"], [node["target"] for node in violation["nodes"]])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []
    overflow = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert visitor.page.evaluate(overflow) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_serious(server: Server, visit: Open, scheme: str, viewport: Any) -> None:
    carlos = Guest(server, "carlos")
    ana = visit(url_of(server), color_scheme=scheme, viewport=viewport, has_touch=viewport == PHONE)
    check(ana)
    ana.give_nick("admin")
    expect(ana.alert).to_contain_text("reservado")
    check(ana)
    ana.enter("ana")
    check(ana)
    carlos.say("hola", "palabra" * 60, "שלום, שלום", "👩‍👩‍👧‍👦 🏳️‍🌈", "/pm ana psst")
    ana.say("y tú", "/foo")
    expect(ana.pending()).to_have_count(0)
    eventually(lambda: len(ana.messages()) == 5, f"it shows {ana.messages()}")
    expect(ana.log.locator(".error")).to_have_count(1)
    check(ana)
    panel = ana.button("Gente y salas")
    if viewport == PHONE:
        expect(panel).to_be_visible()
        panel.click()
        expect(ana.members().first).to_be_visible()
        check(ana)
    ana.cut = True
    server.stop()
    expect(ana.status).to_contain_text("Sin conexión")
    check(ana)
