"""System calls in a closed-loop flood: where coalescing shows.

Two ways to see them, the better one first. Both count every thread of the server, and only what
happens between the moment when all clients are in and the last delivery.

perf       `perf stat` on the kernel's tracepoints, switched on and off through its control pipe
strace     stops the server twice per call, which makes it several times slower: more messages come
           in one turn, and a server that coalesces sends less often than it would alone

perf needs the right to use tracepoints: root, or CAP_PERFMON and readable tracefs. It counts by
name only what a server may call in a flood, and the rest as one number: the kernel takes long to
let go of a tracepoint, half a minute for all that there are.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.cpus import pinned, two_cpus
from benchmarks.harness.flood import flood as flood_of
from benchmarks.harness.process import DEADLINE, ServerError, has_ended, starter
from benchmarks.harness.server import Server
from benchmarks.harness.strace import READS, SAME, SENDS, WAITS, calls_between
from benchmarks.harness.tables import table
from calls.tracing import Trace, explained, marker, strace
from common.script import ProfilingError, one_line, quiet, tool

TOOLS = ("perf", "strace")
SENDERS = 5
"""Clients that speak, of all: as many as there are, up to this."""
IN_FLIGHT = 4
EVENTS = Path("/sys/kernel/tracing/events/syscalls")
SLOWER = {
    "perf": "",
    "strace": " strace stops the server twice per call and makes it several times slower: a server "
    "that coalesces finds more in each turn, and sends less often, than it would alone.",
}

_NAMED = """
    brk close epoll_ctl epoll_pwait epoll_wait futex getpid getsockopt io_uring_enter madvise mmap
    mremap munmap nanosleep poll pselect6 read readv recvfrom recvmsg sched_yield select sendmsg
    sendto write writev
"""


class Flooded:
    """What one server was seen to do for one flood. saturating: the load is more than any server
    here can do; else "messages per send" may be the load's."""

    def __init__(
        self,
        name: str,
        clients: int,
        deliveries: int,
        saturating: bool,
        calls: Counter[str],
        segments: int,
    ):
        self.name = name
        self.clients = clients
        self.deliveries = deliveries
        self.saturating = saturating
        self.calls = calls
        # What goes by way of a ring is no call of its own.
        on_a_ring = calls["io_uring_enter"] > 0
        self.sends = segments if on_a_ring else sum(calls[call] for call in SENDS)

    def as_json(self) -> dict[str, Any]:
        return {
            "server": self.name,
            "clients": self.clients,
            "deliveries": self.deliveries,
            "saturating": self.saturating,
            "calls": dict(self.calls.most_common()),
            "calls_per_delivery": self.calls.total() / self.deliveries,
            "messages_per_send": self.deliveries / self.sends,
        }


def choose(wanted: str | None) -> str:
    """The tool to use. ProfilingError: none can be, or not the one that is wanted."""
    if wanted != "strace":
        try:
            _try_perf()
            return "perf"
        except ProfilingError:
            if wanted:
                raise
    strace()
    return "strace"


