"""The system calls of one broadcast round, each with the source line that made it.

How the line is known: the server runs a second time under marks.py, which says at every step where
it is, in the same trace and the same thread as the calls. What it says must agree: recvfrom under a
recv(), and the same calls in the same order as without the marks. If not, nothing is shown.

What goes by way of a ring is no call. There each submission and each completion is a step, which
rings.py marks: a submission where it is queued, a completion where it is taken.
"""

from __future__ import annotations

import ast
import json
import linecache
import mmap
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.files import ROOT
from benchmarks.harness.strace import READS, SENDS, WAITS, Call, whole_calls
from calls.tracing import APART, WARM_UP, LockStep, Trace, explained, marker
from common.script import NAMES, ProfilingError

MADE_BY = {
    "select": ("select",),
    "poll": ("poll",),
    "epoll_wait": ("poll",),
    "epoll_ctl": ("register", "modify", "unregister"),
    "recvfrom": ("recv", "recv_into"),
    "sendto": ("send", "sendall", "extend"),  # list.extend() draws from map(), which sends
    "write": ("write",),
}
"""The C functions of Python that make these calls."""
PURPOSES = {
    "mmap": "malloc: a block beyond its threshold comes from the kernel",
    "mremap": "realloc: the block is cut down to what was received",
    "munmap": "free: the block goes back to the kernel",
    "brk": "malloc: the heap's size changes",
    "futex": "a thread waits for, or lets go of, the interpreter or a lock",
    "getpid": "is this still the process that started the loop?",
    "getsockopt": "asks about the socket before it sends",
    "epoll_ctl": "changes what epoll is asked about",
    "IORING_OP_POLL_ADD": "asks whether a descriptor is ready",
    "IORING_OP_ASYNC_CANCEL": "asks for an operation to end",
    "IORING_OP_CLOSE": "closes",
}
_DECODED = re.compile(r"(?<=\d)<(?:->|[^<>]|<[^<>]*>)*>")
_SOCKET = re.compile(r"(\d+)<TCP(?:v6)?:\[[^]]*?->[^]]*?:(\d+)\]+>")
_READY = re.compile(r"\(in \[(\d+)|fd=(\d+).*\[|data=\{u32=(\d+)|data=(0x[0-9a-f]+)")
_LOOP = re.compile(r"\brun(_forever)?\(")
_TIMEOUT = re.compile(r", (-?\d+)(?:, NULL, 8)?\) += ")
_ENTER = re.compile(r", (\d+), (\d+), ")

BRINGING = (*READS, "IORING_OP_RECV")
"""What brings a message in."""

Place = Sequence[Any]
"""File, number of the line, function."""
Mark = Mapping[str, Any]
"""What marks.py has written."""


