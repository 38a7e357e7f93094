"""What nobody may find anywhere: passwords, and what is said to one alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.server import Server
from tests.chat.conftest import Guest, Serve

SECRET = "Grapa-4711-batería"
FAULTS = {
    "at the password": "names.parse_password = fail",
    "at the hash": "argon2.PasswordHasher.hash = fail",
    "at its check": "argon2.PasswordHasher.verify = fail",
    "at the answer": "naming.take_as_owner = commands.Notice = fail",
}
FAULTY = """
import sys
sys.path.insert(0, {folder!r})
import argon2
from sock_chat import session
from sock_chat import __main__, commands, names, naming

def fail(*values, **_):
    raise ValueError(*values, {secret!r})

exec(sys.argv.pop(1))
sys.exit(__main__.main())
"""


def test_passwords_and_private_messages_are_nowhere(serve: Serve, tmp_path: Path) -> None:
    path, whisper = tmp_path / "chat.db", "susurro-4711"
    server = serve("--db", str(path), "--log-messages")
    ana = Guest(server, "ana")
    ana.say(f"/register {SECRET}")
    ana.lines("* El apodo ana es tuyo.")
    bea = Guest(server)
    bea.say("ana", f"{SECRET} no", "", "bea")
    ana.lines("* bea ha entrado.")
    bea.say(f"/login ana {SECRET}x", f"/pm ana {whisper}", "aloud")
    ana.lines(f"bea te dice: {whisper}", "bea dice: aloud")
    ana.say(f"/password {SECRET}3")
    ana.lines("* Contraseña cambiada.")
    title = Path(f"/proc/{server.pid}/cmdline").read_bytes()
    files = [file.read_bytes() for file in tmp_path.iterdir()]
    server.stop()
    files += [file.read_bytes() for file in tmp_path.iterdir()]
    log = "\n".join(server.log.rest()).encode()
    for text in (*files, title, log):
        assert b"4711" not in text
    assert b"bea dice: aloud" in log
    for kept in (b"argon2id", b"aloud"):
        assert any(kept in text for text in files)


@pytest.mark.parametrize("loop", ["uvloop", pytest.param("asyncio", marks=pytest.mark.long)])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_exception_with_a_password_in_it_is_told_without_it(
    fault: str, loop: str, tmp_path: Path
) -> None:
    """And whoever has brought it about is the only one who notices."""
    script = tmp_path / "faulty.py"
    script.write_text(FAULTY.format(folder=str(ROOT / "stages" / "v5"), secret=SECRET))
    options = f"--port {{port}} --loop {loop} --db :memory:"
    with Server(f"{sys.executable} {script} '{FAULTS[fault]}' {options}", asks=True) as server:
        bea = Guest(server, "bea")
        for nick, line in (("ana", f"/register {SECRET}"), ("eva", f"/login ana {SECRET}")):
            guest = Guest(server, nick)
            guest.say(line, "/quit")
            guest.rest()
            bea.lines(f"* {nick} ha entrado.", f"* {nick} ha salido.")
        bea.say("/pm bea hola")
        bea.lines("bea te dice: hola")
        assert server.stop() == 0
        errors = server.errors.rest()
        assert not [line for line in (*errors, *server.log.rest()) if "4711" in line]
        assert all(line.startswith("Error interno: ValueError en ") for line in errors)
        assert bool(errors) == (fault in ("at the password", "at the answer"))
