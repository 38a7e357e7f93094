"""A certificate for 127.0.0.1, of an authority that nobody knows but the clients of one server."""

from __future__ import annotations

import ssl
from pathlib import Path


def issue(folder: Path) -> ssl.SSLContext:
    """Write cert.pem and key.pem, for a server. What its clients go by."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context
