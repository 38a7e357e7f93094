"""Processes that a test runs beside the servers, or whose end it waits for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process in the folder ROOT that ends together with its test, however that ends."""
    options = {"cwd": ROOT, "stderr": subprocess.PIPE, "text": True, **options}
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def ends(command: list[str], status: int) -> str:
    """What stands on stderr of a process that ends by itself, and says nothing on stdout."""
    with running(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        output, errors = process.communicate(timeout=DEADLINE)
    assert (process.returncode, output) == (status, ""), errors
    return errors


def stat(pid: int) -> list[str]:
    """What follows a process's name in proc_pid_stat(5): first of all its state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


MARK = "SOCK_CHAT_TEST"
"""The variable that a test sets in the environment of what it starts, to see what of it is left."""


def processes(mark: object) -> dict[int, str]:
    """pid and command line of all that have been started under this mark and live."""
    variable, marked = f"{MARK}={mark}".encode(), {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable in (process / "environ").read_bytes().split(b"\0"):
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                marked[int(process.name)] = line.decode(errors="replace")
        except OSError:  # not ours, or it has just ended
            continue
    return marked
