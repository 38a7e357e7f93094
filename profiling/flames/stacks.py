"""Folded stacks: how py-spy's raw format reads, and everything that follows from it.

A stack is its frames from the outermost to the innermost, joined by ";"; a frame is
`Server.send (stages/v3/server.py:234)`. Folded stacks are how often each of them was seen, and a
line of a .folded file is one of them, a space, and that number. The tables of shares and the
pictures are made of this and of nothing else; speedscope opens such a file as it is.
"""

from __future__ import annotations

import functools
import linecache
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness.files import ROOT

_ROOTS = [ROOT] + [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")]
"""Where the files of frames are: the names in a stack are relative to one of these folders."""

KINDS = {
    "send": "the line, or the function of the C library, that gives bytes to a socket",
    "recv": "the line, or the function of the C library, that takes bytes from a socket",
    "wait": "the line, or the function of the C library, that waits for readiness",
    "ring": "the line that does these three by one call: io_uring_enter(2)",
    "log": "what writes a line to stdout",
    "parse": "bytes into lines, lines into text",
    "room": "who is told what: the rest of handle, broadcast, send and of the room",
    "loop": "the rest of the event loop: reactor, asyncio, selectors, uvloop, threading",
    "rest": "everything else",
}
"""What a server does, in the order of tables, and what is meant by it."""

Stacks = Mapping[str, int]


class Frame(NamedTuple):
    function: str
    file: str
    line: int

    @classmethod
    def of(cls, text: str) -> Frame:
        match = _FRAME.fullmatch(text)
        return cls(match[1], match[2] or "", int(match[3] or 0)) if match else cls(text, "", 0)

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        return f"{self.function} ({self.file}{line})" if self.file else self.function

    @property
    def native(self) -> bool:
        return bool(self.file) and not self.file.endswith(".py") and "<" not in self.file


_FRAME = re.compile(r"(.+?)(?: \(([^()]+?)(?::(\d+))?\))?")
CALLS = {
    "send": re.compile(r"_*(?:GI_+)?(?:libc_)?(?:send|sendto|sendmsg|write|writev)"),
    "recv": re.compile(r"_*(?:GI_+)?(?:libc_)?(?:recv|recvfrom|recvmsg|read|readv)"),
    "wait": re.compile(
        r"_*(?:GI_+)?(?:libc_)?(?:select|pselect|poll|ppoll|epoll_p?wait2?)|uv__io_poll"
    ),
}
"""The functions of the C library that make these calls, under all names that it has for them."""
_LINES = [
    ("log", re.compile(r"\bos\.write\(")),
    ("send", re.compile(r"\.send(?:all|to|msg)?\(|map\(transmit")),
    ("send", re.compile(r"(?:transport|writer|member)\.write\(")),
    ("recv", re.compile(r"\.recv(?:_into|from|msg)?\(|\.accept\(")),
    ("wait", re.compile(r"\bselect\.select\(|\b_?(?:epoll|selector|poll)\.(?:poll|select)\(")),
    ("wait", re.compile(r"\b_select\(")),
    ("ring", re.compile(r"_syscall\(ENTER,")),
]
_LOG = {"say", "visible", "log"}
_CODECS = {"lowlevel/protocol.py", "stages/v5/sock_chat/codec.py"}
_PARSE = {"next_line", "readline", "readuntil", "feed_data", "feed", "data_received"}
_ROOM = {"handle", "broadcast", "send", "try_send", "flush", "set_interest", "receive"}
_LOOP = re.compile(
    r"lowlevel/(?:reactor|\w+_backend|connection|readiness|acceptor|uring/\w+)\.py"
    r"|stages/v5/sock_chat/(?:tcp|tls|turns|server|store)\.py"
    r"|(?:asyncio|uvloop|concurrent)/.*|(?:selectors|threading|socket)\.py|loop\.c|\w*uv\w*\.c"
)


def parse_stacks(text: str) -> Counter[str]:
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
    result: Counter[str] = Counter()
    for stack, count in stacks.items():
        result[";".join(map(_shortened, stack.split(";")))] += count
    return result


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
        for call, pattern in CALLS.items():
            if pattern.fullmatch(frames[-1].function):
                return "log" if call == "send" and name == "say" else call
    else:
        line = source(str(frames[-1]))
        for call, pattern in _LINES:
            if pattern.search(line):
                return call
    if python is None:
        return "rest"
    if name in _LOG and python.file != "lowlevel/room.py":
        return "log"
    if python.file in _CODECS or name in _PARSE:
        return "parse"
    if frames[-1].native and _LOOP.fullmatch(frames[-1].file):
        return "loop"
    if python.file == "lowlevel/room.py":
        return "room"
    if _LOOP.fullmatch(python.file) or name in {"turn", "run", "poll"}:
        return "loop"
    ours = python.file.startswith("stages/v5/sock_chat/")
    return "room" if ours or name in _ROOM else "rest"


def shares(stacks: Stacks) -> dict[str, float]:
    """What part of all samples is of each of KINDS; together 1."""
    counts = dict.fromkeys(KINDS, 0)
    for stack, count in stacks.items():
        counts[kind(stack)] += count
    return {name: count / sum(stacks.values()) for name, count in counts.items()}


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


@dataclass
class Node:
    """A frame and what was called from it. weights: of the samples in both, by what they are."""

    name: str
    weights: dict[str, float] = field(default_factory=dict)
    children: dict[str, Node] = field(default_factory=dict)

    def add(self, label: str, weight: float) -> None:
        self.weights[label] = self.weights.get(label, 0) + weight


def tree(stacks: Iterable[tuple[Iterable[str], str, float]]) -> Node:
    """(frames, what the samples are, their weight), put together by their common callers."""
    root = Node("all")
    for frames, label, weight in stacks:
        node = root
        node.add(label, weight)
        for name in frames:
            node = node.children.setdefault(name, Node(name))
            node.add(label, weight)
    return root
