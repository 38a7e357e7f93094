"""Frames to lines: the same as websockets' own protocol takes them for, however the bytes come."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from sock_chat.codec import MAX_LINE, Control, Input, Marked
from sock_chat.frames import FrameDecoder, array_frame, close_frame


def masked(opcode: int, data: bytes, mask: bytes, first: int = 0x80, length: str = "") -> bytes:
    """A frame of a client's, not always a legal one. length: of which form; "": the shortest."""
    size = len(data)
    form = length or ("short" if size < 126 else "medium" if size < 1 << 16 else "long")
    if form == "short":
        header = bytes([0x80 | min(size, 125)])
    elif form == "medium":
        header = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        header = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
    return bytes([first | opcode]) + header + mask + body


texts = st.text(max_size=40) | st.text(max_size=8).map(lambda text: text * 30)
lengths = st.sampled_from(["", "", "", "", "medium", "long"])
masks = st.binary(min_size=4, max_size=4)
payloads = (
    texts.map(str.encode)
    | st.binary(max_size=20)
    | st.sampled_from([b'{"id":"7","text":"hola"}', b"{}", b"x" * 4096, b"x" * 4097, b"\xff"])
)
closes = st.builds(
    lambda code, reason: code.to_bytes(2, "big") + reason,
    st.sampled_from([1000, 1001, 1005, 1006, 2999, 3000, 4999, 5000]),
    st.binary(max_size=4),
)
whole = st.builds(masked, st.just(Opcode.TEXT), payloads, masks, st.just(0x80), lengths)
small = st.builds(masked, st.just(Opcode.TEXT), texts.map(str.encode), masks)
control = st.builds(
    masked, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=130), masks
)
ending = st.builds(masked, st.just(Opcode.CLOSE), closes | st.just(b"") | st.just(b"\3"), masks)
part = st.builds(masked, st.sampled_from([0, 1]), payloads, masks, st.sampled_from([0, 0, 0x80]))
odd = st.builds(masked, st.integers(0, 15), payloads, masks, st.sampled_from([0, 0x80, 0xC0, 0x90]))
unmasked = payloads.map(lambda data: Frame(Opcode.TEXT, data[:100]).serialize(mask=False))
streams = st.lists(small | small | small | whole | control | part | ending | odd | unmasked).map(
    b"".join
) | st.binary(max_size=60)


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


def received(decoder: FrameDecoder, segments: Iterable[bytes]) -> list[Any]:
    """All that comes out."""
    lines: list[Input] = []
    for segment in segments:
        lines += decoder.receive(segment)
    return [lines, decoder.answers, decoder.code, decoder.failed]


@given(streams, st.lists(st.integers(0, 300), max_size=20))
def test_the_short_way_is_the_same_as_the_long_one(stream: bytes, cuts: list[int]) -> None:
    expected = received(FrameDecoder(fast=False), [stream])
    assert received(FrameDecoder(fast=False), split(stream, cuts)) == expected
    assert received(FrameDecoder(), [stream]) == expected
    assert received(FrameDecoder(), split(stream, cuts)) == expected
    assert received(FrameDecoder(), [bytes([byte]) for byte in stream]) == expected


@given(streams)
def test_it_closes_as_the_library_does(stream: bytes) -> None:
    """But for what it refuses itself: binary messages, and text that is not UTF-8."""
    decoder = FrameDecoder()
    decoder.receive(stream)
    protocol = ServerProtocol(state=State.OPEN, max_size=MAX_LINE)
    protocol.receive_data(stream)
    if decoder.code not in (1003, 1007):
        assert decoder.code == (protocol.close_sent.code if protocol.close_sent else 0)
        sent = b"".join(protocol.data_to_send())
        assert sent.startswith(decoder.answers)


@settings(max_examples=20)
@given(st.lists(small, max_size=9), st.binary(max_size=9))
def test_it_goes_back_to_the_short_way(frames: list[bytes], data: bytes) -> None:
    decoder = FrameDecoder()
    for frame in frames:
        decoder.receive(masked(Opcode.PING, data, b"abcd"))
        assert decoder._protocol is None
        decoder.receive(masked(Opcode.TEXT, b"a", b"abcd", first=0))
        assert decoder._protocol
        decoder.receive(masked(Opcode.CONT, b"b", b"abcd"))
        assert decoder._protocol is None
        assert len(decoder.receive(frame)) == 1


@pytest.mark.parametrize(
    ("data", "lines", "code"),
    [
        (masked(1, b"hola", b"abcd"), ["hola"], 0),
        (masked(1, b"", b"abcd"), [""], 0),
        (masked(1, "año\nnuevo".encode(), b"abcd"), ["año\N{REPLACEMENT CHARACTER}nuevo"], 0),
        (masked(1, b"x" * 4096, b"abcd"), ["x" * 4096], 0),
        (masked(1, b"x" * 4097, b"abcd"), [], 1009),
        (masked(1, b'{"id":"1","text":"a"}', b"abcd"), [Marked("a", "1")], 0),
        (masked(2, b"hola", b"abcd"), [], 1003),
        (masked(1, b"\xff", b"abcd"), [], 1007),
        (masked(1, b"\xed\xa0\x80", b"abcd"), [], 1007),
        (masked(9, b"", b"abcd"), [Control()], 0),
        (masked(8, b"", b"abcd"), [], 1005),
        (masked(8, Close(1001, "").serialize(), b"abcd"), [], 1001),
        (masked(3, b"", b"abcd"), [], 1002),
        (b"\x81\x01a", [], 1002),
    ],
)
def test_what_a_frame_is(data: bytes, lines: list[Input], code: int) -> None:
    decoder = FrameDecoder()
    assert (decoder.receive(data), decoder.code) == (lines, code)
    assert decoder.failed == (code not in (0, 1001, 1005))
    assert decoder.receive(data) == ([] if code else lines)


def test_a_character_may_be_cut_by_frames() -> None:
    decoder = FrameDecoder()
    start, end = "ñ".encode()[:1], "ñ".encode()[1:]
    assert decoder.receive(masked(1, start, b"abcd", first=0)) == [Control()]
    assert decoder.receive(masked(0, end, b"abcd")) == ["ñ"]


@pytest.mark.parametrize("size", [0, 123, 124, 65533, 65534])
def test_what_goes_out_is_what_the_library_makes(size: int) -> None:
    payload = b"x" * size
    frame = Frame(Opcode.TEXT, b"[%b]" % payload).serialize(mask=False)
    assert array_frame(payload) == frame
    assert close_frame(1005) == Frame(Opcode.CLOSE, b"").serialize(mask=False)
