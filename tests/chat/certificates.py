"""An authority of our own, and clients that believe it."""

from __future__ import annotations

import ast
import ssl
from pathlib import Path
from typing import Any

import trustme

from benchmarks.harness.server import Server
from tests.chat.conftest import QUESTION
from tests.support.wire import Peer

HANDSHAKE = 10.0


class Certificates:
    """Of an authority of our own, in files that may be replaced."""

    def __init__(self, folder: Path):
        self.authority = trustme.CA()
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.renew()

    def renew(self) -> None:
        issued = self.authority.issue_cert("127.0.0.1", "localhost")
        issued.private_key_pem.write_to_path(self.key)
        self.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    @property
    def options(self) -> list[str]:
        return ["--tls-cert", str(self.cert), "--tls-key", str(self.key), "--tls-port", "0"]


def tls_address(server: Server) -> tuple[str, int]:
    line = server.log[server.log.wait(lambda line: line.startswith("TLS en "))]
    address: tuple[str, int] = ast.literal_eval(line.removeprefix("TLS en "))
    return address


class TlsGuest(Peer):
    """The same as a Guest, over TLS."""

    def __init__(self, server: Server, certificates: Certificates, nick: str = "", **options: Any):
        super().__init__(tls_address(server), **options)
        context = ssl.create_default_context(cafile=str(certificates.ca))
        self.sock = context.wrap_socket(self.sock, server_hostname="127.0.0.1")
        assert self.line() == QUESTION
        if nick:
            self.say(nick)
            while not self.line().startswith(f"* Hola, {nick}. En "):
                pass
