"""Run a server under load and let py-spy look at it: one Recording.

The starter, a process between this one and the server, starts the server as its child and waits;
when the server is warm it becomes py-spy by execve(2). So py-spy is the server's parent, which is
all the right it needs where kernel.yama.ptrace_scope is 1, as it is nearly everywhere, and neither
the start nor the warm-up is in the picture. The kernel ends the server when its parent ends, and
the parent when this process does: nothing outlives us.

py-spy stays on the server's CPU. From another one it has to stop a server that is running, and the
stop takes effect when an interrupt from CPU to CPU has arrived or the server's next system call
ends, whichever comes first; in a virtual machine that is nearly always the system call, which then
seems to be all that the server does. And whether a thread runs is read before it is stopped, so one
that has begun to wait in between is taken for working. On the same CPU the server does not run
while py-spy does: it is seen where it was when it lost the CPU.

py-spy writes its file on SIGINT. SIGTERM would end it without.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.cpus import pinned, two_cpus
from benchmarks.harness.crowd import DeliveryError
from benchmarks.harness.flood import Load, flood
from benchmarks.harness.process import DEADLINE, ServerError, has_ended, starter
from benchmarks.harness.server import SILENT, Server
from common.script import ProfilingError, one_line, quiet, without_folders
from flames.load import SENDERS, Ingest, clocks
from flames.perf import Perf, Seen
from flames.stacks import parse_stacks, shares, shortened

WARM_UP = 0.3
"""Seconds of load before py-spy looks."""
IN_FLIGHT = 8
"""Messages of each sender of a flood."""
ENOUGH = 50
"""Samples; fewer make no picture."""
THREADED = ("v1", "threads")
"""A thread for each client: py-spy's shares of them are not to be trusted."""


@dataclass(frozen=True)
class Recording:
    """server: its name or its command line. stacks: shortened. seconds: how long was looked.
    busy: CPU time over that. queued: time it was ready and had no CPU, over that; None: it has
    several threads. perf: what that has seen of each call, or why there is nothing."""

    server: str
    load: str
    stacks: Counter[str]
    seconds: float
    busy: float
    queued: float | None
    messages: int
    errors: int
    perf: dict[str, Seen] | str

    @property
    def label(self) -> str:
        """Its name, or its command line without the folders of this machine."""
        return without_folders(self.server)

    @property
    def samples(self) -> int:
        return sum(self.stacks.values())

    @property
    def warnings(self) -> list[str]:
        """What a reader has to know before believing the picture."""
        warnings = []
        if self.server in THREADED:
            warnings.append(
                "shares not to be trusted: of many threads that hand each other the interpreter, "
                "py-spy takes some that wait for it for working, at the line of their last system "
                "call"
            )
        used = f"it used {self.busy:.0%} of a CPU"
        if self.busy < 0.6 and self.queued is None:
            warnings.append(f"{used}; of several threads it cannot be told why not more")
        elif self.busy + (self.queued or 0) < 0.6:
            warnings.append(f"not saturated: {used} and mostly waited for its load")
        elif self.busy < 0.6:
            warnings.append(
                f"{used} and was ready for {self.queued:.0%} of the time without getting it: "
                "py-spy and other processes had it"
            )
        if self.errors > self.samples / 50:
            warnings.append(f"py-spy could not read {self.errors} more samples")
        return warnings

    @property
    def summary(self) -> str:
        queued = f", waited for a CPU {self.queued:.0%}" if self.queued else ""
        return f"{self.samples:,} samples in {self.seconds:.1f} s, busy {self.busy:.0%}{queued}"

    def shares(self) -> dict[str, float]:
        return shares(self.stacks)


def py_spy() -> str:
    """The program: on PATH, or beside our interpreter. ProfilingError: it is not there."""
    path = shutil.which("py-spy") or shutil.which(str(Path(sys.executable).with_name("py-spy")))
    if not path:
        raise ProfilingError("py-spy is not installed: pip install -e '.[profiling]'")
    return path


