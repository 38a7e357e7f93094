"""The contract of stages/README.md as far as the server's process shows it: its command line,
its log, its standard streams, and how it ends."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE, accepts, starter, wait_until
from benchmarks.harness.server import BROADCASTING, SERVERS, Server
from tests.conftest import Start, Strace, one_of_each
from tests.support.needed import needed_in_ci
from tests.support.run import ends, running
from tests.support.wire import (
    Flood,
    Peer,
    Room,
    come_in,
    logging_into_a_pipe,
    padded,
    stopped,
)

STOP_WITHIN = 2.0
"""Seconds from SIGINT or SIGTERM to the end of the process (the contract)."""

KINDS = {"v1": "thread-per-client", "v2": "select", "v3": "select+broadcast", "v4": "asyncio"}
"""What the ready line calls those that it does not call by their name."""


def ready_line(name: str, address: object) -> str:
    return f"Servidor {KINDS.get(name, name.split()[0])} iniciado en {address}"


# The command line, and what is printed.


@one_of_each
def test_ready_line_of_the_default_address_is_the_documented_one(name: str, python: str) -> None:
    """`cd stages/v4 && python server.py`, with nothing else: port 8080."""
    stage = ROOT / "stages" / name
    with open(f"{tempfile.gettempdir()}/sock_chat.8080", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # against tests that run at the same time
        if accepts(8080):
            needed_in_ci("port 8080 is taken")
        command = [python, *(("server.py",) if stage.is_dir() else SERVERS[name])]
        folder = stage if stage.is_dir() else ROOT
        with running(command, cwd=folder, stdout=subprocess.PIPE) as process:
            assert process.stdout
            line = process.stdout.readline()
            process.terminate()
            rest, errors = process.communicate(timeout=DEADLINE)
    assert line == ready_line(name, ("127.0.0.1", 8080)) + "\n", errors
    assert (process.returncode, rest, errors) == (0, "", "")


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_host(start: Start, host: str) -> None:
    """IPv6, and a name: of several addresses the first."""
    server = start("--host", host)
    assert server.address[0] == socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][4][0]
    room = Room(server)
    ana, _bea = room.join(), room.join()
    room.say(ana, "seis")


def test_log_lines(room: Room, name: str) -> None:
    ana = room.join()
    room.say(ana, "hola")
    ana.close()
    room.gone(ana)
    assert room.server.log.all() == [
        ready_line(name, ("127.0.0.1", room.server.address[1])),
        f"Cliente conectado: {ana.name}",
        f"{ana.name} dice: hola",
        f"Cliente desconectado: {ana.name}",
    ]


def test_log_escapes_what_a_terminal_would_obey(room: Room) -> None:
    """What Python calls not printable: categories C* and Z* but for the space, and nothing else."""
    ana = room.join(listens=False)
    log = room.server.log
    cases = {
        "\x1b[31mrojo\x07\x00\t\x9b\x7f": r"\x1b[31mrojo\x07\x00\t\x9b\x7f",
        "\u202eabc\u200b\u2028\u2029\ufeff": r"\u202eabc\u200b\u2028\u2029\ufeff",
        "\U000e0001\ue000\U0010ffff": r"\U000e0001\ue000\U0010ffff",
        "a\rb": r"a\rb",
        "\u3000\xa0": r"\u3000\xa0",
        "ñ€𝄞 \\'\".": "ñ€𝄞 \\'\".",
    }
    for text, logged in cases.items():
        ana.say(text)
        log.wait(f"{ana.name} dice: {logged}".__eq__)
    ana.send(b"two\r\r\n\xff\xfd\x01\xff\xfb\x1f\r\n")  # telnet's IAC: no UTF-8
    log.wait(rf"{ana.name} dice: two\r".__eq__)
    log.wait(rf"{ana.name} dice: {'�' * 2}\x01{'�' * 2}\x1f".__eq__)


def test_quiet_logs_nothing_but_the_ready_line(start: Start) -> None:
    server = start("--quiet")
    ana, bea = Peer(server.address), Peer(server.address)
    ana.say("psst")
    ana.finish()
    ana.rest()
    with suppress(ConnectionError):
        bea.send(b"x" * 70000)
    bea.rest()
    assert server.stop() == 0
    assert len(server.log.rest()) == 1


@one_of_each
@pytest.mark.parametrize(
    "bad",
    [
        *(["--port", port] for port in ("99999", "65536", "-1", "x", "", "٨٠")),
        *(["--loud"], ["--qui"]),
    ],
    ids=" ".join,
)
def test_bad_arguments(name: str, python: str, bad: list[str]) -> None:
    """argparse's line, status 2; 99999 would be an OverflowError, and not an OSError, in bind()."""
    assert_usage(ends([python, *SERVERS[name], *bad], 2))


def assert_usage(errors: str) -> None:
    assert " error: " in errors.splitlines()[-1]
    assert "Traceback" not in errors


