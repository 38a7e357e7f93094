"""Folded stacks: how py-spy's raw format reads, and everything that follows from it.

A stack is its frames from the outermost to the innermost, joined by ";"; a frame is
`Server.send (stages/v3/server.py:234)`. Folded stacks are how often each of them was seen, and a
line of a .folded file is one of them, a space, and that number. Table, speedscope file and both
kinds of pictures are made of this and of nothing else.
"""

from __future__ import annotations

import functools
import json
import linecache
import re
import sysconfig
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_ROOTS = [ROOT] + [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")]
"""Where the files of frames are: the names in a stack are relative to one of these folders."""

KINDS = ("send", "recv", "wait", "log", "parse", "room", "loop", "rest")
"""What a server does, in the order in which it is told; KINDS_TOLD says what is meant."""
KINDS_TOLD = {
    "send": "the line, or the function of the C library, that gives bytes to a socket",
    "recv": "the line, or the function of the C library, that takes bytes from a socket",
    "wait": "the line, or the function of the C library, that waits for readiness",
    "log": "what writes a line to stdout",
    "parse": "bytes into lines, lines into text",
    "room": "who is told what: the rest of handle, broadcast, send and of the room",
    "loop": "the rest of the event loop: reactor, asyncio, selectors, uvloop, threading",
    "rest": "everything else",
}

Stacks = Mapping[str, int]


class Frame(NamedTuple):
    function: str
    file: str
    line: int

    @classmethod
    def of(cls, text: str) -> Frame:
        found = _FRAME.fullmatch(text)
        return cls(found[1], found[2] or "", int(found[3] or 0)) if found else cls(text, "", 0)

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        return f"{self.function} ({self.file}{line})" if self.file else self.function

    @property
    def native(self) -> bool:
        return bool(self.file) and not self.file.endswith(".py") and "<" not in self.file


_FRAME = re.compile(r"(.+?)(?: \(([^()]+?)(?::(\d+))?\))?")
_WAITS = r"select|poll|epoll_p?wait|_select|__select|pselect|ppoll|uv__io_poll"
_NATIVE = [
    ("send", re.compile(r"(?:__)?(?:libc_)?(?:send|sendto|sendmsg|write|writev)")),
    ("recv", re.compile(r"(?:__)?(?:libc_)?(?:recv|recvfrom|recvmsg|read|readv)")),
    ("wait", re.compile(rf"(?:__)?(?:libc_)?(?:{_WAITS})")),
]
_LINES = [
    ("log", re.compile(r"\bos\.write\(")),
    ("send", re.compile(r"\.(?:send|sendall|sendto|sendmsg)\(|transport\.write\(|map\(transmit")),
    ("recv", re.compile(r"\.recv(?:_into|from|msg)?\(|\.accept\(")),
    ("wait", re.compile(r"\bselect\.select\(|\b_?(?:epoll|selector|poll)\.(?:poll|select)\(")),
    ("wait", re.compile(r"\b_select\(")),
]
_LOG = {"say", "visible", "escape", "log"}
_PARSE = {"next_line", "text_of", "readline", "readuntil", "feed_data", "feed", "data_received"}
_ROOM = {"handle", "broadcast", "send", "try_send", "flush", "set_interest", "receive"}
_LOOP = re.compile(
    r"lowlevel/(?:reactor|\w+_backend|connection|readiness|acceptor|uring/\w+)\.py"
    r"|(?:asyncio|uvloop|concurrent)/.*|(?:selectors|threading|socket)\.py|loop\.c|\w*uv\w*\.c"
)


def parse(text: str) -> Counter[str]:
    """The stacks of a file in py-spy's raw format. ValueError: it is none."""
    stacks: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        stack, space, count = line.rpartition(" ")
        if not space or not count.isdigit() or not stack:
            raise ValueError(f"line {number} is no stack with a count: {line[:80]!r}")
        stacks[stack] += int(count)
    return stacks


def folded(stacks: Stacks) -> str:
    """The other way round, in alphabetical order."""
    return "".join(f"{stack} {count}\n" for stack, count in sorted(stacks.items()))


def shortened(stacks: Stacks) -> Counter[str]:
    """The same without a path of this machine and without an address of this process."""
    found: Counter[str] = Counter()
    for stack, count in stacks.items():
        found[";".join(map(_shortened, stack.split(";")))] += count
    return found


@functools.lru_cache(maxsize=None)
def _shortened(text: str) -> str:
    frame = Frame.of(text)
    path = Path(frame.file)
    if frame.native:
        name = "[no symbol]" if re.fullmatch("0x[0-9a-f]+", frame.function) else frame.function
        return str(Frame(name, path.name, frame.line))
    # The standard library may be the folder that site-packages is in: the longest wins.
    for root in sorted(_ROOTS, key=lambda root: -len(str(root))):
        for known in (root, root.resolve()):
            if path.is_relative_to(known):
                return str(Frame(frame.function, str(path.relative_to(known)), frame.line))
    return str(Frame(frame.function, path.name, frame.line))


@functools.lru_cache(maxsize=None)
def source(text: str) -> str:
    """The line of source that a frame of a shortened stack was at; "" when it is not to be had."""
    frame = Frame.of(text)
    if frame.file.endswith(".py") and frame.line:
        for root in _ROOTS:
            line = linecache.getline(str(root / frame.file), frame.line).strip()
            if line:
                return line
    return ""


@functools.lru_cache(maxsize=None)
def kind(stack: str) -> str:
    """What of KINDS was going on: told by the innermost frame, and where that is C, by the
    function of the C library it is in, or else by the innermost frame of Python."""
    frames = [Frame.of(text) for text in stack.split(";")]
    python = next((frame for frame in reversed(frames) if not frame.native), None)
    name = python.function.rpartition(".")[2] if python else ""
    if frames[-1].native:
        for found, pattern in _NATIVE:
            if pattern.fullmatch(frames[-1].function):
                return "log" if found == "send" and name == "say" else found
    else:
        for found, pattern in _LINES:
            if pattern.search(source(str(frames[-1]))):
                return found
    if python is None:
        return "rest"
    if name in _LOG and python.file != "lowlevel/room.py":
        return "log"
    if python.file == "lowlevel/protocol.py" or name in _PARSE:
        return "parse"
    if frames[-1].native and _LOOP.fullmatch(frames[-1].file):
        return "loop"
    if python.file == "lowlevel/room.py":
        return "room"
    if _LOOP.fullmatch(python.file) or name in {"turn", "run", "poll"}:
        return "loop"
    return "room" if name in _ROOM else "rest"


def shares(stacks: Stacks) -> dict[str, float]:
    """What part of all samples is of each of KINDS; together 1."""
    total = sum(stacks.values())
    found = dict.fromkeys(KINDS, 0)
    for stack, count in stacks.items():
        found[kind(stack)] += count
    return {name: count / total if total else 0.0 for name, count in found.items()}


class Share(NamedTuple):
    """Of all samples: how many were in the function itself, and in it or in what it called."""

    self: float
    total: float


def functions(stacks: Stacks) -> dict[str, Share]:
    """By function, without line numbers. One that calls itself counts once."""
    samples = sum(stacks.values())
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for stack, count in stacks.items():
        names = [function(text) for text in stack.split(";")]
        own[names[-1]] += count
        for name in set(names):
            total[name] += count
    return {name: Share(own[name] / samples, total[name] / samples) for name in total}


def function(text: str) -> str:
    """A frame without its line. The stages and uvloop_server.py have the same functions: these
    go by the name of server.py, in whichever of them they are."""
    frame = Frame.of(text)
    file = re.sub(r"stages/v\d/server\.py|lowlevel/uvloop_server\.py", "server.py", frame.file)
    return str(Frame(frame.function, file, 0))


def speedscope(stacks: Stacks, name: str) -> str:
    """The stacks in the file format of speedscope: a sampled profile, in which
    the weight of a stack is how often it was seen."""
    frames: dict[str, int] = {}
    samples = [
        [frames.setdefault(text, len(frames)) for text in stack.split(";")]
        for stack in sorted(stacks)
    ]
    weights = [stacks[stack] for stack in sorted(stacks)]

    def described(text: str) -> dict[str, Any]:
        frame = Frame.of(text)
        found: dict[str, Any] = {"name": frame.function}
        if frame.file:
            found["file"] = frame.file
        if frame.line:
            found["line"] = frame.line
        return found

    profile = {
        "type": "sampled",
        "name": name,
        "unit": "none",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }
    document = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": name,
        "exporter": "sock_chat profiling/flamegraph.py",
        "activeProfileIndex": 0,
        "shared": {"frames": [described(text) for text in frames]},
        "profiles": [profile],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
