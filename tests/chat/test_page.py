"""The page of v5: what it says that the server says is what a server says."""

from __future__ import annotations

import re

import pytest

from benchmarks.harness.files import ROOT
from sock_chat.client.keyboard import secret_start
from sock_chat.server import CROWDED
from sock_chat.table import REST, TABLE
from tests.chat.world import PASSWORD, World

PAGE = (ROOT / "stages/v5/README.md").read_text("utf-8")
ROWS = re.search(r"\| it says \| when \|\n(?:\|.*\n)+", PAGE)
assert ROWS
SENTENCES = [
    sentence
    for row in ROWS[0].splitlines()[2:]
    for sentence in re.findall(r"`([^`]+)`", row.split(" | ")[0])
]


@pytest.fixture(scope="module")
def lines() -> set[str]:
    """What some people hear, who do all that the page speaks of."""
    world = World()
    people = [world.connect(nick) for nick in ("carlos", "bea", "ana")]
    _, bea, ana = people

    def enter(*lines: str) -> None:
        people.append(world.connect(*lines))

    bea.send("hola", "/pm ana hola", "x" * 5000, "/foo", "/pm ana", "/quit")
    world.turn()
    enter("bea", "/nick beatriz")
    enter("bea", "/quit hasta luego")
    enter("1", "ana", "аna", "admin")
    people[-1].session.refuse(CROWDED)
    people[-1].session.expire()
    ana.session.stop(0.0)
    world = World(operators=["op"])
    world.own("op")
    enter("ana", f"/register {PASSWORD}")
    enter("ana", "wrong", "wrong", "wrong")
    people.append(world.connect("ana", secure=False))
    enter("ana", PASSWORD, "/bans")
    enter("bea")
    enter("op", PASSWORD, "/kick ana por gritar", "/ban bea")
    return {line for client in people for line in client.new()}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentences_are_the_server_s(lines: set[str], sentence: str) -> None:
    assert sentence in lines


def test_what_is_masked_is_what_the_page_says() -> None:
    masked = {name for name in TABLE if secret_start(f"/{name} a b c")}
    sentence = re.search(r"password\s+is masked,[^.]*", PAGE)
    assert sentence
    assert set(re.findall(r"`/(\w+)`", sentence[0])) == masked


def test_words_that_are_the_rest_of_a_line() -> None:
    sentence = re.search(r"([^;.]*) are all that is\s+left of the line", PAGE)
    assert sentence
    assert set(re.findall(r"[A-ZÑÓ]{2,}", sentence[1])) == REST
