"""The benchmarks' way of driving a room: that it counts right, and that it believes no server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.harness.crowd import Crowd, DeliveryError
from benchmarks.harness.environment import environment, sentence
from benchmarks.harness.server import ROOT, Server, ServerError, pinned, two_cpus
from benchmarks.harness.strace import calls, calls_between, window

Spoil = Callable[[bytes, int], list[bytes]]
"""What a dishonest server makes of a line, and of the number of lines before it."""


class DishonestServer:
    """A chat room in a few threads that spoils what it passes on."""

    def __init__(self, spoil: Spoil, echo: bool = False):
        self.spoil, self.echo = spoil, echo
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.clients: list[socket.socket] = []
        self.lock = threading.Lock()
        self.lines = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, addr = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.clients.append(sock)
            threading.Thread(target=self._serve, args=(sock, addr), daemon=True).start()

    def _serve(self, sock: socket.socket, addr: object) -> None:
        try:
            for line in sock.makefile("rb"):
                with self.lock:
                    told = [b"%s dice: %s" % (str(addr).encode(), line)]
                    if not line.startswith(b"ready"):  # the barrier of those who come in
                        told = self.spoil(told[0], self.lines)
                        self.lines += 1
                    for client in self.clients:
                        if client is not sock or self.echo:
                            client.sendall(b"".join(told))
        except OSError:
            return

    def close(self) -> None:
        self.listener.close()
        with self.lock:
            for client in self.clients:
                client.close()


@pytest.fixture
def dishonest() -> Iterator[Callable[..., DishonestServer]]:
    made: list[DishonestServer] = []

    def make(spoil: Spoil, echo: bool = False) -> DishonestServer:
        made.append(DishonestServer(spoil, echo))
        return made[-1]

    yield make
    for server in made:
        server.close()


def held_back(line: bytes, number: int) -> list[bytes]:
    """Every fourth line comes after the one behind it."""
    kept.append(line)
    if number % 4 == 2:
        return []
    told = kept[::-1]
    kept.clear()
    return told


kept: list[bytes] = []

SPOILERS: dict[str, Spoil] = {
    "doubled": lambda line, number: [line] * (1 + (number == 5)),
    "lost": lambda line, number: [line] * (number != 5),
    "another's name": lambda line, number: [line.replace(b"127.0.0.1", b"127.0.0.9", number == 5)],
    "changed": lambda line, number: [line.replace(b"0", b"1", 9 if number == 5 else 0)],
    "no name": lambda line, number: [line if number != 5 else line.partition(b" dice: ")[2]],
    "reordered": held_back,
}


@pytest.mark.parametrize("how", SPOILERS)
@pytest.mark.parametrize("load", ["lock-step", "flood"])
def test_a_spoiled_delivery_is_an_error(
    dishonest: Callable[..., DishonestServer],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    load: str,
) -> None:
    monkeypatch.setattr("benchmarks.harness.crowd.DEADLINE", 0.3)  # what is lost is waited for
    kept.clear()
    server = dishonest(SPOILERS[how])
    with Crowd(server.listener.getsockname(), 3) as crowd:

        def drive() -> None:
            if load == "lock-step":
                crowd.lock_step(12)
            else:
                crowd.flood(senders=2, messages=12)
            crowd.assert_silent()

        with pytest.raises(DeliveryError):
            drive()


def test_an_echo_is_an_error(dishonest: Callable[..., DishonestServer]) -> None:
    server = dishonest(lambda line, number: [line], echo=True)
    with Crowd(server.listener.getsockname(), 3, broadcasts=False) as crowd:  # noqa: SIM117
        with pytest.raises(DeliveryError):
            crowd.flood(senders=2, messages=12)


def test_a_server_that_closes_is_an_error() -> None:
    with Server("v3") as server, Crowd(server.address, 3) as crowd:
        server.kill()
        with pytest.raises(DeliveryError):
            crowd.lock_step(1)


@pytest.mark.servers("v4", "epoll")
def test_loads_count_what_they_say(name: str) -> None:
    """And the server has said just that: its log is the witness."""
    with Server(name) as server, Crowd(server.address, 5) as crowd:
        timings: list[float] = []
        assert crowd.lock_step(7, timings=timings) == 7 * 4
        assert len(timings) == 7
        assert crowd.flood(senders=2, messages=50, in_flight=3, size=40) == 2 * 50 * 4
        assert crowd.lock_step(3) == 3 * 4
        crowd.assert_silent()
        assert server.stop() == 0
        said = [line for line in server.log.rest() if " dice: 0" in line]
    assert len(said) == 7 + 100 + 3


def test_unknown_server() -> None:
    with pytest.raises(ServerError, match=r"'v9' is neither one of v1, .* nor a command"):
        Server("v9")


def test_pinned_is_for_what_is_started_meanwhile() -> None:
    server_cpu, load_cpu = two_cpus()
    if server_cpu is None:
        pytest.skip("one CPU only")
    before = os.sched_getaffinity(0)
    with pinned(load_cpu), Server("v3", cpu=server_cpu) as server:
        assert os.sched_getaffinity(server.pid) == {server_cpu}
        assert os.sched_getaffinity(0) == {load_cpu}
    assert os.sched_getaffinity(0) == before


def test_environment_names_what_a_result_needs() -> None:
    found = environment(["python", "-m", "benchmarks.compare", "--quick"])
    assert found["command"] == "python -m benchmarks.compare --quick"
    assert {"date", "cpu", "cpus", "kernel", "python"} <= found.keys()
    assert str(ROOT) not in json.dumps(environment())
    for value in found.values():
        assert value in sentence(found)


TRACE = """\
7 epoll_wait(3, [{events=EPOLLIN, data={u32=5}}], 1023, -1) = 1
7 recvfrom(5, "first.\\n", 16384, 0, NULL, NULL) = 7
8 futex(0x1, FUTEX_WAIT <unfinished ...>
7 sendto(6, "x", 1, 0, NULL, 0) = 1
8 <... futex resumed>) = 0
7 epoll_pwait(3, [], 1023, -1, NULL, 8) = 1
7 read(5, "last.\\n", 16384) = 6
"""


def test_trace_is_cut_where_messages_were_received() -> None:
    assert calls_between(TRACE, "first.", "last.") == ["recvfrom", "sendto", "futex", "epoll_wait"]
    with pytest.raises(ValueError, match="'never'"):
        window(calls(TRACE), "first.", "never")


def test_benchmarks_run_with_one_option_and_write_json(tmp_path: Path) -> None:
    """A few of them, for real; `pytest` alone runs none."""
    file = tmp_path / "benchmarks.json"
    some = "one-10-epoll or broadcast and 2-epoll-et or trickle and 10-v3 or 1-coalesced"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "benchmarks", "-k"]
    options = ["--benchmark-only", f"--benchmark-json={file}", "--benchmark-max-time=0.05"]
    run = subprocess.run(
        [*command, some, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(file.read_text())
    assert {"date", "cpu", "kernel", "python"} <= result["sock_chat"].keys()
    by_name = {entry["name"].split("[")[0]: entry for entry in result["benchmarks"]}
    assert by_name.keys() == {"test_readiness", "test_broadcast", "test_trickle", "test_fanout"}
    info = by_name["test_broadcast"]["extra_info"]
    assert info["deliveries"] == 20
    if "system calls per round" in info:
        assert info["system calls per round"] == {"epoll_wait": 1, "recvfrom": 1, "sendto": 1}
    assert all(entry["stats"]["median"] > 0 for entry in result["benchmarks"])
