"""Start a server, wait until it is ready, look at it from outside, stop it.

Tests, benchmarks and profiling go through this module, so that "running" and "stopped" mean the
same everywhere. A server is named as in `SERVERS` or as in
`benchmarks.harness.roster.PEERS`, or given as a command line in which `{port}` stands for the port
it shall listen on.

    with Server("v3") as server:
        sock = socket.create_connection(server.address)

What is read about the process comes from proc(5) and from its CPU clock, without its taking part;
only shrink_send_buffer() changes anything about it.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import functools
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import certificate
from benchmarks.harness.broker import Nats
from benchmarks.harness.cpus import pinned
from benchmarks.harness.files import ROOT
from benchmarks.harness.process import (
    DEADLINE,
    Limits,
    Lines,
    ServerError,
    accepts,
    cpu_seconds,
    free_port,
    has_ended,
    starter,
    wait_until,
)
from benchmarks.harness.roster import PEERS

SERVERS: Mapping[str, Sequence[str]] = {
    **{
        name: ("-S", str(ROOT / "stages" / name / "server.py")) for name in ("v1", "v2", "v3", "v4")
    },
    "v5": (
        str(ROOT / "stages" / "v5" / "server.py"),
        "--db",
        ":memory:",
        "--rate",
        "0",
        "--web-port",
        "0",
    ),
    **{
        name: ("-S", "-m", "lowlevel", name) for name in ("selectors", "epoll", "epoll-et", "uring")
    },
    "uvloop": ("-m", "lowlevel", "uvloop"),
    **{
        f"{name} --flush message": ("-S", "-m", "lowlevel", name, "--flush", "message")
        for name in ("selectors", "epoll", "epoll-et", "uring")
    },
    "epoll --looks 0": ("-S", "-m", "lowlevel", "epoll", "--looks", "0"),
}
"""What follows the interpreter on the command line of each server, in the folder ROOT.

