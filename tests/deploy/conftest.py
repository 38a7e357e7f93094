"""The proxies of stages/v5/deploy, as they are but for addresses, before servers on loopback."""

from __future__ import annotations

import os
import re
import shutil
import ssl
from collections.abc import Mapping

from benchmarks.harness.files import ROOT
from tests.support.needed import needed_in_ci
from tests.support.wire import Peer

DEPLOY = ROOT / "stages" / "v5" / "deploy"
CLIENT = "192.0.2.7"


def program(name: str) -> str:
    """Debian has it where only root looks."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if not path:
        needed_in_ci(f"{name} is not installed: apt-get install {name}")
    return path


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Each must be there to be changed."""
    for old, new in changes.items():
        text, count = re.subn(old, new, text)
        assert count, f"{old!r} is not in the configuration"
    return text


class Visitor(Peer):
    """A client of the proxy, which a header before its first byte says to come from elsewhere.
    tls: what it goes by, if it comes by TLS."""

    def __init__(self, port: int, address: str = CLIENT, tls: ssl.SSLContext | None = None):
        super().__init__(("127.0.0.1", port))
        self.send(f"PROXY TCP4 {address} 127.0.0.1 40000 {port}\r\n".encode())
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname="127.0.0.1")
