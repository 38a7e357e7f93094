"""The peers: what people would pick instead of our servers, under the names of tables and charts.

    python -m benchmarks.harness.roster            # what is there, and how to get what is not
    python -m benchmarks.harness.roster "node --cork"        # its command line, with {port}

Each is small, in the manner of its framework, and speaks the wire format of v3 and v4, or for
browsers the same in the text frames of a WebSocket. They listen at 127.0.0.1, print nothing, and
end on SIGTERM. The C and the Go ones are compiled when they are first used, into `sock_chat` in the
user's cache folder.
"""

from __future__ import annotations

import functools
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.harness import compiled
from benchmarks.harness.compiled import CompileError
from benchmarks.harness.process import ServerError

FOLDER = Path(__file__).resolve().parent.parent / "peers"


class PeerError(ServerError):
    """A peer cannot be started; the text says why, with the compiler's own words."""


@dataclass(frozen=True)
class Peer:
    """source: its file, in this folder; what runs it follows from the suffix.
    about: what it is, for a reader who knows ours.
    arguments: beside the port.
    package: what it imports beside the standard library, of Python or of Node.
    fails: the tests of tests/contract/test_contract.py that it fails; above PEERS it says why.
    websocket: its clients are browsers, so none of these tests is for it.
    """

    source: str
    about: str = ""
    arguments: tuple[str, ...] = ()
    package: str | None = None
    fails: tuple[str, ...] = ()
    websocket: bool = False

    def missing(self) -> str | None:
        """What it lacks here and how to get it, in one line; None: it can be started."""
        source = FOLDER / self.source
        if missing := compiled.no_compiler(source) or _refusal(source):
            return missing
        if self.package and not self._version():
            how = "npm install --prefix benchmarks/peers"
            how = how if source.suffix == ".js" else "pip install -e '.[peers]'"
            return f"{self.package} is not installed: {how}"
        return None

    def _version(self) -> str | None:
        """Of its package; None: it is not installed."""
        assert self.package
        try:
            if self.source.endswith(".js"):
                about = FOLDER / "node_modules" / self.package / "package.json"
                return str(json.loads(about.read_text("utf-8"))["version"])
            return version(self.package)
        except (FileNotFoundError, PackageNotFoundError):
            return None

    def command(self, port: int | str) -> list[str]:
        """Its command line; the port may be "{port}". PeerError: it is missing, or cannot be
        compiled."""
        source, runners = FOLDER / self.source, {".py": sys.executable, ".js": "node"}
        try:
            if missing := self.missing():
                raise PeerError(missing)
            runner = runners.get(source.suffix)
            program = [runner, str(source)] if runner else [str(compiled.program(source))]
        except CompileError as error:
            raise PeerError(str(error)) from None
        return [*program, *self.arguments, "--port", str(port)]

    def versions(self) -> dict[str, str]:
        """Of what it is made with: its package, its compiler or its interpreter."""
        source = FOLDER / self.source
        package = {self.package: self._version() or ""} if self.package else {}
        if source.suffix == ".py":
            return package
        first_line = compiled.version_of(source).partition("\n")[0]
        if source.suffix == ".go":
            return {"go": f"{first_line} ({compiled.age_of_go()})"}
        return {compiled.c_compiler() if source.suffix == ".c" else "node": first_line, **package}


@functools.lru_cache(maxsize=None)
def _refusal(source: Path) -> str | None:
    """Why a program in C cannot be had here: without arguments its exit status is 1 then, not 2."""
    if source.suffix != ".c":
        return None
    try:
        command = [str(compiled.program(source))]
    except CompileError:
        return None  # which command() raises
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode == 1 else None


# What a framework's own way does not give, and a peer therefore lacks: the wire tests that show it.
# tests/tools/test_peers.py holds that each peer fails just these.
NO_MAX_LINE = "test_line_too_long_ends_that_client_only"
"""A line grows until its "\\n" comes. Only Twisted's LineReceiver has a bound by itself."""
NO_HIGH_WATER = "test_one_who_does_not_read_delays_nobody_and_is_disconnected"
"""It delays nobody, but it is not disconnected either: what waits for it has no bound."""
NO_LOW_WATER = "test_flooder_that_does_not_read_is_not_read_from"
"""A client is read from, however much waits for it."""
NO_BUDGET = "test_flooder_starves_nobody"
"""A read full of short lines costs a send for each line and client, before the next client's turn.
Who coalesces does not meet it."""
NO_DRAIN = "test_half_closed_client_still_gets_what_waits_for_it"
"""An IOStream that has read EOF is closed, together with what it had still to write."""
OTHER_REPLACEMENT = "test_invalid_utf8_becomes_the_replacement_character"
"""One U+FFFD for each byte of a character that was cut off, where Python puts one for all of it."""
RESET_AS_EOF = "test_reset_in_mid_line_leaves_the_line_unsaid"
"""libuv takes a hang-up that comes together with the last data for an EOF, and Node
is slow enough to meet it; in Go the writer may be told of the reset, and then the reader is not."""
NO_OUT_BUFFER = (
    "test_a_little_behind_is_still_read_from",
    "test_client_128_kib_behind_is_not_dropped",
    "test_partial_sends_keep_the_stream_whole",
    "test_half_closed_client_still_gets_what_waits_for_it",
)
"""Everyone waits in sendall() for a client whose kernel buffers are full; soon it is dropped."""
SOMETIMES = (NO_BUDGET, RESET_AS_EOF)
"""A matter of who is faster: of these a peer that has them fails some of the times."""
UNBOUNDED = (NO_MAX_LINE, NO_HIGH_WATER, NO_LOW_WATER)

