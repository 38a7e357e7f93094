"""Put a chat server under load at a fixed rate, and say how late each delivery is.

    python -m benchmarks.load --server epoll --clients 1000 --senders 10 --rate 200
    python -m benchmarks.load --connect 127.0.0.1:8080 --json -

An open loop: messages leave on a schedule, however slow the server is. Message k of the room is due
k / RATE after the start, and the latency of a delivery is the time at which it is read minus that:
a message that left late, because server or load were busy, counts from when it should have left.
Every delivery is checked; a line that is lost, doubled, out of order or under another's name ends
the run with one line on stderr and without any number. The load is harness/flood.c.

Exit status: 0; 1: no result, and one line on stderr says why; 2: bad arguments; 130, 143 and 129
after SIGINT, SIGTERM and SIGHUP, which still print what was measured until then.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback out of the imports

import argparse
import io
import json
import math
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.harness.compiled import CompileError
from benchmarks.harness.cpus import pinned, two_cpus
from benchmarks.harness.crowd import DeliveryError
from benchmarks.harness.environment import environment, sentence
from benchmarks.harness.flood import FloodInC
from benchmarks.harness.process import DEADLINE, ServerError, descriptor_limit_raised, has_ended
from benchmarks.harness.roster import PEERS
from benchmarks.harness.server import BROWSERS, SERVERS, SILENT, Server

LATE = 1000
"""The p99 of the microseconds by which messages left late, above which a result is said to be the
load's, too."""
BUSY = 90
"""The percentage of a CPU that the load used, above which this is said, too."""
PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")


@dataclass(frozen=True)
class Elsewhere:
    """A server that runs already, of whose process nothing is known."""

    address: tuple[Any, ...]
    asks: bool
    websocket: bool
    pid: int = 0
    tls: None = None


class Signals:
    """SIGINT, SIGTERM and SIGHUP. The first is noted, so that the load ends with what it has; while
    there is no load yet, it raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.number = 0
        self.loaded = False
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._note)

    def _note(self, signum: int, _frame: object) -> None:
        self.number = self.number or signum
        if not self.loaded:
            raise KeyboardInterrupt


def run(args: argparse.Namespace, signals: Signals) -> dict[str, Any]:
    """What was asked for, and what came of it."""
    cpu, load_cpu = two_cpus() if args.pin and args.server else (None, None)
    with ExitStack() as stack:
        stack.enter_context(descriptor_limit_raised())
        stack.enter_context(pinned(load_cpu))
        server = None
        if args.server:
            quiet = ["--quiet"] if args.server in SERVERS else []
            server = Server(args.server, arguments=quiet, cpu=cpu, tied=True, asks=args.asks)
            stack.enter_context(server)
        empty = server.resident_kib() if server else 0
        # So many can be under way before the oldest of them is a delivery that did not come.
        in_flight = math.ceil(args.rate * args.deadline / args.senders) + 2
        sizes = (args.clients, args.senders, in_flight, args.size)
        target = server or Elsewhere(address_of(*args.connect), args.asks, args.web)
        try:
            load = stack.enter_context(FloodInC(target, *sizes, deadline=args.deadline))
            signals.loaded = True
            warm_up, messages = (round(args.rate * t) for t in (args.warm_up, args.duration))
            answer = load.at_rate(args.rate, warm_up, messages, lambda: signals.number > 0)
            resident = server.resident_kib() if server else 0
        except (DeliveryError, OSError, AssertionError) as error:
            dead = server and has_ended(server.process.pid, 0.5)
            raise ServerError(obituary(server) if server and dead else error) from None
    return report(args, answer, (cpu, load_cpu), (empty, resident) if server else None)


def address_of(host: str, port: int) -> tuple[Any, ...]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4]
    except OSError as error:
        raise ServerError(f"{host}: {error.strerror}") from None


def obituary(server: Server) -> str:
    status = server.process.wait()
    how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    last = server.errors.rest()[-1:]
    return f"the server has ended: {how}" + (f"; stderr: {last[0]}" if last else "")


def report(
    args: argparse.Namespace,
    answer: dict[str, Any],
    cpus: tuple[int | None, int | None],
    memory: tuple[int, int] | None,
) -> dict[str, Any]:
    measured, seconds = answer["measured_deliveries"], answer["window_seconds"]
    deliveries, segments = answer["deliveries"], answer["segments"] or None
    process = None
    if memory and measured:
        process = {
            "cpu_seconds": answer["cpu_seconds"],
            "cpu_percent": 100 * answer["cpu_seconds"] / seconds,
            "cpu_us_per_delivery": 1e6 * answer["cpu_seconds"] / answer["in_window"],
            "resident_kib": memory[1],
            "resident_kib_empty": memory[0],
            "resident_kib_per_client": (memory[1] - memory[0]) / args.clients,
        }
    return {
        "server": args.server or join(*args.connect),
        "parameters": parameters(args),
        "pinning": {"server": cpus[0], "load": cpus[1]} if cpus[0] is not None else None,
        "interrupted": answer["interrupted"],
        "seconds": seconds,
        "messages": answer["messages"],
        "deliveries": measured,
        "warm_up_deliveries": deliveries - measured,
        "deliveries_per_second": answer["in_window"] / seconds if seconds > 0 else None,
        "latency_us": percentiles(answer["latency"]) if measured else None,
        "send_lateness_us": percentiles(answer["lateness"]),
        "messages_held_back": answer["held_back"],
        "data_segments": segments,
        "messages_per_data_segment": deliveries / segments if segments else None,
        "load_cpu_percent": 100 * answer["load_cpu_seconds"] / seconds if measured else None,
        "server_process": process,
        "environment": environment(command(args)),
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Microseconds; a value is exact to 0.8 %, the largest to its end."""
    return {name: round(value * 1e6, 3) for name, value in zip(PERCENTILES, seconds)}


