"""client.py of each stage, against a server that the test plays itself, and against its own."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE, cpu_seconds, free_port, has_ended
from benchmarks.harness.server import Server
from tests.support.run import ends, running

Launch = Callable[..., "Client"]

pytestmark = pytest.mark.servers("v1", "v2", "v4")  # v3's client is v2's: test_text.py


class Client:
    """A client.py process and the server's end of its connection."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket):
        self.process = process
        self.connection = connection
        connection.settimeout(DEADLINE)

    def type(self, text: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def sent(self, text: str) -> None:
        """The server receives exactly this next."""
        expected = text.encode()
        received = b""
        while len(received) < len(expected):
            data = self.connection.recv(len(expected) - len(received))
            assert data, f"EOF after {received!r}"
            received += data
        assert received == expected

    def shows(self, text: str) -> None:
        """This comes out of its stdout next."""
        assert self.process.stdout
        expected = text.encode()
        shown = b""
        deadline = time.monotonic() + DEADLINE
        while len(shown) < len(expected):
            ready = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            assert ready[0], f"shown so far: {shown!r}"
            data = os.read(self.process.stdout.fileno(), len(expected) - len(shown))
            assert data, f"ended after {shown!r}"
            shown += data
        assert shown == expected

    def ends(self, status: int) -> tuple[str, list[str]]:
        """It ends by itself; the rest of its stdout, and its stderr in lines."""
        # With its stdin still open: an EOF there is an end as well.
        assert has_ended(self.process.pid, DEADLINE)
        output, errors = self.process.communicate()
        assert self.process.returncode == status, errors
        return (output or b"").decode(), (errors or b"").decode().splitlines()


@pytest.fixture
def program(name: str) -> str:
    return str(ROOT / "stages" / name / "client.py")


@pytest.fixture
def launch(program: str, python: str) -> Iterator[Launch]:
    """Start the client and accept its connection: `launch(stdin=...)`, options as of Popen."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(DEADLINE)

        def launch(*, environment: dict[str, str] | None = None, **options: Any) -> Client:
            process = subprocess.Popen(
                [python, "-S", program, "--port", str(listener.getsockname()[1])],
                env={**os.environ, "PYTHONIOENCODING": "utf-8", **(environment or {})},
                **{
                    "stdin": subprocess.PIPE,
                    "stdout": subprocess.PIPE,
                    "stderr": subprocess.PIPE,
                    **options,
                },
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            connection, _ = listener.accept()
            stack.enter_context(connection)
            return Client(process, connection)

        yield launch


def test_both_directions_at_once(launch: Launch) -> None:
    client = launch()
    client.type("hola\n")
    client.sent("hola\n")
    client.connection.sendall("('127.0.0.1', 1) dice: qué tal\n".encode())
    client.shows("('127.0.0.1', 1) dice: qué tal\n")
    client.type("¡bien!\n")
    client.sent("¡bien!\n")


def test_at_the_end_of_input_it_half_closes_and_shows_the_rest(
    launch: Launch, tmp_path: Path
) -> None:
    """From a pipe, a file (which epoll refuses), nothing at all."""
    text = "from a file\n" * 30_000 + "no newline"
    file = tmp_path / "input"
    file.write_text(text)
    with file.open() as stream:
        for stdin, said in ((subprocess.PIPE, ""), (stream, text), (subprocess.DEVNULL, "")):
            client = launch(stdin=stdin)
            if client.process.stdin:
                client.process.stdin.close()
                client.process.stdin = None
            client.sent(said)
            assert client.connection.recv(1) == b"", "FIN"
            client.connection.sendall(b"still for you\n" * 1000 + b"the end")
            client.connection.close()
            output, errors = client.ends(0)
            assert output == "still for you\n" * 1000 + "the end"
            assert errors == []


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_standard_streams_closed_at_start(program: str, python: str, closed: str) -> None:
    """The connection must not get their numbers: what is shown would go to the server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = f'exec "{python}" "{program}" --port {port} {closed}'
        with running(["sh", "-c", command], stdout=subprocess.PIPE) as process:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(DEADLINE)
                assert connection.recv(1) == b"", "the end of its input"
                connection.sendall(b"bye\n")
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""
            output, errors = process.communicate(timeout=DEADLINE)
    assert (process.returncode, errors) == (0, "")
    assert output == ("" if ">" in closed else "bye\n")


def test_terminal(launch: Launch) -> None:
    """Lines typed at a terminal, Ctrl-D at the end; the terminal stays as it was."""
    master, slave = os.openpty()
    try:
        client = launch(stdin=slave, stdout=slave)
        os.write(master, "tecleado ñ\n".encode())
        client.sent("tecleado ñ\n")
        assert os.get_blocking(slave), "a terminal made non-blocking takes the shell with it"
        client.connection.sendall(b"shown\n")
        os.write(master, b"\x04")
        assert client.connection.recv(1) == b""
        client.connection.close()
        assert client.process.wait(DEADLINE) == 0
        shown = os.read(master, 1000).replace(b"\r\n", b"\n")
        assert sorted(shown.decode().split("\n")) == ["", "shown", "tecleado ñ"]
    finally:
        os.close(master)
        os.close(slave)


def test_what_is_shown_is_escaped(launch: Launch) -> None:
    client = launch()
    client.connection.sendall("a\x1b[2J\u202e\x00\r\x9b\u2028 ñ€𝄞 \u3000\n".encode())
    client.shows("a\\x1b[2J\\u202e\\x00\\r\\x9b\\u2028 ñ€𝄞 \\u3000\n")
    data = "ñ€\n".encode()
    for at in range(len(data)):
        client.connection.sendall(data[at : at + 1])
    client.shows("ñ€\n")
    client.connection.sendall(b"\xff|\xf0\x9f")
    client.connection.shutdown(socket.SHUT_WR)
    assert client.ends(1)[0] == "\ufffd|\ufffd"


def test_a_terminal_that_cannot_show_a_character(launch: Launch) -> None:
    client = launch(environment={"PYTHONIOENCODING": "ascii"})
    client.connection.sendall("año €\n".encode())
    client.shows("a\\xf1o \\u20ac\n")


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_server_that_goes_away(launch: Launch, how: str) -> None:
    client = launch()
    client.connection.sendall(b"servidor lleno\n")
    client.shows("servidor lleno\n")
    if how == "RST":
        linger = struct.pack("ii", 1, 0)
        client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.connection.close()
    _, errors = client.ends(1)
    assert len(errors) == 1
    assert errors[0].startswith("El servidor")


def test_a_server_that_goes_away_while_much_is_being_sent(launch: Launch, tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_text("much to say\n" * 500_000)
    for number in range(4):
        with file.open() as stdin:
            client = launch(stdin=stdin)
            client.connection.recv(10_000 * number or 1)
            client.connection.close()
            _, errors = client.ends(1)
            assert len(errors) == 1
            assert errors[0].startswith("El servidor")


def test_a_server_that_says_goodbye_before_it_has_taken_all(launch: Launch, tmp_path: Path) -> None:
    """Status 0 means that all was taken, whatever fits into the buffers between."""
    file = tmp_path / "input"
    statuses = []
    for size in (10_000, 2_600_000, 2_800_000, 5_000_000):
        file.write_bytes(b"x" * size)
        with file.open() as stdin:
            client = launch(stdin=stdin)
            comes_to_rest(client)
            client.connection.shutdown(socket.SHUT_WR)
            statuses.append(client.process.wait(DEADLINE))
            received = 0
            while data := client.connection.recv(1 << 20):
                received += len(data)
            assert statuses[-1] == (0 if received == size else 1)
    assert (statuses[0], statuses[-1]) == (0, 1), "too small, or too large, for what is tested"


def comes_to_rest(client: Client) -> None:
    """Wait until it sleeps and its CPU time stands still; a client that spins never gets there."""
    deadline = time.monotonic() + DEADLINE
    before = -1.0
    while before != (before := cpu_seconds(client.process.pid)) or "S" not in stat(client):
        assert time.monotonic() < deadline, "it never comes to rest"
        time.sleep(0.05)  # between two looks


def stat(client: Client) -> list[str]:
    """What follows its name in proc_pid_stat(5): first of all its state."""
    text = Path(f"/proc/{client.process.pid}/stat").read_text()
    return text.rpartition(")")[2].split()


def test_an_idle_client_does_not_spin(launch: Launch) -> None:
    client = launch()
    client.type("one\n")
    client.sent("one\n")
    comes_to_rest(client)


def test_a_server_that_does_not_read_makes_the_keyboard_wait(launch: Launch) -> None:
    """The rest of an endless input stays where it is, and not in memory."""
    with open("/dev/zero", "rb") as stdin:
        client = launch(stdin=stdin)
        comes_to_rest(client)
        assert int(stat(client)[21]) * resource.getpagesize() < 60 << 20, "resident"


def test_a_terminal_that_has_gone(launch: Launch) -> None:
    """read(2) fails with EIO: the end of input."""
    master, slave = os.openpty()
    client = launch(stdin=slave)
    os.close(slave)
    os.close(master)
    assert client.connection.recv(1) == b""
    client.connection.close()
    client.ends(0)


def test_a_keyboard_that_somebody_made_non_blocking(launch: Launch) -> None:
    """Nothing there yet is not the end of it."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    client = launch(stdin=reader)
    os.close(reader)
    client.connection.sendall(b"well?\n")
    client.shows("well?\n")
    os.write(writer, b"here I am\n")
    client.sent("here I am\n")
    os.close(writer)
    assert client.connection.recv(1) == b""
    client.connection.close()
    client.ends(0)


@pytest.mark.parametrize("host", ["127.0.0.1", "a..b", "\udcff"], ids=range(3))
def test_a_server_that_is_not_there(program: str, python: str, host: str) -> None:
    errors = ends([python, program, "--host", host, "--port", str(free_port())], 1)
    assert re.fullmatch(r"No se puede conectar con \(.+\n", errors)


def test_bad_port(program: str, python: str) -> None:
    assert "Traceback" not in ends([python, program, "--port", "99999"], 2)


def test_ctrl_c(launch: Launch) -> None:
    client = launch()
    client.type("one\n")
    client.sent("one\n")
    client.process.send_signal(signal.SIGINT)
    output, errors = client.ends(130)
    assert (output, errors) == ("", [])


def test_stdout_that_nobody_reads_any_more(launch: Launch) -> None:
    client = launch()
    assert client.process.stdout
    client.process.stdout.close()
    client.process.stdout = None
    client.connection.sendall(b"anybody there?\n")
    _, errors = client.ends(1)
    assert errors == ["No se puede mostrar nada: Broken pipe"]


def test_much_in_both_directions_does_not_lock_up(launch: Launch, tmp_path: Path) -> None:
    """The server sends before it reads, more than all buffers hold, and so does the client."""
    file = tmp_path / "input"
    text = "x" * 999 + "\n"
    file.write_text(text * 5000)
    with file.open() as stdin, (tmp_path / "output").open("wb") as stdout:
        client = launch(stdin=stdin, stdout=stdout)
        writer = threading.Thread(target=client.connection.sendall, args=(b"y" * 5_000_000,))
        writer.start()
        writer.join(DEADLINE)
        assert not writer.is_alive(), "the client does not read while it sends"
        received = 0
        while data := client.connection.recv(1 << 20):
            received += len(data)
        assert received == 5_000_000
        client.connection.close()
        client.ends(0)
    assert (tmp_path / "output").stat().st_size == 5_000_000


@pytest.mark.servers("v1", "v2", "v3", "v4")
def test_with_its_own_server(server: Server, name: str, program: str, python: str) -> None:
    """What the README shows: one says Hello, the other sees who said it."""
    command = [python, program, "--port", str(server.address[1])]
    listener = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    server.log.wait(lambda line: line.startswith("Cliente conectado"))
    subprocess.run(command, input=b"Hello\n", timeout=DEADLINE, check=True)
    said = server.log[server.log.wait(re.compile(r"\('127.0.0.1', \d+\) dice: Hello").fullmatch)]
    output, _ = listener.communicate(timeout=DEADLINE)
    assert listener.returncode == 0
    assert output.decode() == (f"{said}\n" if name in ("v3", "v4") else "")
