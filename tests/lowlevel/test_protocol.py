"""lowlevel's line protocol, by properties: bytes in, lines out, whatever the segments."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowlevel.protocol import MAX_LINE, LineProtocol, LineTooLong

AMPLE = 1 << 30

streams = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"hola", "ñ€𝄞".encode(), b"\xff\xfd", b"\xe2\x82", b"\xf0", b"\0 "]
    ),
    max_size=40,
).map(b"".join)


def expected(stream: bytes) -> list[str]:
    """The contract, line by line: v3's text_of() and its "an empty line is ignored"."""
    texts = [line.removesuffix(b"\r").decode("utf-8", "replace") for line in stream.split(b"\n")]
    return [text for text in texts if text]


def texts(blocks: Iterable[bytes]) -> list[str]:
    return b"".join(blocks).decode().split("\n")[:-1]


def cut(data: st.DataObject, stream: bytes) -> list[bytes]:
    ends = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)) | {len(stream)})
    starts = [0, *ends[:-1]]
    return [stream[start:end] for start, end in zip(starts, ends)]


@given(stream=streams, data=st.data())
def test_segmentation_does_not_matter(stream: bytes, data: st.DataObject) -> None:
    protocol = LineProtocol()
    blocks = [protocol.receive(segment, AMPLE, 0) for segment in cut(data, stream)]
    assert not protocol.pending
    assert texts([*blocks, protocol.finish()]) == expected(stream)


@given(stream=streams, data=st.data(), budget=st.integers(1, 40), overhead=st.integers(0, 20))
def test_budget_delays_lines_and_changes_none(
    stream: bytes, data: st.DataObject, budget: int, overhead: int
) -> None:
    """A block ends with the line that uses up the last of the budget; the rest comes when asked
    for, before any new data."""
    protocol, blocks = LineProtocol(), []
    for segment in cut(data, stream):
        blocks.append(protocol.receive(segment, budget, overhead))
        while protocol.pending:
            blocks.append(protocol.receive(b"", budget, overhead))
    for block in blocks:
        lines = block.splitlines(keepends=True) if b"\r" not in block else []
        assert sum(len(line) + overhead for line in lines[:-1]) < budget * 3  # U+FFFD: 3 bytes
    assert texts([*blocks, protocol.finish()]) == expected(stream)


@given(data=st.data(), before=st.sampled_from([b"", b"one\n", b"\n", b"one\ntwo\n"]))
def test_a_line_may_be_as_long_as_the_limit(data: st.DataObject, before: bytes) -> None:
    line = b"x" * MAX_LINE
    protocol = LineProtocol()
    blocks = [protocol.receive(part, AMPLE, 0) for part in cut(data, before + line + b"\n")]
    while protocol.pending:
        blocks.append(protocol.receive(b"", AMPLE, 0))
    assert texts(blocks) == [*expected(before), line.decode()]


@given(
    data=st.data(),
    before=st.sampled_from([b"", b"one\n", b"\n", b"one\ntwo\n"]),
    end=st.sampled_from([b"", b"\n", b"\nmore\n"]),
)
def test_a_longer_line_ends_it_after_the_lines_before(
    data: st.DataObject, before: bytes, end: bytes
) -> None:
    protocol, blocks = LineProtocol(), []

    def receive_all() -> None:
        for part in cut(data, before + b"x" * (MAX_LINE + 1) + end):
            blocks.append(protocol.receive(part, AMPLE, 0))
            while protocol.pending:
                blocks.append(protocol.receive(b"", AMPLE, 0))

    with pytest.raises(LineTooLong):
        receive_all()
    assert texts(blocks) == expected(before)


def test_a_budget_that_ends_in_a_lot_of_short_lines() -> None:
    """One line at least in each block, and as many as fit."""
    protocol = LineProtocol()
    assert protocol.receive(b"1\n2\n3\n4\n5\n", 8, 2) == b"1\n2\n"
    assert protocol.pending
    assert protocol.receive(b"6", 1, 100) == b"3\n"
    assert protocol.receive(b"\n7", 100, 0) == b"4\n5\n6\n"
    assert not protocol.pending
    assert protocol.finish() == b"7\n"
