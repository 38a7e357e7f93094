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

from benchmarks.harness.server import BROADCASTING
from tests.support.wire import (
    HIGH_WATER,
    KERNEL_BUFFERS,
    MAX_LINE,
    PROMPTLY,
    Closed,
    Flood,
    Peer,
    Room,
)

pytestmark = pytest.mark.wire
broadcasting = pytest.mark.servers(*BROADCASTING)


def test_message_reaches_everyone_but_its_sender(room: Room) -> None:
    """`('127.0.0.1', 52344) dice: Hello`, to all the others; the sender hears nothing."""
    ana, _bea, carla = (room.join() for _ in range(3))
    ana.say("Hello")
    room.hear(ana, "Hello")
    carla.say("hola, Ana")  # Ana would read her own line first, had she got it
    room.hear(carla, "hola, Ana")


def test_lines_keep_the_order_of_their_sender(room: Room) -> None:
    """Many lines in one segment."""
    ana = room.join()
    bea = room.join()
    for sender in (ana, bea, ana):
        texts = [f"line {number} of {sender.name}" for number in range(300)]
        sender.say(*texts)
        room.hear(sender, *texts)


def test_segmentation_does_not_matter(room: Room) -> None:
    """A line in many segments, characters cut in two: framing is on bytes, decoding on lines."""
    ana = room.join()
    room.join()
    texts = ["añ€𝄞 o", "segunda línea", "", "€"]
    data = "".join(f"{text}\r\n" for text in texts).encode()
    for size in (1, 2, 7):
        for at in range(0, len(data), size):
            ana.send(data[at : at + size])
        room.hear(ana, *filter(None, texts))


def test_invalid_utf8_becomes_the_replacement_character(room: Room) -> None:
    ana = room.join()
    room.join()
    room.join()
    ana.send(b"caf\xe9 \xff\xfe \xed\xa0\x80 \xf0\x9f\n")
    text = b"caf\xe9 \xff\xfe \xed\xa0\x80 \xf0\x9f".decode("utf-8", "replace")
    assert text.startswith("caf\N{REPLACEMENT CHARACTER} ")
    room.hear(ana, text)


def test_carriage_return_and_newline_end_a_line_and_empty_lines_are_ignored(room: Room) -> None:
    ana = room.join()
    room.join()
    ana.send(b"telnet\r\nunix\nboth\r\n")
    room.hear(ana, "telnet", "unix", "both")
    ana.send(b"\n\r\n\n\none\n\r\n\n two \n\n")
    room.hear(ana, "one", " two ")
    ana.send(b"nor at the end\r")
    ana.finish()
    room.hear(ana, "nor at the end")


@broadcasting
def test_control_characters_cross_the_wire_as_they_are(room: Room) -> None:
    """NUL, ANSI escapes, a bare CR, telnet's IAC (which is no UTF-8): text like any other."""
    ana, _bea = room.join(), room.join()
    room.log = None  # where they are escaped: test_process.py
    ana.send(b"a\x00b\x1b[2J\rc\x7f\xff\xfd\x01\r\n" + b"two\r\r\n")
    room.hear(ana, "a\x00b\x1b[2J\rc\x7f\ufffd\ufffd\x01", "two\r")


def test_the_unfinished_last_line_counts(room: Room) -> None:
    ana = room.join()
    room.join()
    ana.send(b"first\nlast without newline")
    ana.finish()
    room.hear(ana, "first", "last without newline")
    assert ana.rest() == b"", "after a half-close the server closes its side, and says nothing"
    room.gone(ana)


def test_lines_before_an_immediate_close_count(room: Room) -> None:
    room.join()
    for number in range(20):
        ana = room.join(listens=False)
        ana.send(f"{number}\nbye".encode())
        ana.close()
        room.hear(ana, str(number), "bye")
        room.gone(ana)


