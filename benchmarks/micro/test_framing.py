"""What it costs to find the lines in a stream: one per segment, many, or a byte at a time.

lowlevel's LineProtocol returns all lines of a segment in one block; v3's next_line() cuts one
after the other off a bytearray; asyncio's StreamReader does so under readline(). CPU time for
LINES lines.
"""

from __future__ import annotations

import asyncio
import runpy
import time
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.harness.files import ROOT
from lowlevel.protocol import LineProtocol

LINES = 256
LINE = b"a line of thirty-two bytes, say\n"
SEGMENTS = {
    "a line": [LINE] * LINES,
    "many lines": [LINE * LINES],
    "a byte": [LINE[index : index + 1] for index in range(len(LINE))] * LINES,
}
Feed = Callable[[list[bytes]], bytes]


def line_protocol() -> Feed:
    def feed(segments: list[bytes]) -> bytes:
        protocol = LineProtocol()
        return b"".join([protocol.receive(segment, 1 << 30, 0) for segment in segments])

    return feed


def next_line() -> Feed:
    cut = runpy.run_path(str(ROOT / "stages" / "v3" / "server.py"))["next_line"]

    def feed(segments: list[bytes]) -> bytes:
        in_buffer, lines = bytearray(), []
        for segment in segments:
            in_buffer += segment
            while (line := cut(in_buffer)) is not None:
                lines.append(line + b"\n")
        return b"".join(lines)

    return feed


def stream_reader() -> Feed:
    loop = asyncio.new_event_loop()
    loop.close()  # a reader must have one, and needs none: what is asked for is always there

    async def read(segments: list[bytes]) -> bytes:
        reader = asyncio.StreamReader(loop=loop)
        lines = []
        for segment in segments:
            reader.feed_data(segment)
            for _ in range(segment.count(b"\n")):
                lines.append(await reader.readline())
        return b"".join(lines)

    def feed(segments: list[bytes]) -> bytes:
        try:
            read(segments).send(None)
        except StopIteration as end:  # it never waits, so it ends at once
            return bytes(end.value)
        raise AssertionError("it waits for more")

    return feed


FRAMERS = {"LineProtocol": line_protocol, "v3 next_line": next_line, "StreamReader": stream_reader}


@pytest.mark.parametrize("framer", FRAMERS)
@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.benchmark(timer=time.thread_time, max_time=0.2, min_rounds=5)
def test_framing(benchmark: Any, framer: str, segment: str) -> None:
    benchmark.group = f"framing: {segment} per segment, {LINES} lines"
    assert benchmark(FRAMERS[framer](), SEGMENTS[segment]) == LINE * LINES
