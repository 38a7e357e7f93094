"""Bytes to lines whatever the segments, and events to bytes whatever is in them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sock_chat import events
from sock_chat.codec import (
    JSON,
    LINES,
    MAX_LINE,
    TOO_LONG,
    Input,
    LineDecoder,
    Marked,
    Refused,
    Resume,
    decode_frame,
)  # fmt: skip
from sock_chat.names import clean, cut, cut_farewell
from tests.chat.world import START

PIECES = [
    b"\n", b"\r", b"\r\n", b"hola", "ñ€𝄞".encode(), b"\xff\xfd", b"\xe2\x82", b"\xf0", b"\0 ",
    b"\x1b[2J", "\u2028\u202e\u200d".encode(), b"x" * (MAX_LINE - 1), b"x",
]  # fmt: skip
streams = st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)


def expected(stream: bytes) -> list[Input]:
    """The contract, line by line. The stream's end ends a line that has begun."""
    *whole, last = stream.split(b"\n")
    return [
        Refused(TOO_LONG)
        if len(line) > MAX_LINE
        else clean(line.removesuffix(b"\r").decode("utf-8", "replace"))
        for line in [*whole, *([last] if last else [])]
    ]


@given(stream=streams, data=st.data())
def test_segmentation_does_not_matter(stream: bytes, data: st.DataObject) -> None:
    decoder = LineDecoder()
    ends = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)) | {len(stream)})
    lines: list[Input] = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        lines += decoder.receive(stream[start:end])
        assert len(decoder._partial) <= MAX_LINE
    assert [*lines, *decoder.finish()] == expected(stream)


def test_a_line_may_be_as_long_as_the_limit() -> None:
    decoder = LineDecoder()
    assert decoder.receive(b"x" * MAX_LINE) == []
    assert decoder.receive(b"\nx") == ["x" * MAX_LINE]
    assert decoder.receive(b"x" * MAX_LINE) == [Refused(TOO_LONG)]
    assert decoder.receive(b"x" * MAX_LINE + b"\n" + b"y" * (MAX_LINE + 1)) == [Refused(TOO_LONG)]
    assert decoder.receive(b"\nz\n") == ["z"]


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        ("hola", "hola"),
        ("", ""),
        ("a\nb\r\x1b", "a�b��"),
        ('{"id":"7","text":"hola\\n"}', Marked("hola�", "7")),
        ('{"resume":"T"}', Resume("T")),
        (' {"resume":"T"}', ' {"resume":"T"}'),
        *[
            (text, Refused("No conozco este objeto."))
            for text in (
                "{",
                "{}", '{"id":"7"}', '{"id":7,"text":"x"}', '{"text":"x"}', '{"id":"","text":"x"}',
                '{"id":"7","text":"x","more":1}', '{"resume":"T","text":"x"}', '{"resume":null}',
                '{"id":"' + "x" * 65 + '","text":"x"}', '{"id":"7","text":"x"} ...', "{\ud800",
            )
        ],
    ],
)  # fmt: skip
def test_frames(frame: str, line: Input) -> None:
    assert decode_frame(frame) == line


AT = "2026-11-24T16:45:10Z"
HOLA = {"at": AT, "nick": "ana", "text": "hola"}
message = events.Said(17, START, "ana", "hola")
post = events.Post(18, START, "ana", "hola", "secret")
EVENTS: list[tuple[events.Event, str, object]] = [
    (message, "ana dice: hola\n", {"type": "said", "position": 17, **HOLA}),
    (post, "ana dice: hola\n", {"type": "said", "position": 18, **HOLA}),
    (message.ack(), "", {"type": "ack", "position": 17, "at": AT}),
    (post.ack(), "", {"type": "ack", "position": 18, "at": AT, "id": "secret"}),
    (events.Joined("bea"), "* bea ha entrado.\n", {"type": "joined", "nick": "bea"}),
    (events.Left("bea"), "* bea ha salido.\n", {"type": "left", "nick": "bea"}),
    (events.Left("b", "x"), "* b ha salido: x\n", {"type": "left", "nick": "b", "reason": "x"}),
    (events.Renamed("a", "b"), "* a ahora es b.\n", {"type": "renamed", "nick": "a", "to": "b"}),
    (
        events.Private("bea", "hola", START),
        "bea te dice: hola\n",
        {"type": "private", "nick": "bea", "text": "hola", "at": AT},
    ),
    (
        events.History([message]),
        "[2026-11-24 16:45:10] ana dice: hola\n",
        {"type": "history", "messages": [{"type": "said", "position": 17, **HOLA}]},
    ),
    (
        events.Greeting("ana", "general", ["ana", "bea"], 2, [message], 17, "E", False, "T"),
        "[2026-11-24 16:45:10] ana dice: hola\n* Hola, ana. En general: ana, bea.\n",
        {
            "type": "welcome", "nick": "ana", "room": "general", "members": ["ana", "bea"],
            "count": 2, "position": 17, "epoch": "E", "gap": False, "resume": "T",
            "history": [{"type": "said", "position": 17, **HOLA}],
        },
    ),
    (
        events.Welcome("ana", "cine", ["ana"], 1, [], 0, "E", True, ""),
        "* En cine: ana.\n",
        {
            "type": "welcome", "nick": "ana", "room": "cine", "members": ["ana"], "count": 1,
            "history": [], "position": 0, "epoch": "E", "gap": True, "resume": "",
        },
    ),
    (events.Notice("uno\ndos"), "* uno\n* dos\n", {"type": "notice", "text": "uno\ndos"}),
    (events.Error("no"), "* no\n", {"type": "error", "text": "no"}),
    (events.Ask("nick", "¿Qué?"), "* ¿Qué?\n", {"type": "ask", "what": "nick"}),
    (events.Ask("password", "¿?"), "* ¿?\n", {"type": "ask", "what": "password"}),
    (events.Closing(2.5), "* El servidor se cierra.\n", {"type": "closing", "retry_after": 2.5}),
]  # fmt: skip


@pytest.mark.parametrize(("event", "line", "json_object"), EVENTS, ids=lambda row: str(row)[:20])
def test_encodings(event: events.Event, line: str, json_object: object) -> None:
    assert LINES.write(event) == line.encode()
    assert json.loads(JSON.write(event)) == [json_object]


wide = st.text(st.sampled_from("ñ😀x \u0336"), max_size=300)
nicks = st.text(st.sampled_from("ñ𐐀x"), min_size=1, max_size=24)


@given(text=wide, nick=nicks, members=st.lists(nicks, max_size=40))
def test_no_own_line_is_longer_than_400_bytes(text: str, nick: str, members: list[str]) -> None:
    for event in (
        events.Left(nick, cut_farewell(text)),
        events.Renamed(nick, nick),
        events.Error(f"El apodo {nick} se parece demasiado a {nick}."),
        events.Error(f"No conozco /{cut(text)}. /help dice lo que hay."),
        events.Notice(f"En {nick} (3): {', '.join(members)}"),
        events.Greeting(nick, nick, members, 9**9, [], 0, "", False, ""),
        events.Notice(text * 20),
    ):
        lines = event.line().split("\n")
        assert lines.pop() == ""
        assert all(line.startswith("* ") and len(line.encode()) < 400 for line in lines)