def parameters(args: argparse.Namespace) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(args).items()
        if name not in ("server", "connect", "json")
    }


def command(args: argparse.Namespace) -> list[str]:
    """The command line that does the same again, whatever the defaults will be."""
    target = ["--server", args.server] if args.server else ["--connect", join(*args.connect)]
    words = ["python", "-m", "benchmarks.load", *target]
    for name, value in parameters(args).items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", f"{value:g}" if isinstance(value, float) else str(value)]
    return words


def join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The report, to be read: what was run, what was seen, what to doubt, on what."""
    asked, us, late = result["parameters"], result["latency_us"], result["send_lateness_us"]
    yield (
        f"{result['server']}: {asked['clients']:,} clients, of which {asked['senders']:,} send "
        f"{asked['rate']:g} messages of {asked['size']} bytes per second in all, for "
        f"{asked['duration']:g} s after {asked['warm_up']:g} s of warm-up"
    )
    if result["pinning"]:
        yield "the server on CPU {server}, the load on CPU {load}".format(**result["pinning"])
    else:
        yield "nothing is pinned to a CPU"
    if result["interrupted"]:
        missing = result["messages"] * (asked["clients"] - 1) - result["deliveries"]
        yield (
            f"interrupted after {max(0.0, result['seconds']):.2f} s: the latencies lack "
            f"{missing:,} deliveries that were under way"
        )
    yield ""
    if not us:
        yield "nothing was measured yet"
        return
    rows = [
        ("messages", f"{result['messages']:,}"),
        ("deliveries", f"{result['deliveries']:,}, each checked"),
        ("deliveries per second", f"{result['deliveries_per_second']:,.0f}"),
        *((f"latency {name}", f"{value / 1000:,.3f} ms") for name, value in us.items()),
        ("messages per data segment", f"{result['messages_per_data_segment'] or math.nan:.2f}"),
    ]
    process = result["server_process"]
    if process:
        used = f"{process['cpu_seconds']:.3f} s, {process['cpu_percent']:.0f} % of one"
        rows += [
            ("server CPU", used),
            ("server CPU per delivery", f"{process['cpu_us_per_delivery']:.2f} µs"),
            ("server memory", f"{process['resident_kib']:,} KiB"),
            ("  more per client", f"{process['resident_kib_per_client']:.1f} KiB"),
        ]
    left_late = f"p99 {late['p99'] / 1000:,.3f} ms, max {late['max'] / 1000:,.3f} ms"
    rows.append(("messages sent late by", left_late))
    rows.append(("load", f"{result['load_cpu_percent']:.0f} % of a CPU"))
    yield from (f"{title:27}{text}" for title, text in rows)
    yield ""
    doubts = ["sent late"] * (late["p99"] > LATE)
    doubts += ["had hardly any CPU left"] * (result["load_cpu_percent"] > BUSY)
    if doubts:
        yield (
            f"The load {' and '.join(doubts)}: a part of these latencies is its own. Fewer "
            "clients, a lower rate, or a CPU that nobody else uses help."
        )
    if result["messages_held_back"]:
        yield f"{result['messages_held_back']:,} messages were held back: the server did not read."
    yield sentence(result["environment"])


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line."""
        self.exit(2, f"load.py: {message}\n")


def positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise argparse.ArgumentTypeError(f"{text}: an IPv6 address stands in brackets")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    return host, int(port)


def parse_args() -> argparse.Namespace:
    parser = Parser(
        prog="load.py",
        description="Put a chat server under load at a fixed rate; measure each delivery.",
        allow_abbrev=False,
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--server", help='a name of ours or of a peer, or "COMMAND with {port}"')
    target.add_argument(
        "--connect", type=host_and_port, metavar="HOST:PORT", help="a server that runs already"
    )
    add = parser.add_argument
    add("--clients", type=int, default=1000, help="all of them listen (%(default)s)")
    add("--senders", type=int, default=10, help="so many of them speak, too (%(default)s)")
    add("--rate", type=positive, default=200.0, help="messages per second in all (%(default)g)")
    add("--size", type=int, default=32, help="bytes of a message, newline included (%(default)s)")
    add("--duration", type=positive, default=10.0, help="seconds that count (%(default)g)")
    add("--warm-up", type=float, default=1.0, help="seconds before that (%(default)g)")
    add(
        "--deadline",
        type=positive,
        default=DEADLINE,
        help="seconds after which a delivery counts as lost (%(default)g)",
    )
    add(
        "--pin",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="server on the first CPU, load on the second; not with --connect (yes)",
    )
    add(
        "--asks",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="the server asks for a nick first; v5 is known to (no)",
    )
    add(
        "--web",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="the clients are browsers; only with --connect, of others it is known (no)",
    )
    add("--json", metavar="FILE", help="everything as JSON; -: to stdout, the table to stderr")
    args = parser.parse_args()
    if problem := nonsense(args):
        parser.error(problem)
    return args


def nonsense(args: argparse.Namespace) -> str | None:
    """What is wrong with arguments that argparse has taken."""
    if args.clients < 2:
        return f"--clients {args.clients}: it takes two, one to speak and one to listen"
    if not 1 <= args.senders <= args.clients:
        return f"--senders {args.senders}: must be 1 to {args.clients}, the number of clients"
    if not 9 <= args.size <= 65536:
        return f"--size {args.size}: must be 9, for a number and the newline, to 65536"
    if not 0 <= args.warm_up < math.inf:
        return f"--warm-up {args.warm_up:g}: must be 0 or more"
    if round(args.rate * args.duration) < 1:
        return f"--rate {args.rate:g} --duration {args.duration:g}: that is no message at all"
    if args.rate * (args.warm_up + args.duration) / args.senders > 10**8:
        return "more messages from a sender than eight digits can count"
    if args.server in SILENT:
        return f"--server {args.server}: it does not broadcast, so nothing is delivered"
    names = (*SERVERS, BROWSERS, *PEERS)
    if args.server and "{port}" not in args.server and args.server not in names:
        known = ", ".join(name for name in names if name not in SILENT)
        return f"--server {args.server}: neither a command with {{port}} nor one of {known}"
    if args.json and args.json != "-" and not os.access(Path(args.json).parent, os.W_OK):
        return f"--json {args.json}: cannot be written"
    return None


def main() -> int:
    args = parse_args()
    signals = Signals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        result = run(args, signals)
        text = "\n".join(lines(result))
        if args.json == "-":
            print(text, file=sys.stderr)
            print(json.dumps(result, indent=2), flush=True)
        else:
            print(text, flush=True)
            if args.json:
                Path(args.json).write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    except KeyboardInterrupt:
        print("load.py: interrupted before the clock started: no result", file=sys.stderr)
    except (CompileError, ServerError) as error:
        print(f"load.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  a closed pipe is not flushed at exit
        print(f"load.py: {error.filename or 'stdout'}: {error.strerror}", file=sys.stderr)
        return 1
    return 128 + signals.number if signals.number else 0


if __name__ == "__main__":
    sys.exit(main())
