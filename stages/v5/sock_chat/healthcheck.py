"""Whether the server beside it serves: python -m sock_chat.healthcheck, for a container.

It asks for /healthz where the variables of the environment have told the server to be. Exit status
0, or 1 and a line that says why not.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import sys

from sock_chat.config import parse

WITHIN = 3.0  # seconds
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def main() -> str | None:
    """Ask. Returns why it does not serve, for sys.exit()."""
    config = parse([])
    host = LOOPBACK.get(config.host, config.host)
    try:
        if config.no_web:
            socket.create_connection((host, config.port), WITHIN).close()
            return None
        connection = http.client.HTTPConnection(host, config.web_port, timeout=WITHIN)
        if config.tls_cert:
            # The name in the certificate is not the one by which we ask, and that is no matter.
            context = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(
                host, config.web_port, timeout=WITHIN, context=context
            )
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace").strip()
        return None if answer.status == 200 else f"{answer.status} {text}"
    except (OSError, http.client.HTTPException) as error:
        return f"{host}: {error!r}"


if __name__ == "__main__":
    sys.exit(main())
