"""sock_chat.healthcheck, as the image runs it beside the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE
from benchmarks.harness.server import Server
from tests.chat.certificates import Certificates
from tests.chat.conftest import Serve


def check(**options: object) -> tuple[int, str]:
    """Its exit status, and why."""
    environment = {f"SOCK_CHAT_{name.upper()}": str(value) for name, value in options.items()}
    done = subprocess.run(
        [sys.executable, "-m", "sock_chat.healthcheck"],
        cwd=ROOT / "stages" / "v5",
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert not done.stdout
    return done.returncode, done.stderr


def web_port(server: Server) -> int:
    assert server.web
    return server.web[1]


def test_it_asks_the_web_port(serve: Serve) -> None:
    server = serve("--host", "0.0.0.0")
    assert check(host="0.0.0.0", web_port=web_port(server)) == (0, "")


def test_it_asks_by_tls(serve: Serve, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    port = web_port(serve(*certificates.options))
    files = {"tls_cert": certificates.cert, "tls_key": certificates.key}
    assert check(web_port=port, **files) == (0, "")
    status, why = check(web_port=port)
    assert status == 1 and why.startswith("400 ")


@pytest.mark.parametrize("options", [{"web_port": 1}, {"port": 1, "no_web": 1}])
def test_nobody_is_there(options: dict[str, int]) -> None:
    status, why = check(**options)
    assert status == 1 and "Connection refused" in why and why.count("\n") == 1


def test_without_a_web_port_the_other_accepts(serve: Serve) -> None:
    server = serve("--no-web")
    assert check(no_web=1, port=server.address[1]) == (0, "")
