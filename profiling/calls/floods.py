"""System calls in a closed-loop flood: where coalescing shows.

Three ways to see them, best first. All count every thread of the server, and only what happens
between the moment when all clients are in and the last delivery.

perf       `perf stat` on the kernel's tracepoints, switched on and off through its control pipe
bpftrace   the same tracepoints
strace     stops the server twice per call, which makes it several times slower: more messages come
           in one turn, and a server that coalesces sends less often than it would alone

The first two need the right to use tracepoints: root, or CAP_PERFMON and readable tracefs. They
count by name only what a server may call in a flood, and the rest as one number: the kernel takes
long to let go of a tracepoint, half a minute for all that there are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.cpus import pinned, two_cpus
from benchmarks.harness.crowd import DeliveryError
from benchmarks.harness.flood import flood as flood_of
from benchmarks.harness.process import DEADLINE, ServerError
from benchmarks.harness.strace import READS, SAME, SENDS, WAITS, calls_between
from calls.counts import aligned, full_sentence
from calls.tracing import (
    Trace,
    TracingError,
    failure,
    marker,
    one_line,
    quiet,
    strace,
    tied,
    untraced,
)

TOOLS = ("perf", "bpftrace", "strace")
PACKAGES = {"perf": "linux-perf", "bpftrace": "bpftrace", "strace": "strace"}
SENDERS = 5
"""Clients that speak, of all: as many as there are, up to this."""

_NAMED = """
    brk close epoll_ctl epoll_pwait epoll_wait futex getpid getsockopt io_uring_enter madvise mmap
    mremap munmap nanosleep poll pselect6 read readv recvfrom recvmsg sched_yield select sendmsg
    sendto write writev
