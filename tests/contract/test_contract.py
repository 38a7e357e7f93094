"""The contract of stages/README.md as far as a TCP connection shows it.

These are the wire tests: they need nothing but a port, and run against any server with
`pytest --server "COMMAND with {port}"`. Those that ask for a broadcast are for v3 and later.
"""

from __future__ import annotations

import random
import socket
import time
from itertools import count

import pytest

from tests.conftest import broadcasting
from tests.support.wire import (
    HIGH_WATER,
    KERNEL_BUFFERS,
    MAX_LINE,
    PROMPTLY,
    Flood,
    Peer,
    Room,
    come_in,
    padded,
)

pytestmark = pytest.mark.wire


def test_message_reaches_everyone_but_its_sender(room: Room, ana: Peer, bea: Peer) -> None:
    """`('127.0.0.1', 52344) dice: Hello`, to all the others; the sender hears nothing."""
    room.join()
    room.say(ana, "Hello")
    room.say(bea, "hola, Ana")  # Ana would read her own line first, had she got it


def test_lines_keep_the_order_of_their_sender(room: Room, ana: Peer, bea: Peer) -> None:
    """Many lines in one segment."""
    for sender in (ana, bea, ana):
        room.say(sender, *(f"line {number} of {sender.name}" for number in range(300)))


def test_segmentation_does_not_matter(room: Room, ana: Peer) -> None:
    """A line in many segments, characters cut in two: framing is on bytes, decoding on lines."""
    texts = ["añ€𝄞 o", "segunda línea", "", "€"]
    data = "".join(f"{text}\r\n" for text in texts).encode()
    for size in (1, 2, 7):
        for at in range(0, len(data), size):
            ana.send(data[at : at + size])
        room.hear(ana, *filter(None, texts))


ENDINGS = [
    (b"telnet\r\nunix\nboth\r\n", ["telnet", "unix", "both"]),
    (b"\n\r\n\n\none\n\r\n\n two \n\n", ["one", " two "]),
    (b"nor at the end\r", ["nor at the end"]),
    (b"first\nlast without newline", ["first", "last without newline"]),
]


def test_how_lines_end(room: Room, ana: Peer) -> None:
    """CR LF or LF; an empty line is none; the end of the stream ends a line, too."""
    for data, texts in ENDINGS:
        bea = room.join()
        bea.send(data)
        bea.finish()
        room.hear(bea, *texts)
        assert bea.rest() == b"", "after a half-close the server closes its side, and says nothing"
        room.gone(bea)


def test_invalid_utf8_becomes_the_replacement_character(room: Room, ana: Peer) -> None:
    """For everyone the same."""
    room.join()
    data = b"caf\xe9 \xff\xfe \xed\xa0\x80 \xf0\x9f"
    ana.send(data + b"\n")
    text = data.decode("utf-8", "replace")
    assert text.startswith("caf\N{REPLACEMENT CHARACTER} ")
    room.hear(ana, text)


@broadcasting
def test_control_characters_cross_the_wire_as_they_are(room: Room, ana: Peer) -> None:
    """NUL, ANSI escapes, a bare CR, telnet's IAC (which is no UTF-8): text like any other."""
    room.log = None  # where they are escaped: test_process.py
    ana.send(b"a\x00b\x1b[2J\rc\x7f\xff\xfd\x01\r\n" + b"two\r\r\n")
    room.hear(ana, "a\x00b\x1b[2J\rc\x7f\ufffd\ufffd\x01", "two\r")


def test_lines_before_an_immediate_close_count(room: Room) -> None:
    room.join()
    for number in range(20):
        hasty = room.join(listens=False)
        hasty.send(f"{number}\nbye".encode())
        hasty.close()
        room.hear(hasty, str(number), "bye")
        room.gone(hasty)