def test_longest_line_is_legal(room: Room) -> None:
    ana = room.join()
    room.join()
    for text in ("a" * MAX_LINE, "b" * (MAX_LINE - 1) + "\r", "ñ" * (MAX_LINE // 2)):
        ana.say(text, "and then")
        room.hear(ana, text.rstrip("\r"), "and then")
    ana.send(b"z" * MAX_LINE)  # and it needs no newline
    ana.finish()
    room.hear(ana, "z" * MAX_LINE)


def test_line_too_long_ends_that_client_only(room: Room) -> None:
    _bea, carla = room.join(), room.join()
    for too_long in (
        b"x" * (MAX_LINE + 1),
        b"y" * (MAX_LINE + 1) + b"\n",
        b"z" * MAX_LINE + b"\r\n",
    ):
        ana = room.join(listens=False)
        ana.send(b"before\n" + too_long)
        room.hear(ana, "before")
        room.gone(ana, "línea demasiado larga")
        assert ana.rest() == b""
        carla.say("still here")
        room.hear(carla, "still here")


def test_reset_right_after_connect(room: Room) -> None:
    bea = room.join()
    room.join()
    for _ in range(30):
        Peer(room.server.address).reset()
    bea.say("unmoved")
    room.hear(bea, "unmoved")


def test_reset_in_mid_line_leaves_the_line_unsaid(room: Room) -> None:
    """Whether the server finds out by reading or by writing."""
    bea, _carla = room.join(), room.join()
    for number in range(20):
        ana = room.join(listens=False)
        ana.say("whole")
        ana.send(b"half a li")
        room.hear(ana, "whole")
        ana.reset()
        if number % 2:
            room.gone(ana)
        bea.say(f"next {number}")
        room.hear(bea, f"next {number}")


def test_whole_lines_before_a_reset_count(room: Room) -> None:
    """close() with something unread sends an RST after the last line."""
    bea, _carla = room.join(), room.join()
    ana = room.join(listens=False)
    bea.say("you will not read this")
    room.hear(bea, "you will not read this")
    if room.broadcasts:
        ana.sock.recv(1, socket.MSG_PEEK)  # it is there
    texts = [f"line {number}" for number in range(200)]
    ana.say(*texts)
    ana.close()
    room.hear(ana, *texts)
    room.gone(ana)


def test_reset_of_receivers_in_a_broadcast(room: Room) -> None:
    """Only they are gone; nobody else loses or repeats a line."""
    ana, _bea = room.join(), room.join()
    said = 0
    for _ in range(10):
        victims = [room.join(listens=False) for _ in range(3)]
        for victim in victims:
            ana.say(*(f"to the lost {said + number}" for number in range(5)))
            texts = [f"to the lost {said + number}" for number in range(5)]
            room.hear(ana, *texts, within=PROMPTLY)
            said += 5
            victim.reset()  # with lines unread in its buffer
        for victim in victims:
            room.gone(victim)


def test_silence_and_trickles_delay_nobody(room: Room) -> None:
    ana, _bea = room.join(), room.join()
    idlers = [room.join(listens=False) for _ in range(30)]
    for number in range(40):
        for idler in idlers[:10] if number else idlers[:20]:  # 10 trickle, 10 stop in mid-line
            idler.send("ñ".encode()[number % 2 :][:1])
        ana.say(f"{number}")
        room.hear(ana, f"{number}", within=PROMPTLY)


def test_flooder_starves_nobody(room: Room) -> None:
    ana, bea = room.join(), room.join()
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
def test_one_who_does_not_read_delays_nobody_and_is_disconnected(room: Room) -> None:
    ana, bea = room.join(), room.join()
    deaf = room.join(listens=False, receive_buffer=4096)
    said = bytearray()
    for number in count():
        sender = (ana, bea)[number % 2]
        text = f"{number} ".ljust(32000, "x")
        said += sender.as_heard(text)
        sender.say(text)
        room.hear(sender, text, within=PROMPTLY)
        # Its own kernel cannot tell it: the FIN comes after all that it has not read.
        if room.log and any("desconectado" in line for line in room.log.all()):
            break
        if len(said) > KERNEL_BUFFERS + HIGH_WATER:
            assert not room.log, "1 MiB and all that kernels buffer, and it is still there"
            break
    room.gone(deaf, "lector lento")
    heard = deaf.rest()
    assert len(said) - len(heard) > HIGH_WATER, "less than 1 MiB waited for it"
    if room.log:
        assert len(said) - len(heard) < HIGH_WATER + (128 << 10), "more than 1 MiB did"
    assert said.startswith(heard)
    ana.say("after")
    room.hear(ana, "after")


@broadcasting
def test_flooder_that_does_not_read_is_not_read_from(room: Room) -> None:
    """While much waits for it, what it says waits too; it is heard when it has caught up."""
    ana, bea = room.join(), room.join()
    flooder = room.join_slow()
    texts = [f"{number:04} " + "y" * 8187 for number in range(64)]
    for text in texts:
        ana.say(text)
        room.hear(ana, text)
    flooder.say(*(f"me too {number}" for number in range(3)))
    for number in range(20):
        bea.say(f"quiet {number}")
        room.hear(bea, f"quiet {number}")
    waiting = ana.as_heard(*texts) + bea.as_heard(*(f"quiet {number}" for number in range(20)))
    assert flooder.take(len(waiting)) == waiting
    room.hear(flooder, *(f"me too {number}" for number in range(3)))


@broadcasting
def test_a_little_behind_is_still_read_from(room: Room) -> None:
    """The lower mark is not zero: with some bytes always waiting for it, a client is heard."""
    ana, _bea = room.join(), room.join()
    slow = room.join_slow()
    texts = [f"{number:03} ".ljust(1000, "v") for number in range(100)]
    ana.say(*texts[:40])
    room.hear(ana, *texts[:40])
    slow.say("I am not far behind")
    room.hear(slow, "I am not far behind")
    ana.say(*texts[40:])
    room.hear(ana, *texts[40:])
    slow.say("can you hear me?")
    behind = ana.as_heard(*texts)
    assert slow.take(60_000) == behind[:60_000]
    room.hear(slow, "can you hear me?")  # with 40 KB still unread
    assert slow.take(len(behind) - 60_000) == behind[60_000:]


@broadcasting
def test_client_128_kib_behind_is_not_dropped(room: Room) -> None:
    ana, _bea = room.join(), room.join()
    slow = room.join_slow()
    texts = [f"{number:03} ".ljust(1024 - len(ana.as_heard("")), "z") for number in range(128)]
    ana.say(*texts)
    room.hear(ana, *texts)
    assert slow.take(128 << 10) == ana.as_heard(*texts)
    slow.say("here I am")
    room.hear(slow, "here I am")


@broadcasting
def test_partial_sends_keep_the_stream_whole(room: Room) -> None:
    """The unsent tail is kept, in order, once: what a slow reader reads is what was said."""
    ana, _bea = room.join(), room.join()
    slow = room.join_slow()
    expected = bytearray()
    rng = random.Random(2)
    for chunk in (1000, 4096, 65536, 1000, 65536, 4096):
        texts = ["".join(rng.choices("abcñ€ ", k=rng.randint(1, 4000))) for _ in range(20)]
        ana.say(*texts)
        room.hear(ana, *texts)
        expected += ana.as_heard(*texts)
        while len(expected) > 100_000:
            assert slow.take(chunk) == expected[:chunk]
            del expected[:chunk]
    assert slow.take(len(expected)) == expected


@broadcasting
def test_half_closed_client_still_gets_what_waits_for_it(room: Room) -> None:
    ana, _bea = room.join(), room.join()
    slow = room.join_slow()
    texts = [f"{number} ".ljust(4000, "w") for number in range(12)]
    ana.say(*texts)
    room.hear(ana, *texts)
    slow.send(b"bye")
    slow.finish()
    room.hear(slow, "bye")
    assert slow.rest() == ana.as_heard(*texts)
    room.gone(slow)


def test_joins_and_leaves_during_broadcasts(room: Room) -> None:
    """Whoever stays hears every line once, whoever comes and goes meanwhile, and however."""
    ana, bea = room.join(), room.join()
    rng = random.Random(7)
    guests: list[Peer] = []
    for number in range(120):
        action = rng.choice(("come", "close", "reset", "speak and go"))
        if action == "come" or not guests:
            guests.append(room.join(listens=False) if room.log else Peer(room.server.address))
        else:
            guest = guests.pop(rng.randrange(len(guests)))
            if action == "reset":
                guest.reset()
            elif action == "close":
                guest.close()
            else:
                guest.send(b"farewell")
                guest.finish()
                room.hear(guest, "farewell")
                guest.close()
        sender = (ana, bea)[number % 2]
        sender.say(f"number {number}")
        room.hear(sender, f"number {number}", within=PROMPTLY)


def test_five_hundred_connect_at_once(room: Room) -> None:
    """The accept backlog takes the burst: everyone is in, and hears."""
    ana, bea = room.join(), room.join()
    crowd = [Peer(room.server.address) for _ in range(500)]
    if room.log:
        for peer in crowd:
            room.log.wait(f"Cliente conectado: {peer.name}".__eq__)
    else:  # accepted in the order in which they came
        crowd[-1].say("here")
        for peer in crowd[:-1]:
            assert peer.line() == f"{crowd[-1].name} dice: here"
        room.hear(crowd[-1], "here")
    ana.say("welcome")
    room.listeners += crowd
    room.hear(ana, "welcome")
    room.listeners = [bea]
    crowd[-1].say("thank you")
    room.hear(crowd[-1], "thank you")


def test_closed_peer_raises() -> None:
    """The instrument itself: a peer whose server is gone says so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = Peer(listener.getsockname())
        connection, _ = listener.accept()
        connection.sendall(b"half a line")
        connection.close()
        with pytest.raises(Closed):
            peer.line()
        peer.close()
