"""Processes that a test runs beside the servers, or whose end it waits for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that ends together with its test, however that ends."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def ends(command: list[str], status: int) -> str:
    """What stands on stderr of a process that ends by itself, and says nothing on stdout."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, ""), done
    return done.stderr
