"""The client between two pipes, its options, and how it ends."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE, free_port, has_ended
from tests.chat.conftest import QUESTION, Serve
from tests.chat.served import Served
from tests.chat.world import PASSWORD, World
from tests.support.run import ends

PROGRAM = [sys.executable, str(ROOT / "stages/v5/client.py")]


@pytest.fixture
def served() -> Iterator[Served]:
    world = World()
    world.own("ana")
    world.own("bea2")
    with Served(world) as served:
        yield served


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        yield listener


def talk(port: int, text: str, *options: str, status: int = 0) -> list[str]:
    """What it shows to whoever pipes text into it."""
    command = [*PROGRAM, "--port", str(port), *options]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert (done.returncode, done.stderr) == (status, "")
    return done.stdout.split("\n")


def said(served: Served) -> list[str]:
    return [message.text for _, message in served.world.log.messages]


def test_all_that_is_piped_in_is_said_and_answered(served: Served) -> None:
    lines = [f"line {number}" for number in range(500)]
    shown = talk(served.port, "\n".join(["bea", *lines, "/rooms"]))
    assert said(served) == lines, "the last line has no newline"
    assert shown == [QUESTION, "* Hola, bea. En general: bea.", "* Salas: general (1)", ""]


def test_a_rate_limit_delays_and_loses_nothing() -> None:
    world = World(rate=5)
    with Served(world) as served:
        process = subprocess.Popen(
            [*PROGRAM, "--port", str(served.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdin
            process.stdin.write("bea\n" + "hola\n" * 200)
            process.stdin.close()
            while not has_ended(process.pid, 0.05):

                def tick() -> None:
                    world.clock += 1.0

                served.do(tick)
        assert process.returncode == 0
        assert said(served) == ["hola"] * 200


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"ana\n{PASSWORD}\n", "* Hola, ana. En general: ana."),
        ("ana\n", "* ¿Qué apodo quieres?"),
        ("ana\nwrong", "* ¿Qué apodo quieres?"),
        ("ana\n/quit\n", "* ¿Qué apodo quieres?"),
        ("bea\n/nick ana\n", "* El apodo ana tiene dueño. ¿Contraseña?"),
        ("bea\n/nick ana\n/quit\n", "* Contraseña incorrecta."),
        ("bea\n/quit adiós\n", "* Hola, bea. En general: bea."),
        ("bea\n/QUIT", "* Hola, bea. En general: bea."),
    ],
)
def test_it_ends_whatever_is_asked(served: Served, text: str, answer: str) -> None:
    assert talk(served.port, text)[-2:] == [answer, ""]
    assert said(served) == []


@pytest.mark.parametrize("last", ["\x04", "\x03"])
def test_a_terminal_that_types_into_it_shows_no_password(served: Served, last: str) -> None:
    """As in `sock-chat | tee log`."""
    terminal, stdin = os.openpty()
    settings = termios.tcgetattr(stdin)
    command = [*PROGRAM, "--port", str(served.port)]
    setsid = ["setsid", "--ctty", "--wait"]  # for Ctrl-C to be a signal
    with subprocess.Popen(
        [*setsid, *command], stdin=stdin, stdout=subprocess.PIPE, text=True
    ) as process:
        shown = b""
        assert process.stdout
        for text, answer in (
            ("ana", "* El apodo ana tiene dueño. ¿Contraseña?"),
            ("wrong", "* Contraseña incorrecta."),
            (PASSWORD, "* Hola, ana. En general: ana."),
            ("/list", "* En general (1): ana"),
            ("/nick bea2", "* El apodo bea2 tiene dueño. ¿Contraseña?"),
        ):
            os.write(terminal, f"{text}\n".encode())
            while process.stdout.readline() != f"{answer}\n":
                pass
            shown += os.read(terminal, 1000) if "/" in text else b""
        assert shown == b"ana\r\n/list\r\n/nick bea2\r\n"
        os.write(terminal, last.encode())
        assert process.wait(DEADLINE) == (130 if last == "\x03" else 0)
        assert termios.tcgetattr(stdin) == settings
    os.close(terminal)
    os.close(stdin)


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("leaves", [False, True])
def test_a_server_that_goes_away(listener: socket.socket, how: str, leaves: bool) -> None:
    """That is no error to who has said /quit, also where more stdin may come."""
    command = [*PROGRAM, "--port", str(listener.getsockname()[1])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(DEADLINE)
            assert process.stdin and process.stdout and process.stderr
            if leaves:
                process.stdin.write("/quit\n")
                process.stdin.flush()
                assert connection.recv(100) == b"/quit\n"
            connection.sendall(b"servidor lleno\n")
            assert process.stdout.readline() == "servidor lleno\n"
            if how == "RST":
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert has_ended(process.pid, DEADLINE)
        assert process.wait(DEADLINE) == (0 if leaves else 1)
        errors = process.stderr.read()
        assert errors == "" if leaves else errors.startswith("El servidor ")
        assert errors.count("\n") <= 1


def test_a_server_that_is_not_there() -> None:
    port = free_port()
    errors = ends([*PROGRAM, "--port", str(port)], 1)
    assert errors == f"No se puede conectar con ('127.0.0.1', {port}): Connection refused\n"
    assert ends([*PROGRAM, "--host", "a..b"], 1).startswith("No se puede conectar con ('a..b', 80")


def test_a_server_that_speaks_no_tls(served: Served) -> None:
    errors = ends([*PROGRAM, "--tls", "--port", str(served.port)], 1)
    assert errors.startswith("No se puede conectar con ")
    assert errors.count("\n") == 1


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    with Served(World(), tls) as served:
        options = ["--tls", "--cafile", str(tmp_path / "ca.pem")]
        lines = ["hola " * 100] * 200  # several reads
        shown = talk(served.port, "\n".join(["bea", *lines]), *options, "--host", "localhost")
        assert shown == [QUESTION, "* Hola, bea. En general: bea.", ""]
        assert said(served) == lines
        for wrong in (["--tls", "--host", "localhost"], options):
            errors = ends([*PROGRAM, *wrong, "--port", str(served.port)], 1)
            assert "certificado no válido: " in errors
            assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "status", "line"),
    [
        (["--port", "99999"], 2, "argument --port: not a port from 0 to 65535: '99999'"),
        (["--cafile", "x"], 2, "--cafile: only with --tls"),
        (["--tls", "--cafile", "/nowhere"], 1, "No se puede leer /nowhere: "),
        (["--tls", "--cafile", __file__], 1, f"No se puede leer {__file__}: "),
    ],
)
def test_bad_options(options: list[str], status: int, line: str) -> None:
    assert line in ends([*PROGRAM, *options], status).splitlines()[-1]


def test_without_the_extra_one_line_says_how_to_install_it() -> None:
    errors = ends([sys.executable, "-S", *PROGRAM[1:]], 1)
    assert errors.count("\n") == 1
    assert f"{sys.executable} -m pip install " in errors
    assert "prompt-toolkit" in errors


def test_with_its_own_server(serve: Serve) -> None:
    """Two processes: one says Hello, the other sees who it was."""
    server = serve()
    command = [*PROGRAM, "--port", str(server.address[1])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as listener:
        assert listener.stdin and listener.stdout
        listener.stdin.write("bea\n")
        listener.stdin.flush()
        assert listener.stdout.readline() == f"{QUESTION}\n"
        assert listener.stdout.readline() == "* Hola, bea. En general: bea.\n"
        talk(server.address[1], "ana\nHello\n")
        listener.stdin.close()
        lines = ["* ana ha entrado.", "ana dice: Hello", "* ana ha salido."]
        assert listener.stdout.read() == "".join(f"{line}\n" for line in lines)
    assert listener.returncode == 0
