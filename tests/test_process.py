"""The contract of stages/README.md as far as the server's process shows it: its command line,
its log, its descriptors, threads and CPU time, and how it ends."""

from __future__ import annotations

import ast
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from benchmarks.harness import (
    BROADCASTING,
    DEADLINE,
    READY,
    ROOT,
    SERVERS,
    Server,
    accepts,
    free_port,
    limited,
)
from tests.conftest import Start
from tests.needed import needed_in_ci
from tests.wire import FULL, KERNEL_BUFFERS, PROMPTLY, Flood, Peer, Room, refused

STOP_WITHIN = 2.0
"""Seconds from SIGINT or SIGTERM to the end of the process (the contract)."""

CPU_WHEN_FULL = 0.15
"""Share of one CPU that a server may use while it has no place for newcomers (the contract)."""

FULL_LINE = re.compile(r"Servidor lleno: .+").fullmatch

KINDS = {"v1": "thread-per-client", "v2": "select", "v3": "select+broadcast", "v4": "asyncio"}


def run(name: str, python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a server that must end by itself."""
    return run_to_end([python, *SERVERS[name], *arguments])


def run_to_end(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


# The command line, and what is printed.


def test_ready_line(server: Server, name: str) -> None:
    _host, port = server.address
    assert server.log[0] == f"Servidor {KINDS[name]} iniciado en ('127.0.0.1', {port})"


def test_ready_line_of_the_default_address_is_the_documented_one(name: str, python: str) -> None:
    """`cd stages/v4 && python server.py`, with nothing else: port 8080, if nobody has it."""
    process = subprocess.Popen(
        [python, "server.py"],
        cwd=ROOT / "stages" / name,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        process.terminate()
        errors = process.communicate(timeout=DEADLINE)[1]
    finally:
        process.kill()
        process.wait()
    if line:
        assert line == f"Servidor {KINDS[name]} iniciado en ('127.0.0.1', 8080)\n"
        assert process.returncode == 0
    else:
        assert "('127.0.0.1', 8080)" in errors, "neither the ready line nor a taken port"
        assert len(errors.splitlines()) == 1


def test_ipv6(start: Start, name: str) -> None:
    server = start("--host", "::1")
    assert server.address[0] == "::1"
    room = Room(server, broadcasts=name in BROADCASTING)
    ana, _bea = room.join(), room.join()
    ana.say("seis")
    room.hear(ana, "seis")


def test_host_name(start: Start) -> None:
    """Of several addresses the first."""
    server = start("--host", "localhost")
    addresses = socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)
    assert server.address[0] == addresses[0][4][0]
    Peer(server.address).close()


def test_log_lines(room: Room) -> None:
    ana = room.join()
    ana.say("hola")
    room.hear(ana, "hola")
    ana.close()
    room.gone(ana)
    assert room.server.log.all()[1:] == [
        f"Cliente conectado: {ana.name}",
        f"{ana.name} dice: hola",
        f"Cliente desconectado: {ana.name}",
    ]


def test_log_escapes_what_a_terminal_would_obey(room: Room) -> None:
    """Categories C*, Zl and Zp, and nothing else."""
    ana = room.join()
    cases = {
        "\x1b[31mrojo\x07\x00\t\x9b\x7f": r"\x1b[31mrojo\x07\x00\x09\x9b\x7f",
        "\u202eabc\u200b\u2028\u2029\ufeff": r"\u202eabc\u200b\u2028\u2029\ufeff",
        "\U000e0001\ue000\U0010ffff": r"\U000e0001\ue000\U0010ffff",
        "a\rb": r"a\x0db",
        "ñ€𝄞 \u3000\xa0.": "ñ€𝄞 \u3000\xa0.",
    }
    for said, logged in cases.items():
        ana.say(said)
        room.server.log.wait(f"{ana.name} dice: {logged}".__eq__)
    ana.send(b"two\r\r\n")
    room.server.log.wait(rf"{ana.name} dice: two\x0d".__eq__)
    ana.send(b"\xff\xfd\x01\xff\xfb\x1f\r\n")  # telnet's IAC: no UTF-8
    room.server.log.wait(rf"{ana.name} dice: {'�' * 2}\x01{'�' * 2}\x1f".__eq__)


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


def test_bad_arguments(name: str, python: str) -> None:
    """argparse's line, status 2; 99999 would be an OverflowError, and not an OSError, in bind()."""
    bad = [["--port", port] for port in ("99999", "65536", "-1", "x", "", "٨٠")]
    bad += [["--loud"], ["--qui"]]
    processes = [
        subprocess.Popen(
            [python, *SERVERS[name], *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments in bad
    ]
    try:
        for arguments, process in zip(bad, processes):
            output, errors = process.communicate(timeout=DEADLINE)
            assert process.returncode == 2, arguments
            assert output == ""
            assert " error: " in errors.splitlines()[-1]
            assert "Traceback" not in errors
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_cannot_listen(name: str, python: str) -> None:
    """An address that is not ours, names that cannot be: one line, status 1."""
    for host in ("192.0.2.1", "a..b", "\udcff", "x" * 300):
        result = run(name, python, "--host", host, "--port", "0")
        assert result.returncode == 1, result
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert result.stderr.startswith("No se puede escuchar en (")
        assert result.stdout == ""


def test_too_few_descriptors_for_anybody(name: str, python: str) -> None:
    command = [python, *SERVERS[name], "--port", "0"]
    result = run_to_end(limited(command, {resource.RLIMIT_NOFILE: (20, 20)}))
    assert result.returncode == 1
    assert result.stderr == "El límite de 20 descriptores no deja sitio a nadie\n"


def test_port_taken(server: Server, name: str, python: str) -> None:
    result = run(name, python, "--port", str(server.address[1]))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "Address already in use" in result.stderr


@pytest.mark.parametrize("program", ["server.py", "client.py"])
def test_other_systems_get_one_clear_line(name: str, python: str, program: str) -> None:
    script = (
        "import runpy, sys\n"
        "sys.platform, sys.modules['resource'] = 'darwin', None\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    result = run_to_end([python, "-c", script, str(ROOT / "stages" / name / program)])
    assert result.returncode == 1
    assert result.stderr == "sock_chat solo funciona en Linux\n"


# Standard streams that fail.


def shell(command: str, python: str, name: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server through a shell `command` that uses $PYTHON, $SERVER and $PORT."""
    port = free_port()
    environment = {"PYTHON": python, "SERVER": SERVERS[name][-1], "PORT": str(port)}
    process = subprocess.Popen(
        ["sh", "-c", command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + DEADLINE
    while not accepts(port):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)  # nothing else to wait for: stdout is what is broken
    return process, port


STREAMS = {
    "closed pipe": 'exec "$PYTHON" "$SERVER" --port "$PORT" > "$FIFO"',
    "full disk": 'exec "$PYTHON" "$SERVER" --port "$PORT" > /dev/full',
    "all closed": 'exec "$PYTHON" "$SERVER" --port "$PORT" <&- >&- 2>&-',
    "stderr closed": 'exec "$PYTHON" "$SERVER" --port "$PORT" > /dev/full 2>&-',
    "ascii": 'PYTHONIOENCODING=ascii exec "$PYTHON" "$SERVER" --port "$PORT"',
}


@pytest.mark.parametrize("stream", STREAMS)
def test_broken_stdout_ends_nothing(
    name: str, python: str, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    monkeypatch.setenv("FIFO", str(fifo))
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    process, port = shell(STREAMS[stream], python, name)
    try:
        os.close(reader)
        peers = [Peer(("127.0.0.1", port)) for _ in range(3)]
        for number in range(3):
            for peer in peers:
                peer.say(f"número {number} €")
        if name in BROADCASTING:
            told = {
                peer: sorted(
                    f"{other.name} dice: número {number} €"
                    for other in peers
                    if other is not peer
                    for number in range(3)
                )
                for peer in peers
            }
            for peer, texts in told.items():
                # The others may have spoken before it was in; what it hears is what was said.
                assert peer.line() in texts
        for peer in peers:
            peer.finish()
        for peer in peers:
            assert b"iniciado" not in peer.rest(), "a socket got the number of a closed stdout"
            peer.close()
        process.terminate()
        output, errors = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    lines = errors.decode().splitlines()
    if stream in ("closed pipe", "full disk"):
        assert len(lines) == 1
        assert lines[0].startswith("No se puede escribir el registro: ")
    else:
        assert lines == []
    if stream == "ascii":
        assert rb"dice: n\xfamero 2 \u20ac" in output


def test_non_blocking_stdout_loses_nothing(name: str, python: str) -> None:
    """A pipe that somebody else made non-blocking is waited for like any other."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen(
        [python, *SERVERS[name], "--port", "0"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    os.close(writer)
    try:
        with open(reader, encoding="utf-8") as log:
            ready = READY.match(log.readline())
            assert ready
            ana = Peer(ast.literal_eval(ready[1]))
            texts = [f"{number} ".ljust(100, "a") for number in range(5000)]
            ana.say(*texts)  # eight times what a pipe holds
            ana.finish()
            assert log.readline() == f"Cliente conectado: {ana.name}\n"
            for text in texts:
                assert log.readline() == f"{ana.name} dice: {text}\n"
            process.terminate()
            errors = process.communicate(timeout=DEADLINE)[1]
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (0, b"")


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
    flood = None
    peers: list[Peer] = []
    if state == "idle":
        peers = [room.join() for _ in range(20)]
        peers[0].send(b"half a line")
    if state == "stalled" and not room.broadcasts:
        peers = [room.join() for _ in range(3)]
        for peer in peers:
            peer.send(b"x" * 65000)
    elif state == "stalled":
        ana, bea = room.join(), room.join()
        stalled = room.join(listens=False, receive_buffer=4096)
        server.shrink_send_buffer(stalled.sock)
        for number in range(40):
            ana.say(f"{number} ".ljust(8000, "x"))
        room.hear(ana, *(f"{number} ".ljust(8000, "x") for number in range(40)))
        peers = [ana, bea]
    if state == "flood":
        flooders = [room.join(listens=False) for _ in range(3)]
        readers = [room.join(listens=False) for _ in range(20)]
        log, room.log = room.log, None
        flood = Flood(room, flooders[0], readers + flooders[1:])
        for flooder in flooders[1:]:
            flooder.send(b"y\n" * 8192)
        if log:
            log.wait(f"{flooders[0].name} dice: x".__eq__)
    started = time.monotonic()
    status = server.stop(signum)
    took = time.monotonic() - started
    if flood:
        flood.stop()
    assert status == 0
    assert server.errors.rest() == []
    assert took < STOP_WITHIN
    if state == "idle":
        assert not any("half a line" in line for line in server.log.rest()), "not an EOF of theirs"
        for peer in peers:
            assert peer.rest() == b""


def test_stops_while_newcomers_keep_coming(server: Server) -> None:
    """Clients that reconnect at once must not keep it alive, nor trip it up."""

    over = threading.Event()

    def storm() -> None:
        with suppress(OSError):
            while not over.is_set():
                socket.create_connection(server.address).close()

    threads = [threading.Thread(target=storm, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        Peer(server.address).close()
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < STOP_WITHIN
    over.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert server.errors.rest() == []


def test_second_signal_changes_nothing(server: Server) -> None:
    for _ in range(50):
        Peer(server.address)
    deadline = time.monotonic() + DEADLINE
    while server.process.poll() is None:
        assert time.monotonic() < deadline
        os.kill(server.pid, signal.SIGINT)
        os.kill(server.pid, signal.SIGTERM)
        time.sleep(0.001)  # so that they come at every point of its end, and it gets there
    assert server.process.returncode == 0
    assert server.errors.rest() == []


def test_port_can_be_bound_again_at_once(start: Start) -> None:
    """Although connections that the server closed first linger in TIME_WAIT: SO_REUSEADDR."""
    server = start()
    peers = [Peer(server.address) for _ in range(10)]
    server.log.wait(f"Cliente conectado: {peers[-1].name}".__eq__)
    assert server.stop() == 0
    for peer in peers:
        assert peer.rest() == b""
        peer.close()
    again = start("--port", str(server.address[1]))
    assert again.address == server.address
    Peer(again.address).close()


# Descriptors, threads, memory, CPU.


def test_socket_options(room: Room) -> None:
    ana = room.join()
    end = room.server.end_of(ana.sock)
    if end is None:
        pytest.fail("pidfd_getfd(2) is needed to see it: Linux 5.6, and the right to trace a child")
    with end:
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_idle_clients_cost_nothing(room: Room) -> None:
    """500 of them: no CPU time, no wakeup."""
    server = room.server
    peers = [Peer(server.address) for _ in range(500)]
    peers[0].send(b"half a line")
    for peer in peers:
        server.log.wait(f"Cliente conectado: {peer.name}".__eq__)
    cpu, switches = settled(server)
    time.sleep(0.3)  # what is observed is that nothing happens
    assert server.context_switches() - switches == 0, "woken up with nothing to do"
    assert server.cpu_seconds() - cpu == 0


def settled(server: Server) -> tuple[float, int]:
    """CPU time and context switches, once they have stood still for a moment."""
    deadline = time.monotonic() + DEADLINE
    before = (-1.0, -1)
    while True:
        now = (server.cpu_seconds(), server.context_switches())
        if now == before:
            return now
        assert time.monotonic() < deadline, "the server does not come to rest"
        before = now
        time.sleep(0.05)


def cpu_share(server: Server, seconds: float) -> float:
    """Share of one CPU that the server uses in the next `seconds`."""
    cpu, started = server.cpu_seconds(), time.monotonic()
    time.sleep(seconds)  # the measurement itself
    return (server.cpu_seconds() - cpu) / (time.monotonic() - started)


def test_full_of_descriptors(start: Start, name: str) -> None:
    """16 are kept in reserve. Newcomers are told and closed, those inside talk on, and when one
    leaves there is a place again; each such episode is logged once."""
    server = start(limits={resource.RLIMIT_NOFILE: (40, 64)})
    room = Room(server, broadcasts=name in BROADCASTING)
    at_start = server.descriptors()
    full = 0
    for _ in range(2):
        crowd = [room.join() for _ in range(64 - 16 - at_start)]
        assert server.descriptors() == 64 - 16
        for _ in range(40):
            refused(server)
        full = server.log.wait(FULL_LINE, full) + 1
        crowd[0].say("we talk on")
        room.hear(crowd[0], "we talk on")
        early = Peer(server.address)
        early.send(b"already speaking\n" * 100)
        assert early.rest() == FULL, "it is told even when its own words were not read"
        for peer in crowd:
            peer.close()
            room.gone(peer)
    assert len(list(filter(FULL_LINE, server.log.all()))) == 2, "once per episode"


def test_accept_fails_all_the_same(room: Room) -> None:
    """EMFILE although there is a reserve: the newcomer waits in the backlog, nobody spins,
    those inside talk, and it recovers by itself."""
    server = room.server
    ana, _bea = room.join(), room.join()
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (server.descriptors(), limits[1]))
    waiting = [Peer(server.address) for _ in range(40)]
    server.log.wait(FULL_LINE)
    assert cpu_share(server, 0.4) < CPU_WHEN_FULL
    ana.say("still here")
    room.hear(ana, "still here")
    assert len(list(filter(FULL_LINE, server.log.all()))) == 1, "once per episode"
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
    started = time.monotonic()
    for peer in waiting:
        server.log.wait(f"Cliente conectado: {peer.name}".__eq__)
        peer.close()
    assert time.monotonic() - started < 1.0 + PROMPTLY, "a pause lasts a second at most"


def test_accept_is_not_tried_more_often_than_every_tenth_second(
    start: Start, tmp_path: Path
) -> None:
    """While it fails; asyncio would try once for each of its backlog, a second later again."""
    strace = shutil.which("strace")
    if not strace:
        needed_in_ci("strace is not installed (apt-get install strace)")
    trace = tmp_path / "trace"
    wrapper = [strace, "-f", "-qq", "-e", "trace=accept,accept4", "-o", str(trace)]
    server = start(wrapper=wrapper)
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    Peer(server.address).close()
    server.log.wait(lambda line: line.startswith("Cliente desconectado"))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (4, limits[1]))
    for _ in range(40):
        Peer(server.address)
    started = time.monotonic()
    server.log.wait(FULL_LINE)
    time.sleep(0.5)  # the window that is looked at
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
    took = time.monotonic() - started
    failed = trace.read_text().count("EMFILE")
    assert 1 <= failed <= 1 + took / 0.1


def test_burst_does_not_use_up_the_reserve(start: Start) -> None:
    """A hundred newcomers in one wakeup: those beyond the limit are refused one by one, and
    accept() never fails."""
    server = start(limits={resource.RLIMIT_NOFILE: (64, 64)})
    os.kill(server.pid, signal.SIGSTOP)
    peers = [Peer(server.address) for _ in range(100)]
    os.kill(server.pid, signal.SIGCONT)
    assert "Errno" not in server.log[server.log.wait(FULL_LINE)]
    inside = [let_in(server, peer) for peer in peers]
    assert 64 - 16 - 8 <= sum(inside) <= 64 - 16 - 4
    assert inside == sorted(inside, reverse=True), "the first to come were let in"


def let_in(server: Server, peer: Peer) -> bool:
    """Whether a newcomer was let in; else it must be told."""
    deadline = time.monotonic() + DEADLINE
    while f"Cliente conectado: {peer.name}" not in server.log.all():
        assert time.monotonic() < deadline, "neither let in nor told"
        if select.select([peer.sock], [], [], 0.02)[0]:
            assert peer.rest() == FULL
            return False
    return True


def test_backlog_takes_a_burst_of_five_hundred(server: Server) -> None:
    """Without the server's help: the kernel completes the connections, listen(2). Where
    net.core.somaxconn is below 500 it cannot."""
    somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text())
    os.kill(server.pid, signal.SIGSTOP)
    with ExitStack() as stack:
        burst = [stack.enter_context(socket.socket()) for _ in range(min(500, somaxconn))]
        for sock in burst:
            sock.settimeout(0.9)  # a SYN that was dropped is sent again after a second
            sock.connect(server.address)
        os.kill(server.pid, signal.SIGCONT)
        server.log.wait(f"Cliente conectado: {burst[-1].getsockname()}".__eq__)


def test_reset_before_accept_is_dropped_silently(room: Room) -> None:
    """accept(2) still returns such a connection, and it may have no name any more."""
    ana, _bea = room.join(), room.join()
    os.kill(room.server.pid, signal.SIGSTOP)
    for _ in range(30):
        Peer(room.server.address).reset()
    os.kill(room.server.pid, signal.SIGCONT)
    carla = room.join()
    ana.say("nobody noticed")
    room.hear(ana, "nobody noticed")
    assert carla.name in "".join(room.server.log.all())
    assert not any("None" in line for line in room.server.log.all())


@pytest.mark.servers("v3", "v4")
def test_flooder_that_never_reads_fills_no_memory(room: Room) -> None:
    """While much waits for it, its flood stays in the kernel, and so does it."""
    server = room.server
    ana, _bea = room.join(), room.join()
    flooder = room.join(listens=False, receive_buffer=4096)
    server.shrink_send_buffer(flooder.sock)
    texts = [f"{number} ".ljust(8000, "f") for number in range(40)]
    ana.say(*texts)
    room.hear(ana, *texts)
    resident = server.resident_kib()
    flooder.sock.settimeout(0.3)
    sent = 0
    with suppress(TimeoutError):
        while sent < KERNEL_BUFFERS * 2:
            sent += flooder.sock.send(b"unheard of\n" * 10_000)
    assert sent < KERNEL_BUFFERS * 2, "somebody takes all that it sends"
    assert server.resident_kib() - resident < 2000, "KiB more"
    ana.say("we hear each other")
    room.hear(ana, "we hear each other")


def test_refusing_is_cheap_when_newcomers_keep_coming(start: Start) -> None:
    """A newcomer that is refused every 20 ms does not make a server spin. --quiet still says it."""
    server = start("--quiet", limits={resource.RLIMIT_NOFILE: (64, 64)})
    for _ in range(64 - 16 - server.descriptors()):
        Peer(server.address)
    refused(server)
    cpu, started = server.cpu_seconds(), time.monotonic()
    for _ in range(20):
        refused(server)
        time.sleep(0.02)  # the pace of the newcomers
    assert (server.cpu_seconds() - cpu) / (time.monotonic() - started) < CPU_WHEN_FULL
    server.log.wait(FULL_LINE)
    assert len(server.log.all()) == 2


def test_thousands_connect_and_leave(start: Start) -> None:
    """Descriptors, threads and memory come back to where they were."""
    server = start("--quiet")

    def visit(count: int) -> None:
        for _ in range(count // 100):
            peers = [Peer(server.address) for _ in range(100)]
            for peer in peers[:50]:
                peer.say("hello and goodbye")
            for number, peer in enumerate(peers):
                if number % 3 == 0:
                    peer.reset()
                else:
                    peer.finish()
            for number, peer in enumerate(peers):
                if number % 3:
                    peer.rest()
                    peer.close()

    before = server.descriptors(), server.threads()
    visit(400)
    come_back_to(server, before)
    resident = server.resident_kib()
    visit(1600)
    come_back_to(server, before)
    assert server.resident_kib() - resident < 2000, "KiB more after 1,600 visitors"


def come_back_to(server: Server, before: tuple[int, int]) -> None:
    deadline = time.monotonic() + DEADLINE
    while (server.descriptors(), server.threads()) != before:
        assert time.monotonic() < deadline, "descriptors or threads are left behind"
        time.sleep(0.02)


def test_line_without_end_does_not_fill_memory(server: Server) -> None:
    ana = Peer(server.address)
    resident = server.resident_kib()
    with suppress(ConnectionError):
        for _ in range(1000):
            ana.send(b"x" * 65536)
        pytest.fail("64 MB of one line, and it is still there")
    assert server.resident_kib() - resident < 4000, "KiB more"
    server.log.wait(f"Cliente desconectado: {ana.name} (línea demasiado larga)".__eq__)


def test_everything_in_one_wake_up(room: Room) -> None:
    """Leavers, speakers and newcomers between two waits of the server, which is stopped
    meanwhile: descriptors are closed and given out again within one batch of events."""
    server = room.server
    ana, bea = room.join(), room.join()
    leavers = [room.join(listens=False) for _ in range(30)]
    speakers = [room.join(listens=False) for _ in range(10)]
    os.kill(server.pid, signal.SIGSTOP)
    for number, leaver in enumerate(leavers):
        if number % 3 == 0:
            leaver.send(b"half a line, and never said")
            leaver.reset()
        elif number % 3 == 1:
            leaver.close()
        else:
            leaver.send(b"last word of %d" % number)
            leaver.finish()
    for number, speaker in enumerate(speakers):
        speaker.say(f"speaker {number}")
    newcomers = [Peer(server.address) for _ in range(30)]
    for number, newcomer in enumerate(newcomers):
        newcomer.say(f"newcomer {number}")
    os.kill(server.pid, signal.SIGCONT)
    expected = {
        *(f"{leavers[n].name} dice: last word of {n}" for n in range(2, 30, 3)),
        *(f"{peer.name} dice: speaker {n}" for n, peer in enumerate(speakers)),
        *(f"{peer.name} dice: newcomer {n}" for n, peer in enumerate(newcomers)),
    }
    if room.broadcasts:
        for listener in (ana, bea):
            heard = [listener.line() for _ in expected]
            assert set(heard) == expected
    logged = 0
    for _ in expected:
        logged = server.log.wait(lambda line: " dice: " in line, logged) + 1
    assert {line for line in server.log.all() if " dice: " in line} == expected
    room.log = None
    ana.say("and on we go")
    room.hear(ana, "and on we go")


@pytest.mark.parametrize("event", ["catches up", "half-closes", "resets"])
@pytest.mark.servers("v3", "v4")
def test_slow_reader_does_not_make_it_spin(room: Room, event: str) -> None:
    """Room in a send buffer, an EOF, EPOLLHUP and EPOLLERR are reported again and again, for as
    long as one asks."""
    server = room.server
    ana, _bea = room.join(), room.join()
    slow = room.join(listens=False, receive_buffer=4096)
    server.shrink_send_buffer(slow.sock)
    texts = [f"{number} ".ljust(4000, "q") for number in range(10)]
    ana.say(*texts)
    room.hear(ana, *texts)
    waiting = "".join(f"{ana.name} dice: {text}\n" for text in texts).encode()
    if event == "resets":
        slow.reset()
        room.gone(slow)
    elif event == "half-closes":
        slow.send(b"bye")
        slow.finish()
        room.hear(slow, "bye")
    else:
        assert slow.take(len(waiting)) == waiting
    assert cpu_share(server, 0.25) < CPU_WHEN_FULL
    ana.say("next")
    room.hear(ana, "next")
    if event == "half-closes":
        assert slow.rest() == waiting + f"{ana.name} dice: next\n".encode()
        room.gone(slow)


@pytest.mark.servers("v3", "v4")
def test_reset_found_out_by_writing_leaves_the_line_unsaid(room: Room) -> None:
    """The error is told once: after a send() that failed, recv() returns EOF."""
    bea, carla = room.join(), room.join()
    victims = [room.join(listens=False) for _ in range(20)]
    for victim in victims:
        victim.send(b"whole\nhalf a li")
        room.hear(victim, "whole")
    os.kill(room.server.pid, signal.SIGSTOP)
    bea.say("one", "two")
    for victim in victims:
        victim.reset()
    os.kill(room.server.pid, signal.SIGCONT)
    for victim in victims:
        room.gone(victim)
    room.hear(bea, "one", "two")
    carla.say("three")
    room.hear(carla, "three")


@pytest.mark.servers("v1")
def test_no_more_threads(python: str, tmp_path: Path) -> None:
    """EAGAIN from clone(2), as under a limit on processes, here from a Thread.start() that fails:
    the newcomer is told, the others are served, and there is a place again when they leave."""
    script = tmp_path / "few_threads.py"
    script.write_text(
        "import runpy, sys, threading\n"
        "start = threading.Thread.start\n"
        "def limited(self):\n"
        "    if threading.active_count() >= 10:\n"
        '        raise RuntimeError("can\'t start new thread")\n'
        "    start(self)\n"
        "threading.Thread.start = limited\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    with Server(f"{python} {script} {SERVERS['v1'][-1]} --port {{port}}") as server:
        for episode in (1, 2):
            peers = [Peer(server.address) for _ in range(8)]
            for peer in peers:
                server.log.wait(f"Cliente conectado: {peer.name}".__eq__)
            for _ in range(3):
                refused(server)
            peers[-1].say(f"still here {episode}")
            server.log.wait(f"{peers[-1].name} dice: still here {episode}".__eq__)
            for peer in peers:
                peer.close()
                server.log.wait(f"Cliente desconectado: {peer.name}".__eq__)
            while server.threads() > 2:
                time.sleep(0.01)  # a thread logs before it ends
        assert server.stop() == 0
        assert server.errors.rest() == []
        full = [line for line in server.log.all() if line.startswith("Servidor lleno")]
        assert full == ["Servidor lleno: no caben más hilos que 8"] * 2


@pytest.mark.servers("v1")
@pytest.mark.parametrize("spare", [1, 3, 10])
def test_hardly_any_memory_for_threads(start: Start, spare: int) -> None:
    """Every newcomer is either let in or told, whatever is missing first; spare: MiB."""
    server = start()
    used = int(Path(f"/proc/{server.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + (spare << 20)
    resource.prlimit(server.pid, resource.RLIMIT_AS, (limit, limit))
    peers = [Peer(server.address) for _ in range(40)]
    server.log.wait(FULL_LINE)
    assert not let_in(server, peers[-1])
    for peer in peers:
        let_in(server, peer)


@pytest.mark.servers("v1")
def test_long_lines_of_many_threads_stay_whole_in_the_log(room: Room) -> None:
    """pipe(7): what is longer than PIPE_BUF may be cut in two by another thread's write."""
    peers = [room.join() for _ in range(4)]
    texts = [f"{number} ".ljust(60_000, "l") for number in range(15)]
    for text in texts:
        for peer in peers:
            peer.say(text)
    expected = {f"{peer.name} dice: {text}" for peer in peers for text in texts}
    at = 0
    for _ in expected:
        at = room.server.log.wait(lambda line: " dice: " in line, at) + 1
    assert {line for line in room.server.log.all() if " dice: " in line} == expected


def test_ready_pattern_reads_what_python_prints() -> None:
    assert re.fullmatch(READY, "Servidor asyncio iniciado en ('::1', 8080, 0, 0)")