class Step:
    """A call of the round, the last mark of its thread before it, and who is handed the result."""

    def __init__(self, call: Call, mark: Mark | None):
        self.call = call
        self.mark = mark
        self.handed: Place | None = None

    @property
    def text(self) -> str:
        """The call as strace writes it, descriptors as plain numbers."""
        return f"{self.call.name}({_DECODED.sub('', self.call.text)}"

    @property
    def in_a_ring(self) -> bool:
        """It is no call, but a submission or a completion."""
        return self.call.name.startswith("IORING_OP_")

    @property
    def compiled(self) -> bool:
        """It is made by a loop in compiled code, which Python cannot look into: uvloop's."""
        kinds = ("epoll_wait", "read", "write")
        return self.mark is not None and "c" not in self.mark and self.call.kind in kinds

    def lines(self, name: str, place_of: Callable[[Place], str]) -> Iterator[tuple[str, str]]:
        """(file:line or what stands for it, the source text), innermost first."""
        if not self.mark:
            return
        innermost, ours = self.mark["at"], self.mark["ours"]
        if not self.compiled:
            yield place_of(innermost), source(innermost)
            if innermost == ours:
                return
        else:
            library = "uvloop" if "uvloop" in name else "a loop in C"
            if innermost == ours and self.call.kind in SENDS:
                yield f"{library}, for {place_of(ours)}", source(ours)
                return
            yield library, ""
        for_whom = None if self.compiled else ours
        if self.call.kind in READS and (self.compiled or (ours and _LOOP.search(source(ours)))):
            for_whom = self.handed  # beneath is the loop only, which nobody's line has called
        if for_whom:
            yield f"for {place_of(for_whom)}", source(for_whom)

    def purpose(self, clients: Mapping[str, int]) -> str:
        """A few words on what the call is for. clients: their numbers, by descriptor."""
        text, kind = self.call.text, self.call.kind
        if kind == "io_uring_enter":
            submitted, complete = _ENTER.findall(text)[0]
            sleeps = "sleeps until something has completed" if complete != "0" else "looks"
            return f"hands over the {submitted} submissions queued before, then {sleeps}"
        if kind in WAITS:
            timeout = _TIMEOUT.search(text)
            if "tv_sec=0, " in text or (timeout and timeout[1] == "0"):
                return "looks, without sleeping: something waits to be run"
            ready = _READY.search(text)
            fd = str(int(ready[ready.lastindex or 0], 0)) if ready else ""
            who = f": client {clients[fd]}" if fd in clients else ""
            return f"sleeps until somebody is ready{who}"
        fd = text.partition("<")[0].partition(",")[0]
        whom = f"client {clients[fd]}" if fd in clients else f"descriptor {fd}"
        if kind == "IORING_OP_RECV" and "= 0" not in text[-4:]:
            return f"has taken the message of {whom} out of its receive buffer; it goes on"
        if kind == "IORING_OP_SEND":
            return f"delivers to {whom}, with the next io_uring_enter"
        if kind in READS:
            if "EAGAIN" in text:
                return "nothing more has come"
            if fd in clients and "= 0" not in text[-4:]:
                return f"takes the message of {whom} out of its receive buffer"
        if kind in SENDS:
            return "the log, to stdout" if fd == "1" else f"delivers to {whom}"
        return PURPOSES.get(kind, "")


def source(place: Place) -> str:
    """The text of a line. Of a call that goes over several it is the first."""
    path = ROOT / place[0]  # which stays as it is when it is absolute
    return linecache.getline(str(path), place[1]).strip()


