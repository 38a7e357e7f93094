"""lowlevel's line protocol, by properties: bytes in, lines out, whatever the segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowlevel.protocol import MAX_LINE, LineProtocol, LineTooLong

AMPLE = 1 << 30

streams = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"hola", "ñ€𝄞".encode(), b"\xff\xfd", b"\xe2\x82", b"\xf0", b"\0 "]
    ),
    max_size=40,
).map(b"".join)
before = st.sampled_from([b"", b"one\n", b"\n", b"one\ntwo\n"])


def expected(stream: bytes) -> list[str]:
    """The contract, line by line: v3's text_of() and its "an empty line is ignored"."""
    texts = [line.removesuffix(b"\r").decode("utf-8", "replace") for line in stream.split(b"\n")]
    return [text for text in texts if text]


def texts(blocks: Iterable[bytes]) -> list[str]:
    return b"".join(blocks).decode().split("\n")[:-1]


def receive(protocol: LineProtocol, data: st.DataObject, stream: bytes) -> Iterator[bytes]:
    """The blocks of a stream that comes in segments: cut anywhere, with any budget."""
    budget, overhead = data.draw(st.integers(1, 40) | st.just(AMPLE)), data.draw(st.integers(0, 20))
    ends = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)) | {len(stream)})
    for start, end in zip([0, *ends], ends):
        segment = stream[start:end]
        while True:
            block = protocol.receive(segment, budget, overhead)
            lines = block.splitlines(keepends=True) if b"\r" not in block else []
            assert sum(len(line) + overhead for line in lines[:-1]) < budget * 3  # U+FFFD: 3 bytes
            yield block
            if not protocol.pending:
                break
            assert budget < AMPLE or len(stream) > MAX_LINE
            segment = b""


@settings(deadline=None)  # a busy machine is no failure
@given(stream=streams, data=st.data())
def test_segments_and_budgets_change_no_line(stream: bytes, data: st.DataObject) -> None:
    """A block ends with the line that uses up the last of the budget; the rest comes when asked
    for, before any new data."""
    protocol = LineProtocol()
    assert texts([*receive(protocol, data, stream), protocol.finish()]) == expected(stream)


@settings(deadline=None)  # a busy machine is no failure
@given(data=st.data(), before=before, end=st.sampled_from([b"\n", b"\nmore\n"]))
def test_a_line_may_be_as_long_as_the_limit(data: st.DataObject, before: bytes, end: bytes) -> None:
    stream = before + b"x" * MAX_LINE + end
    assert texts(receive(LineProtocol(), data, stream)) == expected(stream)


@settings(deadline=None)  # a busy machine is no failure
@given(data=st.data(), before=before, end=st.sampled_from([b"", b"\n", b"\nmore\n"]))
def test_a_longer_line_ends_it_after_the_lines_before(
    data: st.DataObject, before: bytes, end: bytes
) -> None:
    blocks: list[bytes] = []
    with pytest.raises(LineTooLong):
        blocks.extend(receive(LineProtocol(), data, before + b"x" * (MAX_LINE + 1) + end))
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
