"""Run a server under load and let py-spy look at it: one Recording.

The starter, a process between this one and the server, starts the server as its child and waits;
when the server is warm it becomes py-spy by execve(2). So py-spy is the server's parent, which is
all the right it needs where kernel.yama.ptrace_scope is 1, as it is nearly everywhere, and neither
the start nor the warm-up is in the picture. The server gets SIGKILL from the kernel when its parent
ends, the starter when this process does (PR_SET_PDEATHSIG): nothing outlives us.

py-spy stays on the server's CPU. From another one it has to stop a server that is running, and the
stop takes effect when an interrupt from CPU to CPU has arrived or the server's next system call
ends, whichever comes first; in a virtual machine that is nearly always the system call, which then
seems to be all that the server does. And whether a thread runs is read before it is stopped, so one
that has begun to wait in between is taken for working. On the same CPU the server does not run
while py-spy does: it is seen where it was when it lost the CPU.

py-spy writes its file on SIGINT. SIGTERM would end it without.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.cpus import pinned, two_cpus
from benchmarks.harness.crowd import Crowd, DeliveryError
from benchmarks.harness.process import DEADLINE, ServerError, has_ended
from benchmarks.harness.roster import PeerError
from benchmarks.harness.server import BROADCASTING, SERVERS, Server
from flames.load import Clock, Flood, Ingest
from flames.perf import Perf, perf
from flames.stacks import parse, shares, shortened

WARM_UP = 0.3
"""Seconds of load before py-spy looks."""
ENOUGH = 50
"""Samples; fewer make no picture."""
THREADED = ("v1", "threads")
"""A thread for each client: their shares are not to be trusted, see THREADS_TOLD."""
THREADS_TOLD = (
    "shares not to be trusted: of many threads that hand each other the interpreter, py-spy takes "
    "some that wait for it for working, at the line of their last system call"
)

STARTER = """
import ctypes, os, signal, sys
parent, log, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
spy, server = sys.argv[4:4 + count], sys.argv[4 + count:]
def die_with(parent):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
def exec_or_say(command):
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\\n")
        sys.stderr.flush()
        os._exit(127)
