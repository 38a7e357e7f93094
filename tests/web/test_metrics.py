"""The metrics: exact numbers after a small hour, and names as Prometheus wants them."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.harness.process import DEADLINE, ServerError, wait_until
from sock_chat import config, launch
from sock_chat.codec import LINES, json_codec
from sock_chat.link import Kind, Reason
from sock_chat.metrics import CONTENT_TYPE, METRICS, PREFIX, exposition
from sock_chat.server import Server
from sock_chat.services import Check
from sock_chat.tls import Layer
from tests.chat.certificates import Certificates
from tests.chat.conftest import QUESTION, Serve
from tests.chat.conftest import serve as serve
from tests.chat.world import World
from tests.support.wire import Peer

T = TypeVar("T")
PROXY = "127.0.0.9"  # trusted
STRANGER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
BASE_UNITS = ("_seconds", "_bytes")
OTHER_UNITS = r"_(ms|milliseconds|us|minutes|hours|kib|mib|kilobytes|bits|percent)(_|$)"

Samples = Mapping[str, float]


class Answer(NamedTuple):
    status: int
    type: str | None
    body: bytes


class Running:
    """A server whose loop is a thread of ours, so that its numbers can be looked at between two
    turns. Of its doors the last is for lines."""

    def __init__(self, *arguments: str):
        options = config.parse(["--port", "0", "--web-port", "0", "--quiet", *arguments], {})
        context = launch._context(options)
        self.server = Server(options, launch._doors(options, context), 1 << 16, context)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.wait(self.server.start())

    def wait(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE)

    def do(self, call: Callable[[], T]) -> T:
        async def turn() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(turn(), self.loop).result(DEADLINE)

    def address(self, door: int = -1) -> tuple[str, int]:
        address: tuple[str, int] = self.server._doors[door].listener.getsockname()
        return address

    def peer(self, nick: str = "", **options: Any) -> Peer:
        """A line client, in the room if it has a nick."""
        peer = Peer(self.address(), **options)
        assert peer.line() == QUESTION
        if nick:
            peer.say(nick)
            hear(peer, f"* Hola, {nick}.")
        return peer

    def samples(self) -> Samples:
        return parse(self.do(lambda: exposition(self.server)))

    def refuse(self, refusing: bool) -> None:
        """Whether the disk refuses what is written from now on."""
        store = self.server.storage._store
        store.wait(lambda database: database.execute(f"PRAGMA query_only = {refusing:d}"))

    def close(self) -> None:
        self.wait(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE)
        self.loop.close()
        self.server.storage.close()


def parse(data: bytes) -> Samples:
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sample.labels.items()): (
            sample.value
        )
        for family in text_string_to_metric_families(data.decode())
        for sample in family.samples
    }


def hear(peer: Peer, start: str) -> None:
    """Read up to the line that begins so."""
    while not peer.line().startswith(start):
        pass


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    options = (
        *("--db", str(tmp_path / "chat.db"), "--rate", "0", "--per-address", "1"),
        *("--trust-proxy", f"{PROXY}/32"),
        *Certificates(tmp_path).options,
    )
    with closing(Running(*options)) as server:
        yield server


def test_exact_numbers_after_a_small_hour(running: Running) -> None:
    def difference(before: Samples, name: str) -> float:
        return running.samples()[PREFIX + name] - before[PREFIX + name]

    def at_last(name: str, value: float) -> None:
        wait_until(lambda: running.samples()[PREFIX + name] == value, f"{name} {value}")

    start = running.samples()
    assert abs(start[PREFIX + "start_time_seconds"] - time.time()) < DEADLINE
    assert all(
        value == 0
        for name, value in start.items()
        if name.startswith(PREFIX)
        and not re.match(rf"{PREFIX}(rooms|start_time|build_info|commit_duration)", name)
    ), start

    # Three people talk.
    ana, bea, carlos = (running.peer(nick) for nick in ("ana", "bea", "carlos"))
    hear(ana, "* carlos ha entrado.")
    before = running.samples()
    ana.say("uno", "dos", "tres")
    bea.say("/join cine")
    hear(carlos, "ana dice: tres")
    hear(ana, "* bea ha salido.")
    hear(bea, "* En cine: bea.")
    ana.say("cuatro")
    hear(carlos, "ana dice: cuatro")
    assert difference(before, "messages_total") == 4
    assert difference(before, "deliveries_total") == 3 * 2 + 1
    samples = running.samples()
    assert samples[PREFIX + "clients{kind=lines}"] == samples[PREFIX + "people"] == 3
    assert samples[PREFIX + "rooms"] == 2

    # Who does not get in: the second of an address, a malformed header, one too many.
    strangers = [Peer(running.address(), source=PROXY) for _ in range(3)]
    for stranger, header in zip(strangers, [STRANGER, STRANGER, b"PROXY ana\r\n"], strict=True):
        stranger.send(header)
        if stranger is strangers[0]:
            assert stranger.line() == QUESTION
        else:
            stranger.rest()
    running.server._limit = 0
    assert Peer(running.address()).rest() == b"servidor lleno\n"
    running.server._limit = 1 << 16
    at_last("connections_closed_total{reason=full}", 1)
    at_last("connections_closed_total{reason=bad_header}", 1)
    at_last("connections_closed_total{reason=crowded}", 1)
    samples = running.samples()
    assert samples[PREFIX + "connections_accepted_total{kind=lines}"] == 7
    assert samples[PREFIX + "connections"] == 4
    assert samples[PREFIX + "people"] == 3

    # A handshake that comes to nothing, and one under way.
    door = running.address(0)
    Peer(door).send(b"hola\n" * 100)
    silent = Peer(door)
    at_last("tls_handshake_failures_total", 1)
    at_last("tls_handshakes_total", 2)
    silent.close()
    at_last("tls_handshake_failures_total", 2)
    assert running.samples()[PREFIX + "connections_accepted_total{kind=tls}"] == 2

    # Passwords.
    carlos.say("/register correct horse")
    hear(carlos, "* El apodo carlos es tuyo.")
    carlos.say("/login carlos wrong horse", "/login zoe wrong horse", "/login carlos correct horse")
    carlos.say("/list")
    hear(carlos, "* En general")
    samples = running.samples()
    checks = {each.name.lower(): 1.0 for each in Check} | {"too_many": 0.0}
    for result, count in checks.items():
        assert samples[f"{PREFIX}password_checks_total{{result={result}}}"] == count
    assert samples[PREFIX + "passwords_waiting"] == 0

    # The rate limit: two lines at once, and two that wait for a tenth of a second each.
    running.do(lambda: vars(running.server.chat).update(rate=10.0, burst=2))
    dora = running.peer("dora")
    running.do(lambda: vars(running.server.chat).update(rate=0.0))
    dora.say("uno", "dos", "/quit")
    dora.rest()
    assert 0 < running.samples()[PREFIX + "rate_limited_seconds_total"] <= 0.2

    # A disk that refuses.
    at_last("history_queue_messages", 0)
    before = running.samples()
    running.refuse(True)
    bea.say("a", "b", "c")
    wait_until(lambda: difference(before, "commits_refused_total") >= 1, "a refused commit")
    assert running.samples()[PREFIX + "history_queue_messages"] == 3
    assert running.samples()[PREFIX + "history_queue_bytes"] > 3
    running.refuse(False)
    at_last("history_queue_messages", 0)
    at_last("history_queue_bytes", 0)
    assert difference(before, "commit_duration_seconds_count") == 1
    assert difference(before, "history_lost_messages_total") == 0

    # A slow reader: who speaks hears nothing, so nobody else has to be read.
    running.server._doors[-1].listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    eva = running.peer("eva", receive_buffer=4096)
    eva.say("/join cine")
    hear(eva, "* En cine:")
    before = running.samples()
    counters, sent = running.server.counters, 0
    total = counters.messages
    while not running.do(lambda: counters.closed[Reason.SLOW]):
        bea.send(b"x" * 4000 + b"\n")
        total += 1
        sent += 1
        wait_until(partial(lambda total: counters.messages == total, total), "what bea says")
        if sent == 100:
            assert 300_000 < running.samples()[PREFIX + "waiting_bytes"] < 100 * 4020
    assert difference(before, "messages_total") == sent
    assert difference(before, "deliveries_total") == sent > (1 << 20) // 4020

    # All that have come are here or have gone, and nothing has failed.
    samples = running.samples()
    accepted = [f"{PREFIX}connections_accepted_total{{kind={each.value}}}" for each in Kind]
    closed = [f"{PREFIX}connections_closed_total{{reason={r.name.lower()}}}" for r in Reason]
    here = sum([samples[name] for name in accepted]) - sum([samples[name] for name in closed])
    assert here == samples[PREFIX + "connections"] == 4
    assert samples[PREFIX + "internal_errors_total"] == 0


def test_deliveries_are_what_clients_have_got() -> None:
    """Whoever enters, leaves and speaks in one turn, in whatever order."""
    choice = random.Random(13)
    world = World()
    codecs = [LINES, json_codec(b"[%b]\n".__mod__)]
    clients = [world.connect(f"n{i}", codec=choice.choice(codecs)) for i in range(5)]
    for number in range(500):
        action = choice.choice(["hola", "hola", "/join cine", "/join general", "/quit"])
        choice.choice(clients).send(action)
        if choice.random() < 0.2:
            clients.append(world.connect(codec=choice.choice(codecs)))
            clients[-1].send(f"m{number}")
        if choice.random() < 0.5:
            world.turn()
    world.turn()
    received = 0
    for client in clients:
        if client.codec is LINES:
            received += sum([" dice: " in line and line[0] != "[" for line in client.new()])
        else:
            events = [event for line in client.new() for event in json.loads(line)]
            received += sum([event["type"] == "said" for event in events])
    assert world.counters.deliveries == received > 500
    assert world.counters.messages == len(world.log.messages)


def test_a_delay_counts_once_however_often_it_is_asked_for() -> None:
    world = World(rate=1, burst=2)
    world.connect("ana", "uno", "dos", "tres")
    for _ in range(8):
        world.clock += 0.25
        world.run()
    assert world.counters.limited == pytest.approx(2.0)
    world.clock += 10
    world.run()
    assert world.counters.limited == pytest.approx(2.0)


def test_names_are_as_prometheus_wants_them(running: Running) -> None:
    """What promtool check metrics complains about."""
    text = running.do(lambda: exposition(running.server)).decode()
    families = {each.name: each for each in text_string_to_metric_families(text)}
    assert {"process_cpu_seconds", "process_open_fds", f"{PREFIX}build_info"} <= set(families)
    for entry in METRICS:
        name = PREFIX + entry.name
        family = families[name.removesuffix("_total")]
        assert family.type == entry.type and family.documentation == entry.help
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", name) and entry.help.endswith(".")
        assert name.endswith("_total") == (entry.type == "counter")
        assert not re.search(OTHER_UNITS, name)
        assert not re.search(r"_(count|sum|bucket|counter|gauge|histogram)$", name)
        for unit in BASE_UNITS:
            assert unit not in name or name.removesuffix("_total").endswith(unit)
    assert len(families) == len({entry.name for entry in METRICS}) + 1 + sum(
        name.startswith("process_") for name in families
    )


def test_labels_are_enumerations_and_all_of_them_are_there_from_the_start(
    running: Running,
) -> None:
    """A series that a client can add is memory that a client can take."""
    labels = {
        f"{PREFIX}{entry.name}{{{entry.label}={each.name.lower()}}}"
        for entry in METRICS
        for each in entry.values
    }
    assert {entry.values for entry in METRICS} == {(), tuple(Kind), tuple(Reason), tuple(Check)}
    buckets = f"{PREFIX}commit_duration_seconds_bucket"

    def labelled() -> set[str]:
        names = {name for name in running.samples() if name.startswith(PREFIX) and "{" in name}
        return {name for name in names if not name.startswith((buckets, f"{PREFIX}build_info"))}

    assert labelled() == labels
    size = len(running.samples())
    for nick in ("ana", "bea"):
        running.peer(nick).say(f"/join {nick}", "hola")
    assert labelled() == labels and len(running.samples()) == size


def get(address: tuple[object, ...], path: str = "/metrics", **headers: str) -> Answer:
    connection = HTTPConnection(str(address[0]), int(str(address[1])), timeout=DEADLINE)
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    answer = Answer(response.status, response.getheader("Content-Type"), response.read())
    connection.close()
    return answer


def test_over_http(serve: Serve) -> None:
    """On the web port to loopback only, whoever that is behind a proxy; on the other to anybody."""
    server = serve("--metrics-port", "0", "--trust-proxy", f"{PROXY}/32")
    line = server.log[server.log.wait(lambda line: line.startswith("Métricas en "))]
    match = re.fullmatch(r"Métricas en http://([\d.]+):(\d+)/", line)
    assert match and server.web
    assert server.log.all()[-1].startswith("Servidor chat iniciado en ")
    metrics = match[1], int(match[2])
    answer = get(server.web)
    assert (answer.status, answer.type) == (200, CONTENT_TYPE)
    samples = parse(answer.body)
    assert samples[PREFIX + "connections_accepted_total{kind=browser}"] == 1
    assert get(metrics).body == answer.body, "made anew within a second"
    for path in ("/", "/ws", "/healthz"):
        assert get(metrics, path).status == 404
    stranger = {"X_Forwarded_For": "192.0.2.1"}
    assert get(server.web, **stranger).status == 200, "who says so is no trusted proxy"
    for address, status in ((server.web, 403), (metrics, 200)):
        with socket.create_connection(address, DEADLINE, (PROXY, 0)) as proxy:
            proxy.sendall(
                b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"X-Forwarded-For: 192.0.2.1\r\n\r\n"
            )
            assert proxy.makefile("rb").readline().split()[1] == b"%d" % status


@pytest.mark.parametrize("door", [0, 1], ids=["lines", "web"])
def test_what_tls_takes_goes_with_the_connection(running: Running, door: int) -> None:
    """OpenSSL's memory is not seen by the garbage collector, which would leave it for long."""
    context = ssl._create_unverified_context()
    gc.collect()
    gc.disable()
    try:
        with socket.create_connection(running.address(door), DEADLINE) as raw:
            sock = context.wrap_socket(raw)
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" if door else b"ana\n")
            assert sock.recv(1)
            sock.close()
        for data in (b"", b"junk junk\n", b"\x16\x03\x01\x02\x00\x01"):
            Peer(running.address(door)).send(data)
        wait_until(lambda: running.server.counters.tls_handshakes == 4, "four handshakes")
        for connection in running.do(lambda: list(running.server.connections)):
            running.do(partial(connection.abort, Reason.NO_TLS))
        del connection
        wait_until(lambda: not running.server.connections, "connections that have not ended")
        assert not [each for each in gc.get_objects() if isinstance(each, Layer)]
    finally:
        gc.enable()
    assert running.server.counters.tls_failures == 3


