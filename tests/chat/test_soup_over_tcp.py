"""Bytes of any kind, in segments of any size, before any kind of end: whoever sends them harms
nobody but itself, and nothing that a terminal would obey reaches anybody."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from unicodedata import category

from benchmarks.harness.server import Server
from tests.chat.conftest import Guest
from tests.chat.test_soup import PIECES
from tests.support.wire import PROMPTLY, Peer

SEEDS = int(os.environ.get("SOUP_SEEDS", "100"))


def eat(server: Server, seed: int) -> None:
    chance = random.Random(seed)
    peer = Peer(server.address)
    if chance.random() < 0.7:
        peer.say(f"zoe{seed}")
    soup = b"".join(chance.choices([*PIECES, b"/quit "], k=chance.randrange(200)))
    soup += chance.randbytes(chance.randrange(100))
    with suppress(OSError):  # it may have been thrown out
        while soup:
            size = chance.choice((1, 7, 100, 5000))
            peer.send(soup[:size])
            soup = soup[size:]
        end = chance.choice((peer.finish, peer.reset, peer.close))
        end()
        if end == peer.finish:
            peer.rest()


def test_soup(server: Server) -> None:
    """SOUP_SEEDS in the environment: so many instead of 100."""
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    for seed in range(SEEDS):
        eat(server, seed)
        ana.say(f"/pm bea {seed}", f"said {seed}")
        for text in (f"ana te dice: {seed}", f"ana dice: said {seed}"):
            while (line := bea.line(within=PROMPTLY)) != text:
                kinds = {char: category(char) for char in set(line) - set("\t\u200c\u200d")}
                bad = {char for char, kind in kinds.items() if kind in {"Cc", "Cf", "Cs"}}
                assert not bad, line
                assert line.startswith("* ") or " dice: " in line
    server.wait_until_at_rest()
