"""Measure what a chat of several servers on one NATS costs: each of the servers, and NATS.

    python -m benchmarks.scale --output benchmarks/results

The clients are in one room and go to the servers in turn, so do the senders. Each load runs on 1, 2
and 4 servers with `--bus`, and on one without:

    flood 100, flood 1000   as in benchmarks.compare
    alone 100               one message, all its deliveries, the next: its latency, and what a
                            message costs that comes by itself

Besides, 1000 clients are on one of two servers: what the other one, which has none, uses is what it
costs a server to read the stream and to know who is elsewhere. Every delivery is checked.

It writes scale.json, a sample for each round. What is measured shares the CPUs of one machine, so
CPU time tells something here, and throughput does not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness.broker import Nats, version
from benchmarks.harness.crowd import DeliveryError
from benchmarks.harness.environment import environment
from benchmarks.harness.files import OutputError, output_folder
from benchmarks.harness.flood import FloodInC
from benchmarks.harness.process import ServerError, cpu_seconds, free_port
from benchmarks.harness.server import Server

SERVERS = (0, 1, 2, 4)
"""0: one without a bus."""
LOADS = {"flood 100": (100, 5, 4), "flood 1000": (1000, 10, 4), "alone 100": (100, 1, 1)}
"""Clients, senders, messages that each has in flight."""
DELIVERIES = {"flood 100": 200_000, "flood 1000": 400_000, "alone 100": 30_000}
ELSEWHERE = 1000
"""Clients of one server, of whom the other one knows."""
COUNTERS = ("in_msgs", "out_msgs", "in_bytes", "out_bytes")
SIZE = 32


class Chat:
    """Servers of one chat, and the nats-server that they share, if they are on a bus."""

    def __init__(self, servers: list[Server], nats: Nats | None, monitor: int):
        self.servers, self.nats, self._monitor = servers, nats, monitor

    def figures(self) -> list[float]:
        """CPU seconds of NATS, its counters, CPU seconds of each server."""
        servers = [server.cpu_seconds() for server in self.servers]
        if not self.nats:
            return [0.0] * (1 + len(COUNTERS)) + servers
        assert self.nats.process
        with urllib.request.urlopen(f"http://127.0.0.1:{self._monitor}/varz", timeout=5) as answer:
            counters = json.load(answer)
        used = cpu_seconds(self.nats.process.pid)
        return [used, *(counters[name] for name in COUNTERS), *servers]

    def load(self, name: str, deliveries: int, servers: int = 0) -> dict[str, Any]:
        """What a load on the first so many of them costs; default: on all."""
        clients, senders, in_flight = LOADS[name]
        first, *others = self.servers[: servers or None]
        messages = max(in_flight + 1, deliveries // (clients - 1) // senders)
        with FloodInC(first, clients, senders, in_flight, SIZE, others=others) as load:
            load.run(max(in_flight + 1, messages // 5))
            before = self.figures()
            measured = load.run(messages)
            used = [after - start for after, start in zip(self.figures(), before)]
        return {
            "messages": messages * senders,
            "deliveries": measured.deliveries,
            "wall_seconds": measured.wall_seconds,
            "p50_seconds": measured.p50_seconds,
            "nats_cpu_seconds": round(used[0], 6),
            "nats": dict(zip(COUNTERS, used[1:])),
            "cpu_seconds": [round(seconds, 6) for seconds in used[1 + len(COUNTERS) :]],
        }


@contextmanager
def chat(count: int) -> Iterator[Chat]:
    """So many servers on a fresh NATS; 0: one without."""
    with ExitStack() as stack:
        nats, monitor, bus = None, free_port(), []
        if count:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sock_chat-"))
            settings = f"jetstream {{}}\nhttp: 127.0.0.1:{monitor}\n"
            nats = stack.enter_context(Nats(Path(folder), settings))
            bus = ["--bus", nats.url]
        arguments = ["--quiet", *bus]
        servers = [
            stack.enter_context(Server("v5", arguments=arguments)) for _ in range(count or 1)
        ]
        yield Chat(servers, nats, monitor)


def elsewhere(deliveries: int) -> dict[str, Any]:
    """Two servers, one of which has all clients."""
    with chat(2) as two:
        two.load("alone 100", 0, servers=1)  # pays for what is allocated once
        before = [server.private_kib() for server in two.servers]
        with FloodInC(two.servers[0], ELSEWHERE, 1, 1, SIZE):
            after = [server.private_kib() for server in two.servers]
        loads = {name: two.load(name, deliveries, servers=1) for name in ("alone 100", "flood 100")}
    grown = [(end - start) / ELSEWHERE for start, end in zip(before, after)]
    return {"kib_per_client": grown[0], "kib_per_client_elsewhere": grown[1], "base_kib": before,
            "loads": loads}  # fmt: skip


def measure(rounds: int, part: float) -> dict[str, Any]:
    samples = []
    for number in range(rounds):
        for count in SERVERS:
            for name, deliveries in DELIVERIES.items():
                print(
                    f"round {number + 1} of {rounds}: {name}, {count}", file=sys.stderr, flush=True
                )
                with chat(count) as servers:
                    sample = servers.load(name, int(deliveries * part))
                samples.append({"servers": count, "load": name, "round": number, **sample})
    apart = [elsewhere(int(DELIVERIES["flood 100"] * part)) for _ in range(rounds)]
    return {"samples": samples, "elsewhere": apart}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    help = "of the messages; a small part shows that it runs, and measures nothing"
    parser.add_argument("--part", type=float, default=1.0, metavar="X", help=help)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    command = ["python", "-m", "benchmarks.scale"]
    command += ["--rounds", str(args.rounds)] if args.rounds != 3 else []
    command += ["--part", str(args.part)] if args.part != 1 else []
    try:
        with output_folder(args.output) as folder:
            about = {**environment(command), "nats-server": version()}
            results = {
                "environment": about,
                "message_bytes": SIZE,
                **measure(args.rounds, args.part),
            }
            (folder / "scale.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    except (DeliveryError, OSError, OutputError, ServerError) as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
