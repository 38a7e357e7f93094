"""The image, built as anybody builds it, and containers of it, as confined as they can be.

`pytest -m container -n 0` runs these tests, as root, with what .ci/run installs; nothing else does.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import free_port
from benchmarks.harness.server import Server

HERE = Path(__file__).parent
IMAGE = "localhost/sock-chat:test"
CONFINED = (
    *("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"),
    *("--memory=128m", "--memory-swap=128m", "--pids-limit=64"),
)
BUILD_TIME = 180.0  # seconds, the base image included
CALL_TIME = 60.0

Run = Callable[..., Server]


def podman(*arguments: str, within: float = CALL_TIME) -> str:
    """What it prints. CalledProcessError: it failed, and stderr says why."""
    done = subprocess.run(
        ["podman", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )
    assert done.returncode == 0, f"podman {shlex.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def environment() -> dict[str, str]:
    return {**os.environ, "CONTAINERS_CONF": str(HERE / "containers.conf")}


def packed_project() -> bytes:
    """What git tracks, as a clone has it: a tar archive."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    pack = ["tar", "--create", "--null", "--files-from=-"]
    tar = subprocess.run(pack, cwd=ROOT, input=files.stdout, capture_output=True, check=True)
    return tar.stdout


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the image."""
    if not shutil.which("podman") or os.geteuid():
        pytest.skip("there is no podman, or this is not root")
    subprocess.run([HERE / "base_images.sh"], timeout=BUILD_TIME, check=True)
    # Docker's format: OCI's has no health check.
    options = ("--pull=never", "--network=host", "--format=docker", "--tag", IMAGE)
    podman("build", *options, ".", within=BUILD_TIME)
    return IMAGE


@pytest.fixture
def run(image: str) -> Iterator[Run]:
    """`run("-v", "chat:/data")` starts a container that listens on loopback; its name is in
    `Server.name`. At the end each stops with exit status 0 and an empty stderr, unless it has
    ended before."""
    names = (f"sock-chat-test-{os.getpid()}-{number}" for number in itertools.count())
    with ExitStack() as stack:
        servers: list[Server] = []

        def start(*options: str) -> Server:
            name = next(names)
            stack.callback(podman, "rm", "--force", "--ignore", "--volumes", name)
            settings = {"HOST": "127.0.0.1", "PORT": "{port}", "WEB_PORT": str(free_port())}
            variables = [f"--env=SOCK_CHAT_{key}={value}" for key, value in settings.items()]
            command = ["podman", "run", "--rm", "--name", name, "--network=host", *CONFINED]
            server = Server(
                shlex.join([*command, *variables, *options, image]),
                environment=environment(),
                asks=True,
            )
            server.name = name
            # It accepts sooner than it handles signals, and those are lost on process 1 until then.
            server.log.wait(lambda line: line.startswith("Servidor chat iniciado en "))
            servers.append(stack.enter_context(server))
            return server

        yield start
        for server in servers:
            status = server.process.poll()
            if status is None:
                status = server.stop()
            # podman has something to say itself, where no systemd runs the health checks.
            errors = [line for line in server.errors.rest() if not line.startswith('time="')]
            assert (status, errors) == (0, [])
