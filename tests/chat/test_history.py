"""History on the disk: what befalls files and disks, and what clients see of it."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from threading import Thread, Timer

import pytest

from benchmarks.harness.server import Server
from sock_chat.log import Past
from sock_chat.memory_log import MemoryLog
from sock_chat.sqlite_log import QUEUE_SIZE
from sock_chat.store import JOURNAL_SIZE, StoreError
from tests.chat.conftest import Guest, Serve
from tests.chat.history import History, texts_in
from tests.chat.speaker import turn
from tests.support.needed import needed_in_ci


def test_another_program_that_locks_the_database_costs_nothing(tmp_path: Path) -> None:
    history = History(tmp_path / "chat.db")
    with closing(sqlite3.connect(history.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        history.say("uno")
        history.disk.turn()
        (line,) = history.reports
        assert line == "El historial no se guarda: database is locked"
        other.execute("COMMIT")
    history.say("dos")
    history.disk.turn()
    assert history.reports[1:] == ["El historial se guarda de nuevo; faltan 0 mensajes."]
    history.close()
    assert [text for _, text in texts_in(tmp_path / "chat.db")] == ["uno", "dos"]


def test_a_lock_at_the_start_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    History(path).close()
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = Timer(0.3, lambda: other.execute("COMMIT"))
        timer.start()
        History(path).close()
        timer.join()
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked"):
            History(path)


def make_directory(path: Path) -> None:
    path.mkdir()


def write_garbage(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def make_future(path: Path) -> None:
    History(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 999")


def make_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")


def break_lock(path: Path) -> None:
    Path(f"{path}.lock").mkdir()


def leave_out(path: Path) -> None:
    path.parent.rmdir()


START_ERRORS = {
    make_directory: "Is a directory",
    write_garbage: "file is not a database",
    make_future: "la ha escrito una versión más nueva de sock_chat",
    make_foreign: "es de otro programa",
    break_lock: "Is a directory",
    leave_out: "No such file or directory",
}


@pytest.mark.parametrize(("prepare", "reason"), START_ERRORS.items())
def test_a_database_that_cannot_be_used(
    prepare: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "chat.db"
    path.parent.mkdir()
    prepare(path)
    before = path.read_bytes() if path.is_file() else b""
    lock = Path(f"{path}.lock")
    with pytest.raises(StoreError) as info:
        History(path)
    assert str(info.value) == f"No se puede usar {path}: {reason}"
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert not lock.is_file() or prepare in (make_future, make_foreign), "beside somebody's file"


def test_one_server_a_file(tmp_path: Path) -> None:
    history = History(tmp_path / "chat.db")
    with pytest.raises(StoreError, match="la usa otro servidor"):
        History(tmp_path / "chat.db")
    history.close()
    History(tmp_path / "chat.db").close()


def test_old_messages_go_a_few_at_a_time(tmp_path: Path) -> None:
    history = History(tmp_path / "chat.db", keep=10_000)
    history.say(*map(str, range(5000)))
    history.close()
    history = History(tmp_path / "chat.db", keep=100)
    counts: list[int] = []
    while not counts or history.disk.timers:
        if not counts:
            history.say("last")
        history.disk.turn()
        counts.append(len(texts_in(tmp_path / "chat.db")))
    assert 5001 - 501 <= counts[0] < 4600 and counts[-1] == 101, "whole chunks"
    assert all(a - b <= 501 for a, b in pairwise(counts))
    assert history.latest(count=200)[-1] == "last"
    past = history.after("general", 1, 1000, history.log.position)
    assert past.gap and len(past.messages) == 101
    history.close()


def test_a_speaker_waits_when_its_share_of_the_queue_is_full(tmp_path: Path) -> None:
    history, woken = History(tmp_path / "chat.db"), []

    class Author:
        def wake(self) -> None:
            woken.append(self)

    ana, bea, carla = Author(), Author(), Author()
    text = "x" * 4000
    while not history.log.full(ana):
        history.say(*[text] * 15, author=ana)
    assert QUEUE_SIZE // 2 <= history.log._size < QUEUE_SIZE // 2 + 65_000
    while not history.log.full(bea):
        history.say(*[text] * 15, author=bea)
    assert QUEUE_SIZE * 3 // 4 <= history.log._size < QUEUE_SIZE * 3 // 4 + 130_000
    assert not history.log.full(carla)
    assert not woken
    history.disk.turn()
    assert set(woken) == {ana, bea}
    assert not history.log.full(ana) and not history.log._size and not history.log._shares
    history.disk.refusing = True
    for _ in range(100):
        history.say(*[text] * 15, author=ana)
        history.disk.turn()
        assert not history.log.full(ana), "nobody waits for a disk that refuses"
        assert history.log._size <= QUEUE_SIZE + 65_000
    assert len(history.reports) == 1
    history.disk.refusing = False
    history.close()


def test_an_idle_log_does_nothing(tmp_path: Path) -> None:
    history = History(tmp_path / "chat.db")
    history.say("hola")
    while history.disk.timers:
        history.disk.turn()
    assert history.disk.calls.empty()
    mode = os.stat(history.path).st_mode & 0o777
    assert mode == 0o600, "passwords are in it"
    history.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["chat.db", "chat.db.lock"]


def test_memory_keeps_nothing() -> None:
    log = MemoryLog("epoch")
    log.subscribe(lambda turn: None, lambda turn, text: None)
    log.append(turn("general", *map(str, range(300))))
    pasts: list[Past] = []
    log.latest("general", 2, log.position, pasts.append)
    log.after("general", 50, 1000, log.position, pasts.append)
    log.after("general", 299, 1000, log.position, pasts.append)
    assert [([s.text for s in past.messages], past.gap) for past in pasts] == [
        (["298", "299"], True),
        ([str(number) for number in range(100, 300)], True),
        (["299"], False),
    ]


# The server


def test_history_before_the_greeting_and_after_the_stop(serve: Serve, tmp_path: Path) -> None:
    server = serve("--db", str(tmp_path / "chat.db"))
    ana = Guest(server, "ana")
    ana.say(*map(str, range(60)), "/join cine", "hola", "/list")
    ana.lines("* En cine: ana.", "* En cine (1): ana")
    server.stop()
    assert len(texts_in(tmp_path / "chat.db")) == 61
    server = serve("--db", str(tmp_path / "chat.db"))
    bea = Guest(server)
    bea.say("bea")
    shown = [bea.line() for _ in range(20)]
    assert re.fullmatch(r"\[20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\] ana dice: 40", shown[0])
    assert [line.split()[-1] for line in shown] == list(map(str, range(40, 60)))
    bea.lines("* Hola, bea. En general: bea.")
    bea.say("/history")
    assert [bea.line().split()[-1] for _ in range(50)] == list(map(str, range(10, 60)))
    bea.say("/join cine")
    assert bea.line().endswith("] ana dice: hola")
    bea.lines("* En cine: bea.")


def test_a_killed_server_keeps_what_was_said(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    with Server("v5", arguments=["--db", str(path)]) as server:
        ana = Guest(server, "ana")
        ana.say(*map(str, range(5000)), "/list")
        ana.lines("* En general (1): ana")
        deadline = time.monotonic() + 10
        while len(texts_in(path)) < 5000:
            assert time.monotonic() < deadline
        server.kill()
    server = serve("--db", str(path))
    bea = Guest(server)
    bea.say("bea", "/history 200", "hola")
    assert [bea.line().split()[-1] for _ in range(20)] == list(map(str, range(4980, 5000)))
    bea.line()
    assert [bea.line().split()[-1] for _ in range(200)] == list(map(str, range(4800, 5000)))
    server.stop()
    positions = [position for position, _ in texts_in(path)]
    assert positions[:-1] == list(range(1, 5001)) and positions[-1] > 5000


@pytest.mark.parametrize(("prepare", "reason"), START_ERRORS.items())
def test_a_server_whose_database_cannot_be_used_says_so_in_one_line(
    prepare: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "chat.db"
    path.parent.mkdir()
    prepare(path)
    command = [sys.executable, "stages/v5/server.py", "--port", "0", "--no-web", "--db", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"No se puede usar {path}: {reason}\n"


@pytest.mark.parametrize("place", ["folder", "file"])
def test_a_database_that_cannot_be_written(place: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "chat.db"
    path.parent.mkdir()
    if place == "file":
        History(path).close()
    (path if place == "file" else path.parent).chmod(0o500)
    command = [sys.executable, "stages/v5/server.py", "--port", "0", "--no-web", "--db", str(path)]
    if os.geteuid() == 0:  # whom permissions do not stop, by this capability
        command = ["setpriv", "--bounding-set", "-dac_override", *command]
        if not shutil.which("setpriv"):
            needed_in_ci("setpriv is not installed (apt-get install util-linux)")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"No se puede usar {path}: Permission denied\n"


def test_a_disk_that_refuses_costs_the_room_nothing(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    server = serve("--db", str(path), "--quiet")
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.line()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ana.say("uno")
        bea.lines("ana dice: uno")
        server.log.wait("El historial no se guarda: database is locked".__eq__)
        carla = Guest(server)
        carla.say("carla")
        assert carla.line().endswith("] ana dice: uno")
        other.execute("COMMIT")
    server.log.wait("El historial se guarda de nuevo; faltan 0 mensajes.".__eq__)
    server.stop()
    assert [text for _, text in texts_in(path)] == ["uno"]


def test_a_stop_in_a_flood_keeps_all_that_was_heard(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    server = serve("--db", str(path), "--quiet")
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.line()

    def flood() -> None:
        with suppress(OSError):
            for first in range(0, 10_000_000, 100):
                ana.say(*map(str, range(first, first + 100)))

    thread = Thread(target=flood)
    thread.start()
    bea.take(100_000)
    server.process.terminate()
    heard = bea.rest().decode().split("\n")
    thread.join()
    assert server.process.wait(10) == 0
    last = next(line for line in reversed(heard[:-1]) if line.startswith("ana dice: "))
    texts = [text for _, text in texts_in(path)]
    assert texts == list(map(str, range(len(texts))))
    assert len(texts) > int(last.removeprefix("ana dice: "))


def test_the_journal_of_a_server_shrinks_when_a_reader_has_gone(tmp_path: Path) -> None:
    """A reader's snapshot keeps the WAL from being begun anew."""
    history = History(tmp_path / "chat.db")
    journal = tmp_path / "chat.db-wal"
    with closing(sqlite3.connect(history.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM chunks").fetchone()
        while journal.stat().st_size < 3 * JOURNAL_SIZE // 2:
            history.say(*["x" * 4000] * 300)
            history.disk.turn()
    for _ in range(8):
        history.say(*["x" * 4000] * 300)
        history.disk.turn()
    assert journal.stat().st_size <= JOURNAL_SIZE
    history.close()
    assert not journal.exists()


@pytest.mark.parametrize("first", [[], ["1", "2"]], ids=["empty", "begun"])
def test_who_has_seen_what_an_older_copy_does_not_have_is_told_of_a_gap(
    first: list[str], tmp_path: Path
) -> None:
    """Though the copy's server has said more than that by then, in the same epoch."""
    path, copy = tmp_path / "chat.db", tmp_path / "copy.db"
    history = History(path)
    history.say(*first)
    history.close()
    shutil.copy(path, copy)
    positions = []
    for each in (path, path, copy):
        history = History(each)
        history.say("3", "4")
        positions.append(history.log.position)
        history.say(*"56789" * 10)
        history.say("elsewhere", room="cine")
        history.close()
    history = History(copy)
    newest = history.log.position
    for position in positions[:2]:
        assert position > newest or history.after("general", position, 100, newest).gap
    assert len(set(positions)) == 3
    for known, count in ((len(first), 52), (positions[2], 50), (newest, 0)):
        past = history.after("general", known, 100, newest)
        assert (len(past.messages), past.gap) == (count, False)
    history.close()
