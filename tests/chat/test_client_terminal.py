"""The client at a terminal, which pyte plays: what one sees, and what one does not."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pyte
import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE
from tests.chat.conftest import QUESTION
from tests.chat.served import Served
from tests.chat.world import PASSWORD, Client, World

ROWS, COLUMNS = 40, 80


class Terminal:
    """A process at a terminal, and the screen of that."""

    def __init__(self, port: int, **environment: str):
        self.master, self.slave = os.openpty()
        size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)
        self.settings = termios.tcgetattr(self.slave)
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.output = b""
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "stages/v5/client.py"), "--port", str(port)],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **environment},
        )

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def lines(self) -> list[str]:
        """What stands on the screen, down to the last line that has something."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip("\n").split("\n")

    def read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], timeout)
        if ready:
            data = os.read(self.master, 65536)
            self.output += data
            self.stream.feed(data)
        return bool(ready)

    def wait(self, condition: Callable[[list[str]], object]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition(self.lines()):
            assert self.read(max(0.0, deadline - time.monotonic())), "\n".join(self.lines())

    def shows(self, *lines: str) -> None:
        """These are the last lines; the cursor is at the end of the last."""
        cursor = self.screen.cursor
        self.wait(lambda shown: shown[-len(lines) :] == list(lines))
        self.wait(lambda shown: cursor.y == len(shown) - 1)
        assert cursor.x in (len(lines[-1]), len(lines[-1]) + 1)

    def ends(self, status: int) -> None:
        """It ends by itself, and leaves the terminal as it was."""
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "\n".join(self.lines())
            self.read(0.05)
        while self.read(0):
            pass
        assert self.process.returncode == status, "\n".join(self.lines())
        assert termios.tcgetattr(self.slave) == self.settings

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def served() -> Iterator[Served]:
    world = World()
    world.own("ana")
    with Served(world) as served:
        yield served


@pytest.fixture
def terminal(served: Served) -> Iterator[Terminal]:
    terminal = Terminal(served.port)
    try:
        terminal.shows(QUESTION, ">")
        yield terminal
    finally:
        terminal.close()


@pytest.fixture
def bea(served: Served, terminal: Terminal) -> Client:
    """Somebody else, after carlos has come in at the terminal."""
    terminal.type("carlos\r")
    terminal.shows("> carlos", "* Hola, carlos. En general: carlos.", "carlos>")
    (bea,) = served.do(lambda: list(served.world.enter("bea")))
    terminal.shows("* bea ha entrado.", "carlos>")
    return bea


def says(served: Served, client: Client, *lines: str) -> None:
    served.do(lambda: client.send(*lines))


def test_half_a_line_stays_below_what_comes_in(
    served: Served, terminal: Terminal, bea: Client
) -> None:
    terminal.type("a medio escr")
    terminal.shows("* bea ha entrado.", "carlos> a medio escr")
    says(served, bea, *[f"{number} {'x' * 100}" for number in range(5)], "fin")
    terminal.shows("bea dice: fin", "carlos> a medio escr")
    text = "\n".join(terminal.lines())
    assert text.count("carlos> ") == 1
    assert [f"bea dice: {n} " in text for n in range(5)] == [True] * 5
    terminal.type("ibir\r/rooms\r")
    terminal.shows("carlos> a medio escribir", "carlos> /rooms", "* Salas: general (2)", "carlos>")
    assert served.do(lambda: bea.new())[-1] == "carlos dice: a medio escribir"


def test_words_are_completed(served: Served, terminal: Terminal, bea: Client) -> None:
    terminal.type("/pm b\t hola\r/rooms\r")
    terminal.shows("carlos> /pm bea hola", "carlos> /rooms", "* Salas: general (2)", "carlos>")
    assert served.do(lambda: bea.new()) == ["carlos te dice: hola"]
    terminal.type("/pas\t")
    terminal.shows("carlos> /password")


def test_a_password_is_never_on_the_screen(served: Served, terminal: Terminal) -> None:
    terminal.type("ana\r")
    asked = "* El apodo ana tiene dueño. ¿Contraseña?"
    terminal.shows("> ana", asked, "Contraseña:")
    terminal.type("wrong")
    terminal.shows(asked, "Contraseña: *****")
    terminal.type("\r")
    terminal.shows("Contraseña: ***", "* Contraseña incorrecta.", "Contraseña:")
    terminal.type(PASSWORD + "\r")
    terminal.shows("Contraseña: ***", "* Hola, ana. En general: ana.", "ana>")
    terminal.type("/password another secret\r")
    terminal.shows("ana> /password **************", "* Contraseña cambiada.", "ana>")
    # The arrow key brings back what has been typed, but for passwords: that is the nick.
    terminal.type("\x1b[A")
    terminal.shows("* Contraseña cambiada.", "ana> ana")
    terminal.type("\x1b[A\x15hola\r/list\r")
    terminal.shows("* En general (1): ana", "ana>")
    for secret in ("wrong", PASSWORD, "another", "secret", "rrec", "ret"):
        assert secret not in re.sub(r"incorrecta", "", terminal.output.decode())
    assert [message.text for _, message in served.world.log.messages] == ["hola"]


def test_a_password_that_nobody_wants_any_more_is_forgotten(
    served: Served, terminal: Terminal
) -> None:
    """The question goes with the connection; what was typed for it does not become a message."""
    terminal.type("ana\r")
    terminal.shows("* El apodo ana tiene dueño. ¿Contraseña?", "Contraseña:")
    terminal.type(PASSWORD + "\r")
    terminal.shows("* Hola, ana. En general: ana.", "ana>")
    served.do(served.cut)
    terminal.wait(lambda lines: "! Hay conexión." in lines)
    terminal.shows("* El apodo ana tiene dueño. ¿Contraseña?", "Contraseña:")
    terminal.type("secret")
    terminal.shows("* El apodo ana tiene dueño. ¿Contraseña?", "Contraseña: ******")
    served.do(served.cut)
    terminal.wait(lambda lines: lines[-2].startswith("! ") and lines[-1] == ">")
    assert b"secret" not in terminal.output


def test_it_connects_again_and_says_so(served: Served, terminal: Terminal, bea: Client) -> None:
    terminal.type("/join cine\r")
    terminal.shows("carlos> /join cine", "* En cine: carlos.", "carlos>")
    served.shut()
    served.do(served.cut)
    lost = re.compile(r"! El servidor .+\. Otro intento en \d+\.\d s\.")
    terminal.wait(lambda lines: any(map(lost.fullmatch, lines)))
    terminal.wait(lambda lines: any("No se puede conectar con" in line for line in lines))
    terminal.type("hola\r")
    terminal.wait(lambda lines: "! Sin conexión: no se ha enviado." in lines)
    served.open()
    terminal.wait(lambda lines: "! Hay conexión." in lines)
    terminal.shows("* Hola, carlos. En general: bea, carlos.", "* En cine: carlos.", "carlos>")
    terminal.type("aquí\r")
    terminal.shows("carlos> aquí", "carlos>")
    terminal.type("/rooms\r")
    terminal.shows("* Salas: cine (1), general (1)", "carlos>")
    assert [message.text for _, message in served.world.log.messages] == ["aquí"]


@pytest.mark.parametrize("last", ["/quit adiós\r", "medio\x03", "\x04", "/list\r\x04"])
def test_who_leaves(served: Served, terminal: Terminal, bea: Client, last: str) -> None:
    terminal.type(last)
    terminal.ends(0)
    text = " adiós" if "adiós" in last else ""
    end = f"* carlos ha salido{':' + text if text else '.'}"
    assert served.do(lambda: bea.new())[-1] == end
    if last.startswith("/list"):
        assert "* En general (2): bea, carlos" in terminal.lines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_the_terminal_as_it_was(terminal: Terminal, number: int) -> None:
    terminal.process.send_signal(number)
    terminal.ends(0)


def test_a_password_is_asked_when_one_leaves(served: Served, terminal: Terminal) -> None:
    """What the client says by itself is not taken for it."""
    terminal.type("ana\r")
    terminal.shows("* El apodo ana tiene dueño. ¿Contraseña?", "Contraseña:")
    terminal.type("\x04")
    terminal.ends(0)
    assert "* Contraseña incorrecta." not in terminal.lines()


def test_who_is_thrown_out_does_not_come_back(
    served: Served, terminal: Terminal, bea: Client
) -> None:
    served.do(lambda: served.connections[0].client.session.kick("por hablar"))
    terminal.ends(1)
    assert "* Te han echado: por hablar" in terminal.lines()
    assert "! El servidor ha cerrado la conexión." in terminal.lines()
    assert len(served.connections) == 0


def test_what_the_server_says_does_nothing_to_the_terminal(
    served: Served, terminal: Terminal
) -> None:
    """Even if it is a server that lets everything pass."""
    data = b"\x1b[2J\x1b]0;title\x07\x1b[31m\x9b2J fin\n"
    served.do(lambda: served.connections[0].transport.write(data))
    terminal.wait(lambda lines: any(line.endswith("fin") for line in lines))
    assert QUESTION in terminal.lines()
    assert "title" not in terminal.screen.title
    assert b"\x1b[2J" not in terminal.output


def test_a_paste_of_several_lines(served: Served, terminal: Terminal, bea: Client) -> None:
    terminal.type("\x1b[200~uno\ndos\x1b[201~\r/rooms\r")
    terminal.shows("carlos> uno", "dos", "carlos> /rooms", "* Salas: general (2)", "carlos>")
    assert served.do(lambda: bea.new()) == ["carlos dice: uno", "carlos dice: dos"]


def test_what_is_pasted_does_nothing_to_the_terminal(
    served: Served, terminal: Terminal, bea: Client
) -> None:
    terminal.type("\x1b[200~uno \x1b[2J\x1b[201~\r")
    os.write(terminal.master, b"\xff dos\r/rooms\r")  # not UTF-8
    terminal.shows("carlos> /rooms", "* Salas: general (2)", "carlos>")
    assert b"\x1b[2J" not in terminal.output
    assert "carlos> uno \ufffd[2J" in terminal.lines()
    assert [line[-4:] for line in served.do(lambda: bea.new())] == ["\ufffd[2J", " dos"]


def test_a_terminal_that_cannot_show_a_character(served: Served) -> None:
    terminal = Terminal(served.port, PYTHONIOENCODING="ascii")
    try:
        terminal.shows("* Bienvenido a sock_chat. \\xbfQu\\xe9 apodo quieres?", ">")
        terminal.type("eva\r")
        terminal.shows("> eva", "* Hola, eva. En general: eva.", "eva>")
    finally:
        terminal.close()


def test_a_terminal_that_has_gone(served: Served, terminal: Terminal, bea: Client) -> None:
    """read(2) fails with EIO."""
    os.close(terminal.slave)
    os.close(terminal.master)
    assert terminal.process.wait(DEADLINE) is not None
    terminal.master, terminal.slave = os.openpty()
    assert served.do(lambda: bea.new())[-1].startswith("* carlos ha salido")
