"""Bytes of any kind, at the door and in the room: no exception, and nothing that a terminal would
obey reaches anybody."""

from __future__ import annotations

import random
from unicodedata import category

import pytest

from sock_chat.codec import JSON
from sock_chat.link import Reason
from sock_chat.table import TABLE
from tests.chat.world import PASSWORD, World

PIECES = [
    b"\n", b"\n", b"\n", b"\r\n", b"\r", b" ", b"/", b"//", b"* ", b"\0", b"\x1b[2J", b"\x9b",
    b"\xff\xfd\x01", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", "\u202e\u2066".encode(),
    "\u2028\u0085\ufeff".encode(), "ñ€𝄞".encode(), b"ana", b"bea", "аna".encode(), b"Rosa", b"zoe",
    PASSWORD.encode(), b"{\"id\":1}", b"x" * 4097, b"60", b"127.0.0.1", b"::1", b"cine",
    *[f"/{name} ".encode() for name in TABLE if name != "quit"],
]  # fmt: skip


@pytest.mark.parametrize("seed", range(200))
def test_soup(seed: int) -> None:
    chance = random.Random(seed)
    world = World(
        chance.sample(["log", "history", "names", "accounts"], seed % 5), operators=["op"]
    )
    world.own("Rosa")
    ana, robot = next(world.enter("ana")), next(world.enter("robot", codec=JSON))
    world.turn()
    eaters = [world.connect(), world.connect("bea")]
    if seed % 3 == 0:
        world.own("op")
        eaters.append(world.connect("op", PASSWORD))
    for _ in range(20):
        for eater in eaters:
            soup = b"".join(chance.choices(PIECES, k=8)) + chance.randbytes(chance.randrange(20))
            eater.session.feed(eater.decoder.receive(soup))
        world.turn()
    for eater in eaters:
        eater.session.feed(eater.decoder.finish())
        eater.session.finish_input()
    world.turn()
    assert all(eater.closed for eater in eaters)
    for client in [ana, *eaters]:
        text = b"".join(client.writes).decode()
        kinds = {char: category(char) for char in set(text) - set("\n\t\u200c\u200d")}
        assert not {c for c, kind in kinds.items() if kind in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
        for line in text.split("\n")[:-1]:
            assert line.startswith(("* ", "[2026")) or " dice: " in line
    robot.new_events()
    if ana.closed is None:
        ana.send("/list")
        world.turn()
        assert ana.new()[-1].startswith("* En general (")
    else:
        assert ana.closed in (Reason.KICKED, Reason.BANNED)