@one_of_each
@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.1", "Address already in use"),
        ("192.0.2.1", "Cannot assign requested address"),
        *((host, "") for host in ("a..b", "\udcff", "x" * 300)),
    ],
    ids=range(5),
)
def test_cannot_listen(name: str, python: str, host: str, reason: str) -> None:
    """A port that is taken, an address that is not ours, names that cannot be: one line."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        errors = ends([python, *SERVERS[name], "--host", host, "--port", port], 1)
    assert re.fullmatch(rf"No se puede escuchar en \(.+{reason}\n", errors)


@one_of_each
def test_too_few_descriptors_for_anybody(name: str, python: str) -> None:
    command = starter(limits={resource.RLIMIT_NOFILE: (20, 20)})
    errors = ends([*command, python, *SERVERS[name], "--port", "0"], 1)
    assert errors == "El límite de 20 descriptores no deja sitio a nadie\n"


ELSEWHERE = """
import runpy, select, sys
sys.platform, sys.modules["resource"] = "darwin", None
del select.epoll
sys.argv = sys.argv[1:]
run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
run(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    "program",
    [
        *(f"stages/v{n}/{program}.py" for n in range(1, 5) for program in ("server", "client")),
        *(f"lowlevel {kind}" for kind in ("selectors", "epoll", "epoll-et", "uring", "uvloop")),
    ],
)
def test_other_systems_get_one_clear_line(program: str, python: str) -> None:
    errors = ends([python, "-c", ELSEWHERE, *program.split()], 1)
    assert errors == "sock_chat solo funciona en Linux\n"


def test_uvloop_that_is_not_installed(python: str) -> None:
    errors = ends([python, "-S", "-m", "lowlevel", "uvloop"], 1)  # -S: no site-packages
    assert errors == "uvloop no está instalado: pip install uvloop\n"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("EINVAL", "hace falta Linux 6.1, y este es {release}"),
        ("EPERM", "lo prohíbe seccomp"),
        ("ENOSYS", "Linux {release} no lo tiene, o lo prohíbe seccomp"),
    ],
)
def test_uring_that_is_not_available(python: str, strace: Strace, error: str, reason: str) -> None:
    """As a kernel before 6.1 refused it, seccomp in one way or the other."""
    wrapper = strace("-e", "trace=io_uring_setup", "-e", f"inject=io_uring_setup:error={error}")
    errors = ends([*wrapper, python, "-S", "-m", "lowlevel", "uring", "--port", "0"], 1)
    reason = reason.format(release=os.uname().release)
    assert errors == f"io_uring no está disponible: {reason}\n"


@pytest.mark.parametrize(
    "bad",
    [
        *("uvloop --flush turn", "epoll --flush never", "kqueue", ""),
        *("uvloop --looks 2", "epoll --looks 9", "epoll --looks -1"),
    ],
)
def test_flush_and_looks_are_for_the_reactors(python: str, bad: str) -> None:
    """uvloop is v4, whose sends are its own; and there are two ways, not more."""
    assert_usage(ends([python, "-S", "-m", "lowlevel", *bad.split()], 2))


# Standard streams that fail.


STREAMS = {
    "closed pipe": 'mkfifo "$0" && exec "$@" 3<>"$0" >"$0" 3>&-',
    "full disk": 'exec "$@" > /dev/full',
    "all closed": 'exec "$@" <&- >&- 2>&-',
    "stderr closed": 'exec "$@" > /dev/full 2>&-',
    "ascii": 'PYTHONIOENCODING=ascii exec "$@"',
}
"""How a shell starts a server. It is ready when it accepts: its stdout is what is broken."""


