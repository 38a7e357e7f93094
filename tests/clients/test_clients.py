"""client.py of each stage, against a server that the test plays itself; against its own:
test_headers.py."""

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
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE, cpu_seconds, free_port, has_ended, wait_until
from tests.support.run import ends, stat

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

    def sends(self, text: str) -> None:
        """The server receives exactly this next."""
        assert take(self.connection.fileno(), len(text.encode())).decode() == text

    def shows(self, text: str) -> None:
        """This comes out of its stdout next."""
        assert self.process.stdout
        assert take(self.process.stdout.fileno(), len(text.encode())).decode() == text

    def finishes(self) -> None:
        """Its FIN comes next; the server closes."""
        assert self.connection.recv(1) == b""
        self.connection.close()

    def ends(self, status: int, *errors: str) -> str:
        """It ends by itself, with lines on stderr that begin so; the rest of its stdout."""
        # With its stdin still open: an EOF there is an end as well.
        assert has_ended(self.process.pid, DEADLINE)
        output, stderr = self.process.communicate()
        assert self.process.returncode == status, stderr
        assert re.fullmatch("".join(f"{re.escape(error)}.*\n" for error in errors), stderr.decode())
        return (output or b"").decode()

    def comes_to_rest(self) -> None:
        """It sleeps, and its CPU time stands still; a client that spins never gets there."""
        used = [-1.0]

        def rests() -> bool:
            used.append(cpu_seconds(self.process.pid))
            return used[-2] == used[-1] and stat(self.process.pid)[0] == "S"

        wait_until(rests, "it never comes to rest", pause=0.05)


def take(fd: int, size: int) -> bytes:
    """What comes next, or what came before the end or the deadline."""
    data = b""
    deadline = time.monotonic() + DEADLINE
    while len(data) < size and select.select([fd], [], [], deadline - time.monotonic())[0]:
        more = os.read(fd, size - len(data))
        if not more:
            break
        data += more
    return data


def drain(connection: socket.socket) -> int:
    """Receive to the end; how many bytes that were."""
    return sum(map(len, iter(lambda: connection.recv(1 << 20), b"")))


@pytest.fixture
def program(name: str) -> str:
    return str(ROOT / "stages" / name / "client.py")


