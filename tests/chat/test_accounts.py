"""Accounts and bans: of a process, by what its clients see, and what is left of passwords."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters

from benchmarks.harness.server import Server
from sock_chat import names
from sock_chat.accounts import LocalAccounts
from sock_chat.names import Nick
from sock_chat.people import LocalPeople
from sock_chat.registry import LocalNames, Table
from sock_chat.services import Ban, Check
from sock_chat.store import MEMORY, Store
from tests.chat.conftest import QUESTION, Guest, Serve
from tests.chat.world import World
from tests.support.wire import PROMPTLY, Peer

PASSWORD = "correct horse"
BANNED = "* Tienes prohibida la entrada."


def hashes(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as database:
        return dict(database.execute("SELECT shown, hash FROM accounts").fetchall())


def own(server: Any, nick: str, password: str = PASSWORD) -> Guest:
    guest = Guest(server, nick)
    guest.say(f"/register {password}")
    guest.lines(f"* El apodo {nick} es tuyo.")
    return guest


def test_an_owner_comes_back_after_a_restart(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    server = serve("--db", str(path))
    ana = own(server, "Ana")
    ana.say("/register otra cosa", "/password corta", "/password batería grapa")
    ana.lines(
        "* El apodo Ana ya es tuyo.",
        "* Una contraseña tiene de 8 a 128 caracteres.",
        "* Contraseña cambiada.",
    )
    server.stop()
    parameters = extract_parameters(hashes(path)["Ana"])
    assert parameters.type.name == "ID"
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19456, 2, 1)
    server = serve("--db", str(path))
    thief = Guest(server)
    thief.say("аna", "ana", PASSWORD, "batería grapa")
    thief.lines(
        "* El apodo аna se parece demasiado a Ana.",
        "* El apodo ana tiene dueño. ¿Contraseña?",
        "* Contraseña incorrecta.",
        "* Hola, ana. En general: ana.",
    )
    bea = Guest(server, "bea")
    thief.lines("* bea ha entrado.")
    again = Guest(server)
    again.say("/login Ana batería grapa")
    again.lines("* Hola, Ana. En general: Ana, bea.")
    thief.ends("* Has entrado desde otro sitio.")
    bea.lines("* ana ha salido.", "* Ana ha entrado.")
    again.say("/unregister", "/unregister")
    again.lines("* El apodo Ana ya no tiene dueño.", "* El apodo Ana no tiene dueño.")
    server.stop()
    assert not hashes(path)


def test_a_killed_server_keeps_accounts_and_bans(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    with Server("v5", arguments=["--db", str(path), "--operator", "ana"]) as server:
        own(server, "ana").say("/ban 192.0.2.1")
        bea = own(server, "bea")
        bea.say("/unregister")
        bea.lines("* El apodo bea ya no tiene dueño.")
        server.kill()
    server = serve("--db", str(path), "--operator", "ana")
    ana = Guest(server)
    ana.say(f"/login ana {PASSWORD}", "/bans")
    ana.lines("* Hola, ana. En general: ana.", "* Prohibidos: 192.0.2.1 (60 min)")
    assert Guest(server, "bea")


def test_forget(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    server = serve("--db", str(path))
    own(server, "ana")

    def forget(nick: str) -> tuple[int, str]:
        command = [sys.executable, "stages/v5/server.py", "--db", str(path), "--forget", nick]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)
        assert not done.stdout
        return done.returncode, done.stderr

    assert forget("ana") == (1, f"No se puede usar {path}: la usa otro servidor\n")
    server.stop()
    assert forget("bea") == (1, "El apodo bea no tiene dueño.\n")
    assert forget("ANA") == (0, "")
    assert not hashes(path)
    assert forget("2")[0] == 2
    path = tmp_path / "typo.db"
    assert forget("ana") == (1, f"No se puede usar {path}: No such file or directory\n")
    assert not path.exists()


def test_three_tries_and_ten_a_minute(serve: Serve) -> None:
    server = serve()
    own(server, "ana")
    for _ in range(3):
        guest = Guest(server)
        guest.say("ana", "uno", "dos", "tres")
        guest.ends(
            "* El apodo ana tiene dueño. ¿Contraseña?",
            *["* Contraseña incorrecta."] * 3,
            "* Demasiados intentos.",
        )
    guest = Guest(server)
    guest.say("/login ana uno", f"/login ana {PASSWORD}", "ana", "dos")
    guest.lines("* Contraseña incorrecta.")
    guest.ends("* Demasiados intentos.")


@pytest.mark.parametrize("attempts", [30, pytest.param(100, marks=pytest.mark.long)])
def test_attempts_at_once_delay_nobody(serve: Serve, attempts: int) -> None:
    server = serve()
    ana, bea = own(server, "ana"), Guest(server, "bea")
    ana.lines("* bea ha entrado.")
    peers = [Guest(server, source=f"127.0.0.{2 + number % 10}") for number in range(attempts)]
    for peer in peers:
        peer.say("/login ana incorrecta")
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.extend(peer.line(60) for peer in peers))
    thread.start()
    messages = 0
    while thread.is_alive():
        bea.say(f"{messages}")
        assert ana.line(within=PROMPTLY) == f"bea dice: {messages}"
        messages += 1
    thread.join()
    assert answers == ["* Contraseña incorrecta."] * attempts
    assert messages > 10


def test_passwords_only_by_tls_or_from_loopback(serve: Serve) -> None:
    """A proxy on loopback does not make its clients local."""
    server = serve("--trust-proxy", "127.0.0.0/8")
    own(server, "ana")
    bea = Peer(server.address)
    bea.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 8080\r\n")
    bea.say("ana", f"/login ana {PASSWORD}", "bea", f"/register {PASSWORD}", "/nick ana")
    answers = [bea.line() for _ in range(6)]
    assert answers == [
        QUESTION,
        *["* Solo por TLS."] * 2,
        "* Hola, bea. En general: ana, bea.",
        *["* Solo por TLS."] * 2,
    ]


@pytest.mark.parametrize("nick", ["bea", pytest.param("eva", marks=pytest.mark.long)])
def test_a_ban_survives_a_restart(nick: str, serve: Serve, tmp_path: Path) -> None:
    """bea has an owner, eva has not: only the address is banned with her."""
    path = tmp_path / "chat.db"
    server = serve("--db", str(path), "--operator", "Ana")
    ana, owner = own(server, "ana"), own(server, "bea")
    owner.say("/kick ana", "/quit")
    owner.lines("* Solo para operadores.")
    ana.lines("* bea ha entrado.", "* bea ha salido.")
    waiting, victim = Guest(server, source="127.0.0.9"), Guest(server, source="127.0.0.9")
    victim.say(*([nick, PASSWORD] if nick == "bea" else [nick]))
    ana.lines(f"* {nick} ha entrado.")
    ana.say(f"/ban {nick} 5")
    banned = f"127.0.0.9 (5 min){', bea (5 min)' if nick == 'bea' else ''}"
    assert {ana.line(), ana.line()} == {f"* Prohibidos: {banned}", f"* {nick} ha salido."}
    assert victim.rest().decode().endswith(f"{BANNED}\n")
    waiting.say("carla")
    waiting.ends(BANNED)
    server.stop()
    server = serve("--db", str(path), "--operator", "ana")
    assert Peer(server.address, source="127.0.0.9").rest().decode() == f"{BANNED}\n"
    guest = Guest(server)
    if nick == "bea":
        guest.say("bea")
        guest.ends(BANNED)
    ana = Guest(server)
    ana.say(f"/login ana {PASSWORD}", "/bans", "/unban 127.0.0.9", "/unban 127.0.0.9", "/bans")
    ana.line()
    ana.lines(
        f"* Prohibidos: {banned}",
        "* 127.0.0.9 puede entrar.",
        "* 127.0.0.9 no tiene prohibida la entrada.",
    )
    ana.line()
    carla = Guest(server, "carla", source="127.0.0.9")
    ana.lines("* carla ha entrado.")
    assert carla


class Loop:
    """Calls what is posted to it when it is asked to."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.store = Store(MEMORY, self.calls.put)
        self.now = 1000.0
        self.date = 1_800_000_000.0

    def wait(self, ask: Callable[..., None], *arguments: object) -> Any:
        answers: list[Any] = []
        ask(*arguments, answers.append)
        while not answers:
            self.calls.get(timeout=20)()
        return answers[0]


