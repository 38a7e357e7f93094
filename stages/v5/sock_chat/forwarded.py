"""Who is behind a proxy that is trusted, by the headers X-Forwarded-For and X-Forwarded-Proto.

Each proxy appends whom it has got the request from, so the client is the last in the list that is
not a proxy of ours: what stands before that, anybody may have written.
"""

from __future__ import annotations

from typing import NamedTuple

from sock_chat.heads import Request
from sock_chat.limits import is_loopback, plain_address
from sock_chat.proxy import Networks, is_trusted


class Client(NamedTuple):
    """secure: nobody else can read what it sends."""

    address: str
    secure: bool


def client(request: Request, peer: Client, networks: Networks) -> Client:
    """Who has sent the request. peer: who is at the other end of the connection."""
    if not is_trusted(peer.address, networks):
        return peer
    address = ""
    for entry in reversed(request.get("x-forwarded-for").split(",")):
        parsed = plain_address(entry.strip())
        if parsed is None:
            break
        address = str(parsed)
        if not is_trusted(address, networks):
            break
    if not address:
        return peer
    by_tls = request.get("x-forwarded-proto").rpartition(",")[2].strip().lower() == "https"
    return Client(address, by_tls or is_loopback(address))
