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
import json
import os
import re
import resource
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from benchmarks.harness.roster import PEERS

ROOT = Path(__file__).resolve().parents[2]
SERVERS: Mapping[str, Sequence[str]] = {
    **{
        name: ("-S", str(ROOT / "stages" / name / "server.py")) for name in ("v1", "v2", "v3", "v4")
    },
    **{name: ("-S", "-m", "lowlevel", name) for name in ("selectors", "epoll", "epoll-et", "uring")},
    "uvloop": ("-m", "lowlevel", "uvloop"),
    **{
        f"{name} --flush message": ("-S", "-m", "lowlevel", name, "--flush", "message")
        for name in ("selectors", "epoll", "epoll-et", "uring")
    },
}
"""What follows the interpreter on the command line of each server, in the folder ROOT.

-S: no site-packages. Only uvloop needs any, which is proven in passing, and they start sooner."""

SILENT = ("v1", "v2")
"""The servers that only print what a client says."""
BROADCASTING = tuple(name for name in SERVERS if name not in SILENT)
"""Those that send it to the others."""

_SYS_PIDFD_GETFD = 438  # asm-generic/unistd.h; alpha and mips add an offset

READY = re.compile(r"Servidor \S+ iniciado en (\(.+\))")
DEADLINE = 15.0
"""Seconds within which anything that must happen has happened, on a busy machine too."""

_SET_LIMITS = """
import json, os, resource, sys
for number, limits in json.loads(sys.argv[1]):
    resource.setrlimit(number, limits)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def limited(command: Sequence[str], limits: Mapping[int, tuple[int, int]]) -> list[str]:
    """`command` under resource limits, `{resource.RLIMIT_NOFILE: (soft, hard)}`."""
    return [sys.executable, "-S", "-c", _SET_LIMITS, json.dumps([*limits.items()]), *command]


class ServerError(Exception):
    """A server did not start, did not become ready or did not stop; the text says which."""


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


class Server:
    """A server process.

    server: a name in SERVERS or PEERS, or a command line with `{port}`, which is ready when it
        accepts, as a peer is.
    arguments: appended to the command line of a named server; `--port 0` is there already.
    python: the interpreter of a named server.
    limits: resource limits of the process, as for `limited`.
    wrapper: a command line put before the server's, such as strace's. The server must be its
        only child, which `pid` is then, and it must end when the server does.
    environment: variables added to our own.
    cpu: the one CPU it runs on, all its threads; None: where the kernel likes.
    """

    def __init__(
        self,
        server: str,
        *,
        arguments: Sequence[str] = (),
        python: str = sys.executable,
        limits: Mapping[int, tuple[int, int]] | None = None,
        wrapper: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        cpu: int | None = None,
    ):
        self.name = server
        if server in SERVERS:
            port = 0
            command = [python, *SERVERS[server], "--port", "0", *arguments]
        elif "{port}" in server:
            port = free_port()
            command = shlex.split(server.replace("{port}", str(port)))
        elif server in PEERS:
            port = free_port()
            missing = PEERS[server].missing()
            if missing:
                raise ServerError(missing)
            command = PEERS[server].command(port)
        else:
            known = ", ".join((*SERVERS, *PEERS))
            raise ServerError(f"{server!r} is neither one of {known} nor a command with {{port}}")
        if limits:
            command = limited(command, limits)
        try:
            with pinned(cpu):
                self.process = subprocess.Popen(
                    [*wrapper, *command],
                    cwd=ROOT if server in SERVERS else None,
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
            self.pid = _only_child(self.process.pid) if wrapper else self.process.pid
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, port: int) -> tuple[Any, ...]:
        if port == 0:
            try:
                ready = READY.fullmatch(self.log[self.log.wait(READY.fullmatch)])
            except ServerError as error:
                raise ServerError(f"{self.name}: {error}; stderr: {self.errors.all()}") from None
            assert ready
            address: tuple[Any, ...] = ast.literal_eval(ready[1])
            return address
        deadline = time.monotonic() + DEADLINE
        while True:
            if accepts(port):
                return ("127.0.0.1", port)
            if self.process.poll() is not None:
                raise ServerError(f"{self.name}: ended at once: {self.errors.rest()[-5:]}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name}: does not accept on port {port}")
            time.sleep(0.02)  # a stranger's server says nothing when it is ready

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
        if self.process.poll() is None and hasattr(self, "pid"):
            os.kill(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.kill()

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
        deadline = time.monotonic() + DEADLINE
        before = -1
        while True:
            # The state follows the name, which is in parentheses: proc_pid_stat(5).
            states = {stat.rpartition(")")[2].split()[0] for stat in self._of_threads("stat")}
            now = self.context_switches()
            if states == {"S"} and now == before:
                return
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name}: does not come to rest; states {states}")
            before = now
            time.sleep(0.001)

    def resident_kib(self) -> int:
        """Resident memory, VmRSS."""
        return self._status("VmRSS")

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
        found = re.search(rf"^{field}:\s+(\d+)", status, re.MULTILINE)
        assert found, status
        return int(found[1])


def _only_child(pid: int) -> int:
    """The pid of the one child of a wrapper."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if len(children) != 1:
        raise ServerError(f"process {pid} has children {children}, expected one")
    return int(children[0])


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, user and system: its CPU clock.

    The clock's number is made from the pid as in the kernel's MAKE_PROCESS_CPUCLOCK,
    clock_getcpuclockid(3).
    """
    return time.clock_gettime((~pid << 3) | 2)


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
    """A port of the loopback address that nothing listens on, for now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def two_cpus() -> tuple[int | None, int | None]:
    """One CPU for the server and one for its load; (None, None) where there are not two."""
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[0], cpus[1]) if len(cpus) > 1 else (None, None)


@contextlib.contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """This thread, and whatever it starts meanwhile, on one CPU; None: nothing changes."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def descriptor_limit_raised() -> Iterator[int]:
    """Our own soft limit on descriptors raised to the hard one, which is yielded."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
