"""What v5 makes of bytes, and bytes of: for those who send lines, and for browsers.

A turn is encoded once for all clients of a kind: lines of text, or a frame with an array of JSON
objects. What a client sends is lines that end in a newline, or masked frames. CPU time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from benchmarks.harness.frames import TEXT, client_frame
from sock_chat.codec import LINES, Codec, LineDecoder
from sock_chat.events import Event, Said
from sock_chat.frames import WEB, FrameDecoder

MESSAGES = 40
TEXT_OF_ONE = "a line of thirty-two bytes, say"
NOW = datetime(2024, 2, 29, 12, 34, 56, tzinfo=timezone.utc)
CODECS = {"lines": LINES, "frame": WEB}
DECODERS: dict[str, tuple[Callable[[], Any], bytes]] = {
    "lines": (LineDecoder, f"{TEXT_OF_ONE}\n".encode()),
    "frames": (FrameDecoder, client_frame(TEXT, TEXT_OF_ONE.encode())),
}
pytestmark = pytest.mark.benchmark(timer=time.thread_time, max_time=0.2, min_rounds=5)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("count", [1, MESSAGES])
def test_encoding(benchmark: Any, name: str, count: int) -> None:
    benchmark.group = f"encoding: a turn of {count}"
    codec: Codec = CODECS[name]
    events: list[Event] = [Said(number, NOW, "ana", TEXT_OF_ONE) for number in range(count)]

    def encode() -> bytes:
        return codec.wrap(codec.separator.join(codec.encode(events)))

    assert benchmark(encode).count(TEXT_OF_ONE.encode()) == count


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("count", [1, MESSAGES])
def test_decoding(benchmark: Any, name: str, count: int) -> None:
    benchmark.group = f"decoding: {count} messages in a read"
    new, message = DECODERS[name]
    decoder, data = new(), message * count
    assert benchmark(lambda: decoder.receive(data)) == [TEXT_OF_ONE] * count
