"""The command line: python -m lowlevel {selectors,epoll,epoll-et,uring,uvloop}."""

import argparse
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Tuple

from lowlevel.acceptor import Acceptor
from lowlevel.reactor import Backend, Reactor, Unavailable
from lowlevel.room import Flush, Room
from lowlevel.system import RESERVE, listen, port_number, prepare_process, say

if TYPE_CHECKING:
    from lowlevel.uring.completion import Completions

LOOKS = 2  # how often a turn looks again before it sends; more looks gather few messages more
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


# A loop, the room that it serves, and what makes a client of an accepted socket.
Parts = Tuple[Reactor, Room, Callable[[socket.socket, Any], None]]
Log = Optional[Callable[[str], None]]


def on_readiness(backend: Backend, looks: int, flush: Flush, log: Log) -> Parts:
    from lowlevel.readiness import ReadinessConnection

    reactor, room = Reactor(backend, looks), Room(flush, log)
    return reactor, room, lambda sock, addr: ReadinessConnection(sock, addr, reactor, room).open()


def on_completions(completions: "Completions", looks: int, flush: Flush, log: Log) -> Parts:
    from lowlevel.uring.connection import CompletionConnection
    from lowlevel.uring.teller import RingTeller

    teller = RingTeller(completions)
    reactor, room = Reactor(completions, looks), Room(flush, log, teller.tell)

    def let_in(sock: socket.socket, addr: Any) -> None:
        CompletionConnection(sock, addr, reactor, room, completions, teller).open()

    return reactor, room, let_in


def selectors(looks: int, flush: Flush, log: Log) -> Parts:
    from lowlevel.selectors_backend import SelectorsBackend

    return on_readiness(SelectorsBackend(), looks, flush, log)


def epoll(looks: int, flush: Flush, log: Log) -> Parts:
    from lowlevel.epoll_backend import EpollBackend

    return on_readiness(EpollBackend(), looks, flush, log)


def epoll_et(looks: int, flush: Flush, log: Log) -> Parts:
    from lowlevel.epoll_backend import EpollBackend

    return on_readiness(EpollBackend(edge_triggered=True), looks, flush, log)


def uring(looks: int, flush: Flush, log: Log) -> Parts:
    """Unavailable: io_uring cannot be had."""
    from lowlevel.uring.completion import ENTRIES, Completions
    from lowlevel.uring.ring import Ring

    try:
        completions = Completions(Ring(ENTRIES))
    except OSError as error:  # no memory for the buffers, or they cannot be registered
        raise Unavailable(error.strerror) from None
    return on_completions(completions, looks, flush, log)


LOOPS: Dict[str, Callable[[int, Flush, Log], Parts]] = {
    "selectors": selectors,
    "epoll": epoll,
    "epoll-et": epoll_et,
    "uring": uring,
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lowlevel",
        description="Chat server on a reactor of our own, or on uvloop.",
        allow_abbrev=False,
    )
    parser.add_argument("server", choices=[*LOOPS, "uvloop"])
    parser.add_argument("--host", default="127.0.0.1", help="address or name (%(default)s)")
    parser.add_argument("--port", type=port_number, default=8080, help="0: any (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no line per client or message")
    parser.add_argument(
        "--flush",
        choices=[flush.value for flush in Flush],
        help="send what a turn has gathered, or each message by itself; not with uvloop (turn)",
    )
    parser.add_argument(
        "--looks",
        type=int,
        choices=range(9),
        metavar="N",
        help=f"look again N times before a turn is sent, 0 to 8; not with uvloop ({LOOKS})",
    )
    args = parser.parse_args()
    if args.server == "uvloop" and args.flush:
        parser.error("argument --flush: uvloop sends each message by itself")
    if args.server == "uvloop" and args.looks is not None:
        parser.error("argument --looks: uvloop gathers nothing that could grow")
    return args


def run(args: argparse.Namespace, listener: socket.socket, limit: int) -> None:
    """Serve until SIGINT or SIGTERM."""
    flush = Flush(args.flush or "turn")
    looks = LOOKS if args.looks is None else args.looks
    if flush is Flush.MESSAGE:
        looks = 0  # nothing is gathered
    reactor, room, let_in = LOOPS[args.server](looks, flush, None if args.quiet else say)
    reactor.before_wait = room.flush
    Acceptor(listener, reactor, let_in, limit - RESERVE, say).open()

    def stop(signum: int, frame: Any) -> None:
        reactor.stop()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # at exit a second one would kill
        signal.alarm(1)  # a second later the process ends, whatever holds it up

    # By itself no signal ends a wait, PEP 475; the byte does.
    signal.set_wakeup_fd(reactor.wakeup_fd(), warn_on_full_buffer=False)
    for signum in STOP_SIGNALS:
        signal.signal(signum, stop)
    say(f"Servidor {args.server} iniciado en {listener.getsockname()}")
    reactor.run()
    room.close()
    reactor.close()
    listener.close()


def main(args: argparse.Namespace) -> None:
    """Serve. SystemExit: it cannot, and why."""
    if sys.platform != "linux":
        sys.exit("sock_chat solo funciona en Linux")
    if args.server == "uvloop":
        try:
            from lowlevel import uvloop_server
        except ModuleNotFoundError:
            sys.exit("uvloop no está instalado: pip install uvloop")
        uvloop_server.main(args)
        return
    limit = prepare_process()
    if limit < 2 * RESERVE:
        sys.exit(f"El límite de {limit} descriptores no deja sitio a nadie")
    try:
        listener = listen(args.host, args.port)
    except (OSError, UnicodeError) as error:
        sys.exit(f"No se puede escuchar en {(args.host, args.port)}: {error}")
    try:
        run(args, listener, limit)
    except Unavailable as error:
        sys.exit(f"io_uring no está disponible: {error}")
    signal.alarm(0)


if __name__ == "__main__":
    main(parse_args())
