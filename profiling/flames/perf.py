"""What perf(1) says beside py-spy, where it is there and may look into the kernel.

perf takes a sample when the CPU clock of the process has gone on, so a server that waits gives
none; py-spy looks at the wall clock's pace, asks whether a thread runs, and then stops it, which
comes too late for a thread that has fallen asleep in between. Where both agree, the picture is
right. perf tells a system call by the kernel's functions; py-spy without --native tells it by the
line of Python, so what the interpreter does on that line is in its share and not in perf's.

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
from pathlib import Path

from benchmarks.harness.process import DEADLINE, has_ended

SHOWN = ("send", "recv", "wait", "log")
"""What perf can tell; all else is the interpreter, and the kernel's work beside these calls."""

_SYSTEM_CALLS = (
    ("log", re.compile(r"pipe_write|tty_write|file_tty_write")),
    ("send", re.compile(r"\b(?:__sys_sendto|___sys_sendmsg|__sys_sendmsg|sock_write_iter)\b")),
    ("recv", re.compile(r"\b(?:__sys_recvfrom|___sys_recvmsg|__sys_recvmsg|sock_read_iter)\b")),
    ("wait", re.compile(r"\b(?:do_epoll_wait|core_sys_select|do_sys_poll|do_select)\b")),
)
_KERNEL = re.compile(r"^\s*f{4}[0-9a-f]{12} (?!\[unknown\])", re.MULTILINE)


class Perf:
    """perf record on a process, from now until interrupt()."""

    def __init__(self, program: str, pid: int, rate: int, folder: Path):
        self._program, self._data = program, folder / "perf.data"
        command = [program, "record", "-q", "-e", "cpu-clock", "-F", str(rate), "-g", "-B", "-N"]
        self._process = subprocess.Popen(
            [*command, "-p", str(pid), "-o", str(self._data)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def interrupt(self) -> None:
        """It writes its file on SIGINT, and not on SIGKILL."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGINT)

    def wait(self) -> None:
        """Until it has written its file."""
        if not has_ended(self._process.pid, DEADLINE):
            self.kill()
        self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def shares(self) -> dict[str, float] | str:
        """What part of the CPU time was in each of SHOWN; a text says why this cannot be told."""
        done = subprocess.run(
            [self._program, "script", "-i", str(self._data), "-F", "ip,sym"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode:
            return "perf recorded nothing (kernel.perf_event_paranoid, CAP_PERFMON)"
        return shares(done.stdout)


def perf() -> str | None:
    """The program, if it is there."""
    return shutil.which("perf")


def shares(script: str) -> dict[str, float] | str:
    """What `perf script -F ip,sym` printed, taken apart."""
    stacks = [stack for stack in script.split("\n\n") if stack.strip()]
    if not stacks:
        return "perf saw no sample"
    if not _KERNEL.search(script):
        return (
            "perf may not look into the kernel (sudo sysctl kernel.perf_event_paranoid=1 "
            "kernel.kptr_restrict=0)"
        )
    found: Counter[str] = Counter()
    for stack in stacks:
        for name, pattern in _SYSTEM_CALLS:
            if pattern.search(stack):
                found[name] += 1
                break
    return {name: found[name] / len(stacks) for name in SHOWN}