def nick(text: str) -> Nick:
    parsed = names.parse(text)
    assert parsed
    return parsed


ANA = nick("ana")


def test_attempts_under_way_count_as_failed_and_right_ones_do_not() -> None:
    loop, owned = Loop(), Table()
    accounts = LocalAccounts(loop.store, owned, lambda: loop.now, loop.calls.put)
    assert loop.wait(accounts.register, ANA, PASSWORD)
    assert not loop.wait(accounts.register, ANA, PASSWORD)
    checks: list[Check] = []
    for _ in range(12):
        accounts.check(ANA, PASSWORD, "192.0.2.1", checks.append)
    assert checks == [Check.TOO_MANY] * 2
    while len(checks) < 12:
        loop.calls.get(timeout=20)()
    assert checks[2:] == [Check.RIGHT] * 10
    for expected in [Check.WRONG] * 10 + [Check.TOO_MANY]:
        assert loop.wait(accounts.check, ANA, "x", "192.0.2.1") is expected
    assert loop.wait(accounts.check, ANA, PASSWORD, "192.0.2.2") is Check.RIGHT
    loop.now += 60
    assert loop.wait(accounts.check, ANA, PASSWORD, "192.0.2.1") is Check.RIGHT
    accounts.close()


def test_a_weak_hash_is_made_anew_at_login_and_a_broken_one_is_nobody_s() -> None:
    loop, owned = Loop(), Table()
    weak = PasswordHasher(1, 1024, 1).hash(PASSWORD)
    rows = [("ana", "Ana", weak), ("bea", "bea", "no hash")]
    loop.store.wait(lambda db: db.executemany("INSERT INTO accounts VALUES (?, ?, ?)", rows))
    accounts = LocalAccounts(loop.store, owned, lambda: loop.now, loop.calls.put)
    assert owned.get(ANA)
    assert loop.wait(accounts.check, ANA, PASSWORD, "::1") is Check.RIGHT
    while accounts._accounts["ana"].hash == weak:
        loop.calls.get(timeout=20)()
    hash = loop.store.wait(lambda db: db.execute("SELECT hash FROM accounts").fetchone()[0])
    assert extract_parameters(hash).memory_cost == 19456
    bea = nick("bea")
    assert loop.wait(accounts.check, bea, PASSWORD, "::1") is Check.WRONG
    accounts.close()


