"""TLS between the bytes of a connection and what it speaks, on ports of its own.

The handshake and the cipher are the ssl module's, between two buffers in memory; the socket stays
the loop's, as without TLS. So what the kernel has not taken is counted where it waits, input comes
a READ_SIZE at a time here, too, and there is no second transport that could outlive the first.

A peer that ends with a FIN and no close_notify may have been cut off by somebody else: its
unfinished line stays unsaid.
"""

from __future__ import annotations

import ssl
from contextlib import suppress

from sock_chat.connection import Connection, drop
from sock_chat.link import Kind, Reason
from sock_chat.owner import Owner
from sock_chat.tcp import LineConnection

HANDSHAKE = 10.0  # seconds
RECORD = 1 << 14  # bytes at most of what a record holds


def make_context(certificate: str, key: str | None) -> ssl.SSLContext:
    """OSError, and ssl.SSLError is one: a file cannot be read, or is not what it should be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0  # nobody resumes
    # A key with a password would have the server ask for it at the terminal.
    context.load_cert_chain(certificate, key, password="")
    return context


class Layer:
    """What is between the bytes of the socket and those that are meant."""

    __slots__ = ("incoming", "outgoing", "tls")

    def __init__(self, context: ssl.SSLContext):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)


class Tls(Connection):
    """For a class that names it before what the connection speaks."""

    __slots__ = ()  # two bases cannot both have some
    not_tls = b""  # the answer to HTTP without TLS
    _layer: Layer

    def __init__(self, owner: Owner, context: ssl.SSLContext):
        super().__init__(owner)
        self._layer = Layer(context)

    def come_in(self, secure: bool) -> None:
        if not self._owner.count_outside(self):
            self.abort(Reason.CROWDED)
            return
        self._owner.chat.counters.tls_handshakes += 1
        self._send = self._encrypt
        self._end = self._owner.loop.call_later(HANDSHAKE, self.abort, Reason.NO_TLS)

    def receive(self, data: bytes, more: bool) -> None:
        if self._reason is not None:
            return
        tls = self._layer.tls
        self._layer.incoming.write(data)
        text, ended = b"", False
        try:
            if self._dialogue is None:
                tls.do_handshake()
                self._flush()
                if self._end:
                    self._end.cancel()
                    self._end = None
                super().come_in(secure=True)
            while record := tls.read(RECORD):
                text += record
            ended = True  # close_notify
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST" and self.not_tls:
                self.transport.write(self.not_tls)
                self._layer.outgoing.read()  # the alert, which it would not understand
            else:
                self._flush()  # the alert that says why
            self.close(Reason.NO_TLS)
            return
        self._flush()
        if text:
            super().receive(text, more)
        if ended:
            self.end_input(is_whole=True)

    def eof_received(self) -> bool:
        self._fin = True
        self.end_input(is_whole=False)
        return self._dialogue is not None and self._reason is None

    def connection_lost(self, error: Exception | None) -> None:
        if self._send == self._encrypt and self._layer.tls.version() is None:
            self._owner.chat.counters.tls_failures += 1  # it had begun, and was not over
        super().connection_lost(error)
        # The garbage collector would come late: it does not see how much of OpenSSL's hangs on it.
        self._send = drop
        del self._layer

    def _shut(self) -> None:
        with suppress(ssl.SSLError):  # it has been sent, and the peer's has not come
            self._layer.tls.unwrap()
        self._flush()
        super()._shut()

    def _encrypt(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._layer.tls.write(view) :]
        except ssl.SSLError:
            self.abort(Reason.NO_TLS)
        else:
            self._flush()

    def _flush(self) -> None:
        """Hand what TLS wants to send to the transport."""
        if self._layer.outgoing.pending and not self.transport.is_closing():
            self.transport.write(self._layer.outgoing.read())


class TlsLines(Tls, LineConnection):
    __slots__ = ()
    kind = Kind.TLS
