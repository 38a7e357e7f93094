"""The chat room on Twisted: a LineReceiver for each client, transport.write() for each delivery.

transport.write() only stores the data: it is sent when epoll has said that the socket is writable,
all of it with one send(). So Twisted coalesces by itself, and arms and disarms EPOLLOUT for every
client and turn. What the kernel does not take waits in the same buffer, without bound.
"""

from __future__ import annotations

import argparse
import resource
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver
from zope.interface import implementer

room: dict[Chat, None] = {}  # in the order of their coming


@implementer(IHalfCloseableProtocol)  # without it a FIN drops what waits for the client
class Chat(LineReceiver):
    delimiter = b"\n"
    MAX_LENGTH = 65536  # LineReceiver ends who says a longer line

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        peer = self.transport.getPeer()
        self.prefix = f"{(peer.host, peer.port)} dice: "
        room[self] = None

    def connectionLost(self, reason: Any = ConnectionDone) -> None:
        room.pop(self, None)

    def readConnectionLost(self) -> None:
        self.lineReceived(self.clearLineBuffer())
        self.transport.loseConnection()  # when all that waits for it is sent

    def writeConnectionLost(self) -> None:
        """Nothing is to be done: it is connectionLost() that follows."""

    def lineReceived(self, line: bytes) -> None:
        text = line.removesuffix(b"\r").decode("utf-8", "replace")
        if text:
            message = f"{self.prefix}{text}\n".encode()
            for other in room:
                if other is not self:
                    other.transport.write(message)


def main() -> None:
    parser = argparse.ArgumentParser(description="The chat room on Twisted.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    reactor.listenTCP(port, Factory.forProtocol(Chat), backlog=1024, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