def test_longest_line_is_legal(room: Room, ana: Peer) -> None:
    for text in ("a" * MAX_LINE, "b" * (MAX_LINE - 1) + "\r", "ñ" * (MAX_LINE // 2)):
        ana.say(text, "and then")
        room.hear(ana, text.rstrip("\r"), "and then")
    ana.send(b"z" * MAX_LINE)  # and it needs no newline
    ana.finish()
    room.hear(ana, "z" * MAX_LINE)


def test_line_too_long_ends_that_client_only(room: Room, ana: Peer) -> None:
    for end in (b"x", b"x\n", b"\r\n"):
        verbose = room.join(listens=False)
        verbose.send(b"before\n" + b"x" * MAX_LINE + end)
        room.hear(verbose, "before")
        room.gone(verbose, reason="línea demasiado larga")
        assert verbose.rest() == b""
        room.say(ana, "still here")


def test_reset_right_after_connect(room: Room, ana: Peer) -> None:
    for _ in range(30):
        Peer(room.server.address).reset()
    room.say(ana, "unmoved")


def test_reset_in_mid_line_leaves_the_line_unsaid(room: Room, ana: Peer) -> None:
    """Whether the server finds out by reading or by writing."""
    for number in range(20):
        victim = room.join(listens=False)
        victim.send(b"whole\nhalf a li")
        room.hear(victim, "whole")
        victim.reset()
        if number % 2:
            room.gone(victim)
        room.say(ana, f"next {number}")


def test_whole_lines_before_a_reset_count(room: Room, ana: Peer) -> None:
    """close() with something unread sends an RST after the last line."""
    hasty = room.join(listens=False)
    room.say(ana, "you will not read this")
    if room.broadcasts:
        hasty.sock.recv(1, socket.MSG_PEEK)  # it is there
    texts = [f"line {number}" for number in range(200)]
    hasty.say(*texts)
    hasty.close()
    room.hear(hasty, *texts)
    room.gone(hasty)


def test_reset_of_receivers_in_a_broadcast(room: Room, ana: Peer) -> None:
    """Only they are gone; nobody else loses or repeats a line."""
    for turn in range(10):
        victims = [room.join(listens=False) for _ in range(3)]
        for number, victim in enumerate(victims):
            texts = [f"to the lost {turn}.{number}.{line}" for line in range(5)]
            room.say(ana, *texts, within=PROMPTLY)
            victim.reset()  # with lines unread in its buffer
        room.gone(*victims)


def test_silence_and_trickles_delay_nobody(room: Room, ana: Peer) -> None:
    idlers = [room.join(listens=False) for _ in range(30)]
    for number in range(40):
        for idler in idlers[:10] if number else idlers[:20]:  # 10 trickle, 10 stop in mid-line
            idler.send("ñ".encode()[number % 2 :][:1])
        room.say(ana, f"{number}", within=PROMPTLY)


def test_flooder_starves_nobody(room: Room, ana: Peer, bea: Peer) -> None:
    flooder, *readers = (room.join(listens=False) for _ in range(40))
    flood = Flood(room, flooder, [ana, *readers])
    logged = 0
    for number in range(10):
        calm = f"{ana.name} dice: calm {number}"
        ana.say(f"calm {number}")
        deadline = time.monotonic() + PROMPTLY
        if room.broadcasts:
            while bea.line(deadline - time.monotonic()) != calm:
                pass
        else:
            assert room.log
            logged = room.log.wait(calm.__eq__, logged)
            assert time.monotonic() < deadline
    flood.stop()


@broadcasting
def test_one_who_does_not_read_delays_nobody_and_is_disconnected(
    room: Room, ana: Peer, bea: Peer
) -> None:
    deaf = room.join(listens=False, receive_buffer=4096)
    sent = bytearray()
    for number in count():
        sender = (ana, bea)[number % 2]
        text = f"{number} ".ljust(4000, "x")
        sent += sender.delivery(text)
        room.say(sender, text, within=PROMPTLY)
        # Its own kernel cannot tell it: the FIN comes after all that it has not read.
        if room.log and any("desconectado" in line for line in room.log.all()):
            break
        if len(sent) > KERNEL_BUFFERS + HIGH_WATER:
            assert not room.log, "1 MiB and all that kernels buffer, and it is still there"
            break
    room.gone(deaf, reason="lector lento")
    received = deaf.rest()
    assert len(sent) - len(received) > HIGH_WATER, "less than 1 MiB waited for it"
    if room.log:
        assert len(sent) - len(received) < HIGH_WATER + (128 << 10), "more than 1 MiB did"
    assert sent.startswith(received)
    room.say(ana, "after")


@broadcasting
def test_flooder_that_does_not_read_is_not_read_from(room: Room, ana: Peer, bea: Peer) -> None:
    """While much waits for it, what it says waits too; it is heard when it has caught up."""
    flooder = room.join_slow()
    texts, quiet, words = padded(128, 4000), padded(20, 8), padded(3, 9)
    for text in texts:
        room.say(ana, text)
    flooder.say(*words)
    for text in quiet:
        room.say(bea, text)
    waiting = ana.delivery(*texts) + bea.delivery(*quiet)
    assert flooder.take(len(waiting)) == waiting
    room.hear(flooder, *words)


@broadcasting
def test_a_little_behind_is_still_read_from(room: Room, ana: Peer) -> None:
    """The lower mark is not zero: with some bytes always waiting for it, a client is heard."""
    slow = room.join_slow()
    texts = padded(100, 1000)
    room.say(ana, *texts[:40])
    room.say(slow, "I am not far behind")
    room.say(ana, *texts[40:])
    slow.say("can you hear me?")
    behind = ana.delivery(*texts)
    assert slow.take(60_000) == behind[:60_000]
    room.hear(slow, "can you hear me?")  # with 40 KB still unread
    assert slow.take(len(behind) - 60_000) == behind[60_000:]


@broadcasting
def test_client_128_kib_behind_is_not_dropped(room: Room, ana: Peer) -> None:
    slow = room.join_slow()
    texts = [f"{number:03} ".ljust(1024 - len(ana.delivery("")), "z") for number in range(128)]
    room.say(ana, *texts)
    assert slow.take(128 << 10) == ana.delivery(*texts)
    room.say(slow, "here I am")


@broadcasting
def test_partial_sends_keep_the_stream_whole(room: Room, ana: Peer) -> None:
    """The unsent tail is kept, in order, once: what a slow reader reads is what was said."""
    slow = room.join_slow()
    expected = bytearray()
    rng = random.Random(2)
    for chunk in (1000, 4096, 65536, 1000, 65536, 4096):
        texts = ["".join(rng.choices("abcñ€ ", k=rng.randint(1, 1300))) for _ in range(60)]
        room.say(ana, *texts)
        expected += ana.delivery(*texts)
        while len(expected) > 100_000:
            assert slow.take(chunk) == expected[:chunk]
            del expected[:chunk]
    assert slow.take(len(expected)) == expected


@broadcasting
def test_half_closed_client_still_gets_what_waits_for_it(room: Room, ana: Peer) -> None:
    slow = room.join_slow()
    texts = padded(12, 4000)
    room.say(ana, *texts)
    slow.send(b"bye")
    slow.finish()
    room.hear(slow, "bye")
    assert slow.rest() == ana.delivery(*texts)
    room.gone(slow)


def test_joins_and_leaves_during_broadcasts(room: Room, ana: Peer, bea: Peer) -> None:
    """Whoever stays hears every line once, whoever comes and goes meanwhile, and however."""
    rng = random.Random(7)
    guests: list[Peer] = []
    for number in range(120):
        action = rng.choice(("come", "close", "reset", "speak and go"))
        if action == "come" or not guests:
            guests.append(room.join(listens=False) if room.log else room.connect())
        else:
            guest = guests.pop(rng.randrange(len(guests)))
            if action == "speak and go":
                guest.send(b"farewell")
                guest.finish()
                room.hear(guest, "farewell")
            if action == "reset":
                guest.reset()
            else:
                guest.close()
        room.say((ana, bea)[number % 2], f"number {number}", within=PROMPTLY)


def test_five_hundred_connect_at_once(room: Room, ana: Peer, bea: Peer) -> None:
    """The accept backlog takes the burst: everyone is in, and hears."""
    crowd = [room.connect() for _ in range(500)]
    last = crowd[-1]
    if room.log or room.server.asks:
        come_in(room.server, *crowd)
    else:  # accepted in the order in which they came
        last.say("here")
        for peer in crowd[:-1]:
            assert peer.line() == f"{last.name} dice: here"
        room.hear(last, "here")
    room.listeners += crowd
    room.say(ana, "welcome")
    room.listeners = [bea]
    room.say(last, "thank you")