-S: no site-packages. Only v5 and uvloop need any, which is proven in passing, and they start
sooner."""

TLS = "v5 --tls-cert FILE"
BROWSERS = "v5 --web-port P"
BUS = "v5 --bus URL"
VARIANTS: Mapping[str, Sequence[str]] = {
    name: (*SERVERS["v5"], "--quiet", *arguments)
    for name, arguments in {
        "v5 --db FILE": ("--db", "{folder}/sock_chat.db"),
        "v5 --rate 1e6": ("--rate", "1e6"),
        "v5 --loop asyncio": ("--loop", "asyncio"),
        TLS: (
            *("--tls-cert", "{folder}/cert.pem", "--tls-key", "{folder}/key.pem"),
            *("--tls-port", "0"),
        ),
        BROWSERS: (),
        BUS: ("--bus", "{bus}"),
    }.items()
}
"""v5 with one feature more, or on another loop, to see what that costs: all are `--quiet`. A
{folder} is one of its own, which is there as long as the server. Nobody speaks so fast that this
rate delays him. At TLS and BROWSERS `address` is where lines over TLS go, and where browsers do. At
BUS a nats-server runs beside it, and ends with it."""

ASKING = ("v5", *VARIANTS)
"""The servers that ask for a nick first: a client is in the room when it has been greeted, and is
heard under its nick. Lines of their own begin with `* `."""

SILENT = ("v1", "v2")
"""The servers that only print what a client says."""
BROADCASTING = tuple(name for name in SERVERS if name not in SILENT)
"""Those that send it to the others."""

_NEEDS = {
    "v5": (
        "import argon2, confusable_homoglyphs, h11, msgspec, precis_i18n, uvloop, websockets",
        "the extra of v5 is not installed: pip install -e '.[chat]'",
    ),
    TLS: (
        "import argon2, confusable_homoglyphs, h11, msgspec, precis_i18n, trustme, uvloop, "
        "websockets",
        "the extra of v5 or trustme is not installed: pip install -e '.[dev]'",
    ),
    "uvloop": ("import uvloop", "uvloop is not installed: pip install uvloop"),
    "uring": ("from lowlevel.uring.ring import Ring; Ring(8)", "no io_uring: "),
}
_SYS_PIDFD_GETFD = 438  # asm-generic/unistd.h; alpha and mips add an offset

READY = re.compile(r"Servidor \S+ iniciado en (\(.+\))")
READY_TLS = re.compile(r"TLS en (\(.+\))")
READY_WEB = re.compile(r"Web en https?://\[?([^/]+?)\]?:(\d+)/")


@functools.lru_cache(maxsize=None)
def missing(name: str, python: str = sys.executable) -> str:
    """Why a server of ours cannot be started here, in one line; "": it can."""
    program, reason = _NEEDS.get(name) or _NEEDS.get(name.split()[0], ("", ""))
    if not program:
        return ""
    done = subprocess.run(
        [python, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    _, unavailable, why = done.stderr.strip().rpartition("Unavailable: ")
    return f"{reason}{why if unavailable else ''}" if done.returncode else ""


class Server:
    """A server process.

    server: a name in SERVERS, VARIANTS or PEERS, or a command line with `{port}`, which is ready
        when it accepts, as a peer is.
    arguments: appended to the command line of a named server; `--port 0` is there already.
    python: the interpreter of a named server.
    limits: resource limits of the process, as for starter().
    tied: it leads a session of its own, and the kernel ends it when this thread is gone.
    wrapper: a command line put before the server's, such as strace's. The server must be its
        only child, which `pid` is then, and it must end when the server does.
    environment: variables added to our own.
    cpu: the one CPU it runs on, all its threads; None: where the kernel likes.
    asks: whether it is like those of ASKING, where it is a command line.

    tls: what a client at `address` goes by; None: it needs no TLS there.
    web: where the page is, and the WebSocket; None: nowhere.
    websocket: whether a client at `address` is a browser.
    """

    tls: ssl.SSLContext | None = None
    web: tuple[str, int] | None = None

    def __init__(
        self,
        server: str,
        *,
        arguments: Sequence[str] = (),
        python: str = sys.executable,
        limits: Limits | None = None,
        tied: bool = False,
        wrapper: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        cpu: int | None = None,
        asks: bool = False,
    ):
        self.name = server
        self.asks = asks or server in ASKING
        self.websocket = PEERS[server].websocket if server in PEERS else server == BROWSERS
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._nats: Nats | None = None
        ours = SERVERS.get(server) or VARIANTS.get(server)
        if ours:
            port = 0
            if any("{folder}" in argument for argument in ours):
                self._folder = tempfile.TemporaryDirectory(prefix="sock_chat-")
                ours = [argument.replace("{folder}", self._folder.name) for argument in ours]
            if "{bus}" in ours:
                self._folder = tempfile.TemporaryDirectory(prefix="sock_chat-")
                self._nats = Nats(Path(self._folder.name)).start()
                ours = [argument.replace("{bus}", self._nats.url) for argument in ours]
            if self._folder and "--tls-cert" in ours:
                self.tls = certificate.issue(Path(self._folder.name))
            command = [python, *ours, "--port", "0", *arguments]
        elif "{port}" in server:
            port = free_port()
            command = shlex.split(server.replace("{port}", str(port)))
        elif server in PEERS:
            port = free_port()
            command = PEERS[server].command(port)
        else:
            known = ", ".join((*SERVERS, *VARIANTS, *PEERS))
            raise ServerError(f"{server!r} is neither one of {known} nor a command with {{port}}")
        if limits:
            command = [*starter(limits=limits), *command]
        command = [*wrapper, *command]
        self._tied = tied
        if tied:
            command = starter(signum=signal.SIGKILL, parent=os.getpid(), session=True) + command
        try:
            with pinned(cpu):
                self.process = subprocess.Popen(
                    command,
                    cwd=ROOT if ours else None,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**os.environ, "PYTHONIOENCODING": "utf-8", **(environment or {})},
                )
        except OSError as error:
            raise ServerError(f"{command[0]} cannot be started: {error.strerror}") from None
        assert self.process.stdout and self.process.stderr
        self.log = Lines(self.process.stdout)
        self.errors = Lines(self.process.stderr)
        try:
            self.address = self._wait_until_ready(port)
            if server == BROWSERS and self.web:
                self.address = self.web
            self.pid = _only_child(self.process.pid) if wrapper else self.process.pid
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, port: int) -> tuple[Any, ...]:
        if port == 0:
            try:
                at = self.log.wait(READY.fullmatch)
                ready = READY.fullmatch(self.log[at])
                for line in self.log.all()[:at]:  # the others are announced before
                    if self.tls:
                        ready = READY_TLS.fullmatch(line) or ready
                    if web := READY_WEB.fullmatch(line):
                        self.web = web[1], int(web[2])
            except ServerError as error:
                raise ServerError(f"{self.name}: {error}; stderr: {self.errors.all()}") from None
            assert ready
            address: tuple[Any, ...] = ast.literal_eval(ready[1])
            return address

        def is_ready() -> bool:
            if self.process.poll() is not None:
                raise ServerError(f"{self.name}: ended at once: {self.errors.rest()[-5:]}")
            return accepts(port)  # a stranger's server says nothing when it is ready

        wait_until(is_ready, f"{self.name}: does not accept on port {port}")
        return ("127.0.0.1", port)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send `signum`, wait until the process has ended, return its exit status."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)
        return self.wait()

    def wait(self) -> int:
        """The exit status. Raises ServerError, and kills, when it is not there in time."""
        if not has_ended(self.process.pid, DEADLINE):
            self.kill()
            raise ServerError(f"{self.name}: still running after {DEADLINE:g} s")
        return self.process.wait()

    def kill(self) -> None:
        """With SIGKILL; a tied one with all that it has started itself."""
        if self._tied and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it does not lead a group yet
                os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.poll() is None and hasattr(self, "pid"):
            os.kill(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._nats:
            self._nats.kill()
        if self._folder:
            self._folder.cleanup()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        if self._tied or self.process.poll() is None:
            self.kill()
        self._remove_folder()

    def cpu_seconds(self) -> float:
        """CPU time of all threads, user and system."""
        return cpu_seconds(self.pid)

    def context_switches(self) -> int:
        """How often its threads gave up or lost the CPU; an idle one's number stands still."""
        return sum(
            int(line.split()[1])
            for status in self._of_threads("status")
            for line in status.splitlines()
            if "ctxt_switches" in line
        )

    def _of_threads(self, file: str) -> Iterator[str]:
        """What proc(5) has in this file about each thread."""
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                yield (task / file).read_text()

    def wait_until_at_rest(self) -> None:
        """Until every thread sleeps and none has run between two looks. ServerError: never.

        A message that has been delivered does not tell that the thread which delivered it waits
        for the next one yet, nor that another has finished with a newcomer.
        """
        before = -1

        def is_at_rest() -> bool:
            nonlocal before
            # The state follows the name, which is in parentheses: proc_pid_stat(5).
            states = {stat.rpartition(")")[2].split()[0] for stat in self._of_threads("stat")}
            last, before = before, self.context_switches()
            return states == {"S"} and last == before

        wait_until(is_at_rest, f"{self.name}: does not come to rest")

    def resident_kib(self) -> int:
        """Resident memory, VmRSS."""
        return self._status("VmRSS")

    def private_kib(self) -> int:
        """Memory that would be free if it ended: pages that it shares with nobody, Private_Clean
        and Private_Dirty of smaps_rollup. Which libraries others use, too, makes no difference."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): +(\d+)", rollup, re.MULTILINE)))

    def threads(self) -> int:
        return self._status("Threads")

    def descriptors(self) -> int:
        """How many descriptors are open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def end_of(self, sock: socket.socket) -> socket.socket | None:
        """A duplicate of the server's end of the connection whose other end is `sock`.

        pidfd_getfd(2) needs the right to trace the server, which a parent usually has. None when
        the process has no such descriptor: a server that is a child of the command we started.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        pidfd = os.pidfd_open(self.pid)
        try:
            for number in map(int, os.listdir(f"/proc/{self.pid}/fd")):
                fd = libc.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
                if fd < 0:
                    continue
                try:
                    candidate = socket.socket(fileno=fd)
                except OSError:  # ENOTSOCK
                    os.close(fd)
                    continue
                with contextlib.suppress(OSError):  # ENOTCONN: the listener
                    if candidate.getpeername() == sock.getsockname():
                        return candidate
                candidate.close()
        finally:
            os.close(pidfd)
        return None

    def shrink_send_buffer(self, sock: socket.socket) -> None:
        """Make the server's send buffer towards `sock` as small as it gets, to see partial sends.

        Loopback takes megabytes before a send is partial, tcp(7). Where the server's end is out
        of reach nothing happens: what is tested holds with any buffer, it only shows less.
        """
        end = self.end_of(sock)
        if end:
            with end:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's minimum

    def _status(self, field: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(rf"^{field}:\s+(\d+)", status, re.MULTILINE)
        assert match, status
        return int(match[1])


def _only_child(pid: int) -> int:
    """The pid of the one child of a wrapper."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if len(children) != 1:
        raise ServerError(f"process {pid} has children {children}, expected one")
    return int(children[0])
