"""A listener of the server, and what comes in by it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sock_chat.connection import Connection
from sock_chat.system import BACKLOG
from sock_chat.tcp import LineConnection

if TYPE_CHECKING:
    from sock_chat.server import Server

ACCEPTS = 4  # newcomers per turn of asyncio, which schedules a retry for each when it fails
KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}


class Door(NamedTuple):
    """ready: what is printed before its address when it accepts. scheme: of its URL, which is then
    printed instead. The last of the doors is announced last."""

    ready: str
    listener: socket.socket
    protocol: Callable[[Server], Connection] = LineConnection
    scheme: str = ""

    @property
    def announcement(self) -> str:
        address = self.listener.getsockname()
        if not self.scheme:
            return f"{self.ready} {address}"
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{self.ready} {self.scheme}://{host}:{address[1]}/"

    async def open(self, server: Server) -> asyncio.Server:
        for name, value in KEEPALIVE.items():  # accepted sockets inherit them
            self.listener.setsockopt(socket.IPPROTO_TCP, name, value)
        listening = await server.loop.create_server(
            partial(self.protocol, server), sock=self.listener, backlog=ACCEPTS
        )
        self.listener.listen(BACKLOG)  # the loop takes `backlog` for this queue, too
        return listening
