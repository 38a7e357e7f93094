"""The block "places": the same job in two servers, and where each of them does it.

A place is a function, by its file and name; that it exists is checked. The jobs of a room stand
first, then those of a back end; a pair shows the jobs that both of its servers have an entry for.
"""

from __future__ import annotations

from collections.abc import Mapping

from page_code import SERVERS
from page_inputs import Page, PageError, known, table
from page_source import line_of

JOBS = {
    "accept": "accept",
    "partial": "the partial line",
    "out": "the out-buffer",
    "fairness": "fairness",
    "stop": "the stop",
    "asking": "asking",
    "changing": "changing",
    "forgetting": "forgetting",
    "waiting": "waiting",
    "hangups": "hang-ups",
    "edges": "edges",
}
"""The rows, by the name that they have below."""
NOWHERE = ("-",)

PLACES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    # Functions, and at last a phrase. A function without a file is in the server's own.
    "v1": {
        "accept": ("Server.accept", "a thread in accept(), and a new one for each newcomer"),
        "partial": (
            "Server.receive",
            "next_line",
            "`in_buffer`, a local variable on the stack of the client's thread",
        ),
        "out": NOWHERE,
        "fairness": (
            "Server.receive",
            "the kernel's scheduler, and the interpreter, which a thread gives up in each recv()",
        ),
        "stop": (
            "Server.run",
            "Server.stop",
            "sigwait() returns; shutdown() of every socket ends the call that a thread sleeps in",
        ),
    },
    "v2": {
        "accept": ("Server.accept", "when the listener is readable, ACCEPTS newcomers at most"),
        "partial": (
            "Client.__init__",
            "next_line",
            "`in_buffer`, in the client's object, between two events",
        ),
        "out": NOWHERE,
        "fairness": (
            "Server.turn",
            "Server.receive",
            "one recv() of READ_SIZE for each who is ready, then the next",
        ),
        "stop": (
            "Server.run",
            "Server.stop",
            "the handler sets a flag; the byte in the self-pipe ends select()",
        ),
    },
    "v3": {
        "accept": ("Server.accept", "when the listener is readable, ACCEPTS newcomers at most"),
        "partial": (
            "Client.__init__",
            "next_line",
            "`in_buffer`, in the client's object, between two events",
        ),
        "out": (
            "Server.send",
            "Server.flush",
            "Server.set_interest",
            "`out_buffer`: what the kernel has not taken, until select() says writable",
        ),
        "fairness": (
            "Server.receive",
            "Server.turn",
            "a budget of READ_SIZE, which sends use up, too; who has lines left is in `requeued`",
        ),
        "stop": (
            "Server.run",
            "Server.stop",
            "the handler sets a flag; the byte in the self-pipe ends select()",
        ),
    },
    "v4": {
        "accept": (
            "Server.serve",
            "Server.accept",
            "asyncio's, ACCEPTS newcomers in a turn; each starts a coroutine",
        ),
        "partial": ("Server.receive", "asyncio's StreamReader, behind readline()"),
        "out": (
            "Server.send",
            "Server.flush",
            "`out_buffer`, which a task hands to asyncio's own in parts; `caught_up` holds its "
            "client's coroutine back",
        ),
        "fairness": (
            "Server.receive",
            "Reader.feed_data",
            "an await that has to wait ends a turn, at the latest when the budget is used up",
        ),
        "stop": (
            "Server.serve",
            "the loop sets the event `stopping`; abort() ends each transport, and its coroutine",
        ),
    },
    "epoll": {
        "accept": (
            "lowlevel/acceptor.py:Acceptor.handle",
            "the listener's handler; after ACCEPTS newcomers it is requeued",
        ),
        "partial": (
            "lowlevel/protocol.py:LineProtocol.receive",
            "`_partial`, in a class that knows no socket",
        ),
        "out": (
            "lowlevel/connection.py:Connection.fell_short",
            "lowlevel/connection.py:Connection._flush",
            "lowlevel/room.py:Room._tell",
            "the room calls `transmit`: the socket's send(), and while something waits `_append`",
        ),
        "fairness": (
            "lowlevel/connection.py:Connection._receive",
            "lowlevel/reactor.py:Reactor.requeue",
            "one read and one budget for a turn; who may have more is requeued",
        ),
        "stop": (
            "lowlevel/__main__.py:run",
            "lowlevel/reactor.py:Reactor.stop",
            "the handler stops the reactor; the byte in its wakeup ends the wait",
        ),
        "asking": ("EpollBackend.add", "the mask is the kernel's own, and the mode joins it"),
        "changing": ("EpollBackend.modify", "the same; what is ready is told again"),
        "forgetting": ("EpollBackend.remove", "before the close(), always"),
        "waiting": ("EpollBackend.wait", "descriptor and mask as poll() returns them"),
        "hangups": (
            "EpollBackend.wait",
            "as themselves: EPOLLERR and EPOLLHUP unasked, EPOLLRDHUP where it is asked for",
        ),
        "edges": (
            "EpollBackend.__init__",
            "epoll-et: EPOLLET, and the two bits that say when a short read is not the end",
        ),
    },
    "selectors": {
        "asking": ("SelectorsBackend.add", "the mask is translated, and a key is made"),
        "changing": ("SelectorsBackend.modify", "the same, and a new key"),
        "forgetting": ("SelectorsBackend.remove", "the key goes, too"),
        "waiting": ("SelectorsBackend.wait", "each event is looked up, and its mask translated"),
        "hangups": ("SelectorsBackend.wait", "as whatever was asked about"),
        "edges": NOWHERE,
    },
}


def places(page: Page, old: str, new: str) -> str:
    """The jobs that both have, side by side."""
    for name in (old, new):
        known(name, tuple(PLACES), "server")
    rows = [("", old, new)]
    for job, title in JOBS.items():
        if job in PLACES[old] and job in PLACES[new]:
            rows.append((title, cell(page, old, job), cell(page, new, job)))
    if len(rows) == 1:
        raise PageError(f"{old} and {new} have no job in common")
    return table(rows)


def cell(page: Page, server: str, job: str) -> str:
    *functions, phrase = PLACES[server][job]
    links = []
    for place in functions:
        path, _, name = place.rpartition(":")
        path = path or SERVERS[server].file
        links.append(page.link(f"`{name}`", path, line_of(page.inputs, path, name)))
    return f"{', '.join(links)}: {phrase}" if links else phrase