def _try_perf() -> None:
    """On a short process. ProfilingError: it may not."""
    command = [tool("perf", "linux-perf"), "stat", "-x,", "-e", "syscalls:sys_enter_sendto", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode or "<not" in tried.stderr:
        raise ProfilingError(
            f"perf may not use tracepoints ({one_line(tried.stderr)[:160]}): be root, or give it "
            "CAP_PERFMON and tracefs"
        )


def flood(name: str, clients: int, messages: int, tool: str) -> Flooded:
    """The calls of one server while some of its clients flood the others, all checked."""
    cpu, our_cpu = two_cpus()
    calls: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        with pinned(cpu):
            trace = (
                stack.enter_context(Trace(name, options=("-s", "64"))) if tool == "strace" else None
            )
            server = trace.server if trace else Server(name, arguments=quiet(name), tied=True)
            stack.enter_context(server)
        with explained(server):
            with flood_of(server, clients, SENDERS, in_flight=IN_FLIGHT, cpu=our_cpu) as load:
                before = load.run(1)
                server.wait_until_at_rest()
                with contextlib.nullcontext() if trace else _perf(server.pid, calls):
                    ran = load.run(messages)
                    server.wait_until_at_rest()
            server.stop()
            if trace:
                calls.update(calls_between(trace.read(), marker(before.last), marker(ran.last)))
    # With two messages that the load says by itself: perf sees those after the flood, and between
    # the marks in a trace there are those before it.
    last = 2 * (clients - 1)
    segments = ran.segments + last
    return Flooded(name, clients, ran.deliveries + last, load.saturating, calls, segments)


@contextlib.contextmanager
def _perf(pid: int, calls: Counter[str]) -> Iterator[None]:
    """They are filled in when the block has ended."""
    control, give = os.pipe()
    take, acknowledge = os.pipe()
    with contextlib.ExitStack() as stack:
        for fd in (give, take):
            stack.callback(os.close, fd)
        log = stack.enter_context(tempfile.TemporaryFile())
        command = starter(signum=signal.SIGKILL, parent=os.getpid())
        command += ["perf", "stat", "-x,", "--log-fd", str(log.fileno()), "-e"]
        command += [",".join(["raw_syscalls:sys_enter", *_events()]), "-p", str(pid), "-D", "-1"]
        command += ["--control", f"fd:{control},{acknowledge}"]
        process = stack.enter_context(
            subprocess.Popen(
                command,
                pass_fds=(control, acknowledge, log.fileno()),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        )
        stack.callback(process.kill)
        os.close(control)
        os.close(acknowledge)

        def tell(word: bytes) -> None:
            with contextlib.suppress(BrokenPipeError):
                os.write(give, word + b"\n")
            ready, _, _ = select.select([take], [], [], DEADLINE)
            if not ready or not os.read(take, 64).startswith(b"ack"):
                process.kill()
                errors = process.communicate()[1].decode(errors="replace")
                raise ServerError(f"perf does not {word.decode()}: {one_line(errors)[:200]}")

        tell(b"enable")
        yield
        tell(b"disable")
        process.send_signal(signal.SIGINT)  # which it takes for the end, and prints
        has_ended(process.pid, DEADLINE)
        log.seek(0)
        for line in log.read().decode().splitlines():
            match = re.match(r"(\d+),[^,]*,(raw_)?syscalls:sys_enter_?(\w*)", line)
            if match:
                calls["all" if match[2] else SAME.get(match[3], match[3])] += int(match[1])
    everything = calls.pop("all", 0)
    if not everything:
        raise ServerError("perf has counted nothing")
    calls["others"] = everything - calls.total()
    for call in [call for call in calls if not calls[call]]:
        del calls[call]


def _events() -> list[str]:
    """Not every architecture has them all, and to ask for one that is not there is an error."""
    names = [f"sys_enter_{call}" for call in _NAMED.split()]
    return [f"syscalls:{name}" for name in names if (EVENTS / name).is_dir() or not EVENTS.is_dir()]


def rows(results: Sequence[Flooded]) -> list[list[str]]:
    """A table."""
    lines = [["server", "N", "waits", "reads", "sends", "besides", "all", "messages per send"]]
    for one in results:
        others = [call for call in one.calls if call not in (*WAITS, *READS, *SENDS)]
        parts = [sum(map(one.calls.__getitem__, k)) for k in (WAITS, READS, SENDS, others)]
        per_delivery = [f"{n / one.deliveries:.3f}" for n in (*parts, one.calls.total())]
        per_send = f"{one.deliveries / one.sends:.2f}" + " (not saturated)" * (not one.saturating)
        lines.append([one.name, str(one.clients), *per_delivery, per_send])
    return lines


def terminal(results: Sequence[Flooded], tool: str) -> str:
    lines = rows(results)
    lines[0].append("counts")
    for line, one in zip(lines[1:], results):
        line.append(", ".join(f"{call} {count}" for call, count in one.calls.most_common()))
    return f"{table(lines, style='plain')}\n\nSeen by {tool}.{SLOWER[tool]}"


def markdown(results: Sequence[Flooded], tool: str, made_on: str) -> str:
    paragraphs = [
        "# System calls per delivery in a flood",
        f"Up to {SENDERS} of N clients speak, each with {IN_FLIGHT} messages in flight, and every "
        "delivery is checked. All calls of all threads of the server, divided by the deliveries; "
        "messages per send is deliveries over sends (`sendto`, `write` and their like; on a ring, "
        "over the segments that the clients got): 1 where each message is sent by itself.",
        table(rows(results)),
        f"Seen by {tool}.{SLOWER[tool]}",
        made_on,
    ]
    return "\n\n".join(paragraphs) + "\n"
