"""Processes that we start: what they begin with, what they write, when they end.

One starter serves all who need more than a plain Popen: a server under resource limits, a server
or a load that must not outlive the process which measures it, strace, and py-spy, which becomes the
parent of what it looks at.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

DEADLINE = 15.0
"""Seconds within which anything that must happen has happened, on a busy machine too."""

Limits = Mapping[int, tuple[int, int]]


class ServerError(Exception):
    """A server did not start, did not become ready or did not stop; the text says which."""


def starter(
    *,
    signum: int = 0,
    parent: int = 0,
    session: bool = False,
    limits: Limits | None = None,
    watcher: Sequence[str] = (),
    log: str = "",
) -> list[str]:
    """What is put before a command line. The process that begins with it becomes the command.

    signum: the signal that it gets from the kernel when the thread that has started it ends.
    parent: the pid of the starting process, our own as a rule; if that is gone by the time at
        which `signum` is asked for, the command is not run. 0: not known beforehand, as where a
        wrapper such as strace starts the command.
    session: it leads a session and a process group of its own. Ctrl-C on the terminal does not
        reach it, and os.killpg() reaches it with all that it has started.
    limits: resource limits, `{resource.RLIMIT_NOFILE: (soft, hard)}`.
    watcher: the command becomes a child instead, which ends with this process, and on SIGUSR1 this
        process becomes `watcher --pid CHILD`, whose stdout and stderr go to the file `log`. Should
        the child end before, it ends with its status, or with 128 + the number of the signal.
    """
    asked = {
        "signum": signum,
        "parent": parent,
        "session": session,
        "limits": [*(limits or {}).items()],
        "watcher": [*watcher],
        "log": log,
    }
    script = str(Path(__file__).with_name("starter.py"))
    given = json.dumps({name: value for name, value in asked.items() if value})
    return [sys.executable, "-I", "-S", script, given]


class Lines:
    """The lines of a stream, collected by a thread as they come, so that no pipe ever fills."""

    def __init__(self, stream: IO[bytes]):
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._collect, args=(stream,), daemon=True)
        self._thread.start()

    def _collect(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def all(self) -> list[str]:
        """Every line so far."""
        with self._changed:
            return list(self._lines)

    def __getitem__(self, index: int) -> str:
        with self._changed:
            return self._lines[index]

    def wait(self, wanted: Callable[[str], object], start: int = 0) -> int:
        """The index of the first line from `start` on for which `wanted` is true.

        Raises ServerError when none has come within DEADLINE, or none can come any more.
        """
        deadline = time.monotonic() + DEADLINE
        with self._changed:
            while True:
                for index in range(start, len(self._lines)):
                    if wanted(self._lines[index]):
                        return index
                start = max(start, len(self._lines))
                remaining = deadline - time.monotonic()
                if self._ended or remaining <= 0:
                    why = "the stream has ended" if self._ended else f"{DEADLINE:g} s have passed"
                    raise ServerError(f"no such line, and {why}; last: {self._lines[-5:]}")
                self._changed.wait(remaining)

    def rest(self) -> list[str]:
        """Every line, once the stream has ended."""
        self._thread.join(DEADLINE)
        return self.all()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, user and system: its CPU clock.

    The clock's number is made from the pid as in the kernel's MAKE_PROCESS_CPUCLOCK,
    clock_getcpuclockid(3).
    """
    return time.clock_gettime((~pid << 3) | 2)


def wait_until(condition: Callable[[], object], failure: str, pause: float = 0.001) -> None:
    """Look now and then, where nothing could be waited for. ServerError, with this text: the
    condition was not met within DEADLINE."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(failure)
        time.sleep(pause)


def has_ended(pid: int, within: float) -> bool:
    """Wait for a child of ours to end, pidfd_open(2); Popen.wait() would look now and then."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:  # and it has been waited for
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(within * 1000))
    finally:
        os.close(pidfd)


def accepts(port: int) -> bool:
    """Whether something accepts connections on a port of the loopback address."""
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


def free_port() -> int:
    """A port of the loopback address that nothing listens on, for now.

    Below the ephemeral range, ip(7), if there is room: a connection that somebody opens meanwhile
    does not get it.
    """
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = random.randrange(1024, low) if low > 2048 else 0
        with socket.socket() as sock, contextlib.suppress(OSError):  # EADDRINUSE
            sock.bind(("127.0.0.1", port))
            return int(sock.getsockname()[1])
    raise ServerError("there is no free port")


@contextlib.contextmanager
def descriptor_limit_raised() -> Iterator[int]:
    """Our own soft limit on descriptors raised to the hard one, which is yielded."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
