"""What strace(1) wrote, `strace -f -o FILE`, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CALL = re.compile(r"^(\d+) +(<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")
SAME = {
    "pselect6": "select",
    "ppoll": "poll",
    "epoll_pwait": "epoll_wait",
    "epoll_pwait2": "epoll_wait",
}
WAITS = ("select", "poll", "epoll_wait")
READS = ("recvfrom", "read", "recvmsg", "readv")
SENDS = ("sendto", "write", "sendmsg", "writev")


@dataclass(frozen=True)
class Call:
    """One system call. text: its arguments and its result."""

    thread: int
    name: str
    text: str

    @property
    def kind(self) -> str:
        """One name for what the C library may ask for under another: select, poll, epoll_wait."""
        return SAME.get(self.name, self.name)


def whole_calls(trace: str) -> list[Call]:
    """The calls in the order in which they returned. Where another thread's came in between,
    strace cuts one in two, and here the halves are together again."""
    whole = []
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        match = _CALL.match(line)
        if not match:
            continue
        thread, resumed, name, text = match.groups()
        if text.endswith("<unfinished ...>"):
            begun[thread] = text[: -len("<unfinished ...>")]
            continue
        if resumed:
            text = begun.pop(thread, "") + text
        whole.append(Call(int(thread), name, text))
    return whole


def calls(trace: str) -> list[tuple[str, str]]:
    """(kind, arguments and result) of each call, in the order in which they returned."""
    return [(call.kind, call.text) for call in whole_calls(trace)]


def window(returned: list[tuple[str, str]], first: str, last: str) -> list[tuple[str, str]]:
    """The calls from the one that received `first` up to that which received `last`. What comes by
    way of a ring is not in a trace: there, from the one that logs it.

    The wait before the first message is outside, that before the last one is inside: as many
    waits as messages. ValueError: one of them was never received.
    """

    def received(text: str, start: int) -> int:
        for index in range(start, len(returned)):
            call, arguments = returned[index]
            if call in READS and f'"{text}' in arguments:
                return index
            if arguments.startswith("1, ") and f" dice: {text}" in arguments:
                return index
        raise ValueError(f"{text!r} is not among what was received")

    start = received(first, 0)
    return returned[start : received(last, start + 1)]


def calls_between(trace: str, first: str, last: str) -> list[str]:
    """The names of the calls of window()."""
    return [call for call, _ in window(calls(trace), first, last)]
