"""Processes that a test runs beside the servers, or whose end it waits for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
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


def wait_until(condition: Callable[[], object], failure: str, pause: float = 0.001) -> None:
    """Look now and then, where nothing could be waited for."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(pause)
