"""The line protocol, sans-IO: bytes in, lines out, and no socket anywhere.

The stream is UTF-8 lines that end in "\\n". What comes out are blocks: some whole lines, each with
its "\\n", as the others shall see them: without the "\\r" that may stand before the "\\n", without
empty lines, with U+FFFD where bytes are not UTF-8. However the stream is cut into segments, the
blocks put together are the same.

A block instead of a list of lines, because what is done to every line of a read can then be done
to all of them by one call that loops in C.
"""

from typing import Union

MAX_LINE = 65536  # bytes before the "\n" of a legal line


class LineTooLong(Exception):
    """More than MAX_LINE bytes without a newline."""


class LineProtocol:
    """What one client sends."""

    __slots__ = ("_lines", "_partial")

    def __init__(self) -> None:
        self._lines = b""  # whole lines that a budget has left for later
        self._partial: Union[bytes, bytearray] = b""  # what follows the last newline

    @property
    def pending(self) -> bool:
        """Whether receive() has something to say without new data."""
        return bool(self._lines) or len(self._partial) > MAX_LINE

    def receive(self, data: bytes, budget: int, overhead: int) -> bytes:
        """Take data, which may be none; the next block, which may be empty.

        A line uses up its bytes and `overhead` of the budget; the block ends with the line that
        uses up the last of it. LineTooLong: the next line is, and there is no way on.
        """
        end = data.rfind(b"\n") + 1
        if end == len(data) and not self._partial and not self._lines:
            self._lines = data
        elif end:
            self._lines += self._partial + data[:end]
            self._partial = data[end:]
        elif self._partial:
            # bytes grow by being copied whole, a bytearray in place: a long line that comes a
            # byte at a time would otherwise cost the square of its length.
            if isinstance(self._partial, bytes):
                self._partial = bytearray(self._partial)
            self._partial += data
        else:
            self._partial = data
        lines = self._lines
        if not lines:
            if len(self._partial) > MAX_LINE:
                raise LineTooLong
            return b""
        if len(lines) <= MAX_LINE and len(lines) + overhead * lines.count(b"\n") <= budget:
            self._lines = b""
        else:
            end = self._cut(budget, overhead)
            lines, self._lines = lines[:end], lines[end:]
        return normalised(lines)

    def finish(self) -> bytes:
        """The block of an unfinished last line: the end of the stream ends it as "\\n" would."""
        partial, self._partial = self._partial, b""
        return normalised(bytes(partial) + b"\n")

    def _cut(self, budget: int, overhead: int) -> int:
        """Where in the lines the budget ends."""
        lines, start = self._lines, 0
        while budget > 0 and start < len(lines):
            end = lines.index(b"\n", start) + 1
            if end - 1 - start > MAX_LINE:
                if start == 0:
                    raise LineTooLong
                break
            budget -= end - start + overhead
            start = end
        return start


def normalised(lines: bytes) -> bytes:
    """Whole lines as the others shall see them."""
    if not lines.isascii():
        lines = lines.decode("utf-8", "replace").encode()
    if b"\r" in lines:
        lines = lines.replace(b"\r\n", b"\n")
    if lines.startswith(b"\n") or b"\n\n" in lines:
        lines = b"".join(line + b"\n" for line in lines.split(b"\n") if line)
    return lines