@pytest.fixture
def in_memory() -> Iterator[Running]:
    with closing(Running("--db", ":memory:")) as server:
        yield server


def test_websocket_handshakes(in_memory: Running) -> None:
    web = in_memory.address(0)
    assert get(web, "/ws").status == 426
    assert get(web, "/").status == 200
    key = {"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec_WebSocket_Version": "13"}
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", **key}
    assert get(web, "/ws", Origin="http://example.org", **upgrade).status == 403
    assert in_memory.samples()[PREFIX + "clients{kind=browser}"] == 0
    with socket.create_connection(web, DEADLINE) as browser:
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in upgrade.items()]
        browser.sendall(f"GET /ws HTTP/1.1\r\nHost: x\r\n{''.join(lines)}\r\n".encode())
        assert browser.makefile("rb").readline().split()[1] == b"101"
        samples = in_memory.samples()
    assert samples[PREFIX + "websocket_handshakes_total"] == 3
    assert samples[PREFIX + "websocket_handshake_failures_total"] == 2
    assert samples[PREFIX + "clients{kind=browser}"] == 1
    assert samples[PREFIX + "people"] == 0


def test_a_port_that_is_taken_for_the_metrics(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"No se puede escuchar en .*{port}"):
            serve("--metrics-port", str(port))
