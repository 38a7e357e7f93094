"""From the options to a server that runs, or to the one line that says why it cannot."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from sock_chat.config import Config
from sock_chat.connection import Connection
from sock_chat.doors import Door
from sock_chat.server import Server
from sock_chat.storage import Storage, forget
from sock_chat.store import StoreError
from sock_chat.system import BACKLOG, RESERVE, listen, prepare_process
from sock_chat.tls import TlsLines, make_context
from sock_chat.web import MetricsConnection, TlsWeb, WebConnection

READY = "Servidor chat iniciado en"
READY_TLS = "TLS en"
READY_WEB = "Web en"
READY_METRICS = "Métricas en"
LAST_CHANCE = 0.1  # seconds for the disk, where the alarm ends the process


class Refusal(Exception):
    """Why it cannot start, in one line."""


def main(config: Config) -> str | None:
    """Serve. Returns why it cannot, for sys.exit()."""
    for library in ("asyncio", "websockets"):  # Server says what is to be said
        logging.getLogger(library).setLevel(logging.CRITICAL)
    if config.forget:
        return _forget(config)
    limit = prepare_process()
    if limit < 3 * RESERVE:  # the loop and the database have some, too
        return f"El límite de {limit} descriptores no deja sitio a nadie"
    try:
        context = _context(config)
        server = Server(config, _doors(config, context), limit, context)
    except (Refusal, StoreError) as error:
        return str(error)
    signal.signal(signal.SIGALRM, partial(_end, server.storage))
    try:
        if config.loop == "asyncio":
            asyncio.run(server.serve())
        else:
            import uvloop

            uvloop.run(server.serve())
    except StoreError as error:
        return str(error)
    finally:
        server.storage.close()
    # All is written. The alarm of the stop stays: at its end Python waits for threads that hash.
    signal.signal(signal.SIGALRM, lambda signum, frame: os._exit(0))
    return None


def _forget(config: Config) -> str | None:
    if not config.bus:
        return forget(config.db, config.forget)
    from sock_chat.bus_storage import forget_on_bus

    return forget_on_bus(config)


def _end(storage: Storage, signum: int, frame: object) -> None:
    """The alarm of a stop that is held up, as by a stdout that takes nothing: what has been heard
    is written all the same."""
    with suppress(StoreError):
        storage.log.save(LAST_CHANCE)
    os._exit(0)


def _context(config: Config) -> ssl.SSLContext | None:
    if config.tls_cert is None:
        return None
    try:
        return make_context(config.tls_cert, config.tls_key)
    except OSError as error:
        raise Refusal(f"No se puede usar el certificado {config.tls_cert}: {error}") from None


def _doors(config: Config, context: ssl.SSLContext | None) -> Sequence[Door]:
    doors: list[Door] = []
    if context:
        doors.append(Door(READY_TLS, _listen(config, config.tls_port), partial(_tls, TlsLines)))
    if not config.no_web:
        listener = _listen(config, config.web_port)
        if context:
            doors.append(Door(READY_WEB, listener, partial(_tls, TlsWeb), "https"))
        else:
            doors.append(Door(READY_WEB, listener, WebConnection, "http"))
    if config.metrics_port is not None:
        listener = _listen(config, config.metrics_port)
        doors.append(Door(READY_METRICS, listener, MetricsConnection, "http"))
    return [*doors, Door(READY, _listen(config, config.port))]


def _tls(protocol: type[TlsLines | TlsWeb], server: Server) -> Connection:
    assert server.context
    return protocol(server, server.context)


def _listen(config: Config, port: int) -> socket.socket:
    host = config.host
    try:
        return _share(host, port) if config.reuse_port else listen(host, port)
    except (OSError, UnicodeError) as error:
        raise Refusal(f"No se puede escuchar en {(host, port)}: {error}") from None


def _share(host: str, port: int) -> socket.socket:
    """As listen(), on a port that other processes of this user listen on, too. The kernel has a
    queue for each, and chooses by a hash of both addresses and ports: who comes in is spread, but
    what waits in the queue of a process that ends is reset."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=True)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
