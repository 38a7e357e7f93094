"""What the image is, and what a container of it can do and cannot."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from zlib import crc32

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE, free_port, has_ended
from benchmarks.harness.server import Server
from tests.chat.conftest import Guest
from tests.chat.test_stop import PASSWORD, STOP_WITHIN
from tests.container.conftest import Run, podman

pytestmark = pytest.mark.container

UID = 10001


def inspect(kind: str, name: str) -> Any:
    return json.loads(podman(kind, "inspect", name))[0]


def pid(server: Server) -> int:
    """Of the server itself, as this machine counts."""
    return int(inspect("container", server.name)["State"]["Pid"])


@pytest.fixture
def volume() -> Iterator[str]:
    name = podman("volume", "create")
    yield name
    podman("volume", "rm", "--force", name)


def test_image_says_what_it_is(image: str) -> None:
    config = inspect("image", image)["Config"]
    assert config["User"] == f"{UID}:{UID}"
    assert config["Entrypoint"] == ["sock-chat-server"]
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8081/tcp", "8443/tcp"}
    assert set(config["Volumes"]) == {"/data"}
    assert config["Labels"]["org.opencontainers.image.title"] == "sock_chat"


def test_image_has_the_package_of_this_tree(image: str) -> None:
    """And not that of an earlier build."""
    package = ROOT / "stages" / "v5" / "sock_chat"
    files = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".js", ".html"))
    script = "import sock_chat, sys, zlib; print(*[zlib.crc32(open(sock_chat.__path__[0] + '/' "
    script += "+ name, 'rb').read()) for name in sys.argv[1:]])"
    names = [str(path.relative_to(package)) for path in files]
    sums = podman("run", "--rm", "--entrypoint=python", image, "-c", script, *names)
    assert sums.split() == [str(crc32(path.read_bytes())) for path in files]


def test_lines_in_and_lines_out(run: Run) -> None:
    server = run()
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.lines("* bea ha entrado.")
    bea.say("hola")
    ana.lines("bea dice: hola")
    assert f"Cliente conectado: {bea.address}" in podman("logs", server.name).splitlines()


def test_page_and_health(run: Run) -> None:
    server = run()
    web = server.log[server.log.wait(lambda line: line.startswith("Web en "))][7:]
    with urlopen(web, timeout=DEADLINE) as answer:
        assert "<title>sock_chat</title>" in answer.read().decode()
    podman("healthcheck", "run", server.name)
    check = (server.name, "python", "-m", "sock_chat.healthcheck")
    with pytest.raises(AssertionError, match="Connection refused"):
        podman("exec", f"--env=SOCK_CHAT_WEB_PORT={free_port()}", *check)


def test_passwords_are_hashed_in_the_memory_that_it_has(run: Run) -> None:
    """As many at once as it hashes."""
    server = run()
    guests = [Guest(server, nick) for nick in ("ana", "bea", "carlos")]
    for guest in guests:
        guest.say(f"/register {PASSWORD}")
    for guest in guests:
        while not guest.line().endswith(" es tuyo."):
            pass
    ana = Guest(server)
    ana.say(f"/login ana {PASSWORD}")
    ana.lines("* Hola, ana. En general: ana, bea, carlos.")


def test_it_is_nobody_who_may_nothing(run: Run) -> None:
    server = run()
    status = Path(f"/proc/{pid(server)}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert set(fields["Uid"].split() + fields["Gid"].split()) == {str(UID)}
    assert not fields["Groups"].split() or set(fields["Groups"].split()) == {str(UID)}
    assert not any(int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd"))
    assert fields["NoNewPrivs"] == "1"
    # What can be written to: the mounts, of which one is ours.
    mounts = Path(f"/proc/{pid(server)}/mounts").read_text()
    options = {line.split()[1]: line.split()[3].split(",") for line in mounts.splitlines()}
    assert "ro" in options["/"] and "rw" in options["/data"]


def test_data_outlives_the_container(volume: str, run: Run) -> None:
    server = run("--volume", f"{volume}:/data")
    ana = Guest(server, "ana")
    ana.say(f"/register {PASSWORD}", "hola")
    ana.lines("* El apodo ana es tuyo.")
    ana.say("/quit")
    ana.rest()
    assert server.stop() == 0
    server = run("--volume", f"{volume}:/data")
    ana = Guest(server)
    ana.say("ana", PASSWORD)
    ana.lines("* El apodo ana tiene dueño. ¿Contraseña?")
    assert ana.line().endswith(" ana dice: hola")
    ana.lines("* Hola, ana. En general: ana.")


def test_sigterm_gets_to_the_server(run: Run) -> None:
    """It is process 1 there, for which the kernel has no default action, signal(7)."""
    server = run()
    ana, process = Guest(server, "ana"), pid(server)
    begun = time.monotonic()
    os.kill(process, signal.SIGTERM)
    assert has_ended(process, STOP_WITHIN)
    assert time.monotonic() - begun < STOP_WITHIN
    ana.ends("* El servidor se cierra.")
    assert server.wait() == 0
