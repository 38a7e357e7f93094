"""What the operator of v5 reads: its log, as text and as JSON, and what systemd is told."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE
from benchmarks.harness.server import SERVERS
from tests.chat.conftest import Guest, Serve
from tests.support.wire import Peer


def test_a_stdout_that_takes_nothing_holds_up_neither_the_stop_nor_the_history(
    tmp_path: Path,
) -> None:
    """The loop waits in write(2) for good, so what has just been heard is not written by it."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    database = tmp_path / "chat.db"
    command = [sys.executable, *SERVERS["v5"], "--port", "0", "--no-web", "--db", str(database)]
    with subprocess.Popen(command, cwd=ROOT, stdout=writing) as process:
        try:
            ready = os.read(reading, 4096).decode()
            address = ast.literal_eval(ready.partition(" en ")[2])
            ana, bea = Peer(address, nick="ana"), Peer(address, nick="bea")
            for peer in (ana, bea):
                peer.await_greeting()
            os.set_blocking(writing, False)
            with suppress(BlockingIOError):
                while True:
                    os.write(writing, b"x")
            os.set_blocking(writing, True)
            ana.sock.sendall(b"hola\n")
            assert bea.line() == "ana dice: hola"
            Peer(address)  # its line in the log is the one that the pipe does not take
            process.send_signal(signal.SIGTERM)
            assert process.wait(3) == 0
        finally:
            process.kill()
            os.close(reading)
            os.close(writing)
    with closing(sqlite3.connect(database)) as history:
        (text,) = history.execute("SELECT group_concat(messages) FROM chunks").fetchone()
    assert '"hola"' in str(text)


def test_the_log(serve: Serve) -> None:
    server = serve("--no-web")
    ana = Guest(server, "ana")
    ana.say("hola", "/quit")
    ana.ends()
    assert server.stop() == 0
    assert server.log.rest() == [
        f"Servidor chat iniciado en {server.address}",
        f"Cliente conectado: {ana.name}",
        f"Cliente desconectado: {ana.name}",
    ]


def test_the_log_of_a_quiet_server(serve: Serve) -> None:
    server = serve("--quiet", "--no-web")
    Guest(server, "ana").reset()
    assert server.stop() == 0
    assert server.log.rest() == [f"Servidor chat iniciado en {server.address}"]


def test_the_log_with_what_is_said(serve: Serve) -> None:
    server = serve("--log-messages", "--no-web")
    ana = Guest(server, "ana")
    ana.send("hola\u061c\n/pm ana psst\n/join cine\n".encode())
    ana.lines("ana te dice: psst", "* En cine: ana.")
    ana.say("/quit")
    ana.ends()
    assert server.stop() == 0
    assert server.log.rest()[1:] == [
        f"Cliente conectado: {ana.name}",
        "ana dice: hola\ufffd",
        f"Cliente desconectado: {ana.name}",
    ]


def test_the_log_as_json(serve: Serve) -> None:
    server = serve("--log", "json", "--log-messages", "--no-web")
    ana = Guest(server, "ana")
    ana.say("¡hola!", "/join cine", "/quit")
    ana.lines("* En cine: ana.")
    ana.ends()
    assert server.stop() == 0
    ready, *lines = server.log.rest()
    assert ready == f"Servidor chat iniciado en {server.address}"
    events = [json.loads(line) for line in lines]
    for event in events:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", event.pop("time"))
    assert events == [
        {"event": "connected", "address": ana.name},
        {"event": "said", "nick": "ana", "room": "general", "text": "¡hola!"},
        {"event": "disconnected", "address": ana.name, "nick": "ana", "room": "cine"},
    ]


def test_what_systemd_is_told(serve: Serve, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE)
        server = serve(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(100) == b"READY=1"
        server.process.send_signal(signal.SIGHUP)
        assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(100))
        assert manager.recv(100) == b"READY=1"
        assert server.stop() == 0
        assert manager.recv(100) == b"STOPPING=1"