os.setsid()  # Ctrl-C is for the process that began this
die_with(parent)
wanted = {signal.SIGUSR1, signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
own, child = os.getpid(), os.fork()
if not child:
    die_with(own)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
    exec_or_say(server)
if signal.sigwait(wanted) == signal.SIGCHLD:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(128 - status if status < 0 else status)
signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
log = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
os.dup2(log, 1)
os.dup2(log, 2)
exec_or_say([*spy, "--pid", str(child)])
"""


class ProfileError(Exception):
    """There is no recording; the text says why and what to do, in one line."""


@dataclass(frozen=True)
class Plan:
    """What is asked for, the same for every server."""

    spy: str
    clients: int = 50
    duration: float = 5.0
    rate: int = 250
    native: bool = False


@dataclass(frozen=True)
class Recording:
    """server: its name or its command line. stacks: shortened. seconds: how long was looked.
    busy: CPU time over that. queued: time it was ready and had no CPU, over that; None: it has
    several threads. perf: its shares, or why there are none."""

    server: str
    load: str
    stacks: Counter[str]
    seconds: float
    busy: float
    queued: float | None
    messages: int
    errors: int
    perf: dict[str, float] | str

    @property
    def label(self) -> str:
        """Its name; a command line without the folders of this machine."""
        return without_folders(self.server) if "{port}" in self.server else self.server

    @property
    def samples(self) -> int:
        return sum(self.stacks.values())

    @property
    def warnings(self) -> list[str]:
        """What a reader has to know before believing the picture."""
        found = []
        if self.server in THREADED:
            found.append(THREADS_TOLD)
        used = f"it used {self.busy:.0%} of a CPU"
        if self.busy < 0.6 and self.queued is None:
            found.append(
                f"{used}; whether it waited for its load, or py-spy and others had the CPU, "
                "cannot be told of several threads"
            )
        elif self.busy + (self.queued or 0) < 0.6:
            found.append(f"not saturated: {used} and mostly waited for its load")
        elif self.busy < 0.6:
            found.append(
                f"{used} and was ready for {self.queued:.0%} of the time without getting it: "
                "py-spy and other processes had it"
            )
        if self.errors > self.samples / 50:
            found.append(f"py-spy could not read {self.errors} more samples")
        return found

    def shares(self) -> dict[str, float]:
        return shares(self.stacks)


def without_folders(command: str) -> str:
    return " ".join(word.rpartition("/")[2] for word in shlex.split(command))


def py_spy() -> str:
    """The program: on PATH, or beside our interpreter. ProfileError: it is not there."""
    found = shutil.which("py-spy") or shutil.which(Path(sys.executable).parent / "py-spy")
    if not found:
        raise ProfileError("py-spy is not installed: pip install -e '.[profiling]'")
    return found


def version_of(spy: str) -> str:
    """As it says itself: "py-spy 0.4.1"."""
    try:
        done = subprocess.run([spy, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ProfileError(f"py-spy cannot be started: {error.strerror}") from None
    return done.stdout.strip() or "py-spy"


def record(name: str, plan: Plan, folder: Path) -> Recording:
    """`folder` is ours and empty at the beginning; what it holds at the end is nobody's."""
    log, raw = folder / "py-spy.log", folder / "raw"
    spy = [plan.spy, "record", "--format", "raw", "--output", str(raw), "--full-filenames"]
    spy += ["--rate", str(plan.rate)] + (["--native"] if plan.native else [])
    with ExitStack() as stack:
        cpu, load_cpu = two_cpus()
        stack.enter_context(pinned(load_cpu))
        starter = [sys.executable, "-S", "-c", STARTER, str(os.getpid()), str(log)]
        try:
            server = Server(
                name,
                arguments=["--quiet"] if name in BROADCASTING else [],
                wrapper=[*starter, str(len(spy)), *spy],
                cpu=cpu,
            )
        except (ServerError, PeerError) as error:
            raise ProfileError(f"{name} cannot be profiled: {_line(str(error))}") from None
        pidfd = os.pidfd_open(server.pid)
        stack.callback(os.close, pidfd)
        stack.callback(_end, server, pidfd)
        silent = name in SERVERS and name not in BROADCASTING
        looking = perf()
        try:
            crowd = stack.enter_context(Crowd(server.address, plan.clients, broadcasts=not silent))
            load = Ingest(crowd) if silent else Flood(crowd)
            load.run(_after(WARM_UP, server))
            os.kill(server.process.pid, signal.SIGUSR1)
            load.run(_sampling(server, log))
            watcher = Perf(looking, server.pid, plan.rate, folder) if looking else None
            if watcher:
                stack.callback(watcher.kill)
            clock = Clock(server)
            messages = load.run(_after(plan.duration, server))
            clock.stop()
        except (OSError, DeliveryError) as error:
            raise ProfileError(f"{name}: {_obituary(server, pidfd, log, error)}") from None
        if watcher:
            watcher.interrupt()
        stacks = _stop(name, server, log, raw)
        if watcher:
            watcher.wait()
    errors = re.search(r"Errors: (\d+)", _text(log))
    return Recording(
        server=name,
        load=load.words,
        stacks=stacks,
        seconds=clock.seconds,
        busy=clock.cpu / clock.seconds,
        queued=None if clock.queued is None else clock.queued / clock.seconds,
        messages=messages,
        errors=int(errors[1]) if errors else 0,
        perf=watcher.shares() if watcher else "perf is not installed (apt-get install linux-perf)",
    )


def _after(seconds: float, server: Server) -> Callable[[], bool]:
    until = time.monotonic() + seconds

    def done() -> bool:
        if has_ended(server.process.pid, 0):
            raise DeliveryError("its parent has ended")
        return time.monotonic() >= until

    return done


def _sampling(server: Server, log: Path) -> Callable[[], bool]:
    """py-spy has read the server's symbols and begins; with --native these are many."""
    late = _after(4 * DEADLINE, server)

    def done() -> bool:
        if "Sampling process" in _text(log):
            return True
        if late():
            raise DeliveryError(f"py-spy did not begin within {4 * DEADLINE:g} s")
        return False

    return done


def _stop(name: str, server: Server, log: Path, raw: Path) -> Counter[str]:
    """The stacks, once py-spy has written them. ProfileError: it has not, or too few."""
    os.kill(server.process.pid, signal.SIGINT)
    if not has_ended(server.process.pid, 2 * DEADLINE):
        raise ProfileError(f"{name}: py-spy did not end within {2 * DEADLINE:g} s")
    try:
        stacks = shortened(parse(raw.read_text("utf-8")))
    except FileNotFoundError:
        stacks = Counter()
    except ValueError as error:
        raise ProfileError(f"{name}: py-spy wrote something else: {error}") from None
    samples = sum(stacks.values())
    if samples < ENOUGH:
        trouble = _trouble(_text(log))
        raise ProfileError(
            f"{name}: {trouble}"
            if trouble
            else f"{name}: {samples} samples are too few for a picture, {ENOUGH} are needed: take "
            "a longer --duration or a higher --rate"
        )
    return stacks


def _end(server: Server, pidfd: int) -> None:
    """All that the starter has begun, whoever of them lives. It keeps the group's number until it
    is waited for, so that no stranger can have it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    _has_ended(pidfd, DEADLINE)


def _has_ended(pidfd: int, within: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(within * 1000))


def _obituary(server: Server, pidfd: int, log: Path, error: Exception) -> str:
    """Who ended first: py-spy, which takes the server with it, or the server."""
    ended = has_ended(server.process.pid, 0.5)
    trouble = _trouble(_text(log))
    if ended and trouble:
        return trouble
    if _has_ended(pidfd, 0.5):
        last = "; ".join(server.errors.all()[-3:])
        return f"the server died under load{f': {last}' if last else ''}"
    return str(error)


def _trouble(said: str) -> str:
    """What py-spy complains about, in one line; "" when it does not."""
    if re.search(r"Permission [Dd]enied|[Oo]peration not permitted|EPERM", said):
        return (
            "py-spy may not trace the server, its own child (EPERM): kernel.yama.ptrace_scope must "
            "be 0 or 1, a container needs --cap-add=SYS_PTRACE"
        )
    if "Check that the process is running" in said or "No such process" in said:
        return ""  # the server has ended, and that is the trouble
    if "Failed to find python version" in said:
        return "py-spy finds no Python in it"
    found = re.search(r"^Error: (.+)|^(.+cannot be started: .+)", said, re.MULTILINE)
    return f"py-spy: {found[1] or found[2]}" if found else ""


def _text(log: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return log.read_text(errors="replace")
    return ""


def _line(text: str) -> str:
    return " ".join(text.split())