PEERS: Mapping[str, Peer] = {
    "c": Peer("c_epoll.c", "C on epoll, one thread; gathers what is said in a turn"),
    "c --flush message": Peer(
        "c_epoll.c", "the same, which sends each line at once", ("--flush", "message")
    ),
    "c --looks 2": Peer(
        "c_epoll.c",
        "the same as `c`, which looks up to twice more before it sends",
        ("--looks", "2"),
    ),
    "c-uring": Peer(
        "c_uring.c", "C on io_uring, one call a turn; looks up to twice more", ("--looks", "2")
    ),
    "threads": Peer(
        "threads_broadcast.py",
        "a Python thread for each client, which sends to all others",
        fails=(NO_MAX_LINE, NO_LOW_WATER, *NO_OUT_BUFFER),
    ),
    "asyncio-protocol": Peer(
        "asyncio_protocol.py",
        "asyncio with Protocols instead of streams",
        fails=(*UNBOUNDED, NO_BUDGET),
    ),
    "uvloop-protocol": Peer(
        "uvloop_protocol.py",
        "the same on uvloop",
        package="uvloop",
        fails=(*UNBOUNDED, NO_BUDGET),
    ),
    "uvloop-protocol --coalesce": Peer(
        "uvloop_protocol.py",
        "the same, which gathers by `call_soon()`",
        ("--coalesce",),
        package="uvloop",
        fails=UNBOUNDED,
    ),
    "twisted": Peer(
        "twisted_lines.py",
        "Twisted's LineReceiver",
        package="twisted",
        fails=(NO_HIGH_WATER, NO_LOW_WATER),
    ),
    "tornado": Peer(
        "tornado_tcp.py",
        "Tornado's TCPServer and IOStream",
        package="tornado",
        fails=(*UNBOUNDED, NO_BUDGET, NO_DRAIN),
    ),
    "trio": Peer(
        "trio_streams.py",
        "trio with two tasks for each client",
        package="trio",
        fails=(*UNBOUNDED, NO_BUDGET),
    ),
    "gevent": Peer(
        "gevent_server.py",
        "gevent with two greenlets for each client",
        package="gevent",
        fails=(*UNBOUNDED, NO_BUDGET),
    ),
    "go": Peer(
        "go/main.go",
        "Go with two goroutines for each client; the writers gather",
        fails=(NO_MAX_LINE, NO_LOW_WATER, OTHER_REPLACEMENT, RESET_AS_EOF),
    ),
    "node": Peer("node_room.js", "Node's net", fails=(*UNBOUNDED, NO_BUDGET, RESET_AS_EOF)),
    "node --cork": Peer(
        "node_room.js",
        "the same, which gathers by `cork()`",
        ("--cork",),
        fails=(*UNBOUNDED, RESET_AS_EOF),
    ),
    "websockets": Peer(
        "websockets_room.py",
        "websockets on uvloop, with its `broadcast()`",
        package="websockets",
        websocket=True,
    ),
    "aiohttp": Peer(
        "aiohttp_room.py",
        "aiohttp on uvloop with two tasks for each client",
        package="aiohttp",
        websocket=True,
    ),
    "node-ws": Peer("node_ws.js", "Node with ws", package="ws", websocket=True),
    "node-ws --cork": Peer(
        "node_ws.js",
        "Node with ws, which gathers what a turn brings",
        ("--cork",),
        package="ws",
        websocket=True,
    ),
}
"""In the order of tables and charts."""
LINE_PEERS = tuple(name for name, peer in PEERS.items() if not peer.websocket)
"""Those whose clients are no browsers."""


def main() -> None:
    if len(sys.argv) > 1:
        print(shlex.join(PEERS[sys.argv[1]].command("{port}")).replace("'{port}'", "{port}"))
        return
    for name, peer in PEERS.items():
        print(f"{name:28}{peer.missing() or 'ok'}")


if __name__ == "__main__":
    main()