def version_of(spy: str) -> str:
    """As it calls itself: "py-spy 0.4.1"."""
    done = subprocess.run([spy, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "py-spy"


def record(name: str, spy: str, args: argparse.Namespace, folder: Path) -> Recording:
    """args: clients, duration, rate and native, the same for every server. `folder` is ours and
    empty at the beginning; what it holds at the end is nobody's."""
    log, raw = folder / "py-spy.log", folder / "raw"
    watcher = [spy, "record", "--format", "raw", "--output", str(raw), "--full-filenames"]
    watcher += ["--rate", str(args.rate)] + ["--native"] * args.native
    with ExitStack() as stack:
        cpu, load_cpu = two_cpus()
        stack.enter_context(pinned(load_cpu))
        wrapper = starter(watcher=watcher, log=str(log))
        try:
            server = Server(name, arguments=quiet(name), tied=True, wrapper=wrapper, cpu=cpu)
        except ServerError as error:
            raise ProfilingError(f"{name} cannot be profiled: {one_line(error)}") from None
        stack.enter_context(server)
        try:
            load: Ingest | Load = (
                Ingest(server, args.clients)
                if name in SILENT
                else flood(server, args.clients, SENDERS, in_flight=IN_FLIGHT, cpu=load_cpu)
            )
            stack.enter_context(load)
            load.run_until(_after(WARM_UP, server))
            os.kill(server.process.pid, signal.SIGUSR1)
            load.run_until(_sampling(server, log))
            perf = stack.enter_context(Perf(server.pid, args.rate, folder))
            begin = clocks(server)
            taken = load.run_until(_after(args.duration, server))
            seconds, cpu_seconds, queued = (b - a for a, b in zip(begin, clocks(server)))
        except (OSError, DeliveryError) as error:
            raise ProfilingError(f"{name}: {_obituary(server, log, error)}") from None
        perf.interrupt()
        stacks = _stop(name, server, log, raw)
        seen = perf.shares()
    errors = re.search(r"Errors: (\d+)", _text(log))
    return Recording(
        server=name,
        load=load.words,
        stacks=stacks,
        seconds=seconds,
        busy=cpu_seconds / seconds,
        queued=None if math.isnan(queued) else queued / seconds,
        messages=taken if isinstance(taken, int) else taken.deliveries // (args.clients - 1),
        errors=int(errors[1]) if errors else 0,
        perf=seen,
    )


def _after(seconds: float, server: Server) -> Callable[[], bool]:
    """To be asked in short ticks. DeliveryError: the server, or py-spy, has come to its end."""
    until = time.monotonic() + seconds

    def done() -> bool:
        if has_ended(server.process.pid, 0):
            raise DeliveryError("its parent has ended")
        if is_killed(server.pid):
            raise DeliveryError("it has been killed")
        return time.monotonic() >= until

    return done


def is_killed(pid: int) -> bool:
    """Whether a process has ended, or SIGKILL is pending for it while a tracer holds it.

    A tracer that has asked for PTRACE_O_TRACEEXIT stops a killed process on its way out until it is
    waited for, ptrace(2). py-spy between PTRACE_SEIZE and its wait does so: the sockets stay open,
    nobody hears a thing, and a pidfd keeps silent.
    """
    alive = False
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            status = dict(re.findall(r"^(\w+):\s+(\S+)", (thread / "status").read_text(), re.M))
            pending = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)
            if int(status["TracerPid"]) and pending & 1 << signal.SIGKILL - 1:
                return True
            alive = alive or status["State"] not in "ZX"
    return not alive


def _sampling(server: Server, log: Path) -> Callable[[], bool]:
    """py-spy has read the server's symbols and begins; with --native these are many."""
    late = _after(4 * DEADLINE, server)

    def done() -> bool:
        if late():
            raise DeliveryError(f"py-spy did not begin within {4 * DEADLINE:g} s")
        return "Sampling process" in _text(log)

    return done


def _stop(name: str, server: Server, log: Path, raw: Path) -> Counter[str]:
    """The stacks, once py-spy has written them. ProfilingError: it has not, or too few."""
    os.kill(server.process.pid, signal.SIGINT)
    if not has_ended(server.process.pid, 2 * DEADLINE):
        raise ProfilingError(f"{name}: py-spy did not end within {2 * DEADLINE:g} s")
    stacks = shortened(parse_stacks(_text(raw)))
    if sum(stacks.values()) < ENOUGH:
        few = (
            f"{sum(stacks.values())} samples are too few for a picture, {ENOUGH} are needed: take "
            "a longer --duration or a higher --rate"
        )
        raise ProfilingError(f"{name}: {_trouble(_text(log)) or few}")
    return stacks


def _obituary(server: Server, log: Path, error: Exception) -> str:
    """Who ended first: py-spy, which takes the server with it, or the server."""
    ended = has_ended(server.process.pid, 0.5)
    trouble = _trouble(_text(log))
    if ended and trouble:
        return trouble
    deadline = time.monotonic() + 0.5
    while not is_killed(server.pid):
        if time.monotonic() > deadline:
            return str(error)
        time.sleep(0.01)
    last = "; ".join(server.errors.all()[-3:])
    return f"the server died under load{f': {last}' if last else ''}"


def _trouble(log: str) -> str:
    """What py-spy complains about, in one line; "" when it does not."""
    if re.search(r"Permission [Dd]enied|[Oo]peration not permitted|EPERM", log):
        return (
            "py-spy may not trace the server, its own child (EPERM): kernel.yama.ptrace_scope must "
            "be 0 or 1, a container needs --cap-add=SYS_PTRACE"
        )
    if "Check that the process is running" in log or "No such process" in log:
        return ""  # the server has ended, and that is the trouble
    if "Failed to find python version" in log:
        return "py-spy finds no Python in it"
    match = re.search(r"^Error: (.+)|^(.+cannot be started: .+)", log, re.MULTILINE)
    return f"py-spy: {match[1] or match[2]}" if match else ""


def _text(file: Path) -> str:
    """Of a file that py-spy may not have written."""
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
