"""strace(1) around a server, and a room in lock-step.

strace starts the server as its own child, so it needs no right over processes that run already.
What it writes goes into memory that has no name in any folder: whatever ends a script, no file of
it is left. When a script is killed outright, strace learns it from the kernel and ends the server.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.harness.crowd import Crowd, DeliveryError, message
from benchmarks.harness.process import ServerError, starter
from benchmarks.harness.roster import LINE_PEERS, PEERS
from benchmarks.harness.server import BROWSERS, SILENT, TLS, Server
from common.script import ProfilingError, one_line, quiet, tool

LOGGING = (*SILENT, "uring", "uring --flush message")
"""Whose log is counted, too: the first two tell nobody else, and of what goes by way of a ring a
trace shows nothing but the log."""
UNSEEN = {
    "c-uring": "a trace does not show what goes by way of its ring, and it keeps no log",
    TLS: "a trace does not show what is encrypted",
    **{
        name: "a trace does not show what is masked"
        for name in (BROWSERS, *PEERS)
        if name not in LINE_PEERS
    },
}
"""Whose rounds cannot be counted, and why."""
RESTLESS = ("go", "node", "node --cork", "v5 --db FILE")
"""Their run times have threads of their own, which work when they see fit; the last one's writes
what several rounds have said."""
WARM_UP = 10
"""Rounds before those that count: until then an allocator grows and the interpreter specialises."""
APART = 1_000_000
"""Between the numbers of the messages of one crowd and the next, so that each marker is unique."""


@functools.lru_cache(maxsize=None)
def strace() -> str:
    """The path of strace. ProfilingError: it is not there, or may not trace its own child."""
    path = tool("strace", "strace")
    tried = subprocess.run(
        [path, "-f", "-qq", "-o", os.devnull, shutil.which("true") or sys.executable],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        raise ProfilingError(
            f"strace may not trace its own child ({one_line(tried.stderr)}): no other tracer may "
            "hold this process, and a container needs --cap-add=SYS_PTRACE"
        )
    return path


def strace_version() -> str:
    """As it calls itself: "strace -- version 6.1" is "6.1"."""
    text = subprocess.run([strace(), "-V"], capture_output=True, text=True, check=False).stdout
    return text.partition("\n")[0].rpartition(" ")[2]


class Trace:
    """A server under strace, and what strace has written.

    options: of strace, beside `-f -qq`. program: what is put between strace and the server.
    logs: whether the server does; by default when nothing else shows what has come in.
    """

    def __init__(
        self,
        name: str,
        *,
        options: Sequence[str] = ("-s", "64"),
        program: Sequence[str] = (),
        logs: bool | None = None,
    ):
        self._memory = os.memfd_create("trace")
        output = f"/proc/{os.getpid()}/fd/{self._memory}"
        # strace hands SIGTERM on to the server, unless -I 3 is in force, which is what -o implies.
        # Its own end, which it cannot hand on when it is killed, the server learns from the kernel.
        command = starter(signum=signal.SIGTERM, parent=os.getpid())
        command += [strace(), "-f", "-qq", "-I", "2", *options, "-o", output]
        command += [*starter(signum=signal.SIGKILL), *program]
        try:
            logs = name in LOGGING if logs is None else logs
            arguments = [] if logs else quiet(name)
            self.server = Server(name, arguments=arguments, wrapper=command)
        except BaseException:
            os.close(self._memory)
            raise

    def read(self) -> str:
        """All of it, once the server has ended."""
        with open(self._memory, encoding="utf-8", errors="replace", closefd=False) as file:
            file.seek(0)
            return file.read()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *error: object) -> None:
        self.server.kill()
        os.close(self._memory)


class LockStep:
    """A crowd of which one client speaks: a message, all that follows from it, the next one.

    What follows is checked. In a room that broadcasts it is that each of the others hears the
    line and nothing else, at v1 and v2 that it stands on stdout. Then every thread of the server
    must sleep again before the next message leaves: else it may find that one before it waits,
    and how often depends on who is faster.
    """

    def __init__(self, server: Server, clients: int, first: int = 0):
        self._server = server
        self._broadcasts = server.name not in SILENT
        how: Any = {"asks": server.asks, "tls": server.tls, "websocket": server.websocket}
        self._crowd = Crowd(server.address, clients, broadcasts=self._broadcasts, **how)
        self.clients = self._crowd.clients
        self._speaker = self.clients[0]
        self._speaker.sent = first
        self._logged = 0
        if not self._broadcasts:
            for client in self.clients:
                server.log.wait(f"Cliente conectado: {client.name}".__eq__)

    def run(self, rounds: int) -> int:
        """Some rounds; the number of the message that begins the first of them."""
        begin = self._speaker.sent
        for _ in range(rounds):
            self._server.wait_until_at_rest()
            if self._broadcasts:
                self._crowd.lock_step(1)  # of several, each would have another speaker
                continue
            line = message(self._speaker.sent, 32)
            self._speaker.sent += 1
            self._speaker.sock.send(line)
            expected = f"{self._speaker.name} dice: {line.decode()}".rstrip("\n")
            self._logged = self._server.log.wait(expected.__eq__, self._logged) + 1
        self._server.wait_until_at_rest()
        return begin

    def __enter__(self) -> LockStep:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        with self._crowd:
            if kind is None and self._broadcasts:
                self._crowd.assert_silent()


def marker(number: int) -> str:
    """How the message with this number begins."""
    return message(number, 32).decode()[:8]


@contextlib.contextmanager
def explained(server: Server) -> Iterator[None]:
    """What goes wrong at a server is a ProfilingError, once the server has ended if it is dying."""
    try:
        yield
    except (DeliveryError, ServerError, OSError, ValueError) as error:
        if server.process.poll() is None and isinstance(error, (DeliveryError, OSError)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(0.5)
        raise ProfilingError(f"{server.name}: {one_line(error)}") from None