def test_a_disk_that_refuses_keeps_no_account_and_says_so() -> None:
    loop, owned = Loop(), Table()
    accounts = LocalAccounts(loop.store, owned, lambda: loop.now, loop.calls.put)
    loop.store.wait(lambda db: db.execute("ALTER TABLE accounts RENAME TO elsewhere"))
    assert loop.wait(accounts.register, ANA, PASSWORD) is None
    assert not owned.get(ANA)
    loop.store.wait(lambda db: db.execute("ALTER TABLE elsewhere RENAME TO accounts"))
    assert loop.wait(accounts.register, ANA, PASSWORD) is True
    loop.store.wait(lambda db: db.execute("ALTER TABLE accounts RENAME TO elsewhere"))
    assert loop.wait(accounts.unregister, ANA) is None
    assert owned.get(ANA)
    accounts.close()


def test_a_nick_is_its_owners_while_the_password_is_hashed() -> None:
    """Its holder may be gone by then, and nobody may have taken what looks like it."""
    loop, owned = Loop(), Table()
    accounts = LocalAccounts(loop.store, owned, lambda: loop.now, loop.calls.put)
    answers: list[bool | None] = []
    accounts.register(ANA, PASSWORD, answers.append)
    assert owned.get(ANA) and not answers
    while not answers:
        loop.calls.get(timeout=20)()
    assert answers == [True] and owned.get(ANA)
    accounts.close()


def test_bans_end_and_no_clock_prolongs_them() -> None:
    loop = Loop()
    reports: list[str] = []

    def people() -> LocalPeople:
        local = LocalNames(lambda: loop.now, lambda: "token")
        return LocalPeople(loop.store, local, lambda: loop.now, lambda: loop.date, reports.append)

    first = people()
    for who in ("2001:db8::1", "192.0.2.1"):
        loop.wait(first.ban, who, 10, None)
    assert first.bars("2001:db8::2") and not first.bars("2001:db8:0:1::1")
    loop.now += 30
    loop.date -= 86400
    assert loop.wait(first.bans) == [Ban("192.0.2.1", 10), Ban("2001:db8::/64", 10)]
    second = people()
    loop.now += 601
    assert not second.bars("192.0.2.1") and loop.wait(second.bans) == []
    third = people()
    assert third.bars("192.0.2.1")
    assert loop.wait(third.unban, "192.0.2.1")
    assert not third.bars("192.0.2.1")
    loop.date += 86400 + 601
    assert loop.wait(people().bans) == []
    assert not reports


def test_what_cannot_be_kept_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.own("Rosa")
    ana, rosa = world.connect("ana"), world.connect("Rosa", PASSWORD)
    for name in ("register", "change", "unregister"):
        monkeypatch.setattr(world.accounts, name, lambda *arguments: arguments[-1](None))
    ana.send("/register abcdefgh")
    rosa.send("/password abcdefgh", "/unregister")
    world.turn()
    refusal = "* Ahora no se puede guardar."
    assert ana.new()[-1] == refusal and not ana.session.owner
    assert rosa.new()[-2:] == [refusal] * 2 and rosa.session.owner


def test_an_operator_may_lift_what_bans_shows() -> None:
    world = World(operators=["rosa"])
    world.own("Rosa")
    rosa = world.connect("Rosa", PASSWORD)
    rosa.send("/ban 2001:db8::/64", "/unban 2001:db8::", "/bans")
    world.turn()
    assert rosa.new()[-3:] == [
        "* Prohibidos: 2001:db8:: (60 min)",
        "* 2001:db8:: puede entrar.",
        "* Nadie tiene prohibida la entrada.",
    ]
