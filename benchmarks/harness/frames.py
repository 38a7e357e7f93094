"""Frames of a WebSocket, RFC 6455, as far as a load in Python needs them; flood.c has frames.h."""

from __future__ import annotations

import itertools
import json
import operator
from collections.abc import Iterator

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10  # opcodes
MASK = b"\x5a\xc3\x96\x0f"
ANSWER_ENDS = b"\r\n\r\n"
GRANTED = b"HTTP/1.1 101 "


def request(host: str, port: int) -> bytes:
    """What a client begins with, who wants frames."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = (
        "GET /ws HTTP/1.1",
        f"Host: {authority}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def client_frame(opcode: int, data: bytes) -> bytes:
    """Of up to 65,535 bytes, which are masked, always alike."""
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    masked = bytes(map(operator.xor, data, itertools.cycle(MASK)))
    return bytes([0x80 | opcode]) + length + MASK + masked


class FrameReader:
    def __init__(self) -> None:
        self._rest = b""  # of a frame that has not come to its end

    def receive(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Opcode and data of each frame that is whole. ValueError: it is none that a server may
        send, or a part of a message."""
        self._rest += data
        while len(self._rest) >= 2:
            first, size = self._rest[:2]
            if not 0x80 <= first < 0x90 or size >= 0x80:
                raise ValueError(f"a frame that begins with {first:#x} {size:#x}")
            start = 2 + {126: 2, 127: 8}.get(size, 0)
            if start > 2:
                size = int.from_bytes(self._rest[2:start], "big")
            if len(self._rest) < start + size:
                return
            frame, self._rest = self._rest[start : start + size], self._rest[start + size :]
            yield first & 0xF, frame


def line_of(event: dict[str, str]) -> str:
    """As a client without frames would hear it, and nothing of an `ack`. Of what the server says
    itself there is no more than what a load looks for."""
    kind = event["type"]
    if kind == "said":
        return f"{event['nick']} dice: {event['text']}\n"
    if kind == "welcome":
        return f"* Hola, {event['nick']}. \n"
    return "" if kind == "ack" else f"* {kind}\n"


def lines_of(data: bytes, *, is_json: bool) -> bytes:
    """Of a text frame: an array of events, or a line already."""
    return "".join(map(line_of, json.loads(data))).encode() if is_json else data + b"\n"