"""
EVENTS = Path("/sys/kernel/tracing/events/syscalls")

SLOWER = {
    "perf": "",
    "bpftrace": "",
    "strace": "strace stops the server twice per call and makes it several times slower: a server "
    "that coalesces finds more in each turn, and sends less often, than it would alone.",
}


class Flooded:
    """What one server was seen to do for one flood."""

    def __init__(self, name: str, clients: int, deliveries: int, calls: Counter[str]):
        self.name = name
        self.clients = clients
        self.deliveries = deliveries
        self.calls = calls
        self.sends = sum(calls[call] for call in SENDS)

    def as_json(self) -> dict[str, Any]:
        return {
            "server": self.name,
            "clients": self.clients,
            "deliveries": self.deliveries,
            "calls": dict(self.calls.most_common()),
            "calls_per_delivery": self.calls.total() / self.deliveries,
            "messages_per_send": self.deliveries / self.sends,
        }


def tracepoints_missing(tool: str) -> str:
    """Why perf or bpftrace cannot be used here; "" if it can. It is tried, on a short process."""
    if not shutil.which(tool):
        return f"{tool} is not installed: apt-get install {PACKAGES[tool]}"
    if tool == "perf":
        command = ["perf", "stat", "-x,", "-e", "syscalls:sys_enter_sendto", "true"]
    else:
        command = ["bpftrace", "-e", "tracepoint:syscalls:sys_enter_sendto { @ = count(); }"]
        command += ["-c", str(shutil.which("true"))]
    tried = subprocess.run(tied_path(command), capture_output=True, text=True, check=False)
    if tried.returncode == 0 and "<not" not in tried.stderr:
        return ""
    said = one_line(Exception(tried.stderr))[:160]
    return f"{tool} may not use tracepoints ({said}): be root, or give it CAP_PERFMON and tracefs"


def tied_path(command: Sequence[str]) -> list[str]:
    return tied([str(shutil.which(command[0])), *command[1:]])


def choose(wanted: str | None) -> str:
    """The tool to use. TracingError: none can be, or not the one that is wanted."""
    reasons = []
    for tool in [wanted] if wanted else TOOLS:
        if tool == "strace":
            strace()
            return tool
        reason = tracepoints_missing(tool)
        if not reason:
            return tool
        reasons.append(reason)
    raise TracingError("; ".join(reasons))


def flood(name: str, clients: int, messages: int, tool: str) -> Flooded:
    """The calls of one server while some of its clients flood the others, all checked."""
    if tool == "strace":
        with Trace(name, quiet(name), options=("-s", "16")) as trace:
            deliveries, calls = _flood_traced(trace, clients, messages)
        return Flooded(name, clients, deliveries, calls)
    look = _perf if tool == "perf" else _bpftrace
    cpu, our_cpu = two_cpus()
    with untraced(name, cpu) as server, pinned(our_cpu):
        try:
            with flood_of(server, clients, SENDERS, cpu=our_cpu) as load:
                load.run(1)
                server.wait_until_at_rest()
                with look(server.pid) as calls:
                    deliveries = load.run(messages).deliveries + clients - 1  # of its last one
                    server.wait_until_at_rest()
            server.stop()
        except (DeliveryError, ServerError, OSError, subprocess.TimeoutExpired) as error:
            raise failure(server, error) from None
    return Flooded(name, clients, deliveries, calls)


def _flood_traced(trace: Trace, clients: int, messages: int) -> tuple[int, Counter[str]]:
    server = trace.server
    try:
        with flood_of(server, clients, SENDERS) as load:
            ran = load.run(messages)
        server.stop()
        calls = calls_between(trace.read(), marker(ran.first), marker(ran.last))
        return ran.deliveries, Counter(calls)
    except (DeliveryError, ServerError, OSError, ValueError) as error:
        raise failure(server, error) from None


@contextlib.contextmanager
def _perf(pid: int) -> Iterator[Counter[str]]:
    """The Counter is filled when the block has ended."""
    calls: Counter[str] = Counter()
    control, give = os.pipe()
    take, acknowledge = os.pipe()
    with contextlib.ExitStack() as stack:
        for fd in (give, take):
            stack.callback(os.close, fd)
        log = stack.enter_context(tempfile.TemporaryFile())
        command = ["perf", "stat", "-x,", "--log-fd", str(log.fileno()), "-e"]
        command += [",".join(["raw_syscalls:sys_enter", *_events()]), "-p", str(pid), "-D", "-1"]
        command += ["--control", f"fd:{control},{acknowledge}"]
        process = subprocess.Popen(
            tied_path(command),
            pass_fds=(control, acknowledge, log.fileno()),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=_all_descriptors,  # one for each call and thread
        )
        stack.enter_context(_ended(process))
        os.close(control)
        os.close(acknowledge)

        def tell(word: bytes) -> None:
            with contextlib.suppress(BrokenPipeError):
                os.write(give, word + b"\n")
            ready, _, _ = select.select([take], [], [], DEADLINE)
            if not ready or not os.read(take, 64).startswith(b"ack"):
                raise ServerError(f"perf does not {word.decode()}: {_said(process)}")

        tell(b"enable")
        yield calls
        tell(b"disable")
        process.send_signal(signal.SIGINT)  # which it takes for the end, and prints
        process.wait(DEADLINE)
        log.seek(0)
        for line in log.read().decode().splitlines():
            found = re.match(r"(\d+),[^,]*,(raw_)?syscalls:sys_enter(\w*)", line)
            if found:
                calls["all" if found[2] else _name(found[3][1:])] += int(found[1])
    _the_rest(calls)


@contextlib.contextmanager
def _bpftrace(pid: int) -> Iterator[Counter[str]]:
    """The Counter is filled when the block has ended.

    bpftrace starts the command of -c when all is attached, and ends with it: cat, whose echo says
    that it has begun, and whose input ends when we say so.
    """
    calls: Counter[str] = Counter()
    probes = ",".join(f"tracepoint:{event}" for event in _events())
    program = (
        f"{probes} /pid == {pid}/ {{ @[probe] = count(); }} "
        f"tracepoint:raw_syscalls:sys_enter /pid == {pid}/ {{ @all = count(); }}"
    )
    process = subprocess.Popen(
        tied_path(["bpftrace", "-e", program, "-c", str(shutil.which("cat"))]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin and process.stdout
    with _ended(process):
        process.stdin.write(b"attached\n")
        process.stdin.flush()
        for line in process.stdout:  # "Attaching 35 probes..." comes first
            if line == b"attached\n":
                break
        else:
            raise ServerError(f"bpftrace does not attach: {_said(process)}")
        yield calls
        process.stdin.close()
        text = process.stdout.read().decode()
        process.wait(DEADLINE)
    for name, count in re.findall(r"@\[tracepoint:syscalls:sys_enter_(\w+)\]: (\d+)", text):
        calls[_name(name)] += int(count)
    for count in re.findall(r"@all: (\d+)", text):
        calls["all"] = int(count)
    _the_rest(calls)


def _events() -> list[str]:
    """Not every architecture has them all, and to ask for one that is not there is an error."""
    names = [f"sys_enter_{call}" for call in _NAMED.split()]
    return [f"syscalls:{name}" for name in names if (EVENTS / name).is_dir() or not EVENTS.is_dir()]


def _the_rest(calls: Counter[str]) -> None:
    """What has no name here: all calls less the others."""
    everything = calls.pop("all", 0)
    if not everything:
        raise ServerError("nothing was counted")
    calls["others"] = everything - calls.total()
    for call in [call for call in calls if not calls[call]]:
        del calls[call]


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.wait()


def _said(process: subprocess.Popen[bytes]) -> str:
    process.kill()
    assert process.stderr
    return one_line(Exception(process.stderr.read().decode(errors="replace")))[:200]


def _all_descriptors() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@functools.lru_cache(maxsize=None)
def _name(call: str) -> str:
    """As strace calls it, and one name for all of its kind."""
    return SAME.get(call, call)


def _row(one: Flooded) -> list[str]:
    def per_delivery(kind: Sequence[str]) -> str:
        return f"{sum(one.calls[call] for call in kind) / one.deliveries:.3f}"

    kinds = (*WAITS, *READS, *SENDS)
    others = [call for call in one.calls if call not in kinds]
    return [
        one.name,
        str(one.clients),
        *map(per_delivery, (WAITS, READS, SENDS, others)),
        f"{one.calls.total() / one.deliveries:.3f}",
        f"{one.deliveries / one.sends:.2f}",
        ", ".join(f"{call} {count}" for call, count in one.calls.most_common()),
    ]


HEAD = ["server", "N", "waits", "reads", "sends", "besides", "all", "messages per send", "counts"]


def flood_table(found: Sequence[Flooded]) -> str:
    """For the terminal."""
    return aligned([HEAD, *map(_row, found)])


def flood_markdown(found: Sequence[Flooded], tool: str, environment: dict[str, str]) -> str:
    lines = [
        "# System calls per delivery in a flood",
        "",
        f"Up to {SENDERS} of N clients speak, each with 4 messages in flight, and every delivery "
        "is checked. All calls of all threads of the server, divided by the deliveries; messages "
        "per send is deliveries over sends (`sendto`, `write` and their like): 1 where each "
        "message is sent by itself.",
        "",
        f"| {' | '.join(HEAD[:-1])} |",
        "|---" * (len(HEAD) - 1) + "|",
        *(f"| {' | '.join(_row(one)[:-1])} |" for one in found),
        "",
        f"Seen by {tool}. {SLOWER[tool]}".rstrip(),
        "",
        full_sentence(environment),
        "",
    ]
    return "\n".join(lines)
