"""The page's section on several servers: its commands, and what it says that is heard."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import Lines, free_port, starter
from sock_chat.bus_storage import AWAY
from sock_chat.outbox import REFUSED
from tests.support.wire import Peer

PAGE = (ROOT / "stages/v5/README.md").read_text("utf-8")
SECTION = PAGE.partition("\n## Several servers, one chat\n")[2].partition("\n## ")[0]
COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL))
READY = re.compile(r"Servidor chat iniciado en |.* Server is ready")


def test_its_commands_make_one_chat_of_four_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On ports that are free instead of those of the page."""
    monkeypatch.chdir(tmp_path)
    commands = COMMANDS
    for port in set(re.findall(r"\b\d{4}\b", COMMANDS)):
        commands = re.sub(rf"\b{port}\b", f"{free_port()}", commands)
    peers = []
    with ExitStack() as stack:
        for line in commands.splitlines():
            program, *arguments = shlex.split(line.removesuffix(" &"))
            process = stack.enter_context(
                subprocess.Popen(
                    [
                        *starter(signum=signal.SIGKILL, parent=os.getpid()),
                        str(Path(sys.executable).with_name(program)),
                        *arguments,
                    ],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
            stack.callback(process.kill)
            assert process.stdout
            Lines(process.stdout).wait(READY.match)
            if program == "sock-chat-server":
                port = int(arguments[arguments.index("--port") + 1])
                peers.append(Peer(("127.0.0.1", port)))
        for number, peer in enumerate(peers):
            peer.say(f"n{number}")
            while not peer.line().startswith(f"* Hola, n{number}. "):
                pass
        peers[0].say("hola")
        for peer in peers[1:]:
            while peer.line() != "n0 dice: hola":
                pass
    assert len(peers) == 4


@pytest.mark.parametrize("sentence", [AWAY, REFUSED])
def test_sentences_are_the_server_s(sentence: str) -> None:
    assert f"`* {sentence}`" in " ".join(SECTION.split())
