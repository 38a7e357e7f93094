"""What perf(1) says beside py-spy, where it is there and may look into the kernel.

perf takes a sample when the CPU clock of the process has gone on, so a server that waits gives
none; py-spy looks at the wall clock's pace, asks whether a thread runs, and then stops it, which
comes too late for a thread that has fallen asleep in between.

A sample is within a call when the function of the C library that makes it is in the stack, the rule
of stacks.py, or the kernel's function for it. The stacks of user space are unwound from a copy of
16 KiB of each (--call-graph dwarf), as Python is mostly built without frame pointers.

perf_event_open(2): samples from inside the kernel need kernel.perf_event_paranoid at 1 or less, or
CAP_PERFMON, and names for them kernel.kptr_restrict at 0.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness.process import DEADLINE, has_ended, starter
from flames.stacks import CALLS

_LOG = re.compile(r"(?:anon_|fifo_)?pipe_write|(?:file_)?tty_write")
"""The kernel's functions by which a write is one to stdout."""
_KERNELS = {
    "send": re.compile(r"_+sys_send(?:to|msg)|sock_write_iter"),
    "recv": re.compile(r"_+sys_recv(?:from|msg)|sock_read_iter"),
    "wait": re.compile(r"do_epoll_wait|core_sys_select|do_sys_poll|do_select"),
}
_AROUND = {
    "send": re.compile(r"sock_send.*|__pyx_\w*UVStream\w*write"),
    "recv": re.compile(r"sock_recv.*"),
    "wait": re.compile(r"select_(?:select|poll|epoll).*"),
    "log": re.compile(r"os_write.*|_Py_write.*"),
}
"""The C functions of Python, or of uvloop, for these calls."""
_KERNEL = re.compile(r"^\s*f{4}[0-9a-f]{12} (?!\[unknown\])", re.MULTILINE)


class Seen(NamedTuple):
    """Of the CPU time: what part was in a call, and what part in the C function around it."""

    call: float
    around: float


class Perf(ExitStack):
    """perf record on a process, from now until interrupt(), where perf is there."""

    def __init__(self, pid: int, rate: int, folder: Path):
        super().__init__()
        self._data = folder / "perf.data"
        self._process = None
        if shutil.which("perf"):
            command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(rate), "-B", "-N"]
            command += ["--call-graph", "dwarf,16384", "-p", str(pid), "-o", str(self._data)]
            self._process = self.enter_context(
                subprocess.Popen(
                    starter(signum=signal.SIGKILL, parent=os.getpid(), session=True) + command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            self.callback(self._process.kill)

    def interrupt(self) -> None:
        """It writes its file on SIGINT, and not on SIGKILL."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def shares(self) -> dict[str, Seen] | str:
        """Once it has been interrupted. A text says why there are none."""
        if not self._process:
            return "perf is not installed (apt-get install linux-perf)"
        has_ended(self._process.pid, DEADLINE)
        self.close()
        done = subprocess.run(
            ["perf", "script", "-i", str(self._data), "-F", "ip,sym", "--no-inline"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode:
            return "perf recorded nothing (kernel.perf_event_paranoid, CAP_PERFMON)"
        return shares(done.stdout)


def shares(script: str) -> dict[str, Seen] | str:
    """What `perf script -F ip,sym` printed, taken apart."""
    stacks = [stack for stack in script.split("\n\n") if stack.strip()]
    if not stacks:
        return "perf saw no sample"
    if not _KERNEL.search(script):
        return (
            "perf may not look into the kernel (sudo sysctl kernel.perf_event_paranoid=1 "
            "kernel.kptr_restrict=0)"
        )
    calls: Counter[str] = Counter()
    around: Counter[str] = Counter()
    for stack in stacks:
        names = {
            line.split(None, 1)[-1].partition("@")[0] for line in stack.splitlines() if line.strip()
        }
        inside = _among(names, CALLS) or _among(names, _KERNELS)
        outside = _among(names, _AROUND)
        if inside:
            is_log = outside == "log" or any(map(_LOG.fullmatch, names))
            calls["log" if is_log else inside] += 1
        elif outside:
            around[outside] += 1
    return {name: Seen(calls[name] / len(stacks), around[name] / len(stacks)) for name in _AROUND}


def _among(names: Iterable[str], patterns: Mapping[str, re.Pattern[str]]) -> str | None:
    return next((c for c, pattern in patterns.items() if any(map(pattern.fullmatch, names))), None)
