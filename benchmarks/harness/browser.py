"""Start the browser, and use the page of v5 in it as a person does.

What is on the page is found by its role and its accessible name, which is what a screen reader
says; only what has neither is found by its class.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

from benchmarks.harness.process import DEADLINE

expect.set_options(timeout=DEADLINE * 1000)

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
MISSING = "chromium is not installed (apt-get install chromium)"
NETWORK = re.compile(r"WebSocket connection to|net::ERR_|Failed to load resource")
"""What chromium itself has to say in the console when a connection ends."""

REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP: ${event.violatedDirective}, ${event.blockedURI}, ${event.sample}`));
"""
READ_MESSAGES = """(log) => [...log.querySelectorAll(".message")].map((message) => [
  message.querySelector(".nick").textContent, message.querySelector(".text").textContent])"""


def missing() -> str:
    """Why there is no browser here, in one line; "": there is one."""
    return "" if shutil.which("chromium") else MISSING


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's own, without a window, with a fresh profile. asyncio.run() does not work in this
    thread meanwhile."""
    with sync_playwright() as playwright, playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=FLAGS
    ) as browser:
        yield browser


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Visitor]:
    """The page for somebody who has not been there before; options: of Browser.new_context()."""
    with browser.new_context(locale="es-ES", **options) as context:
        context.set_default_timeout(DEADLINE * 1000)
        context.add_init_script(REPORT_VIOLATIONS)
        visitor = Visitor(context.new_page())
        visitor.page.goto(url)
        yield visitor


class Visitor:
    """A person at the page.

    problems: what no visit may bring: errors in the console, violations of the page's policy,
        exceptions, dialogues.
    cut: whether the connection may end, of which chromium says something in the console.
    """

    def __init__(self, page: Page):
        self.page = page
        self.problems: list[str] = []
        self.cut = False
        self.password = page.get_by_role("main").get_by_label("Contraseña")
        self.log = page.get_by_role("log", name="Mensajes")
        self.composer = page.get_by_role("textbox", name="Mensaje", exact=True)
        self.status = page.get_by_role("status", name="Conexión")
        self.alert = page.get_by_role("alert")
        page.on("console", self._look_at)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(f"dialogue: {dialog.message}"))

    def _look_at(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not (self.cut and NETWORK.search(message.text)):
            self.problems.append(f"{message.text} ({message.location['url']})")

    def give_nick(self, nick: str) -> None:
        self.page.get_by_role("textbox", name="Apodo").fill(nick)
        self.page.get_by_role("button", name="Entrar").click()

    def give_password(self, password: str) -> None:
        self.password.fill(password)
        self.page.get_by_role("button", name="Entrar").click()

    def enter(self, nick: str, password: str = "") -> None:
        """Come in; returns when one can speak."""
        self.give_nick(nick)
        if password:
            self.give_password(password)
        self.composer.wait_for()

    def say(self, *lines: str) -> None:
        for line in lines:
            self.composer.fill(line)
            self.composer.press("Enter")

    def messages(self) -> list[tuple[str, str]]:
        """Who says what in the conversation that is open, from top to bottom."""
        shown: list[list[str]] = self.log.evaluate(READ_MESSAGES)
        return [(nick, text) for nick, text in shown]

    def pending(self) -> Locator:
        """Its own messages that the server has not acknowledged."""
        return self.log.locator('.message[data-state="pending"]')

    def button(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("button", name=name)

    def members(self) -> Locator:
        return self.page.get_by_role("list", name="Quién está").get_by_role("listitem")
