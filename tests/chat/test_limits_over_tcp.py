"""The limits as clients meet them."""

from __future__ import annotations

import time

from tests.chat.conftest import Guest, Serve


def test_a_paste_arrives_whole_in_order_and_slower(serve: Serve) -> None:
    server = serve("--rate", "100", "--burst", "20")
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.lines("* bea ha entrado.")
    begun = time.monotonic()
    bea.say(*[f"line {number}" for number in range(200)], "/quit")
    ana.lines(*[f"bea dice: line {number}" for number in range(200)], "* bea ha salido.")
    assert time.monotonic() - begun > 1.7, "not slower than the limit allows"
    bea.ends()


def test_who_is_delayed_delays_nobody(serve: Serve) -> None:
    server = serve("--rate", "1", "--burst", "2")
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.lines("* bea ha entrado.")
    bea.send(b"hola\n" * 100_000)
    ana.say("/pm ana hola")
    ana.lines("bea dice: hola", "ana te dice: hola")
    bea.reset()