@pytest.fixture
def launch(program: str, python: str) -> Iterator[Launch]:
    """Start the client and accept its connection: `launch(stdin=...)`, options as of Popen.

    file: what the file has that is its stdin. closed: the streams that it lacks, as a shell closes
    them. encoding: of stdin and stdout.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(DEADLINE)

        def launch(
            file: str = "", closed: str = "", encoding: str = "utf-8", **options: Any
        ) -> Client:
            options = {**dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE), **options}
            if file:
                options["stdin"] = stack.enter_context(tempfile.TemporaryFile())
                options["stdin"].write(file.encode())
                options["stdin"].seek(0)
            command = [python, "-S", program, "--port", str(listener.getsockname()[1])]
            process = subprocess.Popen(
                ["sh", "-c", f'exec "$@" {closed}', "sh", *command],
                env={**os.environ, "PYTHONIOENCODING": encoding},
                **options,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            connection, _ = listener.accept()
            return Client(process, stack.enter_context(connection))

        yield launch


@pytest.mark.parametrize(
    "stdin",
    [{}, {"file": "from a file\n" * 30_000 + "no newline"}, {"stdin": subprocess.DEVNULL}],
    ids=["pipe", "file", "nothing"],
)
def test_at_the_end_of_input_it_half_closes_and_shows_the_rest(
    launch: Launch, stdin: dict[str, Any]
) -> None:
    """epoll refuses a file."""
    client = launch(**stdin)
    if client.process.stdin:
        client.process.stdin.close()
        client.process.stdin = None
    client.sends(stdin.get("file", ""))
    assert client.connection.recv(1) == b"", "FIN"
    client.connection.sendall(b"still for you\n" * 1000 + b"the end")
    client.connection.close()
    assert client.ends(0) == "still for you\n" * 1000 + "the end"


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_standard_streams_closed_at_start(launch: Launch, closed: str) -> None:
    """The connection must not get their numbers: what is shown would go to the server."""
    client = launch(closed=closed)
    assert client.connection.recv(1) == b"", "the end of its input"
    client.connection.sendall(b"bye\n")
    client.connection.shutdown(socket.SHUT_WR)
    assert client.connection.recv(1) == b""
    assert client.ends(0) == ("" if ">" in closed else "bye\n")


def test_terminal(launch: Launch) -> None:
    """Lines typed at a terminal, Ctrl-D at the end; the terminal stays as it was."""
    master, slave = os.openpty()
    try:
        client = launch(stdin=slave, stdout=slave)
        os.write(master, "tecleado ñ\n".encode())
        client.sends("tecleado ñ\n")
        assert os.get_blocking(slave), "a terminal made non-blocking takes the shell with it"
        client.connection.sendall(b"shown\n")
        os.write(master, b"\x04")
        client.finishes()
        client.ends(0)
        shown = take(master, len("tecleado ñ\r\nshown\r\n".encode())).decode()
        assert sorted(shown.splitlines()) == ["shown", "tecleado ñ"]
    finally:
        os.close(master)
        os.close(slave)


def test_what_is_shown_is_escaped(launch: Launch) -> None:
    client = launch()
    client.connection.sendall("a\x1b[2J\u202e\x00\r\x9b\u2028 ñ€𝄞 \u3000\n".encode())
    client.shows("a\\x1b[2J\\u202e\\x00\\r\\x9b\\u2028 ñ€𝄞 \\u3000\n")
    for byte in "ñ€\n".encode():
        client.connection.sendall(bytes([byte]))
    client.shows("ñ€\n")
    client.connection.sendall(b"\xff|\xf0\x9f")
    client.connection.shutdown(socket.SHUT_WR)
    assert client.ends(1, "El servidor") == "\ufffd|\ufffd"


def test_a_terminal_that_cannot_show_a_character(launch: Launch) -> None:
    client = launch(encoding="ascii")
    client.connection.sendall("año €\n".encode())
    client.shows("a\\xf1o \\u20ac\n")


def test_a_server_that_resets(launch: Launch) -> None:
    client = launch()
    client.connection.sendall(b"servidor lleno\n")
    client.shows("servidor lleno\n")
    linger = struct.pack("ii", 1, 0)
    client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.connection.close()
    client.ends(1, "El servidor")


def test_a_server_that_goes_away_while_much_is_being_sent(launch: Launch) -> None:
    for number in range(4):
        client = launch(file="much to say\n" * 500_000)
        client.connection.recv(10_000 * number or 1)
        client.connection.close()
        client.ends(1, "El servidor")


def test_a_server_that_says_goodbye_before_it_has_taken_all(launch: Launch) -> None:
    """Status 0 means that all was taken, whatever fits into the buffers between."""
    statuses = []
    for size in (10_000, 2_600_000, 2_800_000, 5_000_000):
        client = launch(file="x" * size)
        client.comes_to_rest()
        client.connection.shutdown(socket.SHUT_WR)
        statuses.append(client.process.wait(DEADLINE))
        assert statuses[-1] == (0 if drain(client.connection) == size else 1)
    assert (statuses[0], statuses[-1]) == (0, 1), "too small, or too large, for what is tested"


def test_a_server_that_does_not_read_makes_the_keyboard_wait(launch: Launch) -> None:
    """The rest of an endless input stays where it is, and not in memory."""
    with open("/dev/zero", "rb") as stdin:
        client = launch(stdin=stdin)
        client.comes_to_rest()
        resident = int(stat(client.process.pid)[21]) * resource.getpagesize()
        assert resident < 60 << 20


def test_a_terminal_that_has_gone(launch: Launch) -> None:
    """read(2) fails with EIO: the end of input."""
    master, slave = os.openpty()
    client = launch(stdin=slave)
    os.close(slave)
    os.close(master)
    client.finishes()
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
    client.sends("here I am\n")
    os.close(writer)
    client.finishes()
    client.ends(0)


@pytest.mark.parametrize("host", ["127.0.0.1", "a..b", "\udcff"], ids=range(3))
def test_a_server_that_is_not_there(program: str, python: str, host: str) -> None:
    errors = ends([python, program, "--host", host, "--port", str(free_port())], 1)
    assert re.fullmatch(r"No se puede conectar con \(.+\n", errors)


def test_bad_port(program: str, python: str) -> None:
    assert "Traceback" not in ends([python, program, "--port", "99999"], 2)


def test_ctrl_c_when_idle(launch: Launch) -> None:
    """Between two lines it does not spin."""
    client = launch()
    client.type("one\n")
    client.sends("one\n")
    client.comes_to_rest()
    client.process.send_signal(signal.SIGINT)
    assert client.ends(130) == ""


def test_stdout_that_nobody_reads_any_more(launch: Launch) -> None:
    client = launch()
    assert client.process.stdout
    client.process.stdout.close()
    client.process.stdout = None
    client.connection.sendall(b"anybody there?\n")
    client.ends(1, "No se puede mostrar nada: Broken pipe")


def test_much_in_both_directions_does_not_lock_up(launch: Launch) -> None:
    """The server sends before it reads, more than all buffers hold, and so does the client."""
    with tempfile.TemporaryFile() as stdout:
        client = launch(file=("x" * 999 + "\n") * 5000, stdout=stdout)
        writer = threading.Thread(target=client.connection.sendall, args=(b"y" * 5_000_000,))
        writer.start()
        writer.join(DEADLINE)
        assert not writer.is_alive(), "the client does not read while it sends"
        assert drain(client.connection) == 5_000_000
        client.connection.close()
        client.ends(0)
        assert stdout.seek(0, os.SEEK_END) == 5_000_000
