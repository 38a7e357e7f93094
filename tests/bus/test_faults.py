"""What happens to servers, to NATS and to the link between them, and what the clients hear of it.

A Crowd is clients on all servers that say numbered lines. Whatever happens, those who were kept
have heard the same in the same order, each line once; and nobody's line is missing, but those of a
client that was told so, or was closed.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.harness.broker import Nats, cluster
from benchmarks.harness.server import Server
from tests.bus.conftest import Serve
from tests.bus.links import ThreadedLink
from tests.chat.conftest import Guest

AWAY = "* El chat espera a su bus."
REFUSED = "* No se ha dicho: el bus no lo toma."
AGAIN = 10.0  # seconds after which all hear each other


class Crowd:
    """A client on each server, who hear one another."""

    def __init__(self, servers: Sequence[Server]):
        self.guests = [Guest(server, f"g{index}") for index, server in enumerate(servers)]
        self.count = 0
        for index, guest in enumerate(self.guests):
            guest.lines(*[f"* g{later} ha entrado." for later in range(index + 1, len(servers))])

    def say(self, *speakers: int) -> list[str]:
        """A line of each, in no order. What has been said."""
        lines = []
        for speaker in speakers or range(len(self.guests)):
            self.count += 1
            self.guests[speaker].say(f"{self.count}")
            lines.append(f"g{speaker} dice: {self.count}")
        return lines

    def check(self, lines: Sequence[str], *listeners: int) -> None:
        """All of them hear these lines, whatever was theirs left out, in the same order."""
        heard = [self.hear(listener, lines) for listener in listeners or range(len(self.guests))]
        for one in heard:
            for other in heard:
                common = [line for line in one if line in other]
                assert common == [line for line in other if line in one]

    def hear(self, listener: int, lines: Sequence[str]) -> list[str]:
        own = f"g{listener} "
        expected = [line for line in lines if not line.startswith(own)]
        heard: list[str] = []
        while len(heard) < len(expected):
            line = self.guests[listener].line()
            if not line.startswith("* "):
                heard.append(line)
        assert sorted(heard) == sorted(expected)
        return heard

    def hears_promptly(self) -> None:
        began = time.monotonic()
        self.check(self.say())
        assert time.monotonic() - began < AGAIN


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[Nats]:
    with Nats(tmp_path / "nats") as nats:
        yield nats


@pytest.fixture
def link(nats: Nats) -> Iterator[ThreadedLink]:
    link = ThreadedLink(nats.port)
    yield link
    link.close()


def wait_for(guest: Guest, line: str) -> None:
    while guest.line() != line:
        pass


@pytest.mark.unsteady
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_nats_goes_and_comes_back(serve: Serve, own_nats: Nats, how: str) -> None:
    servers = [serve(own_nats.url) for _ in range(2)]
    crowd = Crowd(servers)
    crowd.check(crowd.say())
    if how == "stopped":
        own_nats.signal(signal.SIGSTOP)
    else:
        own_nats.kill()
    began = time.monotonic()
    lines = crowd.say()
    for guest in crowd.guests:
        wait_for(guest, AWAY)
    assert time.monotonic() - began < 5.0
    lines += crowd.say()
    time.sleep(0.5)
    if how == "stopped":
        own_nats.signal(signal.SIGCONT)
    else:
        own_nats.start()
    crowd.check(lines)
    crowd.hears_promptly()
    newcomer = Guest(servers[0], "z")
    newcomer.say("/list")
    newcomer.lines("* En general (3): g0, g1, z")


@pytest.mark.unsteady
def test_a_server_that_stood_still_finds_that_it_was_given_up(serve: Serve, nats: Nats) -> None:
    """Its clients are closed, nothing of what they said is heard, and it serves on."""
    one, two = serve(nats.url), serve(nats.url)
    crowd = Crowd([one, two])
    ana, bea = crowd.guests
    one.process.send_signal(signal.SIGSTOP)
    ana.say("nadie lo oye")
    bea.lines("* g0 ha salido.")
    bea.say("/nick g0", "ahora soy g0")
    bea.lines("* g1 ahora es g0.")
    one.process.send_signal(signal.SIGCONT)
    assert "* El chat ha estado demasiado tiempo sin su bus.\n" in ana.rest().decode()
    again = Guest(one)
    again.say("g0", "ana")
    again.lines("* El apodo g0 está en uso.")
    while (line := again.line()) != "* Hola, ana. En general: ana, g0.":
        assert "nadie lo oye" not in line
    bea.lines("* ana ha entrado.")
    again.say("aquí estoy")
    bea.lines("ana dice: aquí estoy")
    bea.say("te oigo")
    again.lines("g0 dice: te oigo")


@pytest.mark.unsteady
@pytest.mark.parametrize("fault", ["cut", "black hole", "slow"])
def test_the_link_fails(serve: Serve, nats: Nats, link: ThreadedLink, fault: str) -> None:
    """Its server is not given up: nobody is away for longer than a lease but who is."""
    one = serve(link.link.url, lease=60)
    two = serve(nats.url, lease=60)
    crowd = Crowd([one, two])
    lines = crowd.say()
    if fault == "cut":
        for _ in range(20):
            link.do(link.link.cut)
            lines += crowd.say()
    elif fault == "black hole":
        link.do(link.link.passes.clear)
        lines += crowd.say()
        wait_for(crowd.guests[0], AWAY)
        lines += crowd.say()
        link.do(link.link.cut)
        link.do(link.link.open)
    else:
        link.link.delay = 0.1
        for _ in range(20):
            lines += crowd.say()
        link.do(link.link.open)
    crowd.check(lines)
    crowd.hears_promptly()


@pytest.mark.unsteady
def test_a_server_that_was_cut_off_for_too_long_is_given_up(
    serve: Serve, nats: Nats, link: ThreadedLink
) -> None:
    crowd = Crowd([serve(link.link.url), serve(nats.url)])
    link.do(link.link.shut)
    crowd.guests[0].say("nadie lo oye")
    wait_for(crowd.guests[0], AWAY)
    wait_for(crowd.guests[1], "* g0 ha salido.")
    link.do(link.link.open)
    assert crowd.guests[0].rest()
    crowd.guests[1].say("/list")
    crowd.guests[1].lines("* En general (1): g1")


@pytest.mark.unsteady
def test_the_leader_of_a_cluster_is_killed(serve: Serve, tmp_path: Path) -> None:
    with ExitStack() as stack:
        three = cluster(tmp_path)
        for each in three:
            each.launch()
            stack.callback(each.kill)
        urls = [each.url for each in three]
        options = "--bus-replicas 3"
        servers = [serve(*urls, arguments=options, lease=60, connect=12) for _ in range(3)]
        crowd = Crowd(servers)
        lines = crowd.say()
        for victim in three:
            victim.kill()
            for _ in range(10):
                lines += crowd.say()
                time.sleep(0.05)
            victim.start()
            crowd.check(lines)
            lines = crowd.say()
        crowd.check(lines)
        crowd.hears_promptly()


@pytest.mark.unsteady
def test_a_full_store_is_told(serve: Serve, tmp_path: Path) -> None:
    settings = "jetstream { max_file_store: 2MB, max_mem: 64MB }"
    with Nats(tmp_path / "nats", settings) as nats:
        servers = [serve(nats.url, lease=60) for _ in range(2)]
        crowd = Crowd(servers)
        text = "x" * 4000
        said = 0
        line = ""
        while line != REFUSED:
            crowd.guests[0].say(text, "/pm g0 eco")
            line = crowd.guests[0].line()
            said += 1
            assert said < 2000
        heard = 0
        crowd.guests[1].say("/pm g1 fin")
        while (line := crowd.guests[1].line()) != "g1 te dice: fin":
            heard += line == f"g0 dice: {text}"
        assert heard == said - 1
        crowd.guests[1].say("tampoco")
        wait_for(crowd.guests[1], REFUSED)


@pytest.mark.unsteady
def test_a_server_is_killed_while_it_speaks(serve: Serve, nats: Nats) -> None:
    """The others hear what it said up to somewhere, all of it, and then that its people left."""
    servers = [serve(nats.url) for _ in range(3)]
    crowd = Crowd(servers)
    lines = [f"{number}" for number in range(20_000)]
    crowd.guests[0].say(*lines)
    assert crowd.guests[1].line() == "g0 dice: 0"
    servers[0].kill()
    heard = []
    for guest in crowd.guests[1:]:
        heard.append([guest.line()])
        while heard[-1][-1] != "* g0 ha salido.":
            heard[-1].append(guest.line())
    assert ["g0 dice: 0", *heard[0]] == heard[1]
    assert heard[1][:-1] == [f"g0 dice: {line}" for line in lines[: len(heard[0])]]
