"""The browser, people at the page in it, and what no page may do.

Where there is no chromium these tests are skipped, and fail when CI=true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser

from benchmarks.harness import browser
from benchmarks.harness.browser import Visitor
from benchmarks.harness.process import ServerError, wait_until
from benchmarks.harness.server import Server
from tests.chat.conftest import Serve
from tests.chat.conftest import serve as serve
from tests.support.needed import needed_in_ci

Open = Callable[..., Visitor]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One for a module: sync_playwright() keeps a loop running in this thread, and other modules
    have loops of their own."""
    reason = browser.missing()
    if reason:
        needed_in_ci(reason)
    with browser.chromium() as process:
        yield process


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Open]:
    """`visit(url, "ana")`: a newcomer opens the page, and comes in if a nick is given; further
    options are those of Browser.new_context().

    At the end nobody has seen an error in the console, a violation of the page's policy, an
    exception or a dialogue.
    """
    visitors: list[Visitor] = []
    with ExitStack() as stack:

        def visit(url: str, nick: str = "", **options: Any) -> Visitor:
            visitors.append(stack.enter_context(browser.opened(chromium, url, **options)))
            if nick:
                visitors[-1].enter(nick)
            return visitors[-1]

        yield visit
        problems = [problem for visitor in visitors for problem in visitor.problems]
    assert problems == []


@pytest.fixture
def server(serve: Serve) -> Server:
    """v5 with its page."""
    return serve()


def url_of(server: Server) -> str:
    assert server.web
    return f"http://127.0.0.1:{server.web[1]}/"


def shows(visitor: Visitor, *expected: tuple[str, str]) -> None:
    """Its open conversation has these messages and no others, in this order."""
    try:
        wait_until(lambda: visitor.messages() == [*expected], "", pause=0.02)
    except ServerError:
        assert visitor.messages() == [*expected]


def eventually(condition: Callable[[], object], failure: str) -> None:
    """A look every 20 ms: each costs the page something."""
    wait_until(condition, failure, pause=0.02)
