"""What the scripts beside this file share: strace(1) around a server, and a room in lock-step.

strace starts the server as its own child, so it needs no right over processes that run already.
What it writes goes into memory that has no name in any folder: however a script ends, no file and
no process of it is left. Ctrl-C reaches all of them, and when a script is killed outright, strace
hears of it from the kernel and ends the server.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType

from benchmarks.harness.crowd import Crowd, DeliveryError, message
from benchmarks.harness.process import ServerError
from benchmarks.harness.roster import PEERS, PeerError
from benchmarks.harness.server import BROADCASTING, SERVERS, SILENT, Server

NAMES = (*SERVERS, *PEERS)
RESTLESS = ("go", "node", "node --cork")
"""Their run times have threads of their own, which work when they see fit."""
WARM_UP = 10
"""Rounds before those that count: until then an allocator grows and the interpreter specialises."""
APART = 1_000_000
"""Between the numbers of the messages of one crowd and the next, so that each marker is unique."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TIED = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, int(sys.argv[1]))
if os.getppid() == int(sys.argv[2]) or sys.argv[2] == "0":
    os.execvp(sys.argv[3], sys.argv[3:])
"""
"""A program that gets a signal when the process which started it is gone, prctl(2)."""


class TracingError(Exception):
    """Nothing can be traced, or nothing was; the text is one line that says why."""


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def tied(command: Sequence[str]) -> list[str]:
    """`command`, which gets SIGTERM when this process is gone. strace hands it on to the server,
    unless -I 3 is in force, which is what -o implies."""
    us = str(os.getpid())
    return [sys.executable, "-S", "-c", _TIED, str(int(signal.SIGTERM)), us, *command]


@functools.lru_cache(maxsize=None)
def tied_to_wrapper() -> list[str]:
    """What is put before a server so that it does not outlive its wrapper, killed or not."""
    command = ["setpriv", "--pdeathsig", "KILL"]  # util-linux; small, where strace looks on
    with contextlib.suppress(OSError):
        if not subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
            return command
    return [sys.executable, "-S", "-c", _TIED, str(int(signal.SIGKILL)), "0"]


def untraced(name: str, cpu: int | None) -> Server:
    """A server that does not outlive this process, with nobody looking on: beneath timeout(1),
    which has no other work here than to hand SIGTERM on."""
    wrapper = tied([tool("timeout", "coreutils"), "--foreground", "0", *tied_to_wrapper()])
    return Server(name, arguments=quiet(name), wrapper=wrapper, cpu=cpu)


def tool(name: str, package: str) -> str:
    """The path of a program. TracingError: it is not there, and how to get it."""
    path = shutil.which(name)
    if not path:
        raise TracingError(f"{name} is not installed: apt-get install {package}")
    return path


@functools.lru_cache(maxsize=None)
def strace() -> str:
    """The path of strace. TracingError: it is not there, or may not trace its own child."""
    path = tool("strace", "strace")
    tried = subprocess.run(
        [path, "-f", "-qq", "-o", os.devnull, shutil.which("true") or sys.executable],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        said = one_line(Exception(tried.stderr))
        raise TracingError(
            f"strace may not trace its own child ({said}): no other tracer may hold this process, "
            "and a container needs --cap-add=SYS_PTRACE"
        )
    return path


def strace_version() -> str:
    """As it calls itself: "strace -- version 6.1" is "6.1"."""
    said = subprocess.run([strace(), "-V"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0].rpartition(" ")[2]


class Trace:
    """A server under strace, and what strace has written.

    options: of strace, beside `-f -qq`. program: what is put between strace and the server.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str] = (),
        *,
        options: Sequence[str] = ("-s", "32"),
        program: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ):
        self._memory = os.memfd_create("trace")
        output = f"/proc/{os.getpid()}/fd/{self._memory}"
        command = [strace(), "-f", "-qq", "-I", "2", *options, "-o", output]
        command += [*tied_to_wrapper(), *program]
        try:
            self.server = Server(
                name, arguments=arguments, wrapper=tied(command), environment=environment
            )
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.server.__exit__(kind, error, traceback)
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
        self._crowd = Crowd(server.address, clients, broadcasts=self._broadcasts)
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

    def close(self) -> None:
        if self._broadcasts:
            self._crowd.assert_silent()
        self._crowd.close()

    def __enter__(self) -> LockStep:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._crowd.close()


def marker(number: int) -> str:
    """How the message with this number begins."""
    return message(number, 32).decode()[:8]


def failure(server: Server, error: BaseException) -> TracingError:
    """What has gone wrong at a server, with its end, if it has come to that."""
    text = one_line(error)
    if server.process.poll() is None and isinstance(error, (DeliveryError, OSError)):
        with contextlib.suppress(ServerError):  # if it is dying, that is on the way
            server.process.wait(0.5)
    return TracingError(f"{server.name}: {text}")


def quiet(name: str) -> list[str]:
    """--quiet, for those whose broadcast is what counts; v1 and v2 are seen by what they print."""
    return ["--quiet"] if name in BROADCASTING else []


def end_by_signal(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)


def run(program: str, main: Callable[[], int]) -> int:
    """The exit status of a script: 1 and one line for what is not its fault, 130 for Ctrl-C."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, end_by_signal)  # so that `with` gets to end what it has begun
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return main()
    except KeyboardInterrupt:
        print(f"{program}: stopped, nothing is written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains at its end
        return 1
    except (TracingError, ServerError, PeerError, DeliveryError) as error:
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        return 1
    finally:
        end_children()


def end_children() -> None:
    """Whoever is still there has lost its parent before it was known: strace, killed while it
    starts, leaves its child stopped. As run() has made us the subreaper, it is now a child of ours.
    """
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while found := [int(pid) for pid in children.read_text().split()]:
        for pid in found:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[Callable[[str, str], None]]:
    """A function that writes a file there, whole or not at all. TracingError, before anything is
    measured: it cannot. A folder that was made for nothing is removed again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise TracingError(f"cannot write to {folder}: {error.strerror}") from None

    def write(name: str, text: str) -> None:
        fresh = folder / f".{name}.{os.getpid()}"
        try:
            fresh.write_text(text, "utf-8")
            fresh.replace(folder / name)
        except OSError as error:
            raise TracingError(f"cannot write {folder / name}: {error.strerror}") from None
        finally:
            fresh.unlink(missing_ok=True)

    try:
        yield write
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # ENOTEMPTY
                path.rmdir()
