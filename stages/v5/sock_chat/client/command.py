"""The command sock-chat: its options, and whether it talks at a terminal or through a pipe."""

import argparse
import asyncio
import os
import ssl
from collections.abc import Sequence

from sock_chat.client.connection import Address
from sock_chat.client.pipe import Pipe
from sock_chat.client.terminal import Terminal, is_terminal
from sock_chat.system import STDERR, port_number

PORT, TLS_PORT = 8080, 8443


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sock-chat", description="Chat client.", allow_abbrev=False
    )
    parser.add_argument("--host", default="127.0.0.1", help="address or name (%(default)s)")
    parser.add_argument("--port", type=port_number, help=f"({PORT}; with --tls {TLS_PORT})")
    parser.add_argument("--tls", action="store_true", help="lines over TLS")
    parser.add_argument(
        "--cafile", metavar="FILE", help="whom to trust with --tls, instead of the system's"
    )
    args = parser.parse_args(arguments)
    if args.cafile and not args.tls:
        parser.error("--cafile: only with --tls")
    if args.port is None:
        args.port = TLS_PORT if args.tls else PORT
    return args


async def talk(host: str, port: int, tls: ssl.SSLContext | None) -> int | str:
    """The exit status, or the line that says why there is none."""
    address = Address(host, port, tls)
    try:
        streams = await address.connect()
    except (OSError, UnicodeError) as error:
        return f"No se puede conectar con {(host, port)}: {error}"
    if is_terminal():
        return await Terminal(address).run(streams)
    await Pipe(streams).run()


def reserve_standard_streams() -> None:
    """Put /dev/null where 0, 1 or 2 was closed at the start: no socket may get their numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(fd)


def main() -> int | str:
    """Talk. Returns the exit status, or why it cannot, for sys.exit()."""
    args = parse_args()
    reserve_standard_streams()
    try:
        tls = ssl.create_default_context(cafile=args.cafile) if args.tls else None
    except OSError as error:
        return f"No se puede leer {args.cafile}: {error}"
    try:
        return asyncio.run(talk(args.host, args.port, tls))
    except KeyboardInterrupt:
        return 130