def at(place: Place) -> str:
    """file:line, from the root of the repository or from the folder of the package on."""
    path = str(place[0])
    for folder in ("site-packages/", f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/"):
        path = path.rpartition(folder)[2]
    return f"{path}:{place[1]}"


def one_round(name: str, clients: int) -> tuple[list[Step], list[str], dict[str, int]]:
    """The calls of a round, what each is for, and the number of the client behind each port.
    ProfilingError: the marks do not agree with them."""
    steps, ports, sockets = _traced(name, clients, marked=True)
    if any(step.mark for step in steps):
        _check(name, _traced(name, clients, marked=False)[0], steps)
    elif name in NAMES:
        print(f"roundtrip: {name} is no Python program: no source lines", file=sys.stderr)
    return steps, [step.purpose(sockets) for step in steps], ports


def _traced(
    name: str, clients: int, marked: bool
) -> tuple[list[Step], dict[str, int], dict[str, int]]:
    """The steps of a round; the number of the client behind each port, and descriptor."""
    flag_file = os.memfd_create("flag")
    try:
        os.ftruncate(flag_file, 1)
        flag = mmap.mmap(flag_file, 1)
        program: list[str] = []
        if marked:
            program = [sys.executable, "-S", str(Path(__file__).with_name("marks.py"))]
            program.append(f"/proc/{os.getpid()}/fd/{flag_file}")
        logs = False if marked else None  # without the marks nothing else shows what a ring brings
        with Trace(name, options=("-s", "4096", "-yy"), program=program, logs=logs) as trace:
            with explained(trace.server):
                with LockStep(trace.server, clients, APART) as room:
                    room.run(WARM_UP)
                    flag[0] = 1
                    room.run(2)
                    first, last = room.run(1), room.run(1)
                    flag[0] = 0
                    ports = {str(c.sock.getsockname()[1]): c.index + 1 for c in room.clients}
                trace.server.stop()
            calls = whole_calls(trace.read())
    finally:
        os.close(flag_file)
    steps = _cut(name, _steps_of(calls), marker(first), marker(last))
    sockets = {
        fd: ports[port]
        for call in calls
        for fd, port in _SOCKET.findall(call.name + call.text)
        if port in ports
    }
    return steps, ports, sockets


def _mark_of(call: Call) -> Mark | None:
    """What marks.py has written; None: it is a call of the server's own."""
    if call.name != "write" or '>, "{\\"at\\": ' not in call.text[:60]:
        return None
    text = call.text.partition(", ")[2]
    mark: Mark = json.loads(ast.literal_eval(text[: text.rindex(", ")]))
    return mark


def _steps_of(calls: Sequence[Call]) -> list[Step]:
    """The server's own calls, each with its thread's mark."""
    steps: list[Step] = []
    last: dict[int, Mark] = {}
    reading: dict[int, Step] = {}  # the latest read of each thread, until it is known for whom
    for call in calls:
        mark = _mark_of(call)
        if mark is None:
            step = Step(call, last.get(call.thread))
            steps.append(step)
            reading.pop(call.thread, None)
            if call.kind in READS or call.kind in WAITS:
                if call.kind in WAITS and steps[:-1] and steps[-2].call.kind in READS:
                    step = steps[-2]  # asyncio looks once more before the coroutine runs
                reading[call.thread] = step
            continue
        if "operation" in mark:
            steps.append(Step(Call(call.thread, mark["operation"], mark["text"]), mark))
            continue
        last[call.thread] = mark
        if mark.get("resumed") and call.thread in reading:
            reader, place = reading[call.thread], mark["at"]
            if reader.call.kind in READS and (not reader.handed or "await" in source(place)):
                reader.handed = place
    return steps


def _cut(name: str, steps: list[Step], first: str, last: str) -> list[Step]:
    """From the wait that the first message ended to the one that the last message ends."""

    def begin(text: str) -> int:
        received = (
            index
            for index, step in enumerate(steps)
            if (step.call.kind in BRINGING and f', "{text}' in step.call.text)
            or (step.call.text.startswith("1<") and f" dice: {text}" in step.call.text)
        )
        index = next(received, -1)
        if index < 0:
            raise ProfilingError(f"{name}: {text!r} is not among what was received, nor logged")
        for before in range(index - 1, -1, -1):  # asyncio takes memory between wait and read
            kind, thread = steps[before].call.kind, steps[before].call.thread
            if thread != steps[index].call.thread or kind in READS or kind in SENDS:
                break
            if kind in (*WAITS, "io_uring_enter"):
                return before
        return index

    return steps[begin(first) : begin(last)]


def _check(name: str, plain: Sequence[Step], marked: Sequence[Step]) -> None:
    """ProfilingError: the marks have changed what the server does, or are not about its calls."""
    on_a_ring = any(step.in_a_ring for step in marked)  # then the two may differ in the log
    without, kinds = (
        [
            step.call.kind
            for step in steps
            if not step.in_a_ring and not (on_a_ring and step.call.text.startswith("1<"))
        ]
        for steps in (plain, marked)
    )
    if kinds != without:
        raise ProfilingError(
            f"{name}: with the marks it makes other calls ({', '.join(kinds)}) than without "
            f"({', '.join(without)}): once more, on a quieter machine"
        )
    for step in marked:
        wanted = MADE_BY.get(step.call.kind)
        if not step.mark:
            raise ProfilingError(f"{name}: no mark before {step.call.name}")
        made_by = step.mark.get("c")
        if wanted and made_by not in wanted and not step.compiled:
            where = "{}:{}".format(*step.mark["at"])
            raise ProfilingError(f"{name}: {step.call.name} does not match {made_by}() at {where}")
