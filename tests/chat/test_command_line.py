"""How v5 is started, and what it says when it cannot be."""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from configparser import ConfigParser
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import starter
from benchmarks.harness.server import Server
from sock_chat import __main__ as command
from sock_chat.config import Config, parse
from tests.chat.conftest import Guest, Serve
from tests.support.needed import needed_in_ci

V5 = ROOT / "stages" / "v5"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=V5,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


@pytest.mark.parametrize("how", [["server.py"], ["-m", "sock_chat"]])
def test_the_ways_to_start_it(how: Sequence[str], tmp_path: Path) -> None:
    """In its own folder; the commands are in the distribution."""
    with subprocess.Popen(
        [sys.executable, *how, "--port", "0", "--no-web", "--db", str(tmp_path / "chat.db")],
        cwd=V5,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline().startswith("Servidor chat iniciado en ('127.0.0.1', ")
        finally:
            process.terminate()
    assert process.returncode == 0


def test_help_names_every_option_and_its_variable() -> None:
    done = run("server.py", "--help")
    assert done.returncode == 0
    for each in fields(Config):
        assert f"--{each.name.replace('_', '-')}" in done.stdout
    assert "SOCK_CHAT_PORT" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "99999"], ["--port", "x"], ["--rate", "nan"], ["--rate", "-1"],
        ["--burst", "0"], ["--tls-cert", "cert.pem"], ["--operator", "2"],
        ["--loop", "trio"], ["--nope"], ["x"], ["--quie"],
    ],
)  # fmt: skip
def test_a_bad_argument(arguments: list[str]) -> None:
    done = run("server.py", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sock-chat-server ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PORT", "x"), ("QUIET", "yes"), ("LOOP", "trio"), ("RATE", "fast")],
)
def test_a_bad_variable_is_named(variable: str, value: str) -> None:
    done = run("server.py", **{f"SOCK_CHAT_{variable}": value})
    assert done.returncode == 2
    assert f"error: SOCK_CHAT_{variable}: " in done.stderr


def test_the_command_line_wins_over_the_environment() -> None:
    environment = {"SOCK_CHAT_PORT": "9000", "SOCK_CHAT_QUIET": "1", "SOCK_CHAT_HOST": "::1"}
    config = parse(["--port", "9001"], environment)
    assert (config.port, config.quiet, config.host) == (9001, True, "::1")
    assert parse([], {}) == Config()


def test_variables_may_have_several_values() -> None:
    environment = {"SOCK_CHAT_OPERATOR": "ana bea", "SOCK_CHAT_TRUST_PROXY": "192.0.2.0/24 ::1"}
    config = parse([], environment)
    assert config.operator == ("ana", "bea")
    assert list(map(str, config.trust_proxy)) == ["192.0.2.0/24", "::1/128"]
    assert parse(["--operator", "eva", "--operator", "zoe"], environment).operator == ("eva", "zoe")


def test_defaults() -> None:
    config = parse([], {})
    assert (config.host, config.port, config.tls_port) == ("127.0.0.1", 8080, 8443)
    assert (config.db, config.keep) == ("sock_chat.db", 100_000)
    assert (config.rate, config.burst, config.per_address) == (5, 20, 64)
    assert (config.log, config.loop, config.log_messages) == ("text", "uvloop", False)


@pytest.mark.parametrize("command", ["sock-chat-server", "sock-chat"])
def test_the_commands_of_the_distribution(command: str, tmp_path: Path) -> None:
    script = Path(sysconfig.get_path("scripts")) / command
    if not script.exists():
        needed_in_ci("sock_chat is not installed: pip install -e '.[chat]'")
    done = subprocess.run(
        [script, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=15, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {command} ")


def test_the_distribution_has_the_whole_package() -> None:
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", "utf-8")
    folders = {path.parent.relative_to(V5) for path in (V5 / "sock_chat").rglob("*.py")}
    packages = {".".join(folder.parts) for folder in folders}
    assert packages <= set(config["options"]["packages"].split())


def test_it_cannot_listen(serve: Serve) -> None:
    server = serve()
    done = run("server.py", "--port", str(server.address[1]))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("No se puede escuchar en ('127.0.0.1', ")
    done = run("server.py", "--host", "192.0.2.1", "--port", "0")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_a_limit_that_leaves_a_place_to_nobody(tmp_path: Path) -> None:
    """Its own descriptors count, too."""
    limited = starter(limits={resource.RLIMIT_NOFILE: (33, 33)})[1:]
    done = run(*limited, sys.executable, "server.py", "--port", "0", "--db", str(tmp_path / "db"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "El límite de 33 descriptores no deja sitio a nadie\n"


def test_without_the_extra_it_says_which_command_installs_it() -> None:
    done = run("-S", "server.py")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"{sys.executable} -m pip install " in done.stderr
    for package in command.PACKAGES.values():
        assert package in done.stderr


def test_an_old_python_says_which_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert "3.10" in (command.missing() or "")
    for name in ("server.py", "client.py", "sock_chat/__init__.py", "sock_chat/__main__.py"):
        ast.parse((V5 / name).read_text(), feature_version=(3, 6))


def test_ipv6(serve: Serve) -> None:
    try:
        server = Server("v5", arguments=["--host", "::1"])
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        assert len(server.address) == 4
        assert Guest(server, "ana")
        assert server.stop() == 0


@pytest.mark.parametrize("stream", [">&-", "> /dev/full", "> >(true)"])
def test_a_stdout_that_fails_costs_its_lines_only(stream: str, tmp_path: Path) -> None:
    """exec: what is started is the server itself, and ends with the test."""
    script = f"exec {sys.executable} {V5}/server.py --port {{port}} --db :memory: {stream}"
    with Server(f"bash -c '{script}'") as server:
        peer = Guest(server, "ana")
        peer.say("/list")
        peer.lines("* En general (1): ana")