@one_of_each
@pytest.mark.parametrize("stream", STREAMS)
def test_broken_stdout_ends_nothing(
    name: str, python: str, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    command = ["sh", "-c", STREAMS[stream], str(tmp_path / "fifo"), python, *SERVERS[name]]
    with Server(f"{shlex.join(command)} --port {{port}}") as server:
        peers = [Peer(server.address) for _ in range(3)]
        if name in BROADCASTING:
            peers[2].say("número 0 €")  # whoever hears it, knows that all three are in
            assert peers[0].line() == f"{peers[2].name} dice: número 0 €"
        for peer in peers:
            peer.say("número 1 €", "número 2 €")
        if name in BROADCASTING:
            expected = {f"{peer.name} dice: número {n} €" for peer in peers[1:] for n in (1, 2)}
            assert {peers[0].line() for _ in expected} == expected
        for peer in peers:
            peer.finish()
        for peer in peers:
            assert b"iniciado" not in peer.rest(), "a socket got the number of a closed stdout"
        assert server.stop() == 0
        errors, log = server.errors.rest(), server.log.rest()
    failing = [line.startswith("No se puede escribir el registro: ") for line in errors]
    assert failing == [True] * (stream in ("closed pipe", "full disk")), errors
    assert (stream == "ascii") == (r"dice: n\xfamero 2 \u20ac" in "".join(log))


@one_of_each
def test_non_blocking_stdout_loses_nothing(name: str, python: str) -> None:
    """A pipe that somebody else made non-blocking is waited for like any other."""
    command = [python, *SERVERS[name]]
    with logging_into_a_pipe(command, lambda fd: os.set_blocking(fd, False)) as (address, log):
        ana = Peer(address)
        texts = padded(5000, 100)  # eight times what a pipe holds
        ana.say(*texts)
        ana.finish()
        assert log.readline() == f"Cliente conectado: {ana.name}\n"
        for text in texts:
            assert log.readline() == f"{ana.name} dice: {text}\n"


# How it ends.


@pytest.mark.parametrize(
    ("state", "signum"),
    [
        ("idle", signal.SIGINT),
        ("idle", signal.SIGTERM),
        ("stalled", signal.SIGTERM),
        ("flood", signal.SIGINT),
    ],
)
def test_stops_within_two_seconds(room: Room, state: str, signum: int) -> None:
    """Exit status 0, nothing on stderr, whatever the clients do."""
    server = room.server
    peers = [room.join() for _ in range(20)]
    flood = None
    if state == "idle":
        peers[0].send(b"half a line")
    elif state == "flood":
        flooder, *others = (room.join(listens=False) for _ in range(3))
        flood = Flood(room, flooder, peers + others)
        for other in others:
            other.send(b"y\n" * 8192)
        server.log.wait(f"{flooder.name} dice: x".__eq__)
    elif room.broadcasts:
        room.join_slow()
        room.say(peers[0], *padded(40, 8000))
    else:
        for peer in peers:
            peer.send(b"x" * 65000)
    stops_in_time(server, signum)
    if flood:
        flood.stop()
    if state == "idle":
        room.gone(*peers)  # by the end of its loop, and not by an alarm
        assert not any("half a line" in line for line in server.log.all()), "not an EOF of theirs"
        for peer in peers:
            assert peer.rest() == b""


def stops_in_time(server: Server, signum: int = signal.SIGTERM) -> None:
    started = time.monotonic()
    status = server.stop(signum)
    assert time.monotonic() - started < STOP_WITHIN
    assert (status, server.errors.rest()) == (0, [])


@one_of_each
def test_stops_while_newcomers_keep_coming(server: Server) -> None:
    """Clients that reconnect at once must not keep it alive, nor trip it up."""
    over = threading.Event()

    def storm() -> None:
        with suppress(ConnectionError):
            while not over.is_set():
                socket.create_connection(server.address).close()

    threads = [threading.Thread(target=storm, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        Peer(server.address).close()
    assert all(thread.is_alive() for thread in threads), "nobody comes any more"
    stops_in_time(server)
    over.set()
    for thread in threads:
        thread.join(DEADLINE)


@one_of_each
def test_newcomers_in_the_same_wakeup_as_the_signal(start: Start) -> None:
    """Accepted, and not yet clients, they are in nobody's way (asyncio, from Python 3.12 on)."""
    for _ in range(3):
        server = start()
        with stopped(server):
            for _ in range(30):
                Peer(server.address)
            os.kill(server.pid, signal.SIGTERM)
        assert server.wait() == 0


@one_of_each
def test_second_signal_changes_nothing(server: Server) -> None:
    for _ in range(50):
        Peer(server.address)

    def ended() -> bool:
        os.kill(server.pid, signal.SIGINT)
        os.kill(server.pid, signal.SIGTERM)
        return server.process.poll() is not None

    wait_until(ended, "it goes on")  # they come at every point of its end
    assert server.process.returncode == 0


@one_of_each
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_before_the_ready_line_ends_it_by_itself(
    name: str, python: str, strace: Strace, signum: signal.Signals
) -> None:
    """strace sends it when the server calls listen(2). No traceback, and nothing is printed."""
    command = [*strace("-e", "trace=listen", "-e", f"inject=listen:signal={signum.name}"), python]
    assert ends([*command, *SERVERS[name], "--port", "0"], -signum) == ""


@one_of_each
def test_port_can_be_bound_again_at_once(start: Start) -> None:
    """Although connections that the server closed first linger in TIME_WAIT: SO_REUSEADDR."""
    server = start()
    peers = [Peer(server.address) for _ in range(10)]
    come_in(server, *peers)
    server.stop()
    for peer in peers:
        assert peer.rest() == b""
    assert start("--port", str(server.address[1])).address == server.address


@pytest.mark.long
@pytest.mark.parametrize(("program", "status"), [('exec {} "$@"', 0), ("exit 0", 4)])
def test_server_python_may_be_a_script_that_runs_one(
    tmp_path: Path, program: str, status: int
) -> None:
    """As pyenv's python3 is. Under few descriptors the script itself could not run."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{program.format(os.path.realpath(sys.executable))}\n")
    script.chmod(0o755)
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--numprocesses=0"),
        *(__file__, "-k", "too_few and v3", f"--server-python={script}"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("1 passed" in done.stdout) == (status == 0)
    assert (f"{script} is no Python" in done.stderr) == (status != 0)
